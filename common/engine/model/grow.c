/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/model/grow.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpus/cpus.h"
#include "base/mem/mem.h"
#include "base/random/random.h"
#include "engine/model/model_internal.h"

/* A dimension of the grown model. */
struct axis {
	int64_t n, n_from;		/* sizes here and in the small model */
	int64_t *from;			/* [n] the element that it copies; -1: it copies none, see grow.h */
	int64_t *next;			/* [n] the next copy of the same element; after the last, the first */
	int64_t *copies;		/* [n] the number of copies of this element */
};

/* A tensor of the grown model. */
struct part {
	const float *values;		/* the small tensor */
	const struct axis *axes[2];	/* rows and columns */
	int reads;			/* the axis that products sum over; -1: there is none */
	bool writes;			/* products write into the residual stream */
	double scale;			/* 0 in the projections of an inserted layer */
	double deviation;		/* of the small tensor's values; for noise and random weights */
	float fill;			/* value of a norm's gain at elements that copy none */
};

struct model_growth {
	struct model *model;
	const struct model *from;
	struct model_growth_options options;
	int64_t whole;			/* leading elements of the residual stream that are copies */
	struct axis axes[DIM_COUNT];
	struct part *parts;		/* [n_tensors] */
};

/* ---- configuration ---- */

static int
at_least(const char *name, int64_t found, int64_t least, struct err_note *note)
{
	return found >= least ? 0 :
				err_expect(note, ERR_RANGE, "%s", "at least the small model's %" PRId64,
				    "%" PRId64, name, least, found);
}

static int
config_of(const struct model_config *from, const struct model_growth_options *o, struct model_config *to,
    struct err_note *note)
{
	const struct model_traits *traits = model_traits(from->family);
	const struct model_config plain = {.nope_layers = {0}};
	int64_t heads;
	int rc;

	if (!traits->grows || from->window > 0 || memcmp(from->nope_layers, plain.nope_layers, sizeof(plain.nope_layers)) != 0)
		return err_expect(note, ERR_UNSUPPORTED, "family", "llama, gpt2, qwen2, qwen3 or gpt_neox, without a sliding window",
		    "%s%s", traits->name, traits->grows ? ", whose layers differ" : "");
	*to = *from;
	to->n_layers = o->layers != 0 ? o->layers : from->n_layers;
	to->d_model = o->width != 0 ? o->width : from->d_model;
	if ((rc = at_least("layers", to->n_layers, from->n_layers, note)) != 0 ||
	    (rc = at_least("width", to->d_model, from->d_model, note)) != 0)
		return rc;
	if (o->stack && to->n_layers % from->n_layers != 0)
		return err_expect(note, ERR_RANGE, "layers",
		    "a multiple of the small model's %" PRId64 ": stack repeats all of them", "%" PRId64,
		    from->n_layers, to->n_layers);
	if (traits->qk_norm && to->d_model % from->d_model != 0)
		return err_expect(note, ERR_RANGE, "width",
		    "a multiple of the small model's %" PRId64
		    " in family %s, whose heads are normalised with the same norm_eps",
		    "%" PRId64, from->d_model, traits->name, to->d_model);
	if ((o->heads == 0 || traits->whole_heads) && to->d_model * from->n_heads % from->d_model != 0)
		return err_expect(note, ERR_RANGE, "width",
		    "a width for a whole number of heads (the small model has %" PRId64 " in %" PRId64 ")%s",
		    "%" PRId64, from->n_heads, from->d_model,
		    traits->whole_heads ? "" : ", or heads set as well", to->d_model);
	to->n_heads = o->heads != 0 ? o->heads : to->d_model * from->n_heads / from->d_model;
	if ((rc = at_least("heads", to->n_heads, from->n_heads, note)) != 0)
		return rc;
	if (traits->whole_heads && to->n_heads * from->head_dim != to->d_model)
		return err_expect(note, ERR_RANGE, "heads",
		    "%" PRId64 ": heads of %" PRId64 " fill the width in family %s", "%" PRId64,
		    to->d_model / from->head_dim, from->head_dim, traits->name, to->n_heads);
	if (from->family == MODEL_FAMILY_LLAMA && from->d_model % from->n_heads == 0 &&
	    to->d_model % to->n_heads != 0)
		return err_expect(note, ERR_RANGE, "heads",
		    "a divisor of the width %" PRId64 " (transformers requires it)", "%" PRId64,
		    to->d_model, to->n_heads);
	heads = to->n_heads * from->n_kv_heads; /* groups as large as the small model's, if that divides */
	if (o->kv_heads == 0 && heads % from->n_heads != 0)
		return err_expect(note, ERR_RANGE, "heads",
		    "a multiple of the %" PRId64 " that share a key/value head, or kv-heads set as well",
		    "%" PRId64, from->n_heads / from->n_kv_heads, to->n_heads);
	to->n_kv_heads = o->kv_heads != 0 ? o->kv_heads : heads / from->n_heads;
	if ((rc = at_least("kv-heads", to->n_kv_heads, from->n_kv_heads, note)) != 0)
		return rc;
	if (to->n_heads % to->n_kv_heads != 0)
		return err_expect(note, ERR_RANGE, "kv-heads", "a divisor of the %" PRId64 " heads",
		    "%" PRId64, to->n_heads, to->n_kv_heads);
	to->d_ff = o->ff != 0 ? o->ff : (to->d_model * from->d_ff + from->d_model - 1) / from->d_model;
	if ((rc = at_least("ff", to->d_ff, from->d_ff, note)) != 0)
		return rc;
	if (to->d_model % from->d_model != 0)
		to->norm_eps = (float)(from->norm_eps *
		    (1 - (double)(to->d_model % from->d_model) / (double)to->d_model));
	return model_config_check(to, note);
}

