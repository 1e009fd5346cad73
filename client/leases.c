/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases of a teacher, from LEASE to the last DONE. A result is kept and sent again until selectord confirms
 * it. The network thread receives leases, sends what is due and frees finished leases; the caller's threads
 * take leases and give them back.
 */
#include "client/leases_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock/clock.h"
#include "base/log/log.h"
#include "base/mem/mem.h"
#include "data/modelfiles/modelfiles.h"

#define AHEAD 2				/* leases of a shard that are requested, or that the caller has not taken yet */
#define OPEN_MAX 16			/* leases of a shard, including those that the caller holds or that
					   wait for DONE */
#define ANSWER_MS 10000			/* a result without a DONE is sent again after this time */
#define RESULTS_MAX 4			/* a result is given up after so many RESULTs on one connection */
#define RESULT_FIXED_BYTES 256		/* of a RESULT frame, without its rows */
#define RESULT_ROW_BYTES 32		/* of a row, without its records */
#define RESULT_ROWS 64			/* rows of a RESULT frame at most */
#define CPU_MS 1000			/* interval at which cpu_seconds is read */

struct leases {
	TAILQ_HEAD(, lease) list;
	unsigned *requested;		/* [n_shards] leases requested that have not arrived */
	bool leaving;			/* no new leases: released by selectord, or salt_drain */
	const char *why;		/* reason for leaving */
	const struct labels_unigram **unigram;	/* [n_shards] table of WELCOME's label set; NULL: none */
	struct hash128 *label_set;	/* [n_shards] WELCOME's */
	size_t *max_message;		/* [n_shards] WELCOME's */
	struct labels_unigram **tables;	/* each distinct one; kept until the end, because leases use them */
	size_t n_tables;
	uint64_t progress;		/* submits and renewals of the caller */
	uint64_t sequences, tokens;
	int64_t cpu_ms;
	struct status_metric *m_cpu, *m_tokens, *m_seqs, *m_leases, *m_results, *m_failed;
};

/* ---- open and close ---- */

/* The compute class that HELLO states. */
static int
class_of(const struct salt *s, const struct salt_options *o, const char **class, struct salt_error *e)
{
	const char *stated = config_compute_class(s->config);

	*class = o->compute_class != NULL ? o->compute_class : stated;
	if (*class == NULL)
		return client__error(e, SALT_CONFIG,
		    "%s: teacher.compute_class: expected a name for this teacher's arithmetic, such as "
		    "bf16/torch-cuda, found auto, which only teacherd may use",
		    o->config);
	if (stated != NULL && strcmp(*class, stated) != 0)
		return client__error(e, SALT_MISMATCH, "options.compute_class: expected %s (teacher.compute_class of %s), found %s", stated,
		    o->config, *class);
	if ((*class)[0] == '\0' || strlen(*class) >= LABELS_CLASS_BYTES)
		return client__error(e, SALT_CONFIG, "options.compute_class: expected 1 to %d bytes, found %zu", LABELS_CLASS_BYTES - 1,
		    strlen(*class));
	return SALT_OK;
}

static int
open_model(struct wire_model *w, const struct salt_model *m, size_t i, const char *class, struct salt_error *e)
{
	struct err_note note = {.name = ""};
	int rc;

	if (m->dir == NULL || m->vocab == 0 || m->max_context == 0 || (!m->serves_score && !m->serves_label))
		return client__error(e, SALT_CONFIG, "options.models[%zu]: expected dir, vocab and max_context, and serves_score or serves_label, "
		    "found dir %s, vocab %" PRIu32 ", max_context %" PRIu32 ", serves_score %d, serves_label %d", i,
		    m->dir != NULL ? m->dir : "NULL", m->vocab, m->max_context, m->serves_score, m->serves_label);
	*w = (struct wire_model){.serves_score = m->serves_score != 0, .serves_label = m->serves_label != 0, .vocab_size = m->vocab,
	    .max_context = m->max_context};
	snprintf(w->compute_class, sizeof(w->compute_class), "%s", class);
	if ((rc = modelfiles_hash(m->dir, &w->fingerprint, &note)) != 0)
		return client__fail(e, rc, &note);
	return client__model_tokenizer(m, &w->tokenizer, e);
}

