/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model_internal - tensors by their role in the computation, whatever their names.
 */
#ifndef SALT_MODEL_INTERNAL_H
#define SALT_MODEL_INTERNAL_H

#include "engine/model/model.h"

/*
 * A tensor's place in the computation. Families differ in names, layouts and in which roles exist. Where a
 * family stores q, k and v apart, they are adjacent in the flat array (weights, then biases), so ROLE_QKV_*
 * is used as one matrix [(H+2K) D, C]; ROLE_KEY_* and ROLE_VALUE_* are used only for files. GPT-NeoX's matrix
 * has q, k and v of a head side by side: see model__heads (session.h).
 */
enum role {
	ROLE_TOKEN_EMBED, ROLE_POSITION_EMBED,
	ROLE_NORM1_G, ROLE_NORM1_B, ROLE_QKV_W, ROLE_KEY_W, ROLE_VALUE_W, ROLE_QKV_B, ROLE_KEY_B, ROLE_VALUE_B,
	ROLE_QUERY_NORM_G, ROLE_KEY_NORM_G, ROLE_PROJ_W, ROLE_PROJ_B, ROLE_POST1_G, ROLE_NORM2_G, ROLE_NORM2_B, ROLE_POST2_G,
	ROLE_GATE_W, ROLE_GATE_B, ROLE_UP_W, ROLE_UP_B, ROLE_DOWN_W, ROLE_DOWN_B,
	ROLE_FINAL_G, ROLE_FINAL_B, ROLE_OUTPUT_W, ROLE_OUTPUT_B,
	ROLE_COUNT
};

/* ---- families: family.c ---- */

/* QN, KN: of the norms of queries and keys; 2F: gate and up in one matrix. */
enum model__dim { DIM_NONE, DIM_V, DIM_CONTEXT, DIM_C, DIM_F, DIM_2F, DIM_Q, DIM_KV, DIM_QKV, DIM_QN, DIM_KN, DIM_COUNT };
enum model__where { BEFORE, LAYER, AFTER };
enum model__when {
	ALWAYS, IF_UNTIED, IF_ATTENTION_BIAS, IF_OUTPUT_BIAS, IF_QK_NORM, IF_MLP_BIAS,
	IF_GAIN, IF_BEFORE, IF_BEFORE_ONLY, IF_AFTER, IF_BOTH, IF_NORM_BIAS,	/* of norms: before a branch, after it */
	IF_APART, IF_FUSED_QKV, IF_GATE, IF_FUSED_GATE, IF_UP, IF_GATE_BIAS
};
enum model__start { NORMAL, RESIDUAL, GAIN, ZEROS };	/* GAIN: 1, or 0 where norms multiply by 1 + g */

/* A tensor of a family, or one of every layer. */
struct model__row {
	const char *name;		/* %d: the layer */
	enum role role;
	enum model__where where;
	enum model__dim dims[2];
	enum model__start start;
	enum model__when when;
};

/* The tensors of a family in canonical order. */
const struct model__row *model__rows(enum model_family family, size_t *n);

/* The index in the table of the tensor in that role of a layer (as in model_tensor.layer); -1: there is none. */
int model__tensor(const struct model *m, int layer, enum role role);

/* ---- views ---- */

/* Views of one layer, and of the tensors before and after the layers; absent where the family has none. */
struct model__layer {
	struct tensor norm1_g, norm1_b, qkv_w, qkv_b, query_norm_g, key_norm_g, proj_w, proj_b, post1_g, norm2_g, norm2_b, post2_g;
	struct tensor gate_w, gate_b, up_w, up_b, down_w, down_b;
};

struct model__ends {
	struct tensor token_embed, position_embed, final_g, final_b;
	struct tensor output_w, output_b;	/* output_w: token_embed where tied */
};

/* base: a flat array in dtype of the whole model: the parameters, or their gradients. */
void model__layer_views(const struct model *m, void *base, enum dtype dtype, int layer, struct model__layer *out);
void model__ends_views(const struct model *m, void *base, enum dtype dtype, struct model__ends *out);

/* The number of leading elements of a head to which rope applies. */
int64_t model__rotary_dim(const struct model_config *cfg);

/*
 * Rotary frequencies: of all layers, of global ones beyond LongRoPE's original context, of local ones that
 * have their own.
 */
enum model__rope { MODEL__ROPE_GLOBAL, MODEL__ROPE_LONG, MODEL__ROPE_LOCAL, MODEL__ROPE_COUNT };

/* model__rope_freq - inverse frequencies into out[model__rotary_dim / 2], in fp32 steps as transformers takes them. */
void model__rope_freq(const struct model_config *cfg, enum model__rope which, float *out);
/* The factor of cosines and sines. */
float model__rope_magnitude(const struct model_config *cfg, enum model__rope which);
/* Which of them a layer uses with sequences of t. */
enum model__rope model__rope_of(const struct model_config *cfg, int layer, int64_t t);

/*
 * model__targets_check - what model_loss rejects, with a note of row, id and value: an id outside 0..V-1, or
 * sparse ids of a row not ascending; a weight outside 0..1; of a row with weight > 0: no soft label, a
 * probability that is negative or not a number, a sum over 1 (dense: not 1) by more than 1e-3, nothing to
 * renormalise. n_rows: B*T as it must be. Returns 0 or ERR_RANGE.
 */
int model__targets_check(const struct model_config *cfg, const struct kernels_targets *targets, int64_t n_rows, struct err_note *note);

#endif
