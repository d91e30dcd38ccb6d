// SPDX-License-Identifier: Apache-2.0
// From the text of a template to its tree: tokens, nodes, the template itself. Everything lives in the template's arena; while it
// is built, a mica_trun stands for the allocator and the place of errors.
#ifndef MICA_TEXT_TEMPLATE_PARSE_H
#define MICA_TEXT_TEMPLATE_PARSE_H

#include "text/template_value.h"

typedef enum mica_ttoken_kind {
    MICA_TOK_END, MICA_TOK_DATA, MICA_TOK_VARIABLE_BEGIN, MICA_TOK_VARIABLE_END, MICA_TOK_BLOCK_BEGIN, MICA_TOK_BLOCK_END,
    MICA_TOK_NAME, MICA_TOK_STRING, MICA_TOK_NUMBER, MICA_TOK_OPERATOR
} mica_ttoken_kind;

typedef struct mica_ttoken {
    mica_ttoken_kind kind;
    char op[3]; // OPERATOR, as written
    uint32_t line;
    mica_tval value; // DATA, NAME, STRING: a string; NUMBER
} mica_ttoken;

typedef struct mica_ttokens {
    mica_ttoken *items; // the last one is END
    size_t count, capacity;
} mica_ttokens;

/** Cuts source into tokens, as Jinja does with trim_blocks and lstrip_blocks. The caller frees tokens->items, also on failure. */
bool mica_t_tokenize(mica_trun *r, const char *source, size_t size, mica_ttokens *tokens);

typedef enum mica_tnode_kind {
    // expressions
    MICA_N_CONST, MICA_N_NAME, MICA_N_NSREF, MICA_N_TUPLE, MICA_N_LIST, MICA_N_DICT, MICA_N_ATTRIBUTE, MICA_N_ITEM, MICA_N_SLICE,
    MICA_N_CALL, MICA_N_FILTER, MICA_N_TEST, MICA_N_NOT, MICA_N_MINUS, MICA_N_PLUS, MICA_N_AND, MICA_N_OR, MICA_N_CONDITION,
    MICA_N_COMPARE, MICA_N_BINARY, MICA_N_CONCAT,
    // statements
    MICA_N_OUTPUT, MICA_N_FOR, MICA_N_IF, MICA_N_SET, MICA_N_SET_BLOCK, MICA_N_MACRO, MICA_N_CALL_BLOCK, MICA_N_FILTER_BLOCK,
    MICA_N_WITH, MICA_N_SCOPE, MICA_N_BREAK, MICA_N_CONTINUE, MICA_N_LOADS
} mica_tnode_kind;

enum { MICA_N_USES_CALLER = 1, MICA_N_USES_KWARGS = 2, MICA_N_USES_VARARGS = 4 };

typedef struct mica_tnode mica_tnode;
struct mica_tnode {
    mica_tnode_kind kind;
    char op[3];        // BINARY; "in", "ni" (not in) and the comparisons in the operands of COMPARE
    uint8_t uses;      // MACRO, CALL_BLOCK: of the special names
    bool flag;         // FOR: recursive
    uint32_t line;
    uint32_t symbol;   // NAME, NSREF, MACRO: number of the name
    const mica_tstr *name; // NAME, NSREF (its attribute), ATTRIBUTE, FILTER, TEST, MACRO, a keyword argument
    const void *entry; // FILTER, TEST: its row, NULL if there is none of that name
    mica_tval value;   // CONST
    // What these are, by kind:
    //   ITEM a[b]; SLICE a:b:c; CONDITION b if a else c; COMPARE a list; SET target a, value b; SET_BLOCK a, filters b, body list
    //   FOR target a, items b, test c, body list, otherwise d; IF test a, body list, otherwise d; WITH targets a…, values b…
    //   MACRO parameters a… (defaults in their b), body list; CALL_BLOCK parameters a…, call b, body list; FILTER_BLOCK b, list
    mica_tnode *a, *b, *c, *d;
    mica_tnode *list, *next; // children in a row
    size_t count;            // of list
    mica_tnode *named, *star, *star2; // CALL, FILTER, TEST: keyword arguments, *args, **kwargs
};

struct mica_template {
    mica_arena arena;
    char *name, *source;
    size_t source_size;
    mica_tnode *body;         // statements in a row
    mica_strmap symbols;      // name -> number + 1
    uint32_t symbol_count;
    uint32_t loop, caller, kwargs, varargs; // numbers of special names
    char *label;              // "default", "tool_use", …; NULL: a template by itself
    struct mica_template *next; // another of the same model
    mica_error problem;       // why it cannot be rendered, if its code is not OK
    mica_tdict *defaults;     // variables that the context may override, or NULL
};

/** The number of a name, the same for equal names; UINT32_MAX after a failure. */
uint32_t mica_t_symbol(mica_trun *r, struct mica_template *t, const mica_tstr *name);
bool mica_t_parse(mica_trun *r, struct mica_template *t, const mica_ttokens *tokens);

// ---- between expressions and statements ----------------------------------------------------------------------
typedef struct mica_tparser {
    mica_trun *r;
    struct mica_template *t;
    const mica_ttoken *at;
    unsigned depth;
    uint8_t uses; // special names seen in the macro at hand
    unsigned loops; // that the place is in
} mica_tparser;

enum { MICA_T_NESTING = 100 }; // of expressions and of statements

mica_tnode *mica_t_node(mica_tparser *p, mica_tnode_kind kind, uint32_t line);
bool mica_t_syntax(mica_tparser *p, const char *fmt, ...) MICA_PRINTF(2, 3); // false
bool mica_t_at_op(const mica_tparser *p, const char *op);
bool mica_t_at_name(const mica_tparser *p, const char *name);
bool mica_t_skip_op(mica_tparser *p, const char *op);
bool mica_t_skip_name(mica_tparser *p, const char *name);
bool mica_t_expect_op(mica_tparser *p, const char *op);
bool mica_t_expect_name(mica_tparser *p, const char *name);
const mica_tstr *mica_t_any_name(mica_tparser *p);
void mica_t_describe(const mica_ttoken *t, char *text, size_t size);
// Each returns NULL after a failure.
mica_tnode *mica_t_expression(mica_tparser *p, bool with_condition);
/** An expression, or several with commas: a tuple. until: a name that ends it, or NULL. */
mica_tnode *mica_t_tuple(mica_tparser *p, bool with_condition, const char *until, bool in_parentheses);
/** What can be assigned to: a name, a tuple of them, with_namespace: ns.attribute. */
mica_tnode *mica_t_target(mica_tparser *p, const char *until, bool with_namespace);
/** One or more filters applied to node (NULL: what a block holds). `bare`: the first has no | before it. */
mica_tnode *mica_t_filters(mica_tparser *p, mica_tnode *node, bool bare);
#endif