int
client__leases_new(struct salt *s, const struct salt_options *o, struct salt_error *e)
{
	struct leases *l = mem_alloc(1, sizeof(*l));
	const char *class;
	int rc;

	if ((s->leases = l) == NULL)
		return client__fail(e, ENOMEM, NULL);
	TAILQ_INIT(&l->list);
	if (o->n_models < 1 || o->n_models > 2 || o->models == NULL)
		return client__error(e, SALT_CONFIG, "options.models: expected 1 or 2 (teacher and scorer), found %zu",
		    o->models != NULL ? o->n_models : 0);
	if ((rc = class_of(s, o, &class, e)) != 0)
		return rc;
	for (size_t i = 0; i < o->n_models; i++)
		if ((rc = open_model(&s->hello.models[i], &o->models[i], i, class, e)) != 0)
			return rc;
	s->hello.n_models = o->n_models;
	if ((l->requested = mem_alloc(s->n_shards, sizeof(*l->requested))) == NULL ||
	    (l->unigram = mem_alloc(s->n_shards, sizeof(*l->unigram))) == NULL ||
	    (l->label_set = mem_alloc(s->n_shards, sizeof(*l->label_set))) == NULL ||
	    (l->max_message = mem_alloc(s->n_shards, sizeof(*l->max_message))) == NULL)
		return client__fail(e, ENOMEM, NULL);
	/* The same names as teacherd's, so that tools show both alike. */
	l->m_tokens = status_register(s->status, STATUS_RATED, "tokens_total", "tokens", "tokens scored or labelled");
	l->m_cpu = status_register(s->status, STATUS_GAUGE, "cpu_seconds", "seconds", "processor time of the process");
	l->m_seqs = status_register(s->status, STATUS_RATED, "sequences_total", "sequences", "sequences computed");
	l->m_leases = status_register(s->status, STATUS_QUEUE, "leases_in_hand", "leases", "leases being computed or not confirmed");
	l->m_results = status_register(s->status, STATUS_COUNTER, "results_sent_total", "sequences",
	    "sequences sent, including repeats");
	l->m_failed = status_register(s->status, STATUS_COUNTER, "sequences_failed_total", "sequences", "sequences answered with an error");
	return SALT_OK;
}

static void
row_free(struct lease_row *row)
{
	free(row->scores);
	free(row->draws);
	row->scores = NULL;
	row->draws = NULL;
	labels_buf_free(&row->label);
}

static void
lease_free(struct lease *lease)
{
	for (uint32_t i = 0; lease->rows != NULL && i < lease->pub.n; i++)
		row_free(&lease->rows[i]);
	free(lease->rows);
	free(lease->seqs);
	free(lease->tokens);
	free(lease->starts);
	free(lease);
}

void
client__leases_free(struct salt *s)
{
	struct leases *l = s->leases;
	struct lease *lease;

	if (l == NULL)
		return;
	while ((lease = TAILQ_FIRST(&l->list)) != NULL) {
		TAILQ_REMOVE(&l->list, lease, entry);
		if (lease->state == LEASE_HELD)
			lease->s = NULL;		/* salt_return frees it */
		else
			lease_free(lease);
	}
	for (size_t i = 0; i < l->n_tables; i++)
		labels_unigram_destroy(&l->tables[i]);
	free(l->tables);
	free(l->requested);
	free(l->unigram);
	free(l->label_set);
	free(l->max_message);
	free(l);
	s->leases = NULL;
}

/* ---- messages of selectord; the network thread, lock held ---- */

static struct lease *
find(struct leases *l, size_t shard, uint64_t id)
{
	struct lease *lease;

	TAILQ_FOREACH(lease, &l->list, entry)
		if (lease->shard == shard && lease->pub.id == id && !lease->gone)
			break;
	return lease;
}

static void
hand_back(struct salt *s, size_t shard, uint64_t id)
{
	struct wire_message message = {.type = WIRE_LEASE_RETURN, .lease_return = {.lease_id = id}};

	session_send(s->session, shard, &message);
}

