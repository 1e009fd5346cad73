/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forward - tokens to final normed hidden states. The pre-norm block of all families:
 *   mid = x + attention(norm1(x)) W_proj;  next = mid + mlp(norm2(mid))
 * or, with parallel residuals (GPT-NeoX), next = mid + mlp(norm2(x)). A residual sum is a copy and a product
 * that adds to it. In inference x, mid and next are one buffer, so there is no copy.
 */
#include <string.h>

#include "base/log/log.h"
#include "engine/model/session.h"

static void
norm(struct model_session *s, struct tensor *y, enum buffer mean, enum buffer rstd, int layer, const struct tensor *x,
    const struct tensor *g, const struct tensor *b)
{
	float eps = s->model->config.norm_eps;

	if (s->traits->rms)
		kernels_rmsnorm(s->kernels, y, model__floats(s, rstd, layer), x, g, eps);
	else
		kernels_layernorm(s->kernels, y, model__floats(s, mean, layer), model__floats(s, rstd, layer), x, g, b, eps);
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
	struct tensor normed = model__buffer(s, BUFFER_NORM2, layer);

	norm(s, &normed, BUFFER_NORM2_MEAN, BUFFER_NORM2_RSTD, layer, x, &p->norm2_g, &p->norm2_b);
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

	if (cfg->parallel_residual)
		norm2_forward(s, p, layer, &x);		/* before mid, which may be the same memory */
	norm(s, &normed, BUFFER_NORM1_MEAN, BUFFER_NORM1_RSTD, layer, &x, &p->norm1_g, &p->norm1_b);
	kernels_linear(k, &qkv, &normed, &p->qkv_w, &p->qkv_b, s->traits->layout, false);
	if (s->traits->qk_norm) {
		kernels_rmsnorm_heads(k, &heads.q, model__floats(s, BUFFER_QUERY_RSTD, layer), &raw.q, &p->query_norm_g, cfg->norm_eps,
		    s->b * s->t);
		kernels_rmsnorm_heads(k, &heads.k, model__floats(s, BUFFER_KEY_RSTD, layer), &raw.k, &p->key_norm_g, cfg->norm_eps,
		    s->b * s->t);
	}
	if (s->traits->rope)
		model__rope(s, &heads, false);
	kernels_attention(k, &att, model__floats(s, BUFFER_LSE, layer), &heads.q, &heads.k, &heads.v, s->b, s->t);
	if (!sum)
		return;
	carry(s, &mid, &x);
	kernels_linear(k, &mid, &att, &p->proj_w, &p->proj_b, s->traits->layout, true);
}

static void
mlp_forward(struct model_session *s, const struct model__layer *p, int layer, bool output)
{
	struct kernels *k = s->kernels;
	struct tensor mid = model__mid(s, layer), normed = model__buffer(s, BUFFER_NORM2, layer);
	struct tensor up = model__buffer(s, BUFFER_UP, layer), act = model__buffer(s, BUFFER_ACT, layer);

	if (!s->model->config.parallel_residual)
		norm2_forward(s, p, layer, &mid);
	kernels_linear(k, &up, &normed, &p->up_w, &p->up_b, s->traits->layout, false);
	if (s->traits->gated) {
		struct tensor gate = model__buffer(s, BUFFER_GATE, layer);

		kernels_linear(k, &gate, &normed, &p->gate_w, &p->gate_b, s->traits->layout, false);
		kernels_swiglu(k, &act, &gate, &up);
	} else if (s->traits->gelu_erf) {
		kernels_gelu_erf(k, &act, &up);
	} else {
		kernels_gelu(k, &act, &up);
	}
	if (output) {
		struct tensor next = model__buffer(s, BUFFER_X, layer + 1);

		carry(s, &next, &mid);
		kernels_linear(k, &next, &act, &p->down_w, &p->down_b, s->traits->layout, true);
	}
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

	if (b < 1 || b > s->options.max_batch || t < 1 || t > s->options.max_tokens)
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
	kernels_params(s->kernels, s->model->params, s->model->n_params, s->model->generation);
	model__ends_views(s->model, s->model->params, s->model->dtype, &ends);

	model__need(s, -1);
	x = model__buffer(s, BUFFER_X, 0);
	kernels_embed(s->kernels, &x, s->tokens, &ends.token_embed, &ends.position_embed, b, t);
	for (int layer = 0; layer < layers; layer++) {
		model__need(s, layer);
		model__layer_forward(s, layer, true);
	}
	model__need(s, layers);
	x = model__buffer(s, BUFFER_X, layers);
	final = model__buffer(s, BUFFER_FINAL, 0);
	norm(s, &final, BUFFER_FINAL_MEAN, BUFFER_FINAL_RSTD, 0, &x, &ends.final_g, &ends.final_b);
	s->state = STATE_FORWARD;
	return 0;
}
