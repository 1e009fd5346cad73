/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/shard.h"

#include <stdbool.h>

#include "engine/kernels/kernels.h"

/* The middle of [begin, end) in whole blocks, the front part not smaller than the back. */
static int64_t
shard_middle(int64_t begin, int64_t end)
{
	int64_t blocks = (end - begin + KERNELS_NORM_BLOCK - 1) / KERNELS_NORM_BLOCK;
	int64_t middle = begin + (blocks + 1) / 2 * KERNELS_NORM_BLOCK;

	return middle < end ? middle : end;
}

void
shard_range(struct shard *s, int64_t n, int rank, int n_ranks)
{
	s->n = n;
	s->rank = rank;
	s->n_levels = 0;
	s->level_begin[0] = 0;
	s->level_end[0] = n;
	for (int distance = 1; distance < n_ranks; distance *= 2) {
		int level = s->n_levels++;
		int64_t begin = s->level_begin[level], end = s->level_end[level], middle = shard_middle(begin, end);

		s->level_begin[level + 1] = rank & distance ? middle : begin;
		s->level_end[level + 1] = rank & distance ? end : middle;
	}
	s->begin = s->level_begin[s->n_levels];
	s->end = s->level_end[s->n_levels];
}

void
shard_gather(const struct shard *s, struct comm_device *device, void *x, size_t element_bytes)
{
	for (int level = s->n_levels; level-- > 0;) {
		bool back = s->rank >> level & 1;
		int64_t begin = s->level_begin[level], end = s->level_end[level];
		int64_t mine = s->level_begin[level + 1], mine_end = s->level_end[level + 1];
		/* The partner holds the rest of the level's range: before ours or after it. */
		int64_t theirs = back ? begin : mine_end, theirs_end = back ? mine : end;
		char *bytes = x;

		comm_exchange_device(device, s->rank ^ 1 << level, bytes + (size_t)mine * element_bytes, (size_t)(mine_end - mine) * element_bytes,
		    bytes + (size_t)theirs * element_bytes, (size_t)(theirs_end - theirs) * element_bytes);
	}
}
