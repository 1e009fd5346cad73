#include "teacherd/loop.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "fabric/config/config.h"
#include "base/log/log.h"
#include "base/mem/mem.h"
#include "fabric/daemon/notify.h"
#include "fabric/status/status.h"
#include "teacherd/account.h"
#include "engine/infer/infer.h"
#include "fabric/wire/wire.h"

#define CREDIT 2			/* leases being computed or on their way, per shard */
#define HELD_MAX 8			/* with those that wait for their DONE */
#define ANSWER_MS 10000			/* HELLO and RESULT are said again after so long */
#define RESULTS_MAX 4			/* a RESULT said so often on one connection and not answered is given up */
#define ACCOUNT_MS 5000			/* the ledger is written at most so often */
#define NOTE_MS 1000			/* the service manager hears how it goes at most so often */
#define PING_MS 30000			/* said when nothing else is: selectord forgets who is silent for two minutes */
#define LEAVE_MS 5000			/* at the end: so long for the last DONE */
#define RESULT_FIXED_BYTES 256		/* of a RESULT frame beside its rows */
#define RESULT_ROW_BYTES 32		/* of a row beside its records */

enum lease_state { LEASE_WORK, LEASE_COMPUTED };

struct lease {
	uint64_t id;
	enum lease_state state;
	uint32_t lease_ms;
	int64_t renewed_ms, sent_ms;		/* sent: 0: now, at the next turn */
	unsigned n_sent;			/* on this connection */
	size_t link, n_done;			/* rows that selectord has confirmed */
	bool *done;				/* [job->n] */
	struct infer_job *job;			/* ours once computed; infer's before */
	struct lease *next;
};

struct link {
	struct bus_client *client;
	bool welcomed;
	struct hash128 boot_id;
	uint32_t max_message;
	struct hash128 label_set;		/* of WELCOME; and its table, if it is of sampled labels */
	const struct labels_unigram *unigram;
	int64_t hello_ms, said_ms;
	int64_t spoke_ms;			/* last frame of any kind */
	unsigned asked;				/* leases asked for that have not come */
	unsigned refused;
};

struct loop {
	const struct loop_options *o;
	struct bus_poll *poll;
	struct link *links;
	size_t n_links;
	struct lease *leases;
	bool leaving;				/* no new leases */
	bool had_lease;				/* one has come: said once in the log */
	bool ready;				/* a selectord has said WELCOME */
	int rc;
	struct err_note *note;
	uint64_t sequences, tokens;
	int64_t started_ms, accounted_ms, noted_ms;
	struct status_metric *m_cpu, *m_tokens, *m_seqs, *m_leases, *m_results, *m_failed;
};

static int
send_message(struct loop *l, struct link *link, const struct wire_message *msg)
{
	struct err_note note;
	char text[1024];
	uint8_t *frame;
	size_t len;
	int rc = wire_encode(msg, link->max_message != 0 ? link->max_message : SIZE_MAX, &frame, &len, &note);

	if (rc != 0) {
		log_error("frame.encode", "type=%s why=\"%s\"", wire_type_name(msg->type), err_note_str(&note, rc, text, sizeof(text)));
		if (l->rc == 0)
			*l->note = note;
		l->rc = rc;
		return rc;
	}
	link->spoke_ms = clock_now_ms();
	return bus_client_send(link->client, frame, len);
}

