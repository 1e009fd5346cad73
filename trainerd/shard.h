/*
 * shard - who owns which part of the flat parameter array (ZeRO-1), and the fixed tree along which gradients are summed.
 *
 * Ranges come from recursive halving in units of KERNELS_NORM_BLOCK: at distance 1, 2, 4, ... a rank and its partner (rank ^ distance)
 * split what they hold; the one without the bit keeps the front. Partners add what they receive to what they hold, so after
 * distance d every element is the sum over 2d neighbouring ranks, adjacent pairs first: the same tree as the lanes below it.
 */
#ifndef SALT_SHARD_H
#define SALT_SHARD_H

#include <stddef.h>
#include <stdint.h>

#include "trainerd/comm.h"

struct kernels;

#define SHARD_MAX_LEVELS 16

struct shard {
	int64_t n;				/* elements in all */
	int64_t begin, end;			/* this rank's: [begin, end), may be empty; begin a multiple of the block */
	int n_levels;				/* log2 of ranks */
	int64_t level_begin[SHARD_MAX_LEVELS + 1];	/* [0]: everything; [i+1]: what is held after distance 2^i */
	int64_t level_end[SHARD_MAX_LEVELS + 1];
};

/* shard_range - rank's part of n elements over n_ranks (a power of two). Pure. */
void shard_range(struct shard *s, int64_t n, int rank, int n_ranks);

/*
 * shard_reduce - the tree in its plainest form, all at once and waiting; reduce.h does the same sums while backward runs, and is
 * tested against this. grads: [n] of this rank; afterwards grads[begin..end) holds the sum over all ranks, the rest is spoilt.
 * scratch: at least (n + 1) / 2 + block elements.
 */
void shard_reduce(const struct shard *s, struct comm *comm, struct kernels *k, float *grads, float *scratch);

/* shard_gather - x: [n] of element_bytes each, of which this rank's range is right; afterwards all of it is, on all ranks. */
void shard_gather(const struct shard *s, struct comm *comm, void *x, size_t element_bytes);

/* shard_scratch - elements of scratch that shard_reduce needs; 0 with one rank. */
int64_t shard_scratch(const struct shard *s);

#endif
