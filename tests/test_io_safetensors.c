// SPDX-License-Identifier: Apache-2.0
// safetensors: files as met in the wild, malformed ones, shards, the streaming writer and its failures.
#include "io/safetensors.h"
#include "io_folder_testing.h"
#include <signal.h>
#include <sys/resource.h>

// A file with this header (its length is put before it) and `data` bytes 0, 1, 2, …
static const char *make_file(const char *name, const char *header, size_t data) {
    unsigned char bytes[4096];
    size_t n = strlen(header);
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(n >> (8 * i));
    memcpy(bytes + 8, header, n);
    for (size_t i = 0; i < data; i++) bytes[8 + n + i] = (unsigned char)i;
    const char *path = path_in(folder, name);
    write_file(path, bytes, 8 + n + data);
    return path;
}

// MLX's habits: null metadata, no padding (data at an odd offset), data in another order than the header.
static void mlx_habits(void **state) {
    (void)state;
    mica_error err = {0};
    const char *header = "{\"__metadata__\":null,\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]},"
                         "\"a\":{\"dtype\":\"U8\",\"shape\":[2,2],\"data_offsets\":[0,4]},"
                         "\"none\":{\"dtype\":\"BF16\",\"shape\":[0,7],\"data_offsets\":[12,12]},"
                         "\"scalar\":{\"dtype\":\"I16\",\"shape\":[],\"data_offsets\":[12,14]}}";
    mica_safetensors *st = mica_safetensors_open(make_file("mlx.safetensors", header, 14), &err);
    assert_non_null(st);
    assert_int_equal(mica_safetensors_count(st), 4);
    assert_string_equal(mica_safetensors_at(st, 0)->name, "b");
    const mica_stored *b = mica_safetensors_find(st, "b"), *s = mica_safetensors_find(st, "scalar");
    assert_int_equal(((const unsigned char *)b->data)[0], 4);
    assert_int_equal(s->ndim, 0);
    assert_int_equal(mica_stored_count(s), 1);
    assert_int_equal(mica_safetensors_find(st, "none")->bytes, 0);
    assert_null(mica_safetensors_find(st, "c"));
    assert_null(mica_safetensors_at(st, 4));
    char shape[32];
    assert_string_equal(mica_stored_shape(mica_safetensors_find(st, "a"), shape, sizeof shape), "[2,2]");
    mica_safetensors_forget(st, b);
    assert_int_equal(((const unsigned char *)b->data)[1], 5);
    mica_safetensors_free(st);
}

