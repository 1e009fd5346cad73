/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results of sequences. The caller's arrays are checked and copied here. The caller's thread and the workers
 * together reduce logits row by row (logits.c). The workers encode the draws of sampled labels.
 */
#include "client/leases_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"
#include "base/random/random.h"

#define HELPERS_MAX 8			/* worker jobs for one sequence's logits, in addition to the caller */
#define HELPER_ROWS 16			/* at most one job per so many rows */

static void
uniforms(const struct salt_lease *lease, uint32_t i, uint32_t t, double *u)
{
	uint32_t words[4];

	for (uint32_t d = 0; d < lease->n_draws; d++) {
		if (d % 2 == 0)
			random_words(lease->seed, RANDOM_PURPOSE_LABEL, lease->seqs[i], t, d / 2, words);
		u[d] = random_uniform53(words[d % 2 * 2], words[d % 2 * 2 + 1]);
	}
}

int
salt_uniforms(const struct salt_lease *lease, uint32_t i, double *u, struct salt_error *e)
{
	if (i >= lease->n || !lease->want_label || lease->kind != SALT_SAMPLED)
		return client__error(e, SALT_RANGE, "salt_uniforms: expected a sequence 0 .. %" PRIu32 " of a lease for sampled labels, found %" PRIu32
		    " of one for %s", lease->n - 1, i, lease->want_label ? labels_kind_name((enum labels_kind)lease->kind) : "scores");
	for (uint32_t t = 0; t < lease->context; t++)
		uniforms(lease, i, t, u + (size_t)t * lease->n_draws);
	return client__ok(e);
}

/* ---- the reduction of logits ---- */

struct reduction {
	const struct lease *lease;
	uint32_t i;
	const float *logits;		/* [L, stride] */
	size_t stride;
	bool score, label;		/* asked for and not submitted yet */
	float *loss_nats;		/* [L] */
	int32_t *rank;			/* [L] */
	int32_t *ids;			/* [L, N] draws; [L, k] */
	float *log_p;			/* [L, k]; dense: [L, n_valid] */
	size_t n_others;		/* ids of the model beyond the corpus's; their probability is part of
					   the tail of topk */
	atomic_uint next;		/* next row to reduce */
	atomic_uint bad;		/* lowest row with an invalid value */
	atomic_bool no_memory;
	pthread_mutex_t lock;
	pthread_cond_t done;
	unsigned running;		/* helpers that have not ended */
};

struct helper {
	struct client__job job;
	struct reduction *r;
};

/* Buffers of one thread. */
struct scratch {
	double *weights;		/* [n_valid] */
	double *bounds;			/* [N] */
};

/*
 * ln(1 + b / a), where a is the sum of the weights of the ids that the corpus has, and b that of the ids that only the model has. Each sum
 * is scaled by its own maximum, because b may be nearly all of the probability mass, and a would underflow beside it.
 */
static double
log_others(const struct reduction *r, const float *u, float top, double sum, double *weights)
{
	const struct labels_spec *spec = &r->lease->spec;
	double log_ratio;
	float top_others;

	if (r->n_others == 0 || !client__logits_top(u + spec->vocab, r->n_others, &top_others))
		return 0;			/* all of them are -infinity */
	log_ratio = log(client__logits_weights(u + spec->vocab, r->n_others, top_others, spec->tau, weights)) - log(sum) +
	    ((double)top_others - (double)top) / spec->tau;
	return log_ratio > 0 ? log_ratio + log1p(exp(-log_ratio)) : log1p(exp(log_ratio));
}

/* The first logit that is NaN or +infinity; n: there is none. */
static size_t
first_bad(const float *u, size_t n)
{
	size_t v = 0;

	while (v < n && !isnan(u[v]) && u[v] != INFINITY)
		v++;
	return v;
}

