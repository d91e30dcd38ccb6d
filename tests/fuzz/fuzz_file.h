// SPDX-License-Identifier: Apache-2.0
// For harnesses of parsers that map files: the input as a file in memory, named through /proc.
#ifndef MICA_FUZZ_FILE_H
#define MICA_FUZZ_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FUZZ_PATH = 64 };

/** One file in memory serves all inputs. */
static inline void fuzz_file(const uint8_t *data, size_t size, char path[FUZZ_PATH]) {
    static int fd = -1;
    if (fd < 0) fd = memfd_create("input", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size) abort();
    snprintf(path, FUZZ_PATH, "/proc/self/fd/%d", fd);
}

/** Reads every byte, so that a range outside its mapping faults. */
static inline void fuzz_touch(const void *data, size_t n) {
    volatile unsigned sum = 0;
    for (size_t i = 0; i < n; i++) sum = sum + ((const unsigned char *)data)[i];
}
#endif
