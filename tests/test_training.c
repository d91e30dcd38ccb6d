// SPDX-License-Identifier: Apache-2.0
// labels: kernels
// The training graph: every parameter's gradient against PyTorch's (tests/oracle/make_gradients.py), with and without checkpoints, segments
// against separate runs, adapters against finite differences, quantised weights.
#include "base/base.h"
#include "io/adapter.h"
#include "io/safetensors.h"
#include "mica/ops.h"
#include "mica/transforms.h"
#include "model/training.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define GOLDEN MICA_SOURCE_DIR "/tests/golden/"
enum { MOST = 256 };

static mica_device *device;
static mica_scope *s;

static mica_net *load(const char *folder, const char *adapter_path) {
    mica_error err = {0};
    mica_adapter adapter;
    mica_net_options o = {.separate = true};
    mica_model_files *files = mica_checkpoint_open(folder, &err);
    if (adapter_path && !mica_adapter_open(&adapter, adapter_path, &err)) fail_msg("%s", err.msg);
    if (adapter_path) o.adapter = &adapter;
    mica_net *net = files ? mica_net_load(files, &o, device, &err) : NULL;
    if (adapter_path) mica_adapter_close(&adapter);
    if (!net) fail_msg("%s", err.msg);
    return net;
}

// Loss and gradients of all parameters; *grads [count] are kept.
static double run(mica_net *net, const mica_parameters *p, const mica_text_batch *b, mica_array **grads) {
    mica_error err = {0};
    mica_array *at[MOST], *all[MOST + 1];
    mica_losses l;
    mica_scope_reset(s);
    assert_true(p->count < MOST);
    for (size_t i = 0; i < p->count; i++) at[i] = *p->items[i].place;
    bool ok = mica_net_loss(net, s, b, p, &l) && mica_grad(s, l.proxy, at, p->count, all);
    if (ok) all[p->count] = l.loss;
    ok = ok && mica_eval(s, all, p->count + 1, &err);
    if (!ok) {
        mica_scope_error(s, &err);
        fail_msg("%s", err.msg);
    }
    for (size_t i = 0; i < p->count; i++) assert_non_null(grads[i] = mica_keep(s, all[i], &err));
    double loss = mica_item(l.loss);
    mica_scope_reset(s);
    return loss;
}

static void free_all(mica_array **a, size_t n) {
    for (size_t i = 0; i < n; i++) mica_array_free(a[i]);
}

static float *floats(mica_array *a, size_t *n) {
    mica_error err = {0};
    *n = (size_t)mica_size(a);
    float *v = malloc(*n * sizeof *v);
    if (!mica_read_f32(a, v, *n, &err)) fail_msg("%s", err.msg);
    return v;
}

static const mica_stored *find(const mica_safetensors *t, const char *name, const char *kind) {
    char key[200];
    snprintf(key, sizeof key, "%s%s", name, kind);
    const mica_stored *v = mica_safetensors_find(t, key);
    if (!v) fail_msg("no %s", key);
    return v;
}

static mica_text_batch golden_batch(const mica_safetensors *t) {
    return (mica_text_batch){.ids = find(t, "ids", "")->data, .targets = find(t, "targets", "")->data, .weights = find(t, "weights", "")->data,
                             .lengths = find(t, "lengths", "")->data, .n = (size_t)find(t, "ids", "")->shape[0],
                             .segments = (size_t)find(t, "lengths", "")->shape[0]};
}

static mica_safetensors *open_golden(const char *model) {
    char path[300];
    mica_error err = {0};
    snprintf(path, sizeof path, GOLDEN "gradients/%s.safetensors", model);
    mica_safetensors *t = mica_safetensors_open(path, &err);
    if (!t) fail_msg("%s", err.msg);
    return t;
}

// ‖difference‖ / ‖reference‖ over the elements that the golden file has.
static double difference(mica_array *g, const mica_stored *want, double norm) {
    size_t n, stride, m = (size_t)want->shape[0];
    float *v = floats(g, &n), w;
    double sum = 0;
    stride = (n + 299) / 300;
    for (size_t i = 0; i < m; i++) {
        memcpy(&w, (const char *)want->data + i * 4, 4);
        sum += ((double)v[i * stride] - (double)w) * ((double)v[i * stride] - (double)w);
    }
    free(v);
    return sqrt(sum * (double)n / (double)m) / norm;
}

