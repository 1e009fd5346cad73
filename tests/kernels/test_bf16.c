/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every backend and dtype except fp32 on OpenBLAS, compared with the scalar references at odd sizes; one, two
 * and four threads must give the same bits. Operands can be represented in bf16, so a result differs from the
 * reference only by its last rounding (in bf16 at most 2^-8 of its size) and by the order of sums.
 */
#include <stdlib.h>

#include "fixture.h"
#include "reference.h"

#define N_THREADS 3
static const int thread_counts[N_THREADS] = {1, 2, 4};
static struct kernels *contexts[N_THREADS];
static enum dtype dtype;
static const char *backend;

/* An operand: f for the reference, data for the kernel (in fp32 the same as f). */
struct operand {
	float *f;
	void *data;
	int64_t n;
};

static struct operand
operand_of(float *f, int64_t n)
{
	struct operand o = {f, f, n};

	if (dtype == DTYPE_BF16) {
		o.data = room((n + 1) / 2);
		for (int64_t i = 0; i < n; i++) {
			((uint16_t *)o.data)[i] = tensor_f32_to_bf16(f[i]);
			f[i] = tensor_bf16_to_f32(((uint16_t *)o.data)[i]);
		}
	}
	return o;
}

static struct operand
drawn(int64_t n, float std)
{
	return operand_of(noise(n, std), n);
}

static struct operand
clone(const struct operand *o)
{
	return operand_of(copy_of(o->f, o->n), o->n);
}

static struct tensor
matrix(const struct operand *o, int64_t a, int64_t b)
{
	return tensor_2d(o->data, dtype, a, b);
}

static struct tensor
vector(const struct operand *o)
{
	return tensor_1d(o->data, dtype, o->n);
}

static struct kernels_heads
heads_of(const struct operand *o, int64_t at, int64_t stride, int64_t n_heads, int64_t d)
{
	return (struct kernels_heads){.data = (char *)o->data + at * (int64_t)dtype_size(dtype), .dtype = dtype, .stride = stride,
	    .n_heads = n_heads, .head_dim = d};
}

static struct kernels_heads
heads_ref(const struct operand *o, int64_t at, int64_t stride, int64_t n_heads, int64_t d)
{
	return (struct kernels_heads){.data = o->f + at, .dtype = DTYPE_F32, .stride = stride, .n_heads = n_heads, .head_dim = d};
}

/*
 * Checks got, which is in the compute dtype. sums: allowed error of sums, relative to the largest value; in
 * bf16 half a unit in the last place is allowed in addition.
 */
static void
check_result(const char *what, const struct operand *got, const float *want, double sums)
{
	char label[128];
	double size = 0;

	snprintf(label, sizeof(label), "%s %s: %s", backend, dtype_name(dtype), what);
	if (dtype == DTYPE_F32) {
		check_close(label, got->f, want, got->n, sums);
		return;
	}
	for (int64_t i = 0; i < got->n; i++)
		size = fmax(size, fabs((double)want[i]));
	for (int64_t i = 0; i < got->n; i++) {
		double x = (double)tensor_bf16_to_f32(((uint16_t *)got->data)[i]), w = (double)want[i];

		if (fabs(x - w) <= 0x1.02p-8 * fabs(w) + sums * size + 1e-38)
			continue;
		fprintf(stderr, "%s: [%lld of %lld] got %.9g want %.9g, largest %.3g\n", label, (long long)i, (long long)got->n, x, w, size);
		CHECK_ROW(label, !"close");
		return;
	}
	CHECK_ROW(label, got->n % 2 == 0 || ((uint16_t *)got->data)[got->n] == 0);
}

static size_t
operand_bytes(const struct operand *o)
{
	return (size_t)o->n * dtype_size(dtype);
}

/* Runs BODY with each number of threads on the same content of out; the results must have the same bytes. */
#define EACH_THREADS(what, out, body)									\
	do {												\
		void *first_ = malloc(operand_bytes(out)), *before_ = malloc(operand_bytes(out));	\
		memcpy(before_, (out)->data, operand_bytes(out));					\
		for (int c_ = 0; c_ < FIXTURE_TEAMS; c_++) {						\
			struct kernels *k = contexts[c_];						\
			memcpy((out)->data, before_, operand_bytes(out));				\
			body;										\
			if (c_ == 0)									\
				memcpy(first_, (out)->data, operand_bytes(out));			\
			CHECK_ROW(what ": threads", memcmp(first_, (out)->data, operand_bytes(out)) == 0); \
		}											\
		free(first_);										\
		free(before_);										\
	} while (0)

