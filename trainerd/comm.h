/* SPDX-License-Identifier: Apache-2.0 */
/*
 * comm - the ranks of one training run as a group; comm_mpi.c implements it by MPI. All memory is host memory:
 * comm_device.h is for device memory. All calls are collective over the group unless stated otherwise, made by one
 * thread, and in the same order on all ranks. An MPI failure ends the run (MPI_ERRORS_ARE_FATAL), because one rank
 * cannot continue alone.
 */
#ifndef SALT_COMM_H
#define SALT_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct comm;

/* comm_init - call it first in main. Returns 0, ERR_LIBRARY, ENOMEM. comm_finalize: call it last; takes NULL. */
int comm_init(struct comm **c, int *argc, char ***argv);
void comm_finalize(struct comm **c);

int comm_rank(const struct comm *c);
int comm_size(const struct comm *c);
int comm_host_ranks(const struct comm *c);	/* ranks of this group on this host */
int comm_host_rank(const struct comm *c);	/* this rank's number among them */
int comm_host_cpus(const struct comm *c);	/* processors that at least one of them was allowed to use at comm_init */

/* comm_abort - ends all ranks with this exit code; any thread; does not return. */
void comm_abort(struct comm *c, int exit_code) __attribute__((noreturn));

/*
 * comm_exchange - sends n_send bytes to partner and receives n_recv bytes from it; the partner does the reverse.
 * Split into messages that MPI can count. Buffers do not overlap. Each rank calls it for its own pair only; partners
 * may differ from call to call.
 */
void comm_exchange(struct comm *c, int partner, const void *send, size_t n_send, void *recv, size_t n_recv);

/*
 * comm_sum - elementwise sum over ranks, in place, on all ranks. In all calls at most one rank has a non-zero
 * value per element, or all values are integers, so the bits do not depend on the order of the sum.
 */
void comm_sum(struct comm *c, double *x, size_t n);

/*
 * Transfers that continue while the caller computes. @op numbers them, 0 .. COMM_OPS - 1; a number may be
 * used again once comm_test has returned true. Until all have ended no other function of this header may be
 * called, and the data must not be touched. If MPI allows, a thread advances them; calls of comm_test advance
 * them in any case.
 * comm_start_send, comm_start_recv: n floats (up to COMM_OP_MAX), matched by partner and tag (0 .. COMM_TAGS
 * - 1), in the order started.
 * comm_start_reduce: collective; root's x becomes the sum over ranks, in an order that MPI chooses; the
 * others' x are only read.
 * comm_test: whether op has ended; never waits. comm_wait_any: returns when at least one started op has ended
 * (none started: at once).
 */
#define COMM_OPS 32
#define COMM_OP_MAX (INT64_C(1) << 30)
#define COMM_TAGS 32000
void comm_start_send(struct comm *c, int op, int to, int tag, const float *x, int64_t n);
void comm_start_recv(struct comm *c, int op, int from, int tag, float *x, int64_t n);
void comm_start_reduce(struct comm *c, int op, int root, float *x, int64_t n);
bool comm_test(struct comm *c, int op);
void comm_wait_any(struct comm *c);

/*
 * comm_max - elementwise maximum in place, on all ranks. Used for votes, which may take long: it sleeps while
 * it waits.
 */
void comm_max(struct comm *c, int64_t *x, size_t n);

void comm_bcast(struct comm *c, int root, void *p, size_t n);

/* comm_gather - n bytes of each rank to root: all[rank * n], which is only used on root. */
void comm_gather(struct comm *c, int root, const void *p, size_t n, void *all);

/* comm_send, comm_recv - floats between two ranks, not collective. */
void comm_send(struct comm *c, int to, const float *x, int64_t n);
void comm_recv(struct comm *c, int from, float *x, int64_t n);

#endif
