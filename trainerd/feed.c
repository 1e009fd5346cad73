/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/feed.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock/clock.h"
#include "data/corpus/blend.h"
#include "fabric/config/config.h"
#include "base/log/log.h"
#include "base/mem/mem.h"
#include "fabric/status/status.h"
#include "trainerd/feed_internal.h"
#include "trainerd/state.h"

#define TURN_MS 250

void
feed__fail(struct feed *f, int rc, const struct err_note *note)
{
	if (f->rc == 0) {
		f->rc = rc;
		f->note = *note;
	}
	pthread_cond_broadcast(&f->changed);
}

static struct feed_slot *
slot_of(struct feed *f, uint64_t step)
{
	struct feed_slot *slot = &f->slots[step % FEED_SLOTS];

	return slot->used && slot->step == step ? slot : NULL;
}

/* Number of consecutive complete steps from step on. Lock held. */
static uint64_t
ahead_locked(struct feed *f, uint64_t step)
{
	uint64_t n = 0;
	struct feed_slot *slot;

	while ((slot = slot_of(f, step + n)) != NULL && slot->complete)
		n++;
	return n;
}

static void
slot_clear(struct feed *f, struct feed_slot *slot, uint64_t step)
{
	slot->used = true;
	slot->complete = false;
	slot->step = step;
	slot->phase_one = phase_is_one(&f->phase, step);
	slot->label_bytes = 0;
	slot->late = slot->quarantined = 0;
	for (uint64_t i = 0; i < f->n_rows; i++) {
		slot->rows[i].state = FEED_ROW_MISSING;
		slot->rows[i].labelled = false;
		labels_batch_clear(&slot->rows[i].labels);
	}
}

/*
 * Copies the dense labels of a row. Records cover the tokenizer's ids; the model may have more, with
 * probability 0.
 */
static void
join_dense(struct feed *f, struct feed_slot *slot, uint64_t i)
{
	const struct labels_batch *b = &slot->rows[i].labels;
	size_t vocab = f->o.vocab_size;

	for (size_t t = 0; t < f->context; t++) {
		float *to = slot->dense + (i * f->context + t) * vocab;

		memcpy(to, b->dense + t * b->vocab, b->vocab * sizeof(float));
		memset(to + b->vocab, 0, (vocab - b->vocab) * sizeof(float));
	}
}

/* Joins the labels of the slot's rows into one array each; rows without label have no entries. */
static int
slot_join(struct feed *f, struct feed_slot *slot)
{
	bool dense = f->spec.kind == LABELS_KIND_DENSE;
	size_t len = f->context, total = 0;

	for (uint64_t i = 0; i < f->n_rows && !dense; i++)
		if (slot->rows[i].labelled)
			total += (size_t)slot->rows[i].labels.row_offsets[len];
	if (dense && slot->dense == NULL && (slot->dense = mem_alloc(f->n_rows * len, f->o.vocab_size * sizeof(float))) == NULL)
		return ENOMEM;
	if (mem_grow((void **)&slot->ids, &slot->cap_ids, total + 1, sizeof(int32_t)) != 0 ||
	    mem_grow((void **)&slot->values, &slot->cap_values, total + 1, sizeof(float)) != 0)
		return ENOMEM;
	total = 0;
	slot->offsets[0] = 0;
	for (uint64_t i = 0; i < f->n_rows; i++) {
		const struct labels_batch *b = &slot->rows[i].labels;
		bool sparse = slot->rows[i].labelled && !dense;
		size_t n = sparse ? (size_t)b->row_offsets[len] : 0;

		if (slot->rows[i].labelled && dense)
			join_dense(f, slot, i);
		if (n > 0) {
			memcpy(slot->ids + total, b->ids, n * sizeof(int32_t));
			memcpy(slot->values + total, b->weights, n * sizeof(float));
		}
		for (size_t t = 0; t < len; t++)
			slot->offsets[i * len + t + 1] = (int64_t)total + (sparse ? b->row_offsets[t + 1] : 0);
		total += n;
	}
	return 0;
}

