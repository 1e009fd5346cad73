/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state - the contents of a checkpoint's state.json (docs/formats.md): progress of the run, and its identity, which a
 * resume must match.
 */
#ifndef SALT_STATE_H
#define SALT_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err/err.h"
#include "base/hash/hash.h"

struct json;

#define STATE_VERSION 1

/* What must not change between checkpoint and resume. */
struct state_identity {
	uint32_t seed, batch, micro_batch, lanes, context;
	struct hash128 corpus, heldout, tokenizer;	/* heldout: zero without one */
	struct hash128 loss_weights;		/* of corpus, see corpus_load_weights; zero without any, and
						   in checkpoints that do not state it */
	char compute_class[48];
	char device[64];			/* kernels_device_versions; "" on CPUs, and in checkpoints
						   that do not state it */
	char optimizer[16];			/* trainer.optimizer; "adamw" in checkpoints that do not state
						   it */
	char mode[16];				/* baseline, rkd, salt, salt_ds, salt_file */
};

/* What the rows and labels of phase one depend on, as WELCOME stated it. */
struct state_sets {
	struct hash128 plan, label_set, teacher, scorer;
};

struct state {
	struct state_identity identity;
	uint64_t step;				/* steps done = number of the next one */
	uint64_t updates;			/* of the optimiser: steps without skipped and masked ones */
	uint64_t tokens;
	uint64_t switch_step;			/* PHASE_UNKNOWN: not decided */
	char switch_by[8];			/* what decides it: "steps", "margin"; "": not known, of an older version */
	uint64_t evaluated_step;		/* step of the last evaluation, so that it is not repeated; UINT64_MAX: none */
	uint64_t skipped, late_rows;
	double train_s, wait_s;			/* seconds of steps; of waiting for rows */
	double teacher_nats;			/* teacher's held-out loss; NaN: not known */
	bool has_sets;				/* a WELCOME of selectord has arrived */
	struct state_sets sets;
	bool released;				/* selectord has confirmed RELEASE */
};

/*
 * state_to_json - NULL: out of memory. state_from_json - 0, ERR_FORMAT, ERR_VERSION; the note names the key.
 */
struct json *state_to_json(const struct state *s);
int state_from_json(const struct json *j, struct state *s, struct err_note *note);

/*
 * state_identity_check - checks that the run may resume with the present identity. Modes salt and rkd are the
 * same kind of run; a phase one may be ended, but cannot begin in the middle of a run. 0, or ERR_MISMATCH and
 * a note with the option, the checkpoint's value (expected) and the present one (found).
 */
int state_identity_check(const struct state_identity *stored, const struct state_identity *now, struct err_note *note);

/*
 * state_optimizer_check - checks that the checkpoint at path is of this run's optimiser (now), because one
 * optimiser cannot use the state of the other. 0, or ERR_MISMATCH with a note that says what to do.
 */
int state_optimizer_check(const struct state_identity *stored, const char *now, const char *path, struct err_note *note);

#endif
