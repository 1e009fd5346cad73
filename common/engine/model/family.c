/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family - the model families: what they compute, names in their files, and one row per tensor. A new family
 * whose layers exist already needs only an entry here, in MODEL_OTHER_FAMILIES (model.h), and in
 * weights/config_keys.c, which has the names of its keys in config.json.
 */
#include <math.h>
#include <string.h>

#include "engine/model/model_internal.h"

static const struct model__row gpt2_rows[] = {
	{"transformer.wte.weight", ROLE_TOKEN_EMBED, BEFORE, {DIM_V, DIM_C}, NORMAL, ALWAYS},
	{"transformer.wpe.weight", ROLE_POSITION_EMBED, BEFORE, {DIM_CONTEXT, DIM_C}, NORMAL, ALWAYS},
	{"transformer.h.%d.ln_1.weight", ROLE_NORM1_G, LAYER, {DIM_C}, GAIN, ALWAYS},
	{"transformer.h.%d.ln_1.bias", ROLE_NORM1_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"transformer.h.%d.attn.c_attn.weight", ROLE_QKV_W, LAYER, {DIM_C, DIM_QKV}, NORMAL, ALWAYS},
	{"transformer.h.%d.attn.c_attn.bias", ROLE_QKV_B, LAYER, {DIM_QKV}, ZEROS, ALWAYS},
	{"transformer.h.%d.attn.c_proj.weight", ROLE_PROJ_W, LAYER, {DIM_Q, DIM_C}, RESIDUAL, ALWAYS},
	{"transformer.h.%d.attn.c_proj.bias", ROLE_PROJ_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"transformer.h.%d.ln_2.weight", ROLE_NORM2_G, LAYER, {DIM_C}, GAIN, ALWAYS},
	{"transformer.h.%d.ln_2.bias", ROLE_NORM2_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"transformer.h.%d.mlp.c_fc.weight", ROLE_UP_W, LAYER, {DIM_C, DIM_F}, NORMAL, ALWAYS},
	{"transformer.h.%d.mlp.c_fc.bias", ROLE_UP_B, LAYER, {DIM_F}, ZEROS, ALWAYS},
	{"transformer.h.%d.mlp.c_proj.weight", ROLE_DOWN_W, LAYER, {DIM_F, DIM_C}, RESIDUAL, ALWAYS},
	{"transformer.h.%d.mlp.c_proj.bias", ROLE_DOWN_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"transformer.ln_f.weight", ROLE_FINAL_G, AFTER, {DIM_C}, GAIN, ALWAYS},
	{"transformer.ln_f.bias", ROLE_FINAL_B, AFTER, {DIM_C}, ZEROS, ALWAYS},
	{"lm_head.weight", ROLE_OUTPUT_W, AFTER, {DIM_V, DIM_C}, NORMAL, IF_UNTIED},
};

/*
 * Llama and the families like it. q, k and v are adjacent: see enum role. post_attention_layernorm is the
 * norm before the mlp or the norm after attention, depending on the family.
 */
