/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compares whole models with PyTorch and transformers: table of tensors, logits, losses, every gradient, ten
 * steps of AdamW and of Muon. The fixtures and the script that made them are in model/.
 */
#include <string.h>

#include "check.h"
#include "golden/fixture.h"
#include "engine/model/model_internal.h"
#include "engine/optim/optim.h"

/*
 * Backends and dtypes for the fixtures, and the allowed differences from PyTorch's fp32: absolute for logits
 * and losses, relative to a tensor's largest gradient for gradients. In bf16 every number that is stored
 * between two kernels is rounded by up to 2^-8 of its size, some ten times in the forward pass and twice as
 * often in the backward pass, and logits go up to about 8. The largest differences seen (printed at the end)
 * are half of what is allowed. Mistakes cause differences of the size of the values.
 */
static const struct mode {
	const char *what;
	enum kernels_backend backend;
	enum kernels_dtype dtype;
	double logits, loss, grad;
} modes[] = {
	{"openblas fp32", KERNELS_BACKEND_OPENBLAS, KERNELS_DTYPE_FP32, 1e-4, 1e-4, 1e-3},
	{"openblas bf16", KERNELS_BACKEND_OPENBLAS, KERNELS_DTYPE_BF16, 0.25, 1e-2, 0.2},
	{"onednn fp32", KERNELS_BACKEND_ONEDNN, KERNELS_DTYPE_FP32, 1e-4, 1e-4, 1e-3},
	{"onednn bf16", KERNELS_BACKEND_ONEDNN, KERNELS_DTYPE_BF16, 0.25, 1e-2, 0.2},
	{"cuda fp32", KERNELS_BACKEND_CUDA, KERNELS_DTYPE_FP32, 1e-4, 1e-4, 1e-3},
	{"cuda bf16", KERNELS_BACKEND_CUDA, KERNELS_DTYPE_BF16, 0.25, 1e-2, 0.2},
};
static const struct mode *mode;

/* The largest differences, printed at the end to show the distance to the tolerances. */
static double worst_logit, worst_loss, worst_grad, worst_adamw, worst_muon, worst_final;

struct bench {
	struct fixture fixture;
	struct model *model;
	struct kernels *kernels;
	struct model_session *session;
	float *masters, *d_params;	/* from kernels_alloc */
	void *params;			/* in the compute dtype; in fp32 the masters themselves */
	float *host;			/* [n_params] */
	const int32_t *tokens;		/* [B, T+1] */
	int32_t *inputs, *next;		/* [B, T] */
};

static void
split_tokens(struct bench *e, const int32_t *tokens)
{
	for (int64_t b = 0; b < e->fixture.b; b++)
		for (int64_t t = 0; t < e->fixture.t; t++) {
			e->inputs[b * e->fixture.t + t] = tokens[b * (e->fixture.t + 1) + t];
			e->next[b * e->fixture.t + t] = tokens[b * (e->fixture.t + 1) + t + 1];
		}
}

/* Loads parameters by name and compares shapes; file and table must have the same tensors. */
static void
load_params(struct bench *e)
{
	const struct model *m = e->model;
	char name[128];

	CHECK(m->n_tensors == fixture_count(&e->fixture, "param/"));
	for (int i = 0; i < m->n_tensors; i++) {
		const struct model_tensor *t = &m->tensors[i];
		const float *data;
		int64_t dims[4], n;
		int n_dims;

		snprintf(name, sizeof(name), "param/%s", t->name);
		n_dims = fixture_shape(&e->fixture, name, dims);
		CHECK_ROW(name, n_dims == t->n_dims);
		for (int d = 0; d < n_dims; d++)
			CHECK_ROW(name, dims[d] == t->dims[d]);
		data = fixture_array(&e->fixture, name, "f32", &n);
		REQUIRE(data != NULL && n == t->n_elements);
		memcpy(e->host + t->offset, data, (size_t)n * sizeof(float));
	}
	kernels_upload(e->kernels, e->masters, e->host, (size_t)m->n_params * sizeof(float));
	if (e->params != e->masters)
		kernels_convert(e->kernels, e->params, kernels_dtype(e->kernels), e->masters, DTYPE_F32, m->n_params);
	model_changed(e->model);
}

