/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.json of the supported families. A key that changes outputs is either supported or refused by name. Other keys are ignored:
 * the family's implementation in transformers does not read them either.
 */
#include "engine/weights/weights_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/model/model.h"

#define MAX_CONFIG_BYTES ((size_t)4 << 20)
#define MAX_SIZE (INT64_C(1) << 31)		/* of any one dimension; model_config_check checks their combination */

/* A file being read: rc keeps the first failure, and everything after it is skipped. */
struct reader {
	const char *path;
	const struct json *root;
	const char *parent;			/* object that root is in the file: "rope_scaling", or "" */
	struct err_note *note;
	int rc;
};

static void
fail(struct reader *r, int rc, const char *key, const char *expected, const char *found)
{
	r->rc = rc;
	err_expect_at(r->note, rc, "%s", "%s%s%s", "%s", "%s", r->path, r->parent, r->parent[0] ? "." : "",
	    key, expected, found);
}

/* Any value as one line of text. */
static const char *
show(const struct json *j, char *buf, size_t size)
{
	char *text = j != NULL ? json_print(j, false) : NULL;

	snprintf(buf, size, "%s", j == NULL ? "nothing" : text != NULL ? text : json_kind_name(json_kind(j)));
	free(text);
	return buf;
}

static void
fail_value(struct reader *r, int rc, const char *key, const char *expected)
{
	char buf[200];

	fail(r, rc, key, expected, show(json_get(r->root, key), buf, sizeof(buf)));
}

/* absent: no such key, or null. */
static bool
absent(const struct reader *r, const char *key)
{
	return json_kind(json_get(r->root, key)) == JSON_KIND_NULL;
}

static int64_t
size_key(struct reader *r, const char *key)
{
	int64_t v = 1;

	if (r->rc != 0)
		return 1;
	if (!json_int(json_get(r->root, key), &v))
		fail_value(r, ERR_FORMAT, key, "an integer");
	else if (v < 1 || v > MAX_SIZE)
		fail_value(r, ERR_RANGE, key, "1 to 2^31");
	return r->rc == 0 ? v : 1;
}

static int64_t
size_key_or(struct reader *r, const char *key, int64_t otherwise)
{
	return absent(r, key) ? otherwise : size_key(r, key);
}

/* A finite number above 0. */
static double
positive_key(struct reader *r, const char *key)
{
	double v = 1;

	if (r->rc != 0)
		return 1;
	if (!json_num(json_get(r->root, key), &v))
		fail_value(r, ERR_FORMAT, key, "a number");
	else if (!(v > 0) || !isfinite(v))
		fail_value(r, ERR_RANGE, key, "a number above 0");
	return r->rc == 0 ? v : 1;
}

static double
positive_key_or(struct reader *r, const char *key, double otherwise)
{
	return absent(r, key) ? otherwise : positive_key(r, key);
}

static bool
flag_key(struct reader *r, const char *key, bool otherwise)
{
	bool v = otherwise;

	if (r->rc == 0 && !absent(r, key) && !json_flag(json_get(r->root, key), &v))
		fail_value(r, ERR_FORMAT, key, "true or false");
	return v;
}

/* Refuses the key unless it is absent or has this value. */
static void
only_flag(struct reader *r, const char *key, bool supported)
{
	if (r->rc == 0 && flag_key(r, key, supported) != supported && r->rc == 0)
		fail_value(r, ERR_UNSUPPORTED, key, supported ? "true" : "false");
}

static void
only_absent(struct reader *r, const char *key, const char *expected)
{
	if (r->rc == 0 && !absent(r, key))
		fail_value(r, ERR_UNSUPPORTED, key, expected);
}

static void
only_one(struct reader *r, const char *key)
{
	if (positive_key_or(r, key, 1.0) != 1.0 && r->rc == 0)
		fail_value(r, ERR_UNSUPPORTED, key, "1");
}

static void
only_text(struct reader *r, const char *key, const char *a, const char *b)
{
	char expected[64];
	const char *s;

	if (r->rc != 0 || absent(r, key))
		return;
	snprintf(expected, sizeof(expected), "%s%s%s", a, b != NULL ? " or " : "", b != NULL ? b : "");
	if (!json_text(json_get(r->root, key), &s))
		fail_value(r, ERR_FORMAT, key, expected);
	else if (strcmp(s, a) != 0 && (b == NULL || strcmp(s, b) != 0))
		fail_value(r, ERR_UNSUPPORTED, key, expected);
}

