// SPDX-License-Identifier: Apache-2.0
// The public side of adapters that are switched at run time: checks, and the backend's own functions.
#include "mica/adapter.h"
#include "backend/model.h"
#include <string.h>

static bool usable(mica_model *m, const char *name, mica_error *err) {
    size_t n = name ? strlen(name) : 0;
    if (!m->backend->adapter_load) return mica_fail(err, MICA_ERR_UNSUPPORTED, "adapters: backend \"%s\" cannot switch them", m->backend->name);
    if (!n || n >= sizeof ((mica_adapter_info *)0)->name)
        return mica_fail(err, MICA_ERR_ARGUMENT, "the name of an adapter has 1 to 63 bytes, not %zu", n);
    return mica_model_retain(m, err);
}

bool mica_adapter_works(const mica_model *m) { return m->backend->adapter_load && !mica_model_is_closed(m); }

bool mica_adapter_load(mica_model *m, const char *name, const char *path, mica_error *err) {
    if (!usable(m, name, err)) return false;
    bool ok = m->backend->adapter_load(m->impl, name, path, err);
    mica_model_release(m);
    return ok;
}

bool mica_adapter_unload(mica_model *m, const char *name, mica_error *err) {
    if (!usable(m, name, err)) return false;
    bool ok = m->backend->adapter_unload(m->impl, name, err);
    mica_model_release(m);
    return ok;
}

size_t mica_adapter_list(mica_model *m, mica_adapter_info *adapters, size_t room) {
    if (!m->backend->adapter_list || !mica_model_retain(m, NULL)) return 0;
    size_t n = m->backend->adapter_list(m->impl, adapters, room);
    mica_model_release(m);
    return n;
}
