/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attention_mma - the kernels for bf16: products by mma.sync m16n8k16 with fp32 sums, tiles loaded by
 * cp.async. A block has four warps; each warp has 16 rows of a tile of 64. Of a warp's sum [16, 8] each
 * thread holds four numbers: columns 2 (lane % 4) and the next one, of rows lane / 4 and lane / 4 + 8.
 * Probabilities and gradients of scores are rounded to bf16 for the products that they enter.
 */
#include "engine/kernels/cuda/attention.h"
#include "engine/kernels/cuda/mma.h"

#define THREADS 128
#define ROWS 64				/* rows of the block's own tile */
#define FRAGMENT 16
#define CHUNK 8				/* numbers in a load of 16 bytes */

/*
 * Sizes that depend on the head size, padded to D. width: distance of rows in shared memory, chosen so that
 * ldmatrix has no bank conflicts. For backward: step: rows that are read at a time; stages: tiles of them in
 * shared memory, two if the next one loads meanwhile; parts: blocks that share the columns of d_key and
 * d_value, whose sums would not fit into the registers of one thread (each block computes the scores).
 */
template <int D> struct shape {
	static constexpr int width = D + CHUNK, step = D <= 64 ? 64 : D <= 128 ? 32 : 16, stages = D <= 128 ? 2 : 1, parts = D <= 128 ? 1 : 2;
	static constexpr size_t forward_bytes = 3 * ROWS * width * sizeof(uint16_t);
	static constexpr size_t backward_bytes = 2 * (ROWS + stages * step) * width * sizeof(uint16_t);
};

__device__ __forceinline__ int
lane_of()
{
	return (int)threadIdx.x % WARP;
}

/*
 * Loads N rows of head h, from row0 on, into shared memory. n of them exist; the other rows, and columns from
 * d on, are 0. The tile is complete after cp_wait and a barrier.
 */
template <int D, int N> __device__ __forceinline__ void
load_tile(uint16_t *to, const struct heads &x, int64_t row0, int n, int h, int d)
{
	const uint16_t *from = (const uint16_t *)x.data + head_at(x, row0, h);

	for (int i = (int)threadIdx.x; i < N * D / CHUNK; i += THREADS) {
		int row = i / (D / CHUNK), c = i % (D / CHUNK) * CHUNK;
		uint16_t *p = to + row * shape<D>::width + c;
		words4 w = {};

		if (row < n && c < d && x.wide) {
			cp_async16(p, from + row * x.stride + c);
			continue;
		}
		CUDA_UNROLL
		for (int e = 0; e < CHUNK; e++)
			if (row < n && c + e < d)
				w.w[e / 2] |= (uint32_t)from[row * x.stride + c + e] << e % 2 * 16;
		store_words(p, w);
	}
}

/* sums [16, N] = a b^T: 16 rows of a, N rows of b, D columns. */
template <int D, int N> __device__ __forceinline__ void
multiply_rows(float sums[N / 8][4], const uint16_t *a, const uint16_t *b)
{
	int lane = lane_of();

	a += lane % 16 * shape<D>::width + lane / 16 * 8;
	b += (lane % 8 + lane / 16 * 8) * shape<D>::width + lane / 8 % 2 * 8;
	CUDA_UNROLL
	for (int i = 0; i < N / 8; i++)
		sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = 0;
	CUDA_UNROLL
	for (int c = 0; c < D; c += FRAGMENT) {
		uint32_t fa[4];

		ldmatrix<false>(fa, a + c);
		CUDA_UNROLL
		for (int i = 0; i < N / FRAGMENT; i++) {
			uint32_t fb[4];

			ldmatrix<false>(fb, b + i * FRAGMENT * shape<D>::width + c);
			mma16816(sums[2 * i], fa, fb);
			mma16816(sums[2 * i + 1], fa, fb + 2);
		}
	}
}

/* sums [16, W] += p b: p [16, N] as from multiply_rows, rounded; N rows of b, from its first column on */
template <int D, int N, int W> __device__ __forceinline__ void
add_weighted(float sums[W / 8][4], const float p[N / 8][4], const uint16_t *b)
{
	int lane = lane_of();

	b += lane % 16 * shape<D>::width + lane / 16 * 8;
	CUDA_UNROLL
	for (int r = 0; r < N / FRAGMENT; r++) {
		const float *left = p[2 * r], *right = p[2 * r + 1];
		const uint32_t fa[4] = {pack2(left[0], left[1]), pack2(left[2], left[3]), pack2(right[0], right[1]), pack2(right[2], right[3])};

		CUDA_UNROLL
		for (int i = 0; i < W / FRAGMENT; i++) {
			uint32_t fb[4];

			ldmatrix<true>(fb, b + r * FRAGMENT * shape<D>::width + i * FRAGMENT);
			mma16816(sums[2 * i], fa, fb);
			mma16816(sums[2 * i + 1], fa, fb + 2);
		}
	}
}

