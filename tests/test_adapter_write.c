// SPDX-License-Identifier: Apache-2.0
// labels: kernels
// Adapters that mica writes: the golden ones of all tools, written in both forms and read back, are the same to the bit, and so is what they compute.
// Called with a folder it writes them there, for tests/oracle/check_adapters.py to read with the tools.
#include "io/adapter.h"
#include "io/adapter_write.h"
#include "io/safetensors.h"
#include "io_folder_testing.h"
#include "mica/model.h"
#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>

enum { MOST = 128 };
static void empty_folder(void) {
    static const char *const files[] = {"adapters.safetensors", "adapter_model.safetensors", "adapter_config.json", "0000007_adapters.safetensors"};
    for (size_t i = 0; i < MICA_COUNT(files); i++) unlink(path_in(folder, files[i]));
}

// ---- adapters as lists of tensors -----------------------------------------------------------------------
typedef struct list {
    mica_stored items[MOST];
    size_t count;
} list;

static void add(list *l, const mica_adapter_part *p, const mica_stored *t, const char *end) {
    if (!t) return;
    assert_true(l->count < MOST);
    mica_stored *to = &l->items[l->count++];
    size_t size = mica_dtype_size(t->dtype), rows = (size_t)t->shape[0], columns = t->ndim == 2 ? (size_t)t->shape[1] : 1;
    bool turn = p->transposed && t->ndim == 2;
    unsigned char *bytes = malloc(t->bytes);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++)
            memcpy(bytes + (turn ? c * rows + r : r * columns + c) * size, (const char *)t->data + (r * columns + c) * size, size);
    *to = *t;
    to->data = bytes, to->name = mica_strf("%s%s", p->module, end);
    if (turn) to->shape[0] = t->shape[1], to->shape[1] = t->shape[0];
}

static list list_of(const mica_adapter *a) {
    list l = {.count = 0};
    for (size_t i = 0; i < a->count; i++) {
        const mica_adapter_part *p = &a->parts[i];
        add(&l, p, p->a, ".lora_a"), add(&l, p, p->b, ".lora_b"), add(&l, p, p->magnitude, ".m");
    }
    return l;
}

static void free_list(list *l) {
    for (size_t i = 0; i < l->count; i++) free((void *)(uintptr_t)l->items[i].data), mica_free((void *)(uintptr_t)l->items[i].name);
    l->count = 0;
}

static void same_lists(const list *a, const list *b) {
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        size_t k = 0;
        while (k < b->count && strcmp(a->items[i].name, b->items[k].name) != 0) k++;
        if (k == b->count) fail_msg("%s is lost", a->items[i].name);
        assert_true(a->items[i].dtype == b->items[k].dtype && a->items[i].bytes == b->items[k].bytes);
        assert_memory_equal(a->items[i].shape, b->items[k].shape, (size_t)a->items[i].ndim * sizeof(int64_t));
        assert_memory_equal(a->items[i].data, b->items[k].data, a->items[i].bytes);
    }
}

static void open_ok(mica_adapter *a, const char *path) {
    mica_error err = {0};
    if (!mica_adapter_open(a, path, &err)) fail_msg("%s", err.msg);
}

// ---- what is computed -----------------------------------------------------------------------------------
static mica_scores scores_of(const char *base, const char *adapter) {
    static const int32_t ids[] = {0, 17, 45, 203, 9, 120};
    mica_error err = {0};
    mica_scores s = {0};
    mica_model *m = mica_model_load(base, &(mica_load_options){.adapter = adapter, .threads = 1}, &err);
    if (!m || !mica_score(m, ids, MICA_COUNT(ids), 50, &s, &err)) fail_msg("%s", err.msg);
    mica_model_free(m);
    return s;
}

static void same_answers(const char *base, const char *one, const char *other) {
    mica_scores a = scores_of(base, one), b = scores_of(base, other);
    assert_memory_equal(a.top, b.top, a.count * 50 * sizeof *a.top);
    mica_scores_free(&a), mica_scores_free(&b);
}

// ---- round trips ----------------------------------------------------------------------------------------
static bool one_scale(const mica_adapter *a) {
    for (size_t i = 1; i < a->count; i++)
        if (a->parts[i].scale != a->parts[0].scale) return false;
    return true;
}

static mica_adapter_write_options options_for(const char *name, const mica_adapter *a, mica_adapter_form form) {
    bool input_only = strncmp(name, "peft-embedding", 14) == 0, both = strcmp(name, "mlx-embedding") == 0; // of tied models
    return (mica_adapter_write_options){.form = form, .scale = (double)a->parts[0].scale, .input_only = input_only, .tied = input_only || both,
                                        .num_layers = strcmp(name, "mlx-lora-last") == 0};
}

