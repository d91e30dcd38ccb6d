// SPDX-License-Identifier: Apache-2.0
// Packing of weights: the layout against its definition in isa_matmul.h, GGUF blocks packed directly against the same blocks packed by
// way of MLX triples, joined weights against single ones, any number of threads, wide scales, the arena of a loader, and how much
// memory a load takes.
// labels: threads
#include "base/rng.h"
#include "device/cpu/cpu.h"
#include "device/cpu/isa.h"
#include "device/cpu/tiles.h"
#include "engine/state.h"
#include "io/gguf.h"
#include "io_testing.h"
#include "mica/array.h"
#include "model/net.h"
#include <sys/wait.h>

static uint64_t turn;
static uint32_t bits32(void) { return mica_philox_at(5, turn++).v[0]; }

static mica_device *open_level(int threads, const char *level) {
    mica_error err = {0};
    mica_device *d = mica_device_open("cpu", &(mica_device_options){.threads = threads, .level = level}, &err);
    if (!d) fail_msg("%s", err.msg);
    return d;
}

static mica_device *open_device(int threads) { return open_level(threads, NULL); }

static mica_params params_of(size_t out, size_t in, mica_quant_spec spec, mica_dtype scales) {
    return (mica_params){.packed = {.out = (int32_t)out, .in = (int32_t)in, .bits = spec.bits, .group_size = spec.group_size,
                                    .mode = (int32_t)spec.mode, .scale_dtype = (int32_t)scales}};
}

static unsigned char *fresh(size_t size) {
    unsigned char *p = malloc(size);
    assert_non_null(p);
    memset(p, 0xEE, size); // every byte is to be written
    return p;
}

// ---- layout ----------------------------------------------------------------------------------------------
typedef struct triple {
    size_t out, in;
    mica_quant_spec spec;
    mica_dtype scales;
    uint8_t *codes;
    unsigned char *words, *s, *b;
} triple;

static triple random_triple(size_t out, size_t in, mica_quant_spec spec, mica_dtype scales) {
    size_t n = out * in, groups = n / (size_t)spec.group_size * mica_dtype_size(scales);
    triple t = {out, in, spec, scales, malloc(n), malloc(n), malloc(groups), malloc(groups)};
    for (size_t i = 0; i < n; i++) t.codes[i] = (uint8_t)(bits32() & ((1u << spec.bits) - 1));
    for (size_t r = 0; r < out; r++) mica_pack_codes(spec.bits, t.codes + r * in, in, t.words + r * in * (size_t)spec.bits / 8);
    for (size_t i = 0; i < groups; i++) t.s[i] = (unsigned char)bits32(), t.b[i] = (unsigned char)bits32();
    return t;
}

static void triple_free(triple *t) { free(t->codes), free(t->words), free(t->s), free(t->b); }

// The tiles by definition, bit by bit.
static unsigned char *defined(const triple *w, const mica_cpu_tiles *t) {
    unsigned char *packed = calloc(1, mica_cpu_tiles_size(t));
    size_t size = mica_dtype_size(w->scales), groups = w->in / (size_t)t->group;
    for (size_t o = 0; o < w->out; o++) {
        unsigned char *column = packed + o / 16 * t->per_column * t->bytes;
        for (size_t k = 0; k < w->in; k++) {
            unsigned char *chunk = column + k / t->depth * t->bytes + k % t->depth / 32 * (size_t)t->bits * 64;
            int width[2], planes = mica_cpu_tile_planes(t->bits, width);
            for (int p = 0, low = 0; p < planes; chunk += width[p] * 64, low += width[p++]) {
                size_t per = 32 / (size_t)width[p], v = k % 32 / per;
                int i = (int)(k % per);
                uint32_t dword, code = (uint32_t)w->codes[o * w->in + k] >> low & ((1u << width[p]) - 1);
                memcpy(&dword, chunk + v * 64 + o % 16 * 4, 4);
                dword |= code << mica_cpu_tile_shift(width[p], i);
                memcpy(chunk + v * 64 + o % 16 * 4, &dword, 4);
            }
        }
        for (size_t g = 0; g < groups; g++) {
            unsigned char *to = column + g / t->groups * t->bytes + t->codes + (g % t->groups * 16 + o % 16) * size;
            memcpy(to, w->s + (o * groups + g) * size, size);
            memcpy(to + t->groups * 16 * size, w->b + (o * groups + g) * size, size);
        }
    }
    return packed;
}

