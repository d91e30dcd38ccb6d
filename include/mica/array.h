// SPDX-License-Identifier: Apache-2.0
// Arrays: a lazy graph owned by a scope. Ops (ops.h, fast.h, random.h) only record nodes; nothing runs until mica_eval.
// Arrays belong to their scope and die with it, or at its reset; mica_keep makes one outlive it.
// Errors are sticky: the first bad op stores its message in the scope, later ops return NULL, mica_eval reports it.
// A scope is used by one thread at a time; different scopes may run on different threads.
#ifndef MICA_ARRAY_H
#define MICA_ARRAY_H

#include "mica/dtype.h"
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MICA_MAX_NDIM = 8 };

typedef struct mica_device mica_device;
typedef struct mica_scope mica_scope;
typedef struct mica_array mica_array;

/** MICA_SHAPE(2, 3) stands for the two arguments `int ndim, const int64_t *shape`; a scalar is `0, NULL`. */
#define MICA_SHAPE(...) (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]){__VA_ARGS__}

// ---- devices ------------------------------------------------------------------------------------------
typedef struct mica_device_options {
    const char *level; // CPU level "ref", "avx2", "avx512vnni", "avx512", "amx", "neon"; default $MICA_CPU, else the best there is
    int32_t threads;   // default: the CPUs this process may run on
} mica_device_options;
/** name: "cpu". Reference counted; release with mica_device_close. */
MICA_API mica_device *mica_device_open(const char *name, const mica_device_options *options, mica_error *err);
/** The shared CPU device with default options, opened on first use; it lives as long as the process. Each call takes a reference
 * (mica_device_close). NULL on failure. */
MICA_API mica_device *mica_device_default(mica_error *err);
MICA_API void mica_device_close(mica_device *device);
MICA_API const char *mica_device_name(const mica_device *device);
MICA_API const char *mica_device_level(const mica_device *device);

// These functions take NULL for all devices of the process together; they can be called before anything is loaded, and limits set so
// also hold for devices opened later.
/** Bytes of arrays alive now, at most so far, and kept for reuse. */
typedef struct mica_memory {
    size_t active, peak, cache;
} mica_memory;
MICA_API mica_memory mica_device_memory(mica_device *device);
MICA_API void mica_device_reset_peak(mica_device *device);
MICA_API void mica_device_clear_cache(mica_device *device);
/** Most bytes of freed memory kept for reuse; returns the limit before. Default 256 MiB. */
MICA_API size_t mica_device_set_cache_limit(mica_device *device, size_t bytes);
/** Allocations beyond this fail cleanly; 0 = no limit (default). Returns the limit before. */
MICA_API size_t mica_device_set_memory_limit(mica_device *device, size_t bytes);

// ---- scopes -------------------------------------------------------------------------------------------
/** device NULL = the default device. */
MICA_API mica_scope *mica_scope_new(mica_device *device, mica_error *err);
/** Forgets all its arrays and its error; keeps its memory for reuse. */
MICA_API void mica_scope_reset(mica_scope *scope);
MICA_API void mica_scope_free(mica_scope *scope);
/** True, and *err filled (err may be NULL), if an op failed since the last reset. */
MICA_API bool mica_scope_error(const mica_scope *scope, mica_error *err);

// ---- evaluation ---------------------------------------------------------------------------------------
/** Computes the arrays, and only what they need. */
MICA_API bool mica_eval(mica_scope *scope, mica_array *const *arrays, size_t count, mica_error *err);
/** Starts computing; reading an array waits for it. On the CPU device the work is done when this returns. */
MICA_API bool mica_async_eval(mica_scope *scope, mica_array *const *arrays, size_t count, mica_error *err);
/** Evaluates the array if need be and returns a copy of the handle that outlives the scope and is usable in any scope of the
 * same device, by several threads at once. NULL on error (then *err). Release with mica_array_free. */
MICA_API mica_array *mica_keep(mica_scope *scope, mica_array *array, mica_error *err);
/** Releases a kept array; NULL and arrays of a scope are left alone. */
MICA_API void mica_array_free(mica_array *array);

// ---- creation -----------------------------------------------------------------------------------------
/** Copies row-major data. */
MICA_API mica_array *mica_from_data(mica_scope *scope, const void *data, int ndim, const int64_t *shape, mica_dtype dtype);
/** Uses the caller's memory in place (host devices; any alignment a multiple of the element size). `release(owner)` is called once, when nothing
 * needs it any more; release may be NULL. If the call fails, it has been called. */
MICA_API mica_array *mica_from_borrowed(mica_scope *scope, const void *data, int ndim, const int64_t *shape, mica_dtype dtype,
                                        void (*release)(void *owner), void *owner);
MICA_API mica_array *mica_scalar(mica_scope *scope, double value, mica_dtype dtype);
MICA_API mica_array *mica_full(mica_scope *scope, int ndim, const int64_t *shape, double value, mica_dtype dtype);
MICA_API mica_array *mica_zeros(mica_scope *scope, int ndim, const int64_t *shape, mica_dtype dtype);
MICA_API mica_array *mica_ones(mica_scope *scope, int ndim, const int64_t *shape, mica_dtype dtype);
/** start, start+step, … below stop. */
MICA_API mica_array *mica_arange(mica_scope *scope, double start, double stop, double step, mica_dtype dtype);

// ---- properties ---------------------------------------------------------------------------------------
MICA_API int mica_ndim(const mica_array *a);
/** Size of a dimension; negative counts from the end; 0 if out of range. */
MICA_API int64_t mica_dim(const mica_array *a, int axis);
MICA_API const int64_t *mica_shape(const mica_array *a);
/** In elements. */
MICA_API const int64_t *mica_strides(const mica_array *a);
MICA_API int64_t mica_size(const mica_array *a);
MICA_API size_t mica_nbytes(const mica_array *a);
MICA_API mica_dtype mica_array_dtype(const mica_array *a);
MICA_API bool mica_is_contiguous(const mica_array *a);
/** Names an array for error messages; the string is copied. Returns a. */
MICA_API mica_array *mica_name(mica_array *a, const char *name);

// ---- reading (evaluates first, always in logical row-major order, any layout) ----------------------------
/** Converted to float; count must be mica_size(a). */
MICA_API bool mica_read_f32(mica_array *a, float *out, size_t count, mica_error *err);
MICA_API bool mica_read_f64(mica_array *a, double *out, size_t count, mica_error *err);
/** Converted to integers; floats are truncated towards zero. */
MICA_API bool mica_read_i64(mica_array *a, int64_t *out, size_t count, mica_error *err);
/** Raw elements in the array's own dtype. */
MICA_API bool mica_read_bytes(mica_array *a, void *out, size_t bytes, mica_error *err);
/** The only element as a number; NAN and the scope's error on failure. */
MICA_API double mica_item(mica_array *a);
/** Evaluated, contiguous, host memory: its first element; otherwise NULL. Lives as long as the array. */
MICA_API const void *mica_data(const mica_array *a);
/** Like NumPy's print, long axes shortened; *text is freed with mica_string_free. NULL on error. */
MICA_API char *mica_to_string(mica_array *a, mica_error *err);
MICA_API void mica_string_free(char *text);

#ifdef __cplusplus
}
#endif
#endif
