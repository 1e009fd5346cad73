/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_teachers files DIR TOKENS
 *     writes DIR/train and DIR/model, as bench_selector_load does
 * bench_teachers rate DIR ENDPOINT TEACHERS LEASE_MS SECONDS
 *     TEACHERS stubs, each a process with a real session, connect to a selectord that serves the corpus and
 *     model in DIR. Like teacherd, a stub holds two leases; it sleeps for LEASE_MS where teacherd would
 *     compute a lease. Its records come from the encoder, with the token hash and checksum of each sequence.
 *     Prints the number of sequences acknowledged (on disk) in SECONDS, counted after two leases of every
 *     stub were acknowledged, and the seconds measured.
 * teachers.sh runs both.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/selector_load/load.h"
#include "base/clock/clock.h"
#include "fabric/bus/bus.h"
#include "fabric/session/session.h"
#include "data/corpus/corpus.h"
#include "engine/kernels/kernels.h"
#include "engine/weights/weights.h"

enum { CONTEXT = 512, RECORD = 9216, CREDIT = 2, HELD_MAX = 8, ROWS_MAX = 64, STUBS_MAX = 64, WINDOW = 512,
    START_S = 30, MAX_MESSAGE = 16 << 20 };

/* Memory shared by the processes. */
struct board {
	atomic_ullong acked[STUBS_MAX];			/* sequences of each stub */
	atomic_int n_welcome;
	atomic_bool go;					/* all are connected, so leases may be requested */
};

struct stub {
	struct bus *bus;
	struct bus_poll *poll;
	struct session *session;
	bool is_teacher;
	struct records records;
	uint8_t *room[ROWS_MAX];
	/*
	 * Leases, the oldest first, which is in work. There may be one more than CREDIT, if a request and a
	 * lease crossed on the way.
	 */
	struct wire_message *held[HELD_MAX];
	size_t n_held, asked;
	double due, lease_s;
	bool counted;					/* counted in n_welcome */
	struct board *board;
	int no;
};

double
seconds_now(void)
{
	return clock_now_s();
}

void
die(int rc, const struct err_note *note, const char *what)
{
	char text[1200];

	fprintf(stderr, "bench_teachers: %s: %s\n", what, err_note_str(note, rc, text, sizeof(text)));
	exit(1);					/* the stubs end with their parent */
}

static void
tell(struct stub *s, const struct wire_message *m)
{
	int rc = session_send(s->session, 0, m);

	if (rc != 0)
		die(rc, NULL, wire_type_name(m->type));
}

/* Answers the oldest lease and begins the next one. */
static void
answer(struct stub *s)
{
	const struct wire_lease *lease = &s->held[0]->lease;
	struct wire_result_row rows[ROWS_MAX] = {{0}};
	struct wire_message m = {.type = WIRE_RESULT, .result = {lease->lease_id, rows, lease->n_seqs}};
	uint32_t L = lease->context;

	for (size_t i = 0; i < lease->n_seqs; i++) {
		size_t len = records_patch(&s->records, lease->seqs[i],
		    hash_tokens(lease->tokens + i * (L + 1), L + 1), s->room[i]);

		rows[i].seq = lease->seqs[i];
		rows[i].label = (struct wire_bytes){s->room[i], len};
	}
	tell(s, &m);
	wire_message_destroy(&s->held[0]);
	s->n_held--;
	memmove(s->held, s->held + 1, (size_t)s->n_held * sizeof(s->held[0]));
	s->due = seconds_now() + s->lease_s;
}

static void
received(struct stub *s, struct session_event *event)
{
	struct wire_message *m = event->message;

	switch (event->kind) {
	case SESSION_WELCOME:
		if (!s->counted)
			atomic_fetch_add(&s->board->n_welcome, 1);
		s->counted = true;
		s->records.spec.set = session_welcome(s->session, 0)->label_set.hash.hash;
		break;
	case SESSION_FAILED:
		die(event->rc, &event->note, "session");
	case SESSION_MESSAGE:
		if (m->type == WIRE_DONE) {
			atomic_fetch_add(&s->board->acked[s->no], m->done.n_seqs);
		} else if (m->type == WIRE_LEASE) {
			if (m->lease.n_seqs > ROWS_MAX || !m->lease.want_label || m->lease.want_score ||
			    s->n_held == HELD_MAX)
				die(ERR_FORMAT, NULL, "a lease that was not expected");
			if (s->n_held == 0)
				s->due = seconds_now() + s->lease_s;
			s->held[s->n_held++] = m;
			event->message = NULL;
			s->asked -= s->asked > 0;
		}
		break;
	default:
		break;
	}
}

static void
turn(struct stub *s)
{
	double wait = s->n_held > 0 ? s->due - seconds_now() : 0.02;
	struct session_event event = {0};
	int rc;

	if ((rc = bus_poll_wait(s->poll, wait > 0 ? (int64_t)(wait * 1000) + 1 : 0)) != 0)
		die(rc, NULL, "poll");
	while (session_next(s->session, &event) == 0)
		received(s, &event);
	while (s->n_held > 0 && seconds_now() >= s->due)
		answer(s);
	/* as in teacherd: two leases are held or requested */
	if (atomic_load(&s->board->go) && s->is_teacher && s->n_held + s->asked < CREDIT) {
		s->asked = CREDIT - s->n_held;
		tell(s, &(struct wire_message){.type = WIRE_LEASE_REQUEST,
		    .lease_request = {(uint32_t)s->asked}});
	}
}

