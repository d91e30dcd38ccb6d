// SPDX-License-Identifier: Apache-2.0
// Fuzzes the reader of adapters. Input: the name of the tensors' file up to a newline ('p': PEFT's, otherwise mlx-lm's), the config up to a
// NUL byte (empty: none), then the tensors. Whatever opens must have parts whose matrices fit together and can be read.
#include "io/adapter.h"
#include "base/file.h"
#include "fuzz_file.h"
#include <string.h>

static void put(const char *folder, const char *name, const uint8_t *data, size_t size) {
    char path[FUZZ_PATH + 40];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f)) abort();
}

static void check(const mica_adapter *a) {
    for (size_t i = 0; i < a->count; i++) {
        const mica_adapter_part *p = &a->parts[i];
        if (!p->a || !p->b || p->a->ndim != 2 || p->b->ndim != 2) abort();
        fuzz_touch(p->a->data, p->a->bytes);
        fuzz_touch(p->b->data, p->b->bytes);
        if (p->magnitude) fuzz_touch(p->magnitude->data, p->magnitude->bytes);
        if (mica_adapter_find(a, p->module) != p) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *line = memchr(data, '\n', size), *config = line ? line + 1 : data;
    const uint8_t *zero = memchr(config, 0, size - (size_t)(config - data)), *tensors = zero ? zero + 1 : config;
    bool peft = line && data[0] == 'p';
    char folder[] = "/dev/shm/mica-fuzz-adapter-XXXXXX";
    uint64_t live = mica_alloc_get_stats().live;
    mica_error err = {0};
    mica_adapter a;
    if (!mkdtemp(folder)) abort();
    if (zero && zero > config) put(folder, "adapter_config.json", config, (size_t)(zero - config));
    put(folder, peft ? "adapter_model.safetensors" : "adapters.safetensors", tensors, size - (size_t)(tensors - data));
    if (mica_adapter_open(&a, folder, &err)) check(&a);
    else if (err.code == MICA_OK || !err.msg[0]) abort();
    mica_adapter_close(&a);
    mica_remove_flat_dir(folder);
    if (mica_alloc_get_stats().live != live) abort();
    return 0;
}
