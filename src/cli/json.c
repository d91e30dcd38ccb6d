// SPDX-License-Identifier: Apache-2.0
// JSON to stdout as it comes (no tree). Numbers are written with the fewest digits that read back equal; the C locale is never left, so the
// decimal point is a point.
#include "cli/cli.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void put_string(FILE *out, const char *s, size_t n) {
    putc('"', out);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        const char *escape = c == '"' ? "\\\"" : c == '\\' ? "\\\\" : c == '\n' ? "\\n" : c == '\t' ? "\\t" : c == '\r' ? "\\r" : NULL;
        if (escape) fputs(escape, out);
        else if (c < 0x20 || c == 0x7F) fprintf(out, "\\u%04x", c);
        else putc(c, out);
    }
    putc('"', out);
}

/** What comes before a value: a comma if it is not the first, and its key. */
static void start(mica_cli_json *j, const char *key) {
    if (j->comma) putc(',', j->out);
    j->comma = true;
    if (!key) return;
    put_string(j->out, key, strlen(key));
    putc(':', j->out);
}

void mica_cli_json_open(mica_cli_json *j, const char *key, char bracket) {
    start(j, key);
    putc(bracket, j->out);
    j->comma = false;
}

void mica_cli_json_close(mica_cli_json *j, char bracket) {
    putc(bracket, j->out);
    j->comma = true;
}

void mica_cli_json_text(mica_cli_json *j, const char *key, const char *s, size_t n) { start(j, key), put_string(j->out, s, n); }
void mica_cli_json_string(mica_cli_json *j, const char *key, const char *s) { mica_cli_json_text(j, key, s, strlen(s)); }
void mica_cli_json_int(mica_cli_json *j, const char *key, int64_t v) { start(j, key), fprintf(j->out, "%" PRId64, v); }
void mica_cli_json_bool(mica_cli_json *j, const char *key, bool v) { start(j, key), fputs(v ? "true" : "false", j->out); }
void mica_cli_json_raw(mica_cli_json *j, const char *key, const char *json) { start(j, key), fputs(json, j->out); }
void mica_cli_json_null(mica_cli_json *j, const char *key) { start(j, key), fputs("null", j->out); }

void mica_cli_json_float(mica_cli_json *j, const char *key, float v) {
    char digits[32] = "null";
    for (int n = 6; isfinite(v) && n <= 9; n++) {
        snprintf(digits, sizeof digits, "%.*g", n, (double)v);
        if (strtof(digits, NULL) == v) break;
    }
    start(j, key), fputs(digits, j->out);
}

void mica_cli_json_double(mica_cli_json *j, const char *key, double v) {
    char digits[32] = "null";
    for (int n = 6; isfinite(v) && n <= 17; n++) {
        snprintf(digits, sizeof digits, "%.*g", n, v);
        if (strtod(digits, NULL) == v) break;
    }
    start(j, key), fputs(digits, j->out);
}

void mica_cli_json_ints(mica_cli_json *j, const char *key, const int32_t *v, size_t n) {
    mica_cli_json_open(j, key, '[');
    for (size_t i = 0; i < n; i++) mica_cli_json_int(j, NULL, v[i]);
    mica_cli_json_close(j, ']');
}

void mica_cli_json_end(mica_cli_json *j) {
    putc('\n', j->out);
    j->comma = false;
}
