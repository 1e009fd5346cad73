/* SPDX-License-Identifier: Apache-2.0 */
/* What a step takes of a GPU, against a sum by hand; what would fit in less. */
#include "trainerd/fit.h"

#include "check.h"
#include "engine/model/model.h"

static const struct model_config config = {.family = MODEL_FAMILY_LLAMA, .vocab_size = 64, .context = 32, .d_model = 16, .n_layers = 2,
    .n_heads = 2, .n_kv_heads = 2, .head_dim = 8, .d_ff = 32, .norm_eps = 1e-5f, .rope_theta = 1e4f, .tied = true};
static const struct step_options options = {.context = 32, .batch = 96, .micro_batch = 12, .lanes = 8, .deterministic = true};
#define N 10000

static size_t
activations(int64_t micro_batch, bool recompute, enum dtype dtype)
{
	const struct model_session_options so = {.max_batch = micro_batch, .max_tokens = 32, .training = true, .recompute = recompute};
	struct err_note note = {.name = ""};
	size_t bytes = 0;

	CHECK(model_session_plan(&config, dtype, &so, &bytes, &note) == 0);
	return bytes;
}

static void
sums(void)
{
	const struct {
		const char *what;
		enum dtype dtype;
		int n_ranks;
		bool deterministic;
		uint64_t bytes;			/* beside activations */
	} rows[] = {
		{"fp32", DTYPE_F32, 1, true, N * 4 + N * 8 + 4 * (N * 4)},		/* 8 lanes: 4 buffers of gradients */
		{"bf16", DTYPE_BF16, 1, true, N * 2 + N * 4 + N * 8 + 4 * (N * 4)},
		{"bf16, 4 ranks", DTYPE_BF16, 4, true, N * 2 + N + N * 2 + 2 * (N * 4)},
		{"bf16, one buffer", DTYPE_BF16, 1, false, N * 2 + N * 4 + N * 8 + N * 4},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct step_options o = options;

		o.deterministic = rows[i].deterministic;
		CHECK_ROW(rows[i].what, fit_bytes(&config, N, rows[i].dtype, &o, rows[i].n_ranks) == rows[i].bytes + activations(12, false, rows[i].dtype));
	}
}

static void
finds(void)
{
	uint64_t beside = fit_bytes(&config, N, DTYPE_BF16, &options, 1) - activations(12, false, DTYPE_BF16);
	const struct {
		const char *what;
		uint64_t bytes;
		int64_t micro_batch;		/* 0: nothing fits */
		bool recompute;
	} rows[] = {
		{"all", beside + activations(12, false, DTYPE_BF16), 12, false},
		{"less", beside + activations(12, false, DTYPE_BF16) - 1, 6, false},		/* the next divisor of 96 / 8 */
		{"four", beside + activations(4, false, DTYPE_BF16), 4, false},
		{"one", beside + activations(1, false, DTYPE_BF16), 1, false},
		{"recompute", beside + activations(1, false, DTYPE_BF16) - 1, 1, true},
		{"nothing", beside + activations(1, true, DTYPE_BF16) - 1, 0, false},
	};

	CHECK(activations(1, true, DTYPE_BF16) < activations(1, false, DTYPE_BF16) && activations(2, true, DTYPE_BF16) >= activations(1, false, DTYPE_BF16));
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct step_options found = {.context = 7};
		bool fits = fit_find(&config, N, DTYPE_BF16, &options, 1, rows[i].bytes, &found);

		CHECK_ROW(rows[i].what, fits == (rows[i].micro_batch > 0) && found.micro_batch == rows[i].micro_batch && found.recompute == rows[i].recompute &&
		    found.context == (fits ? 32 : 7));
	}
}

int
main(void)
{
	sums();
	finds();
	return check_done();
}
