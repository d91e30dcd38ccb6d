// SPDX-License-Identifier: Apache-2.0
// Files: read-only mappings, whole-file reads with a bound, atomic writes (temporary name, then rename; the
// temporary file is removed on failure), paths and the folders that mica caches in.
#ifndef MICA_BASE_FILE_H
#define MICA_BASE_FILE_H

#include "base/base.h"
#include <stdio.h>

typedef struct mica_map {
    const unsigned char *data; // NULL for an empty file
    size_t size;
} mica_map;
bool mica_map_open(mica_map *map, const char *path, mica_error *err);
void mica_map_close(mica_map *map);
/** Tells the kernel that [offset, offset+size) is not needed in memory any more. What is around it in the same 2 MiB goes as well: a
 * fault brings in neighbours (64 KiB, or a whole large page of the page cache), so keeping to the bytes would leave much of
 * what lies between two ranges. It comes back if touched. */
void mica_map_forget(const mica_map *map, size_t offset, size_t size);

/** Appends the file's bytes to buf; refuses more than max bytes. */
bool mica_file_read(const char *path, size_t max, mica_buf *buf, mica_error *err);

typedef struct mica_writer {
    FILE *file;
    char *path, *temporary;
} mica_writer;
bool mica_writer_open(mica_writer *w, const char *path, mica_error *err);
bool mica_writer_write(mica_writer *w, const void *bytes, size_t n, mica_error *err);
/** Flushes, checks and renames into place; on failure the temporary file is gone and the error names the path. */
bool mica_writer_commit(mica_writer *w, mica_error *err);
/** Drops what was written; harmless after commit. */
void mica_writer_abandon(mica_writer *w);

bool mica_is_dir(const char *path);
bool mica_is_file(const char *path);
/** Creates path and its parents; true if it exists already. */
bool mica_mkdirs(const char *path, mica_error *err);
/** "dir/name"; NULL when out of memory. */
char *mica_path_join(const char *dir, const char *name);
/** Removes a folder and the plain files in it (what mica writes is flat). */
void mica_remove_flat_dir(const char *path);
/** $MICA_CACHE, else $XDG_CACHE_HOME/mica, else $HOME/.cache/mica; NULL when none is known or out of memory. */
char *mica_cache_dir(void);
#endif
