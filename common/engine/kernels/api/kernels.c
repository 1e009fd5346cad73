/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels - the arithmetic of kernels.h: checks shapes, once for all backends, and calls the backend's
 * function.
 */
#include <math.h>

#include "base/log/log.h"
#include "engine/kernels/kernels_internal.h"

static bool
present(const struct tensor *t)
{
	return t != NULL && t->data != NULL;
}

static bool
is_matrix(const struct tensor *t, int64_t rows, int64_t cols)
{
	return kernels__rows(t) == rows && kernels__cols(t) == cols;
}

/* ---- linear layers ---- */

static struct kernels__matrix
matrix(const struct tensor *t, int64_t ld, bool trans)
{
	return (struct kernels__matrix){t->data, t->dtype, ld, trans, false};
}

static void
multiply(struct kernels *k, int64_t m, int64_t n, int64_t inner, struct kernels__matrix a, struct kernels__matrix b,
    struct kernels__matrix c, const struct tensor *bias, bool add)
{
	kernels__shape(
	    a.dtype == k->dtype && b.dtype == k->dtype && (c.dtype == k->dtype || c.dtype == DTYPE_F32),
	    "matmul: dtype");
	k->ops->matmul(k, m, n, inner, &a, &b, &c, present(bias) ? bias : NULL, add);
}

void
kernels_row_tile(struct kernels *k, int64_t rows)
{
	k->row_tile = rows;
}

/* Number of rows that one product computes, of m rows in all. */
static int64_t
tile_rows(const struct kernels *k, int64_t m)
{
	return k->row_tile > 0 && m % k->row_tile == 0 ? k->row_tile : m;
}

/* w: [out, in] or, with KERNELS_IN_OUT, [in, out]. */
static bool
weight_fits(const struct tensor *w, int64_t in, int64_t out, enum kernels_layout layout)
{
	bool out_in = layout == KERNELS_OUT_IN;

	return w->n_dims == 2 && w->dims[0] == (out_in ? out : in) && w->dims[1] == (out_in ? in : out);
}

void
kernels_linear(struct kernels *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
    const struct tensor *b, enum kernels_layout layout, bool add)
{
	int64_t m = kernels__rows(x), in = kernels__cols(x), out = kernels__cols(y);
	struct kernels__matrix weight = matrix(w, layout == KERNELS_OUT_IN ? in : out, layout == KERNELS_OUT_IN);

	weight.keep = true;
	kernels__shape(kernels__rows(y) == m && weight_fits(w, in, out, layout) &&
		(!present(b) || kernels__cols(b) == out),
	    "linear");
	for (int64_t row = 0, rows = tile_rows(k, m); row < m; row += rows) {
		struct kernels__matrix from = matrix(x, in, false), to = matrix(y, out, false);

		from.data = kernels__element(x->data, x->dtype, row * in);
		to.data = kernels__element(y->data, y->dtype, row * out);
		multiply(k, rows, out, in, from, weight, to, b, add);
	}
}

void
kernels_linear_bwd_x(struct kernels *k, struct tensor *d_x, const struct tensor *d_y, const struct tensor *w,
    enum kernels_layout layout, bool add)
{
	int64_t m = kernels__rows(d_y), in = kernels__cols(d_x), out = kernels__cols(d_y);
	bool out_in = layout == KERNELS_OUT_IN;

	kernels__shape(kernels__rows(d_x) == m && weight_fits(w, in, out, layout), "linear_bwd_x");
	multiply(k, m, in, out, matrix(d_y, out, false), matrix(w, out_in ? in : out, !out_in),
	    matrix(d_x, in, false), NULL, add);
}

