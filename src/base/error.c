// SPDX-License-Identifier: Apache-2.0
// Filling mica_error. Long messages are cut at the end of the struct, never overrun, and control characters
// (they come from untrusted names) become '?', so that a message is always one printable line.
#include "base/base.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static void one_line(char *s) {
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = '?';
}

bool mica_failv(mica_error *err, mica_code code, const char *fmt, va_list args) {
    if (!err) return false;
    err->code = code;
    vsnprintf(err->msg, sizeof err->msg, fmt, args);
    one_line(err->msg);
    return false;
}

bool mica_fail(mica_error *err, mica_code code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    mica_failv(err, code, fmt, args);
    va_end(args);
    return false;
}

bool mica_fail_memory(mica_error *err, size_t bytes, const char *what) {
    return mica_fail(err, MICA_ERR_NO_MEMORY, "out of memory: %zu bytes for %s", bytes, what);
}

bool mica_fail_errno(mica_error *err, const char *verb, const char *path) {
    return mica_fail(err, MICA_ERR_IO, "%s: cannot %s: %s", path, verb, strerror(errno));
}

bool mica_error_prefix(mica_error *err, const char *fmt, ...) {
    if (!err) return false;
    char text[sizeof err->msg], old[sizeof err->msg];
    memcpy(old, err->msg, sizeof old);
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    size_t used = strlen(text), room = sizeof err->msg - 1;
    memcpy(err->msg, text, used);
    memcpy(err->msg + used, ": ", MICA_MIN((size_t)2, room - used));
    used = MICA_MIN(used + 2, room);
    size_t rest = MICA_MIN(strlen(old), room - used);
    memcpy(err->msg + used, old, rest);
    err->msg[used + rest] = 0;
    one_line(err->msg);
    return false;
}