static void
reduce_label(struct reduction *r, uint32_t t, const float *u, float top, double sum, struct scratch *w)
{
	const struct labels_spec *spec = &r->lease->spec;
	const size_t n = spec->vocab;

	if (spec->kind == LABELS_KIND_SAMPLED) {
		uniforms(&r->lease->pub, r->i, t, w->bounds);
		client__logits_draw(w->weights, n, w->bounds, spec->n_samples, r->ids + (size_t)t * spec->n_samples);
	} else if (spec->kind == LABELS_KIND_TOPK) {
		const double log_sum = log(sum) + log_others(r, u, top, sum, w->weights);
		int32_t *ids = r->ids + (size_t)t * spec->k;

		client__logits_best(u, n, spec->k, ids);
		for (uint32_t i = 0; i < spec->k; i++)
			r->log_p[(size_t)t * spec->k + i] = (float)(((double)u[ids[i]] - (double)top) / spec->tau - log_sum);
	} else {
		for (size_t v = 0; v < n; v++)
			r->log_p[t * n + v] = (float)(((double)u[v] - (double)top) / spec->tau - log(sum));
	}
}

/* Reduces one row of logits to scores and label. false: the logits, or the loss, are invalid. */
static bool
reduce_row(struct reduction *r, uint32_t t, struct scratch *w)
{
	const struct salt_lease *p = &r->lease->pub;
	const float *u = r->logits + t * r->stride;
	const size_t y = (size_t)p->tokens[r->i * ((size_t)p->context + 1) + t + 1];
	double sum = 0;
	float top;

	if (!client__logits_top(u, p->n_valid, &top) || (r->n_others > 0 && first_bad(u + p->n_valid, r->n_others) < r->n_others))
		return false;
	if (r->score) {
		sum = client__logits_weights(u, p->n_valid, top, 1, w->weights);
		r->loss_nats[t] = (float)((double)top + log(sum) - (double)u[y]);
		r->rank[t] = client__logits_rank(u, p->n_valid, y);
		if (!isfinite(r->loss_nats[t]) && p->tokens[r->i * ((size_t)p->context + 1) + t] != p->document_end)
			return false;
	}
	if (!r->label)
		return true;
	if (!r->score || p->tau != 1)
		sum = client__logits_weights(u, p->n_valid, top, p->tau, w->weights);
	reduce_label(r, t, u, top, sum, w);
	return true;
}

/* Reduces rows until none is left. Runs in the caller's thread and in each helper. */
static void
reduce_rows(struct reduction *r)
{
	const struct labels_spec *spec = &r->lease->spec;
	const size_t n_valid = r->lease->pub.n_valid;
	struct scratch w = {.weights = mem_alloc(n_valid > r->n_others ? n_valid : r->n_others, sizeof(*w.weights)),
	    .bounds = mem_alloc(spec->n_samples + (size_t)1, sizeof(*w.bounds))};
	uint32_t t;

	if (w.weights == NULL || w.bounds == NULL)
		atomic_store(&r->no_memory, true);
	while (!atomic_load(&r->no_memory) && (t = atomic_fetch_add(&r->next, 1)) < r->lease->pub.context)
		if (!reduce_row(r, t, &w)) {
			unsigned was = atomic_load(&r->bad);

			while (t < was && !atomic_compare_exchange_weak(&r->bad, &was, t))
				;
		}
	free(w.weights);
	free(w.bounds);
}

static void
help(struct client__job *job, bool cancelled)
{
	struct reduction *r = ((struct helper *)job)->r;

	if (!cancelled)
		reduce_rows(r);
	pthread_mutex_lock(&r->lock);
	r->running--;
	pthread_cond_signal(&r->done);
	pthread_mutex_unlock(&r->lock);
}

