/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/session/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock/clock.h"
#include "base/log/log.h"
#include "base/mem/mem.h"
#include "fabric/bus/bus.h"
#include "fabric/session/session_internal.h"

#define ANSWER_MS 10000		/* HELLO is repeated after this time without an answer */
#define PING_MS 30000		/* PING is sent after this time in silence: selectord forgets a client after
				   two minutes */
#define NOT_NOW_EVERY 16	/* one of so many refusals with retry_ms is logged */

enum shard_state { CONNECTING, GREETING, WELCOMED, FAILED };

struct shard {
	enum shard_state state;
	char endpoint[BUS_ENDPOINT_MAX];
	struct bus_client *client;
	bool hello_sent;		/* on this connection; a WELCOME that arrives earlier belongs to the
					   last connection */
	int64_t hello_ms;		/* when to send HELLO; INT64_MAX: not */
	int64_t sent_ms;		/* last message of any type */
	unsigned n_refused;
	struct wire_message *welcome;	/* the last one */
};

struct session {
	struct bus_poll *poll;
	struct wire_message hello;
	struct session__rules rules;
	bool need_labels, log;
	struct shard *shards;
	size_t n_shards;
	size_t at;			/* session_next continues with this shard */
	int rc;				/* a message for rc_shard could not be encoded; not reported yet */
	size_t rc_shard;
	struct err_note note;
};

int
session_new(struct session **out, const struct session_options *o, struct err_note *note)
{
	struct session *s = calloc(1, sizeof(*s));
	struct wire_hello *h;
	int rc = ENOMEM;

	*out = NULL;
	if (s == NULL || (s->shards = mem_alloc(o->n_shards, sizeof(*s->shards))) == NULL) {
		err_note_set(note, ENOMEM, "session");
		goto fail;
	}
	s->poll = o->poll;
	s->need_labels = o->need_labels;
	s->log = o->log;
	s->hello = (struct wire_message){.type = WIRE_HELLO, .hello = *o->hello};
	h = &s->hello.hello;
	if (hash_equal(h->boot_id, (struct hash128){0, 0}))
		h->boot_id = bus_boot_id();
	if (h->host[0] == '\0')
		snprintf(h->host, sizeof(h->host), "%s", bus_host());
	if (h->pid == 0)
		h->pid = (uint32_t)getpid();
	s->rules = (struct session__rules){.hello = h, .n_shards = o->n_shards, .all_shards = o->all_shards, .file = o->file};
	for (size_t i = 0; i < o->n_shards; i++) {
		struct shard *shard = &s->shards[i];

		snprintf(shard->endpoint, sizeof(shard->endpoint), "%s", o->endpoints[i]);
		shard->hello_ms = INT64_MAX;
		s->n_shards = i + 1;
		if ((rc = bus_client_new(&shard->client, o->bus, o->endpoints[i], NULL, note)) != 0)
			goto fail;
		if ((rc = bus_poll_add_client(s->poll, shard->client)) != 0) {
			err_note_set(note, rc, "%s", shard->endpoint);
			goto fail;
		}
	}
	*out = s;
	return 0;
fail:
	session_destroy(&s);
	return rc;
}

void
session_destroy(struct session **session)
{
	struct session *s = *session;

	if (s == NULL)
		return;
	for (size_t i = 0; i < s->n_shards; i++) {
		bus_poll_remove(s->poll, s->shards[i].client);
		bus_client_destroy(&s->shards[i].client);
		wire_message_destroy(&s->shards[i].welcome);
	}
	free(s->shards);
	free(s);
	*session = NULL;
}

static int
transmit(struct session *s, struct shard *shard, const struct wire_message *message)
{
	size_t max_bytes = shard->welcome != NULL ? shard->welcome->welcome.max_message : SIZE_MAX, len;
	struct err_note note = {.name = ""};
	uint8_t *frame;
	int rc = wire_encode(message, max_bytes, &frame, &len, &note);

	if (rc != 0) {
		if (s->rc == 0) {
			s->rc = rc;
			s->rc_shard = (size_t)(shard - s->shards);
			s->note = note;
			err_note_place(&s->note, "%s to selectord at %.200s", wire_type_name(message->type),
			    shard->endpoint);
		}
		return rc;
	}
	if ((rc = bus_client_send(shard->client, frame, len)) == 0)
		shard->sent_ms = clock_now_ms();
	return rc;
}

