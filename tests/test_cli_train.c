// SPDX-License-Identifier: Apache-2.0
// What `mica train` takes and shows: configuration files, the log and its going on after a stop, the report page, the bar on a terminal.
#include "spawn.h"
#include "folder_testing.h"
#include "base/base.h"
#include "base/file.h"
#include "base/json.h"
#include <errno.h>
#include <pty.h>
#include <sys/stat.h>

#define MODEL MICA_SOURCE_DIR "/tests/golden/models/llama-f32"
#define NASTY "</pre><script>alert('x')</script> & \\\"fox\\\""

/** The file's text; lives until the next call. */
static char *text_of(const char *name) {
    static mica_buf b;
    mica_error err = {0};
    mica_buf_free(&b);
    if (!mica_file_read(in_folder(name), 1 << 24, &b, &err)) fail_msg("%s", err.msg);
    mica_buf_putc(&b, 0);
    return b.data;
}

static size_t count(const char *text, const char *what) {
    size_t n = 0;
    for (const char *s = text; (s = strstr(s, what)); s++) n++;
    return n;
}

#define COMMON "--data", in_folder("data"), "--targets", "q_proj", "--rank", "2", "--threads", "1", "--batch-size", "2", "--sample-tokens", "4"

// ---- configuration ---------------------------------------------------------------------------------------------
static void from_a_file(void **state) {
    (void)state;
    char text[1000];
    snprintf(text, sizeof text,
             "{\"model\": \"" MODEL "\", \"data\": \"%s\", \"adapter_path\": \"%s\", \"iters\": 3, \"batch_size\": 2, \"learning_rate\": 1e-3,"
             " \"lora_parameters\": {\"rank\": 4, \"scale\": 10.0, \"keys\": [\"self_attn.q_proj\", \"v_proj\"]}, \"steps-per-report\": 1,"
             " \"grad-checkpoint\": true, \"resume\": false, \"clip\": null, \"sample-prompt\": [\"One\", \"Two\"], \"samples\": -1, \"mask_prompt\": false}",
             in_folder("data"), in_folder("config"));
    write_file("config.json", text);
    spawned s = RUN("train", "--config", in_folder("config.json"), "--log", in_folder("config.jsonl"));
    assert_done(&s);
    assert_non_null(strstr(s.text[0], "lora, rank 4, scale 10:"));
    assert_int_equal(count(s.text[0], "step 3/3"), 3); // report, validation, checkpoint
    spawn_free(&s);
    const char *log = text_of("config.jsonl");
    assert_non_null(strstr(log, "\"targets\":\"self_attn.q_proj,v_proj\""));
    assert_non_null(strstr(log, "\"grad-checkpoint\":\"on\""));
    assert_non_null(strstr(log, "\"optimizer_config\":{\"adam\":{\"betas\":[0.9,0.999],\"eps\":1e-08}}"));
    s = RUN("train", "--iters", "2", "-c", in_folder("config.json"), "--rank", "2"); // what is typed wins, wherever it stands
    assert_done(&s);
    assert_non_null(strstr(s.text[0], "rank 2"));
    assert_non_null(strstr(s.text[0], "step 2/2"));
    spawn_free(&s);
}

static void wrong_files(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"{\"rnak\": 4}", "\"rnak\"; the nearest is \"rank\""}, {"{\"rank\": \"4\"}", "\"rank\" takes a whole number"}, {"{\"rank\": 4.5}", "4.5"},
        {"{\"rank\": 0}", "1 to 4096"}, {"{\"data\": 1}", "\"data\" takes a text"}, {"{\"resume\": \"yes\"}", "true or false"},
        {"{\"config\": \"x\"}", "\"config\""}, {"{\"lora_parameters\": {\"rnk\": 1}}", "\"rnk\""}, {"{\"rank\": {}}", "\"rank\""}, {"[1]", "object"},
        {"{\"rank\": 4", "no end"}, {"{\"rank\": 4} x", "follows"}, {"", "wrong.json"},
    };
    for (size_t i = 0; i < MICA_COUNT(cases); i++) {
        write_file("wrong.json", cases[i][0]);
        spawned s = RUN("train", MODEL, "--config", in_folder("wrong.json"));
        assert_non_null(strstr(s.text[1], "wrong.json"));
        assert_failed(s, 2, cases[i][1]);
    }
    assert_failed(RUN("train", MODEL, "--config", in_folder("nowhere.json")), 2, "nowhere.json");
    assert_failed(RUN("train", MODEL, COMMON, "--adapter", in_folder("x"), "--alpha", "1", "--scale", "1"), 2, "--alpha");
    assert_failed(RUN("train", MODEL, COMMON, "--adapter", in_folder("x"), "--iters", "1", "--epochs", "1"), 2, "--epochs");
    assert_failed(RUN("train", "--config"), 2, "--config");
}

