/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compares the optimizer steps of one rank with the same steps computed here: the gradient of the whole batch
 * at once, norm, clipping, AdamW and Muon in double from their formulas. Some rows have soft labels and loss
 * weights, lanes do not fit the tree evenly, and clipping takes effect.
 */
#include "trainerd/step.h"

#include <inttypes.h>

#include "check.h"
#include "base/random/random.h"

#define L 6
#define BATCH 8
#define ROWS (BATCH * L)
#define V 61
#define STEPS 3

static const struct model_config config = {.family = MODEL_FAMILY_LLAMA, .vocab_size = V, .context = L, .d_model = 16, .n_layers = 2,
    .n_heads = 2, .n_kv_heads = 1, .head_dim = 8, .d_ff = 24, .norm_eps = 1e-5f, .tied = true, .rope_theta = 10000,
    .initializer_range = 0.2f, .bos_id = -1, .eos_id = -1};

struct rows {
	int32_t tokens[BATCH * (L + 1)], ids[2 * ROWS];
	float weight[BATCH], loss_weight[ROWS], values[2 * ROWS];
	int64_t offsets[ROWS + 1];
};

/*
 * Makes the rows of a step: odd sequences have soft labels of two ids and a tail, and the distillation weight
 * 0.6.
 * weighted: documents of five tokens have loss weights from 0 to 3, so that lanes and micro-batches have
 * different sums.
 */
static struct step_rows
rows_make(struct rows *r, uint64_t step, bool weighted)
{
	int64_t at = 0;
	uint32_t u[4];

	for (int i = 0; i < BATCH * (L + 1); i++) {
		random_words(3, RANDOM_PURPOSE_GENERATE, step, (uint32_t)i, 0, u);
		r->tokens[i] = (int32_t)(u[0] % V);
	}
	for (int m = 0; m < ROWS; m++) {
		r->offsets[m] = at;
		r->weight[m / L] = m / L % 2 == 0 ? 0 : 0.6f;
		r->loss_weight[m] = (float)(((uint64_t)m / 5 + step) % 4) * (m < ROWS / 2 ? 1 : 0.4f);
		if (r->weight[m / L] == 0)
			continue;
		random_words(4, RANDOM_PURPOSE_GENERATE, step, (uint32_t)m, 0, u);
		r->ids[at] = (int32_t)(u[0] % (V / 2));
		r->values[at++] = 0.625f;
		r->ids[at] = V / 2 + (int32_t)(u[1] % (V / 2));
		r->values[at++] = 0.25f;
	}
	r->offsets[ROWS] = at;
	return (struct step_rows){.n_rows = BATCH, .tokens = r->tokens, .weight = r->weight,
	    .loss_weight = weighted ? r->loss_weight : NULL, .offsets = r->offsets, .ids = r->ids,
	    .values = r->values};
}

/* State of the plain computation. */
struct plain {
	struct kernels *kernels;
	struct model *model;
	struct model_session *session;
	float *params, *d_params;		/* device */
	float *host;
	double *w, *m, *v;
	double *u;				/* Nesterov momentum of a matrix */
};

static void
plain_open(struct plain *p, struct kernels *kernels, const float *initial)
{
	const struct model_session_options o = {.max_batch = BATCH, .max_tokens = L, .training = true};
	size_t n;

	*p = (struct plain){.kernels = kernels};
	REQUIRE(model_new(&p->model, &config, NULL) == 0 && model_session_new(&p->session, p->model, kernels, &o, NULL) == 0);
	n = (size_t)p->model->n_params;
	p->params = kernels_alloc(kernels, n * sizeof(float));
	p->d_params = kernels_alloc(kernels, n * sizeof(float));
	p->host = malloc(n * sizeof(float));
	p->w = malloc(n * sizeof(double));
	p->m = calloc(n, sizeof(double));
	p->v = calloc(n, sizeof(double));
	p->u = calloc(n, sizeof(double));
	REQUIRE(p->params != NULL && p->d_params != NULL && p->host != NULL && p->w != NULL && p->m != NULL && p->v != NULL && p->u != NULL);
	for (size_t i = 0; i < n; i++)
		p->w[i] = initial[i];
	model_bind(p->model, p->params, DTYPE_F32);
}

static void
plain_close(struct plain *p)
{
	kernels_free(p->kernels, p->params);
	kernels_free(p->kernels, p->d_params);
	model_session_destroy(&p->session);
	model_destroy(&p->model);
	free(p->host);
	free(p->w);
	free(p->m);
	free(p->v);
	free(p->u);
}