static const struct model__row llama_rows[] = {
	{"model.embed_tokens.weight", ROLE_TOKEN_EMBED, BEFORE, {DIM_V, DIM_C}, NORMAL, ALWAYS},
	{"model.layers.%d.input_layernorm.weight", ROLE_NORM1_G, LAYER, {DIM_C}, GAIN, IF_BEFORE},
	{"model.layers.%d.input_layernorm.bias", ROLE_NORM1_B, LAYER, {DIM_C}, ZEROS, IF_NORM_BIAS},
	{"model.layers.%d.self_attn.qkv_proj.weight", ROLE_QKV_W, LAYER, {DIM_QKV, DIM_C}, NORMAL, IF_FUSED_QKV},
	{"model.layers.%d.self_attn.q_proj.weight", ROLE_QKV_W, LAYER, {DIM_Q, DIM_C}, NORMAL, IF_APART},
	{"model.layers.%d.self_attn.k_proj.weight", ROLE_KEY_W, LAYER, {DIM_KV, DIM_C}, NORMAL, IF_APART},
	{"model.layers.%d.self_attn.v_proj.weight", ROLE_VALUE_W, LAYER, {DIM_KV, DIM_C}, NORMAL, IF_APART},
	{"model.layers.%d.self_attn.q_proj.bias", ROLE_QKV_B, LAYER, {DIM_Q}, ZEROS, IF_ATTENTION_BIAS},
	{"model.layers.%d.self_attn.k_proj.bias", ROLE_KEY_B, LAYER, {DIM_KV}, ZEROS, IF_ATTENTION_BIAS},
	{"model.layers.%d.self_attn.v_proj.bias", ROLE_VALUE_B, LAYER, {DIM_KV}, ZEROS, IF_ATTENTION_BIAS},
	{"model.layers.%d.self_attn.o_proj.weight", ROLE_PROJ_W, LAYER, {DIM_C, DIM_Q}, RESIDUAL, ALWAYS},
	{"model.layers.%d.self_attn.o_proj.bias", ROLE_PROJ_B, LAYER, {DIM_C}, ZEROS, IF_OUTPUT_BIAS},
	{"model.layers.%d.self_attn.q_norm.weight", ROLE_QUERY_NORM_G, LAYER, {DIM_QN}, GAIN, IF_QK_NORM},
	{"model.layers.%d.self_attn.k_norm.weight", ROLE_KEY_NORM_G, LAYER, {DIM_KN}, GAIN, IF_QK_NORM},
	{"model.layers.%d.post_attention_layernorm.weight", ROLE_POST1_G, LAYER, {DIM_C}, GAIN, IF_AFTER},
	{"model.layers.%d.post_attention_layernorm.weight", ROLE_NORM2_G, LAYER, {DIM_C}, GAIN, IF_BEFORE_ONLY},
	{"model.layers.%d.post_attention_layernorm.bias", ROLE_NORM2_B, LAYER, {DIM_C}, ZEROS, IF_NORM_BIAS},
	{"model.layers.%d.pre_feedforward_layernorm.weight", ROLE_NORM2_G, LAYER, {DIM_C}, GAIN, IF_BOTH},
	{"model.layers.%d.post_feedforward_layernorm.weight", ROLE_POST2_G, LAYER, {DIM_C}, GAIN, IF_AFTER},
	{"model.layers.%d.mlp.gate_up_proj.weight", ROLE_GATE_W, LAYER, {DIM_2F, DIM_C}, NORMAL, IF_FUSED_GATE},
	{"model.layers.%d.mlp.gate_proj.weight", ROLE_GATE_W, LAYER, {DIM_F, DIM_C}, NORMAL, IF_GATE},
	{"model.layers.%d.mlp.gate_proj.bias", ROLE_GATE_B, LAYER, {DIM_F}, ZEROS, IF_GATE_BIAS},
	{"model.layers.%d.mlp.up_proj.weight", ROLE_UP_W, LAYER, {DIM_F, DIM_C}, NORMAL, IF_UP},
	{"model.layers.%d.mlp.up_proj.bias", ROLE_UP_B, LAYER, {DIM_F}, ZEROS, IF_MLP_BIAS},
	{"model.layers.%d.mlp.down_proj.weight", ROLE_DOWN_W, LAYER, {DIM_C, DIM_F}, RESIDUAL, ALWAYS},
	{"model.layers.%d.mlp.down_proj.bias", ROLE_DOWN_B, LAYER, {DIM_C}, ZEROS, IF_MLP_BIAS},
	{"model.norm.weight", ROLE_FINAL_G, AFTER, {DIM_C}, GAIN, IF_GAIN},
	{"model.norm.bias", ROLE_FINAL_B, AFTER, {DIM_C}, ZEROS, IF_NORM_BIAS},
	{"lm_head.weight", ROLE_OUTPUT_W, AFTER, {DIM_V, DIM_C}, NORMAL, IF_UNTIED},
};

static const struct model__row neox_rows[] = {
	{"gpt_neox.embed_in.weight", ROLE_TOKEN_EMBED, BEFORE, {DIM_V, DIM_C}, NORMAL, ALWAYS},
	{"gpt_neox.layers.%d.input_layernorm.weight", ROLE_NORM1_G, LAYER, {DIM_C}, GAIN, ALWAYS},
	{"gpt_neox.layers.%d.input_layernorm.bias", ROLE_NORM1_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"gpt_neox.layers.%d.attention.query_key_value.weight", ROLE_QKV_W, LAYER, {DIM_QKV, DIM_C}, NORMAL, ALWAYS},
	{"gpt_neox.layers.%d.attention.query_key_value.bias", ROLE_QKV_B, LAYER, {DIM_QKV}, ZEROS, IF_ATTENTION_BIAS},
	{"gpt_neox.layers.%d.attention.dense.weight", ROLE_PROJ_W, LAYER, {DIM_C, DIM_Q}, RESIDUAL, ALWAYS},
	{"gpt_neox.layers.%d.attention.dense.bias", ROLE_PROJ_B, LAYER, {DIM_C}, ZEROS, IF_OUTPUT_BIAS},
	{"gpt_neox.layers.%d.post_attention_layernorm.weight", ROLE_NORM2_G, LAYER, {DIM_C}, GAIN, ALWAYS},
	{"gpt_neox.layers.%d.post_attention_layernorm.bias", ROLE_NORM2_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"gpt_neox.layers.%d.mlp.dense_h_to_4h.weight", ROLE_UP_W, LAYER, {DIM_F, DIM_C}, NORMAL, ALWAYS},
	{"gpt_neox.layers.%d.mlp.dense_h_to_4h.bias", ROLE_UP_B, LAYER, {DIM_F}, ZEROS, ALWAYS},
	{"gpt_neox.layers.%d.mlp.dense_4h_to_h.weight", ROLE_DOWN_W, LAYER, {DIM_C, DIM_F}, RESIDUAL, ALWAYS},
	{"gpt_neox.layers.%d.mlp.dense_4h_to_h.bias", ROLE_DOWN_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"gpt_neox.final_layer_norm.weight", ROLE_FINAL_G, AFTER, {DIM_C}, GAIN, ALWAYS},
	{"gpt_neox.final_layer_norm.bias", ROLE_FINAL_B, AFTER, {DIM_C}, ZEROS, ALWAYS},
	{"embed_out.weight", ROLE_OUTPUT_W, AFTER, {DIM_V, DIM_C}, NORMAL, IF_UNTIED},
};

