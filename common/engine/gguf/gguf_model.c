/* SPDX-License-Identifier: Apache-2.0 */
/* gguf_model - a GGUF file as a model: configuration, names of tensors, order of rows. */
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
#define ROPE_SHORT "rope_factors_short.weight"
#define ROPE_LONG "rope_factors_long.weight"

struct gguf_model {
	const struct gguf *g;
	const struct model *model;
	bool paired;				/* as in struct arch */
	const struct gguf_tensor **from;	/* [n_tensors] source of each tensor of the table */
};

/* ---- configuration ---- */

/* An architecture, by the name in general.architecture. */
static const struct arch {
	const char *name;
	enum model_family family;
	bool paired;				/* rows of query and key heads are stored as rotary pairs */
	const char *own[6];			/* keys that others lack or support at one value only;
						 * read_own reads them */
} archs[] = {
	{"llama", MODEL_FAMILY_LLAMA, true, {NULL}}, {"qwen2", MODEL_FAMILY_QWEN2, false, {NULL}},
	{"qwen3", MODEL_FAMILY_QWEN3, false, {NULL}}, {"gemma", MODEL_FAMILY_GEMMA, false, {NULL}},
	{"gemma2", MODEL_FAMILY_GEMMA2, false, {"attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window"}},
	{"gemma3", MODEL_FAMILY_GEMMA3, false, {"attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window",
	    "rope.freq_base_swa"}},
	{"phi3", MODEL_FAMILY_PHI3, false, {"attention.sliding_window", "rope.scaling.attn_factor"}},
	{"olmo2", MODEL_FAMILY_OLMO2, false, {NULL}}, {"smollm3", MODEL_FAMILY_SMOLLM3, true, {NULL}},
	{"granite", MODEL_FAMILY_GRANITE, true, {"attention.scale", "embedding_scale", "residual_scale", "logit_scale"}},
};

#define ARCHS "llama (Mistral too), qwen2, qwen3, gemma, gemma2, gemma3, phi3, olmo2, smollm3 or granite"

/* Keys without the architecture before the first dot: "llama.context_length". */
static const char *const sizes[] = {
	"context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
};

/* Keys that are read elsewhere or do not change a model's outputs. */
static const char *const others[] = {
	"attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count",
	"attention.layer_norm_rms_epsilon", "rope.freq_base", "vocab_size", "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear",
	"rope.scaling.original_context_length", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scaling.finetuned",
	"tensor_data_layout",
};

/* Keys that are supported at one value only. */
static const struct {
	const char *key;
	double value;
} neutral[] = {
	{"rope.scaling.attn_factor", 1}, {"rope.scaling.yarn_attn_factor", 1}, {"rope.scaling.yarn_ext_factor", 1}, {"expert_count", 0},
	{"expert_used_count", 0}, {"attention.sliding_window", 0}, {"logit_scale", 1}, {"residual_scale", 1}, {"embedding_scale", 1},
	{"attention.clamp_kqv", 0}, {"attention.max_alibi_bias", 0}, {"attention.scale", 0}, {"attn_logit_softcapping", 0},
	{"final_logit_softcapping", 0},
};

static int
find_arch(const struct gguf *g, const struct arch **out, struct err_note *note)
{
	struct gguf__text name;

	if (!gguf__text(gguf__pair(g, "general.architecture"), &name))
		return gguf__bad_kind(g, note, "general.architecture", "a string");
	for (size_t i = 0; i < sizeof(archs) / sizeof(archs[0]); i++) {
		if (gguf__is(&name, archs[i].name)) {
			*out = &archs[i];
			return 0;
		}
	}
	return gguf__bad(g, note, ERR_UNSUPPORTED, "general.architecture", ARCHS, "%.*s; other families are read from their folder of "
	    "safetensors", (int)(name.len < 100 ? name.len : 100), name.s);
}

static bool
listed(const char *const *keys, size_t n, const char *key)
{
	for (size_t i = 0; i < n && keys[i] != NULL; i++)
		if (strcmp(key, keys[i]) == 0)
			return true;
	return false;
}

#define LISTED(keys, key) listed((keys), sizeof(keys) / sizeof((keys)[0]), key)

