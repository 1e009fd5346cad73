/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compares backward kernels with finite differences of their forward kernels: sum(weights * output), summed
 * in fp64, along random directions of each input, with a step that is large enough for fp32.
 */
#include "fixture.h"

static struct kernels *k;

/* One kernel under test: forward fills y from the inputs, backward fills the gradients from d_y. */
struct probe {
	const char *what;
	float *y, *d_y;
	int64_t n_y;
	struct {
		const char *what;
		float *x, *d_x;
		int64_t n;
	} inputs[4];
	int n_inputs;
	void (*forward)(const struct probe *p);
	void (*backward)(const struct probe *p);
	int64_t b, t, c, heads, kv_heads;
	const struct kernels_attention_form *form;
	float *stat[2], *freq;
	int32_t *tokens, *starts;
};

static double
objective(const struct probe *p)
{
	double s = 0;

	p->forward(p);
	for (int64_t i = 0; i < p->n_y; i++)
		s += (double)p->y[i] * (double)p->d_y[i];
	return s;
}

static void
differences(struct probe *p, double step, double tol)
{
	p->d_y = noise(p->n_y, 1);
	p->forward(p);
	p->backward(p);
	for (int i = 0; i < p->n_inputs; i++) {
		int64_t n = p->inputs[i].n;
		float *x = p->inputs[i].x, *x0 = copy_of(x, n);

		for (int direction = 0; direction < 4; direction++) {
			float *v = noise(n, 1);
			double side[2], slope = 0, size = 0, got;

			for (int s = 0; s < 2; s++) {
				for (int64_t j = 0; j < n; j++)
					x[j] = x0[j] + (s == 0 ? -1 : 1) * (float)step * v[j];
				side[s] = objective(p);
			}
			memcpy(x, x0, (size_t)n * sizeof(float));
			for (int64_t j = 0; j < n; j++) {
				slope += (double)p->inputs[i].d_x[j] * (double)v[j];
				size += (double)p->inputs[i].d_x[j] * (double)p->inputs[i].d_x[j];
			}
			got = (side[1] - side[0]) / (2 * step);
			CHECK_ROW(p->what, fabs(got - slope) <= tol * sqrt(size));
			if (!(fabs(got - slope) <= tol * sqrt(size)))
				fprintf(stderr, "  %s: difference %g slope %g size %g\n", p->inputs[i].what, got, slope, sqrt(size));
		}
	}
	fixture_close(p->what);
}

/* Adds an input to p: n floats of noise and a gradient of zeros. */
static void
input(struct probe *p, const char *what, int64_t n, float std)
{
	p->inputs[p->n_inputs].what = what;
	p->inputs[p->n_inputs].x = noise(n, std);
	p->inputs[p->n_inputs].d_x = room(n);
	p->inputs[p->n_inputs++].n = n;
}

static void
output(struct probe *p, int64_t n)
{
	p->y = room(n);
	p->n_y = n;
}

static struct tensor
in_2d(const struct probe *p, int i, int64_t a, int64_t b)
{
	return t2(p->inputs[i].x, a, b);
}

static struct tensor
grad_2d(const struct probe *p, int i, int64_t a, int64_t b)
{
	return t2(p->inputs[i].d_x, a, b);
}

#define LINEAR_M 7
#define LINEAR_K 13
#define LINEAR_N 9

static void
linear_fwd(const struct probe *p)
{
	struct tensor x = in_2d(p, 0, LINEAR_M, LINEAR_K), w = in_2d(p, 1, LINEAR_K, LINEAR_N), b = t1(p->inputs[2].x, LINEAR_N);
	struct tensor y = t2(p->y, LINEAR_M, LINEAR_N);

	kernels_linear(k, &y, &x, &w, &b, KERNELS_IN_OUT, false);
}

static void
linear_bwd(const struct probe *p)
{
	struct tensor x = in_2d(p, 0, LINEAR_M, LINEAR_K), w = in_2d(p, 1, LINEAR_K, LINEAR_N), d_y = t2(p->d_y, LINEAR_M, LINEAR_N);
	struct tensor d_x = grad_2d(p, 0, LINEAR_M, LINEAR_K), d_w = grad_2d(p, 1, LINEAR_K, LINEAR_N), d_b = t1(p->inputs[2].d_x, LINEAR_N);

	kernels_linear_bwd_x(k, &d_x, &d_y, &w, KERNELS_IN_OUT, false);
	kernels_linear_bwd_w(k, &d_w, &d_b, &d_y, &x, KERNELS_IN_OUT, true);
}

