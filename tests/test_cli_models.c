// SPDX-License-Identifier: Apache-2.0
// The command with real (tiny) models: shapes of the JSON, text streamed and collected, sampling options, Ctrl-C, a
// closed pipe, conversion and what it leaves behind.
#include "spawn.h"
#include "base/base.h"
#include "base/file.h"
#include "base/json.h"
#include <math.h>

#define MODEL MICA_SOURCE_DIR "/tests/golden/models/llama-f32"
#define PACKED MICA_SOURCE_DIR "/tests/golden/quant/llama-4bit-g64"

static const mica_json *json_of(mica_arena *arena, const spawned *s) {
    assert_done(s);
    mica_error err = {0};
    const mica_json *v = mica_json_parse(arena, s->text[0], s->size[0], "stdout", &err);
    if (!v) fail_msg("%s in: %s", err.msg, s->text[0]);
    return v;
}

static void assert_metrics(const mica_json *v) {
    static const char *const keys[] = {"load_seconds", "prompt_tokens", "cached_tokens", "generated_tokens", "drafted_tokens", "accepted_tokens", "prefill_seconds",
                                       "decode_seconds", "total_seconds", "time_to_first_token_seconds", "prefill_tokens_per_second",
                                       "decode_tokens_per_second", "active_memory_bytes", "peak_memory_bytes"};
    const mica_json *metrics = mica_json_get(v, "metrics");
    for (size_t i = 0; i < MICA_COUNT(keys); i++) {
        const mica_json *m = mica_json_get(metrics, keys[i]);
        if (!m || (m->type != MICA_JSON_INT && m->type != MICA_JSON_FLOAT)) fail_msg("metrics: no %s", keys[i]);
        assert_true(m->number >= 0);
    }
}

static void assert_same_run(const spawned *a, const spawned *b) {
    mica_arena arena = {0};
    const mica_json *va = json_of(&arena, a), *vb = json_of(&arena, b);
    assert_string_equal(mica_json_get(va, "text")->string, mica_json_get(vb, "text")->string);
    const mica_json *x = mica_json_get(va, "ids")->child, *y = mica_json_get(vb, "ids")->child;
    for (; x && y; x = x->next, y = y->next) assert_int_equal(x->integer, y->integer);
    assert_true(!x && !y);
    mica_arena_free(&arena);
}

// ---- generate ----------------------------------------------------------------------------------------------
static void generate_json(void **state) {
    (void)state;
    mica_arena arena = {0};
    spawned s = RUN("generate", MODEL, "Hello", "--json", "-n", "8", "--ignore-eos");
    const mica_json *v = json_of(&arena, &s);
    assert_int_equal(mica_json_get(v, "ids")->length, 8);
    assert_true(mica_json_get(v, "prompt_ids")->length > 0);
    assert_int_equal(mica_json_get(v, "text")->type, MICA_JSON_STRING);
    assert_string_equal(mica_json_get(v, "finish_reason")->string, "length");
    assert_metrics(v);
    const mica_json *metrics = mica_json_get(v, "metrics");
    assert_int_equal(mica_json_get(metrics, "generated_tokens")->integer, 8);
    assert_int_equal((size_t)mica_json_get(metrics, "prompt_tokens")->integer, mica_json_get(v, "prompt_ids")->length);
    assert_string_equal(s.text[1], "");
    spawned again = RUN_INPUT("Hello", 5, "generate", MODEL, "--json", "-n", "8", "--ignore-eos");
    assert_same_run(&s, &again);
    spawn_free(&s), spawn_free(&again);
    mica_arena_free(&arena);
}

/** The same text, streamed: with a newline at its end if it has none. */
static void generate_text(void **state) {
    (void)state;
    mica_arena arena = {0};
    spawned json = RUN("generate", MODEL, "Hello", "--json", "-n", "12", "--ignore-eos"),
            text = RUN("generate", MODEL, "Hello", "-n", "12", "--ignore-eos", "--stats");
    const mica_json *want = mica_json_get(json_of(&arena, &json), "text");
    assert_done(&text);
    assert_memory_equal(text.text[0], want->string, want->length);
    assert_true(text.size[0] - want->length <= 1);
    assert_non_null(strstr(text.text[1], "tokens/s"));
    spawn_free(&json), spawn_free(&text);
    mica_arena_free(&arena);
}