static int
check_keys(const struct gguf *g, const struct arch *arch, struct err_note *note)
{
	size_t n_arch = strlen(arch->name);

	for (size_t i = 0; i < g->n_pairs; i++) {
		const char *name = g->pairs[i].key, *key = name + n_arch + 1;
		char expected[32];
		size_t k = 0;
		double v;

		if (strncmp(name, arch->name, n_arch) != 0 || name[n_arch] != '.' || LISTED(sizes, key) || LISTED(others, key) ||
		    LISTED(arch->own, key))
			continue;
		while (k < sizeof(neutral) / sizeof(neutral[0]) && strcmp(neutral[k].key, key) != 0)
			k++;
		if (k == sizeof(neutral) / sizeof(neutral[0]))
			return gguf__bad(g, note, ERR_UNSUPPORTED, name, "a known key",
			    "an unknown key of kind %s, which may change outputs",
			    gguf__kind_name(g->pairs[i].kind));
		snprintf(expected, sizeof(expected), "%g", neutral[k].value);
		if (!gguf__num(&g->pairs[i], &v))
			return gguf__bad_kind(g, note, name, "a number");
		if (!(v == neutral[k].value))
			return gguf__bad(g, note, ERR_UNSUPPORTED, name, expected, "%g", v);
	}
	return 0;
}

/*
 * Reads the architecture's integer above 0; `otherwise` if it is absent. It is required if `otherwise` is 0.
 */
static int
size_key(const struct gguf *g, const char *end, int64_t otherwise, int64_t *out, struct err_note *note)
{
	char key[GGUF__KEY_BYTES];
	int64_t v;

	*out = otherwise;
	if (gguf__pair(g, gguf__key(g, end, key)) == NULL && otherwise != 0)
		return 0;
	if (!gguf__int(gguf__pair(g, key), &v))
		return gguf__bad_kind(g, note, key, "an integer");
	if (v < 1 || v > MODEL_MAX_DIM)
		return gguf__bad(g, note, ERR_RANGE, key, "1 to 2147483647", "%" PRId64, v);
	*out = v;
	return 0;
}

/* Reads the architecture's number; `otherwise` if it is absent. It is required if `otherwise` is NaN. */
static int
num_key(const struct gguf *g, const char *end, double otherwise, double *out, struct err_note *note)
{
	char key[GGUF__KEY_BYTES];

	*out = otherwise;
	if (gguf__pair(g, gguf__key(g, end, key)) == NULL && !isnan(otherwise))
		return 0;
	return gguf__num(gguf__pair(g, key), out) ? 0 : gguf__bad_kind(g, note, key, "a number");
}

static int
id_key(const struct gguf *g, const char *key, int64_t vocab_size, int64_t *out, struct err_note *note)
{
	*out = -1;
	if (gguf__pair(g, key) == NULL)
		return 0;
	if (!gguf__int(gguf__pair(g, key), out))
		return gguf__bad_kind(g, note, key, "a token id");
	if (*out < 0 || *out == UINT32_MAX)		/* the file's encodings of "none" */
		*out = -1;
	if (*out >= vocab_size)
		return gguf__bad(g, note, ERR_RANGE, key, "an id of the vocabulary", "%" PRId64, *out);
	return 0;
}

/* The divisor of a frequency in llama3 scaling (Hugging Face, modeling_rope_utils, rope_type "llama3"). */
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

/* Index of the first of n divisors that differs from cfg's llama3 scaling by over 1e-4 of it; n: none. */
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

/* Reads one divisor per rotary pair into out[MODEL_MAX_ROTARY / 2]. */
static int
read_divisors(const struct gguf *g, const char *name, const struct model_config *cfg, float *out, struct err_note *note)
{
	const struct gguf_tensor *t = gguf_find(g, name);
	uint64_t n = (uint64_t)(cfg->rotary_dim > 0 ? cfg->rotary_dim : cfg->head_dim) / 2;

	if (t == NULL)
		return err_expect_at(note, ERR_NOT_FOUND, "%s", "tensor %s",
		    "both " ROPE_SHORT " and " ROPE_LONG, "only the other one", g->path, name);
	if (t->n_elements != n || n == 0)
		return err_expect_at(note, ERR_MISMATCH, "%s", "tensor %s",
		    "%" PRIu64 " elements, one per rotary pair", "%" PRIu64, g->path, name, n, t->n_elements);
	if (n > MODEL_MAX_ROTARY / 2)
		return err_expect_at(note, ERR_UNSUPPORTED, "%s", "tensor %s", "at most %d elements", "%" PRIu64, g->path, name,
		    MODEL_MAX_ROTARY / 2, n);
	return gguf_read_f32(t, 0, n, out, note);
}

