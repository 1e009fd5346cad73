/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_selector_load [--dir DIR] [--context L] [--record BYTES] [--tokens N] [--serve SECONDS]
 *     [--set key=value ...] [--json FILE] [--keep] [--shards S --pace MB_S]
 *
 * Measures a real selectord (the program in the same folder) on loopback TCP. Eight simulated teachers and
 * eight simulated trainers share one thread of this process; their records are made before, and only token
 * hash and checksum are new for each sequence. DIR must be on the file system that is to be measured; about
 * 1.4 x N x BYTES / L bytes of it are used, and freed at the end.
 *
 *   1. bare LMDB: as many records as part 2 writes at first, up to 40,000, by one thread without other work
 *   2. ingest: teachers request leases, answer at once, and count the acknowledged sequences, which are on
 *      disk; the map begins at 64 MiB
 *   3. serve: trainers request rows that are ready, each with two requests of eight rows in flight; teachers
 *      continue at half the rate of part 2
 *   4. ingest continues up to N tokens
 *
 * With --pace it runs only part 2, on S selectords whose disks are slowed to MB_S each (pace.c), and prints
 * one line, "shards TOKENS_S"; see shards.sh.
 *
 * Anonymous memory of selectord is read after 1 M and after N tokens, each time after nothing has been in
 * flight for three seconds.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "fabric/bus/bus.h"
#include "fabric/session/session.h"
#include "data/corpus/corpus.h"
#include "base/json/json.h"
#include "engine/kernels/kernels.h"
#include "load.h"
#include "engine/weights/weights.h"

enum { TEACHERS = 8, TRAINERS = 8, IN_FLIGHT = 2, ASK_ROWS = 8, LEASE_ROWS = 8, CREDIT = 64, WINDOW = 512,
    SHARDS_MAX = 8, TURNS = 4, LATENCIES_MAX = 1 << 20 };

struct sim {
	struct session *session;
	size_t n_leases;				/* teacher: leases held and not acknowledged */
	size_t credit;					/* teacher: leases requested and not received yet */
	double sent[IN_FLIGHT];				/* trainer: when each request was sent; 0: none */
	uint64_t first[IN_FLIGHT];
};

struct load {
	struct bus *bus;
	struct bus_poll *poll;
	struct sim teacher[TEACHERS], trainer[TRAINERS], watcher[SHARDS_MAX];
	int n_shards;
	size_t most;					/* most leases of a teacher */
	struct records records;
	uint8_t *room[LEASE_ROWS];
	struct hash128 plan, corpus_hash;
	uint64_t n_windows, n_acked, n_leased, limit, rows_ready, n_served, n_checked;
	double bytes_acked;
	double rate, rate_from;				/* rows per second since then; rate 0: no limit */
	uint64_t rate_base;
	bool serving;
	float *latency;					/* [LATENCIES_MAX], ms */
	size_t n_latencies;
	uint64_t random;
	pid_t selectord;
	struct corpus *corpus;
	int32_t *tokens;
};

double
seconds_now(void)
{
	return clock_now_s();
}

static pid_t child, others[SHARDS_MAX];		/* child: shard 0 */

void
die(int rc, const struct err_note *note, const char *what)
{
	char text[1200];

	fprintf(stderr, "bench_selector_load: %s: %s\n", what, err_note_str(note, rc, text, sizeof(text)));
	if (child > 0)
		kill(child, SIGKILL);
	for (int i = 1; i < SHARDS_MAX; i++)
		if (others[i] > 0)
			kill(others[i], SIGKILL);
	exit(1);
}

static void
tell(struct sim *s, const struct wire_message *m)
{
	int rc = session_send(s->session, 0, m);

	if (rc != 0)
		die(rc, NULL, wire_type_name(m->type));
}

/* ---- teachers ---- */

