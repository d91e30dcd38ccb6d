// SPDX-License-Identifier: Apache-2.0
// What the command reads: stdin as a whole or by lines, and the name of a model, which is a path or, failing that, a
// model of mica's cache folder ($MICA_CACHE, else $XDG_CACHE_HOME/mica, else ~/.cache/mica), in its part `models`.
#include "cli/cli.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool read_all(FILE *file, mica_cli_text *text) {
    mica_cli_append(text, "", 0);
    char chunk[1 << 16];
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, file)) > 0;) mica_cli_append(text, chunk, n);
    return !ferror(file);
}

bool mica_cli_read_file(const char *path, mica_cli_text *text) {
    FILE *file = fopen(path, "rbe");
    bool ok = file && read_all(file, text);
    if (!ok) mica_cli_fail("%s: cannot read it: %s", path, strerror(errno));
    if (file) fclose(file);
    return ok;
}

bool mica_cli_read_stdin(const mica_cli_args *args, const char *what, mica_cli_text *text) {
    if (isatty(STDIN_FILENO)) mica_cli_note(args, "reading %s from the terminal; Ctrl-D ends it", what);
    if (read_all(stdin, text)) return true;
    mica_cli_fail("stdin: cannot read %s: %s", what, strerror(errno));
    return false;
}

bool mica_cli_read_line(mica_cli_text *line) {
    ssize_t n = getline(&line->data, &line->capacity, stdin);
    if (n < 0) return false;
    if (n > 0 && line->data[n - 1] == '\n') line->data[--n] = 0;
    line->size = (size_t)n;
    return true;
}

char *mica_cli_model_cache(void) {
    const char *own = getenv("MICA_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (own && *own) return mica_cli_join(own, "/models/", "");
    if (xdg && *xdg) return mica_cli_join(xdg, "/mica/models/", "");
    return home && *home ? mica_cli_join(home, "/.cache/mica/models/", "") : NULL;
}

static bool exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

char *mica_cli_model_path(const char *name) {
    if (!*name) return mica_cli_fail("MODEL: the name is empty"), NULL;
    if (exists(name)) return mica_cli_join(name, "", "");
    bool plain = !strchr(name, '/') && name[0] != '.';
    char *cache = plain ? mica_cli_model_cache() : NULL, *found = NULL;
    for (int gguf = 0; cache && !found && gguf < 2; gguf++) {
        char *path = mica_cli_join(cache, name, gguf ? ".gguf" : "");
        if (exists(path)) found = path;
        else free(path);
    }
    if (!found && cache) mica_cli_fail("%s: no such model: neither here (folder or .gguf file) nor in %s", name, cache);
    else if (!found) mica_cli_fail("%s: no such model: %s", name, strerror(errno));
    free(cache);
    return found;
}
