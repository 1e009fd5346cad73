/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GGUF files that this test makes byte by byte: values that must be read, row order checked by hand, and
 * everything that must be rejected with a reason.
 */
#include "engine/gguf/gguf.h"

#include <errno.h>
#include <stdbool.h>
#include <unistd.h>
#include "check.h"
#include "engine/model/model.h"
#include "unit/model_find.h"

#define ALIGN 32
#define C 8				/* width; two heads of 4, one key head */
#define V 6
#define F 8

static char path[64];
static unsigned char file[65536];
static size_t n_file, n_infos;
static const char *fault;		/* the fault of the current row; "": none */

static bool
wrong(const char *name)
{
	return strcmp(fault, name) == 0;
}

static void
put(uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		file[n_file++] = (unsigned char)(v >> (8 * i));
}

static void
put_text(const char *s)
{
	put(strlen(s), 8);
	memcpy(file + n_file, s, strlen(s));
	n_file += strlen(s);
}

/* Writes a key; in some rows a key of the architecture, which begins with "llama.", gets another prefix. */
static void
put_key(const char *s)
{
	char text[64];

	if (strncmp(s, "llama.", 6) != 0) {
		put_text(s);
		return;
	}
	snprintf(text, sizeof(text), "%s%s", wrong("qwen2") ? "qwen2" : "llama", s + 5);
	put_text(text);
}

static void
put_f32(float x)
{
	uint32_t u;

	memcpy(&u, &x, 4);
	put(u, 4);
}

static unsigned n_pairs_put;

static void
pair_u32(const char *key, uint32_t v)
{
	put_key(key);
	put(4, 4);
	put(v, 4);
	n_pairs_put++;
}

static void
pair_f32(const char *key, float v)
{
	put_key(key);
	put(6, 4);
	put_f32(v);
	n_pairs_put++;
}

static void
pair_text(const char *key, const char *s)
{
	put_key(key);
	put(8, 4);
	put_text(s);
	n_pairs_put++;
}

static void
pair_array(const char *key, uint32_t kind, uint64_t count)
{
	put_key(key);
	put(9, 4);
	put(kind, 4);
	put(count, 8);
	n_pairs_put++;
}

struct info {
	const char *name;
	uint64_t rows, width;		/* rows 0: a vector */
};

static const struct info infos[] = {
	{"token_embd.weight", V, C}, {"output_norm.weight", 0, C}, {"output.weight", V, C}, {"blk.0.attn_norm.weight", 0, C},
	{"blk.0.attn_q.weight", 8, C}, {"blk.0.attn_k.weight", 4, C}, {"blk.0.attn_v.weight", 4, C}, {"blk.0.attn_output.weight", C, 8},
	{"blk.0.ffn_norm.weight", 0, C}, {"blk.0.ffn_gate.weight", F, C}, {"blk.0.ffn_up.weight", F, C}, {"blk.0.ffn_down.weight", C, F},
};

/* The biases of Qwen2, which has none for attn_output. */
static const struct info biases[] = {{"blk.0.attn_q.bias", 0, 8}, {"blk.0.attn_k.bias", 0, 4}, {"blk.0.attn_v.bias", 0, 4}};

#define N_BIASES (sizeof(biases) / sizeof(biases[0]))
#define N_INFOS (sizeof(infos) / sizeof(infos[0]))

static void
put_tokens(void)
{
	static const char *const tokens[V] = {"a", "b", "ab", "<s>", "c", "</s>"};
	static const uint32_t types[V] = {1, 1, 1, 3, 1, 3};

	pair_text("tokenizer.ggml.model", wrong("spm") || wrong("scores") || wrong("scores short") ? "llama" : wrong("t5") ? "t5" : "gpt2");
	if (!wrong("no pre"))
		pair_text("tokenizer.ggml.pre", wrong("pre") ? "kimi-k2" : wrong("refact") ? "refact" : wrong("smaug") ? "smaug-bpe" : "gpt-2");
	pair_array("tokenizer.ggml.tokens", 8, V);
	for (int i = 0; i < V; i++)
		put_text(wrong("token twice") && i == 1 ? "a" : wrong("token utf8") && i == 1 ? "\xc3(" : tokens[i]);
	pair_array("tokenizer.ggml.token_type", 5, wrong("types short") ? V - 1 : V);
	for (int i = 0; i < V - wrong("types short"); i++)
		put(wrong("byte token") && i == 2 ? 6 : types[i], 4);
	if (wrong("scores") || wrong("scores short")) {
		pair_array("tokenizer.ggml.scores", 6, wrong("scores short") ? V - 1 : V);
		for (int i = 0; i < V - wrong("scores short"); i++)
			put(i == 2 ? 0xbf800000 : 0, 4);		/* -1, 0 */
	}
	if (wrong("no merges"))
		return;
	pair_array("tokenizer.ggml.merges", wrong("merges of u32") ? 4 : 8, 1);
	if (wrong("merges of u32"))
		put(1, 4);
	else
		put_text("a b");
}

