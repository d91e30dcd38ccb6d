// SPDX-License-Identifier: Apache-2.0
// Options from a file: one JSON object (or YAML mapping) whose members are named as the options of the command. Names may be written with _ for -, so
// that mlx-lm's files serve as they are, their "lora_parameters" included. Nothing is passed over: a member that no option has, or whose value its
// option does not take, is named together with the file.
#include "cli/config.h"
#include <stdlib.h>
#include <string.h>

typedef mica_cli_config reader;

/** A copy that lives as long as args. */
static const char *own(mica_cli_args *args, const char *text) {
    mica_cli_strings *owned = &args->owned;
    owned->items = mica_cli_realloc(owned->items, (owned->count + 1) * sizeof *owned->items);
    return owned->items[owned->count++] = mica_cli_copy(text, strlen(text));
}

static bool wrong_value(reader *r, const mica_cli_option *o, const mica_cli_value *v) {
    char wanted[100];
    int shown = v->size < 60 ? (int)v->size : 60;
    mica_cli_option_describe(o, wanted, sizeof wanted);
    return mica_cli_usage(r->command->name, "%s: \"%s\" takes %s, not %.*s", r->path, r->key.data, wanted, shown, v->text), false;
}

static bool is_text(const mica_cli_option *o) { return o->kind == MICA_CLI_STRING || o->kind == MICA_CLI_LIST || o->kind == MICA_CLI_MAYBE || o->kind == MICA_CLI_CHOICE; }

/** A string, number or truth value. */
static bool take_simple(reader *r, const mica_cli_option *o, const mica_cli_value *v) {
    bool string = mica_cli_json_string_of(v, &r->text);
    if (!string) r->text.size = 0, mica_cli_append(&r->text, v->text, v->size);
    if (string && strlen(r->text.data) != r->text.size) return wrong_value(r, o, v); // a NUL
    if (mica_cli_json_is(v, 'n')) return true; // null: as if it were not there
    bool yes = mica_cli_json_is(v, 't'), truth = yes || mica_cli_json_is(v, 'f');
    if (o->kind == MICA_CLI_FLAG) {
        if (!truth) return wrong_value(r, o, v);
        *(bool *)((char *)r->args + o->offset) = yes;
        return true;
    }
    if (o->kind == MICA_CLI_MAYBE && truth) return mica_cli_option_store(o, yes ? "" : NULL, r->args);
    if (o->kind == MICA_CLI_CHOICE && truth) return mica_cli_option_store(o, yes ? "on" : "off", r->args);
    if (o->kind != MICA_CLI_SIZE && string != is_text(o)) return wrong_value(r, o, v);
    return mica_cli_option_store(o, string ? own(r->args, r->text.data) : r->text.data, r->args) || wrong_value(r, o, v);
}

/** An array: for an option that may be repeated its values, otherwise a text with commas between, as on the command line. */
static bool take_array(reader *r, const mica_cli_option *o, const mica_cli_value *v) {
    mica_cli_text joined = {0};
    mica_cli_value item;
    bool ok = true;
    for (const char *at = NULL; ok && mica_cli_json_next(v, &at, &r->text, &item);) {
        if (o->kind == MICA_CLI_LIST) {
            ok = take_simple(r, o, &item);
            continue;
        }
        bool string = mica_cli_json_string_of(&item, &r->text);
        if (joined.size) mica_cli_append(&joined, ",", 1);
        if (string && o->kind == MICA_CLI_STRING) mica_cli_append(&joined, r->text.data, r->text.size);
        else if (mica_cli_json_is(&item, '0') && o->kind == MICA_CLI_INTS) mica_cli_append(&joined, item.text, item.size);
        else ok = wrong_value(r, o, v);
    }
    if (ok && joined.size) ok = mica_cli_option_store(o, own(r->args, joined.data), r->args) || wrong_value(r, o, v);
    free(joined.data);
    return ok;
}

