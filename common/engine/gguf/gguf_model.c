/* SPDX-License-Identifier: Apache-2.0 */
/* A GGUF file as a Llama model: configuration, names of tensors, order of rows. */
#include "engine/gguf/gguf_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"
#include "engine/model/model.h"

#define ROPE_FREQS "rope_freqs.weight"

struct gguf_model {
	const struct gguf *g;
	const struct model *model;
	const struct gguf_tensor **from;	/* for each tensor of the table, where it comes from */
};

/* ---- configuration ---- */

static const char *const sizes[] = {
	"llama.context_length", "llama.embedding_length", "llama.block_count", "llama.feed_forward_length", "llama.attention.head_count",
};

/* Read elsewhere, or without effect on the outputs of a model. */
static const char *const others[] = {
	"llama.attention.head_count_kv", "llama.attention.key_length", "llama.attention.value_length", "llama.rope.dimension_count",
	"llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base", "llama.vocab_size", "llama.rope.scaling.type",
	"llama.rope.scaling.original_context_length", "llama.rope.scaling.finetuned", "llama.tensor_data_layout",
};

/* Supported at one value only. */
static const struct {
	const char *key;
	double value;
} neutral[] = {
	{"llama.rope.scaling.factor", 1}, {"llama.rope.scale_linear", 1}, {"llama.rope.scaling.attn_factor", 1}, {"llama.expert_count", 0},
	{"llama.expert_used_count", 0}, {"llama.attention.sliding_window", 0}, {"llama.logit_scale", 1}, {"llama.residual_scale", 1},
	{"llama.embedding_scale", 1}, {"llama.attention.clamp_kqv", 0}, {"llama.attention.max_alibi_bias", 0},
	{"llama.attention.scale", 0},
};

static bool
known(const char *key)
{
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		if (strcmp(key, sizes[i]) == 0)
			return true;
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (strcmp(key, others[i]) == 0)
			return true;
	for (size_t i = 0; i < sizeof(neutral) / sizeof(neutral[0]); i++)
		if (strcmp(key, neutral[i].key) == 0)
			return true;
	return false;
}

static int
check_keys(const struct gguf *g, struct err_note *note)
{
	struct gguf__text type;
	double v;

	for (size_t i = 0; i < sizeof(neutral) / sizeof(neutral[0]); i++) {
		const char *key = neutral[i].key;
		char expected[32];

		if (gguf__pair(g, key) == NULL)
			continue;
		snprintf(expected, sizeof(expected), "%g", neutral[i].value);
		if (!gguf__num(gguf__pair(g, key), &v))
			return gguf__bad_kind(g, note, key, "a number");
		if (!(v == neutral[i].value))
			return gguf__bad(g, note, ERR_UNSUPPORTED, key, expected, "%g", v);
	}
	if (gguf__pair(g, "llama.rope.scaling.type") != NULL) {
		if (!gguf__text(gguf__pair(g, "llama.rope.scaling.type"), &type))
			return gguf__bad_kind(g, note, "llama.rope.scaling.type", "a string");
		if (!gguf__is(&type, "none"))
			return gguf__bad(g, note, ERR_UNSUPPORTED, "llama.rope.scaling.type", "none", "%.*s",
			    (int)(type.len < 100 ? type.len : 100), type.s);
	}
	for (size_t i = 0; i < g->n_pairs; i++)
		if (strncmp(g->pairs[i].key, "llama.", 6) == 0 && !known(g->pairs[i].key))
			return gguf__bad(g, note, ERR_UNSUPPORTED, g->pairs[i].key, "a key that is known here", "%s of kind %s",
			    "one that may change outputs,", gguf__kind_name(g->pairs[i].kind));
	return 0;
}

/* An integer above 0; if absent, `otherwise`, unless that is 0. */
static int
size_key(const struct gguf *g, const char *key, int64_t otherwise, int64_t *out, struct err_note *note)
{
	int64_t v;

	*out = otherwise;
	if (gguf__pair(g, key) == NULL && otherwise != 0)
		return 0;
	if (!gguf__int(gguf__pair(g, key), &v))
		return gguf__bad_kind(g, note, key, "an integer");
	if (v < 1 || v > MODEL_MAX_DIM)
		return gguf__bad(g, note, ERR_RANGE, key, "1 to 2147483647", "%" PRId64, v);
	*out = v;
	return 0;
}