static void
lease_in(struct load *l, struct sim *s, const struct wire_lease *lease)
{
	struct wire_result_row rows[LEASE_ROWS] = {{0}};
	struct wire_message m = {.type = WIRE_RESULT, .result = {lease->lease_id, rows, lease->n_seqs}};
	uint32_t L = lease->context;

	if (lease->n_seqs > LEASE_ROWS || !lease->want_label || lease->want_score)
		die(ERR_FORMAT, NULL, "a lease that was not expected");
	for (size_t i = 0; i < lease->n_seqs; i++) {
		size_t len = records_patch(&l->records, lease->seqs[i],
		    hash_tokens(lease->tokens + i * (L + 1), L + 1), l->room[i]);

		rows[i].seq = lease->seqs[i];
		rows[i].label = (struct wire_bytes){l->room[i], len};
	}
	s->n_leases++;
	s->credit -= s->credit > 0;
	l->n_leased += lease->n_seqs;
	tell(s, &m);
}

static void
done_in(struct load *l, struct sim *s, const struct wire_done *done)
{
	s->n_leases--;
	l->n_acked += done->n_seqs;
	l->bytes_acked += (double)done->n_seqs * l->records.mean_len;
}

static void
teachers_ask(struct load *l)
{
	for (int i = 0; i < TEACHERS; i++) {
		struct sim *s = &l->teacher[i];
		uint64_t may = l->limit;
		size_t credit = l->most - s->n_leases;

		if (l->rate > 0) {
			uint64_t paced = l->rate_base + (uint64_t)(l->rate * (seconds_now() - l->rate_from));

			may = paced < may ? paced : may;
		}
		if (!session_welcomed(s->session, 0) || s->credit > 0 || credit == 0 || l->n_leased >= may)
			continue;
		if ((may - l->n_leased) / LEASE_ROWS / TEACHERS < credit)
			credit = (may - l->n_leased) / LEASE_ROWS / TEACHERS + 1;
		tell(s, &(struct wire_message){.type = WIRE_LEASE_REQUEST,
		    .lease_request = {(uint32_t)credit}});
		s->credit = credit;
	}
}

/* ---- trainers ---- */

static void
trainer_ask(struct load *l, struct sim *s, int slot)
{
	l->random = l->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	s->first[slot] = (l->random >> 20) % (l->rows_ready / ASK_ROWS) * ASK_ROWS;
	s->sent[slot] = seconds_now();
	tell(s, &(struct wire_message){.type = WIRE_ROWS_REQUEST,
	    .rows_request = {(uint64_t)slot + 1, l->plan, s->first[slot], ASK_ROWS, 0}});
}

static void
rows_in(struct load *l, struct sim *s, const struct wire_rows *rows)
{
	uint32_t L = l->records.spec.context;
	struct err_note note = {0};
	struct hash128 hash;
	int slot = (int)rows->request_id - 1, rc;

	if (slot < 0 || slot >= IN_FLIGHT || s->sent[slot] == 0 || rows->first_row != s->first[slot] ||
	    rows->n_rows != ASK_ROWS)
		die(ERR_FORMAT, NULL, "rows that were not asked for");
	if (l->n_latencies < LATENCIES_MAX)
		l->latency[l->n_latencies++] = (float)((seconds_now() - s->sent[slot]) * 1000);
	s->sent[slot] = 0;
	l->n_served += rows->n_rows;
	if (l->n_latencies % 64 == 0) {			/* a row of every 64th answer is checked */
		const struct wire_row *row = &rows->rows[l->n_latencies / 64 % ASK_ROWS];

		if ((rc = corpus_window(l->corpus, row->seq, L, l->tokens, &note)) != 0)
			die(rc, &note, "window");
		hash = hash_tokens(l->tokens, L + 1);
		if ((rc = labels_check(&l->records.spec, &hash, row->label.bytes, row->label.len,
		    &note)) != 0)
			die(rc, &note, "a served label");
		l->n_checked++;
	}
	if (l->serving)
		trainer_ask(l, s, slot);
}

/* ---- teachers and trainers ---- */