static void
reduce_all(struct salt *s, struct reduction *r)
{
	struct helper helpers[HELPERS_MAX];
	uint32_t n = r->lease->pub.context / HELPER_ROWS;

	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->done, NULL);
	r->running = n < HELPERS_MAX ? n : HELPERS_MAX;
	n = r->running;
	for (uint32_t k = 0; k < n; k++) {
		helpers[k] = (struct helper){.job = {.run = help}, .r = r};
		client__work(s->workers, &helpers[k].job);
	}
	reduce_rows(r);
	pthread_mutex_lock(&r->lock);
	while (r->running > 0)
		pthread_cond_wait(&r->done, &r->lock);
	pthread_mutex_unlock(&r->lock);
	pthread_cond_destroy(&r->done);
	pthread_mutex_destroy(&r->lock);
}

/* ---- parts of a row ---- */

/* Reports an invalid value of the sequence to the caller and to selectord. */
static int
nonfinite(struct lease_row *row, struct salt_error *e, const char *what, uint32_t t, size_t v, float value)
{
	const struct lease *lease = row->lease;
	char text[120];

	snprintf(text, sizeof(text), "%s of position %" PRIu32 ", id %zu: expected a finite number, found %g", what, t, v, (double)value);
	client__row_error(row, text, NULL);
	return client__error(e, SALT_NONFINITE, "sequence %" PRIu64 " of lease %" PRIu64 ": %s; it is reported as failed",
	    lease->seqs[row - lease->rows], lease->pub.id, text);
}

/* The caller's arrays are not changed: positions that end a document are marked in a copy. */
static int
add_scores(struct lease_row *row, const float *loss_nats, const int32_t *rank, struct salt_error *e)
{
	const uint32_t L = row->lease->pub.context;
	const int32_t *tokens = row->lease->tokens + (size_t)(row - row->lease->rows) * ((size_t)L + 1);
	uint8_t *scores = malloc((size_t)L * LABELS_SCORE_BYTES);
	float *loss = malloc((size_t)L * sizeof(*loss));
	int32_t *place = malloc((size_t)L * sizeof(*place));
	struct err_note note = {.name = ""};
	int rc = ENOMEM;

	if (scores != NULL && loss != NULL && place != NULL) {
		memcpy(loss, loss_nats, (size_t)L * sizeof(*loss));
		memcpy(place, rank, (size_t)L * sizeof(*place));
		labels_scores_within(tokens, L, row->lease->pub.document_end, loss, place);
		rc = labels_scores_encode(loss, place, L, scores, &note);
	}
	free(loss);
	free(place);
	if (rc != 0) {
		free(scores);
		return client__fail(e, rc, &note);
	}
	free(row->scores);
	row->scores = scores;
	return SALT_OK;
}

/* Encodes a topk or dense label at once: that takes no longer than copying it for a worker. */
static int
add_probabilities(struct lease_row *row, const int32_t *ids, const float *log_p, struct salt_error *e)
{
	const struct lease *lease = row->lease;
	const size_t L1 = (size_t)lease->pub.context + 1;
	const struct hash128 tokens = hash_tokens(lease->tokens + (size_t)(row - lease->rows) * L1, L1);
	struct err_note note = {.name = ""};
	int rc;

	rc = lease->spec.kind == LABELS_KIND_TOPK ? labels_encode_topk(&lease->spec, tokens, ids, log_p, &row->label, &note) :
	    labels_encode_dense(&lease->spec, tokens, log_p, &row->label, &note);
	return rc != 0 ? client__fail(e, rc, &note) : SALT_OK;
}

int
client__row_encode(struct lease_row *row, struct err_note *note)
{
	const struct lease *lease = row->lease;
	const size_t L1 = (size_t)lease->pub.context + 1;
	int rc = labels_encode_draws(&lease->spec, hash_tokens(lease->tokens + (size_t)(row - lease->rows) * L1, L1), row->draws, &row->label, note);

	free(row->draws);
	row->draws = NULL;
	return rc;
}

static bool
needs_label(const struct lease_row *row)
{
	return row->lease->pub.want_label && row->draws == NULL && row->label.len == 0;
}

/* ---- the calls ---- */

