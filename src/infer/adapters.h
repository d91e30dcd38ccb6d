// SPDX-License-Identifier: Apache-2.0
// The adapters of a model by name. A request takes the one it wants and gives it back at its end; one that is removed meanwhile has no name any more and
// is freed when the last request gives it back.
#ifndef MICA_INFER_ADAPTERS_H
#define MICA_INFER_ADAPTERS_H

#include "infer/internal.h"
#include "mica/adapter.h"

struct mica_loaded {
    char *name; // "": the one that was given when the model was loaded
    mica_lora_set *set;
    size_t users;
    bool removed;
    struct mica_loaded *next;
};

/** Loads a folder under a name ("": as the model's own, before anything is computed); the path's error, or that of a name which is not free. */
bool mica_adapters_add(mica_lm *lm, const char *name, const char *path, mica_error *err);
bool mica_adapters_remove(mica_lm *lm, const char *name, mica_error *err);
/** Into out[room], in the order of loading; how many there are. */
size_t mica_adapters_list(mica_lm *lm, mica_adapter_info *out, size_t room);
/** Bytes of all, those that are removed and still in use as well. */
int64_t mica_adapters_bytes(mica_lm *lm);
/** *use: the one for a request's option (NULL: that of the model, "": none), to be given back; NULL where that is none. False: there is none of that name. */
bool mica_adapters_take(mica_lm *lm, const char *name, mica_loaded **use, mica_error *err);
void mica_adapters_give(mica_lm *lm, mica_loaded *use);
static inline const mica_lora_set *mica_loaded_set(const mica_loaded *use) { return use ? use->set : NULL; }
/** What texts are computed with: the network and an adapter (mica_lora_set.identity; 0: none). */
static inline uint64_t mica_identity_with(uint64_t net, uint64_t adapter) { return adapter ? mica_hash_mix(net, adapter) : net; }
/** The adapter that together with the network has this identity; NULL: none is loaded. Its set may be looked at until it is given back. */
mica_loaded *mica_adapters_find(mica_lm *lm, uint64_t net, uint64_t identity);
void mica_adapters_free(mica_lm *lm);
#endif
