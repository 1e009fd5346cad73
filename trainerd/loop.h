/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop - the main loop of a training run: from the first step, or the one after the newest checkpoint, to the last.
 */
#ifndef SALT_LOOP_H
#define SALT_LOOP_H

#include "base/err/err.h"
#include "trainerd/comm.h"

struct bus;
struct config;
struct status;

struct loop_options {
	const struct config *config;
	struct comm *comm;
	struct bus *bus;
	struct status *status;
	const char *name;		/* of this rank: "trainerd-0" */
	const char *status_endpoint;
};

/*
 * loop_run - collective. Returns 0 after the last step; ERR_STOPPED after a checkpoint, on a stop request or after
 * trainer.wait_max_s (start again to resume); other errors with a note. The last complete checkpoint is kept in every
 * case.
 */
int loop_run(const struct loop_options *o, struct err_note *note);

#endif
