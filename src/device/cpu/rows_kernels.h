// SPDX-License-Identifier: Apache-2.0
// Op kernels of rows and attention; what each computes stands at the top of its file.
#ifndef MICA_DEVICE_CPU_ROWS_KERNELS_H
#define MICA_DEVICE_CPU_ROWS_KERNELS_H

#include "device/device.h"

extern const mica_kernel mica_cpu_rows_kernels[];
extern const size_t mica_cpu_rows_kernel_count;

// op_convert.c, op_norm.c, op_softmax.c
mica_kernel_fn mica_cpu_astype, mica_cpu_contiguous, mica_cpu_rms_norm, mica_cpu_layer_norm, mica_cpu_softmax,
    mica_cpu_logsumexp, mica_cpu_argmax, mica_cpu_rms_norm_grad, mica_cpu_cross_entropy_grad;
mica_scratch_fn mica_cpu_astype_scratch, mica_cpu_norm_scratch, mica_cpu_norm_grad_scratch, mica_cpu_softmax_scratch;
// op_rope.c, op_attention.c, op_paged.c, op_take.c
mica_kernel_fn mica_cpu_rope_table, mica_cpu_rope, mica_cpu_sdpa, mica_cpu_kv_append, mica_cpu_paged_attention, mica_cpu_cache_attention,
    mica_cpu_take;
mica_scratch_fn mica_cpu_rope_scratch, mica_cpu_sdpa_scratch, mica_cpu_append_scratch,
    mica_cpu_paged_scratch, mica_cpu_cache_scratch;
// op_low_rank.c
mica_kernel_fn mica_cpu_low_rank;
mica_scratch_fn mica_cpu_low_rank_scratch;
// op_segments.c, op_segments_grad.c
mica_kernel_fn mica_cpu_segment_attention, mica_cpu_segment_attention_grad;
mica_scratch_fn mica_cpu_segment_attention_scratch, mica_cpu_segment_attention_grad_scratch;
// op_update.c
mica_kernel_fn mica_cpu_adam_step;
// op_activation.c
mica_kernel_fn mica_cpu_exp, mica_cpu_sigmoid, mica_cpu_silu, mica_cpu_gelu, mica_cpu_gelu_tanh, mica_cpu_tanh, mica_cpu_swiglu,
    mica_cpu_geglu, mica_cpu_gated_grad;
mica_scratch_fn mica_cpu_unary_scratch, mica_cpu_gated_scratch;
#endif
