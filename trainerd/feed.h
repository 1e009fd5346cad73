/* SPDX-License-Identifier: Apache-2.0 */
/*
 * feed - a thread that fetches the rows of the next steps. One per rank.
 *
 * Phase one: rows and labels come from selectord (all shards of selector.endpoints). Every label is checked
 * against the corpus by the hash of its L+1 tokens and decoded before a step uses it. Phase two and baseline:
 * sequences of the corpus in shuffle order, which need no other process; only RELEASE is sent to selectord
 * until it is confirmed.
 */
#ifndef SALT_FEED_H
#define SALT_FEED_H

#include <stdbool.h>
#include <stdint.h>

#include "data/corpus/corpus.h"
#include "base/err/err.h"
#include "base/hash/hash.h"
#include "data/phase/phase.h"
#include "trainerd/state.h"
#include "trainerd/step.h"

struct bus;
struct config;
struct status;

struct feed_options {
	struct bus *bus;
	const struct config *config;
	const struct corpus *corpus;	/* training corpus, its loss weights loaded; its identity is part of HELLO */
	const struct corpus *heldout;	/* NULL: none */
	struct hash128 corpus_fingerprint, heldout_fingerprint;
	bool has_tokenizer;		/* tokenizer is the model's, for a corpus that does not name one */
	struct hash128 tokenizer;
	uint32_t vocab_size;		/* the model's V; larger ids in labels are rejected */
	int rank, n_ranks;
	struct phase phase;		/* as it is at the first step */
	uint64_t first_step;
	const struct state *resumed;	/* its identities must match selectord's; NULL: a new run */
	struct status *status;
	const char *name;		/* "trainerd-0" */
	const char *status_endpoint;	/* for HELLO; "": none */
};

struct feed;

/* feed_new - starts the thread. Returns 0, ERR_CONFIG, ERR_RANGE (corpus too short), ENOMEM, errno. */
int feed_new(struct feed **f, const struct feed_options *options, struct err_note *note);
void feed_destroy(struct feed **f);		/* stops and joins; takes NULL */

/*
 * feed_poll - 0: the rows of step are complete; ERR_AGAIN: not yet; other errors are final (refused by
 * selectord, damaged corpus) and have a note. Never waits.
 */
int feed_poll(struct feed *f, uint64_t step, struct err_note *note);

/* feed_wait - sleeps until the feed's state changes, at most timeout_ms. */
void feed_wait(struct feed *f, int timeout_ms);

/*
 * The rows of a step. rows is valid until feed_done(step). The weight of a row is phase_weight, or 0 without a label.
 */
struct feed_rows {
	struct step_rows rows;
	uint64_t label_bytes;		/* of this rank's rows, encoded */
	int64_t late_rows;		/* rows of phase one whose label had not arrived in time
					   (phase_one.late: hard) */
	int64_t quarantined_rows;
};

int feed_take(struct feed *f, uint64_t step, struct feed_rows *out);	/* only after feed_poll gave 0 (or feed_late true) */
void feed_done(struct feed *f, uint64_t step);

/*
 * feed_late - true if feed_take may take missing rows of step from the corpus, without labels (phase_one.late: hard,
 * mode none).
 */
bool feed_late(struct feed *f, uint64_t step);

/*
 * feed_switch - sets the switch step that the margin decided; rows fetched for later steps are dropped and taken from
 * the corpus.
 */
void feed_switch(struct feed *f, uint64_t switch_step);

/* feed_checkpointed - sends the step of the oldest complete checkpoint to selectord, in the background. */
void feed_checkpointed(struct feed *f, uint64_t step);

/*
 * feed_release - sends RELEASE to every shard, in the background, until each has confirmed it. The switch checkpoint
 * must be durable.
 */
void feed_release(struct feed *f, uint64_t step);

/* feed_view - the feed's present state. */
struct feed_view {
	double teacher_nats;		/* the teacher's mean held-out loss; NaN: selectord has not sent it */
	bool has_sets;			/* a WELCOME has arrived; sets are its identities, for the
					   checkpoint */
	struct state_sets sets;
	bool released;			/* all shards have confirmed RELEASE */
	uint64_t ahead;			/* consecutive complete steps, from the first that is not done */
};
struct feed_view feed_view(struct feed *f);

#endif
