// SPDX-License-Identifier: Apache-2.0
// labels: threads kernels
// Room base: JSON round trips and refusals, the thread pool under load, half floats exhaustively.
#include "base/base.h"
#include "base/half.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/thread.h"
#include <math.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void json_round_trip(void **state) {
    (void)state;
    static const char text[] = "{\"a\":[1,-2.5,true,null,\"x\\u00e9\\n\\u0000\"],\"b\":{\"c\":9007199254740993},\"d\":1e300}";
    mica_arena arena = {0};
    mica_error err = {0};
    const mica_json *v = mica_json_parse(&arena, text, strlen(text), "test", &err);
    assert_non_null(v);
    assert_int_equal(mica_json_get(mica_json_get(v, "b"), "c")->integer, 9007199254740993LL);
    mica_buf out = {0};
    mica_json_writer w = {.out = &out};
    mica_json_put_tree(&w, v);
    assert_string_equal(out.data, "{\"a\":[1,-2.5,true,null,\"x\xC3\xA9\\n\\u0000\"],\"b\":{\"c\":9007199254740993},\"d\":1e+300}");
    mica_buf_free(&out);
    mica_arena_free(&arena);
}

static void json_refusals(void **state) {
    (void)state;
    char deep[400];
    memset(deep, '[', sizeof deep);
    const struct { const char *text; size_t n; } bad[] = {{"", 0}, {"{", 1}, {"[1,]", 4}, {"{\"a\" 1}", 7}, {"[1] 2", 5},
                                                          {"\"\xff\"", 3}, {"nul", 3}, {deep, sizeof deep}};
    for (size_t i = 0; i < MICA_COUNT(bad); i++) {
        mica_arena arena = {0};
        mica_error err = {0};
        assert_null(mica_json_parse(&arena, bad[i].text, bad[i].n, "bad.json", &err));
        assert_int_equal(err.code, MICA_ERR_FORMAT);
        assert_non_null(strstr(err.msg, "bad.json: line 1"));
        mica_arena_free(&arena);
    }
}

static void count_task(void *ctx, size_t task, size_t thread) {
    (void)thread;
    _Atomic unsigned *hits = ctx;
    atomic_fetch_add(&hits[task], 1);
}

static void pool_runs_every_task_once(void **state) {
    (void)state;
    for (size_t threads = 1; threads <= 5; threads += 2) {
        mica_pool *pool = mica_pool_new(threads);
        assert_non_null(pool);
        for (unsigned job = 0; job < 2000; job++) {
            enum { MOST = 37 };
            _Atomic unsigned hits[MOST] = {0};
            size_t tasks = job % MOST;
            mica_pool_run(pool, tasks, count_task, hits);
            for (size_t t = 0; t < MOST; t++) assert_int_equal(hits[t], t < tasks);
        }
        mica_pool_free(pool);
    }
}

static void halves_round_trip(void **state) {
    (void)state;
    for (uint32_t u = 0; u < 65536; u++) {
        float b = mica_bf16_to_f32((uint16_t)u), h = mica_f16_to_f32((uint16_t)u);
        if (!isnan(b)) assert_int_equal(mica_f32_to_bf16(b), u);
        if (!isnan(h)) assert_int_equal(mica_f32_to_f16(h), u);
        if (isnan(h)) assert_true(isnan(mica_f16_to_f32(mica_f32_to_f16(h))));
        // The midpoint to the next value rounds to the even neighbour.
        float next = mica_f16_to_f32((uint16_t)(u + 1));
        if (isfinite(h) && isfinite(next) && (u & 0x7FFF) < 0x7BFF)
            assert_int_equal(mica_f32_to_f16((h + next) * 0.5f), u & 1 ? u + 1 : u);
    }
    assert_int_equal(mica_f32_to_f16(65519.0f), 0x7BFF);
    assert_int_equal(mica_f32_to_f16(65520.0f), 0x7C00);
}

static void philox_known_answer(void **state) {
    (void)state;
    mica_philox p = mica_philox_at(0, 0); // Random123's known-answer vector for Philox4x32-10 of zeros
    const uint32_t want[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    assert_memory_equal(p.v, want, sizeof want);
}

static void arena_and_map(void **state) {
    (void)state;
    mica_arena a = {0};
    char *first = mica_arena_alloc(&a, 100);
    assert_non_null(mica_arena_alloc(&a, 200000));
    uint64_t calls = mica_alloc_get_stats().calls;
    mica_arena_reset(&a);
    assert_ptr_equal(mica_arena_alloc(&a, 100), first);
    assert_non_null(mica_arena_alloc(&a, 200000));
    assert_int_equal(mica_alloc_get_stats().calls, calls);
    mica_strmap m = {0};
    for (uintptr_t i = 0; i < 1000; i++) {
        char *key = mica_arena_alloc(&a, 16);
        int n = snprintf(key, 16, "key%d", (int)i);
        assert_true(mica_strmap_put(&m, key, (size_t)n, i));
    }
    uintptr_t v = 0;
    assert_true(mica_strmap_get(&m, "key777", 6, &v));
    assert_int_equal(v, 777);
    assert_false(mica_strmap_get(&m, "nokey", 5, &v));
    mica_strmap_free(&m);
    mica_arena_free(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_round_trip), cmocka_unit_test(json_refusals),
        cmocka_unit_test(pool_runs_every_task_once), cmocka_unit_test(halves_round_trip),
        cmocka_unit_test(philox_known_answer), cmocka_unit_test(arena_and_map),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
