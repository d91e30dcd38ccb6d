// SPDX-License-Identifier: Apache-2.0
// The compiled cache: tables as one file in mica's cache folder, named by the content that they were built from. It is
// an optimisation that may fail silently, and its files are not trusted: they are checked in full before use.
#ifndef MICA_TEXT_CACHE_H
#define MICA_TEXT_CACHE_H

#include "text/tables.h"

typedef struct mica_cache_key {
    uint64_t hash, second, size; // of the source's bytes
} mica_cache_key;

mica_cache_key mica_cache_key_of(const void *bytes, size_t n);
/** Continues a key with more bytes, for sources in several parts. */
mica_cache_key mica_cache_key_add(mica_cache_key key, const void *bytes, size_t n);

/** Maps the cached tables; false if there are none, or none that hold. */
bool mica_cache_load(mica_tables *t, const mica_cache_key *key);
void mica_cache_save(const mica_tables *t, const mica_cache_key *key);

// What a file holds, for the functions above and for tests.
/** The image of a cache file; NULL when out of memory. The caller frees it. */
unsigned char *mica_cache_image(const mica_tables *t, const mica_cache_key *key, size_t *size);
/** Writes the checksum of an image of at least a header's size. */
void mica_cache_seal(unsigned char *image, size_t n);
/** Checks an image and points t into it (t->map is not set). */
bool mica_cache_open(mica_tables *t, const unsigned char *image, size_t n, const mica_cache_key *key);
#endif
