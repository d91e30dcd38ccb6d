// SPDX-License-Identifier: Apache-2.0
// Chat templates: the language, by snippets whose texts are jinja2's (tests/golden/templates/snippets.jsonl); marks of the caller's text;
// where templates come from; limits that hostile ones meet; every failing allocation.
#include "base/file.h"
#include "base/json.h"
#include "faults_testing.h"
#include "template_testing.h"
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

// ---- the language ----------------------------------------------------------------------------------------------
static void snippets(void **state) {
    (void)state;
    mica_buf text = {0}, context = {0};
    mica_error err = {0};
    size_t texts = 0, errors = 0;
    if (!mica_file_read(MICA_SOURCE_DIR "/tests/golden/templates/snippets.jsonl", 8 << 20, &text, &err)) fail_msg("%s", err.msg);
    for (char *at = text.data, *end; *at; at = end + 1) {
        mica_arena arena = {0};
        assert_non_null(end = strchr(at, '\n'));
        const mica_json *line = mica_json_parse(&arena, at, (size_t)(end - at), "snippets.jsonl", &err);
        if (!line) fail_msg("%s", err.msg);
        if (mica_json_get(line, "context")) {
            mica_json_writer w = {.out = &context};
            mica_json_put_tree(&w, mica_json_get(line, "context"));
        } else {
            const char *source = mica_json_get(line, "source")->string;
            const mica_json *want = mica_json_get(line, "text");
            if (want) check_text(source, context.data, want->string), texts++;
            else check_error(source, context.data, "line "), errors++;
        }
        mica_arena_free(&arena);
    }
    print_message("  %zu snippets give jinja2's text, %zu are errors as there\n", texts, errors);
    assert_true(texts > 500 && errors > 100);
    mica_buf_free(&text);
    mica_buf_free(&context);
}

static void errors_name_line_and_culprit(void **state) {
    (void)state;
    check_error("a\nb\n{{ raise_exception('No ' ~ x) }}", "{\"x\":\"tools\"}", "t: line 3: No tools");
    check_error("\n{% if true %}\n{{ d.a.b }}{% endif %}", "{\"d\":{}}", "t: line 3: 'dict object' has no attribute 'a'");
    check_error("\n\n{{ x|frob }}", "{}", "t: line 3: No filter named 'frob'.");
    check_error("{{ x is frob }}", "{}", "t: line 1: No test named 'frob'.");
    check_error("{{ frob(1) }}", "{}", "t: line 1: 'frob' is undefined");
    check_error("a\n{% frob %}", "{}", "t: line 2: Encountered unknown tag 'frob'");
    check_error("{{ 'a' + 1 }}", "{}", "can only concatenate str (not \"int\") to str");
    check_error("{{ 9223372036854775807 + 1 }}", "{}", "beyond 64 bits");
    check_error("{{ 99999999999999999999 }}", "{}", "beyond 64 bits");
    check_error("{{ x }}", "{\"x\":99999999999999999999}", "beyond 64 bits");
    check_error("{{ 3037000500 * 3037000500 }}", "{}", "beyond 64 bits");
    check_error("{{ (-9223372036854775807 - 1) // -1 }}", "{}", "beyond 64 bits");
    check_error("{{ 2 ** 63 }}", "{}", "beyond 64 bits");
    check_error("x", "[1]", "must be an object");
    check_error("x", "{", "not valid JSON");
    check_error("\xFF", "{}", "not UTF-8");
    check_text("{{ x }} {{ y }}", "{\"x\":-9223372036854775808,\"y\":1e400}", "-9223372036854775808 inf");
}

// ---- marks -----------------------------------------------------------------------------------------------------
/** Renders; the marked bytes must be those of `want` between the brackets ⟦ and ⟧ (which are no part of the text). */
static void check_marks(const char *source, const char *json, const char *want) {
    rendered r = render_text(source, json);
    if (!r.ok) fail_msg("%s\n%s", source, r.err.msg);
    mica_buf got = {0};
    size_t at = 0;
    for (size_t i = 0; i < r.marks.len; i++) {
        mica_mark m = r.marks.data[i];
        assert_true(m.from < m.to && m.to <= r.text.len && m.from >= at && (i == 0 || m.from > at));
        mica_buf_append(&got, r.text.data + at, m.from - at);
        mica_buf_puts(&got, "[[");
        mica_buf_append(&got, r.text.data + m.from, m.to - m.from);
        mica_buf_puts(&got, "]]");
        at = m.to;
    }
    mica_buf_append(&got, r.text.data + at, r.text.len - at);
    if (strcmp(got.data, want) != 0) fail_msg("%s\ngot  %s\nwant %s", source, got.data, want);
    mica_buf_free(&got);
    free_rendered(&r);
}

