/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation of rows, and the steps for which slots are kept. */
#include "client/rows_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/mem/mem.h"

#define LANES_MAX 16			/* more only while that many calls wait at once */

void
client__decoded_free(struct decoded *d)
{
	if (d == NULL)
		return;
	labels_batch_free(&d->labels);
	free(d->record);
	free(d->tokens);
	free(d);
}

struct decoded *
client__decoded_new(struct salt *s)
{
	struct decoded *d = SLIST_FIRST(&s->rows->spares);

	if (d != NULL) {
		SLIST_REMOVE_HEAD(&s->rows->spares, spare);
		return d;
	}
	if ((d = calloc(1, sizeof(*d))) == NULL || (d->tokens = mem_alloc((size_t)s->context + 1, sizeof(int32_t))) == NULL) {
		free(d);
		return NULL;
	}
	d->s = s;
	return d;
}

void
client__decoded_spare(struct rows *r, struct decoded *d)
{
	if (d == NULL)
		return;
	labels_batch_clear(&d->labels);
	free(d->record);
	d->record = NULL;
	SLIST_INSERT_HEAD(&r->spares, d, spare);
}

void
client__result_free(struct result *x)
{
	struct salt_rows *r = &x->rows;

	for (uint64_t i = 0; x->from != NULL && i < r->n; i++)
		client__decoded_free(x->from[i]);
	for (uint64_t i = 0; r->records != NULL && i < r->n; i++)
		free((void *)r->records[i]);
	free(x->from);
	free((void *)r->tokens);
	free((void *)r->document_starts);
	free((void *)r->seqs);
	free((void *)r->kd_weight);
	free((void *)r->quarantined);
	free((void *)r->offsets);
	free((void *)r->ids);
	free((void *)r->weights);
	free((void *)r->tail);
	free((void *)r->dense);
	free((void *)r->records);
	free((void *)r->record_bytes);
	free(x);
}

void
salt_rows_free(struct salt_rows **rows)
{
	if (*rows == NULL)
		return;
	client__result_free((struct result *)*rows);
	*rows = NULL;
}

struct result *
client__result_new(struct salt *s, const struct slot *slot)
{
	const struct lane *lane = slot->lane;
	struct result *x = calloc(1, sizeof(*x));

	if (x == NULL)
		return NULL;
	x->s = s;
	x->ticket = slot->ticket;
	x->rows = (struct salt_rows){.size = sizeof(x->rows), .step = slot->step, .first = lane->first, .n = lane->n, .context = s->context,
	    .phase = slot->phase_one ? 1 : 2, .kind = slot->phase_one ? (int)s->rows->spec.kind : SALT_NO_LABELS, .vocab = s->student_vocab,
	    .tokens = malloc(lane->n * ((size_t)s->context + 1) * sizeof(int32_t)), .seqs = malloc(lane->n * sizeof(uint64_t)),
	    .kd_weight = malloc(lane->n * sizeof(float)), .quarantined = calloc(lane->n, 1)};
	if (x->rows.tokens != NULL && x->rows.seqs != NULL && x->rows.kd_weight != NULL && x->rows.quarantined != NULL)
		return x;
	client__result_free(x);
	return NULL;
}


struct slot *
client__lane_slot(const struct rows *r, struct lane *lane, uint64_t step)
{
	return &lane->slots[step % r->n_slots];
}

bool
client__slot_is(const struct slot *slot, uint64_t step)
{
	return slot->ticket != 0 && slot->step == step;
}

struct slot *
client__slot_of_ticket(struct rows *r, uint64_t ticket)
{
	struct lane *lane;

	TAILQ_FOREACH(lane, &r->lanes, next)
		for (size_t i = 0; i < r->n_slots; i++)
			if (lane->slots[i].ticket == ticket)
				return &lane->slots[i];
	return NULL;
}

