// SPDX-License-Identifier: Apache-2.0
// Texts that are allocated: one that grows, copies, pieces put together. Where there is no memory the program ends (mica_cli_realloc).
#include "cli/cli.h"
#include <stdlib.h>
#include <string.h>

void *mica_cli_realloc(void *p, size_t size) {
    void *q = realloc(p, size ? size : 1);
    if (q) return q;
    mica_cli_fail("out of memory: %zu bytes", size);
    exit(MICA_EXIT_FAILED);
}

void mica_cli_append(mica_cli_text *text, const char *bytes, size_t n) {
    if (text->size + n + 1 > text->capacity) {
        text->capacity = 2 * (text->size + n) + 64;
        text->data = mica_cli_realloc(text->data, text->capacity);
    }
    if (n) memcpy(text->data + text->size, bytes, n);
    text->size += n;
    text->data[text->size] = 0;
}

char *mica_cli_copy(const char *text, size_t n) {
    char *copy = mica_cli_realloc(NULL, n + 1);
    if (n) memcpy(copy, text, n);
    copy[n] = 0;
    return copy;
}

char *mica_cli_join(const char *a, const char *b, const char *c) {
    size_t size = strlen(a) + strlen(b) + strlen(c) + 1;
    char *s = mica_cli_realloc(NULL, size);
    snprintf(s, size, "%s%s%s", a, b, c);
    return s;
}