static void compare_model(const char *model, bool checkpoint) {
    char folder[300];
    float norm, loss;
    mica_error err = {0};
    mica_parameters p = {0};
    mica_array *grads[MOST];
    snprintf(folder, sizeof folder, GOLDEN "models/%s", model);
    mica_safetensors *t = open_golden(model);
    mica_net *net = load(folder, NULL);
    if (!mica_parameters_add_weights(net, &p, &err)) fail_msg("%s", err.msg);
    mica_text_batch b = golden_batch(t);
    b.recompute = checkpoint ? INT32_MAX : 0;
    double got = run(net, &p, &b, grads), worst = 0;
    memcpy(&loss, find(t, "loss", "")->data, 4);
    if (!(fabs(got - (double)loss) < 1e-4 * fabs((double)loss))) fail_msg("%s: loss %g, not %g", model, got, (double)loss);
    for (size_t i = 0; i < p.count; i++) {
        memcpy(&norm, find(t, p.items[i].name, ".norm")->data, 4);
        double d = difference(grads[i], find(t, p.items[i].name, ".grad"), (double)norm);
        if (!(d < 1e-4)) fail_msg("%s: gradient of %s differs by %g", model, p.items[i].name, d);
        worst = fmax(worst, d);
    }
    print_message("  %-16s %d parameters, worst gradient differs by %.1e%s\n", model, (int)p.count, worst, checkpoint ? " (checkpointed)" : "");
    assert_true(p.count * 2 + 5 == mica_safetensors_count(t)); // none is missing
    free_all(grads, p.count);
    mica_parameters_free(&p);
    mica_net_free(net);
    mica_safetensors_free(t);
}

static const char *const models[] = {"llama-f32", "qwen2-f32", "qwen3-f32", "gemma3-text-f32"};

static void gradients_are_pytorchs(void **state) {
    (void)state;
    for (size_t i = 0; i < MICA_COUNT(models); i++) compare_model(models[i], false);
}

static void checkpoints_change_nothing(void **state) {
    (void)state;
    for (size_t i = 0; i < MICA_COUNT(models); i++) {
        char folder[300];
        mica_error err = {0};
        mica_parameters p = {0};
        mica_array *a[MOST], *c[MOST];
        snprintf(folder, sizeof folder, GOLDEN "models/%s", models[i]);
        mica_safetensors *t = open_golden(models[i]);
        mica_net *net = load(folder, NULL);
        assert_true(mica_parameters_add_weights(net, &p, &err));
        mica_text_batch b = golden_batch(t);
        double x = run(net, &p, &b, a);
        int32_t blocks = mica_trained_blocks(net, &p);
        assert_int_equal(blocks, net->config->num_layers);
        for (b.recompute = 1; b.recompute <= blocks; b.recompute++) {
            assert_true(x == run(net, &p, &b, c));
            for (size_t k = 0; k < p.count; k++) {
                size_t n, m;
                float *v = floats(a[k], &n), *w = floats(c[k], &m);
                if (n != m || memcmp(v, w, n * sizeof *v)) fail_msg("%s: gradient of %s changes", models[i], p.items[k].name);
                free(v), free(w);
            }
            free_all(c, p.count);
        }
        free_all(a, p.count);
        mica_parameters_free(&p);
        mica_net_free(net);
        mica_safetensors_free(t);
    }
}