static void
stub_connect(struct stub *s, char *endpoint, const struct wire_hello *hello)
{
	struct bus_options options = {.max_message = MAX_MESSAGE, .role = BUS_ROLE_CLIENT};
	struct session_options so = {.endpoints = &endpoint, .n_shards = 1, .hello = hello};
	struct err_note note = {0};
	int rc;

	if ((rc = bus_new(&s->bus, &options, &note)) != 0 || (s->poll = bus_poll_new(s->bus)) == NULL)
		die(rc != 0 ? rc : ENOMEM, &note, "bus");
	so.bus = s->bus;
	so.poll = s->poll;
	if ((rc = session_new(&s->session, &so, &note)) != 0)
		die(rc, &note, endpoint);
	s->is_teacher = hello->role == WIRE_ROLE_TEACHER;
}

/* Runs a stub process until its parent ends it. */
static void
teacher(const char *dir, char *endpoint, int no, double lease_s, struct board *board)
{
	static struct stub s;
	struct kernels_options ko = {KERNELS_BACKEND_AUTO, KERNELS_DTYPE_AUTO, 1};
	struct wire_hello h = {.role = WIRE_ROLE_TEACHER, .max_message = MAX_MESSAGE, .n_models = 1};
	char path[512];
	struct err_note note = {0};
	int rc;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	s.board = board;
	s.no = no;
	s.lease_s = lease_s;
	snprintf(path, sizeof(path), "%s/train", dir);
	records_make(&s.records, path, CONTEXT, RECORD);
	for (int i = 0; i < ROWS_MAX; i++)
		if ((s.room[i] = malloc(s.records.max_len)) == NULL)
			die(ENOMEM, NULL, "rows");
	snprintf(h.name, sizeof(h.name), "stub-%d", no);
	h.models[0] = (struct wire_model){.serves_score = true, .serves_label = true, .vocab_size = VOCAB,
	    .max_context = CONTEXT};
	snprintf(path, sizeof(path), "%s/model", dir);
	if ((rc = weights_fingerprint(path, &h.models[0].fingerprint, &note)) != 0 ||
	    (rc = kernels_resolve(&ko, h.models[0].compute_class, sizeof(h.models[0].compute_class),
	    &note)) != 0)
		die(rc, &note, path);
	stub_connect(&s, endpoint, &h);
	for (;;)
		turn(&s);
}

/* Opens the client's session: a plan over the whole corpus, all of it to be labelled now. */
static void
plan_open(struct stub *s, const char *dir, char *endpoint)
{
	struct wire_hello h = {.role = WIRE_ROLE_CLIENT, .name = "plan", .max_message = MAX_MESSAGE};
	struct err_note note = {0};
	struct hash128 hash;
	struct corpus *c;
	char path[512];
	uint64_t n;
	int rc;

	snprintf(path, sizeof(path), "%s/train", dir);
	if ((rc = corpus_open(&c, path, &note)) != 0 || (rc = corpus_fingerprint(c, &hash, &note)) != 0)
		die(rc, &note, path);
	n = corpus_n_windows(c, CONTEXT);
	corpus_destroy(&c);
	h.corpus = (struct wire_corpus){true, {true, hash}, CONTEXT, n, {true, {1, 2}}, VOCAB};
	h.plan = (struct wire_plan){.present = true, .seed = 1, .batch = 8, .mode = WIRE_MODE_NONE,
	    .window = WINDOW, .n_rows = n, .label_ahead_rows = UINT64_MAX};
	stub_connect(s, endpoint, &h);
}

static uint64_t
sum(const struct board *board, int n, uint64_t *least)
{
	uint64_t all = 0;

	*least = UINT64_MAX;
	for (int i = 0; i < n; i++) {
		uint64_t one = atomic_load(&board->acked[i]);

		all += one;
		if (one < *least)
			*least = one;
	}
	return all;
}

static void
rate(const char *dir, char *endpoint, int n, double lease_s, double measure_s)
{
	static struct stub plan;
	struct board *board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
	    -1, 0);
	uint64_t before, least = 0;
	pid_t stub[STUBS_MAX];
	double start, t = 0;

	if (board == MAP_FAILED)
		die(errno, NULL, "shared memory");
	for (int i = 0; i < n; i++)
		if ((stub[i] = fork()) == 0)
			teacher(dir, endpoint, i, lease_s, board);
		else if (stub[i] < 0)
			die(errno, NULL, "fork");
	plan.board = board;
	plan_open(&plan, dir, endpoint);
	for (start = seconds_now(); least < 16; sum(board, n, &least)) {	/* two leases of eight each */
		if (seconds_now() - start > START_S || waitpid(-1, NULL, WNOHANG) > 0)
			die(ERR_TIMEOUT, NULL, "a stub did not come to work");
		turn(&plan);
		if (atomic_load(&board->n_welcome) == n + 1)
			atomic_store(&board->go, true);
	}
	before = sum(board, n, &least);
	for (start = seconds_now(); t < measure_s; t = seconds_now() - start)
		turn(&plan);
	printf("%" PRIu64 " %.6f\n", sum(board, n, &least) - before, t);
	for (int i = 0; i < n; i++) {
		kill(stub[i], SIGKILL);
		waitpid(stub[i], NULL, 0);
	}
}

int
main(int argc, char **argv)
{
	int n = argc == 7 ? atoi(argv[4]) : 0;

	if (argc == 4 && strcmp(argv[1], "files") == 0)
		files_make(argv[2], strtoull(argv[3], NULL, 10), CONTEXT);
	else if (argc == 7 && strcmp(argv[1], "rate") == 0 && n >= 1 && n <= STUBS_MAX && atof(argv[5]) > 0 &&
	    atof(argv[6]) > 0)
		rate(argv[2], argv[3], n, atof(argv[5]) / 1000, atof(argv[6]));
	else
		die(ERR_USAGE, NULL,
		    "bench_teachers files DIR TOKENS | rate DIR ENDPOINT TEACHERS LEASE_MS SECONDS");
	return 0;
}
