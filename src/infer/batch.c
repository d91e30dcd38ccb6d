// SPDX-License-Identifier: Apache-2.0
// Continuous batching (Yu et al. 2022, "Orca"; chunked prefill as in Agrawal et al. 2023, "Sarathi"). Rows wait in their order until there is
// room, then take part in every step until they end: a step is one forward over a token of each row that answers and pieces of the prompts
// of rows that do not yet, MICA_CHUNK tokens in all. With `invariant` a forward is a piece of one prompt, cut as for a row alone, or a token of
// each answering row, computed as if they were alone.
#include "infer/batch.h"
#include "infer/adapters.h"
#include "infer/row.h"
#include "model/prefix.h"
#include <string.h>

enum {
    MOST_ROWS = MICA_CHUNK,
    DEFAULT_ROWS = 32,
    SHARES = 4,           // parts of a step that prompts get in their order; what is left goes to the oldest
    LEAST_PREFILL = 64,   // tokens of prompts in a step, however many rows answer
    AHEAD = 512,          // positions of an answer that memory is set aside for before it starts
};

/** A row that has not ended. Its tokens are the prompt and the answer so far: row.prompt[count]; sequence.length of them are computed. */
typedef struct live {
    mica_row row;
    mica_sequence sequence; // once it is active
    size_t count, capacity;
    size_t prefilled;       // tokens of the prompt that have been computed at least once
    int64_t number;
    int64_t set_aside;      // positions that memory was set aside for
    bool parked;            // gave its memory back to older rows; goes on when a row has ended
    double added;
} live;

/** What stays of a row. */
typedef struct record {
    live *live; // NULL once it has ended
    mica_metrics metrics;
    const mica_error *error; // NULL: none
} record;

static const mica_error error_lost = {.code = MICA_ERR_NO_MEMORY, .msg = "out of memory"}; // where there was none even for the error

/** A row whose turn has come: with the logits after its last token, or NULL where it ends without. */
typedef struct turn {
    live *live;
    const float *logits;
} turn;

struct mica_lm_batch {
    mica_lm *lm;
    mica_scope *scope;
    mica_sampler_scratch scratch;
    bool invariant, prefill_next;
    size_t most;
    pthread_mutex_t lock; // of `records`, and against rows that end while another thread cancels
    record *records;
    size_t count, capacity, first_waiting;
    atomic_bool cancelled; // some row may be
    live **active;         // [most], oldest first
    size_t active_count;
    live *ended;           // its texts are with the caller until the next call
    mica_error stuck;      // why a row got no memory
    turn *turns;           // [2 * most] of the last step
    size_t turn_count, next_turn;
    // The step: sequences and their tokens.
    live **taking, **answering; // [most]
    mica_sequence **sequences; // [most]
    int32_t *counts, *wanted;  // [most]
    int32_t *ids;              // [most + CHUNK]
    mica_packed packed;
};

// ---- life -----------------------------------------------------------------------------------------------------
static bool allocate(mica_lm_batch *b, mica_error *err) {
    size_t n = b->most;
    b->active = mica_alloc(n * sizeof *b->active);
    b->turns = mica_alloc(2 * n * sizeof *b->turns);
    b->taking = mica_alloc(2 * n * sizeof *b->taking);
    b->answering = b->taking ? b->taking + n : NULL;
    b->sequences = mica_alloc(n * sizeof *b->sequences);
    b->counts = mica_alloc(n * sizeof *b->counts);
    b->wanted = mica_alloc(n * sizeof *b->wanted);
    b->ids = mica_alloc((n + MICA_CHUNK) * sizeof *b->ids);
    if (!b->active || !b->turns || !b->taking || !b->sequences || !b->counts || !b->wanted || !b->ids)
        return mica_fail_memory(err, n * 64, "a batch");
    b->scope = mica_scope_new(b->lm->device, err);
    return b->scope && mica_sampler_scratch_init(&b->scratch, (size_t)b->lm->info.vocab_size, err);
}

mica_lm_batch *mica_lm_batch_new(mica_lm *lm, const mica_batch_options *options, mica_error *err) {
    mica_batch_options o = options ? *options : (mica_batch_options){0};
    if (o.rows < 0 || o.rows > MOST_ROWS)
        return mica_fail(err, MICA_ERR_ARGUMENT, "rows must be between 1 and %d, got %d", (int)MOST_ROWS, (int)o.rows), NULL;
    mica_lm_batch *b = mica_calloc(1, sizeof *b);
    if (!b) return mica_fail_memory(err, sizeof *b, "a batch"), NULL;
    b->lm = lm, b->invariant = o.invariant;
    b->most = o.rows ? (size_t)o.rows : DEFAULT_ROWS;
    pthread_mutex_init(&b->lock, NULL);
    if (allocate(b, err)) return b;
    mica_lm_batch_free(b);
    return NULL;
}