void
kernels_linear_bwd_w(struct kernels *k, struct tensor *d_w, struct tensor *d_b, const struct tensor *d_y,
    const struct tensor *x, enum kernels_layout layout, bool add)
{
	int64_t m = kernels__rows(d_y), in = kernels__cols(x), out = kernels__cols(d_y);

	kernels__shape(kernels__rows(x) == m && weight_fits(d_w, in, out, layout) &&
		(!present(d_b) || kernels__cols(d_b) == out),
	    "linear_bwd_w");
	if (layout == KERNELS_OUT_IN)
		multiply(k, out, in, m, matrix(d_y, out, true), matrix(x, in, false), matrix(d_w, in, false),
		    NULL, add);
	else
		multiply(k, in, out, m, matrix(x, in, true), matrix(d_y, out, false), matrix(d_w, out, false),
		    NULL, add);
	if (present(d_b))
		k->ops->column_sums(k, d_b->data, d_y);
}

/* ---- embeddings ---- */

/* Documents follow one another in a sequence, and a row belongs to the last one that has begun. */
static void
check_starts(const int32_t *starts, int64_t b, int64_t t, const char *kernel)
{
	for (int64_t m = 0; starts != NULL && m < b * t; m++)
		if (starts[m] != m % t && (m % t == 0 || starts[m] != starts[m - 1]))
			log_fatal("kernels.starts", "kernel=%s row=%lld start=%d", kernel, (long long)m, (int)starts[m]);
}

static void
check_embed(const struct tensor *y, const int32_t *tokens, const struct tensor *wte, const struct tensor *wpe,
    int64_t b, int64_t t, const int32_t *starts, const char *kernel)
{
	int64_t c = kernels__cols(wte);

	check_starts(starts, b, t, kernel);
	kernels__shape(
	    is_matrix(y, b * t, c) && (!present(wpe) || (kernels__cols(wpe) == c && wpe->dims[0] >= t)),
	    kernel);
	for (int64_t i = 0; i < b * t; i++)
		if (tokens[i] < 0 || tokens[i] >= wte->dims[0])
			log_fatal("kernels.token", "id=%d vocab=%lld row=%lld", (int)tokens[i],
			    (long long)wte->dims[0], (long long)i);
}

void
kernels_embed(struct kernels *k, struct tensor *y, const int32_t *tokens, const struct tensor *wte,
    const struct tensor *wpe, int64_t b, int64_t t, const int32_t *starts)
{
	check_embed(y, tokens, wte, wpe, b, t, starts, "embed");
	kernels__shape(y->dtype == wte->dtype || y->dtype == DTYPE_F32, "embed: dtype");
	k->ops->embed(k, y, tokens, wte, present(wpe) ? wpe : NULL, b * t, t, starts);
}

void
kernels_embed_bwd(struct kernels *k, struct tensor *d_wte, struct tensor *d_wpe, const struct tensor *d_y,
    const int32_t *tokens, int64_t b, int64_t t, const int32_t *starts)
{
	check_embed(d_y, tokens, d_wte, d_wpe, b, t, starts, "embed_bwd");
	k->ops->embed_bwd(k, d_wte, present(d_wpe) ? d_wpe : NULL, d_y, tokens, b * t, t, starts);
}

/* ---- norms ---- */

void
kernels_layernorm(struct kernels *k, struct tensor *y, float *mean, float *rstd, const struct tensor *x,
    const struct tensor *g, const struct tensor *b, float eps)
{
	int64_t c = kernels__cols(x);

	kernels__shape(
	    is_matrix(y, kernels__rows(x), c) && kernels__cols(g) == c && kernels__cols(b) == c, "layernorm");
	k->ops->norm(k, y, mean, rstd, x, g, b, eps);
}

void
kernels_rmsnorm(struct kernels *k, struct tensor *y, float *rstd, const struct tensor *x,
    const struct tensor *g, float eps)
{
	kernels__shape(
	    is_matrix(y, kernels__rows(x), kernels__cols(x)) && kernels__cols(g) == kernels__cols(x),
	    "rmsnorm");
	k->ops->norm(k, y, NULL, rstd, x, g, NULL, eps);
}

