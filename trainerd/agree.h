/* SPDX-License-Identifier: Apache-2.0 */
/* agree - gives all ranks the same result. */
#ifndef SALT_AGREE_H
#define SALT_AGREE_H

#include "base/err/err.h"
#include "trainerd/comm.h"

/*
 * agree - collective. Returns on all ranks the rc and note of the lowest rank whose rc is not 0; 0 if there is none.
 * note may be NULL.
 */
int agree(struct comm *comm, int rc, struct err_note *note);

#endif
