// SPDX-License-Identifier: Apache-2.0
// Packed examples: a batch of many lengths has the loss and the gradients that its examples have one by one, whatever lies beside them; and
// to the bit those that any number of threads computes.
// labels: threads
#include "base/base.h"
#include "mica/ops.h"
#include "train/trainer.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define GOLDEN MICA_SOURCE_DIR "/tests/golden/"
enum { MOST = 16, VOCAB = 288 };

static mica_device *device; // of what is started next

typedef struct texts { // examples of some lengths, one after another
    int32_t *ids, *targets, lengths[MOST];
    float *weights;
    size_t n, segments;
} texts;

static uint32_t draw(uint32_t *seed, uint32_t below) {
    *seed = *seed * 1103515245u + 12345u;
    return (*seed >> 16) % below;
}

static texts make_texts(uint32_t seed, size_t segments, uint32_t least, uint32_t most) {
    texts t = {.segments = segments};
    for (size_t i = 0; i < segments; i++) t.n += (size_t)(t.lengths[i] = (int32_t)(least + draw(&seed, most - least + 1)));
    t.ids = malloc(t.n * sizeof *t.ids), t.targets = malloc(t.n * sizeof *t.targets), t.weights = malloc(t.n * sizeof *t.weights);
    for (size_t i = 0; i < t.n; i++) {
        t.ids[i] = (int32_t)draw(&seed, VOCAB), t.targets[i] = (int32_t)draw(&seed, VOCAB);
        t.weights[i] = draw(&seed, 4) ? 1 : 0; // some are masked
    }
    return t;
}

static void free_texts(texts *t) { free(t->ids), free(t->targets), free(t->weights); }

/** Segments first … first + count - 1, which begin at token `at`; *n: their tokens. */
static mica_text_batch batch_of(const texts *t, size_t first, size_t count, size_t at, size_t *n) {
    *n = 0;
    for (size_t i = 0; i < count; i++) *n += (size_t)t->lengths[first + i];
    return (mica_text_batch){.ids = t->ids + at, .targets = t->targets + at, .weights = t->weights + at, .lengths = t->lengths + first, .n = *n, .segments = count};
}

/** The sums of loss, weight and gradients, `together` examples at a time. */
static void gather(mica_trainer *t, const texts *x, size_t together) {
    mica_error err = {0};
    for (size_t i = 0, at = 0, n; i < x->segments; i += together, at += n) {
        mica_text_batch b = batch_of(x, i, MICA_MIN(together, x->segments - i), at, &n);
        if (!mica_trainer_add(t, &b, &err)) fail_msg("%s", err.msg);
    }
}

static mica_trainer start(const char *model, bool full) {
    static const char *const targets[] = {"q_proj", "v_proj", "down_proj"};
    mica_error err = {0};
    mica_parameters p = {0};
    mica_trainer t = {0};
    mica_model_files *files = mica_checkpoint_open(model, &err);
    mica_net *net = files ? mica_net_load(files, &(mica_net_options){.separate = true}, device, &err) : NULL;
    bool ok = net && (full || mica_lora_attach(net, &(mica_lora_spec){.rank = 4, .scale = 2, .targets = targets, .target_count = 3, .layers = -1, .seed = 5}, &err));
    ok = ok && (full ? mica_parameters_add_weights : mica_parameters_add_adapters)(net, &p, &err);
    if (!ok || !mica_trainer_init(&t, net, p, &(mica_train_options){0}, &err)) fail_msg("%s", err.msg);
    return t;
}

static void finish(mica_trainer *t) {
    mica_net *net = t->net;
    mica_trainer_free(t);
    mica_net_free(net);
}

static float *floats(mica_array *a, size_t n) {
    float *v = malloc(n * sizeof *v);
    assert_true(v && mica_read_f32(a, v, n, NULL));
    return v;
}