static int
id_key(const struct gguf *g, const char *key, int64_t vocab_size, int64_t *out, struct err_note *note)
{
	*out = -1;
	if (gguf__pair(g, key) == NULL)
		return 0;
	if (!gguf__int(gguf__pair(g, key), out))
		return gguf__bad_kind(g, note, key, "a token id");
	if (*out < 0 || *out == UINT32_MAX)		/* how "none" is written */
		*out = -1;
	if (*out >= vocab_size)
		return gguf__bad(g, note, ERR_RANGE, key, "an id of the vocabulary", "%" PRId64, *out);
	return 0;
}

/* The factor by which llama3 scaling divides a frequency (Hugging Face, modeling_rope_utils, rope_type "llama3"). */
static double
llama3_divisor(const struct model_config *cfg, double factor, int64_t pair)
{
	double wavelength = 2 * M_PI * pow(cfg->rope_theta, 2.0 * (double)pair / (double)cfg->head_dim), smooth;
	double original = (double)cfg->rope_scaling.original_context, low = cfg->rope_scaling.low_freq_factor;
	double high = cfg->rope_scaling.high_freq_factor;

	if (wavelength < original / high)
		return 1;
	if (wavelength > original / low)
		return factor;
	smooth = (original / wavelength - low) / (high - low);
	return 1 / ((1 - smooth) / factor + smooth);
}

/* The first of n divisors that llama3 scaling with cfg's numbers does not give, within 1e-4 of it; n: all are given. */
static size_t
first_other(const struct model_config *cfg, const float *divisors, size_t n)
{
	size_t i = 0;

	while (i < n) {
		double want = llama3_divisor(cfg, cfg->rope_scaling.factor, (int64_t)i);

		if (!(fabs((double)divisors[i] - want) <= 1e-4 * want))
			break;
		i++;
	}
	return i;
}

/*
 * rope_freqs.weight holds the divisor of each frequency, not the four parameters it was computed from. Llama 3.1, 3.2 and 3.3 all use
 * 1, 4 and 8192 for three of them; the fourth is the last divisor. Other models may have another original context, a power of two.
 * Accepted if all divisors follow from these, else refused.
 */
static int
read_rope_freqs(const struct gguf *g, struct model_config *cfg, struct err_note *note)
{
	static const int64_t originals[] = {8192, 1024, 2048, 4096, 16384, 32768, 65536, 131072};
	const struct gguf_tensor *t = gguf_find(g, ROPE_FREQS);
	size_t n = (size_t)cfg->head_dim / 2, other;
	float *divisors;
	int rc;

	if (t == NULL)
		return 0;
	if (t->n_elements != n || n == 0)
		return err_expect_at(note, ERR_MISMATCH, "%s", "tensor " ROPE_FREQS, "%zu elements, one a rotary pair", "%" PRIu64, g->path, n,
		    t->n_elements);
	if ((divisors = mem_alloc(n, sizeof(*divisors))) == NULL)
		return err_note_set(note, ENOMEM, "%s", g->path);
	if ((rc = gguf_read_f32(t, 0, n, divisors, note)) != 0)
		goto out;
	cfg->rope_scaling.llama3 = true;
	cfg->rope_scaling.low_freq_factor = 1;
	cfg->rope_scaling.high_freq_factor = 4;
	cfg->rope_scaling.factor = (double)divisors[n - 1];
	for (size_t i = 0; i < sizeof(originals) / sizeof(originals[0]); i++) {
		cfg->rope_scaling.original_context = originals[i];
		if (first_other(cfg, divisors, n) == n)
			goto out;
	}
	cfg->rope_scaling.original_context = originals[0];
	other = first_other(cfg, divisors, n);
	rc = err_expect_at(note, ERR_UNSUPPORTED, "%s", "tensor " ROPE_FREQS ", element %zu",
	    "%g, as llama3 scaling (1, 4, 8192) by %g gives", "%g, which no original context from 1024 to 131072 gives either; the model's folder "
	    "of safetensors may state its scaling", g->path, other, llama3_divisor(cfg, cfg->rope_scaling.factor, (int64_t)other),
	    cfg->rope_scaling.factor, (double)divisors[other]);
out:
	free(divisors);
	return rc;
}