/* Finds the table that was made of the same bytes, or makes a new one. */
static int
table_of(struct leases *l, const struct wire_bytes *bytes, const struct labels_unigram **out, struct err_note *note)
{
	struct hash128 hash = hash_bytes(bytes->bytes, bytes->len);
	struct labels_unigram **more;
	int rc;

	for (size_t i = 0; i < l->n_tables; i++)
		if (hash_equal(labels_unigram_hash(l->tables[i]), hash)) {
			*out = l->tables[i];
			return 0;
		}
	if ((more = realloc(l->tables, (l->n_tables + 1) * sizeof(*more))) == NULL)
		return ENOMEM;
	l->tables = more;
	if ((rc = labels_unigram_new(&more[l->n_tables], bytes->bytes, bytes->len, note)) != 0)
		return rc;
	*out = more[l->n_tables++];
	return 0;
}

static void
leases_welcome(struct salt *s, size_t shard, const struct wire_welcome *w, bool restarted)
{
	struct leases *l = s->leases;
	struct err_note note = {.name = ""};
	struct lease *lease;
	int rc;

	TAILQ_FOREACH(lease, &l->list, entry) {
		if (lease->shard != shard)
			continue;
		lease->gone |= restarted;		/* a restarted selectord has no leases from before */
		lease->renewed_ms = 0;
		/* what was sent on the lost connection may not have arrived */
		for (uint32_t i = 0; i < lease->pub.n; i++) {
			lease->rows[i].sent_ms = 0;
			lease->rows[i].n_sent = 0;
		}
	}
	l->requested[shard] = 0;
	l->unigram[shard] = NULL;
	l->label_set[shard] = w->label_set.hash.hash;
	l->max_message[shard] = w->max_message;
	if (w->unigram.len > 0 && (rc = table_of(l, &w->unigram, &l->unigram[shard], &note)) != 0) {
		err_note_place(&note, "WELCOME of selectord at %.200s", session_endpoint(s->session, shard));
		client__failed(s, rc, &note);
	}
}

static void
leases_lost(struct salt *s, size_t shard)
{
	s->leases->requested[shard] = 0;
}

/* Returns NULL if the lease can be computed here, else the reason for selectord, possibly in text. */
static const char *
impossible(const struct salt *s, const struct lease *lease, const struct wire_lease *w, char *text, size_t size)
{
	const struct wire_hello *h = &s->hello;
	const struct salt_lease *p = &lease->pub;
	struct err_note note = {.name = ""};
	int rc;

	if (p->model == h->n_models)
		return "this teacher does not serve the model";
	if (w->want_label && !hash_equal(w->label_set.hash.hash, s->leases->label_set[lease->shard]))
		return "the label set differs from the one in WELCOME";
	if (p->context > h->models[p->model].max_context || p->n_valid > h->models[p->model].vocab_size) {
		snprintf(text, size, "context %" PRIu32 " of at most %" PRIu32 ", vocabulary %" PRIu32 " of at most %" PRIu32, p->context,
		    h->models[p->model].max_context, p->n_valid, h->models[p->model].vocab_size);
		return text;
	}
	if (w->want_label && (rc = labels_spec_check(&lease->spec, &note)) != 0)
		return err_note_str(&note, rc, text, size);
	return NULL;
}