static void
drain(struct load *l, struct sim *s)
{
	struct session_event e = {0};

	while (session_next(s->session, &e) == 0) {
		const struct wire_welcome *w;

		switch (e.kind) {
		case SESSION_WELCOME:
			w = session_welcome(s->session, 0);
			l->records.spec.set = w->label_set.hash.hash;
			if (w->plan_hash.known)
				l->plan = w->plan_hash.hash;
			l->rows_ready = w->rows_ready;
			break;
		case SESSION_MESSAGE:
			if (e.message->type == WIRE_LEASE)
				lease_in(l, s, &e.message->lease);
			else if (e.message->type == WIRE_DONE)
				done_in(l, s, &e.message->done);
			else if (e.message->type == WIRE_ROWS)
				rows_in(l, s, &e.message->rows);
			break;
		case SESSION_FAILED:
			die(e.rc, &e.note, "session");
		default:
			break;
		}
	}
}

static void
turn(struct load *l)
{
	int status;

	bus_poll_wait(l->poll, l->rate > 0 ? 1 : 20);
	for (int i = 0; i < TEACHERS; i++)
		drain(l, &l->teacher[i]);
	for (int i = 0; i < TRAINERS; i++)
		if (l->trainer[i].session != NULL)
			drain(l, &l->trainer[i]);
	for (int i = 0; i < l->n_shards; i++)
		drain(l, &l->watcher[i]);
	teachers_ask(l);
	if (waitpid(child, &status, WNOHANG) == child) {
		child = 0;
		die(ERR_CLOSED, NULL, "selectord ended");
	}
}

/* Works until limit sequences are acknowledged. */
static void
ingest(struct load *l, uint64_t limit)
{
	l->limit = limit;
	while (l->n_acked < limit)
		turn(l);
}

static void
sim_new(struct load *l, struct sim *s, char *endpoint, struct wire_hello *h, const char *name, int no)
{
	struct session_options so = {.bus = l->bus, .poll = l->poll, .endpoints = &endpoint, .n_shards = 1,
	    .hello = h};
	struct err_note note = {0};
	int rc;

	h->boot_id = (struct hash128){bus_boot_id().hi, (uint64_t)h->role * 100 + (uint64_t)no};
	snprintf(h->name, sizeof(h->name), "%s%d", name, no);
	if ((rc = session_new(&s->session, &so, &note)) != 0)
		die(rc, &note, endpoint);
}

static void
sims_new(struct load *l, char endpoint[][256], const char *dir)
{
	struct kernels_options ko = {KERNELS_BACKEND_AUTO, KERNELS_DTYPE_AUTO, 1};
	uint32_t L = l->records.spec.context;
	struct wire_hello teacher = {.role = WIRE_ROLE_TEACHER, .max_message = 16 << 20, .n_models = 1,
	    .models = {{.serves_score = true, .serves_label = true, .vocab_size = VOCAB, .max_context = L}}};
	struct wire_hello other = {.max_message = 16 << 20,
	    .corpus = {true, {true, l->corpus_hash}, L, l->n_windows, {true, {1, 2}}, VOCAB},
	    .plan = {.present = true, .seed = 1, .batch = 8, .mode = WIRE_MODE_NONE, .window = WINDOW,
	    .n_rows = l->n_windows, .label_ahead_rows = UINT64_MAX}};
	struct wire_model *m = &teacher.models[0];
	struct err_note note = {0};
	char path[512];
	int rc;

	snprintf(path, sizeof(path), "%s/model", dir);
	if ((rc = weights_fingerprint(path, &m->fingerprint, &note)) != 0 ||
	    (rc = kernels_resolve(&ko, m->compute_class, sizeof(m->compute_class), &note)) != 0)
		die(rc, &note, path);
	for (int i = 0; i < TEACHERS; i++)
		sim_new(l, &l->teacher[i], endpoint[i % l->n_shards], &teacher, "teacher", i);
	for (int i = l->n_shards > 1 ? TRAINERS : 0; i < TRAINERS + l->n_shards; i++) {
		bool is_trainer = i < TRAINERS;

		other.role = is_trainer ? WIRE_ROLE_TRAINER : WIRE_ROLE_CLIENT;
		sim_new(l, is_trainer ? &l->trainer[i] : &l->watcher[i - TRAINERS],
		    endpoint[is_trainer ? 0 : i - TRAINERS], &other, "trainer", i);
	}
}