/* bos and eos: an id, null, or (Llama 3) a list, whose first item is used. */
static int64_t
id_key(struct reader *r, const char *key)
{
	const struct json *j = json_get(r->root, key);
	int64_t v = -1;

	if (r->rc != 0 || absent(r, key))
		return -1;
	if (json_kind(j) == JSON_KIND_ARRAY)
		j = json_item(j, 0);
	if (!json_int(j, &v))
		fail_value(r, ERR_FORMAT, key, "a token id, a list of them, or null");
	return v >= 0 ? v : -1;
}

static void
load_gpt2(struct reader *r, struct model_config *c)
{
	c->context = size_key(r, "n_positions");
	c->d_model = size_key(r, "n_embd");
	c->n_layers = size_key(r, "n_layer");
	c->n_heads = c->n_kv_heads = size_key(r, "n_head");
	c->d_ff = size_key_or(r, "n_inner", 4 * c->d_model);
	c->norm_eps = (float)positive_key_or(r, "layer_norm_epsilon", 1e-5);
	c->tied = flag_key(r, "tie_word_embeddings", true);
	c->attention_bias = c->mlp_bias = true;
	if (r->rc == 0 && c->d_model % c->n_heads != 0)
		fail_value(r, ERR_RANGE, "n_head", "a divisor of n_embd");
	c->head_dim = c->d_model / c->n_heads;
	only_text(r, "activation_function", "gelu_new", "gelu_pytorch_tanh");	/* two names of one formula */
	only_flag(r, "scale_attn_weights", true);
	only_flag(r, "scale_attn_by_inverse_layer_idx", false);
	only_flag(r, "add_cross_attention", false);
}

/* original_max_position_embeddings at the top wins, as in transformers. */
static void
load_llama3_scaling(struct reader *r, struct reader *top, struct model_config *c)
{
	c->rope_scaling.llama3 = true;
	c->rope_scaling.factor = positive_key(r, "factor");
	c->rope_scaling.low_freq_factor = positive_key(r, "low_freq_factor");
	c->rope_scaling.high_freq_factor = positive_key(r, "high_freq_factor");
	c->rope_scaling.original_context = size_key_or(absent(top, "original_max_position_embeddings") ? r : top,
	    "original_max_position_embeddings", c->context);
	if (r->rc == 0 && !(c->rope_scaling.high_freq_factor > c->rope_scaling.low_freq_factor))
		fail_value(r, ERR_RANGE, "high_freq_factor", "more than low_freq_factor");
}

/* Elements of a head with rotary embedding, rounded as in transformers: (int)(head_dim * factor). */
static void
load_rotary_part(struct reader *r, const char *key, struct model_config *c)
{
	double part = positive_key_or(r, key, 1);

	if (r->rc != 0)
		return;
	c->rotary_dim = part <= 1 ? (int64_t)((double)c->head_dim * part) : 0;
	if (c->rotary_dim < 2 || c->rotary_dim % 2 != 0)
		fail_value(r, ERR_RANGE, key, "a share of the head: an even number of elements, at least 2");
}

/*
 * rope_theta and rope_scaling (type or rope_type), or both in rope_parameters as transformers 5 writes them. GPT-NeoX's own names are
 * rotary_emb_base and rotary_pct.
 */