static void
bench_open(struct bench *e, const char *name, bool recompute)
{
	const struct kernels_options options = {.backend = mode->backend, .dtype = mode->dtype, .threads = 1};
	struct err_note note = {0};
	struct model_session_options session = {.training = true, .recompute = recompute};
	size_t rows, bytes;

	memset(e, 0, sizeof(*e));
	fixture_open(&e->fixture, name);
	REQUIRE(model_new(&e->model, &e->fixture.config, &note) == 0);
	REQUIRE(kernels_new(&e->kernels, &options, &note) == 0);
	rows = (size_t)(e->fixture.b * e->fixture.t);
	bytes = (size_t)e->model->n_params * sizeof(float);
	session.max_batch = e->fixture.b;
	session.max_tokens = e->fixture.t;
	e->masters = kernels_alloc(e->kernels, bytes);
	e->params = kernels_dtype(e->kernels) == DTYPE_F32 ? e->masters : kernels_alloc(e->kernels, bytes / 2);
	e->d_params = kernels_alloc(e->kernels, bytes);
	e->host = malloc(bytes);
	e->inputs = malloc(rows * sizeof(int32_t));
	e->next = malloc(rows * sizeof(int32_t));
	REQUIRE(e->params != NULL && e->d_params != NULL && e->host != NULL && e->inputs != NULL && e->next != NULL);
	model_bind(e->model, e->params, kernels_dtype(e->kernels));
	REQUIRE(model_session_new(&e->session, e->model, e->kernels, &session, &note) == 0);
	load_params(e);
	e->tokens = fixture_array(&e->fixture, "tokens", "i32", NULL);
	REQUIRE(e->tokens != NULL);
	split_tokens(e, e->tokens);
}

static void
bench_close(struct bench *e)
{
	model_session_destroy(&e->session);
	model_destroy(&e->model);
	if (e->params != e->masters)
		kernels_free(e->kernels, e->params);
	kernels_free(e->kernels, e->masters);
	kernels_free(e->kernels, e->d_params);
	kernels_destroy(&e->kernels);
	free(e->host);
	free(e->inputs);
	free(e->next);
	fixture_close(&e->fixture);
}

static void
track(double *worst, double found)
{
	if (!(found <= *worst))
		*worst = found;
}

static void
check_logits(struct bench *e, const char *what)
{
	int64_t n, rows = e->fixture.b * e->fixture.t;
	const float *want = fixture_array(&e->fixture, "logits", "f32", &n);
	float *got = malloc((size_t)n * sizeof(float));
	double worst = 0;

	REQUIRE(got != NULL && want != NULL && n == rows * e->fixture.config.vocab_size);
	REQUIRE(model_forward(e->session, e->inputs, e->fixture.b, e->fixture.t) == 0);
	model_logits(e->session, 0, rows, got);
	for (int64_t i = 0; i < n; i++)
		track(&worst, fabs((double)got[i] - want[i]));
	CHECK_ROW(what, worst <= mode->logits);
	track(&worst_logit, worst);
	free(got);
}

static void
check_grads(struct bench *e, const char *what, const char *loss_case)
{
	char name[160];

	kernels_download(e->kernels, e->host, e->d_params, (size_t)e->model->n_params * sizeof(float));
	for (int i = 0; i < e->model->n_tensors; i++) {
		const struct model_tensor *t = &e->model->tensors[i];
		const float *want, *got = e->host + t->offset;
		double error = 0, largest = 0;
		int64_t n;

		snprintf(name, sizeof(name), "%s/grad/%s", loss_case, t->name);
		want = fixture_array(&e->fixture, name, "f32", &n);
		REQUIRE(want != NULL && n == t->n_elements);
		for (int64_t j = 0; j < n; j++) {
			track(&error, fabs((double)got[j] - want[j]));
			track(&largest, fabs((double)want[j]));
		}
		CHECK_ROW(name, error <= mode->grad * largest);
		if (!(error <= mode->grad * largest))
			fprintf(stderr, "  %s: error %.3g, largest gradient %.3g\n", what, error, largest);
		track(&worst_grad, error / largest);
	}
}

