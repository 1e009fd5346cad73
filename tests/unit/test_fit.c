/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a rank and of a teacher's worker, compared with sums made by hand, on the CPU and on a GPU;
 * and the settings that fit in less memory. Argument cuda: compares with the device memory that the backend
 * has allocated when a step has been made.
 */
#include "engine/fit/fit.h"

#include "check.h"
#include "engine/kernels/kernels.h"
#include "trainerd/reduce.h"
#include "trainerd/step.h"

#define BLOCK KERNELS_NORM_BLOCK	/* 65,536 */

static const struct model_config tiny = {.family = MODEL_FAMILY_GPT2, .vocab_size = 100, .context = 16,
    .d_model = 8, .n_layers = 1,
    .n_heads = 2, .n_kv_heads = 2, .head_dim = 4, .d_ff = 32, .norm_eps = 1e-5f, .tied = true};

static double
activations(const struct fit_shape *s)
{
	const struct model_session_options so = {.max_batch = (int64_t)s->micro_batch,
	    .max_tokens = (int64_t)s->context, .training = true,
	    .recompute = s->recompute};
	size_t bytes = 0;

	CHECK(model_session_plan(s->model, s->dtype, &so, &bytes, NULL) == 0);
	return (double)bytes;
}

static void
cpu(void)
{
	/* 8 blocks of parameters, 16 sequences of 10 tokens, 8 lanes. */
	const struct optim_split whole = optim_split_whole(8 * BLOCK);
	struct fit_shape s = {.model = &tiny, .split = &whole, .n_params = 8 * BLOCK, .dtype = DTYPE_F32,
	    .deterministic = true,
	    .batch = 16, .micro_batch = 2, .lanes = 8, .context = 10, .threads = 2, .label_entries = 3};
	double b[FIT_ITEMS];

	CHECK(fit_train(&s, 1, b, NULL) == 0);
	CHECK(b[FIT_MASTERS] == 4.0 * 524288);
	CHECK(b[FIT_COPY] == 0);
	CHECK(b[FIT_MOMENTS] == 8.0 * 524288);
	CHECK(b[FIT_GRADIENTS] == 4.0 * 4 * 524288);		/* log2(8) + 1 buffers */
	CHECK(b[FIT_RECEIVED] == 0);
	CHECK(b[FIT_ACTIVATIONS] == activations(&s));
	CHECK(b[FIT_ROWS] == 6 * (4 * 16 * 11 + 16 * 10 * (8 + 24)));
	/* logits of a micro-batch, and a row for each thread */
	CHECK(b[FIT_PRODUCTS] == 4.0 * 100 * (20 + 2));
	CHECK(fit_train(&s, 4, b, NULL) == 0);
	CHECK(b[FIT_MASTERS] == 4.0 * 524288);
	CHECK(b[FIT_MOMENTS] == 8.0 * 131072);
	CHECK(b[FIT_GRADIENTS] == 4.0 * 2 * 524288);
	/* a bucket for each of four ranks, here as large as the whole gradient */
	CHECK(b[FIT_RECEIVED] == 4.0 * 4 * 524288);
	CHECK(b[FIT_ROWS] == 6 * (4 * 4 * 11 + 4 * 10 * (8 + 24)));
	s.dtype = DTYPE_BF16;
	s.deterministic = false;
	s.label_entries = 0;
	CHECK(fit_train(&s, 4, b, NULL) == 0);
	CHECK(b[FIT_MASTERS] == 4.0 * 131072);
	CHECK(b[FIT_COPY] == 2.0 * 524288);
	CHECK(b[FIT_GRADIENTS] == 4.0 * 524288);
	CHECK(b[FIT_ROWS] == 6 * 4 * 4 * 11);
	/* The rounded gradient, and the repacked matrices: layer (8 x 24, 8 x 8, 8 x 32, 32 x 8), output. */
	CHECK(b[FIT_PRODUCTS] == 4.0 * 100 * (20 + 2) + 2.0 * 100 * 20 + 2.0 * (8 * 24 + 8 * 8 + 2 * 8 * 32 + 8 * 100));
	/* one micro-batch per step: the output's and the largest matrix */
	s.micro_batch = 4;
	CHECK(fit_train(&s, 4, b, NULL) == 0);
	CHECK(b[FIT_PRODUCTS] == 4.0 * 100 * (40 + 2) + 2.0 * 100 * 40 + 2.0 * (8 * 100 + 8 * 32));
	s.recompute = true;
	CHECK(fit_train(&s, 4, b, NULL) == 0);
	CHECK(b[FIT_PRODUCTS] == 4.0 * 100 * (40 + 2) + 2.0 * 100 * 40 + 2.0 * (8 * 24 + 8 * 8 + 2 * 8 * 32 + 8 * 100));
	s.context = 17;
	CHECK(fit_train(&s, 1, b, NULL) == ERR_RANGE);
}

/*
 * Muon has no second moments for the matrices of the layer, 8 x 24, 8 x 8, 8 x 32 and 32 x 8; the buffers of
 * Newton-Schulz have the size of the largest.
 */
