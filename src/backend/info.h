// SPDX-License-Identifier: Apache-2.0
// What a model is and needs (mica_info), from its config and files.
#ifndef MICA_BACKEND_INFO_H
#define MICA_BACKEND_INFO_H

#include "io/checkpoint.h"
#include "mica/model.h"

/** Sizes and kinds, all that a config tells. */
void mica_info_from_config(const mica_config *c, mica_info *info);
/** That and what the files tell. */
void mica_info_from_checkpoint(const mica_model_files *ck, mica_info *info);
/** Bytes of weights and cache alone, which a memory budget is about. */
int64_t mica_info_kept_memory(const mica_info *info, int32_t context);
/** Sets the bytes of the KV cache for pages of `dtype` (MICA_I8: codes). */
void mica_info_set_kv(const mica_config *c, mica_dtype dtype, mica_info *info);
#endif
