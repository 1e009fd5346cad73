/* Memory of the CPU backends. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/kernels/kernels_internal.h"
#include "base/mem/mem.h"

/*
 * Large arrays come straight from the system, which hands out zeroed pages when they are first touched: a start does not write gigabytes
 * of zeros that the first step writes over, and huge pages, where the system grants them, cost one fault for 512 small ones.
 * Small ones, and all of them under the address sanitizer, which watches malloc's edges, come from mem_alloc.
 */
#ifdef __SANITIZE_ADDRESS__
#define LARGE_BYTES SIZE_MAX
#else
#define LARGE_BYTES ((size_t)8 << 20)
#endif
#define HUGE_PAGE_BYTES ((size_t)2 << 20)
#define HEAD_BYTES 64

/* In the HEAD_BYTES before an array. */
struct head {
	void *start;
	size_t mapped_bytes;			/* 0: from mem_alloc */
};

void *
kernels_alloc(struct kernels *k, size_t bytes)
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
		/* Advice: without huge pages the small ones do. */
		(void)madvise(p, bytes, MADV_HUGEPAGE);
	}
	head = (struct head *)(void *)(p - HEAD_BYTES);
	head->start = start;
	head->mapped_bytes = all;
	return p;
}

void
kernels_free(struct kernels *k, void *p)
{
	struct head *head;

	(void)k;
	if (p == NULL)
		return;
	head = (struct head *)(void *)((char *)p - HEAD_BYTES);
	if (head->mapped_bytes > 0)
		munmap(head->start, head->mapped_bytes);
	else
		free(head->start);
}

void
kernels_zero(struct kernels *k, void *p, size_t bytes)
{
	(void)k;
	if (bytes > 0)
		memset(p, 0, bytes);
}

void
kernels_copy(struct kernels *k, void *to, const void *from, size_t bytes)
{
	(void)k;
	if (bytes > 0)
		memmove(to, from, bytes);
}

void
kernels_upload(struct kernels *k, void *to, const void *host, size_t bytes)
{
	kernels_copy(k, to, host, bytes);
}

void
kernels_download(struct kernels *k, void *host, const void *from, size_t bytes)
{
	kernels_copy(k, host, from, bytes);
}

void
kernels_download_start(struct kernels *k, void *host, const void *from, size_t bytes)
{
	kernels_copy(k, host, from, bytes);
}

void
kernels_sync(struct kernels *k)
{
	(void)k;
}

void *
kernels_host_pointer(struct kernels *k, void *p)
{
	(void)k;
	return p;
}

void *
kernels_host_alloc(struct kernels *k, size_t bytes)
{
	return kernels_alloc(k, bytes);
}

void
kernels_host_free(struct kernels *k, void *p)
{
	kernels_free(k, p);
}

/* On the CPU all work is done when its call returns, so an event holds nothing. */
struct kernels_event {
	char unused;
};

struct kernels_event *
kernels_event_new(struct kernels *k)
{
	(void)k;
	return calloc(1, sizeof(struct kernels_event));
}

void
kernels_event_destroy(struct kernels *k, struct kernels_event **e)
{
	(void)k;
	free(*e);
	*e = NULL;
}

void
kernels_event_record(struct kernels *k, struct kernels_event *e)
{
	(void)k;
	(void)e;
}

bool
kernels_event_done(struct kernels *k, const struct kernels_event *e)
{
	(void)k;
	(void)e;
	return true;
}

void
kernels_event_wait(struct kernels *k, const struct kernels_event *e)
{
	(void)k;
	(void)e;
}