static void
muon(void)
{
	struct fit_shape s = {.model = &tiny, .dtype = DTYPE_BF16, .batch = 8, .micro_batch = 1, .lanes = 8,
	    .context = 10, .threads = 2};
	double b[FIT_ITEMS];
	struct optim_split *split = NULL;
	struct model *m = NULL;

	REQUIRE(model_new(&m, &tiny, NULL) == 0 && optim_split_new(&split, m, OPTIM_MUON) == 0);
	fit_muon(&s, m);
	CHECK(s.muon_rows * s.muon_cols == 8 * 32);
	s.split = split;
	s.n_params = m->n_params;
	CHECK(fit_train(&s, 1, b, NULL) == 0);
	CHECK(b[FIT_MOMENTS] == 8.0 * (double)m->n_params - 4.0 * (8 * 24 + 8 * 8 + 2 * 8 * 32));
	CHECK(b[FIT_MUON] >= 2 * 4.0 * (8 * 32 + 4 * 8 * 8));
	/*
	 * Each part is less than a block: rank 0 has the embeddings and the output norm, and the matrices go
	 * to the ranks one by one.
	 */
	CHECK(fit_train(&s, 8, b, NULL) == 0);
	CHECK(b[FIT_MASTERS] < 4.0 * (double)m->n_params && b[FIT_MASTERS] >= 4.0 * 8 * (100 + 16));
	optim_split_destroy(&split);
	model_destroy(&m);
}

/*
 * On a GPU rows are in host memory and no weight is repacked. Products need a workspace of 32 MiB and the
 * logits of a chunk of rows, at most 2^27 floats. A row takes a multiple of 64 floats.
 */
static void
gpu(void)
{
	const struct {
		const char *what;
		int64_t tokens, vocab;
		double logits;			/* floats */
	} rows[] = {
		{"all rows", 20, 100, 20 * 128},
		{"a chunk", 1000000, 50257,
		    2664.0 * 50304},		/* 2^27 / 50304 = 2668.1: 2664 is a multiple of 8 */
		{"the largest chunk", 1000000, 256, 8192.0 * 256},
		{"the smallest chunk", 1000000, INT64_C(1) << 26, 8.0 * (1 << 26)},
	};
	const struct optim_split whole = optim_split_whole(8 * BLOCK);
	struct fit_shape s = {.model = &tiny, .split = &whole, .n_params = 8 * BLOCK, .dtype = DTYPE_BF16,
	    .gpu = true, .deterministic = true,
	    .batch = 16, .micro_batch = 2, .lanes = 8, .context = 10, .threads = 2, .label_entries = 3};
	const struct model_config *const models[] = {&tiny, &tiny};
	const double workspace = 32.0 * 1048576;
	struct model_session_options labels = {.max_batch = 3, .max_tokens = 10};
	double b[FIT_ITEMS];
	size_t session;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		double n = rows[i].logits;

		CHECK_ROW(rows[i].what, (double)kernels_gpu_bytes(DTYPE_BF16, rows[i].tokens, rows[i].vocab,
		    KERNELS_GPU_TRAINS) == workspace + 6 * n);
		CHECK_ROW(rows[i].what, (double)kernels_gpu_bytes(DTYPE_F32, rows[i].tokens, rows[i].vocab,
		    KERNELS_GPU_TRAINS) == workspace + 4 * n);
		CHECK_ROW(rows[i].what, (double)kernels_gpu_bytes(DTYPE_BF16, rows[i].tokens, rows[i].vocab,
		    KERNELS_GPU_LABELS) == workspace + 8 * n);
		CHECK_ROW(rows[i].what,
		    (double)kernels_gpu_bytes(DTYPE_BF16, rows[i].tokens, rows[i].vocab,
		    KERNELS_GPU_LABELS_DENSE) == workspace + 12 * n);
	}
	CHECK(fit_train(&s, 1, b, NULL) == 0);
	CHECK(b[FIT_MASTERS] == 4.0 * 524288 && b[FIT_COPY] == 2.0 * 524288 && b[FIT_MOMENTS] == 8.0 * 524288);
	CHECK(b[FIT_GRADIENTS] == 4.0 * 4 * 524288 && b[FIT_RECEIVED] == 0 && b[FIT_MUON] == 0 && b[FIT_ROWS] == 0);
	CHECK(b[FIT_ACTIVATIONS] == activations(&s) && b[FIT_PRODUCTS] == workspace + 6 * 20 * 128);
	CHECK(fit_sum(b) == 524288 * (4.0 + 2 + 8 + 16) + activations(&s) + workspace + 6 * 20 * 128);
	CHECK(fit_train(&s, 4, b, NULL) == 0);
	CHECK(b[FIT_MASTERS] == 4.0 * 131072 && b[FIT_MOMENTS] == 8.0 * 131072 && b[FIT_GRADIENTS] == 4.0 * 2 * 524288);
	CHECK(b[FIT_RECEIVED] == 4.0 * 4 * 524288);
	CHECK(model_session_plan(&tiny, DTYPE_BF16, &labels, &session, NULL) == 0);
	CHECK(fit_label(models, 1, DTYPE_BF16, 3, 10, false) == (double)session + workspace + 8 * 30 * 128);
	CHECK(fit_label(models, 1, DTYPE_BF16, 3, 10, true) == (double)session + workspace + 12 * 30 * 128);
	CHECK(fit_label(models, 2, DTYPE_BF16, 3, 10, false) == 2 * (double)session + workspace + 8 * 30 * 128);
	CHECK(isnan(fit_label(models, 1, DTYPE_BF16, 3, 17, false)));		/* its context is 16 */
}

