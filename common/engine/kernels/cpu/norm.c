/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/kernels/cpu/cpu.h"

#include <omp.h>
#include <string.h>

/*
 * Buffers for widened rows: first `shared` rows, widened once (g, b), then `rows` rows of c for each thread.
 * *out is NULL in fp32, where rows are used in place. partial: number of floats before the buffers.
 */
static float *
norm_rooms(struct kernels *k, enum dtype dtype, int64_t partial, int64_t shared, int64_t rows, int64_t c, float **out)
{
	int64_t n = dtype == DTYPE_F32 ? 0 : (shared + rows * k->threads) * c;
	float *all = cpu__scratch(k, (size_t)(partial + n));

	*out = n > 0 ? all + partial : NULL;
	return all;
}

/* The calling thread's buffers; NULL in fp32. */
static float *
my_room(float *rooms, int64_t shared, int64_t rows, int64_t c)
{
	return rooms != NULL ? rooms + (shared + omp_get_thread_num() * rows) * c : NULL;
}

/* Row i of room, or NULL. */
static float *
nth(float *room, int64_t i, int64_t c)
{
	return room != NULL ? room + i * c : NULL;
}

static const float *
weights_of(const struct kernels *k, const struct tensor *g, int64_t c, float *room)
{
	return cpu__read(k, g->data, g->dtype, 0, c, room);
}

void
cpu__norm(struct kernels *k, struct tensor *y, float *mean, float *rstd, const struct tensor *x, const struct tensor *g,
    const struct tensor *b, float eps)
{
	int64_t m = kernels__rows(x), c = kernels__cols(x);
	const float *gain, *shift;
	float *rooms;

	norm_rooms(k, k->dtype, 0, 2, 2, c, &rooms);
	gain = weights_of(k, g, c, rooms);
	shift = b != NULL ? weights_of(k, b, c, nth(rooms, 1, c)) : NULL;
#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * c > k->small)
	for (int64_t i = 0; i < m; i++) {
		float *room = my_room(rooms, 2, 2, c), *out = cpu__place(y->data, y->dtype, i * c, nth(room, 1, c));
		const float *row = cpu__read(k, x->data, x->dtype, i * c, c, room);

		if (b != NULL)
			k->vec->layernorm(out, mean + i, rstd + i, row, gain, shift, eps, c);
		else
			k->vec->rmsnorm(out, rstd + i, row, gain, eps, c);
		cpu__store(k, y->data, y->dtype, i * c, c, out);
	}
}

/* Each block of rows sums its gradients of gain and bias in a partial row; these are then added in order. */
void
cpu__norm_bwd(struct kernels *k, struct tensor *d_x, struct tensor *d_g, struct tensor *d_b, const struct tensor *d_y,
    const struct tensor *x, const struct tensor *g, const float *mean, const float *rstd, bool add)
{
	int64_t m = kernels__rows(x), c = kernels__cols(x), blocks = (m + CPU__ROW_BLOCK - 1) / CPU__ROW_BLOCK;
	int64_t width = d_b != NULL ? 2 * c : c;
	float *rooms, *partial = norm_rooms(k, k->dtype, blocks * width, 1, 3, c, &rooms);
	const float *gain = weights_of(k, g, c, rooms);

#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * c > k->small)
	for (int64_t block = 0; block < blocks; block++) {
		int64_t begin = block * CPU__ROW_BLOCK, end = begin + CPU__ROW_BLOCK < m ? begin + CPU__ROW_BLOCK : m;
		float *p = partial + block * width, *room = my_room(rooms, 1, 3, c);

		memset(p, 0, (size_t)width * sizeof(float));
		for (int64_t i = begin; i < end; i++) {
			const float *dy = cpu__read(k, d_y->data, d_y->dtype, i * c, c, room);
			const float *row = cpu__read(k, x->data, x->dtype, i * c, c, nth(room, 1, c));
			float *dx = cpu__place(d_x->data, d_x->dtype, i * c, nth(room, 2, c));

			if (add)
				cpu__read(k, d_x->data, d_x->dtype, i * c, c, dx);
			if (d_b != NULL)
				k->vec->layernorm_bwd(dx, p, p + c, dy, row, gain, mean[i], rstd[i], add, c);
			else
				k->vec->rmsnorm_bwd(dx, p, dy, row, gain, rstd[i], add, c);
			cpu__store(k, d_x->data, d_x->dtype, i * c, c, dx);
		}
	}
	for (int64_t block = 0; block < blocks; block++) {
		float *p = partial + block * width;

		k->vec->add(cpu__f32(d_g), cpu__f32(d_g), p, c);
		if (d_b != NULL)
			k->vec->add(cpu__f32(d_b), cpu__f32(d_b), p + c, c);
	}
}

