/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compares every kernel except the output layer with its scalar reference at odd sizes; one, two and three
 * threads must give the same bits.
 */
#include "fixture.h"
#include "reference.h"

#define MAX_THREADS 3

static struct kernels *contexts[MAX_THREADS];

/* Runs BODY with k for each number of threads; out must be the same each time. */
#define EACH_THREADS(what, out, n, init, body)							\
	do {											\
		float *first_ = NULL;								\
		for (int threads_ = 1; threads_ <= FIXTURE_TEAMS; threads_++) {			\
			struct kernels *k = contexts[threads_ - 1];				\
			memcpy((out), (init), (size_t)(n) * sizeof(float));			\
			body;									\
			if (first_ == NULL)							\
				first_ = copy_of((out), (n));					\
			check_same(what ": threads", (out), first_, (n));			\
		}										\
	} while (0)

static void
linear(int64_t m, int64_t in, int64_t out, enum kernels_layout layout, bool add, bool bias)
{
	float *x = noise(m * in, 1), *w = noise(out * in, 1), *b = noise(out, 1), *d_y = noise(m * out, 1);
	float *y0 = noise(m * out, 1), *y = room(m * out), *dx0 = noise(m * in, 1), *dx = room(m * in);
	float *dw0 = noise(out * in, 1), *dw = room(out * in), *db0 = noise(out, 1), *db = room(out), *want;
	bool out_in = layout == KERNELS_OUT_IN;
	struct tensor tx = t2(x, m, in), ty = t2(y, m, out), td_y = t2(d_y, m, out), tdx = t2(dx, m, in);
	struct tensor tw = out_in ? t2(w, out, in) : t2(w, in, out), tdw = out_in ? t2(dw, out, in) : t2(dw, in, out);
	struct tensor tb = t1(bias ? b : NULL, out), tdb = t1(bias ? db : NULL, out);

	if (bias && in > 1)			/* inside the weight, at no multiple of 16 bytes: the parameters of a model lie side by side */
		tb.data = b = w + 1;
	EACH_THREADS("linear", y, m * out, y0, kernels_linear(k, &ty, &tx, &tw, &tb, layout, add));
	want = copy_of(y0, m * out);
	kernels_linear_ref(want, x, w, bias ? b : NULL, m, in, out, layout, add);
	check_close("linear", y, want, m * out, 2e-6);

	EACH_THREADS("linear_bwd_x", dx, m * in, dx0, kernels_linear_bwd_x(k, &tdx, &td_y, &tw, layout, add));
	want = copy_of(dx0, m * in);
	kernels_linear_bwd_x_ref(want, d_y, w, m, in, out, layout, add);
	check_close("linear_bwd_x", dx, want, m * in, 2e-6);

	EACH_THREADS("linear_bwd_w", dw, out * in, dw0,
	    memcpy(db, db0, (size_t)out * sizeof(float)); kernels_linear_bwd_w(k, &tdw, &tdb, &td_y, &tx, layout, true));
	want = copy_of(dw0, out * in);
	kernels_linear_bwd_w_ref(want, bias ? db0 : NULL, d_y, x, m, in, out, layout);
	check_close("linear_bwd_w", dw, want, out * in, 2e-6);
	if (bias)
		check_close("linear_bwd_w: bias", db, db0, out, 2e-6);
	fixture_close("linear");
}

static void
linears(void)
{
	static const int64_t sizes[][3] = {{1, 1, 1}, {3, 5, 7}, {17, 33, 65}, {130, 67, 259}, {513, 129, 31}};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (int form = 0; form < 8; form++)
			linear(sizes[i][0], sizes[i][1], sizes[i][2], form & 1 ? KERNELS_OUT_IN : KERNELS_IN_OUT, form & 2, form & 4);
	if (FIXTURE_MIRROR)			/* products are made by the library */
		return;
	/* several parts, of unequal sides */
	linear(270, 259, 601, KERNELS_IN_OUT, true, true);
	linear(601, 259, 270, KERNELS_OUT_IN, false, true);
}