static int
logits_alloc(struct reduction *r)
{
	const struct labels_spec *spec = &r->lease->spec;
	size_t L = r->lease->pub.context, n_ids = 0, n_values = 0;

	if (r->label && spec->kind == LABELS_KIND_SAMPLED)
		n_ids = spec->n_samples;
	else if (r->label && spec->kind == LABELS_KIND_TOPK)
		n_ids = n_values = spec->k;
	else if (r->label)
		n_values = spec->vocab;
	if (!mem_mul(L, n_ids, &n_ids) || !mem_mul(L, n_values, &n_values) || (r->ids = mem_alloc(n_ids + 1, sizeof(*r->ids))) == NULL ||
	    (r->log_p = mem_alloc(n_values + 1, sizeof(*r->log_p))) == NULL || (r->loss_nats = mem_alloc(L, sizeof(*r->loss_nats))) == NULL ||
	    (r->rank = mem_alloc(L, sizeof(*r->rank))) == NULL)
		return ENOMEM;
	return 0;
}

/*
 * Reports the row's invalid logit. -infinity (a probability of 0) is valid, but not for all ids, and not for
 * the next token.
 */
static int
find_bad(struct lease_row *row, const struct reduction *r, struct salt_error *e)
{
	const struct salt_lease *p = &row->lease->pub;
	const size_t n = p->n_valid + r->n_others, t = atomic_load(&r->bad);
	const size_t y = (size_t)p->tokens[r->i * ((size_t)p->context + 1) + t + 1];
	const float *u = r->logits + t * r->stride;
	size_t v = first_bad(u, n);

	v = v < n ? v : y;
	return nonfinite(row, e, "logits", (uint32_t)t, v, u[v]);
}

int
salt_submit_logits(struct salt *s, struct salt_lease *pub, uint32_t i, const float *logits, size_t stride, struct salt_error *e)
{
	struct reduction r = {.i = i, .logits = logits, .stride = stride, .bad = UINT_MAX};
	struct lease_row *row;
	int rc = client__row_begin(s, pub, i, &row, e);

	if (rc != 0)
		return rc;
	if (stride < pub->n_valid)
		return client__error(e, SALT_RANGE, "stride of the logits: expected at least %" PRIu32 " (lease.n_valid), found %zu", pub->n_valid, stride);
	r.lease = row->lease;
	r.score = pub->want_score && row->scores == NULL;
	r.label = needs_label(row);
	if (r.label && pub->kind == SALT_TOPK) {
		const size_t vocab = s->hello.models[pub->model].vocab_size;

		r.n_others = (stride < vocab ? stride : vocab) - pub->n_valid;
	}
	if (logits_alloc(&r) != 0) {
		rc = client__fail(e, ENOMEM, NULL);
		goto out;
	}
	reduce_all(s, &r);
	if (atomic_load(&r.no_memory))
		rc = client__fail(e, ENOMEM, NULL);
	else if (atomic_load(&r.bad) < pub->context)
		rc = find_bad(row, &r, e);
	else if (r.score)
		rc = add_scores(row, r.loss_nats, r.rank, e);
	if (rc == 0 && r.label && pub->kind == SALT_SAMPLED) {
		row->draws = r.ids;
		r.ids = NULL;
	} else if (rc == 0 && r.label) {
		rc = add_probabilities(row, r.ids, r.log_p, e);
	}
	if (rc == 0)
		rc = client__row_end(row, e);
out:
	free(r.ids);
	free(r.log_p);
	free(r.loss_nats);
	free(r.rank);
	return rc;
}

int
salt_submit_scores(struct salt *s, struct salt_lease *pub, uint32_t i, const float *loss_nats, const int32_t *rank, struct salt_error *e)
{
	struct lease_row *row;
	int rc = client__row_begin(s, pub, i, &row, e);

	if (rc != 0)
		return rc;
	if (!pub->want_score)
		return client__error(e, SALT_RANGE,
		    "lease %" PRIu64 " asks for a label only: expected a label, found scores", pub->id);
	for (uint32_t t = 0; t < pub->context; t++)
		if (!isfinite(loss_nats[t]) && pub->tokens[i * ((size_t)pub->context + 1) + t] != pub->document_end)
			return nonfinite(row, e, "loss", t, (size_t)pub->tokens[i * ((size_t)pub->context + 1) + t + 1], loss_nats[t]);
	return (rc = add_scores(row, loss_nats, rank, e)) != 0 ? rc : client__row_end(row, e);
}