/* Refuses a file that states a scaling of positions both in its keys and by the tensor `name`. */
static int
only_scaling(const struct gguf *g, const char *name, const struct model_config *cfg, struct err_note *note)
{
	if (cfg->rope_scaling.type == MODEL_ROPE_DEFAULT)
		return 0;
	return err_expect_at(note, ERR_UNSUPPORTED, "%s", "tensor %s", "no other scaling of positions", "%s", g->path, name,
	    model_rope_scaling_name(cfg->rope_scaling.type));
}

/*
 * rope_freqs.weight holds the divisor of each frequency, not the four parameters from which it was computed.
 * Llama 3.1, 3.2 and 3.3 all use 1, 4 and 8192 for three of them; the fourth is the last divisor. Other
 * models may have another original context, a power of two. Divisors that these parameters do not give become
 * LongRoPE factors, with one list for any length and no factor of cosines and sines.
 */
static int
read_rope_freqs(const struct gguf *g, struct model_config *cfg, struct err_note *note)
{
	static const int64_t originals[] = {8192, 1024, 2048, 4096, 16384, 32768, 65536, 131072};
	size_t n = (size_t)(cfg->rotary_dim > 0 ? cfg->rotary_dim : cfg->head_dim) / 2;
	float divisors[MODEL_MAX_ROTARY / 2] = {0};
	int rc;

	if (gguf_find(g, ROPE_FREQS) == NULL)
		return 0;
	if ((rc = only_scaling(g, ROPE_FREQS, cfg, note)) != 0 || (rc = read_divisors(g, ROPE_FREQS, cfg, divisors, note)) != 0)
		return rc;
	cfg->rope_scaling.type = MODEL_ROPE_LLAMA3;
	cfg->rope_scaling.low_freq_factor = 1;
	cfg->rope_scaling.high_freq_factor = 4;
	cfg->rope_scaling.factor = (double)divisors[n - 1];
	for (size_t i = 0; i < sizeof(originals) / sizeof(originals[0]) && divisors[n - 1] >= 1; i++) {
		cfg->rope_scaling.original_context = originals[i];
		if (first_other(cfg, divisors, n) == n)
			return 0;
	}
	memset(&cfg->rope_scaling, 0, sizeof(cfg->rope_scaling));
	cfg->rope_scaling.type = MODEL_ROPE_LONGROPE;
	cfg->rope_scaling.original_context = cfg->context;
	cfg->rope_scaling.factor = cfg->rope_scaling.attention_factor = 1;
	memcpy(cfg->rope_scaling.short_factor, divisors, sizeof(divisors));
	memcpy(cfg->rope_scaling.long_factor, divisors, sizeof(divisors));
	return 0;
}

/* Phi-3: one divisor of each frequency up to the original context, another one beyond it. */
static int
read_rope_factors(const struct gguf *g, struct model_config *cfg, struct err_note *note)
{
	struct gguf__text type;
	char key[GGUF__KEY_BYTES];
	int rc;

	if (gguf_find(g, ROPE_SHORT) == NULL && gguf_find(g, ROPE_LONG) == NULL) {
		if (!gguf__text(gguf__pair(g, gguf__key(g, "rope.scaling.type", key)), &type) || !gguf__is(&type, "longrope"))
			return 0;
		return err_expect_at(note, ERR_NOT_FOUND, "%s", "tensor " ROPE_SHORT, "the factors of longrope, which %s states",
		    "nothing", g->path, key);
	}
	if ((rc = only_scaling(g, ROPE_SHORT, cfg, note)) != 0)
		return rc;
	cfg->rope_scaling.type = MODEL_ROPE_LONGROPE;
	if ((rc = size_key(g, "rope.scaling.original_context_length", 0, &cfg->rope_scaling.original_context, note)) != 0 ||
	    (rc = num_key(g, "rope.scaling.attn_factor", 0, &cfg->rope_scaling.attention_factor, note)) != 0 ||
	    (rc = read_divisors(g, ROPE_SHORT, cfg, cfg->rope_scaling.short_factor, note)) != 0)
		return rc;
	return read_divisors(g, ROPE_LONG, cfg, cfg->rope_scaling.long_factor, note);
}

