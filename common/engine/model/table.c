/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table - checks of a configuration, its tensor table in canonical order, views by role.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"
#include "engine/model/model_internal.h"

static void
dims_of(const struct model_config *cfg, int64_t dims[DIM_COUNT])
{
	dims[DIM_NONE] = 1;
	dims[DIM_V] = cfg->vocab_size;
	dims[DIM_CONTEXT] = cfg->context + model_traits(cfg->family)->position_offset;
	dims[DIM_C] = cfg->d_model;
	dims[DIM_F] = cfg->d_ff;
	dims[DIM_2F] = 2 * cfg->d_ff;
	dims[DIM_Q] = cfg->n_heads * cfg->head_dim;
	dims[DIM_KV] = cfg->n_kv_heads * cfg->head_dim;
	dims[DIM_QKV] = dims[DIM_Q] + 2 * dims[DIM_KV];
	dims[DIM_QN] = model_traits(cfg->family)->qk_norm == MODEL_QK_NORM_WIDTH ? dims[DIM_Q] : cfg->head_dim;
	dims[DIM_KN] = model_traits(cfg->family)->qk_norm == MODEL_QK_NORM_WIDTH ? dims[DIM_KV] : cfg->head_dim;
}

static bool
row_present(const struct model_config *cfg, const struct model__row *row)
{
	const struct model_traits *t = model_traits(cfg->family);
	bool gain = !t->no_gain, before = !t->no_norm_before;

	switch (row->when) {
	case IF_UNTIED:
		return !cfg->tied;
	case IF_ATTENTION_BIAS:
		return cfg->attention_bias;
	case IF_OUTPUT_BIAS:
		return cfg->attention_bias && !t->needs_attention_bias && !cfg->no_proj_bias;
	case IF_QK_NORM:
		return t->qk_norm != MODEL_QK_NORM_NONE;
	case IF_MLP_BIAS:
		return cfg->mlp_bias;
	case IF_GAIN:
		return gain;
	case IF_BEFORE:
		return gain && before;
	case IF_BEFORE_ONLY:
		return gain && before && !t->norm_after;
	case IF_AFTER:
		return t->norm_after;
	case IF_BOTH:
		return before && t->norm_after;
	case IF_NORM_BIAS:
		return t->norm_bias;
	case IF_APART:
		return !t->fused_qkv;
	case IF_FUSED_QKV:
		return t->fused_qkv;
	case IF_GATE:
		return t->gated && !t->fused_gate;
	case IF_FUSED_GATE:
		return t->fused_gate;
	case IF_UP:
		return !t->fused_gate;
	case IF_GATE_BIAS:
		return t->gated && cfg->mlp_bias;
	default:
		return true;
	}
}

/*
 * Counts the elements of the flat array and the tensors. Returns false if the array, with its gradients in
 * fp32, exceeds memory arithmetic.
 */
static bool
measure(const struct model_config *cfg, int64_t *n_params, int *n_tensors)
{
	int64_t dims[DIM_COUNT];
	size_t total = 0, bytes, n_rows;
	const struct model__row *row = model__rows(cfg->family, &n_rows);

	dims_of(cfg, dims);
	*n_tensors = 0;
	for (size_t i = 0; i < n_rows; i++, row++) {
		size_t times = row->where == LAYER ? (size_t)cfg->n_layers : 1, n;

		if (!row_present(cfg, row))
			continue;
		if (!mem_mul((size_t)dims[row->dims[0]], (size_t)dims[row->dims[1]], &n) || !mem_mul(n, times, &n) ||
		    !mem_add(total, n, &total))
			return false;
		*n_tensors += (int)times;
	}
	if (!mem_mul(total, 2 * sizeof(float), &bytes) || bytes > PTRDIFF_MAX)
		return false;
	*n_params = (int64_t)total;
	return true;
}

/* ---- checks ---- */

/* family: the family that has this rule, named in the note; or NULL. */
static int
refuse(struct err_note *note, int rc, const char *field, const char *expected, const struct model_traits *family, double found)
{
	return err_expect(note, rc, "%s", "%s%s%s", "%.15g", field, expected, family != NULL ? " in family " : "",
	    family != NULL ? family->name : "", found);
}

