/*
 * select - the arithmetic of choosing sequences (SALT, arXiv 2410.18779, section on data selection). Arrays in, arrays out.
 */
#ifndef SALT_SELECT_H
#define SALT_SELECT_H

#include <stddef.h>
#include <stdint.h>

/*
 * select_score - S(x) = median over t of 1{rank_t < k} * loss_t, nats. Masked tokens count as 0 and stay in the median; an even count
 * takes the mean of the two middle values.
 * @loss_nats  float[n]; NaN anywhere gives NaN
 * @rank       uint8[n], rank of the true token, 255 = 255 or more; so k <= 255
 * @scratch    float[n]
 * n = 0 gives NaN. Pure.
 */
double select_score(const float *loss_nats, const uint8_t *rank, size_t n, unsigned k, float *scratch);

/*
 * select_kept - K = floor(keep * W), keep read as the decimal number that was written (0.29 of 100 is 29, although 0.29 * 100 < 29 in binary);
 * the same number as config_block() gives.
 */
uint64_t select_kept(double keep, uint64_t window);

/*
 * select_block - the n_keep highest scores of a block; NaN is never chosen, ties go to the lower position, the result is in the order of positions.
 * @score  float[n], NaN: not eligible
 * @kept   receives the offsets, ascending; room for min(n_keep, n)
 * @order  scratch, uint64[n]
 * Returns how many were kept: fewer than n_keep if fewer are eligible.
 */
uint64_t select_block(const float *score, uint64_t n, uint64_t n_keep, uint64_t *kept, uint64_t *order);

/*
 * select_cut - the same choice in passes over the positions. Each pass can be divided into steps of any size and nothing is sorted, so a
 * block of millions of positions does not delay other work. Initialise it with {.n_keep = K}; then
 *   select_cut_count over all positions, select_cut_next, select_cut_count over all positions, select_cut_next,
 *   and select_cut_take once for each position, ascending: is it kept?
 * n_eligible (not NaN) is known after the first pass. A score's key is its bits in the order of floats, 16 of them a pass.
 */
struct select_cut {
	uint64_t n_keep;
	uint64_t n_eligible, n_above, n_ties;	/* above the key; of those equal to it, how many are still to be taken */
	uint32_t key;
	int pass;
	uint64_t bins[1 << 16];
};

void select_cut_count(struct select_cut *cut, const float *score, uint64_t n);
void select_cut_next(struct select_cut *cut);
int select_cut_take(struct select_cut *cut, float score);	/* 0 or 1 */

#endif
