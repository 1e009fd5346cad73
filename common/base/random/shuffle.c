/* SPDX-License-Identifier: Apache-2.0 */
#include "base/random/shuffle.h"

#include "base/random/random.h"

#define ROUNDS 4

/* Half width of the network in bits: the smallest h with 4^h >= n. */
static unsigned
order_half_bits(uint64_t n)
{
	unsigned h = 1;

	while (h < 32 && (UINT64_C(1) << (2 * h)) < n)
		h++;
	return h;
}

/* Round function: h low bits of Philox; counter (half, epoch low, round, epoch high). */
static uint32_t
order_round(uint32_t seed, uint64_t epoch, uint32_t round, uint32_t half, uint32_t mask)
{
	const uint32_t key[2] = {seed, RANDOM_PURPOSE_ORDER};
	const uint32_t counter[4] = {half, (uint32_t)epoch, round, (uint32_t)(epoch >> 32)};
	uint32_t out[4];

	random_philox(key, counter, out);
	return out[0] & mask;
}

uint64_t
shuffle_order(uint32_t seed, uint64_t n, uint64_t p)
{
	unsigned h = order_half_bits(n);
	uint32_t mask = h == 32 ? UINT32_MAX : (UINT32_C(1) << h) - 1;
	uint64_t epoch = p / n, x = p % n;

	do {
		uint32_t left = (uint32_t)(x >> h), right = (uint32_t)x & mask;

		for (uint32_t round = 0; round < ROUNDS; round++) {
			uint32_t next = left ^ order_round(seed, epoch, round, right, mask);

			left = right;
			right = next;
		}
		x = (uint64_t)left << h | right;
	} while (x >= n);
	return x;
}

uint64_t
shuffle_position(uint32_t seed, uint64_t n, uint64_t epoch, uint64_t seq)
{
	unsigned h = order_half_bits(n);
	uint32_t mask = h == 32 ? UINT32_MAX : (UINT32_C(1) << h) - 1;
	uint64_t x = seq;

	do {
		uint32_t left = (uint32_t)(x >> h), right = (uint32_t)x & mask;

		for (uint32_t round = ROUNDS; round-- > 0;) {
			uint32_t prev = right ^ order_round(seed, epoch, round, left, mask);

			right = left;
			left = prev;
		}
		x = (uint64_t)left << h | right;
	} while (x >= n);
	return x;
}