/* Scalings other than llama3. */
static int
check_scaling(const struct model_config *cfg, struct err_note *note)
{
	bool yarn = cfg->rope_scaling.type == MODEL_ROPE_YARN, longrope = cfg->rope_scaling.type == MODEL_ROPE_LONGROPE;
	double factor = cfg->rope_scaling.factor, least = yarn || longrope ? 0 : 1;
	int64_t original = cfg->rope_scaling.original_context;

	if (!(factor >= least && factor < 1e9))
		return refuse(note, ERR_RANGE, "rope_scaling.factor", "a number of at least 1", NULL, factor);
	if ((yarn || longrope) && (original < 2 || original > MODEL_MAX_DIM))
		return refuse(note, ERR_RANGE, "rope_scaling.original_context", "2 to 2147483647", NULL, (double)original);
	if (!(cfg->rope_scaling.attention_factor >= 0 && cfg->rope_scaling.attention_factor < 1e6))
		return refuse(note, ERR_RANGE, "rope_scaling.attention_factor", "a positive number", NULL, cfg->rope_scaling.attention_factor);
	if (yarn && !(cfg->rope_scaling.beta_slow > 0 && cfg->rope_scaling.beta_fast > 0 && cfg->rope_scaling.beta_fast < 1e9 &&
	    cfg->rope_scaling.beta_slow < 1e9 && cfg->rope_theta > 1))
		return refuse(note, ERR_RANGE, "rope_scaling.beta_fast", "positive numbers, and rope_theta over 1", NULL,
		    cfg->rope_scaling.beta_fast);
	for (int64_t i = 0; longrope && i < model__rotary_dim(cfg) / 2; i++) {
		if (i >= MODEL_MAX_ROTARY / 2)
			return refuse(note, ERR_UNSUPPORTED, "head_dim", "at most 512 with LongRoPE", NULL, (double)cfg->head_dim);
		if (!(cfg->rope_scaling.short_factor[i] > 0 && cfg->rope_scaling.short_factor[i] < 1e9f))
			return refuse(note, ERR_RANGE, "rope_scaling.short_factor", "positive numbers", NULL, (double)cfg->rope_scaling.short_factor[i]);
		if (!(cfg->rope_scaling.long_factor[i] > 0 && cfg->rope_scaling.long_factor[i] < 1e9f))
			return refuse(note, ERR_RANGE, "rope_scaling.long_factor", "positive numbers", NULL, (double)cfg->rope_scaling.long_factor[i]);
	}
	return 0;
}

static int
check_rope(const struct model_config *cfg, struct err_note *note)
{
	if (cfg->rotary_dim < 0 || cfg->rotary_dim > cfg->head_dim || cfg->rotary_dim % 2 != 0)
		return refuse(note, ERR_RANGE, "rotary_dim", "an even number up to head_dim", NULL, (double)cfg->rotary_dim);
	if (cfg->rotary_dim == 0 && cfg->head_dim % 2 != 0)
		return refuse(note, ERR_RANGE, "head_dim", "an even number (rotary embedding)", NULL, (double)cfg->head_dim);
	if (!(cfg->rope_theta > 0 && cfg->rope_theta < 1e30))
		return refuse(note, ERR_RANGE, "rope_theta", "a positive number", NULL, cfg->rope_theta);
	if (!(cfg->local_theta >= 0 && cfg->local_theta < 1e30))
		return refuse(note, ERR_RANGE, "local_theta", "a positive number, or 0", NULL, cfg->local_theta);
	if (cfg->rope_scaling.type == MODEL_ROPE_DEFAULT)
		return 0;
	if (cfg->rope_scaling.type != MODEL_ROPE_LLAMA3)
		return check_scaling(cfg, note);
	if (!(cfg->rope_scaling.factor >= 1 && cfg->rope_scaling.factor < 1e9))
		return refuse(note, ERR_RANGE, "rope_scaling.factor", "a number of at least 1", NULL, cfg->rope_scaling.factor);
	if (!(cfg->rope_scaling.low_freq_factor > 0 && cfg->rope_scaling.low_freq_factor < 1e9))
		return refuse(note, ERR_RANGE, "rope_scaling.low_freq_factor", "a positive number", NULL,
		    cfg->rope_scaling.low_freq_factor);
	if (!(cfg->rope_scaling.high_freq_factor > cfg->rope_scaling.low_freq_factor && cfg->rope_scaling.high_freq_factor < 1e9))
		return refuse(note, ERR_RANGE, "rope_scaling.high_freq_factor", "a number over low_freq_factor", NULL,
		    cfg->rope_scaling.high_freq_factor);
	if (cfg->rope_scaling.original_context < 1 || cfg->rope_scaling.original_context > MODEL_MAX_DIM)
		return refuse(note, ERR_RANGE, "rope_scaling.original_context", "1 to 2147483647", NULL,
		    (double)cfg->rope_scaling.original_context);
	return 0;
}

