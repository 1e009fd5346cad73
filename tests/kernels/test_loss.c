/* SPDX-License-Identifier: Apache-2.0 */
/* The fused output layer compared with its reference; finite differences, and means of samples. */
#include "fixture.h"
#include "reference.h"

#define MAX_THREADS 3

static struct kernels *contexts[MAX_THREADS];

/* A problem of m rows: teacher probabilities t [m, v], and sparse labels with up to k ids per row. */
struct problem {
	int64_t m, c, v;
	float *h, *w_out, *weight, *loss_weight, *dense, *values, *row_loss, *row_hard;
	int32_t *next, *ids;
	int64_t *offsets;
};

static void
softmax(float *t, const float *u, int64_t v)
{
	double sum = 0;

	for (int64_t i = 0; i < v; i++)
		sum += exp((double)u[i]);
	for (int64_t i = 0; i < v; i++)
		t[i] = (float)(exp((double)u[i]) / sum);
}

static struct problem
make(int64_t m, int64_t c, int64_t v, int64_t k)
{
	struct problem p = {.m = m, .c = c, .v = v};
	int64_t n = 0;

	p.h = noise(m * c, 1);
	p.w_out = noise(v * c, 2 / sqrtf((float)c));
	p.weight = room(m);
	p.loss_weight = room(m);
	p.dense = noise(m * v, 1.5f);
	p.values = room(m * k);
	p.row_loss = room(m);
	p.row_hard = room(m);
	p.next = malloc((size_t)m * sizeof(*p.next));
	p.ids = malloc((size_t)(m * k) * sizeof(*p.ids));
	p.offsets = malloc((size_t)(m + 1) * sizeof(*p.offsets));
	REQUIRE(p.next != NULL && p.ids != NULL && p.offsets != NULL);
	p.offsets[0] = 0;
	for (int64_t i = 0; i < m; i++) {
		float *t = p.dense + i * v;
		int64_t want = k > v ? v : 1 + below((int32_t)k), have = 0;

		softmax(t, t, v);
		p.next[i] = i == 0 ? (int32_t)v - 1 : below((int32_t)v);
		p.weight[i] = i % 3 == 0 ? 0 : i % 3 == 1 ? 1 : 0.667f;
		p.loss_weight[i] = i % 5 == 4 ? 0 : 0.25f * (float)(i % 5 + 1) * (float)(i % 5 + 1);
		/* the first ids with enough mass, so gaps vary */
		for (int64_t id = 0; id < v && have < want; id++) {
			if (t[id] * (float)v < 0.5f && v - id > want - have)
				continue;
			p.ids[n] = (int32_t)id;
			p.values[n++] = t[id];
			have++;
		}
		p.offsets[i + 1] = n;
	}
	return p;
}

static void
unmake(struct problem *p, const char *what)
{
	free(p->next);
	free(p->ids);
	free(p->offsets);
	fixture_close(what);
}

enum form { FORM_LM, FORM_DENSE, FORM_TRUE_TOKEN, FORM_GHOST, FORM_RENORMALISE, FORM_COUNT };
static const char *const form_names[FORM_COUNT] = {"lm", "dense", "true_token", "ghost", "renormalise"};

enum { RULES = KERNELS_TOKEN_WEIGHT_MARGIN + 1 };

static struct kernels_targets
targets_of(const struct problem *p, enum form form)
{
	struct kernels_targets t = {.n_rows = p->m, .next = p->next, .row_loss = p->row_loss, .row_hard = p->row_hard};

	if (form == FORM_LM)
		return t;
	t.weight = p->weight;
	if (form == FORM_DENSE) {
		t.dense = p->dense;
		return t;
	}
	t.offsets = p->offsets;
	t.ids = p->ids;
	t.values = p->values;
	t.residual = form == FORM_TRUE_TOKEN ? KERNELS_RESIDUAL_TRUE_TOKEN :
	    form == FORM_GHOST ? KERNELS_RESIDUAL_GHOST : KERNELS_RESIDUAL_RENORMALISE;
	return t;
}

static struct kernels_loss_sums
run(struct kernels *k, const struct problem *p, const struct kernels_targets *t, float scale, float *d_h, float *d_w)
{
	struct tensor h = t2(p->h, p->m, p->c), w = t2(p->w_out, p->v, p->c), th = t2(d_h, p->m, p->c), tw = t2(d_w, p->v, p->c);
	struct kernels_loss_sums sums;

	kernels_output_loss(k, &h, &w, NULL, t, scale, &th, &tw, &sums);
	return sums;
}

