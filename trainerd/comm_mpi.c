/* SPDX-License-Identifier: Apache-2.0 */
/* Implements comm.h with MPI. The only file of the programs that includes mpi.h. */
#include "trainerd/comm.h"

#include <errno.h>
#include <mpi.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock/clock.h"
#include "base/cpus/cpus.h"
#include "base/err/err.h"

#define PIECE ((size_t)1 << 24)		/* elements of a message */
#define PIECE_BYTES (PIECE * sizeof(float))
#define FIRST_TAG 16			/* of comm_start_send; comm_exchange has 1, comm_send 2 */

struct comm {
	MPI_Comm group;
	int rank, size, host_rank, host_ranks, host_cpus;
	/*
	 * Transfers in progress. MPI moves data only inside its calls, and the trainer's thread computes for
	 * seconds between its calls, so a second thread tests the transfers every TICK_NS. Only one thread
	 * may be inside MPI at a time (MPI_THREAD_SERIALIZED): calls about transfers take the lock, and other
	 * calls are only made while there are no transfers.
	 */
	MPI_Request ops[COMM_OPS];
	int n_ops;				/* started, their end not yet reported by comm_test */
	bool busy[COMM_OPS];			/* the same, for each */
	bool has_thread, stop;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t started;
};

#define TICK_NS 200000

/*
 * Ranks wait for each other by polling, as MPI's own waiting calls do. While other ranks compute for long,
 * for instance because another process uses their processor, polling would keep this rank's processor from
 * them. So after POLL_NS there are pauses, of a quarter of the time waited so far. Before that a rank does
 * not yield: when many processes are ready, each yield gives a whole time slice away.
 */
#define POLL_NS 200000
#define PAUSE_MAX_NS 1000000

static void
comm_pause(int64_t *since_ns)
{
	int64_t now = clock_now_ns(), waited_ns;
	struct timespec pause = {.tv_sec = 0};

	if (*since_ns == 0)
		*since_ns = now;
	if ((waited_ns = now - *since_ns) < POLL_NS)
		return;
	pause.tv_nsec = waited_ns / 4 < PAUSE_MAX_NS ? waited_ns / 4 : PAUSE_MAX_NS;
	nanosleep(&pause, NULL);
}

static void
comm_wait(MPI_Request *requests, int n)
{
	int64_t since_ns = 0;
	int done = 0;

	while (MPI_Testall(n, requests, &done, MPI_STATUSES_IGNORE), !done)
		comm_pause(&since_ns);
}

