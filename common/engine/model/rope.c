/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rope - inverse frequencies of the rotary embedding.
 *   default  f_j = 1 / theta^(2j/R), R: the number of elements of a head to which rope applies
 *   llama3   wave length l = 2 pi / f. l under original/high: f; l over original/low: f / factor; between:
 *            (1-s) f / factor + s f with s = (original/l - low) / (high - low)
 *   linear   f / factor
 *   dynamic  f (NTK-aware scaling changes it only beyond max_position_embeddings, the longest sequence here)
 *   yarn     (1-k) f / factor + k f, where k falls from 1 to 0 between the dimensions that turn beta_fast and
 *            beta_slow times within the original context (Peng et al., 2023,
 *            https://arxiv.org/abs/2309.00071); cosines and sines times 0.1 ln(factor) + 1
 *   longrope f / factor_j, with one list of factors up to the original context and another one beyond it
 *            (Ding et al., 2024, https://arxiv.org/abs/2402.13753); cosines and sines times
 *            sqrt(1 + ln(factor) / ln(original))
 * Each step is rounded to fp32 as in transformers: at position 10,000 one ulp of f_j is a visible angle.
 */
#include <math.h>

#include "engine/model/model_internal.h"

static float
scale_llama3(const struct model_config *cfg, float f)
{
	double original = (double)cfg->rope_scaling.original_context;
	double low = cfg->rope_scaling.low_freq_factor, high = cfg->rope_scaling.high_freq_factor;
	float factor = (float)cfg->rope_scaling.factor;
	float wave = (float)(2 * 3.14159265358979323846) / f, s;

	if (wave > (float)(original / low))
		return f / factor;
	if (wave < (float)(original / high))
		return f;
	s = ((float)original / wave - (float)low) / (float)(high - low);
	return (1 - s) * f / factor + s * f;
}

int64_t
model__rotary_dim(const struct model_config *cfg)
{
	return cfg->rotary_dim > 0 ? cfg->rotary_dim : cfg->head_dim;
}

enum model__rope
model__rope_of(const struct model_config *cfg, int layer, int64_t t)
{
	if (cfg->local_theta > 0 && model_layer_local(cfg, layer))
		return MODEL__ROPE_LOCAL;
	return cfg->rope_scaling.type == MODEL_ROPE_LONGROPE && t > cfg->rope_scaling.original_context ? MODEL__ROPE_LONG :
													 MODEL__ROPE_GLOBAL;
}

/* The configuration's factor, or its default (struct model_config). */
static double
factor_of(const struct model_config *cfg)
{
	return cfg->rope_scaling.factor > 0 ? cfg->rope_scaling.factor :
					      (double)cfg->context / (double)cfg->rope_scaling.original_context;
}

static double
yarn_magnitude(double factor, double mscale)
{
	return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

float
model__rope_magnitude(const struct model_config *cfg, enum model__rope which)
{
	double factor = factor_of(cfg), a = cfg->rope_scaling.mscale, b = cfg->rope_scaling.mscale_all_dim;

	if (which == MODEL__ROPE_LOCAL ||
	    (cfg->rope_scaling.type != MODEL_ROPE_YARN && cfg->rope_scaling.type != MODEL_ROPE_LONGROPE))
		return 1;
	if (cfg->rope_scaling.attention_factor > 0)
		return (float)cfg->rope_scaling.attention_factor;
	if (cfg->rope_scaling.type == MODEL_ROPE_LONGROPE)
		return factor <= 1 ? 1 : (float)sqrt(1 + log(factor) / log((double)cfg->rope_scaling.original_context));
	return (float)(a > 0 && b > 0 ? yarn_magnitude(factor, a) / yarn_magnitude(factor, b) : yarn_magnitude(factor, 1));
}

/* The dimension whose wave turns this many times within the original context. */
static double
yarn_bound(const struct model_config *cfg, double turns)
{
	return (double)model__rotary_dim(cfg) * log((double)cfg->rope_scaling.original_context / (turns * 2 * 3.14159265358979323846)) /
	    (2 * log(cfg->rope_theta));
}

static float
scale_yarn(const struct model_config *cfg, int64_t j, float power)
{
	double low = yarn_bound(cfg, cfg->rope_scaling.beta_fast), high = yarn_bound(cfg, cfg->rope_scaling.beta_slow);
	float keep;

	if (!cfg->rope_scaling.no_truncate) {
		low = floor(low);
		high = ceil(high);
	}
	low = fmax(low, 0);
	high = fmin(high, (double)model__rotary_dim(cfg) - 1);
	high += low == high ? 0.001 : 0;
	keep = 1 - fminf(fmaxf(((float)j - (float)low) / (float)(high - low), 0), 1);
	return 1 / ((float)factor_of(cfg) * power) * (1 - keep) + 1 / power * keep;
}

void
model__rope_freq(const struct model_config *cfg, enum model__rope which, float *out)
{
	int64_t rotary = model__rotary_dim(cfg);
	double theta = which == MODEL__ROPE_LOCAL && cfg->local_theta > 0 ? cfg->local_theta : cfg->rope_theta;

	for (int64_t j = 0; j < rotary / 2; j++) {
		float exponent = (float)(2 * j) / (float)rotary;
		float power = (float)pow((float)theta, exponent);
		float f = 1.0f / power;

		out[j] = f;
		if (which == MODEL__ROPE_LOCAL)
			continue;
		switch (cfg->rope_scaling.type) {
		case MODEL_ROPE_LINEAR:
			out[j] = f / (float)cfg->rope_scaling.factor;
			break;
		case MODEL_ROPE_LLAMA3:
			out[j] = scale_llama3(cfg, f);
			break;
		case MODEL_ROPE_YARN:
			out[j] = scale_yarn(cfg, j, power);
			break;
		case MODEL_ROPE_LONGROPE:
			out[j] = 1 / ((which == MODEL__ROPE_LONG ? cfg->rope_scaling.long_factor : cfg->rope_scaling.short_factor)[j] * power);
			break;
		case MODEL_ROPE_DEFAULT:
		case MODEL_ROPE_DYNAMIC:
			break;
		}
	}
}
