/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the encoder and the decoder of sampled labels share: the coder's constants and the adaptive bits.
 * docs/formats.md describes the whole format.
 *
 * The coder is a stack (rANS; Duda, 2013) of 32-bit words with three 64-bit states, integers only: what is
 * decoded first was encoded last. There are three states because a step depends only on the previous step of
 * the same state, so a processor can overlap them.
 *
 * A row may refer to a similar earlier row of the record; a bit for each of that row's ids tells whether the
 * id occurs again. The other ids are coded under the unigram table. They are a set: the encoder takes them in
 * an order that it decodes from a state, which saves log2(n!) bits (bits back; Townsend, Bird and Barber,
 * 2019). The decoder sees that order and encodes its rank back, id by id. Reading below the bottom of the
 * stack gives zeros, as many as are needed.
 *
 * Then follow a bit for each id that tells whether it was drawn more than once, and how much more often. Bits
 * have adaptive probabilities, which are reset for each record.
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
#define STEPS 8				/* of a number's length that have contexts of their own */
#define N_TREE_BITS 8			/* of n that do */
#define BACK_BITS 8			/* of how many rows back a row is that another one is like */
#define BACK_MAX ((1u << BACK_BITS) - 1)
#define BACK_TREE_BITS 4		/* of how many bits that number has */

enum { BITS, IDS, RANKS, STATES };	/* whose state */

/* An adaptive bit: probability of 1 in 2^15, and how far it goes towards what came, in 2^16. */
struct bit {
	uint16_t p, rate;
};

struct bits {
	struct bit n[1 << N_TREE_BITS], back[1 << BACK_TREE_BITS], again[KEY_CONTEXTS], more[RATIOS][KEY_CONTEXTS];
	struct bit longer[RATIOS][STEPS], half[STEPS];
};

/* All begin even and quick to learn. */
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
 * A key is an id of a row, and in the lowest four bits its context in bits: how common it is
 * (labels__unigram.keys), and how often it was drawn in the row that this one is like (0 for an id that is
 * new here, 1 for once, 2 for up to 3 times, 3 for more).
 */
static inline uint32_t
key_drawn(uint32_t key, uint32_t count)
{
	return (key & ~3u) + 1 + ((int32_t)count > 1) + ((int32_t)count > 3);
}

/* The most ids a row can have, and the bits of n - 1. */
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