/* x = a x + (b g + c g g) x with g = x x^T, five times. */
static void
plain_newton_schulz(double *x, int64_t rows, int64_t cols)
{
	double *g = calloc((size_t)(rows * rows), sizeof(*g)), *y = malloc((size_t)(rows * cols) * sizeof(*y));

	REQUIRE(g != NULL && y != NULL);
	for (int times = 0; times < 5; times++) {
		for (int64_t i = 0; i < rows * rows; i++) {
			g[i] = 0;
			for (int64_t c = 0; c < cols; c++)
				g[i] += x[i / rows * cols + c] * x[i % rows * cols + c];
		}
		for (int64_t i = 0; i < rows * cols; i++)
			y[i] = 3.4445 * x[i];
		for (int64_t i = 0; i < rows; i++)
			for (int64_t j = 0; j < rows; j++) {
				double of_x = -4.7750 * g[i * rows + j];

				for (int64_t k = 0; k < rows; k++)
					of_x += 2.0315 * g[i * rows + k] * g[k * rows + j];
				for (int64_t c = 0; c < cols; c++)
					y[i * cols + c] += of_x * x[j * cols + c];
			}
		memcpy(x, y, (size_t)(rows * cols) * sizeof(*x));
	}
	free(g);
	free(y);
}

/* Muon for a matrix that is not fused. */
static void
plain_muon(struct plain *p, const struct model_tensor *t, const struct optim_config *o, double lr, double clip)
{
	double sum = 0, scale = 0.2 * sqrt((double)(t->dims[0] > t->dims[1] ? t->dims[0] : t->dims[1]));
	double *w = p->w + t->offset, *m = p->m + t->offset;

	for (int64_t i = 0; i < t->n_elements; i++) {
		double g = p->host[t->offset + i] * clip;

		m[i] = 0.95 * m[i] + 0.05 * g;
		p->u[i] = 0.05 * g + 0.95 * m[i];
		sum += p->u[i] * p->u[i];
	}
	for (int64_t i = 0; i < t->n_elements; i++)
		p->u[i] /= sqrt(sum);
	plain_newton_schulz(p->u, t->dims[0], t->dims[1]);
	for (int64_t i = 0; i < t->n_elements; i++)
		w[i] -= lr * o->weight_decay * w[i] + lr * scale * p->u[i];
}

/* Makes step number `step`, counted from 1. *norm: the norm of the gradient before clipping. */
static struct kernels_loss_sums
plain_step(struct plain *p, const struct step_rows *rows, const struct step_options *so, double lr, int step, double *norm)
{
	static int32_t inputs[ROWS], next[ROWS];
	static float weight[ROWS];
	const struct kernels_targets targets = {.n_rows = ROWS, .next = next, .weight = weight, .loss_weight = rows->loss_weight, .offsets = rows->offsets, .ids = rows->ids,
	    .values = rows->values, .token_weight = so->token_weight};
	const struct optim_config *o = &so->optim;
	size_t n = (size_t)p->model->n_params, bytes = n * sizeof(float);
	struct kernels_loss_sums sums;
	double sum = 0, weights = 0, clip;

	for (int m = 0; m < ROWS; m++) {
		weights += rows->loss_weight != NULL ? (double)rows->loss_weight[m] : 1;
		inputs[m] = rows->tokens[m / L * (L + 1) + m % L];
		next[m] = rows->tokens[m / L * (L + 1) + m % L + 1];
		weight[m] = rows->weight[m / L];
	}
	for (size_t i = 0; i < n; i++)
		p->host[i] = (float)p->w[i];
	kernels_upload(p->kernels, p->params, p->host, bytes);
	model_changed(p->model);
	kernels_zero(p->kernels, p->d_params, bytes);
	REQUIRE(model_forward(p->session, inputs, BATCH, L) == 0 &&
	    model_loss(p->session, &targets, (float)(1 / weights), p->d_params, &sums) == 0);
	model_backward(p->session, p->d_params);
	kernels_download(p->kernels, p->host, p->d_params, bytes);
	for (size_t i = 0; i < n; i++)
		sum += (double)p->host[i] * p->host[i];
	*norm = sqrt(sum);
	clip = o->clip / (*norm + 1e-6) < 1 ? o->clip / (*norm + 1e-6) : 1;
	for (int t = 0; t < p->model->n_tensors; t++) {
		if (o->kind == OPTIM_MUON && p->model->tensors[t].n_matrices > 0) {
			plain_muon(p, &p->model->tensors[t], o, lr, clip);
			continue;
		}
		for (int64_t i = p->model->tensors[t].offset; i < p->model->tensors[t].offset + p->model->tensors[t].n_elements; i++) {
			double g = p->host[i] * clip;

			p->w[i] -= lr * (p->model->tensors[t].decay ? o->weight_decay : 0) * p->w[i];
			p->m[i] = o->beta1 * p->m[i] + (1 - o->beta1) * g;
			p->v[i] = o->beta2 * p->v[i] + (1 - o->beta2) * g * g;
			p->w[i] -= lr * (p->m[i] / (1 - pow(o->beta1, step))) / (sqrt(p->v[i] / (1 - pow(o->beta2, step))) + o->eps);
		}
	}
	return sums;
}

