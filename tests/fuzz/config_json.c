/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: config.json of a model. It is rejected, or the configuration is unchanged after saving and loading,
 * and a model can be made from it.
 */
#include "engine/weights/weights.h"

#include "engine/model/model.h"
#include "fuzz.h"

/* Compares field by field, without padding. */
static bool
same(const struct model_config *a, const struct model_config *b)
{
	return a->family == b->family && a->vocab_size == b->vocab_size && a->context == b->context && a->d_model == b->d_model &&
	    a->n_layers == b->n_layers && a->n_heads == b->n_heads && a->n_kv_heads == b->n_kv_heads && a->head_dim == b->head_dim &&
	    a->d_ff == b->d_ff && a->norm_eps == b->norm_eps && a->tied == b->tied && a->attention_bias == b->attention_bias &&
	    a->mlp_bias == b->mlp_bias && a->parallel_residual == b->parallel_residual && a->rope_theta == b->rope_theta &&
	    a->rotary_dim == b->rotary_dim && a->rope_scaling.type == b->rope_scaling.type &&
	    a->rope_scaling.factor == b->rope_scaling.factor && a->rope_scaling.low_freq_factor == b->rope_scaling.low_freq_factor &&
	    a->rope_scaling.high_freq_factor == b->rope_scaling.high_freq_factor &&
	    a->rope_scaling.original_context == b->rope_scaling.original_context &&
	    a->rope_scaling.beta_fast == b->rope_scaling.beta_fast && a->rope_scaling.beta_slow == b->rope_scaling.beta_slow &&
	    a->rope_scaling.attention_factor == b->rope_scaling.attention_factor && a->rope_scaling.mscale == b->rope_scaling.mscale &&
	    a->rope_scaling.mscale_all_dim == b->rope_scaling.mscale_all_dim && a->rope_scaling.no_truncate == b->rope_scaling.no_truncate &&
	    a->activation == b->activation && a->no_proj_bias == b->no_proj_bias && a->attention_cap == b->attention_cap &&
	    a->logit_cap == b->logit_cap && a->window == b->window && a->local_theta == b->local_theta && a->initializer_range == b->initializer_range &&
	    a->bos_id == b->bos_id && a->eos_id == b->eos_id;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const char *path = fuzz_file("config.json", data, len);
	struct model_config cfg, again;
	struct model *m = NULL;
	struct err_note note = {0};
	int rc;

	if ((rc = weights_config_load(path, &cfg, &note)) != 0 || (rc = model_config_check(&cfg, &note)) != 0) {
		FUZZ_REFUSED(rc, note);
		return 0;
	}
	unlink(path);
	if (FUZZ_WORKS(weights_config_save(fuzz_dir(), &cfg, WEIGHTS_F32, NULL, &note)) &&
	    FUZZ_WORKS(weights_config_load(fuzz_dir(), &again, &note)))
		FUZZ_CHECK(same(&cfg, &again));
	if (cfg.n_layers < 100 && model_new(&m, &cfg, &note) == 0)
		FUZZ_CHECK(m->n_params > 0);
	model_destroy(&m);
	return 0;
}
