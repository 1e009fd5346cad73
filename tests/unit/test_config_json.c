/* SPDX-License-Identifier: Apache-2.0 */
/* config.json: the values that are read, and the keys that are rejected by name. */
#include "engine/weights/weights.h"

#include <errno.h>
#include <unistd.h>
#include "check.h"
#include "engine/model/model.h"

#define GPT2 "\"model_type\":\"gpt2\",\"vocab_size\":31,\"n_positions\":16,\"n_embd\":12,\"n_layer\":2,\"n_head\":3"
#define LLAMA "\"model_type\":\"llama\",\"vocab_size\":37,\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":2," \
	"\"num_attention_heads\":4,\"max_position_embeddings\":64"
#define LLAMA3 "\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":32"

#define QWEN(n) "\"model_type\":\"qwen" n "\",\"vocab_size\":37,\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":2," \
	"\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":64"
#define NEOX "\"model_type\":\"gpt_neox\",\"vocab_size\":37,\"hidden_size\":32,\"intermediate_size\":24,\"num_hidden_layers\":2," \
	"\"num_attention_heads\":4,\"max_position_embeddings\":64"

static char file[160];

static int
load(const char *text, struct model_config *cfg, struct err_note *note)
{
	FILE *f = fopen(file, "wb");

	REQUIRE(f != NULL && fprintf(f, "{%s}", text) > 0 && fclose(f) == 0);
	memset(note, 0, sizeof(*note));
	return weights_config_load(file, cfg, note);
}

