// SPDX-License-Identifier: Apache-2.0
// Reading and writing the lines of the protocol. What comes from the process is checked like any other input.
#include "backend/mlx_lm/protocol.h"
#include "backend/chat.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char what[] = "mlx_lm answer";

// ---- reading ------------------------------------------------------------------------------------------------
static bool read_number(const char **p, const char *end, int64_t *out) {
    bool negative = *p < end && **p == '-';
    *p += negative;
    const char *from = *p;
    for (*out = 0; *p < end && **p >= '0' && **p <= '9' && *p - from < 18; ++*p) *out = *out * 10 + (**p - '0');
    if (negative) *out = -*out;
    return *p > from;
}

static bool read_text(const char **p, const char *end, const char *text) {
    size_t n = strlen(text);
    if ((size_t)(end - *p) < n || memcmp(*p, text, n) != 0) return false;
    *p += n;
    return true;
}

bool mica_mlx_read_line(const char *line, size_t n, int64_t *version, int64_t *id) {
    const char *p = line, *end = line + n;
    *id = 0;
    if (!read_text(&p, end, "{\"mica\":") || !read_number(&p, end, version)) return false;
    return *version != MICA_MLX_PROTOCOL || (read_text(&p, end, ",\"id\":") && read_number(&p, end, id));
}

static bool read_failure(const mica_json *answer, const char *key, mica_error *err) {
    static const struct { const char *name; mica_code code; } kinds[] = {
        {"argument", MICA_ERR_ARGUMENT}, {"memory", MICA_ERR_NO_MEMORY}, {"io", MICA_ERR_IO}, {"format", MICA_ERR_FORMAT},
        {"unsupported", MICA_ERR_UNSUPPORTED}, {"cancelled", MICA_ERR_CANCELLED}};
    const mica_json *text = mica_json_get(answer, key), *kind = mica_json_get(answer, "kind");
    if (!text || text->type != MICA_JSON_STRING) return false;
    mica_code code = MICA_ERR_IO;
    for (size_t i = 0; i < MICA_COUNT(kinds); i++)
        if (kind && kind->type == MICA_JSON_STRING && strcmp(kind->string, kinds[i].name) == 0) code = kinds[i].code;
    char line[sizeof err->msg];
    snprintf(line, sizeof line, "%s", text->string);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ') *c = ' ';
    mica_fail(err, code, "mlx_lm: %s", line);
    return true;
}

bool mica_mlx_read_error(const mica_json *answer, mica_error *err) { return read_failure(answer, "error", err); }
bool mica_mlx_read_problem(const mica_json *answer, mica_error *err) { return read_failure(answer, "problem", err); }

static bool read_i32(const mica_json *answer, const char *key, int32_t otherwise, int32_t *out, mica_error *err) {
    int64_t v;
    if (!mica_json_int(answer, key, otherwise, &v, what, err)) return false;
    if (v < INT32_MIN || v > INT32_MAX) return mica_fail(err, MICA_ERR_FORMAT, "%s: %s is out of range", what, key);
    *out = (int32_t)v;
    return true;
}

static bool read_finish(const mica_json *answer, mica_finish *finish, mica_error *err) {
    const char *name;
    *finish = MICA_FINISH_NONE;
    if (!mica_json_string(answer, "end", NULL, &name, what, err)) return false;
    if (!name) return true;
    for (mica_finish f = MICA_FINISH_STOP; f <= MICA_FINISH_CANCELLED; f++)
        if (strcmp(name, mica_finish_name(f)) == 0) return *finish = f, true;
    return mica_fail(err, MICA_ERR_FORMAT, "%s: unknown end \"%.40s\"", what, name);
}

bool mica_mlx_read_token(const mica_json *answer, mica_mlx_token *t, mica_error *err) {
    double logprob;
    *t = (mica_mlx_token){.top = mica_json_get(answer, "top")};
    if (!read_i32(answer, "token", -1, &t->id, err) || !mica_json_string(answer, "text", "", &t->text, what, err) ||
        !mica_json_float(answer, "logprob", 0, &logprob, what, err) || !mica_json_float(answer, "seconds", 0, &t->seconds, what, err) ||
        !mica_json_int(answer, "active", 0, &t->active, what, err) || !mica_json_int(answer, "peak", 0, &t->peak, what, err) ||
        !read_finish(answer, &t->finish, err))
        return false;
    const mica_json *text = mica_json_get(answer, "text");
    t->length = text && text->type == MICA_JSON_STRING ? text->length : 0;
    t->logprob = (float)logprob;
    return true;
}

int32_t mica_mlx_read_top(const mica_json *top, int32_t vocab, mica_logprob *out, int32_t room) {
    int32_t n = 0;
    if (!top || top->type != MICA_JSON_ARRAY) return 0;
    for (const mica_json *c = top->child; c && n < room; c = c->next) {
        const mica_json *id = mica_json_at(c, 0), *logprob = mica_json_at(c, 1);
        if (!id || id->type != MICA_JSON_INT || id->integer < 0 || id->integer >= vocab || !logprob) continue;
        bool number = logprob->type == MICA_JSON_INT || logprob->type == MICA_JSON_FLOAT;
        out[n++] = (mica_logprob){(int32_t)id->integer, number ? (float)logprob->number : -INFINITY};
    }
    return n;
}