void
cpu__rmsnorm_heads(struct kernels *k, struct kernels_heads *y, float *rstd, const struct kernels_heads *x,
    const struct tensor *g, float eps, int64_t m)
{
	int64_t heads = x->n_heads, d = x->head_dim;
	const float *gain;
	float *rooms;

	norm_rooms(k, x->dtype, 0, 1, 2, d, &rooms);
	gain = weights_of(k, g, d, rooms);
#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * heads * d > k->small)
	for (int64_t i = 0; i < m; i++) {
		float *room = my_room(rooms, 1, 2, d);

		for (int64_t h = 0; h < heads; h++) {
			int64_t from = cpu__head_at(x, i, h), to = cpu__head_at(y, i, h);
			float *out = cpu__place(y->data, y->dtype, to, nth(room, 1, d));

			k->vec->rmsnorm(out, rstd + i * heads + h, cpu__read(k, x->data, x->dtype, from, d, room), gain, eps, d);
			cpu__store(k, y->data, y->dtype, to, d, out);
		}
	}
}

/* Each block of rows has a partial row of d_g, as in cpu__norm_bwd. */
void
cpu__rmsnorm_heads_bwd(struct kernels *k, struct kernels_heads *d_x, struct tensor *d_g, const struct kernels_heads *d_y,
    const struct kernels_heads *x, const struct tensor *g, const float *rstd, int64_t m)
{
	int64_t heads = x->n_heads, d = x->head_dim, blocks = (m + CPU__ROW_BLOCK - 1) / CPU__ROW_BLOCK;
	float *rooms, *partial = norm_rooms(k, x->dtype, blocks * d, 1, 3, d, &rooms);
	const float *gain = weights_of(k, g, d, rooms);

#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * heads * d > k->small)
	for (int64_t block = 0; block < blocks; block++) {
		int64_t begin = block * CPU__ROW_BLOCK, end = begin + CPU__ROW_BLOCK < m ? begin + CPU__ROW_BLOCK : m;
		float *p = partial + block * d, *room = my_room(rooms, 1, 3, d);

		memset(p, 0, (size_t)d * sizeof(float));
		for (int64_t i = begin; i < end; i++)
			for (int64_t h = 0; h < heads; h++) {
				int64_t to = cpu__head_at(d_x, i, h);
				float *dx = cpu__place(d_x->data, d_x->dtype, to, nth(room, 2, d));

				k->vec->rmsnorm_bwd(dx, p, cpu__read(k, d_y->data, d_y->dtype, cpu__head_at(d_y, i, h), d, room),
				    cpu__read(k, x->data, x->dtype, cpu__head_at(x, i, h), d, nth(room, 1, d)), gain,
				    rstd[i * heads + h], false, d);
				cpu__store(k, d_x->data, d_x->dtype, to, d, dx);
			}
	}
	for (int64_t block = 0; block < blocks; block++)
		k->vec->add(cpu__f32(d_g), cpu__f32(d_g), partial + block * d, d);
}

/* Blocks of rows are summed first; their sums are then added in order. */
void
cpu__column_sums(struct kernels *k, float *sums, const struct tensor *x)
{
	int64_t m = kernels__rows(x), n = kernels__cols(x);
	int64_t blocks = (m + CPU__ROW_BLOCK - 1) / CPU__ROW_BLOCK;
	int64_t width = x->dtype == DTYPE_F32 ? n : 2 * n;	/* sums of a block, then a widened row */
	float *partial = cpu__scratch(k, (size_t)blocks * (size_t)width);

#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * n > k->small)
	for (int64_t block = 0; block < blocks; block++) {
		int64_t begin = block * CPU__ROW_BLOCK, end = begin + CPU__ROW_BLOCK < m ? begin + CPU__ROW_BLOCK : m;
		float *p = partial + block * width;

		memcpy(p, cpu__read(k, x->data, x->dtype, begin * n, n, p + n), (size_t)n * sizeof(float));
		for (int64_t i = begin + 1; i < end; i++)
			k->vec->add(p, p, cpu__read(k, x->data, x->dtype, i * n, n, p + n), n);
	}
	for (int64_t block = 0; block < blocks; block++)
		k->vec->add(sums, sums, partial + block * width, n);
}
