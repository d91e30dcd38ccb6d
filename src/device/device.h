// SPDX-License-Identifier: Apache-2.0
// Room `device`: memory and kernels of one kind of hardware. The engine sees a device as this struct: buffers to
// allocate, and kernels found by op name. It hands a kernel tensors (pointer, type, shape, strides in
// elements) that are already validated; kernels assert, never fail and never allocate.
#ifndef MICA_DEVICE_H
#define MICA_DEVICE_H

#include "base/quant.h"

enum { MICA_MAX_DIMS = 8, MICA_KERNEL_INPUTS = 10 };

typedef struct mica_device mica_device;

/** Memory of a device, reference counted. `data` is a host pointer on cpu, a device pointer elsewhere. */
typedef struct mica_buffer {
    void *data;
    size_t size;          // bytes usable
    _Atomic uint32_t refs;
    mica_device *device;
    void (*release)(void *owner); // borrowed memory: called once when the last reference goes; NULL = device memory
    void *owner;
    bool reserved;                // address space only: parts of it are memory
    struct mica_buffer *next;     // free list of the device's cache
} mica_buffer;

typedef struct mica_tensor {
    unsigned char *data; // first element
    mica_dtype dtype;
    int ndim;
    bool contiguous;     // row-major without gaps
    int64_t shape[MICA_MAX_DIMS];
    int64_t stride[MICA_MAX_DIMS]; // in elements; 0 = broadcast
} mica_tensor;

/** A gated product: the weight's outputs are blocks of MICA_GATE_BLOCK gates, each followed by as many ups, and the result is
 * act(gate) * up, half as wide. */
typedef enum mica_gate { MICA_GATE_NONE = 0, MICA_GATE_SWIGLU, MICA_GATE_GEGLU } mica_gate;
enum { MICA_GATE_BLOCK = 16 };

/** What adam_step is told: (1 - beta) as NEW, the rate with the first moment's correction, the second's as ROOT, what weight decay leaves as KEEP. */
typedef enum mica_adam_number {
    MICA_ADAM_SCALE, MICA_ADAM_BETA1, MICA_ADAM_NEW1, MICA_ADAM_BETA2, MICA_ADAM_NEW2, MICA_ADAM_RATE, MICA_ADAM_ROOT, MICA_ADAM_EPS, MICA_ADAM_KEEP,
    MICA_ADAM_NUMBERS
} mica_adam_number;

/** Low-rank additions to a product: modules that it joins at most, sets of matrices to choose from at most, outputs of a tile. */
enum { MICA_LOW_RANK_MODULES = 3, MICA_LOW_RANK_SETS = 7, MICA_LOW_RANK_TILE = 16 };
/** The form of a set. Its bytes are a [modules·rank, in], each module's rows; b [tiles, rank, 16], outputs 16·tile … in the product's order; factors, f32:
 * [modules] scales and, if there are magnitudes, those [outs]. Each begins at a multiple of 64. Rank 0: no set. */
typedef struct mica_low_rank_form {
    int16_t rank;
    int8_t a, b; // mica_dtype: f32, f16 or bf16; b + MICA_LOW_RANK_MAGNITUDES: with magnitudes
} mica_low_rank_form;
enum { MICA_LOW_RANK_MAGNITUDES = 64 };

/** Parameters of an op: what is structure, not data. Zero-initialise, then set the member of the op; compared and hashed as bytes. */
typedef union mica_params {
    struct { int32_t axis; int32_t flags; } axis;              // softmax, sum, argmax, sort, cumsum, take, concatenate…
    struct { uint32_t axes; int32_t keepdims; } reduce;        // bit set of axes
    struct { double value; } scalar;                           // full, scalar operands
    struct { double start, step; } arange;
    struct { float eps; } norm;
    struct { int32_t dims, traditional; float base, scale; int32_t back; } rope; // dims rotated; back: by the negative angles
    struct { float scale; int32_t causal, window; } sdpa;      // window 0 = unbounded
    struct { float scale; int32_t causal, window, longest; } segments; // as sdpa; most rows of a segment
    /** wide: the result is f32 whatever the inputs are; mixed: the inputs' types may differ, sums are in f32, the result is of dtype. */
    struct { int32_t wide, mixed, dtype; } matmul;
    struct { int32_t bits, group_size, mode, transpose, wide; } quant; // mode: mica_quant_mode
    /** Packed quantised weight [out, in]. dtype: of the result; gate: mica_gate; int8: linear_packed rounds x to 8 bits; back: x [..., out] times
     * the weight itself, not its transpose. */
    struct { int32_t out, in, bits, group_size, mode, scale_dtype, dtype, gate, int8, back; } packed;
    struct { int32_t start[MICA_MAX_DIMS], step[MICA_MAX_DIMS]; } slice;
    struct { int32_t gate; } gated;                            // gated_grad: mica_gate
    struct { float scale; int32_t layer, window; float eps; } paged; // attention over cache pages of one layer
    /** outs: outputs of the modules, one after another or, with a gate (mica_gate), in alternate blocks; dtype: of the result. */
    struct { int32_t modules, outs[MICA_LOW_RANK_MODULES], gate, dtype; mica_low_rank_form forms[MICA_LOW_RANK_SETS]; } low_rank;
    uint64_t words[8];
} mica_params;