static void mlx_lms_words(void **state) {
    (void)state;
    spawned s = RUN("train", "--model", MODEL, "--data", in_folder("data"), "--adapter-path", in_folder("mlx"), "--mask-prompt", "--iters", "2");
    assert_failed(s, 1, "mask"); // taken as "last", which a {"text"} line has not
    s = RUN("train", "--model", MODEL, "--data", in_folder("data"), "--adapter-path", in_folder("mlx"), "--iters", "2", "--num-layers", "1", "--learning-rate",
            "1e-3", "--steps-per-report", "1", "--steps-per-eval", "2", "--val-batches", "1", "--max-seq-length", "40", "--fine-tune-type", "lora",
            "--grad-accumulation-steps", "2", "--batch-size", "2");
    assert_done(&s);
    spawn_free(&s);
    s = RUN("train", "--model", MODEL, "--data", in_folder("data"), "--adapter-path", in_folder("mlx2"), "--iters", "1", "--num-layers", "1",
            "--resume-adapter-file", in_folder("mlx/adapters.safetensors"), "--quiet");
    assert_done(&s);
    spawn_free(&s);
}

// ---- mlx-lm's files ------------------------------------------------------------------------------------------------
/** All that its example has, and then some, in one line of JSON or as YAML. */
static void write_mlx_file(const char *name, bool yaml) {
    static const char json[] =
        "{\"model\": \"" MODEL "\", \"train\": true, \"data\": \"%s\", \"fine_tune_type\": \"lora\", \"optimizer\": \"adamw\", \"seed\": 0,"
        " \"optimizer_config\": {\"adamw\": {\"betas\": [0.9, 0.98], \"eps\": 1e-6, \"weight_decay\": 0.05, \"bias_correction\": true}, \"sgd\": {}, \"adam\": null},"
        " \"num_layers\": 0, \"batch_size\": 2, \"iters\": 6, \"val_batches\": 1, \"steps_per_report\": 1, \"steps_per_eval\": 6, \"save_every\": 100,"
        " \"lr_schedule\": {\"name\": \"cosine_decay\", \"warmup\": 2, \"warmup_init\": 1e-4, \"arguments\": [1e-3, 2, 1e-5]}, \"learning_rate\": 0.5,"
        " \"resume_adapter_file\": null, \"adapter_path\": \"%s\", \"test\": true, \"test_batches\": 1, \"max_seq_length\": 40, \"grad_checkpoint\": false,"
        " \"mask_prompt\": false, \"lora_parameters\": {\"keys\": [\"self_attn.q_proj\"], \"rank\": 2, \"scale\": 10.0, \"dropout\": 0.0}, \"report_to\": null}";
    static const char text[] =
        "# as mlx-lm's lora_config.yaml\nmodel: \"" MODEL "\"\ntrain: yes\ndata: %s\nfine_tune_type: lora\noptimizer: adamw\nseed: 0\noptimizer_config:\n"
        "  adamw: {betas: [0.9, 0.98], eps: 1e-6, weight_decay: .05, bias_correction: True}\n  sgd: {}\n  adam:\nnum_layers: 0\nbatch_size: 2\niters: 6\n"
        "val_batches: +1\nsteps_per_report: 1\nsteps_per_eval: 6\nsave_every: 100\nlr_schedule:\n  name: cosine_decay\n  warmup: 2 # steps\n  warmup_init: 1e-4\n"
        "  arguments: [1e-3, 2, 1e-5]\nlearning_rate: 5e-1\nresume_adapter_file: null\nadapter_path: '%s'\ntest: true\ntest_batches: 1\nmax_seq_length: 40\n"
        "grad_checkpoint: false\nmask_prompt: off\nlora_parameters:\n  keys:\n    - self_attn.q_proj\n  rank: 2\n  scale: 10.0\n  dropout: 0.0\nreport_to: ~\n";
    char out[3000], data[300];
    snprintf(data, sizeof data, "%s", in_folder("data"));
    if (yaml) snprintf(out, sizeof out, text, data, in_folder("mlx"));
    else snprintf(out, sizeof out, json, data, in_folder("mlx"));
    write_file("data/test.jsonl", "{\"text\":\"One fox and two\"}\n{\"text\":\"three dogs\"}\n{\"text\":\"over four\"}\n");
    write_file(name, out);
}