/* ---- dimensions ---- */

static int
axis_make(struct axis *x, int64_t n, int64_t n_from)
{
	x->n = n;
	x->n_from = n_from;
	x->from = mem_alloc((size_t)n, sizeof(*x->from));
	x->next = mem_alloc((size_t)n, sizeof(*x->next));
	x->copies = mem_alloc((size_t)n, sizeof(*x->copies));
	if (x->from == NULL || x->next == NULL || x->copies == NULL)
		return ENOMEM;
	for (int64_t i = 0; i < n; i++)
		x->from[i] = i % n_from;
	return 0;
}

/*
 * Links the copies of each element in a ring, whatever order from has. Returns false if an element has no
 * copy.
 */
static bool
axis_join(struct axis *x, int64_t *last)
{
	int64_t *count = last + x->n_from; /* last, count: [n_from] */
	bool all = true;

	for (int64_t k = 0; k < 2 * x->n_from; k++)
		last[k] = k < x->n_from ? -1 : 0;
	for (int64_t i = 0; i < x->n; i++) {
		int64_t k = x->from[i];

		if (k < 0)
			continue;
		/* The last copy points to the first; a new one goes between them. */
		x->next[i] = last[k] < 0 ? i : x->next[last[k]];
		if (last[k] >= 0)
			x->next[last[k]] = i;
		last[k] = i;
		count[k]++;
	}
	for (int64_t i = 0; i < x->n; i++)
		x->copies[i] = x->from[i] >= 0 ? count[x->from[i]] : 1;
	for (int64_t k = 0; k < x->n_from; k++)
		all = all && count[k] > 0;
	return all;
}

/*
 * The small model's head that query head h copies. Its key/value head must be a copy of the one that the
 * small head reads. Where the group size differs, a copy of a group continues where the copy before it ended.
 */
static int64_t
query_from(const struct model_config *to, const struct model_config *from, int64_t h)
{
	int64_t group = to->n_heads / to->n_kv_heads, small = from->n_heads / from->n_kv_heads;
	int64_t kv = h / group, copy = kv / from->n_kv_heads;

	return kv % from->n_kv_heads * small + (copy * group + h % group) % small;
}

