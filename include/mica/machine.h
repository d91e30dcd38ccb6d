// SPDX-License-Identifier: Apache-2.0
// What this machine has to compute with: devices, and the instruction-set levels of its CPU.
#ifndef MICA_MACHINE_H
#define MICA_MACHINE_H

#include "mica/error.h"
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MICA_MACHINE_LEVELS = 8 };

typedef struct mica_machine {
    char name[16];                       // "cpu"
    char model[128];                     // what the processor calls itself; "unknown" if it does not say
    int32_t threads;                     // CPUs that this process may run on
    int64_t memory_bytes;                // of the machine
    int32_t level_count;
    const char *levels[MICA_MACHINE_LEVELS]; // "ref", "avx2", …: those this CPU has, slowest first; static strings
    const char *level;                   // the one in use: the best, unless $MICA_CPU names another
} mica_machine;

/** Describes a device. name: NULL or "cpu". An unknown name, or a $MICA_CPU that this CPU does not have, fails. */
MICA_API bool mica_machine_read(const char *name, mica_machine *machine, mica_error *err);

#ifdef __cplusplus
}
#endif
#endif
