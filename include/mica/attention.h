// SPDX-License-Identifier: Apache-2.0
// Looking into attention: the queries and keys of every layer and head for a prompt, as attention sees them. Native backends.
#ifndef MICA_ATTENTION_H
#define MICA_ATTENTION_H

#include "mica/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Row-major. Head h of q attends to head h / (heads / kv_heads) of k; its scores are q·k * scale before the softmax, over positions up to its
 * own, in layers with a window over the last `window` of them. */
typedef struct mica_attention {
    int32_t layers, heads, kv_heads, head_dim;
    size_t count;    // tokens
    float *q;        // [layers, heads, count, head_dim] after the norms and the rotation
    float *k;        // [layers, kv_heads, count, head_dim] likewise
    int32_t *window; // [layers]; 0 = all positions
    float scale;
} mica_attention;

/** Computes the prompt ids[count]; nothing is taken from caches nor kept. Release with mica_attention_free. */
MICA_API bool mica_attention_read(mica_model *model, const int32_t *ids, size_t count, mica_attention *attention, mica_error *err);
MICA_API void mica_attention_free(mica_attention *attention);

#ifdef __cplusplus
}
#endif
#endif
