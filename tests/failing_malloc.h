/* SPDX-License-Identifier: Apache-2.0 */
/*
 * failing_malloc - replaces the allocator of a test program by one that fails on request. Include it in one
 * file of the program. With sanitizers, which have their own allocator, FAILING_MALLOC is not defined and
 * nothing is replaced.
 */
#ifndef SALT_TESTS_FAILING_MALLOC_H
#define SALT_TESTS_FAILING_MALLOC_H

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define FAILING_MALLOC
#include <errno.h>
#include <stddef.h>

static long fail_at;			/* the fail_at-th allocation from now fails; 0: none */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t each);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

static int
malloc_fails(void)
{
	if (fail_at == 0 || --fail_at > 0)
		return 0;
	errno = ENOMEM;
	return 1;
}

void *
malloc(size_t n)
{
	return malloc_fails() ? NULL : __libc_malloc(n);
}

void *
calloc(size_t n, size_t each)
{
	return malloc_fails() ? NULL : __libc_calloc(n, each);
}

void *
realloc(void *p, size_t n)
{
	return malloc_fails() ? NULL : __libc_realloc(p, n);
}

void *
aligned_alloc(size_t align, size_t n)
{
	return malloc_fails() ? NULL : __libc_memalign(align, n);
}
#endif

#endif