static void
say_hello(struct loop *l, struct link *link, int64_t now_ms)
{
	struct wire_message msg = {.type = WIRE_HELLO};
	struct wire_hello *h = &msg.hello;

	h->role = WIRE_ROLE_TEACHER;
	h->boot_id = bus_boot_id();
	snprintf(h->name, sizeof(h->name), "%s", l->o->name);
	snprintf(h->host, sizeof(h->host), "%s", bus_host());
	snprintf(h->status_endpoint, sizeof(h->status_endpoint), "%s", l->o->status_endpoint);
	h->pid = (uint32_t)getpid();
	h->max_message = (uint32_t)l->o->config->bus.max_message;
	h->n_models = infer_n_models(l->o->infer);
	for (size_t i = 0; i < h->n_models; i++) {
		const struct infer_model *m = infer_model(l->o->infer, i);

		h->models[i] = (struct wire_model){.fingerprint = m->fingerprint, .serves_score = m->serves_score,
		    .serves_label = m->serves_label, .vocab_size = m->vocab_size, .max_context = m->max_context,
		    .tokenizer = {m->has_tokenizer, m->tokenizer}};
		snprintf(h->models[i].compute_class, sizeof(h->models[i].compute_class), "%s", infer_compute_class(l->o->infer));
	}
	if (send_message(l, link, &msg) == 0)
		link->said_ms = now_ms;
}

static void
lease_free(struct loop *l, struct lease *lease)
{
	struct lease **p = &l->leases;

	while (*p != lease)
		p = &(*p)->next;
	*p = lease->next;
	if (lease->state == LEASE_COMPUTED)
		infer_job_free(&lease->job);
	else
		infer_abandon(l->o->infer, lease->link, lease->id);	/* the job comes back and finds no lease */
	free(lease->done);
	free(lease);
}

static void
count_leases(struct loop *l)
{
	unsigned n = 0;

	for (const struct lease *lease = l->leases; lease != NULL; lease = lease->next)
		n++;
	status_set(l->m_leases, n);
}

static struct lease *
lease_find(struct loop *l, size_t link, uint64_t id)
{
	struct lease *lease = l->leases;

	while (lease != NULL && (lease->link != link || lease->id != id))
		lease = lease->next;
	return lease;
}

/* selectord was started anew: it knows none of our leases. */
static void
leases_forget(struct loop *l, size_t link)
{
	for (struct lease *lease = l->leases, *next; lease != NULL; lease = next) {
		next = lease->next;
		if (lease->link == link)
			lease_free(l, lease);
	}
}

/* Leases of one link: all of them, and those that are not computed yet. */
static unsigned
leases_held(const struct loop *l, size_t link, unsigned *working)
{
	unsigned n = 0;

	*working = 0;
	for (const struct lease *lease = l->leases; lease != NULL; lease = lease->next)
		if (lease->link == link) {
			n++;
			*working += lease->state == LEASE_WORK;
		}
	return n;
}

static void
give_back(struct loop *l, size_t link, uint64_t id)
{
	struct wire_message msg = {.type = WIRE_LEASE_RETURN, .lease_return = {.lease_id = id}};

	send_message(l, &l->links[link], &msg);
}

/* A lease that cannot be done at all is answered with an error for each sequence, not left to expire. */
static void
lease_impossible(struct infer_job *job, const char *why)
{
	for (size_t i = 0; i < job->n; i++)
		snprintf(job->rows[i].error, sizeof(job->rows[i].error), "%.120s", why);
	log_error("lease.impossible", "lease=%" PRIu64 " why=\"%s\"", job->lease_id, why);
}

