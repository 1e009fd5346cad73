/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/shard.h"

#include "check.h"
#include "engine/kernels/kernels.h"

/* For every R the ranges are disjoint, cover everything, start on blocks, and at every level the two partners share one range. */
int
main(void)
{
	static const int64_t sizes[] = {1, KERNELS_NORM_BLOCK - 1, KERNELS_NORM_BLOCK, 5 * KERNELS_NORM_BLOCK + 17, 29 * KERNELS_NORM_BLOCK + 3};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (int ranks = 1; ranks <= 16; ranks *= 2) {
			int64_t covered = 0;
			struct shard all[16];

			for (int r = 0; r < ranks; r++)
				shard_range(&all[r], sizes[i], r, ranks);
			for (int r = 0; r < ranks; r++) {
				struct shard *s = &all[r];

				covered += s->end - s->begin;
				CHECK(s->begin <= s->end && (s->begin == s->end || s->begin % KERNELS_NORM_BLOCK == 0));
				for (int o = 0; o < r; o++)
					CHECK(all[o].end <= s->begin || all[o].begin >= s->end || s->begin == s->end || all[o].begin == all[o].end);
				for (int level = 0; level < s->n_levels; level++) {
					struct shard *p = &all[r ^ 1 << level];

					CHECK(p->level_begin[level] == s->level_begin[level] && p->level_end[level] == s->level_end[level]);
					CHECK(p->level_end[level + 1] - p->level_begin[level + 1] + s->level_end[level + 1] - s->level_begin[level + 1] ==
					    s->level_end[level] - s->level_begin[level]);
				}
			}
			CHECK(covered == sizes[i]);
		}
	return check_done();
}
