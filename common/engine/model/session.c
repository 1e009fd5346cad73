/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session - the memory of one stream of work, and views of it.
 */
#include "engine/model/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log/log.h"
#include "base/mem/mem.h"

enum many { ONE, PER_LAYER, PER_LAYER_AND_END };

/* Width, dtype and number of copies of each buffer. rows[].present: this session has the buffer. */
static void
lay_out(const struct model_config *cfg, const struct model_session_options *o, enum dtype compute,
    struct model__place places[BUFFER_COUNT])
{
	const struct model_traits *t = model_traits(cfg->family);
	const bool train = o->training;
	const int64_t c = cfg->d_model, f = cfg->d_ff, q = cfg->n_heads * cfg->head_dim;
	const int64_t kv = cfg->n_kv_heads * cfg->head_dim, qkv = q + 2 * kv;
	const bool apart = model__apart(cfg), before = !t->no_norm_before;
	const enum many branch = t->norm_after ? PER_LAYER : ONE;
	const struct {
		enum buffer buffer;
		int64_t width;
		enum dtype dtype;
		enum many many;
		bool present;
	} rows[] = {
		{BUFFER_X, c, DTYPE_F32, PER_LAYER_AND_END, true},
		{BUFFER_NORM1, c, compute, PER_LAYER, true},
		{BUFFER_NORM1_MEAN, 1, DTYPE_F32, PER_LAYER, !t->rms},
		{BUFFER_NORM1_RSTD, 1, DTYPE_F32, PER_LAYER, before},
		{BUFFER_QKV, qkv, compute, PER_LAYER, true},
		{BUFFER_QK, q + kv, compute, PER_LAYER, t->qk_norm},
		{BUFFER_QUERY_RSTD, cfg->n_heads, DTYPE_F32, PER_LAYER, t->qk_norm},
		{BUFFER_KEY_RSTD, cfg->n_kv_heads, DTYPE_F32, PER_LAYER, t->qk_norm},
		{BUFFER_LSE, cfg->n_heads, DTYPE_F32, PER_LAYER, true},
		{BUFFER_ATT, q, compute, PER_LAYER, true},
		{BUFFER_MID, c, DTYPE_F32, PER_LAYER, train && !cfg->parallel_residual},
		{BUFFER_NORM2, c, compute, PER_LAYER, !t->shared_norm},
		{BUFFER_NORM2_MEAN, 1, DTYPE_F32, PER_LAYER, !t->rms && !t->shared_norm},
		{BUFFER_NORM2_RSTD, 1, DTYPE_F32, PER_LAYER, before && !t->shared_norm},
		{BUFFER_ATT_OUT, c, compute, branch, apart},
		{BUFFER_MLP_OUT, c, compute, branch, apart},
		{BUFFER_POST1_RSTD, 1, DTYPE_F32, PER_LAYER, t->norm_after},
		{BUFFER_POST2_RSTD, 1, DTYPE_F32, PER_LAYER, t->norm_after},
		{BUFFER_BRANCH, c, compute, ONE, t->norm_after},
		{BUFFER_GATE, f, compute, PER_LAYER, t->gated},
		{BUFFER_UP, f, compute, PER_LAYER, true},
		{BUFFER_ACT, f, compute, PER_LAYER, true},
		{BUFFER_FINAL, c, compute, ONE, true},
		{BUFFER_FINAL_MEAN, 1, DTYPE_F32, ONE, !t->rms},
		{BUFFER_FINAL_RSTD, 1, DTYPE_F32, ONE, true},
		{BUFFER_LOGITS, cfg->vocab_size, DTYPE_F32, ONE, true},
		{BUFFER_GAIN, c > q ? c : q, DTYPE_F32, ONE, t->unit_gain},
		{BUFFER_ONES, c, DTYPE_F32, ONE, t->no_gain},
		{BUFFER_ZEROS, c, DTYPE_F32, ONE, t->no_gain},
		{BUFFER_SINK_G, c, DTYPE_F32, ONE, t->no_gain && train},
		{BUFFER_SINK_B, c, DTYPE_F32, ONE, t->no_gain && train},
		{BUFFER_D_X, c, DTYPE_F32, ONE, train},
		{BUFFER_D_BRANCH, c, compute, ONE, train && (compute != DTYPE_F32 || apart)},
		{BUFFER_D_NORM, c, compute, ONE, train},
		{BUFFER_D_QKV, qkv, compute, ONE, train},
		{BUFFER_D_ATT, q, compute, ONE, train},
		{BUFFER_D_GATE, f, compute, ONE, train && t->gated},
		{BUFFER_D_UP, f, compute, ONE, train},
	};