/** The learning rates of the steps in what --json printed. */
static void rates(const char *lines, double *out, size_t count) {
    size_t n = 0;
    for (const char *s = lines; (s = strstr(s, "\"learning_rate\":")) && n < count; n++) out[n] = strtod(s += strlen("\"learning_rate\":"), NULL);
    assert_int_equal(n, count);
}

// The rates are those of mlx-lm's build_schedule: a warm-up over 2 steps, a step more at its rate, then the cosine.
static void mlx_lms_files(void **state) {
    (void)state;
    static const double want[] = {1e-4, 5.5e-4, 1e-3, 1e-3, 5.05e-4, 1e-5};
    char *first = NULL;
    for (int yaml = 0; yaml < 2; yaml++) {
        double got[6];
        write_mlx_file(yaml ? "mlx.yaml" : "mlx.json", yaml);
        spawned s = RUN("train", "--config", in_folder(yaml ? "mlx.yaml" : "mlx.json"), "--json", "--threads", "1", "--log", in_folder("mlx.jsonl"));
        if (yaml && strstr(s.text[1], "without libyaml")) {
            print_message("  SKIPPED: YAML: %s", s.text[1]);
            spawn_free(&s);
            break;
        }
        assert_done(&s);
        assert_non_null(strstr(text_of("mlx.jsonl"), "\"optimizer_config\":{\"adamw\":{\"betas\":[0.9,0.98],\"eps\":1e-06,\"bias_correction\":true,\"weight_decay\":0.05}}"));
        rates(s.text[0], got, 6);
        for (int i = 0; i < 6; i++) assert_float_equal(got[i], want[i], 1e-9);
        assert_int_equal(count(s.text[0], "\"event\":\"test\""), 1);
        assert_non_null(strstr(s.text[0], "\"examples\":2}"));
        assert_true(strstr(s.text[0], "\"event\":\"test\"") < strstr(s.text[0], "\"event\":\"done\""));
        const char *loss = strstr(s.text[0], "\"event\":\"test\"");
        if (!yaml) first = strndup(loss, strcspn(loss, "}"));
        else assert_memory_equal(loss, first, strlen(first)); // the same run
        spawn_free(&s);
        char *config = text_of("mlx/adapter_config.json");
        assert_non_null(strstr(config, "\"rank\":2"));
        s = RUN("train", "--config", in_folder(yaml ? "mlx.yaml" : "mlx.json"), "--lr", "0.25", "--schedule", "constant", "--json", "--threads", "1");
        assert_done(&s); // what is typed wins
        rates(s.text[0], got, 6);
        assert_float_equal(got[5], 0.25, 1e-9);
        spawn_free(&s);
    }
    free(first);
}