static int
make_axes(struct model_growth *g, struct err_note *note)
{
	const struct model_config *to = &g->model->config, *from = &g->from->config;
	const struct model_traits *traits = model_traits(to->family);
	struct axis *x = g->axes, *qkv = &g->axes[DIM_QKV];
	int64_t d = to->head_dim, q = to->n_heads * d, kv = to->n_kv_heads * d, q_from = from->n_heads * d,
		kv_from = from->n_kv_heads * d;
	int64_t largest = 1, *scratch;

	if (axis_make(&x[DIM_NONE], 1, 1) != 0 ||
	    axis_make(&x[DIM_V], to->vocab_size, from->vocab_size) != 0 ||
	    axis_make(&x[DIM_CONTEXT], to->context, from->context) != 0 ||
	    axis_make(&x[DIM_C], to->d_model, from->d_model) != 0 ||
	    axis_make(&x[DIM_F], to->d_ff, from->d_ff) != 0 || axis_make(&x[DIM_QN], d, d) != 0 ||
	    axis_make(&x[DIM_KN], d, d) != 0 || axis_make(&x[DIM_2F], 2 * to->d_ff, 2 * from->d_ff) != 0 ||
	    axis_make(&x[DIM_Q], q, q_from) != 0 || axis_make(&x[DIM_KV], kv, kv_from) != 0 ||
	    axis_make(qkv, q + 2 * kv, q_from + 2 * kv_from) != 0)
		return err_note_set(note, ENOMEM, "dimensions");
	for (int64_t i = g->whole; i < to->d_model; i++)
		x[DIM_C].from[i] = -1;
	for (int64_t i = 0; i < q; i++)
		x[DIM_Q].from[i] = query_from(to, from, i / d) * d + i % d;
	/*
	 * A fused matrix has q, k and v side by side; with mixed heads it has whole heads, which axis_make
	 * sets.
	 */
	for (int64_t i = 0; i < qkv->n && !traits->mixed_heads; i++)
		qkv->from[i] = i < q ? x[DIM_Q].from[i] :
		    i < q + kv	     ? q_from + x[DIM_KV].from[i - q] :
				       q_from + kv_from + x[DIM_KV].from[i - q - kv];
	for (int i = 0; i < DIM_COUNT; i++)
		largest = x[i].n_from > largest ? x[i].n_from : largest;
	if ((scratch = mem_alloc((size_t)largest, 2 * sizeof(*scratch))) == NULL)
		return err_note_set(note, ENOMEM, "dimensions");
	for (int i = 0; i < DIM_COUNT; i++) {
		if (!axis_join(&x[i], scratch)) { /* only queries can fail */
			free(scratch);
			return err_expect(note, ERR_RANGE, "kv-heads",
			    "groups that hold all %" PRId64 " small heads", "groups of %" PRId64 " heads",
			    from->n_heads, to->n_heads / to->n_kv_heads);
		}
	}
	free(scratch);
	return 0;
}

/* ---- tensors ---- */

/* The layer that layer t copies. *inserted: the layer starts as identity. */
static int
layer_from(const struct model_growth *g, int t, bool *inserted)
{
	int64_t n = g->model->config.n_layers, n_from = g->from->config.n_layers;

	*inserted = false;
	if (t < 0 || t == n)
		return t < 0 ? t : (int)n_from;
	if (g->options.stack)
		return (int)(t % n_from);
	*inserted = t > 0 && t * n_from / n == (t - 1) * n_from / n;
	return (int)(t * n_from / n);
}

/* The axis that a product with this matrix sums over. */
static int
read_axis(const struct model_config *cfg, const struct model__row *row)
{
	if (row->dims[1] == DIM_NONE || row->role == ROLE_TOKEN_EMBED || row->role == ROLE_POSITION_EMBED)
		return -1;
	return row->role == ROLE_OUTPUT_W || model_traits(cfg->family)->layout == KERNELS_OUT_IN ? 1 : 0;
}