static void
put_pairs(void)
{
	if (!wrong("no architecture"))
		pair_text("general.architecture", wrong("architecture") ? "falcon" : wrong("qwen2") ? "qwen2" : "llama");
	pair_u32("llama.context_length", 16);
	pair_u32("llama.embedding_length", C);
	pair_u32("llama.block_count", wrong("layers") ? 2 : 1);
	pair_u32("llama.feed_forward_length", F);
	if (wrong("heads per layer")) {
		pair_array("llama.attention.head_count", 4, 1);
		put(2, 4);
	} else {
		pair_u32("llama.attention.head_count", wrong("no heads") ? 0 : wrong("odd heads") ? 3 : 2);
	}
	pair_u32("llama.attention.head_count_kv", 1);
	if (!wrong("no eps"))
		pair_f32("llama.attention.layer_norm_rms_epsilon", wrong("nan eps") ? NAN : 1e-5f);
	if (wrong("rope_freqs") || wrong("other rope_freqs") || wrong("rope_freqs shape"))
		pair_f32("llama.rope.freq_base", 5e8f);
	if (wrong("rope_freqs 1024"))
		pair_f32("llama.rope.freq_base", 101321);
	if (wrong("yarn") || wrong("ntk") || wrong("linear") || wrong("longrope")) {
		pair_text("llama.rope.scaling.type", fault);
		pair_f32("llama.rope.scaling.factor", 4);
	}
	if (wrong("old linear") || wrong("two scalings"))
		pair_f32("llama.rope.scale_linear", 4);
	if (wrong("yarn")) {
		pair_u32("llama.rope.scaling.original_context_length", 8);
		pair_f32("llama.rope.scaling.yarn_beta_slow", 2);
	}
	if (wrong("yarn_ext_factor"))
		pair_f32("llama.rope.scaling.yarn_ext_factor", 0.5f);
	if (wrong("experts"))
		pair_u32("llama.expert_count", 8);
	if (wrong("new key"))
		pair_u32("llama.attention.temperature", 8);
	if (wrong("half rope"))
		pair_u32("llama.rope.dimension_count", 2);
	if (wrong("vocab"))
		pair_u32("llama.vocab_size", V + 1);
	if (wrong("bos"))
		pair_u32("tokenizer.ggml.bos_token_id", V);
	if (wrong("key twice"))
		pair_u32("llama.block_count", 1);
	if (wrong("alignment"))
		pair_u32("general.alignment", 48);
	if (wrong("alignment kind"))
		pair_text("general.alignment", "32");
	if (wrong("split"))
		pair_u32("split.count", 3);
	if (wrong("kind 13")) {
		put_text("x");
		put(13, 4);
		n_pairs_put++;
	}
	if (wrong("empty key"))
		pair_u32("", 1);
	if (wrong("key utf8"))
		pair_u32("a\xff", 1);
	if (wrong("long key")) {
		put(UINT64_C(1) << 40, 8);
		n_pairs_put++;
	}
	if (wrong("long string")) {
		put_text("x");
		put(8, 4);
		put(UINT64_MAX, 8);
		n_pairs_put++;
	}
	if (wrong("string past end")) {
		put_text("x");
		put(8, 4);
		put(60000, 8);
		n_pairs_put++;
	}
	if (wrong("long array"))
		pair_array("x", 4, UINT64_C(1) << 60);
	if (wrong("array past end"))
		pair_array("x", 10, 1u << 20);
	if (wrong("array of strings past end"))
		pair_array("x", 8, 1u << 20);
	if (wrong("deep")) {
		pair_array("x", 9, 1);
		for (int i = 0; i < 8; i++) {
			put(9, 4);
			put(1, 8);
		}
		put(0, 4);
		put(0, 8);
	}
	put_tokens();
}

