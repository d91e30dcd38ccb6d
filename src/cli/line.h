// SPDX-License-Identifier: Apache-2.0
// Lines typed by a person: editing and history by libedit where the command was built with it, else plain lines.
#ifndef MICA_CLI_LINE_H
#define MICA_CLI_LINE_H

#include "cli/cli.h"

typedef struct mica_cli_line mica_cli_line;
/** prompt: shown before each line. Not a terminal: nothing is shown, lines are read as they are. */
mica_cli_line *mica_cli_line_open(const char *prompt);
typedef enum { MICA_CLI_LINE_END, MICA_CLI_LINE_TEXT, MICA_CLI_LINE_STOPPED } mica_cli_line_status;
/** The next line, without its end. A line that ends with a backslash goes on with the next one. Ctrl-C drops what is typed: STOPPED. */
mica_cli_line_status mica_cli_line_read(mica_cli_line *line, mica_cli_text *text);
void mica_cli_line_close(mica_cli_line *line);
#endif