static void
linear(int64_t m, int64_t in, int64_t out, enum kernels_layout layout, bool add, bool bias)
{
	struct operand x = drawn(m * in, 1), w = drawn(out * in, 1), b = drawn(out, 1), d_y = drawn(m * out, 1);
	struct operand y = drawn(m * out, 1), dx = drawn(m * in, 1);
	float *dw0 = noise(out * in, 1), *dw = room(out * in), *db0 = noise(out, 1), *db = room(out), *want, *first = room(out * in);
	bool out_in = layout == KERNELS_OUT_IN;
	struct tensor tx = matrix(&x, m, in), ty = matrix(&y, m, out), td_y = matrix(&d_y, m, out), tdx = matrix(&dx, m, in);
	struct tensor tw = out_in ? matrix(&w, out, in) : matrix(&w, in, out), tdw = out_in ? t2(dw, out, in) : t2(dw, in, out);
	struct tensor tb = vector(&b), tdb = t1(db, out), absent = t1(NULL, out);

	want = copy_of(y.f, m * out);
	kernels_linear_ref(want, x.f, w.f, bias ? b.f : NULL, m, in, out, layout, add);
	EACH_THREADS("linear", &y, kernels_linear(k, &ty, &tx, &tw, bias ? &tb : &absent, layout, add));
	check_result("linear", &y, want, 2e-6);

	want = copy_of(dx.f, m * in);
	kernels_linear_bwd_x_ref(want, d_y.f, w.f, m, in, out, layout, add);
	EACH_THREADS("linear_bwd_x", &dx, kernels_linear_bwd_x(k, &tdx, &td_y, &tw, layout, add));
	check_result("linear_bwd_x", &dx, want, 2e-6);

	for (int c = 0; c < FIXTURE_TEAMS; c++) {
		memcpy(dw, dw0, (size_t)(out * in) * sizeof(float));
		memcpy(db, db0, (size_t)out * sizeof(float));
		kernels_linear_bwd_w(contexts[c], &tdw, &tdb, &td_y, &tx, layout, true);
		if (c == 0)
			memcpy(first, dw, (size_t)(out * in) * sizeof(float));
		check_same("linear_bwd_w: threads", dw, first, out * in);
	}
	kernels_linear_bwd_w_ref(dw0, db0, d_y.f, x.f, m, in, out, layout);
	check_close("linear_bwd_w", dw, dw0, out * in, 2e-6);
	check_close("linear_bwd_w: bias", db, db0, out, 2e-6);
	fixture_close("linear");
}

/* Logits are fp32: the sums of several strips are added to an array to which the bias was added once. */
static void
linear_to_fp32(int64_t m, int64_t in, int64_t out)
{
	struct operand x = drawn(m * in, 1), w = drawn(out * in, 1), b = drawn(out, 1);
	float *y = room(m * out), *want = room(m * out);
	struct tensor tx = matrix(&x, m, in), tw = matrix(&w, out, in), tb = vector(&b), ty = t2(y, m, out);

	kernels_linear_ref(want, x.f, w.f, b.f, m, in, out, KERNELS_OUT_IN, false);
	for (int c = 0; c < FIXTURE_TEAMS; c++) {
		kernels_linear(contexts[c], &ty, &tx, &tw, &tb, KERNELS_OUT_IN, false);
		check_close("linear to fp32", y, want, m * out, 2e-6);
	}
	fixture_close("linear to fp32");
}

static void
embed(int64_t vocab, int64_t b, int64_t t, int64_t c, bool positions)
{
	struct operand wte = drawn(vocab * c, 1), wpe = drawn((t + 2) * c, 1), y = drawn(b * t * c, 1), d_y = drawn(b * t * c, 1);
	float *want = room(b * t * c), *dte = noise(vocab * c, 1), *dpe = noise((t + 2) * c, 1);
	float *dte_ref = copy_of(dte, vocab * c), *dpe_ref = copy_of(dpe, (t + 2) * c);
	struct tensor twte = matrix(&wte, vocab, c), twpe = matrix(&wpe, t + 2, c), ty = matrix(&y, b * t, c), td_y = matrix(&d_y, b * t, c);
	struct tensor tdte = t2(dte, vocab, c), tdpe = t2(dpe, t + 2, c);
	int32_t *tokens = malloc((size_t)(b * t) * sizeof(*tokens));

	for (int64_t i = 0; i < b * t; i++)
		tokens[i] = i < 2 ? (int32_t)(i * (vocab - 1)) : below((int32_t)vocab);
	if (!positions)
		twpe.data = tdpe.data = NULL;
	EACH_THREADS("embed", &y, kernels_embed(k, &ty, tokens, &twte, &twpe, b, t, NULL));
	kernels_embed_ref(want, tokens, wte.f, positions ? wpe.f : NULL, b, t, c, NULL);
	check_result("embed", &y, want, 0);
	kernels_embed_bwd(contexts[1], &tdte, &tdpe, &td_y, tokens, b, t, NULL);
	kernels_embed_bwd_ref(dte_ref, positions ? dpe_ref : NULL, d_y.f, tokens, b, t, c, NULL);
	check_close("embed_bwd: wte", dte, dte_ref, vocab * c, 0);
	check_close("embed_bwd: wpe", dpe, dpe_ref, (t + 2) * c, 1e-6);
	free(tokens);
	fixture_close("embed");
}

