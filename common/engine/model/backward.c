/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backward - the gradients of forward.c, layer by layer from the last to the first. BUFFER_D_X holds the
 * gradient of the residual stream; each branch of a block adds its gradient after its norm's backward. With
 * parallel residuals both branches start from the gradient of the block's sum, so attention reads it before
 * the mlp adds its part.
 */
#include "base/log/log.h"
#include "engine/model/session.h"

static void
norm_bwd(struct model_session *s, struct tensor *d_x, struct tensor *d_g, struct tensor *d_b, const struct tensor *d_y,
    enum buffer mean, enum buffer rstd, int layer, const struct tensor *x, const struct tensor *g, bool add)
{
	struct tensor gain = model__gain(s, g), to_g = model__or_row(s, d_g, BUFFER_SINK_G, s->model->config.d_model);
	struct tensor to_b = model__or_row(s, d_b, BUFFER_SINK_B, s->model->config.d_model);

	if (s->traits->rms)
		kernels_rmsnorm_bwd(s->kernels, d_x, &to_g, d_y, x, &gain, model__floats(s, rstd, layer), add);
	else
		kernels_layernorm_bwd(s->kernels, d_x, &to_g, &to_b, d_y, x, &gain, model__floats(s, mean, layer),
		    model__floats(s, rstd, layer), add);
}

/*
 * The gradient of a branch's output in the compute dtype, as an operand of products: the gradient of the
 * residual stream, passed back through the branch's scale and norm.
 */
static struct tensor
d_branch(struct model_session *s, enum buffer out, enum buffer rstd, int layer, const struct tensor *g, struct tensor *d_g)
{
	struct tensor d_x = model__buffer(s, BUFFER_D_X, 0), rounded;
	float scale = s->model->config.residual_scale;

	if (model__apart(&s->model->config)) {
		rounded = model__buffer(s, BUFFER_D_BRANCH, 0);
		kernels_affine(s->kernels, &rounded, &d_x, scale != 0 ? scale : 1, 0);
		if (s->traits->norm_after) {
			struct tensor branch = model__buffer(s, out, layer), gain = model__gain(s, g);

			kernels_rmsnorm_bwd(s->kernels, &rounded, d_g, &rounded, &branch, &gain, model__floats(s, rstd, layer), false);
		}
		return rounded;
	}

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
	enum model_activation activation = model_activation(&s->model->config);
	struct tensor normed = model__buffer(s, s->traits->shared_norm ? BUFFER_NORM1 : BUFFER_NORM2, layer);
	struct tensor up = model__buffer(s, BUFFER_UP, layer), act = model__buffer(s, BUFFER_ACT, layer);
	struct tensor d_x = d_branch(s, BUFFER_MLP_OUT, BUFFER_POST2_RSTD, layer, &p->post2_g, &d->post2_g);
	struct tensor d_normed = model__buffer(s, BUFFER_D_NORM, 0);
	struct tensor d_up = model__buffer(s, BUFFER_D_UP, 0);

	kernels_linear_bwd_w(k, &d->down_w, &d->down_b, &d_x, &act, layout, !s->fresh);
	kernels_linear_bwd_x(k, &d_up, &d_x, &p->down_w, layout, false);	/* holds d_act until the activation's backward */
	if (s->traits->gated) {
		struct tensor gate = model__buffer(s, BUFFER_GATE, layer), d_gate = model__buffer(s, BUFFER_D_GATE, 0);

		if (activation == MODEL_GELU_NEW)
			kernels_geglu_bwd(k, &d_gate, &d_up, &d_up, &gate, &up);
		else
			kernels_swiglu_bwd(k, &d_gate, &d_up, &d_up, &gate, &up);
		kernels_linear_bwd_w(k, &d->gate_w, &d->gate_b, &d_gate, &normed, layout, !s->fresh);
		kernels_linear_bwd_x(k, &d_normed, &d_gate, &p->gate_w, layout, false);
	} else if (activation == MODEL_GELU) {
		kernels_gelu_erf_bwd(k, &d_up, &d_up, &up);
	} else if (activation == MODEL_RELU || activation == MODEL_RELU2) {
		kernels_relu_bwd(k, &d_up, &d_up, &up, activation == MODEL_RELU2);
	} else {
		kernels_gelu_bwd(k, &d_up, &d_up, &up);
	}
	kernels_linear_bwd_w(k, &d->up_w, &d->up_b, &d_up, &normed, layout, !s->fresh);
	kernels_linear_bwd_x(k, &d_normed, &d_up, &p->up_w, layout, s->traits->gated);
}

