// SPDX-License-Identifier: Apache-2.0
// `mica convert`: a GGUF file or a Hugging Face folder becomes an MLX folder. Ctrl-C stops it cleanly: the library
// removes what is half written.
#include "cli/conversion.h"
#include <stdlib.h>

static int report(const mica_cli_conversion *c, const mica_cli_args *args) {
    mica_cli_json j = {.out = stdout};
    if (args->json) mica_cli_json_open(&j, NULL, '{');
    if (!mica_cli_conversion_report(c, args, args->words[1], &j)) return MICA_EXIT_FAILED;
    if (args->json) mica_cli_json_close(&j, '}'), mica_cli_json_end(&j);
    return MICA_EXIT_DONE;
}

static int run(const mica_cli_args *args) {
    mica_cli_conversion c;
    mica_error err = {0};
    char *src = mica_cli_model_path(args->words[0]);
    if (!src) return MICA_EXIT_FAILED;
    int status = MICA_EXIT_USAGE;
    if (mica_cli_conversion_begin(&c, args, "convert"))
        status = mica_cli_conversion_end(&c, mica_convert(src, args->words[1], &c.options, &err), "convert", &err);
    free(src);
    return status == MICA_EXIT_DONE ? report(&c, args) : status;
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
