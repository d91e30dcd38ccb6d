// SPDX-License-Identifier: Apache-2.0
// What the trainer asks of optimisers beyond mica/optimizer.h.
#ifndef MICA_TRAIN_OPTIMIZER_H
#define MICA_TRAIN_OPTIMIZER_H

#include "mica/optimizer.h"

/** mica_optimizer_update for `scale` times the gradient. */
bool mica_optimizer_scaled(mica_optimizer *o, mica_scope *s, size_t index, mica_array **parameter, mica_array *gradient, double scale, double rate,
                           mica_error *err);
#endif
