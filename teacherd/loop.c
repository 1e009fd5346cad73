/* SPDX-License-Identifier: Apache-2.0 */
#include "teacherd/loop.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "base/log/log.h"
#include "engine/infer/infer.h"
#include "fabric/config/config.h"
#include "fabric/account/account.h"
#include "fabric/daemon/daemon.h"
#include "fabric/session/session.h"
#include "fabric/status/status.h"
#include "teacherd/leases.h"

#define TURN_MS 250
#define ACCOUNT_MS 5000			/* the ledger is written at most once in this time */
#define NOTE_MS 1000			/* the service manager's status line changes at most once in this
					   time */
#define LEAVE_MS 5000			/* longest wait for the last DONE at the end */

struct loop {
	const struct loop_options *o;
	struct bus_poll *poll;
	struct session *session;
	struct leases *leases;
	bool leaving;
	bool ready;			/* a selectord has sent WELCOME, and the service manager was
					   notified */
	int rc;
	struct err_note *note;
	int64_t started_ms, accounted_ms, noted_ms;
};

static void
account(struct loop *l, int64_t now_ms)
{
	struct account a = {.run_dir = l->o->config->run.dir, .name = l->o->name, .boot_id = bus_boot_id(),
	    .sequences = leases_sequences(l->leases), .tokens = leases_tokens(l->leases),
	    .cpu_seconds = infer_cpu_seconds(l->o->infer),
	    .up_seconds = (double)(now_ms - l->started_ms) * 1e-3, .threads = infer_threads(l->o->infer)};
	struct err_note note = {.name = ""};
	char text[1200];
	int rc;

	if (a.sequences > 0 && (rc = account_write(&a, &note)) != 0)
		log_warn("ledger", "why=\"%s\"", err_note_str(&note, rc, text, sizeof(text)));
	l->accounted_ms = now_ms;
}

static void
received(struct loop *l, size_t shard, const struct wire_message *message)
{
	switch (message->type) {
	case WIRE_LEASE:
		leases_take(l->leases, shard, &message->lease);
		break;
	case WIRE_DONE:
		leases_done(l->leases, shard, &message->done);
		break;
	case WIRE_RELEASE_TEACHER:
		log_info("released", "reason=\"%s\"", message->release_teacher.reason);
		l->leaving = true;
		break;
	default:
		log_warn("frame.unexpected", "type=%s", wire_type_name(message->type));
	}
}

/* Receives messages, then sends what is due. */
static void
turn(struct loop *l)
{
	struct session_event event = {0};

	while (l->rc == 0 && session_next(l->session, &event) == 0)
		switch (event.kind) {
		case SESSION_WELCOME:
			if ((l->rc = leases_welcome(l->leases, event.shard, event.restarted, l->note)) != 0)
				err_note_place(l->note, "WELCOME of selectord at %.200s",
				    session_endpoint(l->session, event.shard));
			break;
		case SESSION_MESSAGE:
			received(l, event.shard, event.message);
			break;
		case SESSION_FAILED:
			l->rc = event.rc;
			*l->note = event.note;
			break;
		default:
			break;
		}
	session_event_free(&event);
	for (size_t i = 0; l->rc == 0 && i < session_n_shards(l->session); i++)
		if (session_welcomed(l->session, i))
			leases_turn(l->leases, i);
}

/* Hands back leases that are not computed, waits up to LEAVE_MS for the last DONEs, sends BYE. */
static void
leave(struct loop *l)
{
	int64_t until = clock_now_ms() + LEAVE_MS;

	status_state(l->o->status, "draining", clock_now_ms());
	daemon_notify_stopping("%s: leases are finished or handed back", stop_requested() ? "stopping" : "released");
	leases_leave(l->leases);
	while (!leases_empty(l->leases) && l->rc == 0 && clock_now_ms() < until) {
		turn(l);
		if (!leases_empty(l->leases) && bus_poll_wait(l->poll, 50) != 0)
			break;
	}
	session_bye(l->session, stop_requested() ? "stopped" : "released");
}

static int
loop_open(struct loop *l)
{
	const struct config *cfg = l->o->config;
	struct wire_hello hello = {.role = WIRE_ROLE_TEACHER, .max_message = (uint32_t)cfg->bus.max_message,
	    .n_models = infer_n_models(l->o->infer)};
	struct session_options so = {.bus = l->o->bus, .endpoints = cfg->selector.endpoints.item,
	    .n_shards = cfg->selector.endpoints.n, .hello = &hello, .log = true};
	int rc;

	snprintf(hello.name, sizeof(hello.name), "%s", l->o->name);
	snprintf(hello.status_endpoint, sizeof(hello.status_endpoint), "%s", l->o->status_endpoint);
	for (size_t i = 0; i < hello.n_models; i++) {
		const struct infer_model *m = infer_model(l->o->infer, i);

		hello.models[i] = (struct wire_model){.fingerprint = m->fingerprint,
		    .serves_score = m->serves_score, .serves_label = m->serves_label,
		    .vocab_size = m->vocab_size, .max_context = m->max_context, .tokenizer = {m->has_tokenizer, m->tokenizer}};
		snprintf(hello.models[i].compute_class, sizeof(hello.models[i].compute_class), "%s",
		    infer_compute_class(l->o->infer));
	}
	if ((l->poll = so.poll = bus_poll_new(l->o->bus)) == NULL)
		return ENOMEM;
	if ((rc = bus_poll_add_waker(l->poll, l->o->waker)) != 0 ||
	    (rc = session_new(&l->session, &so, l->note)) != 0)
		return rc;
	return (l->leases = leases_new(l->o->infer, l->session, l->o->status)) == NULL ? ENOMEM : 0;
}

/* Notifies the service manager: ready after the first WELCOME, alive as long as the workers make progress. */
static void
notify(struct loop *l, const char *state, int64_t now_ms)
{
	if (!l->ready && session_n_welcomed(l->session) > 0) {
		l->ready = true;
		daemon_notify_ready("accepted by selectord");
	}
	if (now_ms - l->noted_ms > NOTE_MS) {
		l->noted_ms = now_ms;
		daemon_notify_status("%s: %" PRIu64 " sequences computed", state, leases_sequences(l->leases));
	}
	daemon_notify_alive(infer_progress(l->o->infer), infer_jobs(l->o->infer) > 0);
}

int
loop_run(const struct loop_options *o, struct err_note *note)
{
	struct loop l = {.o = o, .note = note, .started_ms = clock_now_ms()};
	const char *state;
	int rc = loop_open(&l);

	while (rc == 0 && l.rc == 0 && !l.leaving && !stop_requested()) {
		int64_t now_ms = clock_now_ms();

		turn(&l);
		leases_collect(l.leases);
		if (now_ms - l.accounted_ms > ACCOUNT_MS)
			account(&l, now_ms);
		state = session_n_welcomed(l.session) == 0 ? "connecting" : infer_jobs(o->infer) > 0 ?
		    "computing" : "waiting for leases";
		status_state(o->status, state, now_ms);
		notify(&l, state, now_ms);
		if (l.rc == 0 && (rc = bus_poll_wait(l.poll, TURN_MS)) != 0)
			err_note_set(note, rc, "poll of the sockets");
	}
	if (rc == 0 && l.rc == 0)
		leave(&l);
	if (l.leases != NULL)
		account(&l, clock_now_ms());
	leases_destroy(&l.leases);
	session_destroy(&l.session);
	bus_poll_destroy(&l.poll);
	return rc != 0 ? rc : l.rc;
}
