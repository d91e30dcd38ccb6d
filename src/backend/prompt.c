// SPDX-License-Identifier: Apache-2.0
// A prompt as token ids: ids as they are, a text through the tokenizer, a conversation through its template.
#include "backend/chat.h"
#include "backend/model.h"

bool mica_prompt_ids(const mica_lm *lm, const mica_prompt *p, mica_ids *ids, mica_error *err) {
    if (p->ids || p->count) {
        if (!mica_grow(&ids->data, &ids->capacity, ids->len + p->count, sizeof *ids->data))
            return mica_fail_memory(err, p->count * sizeof *ids->data, "token ids");
        for (size_t i = 0; i < p->count; i++) ids->data[ids->len++] = p->ids[i];
        return true;
    }
    if (p->chat) return mica_chat_encode(lm, p->chat, NULL, ids, err);
    if (!lm->tokenizer) return mica_fail(err, MICA_ERR_ARGUMENT, "the model has no tokenizer: give token ids");
    return mica_tokenizer_encode(lm->tokenizer, p->text ? p->text : "", p->length, NULL, ids, err);
}
