/* SPDX-License-Identifier: Apache-2.0 */
/* The worked example of the definition, V = 5, six digits: w_out is the identity, so h are the logits. */
#include "engine/kernels/kernels.h"

#include "check.h"

#define V 5
#define TOL 1.5e-6

static struct kernels *k;
static const float z[V] = {1.0f, 0.5f, -0.5f, 2.0f, -1.0f}, u[V] = {2.0f, 1.0f, 0.0f, 1.5f, -2.0f};
static const int32_t y = 1;

struct result {
	struct kernels_loss_sums sums;
	float grad[V];
};

static struct result
run(const float *logits, struct kernels_targets targets)
{
	struct result r;
	float h[V], w[V * V] = {0}, w_grad[V * V] = {0};
	struct tensor th = tensor_2d(h, DTYPE_F32, 1, V), tw = tensor_2d(w, DTYPE_F32, V, V);
	struct tensor d_h = tensor_2d(r.grad, DTYPE_F32, 1, V), d_w = tensor_2d(w_grad, DTYPE_F32, V, V);

	memcpy(h, logits, sizeof(h));
	for (int i = 0; i < V; i++)
		w[i * V + i] = 1;
	targets.n_rows = 1;
	targets.next = &y;
	kernels_output_loss(k, &th, &tw, NULL, &targets, 1, &d_h, &d_w, &r.sums);
	return r;
}

static void
check_grad(const char *what, const struct result *r, const float *want)
{
	for (int v = 0; v < V; v++)
		CHECK_ROW(what, fabs((double)r->grad[v] - (double)want[v]) <= TOL);
}

static void
teacher(const float *logits, double tau, float *t)
{
	double e[V], sum = 0;

	for (int i = 0; i < V; i++)
		sum += e[i] = exp((double)logits[i] / tau);
	for (int i = 0; i < V; i++)
		t[i] = (float)(e[i] / sum);
}

static void
plain_lm(void)
{
	static const float want[V] = {0.213526f, 0.129510f - 1, 0.047644f, 0.580423f, 0.028898f};
	struct result r = run(z, (struct kernels_targets){0});

	CHECK_NEAR(r.sums.loss, 2.043998, TOL);
	CHECK_NEAR(r.sums.hard, 2.043998, TOL);
	CHECK(r.sums.rows == 1 && r.sums.kd_rows == 0 && r.sums.correct == 0 && r.sums.finite);
	check_grad("p - onehot", &r, want);
}

static void
dense(void)
{
	static const struct {
		const char *what;
		double tau, w, soft, loss;
		float grad[V];
	} rows[] = {
		{"tau 0.25", 0.25, 2.0 / 3, 1.435094, 1.638062, {-0.364182f, -0.214405f, 0.047450f, 0.502239f, 0.028897f}},
		{"tau 1", 1, 2.0 / 3, 1.458025, 1.653349, {-0.099749f, -0.319071f, 0.005247f, 0.390412f, 0.023160f}},
		{"tau 1, soft alone", 1, 1, 1.458025, 1.458025, {-0.256386f, -0.043361f, -0.015952f, 0.295407f, 0.020291f}},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		float t[V], w = (float)rows[i].w;
		struct result r;

		teacher(u, rows[i].tau, t);
		r = run(z, (struct kernels_targets){.weight = &w, .dense = t});
		CHECK_NEAR(r.sums.soft, rows[i].soft, TOL);
		CHECK_NEAR(r.sums.loss, rows[i].loss, TOL);
		CHECK_NEAR(r.sums.hard, 2.043998, TOL);
		CHECK(r.sums.kd_rows == 1);
		check_grad(rows[i].what, &r, rows[i].grad);
	}
}

