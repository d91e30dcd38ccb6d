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
    double clip, dropout;
    uint64_t seed;            // of dropout
    bool narrow;              // gradients of one batch stay in their parameter's type
    int32_t recompute;        // blocks whose inner values are computed again (mica_text_batch)
    mica_scope *scope;
    mica_array **grads;       // [params.count] of the update being gathered, kept; NULL: none yet
    size_t reused;            // bytes of gradients, whose memory stays from step to step
    double loss, weight;      // sums over the batches of the update being gathered
    int32_t added;            // how many batches these are
    int64_t stale;            // bytes of the mapped file that new weights have taken the place of
    int64_t step;             // updates done
    int64_t saved;            // those of the last checkpoint; 0: there is none
} mica_trainer;

/** Records the gradients of a batch, in f32 (unless `narrow`) and added to those of earlier ones, and its loss: out [params.count + 1]. */
bool mica_trainer_record(mica_trainer *t, const mica_text_batch *batch, mica_array **out);
/** Bytes of a weight that is read from the mapped file; 0: it is not. */
int64_t mica_trainer_mapped(const mica_array *weight);
/** So many bytes of the mapped file are read no more. all: drop them at once, not when they have become many. */
void mica_trainer_forget(mica_trainer *t, int64_t bytes, bool all);

/** Of what was updated. */
typedef struct mica_update {
    double loss, weight, grad_norm, learning_rate; // loss: the sum over scored tokens; weight: their number
} mica_update;

/** params: taken over, also on failure. */
bool mica_trainer_init(mica_trainer *t, mica_net *net, mica_parameters params, const mica_train_options *options, mica_error *err);
void mica_trainer_free(mica_trainer *t);
/** What a run takes, in bytes. */
typedef struct mica_trainer_need {
    size_t workspace;         // shared by everything that is computed
    size_t gradients, states; // gradients of a batch; what the optimiser will have in the end
    size_t update;            // new values of a parameter and its state, beside the old ones
    size_t plan;              // what is kept to run such a batch again
} mica_trainer_need;
/** For a batch of this size: nothing is run and nothing changes. */
bool mica_trainer_size(mica_trainer *t, const mica_text_batch *batch, mica_trainer_need *need, mica_error *err);
/** The same for mica_trainer_measure. */
bool mica_trainer_measure_size(mica_trainer *t, const mica_text_batch *batch, size_t *workspace, mica_error *err);
/** Adds a batch's gradients. */
bool mica_trainer_add(mica_trainer *t, const mica_text_batch *batch, mica_error *err);
/** Updates the parameters with the mean gradient of what was added. A loss or norm that is not finite fails and changes nothing. */
bool mica_trainer_update(mica_trainer *t, mica_update *done, mica_error *err);
/** Fails if a parameter is no longer finite (or so large that its square is not): such ones are not to be saved. */
bool mica_trainer_finite(mica_trainer *t, mica_error *err);
/** Loss of a batch, without gradients: sum and number of scored tokens are added. */
bool mica_trainer_measure(mica_trainer *t, const mica_text_batch *batch, double *loss, double *weight, mica_error *err);

/** The place of a name among three, which are the values of an option in order; the error names all. */
bool mica_train_one_of(const char *option, const char *name, const char *const names[3], int *value, mica_error *err);
/** The model with separate layers, and with the adapter of a folder unless that is NULL, to be trained or measured. */
mica_net *mica_train_load_net(const char *model, const char *adapter, mica_net_options options, mica_device *device, mica_error *err);
/** The model's tokenizer and its template, NULL if it has none. */
bool mica_train_load_text(const char *model, mica_tokenizer **tokenizer, mica_template **chat, mica_error *err);
/** How data are read, by the names of mica_train_options; NULL and 0: its defaults. */
bool mica_train_data_options(const char *mask_prompt, const char *too_long, int32_t max_seq, bool skip_bad, mica_dataset_options *out, mica_error *err);

/** What else a checkpoint holds: the place in the data, and the run's own numbers. */
typedef struct mica_train_state {
    int64_t epoch, index, piece, tokens;
    uint64_t identity; // of model, data and options: a checkpoint of another run is refused
    const char *settings; // these options as words, "rank=8 seed=3": to say what is different; NULL: not known
} mica_train_state;
/** One file, in place as a whole or not at all. */
bool mica_trainer_save(const mica_trainer *t, const mica_train_state *state, const char *path, mica_error *err);
bool mica_trainer_restore(mica_trainer *t, mica_train_state *state, const char *path, mica_error *err);
#endif