static void check_layout(mica_device *d) {
    static const int bits[] = {2, 3, 4, 5, 6, 8}, groups[] = {16, 32, 64, 128};
    static const mica_dtype scales[] = {MICA_BF16, MICA_F16, MICA_F32};
    static const size_t outs[] = {1, 16, 37}, ins[] = {1, 2, 3, 5, 18}; // ins in groups
    for (size_t b = 0; b < MICA_COUNT(bits); b++)
        for (size_t g = 0; g < MICA_COUNT(groups); g++)
            for (size_t i = 0; i < 15; i++) {
                mica_quant_spec spec = {MICA_AFFINE, bits[b], groups[g]};
                size_t in = ins[i % 5] * (size_t)groups[g];
                if (!mica_quant_fits(spec, in)) continue;
                triple w = random_triple(outs[i / 5], in, spec, scales[(i + b) % 3]);
                mica_params p = params_of(w.out, w.in, spec, w.scales);
                mica_cpu_tiles t = mica_cpu_tiles_of(&p);
                unsigned char *got = fresh(mica_cpu_tiles_size(&t)), *want = defined(&w, &t);
                d->pack(d, &p, w.words, w.s, w.b, got);
                if (memcmp(got, want, mica_cpu_tiles_size(&t))) fail_msg("%s: [%zu,%zu] %d bits by %d", d->level, w.out, in, bits[b], groups[g]);
                free(got), free(want), triple_free(&w);
            }
}

static void layout(void **state) {
    (void)state;
    for (size_t i = 0; mica_cpu_isa_at(i); i++) {
        mica_device *d = open_level(2, mica_cpu_isa_at(i)->name);
        check_layout(d);
        mica_device_close(d);
    }
}

// Three weights as one are their tiles one after another.
static void joined_parts(void **state) {
    (void)state;
    mica_quant_spec spec = {MICA_AFFINE, 4, 64};
    mica_device *d = open_device(2);
    static const size_t outs[] = {32, 16, 21};
    mica_params whole = params_of(69, 192, spec, MICA_BF16);
    mica_pack_part parts[3] = {0};
    triple w[3];
    size_t first = 0, at = 0;
    unsigned char *got = fresh(d->packed_size(d, &whole)), *want = fresh(d->packed_size(d, &whole));
    for (size_t i = 0; i < 3; first += outs[i++]) {
        w[i] = random_triple(outs[i], 192, spec, MICA_BF16);
        mica_params p = params_of(outs[i], 192, spec, MICA_BF16);
        d->pack(d, &p, w[i].words, w[i].s, w[i].b, want + at);
        at += d->packed_size(d, &p);
        parts[i] = (mica_pack_part){.params = &whole, .packed = got, .first = first, .rows = outs[i], .words = w[i].words,
                                    .scales = w[i].s, .biases = w[i].b};
    }
    assert_int_equal(at, d->packed_size(d, &whole));
    d->pack_parts(d, parts, 3);
    assert_memory_equal(got, want, at);
    for (size_t i = 0; i < 3; i++) triple_free(&w[i]);
    free(got), free(want);
    mica_device_close(d);
}

// ---- GGUF ------------------------------------------------------------------------------------------------
static const struct { uint32_t type; size_t weights, bytes; int halves[2]; } types[] = { // halves: where f16 numbers are; -1 none
    {2, 32, 18, {0, -1}}, {3, 32, 20, {0, 2}}, {6, 32, 22, {0, -1}}, {7, 32, 24, {0, 2}}, {8, 32, 34, {0, -1}},
    {10, 256, 84, {80, 82}}, {11, 256, 110, {108, -1}}, {12, 256, 144, {0, 2}}, {13, 256, 176, {0, 2}}, {14, 256, 210, {208, -1}}};

