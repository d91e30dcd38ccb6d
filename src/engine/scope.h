// SPDX-License-Identifier: Apache-2.0
// A scope: arena, record of nodes in order, buffers it holds, first error. Used by one thread at a time.
#ifndef MICA_ENGINE_SCOPE_H
#define MICA_ENGINE_SCOPE_H

#include "engine/node.h"
#include "engine/plan.h"

typedef struct mica_import_slot {
    const mica_array *key; // kept array
    mica_array *local;     // its leaf in this scope
    uint32_t generation;   // valid if equal to the scope's
} mica_import_slot;

struct mica_scope {
    mica_device *device;
    mica_arena arena;
    mica_array **nodes;
    size_t count, capacity;
    mica_buffer **held; // one reference each, dropped at reset
    size_t held_count, held_capacity;
    mica_import_slot *imports;
    size_t import_count, import_capacity;
    uint32_t generation, pass;
    bool failed;
    bool rows_alone, rows_many; // how what is evaluated from here on computes its rows (mica_call); survive a reset
    mica_error error;
    mica_collection collection; // reused by every eval
};

/** Number of nodes recorded, and the id-th of them (ids rise in the order of recording). */
static inline uint32_t mica_scope_count(const mica_scope *s) { return (uint32_t)s->count; }
static inline mica_array *mica_scope_node(const mica_scope *s, uint32_t id) { return s->nodes[id]; }
/** The leaf of this scope that stands for a kept array; arrays of the scope itself are returned as they are. */
mica_array *mica_scope_import(mica_scope *s, mica_array *a);
/** A leaf over a buffer whose reference the scope takes over (dropped even on failure). */
mica_array *mica_scope_leaf(mica_scope *s, mica_buffer *buffer, int ndim, const int64_t *shape, mica_dtype dtype);
/** A kept array with memory that nobody else has: a copy of `like`, kept and without gaps, or zeros of its shape and type. */
mica_array *mica_keep_alone(mica_device *d, const mica_array *like, bool zero, mica_error *err);
/** Whether this is a kept array without gaps whose memory is its own and nobody else's: it may be written in place. */
bool mica_is_alone(const mica_array *a);
/** Gives an evaluated node its memory; takes over one reference. */
bool mica_scope_hold(mica_scope *s, mica_array *node, mica_buffer *buffer);
#endif