static void
check_case(struct bench *e, const char *model_name, const struct json *json)
{
	const char *name, *residual;
	char what[128], array[96];
	int64_t rows = e->fixture.b * e->fixture.t;
	struct kernels_targets targets = {.n_rows = rows, .next = e->next};
	struct kernels_loss_sums sums;
	struct err_note note = {0};

	REQUIRE(json_text(json_get(json, "name"), &name) && json_text(json_get(json, "residual"), &residual));
	snprintf(what, sizeof(what), "%s, %s", model_name, name);
	targets.residual = strcmp(residual, "ghost") == 0 ? KERNELS_RESIDUAL_GHOST :
	    strcmp(residual, "renormalise") == 0 ? KERNELS_RESIDUAL_RENORMALISE : KERNELS_RESIDUAL_TRUE_TOKEN;
	snprintf(array, sizeof(array), "%s/weight", name);
	targets.weight = fixture_array(&e->fixture, array, "f32", NULL);
	if (fixture_flag(json, "sparse")) {
		snprintf(array, sizeof(array), "%s/offsets", name);
		targets.offsets = fixture_array(&e->fixture, array, "i64", NULL);
		snprintf(array, sizeof(array), "%s/ids", name);
		targets.ids = fixture_array(&e->fixture, array, "i32", NULL);
		snprintf(array, sizeof(array), "%s/values", name);
		targets.values = fixture_array(&e->fixture, array, "f32", NULL);
		REQUIRE(targets.weight != NULL && targets.offsets != NULL && targets.ids != NULL && targets.values != NULL);
	}
	if (fixture_flag(json, "dense"))
		REQUIRE((targets.dense = fixture_array(&e->fixture, "dense/dense", "f32", NULL)) != NULL);

	CHECK_ROW(what, model__targets_check(&e->fixture.config, &targets, rows, &note) == 0);
	kernels_zero(e->kernels, e->d_params, (size_t)e->model->n_params * sizeof(float));
	REQUIRE(model_loss(e->session, &targets, 1.0f / (float)rows, e->d_params, &sums) == 0);
	model_backward(e->session, e->d_params);
	CHECK_ROW(what, sums.finite && sums.rows == rows);
	CHECK_ROW(what, fabs(sums.loss / (double)rows - fixture_num(json, "loss")) <= mode->loss);
	CHECK_ROW(what, fabs(sums.hard / (double)rows - fixture_num(json, "hard")) <= mode->loss);
	CHECK_ROW(what, mode->dtype == KERNELS_DTYPE_BF16 || sums.correct == fixture_int(json, "correct"));
	track(&worst_loss, fabs(sums.loss / (double)rows - fixture_num(json, "loss")));
	if (targets.weight != NULL) {
		CHECK_ROW(what, sums.kd_rows == rows - 1);	/* the fixture sets one weight to 0 */
		CHECK_ROW(what, fabs(sums.soft / (double)sums.kd_rows - fixture_num(json, "soft")) <= mode->loss);
		track(&worst_loss, fabs(sums.soft / (double)sums.kd_rows - fixture_num(json, "soft")));
	}
	check_grads(e, what, name);
}

static void
check_adamw(struct bench *e, const char *what)
{
	const struct json *json = json_get(e->fixture.json, "adamw"), *losses = json_get(json, "losses");
	const int32_t *tokens = fixture_array(&e->fixture, "adamw/tokens", "i32", NULL);
	size_t bytes = (size_t)e->model->n_params * sizeof(float);
	int64_t rows = e->fixture.b * e->fixture.t;
	float *m = kernels_alloc(e->kernels, bytes), *v = kernels_alloc(e->kernels, bytes);
	struct kernels_adamw adamw = {.lr = (float)fixture_num(json, "lr"), .beta1 = (float)fixture_num(json, "beta1"),
	    .beta2 = (float)fixture_num(json, "beta2"), .eps = (float)fixture_num(json, "eps"), .grad_scale = 1};
	const struct kernels_targets targets = {.n_rows = rows, .next = e->next};
	bool copy = e->params != e->masters;

	REQUIRE(m != NULL && v != NULL && tokens != NULL && json_count(losses) == 10);
	load_params(e);
	for (size_t step = 0; step < json_count(losses); step++) {
		struct kernels_loss_sums sums;
		double want;

		split_tokens(e, tokens + (int64_t)(step % 2) * e->fixture.b * (e->fixture.t + 1));
		kernels_zero(e->kernels, e->d_params, bytes);
		REQUIRE(model_forward(e->session, e->inputs, e->fixture.b, e->fixture.t) == 0);
		REQUIRE(model_loss(e->session, &targets, 1.0f / (float)rows, e->d_params, &sums) == 0);
		model_backward(e->session, e->d_params);
		adamw.step = (int64_t)step + 1;
		for (int i = 0; i < e->model->n_tensors; i++) {
			const struct model_tensor *t = &e->model->tensors[i];

			adamw.decay = t->decay ? (float)fixture_num(json, "decay") : 0;
			kernels_adamw(e->kernels, e->masters + t->offset, m + t->offset, v + t->offset, e->d_params + t->offset,
			    copy ? (uint16_t *)e->params + t->offset : NULL, DTYPE_BF16, t->n_elements, &adamw);
		}
		REQUIRE(json_num(json_item(losses, step), &want));
		CHECK_ROW(what, fabs(sums.loss / (double)rows - want) <= mode->loss);
		track(&worst_adamw, fabs(sums.loss / (double)rows - want));
	}
	kernels_free(e->kernels, m);
	kernels_free(e->kernels, v);
}

