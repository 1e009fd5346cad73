/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration checks, the tensor table, first values, cost of a token. */
#include <string.h>

#include "base/random/random.h"
#include "check.h"
#include "base/hash/hash.h"
#include "engine/model/model.h"
#include "unit/model_find.h"

static const struct model_config gpt2_124m = {.family = MODEL_FAMILY_GPT2, .vocab_size = 50257, .context = 1024, .d_model = 768,
    .n_layers = 12, .n_heads = 12, .n_kv_heads = 12, .head_dim = 64, .d_ff = 3072, .norm_eps = 1e-5f, .tied = true,
    .attention_bias = true, .mlp_bias = true, .initializer_range = 0.02f};

static const struct model_config smollm2_135m = {.family = MODEL_FAMILY_LLAMA, .vocab_size = 49152, .context = 8192, .d_model = 576,
    .n_layers = 30, .n_heads = 9, .n_kv_heads = 3, .head_dim = 64, .d_ff = 1536, .norm_eps = 1e-5f, .tied = true,
    .rope_theta = 100000, .initializer_range = 0.04f};

static const struct model_config llama31_8b = {.family = MODEL_FAMILY_LLAMA, .vocab_size = 128256, .context = 131072, .d_model = 4096,
    .n_layers = 32, .n_heads = 32, .n_kv_heads = 8, .head_dim = 128, .d_ff = 14336, .norm_eps = 1e-5f, .rope_theta = 500000,
    .rope_scaling = {.type = MODEL_ROPE_LLAMA3, .factor = 8, .low_freq_factor = 1, .high_freq_factor = 4, .original_context = 8192},
    .initializer_range = 0.02f};

/* Total numbers of parameters as published. */
static void
test_totals(void)
{
	const struct {
		const char *what;
		const struct model_config *cfg;
		int64_t n_params;
		int n_tensors;
	} rows[] = {
		{"GPT-2 124M", &gpt2_124m, 124439808, 148},
		{"SmolLM2-135M", &smollm2_135m, 134515008, 272},
		{"Llama 3.1 8B", &llama31_8b, INT64_C(8030261248), 291},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct model *m = NULL;

		CHECK_ROW(rows[i].what, model_new(&m, rows[i].cfg, NULL) == 0);
		CHECK_ROW(rows[i].what, m->n_params == rows[i].n_params);
		CHECK_ROW(rows[i].what, m->n_tensors == rows[i].n_tensors);
		model_destroy(&m);
		CHECK(m == NULL);
	}
}

static void
test_table(void)
{
	struct model *m = NULL;
	const struct model_tensor *t;
	int64_t at = 0;
	int layer = -1;

	REQUIRE(model_new(&m, &smollm2_135m, NULL) == 0);
	for (int i = 0; i < m->n_tensors; i++) {
		t = &m->tensors[i];
		CHECK_ROW(t->name, t->offset == at);
		/* each layer is one range of the flat array */
		CHECK_ROW(t->name, t->layer >= layer);
		CHECK_ROW(t->name, t->decay == (t->n_dims == 2));
		CHECK_ROW(t->name, model_find(m, t->name) == t);
		at += t->n_elements;
		layer = t->layer;
	}
	CHECK(at == m->n_params);
	CHECK(layer == 30);
	CHECK(model_find(m, "lm_head.weight") == NULL);
	REQUIRE((t = model_find(m, "model.layers.29.self_attn.k_proj.weight")) != NULL);
	CHECK(t->n_dims == 2 && t->dims[0] == 192 && t->dims[1] == 576 && t->layer == 29 && t->init_std == 0.04f);
	REQUIRE((t = model_find(m, "model.layers.7.mlp.down_proj.weight")) != NULL);
	CHECK_NEAR(t->init_std, 0.04 / sqrt(60), 1e-9);
	REQUIRE((t = model_find(m, "model.norm.weight")) != NULL);
	CHECK(t->layer == 30 && t->init_std == 0 && t->init_value == 1);
	model_destroy(&m);

	REQUIRE(model_new(&m, &gpt2_124m, NULL) == 0);
	REQUIRE((t = model_find(m, "transformer.h.3.attn.c_attn.weight")) != NULL);
	CHECK(t->dims[0] == 768 && t->dims[1] == 2304);		/* Conv1D: [in, out] */
	REQUIRE((t = model_find(m, "transformer.h.3.attn.c_attn.bias")) != NULL);
	CHECK(!t->decay && t->init_std == 0 && t->init_value == 0);
	model_destroy(&m);
	model_destroy(&m);
}

