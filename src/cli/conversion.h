// SPDX-License-Identifier: Apache-2.0
// What the commands that make a model folder share: their options, a bar on stderr, Ctrl-C, what is said of the result.
#ifndef MICA_CLI_CONVERSION_H
#define MICA_CLI_CONVERSION_H

#include "cli/cmd.h"
#include "mica/convert.h"

typedef struct mica_cli_conversion {
    mica_convert_options options; // progress_ctx points back here: the struct must stay where it is
    bool shown;                   // the bar
    double started;
} mica_cli_conversion;

/** Reads the options and begins to note Ctrl-C. False after a complaint about the usage of `command`. */
bool mica_cli_conversion_begin(mica_cli_conversion *c, const mica_cli_args *args, const char *command);
/** Removes the bar and ends what began; ok: whether it went well. Gives the exit status, after a complaint if it did not. */
int mica_cli_conversion_end(mica_cli_conversion *c, bool ok, const char *command, const mica_error *err);
/** Says on stdout what is in the folder; with --json members of the object at hand, otherwise j is not used. False after a complaint. */
bool mica_cli_conversion_report(const mica_cli_conversion *c, const mica_cli_args *args, const char *dst, mica_cli_json *j);
#endif