static void marks_follow_the_text(void **state) {
    (void)state;
    static const char c[] = "{\"m\":{\"c\":\"a<b>c\",\"k\":[\"x\",\"yz\"],\"n\":5},\"bos_token\":\"<s>\",\"w\":\"  q w \",\"u\":\"\xC3\xA9\xC3\x9F\"}";
    check_marks("<t>{{ m.c }}</t>", c, "<t>[[a<b>c]]</t>");
    check_marks("{{ bos_token + m.c ~ 'x' }}", c, "<s>[[a<b>c]]x");
    check_marks("{{ m.c[2:-1] }}|{{ m.c[0] }}|{{ m.c[::-1] }}", c, "[[b>]]|[[a]]|[[c>b<a]]");
    check_marks("{{ ('x' ~ m.c ~ 'y')[1:3] }}{{ ('x' ~ m.c ~ 'y')[5:] }}", c, "[[a<c]]y");
    check_marks("{{ w.strip() }}|{{ w|trim }}|{{ w.split() }}|{{ w.split(' ')|join('-') }}", c, "[[q w]]|[[q w]]|['[[q]]', '[[w]]']|--[[q]]-[[w]]-");
    check_marks("{{ m.c|replace('<', '{') }}|{{ 'a.b'|replace('.', m.c) }}|{{ m.c.replace('b', 'B') }}", c, "[[a]]{[[b>c]]|a[[a<b>c]]b|[[a<]]B[[>c]]");
    check_marks("{{ m|tojson }}", c, "{\"[[c]]\": \"[[a<b>c]]\", \"[[k]]\": [\"[[x]]\", \"[[yz]]\"], \"[[n]]\": 5}");
    check_marks("{{ m.c|upper }}{{ u|upper }}{{ m.c|title }}{{ 'x'|upper }}", c, "[[A<B>C\xC3\x89SSA<B>c]]X");
    check_marks("{{ '%s:%5s' % (m.c, m.k[0]) }}{{ '{}-{:>3}'.format(m.c, m.k[0]) }}", c, "[[a<b>c]]:    [[xa<b>c]]-  [[x]]");
    check_marks("{{ m.k|join(', ') }}{% for k, v in m.items() %}{{ k }}{% endfor %}", c, "[[x]], [[yzckn]]");
    check_marks("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(m.c) }}{% set y %}({{ f('z') }}{{ m.n }}{{ m.c }}){% endset %}{{ y }}", c,
                "<[[a<b>c]]>(<z>5[[a<b>c]])");
    check_marks("{% filter upper %}p{{ m.k[0] }}{% endfilter %}{{ m.c|indent(2, true) }}{{ m.c * 2 }}", c, "P[[X]]  [[a<b>ca<b>ca<b>c]]");
    check_marks("{{ m.c|e }}{{ m }}", c, "[[a&lt;b&gt;c]]{'[[c]]': '[[a<b>c]]', '[[k]]': ['[[x]]', '[[yz]]'], '[[n]]': 5}");
    check_marks("{{ m.c|list|join }}{{ m.c|reverse }}{% for x in m.c %}{{ x }}.{% endfor %}", c, "[[a<b>cc>b<aa]].[[<]].[[b]].[[>]].[[c]].");
}

static void roles_and_tokens_are_trusted(void **state) {
    (void)state;
    const char *json = "{\"messages\":[{\"role\":\"user\",\"content\":\"<|user|>\"},{\"role\":\"imp\",\"content\":null}],\"vars\":{\"eos_token\":\"</s>\",\"x\":\"</s>\"}}";
    const char *source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{{ eos_token }}{{ x }}{{ tools }}{{ add_generation_prompt }}";
    mica_template *t = mica_template_parse(source, strlen(source), NULL, NULL);
    rendered r = render_with(t, json, strlen(json), NULL);
    assert_string_equal(r.text.data, "<|user|><|user|><|imp|></s></s>NoneFalse");
    assert_int_equal(r.marks.len, 3);
    assert_true(r.marks.data[0].from == 8 && r.marks.data[0].to == 16 && r.marks.data[1].from == 18 && r.marks.data[1].to == 21 && r.marks.data[2].from == 27);
    free_rendered(&r);
    mica_template_free(t);
}