bool mica_mlx_read_info(const mica_json *answer, mica_info *info, mica_error *err) {
    const mica_json *v = mica_json_get(answer, "info");
    *info = (mica_info){0};
    const struct { const char *key; int32_t *out; } counts[] = {
        {"vocab_size", &info->vocab_size}, {"num_layers", &info->num_layers}, {"hidden_size", &info->hidden_size},
        {"intermediate_size", &info->intermediate_size}, {"num_heads", &info->num_heads}, {"num_kv_heads", &info->num_kv_heads},
        {"head_dim", &info->head_dim}, {"quant_bits", &info->quant_bits}, {"quant_group", &info->quant_group},
        {"context_length", &info->context_length}, {"sliding_window", &info->sliding_window}};
    const struct { const char *key; int64_t *out; } sizes[] = {
        {"parameters", &info->parameters}, {"bytes_on_disk", &info->bytes_on_disk}, {"weight_bytes", &info->weight_bytes},
        {"kv_bytes_per_token", &info->kv_bytes_per_token}, {"kv_bytes_window", &info->kv_bytes_window}};
    const struct { const char *key; char *out; size_t size; } texts[] = {
        {"architecture", info->architecture, sizeof info->architecture}, {"quant_mode", info->quant_mode, sizeof info->quant_mode},
        {"dtype", info->dtype, sizeof info->dtype}};
    for (size_t i = 0; i < MICA_COUNT(counts); i++)
        if (!read_i32(v, counts[i].key, 0, counts[i].out, err)) return false;
    for (size_t i = 0; i < MICA_COUNT(sizes); i++)
        if (!mica_json_int(v, sizes[i].key, 0, sizes[i].out, what, err)) return false;
    for (size_t i = 0; i < MICA_COUNT(texts); i++) {
        const char *text;
        if (!mica_json_string(v, texts[i].key, "", &text, what, err)) return false;
        snprintf(texts[i].out, texts[i].size, "%s", text);
    }
    if (!mica_json_bool(v, "has_chat_template", false, &info->has_chat_template, what, err)) return false;
    return info->vocab_size > 0 || mica_fail(err, MICA_ERR_FORMAT, "%s: the model has no vocabulary", what);
}

bool mica_mlx_read_ids(const mica_json *array, int32_t **ids, size_t *count, mica_error *err) {
    *ids = NULL, *count = 0;
    if (!array || array->type != MICA_JSON_ARRAY) return mica_fail(err, MICA_ERR_FORMAT, "%s: no array of token ids", what);
    if (!array->length) return true;
    if (!(*ids = mica_alloc(array->length * sizeof **ids))) return mica_fail_memory(err, array->length * sizeof **ids, "token ids");
    for (const mica_json *c = array->child; c; c = c->next) {
        if (c->type != MICA_JSON_INT || c->integer < 0 || c->integer > INT32_MAX) {
            mica_free(*ids);
            *ids = NULL, *count = 0;
            return mica_fail(err, MICA_ERR_FORMAT, "%s: an id that is none", what);
        }
        (*ids)[(*count)++] = (int32_t)c->integer;
    }
    return true;
}

bool mica_mlx_read_numbers(const mica_json *array, double *out, size_t count, mica_error *err) {
    if (!array || array->type != MICA_JSON_ARRAY || array->length != count)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: not %zu numbers", what, count);
    for (const mica_json *c = array->child; c; c = c->next) {
        bool number = c->type == MICA_JSON_INT || c->type == MICA_JSON_FLOAT;
        if (!number && c->type != MICA_JSON_NULL) return mica_fail(err, MICA_ERR_FORMAT, "%s: a number that is none", what);
        *out++ = number ? c->number : -(double)INFINITY;
    }
    return true;
}

// ---- writing ------------------------------------------------------------------------------------------------
static void put_string(mica_json_writer *w, const char *key, const char *text) {
    if (!text) return;
    mica_json_key(w, key);
    mica_json_put_cstring(w, text);
}

static void put_int(mica_json_writer *w, const char *key, int64_t v) {
    if (!v) return;
    mica_json_key(w, key);
    mica_json_put_int(w, v);
}

static void put_float(mica_json_writer *w, const char *key, float v) {
    if (v == 0) return;
    mica_json_key(w, key);
    mica_json_put_float(w, (double)v);
}

static void put_flag(mica_json_writer *w, const char *key, bool v) {
    if (!v) return;
    mica_json_key(w, key);
    mica_json_put_bool(w, v);
}

static void put_strings(mica_json_writer *w, const char *key, const char *const *texts, size_t count) {
    mica_json_key(w, key);
    mica_json_begin_array(w);
    for (size_t i = 0; i < count; i++) mica_json_put_cstring(w, texts[i] ? texts[i] : "");
    mica_json_end_array(w);
}