static void
refusals(void)
{
	static const struct {
		const char *text;
		int rc;
		const char *place, *found;
	} rows[] = {
		{GPT2, 0, "", ""},
		{LLAMA, 0, "", ""},
		{"\"vocab_size\":3", ERR_FORMAT, "model_type", "nothing"},
		{"\"model_type\":\"mamba\"", ERR_UNSUPPORTED, "model_type", "mamba"},
		{"\"model_type\":\"gpt2\"", ERR_FORMAT, "vocab_size", "nothing"},
		{GPT2 ",\"quantization_config\":{\"bits\":4}", ERR_UNSUPPORTED, "quantization_config", "bits"},
		{GPT2 ",\"activation_function\":\"quick_gelu\"", ERR_UNSUPPORTED, "activation_function", "quick_gelu"},
		{GPT2 ",\"activation_function\":\"silu\"", ERR_UNSUPPORTED, "activation_function", "silu"},
		{GPT2 ",\"activation_function\":\"gelu\"", 0, "", ""},
		{GPT2 ",\"activation_function\":3", ERR_FORMAT, "activation_function", "3"},
		{GPT2 ",\"activation_function\":\"gelu_pytorch_tanh\"", 0, "", ""},
		{GPT2 ",\"scale_attn_weights\":false", ERR_UNSUPPORTED, "scale_attn_weights", "false"},
		{GPT2 ",\"scale_attn_by_inverse_layer_idx\":true", ERR_UNSUPPORTED, "scale_attn_by_inverse_layer_idx", "true"},
		{GPT2 ",\"scale_attn_by_inverse_layer_idx\":1", ERR_FORMAT, "scale_attn_by_inverse_layer_idx", "1"},
		{GPT2 ",\"add_cross_attention\":true", ERR_UNSUPPORTED, "add_cross_attention", "true"},
		{GPT2 ",\"layer_norm_epsilon\":0", ERR_RANGE, "layer_norm_epsilon", "0"},
		{GPT2 ",\"layer_norm_epsilon\":\"x\"", ERR_FORMAT, "layer_norm_epsilon", "x"},
		{GPT2 ",\"n_inner\":-1", ERR_RANGE, "n_inner", "-1"},
		{GPT2 ",\"n_inner\":1.5", ERR_FORMAT, "n_inner", "1.5"},
		{GPT2 ",\"tie_word_embeddings\":\"no\"", ERR_FORMAT, "tie_word_embeddings", "no"},
		{GPT2 ",\"eos_token_id\":\"x\"", ERR_FORMAT, "eos_token_id", "x"},
		{"\"model_type\":\"gpt2\",\"vocab_size\":31,\"n_positions\":16,\"n_embd\":12,\"n_layer\":2,\"n_head\":5", ERR_RANGE, "n_head", "5"},
		{"\"model_type\":\"gpt2\",\"vocab_size\":99999999999,\"n_positions\":16", ERR_RANGE, "vocab_size", "99999999999"},
		{LLAMA ",\"hidden_act\":\"gelu\"", ERR_UNSUPPORTED, "hidden_act", "gelu"},
		{LLAMA ",\"num_key_value_heads\":3", ERR_RANGE, "num_key_value_heads", "3"},
		{LLAMA ",\"head_dim\":3", ERR_RANGE, "head_dim", "odd"},
		{LLAMA ",\"is_causal\":false", ERR_UNSUPPORTED, "is_causal", "false"},
		{LLAMA ",\"rope_interleaved\":true", ERR_UNSUPPORTED, "rope_interleaved", "true"},
		{LLAMA ",\"partial_rotary_factor\":0.5", ERR_UNSUPPORTED, "partial_rotary_factor", "0.5"},
		{LLAMA ",\"rope_theta\":-1", ERR_RANGE, "rope_theta", "-1"},
		{LLAMA ",\"rope_scaling\":3", ERR_FORMAT, "rope_scaling", "3"},
		{LLAMA ",\"rope_scaling\":{\"rope_type\":\"proportional\",\"factor\":2}", ERR_UNSUPPORTED, "rope_scaling.rope_type", "proportional"},
		{LLAMA ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}", 0, "", ""},
		{LLAMA ",\"rope_scaling\":{\"type\":\"linear\"}", ERR_FORMAT, "rope_scaling.factor", "nothing"},
		{LLAMA ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,2]}", ERR_FORMAT, "rope_scaling.long_factor", "nothing"},
		{LLAMA ",\"rope_scaling\":{\"type\":\"su\",\"short_factor\":[1]}", ERR_FORMAT, "rope_scaling.short_factor", "[1]"},
		{LLAMA ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":-1}", ERR_RANGE, "rope_scaling.factor", "-1"},
		{LLAMA ",\"sliding_window\":8", ERR_UNSUPPORTED, "sliding_window", "8"},
		{LLAMA ",\"layer_types\":[\"full_attention\",\"sliding_attention\"]", ERR_UNSUPPORTED, "layer_types", "sliding"},
		{LLAMA ",\"rope_scaling\":{\"factor\":2}", ERR_FORMAT, "rope_scaling.rope_type", "factor"},
		{LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":2}", ERR_FORMAT, "rope_scaling.low_freq_factor", "nothing"},
		{LLAMA ",\"rope_parameters\":{\"rope_type\":\"dynamic\"}", ERR_FORMAT, "rope_parameters.factor", "nothing"},
		{LLAMA ",\"rope_parameters\":{\"rope_type\":\"default\",\"partial_rotary_factor\":0.25}", ERR_UNSUPPORTED,
		    "rope_parameters.partial_rotary_factor", "0.25"},
		{LLAMA ",\"rope_parameters\":{\"full\":{\"rope_theta\":1}}", ERR_UNSUPPORTED, "rope_parameters.full", "rope_theta"},
		{LLAMA ",\"rope_parameters\":{\"rope_theta\":1},\"rope_scaling\":{\"rope_type\":\"default\"}", ERR_UNSUPPORTED, "rope_scaling", "default"},
		{LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4}", ERR_RANGE,
		    "rope_scaling.high_freq_factor", "4"},
		{QWEN("2") ",\"use_sliding_window\":true,\"max_window_layers\":1,\"sliding_window\":32", 0, "", ""},
		{QWEN("2") ",\"use_sliding_window\":true,\"max_window_layers\":\"x\"", ERR_FORMAT, "max_window_layers", "x"},
		{QWEN("2") ",\"use_sliding_window\":true,\"layer_types\":[\"full_attention\"]", ERR_FORMAT, "layer_types", "full"},
		{QWEN("2") ",\"use_sliding_window\":true,\"layer_types\":[\"full_attention\",\"chunked_attention\"]", ERR_UNSUPPORTED, "layer_types", "chunked"},
		{QWEN("2") ",\"layer_types\":[\"full_attention\",\"sliding_attention\"]", ERR_UNSUPPORTED, "layer_types", "sliding_attention"},
		{QWEN("2") ",\"sliding_window\":32,\"layer_types\":[\"full_attention\",\"full_attention\"]", 0, "", ""},
		{QWEN("2") ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}", 0, "", ""},
		{QWEN("2") ",\"hidden_act\":\"gelu\"", ERR_UNSUPPORTED, "hidden_act", "gelu"},
		{QWEN("3"), ERR_FORMAT, "head_dim", "nothing"},
		{QWEN("3") ",\"head_dim\":5", ERR_RANGE, "head_dim", "odd"},
		{NEOX ",\"hidden_act\":\"gelu_new\"", 0, "", ""},
		{NEOX ",\"hidden_act\":\"silu\"", ERR_UNSUPPORTED, "hidden_act", "silu"},
		{NEOX ",\"rotary_pct\":0.1", ERR_RANGE, "rotary_pct", "0.1"},
		{NEOX ",\"rotary_pct\":0.4", ERR_RANGE, "rotary_pct", "0.4"},
		{NEOX ",\"rotary_pct\":2", ERR_RANGE, "rotary_pct", "2"},
		{NEOX ",\"use_parallel_residual\":1", ERR_FORMAT, "use_parallel_residual", "1"},
		{NEOX ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}", 0, "", ""},
		{LLAMA ",\"vocab_size\":3", ERR_FORMAT, "line 1", "duplicate"},
		{LLAMA ",", ERR_FORMAT, "line 1", ""},
	};
	struct model_config cfg;
	struct err_note note;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		CHECK_ROW(rows[i].text, load(rows[i].text, &cfg, &note) == rows[i].rc);
		CHECK_ROW(rows[i].text, rows[i].rc == 0 || strcmp(note.name, file) == 0);
		CHECK_ROW(rows[i].text, strstr(note.place, rows[i].place) != NULL);
		CHECK_ROW(rows[i].text, strstr(note.found, rows[i].found) != NULL);
	}
	CHECK(weights_config_load(check_missing(), &cfg, &note) == ENOENT);
}

