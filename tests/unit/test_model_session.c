/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: guarantees of forward, loss and backward, apart from their values (see golden/model). */
#include <string.h>

#include "check.h"
#include "engine/kernels/kernels_internal.h"
#include "engine/model/session.h"

#define V 37
#define B 3
#define T 7
#define ROWS (B * T)

static const struct model_config configs[] = {
	{.family = MODEL_FAMILY_GPT2, .vocab_size = V, .context = 11, .d_model = 12, .n_layers = 3, .n_heads = 3, .n_kv_heads = 3,
	    .head_dim = 4, .d_ff = 21, .norm_eps = 1e-5f, .tied = true, .attention_bias = true, .mlp_bias = true, .initializer_range = 0.3f},
	{.family = MODEL_FAMILY_LLAMA, .vocab_size = V, .context = 11, .d_model = 10, .n_layers = 3, .n_heads = 4, .n_kv_heads = 2,
	    .head_dim = 6, .d_ff = 19, .norm_eps = 1e-5f, .tied = false, .attention_bias = true, .mlp_bias = true, .rope_theta = 100,
	    .initializer_range = 0.3f},
	{.family = MODEL_FAMILY_QWEN3, .vocab_size = V, .context = 11, .d_model = 10, .n_layers = 3, .n_heads = 4, .n_kv_heads = 2,
	    .head_dim = 6, .d_ff = 19, .norm_eps = 1e-6f, .tied = true, .rope_theta = 100, .initializer_range = 0.3f},
	{.family = MODEL_FAMILY_NEOX, .vocab_size = V, .context = 11, .d_model = 24, .n_layers = 3, .n_heads = 3, .n_kv_heads = 3,
	    .head_dim = 8, .d_ff = 21, .norm_eps = 1e-5f, .tied = false, .attention_bias = true, .mlp_bias = true,
	    .parallel_residual = true, .rope_theta = 100, .rotary_dim = 2, .initializer_range = 0.3f},
};

#define N_CONFIGS (sizeof(configs) / sizeof(configs[0]))

struct bench {
	struct model *model;
	struct kernels *kernels;
	float *params, *host;		/* host: a copy of params in host memory */
	size_t bytes;
};

static uint32_t chance = 1;

static uint32_t
next_chance(void)
{
	chance = chance * 1664525u + 1013904223u;
	return chance >> 8;
}

static void
tokens_fill(int32_t *tokens, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		tokens[i] = (int32_t)(next_chance() % V);
}

static void
bench_open(struct bench *e, const struct model_config *cfg, int threads)
{
	const struct kernels_options options = {.backend = KERNELS_BACKEND_OPENBLAS, .dtype = KERNELS_DTYPE_FP32, .threads = threads};

	REQUIRE(model_new(&e->model, cfg, NULL) == 0);
	REQUIRE(kernels_new(&e->kernels, &options, NULL) == 0);
	e->bytes = (size_t)e->model->n_params * sizeof(float);
	e->params = kernels_alloc(e->kernels, e->bytes);
	e->host = malloc(e->bytes);
	REQUIRE(e->params != NULL && e->host != NULL);
	model_init(e->model, 7, 0, e->model->n_params, e->host);
	/* makes norms and biases differ from their constants */
	for (int i = 0; i < e->model->n_tensors; i++)
		if (e->model->tensors[i].init_std == 0)
			for (int64_t j = 0; j < e->model->tensors[i].n_elements; j++)
				e->host[e->model->tensors[i].offset + j] += 0.2f * ((float)(next_chance() % 2001) / 1000 - 1);
	kernels_upload(e->kernels, e->params, e->host, e->bytes);
	model_bind(e->model, e->params, DTYPE_F32);
}

static void
bench_close(struct bench *e)
{
	kernels_free(e->kernels, e->params);
	free(e->host);
	kernels_destroy(&e->kernels);
	model_destroy(&e->model);
}

static struct model_session *
session_open(struct bench *e, int64_t b, int64_t t, bool training, bool recompute)
{
	const struct model_session_options o = {.max_batch = b, .max_tokens = t, .training = training, .recompute = recompute};
	struct model_session *s = NULL;
	struct err_note note;
	size_t planned = 0;

	REQUIRE(model_session_new(&s, e->model, e->kernels, &o, &note) == 0);
	CHECK(model_session_plan(&e->model->config, DTYPE_F32, &o, &planned, &note) == 0);
	CHECK(planned == s->bytes);
	return s;
}

static void
logits_of(struct model_session *s, const int32_t *tokens, int64_t b, int64_t t, float *out)
{
	REQUIRE(model_forward(s, tokens, b, t) == 0);
	model_logits(s, 0, b * t, out);
}

/* Soft labels on most rows: two ids and a tail. */
struct labels {
	int64_t offsets[ROWS + 1];
	int32_t ids[2 * ROWS], next[ROWS];
	float values[2 * ROWS], weight[ROWS];
};

