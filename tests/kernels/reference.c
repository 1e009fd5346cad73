/* SPDX-License-Identifier: Apache-2.0 */
#include "reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SQRT_2_OVER_PI 0.79788456080286535588

static int64_t
weight_at(enum kernels_layout layout, int64_t in, int64_t out, int64_t k, int64_t n)
{
	return layout == KERNELS_OUT_IN ? out * k + in : in * n + out;
}

void
kernels_linear_ref(float *y, const float *x, const float *w, const float *b, int64_t m, int64_t k, int64_t n,
    enum kernels_layout layout, bool add)
{
	for (int64_t r = 0; r < m; r++) {
		for (int64_t j = 0; j < n; j++) {
			double s = (b != NULL ? (double)b[j] : 0) + (add ? (double)y[r * n + j] : 0);

			for (int64_t i = 0; i < k; i++)
				s += (double)x[r * k + i] * (double)w[weight_at(layout, i, j, k, n)];
			y[r * n + j] = (float)s;
		}
	}
}

void
kernels_linear_bwd_x_ref(float *d_x, const float *d_y, const float *w, int64_t m, int64_t k, int64_t n,
    enum kernels_layout layout, bool add)
{
	for (int64_t r = 0; r < m; r++) {
		for (int64_t i = 0; i < k; i++) {
			double s = add ? (double)d_x[r * k + i] : 0;

			for (int64_t j = 0; j < n; j++)
				s += (double)d_y[r * n + j] * (double)w[weight_at(layout, i, j, k, n)];
			d_x[r * k + i] = (float)s;
		}
	}
}

void
kernels_linear_bwd_w_ref(float *d_w, float *d_b, const float *d_y, const float *x, int64_t m, int64_t k, int64_t n,
    enum kernels_layout layout)
{
	for (int64_t j = 0; j < n; j++) {
		double bias = 0;

		for (int64_t i = 0; i < k; i++) {
			double s = 0;

			for (int64_t r = 0; r < m; r++)
				s += (double)d_y[r * n + j] * (double)x[r * k + i];
			d_w[weight_at(layout, i, j, k, n)] += (float)s;
		}
		for (int64_t r = 0; r < m; r++)
			bias += (double)d_y[r * n + j];
		if (d_b != NULL)
			d_b[j] += (float)bias;
	}
}

static int64_t
position(const int32_t *starts, int64_t m, int64_t t)
{
	return m % t - (starts != NULL ? starts[m] : 0);
}

void
kernels_embed_ref(float *y, const int32_t *tokens, const float *wte, const float *wpe, int64_t b, int64_t t, int64_t c,
    const int32_t *starts)
{
	for (int64_t r = 0; r < b * t; r++)
		for (int64_t i = 0; i < c; i++)
			y[r * c + i] = wte[tokens[r] * c + i] + (wpe != NULL ? wpe[position(starts, r, t) * c + i] : 0);
}

void
kernels_embed_bwd_ref(float *d_wte, float *d_wpe, const float *d_y, const int32_t *tokens, int64_t b, int64_t t, int64_t c,
    const int32_t *starts)
{
	for (int64_t r = 0; r < b * t; r++) {
		for (int64_t i = 0; i < c; i++) {
			d_wte[tokens[r] * c + i] += d_y[r * c + i];
			if (d_wpe != NULL)
				d_wpe[position(starts, r, t) * c + i] += d_y[r * c + i];
		}
	}
}

void
kernels_layernorm_ref(float *y, float *mean, float *rstd, const float *x, const float *g, const float *b, float eps, int64_t m,
    int64_t c)
{
	for (int64_t r = 0; r < m; r++, x += c, y += c) {
		double mu = 0, var = 0, inv;

		for (int64_t i = 0; i < c; i++)
			mu += (double)x[i] / (double)c;
		for (int64_t i = 0; i < c; i++)
			var += ((double)x[i] - mu) * ((double)x[i] - mu) / (double)c;
		inv = 1 / sqrt(var + (double)eps);
		for (int64_t i = 0; i < c; i++)
			y[i] = (float)(((double)x[i] - mu) * inv * (double)g[i] + (double)b[i]);
		mean[r] = (float)mu;
		rstd[r] = (float)inv;
	}
}

