/* SPDX-License-Identifier: Apache-2.0 */
/*
 * room - whether a GPU has the memory that a step takes, and the options with which it takes less. Nothing on
 * CPUs.
 */
#ifndef SALT_ROOM_H
#define SALT_ROOM_H

#include "engine/fit/fit.h"
#include "engine/kernels/kernels.h"

/*
 * room_check - before anything is allocated: ENOMEM where the GPU of k has less free than fit_train says, so
 * that other processes on it lose none; a warning where little would be left (gpu.tight). 0 on CPUs.
 */
int room_check(struct kernels *k, const struct fit_shape *shape, int n_ranks);

/* room_note - after ENOMEM on a GPU: replaces the note by the bytes that are needed and free, what would fit, and who
 * else is there. */
void room_note(struct kernels *k, const struct fit_shape *shape, int n_ranks, struct err_note *note);

#endif