static double
total(struct fit_shape s, uint64_t micro_batch, bool recompute)
{
	double b[FIT_ITEMS];

	s.micro_batch = micro_batch;
	s.recompute = recompute;
	CHECK(fit_train(&s, 1, b, NULL) == 0);
	return fit_sum(b);
}

static void
finds(void)
{
	const struct optim_split whole = optim_split_whole(10000);
	const struct model_config config = {.family = MODEL_FAMILY_LLAMA, .vocab_size = 64, .context = 32,
	    .d_model = 16, .n_layers = 2,
	    .n_heads = 2, .n_kv_heads = 2, .head_dim = 8, .d_ff = 32, .norm_eps = 1e-5f, .rope_theta = 1e4f,
	    .tied = true};
	const struct fit_shape s = {.model = &config, .split = &whole, .n_params = 10000, .dtype = DTYPE_BF16,
	    .gpu = true, .deterministic = true,
	    .batch = 96, .micro_batch = 12, .lanes = 8, .context = 32, .threads = 1};
	const struct {
		const char *what;
		double bytes;
		uint64_t micro_batch;		/* 0: nothing fits */
		bool recompute;
	} rows[] = {
		{"all", total(s, 12, false), 12, false},
		{"less", total(s, 12, false) - 1, 6, false},		/* the next divisor of 96 / 8 */
		{"four", total(s, 4, false), 4, false},
		{"one", total(s, 1, false), 1, false},
		{"recompute", total(s, 1, false) - 1, 1, true},
		{"nothing", total(s, 1, true) - 1, 0, false},
	};

	CHECK(total(s, 1, true) < total(s, 1, false) && total(s, 2, true) >= total(s, 1, false));
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct fit_shape found = {.context = 7};
		bool fits = fit_find(&s, 1, rows[i].bytes, &found);

		CHECK_ROW(rows[i].what, fits == (rows[i].micro_batch > 0) && found.micro_batch == rows[i].micro_batch &&
		    found.recompute == rows[i].recompute && found.context == (fits ? 32 : 7));
	}
}

/*
 * The device memory of a step equals fit_train's result, except for products and Newton-Schulz, which are
 * allocated when they are needed. The emulation does not round allocations up.
 */
static void
device(enum kernels_dtype dtype, enum optim_kind optimizer)
{
	const struct kernels_options ko = {.backend = KERNELS_BACKEND_CUDA, .dtype = dtype, .threads = 1};
	const struct step_options so = {.context = 16, .batch = 16, .micro_batch = 2, .lanes = 8, .deterministic = true,
	    .optim = {.kind = optimizer}};
	struct kernels_device before, after;
	struct err_note note = {.name = ""};
	struct optim_split *split = NULL;
	struct comm *comm = NULL;
	struct kernels *k = NULL;
	struct step *step = NULL;
	double b[FIT_ITEMS], taken;

	REQUIRE(comm_init(&comm, NULL, NULL) == 0 && kernels_new(&k, &ko, &note) == 0 && kernels_device(&before,
	    &note) == 0);
	REQUIRE(step_new(&step, &tiny, k, comm, &so, &note) == 0 && kernels_device(&after, &note) == 0);
	REQUIRE(optim_split_new(&split, step_model(step), optimizer) == 0);
	const struct fit_shape s = {.model = &tiny, .split = split, .n_params = step_model(step)->n_params,
	    .dtype = kernels_dtype(k),
	    .gpu = true, .deterministic = true, .batch = 16, .micro_batch = 2, .lanes = 8, .context = 16, .threads = 1};

	REQUIRE(fit_train(&s, 1, b, &note) == 0);
	taken = (double)(before.free_bytes - after.free_bytes) + b[FIT_PRODUCTS];
	CHECK_NEAR(taken, fit_sum(b), 0);
	optim_split_destroy(&split);
	step_destroy(&step);
	kernels_destroy(&k);
	comm_finalize(&comm);
}

int
main(int argc, char **argv)
{
	CHECK(FIT_BUCKET == REDUCE_BUCKET);
	if (argc == 2 && strcmp(argv[1], "cuda") == 0) {
		device(KERNELS_DTYPE_BF16, OPTIM_ADAMW);
		device(KERNELS_DTYPE_FP32, OPTIM_ADAMW);
		device(KERNELS_DTYPE_BF16, OPTIM_MUON);
		return check_done();
	}
	cpu();
	muon();
	gpu();
	finds();
	return check_done();
}
