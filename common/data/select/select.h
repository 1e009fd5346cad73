/* SPDX-License-Identifier: Apache-2.0 */
/*
 * select - the arithmetic of choosing sequences (SALT, arXiv 2410.18779, section on data selection). Arrays
 * in, arrays out.
 */
#ifndef SALT_SELECT_H
#define SALT_SELECT_H

#include <stddef.h>
#include <stdint.h>

/*
 * select_score - S(x) = median over t of 1{rank_t < k} * loss_t, nats. Masked tokens count as 0 and stay in
 * the median; an even count takes the mean of the two middle values. A token with loss 0 and rank
 * 255 has no prediction (data/labels/labels.h) and is left out.
 * @loss_nats  float[n]; NaN anywhere gives NaN
 * @rank       uint8[n], rank of the true token, 255 = 255 or more; so k <= 255
 * @scratch    float[n]
 * No token gives NaN. Pure.
 */
double select_score(const float *loss_nats, const uint8_t *rank, size_t n, unsigned k, float *scratch);

/*
 * select_kept - K = floor(keep * W), keep read as the decimal number that was written (0.29 of 100 is 29,
 * although 0.29 * 100 < 29 in binary); the same number as config_block() gives.
 */
uint64_t select_kept(double keep, uint64_t window);

/*
 * select_parts - how many rows of block `no` each part of a blend gets, where rows are chosen within each
 * part: as many as it has among the positions no * kept .. (no + 1) * kept - 1 of the order, so that the rows
 * of all blocks together have the blend's shares; at most as many as it has in the block, in which case the
 * parts before others get the rest.
 * @window  W; @kept K <= W
 * @rows    uint64[blend_n_parts], their sum is K
 */
struct blend;
void select_parts(const struct blend *order, uint64_t no, uint64_t window, uint64_t kept, uint64_t *rows);

/*
 * select_cut - the n_keep highest scores of a block: NaN never, ties to the lower position. Nothing is
 * sorted; the passes over the positions can be cut into steps of any length, so that a block of millions does
 * not stop the caller. Start with {.n_keep = K}, then
 *   select_cut_count over all positions, select_cut_next, select_cut_count over all positions, select_cut_next,
 *   and select_take with select_cut_limit's result once for each position, ascending: is it kept?
 * Where fewer are eligible than were wanted, positions with NaN fill the rest up, the lower ones first.
 * After the first pass n_eligible (scores that are not NaN) is known and n_keep is at most that. A score's
 * key is its bits in the order of floats, 16 of them for each pass.
 */
struct select_cut {
	uint64_t n_keep;
	uint64_t n_eligible, n_above, n_ties;	/* above the key; of those equal to it, still to be taken */
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

/* n_keep: as it was given at the start. */
struct select_limit select_cut_limit(const struct select_cut *cut, uint64_t n_keep);
int select_take(struct select_limit *limit, float score);	/* 0 or 1 */

#endif
