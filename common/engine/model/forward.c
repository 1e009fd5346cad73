/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forward - from tokens to final normed hidden states. The block of most families:
 *   mid = x + attention(norm1(x)) W_proj;  next = mid + mlp(norm2(mid))
 * or, with parallel residuals (GPT-NeoX), next = mid + mlp(norm2(x)). A residual sum is a copy, followed by a
 * product that adds to the copy. Where a branch is normed after (OLMo 2, Gemma 2) or scaled (Granite), it is
 * computed into a buffer of its own first. In inference x, mid and next are one buffer, so there is no copy.
 */
#include <string.h>

#include "base/log/log.h"
#include "engine/model/session.h"

static void
norm(struct model_session *s, struct tensor *y, enum buffer mean, enum buffer rstd, int layer, const struct tensor *x,
    const struct tensor *g, const struct tensor *b)
{
	struct tensor gain = model__gain(s, g), shift = model__or_row(s, b, BUFFER_ZEROS, s->model->config.d_model);
	float eps = s->model->config.norm_eps;

	if (s->traits->rms)
		kernels_rmsnorm(s->kernels, y, model__floats(s, rstd, layer), x, &gain, eps);
	else
		kernels_layernorm(s->kernels, y, model__floats(s, mean, layer), model__floats(s, rstd, layer), x, &gain, &shift, eps);
}

/* y = x, unless they are the same memory. */
static void
carry(struct model_session *s, struct tensor *y, const struct tensor *x)
{
	if (y->data != x->data)
		kernels_copy(s->kernels, y->data, x->data, (size_t)tensor_count(x) * dtype_size(x->dtype));
}

static void
norm2_forward(struct model_session *s, const struct model__layer *p, int layer, const struct tensor *x)
{
	struct tensor normed;

	if (s->traits->shared_norm)
		return;
	normed = model__buffer(s, BUFFER_NORM2, layer);
	if (s->traits->no_norm_before)
		kernels_convert(s->kernels, normed.data, normed.dtype, x->data, x->dtype, tensor_count(x));
	else
		norm(s, &normed, BUFFER_NORM2_MEAN, BUFFER_NORM2_RSTD, layer, x, &p->norm2_g, &p->norm2_b);
}

/*
 * y = x + branch, where branch is in W + b, normed and scaled as the family requires. sum false: computes
 * only what backward needs.
 */
static void
add_branch(struct model_session *s, struct tensor *y, const struct tensor *x, const struct tensor *in, const struct tensor *w,
    const struct tensor *b, enum buffer out, enum buffer rstd, int layer, const struct tensor *g, bool sum)
{
	struct kernels *k = s->kernels;
	struct tensor branch, normed, gain;
	float scale = s->model->config.residual_scale;

	if (!model__apart(&s->model->config)) {
		if (!sum)
			return;
		carry(s, y, x);
		kernels_linear(k, y, in, w, b, s->traits->layout, true);
		return;
	}
	branch = normed = model__buffer(s, out, layer);
	kernels_linear(k, &branch, in, w, b, s->traits->layout, false);
	if (s->traits->norm_after) {
		normed = model__buffer(s, BUFFER_BRANCH, 0);
		gain = model__gain(s, g);
		kernels_rmsnorm(k, &normed, model__floats(s, rstd, layer), &branch, &gain, s->model->config.norm_eps);
	}
	if (sum)
		kernels_add_scaled(k, y, x, &normed, scale != 0 ? scale : 1);
}

/* sum false: mid is not computed, because backward does not read it. */
static void
attention_forward(struct model_session *s, const struct model__layer *p, int layer, bool sum)
{
	struct kernels *k = s->kernels;
	struct tensor x = model__buffer(s, BUFFER_X, layer), normed = model__buffer(s, BUFFER_NORM1, layer);
	struct tensor qkv = model__buffer(s, BUFFER_QKV, layer), att = model__buffer(s, BUFFER_ATT, layer);
	struct tensor mid = model__mid(s, layer);
	struct model__heads raw = model__heads(s, BUFFER_QKV, layer), heads = model__attention_heads(s, layer);
	const struct model_config *cfg = &s->model->config;
	const struct kernels_attention_form form = model__attention_form(s, layer);

	if (cfg->parallel_residual)
		norm2_forward(s, p, layer, &x);		/* before mid, which may have the same memory */
	if (s->traits->no_norm_before)
		kernels_convert(k, normed.data, normed.dtype, x.data, x.dtype, tensor_count(&x));
	else
		norm(s, &normed, BUFFER_NORM1_MEAN, BUFFER_NORM1_RSTD, layer, &x, &p->norm1_g, &p->norm1_b);
	kernels_linear(k, &qkv, &normed, &p->qkv_w, &p->qkv_b, s->traits->layout, false);
	if (s->traits->qk_norm != MODEL_QK_NORM_NONE) {
		struct kernels_heads q = model__norm_view(s, heads.q), from_q = model__norm_view(s, raw.q);
		struct kernels_heads key = model__norm_view(s, heads.k), from_k = model__norm_view(s, raw.k);
		struct tensor gain = model__gain(s, &p->query_norm_g);

		kernels_rmsnorm_heads(k, &q, model__floats(s, BUFFER_QUERY_RSTD, layer), &from_q, &gain, cfg->norm_eps, s->b * s->t);
		gain = model__gain(s, &p->key_norm_g);
		kernels_rmsnorm_heads(k, &key, model__floats(s, BUFFER_KEY_RSTD, layer), &from_k, &gain, cfg->norm_eps, s->b * s->t);
	}
	model__rope(s, &heads, layer, false);
	kernels_attention(k, &att, model__floats(s, BUFFER_LSE, layer), &heads.q, &heads.k, &heads.v, &form, s->b, s->t);
	add_branch(s, &mid, &x, &att, &p->proj_w, &p->proj_b, BUFFER_ATT_OUT, BUFFER_POST1_RSTD, layer, &p->post1_g, sum);
}