static const struct model__row starcoder2_rows[] = {
	{"model.embed_tokens.weight", ROLE_TOKEN_EMBED, BEFORE, {DIM_V, DIM_C}, NORMAL, ALWAYS},
	{"model.layers.%d.input_layernorm.weight", ROLE_NORM1_G, LAYER, {DIM_C}, GAIN, ALWAYS},
	{"model.layers.%d.input_layernorm.bias", ROLE_NORM1_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"model.layers.%d.self_attn.q_proj.weight", ROLE_QKV_W, LAYER, {DIM_Q, DIM_C}, NORMAL, ALWAYS},
	{"model.layers.%d.self_attn.k_proj.weight", ROLE_KEY_W, LAYER, {DIM_KV, DIM_C}, NORMAL, ALWAYS},
	{"model.layers.%d.self_attn.v_proj.weight", ROLE_VALUE_W, LAYER, {DIM_KV, DIM_C}, NORMAL, ALWAYS},
	{"model.layers.%d.self_attn.q_proj.bias", ROLE_QKV_B, LAYER, {DIM_Q}, ZEROS, IF_ATTENTION_BIAS},
	{"model.layers.%d.self_attn.k_proj.bias", ROLE_KEY_B, LAYER, {DIM_KV}, ZEROS, IF_ATTENTION_BIAS},
	{"model.layers.%d.self_attn.v_proj.bias", ROLE_VALUE_B, LAYER, {DIM_KV}, ZEROS, IF_ATTENTION_BIAS},
	{"model.layers.%d.self_attn.o_proj.weight", ROLE_PROJ_W, LAYER, {DIM_C, DIM_Q}, RESIDUAL, ALWAYS},
	{"model.layers.%d.self_attn.o_proj.bias", ROLE_PROJ_B, LAYER, {DIM_C}, ZEROS, IF_OUTPUT_BIAS},
	{"model.layers.%d.post_attention_layernorm.weight", ROLE_NORM2_G, LAYER, {DIM_C}, GAIN, ALWAYS},
	{"model.layers.%d.post_attention_layernorm.bias", ROLE_NORM2_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"model.layers.%d.mlp.c_fc.weight", ROLE_UP_W, LAYER, {DIM_F, DIM_C}, NORMAL, ALWAYS},
	{"model.layers.%d.mlp.c_fc.bias", ROLE_UP_B, LAYER, {DIM_F}, ZEROS, IF_MLP_BIAS},
	{"model.layers.%d.mlp.c_proj.weight", ROLE_DOWN_W, LAYER, {DIM_C, DIM_F}, RESIDUAL, ALWAYS},
	{"model.layers.%d.mlp.c_proj.bias", ROLE_DOWN_B, LAYER, {DIM_C}, ZEROS, IF_MLP_BIAS},
	{"model.norm.weight", ROLE_FINAL_G, AFTER, {DIM_C}, GAIN, ALWAYS},
	{"model.norm.bias", ROLE_FINAL_B, AFTER, {DIM_C}, ZEROS, ALWAYS},
	{"lm_head.weight", ROLE_OUTPUT_W, AFTER, {DIM_V, DIM_C}, NORMAL, IF_UNTIED},
};

static const struct model__row phi_rows[] = {
	{"model.embed_tokens.weight", ROLE_TOKEN_EMBED, BEFORE, {DIM_V, DIM_C}, NORMAL, ALWAYS},
	{"model.layers.%d.input_layernorm.weight", ROLE_NORM1_G, LAYER, {DIM_C}, GAIN, ALWAYS},
	{"model.layers.%d.input_layernorm.bias", ROLE_NORM1_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"model.layers.%d.self_attn.q_proj.weight", ROLE_QKV_W, LAYER, {DIM_Q, DIM_C}, NORMAL, ALWAYS},
	{"model.layers.%d.self_attn.k_proj.weight", ROLE_KEY_W, LAYER, {DIM_KV, DIM_C}, NORMAL, ALWAYS},
	{"model.layers.%d.self_attn.v_proj.weight", ROLE_VALUE_W, LAYER, {DIM_KV, DIM_C}, NORMAL, ALWAYS},
	{"model.layers.%d.self_attn.q_proj.bias", ROLE_QKV_B, LAYER, {DIM_Q}, ZEROS, ALWAYS},
	{"model.layers.%d.self_attn.k_proj.bias", ROLE_KEY_B, LAYER, {DIM_KV}, ZEROS, ALWAYS},
	{"model.layers.%d.self_attn.v_proj.bias", ROLE_VALUE_B, LAYER, {DIM_KV}, ZEROS, ALWAYS},
	{"model.layers.%d.self_attn.dense.weight", ROLE_PROJ_W, LAYER, {DIM_C, DIM_Q}, RESIDUAL, ALWAYS},
	{"model.layers.%d.self_attn.dense.bias", ROLE_PROJ_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"model.layers.%d.mlp.fc1.weight", ROLE_UP_W, LAYER, {DIM_F, DIM_C}, NORMAL, ALWAYS},
	{"model.layers.%d.mlp.fc1.bias", ROLE_UP_B, LAYER, {DIM_F}, ZEROS, ALWAYS},
	{"model.layers.%d.mlp.fc2.weight", ROLE_DOWN_W, LAYER, {DIM_C, DIM_F}, RESIDUAL, ALWAYS},
	{"model.layers.%d.mlp.fc2.bias", ROLE_DOWN_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"model.final_layernorm.weight", ROLE_FINAL_G, AFTER, {DIM_C}, GAIN, ALWAYS},
	{"model.final_layernorm.bias", ROLE_FINAL_B, AFTER, {DIM_C}, ZEROS, ALWAYS},
	{"lm_head.weight", ROLE_OUTPUT_W, AFTER, {DIM_V, DIM_C}, NORMAL, IF_UNTIED},
	{"lm_head.bias", ROLE_OUTPUT_B, AFTER, {DIM_V}, ZEROS, ALWAYS},
};