static void
norms(int64_t m, int64_t c, bool rms, bool add)
{
	struct operand x = drawn(m * c, 2), g = drawn(c, 1), b = drawn(c, 1), y = drawn(m * c, 1), d_y = drawn(m * c, 1), dx = drawn(m * c, 1);
	float *mean = room(m), *rstd = room(m), *mean_ref = room(m), *rstd_ref = room(m), *want = room(m * c), *dx_ref = copy_of(dx.f, m * c);
	float *dg = room(c), *db = room(c), *dg_ref = room(c), *db_ref = room(c);
	struct tensor tx = matrix(&x, m, c), tg = vector(&g), tb = vector(&b), ty = matrix(&y, m, c), td_y = matrix(&d_y, m, c);
	struct tensor tdx = matrix(&dx, m, c), tdg = t1(dg, c), tdb = t1(db, c);

	if (rms) {
		kernels_rmsnorm_ref(want, rstd_ref, x.f, g.f, 1e-5f, m, c);
		EACH_THREADS("rmsnorm", &y, kernels_rmsnorm(k, &ty, rstd, &tx, &tg, 1e-5f));
		kernels_rmsnorm_bwd_ref(dx_ref, dg_ref, d_y.f, x.f, g.f, rstd_ref, add, m, c);
		EACH_THREADS("rmsnorm_bwd", &dx, memset(dg, 0, (size_t)c * sizeof(float));
		    kernels_rmsnorm_bwd(k, &tdx, &tdg, &td_y, &tx, &tg, rstd, add));
	} else {
		kernels_layernorm_ref(want, mean_ref, rstd_ref, x.f, g.f, b.f, 1e-5f, m, c);
		EACH_THREADS("layernorm", &y, kernels_layernorm(k, &ty, mean, rstd, &tx, &tg, &tb, 1e-5f));
		check_close("layernorm: mean", mean, mean_ref, m, 1e-5);
		kernels_layernorm_bwd_ref(dx_ref, dg_ref, db_ref, d_y.f, x.f, g.f, mean_ref, rstd_ref, add, m, c);
		EACH_THREADS("layernorm_bwd", &dx, memset(dg, 0, (size_t)c * sizeof(float)); memset(db, 0, (size_t)c * sizeof(float));
		    kernels_layernorm_bwd(k, &tdx, &tdg, &tdb, &td_y, &tx, &tg, mean, rstd, add));
		check_close("norm_bwd: b", db, db_ref, c, 1e-5);
	}
	check_close("norm: rstd", rstd, rstd_ref, m, 1e-5);
	check_result("norm", &y, want, 2e-6);
	check_result("norm_bwd", &dx, dx_ref, 1e-5);
	check_close("norm_bwd: g", dg, dg_ref, c, 1e-5);
	fixture_close("norms");
}

/* The kernels that read or write the residual stream, which is fp32 while operands are bf16. */
static void
stream(int64_t m, int64_t c, int64_t in)
{
	struct operand w = drawn(c * in, 1), b = drawn(c, 1), act = drawn(m * in, 1), g = drawn(c, 1), y = drawn(m * c, 1), d_y = drawn(m * c, 1);
	struct operand wte = drawn(7 * c, 1), half = drawn(m * c, 1);
	float *x = noise(m * c, 1), *x0 = copy_of(x, m * c), *want = copy_of(x, m * c), *dx = noise(m * c, 1), *dx_ref = copy_of(dx, m * c);
	float *dx0 = copy_of(dx, m * c), *mean = room(m), *rstd = room(m), *mean_ref = room(m), *rstd_ref = room(m), *y_ref = room(m * c);
	float *dg = room(c), *db = room(c), *dg_ref = room(c), *db_ref = room(c), *d_wte = room(7 * c), *d_wte_ref = room(7 * c);
	struct tensor tx = t2(x, m, c), tw = matrix(&w, in, c), tb = vector(&b), tact = matrix(&act, m, in), tg = vector(&g), ty = matrix(&y, m, c);
	struct tensor td_y = matrix(&d_y, m, c), tdx = t2(dx, m, c), tdg = t1(dg, c), tdb = t1(db, c), twte = matrix(&wte, 7, c), td_wte = t2(d_wte, 7, c);
	struct tensor thalf = matrix(&half, m, c), no_positions = t2(NULL, 1, c);
	int32_t *tokens = malloc((size_t)m * sizeof(*tokens));

	kernels_linear_ref(want, act.f, w.f, b.f, m, in, c, KERNELS_IN_OUT, true);
	for (int i = 0; i < FIXTURE_TEAMS; i++) {
		memcpy(x, x0, (size_t)(m * c) * sizeof(float));
		kernels_linear(contexts[i], &tx, &tact, &tw, &tb, KERNELS_IN_OUT, true);
		check_close("stream: linear adds", x, want, m * c, 2e-6);
	}
	memcpy(want, x, (size_t)(m * c) * sizeof(float));
	kernels_layernorm_ref(y_ref, mean_ref, rstd_ref, want, g.f, b.f, 1e-5f, m, c);
	EACH_THREADS("stream: layernorm", &y, kernels_layernorm(k, &ty, mean, rstd, &tx, &tg, &tb, 1e-5f));
	check_result("stream: layernorm", &y, y_ref, 2e-6);
	kernels_layernorm_bwd_ref(dx_ref, dg_ref, db_ref, d_y.f, want, g.f, mean_ref, rstd_ref, true, m, c);
	for (int i = 0; i < FIXTURE_TEAMS; i++) {
		memcpy(dx, dx0, (size_t)(m * c) * sizeof(float));
		memset(dg, 0, (size_t)c * sizeof(float));
		memset(db, 0, (size_t)c * sizeof(float));
		kernels_layernorm_bwd(contexts[i], &tdx, &tdg, &tdb, &td_y, &tx, &tg, mean, rstd, true);
		check_close("stream: layernorm_bwd", dx, dx_ref, m * c, 1e-5);
		check_close("stream: layernorm_bwd: g", dg, dg_ref, c, 1e-5);
	}
	kernels_rmsnorm_ref(y_ref, rstd_ref, want, g.f, 1e-5f, m, c);
	EACH_THREADS("stream: rmsnorm", &y, kernels_rmsnorm(k, &ty, rstd, &tx, &tg, 1e-5f));
	check_result("stream: rmsnorm", &y, y_ref, 2e-6);
	memcpy(dx, dx0, (size_t)(m * c) * sizeof(float));
	memcpy(dx_ref, dx0, (size_t)(m * c) * sizeof(float));
	memset(dg, 0, (size_t)c * sizeof(float));
	memset(dg_ref, 0, (size_t)c * sizeof(float));
	kernels_rmsnorm_bwd(contexts[1], &tdx, &tdg, &td_y, &tx, &tg, rstd, true);
	kernels_rmsnorm_bwd_ref(dx_ref, dg_ref, d_y.f, want, g.f, rstd_ref, true, m, c);
	check_close("stream: rmsnorm_bwd", dx, dx_ref, m * c, 1e-5);
	for (int64_t i = 0; i < m; i++)
		tokens[i] = below(7);
	kernels_embed(contexts[1], &tx, tokens, &twte, &no_positions, 1, m, NULL);
	kernels_embed_ref(want, tokens, wte.f, NULL, 1, m, c, NULL);
	check_close("stream: embed", x, want, m * c, 0);
	kernels_embed_bwd(contexts[1], &td_wte, NULL, &tdx, tokens, 1, m, NULL);
	kernels_embed_bwd_ref(d_wte_ref, NULL, dx, tokens, 1, m, c, NULL);
	check_close("stream: embed_bwd", d_wte, d_wte_ref, 7 * c, 0);
	kernels_convert(contexts[1], thalf.data, dtype, dx, DTYPE_F32, m * c);
	check_result("stream: rounded for products", &half, dx, 0);
	free(tokens);
	fixture_close("stream");
}

