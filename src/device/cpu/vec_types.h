// SPDX-License-Identifier: Apache-2.0
// Includes the template VEC_TEMPLATE once for each of f32, f16 and bf16, with the names it expects.
// No include guard: each level's files use it for their templates.
#define T float
#define TYPE MICA_F32
#define NAME(f) f##_f32
#define LOAD load_f32
#define LOADN loadn_f32
#define STORE store_f32
#define STOREN storen_f32
#include VEC_TEMPLATE
#undef T
#undef TYPE
#undef NAME
#undef LOAD
#undef LOADN
#undef STORE
#undef STOREN

#define T uint16_t
#define TYPE MICA_F16
#define NAME(f) f##_f16
#define LOAD load_f16
#define LOADN loadn_f16
#define STORE store_f16
#define STOREN storen_f16
#include VEC_TEMPLATE
#undef TYPE
#undef NAME
#undef LOAD
#undef LOADN
#undef STORE
#undef STOREN

#define TYPE MICA_BF16
#define NAME(f) f##_bf16
#define LOAD load_bf16
#define LOADN loadn_bf16
#define STORE store_bf16
#define STOREN storen_bf16
#include VEC_TEMPLATE
#undef T
#undef TYPE
#undef NAME
#undef LOAD
#undef LOADN
#undef STORE
#undef STOREN
