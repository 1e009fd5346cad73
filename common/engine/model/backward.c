/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backward - the gradients of forward.c, layer by layer from the last to the first. BUFFER_D_X holds the
 * gradient of the residual stream; each branch of a block adds its part after its norm. With parallel
 * residuals both branches start from the gradient of the block's sum, so attention reads it before the mlp
 * adds its part.
 */
#include "base/log/log.h"
#include "engine/model/session.h"

static void
norm_bwd(struct model_session *s, struct tensor *d_x, struct tensor *d_g, struct tensor *d_b, const struct tensor *d_y,
    enum buffer mean, enum buffer rstd, int layer, const struct tensor *x, const struct tensor *g, bool add)
{
	if (s->traits->rms)
		kernels_rmsnorm_bwd(s->kernels, d_x, d_g, d_y, x, g, model__floats(s, rstd, layer), add);
	else
		kernels_layernorm_bwd(s->kernels, d_x, d_g, d_b, d_y, x, g, model__floats(s, mean, layer),
		    model__floats(s, rstd, layer), add);
}

/* The gradient of the residual stream in the compute dtype, for products. */
static struct tensor
d_branch(struct model_session *s)
{
	struct tensor d_x = model__buffer(s, BUFFER_D_X, 0), rounded;

	if (kernels_dtype(s->kernels) == d_x.dtype)
		return d_x;
	rounded = model__buffer(s, BUFFER_D_BRANCH, 0);
	kernels_convert(s->kernels, rounded.data, rounded.dtype, d_x.data, d_x.dtype, tensor_count(&d_x));
	return rounded;
}

/* Leaves the gradient of norm2's output in BUFFER_D_NORM. */
static void
mlp_bwd(struct model_session *s, const struct model__layer *p, struct model__layer *d, int layer)
{
	struct kernels *k = s->kernels;
	enum kernels_layout layout = s->traits->layout;
	struct tensor normed = model__buffer(s, BUFFER_NORM2, layer);
	struct tensor up = model__buffer(s, BUFFER_UP, layer), act = model__buffer(s, BUFFER_ACT, layer);
	struct tensor d_x = d_branch(s), d_normed = model__buffer(s, BUFFER_D_NORM, 0);
	struct tensor d_up = model__buffer(s, BUFFER_D_UP, 0);

	kernels_linear_bwd_w(k, &d->down_w, &d->down_b, &d_x, &act, layout);
	kernels_linear_bwd_x(k, &d_up, &d_x, &p->down_w, layout, false);	/* holds d_act until the activation's backward */
	if (s->traits->gated) {
		struct tensor gate = model__buffer(s, BUFFER_GATE, layer), d_gate = model__buffer(s, BUFFER_D_GATE, 0);

		kernels_swiglu_bwd(k, &d_gate, &d_up, &d_up, &gate, &up);
		kernels_linear_bwd_w(k, &d->gate_w, &d->gate_b, &d_gate, &normed, layout);
		kernels_linear_bwd_x(k, &d_normed, &d_gate, &p->gate_w, layout, false);
	} else if (s->traits->gelu_erf) {
		kernels_gelu_erf_bwd(k, &d_up, &d_up, &up);
	} else {
		kernels_gelu_bwd(k, &d_up, &d_up, &up);
	}
	kernels_linear_bwd_w(k, &d->up_w, &d->up_b, &d_up, &normed, layout);
	kernels_linear_bwd_x(k, &d_normed, &d_up, &p->up_w, layout, s->traits->gated);
}

static void
norm2_bwd(struct model_session *s, const struct model__layer *p, struct model__layer *d, int layer)
{
	struct tensor x = s->model->config.parallel_residual ? model__buffer(s, BUFFER_X, layer) : model__mid(s, layer);
	struct tensor d_x = model__buffer(s, BUFFER_D_X, 0), d_normed = model__buffer(s, BUFFER_D_NORM, 0);

	norm_bwd(s, &d_x, &d->norm2_g, &d->norm2_b, &d_normed, BUFFER_NORM2_MEAN, BUFFER_NORM2_RSTD, layer, &x, &p->norm2_g, true);
}

static void
proj_bwd(struct model_session *s, const struct model__layer *p, struct model__layer *d, int layer)
{
	struct tensor att = model__buffer(s, BUFFER_ATT, layer), d_att = model__buffer(s, BUFFER_D_ATT, 0);
	struct tensor d_x = d_branch(s);

	kernels_linear_bwd_w(s->kernels, &d->proj_w, &d->proj_b, &d_x, &att, s->traits->layout);
	kernels_linear_bwd_x(s->kernels, &d_att, &d_x, &p->proj_w, s->traits->layout, false);
}

