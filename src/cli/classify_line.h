// SPDX-License-Identifier: Apache-2.0
// A line of `mica classify`: a text, as it is, in JSON, or a field of a line of CSV.
#ifndef MICA_CLI_CLASSIFY_LINE_H
#define MICA_CLI_CLASSIFY_LINE_H

#include "cli/json_read.h"

typedef struct mica_cli_text_form {
    bool json;
    int32_t field; // of a line whose fields are separated by commas, from 1; 0: the line is the text
} mica_cli_text_form;

typedef struct mica_cli_text_line {
    char *text, *id; // text NULL: the line is wrong; id: as JSON spells it, NULL if there is none
    char why[120];
    size_t number;
} mica_cli_text_line;

/** Reads a NUL-terminated line; what *out held is overwritten. False, and out->why, if it is wrong. */
bool mica_cli_text_line_read(mica_cli_text_line *out, const char *line, size_t size, size_t number, mica_cli_text_form form);
void mica_cli_text_line_clear(mica_cli_text_line *line);
#endif