static void u32(mica_buf *b, uint32_t v) { mica_buf_append(b, &v, 4); }
static void u64(mica_buf *b, uint64_t v) { mica_buf_append(b, &v, 8); }
static void text(mica_buf *b, const char *s) { u64(b, strlen(s)), mica_buf_puts(b, s); }

typedef struct entry { const char *key; uint32_t value; } entry;
typedef struct listed { const char *name; uint64_t dims[2]; uint32_t type; size_t bytes; } listed; // dims: in, rows (0: vector)

// Header of a llama file; returns where the data starts.
static size_t gguf_header(mica_buf *b, const entry *entries, size_t entry_count, const listed *tensors, size_t count) {
    mica_buf_puts(b, "GGUF");
    u32(b, 3), u64(b, count), u64(b, entry_count + 1);
    text(b, "general.architecture"), u32(b, 8), text(b, "llama");
    for (size_t i = 0; i < entry_count; i++) text(b, entries[i].key), u32(b, 4), u32(b, entries[i].value);
    uint64_t offset = 0;
    for (size_t i = 0; i < count; offset += (tensors[i++].bytes + 31) / 32 * 32) {
        text(b, tensors[i].name), u32(b, tensors[i].dims[1] ? 2 : 1), u64(b, tensors[i].dims[0]);
        if (tensors[i].dims[1]) u64(b, tensors[i].dims[1]);
        u32(b, tensors[i].type), u64(b, offset);
    }
    while (b->len % 32) mica_buf_putc(b, 0);
    return b->len;
}

// Blocks at random with finite numbers of moderate size; of `wide` ones, some do not fit f16 once they are biases.
static void random_blocks(mica_buf *b, size_t type, size_t n, bool wide) {
    for (size_t i = 0; i < n / types[type].weights; i++) {
        unsigned char block[256];
        for (size_t k = 0; k < types[type].bytes; k++) block[k] = (unsigned char)bits32();
        for (size_t h = 0; h < 2 && types[type].halves[h] >= 0; h++) {
            uint16_t v = (uint16_t)(bits32() & 0xBFFF);         // exponents up to 15
            if (i % 7 == 3) v = (uint16_t)(bits32() & 0x83FF);  // subnormal or zero
            if (wide && i == n / types[type].weights / 2) v = 0x7A00; // 49152
            memcpy(block + types[type].halves[h], &v, 2);
        }
        mica_buf_append(b, block, types[type].bytes);
    }
    while (b->len % 32) mica_buf_putc(b, 0);
}

static const entry usual[] = {{"llama.block_count", 1}, {"llama.attention.head_count", 2}, {"llama.attention.head_count_kv", 2},
                              {"llama.embedding_length", 64}, {"llama.feed_forward_length", 64}};

// A file with `rows` rows of `in` weights of one type as embedding, q and up.
static mica_model_files *blocks_file(const char *path, size_t type, size_t rows, size_t in, bool wide) {
    mica_buf b = {0};
    mica_error err = {0};
    static const char *const names[] = {"token_embd.weight", "blk.0.attn_q.weight", "blk.0.ffn_up.weight"};
    listed tensors[3];
    for (size_t i = 0; i < 3; i++)
        tensors[i] = (listed){names[i], {in, rows}, types[type].type, rows * in / types[type].weights * types[type].bytes};
    gguf_header(&b, usual, MICA_COUNT(usual), tensors, 3);
    for (size_t i = 0; i < 3; i++) random_blocks(&b, type, rows * in, wide);
    write_file(path, b.data, b.len);
    mica_buf_free(&b);
    mica_model_files *c = mica_checkpoint_open(path, &err);
    if (!c) fail_msg("%s", err.msg);
    return c;
}

static unsigned char *pack_directly(mica_device *d, const mica_params *p, const mica_weight *w, bool *inexact) {
    mica_pack_part part = {.params = p, .packed = fresh(d->packed_size(d, p)), .rows = (size_t)w->out, .blocks = &w->blocks};
    d->pack_parts(d, &part, 1);
    *inexact = part.inexact;
    return part.packed;
}

