// SPDX-License-Identifier: Apache-2.0
// Tokens a second of a batch as a program gets them, from adding rows to reading their tokens, sampling included: CSV.
//   bench_batch MODEL ROWS[,ROWS…] PROMPT TOKENS [TEMPERATURE]    MODEL: a path, or random:SHAPE (4-bit)
// decode: from the moment when all rows answer to their end; whole: from the first step.
#include "base/base.h"
#include "mica/array.h"
#include "mica/batch.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const mica_error *err) {
    fprintf(stderr, "%s\n", err->msg);
    return 1;
}

static bool add_rows(mica_batch *b, int32_t rows, int32_t vocab, int32_t prompt, int32_t tokens, float temperature, mica_error *err) {
    int32_t *ids = malloc((size_t)prompt * sizeof *ids);
    bool ok = ids != NULL;
    for (int32_t r = 0; ok && r < rows; r++) {
        for (int32_t i = 0; i < prompt; i++) ids[i] = (int32_t)(mica_hash(&(int32_t[2]){r, i}, 8, 0) % (uint64_t)vocab);
        mica_generate_options o = {.max_tokens = tokens, .ignore_eos = true, .temperature = temperature, .top_p = 0.95f, .seed = (uint64_t)r};
        ok = mica_batch_add(b, &(mica_prompt){.ids = ids, .count = (size_t)prompt}, &o, err) >= 0;
    }
    free(ids);
    return ok;
}

static int run(mica_model *m, int32_t rows, int32_t prompt, int32_t tokens, float temperature) {
    mica_error err = {0};
    mica_batch *b = mica_batch_new(m, &(mica_batch_options){.rows = rows}, &err);
    if (!b || !add_rows(b, rows, mica_model_info(m)->vocab_size, prompt, tokens, temperature, &err)) return fail(&err);
    char *started = calloc((size_t)rows, 1);
    int32_t waiting = rows, decoded = 0, all = 0;
    double from = mica_now(), answering = from;
    for (mica_batch_event e; mica_batch_next(b, &e);) {
        if (e.finish == MICA_FINISH_ERROR) return mica_batch_error(b, e.row, &err), fail(&err);
        if (e.token.id < 0) continue;
        all++;
        if (!waiting) decoded++;
        else if (!started[e.row]) started[e.row] = 1, waiting--, answering = mica_now();
    }
    double end = mica_now();
    printf("%d,%d,%d,%.3f,%.1f,%.1f\n", rows, prompt, tokens, end - from, decoded / (end - answering), (rows * prompt + all) / (end - from));
    fflush(stdout);
    free(started);
    mica_batch_free(b);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 5) return fprintf(stderr, "usage: bench_batch MODEL|random:SHAPE ROWS[,ROWS…] PROMPT TOKENS [TEMPERATURE]\n"), 2;
    mica_error err = {0};
    bool random = strncmp(argv[1], "random:", 7) == 0;
    mica_model *m = random ? mica_model_random(argv[1] + 7, 4, NULL, &err) : mica_model_load(argv[1], NULL, &err);
    if (!m) return fail(&err);
    int status = 0;
    puts("rows,prompt,tokens,seconds,decode_tokens_per_second,whole_tokens_per_second");
    for (char *p = argv[2]; !status && *p;) {
        int32_t rows = (int32_t)strtol(p, &p, 10);
        status = run(m, rows, atoi(argv[3]), atoi(argv[4]), argc > 5 ? (float)atof(argv[5]) : 0);
        if (*p == ',') p++;
    }
    mica_model_free(m);
    return status;
}
