// SPDX-License-Identifier: Apache-2.0
// One step of an allocation-failure sweep over something that may recover from a refusal in more than one way.
#ifndef MICA_TESTS_FAULTS_TESTING_H
#define MICA_TESTS_FAULTS_TESTING_H

#include "base/base.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

/** Runs fn with the n-th allocation refused; returns what it returned. Fails on a failure without a message, on success in spite of a
 * refusal, and unless `live` blocks are alive afterwards. */
static inline bool run_refused(bool (*fn)(mica_error *err), uint64_t n, uint64_t live) {
    mica_error err = {0};
    mica_alloc_fail_after(n);
    bool ok = fn(&err), refused = mica_alloc_failures() > 0;
    mica_alloc_fail_after(0);
    if (!ok && !err.msg[0]) fail_msg("allocation %d: failed without a message", (int)n);
    if (ok && refused) fail_msg("allocation %d: refused, yet all went well", (int)n);
    if (mica_alloc_get_stats().live != live)
        fail_msg("allocation %d: %d blocks leaked (%s)", (int)n, (int)(mica_alloc_get_stats().live - live), err.msg);
    return ok;
}
#endif
