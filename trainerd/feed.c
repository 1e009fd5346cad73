#include "trainerd/feed.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock/clock.h"
#include "base/random/shuffle.h"
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

/* Complete steps from step on without a gap. Lock held. */
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

/* One array of ids and weights out of the rows' own; rows without label have no entries. */
static int
slot_join(struct feed *f, struct feed_slot *slot)
{
	size_t len = f->context, vocab = f->o.vocab_size, total = 0;

	for (uint64_t i = 0; i < f->n_rows; i++)
		if (slot->rows[i].labelled && f->spec.kind != LABELS_KIND_DENSE)
			total += (size_t)slot->rows[i].labels.row_offsets[len];
	if (f->spec.kind == LABELS_KIND_DENSE && slot->dense == NULL && (slot->dense = mem_alloc(f->n_rows * len, vocab * sizeof(float))) == NULL)
		return ENOMEM;
	if (mem_grow((void **)&slot->ids, &slot->cap_ids, total + 1, sizeof(int32_t)) != 0 ||
	    mem_grow((void **)&slot->values, &slot->cap_values, total + 1, sizeof(float)) != 0)
		return ENOMEM;
	total = 0;
	slot->offsets[0] = 0;
	for (uint64_t i = 0; i < f->n_rows; i++) {
		const struct feed_row *row = &slot->rows[i];
		const struct labels_batch *b = &row->labels;

		if (row->labelled && f->spec.kind == LABELS_KIND_DENSE) {
			/* Records cover the tokenizer's ids; the model's may be more, with probability 0. */
			for (size_t t = 0; t < len; t++) {
				float *to = slot->dense + (i * len + t) * vocab;

				memcpy(to, b->dense + t * b->vocab, b->vocab * sizeof(float));
				memset(to + b->vocab, 0, (vocab - b->vocab) * sizeof(float));
			}
		} else if (row->labelled) {
			size_t n = (size_t)b->row_offsets[len];

			memcpy(slot->ids + total, b->ids, n * sizeof(int32_t));
			memcpy(slot->values + total, b->weights, n * sizeof(float));
			for (size_t t = 0; t < len; t++)
				slot->offsets[i * len + t + 1] = (int64_t)total + b->row_offsets[t + 1];
			total += n;
		}
		for (size_t t = 0; !(row->labelled && f->spec.kind != LABELS_KIND_DENSE) && t < len; t++)
			slot->offsets[i * len + t + 1] = (int64_t)total;
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

/* Row i of a slot straight from the corpus, in the order of BASELINE. */
static int
slot_local_row(struct feed *f, struct feed_slot *slot, uint64_t i)
{
	uint64_t position = slot->step * f->batch + (uint64_t)f->o.rank * f->n_rows + i;
	struct err_note note;
	int rc = corpus_window(f->o.corpus, shuffle_order(f->plan.seed, f->n_windows, position), f->context,
	    slot->tokens + i * (f->context + 1), &note);

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
		return;			/* asked twice, or no longer wanted */
	row = &slot->rows[i];
	tokens = slot->tokens + i * (f->context + 1);
	if (f->plan.mode == WIRE_MODE_NONE && wr->seq != shuffle_order(f->plan.seed, f->n_windows, g)) {
		err_note_set(&note, ERR_MISMATCH, "row %llu of the plan", (unsigned long long)g);
		err_note_expected(&note, "sequence %llu", (unsigned long long)shuffle_order(f->plan.seed, f->n_windows, g));
		err_note_found(&note, "%llu", (unsigned long long)wr->seq);
		feed__fail(f, ERR_MISMATCH, &note);
		return;
	}
	if ((rc = corpus_window(f->o.corpus, wr->seq, f->context, tokens, &note)) != 0) {
		feed__fail(f, rc, &note);
		return;
	}
	labels_batch_clear(&row->labels);
	if (!wr->quarantined &&
	    (rc = labels_decode(&f->spec, hash_tokens(tokens, (size_t)f->context + 1), wr->label.bytes, wr->label.len, &row->labels, &note)) != 0) {
		char text[1024];

		status_add(f->bad_rows, 1);
		log_error("row.bad", "row=%llu seq=%llu why=\"%s\"", (unsigned long long)g, (unsigned long long)wr->seq,
		    err_note_str(&note, rc, text, sizeof(text)));
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

/* Give free slots the steps that come next; fill those that need nobody. Lock held. */
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

static void *
feed_main(void *arg)
{
	struct feed *f = arg;
	struct err_note note;
	int rc = 0, polled;
	bool stop;

	if (f->n_links > 0 && (rc = feed__links_new(f, &note)) != 0) {
		char text[1024], quoted[1200];

		/* Phase two needs nobody: an endpoint that cannot be used any more only means a RELEASE that is not said. */
		pthread_mutex_lock(&f->lock);
		if (f->release_wanted)
			log_warn("selectord.unusable", "why=%s", log_quote(err_note_str(&note, rc, text, sizeof(text)), quoted, sizeof(quoted)));
		else
			feed__fail(f, rc, &note);
		pthread_mutex_unlock(&f->lock);
	}
	do {
		bool linked;

		if (f->session != NULL)
			feed__links_turn(f, clock_now_ms());
		pthread_mutex_lock(&f->lock);
		feed_fill(f);
		stop = f->stop;
		linked = f->n_links > 0;
		for (size_t i = 0; i < f->n_links; i++)
			linked = linked && f->links[i].released;
		if (linked && f->release_wanted && !f->released) {
			f->released = true;
			pthread_cond_broadcast(&f->changed);
		}
		linked = f->released;
		pthread_mutex_unlock(&f->lock);
		if (linked && f->n_links > 0) {
			log_info("release.done", "shards=%zu", f->n_links);
			feed__links_destroy(f);
		}
		if (!stop && (polled = bus_poll_wait(f->poll, TURN_MS)) != 0) {
			err_note_set(&note, polled, "poll of the feed");
			pthread_mutex_lock(&f->lock);
			feed__fail(f, polled, &note);	/* or the step would wait for rows for ever */
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
		if (slot->rows == NULL || slot->tokens == NULL || slot->weight == NULL || slot->offsets == NULL)
			return ENOMEM;
	}
	return 0;
}

static void
feed_plan(struct feed *f)
{
	static const enum labels_kind kinds[] = {[CONFIG_LABEL_SAMPLED] = LABELS_KIND_SAMPLED, [CONFIG_LABEL_TOPK] = LABELS_KIND_TOPK,
	    [CONFIG_LABEL_DENSE] = LABELS_KIND_DENSE};
	const struct config *cfg = f->o.config;
	uint64_t ahead = cfg->selector.label_ahead_steps;

	config_block(cfg, &f->block, &f->kept);
	f->plan = session_plan(cfg, phase_max_rows(&f->phase, f->batch),
	    ahead == CONFIG_ALL || ahead > UINT64_MAX / f->batch ? UINT64_MAX : ahead * f->batch);
	f->spec = (struct labels_spec){.kind = kinds[cfg->labels.kind], .version = LABELS_VERSION, .context = f->context,
	    .vocab = corpus_info(f->o.corpus)->vocab != 0 ? corpus_info(f->o.corpus)->vocab : f->o.vocab_size,
	    .n_samples = cfg->labels.samples, .k = cfg->labels.k, .seed = cfg->labels.seed, .tau = cfg->labels.tau};
}

int
feed_new(struct feed **out, const struct feed_options *o, struct err_note *note)
{
	const struct config *cfg = o->config;
	struct feed *f = calloc(1, sizeof(*f));
	pthread_condattr_t attr;
	int rc = ENOMEM;

	*out = NULL;
	if (f == NULL)
		return ENOMEM;
	f->o = *o;
	f->phase = o->phase;
	f->context = cfg->corpus.context;
	f->batch = cfg->trainer.batch;
	f->n_rows = f->batch / (uint64_t)o->n_ranks;
	f->n_windows = corpus_n_windows(o->corpus, f->context);
	f->next_step = o->first_step;
	f->teacher_nats = o->resumed != NULL ? o->resumed->teacher_nats : NAN;
	f->released = o->resumed != NULL && o->resumed->released;
	pthread_mutex_init(&f->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&f->changed, &attr);
	pthread_condattr_destroy(&attr);
	if (f->n_windows == 0) {
		rc = err_note_set(note, ERR_RANGE, "%s", cfg->corpus.train);
		err_note_expected(note, "at least corpus.context + 1 = %u tokens", f->context + 1);
		err_note_found(note, "%llu", (unsigned long long)corpus_n_tokens(o->corpus));
		goto fail;
	}
	feed_plan(f);
	f->rows_ahead = status_register(o->status, STATUS_QUEUE, "rows_ahead", "steps", "steps whose rows are complete");
	f->label_bytes = status_register(o->status, STATUS_COUNTER, "label_bytes_total", "bytes", "label records received");
	f->bad_rows = status_register(o->status, STATUS_COUNTER, "bad_rows_total", "rows", "rows whose label did not fit the corpus");
	if (feed_rows_alloc(f) != 0)
		goto fail;
	/* Links: in phase one, and after it only as long as a RELEASE is unconfirmed. */
	if (!f->released && (f->phase.switch_step > 0 || phase_is_one(&f->phase, o->first_step))) {
		f->n_links = cfg->selector.endpoints.n;
		if ((f->links = mem_alloc(f->n_links, sizeof(*f->links))) == NULL)
			goto fail;
		if (!phase_is_one(&f->phase, o->first_step)) {
			f->release_wanted = true;
			f->release_step = f->phase.switch_step;
		}
	}
	if ((f->waker = bus_waker_new()) == NULL || (f->poll = bus_poll_new(o->bus)) == NULL || bus_poll_add_waker(f->poll, f->waker) != 0)
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
		free(slot->offsets);
		free(slot->ids);
		free(slot->values);
		free(slot->dense);
	}
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
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += timeout_ms / 1000;
	t.tv_nsec += timeout_ms % 1000 * 1000000L;
	if (t.tv_nsec >= 1000000000L) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000L;
	}
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
	out->rows = (struct step_rows){.n_rows = (int64_t)f->n_rows, .tokens = slot->tokens};
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

void
feed_done(struct feed *f, uint64_t step)
{
	struct feed_slot *slot;

	pthread_mutex_lock(&f->lock);
	if ((slot = slot_of(f, step)) != NULL)
		slot->used = false;
	f->next_step = step + 1;
	pthread_mutex_unlock(&f->lock);
	bus_waker_wake(f->waker);
}

void
feed_switch(struct feed *f, uint64_t switch_step)
{
	pthread_mutex_lock(&f->lock);
	f->phase.switch_step = switch_step;
	for (int i = 0; i < FEED_SLOTS; i++)
		if (f->slots[i].used && f->slots[i].step >= switch_step && f->slots[i].phase_one)
			f->slots[i].used = false;
	pthread_mutex_unlock(&f->lock);
	bus_waker_wake(f->waker);
}

void
feed_checkpointed(struct feed *f, uint64_t step)
{
	pthread_mutex_lock(&f->lock);
	f->checkpointed = step;
	pthread_mutex_unlock(&f->lock);
	bus_waker_wake(f->waker);
}

void
feed_release(struct feed *f, uint64_t step)
{
	pthread_mutex_lock(&f->lock);
	f->release_wanted = true;
	f->release_step = step;
	pthread_mutex_unlock(&f->lock);
	bus_waker_wake(f->waker);
}

bool
feed_released(struct feed *f)
{
	bool released;

	pthread_mutex_lock(&f->lock);
	released = f->released;
	pthread_mutex_unlock(&f->lock);
	return released;
}

double
feed_teacher_nats(struct feed *f)
{
	double nats;

	pthread_mutex_lock(&f->lock);
	nats = f->teacher_nats;
	pthread_mutex_unlock(&f->lock);
	return nats;
}

bool
feed_sets(struct feed *f, struct hash128 *plan, struct hash128 *label_set, struct hash128 *teacher, struct hash128 *scorer)
{
	bool has;

	pthread_mutex_lock(&f->lock);
	has = f->has_sets;
	*plan = f->plan_hash;
	*label_set = f->label_set;
	*teacher = f->teacher;
	*scorer = f->scorer;
	pthread_mutex_unlock(&f->lock);
	return has;
}

uint64_t
feed_ahead(struct feed *f)
{
	uint64_t n;

	pthread_mutex_lock(&f->lock);
	n = ahead_locked(f, f->next_step);
	pthread_mutex_unlock(&f->lock);
	return n;
}