/* Makes one update of all parameters, with Muon for the matrices of layers. */
static void
muon_step(struct bench *e, const struct json *json, float *m, float *v, int64_t step)
{
	struct optim_config o = {.beta1 = fixture_num(json, "beta1"), .beta2 = fixture_num(json, "beta2"), .eps = fixture_num(json, "eps"),
	    .weight_decay = fixture_num(json, "decay")};
	double lr = fixture_num(json, "lr");
	uint16_t *copy = e->params != e->masters ? e->params : NULL;

	for (int i = 0; i < e->model->n_tensors; i++) {
		const struct model_tensor *t = &e->model->tensors[i];
		const struct optim_span span = {.begin = 0, .decay = t->decay};
		int64_t at = t->offset;

		if (t->n_matrices == 0)
			optim_adamw(e->kernels, &o, step, lr, 1, &span, 1, at, at + t->n_elements, e->masters + at, m + at, v + at, e->d_params + at,
			    copy != NULL ? copy + at : NULL, kernels_dtype(e->kernels));
		for (int j = 0; j < t->n_matrices; j++) {
			struct model_matrix x = model_matrix(e->model, i, j);
			struct kernels_muon_matrix one = {.w = e->masters + x.begin, .m = m + x.begin, .grad = e->d_params + x.begin,
			    .copy = copy != NULL ? copy + x.begin : NULL, .rows = x.rows, .cols = x.cols, .ld = x.ld, .group = x.group,
			    .group_stride = x.group_stride};

			optim_muon(e->kernels, &o, lr, 1, &one, 1, kernels_dtype(e->kernels));
		}
	}
}

/* Compares the losses of ten steps, and the parameters after them, with torch.optim.Muon (make_muon.py). */
static void
check_muon(const char *name)
{
	char muon_name[64];
	struct fixture f;
	const struct json *json, *losses;
	const int32_t *tokens;
	struct bench e;
	float *m, *v;
	size_t bytes;

	snprintf(muon_name, sizeof(muon_name), "%s_muon", name);
	fixture_open(&f, muon_name);
	bench_open(&e, name, false);
	json = json_get(f.json, "muon");
	losses = json_get(json, "losses");
	tokens = fixture_array(&e.fixture, "adamw/tokens", "i32", NULL);
	bytes = (size_t)e.model->n_params * sizeof(float);
	m = kernels_alloc(e.kernels, bytes);
	v = kernels_alloc(e.kernels, bytes);
	REQUIRE(m != NULL && v != NULL && tokens != NULL && json_count(losses) == 10 && fixture_num(json, "momentum") == OPTIM_MUON_MOMENTUM);
	for (size_t step = 0; step < json_count(losses); step++) {
		int64_t rows = e.fixture.b * e.fixture.t;
		const struct kernels_targets targets = {.n_rows = rows, .next = e.next};
		struct kernels_loss_sums sums;
		double want;

		split_tokens(&e, tokens + (int64_t)(step % 2) * e.fixture.b * (e.fixture.t + 1));
		kernels_zero(e.kernels, e.d_params, bytes);
		REQUIRE(model_forward(e.session, e.inputs, e.fixture.b, e.fixture.t) == 0);
		REQUIRE(model_loss(e.session, &targets, 1.0f / (float)rows, e.d_params, &sums) == 0);
		model_backward(e.session, e.d_params);
		muon_step(&e, json, m, v, (int64_t)step);
		model_changed(e.model);
		REQUIRE(json_num(json_item(losses, step), &want));
		CHECK_ROW(muon_name, fabs(sums.loss / (double)rows - want) <= mode->loss);
		track(&worst_muon, fabs(sums.loss / (double)rows - want));
	}
	for (int i = 0; i < e.model->n_tensors; i++) {
		const struct model_tensor *t = &e.model->tensors[i];
		const float *want;
		char array[128];
		int64_t n;

		snprintf(array, sizeof(array), "final/%s", t->name);
		want = fixture_array(&f, array, "f32", &n);
		REQUIRE(want != NULL && n == t->n_elements);
		kernels_download(e.kernels, e.host, e.masters + t->offset, (size_t)n * sizeof(float));
		/* A key bias's gradient is zero except for rounding, which AdamW divides by its own size. */
		for (int64_t j = 0; j < n && strstr(t->name, "c_attn.bias") == NULL && strstr(t->name, "query_key_value.bias") == NULL; j++)
			track(&worst_final, fabs((double)e.host[j] - (double)want[j]));
	}
	CHECK_ROW(muon_name, mode->dtype == KERNELS_DTYPE_BF16 || worst_final <= 1e-4);
	kernels_free(e.kernels, m);
	kernels_free(e.kernels, v);
	bench_close(&e);
	fixture_close(&f);
}

