// SPDX-License-Identifier: Apache-2.0
// Elementwise functions of contiguous integers: arithmetic modulo 2^bits, division towards zero with x / 0 = 0. Included
// by op_map.c once per type with
//   T  element type,  IS_SIGNED  0 or 1,  NAME(f)  name of the instance.
// No include guard: it is a template.

#define W(v) ((uint64_t)(v)) // arithmetic in 64 unsigned bits never overflows; the cast back keeps the low ones

static T NAME(divide)(T a, T b) {
    if (b == 0) return 0;
#if IS_SIGNED
    if (b == -1) return (T)(0 - W(a)); // the least value has no negative
#endif
    return (T)(a / b);
}

// Negative exponents: 1 / aᵇ towards zero.
static T NAME(raise)(T a, T b) {
#if IS_SIGNED
    if (b < 0) return a == 1 ? 1 : a == -1 ? (b % 2 ? -1 : 1) : 0;
#endif
    uint64_t result = 1, base = W(a);
    for (uint64_t e = W(b); e; e >>= 1, base *= base)
        if (e & 1) result *= base;
    return (T)result;
}

#define UNARY(name, expression)                               \
    static void NAME(name)(void *y, const void *x, size_t n) { \
        const T *p = x;                                       \
        T *o = y;                                             \
        MICA_INDEPENDENT                                      \
        for (size_t i = 0; i < n; i++) {                      \
            T a = p[i];                                       \
            o[i] = (T)(expression);                           \
        }                                                     \
    }
#define BINARY(name, independent, expression)                                              \
    static void NAME(name)(void *y, const void *x, const void *z, size_t n) { \
        const T *p = x, *q = z;                                                 \
        T *o = y;                                                               \
        independent                                                             \
        for (size_t i = 0; i < n; i++) {                                        \
            T a = p[i], b = q[i];                                               \
            o[i] = (T)(expression);                                             \
        }                                                                       \
    }

UNARY(neg, 0 - W(a))
UNARY(square, W(a) * W(a))
#if IS_SIGNED
UNARY(abs, a < 0 ? 0 - W(a) : W(a))
#else
UNARY(abs, a)
#endif
BINARY(add, MICA_INDEPENDENT, W(a) + W(b))
BINARY(sub, MICA_INDEPENDENT, W(a) - W(b))
BINARY(mul, MICA_INDEPENDENT, W(a) * W(b))
BINARY(div, /* calls */, NAME(divide)(a, b))
BINARY(power, /* calls */, NAME(raise)(a, b))
BINARY(maximum, MICA_INDEPENDENT, a > b ? a : b)
BINARY(minimum, MICA_INDEPENDENT, a < b ? a : b)

#undef W
#undef UNARY
#undef BINARY
#undef T
#undef IS_SIGNED
#undef NAME
