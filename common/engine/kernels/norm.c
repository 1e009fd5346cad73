#include "engine/kernels/kernels_internal.h"

#include <omp.h>
#include <string.h>

/*
 * Rooms for rows in bf16: first `shared` widened once for all (g, b), then `rows` of c for each thread. NULL in fp32: rows are used where
 * they lie, as are those of an fp32 tensor beside others in bf16. partial: floats in front, whatever the dtype.
 */
static float *
norm_rooms(struct kernels *k, enum dtype dtype, int64_t partial, int64_t shared, int64_t rows, int64_t c, float **out)
{
	int64_t n = dtype == DTYPE_F32 ? 0 : (shared + rows * k->threads) * c;
	float *all = kernels__scratch(k, (size_t)(partial + n));

	*out = n > 0 ? all + partial : NULL;
	return all;
}

/* The calling thread's rooms, or NULL. */
static float *
my_room(float *rooms, int64_t shared, int64_t rows, int64_t c)
{
	return rooms != NULL ? rooms + (shared + omp_get_thread_num() * rows) * c : NULL;
}

/* room + i rows of c, where there are rooms. */
static float *
nth(float *room, int64_t i, int64_t c)
{
	return room != NULL ? room + i * c : NULL;
}

static const float *
weights_of(const struct kernels *k, const struct tensor *g, int64_t c, float *room)
{
	return kernels__read(k, g->data, g->dtype, 0, c, room);
}

void
kernels_layernorm(struct kernels *k, struct tensor *y, float *mean, float *rstd, const struct tensor *x, const struct tensor *g,
    const struct tensor *b, float eps)
{
	int64_t m = kernels__rows(x), c = kernels__cols(x);
	const float *gain, *shift;
	float *rooms;

	kernels__shape(kernels__rows(y) == m && kernels__cols(y) == c && kernels__cols(g) == c && kernels__cols(b) == c, "layernorm");
	norm_rooms(k, k->dtype, 0, 2, 2, c, &rooms);
	gain = weights_of(k, g, c, rooms);
	shift = weights_of(k, b, c, nth(rooms, 1, c));
#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * c > k->small)
	for (int64_t i = 0; i < m; i++) {
		float *room = my_room(rooms, 2, 2, c), *out = kernels__place(y->data, y->dtype, i * c, nth(room, 1, c));

		k->vec->layernorm(out, mean + i, rstd + i, kernels__read(k, x->data, x->dtype, i * c, c, room), gain, shift, eps, c);
		kernels__store(k, y->data, y->dtype, i * c, c, out);
	}
}

void
kernels_rmsnorm(struct kernels *k, struct tensor *y, float *rstd, const struct tensor *x, const struct tensor *g, float eps)
{
	int64_t m = kernels__rows(x), c = kernels__cols(x);
	const float *gain;
	float *rooms;

	kernels__shape(kernels__rows(y) == m && kernels__cols(y) == c && kernels__cols(g) == c, "rmsnorm");
	norm_rooms(k, k->dtype, 0, 1, 2, c, &rooms);
	gain = weights_of(k, g, c, rooms);
#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * c > k->small)
	for (int64_t i = 0; i < m; i++) {
		float *room = my_room(rooms, 1, 2, c), *out = kernels__place(y->data, y->dtype, i * c, nth(room, 1, c));

		k->vec->rmsnorm(out, rstd + i, kernels__read(k, x->data, x->dtype, i * c, c, room), gain, eps, c);
		kernels__store(k, y->data, y->dtype, i * c, c, out);
	}
}

/* Both norms: gradients of weights gather in a partial row for each block of rows, and the blocks are added in order. */
static void
norm_bwd(struct kernels *k, struct tensor *d_x, struct tensor *d_g, struct tensor *d_b, const struct tensor *d_y,
    const struct tensor *x, const struct tensor *g, const float *mean, const float *rstd, bool add)
{
	int64_t m = kernels__rows(x), c = kernels__cols(x), blocks = (m + KERNELS_ROW_BLOCK - 1) / KERNELS_ROW_BLOCK;
	int64_t width = d_b != NULL ? 2 * c : c;
	float *rooms, *partial = norm_rooms(k, k->dtype, blocks * width, 1, 3, c, &rooms);
	const float *gain = weights_of(k, g, c, rooms);

#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * c > k->small)
	for (int64_t block = 0; block < blocks; block++) {
		int64_t begin = block * KERNELS_ROW_BLOCK, end = begin + KERNELS_ROW_BLOCK < m ? begin + KERNELS_ROW_BLOCK : m;
		float *p = partial + block * width, *room = my_room(rooms, 1, 3, c);

		memset(p, 0, (size_t)width * sizeof(float));
		for (int64_t i = begin; i < end; i++) {
			const float *dy = kernels__read(k, d_y->data, d_y->dtype, i * c, c, room);
			const float *row = kernels__read(k, x->data, x->dtype, i * c, c, nth(room, 1, c));
			float *dx = kernels__place(d_x->data, d_x->dtype, i * c, nth(room, 2, c));

			if (add)
				kernels__read(k, d_x->data, d_x->dtype, i * c, c, dx);
			if (d_b != NULL)
				k->vec->layernorm_bwd(dx, p, p + c, dy, row, gain, mean[i], rstd[i], add, c);
			else
				k->vec->rmsnorm_bwd(dx, p, dy, row, gain, rstd[i], add, c);
			kernels__store(k, d_x->data, d_x->dtype, i * c, c, dx);
		}
	}
	for (int64_t block = 0; block < blocks; block++) {
		float *p = partial + block * width;

		k->vec->add(kernels__f32(d_g), kernels__f32(d_g), p, c);
		if (d_b != NULL)
			k->vec->add(kernels__f32(d_b), kernels__f32(d_b), p + c, c);
	}
}

