/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DROP_LABELS: a client requests to drop the labels that no plan needs. Every stored label is checked once,
 * in order and in steps, against all plans, also those that are only in the cache. A plan needs every row
 * that may be trained again from a kept checkpoint (CHECKPOINTED names the oldest one), and every sequence
 * that it may still choose. Sequences that are leased or on their way to the disk keep their labels.
 */
#include "selectord/core_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "data/corpus/corpus.h"
#include "base/mem/mem.h"

/* Units of scan_left for a plan's row; epochs for one unit. With more pending records, dropping waits. */
enum { DROP_COST = 4, EPOCHS_COST = 8, PENDING_MAX = 4096 };
enum { KEY_AND_CHECKSUM = 9 + 8 };			/* bytes in addition to a record */

/* What determines whether a plan needs a label; from a plan in memory or a stored one. */
struct view {
	struct hash128 hash;
	uint32_t seed;
	uint64_t window, kept, n_rows, oldest_row;
	bool released;
	const struct select_file *list;
	bool unknown;				/* the stream is a list that is not in memory */
};

static bool
view_needs(struct core *c, const struct view *v, uint64_t index)
{
	uint64_t n_blocks = v->n_rows == 0 ? 0 : (v->n_rows - 1) / v->kept + 1;
	uint64_t most = core__positions_max(c) / v->window, end = (n_blocks < most ? n_blocks : most) * v->window;

	if (v->released && c->drop.released_too)
		return false;
	if (v->unknown)
		return true;
	c->scan_left -= (int64_t)(core__epoch_at(c, v->list, index, end) / EPOCHS_COST);
	for (uint64_t epoch = 0;; epoch++) {
		uint64_t p, no, count, i;
		int rc;

		if (!core__position(c, v->list, v->seed, epoch, index, &p) || p >= end)
			return false;
		no = p / v->window;
		if (no % c->cfg.n_shards != c->cfg.shard || (no + 1) * v->kept <= v->oldest_row)
			continue;
		c->scan_left -= DROP_COST;
		if ((rc = c->store->rows_count(c->store->arg, v->hash, no, &count)) != 0 || count != v->kept) {
			/* Not chosen yet, or damaged: it may need any sequence. A released plan chooses none any more. */
			if (!v->released || rc != ERR_NOT_FOUND)
				return true;
			continue;
		}
		if ((rc = core__row_find(c, v->hash, no, v->kept, p, &i)) == ERR_NOT_FOUND)
			continue;
		if (rc != 0 || no * v->kept + i >= v->oldest_row)
			return true;
	}
}

static uint64_t
first_row(uint64_t step, uint64_t batch)
{
	return step <= UINT64_MAX / batch ? step * batch : UINT64_MAX;
}

static bool
needed(struct core *c, uint64_t seq)
{
	const struct core_seq *s = core__seq(c, seq, false);

	if (CORPUS_SEQ_NO(seq) != CORPUS_TRAIN || CORPUS_SEQ_INDEX(seq) >= c->cfg.corpus.n_windows || (s != NULL && (s->op != 0 || s->flight != 0)))
		return true;
	for (const struct core_plan *p = c->plans; p != NULL; p = p->next) {
		const struct view v = {p->hash, p->wire.seed, p->window, p->kept, p->wire.n_rows,
		    first_row(p->oldest_step, p->wire.batch), p->released, p->list, false};

		if (view_needs(c, &v, CORPUS_SEQ_INDEX(seq)))
			return true;
	}
	for (size_t i = 0; i < c->drop.n_plans; i++) {
		const struct cache_plan *p = &c->drop.plans[i];
		const struct view v = {p->hash, p->seed, p->window, p->kept, p->n_rows,
		    first_row(p->oldest_step, p->batch), p->released, NULL, p->mode == CACHE_MODE_LIST};

		if (core__plan(c, p->hash) == NULL && view_needs(c, &v, CORPUS_SEQ_INDEX(seq)))
			return true;
	}
	return false;
}

static int
take_plan(void *arg, const struct cache_plan *plan)
{
	struct core_drop *d = arg;
	int rc;

	if (plan->kept < 1 || plan->kept > plan->window || plan->batch < 1)
		return ERR_CORRUPT;
	if ((rc = mem_grow((void **)&d->plans, &d->cap, d->n_plans + 1, sizeof(*d->plans))) == 0)
		d->plans[d->n_plans++] = *plan;
	return rc;
}

static void
answer(struct core *c)
{
	struct core_message *m = core__send(c, c->drop.peer, WIRE_DROPPED);

	m->msg.dropped = (struct wire_dropped){c->drop.request_id, c->drop.n_labels, c->drop.n_bytes, c->drop.n_kept};
	m->after = c->next_op;
}

void
core__drop_labels(struct core *c, const struct core_peer *peer, const struct wire_drop_labels *m)
{
	struct core_drop *d = &c->drop;
	int rc;

	if (hash_equal(d->boot, peer->boot) && d->request_id == m->request_id) {	/* a repeated request */
		d->peer = peer->id;
		if (!d->active)
			answer(c);
		return;
	}
	if (d->active) {
		core__refuse(c, peer->id, EX_TEMPFAIL, "", 2000, "drop_labels", "one request at a time",
		    "a request of another client in progress");
		return;
	}
	d->n_plans = 0;
	if ((rc = c->store->plans(c->store->arg, take_plan, d)) != 0) {
		d->boot = (struct hash128){0, 0};
		if (rc == ENOMEM) {
			core__refuse_memory(c, peer->id);
			return;
		}
		core__refuse(c, peer->id, rc == ERR_CORRUPT ? EX_DATAERR : EX_IOERR,
		    "the labels that a damaged plan needs are unknown: run saltctl cache fsck", 0, "plans",
		    "a readable record of every plan", "%s", err_str(rc));
		return;
	}
	d->active = true;
	d->released_too = m->released_too;
	d->peer = peer->id;
	d->request_id = m->request_id;
	d->boot = peer->boot;
	d->next = d->n_labels = d->n_bytes = d->n_kept = 0;
	core__event(c, LOG_LEVEL_INFO, "drop.begin", "for=%s released_too=%d", peer->name, d->released_too);
}

void
core__drop_step(struct core *c)
{
	struct core_drop *d = &c->drop;

	while (d->active && c->scan_left > 0 && c->n_pending < PENDING_MAX) {
		uint64_t seq = d->next;
		struct cache_bytes v = {NULL, 0};
		struct core_op *op;
		int rc = c->store->label_next(c->store->arg, &seq, &v);

		if (rc != 0 && rc != ERR_CORRUPT) {	/* past the last label, or an error, which ends it here */
			d->active = false;
			c->stats.n_dropped += d->n_labels;
			core__event(c, rc == ERR_NOT_FOUND ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, "drop.end", "labels=%" PRIu64 " bytes=%" PRIu64 " kept=%" PRIu64
			    " rc=%d", d->n_labels, d->n_bytes, d->n_kept, rc == ERR_NOT_FOUND ? 0 : rc);
			answer(c);
			return;
		}
		c->scan_left -= LABEL_COST;
		if (rc == ERR_CORRUPT || needed(c, seq)) {
			d->next = seq + 1;
			d->n_kept++;
			continue;
		}
		if ((op = core__op(c, CORE_OP_DROP_LABEL, seq)) == NULL)
			return;			/* retried with the same label */
		core__op_done(c, op, 0, 0);
		d->next = seq + 1;
		d->n_labels++;
		d->n_bytes += v.len + KEY_AND_CHECKSUM;
	}
}