/** The first rates that a schedule and what stands beside it give. */
static void schedules(void **state) {
    (void)state;
    static const struct {
        const char *schedule;
        double rates[4];
    } cases[] = {
        {"{\"name\": \"linear_schedule\", \"arguments\": [0, 0.4, 4]}", {0, 0.1, 0.2, 0.3}},
        {"{\"name\": \"linear_schedule\", \"arguments\": [0.1, 0.4, 3]}", {0.1, 0.2, 0.3, 0.4}},
        {"{\"name\": \"exponential_decay\", \"arguments\": [0.1, 0.5], \"warmup\": 1}", {0, 0.1, 0.1, 0.05}},
        {"{\"name\": \"step_decay\", \"arguments\": [0.1, 0.5, 2], \"warmup\": null}", {0.1, 0.1, 0.05, 0.05}},
        {"null", {0.3, 0.3, 0.3, 0.3}},
    };
    for (size_t i = 0; i < MICA_COUNT(cases); i++) {
        char text[300];
        double got[4];
        snprintf(text, sizeof text, "{\"lr_schedule\": %s, \"learning_rate\": 0.3, \"optimizer\": \"sgd\", \"iters\": 4, \"steps_per_report\": 1}", cases[i].schedule);
        write_file("mlx.json", text);
        spawned s = RUN("train", MODEL, COMMON, "--adapter", in_folder("mlx"), "--config", in_folder("mlx.json"), "--json", "--clip", "1e-3");
        assert_done(&s);
        rates(s.text[0], got, 4);
        for (int k = 0; k < 4; k++) assert_float_equal(got[k], cases[i].rates[k], 1e-9);
        spawn_free(&s);
    }
}

static void wrong_mlx_files(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"{\"lr_schedule\": {\"name\": \"cosine\", \"arguments\": [1, 2]}}", "\"cosine\"; the nearest is \"cosine_decay\""},
        {"{\"lr_schedule\": {\"name\": \"cosine_decay\", \"arguments\": [1]}}", "cosine_decay: \"arguments\" takes [rate, steps]"},
        {"{\"lr_schedule\": {\"name\": \"cosine_decay\", \"arguments\": [1, 2.5]}}", "\"arguments\""},
        {"{\"lr_schedule\": {\"name\": \"step_decay\", \"arguments\": [1, 2, 3]}}", "\"arguments\""},
        {"{\"lr_schedule\": {\"name\": \"cosine_decay\", \"arguments\": [0, 2]}}", "\"arguments\""},
        {"{\"lr_schedule\": {\"name\": \"cosine_decay\"}}", "needs a name and arguments"},
        {"{\"lr_schedule\": {\"nam\": \"cosine_decay\"}}", "\"nam\"; the nearest is \"name\""},
        {"{\"lr_schedule\": {\"warmup\": -1}}", "\"warmup\" takes a number of steps"},
        {"{\"lr_schedule\": 1}", "\"lr_schedule\" takes an object"},
        {"{\"optimizer_config\": {\"lion\": {}}}", "\"lion\""},
        {"{\"optimizer_config\": {\"adam\": {\"weight_decay\": 1}}}", "optimizer_config: adam: there is no \"weight_decay\""},
        {"{\"optimizer_config\": {\"adam\": {\"betas\": [0.9]}}}", "\"betas\" takes two numbers"},
        {"{\"optimizer_config\": {\"muon\": {\"ns_steps\": 6}}}", "\"ns_steps\" takes 5 only"},
        {"{\"optimizer_config\": {\"adafactor\": {\"relative_step\": true}}}", "\"relative_step\" takes false only"},
        {"{\"optimizer_config\": {\"sgd\": {\"nesterov\": 1}}}", "\"nesterov\" takes true or false"},
        {"{\"lora_parameters\": {\"iters\": 1}}", "lora_parameters: there is no \"iters\""},
        {"{\"lora_parameters\": []}", "\"lora_parameters\" takes an object"},
        {"{\"train\": false}", "\"train\" takes true only"},
        {"{\"report_to\": \"wandb\"}", "\"report-to\" takes null only"},
        {"{\"hf_dataset\": {}}", "\"hf-dataset\""},
    };
    for (size_t i = 0; i < MICA_COUNT(cases); i++) {
        write_file("wrong.json", cases[i][0]);
        spawned s = RUN("train", MODEL, "--config", in_folder("wrong.json"));
        assert_non_null(strstr(s.text[1], "wrong.json"));
        assert_failed(s, 2, cases[i][1]);
    }
    static const char *const yaml[][2] = {
        {"iters: 08", "\"iters\""}, {"a: &x 1\nb: *x", "anchors"}, {"? [1]\n: 2", "a key"}, {"- 1", "object"}, {"a: [", "line "}, {"", "object"},
        {"a: 1\n--- 2", "document"}, {"iters: !!int 3", "tags"}, {"iters: '3'", "\"iters\" takes a whole number"}, {"itres: 3", "\"itres\"; the nearest is \"iters\""},
    };
    for (size_t i = 0; i < MICA_COUNT(yaml); i++) {
        write_file("wrong.yaml", yaml[i][0]);
        spawned s = RUN("train", MODEL, "--config", in_folder("wrong.yaml"));
        bool built = !strstr(s.text[1], "without libyaml");
        assert_failed(s, 2, built ? yaml[i][1] : "libyaml");
    }
    assert_failed(RUN("train", MODEL, "--data", "/nowhere", "--adapter", in_folder("x"), "--test"), 1, "test.jsonl");
}

