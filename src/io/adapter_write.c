// SPDX-License-Identifier: Apache-2.0
// Writing adapters. What readers need beside the tensors follows from them: the rank, whether it is DoRA, which modules. PEFT's matrices are
// transposed on the way. Both files are complete under temporary names before the first one is renamed.
#include "io/adapter_write.h"
#include "base/file.h"
#include "base/json.h"
#include "io/safetensors.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { NAME = 256 };
typedef enum role { ROLE_NONE, ROLE_A, ROLE_B, ROLE_MAGNITUDE } role;
static const char *const ends[] = {[ROLE_A] = ".lora_a", [ROLE_B] = ".lora_b", [ROLE_MAGNITUDE] = ".m"};

typedef struct job {
    const char *folder;
    const mica_stored *tensors;
    size_t count;
    const mica_adapter_write_options *o;
    int64_t rank;
    bool dora;
    mica_st_writer *out;
    mica_writer config_file;
    mica_buf config;
} job;

// ---- names ----------------------------------------------------------------------------------------------
// Splits "<module>.lora_a"; *length: of the module's name.
static role role_of(const char *name, size_t *length) {
    size_t n = strlen(name);
    for (role r = ROLE_A; r <= ROLE_MAGNITUDE; r++) {
        size_t m = strlen(ends[r]);
        if (n > m && strcmp(name + n - m, ends[r]) == 0) return *length = n - m, r;
    }
    return ROLE_NONE;
}

static bool is_embedding(const char *name, size_t length) {
    static const char embed[] = "model.embed_tokens";
    return length == sizeof embed - 1 && memcmp(name, embed, length) == 0;
}

// The module's name in the tool's own model: multi-modal ones have the text model one step further down.
static void tool_name(const job *j, const char *module, size_t length, char out[NAME]) {
    bool inner = length > 6 && memcmp(module, "model.", 6) == 0;
    if (!j->o->nested) snprintf(out, NAME, "%.*s", (int)length, module);
    else if (j->o->form == MICA_ADAPTER_MLX_LM) snprintf(out, NAME, "language_model.%.*s", (int)length, module);
    else if (inner) snprintf(out, NAME, "model.language_model.%.*s", (int)length - 6, module + 6);
    else snprintf(out, NAME, "%.*s", (int)length, module);
}

static void tensor_name(const job *j, const mica_stored *t, char out[2 * NAME]) {
    static const char *const peft[] = {[ROLE_A] = ".lora_A.weight", [ROLE_B] = ".lora_B.weight", [ROLE_MAGNITUDE] = ".lora_magnitude_vector"};
    static const char *const peft_embedding[] = {[ROLE_A] = ".lora_embedding_A", [ROLE_B] = ".lora_embedding_B", [ROLE_MAGNITUDE] = ""};
    size_t length = 0;
    char module[NAME];
    role r = role_of(t->name, &length);
    tool_name(j, t->name, length, module);
    if (j->o->form == MICA_ADAPTER_MLX_LM) snprintf(out, 2 * NAME, "%s%s", module, ends[r]);
    else snprintf(out, 2 * NAME, "base_model.model.%s%s", module, (is_embedding(t->name, length) ? peft_embedding : peft)[r]);
}

// ---- checks ---------------------------------------------------------------------------------------------
static const mica_stored *partner(const job *j, const mica_stored *t, size_t length, role r) {
    for (size_t i = 0; i < j->count; i++)
        if (strncmp(j->tensors[i].name, t->name, length) == 0 && strcmp(j->tensors[i].name + length, ends[r]) == 0) return &j->tensors[i];
    return NULL;
}

static bool check_embedding(const job *j, mica_error *err) {
    if (j->dora) return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: DoRA of an embedding is not supported", j->folder);
    if (!j->o->tied || j->o->input_only == (j->o->form == MICA_ADAPTER_PEFT)) return true;
    return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: the adapter of the tied embedding %s, which %s's form cannot say", j->folder,
                     j->o->input_only ? "leaves the head alone" : "adapts the head as well", j->o->input_only ? "mlx-lm" : "PEFT");
}

