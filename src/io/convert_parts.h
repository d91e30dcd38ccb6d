// SPDX-License-Identifier: Apache-2.0
// The pieces of a conversion: what is being made, and the writers of config.json and of the tokenizer files.
#ifndef MICA_IO_CONVERT_PARTS_H
#define MICA_IO_CONVERT_PARTS_H

#include "io/checkpoint.h"
#include "io/adapter.h"
#include "io/gguf.h"
#include "mica/convert.h"

typedef struct mica_conversion {
    const mica_model_files *source;
    const mica_config *config;
    bool quantize;
    mica_quant_spec spec;
    bool own_quant;    // each weight is quantised as it was in the source; quantize and spec are not used
    bool untied;       // the embedding has been changed and the head has not
    bool cast;         // to dtype; otherwise every tensor keeps its own type
    mica_dtype dtype;
    const char *folder; // the temporary folder being filled
} mica_conversion;

/** Is this a multi-modal gemma3 file, whose text model lies under text_config and language_model? */
bool mica_conversion_nested(const mica_config *c);
bool mica_convert_config(const mica_conversion *v, mica_error *err);
/** tokenizer.json, tokenizer_config.json and chat_template.jinja from a GGUF vocabulary. */
bool mica_convert_gguf_tokenizer(const mica_gguf *g, const mica_config *config, const char *folder, mica_error *err);
/** Everything a dense model's folder holds beside its weights: config.json, which says dtype, and the tokenizer's files. */
bool mica_convert_beside(const mica_model_files *source, mica_dtype dtype, const char *folder, mica_error *err);
/** Writes folder/name. */
bool mica_convert_write(const char *folder, const char *name, const void *bytes, size_t size, mica_error *err);
#endif