static bool
norm_bwd_fits(const struct tensor *d_x, const struct tensor *d_g, const struct tensor *d_y,
    const struct tensor *x, const struct tensor *g)
{
	int64_t m = kernels__rows(x), c = kernels__cols(x);

	return is_matrix(d_x, m, c) && is_matrix(d_y, m, c) && kernels__cols(g) == c && kernels__cols(d_g) == c;
}

void
kernels_layernorm_bwd(struct kernels *k, struct tensor *d_x, struct tensor *d_g, struct tensor *d_b,
    const struct tensor *d_y, const struct tensor *x, const struct tensor *g, const float *mean,
    const float *rstd, bool add)
{
	kernels__shape(norm_bwd_fits(d_x, d_g, d_y, x, g) && kernels__cols(d_b) == kernels__cols(x), "layernorm_bwd");
	k->ops->norm_bwd(k, d_x, d_g, d_b, d_y, x, g, mean, rstd, add);
}

void
kernels_rmsnorm_bwd(struct kernels *k, struct tensor *d_x, struct tensor *d_g, const struct tensor *d_y,
    const struct tensor *x, const struct tensor *g, const float *rstd, bool add)
{
	kernels__shape(norm_bwd_fits(d_x, d_g, d_y, x, g), "rmsnorm_bwd");
	k->ops->norm_bwd(k, d_x, d_g, NULL, d_y, x, g, NULL, rstd, add);
}

/* The heads lie inside their row and do not overlap. */
static bool
heads_fit(const struct kernels_heads *x)
{
	return x->n_heads > 0 && x->head_dim > 0 && kernels__head_stride(x) >= x->head_dim &&
	    x->stride >= (x->n_heads - 1) * kernels__head_stride(x) + x->head_dim;
}

static bool
same_heads(const struct kernels_heads *a, const struct kernels_heads *b, const struct tensor *g)
{
	return heads_fit(a) && heads_fit(b) && a->n_heads == b->n_heads && a->head_dim == b->head_dim &&
	    kernels__cols(g) == a->head_dim;
}

void
kernels_rmsnorm_heads(struct kernels *k, struct kernels_heads *y, float *rstd, const struct kernels_heads *x,
    const struct tensor *g, float eps, int64_t m)
{
	kernels__shape(same_heads(y, x, g), "rmsnorm_heads");
	k->ops->rmsnorm_heads(k, y, rstd, x, g, eps, m);
}

void
kernels_rmsnorm_heads_bwd(struct kernels *k, struct kernels_heads *d_x, struct tensor *d_g,
    const struct kernels_heads *d_y, const struct kernels_heads *x, const struct tensor *g, const float *rstd,
    int64_t m)
{
	kernels__shape(same_heads(d_x, x, g) && same_heads(d_y, x, d_g), "rmsnorm_heads_bwd");
	k->ops->rmsnorm_heads_bwd(k, d_x, d_g, d_y, x, g, rstd, m);
}

/* ---- pointwise ---- */

static void
pointwise(struct kernels *k, enum kernels__pointwise op, struct tensor *out0, struct tensor *out1,
    const struct tensor *in0, const struct tensor *in1, const struct tensor *in2, const char *kernel)
{
	struct tensor *const out[2] = {out0, out1};
	const struct tensor *const all[4] = {out1, in0, in1, in2};
	int64_t n = tensor_count(out0);

	for (int i = 0; i < 4; i++)
		kernels__shape(all[i] == NULL || (tensor_count(all[i]) == n && all[i]->dtype == out0->dtype), kernel);
	k->ops->pointwise(k, op, out, all + 1, n);
}

void
kernels_gelu(struct kernels *k, struct tensor *y, const struct tensor *x)
{
	pointwise(k, KERNELS__GELU, y, NULL, x, NULL, NULL, "gelu");
}

void
kernels_gelu_bwd(struct kernels *k, struct tensor *d_x, const struct tensor *d_y, const struct tensor *x)
{
	pointwise(k, KERNELS__GELU_BWD, d_x, NULL, d_y, x, NULL, "gelu_bwd");
}