static void check_blocks(mica_device *d, const mica_model_files *c, const char *module) {
    mica_weight view, w;
    mica_error err = {0};
    bool inexact;
    if (!mica_checkpoint_view(c, module, -1, -1, &view, &err) || !mica_checkpoint_find(c, module, -1, -1, &w, &err)) fail_msg("%s", err.msg);
    assert_true(view.blocks.read && !view.weight.data && view.out == w.out && view.in == w.in);
    mica_params p = params_of((size_t)w.out, (size_t)w.in, w.spec, w.scales.dtype);
    size_t size = d->packed_size(d, &p);
    unsigned char *got = pack_directly(d, &p, &view, &inexact), *want = fresh(size);
    assert_false(inexact);
    d->pack(d, &p, w.weight.data, w.scales.data, w.biases.data, want);
    if (memcmp(got, want, size)) fail_msg("%s [%d,%d], %d bits by %d", module, (int)w.out, (int)w.in, w.spec.bits, w.spec.group_size);
    free(got), free(want);
    if (view.scales.dtype != w.scales.dtype) { // which a first try must notice
        p.packed.scale_dtype = (int32_t)view.scales.dtype;
        free(pack_directly(d, &p, &view, &inexact));
        assert_true(inexact);
    }
    mica_weight_release(&view), mica_weight_release(&w);
}

static void direct_is_by_way_of_triples(void **state) {
    (void)state;
    const char *folder = scratch_folder(), *path = path_in(folder, "blocks.gguf");
    mica_device *devices[] = {open_device(1), open_device(2), open_device(5)};
    for (size_t i = 0; i < MICA_COUNT(types) * 6; i++) {
        size_t type = i / 6, in = types[type].weights * (i % 3 * 4 + 1), rows = i % 2 ? 36 : 24 * 64 + 4;
        mica_model_files *c = blocks_file(path, type, rows, in, i % 6 == 5);
        check_blocks(devices[i % 3], c, "model.embed_tokens");
        check_blocks(devices[i % 3], c, "model.layers.0.self_attn.q_proj"); // rows turned back into order
        check_blocks(devices[i % 3], c, "model.layers.0.mlp.up_proj");
        mica_checkpoint_free(c);
    }
    for (size_t i = 0; i < MICA_COUNT(devices); i++) mica_device_close(devices[i]);
    mica_remove_flat_dir(folder);
}

// ---- loaders ---------------------------------------------------------------------------------------------
typedef struct loaded {
    mica_model_files *checkpoint;
    mica_device *device;
    mica_linear embed, q, joined, gated;
} loaded;

static void loaded_free(loaded *l) {
    mica_linear_free(&l->embed), mica_linear_free(&l->q), mica_linear_free(&l->joined), mica_linear_free(&l->gated);
}

static bool load_three(void *ctx, mica_error *err) {
    loaded *l = ctx;
    mica_loader ld = {.source = mica_checkpoint_source(l->checkpoint), .scope = mica_scope_new(l->device, err), .dtype = MICA_BF16, .err = err};
    int64_t out = 48, in = 256;
    const mica_module two[] = {{"model.embed_tokens", out}, {"model.layers.0.mlp.up_proj", out}};
    bool joined = false, gated = false;
    bool ok = ld.scope && mica_load_linear(&ld, "model.embed_tokens", out, in, &l->embed) &&
              mica_load_linear(&ld, "model.layers.0.self_attn.q_proj", out, in, &l->q) &&
              mica_load_joined(&ld, two, 2, in, false, &l->joined, &joined) && mica_load_joined(&ld, two, 2, in, true, &l->gated, &gated) &&
              mica_load_finish(&ld);
    assert_true(!ok || (joined && gated));
    mica_loader_free(&ld);
    return ok;
}

