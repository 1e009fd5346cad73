/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fixture - arrays with guards around them, seeded random numbers, and comparisons relative to the size of
 * the values. TEST_SEED in the environment sets another seed.
 */
#ifndef SALT_TESTS_KERNELS_FIXTURE_H
#define SALT_TESTS_KERNELS_FIXTURE_H

#include <stdint.h>

#include "base/random/random.h"
#include "check.h"
#include "base/hash/hash.h"
#include "engine/kernels/kernels_internal.h"

/*
 * With KERNELS_MIRROR the test runs the CUDA kernels on the emulation. It is slow, so the sizes are smaller,
 * and one kernels handle is used instead of FIXTURE_TEAMS handles with different numbers of threads.
 * CUDA_EMU_SEED selects another order of the device's threads.
 */
#ifdef KERNELS_MIRROR
#include "mirror.h"
#define FIXTURE_MIRROR true
#define FIXTURE_TEAMS 1
#else
#define FIXTURE_MIRROR false
#define FIXTURE_TEAMS 3
#endif
#define FIXTURE_GUARD 37		/* floats; odd, so that no array is aligned by chance */
#define FIXTURE_ROOMS 256

static uint32_t fixture_seed;
static uint32_t fixture_drawn;
static struct {
	float *all;
	int64_t n;
} fixture_rooms[FIXTURE_ROOMS];
static int fixture_n_rooms;

static inline void
fixture_start(void)
{
	const char *s = getenv("TEST_SEED");

	fixture_seed = s != NULL ? (uint32_t)strtoul(s, NULL, 10) : 20260117;
	fprintf(stderr, "seed %u\n", fixture_seed);
}

static inline struct kernels *
fixture_context(const struct kernels_options *options)
{
#ifdef KERNELS_MIRROR
	return mirror_new(options->dtype == KERNELS_DTYPE_BF16 ? DTYPE_BF16 : DTYPE_F32);
#else
	struct kernels *k = NULL;
	struct err_note note;

	REQUIRE(kernels_new(&k, options, &note) == 0);
	k->small = 0;			/* small sizes use all threads too */
	return k;
#endif
}

static inline struct kernels *
fixture_kernels(int threads)
{
	return fixture_context(&(struct kernels_options){.dtype = KERNELS_DTYPE_FP32, .backend = KERNELS_BACKEND_OPENBLAS, .threads = threads});
}

/* Allocates n zeroed floats between two guards; valid until fixture_close(). */
static inline float *
room(int64_t n)
{
	float *all = malloc((size_t)(n + 2 * FIXTURE_GUARD) * sizeof(float));

	REQUIRE(all != NULL && fixture_n_rooms < FIXTURE_ROOMS);
	for (int64_t i = 0; i < n + 2 * FIXTURE_GUARD; i++)
		all[i] = i < FIXTURE_GUARD || i >= n + FIXTURE_GUARD ? 1234.5f : 0;
	fixture_rooms[fixture_n_rooms].all = all;
	fixture_rooms[fixture_n_rooms++].n = n;
	return all + FIXTURE_GUARD;
}

static inline float
normal(float std)
{
	uint32_t words[4];
	float out[2];

	random_words(fixture_seed, RANDOM_PURPOSE_INIT, 0, 0, fixture_drawn++, words);
	random_normal(words[0], words[1], out);
	return out[0] * std;
}

static inline int32_t
below(int32_t n)
{
	uint32_t words[4];

	random_words(fixture_seed, RANDOM_PURPOSE_INIT, 1, 0, fixture_drawn++, words);
	return (int32_t)(words[0] % (uint32_t)n);
}

static inline float *
noise(int64_t n, float std)
{
	float *p = room(n);

	for (int64_t i = 0; i < n; i++)
		p[i] = normal(std);
	return p;
}

/*
 * Makes starts (kernels.h) for b sequences of t rows with documents of 1 to most rows; NULL if most is 0. The
 * caller frees them.
 */
static inline int32_t *
drawn_starts(int64_t b, int64_t t, int32_t most)
{
	int32_t *starts = most > 0 ? malloc((size_t)(b * t) * sizeof(*starts)) : NULL;
	int32_t left = 0;

	for (int64_t m = 0; starts != NULL && m < b * t; m++, left--) {
		bool begins = m % t == 0 || left == 0;

		left = begins ? 1 + below(most) : left;
		starts[m] = begins ? (int32_t)(m % t) : starts[m - 1];
	}
	return starts;
}

static inline float *
copy_of(const float *p, int64_t n)
{
	float *q = room(n);

	memcpy(q, p, (size_t)n * sizeof(float));
	return q;
}

/* Checks that no guard was overwritten, and frees all arrays. */
static inline void
fixture_close(const char *what)
{
	for (int r = 0; r < fixture_n_rooms; r++) {
		float *all = fixture_rooms[r].all;
		int64_t n = fixture_rooms[r].n, bad = 0;

		for (int i = 0; i < FIXTURE_GUARD; i++)
			bad += all[i] != 1234.5f || all[FIXTURE_GUARD + n + i] != 1234.5f;
		CHECK_ROW(what, bad == 0);
		free(all);
	}
	fixture_n_rooms = 0;
}

/* Checks that no element differs by more than tol times the largest absolute reference value. */
static inline void
check_close(const char *what, const float *got, const float *want, int64_t n, double tol)
{
	double size = 0;

	for (int64_t i = 0; i < n; i++)
		size = fmax(size, fabs((double)want[i]));
	for (int64_t i = 0; i < n; i++) {
		if (fabs((double)got[i] - (double)want[i]) <= tol * (size + 1e-30))
			continue;
		fprintf(stderr, "%s: [%lld of %lld] got %.9g want %.9g, largest %.3g, tolerance %.1e\n", what, (long long)i, (long long)n,
		    (double)got[i], (double)want[i], size, tol);
		CHECK_ROW(what, !"close");
		return;
	}
	CHECK(n > 0);
}

static inline void
check_same(const char *what, const float *a, const float *b, int64_t n)
{
	CHECK_ROW(what, memcmp(a, b, (size_t)n * sizeof(float)) == 0);
}

static inline struct tensor
t1(float *p, int64_t a)
{
	return tensor_1d(p, DTYPE_F32, a);
}

static inline struct tensor
t2(float *p, int64_t a, int64_t b)
{
	return tensor_2d(p, DTYPE_F32, a, b);
}

#endif
