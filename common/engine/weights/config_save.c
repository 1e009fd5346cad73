/* SPDX-License-Identifier: Apache-2.0 */
/* config_save - writes config.json, by the tables of config_keys.c, for transformers and config.c */
#include "engine/weights/weights_internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/model.h"
#include "engine/weights/config_internal.h"

/* The double with the fewest digits that rounds to this float: 1e-5, not 9.99999974737875e-06. */
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

/* A factor from which load_rotary_part calculates the same number of rotary elements. */
static double
rotary_share(int64_t head_dim, int64_t rotary)
{
	double share = (double)rotary / (double)head_dim;

	return (int64_t)((double)head_dim * share) < rotary ? nextafter(share, 2) : share;
}

static struct json *
number_list(const float *x, int64_t n)
{
	struct json *o = json_new_array();

	for (int64_t i = 0; i < n && o != NULL; i++)
		if (json_push(o, json_new_num(plain(x[i]))) != 0)
			json_close(&o);
	return o;
}

static struct json *
rope_scaling(const struct model_config *c)
{
	int64_t rotary = c->rotary_dim > 0 ? c->rotary_dim : c->head_dim;
	struct json *o;
	int rc = 0;

	if (c->rope_scaling.type == MODEL_ROPE_DEFAULT)
		return json_new_null();
	o = json_build("{s:s}", "rope_type", model_rope_scaling_name(c->rope_scaling.type));
	if (c->rope_scaling.factor > 0)
		rc |= json_put(o, "factor", json_new_num(c->rope_scaling.factor));
	switch (c->rope_scaling.type) {
	case MODEL_ROPE_LLAMA3:
		rc |= json_put(o, "low_freq_factor", json_new_num(c->rope_scaling.low_freq_factor));
		rc |= json_put(o, "high_freq_factor", json_new_num(c->rope_scaling.high_freq_factor));
		break;
	case MODEL_ROPE_YARN:
		rc |= json_put(o, "beta_fast", json_new_num(c->rope_scaling.beta_fast));
		rc |= json_put(o, "beta_slow", json_new_num(c->rope_scaling.beta_slow));
		if (c->rope_scaling.mscale > 0)
			rc |= json_put(o, "mscale", json_new_num(c->rope_scaling.mscale));
		if (c->rope_scaling.mscale_all_dim > 0)
			rc |= json_put(o, "mscale_all_dim", json_new_num(c->rope_scaling.mscale_all_dim));
		if (c->rope_scaling.no_truncate)
			rc |= json_put(o, "truncate", json_new_flag(false));
		break;
	case MODEL_ROPE_LONGROPE:
		rc |= json_put(o, "short_factor", number_list(c->rope_scaling.short_factor, rotary / 2));
		rc |= json_put(o, "long_factor", number_list(c->rope_scaling.long_factor, rotary / 2));
		break;
	default:
		break;
	}
	if (c->rope_scaling.attention_factor > 0)
		rc |= json_put(o, "attention_factor", json_new_num(c->rope_scaling.attention_factor));
	if (c->rope_scaling.original_context > 0)
		rc |= json_put(o, "original_max_position_embeddings", json_new_int(c->rope_scaling.original_context));
	if (rc != 0)
		json_close(&o);
	return o;
}