static void
test_fixture(const char *name, bool recompute)
{
	struct bench e;
	const struct json *cases;

	bench_open(&e, name, recompute);
	check_logits(&e, name);
	cases = json_get(e.fixture.json, "cases");
	CHECK(json_count(cases) > 0);
	for (size_t i = 0; i < json_count(cases); i++)
		check_case(&e, name, json_item(cases, i));
	check_adamw(&e, name);
	bench_close(&e);
}

/* Frequencies of real configurations; implementations of pow() differ by one or two ulp. */
static void
test_rope(void)
{
	struct json *rows = NULL;
	struct err_note note = {0};

	REQUIRE(json_parse_file("tests/golden/model/rope.json", 0, &rows, &note) == 0);
	REQUIRE(json_count(rows) > 0);
	for (size_t i = 0; i < json_count(rows); i++) {
		const struct json *row = json_item(rows, i), *scaling = json_get(row, "scaling"), *freq = json_get(row, "inv_freq");
		struct model_config cfg = {.family = MODEL_FAMILY_LLAMA, .head_dim = fixture_int(row, "head_dim"),
		    .rope_theta = fixture_num(row, "rope_theta")};
		const char *what;
		float got[256];

		REQUIRE(json_text(json_get(row, "what"), &what) && cfg.head_dim <= 512 && (int64_t)json_count(freq) == cfg.head_dim / 2);
		if (json_kind(scaling) == JSON_KIND_ARRAY) {
			cfg.rope_scaling.type = MODEL_ROPE_LLAMA3;
			REQUIRE(json_num(json_item(scaling, 0), &cfg.rope_scaling.factor));
			REQUIRE(json_num(json_item(scaling, 1), &cfg.rope_scaling.low_freq_factor));
			REQUIRE(json_num(json_item(scaling, 2), &cfg.rope_scaling.high_freq_factor));
			REQUIRE(json_int(json_item(scaling, 3), &cfg.rope_scaling.original_context));
		}
		model__rope_freq(&cfg, MODEL__ROPE_GLOBAL, got);
		for (int64_t j = 0; j < cfg.head_dim / 2; j++) {
			double want;

			REQUIRE(json_num(json_item(freq, (size_t)j), &want));
			CHECK_ROW(what, fabs(got[j] - want) <= 5e-7 * want);
		}
	}
	json_close(&rows);
}

/* Argument cuda: tests the plug-in that SALT_CUDA_PLUGIN names instead of the CPU backends. */
int
main(int argc, char **argv)
{
	bool cuda = argc > 1 && strcmp(argv[1], "cuda") == 0, few = argc > 2 && strcmp(argv[2], "few") == 0;
	static const char *const names[] = {"gpt2_tied", "gpt2_untied", "llama_grouped", "llama_biases", "llama_scaled", "qwen2",
		"qwen3", "neox", "neox_serial"};

	test_rope();
	for (mode = modes; mode < modes + sizeof(modes) / sizeof(modes[0]); mode++) {
		const struct kernels_options options = {.backend = mode->backend, .dtype = mode->dtype, .threads = 1};
		struct err_note note = {0};
		struct kernels *here;
		bool unsupported;

		if ((mode->backend == KERNELS_BACKEND_CUDA) != cuda)
			continue;
		unsupported = kernels_new(&here, &options, &note) == ERR_UNSUPPORTED;
		kernels_destroy(&here);
		if (mode->backend == KERNELS_BACKEND_ONEDNN && unsupported) {
			fprintf(stderr, "skipped: %s: needs %s\n", mode->what, note.expected);
			continue;
		}
		worst_logit = worst_loss = worst_grad = worst_adamw = worst_muon = worst_final = 0;
		/* "few", for runs with another order of the device's threads: gpt2_tied, qwen3, and Llama with recomputed activations */
		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i += few ? 6 : 1)
			test_fixture(names[i], false);
		test_fixture("llama_grouped", true);
		if (!few) {
			check_muon("gpt2_tied");
			test_fixture("qwen3", true);
			test_fixture("neox", true);
			check_muon("llama_grouped");
			check_muon("neox");
		}
		fprintf(stderr, "%s: largest differences: logits %.2g, loss %.2g, gradient %.2g of the tensor's largest, AdamW losses %.2g, Muon losses %.2g, "
		    "parameters after ten steps of it %.2g\n",
		    mode->what, worst_logit, worst_loss, worst_grad, worst_adamw, worst_muon, worst_final);
	}
	return check_done();
}