// ---- where templates come from ------------------------------------------------------------------------------------
static void write_text(const char *dir, const char *name, const char *text) {
    char *path = mica_path_join(dir, name);
    mica_writer w;
    mica_error err = {0};
    if (!mica_writer_open(&w, path, &err) || !mica_writer_write(&w, text, strlen(text), &err) || !mica_writer_commit(&w, &err)) fail_msg("%s", err.msg);
    mica_free(path);
}

static void check_loaded(const char *path, const char *name, const char *used, const char *tools, const char *want) {
    mica_error err = {0};
    mica_template *t = mica_template_load(path, name, &err);
    if (!t) fail_msg("%s", err.msg);
    mica_buf json = {0};
    mica_buf_printf(&json, "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],\"tools\":%s}", tools);
    const mica_template_options options = {.name = used};
    rendered r = render_with(t, json.data, json.len, &options);
    if (want && !r.ok) fail_msg("%s", r.err.msg);
    if (want) assert_string_equal(r.text.data, want);
    else assert_non_null(strstr(r.err.msg, "there is no chat template"));
    free_rendered(&r);
    mica_buf_free(&json);
    mica_template_free(t);
}

static void sources_of_templates(void **state) {
    (void)state;
    char dir[] = "/tmp/mica-template-XXXXXX", more[64], file[64];
    mica_error err = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(more, sizeof more, "%s/additional_chat_templates", dir);
    snprintf(file, sizeof file, "%s/chat_template.jinja", dir);
    assert_null(mica_template_load(dir, NULL, &err));
    assert_non_null(strstr(err.msg, "no chat template"));
    write_text(dir, "tokenizer_config.json", "{\"bos_token\":{\"content\":\"<B>\"},\"eos_token\":\"<E>\",\"pad_token\":null,\"chat_template\":\"config {{ bos_token }}{{ eos_token }}{{ pad_token }}\"}");
    check_loaded(dir, NULL, NULL, "null", "config <B><E>");
    write_text(dir, "special_tokens_map.json", "{\"eos_token\":{\"content\":\"<M>\"},\"pad_token\":\"<P>\"}");
    check_loaded(dir, NULL, NULL, "null", "config <B><M><P>");
    write_text(dir, "tokenizer_config.json", "{\"bos_token\":\"<B>\",\"added_tokens_decoder\":{},\"extra_special_tokens\":{\"image_token\":\"<I>\"},"
               "\"chat_template\":[{\"name\":\"default\",\"template\":\"d{{ bos_token }}{{ image_token }}{{ eos_token }}\"},{\"name\":\"tool_use\",\"template\":\"t{{ bos_token }}\"}]}");
    check_loaded(dir, NULL, NULL, "null", "d<B><I>");
    check_loaded(dir, NULL, NULL, "[]", "t<B>");
    check_loaded(dir, NULL, "default", "[]", "d<B><I>");
    check_loaded(dir, "tool_use", NULL, "null", "t<B>");
    check_loaded(dir, NULL, "rag", "null", NULL);
    assert_null(mica_template_load(dir, "rag", &err));
    write_text(dir, "chat_template.json", "{\"chat_template\":\"json {{ bos_token }}\"}");
    check_loaded(dir, NULL, NULL, "[]", "json <B>");
    write_text(dir, "chat_template.jinja", "file {{ bos_token }}");
    check_loaded(dir, NULL, NULL, "[]", "file <B>");
    check_loaded(file, NULL, NULL, "[]", "file ");
    assert_int_equal(mkdir(more, 0700), 0);
    write_text(more, "tool_use.jinja", "more {{ messages[0].content }}");
    check_loaded(dir, NULL, NULL, "[]", "more q");
    write_text(dir, "chat_template.jinja", "{% if %}");
    assert_null(mica_template_load(dir, NULL, &err));
    assert_non_null(strstr(err.msg, "line 1"));
    mica_remove_flat_dir(more);
    mica_remove_flat_dir(dir);
    assert_null(mica_template_load("/nonexistent", NULL, &err));
}

