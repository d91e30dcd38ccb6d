// SPDX-License-Identifier: Apache-2.0
// The adapters of a model. Loading reads files and may take a while: it holds no lock that a request waits for.
#include "infer/adapters.h"
#include "model/prefix.h"
#include <stdio.h>
#include <string.h>

static void lock(mica_lm *lm) { pthread_mutex_lock(&lm->adapters.lock); }
static void unlock(mica_lm *lm) { pthread_mutex_unlock(&lm->adapters.lock); }

static mica_loaded *find(const mica_lm *lm, const char *name) {
    for (mica_loaded *l = lm->adapters.first; l; l = l->next)
        if (!l->removed && strcmp(l->name, name) == 0) return l;
    return NULL;
}

static void destroy(mica_lm *lm, mica_loaded *l) {
    mica_prefix_forget(&lm->cache, l->set->number);
    mica_cache_give_back(&lm->cache, l->set->bytes);
    mica_lora_set_free(l->set);
    mica_free(l->name);
    mica_free(l);
}

static void unlink_loaded(mica_lm *lm, const mica_loaded *l) {
    mica_loaded **at = &lm->adapters.first;
    while (*at != l) at = &(*at)->next;
    *at = l->next;
}

// ---- coming and going -------------------------------------------------------------------------------------
static mica_loaded *new_loaded(mica_lm *lm, const char *name, const char *path, mica_error *err) {
    lock(lm);
    uint64_t number = ++lm->adapters.numbers;
    unlock(lm);
    mica_loaded *l = mica_calloc(1, sizeof *l);
    if (l) l->name = mica_strdup(name);
    if (!l || !l->name) mica_fail_memory(err, sizeof *l, "an adapter");
    else if ((l->set = mica_lora_set_load(lm->net, path, number, err))) {
        if (mica_cache_set_aside(&lm->cache, l->set->bytes, path, err)) return l;
        mica_lora_set_free(l->set);
    }
    if (l) mica_free(l->name);
    mica_free(l);
    return NULL;
}

static bool is_taken(mica_lm *lm, const char *name, mica_error *err) {
    return find(lm, name) && !mica_fail(err, MICA_ERR_ARGUMENT, "there is an adapter \"%.60s\" already", name);
}

bool mica_adapters_add(mica_lm *lm, const char *name, const char *path, mica_error *err) {
    lock(lm);
    bool taken = is_taken(lm, name, err);
    unlock(lm);
    mica_loaded *l = taken ? NULL : new_loaded(lm, name, path, err);
    if (!l) return false;
    lock(lm);
    taken = is_taken(lm, name, err); // by another thread meanwhile
    mica_loaded **at = &lm->adapters.first;
    while (*at) at = &(*at)->next;
    if (!taken) *at = l;
    if (!taken && !name[0]) lm->adapters.own = l->set;
    unlock(lm);
    if (taken) destroy(lm, l);
    return !taken;
}

bool mica_adapters_remove(mica_lm *lm, const char *name, mica_error *err) {
    lock(lm);
    mica_loaded *l = name[0] ? find(lm, name) : NULL;
    bool unused = l && !l->users;
    if (l) l->removed = true;
    if (unused) unlink_loaded(lm, l);
    unlock(lm);
    if (unused) destroy(lm, l);
    return l || mica_fail(err, MICA_ERR_ARGUMENT, "there is no adapter \"%.60s\"", name);
}

void mica_adapters_free(mica_lm *lm) {
    while (lm->adapters.first) {
        mica_loaded *l = lm->adapters.first;
        lm->adapters.first = l->next;
        destroy(lm, l);
    }
}

// ---- requests -----------------------------------------------------------------------------------------------
bool mica_adapters_take(mica_lm *lm, const char *name, mica_loaded **use, mica_error *err) {
    *use = NULL;
    if (name && !name[0]) return true;
    lock(lm);
    mica_loaded *l = *use = find(lm, name ? name : "");
    if (l) l->users++;
    unlock(lm);
    return l || !name || mica_fail(err, MICA_ERR_ARGUMENT, "there is no adapter \"%.60s\"", name);
}

void mica_adapters_give(mica_lm *lm, mica_loaded *l) {
    if (!l) return;
    lock(lm);
    bool last = !--l->users && l->removed;
    if (last) unlink_loaded(lm, l);
    unlock(lm);
    if (last) destroy(lm, l);
}

// ---- looking ------------------------------------------------------------------------------------------------
size_t mica_adapters_list(mica_lm *lm, mica_adapter_info *out, size_t room) {
    size_t n = 0;
    lock(lm);
    for (const mica_loaded *l = lm->adapters.first; l; l = l->next) {
        if (l->removed || !l->name[0]) continue;
        if (n < room) {
            out[n] = (mica_adapter_info){.bytes = l->set->bytes, .users = (int32_t)l->users};
            snprintf(out[n].name, sizeof out[n].name, "%s", l->name);
        }
        n++;
    }
    unlock(lm);
    return n;
}

int64_t mica_adapters_bytes(mica_lm *lm) {
    int64_t bytes = 0;
    lock(lm);
    for (const mica_loaded *l = lm->adapters.first; l; l = l->next) bytes += l->set->bytes;
    unlock(lm);
    return bytes;
}

mica_loaded *mica_adapters_find(mica_lm *lm, uint64_t net, uint64_t identity) {
    lock(lm);
    mica_loaded *l = lm->adapters.first;
    while (l && (l->removed || mica_identity_with(net, l->set->identity) != identity)) l = l->next;
    if (l) l->users++;
    unlock(lm);
    return l;
}
