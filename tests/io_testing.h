// SPDX-License-Identifier: Apache-2.0
// Helpers of the io tests: scratch folders, files from bytes, allocation-failure sweeps.
#ifndef MICA_TESTS_IO_TESTING_H
#define MICA_TESTS_IO_TESTING_H

#include "base/base.h"
#include "base/file.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define GOLDEN_DIR MICA_SOURCE_DIR "/tests/golden"

/** A new empty folder below the build folder; its name is valid until the next call. */
static inline const char *scratch_folder(void) {
    static char path[600];
    static int turn;
    snprintf(path, sizeof path, "%s/test-scratch-%ld-%d", MICA_BINARY_DIR, (long)getpid(), turn++);
    assert_int_equal(mkdir(path, 0777), 0);
    return path;
}

static inline const char *path_in(const char *folder, const char *name) {
    static char path[4][1200];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static inline void write_file(const char *path, const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_true(fwrite(bytes, 1, n, f) == n);
    assert_true(fclose(f) == 0);
}

static inline void copy_file_to(const char *from, const char *to) {
    mica_buf b = {0};
    mica_error err = {0};
    assert_true(mica_file_read(from, (size_t)1 << 30, &b, &err));
    write_file(to, b.data ? b.data : "", b.len);
    mica_buf_free(&b);
}

/** The model that a golden adapter is for; valid until the next call. */
static inline const char *base_of(const char *name) {
    static char path[1200];
    char base[200] = "";
    snprintf(path, sizeof path, GOLDEN_DIR "/adapters/%s/base.txt", name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%199s", base), 1);
    fclose(f);
    snprintf(path, sizeof path, GOLDEN_DIR "/%s", base);
    return path;
}

/** Runs fn(ctx) with the 1st, 2nd, … allocation failing until it succeeds: each failure must be a clean one (fn says
 * what that is by returning false with an error set) and leak nothing. */
static inline void sweep_allocations(bool (*fn)(void *ctx, mica_error *err), void *ctx) {
    uint64_t live = mica_alloc_get_stats().live;
    for (uint64_t n = 1;; n++) {
        mica_error err = {0};
        mica_alloc_fail_after(n);
        bool ok = fn(ctx, &err);
        uint64_t failures = mica_alloc_failures();
        mica_alloc_fail_after(0);
        if (mica_alloc_get_stats().live != live) fail_msg("allocation %d failing leaks %d blocks", (int)n, (int)(mica_alloc_get_stats().live - live));
        if (ok && !failures) break;
        if (ok) fail_msg("allocation %d failed unnoticed", (int)n);
        if (err.code != MICA_ERR_NO_MEMORY) fail_msg("allocation %d failing gives \"%s\"", (int)n, err.msg);
    }
}

/** Fails unless err says every one of the given words. */
static inline void assert_says(const mica_error *err, const char *a, const char *b) {
    if (!strstr(err->msg, a) || !strstr(err->msg, b)) fail_msg("\"%s\" lacks \"%s\" or \"%s\"", err->msg, a, b);
}
#endif
