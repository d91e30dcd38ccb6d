// SPDX-License-Identifier: Apache-2.0
// `mica eval`: perplexity of texts against the log-probabilities that `mica score` gives, training data against the validation of a run, labelled texts
// against `mica classify`.
#include "spawn.h"
#include "folder_testing.h"
#include "base/base.h"
#include "base/file.h"
#include "base/json.h"
#include <math.h>

#define MODEL MICA_SOURCE_DIR "/tests/golden/models/llama-f32"
#define TEXT "The quick brown fox jumps over the lazy dog, and the dog sleeps on. "

/** What a command prints as JSON; lives in the arena. */
static const mica_json *json_of(mica_arena *arena, spawned s) {
    assert_done(&s);
    mica_error err = {0};
    char *text = mica_arena_alloc(arena, s.size[0] + 1);
    memcpy(text, s.text[0], s.size[0] + 1);
    const mica_json *v = mica_json_parse(arena, text, s.size[0], "stdout", &err);
    if (!v) fail_msg("%s in: %s", err.msg, s.text[0]);
    spawn_free(&s);
    return v;
}

static double number(const mica_json *object, const char *key) {
    const mica_json *v = mica_json_get(object, key);
    if (!v) fail_msg("there is no %s", key);
    return v->number;
}

static void assert_near(double a, double b) {
    if (!(fabs(a - b) <= 1e-5 * fmax(fabs(a), fabs(b)))) fail_msg("%.10g is not %.10g", a, b);
}

static void a_text(void **state) {
    (void)state;
    mica_arena arena = {0};
    write_file("a.txt", TEXT TEXT);
    const mica_json *score = mica_json_get(json_of(&arena, RUN("score", MODEL, TEXT TEXT, "--json")), "logprobs");
    const mica_json *got = json_of(&arena, RUN("eval", MODEL, "--data", in_folder("a.txt"), "--json"));
    double sum = 0, squares = 0, n = 0;
    for (const mica_json *v = score && score->child ? score->child->next : NULL; v; v = v->next) sum -= v->number, squares += v->number * v->number, n++;
    double loss = sum / n, error = sqrt((squares - n * loss * loss) / (n - 1) / n);
    assert_near(number(got, "tokens"), n);
    assert_near(number(got, "loss"), loss);
    assert_near(number(got, "loss_standard_error"), error);
    assert_near(number(got, "perplexity"), exp(loss));
    assert_near(number(got, "perplexity_standard_error"), exp(loss) * error);
    assert_true(number(got, "tokens_per_second") > 0);
    mica_arena_free(&arena);
}

static void training_data(void **state) {
    (void)state;
    mica_arena arena = {0};
    mica_mkdirs(in_folder("data"), NULL);
    write_file("data/train.jsonl", "{\"text\":\"" TEXT "\"}\n");
    write_file("data/valid.jsonl", "{\"text\":\"" TEXT "\"}\n{\"text\":\"One, two, three\"}\n\n{\"text\":\"What a day it is\"}\n");
    const mica_json *got = json_of(&arena, RUN("eval", MODEL, "--data", in_folder("data"), "--json", "--quiet")); // its valid.jsonl
    spawned s = RUN("train", MODEL, "--data", in_folder("data"), "--adapter", in_folder("out"), "--iters", "4", "--lr", "1e-2", "--batch-size", "1", "--val-batches", "-1", "--json");
    assert_done(&s);
    *strchr(s.text[0], '\n') = 0;
    mica_error err = {0};
    const mica_json *validation = mica_json_parse(&arena, s.text[0], strlen(s.text[0]), "stdout", &err);
    assert_near(number(got, "loss"), number(validation, "loss"));
    spawn_free(&s);
    // The error: of L/W over the three examples, each alone.
    const char *const lines[] = {"{\"text\":\"" TEXT "\"}\n", "{\"text\":\"One, two, three\"}\n", "{\"text\":\"What a day it is\"}\n"};
    double sum = 0;
    for (int i = 0; i < 3; i++) {
        write_file("data/one.jsonl", lines[i]);
        const mica_json *one = json_of(&arena, RUN("eval", MODEL, "--data", in_folder("data/one.jsonl"), "--json"));
        double rest = (number(one, "loss") - number(got, "loss")) * number(one, "scored_tokens");
        assert_non_null(mica_json_get(one, "loss_standard_error")); // null: of one example there is none
        sum += rest * rest;
    }
    assert_near(number(got, "loss_standard_error"), sqrt(sum * 3 / 2) / number(got, "scored_tokens"));
    assert_near(number(got, "examples"), 3);
    write_file("data/test.jsonl", "{\"text\":\"One, two, three\"}\n");
    s = RUN("eval", MODEL, "--data", in_folder("data")); // now its test.jsonl
    assert_done(&s);
    assert_non_null(strstr(s.text[0], "examples     1\n"));
    spawn_free(&s);
    double without = number(json_of(&arena, RUN("eval", MODEL, "--data", in_folder("data"), "--json")), "loss");
    double with = number(json_of(&arena, RUN("eval", MODEL, "--data", in_folder("data"), "--adapter", in_folder("out"), "--json")), "loss");
    assert_true(with < without);
    mica_arena_free(&arena);
}

