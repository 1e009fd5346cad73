/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config - reads config.json of the supported families, by the tables of config_keys.c. A key that changes
 * outputs is either supported or rejected by name. Other keys are ignored: the family's implementation in
 * transformers does not read them either.
 */
#include "engine/weights/weights_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/model/model.h"
#include "engine/weights/config_internal.h"

#define MAX_CONFIG_BYTES ((size_t)4 << 20)
#define MAX_SIZE (INT64_C(1) << 31)		/* limit of each dimension by itself */

/* A file being read. rc keeps the first failure; all later reads are skipped. */
struct reader {
	const char *path;
	const struct json *root;
	const char *parent;			/* key of the object that root is: "rope_scaling", or "" at
						 * the top level */
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

/* Any JSON value as one line of text. */
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

/* True if there is no such key or its value is null. */
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

/* Reads a finite number above 0. */
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

/* Rejects the key unless it is absent or has this value. */
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

/* Reads bos or eos: an id, null, or (Llama 3) a list, of which the first item is used. */
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
load_sizes(struct reader *r, const struct names *n, struct model_config *c)
{
	const struct model_traits *t = model_traits(c->family);

	c->context = size_key(r, n->context);
	c->d_model = size_key(r, n->d_model);
	c->n_layers = size_key(r, n->n_layers);
	c->n_heads = c->n_kv_heads = size_key(r, n->n_heads);
	if (n->n_kv_heads != NULL)
		c->n_kv_heads = n->needs_kv_heads ? size_key(r, n->n_kv_heads) : size_key_or(r, n->n_kv_heads, c->n_heads);
	if (t->one_key_head)
		c->n_kv_heads = 1;
	c->d_ff = t->whole_heads || t->one_key_head || c->family == MODEL_FAMILY_PHI ? size_key_or(r, n->d_ff, 4 * c->d_model) :
											  size_key(r, n->d_ff);
	if (n->needs_head_dim && r->rc == 0 && absent(r, n->head_dim))
		size_key(r, n->head_dim);		/* reports the missing key */
	if (r->rc == 0 && (n->head_dim == NULL || absent(r, n->head_dim)) && c->d_model % c->n_heads != 0) {
		char expected[64];

		snprintf(expected, sizeof(expected), "a divisor of %s", n->d_model);
		fail_value(r, ERR_RANGE, n->n_heads, expected);
	}
	c->head_dim = n->head_dim != NULL ? size_key_or(r, n->head_dim, c->d_model / c->n_heads) : c->d_model / c->n_heads;
	if (r->rc == 0 && c->n_heads % c->n_kv_heads != 0)
		fail_value(r, ERR_RANGE, n->n_kv_heads, "a divisor of num_attention_heads");
}

/* Several names mean one formula: gelu_new and gelu_pytorch_tanh, silu and swish. */
static void
load_activation(struct reader *r, const struct names *n, struct model_config *c)
{
	static const struct {
		const char *name;
		enum model_activation activation;
	} rows[] = {
		{"gelu_new", MODEL_GELU_NEW}, {"gelu_pytorch_tanh", MODEL_GELU_NEW}, {"gelu", MODEL_GELU}, {"silu", MODEL_SILU},
		{"swish", MODEL_SILU}, {"relu", MODEL_RELU}, {"relu2", MODEL_RELU2},
	};
	const struct model_traits *t = model_traits(c->family);
	const char *expected = t->gated ? "silu, swish or gelu_pytorch_tanh" : "gelu, gelu_new, gelu_pytorch_tanh, relu or relu2", *text;
	enum model_activation found = MODEL_ACTIVATION_FAMILY;

	if (r->rc != 0 || absent(r, n->activation))
		return;
	if (!json_text(json_get(r->root, n->activation), &text)) {
		fail_value(r, ERR_FORMAT, n->activation, expected);
		return;
	}
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (strcmp(rows[i].name, text) == 0)
			found = rows[i].activation;
	if (c->family == MODEL_FAMILY_GEMMA && found == MODEL_GELU)
		found = MODEL_GELU_NEW;		/* as transformers does for Gemma's first files */
	if (found == MODEL_ACTIVATION_FAMILY || t->gated != (found == MODEL_SILU || (t->gated && found == MODEL_GELU_NEW)))
		fail_value(r, ERR_UNSUPPORTED, n->activation, expected);
	else
		c->activation = found != t->activation ? found : MODEL_ACTIVATION_FAMILY;
}

static void
load_key(struct reader *r, const struct key *key, struct model_config *c)
{
	void *at = (char *)c + key->at;

	switch (key->kind) {
	case FLAG:
		*(bool *)at = flag_key(r, key->name, *(bool *)at);
		break;
	case NOT:
		*(bool *)at = !flag_key(r, key->name, !*(bool *)at);
		break;
	case SCALE:
		*(float *)at = (float)positive_key_or(r, key->name, (double)*(float *)at);
		break;
	case INVERSE:
		if (!absent(r, key->name))
			*(float *)at = (float)(1 / positive_key(r, key->name));
		break;
	case INVERSE_ROOT:
		if (!absent(r, key->name))
			*(float *)at = (float)(1 / sqrt(positive_key(r, key->name)));
		break;
	case CAP:
		if (json_get(r->root, key->name) != NULL)
			*(float *)at = (float)positive_key_or(r, key->name, 0);
		break;
	case ONLY_TRUE:
	case ONLY_FALSE:
		only_flag(r, key->name, key->kind == ONLY_TRUE);
		break;
	case ONLY_NULL:
		only_absent(r, key->name, "nothing, or null");
		break;
	case ZERO:
		break;
	}
}

static void
set_layer(uint64_t *layers, int64_t i, bool on)
{
	uint64_t bit = UINT64_C(1) << i % 64;

	if (i < MODEL_MAX_LISTED)
		layers[i / 64] = on ? layers[i / 64] | bit : layers[i / 64] & ~bit;
}

/* True if the key has a list with one item per layer; false if it is absent or invalid. */
static bool
layer_list(struct reader *r, const char *key, const struct model_config *c)
{
	const struct json *list = json_get(r->root, key);

	if (r->rc != 0 || absent(r, key))
		return false;
	if (json_kind(list) != JSON_KIND_ARRAY || (int64_t)json_count(list) != c->n_layers || c->n_layers > MODEL_MAX_LISTED)
		fail_value(r, ERR_FORMAT, key, "a list with an item for each layer, at most 1024");
	return r->rc == 0;
}

static void
load_layer_types(struct reader *r, struct model_config *c)
{
	const struct json *types = json_get(r->root, "layer_types");
	const char *type;

	if (!layer_list(r, "layer_types", c))
		return;
	for (int64_t i = 0; i < c->n_layers && r->rc == 0; i++) {
		if (!json_text(json_item(types, (size_t)i), &type) || (strcmp(type, "full_attention") != 0 && strcmp(type, "sliding_attention") != 0))
			fail_value(r, ERR_UNSUPPORTED, "layer_types", "full_attention or sliding_attention for each layer");
		else
			set_layer(c->local_layers, i, strcmp(type, "sliding_attention") == 0);
	}
}

/* Qwen: windows from layer max_window_layers on, if use_sliding_window. SmolLM3: in layers without rope. */
static void
load_used_windows(struct reader *r, struct model_config *c)
{
	bool qwen = c->family != MODEL_FAMILY_SMOLLM3, used = flag_key(r, "use_sliding_window", false);
	int64_t from = qwen && used ? 28 : 0;

	if (qwen && used && !absent(r, "max_window_layers")) {
		if (!json_int(json_get(r->root, "max_window_layers"), &from) || from < 0)
			fail_value(r, ERR_FORMAT, "max_window_layers", "a number of layers");
	}
	c->window = used ? size_key_or(r, "sliding_window", qwen && json_get(r->root, "sliding_window") == NULL ? 4096 : 0) : 0;
	for (int64_t i = 0; i < c->n_layers && i < MODEL_MAX_LISTED; i++)
		set_layer(c->local_layers, i, qwen ? i >= from : model_layer_nope(c, (int)i));
	load_layer_types(r, c);
	for (int64_t i = 0; i < c->n_layers && r->rc == 0 && c->window == 0; i++) {
		if (!used && qwen && i < MODEL_MAX_LISTED && !absent(r, "layer_types") && (c->local_layers[i / 64] >> i % 64 & 1))
			fail_value(r, ERR_UNSUPPORTED, "layer_types",
			    "full_attention in every layer, because use_sliding_window is not true");
	}
}

/* [[["global", "local"], 6]]: a list of kinds, and how often it is repeated. */
static void
load_gpt_neo_types(struct reader *r, struct model_config *c)
{
	const struct json *groups = json_get(r->root, "attention_types");
	int64_t n = 0, times;
	const char *type;

	c->window = size_key_or(r, "window_size", c->window);
	for (size_t g = 0; g < json_count(groups) && r->rc == 0; g++) {
		const struct json *kinds = json_item(json_item(groups, g), 0);

		if (!json_int(json_item(json_item(groups, g), 1), &times) || times < 0 || times > MODEL_MAX_LISTED)
			fail_value(r, ERR_FORMAT, "attention_types", "lists of [kinds, repetitions]");
		for (int64_t i = 0; i < times && r->rc == 0; i++)
			for (size_t j = 0; j < json_count(kinds) && r->rc == 0; j++, n++) {
				if (!json_text(json_item(kinds, j), &type) || (strcmp(type, "global") != 0 && strcmp(type, "local") != 0))
					fail_value(r, ERR_UNSUPPORTED, "attention_types", "global and local");
				else
					set_layer(c->local_layers, n, strcmp(type, "local") == 0);
			}
	}
	if (r->rc == 0 && !absent(r, "attention_types") && n != c->n_layers)
		fail_value(r, ERR_RANGE, "attention_types", "as many kinds as layers");
}

static void
load_windows(struct reader *r, enum windows windows, struct model_config *c)
{
	const char *pattern = absent(r, "sliding_window_pattern") ? "_sliding_window_pattern" : "sliding_window_pattern";
	const struct json *list = json_get(r->root, "no_rope_layers");
	int64_t flag;

	if (c->family == MODEL_FAMILY_SMOLLM3) {
		int64_t interval = size_key_or(r, "no_rope_layer_interval", 4);

		for (int64_t i = 0; i < c->n_layers && i < MODEL_MAX_LISTED; i++)
			set_layer(c->nope_layers, i, (i + 1) % interval == 0);
		for (int64_t i = 0; layer_list(r, "no_rope_layers", c) && i < c->n_layers; i++) {
			if (!json_int(json_item(list, (size_t)i), &flag) || (flag != 0 && flag != 1))
				fail_value(r, ERR_FORMAT, "no_rope_layers", "1 for a layer with rope, 0 for one without");
			set_layer(c->nope_layers, i, flag == 0);
		}
	}
	if (windows == IF_USED) {
		load_used_windows(r, c);
		return;
	}
	if (windows == GPT_NEO_TYPES) {
		load_gpt_neo_types(r, c);
		return;
	}
	if (windows == NO_WINDOWS) {
		only_absent(r, "sliding_window", "no sliding_window (this family has no windows)");
		load_layer_types(r, c);
		for (int64_t i = 0; i < c->n_layers && i < MODEL_MAX_LISTED && r->rc == 0; i++)
			if (c->local_layers[i / 64] >> i % 64 & 1)
				fail_value(r, ERR_UNSUPPORTED, "layer_types", "full_attention in every layer");
		return;
	}
	if (json_get(r->root, "sliding_window") != NULL)
		c->window = size_key_or(r, "sliding_window", 0);
	if (c->family == MODEL_FAMILY_GEMMA3 && !absent(r, pattern)) {
		int64_t period = size_key(r, pattern);

		for (int64_t i = 0; i < c->n_layers && i < MODEL_MAX_LISTED; i++)
			set_layer(c->local_layers, i, (i + 1) % period != 0);
	}
	if (windows == SOME_LAYERS)
		load_layer_types(r, c);
	else if (!absent(r, "layer_types"))
		load_layer_types(r, c);
}

/* Sets the number of rotary elements of a head, rounded as in transformers: (int)(head_dim * factor). */
static void
load_rotary_part(struct reader *r, const char *key, struct model_config *c)
{
	double part = positive_key_or(r, key, 1);

	if (r->rc != 0)
		return;
	c->rotary_dim = part <= 1 ? (int64_t)((double)c->head_dim * part) : 0;
	if (!model_traits(c->family)->partial_rotary) {
		if (part != 1)
			fail_value(r, ERR_UNSUPPORTED, key, "1");
		c->rotary_dim = 0;
	} else if (c->rotary_dim < 2 || c->rotary_dim % 2 != 0) {
		fail_value(r, ERR_RANGE, key, "a share of the head: an even number of elements, at least 2");
	}
}

static void
load_factors(struct reader *r, const char *key, float *out, int64_t n)
{
	const struct json *list = json_get(r->root, key);
	double v = 0;

	if (r->rc != 0)
		return;
	if (json_kind(list) != JSON_KIND_ARRAY || (int64_t)json_count(list) != n || n > MODEL_MAX_ROTARY / 2)
		fail_value(r, ERR_FORMAT, key, "a list of numbers, one for each pair of a head's rotary elements (at most 256)");
	for (int64_t i = 0; i < n && r->rc == 0; i++) {
		if (!json_num(json_item(list, (size_t)i), &v) || !(v > 0))
			fail_value(r, ERR_FORMAT, key, "numbers above 0");
		out[i] = (float)v;
	}
}

static void
load_scaling(struct reader *r, struct reader *top, const char *type_key, struct model_config *c)
{
	static const char *const kinds = "default, linear, dynamic, yarn, llama3 or longrope";
	int64_t rotary = c->rotary_dim > 0 ? c->rotary_dim : c->head_dim;
	const char *type, *original = "original_max_position_embeddings";
	bool found = false;

	if (!json_text(json_get(r->root, type_key), &type)) {
		fail_value(r, ERR_FORMAT, type_key, kinds);
		return;
	}
	if (strcmp(type, "su") == 0)
		type = "longrope";		/* its name in Phi-3's first files */
	for (int i = MODEL_ROPE_DEFAULT; i <= MODEL_ROPE_LONGROPE; i++)
		if (strcmp(type, model_rope_scaling_name((enum model_rope_scaling)i)) == 0) {
			c->rope_scaling.type = (enum model_rope_scaling)i;
			found = true;
		}
	if (!found) {
		fail_value(r, ERR_UNSUPPORTED, type_key, kinds);
		return;
	}
	only_absent(r, "alpha", "no alpha (only factor is supported)");
	switch (c->rope_scaling.type) {
	case MODEL_ROPE_DEFAULT:
		return;
	case MODEL_ROPE_LINEAR:
	case MODEL_ROPE_DYNAMIC:
		c->rope_scaling.factor = positive_key(r, "factor");
		return;
	case MODEL_ROPE_LLAMA3:
		c->rope_scaling.factor = positive_key(r, "factor");
		c->rope_scaling.low_freq_factor = positive_key(r, "low_freq_factor");
		c->rope_scaling.high_freq_factor = positive_key(r, "high_freq_factor");
		break;
	case MODEL_ROPE_YARN:
		c->rope_scaling.factor = positive_key_or(r, "factor", 0);
		c->rope_scaling.beta_fast = positive_key_or(r, "beta_fast", 32);
		c->rope_scaling.beta_slow = positive_key_or(r, "beta_slow", 1);
		c->rope_scaling.mscale = positive_key_or(r, "mscale", 0);
		c->rope_scaling.mscale_all_dim = positive_key_or(r, "mscale_all_dim", 0);
		c->rope_scaling.attention_factor = positive_key_or(r, "attention_factor", 0);
		c->rope_scaling.no_truncate = !flag_key(r, "truncate", true);
		break;
	case MODEL_ROPE_LONGROPE:
		c->rope_scaling.factor = positive_key_or(r, "factor", 0);
		c->rope_scaling.attention_factor = positive_key_or(r, "attention_factor", 0);
		load_factors(r, "short_factor", c->rope_scaling.short_factor, rotary / 2);
		load_factors(r, "long_factor", c->rope_scaling.long_factor, rotary / 2);
		break;
	}
	/* A value at the top level has priority, as in transformers. */
	c->rope_scaling.original_context = size_key_or(absent(top, original) ? r : top, original, c->context);
	if (r->rc == 0 && c->rope_scaling.type == MODEL_ROPE_LLAMA3 &&
	    !(c->rope_scaling.high_freq_factor > c->rope_scaling.low_freq_factor))
		fail_value(r, ERR_RANGE, "high_freq_factor", "more than low_freq_factor");
}

/* Reads one object of rope_scaling or rope_parameters. */
static void
load_rope_object(struct reader *r, struct reader *top, struct model_config *c)
{
	const char *key = absent(r, "rope_type") ? "type" : "rope_type";

	c->rope_theta = positive_key_or(r, "rope_theta", c->rope_theta);
	if (!absent(r, "partial_rotary_factor"))
		load_rotary_part(r, "partial_rotary_factor", c);
	for (void *it = json_first(r->root); it != NULL && r->rc == 0; it = json_next(r->root, it))
		if (json_kind(json_value(it)) == JSON_KIND_OBJECT)
			fail_value(r, ERR_UNSUPPORTED, json_key(it), "one rule for all layers");
	if (r->rc == 0 && !absent(r, key))
		load_scaling(r, top, key, c);
	else if (r->rc == 0 && !absent(r, "factor"))
		fail(r, ERR_FORMAT, "rope_type", "default, linear, dynamic, yarn, llama3 or longrope",
		    "no rope_type, but a factor");
}

/*
 * Reads rope_theta and rope_scaling (type or rope_type), or both from rope_parameters, as transformers 5
 * writes them. For families whose local layers have their own theta, rope_parameters may have one object per
 * kind of layer. GPT-NeoX's own names are rotary_emb_base and rotary_pct.
 */
static void
load_rope(struct reader *top, struct model_config *c)
{
	const struct model_traits *t = model_traits(c->family);
	bool neox = c->family == MODEL_FAMILY_NEOX, local = t->start.local_theta > 0;
	const char *parent = absent(top, "rope_parameters") ? "rope_scaling" : "rope_parameters";
	struct reader r = *top, full;

	c->rope_theta = positive_key_or(top, neox && !absent(top, "rotary_emb_base") ? "rotary_emb_base" : "rope_theta", c->rope_theta);
	if (local && c->family == MODEL_FAMILY_GEMMA3)
		c->local_theta = positive_key_or(top, "rope_local_base_freq", c->local_theta);
	else if (local && !absent(top, "rope_theta"))
		c->local_theta = c->rope_theta;
	only_flag(top, "rope_interleaved", false);
	if (neox && !absent(top, "rotary_pct"))
		load_rotary_part(top, "rotary_pct", c);
	else if (!absent(top, "partial_rotary_factor"))
		load_rotary_part(top, "partial_rotary_factor", c);
	if (!absent(top, "rope_parameters"))
		only_absent(top, "rope_scaling", "no rope_scaling together with rope_parameters");
	if (top->rc != 0 || absent(top, parent))
		return;
	if (json_kind(json_get(top->root, parent)) != JSON_KIND_OBJECT) {
		fail_value(top, ERR_FORMAT, parent, "an object");
		return;
	}
	r.root = json_get(top->root, parent);
	r.parent = parent;
	if (local && json_kind(json_get(r.root, "full_attention")) == JSON_KIND_OBJECT) {
		struct reader sliding = r;

		full = r;
		full.root = json_get(r.root, "full_attention");
		load_rope_object(&full, top, c);
		sliding.root = json_get(r.root, "sliding_attention");
		r.rc = full.rc;
		if (r.rc == 0 && json_kind(sliding.root) == JSON_KIND_OBJECT) {
			const char *type;

			c->local_theta = positive_key_or(&sliding, "rope_theta", c->local_theta);
			if (!absent(&sliding, "rope_type") && (!json_text(json_get(sliding.root, "rope_type"), &type) || strcmp(type, "default") != 0))
				fail_value(&sliding, ERR_UNSUPPORTED, "rope_type", "default in sliding_attention");
			r.rc = sliding.rc;
		}
	} else {
		load_rope_object(&r, top, c);
	}
	if (top->rc == 0)
		top->rc = r.rc;
}

/* MiniCPM: residual_scale is scale_depth / sqrt(layers), output_scale is dim_model_base / width. */
static void
load_minicpm(struct reader *r, struct model_config *c)
{
	if (!absent(r, "scale_depth"))
		c->residual_scale = (float)(positive_key(r, "scale_depth") / sqrt((double)c->n_layers));
	if (!absent(r, "dim_model_base"))
		c->output_scale = (float)(positive_key(r, "dim_model_base") / (double)c->d_model);
	only_absent(r, "num_experts", "no mixture of experts");
}

static void
load_family(struct reader *r, struct model_config *c)
{
	const struct family *f = &weights__families[c->family];
	const struct model_traits *t = model_traits(c->family);

	load_sizes(r, f->names, c);
	model_family_start(c);
	if (f->names->eps != NULL)
		c->norm_eps = (float)positive_key_or(r, f->names->eps, (double)c->norm_eps);
	c->tied = flag_key(r, "tie_word_embeddings", c->tied);
	for (const struct key *key = f->keys; key->name != NULL; key++)
		load_key(r, key, c);
	if (t->rope) {
		if (r->rc == 0 && c->head_dim % 2 != 0)
			fail(r, ERR_RANGE, f->names->head_dim != NULL ? "head_dim" : f->names->n_heads, "an even number (rotary halves)", "an odd one");
		load_rope(r, c);
		if (r->rc == 0 && t->partial_rotary && c->rotary_dim != 0 && (c->rotary_dim < 2 || c->rotary_dim % 2 != 0))
			fail(r, ERR_RANGE, c->family == MODEL_FAMILY_NEOX ? "rotary_pct" : "partial_rotary_factor",
			    "a share of the head: an even number of elements, at least 2", "the default");
	}
	load_windows(r, f->windows, c);
	if (c->family == MODEL_FAMILY_MINICPM)
		load_minicpm(r, c);
	if (c->family == MODEL_FAMILY_OPT && size_key_or(r, "word_embed_proj_dim", c->d_model) != c->d_model && r->rc == 0)
		fail_value(r, ERR_UNSUPPORTED, "word_embed_proj_dim", "hidden_size");
	if (c->family == MODEL_FAMILY_GEMMA && !absent(r, "hidden_activation")) {
		struct names n = *f->names;

		n.activation = "hidden_activation";
		load_activation(r, &n, c);
	} else {
		load_activation(r, f->names, c);
	}
	c->initializer_range = (float)positive_key_or(r, f->names->init_std, (double)c->initializer_range);
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
	only_absent(&r, "quantization_config", "no quantization: weights in F32, F16 or BF16");
	only_flag(&r, "is_causal", true);
	c.vocab_size = size_key(&r, "vocab_size");
	c.bos_id = id_key(&r, "bos_token_id");
	c.eos_id = id_key(&r, "eos_token_id");
	if (r.rc == 0)
		load_family(&r, &c);
	if (r.rc == 0)
		*out = c;
	json_close(&root);
	return r.rc;
}
