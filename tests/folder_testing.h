// SPDX-License-Identifier: Apache-2.0
// For test programs with one scratch folder: paths in it and files with a given text. Who includes this makes the folder (mkdtemp) and removes it.
#ifndef MICA_TESTS_FOLDER_TESTING_H
#define MICA_TESTS_FOLDER_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static char folder[] = "/tmp/mica-test-XXXXXX";

/** Lives for seven more calls. */
static inline const char *in_folder(const char *name) {
    static char paths[8][200];
    static int at;
    char *p = paths[at++ % 8];
    snprintf(p, sizeof paths[0], "%s/%s", folder, name);
    return p;
}

static inline void write_file(const char *name, const char *text) {
    FILE *f = fopen(in_folder(name), "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}
#endif