/* Reads linear and YaRN scaling; the factors of longrope are in tensors. */
static int
read_scaling(const struct gguf *g, struct model_config *cfg, struct err_note *note)
{
	struct gguf__text type = {"linear", 6};		/* files older than the key only have a factor */
	char key[GGUF__KEY_BYTES];
	double factor, old;
	int rc;

	if (gguf__pair(g, gguf__key(g, "rope.scaling.type", key)) != NULL && !gguf__text(gguf__pair(g, key), &type))
		return gguf__bad_kind(g, note, key, "a string");
	if ((rc = num_key(g, "rope.scale_linear", 1, &old, note)) != 0 || (rc = num_key(g, "rope.scaling.factor", old, &factor, note)) != 0)
		return rc;
	if (gguf__is(&type, "none") || gguf__is(&type, "longrope") || (gguf__is(&type, "linear") && (factor == 1 || factor == 0)))
		return 0;
	cfg->rope_scaling.factor = factor;
	if (gguf__is(&type, "linear")) {
		cfg->rope_scaling.type = MODEL_ROPE_LINEAR;
		return 0;
	}
	if (!gguf__is(&type, "yarn"))
		return gguf__bad(g, note, ERR_UNSUPPORTED, key, "none, linear, yarn or longrope", "%.*s",
		    (int)(type.len < 100 ? type.len : 100), type.s);
	cfg->rope_scaling.type = MODEL_ROPE_YARN;
	if ((rc = size_key(g, "rope.scaling.original_context_length", cfg->context, &cfg->rope_scaling.original_context, note)) != 0 ||
	    (rc = num_key(g, "rope.scaling.yarn_beta_fast", 32, &cfg->rope_scaling.beta_fast, note)) != 0)
		return rc;
	return num_key(g, "rope.scaling.yarn_beta_slow", 1, &cfg->rope_scaling.beta_slow, note);
}

/* Sets the vocabulary size to the embedding's; more tokens, or another stated size, are an error. */
static int
read_vocab_size(const struct gguf *g, struct model_config *cfg, struct err_note *note)
{
	const struct gguf_tensor *embedding = gguf_find(g, "token_embd.weight");
	const struct gguf__pair *tokens = gguf__pair(g, "tokenizer.ggml.tokens");
	char expected[64], key[GGUF__KEY_BYTES];
	int64_t v;

	if (embedding == NULL || embedding->n_dims != 2 || embedding->dims[1] > MODEL_MAX_DIM)
		return err_expect_at(note, embedding == NULL ? ERR_NOT_FOUND : ERR_MISMATCH, "%s",
		    "tensor token_embd.weight", "a matrix of embeddings", "%s", g->path,
		    embedding == NULL ? "nothing" : "another shape");
	cfg->vocab_size = (int64_t)embedding->dims[1];
	snprintf(expected, sizeof(expected), "%" PRId64 " as in token_embd.weight", cfg->vocab_size);
	if (gguf__int(gguf__pair(g, gguf__key(g, "vocab_size", key)), &v) && v != cfg->vocab_size)
		return gguf__bad(g, note, ERR_MISMATCH, key, expected, "%" PRId64, v);
	if (tokens != NULL && tokens->kind == GGUF__ARRAY && tokens->count > (uint64_t)cfg->vocab_size)
		return gguf__bad(g, note, ERR_MISMATCH, "tokenizer.ggml.tokens", expected, "%" PRIu64, tokens->count);
	return 0;
}

