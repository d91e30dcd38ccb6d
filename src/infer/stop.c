// SPDX-License-Identifier: Apache-2.0
// Stop texts by comparison at every position of the little that is pending: it is never longer than the longest stop text plus one piece.
#include "infer/stop.h"
#include <string.h>

bool mica_stop_init(mica_stop *m, const char *const *texts, size_t count, mica_error *err) {
    *m = (mica_stop){.texts = mica_calloc(count, sizeof *m->texts)};
    if (!m->texts) return mica_fail_memory(err, count * sizeof *m->texts, "stop texts");
    for (size_t i = 0; i < count; i++, m->count++) {
        if (!texts[i] || !*texts[i]) return mica_stop_free(m), mica_fail(err, MICA_ERR_ARGUMENT, "stop: text %zu is empty", i);
        if (!(m->texts[i] = mica_strdup(texts[i]))) return mica_stop_free(m), mica_fail_memory(err, strlen(texts[i]), "stop texts");
    }
    return true;
}

void mica_stop_free(mica_stop *m) {
    for (size_t i = 0; i < m->count; i++) mica_free(m->texts[i]);
    mica_free(m->texts);
    mica_buf_free(&m->pending);
    *m = (mica_stop){0};
}

// Looks at position `at`: 2 a stop text starts and ends here, 1 one may start here, 0 none.
static int look(const mica_stop *m, size_t at) {
    int best = 0;
    for (size_t i = 0; i < m->count; i++) {
        size_t len = strlen(m->texts[i]), left = m->pending.len - at;
        if (memcmp(m->texts[i], m->pending.data + at, MICA_MIN(len, left))) continue;
        if (left >= len) return 2;
        best = 1;
    }
    return best;
}

bool mica_stop_push(mica_stop *m, const char *text, size_t n, bool flush, const char **out, size_t *out_n) {
    *out = "";
    *out_n = 0;
    if (m->matched) return true;
    if (m->given) { // drop what the last call gave out
        memmove(m->pending.data, m->pending.data + m->given, m->pending.len - m->given);
        m->pending.len -= m->given;
        m->given = 0;
    }
    if (!mica_buf_append(&m->pending, text, n)) return false;
    size_t at = 0;
    for (; at < m->pending.len; at++) {
        int found = look(m, at);
        if (found == 2) m->matched = true;
        if (found == 2 || (found == 1 && !flush)) break;
    }
    *out = m->pending.data;
    *out_n = m->given = at;
    return true;
}
