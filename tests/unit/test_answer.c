/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compares answers with results from the logits of each sequence alone, and checks that they have the same
 * bits in any batch, order, number of workers and parts.
 */
#include "engine/infer/answer.h"

#include <math.h>
#include "base/random/random.h"
#include "check.h"

enum { VOCAB = 300, CONTEXT = 40, N = 90 };

static struct err_note note;
static struct model *model;
static struct kernels *kernels;
static int32_t tokens[N][CONTEXT + 1];
static struct task_request requests[N];

static int
first_values(void *arg, uint64_t begin, uint64_t end, float *out, struct err_note *n)
{
	(void)n;
	model_init(arg, 11, (int64_t)begin, (int64_t)end, out);
	return 0;
}

static void
make(enum kernels_dtype dtype)
{
	struct kernels_options ko = {.dtype = dtype, .threads = 1};
	struct model_config cfg = {.family = MODEL_FAMILY_LLAMA,
	    .vocab_size = VOCAB,
	    .context = CONTEXT,
	    .d_model = 96,
	    .n_layers = 2,
	    .n_heads = 3,
	    .n_kv_heads = 3,
	    .head_dim = 32,
	    .d_ff = 200,
	    .norm_eps = 1e-5f,
	    .rope_theta = 10000,
	    .tied = true,
	    .initializer_range = 0.2f,
	    .bos_id = -1,
	    .eos_id = -1};
	void *params;

	REQUIRE(kernels_new(&kernels, &ko, &note) == 0 && model_new(&model, &cfg, &note) == 0);
	REQUIRE((params = kernels_alloc(
		     kernels, (size_t)model->n_params * dtype_size(kernels_dtype(kernels)))) != NULL);
	REQUIRE(model_load(model, kernels, params, first_values, model, &note) == 0);
	model_bind(model, params, kernels_dtype(kernels));
	for (uint32_t i = 0; i < N; i++) {
		uint32_t w[4];

		for (uint32_t t = 0; t <= CONTEXT; t++) {
			random_words(5, RANDOM_PURPOSE_GENERATE, i, t, 0, w);
			tokens[i][t] = (int32_t)(w[0] % VOCAB);
		}
		requests[i].tokens = tokens[i];
		requests[i].n = 2 + w[1] % CONTEXT;
		requests[i].first = 1 + w[2] % (requests[i].n - 1);
	}
	requests[0].n = CONTEXT + 1; /* the longest and the shortest request */
	requests[1].n = 2;
	requests[1].first = 1;
}

static void
remake(void)
{
	kernels_free(kernels, model->params);
	model_destroy(&model);
	kernels_destroy(&kernels);
}

/* Logits [n - 1, VOCAB] of a request, computed alone. */
static const float *
logits(const struct task_request *r)
{
	static float z[CONTEXT * VOCAB];
	struct model_session_options o = {.max_batch = 1, .max_tokens = CONTEXT};
	struct model_session *s;

	REQUIRE(model_session_new(&s, model, kernels, &o, &note) == 0 &&
	    model_forward(s, r->tokens, 1, r->n - 1) == 0);
	model_logits(s, 0, r->n - 1, z);
	model_session_destroy(&s);
	return z;
}

/* The most probable id other than `but` (-1: of all ids). */
static int32_t
likeliest(const float *row, int32_t but)
{
	int32_t best = but == 0 ? 1 : 0;

	for (int32_t v = 1; v < VOCAB; v++)
		best = v != but && row[v] > row[best] ? v : best;
	return best;
}

/* Computes the formula: sum of z_y - log sum exp z, and whether each y is the most probable id. */
static void
reference(const struct task_request *r, struct task_answer *out)
{
	const float *z = logits(r);

	*out = (struct task_answer){.greedy = 1};
	for (uint32_t t = r->first; t < r->n; t++) {
		const float *row = z + (t - 1) * VOCAB;
		double sum = 0;

		for (int v = 0; v < VOCAB; v++)
			sum += exp((double)row[v]);
		if (likeliest(row, -1) != r->tokens[t])
			out->greedy = 0;
		out->log_p += (double)row[r->tokens[t]] - log(sum);
	}
}

static void
run(const struct task_request *r, size_t n, int threads, unsigned parts, enum kernels_dtype dtype,
    struct task_answer *out)
{
	struct kernels_options ko = {.dtype = dtype, .share = kernels};
	struct task_answer part[N];
	struct answerer *a;

	memset(out, 0, n * sizeof(*out));
	REQUIRE(answer_new(&a, model, &ko, threads, CONTEXT, &note) == 0);
	for (unsigned p = 0; p < parts; p++) {
		REQUIRE(answer_run(a, r, n, p, parts, part, NULL, NULL) == 0);
		for (size_t i = 0; i < n; i++) {
			out[i].log_p += part[i].log_p;
			out[i].greedy += part[i].greedy;
		}
	}
	answer_destroy(&a);
}

static void
same_answers(enum kernels_dtype dtype, double tolerance)
{
	struct task_answer all[N], other[N], alone, want;
	struct task_request backwards[N];
	size_t greedy = 0;

	make(dtype);
	/* Some requests have the model's own choice of tokens, or as last token its second choice. */
	for (size_t i = 0; i < N; i += 9)
		for (uint32_t t = requests[i].first; t < requests[i].n; t++) {
			const float *row = logits(&(struct task_request){tokens[i], t + 1, t}) + (t - 1) * VOCAB;

			tokens[i][t] = likeliest(row, -1);
			if (i % 2 == 1 && t + 1 == requests[i].n)
				tokens[i][t] = likeliest(row, tokens[i][t]);
		}
	run(requests, N, 1, 1, dtype, all);
	for (size_t i = 0; i < N; i++) {
		run(&requests[i], 1, 1, 1, dtype, &alone);
		CHECK(alone.log_p == all[i].log_p && alone.greedy == all[i].greedy);
		reference(&requests[i], &want);
		CHECK_NEAR(all[i].log_p, want.log_p, tolerance * (requests[i].n - requests[i].first));
		if (dtype == KERNELS_DTYPE_FP32)
			CHECK(all[i].greedy == want.greedy);
		greedy += all[i].greedy > 0;
		backwards[N - 1 - i] = requests[i];
	}
	CHECK(greedy >= N / 18 && greedy < N);
	run(requests, N, 3, 1, dtype, other);
	CHECK(memcmp(all, other, sizeof(all)) == 0);
	run(requests, N, 1, 4, dtype, other);
	CHECK(memcmp(all, other, sizeof(all)) == 0);
	run(backwards, N, 2, 1, dtype, other);
	for (size_t i = 0; i < N; i++)
		CHECK(memcmp(&all[i], &other[N - 1 - i], sizeof(all[i])) == 0);
	tokens[3][0] = VOCAB;
	{
		struct kernels_options ko = {.dtype = dtype, .share = kernels};
		struct answerer *a;

		REQUIRE(answer_new(&a, model, &ko, 2, CONTEXT, &note) == 0);
		CHECK(answer_run(a, requests, N, 0, 1, other, NULL, NULL) == ERR_RANGE);
		answer_destroy(&a);
	}
	remake();
}

int
main(void)
{
	same_answers(KERNELS_DTYPE_FP32, 1e-5);
	same_answers(KERNELS_DTYPE_BF16, 0.05);
	return check_done();
}
