// SPDX-License-Identifier: Apache-2.0
// `mica discover`: the models in folders and in the model cache.
#include "cli/cmd.h"
#include "mica/discover.h"
#include <stdlib.h>
#include <string.h>

static void print_json(const mica_discovery *found) {
    mica_cli_json j = {.out = stdout};
    mica_cli_json_open(&j, NULL, '[');
    for (size_t i = 0; i < found->count; i++) {
        const mica_discovered *d = &found->items[i];
        mica_cli_json_open(&j, NULL, '{');
        mica_cli_json_string(&j, "path", d->path);
        mica_cli_json_string(&j, "model_type", d->model_type);
        mica_cli_json_int(&j, "quant_bits", d->quant_bits);
        mica_cli_json_int(&j, "quant_group", d->quant_group);
        mica_cli_json_int(&j, "num_files", d->num_files);
        mica_cli_json_close(&j, '}');
    }
    mica_cli_json_close(&j, ']');
    mica_cli_json_end(&j);
}

static void print(const mica_discovery *found) {
    for (size_t i = 0; i < found->count; i++) {
        const mica_discovered *d = &found->items[i];
        char quant[40] = "dense";
        if (d->quant_bits && d->quant_group) snprintf(quant, sizeof quant, "%d bits, groups of %d", (int)d->quant_bits, (int)d->quant_group);
        else if (d->quant_bits) snprintf(quant, sizeof quant, "%d bits", (int)d->quant_bits);
        printf("%-12s  %-22s  %2d file%s  %s\n", d->model_type[0] ? d->model_type : "unknown", quant, (int)d->num_files,
               d->num_files == 1 ? " " : "s", d->path);
    }
}

static int run(const mica_cli_args *args) {
    mica_discovery found = {0};
    int status = MICA_EXIT_DONE;
    mica_error err = {0};
    for (size_t i = 0; i < args->word_count && status == MICA_EXIT_DONE; i++)
        if (!mica_discover(args->words[i], &found, &err)) status = mica_cli_fail_error(args->words[i], &err);
    char *cache = mica_cli_model_cache();
    if (status == MICA_EXIT_DONE && cache) mica_discover(cache, &found, NULL); // there may be none
    free(cache);
    if (status == MICA_EXIT_DONE && args->json) print_json(&found);
    else if (status == MICA_EXIT_DONE) print(&found);
    if (status == MICA_EXIT_DONE && !found.count) mica_cli_note(args, "no models found");
    mica_discovery_free(&found);
    return status;
}

static const mica_cli_option options[] = {{.name = NULL}};

const mica_cli_command mica_cli_discover = {
    .name = "discover",
    .synopsis = "[DIR…]",
    .summary = "the models in folders and in the model cache",
    .description = "Lists model folders (config.json and *.safetensors) and .gguf files in each DIR, in its sub-folders, and in the model cache.",
    .example = "mica discover ~/models --json",
    .min_words = 0,
    .max_words = MICA_CLI_WORDS,
    .groups = MICA_CLI_COMMON,
    .options = options,
    .run = run,
};
