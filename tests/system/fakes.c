/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fakes - simulated peers for the system tests of selectord, with the real protocol over real sockets:
 *   fakes files DIR [train=N]
 *        makes the corpora DIR/train (of N tokens) and DIR/held, and DIR/model, a small GPT-2 with random
 *        weights
 *   fakes teacher ENDPOINT DIR [key=value ..]
 *        a teacher whose labels and scores depend on the sequence only. Keys: name=, rows=N (leave
 *        after N sequences), die=SEQ (exit at once when it is leased), slow_ms=N (per sequence), lose=1 (drop
 *        every third result; it is sent again when it is not acknowledged within 500 ms), resend_ms=N (within
 *        N ms instead), fail=N (report an error for every N-th sequence of the corpus), differ=1 (send
 *        another result after the first one of a lease), told=FILE (write a line "label SEQ" or "score SEQ"
 *        for each acknowledged one)
 *   fakes rows ENDPOINT[,ENDPOINT..] DIR first=F count=N [mode=none|salt_ds] [window=] [keep=] [seed=]
 *        [batch=] [total=] [release=STEP] [labels=any] fetches rows F .. F+N-1 of a plan, checks each label,
 *        prints "row seq quarantined" lines; the ENDPOINTs are in shard order
 * Exit code: 0, or 1 with the reason on stderr; 3 if refused.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "base/random/random.h"
#include "fabric/bus/bus.h"
#include "data/corpus/corpus.h"
#include "base/hash/hash.h"
#include "engine/kernels/kernels.h"
#include "data/labels/labels.h"
#include "engine/model/model.h"
#include "engine/weights/weights.h"
#include "fabric/session/session.h"

enum { L = 16, VOCAB = 96, N_TRAIN = 12000, N_HELD = 600 };	/* N_TRAIN: default number of tokens */

static void
die(int rc, const struct err_note *note, const char *what)
{
	char text[1200];

	fprintf(stderr, "fakes: %s: %s\n", what, err_note_str(note, rc, text, sizeof(text)));
	exit(1);
}

static const char *
option(int argc, char **argv, const char *key, const char *otherwise)
{
	size_t n = strlen(key);

	for (int i = 0; i < argc; i++)
		if (strncmp(argv[i], key, n) == 0 && argv[i][n] == '=')
			return argv[i] + n + 1;
	return otherwise;
}

static uint64_t
number(int argc, char **argv, const char *key, uint64_t otherwise)
{
	const char *v = option(argc, argv, key, NULL);

	return v != NULL ? strtoull(v, NULL, 10) : otherwise;
}

/* ---- files ---- */

static void
make_corpus(const char *dir, const char *name, uint32_t seed, size_t n_tokens)
{
	struct corpus_writer_options o = {.vocab = VOCAB, .eod = 0, .tokenizer = {1, 2}};
	struct corpus_writer *w;
	struct err_note note = {0};
	char prefix[512];
	int32_t ids[100];
	uint32_t r[4];
	int rc;

	snprintf(prefix, sizeof(prefix), "%s/%s", dir, name);
	if ((rc = corpus_writer_new(&w, prefix, &o, &note)) != 0)
		die(rc, &note, "corpus");
	for (uint32_t d = 0; corpus_writer_n_tokens(w) < n_tokens; d++) {
		for (uint32_t i = 0; i < 100; i++) {
			random_words(seed, RANDOM_PURPOSE_GENERATE, d, i, 0, r);
			ids[i] = (int32_t)(1 + r[0] % (VOCAB - 1));
		}
		if ((rc = corpus_writer_document(w, ids, 100, 400, &note)) != 0)
			die(rc, &note, "corpus");
	}
	if ((rc = corpus_writer_finish(w, NULL, &note)) != 0)
		die(rc, &note, "corpus");
	corpus_writer_destroy(&w);
}

static int
noise(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	(void)arg;
	(void)note;
	for (uint64_t i = 0; i < count; i++)
		out[i] = (float)((begin + i) % 17) / 100;
	return 0;
}