static bool check_tensor(job *j, const mica_stored *t, mica_error *err) {
    size_t length = 0, n = strlen(t->name);
    char shape[64];
    role r = role_of(t->name, &length);
    if (!r || n >= NAME - 64) return mica_fail(err, MICA_ERR_ARGUMENT, "%s: \"%.100s\" is no tensor of an adapter", j->folder, t->name);
    if ((t->dtype != MICA_F32 && t->dtype != MICA_BF16 && t->dtype != MICA_F16) || t->ndim != (r == ROLE_MAGNITUDE ? 1 : 2))
        return mica_fail(err, MICA_ERR_ARGUMENT, "%s: %s: an adapter has no %s of %s", j->folder, t->name, mica_dtype_name(t->dtype),
                         mica_stored_shape(t, shape, sizeof shape));
    const mica_stored *a = partner(j, t, length, ROLE_A), *b = partner(j, t, length, ROLE_B), *m = partner(j, t, length, ROLE_MAGNITUDE);
    if (!a || !b || a->ndim != 2 || b->ndim != 2 || !m != !j->dora)
        return mica_fail(err, MICA_ERR_ARGUMENT, "%s: %.*s lacks a part", j->folder, (int)length, t->name);
    if (!j->rank) j->rank = a->shape[1];
    if (j->rank < 1 || a->shape[1] != j->rank || b->shape[0] != j->rank || (m && m->shape[0] != b->shape[1]))
        return mica_fail(err, MICA_ERR_ARGUMENT, "%s: %s: %s does not fit the adapter's rank of %lld or the module's other tensors", j->folder, t->name,
                         mica_stored_shape(t, shape, sizeof shape), (long long)j->rank);
    return !is_embedding(t->name, length) || check_embedding(j, err);
}

static bool check(job *j, mica_error *err) {
    size_t length;
    if (!j->count) return mica_fail(err, MICA_ERR_ARGUMENT, "%s: an adapter without tensors", j->folder);
    if (!isfinite(j->o->scale) || j->o->scale == 0) return mica_fail(err, MICA_ERR_ARGUMENT, "%s: the adapter's scale is %g", j->folder, j->o->scale);
    for (size_t i = 0; i < j->count; i++) j->dora |= role_of(j->tensors[i].name, &length) == ROLE_MAGNITUDE;
    for (size_t i = 0; i < j->count; i++)
        if (!check_tensor(j, &j->tensors[i], err)) return false;
    return true;
}

// ---- config ---------------------------------------------------------------------------------------------
static void put_string(mica_json_writer *w, const char *key, const char *value) {
    mica_json_key(w, key);
    if (value) mica_json_put_cstring(w, value);
    else mica_json_put_null(w);
}

static void put_number(mica_json_writer *w, const char *key, double value) {
    mica_json_key(w, key);
    if (value == floor(value) && fabs(value) < 1e9) mica_json_put_int(w, (int64_t)value);
    else mica_json_put_float(w, value);
}

static void put_bool(mica_json_writer *w, const char *key, bool value) {
    mica_json_key(w, key);
    mica_json_put_bool(w, value);
}

// What the lists of modules call the module of tensor i: its name inside a block, or, where only some blocks have adapters and the tool
// (PEFT) cannot say which, the whole name.
static void module_key(const job *j, size_t i, char out[NAME]) {
    size_t length = 0;
    char module[NAME];
    role_of(j->tensors[i].name, &length);
    tool_name(j, j->tensors[i].name, length, module);
    bool peft = j->o->form == MICA_ADAPTER_PEFT;
    const char *from = module, *block = strstr(module, "layers.");
    if (block && !(peft && (j->o->num_layers > 0 || j->o->nested))) {
        from = block + strlen("layers.");
        from += strspn(from, "0123456789");
        from += *from == '.';
    }
    const char *last = strrchr(from, '.');
    if (peft && !j->o->nested && j->o->num_layers <= 0 && last) from = last + 1;
    snprintf(out, NAME, "%s", from);
}

static void put_modules(job *j, mica_json_writer *w, const char *key) {
    char own[NAME], other[NAME];
    mica_json_key(w, key);
    mica_json_begin_array(w);
    for (size_t i = 0; i < j->count; i++) {
        bool seen = false;
        module_key(j, i, own);
        for (size_t k = 0; k < i && !seen; k++) module_key(j, k, other), seen = strcmp(own, other) == 0;
        if (!seen) mica_json_put_cstring(w, own);
    }
    mica_json_end_array(w);
}

static void put_mlx_lm(job *j, mica_json_writer *w) {
    put_string(w, "fine_tune_type", j->dora ? "dora" : "lora");
    put_number(w, "num_layers", j->o->num_layers > 0 ? (double)j->o->num_layers : -1);
    mica_json_key(w, "lora_parameters");
    mica_json_begin_object(w);
    put_number(w, "rank", (double)j->rank);
    put_number(w, "scale", j->o->scale);
    put_number(w, "dropout", j->o->dropout);
    put_modules(j, w, "keys");
    mica_json_end_object(w);
}

