// SPDX-License-Identifier: Apache-2.0
// What a session keeps between calls: the tokens computed last and the sequence of their pages. One call at a time borrows it.
// Layers with a window have let go of what lies before the window at the end; so that the text can be cut back all the same, copies of the
// sequence are kept as it was at the ends of the last prompts (they share pages). Under a memory budget those are the first to go.
#ifndef MICA_INFER_PAST_H
#define MICA_INFER_PAST_H

#include "infer/internal.h"

enum { MICA_PAST_MARKS = 4 };

struct mica_past {
    mica_lm *lm;
    mica_sequence sequence;   // lent to the call while one is under way
    uint64_t adapter;         // identity of the adapter it was computed with; 0: none
    mica_ids ids;             // its tokens; while lent, those of the call's text so far
    mica_sequence marks[MICA_PAST_MARKS]; // by length
    size_t mark_count;
    pthread_mutex_t lock;     // of the two below
    bool lent, orphan;        // orphan: to be freed when it comes back
    bool away;                // the sequence is with the call
};

mica_past *mica_past_new(mica_lm *lm, mica_error *err);
/** Frees it, or when it is lent, as soon as it comes back. */
void mica_past_free(mica_past *p);
/** Takes it for one call; fails if it is lent already. Undo with mica_past_release. */
bool mica_past_acquire(mica_past *p, mica_error *err);
void mica_past_release(mica_past *p);
// ---- for whoever has acquired it ------------------------------------------------------------------------------
/** *q (empty, of the call's adapter) is to become ids[n], to which at most `more` follow: it takes over the longest beginning that is there. */
bool mica_past_lend(mica_past *p, mica_sequence *q, const int32_t *ids, size_t n, size_t more, mica_error *err);
/** The prompt is computed. */
bool mica_past_mark(mica_past *p, const mica_sequence *q, mica_error *err);
/** A token that follows. */
void mica_past_push(mica_past *p, int32_t id);
/** What was lent comes back; *q is empty afterwards. */
void mica_past_return(mica_past *p, mica_sequence *q);
/** Keeps at most the first `count` tokens: fewer, where pages that a window needs are gone. */
bool mica_past_truncate(mica_past *p, size_t count, mica_error *err);
mica_past *mica_past_fork(const mica_past *p, mica_error *err);

// ---- files (past_file.c) ----------------------------------------------------------------------------------------
bool mica_past_save(const mica_past *p, const char *path, mica_error *err);
mica_past *mica_past_load(mica_lm *lm, const char *path, mica_error *err);
/** The same from a file's bytes; what: names them in messages. */
mica_past *mica_past_parse(mica_lm *lm, const unsigned char *bytes, size_t size, const char *what, mica_error *err);
/** Makes the checksum right (tests). */
void mica_past_seal(unsigned char *bytes, size_t size);
#endif
