/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family - the model families: what they compute, names in their files, and a row per tensor. A family whose
 * layers all exist needs an entry here and in enum model_family; weights/config.c reads and writes its
 * config.json.
 */
#include <string.h>

#include "engine/model/model_internal.h"

static const struct model__row gpt2_rows[] = {
	{"transformer.wte.weight", ROLE_TOKEN_EMBED, BEFORE, {DIM_V, DIM_C}, NORMAL, ALWAYS},
	{"transformer.wpe.weight", ROLE_POSITION_EMBED, BEFORE, {DIM_CONTEXT, DIM_C}, NORMAL, ALWAYS},
	{"transformer.h.%d.ln_1.weight", ROLE_NORM1_G, LAYER, {DIM_C}, ONES, ALWAYS},
	{"transformer.h.%d.ln_1.bias", ROLE_NORM1_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"transformer.h.%d.attn.c_attn.weight", ROLE_QKV_W, LAYER, {DIM_C, DIM_QKV}, NORMAL, ALWAYS},
	{"transformer.h.%d.attn.c_attn.bias", ROLE_QKV_B, LAYER, {DIM_QKV}, ZEROS, ALWAYS},
	{"transformer.h.%d.attn.c_proj.weight", ROLE_PROJ_W, LAYER, {DIM_Q, DIM_C}, RESIDUAL, ALWAYS},
	{"transformer.h.%d.attn.c_proj.bias", ROLE_PROJ_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"transformer.h.%d.ln_2.weight", ROLE_NORM2_G, LAYER, {DIM_C}, ONES, ALWAYS},
	{"transformer.h.%d.ln_2.bias", ROLE_NORM2_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"transformer.h.%d.mlp.c_fc.weight", ROLE_UP_W, LAYER, {DIM_C, DIM_F}, NORMAL, ALWAYS},
	{"transformer.h.%d.mlp.c_fc.bias", ROLE_UP_B, LAYER, {DIM_F}, ZEROS, ALWAYS},
	{"transformer.h.%d.mlp.c_proj.weight", ROLE_DOWN_W, LAYER, {DIM_F, DIM_C}, RESIDUAL, ALWAYS},
	{"transformer.h.%d.mlp.c_proj.bias", ROLE_DOWN_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"transformer.ln_f.weight", ROLE_FINAL_G, AFTER, {DIM_C}, ONES, ALWAYS},
	{"transformer.ln_f.bias", ROLE_FINAL_B, AFTER, {DIM_C}, ZEROS, ALWAYS},
	{"lm_head.weight", ROLE_OUTPUT_W, AFTER, {DIM_V, DIM_C}, NORMAL, IF_UNTIED},
};