static void
put_info(const struct info *t, uint64_t *offset)
{
	bool q = strcmp(t->name, "blk.0.attn_q.weight") == 0;

	n_infos++;
	put_text(wrong("name twice") && strcmp(t->name, "output.weight") == 0 ? "token_embd.weight" :
	    wrong("extra") && strcmp(t->name, "output.weight") == 0 ? "blk.0.attn_q_norm.weight" : t->name);
	if (q && wrong("dims")) {
		put(5, 4);
		return;
	}
	put(t->rows > 0 ? 2 : 1, 4);
	put(q && wrong("shape") ? t->width / 2 : q && wrong("huge dim") ? UINT64_C(1) << 33 : q && wrong("zero dim") ? 0 :
	    q && wrong("wide dim") ? UINT64_MAX : t->width, 8);
	if (t->rows > 0)
		put(q && wrong("huge dim") ? UINT64_C(1) << 32 : t->rows, 8);
	put(q && wrong("type IQ2_XS") ? 17 : q && wrong("type 77") ? 77 : q && wrong("part of a block") ? GGUF_Q8_0 : GGUF_F32, 4);
	put(q && wrong("misaligned") ? *offset + 4 : q && wrong("past end") ? UINT64_C(1) << 40 : q && wrong("wraps") ? UINT64_MAX - 31 :
	    q && wrong("overlap") ? 0 : *offset, 8);
	*offset += ((t->rows > 0 ? t->rows : 1) * t->width * 4 + ALIGN - 1) / ALIGN * ALIGN;
}

/* Builds the file; element i of the k-th tensor is 1000 k + i. */
static void
build(const char *how)
{
	uint64_t offset = 0;
	size_t at_counts;
	FILE *f;

	fault = how;
	n_file = n_infos = n_pairs_put = 0;
	if (wrong("git lfs")) {
		memcpy(file, "version https://git-lfs.github.com/spec/v1\n", 43);
		n_file = 43;
	}
	put(wrong("magic") ? 0x46554746 : 0x46554747, 4);
	put(wrong("version 1") ? 1 : wrong("version 4") ? 4 : wrong("big-endian") ? 0x03000000 : wrong("version 2") ? 2 : 3, 4);
	at_counts = n_file;
	put(0, 8);
	put(0, 8);
	put_pairs();
	for (size_t i = 0; i < N_INFOS; i++)
		if (!(wrong("missing") && i == 9))
			put_info(&infos[i], &offset);
	for (size_t i = 0; (wrong("biases") || wrong("qwen2")) && i < N_BIASES; i++)
		put_info(&biases[i], &offset);
	if (wrong("rope_freqs") || wrong("rope_freqs 1024") || wrong("other rope_freqs") || wrong("rope_freqs shape") || wrong("two scalings"))
		put_info(&(struct info){"rope_freqs.weight", 0, wrong("rope_freqs shape") ? 4 : 2}, &offset);
	while (n_file % ALIGN != 0)
		put(0, 1);
	for (size_t k = 0; k < N_INFOS; k++) {
		uint64_t n = (infos[k].rows > 0 ? infos[k].rows : 1) * infos[k].width;

		if (wrong("missing") && k == 9)
			continue;
		for (uint64_t i = 0; i < n; i++)
			put_f32(wrong("nan") && k == 6 && i == 5 ? NAN : (float)(1000 * k + i));
		while (n_file % ALIGN != 0)
			put(0, 1);
	}
	for (size_t k = 0; (wrong("biases") || wrong("qwen2")) && k < N_BIASES; k++) {
		for (uint64_t i = 0; i < biases[k].width; i++)
			put_f32((float)(100 * k + i));
		while (n_file % ALIGN != 0)
			put(0, 1);
	}
	put_f32(wrong("other rope_freqs") ? 2 : 1);		/* rope_freqs.weight, if there is one */
	for (int i = 0; i < 7; i++)
		put_f32(32);
	for (unsigned i = 0; i < 8; i++) {
		uint64_t tensors = wrong("tensor count") ? UINT64_C(1) << 62 : n_infos;
		uint64_t pairs = wrong("pair count") ? UINT64_MAX : wrong("one pair more") ? n_pairs_put + 1 : n_pairs_put;

		file[at_counts + i] = (unsigned char)(tensors >> (8 * i));
		file[at_counts + 8 + i] = (unsigned char)(pairs >> (8 * i));
	}
	REQUIRE(n_file < sizeof(file) && (f = fopen(path, "wb")) != NULL && fwrite(file, 1, n_file, f) == n_file && fclose(f) == 0);
}