/* The largest difference between an array of the step and want, relative to the largest value. */
static double
difference(struct step *s, enum step_array array, const double *want)
{
	const struct model *model = step_model(s);
	float *x = malloc((size_t)model->n_params * sizeof(*x));
	double worst = 0, largest = 0;
	int64_t at = 0;

	REQUIRE(x != NULL);
	for (int t = 0; t < model->n_tensors; t++) {
		const struct model_tensor *tensor = &model->tensors[t];

		if (array == STEP_V && step_optim(s) == OPTIM_MUON && tensor->n_matrices > 0)
			continue;			/* has no second moment */
		step_read(s, array, at, tensor->n_elements, x);
		at += tensor->n_elements;
		for (int64_t i = 0; i < tensor->n_elements; i++) {
			worst = fmax(worst, fabs((double)x[i] - want[tensor->offset + i]));
			largest = fmax(largest, fabs(want[tensor->offset + i]));
		}
	}
	CHECK(at == step_total(s, array));
	free(x);
	return worst / largest;
}

static void
same_as_plain(enum optim_kind kind, int64_t lanes, int64_t micro_batch, bool deterministic, enum kernels_token_weight rule, bool weighted)
{
	const struct kernels_options ko = {.backend = KERNELS_BACKEND_OPENBLAS, .dtype = KERNELS_DTYPE_FP32, .threads = 1};
	const struct step_options so = {.context = L, .batch = BATCH, .micro_batch = micro_batch, .lanes = lanes,
	    .deterministic = deterministic, .token_weight = rule,
	    .optim = {.kind = kind, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-3, .weight_decay = 0.1, .clip = 0.5}};
	struct kernels *kernels = NULL;
	struct comm *comm = NULL;
	struct step *s = NULL;
	struct plain p;
	struct rows r;
	float *initial;

	REQUIRE(comm_init(&comm, NULL, NULL) == 0 && kernels_new(&kernels, &ko, NULL) == 0);
	REQUIRE(step_new(&s, &config, kernels, comm, &so, NULL) == 0 && step_init(s, 7, NULL) == 0);
	step_spread(s);
	initial = malloc((size_t)step_model(s)->n_params * sizeof(*initial));
	REQUIRE(initial != NULL);
	for (int i = 0; i < step_parts(s); i++) {
		int64_t begin, end;

		step_range(s, STEP_MASTERS, 0, i, &begin, &end);
		step_read(s, STEP_MASTERS, begin, end - begin, initial + begin);
	}
	plain_open(&p, kernels, initial);
	for (int i = 1; i <= STEPS; i++) {
		const struct step_rows rows = rows_make(&r, (uint64_t)i, weighted);
		struct kernels_loss_sums sums;
		struct step_result e;
		double lr = 0.02 * i, norm, all = 0, kd = 0;

		step_run(s, &rows, (float)lr, i, &e);
		sums = plain_step(&p, &rows, &so, (float)lr, i, &norm);
		for (int m = 0; m < ROWS; m++) {
			double a = weighted ? (double)r.loss_weight[m] : 1;

			all += a;
			kd += m / L % 2 == 1 ? a : 0;
		}
		CHECK(norm > 1.2 * so.optim.clip && fabs(e.grad_norm / norm - 1) < 1e-4);
		CHECK(fabs(e.loss - sums.loss / all) < 1e-5 && fabs(e.hard - sums.hard / all) < 1e-5);
		CHECK(e.kd_tokens == sums.kd_rows && fabs(e.soft - sums.soft / kd) < 1e-5);
		CHECK(fabs(e.entropy - sums.entropy / kd) < 1e-5 && e.accuracy == (double)sums.correct / (double)sums.rows);
		CHECK(!e.skipped && !e.masked && (weighted ? e.kd_tokens < ROWS / 2 : e.kd_tokens == ROWS / 2));
		CHECK(fabs(e.weight - sums.weight / (double)sums.kd_rows) < 1e-5);
		CHECK((rule == KERNELS_TOKEN_WEIGHT_CONSTANT) == (fabs(e.weight - 0.6) < 1e-6) && e.weight > 0.01);
		CHECK(difference(s, STEP_MASTERS, p.w) < 1e-4 && difference(s, STEP_M, p.m) < 1e-3 && difference(s, STEP_V, p.v) < 1e-3);
	}
	plain_close(&p);
	free(initial);
	step_destroy(&s);
	kernels_destroy(&kernels);
	comm_finalize(&comm);
}