void
kernels_gelu_erf(struct kernels *k, struct tensor *y, const struct tensor *x)
{
	pointwise(k, KERNELS__GELU_ERF, y, NULL, x, NULL, NULL, "gelu_erf");
}

void
kernels_gelu_erf_bwd(struct kernels *k, struct tensor *d_x, const struct tensor *d_y, const struct tensor *x)
{
	pointwise(k, KERNELS__GELU_ERF_BWD, d_x, NULL, d_y, x, NULL, "gelu_erf_bwd");
}

void
kernels_swiglu(struct kernels *k, struct tensor *y, const struct tensor *gate, const struct tensor *up)
{
	pointwise(k, KERNELS__SWIGLU, y, NULL, gate, up, NULL, "swiglu");
}

void
kernels_swiglu_bwd(struct kernels *k, struct tensor *d_gate, struct tensor *d_up, const struct tensor *d_y,
    const struct tensor *gate, const struct tensor *up)
{
	pointwise(k, KERNELS__SWIGLU_BWD, d_gate, d_up, d_y, gate, up, "swiglu_bwd");
}

void
kernels_relu(struct kernels *k, struct tensor *y, const struct tensor *x, bool squared)
{
	pointwise(k, squared ? KERNELS__RELU2 : KERNELS__RELU, y, NULL, x, NULL, NULL, "relu");
}

void
kernels_relu_bwd(struct kernels *k, struct tensor *d_x, const struct tensor *d_y, const struct tensor *x, bool squared)
{
	pointwise(k, squared ? KERNELS__RELU2_BWD : KERNELS__RELU_BWD, d_x, NULL, d_y, x, NULL, "relu_bwd");
}

void
kernels_geglu(struct kernels *k, struct tensor *y, const struct tensor *gate, const struct tensor *up)
{
	pointwise(k, KERNELS__GEGLU, y, NULL, gate, up, NULL, "geglu");
}

void
kernels_geglu_bwd(struct kernels *k, struct tensor *d_gate, struct tensor *d_up, const struct tensor *d_y,
    const struct tensor *gate, const struct tensor *up)
{
	pointwise(k, KERNELS__GEGLU_BWD, d_gate, d_up, d_y, gate, up, "geglu_bwd");
}

void
kernels_affine(struct kernels *k, struct tensor *y, const struct tensor *x, float factor, float shift)
{
	kernels__shape(tensor_count(y) == tensor_count(x), "affine");
	k->ops->affine(k, y, x, factor, shift);
}

void
kernels_add_scaled(struct kernels *k, struct tensor *y, const struct tensor *x, const struct tensor *branch, float factor)
{
	kernels__shape(tensor_count(y) == tensor_count(x) && tensor_count(branch) == tensor_count(x) && y->dtype == DTYPE_F32 &&
	    x->dtype == DTYPE_F32, "add_scaled");
	k->ops->add_scaled(k, y, x, branch, factor);
}

void
kernels_soft_cap(struct kernels *k, struct tensor *x, float cap)
{
	kernels__shape(x->dtype == DTYPE_F32 && cap > 0, "soft_cap");
	k->ops->soft_cap(k, x, cap);
}

/* ---- attention ---- */

void
kernels_rope(struct kernels *k, struct kernels_heads *x, const float *freq, float magnitude, int64_t b, int64_t t,
    const int32_t *starts, bool inverse)
{
	check_starts(starts, b, t, "rope");
	kernels__shape(x->head_dim % 2 == 0 && heads_fit(x), "rope");
	k->ops->rope(k, x, freq, magnitude, b, t, starts, inverse);
}

static bool
attention_fits(const struct kernels_heads *q, const struct kernels_heads *key, const struct kernels_heads *value)
{
	return heads_fit(q) && heads_fit(key) && heads_fit(value) && q->n_heads % key->n_heads == 0 &&
	    value->n_heads == key->n_heads && key->head_dim == q->head_dim &&
	    value->head_dim == q->head_dim && key->dtype == q->dtype && value->dtype == q->dtype;
}