static void
norm_heads(int64_t m, int64_t n_heads, int64_t d)
{
	int64_t stride = n_heads * d + 5;
	struct operand x = drawn(m * stride, 1), g = drawn(d, 1), y = drawn(m * stride, 1), d_y = drawn(m * stride, 1), dx = clone(&d_y);
	float *rstd = room(m * n_heads), *dg = room(d), *dg_ref = room(d), *want = copy_of(y.f, y.n), *dx_ref = copy_of(d_y.f, d_y.n);
	struct kernels_heads hx = heads_of(&x, 0, stride, n_heads, d), hy = heads_of(&y, 0, stride, n_heads, d);
	struct kernels_heads hdx = heads_of(&dx, 0, stride, n_heads, d), rx = heads_ref(&x, 0, stride, n_heads, d), ry = rx, rdx = rx, rd_y = rx;
	struct tensor tg = vector(&g), tdg = t1(dg, d);

	ry.data = want;
	rdx.data = dx_ref;
	rd_y.data = d_y.f;
	EACH_THREADS("rmsnorm_heads", &y, kernels_rmsnorm_heads(k, &hy, rstd, &hx, &tg, 1e-5f, m));
	kernels_rmsnorm_heads_ref(&ry, rstd, &rx, g.f, 1e-5f, m);
	check_result("rmsnorm_heads", &y, want, 2e-6);
	EACH_THREADS("rmsnorm_heads_bwd", &dx, memset(dg, 0, (size_t)d * sizeof(float));	/* in place: d_x is d_y */
	    kernels_rmsnorm_heads_bwd(k, &hdx, &tdg, &hdx, &hx, &tg, rstd, m));
	kernels_rmsnorm_heads_bwd_ref(&rdx, dg_ref, &rd_y, &rx, g.f, rstd, m);
	check_result("rmsnorm_heads_bwd", &dx, dx_ref, 1e-5);
	check_close("rmsnorm_heads_bwd: g", dg, dg_ref, d, 1e-5);
	fixture_close("norm_heads");
}

static void
pointwise(int64_t n)
{
	struct operand x = drawn(n, 2), r = drawn(n, 2), d = drawn(n, 1), y = drawn(n, 1), z = drawn(n, 1);
	float *want = room(n), *want2 = room(n);
	struct tensor tx = vector(&x), tr = vector(&r), td = vector(&d), ty = vector(&y), tz = vector(&z);

	EACH_THREADS("gelu", &y, kernels_gelu(k, &ty, &tx));
	kernels_gelu_ref(want, x.f, n);
	check_result("gelu", &y, want, 1e-6);
	EACH_THREADS("gelu_bwd", &y, kernels_gelu_bwd(k, &ty, &td, &tx));
	kernels_gelu_bwd_ref(want, d.f, x.f, n);
	check_result("gelu_bwd", &y, want, 1e-6);
	EACH_THREADS("gelu_erf", &y, kernels_gelu_erf(k, &ty, &tx));
	kernels_gelu_erf_ref(want, x.f, n);
	check_result("gelu_erf", &y, want, 1e-6);
	EACH_THREADS("gelu_erf_bwd", &y, kernels_gelu_erf_bwd(k, &ty, &td, &tx));
	kernels_gelu_erf_bwd_ref(want, d.f, x.f, n);
	check_result("gelu_erf_bwd", &y, want, 1e-6);
	EACH_THREADS("swiglu", &y, kernels_swiglu(k, &ty, &tx, &tr));
	kernels_swiglu_ref(want, x.f, r.f, n);
	check_result("swiglu", &y, want, 1e-6);
	EACH_THREADS("swiglu_bwd", &y, kernels_swiglu_bwd(k, &ty, &tz, &td, &tx, &tr));
	kernels_swiglu_bwd_ref(want, want2, d.f, x.f, r.f, n);
	check_result("swiglu_bwd: gate", &y, want, 1e-6);
	check_result("swiglu_bwd: up", &z, want2, 1e-6);
	kernels_gelu_bwd_ref(want, d.f, x.f, n);
	kernels_gelu_bwd(contexts[1], &td, &td, &tx);		/* in place */
	check_result("gelu_bwd in place", &d, want, 1e-6);
	fixture_close("pointwise");
}

