// SPDX-License-Identifier: Apache-2.0
// What the commands share: loading, the prompt, metrics.
#include "cli/cmd.h"
#include "mica/adapter.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool mica_cli_approximate(const mica_cli_args *args) {
    return (args->activations && strcmp(args->activations, "exact") != 0) || args->kv_bits == 8;
}

bool mica_cli_here(const mica_cli_args *args, const char *command) {
    const char *const asked[] = {args->backend, args->device}, *const options[] = {"--backend", "--device"};
    for (size_t i = 0; i < 2; i++)
        if (asked[i] && strcmp(asked[i], "cpu") != 0) return mica_cli_usage(command, "%s %s: this is done by cpu only", options[i], asked[i]), false;
    return true;
}

// ---- adapters ----------------------------------------------------------------------------------------------
// Where the name of "NAME=DIR" ends; NULL for a DIR, which may have an '=' in it too.
static const char *name_end(const char *given) { return access(given, F_OK) == 0 ? NULL : strchr(given, '='); }

// The one without a name; the last of several.
const char *mica_cli_own_adapter(const mica_cli_args *args) {
    const char *own = NULL;
    for (size_t i = 0; i < args->adapters.count; i++)
        if (!name_end(args->adapters.items[i])) own = args->adapters.items[i];
    return own;
}

static bool load_named(const mica_cli_args *args, mica_model *model) {
    for (size_t i = 0; i < args->adapters.count; i++) {
        const char *given = args->adapters.items[i], *end = name_end(given);
        mica_error err = {0};
        if (!end) continue;
        char *name = mica_cli_copy(given, (size_t)(end - given));
        bool ok = mica_adapter_load(model, name, end + 1, &err);
        free(name);
        if (!ok) return mica_cli_fail_error("--adapter", &err), false;
    }
    return true;
}

// ---- models ------------------------------------------------------------------------------------------------
static mica_load_options exact_options(const mica_cli_args *args) {
    return (mica_load_options){.backend = args->backend, .adapter = mica_cli_own_adapter(args), .python = args->python, .memory_budget = args->memory_budget,
                               .device = args->device, .threads = args->threads, .context = args->context};
}

static mica_model *load(const mica_cli_args *args, const char *name, const mica_load_options *options) {
    mica_error err = {0};
    char *path = mica_cli_model_path(name);
    if (!path) return NULL;
    mica_model *model = mica_model_load(path, options, &err);
    if (!model) mica_cli_fail_error(path, &err);
    free(path);
    if (!model || load_named(args, model)) return model;
    mica_model_free(model);
    return NULL;
}

mica_model *mica_cli_load_exact(const mica_cli_args *args, const char *name) {
    mica_load_options options = exact_options(args);
    return load(args, name, &options);
}

static mica_model *load_keeping(const mica_cli_args *args, int64_t prefix_cache) {
    mica_load_options options = exact_options(args);
    mica_error err = {0};
    options.prefix_cache = prefix_cache;
    options.activations = args->activations, options.kv_bits = args->kv_bits;
    if (!args->random) return load(args, args->words[0], &options);
    mica_model *model = mica_model_random(args->random, args->bits, &options, &err);
    if (!model) mica_cli_fail_error("--random", &err);
    return model;
}

mica_model *mica_cli_load(const mica_cli_args *args) { return load_keeping(args, 0); }
mica_model *mica_cli_load_once(const mica_cli_args *args) { return load_keeping(args, -1); }

bool mica_cli_prompt(const mica_cli_args *args, const char *what, mica_cli_text *text) {
    const char *given = args->word_count > 1 ? args->words[1] : "-";
    if (strcmp(given, "-") == 0) return mica_cli_read_stdin(args, what, text);
    mica_cli_append(text, given, strlen(given));
    return true;
}