void
kernels_layernorm_bwd_ref(float *d_x, float *d_g, float *d_b, const float *d_y, const float *x, const float *g,
    const float *mean, const float *rstd, bool add, int64_t m, int64_t c)
{
	for (int64_t r = 0; r < m; r++, x += c, d_x += c, d_y += c) {
		double mu = (double)mean[r], inv = (double)rstd[r], a = 0, b = 0;

		for (int64_t i = 0; i < c; i++) {
			double hat = ((double)x[i] - mu) * inv, d = (double)d_y[i] * (double)g[i];

			a += d / (double)c;
			b += d * hat / (double)c;
			d_g[i] += (float)((double)d_y[i] * hat);
			d_b[i] += d_y[i];
		}
		for (int64_t i = 0; i < c; i++)
			d_x[i] = (float)((add ? (double)d_x[i] : 0) +
			    inv * ((double)d_y[i] * (double)g[i] - a - ((double)x[i] - mu) * inv * b));
	}
}

void
kernels_rmsnorm_ref(float *y, float *rstd, const float *x, const float *g, float eps, int64_t m, int64_t c)
{
	for (int64_t r = 0; r < m; r++, x += c, y += c) {
		double square = 0, inv;

		for (int64_t i = 0; i < c; i++)
			square += (double)x[i] * (double)x[i] / (double)c;
		inv = 1 / sqrt(square + (double)eps);
		for (int64_t i = 0; i < c; i++)
			y[i] = (float)((double)x[i] * inv * (double)g[i]);
		rstd[r] = (float)inv;
	}
}

void
kernels_rmsnorm_bwd_ref(float *d_x, float *d_g, const float *d_y, const float *x, const float *g, const float *rstd, bool add,
    int64_t m, int64_t c)
{
	for (int64_t r = 0; r < m; r++, x += c, d_x += c, d_y += c) {
		double inv = (double)rstd[r], b = 0;

		for (int64_t i = 0; i < c; i++) {
			double hat = (double)x[i] * inv;

			b += (double)d_y[i] * (double)g[i] * hat / (double)c;
			d_g[i] += (float)((double)d_y[i] * hat);
		}
		for (int64_t i = 0; i < c; i++)
			d_x[i] = (float)((add ? (double)d_x[i] : 0) + inv * ((double)d_y[i] * (double)g[i] - (double)x[i] * inv * b));
	}
}

void
kernels_add_ref(float *y, const float *x, const float *r, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		y[i] = x[i] + r[i];
}

void
kernels_gelu_ref(float *y, const float *x, int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		double v = (double)x[i];

		y[i] = (float)(0.5 * v * (1 + tanh(SQRT_2_OVER_PI * (v + 0.044715 * v * v * v))));
	}
}

void
kernels_gelu_bwd_ref(float *d_x, const float *d_y, const float *x, int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		double v = (double)x[i], t = tanh(SQRT_2_OVER_PI * (v + 0.044715 * v * v * v));

		d_x[i] = (float)((double)d_y[i] *
		    (0.5 * (1 + t) + 0.5 * v * (1 - t * t) * SQRT_2_OVER_PI * (1 + 3 * 0.044715 * v * v)));
	}
}

void
kernels_gelu_erf_ref(float *y, const float *x, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		y[i] = (float)((double)x[i] * 0.5 * erfc(-(double)x[i] / sqrt(2.0)));
}

void
kernels_gelu_erf_bwd_ref(float *d_x, const float *d_y, const float *x, int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		double v = (double)x[i];

		d_x[i] = (float)((double)d_y[i] * (0.5 * erfc(-v / sqrt(2.0)) + v * exp(-0.5 * v * v) / sqrt(2 * 3.14159265358979323846)));
	}
}

void
kernels_swiglu_ref(float *y, const float *gate, const float *up, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		y[i] = (float)((double)gate[i] / (1 + exp(-(double)gate[i])) * (double)up[i]);
}

