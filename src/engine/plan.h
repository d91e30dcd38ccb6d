// SPDX-License-Identifier: Apache-2.0
// From graph to plan. A collection is the part of a graph that an evaluation needs, in an order that can be run, in a form
// without pointers: equal collections have equal plans. A plan is the list of kernel calls with every intermediate
// placed in one workspace; leaves and results are bound by position at each run.
#ifndef MICA_ENGINE_PLAN_H
#define MICA_ENGINE_PLAN_H

#include "engine/node.h"

/** How a step sees one of its inputs: a layout over the memory of an item. Zeroed before use: compared as bytes. */
typedef struct mica_plan_input {
    int32_t item; // -1: absent
    int32_t dtype, ndim, contiguous;
    int64_t offset, shape[MICA_MAX_DIMS], stride[MICA_MAX_DIMS];
} mica_plan_input;

typedef struct mica_plan_item {
    int32_t op, dtype, ndim, n_in;
    int32_t first_input; // into inputs
    int32_t root;        // 1: a result
    int32_t rows_alone, rows_many; // as in mica_call
    int64_t shape[MICA_MAX_DIMS];
    mica_params params;
} mica_plan_item;

typedef struct mica_collection {
    mica_plan_item *items;
    mica_array **nodes; // of the items
    size_t count, capacity, node_capacity;
    mica_plan_input *inputs;
    size_t input_count, input_capacity;
    unsigned char **bases; // run time: memory by base number
    size_t base_capacity;
    mica_buffer **results;
    size_t result_capacity;
    uint64_t hash;
} mica_collection;

/** Collects what `arrays` need (kept ones need nothing). False when out of memory (scope failed). */
bool mica_collect(mica_scope *s, mica_array *const *arrays, size_t count, mica_collection *c);
void mica_collection_free(mica_collection *c);

typedef struct mica_place {
    int32_t base;   // 0 workspace, 1… leaves in order, then results in order
    size_t offset;  // bytes
} mica_place;

typedef struct mica_step {
    const mica_kernel *kernel;
    int32_t item;
    mica_place out, scratch;
    size_t scratch_size;
    size_t first_input;
} mica_step;

typedef struct mica_plan {
    mica_plan_item *items; // copies: a hit is verified against them
    size_t count;
    mica_plan_input *inputs;
    mica_place *places; // of each input
    size_t input_count;
    mica_step *steps;
    size_t step_count;
    int32_t *leaf_items, *result_items; // by base number
    size_t leaf_count, result_count;
    size_t workspace, unpacked; // bytes: of the workspace; what the intermediates would take without sharing
} mica_plan;

/** NULL on failure (then *err): out of memory, or an op the device has no kernel for. */
mica_plan *mica_plan_build(mica_device *d, const mica_collection *c, mica_error *err);
/** What a kernel is told of an item: everything but where data and scratch are. */
void mica_plan_call(mica_device *d, const mica_plan *p, const mica_plan_item *item, mica_call *call);
size_t mica_plan_item_bytes(const mica_plan_item *item);
bool mica_plan_matches(const mica_plan *p, const mica_collection *c);
void mica_plan_free(mica_plan *p);

/** Bytes that an evaluation takes, beside its leaves. */
typedef struct mica_plan_size {
    size_t workspace, results, plan; // plan: the plan itself, which is kept for the next evaluation of such a graph
} mica_plan_size;
/** What mica_eval of these arrays would take: nothing is run. */
bool mica_eval_size(mica_scope *s, mica_array *const *arrays, size_t count, mica_plan_size *size, mica_error *err);
/** Heap bytes of a plan. */
size_t mica_plan_bytes(const mica_plan *p);
#endif