static void
load_rope(struct reader *top, struct model_config *c)
{
	bool neox = c->family == MODEL_FAMILY_NEOX;
	const char *parent = absent(top, "rope_parameters") ? "rope_scaling" : "rope_parameters";
	struct reader r = *top;
	const char *key, *type;

	c->rope_theta = positive_key_or(top, neox && !absent(top, "rotary_emb_base") ? "rotary_emb_base" : "rope_theta", 10000.0);
	only_flag(top, "rope_interleaved", false);
	if (neox) {
		c->rotary_dim = c->head_dim / 4;
		if (!absent(top, "rotary_pct"))
			load_rotary_part(top, "rotary_pct", c);
	} else {
		only_one(top, "partial_rotary_factor");
	}
	if (!absent(top, "rope_parameters"))
		only_absent(top, "rope_scaling", "none beside rope_parameters");
	if (neox)
		only_text(top, "hidden_act", "gelu", NULL);
	else
		only_text(top, "hidden_act", "silu", "swish");
	if (top->rc != 0 || absent(top, parent))
		return;
	if (json_kind(json_get(top->root, parent)) != JSON_KIND_OBJECT) {
		fail_value(top, ERR_FORMAT, parent, "an object");
		return;
	}
	r.root = json_get(top->root, parent);
	r.parent = parent;
	c->rope_theta = positive_key_or(&r, "rope_theta", c->rope_theta);
	if (!neox)
		only_one(&r, "partial_rotary_factor");
	else if (!absent(&r, "partial_rotary_factor"))
		load_rotary_part(&r, "partial_rotary_factor", c);
	for (void *it = json_first(r.root); it != NULL && r.rc == 0; it = json_next(r.root, it))
		if (json_kind(json_value(it)) == JSON_KIND_OBJECT)
			fail_value(&r, ERR_UNSUPPORTED, json_key(it), "one rule for all layers");
	key = absent(&r, "rope_type") ? "type" : "rope_type";
	if (r.rc == 0 && !absent(&r, key)) {
		if (!json_text(json_get(r.root, key), &type))
			fail_value(&r, ERR_FORMAT, key, "default or llama3");
		else if (strcmp(type, "llama3") == 0)
			load_llama3_scaling(&r, top, c);
		else if (strcmp(type, "default") != 0)
			fail_value(&r, ERR_UNSUPPORTED, key, "default or llama3");
	} else if (r.rc == 0 && !absent(&r, "factor")) {
		fail(&r, ERR_FORMAT, "rope_type", "default or llama3", "nothing, yet a factor");
	}
	if (top->rc == 0)
		top->rc = r.rc;
}

/* Qwen's sliding windows must be off, for all layers. */
static void
only_full_attention(struct reader *r)
{
	const struct json *types = json_get(r->root, "layer_types");
	const char *type;

	only_flag(r, "use_sliding_window", false);
	for (size_t i = 0; i < json_count(types) && r->rc == 0; i++)
		if (!json_text(json_item(types, i), &type) || strcmp(type, "full_attention") != 0)
			fail_value(r, ERR_UNSUPPORTED, "layer_types", "full_attention in every layer");
}

/* Llama, Qwen2, Qwen3: c->family says which. */
static void
load_llama(struct reader *r, struct model_config *c)
{
	bool qwen2 = c->family == MODEL_FAMILY_QWEN2, qwen3 = c->family == MODEL_FAMILY_QWEN3;

	c->context = size_key(r, "max_position_embeddings");
	c->d_model = size_key(r, "hidden_size");
	c->n_layers = size_key(r, "num_hidden_layers");
	c->n_heads = size_key(r, "num_attention_heads");
	/* Qwen's default is the number 32, but every published file has the key. */
	c->n_kv_heads = qwen2 || qwen3 ? size_key(r, "num_key_value_heads") : size_key_or(r, "num_key_value_heads", c->n_heads);
	c->d_ff = size_key(r, "intermediate_size");
	c->norm_eps = (float)positive_key_or(r, "rms_norm_eps", 1e-6);
	c->tied = flag_key(r, "tie_word_embeddings", false);
	c->attention_bias = qwen2 || flag_key(r, "attention_bias", false);	/* Qwen2 has them on q, k, v and no key for it */
	c->mlp_bias = !qwen2 && !qwen3 && flag_key(r, "mlp_bias", false);
	if (qwen2 || qwen3)
		only_full_attention(r);
	if (qwen3 && r->rc == 0 && absent(r, "head_dim"))
		size_key(r, "head_dim");		/* the default is not width / heads here */
	if (r->rc == 0 && absent(r, "head_dim") && c->d_model % c->n_heads != 0)
		fail_value(r, ERR_RANGE, "num_attention_heads", "a divisor of hidden_size");
	c->head_dim = size_key_or(r, "head_dim", c->d_model / c->n_heads);
	if (r->rc == 0 && c->n_heads % c->n_kv_heads != 0)
		fail_value(r, ERR_RANGE, "num_key_value_heads", "a divisor of num_attention_heads");
	if (r->rc == 0 && c->head_dim % 2 != 0)
		fail(r, ERR_RANGE, "head_dim", "an even number (rotary halves)", "an odd one");
	load_rope(r, c);
}

