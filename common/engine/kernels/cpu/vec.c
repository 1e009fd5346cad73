/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/kernels/cpu/vec.h"

#include "engine/kernels/cpu/vec_math.h"
#include "engine/kernels/cpu/vec_rows.h"

#define GELU_A 0.7978845608028654f	/* sqrt(2 / pi) */
#define GELU_B 0.044715f

static void
add(float *y, const float *a, const float *b, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++)
		y[i] = a[i] + b[i];
}

static void
scale(float *y, float a, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++)
		y[i] *= a;
}

static void
axpy(float *y, float a, const float *x, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++)
		y[i] = VEC_FMA(a, x[i], y[i]);
}

/* 0.5 (1 + tanh(u)) is computed as sigmoid(2 u), which has no cancellation where tanh is near -1. */
static void
gelu(float *y, const float *x, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++) {
		float u = GELU_A * x[i] * (1.0f + GELU_B * x[i] * x[i]);

		y[i] = x[i] * vec_sigmoidf(2.0f * u);
	}
}

static void
gelu_bwd(float *d_x, const float *d_y, const float *x, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++) {
		float square = x[i] * x[i], u = GELU_A * x[i] * (1.0f + GELU_B * square);
		float slope = GELU_A * (1.0f + 3.0f * GELU_B * square), s = vec_sigmoidf(2.0f * u), t = 1.0f - s;

		/* for large |x|, s or 1 - s is 0 and the slope may be infinite: the product must be 0, not NaN */
		slope = slope > 1e30f ? 1e30f : slope;
		d_x[i] = d_y[i] * (s + 2.0f * (x[i] * (s * t)) * slope);
	}
}

/*
 * Phi(x) from z = |x| / sqrt(2): 1 - erf(z) = t (a1 + t (a2 + ...)) exp(-z^2), t = 1 / (1 + 0.3275911 z),
 * within 1.5e-7 (Hastings; Abramowitz and Stegun, 7.1.26). *bell = exp(-x^2 / 2).
 */
static inline float
normal_cdf(float x, float *bell)
{
	float z = fabsf(x) * 0.70710678f, e = vec_expf(-0.5f * x * x), t = 1.0f / VEC_FMA(0.3275911f, z, 1.0f), p;

	p = 1.061405429f;
	p = VEC_FMA(p, t, -1.453152027f);
	p = VEC_FMA(p, t, 1.421413741f);
	p = VEC_FMA(p, t, -0.284496736f);
	p = VEC_FMA(p, t, 0.254829592f);
	p = 0.5f * p * t * e;
	*bell = e;
	return x > 0.0f ? 1.0f - p : p;
}

static void
gelu_erf(float *y, const float *x, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++) {
		float bell;

		y[i] = x[i] * normal_cdf(x[i], &bell);
	}
}

static void
gelu_erf_bwd(float *d_x, const float *d_y, const float *x, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++) {
		/* for |x| over 1e18 the bell is 0 and x may be infinite: the product must be 0, not NaN */
		float bell, cdf = normal_cdf(x[i], &bell), near = x[i] > 1e18f ? 1e18f : x[i] < -1e18f ? -1e18f : x[i];

		d_x[i] = d_y[i] * (cdf + near * bell * 0.39894228f);
	}
}

static void
swiglu(float *y, const float *gate, const float *up, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++)
		y[i] = gate[i] * vec_sigmoidf(gate[i]) * up[i];
}

static void
swiglu_bwd(float *d_gate, float *d_up, const float *d_y, const float *gate, const float *up, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++) {
		float d = d_y[i], x = gate[i], u = up[i], s = vec_sigmoidf(x), silu = x * s;

		d_gate[i] = d * u * (s + silu * (1.0f - s));
		d_up[i] = d * silu;
	}
}

/* y = gelu_new(x); *slope: its derivative. Computed as in gelu and gelu_bwd. */
static inline float
gelu_one(float x, float *slope)
{
	float square = x * x, u = GELU_A * x * (1.0f + GELU_B * square), rise = GELU_A * (1.0f + 3.0f * GELU_B * square);
	float s = vec_sigmoidf(2.0f * u);

	rise = rise > 1e30f ? 1e30f : rise;
	*slope = s + 2.0f * (x * (s * (1.0f - s))) * rise;
	return x * s;
}