static void
embed(int64_t vocab, int64_t b, int64_t t, int64_t c, bool positions, int32_t most)
{
	float *wte = noise(vocab * c, 1), *wpe = noise((t + 2) * c, 1), *y = room(b * t * c), *want = room(b * t * c), *zero = room(b * t * c);
	float *d_y = noise(b * t * c, 1), *dte0 = noise(vocab * c, 1), *dte = room(vocab * c), *dpe0 = noise((t + 2) * c, 1);
	float *dpe = room((t + 2) * c);
	struct tensor twte = t2(wte, vocab, c), twpe = t2(positions ? wpe : NULL, t + 2, c), ty = t2(y, b * t, c);
	struct tensor tdte = t2(dte, vocab, c), tdpe = t2(positions ? dpe : NULL, t + 2, c), td_y = t2(d_y, b * t, c);
	int32_t *tokens = malloc((size_t)(b * t) * sizeof(*tokens)), *starts = drawn_starts(b, t, most);

	for (int64_t i = 0; i < b * t; i++)
		tokens[i] = i < 2 ? (int32_t)(i * (vocab - 1)) : below((int32_t)vocab);
	EACH_THREADS("embed", y, b * t * c, zero, kernels_embed(k, &ty, tokens, &twte, &twpe, b, t, starts));
	kernels_embed_ref(want, tokens, wte, positions ? wpe : NULL, b, t, c, starts);
	check_close("embed", y, want, b * t * c, 0);
	EACH_THREADS("embed_bwd", dte, vocab * c, dte0,
	    memcpy(dpe, dpe0, (size_t)((t + 2) * c) * sizeof(float)); kernels_embed_bwd(k, &tdte, &tdpe, &td_y, tokens, b, t, starts));
	kernels_embed_bwd_ref(dte0, positions ? dpe0 : NULL, d_y, tokens, b, t, c, starts);
	/* exact: the sums have the same order */
	check_close("embed_bwd: wte", dte, dte0, vocab * c, 0);
	check_close("embed_bwd: wpe", dpe, dpe0, (t + 2) * c, 0);
	free(tokens);
	free(starts);
	fixture_close("embed");
}

static void
norms(int64_t m, int64_t c, bool add, bool in_place)
{
	float *x = noise(m * c, 3), *g = noise(c, 1), *b = noise(c, 1), *d_y = noise(m * c, 1), *y = room(m * c), *mean = room(m), *rstd = room(m);
	float *want = room(m * c), *want_mean = room(m), *want_rstd = room(m), *dx0 = in_place ? d_y : noise(m * c, 1), *dx = room(m * c);
	float *dg0 = noise(c, 1), *dg = room(c), *db0 = noise(c, 1), *db = room(c), *wg, *wb;
	struct tensor tx = t2(x, m, c), ty = t2(y, m, c), tg = t1(g, c), tb = t1(b, c), tdx = t2(dx, m, c), tdg = t1(dg, c), tdb = t1(db, c);
	struct tensor td_y = t2(in_place ? dx : d_y, m, c);

	for (int64_t i = 0; i < m * c; i++)
		x[i] += 5;
	EACH_THREADS("layernorm", y, m * c, x, kernels_layernorm(k, &ty, mean, rstd, in_place ? &ty : &tx, &tg, &tb, 1e-5f));
	kernels_layernorm_ref(want, want_mean, want_rstd, x, g, b, 1e-5f, m, c);
	check_close("layernorm", y, want, m * c, 3e-6);
	check_close("layernorm: mean", mean, want_mean, m, 1e-6);
	check_close("layernorm: rstd", rstd, want_rstd, m, 3e-6);
	EACH_THREADS("layernorm_bwd", dx, m * c, dx0,
	    memcpy(dg, dg0, (size_t)c * sizeof(float)); memcpy(db, db0, (size_t)c * sizeof(float));
	    kernels_layernorm_bwd(k, &tdx, &tdg, &tdb, &td_y, &tx, &tg, mean, rstd, add));
	want = copy_of(dx0, m * c);
	wg = copy_of(dg0, c);
	wb = copy_of(db0, c);
	kernels_layernorm_bwd_ref(want, wg, wb, in_place ? dx0 : d_y, x, g, want_mean, want_rstd, add, m, c);
	check_close("layernorm_bwd: x", dx, want, m * c, 1e-5);
	check_close("layernorm_bwd: g", dg, wg, c, 1e-5);
	check_close("layernorm_bwd: b", db, wb, c, 3e-6);

	EACH_THREADS("rmsnorm", y, m * c, x, kernels_rmsnorm(k, &ty, rstd, in_place ? &ty : &tx, &tg, 1e-6f));
	kernels_rmsnorm_ref(want, want_rstd, x, g, 1e-6f, m, c);
	check_close("rmsnorm", y, want, m * c, 3e-6);
	EACH_THREADS("rmsnorm_bwd", dx, m * c, dx0,
	    memcpy(dg, dg0, (size_t)c * sizeof(float)); kernels_rmsnorm_bwd(k, &tdx, &tdg, &td_y, &tx, &tg, rstd, add));
	want = copy_of(dx0, m * c);
	kernels_rmsnorm_bwd_ref(want, dg0, in_place ? dx0 : d_y, x, g, want_rstd, add, m, c);
	check_close("rmsnorm_bwd: x", dx, want, m * c, 1e-5);
	check_close("rmsnorm_bwd: g", dg, dg0, c, 1e-5);
	fixture_close("norms");
}

