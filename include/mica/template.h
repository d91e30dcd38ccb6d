// SPDX-License-Identifier: Apache-2.0
// Chat templates: Jinja as `transformers` runs it (immutable sandbox, trim_blocks, lstrip_blocks, loop controls, the
// `generation` tag), equal to it byte for byte. A template is immutable: any number of threads may render it at once. Templates
// are untrusted code: whatever one does, a render ends, within the limits of mica_template_options.
// Not there, and refused where they are used: integers beyond 64 bits, the filters pprint, random, striptags, urlize, wordwrap and
// xmlattr, lipsum, str.encode, str.translate, autoescape, the variable `self`, and tags that load other templates.
#ifndef MICA_TEMPLATE_H
#define MICA_TEMPLATE_H

#include "mica/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mica_template mica_template;

typedef struct mica_template_options {
    const char *name;   // which of a model's templates; default: "tool_use" for a context with tools if there is one, else "default"
    int64_t now;        // what strftime_now shows: seconds since 1970, as UTC; default 0: the clock, in local time
    bool as_given;      // default false: the context is prepared as described at mica_template_render; true: taken as it is
    size_t most_bytes;  // longest text, of the output or of a value; default 64 MiB
    size_t most_memory; // bytes that a render may use; default 512 MiB
    uint64_t most_steps; // operations that a render may take; default 50 million (some seconds)
} mica_template_options;

/** Compiles source[0…length). name: what messages call it ("NAME: line 3: …"); NULL: "template". NULL on error: FORMAT (not a valid
 * template, with its line), NO_MEMORY. The caller frees it with mica_template_free. */
MICA_API mica_template *mica_template_parse(const char *source, size_t length, const char *name, mica_error *err);

/** The chat template of a model: a folder (chat_template.jinja, chat_template.json or tokenizer_config.json; further ones in
 * additional_chat_templates), a .gguf file, or a template by itself (any other file). name: only that one of several; NULL: all of them,
 * for the options of a render to choose from. bos_token, eos_token and the like are variables of it, with the
 * values that the folder or file states. NULL on error: IO, FORMAT, UNSUPPORTED (the model has none, or none of that name). */
MICA_API mica_template *mica_template_load(const char *path, const char *name, mica_error *err);
MICA_API void mica_template_free(mica_template *t);

/** The template's text (of the first, where there are several), borrowed; *size receives its bytes. */
MICA_API const char *mica_template_source(const mica_template *t, size_t *size);

/** Renders with the variables in a JSON object, {"messages":[…],"tools":[…],"add_generation_prompt":true,"vars":{…}}, and appends to
 * text. Unless as_given, the object is taken as the arguments of transformers' apply_chat_template: an empty conversation is
 * refused; members of a message that are null are dropped; "reasoning_content", "thinking" and "reasoning" of a message
 * stand in for one another; tools and documents are none and add_generation_prompt is false where absent; the members of "vars",
 * and all other members, are further variables.
 * marks (may be NULL) receives the spans of the text, in order, that stem from strings of the JSON, for
 * mica_tokenizer_encode_marked. Strings of a variable whose name ends in "_token" are not marked, nor is a "role" that is a common
 * one (system, user, assistant, tool, …).
 * On failure returns false with text and marks as they were: FORMAT (the JSON, or an error of the template, which includes
 * what it raises: "NAME: line 3: message"), UNSUPPORTED, NO_MEMORY (a limit too). */
MICA_API bool mica_template_render(const mica_template *t, const char *json, size_t length, const mica_template_options *options,
                                   mica_text *text, mica_marks *marks, mica_error *err);

#ifdef __cplusplus
}
#endif
#endif
