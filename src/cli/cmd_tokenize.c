// SPDX-License-Identifier: Apache-2.0
// `mica tokenize`: text to ids and back; one text, or with --jsonl a JSON value a line, streamed.
#include "cli/cli.h"
#include "mica/tokenizer.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// One job: the tokenizer, the options of both directions and the buffers that are used again for each line.
typedef struct job {
    mica_tokenizer *tokenizer;
    mica_encode_options encode;
    mica_decode_options decode;
    mica_ids ids;
    mica_text text;
} job;

static bool encode(job *t, const char *s, size_t n, mica_error *err) {
    t->ids.len = 0;
    return mica_tokenizer_encode(t->tokenizer, s, n, &t->encode, &t->ids, err);
}

static bool decode(job *t, const mica_cli_ints *ids, mica_error *err) {
    t->text.len = 0;
    return mica_tokenizer_decode(t->tokenizer, ids->items, ids->count, &t->decode, &t->text, err);
}

// ---- one text ------------------------------------------------------------------------------------------
/** The text that id stands for alone, in JSON's spelling so that it stays on its line. */
static void print_piece(job *t, int32_t id, mica_cli_json *j) {
    size_t size = 0;
    const char *token = mica_tokenizer_token(t->tokenizer, id, &size);
    mica_cli_json_text(j, NULL, token ? token : "", token ? size : 0);
}

static void print_ids(job *t, const mica_cli_args *args) {
    mica_cli_json j = {.out = stdout};
    if (args->json) {
        mica_cli_json_open(&j, NULL, '{');
        mica_cli_json_ints(&j, "ids", t->ids.data, t->ids.len);
        mica_cli_json_open(&j, "tokens", '[');
        for (size_t i = 0; i < t->ids.len; i++) print_piece(t, t->ids.data[i], &j);
        mica_cli_json_close(&j, ']');
        mica_cli_json_close(&j, '}');
        mica_cli_json_end(&j);
    } else if (args->pieces) {
        for (size_t i = 0; i < t->ids.len; i++, mica_cli_json_end(&j)) printf("%d\t", t->ids.data[i]), print_piece(t, t->ids.data[i], &j);
    } else {
        for (size_t i = 0; i < t->ids.len; i++) printf(i ? " %d" : "%d", t->ids.data[i]);
        putchar('\n');
    }
}

static void print_text(const job *t, const mica_cli_args *args) {
    if (args->json) {
        mica_cli_json j = {.out = stdout};
        mica_cli_json_open(&j, NULL, '{');
        mica_cli_json_text(&j, "text", t->text.data, t->text.len);
        mica_cli_json_close(&j, '}');
        mica_cli_json_end(&j);
    } else {
        if (t->text.len) fwrite(t->text.data, 1, t->text.len, stdout);
        putchar('\n');
    }
}

static int decode_one(job *t, const mica_cli_args *args, const char *list) {
    mica_error err = {0};
    mica_cli_ints ids = {0};
    int status = MICA_EXIT_DONE;
    const char *open = strchr(list, '['), *close = open ? strrchr(list, ']') : NULL; // a JSON array is welcome too
    char *inner = open && close > open ? strndup(open + 1, (size_t)(close - open - 1)) : NULL;
    if (!mica_cli_read_ints(inner ? inner : list, INT32_MIN, INT32_MAX, &ids)) status = mica_cli_fail("tokenize: expected token ids such as 1,2,3");
    else if (!decode(t, &ids, &err)) status = mica_cli_fail_error("tokenize", &err);
    else print_text(t, args);
    free(inner);
    free(ids.items);
    return status;
}

static int one(job *t, const mica_cli_args *args) {
    mica_cli_text input = {0};
    mica_error err = {0};
    int status = MICA_EXIT_DONE;
    if (args->word_count > 1) mica_cli_append(&input, args->words[1], strlen(args->words[1]));
    else if (!mica_cli_read_stdin(args, args->decode ? "the ids" : "the text", &input)) status = MICA_EXIT_FAILED;
    if (status == MICA_EXIT_DONE) {
        if (args->decode) status = decode_one(t, args, input.data);
        else if (encode(t, input.data, input.size, &err)) print_ids(t, args);
        else status = mica_cli_fail_error("tokenize", &err);
    }
    free(input.data);
    return status;
}

// ---- lines of JSON -----------------------------------------------------------------------------------------
/** An array of ids as JSON, without going through printf: this is the inner loop of a large job. */
static void put_ids(const mica_ids *ids) {
    putc_unlocked('[', stdout);
    for (size_t i = 0; i < ids->len; i++) {
        char digits[12], *end = digits + sizeof digits, *s = end;
        uint32_t v = (uint32_t)ids->data[i];
        do *--s = (char)('0' + v % 10);
        while (v /= 10);
        if (i) putc_unlocked(',', stdout);
        fwrite_unlocked(s, 1, (size_t)(end - s), stdout);
    }
    fputs_unlocked("]\n", stdout);
}

