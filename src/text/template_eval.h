// SPDX-License-Identifier: Apache-2.0
// Running a tree: scopes, expressions, statements.
#ifndef MICA_TEXT_TEMPLATE_EVAL_H
#define MICA_TEXT_TEMPLATE_EVAL_H

#include "text/template_filters.h"
#include "text/template_parse.h"

typedef struct mica_tscope {
    struct mica_tscope *parent;
    struct mica_tvar {
        uint32_t symbol;
        mica_tval value;
    } *vars;
    size_t count, capacity;
} mica_tscope;

mica_tscope *mica_t_scope(mica_trun *r, mica_tscope *parent);
bool mica_t_define(mica_trun *r, mica_tscope *s, uint32_t symbol, mica_tval v);

bool mica_t_eval(mica_trun *r, const mica_tnode *n, mica_tval *out);
/** The arguments of a call, filter or test. extra (or NULL): a keyword argument more, named `caller`. */
bool mica_t_eval_arguments(mica_trun *r, const mica_tnode *n, const mica_tval *extra, mica_targs *out);
/** Applies the filters of n to v, in whose place n has NULL. */
bool mica_t_eval_filters(mica_trun *r, const mica_tnode *n, mica_tval v, mica_tval *out);

typedef enum mica_tflow { MICA_T_FAILED, MICA_T_NEXT, MICA_T_BREAK, MICA_T_CONTINUE } mica_tflow;
mica_tflow mica_t_exec(mica_trun *r, const mica_tnode *statements);
#endif