/* Does all steps of an import; returns the first error. */
static int
import(struct err_note *note)
{
	char *json = NULL, *config = NULL;
	struct gguf_model *m = NULL;
	struct model *model = NULL;
	struct model_config cfg;
	struct gguf *g = NULL;
	static float x[4096];
	int rc;

	if ((rc = gguf_open(&g, path, note)) == 0 && (rc = gguf_config(g, &cfg, note)) == 0 && (rc = model_new(&model, &cfg, note)) == 0 &&
	    (rc = gguf_model_open(&m, g, model, note)) == 0 && (rc = gguf_tokenizer(g, &json, &config, note)) == 0)
		rc = gguf_model_source(m, 0, (uint64_t)model->n_params, x, note);
	gguf_model_close(&m);
	model_destroy(&model);
	gguf_close(&g);
	free(json);
	free(config);
	return rc;
}

static void
test_refusals(void)
{
	static const struct {
		const char *what;
		int rc;
		const char *says;
	} rows[] = {
		{"magic", ERR_FORMAT, "byte 0: expected GGUF"}, {"version 1", ERR_VERSION, "expected version 2 or 3, found 1"},
		{"version 4", ERR_VERSION, "found 4"}, {"big-endian", ERR_UNSUPPORTED, "big-endian"},
		{"tensor count", ERR_RANGE, "at most 65536 tensors"}, {"pair count", ERR_RANGE, "at most 65536 pairs"},
		{"one pair more", ERR_RANGE, "a tensor's name of at most"},
		{"kind 13", ERR_FORMAT, "found 13"}, {"empty key", ERR_FORMAT, "a key"}, {"key utf8", ERR_FORMAT, "byte 0xff"},
		{"long key", ERR_RANGE, "at most 65535 bytes"}, {"long string", ERR_RANGE, "18446744073709551615"},
		{"string past end", ERR_FORMAT, "60000 bytes, of which the file has"}, {"long array", ERR_RANGE, "1152921504606846976"},
		{"array past end", ERR_FORMAT, "1048576 of u64"}, {"array of strings past end", ERR_RANGE, "a string of at most"},
		{"deep", ERR_RANGE, "4 deep"},
		{"key twice", ERR_FORMAT, "key llama.block_count: expected unique keys"},
		{"alignment", ERR_RANGE, "power of two"}, {"alignment kind", ERR_FORMAT, "general.alignment: expected an integer, found string"},
		{"split", ERR_UNSUPPORTED, "one of 3 parts"},
		{"dims", ERR_RANGE, "tensor blk.0.attn_q.weight: expected 1 to 4 dimensions"}, {"huge dim", ERR_RANGE, "blk.0.attn_q.weight"},
		{"zero dim", ERR_RANGE, "blk.0.attn_q.weight"}, {"wide dim", ERR_RANGE, "18446744073709551615"},
		{"type IQ2_XS", ERR_UNSUPPORTED, "type IQ2_XS (17)"}, {"type 77", ERR_UNSUPPORTED, "type ? (77)"},
		{"part of a block", ERR_FORMAT, "8 elements in blocks of 32 (Q8_0)"}, {"misaligned", ERR_FORMAT, "an offset that 32 divides"},
		{"past end", ERR_FORMAT, "1099511627776"}, {"wraps", ERR_FORMAT, "a range within"},
		{"overlap", ERR_FORMAT, "overlaps no other tensor"},
		{"name twice", ERR_FORMAT, "tensor token_embd.weight: expected unique names"},
		{"no architecture", ERR_FORMAT, "general.architecture"}, {"architecture", ERR_UNSUPPORTED, "smollm3 or granite, found falcon"},
		{"heads per layer", ERR_FORMAT, "head_count: expected an integer, found array"}, {"no heads", ERR_RANGE, "head_count"},
		{"odd heads", ERR_RANGE, "a divisor of llama.embedding_length"}, {"no eps", ERR_FORMAT, "rms_epsilon: expected a number, found nothing"},
		{"nan eps", ERR_RANGE, "norm_eps"}, {"ntk", ERR_UNSUPPORTED, "expected none, linear, yarn or longrope, found ntk"},
		{"yarn_ext_factor", ERR_UNSUPPORTED, "llama.rope.scaling.yarn_ext_factor: expected 1, found 0.5"},
		{"experts", ERR_UNSUPPORTED, "llama.expert_count: expected 0, found 8"}, {"new key", ERR_UNSUPPORTED, "llama.attention.temperature"},
		{"half rope", ERR_UNSUPPORTED, "llama.rope.dimension_count"}, {"vocab", ERR_MISMATCH, "llama.vocab_size"},
		{"bos", ERR_RANGE, "tokenizer.ggml.bos_token_id"}, {"layers", ERR_NOT_FOUND, "tensor blk.1.attn_norm.weight"},
		{"missing", ERR_NOT_FOUND, "tensor blk.0.ffn_gate.weight"}, {"extra", ERR_UNSUPPORTED, "tensor blk.0.attn_q_norm.weight"},
		{"shape", ERR_MISMATCH, "blk.0.attn_q.weight: expected 8 rows of 8, found 8 rows of 4"},
		{"rope_freqs shape", ERR_MISMATCH, "rope_freqs.weight: expected 2 elements"},
		{"two scalings", ERR_UNSUPPORTED, "tensor rope_freqs.weight: expected no other scaling of positions, found linear"},
		{"longrope", ERR_NOT_FOUND, "tensor rope_factors_short.weight: expected the factors of longrope, which llama.rope.scaling.type states, found nothing"},
		{"nan", ERR_NONFINITE, "tensor blk.0.attn_v.weight, element 5"},
		{"t5", ERR_UNSUPPORTED, "tokenizer.ggml.model: expected gpt2 (byte-level BPE) or llama (SentencePiece); else give --tokenizer PATH, found t5"},
		{"spm", ERR_FORMAT, "tokenizer.ggml.scores: expected an array of f32, for a tokenizer of model llama; else give --tokenizer PATH, found nothing"},
		{"scores short", ERR_FORMAT, "tokenizer.ggml.scores: expected one for each of the 6 tokens, found 5"},
		{"pre", ERR_UNSUPPORTED, "or another one of docs/models.md; else give --tokenizer PATH, found kimi-k2"},
		{"no pre", ERR_FORMAT, "give --tokenizer PATH, found nothing"}, {"git lfs", ERR_FORMAT, "git lfs pull"},
 {"token twice", ERR_FORMAT, "'a' twice, the second with id 1"},
		{"token utf8", ERR_FORMAT, "item 1"}, {"types short", ERR_FORMAT, "each of the 6 tokens, found 5"},
		{"byte token", ERR_UNSUPPORTED, "found 6 (byte)"}, {"no merges", ERR_FORMAT, "tokenizer.ggml.merges"},
		{"merges of u32", ERR_FORMAT, "an array of u32"},
	};
	struct err_note note;
	char text[1200];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int rc;

		note = (struct err_note){0};
		build(rows[i].what);
		rc = import(&note);
		err_note_str(&note, rc, text, sizeof(text));
		CHECK_ROW(rows[i].what, rc == rows[i].rc);
		CHECK_ROW(rows[i].what, strstr(text, rows[i].says) != NULL);
		/* the model module names the field */
		CHECK_ROW(rows[i].what, strstr(text, path) != NULL || wrong("nan eps"));
		if (rc != rows[i].rc || strstr(text, rows[i].says) == NULL)
			fprintf(stderr, "  %s: got %s\n", rows[i].what, text);
	}
}

