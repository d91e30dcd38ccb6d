// SPDX-License-Identifier: Apache-2.0
// JSON over yajl: a read-only tree in an arena, and a writer into a mica_buf. Numbers keep integer exactness;
// strings are UTF-8 with their length (they may hold NUL); duplicate keys: the last wins, as in Python. Depth is bounded.
#ifndef MICA_BASE_JSON_H
#define MICA_BASE_JSON_H

#include "base/base.h"

typedef enum { MICA_JSON_NULL, MICA_JSON_BOOL, MICA_JSON_INT, MICA_JSON_FLOAT, MICA_JSON_STRING, MICA_JSON_ARRAY,
               MICA_JSON_OBJECT } mica_json_type;

typedef struct mica_json {
    mica_json_type type;
    bool boolean;
    bool beyond;     // FLOAT only: written as an integer, one that int64_t cannot hold
    int64_t integer; // INT only
    double number;   // INT and FLOAT
    const char *string; // STRING, NUL-terminated
    size_t length;      // bytes of string, or number of children
    const char *key;    // member name inside an object, NUL-terminated
    size_t key_length;
    struct mica_json *child, *next; // first child; next sibling, in file order
} mica_json;

/** Parses a whole document; what: file name for messages ("what: line 3: …"). The tree lives in the arena. */
const mica_json *mica_json_parse(mica_arena *arena, const char *text, size_t size, const char *what, mica_error *err);
/** Member of an object, NULL if absent or v is no object (v may be NULL). */
const mica_json *mica_json_get(const mica_json *v, const char *key);
/** Element of an array, NULL if out of range. O(i): iterate with ->child/->next. */
const mica_json *mica_json_at(const mica_json *v, size_t i);
const char *mica_json_type_name(mica_json_type type);
/** Typed members of an object: an absent or null member gives `otherwise`; a wrong type fails naming what and key. */
bool mica_json_int(const mica_json *object, const char *key, int64_t otherwise, int64_t *out, const char *what, mica_error *err);
bool mica_json_float(const mica_json *object, const char *key, double otherwise, double *out, const char *what, mica_error *err);
bool mica_json_bool(const mica_json *object, const char *key, bool otherwise, bool *out, const char *what, mica_error *err);
bool mica_json_string(const mica_json *object, const char *key, const char *otherwise, const char **out, const char *what, mica_error *err);

// Writing: commas and separators are the writer's; NaN and infinities are written as null. Check buf.failed at the end.
typedef struct mica_json_writer {
    mica_buf *out;
    bool need_comma;
} mica_json_writer;
void mica_json_begin_object(mica_json_writer *w);
void mica_json_end_object(mica_json_writer *w);
void mica_json_begin_array(mica_json_writer *w);
void mica_json_end_array(mica_json_writer *w);
void mica_json_key(mica_json_writer *w, const char *key);
void mica_json_put_string(mica_json_writer *w, const char *s, size_t n); // invalid UTF-8 becomes U+FFFD
void mica_json_put_cstring(mica_json_writer *w, const char *s);
void mica_json_put_int(mica_json_writer *w, int64_t v);
void mica_json_put_float(mica_json_writer *w, double v); // shortest text that reads back equal
void mica_json_put_bool(mica_json_writer *w, bool v);
void mica_json_put_null(mica_json_writer *w);
void mica_json_put_raw(mica_json_writer *w, const char *json, size_t n); // a value, or several with commas, as written but on one line
void mica_json_put_tree(mica_json_writer *w, const mica_json *v);
#endif
