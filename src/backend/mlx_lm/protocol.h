// SPDX-License-Identifier: Apache-2.0
// The lines between the library and its Python worker: JSON objects, one a line. Requests are {"id":N,"cmd":…}; answers begin with
// {"mica":1,"id":N, so that anything else that a library of Python's prints can be told from them. worker.py describes the commands.
#ifndef MICA_BACKEND_MLX_LM_PROTOCOL_H
#define MICA_BACKEND_MLX_LM_PROTOCOL_H

#include "base/json.h"
#include "mica/backend.h"

enum { MICA_MLX_PROTOCOL = 1, MICA_MLX_HELLO = 0, MICA_MLX_PING = -1 }; // ids that are no request's

typedef struct mica_mlx_token {
    int32_t id;        // -1: text alone
    const char *text;  // whole UTF-8
    size_t length;
    float logprob;
    const mica_json *top; // array of [id, logprob], or NULL
    double seconds;    // that the step took
    int64_t active, peak; // bytes of memory, 0 = not told
    mica_finish finish;
} mica_mlx_token;

/** Version and id of an answer, without reading the rest; false for a line that is none. */
bool mica_mlx_read_line(const char *line, size_t n, int64_t *version, int64_t *id);
/** Fills *err if the answer is an error. */
bool mica_mlx_read_error(const mica_json *answer, mica_error *err);
/** The same for one of several texts. */
bool mica_mlx_read_problem(const mica_json *answer, mica_error *err);
bool mica_mlx_read_token(const mica_json *answer, mica_mlx_token *token, mica_error *err);
/** At most `room` candidates, ids within the vocabulary. Gives how many. */
int32_t mica_mlx_read_top(const mica_json *top, int32_t vocab, mica_logprob *out, int32_t room);
bool mica_mlx_read_info(const mica_json *answer, mica_info *info, mica_error *err);
/** An array of token ids, into an allocation; *ids NULL when there are none. */
bool mica_mlx_read_ids(const mica_json *array, int32_t **ids, size_t *count, mica_error *err);
/** An array of exactly `count` numbers; null stands for minus infinity. */
bool mica_mlx_read_numbers(const mica_json *array, double *out, size_t count, mica_error *err);

void mica_mlx_write_command(mica_buf *out, int64_t id, const char *cmd);
void mica_mlx_write_more(mica_buf *out, int64_t id, int32_t tokens);
void mica_mlx_write_load(mica_buf *out, int64_t id, const char *path, const mica_load_options *options);
/** Fails if a part that must be JSON is not. */
bool mica_mlx_write_generate(mica_buf *out, int64_t id, const mica_prompt *prompt, const mica_generate_options *options, int64_t together,
                             mica_error *err);
bool mica_mlx_write_classify(mica_buf *out, int64_t id, const char *const *texts, size_t count, const mica_classify_options *options);
#endif
