/* SPDX-License-Identifier: Apache-2.0 */
/*
 * room - checks that a GPU has the memory that a step needs, and finds options that need less. No effect on
 * CPUs.
 */
#ifndef SALT_ROOM_H
#define SALT_ROOM_H

#include "engine/fit/fit.h"
#include "engine/kernels/kernels.h"

/*
 * room_check - call it before anything is allocated: ENOMEM if the GPU of k has less memory free than
 * fit_train computes, so that other processes on it lose none; a warning if little would be left (gpu.tight).
 * 0 on CPUs.
 */
int room_check(struct kernels *k, const struct fit_shape *shape, int n_ranks);

/*
 * room_note - after ENOMEM on a GPU: replaces the note by the bytes needed and free, options that would fit,
 * and the other processes on the GPU.
 */
void room_note(struct kernels *k, const struct fit_shape *shape, int n_ranks, struct err_note *note);

#endif
