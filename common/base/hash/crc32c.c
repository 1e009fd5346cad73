/* SPDX-License-Identifier: Apache-2.0 */
#include <isa-l/crc.h>
#include <limits.h>

#include "base/hash/hash.h"

uint32_t
hash_crc32c(const void *p, size_t n)
{
	const unsigned char *at = p;
	uint32_t crc = 0xffffffff;

	while (n > 0) {
		int piece = n < INT_MAX ? (int)n : INT_MAX;

		crc = crc32_iscsi((unsigned char *)(uintptr_t)at, piece, crc);
		at += piece;
		n -= (size_t)piece;
	}
	return ~crc;
}
