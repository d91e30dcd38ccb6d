// SPDX-License-Identifier: Apache-2.0
// Conversations as JSON, and as text and ids of native models.
#ifndef MICA_BACKEND_CHAT_H
#define MICA_BACKEND_CHAT_H

#include "base/base.h"
#include "infer/internal.h"
#include "mica/chat.h"

/** Appends {"messages":[…],"tools":[…],"vars":{…},"add_generation_prompt":b}, what a template is rendered with. */
bool mica_chat_json(const mica_chat *chat, mica_buf *out, mica_error *err);
/** Appends the conversation's text and ids; either may be NULL. */
bool mica_chat_encode(const mica_lm *lm, const mica_chat *chat, mica_text *text, mica_ids *ids, mica_error *err);
#endif