static void epochs(void **state) {
    (void)state;
    spawned s = RUN("train", MODEL, COMMON, "--adapter", in_folder("epochs"), "--epochs", "2", "--schedule", "cosine", "--quiet");
    assert_done(&s);
    assert_non_null(strstr(s.text[0], "done: 8 steps")); // 8 examples, 2 at a time, twice
    spawn_free(&s);
}

// ---- the log ---------------------------------------------------------------------------------------------------
/** Every line is an object with an event and a step; how many have the event. */
static size_t events(const char *name, const char *event) {
    mica_arena arena = {0};
    mica_error err = {0};
    size_t n = 0;
    for (char *line = text_of(name), *end; (end = strchr(line, '\n')); line = end + 1) {
        const mica_json *v = mica_json_parse(&arena, line, (size_t)(end - line), name, &err);
        if (!v) fail_msg("%s", err.msg);
        const char *found = NULL;
        assert_true(mica_json_string(v, "event", NULL, &found, name, &err) && found);
        n += strcmp(found, event) == 0;
    }
    mica_arena_free(&arena);
    return n;
}

static void logged(void **state) {
    (void)state;
    spawned s = RUN("train", MODEL, COMMON, "--adapter", in_folder("log"), "--iters", "6", "--report-every", "1", "--val-every", "2", "--save-every", "3",
                    "--log", in_folder("log.jsonl"), "--samples", "2", "--json");
    assert_done(&s);
    spawn_free(&s);
    assert_int_equal(events("log.jsonl", "start"), 1);
    assert_int_equal(events("log.jsonl", "step"), 6);
    assert_int_equal(events("log.jsonl", "validation"), 4);
    assert_int_equal(events("log.jsonl", "checkpoint"), 2);
    assert_int_equal(events("log.jsonl", "sample"), 4);
    assert_int_equal(events("log.jsonl", "done"), 1);
}