static bool
fail(struct shard *shard, struct session_event *event, int rc)
{
	shard->state = FAILED;
	shard->hello_ms = INT64_MAX;
	event->kind = SESSION_FAILED;
	event->rc = rc;
	return true;
}

/* Sets a state other than WELCOMED. True: the shard was welcomed, and *event reports the loss. */
static bool
lost(struct shard *shard, enum shard_state now, struct session_event *event)
{
	bool welcomed = shard->state == WELCOMED;

	shard->state = now;
	event->kind = SESSION_LOST;
	return welcomed;
}

/* Takes ownership of the message. True: *event is filled in. */
static bool
welcome(struct session *s, struct shard *shard, struct wire_message *message, struct session_event *event)
{
	const struct wire_welcome *w = &message->welcome;
	bool restarted = shard->welcome == NULL || !hash_equal(shard->welcome->welcome.boot_id, w->boot_id);
	int rc = session__check_welcome(&s->rules, event->shard, w, &event->note);

	if (rc != 0 || (s->need_labels && !w->label_set.present)) {
		wire_message_destroy(&message);
		if (rc == 0)
			return false;
		err_note_place(&event->note, "WELCOME of selectord at %.200s", shard->endpoint);
		return fail(shard, event, rc);
	}
	wire_message_destroy(&shard->welcome);
	shard->welcome = message;
	shard->state = WELCOMED;
	shard->hello_ms = INT64_MAX;
	shard->n_refused = 0;
	event->kind = SESSION_WELCOME;
	event->restarted = restarted;
	if (s->log)
		log_info("selectord.welcome", "shard=%u of=%u endpoint=%s rows_ready=%" PRIu64 " released=%d",
		    w->shard, w->n_shards, shard->endpoint, w->rows_ready, w->released);
	return true;
}

/* Takes ownership of the message. True: *event is filled in. */
static bool
refused(struct session *s, struct shard *shard, struct wire_message *message, struct session_event *event)
{
	const struct wire_refuse *r = &message->refuse;
	char text[2048], quoted[2200];
	bool was_welcomed;

	if (r->retry_ms == 0) {
		event->message = message;
		return fail(shard, event, session__refusal(r, shard->endpoint, &event->note));
	}
	was_welcomed = lost(shard, GREETING, event);
	shard->hello_ms = clock_now_ms() + r->retry_ms;
	if (s->log && shard->n_refused++ % NOT_NOW_EVERY == 0)
		log_warn("selectord.not_now", "shard=%zu why=%s", event->shard,
		    log_quote(wire_refuse_str(r, text, sizeof(text)), quoted, sizeof(quoted)));
	wire_message_destroy(&message);
	return was_welcomed;
}

/* Handles one frame. True: *event is filled in. */
static bool
received(struct session *s, struct shard *shard, const struct bus_event *from, struct session_event *event)
{
	struct wire_message *message = NULL, pong = {.type = WIRE_PONG};
	char text[1024], quoted[1200];
	struct err_note note;
	int rc = wire_decode(from->frame, from->len, &message, &note);

	if (rc != 0) {
		if (s->log)
			log_warn("frame.bad", "shard=%zu why=%s", event->shard,
			    log_quote(err_note_str(&note, rc, text, sizeof(text)), quoted, sizeof(quoted)));
		return false;
	}
	switch (message->type) {
	case WIRE_WELCOME:
		if (!shard->hello_sent)
			break;
		return welcome(s, shard, message, event);
	case WIRE_REFUSE:
		return refused(s, shard, message, event);
	case WIRE_PING:
		pong.ping = message->ping;
		transmit(s, shard, &pong);
		break;
	case WIRE_PONG:
		break;
	default:
		if (shard->state != WELCOMED)
			break;
		event->kind = SESSION_MESSAGE;
		event->message = message;
		return true;
	}
	wire_message_destroy(&message);
	return false;
}