static void
attention(int64_t b, int64_t t, int64_t h, int64_t kv, int64_t d, const struct kernels_attention_form *form, int32_t most)
{
	int64_t stride = (h + 2 * kv) * d, key_at = h * d, value_at = (h + kv) * d, m = b * t;
	struct operand qkv = drawn(m * stride, 1), o = drawn(m * h * d, 1), d_o = drawn(m * h * d, 1), d_qkv = drawn(m * stride, 1);
	struct operand turned = clone(&qkv);
	float *lse = room(b * h * t), *lse_ref = room(b * h * t), *o_ref = room(m * h * d), *turned_ref = copy_of(qkv.f, qkv.n), freq[128];
	struct operand want = {copy_of(d_qkv.f, d_qkv.n), NULL, d_qkv.n};
	struct kernels_attention_form with = form != NULL ? *form : (struct kernels_attention_form){0};
	int32_t *starts = drawn_starts(b, t, most);
	struct kernels_heads q = heads_of(&qkv, 0, stride, h, d), key = heads_of(&qkv, key_at, stride, kv, d);
	struct kernels_heads value = heads_of(&qkv, value_at, stride, kv, d), spin = heads_of(&turned, 0, stride, h, d);
	struct kernels_heads dq = heads_of(&d_qkv, 0, stride, h, d), dk = heads_of(&d_qkv, key_at, stride, kv, d);
	struct kernels_heads dv = heads_of(&d_qkv, value_at, stride, kv, d);
	struct kernels_heads rq = heads_ref(&qkv, 0, stride, h, d), rk = heads_ref(&qkv, key_at, stride, kv, d);
	struct kernels_heads rv = heads_ref(&qkv, value_at, stride, kv, d), rspin = rq;
	struct kernels_heads rdq = heads_ref(&want, 0, stride, h, d), rdk = heads_ref(&want, key_at, stride, kv, d);
	struct kernels_heads rdv = heads_ref(&want, value_at, stride, kv, d);
	struct tensor to = matrix(&o, m, h * d), td_o = matrix(&d_o, m, h * d);

	with.starts = starts;
	for (int i = 0; i < d / 2; i++)
		freq[i] = powf(100.0f, -2.0f * (float)i / (float)d);
	if (d % 2 == 0) {
		rspin.data = turned_ref;
		EACH_THREADS("rope", &turned, kernels_rope(k, &spin, freq, 1, b, t, starts, false));
		kernels_rope_ref(&rspin, freq, b, t, starts, false);
		check_result("rope", &turned, turned_ref, 1e-6);
	}
	EACH_THREADS("attention", &o, kernels_attention(k, &to, lse, &q, &key, &value, &with, b, t));
	kernels_attention_ref(o_ref, lse_ref, &rq, &rk, &rv, &with, b, t);
	/* on bf16 units probabilities are rounded before they are multiplied by the values: 2^-9 of each */
	check_result("attention", &o, o_ref, dtype == DTYPE_BF16 && strcmp(backend, "openblas") != 0 ? 0x1p-8 : 1e-5);
	check_close("attention: lse", lse, lse_ref, b * h * t, 1e-5);
	EACH_THREADS("attention_bwd", &d_qkv, kernels_attention_bwd(k, &dq, &dk, &dv, &td_o, &to, lse, &q, &key, &value, &with, b, t));
	kernels_attention_bwd_ref(&rdq, &rdk, &rdv, d_o.f, &rq, &rk, &rv, &with, b, t);
	/* delta = d_o . o uses the stored, rounded o. In short documents this rounding is large */
	check_result("attention_bwd", &d_qkv, want.f, dtype == DTYPE_BF16 ? most > 0 ? 0x1p-7 : 0x1p-8 : 1e-5);
	free(starts);
	fixture_close("attention");
}