static const struct model__row opt_rows[] = {
	{"model.decoder.embed_tokens.weight", ROLE_TOKEN_EMBED, BEFORE, {DIM_V, DIM_C}, NORMAL, ALWAYS},
	{"model.decoder.embed_positions.weight", ROLE_POSITION_EMBED, BEFORE, {DIM_CONTEXT, DIM_C}, NORMAL, ALWAYS},
	{"model.decoder.layers.%d.self_attn_layer_norm.weight", ROLE_NORM1_G, LAYER, {DIM_C}, GAIN, ALWAYS},
	{"model.decoder.layers.%d.self_attn_layer_norm.bias", ROLE_NORM1_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"model.decoder.layers.%d.self_attn.q_proj.weight", ROLE_QKV_W, LAYER, {DIM_Q, DIM_C}, NORMAL, ALWAYS},
	{"model.decoder.layers.%d.self_attn.k_proj.weight", ROLE_KEY_W, LAYER, {DIM_KV, DIM_C}, NORMAL, ALWAYS},
	{"model.decoder.layers.%d.self_attn.v_proj.weight", ROLE_VALUE_W, LAYER, {DIM_KV, DIM_C}, NORMAL, ALWAYS},
	{"model.decoder.layers.%d.self_attn.q_proj.bias", ROLE_QKV_B, LAYER, {DIM_Q}, ZEROS, ALWAYS},
	{"model.decoder.layers.%d.self_attn.k_proj.bias", ROLE_KEY_B, LAYER, {DIM_KV}, ZEROS, ALWAYS},
	{"model.decoder.layers.%d.self_attn.v_proj.bias", ROLE_VALUE_B, LAYER, {DIM_KV}, ZEROS, ALWAYS},
	{"model.decoder.layers.%d.self_attn.out_proj.weight", ROLE_PROJ_W, LAYER, {DIM_C, DIM_Q}, RESIDUAL, ALWAYS},
	{"model.decoder.layers.%d.self_attn.out_proj.bias", ROLE_PROJ_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"model.decoder.layers.%d.final_layer_norm.weight", ROLE_NORM2_G, LAYER, {DIM_C}, GAIN, ALWAYS},
	{"model.decoder.layers.%d.final_layer_norm.bias", ROLE_NORM2_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"model.decoder.layers.%d.fc1.weight", ROLE_UP_W, LAYER, {DIM_F, DIM_C}, NORMAL, ALWAYS},
	{"model.decoder.layers.%d.fc1.bias", ROLE_UP_B, LAYER, {DIM_F}, ZEROS, ALWAYS},
	{"model.decoder.layers.%d.fc2.weight", ROLE_DOWN_W, LAYER, {DIM_C, DIM_F}, RESIDUAL, ALWAYS},
	{"model.decoder.layers.%d.fc2.bias", ROLE_DOWN_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"model.decoder.final_layer_norm.weight", ROLE_FINAL_G, AFTER, {DIM_C}, GAIN, ALWAYS},
	{"model.decoder.final_layer_norm.bias", ROLE_FINAL_B, AFTER, {DIM_C}, ZEROS, ALWAYS},
	{"lm_head.weight", ROLE_OUTPUT_W, AFTER, {DIM_V, DIM_C}, NORMAL, IF_UNTIED},
};

static const struct model__row gpt_neo_rows[] = {
	{"transformer.wte.weight", ROLE_TOKEN_EMBED, BEFORE, {DIM_V, DIM_C}, NORMAL, ALWAYS},
	{"transformer.wpe.weight", ROLE_POSITION_EMBED, BEFORE, {DIM_CONTEXT, DIM_C}, NORMAL, ALWAYS},
	{"transformer.h.%d.ln_1.weight", ROLE_NORM1_G, LAYER, {DIM_C}, GAIN, ALWAYS},
	{"transformer.h.%d.ln_1.bias", ROLE_NORM1_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"transformer.h.%d.attn.attention.q_proj.weight", ROLE_QKV_W, LAYER, {DIM_Q, DIM_C}, NORMAL, ALWAYS},
	{"transformer.h.%d.attn.attention.k_proj.weight", ROLE_KEY_W, LAYER, {DIM_KV, DIM_C}, NORMAL, ALWAYS},
	{"transformer.h.%d.attn.attention.v_proj.weight", ROLE_VALUE_W, LAYER, {DIM_KV, DIM_C}, NORMAL, ALWAYS},
	{"transformer.h.%d.attn.attention.out_proj.weight", ROLE_PROJ_W, LAYER, {DIM_C, DIM_Q}, RESIDUAL, ALWAYS},
	{"transformer.h.%d.attn.attention.out_proj.bias", ROLE_PROJ_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"transformer.h.%d.ln_2.weight", ROLE_NORM2_G, LAYER, {DIM_C}, GAIN, ALWAYS},
	{"transformer.h.%d.ln_2.bias", ROLE_NORM2_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"transformer.h.%d.mlp.c_fc.weight", ROLE_UP_W, LAYER, {DIM_F, DIM_C}, NORMAL, ALWAYS},
	{"transformer.h.%d.mlp.c_fc.bias", ROLE_UP_B, LAYER, {DIM_F}, ZEROS, ALWAYS},
	{"transformer.h.%d.mlp.c_proj.weight", ROLE_DOWN_W, LAYER, {DIM_C, DIM_F}, RESIDUAL, ALWAYS},
	{"transformer.h.%d.mlp.c_proj.bias", ROLE_DOWN_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"transformer.ln_f.weight", ROLE_FINAL_G, AFTER, {DIM_C}, GAIN, ALWAYS},
	{"transformer.ln_f.bias", ROLE_FINAL_B, AFTER, {DIM_C}, ZEROS, ALWAYS},
	{"lm_head.weight", ROLE_OUTPUT_W, AFTER, {DIM_V, DIM_C}, NORMAL, IF_UNTIED},
};