/* A file that is truncated anywhere is rejected. */
static void
test_truncated(void)
{
	struct err_note note;
	size_t n;

	build("");
	n = n_file;
	n -= 32;				/* the padding after the last tensor */
	for (size_t k = 0; k + 1 < n; k++) {
		note = (struct err_note){0};
		REQUIRE(truncate(path, (off_t)(n - 1 - k)) == 0);
		CHECK(import(&note) != 0 && note.name[0] != '\0');
	}
}

static void
test_values(void)
{
	/* In the file a head has table rows 0, 2, 1, 3, with rotary pairs adjacent: row r is order[r]. */
	static const int order[] = {0, 2, 1, 3, 4, 6, 5, 7};
	struct gguf_model *m = NULL;
	struct model *model = NULL;
	struct model_config cfg;
	struct err_note note = {0};
	const char *const ways[] = {"", "version 2"};
	struct gguf *g = NULL;

	for (size_t way = 0; way < 2; way++) {
		char *json, *config;
		float x[64];

		build(ways[way]);
		REQUIRE(gguf_open(&g, path, &note) == 0 && gguf_config(g, &cfg, &note) == 0 && model_new(&model, &cfg, &note) == 0);
		REQUIRE(gguf_model_open(&m, g, model, &note) == 0);
		CHECK(!cfg.tied && cfg.head_dim == 4 && cfg.rope_theta == 10000 && cfg.bos_id == -1 && cfg.context == 16);
		for (size_t k = 0; k < N_INFOS; k++) {
			static const char *const ours[N_INFOS] = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
			    "model.layers.0.input_layernorm.weight", "model.layers.0.self_attn.q_proj.weight",
			    "model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.weight",
			    "model.layers.0.self_attn.o_proj.weight", "model.layers.0.post_attention_layernorm.weight",
			    "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"};
			const struct model_tensor *t = model_find(model, ours[k]);
			bool paired = k == 4 || k == 5;

			REQUIRE(t != NULL && t->n_elements <= 64);
			REQUIRE(gguf_model_source(m, (uint64_t)t->offset, (uint64_t)t->n_elements, x, &note) == 0);
			for (int i = 0; i < t->n_elements; i++)
				CHECK_ROW(ours[k], x[i] == (float)(1000 * (int)k + (paired ? order[i / C] * C + i % C : i)));
		}
		REQUIRE(gguf_tokenizer(g, &json, &config, &note) == 0);
		CHECK(strstr(json, "\"ab\": 2") != NULL && strstr(json, "\"<s>\": 3") != NULL && strstr(json, "\"</s>\": 5") == NULL);
		free(json);
		free(config);
		gguf_model_close(&m);
		model_destroy(&model);
		gguf_close(&g);
	}
	/* The first wavelength is below 8192 / 4, the second above 8192: divisors 1 and the factor. */
	build("rope_freqs");
	REQUIRE(gguf_open(&g, path, &note) == 0 && gguf_config(g, &cfg, &note) == 0);
	CHECK(cfg.rope_scaling.type == MODEL_ROPE_LLAMA3 && cfg.rope_scaling.factor == 32 && cfg.rope_scaling.original_context == 8192);
	CHECK(cfg.rope_scaling.low_freq_factor == 1 && cfg.rope_scaling.high_freq_factor == 4);
	gguf_close(&g);
	/* The second wavelength is 2000: with 8192 it would not be scaled, with 1024 it is fully scaled. */
	build("rope_freqs 1024");
	REQUIRE(gguf_open(&g, path, &note) == 0 && gguf_config(g, &cfg, &note) == 0);
	CHECK(cfg.rope_scaling.factor == 32 && cfg.rope_scaling.original_context == 1024);
	gguf_close(&g);
	/* Divisors that do not fit llama3 scaling: each frequency has its own, at any length. */
	build("other rope_freqs");
	REQUIRE(gguf_open(&g, path, &note) == 0 && gguf_config(g, &cfg, &note) == 0);
	CHECK(cfg.rope_scaling.type == MODEL_ROPE_LONGROPE && cfg.rope_scaling.attention_factor == 1 && cfg.rope_scaling.original_context == 16);
	CHECK(cfg.rope_scaling.short_factor[0] == 2 && cfg.rope_scaling.short_factor[1] == 32 && cfg.rope_scaling.long_factor[1] == 32);
	gguf_close(&g);
	for (int i = 0; i < 2; i++) {
		build(i == 0 ? "linear" : "old linear");
		REQUIRE(gguf_open(&g, path, &note) == 0 && gguf_config(g, &cfg, &note) == 0);
		CHECK(cfg.rope_scaling.type == MODEL_ROPE_LINEAR && cfg.rope_scaling.factor == 4);
		gguf_close(&g);
	}
	build("yarn");
	REQUIRE(gguf_open(&g, path, &note) == 0 && gguf_config(g, &cfg, &note) == 0);
	CHECK(cfg.rope_scaling.type == MODEL_ROPE_YARN && cfg.rope_scaling.factor == 4 && cfg.rope_scaling.original_context == 8);
	CHECK(cfg.rope_scaling.beta_fast == 32 && cfg.rope_scaling.beta_slow == 2);
	gguf_close(&g);
	CHECK(gguf_open(&g, check_missing(), &note) == ENOENT && g == NULL);
}

