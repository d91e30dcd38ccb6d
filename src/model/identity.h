// SPDX-License-Identifier: Apache-2.0
// Which model a network is: equal for two loads of the same files, whatever the level of the kernels.
#ifndef MICA_MODEL_IDENTITY_H
#define MICA_MODEL_IDENTITY_H

#include "model/net.h"

/** Of config, sizes and samples of the weights; adapters have their own (lora_set.h). Reads a few rows of the checkpoint; false, with an error, if that fails. */
bool mica_net_identity(const mica_net *net, uint64_t *identity, mica_error *err);
#endif