static struct kernels_targets
targets_make(struct labels *l)
{
	for (int i = 0; i < ROWS; i++) {
		l->next[i] = (int32_t)(next_chance() % V);
		l->offsets[i + 1] = 2 * (i + 1);
		l->ids[2 * i] = (int32_t)(next_chance() % (V - 1));
		l->ids[2 * i + 1] = l->ids[2 * i] + 1;
		l->values[2 * i] = 0.5f;
		l->values[2 * i + 1] = 0.25f;
		l->weight[i] = i % 5 == 0 ? 0 : 2.0f / 3;
	}
	l->offsets[0] = 0;
	return (struct kernels_targets){.n_rows = ROWS, .next = l->next, .weight = l->weight, .offsets = l->offsets, .ids = l->ids,
	    .values = l->values, .residual = KERNELS_RESIDUAL_GHOST};
}

/* Computes the gradient of one micro-batch, `times` times in sum, into host memory; returns the loss. */
static double
grads_of(struct bench *e, struct model_session *s, const int32_t *tokens, const struct kernels_targets *targets, int times, float *out)
{
	float *d = kernels_alloc(e->kernels, e->bytes);
	struct kernels_loss_sums sums = {0};

	REQUIRE(d != NULL);
	for (int i = 0; i < times; i++) {
		REQUIRE(model_forward(s, tokens, B, T) == 0);
		REQUIRE(model_loss(s, targets, 1.0f / ROWS, d, &sums) == 0);
		model_backward(s, d);
	}
	kernels_download(e->kernels, out, d, e->bytes);
	kernels_free(e->kernels, d);
	return sums.loss / ROWS;
}

/* Logits do not depend on the size of the session, the batch, or whether activations are kept. */
static void
test_rows_alone(const struct model_config *cfg)
{
	struct bench e;
	struct model_session *exact, *large, *inference;
	int32_t tokens[ROWS], other[ROWS];
	float want[ROWS * V], got[ROWS * V];

	bench_open(&e, cfg, 1);
	exact = session_open(&e, B, T, true, false);
	large = session_open(&e, 5, 11, true, true);
	inference = session_open(&e, B, T, false, false);
	CHECK(inference->bytes < exact->bytes);
	tokens_fill(tokens, ROWS);
	logits_of(exact, tokens, B, T, want);
	logits_of(large, tokens, B, T, got);
	CHECK(memcmp(want, got, sizeof(want)) == 0);
	logits_of(inference, tokens, B, T, got);
	CHECK(memcmp(want, got, sizeof(want)) == 0);
	model_logits(inference, 4, 1, got);
	for (int i = 0; i < V; i++)
		CHECK_NEAR(got[i], want[4 * V + i], 1e-5);

	/* With other sequences in the batch and the same shape: the same bits. Alone: up to rounding. */
	memcpy(other, tokens, sizeof(other));
	tokens_fill(other, T);
	tokens_fill(other + 2 * T, T);
	logits_of(exact, other, B, T, got);
	CHECK(memcmp(want, got, T * V * sizeof(float)) != 0);
	CHECK(memcmp(want + T * V, got + T * V, T * V * sizeof(float)) == 0);
	logits_of(exact, tokens + T, 1, T, got);
	for (int i = 0; i < T * V; i++)
		CHECK_NEAR(got[i], want[T * V + i], 1e-5);

	/* Causality: a later token does not change earlier logits. */
	memcpy(other, tokens, sizeof(other));
	other[4] = (other[4] + 1) % V;
	logits_of(exact, other, B, T, got);
	CHECK(memcmp(want, got, 4 * V * sizeof(float)) == 0);
	CHECK(memcmp(want + 4 * V, got + 4 * V, V * sizeof(float)) != 0);
	/* A shorter context gives the same first positions. */
	logits_of(exact, tokens, 1, 3, got);
	for (int i = 0; i < 3 * V; i++)
		CHECK_NEAR(got[i], want[i], 1e-5);
	model_session_destroy(&exact);
	model_session_destroy(&large);
	model_session_destroy(&inference);
	CHECK(exact == NULL);
	bench_close(&e);
}

/* After model_gradients_zero, gradients in an array with any content equal those in an array of zeros. */
static void
test_gradients_zero(const struct model_config *cfg)
{
	struct bench e;
	struct model_session *s;
	struct labels labels;
	const uint32_t drawn = chance;
	struct kernels_targets targets = targets_make(&labels);
	struct kernels_loss_sums sums;
	int32_t tokens[ROWS];
	float *want, *got, *d;

	bench_open(&e, cfg, 1);
	s = session_open(&e, B, T, true, false);
	want = malloc(e.bytes);
	got = malloc(e.bytes);
	d = kernels_alloc(e.kernels, e.bytes);
	REQUIRE(want != NULL && got != NULL && d != NULL);
	tokens_fill(tokens, ROWS);
	(void)grads_of(&e, s, tokens, &targets, 2, want);
	memset(got, 0xff, e.bytes);		/* NaN */
	kernels_upload(e.kernels, d, got, e.bytes);
	model_gradients_zero(s, d);
	for (int i = 0; i < 2; i++) {
		REQUIRE(model_forward(s, tokens, B, T) == 0);
		REQUIRE(model_loss(s, &targets, 1.0f / ROWS, d, &sums) == 0);
		model_backward(s, d);
	}
	kernels_download(e.kernels, got, d, e.bytes);
	for (size_t i = 0; i < e.bytes / sizeof(*got); i++)
		CHECK(got[i] == want[i]);
	/* so that the following tests draw the same numbers as before */
	chance = drawn;
	kernels_free(e.kernels, d);
	free(want);
	free(got);
	model_session_destroy(&s);
	bench_close(&e);
}