/*
 * Biases on q, k and v only make it Qwen2's layer. A llama file has the rows of q and k, and their biases,
 * pair by pair; a qwen2 file does not.
 */
static void
test_biases(const char *how, bool pairs)
{
	static const struct { const char *name; int begin, n; } rows[] = {
		{"model.layers.0.self_attn.q_proj.bias", 0, 8}, {"model.layers.0.self_attn.k_proj.bias", 100, 4},
		{"model.layers.0.self_attn.v_proj.bias", 200, 4}};
	static const int paired[] = {0, 2, 1, 3, 4, 6, 5, 7};
	struct gguf_model *m = NULL;
	struct model *model = NULL;
	struct model_config cfg;
	struct err_note note = {0};
	struct gguf *g = NULL;
	float x[8];

	build(how);
	REQUIRE(gguf_open(&g, path, &note) == 0 && gguf_config(g, &cfg, &note) == 0 && model_new(&model, &cfg, &note) == 0);
	REQUIRE(gguf_model_open(&m, g, model, &note) == 0);
	CHECK(cfg.family == MODEL_FAMILY_QWEN2);
	for (size_t k = 0; k < 3; k++) {
		const struct model_tensor *t = model_find(model, rows[k].name);

		REQUIRE(t != NULL && t->n_elements == rows[k].n);
		REQUIRE(gguf_model_source(m, (uint64_t)t->offset, (uint64_t)t->n_elements, x, &note) == 0);
		for (int i = 0; i < rows[k].n; i++)
			CHECK_ROW(rows[k].name, x[i] == (float)(rows[k].begin + (pairs && k < 2 ? paired[i] : i)));
	}
	{
		const struct model_tensor *t = model_find(model, "model.layers.0.self_attn.q_proj.weight");

		REQUIRE(gguf_model_source(m, (uint64_t)t->offset + C, 1, x, &note) == 0);
		CHECK_ROW(how, x[0] == (float)(4000 + C * (pairs ? 2 : 1)));
	}
	gguf_model_close(&m);
	model_destroy(&model);
	gguf_close(&g);
}

