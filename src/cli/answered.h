// SPDX-License-Identifier: Apache-2.0
// The ids that a file of answers has, so that work can be taken up again.
#ifndef MICA_CLI_ANSWERED_H
#define MICA_CLI_ANSWERED_H

#include "cli/cli.h"

typedef struct mica_cli_answered {
    char **slots; // open addressing
    size_t count, capacity;
} mica_cli_answered;

/** Opens a file of JSON lines to append to, and reads the ids of its lines that have neither an error nor a cut-off answer. A last line without its
 * end, left by a kill, is removed. NULL after a complaint. */
FILE *mica_cli_answered_open(mica_cli_answered *a, const char *path);
/** id: as JSON spells it. */
bool mica_cli_answered_has(const mica_cli_answered *a, const char *id);
void mica_cli_answered_free(mica_cli_answered *a);
#endif