static void generate_from_ids(void **state) {
    (void)state;
    mica_arena arena = {0};
    spawned s = RUN("generate", MODEL, "--ids", "5,6,7", "--json", "-n", "4", "--ignore-eos", "--logprobs", "3");
    const mica_json *v = json_of(&arena, &s), *prompt = mica_json_get(v, "prompt_ids"), *logprobs = mica_json_get(v, "logprobs");
    assert_int_equal(prompt->length, 3);
    assert_int_equal(prompt->child->integer, 5);
    assert_int_equal(logprobs->length, 4);
    const mica_json *first = logprobs->child, *top = mica_json_get(first, "top");
    assert_int_equal(top->length, 3);
    assert_true(fabs(mica_json_at(top->child, 1)->number - mica_json_get(first, "logprob")->number) < 1e-6); // greedy
    assert_int_equal(top->child->child->integer, mica_json_get(first, "id")->integer);
    spawn_free(&s);
    mica_arena_free(&arena);
    assert_failed(RUN("generate", MODEL, "--ids", ""), 1, "generate");
    assert_failed(RUN("generate", MODEL, "--ids", "100000"), 1, "100000");
}

static void generate_seeds(void **state) {
    (void)state;
    const char *const words[] = {"generate", MODEL, "Hello", "--json", "-n", "16", "--ignore-eos", "--temp", "1.5", "--seed", "7", NULL};
    spawned a = spawn_run("", 0, words), b = spawn_run("", 0, words);
    assert_same_run(&a, &b);
    spawned c = RUN("generate", MODEL, "Hello", "--json", "-n", "16", "--ignore-eos", "--temp", "1.5", "--seed", "8");
    mica_arena arena = {0};
    assert_string_not_equal(mica_json_get(json_of(&arena, &a), "text")->string, mica_json_get(json_of(&arena, &c), "text")->string);
    mica_arena_free(&arena);
    spawn_free(&a), spawn_free(&b), spawn_free(&c);
}

/** A bias forces one token; its text as a stop string then ends the answer before it. */
static void generate_stops(void **state) {
    (void)state;
    mica_arena arena = {0};
    spawned s = RUN("generate", MODEL, "Hello", "--json", "-n", "3", "--logit-bias", "70=1000");
    const mica_json *v = json_of(&arena, &s), *text = mica_json_get(v, "text");
    assert_int_equal(mica_json_get(v, "ids")->child->integer, 70);
    assert_int_equal(text->length % 3, 0);
    char piece[64];
    snprintf(piece, sizeof piece, "%.*s", (int)text->length / 3, text->string);
    spawned stopped = RUN("generate", MODEL, "Hello", "--json", "-n", "3", "--logit-bias", "70=1000", "--stop", "nothing", "--stop", piece);
    v = json_of(&arena, &stopped);
    assert_string_equal(mica_json_get(v, "text")->string, "");
    assert_string_equal(mica_json_get(v, "finish_reason")->string, "stop");
    spawn_free(&s), spawn_free(&stopped);
    mica_arena_free(&arena);
}

static void generate_refuses(void **state) {
    (void)state;
    assert_failed(RUN("generate", MODEL, "Hello there, you", "--context", "4"), 1, "4");
    assert_failed(RUN("generate", MODEL, "x", "--order", "top_p,bogus"), 1, "bogus");
    spawned s = RUN_INPUT("a\xff\xfe\x80z", 5, "generate", MODEL, "-n", "2", "--json"); // read as U+FFFD
    assert_done(&s);
    spawn_free(&s);
}

// ---- Ctrl-C, closed pipes ------------------------------------------------------------------------------------
/** An endless answer: sampled, without an end. The window of positions still bounds it. */
static spawned start_endless(const char *json) {
    return spawn_start((const char *const[]){"generate", MODEL, "Hello", "-n", "1000000", "--context", "1000000", "--ignore-eos",
                                             "--temp", "1", "--stats", json, NULL}, NULL);
}

static void interrupt_keeps_the_text(void **state) {
    (void)state;
    spawned s = start_endless(NULL);
    spawn_await(&s, 20);
    assert_true(s.size[0] >= 20);
    kill(s.pid, SIGINT);
    spawn_finish(&s, "", 0);
    assert_int_equal(s.status, 130);
    assert_non_null(strstr(s.text[1], "tokens/s")); // the metrics were asked for
    assert_null(strstr(s.text[1], "mica: "));
    spawn_free(&s);
}