static void free_live(live *l) {
    if (!l) return;
    if (l->sequence.cache) mica_sequence_free(&l->sequence);
    mica_row_free(&l->row);
    mica_free(l);
}

void mica_lm_batch_free(mica_lm_batch *b) {
    if (!b) return;
    for (size_t i = 0; i < b->count; i++) {
        free_live(b->records[i].live);
        if (b->records[i].error != &error_lost) mica_free((void *)(uintptr_t)b->records[i].error);
    }
    free_live(b->ended);
    mica_free(b->records);
    mica_free(b->active);
    mica_free(b->turns);
    mica_free(b->taking);
    mica_free(b->sequences);
    mica_free(b->counts);
    mica_free(b->wanted);
    mica_free(b->ids);
    mica_sampler_scratch_free(&b->scratch);
    mica_scope_free(b->scope);
    pthread_mutex_destroy(&b->lock);
    mica_free(b);
}

static bool add_record(mica_lm_batch *b, live *l) {
    pthread_mutex_lock(&b->lock);
    bool ok = mica_grow(&b->records, &b->capacity, b->count + 1, sizeof *b->records);
    if (ok) b->records[l->number = (int64_t)b->count++] = (record){.live = l};
    pthread_mutex_unlock(&b->lock);
    return ok;
}

int64_t mica_lm_batch_add(mica_lm_batch *b, const int32_t *ids, size_t count, const mica_generate_options *options, mica_error *err) {
    live *l = mica_calloc(1, sizeof *l);
    if (!l) return mica_fail_memory(err, sizeof *l, "a row"), -1;
    l->added = mica_now();
    l->count = l->capacity = count;
    if (mica_row_init(&l->row, b->lm, ids, count, options, &b->scratch, err)) {
        if (add_record(b, l)) return l->number;
        mica_fail_memory(err, sizeof *b->records, "a row");
    }
    free_live(l);
    return -1;
}

void mica_lm_batch_cancel(mica_lm_batch *b, int64_t row) {
    pthread_mutex_lock(&b->lock);
    for (size_t i = row < 0 ? 0 : (size_t)row; i < b->count && (row < 0 || i == (size_t)row); i++)
        if (b->records[i].live) atomic_store(&b->records[i].live->row.cancelled, true);
    pthread_mutex_unlock(&b->lock);
    atomic_store(&b->cancelled, true);
}

// ---- rows that end --------------------------------------------------------------------------------------------
static void add_turn(mica_lm_batch *b, live *l, const float *logits) { b->turns[b->turn_count++] = (turn){l, logits}; }

static void leave(mica_lm_batch *b, live *l) {
    for (size_t i = 0; i < b->active_count; i++)
        if (b->active[i] == l) {
            memmove(b->active + i, b->active + i + 1, (--b->active_count - i) * sizeof *b->active);
            break;
        }
    if (l->sequence.cache) mica_sequence_free(&l->sequence);
    for (size_t i = 0; i < b->active_count; i++) b->active[i]->parked = false;
}

static mica_metrics row_metrics(const live *l) {
    return mica_row_metrics(&l->row, MICA_MAX((int64_t)l->prefilled - l->row.metrics.cached_tokens, (int64_t)0));
}

// Its pages are free for others at once; what the event points to stays until the next call.
static void retire(mica_lm_batch *b, live *l) {
    record *r = &b->records[l->number];
    leave(b, l);
    r->metrics = row_metrics(l);
    if (l->row.finish == MICA_FINISH_ERROR) {
        mica_error *e = mica_alloc(sizeof *e);
        if (e) *e = l->row.error;
        r->error = e ? e : &error_lost;
    }
    b->ended = l;
    pthread_mutex_lock(&b->lock);
    r->live = NULL;
    pthread_mutex_unlock(&b->lock);
}

