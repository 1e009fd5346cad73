/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/optim/optim.h"

#include "check.h"

/* The expected values in this file are from tests/golden/optim.py. */
static void
schedules(void)
{
	static const struct {
		const char *what;
		enum optim_schedule schedule;
		struct {
			int64_t step;
			double lr;
		} want[11];
	} rows[] = {
		{"cosine", OPTIM_SCHEDULE_COSINE, {{0, 5e-05}, {9, 0.0005}, {19, 0.001}, {20, 0.001}, {65, 0.000868198051534}, {110, 0.00055},
		    {160, 0.000205280000596}, {170, 0.000160288568297}, {199, 0.00010006853718}, {200, 0.0001}, {500, 0.0001}}},
		{"linear", OPTIM_SCHEDULE_LINEAR, {{0, 5e-05}, {9, 0.0005}, {19, 0.001}, {20, 0.001}, {65, 0.000775}, {110, 0.00055},
		    {160, 0.0003}, {170, 0.00025}, {199, 0.000105}, {200, 0.0001}, {500, 0.0001}}},
		{"wsd", OPTIM_SCHEDULE_WSD, {{0, 5e-05}, {9, 0.0005}, {19, 0.001}, {20, 0.001}, {65, 0.001}, {110, 0.001}, {160, 0.001},
		    {170, 0.00055}, {199, 0.000111321205384}, {200, 0.0001}, {500, 0.0001}}},
		{"constant", OPTIM_SCHEDULE_CONSTANT, {{0, 5e-05}, {9, 0.0005}, {19, 0.001}, {20, 0.001}, {65, 0.001}, {110, 0.001},
		    {160, 0.001}, {170, 0.001}, {199, 0.001}, {200, 0.001}, {500, 0.001}}},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct optim_config cfg = {.lr = 1e-3, .min_lr_ratio = 0.1, .steps = 200, .warmup = 20, .decay_steps = 40,
		    .schedule = rows[i].schedule};

		for (size_t j = 0; j < 11; j++)
			CHECK_ROW(rows[i].what, fabs(optim_lr(&cfg, rows[i].want[j].step) - rows[i].want[j].lr) <= 1e-14);
	}
}

/* Edge cases: no warm-up, a run that is only warm-up, wsd without decay. */
static void
schedule_corners(void)
{
	struct optim_config cfg = {.lr = 2, .min_lr_ratio = 0, .steps = 10, .schedule = OPTIM_SCHEDULE_COSINE};

	CHECK(optim_lr(&cfg, 0) == 2 && optim_lr(&cfg, 10) == 0);
	cfg.warmup = 10;
	CHECK(optim_lr(&cfg, 9) == 2 && optim_lr(&cfg, 10) == 0);
	cfg.schedule = OPTIM_SCHEDULE_WSD;
	cfg.warmup = 0;
	CHECK(optim_lr(&cfg, 9) == 2 && optim_lr(&cfg, 10) == 0);
}

static void
clipping(void)
{
	static const double blocks[3] = {9, 0, 16}, broken[2] = {1, NAN};

	CHECK(optim_norm(blocks, 3) == 5);
	CHECK(!isfinite(optim_norm(broken, 2)));
	CHECK(optim_clip_scale(5, 0) == 1);
	CHECK(optim_clip_scale(0.5, 1) == 1);
	CHECK(optim_clip_scale(0, 1) == 1);
	CHECK_NEAR(optim_clip_scale(4, 1), 0.25, 1e-6);
}

/* Three steps as in PyTorch with clipping, decay on the first three parameters; whole and in two ranges. */
static void
adamw(void)
{
	static const float grad[5] = {0.2f, -0.4f, 1e-3f, -2.0f, 1e-6f};
	static const float want[3][5] = {
		{0.489500016f, -1.23874998f, 2.98700023f, 0.75999999f, -0.109799176f},
		{0.489573687f, -1.23732507f, 2.98207903f, 0.758947372f, -0.108767681f},
		{0.478031158f, -1.22353923f, 2.96305895f, 0.769021153f, -0.118639171f},
	};
	static const double norms[3] = {2.04939032, 4.09878063, 6.14817142};
	static const struct optim_span spans[2] = {{0, true}, {3, false}};
	static const struct optim_config cfg = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip = 1};
	float w[2][5], m[2][5] = {{0}}, v[2][5] = {{0}}, g[5], copy[5];
	struct kernels *k;
	struct err_note note;

	REQUIRE(kernels_new(&k, &(struct kernels_options){.dtype = KERNELS_DTYPE_FP32, .backend = KERNELS_BACKEND_OPENBLAS, .threads = 1}, &note) == 0);
	for (int i = 0; i < 2; i++)
		memcpy(w[i], (const float[5]){0.5f, -1.25f, 3.0f, 0.75f, -0.1f}, sizeof(w[i]));
	for (int step = 0; step < 3; step++) {
		double lr = 1e-2 * (step + 1), sum, norm;
		float scale;

		for (int i = 0; i < 5; i++)
			g[i] = grad[i] * (float)(step + 1) * (step == 1 ? -1 : 1);
		kernels_norm_blocks(k, g, 5, &sum);
		norm = optim_norm(&sum, 1);
		CHECK_NEAR(norm, norms[step], 1e-6);
		scale = optim_clip_scale(norm, cfg.clip);
		optim_adamw(k, &cfg, step, lr, scale, spans, 2, 0, 5, w[0], m[0], v[0], g, copy, DTYPE_F32);
		optim_adamw(k, &cfg, step, lr, scale, spans, 2, 0, 2, w[1], m[1], v[1], g, NULL, DTYPE_F32);
		optim_adamw(k, &cfg, step, lr, scale, spans, 2, 2, 5, w[1] + 2, m[1] + 2, v[1] + 2, g + 2, NULL, DTYPE_F32);
		for (int i = 0; i < 5; i++)
			CHECK_NEAR(w[0][i], want[step][i], 3e-7);
		CHECK(memcmp(copy, w[0], sizeof(copy)) == 0);
		CHECK(memcmp(w[1], w[0], sizeof(w[0])) == 0);
	}
	kernels_destroy(&k);
}

int
main(void)
{
	schedules();
	schedule_corners();
	clipping();
	adamw();
	return check_done();
}