static void
lease_new(struct loop *l, size_t link, const struct wire_lease *w, int64_t now_ms)
{
	struct lease *lease = NULL;
	struct infer_job *job = NULL;
	struct err_note note = {.name = ""};
	char text[1200];
	size_t model = 0;
	int rc;

	if (l->links[link].asked > 0)
		l->links[link].asked--;
	if (l->leaving || lease_find(l, link, w->lease_id) != NULL) {
		if (l->leaving)
			give_back(l, link, w->lease_id);
		return;
	}
	while (model < infer_n_models(l->o->infer) && !hash_equal(infer_model(l->o->infer, model)->fingerprint, w->model))
		model++;
	if ((lease = calloc(1, sizeof(*lease))) == NULL || (job = infer_job_new(w->n_seqs, w->context)) == NULL ||
	    (lease->done = calloc(w->n_seqs, sizeof(bool))) == NULL) {
		if (lease != NULL)
			free(lease->done);
		free(lease);
		infer_job_free(&job);
		give_back(l, link, w->lease_id);
		return;
	}
	*lease = (struct lease){.id = w->lease_id, .lease_ms = w->lease_ms, .renewed_ms = now_ms, .link = link, .done = lease->done,
	    .job = job, .next = l->leases};
	l->leases = lease;
	job->link = link;
	job->lease_id = w->lease_id;
	job->model = model;
	job->want_score = w->want_score;
	job->want_label = w->want_label;
	job->n_valid = w->n_valid;
	for (size_t i = 0; i < w->n_seqs; i++)
		job->rows[i].seq = w->seqs[i];
	memcpy(job->tokens, w->tokens, w->n_seqs * ((size_t)w->context + 1) * sizeof(int32_t));
	if (w->want_label)
		job->spec = (struct labels_spec){.kind = (enum labels_kind)w->label_set.kind, .version = w->label_set.version,
		    .context = w->context, .vocab = w->n_valid, .n_samples = w->label_set.kind == WIRE_LABEL_SAMPLED ? w->label_set.n : 0,
		    .k = w->label_set.kind == WIRE_LABEL_TOPK ? w->label_set.n : 0, .seed = w->label_set.seed, .tau = (double)w->label_set.tau,
		    .unigram = l->links[link].unigram, .set = w->label_set.hash.hash};
	if (w->want_label && !hash_equal(w->label_set.hash.hash, l->links[link].label_set)) {
		lease_impossible(job, "not the label set of WELCOME");
		lease->state = LEASE_COMPUTED;
	} else if (model == infer_n_models(l->o->infer)) {
		lease_impossible(job, "this teacher does not hold the model");
		lease->state = LEASE_COMPUTED;
	} else if ((rc = infer_check(l->o->infer, job, &note)) != 0) {
		lease_impossible(job, err_note_str(&note, rc, text, sizeof(text)));
		lease->state = LEASE_COMPUTED;
	} else {
		infer_submit(l->o->infer, job);
	}
	if (!l->had_lease)
		log_info("lease.first", "lease=%llu sequences=%zu", (unsigned long long)w->lease_id, (size_t)w->n_seqs);
	l->had_lease = true;
	count_leases(l);
}

/* Rows not confirmed yet, in as many RESULT frames as the other side's message limit asks for. */
static void
lease_send(struct loop *l, struct lease *lease, int64_t now_ms)
{
	struct link *link = &l->links[lease->link];
	struct wire_result_row *rows = mem_alloc(lease->job->n, sizeof(*rows));
	size_t i = 0;
	int rc = 0;

	if (rows == NULL)
		return;
	while (i < lease->job->n) {
		struct wire_message msg = {.type = WIRE_RESULT, .result = {.lease_id = lease->id, .rows = rows}};
		size_t bytes = RESULT_FIXED_BYTES, n = 0;

		for (; i < lease->job->n && n < WIRE_ROWS_MAX; i++) {
			const struct infer_row *row = &lease->job->rows[i];
			size_t need = RESULT_ROW_BYTES + row->label.len + (row->scores != NULL ? (size_t)lease->job->context * LABELS_SCORE_BYTES : 0) +
			    strlen(row->error);

			if (lease->done[i])
				continue;
			if (n > 0 && bytes + need > link->max_message)
				break;
			bytes += need;
			memset(&rows[n], 0, sizeof(rows[n]));
			rows[n].seq = row->seq;
			snprintf(rows[n].error, sizeof(rows[n].error), "%s", row->error);
			if (row->scores != NULL)
				rows[n].scores = (struct wire_bytes){row->scores, (size_t)lease->job->context * LABELS_SCORE_BYTES};
			rows[n].label = (struct wire_bytes){row->label.bytes, row->label.len};
			n++;
		}
		msg.result.n_rows = n;
		if (n == 0 || (rc = send_message(l, link, &msg)) != 0)
			break;
		status_add(l->m_results, n);
	}
	lease->sent_ms = now_ms;
	lease->n_sent += rc == 0;
	free(rows);
}

