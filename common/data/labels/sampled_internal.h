/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the encoder and the decoder of sampled labels: the coder's constants and the adaptive bits.
 * docs/formats.md describes the whole format.
 *
 * The coder is rANS (Duda, 2013) with three 64-bit states and a stack of 32-bit words, in integer arithmetic:
 * the symbol that is decoded first was encoded last. There are three states because a step depends only on
 * the previous step of the same state, so a processor can overlap them.
 *
 * A row may refer to a similar earlier row of the record, its reference row; a bit for each id of that row
 * tells whether the id occurs again. The other ids are coded under the unigram table. Their order carries no
 * information, so the encoder chooses an order that it decodes from a state, which saves log2(n!) bits (bits
 * back; Townsend, Bird and Barber, 2019). The decoder sees that order and encodes its rank back, id by id.
 * Below the bottom of the stack there are as many zeros as are read.
 *
 * Then a bit for each id tells whether it was drawn more than once, and numbers follow that tell how much
 * more often. Bits have adaptive probabilities, which are reset for each record.
 */
#ifndef SALT_LABELS_SAMPLED_H
#define SALT_LABELS_SAMPLED_H

#include "data/labels/labels_internal.h"

#define LOW (UINT64_C(1) << 31)		/* a state is LOW .. 2^63 - 1 between steps */
#define P_BITS 15
#define P_ONE (1u << P_BITS)
#define P_MIN 24u
#define RATE_FIRST 24576
#define RATE_LAST 1024
#define RANK_BITS 24
#define KEY_CONTEXTS 16
#define RATIOS 16			/* contexts of labels__log2(draws / ids) */
#define STEPS 8				/* values of a number's length with their own contexts */
#define N_TREE_BITS 8			/* high bits of n with their own contexts */
#define BACK_BITS 8			/* bits of the distance to a reference row */
#define BACK_MAX ((1u << BACK_BITS) - 1)
#define BACK_TREE_BITS 4		/* bits of the length of that distance */

enum { BITS, IDS, RANKS, STATES };	/* the three states of the coder, and their number */

/* An adaptive bit: p, the probability of 1, in 2^-15; rate, in 2^-16, at which p moves to each value seen. */
struct bit {
	uint16_t p, rate;
};

struct bits {
	struct bit n[1 << N_TREE_BITS], back[1 << BACK_TREE_BITS], again[KEY_CONTEXTS], more[RATIOS][KEY_CONTEXTS];
	struct bit longer[RATIOS][STEPS], half[STEPS];
};

/* All bits begin with probability 1/2 and the fastest rate. */
static inline void
bits_init(struct bits *b)
{
	struct bit *all = (struct bit *)b;

	for (size_t i = 0; i < sizeof(*b) / sizeof(*all); i++)
		all[i] = (struct bit){P_ONE / 2, RATE_FIRST};
}

static inline void
bit_seen(struct bit *b, unsigned value)
{
	int32_t p = b->p, rate = b->rate, target = (int32_t)(P_MIN + (-value & (P_ONE - 2 * P_MIN)));

	b->p = (uint16_t)(p + ((target - p) * rate >> 16));
	b->rate = (uint16_t)(rate - ((rate - RATE_LAST) >> 3));
}

/*
 * A key is an id of a row with its context for bits in the lowest four bits: bits 2 and 3 its class
 * (labels__unigram.keys), bits 0 and 1 how often it was drawn in the reference row (0: the id is not in that
 * row, 1: once, 2: up to 3 times, 3: more often). Returns the key with the count of this row.
 */
static inline uint32_t
key_drawn(uint32_t key, uint32_t count)
{
	return (key & ~3u) + 1 + ((int32_t)count > 1) + ((int32_t)count > 3);
}

/* The most ids that a row can have; below, the number of bits of n - 1. */
static inline uint32_t
unique_max(const struct labels_spec *spec)
{
	return spec->n_samples < spec->vocab ? spec->n_samples : spec->vocab;
}

static inline unsigned
unique_bits(const struct labels_spec *spec)
{
	uint32_t max = unique_max(spec);

	return max > 1 ? labels__log2(max - 1) + 1 : 0;
}

#endif
