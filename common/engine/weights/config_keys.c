/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_keys - the keys of config.json, one row per family: struct names has the keys of every model, struct
 * key other keys that change outputs.
 */
#include "engine/weights/config_internal.h"

#define SIZES .context = "max_position_embeddings", .d_model = "hidden_size"
#define LAYERS SIZES, .n_layers = "num_hidden_layers", .n_heads = "num_attention_heads"
#define GROUPS LAYERS, .n_kv_heads = "num_key_value_heads", .d_ff = "intermediate_size", .init_std = "initializer_range"
#define LLAMA GROUPS, .head_dim = "head_dim", .eps = "rms_norm_eps"
static const struct names llama_names = {LLAMA, .activation = "hidden_act"};
static const struct names qwen2_names = {LLAMA, .activation = "hidden_act", .needs_kv_heads = true};
static const struct names qwen3_names = {LLAMA, .activation = "hidden_act", .needs_kv_heads = true, .needs_head_dim = true};
static const struct names gemma_names = {LLAMA, .activation = "hidden_activation", .needs_kv_heads = true, .needs_head_dim = true};
static const struct names olmo_names = {GROUPS, .activation = "hidden_act"};
static const struct names layernorm_names = {GROUPS, .eps = "layer_norm_eps", .activation = "hidden_act"};
static const struct names nemotron_names = {GROUPS, .head_dim = "head_dim", .eps = "norm_eps", .activation = "hidden_act"};
static const struct names starcoder2_names = {GROUPS, .eps = "norm_epsilon", .activation = "hidden_act"};
static const struct names neox_names = {LAYERS, .d_ff = "intermediate_size", .eps = "layer_norm_eps", .activation = "hidden_act",
    .init_std = "initializer_range"};
static const struct names gpt2_names = {.context = "n_positions", .d_model = "n_embd", .n_layers = "n_layer", .n_heads = "n_head",
    .d_ff = "n_inner", .eps = "layer_norm_epsilon", .activation = "activation_function", .init_std = "initializer_range"};
static const struct names gpt_neo_names = {SIZES, .n_layers = "num_layers", .n_heads = "num_heads", .d_ff = "intermediate_size",
    .eps = "layer_norm_epsilon", .activation = "activation_function", .init_std = "initializer_range"};
static const struct names opt_names = {LAYERS, .d_ff = "ffn_dim", .activation = "activation_function", .init_std = "init_std"};

#define LAST {NULL, ONLY_NULL, 0}
static const struct key gpt2_keys[] = {{"scale_attn_weights", ONLY_TRUE, 0}, {"scale_attn_by_inverse_layer_idx", ONLY_FALSE, 0},
    {"add_cross_attention", ONLY_FALSE, 0}, {"attn_pdrop", ZERO, 0}, {"embd_pdrop", ZERO, 0}, {"resid_pdrop", ZERO, 0}, LAST};
static const struct key bigcode_keys[] = {{"scale_attn_weights", ONLY_TRUE, 0}, {"multi_query", ONLY_TRUE, 0},
    {"add_cross_attention", ONLY_FALSE, 0}, {"attn_pdrop", ZERO, 0}, {"embd_pdrop", ZERO, 0}, {"resid_pdrop", ZERO, 0}, LAST};
static const struct key llama_keys[] = {{"attention_bias", FLAG, AT(attention_bias)}, {"mlp_bias", FLAG, AT(mlp_bias)},
    {"attention_dropout", ZERO, 0}, LAST};
static const struct key qwen2_keys[] = {{"attention_dropout", ZERO, 0}, LAST};
static const struct key bias_keys[] = {{"attention_bias", FLAG, AT(attention_bias)}, {"attention_dropout", ZERO, 0}, LAST};
static const struct key neox_keys[] = {{"use_parallel_residual", FLAG, AT(parallel_residual)}, {"attention_bias", FLAG, AT(attention_bias)},
    {"attention_dropout", ZERO, 0}, {"hidden_dropout", ZERO, 0}, LAST};
static const struct key olmo_keys[] = {{"attention_bias", FLAG, AT(attention_bias)}, {"clip_qkv", ONLY_NULL, 0}, LAST};
static const struct key granite_keys[] = {{"attention_bias", FLAG, AT(attention_bias)}, {"mlp_bias", FLAG, AT(mlp_bias)},
    {"embedding_multiplier", SCALE, AT(embed_scale)}, {"attention_multiplier", SCALE, AT(attention_scale)},
    {"residual_multiplier", SCALE, AT(residual_scale)}, {"logits_scaling", INVERSE, AT(output_scale)}, {"attention_dropout", ZERO, 0}, LAST};
static const struct key gemma1_keys[] = {{"attention_bias", ONLY_FALSE, 0}, {"use_bidirectional_attention", ONLY_FALSE, 0}, LAST};
static const struct key gemma_keys[] = {{"attention_bias", ONLY_FALSE, 0}, {"use_bidirectional_attention", ONLY_FALSE, 0},
    {"query_pre_attn_scalar", INVERSE_ROOT, AT(attention_scale)}, {"attn_logit_softcapping", CAP, AT(attention_cap)},
    {"final_logit_softcapping", CAP, AT(logit_cap)}, LAST};
static const struct key phi_keys[] = {{"qk_layernorm", ONLY_FALSE, 0}, {"attention_dropout", ZERO, 0}, {"embd_pdrop", ZERO, 0},
    {"resid_pdrop", ZERO, 0}, LAST};
static const struct key stablelm_keys[] = {{"use_qkv_bias", FLAG, AT(attention_bias)}, {"qk_layernorm", ONLY_FALSE, 0},
    {"use_parallel_residual", ONLY_FALSE, 0}, {"attention_dropout", ZERO, 0}, {"hidden_dropout", ZERO, 0}, LAST};
