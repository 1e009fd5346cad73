/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/kernels/cpu/vec_rows.h"

#include <math.h>
#include <string.h>
#include "engine/kernels/cpu/vec.h"

/*
 * Four vectors of partial sums hide the latency of addition; for narrower vectors the compiler splits them.
 */
typedef float lanes_f __attribute__((vector_size(4 * VEC_LANES), aligned(4)));
typedef int32_t lanes_i __attribute__((vector_size(4 * VEC_LANES)));
typedef double lanes_d __attribute__((vector_size(8 * VEC_LANES)));

static inline lanes_f
load(const float *p)
{
	return *(const lanes_f *)p;
}

static inline float
fold(lanes_f a, lanes_f b, lanes_f c, lanes_f d)
{
	lanes_f s = (a + b) + (c + d);

	return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/*
 * The sum over i: VECTOR(i) gives 8 terms, SCALAR(i) one. The remaining terms that fill no vector are summed
 * separately and added last.
 */
#define ROW_SUM(result, n, VECTOR, SCALAR)					\
	do {									\
		lanes_f s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};			\
		int64_t i = 0;							\
		float tail = 0;							\
		for (; i + 4 * VEC_LANES <= (n); i += 4 * VEC_LANES) {		\
			s0 += VECTOR(i);					\
			s1 += VECTOR(i + VEC_LANES);				\
			s2 += VECTOR(i + 2 * VEC_LANES);			\
			s3 += VECTOR(i + 3 * VEC_LANES);			\
		}								\
		for (; i + VEC_LANES <= (n); i += VEC_LANES)			\
			s0 += VECTOR(i);					\
		for (; i < (n); i++)						\
			tail += SCALAR(i);					\
		(result) = fold(s0, s1, s2, s3) + tail;				\
	} while (0)

float
VEC_ROW(sum)(const float *x, int64_t n)
{
	float s;

#define V(i) load(x + (i))
#define S(i) x[i]
	ROW_SUM(s, n, V, S);
#undef V
#undef S
	return s;
}

/* Computes PIECE numbers before it adds them, from the nearest cache, in the order of ROW_SUM over the whole row. */
float
VEC_ROW(exp_sum)(float *y, const float *x, float a, float shift, int64_t n)
{
	enum { PIECE = 256 * VEC_LANES };
	lanes_f s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
	float tail = 0;

	for (int64_t begin = 0; begin < n; begin += PIECE) {
		int64_t i = begin, end = n - begin < PIECE ? n : begin + PIECE;

		VEC_LOOP (int64_t j = begin; j < end; j++)
			y[j] = vec_expf(x[j] * a - shift);
		for (; i + 4 * VEC_LANES <= end; i += 4 * VEC_LANES) {
			s0 += load(y + i);
			s1 += load(y + i + VEC_LANES);
			s2 += load(y + i + 2 * VEC_LANES);
			s3 += load(y + i + 3 * VEC_LANES);
		}
		for (; i + VEC_LANES <= end; i += VEC_LANES)
			s0 += load(y + i);
		for (; i < end; i++)
			tail += y[i];
	}
	return fold(s0, s1, s2, s3) + tail;
}

float
VEC_ROW(dot)(const float *a, const float *b, int64_t n)
{
	float s;

#define V(i) (load(a + (i)) * load(b + (i)))
#define S(i) (a[i] * b[i])
	ROW_SUM(s, n, V, S);
#undef V
#undef S
	return s;
}

double
VEC_ROW(sum_squares)(const float *x, int64_t n)
{
	double lanes[4 * VEC_LANES] = {0}, s = 0;
	int64_t i = 0;

	for (; i + 4 * VEC_LANES <= n; i += 4 * VEC_LANES)
		for (int l = 0; l < 4 * VEC_LANES; l++)
			lanes[l] += (double)x[i + l] * (double)x[i + l];
	for (int l = 0; l < 4 * VEC_LANES; l++)
		s += lanes[l];
	for (; i < n; i++)
		s += (double)x[i] * (double)x[i];
	return s;
}

float
VEC_ROW(max)(const float *x, int64_t n)
{
	float lanes[4 * VEC_LANES], m = -INFINITY;
	int64_t i = 0;

	for (int l = 0; l < 4 * VEC_LANES; l++)
		lanes[l] = -INFINITY;
	for (; i + 4 * VEC_LANES <= n; i += 4 * VEC_LANES)
		for (int l = 0; l < 4 * VEC_LANES; l++)
			lanes[l] = x[i + l] > lanes[l] ? x[i + l] : lanes[l];
	for (int l = 0; l < 4 * VEC_LANES; l++)
		m = lanes[l] > m ? lanes[l] : m;
	for (; i < n; i++)
		m = x[i] > m ? x[i] : m;
	return m;
}