static void
slot_complete(struct feed *f, struct feed_slot *slot)
{
	struct err_note note = {.name = "labels of a step"};

	for (uint64_t i = 0; i < f->n_rows; i++)
		if (slot->rows[i].state != FEED_ROW_HAVE)
			return;
	if (slot->phase_one && slot_join(f, slot) != 0) {
		feed__fail(f, ENOMEM, &note);
		return;
	}
	slot->complete = true;
	status_set(f->rows_ahead, (double)ahead_locked(f, f->next_step));
	pthread_cond_broadcast(&f->changed);
}

/* Reads the tokens of row i of a slot, and the weights of their losses. */
static int
slot_window(struct feed *f, struct feed_slot *slot, uint64_t i, uint64_t seq, struct err_note *note)
{
	int rc = corpus_window(f->o.corpus, seq, f->context, slot->tokens + i * (f->context + 1), note);

	if (rc == 0 && slot->loss_weight != NULL)
		corpus_window_weights(f->o.corpus, seq, f->context, slot->loss_weight + i * f->context);
	return rc;
}

/* Reads row i of a slot from the corpus, in shuffle order. */
static int
slot_local_row(struct feed *f, struct feed_slot *slot, uint64_t i)
{
	uint64_t position = slot->step * f->batch + (uint64_t)f->o.rank * f->n_rows + i;
	struct err_note note;
	int rc = slot_window(f, slot, i, blend_order(f->order, f->plan.seed, position), &note);

	if (rc != 0) {
		feed__fail(f, rc, &note);
		return rc;
	}
	slot->rows[i].state = FEED_ROW_HAVE;
	slot->rows[i].labelled = false;
	return 0;
}

static void
slot_local(struct feed *f, struct feed_slot *slot)
{
	for (uint64_t i = 0; i < f->n_rows; i++)
		if (slot_local_row(f, slot, i) != 0)
			return;
	slot_complete(f, slot);
}

void
feed__accept(struct feed *f, uint64_t g, const struct wire_row *wr)
{
	uint64_t step = g / f->batch, first = (uint64_t)f->o.rank * f->n_rows, i = g % f->batch - first;
	struct feed_slot *slot = slot_of(f, step);
	struct feed_row *row;
	struct err_note note;
	int32_t *tokens;
	int rc;

	if (slot == NULL || !slot->phase_one || g % f->batch < first || i >= f->n_rows || slot->rows[i].state == FEED_ROW_HAVE)
		return;			/* it was requested twice, or is not needed any more */
	row = &slot->rows[i];
	tokens = slot->tokens + i * (f->context + 1);
	if (f->plan.mode == WIRE_MODE_NONE && wr->seq != blend_order(f->order, f->plan.seed, g)) {
		rc = err_expect(&note, ERR_MISMATCH, "row %" PRIu64 " of the plan", "sequence %" PRIu64, "%" PRIu64, g,
		    blend_order(f->order, f->plan.seed, g), wr->seq);
		feed__fail(f, rc, &note);
		return;
	}
	if ((rc = slot_window(f, slot, i, wr->seq, &note)) != 0) {
		feed__fail(f, rc, &note);
		return;
	}
	labels_batch_clear(&row->labels);
	if (!wr->quarantined &&
	    (rc = labels_decode(&f->spec, hash_tokens(tokens, (size_t)f->context + 1), wr->label.bytes, wr->label.len, &row->labels, &note)) != 0) {
		char text[1024];

		status_add(f->bad_rows, 1);
		log_error("row.bad", "row=%" PRIu64 " seq=%" PRIu64 " why=\"%s\"", g, wr->seq, err_note_str(&note, rc, text, sizeof(text)));
		feed__fail(f, rc, &note);
		return;
	}
	row->state = FEED_ROW_HAVE;
	row->labelled = !wr->quarantined;
	slot->quarantined += wr->quarantined;
	slot->label_bytes += wr->label.len;
	status_add(f->label_bytes, wr->label.len);
	slot_complete(f, slot);
}