static void put_peft(job *j, mica_json_writer *w) {
    put_string(w, "peft_type", "LORA");
    put_string(w, "task_type", "CAUSAL_LM");
    put_string(w, "base_model_name_or_path", j->o->base_model);
    put_bool(w, "inference_mode", true);
    put_number(w, "r", (double)j->rank);
    put_number(w, "lora_alpha", j->o->scale * (double)j->rank);
    put_number(w, "lora_dropout", j->o->dropout);
    put_bool(w, "use_rslora", false);
    put_bool(w, "use_dora", j->dora);
    put_string(w, "bias", "none");
    put_bool(w, "fan_in_fan_out", false);
    put_modules(j, w, "target_modules");
}

static bool write_config(job *j, mica_error *err) {
    char *path = mica_path_join(j->folder, "adapter_config.json");
    mica_json_writer w = {.out = &j->config};
    mica_json_begin_object(&w);
    if (j->o->form == MICA_ADAPTER_PEFT) put_peft(j, &w);
    else put_mlx_lm(j, &w);
    mica_json_end_object(&w);
    mica_buf_putc(&j->config, '\n');
    bool ok = (path && !j->config.failed) || mica_fail_memory(err, j->config.len, "adapter_config.json");
    ok = ok && mica_writer_open(&j->config_file, path, err) && mica_writer_write(&j->config_file, j->config.data, j->config.len, err);
    mica_free(path);
    return ok;
}

// ---- tensors --------------------------------------------------------------------------------------------
static bool declare(job *j, const mica_stored *t, mica_error *err) {
    char name[2 * NAME];
    tensor_name(j, t, name);
    int64_t shape[2] = {t->shape[0], t->shape[1]};
    if (j->o->form == MICA_ADAPTER_PEFT && t->ndim == 2) shape[0] = t->shape[1], shape[1] = t->shape[0];
    return mica_st_writer_declare(j->out, name, t->dtype, t->ndim, shape, err);
}

static bool put_transposed(job *j, const mica_stored *t, mica_error *err) {
    size_t rows = (size_t)t->shape[0], columns = (size_t)t->shape[1], size = mica_dtype_size(t->dtype);
    unsigned char *to = mica_alloc(t->bytes);
    if (!to) return mica_fail_memory(err, t->bytes, t->name);
    for (size_t c = 0; c < columns; c++)
        for (size_t r = 0; r < rows; r++) memcpy(to + (c * rows + r) * size, (const unsigned char *)t->data + (r * columns + c) * size, size);
    bool ok = mica_st_writer_put(j->out, to, t->bytes, err);
    mica_free(to);
    return ok;
}

static bool write_tensors(job *j, mica_error *err) {
    static const char *const torch[] = {"format", "pt", NULL};
    bool peft = j->o->form == MICA_ADAPTER_PEFT;
    char *path = mica_strf("%s/%s%s", j->folder, j->o->snapshot ? j->o->snapshot : "", peft ? "adapter_model.safetensors" : "adapters.safetensors");
    bool ok = path ? (j->out = mica_st_writer_new(path, peft ? &(mica_st_options){.metadata = torch} : NULL, err)) != NULL
                   : mica_fail_memory(err, strlen(j->folder), "a file name");
    mica_free(path);
    for (size_t i = 0; ok && i < j->count; i++) ok = declare(j, &j->tensors[i], err);
    ok = ok && mica_st_writer_begin(j->out, err);
    for (size_t i = 0; ok && i < j->count; i++) {
        const mica_stored *t = &j->tensors[i];
        ok = peft && t->ndim == 2 ? put_transposed(j, t, err) : mica_st_writer_put(j->out, t->data, t->bytes, err);
    }
    return ok;
}

// Readers take the other form's file first, or are confused by a config of the other kind.
static bool no_other_form(const job *j, mica_error *err) {
    const char *other = j->o->form == MICA_ADAPTER_PEFT ? "adapters.safetensors" : "adapter_model.safetensors";
    char *path = mica_path_join(j->folder, other);
    if (!path) return mica_fail_memory(err, strlen(j->folder), "a file name");
    bool ok = !mica_is_file(path) || mica_fail(err, MICA_ERR_ARGUMENT, "%s: the folder holds an adapter of another form: %s", j->folder, other);
    mica_free(path);
    return ok;
}

// The config first: without it an adapter would be read with a scale that is not its own.
static bool commit(job *j, mica_error *err) { return mica_writer_commit(&j->config_file, err) && mica_st_writer_commit(j->out, err); }

bool mica_adapter_write(const char *folder, const mica_stored *tensors, size_t count, const mica_adapter_write_options *options, mica_error *err) {
    job j = {.folder = folder, .tensors = tensors, .count = count, .o = options};
    bool ok = check(&j, err) && mica_mkdirs(folder, err) && no_other_form(&j, err) && write_config(&j, err) && write_tensors(&j, err) && commit(&j, err);
    mica_writer_abandon(&j.config_file);
    mica_st_writer_free(j.out);
    mica_buf_free(&j.config);
    return ok;
}