static void
geglu(float *y, const float *gate, const float *up, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++) {
		float slope;

		y[i] = gelu_one(gate[i], &slope) * up[i];
	}
}

static void
geglu_bwd(float *d_gate, float *d_up, const float *d_y, const float *gate, const float *up, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++) {
		float d = d_y[i], u = up[i], slope, y = gelu_one(gate[i], &slope);

		d_gate[i] = d * u * slope;
		d_up[i] = d * y;
	}
}

static void
relu(float *y, const float *x, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++)
		y[i] = x[i] > 0.0f ? x[i] : 0.0f;
}

static void
relu_bwd(float *d_x, const float *d_y, const float *x, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++)
		d_x[i] = x[i] > 0.0f ? d_y[i] : 0.0f;
}

static void
relu2(float *y, const float *x, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++)
		y[i] = x[i] > 0.0f ? x[i] * x[i] : 0.0f;
}

static void
relu2_bwd(float *d_x, const float *d_y, const float *x, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++)
		d_x[i] = x[i] > 0.0f ? d_y[i] * 2.0f * x[i] : 0.0f;
}

/*
 * tanh(u) = 2 sigmoid(2 u) - 1 cancels near 0. There its series is used; the first omitted term at 0.3 is
 * 6e-8 of the value.
 */
static void
soft_cap(float *y, const float *x, float a, float cap, int64_t n)
{
	float b = a / cap;

	VEC_LOOP (int64_t i = 0; i < n; i++) {
		float u = x[i] * b, q = u * u, far = 2.0f * vec_sigmoidf(2.0f * u) - 1.0f, p;

		p = VEC_FMA(q, 0.0218694885f, -0.0539682540f);
		p = VEC_FMA(p, q, 0.133333333f);
		p = VEC_FMA(p, q, -0.333333333f);
		p = VEC_FMA(p * q, u, u);
		y[i] = cap * (q < 0.09f ? p : far);
	}
}

static void
soft_cap_bwd(float *d, const float *y, float a, float cap, int64_t n)
{
	float inv = 1.0f / cap;

	VEC_LOOP (int64_t i = 0; i < n; i++)
		d[i] *= a * (1.0f - (y[i] * inv) * (y[i] * inv));
}

static void
exp_scaled(float *y, const float *x, float a, float shift, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++)
		y[i] = vec_expf(x[i] * a - shift);
}

static void
affine(float *y, const float *x, float a, float shift, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++)
		y[i] = x[i] * a - shift;
}

static void
widen(float *restrict y, const uint16_t *restrict x, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++)
		y[i] = vec_bits((uint32_t)x[i] << 16);
}

static void
narrow(uint16_t *restrict y, const float *restrict x, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++)
		y[i] = vec_to_bf16(x[i]);
}

static void
pairs(uint32_t *restrict y, const uint16_t *restrict a, const uint16_t *restrict b, int64_t n)
{
	VEC_LOOP (int64_t i = 0; i < n; i++)
		y[i] = a[i] | (uint32_t)b[i] << 16;
}

static void
momentum(float *restrict u, float *restrict m, const float *restrict grad, int64_t n, float beta, float one_minus_beta, float grad_scale)
{
	VEC_LOOP (int64_t i = 0; i < n; i++) {
		float g = one_minus_beta * (grad[i] * grad_scale);

		m[i] = VEC_FMA(beta, m[i], g);
		u[i] = VEC_FMA(beta, m[i], g);
	}
}

/* PyTorch's order: decay, moments, w -= step_size * m / (sqrt(v) / sqrt(1 - b2^step) + eps). Returns w. */
static inline float
adamw_one(float w, float *m, float *v, float grad, const struct vec_adamw *c)
{
	float g = grad * c->grad_scale;
	float m_new = VEC_FMA(c->beta1, *m, c->one_minus_beta1 * g);
	float v_new = VEC_FMA(c->beta2, *v, c->one_minus_beta2 * g * g);

	*m = m_new;
	*v = v_new;
	return w * c->shrink - c->step_size * m_new / (sqrtf(v_new) * c->inv_sqrt_bias2 + c->eps);
}

