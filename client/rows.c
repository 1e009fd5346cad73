/* SPDX-License-Identifier: Apache-2.0 */
/* The public calls of a trainer. */
#include "client/rows_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/clock/clock.h"
#include "base/mem/mem.h"

int
client__rows_new(struct salt *s, struct err_note *note)
{
	struct rows *r = calloc(1, sizeof(*r));
	uint64_t block;

	if ((s->rows = r) == NULL || (r->links = mem_alloc(s->n_shards, sizeof(*r->links))) == NULL)
		return err_note_set(note, ENOMEM, "rows");
	TAILQ_INIT(&r->lanes);
	SLIST_INIT(&r->spares);
	r->n_slots = s->prefetch_steps + (size_t)1;
	config_block(s->config, &block, &r->kept);
	for (size_t i = 0; i < s->n_shards; i++)
		client__rows_lost(s, i);
	r->m_ahead = status_register(s->status, STATUS_QUEUE, "rows_ahead", "steps", "steps whose rows are complete");
	r->m_bytes = status_register(s->status, STATUS_COUNTER, "label_bytes_total", "bytes", "label records handed out");
	r->m_quarantined = status_register(s->status, STATUS_COUNTER, "quarantined_rows_total", "rows",
	    "rows of phase one without a label because their sequence is in quarantine");
	r->m_tokens = status_register(s->status, STATUS_RATED, "tokens_total", "tokens", "tokens of the rows handed out by this process");
	r->m_wait = status_register(s->status, STATUS_TIMER, "wait_rows_seconds_total", "seconds", "waiting for rows");
	return 0;
}

void
client__rows_free(struct salt *s)
{
	struct rows *r = s->rows;
	struct lane *lane;
	struct decoded *d;

	if (r == NULL)
		return;
	while (r->links != NULL && (lane = TAILQ_FIRST(&r->lanes)) != NULL)
		client__lane_free(r, lane);
	while ((d = SLIST_FIRST(&r->spares)) != NULL) {
		SLIST_REMOVE_HEAD(&r->spares, spare);
		client__decoded_free(d);
	}
	labels_unigram_destroy(&r->unigram);
	free(r->links);
	free(r);
}

void
client__rows_view(const struct salt *s, struct salt_view *v)
{
	const struct rows *r = s->rows;

	v->ahead = client__rows_ahead(r);
	v->released = 1;
	v->checkpointed = UINT64_MAX;
	for (size_t i = 0; i < s->n_shards; i++) {
		v->released &= r->links[i].released;
		if (r->links[i].acked < v->checkpointed)
			v->checkpointed = r->links[i].acked;
	}
	v->quarantined_rows = r->quarantined_rows;
	v->label_bytes = r->label_bytes;
}

/* Hands out the slot's result, with distillation weights for the present switch step. */
static int
slot_take(struct salt *s, struct slot *slot, struct salt_rows **rows, struct salt_error *e)
{
	struct result *x = slot->result;
	float weight = phase_weight(&s->phase, slot->step);
	uint64_t quarantined = 0;

	slot->result = NULL;
	client__slot_drop(s->rows, slot);
	if (x->failure.code != 0) {
		int rc = client__copy(e, &x->failure);

		client__result_free(x);
		return rc;
	}
	for (uint64_t i = 0; i < x->rows.n; i++) {
		((float *)x->rows.kd_weight)[i] = x->rows.quarantined[i] ? 0 : weight;
		quarantined += x->rows.quarantined[i];
	}
	s->rows->quarantined_rows += quarantined;
	s->rows->label_bytes += x->rows.label_bytes;
	status_add(s->rows->m_quarantined, quarantined);
	status_add(s->rows->m_bytes, x->rows.label_bytes);
	status_add(s->rows->m_tokens, x->rows.n * s->context);
	status_step(s->status, x->rows.step, s->phase.total_steps);
	status_phase(s->status, x->rows.phase == 1 ? "one" : "two");
	status_state(s->status, "training", clock_now_ms());
	*rows = &x->rows;
	return SALT_OK;
}

/*
 * With until_margin rows wait for the teacher's loss: otherwise the switch would depend on when the loss
 * arrives.
 */
static bool
may_take(const struct salt *s, const struct slot *slot)
{
	return slot->result != NULL && (s->phase.switch_step != PHASE_UNKNOWN || isfinite(s->teacher_nats));
}

static int
timed_out(const struct salt *s, uint64_t step, int timeout_ms, struct salt_error *e)
{
	char why[256] = "";

	client__waiting(s, why, sizeof(why));
	return client__error(e, SALT_TIMEOUT, "the rows of step %" PRIu64 " are not complete within %d ms: %s", step, timeout_ms, why);
}

