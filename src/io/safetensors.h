// SPDX-License-Identifier: Apache-2.0
// safetensors: 8-byte header length, JSON header, data. Reading maps the files and checks every bound before use;
// several shards are one set of names. Writing streams: declare all tensors, begin, put the bytes in that order, commit.
#ifndef MICA_IO_SAFETENSORS_H
#define MICA_IO_SAFETENSORS_H

#include "io/tensor.h"

// ---- reading -------------------------------------------------------------------------------------------
typedef struct mica_safetensors mica_safetensors;

/** Opens one file, or a folder's shards: those named by model.safetensors.index.json if there is one, else every
 * model*.safetensors, else every *.safetensors that is no adapter. Errors name file, tensor and value; a folder
 * without any, or a missing shard, is an error naming it. Free with mica_safetensors_free. */
mica_safetensors *mica_safetensors_open(const char *path, mica_error *err);
void mica_safetensors_free(mica_safetensors *st);
/** Tensors, in the order of the headers, file after file. Borrowed; data of any alignment (see tensor.h). */
size_t mica_safetensors_count(const mica_safetensors *st);
const mica_stored *mica_safetensors_at(const mica_safetensors *st, size_t i);
/** By exact name; NULL if there is none. */
const mica_stored *mica_safetensors_find(const mica_safetensors *st, const char *name);
/** The file that holds a tensor of this set, for messages. */
const char *mica_safetensors_file(const mica_safetensors *st, const mica_stored *t);
/** How many files were opened. */
size_t mica_safetensors_files(const mica_safetensors *st);
/** __metadata__ (strings; of several shards, all of it): value of key, NULL if absent. */
const char *mica_safetensors_metadata(const mica_safetensors *st, const char *key);
/** Drops a tensor's pages from memory (they are read again from the file if touched). */
void mica_safetensors_forget(const mica_safetensors *st, const mica_stored *t);
/** All pages of all files. */
void mica_safetensors_rest(const mica_safetensors *st);

// ---- writing -------------------------------------------------------------------------------------------
typedef struct mica_st_writer mica_st_writer;
typedef struct mica_st_options {
    const char *const *metadata; // key, value, key, value, …, NULL; NULL = {"format":"mlx"}
    uint64_t shard_bytes;        // data bytes of one shard; 0 = 5 GiB. Folders only.
} mica_st_options;

/** path: "….safetensors" for one file, else a folder (made if absent) that gets model.safetensors or
 * model-0000i-of-0000n.safetensors, and model.safetensors.index.json. options may be NULL. */
mica_st_writer *mica_st_writer_new(const char *path, const mica_st_options *options, mica_error *err);
/** Adds a tensor (name is copied). All declarations come before mica_st_writer_begin. */
bool mica_st_writer_declare(mica_st_writer *w, const char *name, mica_dtype dtype, int ndim, const int64_t *shape, mica_error *err);
/** Fixes the shards; no more declarations. */
bool mica_st_writer_begin(mica_st_writer *w, mica_error *err);
/** Appends data: the declared tensors' bytes in declaration order, in pieces of any size. */
bool mica_st_writer_put(mica_st_writer *w, const void *bytes, size_t n, mica_error *err);
/** Puts all files in place under their names. Until then only temporary files exist; a failure removes them. */
bool mica_st_writer_commit(mica_st_writer *w, mica_error *err);
/** Frees; removes what was written unless committed. NULL is fine. */
void mica_st_writer_free(mica_st_writer *w);
#endif
