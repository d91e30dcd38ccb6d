// SPDX-License-Identifier: Apache-2.0
// What `mica convert` and `mica fuse` share.
#include "cli/conversion.h"
#include "cli/lines.h"
#include <unistd.h>

/** Between tensors: draws the bar, and asks whether to go on. */
static bool on_progress(void *ctx, const char *tensor, uint64_t done, uint64_t total) {
    const mica_cli_conversion *c = ctx;
    if (c->shown) {
        enum { WIDTH = 30 };
        int filled = total ? (int)((double)done / (double)total * WIDTH) : WIDTH;
        fprintf(stderr, "\r%3d%% [%-*.*s] %-48.48s", (int)(total ? 100.0 * (double)done / (double)total : 100.0), WIDTH, filled,
                "##############################", tensor);
    }
    return !mica_cli_stopped();
}

bool mica_cli_conversion_begin(mica_cli_conversion *c, const mica_cli_args *args, const char *command) {
    *c = (mica_cli_conversion){.shown = !args->quiet && isatty(STDERR_FILENO), .started = mica_cli_seconds()};
    c->options = (mica_convert_options){.bits = args->bits, .group_size = args->group_size, .dtype = args->dtype, .threads = args->threads,
                                        .progress = on_progress, .progress_ctx = c};
    if (!mica_cli_here(args, command)) return false;
    if (args->mode && !mica_quant_mode_parse(args->mode, &c->options.mode)) {
        const char *names[MICA_QUANT_MODE_COUNT];
        for (int m = 0; m < MICA_QUANT_MODE_COUNT; m++) names[m] = mica_quant_mode_name((mica_quant_mode)m);
        mica_cli_usage(command, "--mode: no mode \"%s\"; the nearest is %s", args->mode, mica_cli_nearest(args->mode, names, MICA_QUANT_MODE_COUNT));
        return false;
    }
    if (args->mode && !args->bits) c->options.bits = mica_quant_default(c->options.mode).bits; // the mode alone means: quantise
    mica_cli_watch_flag();
    return true;
}

int mica_cli_conversion_end(mica_cli_conversion *c, bool ok, const char *command, const mica_error *err) {
    mica_cli_watch(NULL);
    if (c->shown) fprintf(stderr, "\r%*s\r", 90, "");
    if (ok) return MICA_EXIT_DONE;
    return mica_cli_stopped() ? MICA_EXIT_STOPPED : mica_cli_fail_error(command, err);
}

bool mica_cli_conversion_report(const mica_cli_conversion *c, const mica_cli_args *args, const char *dst, mica_cli_json *j) {
    mica_info info = {0};
    mica_error err = {0};
    if (!mica_info_read(dst, &info, &err)) return mica_cli_fail_error(dst, &err), false;
    if (!args->json) {
        char bytes[32];
        printf("%s: %s, %s", dst, info.architecture, mica_cli_bytes(info.bytes_on_disk, bytes, sizeof bytes));
        if (info.quant_bits) printf(", %s %d bits in groups of %d\n", info.quant_mode, info.quant_bits, info.quant_group);
        else printf(", dense\n");
        return true;
    }
    mica_cli_json_string(j, "path", dst);
    mica_cli_json_string(j, "architecture", info.architecture);
    mica_cli_json_int(j, "parameters", info.parameters);
    mica_cli_json_int(j, "quant_bits", info.quant_bits);
    mica_cli_json_int(j, "quant_group", info.quant_group);
    mica_cli_json_string(j, "quant_mode", info.quant_mode);
    mica_cli_json_int(j, "bytes_on_disk", info.bytes_on_disk);
    mica_cli_json_double(j, "seconds", mica_cli_seconds() - c->started);
    return true;
}
