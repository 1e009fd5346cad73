/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mpi_reduce - compares sums in buckets, made while "backward" proceeds down the array, with the plain tree
 * (tree_reduce), bit for bit: odd sizes, buckets from one block to the whole array, with lanes, ranges that
 * become final in steps of all sizes, early and late ranks. Without the fixed order sums must be equal up to
 * rounding.
 * usage: mpirun -n R mpi_reduce [cuda | connect]; cuda: on the emulated plug-in with fewer sizes; connect:
 * the same without any sum
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/hash/hash.h"
#include "base/random/random.h"
#include "engine/kernels/kernels.h"
#include "trainerd/comm_device.h"
#include "trainerd/reduce.h"
#include "trainerd/shard.h"

#define B KERNELS_NORM_BLOCK
#define MAX_BELOW 3

static int n_failed;

/* A split as for Muon: the middle part is divided between pieces of any length. */
static const struct optim_piece pieces[] = {{.begin = 3 * B + 7, .end = 4 * B, .cost = 9}, {.begin = 4 * B, .end = 4 * B + 5, .cost = 1},
    {.begin = 4 * B + 5, .end = 7 * B, .cost = 7}, {.begin = 7 * B, .end = 9 * B + 11, .cost = 20}, {.begin = 9 * B + 11, .end = 10 * B, .cost = 5}};
static const struct optim_split three_parts = {.n = 12 * B + 3, .n_parts = 3, .parts = {{.end = 3 * B + 7},
    {.begin = 3 * B + 7, .end = 10 * B, .pieces = pieces, .n_pieces = 5}, {.begin = 10 * B, .end = 12 * B + 3}}};

/*
 * Fills elements [begin, end) of a rank's buffer with very different values, so that every order rounds
 * differently.
 */
static void
fill(float *x, int64_t begin, int64_t end, int rank, int buffer)
{
	for (int64_t i = begin; i < end; i++) {
		uint64_t z = (uint64_t)i * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)(rank * 8 + buffer) * UINT64_C(0xd1342543de82ef95);

		z = (z ^ z >> 31) * UINT64_C(0xbf58476d1ce4e5b9);
		x[i] = (float)(int32_t)(z >> 32) * 0x1p-31f * (i % 7 == 0 ? 1e4f : 1.0f);
	}
}

/* The tree in its simplest form, in host memory: at every level partners exchange halves and add. */
static void
tree_reduce(const struct shard *s, struct comm *comm, float *grads, float *scratch)
{
	for (int i = 0; i < s->n_parts * s->n_levels; i++) {
		const struct shard_part *p = &s->parts[i / s->n_levels];
		int level = i % s->n_levels;
		int64_t begin = p->level_begin[level], end = p->level_end[level], mine = p->level_begin[level + 1];
		int64_t mine_end = p->level_end[level + 1], n = end - begin - (mine_end - mine);
		int64_t theirs = s->rank >> level & 1 ? begin : mine_end;

		comm_exchange(comm, s->rank ^ 1 << level, grads + theirs, (size_t)n * sizeof(float), scratch,
		    (size_t)(mine_end - mine) * sizeof(float));
		for (int64_t j = 0; j < mine_end - mine; j++)
			grads[mine + j] += scratch[j];
	}
}

/* The same as fill, in device memory. */
static void
fill_device(struct kernels *k, float *x, float *host, int64_t begin, int64_t end, int rank, int buffer)
{
	fill(host, begin, end, rank, buffer);
	kernels_upload(k, x + begin, host + begin, (size_t)(end - begin) * sizeof(float));
}

