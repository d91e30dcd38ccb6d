// SPDX-License-Identifier: Apache-2.0
// A set of ids, read from the lines of a file.
#include "cli/answered.h"
#include "cli/json_read.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t slot_of(const mica_cli_answered *a, const char *id) {
    uint64_t hash = 14695981039346656037u; // FNV-1a
    for (const char *c = id; *c; c++) hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    size_t i = (size_t)(hash ^ hash >> 32) & (a->capacity - 1);
    while (a->slots[i] && strcmp(a->slots[i], id) != 0) i = (i + 1) & (a->capacity - 1);
    return i;
}

bool mica_cli_answered_has(const mica_cli_answered *a, const char *id) { return a->capacity && a->slots[slot_of(a, id)]; }

static void grow(mica_cli_answered *a) {
    mica_cli_answered more = {.capacity = a->capacity ? 2 * a->capacity : 1024, .count = a->count};
    more.slots = mica_cli_realloc(NULL, more.capacity * sizeof *more.slots);
    for (size_t i = 0; i < more.capacity; i++) more.slots[i] = NULL;
    for (size_t i = 0; i < a->capacity; i++)
        if (a->slots[i]) more.slots[slot_of(&more, a->slots[i])] = a->slots[i];
    free(a->slots);
    *a = more;
}

static void add(mica_cli_answered *a, const mica_cli_value *id) {
    if (2 * a->count >= a->capacity) grow(a);
    char *copy = mica_cli_copy(id->text, id->size);
    size_t i = slot_of(a, copy);
    if (a->slots[i]) free(copy);
    else a->slots[i] = copy, a->count++;
}

void mica_cli_answered_free(mica_cli_answered *a) {
    for (size_t i = 0; i < a->capacity; i++) free(a->slots[i]);
    free(a->slots);
    *a = (mica_cli_answered){0};
}

static void read_line(mica_cli_answered *a, const char *line, mica_cli_text *key) {
    mica_cli_value object, v, id = {0};
    const char *why;
    bool whole = true;
    if (!mica_cli_json_read(line, &object, &why) || !mica_cli_json_is(&object, '{')) return;
    for (const char *at = NULL; mica_cli_json_next(&object, &at, key, &v);) {
        if (strcmp(key->data, "id") == 0) id = v;
        if (strcmp(key->data, "error") == 0) whole = false;
        if (strcmp(key->data, "finish_reason") == 0 && v.size == 11 && memcmp(v.text, "\"cancelled\"", 11) == 0) whole = false;
    }
    if (whole && id.text) add(a, &id);
}

FILE *mica_cli_answered_open(mica_cli_answered *a, const char *path) {
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r+");
    if (!file) {
        mica_cli_fail("%s: cannot open it: %s", path, strerror(errno));
        if (fd >= 0) close(fd);
        return NULL;
    }
    char *line = NULL;
    size_t capacity = 0;
    off_t end = 0;
    mica_cli_text key = {0};
    for (ssize_t n; (n = getline(&line, &capacity, file)) > 0 && line[n - 1] == '\n'; end += n) read_line(a, line, &key);
    free(line);
    free(key.data);
    if (!ferror(file) && fseeko(file, end, SEEK_SET) == 0 && ftruncate(fd, end) == 0) return file;
    mica_cli_fail("%s: cannot read it: %s", path, strerror(errno));
    fclose(file);
    return NULL;
}