/* o or d_o, [m, H*D], as heads like those of q. */
static struct kernels_heads
output_heads(const struct tensor *o, const struct kernels_heads *q, int64_t m, const char *kernel)
{
	kernels__shape(is_matrix(o, m, q->n_heads * q->head_dim) && o->dtype == q->dtype, kernel);
	return (struct kernels_heads){.data = o->data,
	    .dtype = o->dtype,
	    .stride = q->n_heads * q->head_dim,
	    .n_heads = q->n_heads,
	    .head_dim = q->head_dim};
}

/* The form with its default scale filled in. */
static struct kernels_attention_form
form_of(const struct kernels_attention_form *form, const struct kernels_heads *q)
{
	struct kernels_attention_form out = form != NULL ? *form : (struct kernels_attention_form){0};

	kernels__shape(out.window >= 0 && out.soft_cap >= 0, "attention: form");
	if (out.scale == 0)
		out.scale = 1.0f / sqrtf((float)q->head_dim);
	return out;
}

void
kernels_attention(struct kernels *k, struct tensor *o, float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t)
{
	const struct kernels_heads out = output_heads(o, q, b * t, "attention");
	const struct kernels_attention_form full = form_of(form, q);

	kernels__shape(attention_fits(q, key, value), "attention");
	check_starts(full.starts, b, t, "attention");
	k->ops->attention(k, &out, lse, q, key, value, &full, b, t);
}

void
kernels_attention_bwd(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key,
    struct kernels_heads *d_value, const struct tensor *d_o, const struct tensor *o, const float *lse,
    const struct kernels_heads *q, const struct kernels_heads *key, const struct kernels_heads *value,
    const struct kernels_attention_form *form, int64_t b, int64_t t)
{
	const struct kernels_attention_form full = form_of(form, q);
	const struct kernels_heads out = output_heads(o, q, b * t, "attention_bwd"),
				   d_out = output_heads(d_o, q, b * t, "attention_bwd");

	kernels__shape(attention_fits(q, key, value) && attention_fits(d_q, d_key, d_value) &&
		d_q->n_heads == q->n_heads && d_key->n_heads == key->n_heads &&
		d_q->head_dim == q->head_dim && d_q->dtype == q->dtype,
	    "attention_bwd");
	check_starts(full.starts, b, t, "attention_bwd");
	k->ops->attention_bwd(k, d_q, d_key, d_value, &d_out, &out, lse, q, key, value, &full, b, t);
}

/* ---- the output layer ---- */

/* A copy of more, or an empty one for NULL; an absent bias becomes NULL. */
static struct kernels_output
output_of(const struct kernels_output *more, int64_t v, bool grad)
{
	struct kernels_output out = more != NULL ? *more : (struct kernels_output){0};

	out.bias = present(out.bias) ? out.bias : NULL;
	out.d_bias = out.bias != NULL && grad ? out.d_bias : NULL;
	kernels__shape(out.soft_cap >= 0 && (out.bias == NULL || tensor_count(out.bias) == v) &&
	    (out.bias == NULL || !grad || (present(out.d_bias) && tensor_count(out.d_bias) == v)), "output: bias");
	return out;
}

void
kernels_output_loss(struct kernels *k, const struct tensor *h, const struct tensor *w_out,
    const struct kernels_output *more, const struct kernels_targets *targets, float grad_scale, struct tensor *d_h, struct tensor *d_w,
    struct kernels_loss_sums *sums)
{
	int64_t m = kernels__rows(h), c = kernels__cols(h), v = w_out->dims[0];
	bool grad = present(d_h);
	const struct kernels_output beside = output_of(more, v, grad);

	kernels__shape(w_out->n_dims == 2 && w_out->dims[1] == c && targets->n_rows == m && v > 0 &&
	    (!grad || (tensor_count(d_h) == m * c && present(d_w) && tensor_count(d_w) == v * c)), "output_loss");
	k->ops->output_loss(k, h, w_out, &beside, targets, grad_scale, grad ? d_h : NULL, grad ? d_w : NULL, sums);
}