void
kernels_swiglu_bwd_ref(float *d_gate, float *d_up, const float *d_y, const float *gate, const float *up, int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		double x = (double)gate[i], u = (double)up[i], d = (double)d_y[i], s = 1 / (1 + exp(-x));

		d_gate[i] = (float)(d * u * s * (1 + x * (1 - s)));
		d_up[i] = (float)(d * x * s);
	}
}

void
kernels_relu_ref(float *y, const float *x, int64_t n, bool squared)
{
	for (int64_t i = 0; i < n; i++)
		y[i] = x[i] > 0 ? squared ? x[i] * x[i] : x[i] : 0;
}

void
kernels_relu_bwd_ref(float *d_x, const float *d_y, const float *x, int64_t n, bool squared)
{
	for (int64_t i = 0; i < n; i++)
		d_x[i] = x[i] > 0 ? squared ? 2 * x[i] * d_y[i] : d_y[i] : 0;
}

void
kernels_geglu_ref(float *y, const float *gate, const float *up, int64_t n)
{
	kernels_gelu_ref(y, gate, n);
	for (int64_t i = 0; i < n; i++)
		y[i] *= up[i];
}

void
kernels_geglu_bwd_ref(float *d_gate, float *d_up, const float *d_y, const float *gate, const float *up, int64_t n)
{
	kernels_gelu_ref(d_up, gate, n);
	kernels_gelu_bwd_ref(d_gate, d_y, gate, n);
	for (int64_t i = 0; i < n; i++) {
		d_up[i] *= d_y[i];
		d_gate[i] *= up[i];
	}
}

static float *
head_row(const struct kernels_heads *x, int64_t row, int64_t h)
{
	return (float *)x->data + row * x->stride + h * (x->head_stride != 0 ? x->head_stride : x->head_dim);
}

void
kernels_rmsnorm_heads_ref(struct kernels_heads *y, float *rstd, const struct kernels_heads *x, const float *g, float eps, int64_t m)
{
	for (int64_t r = 0; r < m; r++)
		for (int64_t h = 0; h < x->n_heads; h++)
			kernels_rmsnorm_ref(head_row(y, r, h), rstd + r * x->n_heads + h, head_row(x, r, h), g, eps, 1, x->head_dim);
}

void
kernels_rmsnorm_heads_bwd_ref(struct kernels_heads *d_x, float *d_g, const struct kernels_heads *d_y, const struct kernels_heads *x,
    const float *g, const float *rstd, int64_t m)
{
	for (int64_t r = 0; r < m; r++)
		for (int64_t h = 0; h < x->n_heads; h++)
			kernels_rmsnorm_bwd_ref(head_row(d_x, r, h), d_g, head_row(d_y, r, h), head_row(x, r, h), g,
			    rstd + r * x->n_heads + h, false, 1, x->head_dim);
}

void
kernels_rope_ref(struct kernels_heads *x, const float *freq, int64_t b, int64_t t, const int32_t *starts, bool inverse)
{
	int64_t half = x->head_dim / 2;

	for (int64_t r = 0; r < b * t; r++) {
		for (int64_t h = 0; h < x->n_heads; h++) {
			float *p = head_row(x, r, h);

			for (int64_t j = 0; j < half; j++) {
				float angle = (float)position(starts, r, t) * freq[j];
				double cosine = cos((double)angle), sine = inverse ? -sin((double)angle) : sin((double)angle);
				double a = (double)p[j], c = (double)p[j + half];

				p[j] = (float)(a * cosine - c * sine);
				p[j + half] = (float)(c * cosine + a * sine);
			}
		}
	}
}

/* The score of one key under `form`; *slope: its derivative with respect to q k^T. */
static double
score(const struct kernels_heads *q, const struct kernels_heads *key, const struct kernels_attention_form *form, int64_t row, int64_t h,
    int64_t key_row, int64_t kh, double *slope)
{
	const float *a = head_row(q, row, h), *b = head_row(key, key_row, kh);
	double s = 0;

	for (int64_t j = 0; j < q->head_dim; j++)
		s += (double)a[j] * (double)b[j];
	*slope = form != NULL && form->scale != 0 ? (double)form->scale : 1 / sqrt((double)q->head_dim);
	s *= *slope;
	if (form != NULL && form->soft_cap > 0) {
		double cap = (double)form->soft_cap, u = tanh(s / cap);

		*slope *= 1 - u * u;
		s = cap * u;
	}
	return s;
}

