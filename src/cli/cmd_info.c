// SPDX-License-Identifier: Apache-2.0
// `mica info`: what a model is and needs, read without loading its weights; without MODEL, what this machine offers.
#include "cli/cmd.h"
#include "mica/backend.h"
#include "mica/machine.h"
#include <stdlib.h>
#include <string.h>

static void json_model(const mica_info *i, const char *path, int32_t context) {
    mica_cli_json j = {.out = stdout};
    mica_cli_json_open(&j, NULL, '{');
    mica_cli_json_string(&j, "path", path);
    mica_cli_json_string(&j, "architecture", i->architecture);
    mica_cli_json_int(&j, "vocab_size", i->vocab_size);
    mica_cli_json_int(&j, "num_layers", i->num_layers);
    mica_cli_json_int(&j, "hidden_size", i->hidden_size);
    mica_cli_json_int(&j, "intermediate_size", i->intermediate_size);
    mica_cli_json_int(&j, "num_heads", i->num_heads);
    mica_cli_json_int(&j, "num_kv_heads", i->num_kv_heads);
    mica_cli_json_int(&j, "head_dim", i->head_dim);
    mica_cli_json_int(&j, "quant_bits", i->quant_bits);
    mica_cli_json_int(&j, "quant_group", i->quant_group);
    mica_cli_json_string(&j, "quant_mode", i->quant_mode);
    mica_cli_json_string(&j, "dtype", i->dtype);
    mica_cli_json_int(&j, "context_length", i->context_length);
    mica_cli_json_int(&j, "sliding_window", i->sliding_window);
    mica_cli_json_int(&j, "parameters", i->parameters);
    mica_cli_json_int(&j, "bytes_on_disk", i->bytes_on_disk);
    mica_cli_json_int(&j, "weight_bytes", i->weight_bytes);
    mica_cli_json_int(&j, "kv_bytes_per_token", i->kv_bytes_per_token);
    mica_cli_json_int(&j, "kv_bytes_window", i->kv_bytes_window);
    mica_cli_json_int(&j, "context", context);
    mica_cli_json_int(&j, "memory_bytes", mica_info_memory(i, context));
    mica_cli_json_bool(&j, "has_chat_template", i->has_chat_template);
    mica_cli_json_close(&j, '}');
    mica_cli_json_end(&j);
}

static void print_model(const mica_info *i, const char *path, int32_t context) {
    char a[32], b[32];
    printf("path              %s\n", path);
    printf("architecture      %s\n", i->architecture);
    printf("parameters        %.1f million\n", (double)i->parameters / 1e6);
    printf("layers            %d, hidden %d, feed-forward %d\n", i->num_layers, i->hidden_size, i->intermediate_size);
    printf("attention         %d heads of %d, %d for keys and values\n", i->num_heads, i->head_dim, i->num_kv_heads);
    printf("vocabulary        %d\n", i->vocab_size);
    if (i->quant_bits) printf("quantisation      %s, %d bits, groups of %d\n", i->quant_mode, i->quant_bits, i->quant_group);
    else printf("quantisation      none\n");
    printf("activations       %s\n", i->dtype);
    printf("context           %d", i->context_length);
    printf(i->sliding_window ? ", some layers see the last %d\n" : "\n", i->sliding_window);
    printf("weights           %s on disk, %s in memory\n", mica_cli_bytes(i->bytes_on_disk, a, sizeof a),
           mica_cli_bytes(i->weight_bytes, b, sizeof b));
    printf("memory            %s at a context of %d\n", mica_cli_bytes(mica_info_memory(i, context), a, sizeof a), context);
    printf("chat template     %s\n", i->has_chat_template ? "yes" : "no");
}