	memset(places, 0, BUFFER_COUNT * sizeof(places[0]));
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct model__place *p = &places[rows[i].buffer];
		int layers = (int)cfg->n_layers;

		if (!rows[i].present)
			continue;
		p->width = rows[i].width;
		p->dtype = rows[i].dtype;
		p->copies = 1;
		if (train && rows[i].many == PER_LAYER_AND_END)
			p->copies = layers + 1;
		else if (train && !o->recompute && rows[i].many == PER_LAYER)
			p->copies = layers;
	}
}

/* Sets the offsets, in the order of enum buffer, and *bytes, their total. Returns false on overflow. */
static bool
carve(struct model__place places[BUFFER_COUNT], int64_t n_rows, size_t *bytes)
{
	size_t at = 0, size;

	for (int i = 0; i < BUFFER_COUNT; i++) {
		struct model__place *p = &places[i];
		int64_t rows = i == BUFFER_LOGITS && n_rows > MODEL_LOGITS_ROWS ? MODEL_LOGITS_ROWS : n_rows;

		rows = i >= BUFFER_GAIN && i <= BUFFER_SINK_B ? 1 : rows;
		if (!mem_mul((size_t)rows, (size_t)p->width, &size) || !mem_mul(size, dtype_size(p->dtype), &size) ||
		    !mem_add(size, 63, &size))
			return false;
		p->offset = at;
		p->copy_bytes = size & ~(size_t)63;
		if (!mem_mul(p->copy_bytes, (size_t)p->copies, &size) || !mem_add(at, size, &at))
			return false;
	}
	*bytes = at;
	return at <= PTRDIFF_MAX;
}

static int
plan(const struct model_config *cfg, enum dtype compute, const struct model_session_options *o,
    struct model__place places[BUFFER_COUNT], size_t *bytes, struct err_note *note)
{
	if (o->max_tokens < 1 || o->max_tokens > cfg->context)
		return err_expect(note, ERR_RANGE, "max_tokens", "1 to the model's context, %" PRId64,
		    "%" PRId64, cfg->context, o->max_tokens);
	if (o->max_batch < 1 || o->max_batch > MODEL_MAX_DIM / o->max_tokens)
		return err_expect(note, ERR_RANGE, "max_batch",
		    "at least 1, and at most %" PRId64 " with %" PRId64 " tokens", "%" PRId64,
		    MODEL_MAX_DIM / o->max_tokens, o->max_tokens, o->max_batch);
	lay_out(cfg, o, compute, places);
	if (!carve(places, o->max_batch * o->max_tokens, bytes))
		return err_expect(note, ERR_RANGE, "activations", "a number of bytes that fits in memory arithmetic",
		    "%" PRId64 " sequences of %" PRId64 " tokens", o->max_batch, o->max_tokens);
	return 0;
}

int
model_session_plan(const struct model_config *cfg, enum dtype compute_dtype,
    const struct model_session_options *options, size_t *bytes, struct err_note *note)
{
	struct model__place places[BUFFER_COUNT];

	return plan(cfg, compute_dtype, options, places, bytes, note);
}