static void
test_refused(void)
{
	struct model_config c;
	struct err_note note;
	struct model *m;

#define REFUSED(base, change, code, field)				\
	do {								\
		c = (base);						\
		change;							\
		note = (struct err_note){0};				\
		m = NULL;						\
		CHECK_ROW(#change, model_config_check(&c, &note) == (code));	\
		CHECK_STR(note.name, field);				\
		CHECK_ROW(#change, note.expected[0] != '\0' && note.found[0] != '\0');	\
		CHECK_ROW(#change, model_new(&m, &c, NULL) == (code) && m == NULL);	\
	} while (0)

	CHECK(model_config_check(&gpt2_124m, NULL) == 0);
	REFUSED(gpt2_124m, c.family = (enum model_family)77, ERR_UNSUPPORTED, "family");
	REFUSED(gpt2_124m, c.vocab_size = 0, ERR_RANGE, "vocab_size");
	REFUSED(gpt2_124m, c.vocab_size = INT64_C(1) << 31, ERR_RANGE, "vocab_size");
	REFUSED(gpt2_124m, c.context = -1, ERR_RANGE, "context");
	REFUSED(gpt2_124m, c.d_model = INT64_MAX, ERR_RANGE, "d_model");
	REFUSED(gpt2_124m, c.d_model = 770, ERR_RANGE, "head_dim");
	REFUSED(gpt2_124m, c.n_layers = 0, ERR_RANGE, "n_layers");
	REFUSED(gpt2_124m, c.n_layers = INT64_MAX, ERR_RANGE, "n_layers");
	REFUSED(gpt2_124m, c.n_heads = 0, ERR_RANGE, "n_heads");
	REFUSED(gpt2_124m, c.n_kv_heads = 4, ERR_UNSUPPORTED, "n_kv_heads");
	REFUSED(gpt2_124m, c.d_ff = 0, ERR_RANGE, "d_ff");
	REFUSED(gpt2_124m, c.norm_eps = NAN, ERR_RANGE, "norm_eps");
	REFUSED(gpt2_124m, c.norm_eps = 0, ERR_RANGE, "norm_eps");
	REFUSED(gpt2_124m, c.initializer_range = -0.1f, ERR_RANGE, "initializer_range");
	REFUSED(smollm2_135m, c.n_kv_heads = 2, ERR_RANGE, "n_kv_heads");
	REFUSED(smollm2_135m, c.n_kv_heads = 18, ERR_RANGE, "n_kv_heads");
	REFUSED(smollm2_135m, c.head_dim = 63, ERR_RANGE, "head_dim");
	REFUSED(smollm2_135m, c.head_dim = INT32_MAX - 1, ERR_RANGE, "head_dim");
	REFUSED(smollm2_135m, c.rope_theta = 0, ERR_RANGE, "rope_theta");
	REFUSED(smollm2_135m, c.rope_theta = NAN, ERR_RANGE, "rope_theta");
	REFUSED(llama31_8b, c.rope_scaling.factor = 0, ERR_RANGE, "rope_scaling.factor");
	REFUSED(llama31_8b, c.rope_scaling.low_freq_factor = NAN, ERR_RANGE, "rope_scaling.low_freq_factor");
	REFUSED(llama31_8b, c.rope_scaling.high_freq_factor = 1, ERR_RANGE, "rope_scaling.high_freq_factor");
	REFUSED(llama31_8b, c.rope_scaling.original_context = 0, ERR_RANGE, "rope_scaling.original_context");
	/* Each dimension is valid, but their product does not fit. */
	REFUSED(smollm2_135m, c.d_model = c.d_ff = INT32_MAX; c.n_layers = 10000, ERR_RANGE, "parameters");
#undef REFUSED
}

/* Several threads fill a large range: the same values as in small ranges, from any first element. */
static void
test_init_large(void)
{
	struct model_config cfg = smollm2_135m;
	struct model *m = NULL;
	const int64_t first = 12345;
	float *all, *small;

	cfg.n_layers = 1;
	cfg.d_model = 60;
	cfg.vocab_size = 30011;
	cfg.d_ff = 41;
	REQUIRE(model_new(&m, &cfg, NULL) == 0);
	REQUIRE(m->n_params > 3 << 19);
	all = malloc((size_t)m->n_params * sizeof(float));
	small = malloc((size_t)m->n_params * sizeof(float));
	REQUIRE(all != NULL && small != NULL);
	model_init(m, 1234, first, m->n_params, all + first);
	for (int64_t begin = first; begin < m->n_params; begin += 10007)
		model_init(m, 1234, begin, begin + 10007 < m->n_params ? begin + 10007 : m->n_params, small + begin);
	CHECK(memcmp(all + first, small + first, (size_t)(m->n_params - first) * sizeof(float)) == 0);
	free(small);
	free(all);
	model_destroy(&m);
}

/* The first value of element e of tensor i depends on (seed, i, e) only, not on the requested range. */
static void
test_init(void)
{
	struct model_config cfg = smollm2_135m;
	struct model *m = NULL;
	const struct model_tensor *q, *k;
	float *all, *parts, pair[2];
	double sum = 0, squares = 0;
	uint32_t words[4];
	int64_t number;

	cfg.n_layers = 2;
	cfg.d_model = 30;
	cfg.vocab_size = 131;
	cfg.d_ff = 41;
	cfg.attention_bias = true;
	REQUIRE(model_new(&m, &cfg, NULL) == 0);
	all = malloc((size_t)m->n_params * sizeof(float));
	parts = malloc((size_t)m->n_params * sizeof(float));
	REQUIRE(all != NULL && parts != NULL);
	model_init(m, 1234, 0, m->n_params, all);
	/* Ranges from the end: no state is carried over from one to the next. */
	for (int64_t end = m->n_params, step = 1; end > 0; end -= step, step = step * 3 % 1001 + 1) {
		int64_t begin = end > step ? end - step : 0;

		model_init(m, 1234, begin, end, parts + begin);
	}
	CHECK(memcmp(all, parts, (size_t)m->n_params * sizeof(float)) == 0);

	/* The formula of the header for one element: tensor number 3, element 4 * 5 + 2. */
	REQUIRE((q = model_find(m, "model.layers.0.self_attn.k_proj.weight")) != NULL);
	number = q - m->tensors;
	random_words(1234, RANDOM_PURPOSE_INIT, (uint64_t)number, 5, 0, words);
	random_normal(words[2], words[3], pair);
	CHECK(all[q->offset + 22] == 0.04f * pair[0]);
	REQUIRE((k = model_find(m, "model.layers.0.self_attn.v_proj.weight")) != NULL);
	CHECK(all[q->offset] != all[k->offset]);
	REQUIRE((k = model_find(m, "model.layers.1.self_attn.k_proj.bias")) != NULL);
	CHECK(all[k->offset] == 0 && all[k->offset + k->n_elements - 1] == 0);
	REQUIRE((k = model_find(m, "model.norm.weight")) != NULL);
	CHECK(all[k->offset] == 1);
	model_init(m, 1235, 0, m->n_params, parts);
	CHECK(all[q->offset] != parts[q->offset]);

	/* The mean is within 4 / sqrt(n) deviations, the deviation within a share of 4 / sqrt(2 n). */
	REQUIRE((q = model_find(m, "model.layers.1.self_attn.q_proj.weight")) != NULL);
	for (int64_t i = 0; i < q->n_elements; i++) {
		double x = all[q->offset + i] / 0.04;

		sum += x;
		squares += x * x;
	}
	CHECK_NEAR(sum / (double)q->n_elements, 0, 4 / sqrt((double)q->n_elements));
	CHECK_NEAR(sqrt(squares / (double)q->n_elements), 1, 4 / sqrt(2.0 * (double)q->n_elements));
	free(all);
	free(parts);
	model_destroy(&m);
}

static void
test_flops(void)
{
	/* 12 layers of 12 C^2, the output layer, and attention with 12 L C T. */
	CHECK_NEAR(model_flops_per_token(&gpt2_124m, 1024), 6.0 * (12 * 12 * 768.0 * 768 + 50257 * 768.0) + 12.0 * 12 * 768 * 1024, 1);
	/* All parameters except the norms; the embedding counts as output layer: 134,515,008 - 61 * 576. */
	CHECK_NEAR(model_flops_per_token(&smollm2_135m, 512), 6.0 * (134515008 - 61 * 576) + 12.0 * 30 * 576 * 512, 1);
}

int
main(void)
{
	test_totals();
	test_table();
	test_refused();
	test_init();
	test_init_large();
	test_flops();
	return check_done();
}