/* Makes a lease from the message. NULL: out of memory. */
static struct lease *
lease_new(struct salt *s, size_t shard, const struct wire_lease *w)
{
	struct lease *lease = mem_alloc(1, sizeof(*lease));
	size_t n_tokens = w->n_seqs * ((size_t)w->context + 1);

	if (lease == NULL)
		return NULL;
	lease->pub = (struct salt_lease){.size = sizeof(lease->pub), .id = w->lease_id, .want_score = w->want_score,
	    .want_label = w->want_label, .n = (uint32_t)w->n_seqs, .context = w->context, .n_valid = w->n_valid, .tau = 1,
	    .document_end = (int32_t)w->document_end - 1};
	lease->s = s;
	lease->shard = shard;
	lease->lease_ms = w->lease_ms;
	lease->renewed_ms = lease->granted_ms = lease->moved_ms = clock_now_ms();
	lease->expires_ms = lease->granted_ms + w->lease_ms;
	lease->progress = s->leases->progress;
	if ((lease->rows = mem_alloc(w->n_seqs, sizeof(*lease->rows))) == NULL ||
	    (lease->seqs = mem_alloc(w->n_seqs, sizeof(*lease->seqs))) == NULL ||
	    (lease->tokens = mem_alloc(n_tokens, sizeof(*lease->tokens))) == NULL ||
	    (w->document_end != 0 && (lease->starts = mem_alloc(n_tokens, sizeof(*lease->starts))) == NULL)) {
		lease_free(lease);
		return NULL;
	}
	memcpy(lease->seqs, w->seqs, w->n_seqs * sizeof(*lease->seqs));
	memcpy(lease->tokens, w->tokens, n_tokens * sizeof(*lease->tokens));
	for (size_t i = 0; i < w->n_seqs; i++)
		lease->rows[i].lease = lease;
	lease->pub.seqs = lease->seqs;
	lease->pub.tokens = lease->tokens;
	if (lease->starts != NULL)
		client__document_starts(lease->tokens, w->n_seqs, w->context, lease->pub.document_end, lease->starts);
	lease->pub.document_starts = lease->starts;
	while (lease->pub.model < s->hello.n_models && !hash_equal(s->hello.models[lease->pub.model].fingerprint, w->model))
		lease->pub.model++;
	if (w->want_label) {
		lease->spec = session_label_spec(&w->label_set, w->context, w->n_valid, s->leases->unigram[shard]);
		lease->pub.kind = (int)lease->spec.kind;
		lease->pub.n_draws = lease->spec.n_samples;
		lease->pub.k = lease->spec.k;
		lease->pub.tau = lease->spec.tau;
		lease->pub.seed = lease->spec.seed;
	}
	return lease;
}

static void
take(struct salt *s, size_t shard, const struct wire_lease *w)
{
	struct leases *l = s->leases;
	struct lease *lease;
	const char *why;
	char text[1200];

	l->requested[shard] -= l->requested[shard] > 0;
	if (!l->leaving && find(l, shard, w->lease_id) != NULL)
		return;
	if (l->leaving || (lease = lease_new(s, shard, w)) == NULL) {
		hand_back(s, shard, w->lease_id);
		return;
	}
	TAILQ_INSERT_TAIL(&l->list, lease, entry);
	if ((why = impossible(s, lease, w, text, sizeof(text))) != NULL) {
		/*
		 * answer with an error for each sequence: if it expired instead, it would be leased again and
		 * again
		 */
		log_error("lease.impossible", "lease=%" PRIu64 " why=\"%s\"", w->lease_id, why);
		for (uint32_t i = 0; i < lease->pub.n; i++) {
			snprintf(lease->rows[i].error, sizeof(lease->rows[i].error), "%.120s", why);
			lease->rows[i].state = ROW_READY;
		}
		lease->state = LEASE_RETURNED;
		status_add(l->m_failed, lease->pub.n);
	}
	pthread_cond_broadcast(&s->changed);
}

static void
row_over(struct lease_row *row)
{
	row_free(row);
	row->state = ROW_OVER;
}

static void
confirmed(struct salt *s, size_t shard, const struct wire_done *d)
{
	struct lease *lease = find(s->leases, shard, d->lease_id);

	for (size_t i = 0; lease != NULL && i < d->n_seqs; i++)
		for (uint32_t r = 0; r < lease->pub.n; r++)
			if (lease->seqs[r] == d->seqs[i] && lease->rows[r].state == ROW_READY)
				row_over(&lease->rows[r]);
	pthread_cond_broadcast(&s->changed);
}

/* Takes no new leases from now on. Those fetched ahead are handed back at the next turn. Lock held. */
static void
leave(struct salt *s, const char *why)
{
	struct lease *lease;

	if (!s->leases->leaving)
		log_info("leaving", "why=\"%s\"", why);
	s->leases->leaving = true;
	s->leases->why = why;
	TAILQ_FOREACH(lease, &s->leases->list, entry)
		if (lease->state == LEASE_WAITING)
			lease->state = LEASE_RETURNED;
	pthread_cond_broadcast(&s->changed);
}

static void
leases_message(struct salt *s, struct session_event *event)
{
	switch (event->message->type) {
	case WIRE_LEASE:
		take(s, event->shard, &event->message->lease);
		break;
	case WIRE_DONE:
		confirmed(s, event->shard, &event->message->done);
		break;
	case WIRE_RELEASE_TEACHER:
		log_info("released", "reason=\"%s\"", event->message->release_teacher.reason);
		leave(s, "selectord has released this teacher");
		break;
	default:
		log_warn("frame.unexpected", "type=%s", wire_type_name(event->message->type));
	}
}