int
model_session_new(struct model_session **session, const struct model *model, struct kernels *kernels,
    const struct model_session_options *options, struct err_note *note)
{
	struct model_session *s = NULL;
	const struct model_config *cfg = &model->config;
	int rc;

	*session = NULL;
	if ((s = mem_alloc(1, sizeof(*s))) == NULL)
		return err_note_set(note, ENOMEM, "session");
	s->model = model;
	s->kernels = kernels;
	s->options = *options;
	s->traits = model_traits(cfg->family);
	s->slots_layer = -1;
	s->document_end = -1;
	if ((rc = plan(cfg, kernels_dtype(kernels), options, s->places, &s->bytes, note)) != 0)
		goto out;
	if (s->traits->rope) {
		int64_t half = model__rotary_dim(cfg) / 2;

		if ((s->rope_freq = mem_alloc((size_t)half, MODEL__ROPE_COUNT * sizeof(s->rope_freq[0]))) == NULL) {
			rc = err_note_set(note, ENOMEM, "rotary frequencies");
			goto out;
		}
		for (int i = 0; i < MODEL__ROPE_COUNT; i++)
			model__rope_freq(cfg, (enum model__rope)i, s->rope_freq + i * half);
	}
	if ((s->tokens = mem_alloc((size_t)(options->max_batch * options->max_tokens), sizeof(s->tokens[0]))) == NULL ||
	    (s->data = kernels_alloc(kernels, s->bytes)) == NULL) {
		rc = err_note_set(note, ENOMEM, "activations, %zu bytes", s->bytes);
		goto out;
	}
	if (s->traits->no_gain) {
		struct tensor zeros = model__or_row(s, NULL, BUFFER_ZEROS, cfg->d_model), ones = model__or_row(s, NULL, BUFFER_ONES, cfg->d_model);

		kernels_affine(kernels, &ones, &zeros, 0, 1);
	}
	*session = s;
	s = NULL;
out:
	model_session_destroy(&s);
	return rc;
}

void
model_session_destroy(struct model_session **session)
{
	struct model_session *s = *session;

	if (s == NULL)
		return;
	kernels_free(s->kernels, s->data);
	free(s->tokens);
	free(s->starts);
	free(s->rope_freq);
	free(s);
	*session = NULL;
}

int
model_session_documents(struct model_session *s, int32_t end)
{
	size_t n = (size_t)(s->options.max_batch * s->options.max_tokens);

	s->state = STATE_EMPTY;
	s->document_end = end;
	if (end < 0) {
		free(s->starts);
		s->starts = NULL;
	} else if (s->starts == NULL && (s->starts = mem_alloc(n, sizeof(s->starts[0]))) == NULL) {
		s->document_end = -1;
		return ENOMEM;
	}
	return 0;
}

void
model_document_starts(const int32_t *tokens, int64_t t, int32_t end, int32_t *starts)
{
	int32_t first = 0;

	for (int64_t i = 0; i < t; i++) {
		starts[i] = first;
		if (tokens[i] == end)
			first = (int32_t)(i + 1);
	}
}

void
model_document_targets(const int32_t *tokens, int64_t n, int32_t end, int32_t *next)
{
	for (int64_t i = 0; end >= 0 && i < n; i++)
		if (tokens[i] == end)
			next[i] = KERNELS_NO_TARGET;
}

void
model_session_hooks(struct model_session *s, const struct model_hooks *hooks)
{
	s->hooks = *hooks;
}

struct tensor
model__buffer(const struct model_session *s, enum buffer buffer, int layer)
{
	const struct model__place *p = &s->places[buffer];
	char *data = s->data + p->offset + (p->copies > 1 ? p->copy_bytes * (size_t)layer : 0);

	if (p->copies == 0)
		log_fatal("model.buffer", "buffer=%d msg=\"not in this session\"", buffer);
	if (p->width == 1)
		return tensor_1d(data, p->dtype, s->b * s->t);
	return tensor_2d(data, p->dtype, s->b * s->t, p->width);
}

float *
model__floats(const struct model_session *s, enum buffer buffer, int layer)
{
	return model__buffer(s, buffer, layer).data;
}

