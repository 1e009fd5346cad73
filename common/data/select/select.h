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
 * the median; an even count takes the mean of the two middle values.
 * @loss_nats  float[n]; NaN anywhere gives NaN
 * @rank       uint8[n], rank of the true token, 255 = 255 or more; so k <= 255
 * @scratch    float[n]
 * n = 0 gives NaN. Pure.
 */
double select_score(const float *loss_nats, const uint8_t *rank, size_t n, unsigned k, float *scratch);

/*
 * select_kept - K = floor(keep * W), keep read as the decimal number that was written (0.29 of 100 is 29,
 * although 0.29 * 100 < 29 in binary); the same number as config_block() gives.
 */
uint64_t select_kept(double keep, uint64_t window);

/*
 * select_cut - the n_keep highest scores of a block: NaN never, ties to the lower position. Nothing is
 * sorted; the passes over the positions can be cut into steps of any length, so that a block of millions does
 * not stop the caller. Start with {.n_keep = K}, then
 *   select_cut_count over all positions, select_cut_next, select_cut_count over all positions, select_cut_next,
 *   and select_cut_take once for each position, ascending: is it kept?
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
int select_cut_take(struct select_cut *cut, float score);	/* 0 or 1 */

#endif
