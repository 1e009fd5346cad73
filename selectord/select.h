/*
 * select - the arithmetic of choosing sequences (SALT, arXiv 2410.18779, section on data selection). Arrays in, arrays out.
 */
#ifndef SALT_SELECTORD_SELECT_H
#define SALT_SELECTORD_SELECT_H

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
 * select_kept - K = floor(keep * W), keep taken as the decimal that was written (0.29 of 100 is 29, though 0.29 * 100 < 29 in binary);
 * the same number as config_block() gives.
 */
uint64_t select_kept(double keep, uint64_t window);

/*
 * select_block - the n_keep highest scores of a block; NaN never, ties to the lower position, kept ones in the order of their positions.
 * @score  float[n], NaN: not eligible
 * @kept   receives the offsets, ascending; room for min(n_keep, n)
 * @order  scratch, uint64[n]
 * Returns how many were kept: fewer than n_keep if fewer are eligible.
 */
uint64_t select_block(const float *score, uint64_t n, uint64_t n_keep, uint64_t *kept, uint64_t *order);

#endif