/* Checks that the lease asks for a label of this kind. */
static int
kind_check(const struct salt_lease *pub, int kind, struct salt_error *e)
{
	if (!pub->want_label)
		return client__error(e, SALT_RANGE,
		    "lease %" PRIu64 " asks for scores only: expected scores, found a %s label", pub->id,
		    labels_kind_name((enum labels_kind)kind));
	if (pub->kind != kind)
		return client__error(e, SALT_RANGE, "lease %" PRIu64 ": expected a %s label, found a %s one", pub->id,
		    labels_kind_name((enum labels_kind)pub->kind), labels_kind_name((enum labels_kind)kind));
	return SALT_OK;
}

static int
ids_check(const struct salt_lease *pub, const int32_t *ids, uint32_t per_row, struct salt_error *e)
{
	for (size_t at = 0; at < (size_t)pub->context * per_row; at++)
		if (ids[at] < 0 || (uint32_t)ids[at] >= pub->n_valid)
			return client__error(e, SALT_RANGE, "position %zu, entry %zu: expected an id 0 .. %" PRIu32 ", found %" PRId32, at / per_row,
			    at % per_row, pub->n_valid - 1, ids[at]);
	return SALT_OK;
}

int
salt_submit_samples(struct salt *s, struct salt_lease *pub, uint32_t i, const int32_t *draws, struct salt_error *e)
{
	const size_t n = (size_t)pub->context * pub->n_draws;
	struct lease_row *row;
	int rc = client__row_begin(s, pub, i, &row, e);

	if (rc != 0 || (rc = kind_check(pub, SALT_SAMPLED, e)) != 0 || (rc = ids_check(pub, draws, pub->n_draws, e)) != 0)
		return rc;
	if (!needs_label(row))
		return client__error(e, SALT_RANGE, "lease %" PRIu64 ": sequence %" PRIu64 " has its label", pub->id, pub->seqs[i]);
	if ((row->draws = mem_alloc(n, sizeof(*row->draws))) == NULL)
		return client__fail(e, ENOMEM, NULL);
	memcpy(row->draws, draws, n * sizeof(*draws));
	return client__row_end(row, e);
}

int
salt_submit_topk(struct salt *s, struct salt_lease *pub, uint32_t i, const int32_t *ids, const float *log_p, struct salt_error *e)
{
	struct lease_row *row;
	int rc = client__row_begin(s, pub, i, &row, e);

	if (rc != 0 || (rc = kind_check(pub, SALT_TOPK, e)) != 0 || (rc = ids_check(pub, ids, pub->k, e)) != 0)
		return rc;
	if (!needs_label(row))
		return client__error(e, SALT_RANGE, "lease %" PRIu64 ": sequence %" PRIu64 " has its label", pub->id, pub->seqs[i]);
	for (size_t at = 0; at < (size_t)pub->context * pub->k; at++)
		if (isnan(log_p[at]) || log_p[at] == INFINITY)		/* -inf is a probability of 0 */
			return nonfinite(row, e, "log probability", (uint32_t)(at / pub->k), (size_t)ids[at], log_p[at]);
	return (rc = add_probabilities(row, ids, log_p, e)) != 0 ? rc : client__row_end(row, e);
}

int
salt_submit_error(struct salt *s, struct salt_lease *pub, uint32_t i, const char *why, struct salt_error *e)
{
	struct lease_row *row;
	int rc = client__row_begin(s, pub, i, &row, e);

	return rc != 0 ? rc : client__row_error(row, why != NULL ? why : "", e);
}