static void
mlp_forward(struct model_session *s, const struct model__layer *p, int layer, bool output)
{
	struct kernels *k = s->kernels;
	enum model_activation activation = model_activation(&s->model->config);
	struct tensor mid = model__mid(s, layer), normed = model__buffer(s, s->traits->shared_norm ? BUFFER_NORM1 : BUFFER_NORM2, layer);
	struct tensor up = model__buffer(s, BUFFER_UP, layer), act = model__buffer(s, BUFFER_ACT, layer), next = mid;

	if (!s->model->config.parallel_residual)
		norm2_forward(s, p, layer, &mid);
	kernels_linear(k, &up, &normed, &p->up_w, &p->up_b, s->traits->layout, false);
	if (s->traits->gated) {
		struct tensor gate = model__buffer(s, BUFFER_GATE, layer);

		kernels_linear(k, &gate, &normed, &p->gate_w, &p->gate_b, s->traits->layout, false);
		if (activation == MODEL_GELU_NEW)
			kernels_geglu(k, &act, &gate, &up);
		else
			kernels_swiglu(k, &act, &gate, &up);
	} else if (activation == MODEL_GELU) {
		kernels_gelu_erf(k, &act, &up);
	} else if (activation == MODEL_RELU || activation == MODEL_RELU2) {
		kernels_relu(k, &act, &up, activation == MODEL_RELU2);
	} else {
		kernels_gelu(k, &act, &up);
	}
	if (output)
		next = model__buffer(s, BUFFER_X, layer + 1);
	add_branch(s, &next, &mid, &act, &p->down_w, &p->down_b, BUFFER_MLP_OUT, BUFFER_POST2_RSTD, layer, &p->post2_g, output);
}

void
model__layer_forward(struct model_session *s, int layer, bool output)
{
	struct model__layer p;

	model__layer_views(s->model, s->model->params, s->model->dtype, layer, &p);
	attention_forward(s, &p, layer, output || !s->model->config.parallel_residual);
	mlp_forward(s, &p, layer, output);
	s->slots_layer = layer;
}

int
model_forward(struct model_session *s, const int32_t *tokens, int64_t b, int64_t t)
{
	const struct model_config *cfg = &s->model->config;
	const int layers = (int)cfg->n_layers;
	struct model__ends ends;
	struct tensor x, final;

	if (b < 1 || t < 1 || t > s->options.max_tokens || b > s->options.max_batch * s->options.max_tokens / t)
		return ERR_RANGE;
	for (int64_t i = 0; i < b * t; i++)
		if (tokens[i] < 0 || tokens[i] >= cfg->vocab_size)
			return ERR_RANGE;
	if (s->model->params == NULL || s->model->dtype != kernels_dtype(s->kernels))
		log_fatal("model.forward", "params=%s kernels=%s msg=\"model not bound in the kernels' dtype\"",
		    s->model->params == NULL ? "none" : dtype_name(s->model->dtype), dtype_name(kernels_dtype(s->kernels)));
	s->b = b;
	s->t = t;
	s->state = STATE_EMPTY;
	memcpy(s->tokens, tokens, (size_t)(b * t) * sizeof(tokens[0]));
	for (int64_t i = 0; s->starts != NULL && i < b; i++)
		model_document_starts(tokens + i * t, t, s->document_end, s->starts + i * t);
	kernels_params(s->kernels, s->model->params, s->model->n_params, s->model->generation);
	model__ends_views(s->model, s->model->params, s->model->dtype, &ends);

	model__need(s, -1);
	x = model__buffer(s, BUFFER_X, 0);
	kernels_embed(s->kernels, &x, s->tokens, &ends.token_embed, &ends.position_embed, b, t, s->starts);
	if (cfg->embed_scale != 0)
		kernels_affine(s->kernels, &x, &x, cfg->embed_scale, 0);
	for (int layer = 0; layer < layers; layer++) {
		model__need(s, layer);
		model__layer_forward(s, layer, true);
	}
	model__need(s, layers);
	x = model__buffer(s, BUFFER_X, layers);
	final = model__buffer(s, BUFFER_FINAL, 0);
	norm(s, &final, BUFFER_FINAL_MEAN, BUFFER_FINAL_RSTD, 0, &x, &ends.final_g, &ends.final_b);
	if (cfg->output_scale != 0)
		kernels_affine(s->kernels, &final, &final, cfg->output_scale, 0);
	s->state = STATE_FORWARD;
	return 0;
}
