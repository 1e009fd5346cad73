/* SPDX-License-Identifier: Apache-2.0 */
/* Grown models: the logits of the small model in every family, copied layers, noise, and rejected options. */
#include <string.h>

#include "check.h"
#include "engine/model/grow.h"
#include "unit/model_find.h"

#define V 37
#define B 3
#define T 7

#define SMALL .vocab_size = V, .context = 11, .d_model = 12, .n_layers = 2, .initializer_range = 0.4f
#define ROTARY SMALL, .rope_theta = 100, .head_dim = 6, .d_ff = 19

static const struct model_config gpt2 = {.family = MODEL_FAMILY_GPT2, SMALL, .n_heads = 3, .n_kv_heads = 3,
    .head_dim = 4, .d_ff = 21, .norm_eps = 1e-5f, .tied = true, .attention_bias = true, .mlp_bias = true};
static const struct model_config llama = {.family = MODEL_FAMILY_LLAMA, ROTARY, .n_heads = 4, .n_kv_heads = 2,
    .norm_eps = 1e-5f, .tied = false, .attention_bias = true, .mlp_bias = true};
static const struct model_config threes = {.family = MODEL_FAMILY_LLAMA, ROTARY, .n_heads = 6,
    .n_kv_heads = 2, .norm_eps = 1e-5f};
static const struct model_config qwen2 = {.family = MODEL_FAMILY_QWEN2, ROTARY, .n_heads = 4, .n_kv_heads = 1,
    .norm_eps = 1e-6f, .tied = true, .attention_bias = true};
static const struct model_config qwen3 = {.family = MODEL_FAMILY_QWEN3, ROTARY, .n_heads = 4, .n_kv_heads = 2,
    .norm_eps = 1e-6f, .tied = true};
static const struct model_config neox = {.family = MODEL_FAMILY_NEOX, SMALL, .n_heads = 3, .n_kv_heads = 3,
    .head_dim = 4, .d_ff = 21, .norm_eps = 1e-5f, .tied = true, .attention_bias = true, .mlp_bias = true,
    .parallel_residual = true, .rope_theta = 100, .rotary_dim = 2};

/* A model with its values. */
struct subject {
	struct model *model;
	float *params;
};

static struct subject
small_make(const struct model_config *cfg)
{
	struct subject s;

	REQUIRE(model_new(&s.model, cfg, NULL) == 0);
	REQUIRE((s.params = malloc((size_t)s.model->n_params * sizeof(float))) != NULL);
	model_init(s.model, 7, 0, s.model->n_params, s.params);
	/* makes norms and biases differ from their constants */
	for (int i = 0; i < s.model->n_tensors; i++)
		if (s.model->tensors[i].init_std == 0)
			for (int64_t j = 0; j < s.model->tensors[i].n_elements; j++)
				s.params[s.model->tensors[i].offset + j] += 0.3f * sinf((float)(i * 31 + j * 7));
	return s;
}

static void
subject_free(struct subject *s)
{
	model_destroy(&s->model);
	free(s->params);
}

/* Returns the values of the grown model; *g stays open. */
static float *
grow(const struct subject *small, const struct model_growth_options *o, struct model_growth **g)
{
	struct err_note note = {.name = ""};
	float *out;
	int64_t n;

	if (model_growth_new(g, small->model, small->params, o, &note) != 0)
		fprintf(stderr, "%s: %s, %s\n", note.name, note.expected, note.found);
	REQUIRE(*g != NULL);
	n = model_growth_model(*g)->n_params;
	REQUIRE((out = malloc((size_t)n * sizeof(float))) != NULL);
	model_growth_read(*g, 0, n, out);
	return out;
}

