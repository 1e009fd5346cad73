/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A trainer's messages, in the network thread with the lock held: requests and accepts rows, reports
 * checkpoints and the release.
 */
#include "client/rows_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/corpus/blend.h"

#define ANSWER_MS 10000			/* RELEASE and CHECKPOINTED are sent again after this time without an
					   ACK */
#define ASK_AGAIN_MS 30000		/* requested rows that have not arrived are requested again after this
					   time */
#define REQUESTS_MAX 48			/* requests without an answer: selectord drops a peer's oldest beyond 64 */
#define RELEASE_REQUEST UINT64_MAX	/* request_id of RELEASE; that of CHECKPOINTED is its step */

static void
rows_welcome(struct salt *s, size_t shard, const struct wire_welcome *w, bool restarted)
{
	struct rows *r = s->rows;
	struct err_note note;
	int rc;

	(void)shard;
	(void)restarted;
	if (r->has_sets || !w->label_set.present)
		return;
	if (w->label_set.kind == LABELS_KIND_SAMPLED && (rc = labels_unigram_new(&r->unigram, w->unigram.bytes, w->unigram.len, &note)) != 0) {
		client__failed(s, rc, &note);
		return;
	}
	r->spec = session_label_spec(&w->label_set, s->context, s->vocab, r->unigram);
	s->label_set = w->label_set.hash;
	s->label_teacher = w->label_set.teacher;
	r->has_sets = true;
}

static bool
is_of_shard(const struct salt *s, uint64_t row, size_t shard)
{
	return row / s->rows->kept % s->n_shards == shard;
}

static uint64_t
first_row(const struct salt *s, const struct slot *slot)
{
	return slot->step * s->batch + slot->lane->first;
}

/* Marks rows of this shard as missing again that this request (0: any request) asked for. */
static void
forget_asked(struct salt *s, size_t shard, uint64_t request)
{
	struct lane *lane;

	TAILQ_FOREACH(lane, &s->rows->lanes, next)
		for (size_t k = 0; k < s->rows->n_slots; k++) {
			struct slot *slot = &lane->slots[k];

			for (uint64_t i = 0; slot->ticket != 0 && slot->phase_one && slot->rows != NULL && i < lane->n; i++)
				if (slot->rows[i].state == ROW_ASKED && (request == 0 || slot->rows[i].request == request) &&
				    is_of_shard(s, first_row(s, slot) + i, shard))
					slot->rows[i].state = ROW_MISSING;
		}
}

void
client__rows_lost(struct salt *s, size_t shard)
{
	forget_asked(s, shard, 0);
	s->rows->links[shard].sent = 0;
	s->rows->links[shard].sent_ms = s->rows->links[shard].release_ms = INT64_MIN / 2;
}

/* Hands row i of a slot to a worker, which decodes it. */
static void
accept_row(struct salt *s, struct slot *slot, uint64_t i, uint64_t g, const struct wire_row *wr)
{
	struct decoded *d = client__decoded_new(s);

	if (d == NULL || (!wr->quarantined && (d->record = malloc(wr->label.len)) == NULL)) {
		client__decoded_free(d);
		client__rows_no_memory(s);
		return;
	}
	if (!wr->quarantined)
		memcpy(d->record, wr->label.bytes, wr->label.len);
	d->record_bytes = wr->quarantined ? 0 : wr->label.len;
	d->quarantined = wr->quarantined;
	d->ticket = slot->ticket;
	d->i = i;
	d->row = g;
	d->seq = wr->seq;
	d->job.run = client__rows_decode;
	slot->rows[i].state = ROW_DECODING;
	client__work(s->workers, &d->job);
}

static void
row_came(struct salt *s, uint64_t g, const struct wire_row *wr)
{
	uint64_t step = g / s->batch, expected = blend_order(s->order, s->config->run.seed, g);
	struct err_note note;
	struct lane *lane;

	if (s->hello.plan.mode == WIRE_MODE_NONE && wr->seq != expected) {
		client__failed(s, err_expect(&note, ERR_MISMATCH, "row %" PRIu64 " of the plan", "sequence %" PRIu64, "%" PRIu64, g, expected,
		    wr->seq), &note);
		return;
	}
	TAILQ_FOREACH(lane, &s->rows->lanes, next) {
		struct slot *slot = client__lane_slot(s->rows, lane, step);
		uint64_t i = g % s->batch - lane->first;	/* huge, if the row is before the lane's first */

		if (client__slot_is(slot, step) && slot->phase_one && i < lane->n && slot->rows[i].state <= ROW_ASKED)
			accept_row(s, slot, i, g, wr);
	}
}

static void
rows_message(struct salt *s, struct session_event *event)
{
	const struct wire_message *m = event->message;
	struct link *link = &s->rows->links[event->shard];

	if (m->type == WIRE_ROWS && hash_equal(m->rows.plan_hash, s->plan_hash)) {
		if (isfinite(m->rows.heldout_loss_nats))
			s->teacher_nats = m->rows.heldout_loss_nats;
		for (size_t i = 0; i < m->rows.n_rows && s->failure.code == 0; i++)
			row_came(s, m->rows.first_row + i, &m->rows.rows[i]);
		/* the answer may be short: request the rest again now */
		forget_asked(s, event->shard, m->rows.request_id);
	} else if (m->type == WIRE_ACK && m->ack.request_id == RELEASE_REQUEST) {
		link->released = true;
	} else if (m->type == WIRE_ACK && m->ack.request_id > link->acked) {
		link->acked = m->ack.request_id;
	}
	pthread_cond_broadcast(&s->changed);
}

