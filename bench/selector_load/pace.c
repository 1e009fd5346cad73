/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pace - simulates a slow disk for bench_selector_load --pace, with LD_PRELOAD: fdatasync waits until
 * PACE_MB_S allows the bytes that were written since the last call. It counts the writes of LMDB (pwrite,
 * pwritev, writev) and changes nothing else.
 */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static atomic_ullong written;

static void *
next(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

static ssize_t
counted(ssize_t n)
{
	if (n > 0)
		atomic_fetch_add(&written, (unsigned long long)n);
	return n;
}

/* The prototypes of the C library differ from these only in attributes. */
ssize_t
pwrite(int fd, const void *bytes, size_t n, off_t at)
{
	static ssize_t (*real)(int, const void *, size_t, off_t);

	if (real == NULL)
		*(void **)&real = next("pwrite");
	return counted(real(fd, bytes, n, at));
}

ssize_t
pwritev(int fd, const struct iovec *v, int n, off_t at)
{
	static ssize_t (*real)(int, const struct iovec *, int, off_t);

	if (real == NULL)
		*(void **)&real = next("pwritev");
	return counted(real(fd, v, n, at));
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off_t at);
ssize_t pwritev64(int fd, const struct iovec *v, int n, off_t at);

ssize_t
pwrite64(int fd, const void *bytes, size_t n, off_t at)
{
	return pwrite(fd, bytes, n, at);
}

ssize_t
pwritev64(int fd, const struct iovec *v, int n, off_t at)
{
	return pwritev(fd, v, n, at);
}

ssize_t
writev(int fd, const struct iovec *v, int n)
{
	static ssize_t (*real)(int, const struct iovec *, int);

	if (real == NULL)
		*(void **)&real = next("writev");
	return counted(real(fd, v, n));
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int
fdatasync(int fd)
{
	static int (*real)(int);
	static double free_at;			/* without a lock: only one thread syncs */
	const char *text = getenv("PACE_MB_S");
	double rate = text != NULL ? atof(text) * 1e6 : 0, start = now(), wait;
	int rc;

	if (real == NULL)
		*(void **)&real = next("fdatasync");
	rc = real(fd);
	if (!(rate > 0))
		return rc;
	if (free_at < start)
		free_at = start;
	free_at += (double)atomic_exchange(&written, 0) / rate;
	while ((wait = free_at - now()) > 0) {
		struct timespec t = {(time_t)wait, (long)((wait - (double)(time_t)wait) * 1e9)};

		nanosleep(&t, NULL);
	}
	return rc;
}