/* Rules that differ from family to family. */
static int
check_family(const struct model_config *cfg, const struct model_traits *t, struct err_note *note)
{
	if (t->whole_heads && cfg->n_kv_heads != cfg->n_heads)
		return refuse(note, ERR_UNSUPPORTED, "n_kv_heads", "n_heads", t, (double)cfg->n_kv_heads);
	if ((t->whole_heads || t->one_key_head) && cfg->n_heads * cfg->head_dim != cfg->d_model)
		return refuse(note, ERR_RANGE, "head_dim", "d_model / n_heads", t, (double)cfg->head_dim);
	if (t->one_key_head && cfg->n_kv_heads != 1)
		return refuse(note, ERR_UNSUPPORTED, "n_kv_heads", "1", t, (double)cfg->n_kv_heads);
	if (t->needs_attention_bias && !cfg->attention_bias)
		return refuse(note, ERR_UNSUPPORTED, "attention_bias", "true", t, 0);
	if (t->no_mlp_bias && cfg->mlp_bias)
		return refuse(note, ERR_UNSUPPORTED, "mlp_bias", "false", t, 1);
	if (t->shared_norm && !cfg->parallel_residual)
		return refuse(note, ERR_UNSUPPORTED, "parallel_residual", "true", t, 0);
	if (!t->parallel && cfg->parallel_residual)
		return refuse(note, ERR_UNSUPPORTED, "parallel_residual", "false", t, 1);
	if (!t->partial_rotary && cfg->rotary_dim != 0 && cfg->rotary_dim != cfg->head_dim)
		return refuse(note, ERR_UNSUPPORTED, "rotary_dim", "head_dim", t, (double)cfg->rotary_dim);
	if (t->gated && model_activation(cfg) != MODEL_SILU && model_activation(cfg) != MODEL_GELU_NEW)
		return refuse(note, ERR_UNSUPPORTED, "activation", "silu or gelu_new", t, cfg->activation);
	if (!t->gated && model_activation(cfg) == MODEL_SILU)
		return refuse(note, ERR_UNSUPPORTED, "activation", "gelu_new, gelu, relu or relu2", t, cfg->activation);
	return 0;
}

/* Factors, caps and windows. */
static int
check_features(const struct model_config *cfg, struct err_note *note)
{
	const struct {
		const char *name;
		float value;
	} factors[] = {
		{"embed_scale", cfg->embed_scale}, {"attention_scale", cfg->attention_scale}, {"residual_scale", cfg->residual_scale},
		{"output_scale", cfg->output_scale}, {"attention_cap", cfg->attention_cap}, {"logit_cap", cfg->logit_cap},
	};

	for (size_t i = 0; i < sizeof(factors) / sizeof(factors[0]); i++)
		if (!(factors[i].value >= 0 && factors[i].value < 1e9f))
			return refuse(note, ERR_RANGE, factors[i].name, "a positive number, or 0", NULL, (double)factors[i].value);
	if (cfg->window < 0 || cfg->window > MODEL_MAX_DIM)
		return refuse(note, ERR_RANGE, "window", "0 to 2147483647", NULL, (double)cfg->window);
	for (int i = 0; i < MODEL_MAX_LISTED && cfg->n_layers > MODEL_MAX_LISTED; i++)
		if (model_layer_local(cfg, i) || model_layer_nope(cfg, i))
			return refuse(note, ERR_UNSUPPORTED, "n_layers", "at most 1024 where layers differ", NULL, (double)cfg->n_layers);
	return 0;
}