static int
files(const char *dir, size_t n_train)
{
	struct model_config m = {.family = MODEL_FAMILY_GPT2, .vocab_size = 128, .context = 1024,
	    .d_model = 8, .n_layers = 1, .n_heads = 2, .n_kv_heads = 2, .head_dim = 4, .d_ff = 32,
	    .norm_eps = 1e-5f, .tied = true, .attention_bias = true, .mlp_bias = true,
	    .initializer_range = 0.02f, .bos_id = -1, .eos_id = -1};
	struct err_note note = {0};
	struct model *model;
	char path[512];
	int rc;

	make_corpus(dir, "train", 5, n_train);
	make_corpus(dir, "held", 6, N_HELD);
	snprintf(path, sizeof(path), "%s/model", dir);
	if (mkdir(path, 0777) != 0)
		die(errno, NULL, path);
	if ((rc = weights_config_save(path, &m, WEIGHTS_F32, NULL, &note)) != 0 ||
	    (rc = model_new(&model, &m, &note)) != 0 ||
	    (rc = weights_model_save(path, model, noise, NULL, WEIGHTS_F32, 0, NULL, NULL, &note)) != 0)
		die(rc, &note, "model");
	model_destroy(&model);
	return 0;
}

/* ---- the connection ---- */

struct peer {
	struct bus_poll *poll;
	struct session *session;
	struct session_event event;
	struct labels_unigram *unigram;		/* from the last WELCOME */
};

static void
join(struct peer *p, struct bus *bus, char *const *endpoints, size_t n, const struct wire_hello *hello)
{
	struct session_options o = {.bus = bus, .poll = p->poll = bus_poll_new(bus), .endpoints = endpoints,
	    .n_shards = n, .hello = hello};
	struct err_note note = {0};
	int rc = p->poll != NULL ? session_new(&p->session, &o, &note) : ENOMEM;

	if (rc != 0)
		die(rc, &note, endpoints[0]);
}

static void
part(struct peer *p, const char *reason)
{
	if (reason != NULL)
		session_bye(p->session, reason);
	session_event_free(&p->event);
	session_destroy(&p->session);
	bus_poll_destroy(&p->poll);
	labels_unigram_destroy(&p->unigram);
}

/* Waits up to wait_ms for the next WELCOME or message; NULL: none. Valid until the next call. */
static const struct session_event *
hear(struct peer *p, int64_t wait_ms)
{
	int64_t until = clock_now_ms() + wait_ms, left;
	const struct wire_welcome *w;
	char text[1200];

	for (;;) {
		while (session_next(p->session, &p->event) == 0)
			switch (p->event.kind) {
			case SESSION_WELCOME:
				w = session_welcome(p->session, p->event.shard);
				labels_unigram_destroy(&p->unigram);
				if (w->unigram.len > 0 && labels_unigram_new(&p->unigram, w->unigram.bytes,
				    w->unigram.len, NULL) != 0)
					die(ERR_FORMAT, NULL, "unigram");
				return &p->event;
			case SESSION_MESSAGE:
				return &p->event;
			case SESSION_FAILED:
				fprintf(stderr, "fakes: refused: %s\n",
				    err_note_str(&p->event.note, p->event.rc, text, sizeof(text)));
				exit(3);
			default:
				break;
			}
		if (stop_requested() || (left = until - clock_now_ms()) <= 0)
			return NULL;
		bus_poll_wait(p->poll, left < 50 ? left : 50);
	}
}

/* ---- labels: pure functions of seq and tokens ---- */

static void
make_label(const struct labels_spec *spec, uint64_t seq, const int32_t *tokens, struct labels_buf *buf)
{
	int32_t draws[L * 16];
	struct err_note note = {0};
	uint32_t w[4];
	int rc;

	for (uint32_t i = 0; i < L * spec->n_samples; i++) {
		random_words(3, RANDOM_PURPOSE_GENERATE, seq, i, 1, w);
		draws[i] = (int32_t)(w[0] % VOCAB);
	}
	if ((rc = labels_encode_draws(spec, hash_tokens(tokens, L + 1), draws, buf, &note)) != 0)
		die(rc, &note, "label");
}

