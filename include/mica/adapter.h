// SPDX-License-Identifier: Apache-2.0
// Adapters of an open model: LoRA and DoRA folders loaded beside its weights, any number of them, from which each request chooses (field `adapter` of
// mica_generate_options and mica_classify_options). Requests with different adapters may run at once and in one batch: they share the weights, and differ in
// what is small.
#ifndef MICA_ADAPTER_H
#define MICA_ADAPTER_H

#include "mica/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mica_adapter_info {
    char name[64];
    int64_t bytes; // memory that it takes
    int32_t users; // requests under way that use it
} mica_adapter_info;

/** Whether the model's backend can: native ones do. Others take an adapter when a model is loaded (mica_load_options.adapter), if at all. */
MICA_API bool mica_adapter_works(const mica_model *model);
/** Loads the adapter of a folder (mlx-lm, PEFT or go-mlx) under a name of 1 to 63 bytes that is free. Refused, with the module named: an adapter that was
 * made for another model. From any thread, while others use the model. */
MICA_API bool mica_adapter_load(mica_model *model, const char *name, const char *path, mica_error *err);
/** The name is free at once, and no request finds it any more; those that use the adapter go on with it, and its memory is given back with the last of
 * them. The one that the model was loaded with stays. */
MICA_API bool mica_adapter_unload(mica_model *model, const char *name, mica_error *err);
/** Loaded ones in their order into adapters[room]; gives how many there are. */
MICA_API size_t mica_adapter_list(mica_model *model, mica_adapter_info *adapters, size_t room);

#ifdef __cplusplus
}
#endif
#endif
