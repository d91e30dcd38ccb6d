// SPDX-License-Identifier: Apache-2.0
// For tests of real checkpoints: where they are on this machine.
#ifndef MICA_TESTS_REAL_TESTING_H
#define MICA_TESTS_REAL_TESTING_H

#include "base/base.h"
#include "base/file.h"
#include <stdlib.h>

/** The model in $MICA_TEST_MODELS or among the cache's models, to be freed; NULL if it is in neither. */
static inline char *find_model(const char *name) {
    const char *models = getenv("MICA_TEST_MODELS");
    char *cache = mica_cache_dir();
    char *paths[] = {models ? mica_strf("%s/%s", models, name) : NULL, cache ? mica_strf("%s/models/%s", cache, name) : NULL}, *found = NULL;
    for (size_t i = 0; i < MICA_COUNT(paths); i++) {
        if (!found && paths[i] && (mica_is_file(paths[i]) || mica_is_dir(paths[i]))) found = paths[i];
        else mica_free(paths[i]);
    }
    mica_free(cache);
    return found;
}
#endif
