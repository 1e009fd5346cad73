/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model_internal - tensors by their role in the computation, independent of their names.
 */
#ifndef SALT_MODEL_INTERNAL_H
#define SALT_MODEL_INTERNAL_H

#include "engine/model/model.h"

/*
 * A tensor's role in the computation. Families differ in names, in layouts and in the roles that exist. Where
 * a family stores q, k and v separately, they are adjacent in the flat array (weights, then biases).
 * ROLE_QKV_* is then used as one matrix [(H+2K) D, C]; ROLE_KEY_* and ROLE_VALUE_* serve only to read and
 * write files. GPT-NeoX's matrix has q, k and v of each head side by side: see model__heads (session.h).
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

/* DIM_QN, DIM_KN: gains of the norms of queries and keys. DIM_2F: gate and up in one matrix. */
enum model__dim { DIM_NONE, DIM_V, DIM_CONTEXT, DIM_C, DIM_F, DIM_2F, DIM_Q, DIM_KV, DIM_QKV, DIM_QN, DIM_KN, DIM_COUNT };
enum model__where { BEFORE, LAYER, AFTER };
enum model__when {
	ALWAYS, IF_UNTIED, IF_ATTENTION_BIAS, IF_OUTPUT_BIAS, IF_QK_NORM, IF_MLP_BIAS,
	IF_GAIN, IF_BEFORE, IF_BEFORE_ONLY, IF_AFTER, IF_BOTH, IF_NORM_BIAS,	/* norms around a branch */
	IF_APART, IF_FUSED_QKV, IF_GATE, IF_FUSED_GATE, IF_UP, IF_GATE_BIAS
};
enum model__start { NORMAL, RESIDUAL, GAIN, ZEROS };	/* GAIN: 1, or 0 where norms multiply by 1 + g */

/* One tensor of a family, or of each of its layers. */
struct model__row {
	const char *name;		/* %d stands for the layer */
	enum role role;
	enum model__where where;
	enum model__dim dims[2];
	enum model__start start;
	enum model__when when;
};

/* The tensors of a family in canonical order. */
const struct model__row *model__rows(enum model_family family, size_t *n);

/*
 * Index in the tensor table of a layer's tensor with that role (layer as in model_tensor.layer); -1: there is
 * none.
 */
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

/* base: a flat array of the whole model in dtype, the parameters or their gradients. */
void model__layer_views(const struct model *m, void *base, enum dtype dtype, int layer, struct model__layer *out);
void model__ends_views(const struct model *m, void *base, enum dtype dtype, struct model__ends *out);

/* Number of leading elements of a head to which rope applies. */
int64_t model__rotary_dim(const struct model_config *cfg);

/*
 * Sets of rotary frequencies: the general one, the one for sequences beyond LongRoPE's original context, and
 * the one of local layers with a theta of their own.
 */
enum model__rope { MODEL__ROPE_GLOBAL, MODEL__ROPE_LONG, MODEL__ROPE_LOCAL, MODEL__ROPE_COUNT };

/*
 * model__rope_freq - inverse frequencies into out[model__rotary_dim / 2], rounded to fp32 at the same steps
 * as in transformers.
 */
void model__rope_freq(const struct model_config *cfg, enum model__rope which, float *out);
/* The factor of cosines and sines. */
float model__rope_magnitude(const struct model_config *cfg, enum model__rope which);
/* The set that a layer uses with sequences of t tokens. */
enum model__rope model__rope_of(const struct model_config *cfg, int layer, int64_t t);

/*
 * model__targets_check - rejects targets that model_loss cannot use; the note has row, id and value. Rejected
 * are: an id outside 0..V-1, sparse ids of a row that do not ascend, a weight outside 0..1, a loss weight
 * that is negative or not finite; and in rows with weight > 0: no soft label, a probability that is negative
 * or not a number, a sum over 1 (dense: not 1) by more than 1e-3, a sum of 0 that is to be renormalised. Rows
 * without a next token are not checked. n_rows: the expected number of rows, B*T. Returns 0 or ERR_RANGE.
 */
int model__targets_check(const struct model_config *cfg, const struct kernels_targets *targets, int64_t n_rows, struct err_note *note);

#endif
