// SPDX-License-Identifier: Apache-2.0
// JSON values inside a line, found without copying them (json_read.c).
#ifndef MICA_CLI_JSON_READ_H
#define MICA_CLI_JSON_READ_H

#include "cli/cli.h"

typedef struct mica_cli_value { // a stretch of the line
    const char *text;
    size_t size;
} mica_cli_value;

/** The one value that a NUL-terminated text holds, checked throughout; false and *why otherwise. */
bool mica_cli_json_read(const char *text, mica_cli_value *value, const char **why);
/** The next element of an array, or member of an object with its name in *key; *at is NULL at first. False past the last. */
bool mica_cli_json_next(const mica_cli_value *list, const char **at, mica_cli_text *key, mica_cli_value *value);
/** kind: the first character of the value: '"', '{', '[', 't', 'f', 'n'; or '0', a number. */
bool mica_cli_json_is(const mica_cli_value *value, char kind);
/** A string, unescaped; false if it is none. */
bool mica_cli_json_string_of(const mica_cli_value *value, mica_cli_text *text);
/** The (last) member of this name; false if there is none, or if it is no object. */
bool mica_cli_json_member(const mica_cli_value *object, const char *name, mica_cli_value *value);
/** The same for a string, unescaped and allocated; NULL if there is none. */
char *mica_cli_json_string_member(const mica_cli_value *object, const char *name);
bool mica_cli_json_number_of(const mica_cli_value *value, double *number);
#endif