static void
layernorm_fwd(const struct probe *p)
{
	struct tensor x = in_2d(p, 0, p->b, p->c), g = t1(p->inputs[1].x, p->c), b = t1(p->inputs[2].x, p->c), y = t2(p->y, p->b, p->c);

	kernels_layernorm(k, &y, p->stat[0], p->stat[1], &x, &g, &b, 1e-5f);
}

static void
layernorm_bwd(const struct probe *p)
{
	struct tensor x = in_2d(p, 0, p->b, p->c), g = t1(p->inputs[1].x, p->c), d_y = t2(p->d_y, p->b, p->c);
	struct tensor d_x = grad_2d(p, 0, p->b, p->c), d_g = t1(p->inputs[1].d_x, p->c), d_b = t1(p->inputs[2].d_x, p->c);

	kernels_layernorm_bwd(k, &d_x, &d_g, &d_b, &d_y, &x, &g, p->stat[0], p->stat[1], false);
}

static void
rmsnorm_fwd(const struct probe *p)
{
	struct tensor x = in_2d(p, 0, p->b, p->c), g = t1(p->inputs[1].x, p->c), y = t2(p->y, p->b, p->c);

	kernels_rmsnorm(k, &y, p->stat[1], &x, &g, 1e-5f);
}

static void
rmsnorm_bwd(const struct probe *p)
{
	struct tensor x = in_2d(p, 0, p->b, p->c), g = t1(p->inputs[1].x, p->c), d_y = t2(p->d_y, p->b, p->c);
	struct tensor d_x = grad_2d(p, 0, p->b, p->c), d_g = t1(p->inputs[1].d_x, p->c);

	kernels_rmsnorm_bwd(k, &d_x, &d_g, &d_y, &x, &g, p->stat[1], false);
}

static void
gelu_fwd(const struct probe *p)
{
	struct tensor x = t1(p->inputs[0].x, p->c), y = t1(p->y, p->c);

	kernels_gelu(k, &y, &x);
}

static void
gelu_bwd(const struct probe *p)
{
	struct tensor x = t1(p->inputs[0].x, p->c), d_y = t1(p->d_y, p->c), d_x = t1(p->inputs[0].d_x, p->c);

	kernels_gelu_bwd(k, &d_x, &d_y, &x);
}

static void
gelu_erf_fwd(const struct probe *p)
{
	struct tensor x = t1(p->inputs[0].x, p->c), y = t1(p->y, p->c);

	kernels_gelu_erf(k, &y, &x);
}

static void
gelu_erf_bwd(const struct probe *p)
{
	struct tensor x = t1(p->inputs[0].x, p->c), d_y = t1(p->d_y, p->c), d_x = t1(p->inputs[0].d_x, p->c);

	kernels_gelu_erf_bwd(k, &d_x, &d_y, &x);
}

static void
swiglu_fwd(const struct probe *p)
{
	struct tensor gate = t1(p->inputs[0].x, p->c), up = t1(p->inputs[1].x, p->c), y = t1(p->y, p->c);

	kernels_swiglu(k, &y, &gate, &up);
}

static void
swiglu_bwd(const struct probe *p)
{
	struct tensor gate = t1(p->inputs[0].x, p->c), up = t1(p->inputs[1].x, p->c), d_y = t1(p->d_y, p->c);
	struct tensor d_gate = t1(p->inputs[0].d_x, p->c), d_up = t1(p->inputs[1].d_x, p->c);

	kernels_swiglu_bwd(k, &d_gate, &d_up, &d_y, &gate, &up);
}

static void
geglu_fwd(const struct probe *p)
{
	struct tensor gate = t1(p->inputs[0].x, p->c), up = t1(p->inputs[1].x, p->c), y = t1(p->y, p->c);

	kernels_geglu(k, &y, &gate, &up);
}

static void
geglu_bwd(const struct probe *p)
{
	struct tensor gate = t1(p->inputs[0].x, p->c), up = t1(p->inputs[1].x, p->c), d_y = t1(p->d_y, p->c);
	struct tensor d_gate = t1(p->inputs[0].d_x, p->c), d_up = t1(p->inputs[1].d_x, p->c);

	kernels_geglu_bwd(k, &d_gate, &d_up, &d_y, &gate, &up);
}