static void
load_neox(struct reader *r, struct model_config *c)
{
	c->context = size_key(r, "max_position_embeddings");
	c->d_model = size_key(r, "hidden_size");
	c->n_layers = size_key(r, "num_hidden_layers");
	c->n_heads = c->n_kv_heads = size_key(r, "num_attention_heads");
	c->d_ff = size_key(r, "intermediate_size");
	c->norm_eps = (float)positive_key_or(r, "layer_norm_eps", 1e-5);
	c->tied = flag_key(r, "tie_word_embeddings", false);
	c->attention_bias = flag_key(r, "attention_bias", true);
	c->mlp_bias = true;
	c->parallel_residual = flag_key(r, "use_parallel_residual", true);
	if (r->rc == 0 && c->d_model % c->n_heads != 0)
		fail_value(r, ERR_RANGE, "num_attention_heads", "a divisor of hidden_size");
	c->head_dim = c->d_model / c->n_heads;
	load_rope(r, c);
	if (r->rc == 0 && (c->rotary_dim < 2 || c->rotary_dim % 2 != 0))
		fail(r, ERR_RANGE, "rotary_pct", "a share of the head: an even number of elements, at least 2", "the default, 0.25");
}

int
weights_config_load(const char *path, struct model_config *out, struct err_note *note)
{
	struct reader r = {.path = path, .parent = "", .note = note};
	struct model_config c = {0};
	struct json *root = NULL;
	const char *type = NULL;
	char file[4096];
	struct stat st;

	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
		if ((size_t)snprintf(file, sizeof(file), "%s/config.json", path) >= sizeof(file))
			return err_note_set(note, ENAMETOOLONG, "%s", path);
		r.path = file;
	}
	if (r.path == path && (strstr(path, ".safetensors") != NULL || strstr(path, ".gguf") != NULL))
		return err_expect(note, ERR_UNSUPPORTED, "%s", "a model's folder, or its config.json", "a file of weights: %s", path,
		    strstr(path, ".gguf") != NULL ? "type: saltctl model import FILE.gguf NEW" : "name its folder");
	if ((r.rc = json_parse_file(r.path, MAX_CONFIG_BYTES, &root, note)) != 0)
		return r.rc;
	r.root = root;
	if (json_kind(root) != JSON_KIND_OBJECT)
		fail(&r, ERR_FORMAT, "", "an object", json_kind_name(json_kind(root)));
	else if (!json_text(json_get(root, "model_type"), &type))
		fail_value(&r, ERR_FORMAT, "model_type", MODEL_FAMILY_NAMES);
	else if (!model_family_find(type, &c.family))
		fail_value(&r, ERR_UNSUPPORTED, "model_type", MODEL_FAMILY_NAMES);
	only_absent(&r, "quantization_config", "none: weights in F32, F16 or BF16");
	c.vocab_size = size_key(&r, "vocab_size");
	c.initializer_range = (float)positive_key_or(&r, "initializer_range", 0.02);
	c.bos_id = id_key(&r, "bos_token_id");
	c.eos_id = id_key(&r, "eos_token_id");
	if (r.rc == 0 && c.family == MODEL_FAMILY_GPT2)
		load_gpt2(&r, &c);
	else if (r.rc == 0 && c.family == MODEL_FAMILY_NEOX)
		load_neox(&r, &c);
	else if (r.rc == 0)
		load_llama(&r, &c);
	if (r.rc == 0)
		*out = c;
	json_close(&root);
	return r.rc;
}

/* The double with the fewest digits that is this float: 1e-5, not 9.99999974737875e-06. */
static double
plain(float x)
{
	char buf[32];

	for (int digits = 6; digits <= 9; digits++) {
		snprintf(buf, sizeof(buf), "%.*g", digits, (double)x);
		if (strtof(buf, NULL) == x)
			break;
	}
	return strtod(buf, NULL);
}

static struct json *
id_value(int64_t id)
{
	return id >= 0 ? json_new_int(id) : json_new_null();
}

static struct json *
gpt2_keys(const struct model_config *c)
{
	return json_build("{s:I, s:I, s:I, s:I, s:I, s:s, s:f, s:b, s:b, s:f, s:f, s:f}", "n_positions", c->context,
	    "n_embd", c->d_model, "n_layer", c->n_layers, "n_head", c->n_heads, "n_inner", c->d_ff,
	    "activation_function", "gelu_new", "layer_norm_epsilon", plain(c->norm_eps), "scale_attn_weights", true,
	    "scale_attn_by_inverse_layer_idx", false, "attn_pdrop", 0.0, "embd_pdrop", 0.0, "resid_pdrop", 0.0);
}

