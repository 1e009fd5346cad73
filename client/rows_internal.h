/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A trainer's rows, for the files that make them. Whoever asks for rows [first, first + n) of a step gets a lane for this range: slots for that
 * step and for the prefetch_steps after it (slots.c). Rows of phase one are asked for from selectord (requests.c), checked and decoded one by
 * one in the workers; the worker that decodes the last row of a slot joins them into the struct salt_rows that the caller will get. Rows of
 * phase two are read from the corpus by a worker (decode.c). A slot may be dropped at any time: what is under way for it finds by its ticket
 * that it is not wanted any more. rows.c has the calls.
 */
#ifndef SALT_CLIENT_ROWS_INTERNAL_H
#define SALT_CLIENT_ROWS_INTERNAL_H

#include "client/client_internal.h"

/* A row on its way through a worker, and then in its slot. */
struct decoded {
	struct client__job job;
	SLIST_ENTRY(decoded) spare;
	struct salt *s;
	uint64_t ticket, row, seq;	/* row: in the plan */
	size_t i;			/* row of the slot */
	bool quarantined;
	uint8_t *record;
	size_t record_bytes;
	int32_t *tokens;		/* [L + 1] */
	struct labels_batch labels;
};

/* What a caller gets, and before that the job that makes it. */
struct result {
	struct salt_rows rows;		/* first: salt_rows_free has its address */
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
	uint64_t request;		/* ASKED: in which request */
	struct decoded *decoded;	/* HAVE */
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
	TAILQ_ENTRY(lane) next;		/* used last: first */
	uint64_t first, n;
	uint64_t step;			/* the first that may be asked for next */
	unsigned waiting;		/* calls */
	struct slot slots[];		/* [n_slots], that of a step at step % n_slots */
};

/* What one shard has acknowledged. */
struct link {
	uint64_t acked, sent;		/* CHECKPOINTED, up to this step */
	int64_t sent_ms, release_ms;
	bool released;
};

struct rows {
	TAILQ_HEAD(lane_list, lane) lanes;
	size_t n_lanes, n_slots;
	SLIST_HEAD(, decoded) spares;
	uint64_t last_ticket, last_request;
	uint64_t kept;			/* rows of a block of the plan */
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
 * slots.c. Lock held, but for the two that free.
 * client__decoded_new     a used one with its memory, or a new one; NULL without memory. client__decoded_spare: it may be used again; takes NULL
 * client__result_new      with tokens, seqs, weights and quarantined of the slot's rows; NULL without memory
 * client__rows_no_memory  the library can make no more rows
 * client__lane_of         the lane of a range, moved to the front of the list; NULL without memory
 * client__lane_move       the lane's slots are those of the steps from `step` on
 * client__rows_ahead      complete steps without a gap from the one that is asked for next: the fewest of all lanes
 */
struct decoded *client__decoded_new(struct salt *s);
void client__decoded_spare(struct rows *r, struct decoded *d);
void client__decoded_free(struct decoded *d);
struct result *client__result_new(struct salt *s, const struct slot *slot);
void client__result_free(struct result *x);
void client__rows_no_memory(struct salt *s);
struct slot *client__lane_slot(const struct rows *r, struct lane *lane, uint64_t step);
bool client__slot_is(const struct slot *slot, uint64_t step);		/* of this step */
struct slot *client__slot_of_ticket(struct rows *r, uint64_t ticket);	/* NULL: it was dropped */
void client__slot_drop(struct rows *r, struct slot *slot);
struct lane *client__lane_of(struct rows *r, uint64_t first, uint64_t n);
void client__lane_move(struct salt *s, struct lane *lane, uint64_t step);
void client__lane_free(struct rows *r, struct lane *lane);
uint64_t client__rows_ahead(const struct rows *r);

/* decode.c, jobs of the workers: a struct decoded of phase one, a struct result of phase two. */
void client__rows_decode(struct client__job *job, bool cancelled);
void client__rows_local(struct client__job *job, bool cancelled);

/* requests.c. Lock held. */
void client__rows_lost(struct salt *s, size_t shard);
bool client__rows_flushed(const struct salt *s);

#endif