/* Jobs that the engine has finished. */
static void
collect(struct loop *l, int64_t now_ms)
{
	struct infer_job *job;

	while ((job = infer_finished(l->o->infer)) != NULL) {
		struct lease *lease = lease_find(l, job->link, job->lease_id);

		if (lease == NULL || lease->job != job) {
			infer_job_free(&job);
			continue;
		}
		lease->state = LEASE_COMPUTED;
		l->tokens += (uint64_t)job->n * job->context;
		l->sequences += job->n;
		status_set(l->m_cpu, infer_cpu_seconds(l->o->infer));
		status_add(l->m_tokens, (uint64_t)job->n * job->context);
		status_add(l->m_seqs, job->n);
		for (size_t i = 0; i < job->n; i++)
			status_add(l->m_failed, job->rows[i].error[0] != '\0');
		if (l->links[lease->link].welcomed)
			lease_send(l, lease, now_ms);
	}
}

static void
account(struct loop *l, int64_t now_ms)
{
	struct account a = {.run_dir = l->o->config->run.dir, .name = l->o->name, .sequences = l->sequences, .tokens = l->tokens,
	    .cpu_seconds = infer_cpu_seconds(l->o->infer), .up_seconds = (double)(now_ms - l->started_ms) * 1e-3,
	    .threads = infer_threads(l->o->infer)};
	struct err_note note = {.name = ""};
	char text[1200];
	int rc;

	if (l->sequences > 0 && (rc = account_write(&a, &note)) != 0)
		log_warn("ledger", "why=\"%s\"", err_note_str(&note, rc, text, sizeof(text)));
	l->accounted_ms = now_ms;
}

static void
done(struct loop *l, size_t link, const struct wire_done *d)
{
	struct lease *lease = lease_find(l, link, d->lease_id);

	if (lease == NULL)
		return;
	for (size_t i = 0; i < d->n_seqs; i++)
		for (size_t r = 0; r < lease->job->n; r++)
			if (lease->job->rows[r].seq == d->seqs[i] && !lease->done[r]) {
				lease->done[r] = true;
				lease->n_done++;
			}
	if (lease->state == LEASE_COMPUTED && lease->n_done == lease->job->n) {
		lease_free(l, lease);
		count_leases(l);
	}
}

/* Is the label set that WELCOME names the one that its parts make, the table among them? Records carry the name and not the table. */
static int
check_label_set(const struct wire_welcome *w, const struct labels_unigram *unigram, struct err_note *note)
{
	const struct wire_label_set *l = &w->label_set;
	struct labels_set set = {.corpus = w->corpus.fingerprint.hash, .teacher = l->teacher.hash, .spec = {.kind = (enum labels_kind)l->kind,
	    .version = l->version, .context = w->corpus.context, .vocab = w->corpus.vocab_size, .n_samples = l->kind == WIRE_LABEL_SAMPLED ? l->n : 0,
	    .k = l->kind == WIRE_LABEL_TOPK ? l->n : 0, .seed = l->seed, .tau = (double)l->tau, .unigram = unigram}};
	char a[HASH_HEX_BYTES], b[HASH_HEX_BYTES];
	struct hash128 hash;

	snprintf(set.compute_class, sizeof(set.compute_class), "%s", l->compute_class);
	hash = labels_set_hash(&set);
	if (hash_equal(hash, l->hash.hash))
		return 0;
	err_note_set(note, ERR_MISMATCH, "label_set.hash");
	err_note_expected(note, "%s, of the corpus, teacher, options and unigram table that came with it", hash_hex(hash, a));
	err_note_found(note, "%s", hash_hex(l->hash.hash, b));
	return ERR_MISMATCH;
}

