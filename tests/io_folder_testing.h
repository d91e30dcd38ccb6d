// SPDX-License-Identifier: Apache-2.0
// For io test programs whose tests share one scratch folder: set-up and tear-down of the group, and what they look at.
#ifndef MICA_TESTS_IO_FOLDER_TESTING_H
#define MICA_TESTS_IO_FOLDER_TESTING_H

#include "io_testing.h"

static const char *folder;

static inline int make_folder(void **state) {
    (void)state;
    folder = scratch_folder();
    return 0;
}

static inline int drop_folder(void **state) {
    (void)state;
    mica_remove_flat_dir(folder);
    return 0;
}

/** Files and folders in a folder, hidden ones too. */
static inline size_t entries_of(const char *dir) {
    char command[1300];
    snprintf(command, sizeof command, "ls -A '%s' | wc -l", dir);
    FILE *f = popen(command, "r");
    size_t n = 0;
    assert_int_equal(fscanf(f, "%zu", &n), 1);
    pclose(f);
    return n;
}

/** A progress callback of conversions: ctx counts the calls (int); the second stops. */
static inline bool stop_at_second(void *ctx, const char *tensor, uint64_t done, uint64_t total) {
    assert_true(tensor && done <= total);
    return ++*(int *)ctx < 2;
}
#endif
