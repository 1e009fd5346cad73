/* SPDX-License-Identifier: Apache-2.0 */
/*
 * save - writes, finds and loads the checkpoints of a run of many ranks. All functions are collective and return the
 * same code on all ranks. Arrays are staged between device and files in pieces of a few MiB.
 */
#ifndef SALT_SAVE_H
#define SALT_SAVE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err/err.h"
#include "trainerd/comm.h"
#include "trainerd/state.h"
#include "trainerd/step.h"

struct save_options {
	const char *root;		/* RUN/checkpoints */
	const char *tokenizer;		/* tokenizer.json to copy beside the weights; NULL: none */
	bool gather;			/* the ranks do not share a file system: rank 0 reads and writes for all */
	unsigned keep;			/* number of newest checkpoints that are kept */
	const uint64_t *keep_steps;	/* these are kept, too */
	size_t n_keep_steps;
};

/*
 * save_same_file_system - checks that all ranks see what rank 0 writes in root, which they need without gather. 0 or
 * ERR_CONFIG.
 */
int save_same_file_system(struct comm *comm, const struct save_options *o, struct err_note *note);

/*
 * save_write - checkpoint of state->step; durable when it returns 0. If a complete checkpoint of that step exists,
 * nothing is written; a damaged one is renamed to step_NNNNNNNN.damaged-1, -2, ... On failure nothing of the new
 * checkpoint is left. Afterwards old ones are pruned; a failure of that is only logged.
 */
int save_write(struct step *s, struct comm *comm, const struct save_options *o, const struct state *state, struct err_note *note);

/*
 * save_load - loads the newest complete checkpoint into s and *state; 0 and *found false when there is none. Damaged
 * checkpoints are skipped with a warning. If all are damaged it returns ERR_CORRUPT, because the run must not start
 * from the beginning unnoticed.
 */
int save_load(struct step *s, struct comm *comm, const struct save_options *o, struct state *state, bool *found, struct err_note *note);

#endif
