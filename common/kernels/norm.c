#include "kernels/internal.h"

#include <string.h>

void
kernels_layernorm(struct kernels *k, struct tensor *y, float *mean, float *rstd, const struct tensor *x, const struct tensor *g,
    const struct tensor *b, float eps)
{
	int64_t m = kernels__rows(x), c = kernels__cols(x);

	kernels__shape(kernels__rows(y) == m && kernels__cols(y) == c && kernels__cols(g) == c && kernels__cols(b) == c, "layernorm");
#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * c > k->small)
	for (int64_t i = 0; i < m; i++)
		k->vec->layernorm(kernels__f32(y) + i * c, mean + i, rstd + i, kernels__f32(x) + i * c, kernels__f32(g), kernels__f32(b),
		    eps, c);
}

void
kernels_rmsnorm(struct kernels *k, struct tensor *y, float *rstd, const struct tensor *x, const struct tensor *g, float eps)
{
	int64_t m = kernels__rows(x), c = kernels__cols(x);

	kernels__shape(kernels__rows(y) == m && kernels__cols(y) == c && kernels__cols(g) == c, "rmsnorm");
#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * c > k->small)
	for (int64_t i = 0; i < m; i++)
		k->vec->rmsnorm(kernels__f32(y) + i * c, rstd + i, kernels__f32(x) + i * c, kernels__f32(g), eps, c);
}

/* Both norms: gradients of weights gather in a partial row for each block of rows, and the blocks are added in order. */
static void
norm_bwd(struct kernels *k, struct tensor *d_x, struct tensor *d_g, struct tensor *d_b, const struct tensor *d_y,
    const struct tensor *x, const struct tensor *g, const float *mean, const float *rstd, bool add)
{
	int64_t m = kernels__rows(x), c = kernels__cols(x), blocks = (m + KERNELS_ROW_BLOCK - 1) / KERNELS_ROW_BLOCK;
	int64_t width = d_b != NULL ? 2 * c : c;
	float *partial = kernels__scratch(k, (size_t)blocks * (size_t)width);

#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * c > k->small)
	for (int64_t block = 0; block < blocks; block++) {
		int64_t begin = block * KERNELS_ROW_BLOCK, end = begin + KERNELS_ROW_BLOCK < m ? begin + KERNELS_ROW_BLOCK : m;
		float *p = partial + block * width;

		memset(p, 0, (size_t)width * sizeof(float));
		for (int64_t i = begin; i < end; i++) {
			float *dx = kernels__f32(d_x) + i * c;
			const float *dy = kernels__f32(d_y) + i * c, *row = kernels__f32(x) + i * c;

			if (d_b != NULL)
				k->vec->layernorm_bwd(dx, p, p + c, dy, row, kernels__f32(g), mean[i], rstd[i], add, c);
			else
				k->vec->rmsnorm_bwd(dx, p, dy, row, kernels__f32(g), rstd[i], add, c);
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

	check_same_heads(y, x, g, "rmsnorm_heads");
#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * heads * d > k->small)
	for (int64_t i = 0; i < m; i++)
		for (int64_t h = 0; h < heads; h++)
			k->vec->rmsnorm(kernels__head_at(y, i, h), rstd + i * heads + h, kernels__head_at(x, i, h), kernels__f32(g), eps, d);
}

/* As norm_bwd: a partial row of d_g for each block of rows. */
void
kernels_rmsnorm_heads_bwd(struct kernels *k, struct kernels_heads *d_x, struct tensor *d_g, const struct kernels_heads *d_y,
    const struct kernels_heads *x, const struct tensor *g, const float *rstd, int64_t m)
{
	int64_t heads = x->n_heads, d = x->head_dim, blocks = (m + KERNELS_ROW_BLOCK - 1) / KERNELS_ROW_BLOCK;
	float *partial = kernels__scratch(k, (size_t)blocks * (size_t)d);

	check_same_heads(d_x, x, g, "rmsnorm_heads_bwd");
	check_same_heads(d_y, x, d_g, "rmsnorm_heads_bwd");
#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * heads * d > k->small)
	for (int64_t block = 0; block < blocks; block++) {
		int64_t begin = block * KERNELS_ROW_BLOCK, end = begin + KERNELS_ROW_BLOCK < m ? begin + KERNELS_ROW_BLOCK : m;
		float *p = partial + block * d;

		memset(p, 0, (size_t)d * sizeof(float));
		for (int64_t i = begin; i < end; i++)
			for (int64_t h = 0; h < heads; h++)
				k->vec->rmsnorm_bwd(kernels__head_at(d_x, i, h), p, kernels__head_at(d_y, i, h), kernels__head_at(x, i, h),
				    kernels__f32(g), rstd[i * heads + h], false, d);
	}
	for (int64_t block = 0; block < blocks; block++)
		k->vec->add(kernels__f32(d_g), kernels__f32(d_g), partial + block * d, d);
}
