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

int64_t
shard_scratch(const struct shard *s)
{
	return s->n_levels == 0 ? 0 : s->level_end[1] - s->level_begin[1];
}

/* The part of level's range that the partner keeps, while we keep level + 1's. */
static void
shard_partner(const struct shard *s, int rank, int level, int64_t *begin, int64_t *end)
{
	bool back = rank >> level & 1;

	*begin = back ? s->level_begin[level] : s->level_end[level + 1];
	*end = back ? s->level_begin[level + 1] : s->level_end[level];
}

void
shard_reduce(const struct shard *s, struct comm *comm, struct kernels *k, float *grads, float *scratch)
{
	for (int level = 0; level < s->n_levels; level++) {
		int64_t mine = s->level_begin[level + 1], n_mine = s->level_end[level + 1] - mine, theirs, theirs_end;

		shard_partner(s, comm_rank(comm), level, &theirs, &theirs_end);
		comm_exchange(comm, comm_rank(comm) ^ 1 << level, grads + theirs, (size_t)(theirs_end - theirs) * sizeof(float), scratch,
		    (size_t)n_mine * sizeof(float));
		kernels_accumulate(k, grads + mine, scratch, n_mine);
	}
}

void
shard_gather(const struct shard *s, struct comm *comm, void *x, size_t element_bytes)
{
	for (int level = s->n_levels; level-- > 0;) {
		int64_t mine = s->level_begin[level + 1], n_mine = s->level_end[level + 1] - mine, theirs, theirs_end;
		char *bytes = x;

		shard_partner(s, comm_rank(comm), level, &theirs, &theirs_end);
		comm_exchange(comm, comm_rank(comm) ^ 1 << level, bytes + (size_t)mine * element_bytes, (size_t)n_mine * element_bytes,
		    bytes + (size_t)theirs * element_bytes, (size_t)(theirs_end - theirs) * element_bytes);
	}
}