/* Llama, Qwen2, Qwen3. q, k and v are adjacent: see enum role. */
static const struct model__row llama_rows[] = {
	{"model.embed_tokens.weight", ROLE_TOKEN_EMBED, BEFORE, {DIM_V, DIM_C}, NORMAL, ALWAYS},
	{"model.layers.%d.input_layernorm.weight", ROLE_NORM1_G, LAYER, {DIM_C}, ONES, ALWAYS},
	{"model.layers.%d.self_attn.q_proj.weight", ROLE_QKV_W, LAYER, {DIM_Q, DIM_C}, NORMAL, ALWAYS},
	{"model.layers.%d.self_attn.k_proj.weight", ROLE_KEY_W, LAYER, {DIM_KV, DIM_C}, NORMAL, ALWAYS},
	{"model.layers.%d.self_attn.v_proj.weight", ROLE_VALUE_W, LAYER, {DIM_KV, DIM_C}, NORMAL, ALWAYS},
	{"model.layers.%d.self_attn.q_proj.bias", ROLE_QKV_B, LAYER, {DIM_Q}, ZEROS, IF_ATTENTION_BIAS},
	{"model.layers.%d.self_attn.k_proj.bias", ROLE_KEY_B, LAYER, {DIM_KV}, ZEROS, IF_ATTENTION_BIAS},
	{"model.layers.%d.self_attn.v_proj.bias", ROLE_VALUE_B, LAYER, {DIM_KV}, ZEROS, IF_ATTENTION_BIAS},
	{"model.layers.%d.self_attn.o_proj.weight", ROLE_PROJ_W, LAYER, {DIM_C, DIM_Q}, RESIDUAL, ALWAYS},
	{"model.layers.%d.self_attn.o_proj.bias", ROLE_PROJ_B, LAYER, {DIM_C}, ZEROS, IF_OUTPUT_BIAS},
	{"model.layers.%d.self_attn.q_norm.weight", ROLE_QUERY_NORM_G, LAYER, {DIM_D}, ONES, IF_QK_NORM},
	{"model.layers.%d.self_attn.k_norm.weight", ROLE_KEY_NORM_G, LAYER, {DIM_D}, ONES, IF_QK_NORM},
	{"model.layers.%d.post_attention_layernorm.weight", ROLE_NORM2_G, LAYER, {DIM_C}, ONES, ALWAYS},
	{"model.layers.%d.mlp.gate_proj.weight", ROLE_GATE_W, LAYER, {DIM_F, DIM_C}, NORMAL, ALWAYS},
	{"model.layers.%d.mlp.gate_proj.bias", ROLE_GATE_B, LAYER, {DIM_F}, ZEROS, IF_MLP_BIAS},
	{"model.layers.%d.mlp.up_proj.weight", ROLE_UP_W, LAYER, {DIM_F, DIM_C}, NORMAL, ALWAYS},
	{"model.layers.%d.mlp.up_proj.bias", ROLE_UP_B, LAYER, {DIM_F}, ZEROS, IF_MLP_BIAS},
	{"model.layers.%d.mlp.down_proj.weight", ROLE_DOWN_W, LAYER, {DIM_C, DIM_F}, RESIDUAL, ALWAYS},
	{"model.layers.%d.mlp.down_proj.bias", ROLE_DOWN_B, LAYER, {DIM_C}, ZEROS, IF_MLP_BIAS},
	{"model.norm.weight", ROLE_FINAL_G, AFTER, {DIM_C}, ONES, ALWAYS},
	{"lm_head.weight", ROLE_OUTPUT_W, AFTER, {DIM_V, DIM_C}, NORMAL, IF_UNTIED},
};

static const struct model__row neox_rows[] = {
	{"gpt_neox.embed_in.weight", ROLE_TOKEN_EMBED, BEFORE, {DIM_V, DIM_C}, NORMAL, ALWAYS},
	{"gpt_neox.layers.%d.input_layernorm.weight", ROLE_NORM1_G, LAYER, {DIM_C}, ONES, ALWAYS},
	{"gpt_neox.layers.%d.input_layernorm.bias", ROLE_NORM1_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"gpt_neox.layers.%d.attention.query_key_value.weight", ROLE_QKV_W, LAYER, {DIM_QKV, DIM_C}, NORMAL, ALWAYS},
	{"gpt_neox.layers.%d.attention.query_key_value.bias", ROLE_QKV_B, LAYER, {DIM_QKV}, ZEROS, IF_ATTENTION_BIAS},
	{"gpt_neox.layers.%d.attention.dense.weight", ROLE_PROJ_W, LAYER, {DIM_C, DIM_Q}, RESIDUAL, ALWAYS},
	{"gpt_neox.layers.%d.attention.dense.bias", ROLE_PROJ_B, LAYER, {DIM_C}, ZEROS, IF_OUTPUT_BIAS},
	{"gpt_neox.layers.%d.post_attention_layernorm.weight", ROLE_NORM2_G, LAYER, {DIM_C}, ONES, ALWAYS},
	{"gpt_neox.layers.%d.post_attention_layernorm.bias", ROLE_NORM2_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"gpt_neox.layers.%d.mlp.dense_h_to_4h.weight", ROLE_UP_W, LAYER, {DIM_F, DIM_C}, NORMAL, ALWAYS},
	{"gpt_neox.layers.%d.mlp.dense_h_to_4h.bias", ROLE_UP_B, LAYER, {DIM_F}, ZEROS, ALWAYS},
	{"gpt_neox.layers.%d.mlp.dense_4h_to_h.weight", ROLE_DOWN_W, LAYER, {DIM_C, DIM_F}, RESIDUAL, ALWAYS},
	{"gpt_neox.layers.%d.mlp.dense_4h_to_h.bias", ROLE_DOWN_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"gpt_neox.final_layer_norm.weight", ROLE_FINAL_G, AFTER, {DIM_C}, ONES, ALWAYS},
	{"gpt_neox.final_layer_norm.bias", ROLE_FINAL_B, AFTER, {DIM_C}, ZEROS, ALWAYS},
	{"embed_out.weight", ROLE_OUTPUT_W, AFTER, {DIM_V, DIM_C}, NORMAL, IF_UNTIED},
};

