// SPDX-License-Identifier: Apache-2.0
// Fuzzes the trainer's checkpoint. Input: a byte, then the file; with an even byte it is taken for this run's own, so that what comes after its
// identity is reached. A run that is restored must find its place in the data and do a step, or say why not.
#include "base/base.h"
#include "fuzz_file.h"
#include "io/safetensors.h"
#include "train/data.h"
#include "train/trainer.h"
#include <stdlib.h>
#include <string.h>

#define MODEL MICA_SOURCE_DIR "/tests/golden/models/llama-f32"
#define SETTINGS "kind=lora rank=1 model=0123456789abcdef0123 lr=0.001"
enum { TOKENS = 6 };

static mica_trainer trainer;
static mica_dataset_order *order;
static char pristine[] = "/dev/shm/mica-fuzz-state-XXXXXX.safetensors", lines_path[] = "/dev/shm/mica-fuzz-lines-XXXXXX"; // pristine: what every input starts from
static const mica_train_options options = {.optimizer = {.name = "adamw"}, .schedule = {.name = "cosine", .rate = 1e-3, .steps = 10, .warmup = 2}, .clip = 1};

static void need(bool ok, const mica_error *err) {
    if (!ok) fprintf(stderr, "%s\n", err->msg), abort();
}

static bool step(mica_error *err) {
    static const int32_t ids[TOKENS] = {5, 6, 7, 8, 9, 10}, targets[TOKENS] = {6, 7, 8, 9, 10, 11}, lengths[] = {4, 2};
    static const float weights[TOKENS] = {1, 1, 1, 0, 1, 1};
    mica_update done;
    const mica_text_batch b = {.ids = ids, .targets = targets, .weights = weights, .lengths = lengths, .n = TOKENS, .segments = 2};
    return mica_trainer_add(&trainer, &b, err) && mica_trainer_update(&trainer, &done, err);
}

static void open_data(mica_error *err) {
    static const char lines[] = "{\"text\":\"one two three four\"}\n{\"text\":\"five\"}\n{\"text\":\"six seven\"}\n";
    int fd = mkstemp(lines_path);
    mica_tokenizer *tokenizer = mica_tokenizer_load(MODEL, err);
    need(tokenizer && fd >= 0 && write(fd, lines, sizeof lines - 1) == (ssize_t)sizeof lines - 1, err);
    mica_dataset *d = mica_dataset_open(lines_path, tokenizer, NULL, &(mica_dataset_options){.max_length = 4, .too_long = MICA_LONG_SPLIT}, err);
    order = d ? mica_dataset_order_new(d, &(mica_dataset_order_options){.batch_size = 2}, err) : NULL;
    need(order != NULL, err);
    close(fd);
}

static void clean_up(void) { unlink(pristine), unlink(lines_path); }

static void start(void) {
    static const char *const targets[] = {"q_proj"};
    mica_error err = {0};
    mica_parameters p = {0};
    mica_device *device = mica_device_open("cpu", &(mica_device_options){.threads = 1}, &err);
    mica_model_files *files = device ? mica_checkpoint_open(MODEL, &err) : NULL;
    mica_net *net = files ? mica_net_load(files, &(mica_net_options){.separate = true}, device, &err) : NULL;
    need(net && mica_lora_attach(net, &(mica_lora_spec){.rank = 1, .scale = 2, .targets = targets, .target_count = 1, .layers = 1}, &err), &err);
    need(mica_parameters_add_adapters(net, &p, &err) && mica_trainer_init(&trainer, net, p, &options, &err), &err);
    open_data(&err);
    int fd = mkstemps(pristine, 12);
    if (fd < 0) abort();
    close(fd);
    atexit(clean_up);
    need(step(&err) && mica_trainer_save(&trainer, &(mica_train_state){.epoch = 1, .tokens = 5, .settings = SETTINGS}, pristine, &err), &err);
}

/** What the file calls itself. */
static uint64_t identity_of(const char *path) {
    mica_safetensors *st = mica_safetensors_open(path, NULL);
    const char *text = st ? mica_safetensors_metadata(st, "identity") : NULL;
    uint64_t identity = text ? strtoull(text, NULL, 16) : 0;
    mica_safetensors_free(st);
    return identity;
}

static void go_on(const mica_train_state *state) {
    mica_error err = {0};
    mica_text_batch b;
    int64_t before = trainer.step;
    if (before < 0 || state->epoch < 0 || state->index < 0 || state->piece < 0 || state->tokens < 0) abort();
    const mica_dataset_position place = {(uint64_t)state->epoch, (uint64_t)state->index, (uint64_t)state->piece};
    if (!(mica_dataset_order_seek(order, place, &err) && mica_dataset_next(order, &b, &err)) && !err.msg[0]) abort();
    err = (mica_error){0};
    if (!step(&err) && !err.msg[0]) abort();
    if (err.code == MICA_OK && trainer.step != before + 1) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    mica_error err = {0};
    if (!trainer.net) start();
    if (!size) return 0;
    mica_train_state state = {0};
    need(mica_trainer_restore(&trainer, &state, pristine, &err), &err);
    fuzz_file(data + 1, size - 1, path);
    state = (mica_train_state){.identity = data[0] % 2 ? 1 : identity_of(path), .settings = SETTINGS};
    if (mica_trainer_restore(&trainer, &state, path, &err)) go_on(&state);
    else if (err.code == MICA_OK || !err.msg[0]) abort();
    return 0;
}
