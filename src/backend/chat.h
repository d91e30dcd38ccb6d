// SPDX-License-Identifier: Apache-2.0
// Conversations as JSON, and as text and ids of native models.
#ifndef MICA_BACKEND_CHAT_H
#define MICA_BACKEND_CHAT_H

#include "base/json.h"
#include "infer/internal.h"
#include "mica/chat.h"

/** Writes the member "messages": the history, then the messages. */
bool mica_chat_put_messages(mica_json_writer *w, const mica_chat *chat, mica_error *err);
/** Writes a member that is the caller's JSON, checked to be of this type; nothing if text is NULL. */
bool mica_chat_put_member(mica_json_writer *w, const char *key, const char *text, mica_json_type type, mica_error *err);
/** Appends the conversation's text and ids; either may be NULL. */
bool mica_chat_encode(const mica_lm *lm, const mica_chat *chat, mica_text *text, mica_ids *ids, mica_error *err);
#endif