#define LLAMA_TRAITS .activation = "silu", .prefix = "model.", .output = "lm_head.weight",	\
	.buffers = {".rotary_emb.inv_freq"}, .rms = true, .rope = true, .gated = true, .layout = KERNELS_OUT_IN
#define ROWS(rows) (rows), sizeof(rows) / sizeof((rows)[0])

static const struct family {
	const struct model__row *rows;
	size_t n_rows;
	struct model_traits traits;
} families[] = {
	/* clang-format off */
	[MODEL_FAMILY_GPT2] = {ROWS(gpt2_rows), {.name = "gpt2", .architecture = "GPT2LMHeadModel",
	    .activation = "gelu_new", .prefix = "transformer.", .output = "lm_head.weight",
	    .buffers = {".attn.bias", ".attn.masked_bias"}, .fused_qkv = true, .layout = KERNELS_IN_OUT}},
	[MODEL_FAMILY_LLAMA] = {ROWS(llama_rows), {.name = "llama", .architecture = "LlamaForCausalLM", LLAMA_TRAITS}},
	[MODEL_FAMILY_QWEN2] = {ROWS(llama_rows), {.name = "qwen2", .architecture = "Qwen2ForCausalLM", LLAMA_TRAITS,
	    .needs_attention_bias = true, .no_mlp_bias = true}},
	[MODEL_FAMILY_QWEN3] = {ROWS(llama_rows), {.name = "qwen3", .architecture = "Qwen3ForCausalLM", LLAMA_TRAITS,
	    .qk_norm = true, .no_mlp_bias = true}},
	[MODEL_FAMILY_NEOX] = {ROWS(neox_rows), {.name = "gpt_neox", .architecture = "GPTNeoXForCausalLM",
	    .activation = "gelu", .prefix = "gpt_neox.", .output = "embed_out.weight",
	    .buffers = {".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"},
	    .rope = true, .gelu_erf = true, .mixed_heads = true, .fused_qkv = true, .partial_rotary = true,
	    .layout = KERNELS_OUT_IN}},
	/* clang-format on */
};

#define N_FAMILIES (sizeof(families) / sizeof(families[0]))

const struct model_traits *
model_traits(enum model_family family)
{
	return (unsigned)family < N_FAMILIES ? &families[family].traits : NULL;
}

const char *
model_family_name(enum model_family family)
{
	return (unsigned)family < N_FAMILIES ? families[family].traits.name : "unknown";
}

bool
model_family_find(const char *name, enum model_family *out)
{
	for (size_t i = 0; i < N_FAMILIES; i++) {
		if (strcmp(families[i].traits.name, name) == 0) {
			*out = (enum model_family)i;
			return true;
		}
	}
	return false;
}

const struct model__row *
model__rows(enum model_family family, size_t *n)
{
	*n = families[family].n_rows;
	return families[family].rows;
}
