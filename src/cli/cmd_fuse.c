// SPDX-License-Identifier: Apache-2.0
// `mica fuse`: an adapter merged into a model's weights, in a folder of its own; and what it costs that the merged weights are quantised again:
// the model with the adapter beside its weights and the fused one both read a text.
#include "cli/conversion.h"
#include "mica/tokenizer.h"
#include <stdlib.h>
#include <string.h>

// Prose, a list, code, figures and other languages: short, since two models read it.
static const char probe_text[] =
    "The harbour was quiet that morning. A few boats had come in before dawn, and the men were already mending their nets along the wall, "
    "talking about the weather and the price of fuel. \"It will turn by noon,\" said the oldest of them, and nobody disagreed.\n\n"
    "What you need for the dough:\n- 500 g of flour\n- 1 teaspoon of salt\n- 7 g of dry yeast\n- 320 ml of lukewarm water\n\n"
    "int gcd(int a, int b) {\n    while (b != 0) {\n        int t = a % b;\n        a = b;\n        b = t;\n    }\n    return a;\n}\n\n"
    "Water boils at 100 degrees Celsius at sea level; on a mountain of 3000 metres it boils at about 90. La capitale de la France est Paris. "
    "Der Zug fährt um 14:35 Uhr von Gleis 7 ab. Question: how many legs do three spiders have? Answer: a spider has eight legs, so three have 24.\n";

typedef struct cost {
    bool known;
    mica_perplexity p;
} cost;

/** The tokens both models read: the probe's, or, without a tokenizer, some of no meaning. */
static bool probe_ids(const mica_cli_args *args, mica_model *model, mica_ids *ids, mica_error *err) {
    const mica_tokenizer *tokenizer = mica_model_tokenizer(model);
    mica_cli_text text = {0};
    bool ok = true;
    if (args->probe && !mica_cli_read_file(args->probe, &text)) ok = (err->msg[0] = 0, false);
    else if (!args->probe) mica_cli_append(&text, probe_text, sizeof probe_text - 1);
    if (ok && tokenizer) ok = mica_tokenizer_encode(tokenizer, text.data, text.size, NULL, ids, err);
    free(text.data);
    return ok;
}

static bool compare(const mica_cli_args *args, mica_model *fused, mica_model *adapted, cost *c, mica_error *err) {
    enum { MEANINGLESS = 96 };
    int32_t own[MEANINGLESS], vocab = mica_model_info(fused)->vocab_size;
    mica_ids ids = {0};
    const mica_perplexity_options options = {.reference = adapted};
    for (int32_t i = 0; i < MEANINGLESS; i++) own[i] = (int32_t)((int64_t)i * 7919 % vocab);
    bool ok = probe_ids(args, fused, &ids, err);
    if (ok && ids.len) ok = mica_perplexity_of(fused, ids.data, ids.len, &options, &c->p, err);
    else if (ok) ok = mica_perplexity_of(fused, own, MEANINGLESS, &options, &c->p, err);
    mica_ids_free(&ids);
    return c->known = ok;
}

static bool measure(const mica_cli_args *args, const char *src, cost *c, mica_error *err) {
    mica_model *adapted = mica_model_load(src, &(mica_load_options){.adapter = args->adapter, .threads = args->threads}, err);
    mica_model *fused = adapted ? mica_model_load(args->words[1], &(mica_load_options){.threads = args->threads}, err) : NULL;
    bool ok = fused && compare(args, fused, adapted, c, err);
    mica_model_free(adapted);
    mica_model_free(fused);
    return ok;
}

/** Only quantising again changes more than the last bit: otherwise it is measured if a text is given. */
static bool wants_cost(const mica_cli_args *args) {
    mica_info info = {0};
    return !args->no_cost && (args->probe || (mica_info_read(args->words[1], &info, NULL) && info.quant_bits));
}

static void cost_json(mica_cli_json *j, const cost *c) {
    if (!c->known) {
        mica_cli_json_null(j, "cost");
        return;
    }
    mica_cli_json_open(j, "cost", '{');
    mica_cli_json_int(j, "predicted", (int64_t)c->p.predicted);
    mica_cli_json_double(j, "logit_change_mean", c->p.change_mean);
    mica_cli_json_double(j, "logit_change_max", c->p.change_max);
    mica_cli_json_double(j, "kl_mean", c->p.kl_mean);
    mica_cli_json_double(j, "same_top", c->p.same_top);
    mica_cli_json_double(j, "perplexity", c->p.perplexity);
    mica_cli_json_double(j, "adapted_perplexity", c->p.reference_perplexity);
    mica_cli_json_close(j, '}');
}

static void cost_lines(const cost *c) {
    if (!c->known) return;
    printf("against the model with the adapter beside it, over %zu tokens:\n", c->p.predicted);
    printf("logits       change by %.5f on average, %.4f at most\n", c->p.change_mean, c->p.change_max);
    printf("divergence   %.6f nats on average, same top for %.2f %% of tokens\n", c->p.kl_mean, 100 * c->p.same_top);
    printf("perplexity   %.4f, was %.4f\n", c->p.perplexity, c->p.reference_perplexity);
}

