/*
 * save - a training run's checkpoints over all ranks: write, find, load. Collective: every rank calls, every rank gets the same code.
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
	bool gather;			/* ranks do not share a file system: everything goes through rank 0 */
	unsigned keep;			/* newest ones kept */
	const uint64_t *keep_steps;
	size_t n_keep_steps;
};

/*
 * save_same_file_system - can every rank see what rank 0 writes in root? Without gather all ranks must: 0 or ERR_CONFIG (note).
 */
int save_same_file_system(struct comm *comm, const struct save_options *o, struct err_note *note);

/*
 * save_write - checkpoint of state->step: durable when it returns 0 (on rank 0's disk). A whole checkpoint of that step that is there already
 * is left alone and counts as written; a damaged one is set aside as step_NNNNNNNN.damaged-1, -2, ... On failure nothing of it is left and the one before is whole. Old ones are pruned afterwards;
 * a failure of that is logged, not returned.
 */
int save_write(struct step *s, struct comm *comm, const struct save_options *o, const struct state *state, struct err_note *note);

/*
 * save_load - newest complete checkpoint into s and *state. *found false (and 0) when there is none. A checkpoint that is damaged is
 * passed over with a warning; if all are: ERR_CORRUPT, so that a run is never silently started over.
 */
int save_load(struct step *s, struct comm *comm, const struct save_options *o, struct state *state, bool *found, struct err_note *note);

#endif
