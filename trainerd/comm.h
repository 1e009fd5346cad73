/*
 * comm - the ranks of one training run as a group. comm_mpi.c is Open MPI; comm_one.c has the same symbols for one rank and no
 * MPI (tests, tools). All calls are collective over the group unless a header says otherwise, made by one thread, in the same order
 * on all ranks. An MPI failure ends the run (MPI_ERRORS_ARE_FATAL): there is nothing a rank could do alone.
 */
#ifndef SALT_COMM_H
#define SALT_COMM_H

#include <stdbool.h>
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
 * comm_exchange - send bytes to partner, receive bytes from it; the partner does the reverse. In pieces, so that no message
 * is longer than MPI counts. Buffers do not overlap. Partners may differ per call; each rank takes part in its own pair only.
 */
void comm_exchange(struct comm *c, int partner, const void *send, size_t n_send, void *recv, size_t n_recv);

/*
 * comm_sum - elementwise sum over ranks, in place, on all ranks. Bits do not depend on the order when at most one rank holds a
 * non-zero value per element: that is how all of ours are used.
 */
void comm_sum(struct comm *c, double *x, size_t n);

/* comm_sum_any - the sum in whatever order MPI likes (trainer.deterministic: off). In place, on all ranks. */
void comm_sum_any(struct comm *c, float *x, int64_t n);

/*
 * Transfers that go on while the caller computes. @op numbers them, 0 .. COMM_OPS - 1; a number is free again once comm_test has said
 * true. Until all have ended nothing else of this header is called. Where MPI allows, a thread of comm's keeps them moving; comm_test
 * now and then does it everywhere. Data stay untouched until then.
 * comm_start_send, comm_start_recv: n floats (up to COMM_OP_MAX), matched by partner and tag (0 .. COMM_TAGS - 1), in the order started.
 * comm_start_reduce: collective; root's x becomes the sum over ranks in whatever order MPI likes, the others' x are only read.
 * comm_test: has op ended? Never waits. comm_wait_any: returns when at least one of the started ops has ended (none started: at once).
 */
#define COMM_OPS 32
#define COMM_OP_MAX (INT64_C(1) << 30)
#define COMM_TAGS 32000
void comm_start_send(struct comm *c, int op, int to, int tag, const float *x, int64_t n);
void comm_start_recv(struct comm *c, int op, int from, int tag, float *x, int64_t n);
void comm_start_reduce(struct comm *c, int op, int root, float *x, int64_t n);
bool comm_test(struct comm *c, int op);
void comm_wait_any(struct comm *c);

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
