// SPDX-License-Identifier: Apache-2.0
// The layout of a set of low-rank matrices (mica_low_rank_form): for those who write one, check one and read one.
#ifndef MICA_DEVICE_LOW_RANK_H
#define MICA_DEVICE_LOW_RANK_H

#include "device/device.h"
#include "base/lines.h"

/** Bytes from the beginning of the set, where a is. */
typedef struct mica_low_rank_layout {
    size_t b, factors, bytes;
} mica_low_rank_layout;

static inline size_t mica_low_rank_outs(const mica_params *p) {
    size_t n = 0;
    for (int32_t i = 0; i < p->low_rank.modules; i++) n += (size_t)p->low_rank.outs[i];
    return n;
}
static inline mica_dtype mica_low_rank_type_b(const mica_low_rank_form *form) { return (mica_dtype)(form->b % MICA_LOW_RANK_MAGNITUDES); }

static inline mica_low_rank_layout mica_low_rank_lay_out(const mica_params *p, size_t set, size_t in) {
    const mica_low_rank_form *form = &p->low_rank.forms[set];
    size_t rank = (size_t)form->rank, modules = (size_t)p->low_rank.modules, outs = mica_low_rank_outs(p);
    size_t columns = mica_round_up(outs, MICA_LOW_RANK_TILE), factors = modules + (form->b >= MICA_LOW_RANK_MAGNITUDES ? outs : 0);
    mica_low_rank_layout l = {.b = mica_whole_lines(modules * rank * in * mica_dtype_size((mica_dtype)form->a))};
    l.factors = l.b + mica_whole_lines(columns * rank * mica_dtype_size(mica_low_rank_type_b(form)));
    l.bytes = mica_whole_lines(l.factors + factors * sizeof(float));
    return l;
}
#endif