static void
pointwise(int64_t n, float std)
{
	float *x = noise(n, std), *u = noise(n, 1), *d = noise(n, 1), *y = room(n), *y2 = room(n), *want = room(n), *want2 = room(n), *zero = room(n);
	struct tensor tx = t1(x, n), tu = t1(u, n), td = t1(d, n), ty = t1(y, n), ty2 = t1(y2, n);

	x[0] = 60;
	x[n / 2] = -60;
	kernels_add_ref(want, x, u, n);
	EACH_THREADS("accumulate", y, n, u, kernels_accumulate(k, y, x, n));
	check_close("accumulate", y, want, n, 0);
	kernels_gelu_ref(want, x, n);
	EACH_THREADS("gelu", y, n, x, kernels_gelu(k, &ty, &ty));
	check_close("gelu", y, want, n, 1e-6);
	for (int64_t i = 0; i < n; i++)		/* also near 0 the relative error is small: no cancellation */
		CHECK_ROW("gelu: relative", fabs((double)y[i] - (double)want[i]) <= 2e-6 * fabs((double)want[i]) + 1e-7);
	kernels_gelu_bwd_ref(want, d, x, n);
	EACH_THREADS("gelu_bwd", y, n, d, kernels_gelu_bwd(k, &ty, &ty, &tx));
	check_close("gelu_bwd", y, want, n, 3e-6);
	kernels_gelu_erf_ref(want, x, n);
	EACH_THREADS("gelu_erf", y, n, x, kernels_gelu_erf(k, &ty, &ty));
	check_close("gelu_erf", y, want, n, 1e-6);
	for (int64_t i = 0; i < n; i++)
		CHECK_ROW("gelu_erf: within 4e-7 of x", fabs((double)y[i] - (double)want[i]) <= 4e-7 * fabs((double)x[i]));
	kernels_gelu_erf_bwd_ref(want, d, x, n);
	EACH_THREADS("gelu_erf_bwd", y, n, d, kernels_gelu_erf_bwd(k, &ty, &ty, &tx));
	check_close("gelu_erf_bwd", y, want, n, 3e-6);
	kernels_swiglu_ref(want, x, u, n);
	EACH_THREADS("swiglu", y, n, zero, kernels_swiglu(k, &ty, &tx, &tu));
	check_close("swiglu", y, want, n, 1e-6);
	kernels_swiglu_bwd_ref(want, want2, d, x, u, n);
	EACH_THREADS("swiglu_bwd", y, n, x, memcpy(y2, u, (size_t)n * sizeof(float)); kernels_swiglu_bwd(k, &ty, &ty2, &td, &ty, &ty2));
	check_close("swiglu_bwd: gate", y, want, n, 3e-6);
	check_close("swiglu_bwd: up", y2, want2, n, 1e-6);
	kernels_geglu_ref(want, x, u, n);
	EACH_THREADS("geglu", y, n, zero, kernels_geglu(k, &ty, &tx, &tu));
	check_close("geglu", y, want, n, 1e-6);
	kernels_geglu_bwd_ref(want, want2, d, x, u, n);
	EACH_THREADS("geglu_bwd", y, n, x, memcpy(y2, u, (size_t)n * sizeof(float)); kernels_geglu_bwd(k, &ty, &ty2, &td, &ty, &ty2));
	check_close("geglu_bwd: gate", y, want, n, 3e-6);
	check_close("geglu_bwd: up", y2, want2, n, 1e-6);
	for (int squared = 0; squared < 2; squared++) {
		kernels_relu_ref(want, x, n, squared);
		EACH_THREADS("relu", y, n, x, kernels_relu(k, &ty, &ty, squared));
		check_close("relu", y, want, n, 1e-7);
		kernels_relu_bwd_ref(want, d, x, n, squared);
		EACH_THREADS("relu_bwd", y, n, d, kernels_relu_bwd(k, &ty, &ty, &tx, squared));
		check_close("relu_bwd", y, want, n, 2e-7);
	}
	for (int64_t i = 0; i < n; i++)
		want[i] = (float)(3 * (double)x[i] + 0.25);
	EACH_THREADS("affine", y, n, x, kernels_affine(k, &ty, &ty, 3, 0.25f));
	check_close("affine", y, want, n, 1e-7);
	for (int64_t i = 0; i < n; i++)
		want[i] = (float)((double)x[i] - 0.3 * (double)u[i]);
	EACH_THREADS("add_scaled", y, n, zero, kernels_add_scaled(k, &ty, &tx, &tu, -0.3f));
	check_close("add_scaled", y, want, n, 1e-7);
	EACH_THREADS("add_scaled: in place", y, n, x, kernels_add_scaled(k, &ty, &ty, &tu, -0.3f));
	check_close("add_scaled: in place", y, want, n, 1e-7);
	EACH_THREADS("soft_cap", y, n, x, kernels_soft_cap(k, &ty, 7));
	for (int64_t i = 0; i < n; i++)		/* the relative error is small for all values */
		CHECK_ROW("soft_cap", fabs((double)y[i] - 7 * tanh((double)x[i] / 7)) <= 1e-6 * fabs(7 * tanh((double)x[i] / 7)));
	fixture_close("pointwise");
}

