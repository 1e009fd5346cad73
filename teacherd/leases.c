/* SPDX-License-Identifier: Apache-2.0 */
#include "teacherd/leases.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/clock/clock.h"
#include "base/err/crash.h"
#include "base/log/log.h"
#include "base/mem/mem.h"

#define CREDIT 2			/* leases of a shard that are computed or requested */
#define HELD_MAX 8			/* leases of a shard, including those that wait for their DONE */
#define ANSWER_MS 10000			/* a RESULT without a DONE is sent again after this time */
#define RESULTS_MAX 4			/* a lease is dropped after so many RESULTs on one connection */
#define RESULT_FIXED_BYTES 256		/* of a RESULT frame, without its rows */
#define RESULT_ROW_BYTES 32		/* of a row, without its records */

struct lease {
	LIST_ENTRY(lease) entry;
	size_t shard;
	uint64_t id;
	bool computed;
	uint32_t lease_ms;
	int64_t renewed_ms;
	int64_t sent_ms;		/* time of the last RESULT; 0: send at the next turn */
	unsigned n_sent;		/* RESULTs on this connection */
	size_t n_done;			/* rows that selectord has confirmed */
	bool *done;			/* [job->n] */
	struct infer_job *job;		/* owned by infer until it is computed */
};

struct leases {
	struct infer *infer;
	struct session *session;
	LIST_HEAD(, lease) list;
	unsigned *requested;			/* [shard] leases requested that have not arrived */
	const struct labels_unigram **unigram;	/* [shard] table of WELCOME's label set; NULL: none */
	bool leaving, had_one;
	uint64_t sequences, tokens;
	struct status_metric *m_cpu, *m_tokens, *m_seqs, *m_leases, *m_results, *m_failed;
};

struct leases *
leases_new(struct infer *infer, struct session *session, struct status *status)
{
	struct leases *l = calloc(1, sizeof(*l));
	size_t n = session_n_shards(session);

	if (l == NULL)
		return NULL;
	l->infer = infer;
	l->session = session;
	LIST_INIT(&l->list);
	if ((l->requested = mem_alloc(n, sizeof(*l->requested))) == NULL ||
	    (l->unigram = mem_alloc(n, sizeof(*l->unigram))) == NULL) {
		leases_destroy(&l);
		return NULL;
	}
	l->m_tokens = status_register(status, STATUS_RATED, "tokens_total", "tokens", "tokens scored or labelled");
	l->m_cpu = status_register(status, STATUS_GAUGE, "cpu_seconds", "seconds", "processor time of the workers");
	l->m_seqs = status_register(status, STATUS_RATED, "sequences_total", "sequences", "sequences computed");
	l->m_leases = status_register(status, STATUS_QUEUE, "leases_in_hand", "leases",
	    "leases being computed or not confirmed");
	l->m_results = status_register(status, STATUS_COUNTER, "results_sent_total", "sequences",
	    "sequences sent, including repeats");
	l->m_failed = status_register(status, STATUS_COUNTER, "sequences_failed_total", "sequences",
	    "sequences answered with an error");
	return l;
}

static void
lease_free(struct leases *l, struct lease *lease)
{
	LIST_REMOVE(lease, entry);
	if (lease->computed)
		infer_job_free(&lease->job);
	else
		infer_abandon(l->infer, lease->shard, lease->id);	/* leases_collect frees the job */
	free(lease->done);
	free(lease);
}

void
leases_destroy(struct leases **leases)
{
	struct leases *l = *leases;

	if (l == NULL)
		return;
	while (!LIST_EMPTY(&l->list))
		lease_free(l, LIST_FIRST(&l->list));
	free(l->requested);
	free(l->unigram);
	free(l);
	*leases = NULL;
}

static void
count(struct leases *l)
{
	const struct lease *lease;
	unsigned n = 0;

	LIST_FOREACH(lease, &l->list, entry)
		n++;
	status_set(l->m_leases, n);
}

static struct lease *
find(struct leases *l, size_t shard, uint64_t id)
{
	struct lease *lease;

	LIST_FOREACH(lease, &l->list, entry)
		if (lease->shard == shard && lease->id == id)
			break;
	return lease;
}

static void
hand_back(struct leases *l, size_t shard, uint64_t id)
{
	struct wire_message message = {.type = WIRE_LEASE_RETURN, .lease_return = {.lease_id = id}};

	session_send(l->session, shard, &message);
}

int
leases_welcome(struct leases *l, size_t shard, bool restarted, struct err_note *note)
{
	const struct wire_welcome *w = session_welcome(l->session, shard);

	for (struct lease *lease = LIST_FIRST(&l->list), *next; lease != NULL; lease = next) {
		next = LIST_NEXT(lease, entry);
		if (lease->shard != shard)
			continue;
		if (restarted) {
			lease_free(l, lease);		/* a restarted selectord has no leases from before */
		} else {
			/* what was sent on the lost connection may not have arrived */
			lease->sent_ms = lease->renewed_ms = 0;
			lease->n_sent = 0;
		}
	}
	l->requested[shard] = 0;
	l->unigram[shard] = NULL;
	return w->unigram.len > 0 ? infer_unigram(l->infer, w->unigram.bytes, w->unigram.len,
	    &l->unigram[shard], note) : 0;
}

