// SPDX-License-Identifier: Apache-2.0
// Sessions: a text whose computed part (keys and values) is kept between calls, so that the next turn computes only what is
// new. Native backends. One session serves one call at a time; forks of it are independent.
#ifndef MICA_SESSION_H
#define MICA_SESSION_H

#include "mica/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mica_session mica_session;

/** Whether the model's backend has sessions. */
MICA_API bool mica_session_works(const mica_model *model);
/** A session without a text. It holds what the model holds, also when that is closed, until it is freed. */
MICA_API mica_session *mica_session_new(mica_model *model, mica_error *err);
/** NULL is fine. An open stream of it goes on. */
MICA_API void mica_session_free(mica_session *session);
/** Starts an answer to the whole text so far (prompt: a conversation, a text or ids). Its longest beginning that the session holds is not
 * computed again: mica_metrics.cached_tokens tells its length. A later turn equals a fresh run to rounding (tokens
 * of answers were computed one by one, those of a prompt together). What is then computed, the answer included, stays in the session.
 * Fails while the stream of an earlier call is not freed. */
MICA_API mica_stream *mica_session_start(mica_session *session, const mica_prompt *prompt, const mica_generate_options *options,
                                         mica_error *err);
/** The tokens whose keys and values are held; valid until the next call on the session. None while a stream of it is there. */
MICA_API const int32_t *mica_session_ids(const mica_session *session, size_t *count);
/** Forgets all but the first `count` tokens. Models with sliding windows may forget some more (see mica_session_ids): what lies before a window is
 * kept for the ends of the last prompts only. That costs time, nothing else: the next start computes what is missing. */
MICA_API bool mica_session_truncate(mica_session *session, size_t count, mica_error *err);
/** A session that starts where this one is; they share memory until they differ. */
MICA_API mica_session *mica_session_fork(const mica_session *session, mica_error *err);
/** Writes tokens, keys and values to a file; it appears as a whole or not at all. */
MICA_API bool mica_session_save(const mica_session *session, const char *path, mica_error *err);
/** Reads a file of mica_session_save. Another model's file, another version and damage are refused. */
MICA_API mica_session *mica_session_load(mica_model *model, const char *path, mica_error *err);

#ifdef __cplusplus
}
#endif
#endif