/* The column of this thread's number j in a sum [16, N]. */
__device__ __forceinline__ int
column_of(int j)
{
	return j / 4 * 8 + lane_of() % 4 * 2 + j % 2;
}

/* Turns products into scores. */
template <int N> __device__ __forceinline__ void
scores(float s[N / 8][4], const struct attention &a)
{
	CUDA_UNROLL
	for (int i = 0; i < N / 2; i++)
		s[i / 4][i % 4] *= a.scale;
	if (a.soft_cap > 0)
		CUDA_UNROLL
		for (int i = 0; i < N / 2; i++)
			s[i / 4][i % 4] = a.soft_cap * tanhf(s[i / 4][i % 4] / a.soft_cap);
}

/* Stores a row of this thread's sums (half 0 or 1), times factor, to row `row` of x, columns `column` to d */
template <int W> __device__ __forceinline__ void
store_row(const struct heads &x, int64_t row, int h, const float sums[W / 8][4], int half, float factor, int column, int d)
{
	uint16_t *to = (uint16_t *)x.data + head_at(x, row, h);

	column += lane_of() % 4 * 2;
	CUDA_UNROLL
	for (int i = 0; i < W / 8; i++) {
		int c = column + i * 8;
		words1 pair = {{pack2(sums[i][2 * half] * factor, sums[i][2 * half + 1] * factor)}};

		if (c < d && x.wide) {
			store_words(to + c, pair);
		} else if (c < d) {
			to[c] = (uint16_t)pair.w[0];
			if (c + 1 < d)
				to[c + 1] = (uint16_t)(pair.w[0] >> 16);
		}
	}
}

/* The sum or maximum over the four threads that share a row. */
template <typename Op> __device__ __forceinline__ float
of_row(float v)
{
	for (int by = 2; by > 0; by /= 2)
		v = Op()(v, __shfl_xor_sync(ALL_LANES, v, by));
	return v;
}

