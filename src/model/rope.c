// SPDX-License-Identifier: Apache-2.0
// Rotary frequencies. Arithmetic is f32 where transformers' is: positions in the thousands multiply every rounding.
// Sources: "linear" kaiokendev 2023; "dynamic" NTK, bloc97 2023; YaRN, Peng et al. 2023 (arXiv 2309.00071); "llama3" of the Llama 3.1
// release; LongRoPE, Ding et al. 2024 (arXiv 2402.13753).
#include "model/rope.h"
#include <math.h>

static const double TWO_PI = 6.283185307179586;

static void plain(double theta, int64_t dim, float *inv_freq) {
    for (int64_t i = 0; i < dim / 2; i++) inv_freq[i] = 1.0f / powf((float)theta, (float)(2 * i) / (float)dim);
}

// Beyond the trained length the base grows so that the longest wave still fits.
static void dynamic(const mica_config *c, const mica_rope_config *r, int64_t length, int64_t dim, float *inv_freq) {
    double most = (double)c->max_position_embeddings, n = fmax((double)length, most), d = (double)dim;
    plain(r->theta * pow(r->factor * n / most - (r->factor - 1), d / (d - 2)), dim, inv_freq);
}

// Long waves are slowed down by the factor, short ones kept, those between blended.
static void llama3(const mica_rope_config *r, int64_t dim, float *inv_freq) {
    const float factor = (float)r->factor, low = (float)r->low_freq_factor, high = (float)r->high_freq_factor;
    const float original = (float)r->original_max_position;
    for (int64_t i = 0; i < dim / 2; i++) {
        float f = inv_freq[i], wave = (float)TWO_PI / f;
        if (wave > original / low) inv_freq[i] = f / factor;
        else if (wave >= original / high) {
            float smooth = (original / wave - low) / (high - low);
            inv_freq[i] = (1 - smooth) * f / factor + smooth * f;
        }
    }
}

// Dimension whose wave turns `rotations` times over the original length.
static double yarn_dimension(const mica_rope_config *r, double rotations, double dim) {
    return dim * log((double)r->original_max_position / (rotations * TWO_PI)) / (2 * log(r->theta));
}

static void yarn(const mica_rope_config *r, int64_t dim, float *inv_freq) {
    double low = yarn_dimension(r, r->beta_fast, (double)dim), high = yarn_dimension(r, r->beta_slow, (double)dim);
    if (!r->no_truncate) low = floor(low), high = ceil(high);
    low = fmax(low, 0), high = fmin(high, (double)dim - 1);
    if (low == high) high += 0.001;
    for (int64_t i = 0; i < dim / 2; i++) {
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1 - fminf(fmaxf(ramp, 0), 1);
        inv_freq[i] = inv_freq[i] / (float)r->factor * (1 - keep) + inv_freq[i] * keep;
    }
}

static void longrope(const mica_rope_config *r, int64_t length, int64_t dim, float *inv_freq) {
    const float *factor = length > r->original_max_position ? r->long_factor : r->short_factor;
    for (int64_t i = 0; i < dim / 2; i++)
        inv_freq[i] = 1.0f / (factor[i] * powf((float)r->theta, (float)(2 * i) / (float)dim));
}

float mica_rope_frequencies(const mica_config *c, const mica_rope_config *r, int64_t length, float *inv_freq) {
    const int64_t dim = c->head_dim;
    plain(r->theta, dim, inv_freq);
    switch (r->type) {
    case MICA_ROPE_NONE: break;
    case MICA_ROPE_LINEAR:
        for (int64_t i = 0; i < dim / 2; i++) inv_freq[i] /= (float)r->factor;
        break;
    case MICA_ROPE_DYNAMIC: dynamic(c, r, length, dim, inv_freq); break;
    case MICA_ROPE_LLAMA3: llama3(r, dim, inv_freq); break;
    case MICA_ROPE_YARN: yarn(r, dim, inv_freq); break;
    case MICA_ROPE_LONGROPE: longrope(r, length, dim, inv_freq); break;
    }
    return (float)r->attention_factor;
}

int64_t mica_rope_same(const mica_config *c, const mica_rope_config *r, int64_t length) {
    int64_t edge = INT64_MAX;
    if (r->type == MICA_ROPE_DYNAMIC) edge = c->max_position_embeddings;
    if (r->type == MICA_ROPE_LONGROPE) edge = r->original_max_position;
    if (length <= edge) return edge;
    return r->type == MICA_ROPE_DYNAMIC ? length : INT64_MAX;
}