static void malformed(void **state) {
    (void)state;
#define T(rest) "{\"good\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"t\":" rest "}"
    static const struct { const char *header; size_t data; const char *says; } bad[] = {
        {"{", 0, "line 1"}, {"[]", 0, "no JSON object"}, {"\"x\"", 0, "no JSON object"},
        {T("1"), 8, "\"t\": not an object"}, {T("{\"shape\":[1],\"data_offsets\":[4,5]}"), 8, "\"t\": no \"dtype\""},
        {T("{\"dtype\":\"F8_E4M3\",\"shape\":[1],\"data_offsets\":[4,5]}"), 8, "unknown dtype \"F8_E4M3\""},
        {T("{\"dtype\":\"U8\",\"data_offsets\":[4,5]}"), 8, "\"t\": no \"shape\""},
        {T("{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[4,5]}"), 8, "no natural number"},
        {T("{\"dtype\":\"U8\",\"shape\":[1.5],\"data_offsets\":[4,5]}"), 8, "no natural number"},
        {T("{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[4,5]}"), 8, "9 dimensions"},
        {T("{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[4,5]}"), 8, "shape too large"},
        {T("{\"dtype\":\"F32\",\"shape\":[4611686018427387904,0],\"data_offsets\":[4,4]}"), 8, "shape too large"},
        {T("{\"dtype\":\"U8\",\"shape\":[1]}"), 8, "bad \"data_offsets\""},
        {T("{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[5,4]}"), 8, "bad \"data_offsets\""},
        {T("{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]}"), 8, "bad \"data_offsets\""},
        {T("{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[4,5,6]}"), 8, "bad \"data_offsets\""},
        {T("{\"dtype\":\"U8\",\"shape\":[9],\"data_offsets\":[4,13]}"), 8, "ends at byte 13 of 8"},
        {T("{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[4,8]}"), 8, "f32 [3] needs 12 bytes, data_offsets give 4"},
        {T("{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[3,5]}"), 8, "\"t\" overlaps"},
        {"{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2, "\"t\" is also in"},
        {"{\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 2, "empty name"},
        {"{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 2, "NUL"},
        {"{\"__metadata__\":3}", 0, "__metadata__"}, {"{\"__metadata__\":{\"k\":1}}", 0, "\"k\" is no string"}};
#undef T
    for (size_t i = 0; i < MICA_COUNT(bad); i++) {
        mica_error err = {0};
        uint64_t live = mica_alloc_get_stats().live;
        assert_null(mica_safetensors_open(make_file("bad.safetensors", bad[i].header, bad[i].data), &err));
        assert_says(&err, "bad.safetensors", bad[i].says);
        assert_int_equal(mica_alloc_get_stats().live, live);
    }
}

static void refused_lengths(void **state) {
    (void)state;
    static const struct { const char *bytes; size_t n; const char *says; } bad[] = {
        {"", 0, "0 bytes"}, {"\1\0\0", 3, "3 bytes"}, {"\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, "over 100 MB"},
        {"\x00\x00\x00\x00\x00\x00\x01\x00{}", 10, "over 100 MB"}, {"\x10\0\0\0\0\0\0\0{}", 10, "cut short"}};
    for (size_t i = 0; i < MICA_COUNT(bad); i++) {
        mica_error err = {0};
        const char *path = path_in(folder, "short.safetensors");
        write_file(path, bad[i].bytes, bad[i].n);
        assert_null(mica_safetensors_open(path, &err));
        assert_says(&err, "short.safetensors", bad[i].says);
    }
    mica_error err = {0};
    assert_null(mica_safetensors_open(path_in(folder, "absent.safetensors"), &err));
    assert_says(&err, "absent.safetensors", "cannot open");
}

// Every truncation and every bit flip of a small file: an answer or an error, never a crash.
static void truncated_and_flipped(void **state) {
    (void)state;
    mica_buf file = {0};
    mica_error err = {0};
    const char *header = "{\"__metadata__\":{\"format\":\"mlx\"},\"w\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]}}";
    assert_true(mica_file_read(make_file("whole.safetensors", header, 12), 4096, &file, &err));
    for (size_t n = 0; n < file.len; n++) {
        write_file(path_in(folder, "cut.safetensors"), file.data, n);
        assert_null(mica_safetensors_open(path_in(folder, "cut.safetensors"), &err));
    }
    for (size_t bit = 0; bit < (file.len - 12) * 8; bit++) {
        file.data[bit / 8] = (char)(file.data[bit / 8] ^ 1 << bit % 8);
        write_file(path_in(folder, "flip.safetensors"), file.data, file.len);
        mica_safetensors *st = mica_safetensors_open(path_in(folder, "flip.safetensors"), &err);
        for (size_t i = 0; st && i < mica_safetensors_count(st); i++) {
            const mica_stored *t = mica_safetensors_at(st, i);
            unsigned sum = 0;
            for (size_t k = 0; k < t->bytes; k++) sum += ((const unsigned char *)t->data)[k];
            assert_true(sum <= 255 * 12);
        }
        mica_safetensors_free(st);
        file.data[bit / 8] = (char)(file.data[bit / 8] ^ 1 << bit % 8);
    }
    mica_buf_free(&file);
}

static void shards(void **state) {
    (void)state;
    mica_error err = {0};
    mica_safetensors *st = mica_safetensors_open(GOLDEN_DIR "/models/llama-f32", &err);
    assert_non_null(st);
    assert_int_equal(mica_safetensors_files(st), 5);
    assert_non_null(mica_safetensors_find(st, "model.layers.1.mlp.down_proj.weight"));
    const mica_stored *norm = mica_safetensors_find(st, "model.norm.weight");
    assert_non_null(strstr(mica_safetensors_file(st, norm), "-of-00005.safetensors"));
    assert_string_equal(mica_safetensors_metadata(st, "format"), "pt");
    mica_safetensors_free(st);
}

static void folders_without(void **state) {
    (void)state;
    mica_error err = {0};
    char dir[700];
    snprintf(dir, sizeof dir, "%s/sub", folder);
    assert_true(mica_mkdirs(dir, &err));
    assert_null(mica_safetensors_open(dir, &err));
    assert_says(&err, dir, "no *.safetensors");
    static const struct { const char *index, *says; } bad[] = {
        {"{\"weight_map\":{\"w\":\"model-00001-of-00002.safetensors\"}}", "missing shard model-00001-of-00002.safetensors"},
        {"{\"weight_map\":{}}", "\"weight_map\" is empty"}, {"{}", "no \"weight_map\""}, {"{\"weight_map\":{\"w\":3}}", "names no file"},
        {"{\"weight_map\":{\"w\":\"../../etc/passwd\"}}", "names no file"}, {"{\"weight_map\":", "line 1"}};
    for (size_t i = 0; i < MICA_COUNT(bad); i++) {
        write_file(path_in(dir, "model.safetensors.index.json"), bad[i].index, strlen(bad[i].index));
        assert_null(mica_safetensors_open(dir, &err));
        assert_says(&err, "sub", bad[i].says);
    }
    mica_remove_flat_dir(dir);
}

// ---- writing -----------------------------------------------------------------------------------------
typedef struct plan {
    const char *path;
    mica_st_options options;
} plan;

static bool write_three(void *ctx, mica_error *err) {
    const plan *p = ctx;
    static const int64_t a[] = {3, 5}, b[] = {7};
    unsigned char bytes[60 + 14 + 0];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(i * 3);
    mica_st_writer *w = mica_st_writer_new(p->path, &p->options, err);
    bool ok = w && mica_st_writer_declare(w, "a", MICA_F32, 2, a, err) && mica_st_writer_declare(w, "empty", MICA_U8, 1, (int64_t[]){0}, err) &&
              mica_st_writer_declare(w, "b\"\xC3\xA9", MICA_BF16, 1, b, err) && mica_st_writer_begin(w, err) &&
              mica_st_writer_put(w, bytes, 33, err) && mica_st_writer_put(w, bytes + 33, sizeof bytes - 33, err) && mica_st_writer_commit(w, err);
    mica_st_writer_free(w);
    return ok;
}

static void check_three(const char *path, size_t files) {
    mica_error err = {0};
    mica_safetensors *st = mica_safetensors_open(path, &err);
    if (!st) fail_msg("%s", err.msg);
    assert_int_equal(mica_safetensors_count(st), 3);
    assert_int_equal(mica_safetensors_files(st), files);
    const mica_stored *a = mica_safetensors_find(st, "a"), *b = mica_safetensors_find(st, "b\"\xC3\xA9");
    assert_int_equal(a->bytes, 60);
    assert_int_equal(b->bytes, 14);
    for (size_t i = 0; i < 74; i++) assert_int_equal(i < 60 ? ((const uint8_t *)a->data)[i] : ((const uint8_t *)b->data)[i - 60], (uint8_t)(i * 3));
    assert_int_equal((uintptr_t)a->data % 8, 0); // mica pads its headers
    assert_string_equal(mica_safetensors_metadata(st, "format"), "mlx");
    mica_safetensors_free(st);
}

static void round_trips(void **state) {
    (void)state;
    mica_error err = {0};
    plan single = {path_in(folder, "out.safetensors"), {0}};
    assert_true(write_three(&single, &err));
    check_three(single.path, 1);
    char dir[700];
    snprintf(dir, sizeof dir, "%s/sharded", folder);
    plan sharded = {dir, {.shard_bytes = 64}};
    assert_true(write_three(&sharded, &err));
    assert_true(mica_is_file(path_in(dir, "model-00002-of-00002.safetensors")));
    check_three(dir, 2);
    mica_buf index = {0};
    assert_true(mica_file_read(path_in(dir, "model.safetensors.index.json"), 9999, &index, &err));
    assert_non_null(strstr(index.data, "\"total_size\": 74"));
    mica_buf_free(&index);
    mica_remove_flat_dir(dir);
}

static void misuse(void **state) {
    (void)state;
    mica_error err = {0};
    int64_t shape[] = {2}, minus[] = {-2};
    mica_st_writer *w = mica_st_writer_new(path_in(folder, "misuse.safetensors"), NULL, &err);
    assert_true(mica_st_writer_declare(w, "t", MICA_U8, 1, shape, &err));
    assert_false(mica_st_writer_declare(w, "t", MICA_U8, 1, shape, &err));
    assert_says(&err, "\"t\"", "twice");
    assert_false(mica_st_writer_declare(w, "u", MICA_U8, 1, minus, &err));
    assert_false(mica_st_writer_commit(w, &err));
    assert_true(mica_st_writer_begin(w, &err));
    assert_false(mica_st_writer_commit(w, &err));
    assert_says(&err, "misuse", "less data");
    assert_true(mica_st_writer_put(w, "ab", 2, &err));
    assert_false(mica_st_writer_put(w, "c", 1, &err));
    assert_says(&err, "misuse", "more data");
    mica_st_writer_free(w);
    assert_false(mica_is_file(path_in(folder, "misuse.safetensors")));
}

// A limit on file size stands in for a full disk: the write fails, the error names the file, nothing stays.
static void disk_full(void **state) {
    (void)state;
    mica_error err = {0};
    struct rlimit old, tight;
    char dir[700];
    snprintf(dir, sizeof dir, "%s/full", folder);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    tight = (struct rlimit){.rlim_cur = 100, .rlim_max = old.rlim_max};
    setrlimit(RLIMIT_FSIZE, &tight);
    plan p = {dir, {0}};
    bool ok = write_three(&p, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_false(ok);
    assert_says(&err, "model.safetensors", "cannot write");
    assert_int_equal(entries_of(dir), 0);
    mica_remove_flat_dir(dir);
}

// ---- allocation failures -----------------------------------------------------------------------------
static bool open_golden(void *ctx, mica_error *err) {
    mica_safetensors *st = mica_safetensors_open(ctx, err);
    mica_safetensors_free(st);
    return st != NULL;
}

static void allocation_failures(void **state) {
    (void)state;
    char path[] = GOLDEN_DIR "/models/llama-f32", dir[700];
    sweep_allocations(open_golden, path);
    snprintf(dir, sizeof dir, "%s/sweep", folder);
    plan p = {dir, {.shard_bytes = 64}};
    sweep_allocations(write_three, &p);
    check_three(dir, 2);
    mica_remove_flat_dir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mlx_habits), cmocka_unit_test(malformed), cmocka_unit_test(refused_lengths),
        cmocka_unit_test(truncated_and_flipped), cmocka_unit_test(shards), cmocka_unit_test(folders_without),
        cmocka_unit_test(round_trips), cmocka_unit_test(misuse), cmocka_unit_test(disk_full), cmocka_unit_test(allocation_failures),
    };
    return cmocka_run_group_tests_name("io_safetensors", tests, make_folder, drop_folder);
}
