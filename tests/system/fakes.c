/*
 * fakes - stand-ins for the system tests of selectord, which speak the real protocol over real sockets:
 *   fakes files DIR                             DIR/train, DIR/held (corpora), DIR/model (a small GPT-2 with random weights)
 *   fakes teacher ENDPOINT DIR [key=value ..]   made-up labels and scores, pure functions of the sequence
 *        name=, rows=N (leave after N sequences), die=SEQ (exit at once when it is leased), slow_ms=N (per sequence), lose=1 (drop every
 *        third result, sent again only when it is not acknowledged in 500 ms), told=FILE (a line "label SEQ" or "score SEQ" for each that was
 *        acknowledged)
 *   fakes rows ENDPOINT[,ENDPOINT..] DIR first=F count=N [mode=none|salt_ds] [window=] [keep=] [seed=] [batch=] [total=] [release=STEP]
 *        [labels=any]
 *        fetches rows F .. F+N-1 of a plan, checks each label, prints "row seq quarantined" lines; ENDPOINTs in shard order
 * Exit: 0, or 1 with the reason on stderr; 3 when refused.
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
#include "fabric/wire/wire.h"

enum { L = 16, VOCAB = 96, N_TRAIN = 12000, N_HELD = 600 };

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
files(const char *dir)
{
	struct model_config m = {.family = MODEL_FAMILY_GPT2, .vocab_size = 128, .context = 1024, .d_model = 8, .n_layers = 1, .n_heads = 2,
	    .n_kv_heads = 2, .head_dim = 4, .d_ff = 32, .norm_eps = 1e-5f, .tied = true, .attention_bias = true, .mlp_bias = true,
	    .initializer_range = 0.02f, .bos_id = -1, .eos_id = -1};
	struct err_note note = {0};
	struct model *model;
	char path[512];
	int rc;

	make_corpus(dir, "train", 5, N_TRAIN);
	make_corpus(dir, "held", 6, N_HELD);
	snprintf(path, sizeof(path), "%s/model", dir);
	if (mkdir(path, 0777) != 0)
		die(errno, NULL, path);
	if ((rc = weights_config_save(path, &m, WEIGHTS_F32, NULL, &note)) != 0 || (rc = model_new(&model, &m, &note)) != 0 ||
	    (rc = weights_model_save(path, model, noise, NULL, WEIGHTS_F32, 0, NULL, NULL, &note)) != 0)
		die(rc, &note, "model");
	model_destroy(&model);
	return 0;
}

/* ---- the connection ---- */

struct peer {
	struct bus *bus;
	struct bus_client *client;
	struct bus_poll *poll;
	struct wire_message hello;
	uint32_t max_message;
	bool welcome;
	struct wire_welcome last_welcome;
	struct labels_unigram *unigram;		/* of last_welcome */
};

static void
tell(struct peer *p, const struct wire_message *m)
{
	struct err_note note = {0};
	uint8_t *frame;
	size_t len;
	int rc = wire_encode(m, p->max_message, &frame, &len, &note);

	if (rc != 0)
		die(rc, &note, wire_type_name(m->type));
	bus_client_send(p->client, frame, len);		/* lost ones are asked again */
}

static void
join(struct peer *p, struct bus *bus, const char *endpoint)
{
	struct err_note note = {0};
	int rc;

	p->bus = bus;
	p->max_message = 1 << 20;
	if ((rc = bus_client_new(&p->client, bus, endpoint, NULL, &note)) != 0)
		die(rc, &note, endpoint);
	if ((p->poll = bus_poll_new(bus)) == NULL || bus_poll_add_client(p->poll, p->client) != 0)
		die(ENOMEM, NULL, "poll");
}

