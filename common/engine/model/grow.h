/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grow - makes a larger model of the same family from a small one; at first it computes the same logits.
 *
 * Width. Elements of the residual stream, heads and feed-forward units are cloned (Net2Net, arXiv
 * 1511.05641; function preserving initialization of bert2BERT, arXiv 2110.07143): element i of a grown
 * dimension is a copy of element i mod n of the small one. A matrix that reads a cloned dimension divides
 * its weights by the number of copies; where the output layer is the embedding, the final norm does. Heads
 * keep their size, so rotary embedding and the scale of attention do not change.
 * The residual stream holds whole copies only, since norms need equal numbers of each element. If the new
 * width is not a multiple of the old one, the elements after the last whole copy start as 0, or with
 * LayerNorm as the mean of the others (LEMON, arXiv 2310.07999): mean and sum of squares are then those of
 * the copies. Gains and norm_eps are scaled, because the norm divides by more elements. Weights that read
 * such an element are random; they have no effect until something is written there.
 *
 * Depth. Identity: every new layer is a copy of the layer before it whose two projections into the
 * residual stream are zero (LLaMA Pro, arXiv 2401.02415). Stack: the whole stack is repeated (G_stack,
 * arXiv 2405.15319), which computes something else.
 *
 * Noise. Copies get the same gradients and would stay equal forever. So the weights that read a cloned
 * dimension get noise, which adds up to zero over the copies of an element: the logits do not change, and the
 * copies learn different things from the first step.
 */
#ifndef SALT_MODEL_GROW_H
#define SALT_MODEL_GROW_H

#include "engine/model/model.h"

struct model_growth_options {
	/* 0: as in the small model; heads and feed-forward units in proportion to the width */
	int64_t layers, width, heads, kv_heads, ff;
	bool stack;			/* depth: stack; false: identity */
	float noise;			/* standard deviation, relative to that of the matrix */
	uint32_t seed;			/* seed of noise and random weights */
};

/*
 * model_growth_new - from and params (all of its parameters, fp32, host memory) must outlive g. No dimension
 * may be smaller than in the small model. Where heads are not given, or must fill the width (GPT-2,
 * GPT-NeoX), the width must be a whole number of heads. Groups of key/value heads must hold every small head.
 * Qwen3, whose heads have the same norm_eps, requires a multiple of the width. Returns 0, ENOMEM, ERR_RANGE
 * (note: the option's name, expected, found; also if nothing grows, or if noise is not 0 and nothing is
 * cloned), ERR_UNSUPPORTED (family), or as model_config_check.
 * model_growth_destroy - accepts NULL.
 */
struct model_growth;
int model_growth_new(struct model_growth **g, const struct model *from, const float *params,
    const struct model_growth_options *o, struct err_note *note);
void model_growth_destroy(struct model_growth **g);

/* The tensor table of the grown model, without parameters; valid as long as g. */
const struct model *model_growth_model(const struct model_growth *g);

/*
 * model_growth_read - writes elements [begin, end) of the grown model's flat array into out[end - begin]. It
 * is a pure function of parameters, options and element, for any thread.
 */
void model_growth_read(const struct model_growth *g, int64_t begin, int64_t end, float *out);

#endif
