// SPDX-License-Identifier: Apache-2.0
// Files on POSIX. Errors carry the path and the system's reason.
#include "base/file.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_plain_file(const char *path, struct stat *st, mica_error *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return mica_fail_errno(err, "open", path), -1;
    if (fstat(fd, st) == 0 && S_ISREG(st->st_mode)) return fd;
    mica_fail(err, MICA_ERR_IO, "%s: not a regular file", path);
    close(fd);
    return -1;
}

bool mica_map_open(mica_map *map, const char *path, mica_error *err) {
    *map = (mica_map){0};
    struct stat st;
    int fd = open_plain_file(path, &st, err);
    if (fd < 0) return false;
    size_t size = (size_t)st.st_size;
    void *data = size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    if (data == MAP_FAILED) mica_fail_errno(err, "map", path);
    close(fd);
    if (data == MAP_FAILED) return false;
    *map = (mica_map){data, size};
    return true;
}

void mica_map_close(mica_map *map) {
    if (map->data) munmap((void *)(uintptr_t)map->data, map->size);
    *map = (mica_map){0};
}

void mica_map_forget(const mica_map *map, size_t offset, size_t size) {
    enum { AROUND = 2 << 20 }; // most that one fault maps
    uintptr_t start = (uintptr_t)map->data, from = (start + offset) & ~(uintptr_t)(AROUND - 1);
    uintptr_t to = (start + offset + size + AROUND - 1) & ~(uintptr_t)(AROUND - 1);
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), end = (start + map->size + page - 1) / page * page;
    from = from < start ? start : from, to = to > end ? end : to;
    if (map->data && size && to > from) madvise((void *)from, to - from, MADV_DONTNEED);
}

bool mica_file_read(const char *path, size_t max, mica_buf *buf, mica_error *err) {
    struct stat st;
    int fd = open_plain_file(path, &st, err);
    if (fd < 0) return false;
    bool ok = true;
    size_t total = 0;
    for (;;) {
        if (!mica_buf_reserve(buf, 65536)) { ok = mica_fail_memory(err, buf->len + 65536, path); break; }
        ssize_t n = read(fd, buf->data + buf->len, 65536);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) { ok = mica_fail_errno(err, "read", path); break; }
        if (n == 0) break;
        buf->len += (size_t)n, total += (size_t)n;
        buf->data[buf->len] = 0;
        if (total > max) { ok = mica_fail(err, MICA_ERR_FORMAT, "%s: larger than %zu bytes", path, max); break; }
    }
    close(fd);
    return ok;
}

bool mica_writer_open(mica_writer *w, const char *path, mica_error *err) {
    *w = (mica_writer){.path = mica_strdup(path), .temporary = mica_strf("%s.%ld.tmp", path, (long)getpid())};
    if (!w->path || !w->temporary) {
        mica_writer_abandon(w);
        return mica_fail_memory(err, strlen(path), "a file name");
    }
    w->file = fopen(w->temporary, "wbe");
    if (w->file) return true;
    mica_fail_errno(err, "create", path);
    mica_writer_abandon(w);
    return false;
}

bool mica_writer_write(mica_writer *w, const void *bytes, size_t n, mica_error *err) {
    return !n || fwrite(bytes, 1, n, w->file) == n || mica_fail_errno(err, "write", w->path);
}

bool mica_writer_commit(mica_writer *w, mica_error *err) {
    bool ok = fflush(w->file) == 0 && fsync(fileno(w->file)) == 0;
    int saved = errno;
    if (fclose(w->file) && ok) ok = false, saved = errno;
    w->file = NULL;
    errno = saved;
    if (!ok) mica_fail_errno(err, "write", w->path);
    else if (rename(w->temporary, w->path)) ok = mica_fail_errno(err, "rename into place", w->path);
    else mica_free(w->temporary), w->temporary = NULL;
    mica_writer_abandon(w);
    return ok;
}

void mica_writer_abandon(mica_writer *w) {
    if (w->file) fclose(w->file);
    if (w->temporary) unlink(w->temporary);
    mica_free(w->temporary);
    mica_free(w->path);
    *w = (mica_writer){0};
}

bool mica_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool mica_is_file(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool mica_mkdirs(const char *path, mica_error *err) {
    char *p = mica_strdup(path);
    if (!p) return mica_fail_memory(err, strlen(path), "a folder name");
    bool ok = true;
    for (char *s = p + 1; ok && *s; s++) {
        if (*s != '/') continue;
        *s = 0;
        ok = mkdir(p, 0777) == 0 || errno == EEXIST;
        *s = '/';
    }
    ok = ok && (mkdir(p, 0777) == 0 || (errno == EEXIST && mica_is_dir(path)));
    if (!ok) mica_fail_errno(err, "create folder", path);
    mica_free(p);
    return ok;
}

char *mica_path_join(const char *dir, const char *name) {
    size_t n = strlen(dir);
    return mica_strf("%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}

void mica_remove_flat_dir(const char *path) {
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) unlinkat(dirfd(d), e->d_name, 0);
    if (d) closedir(d);
    rmdir(path);
}

char *mica_cache_dir(void) {
    const char *own = getenv("MICA_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (own && *own) return mica_strdup(own);
    if (xdg && *xdg) return mica_path_join(xdg, "mica");
    return home && *home ? mica_path_join(home, ".cache/mica") : NULL;
}
