/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attention - the functions of the table, and the kernels for fp32: plain multiply-adds, eight threads per
 * row.
 */
#include "engine/kernels/cuda/attention.h"

#define LANES 8				/* threads per row */
#define DELTA_ROWS 32			/* rows per block of `deltas`, with LANES threads each */
#define DELTA_CHUNK 8			/* numbers that a thread of it reads at a time */

/* Tile sizes for heads of up to D numbers; rows in shared memory are D + 1 apart. */
template <int D> struct tile {
	static constexpr int rows = D > 128 ? 16 : 32, threads = rows * LANES, width = D + 1, room = rows * width, columns = rows / LANES;
};

/* Loads rows row0 .. row0 + n - 1 of head h into shared memory; the other rows are 0. */
template <int D> __device__ __forceinline__ void
load_rows(float *to, const struct heads &x, int64_t row0, int n, int h, int d)
{
	int row = (int)threadIdx.x / LANES;
	const float *from = (const float *)x.data + head_at(x, row0 + row, h);

	for (int c = (int)threadIdx.x % LANES; c < d; c += LANES)
		to[row * tile<D>::width + c] = row < n ? from[c] : 0;
}

/* Dot products of this thread's row of a with rows lane, lane + LANES, ... of b. */
template <int D> __device__ __forceinline__ void
dots(float out[tile<D>::columns], const float *a, const float *b, int d)
{
	const float *mine = a + (int)threadIdx.x / LANES * tile<D>::width, *theirs = b + (int)threadIdx.x % LANES * tile<D>::width;

	for (int j = 0; j < tile<D>::columns; j++)
		out[j] = 0;
	for (int c = 0; c < d; c++)
		CUDA_UNROLL
		for (int j = 0; j < tile<D>::columns; j++)
			out[j] = fmaf(mine[c], theirs[j * LANES * tile<D>::width + c], out[j]);
}

/* sums[j] += p [row, r] b [r, lane + j LANES] over the rows r of b. */
template <int D> __device__ __forceinline__ void
add_weighted(float sums[D / LANES], const float *p, const float *b, int d)
{
	int lane = (int)threadIdx.x % LANES;

	p += (int)threadIdx.x / LANES * (tile<D>::rows + 1);
	for (int r = 0; r < tile<D>::rows; r++)
		CUDA_UNROLL
		for (int j = 0; j < D / LANES; j++)
			if (lane + j * LANES < d)
				sums[j] = fmaf(p[r], b[r * tile<D>::width + lane + j * LANES], sums[j]);
}

/* Stores this thread's numbers of row `row`, times factor. */
template <int D> __device__ __forceinline__ void
store_row(const struct heads &x, int64_t row, int h, const float sums[D / LANES], float factor, int d)
{
	float *to = (float *)x.data + head_at(x, row, h);
	int lane = (int)threadIdx.x % LANES;

	CUDA_UNROLL
	for (int j = 0; j < D / LANES; j++)
		if (lane + j * LANES < d)
			to[lane + j * LANES] = sums[j] * factor;
}

/* One block per head and tile of queries. */
template <int D> __global__ static void __launch_bounds__(tile<D>::threads, 1)
forward(struct attention a)
{
	CUDA_DYNAMIC(float, room);
	constexpr int ROWS = tile<D>::rows;
	float *q = room, *key = q + tile<D>::room, *value = key + tile<D>::room, *p = value + tile<D>::room;
	const struct place place = place_of(a, a.n_heads, ROWS, true);
	const int64_t row0 = place.row0;
	const int h = place.head, q0 = place.first, n = place.n;
	int row = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES, first = row < n ? first_key(a, row0, q0 + row) : 0;
	float o[D / LANES] = {}, top = -INFINITY, sum = 0;

	load_rows<D>(q, a.q, row0 + q0, n, h, a.d);
	for (int k0 = first_key(a, row0, q0) / ROWS * ROWS; k0 < q0 + n; k0 += ROWS) {
		float s[tile<D>::columns], best = -INFINITY, base, factor, slope;

		__syncthreads();			/* all threads have read the previous tile */
		load_rows<D>(key, a.key, row0 + k0, a.t - k0, h / a.group, a.d);
		load_rows<D>(value, a.value, row0 + k0, a.t - k0, h / a.group, a.d);
		__syncthreads();
		dots<D>(s, q, key, a.d);
		for (int j = 0; j < tile<D>::columns; j++) {
			int at = k0 + lane + j * LANES;

			s[j] = at <= q0 + row && at >= first ? score_of(a, s[j], &slope) : -INFINITY;
			best = fmaxf(best, s[j]);
		}
		for (int by = LANES / 2; by > 0; by /= 2)
			best = fmaxf(best, __shfl_xor_sync(ALL_LANES, best, by));
		best = fmaxf(best, top);
		base = best == -INFINITY ? 0 : best;		/* no key seen so far */
		factor = expf(top - base);
		top = best;
		sum *= factor;
		for (int j = 0; j < tile<D>::columns; j++) {
			s[j] = expf(s[j] - base);
			sum += s[j];
			p[row * (ROWS + 1) + lane + j * LANES] = s[j];
		}
		__syncthreads();
		CUDA_UNROLL
		for (int j = 0; j < D / LANES; j++)
			o[j] *= factor;
		add_weighted<D>(o, p, value, a.d);
	}
	for (int by = LANES / 2; by > 0; by /= 2)
		sum += __shfl_xor_sync(ALL_LANES, sum, by);
	if (row >= n)
		return;
	store_row<D>(a.o, row0 + q0 + row, h, o, 1 / sum, a.d);
	if (lane == 0)
		a.lse[stat_at(a, row0, q0 + row, h)] = top + logf(sum);
}