/** "[1,2]" into ids. */
static bool read_array(char *line, mica_cli_ints *ids) {
    char *s = line + strspn(line, " \t\r"), *end = s + strlen(s);
    while (end > s && strchr(" \t\r", end[-1])) end--;
    if (end - s < 2 || *s != '[' || end[-1] != ']') return false;
    end[-1] = 0;
    return mica_cli_read_ints(s + 1, INT32_MIN, INT32_MAX, ids);
}

/** One line; false with the reason in err. */
static bool convert_line(job *t, const mica_cli_args *args, mica_cli_text *line, mica_cli_text *scratch, mica_cli_ints *ids, mica_error *err) {
    const char *why = memchr(line->data, 0, line->size) ? "a NUL byte in the line" : NULL;
    if (!why && !args->decode && mica_cli_read_json_string(line->data, scratch, &why)) {
        if (!encode(t, scratch->data, scratch->size, err)) return false;
        return put_ids(&t->ids), true;
    }
    if (!why && args->decode) {
        if (!read_array(line->data, ids)) why = "expected a JSON array of ids";
        else if (!decode(t, ids, err)) return false;
        else {
            mica_cli_json j = {.out = stdout};
            mica_cli_json_text(&j, NULL, t->text.data ? t->text.data : "", t->text.len);
            mica_cli_json_end(&j);
        }
    }
    if (why) snprintf(err->msg, sizeof err->msg, "%s", why);
    return !why;
}

static int lines(job *t, const mica_cli_args *args) {
    mica_cli_text line = {0}, scratch = {0};
    mica_cli_ints ids = {0};
    mica_error err = {0};
    struct stat st;
    bool from_file = fstat(STDIN_FILENO, &st) == 0 && S_ISREG(st.st_mode); // else someone may wait for each answer
    int status = MICA_EXIT_DONE;
    if (from_file) mica_cli_watch_flag(); // then no read can block: Ctrl-C may wait for the end of a line
    for (size_t number = 1; status == MICA_EXIT_DONE && !mica_cli_output_lost() && mica_cli_read_line(&line); number++) {
        if (mica_cli_stopped()) status = MICA_EXIT_STOPPED;
        else if (!convert_line(t, args, &line, &scratch, &ids, &err)) status = mica_cli_fail("stdin, line %zu: %s", number, err.msg);
        if (!from_file) fflush(stdout);
    }
    if (ferror(stdin)) status = mica_cli_fail("stdin: cannot read");
    free(line.data);
    free(scratch.data);
    free(ids.items);
    return status;
}

static int run(const mica_cli_args *args) {
    if (args->jsonl && args->word_count > 1) return mica_cli_usage("tokenize", "--jsonl reads stdin: give no TEXT");
    char *path = mica_cli_model_path(args->words[0]);
    if (!path) return MICA_EXIT_FAILED;
    mica_error err = {0};
    job t = {.tokenizer = mica_tokenizer_load(path, &err),
             .encode = {.no_special_tokens = args->no_special_tokens, .plain = args->plain},
             .decode = {.skip_special = args->no_special_tokens}};
    int status;
    if (!t.tokenizer) status = mica_cli_fail_error(path, &err);
    else status = args->jsonl ? lines(&t, args) : one(&t, args);
    mica_ids_free(&t.ids);
    mica_text_free(&t.text);
    mica_tokenizer_free(t.tokenizer);
    free(path);
    return status;
}

#define AT(field) offsetof(mica_cli_args, field)
static const mica_cli_option options[] = {
    {"decode", 0, MICA_CLI_FLAG, AT(decode), 0, 0, NULL, "the reverse: ids to text"},
    {"jsonl", 0, MICA_CLI_FLAG, AT(jsonl), 0, 0, NULL, "each line of stdin is a JSON string, each line of stdout a JSON array of ids"},
    {"no-special-tokens", 0, MICA_CLI_FLAG, AT(no_special_tokens), 0, 0, NULL,
     "add no BOS or EOS; with --decode: leave special tokens out"},
    {"plain", 0, MICA_CLI_FLAG, AT(plain), 0, 0, NULL, "read control tokens spelled out in the text as ordinary text"},
    {"pieces", 0, MICA_CLI_FLAG, AT(pieces), 0, 0, NULL, "a line a token: its id and its spelling"},
    {.name = NULL},
};

const mica_cli_command mica_cli_tokenize = {
    .name = "tokenize",
    .synopsis = "MODEL [TEXT]",
    .summary = "text to token ids and back",
    .description =
        "Prints the ids of TEXT, or of stdin, on one line; with --decode TEXT is a list of ids and the text is printed.\n"
        "MODEL may also be a tokenizer.json. With --json: {\"ids\",\"tokens\"}, or {\"text\"} when decoding.",
    .example = "mica tokenize smollm2-135m \"Hello, world\" --pieces\n"
               "mica tokenize smollm2-135m --decode 19556,28,905\n"
               "mica tokenize smollm2-135m --jsonl < texts.jsonl > ids.jsonl",
    .min_words = 1,
    .max_words = 2,
    .groups = MICA_CLI_COMMON,
    .options = options,
    .run = run,
};
