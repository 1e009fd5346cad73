/* SPDX-License-Identifier: Apache-2.0 */
/*
 * select - the arithmetic of choosing sequences (SALT, arXiv 2410.18779, section on data selection). Works on
 * arrays only.
 */
#ifndef SALT_SELECT_H
#define SALT_SELECT_H

#include <stddef.h>
#include <stdint.h>

/*
 * select_score - S(x) = median over t of 1{rank_t < k} * loss_t, in nats. Tokens with rank_t >= k count as 0;
 * for an even count the median is the mean of the two middle values. A token with loss 0 and rank 255 has no
 * prediction (data/labels/labels.h) and is left out.
 * @loss_nats  float[n]; the result is NaN if any is NaN
 * @rank       uint8[n], rank of the true token, 255 = 255 or more; so k <= 255
 * @scratch    float[n]
 * The result is NaN if no token is left. Pure.
 */
double select_score(const float *loss_nats, const uint8_t *rank, size_t n, unsigned k, float *scratch);

/*
 * select_kept - K = floor(keep * W), with keep taken as the decimal number that was written (0.29 of 100 is
 * 29, although 0.29 * 100 < 29 in binary). config_block() computes the same K.
 */
uint64_t select_kept(double keep, uint64_t window);

/*
 * select_parts - the number of rows of block `no` for each part of a blend, within which rows are then
 * chosen. A part gets as many rows as it has positions among no * kept .. (no + 1) * kept - 1 of the order,
 * so that the rows of all blocks together have the blend's shares. It gets at most as many as it has
 * positions in the block; the remaining rows go to the first parts that have more positions.
 * @window  W; @kept K <= W
 * @rows    uint64[blend_n_parts], their sum is K
 */
struct blend;
void select_parts(const struct blend *order, uint64_t no, uint64_t window, uint64_t kept, uint64_t *rows);

/*
 * select_cut - finds the n_keep highest scores of a block. Of equal scores the lower position is chosen.
 * Nothing is sorted, and each pass over the positions can be split into steps of any length, so that a block
 * of millions does not block the caller's loop. Start with {.n_keep = K}, then call
 *   twice: select_cut_count over all positions, then select_cut_next;
 *   select_take with select_cut_limit's result once for each position, ascending; 1: it is chosen.
 * A position with NaN is chosen only if there are fewer than K other scores; the lower positions come first.
 * After the first pass n_eligible (scores that are not NaN) is known, and n_keep is at most n_eligible. The
 * key of a score is its bits, changed so that keys sort as the scores do; each pass uses 16 bits.
 */
struct select_cut {
	uint64_t n_keep;
	uint64_t n_eligible, n_above, n_ties;	/* scores above key; scores equal to key to be chosen */
	uint32_t key;
	int pass;
	uint64_t bins[1 << 16];
};

void select_cut_count(struct select_cut *cut, const float *score, uint64_t n);
void select_cut_next(struct select_cut *cut);

struct select_limit {
	uint64_t n_keep, n_ties, n_fill;
	uint32_t key;
};

/* n_keep: K, as given at the start. */
struct select_limit select_cut_limit(const struct select_cut *cut, uint64_t n_keep);
int select_take(struct select_limit *limit, float score);	/* 0 or 1 */

#endif