static const struct model__row bigcode_rows[] = {
	{"transformer.wte.weight", ROLE_TOKEN_EMBED, BEFORE, {DIM_V, DIM_C}, NORMAL, ALWAYS},
	{"transformer.wpe.weight", ROLE_POSITION_EMBED, BEFORE, {DIM_CONTEXT, DIM_C}, NORMAL, ALWAYS},
	{"transformer.h.%d.ln_1.weight", ROLE_NORM1_G, LAYER, {DIM_C}, GAIN, ALWAYS},
	{"transformer.h.%d.ln_1.bias", ROLE_NORM1_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"transformer.h.%d.attn.c_attn.weight", ROLE_QKV_W, LAYER, {DIM_QKV, DIM_C}, NORMAL, ALWAYS},
	{"transformer.h.%d.attn.c_attn.bias", ROLE_QKV_B, LAYER, {DIM_QKV}, ZEROS, ALWAYS},
	{"transformer.h.%d.attn.c_proj.weight", ROLE_PROJ_W, LAYER, {DIM_C, DIM_Q}, RESIDUAL, ALWAYS},
	{"transformer.h.%d.attn.c_proj.bias", ROLE_PROJ_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"transformer.h.%d.ln_2.weight", ROLE_NORM2_G, LAYER, {DIM_C}, GAIN, ALWAYS},
	{"transformer.h.%d.ln_2.bias", ROLE_NORM2_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"transformer.h.%d.mlp.c_fc.weight", ROLE_UP_W, LAYER, {DIM_F, DIM_C}, NORMAL, ALWAYS},
	{"transformer.h.%d.mlp.c_fc.bias", ROLE_UP_B, LAYER, {DIM_F}, ZEROS, ALWAYS},
	{"transformer.h.%d.mlp.c_proj.weight", ROLE_DOWN_W, LAYER, {DIM_C, DIM_F}, RESIDUAL, ALWAYS},
	{"transformer.h.%d.mlp.c_proj.bias", ROLE_DOWN_B, LAYER, {DIM_C}, ZEROS, ALWAYS},
	{"transformer.ln_f.weight", ROLE_FINAL_G, AFTER, {DIM_C}, GAIN, ALWAYS},
	{"transformer.ln_f.bias", ROLE_FINAL_B, AFTER, {DIM_C}, ZEROS, ALWAYS},
	{"lm_head.weight", ROLE_OUTPUT_W, AFTER, {DIM_V, DIM_C}, NORMAL, IF_UNTIED},
};

#define ROWS(rows) (rows), sizeof(rows) / sizeof((rows)[0])
/*
 * HF: tensor names like Llama's. LLAMA: Llama's arithmetic too. START: defaults for keys absent from
 * config.json.
 */
#define HF .prefix = "model.", .output = "lm_head.weight", .buffers = {".rotary_emb.inv_freq"}, .rope = true, .layout = KERNELS_OUT_IN
#define LLAMA HF, .activation = MODEL_SILU, .rms = true, .gated = true
#define GEMMA HF, .activation = MODEL_GELU_NEW, .rms = true, .gated = true, .unit_gain = true, .embed_by_width = true
#define GPT .prefix = "transformer.", .output = "lm_head.weight", .activation = MODEL_GELU_NEW
#define START(std, eps, ...) .start = {.initializer_range = (std), .norm_eps = (eps), __VA_ARGS__}
#define ROPE(theta, eps, ...) START(0.02f, eps, .rope_theta = (theta), __VA_ARGS__)