static void
attention_bwd(struct model_session *s, const struct model__layer *p, struct model__layer *d, int layer)
{
	struct kernels *k = s->kernels;
	enum kernels_layout layout = s->traits->layout;
	struct tensor x = model__buffer(s, BUFFER_X, layer), normed = model__buffer(s, BUFFER_NORM1, layer);
	struct tensor att = model__buffer(s, BUFFER_ATT, layer);
	struct tensor d_x = model__buffer(s, BUFFER_D_X, 0), d_normed = model__buffer(s, BUFFER_D_NORM, 0);
	struct tensor d_att = model__buffer(s, BUFFER_D_ATT, 0), d_qkv = model__buffer(s, BUFFER_D_QKV, 0);
	struct model__heads heads = model__attention_heads(s, layer), d_heads = model__heads(s, BUFFER_D_QKV, 0);

	kernels_attention_bwd(k, &d_heads.q, &d_heads.k, &d_heads.v, &d_att, &att, model__floats(s, BUFFER_LSE, layer), &heads.q,
	    &heads.k, &heads.v, s->b, s->t);
	if (s->traits->rope)
		model__rope(s, &d_heads, true);
	if (s->traits->qk_norm) {
		struct model__heads raw = model__heads(s, BUFFER_QKV, layer);

		kernels_rmsnorm_heads_bwd(k, &d_heads.q, &d->query_norm_g, &d_heads.q, &raw.q, &p->query_norm_g,
		    model__floats(s, BUFFER_QUERY_RSTD, layer), s->b * s->t);
		kernels_rmsnorm_heads_bwd(k, &d_heads.k, &d->key_norm_g, &d_heads.k, &raw.k, &p->key_norm_g,
		    model__floats(s, BUFFER_KEY_RSTD, layer), s->b * s->t);
	}
	kernels_linear_bwd_w(k, &d->qkv_w, &d->qkv_b, &d_qkv, &normed, layout);
	kernels_linear_bwd_x(k, &d_normed, &d_qkv, &p->qkv_w, layout, false);
	norm_bwd(s, &d_x, &d->norm1_g, &d->norm1_b, &d_normed, BUFFER_NORM1_MEAN, BUFFER_NORM1_RSTD, layer, &x, &p->norm1_g, true);
}

void
model_backward(struct model_session *s, float *d_params)
{
	const struct model *m = s->model;
	const int layers = (int)m->config.n_layers;
	struct model__ends ends, d_ends;
	struct tensor x, d_x, d_final;

	if (s->state != STATE_LOSS)
		log_fatal("model.backward", "msg=\"no model_loss with gradients before\"");
	s->state = STATE_FORWARD;
	model__ends_views(m, m->params, m->dtype, &ends);
	model__ends_views(m, d_params, DTYPE_F32, &d_ends);
	x = model__buffer(s, BUFFER_X, layers);
	d_x = model__buffer(s, BUFFER_D_X, 0);
	d_final = model__buffer(s, BUFFER_D_NORM, 0);	/* written by model_loss */

	model__need(s, layers);
	norm_bwd(s, &d_x, &d_ends.final_g, &d_ends.final_b, &d_final, BUFFER_FINAL_MEAN, BUFFER_FINAL_RSTD, 0, &x, &ends.final_g,
	    false);
	model__done(s, layers);
	for (int layer = layers - 1; layer >= 0; layer--) {
		struct model__layer p, d;

		model__need(s, layer);
		if (s->options.recompute && s->slots_layer != layer)
			model__layer_forward(s, layer, false);
		model__layer_views(m, m->params, m->dtype, layer, &p);
		model__layer_views(m, d_params, DTYPE_F32, layer, &d);
		mlp_bwd(s, &p, &d, layer);
		if (m->config.parallel_residual)
			proj_bwd(s, &p, &d, layer);
		norm2_bwd(s, &p, &d, layer);
		if (!m->config.parallel_residual)
			proj_bwd(s, &p, &d, layer);
		attention_bwd(s, &p, &d, layer);
		model__done(s, layer);
	}
	kernels_embed_bwd(s->kernels, &d_ends.token_embed, &d_ends.position_embed, &d_x, s->tokens, s->b, s->t);
	model__done(s, -1);
}