static bool load_and_free(void *ctx, mica_error *err) {
    bool ok = load_three(ctx, err);
    loaded_free(ctx);
    mica_device_clear_cache(((loaded *)ctx)->device);
    return ok;
}

// Runs of `run` bytes of the module's packed form lie `step` apart in l, from `offset` on.
static void same_runs(mica_device *d, const mica_model_files *c, const mica_linear *l, size_t offset, size_t run, size_t step, const char *module) {
    mica_weight w;
    mica_error err = {0};
    if (!mica_checkpoint_find(c, module, -1, -1, &w, &err)) fail_msg("%s", err.msg);
    mica_params p = params_of((size_t)w.out, (size_t)w.in, w.spec, w.scales.dtype);
    size_t size = d->packed_size(d, &p);
    unsigned char *want = fresh(size);
    d->pack(d, &p, w.weight.data, w.scales.data, w.biases.data, want);
    assert_int_equal(l->packed.packed.scale_dtype, w.scales.dtype);
    if (!run) run = size;
    for (size_t i = 0; i < size / run; i++) {
        assert_true(offset + i * step + run <= mica_nbytes(l->w));
        assert_memory_equal((const unsigned char *)mica_data(l->w) + offset + i * step, want + i * run, run);
    }
    free(want);
    mica_weight_release(&w);
}

static void same_packed(mica_device *d, const mica_model_files *c, const mica_linear *l, size_t offset, const char *module) {
    same_runs(d, c, l, offset, 0, 0, module);
}

static void arena(void **state) {
    (void)state;
    const char *folder = scratch_folder(), *path = path_in(folder, "arena.gguf");
    for (int wide = 0; wide < 2; wide++) {
        mica_error err = {0};
        loaded l = {.checkpoint = blocks_file(path, 0, 48, 256, wide), .device = open_device(2)};
        if (!load_three(&l, &err)) fail_msg("%s", err.msg);
        same_packed(l.device, l.checkpoint, &l.embed, 0, "model.embed_tokens");
        same_packed(l.device, l.checkpoint, &l.q, 0, "model.layers.0.self_attn.q_proj");
        same_packed(l.device, l.checkpoint, &l.joined, 0, "model.embed_tokens");
        same_packed(l.device, l.checkpoint, &l.joined, mica_nbytes(l.joined.w) / 2, "model.layers.0.mlp.up_proj");
        size_t block = mica_nbytes(l.gated.w) / (2 * 48 / MICA_GATE_BLOCK);
        same_runs(l.device, l.checkpoint, &l.gated, 0, block, 2 * block, "model.embed_tokens");
        same_runs(l.device, l.checkpoint, &l.gated, block, block, 2 * block, "model.layers.0.mlp.up_proj");
        // Neighbours in one arena unless they had to be packed again.
        ptrdiff_t apart = (const char *)mica_data(l.q.w) - (const char *)mica_data(l.embed.w);
        if (!wide) assert_int_equal(apart, (mica_nbytes(l.embed.w) + 63) / 64 * 64);
        loaded_free(&l);
        mica_device_clear_cache(l.device);
        sweep_allocations(load_and_free, &l);
        mica_device_close(l.device);
        mica_checkpoint_free(l.checkpoint);
    }
    mica_remove_flat_dir(folder);
}

// Weights of different kinds, or of sizes that no tile column ends with, stay apart.
static void refuses_to_join(void **state) {
    (void)state;
    const char *folder = scratch_folder();
    mica_error err = {0};
    mica_model_files *c = blocks_file(path_in(folder, "odd.gguf"), 1, 36, 64, false);
    mica_device *d = open_device(1);
    mica_loader ld = {.source = mica_checkpoint_source(c), .scope = mica_scope_new(d, &err), .dtype = MICA_BF16, .err = &err};
    const mica_module two[] = {{"model.embed_tokens", 36}, {"model.layers.0.mlp.up_proj", 36}};
    mica_linear l;
    bool joined = true;
    for (int gated = 0; gated < 2; gated++)
        assert_true(mica_load_joined(&ld, two, 2, 64, gated, &l, &joined) && !joined && ld.count == 0);
    mica_loader_free(&ld);
    mica_device_close(d);
    mica_checkpoint_free(c);
    mica_remove_flat_dir(folder);
}

