/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files that make a trainer's rows. A request for rows [first, first + n) of a step creates a
 * lane for this range (not a lane of trainer.lanes): slots for that step and for the prefetch_steps after it
 * (slots.c). Rows of phase one are requested from selectord (requests.c), then checked and decoded one by one
 * by the workers; the worker that decodes the last row of a slot joins them into the struct salt_rows for the
 * caller. Rows of phase two are read from the corpus by a worker (decode.c). A slot may be dropped at any
 * time: a job for it then finds no slot with its ticket and frees its result. The public calls are in rows.c.
 */
#ifndef SALT_CLIENT_ROWS_INTERNAL_H
#define SALT_CLIENT_ROWS_INTERNAL_H

#include "client/client_internal.h"

/* A row while a worker decodes it, and then in its slot. */
struct decoded {
	struct client__job job;
	SLIST_ENTRY(decoded) spare;
	struct salt *s;
	uint64_t ticket, row, seq;	/* row: number in the plan */
	size_t i;			/* index in the slot */
	bool quarantined;
	uint8_t *record;
	size_t record_bytes;
	int32_t *tokens;		/* [L + 1] */
	struct labels_batch labels;
};

/* The rows that a caller gets, with the job that makes them. */
struct result {
	struct salt_rows rows;		/* first member: salt_rows_free gets its address */
	struct client__job job;
	struct salt *s;
	uint64_t ticket;
	struct salt_error failure;	/* phase two: the corpus cannot be read */
	struct decoded **from;		/* [n] phase one, until they are joined */
};

enum row_state { ROW_MISSING, ROW_ASKED, ROW_DECODING, ROW_HAVE };

struct row {
	enum row_state state;
	int64_t asked_ms;
	uint64_t request;		/* ROW_ASKED: id of the request */
	struct decoded *decoded;	/* ROW_HAVE */
};

struct slot {
	const struct lane *lane;
	uint64_t ticket;		/* 0: not in use */
	uint64_t step;
	bool phase_one;
	size_t n_have;
	struct row *rows;		/* [n] */
	struct result *result;		/* NULL: not complete */
};

struct lane {
	TAILQ_ENTRY(lane) next;		/* most recently used first */
	uint64_t first, n;
	uint64_t step;			/* the next step that the caller is expected to ask for */
	unsigned waiting;		/* calls that wait now */
	struct slot slots[];		/* [n_slots], the slot of a step is at step % n_slots */
};

/* What one shard has acknowledged. */
struct link {
	uint64_t acked, sent;		/* highest step of CHECKPOINTED */
	int64_t sent_ms, release_ms;
	bool released;
};

struct rows {
	TAILQ_HEAD(lane_list, lane) lanes;
	size_t n_lanes, n_slots;
	SLIST_HEAD(, decoded) spares;
	uint64_t last_ticket, last_request;
	uint64_t kept;			/* rows per block of the plan */
	bool has_sets;			/* spec is complete, and constant from then on */
	struct labels_spec spec;
	struct labels_unigram *unigram;
	struct link *links;		/* [n_shards] */
	uint64_t checkpointed, release_step;
	bool release;
	uint64_t quarantined_rows, label_bytes;
	struct status_metric *m_ahead, *m_bytes, *m_quarantined, *m_tokens, *m_wait;
};

/*
 * slots.c. Lock held, except for client__decoded_free and client__result_free.
 * client__decoded_new     a recycled object or a new one; NULL: out of memory. client__decoded_spare recycles
 *                         it; takes NULL
 * client__result_new      with arrays for tokens, seqs, kd_weight and quarantined of the slot's rows; NULL:
 *                         out of memory
 * client__rows_no_memory  reports ENOMEM with client__failed
 * client__lane_of         finds or creates the lane of a range, and moves it to the front of the list; NULL:
 *                         out of memory
 * client__lane_move       makes the lane's slots those of the steps from `step` on: drops old ones, starts
 *                         new ones
 * client__rows_ahead      number of consecutive complete steps from the next one on; the minimum over all
 *                         lanes
 */
struct decoded *client__decoded_new(struct salt *s);
void client__decoded_spare(struct rows *r, struct decoded *d);
void client__decoded_free(struct decoded *d);
struct result *client__result_new(struct salt *s, const struct slot *slot);
void client__result_free(struct result *x);
void client__rows_no_memory(struct salt *s);
struct slot *client__lane_slot(const struct rows *r, struct lane *lane, uint64_t step);
bool client__slot_is(const struct slot *slot, uint64_t step);		/* is in use for this step */
struct slot *client__slot_of_ticket(struct rows *r, uint64_t ticket);	/* NULL: it was dropped */
void client__slot_drop(struct rows *r, struct slot *slot);
struct lane *client__lane_of(struct rows *r, uint64_t first, uint64_t n);
void client__lane_move(struct salt *s, struct lane *lane, uint64_t step);
void client__lane_free(struct rows *r, struct lane *lane);
uint64_t client__rows_ahead(const struct rows *r);

/* decode.c, worker jobs: of a struct decoded (phase one) and of a struct result (phase two). */
void client__rows_decode(struct client__job *job, bool cancelled);
void client__rows_local(struct client__job *job, bool cancelled);

/* requests.c. Lock held. */
void client__rows_lost(struct salt *s, size_t shard);
bool client__rows_flushed(const struct salt *s);

#endif
