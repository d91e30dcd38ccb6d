// SPDX-License-Identifier: Apache-2.0
// Reading a file of options: config.c takes members that are options, config_mlx.c those that only mlx-lm's files have, yaml.c makes JSON of YAML.
#ifndef MICA_CLI_CONFIG_H
#define MICA_CLI_CONFIG_H

#include "cli/json_read.h"

typedef struct mica_cli_rates { // mlx-lm's "lr_schedule"
    const char *name; // mica's; NULL: there was none
    double values[3]; // its arguments
    int32_t warmup;
    double warmup_init;
} mica_cli_rates;

typedef struct mica_cli_config {
    const mica_cli_command *command;
    const char *path;
    mica_cli_args *args;
    mica_cli_text key, text; // name of the member at hand; scratch
    mica_cli_rates rates;
} mica_cli_config;

extern const char *const mica_cli_optimizer_names[MICA_CLI_OPTIMIZERS];

/** The member of that name (- for _), where it is one that no option stands for: *known. False after a complaint. */
bool mica_cli_config_mlx(mica_cli_config *c, const char *name, const mica_cli_value *value, bool *known);
/** "optimizer_config" with what it says of the optimiser of that name, as a file of options would; of Adam also betas and eps that nothing said. */
void mica_cli_put_optimizer(mica_cli_json *j, const char *name, const mica_cli_optimizer *o);
/** At the end of the file: what its lr_schedule means, which learning_rate does not change, as with mlx-lm. */
void mica_cli_config_mlx_end(mica_cli_config *c);

/** The JSON that says what a YAML document says; false and a reason otherwise. No tags, anchors or aliases. */
bool mica_cli_yaml_to_json(const char *yaml, size_t n, mica_cli_text *json, char *why, size_t size);
#endif
