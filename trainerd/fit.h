/* SPDX-License-Identifier: Apache-2.0 */
/* fit - the memory that a step takes on a GPU, and the options with which it takes less. */
#ifndef SALT_FIT_H
#define SALT_FIT_H

#include "trainerd/step.h"

/*
 * fit_bytes - what step_new allocates of device memory on one of n_ranks, with AdamW (Muon has fewer second moments). Kernels take more while
 * they run: logits of a chunk of rows, at most 1 GiB. UINT64_MAX: no such session.
 */
uint64_t fit_bytes(const struct model_config *cfg, int64_t n_params, enum dtype dtype, const struct step_options *o, int n_ranks);

/*
 * fit_find - o with the largest micro-batch, at most o's, that fits in so many bytes; with recompute only if nothing fits without it. False:
 * nothing does, and *found is untouched.
 */
bool fit_find(const struct model_config *cfg, int64_t n_params, enum dtype dtype, const struct step_options *o, int n_ranks, uint64_t bytes,
    struct step_options *found);

/*
 * fit_check - before anything is allocated: ENOMEM where a GPU has too little memory, so that other processes
 * on it lose none; a warning where kernels may find too little (gpu.tight). 0 on CPUs.
 */
int fit_check(struct kernels *k, const struct model_config *cfg, int64_t n_params, const struct step_options *o,
    int n_ranks);

/* fit_note - after ENOMEM on a GPU: replaces the note by the bytes that are needed and free, and what would fit. Nothing on CPUs. */
void fit_note(struct kernels *k, const struct model_config *cfg, int64_t n_params, const struct step_options *o, int n_ranks, struct err_note *note);

#endif