/* The vocabulary size is that of the embedding; more tokens, or another stated size, are an error. */
static int
read_vocab_size(const struct gguf *g, struct model_config *cfg, struct err_note *note)
{
	const struct gguf_tensor *embedding = gguf_find(g, "token_embd.weight");
	const struct gguf__pair *tokens = gguf__pair(g, "tokenizer.ggml.tokens");
	char expected[64];
	int64_t v;

	if (embedding == NULL || embedding->n_dims != 2 || embedding->dims[1] > MODEL_MAX_DIM)
		return err_expect_at(note, embedding == NULL ? ERR_NOT_FOUND : ERR_MISMATCH, "%s",
		    "tensor token_embd.weight", "a matrix of embeddings", "%s", g->path,
		    embedding == NULL ? "nothing" : "another shape");
	cfg->vocab_size = (int64_t)embedding->dims[1];
	snprintf(expected, sizeof(expected), "%" PRId64 " as in token_embd.weight", cfg->vocab_size);
	if (gguf__int(gguf__pair(g, "llama.vocab_size"), &v) && v != cfg->vocab_size)
		return gguf__bad(g, note, ERR_MISMATCH, "llama.vocab_size", expected, "%" PRId64, v);
	if (tokens != NULL && tokens->kind == GGUF__ARRAY && tokens->count > (uint64_t)cfg->vocab_size)
		return gguf__bad(g, note, ERR_MISMATCH, "tokenizer.ggml.tokens", expected, "%" PRIu64, tokens->count);
	return 0;
}

static int
check_head_dim(const struct gguf *g, const struct model_config *cfg, struct err_note *note)
{
	static const char *const keys[] = {"llama.attention.value_length", "llama.rope.dimension_count"};
	char expected[64];
	int64_t v;
	int rc;

	snprintf(expected, sizeof(expected), "%" PRId64 ", as long as a head", cfg->head_dim);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if ((rc = size_key(g, keys[i], cfg->head_dim, &v, note)) != 0)
			return rc;
		if (v != cfg->head_dim)
			return gguf__bad(g, note, ERR_UNSUPPORTED, keys[i], expected, "%" PRId64, v);
	}
	return 0;
}

int
gguf_config(const struct gguf *g, struct model_config *out, struct err_note *note)
{
	struct model_config cfg = {.family = MODEL_FAMILY_LLAMA, .initializer_range = 0.02f};
	int64_t *const to[] = {&cfg.context, &cfg.d_model, &cfg.n_layers, &cfg.d_ff, &cfg.n_heads};
	struct gguf__text arch;
	double eps, theta = 10000;
	int rc;

	if (!gguf__text(gguf__pair(g, "general.architecture"), &arch))
		return gguf__bad_kind(g, note, "general.architecture", "a string");
	if (!gguf__is(&arch, "llama"))
		return gguf__bad(g, note, ERR_UNSUPPORTED, "general.architecture", "llama", "%.*s; other families are read from their folder of "
		    "safetensors", (int)(arch.len < 100 ? arch.len : 100), arch.s);
	if ((rc = check_keys(g, note)) != 0)
		return rc;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		if ((rc = size_key(g, sizes[i], 0, to[i], note)) != 0)
			return rc;
	if ((rc = size_key(g, "llama.attention.head_count_kv", cfg.n_heads, &cfg.n_kv_heads, note)) != 0)
		return rc;
	if (gguf__pair(g, "llama.attention.key_length") == NULL && cfg.d_model % cfg.n_heads != 0)
		return gguf__bad(g, note, ERR_RANGE, "llama.attention.head_count", "a divisor of llama.embedding_length", "%" PRId64,
		    cfg.n_heads);
	if ((rc = size_key(g, "llama.attention.key_length", cfg.d_model / cfg.n_heads, &cfg.head_dim, note)) != 0 ||
	    (rc = check_head_dim(g, &cfg, note)) != 0)
		return rc;
	if (!gguf__num(gguf__pair(g, "llama.attention.layer_norm_rms_epsilon"), &eps))
		return gguf__bad_kind(g, note, "llama.attention.layer_norm_rms_epsilon", "a number");
	if (gguf__pair(g, "llama.rope.freq_base") != NULL && !gguf__num(gguf__pair(g, "llama.rope.freq_base"), &theta))
		return gguf__bad_kind(g, note, "llama.rope.freq_base", "a number");
	cfg.norm_eps = (float)eps;
	cfg.rope_theta = theta;
	cfg.tied = gguf_find(g, "output.weight") == NULL;
	cfg.attention_bias = gguf_find(g, "blk.0.attn_q.bias") != NULL;
	cfg.mlp_bias = gguf_find(g, "blk.0.ffn_down.bias") != NULL;
	/* Biases on q, k and v only: the layer is Qwen2's, whatever the file calls it. */
	if (cfg.attention_bias && !cfg.mlp_bias && gguf_find(g, "blk.0.attn_output.bias") == NULL)
		cfg.family = MODEL_FAMILY_QWEN2;
	if ((rc = read_vocab_size(g, &cfg, note)) != 0 ||
	    (rc = id_key(g, "tokenizer.ggml.bos_token_id", cfg.vocab_size, &cfg.bos_id, note)) != 0 ||
	    (rc = id_key(g, "tokenizer.ggml.eos_token_id", cfg.vocab_size, &cfg.eos_id, note)) != 0 ||
	    (rc = read_rope_freqs(g, &cfg, note)) != 0 || (rc = model_config_check(&cfg, note)) != 0)
		return rc;
	*out = cfg;
	return 0;
}