/* Number of requests to this shard without an answer; the rows of one request are adjacent. */
static unsigned
requests_open(const struct salt *s, size_t shard)
{
	struct lane *lane;
	unsigned n = 0;

	TAILQ_FOREACH(lane, &s->rows->lanes, next)
		for (size_t k = 0; k < s->rows->n_slots; k++) {
			const struct slot *slot = &lane->slots[k];
			uint64_t last = 0;

			for (uint64_t i = 0; slot->ticket != 0 && slot->phase_one && i < lane->n; i++)
				if (slot->rows[i].state == ROW_ASKED && slot->rows[i].request != last &&
				    is_of_shard(s, first_row(s, slot) + i, shard)) {
					last = slot->rows[i].request;
					n++;
				}
		}
	return n;
}

/*
 * Requests the slot's missing rows of this shard, adjacent ones in one request. false: no more requests now.
 */
static bool
ask_slot(struct salt *s, size_t shard, struct slot *slot, unsigned *open, int64_t now_ms)
{
	uint64_t base = first_row(s, slot), kept = s->rows->kept, rows = slot->lane->n;

	for (uint64_t i = 0; i < rows;) {
		struct wire_message message = {.type = WIRE_ROWS_REQUEST};
		uint64_t block = (base + i) / kept, n = 0;

		while (i + n < rows && (base + i + n) / kept == block && is_of_shard(s, base + i, shard)) {
			const struct row *row = &slot->rows[i + n];

			if (row->state > ROW_ASKED || (row->state == ROW_ASKED && now_ms - row->asked_ms < ASK_AGAIN_MS))
				break;
			n++;
		}
		if (n == 0) {
			i++;
			continue;
		}
		if ((*open)++ >= REQUESTS_MAX)
			return false;
		message.rows_request = (struct wire_rows_request){.request_id = ++s->rows->last_request, .plan_hash = s->plan_hash,
		    .first_row = base + i, .count = (uint32_t)n, .step = slot->lane->step};
		if (session_send(s->session, shard, &message) != 0)
			return false;
		for (uint64_t end = i + n; i < end; i++)
			slot->rows[i] = (struct row){.state = ROW_ASKED, .asked_ms = now_ms, .request = s->rows->last_request};
	}
	return true;
}

/* Requests the next step of every lane first, then the steps after it. */
static void
ask_rows(struct salt *s, size_t shard, int64_t now_ms)
{
	unsigned open = requests_open(s, shard);
	struct lane *lane;

	for (size_t k = 0; k < s->rows->n_slots; k++)
		TAILQ_FOREACH(lane, &s->rows->lanes, next) {
			struct slot *slot = client__lane_slot(s->rows, lane, lane->step + k);

			if (client__slot_is(slot, lane->step + k) && slot->phase_one && slot->n_have < lane->n && !ask_slot(s, shard, slot, &open, now_ms))
				return;
		}
}

/* The step to report as checkpointed: at most the switch step, because later steps have no rows. */
static uint64_t
checkpointed(const struct salt *s)
{
	uint64_t step = s->rows->checkpointed;

	return step < s->phase.switch_step ? step : s->phase.switch_step;
}

/* Sends CHECKPOINTED and RELEASE, and repeats them until their ACK arrives. */
static void
confirm(struct salt *s, size_t shard, int64_t now_ms)
{
	struct link *link = &s->rows->links[shard];
	uint64_t step = checkpointed(s);

	if (step > link->acked && (step > link->sent || now_ms - link->sent_ms > ANSWER_MS)) {
		struct wire_message message = {.type = WIRE_CHECKPOINTED, .checkpointed = {step, s->plan_hash, step}};

		if (session_send(s->session, shard, &message) == 0) {
			link->sent = step;
			link->sent_ms = now_ms;
		}
	}
	if (s->rows->release && !link->released && now_ms - link->release_ms > ANSWER_MS) {
		struct wire_message message = {.type = WIRE_RELEASE, .release = {RELEASE_REQUEST, s->plan_hash, s->rows->release_step}};

		if (session_send(s->session, shard, &message) == 0)
			link->release_ms = now_ms;
	}
}

static void
rows_turn(struct salt *s, int64_t now_ms)
{
	for (size_t i = 0; i < s->n_shards; i++)
		if (s->shards[i].welcomed) {
			if (s->failure.code == 0)
				ask_rows(s, i, now_ms);
			confirm(s, i, now_ms);
		}
}

/* A shard that fails after the release counts as released: nothing depends on it. */
bool
client__rows_flushed(const struct salt *s)
{
	const struct rows *r = s->rows;

	for (size_t i = 0; i < s->n_shards; i++)
		if (!(r->release && s->shards[i].failed) && (r->links[i].acked < checkpointed(s) || (r->release && !r->links[i].released)))
			return false;
	return true;
}

static void
rows_waiting(const struct salt *s, char *buf, size_t size)
{
	const struct lane *lane;

	TAILQ_FOREACH(lane, &s->rows->lanes, next) {
		const struct slot *slot = client__lane_slot(s->rows, (struct lane *)lane, lane->step);

		if (!client__slot_is(slot, lane->step) || slot->result != NULL || !slot->phase_one)
			continue;
		for (uint64_t i = 0; i < lane->n; i++)
			if (slot->rows[i].state <= ROW_ASKED) {
				snprintf(buf, size, "row %" PRIu64 " of step %" PRIu64 " has no label yet", first_row(s, slot) + i, slot->step);
				return;
			}
		snprintf(buf, size, "the labels of step %" PRIu64 " are being decoded", slot->step);
	}
	if (buf[0] == '\0' && !client__rows_flushed(s))
		snprintf(buf, size, "CHECKPOINTED or RELEASE is not acknowledged yet");
}

const struct client__part client__rows_part = {rows_welcome, client__rows_lost, rows_message, rows_turn, client__rows_flushed, rows_waiting};
