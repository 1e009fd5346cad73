/* SPDX-License-Identifier: Apache-2.0 */
#include "base/random/random_internal.h"

#include <math.h>

void
random_philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4])
{
	uint32_t k0 = key[0], k1 = key[1];
	uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];

	for (int round = 0; round < 10; round++)
		random__round(&k0, &k1, &c0, &c1, &c2, &c3);
	out[0] = c0;
	out[1] = c1;
	out[2] = c2;
	out[3] = c3;
}

void
random_words(uint32_t seed, enum random_purpose purpose, uint64_t seq, uint32_t position, uint32_t draw, uint32_t out[4])
{
	const uint32_t key[2] = {seed, (uint32_t)purpose};
	const uint32_t counter[4] = {(uint32_t)seq, (uint32_t)(seq >> 32), position, draw};

	random_philox(key, counter, out);
}

double
random_uniform53(uint32_t hi, uint32_t lo)
{
	return (double)(((uint64_t)hi << 32 | lo) >> 11) * 0x1p-53;
}

void
random_normal(uint32_t a, uint32_t b, float out[2])
{
	double u = ((double)a + 0.5) * 0x1p-32;		/* never 0 */
	double angle = 6.283185307179586476925 * ((double)b * 0x1p-32);
	double r = sqrt(-2.0 * log(u));

	out[0] = (float)(r * cos(angle));
	out[1] = (float)(r * sin(angle));
}