static const struct family {
	const struct model__row *rows;
	size_t n_rows;
	struct model_traits traits;
} families[] = {
	/* clang-format off */
	[MODEL_FAMILY_GPT2] = {ROWS(gpt2_rows), {.name = "gpt2", .architecture = "GPT2LMHeadModel", GPT, .whole_heads = true,
	    .models = "GPT-2, Cerebras-GPT", .about = "learned positions, LayerNorm, fused c_attn, gelu_new or exact GELU, biases",
	    .buffers = {".attn.bias", ".attn.masked_bias"}, .fused_qkv = true, .layout = KERNELS_IN_OUT, .grows = true,
	    START(0.02f, 1e-5f, .tied = true, .attention_bias = true, .mlp_bias = true)}},
	[MODEL_FAMILY_LLAMA] = {ROWS(llama_rows), {.name = "llama", .architecture = "LlamaForCausalLM", LLAMA, .grows = true,
	    .models = "Llama 2 and 3, SmolLM, SmolLM2, TinyLlama, Yi, Falcon3, InternLM2 as Llama, MobileLLM as Llama",
	    .about = "RMSNorm, rotary positions, grouped queries down to one key head, SwiGLU; attention and MLP biases or not; any head_dim",
	    ROPE(10000, 1e-6f, .tied = false)}},
	[MODEL_FAMILY_QWEN2] = {ROWS(llama_rows), {.name = "qwen2", .architecture = "Qwen2ForCausalLM", LLAMA, .grows = true,
	    .models = "Qwen2, Qwen2.5", .about = "Llama's layer with biases on q, k and v only; sliding windows in the upper layers or not",
	    .needs_attention_bias = true, .no_mlp_bias = true, ROPE(10000, 1e-6f, .attention_bias = true)}},
	[MODEL_FAMILY_QWEN3] = {ROWS(llama_rows), {.name = "qwen3", .architecture = "Qwen3ForCausalLM", LLAMA, .grows = true,
	    .models = "Qwen3", .about = "Llama's layer with RMSNorm on each query and key head before the rotation; attention biases or not; sliding windows or not",
	    .qk_norm = MODEL_QK_NORM_HEADS, .no_mlp_bias = true, ROPE(10000, 1e-6f, .tied = false)}},
	[MODEL_FAMILY_NEOX] = {ROWS(neox_rows), {.name = "gpt_neox", .architecture = "GPTNeoXForCausalLM",
	    .models = "Pythia, GPT-NeoX", .about = "LayerNorm, exact GELU or gelu_new, fused q, k, v stored head by head, rotary positions on the first `rotary_pct` of each head; "
	    "parallel residuals or one after the other; attention biases or not",
	    .activation = MODEL_GELU, .prefix = "gpt_neox.", .output = "embed_out.weight",
	    .buffers = {".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"},
	    .rope = true, .mixed_heads = true, .fused_qkv = true, .whole_heads = true, .partial_rotary = true, .parallel = true,
	    .layout = KERNELS_OUT_IN, .grows = true, .rotary_share = 0.25,
	    ROPE(10000, 1e-5f, .attention_bias = true, .mlp_bias = true, .parallel_residual = true)}},
	[MODEL_FAMILY_MISTRAL] = {ROWS(llama_rows), {.name = "mistral", .architecture = "MistralForCausalLM", LLAMA,
	    .models = "Mistral", .about = "Llama's layer, with a sliding window in all layers or none",
	    .no_mlp_bias = true, .local_period = 1, ROPE(10000, 1e-6f, .window = 4096)}},
	[MODEL_FAMILY_MINISTRAL] = {ROWS(llama_rows), {.name = "ministral", .architecture = "MinistralForCausalLM", LLAMA,
	    .models = "Ministral", .about = "Mistral's, with the window in the layers that `layer_types` says",
	    .no_mlp_bias = true, .local_period = 1, ROPE(10000, 1e-6f, .window = 4096)}},
	[MODEL_FAMILY_SMOLLM3] = {ROWS(llama_rows), {.name = "smollm3", .architecture = "SmolLM3ForCausalLM", LLAMA,
	    .models = "SmolLM3", .about = "Llama's layer; every fourth layer, or those of `no_rope_layers`, without rotary positions",
	    .nope_period = 4, ROPE(2000000, 1e-6f, .tied = true)}},
	[MODEL_FAMILY_OLMO] = {ROWS(llama_rows), {.name = "olmo", .architecture = "OlmoForCausalLM", HF, .activation = MODEL_SILU, .gated = true,
	    .models = "OLMo 1", .about = "Llama's layer with LayerNorm that has no parameters",
	    .no_gain = true, .no_mlp_bias = true, ROPE(10000, 1e-5f, .tied = false)}},
	[MODEL_FAMILY_OLMO2] = {ROWS(llama_rows), {.name = "olmo2", .architecture = "Olmo2ForCausalLM", LLAMA,
	    .models = "OLMo 2", .about = "RMSNorm after each branch and none before it; RMSNorm of queries and of keys over their whole width",
	    .norm_after = true, .no_norm_before = true, .qk_norm = MODEL_QK_NORM_WIDTH, .no_mlp_bias = true, ROPE(10000, 1e-5f, .tied = false)}},
	[MODEL_FAMILY_OLMO3] = {ROWS(llama_rows), {.name = "olmo3", .architecture = "Olmo3ForCausalLM", LLAMA,
	    .models = "OLMo 3", .about = "OLMo 2's, with a sliding window in three of four layers; rotary scaling in the others only",
	    .norm_after = true, .no_norm_before = true, .qk_norm = MODEL_QK_NORM_WIDTH, .no_mlp_bias = true, .local_period = 4,
	    ROPE(500000, 1e-5f, .window = 4096, .local_theta = 500000)}},
	[MODEL_FAMILY_GRANITE] = {ROWS(llama_rows), {.name = "granite", .architecture = "GraniteForCausalLM", LLAMA,
	    .models = "Granite 3", .about = "Llama's layer with multipliers of embeddings, attention scores, branches and logits",
	    ROPE(10000, 1e-6f, .attention_scale = 1)}},
	[MODEL_FAMILY_GEMMA] = {ROWS(llama_rows), {.name = "gemma", .architecture = "GemmaForCausalLM", GEMMA,
	    .models = "Gemma", .about = "RMSNorm times 1 + g, GeGLU, embeddings times sqrt(width), any head_dim", .no_mlp_bias = true,
	    ROPE(10000, 1e-6f, .tied = true)}},
	[MODEL_FAMILY_GEMMA2] = {ROWS(llama_rows), {.name = "gemma2", .architecture = "Gemma2ForCausalLM", GEMMA,
	    .models = "Gemma 2", .about = "Gemma's, with norms before and after each branch, soft caps of scores and logits, a window in every other layer",
	    .norm_after = true, .no_mlp_bias = true, .local_period = 2,
	    ROPE(10000, 1e-6f, .tied = true, .attention_scale = 0.0625f, .attention_cap = 50, .logit_cap = 30, .window = 4096)}},
	[MODEL_FAMILY_GEMMA3] = {ROWS(llama_rows), {.name = "gemma3_text", .architecture = "Gemma3ForCausalLM", GEMMA,
	    .models = "Gemma 3 (text)", .about = "Gemma 2's, with RMSNorm on query and key heads, a window in five of six layers, whose rotary base is `rope_local_base_freq`",
	    .norm_after = true, .qk_norm = MODEL_QK_NORM_HEADS, .no_mlp_bias = true, .local_period = 6,
	    ROPE(1000000, 1e-6f, .tied = true, .attention_scale = 0.0625f, .window = 4096, .local_theta = 10000)}},
	[MODEL_FAMILY_PHI] = {ROWS(phi_rows), {.name = "phi", .architecture = "PhiForCausalLM", HF,
	    .models = "Phi-1, 1.5, 2", .about = "LayerNorm, one for both of the parallel branches; partial rotary positions, gelu_new, biases everywhere, the output layer too",
	    .activation = MODEL_GELU_NEW, .shared_norm = true, .parallel = true, .partial_rotary = true, .rotary_share = 0.5,
	    ROPE(10000, 1e-5f, .attention_bias = true, .mlp_bias = true, .parallel_residual = true)}},
	[MODEL_FAMILY_PHI3] = {ROWS(llama_rows), {.name = "phi3", .architecture = "Phi3ForCausalLM", LLAMA,
	    .models = "Phi-3, Phi-3.5, Phi-4, Phi-4-mini", .about = "Llama's layer with q, k, v in one matrix and gate and up in another; partial rotary positions, a sliding window or none",
	    .fused_qkv = true, .fused_gate = true, .partial_rotary = true, .no_mlp_bias = true, .local_period = 1, ROPE(10000, 1e-5f, .tied = false)}},
	[MODEL_FAMILY_STABLELM] = {ROWS(llama_rows), {.name = "stablelm", .architecture = "StableLmForCausalLM", HF, .activation = MODEL_SILU, .gated = true,
	    .models = "StableLM 2, StableLM 3B", .about = "Llama's layer with LayerNorm, partial rotary positions, and biases on q, k and v or none",
	    .norm_bias = true, .partial_rotary = true, .no_mlp_bias = true, .rotary_share = 0.25, ROPE(10000, 1e-5f, .no_proj_bias = true)}},
	[MODEL_FAMILY_STARCODER2] = {ROWS(starcoder2_rows), {.name = "starcoder2", .architecture = "Starcoder2ForCausalLM", HF,
	    .models = "StarCoder2", .about = "LayerNorm, gelu_new without a gate, rotary positions, biases or none, a sliding window or none",
	    .activation = MODEL_GELU_NEW, .local_period = 1,
	    START(0.018042f, 1e-5f, .rope_theta = 10000, .tied = true, .attention_bias = true, .mlp_bias = true)}},
	[MODEL_FAMILY_MOBILELLM] = {ROWS(llama_rows), {.name = "mobilellm", .architecture = "MobileLLMForCausalLM", LLAMA,
	    .models = "MobileLLM", .about = "Llama's layer; `share_embedding` ties the output layer", ROPE(10000, 1e-6f, .tied = false)}},
	[MODEL_FAMILY_MINICPM] = {ROWS(llama_rows), {.name = "minicpm", .architecture = "MiniCPMForCausalLM", LLAMA,
	    .models = "MiniCPM", .about = "Llama's layer with `scale_emb`, `scale_depth` and `dim_model_base`", .no_mlp_bias = true,
	    ROPE(10000, 1e-6f, .tied = true)}},
	[MODEL_FAMILY_INTERNLM] = {ROWS(llama_rows), {.name = "internlm", .architecture = "InternLMForCausalLM", LLAMA,
	    .models = "InternLM", .about = "Llama's layer; `bias` gives q, k, v and o biases", .no_mlp_bias = true,
	    ROPE(10000, 1e-6f, .attention_bias = true)}},
	[MODEL_FAMILY_INTERNLM3] = {ROWS(llama_rows), {.name = "internlm3", .architecture = "InternLM3ForCausalLM", LLAMA,
	    .models = "InternLM3", .about = "Llama's layer; attention and MLP biases or none", ROPE(10000, 1e-5f, .tied = false)}},
	[MODEL_FAMILY_SEED_OSS] = {ROWS(llama_rows), {.name = "seed_oss", .architecture = "SeedOssForCausalLM", LLAMA,
	    .models = "Seed-OSS", .about = "Llama's layer with biases on q, k and v, and on o or not",
	    ROPE(10000, 1e-6f, .attention_bias = true, .no_proj_bias = true)}},
	[MODEL_FAMILY_ARCEE] = {ROWS(llama_rows), {.name = "arcee", .architecture = "ArceeForCausalLM", HF, .rms = true,
	    .models = "Arcee (AFM)", .about = "Llama's layer with squared ReLU and no gate", .activation = MODEL_RELU2, ROPE(10000, 1e-5f, .tied = false)}},
	[MODEL_FAMILY_NEMOTRON] = {ROWS(llama_rows), {.name = "nemotron", .architecture = "NemotronForCausalLM", HF,
	    .models = "Nemotron, Minitron", .about = "LayerNorm times 1 + g, squared ReLU without a gate, partial rotary positions",
	    .activation = MODEL_RELU2, .unit_gain = true, .norm_bias = true, .partial_rotary = true, .rotary_share = 0.5,
	    START(0.0134f, 1e-5f, .rope_theta = 10000)}},
	[MODEL_FAMILY_GPT_NEO] = {ROWS(gpt_neo_rows), {.name = "gpt_neo", .architecture = "GPTNeoForCausalLM", GPT, .whole_heads = true,
	    .models = "GPT-Neo, TinyStories", .about = "GPT-2's layer without biases on q, k and v, scores that are not scaled, a window in every other layer",
	    .buffers = {".attn.attention.bias", ".attn.attention.masked_bias"}, .layout = KERNELS_OUT_IN,
	    .local_period = -2, START(0.02f, 1e-5f, .tied = true, .mlp_bias = true, .attention_scale = 1, .window = 256)}},
	[MODEL_FAMILY_BIGCODE] = {ROWS(bigcode_rows), {.name = "gpt_bigcode", .architecture = "GPTBigCodeForCausalLM", GPT,
	    .models = "StarCoder, SantaCoder", .about = "GPT-2's layer with one key/value head", .one_key_head = true,
	    .buffers = {".attn.bias", ".attn.masked_bias"}, .fused_qkv = true, .layout = KERNELS_OUT_IN,
	    START(0.02f, 1e-5f, .tied = true, .attention_bias = true, .mlp_bias = true)}},
	[MODEL_FAMILY_OPT] = {ROWS(opt_rows), {.name = "opt", .architecture = "OPTForCausalLM", .prefix = "model.decoder.", .output = "lm_head.weight",
	    .whole_heads = true,
	    .models = "OPT", .about = "learned positions from row 2 on, LayerNorm, ReLU or GELU, biases", .activation = MODEL_RELU,
	    .layout = KERNELS_OUT_IN, .position_offset = 2, START(0.02f, 1e-5f, .tied = true, .attention_bias = true, .mlp_bias = true)}},
	/* clang-format on */
};

