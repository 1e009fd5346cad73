/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shard - which rank owns which elements of the flat parameter array (ZeRO-1), and the fixed tree along which gradients
 * are summed.
 *
 * Every part of the array (engine/optim/split.h) is halved recursively: at distance 1, 2, 4, ... a rank and its partner
 * (rank ^ distance) split what they hold; the one without the bit keeps the front. Partners add what they receive to
 * what they hold, so after distance d every element is the sum over 2d neighbouring ranks, adjacent pairs first: the
 * same tree as that of the lanes.
 */
#ifndef SALT_SHARD_H
#define SALT_SHARD_H

#include <stddef.h>
#include <stdint.h>

#include "engine/optim/split.h"
#include "trainerd/comm_device.h"

#define SHARD_MAX_LEVELS 16

struct shard_part {
	int64_t begin, end;			/* this rank's: [begin, end), may be empty */
	int64_t level_begin[SHARD_MAX_LEVELS + 1];	/* [0]: the whole part; [i+1]: what is held after distance 2^i */
	int64_t level_end[SHARD_MAX_LEVELS + 1];
};

struct shard {
	int64_t n;				/* elements in all */
	int rank;
	int n_levels;				/* log2 of ranks */
	int n_parts;
	struct shard_part parts[OPTIM_PARTS];
};

/* shard_range - rank's share over n_ranks (a power of two). Pure. */
void shard_range(struct shard *s, const struct optim_split *split, int rank, int n_ranks);

/*
 * shard_gather - x: device memory [n] of element_bytes each, in which this rank's ranges are valid. Collective;
 * afterwards all of x is valid on all ranks.
 */
void shard_gather(const struct shard *s, struct comm_device *device, void *x, size_t element_bytes);

#endif