/* Losses are as exact as in fp32: logits are not rounded. A chunk's gradient is rounded before products. */
static void
output_loss(int64_t m, int64_t c, int64_t v)
{
	struct operand h = drawn(m * c, 1), w = drawn(v * c, 0.3f), dh = drawn(m * c, 1);
	float *dw = room(v * c), *dw_ref = room(v * c), *dh_ref = room(m * c), *loss = room(m), *loss_ref = room(m);
	struct tensor th = matrix(&h, m, c), tw = matrix(&w, v, c), tdh = matrix(&dh, m, c), tdw = t2(dw, v, c);
	int32_t *next = malloc((size_t)m * sizeof(*next)), *ids = malloc((size_t)(2 * m) * sizeof(*ids));
	int64_t *offsets = malloc((size_t)(m + 1) * sizeof(*offsets));
	float *values = room(2 * m), *weight = room(m);
	struct kernels_targets targets = {.n_rows = m, .next = next, .weight = weight, .offsets = offsets, .ids = ids, .values = values,
	    .residual = KERNELS_RESIDUAL_GHOST};
	struct kernels_loss_sums sums, want, first;

	for (int64_t i = 0; i < m; i++) {
		next[i] = below((int32_t)v);
		ids[2 * i] = below((int32_t)v - 1);
		ids[2 * i + 1] = ids[2 * i] + 1;
		values[2 * i] = 0.5f;
		values[2 * i + 1] = 0.25f;
		weight[i] = i % 3 == 0 ? 0 : 0.7f;
		offsets[i] = 2 * i;
	}
	offsets[m] = 2 * m;
	for (int rule = 0; rule <= KERNELS_TOKEN_WEIGHT_MARGIN; rule++) {
		targets.token_weight = (enum kernels_token_weight)rule;
		first = (struct kernels_loss_sums){0};
		memset(dw_ref, 0, (size_t)(v * c) * sizeof(float));
		targets.row_loss = loss_ref;
		kernels_output_loss_ref(h.f, w.f, &targets, 1.0f / (float)m, dh_ref, dw_ref, &want, c, v);
		targets.row_loss = loss;
		EACH_THREADS("output_loss", &dh, memset(dw, 0, (size_t)(v * c) * sizeof(float));
		    kernels_output_loss(k, &th, &tw, NULL, &targets, 1.0f / (float)m, &tdh, &tdw, &sums);
		    if (first.rows == 0) first = sums; CHECK(first.loss == sums.loss && first.soft == sums.soft));
		CHECK(fabs(sums.loss - want.loss) <= 2e-6 * fabs(want.loss) && fabs(sums.soft - want.soft) <= 2e-6 * fabs(want.soft));
		CHECK(fabs(sums.weight - want.weight) <= 2e-6 * want.weight && sums.correct == want.correct && sums.finite);
		check_close("output_loss: rows", loss, loss_ref, m, 1e-6);
		check_result("output_loss: d_h", &dh, dh_ref, dtype == DTYPE_BF16 ? 0x1p-8 : 1e-5);
		check_close("output_loss: d_w", dw, dw_ref, v * c, dtype == DTYPE_BF16 ? 0x1p-8 : 1e-5);
	}
	free(next);
	free(ids);
	free(offsets);
	fixture_close("output_loss");
}

/* Scores and labels are the same for all numbers of threads; top-k values equal those of the reference. */
static void
labels(int64_t b, int64_t t, int64_t c, int64_t v)
{
	enum { K = 5 };
	int64_t m = b * t;
	struct operand h = drawn(m * c, 1), w = drawn(v * c, 0.3f);
	struct tensor th = matrix(&h, m, c), tw = matrix(&w, v, c);
	struct kernels_label_spec spec = {.score = true, .kind = KERNELS_LABEL_TOPK, .n = K, .tau = 1.5f};
	float *loss[2] = {room(m), room(m)}, *values[2] = {room(m * K), room(m * K)};
	int32_t *next = malloc((size_t)m * sizeof(*next)), *rank = malloc((size_t)m * sizeof(*rank)), *ids = malloc((size_t)(m * K) * sizeof(*ids));
	struct kernels_labels out = {.loss_nats = loss[0], .rank = rank, .ids = ids, .values = values[0]};
	struct kernels_labels ref = {.loss_nats = loss[1], .rank = rank, .ids = ids, .values = values[1]};
	uint64_t seqs[8] = {3, 1, 4, 1, 5, 9, 2, 6};
	float *first = room(m);

	for (int64_t i = 0; i < m; i++)
		next[i] = below((int32_t)v);
	for (int i = 0; i < FIXTURE_TEAMS; i++) {
		kernels_output_label(contexts[i], &th, &tw, NULL, &spec, next, seqs, b, t, &out);
		if (i == 0)
			memcpy(first, loss[0], (size_t)m * sizeof(float));
		check_same("output_label: threads", loss[0], first, m);
	}
	kernels_output_label_ref(h.f, w.f, &spec, next, seqs, b, t, c, v, &ref);
	check_close("output_label: loss", loss[0], loss[1], m, 2e-6);
	check_close("output_label: values", values[0], values[1], m * K, 2e-6);
	free(next);
	free(rank);
	free(ids);
	fixture_close("labels");
}

/* Every bf16 number to fp32 and back; fp32 numbers, ties, NaN, infinities against scalar conversions. */
static void
conversions(struct kernels *k)
{
	enum { ALL = 1 << 16, N = 100003 };
	uint16_t *all = malloc(ALL * sizeof(*all)), *back = malloc((ALL + N) * sizeof(*back));
	float *wide = room(N > ALL ? N : ALL);
	int wrong = 0;

	for (int i = 0; i < ALL; i++)
		all[i] = (uint16_t)i;
	kernels_convert(k, wide, DTYPE_F32, all, DTYPE_BF16, ALL);
	kernels_convert(k, back, DTYPE_BF16, wide, DTYPE_F32, ALL);
	for (int i = 0; i < ALL; i++) {
		float f = tensor_bf16_to_f32((uint16_t)i);

		wrong += memcmp(&wide[i], &f, sizeof(f)) != 0;
		wrong += isnan(f) ? !isnan(tensor_bf16_to_f32(back[i])) : back[i] != i;
	}
	CHECK(wrong == 0);
	for (int i = 0; i < N; i++) {
		uint32_t u = (uint32_t)i * 2654435761u;

		if (i % 4 == 0)
			u = (u & 0xffff0000u) | 0x8000u;	/* a tie */
		memcpy(&wide[i], &u, sizeof(u));
	}
	kernels_convert(k, back, DTYPE_BF16, wide, DTYPE_F32, N);
	for (int i = 0; i < N; i++)
		wrong += back[i] != tensor_f32_to_bf16(wide[i]);
	CHECK(wrong == 0);
	free(all);
	free(back);
	fixture_close("conversions");
}

