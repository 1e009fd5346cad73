/*
 * mem - sizes that cannot wrap and an arena for parsed input.
 */
#ifndef SALT_MEM_H
#define SALT_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* mem_mul, mem_add - *out = a*b, a+b; false (and *out untouched) if it does not fit. Use before any size from a file or message. */
bool mem_mul(size_t a, size_t b, size_t *out);
bool mem_add(size_t a, size_t b, size_t *out);

/* mem_alloc - n * size zeroed bytes, aligned to 64; NULL when it does not fit or there is no memory. Free with free(). */
void *mem_alloc(size_t n, size_t size);

/* mem_grow - realloc *p (an array of size-byte items, *cap of them) to hold at least need items; new items are not zeroed.
 * Returns 0 or ENOMEM with everything as it was. */
int mem_grow(void **p, size_t *cap, size_t need, size_t size);

/*
 * Arena: many small allocations of one lifetime. Pointers are good until mem_arena_destroy. One thread allocates; others may hold what
 * is there: each mem_arena_hold is one more holder, each mem_arena_destroy one less, and the last one frees.
 */
struct mem_arena;

struct mem_arena *mem_arena_new(size_t max_bytes);	/* 0: no limit. NULL without memory */
void mem_arena_expect(struct mem_arena *arena, size_t bytes);	/* before the first allocation: about so much in all, for one malloc */
struct mem_arena *mem_arena_hold(struct mem_arena *arena);	/* the same one; any thread */
void mem_arena_destroy(struct mem_arena **arena);	/* takes NULL; any thread */
void *mem_arena_alloc(struct mem_arena *arena, size_t bytes);	/* zeroed, aligned to 16; NULL past the limit */
void *mem_arena_alloc_raw(struct mem_arena *arena, size_t bytes);	/* the same, not zeroed */
char *mem_arena_strndup(struct mem_arena *arena, const char *s, size_t n);

#endif
