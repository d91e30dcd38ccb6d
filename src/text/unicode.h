// SPDX-License-Identifier: Apache-2.0
// Properties of code points as the reference (Hugging Face tokenizers 0.23) knows them, and normal forms. The table is
// generated (scripts/make_unicode_tables.py); it is expanded once per process, on first use, for fast look-up.
#ifndef MICA_TEXT_UNICODE_H
#define MICA_TEXT_UNICODE_H

#include "base/base.h"

enum {
    MICA_CN, MICA_LU, MICA_LL, MICA_LT, MICA_LM, MICA_LO, MICA_MN, MICA_MC, MICA_ME, MICA_ND, MICA_NL, MICA_NO, MICA_PC,
    MICA_PD, MICA_PS, MICA_PE, MICA_PI, MICA_PF, MICA_PO, MICA_SM, MICA_SC, MICA_SK, MICA_SO, MICA_ZS, MICA_ZL, MICA_ZP,
    MICA_CC, MICA_CF, MICA_CS, MICA_CO
};

enum { // beside the category in the low 5 bits
    MICA_UC_PUNCTUATION = 1 << 5, // the Punctuation pre-tokenizer's idea
    MICA_UC_WORD = 1 << 6,        // \w of the Whitespace pre-tokenizer and of single_word
    MICA_UC_DIGIT = 1 << 7,       // the Digits pre-tokenizer's idea
    MICA_UC_NEW = 1 << 8,         // another category than in Unicode 14
    MICA_UC_BARRIER = 1 << 9,     // normalises, but the reference's older tables do not know it
    MICA_UC_MARK = 1 << 10,       // StripAccents drops it
    MICA_UC_RECOMPOSES = 1 << 11  // is not its own NFC
};

/** Must have been called once before mica_uc; cheap afterwards, safe from any thread. */
void mica_uc_init(void);
extern uint16_t mica_uc_low[0x20000];
uint16_t mica_uc_high(uint32_t cp);

/** Category and flags of a code point. */
static inline uint16_t mica_uc(uint32_t cp) { return cp < 0x20000 ? mica_uc_low[cp] : mica_uc_high(cp); }
static inline uint32_t mica_uc_category(uint32_t cp) { return mica_uc(cp) & 31u; }
static inline bool mica_uc_in(uint32_t cp, uint32_t category_set) { return category_set >> mica_uc_category(cp) & 1u; }

#define MICA_UC_L (1u << MICA_LU | 1u << MICA_LL | 1u << MICA_LT | 1u << MICA_LM | 1u << MICA_LO)
#define MICA_UC_M (1u << MICA_MN | 1u << MICA_MC | 1u << MICA_ME)
#define MICA_UC_N (1u << MICA_ND | 1u << MICA_NL | 1u << MICA_NO)
#define MICA_UC_Z (1u << MICA_ZS | 1u << MICA_ZL | 1u << MICA_ZP)

/** White_Space: what \s is. */
static inline bool mica_uc_space(uint32_t cp) {
    if (cp < 0x80) return cp == ' ' || (cp >= 9 && cp <= 13);
    return cp == 0x85 || mica_uc_in(cp, MICA_UC_Z);
}

/** Rust's char::to_lowercase; returns how many code points (1 or 2) it wrote. */
size_t mica_uc_lower(uint32_t cp, uint32_t out[2]);

typedef enum { MICA_NFC, MICA_NFD, MICA_NFKC, MICA_NFKD } mica_normal_form;
/** Appends the normal form of valid UTF-8; false when out of memory. */
bool mica_uc_normalize(const char *s, size_t n, mica_normal_form form, mica_buf *out);
#endif