/* The bf16 copy equals the rounded masters, and the masters equal those of a step without a copy. */
static void
adamw_copy(struct kernels *k, int64_t n)
{
	const struct kernels_adamw a = {.lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .decay = 0.1f, .grad_scale = 0.5f, .step = 3};
	float *w = noise(n, 1), *g = noise(n, 1), *m = noise(n, 0.1f), *v = room(n), *w2 = copy_of(w, n), *m2 = copy_of(m, n), *v2;
	uint16_t *copy = (uint16_t *)room((n + 1) / 2);
	int wrong = 0;

	for (int64_t i = 0; i < n; i++)
		v[i] = g[i] * g[i];
	v2 = copy_of(v, n);
	kernels_adamw(k, w, m, v, g, copy, DTYPE_BF16, n, &a);
	kernels_adamw(k, w2, m2, v2, g, NULL, DTYPE_F32, n, &a);
	check_same("adamw: w", w, w2, n);
	check_same("adamw: m", m, m2, n);
	check_same("adamw: v", v, v2, n);
	for (int64_t i = 0; i < n; i++)
		wrong += copy[i] != tensor_f32_to_bf16(w[i]);
	CHECK(wrong == 0);
	fixture_close("adamw_copy");
}

/*
 * Weights declared by kernels_params give the same results as undeclared ones, also after their values
 * changed with a new generation or with AdamW.
 */
static void
params(struct kernels *k, int64_t out)
{
	enum { M = 200, IN = 67 };
	struct operand x = drawn(M * IN, 1), w = drawn(2 * out * IN, 1), y = drawn(M * out, 1), dx = drawn(M * IN, 1), other;
	struct tensor tx = matrix(&x, M, IN), ty = matrix(&y, M, out), tdx = matrix(&dx, M, IN), tw, absent = t1(NULL, out);
	float *want = room(M * out), *dx_ref = room(M * IN), one[4] = {0};
	const struct kernels_adamw a = {.lr = 1, .beta1 = 0.9f, .beta2 = 0.9f, .eps = 1, .step = 1};

	for (int round = 0; round < 5; round++) {
		struct operand half = w;
		enum kernels_layout layout = round % 2 == 0 ? KERNELS_OUT_IN : KERNELS_IN_OUT;

		if (round > 0) {		/* other values in the same array */
			other = drawn(2 * out * IN, 1);
			memcpy(w.data, other.data, operand_bytes(&w));
			memcpy(w.f, other.f, (size_t)w.n * sizeof(float));
		}
		if (round == 3)
			kernels_adamw(k, one, one + 1, one + 2, one + 3, NULL, DTYPE_F32, 1, &a);
		else
			kernels_params(k, w.data, w.n, (uint64_t)round + 1);
		half.f += out * IN;		/* a weight in the middle of the range */
		half.data = (char *)w.data + (size_t)(out * IN) * dtype_size(dtype);
		tw = layout == KERNELS_OUT_IN ? matrix(&half, out, IN) : matrix(&half, IN, out);
		for (int again = 0; again < 2; again++) {
			kernels_linear(k, &ty, &tx, &tw, &absent, layout, false);
			kernels_linear_ref(want, x.f, half.f, NULL, M, IN, out, layout, false);
			check_result("linear of parameters", &y, want, 2e-6);
			kernels_linear_bwd_x(k, &tdx, &ty, &tw, layout, false);
			if (dtype == DTYPE_BF16)
				for (int64_t i = 0; i < M * out; i++)
					want[i] = tensor_bf16_to_f32(((uint16_t *)y.data)[i]);
			kernels_linear_bwd_x_ref(dx_ref, dtype == DTYPE_BF16 ? want : y.f, half.f, M, IN, out, layout, false);
			check_result("linear_bwd_x of parameters", &dx, dx_ref, 2e-6);
		}
	}
	kernels_params(k, NULL, 0, 99);
	fixture_close("params");
}

/* The CUDA kernels, at sizes below and above a block's threads, columns, tiles; every padded head size. */
static void
mirrored(void)
{
	static const int64_t sizes[][3] = {{1, 1, 1}, {3, 5, 7}, {17, 33, 65}};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (int form = 0; form < 8; form++)
			linear(sizes[i][0], sizes[i][1], sizes[i][2], form & 1 ? KERNELS_OUT_IN : KERNELS_IN_OUT, form & 2, form & 4);
	embed(31, 2, 17, 131, true);
	embed(31, 1, 5, 1028, false);
	for (int form = 0; form < 4; form++) {
		norms(5, 7, form & 1, form & 2);
		norms(67, 96, form & 1, form & 2);
		norms(3, 1285, form & 1, form & 2);
	}
	stream(5, 7, 3);
	stream(67, 97, 35);
	norm_heads(67, 3, 10);
	norm_heads(5, 2, 8);
	pointwise(3);
	pointwise(1031);
	attention(2, 5, 3, 1, 4, NULL, 0);
	attention(2, 67, 4, 2, 12, NULL, 9);
	attention(1, 131, 2, 1, 7, &(struct kernels_attention_form){.soft_cap = 3, .window = 30}, 90);
	attention(1, 130, 2, 2, 16, &(struct kernels_attention_form){.scale = 0.4f, .soft_cap = 3, .window = 66}, 0);
	attention(1, 129, 2, 1, 64, NULL, 0);
	attention(1, 66, 1, 1, 88, NULL, 40);
	attention(1, 80, 2, 1, 128, &(struct kernels_attention_form){.window = 33}, 0);
	attention(1, 70, 2, 1, 200, &(struct kernels_attention_form){.soft_cap = 5}, 50);
	attention(1, 17, 1, 1, 256, NULL, 0);
	output_loss(41, 33, 131);
	output_loss(7, 16, 1031);
	labels(2, 5, 33, 517);
	conversions(contexts[0]);
	adamw_copy(contexts[0], 1027);
}