/* The next message of interest, or NULL after wait_ms. HELLO is said at each connection, and again when asked for. */
static struct wire_message *
hear(struct peer *p, int64_t wait_ms)
{
	int64_t until = clock_now_ms() + wait_ms;
	struct bus_event e;

	for (;;) {
		while (bus_client_recv(p->client, &e) == 0) {
			struct wire_message *m = NULL;
			struct err_note note = {0};
			char text[1200];
			int rc = 0;

			if (e.kind == BUS_EVENT_CONNECTED)
				tell(p, &p->hello);
			else if (e.kind == BUS_EVENT_FRAME)
				rc = wire_decode(e.frame, e.len, &m, &note);
			bus_event_free(&e);
			if (rc != 0)
				die(rc, &note, "frame from selectord");
			if (m == NULL)
				continue;
			if (m->type == WIRE_WELCOME) {
				p->welcome = true;
				p->last_welcome = m->welcome;
				labels_unigram_destroy(&p->unigram);
				if (m->welcome.unigram.len > 0 &&
				    labels_unigram_new(&p->unigram, m->welcome.unigram.bytes, m->welcome.unigram.len, NULL) != 0)
					die(ERR_FORMAT, NULL, "unigram");
			} else if (m->type == WIRE_REFUSE) {
				fprintf(stderr, "fakes: refused: %s\n", wire_refuse_str(&m->refuse, text, sizeof(text)));
				if (m->refuse.retry_ms == 0)
					exit(3);
				p->welcome = false;
				stop_sleep_ms(m->refuse.retry_ms);
				tell(p, &p->hello);
			} else if (m->type != WIRE_PONG) {
				return m;
			}
			wire_message_destroy(&m);
			if (wait_ms == 0)
				return NULL;
		}
		if (stop_requested() || clock_now_ms() >= until)
			return NULL;
		bus_poll_wait(p->poll, until - clock_now_ms() < 50 ? until - clock_now_ms() : 50);
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
tell_result(struct peer *p, struct owed *o)
{
	struct wire_result_row row = {.seq = o->seq};
	struct wire_message m = {.type = WIRE_RESULT, .result = {o->lease, &row, 1}};

	if (o->want_score)
		row.scores = (struct wire_bytes){o->scores, 3 * L};
	if (o->want_label)
		row.label = (struct wire_bytes){o->label, o->label_len};
	o->sent_ms = clock_now_ms();
	tell(p, &m);
}

static int
run_teacher(struct bus *bus, const char *endpoint, const char *dir, int argc, char **argv)
{
	uint64_t limit = number(argc, argv, "rows", UINT64_MAX), deadly = number(argc, argv, "die", UINT64_MAX), n = 0, n_sent = 0;
	uint64_t slow_ms = number(argc, argv, "slow_ms", 0), lose = number(argc, argv, "lose", 0);
	const char *told_path = option(argc, argv, "told", NULL);
	FILE *told = told_path != NULL ? fopen(told_path, "ae") : NULL;
	struct labels_buf buf = {0};
	struct owed *owed = NULL;
	bool *scored = calloc(N_TRAIN, 1);
	struct kernels_options ko = {KERNELS_BACKEND_AUTO, KERNELS_DTYPE_AUTO, 1};
	struct peer p = {0};
	struct wire_hello *h = &p.hello.hello;
	struct err_note note = {0};
	struct hash128 boot = {0};
	char path[512];
	int64_t asked_ms = 0;
	int rc;

	p.hello.type = WIRE_HELLO;
	h->role = WIRE_ROLE_TEACHER;
	h->boot_id = bus_boot_id();
	h->max_message = 1 << 20;
	snprintf(h->name, sizeof(h->name), "%s", option(argc, argv, "name", "fake-teacher"));
	h->n_models = 1;
	snprintf(path, sizeof(path), "%s/model", dir);
	if ((rc = weights_fingerprint(path, &h->models[0].fingerprint, &note)) != 0 ||
	    (rc = kernels_resolve(&ko, h->models[0].compute_class, sizeof(h->models[0].compute_class), &note)) != 0)
		die(rc, &note, path);
	h->models[0].serves_score = h->models[0].serves_label = true;
	h->models[0].vocab_size = 128;
	h->models[0].max_context = 1024;
	join(&p, bus, endpoint);
	while (!stop_requested()) {
		struct wire_message *m = hear(&p, 50);
		int64_t now = clock_now_ms();

		if (p.welcome && !hash_equal(boot, p.last_welcome.boot_id)) {
			boot = p.last_welcome.boot_id;		/* another selectord: its leases are not these */
			for (struct owed *o; (o = owed) != NULL; free(o)) {
				owed = o->next;
				free(o->label);
			}
			asked_ms = 0;
		}
		if (p.welcome && owed == NULL && now - asked_ms > 200) {
			tell(&p, &(struct wire_message){.type = WIRE_LEASE_REQUEST, .lease_request = {2}});
			asked_ms = now;
		}
		for (struct owed *o = owed; o != NULL; o = o->next)
			if (now - o->sent_ms > 500)
				tell_result(&p, o);
		if (m == NULL)
			continue;
		if (m->type == WIRE_RELEASE_TEACHER) {
			printf("released: %s\n", m->release_teacher.reason);
			wire_message_destroy(&m);
			break;
		}
		if (m->type == WIRE_DONE)
			for (size_t i = 0; i < m->done.n_seqs; i++)
				for (struct owed **at = &owed, *o; (o = *at) != NULL; at = &o->next)
					if (o->lease == m->done.lease_id && o->seq == m->done.seqs[i]) {
						if (o->want_score && o->seq < N_TRAIN)
							scored[o->seq] = true;
						if (told != NULL && o->seq < N_TRAIN && o->want_score)
							fprintf(told, "score %" PRIu64 "\n", o->seq);
						if (told != NULL && o->want_label)
							fprintf(told, "label %" PRIu64 "\n", o->seq);
						if (told != NULL)
							fflush(told);
						*at = o->next;
						free(o->label);
						free(o);
						break;
					}
		if (m->type == WIRE_DONE && owed == NULL)
			asked_ms = 0;
		for (size_t i = 0; m->type == WIRE_LEASE && i < m->lease.n_seqs; i++) {
			const struct wire_lease *l = &m->lease;
			struct labels_spec spec = {.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = L, .vocab = l->n_valid,
			    .n_samples = l->label_set.n, .seed = l->label_set.seed, .tau = (double)l->label_set.tau,
			    .unigram = p.unigram, .set = l->label_set.hash.hash};
			struct owed *o = calloc(1, sizeof(*o));

			if (l->seqs[i] == deadly || n++ >= limit)
				_exit(9);
			/* Scores are never taken away: what was acknowledged once must not be asked for again. */
			if (l->want_score && l->seqs[i] < N_TRAIN && scored[l->seqs[i]]) {
				printf("LOST: seq %" PRIu64 " was acknowledged and is asked for again\n", l->seqs[i]);
				fflush(stdout);
			}
			if (slow_ms > 0) {
				stop_sleep_ms((int64_t)slow_ms);
				tell(&p, &(struct wire_message){.type = WIRE_LEASE_RENEW, .lease_renew = {l->lease_id, n}});
			}
			o->lease = l->lease_id;
			o->seq = l->seqs[i];
			o->want_score = l->want_score;
			o->want_label = l->want_label;
			make_scores(o->seq, o->scores);
			if (o->want_label) {
				make_label(&spec, o->seq, l->tokens + i * (L + 1), &buf);
				o->label = malloc(buf.len);
				memcpy(o->label, buf.bytes, o->label_len = buf.len);
			}
			o->next = owed;
			owed = o;
			o->sent_ms = now;
			if (lose == 0 || n_sent++ % 3 != 0)
				tell_result(&p, o);
		}
		wire_message_destroy(&m);
	}
	if (p.welcome)
		tell(&p, &(struct wire_message){.type = WIRE_BYE, .bye = {"done"}});
	for (struct owed *o; (o = owed) != NULL; free(o)) {
		owed = o->next;
		free(o->label);
	}
	free(scored);
	if (told != NULL)
		fclose(told);
	labels_buf_free(&buf);
	bus_poll_destroy(&p.poll);
	bus_client_destroy(&p.client);
	labels_unigram_destroy(&p.unigram);
	return 0;
}

/* ---- a trainer that only fetches ---- */

static void
check_row(const struct corpus *c, const struct labels_spec *spec, const struct wire_row *row, uint64_t g, bool any)
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
	uint64_t first = number(argc, argv, "first", 0), count = number(argc, argv, "count", 1), at = first, K, timeout = number(argc, argv, "timeout", 20);
	const char *mode = option(argc, argv, "mode", "none"), *release = option(argc, argv, "release", NULL);
	struct peer p[8] = {0};
	struct corpus *train = NULL, *held = NULL;
	struct err_note note = {0};
	struct hash128 train_hash, held_hash;
	struct labels_spec spec;
	char path[512], *save = NULL;
	size_t n_peers = 0;
	int64_t until = clock_now_ms() + (int64_t)timeout * 1000;
	bool any = strcmp(option(argc, argv, "labels", "fake"), "any") == 0, *have = calloc(count, 1), released = release == NULL;
	struct { uint64_t seq; bool quarantined; } *rows = calloc(count, sizeof(*rows));
	int rc;

	snprintf(path, sizeof(path), "%s/train", dir);
	if ((rc = corpus_open(&train, path, &note)) != 0 || (rc = corpus_fingerprint(train, &train_hash, &note)) != 0)
		die(rc, &note, path);
	snprintf(path, sizeof(path), "%s/held", dir);
	if ((rc = corpus_open(&held, path, &note)) != 0 || (rc = corpus_fingerprint(held, &held_hash, &note)) != 0)
		die(rc, &note, path);
	for (char *e = strtok_r(endpoints, ",", &save); e != NULL && n_peers < 8; e = strtok_r(NULL, ",", &save)) {
		struct wire_hello *h = &p[n_peers].hello.hello;

		p[n_peers].hello.type = WIRE_HELLO;
		h->role = WIRE_ROLE_TRAINER;
		h->boot_id = bus_boot_id();
		snprintf(h->name, sizeof(h->name), "fake-trainer");
		h->max_message = (uint32_t)number(argc, argv, "max_message", 1 << 20);
		h->corpus = (struct wire_corpus){true, {true, train_hash}, L, corpus_n_windows(train, L), {true, {1, 2}}, VOCAB};
		h->heldout = (struct wire_corpus){true, {true, held_hash}, L, corpus_n_windows(held, L), {true, {1, 2}}, VOCAB};
		h->plan = (struct wire_plan){.present = true, .seed = (uint32_t)number(argc, argv, "seed", 1),
		    .batch = (uint32_t)number(argc, argv, "batch", 8), .mode = strcmp(mode, "none") == 0 ? WIRE_MODE_NONE : WIRE_MODE_SALT_DS, .k = 10,
		    .window = number(argc, argv, "window", 16), .keep = strtod(option(argc, argv, "keep", "0.5"), NULL),
		    .n_rows = number(argc, argv, "total", first + count), .label_ahead_rows = number(argc, argv, "ahead", 64)};
		join(&p[n_peers++], bus, e);
	}
	K = p[0].hello.hello.plan.window;
	if (p[0].hello.hello.plan.mode == WIRE_MODE_SALT_DS)
		K = (uint64_t)floor(p[0].hello.hello.plan.keep * (double)K + 1e-9);
	for (int64_t asked_ms = 0; clock_now_ms() < until && !stop_requested();) {
		int64_t now = clock_now_ms();

		while (at < first + count && have[at - first])
			at++;
		if (at == first + count && released)
			break;
		if (now - asked_ms > 300 && p[0].welcome) {
			asked_ms = now;
			/* every missing stretch of the next few blocks, of the shard that has it */
			for (uint64_t g = at, n = 0; g < first + count && n < 8; n++) {
				uint64_t block = g / K, end = (block + 1) * K < first + count ? (block + 1) * K : first + count;
				struct peer *to = &p[block % n_peers];

				while (g < end && have[g - first])
					g++;
				if (g < end && to->welcome)
					tell(to, &(struct wire_message){.type = WIRE_ROWS_REQUEST, .rows_request = {g + 1, to->last_welcome.plan_hash.hash, g,
					    (uint32_t)(end - g), g / 8}});
				g = end;
			}
			if (at == first + count)
				tell(&p[0], &(struct wire_message){.type = WIRE_RELEASE, .release = {1, p[0].last_welcome.plan_hash.hash, strtoull(release, NULL, 10)}});
		}
		for (size_t i = 0; i < n_peers; i++) {
			struct wire_message *m;

			while ((m = hear(&p[i], n_peers == 1 ? 20 : 5)) != NULL) {
				const struct wire_label_set *ls = &p[i].last_welcome.label_set;

				spec = (struct labels_spec){.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = L, .vocab = VOCAB,
				    .n_samples = ls->n, .seed = ls->seed, .tau = (double)ls->tau, .unigram = p[i].unigram, .set = ls->hash.hash};
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
				wire_message_destroy(&m);
			}
		}
	}
	for (uint64_t i = 0; i < count; i++) {
		if (!have[i]) {
			fprintf(stderr, "fakes: row %" PRIu64 " did not come in %" PRIu64 " s\n", first + i, timeout);
			exit(1);
		}
		printf("%" PRIu64 " %" PRIu64 " %d\n", first + i, rows[i].seq, rows[i].quarantined);
	}
	fprintf(stderr, "heldout_loss_nats %.6f\n", p[0].last_welcome.heldout_loss_nats);
	free(rows);
	free(have);
	corpus_destroy(&train);
	corpus_destroy(&held);
	for (size_t i = 0; i < n_peers; i++) {
		bus_poll_destroy(&p[i].poll);
		bus_client_destroy(&p[i].client);
		labels_unigram_destroy(&p[i].unigram);
	}
	return 0;
}

int
main(int argc, char **argv)
{
	struct bus_options o = {.role = BUS_ROLE_CLIENT};
	struct err_note note = {0};
	struct bus *bus;
	int rc;

	if (argc == 3 && strcmp(argv[1], "files") == 0)
		return files(argv[2]);
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