static void
welcome(struct loop *l, size_t i, const struct wire_welcome *w)
{
	struct link *link = &l->links[i];
	struct err_note note = {0};
	int rc = 0;

	if (!hash_equal(link->boot_id, w->boot_id))
		leases_forget(l, i);
	link->unigram = NULL;
	if (w->unigram.len > 0)
		rc = infer_unigram(l->o->infer, w->unigram.bytes, w->unigram.len, &link->unigram, &note);
	if (rc == 0 && w->label_set.present)
		rc = check_label_set(w, link->unigram, &note);
	if (rc != 0) {
		err_note_place(&note, "WELCOME of %s", l->o->config->selector.endpoints.item[i]);
		*l->note = note;
		l->rc = rc;
		return;
	}
	link->label_set = w->label_set.hash.hash;
	link->boot_id = w->boot_id;
	link->max_message = w->max_message;
	link->welcomed = true;
	link->refused = 0;
	link->asked = 0;
	/* What was said on the last connection may have gone down with it. */
	for (struct lease *lease = l->leases; lease != NULL; lease = lease->next)
		if (lease->link == i) {
			lease->sent_ms = lease->renewed_ms = 0;
			lease->n_sent = 0;
		}
	log_info("selectord.welcome", "shard=%u of=%u", w->shard, w->n_shards);
}

static void
refused(struct loop *l, struct link *link, const struct wire_refuse *r, int64_t now_ms)
{
	char text[2048], quoted[2200];

	link->welcomed = false;
	link->said_ms = 0;
	if (r->retry_ms > 0) {
		link->hello_ms = now_ms + r->retry_ms;
		if (link->refused++ % 16 == 0)
			log_warn("selectord.not_now", "why=%s", log_quote(wire_refuse_str(r, text, sizeof(text)), quoted, sizeof(quoted)));
		return;
	}
	err_note_set(l->note, ERR_MISMATCH, "%.180s", r->field);
	err_note_place(l->note, "refused by selectord");
	err_note_expected(l->note, "%.300s", r->expected);
	err_note_found(l->note, "%.200s%s%.100s", r->found, r->text[0] ? "; " : "", r->text);
	l->rc = r->code == EX_CONFIG ? ERR_MISMATCH : ERR_REFUSED;
}

static void
received(struct loop *l, size_t i, const struct wire_message *msg, int64_t now_ms)
{
	struct link *link = &l->links[i];

	switch (msg->type) {
	case WIRE_WELCOME:
		welcome(l, i, &msg->welcome);
		break;
	case WIRE_REFUSE:
		refused(l, link, &msg->refuse, now_ms);
		break;
	case WIRE_LEASE:
		lease_new(l, i, &msg->lease, now_ms);
		break;
	case WIRE_DONE:
		done(l, i, &msg->done);
		break;
	case WIRE_RELEASE_TEACHER:
		log_info("released", "reason=\"%s\"", msg->release_teacher.reason);
		l->leaving = true;
		break;
	case WIRE_PING: {
		struct wire_message pong = {.type = WIRE_PONG, .ping = msg->ping};

		send_message(l, link, &pong);
		break;
	}
	case WIRE_PONG:
		break;
	default:
		log_warn("frame.unexpected", "type=%s", wire_type_name(msg->type));
	}
}

static void
receive(struct loop *l, size_t i, int64_t now_ms)
{
	struct link *link = &l->links[i];
	struct bus_event event;

	while (bus_client_recv(link->client, &event) == 0) {
		struct wire_message *msg = NULL;
		struct err_note note;
		char text[1024];
		int rc;

		if (event.kind == BUS_EVENT_CONNECTED) {
			link->welcomed = false;
			link->hello_ms = now_ms;
			link->said_ms = 0;
		} else if (event.kind == BUS_EVENT_DISCONNECTED) {
			if (link->welcomed)
				log_warn("selectord.gone", "shard=%zu", i);
			link->welcomed = false;
		} else if (event.kind == BUS_EVENT_REFUSED) {
			log_warn("selectord.key_refused", "shard=%zu", i);
		} else if (event.kind == BUS_EVENT_FRAME) {
			if ((rc = wire_decode(event.frame, event.len, &msg, &note)) != 0)
				log_warn("frame.bad", "shard=%zu why=\"%s\"", i, err_note_str(&note, rc, text, sizeof(text)));
			else
				received(l, i, msg, now_ms);
			wire_message_destroy(&msg);
		}
		bus_event_free(&event);
	}
}