static void
all_kernels(void)
{
	uint32_t drawn;

	static const int64_t sizes[][3] = {{1, 1, 1}, {3, 5, 7}, {17, 33, 65}, {130, 67, 259}, {70, 1029, 31}};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (int form = 0; form < 8; form++)
			linear(sizes[i][0], sizes[i][1], sizes[i][2], form & 1 ? KERNELS_OUT_IN : KERNELS_IN_OUT, form & 2, form & 4);
	linear(270, 259, 601, KERNELS_IN_OUT, true, true);
	linear(601, 259, 270, KERNELS_OUT_IN, false, true);
	linear(70, 4133, 67, KERNELS_OUT_IN, true, true);	/* wide results of d_w and d_x */
	linear(70, 67, 4133, KERNELS_IN_OUT, true, true);	/* d_x in two strips */
	linear(4133, 67, 70, KERNELS_OUT_IN, false, true);	/* d_w in two strips */
	linear_to_fp32(17, 33, 65);
	linear_to_fp32(70, 4133, 67);				/* forward in two strips */
	embed(101, 3, 67, 131, true);
	embed(31, 2, 5, 2049, true);
	embed(101, 3, 67, 131, false);
	for (int form = 0; form < 4; form++) {
		norms(5, 7, form & 1, form & 2);
		norms(131, 97, form & 1, form & 2);
	}
	stream(5, 7, 3);
	stream(131, 97, 259);
	norm_heads(67, 3, 10);
	pointwise(3);
	pointwise(20011);
	attention(2, 5, 3, 1, 4, NULL, 0);
	attention(1, 65, 2, 2, 7, NULL, 0);
	attention(2, 133, 4, 2, 12, NULL, 0);
	attention(2, 133, 4, 2, 12, NULL, 50);
	attention(1, 320, 2, 1, 8, NULL, 200);
	attention(3, 40, 2, 2, 6, NULL, 9);
	attention(1, 320, 2, 1, 8, &(struct kernels_attention_form){.soft_cap = 3, .window = 30}, 150);
	drawn = fixture_drawn;
	attention(2, 133, 4, 2, 12, &(struct kernels_attention_form){.scale = 0.4f, .soft_cap = 3, .window = 66}, 0);
	/* heads that onednn copies without gaps */
	attention(2, 128, 2, 1, 64, NULL, 0);
	attention(1, 192, 2, 2, 64, NULL, 90);
	attention(1, 192, 2, 1, 64, &(struct kernels_attention_form){.soft_cap = 3, .window = 70}, 0);
	/* so that later tests draw fixed numbers: others may cancel in a 1 x 1 x 1 product */
	fixture_drawn = drawn;
	output_loss(70, 33, 1031);
	output_loss(7, 16, 20011);
	output_loss(131, 3, 131101);	/* gradients of two chunks in one product */
	labels(3, 29, 33, 1031);
}

int
main(void)
{
	static const struct {
		const char *name;
		enum kernels_backend backend;
		enum kernels_dtype dtype;
		bool everywhere;
	} rows[] = {
#ifdef KERNELS_MIRROR
		{"cuda", KERNELS_BACKEND_AUTO, KERNELS_DTYPE_BF16, true},
#else
		{"openblas", KERNELS_BACKEND_OPENBLAS, KERNELS_DTYPE_BF16, true},
		{"onednn", KERNELS_BACKEND_ONEDNN, KERNELS_DTYPE_FP32, false},
		{"onednn", KERNELS_BACKEND_ONEDNN, KERNELS_DTYPE_BF16, false},
#endif
	};

	fixture_start();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct kernels_options options = {.backend = rows[i].backend, .dtype = rows[i].dtype, .threads = 1};
		struct err_note note = {0};
		struct kernels *here = NULL;
		bool unsupported = !FIXTURE_MIRROR && kernels_new(&here, &options, &note) == ERR_UNSUPPORTED;

		kernels_destroy(&here);
		if (unsupported && !rows[i].everywhere) {
			printf("skipped: %s %s: needs %s, found %s\n", rows[i].name, rows[i].dtype == KERNELS_DTYPE_BF16 ? "bf16" : "fp32",
			    note.expected, note.found);
			continue;
		}
		backend = rows[i].name;
		for (int c = 0; c < N_THREADS; c++) {
			struct kernels_options o = options;

			o.threads = thread_counts[c];
			contexts[c] = fixture_context(&o);
		}
		dtype = kernels_dtype(contexts[0]);
		CHECK(dtype == (rows[i].dtype == KERNELS_DTYPE_BF16 ? DTYPE_BF16 : DTYPE_F32));
		if (FIXTURE_MIRROR) {
			mirrored();
		} else {
			all_kernels();
			params(contexts[1], 601);
			params(contexts[1], 4133);	/* wider than one part */
			conversions(contexts[1]);
			adamw_copy(contexts[1], 3 * 16384 - 77);
		}
		for (int c = 0; c < N_THREADS; c++)		/* all shapes above have fast code */
			CHECK(contexts[c]->n_slow == 0);
		for (int c = 0; c < N_THREADS; c++)
			kernels_destroy(&contexts[c]);
	}
	return check_done();
}