void mica_cli_note_unused(const mica_cli_args *args, int64_t bad_lines, int64_t long_examples, int64_t unscored_examples) {
    if (bad_lines) mica_cli_note(args, "%lld bad lines were left out", (long long)bad_lines);
    if (long_examples) mica_cli_note(args, "%lld examples were longer than --max-seq", (long long)long_examples);
    if (unscored_examples) mica_cli_note(args, "%lld examples had nothing to score", (long long)unscored_examples);
}

void mica_cli_json_metrics(mica_cli_json *j, const mica_metrics *m) {
    mica_cli_json_open(j, "metrics", '{');
    mica_cli_json_double(j, "load_seconds", m->load_seconds);
    mica_cli_json_int(j, "prompt_tokens", m->prompt_tokens);
    mica_cli_json_int(j, "cached_tokens", m->cached_tokens);
    mica_cli_json_int(j, "generated_tokens", m->generated_tokens);
    mica_cli_json_int(j, "drafted_tokens", m->drafted_tokens);
    mica_cli_json_int(j, "accepted_tokens", m->accepted_tokens);
    mica_cli_json_double(j, "prefill_seconds", m->prefill_seconds);
    mica_cli_json_double(j, "decode_seconds", m->decode_seconds);
    mica_cli_json_double(j, "total_seconds", m->total_seconds);
    mica_cli_json_double(j, "time_to_first_token_seconds", m->time_to_first_token_seconds);
    mica_cli_json_double(j, "prefill_tokens_per_second", m->prefill_tokens_per_second);
    mica_cli_json_double(j, "decode_tokens_per_second", m->decode_tokens_per_second);
    mica_cli_json_int(j, "active_memory_bytes", m->active_memory_bytes);
    mica_cli_json_int(j, "peak_memory_bytes", m->peak_memory_bytes);
    mica_cli_json_close(j, '}');
}

void mica_cli_json_candidates(mica_cli_json *j, const char *key, const mica_logprob *top, size_t n) {
    mica_cli_json_open(j, key, '[');
    for (const mica_logprob *t = top; t < top + n && t->id >= 0; t++) {
        mica_cli_json_open(j, NULL, '[');
        mica_cli_json_int(j, NULL, t->id);
        mica_cli_json_float(j, NULL, t->logprob);
        mica_cli_json_close(j, ']');
    }
    mica_cli_json_close(j, ']');
}

const char *mica_cli_bytes(int64_t bytes, char *out, size_t size) {
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
    double v = (double)bytes;
    size_t u = 0;
    while (v >= 1000 && u + 1 < sizeof units / sizeof *units) v /= 1000, u++;
    snprintf(out, size, u && v < 100 ? "%.1f %s" : "%.0f %s", v, units[u]);
    return out;
}

void mica_cli_print_metrics(const mica_metrics *m) {
    char active[32], peak[32];
    const char *dim = mica_cli_colour(stderr) ? "\033[2m" : "", *plain = *dim ? "\033[0m" : "";
    fflush(stdout);
    fprintf(stderr, "%sload     %8.3f s\n", dim, m->load_seconds);
    fprintf(stderr, "prompt   %8.3f s  %6lld tokens (%lld cached)  %8.1f tokens/s\n", m->prefill_seconds, (long long)m->prompt_tokens,
            (long long)m->cached_tokens, m->prefill_tokens_per_second);
    fprintf(stderr, "answer   %8.3f s  %6lld tokens  %8.1f tokens/s, first after %.3f s\n", m->decode_seconds,
            (long long)m->generated_tokens, m->decode_tokens_per_second, m->time_to_first_token_seconds);
    if (m->drafted_tokens)
        fprintf(stderr, "guessed             %6lld tokens, %lld of them right\n", (long long)m->drafted_tokens, (long long)m->accepted_tokens);
    fprintf(stderr, "total    %8.3f s\nmemory   %s now, %s at most%s\n", m->total_seconds,
            mica_cli_bytes(m->active_memory_bytes, active, sizeof active), mica_cli_bytes(m->peak_memory_bytes, peak, sizeof peak), plain);
}