/* Returns NULL if the job can be computed here, else the reason for selectord, possibly in text. */
static const char *
impossible(struct leases *l, const struct infer_job *job, const struct wire_lease *w,
    struct hash128 label_set, char *text, size_t size)
{
	struct err_note note = {.name = ""};
	int rc;

	if (w->want_label && !hash_equal(w->label_set.hash.hash, label_set))
		return "the label set differs from the one in WELCOME";
	if (job->model == infer_n_models(l->infer))
		return "this teacher does not serve the model";
	return (rc = infer_check(l->infer, job, &note)) != 0 ? err_note_str(&note, rc, text, size) : NULL;
}

void
leases_take(struct leases *l, size_t shard, const struct wire_lease *w)
{
	struct lease *lease = NULL;
	struct infer_job *job = NULL;
	const char *why;
	char text[1200];

	crash_point("teacher.lease");
	l->requested[shard] -= l->requested[shard] > 0;
	if (l->leaving)
		hand_back(l, shard, w->lease_id);
	if (l->leaving || find(l, shard, w->lease_id) != NULL)
		return;
	if ((lease = calloc(1, sizeof(*lease))) == NULL ||
	    (lease->done = calloc(w->n_seqs, sizeof(bool))) == NULL ||
	    (job = infer_job_new(w->n_seqs, w->context)) == NULL) {
		if (lease != NULL)
			free(lease->done);
		free(lease);
		hand_back(l, shard, w->lease_id);
		return;
	}
	lease->shard = shard;
	lease->id = w->lease_id;
	lease->lease_ms = w->lease_ms;
	lease->renewed_ms = clock_now_ms();
	lease->job = job;
	LIST_INSERT_HEAD(&l->list, lease, entry);
	job->link = shard;
	job->lease_id = w->lease_id;
	while (job->model < infer_n_models(l->infer) &&
	    !hash_equal(infer_model(l->infer, job->model)->fingerprint, w->model))
		job->model++;
	job->want_score = w->want_score;
	job->want_label = w->want_label;
	job->n_valid = w->n_valid;
	job->document_end = (int32_t)w->document_end - 1;
	for (size_t i = 0; i < w->n_seqs; i++)
		job->rows[i].seq = w->seqs[i];
	memcpy(job->tokens, w->tokens, w->n_seqs * ((size_t)w->context + 1) * sizeof(int32_t));
	if (w->want_label)
		job->spec = session_label_spec(&w->label_set, w->context, w->n_valid, l->unigram[shard]);
	why = impossible(l, job, w, session_welcome(l->session, shard)->label_set.hash.hash, text,
	    sizeof(text));
	if (why == NULL) {
		infer_submit(l->infer, job);
	} else {
		/*
		 * answer with an error for each sequence: if it expired instead, it would be leased again and
		 * again
		 */
		for (size_t i = 0; i < job->n; i++)
			snprintf(job->rows[i].error, sizeof(job->rows[i].error), "%.120s", why);
		lease->computed = true;
		crash_point("teacher.computed");
		log_error("lease.impossible", "lease=%" PRIu64 " why=\"%s\"", job->lease_id, why);
		status_add(l->m_failed, job->n);
	}
	if (!l->had_one)
		log_info("lease.first", "lease=%" PRIu64 " sequences=%zu", w->lease_id, w->n_seqs);
	l->had_one = true;
	count(l);
}

void
leases_done(struct leases *l, size_t shard, const struct wire_done *d)
{
	struct lease *lease = find(l, shard, d->lease_id);

	if (lease == NULL)
		return;
	for (size_t i = 0; i < d->n_seqs; i++)
		for (size_t r = 0; r < lease->job->n; r++)
			if (lease->job->rows[r].seq == d->seqs[i] && !lease->done[r]) {
				crash_point("teacher.done");
				lease->done[r] = true;
				lease->n_done++;
			}
	if (lease->computed && lease->n_done == lease->job->n) {
		lease_free(l, lease);
		count(l);
	}
}

