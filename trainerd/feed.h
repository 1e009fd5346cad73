/*
 * feed - gets the rows of the steps to come, ahead of time, in a thread of its own. One per rank.
 *
 * Phase one: rows and labels come from selectord (all shards of selector.endpoints); every label is checked against the corpus by the
 * hash of its L+1 tokens and decoded before the step sees it. Phase two and BASELINE: windows of the own corpus in the seeded order;
 * no other process is needed, and none is talked to but for a RELEASE that nobody confirmed yet.
 */
#ifndef SALT_FEED_H
#define SALT_FEED_H

#include <stdbool.h>
#include <stdint.h>

#include "data/corpus/corpus.h"
#include "base/err/err.h"
#include "base/hash/hash.h"
#include "trainerd/phase.h"
#include "trainerd/step.h"

struct bus;
struct config;
struct status;
struct state;

struct feed_options {
	struct bus *bus;
	const struct config *config;
	const struct corpus *corpus;	/* training corpus; its fingerprint and windows are stated to selectord */
	const struct corpus *heldout;	/* NULL: none */
	struct hash128 corpus_fingerprint, heldout_fingerprint;
	bool has_tokenizer;		/* of the student's directory: stands for a corpus that names none */
	struct hash128 tokenizer;
	uint32_t vocab_size;		/* the student's V: labels at or over it are refused */
	int rank, n_ranks;
	struct phase phase;		/* as it is at the first step */
	uint64_t first_step;
	const struct state *resumed;	/* identities a resumed run must meet; NULL: a new run */
	struct status *status;
	const char *name;		/* "trainerd-0" */
	const char *status_endpoint;	/* stated in HELLO; "" none */
};

struct feed;

/* feed_new - starts the thread. Returns 0, ERR_CONFIG, ERR_RANGE (corpus too short), ENOMEM, errno. */
int feed_new(struct feed **f, const struct feed_options *options, struct err_note *note);
void feed_destroy(struct feed **f);		/* stops and joins; takes NULL */

/*
 * feed_poll - are the rows of step there? 0: yes; ERR_AGAIN: not yet; anything else is final (refused by selectord, corpus damaged), the
 * note says why. Never waits.
 */
int feed_poll(struct feed *f, uint64_t step, struct err_note *note);

/* feed_wait - sleep until something changed, at most timeout_ms. */
void feed_wait(struct feed *f, int timeout_ms);

/* What a step's rows are. rows is good until feed_done(step). weight is 0 for rows without label, else phase_weight. */
struct feed_rows {
	struct step_rows rows;
	uint64_t label_bytes;		/* of this rank's rows, as they came */
	int64_t late_rows;		/* trained without the teacher though phase one: phase_one.late: hard */
	int64_t quarantined_rows;
};

int feed_take(struct feed *f, uint64_t step, struct feed_rows *out);	/* only after feed_poll gave 0 (or feed_late true) */
void feed_done(struct feed *f, uint64_t step);

/* feed_late - could step begin now with its missing rows trained on the hard loss? Only late: hard, mode none. Then feed_take fills them. */
bool feed_late(struct feed *f, uint64_t step);

/* feed_switch - the margin decided the switch step: rows fetched for later steps are dropped and taken from the corpus. */
void feed_switch(struct feed *f, uint64_t switch_step);

/* feed_checkpointed - oldest complete checkpoint kept, told to selectord in the background. */
void feed_checkpointed(struct feed *f, uint64_t step);

/* feed_release - the switch checkpoint is durable: tell every shard, in the background, until each has confirmed. */
void feed_release(struct feed *f, uint64_t step);
bool feed_released(struct feed *f);		/* confirmed by all */

/* feed_teacher_nats - teacher's mean held-out loss if selectord knows it, else NaN. */
double feed_teacher_nats(struct feed *f);

/* feed_sets - what WELCOME said, for the checkpoint: false while no WELCOME came. */
bool feed_sets(struct feed *f, struct hash128 *plan, struct hash128 *label_set, struct hash128 *teacher, struct hash128 *scorer);

/* feed_ahead - steps whose rows are complete, from the first that is not done without a gap. */
uint64_t feed_ahead(struct feed *f);

#endif