static bool
connection(struct session *s, struct shard *shard, enum bus_event_kind kind, struct session_event *event)
{
	bool was_welcomed;

	switch (kind) {
	case BUS_EVENT_CONNECTED:
		shard->hello_sent = false;
		shard->hello_ms = clock_now_ms();
		return lost(shard, GREETING, event);
	case BUS_EVENT_DISCONNECTED:
		shard->hello_sent = false;
		shard->hello_ms = INT64_MAX;
		was_welcomed = lost(shard, CONNECTING, event);
		if (was_welcomed && s->log)
			log_warn("selectord.gone", "shard=%zu", event->shard);
		return was_welcomed;
	case BUS_EVENT_REFUSED:
		if (s->log)
			log_warn("selectord.key_refused", "shard=%zu", event->shard);
		event->kind = SESSION_KEY_REFUSED;
		return true;
	default:
		return false;
	}
}

/* Sends HELLO and PING when they are due. */
static void
speak(struct session *s, struct shard *shard)
{
	int64_t now_ms = clock_now_ms();
	struct wire_message ping = {.type = WIRE_PING, .ping = {.nonce = (uint64_t)now_ms}};

	if (shard->state != GREETING && shard->state != WELCOMED)
		return;
	if (now_ms >= shard->hello_ms) {
		if (transmit(s, shard, &s->hello) == 0) {
			shard->hello_ms = now_ms + ANSWER_MS;
			shard->hello_sent = true;
		}
	} else if (shard->state == WELCOMED && now_ms - shard->sent_ms > PING_MS) {
		transmit(s, shard, &ping);
	}
}

int
session_next(struct session *s, struct session_event *event)
{
	session_event_free(event);
	for (; s->at < s->n_shards; s->at++) {
		struct shard *shard = &s->shards[s->at];
		struct bus_event from;

		event->shard = s->at;
		while (bus_client_recv(shard->client, &from) == 0) {
			/*
			 * Receive from a failed shard too, because a poll does not wait while a frame is
			 * available.
			 */
			bool filled = shard->state == FAILED ? false :
			    from.kind == BUS_EVENT_FRAME ? received(s, shard, &from, event) :
			    connection(s, shard, from.kind, event);

			bus_event_free(&from);
			if (filled)
				return 0;
		}
		speak(s, shard);
		if (s->rc != 0) {
			event->shard = s->rc_shard;
			event->note = s->note;
			fail(&s->shards[s->rc_shard], event, s->rc);
			s->rc = 0;
			return 0;
		}
	}
	s->at = 0;
	return ERR_AGAIN;
}

void
session_event_free(struct session_event *event)
{
	wire_message_destroy(&event->message);
	memset(event, 0, sizeof(*event));
}

int
session_send(struct session *s, size_t shard, const struct wire_message *message)
{
	return s->shards[shard].state == WELCOMED ? transmit(s, &s->shards[shard], message) : ERR_CLOSED;
}

void
session_hello(struct session *s, size_t shard, int64_t delay_ms)
{
	if (s->shards[shard].state == WELCOMED)
		s->shards[shard].hello_ms = clock_now_ms() + delay_ms;
}

void
session_bye(struct session *s, const char *reason)
{
	struct wire_message bye = {.type = WIRE_BYE};

	snprintf(bye.bye.reason, sizeof(bye.bye.reason), "%s", reason);
	for (size_t i = 0; i < s->n_shards; i++)
		session_send(s, i, &bye);
}

bool
session_welcomed(const struct session *s, size_t shard)
{
	return s->shards[shard].state == WELCOMED;
}

size_t
session_n_welcomed(const struct session *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n_shards; i++)
		n += s->shards[i].state == WELCOMED;
	return n;
}

size_t
session_n_shards(const struct session *s)
{
	return s->n_shards;
}

const char *
session_endpoint(const struct session *s, size_t shard)
{
	return s->shards[shard].endpoint;
}

const struct wire_welcome *
session_welcome(const struct session *s, size_t shard)
{
	return s->shards[shard].welcome != NULL ? &s->shards[shard].welcome->welcome : NULL;
}

struct hash128
session_plan_hash(const struct session *s)
{
	return s->rules.plan;
}