static void
one_case(struct comm *comm, struct kernels *k, const struct optim_split *split, int64_t bucket, int n_below, bool any_order)
{
	int64_t n = split->n;
	struct reduce_options o = {.bucket = bucket, .any_order = any_order};
	size_t bytes = (size_t)n * sizeof(float);
	float *below[MAX_BELOW], *grads = kernels_alloc(k, bytes), *plain = malloc(bytes), *host = malloc(bytes), *scratch = malloc(bytes);
	struct reduce *r = NULL;
	struct reduce_stats stats;
	struct shard shard;
	int rank = comm_rank(comm);
	int64_t bad = -1;

	shard_range(&shard, split, rank, comm_size(comm));
	if (grads == NULL || plain == NULL || host == NULL || scratch == NULL || reduce_new(&r, split, comm, k, &o) != 0)
		comm_abort(comm, 71);
	for (int i = 0; i < n_below; i++) {
		if ((below[i] = kernels_alloc(k, bytes)) == NULL)
			comm_abort(comm, 71);
		fill_device(k, below[i], host, 0, n, rank, 1 + i);
	}
	for (int again = 0; again < 2; again++) {		/* the second step uses the same buffers */
		uint32_t u[4];

		fill(plain, 0, n, rank, 0);
		for (int b = 0; b < n_below; b++) {
			fill(host, 0, n, rank, 1 + b);
			for (int64_t i = 0; i < n; i++)
				plain[i] += host[i];
		}
		tree_reduce(&shard, comm, plain, scratch);
		/* Elements that are not final are NaN, since they must not be read. */
		for (int64_t i = 0; i < n; i++)
			host[i] = NAN;
		kernels_upload(k, grads, host, bytes);
		reduce_begin(r, grads, below, n_below);
		for (int64_t from = n, turn = 0; from > 0; turn++) {
			const struct timespec nap = {.tv_nsec = 100000 * (rank + turn) % 5};
			int64_t to;

			random_words(11, RANDOM_PURPOSE_GENERATE, (uint64_t)turn, (uint32_t)rank, (uint32_t)again, u);
			to = from - 1 - (int64_t)(u[0] % (uint32_t)(n < 4 * B ? n : 4 * B));
			to = to < 0 ? 0 : to;
			fill_device(k, grads, host, to, from, rank, 0);
			from = to;
			if (u[1] % 2 == 0)
				nanosleep(&nap, NULL);
			if (u[2] % 4 != 0)			/* else reduce_end must handle the range */
				reduce_ready(r, from);
			reduce_poll(r);
		}
		reduce_end(r, &stats);
		kernels_download(k, host, grads, bytes);
		for (int p = 0; p < shard.n_parts; p++)
			for (int64_t i = shard.parts[p].begin; i < shard.parts[p].end && bad < 0; i++)
				if (any_order ? !(fabsf(host[i] - plain[i]) <= 1e-5f * (1e4f + fabsf(plain[i]))) :
				    memcmp(&host[i], &plain[i], sizeof(float)) != 0)
					bad = i;
		if (!(stats.early >= 0 && stats.early <= 1 && stats.exposed_s >= 0))
			bad = -2;
	}
	if (bad != -1) {
		printf("rank %d: n %lld bucket %lld below %d any_order %d: element %lld: %.9g, expected %.9g\n", rank, (long long)n,
		    (long long)bucket, n_below, any_order, (long long)bad, bad >= 0 ? (double)host[bad] : 0, bad >= 0 ? (double)plain[bad] : 0);
		n_failed++;
	}
	reduce_destroy(&r);
	for (int i = 0; i < n_below; i++)
		kernels_free(k, below[i]);
	free(scratch);
	free(host);
	free(plain);
	kernels_free(k, grads);
}

int
main(int argc, char **argv)
{
	static const int64_t sizes[] = {1, B - 1, B, 3 * B + 17, 21 * B + 3};
	bool connect = argc > 1 && strcmp(argv[1], "connect") == 0, cuda = connect || (argc > 1 && strcmp(argv[1], "cuda") == 0);
	struct kernels_options ko = {.backend = cuda ? KERNELS_BACKEND_CUDA : KERNELS_BACKEND_AUTO, .dtype = KERNELS_DTYPE_FP32, .threads = 1};
	size_t n_sizes = connect ? 0 : cuda ? 4 : sizeof(sizes) / sizeof(sizes[0]);
	struct kernels *k = NULL;
	struct comm *comm = NULL;
	int64_t failed;

	if (comm_init(&comm, &argc, &argv) != 0 || kernels_new(&k, &ko, NULL) != 0)
		return 1;
	comm_device_peers(comm, k);
	for (size_t i = 0; i < n_sizes; i++) {
		const struct optim_split whole = optim_split_whole(sizes[i]);

		one_case(comm, k, &whole, 1, 0, false);
		one_case(comm, k, &whole, B, MAX_BELOW, false);
		one_case(comm, k, &whole, 2 * B + 1, 1, false);
		one_case(comm, k, &whole, 0, 2, false);
		one_case(comm, k, &whole, 2 * B, 1, true);
	}
	if (!connect) {
		one_case(comm, k, &three_parts, 1, cuda ? 0 : 2, false);
		one_case(comm, k, &three_parts, 2 * B + 1, 1, false);
		one_case(comm, k, &three_parts, 0, 0, true);
	}
	failed = n_failed;
	comm_max(comm, &failed, 1);
	if (comm_rank(comm) == 0)
		printf("%s\n", failed == 0 ? "equal" : "different");
	kernels_destroy(&k);
	comm_finalize(&comm);
	return failed != 0;
}