/* Computes logits [B*T, V], and the gradient of the mean loss if d is not NULL. */
static void
run(const struct model *table, const float *params, float *logits, float *d)
{
	const struct kernels_options options = {
	    .backend = KERNELS_BACKEND_OPENBLAS, .dtype = KERNELS_DTYPE_FP32, .threads = 1};
	const struct model_session_options so = {.max_batch = B, .max_tokens = T, .training = d != NULL};
	struct kernels_targets targets = {.n_rows = B * T};
	struct kernels_loss_sums sums = {0};
	struct model_session *s = NULL;
	struct kernels *k = NULL;
	struct model *m = NULL;
	int32_t tokens[B * T], next[B * T];
	size_t bytes = (size_t)table->n_params * sizeof(float);
	float *p, *grads;

	for (int i = 0; i < B * T; i++) {
		tokens[i] = (i * i * 5 + i) % V;
		next[i] = (i * 11 + 3) % V;
	}
	targets.next = next;
	REQUIRE(model_new(&m, &table->config, NULL) == 0 && kernels_new(&k, &options, NULL) == 0);
	REQUIRE((p = kernels_alloc(k, bytes)) != NULL && (grads = kernels_alloc(k, bytes)) != NULL);
	kernels_upload(k, p, params, bytes);
	model_bind(m, p, DTYPE_F32);
	REQUIRE(model_session_new(&s, m, k, &so, NULL) == 0 && model_forward(s, tokens, B, T) == 0);
	model_logits(s, 0, B * T, logits);
	if (d != NULL) {
		memset(d, 0, bytes);
		kernels_upload(k, grads, d, bytes);
		REQUIRE(model_loss(s, &targets, 1.0f / (B * T), grads, &sums) == 0);
		model_backward(s, grads);
		kernels_download(k, d, grads, bytes);
	}
	model_session_destroy(&s);
	kernels_free(k, p);
	kernels_free(k, grads);
	kernels_destroy(&k);
	model_destroy(&m);
}

static void
test_logits(void)
{
	static const struct {
		const char *what;
		const struct model_config *cfg;
		struct model_growth_options o;
	} rows[] = {
		{"gpt2", &gpt2, {.layers = 3, .width = 24, .noise = 1}},
		{"gpt2, three times as wide", &gpt2, {.width = 36, .ff = 64, .noise = 1}},
		{"gpt2, a width between", &gpt2, {.layers = 3, .width = 32, .noise = 1}},
		{"gpt2, deeper", &gpt2, {.layers = 5}},
		{"gpt2, the same depth stacked", &gpt2, {.width = 24, .stack = true}},
		{"llama", &llama, {.layers = 4, .width = 24, .noise = 1}},
		{"llama, a width between", &llama, {.layers = 3, .width = 30, .heads = 10, .noise = 1}},
		{"llama, less than twice as wide", &llama, {.width = 18, .ff = 20}},
		{"llama, larger groups", &llama, {.heads = 12, .kv_heads = 2, .noise = 1}},
		{"llama, smaller groups", &llama, {.heads = 12, .kv_heads = 12, .width = 24, .noise = 1}},
		{"llama, uneven copies", &llama, {.heads = 6, .kv_heads = 3, .ff = 20, .noise = 1}},
		{"qwen2", &qwen2, {.layers = 3, .width = 24, .noise = 1}},
		{"qwen2, a width between", &qwen2, {.width = 27, .kv_heads = 1}},
		{"qwen2, one key head", &qwen2, {.width = 24, .heads = 7, .kv_heads = 1}},
		{"qwen3", &qwen3, {.layers = 3, .width = 24, .noise = 1}},
		{"gpt_neox, a width between", &neox, {.width = 20, .noise = 1}},
		{"gpt_neox", &neox, {.layers = 3, .width = 24, .noise = 1}},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct subject small = small_make(rows[i].cfg);
		float want[B * T * V], got[B * T * V], *params, apart = 0, largest = 0;
		struct model_growth *g = NULL;

		params = grow(&small, &rows[i].o, &g);
		run(small.model, small.params, want, NULL);
		run(model_growth_model(g), params, got, NULL);
		for (int j = 0; j < B * T * V; j++) {
			apart = fmaxf(apart, fabsf(got[j] - want[j]));
			largest = fmaxf(largest, fabsf(want[j]));
		}
		CHECK_ROW(rows[i].what, largest > 3);
		CHECK_ROW(rows[i].what, apart < 1e-4f);
		CHECK_ROW(rows[i].what, model_growth_model(g)->n_params > small.model->n_params);
		free(params);
		model_growth_destroy(&g);
		subject_free(&small);
	}
}