int64_t
VEC_ROW(count_above)(const float *x, int64_t n, float bound)
{
	int64_t total = 0;

	for (int64_t begin = 0; begin < n; begin += 1 << 20) {		/* 32-bit counters inside the loop
									 * give twice the lanes */
		int64_t end = n - begin < 1 << 20 ? n : begin + (1 << 20);
		int32_t c = 0;

		for (int64_t i = begin; i < end; i++)
			c += x[i] > bound;
		total += c;
	}
	return total;
}

int64_t
VEC_ROW(count_from)(const float *x, int64_t n, float bound)
{
	int64_t total = 0;

	for (int64_t begin = 0; begin < n; begin += 1 << 20) {
		int64_t end = n - begin < 1 << 20 ? n : begin + (1 << 20);
		int32_t c = 0;

		for (int64_t i = begin; i < end; i++)
			c += x[i] >= bound;
		total += c;
	}
	return total;
}

void
VEC_ROW(layernorm)(float *y, float *mean, float *rstd, const float *x, const float *g, const float *b, float eps, int64_t n)
{
	float m = VEC_ROW(sum)(x, n) / (float)n, s, r;

#define V(i) ((load(x + (i)) - m) * (load(x + (i)) - m))
#define S(i) ((x[i] - m) * (x[i] - m))
	ROW_SUM(s, n, V, S);
#undef V
#undef S
	r = 1.0f / sqrtf(s / (float)n + eps);
	*mean = m;
	*rstd = r;
	VEC_LOOP (int64_t i = 0; i < n; i++)
		y[i] = VEC_FMA((x[i] - m) * r, g[i], b[i]);
}

/* d_x = rstd * (d_y g - mean(d_y g) - xhat mean(d_y g xhat)) */
void
VEC_ROW(layernorm_bwd)(float *d_x, float *d_g, float *d_b, const float *d_y, const float *x, const float *g, float mean,
    float rstd, bool add, int64_t n)
{
	float a, b;

#define V(i) (load(d_y + (i)) * load(g + (i)))
#define S(i) (d_y[i] * g[i])
	ROW_SUM(a, n, V, S);
#undef V
#undef S
#define V(i) (load(d_y + (i)) * load(g + (i)) * ((load(x + (i)) - mean) * rstd))
#define S(i) (d_y[i] * g[i] * ((x[i] - mean) * rstd))
	ROW_SUM(b, n, V, S);
#undef V
#undef S
	a /= (float)n;
	b /= (float)n;
	VEC_LOOP (int64_t i = 0; i < n; i++) {
		d_g[i] = VEC_FMA(d_y[i], (x[i] - mean) * rstd, d_g[i]);
		d_b[i] += d_y[i];
	}
	if (add)
		VEC_LOOP (int64_t i = 0; i < n; i++)
			d_x[i] += rstd * (d_y[i] * g[i] - a - (x[i] - mean) * rstd * b);
	else
		VEC_LOOP (int64_t i = 0; i < n; i++)
			d_x[i] = rstd * (d_y[i] * g[i] - a - (x[i] - mean) * rstd * b);
}

void
VEC_ROW(rmsnorm)(float *y, float *rstd, const float *x, const float *g, float eps, int64_t n)
{
	float r = 1.0f / sqrtf(VEC_ROW(dot)(x, x, n) / (float)n + eps);

	*rstd = r;
	VEC_LOOP (int64_t i = 0; i < n; i++)
		y[i] = x[i] * r * g[i];
}

/* d_x = rstd * (d_y g - xhat mean(d_y g xhat)) */
void
VEC_ROW(rmsnorm_bwd)(float *d_x, float *d_g, const float *d_y, const float *x, const float *g, float rstd, bool add, int64_t n)
{
	float b;

#define V(i) (load(d_y + (i)) * load(g + (i)) * (load(x + (i)) * rstd))
#define S(i) (d_y[i] * g[i] * (x[i] * rstd))
	ROW_SUM(b, n, V, S);
#undef V
#undef S
	b /= (float)n;
	VEC_LOOP (int64_t i = 0; i < n; i++)
		d_g[i] = VEC_FMA(d_y[i], x[i] * rstd, d_g[i]);
	if (add)
		VEC_LOOP (int64_t i = 0; i < n; i++)
			d_x[i] += rstd * (d_y[i] * g[i] - x[i] * rstd * b);
	else
		VEC_LOOP (int64_t i = 0; i < n; i++)
			d_x[i] = rstd * (d_y[i] * g[i] - x[i] * rstd * b);
}