int
model_config_check(const struct model_config *cfg, struct err_note *note)
{
	const struct {
		const char *name;
		int64_t value;
	} sizes[] = {
		{"vocab_size", cfg->vocab_size}, {"context", cfg->context}, {"d_model", cfg->d_model}, {"n_heads", cfg->n_heads},
		{"n_kv_heads", cfg->n_kv_heads}, {"head_dim", cfg->head_dim}, {"d_ff", cfg->d_ff},
	};
	const struct model_traits *traits = model_traits(cfg->family);
	int64_t n_params;
	int n_tensors, rc;

	if (traits == NULL)
		return refuse(note, ERR_UNSUPPORTED, "family", MODEL_FAMILY_NAMES, NULL, (double)cfg->family);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		if (sizes[i].value < 1 || sizes[i].value > MODEL_MAX_DIM)
			return refuse(note, ERR_RANGE, sizes[i].name, "1 to 2147483647", NULL, (double)sizes[i].value);
	if (cfg->n_layers < 1 || cfg->n_layers > MODEL_MAX_LAYERS)
		return refuse(note, ERR_RANGE, "n_layers", "1 to 10000", NULL, (double)cfg->n_layers);
	if (cfg->n_kv_heads > cfg->n_heads || cfg->n_heads % cfg->n_kv_heads != 0)
		return refuse(note, ERR_RANGE, "n_kv_heads", "a divisor of n_heads", NULL, (double)cfg->n_kv_heads);
	if (cfg->n_heads > MODEL_MAX_DIM / 3 / cfg->head_dim)	/* fused q, k, v are one matrix */
		return refuse(note, ERR_RANGE, "head_dim", "3 n_heads head_dim up to 2147483647", NULL, (double)cfg->head_dim);
	if (!(cfg->norm_eps > 0 && cfg->norm_eps < 1))
		return refuse(note, ERR_RANGE, "norm_eps", "a number over 0 and under 1", NULL, cfg->norm_eps);
	if (!(cfg->initializer_range >= 0 && cfg->initializer_range <= 1e3f))
		return refuse(note, ERR_RANGE, "initializer_range", "0 to 1000", NULL, cfg->initializer_range);
	if ((rc = check_family(cfg, traits, note)) != 0 || (rc = check_features(cfg, note)) != 0)
		return rc;
	if (traits->rope && (rc = check_rope(cfg, note)) != 0)
		return rc;
	if (!measure(cfg, &n_params, &n_tensors))
		return refuse(note, ERR_RANGE, "parameters", "as many as memory arithmetic holds", NULL, INFINITY);
	return 0;
}

/* ---- the table ---- */

static int
layer_slot(int layer, enum role role)
{
	return (layer + 1) * ROLE_COUNT + role;
}