static int info_model(const mica_cli_args *args) {
    char *path = mica_cli_model_path(args->words[0]);
    if (!path) return MICA_EXIT_FAILED;
    mica_error err = {0};
    mica_info info = {0};
    int status = MICA_EXIT_DONE;
    if (mica_info_read(path, &info, &err)) {
        int32_t context = args->context ? args->context : info.context_length;
        if (args->json) json_model(&info, path, context);
        else print_model(&info, path, context);
    } else status = mica_cli_fail_error(path, &err);
    free(path);
    return status;
}

// ---- the machine -------------------------------------------------------------------------------------------
static void json_backends(mica_cli_json *j, const char *key, bool only_available) {
    const char *names[64];
    size_t n = mica_backend_list(names, 64);
    mica_cli_json_open(j, key, '[');
    for (size_t i = 0; i < n && i < 64; i++)
        if (!only_available || mica_backend_get(names[i], NULL)) mica_cli_json_string(j, NULL, names[i]);
    mica_cli_json_close(j, ']');
}

static void print_backends(void) {
    const char *names[64];
    size_t n = mica_backend_list(names, 64);
    for (size_t i = 0; i < n && i < 64; i++) {
        mica_error why = {0};
        if (mica_backend_get(names[i], &why)) printf("backend    %s\n", names[i]);
        else printf("           %s\n", why.msg);
    }
}

static void json_machine(const mica_machine *d) {
    mica_cli_json j = {.out = stdout};
    mica_cli_json_open(&j, NULL, '{');
    json_backends(&j, "backends", false);
    json_backends(&j, "available", true);
    mica_cli_json_open(&j, "devices", '[');
    mica_cli_json_open(&j, NULL, '{');
    mica_cli_json_string(&j, "name", d->name);
    mica_cli_json_string(&j, "model", d->model);
    mica_cli_json_int(&j, "threads", d->threads);
    mica_cli_json_int(&j, "memory_bytes", d->memory_bytes);
    mica_cli_json_open(&j, "levels", '[');
    for (int32_t i = 0; i < d->level_count; i++) mica_cli_json_string(&j, NULL, d->levels[i]);
    mica_cli_json_close(&j, ']');
    mica_cli_json_string(&j, "level", d->level);
    mica_cli_json_close(&j, '}');
    mica_cli_json_close(&j, ']');
    mica_cli_json_close(&j, '}');
    mica_cli_json_end(&j);
}

static int info_machine(const mica_cli_args *args) {
    mica_error err = {0};
    mica_machine d = {0};
    if (!mica_machine_read(args->device, &d, &err)) return mica_cli_fail_error("info", &err);
    if (args->json) return json_machine(&d), MICA_EXIT_DONE;
    char memory[32];
    print_backends();
    printf("device     %s: %s, %d threads, %s\n", d.name, d.model, d.threads, mica_cli_bytes(d.memory_bytes, memory, sizeof memory));
    printf("levels    ");
    for (int32_t i = 0; i < d.level_count; i++) printf(" %s%s", d.levels[i], strcmp(d.levels[i], d.level) == 0 ? " (used)" : "");
    putchar('\n');
    return MICA_EXIT_DONE;
}

static int run(const mica_cli_args *args) { return args->word_count ? info_model(args) : info_machine(args); }

static const mica_cli_option options[] = {
    {"context", 0, MICA_CLI_INT, offsetof(mica_cli_args, context), 1, 1e9, "N",
     "the memory needed for N positions (default: the model's own context)"},
    {.name = NULL},
};

const mica_cli_command mica_cli_info = {
    .name = "info",
    .synopsis = "[MODEL]",
    .summary = "what a model is and needs, or what this machine has",
    .description =
        "Reads the headers of MODEL and prints its architecture, sizes, quantisation, context and the memory that it needs.\n"
        "Without MODEL: backends, devices and the instruction-set levels of this CPU, of which MICA_CPU can force one.",
    .example = "mica info smollm2-135m --context 4096\nmica info --json",
    .min_words = 0,
    .max_words = 1,
    .groups = MICA_CLI_COMMON,
    .options = options,
    .run = run,
};