static void
test_recompute(const struct model_config *cfg)
{
	struct bench e;
	struct model_session *kept, *again;
	struct labels labels;
	struct kernels_targets targets = targets_make(&labels);
	int32_t tokens[ROWS];
	float *want, *got;
	double loss;

	bench_open(&e, cfg, 1);
	kept = session_open(&e, B, T, true, false);
	again = session_open(&e, B, T, true, true);
	CHECK(again->bytes < kept->bytes);
	want = malloc(e.bytes);
	got = malloc(e.bytes);
	REQUIRE(want != NULL && got != NULL);
	tokens_fill(tokens, ROWS);
	loss = grads_of(&e, kept, tokens, &targets, 1, want);
	CHECK(grads_of(&e, again, tokens, &targets, 1, got) == loss);
	CHECK(memcmp(want, got, e.bytes) == 0);
	CHECK(grads_of(&e, kept, tokens, &targets, 1, got) == loss);	/* repeated: the same result */
	CHECK(memcmp(want, got, e.bytes) == 0);
	/* Two micro-batches add. */
	grads_of(&e, again, tokens, &targets, 2, got);
	for (int64_t i = 0; i < e.model->n_params; i++)
		CHECK_NEAR(got[i], 2.0 * want[i], 1e-5 + 1e-4 * fabs(want[i]));
	free(want);
	free(got);
	model_session_destroy(&kept);
	model_session_destroy(&again);
	bench_close(&e);
}

static double
loss_at(struct bench *e, struct model_session *s, const int32_t *tokens, const struct kernels_targets *targets, const float *host)
{
	struct kernels_loss_sums sums;

	kernels_upload(e->kernels, e->params, host, e->bytes);
	REQUIRE(model_forward(s, tokens, B, T) == 0);
	REQUIRE(model_loss(s, targets, 1, NULL, &sums) == 0);
	return sums.loss / ROWS;
}

/*
 * Along a random direction d in one tensor at a time, (L(p + h d) - L(p - h d)) / 2h = <gradient, d>. Losses
 * have a rounding error of about 1e-7, so with h = 1e-2 it becomes 1e-5; the error from the third derivative
 * is below the tolerance.
 */
static void
test_finite_differences(const struct model_config *cfg)
{
	struct bench e;
	struct model_session *s;
	struct labels labels;
	struct kernels_targets targets = targets_make(&labels);
	int32_t tokens[ROWS];
	float *grads, *moved;

	bench_open(&e, cfg, 1);
	s = session_open(&e, B, T, true, false);
	grads = malloc(e.bytes);
	moved = malloc(e.bytes);
	REQUIRE(grads != NULL && moved != NULL);
	tokens_fill(tokens, ROWS);
	grads_of(&e, s, tokens, &targets, 1, grads);
	for (int i = 0; i < e.model->n_tensors; i++) {
		const struct model_tensor *t = &e.model->tensors[i];
		double slope = 0, length = 0, h, up, down, found;
		uint32_t start = chance;

		for (int64_t j = 0; j < t->n_elements; j++) {
			double d = next_chance() % 2 == 0 ? 1 : -1;

			slope += d * grads[t->offset + j];
			length += 1;
		}
		h = 1e-2 / sqrt(length);
		for (int side = 1; side >= -1; side -= 2) {
			memcpy(moved, e.host, e.bytes);
			chance = start;
			for (int64_t j = 0; j < t->n_elements; j++)
				moved[t->offset + j] += (float)((next_chance() % 2 == 0 ? h : -h) * side);
			if (side > 0)
				up = loss_at(&e, s, tokens, &targets, moved);
			else
				down = loss_at(&e, s, tokens, &targets, moved);
		}
		found = (up - down) / (2 * h) / sqrt(length);
		slope /= sqrt(length);
		CHECK_ROW(t->name, fabs(found - slope) <= 1e-4 + 1e-2 * fabs(slope));
		if (!(fabs(found - slope) <= 1e-4 + 1e-2 * fabs(slope)))
			fprintf(stderr, "  difference quotient %.6g, gradient %.6g\n", found, slope);
	}
	free(grads);
	free(moved);
	model_session_destroy(&s);
	bench_close(&e);
}

struct story {
	char text[512];
};

static void
tell(void *arg, char what, int layer)
{
	struct story *story = arg;
	size_t n = strlen(story->text);

	snprintf(story->text + n, sizeof(story->text) - n, "%c%d ", what, layer);
}

static void
need(void *arg, int layer)
{
	tell(arg, 'n', layer);
}

static void
done(void *arg, int layer)
{
	tell(arg, 'd', layer);
}

