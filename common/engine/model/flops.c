/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flops - floating point operations per token, for reports and capacity estimates.
 */
#include "engine/model/model_internal.h"

double
model_product_params(const struct model_config *cfg)
{
	double q = (double)cfg->n_heads * (double)cfg->head_dim, kv = (double)cfg->n_kv_heads * (double)cfg->head_dim;
	double c = (double)cfg->d_model, layers = (double)cfg->n_layers;
	double mlp = (model_traits(cfg->family)->gated ? 3 : 2) * c * (double)cfg->d_ff;

	return layers * (c * (q + 2 * kv) + q * c + mlp) + c * (double)cfg->vocab_size;
}

double
model_flops_per_token(const struct model_config *cfg, int64_t t)
{
	double q = (double)cfg->n_heads * (double)cfg->head_dim, keys = 0;

	for (int i = 0; i < cfg->n_layers; i++)
		keys += (double)(model_layer_local(cfg, i) && cfg->window < t ? cfg->window : t);
	return 6 * model_product_params(cfg) + 12 * q * keys;
}
