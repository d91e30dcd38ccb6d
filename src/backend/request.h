// SPDX-License-Identifier: Apache-2.0
// Copies of what a caller asks for, for those who answer later.
#ifndef MICA_BACKEND_REQUEST_H
#define MICA_BACKEND_REQUEST_H

#include "base/base.h"
#include "mica/batch.h"
#include "mica/chat.h"

/** A prompt and options with all that they point to, in the arena. */
bool mica_request_copy(mica_arena *arena, const mica_prompt *prompt, const mica_generate_options *options, mica_request *out, mica_error *err);
#endif