/* Keep CREDIT leases computing or on their way; stop asking when confirmations stay out: selectord may have no room. */
static void
ask_leases(struct loop *l, size_t i)
{
	struct link *link = &l->links[i];
	unsigned working, held = leases_held(l, i, &working);

	if (working + link->asked < CREDIT && held < HELD_MAX) {
		/* Credit is not added up there: it says how many more than those held may come. */
		struct wire_message msg = {.type = WIRE_LEASE_REQUEST, .lease_request = {.credit = CREDIT - working}};

		if (send_message(l, link, &msg) == 0)
			link->asked = msg.lease_request.credit;
	}
}

/* What is due on one link: HELLO, credit, renewals, results that nobody confirmed. */
static void
link_turn(struct loop *l, size_t i, int64_t now_ms)
{
	struct link *link = &l->links[i];

	receive(l, i, now_ms);
	if (!bus_client_connected(link->client) || l->rc != 0)
		return;
	if (!link->welcomed) {
		if (now_ms >= link->hello_ms && (link->said_ms == 0 || now_ms - link->said_ms > ANSWER_MS))
			say_hello(l, link, now_ms);
		return;
	}
	if (!l->leaving)
		ask_leases(l, i);
	for (struct lease *lease = l->leases, *next; lease != NULL; lease = next) {
		next = lease->next;
		if (lease->link != i)
			continue;
		if (lease->state == LEASE_COMPUTED && (lease->sent_ms == 0 || now_ms - lease->sent_ms > ANSWER_MS)) {
			if (lease->n_sent >= RESULTS_MAX) {
				/* selectord has forgotten it, and what it wants of it is leased again */
				log_warn("lease.unanswered", "lease=%" PRIu64 " sequences=%zu", lease->id, lease->job->n - lease->n_done);
				lease_free(l, lease);
				count_leases(l);
				continue;
			}
			lease_send(l, lease, now_ms);
		}
		if (now_ms - lease->renewed_ms > lease->lease_ms / 3) {
			struct wire_message msg = {.type = WIRE_LEASE_RENEW,
			    .lease_renew = {.lease_id = lease->id, .progress = infer_progress(l->o->infer)}};

			if (send_message(l, link, &msg) == 0)
				lease->renewed_ms = now_ms;
		}
	}
	if (now_ms - link->spoke_ms > PING_MS) {
		struct wire_message ping = {.type = WIRE_PING, .ping = {.nonce = (uint64_t)now_ms}};

		send_message(l, link, &ping);
	}
}

/* Hand back what is not begun, wait a little for the last confirmations, say goodbye. */
static void
leave(struct loop *l)
{
	int64_t until = clock_now_ms() + LEAVE_MS;

	l->leaving = true;
	status_state(l->o->status, "draining", clock_now_ms());
	notify_stopping("%s: leases are finished or handed back", stop_requested() ? "stopping" : "released");
	for (struct lease *lease = l->leases, *next; lease != NULL; lease = next) {
		next = lease->next;
		if (lease->state == LEASE_WORK) {
			give_back(l, lease->link, lease->id);
			lease_free(l, lease);
		}
	}
	while (l->leases != NULL && l->rc == 0 && clock_now_ms() < until) {
		for (size_t i = 0; i < l->n_links; i++)
			link_turn(l, i, clock_now_ms());
		if (l->leases != NULL && bus_poll_wait(l->poll, 50) != 0)
			break;
	}
	for (size_t i = 0; i < l->n_links; i++) {
		struct wire_message bye = {.type = WIRE_BYE};

		snprintf(bye.bye.reason, sizeof(bye.bye.reason), "%s", stop_requested() ? "stopped" : "released");
		if (l->links[i].welcomed)
			send_message(l, &l->links[i], &bye);
	}
	while (l->leases != NULL)
		lease_free(l, l->leases);
}