/* GPT-NeoX: transformers 4 reads only rotary_pct and rotary_emb_base, transformers 5 also the newer names. */
static int
put_rope(struct json *o, const struct model_config *c)
{
	const struct model_traits *t = model_traits(c->family);
	bool neox = c->family == MODEL_FAMILY_NEOX;
	int rc = 0;

	if (t->partial_rotary)
		rc |= json_put(o, neox ? "rotary_pct" : "partial_rotary_factor",
		    json_new_num(rotary_share(c->head_dim, c->rotary_dim > 0 ? c->rotary_dim : c->head_dim)));
	rc |= json_put(o, neox ? "rotary_emb_base" : "rope_theta", json_new_num(c->rope_theta));
	if (c->family == MODEL_FAMILY_GEMMA3)
		rc |= json_put(o, "rope_local_base_freq", json_new_num(c->local_theta));
	/*
	 * Phi-3 has a default for this key at the top level, which has priority over the one in rope_scaling.
	 */
	if (c->family == MODEL_FAMILY_PHI3 && c->rope_scaling.original_context > 0)
		rc |= json_put(o, "original_max_position_embeddings", json_new_int(c->rope_scaling.original_context));
	/* OLMo 3: rope_theta alone would apply to both kinds of layers. */
	if (c->family == MODEL_FAMILY_OLMO3) {
		struct json *full = c->rope_scaling.type == MODEL_ROPE_DEFAULT ? json_build("{s:s}", "rope_type", "default") : rope_scaling(c);

		rc |= json_put(full, "rope_theta", json_new_num(c->rope_theta));
		return rc | json_put(o, "rope_parameters", json_build("{s:o, s:{s:s, s:f}}", "full_attention", full, "sliding_attention",
		    "rope_type", "default", "rope_theta", c->local_theta));
	}
	return rc | json_put(o, "rope_scaling", rope_scaling(c));
}

static struct json *
layer_texts(const struct model_config *c, const char *local, const char *global)
{
	struct json *o = json_new_array();

	for (int i = 0; i < c->n_layers && o != NULL; i++)
		if (json_push(o, json_new_text(model_layer_local(c, i) ? local : global)) != 0)
			json_close(&o);
	return o;
}

static int
put_windows(struct json *o, enum windows windows, const struct model_config *c)
{
	struct json *list;
	int rc = 0;

	if (windows == GPT_NEO_TYPES)
		return json_put(o, "window_size", json_new_int(c->window > 0 ? c->window : 256)) |
		    json_put(o, "attention_types", json_build("[[o, i]]", layer_texts(c, "local", "global"), 1));
	if (windows == IF_USED)
		rc |= json_put(o, "use_sliding_window", json_new_flag(c->window > 0));
	if (c->family == MODEL_FAMILY_SMOLLM3) {
		list = json_new_array();
		for (int i = 0; i < c->n_layers; i++)
			rc |= json_push(list, json_new_int(!model_layer_nope(c, i)));
		rc |= json_put(o, "no_rope_layers", list);
	}
	if (windows == NO_WINDOWS || (windows == IF_USED && c->window == 0))
		return rc;
	rc |= json_put(o, "sliding_window", c->window > 0 ? json_new_int(c->window) : json_new_null());
	return windows == ALL_LAYERS ? rc : rc | json_put(o, "layer_types", layer_texts(c, "sliding_attention", "full_attention"));
}

static int
put_key(struct json *o, const struct key *key, const struct model_config *c)
{
	const void *at = (const char *)c + key->at;

	switch (key->kind) {
	case FLAG:
		return json_put(o, key->name, json_new_flag(*(const bool *)at));
	case NOT:
		return json_put(o, key->name, json_new_flag(!*(const bool *)at));
	case SCALE:
		return json_put(o, key->name, json_new_num(plain(*(const float *)at != 0 ? *(const float *)at :
		    key->at == AT(attention_scale) ? 1 / sqrtf((float)c->head_dim) : 1)));
	case INVERSE:
		return json_put(o, key->name, json_new_num(*(const float *)at != 0 ? plain((float)(1 / (double)*(const float *)at)) : 1));
	case INVERSE_ROOT: {
		double scale = (double)*(const float *)at, square = scale != 0 ? 1 / (scale * scale) : (double)c->head_dim;

		/* transformers requires a whole number */
		return json_put(o, key->name, fabs(square - nearbyint(square)) < 1e-4 * square ? json_new_int((int64_t)nearbyint(square)) :
													 json_new_num(square));
	}
	case CAP:
		return json_put(o, key->name, *(const float *)at != 0 ? json_new_num(plain(*(const float *)at)) : json_new_null());
	case ONLY_TRUE:
	case ONLY_FALSE:
		return json_put(o, key->name, json_new_flag(key->kind == ONLY_TRUE));
	case ONLY_NULL:
		return json_put(o, key->name, json_new_null());
	case ZERO:
		return json_put(o, key->name, json_new_num(0));
	}
	return 0;
}

