/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by feed.c (the slots of the next steps) and link.c (messages to and from selectord). */
#ifndef SALT_FEED_INT_H
#define SALT_FEED_INT_H

#include <pthread.h>

#include "fabric/bus/bus.h"
#include "fabric/session/session.h"
#include "data/labels/labels.h"
#include "trainerd/feed.h"

#define FEED_SLOTS 6			/* steps fetched ahead */

enum feed_row_state { FEED_ROW_MISSING, FEED_ROW_ASKED, FEED_ROW_HAVE };

struct feed_row {
	enum feed_row_state state;
	int64_t asked_ms;
	uint64_t request;		/* FEED_ROW_ASKED: id of the request */
	bool labelled;			/* false: quarantined, late, or no phase one */
	struct labels_batch labels;	/* L rows if labelled */
};

struct feed_slot {
	uint64_t step;
	bool used, complete;
	bool phase_one;
	struct feed_row *rows;		/* [n_rows] */
	int32_t *tokens;		/* [n_rows, L + 1] */
	float *weight;			/* [n_rows] */
	float *loss_weight;		/* [n_rows, L]; NULL: the corpus has none */
	int64_t *offsets;		/* [n_rows * L + 1] */
	int32_t *ids;
	float *values;
	size_t cap_ids, cap_values;
	float *dense;			/* [n_rows * L, V'], allocated when needed */
	uint64_t label_bytes;
	int64_t late, quarantined;
};

/* What one shard of selectord has confirmed. Used by the feed's thread alone. */
struct feed_link {
	uint64_t acked_step;		/* highest step of CHECKPOINTED that is confirmed */
	int64_t checkpointed_ms, release_ms;	/* when they were sent */
	bool released;			/* RELEASE is confirmed, or the shard failed after the switch */
};

struct feed {
	struct feed_options o;
	uint32_t context;
	uint64_t batch, n_rows;			/* n_rows: rows of this rank per step */
	struct blend *order;
	uint64_t block, kept;			/* W, K */
	struct labels_spec spec;		/* set and unigram: from WELCOME, under the lock */
	struct labels_unigram *unigram;
	struct wire_plan plan;

	pthread_t thread;
	bool started;
	struct bus_waker *waker;
	struct bus_poll *poll;			/* used by the thread only */
	struct session *session;		/* used by the thread only; NULL without links */
	struct feed_link *links;		/* [n_links] */
	size_t n_links;
	uint64_t next_request;

	pthread_mutex_t lock;			/* everything below */
	pthread_cond_t changed;
	bool stop;
	struct phase phase;
	struct feed_slot slots[FEED_SLOTS];
	uint64_t next_step;			/* first step that is not done */
	int rc;					/* final failure */
	struct err_note note;
	double teacher_nats;
	bool has_sets;
	struct state_sets sets;			/* of the first WELCOME */
	uint64_t checkpointed, release_step;
	bool release_wanted, released;
	struct status_metric *rows_ahead, *label_bytes, *bad_rows;
};

/* feed__fail - records a final failure of the feed; the first one stays. Lock held. */
void feed__fail(struct feed *f, int rc, const struct err_note *note);

/* feed__accept - takes one row that selectord sent, with its number in the plan. Lock held. */
void feed__accept(struct feed *f, uint64_t row, const struct wire_row *wr);

/*
 * link.c, all in the feed's thread. feed__links_turn: receives, requests rows, reports checkpoints and the
 * release. Lock not held.
 */
int feed__links_new(struct feed *f, struct err_note *note);
void feed__links_destroy(struct feed *f);
void feed__links_turn(struct feed *f, int64_t now_ms);

#endif