static void
check_sums(const char *what, const struct kernels_loss_sums *a, const struct kernels_loss_sums *b, double tol)
{
	CHECK_ROW(what, a->rows == b->rows && a->kd_rows == b->kd_rows && a->correct == b->correct && a->finite == b->finite);
	CHECK_ROW(what, fabs(a->loss - b->loss) <= tol * (b->loss + (double)b->rows));
	CHECK_ROW(what, fabs(a->hard - b->hard) <= tol * (b->hard + (double)b->rows));
	CHECK_ROW(what, fabs(a->soft - b->soft) <= tol * (b->soft + (double)b->rows));
	CHECK_ROW(what, fabs(a->entropy - b->entropy) <= tol * (b->entropy + 1e-6));
	CHECK_ROW(what, a->loss_weight == b->loss_weight && a->kd_loss_weight == b->kd_loss_weight);
	CHECK_ROW(what, fabs(a->weight - b->weight) <= tol * (b->weight + (double)b->kd_rows));
}

static void
against_reference(int64_t m, int64_t c, int64_t v, int64_t k, int rules)
{
	for (int test = 0; test < 2 * FORM_COUNT * rules; test++) {
		int form = test / 2 % FORM_COUNT;
		struct problem p = make(m, c, v, k);
		struct kernels_targets t = targets_of(&p, (enum form)form);
		float *d_h = room(m * c), *d_w = room(v * c), *start = noise(v * c, 0.01f), *want_h = room(m * c), *want_w = copy_of(start, v * c);
		float *want_loss = room(m), *want_hard = room(m), *first_h = NULL, *first_w = NULL;
		struct kernels_loss_sums want, got, evaluated;
		struct kernels_targets tr;

		for (int64_t i = 5; i < m; i += 7)
			p.next[i] = KERNELS_NO_TARGET;
		t.token_weight = (enum kernels_token_weight)(test / 2 / FORM_COUNT);
		t.loss_weight = test % 2 == 1 ? p.loss_weight : NULL;
		tr = t;
		tr.row_loss = want_loss;
		tr.row_hard = want_hard;
		kernels_output_loss_ref(p.h, p.w_out, &tr, 0.25f, want_h, want_w, &want, c, v);
		for (int threads = 1; threads <= FIXTURE_TEAMS; threads++) {
			memcpy(d_w, start, (size_t)(v * c) * sizeof(float));
			got = run(contexts[threads - 1], &p, &t, 0.25f, d_h, d_w);
			check_sums(form_names[form], &got, &want, 1e-6);
			if (first_h == NULL) {
				first_h = copy_of(d_h, m * c);
				first_w = copy_of(d_w, v * c);
			}
			check_same(form_names[form], d_h, first_h, m * c);
			check_same(form_names[form], d_w, first_w, v * c);
			evaluated = run(contexts[threads - 1], &p, &t, 1, NULL, NULL);
			CHECK_ROW("evaluation alone", evaluated.loss == got.loss && evaluated.soft == got.soft && evaluated.correct == got.correct);
		}
		check_close(form_names[form], d_h, want_h, m * c, 3e-6);
		check_close(form_names[form], d_w, want_w, v * c, 3e-6);
		check_close(form_names[form], p.row_loss, want_loss, m, 1e-6);
		check_close(form_names[form], p.row_hard, want_hard, m, 1e-6);
		unmake(&p, form_names[form]);
	}
}

