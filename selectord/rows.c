/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Row requests: answered when ready, in any order, with as many rows as fit. A repeated request replaces the
 * former one.
 */
#include "selectord/core_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#define ROW_OVERHEAD 32u		/* largest size of a row in a frame, without its label */
#define WAITS_STEP 256			/* requests checked in one call */

static void
wait_drop(struct core *c, struct core_wait *w)
{
	if (c->wait_at == w)
		c->wait_at = w->next;
	DL_DELETE(c->waits, w);
	free(w);
}

void
core__waits_drop_peer(struct core *c, uint64_t peer)
{
	struct core_wait *w, *next;

	DL_FOREACH_SAFE(c->waits, w, next)
		if (w->peer == peer)
			wait_drop(c, w);
}

void
core__waits_drop_plan(struct core *c, const struct core_plan *plan)
{
	struct core_wait *w, *next;

	DL_FOREACH_SAFE(c->waits, w, next)
		if (w->plan == plan)
			wait_drop(c, w);
}

/*
 * Whether row first + n of a request is stored, with its label. The first `need` rows are needed for an
 * answer: if one of them is missing, its block is opened.
 */
static bool
row_ready(struct core *c, const struct core_wait *w, size_t n, size_t need, struct wire_row *out)
{
	struct core_plan *plan = w->plan;
	uint64_t g = w->first + n, block = g / plan->kept;
	struct cache_bytes label = {NULL, 0};
	struct cache_row row;
	bool quarantined;

	if (c->store->rows(c->store->arg, plan->hash, block, g % plan->kept, 1, &row) != 0) {
		if (n == 0 && !plan->released)
			core__block_open(c, plan, block);
		return false;
	}
	quarantined = (row.flags & CACHE_ROW_QUARANTINED) != 0;
	if (!quarantined && c->store->label(c->store->arg, row.seq, &label) != 0) {
		if (!core__quarantined(c, row.seq)) {
			if (n < need && !plan->released)	/* no effect while it is labelled; if the label was lost, it opens again */
				core__block_open(c, plan, block);
			return false;
		}
		quarantined = true;
	}
	*out = (struct wire_row){row.seq, quarantined, {label.bytes, label.len}};
	return true;
}

/*
 * Sends rows [first, first + count), as far as they are in blocks of this shard and fit into a frame. true:
 * sent. The first block's part must be complete (or fill the frame); later blocks add what is ready. A
 * request is checked whenever something has changed, so the row that was missing at the last check is looked
 * up first.
 */
static bool
answer(struct core *c, struct core_wait *w)
{
	struct core_plan *plan = w->plan;
	const struct core_peer *peer = core__peer(c, w->peer);
	uint64_t K = plan->kept, frame;
	size_t max = w->count < WIRE_ROWS_MAX ? w->count : WIRE_ROWS_MAX, n = 0, need, bytes = 256;
	struct wire_row *rows, row;
	struct core_message *m;
	bool full = false;

	if (peer == NULL || (c->cfg.rows_wait_heldout && c->cfg.n_heldout > 0 && c->n_held < c->cfg.n_heldout))
		return false;
	frame = peer->max_message < c->cfg.max_message ? peer->max_message : c->cfg.max_message;
	need = K - w->first % K < max ? (size_t)(K - w->first % K) : max;
	if (!row_ready(c, w, w->missing, need, &row))
		return false;
	if ((rows = calloc(max, sizeof(*rows))) == NULL) {
		c->no_memory = true;
		return false;
	}
	while (n < max && (w->first + n) / K % c->cfg.n_shards == c->cfg.shard && row_ready(c, w, n, need, &row)) {
		full = bytes + row.label.len + ROW_OVERHEAD > frame;
		if (full)
			break;
		bytes += row.label.len + ROW_OVERHEAD;
		rows[n++] = row;
	}
	if (n == 0 || (n < need && !full)) {
		w->missing = (uint32_t)n;
		free(rows);
		return false;
	}
	m = core__send(c, w->peer, WIRE_ROWS);
	m->memory[0] = rows;
	m->msg.rows.request_id = w->request_id;
	m->msg.rows.plan_hash = plan->hash;
	m->msg.rows.first_row = w->first;
	m->msg.rows.rows = rows;
	m->msg.rows.n_rows = n;
	m->msg.rows.heldout_loss_nats = c->heldout_loss;
	c->stats.n_rows_sent += n;
	return true;
}

void
core__rows_request(struct core *c, struct core_peer *peer, struct core_plan *plan, const struct wire_rows_request *m, int64_t now_ms)
{
	struct core_wait *w, *next, *oldest = NULL;
	char hex[HASH_HEX_BYTES];
	size_t n = 0;

	c->stats.n_row_requests++;
	if (m->first_row / plan->kept % c->cfg.n_shards != c->cfg.shard) {
		core__refuse(c, peer->id, EX_CONFIG, "do selector.endpoints differ?", 0,
		    "rows_request.first_row", "a row of shard %" PRIu32 " of %" PRIu32,
		    "row %" PRIu64 ", block %" PRIu64, c->cfg.shard, c->cfg.n_shards, m->first_row,
		    m->first_row / plan->kept);
		return;
	}
	if (m->first_row >= plan->wire.n_rows) {
		core__refuse(c, peer->id, EX_CONFIG, "", 0, "rows_request.first_row",
		    "less than %" PRIu64 ", the plan's n_rows", "%" PRIu64, plan->wire.n_rows, m->first_row);
		return;
	}
	/* A process that connected after the release trains phase one again: rows may be missing. */
	if (plan->released && peer->hello_ms > plan->released_ms) {
		plan->released = false;
		core__event(c, LOG_LEVEL_WARN, "plan.reopened", "plan=%s row=%" PRIu64 " by=%s", hash_hex(plan->hash, hex), m->first_row, peer->name);
		core__save_plan(c, plan);
	}
	plan->used_ms = now_ms;
	if (m->first_row + m->count > plan->asked)
		plan->asked = m->first_row + m->count < plan->wire.n_rows ? m->first_row + m->count : plan->wire.n_rows;
	DL_FOREACH_SAFE(c->waits, w, next) {
		if (w->peer != peer->id)
			continue;
		if (w->request_id == m->request_id || (w->plan == plan && w->first == m->first_row))
			wait_drop(c, w);		/* a repeated request */
		else if (n++ == 0)
			oldest = w;
	}
	if ((w = calloc(1, sizeof(*w))) == NULL) {
		core__refuse_memory(c, peer->id);
		return;
	}
	w->peer = peer->id;
	w->request_id = m->request_id;
	w->first = m->first_row;
	w->plan = plan;
	w->count = (uint64_t)m->count < plan->wire.n_rows - m->first_row ? m->count : (uint32_t)(plan->wire.n_rows - m->first_row);
	DL_APPEND(c->waits, w);
	c->waits_due = true;
	if (n >= CORE_WAITS_MAX)
		wait_drop(c, oldest);
}

/* Checks the waiting requests in turn, WAITS_STEP in one call. */
void
core__waits_check(struct core *c)
{
	if (c->wait_at == NULL && c->waits_due) {
		c->wait_at = c->waits;
		c->waits_due = false;
	}
	for (int i = 0; i < WAITS_STEP && c->wait_at != NULL; i++) {
		struct core_wait *w = c->wait_at;

		c->wait_at = w->next;
		if (answer(c, w))
			wait_drop(c, w);
	}
	c->more |= c->wait_at != NULL;
}