// ---- memory ----------------------------------------------------------------------------------------------
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SHADOWED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SHADOWED 1
#endif
#endif

#ifndef SHADOWED
static int64_t peak_kib(void) {
    FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    long long kib = -1;
    while (f && kib < 0 && fgets(line, sizeof line, f)) sscanf(line, "VmHWM: %lld", &kib);
    if (f) fclose(f);
    return kib;
}

// One layer of zeros in Q4_1 and a table in Q8_0, as a file with holes: 41 and 34 MiB.
static void big_file(const char *path) {
    enum { D = 1024, F = 20480, V = 32768 };
    static const entry entries[] = {{"llama.block_count", 1}, {"llama.attention.head_count", 8}, {"llama.attention.head_count_kv", 8},
                                    {"llama.embedding_length", D}, {"llama.feed_forward_length", F}, {"llama.vocab_size", V}};
    listed t[] = {{"token_embd.weight", {D, V}, 8, 0}, {"output_norm.weight", {D, 0}, 0, D * 4}, {"blk.0.attn_norm.weight", {D, 0}, 0, D * 4},
                  {"blk.0.ffn_norm.weight", {D, 0}, 0, D * 4}, {"blk.0.attn_q.weight", {D, D}, 3, 0}, {"blk.0.attn_k.weight", {D, D}, 3, 0},
                  {"blk.0.attn_v.weight", {D, D}, 3, 0}, {"blk.0.attn_output.weight", {D, D}, 3, 0}, {"blk.0.ffn_gate.weight", {D, F}, 3, 0},
                  {"blk.0.ffn_up.weight", {D, F}, 3, 0}, {"blk.0.ffn_down.weight", {F, D}, 3, 0}};
    mica_buf b = {0};
    size_t size = 0;
    for (size_t i = 0; i < MICA_COUNT(t); i++) {
        if (!t[i].bytes) t[i].bytes = t[i].dims[0] * t[i].dims[1] / 32 * (t[i].type == 8 ? 34 : 20);
        size += (t[i].bytes + 31) / 32 * 32;
    }
    size += gguf_header(&b, entries, MICA_COUNT(entries), t, MICA_COUNT(t));
    write_file(path, b.data, b.len);
    assert_int_equal(truncate(path, (off_t)size), 0);
    mica_buf_free(&b);
}

// In a process of its own: the peak may pass the packed weights by little, never reach weights and file together.
static int load_in_child(const char *path) {
    mica_error err = {0};
    mica_device *d = mica_device_open("cpu", &(mica_device_options){.threads = 2}, &err);
    mica_model_files *c = d ? mica_checkpoint_open(path, &err) : NULL;
    int64_t before = peak_kib();
    mica_net *net = c ? mica_net_load(c, NULL, d, &err) : NULL;
    if (!net) return printf("%s\n", err.msg), 2;
    int64_t grown = peak_kib() - before, weights = net->weight_bytes >> 10;
    printf("  weights %d MiB, peak grew by %d MiB\n", (int)(weights >> 10), (int)(grown >> 10));
    fflush(stdout);
    mica_net_free(net);
    mica_device_close(d);
    return before < 0 || grown > weights + (16 << 10);
}

#endif

static void peak_memory(void **state) {
    (void)state;
#ifdef SHADOWED
    print_message("  skipped: a sanitizer's own memory would be measured\n");
    skip();
#else
    const char *folder = scratch_folder(), *path = path_in(folder, "big.gguf");
    big_file(path);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) _exit(load_in_child(path));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    mica_remove_flat_dir(folder);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peak_memory), cmocka_unit_test(layout), cmocka_unit_test(joined_parts), cmocka_unit_test(direct_is_by_way_of_triples),
        cmocka_unit_test(arena), cmocka_unit_test(refuses_to_join),
    };
    return cmocka_run_group_tests_name("pack", tests, NULL, NULL);
}
