/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/shard.h"

#include <stdbool.h>

void
shard_range(struct shard *s, const struct optim_split *split, int rank, int n_ranks)
{
	*s = (struct shard){.n = split->n, .rank = rank, .n_parts = split->n_parts};
	for (int distance = 1; distance < n_ranks; distance *= 2)
		s->n_levels++;
	for (int i = 0; i < s->n_parts; i++) {
		struct shard_part *p = &s->parts[i];

		for (int level = 0; level <= s->n_levels; level++)
			optim_split_range(&split->parts[i], rank, 1 << level, &p->level_begin[level], &p->level_end[level]);
		p->begin = p->level_begin[s->n_levels];
		p->end = p->level_end[s->n_levels];
	}
}

void
shard_gather(const struct shard *s, struct comm_device *device, void *x, size_t element_bytes)
{
	for (int level = s->n_levels; level-- > 0;) {
		bool back = s->rank >> level & 1;

		for (int i = 0; i < s->n_parts; i++) {
			const struct shard_part *p = &s->parts[i];
			int64_t mine = p->level_begin[level + 1], mine_end = p->level_end[level + 1];
			/*
			 * The partner holds the rest of the level's range: before this rank's part or after
			 * it.
			 */
			int64_t theirs = back ? p->level_begin[level] : mine_end, theirs_end = back ? mine : p->level_end[level];
			char *bytes = x;

			comm_exchange_device(device, s->rank ^ 1 << level, bytes + (size_t)mine * element_bytes,
			    (size_t)(mine_end - mine) * element_bytes, bytes + (size_t)theirs * element_bytes,
			    (size_t)(theirs_end - theirs) * element_bytes);
		}
	}
}
