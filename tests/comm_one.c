/* SPDX-License-Identifier: Apache-2.0 */
/* comm_one - comm.h for one rank, without MPI; for unit tests and benches. */
#include "trainerd/comm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log/log.h"

/* With one rank most calls have nothing to do. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

struct comm {
	int rank;
};

int
comm_init(struct comm **c, int *argc, char ***argv)
{
	*c = calloc(1, sizeof(**c));
	return *c != NULL ? 0 : ENOMEM;
}

void
comm_finalize(struct comm **c)
{
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
	return 1;
}

int
comm_host_ranks(const struct comm *c)
{
	return 1;
}

int
comm_host_rank(const struct comm *c)
{
	return 0;
}

int
comm_host_cpus(const struct comm *c)
{
	return 1;
}

void
comm_abort(struct comm *c, int exit_code)
{
	_Exit(exit_code);
}

void
comm_exchange(struct comm *c, int partner, const void *send, size_t n_send, void *recv, size_t n_recv)
{
	log_fatal("comm.exchange", "partner=%d ranks=1", partner);
}

void
comm_sum(struct comm *c, double *x, size_t n)
{
}

void
comm_start_send(struct comm *c, int op, int to, int tag, const float *x, int64_t n)
{
	log_fatal("comm.send", "to=%d op=%d tag=%d ranks=1", to, op, tag);
}

void
comm_start_recv(struct comm *c, int op, int from, int tag, float *x, int64_t n)
{
	log_fatal("comm.recv", "from=%d op=%d tag=%d ranks=1", from, op, tag);
}

void
comm_start_reduce(struct comm *c, int op, int root, float *x, int64_t n)
{
}

bool
comm_test(struct comm *c, int op)
{
	return true;
}

void
comm_wait_any(struct comm *c)
{
}

void
comm_max(struct comm *c, int64_t *x, size_t n)
{
}

void
comm_bcast(struct comm *c, int root, void *p, size_t n)
{
}

void
comm_gather(struct comm *c, int root, const void *p, size_t n, void *all)
{
	memcpy(all, p, n);
}

void
comm_send(struct comm *c, int to, const float *x, int64_t n)
{
	log_fatal("comm.send", "to=%d ranks=1", to);
}

void
comm_recv(struct comm *c, int from, float *x, int64_t n)
{
	log_fatal("comm.recv", "from=%d ranks=1", from);
}