/* An output from element i on, of 4 bytes each; NULL if it is absent. */
static void *
from_row(void *out, int64_t i)
{
	return out != NULL ? (char *)out + 4 * i : NULL;
}

void
kernels_output_label(struct kernels *k, const struct tensor *h, const struct tensor *w_out,
    const struct kernels_output *more, const struct kernels_label_spec *spec, const int32_t *next, const uint64_t *seqs, int64_t b, int64_t t,
    struct kernels_labels *out)
{
	int64_t n_valid = spec->n_valid > 0 ? spec->n_valid : w_out->dims[0];
	const struct kernels_output beside = output_of(more, w_out->dims[0], false);
	bool sampled = spec->kind == KERNELS_LABEL_SAMPLED, top = spec->kind == KERNELS_LABEL_TOPK;
	int64_t step = tile_rows(k, b * t) == t ? 1 : b,
		width = spec->kind == KERNELS_LABEL_DENSE ? w_out->dims[0] : spec->n;

	kernels__shape(kernels__rows(h) == b * t && w_out->n_dims == 2 && w_out->dims[1] == kernels__cols(h) &&
	    n_valid <= w_out->dims[0] && (spec->kind == KERNELS_LABEL_NONE || spec->tau > 0) &&
	    (!(sampled || top) || (spec->n >= 1 && spec->n <= 1 << 20)) && (!top || spec->n <= n_valid) &&
	    (!sampled || n_valid <= 1 << 20), "output_label");
	for (int64_t i = 0, row = 0; i < b; i += step, row += step * t) {
		struct tensor part = tensor_2d(kernels__element(h->data, h->dtype, row * kernels__cols(h)),
		    h->dtype, step * t, kernels__cols(h));
		struct kernels_labels to = {from_row(out->loss_nats, row), from_row(out->rank, row),
		    from_row(out->n_unique, row), from_row(out->ids, row * width),
		    from_row(out->counts, row * width), from_row(out->values, row * width)};

		k->ops->output_label(k, &part, w_out, &beside, spec, next != NULL ? next + row : NULL, seqs + i, step, t, &to);
	}
}

/* ---- the optimiser ---- */

void
kernels_accumulate(struct kernels *k, float *y, const float *x, int64_t n)
{
	k->ops->accumulate(k, y, x, n);
}

void
kernels_norm_blocks(struct kernels *k, const float *x, int64_t n, double *out)
{
	k->ops->norm_blocks(k, x, n, out);
}

void
kernels_adamw(struct kernels *k, float *w, float *m, float *v, const float *grad, void *copy,
    enum dtype copy_dtype, int64_t n, const struct kernels_adamw *a)
{
	kernels__shape(a->step >= 1 && (copy == NULL || copy_dtype == DTYPE_F32 || copy_dtype == DTYPE_BF16), "adamw");
	k->ops->adamw(k, w, m, v, grad, copy, copy_dtype, n, a);
}

void
kernels_muon(struct kernels *k, const struct kernels_muon_matrix *list, int64_t n, const struct kernels_muon *a)
{
	for (int64_t i = 0; i < n; i++) {
		const struct kernels_muon_matrix *x = &list[i];

		kernels__shape(x->rows > 0 && x->cols > 0 && x->cols <= x->ld && x->group > 0 && x->rows % x->group == 0 &&
		    x->group_stride >= (x->group - 1) * x->ld + x->cols && (a->copy_dtype == DTYPE_F32 || a->copy_dtype == DTYPE_BF16), "muon");
	}
	k->ops->muon(k, list, n, a);
}

void
kernels_convert(struct kernels *k, void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype, int64_t n)
{
	kernels__shape(to_dtype != DTYPE_F16 && from_dtype != DTYPE_F16, "convert");
	if (to_dtype == from_dtype)
		kernels_copy(k, to, from, (size_t)n * dtype_size(to_dtype));
	else
		k->ops->convert(k, to, to_dtype, from, from_dtype, n);
}