/* NaN and infinity as inputs do not become finite numbers. */
static void
pointwise_not_finite(void)
{
	float x[3] = {NAN, INFINITY, -INFINITY}, y[3], ones[3] = {1, 1, 1};
	struct tensor tx = t1(x, 3), ty = t1(y, 3), one = t1(ones, 3);

	kernels_gelu(contexts[0], &ty, &tx);
	CHECK(isnan(y[0]) && y[1] == INFINITY);
	kernels_gelu_erf(contexts[0], &ty, &tx);
	CHECK(isnan(y[0]) && y[1] == INFINITY);
	kernels_gelu_erf_bwd(contexts[0], &ty, &one, &tx);
	CHECK(isnan(y[0]) && y[1] == 1 && y[2] == 0);
	kernels_swiglu(contexts[0], &ty, &tx, &tx);
	CHECK(isnan(y[0]) && y[1] == INFINITY);
}

/*
 * q, k and v are adjacent in rows of width stride, as a fused projection makes them; one float of each row
 * must remain unchanged.
 */
static void
attention(int64_t b, int64_t t, int64_t heads, int64_t kv_heads, int64_t d, const struct kernels_attention_form *form, int32_t most)
{
	int64_t stride = (heads + 2 * kv_heads) * d + 1, n = b * t * stride, n_o = b * t * heads * d;
	float *qkv = noise(n, 1), *zero = room(n), *d_qkv = room(n), *want_d = room(n), *o = room(n_o), *want = room(n_o), *d_o = noise(n_o, 1);
	float *lse = room(b * heads * t), *want_lse = room(b * heads * t), *freq = room(d / 2), *turned = room(n), *back;
	struct kernels_attention_form with = form != NULL ? *form : (struct kernels_attention_form){0};
	int32_t *starts = drawn_starts(b, t, most);
	struct kernels_heads q = {qkv, DTYPE_F32, stride, heads, d, 0}, key = {qkv + heads * d, DTYPE_F32, stride, kv_heads, d, 0};
	struct kernels_heads value = {qkv + (heads + kv_heads) * d, DTYPE_F32, stride, kv_heads, d, 0};
	struct kernels_heads dq = q, dk = key, dv = value, wq = q, wk = key, wv = value, rq = q;
	struct tensor to = t2(o, b * t, heads * d), tdo = t2(d_o, b * t, heads * d);

	with.starts = starts;
	dq.data = d_qkv;
	dk.data = d_qkv + heads * d;
	dv.data = d_qkv + (heads + kv_heads) * d;
	wq.data = want_d;
	wk.data = want_d + heads * d;
	wv.data = want_d + (heads + kv_heads) * d;
	EACH_THREADS("attention", o, n_o, zero, kernels_attention(k, &to, lse, &q, &key, &value, &with, b, t));
	kernels_attention_ref(want, want_lse, &q, &key, &value, &with, b, t);
	check_close("attention", o, want, n_o, 3e-6);
	check_close("attention: lse", lse, want_lse, b * heads * t, 2e-6);
	EACH_THREADS("attention_bwd", d_qkv, n, zero, kernels_attention_bwd(k, &dq, &dk, &dv, &tdo, &to, lse, &q, &key, &value, &with, b, t));
	kernels_attention_bwd_ref(&wq, &wk, &wv, d_o, &q, &key, &value, &with, b, t);
	check_close("attention_bwd", d_qkv, want_d, n, 5e-6);

	if (d % 2 == 0) {
		for (int64_t j = 0; j < d / 2; j++)
			freq[j] = powf(10000, -2 * (float)j / (float)d);
		rq.data = turned;
		EACH_THREADS("rope", turned, n, qkv, kernels_rope(k, &rq, freq, 1, b, t, starts, false));
		back = copy_of(turned, n);
		memcpy(turned, qkv, (size_t)n * sizeof(float));
		kernels_rope_ref(&rq, freq, b, t, starts, false);
		check_close("rope", back, turned, n, 1e-6);
		rq.data = back;
		kernels_rope(contexts[0], &rq, freq, 1, b, t, starts, true);
		check_close("rope: there and back", back, qkv, n, 1e-6);
		rq.data = turned;
		kernels_rope_ref(&rq, freq, b, t, starts, true);
		check_close("rope: inverse", turned, back, n, 1e-6);
	}
	free(starts);
	fixture_close("attention");
}