/* Sends the rows that are not confirmed, in as many RESULT frames as selectord's max_message requires. */
static void
send_results(struct leases *l, struct lease *lease)
{
	const size_t max_message = session_welcome(l->session, lease->shard)->max_message;
	const struct infer_job *job = lease->job;
	const size_t scores_bytes = (size_t)job->context * LABELS_SCORE_BYTES;
	struct wire_result_row *rows = mem_alloc(job->n, sizeof(*rows));
	size_t i = 0;
	int rc = 0;

	if (rows == NULL)
		return;
	while (i < job->n) {
		struct wire_message message = {.type = WIRE_RESULT, .result = {lease->id, rows, 0}};
		size_t bytes = RESULT_FIXED_BYTES, n = 0;

		for (; i < job->n && n < WIRE_ROWS_MAX; i++) {
			const struct infer_row *row = &job->rows[i];
			size_t need = RESULT_ROW_BYTES + row->label.len + strlen(row->error) +
			    (row->scores != NULL ? scores_bytes : 0);

			if (lease->done[i])
				continue;
			if (n > 0 && bytes + need > max_message)
				break;
			bytes += need;
			rows[n] = (struct wire_result_row){.seq = row->seq,
			    .label = {row->label.bytes, row->label.len}};
			snprintf(rows[n].error, sizeof(rows[n].error), "%s", row->error);
			if (row->scores != NULL)
				rows[n].scores = (struct wire_bytes){row->scores, scores_bytes};
			n++;
		}
		message.result.n_rows = n;
		if (n == 0 || (rc = session_send(l->session, lease->shard, &message)) != 0)
			break;
		status_add(l->m_results, n);
	}
	lease->sent_ms = clock_now_ms();
	lease->n_sent += rc == 0;
	free(rows);
}

void
leases_collect(struct leases *l)
{
	struct infer_job *job;

	while ((job = infer_finished(l->infer)) != NULL) {
		struct lease *lease = find(l, job->link, job->lease_id);

		if (lease == NULL || lease->job != job) {
			infer_job_free(&job);		/* its lease was dropped */
			continue;
		}
		lease->computed = true;
		l->tokens += (uint64_t)job->n * job->context;
		l->sequences += job->n;
		status_set(l->m_cpu, infer_cpu_seconds(l->infer));
		status_add(l->m_tokens, (uint64_t)job->n * job->context);
		status_add(l->m_seqs, job->n);
		for (size_t i = 0; i < job->n; i++)
			status_add(l->m_failed, job->rows[i].error[0] != '\0');
		if (session_welcomed(l->session, lease->shard))
			send_results(l, lease);
	}
}

/*
 * Requests leases, so that CREDIT are computed or requested. Requests none while many results wait for DONE:
 * selectord's disk may be full.
 */
static void
request(struct leases *l, size_t shard)
{
	unsigned working = 0, held = 0;
	const struct lease *lease;

	LIST_FOREACH(lease, &l->list, entry)
		if (lease->shard == shard) {
			held++;
			working += !lease->computed;
		}
	if (working + l->requested[shard] < CREDIT && held < HELD_MAX) {
		/*
		 * the credit replaces the previous one: number of leases that selectord may send from now on
		 */
		struct wire_message message = {.type = WIRE_LEASE_REQUEST,
		    .lease_request = {.credit = CREDIT - working}};

		if (session_send(l->session, shard, &message) == 0)
			l->requested[shard] = message.lease_request.credit;
	}
}

void
leases_turn(struct leases *l, size_t shard)
{
	int64_t now_ms = clock_now_ms();

	if (!l->leaving)
		request(l, shard);
	for (struct lease *lease = LIST_FIRST(&l->list), *next; lease != NULL; lease = next) {
		next = LIST_NEXT(lease, entry);
		if (lease->shard != shard)
			continue;
		if (lease->computed && (lease->sent_ms == 0 || now_ms - lease->sent_ms > ANSWER_MS)) {
			if (lease->n_sent >= RESULTS_MAX) {
				/*
				 * selectord no longer has it, and leases the sequences again that it still
				 * needs
				 */
				log_warn("lease.unanswered", "lease=%" PRIu64 " sequences=%zu", lease->id,
				    lease->job->n - lease->n_done);
				lease_free(l, lease);
				count(l);
				continue;
			}
			send_results(l, lease);
		}
		if (now_ms - lease->renewed_ms > lease->lease_ms / 3) {
			struct wire_message message = {.type = WIRE_LEASE_RENEW,
			    .lease_renew = {.lease_id = lease->id, .progress = infer_progress(l->infer)}};

			if (session_send(l->session, shard, &message) == 0)
				lease->renewed_ms = now_ms;
		}
	}
}

void
leases_leave(struct leases *l)
{
	l->leaving = true;
	for (struct lease *lease = LIST_FIRST(&l->list), *next; lease != NULL; lease = next) {
		next = LIST_NEXT(lease, entry);
		if (!lease->computed) {
			hand_back(l, lease->shard, lease->id);
			lease_free(l, lease);
		}
	}
}

bool
leases_empty(const struct leases *l)
{
	return LIST_EMPTY(&l->list);
}

uint64_t
leases_sequences(const struct leases *l)
{
	return l->sequences;
}

uint64_t
leases_tokens(const struct leases *l)
{
	return l->tokens;
}