static double
deviation(const float *x, int64_t n)
{
	double sum = 0, squares = 0;

	for (int64_t i = 0; i < n; i++) {
		sum += x[i];
		squares += (double)x[i] * x[i];
	}
	return sqrt(fmax(0, squares / (double)n - sum / (double)n * (sum / (double)n)));
}

static void
make_part(struct model_growth *g, const float *params, const struct model__row *row, int layer)
{
	const struct model_config *to = &g->model->config;
	struct part *p = &g->parts[model__tensor(g->model, layer, row->role)];
	bool inserted;
	const struct model_tensor
	    *t = &g->from->tensors[model__tensor(g->from, layer_from(g, layer, &inserted), row->role)];

	p->values = params + t->offset;
	p->axes[0] = &g->axes[row->dims[0]];
	p->axes[1] = &g->axes[row->dims[1]];
	p->reads = read_axis(to, row);
	p->scale = 1;
	switch ((int)row->role) {
	case ROLE_PROJ_W:
	case ROLE_PROJ_B:
	case ROLE_DOWN_W:
	case ROLE_DOWN_B:
		p->scale = inserted ? 0 : 1;
		p->writes = true;
		break;
	case ROLE_TOKEN_EMBED:
	case ROLE_POSITION_EMBED:
		p->writes = true;
		break;
	case ROLE_FINAL_G:
	case ROLE_FINAL_B:
		if (to->tied)
			p->scale = (double)g->from->config.d_model / (double)g->whole;
	}
	if (row->role == ROLE_NORM1_G || row->role == ROLE_NORM2_G || row->role == ROLE_FINAL_G)
		p->fill = (float)(p->scale *= sqrt((double)g->whole / (double)to->d_model));
	if (p->reads >= 0)
		p->deviation = deviation(p->values, t->n_elements);
}

int
model_growth_new(struct model_growth **out, const struct model *from, const float *params,
    const struct model_growth_options *o, struct err_note *note)
{
	struct model_growth *g = mem_alloc(1, sizeof(*g));
	const struct model__row *rows;
	struct model_config cfg;
	size_t n_rows;
	int rc = ENOMEM;

	*out = NULL;
	if (g == NULL)
		return err_note_set(note, ENOMEM, "growth");
	g->from = from;
	g->options = *o;
	if ((rc = config_of(&from->config, o, &cfg, note)) != 0 ||
	    (rc = model_new(&g->model, &cfg, note)) != 0)
		goto out;
	if (g->model->n_params == from->n_params) {
		rc = err_expect(note, ERR_RANGE, "layers, width, heads or ff",
		    "one that is larger than the small model's", "none");
		goto out;
	}
	if (o->noise > 0 && cfg.d_model == from->config.d_model && cfg.n_heads == from->config.n_heads &&
	    cfg.d_ff == from->config.d_ff) {
		rc = err_expect(note, ERR_RANGE, "noise",
		    "0, because no dimension that a matrix reads is cloned", "%g", (double)o->noise);
		goto out;
	}
	g->whole = cfg.d_model - cfg.d_model % from->config.d_model;
	if ((g->parts = mem_alloc((size_t)g->model->n_tensors, sizeof(*g->parts))) == NULL) {
		rc = err_note_set(note, ENOMEM, "table of %d tensors", g->model->n_tensors);
		goto out;
	}
	if ((rc = make_axes(g, note)) != 0)
		goto out;
	rows = model__rows(cfg.family, &n_rows);
	for (int layer = -1; layer <= cfg.n_layers; layer++)
		for (size_t i = 0; i < n_rows; i++)
			if (model__tensor(g->model, layer, rows[i].role) >= 0)
				make_part(g, params, &rows[i], layer);
	*out = g;
	g = NULL;
out:
	model_growth_destroy(&g);
	return rc;
}