static int
loop_open(struct loop *l)
{
	const struct config *cfg = l->o->config;
	int rc;

	l->n_links = cfg->selector.endpoints.n;
	if ((l->links = mem_alloc(l->n_links, sizeof(*l->links))) == NULL || (l->poll = bus_poll_new(l->o->bus)) == NULL)
		return ENOMEM;
	if ((rc = bus_poll_add_waker(l->poll, l->o->waker)) != 0)
		return rc;
	for (size_t i = 0; i < l->n_links; i++)
		if ((rc = bus_client_new(&l->links[i].client, l->o->bus, cfg->selector.endpoints.item[i], NULL, l->note)) != 0 ||
		    (rc = bus_poll_add_client(l->poll, l->links[i].client)) != 0)
			return rc;
	l->m_tokens = status_register(l->o->status, STATUS_RATED, "tokens_total", "tokens", "tokens scored or labelled");
	l->m_cpu = status_register(l->o->status, STATUS_GAUGE, "cpu_seconds", "seconds", "processor time of the workers");
	l->m_seqs = status_register(l->o->status, STATUS_RATED, "sequences_total", "sequences", "sequences computed");
	l->m_leases = status_register(l->o->status, STATUS_QUEUE, "leases_in_hand", "leases", "leases being computed or not confirmed");
	l->m_results = status_register(l->o->status, STATUS_COUNTER, "results_sent_total", "sequences", "sequences sent, repeats counted");
	l->m_failed = status_register(l->o->status, STATUS_COUNTER, "sequences_failed_total", "sequences", "sequences answered with an error");
	return 0;
}

static bool
welcomed_anywhere(const struct loop *l)
{
	for (size_t i = 0; i < l->n_links; i++)
		if (l->links[i].welcomed)
			return true;
	return false;
}

/* To the log's other reader: ready when a selectord took us, alive as long as the workers finish what they have. */
static void
tell_manager(struct loop *l, const char *state, int64_t now_ms)
{
	if (!l->ready && welcomed_anywhere(l)) {
		l->ready = true;
		notify_ready("welcomed by selectord");
	}
	if (now_ms - l->noted_ms > NOTE_MS) {
		l->noted_ms = now_ms;
		notify_status("%s: %" PRIu64 " sequences computed", state, l->sequences);
	}
	notify_turn(infer_progress(l->o->infer), infer_jobs(l->o->infer) > 0);
}

int
loop_run(const struct loop_options *o, struct err_note *note)
{
	struct loop l = {.o = o, .note = note, .started_ms = clock_now_ms()};
	const char *state;
	int rc = loop_open(&l);

	while (rc == 0 && l.rc == 0 && !l.leaving && !stop_requested()) {
		int64_t now_ms = clock_now_ms();

		for (size_t i = 0; i < l.n_links; i++)
			link_turn(&l, i, now_ms);
		collect(&l, now_ms);
		if (now_ms - l.accounted_ms > ACCOUNT_MS)
			account(&l, now_ms);
		state = !welcomed_anywhere(&l) ? "connecting" : infer_jobs(o->infer) > 0 ? "computing" : "waiting for leases";
		status_state(o->status, state, now_ms);
		tell_manager(&l, state, now_ms);
		if (l.rc == 0 && (rc = bus_poll_wait(l.poll, 250)) != 0)
			err_note_set(note, rc, "poll");
	}
	if (rc == 0 && l.rc == 0)
		leave(&l);
	account(&l, clock_now_ms());
	while (l.leases != NULL)
		lease_free(&l, l.leases);
	for (size_t i = 0; i < l.n_links; i++) {
		if (l.links[i].client != NULL)
			bus_poll_remove(l.poll, l.links[i].client);
		bus_client_destroy(&l.links[i].client);
	}
	bus_poll_destroy(&l.poll);
	free(l.links);
	return rc != 0 ? rc : l.rc;
}
