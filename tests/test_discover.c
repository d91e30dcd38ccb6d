// SPDX-License-Identifier: Apache-2.0
// Discovery: what counts as a model, broken configs, links, and folders that are not there.
#include "base/file.h"
#include "mica/discover.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char *put(const char *folder, const char *name, const char *text) {
    char *path = mica_path_join(folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return path;
}

static char *make_folder(const char *parent, const char *name) {
    char *path = mica_path_join(parent, name);
    assert_true(mica_mkdirs(path, NULL));
    return path;
}

// parent: a model with a model, a broken config, a folder without weights, a .gguf that is none, a link to a model and a dangling one inside.
static void what_is_a_model(void **state) {
    (void)state;
    char parent[] = "/tmp/mica-discover-XXXXXX";
    assert_non_null(mkdtemp(parent));
    static const char config[] = "{\"model_type\":\"qwen3\",\"quantization\":{\"bits\":4,\"group_size\":64}}";
    char *dirs[4] = {make_folder(parent, "a"), make_folder(parent, "broken"), make_folder(parent, "no-weights"), make_folder(parent, "outside")};
    char *files[] = {put(parent, "config.json", "{\"model_type\":\"llama\"}"), put(parent, "model.safetensors", ""), put(dirs[0], "config.json", config),
                     put(dirs[0], "model-1.safetensors", ""), put(dirs[0], "model-2.safetensors", ""), put(dirs[1], "config.json", "{\"model_type\":"),
                     put(dirs[1], "model.safetensors", ""), put(dirs[2], "config.json", config), put(parent, "x.gguf", "GGUX"),
                     mica_path_join(parent, "link"), mica_path_join(parent, "dangling")};
    assert_int_equal(symlink(dirs[0], files[9]), 0);
    assert_int_equal(symlink("/nowhere/at/all", files[10]), 0);
    mica_discovery found = {0};
    mica_error err = {0};
    assert_true(mica_discover(parent, &found, &err));
    assert_int_equal(found.count, 5);
    assert_string_equal(found.items[0].path, parent);
    assert_string_equal(found.items[0].model_type, "llama");
    assert_int_equal(found.items[0].quant_bits, 0);
    assert_string_equal(found.items[1].path, dirs[0]);
    assert_int_equal(found.items[1].quant_bits, 4);
    assert_int_equal(found.items[1].quant_group, 64);
    assert_int_equal(found.items[1].num_files, 2);
    assert_string_equal(found.items[2].path, dirs[1]);
    assert_string_equal(found.items[2].model_type, "");
    assert_string_equal(found.items[3].path, files[9]);
    assert_string_equal(found.items[3].model_type, "qwen3");
    assert_string_equal(found.items[4].path, files[8]);
    mica_discovery_free(&found);
    assert_false(mica_discover("/nowhere/at/all", &found, &err));
    assert_non_null(strstr(err.msg, "/nowhere/at/all"));
    uint64_t calls = mica_alloc_get_stats().calls, blocks = mica_alloc_get_stats().live;
    assert_true(mica_discover(parent, &found, &err));
    calls = mica_alloc_get_stats().calls - calls;
    mica_discovery_free(&found);
    for (uint64_t n = 1; n <= calls; n++) { // any allocation may fail
        mica_alloc_fail_after(n);
        mica_discover(parent, &found, &err);
        mica_alloc_fail_after(0);
        mica_discovery_free(&found);
        assert_int_equal(mica_alloc_get_stats().live, blocks);
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) unlink(files[i]), mica_free(files[i]);
    for (size_t i = 0; i < 4; i++) rmdir(dirs[i]), mica_free(dirs[i]);
    rmdir(parent);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_a_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