/* Loss weights of 1 give the same bits as none; rows of loss weight 0 equal rows without a target. */
static void
loss_weights(void)
{
	for (int form = 0; form < FORM_COUNT; form++) {
		struct problem p = make(70, 33, 129, 12);
		struct kernels_targets t = targets_of(&p, (enum form)form);
		float *d_h = room(p.m * p.c), *d_w = room(p.v * p.c), *want_h = room(p.m * p.c), *want_w = room(p.v * p.c);
		struct kernels_loss_sums got, want = run(contexts[1], &p, &t, 0.25f, want_h, want_w);

		for (int64_t i = 0; i < p.m; i++)
			p.loss_weight[i] = 1;
		for (int masked = 0; masked < 2; masked++) {
			t.loss_weight = p.loss_weight;
			memset(d_w, 0, (size_t)(p.v * p.c) * sizeof(float));
			got = run(contexts[1], &p, &t, 0.25f, d_h, d_w);
			CHECK_ROW(form_names[form], got.loss == want.loss && got.hard == want.hard && got.soft == want.soft && got.entropy == want.entropy &&
			    got.weight == want.weight && got.correct == want.correct && got.rows == want.rows && got.loss_weight == (double)got.rows);
			check_same("weights: d_h", d_h, want_h, p.m * p.c);
			check_same("weights: d_w", d_w, want_w, p.v * p.c);
			for (int64_t i = 3; masked == 0 && i < p.m; i += 4) {
				p.loss_weight[i] = 0;
				p.next[i] = KERNELS_NO_TARGET;
			}
			t.loss_weight = NULL;
			memset(want_w, 0, (size_t)(p.v * p.c) * sizeof(float));
			want = run(contexts[1], &p, &t, 0.25f, want_h, want_w);
			for (int64_t i = 3; masked == 0 && i < p.m; i += 4)
				p.next[i] = 1;
		}
		unmake(&p, "loss_weights");
	}
}

/*
 * d loss / d h along random directions, compared with differences of the fp64 loss. With a token_weight the
 * row weights are kept constant in the differences, because no gradient goes through a weight.
 */
static void
finite_differences(void)
{
	int zero[RULES] = {0}, part[RULES] = {0};

	for (int test = 0; test < FORM_COUNT * RULES; test++) {
		int form = test % FORM_COUNT, rule = test / FORM_COUNT;
		struct problem p = make(9, 11, 23, 6);
		struct kernels_targets t = targets_of(&p, (enum form)form);
		float *d_h = room(p.m * p.c), *d_w = room(p.v * p.c), *h0 = copy_of(p.h, p.m * p.c), *w0 = copy_of(p.w_out, p.v * p.c);

		t.token_weight = (enum kernels_token_weight)rule;
		run(contexts[0], &p, &t, 1, d_h, d_w);
		for (int64_t m = 0; form != FORM_LM && m < p.m; m++) {
			float w = (float)kernels_token_weight_ref(p.h, p.w_out, &t, m, p.c, p.v);

			zero[rule] += p.weight[m] > 0 && w == 0;
			part[rule] += w > 0 && w < p.weight[m];
			p.weight[m] = w;
		}
		t.token_weight = KERNELS_TOKEN_WEIGHT_CONSTANT;
		for (int direction = 0; direction < 8; direction++) {
			bool of_h = direction & 1;
			int64_t n = of_h ? p.m * p.c : p.v * p.c;
			float *x = of_h ? p.h : p.w_out, *x0 = of_h ? h0 : w0, *d = of_h ? d_h : d_w, *v = noise(n, 1);
			double step = 1e-3, loss[2], slope = 0, size = 0;

			for (int side = 0; side < 2; side++) {
				for (int64_t i = 0; i < n; i++)
					x[i] = x0[i] + (side == 0 ? -1 : 1) * (float)step * v[i];
				loss[side] = run(contexts[0], &p, &t, 1, NULL, NULL).loss;
			}
			memcpy(x, x0, (size_t)n * sizeof(float));
			for (int64_t i = 0; i < n; i++) {
				slope += (double)d[i] * (double)v[i];
				size += (double)d[i] * (double)d[i];
			}
			CHECK_ROW(form_names[form], fabs((loss[1] - loss[0]) / (2 * step) - slope) <= 2e-3 * sqrt(size));
			if (!(fabs((loss[1] - loss[0]) / (2 * step) - slope) <= 2e-3 * sqrt(size)))
				fprintf(stderr, "  difference %g slope %g\n", (loss[1] - loss[0]) / (2 * step), slope);
		}
		unmake(&p, form_names[form]);
	}
	CHECK(part[KERNELS_TOKEN_WEIGHT_TEACHER_CONFIDENCE] > 0 && part[KERNELS_TOKEN_WEIGHT_MARGIN] > 0);
	CHECK(zero[KERNELS_TOKEN_WEIGHT_MARGIN] > 0);
}

