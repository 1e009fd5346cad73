/* SPDX-License-Identifier: Apache-2.0 */
/* What leases.c and submit.c share: a lease as the library holds it, and the results of its sequences. */
#ifndef SALT_CLIENT_LEASES_INTERNAL_H
#define SALT_CLIENT_LEASES_INTERNAL_H

#include "client/client_internal.h"

enum row_state {
	ROW_OPEN,			/* the caller has not submitted the whole result */
	ROW_ENCODING,			/* a worker is encoding it */
	ROW_READY,			/* sent, and repeated, until selectord confirms it */
	ROW_OVER			/* confirmed, or given up */
};

/*
 * The result of one sequence. The parts of an open row belong to the caller's thread, those of a row that is
 * being encoded to the worker; all others are protected by the lock.
 */
struct lease_row {
	struct client__job job;		/* the encoding */
	struct lease *lease;
	enum row_state state;
	uint8_t *scores;		/* [3 * L], NULL: not submitted, or not asked for */
	int32_t *draws;			/* [L, N] until they are encoded */
	struct labels_buf label;
	char error[128];		/* "": none */
	int64_t sent_ms;		/* time of the last RESULT; 0: send at the next turn */
	unsigned n_sent;		/* RESULTs on this connection */
};

enum lease_state {
	LEASE_WAITING,			/* fetched ahead */
	LEASE_HELD,			/* held by the caller, from salt_lease to salt_return */
	LEASE_RETURNED
};

struct lease {
	struct salt_lease pub;		/* first member: the caller's pointer is the address of this object */
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
	bool gone;			/* selectord has restarted and no longer has it */
	int64_t renewed_ms;		/* time of the last LEASE_RENEW; 0: send at the next turn */
	int64_t granted_ms, moved_ms, expires_ms;	/* as selectord counts: see renew in leases.c */
	uint64_t progress;		/* sent with the last LEASE_RENEW */
	size_t n_encoding;		/* rows */
	struct lease_row *rows;		/* [n] */
};

/*
 * client__row_begin - finds the open row of a call, which may then work on it without the lock. 0, or *e:
 * SALT_FORKED, SALT_RANGE (i, or the row already has its result), SALT_CLOSED, or salt.failure.
 * client__row_end - called after parts were added. A complete row goes to the workers to be encoded, or is
 * sent to selectord. 0, or SALT_CLOSED: the lease is gone or has expired. A complete result of an expired
 * lease is still sent.
 * client__row_error - makes an error text, cut to size, the row's result. 0 or SALT_CLOSED.
 */
int client__row_begin(struct salt *s, struct salt_lease *lease, uint32_t i, struct lease_row **row, struct salt_error *e);
int client__row_end(struct lease_row *row, struct salt_error *e);
int client__row_error(struct lease_row *row, const char *why, struct salt_error *e);

/*
 * client__row_encode - encodes the draws into the label and frees them (submit.c). 0, or an error with a
 * note. Lock not held.
 */
int client__row_encode(struct lease_row *row, struct err_note *note);

/*
 * logits.c: arithmetic on a row u[n] of logits. Pure.
 * client__logits_top      the largest; false: one is NaN or +infinity, or all are -infinity. -infinity is a
 *                         weight of 0
 * client__logits_rank     number of ids before y: those with greater logits, and lower ids with an equal one
 * client__logits_weights  weights[v] = exp((u[v] - top) / tau), double [n]; returns their sum
 * client__logits_draw     n_draws ids, ascending: for each uniform number the smallest id whose cumulative
 *                         weight exceeds it times the total. Rounds the weights to multiples of 2^-33 and
 *                         overwrites the uniforms
 * client__logits_best     the k best ids, best first; of equal logits the lower id
 */
bool client__logits_top(const float *u, size_t n, float *top);
int32_t client__logits_rank(const float *u, size_t n, size_t y);
double client__logits_weights(const float *u, size_t n, float top, double tau, double *weights);
void client__logits_draw(double *weights, size_t n, double *uniforms, uint32_t n_draws, int32_t *ids);
void client__logits_best(const float *u, size_t n, uint32_t k, int32_t *ids);

/*
 * client__model_tokenizer - the identity of the tokenizer that HELLO states for a model (model.c); not known
 * if the model has no tokenizer.json. Checks corpus_tokenizer against the model's own. Returns enum
 * salt_code.
 */
int client__model_tokenizer(const struct salt_model *m, struct wire_id *id, struct salt_error *e);

#endif