static void round_trip(const char *name, mica_adapter_form form) {
    char golden[600];
    mica_adapter a, b;
    mica_error err = {0};
    snprintf(golden, sizeof golden, GOLDEN_DIR "/adapters/%s", name);
    open_ok(&a, golden);
    list want = list_of(&a);
    if (!one_scale(&a)) print_message("  %s: not written: its modules have scales of their own\n", name);
    else {
        mica_adapter_write_options o = options_for(name, &a, form);
        bool input_only = o.input_only, both = o.tied && !o.input_only;
        bool ok = mica_adapter_write(folder, want.items, want.count, &o, &err), can = form == MICA_ADAPTER_PEFT ? !both : !input_only;
        if (!ok && can) fail_msg("%s: %s", name, err.msg);
        if (!can) assert_false(ok), assert_says(&err, both ? "adapts the head as well" : "leaves the head alone", both ? "PEFT" : "mlx-lm");
        if (ok) {
            open_ok(&b, folder);
            list got = list_of(&b);
            same_lists(&want, &got);
            assert_true(b.parts[0].scale == a.parts[0].scale);
            free_list(&got);
            mica_adapter_close(&b);
            same_answers(base_of(name), golden, folder);
        }
    }
    free_list(&want);
    mica_adapter_close(&a);
    empty_folder();
}

static void round_trips(void **state) {
    (void)state;
    int n = 0;
    DIR *d = opendir(GOLDEN_DIR "/adapters");
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        round_trip(e->d_name, MICA_ADAPTER_MLX_LM);
        round_trip(e->d_name, MICA_ADAPTER_PEFT);
        n++;
    }
    closedir(d);
    assert_true(n >= 14);
}

// ---- what cannot be written -----------------------------------------------------------------------------
#define Q "model.layers.0.self_attn.q_proj"
static const float zeros[64];
static const mica_stored good[] = {{.name = Q ".lora_a", .dtype = MICA_F32, .ndim = 2, .shape = {8, 2}, .data = zeros, .bytes = 64},
                                   {.name = Q ".lora_b", .dtype = MICA_F32, .ndim = 2, .shape = {2, 4}, .data = zeros, .bytes = 32},
                                   {.name = Q ".m", .dtype = MICA_F32, .ndim = 1, .shape = {4}, .data = zeros, .bytes = 16}};
static const mica_adapter_write_options plain = {.scale = 2};

static void refused(const mica_stored *tensors, size_t n, const mica_adapter_write_options *o, const char *says) {
    mica_error err = {0};
    if (mica_adapter_write(folder, tensors, n, o, &err)) fail_msg("written, although: %s", says);
    assert_says(&err, folder, says);
    assert_false(mica_is_file(path_in(folder, "adapters.safetensors")));
}

static void refusals(void **state) {
    (void)state;
    mica_stored t[3];
    mica_error err = {0};
    refused(good, 0, &plain, "without tensors");
    refused(good, 1, &plain, "lacks a part");
    refused(good, 2, &(mica_adapter_write_options){.scale = 0}, "scale");
    memcpy(t, good, sizeof t), t[1].shape[0] = 1;
    refused(t, 2, &plain, Q ".lora_a: [8,2] does not fit");
    memcpy(t, good, sizeof t), t[2].shape[0] = 5;
    refused(t, 3, &plain, "does not fit");
    memcpy(t, good, sizeof t), t[2].name = "model.layers.1.mlp.up_proj.m";
    refused(t, 3, &plain, Q " lacks a part");
    memcpy(t, good, sizeof t), t[0].dtype = MICA_I32;
    refused(t, 2, &plain, "i32");
    memcpy(t, good, sizeof t), t[0].name = Q ".weight";
    refused(t, 2, &plain, ".weight");
    assert_true(mica_adapter_write(folder, good, 2, &(mica_adapter_write_options){.scale = 2, .form = MICA_ADAPTER_PEFT}, &err));
    refused(good, 2, &plain, "adapter_model.safetensors");
    empty_folder();
    assert_false(mica_adapter_write("/dev/null/place", good, 2, &plain, &err));
    assert_says(&err, "/dev/null", "");
}

// ---- what readers of the files see ----------------------------------------------------------------------
static void config_says(const char *part) {
    mica_buf text = {0};
    mica_error err = {0};
    assert_true(mica_file_read(path_in(folder, "adapter_config.json"), 9999, &text, &err));
    if (!strstr(text.data, part)) fail_msg("%s lacks %s", text.data, part);
    mica_buf_free(&text);
}