static void interrupt_gives_json(void **state) {
    (void)state;
    spawned s = start_endless("--json");
    usleep(1500 * 1000); // nothing is printed before the end: give it time to load and start
    kill(s.pid, SIGINT);
    spawn_finish(&s, "", 0);
    assert_int_equal(s.status, 130);
    if (s.size[0] == 0) { // stopped while it loaded
        print_message("skipped: the machine was too slow to reach the first token in time\n");
    } else {
        s.status = 0;
        mica_arena arena = {0};
        assert_string_equal(mica_json_get(json_of(&arena, &s), "finish_reason")->string, "cancelled");
        mica_arena_free(&arena);
    }
    spawn_free(&s);
}

static void closed_output_ends_it(void **state) {
    (void)state;
    spawned s = start_endless(NULL);
    spawn_await(&s, 1);
    close(s.out), s.out = -1;
    spawn_finish(&s, "", 0);
    assert_int_equal(s.status, 1);
    assert_non_null(strstr(s.text[1], "mica: stdout: Broken pipe"));
    spawn_free(&s);
}

static void full_disk_is_reported(void **state) {
    (void)state;
    if (access("/dev/full", W_OK) != 0) skip();
    int status = system(MICA_BINARY_DIR "/mica help >/dev/full 2>/dev/null");
    assert_int_equal(WEXITSTATUS(status), 1);
}

// ---- score, bench ----------------------------------------------------------------------------------------------
static void score_json(void **state) {
    (void)state;
    mica_arena arena = {0};
    spawned s = RUN("score", MODEL, "--ids", "5,6,7,8", "--top", "2", "--json"), bare = RUN("score", MODEL, "--ids", "5,6,7,8", "--json");
    const mica_json *v = json_of(&arena, &s), *logprobs = mica_json_get(v, "logprobs"), *top = mica_json_get(v, "top");
    assert_int_equal(mica_json_get(v, "ids")->length, 4);
    assert_int_equal(logprobs->length, 4);
    assert_int_equal(logprobs->child->type, MICA_JSON_NULL);
    assert_int_equal(top->length, 4);
    double sum = 0;
    for (const mica_json *l = logprobs->child->next; l; l = l->next) sum += l->number;
    assert_true(fabs(exp(-sum / 3) / mica_json_get(v, "perplexity")->number - 1) < 1e-5);
    for (const mica_json *row = top->child; row; row = row->next) {
        assert_int_equal(row->length, 2);
        assert_true(mica_json_at(row->child, 1)->number >= mica_json_at(row->child->next, 1)->number);
    }
    assert_metrics(v);
    assert_int_equal(mica_json_get(json_of(&arena, &bare), "top")->length, 0);
    spawn_free(&s), spawn_free(&bare);
    mica_arena_free(&arena);
}

static void score_text(void **state) {
    (void)state;
    spawned s = RUN("score", MODEL, "Hello there");
    assert_done(&s);
    assert_non_null(strstr(s.text[0], "\nperplexity\t"));
    spawn_free(&s);
    assert_failed(RUN("score", MODEL, ""), 1, "score");
}

static void perplexity(void **state) {
    (void)state;
    static const char text[] = "The quick brown fox jumps over the lazy dog.";
    mica_arena arena = {0};
    spawned bare = RUN_INPUT(text, sizeof text - 1, "perplexity", PACKED, "--json"),
            rounded = RUN_INPUT(text, sizeof text - 1, "perplexity", PACKED, "-", "--json", "--activations", "int8"),
            lines = RUN_INPUT(text, sizeof text - 1, "perplexity", PACKED, "--reference", PACKED);
    const mica_json *b = json_of(&arena, &bare), *r = json_of(&arena, &rounded);
    double exact = mica_json_get(b, "perplexity")->number;
    assert_true(exact > 1 && mica_json_get(b, "predicted")->integer > 3);
    assert_null(mica_json_get(b, "kl_mean"));
    assert_true(mica_json_get(r, "reference_perplexity")->number == exact && mica_json_get(r, "kl_mean")->number > 0);
    assert_true(mica_json_get(r, "kl_max")->number > 0 && mica_json_get(r, "same_top")->number > 0);
    assert_done(&lines);
    assert_non_null(strstr(lines.text[0], "divergence   0.000000"));
    spawn_free(&bare), spawn_free(&rounded), spawn_free(&lines);
    mica_arena_free(&arena);
    assert_failed(RUN("perplexity", PACKED, "/nowhere/text"), 1, "/nowhere/text");
    assert_failed(RUN_INPUT(text, 5, "perplexity", PACKED, "--activations", "int4"), 1, "int4");
}

