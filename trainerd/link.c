/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The feed's messages to and from the shards of selectord, over one session. selectord drops the requests of
 * a lost connection, and repeated requests are harmless: unanswered ones are sent again.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log/log.h"
#include "fabric/config/config.h"
#include "fabric/status/status.h"
#include "trainerd/feed_internal.h"
#include "trainerd/state.h"

#define ANSWER_MS 10000			/* RELEASE and CHECKPOINTED are sent again after this time without an
					   ACK */
#define ASK_AGAIN_MS 30000		/* requested rows that have not arrived are requested again after this
					   time */
#define REQUESTS_MAX 48			/* requests without an answer: selectord drops a peer's oldest beyond 64 */
#define RELEASE_REQUEST UINT64_MAX	/* request_id of RELEASE; that of CHECKPOINTED is its step */

int
feed__links_new(struct feed *f, struct err_note *note)
{
	const struct config *cfg = f->o.config;
	const struct state *resumed = f->o.resumed;
	const struct wire_id tokenizer = {f->o.has_tokenizer, f->o.tokenizer};
	struct wire_hello h = {.role = WIRE_ROLE_TRAINER, .rank = (uint32_t)f->o.rank,
	    .max_message = (uint32_t)cfg->bus.max_message, .plan = f->plan,
	    .label_set = session_label_set(cfg)};
	struct session_options so = {.bus = f->o.bus, .poll = f->poll,
	    .endpoints = cfg->selector.endpoints.item, .n_shards = f->n_links, .hello = &h,
	    .all_shards = true, .need_labels = true, .log = true};

	snprintf(h.name, sizeof(h.name), "%s", f->o.name);
	snprintf(h.status_endpoint, sizeof(h.status_endpoint), "%s", f->o.status_endpoint);
	/* a corpus without PREFIX.json has the vocabulary of the labels and the tokenizer of the model */
	h.corpus = session_corpus(f->o.corpus, f->o.corpus_fingerprint, f->context, f->spec.vocab, tokenizer);
	if (f->o.heldout != NULL)
		h.heldout = session_corpus(f->o.heldout, f->o.heldout_fingerprint, f->context, f->spec.vocab,
		    tokenizer);
	if (resumed != NULL && resumed->has_sets) {
		h.label_set.teacher = (struct wire_id){true, resumed->sets.teacher};
		h.label_set.hash = (struct wire_id){true, resumed->sets.label_set};
		so.file = (struct wire_id){true, resumed->sets.scorer};
	}
	return session_new(&f->session, &so, note);
}

void
feed__links_destroy(struct feed *f)
{
	session_destroy(&f->session);
	f->n_links = 0;
}

/* Called when a shard cannot be used. After the switch nothing depends on it, so it counts as released. */
static void
failed(struct feed *f, size_t shard, int rc, const struct err_note *note)
{
	char text[2048], quoted[2200];

	pthread_mutex_lock(&f->lock);
	if (f->release_wanted) {
		log_warn("selectord.refused", "shard=%zu why=%s", shard,
		    log_quote(err_note_str(note, rc, text, sizeof(text)), quoted, sizeof(quoted)));
		f->links[shard].released = true;
	} else {
		feed__fail(f, rc, note);
	}
	pthread_mutex_unlock(&f->lock);
}

/*
 * Handles a WELCOME, which the session has checked. The label set and its table are taken from the first one,
 * and the sets go into every checkpoint.
 */
static void
welcome(struct feed *f, size_t shard)
{
	const struct wire_welcome *w = session_welcome(f->session, shard);
	struct labels_unigram *unigram = NULL;
	struct err_note note;
	int rc;

	if (!f->has_sets && f->spec.kind == LABELS_KIND_SAMPLED &&
	    (rc = labels_unigram_new(&unigram, w->unigram.bytes, w->unigram.len, &note)) != 0) {
		failed(f, shard, rc, &note);
		return;
	}
	pthread_mutex_lock(&f->lock);
	if (!f->has_sets) {
		f->unigram = unigram;
		f->spec.unigram = unigram;
		f->spec.set = w->label_set.hash.hash;
	}
	f->has_sets = true;
	f->sets = (struct state_sets){.plan = session_plan_hash(f->session),
	    .label_set = w->label_set.hash.hash, .teacher = w->label_set.teacher.hash,
	    .scorer = w->score_set.present ? w->score_set.scorer.hash : (struct hash128){0, 0}};
	if (isfinite(w->heldout_loss_nats))
		f->teacher_nats = w->heldout_loss_nats;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
}

static bool
is_of_shard(const struct feed *f, uint64_t row, size_t shard)
{
	return row / f->kept % f->n_links == shard;
}

static uint64_t
first_row(const struct feed *f, uint64_t step)
{
	return step * f->batch + (uint64_t)f->o.rank * f->n_rows;
}

/* Marks rows of this shard as missing again that this request (UINT64_MAX: any) asked for. Lock held. */
static void
forget_asked(struct feed *f, size_t shard, uint64_t request)
{
	for (int i = 0; i < FEED_SLOTS; i++)
		for (uint64_t r = 0; f->slots[i].used && r < f->n_rows; r++) {
			struct feed_row *row = &f->slots[i].rows[r];

			if (row->state == FEED_ROW_ASKED &&
			    (request == UINT64_MAX || row->request == request) &&
			    is_of_shard(f, first_row(f, f->slots[i].step) + r, shard))
				row->state = FEED_ROW_MISSING;
		}
}

