// SPDX-License-Identifier: Apache-2.0
// What loading adds to a parsed template: variables with the values of the model, another template for contexts with tools.
#ifndef MICA_TEXT_TEMPLATE_H
#define MICA_TEXT_TEMPLATE_H

#include "mica/template.h"

/** A variable that a context may override; strings of these are never marked. */
bool mica_template_set_default(mica_template *t, const char *name, const char *value, size_t size, mica_error *err);
/** The template that is rendered instead of t when the context has tools; t takes it over. */
void mica_template_set_tool_use(mica_template *t, mica_template *with_tools);
#endif