static void
embed_fwd(const struct probe *p)
{
	struct tensor wte = in_2d(p, 0, 5, p->c), wpe = in_2d(p, 1, p->t, p->c), y = t2(p->y, p->b * p->t, p->c);

	kernels_embed(k, &y, p->tokens, &wte, &wpe, p->b, p->t, p->starts);
}

static void
embed_bwd(const struct probe *p)
{
	struct tensor d_wte = grad_2d(p, 0, 5, p->c), d_wpe = grad_2d(p, 1, p->t, p->c), d_y = t2(p->d_y, p->b * p->t, p->c);

	kernels_embed_bwd(k, &d_wte, &d_wpe, &d_y, p->tokens, p->b, p->t, p->starts);
}

static struct kernels_heads
heads(float *data, int64_t n, int64_t d)
{
	return (struct kernels_heads){data, DTYPE_F32, n * d, n, d};
}

static void
attention_fwd(const struct probe *p)
{
	struct kernels_heads q = heads(p->inputs[0].x, p->heads, p->c), key = heads(p->inputs[1].x, p->kv_heads, p->c);
	struct kernels_heads value = heads(p->inputs[2].x, p->kv_heads, p->c);
	struct tensor o = t2(p->y, p->b * p->t, p->heads * p->c);

	kernels_attention(k, &o, p->stat[0], &q, &key, &value, p->form, p->b, p->t);
}

static void
attention_bwd(const struct probe *p)
{
	struct kernels_heads q = heads(p->inputs[0].x, p->heads, p->c), key = heads(p->inputs[1].x, p->kv_heads, p->c);
	struct kernels_heads value = heads(p->inputs[2].x, p->kv_heads, p->c), d_q = heads(p->inputs[0].d_x, p->heads, p->c);
	struct kernels_heads d_key = heads(p->inputs[1].d_x, p->kv_heads, p->c), d_value = heads(p->inputs[2].d_x, p->kv_heads, p->c);
	struct tensor o = t2(p->y, p->b * p->t, p->heads * p->c), d_o = t2(p->d_y, p->b * p->t, p->heads * p->c);

	kernels_attention_bwd(k, &d_q, &d_key, &d_value, &d_o, &o, p->stat[0], &q, &key, &value, p->form, p->b, p->t);
}

static void
rope_fwd(const struct probe *p)
{
	struct kernels_heads x = heads(p->y, p->heads, p->c);

	memcpy(p->y, p->inputs[0].x, (size_t)p->n_y * sizeof(float));
	kernels_rope(k, &x, p->freq, 1.3f, p->b, p->t, p->starts, false);
}

static void
rope_bwd(const struct probe *p)
{
	struct kernels_heads x = heads(p->inputs[0].d_x, p->heads, p->c);

	memcpy(p->inputs[0].d_x, p->d_y, (size_t)p->n_y * sizeof(float));
	kernels_rope(k, &x, p->freq, 1.3f, p->b, p->t, p->starts, true);
}