static bool take_members(reader *r, const mica_cli_value *object, bool lora);

/** In lora_parameters stands what is said of adapters, and nothing else. */
static const char *lora_option(const char *name) {
    static const char *const names[][2] = {{"keys", "targets"}, {"rank", "rank"}, {"scale", "scale"}, {"alpha", "alpha"}, {"dropout", "dropout"}, {"rslora", "rslora"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i][0]) == 0) return names[i][1];
    return NULL;
}

static bool take_lora(reader *r, const mica_cli_value *v) {
    if (mica_cli_json_is(v, 'n')) return true;
    if (mica_cli_json_is(v, '{')) return take_members(r, v, true);
    return mica_cli_usage(r->command->name, "%s: \"lora_parameters\" takes an object", r->path), false;
}

static bool take_member(reader *r, const mica_cli_value *v, bool lora) {
    const char *nearest = NULL, *name = r->key.data;
    bool known = false;
    for (char *c = r->key.data; *c; c++)
        if (*c == '_') *c = '-';
    if (lora && !(name = lora_option(name)))
        return mica_cli_usage(r->command->name, "%s: lora_parameters: there is no \"%s\"; there are rank, scale, alpha, dropout, rslora and keys", r->path, r->key.data), false;
    if (!lora && strcmp(name, "lora-parameters") == 0) return take_lora(r, v);
    if (!lora) {
        bool ok = mica_cli_config_mlx(r, name, v, &known);
        if (known) return ok;
    }
    const mica_cli_option *o = mica_cli_option_find(r->command, name, &nearest);
    if (!o || o->offset == offsetof(mica_cli_args, config) || o->offset == offsetof(mica_cli_args, help))
        return mica_cli_usage(r->command->name, "%s: there is no option \"%s\"; the nearest is \"%s\"", r->path, name, nearest), false;
    if (mica_cli_json_is(v, '{')) return wrong_value(r, o, v);
    return mica_cli_json_is(v, '[') ? take_array(r, o, v) : take_simple(r, o, v);
}

static bool take_members(reader *r, const mica_cli_value *object, bool lora) {
    mica_cli_value v;
    for (const char *at = NULL; mica_cli_json_next(object, &at, &r->key, &v);)
        if (!take_member(r, &v, lora)) return false;
    return true;
}

static bool is_yaml(const char *path) {
    const char *end = strrchr(path, '.');
    return end && (strcmp(end, ".yaml") == 0 || strcmp(end, ".yml") == 0);
}

/** The file's JSON, or the JSON that its YAML stands for. */
static bool read_text(const mica_cli_command *command, const char *path, mica_cli_text *out) {
    mica_cli_text yaml = {0};
    char why[160];
    if (!is_yaml(path)) return mica_cli_read_file(path, out);
    bool ok = mica_cli_read_file(path, &yaml);
    if (ok && !mica_cli_yaml_to_json(yaml.data, yaml.size, out, why, sizeof why)) ok = (mica_cli_usage(command->name, "%s: %s", path, why), false);
    free(yaml.data);
    return ok;
}

bool mica_cli_config_read(const mica_cli_command *command, const char *path, mica_cli_args *args) {
    reader r = {.command = command, .path = path, .args = args};
    mica_cli_text file = {0};
    mica_cli_value object;
    const char *why = "a NUL byte in it";
    bool ok = read_text(command, path, &file);
    if (ok && (strlen(file.data) != file.size || !mica_cli_json_read(file.data, &object, &why)))
        ok = (mica_cli_usage(command->name, "%s: %s", path, why), false);
    else if (ok && !mica_cli_json_is(&object, '{')) ok = (mica_cli_usage(command->name, "%s: expected a JSON object of options", path), false);
    else if (ok && (ok = take_members(&r, &object, false))) mica_cli_config_mlx_end(&r);
    free(file.data), free(r.key.data), free(r.text.data);
    return ok;
}
