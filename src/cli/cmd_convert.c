// SPDX-License-Identifier: Apache-2.0
// `mica convert`: a GGUF file or a Hugging Face folder becomes an MLX folder. Ctrl-C stops it cleanly: the library
// removes what is half written.
#include "cli/cmd.h"
#include "mica/convert.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef struct progress {
    bool shown;
    uint64_t total;
} progress;

/** Between tensors: draws the bar, and asks whether to go on. */
static bool on_progress(void *ctx, const char *tensor, uint64_t done, uint64_t total) {
    progress *p = ctx;
    p->total = total;
    if (p->shown) {
        enum { WIDTH = 30 };
        int filled = total ? (int)((double)done / (double)total * WIDTH) : WIDTH;
        fprintf(stderr, "\r%3d%% [%-*.*s] %-48.48s", (int)(total ? 100.0 * (double)done / (double)total : 100.0), WIDTH, filled,
                "##############################", tensor);
    }
    return !mica_cli_stopped();
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int report(const mica_cli_args *args, double seconds) {
    const char *dst = args->words[1];
    mica_info info = {0};
    mica_error err = {0};
    if (!mica_info_read(dst, &info, &err)) return mica_cli_fail_error(dst, &err);
    if (args->json) {
        mica_cli_json j = {.out = stdout};
        mica_cli_json_open(&j, NULL, '{');
        mica_cli_json_string(&j, "path", dst);
        mica_cli_json_string(&j, "architecture", info.architecture);
        mica_cli_json_int(&j, "parameters", info.parameters);
        mica_cli_json_int(&j, "quant_bits", info.quant_bits);
        mica_cli_json_int(&j, "quant_group", info.quant_group);
        mica_cli_json_string(&j, "quant_mode", info.quant_mode);
        mica_cli_json_int(&j, "bytes_on_disk", info.bytes_on_disk);
        mica_cli_json_double(&j, "seconds", seconds);
        mica_cli_json_close(&j, '}');
        mica_cli_json_end(&j);
    } else {
        char bytes[32];
        printf("%s: %s, %s", dst, info.architecture, mica_cli_bytes(info.bytes_on_disk, bytes, sizeof bytes));
        if (info.quant_bits) printf(", %s %d bits in groups of %d\n", info.quant_mode, info.quant_bits, info.quant_group);
        else printf(", dense\n");
    }
    return MICA_EXIT_DONE;
}

static int convert(const mica_cli_args *args, const mica_convert_options *options, progress *p) {
    char *src = mica_cli_model_path(args->words[0]);
    if (!src) return MICA_EXIT_FAILED;
    mica_error err = {0};
    double start = now();
    mica_cli_watch_flag();
    bool ok = mica_convert(src, args->words[1], options, &err);
    mica_cli_watch(NULL);
    if (p->shown) fprintf(stderr, "\r%*s\r", 90, "");
    free(src);
    if (ok) return report(args, now() - start);
    if (mica_cli_stopped()) return MICA_EXIT_STOPPED;
    return mica_cli_fail_error("convert", &err);
}

static int run(const mica_cli_args *args) {
    progress p = {.shown = !args->quiet && isatty(STDERR_FILENO)};
    mica_convert_options options = {.bits = args->bits, .group_size = args->group_size, .dtype = args->dtype, .threads = args->threads,
                                    .progress = on_progress, .progress_ctx = &p};
    if (args->mode && !mica_quant_mode_parse(args->mode, &options.mode)) {
        const char *names[MICA_QUANT_MODE_COUNT];
        for (int m = 0; m < MICA_QUANT_MODE_COUNT; m++) names[m] = mica_quant_mode_name((mica_quant_mode)m);
        return mica_cli_usage("convert", "--mode: no mode \"%s\"; the nearest is %s", args->mode,
                              mica_cli_nearest(args->mode, names, MICA_QUANT_MODE_COUNT));
    }
    if (args->mode && !args->bits) options.bits = mica_quant_default(options.mode).bits; // the mode alone means: quantise
    return convert(args, &options, &p);
}

#define AT(field) offsetof(mica_cli_args, field)
static const mica_cli_option options[] = {
    {"bits", 0, MICA_CLI_INT, AT(bits), 2, 8, "B", "quantise to B bits: affine 2, 3, 4, 5, 6, 8 (default 4 if another of these is given)"},
    {"group-size", 0, MICA_CLI_INT, AT(group_size), 1, 1024, "N", "weights that share a scale: affine 32, 64, 128 (default 64)"},
    {"mode", 0, MICA_CLI_STRING, AT(mode), 0, 0, "MODE", "affine (default), mxfp4, nvfp4 or mxfp8"},
    {"dtype", 0, MICA_CLI_STRING, AT(dtype), 0, 0, "TYPE", "f32, f16 or bf16 for what is not quantised (default: as SRC; GGUF: bf16)"},
    {.name = NULL},
};

const mica_cli_command mica_cli_convert = {
    .name = "convert",
    .synopsis = "SRC DST",
    .summary = "make an MLX folder of a GGUF file or a Hugging Face folder",
    .description =
        "Writes SRC, a model folder or .gguf file, as an MLX folder that mica and mlx-lm load: dense, or quantised if --bits,\n"
        "--group-size or --mode is given. DST must not exist or be empty; after a failure or Ctrl-C nothing is left of it.",
    .example = "mica convert gemma-3-1b-it gemma-3-1b-4bit --bits 4\nmica convert model.gguf model-bf16",
    .min_words = 2,
    .max_words = 2,
    .groups = MICA_CLI_COMMON,
    .options = options,
    .run = run,
};
