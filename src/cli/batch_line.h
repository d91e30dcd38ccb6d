// SPDX-License-Identifier: Apache-2.0
// A line of `mica batch`: an object with a prompt and options.
#ifndef MICA_CLI_BATCH_LINE_H
#define MICA_CLI_BATCH_LINE_H

#include "cli/json_read.h"
#include "mica/batch.h"
#include "mica/chat.h"

/** What a line asks for, with the memory that it points to; used again for every line. */
typedef struct mica_cli_request {
    mica_prompt prompt;
    mica_generate_options options;
    char *id; // as it is spelled in the line; the line's number where it has none
    mica_chat chat;
    mica_message *messages;
    int32_t *ids, *stop_ids;
    const char **stop;
    char **owned; // texts
    size_t owned_count;
    char why[200];
} mica_cli_request;

/** Reads a line; options it does not name are those of `defaults`. False, and request->why, if it is wrong: then the id is there if it could be
 * read. */
bool mica_cli_request_read(mica_cli_request *request, const char *line, size_t size, size_t number, const mica_generate_options *defaults);
void mica_cli_request_clear(mica_cli_request *request);
#endif