// ---- limits --------------------------------------------------------------------------------------------------------
static void hostile_templates_end(void **state) {
    (void)state;
    static const char *const sources[] = {
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{% if true %}{% for x in [1] %}{% call f(n + 1) %}{% endcall %}{% endfor %}{% endif %}{{ caller }}{% endmacro %}{{ f(0) }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for a in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for a in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s=[]) %}{% for a in range(100000) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s }}",
        "{% set ns = namespace(s=[]) %}{% for a in range(100000) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s|tojson }}",
        "{% set ns = namespace(s=[], t=[]) %}{% for a in range(9999) %}{% set ns.s = [ns.s] %}{% set ns.t = [ns.t] %}{% endfor %}{{ ns.s == ns.t }}",
        "{% set ns = namespace(s=(), t=()) %}{% for a in range(9999) %}{% set ns.s = (ns.s,) %}{% set ns.t = (ns.t,) %}{% endfor %}{{ ns.s < ns.t }}{{ {ns.s: 1} }}{{ ns.s in {ns.t: 1} }}",
        "{{ 'x' * 9999999999999 }}", "{{ [0] * 9999999999999 }}", "{{ '%9999999999d' % 1 }}", "{{ '{:9999999999}'.format(1) }}", "{{ 'x'.ljust(9223372036854775807) }}",
        "{{ '%.999999999f' % 1 }}", "{{ 'x'|center(9999999999) }}", "{{ 'a'|indent(9999999999, true) }}", "{{ {'a': [1]}|tojson(indent=9999999999) }}",
        "{{ '\\t'.expandtabs(9999999999) }}", "{{ [1]|batch(9999999999, 0)|list }}", "{{ [1]|slice(9999999999)|list }}", "{{ 'a'.zfill(9999999999) }}",
        "{{ ('x' * 1000000).replace('', 'y' * 1000000) }}", "{{ ('x' * 1000000).replace('x', 'y' * 1000000) }}", "{{ ('x' * 60000000).split('x') }}",
        "{% for i in range(99999) %}{{ ('a' * 10000000) in ('b' * 10000000) }}{% endfor %}", "{{ ('a' * 60000000)|list|length }}",
        "{% for i in range(99999) %}{{ ('a' * 100000).rfind('b' ~ 'a' * 50000) }}{% endfor %}", "{{ range(-9223372036854775807, 9223372036854775807) }}",
        "{% for i in range(99999) %}{{ messages|tojson }}{{ messages|sort(attribute='role') }}{% endfor %}",
        "{{ range(90000)|map('string')|join('a' * 90000) }}", "{{ ((range(100000)|list) * 500)|sort|length }}", "{{ ((range(100000)|list) * 500)|unique|list|length }}",
        "{% set ns = namespace(d={}) %}{% for i in range(100000) %}{% set ns.d = dict(ns.d, **{i|string: i}) %}{% endfor %}",
        "{{ '{0[a]}' * 3000000 }}{% for i in range(99999) %}{{ ('{}' * 30000).format() }}{% endfor %}",
    };
    for (size_t i = 0; i < MICA_COUNT(sources); i++) {
        const mica_template_options options = {.as_given = true, .most_memory = 64 << 20, .most_steps = 2000000, .most_bytes = 16 << 20};
        static const char json[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"},{\"role\":\"assistant\"}]}";
        uint64_t live = mica_alloc_get_stats().live;
        mica_error err = {0};
        mica_template *t = mica_template_parse(sources[i], strlen(sources[i]), "t", &err);
        if (!t) fail_msg("%s\n%s", sources[i], err.msg);
        double start = mica_now();
        rendered r = render_with(t, json, sizeof json - 1, &options);
        if (r.ok) fail_msg("%s\nended well", sources[i]);
        if (mica_now() - start > 20) fail_msg("%s\ntook %.1f s", sources[i], mica_now() - start);
        free_rendered(&r);
        mica_template_free(t);
        assert_int_equal(mica_alloc_get_stats().live, live);
    }
}

/** A template of parts repeated many times. */
static void check_nested(const char *open, const char *middle, const char *close, size_t times) {
    mica_buf source = {0};
    for (size_t i = 0; i < times; i++) mica_buf_puts(&source, open);
    mica_buf_puts(&source, middle);
    for (size_t i = 0; i < times; i++) mica_buf_puts(&source, close);
    mica_error err = {0};
    mica_template *t = mica_template_parse(source.data, source.len, "t", &err);
    if (t) {
        rendered r = render_with(t, "{\"x\":1}", 7, &(mica_template_options){.as_given = true});
        free_rendered(&r);
    }
    mica_template_free(t);
    mica_buf_free(&source);
}