/* ---- what is due; the network thread, lock held ---- */

/* Requests leases, but none while many results wait for DONE: selectord's disk may be full. */
static void
request(struct salt *s, size_t shard)
{
	struct leases *l = s->leases;
	unsigned waiting = 0, open = 0;
	const struct lease *lease;

	TAILQ_FOREACH(lease, &l->list, entry)
		if (lease->shard == shard && !lease->gone) {
			open++;
			waiting += lease->state == LEASE_WAITING;
		}
	if (waiting + l->requested[shard] < AHEAD && open < OPEN_MAX) {
		/*
		 * the credit replaces the previous one: number of leases that selectord may send from now on
		 */
		struct wire_message message = {.type = WIRE_LEASE_REQUEST, .lease_request = {.credit = AHEAD - waiting}};

		if (session_send(s->session, shard, &message) == 0)
			l->requested[shard] = message.lease_request.credit;
	}
}

/*
 * Whether the row is to be sent now. A result that selectord does not answer is given up: selectord no longer
 * has the lease, and leases the sequence again if it still needs it.
 */
static bool
due(const struct lease *lease, struct lease_row *row, int64_t now_ms)
{
	if (row->state != ROW_READY || (row->sent_ms != 0 && now_ms - row->sent_ms <= ANSWER_MS))
		return false;
	if (row->n_sent < RESULTS_MAX)
		return true;
	log_warn("lease.unanswered", "lease=%" PRIu64 " sequence=%" PRIu64, lease->pub.id, lease->seqs[row - lease->rows]);
	row_over(row);
	return false;
}

/* Sends the results that are due, in as many RESULT frames as selectord's max_message requires. */
static void
send_results(struct salt *s, struct lease *lease, int64_t now_ms)
{
	const size_t max_message = s->leases->max_message[lease->shard], scores_bytes = (size_t)lease->pub.context * LABELS_SCORE_BYTES;
	struct wire_result_row rows[RESULT_ROWS];
	uint32_t i = 0;

	while (i < lease->pub.n) {
		struct wire_message message = {.type = WIRE_RESULT, .result = {lease->pub.id, rows, 0}};
		size_t bytes = RESULT_FIXED_BYTES, n = 0;
		uint32_t at[RESULT_ROWS];

		for (; i < lease->pub.n && n < sizeof(rows) / sizeof(rows[0]); i++) {
			struct lease_row *row = &lease->rows[i];
			size_t need;

			if (!due(lease, row, now_ms))		/* another thread may be using its parts */
				continue;
			need = RESULT_ROW_BYTES + row->label.len + strlen(row->error) + (row->scores != NULL ? scores_bytes : 0);
			if (n > 0 && bytes + need > max_message)
				break;
			bytes += need;
			rows[n] = (struct wire_result_row){.seq = lease->seqs[i], .label = {row->label.bytes, row->label.len}};
			snprintf(rows[n].error, sizeof(rows[n].error), "%s", row->error);
			if (row->scores != NULL)
				rows[n].scores = (struct wire_bytes){row->scores, scores_bytes};
			at[n++] = i;
		}
		message.result.n_rows = n;
		if (n == 0 || session_send(s->session, lease->shard, &message) != 0)
			return;
		for (size_t k = 0; k < n; k++) {
			lease->rows[at[k]].sent_ms = now_ms;
			lease->rows[at[k]].n_sent++;
		}
		status_add(s->leases->m_results, n);
	}
}

static uint32_t
count(const struct lease *lease, enum row_state state)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < lease->pub.n; i++)
		n += lease->rows[i].state == state;
	return n;
}

/*
 * Whether a returned lease is finished: its results are confirmed, and sequences without a result went back
 * to selectord.
 */
static bool
over(struct salt *s, struct lease *lease)
{
	uint32_t open = count(lease, ROW_OPEN);
	struct wire_message message = {.type = WIRE_LEASE_RETURN, .lease_return = {.lease_id = lease->pub.id}};

	if (lease->state != LEASE_RETURNED || lease->n_encoding > 0)
		return false;
	if (lease->gone)
		return true;
	if (open + count(lease, ROW_OVER) < lease->pub.n)
		return false;
	return open == 0 || session_send(s->session, lease->shard, &message) == 0;
}