static const struct key starcoder2_keys[] = {{"use_bias", FLAG, AT(attention_bias)}, {"use_bias", FLAG, AT(mlp_bias)},
    {"attention_dropout", ZERO, 0}, {"embedding_dropout", ZERO, 0}, {"residual_dropout", ZERO, 0}, LAST};
static const struct key mobilellm_keys[] = {{"attention_bias", FLAG, AT(attention_bias)}, {"mlp_bias", FLAG, AT(mlp_bias)},
    {"share_embedding", FLAG, AT(tied)}, {"layer_sharing", ONLY_FALSE, 0}, LAST};
static const struct key minicpm_keys[] = {{"scale_emb", SCALE, AT(embed_scale)}, {"attention_bias", ONLY_FALSE, 0}, LAST};
static const struct key internlm_keys[] = {{"bias", FLAG, AT(attention_bias)}, LAST};
static const struct key internlm3_keys[] = {{"attention_bias", FLAG, AT(attention_bias)}, {"mlp_bias", FLAG, AT(mlp_bias)},
    {"qkv_bias", FLAG, AT(attention_bias)}, {"bias", FLAG, AT(mlp_bias)}, {"attention_dropout", ZERO, 0}, LAST};
static const struct key seed_oss_keys[] = {{"attention_bias", FLAG, AT(attention_bias)}, {"attention_out_bias", NOT, AT(no_proj_bias)},
    {"mlp_bias", FLAG, AT(mlp_bias)}, {"attention_dropout", ZERO, 0}, {"residual_dropout", ZERO, 0}, LAST};
static const struct key opt_keys[] = {{"do_layer_norm_before", ONLY_TRUE, 0}, {"enable_bias", ONLY_TRUE, 0},
    {"layer_norm_elementwise_affine", ONLY_TRUE, 0}, {"_remove_final_layer_norm", ONLY_FALSE, 0}, {"dropout", ZERO, 0},
    {"attention_dropout", ZERO, 0}, {"layerdrop", ZERO, 0}, LAST};
static const struct key gpt_neo_keys[] = {{"embed_dropout", ZERO, 0}, {"resid_dropout", ZERO, 0}, {"attention_dropout", ZERO, 0}, LAST};

const struct family weights__families[MODEL_FAMILY_COUNT] = {
	[MODEL_FAMILY_GPT2] = {&gpt2_names, gpt2_keys, NO_WINDOWS},
	[MODEL_FAMILY_LLAMA] = {&llama_names, llama_keys, NO_WINDOWS},
	[MODEL_FAMILY_QWEN2] = {&qwen2_names, qwen2_keys, IF_USED},
	[MODEL_FAMILY_QWEN3] = {&qwen3_names, bias_keys, IF_USED},
	[MODEL_FAMILY_NEOX] = {&neox_names, neox_keys, NO_WINDOWS},
	[MODEL_FAMILY_MISTRAL] = {&qwen2_names, qwen2_keys, ALL_LAYERS},
	[MODEL_FAMILY_MINISTRAL] = {&qwen2_names, qwen2_keys, SOME_LAYERS},
	[MODEL_FAMILY_SMOLLM3] = {&qwen2_names, llama_keys, IF_USED},
	[MODEL_FAMILY_OLMO] = {&olmo_names, olmo_keys, NO_WINDOWS},
	[MODEL_FAMILY_OLMO2] = {&llama_names, bias_keys, NO_WINDOWS},
	[MODEL_FAMILY_OLMO3] = {&llama_names, bias_keys, SOME_LAYERS},
	[MODEL_FAMILY_GRANITE] = {&llama_names, granite_keys, NO_WINDOWS},
	[MODEL_FAMILY_GEMMA] = {&qwen3_names, gemma1_keys, NO_WINDOWS},
	[MODEL_FAMILY_GEMMA2] = {&gemma_names, gemma_keys, SOME_LAYERS},
	[MODEL_FAMILY_GEMMA3] = {&gemma_names, gemma_keys, SOME_LAYERS},
	[MODEL_FAMILY_PHI] = {&layernorm_names, phi_keys, NO_WINDOWS},
	[MODEL_FAMILY_PHI3] = {&llama_names, phi_keys, ALL_LAYERS},
	[MODEL_FAMILY_STABLELM] = {&layernorm_names, stablelm_keys, NO_WINDOWS},
	[MODEL_FAMILY_STARCODER2] = {&starcoder2_names, starcoder2_keys, ALL_LAYERS},
	[MODEL_FAMILY_MOBILELLM] = {&llama_names, mobilellm_keys, NO_WINDOWS},
	[MODEL_FAMILY_MINICPM] = {&llama_names, minicpm_keys, NO_WINDOWS},
	[MODEL_FAMILY_INTERNLM] = {&llama_names, internlm_keys, NO_WINDOWS},
	[MODEL_FAMILY_INTERNLM3] = {&qwen3_names, internlm3_keys, NO_WINDOWS},
	[MODEL_FAMILY_SEED_OSS] = {&qwen3_names, seed_oss_keys, NO_WINDOWS},
	[MODEL_FAMILY_ARCEE] = {&llama_names, llama_keys, NO_WINDOWS},
	[MODEL_FAMILY_NEMOTRON] = {&nemotron_names, llama_keys, NO_WINDOWS},
	[MODEL_FAMILY_GPT_NEO] = {&gpt_neo_names, gpt_neo_keys, GPT_NEO_TYPES},
	[MODEL_FAMILY_BIGCODE] = {&gpt2_names, bigcode_keys, NO_WINDOWS},
	[MODEL_FAMILY_OPT] = {&opt_names, opt_keys, NO_WINDOWS},
};