/* ---- tensors ---- */

static const struct {
	const char *ours, *theirs;
} ends[] = {
	{"model.embed_tokens.", "token_embd."}, {"model.norm.", "output_norm."}, {"lm_head.", "output."},
}, in_layers[] = {
	{"input_layernorm.", "attn_norm."}, {"self_attn.q_proj.", "attn_q."}, {"self_attn.k_proj.", "attn_k."},
	{"self_attn.v_proj.", "attn_v."}, {"self_attn.o_proj.", "attn_output."}, {"post_attention_layernorm.", "ffn_norm."},
	{"mlp.gate_proj.", "ffn_gate."}, {"mlp.up_proj.", "ffn_up."}, {"mlp.down_proj.", "ffn_down."},
};

/* "model.layers.3.mlp.up_proj.weight" -> "blk.3.ffn_up.weight"; false: not a name of a Llama model. */
static bool
their_name(const char *ours, char *out, size_t size)
{
	int layer, n = 0;

	if (sscanf(ours, "model.layers.%d.%n", &layer, &n) == 1 && n > 0) {
		for (size_t i = 0; i < sizeof(in_layers) / sizeof(in_layers[0]); i++) {
			size_t len = strlen(in_layers[i].ours);

			if (strncmp(ours + n, in_layers[i].ours, len) == 0) {
				snprintf(out, size, "blk.%d.%s%s", layer, in_layers[i].theirs, ours + n + len);
				return true;
			}
		}
		return false;
	}
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		size_t len = strlen(ends[i].ours);

		if (strncmp(ours, ends[i].ours, len) == 0) {
			snprintf(out, size, "%s%s", ends[i].theirs, ours + len);
			return true;
		}
	}
	return false;
}

static int
check_shape(const struct gguf *g, const struct model_tensor *want, const struct gguf_tensor *t, struct err_note *note)
{
	bool same = t->n_dims == (unsigned)want->n_dims;

	for (unsigned i = 0; i < t->n_dims && same; i++)
		same = t->dims[t->n_dims - 1 - i] == (uint64_t)want->dims[i];
	if (same)
		return 0;
	err_note_set(note, ERR_MISMATCH, "%s", g->path);
	err_note_place(note, "tensor %s", t->name);
	if (want->n_dims == 1)
		err_note_expected(note, "%" PRId64 " elements", want->dims[0]);
	else
		err_note_expected(note, "%" PRId64 " rows of %" PRId64, want->dims[0], want->dims[1]);
	if (t->n_dims == 1)
		err_note_found(note, "%" PRIu64 " elements", t->dims[0]);
	else
		err_note_found(note, "%" PRIu64 " rows of %" PRIu64 "%s", t->dims[1], t->dims[0], t->n_dims > 2 ? ", and more dimensions" : "");
	return ERR_MISMATCH;
}

