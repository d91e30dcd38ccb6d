// SPDX-License-Identifier: Apache-2.0
// How much memory a run will take, and how many blocks have to be computed again for it to fit.
#ifndef MICA_TRAIN_MEMORY_H
#define MICA_TRAIN_MEMORY_H

#include "train/data.h"
#include "train/trainer.h"

typedef struct mica_run_memory {
    mica_trainer *trainer;
    const mica_dataset_survey *train, *valid; // what batches will be; valid: its largest has n 0 if there is none
    bool accumulates;    // several batches for an update
    uint64_t before;     // heap bytes before the run began (mica_alloc_get_stats)
} mica_run_memory;

/** Sets the trainer's recomputed blocks: "off": 0, "on": all, "auto": as few as the budget asks for; *predicted: the peak then. A peak beyond the
 * budget fails (NO_MEMORY). budget 0: none, and for "auto" what the machine has. */
bool mica_run_fit(const mica_run_memory *m, const char *mode, int64_t budget, int64_t *predicted, mica_error *err);
#endif