static void deep_templates_end(void **state) {
    (void)state;
    static const struct { const char *open, *middle, *close; } shapes[] = {
        {"{{ (", "1", ") }}"}, {"(", "1", ")"}, {"{{ ", "1", " }}"}, {"{% if x %}", "y", "{% endif %}"}, {"{% for a in [1] %}", "y", "{% endfor %}"},
        {"{% macro m() %}", "y", "{% endmacro %}"}, {"{% if x %}{% else %}", "y", "{% endif %}"}, {"{% set a %}", "y", "{% endset %}"},
        {"{% filter upper %}", "y", "{% endfilter %}"}, {"{% with %}", "y", "{% endwith %}"}, {"{% generation %}", "y", "{% endgeneration %}"}};
    static const struct { const char *open, *middle, *close; } inside[] = {
        {"(", "1", ")"}, {"[", "1", "]"}, {"{1:", "1", "}"}, {"not ", "x", ""}, {"-", "1", ""}, {"x[", "0", "]"}, {"x(", "0", ")"}, {"1 if x else ", "0", ""},
        {"", "x", "|upper"}, {"", "x", ".a"}, {"", "x", "+1"}, {"", "x", "~1"}, {"", "x", "()"}, {"", "x", "[0]"}, {"", "x", " is defined"}, {"x|default(", "1", ")"},
        {"", "x", " if x else 1"}, {"", "x", " and 1"}, {"", "x", " == 1"}, {"", "1", ", 1"}, {"x is in ", "x", ""}, {"", "x", "**1"}};
    const size_t times[] = {5, 90, 150, 20000};
    for (size_t k = 0; k < MICA_COUNT(times); k++) {
        for (size_t i = 0; i < MICA_COUNT(shapes); i++) check_nested(shapes[i].open, shapes[i].middle, shapes[i].close, times[k]);
        for (size_t i = 0; i < MICA_COUNT(inside); i++) {
            mica_buf open = {0}, source = {0};
            mica_buf_puts(&source, "{{ ");
            for (size_t n = 0; n < times[k]; n++) mica_buf_puts(&source, inside[i].open);
            mica_buf_puts(&source, inside[i].middle);
            for (size_t n = 0; n < times[k]; n++) mica_buf_puts(&source, inside[i].close);
            mica_buf_puts(&source, " }}");
            check_nested("", source.data, "", 1);
            mica_buf_free(&open);
            mica_buf_free(&source);
        }
        check_nested("", "{% if x == 0 %}", "{% elif x == 2 %}", times[k]);
    }
}

// ---- failing allocations ---------------------------------------------------------------------------------------------
static const char all_parts[] =
    "{%- macro f(a, b='x', *c) %}{% endmacro %}"
    "{%- set ns = namespace(n=0) %}{%- for m in messages if m.role %}{% set ns.n = ns.n + 1 %}{{ loop.index }}{{ m.role|upper }}{{ m|tojson(indent=2) }}{{ '%5d' % ns.n }}"
    "{{ '{:>9}'.format(m.content) }}{{ m.content.split()|map('title')|join('-') }}{% endfor %}{% set z %}{{ messages|map(attribute='role')|unique|sort|list }}{% endset %}{{ z }}";

static bool parse_and_render(mica_error *err) {
    static char source[sizeof all_parts];
    static const char json[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"some text here\",\"reasoning\":\"r\"},{\"role\":\"assistant\",\"content\":\"\\u00e9\"}],\"vars\":{\"x\":[1,2.5,{\"y\":null}]}}";
    memcpy(source, all_parts, sizeof source);
    char *star = strstr(source, ", *c");
    if (star) memcpy(star, "    ", 4); // macros have no *args: blanks
    mica_text text = {0};
    mica_marks marks = {0};
    mica_template *t = mica_template_parse(source, strlen(source), "t", err);
    bool ok = t && mica_template_render(t, json, sizeof json - 1, NULL, &text, &marks, err);
    mica_text_free(&text);
    mica_marks_free(&marks);
    mica_template_free(t);
    return ok;
}

static void failing_allocations(void **state) {
    (void)state;
    mica_error err = {0};
    if (!parse_and_render(&err)) fail_msg("%s", err.msg);
    uint64_t live = mica_alloc_get_stats().live, n = 1;
    while (!run_refused(parse_and_render, n, live)) n++;
    print_message("  %d allocations refused one by one\n", (int)n - 1);
    assert_true(n > 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snippets), cmocka_unit_test(errors_name_line_and_culprit), cmocka_unit_test(marks_follow_the_text),
        cmocka_unit_test(roles_and_tokens_are_trusted), cmocka_unit_test(sources_of_templates), cmocka_unit_test(hostile_templates_end),
        cmocka_unit_test(deep_templates_end), cmocka_unit_test(failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
