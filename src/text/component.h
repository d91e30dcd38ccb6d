// SPDX-License-Identifier: Apache-2.0
// What the readers of tokenizer.json's components share.
#ifndef MICA_TEXT_COMPONENT_H
#define MICA_TEXT_COMPONENT_H

#include "base/json.h"
#include "text/pretok.h"

/** Called with each component that is no Sequence, in order. */
typedef bool mica_component_fn(void *ctx, const char *type, const mica_json *v, mica_error *err);
/** v: NULL or null (no component), one component, or a Sequence whose members stand in the array `list`. kind: for messages. */
bool mica_component_each(const mica_json *v, const char *kind, const char *list, mica_component_fn *fn, void *ctx, const char *what,
                         mica_error *err);
/** "pattern": {"String": …} or {"Regex": …}; the text is borrowed from the tree. */
bool mica_component_pattern(const mica_json *v, const char **pattern, size_t *n, bool *is_regex, const char *what, mica_error *err);
/** A member that is a string of one character. otherwise 0: it must be there. */
bool mica_component_char(const mica_json *v, const char *key, uint32_t otherwise, uint32_t *cp, const char *what, mica_error *err);
/** A string member with its length (it may hold NUL); it must be there. */
bool mica_component_string(const mica_json *v, const char *key, const char **s, size_t *n, const char *what, mica_error *err);
bool mica_component_scheme(const char *name, mica_prepend_scheme *scheme, const char *what, mica_error *err);
#endif