#define N_FAMILIES (sizeof(families) / sizeof(families[0]))
_Static_assert(N_FAMILIES == MODEL_FAMILY_COUNT, "a row for each family");

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

void
model_family_start(struct model_config *cfg)
{
	const struct model_traits *t = model_traits(cfg->family);
	struct model_config out = t->start;

	out.family = cfg->family;
	out.vocab_size = cfg->vocab_size;
	out.context = cfg->context;
	out.d_model = cfg->d_model;
	out.n_layers = cfg->n_layers;
	out.n_heads = cfg->n_heads;
	out.n_kv_heads = cfg->n_kv_heads;
	out.head_dim = cfg->head_dim;
	out.d_ff = cfg->d_ff;
	out.bos_id = cfg->bos_id;
	out.eos_id = cfg->eos_id;
	if (t->rotary_share > 0)
		out.rotary_dim = (int64_t)((double)cfg->head_dim * t->rotary_share);
	if (t->embed_by_width)
		out.embed_scale = sqrtf((float)cfg->d_model);
	for (int i = 0; i < MODEL_MAX_LISTED && i < cfg->n_layers; i++) {
		uint64_t bit = UINT64_C(1) << i % 64;

		if (t->local_period == 1 || (t->local_period > 1 && (i + 1) % t->local_period != 0) ||
		    (t->local_period < 0 && (i + 1) % -t->local_period == 0))
			out.local_layers[i / 64] |= bit;
		if (t->nope_period > 0 && (i + 1) % t->nope_period == 0)
			out.nope_layers[i / 64] |= bit;
	}
	*cfg = out;
}

static const char *const activations[] = {"", "gelu_new", "gelu", "silu", "relu", "relu2"};
static const char *const rope_scalings[] = {"default", "linear", "dynamic", "yarn", "llama3", "longrope"};

const char *
model_activation_name(enum model_activation activation)
{
	return (unsigned)activation < sizeof(activations) / sizeof(activations[0]) ? activations[activation] : "unknown";
}

enum model_activation
model_activation(const struct model_config *cfg)
{
	return cfg->activation != MODEL_ACTIVATION_FAMILY ? cfg->activation : model_traits(cfg->family)->activation;
}

const char *
model_rope_scaling_name(enum model_rope_scaling type)
{
	return (unsigned)type < sizeof(rope_scalings) / sizeof(rope_scalings[0]) ? rope_scalings[type] : "unknown";
}