void
kernels_layernorm_bwd(struct kernels *k, struct tensor *d_x, struct tensor *d_g, struct tensor *d_b, const struct tensor *d_y,
    const struct tensor *x, const struct tensor *g, const float *mean, const float *rstd, bool add)
{
	int64_t m = kernels__rows(x), c = kernels__cols(x);

	kernels__shape(kernels__rows(d_x) == m && kernels__cols(d_x) == c && kernels__rows(d_y) == m && kernels__cols(d_y) == c &&
	    kernels__cols(g) == c && kernels__cols(d_g) == c && kernels__cols(d_b) == c, "layernorm_bwd");
	norm_bwd(k, d_x, d_g, d_b, d_y, x, g, mean, rstd, add);
}

void
kernels_rmsnorm_bwd(struct kernels *k, struct tensor *d_x, struct tensor *d_g, const struct tensor *d_y, const struct tensor *x,
    const struct tensor *g, const float *rstd, bool add)
{
	int64_t m = kernels__rows(x), c = kernels__cols(x);

	kernels__shape(kernels__rows(d_x) == m && kernels__cols(d_x) == c && kernels__rows(d_y) == m && kernels__cols(d_y) == c &&
	    kernels__cols(g) == c && kernels__cols(d_g) == c, "rmsnorm_bwd");
	norm_bwd(k, d_x, d_g, NULL, d_y, x, g, NULL, rstd, add);
}

static void
check_same_heads(const struct kernels_heads *a, const struct kernels_heads *b, const struct tensor *g, const char *kernel)
{
	kernels__shape(kernels__heads_fit(a) && kernels__heads_fit(b) && a->n_heads == b->n_heads && a->head_dim == b->head_dim &&
	    kernels__cols(g) == a->head_dim, kernel);
}

void
kernels_rmsnorm_heads(struct kernels *k, struct kernels_heads *y, float *rstd, const struct kernels_heads *x,
    const struct tensor *g, float eps, int64_t m)
{
	int64_t heads = x->n_heads, d = x->head_dim;
	const float *gain;
	float *rooms;

	check_same_heads(y, x, g, "rmsnorm_heads");
	norm_rooms(k, x->dtype, 0, 1, 2, d, &rooms);
	gain = weights_of(k, g, d, rooms);
#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * heads * d > k->small)
	for (int64_t i = 0; i < m; i++) {
		float *room = my_room(rooms, 1, 2, d);

		for (int64_t h = 0; h < heads; h++) {
			int64_t from = kernels__head_at(x, i, h), to = kernels__head_at(y, i, h);
			float *out = kernels__place(y->data, y->dtype, to, nth(room, 1, d));

			k->vec->rmsnorm(out, rstd + i * heads + h, kernels__read(k, x->data, x->dtype, from, d, room), gain, eps, d);
			kernels__store(k, y->data, y->dtype, to, d, out);
		}
	}
}

/* As norm_bwd: a partial row of d_g for each block of rows. */
void
kernels_rmsnorm_heads_bwd(struct kernels *k, struct kernels_heads *d_x, struct tensor *d_g, const struct kernels_heads *d_y,
    const struct kernels_heads *x, const struct tensor *g, const float *rstd, int64_t m)
{
	int64_t heads = x->n_heads, d = x->head_dim, blocks = (m + KERNELS_ROW_BLOCK - 1) / KERNELS_ROW_BLOCK;
	float *rooms, *partial = norm_rooms(k, x->dtype, blocks * d, 1, 3, d, &rooms);
	const float *gain = weights_of(k, g, d, rooms);

	check_same_heads(d_x, x, g, "rmsnorm_heads_bwd");
	check_same_heads(d_y, x, d_g, "rmsnorm_heads_bwd");
#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * heads * d > k->small)
	for (int64_t block = 0; block < blocks; block++) {
		int64_t begin = block * KERNELS_ROW_BLOCK, end = begin + KERNELS_ROW_BLOCK < m ? begin + KERNELS_ROW_BLOCK : m;
		float *p = partial + block * d, *room = my_room(rooms, 1, 3, d);

		memset(p, 0, (size_t)d * sizeof(float));
		for (int64_t i = begin; i < end; i++)
			for (int64_t h = 0; h < heads; h++) {
				int64_t to = kernels__head_at(d_x, i, h);
				float *dx = kernels__place(d_x->data, d_x->dtype, to, nth(room, 2, d));

				k->vec->rmsnorm_bwd(dx, p, kernels__read(k, d_y->data, d_y->dtype, kernels__head_at(d_y, i, h), d, room),
				    kernels__read(k, x->data, x->dtype, kernels__head_at(x, i, h), d, nth(room, 1, d)), gain,
				    rstd[i * heads + h], false, d);
				kernels__store(k, d_x->data, d_x->dtype, to, d, dx);
			}
	}
	for (int64_t block = 0; block < blocks; block++)
		k->vec->add(kernels__f32(d_g), kernels__f32(d_g), partial + block * d, d);
}
