// SPDX-License-Identifier: Apache-2.0
// Small helpers on stored tensors.
#include "io/tensor.h"
#include <stdio.h>

size_t mica_stored_count(const mica_stored *t) {
    size_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= (size_t)t->shape[i];
    return n;
}

char *mica_stored_shape(const mica_stored *t, char *text, size_t size) {
    size_t used = 0;
    for (int i = 0; i < t->ndim && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%lld", i ? "," : "[", (long long)t->shape[i]);
    if (used < size) snprintf(text + used, size - used, t->ndim ? "]" : "[]");
    return text;
}