/* One block per head and tile of queries. Keys load during products with values, and the reverse. */
template <int D> __global__ static void __launch_bounds__(THREADS, 2)
forward(struct attention a)
{
	CUDA_DYNAMIC(uint16_t, room);
	uint16_t *q = room, *key = q + ROWS * shape<D>::width, *value = key + ROWS * shape<D>::width;
	const struct place place = place_of(a, a.n_heads, ROWS, true);
	const int64_t row0 = place.row0;
	const int h = place.head, q0 = place.first, n = place.n;
	int warp = (int)threadIdx.x / WARP, lane = lane_of();
	float o[D / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {};
	int row[2], first[2], begin = first_key(a, row0, q0) / ROWS * ROWS;

	CUDA_UNROLL
	for (int half = 0; half < 2; half++) {
		row[half] = warp * FRAGMENT + half * 8 + lane / 4;
		first[half] = row[half] < n ? first_key(a, row0, q0 + row[half]) : 0;
	}
	load_tile<D, ROWS>(q, a.q, row0 + q0, n, h, a.d);
	load_tile<D, ROWS>(key, a.key, row0 + begin, a.t - begin, h / a.group, a.d);
	cp_commit();
	for (int k0 = begin; k0 < q0 + n; k0 += ROWS) {
		float s[ROWS / 8][4];

		cp_wait<0>();
		__syncthreads();			/* keys are loaded, former values no longer read */
		load_tile<D, ROWS>(value, a.value, row0 + k0, a.t - k0, h / a.group, a.d);
		cp_commit();
		multiply_rows<D, ROWS>(s, q + warp * FRAGMENT * shape<D>::width, key);
		scores<ROWS>(s, a);
		CUDA_UNROLL
		for (int half = 0; half < 2; half++) {
			float best = -INFINITY, base, factor;
			/* the range of keys that the row sees, relative to this thread's first one */
			int to = q0 + row[half] - k0 - lane % 4 * 2, from = first[half] - k0 - lane % 4 * 2;

			if (to < ROWS || from > 0)
				CUDA_UNROLL
				for (int i = 0; i < ROWS / 4; i++)
					if (i / 2 * 8 + i % 2 > to || i / 2 * 8 + i % 2 < from)
						s[i / 2][2 * half + i % 2] = -INFINITY;
			CUDA_UNROLL
			for (int i = 0; i < ROWS / 4; i++)
				best = fmaxf(best, s[i / 2][2 * half + i % 2]);
			best = fmaxf(of_row<max_op>(best), top[half]);
			base = best == -INFINITY ? 0 : best * LOG2E;	/* no key seen so far */
			factor = exp2f(fmaf(top[half], LOG2E, -base));
			top[half] = best;
			sum[half] *= factor;
			CUDA_UNROLL
			for (int i = 0; i < ROWS / 4; i++) {
				float *x = &s[i / 2][2 * half + i % 2];

				*x = exp2f(fmaf(*x, LOG2E, -base));
				sum[half] += *x;
			}
			CUDA_UNROLL
			for (int i = 0; i < D / 8; i++) {
				o[i][2 * half] *= factor;
				o[i][2 * half + 1] *= factor;
			}
		}
		cp_wait<0>();
		__syncthreads();			/* values are loaded, keys are no longer read */
		if (k0 + ROWS < q0 + n) {
			load_tile<D, ROWS>(key, a.key, row0 + k0 + ROWS, a.t - k0 - ROWS, h / a.group, a.d);
			cp_commit();
		}
		add_weighted<D, ROWS, D>(o, s, value);
	}
	CUDA_UNROLL
	for (int half = 0; half < 2; half++) {
		sum[half] = of_row<add_op>(sum[half]);
		if (row[half] >= n)
			continue;
		store_row<D>(a.o, row0 + q0 + row[half], h, o, half, 1 / sum[half], 0, a.d);
		if (lane % 4 == 0)
			a.lse[stat_at(a, row0, q0 + row[half], h)] = top[half] + logf(sum[half]);
	}
}

/* Statistics of a query for backward. lse: log-sum-exp to base 2. */
struct query {
	float lse, delta;
	int first;
};

/* The statistics of query i of head h; a query that does not exist sees no key. */
__device__ __forceinline__ struct query
query_of(const struct attention &a, int64_t row0, int i, int h)
{
	if (i >= a.t)
		return {0, 0, INT_MAX};
	return {a.lse[stat_at(a, row0, i, h)] * LOG2E, a.delta[stat_at(a, row0, i, h)], first_key(a, row0, i)};
}

/*
 * keys true: a block has a tile of keys of a key head, and a part of their columns; it sums d_key and d_value
 * over queries. keys false: it has a tile of queries of a head and sums d_q over keys. "mine" are the block's
 * rows, "theirs" the rows that it reads.
 */
template <int D, bool keys> __global__ static void __launch_bounds__(THREADS, 2)
backward(struct attention a)
{
	CUDA_DYNAMIC(uint16_t, room);
	constexpr int STEP = shape<D>::step, STAGES = shape<D>::stages, W = keys ? D / shape<D>::parts : D, TILE = STEP * shape<D>::width;
	CUDA_SHARED(struct query, queries, 2 * STEP);
	uint16_t *mine = room, *mine2 = mine + ROWS * shape<D>::width, *theirs = mine2 + ROWS * shape<D>::width, *theirs2 = theirs + STAGES * TILE;
	const struct place place = place_of(a, keys ? a.n_heads / a.group : a.n_heads, ROWS, !keys);
	const int64_t row0 = place.row0;
	const int head = place.head, key_head = keys ? head : head / a.group, tile0 = place.first, n = place.n;
	int warp = (int)threadIdx.x / WARP, lane = lane_of(), column = keys ? (int)blockIdx.y * W : 0;
	int from = keys ? tile0 : first_key(a, row0, tile0) / STEP * STEP;
	int tiles = keys ? query_tiles(a, row0, tile0, tile0 + n - 1, STEP) : (tile0 + n - from + STEP - 1) / STEP;
	int steps = tiles * (keys ? a.group : 1);
	float sums[W / 8][4] = {}, sums2[keys ? W / 8 : 1][4] = {};
	struct query own[2] = {};
	int row[2];

	CUDA_UNROLL
	for (int half = 0; half < 2; half++) {
		row[half] = warp * FRAGMENT + half * 8 + lane / 4;
		if (!keys)
			own[half] = query_of(a, row0, tile0 + row[half], head);
	}
	load_tile<D, ROWS>(mine, keys ? a.key : a.q, row0 + tile0, n, head, a.d);
	load_tile<D, ROWS>(mine2, keys ? a.value : a.d_o, row0 + tile0, n, head, a.d);
	for (int i = -1; i < steps; i++) {
		int at = from + (i < 0 ? 0 : i % tiles) * STEP, next = from + (i + 1) % tiles * STEP;
		int h = keys ? key_head * a.group + (i + 1) / tiles : key_head, stage = (i + 1) % 2, loaded = STAGES == 1 ? 0 : stage;
		bool more = i + 1 < steps;
		struct query query = {};

		/* step i is loaded; step i - 1 is no longer read */
		if (i >= 0) {
			cp_wait<0>();
			__syncthreads();
		}
		if (more && (STAGES > 1 || i < 0)) {
			load_tile<D, STEP>(theirs + loaded * TILE, keys ? a.q : a.key, row0 + next, a.t - next, h, a.d);
			load_tile<D, STEP>(theirs2 + loaded * TILE, keys ? a.d_o : a.value, row0 + next, a.t - next, h, a.d);
			cp_commit();
		}
		if (keys && more && threadIdx.x < STEP)
			query = query_of(a, row0, next + (int)threadIdx.x, h);
		if (i >= 0) {
			const uint16_t *b = theirs + (STAGES == 1 ? 0 : 1 - stage) * TILE, *b2 = theirs2 + (STAGES == 1 ? 0 : 1 - stage) * TILE;
			const struct query *of = queries + (1 - stage) * STEP;
			float x[STEP / 8][4], y[STEP / 8][4];

			multiply_rows<D, STEP>(x, mine + warp * FRAGMENT * shape<D>::width, b);
			multiply_rows<D, STEP>(y, mine2 + warp * FRAGMENT * shape<D>::width, b2);
			scores<STEP>(x, a);
			CUDA_UNROLL
			for (int j = 0; j < STEP / 2; j++)
				y[j / 4][j % 4] -= (keys ? of[column_of(j)] : own[j % 4 / 2]).delta;
			if (a.soft_cap > 0)
				CUDA_UNROLL
				for (int j = 0; j < STEP / 2; j++)
					y[j / 4][j % 4] *= 1 - x[j / 4][j % 4] / a.soft_cap * (x[j / 4][j % 4] / a.soft_cap);
			CUDA_UNROLL
			for (int j = 0; j < STEP / 2; j++) {
				int other = at + column_of(j), me = tile0 + row[j % 4 / 2], key = keys ? me : other, last = keys ? other : me;
				const struct query &query = keys ? of[column_of(j)] : own[j % 4 / 2];
				bool seen = key <= last && key >= query.first;

				x[j / 4][j % 4] = seen ? exp2f(fmaf(x[j / 4][j % 4], LOG2E, -query.lse)) : 0;
				y[j / 4][j % 4] = seen ? y[j / 4][j % 4] * x[j / 4][j % 4] : 0;
			}
			add_weighted<D, STEP, W>(sums, y, b + column);
			if constexpr (keys)
				add_weighted<D, STEP, W>(sums2, x, b2 + column);
		}
		if (keys && more && threadIdx.x < STEP)
			queries[stage * STEP + threadIdx.x] = query;
		if (STAGES == 1 && more && i >= 0) {
			__syncthreads();		/* step i is no longer read */
			load_tile<D, STEP>(theirs, keys ? a.q : a.key, row0 + next, a.t - next, h, a.d);
			load_tile<D, STEP>(theirs2, keys ? a.d_o : a.value, row0 + next, a.t - next, h, a.d);
			cp_commit();
		}
	}
	CUDA_UNROLL
	for (int half = 0; half < 2; half++) {
		if (row[half] >= n)
			continue;
		store_row<W>(keys ? a.d_key : a.d_q, row0 + tile0 + row[half], head, sums, half, a.scale, column, a.d);
		if constexpr (keys)
			store_row<W>(a.d_value, row0 + tile0 + row[half], head, sums2, half, 1, column, a.d);
	}
}

/* ---- host ---- */

template <int D> static void
run_forward(struct kernels *k, const struct attention &a, int64_t b)
{
	attention_run(k, "attention", forward<D>, (unsigned)(b * a.n_heads) * cuda_blocks(a.t, ROWS), THREADS, shape<D>::forward_bytes, a);
}

template <int D> static void
run_backward(struct kernels *k, const struct attention &a, int64_t b)
{
	unsigned tiles = (unsigned)b * cuda_blocks(a.t, ROWS), heads = (unsigned)a.n_heads;

	attention_run(k, "attention_bwd keys", backward<D, true>, dim3(heads / (unsigned)a.group * tiles, shape<D>::parts), THREADS,
	    shape<D>::backward_bytes, a);
	attention_run(k, "attention_bwd", backward<D, false>, heads * tiles, THREADS, shape<D>::backward_bytes, a);
}

/* Calls fn(k, a, b) for the smallest D that is at least the head size. */
#define EACH_SIZE(fn) (a->d <= 32 ? fn<32>(k, *a, b) : a->d <= 64 ? fn<64>(k, *a, b) : a->d <= 96 ? fn<96>(k, *a, b) : \
	a->d <= 128 ? fn<128>(k, *a, b) : fn<MAX_HEAD>(k, *a, b))

void
cuda__attention_mma(struct kernels *k, const struct attention *a, int64_t b)
{
	EACH_SIZE(run_forward);
}

void
cuda__attention_mma_bwd(struct kernels *k, const struct attention *a, int64_t b)
{
	EACH_SIZE(run_backward);
}