static struct json *
family_keys(const struct model_config *c)
{
	const struct family *f = &weights__families[c->family];
	const struct names *n = f->names;
	const struct model_traits *t = model_traits(c->family);
	enum model_activation activation = model_activation(c);
	bool torch = activation == MODEL_GELU_NEW && (t->gated || c->family == MODEL_FAMILY_BIGCODE || c->family == MODEL_FAMILY_STARCODER2);
	struct json *o = json_build("{s:I, s:I, s:I, s:I, s:I, s:s}", n->context, c->context, n->d_model, c->d_model, n->n_layers, c->n_layers,
	    n->n_heads, c->n_heads, n->d_ff, c->d_ff, n->activation, torch ? "gelu_pytorch_tanh" : model_activation_name(activation));
	int rc = 0;

	if (n->n_kv_heads != NULL)
		rc |= json_put(o, n->n_kv_heads, json_new_int(c->n_kv_heads));
	if (n->head_dim != NULL)
		rc |= json_put(o, n->head_dim, json_new_int(c->head_dim));
	if (n->eps != NULL)
		rc |= json_put(o, n->eps, json_new_num(plain(c->norm_eps)));
	for (const struct key *key = f->keys; key->name != NULL; key++)
		rc |= put_key(o, key, c);
	if (t->rope)
		rc |= put_rope(o, c);
	rc |= put_windows(o, f->windows, c);
	if (c->family == MODEL_FAMILY_MINICPM) {
		rc |= json_put(o, "scale_depth", json_new_num(plain((c->residual_scale != 0 ? c->residual_scale : 1) * sqrtf((float)c->n_layers))));
		rc |= json_put(o, "dim_model_base", json_new_num(plain((c->output_scale != 0 ? c->output_scale : 1) * (float)c->d_model)));
	}
	/* Some classes of transformers have a default padding id that may lie beyond a small vocabulary. */
	if (!t->grows)
		rc |= json_put(o, "pad_token_id", json_new_null());
	if (c->family == MODEL_FAMILY_OPT)
		rc |= json_put(o, "word_embed_proj_dim", json_new_int(c->d_model));
	if (rc != 0)
		json_close(&o);
	return o;
}

int
weights_config_save_more(const char *dir, const struct model_config *c, enum weights_dtype dtype, struct json *more,
    struct weights_file *out, struct err_note *note)
{
	/* torch_dtype is read by transformers 4 and 5. */
	const char *dtype_text = dtype == WEIGHTS_F16 ? "float16" : dtype == WEIGHTS_BF16 ? "bfloat16" : "float32";
	struct json *o = json_build("{s:[s], s:s, s:I}", "architectures", model_traits(c->family)->architecture,
	    "model_type", model_family_name(c->family), "vocab_size", c->vocab_size);
	char *text = NULL;
	int rc = json_merge(o, family_keys(c));

	rc |= json_merge(o, json_build("{s:b, s:f, s:o, s:o, s:s}", "tie_word_embeddings", c->tied,
	    weights__families[c->family].names->init_std, plain(c->initializer_range), "bos_token_id", id_value(c->bos_id),
	    "eos_token_id", id_value(c->eos_id), "torch_dtype", dtype_text));
	rc |= json_merge(o, more);
	if (rc != 0 || (text = json_print(o, true)) == NULL)
		rc = err_note_set(note, ENOMEM, "%s/config.json", dir);
	else
		rc = weights_file_write(dir, "config.json", text, strlen(text), out, note);
	free(text);
	json_close(&o);
	return rc;
}

int
weights_config_save(const char *dir, const struct model_config *c, enum weights_dtype dtype, struct weights_file *out,
    struct err_note *note)
{
	return weights_config_save_more(dir, c, dtype, json_new_object(), out, note);
}