static int report(const mica_cli_conversion *conversion, const mica_cli_args *args, const char *src) {
    mica_cli_json j = {.out = stdout};
    mica_error err = {0};
    cost c = {0};
    int status = MICA_EXIT_DONE;
    if (wants_cost(args) && !measure(args, src, &c, &err)) {
        if (err.msg[0]) mica_cli_fail("fuse: %s is complete, but its cost could not be measured: %s", args->words[1], err.msg);
        status = MICA_EXIT_FAILED;
    }
    if (args->json) mica_cli_json_open(&j, NULL, '{');
    if (!mica_cli_conversion_report(conversion, args, args->words[1], &j)) return MICA_EXIT_FAILED;
    if (!args->json) return cost_lines(&c), status;
    cost_json(&j, &c);
    mica_cli_json_close(&j, '}');
    mica_cli_json_end(&j);
    return status;
}

static int run(const mica_cli_args *args) {
    mica_cli_conversion c;
    mica_error err = {0};
    if (!args->adapter) return mica_cli_usage("fuse", "--adapter DIR is missing");
    if (args->dequantize && (args->bits || args->group_size || args->mode)) return mica_cli_usage("fuse", "--dequantize excludes --bits, --group-size and --mode");
    char *src = mica_cli_model_path(args->words[0]);
    if (!src) return MICA_EXIT_FAILED;
    int status = MICA_EXIT_USAGE;
    if (mica_cli_conversion_begin(&c, args, "fuse")) {
        const mica_fuse_options options = {.convert = c.options, .dequantize = args->dequantize};
        status = mica_cli_conversion_end(&c, mica_fuse(src, args->adapter, args->words[1], &options, &err), "fuse", &err);
    }
    if (status == MICA_EXIT_DONE) status = report(&c, args, src);
    free(src);
    return status;
}

#define AT(field) offsetof(mica_cli_args, field)
static const mica_cli_option options[] = {
    {"adapter", 0, MICA_CLI_STRING, AT(adapter), 0, 0, "DIR", "the LoRA or DoRA adapter (mlx-lm, PEFT or go-mlx)"},
    {"bits", 0, MICA_CLI_INT, AT(bits), 2, 8, "B", "quantise to B bits: affine 2, 3, 4, 5, 6, 8 (default: as MODEL is quantised)"},
    {"group-size", 0, MICA_CLI_INT, AT(group_size), 1, 1024, "N", "weights that share a scale: affine 32, 64, 128 (default 64)"},
    {"mode", 0, MICA_CLI_STRING, AT(mode), 0, 0, "MODE", "affine (default), mxfp4, nvfp4 or mxfp8"},
    {"dequantize", 0, MICA_CLI_FLAG, AT(dequantize), 0, 0, NULL, "write dense weights whatever MODEL has"},
    {"dtype", 0, MICA_CLI_STRING, AT(dtype), 0, 0, "TYPE", "f32, f16 or bf16 for what is not quantised (default: as MODEL; GGUF: bf16)"},
    {"probe", 0, MICA_CLI_STRING, AT(probe), 0, 0, "FILE", "measure the cost on the text in FILE, of a dense result as well (default: a text of mica's own)"},
    {"no-cost", 0, MICA_CLI_FLAG, AT(no_cost), 0, 0, NULL, "do not measure what quantising costs"},
    {.name = NULL},
};

const mica_cli_command mica_cli_fuse = {
    .name = "fuse",
    .synopsis = "MODEL OUT --adapter DIR",
    .summary = "merge an adapter into a model's weights",
    .description =
        "Writes MODEL with the adapter in its weights as a folder OUT that mica and mlx-lm load, in the type and the quantisation that MODEL has\n"
        "(of a GGUF file: dense). What has no adapter is copied as it is, and so are tokenizer, templates and other files. OUT must not exist\n"
        "or be empty; after a failure or Ctrl-C nothing is left of it.\n"
        "A result that is quantised is then compared with MODEL and the adapter beside it: how much the logits change over a text, and the\n"
        "perplexity. Two models are in memory then.\n"
        "With --json: {\"path\",\"architecture\",\"parameters\",\"quant_bits\",\"quant_group\",\"quant_mode\",\"bytes_on_disk\",\"seconds\",\"cost\"}, where cost is\n"
        "null or {\"predicted\",\"logit_change_mean\",\"logit_change_max\",\"kl_mean\",\"same_top\",\"perplexity\",\"adapted_perplexity\"}.",
    .example = "mica fuse gemma-3-1b-it gemma-3-1b-mine --adapter adapters",
    .min_words = 2,
    .max_words = 2,
    .groups = MICA_CLI_COMMON,
    .options = options,
    .run = run,
};
