/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blend - the order in which the sequences of one corpus, or of several with weights (a blend), are visited:
 * a pure function of the parts, the seed and the position. Rows, blocks and labels depend on it;
 * docs/formats.md defines it.
 *
 * A sequence (window) is addressed by one number, its index: the n_i windows of part i have the indexes from
 * first_i on, where first_i is the number of windows of the parts before it. So a label or a score belongs to
 * a window, however often and whenever the blend visits it.
 *
 * The part at position p is chosen by Megatron-LM's rule (build_blending_indices in
 * megatron/core/datasets/helpers.cpp): the part that is furthest behind its share, the first of equals:
 *
 *     part(q) = argmax_i  share_i * max(q, 1) - taken_i * period
 *     with q = p mod period and taken_i = the number of positions below q that visit part i
 *
 * in integers: the shares are integers whose sum is the period. In each period part i is taken exactly
 * share_i times, so the choice of parts repeats, a table gives the part at any position, and no rounding
 * depends on the machine. (Megatron computes in doubles and does not restart; the shares after each period
 * are the same.) The j-th sequence that is taken from part i is the j-th of its own shuffle order,
 * shuffle_order(seed + i, n_i, j): each part goes through its epochs at its own pace.
 *
 * One part: index = shuffle_order(seed, n, p), no table.
 */
#ifndef SALT_BLEND_H
#define SALT_BLEND_H

#include <stddef.h>
#include <stdint.h>
#include "base/err/err.h"

#define BLEND_PARTS_MAX 128u
#define BLEND_PERIOD_MAX (UINT32_C(1) << 20)

/*
 * blend_shares - converts weights to integers whose sum is the period of the blend. The period is the
 * smallest one, up to BLEND_PERIOD_MAX, for which every weight / (sum of the weights) * period is an integer
 * (within 1e-6); if there is none, it is BLEND_PERIOD_MAX, and the shares are rounded by largest remainders.
 * @weights  [n], n >= 1; @shares [n]
 * Returns 0; ERR_RANGE with *bad: the first weight that is not positive and finite, or is too small for one
 * position in a period.
 */
int blend_shares(const double *weights, size_t n, uint32_t *shares, size_t *bad);

struct blend;

/*
 * blend_new - @n_windows [n], above 0; @shares [n], above 0, with a sum of at most BLEND_PERIOD_MAX (not used
 * for one part). Memory: 9 bytes for each position of a period, at most 9 MiB; none for one part.
 * Returns 0 and *b (blend_destroy it), ERR_RANGE (these limits) or ENOMEM. Read-only afterwards: any thread.
 */
int blend_new(struct blend **b, const uint64_t *n_windows, const uint32_t *shares, size_t n, struct err_note *note);
void blend_destroy(struct blend **b);		/* takes NULL */

size_t blend_n_parts(const struct blend *b);
uint64_t blend_n_windows(const struct blend *b);			/* sum over the parts */
uint32_t blend_share(const struct blend *b, size_t part, uint32_t *period);
size_t blend_part_at(const struct blend *b, uint64_t p);		/* the part of position p */

/* blend_order - the index at position p. */
uint64_t blend_order(const struct blend *b, uint32_t seed, uint64_t p);

/*
 * blend_position - the position at which index is visited for the (epoch + 1)-th time; it grows with epoch.
 * UINT64_MAX if it does not fit in 64 bits.
 */
uint64_t blend_position(const struct blend *b, uint32_t seed, uint64_t epoch, uint64_t index);

/*
 * blend_epoch_at - the epoch that index's part has reached at position p. The last visit of index at or below
 * p, if there is one, is at its blend_position in this epoch or in the one before.
 */
uint64_t blend_epoch_at(const struct blend *b, uint64_t index, uint64_t p);

/* blend_round - the position below which every sequence is visited at least once; n for one part. */
uint64_t blend_round(const struct blend *b);

/* blend_taken - how many positions below p visit this part. */
uint64_t blend_taken(const struct blend *b, size_t part, uint64_t p);

#endif