/* Reads head_dim and rotary_dim; between them, sets the family's defaults. */
static int
read_head_dim(const struct gguf *g, const struct arch *arch, struct model_config *cfg, struct err_note *note)
{
	char expected[64], key[GGUF__KEY_BYTES], divisor[GGUF__KEY_BYTES];
	int64_t value, rotary;
	int rc;

	if (gguf__pair(g, gguf__key(g, "attention.key_length", key)) == NULL && cfg->d_model % cfg->n_heads != 0) {
		snprintf(divisor, sizeof(divisor), "a divisor of %s", gguf__key(g, "embedding_length", key));
		return gguf__bad(g, note, ERR_RANGE, gguf__key(g, "attention.head_count", key), divisor, "%" PRId64, cfg->n_heads);
	}
	if ((rc = size_key(g, "attention.key_length", cfg->d_model / cfg->n_heads, &cfg->head_dim, note)) != 0 ||
	    (rc = size_key(g, "attention.value_length", cfg->head_dim, &value, note)) != 0 ||
	    (rc = size_key(g, "rope.dimension_count", cfg->head_dim, &rotary, note)) != 0)
		return rc;
	snprintf(expected, sizeof(expected), "%" PRId64 ", as long as a head", cfg->head_dim);
	if (value != cfg->head_dim)
		return gguf__bad(g, note, ERR_UNSUPPORTED, gguf__key(g, "attention.value_length", key), expected, "%" PRId64, value);
	if (rotary != cfg->head_dim && !(model_traits(arch->family)->partial_rotary && rotary < cfg->head_dim))
		return gguf__bad(g, note, ERR_UNSUPPORTED, gguf__key(g, "rope.dimension_count", key), expected, "%" PRId64, rotary);
	model_family_start(cfg);
	cfg->rotary_dim = rotary < cfg->head_dim ? rotary : 0;
	return 0;
}

/* Reads the keys in struct arch's own, if the architecture has them; values without a key are llama.cpp's. */
static int
read_own(const struct gguf *g, const struct arch *arch, struct model_config *cfg, struct err_note *note)
{
	const struct {
		const char *key;
		float *to;
	} factors[] = {
		{"attn_logit_softcapping", &cfg->attention_cap}, {"final_logit_softcapping", &cfg->logit_cap},
		{"embedding_scale", &cfg->embed_scale}, {"residual_scale", &cfg->residual_scale}, {"logit_scale", &cfg->output_scale},
		{"attention.scale", &cfg->attention_scale},
	};
	int64_t window = cfg->window;
	int rc = 0;
	double v;

	for (size_t i = 0; i < sizeof(factors) / sizeof(factors[0]) && rc == 0; i++) {
		if (!LISTED(arch->own, factors[i].key))
			continue;
		if ((rc = num_key(g, factors[i].key, (double)*factors[i].to, &v, note)) == 0)
			*factors[i].to = (float)v;
	}
	if (rc == 0 && LISTED(arch->own, "attention.sliding_window")) {
		char key[GGUF__KEY_BYTES];

		if (gguf__pair(g, gguf__key(g, "attention.sliding_window", key)) != NULL && !gguf__int(gguf__pair(g, key), &window))
			return gguf__bad_kind(g, note, key, "an integer");
		cfg->window = window;
	}
	if (rc == 0 && LISTED(arch->own, "rope.freq_base_swa"))
		rc = num_key(g, "rope.freq_base_swa", cfg->local_theta, &cfg->local_theta, note);
	if (cfg->family == MODEL_FAMILY_GRANITE && cfg->output_scale > 0)
		cfg->output_scale = 1 / cfg->output_scale;		/* the file has the divisor */
	/* query_pre_attn_scalar: the head size; in the 27-billion models, width / heads instead. */
	if (cfg->family == MODEL_FAMILY_GEMMA2 || cfg->family == MODEL_FAMILY_GEMMA3)
		cfg->attention_scale = (float)(1 / sqrt((double)(cfg->n_layers == (cfg->family == MODEL_FAMILY_GEMMA2 ? 46 : 62) ?
		    cfg->d_model / cfg->n_heads : cfg->head_dim)));
	return rc;
}

