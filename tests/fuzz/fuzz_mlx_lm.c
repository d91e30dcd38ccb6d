// SPDX-License-Identifier: Apache-2.0
// Fuzzes the reader of what the Python process of the backend mlx_lm writes: any line, taken as each of the answers there are.
#include "backend/mlx_lm/protocol.h"
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 1000, ROOM = 8 };

static void read_answer(const mica_json *v) {
    mica_error err = {0};
    mica_mlx_token token;
    mica_logprob top[ROOM];
    mica_info info;
    int32_t *ids;
    size_t count;
    if (mica_mlx_read_error(v, &err) && !err.msg[0]) abort();
    err = (mica_error){0};
    if (mica_mlx_read_token(v, &token, &err)) {
        if (token.length != 0 && token.text[token.length] != 0) abort();
        int32_t n = mica_mlx_read_top(token.top, VOCAB, top, ROOM);
        for (int32_t i = 0; i < n; i++)
            if (top[i].id < 0 || top[i].id >= VOCAB) abort();
    } else if (!err.msg[0]) abort();
    err = (mica_error){0};
    if (!mica_mlx_read_info(v, &info, &err) && !err.msg[0]) abort();
    if (memchr(info.architecture, 0, sizeof info.architecture) == NULL) abort();
    double numbers[3];
    mica_mlx_read_problem(v, &err);
    mica_mlx_read_numbers(mica_json_get(v, "logprobs"), numbers, 3, &err);
    if (mica_mlx_read_ids(mica_json_get(v, "prompt"), &ids, &count, &err)) mica_free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int64_t version, id;
    mica_arena arena = {0};
    mica_error err = {0};
    mica_mlx_read_line((const char *)data, size, &version, &id);
    const mica_json *v = mica_json_parse(&arena, (const char *)data, size, "fuzz", &err);
    if (v) read_answer(v);
    mica_arena_free(&arena);
    return 0;
}
