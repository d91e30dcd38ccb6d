// SPDX-License-Identifier: Apache-2.0
// A model in a Python process: the process, the requests that it works on, and their answers. Requests of many threads share the process; each
// has an id. A process that ends fails the requests it had; the next request starts another and loads the model again.
#ifndef MICA_BACKEND_MLX_LM_SERVER_H
#define MICA_BACKEND_MLX_LM_SERVER_H

#include "base/json.h"
#include "mica/backend.h"
#include <stdatomic.h>

extern const mica_backend mica_backend_mlx_lm;

/** Seconds; the context of the backend, NULL for the defaults. */
typedef struct mica_mlx_limits {
    double silence;  // without any sign of life, asked for, before the process counts as hung; default 60
    double patience; // without progress on any request; default 600
    double load;     // for loading a model; default 3600
    double probe;    // for the check whether it is available; default 60
} mica_mlx_limits;

typedef struct mica_mlx mica_mlx;
typedef struct mica_mlx_request mica_mlx_request;

mica_mlx *mica_mlx_open(const char *path, const mica_load_options *options, const mica_mlx_limits *limits, mica_info *info, mica_error *err);
void mica_mlx_close(mica_mlx *m);
const mica_info *mica_mlx_info(const mica_mlx *m);
/** Seconds that the last load took. */
double mica_mlx_load_seconds(mica_mlx *m);

/** A new request to a process that is there, or is started for it. */
mica_mlx_request *mica_mlx_begin(mica_mlx *m, mica_error *err);
/** A number that no request of the model has. */
int64_t mica_mlx_number(mica_mlx *m);
int64_t mica_mlx_id(const mica_mlx_request *r);
/** Sends a line (its end is added) about the request. */
bool mica_mlx_say(mica_mlx *m, mica_mlx_request *r, mica_buf *line, mica_error *err);
/** Next answer to the request, in the arena (which is reset first). NULL: cancelled (MICA_ERR_CANCELLED), failed in Python, or the process is gone. */
const mica_json *mica_mlx_wait(mica_mlx *m, mica_mlx_request *r, mica_arena *arena, mica_error *err);
/** Waits until one of requests[count] has something for mica_mlx_wait to give; the first such from number `from` on, in a circle. */
size_t mica_mlx_wait_any(mica_mlx *m, mica_mlx_request *const *requests, size_t count, size_t from);
/** From any thread or signal handler: ends waiting, and the work on it. */
void mica_mlx_cancel(mica_mlx *m, mica_mlx_request *r);
/** Forgets the request; the process stops working on it. NULL is fine. */
void mica_mlx_end(mica_mlx *m, mica_mlx_request *r);

/** The interpreter to run, by the option, $MICA_PYTHON, $VIRTUAL_ENV or PATH, as a path to be freed. */
char *mica_mlx_python(const char *option, mica_error *err);
/** Whether the interpreter has an mlx_lm that can be used; asked once for each interpreter. */
bool mica_mlx_probe(const char *python, double seconds, mica_error *why);
#endif
