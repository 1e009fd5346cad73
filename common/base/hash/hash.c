/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/mem/mem.h"

struct hash_state {
	XXH3_state_t *x;
};

struct hash128
hash_bytes(const void *p, size_t n)
{
	XXH128_hash_t h = XXH3_128bits(p, n);

	return (struct hash128){.hi = h.high64, .lo = h.low64};
}

uint64_t
hash_bytes64(const void *p, size_t n)
{
	return XXH3_64bits(p, n);
}

int
hash_equal(struct hash128 a, struct hash128 b)
{
	return a.hi == b.hi && a.lo == b.lo;
}

const char *
hash_hex(struct hash128 h, char buf[HASH_HEX_BYTES])
{
	snprintf(buf, HASH_HEX_BYTES, "%016llx%016llx", (unsigned long long)h.hi, (unsigned long long)h.lo);
	return buf;
}

int
hash_from_hex(struct hash128 *out, const char *hex)
{
	uint64_t half[2] = {0, 0};

	for (int i = 0; i < 32; i++) {
		char c = hex[i];
		int digit;

		if (c >= '0' && c <= '9')
			digit = c - '0';
		else if (c >= 'a' && c <= 'f')
			digit = c - 'a' + 10;
		else
			return ERR_FORMAT;
		half[i / 16] = half[i / 16] << 4 | (uint64_t)digit;
	}
	if (hex[32] != '\0')
		return ERR_FORMAT;
	*out = (struct hash128){.hi = half[0], .lo = half[1]};
	return 0;
}

struct hash128
hash_tokens(const int32_t *ids, size_t n)
{
	return hash_bytes(ids, n * sizeof(ids[0]));	/* little-endian hosts only; CMake refuses others */
}

struct hash_state *
hash_new(void)
{
	struct hash_state *h = calloc(1, sizeof(*h));

	if (h == NULL)
		return NULL;
	if ((h->x = XXH3_createState()) == NULL) {
		free(h);
		return NULL;
	}
	XXH3_128bits_reset(h->x);
	return h;
}

void
hash_destroy(struct hash_state **h)
{
	if (*h == NULL)
		return;
	XXH3_freeState((*h)->x);
	free(*h);
	*h = NULL;
}

void
hash_update(struct hash_state *h, const void *p, size_t n)
{
	if (n > 0)
		XXH3_128bits_update(h->x, p, n);
}

void
hash_field_begin(struct hash_state *h, const char *name, uint64_t n)
{
	hash_update(h, name, strlen(name) + 1);
	hash_update(h, &n, sizeof(n));
}

void
hash_field(struct hash_state *h, const char *name, const void *p, size_t n)
{
	hash_field_begin(h, name, n);
	hash_update(h, p, n);
}

void
hash_field_u64(struct hash_state *h, const char *name, uint64_t v)
{
	hash_field(h, name, &v, sizeof(v));
}

void
hash_field_str(struct hash_state *h, const char *name, const char *s)
{
	hash_field(h, name, s, strlen(s));
}

struct hash128
hash_digest(const struct hash_state *h)
{
	XXH128_hash_t d = XXH3_128bits_digest(h->x);

	return (struct hash128){.hi = d.high64, .lo = d.low64};
}