static void
norm2_bwd(struct model_session *s, const struct model__layer *p, struct model__layer *d, int layer)
{
	struct tensor x = s->model->config.parallel_residual ? model__buffer(s, BUFFER_X, layer) : model__mid(s, layer);
	struct tensor d_x = model__buffer(s, BUFFER_D_X, 0), d_normed = model__buffer(s, BUFFER_D_NORM, 0);

	if (s->traits->shared_norm)
		return;		/* attention_bwd computes the backward of the shared norm */
	if (s->traits->no_norm_before) {
		kernels_add_scaled(s->kernels, &d_x, &d_x, &d_normed, 1);
		return;
	}
	norm_bwd(s, &d_x, &d->norm2_g, &d->norm2_b, &d_normed, BUFFER_NORM2_MEAN, BUFFER_NORM2_RSTD, layer, &x, &p->norm2_g, true);
}

static void
proj_bwd(struct model_session *s, const struct model__layer *p, struct model__layer *d, int layer)
{
	struct tensor att = model__buffer(s, BUFFER_ATT, layer), d_att = model__buffer(s, BUFFER_D_ATT, 0);
	struct tensor d_x = d_branch(s, BUFFER_ATT_OUT, BUFFER_POST1_RSTD, layer, &p->post1_g, &d->post1_g);

	kernels_linear_bwd_w(s->kernels, &d->proj_w, &d->proj_b, &d_x, &att, s->traits->layout, !s->fresh);
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
	const struct kernels_attention_form form = model__attention_form(s, layer);

	kernels_attention_bwd(k, &d_heads.q, &d_heads.k, &d_heads.v, &d_att, &att, model__floats(s, BUFFER_LSE, layer), &heads.q,
	    &heads.k, &heads.v, &form, s->b, s->t);
	model__rope(s, &d_heads, layer, true);
	if (s->traits->qk_norm != MODEL_QK_NORM_NONE) {
		struct model__heads raw = model__heads(s, BUFFER_QKV, layer);
		struct kernels_heads d_q = model__norm_view(s, d_heads.q), q = model__norm_view(s, raw.q);
		struct kernels_heads d_key = model__norm_view(s, d_heads.k), key = model__norm_view(s, raw.k);
		struct tensor gain = model__gain(s, &p->query_norm_g);

		kernels_rmsnorm_heads_bwd(k, &d_q, &d->query_norm_g, &d_q, &q, &gain, model__floats(s, BUFFER_QUERY_RSTD, layer), s->b * s->t);
		gain = model__gain(s, &p->key_norm_g);
		kernels_rmsnorm_heads_bwd(k, &d_key, &d->key_norm_g, &d_key, &key, &gain, model__floats(s, BUFFER_KEY_RSTD, layer), s->b * s->t);
	}
	kernels_linear_bwd_w(k, &d->qkv_w, &d->qkv_b, &d_qkv, &normed, layout, !s->fresh);
	kernels_linear_bwd_x(k, &d_normed, &d_qkv, &p->qkv_w, layout, s->traits->shared_norm);
	if (s->traits->no_norm_before) {
		kernels_add_scaled(k, &d_x, &d_x, &d_normed, 1);
		return;
	}
	norm_bwd(s, &d_x, &d->norm1_g, &d->norm1_b, &d_normed, BUFFER_NORM1_MEAN, BUFFER_NORM1_RSTD, layer, &x, &p->norm1_g, true);
}

void
model_gradients_zero(struct model_session *s, float *d_params)
{
	const struct model *m = s->model;
	int output = model__tensor(m, m->config.tied ? -1 : (int)m->config.n_layers, m->config.tied ? ROLE_TOKEN_EMBED : ROLE_OUTPUT_W);

	s->fresh = true;
	for (int i = 0; i < m->n_tensors; i++)
		if (i != output && m->tensors[i].n_matrices == 0)
			kernels_zero(s->kernels, d_params + m->tensors[i].offset, (size_t)m->tensors[i].n_elements * sizeof(float));
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
	if (m->config.output_scale != 0)
		kernels_affine(s->kernels, &d_final, &d_final, m->config.output_scale, 0);
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
	if (m->config.embed_scale != 0)
		kernels_affine(s->kernels, &d_x, &d_x, m->config.embed_scale, 0);
	s->fresh = false;
	kernels_embed_bwd(s->kernels, &d_ends.token_embed, &d_ends.position_embed, &d_x, s->tokens, s->b, s->t, s->starts);
	model__done(s, -1);
}