/* With the student as its own teacher KL and gradient are 0 in every form; with shifted labels not. */
static void
teacher_is_student(void)
{
	struct problem p = make(FIXTURE_MIRROR ? 7 : 40, 16, 33, 40);
	float *logits = noise(p.v, 1), *d_h = room(p.m * p.c), *d_w = room(p.v * p.c), *moved = room(p.m * p.v);

	for (int64_t i = 0; i < p.m; i++) {
		for (int64_t v = 0; v < p.v; v++) {
			double z = 0;

			for (int64_t j = 0; j < p.c; j++)
				z += (double)p.h[i * p.c + j] * (double)p.w_out[v * p.c + j];
			logits[v] = (float)z;
		}
		softmax(p.dense + i * p.v, logits, p.v);
		p.weight[i] = 1;
	}
	for (int64_t i = 0; i < p.m; i++) {		/* every id is listed: k > v */
		REQUIRE(p.offsets[i + 1] - p.offsets[i] == p.v);
		memcpy(p.values + i * p.v, p.dense + i * p.v, (size_t)p.v * sizeof(float));
		memcpy(moved + i * p.v, p.dense + (i + 1) % p.m * p.v, (size_t)p.v * sizeof(float));
	}
	for (int form = FORM_DENSE; form < FORM_COUNT; form++) {
		struct kernels_targets t = targets_of(&p, (enum form)form);
		struct kernels_loss_sums sums = run(contexts[0], &p, &t, 1, d_h, d_w);
		double largest = 0;

		CHECK_ROW(form_names[form], fabs(sums.soft - sums.entropy) <= 1e-6 * sums.soft);
		CHECK_ROW(form_names[form], fabs(sums.loss - sums.entropy) <= 1e-6 * sums.soft);
		for (int64_t i = 0; i < p.m * p.c; i++)
			largest = fmax(largest, fabs((double)d_h[i]));
		CHECK_ROW(form_names[form], largest < 2e-6);
		if (form == FORM_DENSE)
			t.dense = moved;
		else
			t.values = moved;
		sums = run(contexts[0], &p, &t, 1, d_h, d_w);
		CHECK_ROW("labels moved by one", sums.soft - sums.entropy > 0.1 * (double)p.m);
	}
	unmake(&p, "teacher_is_student");
}

/*
 * The mean gradient with labels drawn by kernels_output_label equals that with dense labels within four
 * standard errors, also with tau. With teacher_confidence it equals the dense one at w (1 - 1/N): for N draws
 * from t, E[t_y' t'] = (1 - 1/N) t_y t + t_y onehot(y) / N.
 */
static void
samples_are_unbiased(enum kernels_token_weight rule)
{
	enum { M = 2000, V = 13, N = 10 };
	float *h = room(M * V), *w = room(V * V), *dense = room(M * V), *values = room(M * N), *d_h = room(M * V), *d_w = room(V * V), *weight = room(M);
	float *u = noise(V, 0.8f), *z = noise(V, 1), *want = room(V);
	static int32_t ids[M * N], counts[M * N], n_unique[M], packed[M * N], next[M];
	static int64_t offsets[M + 1];
	struct tensor th = t2(h, M, V), tw = t2(w, V, V), tdh = t2(d_h, M, V), tdw = t2(d_w, V, V);
	struct kernels_label_spec spec = {.kind = KERNELS_LABEL_SAMPLED, .n = N, .tau = 0.7f, .seed = fixture_seed};
	struct kernels_labels labels = {.ids = ids, .counts = counts, .n_unique = n_unique};
	struct kernels_targets t = {.n_rows = M, .next = next, .weight = weight, .dense = dense, .token_weight = rule};
	struct kernels_loss_sums sums;
	const uint64_t seq = 5;
	double share = rule == KERNELS_TOKEN_WEIGHT_CONSTANT ? 1 : 1 - 1.0 / N;
	int32_t best = 0;

	for (int i = 0; i < V; i++) {
		w[i * V + i] = 1;
		best = u[i] > u[best] ? i : best;
	}
	for (int m = 0; m < M; m++) {
		memcpy(h + m * V, u, V * sizeof(float));
		weight[m] = (float)(share * 2 / 3);
		next[m] = best;
	}
	kernels_output_label(contexts[1], &th, &tw, NULL, &spec, NULL, &seq, 1, M, &labels);
	for (int m = 0; m < M; m++) {
		int total = 0;

		offsets[m + 1] = offsets[m] + n_unique[m];
		for (int i = 0; i < n_unique[m]; i++) {
			packed[offsets[m] + i] = ids[m * N + i];
			values[offsets[m] + i] = (float)counts[m * N + i] / N;
			total += counts[m * N + i];
		}
		CHECK(total == N);
		for (int v = 0; v < V; v++)
			dense[m * V + v] = u[v] / spec.tau;
		softmax(dense + m * V, dense + m * V, V);
		memcpy(h + m * V, z, V * sizeof(float));
	}
	kernels_output_loss(contexts[1], &th, &tw, NULL, &t, 1, &tdh, &tdw, &sums);
	memcpy(want, d_h, V * sizeof(float));
	for (int m = 0; m < M; m++)
		weight[m] = 2.0f / 3;
	t.dense = NULL;
	t.offsets = offsets;
	t.ids = packed;
	t.values = values;
	kernels_output_loss(contexts[1], &th, &tw, NULL, &t, 1, &tdh, &tdw, &sums);
	for (int v = 0; v < V; v++) {
		double mean = 0, square = 0, error;

		for (int m = 0; m < M; m++) {
			mean += (double)d_h[m * V + v] / M;
			square += (double)d_h[m * V + v] * (double)d_h[m * V + v] / M;
		}
		error = sqrt((square - mean * mean) / M);
		CHECK(error > 0 && error < 0.01);
		CHECK_NEAR(mean, want[v], 4 * error + 1e-6);
	}
	fixture_close("samples_are_unbiased");
}