/* A factor that load_rotary_part turns into the same rotary again. */
static double
rotary_share(int64_t head_dim, int64_t rotary)
{
	double share = (double)rotary / (double)head_dim;

	return (int64_t)((double)head_dim * share) < rotary ? nextafter(share, 2) : share;
}

static struct json *
rope_scaling(const struct model_config *c)
{
	return !c->rope_scaling.llama3 ? json_new_null() : json_build("{s:s, s:f, s:f, s:f, s:I}", "rope_type", "llama3",
	    "factor", c->rope_scaling.factor, "low_freq_factor", c->rope_scaling.low_freq_factor,
	    "high_freq_factor", c->rope_scaling.high_freq_factor,
	    "original_max_position_embeddings", c->rope_scaling.original_context);
}

static struct json *
llama_keys(const struct model_config *c)
{
	struct json *o = json_build("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:f, s:f, s:o}", "max_position_embeddings", c->context,
	    "hidden_size", c->d_model, "intermediate_size", c->d_ff, "num_hidden_layers", c->n_layers,
	    "num_attention_heads", c->n_heads, "num_key_value_heads", c->n_kv_heads, "head_dim", c->head_dim,
	    "hidden_act", "silu", "rms_norm_eps", plain(c->norm_eps), "rope_theta", c->rope_theta, "rope_scaling", rope_scaling(c));
	int rc = 0;

	if (c->family != MODEL_FAMILY_QWEN2)
		rc |= json_put(o, "attention_bias", json_new_flag(c->attention_bias));
	if (c->family == MODEL_FAMILY_LLAMA)
		rc |= json_put(o, "mlp_bias", json_new_flag(c->mlp_bias));
	else
		rc |= json_put(o, "use_sliding_window", json_new_flag(false));
	rc |= json_put(o, "attention_dropout", json_new_num(0));
	if (rc != 0)
		json_close(&o);
	return o;
}

/* Both spellings: transformers 4 reads rotary_pct and rotary_emb_base, transformers 5 either. */
static struct json *
neox_keys(const struct model_config *c)
{
	int64_t rotary = c->rotary_dim > 0 ? c->rotary_dim : c->head_dim;

	return json_build("{s:I, s:I, s:I, s:I, s:I, s:s, s:f, s:f, s:f, s:o, s:b, s:b, s:f, s:f}",
	    "max_position_embeddings", c->context, "hidden_size", c->d_model, "intermediate_size", c->d_ff,
	    "num_hidden_layers", c->n_layers, "num_attention_heads", c->n_heads, "hidden_act", "gelu",
	    "layer_norm_eps", plain(c->norm_eps), "rotary_pct", rotary_share(c->head_dim, rotary),
	    "rotary_emb_base", c->rope_theta, "rope_scaling", rope_scaling(c),
	    "use_parallel_residual", c->parallel_residual, "attention_bias", c->attention_bias, "attention_dropout", 0.0,
	    "hidden_dropout", 0.0);
}

int
weights_config_save(const char *dir, const struct model_config *c, enum weights_dtype dtype, struct weights_file *out,
    struct err_note *note)
{
	/* torch_dtype is read by transformers 4 and 5. */
	const char *dtype_text = dtype == WEIGHTS_F16 ? "float16" : dtype == WEIGHTS_BF16 ? "bfloat16" : "float32";
	struct json *o = json_build("{s:[s], s:s, s:I}", "architectures", model_traits(c->family)->architecture,
	    "model_type", model_family_name(c->family), "vocab_size", c->vocab_size);
	char *text = NULL;
	int rc = json_merge(o, c->family == MODEL_FAMILY_GPT2 ? gpt2_keys(c) :
	    c->family == MODEL_FAMILY_NEOX ? neox_keys(c) : llama_keys(c));

	rc |= json_merge(o, json_build("{s:b, s:f, s:o, s:o, s:s}", "tie_word_embeddings", c->tied,
	    "initializer_range", plain(c->initializer_range), "bos_token_id", id_value(c->bos_id),
	    "eos_token_id", id_value(c->eos_id), "torch_dtype", dtype_text));
	if (rc != 0 || (text = json_print(o, true)) == NULL)
		rc = err_note_set(note, ENOMEM, "%s/config.json", dir);
	else
		rc = weights_file_write(dir, "config.json", text, strlen(text), out, note);
	free(text);
	json_close(&o);
	return rc;
}
