/*
 * comm - the ranks of one training run as a group. comm_mpi.c is Open MPI; comm_one.c has the same symbols for one rank and no
 * MPI (tests, tools). All calls are collective over the group unless a header says otherwise, made by one thread, in the same order
 * on all ranks. An MPI failure ends the run (MPI_ERRORS_ARE_FATAL): there is nothing a rank could do alone.
 */
#ifndef SALT_COMM_H
#define SALT_COMM_H

#include <stddef.h>
#include <stdint.h>

struct comm;

/* comm_init - first thing in main. Returns 0, ERR_LIBRARY, ENOMEM. comm_finalize: last; takes NULL. */
int comm_init(struct comm **c, int *argc, char ***argv);
void comm_finalize(struct comm **c);

int comm_rank(const struct comm *c);
int comm_size(const struct comm *c);
int comm_host_ranks(const struct comm *c);	/* ranks of this group on this host */

/* comm_abort - ends all ranks with this exit code; any thread; does not return. */
void comm_abort(struct comm *c, int exit_code) __attribute__((noreturn));

/*
 * comm_exchange - send n_send floats to partner, receive n_recv from it; the partner does the reverse. In pieces, so that no message
 * is longer than MPI counts. Buffers do not overlap. Partners may differ per call; each rank takes part in its own pair only.
 */
void comm_exchange(struct comm *c, int partner, const float *send, int64_t n_send, float *recv, int64_t n_recv);

/*
 * comm_sum - elementwise sum over ranks, in place, on all ranks. Bits do not depend on the order when at most one rank holds a
 * non-zero value per element: that is how all of ours are used.
 */
void comm_sum(struct comm *c, double *x, size_t n);

/* comm_sum_any - the sum in whatever order MPI likes (trainer.deterministic: off). In place, on all ranks. */
void comm_sum_any(struct comm *c, float *x, int64_t n);

/* comm_max - elementwise maximum in place, on all ranks. Waits by sleeping, not by burning the core: may take long (votes). */
void comm_max(struct comm *c, int64_t *x, size_t n);

void comm_bcast(struct comm *c, int root, void *p, size_t n);

/* comm_gather - n bytes of each rank to root: all[rank * n]; all is only looked at on root. */
void comm_gather(struct comm *c, int root, const void *p, size_t n, void *all);

/* comm_send, comm_recv - floats between two ranks, not collective. */
void comm_send(struct comm *c, int to, const float *x, int64_t n);
void comm_recv(struct comm *c, int from, float *x, int64_t n);

void comm_barrier(struct comm *c);

#endif