/* Gives free slots the next steps, and fills those whose rows come from the corpus. Lock held. */
static void
feed_fill(struct feed *f)
{
	for (uint64_t step = f->next_step; step < f->next_step + FEED_SLOTS && step < f->phase.total_steps && f->rc == 0; step++) {
		struct feed_slot *slot = &f->slots[step % FEED_SLOTS];

		if (!slot->used || slot->step != step)
			slot_clear(f, slot, step);
		if (!slot->complete && !slot->phase_one)
			slot_local(f, slot);
	}
}

/* Whether all shards have confirmed RELEASE, and there is at least one. Lock held. */
static bool
links_released(const struct feed *f)
{
	for (size_t i = 0; i < f->n_links; i++)
		if (!f->links[i].released)
			return false;
	return f->n_links > 0;
}

static void *
feed_main(void *arg)
{
	struct feed *f = arg;
	struct err_note note;
	int rc = 0;
	bool stop, released;

	if (f->n_links > 0 && (rc = feed__links_new(f, &note)) != 0) {
		char text[1024], quoted[1200];

		/* In phase two only a RELEASE is still to be sent, and the run does not depend on it. */
		pthread_mutex_lock(&f->lock);
		if (f->release_wanted)
			log_warn("selectord.unusable", "why=%s", log_quote(err_note_str(&note, rc, text, sizeof(text)), quoted, sizeof(quoted)));
		else
			feed__fail(f, rc, &note);
		pthread_mutex_unlock(&f->lock);
	}
	do {
		if (f->session != NULL)
			feed__links_turn(f, clock_now_ms());
		pthread_mutex_lock(&f->lock);
		feed_fill(f);
		stop = f->stop;
		if (f->release_wanted && !f->released && links_released(f)) {
			f->released = true;
			pthread_cond_broadcast(&f->changed);
		}
		released = f->released;
		pthread_mutex_unlock(&f->lock);
		if (released && f->n_links > 0) {
			log_info("release.done", "shards=%zu", f->n_links);
			feed__links_destroy(f);
		}
		if (!stop && (rc = bus_poll_wait(f->poll, TURN_MS)) != 0) {
			err_note_set(&note, rc, "poll of the feed");
			pthread_mutex_lock(&f->lock);
			feed__fail(f, rc, &note);	/* the main loop must not wait for rows any longer */
			pthread_mutex_unlock(&f->lock);
			break;
		}
	} while (!stop);
	feed__links_destroy(f);
	return NULL;
}

static int
feed_rows_alloc(struct feed *f)
{
	for (int i = 0; i < FEED_SLOTS; i++) {
		struct feed_slot *slot = &f->slots[i];

		slot->rows = mem_alloc(f->n_rows, sizeof(*slot->rows));
		slot->tokens = mem_alloc(f->n_rows * ((size_t)f->context + 1), sizeof(int32_t));
		slot->weight = mem_alloc(f->n_rows, sizeof(float));
		slot->offsets = mem_alloc(f->n_rows * f->context + 1, sizeof(int64_t));
		if (corpus_info(f->o.corpus)->has_weights && (slot->loss_weight = mem_alloc(f->n_rows * f->context, sizeof(float))) == NULL)
			return ENOMEM;
		if (slot->rows == NULL || slot->tokens == NULL || slot->weight == NULL || slot->offsets == NULL)
			return ENOMEM;
	}
	return 0;
}

static void
feed_plan(struct feed *f)
{
	const struct config *cfg = f->o.config;
	uint64_t ahead = cfg->selector.label_ahead_steps;

	config_block(cfg, &f->block, &f->kept);
	f->plan = session_plan(cfg, phase_max_rows(&f->phase, f->batch),
	    ahead == CONFIG_ALL || ahead > UINT64_MAX / f->batch ? UINT64_MAX : ahead * f->batch);
	f->spec = (struct labels_spec){.kind = cfg->labels.kind, .version = LABELS_VERSION, .context = f->context,
	    .vocab = corpus_info(f->o.corpus)->vocab != 0 ? corpus_info(f->o.corpus)->vocab : f->o.vocab_size,
	    .n_samples = cfg->labels.samples, .k = cfg->labels.k, .seed = cfg->labels.seed, .tau = cfg->labels.tau};
}