/*
 * GPT-NeoX's row [H, 3, D]: q, k, v of a head are adjacent, and rotary applies to the first part of each
 * head. The same heads copied into rows [3, H, D] give the same bits, and nothing else in a row is changed.
 */
static void
interleaved(int64_t b, int64_t t, int64_t heads, int64_t d, int64_t rotary)
{
	int64_t rows = b * t, n = rows * 3 * heads * d, n_o = rows * heads * d;
	float *mixed = noise(n, 1), *plain = room(n), *o = room(n_o), *want = room(n_o), *d_o = noise(n_o, 1), *lse = room(b * heads * t);
	float *d_mixed = room(n), *d_plain = room(n), *moved = room(n), *freq = room(rotary / 2), *before = copy_of(mixed, n), *turned;
	struct kernels_heads m[3], p[3], dm[3], dp[3], part;
	struct tensor to = t2(o, rows, heads * d), twant = t2(want, rows, heads * d), tdo = t2(d_o, rows, heads * d);
	struct kernels *k = contexts[1];

	for (int i = 0; i < 3; i++) {
		m[i] = (struct kernels_heads){mixed + i * d, DTYPE_F32, 3 * heads * d, heads, d, 3 * d};
		p[i] = (struct kernels_heads){plain + i * heads * d, DTYPE_F32, 3 * heads * d, heads, d, 0};
		dm[i] = m[i];
		dp[i] = p[i];
		dm[i].data = d_mixed + i * d;
		dp[i].data = d_plain + i * heads * d;
	}
	for (int64_t j = 0; j < rotary / 2; j++)
		freq[j] = powf(10000, -2 * (float)j / (float)rotary);
	part = m[0];
	part.head_dim = rotary;
	kernels_rope(k, &part, freq, 1, b, t, NULL, false);
	turned = copy_of(mixed, n);
	part.data = before;
	kernels_rope_ref(&part, freq, b, t, NULL, false);
	check_close("partial rope", turned, before, n, 1e-6);
	for (int64_t i = 0; i < n; i++)		/* (row, h, which, x) -> (row, which, h, x) */
		plain[i / (3 * heads * d) * 3 * heads * d + i / d % 3 * heads * d + i / (3 * d) % heads * d + i % d] = mixed[i];

	kernels_attention(k, &to, lse, &m[0], &m[1], &m[2], NULL, b, t);
	kernels_attention(k, &twant, lse, &p[0], &p[1], &p[2], NULL, b, t);
	check_same("interleaved heads", o, want, n_o);
	kernels_attention_bwd(k, &dm[0], &dm[1], &dm[2], &tdo, &to, lse, &m[0], &m[1], &m[2], NULL, b, t);
	kernels_attention_bwd(k, &dp[0], &dp[1], &dp[2], &tdo, &to, lse, &p[0], &p[1], &p[2], NULL, b, t);
	for (int64_t i = 0; i < n; i++)
		moved[i / (3 * heads * d) * 3 * heads * d + i / d % 3 * heads * d + i / (3 * d) % heads * d + i % d] = d_mixed[i];
	check_same("interleaved heads: gradients", moved, d_plain, n);
	fixture_close("interleaved");
}