/* A tail so small that 1 - sum would cancel (P_tail near e^-80), and no tail at all. */
static void
ghost_far_out(void)
{
	float h[3] = {0, -80, -81}, w[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1}, d_h[3], d_w[9] = {0}, weight = 1, value = 0.75f;
	struct tensor th = t2(h, 1, 3), tw = t2(w, 3, 3), tdh = t2(d_h, 1, 3), tdw = t2(d_w, 3, 3);
	const int32_t id = 0, next = 0;
	const int64_t offsets[2] = {0, 1};
	struct kernels_targets t = {.n_rows = 1, .next = &next, .weight = &weight, .offsets = offsets, .ids = &id, .values = &value,
	    .residual = KERNELS_RESIDUAL_GHOST};
	struct kernels_loss_sums sums;
	double p1 = 1 / (1 + exp(-1));

	kernels_output_loss(contexts[0], &th, &tw, NULL, &t, 1, &tdh, &tdw, &sums);
	CHECK_NEAR(sums.soft, 0.25 * (80 - log(1 + exp(-1))), 1e-4);
	CHECK_NEAR(d_h[0], 0.25, 1e-6);
	CHECK_NEAR(d_h[1], -0.25 * p1, 1e-6);
	CHECK_NEAR(d_h[2], -0.25 * (1 - p1), 1e-6);
}

/*
 * A bias and a soft cap, compared with the reference, which gets the capped logits as hidden states and the
 * identity as matrix. The gradient of the capped logits is propagated further here.
 */