static void labelled_texts(void **state) {
    (void)state;
    mica_arena arena = {0};
    static const char *const texts[] = {"A fine day", "The rain", "So it goes", "No", "Perhaps so"};
    char lines[1000] = "";
    size_t right = 0;
    for (size_t i = 0; i < MICA_COUNT(texts); i++) {
        spawned s = RUN_INPUT(texts[i], strlen(texts[i]), "classify", MODEL, "--labels", "yes,no", "--quiet");
        assert_done(&s);
        const char *label = i % 2 ? "yes" : "no";
        right += strncmp(s.text[0], label, strlen(label)) == 0;
        snprintf(lines + strlen(lines), sizeof lines - strlen(lines), "{\"id\":%zu,\"label\":\"%s\",\"text\":\"%s\"}\n", i, label, texts[i]);
        spawn_free(&s);
    }
    write_file("labels.jsonl", lines);
    const mica_json *got = json_of(&arena, RUN("eval", MODEL, "--data", in_folder("labels.jsonl"), "--json", "--quiet"));
    assert_near(number(got, "texts"), 5);
    assert_near(number(got, "correct"), (double)right);
    assert_near(number(got, "accuracy"), (double)right / 5);
    assert_near(number(got, "accuracy_standard_error"), sqrt((double)(right * (5 - right)) / 125));
    const mica_json *labels = mica_json_get(got, "labels");
    assert_near(number(mica_json_get(labels, "no"), "texts"), 3);
    assert_near(number(mica_json_get(labels, "yes"), "given") + number(mica_json_get(labels, "no"), "given"), 5);
    spawned s = RUN("eval", MODEL, "--data", in_folder("labels.jsonl"), "--labels", "yes,no,maybe");
    assert_done(&s);
    assert_non_null(strstr(s.text[0], "maybe"));
    spawn_free(&s);
    write_file("other.jsonl", "{\"review\":\"good\",\"stars\":5}\n{\"review\":\"bad\",\"stars\":1}\n");
    s = RUN("eval", MODEL, "--data", in_folder("other.jsonl"), "--text-field", "review", "--label-field", "stars");
    assert_done(&s);
    assert_non_null(strstr(s.text[0], "of 2 texts"));
    spawn_free(&s);
    mica_arena_free(&arena);
}

static void wrong(void **state) {
    (void)state;
    assert_failed(RUN("eval", MODEL), 2, "--data");
    assert_failed(RUN("eval", MODEL, "--data", "/nowhere"), 1, "/nowhere");
    assert_failed(RUN("eval", MODEL, "--data", "/nowhere.jsonl"), 1, "/nowhere.jsonl");
    assert_failed(RUN("eval", MODEL, "--data", folder), 1, "test.jsonl");
    write_file("bad.jsonl", "{\"text\":\"a\",\"label\":\"x\"}\n{\"text\":\"b\"}\n");
    assert_failed(RUN("eval", MODEL, "--data", in_folder("bad.jsonl")), 1, "bad.jsonl:2: there is no label");
    assert_failed(RUN("eval", MODEL, "--data", in_folder("bad.jsonl"), "--labels", "y"), 1, "bad.jsonl:2");
    assert_failed(RUN("eval", MODEL, "--data", in_folder("bad.jsonl"), "--prompt", "x"), 2, "{text}");
    write_file("bad.jsonl", "{\"text\":\"One, two\"}\n{\"txt\":\"b\"}\n");
    assert_failed(RUN("eval", MODEL, "--data", in_folder("bad.jsonl")), 1, "bad.jsonl:2");
    assert_failed(RUN("eval", MODEL, "--data", in_folder("bad.jsonl"), "--mask-prompt", "some"), 1, "some");
    assert_failed(RUN("eval", MODEL, "--data", in_folder("bad.jsonl"), "--kv-bits", "8"), 2, "--kv-bits");
    write_file("empty.jsonl", "\n");
    assert_failed(RUN("eval", MODEL, "--data", in_folder("empty.jsonl")), 1, "empty.jsonl");
}

static int set_up(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : 1;
}

static int tear_down(void **state) {
    (void)state;
    mica_remove_flat_dir(in_folder("data"));
    mica_remove_flat_dir(in_folder("out"));
    mica_remove_flat_dir(folder);
    return access(folder, F_OK) == 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text), cmocka_unit_test(training_data), cmocka_unit_test(labelled_texts), cmocka_unit_test(wrong),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