static void deliver(mica_lm_batch *b, const turn *t, mica_batch_event *e) {
    live *l = t->live;
    double from = mica_now();
    if (atomic_load(&l->row.cancelled)) mica_row_end(&l->row, MICA_FINISH_CANCELLED);
    bool first = !l->row.metrics.generated_tokens;
    mica_row_next(&l->row, t->logits, &e->token);
    if (!l->row.finish) l->row.prompt[l->count++] = l->row.last;
    double seconds = mica_now() - from;
    if (first && e->token.id >= 0) l->row.metrics.time_to_first_token_seconds = from + seconds - l->added;
    *(first ? &l->row.metrics.prefill_seconds : &l->row.metrics.decode_seconds) += seconds;
    l->row.metrics.total_seconds += seconds;
    e->row = l->number;
    e->finish = l->row.finish;
    if (e->finish) retire(b, l);
}

// Rows that were cancelled get a turn without logits.
static void take_cancelled(mica_lm_batch *b) {
    if (!atomic_exchange(&b->cancelled, false)) return;
    for (size_t i = 0; i < b->active_count; i++)
        if (atomic_load(&b->active[i]->row.cancelled)) add_turn(b, b->active[i], NULL);
    while (b->first_waiting < b->count && !b->records[b->first_waiting].live) b->first_waiting++;
    // Those that wait end one a call.
    for (size_t i = b->first_waiting; !b->turn_count && i < b->count; i++)
        if (b->records[i].live && atomic_load(&b->records[i].live->row.cancelled)) add_turn(b, b->records[i].live, NULL);
    if (b->turn_count) atomic_store(&b->cancelled, true);
}

// ---- rows that enter ------------------------------------------------------------------------------------------
// Memory for a row, beside what others were promised and have not taken yet.
static bool set_aside(mica_lm_batch *b, live *l, mica_error *err) {
    int64_t promised = 0, most = MICA_MIN(mica_row_positions(&l->row), (int64_t)b->lm->context);
    for (size_t i = 0; i < b->active_count; i++) // a page more each: lengths are rounded up
        promised += MICA_MAX(b->active[i]->set_aside - b->active[i]->sequence.length, (int64_t)0) + MICA_PAGE;
    l->set_aside = MICA_MIN(most, (int64_t)l->row.prompt_count + AHEAD);
    if (!mica_grow(&l->row.prompt, &l->capacity, (size_t)l->set_aside + 1, sizeof *l->row.prompt))
        return mica_fail_memory(err, (size_t)l->set_aside * sizeof *l->row.prompt, "token ids");
    return mica_cache_reserve(&b->lm->cache, promised + l->set_aside, err);
}

static void begin_sequence(mica_lm_batch *b, live *l) {
    mica_sequence_init(&l->sequence, &b->lm->cache);
    mica_sequence_adapt(&l->sequence, mica_loaded_set(l->row.adapter));
}

static void admit(mica_lm_batch *b) {
    if (b->active_count && b->active[b->active_count - 1]->parked) return;
    while (b->active_count < b->most && b->first_waiting < b->count) {
        live *l = b->records[b->first_waiting].live;
        if (l) {
            if (!set_aside(b, l, &l->row.error)) {
                if (b->active_count) return; // when another row has ended there may be room
                mica_row_end(&l->row, MICA_FINISH_ERROR);
                add_turn(b, l, NULL);
                b->first_waiting++;
                return;
            }
            begin_sequence(b, l);
            b->active[b->active_count++] = l;
        }
        b->first_waiting++;
    }
}

// ---- steps ----------------------------------------------------------------------------------------------------
static size_t rest(const live *l) { return l->count - (size_t)l->sequence.length; }

// Whether its next token is one of an answer: such a token is a step of its own. What must be computed again because its memory was given back
// is taken as if it were prompt, unless bits are to be the same.
static bool answering(const mica_lm_batch *b, const live *l) {
    return (size_t)l->sequence.length >= l->row.prompt_count && (b->invariant || rest(l) == 1);
}

// `n` more tokens of a row into the step, its logits too if they are wanted. A row that gets no memory sits the step out: others may end.
static void take(mica_lm_batch *b, live *l, size_t n) {
    mica_packed *p = &b->packed;
    if (!mica_grow(&l->row.prompt, &l->capacity, l->count + 1, sizeof *l->row.prompt)) { // for the token that is to come
        mica_fail_memory(&b->stuck, l->count * sizeof *l->row.prompt, "token ids");
        return;
    }
    if (!mica_sequence_reserve(&l->sequence, (int64_t)n, &b->stuck)) return;
    b->taking[p->n_sequences] = l;
    b->sequences[p->n_sequences] = &l->sequence;
    b->counts[p->n_sequences++] = (int32_t)n;
    memcpy(b->ids + p->n, l->row.prompt + l->sequence.length, n * sizeof *b->ids);
    p->n += n;
    if (n == rest(l)) b->wanted[p->n_rows++] = (int32_t)p->n - 1;
}