static void *
comm_progress(void *arg)
{
	const struct timespec tick = {.tv_nsec = TICK_NS};
	struct comm *c = arg;

	pthread_mutex_lock(&c->lock);
	while (!c->stop) {
		int which, done = 0;

		if (c->n_ops == 0) {
			pthread_cond_wait(&c->started, &c->lock);
			continue;
		}
		MPI_Testany(COMM_OPS, c->ops, &which, &done, MPI_STATUS_IGNORE);	/* a finished one becomes MPI_REQUEST_NULL */
		pthread_mutex_unlock(&c->lock);
		nanosleep(&tick, NULL);
		pthread_mutex_lock(&c->lock);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

static void
op_begin(struct comm *c)
{
	pthread_mutex_lock(&c->lock);
}

static void
op_started(struct comm *c, int op)
{
	c->busy[op] = true;
	if (c->n_ops++ == 0 && c->has_thread)
		pthread_cond_signal(&c->started);
	pthread_mutex_unlock(&c->lock);
}

int
comm_init(struct comm **out, int *argc, char ***argv)
{
	struct comm *c = calloc(1, sizeof(*c));
	struct cpus cpus;
	MPI_Comm host;
	int provided;

	*out = NULL;
	if (c == NULL)
		return ENOMEM;
	if (MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS || provided < MPI_THREAD_FUNNELED) {
		free(c);
		return ERR_LIBRARY;
	}
	MPI_Comm_dup(MPI_COMM_WORLD, &c->group);
	MPI_Comm_rank(c->group, &c->rank);
	MPI_Comm_size(c->group, &c->size);
	MPI_Comm_split_type(c->group, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host);
	MPI_Comm_rank(host, &c->host_rank);
	MPI_Comm_size(host, &c->host_ranks);
	cpus_read(&cpus, "");
	MPI_Allreduce(MPI_IN_PLACE, cpus.mask.bits, (int)sizeof(cpus.mask.bits), MPI_BYTE, MPI_BOR, host);
	c->host_cpus = cpus_count(&cpus.mask);
	MPI_Comm_free(&host);
	for (int op = 0; op < COMM_OPS; op++)
		c->ops[op] = MPI_REQUEST_NULL;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->started, NULL);
	/* Without the thread, transfers move only when comm_test is called. */
	c->has_thread = c->size > 1 && provided >= MPI_THREAD_SERIALIZED && pthread_create(&c->thread, NULL, comm_progress, c) == 0;
	*out = c;
	return 0;
}

void
comm_finalize(struct comm **c)
{
	if (*c == NULL)
		return;
	if ((*c)->has_thread) {
		pthread_mutex_lock(&(*c)->lock);
		(*c)->stop = true;
		pthread_cond_signal(&(*c)->started);
		pthread_mutex_unlock(&(*c)->lock);
		pthread_join((*c)->thread, NULL);
	}
	pthread_cond_destroy(&(*c)->started);
	pthread_mutex_destroy(&(*c)->lock);
	MPI_Comm_free(&(*c)->group);
	MPI_Finalize();
	free(*c);
	*c = NULL;
}

int
comm_rank(const struct comm *c)
{
	return c->rank;
}

int
comm_size(const struct comm *c)
{
	return c->size;
}

int
comm_host_ranks(const struct comm *c)
{
	return c->host_ranks;
}

int
comm_host_rank(const struct comm *c)
{
	return c->host_rank;
}

int
comm_host_cpus(const struct comm *c)
{
	return c->host_cpus;
}

void
comm_abort(struct comm *c, int exit_code)
{
	MPI_Abort(c->group, exit_code);
	_Exit(exit_code);
}

/* Elements of the message that begins at element `at` of n. */
static int
piece(size_t n, size_t at, size_t limit)
{
	return n <= at ? 0 : (int)(n - at < limit ? n - at : limit);
}

void
comm_exchange(struct comm *c, int partner, const void *send, size_t n_send, void *recv, size_t n_recv)
{
	for (size_t at = 0; at < n_send || at < n_recv; at += PIECE_BYTES) {
		int ns = piece(n_send, at, PIECE_BYTES), nr = piece(n_recv, at, PIECE_BYTES);

		MPI_Request both[2];

		MPI_Irecv(nr > 0 ? (char *)recv + at : recv, nr, MPI_BYTE, partner, 1, c->group, &both[0]);
		MPI_Isend(ns > 0 ? (const char *)send + at : send, ns, MPI_BYTE, partner, 1, c->group, &both[1]);
		comm_wait(both, 2);
	}
}

void
comm_sum(struct comm *c, double *x, size_t n)
{
	MPI_Request request;

	for (size_t at = 0; at < n; at += PIECE) {
		MPI_Iallreduce(MPI_IN_PLACE, x + at, piece(n, at, PIECE), MPI_DOUBLE, MPI_SUM, c->group, &request);
		comm_wait(&request, 1);
	}
}

void
comm_start_send(struct comm *c, int op, int to, int tag, const float *x, int64_t n)
{
	op_begin(c);
	MPI_Isend(x, (int)n, MPI_FLOAT, to, FIRST_TAG + tag, c->group, &c->ops[op]);
	op_started(c, op);
}

void
comm_start_recv(struct comm *c, int op, int from, int tag, float *x, int64_t n)
{
	op_begin(c);
	MPI_Irecv(x, (int)n, MPI_FLOAT, from, FIRST_TAG + tag, c->group, &c->ops[op]);
	op_started(c, op);
}

void
comm_start_reduce(struct comm *c, int op, int root, float *x, int64_t n)
{
	op_begin(c);
	MPI_Ireduce(c->rank == root ? MPI_IN_PLACE : x, c->rank == root ? x : NULL, (int)n, MPI_FLOAT, MPI_SUM, root, c->group,
	    &c->ops[op]);
	op_started(c, op);
}

bool
comm_test(struct comm *c, int op)
{
	int done;

	pthread_mutex_lock(&c->lock);
	MPI_Test(&c->ops[op], &done, MPI_STATUS_IGNORE);	/* MPI_REQUEST_NULL, which a finished op is, gives done */
	if (done && c->busy[op]) {
		c->busy[op] = false;
		c->n_ops--;
	}
	pthread_mutex_unlock(&c->lock);
	return done != 0;
}

void
comm_wait_any(struct comm *c)
{
	int64_t since_ns = 0;
	int which, done = 0;

	pthread_mutex_lock(&c->lock);
	for (int op = 0; op < COMM_OPS; op++)
		if (c->busy[op] && c->ops[op] == MPI_REQUEST_NULL) {	/* the thread has completed it */
			pthread_mutex_unlock(&c->lock);
			return;
		}
	while (MPI_Testany(COMM_OPS, c->ops, &which, &done, MPI_STATUS_IGNORE), !done)
		comm_pause(&since_ns);
	pthread_mutex_unlock(&c->lock);
}

void
comm_max(struct comm *c, int64_t *x, size_t n)
{
	MPI_Request request;

	MPI_Iallreduce(MPI_IN_PLACE, x, (int)n, MPI_INT64_T, MPI_MAX, c->group, &request);
	comm_wait(&request, 1);
}

void
comm_bcast(struct comm *c, int root, void *p, size_t n)
{
	for (size_t at = 0; at < n; at += PIECE_BYTES)
		MPI_Bcast((char *)p + at, piece(n, at, PIECE_BYTES), MPI_BYTE, root, c->group);
}

void
comm_gather(struct comm *c, int root, const void *p, size_t n, void *all)
{
	MPI_Gather(p, (int)n, MPI_BYTE, all, (int)n, MPI_BYTE, root, c->group);
}

void
comm_send(struct comm *c, int to, const float *x, int64_t n)
{
	for (size_t at = 0; at < (size_t)n; at += PIECE)
		MPI_Send(x + at, piece((size_t)n, at, PIECE), MPI_FLOAT, to, 2, c->group);
}

void
comm_recv(struct comm *c, int from, float *x, int64_t n)
{
	for (size_t at = 0; at < (size_t)n; at += PIECE)
		MPI_Recv(x + at, piece((size_t)n, at, PIECE), MPI_FLOAT, from, 2, c->group, MPI_STATUS_IGNORE);
}
