/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session - the client's side of the protocol with all shards of one selectord, over bus and wire. teacherd,
 * trainerd, saltctl, the client library and the stubs of tests and bench use it. No other code encodes a
 * HELLO.
 *
 * Caveats:
 *   A message may be lost. If it needs an answer, send it again after a while and after every
 *   SESSION_WELCOME, because selectord drops the requests of a lost connection. selectord accepts repeated
 *   messages. A WELCOME may arrive again at any time, also without a SESSION_LOST before it.
 *
 * A loop over it:
 *
 *	struct session_event event = {0};
 *
 *	while (bus_poll_wait(poll, 250) == 0 && !stop_requested()) {
 *		while (session_next(session, &event) == 0)
 *			...
 *		for each shard with session_welcomed(session, shard): session_send(session, shard, &message);
 *	}
 *	session_bye(session, "done");
 *	session_destroy(&session);
 *
 * States of a shard:
 *   connecting  bus connects in the background and keeps trying
 *   greeting    connected: HELLO is sent, and again after 10 s without an answer, or when the retry_ms of a
 *               REFUSE has passed
 *   welcomed    WELCOME arrived and was accepted: messages can be sent. A silent client sends PING, so that
 *               selectord does not forget it
 *   failed      final: nothing is sent any more (SESSION_FAILED)
 * A lost connection, or a REFUSE with retry_ms, leads from welcomed back to connecting or greeting. The boot
 * id stays the same, so selectord recognizes the process, and a teacher keeps its leases.
 *
 * Threads: one thread uses a session, the one that owns the poll.
 */
#ifndef SALT_SESSION_H
#define SALT_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err/err.h"
#include "data/labels/labels.h"
#include "fabric/wire/wire.h"

struct bus;
struct bus_poll;
struct config;
struct corpus;
struct session;

struct session_options {
	struct bus *bus;		/* bus and poll must outlive the session */
	struct bus_poll *poll;
	char *const *endpoints;		/* [n_shards], "tcp://host:port"; copied */
	size_t n_shards;
	const struct wire_hello *hello;	/* copied; boot_id, host and pid may be left zero for those of this process */
	bool all_shards;		/* endpoints[i] must be shard i of n_shards by its WELCOME */
	bool need_labels;		/* repeat HELLO until WELCOME has a label set */
	struct wire_id file;		/* mode file: hash that selector.file must have, from a checkpoint;
					   may be unknown */
	bool log;			/* write log lines (selectord.welcome, selectord.gone, ...), as daemons do */
};

/*
 * session_new - connects to all shards. 0, ENOMEM, ERR_CONFIG (not an endpoint), ERR_NOT_FOUND (no such key).
 * *out is NULL after an error.
 */
int session_new(struct session **out, const struct session_options *options, struct err_note *note);
void session_destroy(struct session **session);		/* takes NULL */

enum session_event_kind {
	SESSION_WELCOME = 1,	/* the shard is welcomed; session_welcome() returns the message */
	SESSION_LOST,		/* it is not welcomed any more; a SESSION_WELCOME may follow */
	SESSION_MESSAGE,	/* any other message of a welcomed shard */
	SESSION_KEY_REFUSED,	/* one side does not accept the other's key; retried slowly */
	SESSION_FAILED		/* the shard has failed for good: rc and note say why */
};

/*
 * An event owns its message: session_next and session_event_free free it. To keep it, take the pointer, set
 * it to NULL here, and destroy it with wire_message_destroy.
 *
 * SESSION_FAILED has three causes. A REFUSE without retry_ms: message is the REFUSE, and err_exit_code(rc) is
 * its code. A WELCOME that differs from HELLO, from the first WELCOME or from an identity computed here:
 * ERR_MISMATCH. A message to send that cannot be encoded: the error of wire_encode.
 */
struct session_event {
	enum session_event_kind kind;
	size_t shard;
	bool restarted;			/* WELCOME: from a new selectord process, which has no leases of this
					   client */
	struct wire_message *message;	/* MESSAGE; FAILED by a REFUSE; else NULL */
	int rc;				/* FAILED */
	struct err_note note;		/* FAILED */
};

/*
 * session_next - the next event, or ERR_AGAIN when nothing is left to receive; it also sends what is due
 * (HELLO, PING, PONG), so call it until ERR_AGAIN, at least every second. Never waits. *event must be zeroed
 * before the first call.
 */
int session_next(struct session *session, struct session_event *event);
void session_event_free(struct session_event *event);	/* takes freed and zeroed ones */

/*
 * session_send - one message to a welcomed shard. 0; ERR_CLOSED (not welcomed) or ERR_AGAIN (its queue is
 * full): send it again later; another error of wire_encode, which a SESSION_FAILED reports too. Never waits.
 */
int session_send(struct session *session, size_t shard, const struct wire_message *message);

/*
 * session_hello - sends HELLO again to a welcomed shard after delay_ms: the WELCOME that follows has a new
 * rows_ready.
 */
void session_hello(struct session *session, size_t shard, int64_t delay_ms);

/*
 * session_bye - sends BYE to every welcomed shard: selectord takes back what this client holds at once. Send
 * no messages after it.
 */
void session_bye(struct session *session, const char *reason);

bool session_welcomed(const struct session *session, size_t shard);
size_t session_n_welcomed(const struct session *session);
size_t session_n_shards(const struct session *session);
const char *session_endpoint(const struct session *session, size_t shard);

/*
 * session_welcome - the last WELCOME of a shard, NULL before the first. Valid until the next call of
 * session_next.
 */
const struct wire_welcome *session_welcome(const struct session *session, size_t shard);

/* session_plan_hash - the hash of HELLO's plan, for requests. Known after the first WELCOME with a label set. */
struct hash128 session_plan_hash(const struct session *session);

/*
 * The parts of HELLO that describe data (describe.c). Pure.
 * session_corpus      a corpus with its corpus_fingerprint(), in sequences of context + 1 tokens. vocab: the
 *                     number of ids in label records. tokenizer: used if the corpus does not name its own
 * session_label_set   labels.* of the configuration
 * session_plan        the plan of the configuration, with n_rows rows in phase one; ahead_rows UINT64_MAX:
 *                     label all of them now
 */
struct wire_corpus session_corpus(const struct corpus *corpus, struct hash128 fingerprint, uint32_t context,
    uint32_t vocab, struct wire_id tokenizer);
struct wire_label_set session_label_set(const struct config *config);
struct wire_plan session_plan(const struct config *config, uint64_t n_rows, uint64_t ahead_rows);

/*
 * session_label_spec - the format of records of a complete label set (from WELCOME or LEASE), for
 * labels_encode_* and labels_decode. unigram: the table that came with it, NULL for other kinds than sampled;
 * borrowed.
 */
struct labels_spec session_label_spec(const struct wire_label_set *set, uint32_t context, uint32_t vocab,
    const struct labels_unigram *unigram);

#endif