static void
beside_the_matrix(enum form form, float cap, bool biased)
{
	enum { M = FIXTURE_MIRROR ? 11 : 67 };
	struct problem p = make(M, 11, 23, 5);
	struct kernels_targets t = targets_of(&p, form);
	float *bias = noise(p.v, 1), *y = room(p.m * p.v), *eye = room(p.v * p.v), *d_y = room(p.m * p.v), *d_eye = room(p.v * p.v);
	float *d_h = room(p.m * p.c), *d_w = room(p.v * p.c), *d_b = room(p.v), *first = NULL;
	float *want_h = room(p.m * p.c), *want_w = room(p.v * p.c), *want_b = room(p.v), *row_loss = p.row_loss, *want_loss = room(p.m);
	struct tensor h = t2(p.h, p.m, p.c), w = t2(p.w_out, p.v, p.c), th = t2(d_h, p.m, p.c), tw = t2(d_w, p.v, p.c), b = t1(bias, p.v);
	struct tensor tb = t1(d_b, p.v);
	const struct kernels_output more = {.bias = biased ? &b : NULL, .d_bias = biased ? &tb : NULL, .soft_cap = cap};
	const struct kernels_label_spec spec = {.score = true};
	struct kernels_loss_sums got, want;
	float *nats = room(p.m);
	int32_t rank[M] = {0};
	uint64_t seq = 0;
	struct kernels_labels labels = {.loss_nats = nats, .rank = rank};

	for (int64_t m = 0; m < p.m; m++)
		for (int64_t v = 0; v < p.v; v++) {
			double z = biased ? (double)bias[v] : 0;

			for (int64_t c = 0; c < p.c; c++)
				z += (double)p.h[m * p.c + c] * (double)p.w_out[v * p.c + c];
			y[m * p.v + v] = (float)(cap > 0 ? (double)cap * tanh(z / (double)cap) : z);
			eye[v * p.v + v] = 1;
		}
	t.row_loss = want_loss;
	kernels_output_loss_ref(y, eye, &t, 0.5f, d_y, d_eye, &want, p.v, p.v);
	t.row_loss = row_loss;
	for (int64_t m = 0; m < p.m; m++)
		for (int64_t v = 0; v < p.v; v++) {
			double d = (double)d_y[m * p.v + v], u = cap > 0 ? (double)y[m * p.v + v] / (double)cap : 0;

			d *= 1 - u * u;
			want_b[v] += (float)d;
			for (int64_t c = 0; c < p.c; c++) {
				want_h[m * p.c + c] += (float)(d * (double)p.w_out[v * p.c + c]);
				want_w[v * p.c + c] += (float)(d * (double)p.h[m * p.c + c]);
			}
		}
	for (int threads = 0; threads < FIXTURE_TEAMS; threads++) {
		memset(d_w, 0, (size_t)(p.v * p.c) * sizeof(float));
		memset(d_b, 0, (size_t)p.v * sizeof(float));
		kernels_output_loss(contexts[threads], &h, &w, &more, &t, 0.5f, &th, &tw, &got);
		first = first == NULL ? copy_of(d_w, p.v * p.c) : first;
		check_same("beside: threads", d_w, first, p.v * p.c);
	}
	check_sums("beside", &got, &want, 1e-6);
	check_close("beside: rows", p.row_loss, want_loss, p.m, 2e-6);
	check_close("beside: d_h", d_h, want_h, p.m * p.c, 5e-6);
	check_close("beside: d_w", d_w, want_w, p.v * p.c, 5e-6);
	if (biased)
		check_close("beside: d_bias", d_b, want_b, p.v, 5e-6);
	kernels_output_label(contexts[0], &h, &w, &more, &spec, p.next, &seq, 1, p.m, &labels);
	if (form == FORM_LM)
		check_close("beside: scores", nats, want_loss, p.m, 2e-6);
	unmake(&p, "beside_the_matrix");
}

/* One number that is not finite is found, and its row is reported. */
static void
not_finite(void)
{
	struct problem p = make(5, 4, 7, 3);
	struct kernels_targets t = targets_of(&p, FORM_LM);
	struct kernels_loss_sums sums;

	p.h[2 * p.c + 1] = NAN;
	sums = run(contexts[0], &p, &t, 1, NULL, NULL);
	CHECK(!sums.finite && !isfinite(sums.loss));
	for (int64_t i = 0; i < p.m; i++)
		CHECK(isfinite(p.row_loss[i]) == (i != 2));
	unmake(&p, "not_finite");
}

int
main(void)
{
	fixture_start();
	for (int i = 0; i < MAX_THREADS; i++)
		contexts[i] = fixture_kernels(i + 1);
	against_reference(2, 3, 3, 1, RULES);
	against_reference(7, 3, 5, 4, RULES);
	against_reference(FIXTURE_MIRROR ? 27 : 70, 33, 129, 12, FIXTURE_MIRROR ? 1 : RULES);
	if (!FIXTURE_MIRROR) {				/* many rows; the emulation has small chunks */
		against_reference(67, 9, 32771, 5, 1);	/* more rows than one chunk */
		loss_weights();
		finite_differences();
	}
	teacher_is_student();
	if (!FIXTURE_MIRROR) {
		samples_are_unbiased(KERNELS_TOKEN_WEIGHT_CONSTANT);
		samples_are_unbiased(KERNELS_TOKEN_WEIGHT_TEACHER_CONFIDENCE);
	}
	ghost_far_out();
	for (int form = 0; form < FORM_COUNT; form++) {
		beside_the_matrix((enum form)form, 1.5f, false);
		beside_the_matrix((enum form)form, 0, true);
		beside_the_matrix((enum form)form, 2, true);
	}
	not_finite();
	for (int i = 0; i < MAX_THREADS; i++)
		kernels_destroy(&contexts[i]);
	return check_done();
}
