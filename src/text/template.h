// SPDX-License-Identifier: Apache-2.0
// What loading adds to a parsed template: variables with the values of the model, further templates of the same model.
#ifndef MICA_TEXT_TEMPLATE_H
#define MICA_TEXT_TEMPLATE_H

#include "mica/template.h"

/** A variable that a context may override; strings of these are never marked. */
bool mica_template_set_default(mica_template *t, const char *name, const char *value, size_t size, mica_error *err);
/** A template that could not be compiled: whoever renders it gets this error. */
mica_template *mica_template_broken(const mica_error *problem, mica_error *err);
/** The label of t among the templates of a model. */
bool mica_template_set_label(mica_template *t, const char *label, mica_error *err);
/** Another template of the model, which has a label; t takes it over. */
void mica_template_add(mica_template *t, mica_template *other);
#endif
