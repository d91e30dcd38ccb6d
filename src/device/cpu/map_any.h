// SPDX-License-Identifier: Apache-2.0
// Comparisons of contiguous elements of one type. Included by op_map.c once per type with
//   T  element type,  NAME(f)  name of the instance. No include guard: it is a template.

#define COMPARE(name, expression)                                               \
    static void NAME(name)(void *y, const void *x, const void *z, size_t n) { \
        const T *p = x, *q = z;                                                 \
        uint8_t *o = y;                                                         \
        for (size_t i = 0; i < n; i++) {                                        \
            T a = p[i], b = q[i];                                               \
            o[i] = (expression);                                                \
        }                                                                       \
    }

COMPARE(equal, a == b)
COMPARE(not_equal, a != b)
COMPARE(less, a < b)
COMPARE(less_equal, a <= b)
COMPARE(greater, a > b)
COMPARE(greater_equal, a >= b)

#undef COMPARE
#undef T
#undef NAME