/* ---- selectord ---- */

static void
write_config(const char *dir, uint32_t L, int n_shards)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/fleet.yaml", dir);
	if ((f = fopen(path, "w")) == NULL)
		die(errno, NULL, path);
	fprintf(f, "run: {dir: run, seed: 1}\ncorpus: {train: train, context: %" PRIu32 "}\ncache: {dir: cache, map_size: 64MiB}\n"
	    "teacher: {model: model}\nlabels: {kind: sampled, samples: %d}\n"
	    "status: {bind: \"tcp://127.0.0.1:*\"}\nselector: {lease_s: 60, lease_sequences: %d, teacher_idle_s: 0, endpoints: [", L, SAMPLES, LEASE_ROWS);
	for (int i = 0; i < n_shards; i++)
		fprintf(f, "%s\"tcp://127.0.0.1:%d\"", i > 0 ? ", " : "",
		    21000 + (int)(getpid() % 1000) * SHARDS_MAX + i);
	fprintf(f, "]}\n");
	fclose(f);
}

static void
start_selectord(const char *dir, char **sets, int n_sets, int shard, int n_shards, const char *pace,
    char *endpoint, size_t size)
{
	char path[600], self[512], program[600], announce[600], preload[600], number[16], *slash;
	char *argv[64] = {program, "-c", "fleet.yaml"};
	struct json *root = NULL;
	const char *data;
	pid_t pid;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int argc = 3;

	self[n > 0 ? n : 0] = '\0';
	if ((slash = strrchr(self, '/')) != NULL)
		*slash = '\0';
	snprintf(program, sizeof(program), "%s/selectord", self);
	for (int i = 0; i < n_sets && argc < 60; i++) {
		argv[argc++] = "--set";
		argv[argc++] = sets[i];
	}
	if (n_shards > 1) {
		snprintf(number, sizeof(number), "%d", shard);
		argv[argc++] = "--shard";
		argv[argc++] = number;
	}
	snprintf(preload, sizeof(preload), "%s/../bench/selector_load/libpace.so", self);
	if ((pid = fork()) == 0) {
		int fd;

		if (pace != NULL) {
			setenv("LD_PRELOAD", preload, 1);
			setenv("PACE_MB_S", pace, 1);
		}

		snprintf(path, sizeof(path), "%s/log.%d", dir, shard);
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
		dup2(fd, 2);
		if (chdir(dir) != 0)
			_exit(1);
		execv(program, argv);
		_exit(127);
	}
	*(shard == 0 ? &child : &others[shard]) = pid;
	if (n_shards > 1)
		snprintf(announce, sizeof(announce), "%s/run/daemons/selectord-%d.json", dir, shard);
	else
		snprintf(announce, sizeof(announce), "%s/run/daemons/selectord.json", dir);
	for (int i = 0; i < 600 && access(announce, R_OK) != 0 && waitpid(pid, NULL, WNOHANG) == 0; i++)
		stop_sleep_ms(100);
	if (json_parse_file(announce, 1 << 16, &root, NULL) != 0 || !json_text(json_get(root, "data"), &data))
		die(ERR_NOT_FOUND, NULL, announce);
	snprintf(endpoint, size, "%s", data);
	json_close(&root);
}

/* RssAnon of selectord in bytes. */
static double
anonymous(void)
{
	char path[64], line[256];
	double kib = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%ld/status", (long)child);
	if ((f = fopen(path, "r")) == NULL)
		return 0;
	while (fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "RssAnon: %lf", &kib) == 1)
			break;
	fclose(f);
	return kib * 1024;
}

