/* SPDX-License-Identifier: Apache-2.0 */
#include "client/fake_leases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/random/random.h"
#include "fabric/session/session.h"
#include "replay/fake_shard.h"

int32_t
fake_token(const struct fake_leases *f, uint64_t seq, uint32_t t)
{
	uint32_t w[4];

	random_words(5, RANDOM_PURPOSE_GENERATE, seq, t, 0, w);
	return t == 0 && f->first_token != 0 ? f->first_token : (int32_t)(w[0] % f->vocab);
}

static void
welcome(struct fake_leases *f)
{
	struct wire_message m = {.type = WIRE_WELCOME, .welcome = {.protocol_version = WIRE_VERSION, .boot_id = {1, f->boot}, .n_shards = 1,
	    .max_message = f->max_message != 0 ? f->max_message : 1 << 20, .lease_ms = 3000, .corpus = {.present = true,
	    .fingerprint = {true, {3, 4}}, .context = f->context, .n_windows = FAKE_SEQS_MAX, .vocab_size = f->vocab}}};
	struct labels_set set = {.corpus = {3, 4}, .teacher = f->model, .compute_class = "fp32/any"};

	f->set.present = true;
	f->set.teacher = (struct wire_id){true, f->model};
	f->set.version = LABELS_VERSION;
	snprintf(f->set.compute_class, sizeof(f->set.compute_class), "%s", set.compute_class);
	for (uint32_t v = 0; v < f->vocab; v++)
		f->table[v] = (uint8_t)(1 + v % 100);
	if (f->set.kind == LABELS_KIND_SAMPLED) {
		if (f->unigram == NULL)
			MUST(labels_unigram_new(&f->unigram, f->table, f->vocab, NULL) == 0);
		m.welcome.unigram = (struct wire_bytes){f->table, f->vocab};
	}
	set.spec = session_label_spec(&f->set, f->context, f->vocab, f->unigram);
	f->set.hash = (struct wire_id){true, labels_set_hash(&set)};
	f->spec = session_label_spec(&f->set, f->context, f->vocab, f->unigram);
	m.welcome.label_set = f->set;
	fake_shard_push(&m, &f->pushed);
}

static void
lease(struct fake_leases *f)
{
	uint64_t seqs[FAKE_SEQS_MAX];
	int32_t *tokens = calloc((size_t)f->n_seqs * (f->context + 1), sizeof(*tokens));
	struct wire_message m = {.type = WIRE_LEASE, .lease = {.lease_id = 100 + f->n_given, .model = f->model, .want_score = f->want_score,
	    .want_label = f->want_label, .seqs = seqs, .n_seqs = f->n_seqs, .tokens = tokens, .context = f->context, .lease_ms = 3000,
	    .n_valid = f->n_valid != 0 ? f->n_valid : f->vocab}};

	MUST(tokens != NULL && (f->n_given + 1) * f->n_seqs <= FAKE_SEQS_MAX);
	for (uint32_t i = 0; i < f->n_seqs; i++) {
		seqs[i] = f->n_given * f->n_seqs + i;
		for (uint32_t t = 0; t <= f->context; t++)
			tokens[i * (f->context + 1) + t] = fake_token(f, seqs[i], t);
	}
	if (f->want_label)
		m.lease.label_set = f->set;
	fake_shard_push(&m, &f->pushed);
	f->n_given++;
	free(tokens);
}

static void
copy(uint8_t **to, size_t *n, const struct wire_bytes *from)
{
	free(*to);
	*to = NULL;
	*n = from->len;
	if (from->len > 0) {
		MUST((*to = malloc(from->len)) != NULL);
		memcpy(*to, from->bytes, from->len);
	}
}

static void
results(struct fake_leases *f, const struct wire_result *r, size_t len)
{
	uint64_t seqs[FAKE_SEQS_MAX];
	struct wire_message done = {.type = WIRE_DONE, .done = {.lease_id = r->lease_id, .seqs = seqs}};

	f->n_results++;
	f->longest_result = len > f->longest_result ? len : f->longest_result;
	for (size_t i = 0; i < r->n_rows; i++) {
		struct fake_result *k = &f->result[r->rows[i].seq];

		MUST(r->rows[i].seq < FAKE_SEQS_MAX);
		seqs[done.done.n_seqs++] = r->rows[i].seq;
		k->n++;
		copy(&k->scores, &k->n_scores, &r->rows[i].scores);
		copy(&k->label, &k->n_label, &r->rows[i].label);
		snprintf(k->error, sizeof(k->error), "%s", r->rows[i].error);
	}
	if (!f->silent)
		fake_shard_push(&done, &f->pushed);
}

static void
heard(struct fake_leases *f, const struct wire_message *m, size_t len)
{
	switch (m->type) {
	case WIRE_HELLO:
		f->n_hello++;
		f->hello = m->hello;
		welcome(f);
		break;
	case WIRE_LEASE_REQUEST:
		f->credit = m->lease_request.credit;
		f->n_largest_credit = f->credit > f->n_largest_credit ? f->credit : f->n_largest_credit;
		for (; f->credit > 0 && f->n_given < f->n_leases; f->credit--)
			lease(f);
		break;
	case WIRE_RESULT:
		results(f, &m->result, len);
		break;
	case WIRE_LEASE_RENEW:
		f->n_renew++;
		f->progress = m->lease_renew.progress;
		break;
	case WIRE_LEASE_RETURN:
		f->n_returned++;
		break;
	default:
		break;
	}
}

static void
events(struct fake_leases *f, int step)
{
	bool restart = atomic_exchange(&f->restart, false), lost = atomic_exchange(&f->reconnect, false) || restart;

	f->boot += restart;
	fake_shard_events(step, &f->skip_ms, lost, &f->pushed);
	if (atomic_exchange(&f->release, false))
		fake_shard_push(&(struct wire_message){.type = WIRE_RELEASE_TEACHER, .release_teacher = {.reason = "the plan is over"}},
		    &f->pushed);
}

static enum fake_step
script(void *arg, int step)
{
	struct fake_leases *f = arg;
	struct wire_message *m;

	pthread_mutex_lock(&f->lock);
	events(f, step);
	for (size_t len; (m = fake_shard_heard(&f->seen, &len)) != NULL; wire_message_destroy(&m))
		heard(f, m, len);
	pthread_mutex_unlock(&f->lock);
	return f->pushed ? FAKE_GO : FAKE_AGAIN_WHEN_WOKEN;
}

void
fake_leases_start(struct fake_leases *f)
{
	pthread_mutex_init(&f->lock, NULL);
	MUST(f->vocab <= sizeof(f->table) && f->context > 0 && f->n_seqs > 0);
	fake_bus_reset(1000000, script, f);
}

void
fake_leases_end(struct fake_leases *f)
{
	for (size_t i = 0; i < FAKE_SEQS_MAX; i++) {
		free(f->result[i].scores);
		free(f->result[i].label);
	}
	labels_unigram_destroy(&f->unigram);
	pthread_mutex_destroy(&f->lock);
}

bool
fake_until(struct salt *s, struct fake_leases *f, const unsigned *what, unsigned n)
{
	for (int i = 0; i < 10000; i++) {
		unsigned is;

		pthread_mutex_lock(&f->lock);
		is = *what;
		pthread_mutex_unlock(&f->lock);
		if (is >= n)
			return true;
		client__wake(s);
		usleep(1000);
	}
	return false;
}