/* The first key that query i of the sequence at row0 attends to. */
static int64_t
first_of(const struct kernels_attention_form *form, int64_t row0, int64_t i)
{
	int64_t start = form != NULL && form->starts != NULL ? form->starts[row0 + i] : 0;

	return form != NULL && form->window > 0 && i + 1 - form->window > start ? i + 1 - form->window : start;
}

/* Log-sum-exp of the scores of query row i (within its sequence). */
static double
score_lse(const struct kernels_heads *q, const struct kernels_heads *key, const struct kernels_attention_form *form, int64_t row0,
    int64_t i, int64_t h, int64_t kh)
{
	double top = -INFINITY, sum = 0, slope;

	for (int64_t j = first_of(form, row0, i); j <= i; j++)
		top = fmax(top, score(q, key, form, row0 + i, h, row0 + j, kh, &slope));
	for (int64_t j = first_of(form, row0, i); j <= i; j++)
		sum += exp(score(q, key, form, row0 + i, h, row0 + j, kh, &slope) - top);
	return top + log(sum);
}

void
kernels_attention_ref(float *o, float *lse, const struct kernels_heads *q, const struct kernels_heads *key,
    const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t)
{
	int64_t d = q->head_dim, group = q->n_heads / key->n_heads;

	for (int64_t s = 0; s < b; s++) {
		for (int64_t h = 0; h < q->n_heads; h++) {
			for (int64_t i = 0; i < t; i++) {
				double l = score_lse(q, key, form, s * t, i, h, h / group);
				float *out = o + (s * t + i) * q->n_heads * d + h * d;

				lse[(s * q->n_heads + h) * t + i] = (float)l;
				for (int64_t x = 0; x < d; x++) {
					double sum = 0, slope;

					for (int64_t j = first_of(form, s * t, i); j <= i; j++)
						sum += exp(score(q, key, form, s * t + i, h, s * t + j, h / group, &slope) - l) *
						    (double)head_row(value, s * t + j, h / group)[x];
					out[x] = (float)sum;
				}
			}
		}
	}
}

void
kernels_attention_bwd_ref(struct kernels_heads *d_q, struct kernels_heads *d_key, struct kernels_heads *d_value,
    const float *d_o, const struct kernels_heads *q, const struct kernels_heads *key, const struct kernels_heads *value,
    const struct kernels_attention_form *form, int64_t b, int64_t t)
{
	int64_t d = q->head_dim, group = q->n_heads / key->n_heads;

	for (int64_t r = 0; r < b * t; r++) {
		for (int64_t h = 0; h < key->n_heads; h++) {
			memset(head_row(d_key, r, h), 0, (size_t)d * sizeof(float));
			memset(head_row(d_value, r, h), 0, (size_t)d * sizeof(float));
		}
		for (int64_t h = 0; h < q->n_heads; h++)
			memset(head_row(d_q, r, h), 0, (size_t)d * sizeof(float));
	}
	for (int64_t s = 0; s < b; s++) {
		for (int64_t h = 0; h < q->n_heads; h++) {
			for (int64_t i = 0; i < t; i++) {
				const float *out = d_o + (s * t + i) * q->n_heads * d + h * d;
				double l = score_lse(q, key, form, s * t, i, h, h / group), delta = 0;

				for (int pass = 0; pass < 2; pass++) {
					for (int64_t j = first_of(form, s * t, i); j <= i; j++) {
						double slope, p = exp(score(q, key, form, s * t + i, h, s * t + j, h / group, &slope) - l), d_p = 0;

						for (int64_t x = 0; x < d; x++)
							d_p += (double)out[x] * (double)head_row(value, s * t + j, h / group)[x];
						if (pass == 0) {
							delta += p * d_p;
							continue;
						}
						for (int64_t x = 0; x < d; x++) {
							double d_s = p * (d_p - delta) * slope;

							head_row(d_value, s * t + j, h / group)[x] += (float)(p * (double)out[x]);
							head_row(d_key, s * t + j, h / group)[x] +=
							    (float)(d_s * (double)head_row(q, s * t + i, h)[x]);
							head_row(d_q, s * t + i, h)[x] +=
							    (float)(d_s * (double)head_row(key, s * t + j, h / group)[x]);
						}
					}
				}
			}
		}
	}
}