/* Number of requests to this shard without an answer; the rows of one request are adjacent. Lock held. */
static unsigned
requests_open(const struct feed *f, size_t shard)
{
	unsigned n = 0;

	for (int i = 0; i < FEED_SLOTS; i++) {
		uint64_t last = UINT64_MAX;

		for (uint64_t r = 0; f->slots[i].used && r < f->n_rows; r++) {
			const struct feed_row *row = &f->slots[i].rows[r];

			if (row->state != FEED_ROW_ASKED || row->request == last ||
			    !is_of_shard(f, first_row(f, f->slots[i].step) + r, shard))
				continue;
			last = row->request;
			n++;
		}
	}
	return n;
}

static void
rows_came(struct feed *f, size_t shard, const struct wire_rows *rows)
{
	if (!hash_equal(rows->plan_hash, f->sets.plan))
		return;
	pthread_mutex_lock(&f->lock);
	if (isfinite(rows->heldout_loss_nats))
		f->teacher_nats = rows->heldout_loss_nats;
	for (size_t i = 0; i < rows->n_rows && f->rc == 0; i++)
		feed__accept(f, rows->first_row + i, &rows->rows[i]);
	forget_asked(f, shard, rows->request_id);	/* the answer may be short: request the rest again
							   now */
	pthread_mutex_unlock(&f->lock);
}

static void
receive(struct feed *f)
{
	struct session_event event = {0};

	while (session_next(f->session, &event) == 0) {
		struct feed_link *link = &f->links[event.shard];

		switch (event.kind) {
		case SESSION_WELCOME:
			welcome(f, event.shard);
			break;
		case SESSION_LOST:
			pthread_mutex_lock(&f->lock);
			forget_asked(f, event.shard, UINT64_MAX);
			pthread_mutex_unlock(&f->lock);
			break;
		case SESSION_FAILED:
			failed(f, event.shard, event.rc, &event.note);
			break;
		case SESSION_MESSAGE:
			if (event.message->type == WIRE_ROWS)
				rows_came(f, event.shard, &event.message->rows);
			else if (event.message->type == WIRE_ACK &&
			    event.message->ack.request_id == RELEASE_REQUEST)
				link->released = true;
			else if (event.message->type == WIRE_ACK &&
			    event.message->ack.request_id > link->acked_step)
				link->acked_step = event.message->ack.request_id;
			break;
		default:
			break;
		}
	}
}

/* Requests the missing rows of this shard: adjacent ones in one request, the oldest step first. Lock held. */
static void
ask_rows(struct feed *f, size_t shard, int64_t now_ms)
{
	unsigned open = requests_open(f, shard);

	for (uint64_t step = f->next_step; step < f->next_step + FEED_SLOTS; step++) {
		struct feed_slot *slot = &f->slots[step % FEED_SLOTS];
		uint64_t base = first_row(f, step);

		if (!slot->used || slot->step != step || !slot->phase_one || slot->complete)
			continue;
		for (uint64_t i = 0; i < f->n_rows;) {
			uint64_t block = (base + i) / f->kept, n = 0;
			struct wire_message message = {.type = WIRE_ROWS_REQUEST};

			while (i + n < f->n_rows && (base + i + n) / f->kept == block &&
			    is_of_shard(f, base + i, shard)) {
				const struct feed_row *row = &slot->rows[i + n];

				if (row->state == FEED_ROW_HAVE ||
				    (row->state == FEED_ROW_ASKED && now_ms - row->asked_ms < ASK_AGAIN_MS))
					break;
				n++;
			}
			if (n == 0) {
				i++;
				continue;
			}
			if (open++ >= REQUESTS_MAX)
				return;
			message.rows_request = (struct wire_rows_request){.request_id = f->next_request++,
			    .plan_hash = f->sets.plan, .first_row = base + i, .count = (uint32_t)n,
			    .step = f->next_step};
			if (session_send(f->session, shard, &message) != 0)
				return;
			for (uint64_t end = i + n; i < end; i++) {
				slot->rows[i].state = FEED_ROW_ASKED;
				slot->rows[i].asked_ms = now_ms;
				slot->rows[i].request = message.rows_request.request_id;
			}
		}
	}
}

/* Sends CHECKPOINTED and RELEASE, and repeats them until their ACK arrives. */
static void
confirm(struct feed *f, size_t shard, uint64_t checkpointed, bool release, uint64_t release_step,
    int64_t now_ms)
{
	struct feed_link *link = &f->links[shard];

	if (checkpointed > link->acked_step && now_ms - link->checkpointed_ms > ANSWER_MS) {
		struct wire_message message = {.type = WIRE_CHECKPOINTED,
		    .checkpointed = {checkpointed, f->sets.plan, checkpointed}};

		if (session_send(f->session, shard, &message) == 0)
			link->checkpointed_ms = now_ms;
	}
	if (release && !link->released && now_ms - link->release_ms > ANSWER_MS) {
		struct wire_message message = {.type = WIRE_RELEASE,
		    .release = {RELEASE_REQUEST, f->sets.plan, release_step}};

		if (session_send(f->session, shard, &message) == 0)
			link->release_ms = now_ms;
	}
}

void
feed__links_turn(struct feed *f, int64_t now_ms)
{
	uint64_t checkpointed, release_step;
	bool release;

	receive(f);
	for (size_t i = 0; i < f->n_links; i++) {
		if (!session_welcomed(f->session, i))
			continue;
		pthread_mutex_lock(&f->lock);
		checkpointed = f->checkpointed;
		release = f->release_wanted;
		release_step = f->release_step;
		if (f->rc == 0 && !release)
			ask_rows(f, i, now_ms);
		pthread_mutex_unlock(&f->lock);
		confirm(f, i, checkpointed, release, release_step, now_ms);
	}
}
