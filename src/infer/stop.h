// SPDX-License-Identifier: Apache-2.0
// Stop texts. Bytes that could be the beginning of a stop text are held back until they turn out to be one (then the answer ends before
// them) or not (then they are given out). Matches run across token borders.
#ifndef MICA_INFER_STOP_H
#define MICA_INFER_STOP_H

#include "base/base.h"

typedef struct mica_stop {
    char **texts;
    size_t count;
    mica_buf pending; // text not given out yet
    size_t given;     // bytes of pending that the last call gave out
    bool matched;
} mica_stop;

/** Copies the texts; an empty one is refused. */
bool mica_stop_init(mica_stop *m, const char *const *texts, size_t count, mica_error *err);
void mica_stop_free(mica_stop *m);
/** Adds text; *out (valid until the next call) receives what is certain not to belong to a stop text. After a match m->matched is set and nothing
 * more comes. flush: the text ends here. False when out of memory. */
bool mica_stop_push(mica_stop *m, const char *text, size_t n, bool flush, const char **out, size_t *out_n);
#endif
