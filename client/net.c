/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client_internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock/clock.h"
#include "base/log/log.h"
#include "fabric/account/account.h"

#define TURN_MS 250
#define ACCOUNT_MS 5000			/* the ledger is written at most once in this time */

void
client__wake(struct salt *s)
{
	bus_waker_wake(s->waker);
}

void
client__connect(struct salt *s)
{
	if (s->connect)
		return;
	s->connect = true;
	client__wake(s);
}

void
client__failed(struct salt *s, int rc, const struct err_note *note)
{
	if (s->failure.code == 0) {
		client__fail(&s->failure, rc, note);
		log_error("client.failed", "why=\"%s\"", s->failure.text);
	}
	pthread_cond_broadcast(&s->changed);
}

struct timespec
client__deadline(int timeout_ms)
{
	return clock_after_ms(timeout_ms > 0 ? timeout_ms : 0);
}

bool
client__wait(struct salt *s, int timeout_ms, const struct timespec *deadline)
{
	if (timeout_ms < 0)
		return pthread_cond_wait(&s->changed, &s->lock) == 0;
	return timeout_ms > 0 && pthread_cond_timedwait(&s->changed, &s->lock, deadline) == 0;
}

/* ---- the thread ---- */

/* Marks a shard as failed. Calls that need selectord then fail; after the switch none does. Lock held. */
static void
shard_failed(struct salt *s, const struct session_event *event)
{
	const struct wire_message *refusal = event->message;
	char text[1400];

	s->shards[event->shard].failed = true;
	err_note_str(&event->note, event->rc, text, sizeof(text));
	if (s->failure.code == 0) {
		client__fail(&s->failure, event->rc, &event->note);
		/* A refusal of identities is a mismatch. Any other refusal has selectord's own code. */
		if (refusal != NULL && s->failure.code != SALT_MISMATCH) {
			s->failure.code = SALT_REFUSED;
			s->failure.exit_code = refusal->refuse.code;
		} else if (s->failure.code == SALT_MISMATCH && s->hello.label_set.hash.known && strncmp(event->note.name, "label_set", 9) == 0) {
			size_t len = strlen(s->failure.text);

			snprintf(s->failure.text + len, sizeof(s->failure.text) - len,
			    "; %.500s/identities.json has the label set of this run's checkpoint: a new run "
			    "needs another run.dir",
			    s->config->run.dir);
		}
	}
	log_error("selectord.refused", "shard=%zu why=\"%s\"", event->shard, text);
	pthread_cond_broadcast(&s->changed);
}

static void
welcomed(struct salt *s, const struct session_event *event)
{
	const struct wire_welcome *w = session_welcome(s->session, event->shard);

	s->shards[event->shard].welcomed = true;
	s->plan_hash = session_plan_hash(s->session);
	if (isfinite(w->heldout_loss_nats))
		s->teacher_nats = w->heldout_loss_nats;
	if (w->rows_ready > s->rows_ready)
		s->rows_ready = w->rows_ready;
	if (s->part != NULL)
		s->part->welcome(s, event->shard, w, event->restarted);
	pthread_cond_broadcast(&s->changed);
}

static void
handle(struct salt *s, struct session_event *event)
{
	switch (event->kind) {
	case SESSION_WELCOME:
		welcomed(s, event);
		break;
	case SESSION_LOST:
	case SESSION_FAILED:
		s->shards[event->shard].welcomed = false;
		if (s->part != NULL)
			s->part->lost(s, event->shard);
		if (event->kind == SESSION_FAILED)
			shard_failed(s, event);
		break;
	case SESSION_MESSAGE:
		if (s->part != NULL)
			s->part->message(s, event);
		break;
	case SESSION_KEY_REFUSED:		/* the session logs it and retries */
		break;
	}
}

/* Handles all messages that have arrived, which are decoded without the lock, then sends what is due. */
static void
converse(struct salt *s)
{
	struct session_event event = {0};

	while (session_next(s->session, &event) == 0) {
		pthread_mutex_lock(&s->lock);
		handle(s, &event);
		pthread_mutex_unlock(&s->lock);
	}
	pthread_mutex_lock(&s->lock);
	if (s->part != NULL)
		s->part->turn(s, clock_now_ms());
	pthread_mutex_unlock(&s->lock);
}

static int
open_session(struct salt *s, struct err_note *note)
{
	struct session_options o = {.bus = s->bus, .poll = s->poll, .endpoints = s->config->selector.endpoints.item,
	    .n_shards = s->n_shards, .hello = &s->hello, .all_shards = true, .need_labels = s->role == SALT_TRAINER, .log = true};

	return session_new(&s->session, &o, note);
}

/* Marks all shards as failed. */
static void
fail(struct salt *s, int rc, const struct err_note *note)
{
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->n_shards; i++)
		s->shards[i].failed = true;
	client__failed(s, rc, note);
	pthread_mutex_unlock(&s->lock);
}

/* Writes what a teacher has computed to the run's ledger. After a failure only its entry there is missing. */
static void
account(struct salt *s)
{
	struct account a = {.run_dir = s->config->run.dir, .name = s->hello.name, .boot_id = s->hello.boot_id, .threads = (int)s->n_threads,
	    .up_seconds = (double)(clock_now_ms() - s->started_ms) * 1e-3};
	struct err_note note = {.name = ""};
	struct salt_view v = {0};
	char text[1200];
	int rc;

	pthread_mutex_lock(&s->lock);
	client__leases_view(s, &v);
	pthread_mutex_unlock(&s->lock);
	a.sequences = v.sequences;
	a.tokens = v.tokens;
	a.cpu_seconds = client__cpu_seconds();
	if (a.sequences > 0 && (rc = account_write(&a, &note)) != 0)
		log_warn("ledger", "why=\"%s\"", err_note_str(&note, rc, text, sizeof(text)));
	s->accounted_ms = clock_now_ms();
}

static void *
net_main(void *arg)
{
	struct salt *s = arg;
	struct err_note note;
	bool stop, connect, tried = false;
	int rc;

	for (;;) {
		pthread_mutex_lock(&s->lock);
		stop = s->stop;
		connect = s->connect;
		pthread_mutex_unlock(&s->lock);
		if (stop)
			break;
		if (connect && !tried && (rc = open_session(s, &note)) != 0)
			fail(s, rc, &note);
		tried = connect;
		if (s->session != NULL)
			converse(s);
		if (s->role == SALT_TEACHER && clock_now_ms() - s->accounted_ms > ACCOUNT_MS)
			account(s);
		if ((rc = bus_poll_wait(s->poll, TURN_MS)) != 0) {
			err_note_set(&note, rc, "poll of the network thread");
			fail(s, rc, &note);
			break;
		}
	}
	if (s->role == SALT_TEACHER)
		account(s);
	if (s->session != NULL)
		session_bye(s->session, "closed");
	session_destroy(&s->session);
	return NULL;
}

int
client__net_start(struct salt *s, struct err_note *note)
{
	int rc;

	if ((s->waker = bus_waker_new()) == NULL)
		return err_note_set(note, errno, "waker");
	if ((s->poll = bus_poll_new(s->bus)) == NULL)
		return err_note_set(note, errno, "poll");
	if ((rc = bus_poll_add_waker(s->poll, s->waker)) != 0 || (rc = pthread_create(&s->thread, NULL, net_main, s)) != 0)
		return err_note_set(note, rc, "network thread");
	s->started = true;
	return 0;
}

void
client__net_stop(struct salt *s)
{
	if (!s->started)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_mutex_unlock(&s->lock);
	client__wake(s);
	pthread_join(s->thread, NULL);
}
