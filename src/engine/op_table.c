// SPDX-License-Identifier: Apache-2.0
// The op table, made from op.def: name, flags, shape rule and gradient rule of every op. Views have no shape rule
// (view.c lays them out) and leaves have neither.
#include "engine/rules.h"

#define FLAGS_NONE MICA_FLAG_NONE
#define FLAGS_ELEMENTWISE MICA_FLAG_ELEMENTWISE
#define FLAGS_VIEW MICA_FLAG_VIEW
#define FLAGS_IN_PLACE MICA_FLAG_IN_PLACE
#define FLAGS_LEAF MICA_FLAG_LEAF

#define INFER_NONE(name) mica_infer_##name
#define INFER_ELEMENTWISE(name) mica_infer_##name
#define INFER_IN_PLACE(name) mica_infer_##name
#define INFER_VIEW(name) NULL
#define INFER_LEAF(name) NULL

#define VJP_GRAD(name) mica_vjp_##name
#define VJP_NO_GRAD(name) NULL

#define MICA_OP(name, flags, gradient) {#name, FLAGS_##flags, INFER_##flags(name), VJP_##gradient(name)},
const mica_op_info mica_op_table[MICA_OP_COUNT] = {
#include "engine/op.def"
};
#undef MICA_OP