int
main(void)
{
	int32_t tokens[6] = {4, 0, 4, 1, 0, 4}, short_starts[6] = {0, 0, 2, 0, 1, 1};
	int32_t starts[22] = {0, 0, 0, 3, 3, 3, 3, 3, 8, 9, 9, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 10};
	struct probe p;

	fixture_start();
	k = fixture_kernels(2);

	p = (struct probe){.what = "linear", .forward = linear_fwd, .backward = linear_bwd};
	input(&p, "x", LINEAR_M * LINEAR_K, 1);
	input(&p, "w", LINEAR_K * LINEAR_N, 1);
	input(&p, "b", LINEAR_N, 1);
	output(&p, LINEAR_M * LINEAR_N);
	differences(&p, 1e-2, 1e-3);

	p = (struct probe){.what = "layernorm", .forward = layernorm_fwd, .backward = layernorm_bwd, .b = 5, .c = 19};
	input(&p, "x", 5 * 19, 1);
	input(&p, "g", 19, 1);
	input(&p, "b", 19, 1);
	output(&p, 5 * 19);
	p.stat[0] = room(5);
	p.stat[1] = room(5);
	differences(&p, 3e-3, 2e-3);

	p = (struct probe){.what = "rmsnorm", .forward = rmsnorm_fwd, .backward = rmsnorm_bwd, .b = 5, .c = 19};
	input(&p, "x", 5 * 19, 1);
	input(&p, "g", 19, 1);
	output(&p, 5 * 19);
	p.stat[1] = room(5);
	differences(&p, 3e-3, 2e-3);

	p = (struct probe){.what = "gelu", .forward = gelu_fwd, .backward = gelu_bwd, .c = 201};
	input(&p, "x", 201, 2);
	output(&p, 201);
	differences(&p, 3e-3, 2e-3);

	p = (struct probe){.what = "gelu_erf", .forward = gelu_erf_fwd, .backward = gelu_erf_bwd, .c = 201};
	input(&p, "x", 201, 2);
	output(&p, 201);
	differences(&p, 3e-3, 2e-3);

	p = (struct probe){.what = "swiglu", .forward = swiglu_fwd, .backward = swiglu_bwd, .c = 201};
	input(&p, "gate", 201, 2);
	input(&p, "up", 201, 1);
	output(&p, 201);
	differences(&p, 3e-3, 2e-3);

	p = (struct probe){.what = "geglu", .forward = geglu_fwd, .backward = geglu_bwd, .c = 201};
	input(&p, "gate", 201, 2);
	input(&p, "up", 201, 1);
	output(&p, 201);
	differences(&p, 3e-3, 2e-3);

	p = (struct probe){.what = "embed", .forward = embed_fwd, .backward = embed_bwd, .b = 2, .t = 3, .c = 7, .tokens = tokens};
	input(&p, "wte", 5 * 7, 1);
	input(&p, "wpe", 3 * 7, 1);
	output(&p, 6 * 7);
	differences(&p, 1e-2, 1e-3);

	p = (struct probe){.what = "attention", .forward = attention_fwd, .backward = attention_bwd, .b = 2, .t = 11, .c = 6, .heads = 4,
	    .kv_heads = 2};
	input(&p, "q", 22 * 24, 1);
	input(&p, "key", 22 * 12, 1);
	input(&p, "value", 22 * 12, 1);
	output(&p, 22 * 24);
	p.stat[0] = room(2 * 4 * 11);
	differences(&p, 3e-3, 2e-3);

	p = (struct probe){.what = "attention: cap and window", .forward = attention_fwd, .backward = attention_bwd, .b = 2, .t = 11, .c = 6,
	    .heads = 4, .kv_heads = 2, .form = &(struct kernels_attention_form){.scale = 0.6f, .soft_cap = 2, .window = 4}};
	input(&p, "q", 22 * 24, 1);
	input(&p, "key", 22 * 12, 1);
	input(&p, "value", 22 * 12, 1);
	output(&p, 22 * 24);
	p.stat[0] = room(2 * 4 * 11);
	differences(&p, 3e-3, 2e-3);

	p = (struct probe){.what = "attention in documents", .forward = attention_fwd, .backward = attention_bwd, .b = 2, .t = 11, .c = 6,
	    .heads = 4, .kv_heads = 2, .form = &(struct kernels_attention_form){.starts = starts}};
	input(&p, "q", 22 * 24, 1);
	input(&p, "key", 22 * 12, 1);
	input(&p, "value", 22 * 12, 1);
	output(&p, 22 * 24);
	p.stat[0] = room(2 * 4 * 11);
	differences(&p, 3e-3, 2e-3);

	p = (struct probe){.what = "rope in documents", .forward = rope_fwd, .backward = rope_bwd, .b = 2, .t = 11, .c = 6, .heads = 2,
	    .starts = starts};
	input(&p, "x", 22 * 12, 1);
	output(&p, 22 * 12);
	p.freq = room(3);
	for (int j = 0; j < 3; j++)
		p.freq[j] = 1 / (float)(1 + 3 * j);
	differences(&p, 1e-2, 1e-3);

	p = (struct probe){.what = "embed in documents", .forward = embed_fwd, .backward = embed_bwd, .b = 2, .t = 3, .c = 7, .tokens = tokens,
	    .starts = short_starts};
	input(&p, "wte", 5 * 7, 1);
	input(&p, "wpe", 3 * 7, 1);
	output(&p, 6 * 7);
	differences(&p, 1e-2, 1e-3);

	p = (struct probe){.what = "rope", .forward = rope_fwd, .backward = rope_bwd, .b = 2, .t = 5, .c = 6, .heads = 2};
	input(&p, "x", 10 * 12, 1);
	output(&p, 10 * 12);
	p.freq = room(3);
	for (int j = 0; j < 3; j++)
		p.freq[j] = 1 / (float)(1 + 3 * j);
	differences(&p, 1e-2, 1e-3);

	kernels_destroy(&k);
	return check_done();
}