/*
 * keys true: a block has a tile of keys of a key head and sums d_key and d_value over queries. keys false: it
 * has a tile of queries of a head and sums d_q over keys. "mine" are the block's rows, "theirs" the rows that
 * it reads.
 */
template <int D, bool keys> __global__ static void __launch_bounds__(tile<D>::threads, 1)
backward(struct attention a)
{
	CUDA_DYNAMIC(float, room);
	constexpr int ROWS = tile<D>::rows;
	float *mine = room, *mine2 = mine + tile<D>::room, *theirs = mine2 + tile<D>::room, *theirs2 = theirs + tile<D>::room;
	float *p = theirs2 + tile<D>::room, *d_s = p + ROWS * (ROWS + 1);
	const struct place place = place_of(a, keys ? a.n_heads / a.group : a.n_heads, ROWS, !keys);
	const int64_t row0 = place.row0;
	const int head = place.head, key_head = keys ? head : head / a.group, tile0 = place.first, n = place.n;
	int row = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
	int from = keys ? tile0 : first_key(a, row0, tile0) / ROWS * ROWS;
	int tiles = keys ? query_tiles(a, row0, tile0, tile0 + n - 1, ROWS) : (tile0 + n - from + ROWS - 1) / ROWS;
	float sums[D / LANES] = {}, sums2[keys ? D / LANES : 1] = {};

	load_rows<D>(mine, keys ? a.key : a.q, row0 + tile0, n, head, a.d);
	load_rows<D>(mine2, keys ? a.value : a.d_o, row0 + tile0, n, head, a.d);
	for (int i = 0; i < tiles * (keys ? a.group : 1); i++) {
		int at = from + i % tiles * ROWS, h = keys ? key_head * a.group + i / tiles : head;
		float x[tile<D>::columns], y[tile<D>::columns];

		__syncthreads();			/* all threads have read the previous tile */
		load_rows<D>(theirs, keys ? a.q : a.key, row0 + at, a.t - at, keys ? h : key_head, a.d);
		load_rows<D>(theirs2, keys ? a.d_o : a.value, row0 + at, a.t - at, keys ? h : key_head, a.d);
		__syncthreads();
		dots<D>(x, mine, theirs, a.d);
		dots<D>(y, mine2, theirs2, a.d);
		for (int j = 0; j < tile<D>::columns; j++) {
			int other = at + lane + j * LANES, query = keys ? other : tile0 + row, key = keys ? tile0 + row : other;
			bool seen = query < a.t && key <= query && key >= first_key(a, row0, query);
			float weight = 0, gradient = 0, slope;

			if (seen) {
				weight = expf(score_of(a, x[j], &slope) - a.lse[stat_at(a, row0, query, h)]);
				gradient = weight * (y[j] - a.delta[stat_at(a, row0, query, h)]) * slope;
			}
			p[row * (ROWS + 1) + lane + j * LANES] = weight;
			d_s[row * (ROWS + 1) + lane + j * LANES] = gradient;
		}
		__syncthreads();
		add_weighted<D>(sums, d_s, theirs, a.d);
		if (keys)
			add_weighted<D>(sums2, p, theirs2, a.d);
	}
	if (row >= n)
		return;
	store_row<D>(keys ? a.d_key : a.d_q, row0 + tile0 + row, head, sums, a.scale, a.d);
	if (keys)
		store_row<D>(a.d_value, row0 + tile0 + row, head, sums2, 1, a.d);
}

/* delta = d_o . o of each row and head; n of them. */
__global__ static void __launch_bounds__(DELTA_ROWS *LANES)
deltas(float *delta, struct attention a, bool bf16, int64_t n)
{
	int64_t i = (int64_t)blockIdx.x * DELTA_ROWS + threadIdx.x / LANES;
	unsigned row = (unsigned)i / (unsigned)a.n_heads, h = (unsigned)i % (unsigned)a.n_heads;	/* n is less than 2^31 */
	struct view o = {a.o.data, bf16, a.o.wide}, d_o = {a.d_o.data, bf16, a.d_o.wide};
	float sum = 0;

	for (int c = (int)threadIdx.x % LANES * DELTA_CHUNK; c < a.d && i < n; c += LANES * DELTA_CHUNK)
		for (int at = c; at < c + DELTA_CHUNK && at < a.d; at += QUAD) {
			struct quad x = get_quad(o, head_at(a.o, row, (int)h) + at, a.d - at);
			struct quad y = get_quad(d_o, head_at(a.d_o, row, (int)h) + at, a.d - at);

			for (int e = 0; e < QUAD; e++)
				sum = fmaf(y.f[e], x.f[e], sum);
		}
	for (int by = LANES / 2; by > 0; by /= 2)
		sum += __shfl_xor_sync(ALL_LANES, sum, by);
	if (threadIdx.x % LANES == 0 && i < n)
		delta[stat_at(a, row / (unsigned)a.t * (unsigned)a.t, (int)(row % (unsigned)a.t), (int)h)] = sum;
}