// Adapters on dense and quantised weights: the derivative along a random direction by differences. (DoRA's gradient is by design not that of its
// loss: test_trainer.c.)
static void adapters_have_gradients(void **state) {
    (void)state;
    static const char *const cases[][2] = {{"models/llama-f32", "mlx-lora"}, {"quant/llama-4bit-float32", "mlx-qlora"},
                                           {"quant/llama-4bit-float32", "mlx-embedding"}, {"models/gemma3-text-f32", "peft-embedding"}};
    mica_safetensors *t = open_golden("llama-f32");
    mica_text_batch b = golden_batch(t);
    for (size_t i = 0; i < MICA_COUNT(cases); i++) {
        char folder[300], adapter[300];
        mica_error err = {0};
        mica_parameters p = {0};
        mica_array *grads[MOST];
        snprintf(folder, sizeof folder, GOLDEN "%s", cases[i][0]);
        snprintf(adapter, sizeof adapter, GOLDEN "adapters/%s", cases[i][1]);
        mica_net *net = load(folder, adapter);
        assert_true(mica_parameters_add_adapters(net, &p, &err));
        assert_true(p.count > 1);
        run(net, &p, &b, grads);
        double slope = 0, loss[2];
        for (int side = 0; side < 2; side++) {
            mica_array *moved[MOST], *before[MOST], *unused[MOST];
            slope = 0;
            for (size_t k = 0; k < p.count; k++) {
                size_t n, m;
                float *g = floats(grads[k], &n), *v = floats(*p.items[k].place, &m);
                for (size_t e = 0; e < n; e++) {
                    float d = (float)((e * 7 + k) % 5) - 2;
                    slope += (double)(g[e] * d);
                    v[e] += (side ? 2e-4f : -2e-4f) * d;
                }
                moved[k] = mica_keep(s, mica_from_data(s, v, mica_ndim(grads[k]), mica_shape(grads[k]), MICA_F32), &err);
                before[k] = *p.items[k].place, *p.items[k].place = moved[k];
                free(g), free(v);
            }
            loss[side] = run(net, &p, &b, unused);
            for (size_t k = 0; k < p.count; k++) *p.items[k].place = before[k];
            free_all(moved, p.count), free_all(unused, p.count);
        }
        double measured = (loss[1] - loss[0]) / 4e-4;
        print_message("  %-26s slope %.5g, by differences %.5g\n", cases[i][1], slope, measured);
        if (!(fabs(slope - measured) < 5e-3 * fabs(slope) + 0.2)) fail_msg("%s: slope %g, by differences %g", cases[i][1], slope, measured);
        free_all(grads, p.count);
        mica_parameters_free(&p);
        mica_net_free(net);
    }
    mica_safetensors_free(t);
}

static double loss_of(mica_net *net, const mica_text_batch *b) {
    mica_error err = {0};
    mica_losses l;
    mica_scope_reset(s);
    if (!mica_net_loss(net, s, b, &(mica_parameters){0}, &l) || !mica_eval(s, &l.loss, 1, &err)) fail_msg("%s", err.msg);
    double loss = mica_item(l.loss);
    mica_scope_reset(s);
    return loss;
}

// Another draw, another loss; the same, the same. Nothing is dropped without one, nor from a model without adapters. On average it is the loss without.
static void what_enters_adapters_is_dropped(void **state) {
    (void)state;
    enum { DRAWS = 200 };
    static const char *const adapters[] = {"mlx-lora", "mlx-embedding"};
    for (size_t i = 0; i < MICA_COUNT(adapters); i++) {
        char path[300];
        mica_safetensors *t = open_golden("llama-f32");
        mica_text_batch b = golden_batch(t);
        snprintf(path, sizeof path, GOLDEN "adapters/%s", adapters[i]);
        mica_net *net = load(i ? GOLDEN "quant/llama-4bit-float32" : GOLDEN "models/llama-f32", path);
        double whole = loss_of(net, &b), sum = 0, squares = 0, first = 0;
        b.dropout = 0.01f;
        for (uint64_t draw = 1; draw <= DRAWS; draw++) {
            b.draw = draw;
            double loss = loss_of(net, &b);
            if (draw == 1) first = loss;
            sum += loss, squares += loss * loss;
        }
        double mean = sum / DRAWS, deviation = sqrt(fmax(squares / DRAWS - mean * mean, 0));
        print_message("  %-14s loss %.4f, with dropout %.4f ± %.4f\n", adapters[i], whole, mean, deviation);
        b.draw = 1;
        assert_true(loss_of(net, &b) == first);
        assert_true(deviation > 0 && fabs(mean - whole) < 6 * deviation / sqrt((double)DRAWS) + 1e-2 * fabs(whole));
        b.dropout = 0;
        assert_true(loss_of(net, &b) == whole);
        mica_net_free(net);
        mica_safetensors_free(t);
    }
}

static void quantised_weights_are_frozen(void **state) {
    (void)state;
    mica_error err = {0};
    mica_parameters p = {0};
    mica_net *net = load(GOLDEN "quant/llama-4bit-g64", NULL);
    assert_false(mica_parameters_add_weights(net, &p, &err));
    assert_non_null(strstr(err.msg, "quantised"));
    mica_parameters_free(&p);
    mica_net_free(net);
}

static int set_up(void **state) {
    (void)state;
    mica_error err = {0};
    device = mica_device_open("cpu", &(mica_device_options){.threads = 2}, &err);
    s = device ? mica_scope_new(device, &err) : NULL;
    return !s;
}

static int tear_down(void **state) {
    (void)state;
    mica_scope_free(s);
    mica_device_close(device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_pytorchs), cmocka_unit_test(checkpoints_change_nothing), cmocka_unit_test(adapters_have_gradients),
        cmocka_unit_test(what_enters_adapters_is_dropped), cmocka_unit_test(quantised_weights_are_frozen),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