static void
make_scores(uint64_t seq, uint8_t *out)
{
	float loss[L];
	int32_t rank[L];
	uint32_t w[4];

	for (uint32_t t = 0; t < L; t++) {
		random_words(4, RANDOM_PURPOSE_GENERATE, seq, t, 2, w);
		loss[t] = (float)(w[0] % 8000) / 1000;
		rank[t] = (int32_t)(w[1] % 14);
	}
	labels_scores_encode(loss, rank, L, out, NULL);
}

struct owed {				/* results not acknowledged */
	uint64_t lease, seq;
	bool want_score, want_label;
	uint8_t scores[3 * L], *label;
	size_t label_len;
	int64_t sent_ms;
	struct owed *next;
};

static void
send_result(struct peer *p, struct owed *o)
{
	struct wire_result_row row = {.seq = o->seq};
	struct wire_message m = {.type = WIRE_RESULT, .result = {o->lease, &row, 1}};

	if (o->want_score)
		row.scores = (struct wire_bytes){o->scores, 3 * L};
	if (o->want_label)
		row.label = (struct wire_bytes){o->label, o->label_len};
	o->sent_ms = clock_now_ms();
	session_send(p->session, 0, &m);
}

static void
drop_owed(struct owed **owed)
{
	for (struct owed *o; (o = *owed) != NULL; free(o)) {
		*owed = o->next;
		free(o->label);
	}
}

/* A fake teacher: its options and state. */
struct teacher {
	struct peer p;
	struct owed *owed;
	uint64_t limit, deadly, slow_ms, lose, differ, resend_ms, fail, n, n_sent;
	FILE *told;
	bool scored[N_TRAIN];
	struct labels_buf buf;
	int64_t asked_ms;
};

static void
done_in(struct teacher *t, const struct wire_done *done)
{
	for (size_t i = 0; i < done->n_seqs; i++)
		for (struct owed **at = &t->owed, *o; (o = *at) != NULL; at = &o->next)
			if (o->lease == done->lease_id && o->seq == done->seqs[i]) {
				if (o->want_score && o->seq < N_TRAIN)
					t->scored[o->seq] = true;
				if (t->told != NULL && o->seq < N_TRAIN && o->want_score)
					fprintf(t->told, "score %" PRIu64 "\n", o->seq);
				if (t->told != NULL && o->want_label)
					fprintf(t->told, "label %" PRIu64 "\n", o->seq);
				if (t->told != NULL)
					fflush(t->told);
				*at = o->next;
				free(o->label);
				free(o);
				break;
			}
	if (t->owed == NULL)
		t->asked_ms = 0;
}

static void
lease_in(struct teacher *t, const struct wire_lease *l)
{
	struct labels_spec spec = session_label_spec(&l->label_set, L, l->n_valid, t->p.unigram);
	int64_t now = clock_now_ms();

	for (size_t i = 0; i < l->n_seqs; i++) {
		struct wire_result_row row = {.seq = l->seqs[i], .error = "not finite"};
		struct owed *o;

		if (t->fail != 0 && CORPUS_SEQ_INDEX(l->seqs[i]) % t->fail == 0) {
			session_send(t->p.session, 0, &(struct wire_message){.type = WIRE_RESULT,
			    .result = {l->lease_id, &row, 1}});
			t->asked_ms = 0;
			continue;
		}
		o = calloc(1, sizeof(*o));
		if (l->seqs[i] == t->deadly || t->n++ >= t->limit)
			_exit(9);
		/* Scores are never deleted, so an acknowledged one must not be requested again. */
		if (l->want_score && l->seqs[i] < N_TRAIN && t->scored[l->seqs[i]]) {
			printf("LOST: seq %" PRIu64 " was acknowledged and is asked for again\n", l->seqs[i]);
			fflush(stdout);
		}
		if (t->slow_ms > 0) {
			stop_sleep_ms((int64_t)t->slow_ms);
			session_send(t->p.session, 0, &(struct wire_message){.type = WIRE_LEASE_RENEW,
			    .lease_renew = {l->lease_id, t->n}});
		}
		o->lease = l->lease_id;
		o->seq = l->seqs[i];
		o->want_score = l->want_score;
		o->want_label = l->want_label;
		make_scores(o->seq, o->scores);
		if (o->want_label) {
			make_label(&spec, o->seq, l->tokens + i * (L + 1), &t->buf);
			o->label = malloc(t->buf.len);
			memcpy(o->label, t->buf.bytes, o->label_len = t->buf.len);
		}
		o->next = t->owed;
		t->owed = o;
		o->sent_ms = now;
		if (t->lose == 0 || t->n_sent++ % 3 != 0)
			send_result(&t->p, o);
		if (t->differ != 0 && i == 0 && l->n_seqs > 1) {
			struct owed other = *o;

			make_scores(o->seq + 1, other.scores);
			if (o->want_label) {
				make_label(&spec, o->seq + 1, l->tokens, &t->buf);
				other.label = t->buf.bytes;
				other.label_len = t->buf.len;
			}
			send_result(&t->p, &other);
		}
	}
}

