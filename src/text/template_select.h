// SPDX-License-Identifier: Apache-2.0
// Attribute paths, as the filters take them: "a.b.0" leads from an item to its value.
#ifndef MICA_TEXT_TEMPLATE_SELECT_H
#define MICA_TEXT_TEMPLATE_SELECT_H

#include "text/template_value.h"

typedef struct mica_tpath {
    mica_tval *parts; // strings and whole numbers
    size_t count;     // 0: the item itself
    mica_tval otherwise; // stands in for what is undefined, unless it is MISSING
} mica_tpath;

/** attribute: a string, a whole number; MISSING or None for no path at all. */
bool mica_t_path(mica_trun *r, const mica_tval *attribute, mica_tpath *path);
bool mica_t_follow(mica_trun *r, const mica_tpath *path, const mica_tval *item, mica_tval *out);
/** Strings in lower case, others as they are. */
bool mica_t_fold(mica_trun *r, const mica_tval *v, mica_tval *out);
#endif