/* Heads inside wider rows; the elements between them must remain unchanged. */
static void
head_norms(int64_t m, int64_t heads, int64_t d, int64_t gap)
{
	int64_t stride = heads * (d + gap) + 3, n = m * stride;
	float *x = noise(n, 3), *g = noise(d, 1), *y = room(n), *want = copy_of(x, n), *rstd = room(m * heads), *want_rstd = room(m * heads);
	float *d_y = noise(n, 1), *dx = room(n), *dg0 = noise(d, 1), *dg = room(d), *want_dx = copy_of(d_y, n);
	struct kernels_heads hx = {x, DTYPE_F32, stride, heads, d, d + gap}, hy = hx, hwant = hx, hdx = hx, hwant_dx = hx;
	struct tensor tg = t1(g, d), tdg = t1(dg, d);

	hy.data = y;
	hwant.data = want;
	hdx.data = dx;
	hwant_dx.data = want_dx;
	EACH_THREADS("rmsnorm_heads", y, n, x, kernels_rmsnorm_heads(k, &hy, rstd, &hy, &tg, 1e-6f, m));
	kernels_rmsnorm_heads_ref(&hwant, want_rstd, &hx, g, 1e-6f, m);
	check_close("rmsnorm_heads", y, want, n, 3e-6);
	check_close("rmsnorm_heads: rstd", rstd, want_rstd, m * heads, 3e-6);
	EACH_THREADS("rmsnorm_heads_bwd", dx, n, d_y,
	    memcpy(dg, dg0, (size_t)d * sizeof(float)); kernels_rmsnorm_heads_bwd(k, &hdx, &tdg, &hdx, &hx, &tg, rstd, m));
	kernels_rmsnorm_heads_bwd_ref(&hwant_dx, dg0, &hwant_dx, &hx, g, want_rstd, m);
	check_close("rmsnorm_heads_bwd: x", dx, want_dx, n, 1e-5);
	check_close("rmsnorm_heads_bwd: g", dg, dg0, d, 1e-5);
	fixture_close("head_norms");
}

static void
optimiser(int64_t n)
{
	int64_t blocks = (n + KERNELS_NORM_BLOCK - 1) / KERNELS_NORM_BLOCK;
	float *w0 = noise(n, 1), *m0 = noise(n, 0.1f), *v0 = noise(n, 0.1f), *g = noise(n, 1), *w = room(n), *m = room(n), *v = room(n);
	double *sums = malloc((size_t)blocks * 2 * sizeof(double)), *want = sums + blocks;
	struct kernels_adamw a = {.lr = 0.01f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .decay = 0.1f, .grad_scale = 0.3f, .step = 7};

	REQUIRE(sums != NULL);
	for (int64_t i = 0; i < n; i++)
		v0[i] = fabsf(v0[i]);
	kernels_norm_blocks_ref(g, n, want);
	for (int threads = 1; threads <= FIXTURE_TEAMS; threads++) {
		kernels_norm_blocks(contexts[threads - 1], g, n, sums);
		for (int64_t i = 0; i < blocks; i++)
			CHECK_NEAR(sums[i], want[i], 1e-12 * want[i]);
	}
	EACH_THREADS("adamw", w, n, w0,
	    memcpy(m, m0, (size_t)n * sizeof(float)); memcpy(v, v0, (size_t)n * sizeof(float));
	    kernels_adamw(k, w, m, v, g, NULL, DTYPE_F32, n, &a));
	kernels_adamw_ref(w0, m0, v0, g, n, &a);
	check_close("adamw: w", w, w0, n, 1e-6);
	check_close("adamw: m", m, m0, n, 1e-6);
	check_close("adamw: v", v, v0, n, 1e-6);
	g[n - 1] = NAN;
	kernels_norm_blocks(contexts[1], g, n, sums);
	CHECK(!isfinite(sums[blocks - 1]));
	free(sums);
	fixture_close("optimiser");
}

