/* SPDX-License-Identifier: Apache-2.0 */
/* What leases.c and submit.c share: a lease as the library holds it, and the results of its sequences. */
#ifndef SALT_CLIENT_LEASES_INTERNAL_H
#define SALT_CLIENT_LEASES_INTERNAL_H

#include "client/client_internal.h"

enum row_state {
	ROW_OPEN,			/* the caller has not given all of its result */
	ROW_ENCODING,			/* a job of the workers has it */
	ROW_READY,			/* to be sent, until selectord confirms it */
	ROW_OVER			/* confirmed, or given up */
};

/* The result of one sequence. An open row's parts are the caller's thread's, else what is under the lock. */
struct lease_row {
	struct client__job job;		/* the encoding */
	struct lease *lease;
	enum row_state state;
	uint8_t *scores;		/* [3 * L], NULL: not given, or not wanted */
	int32_t *draws;			/* [L, N] until they are encoded */
	struct labels_buf label;
	char error[128];		/* "": none */
	int64_t sent_ms;		/* last RESULT; 0: to be sent at the next turn */
	unsigned n_sent;		/* RESULTs on this connection */
};

enum lease_state {
	LEASE_WAITING,			/* fetched ahead */
	LEASE_HELD,			/* the caller's, from salt_lease to salt_return */
	LEASE_RETURNED
};

struct lease {
	struct salt_lease pub;		/* the first member: the caller's pointer is this object's */
	TAILQ_ENTRY(lease) entry;
	struct salt *s;			/* NULL after salt_close */
	/* Constant. */
	size_t shard;
	uint32_t lease_ms;
	struct labels_spec spec;	/* with want_label */
	uint64_t *seqs;			/* [n] */
	int32_t *tokens;		/* [n, L + 1] */
	int32_t *starts;		/* [n, L]; NULL: documents are not isolated */
	/* Under the lock. */
	enum lease_state state;
	bool gone;			/* selectord does not know it any more */
	int64_t renewed_ms;		/* last LEASE_RENEW; 0: to be sent at the next turn */
	int64_t granted_ms, moved_ms, expires_ms;	/* as selectord counts: see leases.c, renew */
	uint64_t progress;		/* of the last LEASE_RENEW */
	size_t n_encoding;		/* rows */
	struct lease_row *rows;		/* [n] */
};

/*
 * client__row_begin - the open row of a call, which may then be worked on without the lock. 0, or *e: SALT_FORKED, SALT_RANGE (i; the
 * row has its result), SALT_CLOSED, or the failure of the conversation.
 * client__row_end - parts were added to it: when all that is wanted is there the row goes on to the workers or to selectord. 0 or
 * SALT_CLOSED: the lease is gone meanwhile, or has expired; what was given under an expired lease is sent all the same.
 * client__row_error - the row's result is an error text, cut to size.
 */
int client__row_begin(struct salt *s, struct salt_lease *lease, uint32_t i, struct lease_row **row, struct salt_error *e);
int client__row_end(struct lease_row *row, struct salt_error *e);
int client__row_error(struct lease_row *row, const char *why, struct salt_error *e);

/* client__row_encode - in submit.c: the draws become the label; 0 or the note says why not. Without the lock. */
int client__row_encode(struct lease_row *row, struct err_note *note);

/*
 * logits.c, the arithmetic of a row u[n] of logits. Pure.
 * client__logits_top      the largest; false: one is NaN or +infinity, or all are -infinity, which is a weight of 0
 * client__logits_rank     how many ids are before y: greater logits, and equal ones of lower ids
 * client__logits_weights  weights[v] = exp((u[v] - top) / tau), double [n]; returns their sum
 * client__logits_draw     n_draws ids, ascending: for each uniform number the smallest id whose cumulative weight exceeds it times the
 *                         total. The weights are rounded to multiples of 2^-33, the uniforms overwritten
 * client__logits_best     the k best ids, best first; of equal logits the lower id
 */
bool client__logits_top(const float *u, size_t n, float *top);
int32_t client__logits_rank(const float *u, size_t n, size_t y);
double client__logits_weights(const float *u, size_t n, float top, double tau, double *weights);
void client__logits_draw(double *weights, size_t n, double *uniforms, uint32_t n_draws, int32_t *ids);
void client__logits_best(const float *u, size_t n, uint32_t k, int32_t *ids);

/* model.c: as salt_model_identity; and the tokenizer that a model is announced with. Return enum salt_code. */
int client__model_tokenizer(const struct salt_model *m, struct wire_id *id, struct salt_error *e);

#endif