/* A step with a gradient that is not finite, or with weights that are all 0, changes nothing. */
static void
nothing_done(bool masked)
{
	const struct kernels_options ko = {.backend = KERNELS_BACKEND_OPENBLAS, .dtype = KERNELS_DTYPE_FP32, .threads = 1};
	const struct step_options so = {.context = L, .batch = BATCH, .micro_batch = 2, .lanes = 2, .deterministic = true,
	    .optim = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1}};
	struct kernels *kernels = NULL;
	struct comm *comm = NULL;
	struct step *s = NULL;
	struct step_result e;
	struct rows r;
	struct step_rows rows = rows_make(&r, 1, masked);
	float before[4], after[4], bad = NAN;

	REQUIRE(comm_init(&comm, NULL, NULL) == 0 && kernels_new(&kernels, &ko, NULL) == 0);
	REQUIRE(step_new(&s, &config, kernels, comm, &so, NULL) == 0 && step_init(s, 7, NULL) == 0);
	step_spread(s);
	memset(r.loss_weight, 0, sizeof(r.loss_weight));
	if (!masked)
		kernels_upload(kernels, (float *)step_model(s)->params + step_model(s)->n_params - 1, &bad, sizeof(bad));	/* the final norm */
	model_changed((struct model *)step_model(s));
	step_read(s, STEP_MASTERS, 0, 4, before);
	step_run(s, &rows, 0.1f, 1, &e);
	step_read(s, STEP_MASTERS, 0, 4, after);
	CHECK(e.skipped == !masked && e.masked == masked && !isfinite(e.loss) && memcmp(before, after, sizeof(before)) == 0);
	step_read(s, STEP_M, 0, 4, after);
	CHECK(after[0] == 0 && after[1] == 0 && after[2] == 0 && after[3] == 0);
	step_destroy(&s);
	kernels_destroy(&kernels);
	comm_finalize(&comm);
}

int
main(void)
{
	same_as_plain(OPTIM_ADAMW, 1, 8, true, KERNELS_TOKEN_WEIGHT_CONSTANT, false);
	same_as_plain(OPTIM_ADAMW, 4, 1, true, KERNELS_TOKEN_WEIGHT_CONSTANT, false);
	same_as_plain(OPTIM_ADAMW, 8, 1, true, KERNELS_TOKEN_WEIGHT_TEACHER_CONFIDENCE, false);
	same_as_plain(OPTIM_ADAMW, 2, 2, false, KERNELS_TOKEN_WEIGHT_CONSTANT, false);
	same_as_plain(OPTIM_ADAMW, 2, 2, true, KERNELS_TOKEN_WEIGHT_MARGIN, false);
	same_as_plain(OPTIM_MUON, 4, 1, true, KERNELS_TOKEN_WEIGHT_CONSTANT, false);
	same_as_plain(OPTIM_ADAMW, 1, 8, true, KERNELS_TOKEN_WEIGHT_CONSTANT, true);
	same_as_plain(OPTIM_ADAMW, 4, 1, true, KERNELS_TOKEN_WEIGHT_MARGIN, true);
	same_as_plain(OPTIM_ADAMW, 2, 2, false, KERNELS_TOKEN_WEIGHT_TEACHER_CONFIDENCE, true);
	nothing_done(false);
	nothing_done(true);
	return check_done();
}