static void
add_tensor(struct model *m, const struct model__row *row, int layer, const int64_t dims[DIM_COUNT])
{
	const struct model_config *cfg = &m->config;
	struct model_tensor *t = &m->tensors[m->n_tensors];

	/* A name contains at most one %d. */
	if (row->where == LAYER) {
		const char *mark = strstr(row->name, "%d");

		snprintf(t->name, sizeof(t->name), "%.*s%d%s", (int)(mark - row->name), row->name, layer, mark + 2);
	} else {
		snprintf(t->name, sizeof(t->name), "%s", row->name);
	}
	t->n_dims = row->dims[1] == DIM_NONE ? 1 : 2;
	t->n_elements = 1;
	for (int i = 0; i < t->n_dims; i++) {
		t->dims[i] = dims[row->dims[i]];
		t->n_elements *= t->dims[i];
	}
	t->offset = m->n_params;
	t->layer = layer;
	t->decay = t->n_dims == 2;
	t->n_matrices = t->n_dims < 2 || row->where != LAYER ? 0 : 1;
	if (row->role == ROLE_QKV_W && model_traits(cfg->family)->fused_qkv)
		t->n_matrices = 3;
	else if (row->role == ROLE_GATE_W && model_traits(cfg->family)->fused_gate)
		t->n_matrices = 2;
	t->role = row->role;
	if (row->start == NORMAL)
		t->init_std = cfg->initializer_range;
	else if (row->start == RESIDUAL)
		t->init_std = (float)(cfg->initializer_range / sqrt(2.0 * (double)cfg->n_layers));
	t->init_value = row->start == GAIN && !model_traits(cfg->family)->unit_gain ? 1.0f : 0.0f;
	m->role_tensor[layer_slot(layer, row->role)] = m->n_tensors;
	m->n_params += t->n_elements;
	m->n_tensors++;
}

int
model_new(struct model **model, const struct model_config *cfg, struct err_note *note)
{
	struct model *m = NULL;
	const struct model__row *rows;
	int64_t dims[DIM_COUNT], n_params;
	size_t n_slots, n_rows;
	int n_tensors, rc;

	*model = NULL;
	if ((rc = model_config_check(cfg, note)) != 0)
		return rc;
	rows = model__rows(cfg->family, &n_rows);
	measure(cfg, &n_params, &n_tensors);
	n_slots = (size_t)(cfg->n_layers + 2) * ROLE_COUNT;
	if ((m = mem_alloc(1, sizeof(*m))) == NULL || (m->tensors = mem_alloc((size_t)n_tensors, sizeof(m->tensors[0]))) == NULL ||
	    (m->role_tensor = mem_alloc(n_slots, sizeof(m->role_tensor[0]))) == NULL) {
		model_destroy(&m);
		return err_note_set(note, ENOMEM, "table of %d tensors", n_tensors);
	}
	m->config = *cfg;
	for (size_t i = 0; i < n_slots; i++)
		m->role_tensor[i] = -1;
	dims_of(cfg, dims);
	for (int layer = -1; layer <= cfg->n_layers; layer++) {
		enum model__where where = layer < 0 ? BEFORE : layer < cfg->n_layers ? LAYER : AFTER;

		for (size_t i = 0; i < n_rows; i++)
			if (rows[i].where == where && row_present(cfg, &rows[i]))
				add_tensor(m, &rows[i], layer, dims);
	}
	*model = m;
	return 0;
}

struct model_matrix
model_matrix(const struct model *m, int tensor, int i)
{
	const struct model_tensor *t = &m->tensors[tensor];
	struct model_matrix x = {.begin = t->offset, .rows = t->dims[0], .cols = t->dims[1], .ld = t->dims[1], .group = t->dims[0],
	    .group_stride = t->n_elements};

	if (t->n_matrices == 1)
		return x;
	if (model_traits(m->config.family)->mixed_heads) {		/* rows are [H, 3, D] */
		x.rows /= 3;
		x.group = m->config.head_dim;
		x.group_stride = 3 * x.group * x.ld;
		x.begin += i * x.group * x.ld;
	} else if (model_traits(m->config.family)->layout == KERNELS_IN_OUT) {
		x.cols /= 3;
		x.begin += i * x.cols;
	} else if (t->n_matrices == 2) {
		x.rows /= 2;
		x.group = x.rows;
		x.begin += i * x.rows * x.ld;
	} else {						/* rows are [H + K + K, D] */
		int64_t q = m->config.n_heads * m->config.head_dim, kv = m->config.n_kv_heads * m->config.head_dim;

		x.rows = i == 0 ? q : kv;
		x.group = x.rows;
		x.begin += (i == 0 ? 0 : i == 1 ? q : q + kv) * x.ld;
	}
	return x;
}

void
model_destroy(struct model **model)
{
	if (*model == NULL)
		return;
	free((*model)->tensors);
	free((*model)->role_tensor);
	free(*model);
	*model = NULL;
}

