/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem/mem.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 65536 };

bool
mem_mul(size_t a, size_t b, size_t *out)
{
	size_t r;

	if (__builtin_mul_overflow(a, b, &r))
		return false;
	*out = r;
	return true;
}

bool
mem_add(size_t a, size_t b, size_t *out)
{
	size_t r;

	if (__builtin_add_overflow(a, b, &r))
		return false;
	*out = r;
	return true;
}

void *
mem_alloc(size_t n, size_t size)
{
	size_t bytes;
	void *p;

	if (!mem_mul(n, size, &bytes) || bytes > (size_t)PTRDIFF_MAX - 64)
		return NULL;
	bytes = (bytes + 63) / 64 * 64;
	if (bytes == 0)
		bytes = 64;
	if ((p = aligned_alloc(64, bytes)) != NULL)
		memset(p, 0, bytes);
	return p;
}

int
mem_grow(void **p, size_t *cap, size_t need, size_t size)
{
	size_t n = *cap < 16 ? 16 : *cap, bytes;
	void *q;

	if (need <= *cap)
		return 0;
	while (n < need)
		if (!mem_mul(n, 2, &n))
			return ENOMEM;
	if (!mem_mul(n, size, &bytes) || (q = realloc(*p, bytes)) == NULL)
		return ENOMEM;
	*p = q;
	*cap = n;
	return 0;
}

struct mem_chunk {
	struct mem_chunk *next;
	size_t used, size;
	_Alignas(16) unsigned char data[];
};

struct mem_arena {
	struct mem_chunk *chunks;
	size_t total, max, chunk_bytes;
	atomic_uint n_holders;
	bool at_limit;
};

struct mem_arena *
mem_arena_new(size_t max_bytes)
{
	struct mem_arena *a = calloc(1, sizeof(*a));

	if (a == NULL)
		return NULL;
	a->max = max_bytes != 0 ? max_bytes : SIZE_MAX;
	a->chunk_bytes = CHUNK_BYTES;
	atomic_init(&a->n_holders, 1);
	return a;
}

void
mem_arena_expect(struct mem_arena *a, size_t bytes)
{
	a->chunk_bytes = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
}

struct mem_arena *
mem_arena_hold(struct mem_arena *a)
{
	atomic_fetch_add(&a->n_holders, 1);
	return a;
}

void
mem_arena_destroy(struct mem_arena **arena)
{
	if (*arena == NULL)
		return;
	if (atomic_fetch_sub(&(*arena)->n_holders, 1) > 1) {
		*arena = NULL;
		return;
	}
	for (struct mem_chunk *c = (*arena)->chunks, *next; c != NULL; c = next) {
		next = c->next;
		free(c);
	}
	free(*arena);
	*arena = NULL;
}

bool
mem_arena_at_limit(const struct mem_arena *a)
{
	return a->at_limit;
}

void *
mem_arena_alloc_raw(struct mem_arena *a, size_t bytes)
{
	struct mem_chunk *c = a->chunks;
	size_t need = bytes <= SIZE_MAX - 64 ? (bytes + 15) / 16 * 16 : SIZE_MAX, total;
	void *p;

	if (need == SIZE_MAX || !mem_add(a->total, need, &total) || total > a->max) {
		a->at_limit = true;
		return NULL;
	}
	if (c == NULL || c->size - c->used < need) {
		size_t size = need > a->chunk_bytes ? need : a->chunk_bytes;

		a->chunk_bytes = CHUNK_BYTES;
		if ((c = malloc(sizeof(*c) + size)) == NULL)
			return NULL;
		*c = (struct mem_chunk){.size = size, .next = a->chunks};
		a->chunks = c;
	}
	p = c->data + c->used;
	c->used += need;
	a->total = total;
	return p;
}

void *
mem_arena_alloc(struct mem_arena *a, size_t bytes)
{
	void *p = mem_arena_alloc_raw(a, bytes);

	return p != NULL ? memset(p, 0, bytes) : NULL;
}

char *
mem_arena_strndup(struct mem_arena *a, const char *s, size_t n)
{
	char *p = n < SIZE_MAX ? mem_arena_alloc(a, n + 1) : NULL;

	if (p != NULL)
		memcpy(p, s, n);
	return p;
}