struct model__heads
model__heads(const struct model_session *s, enum buffer buffer, int layer)
{
	const struct model_config *cfg = &s->model->config;
	struct tensor rows = model__buffer(s, buffer, layer);
	size_t head_bytes = (size_t)cfg->head_dim * dtype_size(rows.dtype);
	struct kernels_heads h = {
	    .data = rows.data, .dtype = rows.dtype, .stride = rows.dims[1], .head_dim = cfg->head_dim};
	struct model__heads out = {h, h, h};

	out.q.n_heads = cfg->n_heads;
	out.k.n_heads = out.v.n_heads = cfg->n_kv_heads;
	if (s->traits->mixed_heads) {
		out.q.head_stride = out.k.head_stride = out.v.head_stride = 3 * cfg->head_dim;
		out.k.data = (char *)rows.data + head_bytes;
		out.v.data = (char *)rows.data + head_bytes * 2;
		return out;
	}
	out.k.data = (char *)rows.data + head_bytes * (size_t)cfg->n_heads;
	out.v.data = (char *)rows.data + head_bytes * (size_t)(cfg->n_heads + cfg->n_kv_heads);
	return out;
}

struct model__heads
model__attention_heads(const struct model_session *s, int layer)
{
	struct model__heads out = model__heads(s, BUFFER_QKV, layer), normed;

	if (!s->traits->qk_norm)
		return out;
	normed = model__heads(s, BUFFER_QK, layer);
	out.q = normed.q;
	out.k = normed.k;
	return out;
}

void
model__rope(struct model_session *s, const struct model__heads *heads, int layer, bool inverse)
{
	const struct model_config *cfg = &s->model->config;
	struct kernels_heads turned[2] = {heads->q, heads->k};
	enum model__rope which = model__rope_of(cfg, layer, s->t);
	int64_t rotary = model__rotary_dim(cfg);

	if (!s->traits->rope || model_layer_nope(cfg, layer))
		return;
	for (int i = 0; i < 2; i++) {
		turned[i].head_stride = turned[i].head_stride != 0 ? turned[i].head_stride : turned[i].head_dim;
		turned[i].head_dim = rotary;
		kernels_rope(s->kernels, &turned[i], s->rope_freq + (int64_t)which * (rotary / 2), model__rope_magnitude(cfg, which), s->b, s->t,
		    s->starts, inverse);
	}
}

struct kernels_attention_form
model__attention_form(const struct model_session *s, int layer)
{
	const struct model_config *cfg = &s->model->config;

	return (struct kernels_attention_form){.scale = cfg->attention_scale, .soft_cap = cfg->attention_cap,
	    .window = model_layer_local(cfg, layer) ? cfg->window : 0, .starts = s->starts};
}

struct kernels_heads
model__norm_view(const struct model_session *s, struct kernels_heads heads)
{
	if (s->traits->qk_norm == MODEL_QK_NORM_WIDTH) {
		heads.head_dim *= heads.n_heads;
		heads.n_heads = 1;
	}
	return heads;
}

bool
model__apart(const struct model_config *cfg)
{
	return model_traits(cfg->family)->norm_after || (cfg->residual_scale != 0 && cfg->residual_scale != 1);
}

struct tensor
model__or_row(struct model_session *s, const struct tensor *t, enum buffer otherwise, int64_t n)
{
	const struct model__place *p = &s->places[otherwise];

	if (t != NULL && t->data != NULL)
		return *t;
	if (p->copies == 0)
		return (struct tensor){.data = NULL};
	return tensor_1d(s->data + p->offset, DTYPE_F32, n);
}

struct tensor
model__gain(struct model_session *s, const struct tensor *g)
{
	struct tensor out;

	if (!s->traits->unit_gain)
		return model__or_row(s, g, BUFFER_ONES, s->model->config.d_model);
	out = model__or_row(s, NULL, BUFFER_GAIN, tensor_count(g));
	kernels_affine(s->kernels, &out, g, 1, 1);
	return out;
}

struct tensor
model__mid(const struct model_session *s, int layer)
{
	if (!s->options.training)
		return model__buffer(s, BUFFER_X, layer);
	return s->model->config.parallel_residual ? model__buffer(s, BUFFER_X, layer + 1) :
						    model__buffer(s, BUFFER_MID, layer);
}

void
model__need(const struct model_session *s, int layer)
{
	if (s->hooks.need != NULL)
		s->hooks.need(s->hooks.arg, layer);
}

void
model__done(const struct model_session *s, int layer)
{
	if (s->hooks.done != NULL)
		s->hooks.done(s->hooks.arg, layer);
}