/* ---- host ---- */

static struct heads
heads_of(const struct kernels_heads *x)
{
	int64_t head_stride = kernels__head_stride(x);

	return {x->data, x->stride, head_stride, (uintptr_t)x->data % 16 == 0 && x->stride % 8 == 0 && head_stride % 8 == 0 && x->head_dim % 8 == 0};
}

static struct attention
attention_of(struct kernels *k, const struct kernels_heads *q, const struct kernels_heads *key, const struct kernels_heads *value,
    const struct kernels_heads *o, const float *lse, const struct kernels_attention_form *form, int64_t b, int64_t t)
{
	struct attention a = {};

	if (q->head_dim > MAX_HEAD || b * t > INT_MAX / q->n_heads)
		log_fatal("kernels.cuda", "what=attention head_dim=%lld rows=%lld heads=%lld expected=\"head_dim up to %d, fewer than 2^31 rows times heads\"",
		    (long long)q->head_dim, (long long)(b * t), (long long)q->n_heads, MAX_HEAD);
	a.q = heads_of(q);
	a.key = heads_of(key);
	a.value = heads_of(value);
	a.o = heads_of(o);
	a.lse = const_cast<float *>(lse);
	a.starts = (const int32_t *)cuda__upload(k, SLOT_STARTS, form->starts, (size_t)(b * t) * sizeof(*form->starts));
	a.t = (int)t;
	a.n_heads = (int)q->n_heads;
	a.group = (int)(q->n_heads / key->n_heads);
	a.d = (int)q->head_dim;
	a.window = form->window < t ? (int)form->window : 0;
	a.scale = form->scale;
	a.soft_cap = form->soft_cap;
	return a;
}

template <int D> static size_t
tile_bytes(int tiles, int scores)
{
	return (size_t)(tiles * tile<D>::room + scores * tile<D>::rows * (tile<D>::rows + 1)) * sizeof(float);
}

template <int D> static void
run_forward(struct kernels *k, const struct attention &a, int64_t b)
{
	attention_run(k, "attention", forward<D>, (unsigned)(b * a.n_heads) * cuda_blocks(a.t, tile<D>::rows), tile<D>::threads,
	    tile_bytes<D>(3, 1), a);
}

template <int D> static void
run_backward(struct kernels *k, const struct attention &a, int64_t b)
{
	unsigned tiles = (unsigned)b * cuda_blocks(a.t, tile<D>::rows), heads = (unsigned)a.n_heads;

	attention_run(k, "attention_bwd keys", backward<D, true>, heads / (unsigned)a.group * tiles, tile<D>::threads, tile_bytes<D>(4, 2), a);
	attention_run(k, "attention_bwd", backward<D, false>, heads * tiles, tile<D>::threads, tile_bytes<D>(4, 2), a);
}

/* o as heads: [B*T, H*D]. */
void
cuda__attention(struct kernels *k, const struct kernels_heads *o, float *lse, const struct kernels_heads *q, const struct kernels_heads *key,
    const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t)
{
	const struct attention a = attention_of(k, q, key, value, o, lse, form, b, t);

	if (b == 0 || t == 0)
		return;
	if (q->dtype == DTYPE_BF16)
		cuda__attention_mma(k, &a, b);
	else if (a.d <= 64)
		run_forward<64>(k, a, b);
	else if (a.d <= 128)
		run_forward<128>(k, a, b);
	else
		run_forward<MAX_HEAD>(k, a, b);
}

void
cuda__attention_bwd(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key, struct kernels_heads *d_value,
    const struct kernels_heads *d_o, const struct kernels_heads *o, const float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t)
{
	struct attention a = attention_of(k, q, key, value, o, lse, form, b, t);
	int64_t n = b * t * a.n_heads;
	float *delta;

	if (b == 0 || t == 0)
		return;
	delta = (float *)cuda__room(k, ROOM_MAIN, (size_t)n * sizeof(*delta));
	a.delta = delta;
	a.d_o = heads_of(d_o);
	a.d_q = heads_of(d_q);
	a.d_key = heads_of(d_key);
	a.d_value = heads_of(d_value);
	CUDA_RUN(k, deltas, cuda_blocks(n, DELTA_ROWS), DELTA_ROWS * LANES, delta, a, q->dtype == DTYPE_BF16, n);
	if (q->dtype == DTYPE_BF16)
		cuda__attention_mma_bwd(k, &a, b);
	else if (a.d <= 64)
		run_backward<64>(k, a, b);
	else if (a.d <= 128)
		run_backward<128>(k, a, b);
	else
		run_backward<MAX_HEAD>(k, a, b);
}