static bool
expired(const struct lease *lease)
{
	return clock_now_ms() > lease->expires_ms;
}

/*
 * Renews a lease and computes its expiry as selectord does, for told(). selectord does not revive an expired
 * lease.
 */
static void
renew(struct salt *s, struct lease *lease, int64_t now_ms)
{
	const int64_t lease_ms = lease->lease_ms;
	struct wire_message message = {.type = WIRE_LEASE_RENEW,
	    .lease_renew = {.lease_id = lease->pub.id, .progress = s->leases->progress}};
	int64_t stalled, longest;

	if (session_send(s->session, lease->shard, &message) != 0)
		return;
	lease->renewed_ms = now_ms;
	if (lease->progress != s->leases->progress) {
		lease->progress = s->leases->progress;
		lease->moved_ms = now_ms;
	}
	stalled = lease->moved_ms + WIRE_LEASE_STALLED * lease_ms;
	longest = lease->granted_ms + WIRE_LEASE_LONGEST * lease_ms;
	lease->expires_ms = now_ms + lease_ms;
	if (lease->expires_ms > stalled)
		lease->expires_ms = stalled;
	if (lease->expires_ms > longest)
		lease->expires_ms = longest;
}

static void
lease_turn(struct salt *s, struct lease *lease, int64_t now_ms)
{
	bool welcomed = session_welcomed(s->session, lease->shard);

	if (welcomed && !lease->gone) {
		send_results(s, lease, now_ms);
		if (now_ms - lease->renewed_ms > lease->lease_ms / 3 && !expired(lease) && count(lease, ROW_OVER) < lease->pub.n)
			renew(s, lease, now_ms);
	}
	/* A waiting lease goes back when it has expired, and is dropped when selectord has restarted. */
	if ((lease->gone || expired(lease)) && lease->state == LEASE_WAITING)
		lease->state = LEASE_RETURNED;
	if ((welcomed || lease->gone) && over(s, lease)) {
		TAILQ_REMOVE(&s->leases->list, lease, entry);
		lease_free(lease);
		pthread_cond_broadcast(&s->changed);
	}
}

double
client__cpu_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void
show(struct salt *s, int64_t now_ms)
{
	struct leases *l = s->leases;
	const struct lease *lease;
	unsigned n = 0, held = 0;

	TAILQ_FOREACH(lease, &l->list, entry) {
		n += !lease->gone;
		held += lease->state == LEASE_HELD;
	}
	status_set(l->m_leases, n);
	status_state(s->status, session_n_welcomed(s->session) == 0 ? "connecting" : l->leaving ? "draining" :
	    held > 0 ? "computing" : "waiting for leases", now_ms);
	if (now_ms - l->cpu_ms > CPU_MS) {
		l->cpu_ms = now_ms;
		status_set(l->m_cpu, client__cpu_seconds());
	}
}

static void
leases_turn(struct salt *s, int64_t now_ms)
{
	struct leases *l = s->leases;
	struct lease *lease, *next;

	for (lease = TAILQ_FIRST(&l->list); lease != NULL; lease = next) {
		next = TAILQ_NEXT(lease, entry);
		lease_turn(s, lease, now_ms);
	}
	for (size_t i = 0; !l->leaving && i < s->n_shards; i++)
		if (session_welcomed(s->session, i))
			request(s, i);
	show(s, now_ms);
}

/*
 * Number of sequences submitted and not on selectord's disk. *returned: number of leases that still have to
 * go back.
 */
static uint64_t
unconfirmed(const struct leases *l, uint64_t *returned)
{
	const struct lease *lease;
	uint64_t n = 0;

	*returned = 0;
	TAILQ_FOREACH(lease, &l->list, entry) {
		n += lease->gone ? 0 : count(lease, ROW_READY) + count(lease, ROW_ENCODING);
		*returned += lease->state == LEASE_RETURNED;
	}
	return n;
}

static bool
leases_flushed(const struct salt *s)
{
	uint64_t returned;

	return unconfirmed(s->leases, &returned) + returned == 0;
}

