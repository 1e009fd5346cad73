/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem - size arithmetic with overflow checks, zeroed memory, growing arrays, and an arena for parsed input.
 */
#ifndef SALT_MEM_H
#define SALT_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * mem_mul, mem_add - set *out to a * b or a + b. On overflow they return false and leave *out unchanged. Use
 * them for sizes from a file or message.
 */
bool mem_mul(size_t a, size_t b, size_t *out);
bool mem_add(size_t a, size_t b, size_t *out);

/*
 * mem_alloc - allocates n * size zeroed bytes, aligned to 64; NULL if the product overflows or there is no
 * memory. Free with free().
 */
void *mem_alloc(size_t n, size_t size);

/*
 * mem_grow - makes the array *p of *cap items of size bytes hold at least need items. New items are not
 * zeroed. Returns 0, or ENOMEM with nothing changed.
 */
int mem_grow(void **p, size_t *cap, size_t need, size_t size);

/*
 * An arena holds many small allocations that are freed together. It is reference counted: mem_arena_new and
 * mem_arena_hold add a reference, mem_arena_destroy drops one, and the last one frees. Pointers are valid
 * while the caller has a reference. One thread allocates.
 */
struct mem_arena;

struct mem_arena *mem_arena_new(size_t max_bytes);	/* 0: no limit. NULL without memory */
void mem_arena_expect(struct mem_arena *arena, size_t bytes);	/* hint before the first call: total bytes */
struct mem_arena *mem_arena_hold(struct mem_arena *arena);	/* returns arena; any thread */
void mem_arena_destroy(struct mem_arena **arena);	/* takes NULL; any thread */
bool mem_arena_at_limit(const struct mem_arena *arena);	/* an allocation failed because of max_bytes */
void *mem_arena_alloc(struct mem_arena *arena, size_t bytes);	/* zeroed, aligned to 16; NULL beyond the limit */
void *mem_arena_alloc_raw(struct mem_arena *arena, size_t bytes);	/* the same, but not zeroed */
char *mem_arena_strndup(struct mem_arena *arena, const char *s, size_t n);

#endif
