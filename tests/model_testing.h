// SPDX-License-Identifier: Apache-2.0
// For tests of models: loading one, and token ids for it.
#ifndef MICA_TESTS_MODEL_TESTING_H
#define MICA_TESTS_MODEL_TESTING_H

#include "infer/internal.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static inline mica_model *load(const char *path, const mica_load_options *options) {
    mica_error err = {0};
    mica_model *m = mica_model_load(path, options, &err);
    if (!m) fail_msg("%s: %s", path, err.msg);
    return m;
}

static inline void make_ids(const mica_model *m, int32_t *ids, size_t n, uint32_t seed) {
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)((seed = seed * 1664525 + 1013904223) >> 8) % m->info.vocab_size;
}

#endif
