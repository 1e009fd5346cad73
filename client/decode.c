/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worker jobs: read rows of phase two from the corpus, decode labels of phase one, join rows to what the
 * caller gets.
 */
#include "client/rows_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/corpus/blend.h"

void
client__document_starts(const int32_t *tokens, uint64_t n, uint32_t L, int32_t end, int32_t *starts)
{
	for (uint64_t i = 0; i < n; i++, tokens += (size_t)L + 1, starts += L) {
		starts[0] = 0;
		for (uint32_t t = 1; t < L; t++)
			starts[t] = tokens[t - 1] == end ? (int32_t)t : starts[t - 1];
	}
}

/* Computes document_starts of rows whose tokens are filled in. 0 or ENOMEM. */
static int
isolate(struct salt_rows *r, int32_t end)
{
	int32_t *starts;

	if (end < 0)
		return 0;
	if ((starts = malloc(r->n * (size_t)r->context * sizeof(*starts))) == NULL)
		return ENOMEM;
	client__document_starts(r->tokens, r->n, r->context, end, starts);
	r->document_starts = starts;
	return 0;
}

/* Puts the result into its slot, or frees it if the slot was dropped. Lock not held. */
static void
result_deliver(struct result *x)
{
	struct salt *s = x->s;
	struct slot *slot;

	pthread_mutex_lock(&s->lock);
	if ((slot = client__slot_of_ticket(s->rows, x->ticket)) != NULL)
		slot->result = x;
	else
		client__result_free(x);
	status_set(s->rows->m_ahead, (double)client__rows_ahead(s->rows));
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

/* Reads rows of phase two. */
void
client__rows_local(struct client__job *job, bool cancelled)
{
	struct result *x = (struct result *)((char *)job - offsetof(struct result, job));
	struct salt *s = x->s;
	struct err_note note = {.name = ""};
	int32_t *tokens = (int32_t *)x->rows.tokens;
	uint64_t *seqs = (uint64_t *)x->rows.seqs;
	int rc;

	if (cancelled) {
		client__result_free(x);
		return;
	}
	for (uint64_t i = 0; i < x->rows.n && x->failure.code == 0; i++) {
		seqs[i] = blend_order(s->order, s->config->run.seed, x->rows.step * s->batch + x->rows.first + i);
		if ((rc = corpus_window(s->train, seqs[i], s->context, tokens + i * ((size_t)s->context + 1), &note)) != 0)
			client__fail(&x->failure, rc, &note);
	}
	if (x->failure.code == 0 && (rc = isolate(&x->rows, corpus_document_end(s->train))) != 0)
		client__fail(&x->failure, rc, NULL);
	result_deliver(x);
}

/*
 * Copies the dense labels of row i to zeros. Records cover the corpus's ids; the student may have more, with
 * probability 0.
 */
static void
join_dense(float *dense, const struct result *x, uint64_t i)
{
	const struct labels_batch *b = &x->from[i]->labels;
	size_t vocab = x->rows.vocab;

	for (size_t t = 0; t < x->rows.context; t++)
		memcpy(dense + (i * x->rows.context + t) * vocab, b->dense + t * b->vocab, b->vocab * sizeof(float));
}

/* Joins the rows' CSR labels into one; rows without a label have no entries. */
static int
join_sparse(struct result *x)
{
	struct salt_rows *r = &x->rows;
	size_t len = r->context, total = 0;
	int64_t *offsets = malloc((r->n * len + 1) * sizeof(*offsets));
	float *tail = calloc(r->n * len, sizeof(*tail)), *weights;
	int32_t *ids;

	for (uint64_t i = 0; i < r->n; i++)
		total += x->from[i]->quarantined ? 0 : (size_t)x->from[i]->labels.row_offsets[len];
	ids = malloc((total + 1) * sizeof(*ids));
	weights = malloc((total + 1) * sizeof(*weights));
	r->offsets = offsets;
	r->tail = tail;
	r->ids = ids;
	r->weights = weights;
	if (offsets == NULL || tail == NULL || ids == NULL || weights == NULL)
		return ENOMEM;
	offsets[0] = 0;
	total = 0;
	for (uint64_t i = 0; i < r->n; i++) {
		const struct labels_batch *b = &x->from[i]->labels;
		int64_t *to = offsets + i * len;
		size_t n = 0;

		if (!x->from[i]->quarantined) {
			n = (size_t)b->row_offsets[len];
			memcpy(ids + total, b->ids, n * sizeof(*ids));
			memcpy(weights + total, b->weights, n * sizeof(*weights));
			memcpy(tail + i * len, b->tail, len * sizeof(*tail));
		}
		for (size_t t = 0; t < len; t++) {
			int64_t end = n > 0 ? b->row_offsets[t + 1] : 0, entries = n > 0 ? end - b->row_offsets[t] : 0;

			to[t + 1] = (int64_t)total + end;
			if (entries > r->max_entries)
				r->max_entries = (uint32_t)entries;
		}
		total += n;
	}
	return 0;
}

static int
join(struct result *x)
{
	struct salt_rows *r = &x->rows;
	size_t len = r->context;
	float *dense = NULL;
	int rc = 0;

	if (x->s->keep_records && ((r->records = calloc(r->n, sizeof(*r->records))) == NULL ||
	    (r->record_bytes = calloc(r->n, sizeof(*r->record_bytes))) == NULL))
		return ENOMEM;
	if (r->kind == SALT_DENSE && (r->dense = dense = calloc(r->n * len * r->vocab, sizeof(*dense))) == NULL)
		return ENOMEM;
	if (r->kind != SALT_DENSE)
		rc = join_sparse(x);
	else
		r->max_entries = r->vocab;
	for (uint64_t i = 0; i < r->n && rc == 0; i++) {
		struct decoded *d = x->from[i];

		memcpy((int32_t *)r->tokens + i * (len + 1), d->tokens, (len + 1) * sizeof(int32_t));
		((uint64_t *)r->seqs)[i] = d->seq;
		((uint8_t *)r->quarantined)[i] = d->quarantined;
		r->label_bytes += d->record_bytes;
		if (dense != NULL && !d->quarantined)
			join_dense(dense, x, i);
		if (r->records != NULL) {
			((const uint8_t **)r->records)[i] = d->record;
			((size_t *)r->record_bytes)[i] = d->record_bytes;
			d->record = NULL;
		}
	}
	return rc != 0 ? rc : isolate(r, corpus_document_end(x->s->train));
}

/* Takes the rows of a slot when all are decoded. NULL: out of memory. Lock held. */
static struct result *
slot_collect(struct salt *s, struct slot *slot)
{
	struct result *x = client__result_new(s, slot);

	if (x == NULL || (x->from = calloc(slot->lane->n, sizeof(struct decoded *))) == NULL) {
		if (x != NULL)
			client__result_free(x);
		client__rows_no_memory(s);
		return NULL;
	}
	for (uint64_t i = 0; i < slot->lane->n; i++) {
		x->from[i] = slot->rows[i].decoded;
		slot->rows[i].decoded = NULL;
	}
	return x;
}

static void
collected_run(struct result *x)
{
	struct salt *s = x->s;
	int rc = join(x);

	pthread_mutex_lock(&s->lock);
	for (uint64_t i = 0; i < x->rows.n; i++)
		client__decoded_spare(s->rows, x->from[i]);
	free(x->from);
	x->from = NULL;
	if (rc != 0)
		client__rows_no_memory(s);
	pthread_mutex_unlock(&s->lock);
	if (rc == 0)
		result_deliver(x);
	else
		client__result_free(x);
}

/* Reads the tokens of a row and decodes its label, which must have been made of these tokens. */
static int
decode(struct decoded *d, struct err_note *note)
{
	struct salt *s = d->s;
	char where[96];
	int rc;

	if ((rc = corpus_window(s->train, d->seq, s->context, d->tokens, note)) == 0 && !d->quarantined)
		rc = labels_decode(&s->rows->spec, hash_tokens(d->tokens, (size_t)s->context + 1), d->record, d->record_bytes, &d->labels, note);
	snprintf(where, sizeof(where), "row %" PRIu64 " (sequence %" PRIu64 ")", d->row, d->seq);
	return rc == 0 ? 0 : err_note_within(note, rc, where);
}

void
client__rows_decode(struct client__job *job, bool cancelled)
{
	struct decoded *d = (struct decoded *)((char *)job - offsetof(struct decoded, job));
	struct err_note note = {.name = ""};
	struct salt *s = d->s;
	struct result *x = NULL;
	struct slot *slot;
	int rc;

	if (cancelled) {
		client__decoded_free(d);
		return;
	}
	rc = decode(d, &note);
	pthread_mutex_lock(&s->lock);
	if ((slot = client__slot_of_ticket(s->rows, d->ticket)) == NULL || rc != 0) {
		if (rc != 0)
			client__failed(s, rc, &note);
		client__decoded_spare(s->rows, d);
	} else {
		slot->rows[d->i].state = ROW_HAVE;
		slot->rows[d->i].decoded = d;
		if (++slot->n_have == slot->lane->n)
			x = slot_collect(s, slot);
	}
	pthread_mutex_unlock(&s->lock);
	if (x != NULL)
		collected_run(x);
}
