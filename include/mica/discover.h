// SPDX-License-Identifier: Apache-2.0
// Finding models on disk.
#ifndef MICA_DISCOVER_H
#define MICA_DISCOVER_H

#include "mica/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mica_discovered {
    char *path;             // of the folder or .gguf file
    char model_type[64];    // "" if its config cannot be read
    int32_t quant_bits, quant_group; // 0 when dense
    int32_t num_files;      // of weights
} mica_discovered;

typedef struct mica_discovery {
    mica_discovered *items; // by path
    size_t count;
} mica_discovery;

/** Appends to *found the models in a folder: itself and its immediate sub-folders (symbolic links are followed) that hold config.json
 * and at least one *.safetensors, and the .gguf files in them. A model that cannot be read does not stop the scan. False if the folder
 * itself cannot be read. Start *found as {0}; release with mica_discovery_free. */
MICA_API bool mica_discover(const char *folder, mica_discovery *found, mica_error *err);
MICA_API void mica_discovery_free(mica_discovery *found);

#ifdef __cplusplus
}
#endif
#endif
