// SPDX-License-Identifier: Apache-2.0
// The chat template of a model that is open already.
#ifndef MICA_BACKEND_TEMPLATE_LOAD_H
#define MICA_BACKEND_TEMPLATE_LOAD_H

#include "io/checkpoint.h"
#include "mica/template.h"

/** Whether the model has a chat template; it is not compiled. */
bool mica_template_present(const mica_model_files *ck);
/** The model's chat template into *out, as mica_template_load gives it for its path; NULL there (and true) if it has none. One that
 * is no valid template fails when it is rendered, so that the model can be used without. The template does not refer to the checkpoint
 * afterwards. */
bool mica_template_of_checkpoint(const mica_model_files *ck, mica_template **out, mica_error *err);
#endif
