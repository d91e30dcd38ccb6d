// SPDX-License-Identifier: Apache-2.0
// Elementwise functions of contiguous floats. Included by op_map.c once per type with
//   T  float or double,  F(f)  the libm function f of that type,  NAME(f)  name of the instance,  ARITHMETIC  with add … div.
// No include guard: it is a template.

#define UNARY(name, independent, expression)                             \
    static void NAME(name)(void *y, const void *x, size_t n) { \
        const T *p = x;                                       \
        T *o = y;                                             \
        independent                                           \
        for (size_t i = 0; i < n; i++) {                      \
            T a = p[i];                                       \
            o[i] = (expression);                              \
        }                                                     \
    }
#define BINARY(name, independent, expression)                                              \
    static void NAME(name)(void *y, const void *x, const void *z, size_t n) { \
        const T *p = x, *q = z;                                                 \
        T *o = y;                                                               \
        independent                                                             \
        for (size_t i = 0; i < n; i++) {                                        \
            T a = p[i], b = q[i];                                               \
            o[i] = (expression);                                                \
        }                                                                       \
    }

UNARY(neg, MICA_INDEPENDENT, -a)
UNARY(log, /* calls */, F(log)(a))
UNARY(relu, MICA_INDEPENDENT, a <= 0 ? 0 : a) // NaN stays
UNARY(sqrt, MICA_INDEPENDENT, F(sqrt)(a))
UNARY(rsqrt, MICA_INDEPENDENT, 1 / F(sqrt)(a))
UNARY(reciprocal, MICA_INDEPENDENT, 1 / a)
UNARY(square, MICA_INDEPENDENT, a * a)
UNARY(abs, MICA_INDEPENDENT, F(fabs)(a))
UNARY(sin, /* calls */, F(sin)(a))
UNARY(cos, /* calls */, F(cos)(a))
UNARY(erf, /* calls */, F(erf)(a))
#ifdef ARITHMETIC
BINARY(add, MICA_INDEPENDENT, a + b)
BINARY(sub, MICA_INDEPENDENT, a - b)
BINARY(mul, MICA_INDEPENDENT, a * b)
BINARY(div, MICA_INDEPENDENT, a / b)
#undef ARITHMETIC
#endif
BINARY(power, /* calls */, F(pow)(a, b))
BINARY(maximum, MICA_INDEPENDENT, a > b || a != a ? a : b) // NaN of either side
BINARY(minimum, MICA_INDEPENDENT, a < b || a != a ? a : b)

#undef UNARY
#undef BINARY
#undef T
#undef F
#undef NAME