/** A run that was killed after it had logged more than its checkpoint has: no step is there twice, none is missing. */
static void goes_on(void **state) {
    (void)state;
    const char *const words[] = {"train", MODEL, COMMON, "--adapter", in_folder("killed"), "--iters", "60", "--report-every", "1", "--val-every", "-1",
                                 "--save-every", "4", "--log", in_folder("killed.jsonl"), "--samples", "1", NULL};
    spawned s = spawn_start(words, NULL);
    while (s.out >= 0 && !strstr(s.text[0], "step 6/60") && spawn_read(&s, 0)) {}
    kill(s.pid, SIGKILL);
    spawn_finish(&s, "", 0);
    assert_int_equal(s.status, 1000 + SIGKILL);
    spawn_free(&s);
    FILE *f = fopen(in_folder("killed.jsonl"), "a");
    fputs("{\"event\":\"step\",\"step\":61,\"lo", f); // a torn line
    fclose(f);
    s = RUN("train", MODEL, COMMON, "--adapter", in_folder("killed"), "--iters", "60", "--report-every", "1", "--val-every", "-1", "--save-every", "4", "--log",
            in_folder("killed.jsonl"), "--samples", "1", "--resume", "--quiet");
    assert_done(&s);
    spawn_free(&s);
    assert_int_equal(events("killed.jsonl", "start"), 1);
    assert_int_equal(events("killed.jsonl", "resume"), 1);
    assert_int_equal(events("killed.jsonl", "sample"), 2);
    char line[60];
    for (int step = 1; step <= 60; step++) {
        snprintf(line, sizeof line, "{\"event\":\"step\",\"step\":%d,", step);
        if (count(text_of("killed.jsonl"), line) != 1) fail_msg("step %d is there %zu times", step, count(text_of("killed.jsonl"), line));
    }
    s = RUN("train", MODEL, COMMON, "--adapter", in_folder("killed"), "--iters", "60", "--report-every", "1", "--val-every", "-1", "--save-every", "4", "--log",
            in_folder("killed.jsonl"), "--samples", "1", "--resume", "--quiet"); // at its end
    assert_done(&s);
    spawn_free(&s);
    assert_int_equal(events("killed.jsonl", "step"), 60);
    assert_int_equal(events("killed.jsonl", "sample"), 2);
    assert_int_equal(events("killed.jsonl", "done"), 1);
    assert_int_equal(count(text_of("killed.jsonl"), "{\"event\":\"checkpoint\",\"step\":60,"), 1);
}

static void log_that_cannot_be_written(void **state) {
    (void)state;
    spawned s = RUN("train", MODEL, COMMON, "--adapter", in_folder("x"), "--iters", "1", "--log", "/dev/full");
    assert_int_equal(s.status, 1);
    assert_non_null(strstr(s.text[1], "/dev/full"));
    spawn_free(&s);
    s = RUN("train", MODEL, COMMON, "--adapter", in_folder("x"), "--iters", "1", "--log", in_folder("no/folder/log"));
    assert_int_equal(s.status, 1);
    assert_non_null(strstr(s.text[1], "no/folder/log"));
    spawn_free(&s);
}

// ---- the report ------------------------------------------------------------------------------------------------
static bool gnuplot_is_here(void) {
    if (system("command -v gnuplot >/dev/null 2>&1") == 0) return true;
    print_message("skipped: the page itself: there is no gnuplot here\n");
    return false;
}

static void without_gnuplot(void **state) {
    (void)state;
    const char *const words[] = {"report", in_folder("log.jsonl"), NULL};
    spawned s = spawn_start(words, "PATH=/nowhere");
    spawn_finish(&s, "", 0);
    assert_failed(s, 1, "gnuplot-nox");
    const char *const train[] = {"train", MODEL, COMMON, "--adapter", in_folder("x"), "--report", in_folder("x.html"), NULL};
    s = spawn_start(train, "PATH=/nowhere"); // at once, not after hours
    spawn_finish(&s, "", 0);
    assert_failed(s, 1, "gnuplot-nox");
}

static void reported(void **state) {
    (void)state;
    if (!gnuplot_is_here()) return;
    spawned s = RUN("train", MODEL, COMMON, "--adapter", in_folder("report"), "--iters", "4", "--report-every", "1", "--report", in_folder("page.html"), "--quiet",
                    "--sample-prompt", "<i>Ha</i>");
    assert_done(&s);
    spawn_free(&s);
    const char *page = text_of("page.html");
    assert_int_equal(count(page, "<svg"), 5);
    assert_int_equal(count(page, "<script"), 0);
    assert_int_equal(count(page, "&lt;i&gt;Ha&lt;/i&gt;"), 2); // sample, configuration
    assert_int_equal(count(page, "After step 4"), 1);
    assert_non_null(strstr(page, "</html>"));
    s = RUN("report", in_folder("report"), "--json", "--quiet"); // the folder's log; the page beside it
    assert_done(&s);
    assert_non_null(strstr(s.text[0], "log.html"));
    spawn_free(&s);
    assert_true(mica_is_file(in_folder("report/log.html")));
    s = RUN("report", in_folder("log.jsonl"), "-o", in_folder("later.html"));
    assert_done(&s);
    spawn_free(&s);
    assert_int_equal(count(text_of("later.html"), "&lt;/pre&gt;&lt;script&gt;"), 2); // the prompts from the data
}

