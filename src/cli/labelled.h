// SPDX-License-Identifier: Apache-2.0
// Texts with the labels they should get (labelled.c).
#ifndef MICA_CLI_LABELLED_H
#define MICA_CLI_LABELLED_H

#include "cli/cli.h"

/** Does the first line of a file of JSON lines have a text and a label? */
bool mica_cli_labelled(const mica_cli_args *args, const char *file);
/** Classifies the texts of a file and reports how many get their label. An exit status. */
int mica_cli_accuracy(const mica_cli_args *args, const char *file);
#endif
