/* SPDX-License-Identifier: Apache-2.0 */
/*
 * random - counter-based random numbers. Pure functions; stored caches and runs depend on every bit
 * (tests/unit/test_hash.c).
 */
#ifndef SALT_RANDOM_H
#define SALT_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* Philox4x32-10 (Salmon et al., 2011). key: (seed, purpose); counter: (seq low, seq high, position, draw). */
enum random_purpose {
	RANDOM_PURPOSE_ORDER = 1,	/* Feistel rounds of shuffle_order */
	RANDOM_PURPOSE_INIT = 2,	/* initial weights: seq = tensor number, position/draw = element */
	RANDOM_PURPOSE_LABEL = 3,	/* label sampling: seq, position, draw */
	RANDOM_PURPOSE_GENERATE = 4,	/* saltctl generate */
	RANDOM_PURPOSE_GROW = 5,	/* noise of a grown model: seq = tensor number, position/draw = pair of elements */
	RANDOM_PURPOSE_SPLIT = 6	/* saltctl corpus split: seq = document */
};

void random_philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]);
void random_words(uint32_t seed, enum random_purpose purpose, uint64_t seq, uint32_t position, uint32_t draw, uint32_t out[4]);

/* random_uniform53 - 53 bits of two words as a double in [0, 1). */
double random_uniform53(uint32_t hi, uint32_t lo);

/* random_normal - two standard normal floats from two words (Box-Muller in double). */
void random_normal(uint32_t a, uint32_t b, float out[2]);

/*
 * random_normals - 4 * n normal floats for the n groups first, first + 1, ...: the same bits as random_normal
 * of words 0 and 1, then of words 2 and 3, of random_words(seed, purpose, seq, low and high half of the
 * group's number); about 8 times as fast.
 */
void random_normals(uint32_t seed, enum random_purpose purpose, uint64_t seq, uint64_t first, size_t n, float *out);

#endif