/* Processor time (utime + stime) of a process in seconds; pid 0: of this process. */
static double
cpu_of(pid_t pid)
{
	char path[64], text[1024], *p;
	unsigned long long u = 0, s = 0;
	FILE *f;

	if (pid == 0) {
		struct rusage ru;

		getrusage(RUSAGE_SELF, &ru);
		return (double)ru.ru_utime.tv_sec + (double)ru.ru_stime.tv_sec + 1e-6 * (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec);
	}
	snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
	if ((f = fopen(path, "r")) == NULL)
		return 0;
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	fclose(f);
	if ((p = strrchr(text, ')')) == NULL || sscanf(p + 2,
	    "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &u, &s) != 2)
		return 0;
	return (double)(u + s) / (double)sysconf(_SC_CLK_TCK);
}

/* Anonymous memory of selectord after three seconds without new work. */
static double
settle(struct load *l)
{
	double until;

	for (until = seconds_now() + 3; seconds_now() < until;)
		turn(l);
	return anonymous();
}

static int
by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

struct line {
	const char *name, *unit, *peer;
	double value, peer_value;
};

static void
report(const struct line *lines, size_t n, const char *path)
{
	struct json *list = json_new_array();
	char *text;
	FILE *f;

	for (size_t i = 0; i < n; i++) {
		struct json *o = json_new_object();
		bool peer = lines[i].peer != NULL;

		printf("%-24s %14.4g %-10s", lines[i].name, lines[i].value, lines[i].unit);
		if (peer)
			printf("  %s %.4g", lines[i].peer, lines[i].peer_value);
		printf("\n");
		json_put(o, "name", json_new_text(lines[i].name));
		json_put(o, "value", json_new_num(lines[i].value));
		json_put(o, "unit", json_new_text(lines[i].unit));
		json_put(o, "peer", peer ? json_new_text(lines[i].peer) : json_new_null());
		json_put(o, "peer_value", peer ? json_new_num(lines[i].peer_value) : json_new_null());
		json_put(o, "ratio", peer ? json_new_num(lines[i].value / lines[i].peer_value) :
		    json_new_null());
		json_push(list, o);
	}
	if (path != NULL && (text = json_print(list, true)) != NULL) {
		if ((f = fopen(path, "w")) == NULL || fputs(text, f) < 0 || fclose(f) != 0)
			die(errno, NULL, path);
		free(text);
	}
	json_close(&list);
}

int
main(int argc, char **argv)
{
	static struct load l;
	struct bus_options options = {.max_message = 16 << 20, .role = BUS_ROLE_CLIENT};
	const char *parent = "/tmp", *json = NULL, *pace = NULL;
	char dir[400], path[600], endpoint[SHARDS_MAX][256], *sets[16];
	uint64_t n_tokens = 100000000, n_first, n_serve, record = 9216;
	double serve_s = 10, bare, start, cpu0, own0, t, bare_t, bytes, rss_small, rss_large, served_s,
	    ingest_tps, ingest_bps;
	double ingest_s = 0, bare_s = 0, ingest_cpu = 0, ingest_own = 0;
	double serve_cpu, serve_own, both_tps, p99;
	struct err_note note = {0};
	uint32_t L = 512;
	uint64_t acked0, first;
	struct lmdb *peer;
	bool keep = false;
	int n_sets = 0, rc;

	for (int i = 1; i < argc; i++) {
		const char *v = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(argv[i], "--keep") == 0) {
			keep = true;
			continue;
		}
		if (v == NULL)
			die(ERR_USAGE, NULL, argv[i]);
		if (strcmp(argv[i], "--dir") == 0)
			parent = v;
		else if (strcmp(argv[i], "--context") == 0)
			L = (uint32_t)strtoul(v, NULL, 10);
		else if (strcmp(argv[i], "--record") == 0)
			record = strtoull(v, NULL, 10);
		else if (strcmp(argv[i], "--tokens") == 0)
			n_tokens = strtoull(v, NULL, 10);
		else if (strcmp(argv[i], "--serve") == 0)
			serve_s = strtod(v, NULL);
		else if (strcmp(argv[i], "--json") == 0)
			json = v;
		else if (strcmp(argv[i], "--pace") == 0)
			pace = v;
		else if (strcmp(argv[i], "--shards") == 0 && atoi(v) >= 1 && atoi(v) <= SHARDS_MAX)
			l.n_shards = atoi(v);
		else if (strcmp(argv[i], "--set") == 0 && n_sets < 16)
			sets[n_sets++] = argv[i + 1];
		else
			die(ERR_USAGE, NULL, argv[i]);
		i++;
	}
	if (pace == NULL || l.n_shards == 0)
		l.n_shards = 1;
	/* with --pace the number of leases per shard does not depend on the number of shards */
	l.most = pace != NULL ? (size_t)(4 * l.n_shards) : CREDIT;
	setvbuf(stdout, NULL, _IOLBF, 0);
	snprintf(dir, sizeof(dir), "%s/salt-selector-load-XXXXXX", parent);
	if (mkdtemp(dir) == NULL)
		die(errno, NULL, dir);
	files_make(dir, n_tokens, L);
	snprintf(path, sizeof(path), "%s/train", dir);
	records_make(&l.records, path, L, record);
	for (int i = 0; i < LEASE_ROWS; i++)
		if ((l.room[i] = malloc(l.records.max_len)) == NULL)
			die(ENOMEM, NULL, "rows");
	l.latency = malloc(LATENCIES_MAX * sizeof(*l.latency));
	l.tokens = malloc((L + 1) * sizeof(*l.tokens));
	if ((rc = corpus_open(&l.corpus, path, &note)) != 0 ||
	    (rc = corpus_fingerprint(l.corpus, &l.corpus_hash, &note)) != 0)
		die(rc, &note, path);
	l.n_windows = corpus_n_windows(l.corpus, L);
	n_tokens = l.n_windows * L;
	printf("records of %.0f bytes (%zu candidate ids a row), context %" PRIu32 ", %"
	    PRIu64 " sequences\n", l.records.mean_len, l.records.n_candidates, L, l.n_windows);

	n_first = l.n_windows * 6 / 10;
	write_config(dir, L, l.n_shards);
	if ((rc = bus_new(&l.bus, &options, &note)) != 0 || (l.poll = bus_poll_new(l.bus)) == NULL)
		die(rc, &note, "bus");
	for (int i = 0; i < l.n_shards; i++)
		start_selectord(dir, sets, n_sets, i, l.n_shards, pace, endpoint[i], sizeof(endpoint[i]));
	sims_new(&l, endpoint, dir);
	ingest(&l, pace != NULL ? l.n_windows / 8 : 1000000 / L);
	if (pace != NULL) {
		acked0 = l.n_acked;
		start = seconds_now();
		/* not to the end, where some shards have less work left than others */
		ingest(&l, l.n_windows - l.n_windows / 4);
		printf("shards %.0f\n", (double)(l.n_acked - acked0) * L / (seconds_now() - start));
		goto out;
	}
	rss_small = settle(&l);

	peer = lmdb_open(dir, &l.records);
	first = l.n_acked;
	for (int i = 1; i <= TURNS; i++) {
		acked0 = l.n_acked;
		cpu0 = cpu_of(child);
		own0 = cpu_of(0);
		start = seconds_now();
		ingest(&l, first + (n_first - first) * (uint64_t)i / TURNS);
		t = seconds_now() - start;
		ingest_cpu += cpu_of(child) - cpu0;
		ingest_own += cpu_of(0) - own0;
		ingest_s += t;
		bare_t = lmdb_write(peer, &l.records, l.n_acked - acked0);
		bare_s += bare_t;
		bytes = (double)(l.n_acked - acked0) * l.records.mean_len;
		printf("%d: ingest %.1f MB/s, bare LMDB %.1f MB/s of as many records\n", i, bytes / t / 1e6,
		    bytes / bare_t / 1e6);
	}
	lmdb_close(&peer);
	ingest_tps = (double)(l.n_acked - first) * L / ingest_s;
	ingest_bps = ingest_tps / L * l.records.mean_len;
	bare = ingest_bps * ingest_s / bare_s;
	ingest_cpu /= ingest_s;
	ingest_own /= ingest_s;
	printf("ingest: %.2f M tokens/s, %.1f MB/s in %.1f s; bare LMDB %.1f MB/s; CPUs: selectord %.2f, simulators %.2f; anonymous %.1f MB\n",
	    ingest_tps / 1e6, ingest_bps / 1e6, ingest_s, bare / 1e6, ingest_cpu, ingest_own,
	    anonymous() / 1e6);

	settle(&l);
	l.rows_ready = 0;
	session_hello(l.watcher[0].session, 0, 0);		/* asks how many rows are ready */
	for (int i = 0; i < 100 && l.rows_ready < 8 * WINDOW; i++)
		turn(&l);
	if (l.rows_ready < 2 * WINDOW)
		die(ERR_RANGE, NULL, "rows ready");
	l.rate = ingest_tps / L / 2;
	l.rate_from = start = seconds_now();
	l.rate_base = l.n_leased;
	l.limit = l.n_windows;
	l.serving = true;
	n_serve = l.n_acked;
	for (int i = 0; i < TRAINERS; i++)
		for (int j = 0; j < IN_FLIGHT; j++)
			trainer_ask(&l, &l.trainer[i], j);
	cpu0 = cpu_of(child);
	own0 = cpu_of(0);
	/* ends earlier if nothing is left to ingest meanwhile */
	while (seconds_now() < start + serve_s && l.n_leased < l.limit)
		turn(&l);
	served_s = seconds_now() - start;
	serve_cpu = (cpu_of(child) - cpu0) / served_s;
	serve_own = (cpu_of(0) - own0) / served_s;
	both_tps = (double)(l.n_acked - n_serve) * L / served_s;
	l.serving = false;
	qsort(l.latency, l.n_latencies, sizeof(*l.latency), by_value);
	/* without the answers that arrive later */
	p99 = (double)l.latency[l.n_latencies * 99 / 100];
	printf("serve: %.2f M tokens/s of %" PRIu64 " rows ready, p50 %.2f ms, p99 %.2f ms, max %.1f ms, beside ingest of %.2f M tokens/s, %.1f s; CPUs: "
	    "selectord %.2f, simulators %.2f; %" PRIu64 " rows looked at\n",
	    (double)l.n_served * L / served_s / 1e6, l.rows_ready, (double)l.latency[l.n_latencies / 2], p99,
	    (double)l.latency[l.n_latencies - 1], both_tps / 1e6, served_s, serve_cpu, serve_own,
	    l.n_checked);
	l.rate = 0;
	ingest(&l, l.n_windows);
	rss_large = settle(&l);
	printf("anonymous memory: %.2f MB at 1 M tokens, %.2f MB at %.1f M tokens\n", rss_small / 1e6,
	    rss_large / 1e6, (double)n_tokens / 1e6);

	report((const struct line[]){
		{"selector_ingest_tps", "tokens/s", NULL, ingest_tps, 0},
		{"selector_ingest_vs_lmdb", "bytes/s", "bare LMDB, 256 records a commit", ingest_bps, bare},
		{"selector_serve_tps", "tokens/s", NULL, (double)l.n_served * L / served_s, 0},
		{"selector_serve_p99_ms", "ms", NULL, p99, 0},
		{"selector_rss_growth", "ratio", NULL, rss_large / rss_small - 1, 0},
		{"selector_ingest_cpus", "cores", "simulators", ingest_cpu, ingest_own},
		{"selector_serve_cpus", "cores", "simulators", serve_cpu, serve_own},
	}, 7, json);

out:
	for (int i = 0; i < l.n_shards; i++) {
		pid_t pid = i == 0 ? child : others[i];

		kill(pid, SIGTERM);
		waitpid(pid, NULL, 0);
	}
	child = 0;
	if (!keep) {
		snprintf(path, sizeof(path), "rm -rf -- '%s'", dir);
		if (system(path) != 0)
			fprintf(stderr, "left: %s\n", dir);
	}
	_exit(0);
}