static int
bind(struct gguf_model *m, bool *used, struct err_note *note)
{
	const struct gguf *g = m->g;
	char name[128];
	int rc;

	for (int i = 0; i < m->model->n_tensors; i++) {
		const struct model_tensor *want = &m->model->tensors[i];

		if (!their_name(want->name, name, sizeof(name)) || (m->from[i] = gguf_find(g, name)) == NULL)
			return err_expect_at(note, ERR_NOT_FOUND, "%s", "tensor %s", "it, for %s", "nothing",
			    g->path, name, want->name);
		if ((rc = check_shape(g, want, m->from[i], note)) != 0)
			return rc;
		used[m->from[i] - g->tensors] = true;
	}
	for (size_t i = 0; i < g->n_tensors; i++) {
		if (used[i] || strcmp(g->tensors[i].name, ROPE_FREQS) == 0)	/* gguf_config has read it */
			continue;
		return err_expect_at(note, ERR_UNSUPPORTED, "%s", "tensor %s", "the tensors of a Llama model",
		    "one that it has no place for", g->path, g->tensors[i].name);
	}
	return 0;
}

int
gguf_model_open(struct gguf_model **out, const struct gguf *g, const struct model *model, struct err_note *note)
{
	struct gguf_model *m = NULL;
	bool *used = NULL;
	int rc = ENOMEM;

	*out = NULL;
	if ((m = mem_alloc(1, sizeof(*m))) == NULL || (m->from = mem_alloc((size_t)model->n_tensors, sizeof(m->from[0]))) == NULL ||
	    (used = mem_alloc(g->n_tensors, sizeof(used[0]))) == NULL) {
		err_note_set(note, rc, "%s", g->path);
		goto out;
	}
	m->g = g;
	m->model = model;
	rc = bind(m, used, note);
out:
	free(used);
	if (rc != 0)
		gguf_model_close(&m);
	*out = m;
	return rc;
}

void
gguf_model_close(struct gguf_model **m)
{
	if (*m == NULL)
		return;
	free((*m)->from);
	free(*m);
	*m = NULL;
}

/*
 * Query and key rows. The table's head has the first halves of its rotary pairs, then the second ones; the file's has pair after pair.
 * Row j D/2 + i of a head (j 0 or 1, i < D/2) is the file's row 2 i + j of that head.
 */
static int
read_paired(const struct gguf_tensor *t, uint64_t head_dim, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	uint64_t width = t->n_dims == 2 ? t->dims[0] : 1, half = head_dim / 2;

	for (uint64_t at = 0; at < count;) {
		uint64_t row = (begin + at) / width, column = (begin + at) % width, in_head = row % head_dim;
		uint64_t n = width - column < count - at ? width - column : count - at;
		uint64_t from = row - in_head + 2 * (in_head % half) + in_head / half;
		int rc = gguf_read_f32(t, from * width + column, n, out + at, note);

		if (rc != 0)
			return rc;
		at += n;
	}
	return 0;
}

static bool
is_paired(const char *name)
{
	return strstr(name, ".self_attn.q_proj.") != NULL || strstr(name, ".self_attn.k_proj.") != NULL;
}

int
gguf_model_source(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	const struct gguf_model *m = arg;
	const struct model *model = m->model;
	int rc;

	if (begin > (uint64_t)model->n_params || count > (uint64_t)model->n_params - begin)
		return err_expect(note, ERR_RANGE, "%s", "parameters within 0..%" PRId64,
		    "%" PRIu64 " from %" PRIu64, m->g->path, model->n_params, count, begin);
	for (int i = 0; i < model->n_tensors && count > 0; i++) {
		const struct model_tensor *t = &model->tensors[i];
		uint64_t skip = begin - (uint64_t)t->offset, n;

		if (begin >= (uint64_t)(t->offset + t->n_elements))
			continue;
		n = (uint64_t)t->n_elements - skip < count ? (uint64_t)t->n_elements - skip : count;
		rc = is_paired(t->name) ? read_paired(m->from[i], (uint64_t)model->config.head_dim, skip, n, out, note) :
		    gguf_read_f32(m->from[i], skip, n, out, note);
		if (rc != 0)
			return rc;
		begin += n;
		count -= n;
		out += n;
	}
	return 0;
}