void
model_bind(struct model *model, void *params, enum dtype dtype)
{
	model->params = params;
	model->dtype = dtype;
	model_changed(model);
}

void
model_changed(struct model *model)
{
	static atomic_uint_fast64_t drawn;		/* unique in the process, because the array may have
							 * belonged to another model */

	model->generation = atomic_fetch_add_explicit(&drawn, 1, memory_order_relaxed) + 1;
}

int
model__tensor(const struct model *m, int layer, enum role role)
{
	return m->role_tensor[layer_slot(layer, role)];
}

/* ---- views ---- */

static struct tensor
view(const struct model *m, void *base, enum dtype dtype, int layer, enum role role)
{
	int i = model__tensor(m, layer, role);
	struct tensor v = {.dtype = dtype};

	if (i < 0)
		return v;
	v.data = (char *)base + (size_t)m->tensors[i].offset * dtype_size(dtype);
	v.n_dims = m->tensors[i].n_dims;
	memcpy(v.dims, m->tensors[i].dims, sizeof(v.dims));
	return v;
}

void
model__layer_views(const struct model *m, void *base, enum dtype dtype, int layer, struct model__layer *out)
{
	const struct model_config *cfg = &m->config;
	int64_t qkv = (cfg->n_heads + 2 * cfg->n_kv_heads) * cfg->head_dim;
	const struct {
		struct tensor *to;
		enum role role;
	} map[] = {
		{&out->norm1_g, ROLE_NORM1_G}, {&out->norm1_b, ROLE_NORM1_B}, {&out->qkv_w, ROLE_QKV_W}, {&out->qkv_b, ROLE_QKV_B},
		{&out->query_norm_g, ROLE_QUERY_NORM_G}, {&out->key_norm_g, ROLE_KEY_NORM_G},
		{&out->proj_w, ROLE_PROJ_W}, {&out->proj_b, ROLE_PROJ_B}, {&out->post1_g, ROLE_POST1_G}, {&out->post2_g, ROLE_POST2_G},
		{&out->norm2_g, ROLE_NORM2_G}, {&out->norm2_b, ROLE_NORM2_B},
		{&out->gate_w, ROLE_GATE_W}, {&out->gate_b, ROLE_GATE_B}, {&out->up_w, ROLE_UP_W}, {&out->up_b, ROLE_UP_B},
		{&out->down_w, ROLE_DOWN_W}, {&out->down_b, ROLE_DOWN_B},
	};

	for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		*map[i].to = view(m, base, dtype, layer, map[i].role);
	out->qkv_w.dims[model_traits(cfg->family)->layout == KERNELS_OUT_IN ? 0 : 1] = qkv;	/* stored separately, used as one matrix */
	out->qkv_b.dims[0] = qkv;
	if (model_traits(cfg->family)->fused_gate) {
		out->gate_w.dims[0] = cfg->d_ff;
		out->up_w = out->gate_w;
		out->up_w.data = (char *)out->gate_w.data + (size_t)(cfg->d_ff * cfg->d_model) * dtype_size(dtype);
	}
}

void
model__ends_views(const struct model *m, void *base, enum dtype dtype, struct model__ends *out)
{
	int after = (int)m->config.n_layers;

	out->token_embed = view(m, base, dtype, -1, ROLE_TOKEN_EMBED);
	out->position_embed = view(m, base, dtype, -1, ROLE_POSITION_EMBED);
	if (out->position_embed.data != NULL) {
		int64_t skip = model_traits(m->config.family)->position_offset;

		out->position_embed.data = (char *)out->position_embed.data + (size_t)(skip * m->config.d_model) * dtype_size(dtype);
		out->position_embed.dims[0] -= skip;
	}
	out->output_b = view(m, base, dtype, after, ROLE_OUTPUT_B);
	out->final_g = view(m, base, dtype, after, ROLE_FINAL_G);
	out->final_b = view(m, base, dtype, after, ROLE_FINAL_B);
	out->output_w = m->config.tied ? out->token_embed : view(m, base, dtype, after, ROLE_OUTPUT_W);
}