static void
defaults(void)
{
	struct model_config c;
	struct err_note note;

	REQUIRE(load(GPT2, &c, &note) == 0);
	CHECK(c.family == MODEL_FAMILY_GPT2 && c.tied && c.d_ff == 48 && c.head_dim == 4 && c.n_kv_heads == 3 && c.context == 16);
	CHECK(c.norm_eps == 1e-5f && c.bos_id == -1 && c.eos_id == -1 && c.initializer_range == 0.02f);
	REQUIRE(load(GPT2 ",\"n_inner\":null,\"tie_word_embeddings\":false,\"eos_token_id\":null", &c, &note) == 0);
	CHECK(!c.tied && c.d_ff == 48 && c.eos_id == -1);
	REQUIRE(load(LLAMA, &c, &note) == 0);
	CHECK(c.family == MODEL_FAMILY_LLAMA && !c.tied && c.n_kv_heads == 4 && c.head_dim == 4 && c.rope_theta == 10000.0);
	CHECK(c.norm_eps == 1e-6f && !c.attention_bias && !c.mlp_bias && c.rope_scaling.type == MODEL_ROPE_DEFAULT);
	REQUIRE(load(LLAMA ",\"rope_theta\":500000.0,\"rope_scaling\":{" LLAMA3 "},\"eos_token_id\":[7,8],\"head_dim\":6", &c, &note) == 0);
	CHECK(c.rope_theta == 500000.0 && c.rope_scaling.type == MODEL_ROPE_LLAMA3 && c.rope_scaling.factor == 8 && c.rope_scaling.original_context == 32);
	CHECK(c.eos_id == 7 && c.head_dim == 6);
	REQUIRE(load(LLAMA ",\"rope_parameters\":{\"rope_theta\":7000," LLAMA3 "}", &c, &note) == 0);
	CHECK(c.rope_theta == 7000.0 && c.rope_scaling.type == MODEL_ROPE_LLAMA3 && c.rope_scaling.high_freq_factor == 4);
	REQUIRE(load(LLAMA ",\"rope_parameters\":{\"rope_theta\":7000,\"rope_type\":\"default\"}", &c, &note) == 0);
	CHECK(c.rope_theta == 7000.0 && c.rope_scaling.type == MODEL_ROPE_DEFAULT);
	REQUIRE(load(LLAMA ",\"original_max_position_embeddings\":48,\"rope_scaling\":{" LLAMA3 "}", &c, &note) == 0);
	CHECK(c.rope_scaling.original_context == 48);
	REQUIRE(load(QWEN("2"), &c, &note) == 0);
	CHECK(c.family == MODEL_FAMILY_QWEN2 && c.attention_bias && !c.mlp_bias && c.head_dim == 4 && c.n_kv_heads == 2 && !c.tied);
	REQUIRE(load(QWEN("3") ",\"head_dim\":10,\"tie_word_embeddings\":true", &c, &note) == 0);
	CHECK(c.family == MODEL_FAMILY_QWEN3 && !c.attention_bias && c.head_dim == 10 && c.tied && c.norm_eps == 1e-6f);
	REQUIRE(load(NEOX, &c, &note) == 0);
	CHECK(c.family == MODEL_FAMILY_NEOX && c.attention_bias && c.mlp_bias && c.parallel_residual && c.rotary_dim == 2 && !c.tied);
	CHECK(c.rope_theta == 10000.0 && c.norm_eps == 1e-5f && c.n_kv_heads == 4);
	REQUIRE(load(NEOX ",\"rotary_pct\":0.5,\"rotary_emb_base\":500,\"use_parallel_residual\":false,\"attention_bias\":false", &c, &note) == 0);
	CHECK(c.rotary_dim == 4 && c.rope_theta == 500.0 && !c.parallel_residual && !c.attention_bias);
	REQUIRE(load(NEOX ",\"rope_parameters\":{\"rope_theta\":700,\"partial_rotary_factor\":1.0,\"rope_type\":\"default\"}", &c, &note) == 0);
	CHECK(c.rotary_dim == 8 && c.rope_theta == 700.0);
}

int
main(void)
{
	const char *tmp = getenv("TMPDIR");
	int fd;

	snprintf(file, sizeof(file), "%.90s/config.XXXXXX", tmp != NULL ? tmp : "/tmp");
	REQUIRE((fd = mkstemp(file)) >= 0);
	close(fd);
	refusals();
	defaults();
	unlink(file);
	return check_done();
}