static int
run_teacher(struct bus *bus, char *endpoint, const char *dir, int argc, char **argv)
{
	static struct teacher t;
	const char *told_path = option(argc, argv, "told", NULL);
	struct kernels_options ko = {KERNELS_BACKEND_AUTO, KERNELS_DTYPE_AUTO, 1};
	struct wire_hello h = {.role = WIRE_ROLE_TEACHER, .max_message = 1 << 20, .n_models = 1};
	struct wire_model *m = &h.models[0];
	const struct session_event *e;
	struct err_note note = {0};
	bool released = false;
	char path[512];
	int rc;

	t.limit = number(argc, argv, "rows", UINT64_MAX);
	t.deadly = number(argc, argv, "die", UINT64_MAX);
	t.slow_ms = number(argc, argv, "slow_ms", 0);
	t.lose = number(argc, argv, "lose", 0);
	t.resend_ms = number(argc, argv, "resend_ms", 500);
	t.differ = number(argc, argv, "differ", 0);
	t.fail = number(argc, argv, "fail", 0);
	t.told = told_path != NULL ? fopen(told_path, "ae") : NULL;
	snprintf(h.name, sizeof(h.name), "%s", option(argc, argv, "name", "fake-teacher"));
	snprintf(path, sizeof(path), "%s/model", dir);
	if ((rc = weights_fingerprint(path, &m->fingerprint, &note)) != 0 ||
	    (rc = kernels_resolve(&ko, m->compute_class, sizeof(m->compute_class), &note)) != 0)
		die(rc, &note, path);
	m->serves_score = m->serves_label = true;
	m->vocab_size = 128;
	m->max_context = 1024;
	join(&t.p, bus, &endpoint, 1, &h);
	while (!stop_requested() && !released) {
		int64_t now;

		e = hear(&t.p, 50);
		now = clock_now_ms();
		if (e != NULL && e->kind == SESSION_WELCOME && e->restarted) {
			/* another selectord process: these leases are invalid */
			drop_owed(&t.owed);
			t.asked_ms = 0;
		}
		if (t.owed == NULL && now - t.asked_ms > 200 &&
		    session_send(t.p.session, 0, &(struct wire_message){.type = WIRE_LEASE_REQUEST,
		    .lease_request = {2}}) == 0)
			t.asked_ms = now;
		for (struct owed *o = t.owed; o != NULL; o = o->next)
			if (now - o->sent_ms > (int64_t)t.resend_ms)
				send_result(&t.p, o);
		if (e == NULL || e->kind != SESSION_MESSAGE)
			continue;
		if (e->message->type == WIRE_RELEASE_TEACHER) {
			printf("released: %s\n", e->message->release_teacher.reason);
			released = true;
		} else if (e->message->type == WIRE_DONE) {
			done_in(&t, &e->message->done);
		} else if (e->message->type == WIRE_LEASE) {
			lease_in(&t, &e->message->lease);
		}
	}
	part(&t.p, "done");
	drop_owed(&t.owed);
	if (t.told != NULL)
		fclose(t.told);
	labels_buf_free(&t.buf);
	return 0;
}

/* ---- a trainer that only fetches ---- */

