// SPDX-License-Identifier: Apache-2.0
// What Python's str knows of characters: classes and changes of case, special ones (one character to several) included.
#ifndef MICA_TEXT_TEMPLATE_UNICODE_H
#define MICA_TEXT_TEMPLATE_UNICODE_H

#include "text/unicode.h"

// mica_uc_init must have been called (templates do so when they are parsed).
static inline bool mica_py_space(uint32_t cp) { return mica_uc_space(cp) || (cp >= 0x1C && cp <= 0x1F); }
static inline bool mica_py_alpha(uint32_t cp) { return mica_uc_in(cp, MICA_UC_L); }
static inline bool mica_py_mark(uint32_t cp) { return mica_uc_in(cp, MICA_UC_M | 1u << MICA_PC); }
static inline bool mica_py_decimal(uint32_t cp) { return mica_uc_in(cp, 1u << MICA_ND); }
bool mica_py_digit(uint32_t cp);
static inline bool mica_py_numeric(uint32_t cp) { return mica_uc_in(cp, MICA_UC_N); }
static inline bool mica_py_alnum(uint32_t cp) { return mica_uc_in(cp, MICA_UC_L | MICA_UC_N); }
bool mica_py_upper_case(uint32_t cp); // has the property
bool mica_py_lower_case(uint32_t cp);
bool mica_py_printable(uint32_t cp);

typedef enum mica_py_case { MICA_PY_UPPER, MICA_PY_LOWER, MICA_PY_TITLE, MICA_PY_FOLD } mica_py_case;
/** The character in another case: 1 to 3 characters; how many. */
size_t mica_py_to_case(uint32_t cp, mica_py_case to, uint32_t out[3]);
#endif