static void bench_json(void **state) {
    (void)state;
    mica_arena arena = {0};
    spawned s = RUN("bench", MODEL, "--json", "--prefill", "4,8", "--decode", "3", "--batch", "1,2", "--depth", "0,5", "--repeat", "2");
    const mica_json *v = json_of(&arena, &s);
    assert_int_equal(v->length, 12); // 2 batches x 2 depths x (2 prefills + 1 decode)
    for (const mica_json *row = v->child; row; row = row->next) {
        assert_true(mica_json_get(row, "tokens_per_second")->number > 0);
        assert_int_equal(mica_json_get(row, "seconds")->length, 2);
    }
    assert_string_equal(mica_json_get(v->child, "test")->string, "prefill");
    assert_int_equal(mica_json_get(v->child->next, "tokens")->integer, 8);
    spawn_free(&s);
    s = RUN("bench", MODEL, "--json", "--profile", "--prefill", "4", "--decode", "0", "--repeat", "1");
    v = mica_json_get(json_of(&arena, &s)->child, "ops");
    assert_true(v && v->length > 3);
    for (const mica_json *op = v->child; op; op = op->next) {
        assert_true(mica_json_get(op, "runs")->integer > 0);
        assert_true(!op->next || mica_json_get(op, "seconds")->number >= mica_json_get(op->next, "seconds")->number);
    }
    spawn_free(&s);
    s = RUN("bench", MODEL, "--profile", "--prefill", "4", "--decode", "0", "--repeat", "1");
    assert_done(&s);
    assert_non_null(strstr(s.text[0], " runs "));
    spawn_free(&s);
    assert_failed(RUN("bench", "--random", "no-such-shape"), 1, "no-such-shape");
    mica_arena_free(&arena);
}

// ---- convert ---------------------------------------------------------------------------------------------------
static char scratch[] = "/tmp/mica-convert-XXXXXX";

static int make_scratch(void **state) {
    (void)state;
    strcpy(scratch, "/tmp/mica-convert-XXXXXX");
    return mkdtemp(scratch) ? 0 : -1;
}

static int remove_scratch(void **state) {
    (void)state;
    mica_remove_flat_dir(scratch);
    return mica_is_dir(scratch) ? -1 : 0; // nothing half-written beside the results that the tests removed
}

static void convert_and_run(void **state) {
    (void)state;
    mica_arena arena = {0};
    char dst[64];
    snprintf(dst, sizeof dst, "%s/quantised", scratch);
    spawned s = RUN("convert", MICA_SOURCE_DIR "/tests/golden/gguf/llama.gguf", dst, "--bits", "8", "--group-size", "32", "--json");
    const mica_json *v = json_of(&arena, &s);
    assert_string_equal(mica_json_get(v, "path")->string, dst);
    assert_string_equal(mica_json_get(v, "architecture")->string, "llama");
    assert_int_equal(mica_json_get(v, "quant_bits")->integer, 8);
    assert_int_equal(mica_json_get(v, "quant_group")->integer, 32);
    assert_true(mica_json_get(v, "bytes_on_disk")->integer > 0);
    assert_string_equal(s.text[1], ""); // no bar: not a terminal
    spawn_free(&s);
    s = RUN("generate", dst, "Hello", "-n", "3", "--json");
    assert_done(&s);
    spawn_free(&s);
    assert_failed(RUN("convert", MODEL, dst), 1, dst); // it is not empty
    mica_remove_flat_dir(dst);
    mica_arena_free(&arena);
}

static void convert_refuses(void **state) {
    (void)state;
    char dst[64];
    snprintf(dst, sizeof dst, "%s/never", scratch);
    assert_failed(RUN("convert", MODEL), 2, "SRC DST");
    assert_failed(RUN("convert", MODEL, dst, "--bits", "9"), 2, "--bits");
    assert_failed(RUN("convert", MODEL, dst, "--bits", "7"), 1, "7");
    assert_failed(RUN("convert", MODEL, dst, "--mode", "mxfp5"), 2, "mxfp4");
    assert_failed(RUN("convert", MODEL, dst, "--dtype", "int3"), 1, "int3");
    assert_failed(RUN("convert", "/no/such", dst), 1, "/no/such");
    assert_failed(RUN("convert", MODEL, "/dev/null/place"), 1, "/dev/null");
    assert_false(mica_is_dir(dst));
}