static int
wait_rows(struct salt *s, struct lane *lane, uint64_t step, int timeout_ms, struct salt_rows **rows, struct salt_error *e)
{
	const struct timespec deadline = client__deadline(timeout_ms);
	struct slot *slot;

	for (;;) {
		if (s->failure.code != 0 && phase_is_one(&s->phase, step))
			return client__copy(e, &s->failure);
		client__lane_move(s, lane, step);
		slot = client__lane_slot(s->rows, lane, step);
		if (may_take(s, slot)) {
			int rc = slot_take(s, slot, rows, e);

			if (rc == SALT_OK)
				client__lane_move(s, lane, step + 1);
			return rc;
		}
		status_state(s->status, "waiting for rows", clock_now_ms());
		if (!client__wait(s, timeout_ms, &deadline))
			return timed_out(s, step, timeout_ms, e);
	}
}

int
salt_rows(struct salt *s, uint64_t step, uint64_t first, uint64_t n, int timeout_ms, struct salt_rows **rows, struct salt_error *e)
{
	struct lane *lane;
	int64_t start;
	int rc;

	*rows = NULL;
	if ((rc = client__enter(s, SALT_TRAINER, e)) != 0)
		return rc;
	if (step >= s->phase.total_steps)
		return client__error(e, SALT_RANGE, "step: expected less than trainer.steps = %" PRIu64 ", found %" PRIu64, s->phase.total_steps, step);
	if (n == 0 || first >= s->batch || n > s->batch - first)
		return client__error(e, SALT_RANGE, "rows of a step: expected 1 to trainer.batch = %" PRIu64 ", found %" PRIu64 " from row %" PRIu64 " on",
		    s->batch, n, first);
	start = clock_now_ns();
	pthread_mutex_lock(&s->lock);
	if ((lane = client__lane_of(s->rows, first, n)) != NULL) {
		lane->waiting++;
		rc = wait_rows(s, lane, step, timeout_ms, rows, e);
		lane->waiting--;
	} else {
		rc = client__fail(e, ENOMEM, NULL);
	}
	pthread_mutex_unlock(&s->lock);
	status_add(s->rows->m_wait, (uint64_t)(clock_now_ns() - start));
	return rc;
}

int
salt_checkpointed(struct salt *s, uint64_t step, struct salt_error *e)
{
	int rc = client__enter(s, SALT_TRAINER, e);

	if (rc != 0)
		return rc;
	if (step > s->phase.total_steps)		/* selectord would drop the labels of all steps */
		return client__error(e, SALT_RANGE, "salt_checkpointed: step: expected at most trainer.steps = %" PRIu64 ", found %" PRIu64,
		    s->phase.total_steps, step);
	if (step > 0)
		rc = client__run_store(s, e);
	pthread_mutex_lock(&s->lock);
	if (step > s->rows->checkpointed)
		s->rows->checkpointed = step;
	if (!client__rows_flushed(s)) {
		client__connect(s);
		client__wake(s);
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

/*
 * Drops slots whose step now belongs to the other phase, and with `all` every slot of phase one. Lock held.
 */
static void
drop_slots(struct salt *s, bool all)
{
	struct lane *lane;

	TAILQ_FOREACH(lane, &s->rows->lanes, next)
		for (size_t i = 0; i < s->rows->n_slots; i++) {
			struct slot *slot = &lane->slots[i];

			if (slot->ticket != 0 && (slot->phase_one != phase_is_one(&s->phase, slot->step) || (all && slot->phase_one)))
				client__slot_drop(s->rows, slot);
		}
	pthread_cond_broadcast(&s->changed);
}

int
salt_release(struct salt *s, uint64_t step, struct salt_error *e)
{
	int rc = client__enter(s, SALT_TRAINER, e);

	if (rc != 0)
		return rc;
	pthread_mutex_lock(&s->lock);
	if (step != s->phase.switch_step) {
		rc = client__error(e, SALT_RANGE, "salt_release: expected the switch step, %" PRId64 " (-1: not decided), found %" PRIu64,
		    (int64_t)s->phase.switch_step, step);
	} else if (step > 0) {
		s->rows->release = true;
		s->rows->release_step = step;
		drop_slots(s, true);		/* a request for rows after the release would open the plan
						   again */
		client__connect(s);
		client__wake(s);
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int
salt_switch(struct salt *s, uint64_t step, struct salt_error *e)
{
	int rc = client__enter(s, SALT_TRAINER, e);

	if (rc != 0)
		return rc;
	pthread_mutex_lock(&s->lock);
	if (!isfinite(s->phase.margin_nats) && step != s->phase.switch_step) {
		rc = client__error(e, SALT_RANGE, "switch step: expected phase_one.steps = %" PRIu64 ", found %" PRIu64, s->phase.switch_step, step);
	} else {
		s->phase.switch_step = step < s->phase.total_steps ? step : s->phase.total_steps;
		drop_slots(s, false);
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

float
salt_kd_weight(struct salt *s, uint64_t step)
{
	float weight;

	if (client__enter(s, 0, NULL) != 0)
		return NAN;
	pthread_mutex_lock(&s->lock);
	weight = phase_weight(&s->phase, step);
	pthread_mutex_unlock(&s->lock);
	return weight;
}
