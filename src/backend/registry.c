// SPDX-License-Identifier: Apache-2.0
// The registry of backends: the built-in ones in their order of preference, then those that the program registers. It is process-wide by
// nature (names are); a lock guards it, and entries are never moved, so that pointers to them stay good.
#include "backend/mlx_lm/server.h"
#include "backend/model.h"
#include <string.h>

enum { MOST_BACKENDS = 32 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static mica_backend backends[MOST_BACKENDS];
static size_t count; // 0: the built-in ones are not in yet

static void add_built_in(void) {
    if (count) return;
    backends[count++] = mica_backend_cpu;
    backends[count++] = mica_backend_mlx_lm;
}

static mica_backend *find(const char *name) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(backends[i].name, name) == 0) return &backends[i];
    return NULL;
}

static const char *missing_function(const mica_backend *b) {
    return !b->available ? "available" : !b->load ? "load" : !b->unload ? "unload" : !b->start ? "start" : !b->next ? "next" :
           !b->cancel ? "cancel" : !b->finish ? "finish" : !b->error ? "error" : !b->metrics ? "metrics" : !b->end ? "end" : NULL;
}

bool mica_backend_register(const mica_backend *b, mica_error *err) {
    const char *missing = missing_function(b);
    if (!b->name || !b->name[0]) return mica_fail(err, MICA_ERR_ARGUMENT, "a backend needs a name");
    if (missing) return mica_fail(err, MICA_ERR_ARGUMENT, "backend \"%s\" has no function \"%s\"", b->name, missing);
    pthread_mutex_lock(&lock);
    add_built_in();
    mica_backend *place = find(b->name);
    if (!place && count < MOST_BACKENDS) place = &backends[count++];
    if (place) *place = *b;
    pthread_mutex_unlock(&lock);
    return place || mica_fail(err, MICA_ERR_ARGUMENT, "backend \"%s\": there are %d registered already", b->name, MOST_BACKENDS);
}

static bool available(const mica_backend *b, mica_error *err) {
    mica_error why = {0};
    if (b->available(b->context, &why)) return true;
    return mica_fail(err, MICA_ERR_UNSUPPORTED, "backend \"%s\" not available on this hardware%s%s", b->name, why.msg[0] ? ": " : "", why.msg);
}

// Probing may take a while (it may start a process): not under the lock.
const mica_backend *mica_backend_find(const char *name, bool probe, mica_error *err) {
    pthread_mutex_lock(&lock);
    add_built_in();
    size_t n = count;
    const mica_backend *b = name && name[0] ? find(name) : NULL;
    pthread_mutex_unlock(&lock);
    if (name && name[0]) {
        if (!b) return mica_fail(err, MICA_ERR_ARGUMENT, "backend \"%.60s\" not registered", name), NULL;
        return !probe || available(b, err) ? b : NULL;
    }
    mica_fail(err, MICA_ERR_UNSUPPORTED, "no backends registered");
    for (size_t i = 0; i < n; i++)
        if (available(&backends[i], err)) {
            if (err) *err = (mica_error){0};
            return &backends[i];
        }
    return NULL;
}

const mica_backend *mica_backend_get(const char *name, mica_error *err) { return mica_backend_find(name, true, err); }

size_t mica_backend_list(const char **names, size_t room) {
    pthread_mutex_lock(&lock);
    add_built_in();
    size_t n = count;
    for (size_t i = 0; i < n && i < room; i++) names[i] = backends[i].name;
    pthread_mutex_unlock(&lock);
    return n;
}