static void logs_of_nothing(void **state) {
    (void)state;
    if (!gnuplot_is_here()) return;
    write_file("odd.jsonl", "no json\n{\"event\":\"step\",\"step\":1}\n");
    assert_failed(RUN("report", in_folder("odd.jsonl")), 1, "odd.jsonl");
    assert_failed(RUN("report", in_folder("nowhere.jsonl")), 1, "nowhere.jsonl");
    write_file("odd.jsonl", "{\"event\":\"start\",\"step\":0,\"model\":\"<m>\",\"config\":{\"a<b\":[1,\"<u>\"]}}\n{\"event\":\"step\",\"step\":1,\"loss\":null}\n{\"event\":\"step\"");
    spawned s = RUN("report", in_folder("odd.jsonl"), "--output", in_folder("odd.html"));
    assert_done(&s);
    spawn_free(&s);
    const char *page = text_of("odd.html");
    assert_non_null(strstr(page, "no data"));
    assert_non_null(strstr(page, "&lt;m&gt;"));
    assert_null(strstr(page, "<u>"));
    assert_failed(RUN("report", in_folder("odd.jsonl"), "--output", in_folder("no/folder/x.html")), 1, "no/folder");
}

// ---- the bar ---------------------------------------------------------------------------------------------------
static void a_bar_on_a_terminal(void **state) {
    (void)state;
    char text[1 << 14];
    int terminal;
    struct winsize size = {.ws_row = 40, .ws_col = 120};
    pid_t pid = forkpty(&terminal, NULL, NULL, &size);
    if (pid < 0) {
        print_message("skipped: no pseudo-terminal: %s\n", strerror(errno));
        skip();
    }
    if (pid == 0) {
        execl(MICA_BINARY_DIR "/mica", "mica", "train", MODEL, COMMON, "--adapter", in_folder("bar"), "--iters", "4", (char *)NULL);
        _exit(127);
    }
    size_t n = 0;
    for (ssize_t k; n + 1 < sizeof text && (k = read(terminal, text + n, sizeof text - n - 1)) > 0;) n += (size_t)k;
    text[n] = 0;
    close(terminal);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_non_null(strstr(text, "░"));
    assert_non_null(strstr(text, "tokens/s"));
    assert_non_null(strstr(text, "left"));
    assert_non_null(strstr(text, "done: 4 steps"));
}

static int set_up(void **state) {
    (void)state;
    if (!mkdtemp(folder) || !mica_mkdirs(in_folder("data"), NULL)) return 1;
    for (int valid = 0; valid < 2; valid++) {
        FILE *f = fopen(in_folder(valid ? "data/valid.jsonl" : "data/train.jsonl"), "w");
        for (int i = 0; i < (valid ? 3 : 8); i++) fprintf(f, "{\"text\":\"%d brown " NASTY " jumps over the %d lazy dogs, and over others\"}\n", i, i * 7 % 5);
        if (!f || fclose(f) != 0) return 1;
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    static const char *const names[] = {"data", "config", "mlx", "mlx2", "epochs", "log", "killed", "x", "report", "bar"};
    for (size_t i = 0; i < MICA_COUNT(names); i++) mica_remove_flat_dir(in_folder(names[i]));
    mica_remove_flat_dir(folder);
    return access(folder, F_OK) == 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_a_file), cmocka_unit_test(wrong_files), cmocka_unit_test(mlx_lms_words), cmocka_unit_test(mlx_lms_files),
        cmocka_unit_test(schedules), cmocka_unit_test(wrong_mlx_files), cmocka_unit_test(epochs), cmocka_unit_test(logged), cmocka_unit_test(goes_on),
        cmocka_unit_test(log_that_cannot_be_written), cmocka_unit_test(without_gnuplot), cmocka_unit_test(reported), cmocka_unit_test(logs_of_nothing),
        cmocka_unit_test(a_bar_on_a_terminal),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