static void
sparse(void)
{
	static const struct {
		const char *what;
		enum kernels_residual residual;
		double loss;
		float grad[V];
	} rows[] = {
		{"true_token", KERNELS_RESIDUAL_TRUE_TOKEN, 1.602346, {-.099749f, -.367205f, .047644f, .390412f, .028898f}},
		{"renormalise", KERNELS_RESIDUAL_RENORMALISE, 1.458971, {-.201447f, -.203823f, .047644f, .328729f, .028898f}},
		{"ghost", KERNELS_RESIDUAL_GHOST, 1.526476, {-.099749f, -.306514f, .009866f, .390412f, .005984f}},
	};
	static const int32_t ids[2] = {0, 3};
	static const int64_t offsets[2] = {0, 2};
	float t[V], kept[2], w = (float)(2.0 / 3);

	teacher(u, 1, t);
	kept[0] = t[0];
	kept[1] = t[3];
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct result r = run(z, (struct kernels_targets){.weight = &w, .offsets = offsets, .ids = ids, .values = kept,
		    .residual = rows[i].residual});

		CHECK_NEAR(r.sums.loss, rows[i].loss, TOL);
		check_grad(rows[i].what, &r, rows[i].grad);
	}
}

static void
sampled(void)
{
	static const float grad[V] = {-.093141f, -.323823f, .007644f, .380423f, .028898f};
	static const float values[4] = {23.0f / 50, 9.0f / 50, 3.0f / 50, 15.0f / 50};
	static const int32_t ids[4] = {0, 1, 2, 3};
	static const int64_t offsets[2] = {0, 4};
	float w = (float)(2.0 / 3);

	for (int residual = KERNELS_RESIDUAL_TRUE_TOKEN; residual <= KERNELS_RESIDUAL_RENORMALISE; residual++) {
		struct result r = run(z, (struct kernels_targets){.weight = &w, .offsets = offsets, .ids = ids, .values = values,
		    .residual = (enum kernels_residual)residual});

		CHECK_NEAR(r.sums.loss, 1.630665, TOL);
		check_grad("sampled", &r, grad);
	}
}

/*
 * Weights of a token, from the same z and u. p_y = 0.129510, and with K = {0, 3} the tail is t_1 + t_2 + t_4
 * = 0.245073 and P_tail = 0.129510 + 0.047644 + 0.028898 = 0.206052. So with w = 2/3:
 *      label         t_y             teacher_confidence w t_y   margin w (1 - p_y / t_y)
 *      dense         0.172871        0.115247                   w 0.250828 = 0.167219
 *      sampled       9/50            0.12                       w (1 - 0.129510 / 0.18) = 0.187001
 *      true_token    tail            0.163382                   w (1 - 0.129510 / 0.245073) = 0.314364
 *      ghost         tail            0.163382                   w (1 - 0.206052 / 0.245073) = 0.106150
 *      renormalise   0               0                          0
 * The loss is (1 - w_t) 2.043998 + w_t CE(soft), with CE(soft) from the tests above ((loss - 2.043998 / 3) 3
 * / 2). The gradient is that above with w_t instead of w: for dense at y, 0.129510 - (1 - 0.115247) -
 * 0.115247 0.172871 = -0.775166.
 */