int
gguf_config(const struct gguf *g, struct model_config *out, struct err_note *note)
{
	struct model_config cfg = {0};
	int64_t *const to[] = {&cfg.context, &cfg.d_model, &cfg.n_layers, &cfg.d_ff, &cfg.n_heads};
	const struct arch *arch = NULL;
	double eps;
	int rc;

	if ((rc = find_arch(g, &arch, note)) != 0 || (rc = check_keys(g, arch, note)) != 0)
		return rc;
	cfg.family = arch->family;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		if ((rc = size_key(g, sizes[i], 0, to[i], note)) != 0)
			return rc;
	/* read_head_dim also sets the family's defaults, so it precedes the other keys. */
	if ((rc = size_key(g, "attention.head_count_kv", cfg.n_heads, &cfg.n_kv_heads, note)) != 0 ||
	    (rc = read_head_dim(g, arch, &cfg, note)) != 0 || (rc = num_key(g, "attention.layer_norm_rms_epsilon", NAN, &eps, note)) != 0 ||
	    (rc = num_key(g, "rope.freq_base", 10000, &cfg.rope_theta, note)) != 0 || (rc = read_own(g, arch, &cfg, note)) != 0 ||
	    (rc = read_scaling(g, &cfg, note)) != 0 || (rc = read_rope_factors(g, &cfg, note)) != 0)
		return rc;
	cfg.norm_eps = (float)eps;
	cfg.tied = gguf_find(g, "output.weight") == NULL;
	cfg.attention_bias = cfg.family == MODEL_FAMILY_QWEN2 || gguf_find(g, "blk.0.attn_q.bias") != NULL;
	cfg.mlp_bias = gguf_find(g, "blk.0.ffn_down.bias") != NULL;
	/* Biases on q, k and v only: the layer is Qwen2's, although the file says llama. */
	if (cfg.family == MODEL_FAMILY_LLAMA && cfg.attention_bias && !cfg.mlp_bias && gguf_find(g, "blk.0.attn_output.bias") == NULL)
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
	{"self_attn.q_norm.", "attn_q_norm."}, {"self_attn.k_norm.", "attn_k_norm."}, {"self_attn.qkv_proj.", "attn_qkv."},
	{"pre_feedforward_layernorm.", "ffn_norm."}, {"post_feedforward_layernorm.", "post_ffw_norm."}, {"mlp.gate_up_proj.", "ffn_up."}, {"mlp.gate_proj.", "ffn_gate."}, {"mlp.up_proj.", "ffn_up."}, {"mlp.down_proj.", "ffn_down."},
};

/* "model.layers.3.mlp.up_proj.weight" -> "blk.3.ffn_up.weight"; false: GGUF has no such name */
static bool
their_name(const struct model_config *cfg, const char *ours, char *out, size_t size)
{
	int layer, n = 0;

	if (sscanf(ours, "model.layers.%d.%n", &layer, &n) == 1 && n > 0) {
		if (model_traits(cfg->family)->norm_after && strcmp(ours + n, "post_attention_layernorm.weight") == 0) {
			/* the norm after attention, not before the mlp */
			snprintf(out, size, "blk.%d.post_attention_norm.weight", layer);
			return true;
		}
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

		if (!their_name(&m->model->config, want->name, name, sizeof(name)) || (m->from[i] = gguf_find(g, name)) == NULL)
			return err_expect_at(note, ERR_NOT_FOUND, "%s", "tensor %s",
			    "this tensor, for %s", "nothing", g->path, name, want->name);
		if ((rc = check_shape(g, want, m->from[i], note)) != 0)
			return rc;
		used[m->from[i] - g->tensors] = true;
	}
	for (size_t i = 0; i < g->n_tensors; i++) {
		if (used[i] || strcmp(g->tensors[i].name, ROPE_FREQS) == 0 || strcmp(g->tensors[i].name, ROPE_SHORT) == 0 ||
		    strcmp(g->tensors[i].name, ROPE_LONG) == 0)		/* already read by gguf_config */
			continue;
		return err_expect_at(note, ERR_UNSUPPORTED, "%s", "tensor %s", "only tensors of a %s model",
		    "a tensor that this model does not use", g->path, g->tensors[i].name,
		    model_family_name(m->model->config.family));
	}
	return 0;
}

int
gguf_model_open(struct gguf_model **out, const struct gguf *g, const struct model *model, struct err_note *note)
{
	const struct arch *arch = NULL;
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
	if ((rc = find_arch(g, &arch, note)) == 0) {
		m->paired = arch->paired;
		rc = bind(m, used, note);
	}
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
 * Reads query and key rows that are stored as rotary pairs. A head in the table has the first halves of its
 * pairs, then the second halves; in the file pair follows pair. Row j D/2 + i of a head (j 0 or 1, i < D/2)
 * is the file's row 2 i + j of that head.
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
		rc = m->paired && is_paired(t->name) ? read_paired(m->from[i], (uint64_t)model->config.head_dim, skip, n, out, note) :
		    gguf_read_f32(m->from[i], skip, n, out, note);
		if (rc != 0)
			return rc;
		/* Gemma's files have 1 + g, the factor of a norm, instead of g. */
		for (uint64_t k = 0; k < n && model_traits(model->config.family)->unit_gain && strstr(t->name, "norm.weight") != NULL; k++)
			out[k] -= 1;
		begin += n;
		count -= n;
		out += n;
	}
	return 0;
}
