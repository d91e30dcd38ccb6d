// SPDX-License-Identifier: Apache-2.0
// Tokenizers: time to load and to encode and decode a text, one thread, best of several runs.
//   bench_tokenizer [--cpu] TEXT_FILE FOLDER_OR_GGUF...
// With an empty cache folder (MICA_CACHE names it) the first load is the cold one. --cpu: the thread's CPU time instead
// of the clock's, for busy machines.
#include "base/base.h"
#include "base/file.h"
#include "mica/tokenizer.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { RUNS = 7 };

static bool cpu_time;

static double now(void) {
    struct timespec t;
    if (!cpu_time) return mica_now();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const mica_error *err) {
    fprintf(stderr, "bench_tokenizer: %s\n", err->msg);
}

static double encode_seconds(const mica_tokenizer *t, const mica_buf *text, mica_ids *ids, mica_error *err) {
    double best = 1e9;
    for (int i = 0; i < RUNS; i++) {
        ids->len = 0;
        double start = now();
        if (!mica_tokenizer_encode(t, text->data, text->len, NULL, ids, err)) return -1;
        best = MICA_MIN(best, now() - start);
    }
    return best;
}

static double decode_seconds(const mica_tokenizer *t, const mica_ids *ids, mica_error *err) {
    double best = 1e9;
    mica_text out = {0};
    for (int i = 0; i < RUNS; i++) {
        out.len = 0;
        double start = now();
        if (!mica_tokenizer_decode(t, ids->data, ids->len, NULL, &out, err)) return -1;
        best = MICA_MIN(best, now() - start);
    }
    mica_text_free(&out);
    return best;
}

static bool bench(const char *path, const mica_buf *text) {
    mica_error err = {0};
    double first = now();
    mica_tokenizer *t = mica_tokenizer_load(path, &err);
    if (!t) return die(&err), false;
    double second = now();
    mica_tokenizer_free(t);
    double third = now();
    if (!(t = mica_tokenizer_load(path, &err))) return die(&err), false;
    double loaded = now() - third;
    mica_ids ids = {0};
    double encode = encode_seconds(t, text, &ids, &err), decode = decode_seconds(t, &ids, &err), mb = (double)text->len * 1e-6;
    if (encode < 0 || decode < 0) die(&err);
    const char *name = strrchr(path, '/');
    printf("%-28s first load %7.1f ms, again %6.1f ms, encode %7.1f MB/s, decode %7.1f MB/s, %zu tokens\n", name && name[1] ? name + 1 : path,
           (second - first) * 1e3, loaded * 1e3, mb / encode, mb / decode, ids.len);
    mica_ids_free(&ids);
    mica_tokenizer_free(t);
    return encode >= 0 && decode >= 0;
}

int main(int argc, char **argv) {
    mica_error err = {0};
    mica_buf text = {0};
    if (argc > 1 && !strcmp(argv[1], "--cpu")) cpu_time = true, argc--, argv++;
    if (argc < 3) return fprintf(stderr, "usage: bench_tokenizer [--cpu] TEXT_FILE FOLDER_OR_GGUF...\n"), 2;
    if (!mica_file_read(argv[1], (size_t)1 << 30, &text, &err)) return die(&err), 1;
    bool ok = true;
    for (int i = 2; i < argc; i++) ok = bench(argv[i], &text) && ok;
    mica_buf_free(&text);
    return !ok;
}