static void
token_weights(void)
{
	static const int32_t kept_ids[2] = {0, 3}, drawn_ids[4] = {0, 1, 2, 3};
	static const int64_t kept_offsets[2] = {0, 2}, drawn_offsets[2] = {0, 4};
	static const float drawn[4] = {23.0f / 50, 9.0f / 50, 3.0f / 50, 15.0f / 50};
	float t[V], kept[2], w = (float)(2.0 / 3);
	const struct kernels_targets dense_t = {.weight = &w, .dense = t};
	const struct kernels_targets sampled_t = {.weight = &w, .offsets = drawn_offsets, .ids = drawn_ids, .values = drawn};
	const struct kernels_targets kept_t = {.weight = &w, .offsets = kept_offsets, .ids = kept_ids, .values = kept};
	static const struct {
		const char *what;
		int label;			/* 0 dense, 1 sampled, 2 topk */
		enum kernels_residual residual;
		enum kernels_token_weight rule;
		double weight, loss;
		float grad[V];
	} rows[] = {
		{"dense, confidence", 0, 0, KERNELS_TOKEN_WEIGHT_TEACHER_CONFIDENCE, 0.115247, 1.976467,
		    {.159370f, -.775166f, .040315f, .547576f, .027906f}},
		{"dense, margin", 0, 0, KERNELS_TOKEN_WEIGHT_MARGIN, 0.167219, 1.946012,
		    {.134948f, -.732179f, .037010f, .532763f, .027458f}},
		{"sampled, confidence", 1, 0, KERNELS_TOKEN_WEIGHT_TEACHER_CONFIDENCE, 0.12, 1.969598,
		    {.158326f, -.772090f, .040444f, .544423f, .028898f}},
		{"sampled, margin", 1, 0, KERNELS_TOKEN_WEIGHT_MARGIN, 0.187001, 1.928058,
		    {.127505f, -.717150f, .036424f, .524323f, .028898f}},
		{"true_token, confidence", 2, KERNELS_RESIDUAL_TRUE_TOKEN, KERNELS_TOKEN_WEIGHT_TEACHER_CONFIDENCE, 0.163382, 1.935761,
		    {.136751f, -.747149f, .047644f, .533856f, .028898f}},
		{"true_token, margin", 2, KERNELS_RESIDUAL_TRUE_TOKEN, KERNELS_TOKEN_WEIGHT_MARGIN, 0.314364, 1.835739,
		    {.065802f, -.633168f, .047644f, .490824f, .028898f}},
		{"ghost, confidence", 2, KERNELS_RESIDUAL_GHOST, KERNELS_TOKEN_WEIGHT_TEACHER_CONFIDENCE, 0.163382, 1.917168,
		    {.136751f, -.732275f, .038386f, .533856f, .023282f}},
		{"ghost, margin", 2, KERNELS_RESIDUAL_GHOST, KERNELS_TOKEN_WEIGHT_MARGIN, 0.106150, 1.961596,
		    {.163645f, -.780691f, .041629f, .550169f, .025249f}},
		{"renormalise, confidence", 2, KERNELS_RESIDUAL_RENORMALISE, KERNELS_TOKEN_WEIGHT_TEACHER_CONFIDENCE, 0, 2.043998,
		    {.213526f, -.870490f, .047644f, .580423f, .028898f}},
		{"renormalise, margin", 2, KERNELS_RESIDUAL_RENORMALISE, KERNELS_TOKEN_WEIGHT_MARGIN, 0, 2.043998,
		    {.213526f, -.870490f, .047644f, .580423f, .028898f}},
	};

	teacher(u, 1, t);
	kept[0] = t[0];
	kept[1] = t[3];
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kernels_targets targets = rows[i].label == 0 ? dense_t : rows[i].label == 1 ? sampled_t : kept_t;
		struct result r;

		targets.residual = rows[i].residual;
		targets.token_weight = rows[i].rule;
		r = run(z, targets);
		CHECK_ROW(rows[i].what, fabs(r.sums.weight - rows[i].weight) <= TOL && r.sums.kd_rows == 1);
		CHECK_ROW(rows[i].what, fabs(r.sums.loss - rows[i].loss) <= TOL);
		check_grad(rows[i].what, &r, rows[i].grad);
	}
}

/* If teacher and student are the same, the loss is the label's entropy and the gradient is 0. */
static void
teacher_is_student(void)
{
	static const int32_t all[V] = {0, 1, 2, 3, 4};
	static const int64_t offsets[2] = {0, V};
	float t[V], w = 1;
	double entropy = 0;

	teacher(z, 1, t);
	for (int v = 0; v < V; v++)
		entropy -= (double)t[v] * log((double)t[v]);
	for (int form = 0; form < 4; form++) {
		struct kernels_targets targets = {.weight = &w};
		struct result r;

		if (form == 0)
			targets.dense = t;
		else
			targets = (struct kernels_targets){.weight = &w, .offsets = offsets, .ids = all, .values = t,
			    .residual = (enum kernels_residual)(form - 1)};
		r = run(z, targets);
		CHECK_NEAR(r.sums.loss, entropy, TOL);
		CHECK_NEAR(r.sums.entropy, entropy, TOL);
		CHECK_NEAR(r.sums.soft - r.sums.entropy, 0, TOL);
		for (int v = 0; v < V; v++)
			CHECK_NEAR(r.grad[v], 0, 2e-7);
	}
}

int
main(void)
{
	struct err_note note;

	REQUIRE(kernels_new(&k, &(struct kernels_options){.dtype = KERNELS_DTYPE_FP32, .backend = KERNELS_BACKEND_OPENBLAS, .threads = 1}, &note) == 0);
	fprintf(stderr, "%s\n", kernels_describe(k));
	plain_lm();
	dense();
	sparse();
	sampled();
	token_weights();
	teacher_is_student();
	kernels_destroy(&k);
	return check_done();
}