static void
test_hooks(const struct model_config *cfg)
{
	struct bench e;
	struct model_session *s;
	struct story story = {""};
	const struct model_hooks hooks = {.arg = &story, .need = need, .done = done};
	struct labels labels;
	struct kernels_targets targets = targets_make(&labels);
	struct kernels_loss_sums sums;
	int32_t tokens[ROWS];
	float *d;

	bench_open(&e, cfg, 1);
	s = session_open(&e, B, T, true, false);
	model_session_hooks(s, &hooks);
	tokens_fill(tokens, ROWS);
	REQUIRE((d = kernels_alloc(e.kernels, e.bytes)) != NULL);
	REQUIRE(model_forward(s, tokens, B, T) == 0);
	CHECK_STR(story.text, "n-1 n0 n1 n2 n3 ");
	story.text[0] = '\0';
	REQUIRE(model_loss(s, &targets, 1, d, &sums) == 0);
	model_backward(s, d);
	CHECK_STR(story.text, cfg->tied ? "n-1 n3 d3 n2 d2 n1 d1 n0 d0 d-1 " : "n3 n3 d3 n2 d2 n1 d1 n0 d0 d-1 ");
	kernels_free(e.kernels, d);
	model_session_destroy(&s);
	bench_close(&e);
}

static void
test_refused(const struct model_config *cfg)
{
	struct bench e;
	struct model_session *s = NULL;
	int32_t tokens[ROWS + 1];
	struct err_note note = {0};
	const struct {
		const char *what;
		struct model_session_options o;
	} rows[] = {
		{"T past the context", {.max_batch = 1, .max_tokens = 12}},
		{"no T", {.max_batch = 1}},
		{"no B", {.max_tokens = 1}},
		{"B*T past int", {.max_batch = INT64_C(1) << 40, .max_tokens = 11}},
	};

	bench_open(&e, cfg, 1);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		CHECK_ROW(rows[i].what, model_session_new(&s, e.model, e.kernels, &rows[i].o, &note) == ERR_RANGE);
		CHECK_ROW(rows[i].what, s == NULL && note.expected[0] != '\0' && note.found[0] != '\0');
	}
	s = session_open(&e, B, T, false, false);
	tokens_fill(tokens, ROWS + 1);
	/* short sequences may use all rows of the session */
	CHECK(model_forward(s, tokens, ROWS, 1) == 0);
	CHECK(model_forward(s, tokens, ROWS + 1, 1) == ERR_RANGE);
	CHECK(model_forward(s, tokens, B + 1, T) == ERR_RANGE);
	CHECK(model_forward(s, tokens, 1, T + 1) == ERR_RANGE);
	CHECK(model_forward(s, tokens, 0, T) == ERR_RANGE);
	tokens[ROWS - 1] = V;
	CHECK(model_forward(s, tokens, B, T) == ERR_RANGE);
	tokens[ROWS - 1] = -1;
	CHECK(model_forward(s, tokens, B, T) == ERR_RANGE);
	tokens[ROWS - 1] = V - 1;
	CHECK(model_forward(s, tokens, B, T) == 0);
	model_session_destroy(&s);
	bench_close(&e);
}

