/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem/mem.h"

#include <errno.h>
#include "check.h"

int
main(void)
{
	size_t out = 7, cap = 0;
	struct mem_arena *a = mem_arena_new(1000), *held;
	void *items = NULL;
	char *s;

	CHECK(!mem_mul(SIZE_MAX / 2, 3, &out) && out == 7);
	CHECK(mem_mul(6, 7, &out) && out == 42);
	CHECK(!mem_add(SIZE_MAX, 1, &out) && out == 42);
	CHECK(mem_alloc(SIZE_MAX / 2, 4) == NULL);
	s = mem_alloc(3, 5);
	CHECK(s != NULL && (uintptr_t)s % 64 == 0 && s[14] == 0);
	free(s);
	CHECK(mem_grow(&items, &cap, 100, 8) == 0 && cap >= 100);
	CHECK(mem_grow(&items, &cap, SIZE_MAX / 4, 8) == ENOMEM && cap < 1000);
	free(items);
	REQUIRE(a != NULL);
	s = mem_arena_strndup(a, "hello", 4);
	CHECK_STR(s, "hell");
	CHECK(!mem_arena_at_limit(a));
	CHECK(mem_arena_alloc(a, 2000) == NULL && mem_arena_at_limit(a));
	CHECK(mem_arena_alloc(a, SIZE_MAX) == NULL);
	CHECK(mem_arena_alloc(a, 500) != NULL);
	held = mem_arena_hold(a);
	mem_arena_destroy(&a);
	CHECK(a == NULL);
	mem_arena_destroy(&a);
	/* still held by another; AddressSanitizer finds early frees and leaks */
	CHECK_STR(s, "hell");
	mem_arena_destroy(&held);
	CHECK(held == NULL);
	REQUIRE((a = mem_arena_new(0)) != NULL);
	mem_arena_expect(a, 100000);
	s = mem_arena_alloc(a, 40000);
	CHECK(s != NULL && (char *)mem_arena_alloc_raw(a, 50000) == s + 40000);		/* one chunk */
	s = mem_arena_alloc_raw(a, 70000);
	CHECK(s != NULL && (uintptr_t)s % 16 == 0);
	mem_arena_destroy(&a);
	return check_done();
}