int
feed_new(struct feed **out, const struct feed_options *o, struct err_note *note)
{
	const struct config *cfg = o->config;
	struct feed *f = calloc(1, sizeof(*f));
	int rc = ENOMEM;

	*out = NULL;
	if (f == NULL)
		return ENOMEM;
	f->o = *o;
	f->phase = o->phase;
	f->context = cfg->corpus.context;
	f->batch = cfg->trainer.batch;
	f->n_rows = f->batch / (uint64_t)o->n_ranks;
	f->next_step = o->first_step;
	f->teacher_nats = o->resumed != NULL ? o->resumed->teacher_nats : NAN;
	f->released = o->resumed != NULL && o->resumed->released;
	pthread_mutex_init(&f->lock, NULL);
	clock_cond_init(&f->changed);
	if ((rc = corpus_blend(&f->order, o->corpus, f->context, note)) != 0)
		goto fail;
	rc = ENOMEM;
	feed_plan(f);
	f->rows_ahead = status_register(o->status, STATUS_QUEUE, "rows_ahead", "steps", "steps whose rows are complete");
	f->label_bytes = status_register(o->status, STATUS_COUNTER, "label_bytes_total", "bytes", "label records received");
	f->bad_rows = status_register(o->status, STATUS_COUNTER, "bad_rows_total", "rows", "rows whose label did not match the corpus");
	if (feed_rows_alloc(f) != 0)
		goto fail;
	/* selectord is needed in phase one, and after it until it has confirmed RELEASE. */
	if (!f->released && (f->phase.switch_step > 0 || phase_is_one(&f->phase, o->first_step))) {
		f->n_links = cfg->selector.endpoints.n;
		if ((f->links = mem_alloc(f->n_links, sizeof(*f->links))) == NULL)
			goto fail;
		if (!phase_is_one(&f->phase, o->first_step)) {
			f->release_wanted = true;
			f->release_step = f->phase.switch_step;
		}
	}
	if ((f->waker = bus_waker_new()) == NULL) {
		rc = err_note_set(note, errno, "feed");
		goto fail;
	}
	if ((f->poll = bus_poll_new(o->bus)) == NULL || bus_poll_add_waker(f->poll, f->waker) != 0)
		goto fail;
	if ((rc = pthread_create(&f->thread, NULL, feed_main, f)) != 0)
		goto fail;
	f->started = true;
	*out = f;
	return 0;
fail:
	feed_destroy(&f);
	return rc;
}

void
feed_destroy(struct feed **feed)
{
	struct feed *f = *feed;

	if (f == NULL)
		return;
	if (f->started) {
		pthread_mutex_lock(&f->lock);
		f->stop = true;
		pthread_mutex_unlock(&f->lock);
		bus_waker_wake(f->waker);
		pthread_join(f->thread, NULL);
	}
	bus_poll_destroy(&f->poll);
	bus_waker_destroy(&f->waker);
	free(f->links);
	for (int i = 0; i < FEED_SLOTS; i++) {
		struct feed_slot *slot = &f->slots[i];

		for (uint64_t r = 0; slot->rows != NULL && r < f->n_rows; r++)
			labels_batch_free(&slot->rows[r].labels);
		free(slot->rows);
		free(slot->tokens);
		free(slot->weight);
		free(slot->loss_weight);
		free(slot->offsets);
		free(slot->ids);
		free(slot->values);
		free(slot->dense);
	}
	blend_destroy(&f->order);
	labels_unigram_destroy(&f->unigram);
	pthread_cond_destroy(&f->changed);
	pthread_mutex_destroy(&f->lock);
	free(f);
	*feed = NULL;
}

int
feed_poll(struct feed *f, uint64_t step, struct err_note *note)
{
	struct feed_slot *slot;
	int rc;

	pthread_mutex_lock(&f->lock);
	slot = slot_of(f, step);
	rc = f->rc != 0 ? f->rc : slot != NULL && slot->complete ? 0 : ERR_AGAIN;
	if (f->rc != 0 && note != NULL)
		*note = f->note;
	pthread_mutex_unlock(&f->lock);
	return rc;
}