typedef struct mica_call {
    mica_device *device;
    const mica_params *params;
    int inputs;
    mica_tensor in[MICA_KERNEL_INPUTS];
    bool rows_alone;     // a row's result must be, bit for bit, what the row gives in a call of its own
    bool rows_many;      // rows, if there are two or more, are computed in the way that is best for many: a row's result does not depend on
                         // how many there are
    mica_tensor out;     // always contiguous, never aliases an input unless the op is marked elementwise or in place
    unsigned char *scratch; // as many bytes as the kernel's scratch function asked for, 64-byte aligned
} mica_call;

/** Runs one op; returns when its output is complete (cpu) or queued in order (cuda). */
typedef void mica_kernel_fn(const mica_call *call);
/** Scratch bytes the kernel needs for this call (data pointers are not set yet). */
typedef size_t mica_scratch_fn(const mica_call *call);

typedef struct mica_kernel {
    const char *op; // name of the op as in engine/op.def
    mica_kernel_fn *run;
    mica_scratch_fn *scratch; // NULL = none
} mica_kernel;

/** Rows of a packed weight and where they come from. A weight is one part or several, one after another: what shares an input can be
 * packed as one weight. */
typedef struct mica_pack_part {
    const mica_params *params; // .packed of the whole weight
    void *packed;              // the whole weight
    size_t first, rows;        // outputs of the weight that the part gives; first is a multiple of the device's pack_rows
    bool gated;                // blocks of MICA_GATE_BLOCK rows go to every second block, not one after another
    const void *words, *scales, *biases; // the rows as MLX stores them, of any alignment,
    const mica_quant_blocks *blocks;     // or to be read, where that is not NULL
    void (*done)(void *ctx, size_t bytes); // NULL, or told how many bytes more are packed; called from any thread
    void *ctx;
    _Atomic bool inexact;      // set if blocks hold scales that params' scale_dtype does not: the weight is useless
    size_t task, step;         // the device's own
} mica_pack_part;

struct mica_device {
    const char *name;  // "cpu"
    const char *level; // "ref", "avx2", "avx512vnni", …
    const mica_kernel *kernels; // any order; the engine looks ops up by name once, when the device opens
    size_t kernel_count;
    /** Bytes of a quantised weight (params.packed) in the layout this device computes fastest with; 0 = the plain
     * triple is fine (always so for modes other than affine). */
    size_t (*packed_size)(mica_device *d, const mica_params *params);
    /** Writes parts of packed weights with all threads of the device; their memory is touched first by the threads that pack. */
    void (*pack_parts)(mica_device *d, mica_pack_part *parts, size_t count);
    /** pack_parts for one whole weight. */
    void (*pack)(mica_device *d, const mica_params *params, const void *w, const void *scales, const void *biases, void *packed);
    size_t pack_rows; // outputs that are packed together
    /** Fresh memory, at least `size` bytes, 64-byte aligned; NULL when out of memory. */
    void *(*memory_new)(mica_device *d, size_t size);
    void (*memory_free)(mica_device *d, void *data, size_t size);
    /** Address space whose parts become memory and cease to be, in whole multiples of MICA_HUGE_PAGE (base.h). */
    void *(*memory_reserve)(mica_device *d, size_t size);
    void (*memory_unreserve)(mica_device *d, void *data, size_t size);
    bool (*memory_commit)(mica_device *d, void *data, size_t size);
    void (*memory_decommit)(mica_device *d, void *data, size_t size);
    void (*copy_in)(mica_device *d, void *to, const void *host, size_t size);
    void (*copy_out)(mica_device *d, void *host, const void *from, size_t size);
    void (*copy)(mica_device *d, void *to, const void *from, size_t size); // within the device, no overlap
    void (*close)(mica_device *d);
    struct mica_device_state *state; // buffer cache, plan cache, workspace: engine/state.h
};
#endif