/* The CUDA kernels, at sizes below and above a block's threads, columns and tiles. */
static void
mirrored(void)
{
	linears();
	embed(7, 2, 3, 5, true, 0);
	embed(31, 2, 17, 131, true, 9);
	embed(31, 1, 5, 1029, false, 0);
	for (int form = 0; form < 4; form++) {
		norms(1, 3, form & 1, form & 2);
		norms(131, 97, form & 1, form & 2);
		norms(3, 1285, form & 1, form & 2);
	}
	pointwise(3, 1);
	pointwise(1031, 4);
	pointwise_not_finite();
	attention(1, 1, 1, 1, 2, NULL, 0);
	attention(2, 5, 3, 1, 4, NULL, 0);
	attention(3, 50, 2, 1, 6, NULL, 7);
	attention(1, 97, 4, 2, 7, &(struct kernels_attention_form){.soft_cap = 3, .window = 20}, 60);
	for (int64_t window = 1; window <= 66; window = window == 1 ? 32 : 2 * window + 2)
		attention(1, 67, 2, 2, 5, &(struct kernels_attention_form){.window = window, .scale = 0.7f}, 0);
	attention(1, 35, 2, 1, 72, &(struct kernels_attention_form){.soft_cap = 2}, 0);
	attention(1, 34, 1, 1, 131, NULL, 20);
	interleaved(2, 17, 3, 10, 6);
	head_norms(1, 1, 1, 0);
	head_norms(5, 3, 7, 0);
	head_norms(67, 3, 33, 2);
	optimiser(5);
	optimiser(KERNELS_NORM_BLOCK + 1);
}

int
main(void)
{
	fixture_start();
	for (int i = 0; i < MAX_THREADS; i++)
		contexts[i] = fixture_kernels(i + 1);
	if (FIXTURE_MIRROR) {
		mirrored();
		for (int i = 0; i < MAX_THREADS; i++)
			kernels_destroy(&contexts[i]);
		return check_done();
	}
	linears();
	embed(7, 2, 3, 5, true, 0);
	embed(101, 3, 67, 131, true, 0);
	embed(101, 3, 67, 131, true, 20);
	embed(101, 3, 67, 131, false, 0);
	for (int form = 0; form < 4; form++) {
		norms(1, 3, form & 1, form & 2);
		norms(5, 7, form & 1, form & 2);
		norms(131, 97, form & 1, form & 2);
		norms(65, 160, form & 1, form & 2);
	}
	pointwise(3, 1);
	pointwise(20011, 4);
	pointwise_not_finite();
	attention(1, 1, 1, 1, 2, NULL, 0);
	attention(2, 5, 3, 1, 4, NULL, 0);
	attention(1, 65, 2, 2, 7, NULL, 0);
	attention(2, 67, 4, 2, 12, NULL, 0);
	attention(1, 150, 3, 3, 10, NULL, 0);
	attention(3, 50, 2, 1, 6, NULL, 7);
	attention(1, 260, 4, 2, 8, NULL, 90);
	attention(2, 200, 2, 2, 5, NULL, 190);
	attention(2, 200, 2, 1, 6, &(struct kernels_attention_form){.soft_cap = 3, .window = 20}, 90);
	/* windows: one key, within a tile, a tile, over a border, longer than the sequence; soft caps */
	for (int64_t window = 0; window <= 200; window = window < 2 ? window + 1 : window == 2 ? 7 : window == 7 ? 64 : window == 64 ? 65 : 2 * window)
		attention(1, 150, 4, 2, 10, &(struct kernels_attention_form){.window = window, .scale = 0.7f}, 0);
	attention(2, 67, 4, 1, 6, &(struct kernels_attention_form){.soft_cap = 2}, 0);
	attention(2, 131, 3, 3, 7, &(struct kernels_attention_form){.scale = 1, .soft_cap = 5, .window = 70}, 0);
	interleaved(1, 3, 2, 4, 2);
	interleaved(2, 67, 3, 10, 6);
	interleaved(1, 65, 5, 7, 4);
	head_norms(1, 1, 1, 0);
	head_norms(5, 3, 7, 0);
	head_norms(131, 3, 33, 2);
	optimiser(5);
	optimiser(KERNELS_NORM_BLOCK + 1);
	optimiser(3 * KERNELS_NORM_BLOCK - 77);
	for (int i = 0; i < MAX_THREADS; i++)
		kernels_destroy(&contexts[i]);
	return check_done();
}
