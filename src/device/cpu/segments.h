// SPDX-License-Identifier: Apache-2.0
// Attention over the segments of a packed batch: what the op and its gradient share. q [N,H,Dh], k and v [N,Hkv,Dh], elements of a head side by
// side; lengths i32 [S]: a segment is a run of rows and sees nothing but itself. Query i of a segment of T sees keys [0, T), if causal those up to
// i, with a window > 0 the last `window` of these. Rows after the last segment are nobody's: zeros.
// Work is cut into blocks of `tokens` rows of a segment times KV heads.
#ifndef MICA_DEVICE_CPU_SEGMENTS_H
#define MICA_DEVICE_CPU_SEGMENTS_H

#include "device/cpu/walk.h"

typedef struct mica_segment {
    size_t start, length; // rows
    size_t packed;        // first row where every segment takes an even number of rows
    size_t first_task;    // of its blocks
} mica_segment;

typedef struct mica_segments {
    const mica_call *c;
    const mica_cpu_rows_isa *isa;
    const mica_tensor *q, *k, *v;
    mica_dtype dtype;
    size_t N, H, Hkv, G, Dh, Dp, S, size; // size: bytes of an element
    size_t longest, window, tokens;       // most rows of a segment; rows of a block
    bool causal;
    float scale;
    mica_segment *segments; // [S + 1]; the last one begins where all end
} mica_segments;

typedef struct mica_segment_block { // of one KV head
    const mica_segment *segment;
    size_t kv, first, n; // rows [first, first + n) of the segment
} mica_segment_block;

/** All but `segments`, from shapes and parameters. */
mica_segments mica_segments_of(const mica_call *c, size_t tokens);
static inline size_t mica_segments_bytes(const mica_segments *k) { return mica_walk_round((k->S + 1) * sizeof(mica_segment)); }
/** Reads the lengths into memory of mica_segments_bytes; those that do not fit are cut. Returns the number of tasks. */
size_t mica_segments_read(mica_segments *k, unsigned char *memory);
mica_segment_block mica_segments_block(const mica_segments *k, size_t task);

static inline const unsigned char *mica_segments_row(const mica_segments *k, const mica_tensor *t, size_t row, size_t head) {
    return t->data + ((int64_t)row * t->stride[0] + (int64_t)head * t->stride[1]) * (int64_t)k->size;
}
/** Keys that query i of a segment sees: [*first, *end). */
static inline void mica_segments_seen(const mica_segments *k, const mica_segment *s, size_t i, size_t *first, size_t *end) {
    *first = k->window && i + 1 > k->window ? i + 1 - k->window : 0;
    *end = k->causal ? i + 1 : s->length;
}
#endif