void
kernels_norm_blocks_ref(const float *x, int64_t n, double *out)
{
	for (int64_t i = 0; i < n; i++) {
		if (i % KERNELS_NORM_BLOCK == 0)
			out[i / KERNELS_NORM_BLOCK] = 0;
		out[i / KERNELS_NORM_BLOCK] += (double)x[i] * (double)x[i];
	}
}

void
kernels_adamw_ref(float *w, float *m, float *v, const float *grad, int64_t n, const struct kernels_adamw *a)
{
	double b1 = (double)a->beta1, b2 = (double)a->beta2, lr = (double)a->lr;

	for (int64_t i = 0; i < n; i++) {
		double g = (double)grad[i] * (double)a->grad_scale, value = (double)w[i] - lr * (double)a->decay * (double)w[i];
		double m_new = b1 * (double)m[i] + (1 - b1) * g, v_new = b2 * (double)v[i] + (1 - b2) * g * g;

		value -= lr * (m_new / (1 - pow(b1, (double)a->step))) / (sqrt(v_new / (1 - pow(b2, (double)a->step))) + (double)a->eps);
		w[i] = (float)value;
		m[i] = (float)m_new;
		v[i] = (float)v_new;
	}
}

/* X = a X + (b G + c G G) X with G = X X^T; x: [rows, cols]. */
static void
newton_schulz(double *x, int64_t rows, int64_t cols)
{
	double *g = calloc((size_t)(rows * rows), sizeof(*g)), *p = calloc((size_t)(rows * rows), sizeof(*p));
	double *y = calloc((size_t)(rows * cols), sizeof(*y));

	for (int64_t i = 0; i < rows; i++)
		for (int64_t j = 0; j < rows; j++)
			for (int64_t c = 0; c < cols; c++)
				g[i * rows + j] += x[i * cols + c] * x[j * cols + c];
	for (int64_t i = 0; i < rows; i++)
		for (int64_t j = 0; j < rows; j++) {
			p[i * rows + j] = -4.7750 * g[i * rows + j] + (i == j ? 3.4445 : 0);
			for (int64_t c = 0; c < rows; c++)
				p[i * rows + j] += 2.0315 * g[i * rows + c] * g[c * rows + j];
		}
	for (int64_t i = 0; i < rows; i++)
		for (int64_t j = 0; j < rows; j++)
			for (int64_t c = 0; c < cols; c++)
				y[i * cols + c] += p[i * rows + j] * x[j * cols + c];
	memcpy(x, y, (size_t)(rows * cols) * sizeof(*x));
	free(g);
	free(p);
	free(y);
}

void
kernels_muon_ref(const struct kernels_muon_matrix *x, const struct kernels_muon *a)
{
	double *u = malloc((size_t)(x->rows * x->cols) * sizeof(*u)), sum = 0, beta = (double)a->momentum, lr = (double)a->lr;

	for (int64_t r = 0; r < x->rows; r++)
		for (int64_t c = 0; c < x->cols; c++) {
			int64_t at = r / x->group * x->group_stride + r % x->group * x->ld + c;
			double g = (double)x->grad[at] * (double)a->grad_scale, m = beta * (double)x->m[at] + (1 - beta) * g;
			double *to = &u[r * x->cols + c];

			x->m[at] = (float)m;
			*to = (1 - beta) * g + beta * m;
			sum += *to * *to;
		}
	for (int64_t i = 0; i < x->rows * x->cols; i++)
		u[i] /= fmax(sqrt(sum), 1e-7);
	for (int i = 0; i < 5; i++)
		newton_schulz(u, x->rows, x->cols);
	for (int64_t r = 0; r < x->rows; r++)
		for (int64_t c = 0; c < x->cols; c++) {
			float *w = &x->w[r / x->group * x->group_stride + r % x->group * x->ld + c];

			*w = (float)((double)*w * (1 - lr * (double)a->decay) - lr * (double)x->scale * u[r * x->cols + c]);
		}
	free(u);
}
