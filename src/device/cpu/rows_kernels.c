// SPDX-License-Identifier: Apache-2.0
// The list of row and attention kernels that the CPU device offers to the engine, by op name.
#include "device/cpu/rows_kernels.h"
#include "base/base.h"

const mica_kernel mica_cpu_rows_kernels[] = {
    {"astype", mica_cpu_astype, mica_cpu_astype_scratch},
    {"contiguous", mica_cpu_contiguous, NULL},
    {"rms_norm", mica_cpu_rms_norm, mica_cpu_norm_scratch},
    {"layer_norm", mica_cpu_layer_norm, mica_cpu_norm_scratch},
    {"rms_norm_grad", mica_cpu_rms_norm_grad, mica_cpu_norm_grad_scratch},
    {"gated_grad", mica_cpu_gated_grad, NULL},
    {"cross_entropy_grad", mica_cpu_cross_entropy_grad, NULL},
    {"softmax", mica_cpu_softmax, mica_cpu_softmax_scratch},
    {"logsumexp", mica_cpu_logsumexp, mica_cpu_softmax_scratch},
    {"argmax", mica_cpu_argmax, mica_cpu_softmax_scratch},
    {"rope_table", mica_cpu_rope_table, NULL},
    {"rope", mica_cpu_rope, mica_cpu_rope_scratch},
    {"sdpa", mica_cpu_sdpa, mica_cpu_sdpa_scratch},
    {"segment_attention", mica_cpu_segment_attention, mica_cpu_segment_attention_scratch},
    {"segment_attention_grad", mica_cpu_segment_attention_grad, mica_cpu_segment_attention_grad_scratch},
    {"adam_step", mica_cpu_adam_step, NULL},
    {"kv_append", mica_cpu_kv_append, mica_cpu_append_scratch},
    {"paged_attention", mica_cpu_paged_attention, mica_cpu_paged_scratch},
    {"cache_attention", mica_cpu_cache_attention, mica_cpu_cache_scratch},
    {"swiglu", mica_cpu_swiglu, mica_cpu_gated_scratch},
    {"geglu", mica_cpu_geglu, mica_cpu_gated_scratch},
    {"exp", mica_cpu_exp, mica_cpu_unary_scratch},
    {"sigmoid", mica_cpu_sigmoid, mica_cpu_unary_scratch},
    {"silu", mica_cpu_silu, mica_cpu_unary_scratch},
    {"gelu", mica_cpu_gelu, mica_cpu_unary_scratch},
    {"gelu_tanh", mica_cpu_gelu_tanh, mica_cpu_unary_scratch},
    {"tanh", mica_cpu_tanh, mica_cpu_unary_scratch},
    {"take", mica_cpu_take, NULL},
    {"low_rank", mica_cpu_low_rank, mica_cpu_low_rank_scratch},
};
const size_t mica_cpu_rows_kernel_count = MICA_COUNT(mica_cpu_rows_kernels);