void
model_growth_destroy(struct model_growth **g)
{
	if (*g == NULL)
		return;
	for (int i = 0; i < DIM_COUNT; i++) {
		free((*g)->axes[i].from);
		free((*g)->axes[i].next);
		free((*g)->axes[i].copies);
	}
	free((*g)->parts);
	model_destroy(&(*g)->model);
	free(*g);
	*g = NULL;
}

const struct model *
model_growth_model(const struct model_growth *g)
{
	return g->model;
}

/* ---- values ---- */

/* A standard normal number for element e. */
static double
normal(const struct model_growth *g, int tensor, int64_t e)
{
	uint64_t pair = (uint64_t)e >> 1;
	uint32_t words[4];
	float z[2];

	random_words(g->options.seed, RANDOM_PURPOSE_GROW, (uint64_t)tensor, (uint32_t)pair,
	    (uint32_t)(pair >> 32), words);
	random_normal(words[0], words[1], z);
	return z[e & 1];
}

/*
 * Noise of element e, at index i of the axis that is read. The mean over the copies is subtracted, so that
 * the noise of all copies adds up to zero; the result is scaled to standard deviation 1.
 */
static double
noise(const struct model_growth *g, int tensor, int64_t e, int64_t i)
{
	const struct part *p = &g->parts[tensor];
	const struct axis *x = p->axes[p->reads];
	int64_t step = p->reads == 0 ? p->axes[1]->n : 1;
	double n = (double)x->copies[i], mean = 0;

	for (int64_t j = x->next[i];; j = x->next[j]) {
		mean += normal(g, tensor, e + (j - i) * step) / n;
		if (j == i)
			break;
	}
	return sqrt(n / (n - 1)) * (normal(g, tensor, e) - mean);
}

/* The value, before the division by copies, of an element that copies none: row or column is -1. */
static double
added(const struct model_growth *g, int tensor, int64_t e, int64_t row, int64_t column)
{
	const struct part *p = &g->parts[tensor];
	int out = row < 0 ? 0 : 1;
	int64_t n = p->axes[out]->n_from;
	double sum = 0;

	if (p->reads == out) /* the copies' standard deviation */
		return p->deviation * (double)n / (double)g->whole * normal(g, tensor, e);
	if (!p->writes)
		return p->fill;
	if (model_traits(g->model->config.family)->rms)
		return 0;
	for (int64_t i = 0; i < n; i++)
		sum += p->values[(out == 0 ? i : row) * p->axes[1]->n_from + (out == 1 ? i : column)];
	return p->scale * sum / (double)n;
}

static float
value(const struct model_growth *g, int tensor, int64_t e)
{
	const struct part *p = &g->parts[tensor];
	int64_t at[2] = {e / p->axes[1]->n, e % p->axes[1]->n}, copies;
	int64_t row = p->axes[0]->from[at[0]], column = p->axes[1]->from[at[1]];
	double v;

	copies = p->reads >= 0 ? p->axes[p->reads]->copies[at[p->reads]] : 1;
	if (row < 0 || column < 0)
		return (float)(added(g, tensor, e, row, column) / (double)copies);
	v = p->scale * p->values[row * p->axes[1]->n_from + column];
	if (p->reads >= 0 && copies > 1 && g->options.noise > 0)
		v += p->scale * g->options.noise * p->deviation * noise(g, tensor, e, at[p->reads]);
	return (float)(v / (double)copies);
}

void
model_growth_read(const struct model_growth *g, int64_t begin, int64_t end, float *out)
{
	int threads = cpus_here();

	for (int i = 0; i < g->model->n_tensors; i++) {
		const struct model_tensor *t = &g->model->tensors[i];
		int64_t from = begin > t->offset ? begin : t->offset;
		int64_t to = end < t->offset + t->n_elements ? end : t->offset + t->n_elements;

#pragma omp parallel for num_threads(threads) schedule(static) if (to - from > 1 << 16)
		for (int64_t at = from; at < to; at++)
			out[at - begin] = value(g, i, at - t->offset);
	}
}
