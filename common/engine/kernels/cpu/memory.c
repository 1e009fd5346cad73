/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory - device memory of the CPU backends, which is host memory, and the scratch arrays of a kernels
 * handle.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log/log.h"
#include "base/mem/mem.h"
#include "engine/kernels/cpu/cpu.h"

/*
 * Large arrays are mapped: the system provides zeroed pages at the first access. So a start does not write
 * gigabytes of zeros that the first step overwrites, and one fault of a huge page replaces 512. Small arrays
 * come from mem_alloc; with the address sanitizer, which checks the bounds of malloc's arrays, all arrays do.
 */
#ifdef __SANITIZE_ADDRESS__
#define LARGE_BYTES SIZE_MAX
#else
#define LARGE_BYTES ((size_t)8 << 20)
#endif
#define HUGE_PAGE_BYTES ((size_t)2 << 20)
#define HEAD_BYTES 64
#define ZERO_BYTES ((size_t)1 << 20)	/* bytes that a thread zeroes at a time */

/* Stored in the HEAD_BYTES before an array. */
struct head {
	void *start;
	size_t mapped_bytes;			/* 0: from mem_alloc */
};

void *
cpu__alloc(struct kernels *k, size_t bytes)
{
	struct head *head;
	size_t all;
	char *start, *p;

	(void)k;
	if (bytes < LARGE_BYTES) {
		if (!mem_add(bytes, HEAD_BYTES, &all) || (start = mem_alloc(all, 1)) == NULL)
			return NULL;
		p = start + HEAD_BYTES;
		all = 0;
	} else {
		if (!mem_add(bytes, 2 * HUGE_PAGE_BYTES, &all) ||
		    (start = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) == MAP_FAILED)
			return NULL;
		p = start + HEAD_BYTES;
		p += (HUGE_PAGE_BYTES - (uintptr_t)p % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES;
		/* A hint only: small pages work as well. */
		(void)madvise(p, bytes, MADV_HUGEPAGE);
	}
	head = (struct head *)(void *)(p - HEAD_BYTES);
	head->start = start;
	head->mapped_bytes = all;
	return p;
}

void
cpu__free(struct kernels *k, void *p)
{
	struct head *head;

	(void)k;
	head = (struct head *)(void *)((char *)p - HEAD_BYTES);
	if (head->mapped_bytes > 0)
		munmap(head->start, head->mapped_bytes);
	else
		free(head->start);
}

void
cpu__zero(struct kernels *k, void *p, size_t bytes)
{
	int64_t pieces = (int64_t)((bytes + ZERO_BYTES - 1) / ZERO_BYTES);

#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && pieces > 1)
	for (int64_t i = 0; i < pieces; i++) {
		size_t at = (size_t)i * ZERO_BYTES;

		memset((char *)p + at, 0, bytes - at < ZERO_BYTES ? bytes - at : ZERO_BYTES);
	}
}

void
cpu__transfer(struct kernels *k, enum kernels__transfer kind, void *to, const void *from, size_t bytes)
{
	(void)k;
	(void)kind;
	if (bytes > 0)
		memmove(to, from, bytes);
}

static float *
grown(struct kernels *k, float **room, size_t *room_bytes, size_t n)
{
	size_t bytes;

	if (!mem_mul(n, sizeof(float), &bytes))
		log_fatal("kernels.memory", "floats=%zu", n);
	if (bytes > *room_bytes) {
		if (*room != NULL)
			cpu__free(k, *room);
		if ((*room = cpu__alloc(k, bytes)) == NULL)
			log_fatal("kernels.memory", "bytes=%zu", bytes);
		*room_bytes = bytes;
	}
	return *room;
}

float *
cpu__scratch(struct kernels *k, size_t n)
{
	return grown(k, &k->scratch, &k->scratch_bytes, n);
}

float *
cpu__panels(struct kernels *k, size_t n)
{
	return grown(k, &k->panels, &k->panels_bytes, n);
}

float *
cpu__packed(struct kernels *k, size_t n)
{
	return grown(k, &k->packed, &k->packed_bytes, n);
}

void *
cpu__host_pointer(struct kernels *k, void *p)
{
	(void)k;
	return p;
}