static void
leases_waiting(const struct salt *s, char *buf, size_t size)
{
	uint64_t returned, n = unconfirmed(s->leases, &returned);
	const struct lease *lease;

	TAILQ_FOREACH(lease, &s->leases->list, entry)
		if (lease->state == LEASE_WAITING)
			return;
	if (s->leases->leaving)
		snprintf(buf, size, "%s", s->leases->why);
	else
		snprintf(buf, size, "selectord has no sequence for this teacher; %" PRIu64 " results are not confirmed", n);
}

const struct client__part client__leases_part = {leases_welcome, leases_lost, leases_message, leases_turn, leases_flushed, leases_waiting};

void
client__leases_view(const struct salt *s, struct salt_view *view)
{
	uint64_t returned;

	if (s->leases == NULL)
		return;
	view->sequences = s->leases->sequences;
	view->tokens = s->leases->tokens;
	view->unconfirmed = unconfirmed(s->leases, &returned);
}

/* ---- the caller's calls ---- */

int
salt_lease(struct salt *s, int timeout_ms, struct salt_lease **out, struct salt_error *e)
{
	const struct timespec deadline = client__deadline(timeout_ms);
	char why[256] = "";
	struct lease *lease;
	int rc;

	*out = NULL;
	if ((rc = client__enter(s, SALT_TEACHER, e)) != 0)
		return rc;
	pthread_mutex_lock(&s->lock);
	for (;;) {
		TAILQ_FOREACH(lease, &s->leases->list, entry)
			if (lease->state == LEASE_WAITING && !lease->gone && !expired(lease))
				break;
		if (s->failure.code != 0) {
			rc = client__copy(e, &s->failure);
			break;
		}
		if (lease != NULL) {
			lease->state = LEASE_HELD;
			*out = &lease->pub;
			client__wake(s);		/* the network thread requests another one */
			break;
		}
		if (s->leases->leaving) {
			rc = client__error(e, SALT_END, "no more leases: %s", s->leases->why);
			break;
		}
		if (!client__wait(s, timeout_ms, &deadline)) {
			leases_waiting(s, why, sizeof(why));
			rc = client__error(e, SALT_TIMEOUT, "no lease within %d ms: %s", timeout_ms, why);
			break;
		}
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

/* SALT_CLOSED if the caller should continue with another lease. Lock held. */
static int
told(const struct lease *lease, struct salt_error *e)
{
	if (lease->gone)
		return client__error(e, SALT_CLOSED, "lease %" PRIu64 " is gone: selectord has restarted; return it and take the next", lease->pub.id);
	if (expired(lease))
		return client__error(e, SALT_CLOSED, "lease %" PRIu64 " has expired: expected a submit or salt_renew every %" PRIu32 " s, a connection every "
		    "%" PRIu32 " s and an end after %" PRIu32 " s (multiples of selector.lease_s), found the last %" PRId64 " s and the grant %" PRId64 " s "
		    "ago; a result counts if no other teacher was faster; return the lease and take the next", lease->pub.id,
		    WIRE_LEASE_STALLED * lease->lease_ms / 1000, lease->lease_ms / 1000, WIRE_LEASE_LONGEST * lease->lease_ms / 1000,
		    (clock_now_ms() - lease->moved_ms) / 1000, (clock_now_ms() - lease->granted_ms) / 1000);
	return SALT_OK;
}

int
client__row_begin(struct salt *s, struct salt_lease *pub, uint32_t i, struct lease_row **row, struct salt_error *e)
{
	struct lease *lease = (struct lease *)pub;
	int rc;

	if ((rc = client__enter(s, SALT_TEACHER, e)) != 0)
		return rc;
	if (i >= pub->n)
		return client__error(e, SALT_RANGE, "sequence of lease %" PRIu64 ": expected 0 .. %" PRIu32 ", found %" PRIu32, pub->id,
		    pub->n - 1, i);
	*row = &lease->rows[i];
	pthread_mutex_lock(&s->lock);
	if (s->failure.code != 0)
		rc = client__copy(e, &s->failure);
	else if (lease->gone)
		rc = told(lease, e);
	else if ((*row)->state != ROW_OPEN)
		rc = client__error(e, SALT_RANGE,
		    "sequence %" PRIu64 " of lease %" PRIu64
		    ": expected a sequence without a result, found one with a result",
		    pub->seqs[i], pub->id);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

/* Worker job: encodes the draws of a row. */
static void
encode(struct client__job *job, bool cancelled)
{
	struct lease_row *row = (struct lease_row *)job;
	struct lease *lease = row->lease;
	struct salt *s = lease->s;
	struct err_note note = {.name = ""};
	char text[1200];
	int rc = cancelled ? 0 : client__row_encode(row, &note);

	if (rc != 0)
		log_warn("sequence.failed", "seq=%" PRIu64 " why=\"%s\"", lease->seqs[row - lease->rows], err_note_str(&note, rc, text, sizeof(text)));
	pthread_mutex_lock(&s->lock);
	if (rc != 0) {
		row_free(row);
		snprintf(row->error, sizeof(row->error), "%.120s", text);
		status_add(s->leases->m_failed, 1);
	}
	row->state = ROW_READY;
	lease->n_encoding--;
	pthread_mutex_unlock(&s->lock);
	if (!cancelled)
		client__wake(s);
}

/* The row's result is complete. Lock held. */
static void
given(struct lease *lease, struct lease_row *row)
{
	struct salt *s = lease->s;

	s->leases->sequences++;
	s->leases->tokens += lease->pub.context;
	status_add(s->leases->m_seqs, 1);
	status_add(s->leases->m_tokens, lease->pub.context);
	row->state = ROW_READY;
	if (row->draws != NULL) {
		row->state = ROW_ENCODING;
		row->job.run = encode;
		lease->n_encoding++;
		client__work(s->workers, &row->job);
	}
}

int
client__row_end(struct lease_row *row, struct salt_error *e)
{
	struct lease *lease = row->lease;
	struct salt *s = lease->s;
	bool scored = !lease->pub.want_score || row->scores != NULL;
	bool labelled = !lease->pub.want_label || row->draws != NULL || row->label.len > 0;
	int rc = SALT_OK;

	pthread_mutex_lock(&s->lock);
	s->leases->progress++;
	if (lease->gone || (scored && labelled))
		rc = told(lease, e);
	if (!lease->gone && scored && labelled)
		given(lease, row);
	pthread_mutex_unlock(&s->lock);
	if (scored && labelled)
		client__wake(s);
	return rc;
}

int
client__row_error(struct lease_row *row, const char *why, struct salt_error *e)
{
	struct lease *lease = row->lease;
	struct salt *s = lease->s;
	int rc = SALT_OK;

	log_warn("sequence.failed", "seq=%" PRIu64 " why=\"%s\"", lease->seqs[row - lease->rows], why);
	pthread_mutex_lock(&s->lock);
	s->leases->progress++;
	row_free(row);
	snprintf(row->error, sizeof(row->error), "%.120s", why[0] != '\0' ? why : "no reason given");
	row->state = ROW_READY;
	status_add(s->leases->m_failed, 1);
	rc = told(lease, e);
	pthread_mutex_unlock(&s->lock);
	client__wake(s);
	return rc;
}

int
salt_renew(struct salt *s, struct salt_lease *pub, struct salt_error *e)
{
	struct lease *lease = (struct lease *)pub;
	int rc = client__enter(s, SALT_TEACHER, e);

	if (rc != 0)
		return rc;
	pthread_mutex_lock(&s->lock);
	s->leases->progress++;
	rc = told(lease, e);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

void
salt_return(struct salt *s, struct salt_lease **pub)
{
	struct lease *lease = (struct lease *)*pub;

	*pub = NULL;
	if (lease == NULL)
		return;
	if (lease->s == NULL) {			/* salt_close has freed s */
		lease_free(lease);
		return;
	}
	if (client__enter(lease->s, SALT_TEACHER, NULL) != 0)
		return;				/* a forked child: the lease is the parent's */
	s = lease->s;
	pthread_mutex_lock(&s->lock);
	lease->state = LEASE_RETURNED;
	s->leases->progress++;
	pthread_mutex_unlock(&s->lock);
	client__wake(s);
}

int
salt_drain(struct salt *s, struct salt_error *e)
{
	int rc = client__enter(s, SALT_TEACHER, e);

	if (rc != 0)
		return rc;
	pthread_mutex_lock(&s->lock);
	leave(s, "salt_drain was called");
	pthread_mutex_unlock(&s->lock);
	client__wake(s);
	return rc;
}