static void
adamw(float *restrict w, float *restrict m, float *restrict v, const float *restrict grad, int64_t n, const struct vec_adamw *a)
{
	struct vec_adamw c = *a;

	VEC_LOOP (int64_t i = 0; i < n; i++)
		w[i] = adamw_one(w[i], m + i, v + i, grad[i], &c);
}

static void
adamw_bf16(float *restrict w, float *restrict m, float *restrict v, const float *restrict grad, uint16_t *restrict copy, int64_t n,
    const struct vec_adamw *a)
{
	struct vec_adamw c = *a;

	VEC_LOOP (int64_t i = 0; i < n; i++) {
		float w_new = adamw_one(w[i], m + i, v + i, grad[i], &c);

		w[i] = w_new;
		copy[i] = vec_to_bf16(w_new);
	}
}

typedef float eight_f __attribute__((vector_size(4 * VEC_LANES), aligned(4), may_alias));
typedef double eight_d __attribute__((vector_size(8 * VEC_LANES)));

/* A multiple of the grain has no more bits than x had, so y holds it exactly. */
static void
grain(float *y, double *sums, const float *x, int64_t n)
{
	const double magic = 1.5 * 0x1p52 * VEC_GRAIN;

	for (int64_t begin = 0; begin < n; begin += VEC_GROUP, sums++) {
		int64_t end = n - begin < VEC_GROUP ? n : begin + VEC_GROUP, i = begin;
		eight_d all = {0};
		double s = 0;

		for (; i + VEC_LANES <= end; i += VEC_LANES) {
			eight_d g = (__builtin_convertvector(*(const eight_f *)(x + i), eight_d) + magic) - magic;

			*(eight_f *)(y + i) = __builtin_convertvector(g, eight_f);
			all += g;
		}
		for (; i < end; i++) {
			double g = ((double)x[i] + magic) - magic;

			y[i] = (float)g;
			s += g;
		}
		for (int l = 0; l < VEC_LANES; l++)
			s += all[l];
		*sums = s;
	}
}

#define VEC_STRING_(a) #a
#define VEC_STRING(a) VEC_STRING_(a)

const struct vec VEC_PASTE(vec_, SALT_VEC_ISA) = {
	.name = VEC_STRING(SALT_VEC_ISA),
	.add = add,
	.scale = scale,
	.axpy = axpy,
	.gelu = gelu,
	.gelu_bwd = gelu_bwd,
	.gelu_erf = gelu_erf,
	.gelu_erf_bwd = gelu_erf_bwd,
	.swiglu = swiglu,
	.swiglu_bwd = swiglu_bwd,
	.geglu = geglu,
	.geglu_bwd = geglu_bwd,
	.relu = relu,
	.relu_bwd = relu_bwd,
	.relu2 = relu2,
	.relu2_bwd = relu2_bwd,
	.soft_cap = soft_cap,
	.soft_cap_bwd = soft_cap_bwd,
	.exp = exp_scaled,
	.affine = affine,
	.momentum = momentum,
	.adamw = adamw,
	.widen = widen,
	.narrow = narrow,
	.pairs = pairs,
	.adamw_bf16 = adamw_bf16,
	.sum = VEC_ROW(sum),
	.exp_sum = VEC_ROW(exp_sum),
	.dot = VEC_ROW(dot),
	.sum_squares = VEC_ROW(sum_squares),
	.max = VEC_ROW(max),
	.count_above = VEC_ROW(count_above),
	.count_from = VEC_ROW(count_from),
	.layernorm = VEC_ROW(layernorm),
	.layernorm_bwd = VEC_ROW(layernorm_bwd),
	.rmsnorm = VEC_ROW(rmsnorm),
	.rmsnorm_bwd = VEC_ROW(rmsnorm_bwd),
	.transpose = VEC_ROW(transpose),
	.rope = VEC_ROW(rope),
	.softmax = VEC_ROW(softmax),
	.softmax_bwd = VEC_ROW(softmax_bwd),
	.grain = grain,
};