void
feed_wait(struct feed *f, int timeout_ms)
{
	struct timespec t = clock_after_ms(timeout_ms);

	pthread_mutex_lock(&f->lock);
	pthread_cond_timedwait(&f->changed, &f->lock, &t);
	pthread_mutex_unlock(&f->lock);
}

bool
feed_late(struct feed *f, uint64_t step)
{
	struct feed_slot *slot;
	bool late;

	pthread_mutex_lock(&f->lock);
	slot = slot_of(f, step);
	late = slot != NULL && slot->phase_one && f->o.config->phase_one.late == CONFIG_LATE_HARD && f->plan.mode == WIRE_MODE_NONE;
	pthread_mutex_unlock(&f->lock);
	return late;
}

int
feed_take(struct feed *f, uint64_t step, struct feed_rows *out)
{
	struct feed_slot *slot;
	float w;
	int rc = 0;

	memset(out, 0, sizeof(*out));
	pthread_mutex_lock(&f->lock);
	if ((slot = slot_of(f, step)) == NULL) {
		pthread_mutex_unlock(&f->lock);
		return ERR_INTERNAL;
	}
	for (uint64_t i = 0; !slot->complete && i < f->n_rows && rc == 0; i++)
		if (slot->rows[i].state != FEED_ROW_HAVE) {
			slot->late++;
			rc = slot_local_row(f, slot, i);
		}
	if (rc == 0 && !slot->complete)
		slot_complete(f, slot);
	w = phase_weight(&f->phase, step);
	out->rows = (struct step_rows){.n_rows = (int64_t)f->n_rows, .tokens = slot->tokens, .loss_weight = slot->loss_weight};
	if (slot->phase_one) {
		for (uint64_t i = 0; i < f->n_rows; i++)
			slot->weight[i] = slot->rows[i].labelled ? w : 0.0f;
		out->rows.weight = slot->weight;
		out->rows.offsets = slot->offsets;
		out->rows.ids = slot->ids;
		out->rows.values = slot->values;
		if (f->spec.kind == LABELS_KIND_DENSE) {
			out->rows.offsets = NULL;
			out->rows.dense = slot->dense;
		}
	}
	out->label_bytes = slot->label_bytes;
	out->late_rows = slot->late;
	out->quarantined_rows = slot->quarantined;
	pthread_mutex_unlock(&f->lock);
	return rc;
}

/* Unlocks after a change, and wakes the feed's thread. */
static void
unlock_and_wake(struct feed *f)
{
	pthread_mutex_unlock(&f->lock);
	bus_waker_wake(f->waker);
}

void
feed_done(struct feed *f, uint64_t step)
{
	struct feed_slot *slot;

	pthread_mutex_lock(&f->lock);
	if ((slot = slot_of(f, step)) != NULL)
		slot->used = false;
	f->next_step = step + 1;
	unlock_and_wake(f);
}

void
feed_switch(struct feed *f, uint64_t switch_step)
{
	pthread_mutex_lock(&f->lock);
	f->phase.switch_step = switch_step;
	for (int i = 0; i < FEED_SLOTS; i++)
		if (f->slots[i].used && f->slots[i].step >= switch_step && f->slots[i].phase_one)
			f->slots[i].used = false;
	unlock_and_wake(f);
}

void
feed_checkpointed(struct feed *f, uint64_t step)
{
	pthread_mutex_lock(&f->lock);
	f->checkpointed = step;
	unlock_and_wake(f);
}

void
feed_release(struct feed *f, uint64_t step)
{
	pthread_mutex_lock(&f->lock);
	f->release_wanted = true;
	f->release_step = step;
	unlock_and_wake(f);
}

struct feed_view
feed_view(struct feed *f)
{
	struct feed_view view;

	pthread_mutex_lock(&f->lock);
	view = (struct feed_view){.teacher_nats = f->teacher_nats, .has_sets = f->has_sets, .sets = f->sets, .released = f->released,
	    .ahead = ahead_locked(f, f->next_step)};
	pthread_mutex_unlock(&f->lock);
	return view;
}