static void names_and_configs(void **state) {
    (void)state;
    mica_error err = {0};
    assert_true(mica_adapter_write(folder, good, 3, &(mica_adapter_write_options){.scale = 2.5, .num_layers = 4, .nested = true}, &err));
    config_says("\"fine_tune_type\":\"dora\",\"num_layers\":4,\"lora_parameters\":{\"rank\":2,\"scale\":2.5,\"dropout\":0,\"keys\":[\"self_attn.q_proj\"]}");
    mica_safetensors *st = mica_safetensors_open(path_in(folder, "adapters.safetensors"), &err);
    assert_non_null(mica_safetensors_find(st, "language_model." Q ".lora_a"));
    mica_safetensors_free(st);
    assert_true(mica_adapter_write(folder, good, 2, &(mica_adapter_write_options){.scale = 2, .snapshot = "0000007_"}, &err));
    assert_true(mica_is_file(path_in(folder, "0000007_adapters.safetensors")));
    empty_folder();
    mica_adapter_write_options peft = {.form = MICA_ADAPTER_PEFT, .scale = 2.5, .num_layers = 4, .base_model = "a/b"};
    assert_true(mica_adapter_write(folder, good, 3, &peft, &err));
    config_says("\"base_model_name_or_path\":\"a/b\"");
    config_says("\"r\":2,\"lora_alpha\":5,");
    config_says("\"use_dora\":true");
    config_says("\"target_modules\":[\"" Q "\"]");
    peft.num_layers = 0;
    assert_true(mica_adapter_write(folder, good, 3, &peft, &err));
    config_says("\"target_modules\":[\"q_proj\"]");
    peft.nested = true;
    assert_true(mica_adapter_write(folder, good, 3, &peft, &err));
    config_says("\"target_modules\":[\"model.language_model.layers.0.self_attn.q_proj\"]");
    empty_folder();
}

// ---- failures -------------------------------------------------------------------------------------------
static size_t entries(void) {
    size_t n = 0;
    DIR *d = opendir(folder);
    while (readdir(d)) n++;
    closedir(d);
    return n - 2;
}

static bool write_once(void *ctx, mica_error *err) {
    mica_adapter_form form = *(mica_adapter_form *)ctx;
    return mica_adapter_write(folder, good, 3, &(mica_adapter_write_options){.scale = 2, .form = form}, err);
}

static void allocation_failures(void **state) {
    (void)state;
    for (mica_adapter_form form = MICA_ADAPTER_MLX_LM; form <= MICA_ADAPTER_PEFT; form++) {
        sweep_allocations(write_once, &form);
        assert_int_equal(entries(), 2);
        empty_folder();
    }
}

// A full disk leaves what was there before.
static void disk_full(void **state) {
    (void)state;
    struct rlimit old;
    mica_error err = {0};
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    assert_true(mica_adapter_write(folder, good, 3, &plain, &err));
    mica_buf before = {0}, after = {0};
    assert_true(mica_file_read(path_in(folder, "adapters.safetensors"), 9999, &before, &err));
    for (rlim_t limit = 16; limit < 400; limit += 100) {
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){.rlim_cur = limit, .rlim_max = old.rlim_max});
        bool ok = mica_adapter_write(folder, good, 3, &plain, &err);
        setrlimit(RLIMIT_FSIZE, &old);
        if (!ok) assert_says(&err, folder, "write");
        assert_int_equal(entries(), 2);
    }
    assert_true(mica_file_read(path_in(folder, "adapters.safetensors"), 9999, &after, &err));
    assert_int_equal(before.len, after.len);
    assert_memory_equal(before.data, after.data, before.len);
    mica_buf_free(&before), mica_buf_free(&after);
    empty_folder();
}

// ---- for the tools --------------------------------------------------------------------------------------
static void write_for_tools(const char *to, const char *name, bool nested) {
    char golden[600], out[1200];
    mica_adapter a;
    snprintf(golden, sizeof golden, GOLDEN_DIR "/adapters/%s", name);
    open_ok(&a, golden);
    list l = list_of(&a);
    for (mica_adapter_form form = MICA_ADAPTER_MLX_LM; one_scale(&a) && form <= MICA_ADAPTER_PEFT; form++) {
        mica_adapter_write_options o = options_for(name, &a, form);
        mica_error err = {0};
        o.nested = nested;
        snprintf(out, sizeof out, "%s/%s%s.%s", to, nested ? "nested-" : "", name, form == MICA_ADAPTER_PEFT ? "peft" : "mlx");
        printf("%s: %s\n", out, mica_adapter_write(out, l.items, l.count, &o, &err) ? "written" : err.msg);
    }
    free_list(&l);
    mica_adapter_close(&a);
}

static int write_all(const char *to) {
    DIR *d = opendir(GOLDEN_DIR "/adapters");
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.') write_for_tools(to, e->d_name, false);
    write_for_tools(to, "go-mlx", true); // which fits a multi-modal model as well
    if (d) closedir(d);
    return d ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc > 1) return write_all(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips), cmocka_unit_test(refusals), cmocka_unit_test(names_and_configs), cmocka_unit_test(allocation_failures),
        cmocka_unit_test(disk_full),
    };
    return cmocka_run_group_tests_name("adapter_write", tests, make_folder, drop_folder);
}