static void take_answer(mica_lm_batch *b, live *l) {
    if (l->sequence.length < b->lm->context) take(b, l, 1);
    else mica_row_end(&l->row, MICA_FINISH_LENGTH), add_turn(b, l, NULL);
}

// Rows with one adapter follow one another: they are computed together.
static void take_answers(mica_lm_batch *b) {
    size_t count = 0;
    live **list = b->answering;
    for (size_t i = 0; i < b->active_count; i++)
        if (!b->active[i]->parked && answering(b, b->active[i])) list[count++] = b->active[i];
    for (size_t i = 0; i < count; i++) {
        if (!list[i]) continue;
        const mica_loaded *adapter = list[i]->row.adapter;
        for (size_t k = i; k < count; k++)
            if (list[k] && list[k]->row.adapter == adapter) take_answer(b, list[k]), list[k] = NULL;
    }
}

// Whether an older row is about to compute pages that this one can share.
static bool waits(const mica_lm_batch *b, size_t index) {
    const live *l = b->active[index];
    for (size_t i = 0; b->lm->cache.prefixes.most && i < index; i++) {
        const live *older = b->active[i];
        size_t n = MICA_MIN(l->row.prompt_count, older->row.prompt_count), same = 0, done = (size_t)older->sequence.length;
        if (older->parked || done >= older->row.prompt_count || older->row.adapter != l->row.adapter) continue;
        while (same < n && l->row.prompt[same] == older->row.prompt[same]) same++;
        if (same >= MICA_MANY && same / MICA_PAGE > done / MICA_PAGE) return true;
    }
    return false;
}

// Rows about to compute their prompt take over what is kept of it.
static void begin(mica_lm_batch *b) {
    for (size_t i = 0; i < b->active_count; i++) {
        live *l = b->active[i];
        if (l->parked || l->sequence.length || l->sequence.prompt || waits(b, i)) continue;
        if (!mica_prefix_begin(&l->sequence, l->row.prompt, l->row.prompt_count, &b->stuck)) continue;
        if (!l->row.metrics.generated_tokens) l->row.metrics.cached_tokens = l->sequence.length;
        l->prefilled = MICA_MAX(l->prefilled, (size_t)l->sequence.length);
    }
}

static size_t prompt_left(const mica_lm_batch *b, const live *l) {
    if (l->parked || !(l->sequence.length || l->sequence.prompt) || answering(b, l)) return 0;
    return b->invariant ? l->row.prompt_count - (size_t)l->sequence.length : rest(l);
}

// Every prompt gets at least a share, in their order, while the budget lasts; what is left goes to the oldest.
static void take_prompts(mica_lm_batch *b) {
    size_t budget = MICA_MAX((size_t)MICA_CHUNK - MICA_MIN(b->packed.n, (size_t)MICA_CHUNK), (size_t)LEAST_PREFILL), left = budget;
    size_t share = budget / SHARES, extra;
    for (size_t i = 0; i < b->active_count; i++) left -= MICA_MIN(left, MICA_MIN(prompt_left(b, b->active[i]), share));
    extra = left, left = budget;
    for (size_t i = 0; i < b->active_count && left; i++) {
        size_t want = prompt_left(b, b->active[i]), n = MICA_MIN(want, MICA_MIN(share, left));
        size_t more = MICA_MIN(want - n, MICA_MIN(extra, left - n));
        if (!want) continue;
        extra -= more, left -= n + more;
        take(b, b->active[i], n + more);
    }
}

// One piece of the oldest prompt; false if there is none.
static bool take_prompt_alone(mica_lm_batch *b) {
    for (size_t i = 0; i < b->active_count && !b->packed.n; i++) {
        live *l = b->active[i];
        if (prompt_left(b, l)) take(b, l, mica_prefix_run(&l->sequence, l->row.prompt_count));
        b->packed.rows_many = b->packed.n && l->sequence.many;
    }
    return b->packed.n > 0;
}

