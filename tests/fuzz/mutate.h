/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mutate - seeded mutations of a kept input, for readers that must reject any bytes without an invalid
 * access. Deterministic: the seed is printed.
 */
#ifndef SALT_MUTATE_H
#define SALT_MUTATE_H

#include <stdint.h>
#include <string.h>
#include "../check.h"

static uint64_t fuzz_state;

/* xorshift64* (Vigna, 2016) */
static inline uint32_t
fuzz_u32(void)
{
	fuzz_state ^= fuzz_state >> 12;
	fuzz_state ^= fuzz_state << 25;
	fuzz_state ^= fuzz_state >> 27;
	return (uint32_t)(fuzz_state * UINT64_C(2685821657736338717) >> 32);
}

static inline void
fuzz_seed(uint64_t seed)
{
	fprintf(stderr, "fuzz seed %llu\n", (unsigned long long)seed);
	fuzz_state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

/*
 * Makes 1 to 4 changes in p[0..n): flips bits, replaces bytes, writes edge values, removes or repeats ranges.
 * p has room for cap bytes. Returns the new length.
 */
static inline size_t
fuzz_mutate(uint8_t *p, size_t n, size_t cap)
{
	static const uint64_t edges[] = {0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, UINT64_C(1) << 63, UINT64_MAX};
	uint32_t changes = 1 + fuzz_u32() % 4;

	while (changes-- > 0 && n > 0) {
		size_t at = fuzz_u32() % n, len = 1 + fuzz_u32() % 8;
		uint64_t edge = edges[fuzz_u32() % (sizeof(edges) / sizeof(edges[0]))];

		switch (fuzz_u32() % 5) {
		case 0:
			p[at] ^= (uint8_t)(1u << fuzz_u32() % 8);
			break;
		case 1:
			p[at] = (uint8_t)fuzz_u32();
			break;
		case 2:
			memcpy(p + at, &edge, len < n - at ? len : n - at);
			break;
		case 3:
			len = len < n - at ? len : n - at;
			memmove(p + at, p + at + len, n - at - len);
			n -= len;
			break;
		default:
			if (n + len > cap)
				break;
			memmove(p + at + len, p + at, n - at);
			n += len;
		}
	}
	return n;
}

#endif
