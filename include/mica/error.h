// SPDX-License-Identifier: Apache-2.0
// Errors of the public API. A function that can fail takes `mica_error *err` last (may be NULL) and
// returns NULL or false; the error says what failed and names the culprit. Nothing is printed, nothing is
// global: the caller owns the struct, starts it as `{0}` and may reuse it after a failure.
#ifndef MICA_ERROR_H
#define MICA_ERROR_H

#if defined(__GNUC__)
#define MICA_API __attribute__((visibility("default")))
#define MICA_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define MICA_API
#define MICA_PRINTF(fmt, args)
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mica_code {
    MICA_OK = 0,
    MICA_ERR_ARGUMENT,    // the caller passed something invalid (option, shape, dtype, index)
    MICA_ERR_NO_MEMORY,   // an allocation failed or a memory limit was reached
    MICA_ERR_IO,          // the operating system refused to open, read, write or map
    MICA_ERR_FORMAT,      // a file or text is malformed
    MICA_ERR_UNSUPPORTED, // well formed, but mica does not implement it
    MICA_ERR_CANCELLED,   // stopped by the caller
    MICA_ERR_INTERNAL,    // a defect of mica
} mica_code;

typedef struct mica_error {
    mica_code code;
    char msg[500]; // one line, no newline at the end
} mica_error;

#ifdef __cplusplus
}
#endif
#endif