static void
check_row(const struct corpus *c, const struct labels_spec *spec, const struct wire_row *row, uint64_t g,
    bool any)
{
	struct labels_buf want = {0};
	struct err_note note = {0};
	int32_t tokens[L + 1];
	struct hash128 hash;
	int rc;

	if (row->quarantined)
		return;
	if ((rc = corpus_window(c, row->seq, L, tokens, &note)) != 0)
		die(rc, &note, "window");
	hash = hash_tokens(tokens, L + 1);
	if ((rc = labels_check(spec, &hash, row->label.bytes, row->label.len, &note)) != 0)
		die(rc, &note, "label");
	if (any)
		return;
	make_label(spec, row->seq, tokens, &want);
	if (want.len != row->label.len || memcmp(want.bytes, row->label.bytes, want.len) != 0) {
		fprintf(stderr, "fakes: row %" PRIu64 ": not the label of seq %" PRIu64 "\n", g, row->seq);
		exit(1);
	}
	labels_buf_free(&want);
}

static int
run_rows(struct bus *bus, char *endpoints, const char *dir, int argc, char **argv)
{
	uint64_t first = number(argc, argv, "first", 0), count = number(argc, argv, "count", 1), at = first,
	    K, timeout = number(argc, argv, "timeout", 20);
	const char *mode = option(argc, argv, "mode", "none"), *release = option(argc, argv, "release", NULL);
	struct wire_hello h = {.role = WIRE_ROLE_TRAINER, .name = "fake-trainer",
	    .max_message = (uint32_t)number(argc, argv, "max_message", 1 << 20)};
	const struct session_event *e;
	const struct wire_welcome *w = NULL;
	char *endpoint[8];
	struct peer p = {0};
	struct corpus *train = NULL, *held = NULL;
	struct err_note note = {0};
	struct hash128 train_hash, held_hash;
	struct labels_spec spec;
	char path[512], *save = NULL;
	size_t n_shards = 0;
	int64_t until = clock_now_ms() + (int64_t)timeout * 1000;
	bool any = strcmp(option(argc, argv, "labels", "fake"), "any") == 0, *have = calloc(count, 1),
	    released = release == NULL;
	struct { uint64_t seq; bool quarantined; } *rows = calloc(count, sizeof(*rows));
	int rc;

	snprintf(path, sizeof(path), "%s/train", dir);
	if ((rc = corpus_open(&train, path, &note)) != 0 ||
	    (rc = corpus_fingerprint(train, &train_hash, &note)) != 0)
		die(rc, &note, path);
	snprintf(path, sizeof(path), "%s/held", dir);
	if ((rc = corpus_open(&held, path, &note)) != 0 ||
	    (rc = corpus_fingerprint(held, &held_hash, &note)) != 0)
		die(rc, &note, path);
	for (char *at_comma = strtok_r(endpoints, ",", &save); at_comma != NULL &&
	    n_shards < 8; at_comma = strtok_r(NULL, ",", &save))
		endpoint[n_shards++] = at_comma;
	h.corpus = (struct wire_corpus){true, {true, train_hash}, L, corpus_n_windows(train, L),
	    {true, {1, 2}}, VOCAB};
	h.heldout = (struct wire_corpus){true, {true, held_hash}, L, corpus_n_windows(held, L),
	    {true, {1, 2}}, VOCAB};
	h.plan = (struct wire_plan){.present = true, .seed = (uint32_t)number(argc, argv, "seed", 1),
	    .batch = (uint32_t)number(argc, argv, "batch", 8), .mode = strcmp(mode, "none") == 0 ?
	    WIRE_MODE_NONE : WIRE_MODE_SALT_DS, .k = 10, .window = number(argc, argv, "window", 16),
	    .keep = strtod(option(argc, argv, "keep", "0.5"), NULL), .n_rows = number(argc, argv, "total",
	    first + count), .label_ahead_rows = number(argc, argv, "ahead", 64)};
	join(&p, bus, endpoint, n_shards, &h);
	K = h.plan.window;
	if (h.plan.mode == WIRE_MODE_SALT_DS)
		K = (uint64_t)floor(h.plan.keep * (double)K + 1e-9);
	for (int64_t asked_ms = 0; clock_now_ms() < until && !stop_requested();) {
		int64_t now = clock_now_ms();

		while (at < first + count && have[at - first])
			at++;
		if (at == first + count && released)
			break;
		if (now - asked_ms > 300 && session_welcomed(p.session, 0)) {
			asked_ms = now;
			/* requests every missing range of the next few blocks from its shard */
			for (uint64_t g = at, n = 0; g < first + count && n < 8; n++) {
				uint64_t block = g / K, end = (block + 1) * K < first + count ?
				    (block + 1) * K : first + count;
				size_t shard = (size_t)(block % n_shards);

				while (g < end && have[g - first])
					g++;
				if (g < end && session_welcomed(p.session, shard))
					session_send(p.session, shard,
					    &(struct wire_message){.type = WIRE_ROWS_REQUEST,
					    .rows_request = {g + 1, session_welcome(p.session,
					    shard)->plan_hash.hash, g, (uint32_t)(end - g), g / 8}});
				g = end;
			}
			if (at == first + count)
				session_send(p.session, 0, &(struct wire_message){.type = WIRE_RELEASE,
				    .release = {1, session_welcome(p.session, 0)->plan_hash.hash,
				    strtoull(release, NULL, 10)}});
		}
		while ((e = hear(&p, 20)) != NULL) {
			const struct wire_message *m = e->message;

			if (e->kind != SESSION_MESSAGE)
				continue;
			w = session_welcome(p.session, e->shard);
			spec = session_label_spec(&w->label_set, L, VOCAB, p.unigram);
			if (m->type == WIRE_ACK)
				released = true;
			for (size_t r = 0; m->type == WIRE_ROWS && r < m->rows.n_rows; r++) {
				uint64_t g = m->rows.first_row + r;

				if (g < first || g >= first + count) {
					fprintf(stderr, "fakes: row %" PRIu64 " was not asked for\n", g);
					return 1;
				}
				check_row(train, &spec, &m->rows.rows[r], g, any);
				if (have[g - first] && rows[g - first].seq != m->rows.rows[r].seq) {
					fprintf(stderr, "fakes: row %" PRIu64 " changed\n", g);
					return 1;
				}
				have[g - first] = true;
				rows[g - first].seq = m->rows.rows[r].seq;
				rows[g - first].quarantined = m->rows.rows[r].quarantined;
				asked_ms = 0;
			}
		}
	}
	for (uint64_t i = 0; i < count; i++) {
		if (!have[i]) {
			fprintf(stderr, "fakes: row %" PRIu64 " did not come in %" PRIu64 " s\n", first + i,
			    timeout);
			exit(1);
		}
		printf("%" PRIu64 " %" PRIu64 " %d\n", first + i, rows[i].seq, rows[i].quarantined);
	}
	w = session_welcome(p.session, 0);
	fprintf(stderr, "heldout_loss_nats %.6f\n", w != NULL ? w->heldout_loss_nats : NAN);
	free(rows);
	free(have);
	corpus_destroy(&train);
	corpus_destroy(&held);
	part(&p, NULL);
	return 0;
}

int
main(int argc, char **argv)
{
	struct bus_options o = {.role = BUS_ROLE_CLIENT};
	struct err_note note = {0};
	struct bus *bus;
	int rc;

	if (argc >= 3 && strcmp(argv[1], "files") == 0)
		return files(argv[2], number(argc - 3, argv + 3, "train", N_TRAIN));
	if (argc < 4 || (strcmp(argv[1], "teacher") != 0 && strcmp(argv[1], "rows") != 0)) {
		fprintf(stderr, "usage: fakes files DIR | teacher ENDPOINT DIR .. | rows ENDPOINTS DIR ..\n");
		return 64;
	}
	stop_install();
	if ((rc = bus_new(&bus, &o, &note)) != 0)
		die(rc, &note, "bus");
	rc = strcmp(argv[1], "teacher") == 0 ? run_teacher(bus, argv[2], argv[3], argc - 4, argv + 4) :
	    run_rows(bus, argv[2], argv[3], argc - 4, argv + 4);
	bus_destroy(&bus);
	return rc;
}