void
client__slot_drop(struct rows *r, struct slot *slot)
{
	for (uint64_t i = 0; slot->rows != NULL && i < slot->lane->n; i++) {
		client__decoded_spare(r, slot->rows[i].decoded);
		slot->rows[i] = (struct row){.state = ROW_MISSING};
	}
	if (slot->result != NULL)
		client__result_free(slot->result);
	slot->result = NULL;
	slot->ticket = slot->n_have = 0;
}

void
client__rows_no_memory(struct salt *s)
{
	const struct err_note note = {.name = "rows of a step"};

	client__failed(s, ENOMEM, &note);
}

static void
slot_start(struct salt *s, struct slot *slot, uint64_t step)
{
	struct result *x;

	slot->ticket = ++s->rows->last_ticket;
	slot->step = step;
	slot->phase_one = phase_is_one(&s->phase, step);
	if (slot->phase_one) {
		client__connect(s);
		if (slot->rows != NULL || (slot->rows = mem_alloc(slot->lane->n, sizeof(*slot->rows))) != NULL)
			return;
		slot->ticket = 0;
		client__rows_no_memory(s);
	} else if ((x = client__result_new(s, slot)) != NULL) {
		x->job.run = client__rows_local;
		client__work(s->workers, &x->job);
	} else {
		slot->ticket = 0;		/* the next call tries again */
	}
}

void
client__lane_move(struct salt *s, struct lane *lane, uint64_t step)
{
	struct rows *r = s->rows;
	bool asks = false;

	lane->step = step;
	for (size_t i = 0; i < r->n_slots; i++) {
		struct slot *slot = &lane->slots[i];

		if (slot->ticket != 0 && (slot->step < step || slot->step >= step + r->n_slots))
			client__slot_drop(r, slot);
	}
	for (; step < lane->step + r->n_slots && step < s->phase.total_steps; step++) {
		struct slot *slot = client__lane_slot(r, lane, step);

		if (slot->ticket != 0)
			continue;
		slot_start(s, slot, step);
		asks |= slot->phase_one;
	}
	if (asks)
		client__wake(s);
}

void
client__lane_free(struct rows *r, struct lane *lane)
{
	for (size_t i = 0; i < r->n_slots; i++) {
		client__slot_drop(r, &lane->slots[i]);
		free(lane->slots[i].rows);
	}
	TAILQ_REMOVE(&r->lanes, lane, next);
	r->n_lanes--;
	free(lane);
}

struct lane *
client__lane_of(struct rows *r, uint64_t first, uint64_t n)
{
	struct lane *lane, *last;

	TAILQ_FOREACH(lane, &r->lanes, next)
		if (lane->first == first && lane->n == n) {
			TAILQ_REMOVE(&r->lanes, lane, next);
			TAILQ_INSERT_HEAD(&r->lanes, lane, next);
			return lane;
		}
	if (r->n_lanes >= LANES_MAX && (last = TAILQ_LAST(&r->lanes, lane_list)) != NULL && last->waiting == 0)
		client__lane_free(r, last);
	if ((lane = calloc(1, sizeof(*lane) + r->n_slots * sizeof(lane->slots[0]))) == NULL)
		return NULL;
	lane->first = first;
	lane->n = n;
	for (size_t i = 0; i < r->n_slots; i++)
		lane->slots[i].lane = lane;
	TAILQ_INSERT_HEAD(&r->lanes, lane, next);
	r->n_lanes++;
	return lane;
}

uint64_t
client__rows_ahead(const struct rows *r)
{
	uint64_t least = UINT64_MAX, n;
	struct lane *lane;

	TAILQ_FOREACH(lane, &r->lanes, next) {
		for (n = 0; n < r->n_slots; n++) {
			const struct slot *slot = client__lane_slot(r, lane, lane->step + n);

			if (!client__slot_is(slot, lane->step + n) || slot->result == NULL)
				break;
		}
		least = n < least ? n : least;
	}
	return least == UINT64_MAX ? 0 : least;
}