// ---- fuse ------------------------------------------------------------------------------------------------------
#define ADAPTERS MICA_SOURCE_DIR "/tests/golden/adapters/"
#define QLORA_BASE MICA_SOURCE_DIR "/tests/golden/quant/llama-4bit-float32"

static void fuse_and_run(void **state) {
    (void)state;
    mica_arena arena = {0};
    char dst[64];
    snprintf(dst, sizeof dst, "%s/fused", scratch);
    spawned s = RUN("fuse", MODEL, dst, "--adapter", ADAPTERS "mlx-lora", "--json");
    const mica_json *v = json_of(&arena, &s);
    assert_string_equal(mica_json_get(v, "path")->string, dst);
    assert_int_equal(mica_json_get(v, "quant_bits")->integer, 0);
    assert_int_equal(mica_json_get(v, "cost")->type, MICA_JSON_NULL); // dense: nothing was rounded
    spawned fused = RUN("generate", dst, "Hello", "-n", "6", "--json", "--ignore-eos"),
            adapted = RUN("generate", MODEL, "Hello", "-n", "6", "--json", "--ignore-eos", "--adapter", ADAPTERS "mlx-lora");
    assert_same_run(&fused, &adapted);
    spawn_free(&s), spawn_free(&fused), spawn_free(&adapted);
    mica_remove_flat_dir(dst);
    s = RUN("fuse", QLORA_BASE, dst, "--adapter", ADAPTERS "mlx-qlora", "--json");
    v = json_of(&arena, &s);
    const mica_json *cost = mica_json_get(v, "cost");
    assert_int_equal(mica_json_get(v, "quant_bits")->integer, 4);
    assert_true(mica_json_get(cost, "logit_change_max")->number > mica_json_get(cost, "logit_change_mean")->number);
    assert_true(mica_json_get(cost, "logit_change_mean")->number > 0 && mica_json_get(cost, "predicted")->integer > 50);
    spawn_free(&s);
    mica_remove_flat_dir(dst);
    s = RUN("fuse", QLORA_BASE, dst, "--adapter", ADAPTERS "mlx-qlora", "--dequantize", "--probe", MICA_SOURCE_DIR "/LICENSE");
    assert_done(&s);
    assert_non_null(strstr(s.text[0], "dense\n"));
    assert_non_null(strstr(s.text[0], "logits       change by 0.0000"));
    spawn_free(&s);
    mica_remove_flat_dir(dst);
    mica_arena_free(&arena);
}

static void fuse_refuses(void **state) {
    (void)state;
    char dst[64];
    snprintf(dst, sizeof dst, "%s/never", scratch);
    assert_failed(RUN("fuse", MODEL, dst), 2, "--adapter");
    assert_failed(RUN("fuse", MODEL, dst, "--adapter", "/no/such"), 1, "/no/such");
    assert_failed(RUN("fuse", "/no/such", dst, "--adapter", ADAPTERS "mlx-lora"), 1, "/no/such");
    assert_failed(RUN("fuse", MODEL, dst, "--adapter", ADAPTERS "peft-lora"), 1, "do not fit");
    assert_failed(RUN("fuse", MODEL, dst, "--adapter", ADAPTERS "mlx-lora", "--dequantize", "--bits", "4"), 2, "--dequantize");
    assert_failed(RUN("fuse", MODEL, dst, "--adapter", ADAPTERS "mlx-lora", "--mode", "mxfp5"), 2, "mxfp4");
    assert_false(mica_is_dir(dst));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generate_json),
        cmocka_unit_test(generate_text),
        cmocka_unit_test(generate_from_ids),
        cmocka_unit_test(generate_seeds),
        cmocka_unit_test(generate_stops),
        cmocka_unit_test(generate_refuses),
        cmocka_unit_test(interrupt_keeps_the_text),
        cmocka_unit_test(interrupt_gives_json),
        cmocka_unit_test(closed_output_ends_it),
        cmocka_unit_test(full_disk_is_reported),
        cmocka_unit_test(score_json),
        cmocka_unit_test(score_text),
        cmocka_unit_test(perplexity),
        cmocka_unit_test(bench_json),
        cmocka_unit_test_setup_teardown(convert_and_run, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(convert_refuses, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(fuse_and_run, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(fuse_refuses, make_scratch, remove_scratch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
