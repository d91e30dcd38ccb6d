// SPDX-License-Identifier: Apache-2.0
// Conversations: messages become a prompt by the model's own chat template, exactly as transformers renders it. What messages say can
// not forge control tokens, unless the caller allows it.
#ifndef MICA_CHAT_H
#define MICA_CHAT_H

#include "mica/model.h"
#include "mica/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mica_message {
    const char *role, *content; // "system", "user", "assistant", … as the template has them
    const char *json;           // instead of both: the whole message as a JSON object, with tool calls, parts, …
} mica_message;

typedef struct mica_chat {
    const char *history; // JSON array of messages that come before; default: none
    const mica_message *messages;
    size_t count;
    const char *tools;     // JSON array of the tools that may be called; default: none
    const char *variables; // JSON object with further variables of the template, such as {"enable_thinking": false}
    const char *name;      // which of several templates; default "tool_use" with tools, if there is one, else "default"
    bool continued;        // the last message is the beginning of the answer, not something to be answered
    bool allow_control;    // control tokens spelled in messages are read as such; default: as text
} mica_chat;

/** Starts the answer to a conversation. A model without a chat template, and a template that refuses the messages, fail. */
MICA_API mica_stream *mica_chat_start(mica_model *model, const mica_message *messages, size_t count, const mica_generate_options *options,
                                      mica_error *err);
/** Appends the conversation's text to *text and its ids to *ids (either may be NULL); native backends. */
MICA_API bool mica_chat_render(mica_model *model, const mica_chat *chat, mica_text *text, mica_ids *ids, mica_error *err);

#ifdef __cplusplus
}
#endif
#endif
