// SPDX-License-Identifier: Apache-2.0
// The operations that language models spend their time in, as single ops; layouts and meanings as in MLX.
// B batch, T tokens, D hidden, H heads, Hkv key/value heads, Dh head dimension.
#ifndef MICA_FAST_H
#define MICA_FAST_H

#include "mica/array.h"

#ifdef __cplusplus
extern "C" {
#endif

/** x [..., D] / sqrt(mean(x²) + eps) * w [D]; w may be NULL and may have another float dtype than x. */
MICA_API mica_array *mica_rms_norm(mica_scope *s, mica_array *x, mica_array *w, float eps);
/** w [D] and b [D] may be NULL. */
MICA_API mica_array *mica_layer_norm(mica_scope *s, mica_array *x, mica_array *w, mica_array *b, float eps);
/** silu(gate) * up. */
MICA_API mica_array *mica_swiglu(mica_scope *s, mica_array *gate, mica_array *up);
/** gelu_tanh(gate) * up. */
MICA_API mica_array *mica_geglu(mica_scope *s, mica_array *gate, mica_array *up);

typedef struct mica_rope_options {
    int dims;          // dimensions rotated; default Dh
    bool traditional;  // pairs (2i, 2i+1) rather than (i, i + dims/2)
    float base;        // default 10000; ignored with freqs
    float scale;       // positions are multiplied by it; default 1
} mica_rope_options;
/** x [B, H, T, Dh] rotated by its positions: offset[b] + t. offset i32 [B] or [1] or NULL (0); freqs f32 [dims/2]: wavelengths/2π as in MLX
 * (angle = position / freqs), or NULL. */
MICA_API mica_array *mica_rope(mica_scope *s, mica_array *x, mica_array *offset, mica_array *freqs, const mica_rope_options *options);
/** cos | sin of positions[…, T] i32 times inv_freq [d/2], both multiplied by scale: f32 […, T, d]. One table serves all layers. */
MICA_API mica_array *mica_rope_table(mica_scope *s, mica_array *positions, mica_array *inv_freq, float scale);
/** x [B, T, H, Dh], table [B or 1, T, dims]; half split unless traditional. */
MICA_API mica_array *mica_rope_apply(mica_scope *s, mica_array *x, mica_array *table, bool traditional);

typedef struct mica_sdpa_options {
    float scale;   // default 1/sqrt(Dh)
    bool causal;   // query i sees keys up to Tk - Tq + i
    int window;    // with causal: only the last `window` of them; default 0 = all
} mica_sdpa_options;
/** softmax(q kᵀ * scale + mask) v. q [B, H, Tq, Dh], k and v [B, Hkv, Tk, Dh] (H a multiple of Hkv), mask bool (true = may attend) or
 * additive, broadcast to [B, H, Tq, Tk], or NULL. A row that sees nothing gives zeros. */
MICA_API mica_array *mica_sdpa(mica_scope *s, mica_array *q, mica_array *k, mica_array *v, mica_array *mask, const mica_sdpa_options *options);

/** Mean over rows of -log softmax(logits [..., V])[target]; targets integers [...]. */
MICA_API mica_array *mica_cross_entropy(mica_scope *s, mica_array *logits, mica_array *targets);
/** Σ l·m / Σ m with mask m [...] in the logits' dtype. */
MICA_API mica_array *mica_masked_cross_entropy(mica_scope *s, mica_array *logits, mica_array *targets, mica_array *mask);
MICA_API mica_array *mica_mse_loss(mica_scope *s, mica_array *prediction, mica_array *target);

#ifdef __cplusplus
}
#endif
#endif
