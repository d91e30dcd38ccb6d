// SPDX-License-Identifier: Apache-2.0
// For io test programs whose tests share one scratch folder: set-up and tear-down of the group.
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
#endif