static const float *
values_of(const struct model *m, const float *params, const char *name)
{
	const struct model_tensor *t = model_find(m, name);

	REQUIRE(t != NULL);
	return params + t->offset;
}

/* Checks which layers are copied, and that inserted layers add nothing to the residual stream. */
static void
test_layers(void)
{
	static const int identity[] = {0, 0, 0, 1, 1}, stacked[] = {0, 1, 0, 1};
	struct subject small = small_make(&llama);
	struct model_growth *g = NULL;
	float *params = grow(&small, &(struct model_growth_options){.layers = 5}, &g);
	char name[96], from[96];

	for (int t = 0; t < 5; t++) {
		bool inserted = t > 0 && identity[t] == identity[t - 1];
		const float *down;

		snprintf(name, sizeof(name), "model.layers.%d.mlp.gate_proj.weight", t);
		snprintf(from, sizeof(from), "model.layers.%d.mlp.gate_proj.weight", identity[t]);
		CHECK(memcmp(values_of(model_growth_model(g), params, name),
		    values_of(small.model, small.params, from), 12 * 19 * sizeof(float)) == 0);
		snprintf(name, sizeof(name), "model.layers.%d.mlp.down_proj.weight", t);
		down = values_of(model_growth_model(g), params, name);
		for (int i = 0; i < 12 * 19; i++)
			CHECK((down[i] == 0) == inserted);
	}
	free(params);
	model_growth_destroy(&g);
	params = grow(&small, &(struct model_growth_options){.layers = 4, .stack = true}, &g);
	for (int t = 0; t < 4; t++) {
		snprintf(name, sizeof(name), "model.layers.%d.mlp.down_proj.weight", t);
		snprintf(from, sizeof(from), "model.layers.%d.mlp.down_proj.weight", stacked[t]);
		CHECK(memcmp(values_of(model_growth_model(g), params, name),
		    values_of(small.model, small.params, from), 12 * 19 * sizeof(float)) == 0);
	}
	free(params);
	model_growth_destroy(&g);
	subject_free(&small);
}

/* Noise cancels over the copies, has the correct size, and depends on the seed. Any range can be read. */
#define UP "model.layers.1.mlp.up_proj.weight"

static void
test_noise(void)
{
	const struct model_growth_options o = {.width = 36, .noise = 0.5f, .seed = 3};
	const struct model_growth_options other = {.width = 36, .noise = 0.5f, .seed = 4};
	struct subject small = small_make(&llama);
	struct model_growth *g = NULL, *h = NULL;
	float *params = grow(&small, &o, &g), *again = grow(&small, &other, &h);
	const struct model *m = model_growth_model(g);
	const float *was = values_of(small.model, small.params, UP);	/* [19, 12] */
	const float *now = values_of(m, params, UP);			/* [57, 36] */
	double squares = 0, mean = 0, deviation = 0;

	for (int i = 0; i < 19 * 12; i++) {
		mean += was[i] / (19.0 * 12);
		deviation += (double)was[i] * was[i] / (19.0 * 12);
	}
	deviation = sqrt(deviation - mean * mean);
	for (int r = 0; r < 57; r++) {
		for (int c = 0; c < 12; c++) {
			double sum = 0;

			for (int k = 0; k < 3; k++) {
				double e = now[r * 36 + 12 * k + c] - was[r % 19 * 12 + c] / 3;

				sum += now[r * 36 + 12 * k + c];
				squares += e * e;
			}
			CHECK_NEAR(sum, was[r % 19 * 12 + c], 1e-6);
		}
	}
	/* Two thirds of 2,052 numbers are independent: 4 / sqrt(2 n) is 8%. */
	CHECK_NEAR(sqrt(squares / (57 * 36)) / (0.5 * deviation / 3), 1, 0.08);
	CHECK(now[0] != values_of(m, again, UP)[0]);
	CHECK(memcmp(params, again, V * 36 * sizeof(float)) == 0);	/* the embedding reads nothing */
	for (int64_t end = m->n_params, step = 1; end > 0; end -= step, step = step * 3 % 1001 + 1)
		model_growth_read(g, end > step ? end - step : 0, end, again + (end > step ? end - step : 0));
	CHECK(memcmp(params, again, (size_t)m->n_params * sizeof(float)) == 0);
	free(params);
	free(again);
	model_growth_destroy(&g);
	model_growth_destroy(&h);
	subject_free(&small);
}