typedef int32_t pairs_i __attribute__((vector_size(32), aligned(2), may_alias));

#define SHUFFLE(a, b, ...) __builtin_shufflevector((a), (b), __VA_ARGS__)

/*
 * Transposes eight rows of eight pairs: exchanges single pairs, then groups of two, then halves of the rows.
 */
static inline void
transpose_8(uint32_t *y, int64_t y_stride, const uint16_t *x, int64_t x_stride)
{
	lanes_i r[8], s[8];

	for (int i = 0; i < 8; i++)
		r[i] = *(const pairs_i *)(x + i * x_stride);
	for (int i = 0; i < 8; i += 2) {
		s[i] = SHUFFLE(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
		s[i + 1] = SHUFFLE(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
	}
	for (int i = 0; i < 8; i += 4)
		for (int j = 0; j < 2; j++) {
			r[i + 2 * j] = SHUFFLE(s[i + j], s[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
			r[i + 2 * j + 1] = SHUFFLE(s[i + j], s[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
		}
	for (int i = 0; i < 4; i++) {
		*(pairs_i *)(y + i * y_stride) = SHUFFLE(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
		*(pairs_i *)(y + (i + 4) * y_stride) = SHUFFLE(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
	}
}

void
VEC_ROW(transpose)(uint32_t *y, int64_t y_stride, const uint16_t *x, int64_t x_stride, int64_t rows, int64_t cols)
{
	for (int64_t i = 0; i < rows; i += 8)
		for (int64_t j = 0; j < cols; j += 8) {
			if (rows - i >= 8 && cols - j >= 8) {
				transpose_8(y + j * y_stride + i, y_stride, x + i * x_stride + 2 * j, x_stride);
				continue;
			}
			for (int64_t a = i; a < i + 8 && a < rows; a++)
				for (int64_t b = j; b < j + 8 && b < cols; b++)
					memcpy(y + b * y_stride + a, x + a * x_stride + 2 * b, sizeof(*y));
		}
}

void
VEC_ROW(rope)(float *restrict x, const float *restrict cosine, const float *restrict sine, int64_t half, bool inverse)
{
	float sign = inverse ? -1.0f : 1.0f;

	VEC_LOOP (int64_t j = 0; j < half; j++) {
		float a = x[j], b = x[j + half], s = sign * sine[j];

		x[j] = a * cosine[j] - b * s;
		x[j + half] = b * cosine[j] + a * s;
	}
}

/*
 * Loops end at a multiple of 16 if the padding allows it: whole vectors are faster than a short remainder,
 * and the padding has weight 0.
 */
static inline int64_t
row_end(int64_t n, int64_t n_padded)
{
	int64_t end = (n + 15) / 16 * 16;

	return end < n_padded ? end : n_padded;
}

float
VEC_ROW(softmax)(float *s, int64_t n, int64_t n_padded, float scale)
{
	int64_t end = row_end(n, n_padded);
	float m, sum, inv;

	for (int64_t i = n; i < end; i++)
		s[i] = -INFINITY;
	m = VEC_ROW(max)(s, end);
	VEC_LOOP (int64_t i = 0; i < end; i++)
		s[i] = vec_expf((s[i] - m) * scale);
	sum = VEC_ROW(sum)(s, end);
	inv = 1.0f / sum;
	VEC_LOOP (int64_t i = 0; i < end; i++)
		s[i] *= inv;
	VEC_LOOP (int64_t i = n; i < n_padded; i++)
		s[i] = 0;
	return m * scale + logf(sum);
}

void
VEC_ROW(softmax_bwd)(float *restrict p, float *restrict d_p, int64_t n, int64_t n_padded, float scale, float lse, float delta)
{
	int64_t end = row_end(n, n_padded);

	for (int64_t i = n; i < end; i++) {
		p[i] = -INFINITY;
		d_p[i] = delta;
	}
	VEC_LOOP (int64_t i = 0; i < end; i++) {
		p[i] = vec_expf(p[i] * scale - lse);
		d_p[i] = p[i] * (d_p[i] - delta) * scale;
	}
	VEC_LOOP (int64_t i = n; i < n_padded; i++)
		p[i] = d_p[i] = 0;
}
