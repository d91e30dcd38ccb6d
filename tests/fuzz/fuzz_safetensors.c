// SPDX-License-Identifier: Apache-2.0
// Fuzzes the safetensors reader: whatever opens, all of its bytes must be readable and its names findable.
#include "io/safetensors.h"
#include "fuzz_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    mica_error err = {0};
    uint64_t live = mica_alloc_get_stats().live;
    fuzz_file(data, size, path);
    mica_safetensors *st = mica_safetensors_open(path, &err);
    if (!st && (err.code == MICA_OK || !err.msg[0])) abort();
    for (size_t i = 0; st && i < mica_safetensors_count(st); i++) {
        const mica_stored *t = mica_safetensors_at(st, i);
        if (mica_safetensors_find(st, t->name) != t) abort();
        if (t->bytes && mica_stored_count(t) * mica_dtype_size(t->dtype) != t->bytes) abort();
        fuzz_touch(t->data, t->bytes);
        mica_safetensors_forget(st, t);
    }
    mica_safetensors_free(st);
    if (mica_alloc_get_stats().live != live) abort();
    return 0;
}
