// SPDX-License-Identifier: Apache-2.0
// Shared by the files that parse config.json: a reader that looks a field up in text_config first, then at the top.
#ifndef MICA_IO_CONFIG_INTERNAL_H
#define MICA_IO_CONFIG_INTERNAL_H

#include "io/config.h"

typedef struct mica_config_reader {
    mica_config *config;
    const mica_json *text; // the object that describes the text model: text_config, or the root
    const mica_json *root;
    const char *what;
    mica_error *err;
} mica_config_reader;

/** A finite number in [low, high]; absent: otherwise (not checked). object: where to look. */
bool mica_config_number(const mica_config_reader *r, const mica_json *object, const char *key, double otherwise, double low,
                        double high, double *out);
bool mica_config_rope(const mica_config_reader *r);
bool mica_config_quantization(const mica_config_reader *r);
/** Adds the ids of key (a number or a list); *found: the key is there. */
bool mica_config_eos(mica_config *c, const mica_json *object, const char *what, bool *found, mica_error *err);
bool mica_config_generation(mica_config *c, const mica_json *root, const char *what, mica_error *err);
/** attention_factor as transformers derives it when the file has none. */
double mica_rope_attention_factor(const mica_rope_config *rope);
#endif