static void put_ids(mica_json_writer *w, const char *key, const int32_t *ids, size_t count) {
    mica_json_key(w, key);
    mica_json_begin_array(w);
    for (size_t i = 0; i < count; i++) mica_json_put_int(w, ids[i]);
    mica_json_end_array(w);
}

static mica_json_writer begin(mica_buf *out, int64_t id, const char *cmd) {
    mica_json_writer w = {.out = out};
    mica_json_begin_object(&w);
    mica_json_key(&w, "id");
    mica_json_put_int(&w, id);
    put_string(&w, "cmd", cmd);
    return w;
}

void mica_mlx_write_command(mica_buf *out, int64_t id, const char *cmd) {
    mica_json_writer w = begin(out, id, cmd);
    mica_json_end_object(&w);
}

void mica_mlx_write_more(mica_buf *out, int64_t id, int32_t tokens) {
    mica_json_writer w = begin(out, id, "more");
    put_int(&w, "tokens", tokens);
    mica_json_end_object(&w);
}

void mica_mlx_write_load(mica_buf *out, int64_t id, const char *path, const mica_load_options *o) {
    mica_json_writer w = begin(out, id, "load");
    put_string(&w, "path", path);
    put_string(&w, "adapter", o->adapter);
    put_string(&w, "device", o->device);
    put_int(&w, "context", o->context);
    put_int(&w, "memory_budget", o->memory_budget);
    mica_json_end_object(&w);
}

static bool put_chat(mica_json_writer *w, const mica_chat *chat, mica_error *err) {
    if (!mica_chat_put_messages(w, chat, err)) return false;
    put_string(w, "name", chat->name);
    put_flag(w, "continued", chat->continued);
    put_flag(w, "allow_control", chat->allow_control);
    return mica_chat_put_member(w, "tools", chat->tools, MICA_JSON_ARRAY, err) &&
           mica_chat_put_member(w, "variables", chat->variables, MICA_JSON_OBJECT, err);
}

// JSON has no infinities: null stands for the bias that forbids a token.
static void put_biases(mica_json_writer *w, const mica_logit_bias *bias, size_t count) {
    if (!count) return;
    mica_json_key(w, "logit_bias");
    mica_json_begin_array(w);
    for (size_t i = 0; i < count; i++) {
        mica_json_begin_array(w);
        mica_json_put_int(w, bias[i].id);
        mica_json_put_float(w, (double)(bias[i].bias == INFINITY ? 3e38f : bias[i].bias));
        mica_json_end_array(w);
    }
    mica_json_end_array(w);
}

static void put_options(mica_json_writer *w, const mica_generate_options *o) {
    mica_json_key(w, "options");
    mica_json_begin_object(w);
    put_int(w, "max_tokens", o->max_tokens);
    put_int(w, "min_tokens", o->min_tokens);
    put_float(w, "temperature", o->temperature);
    put_int(w, "top_k", o->top_k);
    put_float(w, "top_p", o->top_p);
    put_float(w, "min_p", o->min_p);
    put_float(w, "repeat_penalty", o->repeat_penalty);
    put_float(w, "presence_penalty", o->presence_penalty);
    put_float(w, "frequency_penalty", o->frequency_penalty);
    put_biases(w, o->logit_bias, o->logit_bias_count);
    put_int(w, "seed", (int64_t)(o->seed & INT64_MAX));
    if (o->stop_id_count) put_ids(w, "stop_ids", o->stop_ids, o->stop_id_count);
    put_flag(w, "ignore_eos", o->ignore_eos);
    put_int(w, "logprobs", o->logprobs);
    mica_json_end_object(w);
}

bool mica_mlx_write_generate(mica_buf *out, int64_t id, const mica_prompt *p, const mica_generate_options *o, int64_t together, mica_error *err) {
    mica_json_writer w = begin(out, id, p->chat && !p->ids ? "chat" : "generate");
    if (p->ids || p->count) {
        put_ids(&w, "ids", p->ids, p->count);
    } else if (p->chat) {
        if (!put_chat(&w, p->chat, err)) return false;
    } else {
        mica_json_key(&w, "text");
        mica_json_put_string(&w, p->text ? p->text : "", p->length);
    }
    put_int(&w, "together", together);
    put_options(&w, o);
    mica_json_end_object(&w);
    return true;
}

bool mica_mlx_write_classify(mica_buf *out, int64_t id, const char *const *texts, size_t count, const mica_classify_options *o) {
    mica_json_writer w = begin(out, id, "classify");
    put_strings(&w, "texts", texts, count);
    put_strings(&w, "labels", o->labels, o->label_count);
    put_string(&w, "prompt", o->prompt);
    put_flag(&w, "chat", o->chat);
    put_flag(&w, "calibrate", o->calibrate);
    put_flag(&w, "logits", o->logits);
    put_int(&w, "batch", o->batch);
    mica_json_end_object(&w);
    return !out->failed;
}