static void compose(mica_lm_batch *b) {
    b->packed = (mica_packed){.sequences = b->sequences, .counts = b->counts, .ids = b->ids, .rows = b->wanted};
    begin(b);
    if (!b->invariant) {
        take_answers(b);
        take_prompts(b);
        return;
    }
    b->prefill_next = !b->prefill_next; // pieces of prompts and answers take turns
    if (b->prefill_next && take_prompt_alone(b)) return;
    take_answers(b);
    b->packed.rows_alone = true;
    if (b->packed.n || b->turn_count) return;
    b->packed.rows_alone = false;
    take_prompt_alone(b);
}

static bool compute(mica_lm_batch *b, const float **logits, mica_error *err) {
    mica_scope_reset(b->scope);
    mica_array *out = mica_net_forward(b->lm->net, &b->lm->cache, b->scope, &b->packed, err);
    if (!out || !mica_eval(b->scope, &out, 1, err)) return false;
    if (b->packed.n_rows) *logits = mica_data(out);
    return true;
}

static void count_step(const mica_lm_batch *b, live *l, size_t n, double seconds) {
    bool prompt = !l->row.metrics.generated_tokens;
    *(prompt ? &l->row.metrics.prefill_seconds : &l->row.metrics.decode_seconds) += seconds;
    l->row.metrics.total_seconds += seconds;
    if (!b->invariant) l->sequence.many = n > MICA_ROWS_ALONE && b->packed.n >= MICA_MANY;
    mica_sequence_advance(&l->sequence, (int64_t)n);
    l->prefilled = MICA_MAX(l->prefilled, MICA_MIN((size_t)l->sequence.length, l->row.prompt_count));
}

static void fail_row(mica_lm_batch *b, live *l, const mica_error *err) {
    l->row.error = *err;
    mica_row_end(&l->row, MICA_FINISH_ERROR);
    add_turn(b, l, NULL);
}

// Memory is short: the youngest row gives its own back, to be computed again when another has ended. A row that is alone ends.
static void make_room(mica_lm_batch *b, const mica_error *err) {
    size_t i = b->active_count;
    while (b->active[--i]->parked) {} // the oldest never is
    live *l = b->active[i];
    if (!i) {
        fail_row(b, l, err);
        return;
    }
    mica_sequence_free(&l->sequence);
    begin_sequence(b, l);
    l->parked = true;
}

static void step(mica_lm_batch *b) {
    mica_error err = {0};
    const float *logits = NULL;
    double from = mica_now();
    compose(b);
    if (!b->packed.n) {
        if (!b->turn_count) make_room(b, &b->stuck);
        return;
    }
    if (!compute(b, &logits, &err)) {
        if (err.code == MICA_ERR_NO_MEMORY) make_room(b, &err);
        else for (size_t i = 0; i < b->packed.n_sequences; i++) fail_row(b, b->taking[i], &err);
        return;
    }
    double seconds = mica_now() - from;
    for (size_t i = 0; i < b->packed.n_sequences; i++) {
        live *l = b->taking[i];
        count_step(b, l, (size_t)b->counts[i], seconds);
        if (rest(l)) continue;
        add_turn(b, l, logits);
        logits += b->lm->info.vocab_size;
    }
}

bool mica_lm_batch_next(mica_lm_batch *b, mica_batch_event *e) {
    free_live(b->ended);
    b->ended = NULL;
    *e = (mica_batch_event){.row = -1, .token = {.id = -1, .text = ""}};
    for (;;) {
        if (b->next_turn < b->turn_count) {
            deliver(b, &b->turns[b->next_turn++], e);
            return true;
        }
        b->turn_count = b->next_turn = 0;
        take_cancelled(b);
        if (b->turn_count) continue;
        admit(b);
        if (b->turn_count) continue;
        if (!b->active_count) return false;
        step(b);
    }
}

// ---- the rest -------------------------------------------------------------------------------------------------
static const record *find(const mica_lm_batch *b, int64_t row) { return row >= 0 && (size_t)row < b->count ? &b->records[row] : NULL; }

mica_lm *mica_lm_batch_model(const mica_lm_batch *b) { return b->lm; }

bool mica_lm_batch_error(const mica_lm_batch *b, int64_t row, mica_error *err) {
    const record *r = find(b, row);
    if (!r || !r->error) return false;
    if (err) *err = *r->error;
    return true;
}

mica_metrics mica_lm_batch_metrics(const mica_lm_batch *b, int64_t row) {
    const record *r = find(b, row);
    if (!r) return (mica_metrics){0};
    return r->live ? row_metrics(r->live) : r->metrics;
}