/** ‖difference‖ / ‖gradient‖ over all parameters. */
static double gradients_differ(const mica_trainer *a, const mica_trainer *b) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < a->params.count; i++) {
        size_t n = (size_t)mica_size(a->grads[i]);
        float *x = floats(a->grads[i], n), *y = floats(b->grads[i], n);
        for (size_t k = 0; k < n; k++) {
            difference += ((double)x[k] - (double)y[k]) * ((double)x[k] - (double)y[k]);
            norm += (double)x[k] * (double)x[k];
        }
        free(x), free(y);
    }
    return sqrt(difference / norm);
}

static void check(const char *model, bool full, const texts *x, double loss, double gradient) {
    mica_trainer alone = start(model, full), some = start(model, full), packed = start(model, full);
    gather(&alone, x, 1), gather(&some, x, 3), gather(&packed, x, x->segments);
    double losses = fmax(fabs(packed.loss / alone.loss - 1), fabs(some.loss / alone.loss - 1));
    double gradients = fmax(gradients_differ(&alone, &packed), gradients_differ(&alone, &some));
    print_message("  %-28s %d tokens in %d: losses differ by %.1e, gradients by %.1e\n", model + sizeof GOLDEN - 1, (int)x->n, (int)x->segments, losses, gradients);
    assert_true(packed.weight == alone.weight && alone.weight > 0);
    assert_true(losses < loss && gradients < gradient);
    finish(&alone), finish(&some), finish(&packed);
}

static void mixed_lengths(void **state) {
    (void)state;
    texts x = make_texts(1, 7, 20, 500);
    check(GOLDEN "models/llama-f32", true, &x, 2e-6, 5e-5);
    check(GOLDEN "models/gemma3-text-f32", true, &x, 2e-6, 5e-5); // beyond its window
    check(GOLDEN "models/qwen3-bf16", false, &x, 1e-4, 1e-2);
    check(GOLDEN "quant/llama-4bit-float32", false, &x, 2e-6, 5e-5);
    free_texts(&x);
}

static void short_ones(void **state) {
    (void)state;
    texts x = make_texts(2, 16, 1, 5);
    check(GOLDEN "models/qwen2-f32", true, &x, 2e-6, 5e-5);
    check(GOLDEN "models/gemma3-text-f32", false, &x, 2e-6, 5e-5);
    free_texts(&x);
}

static void same_bits(const char *model, bool full, const texts *x) {
    static const int32_t threads[] = {1, 2, 5};
    mica_device *devices[3], *before = device;
    mica_trainer t[3];
    for (size_t i = 0; i < 3; i++) {
        assert_non_null(device = devices[i] = mica_device_open("cpu", &(mica_device_options){.threads = threads[i]}, NULL));
        t[i] = start(model, full);
        gather(&t[i], x, x->segments);
        assert_true(t[i].loss == t[0].loss);
        for (size_t k = 0; k < t[i].params.count; k++) {
            size_t n = (size_t)mica_size(t[0].grads[k]);
            float *a = floats(t[0].grads[k], n), *b = floats(t[i].grads[k], n);
            if (memcmp(a, b, n * sizeof *a)) fail_msg("%s: with %d threads the gradient of %s has other bits", model, threads[i], t[i].params.items[k].name);
            free(a), free(b);
        }
    }
    for (size_t i = 0; i < 3; i++) finish(&t[i]), mica_device_close(devices[i]);
    device = before;
}

static void any_number_of_threads(void **state) {
    (void)state;
    texts x = make_texts(3, 5, 20, 300);
    same_bits(GOLDEN "models/llama-f32", true, &x);
    same_bits(GOLDEN "models/gemma3-text-bf16", false, &x);
    same_bits(GOLDEN "quant/llama-4bit-g64", false, &x);
    free_texts(&x);
}

static int set_up(void **state) {
    (void)state;
    return !(device = mica_device_open("cpu", &(mica_device_options){.threads = 2}, NULL));
}

static int tear_down(void **state) {
    (void)state;
    mica_device_close(device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(mixed_lengths), cmocka_unit_test(short_ones), cmocka_unit_test(any_number_of_threads)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