/* The reason for noise: without it all copies have the same gradient. */
static void
test_symmetry(void)
{
	struct subject small = small_make(&llama);

	for (int noisy = 0; noisy < 2; noisy++) {
		const struct model_growth_options o = {.width = 24, .noise = (float)noisy};
		/* rows of a copy: residual stream, heads, units */
		static const struct {
			const char *name;
			int64_t rows;
		} copied[] = {
			{"model.layers.0.mlp.down_proj.weight", 12},
			{"model.layers.0.mlp.up_proj.bias", 19},
			{"model.layers.1.self_attn.q_proj.bias", 4 * 6},
			{"model.layers.1.self_attn.v_proj.bias", 2 * 6},
			{"model.norm.weight", 12},
		};
		float logits[B * T * V], *params, *d;
		struct model_growth *g = NULL;

		params = grow(&small, &o, &g);
		REQUIRE((d = malloc((size_t)model_growth_model(g)->n_params * sizeof(float))) != NULL);
		run(model_growth_model(g), params, logits, d);
		for (size_t i = 0; i < sizeof(copied) / sizeof(copied[0]); i++) {
			const struct model_tensor *t = model_find(model_growth_model(g), copied[i].name);
			const float *x = values_of(model_growth_model(g), d, copied[i].name);
			int64_t half = t->n_elements / 2;
			float apart = 0, largest = 0;

			REQUIRE(t->dims[0] == 2 * copied[i].rows);
			for (int64_t j = 0; j < half; j++) {
				apart = fmaxf(apart, fabsf(x[j] - x[half + j]));
				largest = fmaxf(largest, fabsf(x[j]));
			}
			CHECK_ROW(copied[i].name, noisy ? apart > 0.1f * largest : apart < 1e-5f * largest);
		}
		free(params);
		free(d);
		model_growth_destroy(&g);
	}
	subject_free(&small);
}

static void
test_refused(void)
{
	static const struct {
		const char *name;
		const struct model_config *cfg;
		struct model_growth_options o;
	} rows[] = {
		{"layers", &llama, {.layers = 1}},
		{"layers", &llama, {.layers = 5, .stack = true}},
		{"width", &llama, {.width = 6}},
		{"width", &llama, {.width = 13}},			/* not whole heads */
		{"width", &gpt2, {.width = 18}},
		{"width", &qwen3, {.width = 18}},	/* norms of heads share norm_eps */
		{"heads", &llama, {.heads = 3}},
		{"heads", &llama, {.heads = 5}},			/* does not divide the width */
		{"heads", &qwen3, {.heads = 5}},			/* two share a key head */
		{"heads", &gpt2, {.width = 24, .heads = 3}},
		{"heads", &gpt2, {.heads = 6}},
		{"kv-heads", &llama, {.kv_heads = 1}},
		{"kv-heads", &llama, {.width = 24, .kv_heads = 3}},
		{"kv-heads", &threes, {.kv_heads = 3}},	/* the second loses its third query */
		{"kv-heads", &qwen2, {.width = 24, .kv_heads = 3}},
		{"n_kv_heads", &gpt2, {.width = 24, .kv_heads = 3}},
		{"ff", &llama, {.ff = 18}},
		{"layers, width, heads or ff", &llama, {.layers = 2, .width = 12}},
		{"noise", &llama, {.layers = 3, .noise = 0.5f}},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct subject small = small_make(rows[i].cfg);
		struct model_growth *g = (void *)&small;
		struct err_note note = {.name = ""};
		int rc = model_growth_new(&g, small.model, small.params, &rows[i].o, &note);

		CHECK_ROW(rows[i].name, (rc == ERR_RANGE || rc == ERR_UNSUPPORTED) && g == NULL);
		CHECK_ROW(rows[i].name, note.expected[0] != '\0' && note.found[0] != '\0');
		CHECK_STR(note.name, rows[i].name);
		subject_free(&small);
	}
}

int
main(void)
{
	test_logits();
	test_layers();
	test_noise();
	test_symmetry();
	test_refused();
	return check_done();
}