static void
test_targets_refused(void)
{
	const struct model_config *cfg = &configs[0];
	struct labels l;
	struct kernels_targets t;
	struct err_note note;
	static float dense[ROWS * V];

	t = targets_make(&l);
	CHECK(model__targets_check(cfg, &t, ROWS, NULL) == 0);

#define REFUSED(change)							\
	do {								\
		t = targets_make(&l);					\
		change;							\
		note = (struct err_note){0};				\
		CHECK_ROW(#change, model__targets_check(cfg, &t, ROWS, &note) == ERR_RANGE);	\
		CHECK_ROW(#change, note.name[0] != '\0' && note.expected[0] != '\0' && note.found[0] != '\0');	\
	} while (0)

	REFUSED(t.n_rows--);
	REFUSED(l.next[3] = V);
	REFUSED(l.next[3] = -1);
	REFUSED(l.weight[3] = 1.5f);
	REFUSED(l.weight[3] = NAN);
	REFUSED(t.offsets = NULL);
	REFUSED(l.ids[6] = V);
	REFUSED(l.ids[7] = l.ids[6]);
	REFUSED(l.values[6] = NAN);
	REFUSED(l.values[6] = -0.1f);
	REFUSED(l.values[6] = 0.9f);
	REFUSED(l.offsets[3] = l.offsets[4] + 1);
	REFUSED(l.values[6] = l.values[7] = 0; t.residual = KERNELS_RESIDUAL_RENORMALISE);
	REFUSED(t.offsets = NULL; t.dense = dense);
#undef REFUSED
	/* A row with weight 0 may have any values, also NaN: they are not read. */
	t = targets_make(&l);
	l.values[0] = NAN;
	CHECK(model__targets_check(cfg, &t, ROWS, NULL) == 0);
}

/* The scores of a teacher's pass equal the losses of a training pass. */
static void
test_labels(const struct model_config *cfg)
{
	struct bench e;
	struct model_session *s;
	struct kernels_label_spec spec = {.score = true, .kind = KERNELS_LABEL_TOPK, .n = V, .tau = 1};
	int32_t tokens[ROWS], next[ROWS], rank[ROWS], ids[ROWS * V];
	float hard[ROWS], nats[ROWS], values[ROWS * V];
	const uint64_t seqs[B] = {5, UINT64_C(1) << 40, 7};
	struct kernels_labels out = {.loss_nats = nats, .rank = rank, .ids = ids, .values = values};
	struct kernels_targets targets = {.n_rows = ROWS, .next = next, .row_hard = hard};
	struct kernels_loss_sums sums;

	bench_open(&e, cfg, 1);
	s = session_open(&e, B, T, false, false);
	tokens_fill(tokens, ROWS);
	tokens_fill(next, ROWS);
	REQUIRE(model_forward(s, tokens, B, T) == 0);
	REQUIRE(model_loss(s, &targets, 1, NULL, &sums) == 0);
	REQUIRE(model_labels(s, &spec, next, seqs, &out) == 0);
	for (int i = 0; i < ROWS; i++) {
		double sum = 0;

		CHECK_NEAR(nats[i], hard[i], 1e-5);
		REQUIRE(rank[i] >= 0 && rank[i] < V);
		CHECK(ids[i * V + rank[i]] == next[i]);
		CHECK_NEAR(values[i * V + rank[i]], -hard[i], 1e-5);
		for (int j = 0; j < V; j++)
			sum += exp(values[i * V + j]);
		CHECK_NEAR(sum, 1, 1e-5);
	}
	CHECK(model_labels(s, &spec, NULL, seqs, &out) == ERR_RANGE);
	spec.n = V + 1;
	CHECK(model_labels(s, &spec, next, seqs, &out) == ERR_RANGE);
	spec.n = V;
	spec.tau = 0;
	CHECK(model_labels(s, &spec, next, seqs, &out) == ERR_RANGE);
	spec.tau = 1;
	next[2] = V;
	CHECK(model_labels(s, &spec, next, seqs, &out) == ERR_RANGE);
	model_session_destroy(&s);
	bench_close(&e);
}

/* The teacher's sampled counts as targets: N draws a row, counts / N. */
struct sampled {
	int32_t n_unique[ROWS], ids[ROWS * V], counts[ROWS * V], flat_ids[ROWS * V];
	float values[ROWS * V];
	int64_t offsets[ROWS + 1];
};

static void
sample(struct model_session *s, uint32_t seed, int n, struct sampled *d, struct kernels_targets *targets)
{
	const struct kernels_label_spec spec = {.kind = KERNELS_LABEL_SAMPLED, .n = n, .tau = 1, .seed = seed};
	const uint64_t seqs[B] = {11, 12, 13};
	struct kernels_labels out = {.n_unique = d->n_unique, .ids = d->ids, .counts = d->counts};
	int64_t at = 0;

	REQUIRE(model_labels(s, &spec, NULL, seqs, &out) == 0);
	for (int i = 0; i < ROWS; i++) {
		d->offsets[i] = at;
		for (int j = 0; j < d->n_unique[i]; j++, at++) {
			d->flat_ids[at] = d->ids[i * n + j];
			d->values[at] = (float)d->counts[i * n + j] / (float)n;
		}
	}
	d->offsets[ROWS] = at;
	targets->offsets = d->offsets;
	targets->ids = d->flat_ids;
	targets->values = d->values;
}

/* With a model's own labels the loss is their entropy and the gradient 0; with shifted labels it is not. */
static void
test_own_teacher(const struct model_config *cfg)
{
	struct bench e;
	struct model_session *s;
	const struct kernels_label_spec spec = {.kind = KERNELS_LABEL_DENSE, .tau = 1};
	const uint64_t seqs[B] = {0, 1, 2};
	int32_t tokens[ROWS], next[ROWS];
	float logs[ROWS * V], dense[ROWS * V], weight[ROWS], *d, *grads;
	struct kernels_labels out = {.values = logs};
	struct kernels_targets targets = {.n_rows = ROWS, .next = next, .weight = weight, .dense = dense};
	struct kernels_loss_sums sums;
	double entropy = 0, largest = 0;

	bench_open(&e, cfg, 1);
	s = session_open(&e, B, T, true, false);
	tokens_fill(tokens, ROWS);
	tokens_fill(next, ROWS);
	grads = malloc(e.bytes);
	REQUIRE((d = kernels_alloc(e.kernels, e.bytes)) != NULL && grads != NULL);
	REQUIRE(model_forward(s, tokens, B, T) == 0);
	REQUIRE(model_labels(s, &spec, NULL, seqs, &out) == 0);
	for (int i = 0; i < ROWS * V; i++) {
		dense[i] = expf(logs[i]);
		entropy -= dense[i] * logs[i];
	}
	for (int i = 0; i < ROWS; i++)
		weight[i] = 1;
	REQUIRE(model_loss(s, &targets, 1.0f / ROWS, d, &sums) == 0);
	model_backward(s, d);
	kernels_download(e.kernels, grads, d, e.bytes);
	for (int64_t i = 0; i < e.model->n_params; i++)
		if (!(fabs(grads[i]) <= largest))
			largest = fabs(grads[i]);
	CHECK_NEAR(sums.loss / ROWS, entropy / ROWS, 1e-5);
	CHECK_NEAR(sums.soft - sums.entropy, 0, 1e-4);
	CHECK(largest <= 2e-6);

	/* Labels shifted by one row. */
	memmove(dense + V, dense, sizeof(dense) - V * sizeof(float));
	kernels_zero(e.kernels, d, e.bytes);
	REQUIRE(model_loss(s, &targets, 1.0f / ROWS, d, &sums) == 0);
	model_backward(s, d);
	kernels_download(e.kernels, grads, d, e.bytes);
	largest = 0;
	for (int64_t i = 0; i < e.model->n_params; i++)
		if (fabs(grads[i]) > largest)
			largest = fabs(grads[i]);
	CHECK(sums.loss / ROWS > entropy / ROWS + 0.05);
	CHECK(largest > 1e-2);
	kernels_free(e.kernels, d);
	free(grads);
	model_session_destroy(&s);
	bench_close(&e);
}

/*
 * Sampled labels are unbiased: over many label seeds the mean gradient equals that of dense labels within its
 * standard error. Student and teacher differ: the teacher has the first values of another seed.
 */
static void
test_sampled_mean(const struct model_config *cfg)
{
	enum { SEEDS = 400, DRAWS = 8 };
	struct bench student, teacher;
	struct model_session *s, *u;
	const struct kernels_label_spec spec = {.kind = KERNELS_LABEL_DENSE, .tau = 1};
	const uint64_t seqs[B] = {11, 12, 13};
	static struct sampled drawn;
	int32_t tokens[ROWS], next[ROWS];
	float logs[ROWS * V], dense[ROWS * V], weight[ROWS], *want, *got;
	double *sum, *squares, worst = 0;
	struct kernels_labels out = {.values = logs};
	struct kernels_targets targets = {.n_rows = ROWS, .next = next, .weight = weight};
	int64_t beyond = 0, moving = 0;

	bench_open(&student, cfg, 1);
	bench_open(&teacher, cfg, 1);
	model_init(teacher.model, 99, 0, teacher.model->n_params, teacher.host);
	kernels_upload(teacher.kernels, teacher.params, teacher.host, teacher.bytes);
	s = session_open(&student, B, T, true, false);
	u = session_open(&teacher, B, T, false, false);
	want = malloc(student.bytes);
	got = malloc(student.bytes);
	sum = calloc((size_t)student.model->n_params, sizeof(*sum));
	squares = calloc((size_t)student.model->n_params, sizeof(*squares));
	REQUIRE(want != NULL && got != NULL && sum != NULL && squares != NULL);
	tokens_fill(tokens, ROWS);
	tokens_fill(next, ROWS);
	for (int i = 0; i < ROWS; i++)
		weight[i] = 2.0f / 3;
	REQUIRE(model_forward(u, tokens, B, T) == 0);
	REQUIRE(model_labels(u, &spec, NULL, seqs, &out) == 0);
	for (int i = 0; i < ROWS * V; i++)
		dense[i] = expf(logs[i]);
	targets.dense = dense;
	grads_of(&student, s, tokens, &targets, 1, want);
	targets.dense = NULL;
	for (uint32_t seed = 0; seed < SEEDS; seed++) {
		sample(u, seed, DRAWS, &drawn, &targets);
		grads_of(&student, s, tokens, &targets, 1, got);
		for (int64_t i = 0; i < student.model->n_params; i++) {
			sum[i] += got[i];
			squares[i] += (double)got[i] * got[i];
		}
	}
	for (int64_t i = 0; i < student.model->n_params; i++) {
		double mean = sum[i] / SEEDS, error = sqrt(fmax(squares[i] / SEEDS - mean * mean, 0) / (SEEDS - 1));
		double z = fabs(mean - want[i]) / (error + 1e-7);

		moving += error > 1e-6;
		beyond += z > 3;
		if (!(z <= worst))
			worst = z;
	}
	/*
	 * 0.27% of normal deviations are beyond 3, and none of a few thousand beyond 6. Elements of one
	 * tensor are correlated, hence 2%.
	 */
	CHECK(moving > student.model->n_params / 2);
	CHECK((double)beyond <= 0.02 * (double)student.model->n_params);
	CHECK(worst <= 6);
	free(want);
	free(got);
	free(sum);
	free(squares);
	model_session_destroy(&s);
	model_session_destroy(&u);
	bench_close(&student);
	bench_close(&teacher);
}

/* Computes logits and gradients with this backend into out [ROWS * V + n_params]; false: not built in. */
static bool
result_of(const struct bench *e, enum kernels_backend backend, enum kernels_dtype dtype, int threads, const int32_t *tokens,
    const struct kernels_targets *targets, float *out)
{
	const struct kernels_options options = {.backend = backend, .dtype = dtype, .threads = threads};
	const struct model_session_options o = {.max_batch = B, .max_tokens = T, .training = true};
	struct kernels *k = NULL;
	struct model *m = NULL;
	struct model_session *s = NULL;
	struct kernels_loss_sums sums = {0};
	int64_t n = e->model->n_params;
	float *wide, *d;
	void *params;

	if (kernels_new(&k, &options, NULL) != 0)
		return false;		/* a build without it */
	k->small = 0;
	REQUIRE(model_new(&m, &e->model->config, NULL) == 0);
	wide = kernels_alloc(k, e->bytes);
	params = kernels_alloc(k, e->bytes);
	d = kernels_alloc(k, e->bytes);
	REQUIRE(wide != NULL && params != NULL && d != NULL);
	kernels_upload(k, wide, e->host, e->bytes);
	kernels_convert(k, params, kernels_dtype(k), wide, DTYPE_F32, n);
	model_bind(m, params, kernels_dtype(k));
	REQUIRE(model_session_new(&s, m, k, &o, NULL) == 0);
	logits_of(s, tokens, B, T, out);
	REQUIRE(model_loss(s, targets, 1.0f / ROWS, d, &sums) == 0);
	model_backward(s, d);
	kernels_download(k, out + ROWS * V, d, e->bytes);
	model_session_destroy(&s);
	kernels_free(k, wide);
	kernels_free(k, params);
	kernels_free(k, d);
	model_destroy(&m);
	kernels_destroy(&k);
	return true;
}

/* The distance of two arrays relative to the norm of the second. */
static double
distance(const float *a, const float *b, int64_t n)
{
	double apart = 0, size = 0;

	for (int64_t i = 0; i < n; i++) {
		apart += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
		size += (double)b[i] * (double)b[i];
	}
	return sqrt(apart / size);
}

/*
 * Each backend and dtype gives nearly the results of the first, and the same bits with one thread and with
 * three. cuda: tests the backend cuda, which must exist.
 */
static void
test_backends(const struct model_config *cfg, bool cuda)
{
	static const struct {
		enum kernels_backend backend;
		enum kernels_dtype dtype;
		double tol;
	} rows[] = {
		{KERNELS_BACKEND_OPENBLAS, KERNELS_DTYPE_FP32, 0}, {KERNELS_BACKEND_ONEDNN, KERNELS_DTYPE_FP32, 1e-5},
		{KERNELS_BACKEND_OPENBLAS, KERNELS_DTYPE_BF16, 0.2}, {KERNELS_BACKEND_ONEDNN, KERNELS_DTYPE_BF16, 0.2},
		{KERNELS_BACKEND_CUDA, KERNELS_DTYPE_FP32, 1e-5}, {KERNELS_BACKEND_CUDA, KERNELS_DTYPE_BF16, 0.2},
	};
	struct bench e;
	struct labels labels;
	struct kernels_targets targets = targets_make(&labels);
	const char *name = model_family_name(cfg->family);
	int32_t tokens[ROWS];
	float *first, *got, *again;
	size_t bytes;

	bench_open(&e, cfg, 1);
	tokens_fill(tokens, ROWS);
	bytes = ROWS * V * sizeof(float) + e.bytes;
	first = malloc(bytes);
	got = malloc(bytes);
	again = malloc(bytes);
	REQUIRE(first != NULL && got != NULL && again != NULL);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (i > 0 && (rows[i].backend == KERNELS_BACKEND_CUDA) != cuda)
			continue;
		if (!result_of(&e, rows[i].backend, rows[i].dtype, 1, tokens, &targets, got)) {
			CHECK_ROW("no plug-in", !cuda);
			continue;
		}
		result_of(&e, rows[i].backend, rows[i].dtype, 3, tokens, &targets, again);
		CHECK_ROW(name, memcmp(got, again, bytes) == 0);
		if (i == 0)
			memcpy(first, got, bytes);
		CHECK_ROW(name, distance(got, first, ROWS * V) <= rows[i].tol);
		CHECK_ROW(name, distance(got + ROWS * V, first + ROWS * V, e.model->n_params) <= rows[i].tol);
	}
	free(first);
	free(got);
	free(again);
	bench_close(&e);
}

/* A small model of the family that uses all its options: windows shorter than T, factors other than 1. */
static struct model_config
family_config(enum model_family family)
{
	const struct model_traits *t = model_traits(family);
	struct model_config c = {.family = family, .vocab_size = V, .context = 11, .d_model = 24, .n_layers = 3, .n_heads = 3,
	    .n_kv_heads = t->whole_heads ? 3 : 1, .head_dim = 8, .d_ff = 21};

	model_family_start(&c);
	/* its scores are not scaled */
	c.initializer_range = family == MODEL_FAMILY_GPT_NEO ? 0.15f : 0.3f;
	c.window = c.window > 0 ? 3 : 0;
	c.attention_cap = c.attention_cap > 0 ? 3 : 0;
	c.logit_cap = c.logit_cap > 0 ? 4 : 0;
	c.local_theta = c.local_theta > 0 ? 50 : 0;
	if (family == MODEL_FAMILY_OPT)
		c.activation = MODEL_GELU;	/* a ReLU is not differentiable at 0 */
	if (family == MODEL_FAMILY_SMOLLM3)
		c.nope_layers[0] = 2;
	if (family == MODEL_FAMILY_GRANITE) {
		c.embed_scale = 1.5f;
		c.residual_scale = 0.6f;
		c.output_scale = 0.5f;
	}
	if (family == MODEL_FAMILY_PHI3) {
		c.rotary_dim = 6;
		c.rope_scaling.type = MODEL_ROPE_LONGROPE;
		c.rope_scaling.original_context = 11;	/* beyond it all positions have other rotations */
		for (int i = 0; i < 3; i++) {
			c.rope_scaling.short_factor[i] = 1 + (float)i;
			c.rope_scaling.long_factor[i] = 2 + (float)i;
		}
	}
	return c;
}

/*
 * Document [3, 6) of a sequence of 8 with two sets of neighbours: its losses have the same bits, and equal
 * those of the document alone up to the order of sums. The token after its end id, 1, has no loss.
 */
static void
test_documents(const struct model_config *cfg)
{
	enum { END = 1, LEN = 8 };
	static const struct { int32_t tokens[LEN + 1]; } rows[2] = {{{5, 6, END, 7, 8, END, 9, 10, 11}}, {{END, 3, END, 7, 8, END, 4, END, 2}}};
	static const int32_t want[LEN] = {0, 0, 0, 3, 3, 3, 6, 6}, other[LEN] = {0, 1, 1, 3, 3, 3, 6, 6};
	int32_t next[LEN], starts[LEN];
	float hard[2][LEN], alone[3];
	struct kernels_loss_sums sums;
	struct bench e;
	struct model_session *s;

	bench_open(&e, cfg, 1);
	s = session_open(&e, 1, LEN, false, false);
	CHECK(model_session_documents(s, END) == 0);
	for (int i = 0; i < 2; i++) {
		struct kernels_targets targets = {.n_rows = LEN, .next = next, .row_hard = hard[i]};

		model_document_starts(rows[i].tokens, LEN, END, starts);
		CHECK(memcmp(starts, i == 0 ? want : other, sizeof(want)) == 0);
		memcpy(next, rows[i].tokens + 1, sizeof(next));
		model_document_targets(rows[i].tokens, LEN, END, next);
		REQUIRE(model_forward(s, rows[i].tokens, 1, LEN) == 0 && model_loss(s, &targets, 0, NULL, &sums) == 0);
		CHECK(sums.rows == (i == 0 ? 6 : 4) && hard[i][2] == 0 && hard[i][5] == 0);
	}
	CHECK(memcmp(hard[0] + 3, hard[1] + 3, 3 * sizeof(hard[0][0])) == 0);
	CHECK(model_session_documents(s, -1) == 0);
	REQUIRE(model_forward(s, rows[0].tokens + 3, 1, 3) == 0);
	REQUIRE(model_loss(s, &(struct kernels_targets){.n_rows = 3, .next = rows[0].tokens + 4, .row_hard = alone}, 0, NULL, &sums) == 0);
	for (int i = 0; i < 2; i++)
		CHECK_NEAR(hard[0][3 + i], alone[i], 1e-5);
	REQUIRE(model_forward(s, rows[0].tokens, 1, LEN) == 0);
	REQUIRE(model_loss(s, &(struct kernels_targets){.n_rows = LEN, .next = rows[0].tokens + 1, .row_hard = hard[1]}, 0, NULL, &sums) == 0);
	CHECK(hard[1][3] != hard[0][3]);		/* without isolation the neighbours have an effect */
	model_session_destroy(&s);
	bench_close(&e);
}

/* With "cuda": models of all families on the plug-in that SALT_CUDA_PLUGIN names. */
int
main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "cuda") == 0) {
		/* "few" tests every third family, for runs with another order of the device's threads */
		int by = argc > 2 && strcmp(argv[2], "few") == 0 ? 3 : 1;

		for (int i = 0; i < MODEL_FAMILY_COUNT; i += by) {
			const struct model_config cfg = family_config((enum model_family)i);

			test_backends(&cfg, true);
		}
		return check_done();
	}
	for (size_t i = 0; i < N_CONFIGS; i++) {
		test_rows_alone(&configs[i]);
		test_gradients_zero(&configs[i]);
		test_recompute(&configs[i]);
		test_finite_differences(&configs[i]);
		test_hooks(&configs[i]);
		test_refused(&configs[i]);
		test_labels(&configs[i]);
		test_own_teacher(&configs[i]);
		test_sampled_mean(&configs[i]);
		test_documents(&configs[i]);
	}
	test_targets_refused();
	for (int i = 0; i < MODEL_FAMILY_COUNT; i++) {
		const struct model_config cfg = family_config((enum model_family)i);

		test_rows_alone(&cfg);
		test_gradients_zero(&cfg);
		test_recompute(&cfg);
		test_finite_differences(&cfg);
		test_hooks(&cfg);
		test_labels(&cfg);
		test_backends(&cfg, false);
		test_documents(&cfg);
	}
	return check_done();
}
