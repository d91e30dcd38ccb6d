// SPDX-License-Identifier: Apache-2.0
// Elementwise functions of contiguous integers, with arithmetic modulo 2^bits. Included by op_map.c once per type with
//   T  element type,  IS_SIGNED  0 or 1,  NAME(f)  name of the instance.
// No include guard: it is a template.

#define W(v) ((uint64_t)(v)) // arithmetic in 64 unsigned bits never overflows; the cast back keeps the low ones

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
#define BINARY(name, expression)                                                \
    static void NAME(name)(void *y, const void *x, const void *z, size_t n) { \
        const T *p = x, *q = z;                                                 \
        T *o = y;                                                               \
        MICA_INDEPENDENT                                                        \
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
BINARY(add, W(a) + W(b))
BINARY(sub, W(a) - W(b))
BINARY(mul, W(a) * W(b))
BINARY(maximum, a > b ? a : b)
BINARY(minimum, a < b ? a : b)

#undef W
#undef UNARY
#undef BINARY
#undef T
#undef IS_SIGNED
#undef NAME
