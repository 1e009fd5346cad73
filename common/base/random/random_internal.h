/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SALT_RANDOM_INTERNAL_H
#define SALT_RANDOM_INTERNAL_H

#include "base/random/random.h"

/* One of Philox's ten rounds. */
static inline __attribute__((always_inline)) void
random__round(uint32_t *k0, uint32_t *k1, uint32_t *c0, uint32_t *c1, uint32_t *c2, uint32_t *c3)
{
	uint64_t a = (uint64_t)0xD2511F53u * *c0, b = (uint64_t)0xCD9E8D57u * *c2;

	*c0 = (uint32_t)(b >> 32) ^ *c1 ^ *k0;
	*c2 = (uint32_t)(a >> 32) ^ *c3 ^ *k1;
	*c1 = (uint32_t)b;
	*c3 = (uint32_t)a;
	*k0 += 0x9E3779B9u;
	*k1 += 0xBB67AE85u;
}

#endif
