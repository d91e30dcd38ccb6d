// SPDX-License-Identifier: Apache-2.0
// The trainer: a net, the parameters that change, their gradients and the optimiser. It knows nothing of files but its own checkpoint.
#ifndef MICA_TRAIN_TRAINER_H
#define MICA_TRAIN_TRAINER_H

#include "mica/train.h"
#include "model/training.h"
#include "train/data.h"

typedef struct mica_trainer {
    mica_net *net;            // borrowed
    mica_parameters params;
    mica_optimizer *optimizer;
    mica_schedule schedule;
    double clip;
    mica_scope *scope;
    mica_array **grads;       // [params.count] of the update being gathered, kept; NULL: none yet
    double loss, weight;      // sums over the batches of the update being gathered
    int64_t step;             // updates done
} mica_trainer;

/** Of what was updated. */
typedef struct mica_update {
    double loss, weight, grad_norm, learning_rate; // loss: the sum over scored tokens; weight: their number
} mica_update;

/** params: taken over, also on failure. */
bool mica_trainer_init(mica_trainer *t, mica_net *net, mica_parameters params, const mica_train_options *options, mica_error *err);
void mica_trainer_free(mica_trainer *t);
/** Adds a batch's gradients. */
bool mica_trainer_add(mica_trainer *t, const mica_text_batch *batch, mica_error *err);
/** Updates the parameters with the mean gradient of what was added. A loss or norm that is not finite fails and changes nothing. */
bool mica_trainer_update(mica_trainer *t, mica_update *done, mica_error *err);
/** Loss of a batch, without gradients: sum and number of scored tokens are added. */
bool mica_trainer_measure(mica_trainer *t, const mica_text_batch *batch, double *loss, double *weight, mica_error *err);

/** The model's tokenizer and its template, NULL if it has none. */
bool mica_train_load_text(const char *model, mica_tokenizer **tokenizer, mica_template **chat, mica_error *err);
/** How data are read, by the names of mica_train_options; NULL and 0: its defaults. */
bool mica_train_data_options(const char *mask_prompt, const char *too_long, int32_t max_seq, bool skip_bad, mica_dataset_options *out, mica_error *err);

/** What else a checkpoint holds: the place in the data, and the run's own numbers. */
typedef struct mica_train_state {
    int64_t epoch, index, piece, tokens;
    uint64_t identity; // of model, data and options: a checkpoint of another run is refused
} mica_train_state;
/** One file, in place as a whole or not at all. */
bool mica_trainer_save(const mica_trainer *t, const mica_train_state *state, const char *path, mica_error *err);
bool mica_trainer_restore(mica_trainer *t, mica_train_state *state, const char *path, mica_error *err);
#endif
