// SPDX-License-Identifier: Apache-2.0
// Sizes rounded up. What threads write, and what is read in long runs, begins at a line of the cache: two threads never write to one line, and wide loads
// do not cross two.
#ifndef MICA_BASE_LINES_H
#define MICA_BASE_LINES_H

#include <stddef.h>

enum { MICA_LINE = 64 };

static inline size_t mica_round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
static inline size_t mica_whole_lines(size_t bytes) { return mica_round_up(bytes, MICA_LINE); }
#endif
