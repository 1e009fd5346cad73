/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rope - inverse frequencies of the rotary embedding.
 *   default  f_j = 1 / theta^(2j/R), R: the elements of a head to which it applies
 *   llama3   wave length l = 2 pi / f. l under original/high: f as it is; over original/low: f / factor; between: with
 *            s = (original/l - low) / (high - low), (1-s) f / factor + s f
 * Each step is rounded to fp32 as in transformers: at position 10,000 an ulp of f_j is a visible angle.
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

void
model__rope_freq(const struct model_config *cfg, float *out)
{
	int64_t rotary = model__rotary_dim(cfg);

	for (int64_t j = 0; j < rotary / 2; j++) {
		float exponent = (float)(2 * j) / (float)rotary;
		float power = (float)pow((float)cfg->rope_theta, exponent);
		float f = 1.0f / power;

		out[j] = cfg->rope_scaling.llama3 ? scale_llama3(cfg, f) : f;
	}
}
