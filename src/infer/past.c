// SPDX-License-Identifier: Apache-2.0
// The memory of a session (see past.h).
#include "infer/past.h"
#include "model/pages.h"
#include "model/prefix.h"
#include <string.h>

mica_past *mica_past_new(mica_lm *lm, mica_error *err) {
    mica_past *p = mica_calloc(1, sizeof *p);
    if (!p) return mica_fail_memory(err, sizeof *p, "a session"), NULL;
    p->lm = lm;
    mica_sequence_init(&p->sequence, &lm->cache);
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

static void drop_marks(mica_past *p, size_t from) {
    while (p->mark_count > from) mica_sequence_free(&p->marks[--p->mark_count]);
}

static void destroy(mica_past *p) {
    drop_marks(p, 0);
    mica_sequence_free(&p->sequence);
    mica_ids_free(&p->ids);
    pthread_mutex_destroy(&p->lock);
    mica_free(p);
}

void mica_past_free(mica_past *p) {
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    bool lent = p->lent;
    p->orphan = true;
    pthread_mutex_unlock(&p->lock);
    if (!lent) destroy(p);
}

bool mica_past_acquire(mica_past *p, mica_error *err) {
    pthread_mutex_lock(&p->lock);
    bool free = !p->lent;
    p->lent = true;
    pthread_mutex_unlock(&p->lock);
    return free || mica_fail(err, MICA_ERR_ARGUMENT, "the session is in use: free the stream of its earlier call first");
}

void mica_past_release(mica_past *p) {
    pthread_mutex_lock(&p->lock);
    bool orphan = p->orphan;
    p->lent = false;
    pthread_mutex_unlock(&p->lock);
    if (orphan) destroy(p);
}

// ---- what can be gone on with -----------------------------------------------------------------------------------
// The most positions, up to `most`, that a sequence can be cut to: where the window is gone, none.
static int64_t reach(const mica_sequence *q, int64_t most) {
    int64_t length = MICA_MIN(q->length, most);
    for (int g = 0; g < MICA_GROUPS; g++) {
        const mica_page_pool *p = &q->cache->pool[g];
        if (p->layers && (size_t)mica_pages_seen(p, length) < q->released[g]) return 0;
    }
    return length;
}

// The sequence or the mark that reaches furthest.
static mica_sequence *furthest(mica_past *p, int64_t most, int64_t *length) {
    mica_sequence *best = &p->sequence;
    *length = reach(best, most);
    for (size_t i = 0; i < p->mark_count; i++) {
        int64_t r = reach(&p->marks[i], most);
        if (r > *length) best = &p->marks[i], *length = r;
    }
    return best;
}

// The sequence becomes the beginning, of at most `most` tokens, that reaches furthest; marks after it go.
static bool cut(mica_past *p, int64_t most, mica_error *err) {
    int64_t length;
    mica_sequence *best = furthest(p, most, &length), copy;
    if (best != &p->sequence) {
        if (!mica_sequence_fork(best, &copy, err)) return false;
        mica_sequence_free(&p->sequence);
        p->sequence = copy;
    }
    if (length) mica_sequence_truncate(&p->sequence, length);
    else mica_sequence_free(&p->sequence), mica_sequence_init(&p->sequence, &p->lm->cache);
    while (p->mark_count && p->marks[p->mark_count - 1].length > length) drop_marks(p, p->mark_count - 1);
    p->ids.len = MICA_MIN(p->ids.len, (size_t)length);
    return true;
}

bool mica_past_truncate(mica_past *p, size_t count, mica_error *err) { return count >= p->ids.len || cut(p, (int64_t)count, err); }

// ---- a call -----------------------------------------------------------------------------------------------------
static int64_t common_tokens(const mica_past *p, const int32_t *ids, size_t n) {
    size_t i = 0;
    while (i < p->ids.len && i + 1 < n && p->ids.data[i] == ids[i]) i++; // one token is left to compute
    return (int64_t)i;
}

// Keys turned with other frequencies are of no use.
static bool same_rope(const mica_past *p, int64_t n) {
    const mica_sequence *q = &p->sequence;
    return mica_prefix_same_rope(q->cache, q->rope_length, n) && mica_prefix_same_rope(q->cache, q->length, n);
}

bool mica_past_lend(mica_past *p, mica_sequence *q, const int32_t *ids, size_t n, size_t more, mica_error *err) {
    size_t room = n + MICA_MIN(more, (size_t)p->lm->context);
    if (!mica_grow(&p->ids.data, &p->ids.capacity, room, sizeof *p->ids.data)) return mica_fail_memory(err, room * sizeof *ids, "token ids");
    bool same = p->sequence.adapter_number == q->adapter_number && same_rope(p, (int64_t)n);
    if (!cut(p, same ? common_tokens(p, ids, n) : 0, err)) return false;
    if (p->sequence.length < (int64_t)mica_prefix_find(q, ids, n) && !cut(p, 0, err)) return false; // other calls computed more
    const mica_lora_set *adapter = q->adapter;
    mica_sequence_free(q);
    *q = p->sequence;
    mica_sequence_adapt(q, adapter);
    p->adapter = adapter ? adapter->identity : 0;
    mica_sequence_init(&p->sequence, &p->lm->cache);
    memcpy(p->ids.data, ids, n * sizeof *ids);
    p->ids.len = n;
    p->away = true;
    q->spare = p->marks, q->spare_count = &p->mark_count;
    return mica_prefix_begin(q, ids, n, err);
}

bool mica_past_mark(mica_past *p, const mica_sequence *q, mica_error *err) {
    if (!p->lm->cache.pool[1].layers) return true; // such a sequence can be cut anywhere
    if (p->mark_count == MICA_PAST_MARKS) {
        mica_sequence_free(&p->marks[0]);
        memmove(p->marks, p->marks + 1, --p->mark_count * sizeof *p->marks);
    }
    if (!mica_sequence_fork(q, &p->marks[p->mark_count], err)) return false;
    p->marks[p->mark_count++].adapter = NULL; // only its number is kept
    return true;
}

void mica_past_push(mica_past *p, int32_t id) {
    if (p->ids.len < p->ids.capacity) p->ids.data[p->ids.len++] = id;
}

void mica_past_return(mica_past *p, mica_sequence *q) {
    if (!p->away) return;
    p->away = false;
    q->prompt = NULL, q->spare = NULL, q->spare_count = NULL, q->adapter = NULL;
    p->sequence = *q;
    mica_sequence_init(q, &p->lm->cache);
    p->ids.len = MICA_MIN(p->ids.len, (size_t)p->sequence.length);
}

// ---- copies -----------------------------------------------------------------------------------------------------
static bool copy_all(const mica_past *p, mica_past *to, mica_error *err) {
    mica_sequence empty;
    mica_sequence_init(&empty, &p->lm->cache);
    to->adapter = p->adapter;
    if (!mica_sequence_fork(&p->sequence, &to->sequence, err)) {
        to->sequence = empty;
        return false;
    }
    for (; to->mark_count < p->mark_count; to->mark_count++)
        if (!mica_sequence_fork(&p->marks[to->mark_count], &to->marks[to->mark_count], err)) return false;
    if (!mica_grow(&to->ids.data, &to->ids.capacity, p->ids.len, sizeof *to->ids.data))
        return mica_fail_memory(err, p->ids.len * sizeof *to->ids.data, "token ids");
    if (p->ids.len) memcpy(to->ids.data, p->ids.data, p->ids.len * sizeof *to->ids.data);
    to->ids.len = p->ids.len;
    return true;
}

mica_past *mica_past_fork(const mica_past *p, mica_error *err) {
    mica_past *to = mica_past_new(p->lm, err);
    if (!to || copy_all(p, to, err)) return to;
    destroy(to);
    return NULL;
}