/* A tokenizer with scores instead of merges. */
static void
test_scores(void)
{
	struct err_note note = {0};
	char *json, *config;
	struct gguf *g;

	build("scores");
	REQUIRE(gguf_open(&g, path, &note) == 0 && gguf_tokenizer(g, &json, &config, &note) == 0);
	CHECK(strstr(json, "\"Prepend\"") != NULL && strstr(json, "\"ByteFallback\"") != NULL && strstr(json, "\"Metaspace\"") == NULL);
	CHECK(strstr(json, "\"merges\": [\n      [\n        \"a\",\n        \"b\"\n      ]\n    ]") != NULL);
	free(json);
	free(config);
	gguf_close(&g);
}

/* Names of pre-tokenizers that use the regular expressions of another one. */
static void
test_splits(void)
{
	static const struct { const char *how, *has; } rows[] = {
		{"refact", "\"Digits\""}, {"smaug", "\\\\p{N}{1,3}"}};
	struct err_note note = {0};
	char *json, *config;
	struct gguf *g;

	for (size_t i = 0; i < 2; i++) {
		build(rows[i].how);
		REQUIRE(gguf_open(&g, path, &note) == 0 && gguf_tokenizer(g, &json, &config, &note) == 0);
		CHECK_ROW(rows[i].how, strstr(json, rows[i].has) != NULL && strstr(json, "\"ignore_merges\": false") != NULL);
		free(json);
		free(config);
		gguf_close(&g);
	}
}

int
main(void)
{
	const char *tmp = getenv("TMPDIR");
	int fd;

	snprintf(path, sizeof(path), "%.40s/gguf.XXXXXX", tmp != NULL ? tmp : "/tmp");
	REQUIRE((fd = mkstemp(path)) >= 0);
	close(fd);
	test_values();
	test_biases("biases", true);
	test_biases("qwen2", false);
	test_scores();
	test_splits();
	test_refusals();
	test_truncated();
	unlink(path);
	return check_done();
}
