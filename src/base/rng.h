// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers (Philox4x32-10, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"):
// value i of a stream is a pure function of (seed, i), so random arrays do not depend on threads or order.
#ifndef MICA_BASE_RNG_H
#define MICA_BASE_RNG_H

#include <stdint.h>

typedef struct mica_philox { uint32_t v[4]; } mica_philox;

static inline mica_philox mica_philox_at(uint64_t seed, uint64_t counter) {
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0};
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)c[0] * 0xD2511F53u, b = (uint64_t)c[2] * 0xCD9E8D57u;
        uint32_t n0 = (uint32_t)(b >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(a >> 32) ^ c[3] ^ k1;
        c[0] = n0, c[1] = (uint32_t)b, c[2] = n2, c[3] = (uint32_t)a;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return (mica_philox){{c[0], c[1], c[2], c[3]}};
}

/** [0, 1) with 24 bits. */
static inline float mica_uniform_f32(uint32_t bits) { return (float)(bits >> 8) * 0x1p-24f; }
/** [0, 1) with 53 bits. */
static inline double mica_uniform_f64(uint32_t hi, uint32_t lo) {
    return (double)(((uint64_t)hi << 32 | lo) >> 11) * 0x1p-53;
}
#endif
