/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loss - the output layer and the mixed-target loss. Logits exist for a chunk of rows; each row has a block
 * of threads. The losses of the rows go to the host, which sums them in row order in fp64.
 */
#include <math.h>

#include "engine/kernels/cuda/rows.h"

struct row {
	double loss, hard, soft, entropy, weight, factor;	/* factor: the row's loss weight, a */
	int64_t counted;
	int32_t correct, soft_known;		/* no padding: rows are copied whole */
};

/* The arguments of row_losses; pointers are device memory. offsets count from `first_id`. */
struct loss_task {
	float *logits;				/* [n, v], rows ld apart; overwritten by the gradient where narrow is NULL */
	uint16_t *narrow;			/* the same, the gradient in bf16; NULL: fp32 */
	int64_t v, ld, begin;			/* row 0 is row `begin` of the call */
	const int32_t *next;
	const float *weight;			/* NULL: all 0 */
	const float *loss_weight;		/* NULL: all 1 */
	const int64_t *offsets;
	int64_t first_id;
	const int32_t *ids;
	const float *values, *dense;		/* dense: rows of this chunk */
	float *saved;				/* logits at the ids of soft labels */
	int residual, token_weight;
	bool grad;
	float grad_scale, soft_cap;
	struct row *rows;
};

__device__ __forceinline__ double
xlogx(double x)
{
	return x > 0 ? x * log(x) : 0;
}

__device__ __forceinline__ float
cap_slope(float z, float cap)
{
	return cap > 0 ? 1 - z / cap * (z / cap) : 1;
}

/* Log-sum-exp of the row; the terms are fp32. top: their maximum. */
__device__ __forceinline__ double
row_lse(const float *z, int64_t v, float top, double *room)
{
	float sum = 0;

	each_logit(z, v, [&](float f) { sum += row_exp(f - top); });
	return (double)top + log(reduced<add_op>((double)sum, room, 0.0));
}

__global__ static void
row_losses(struct loss_task a)
{
	CUDA_SHARED(float, room, WARP);
	CUDA_SHARED(double, wide, WARP);
	CUDA_SHARED(int, counts, WARP);
	int64_t m = a.begin + blockIdx.x, v = a.v, n = 0, at = 0;
	float *z = a.logits + (int64_t)blockIdx.x * a.ld, *saved, top, z_y;
	struct view logits = row_view(z, false), gradient = a.narrow != NULL ? row_view(a.narrow + (int64_t)blockIdx.x * a.ld, true) : logits;
	const float *dense = a.dense != NULL ? a.dense + (int64_t)blockIdx.x * v : NULL;
	int32_t y = a.next[m];
	double w = a.weight != NULL ? (double)a.weight[m] : 0, lse, lse_tail = 0, soft = 0, entropy = 0, t_y = 0, at_next = 0, tail = 0, scale = 1;
	double loss_weight = a.loss_weight != NULL ? (double)a.loss_weight[m] : 1, g = (double)a.grad_scale * loss_weight, log_p, factor = 1;
	bool known = w > 0, listed = false;
	int before = 0;

	if (y == KERNELS_NO_TARGET || loss_weight == 0) {
		for (int64_t i = (int64_t)threadIdx.x * QUAD; i < v && a.grad; i += ROW_THREADS * QUAD)
			put_quad(gradient, i, v - i, {});
		if (threadIdx.x == 0)
			a.rows[m] = row{};
		return;
	}
	top = cap_and_max(z, v, v, a.soft_cap, room);
	z_y = z[y];
	for (int64_t i = threadIdx.x; i < y && z_y == top; i += ROW_THREADS)
		before += z[i] >= top;
	before = reduced<add_op>(before, counts, 0);
	lse = row_lse(z, v, top, wide);
	if (known && dense == NULL) {
		double sum = 0;

		at = a.offsets[m] - a.first_id;
		n = a.offsets[m + 1] - a.offsets[m];
		for (int64_t i = threadIdx.x; i < n; i += ROW_THREADS)
			sum += (double)a.values[at + i];
		sum = reduced<add_op>(sum, wide, 0.0);
		tail = sum < 1 ? 1 - sum : 0;
		if (a.residual == KERNELS_RESIDUAL_TRUE_TOKEN)
			at_next = tail;
		else if (a.residual != KERNELS_RESIDUAL_GHOST && sum > 0)
			scale = 1 / sum;
		else if (a.residual != KERNELS_RESIDUAL_GHOST)
			at_next = 1;			/* nothing to renormalise: all mass goes to y */
		if (a.residual != KERNELS_RESIDUAL_GHOST || n >= v)
			tail = 0;
	}
	saved = a.saved + at;
	/*
	 * The label's ids are removed from the row, so that sums over the row are of the others. All threads
	 * have read z.
	 */
	for (int64_t i = threadIdx.x; i < n; i += ROW_THREADS) {
		saved[i] = z[a.ids[at + i]];
		z[a.ids[at + i]] = -INFINITY;
	}
	__syncthreads();
	if (tail > 0) {
		float here = -INFINITY;

		each_logit(z, v, [&](float f) { here = max_op()(here, f); });
		lse_tail = row_lse(z, v, reduced<max_op>(here, room, -INFINITY), wide);
	}
	if (known) {
		int found = 0;

		for (int64_t i = threadIdx.x; i < n; i += ROW_THREADS) {
			double q = (double)a.values[at + i] * scale;

			if (a.ids[at + i] == y) {	/* one class: the label's mass and the tail */
				q += at_next;
				t_y = q;
				found = 1;
			}
			if (q != 0) {
				soft += q * (lse - (double)saved[i]);
				entropy -= xlogx(q);
			}
		}
		for (int64_t i = threadIdx.x; i < v && dense != NULL; i += ROW_THREADS) {
			double q = (double)dense[i];

			if (i == y) {
				t_y = q;
				found = 1;
			}
			if (q != 0) {
				soft += q * (lse - (double)z[i]);
				entropy -= xlogx(q);
			}
		}
		soft = reduced<add_op>(soft, wide, 0.0);
		entropy = reduced<add_op>(entropy, wide, 0.0);
		t_y = reduced<add_op>(t_y, wide, 0.0);
		listed = reduced<add_op>(found, counts, 0) > 0;
		log_p = (double)z_y - lse;
		if (!listed && at_next > 0) {
			t_y = at_next;
			soft += at_next * (lse - (double)z_y);
			entropy -= xlogx(at_next);
		}
		if (tail > 0) {
			soft += tail * (lse - lse_tail);
			entropy -= xlogx(tail);
			if (!listed) {
				t_y = tail;
				log_p = lse_tail - lse;
			}
		}
		if (a.token_weight == KERNELS_TOKEN_WEIGHT_TEACHER_CONFIDENCE)
			factor = t_y < 1 ? t_y : 1;
		else if (a.token_weight == KERNELS_TOKEN_WEIGHT_MARGIN)
			factor = t_y > exp(log_p) ? 1 - exp(log_p) / t_y : 0;
		w *= factor;
	}
	if (threadIdx.x == 0) {
		struct row r = {};

		r.hard = r.loss = lse - (double)z_y;
		r.factor = loss_weight;
		r.counted = 1;
		r.correct = z_y == top && before == 0;
		if (known) {
			r.soft_known = 1;
			r.soft = soft;
			r.entropy = entropy;
			r.weight = w;
			r.loss = (1 - w) * r.hard + w * soft;
		}
		a.rows[m] = r;
	}
	if (!a.grad)
		return;

	/*
	 * The gradient g (p - q), g = grad_scale times the row's loss weight, through the soft cap: first
	 * outside the label's ids, then at the ids, then at y.
	 */
	float mass = (float)(g * exp((double)top - lse)), ghost = (float)(-w * tail * g), soft_g = (float)(w * g);
	float at_y = (float)(g * ((1 - w) + w * at_next)) * cap_slope(z_y, a.soft_cap);

	for (int64_t i = (int64_t)threadIdx.x * QUAD; i < v; i += ROW_THREADS * QUAD) {
		struct quad x = get_quad(logits, i, v - i), out;

		for (int e = 0; e < QUAD; e++) {
			float d = mass * row_exp(x.f[e] - top);

			if (tail > 0)
				d += ghost * row_exp(x.f[e] - (float)lse_tail);
			if (dense != NULL && known && i + e < v)
				d -= soft_g * dense[i + e];
			out.f[e] = d * cap_slope(x.f[e], a.soft_cap) - (i + e == y ? at_y : 0);
		}
		put_quad(gradient, i, v - i, out);
	}
	__syncthreads();
	for (int64_t i = threadIdx.x; i < n; i += ROW_THREADS) {
		float d = mass * row_exp(saved[i] - top) - (float)(w * g * ((double)a.values[at + i] * scale));

		put(gradient, a.ids[at + i], d * cap_slope(saved[i], a.soft_cap) - (a.ids[at + i] == y ? at_y : 0));
	}
}

/* Checks of data from outside: ids in range and ascending, a soft label where the weight is over 0. */
static void
check_targets(const struct kernels_targets *t, int64_t m, int64_t v)
{
	for (int64_t i = 0; i < m; i++) {
		float w = t->weight != NULL ? t->weight[i] : 0;

		if (t->next[i] == KERNELS_NO_TARGET || (t->loss_weight != NULL && t->loss_weight[i] == 0))
			continue;
		if (t->next[i] < 0 || t->next[i] >= v)
			log_fatal("kernels.targets", "row=%lld next=%d vocab=%lld", (long long)i, (int)t->next[i], (long long)v);
		if (!(w > 0) || t->dense != NULL)
			continue;
		if (t->offsets == NULL)
			log_fatal("kernels.targets", "row=%lld weight=%g labels=none", (long long)i, (double)w);
		for (int64_t at = t->offsets[i]; at < t->offsets[i + 1]; at++)
			if (t->ids[at] < 0 || t->ids[at] >= v || (at > t->offsets[i] && t->ids[at] <= t->ids[at - 1]))
				log_fatal("kernels.targets", "row=%lld id=%d vocab=%lld", (long long)i, (int)t->ids[at], (long long)v);
	}
}

static void
add_row(struct kernels_loss_sums *sums, const struct row *r)
{
	if (!r->counted)
		return;
	sums->loss += r->factor * r->loss;
	sums->hard += r->factor * r->hard;
	sums->loss_weight += r->factor;
	sums->correct += r->correct;
	sums->rows++;
	if (r->soft_known) {
		sums->soft += r->factor * r->soft;
		sums->entropy += r->factor * r->entropy;
		sums->kd_loss_weight += r->factor;
		sums->weight += r->weight;
		sums->kd_rows++;
	}
	if (!isfinite(r->loss))
		sums->finite = false;
}

static void
report_rows(struct kernels *k, const struct kernels_targets *targets, const struct row *device, int64_t m, struct kernels_loss_sums *sums)
{
	const struct row *rows = m > 0 ? (const struct row *)cuda__download(k, device, (size_t)m * sizeof(*rows)) : NULL;

	*sums = {};
	sums->finite = true;
	for (int64_t i = 0; i < m; i++) {
		add_row(sums, &rows[i]);
		if (targets->row_loss != NULL)
			targets->row_loss[i] = (float)rows[i].loss;
		if (targets->row_hard != NULL)
			targets->row_hard[i] = (float)rows[i].hard;
	}
}

/* Uploads the targets of all rows. */
static struct loss_task
task_of(struct kernels *k, const struct kernels_targets *t, int64_t m, int64_t v, float grad_scale, float soft_cap, bool grad)
{
	bool sparse = t->offsets != NULL && t->dense == NULL;
	int64_t n_ids = sparse ? t->offsets[m] - t->offsets[0] : 0;
	struct loss_task a = {};

	a.v = v;
	a.ld = cuda_row_floats(v);
	a.residual = t->residual;
	a.token_weight = t->token_weight;
	a.grad = grad;
	a.grad_scale = grad_scale;
	a.soft_cap = soft_cap;
	a.next = (const int32_t *)cuda__upload(k, SLOT_NEXT, t->next, (size_t)m * sizeof(*t->next));
	a.weight = (const float *)cuda__upload(k, SLOT_WEIGHT, t->weight, (size_t)m * sizeof(*t->weight));
	a.loss_weight = (const float *)cuda__upload(k, SLOT_LOSS_WEIGHT, t->loss_weight, (size_t)m * sizeof(*t->loss_weight));
	if (sparse) {
		a.first_id = t->offsets[0];
		a.offsets = (const int64_t *)cuda__upload(k, SLOT_OFFSETS, t->offsets, (size_t)(m + 1) * sizeof(*t->offsets));
		a.ids = (const int32_t *)cuda__upload(k, SLOT_IDS, t->ids + a.first_id, (size_t)n_ids * sizeof(*t->ids));
		a.values = (const float *)cuda__upload(k, SLOT_VALUES, t->values + a.first_id, (size_t)n_ids * sizeof(*t->values));
	}
	a.saved = (float *)cuda__room(k, ROOM_IDS, (size_t)(n_ids + 1) * sizeof(*a.saved));
	a.rows = (struct row *)cuda__room(k, ROOM_ROWS, (size_t)m * sizeof(*a.rows));
	return a;
}

/*
 * d_h, from row `begin` on, = d_z w; d_w = (+ with add) d_z^T h. The few last ids (even_ids) come first: their part of d_h is rounded once
 * more than the others'.
 */
static void
row_products(struct kernels *k, const struct kernels__matrix *d_z, int64_t n, int64_t v, const struct kernels__matrix *h,
    const struct tensor *w_out, struct tensor *d_h, int64_t begin, struct tensor *d_w, bool add)
{
	int64_t c = kernels__cols(w_out), even = even_ids(d_z->dtype, v);
	struct kernels__matrix to_h = {kernels__element(d_h->data, d_h->dtype, begin * c), d_h->dtype, c, false, false};

	for (int64_t at = even < v ? even : 0, ids = v - at; ids > 0; ids = at > 0 ? at : 0, at = 0) {
		struct kernels__matrix part = *d_z, w = {kernels__element(w_out->data, w_out->dtype, at * c), w_out->dtype, c, false, false};
		struct kernels__matrix to_w = {(float *)d_w->data + at * c, DTYPE_F32, c, false, false};

		part.data = kernels__element(d_z->data, d_z->dtype, at);
		cuda__matmul(k, n, c, ids, &part, &w, &to_h, NULL, at == 0 && even < v);
		part.trans = true;
		cuda__matmul(k, ids, c, n, &part, h, &to_w, NULL, add);
	}
}

void
cuda__output_loss(struct kernels *k, const struct tensor *h, const struct tensor *w_out, const struct kernels_output *more,
    const struct kernels_targets *targets, float grad_scale, struct tensor *d_h, struct tensor *d_w, struct kernels_loss_sums *sums)
{
	int64_t m = kernels__rows(h), c = kernels__cols(h), v = w_out->dims[0], chunk = cuda_chunk_rows(v, m), ld = cuda_row_floats(v);
	bool grad = d_h != NULL, narrow = grad && k->dtype != DTYPE_F32;
	struct loss_task a;

	check_targets(targets, m, v);
	a = task_of(k, targets, m, v, grad_scale, more->soft_cap, grad);
	a.logits = (float *)cuda__room(k, ROOM_LOGITS, (size_t)(chunk * ld) * sizeof(float));
	a.narrow = narrow ? (uint16_t *)cuda__room(k, ROOM_GRADIENT, (size_t)(chunk * ld) * sizeof(uint16_t)) : NULL;
	for (a.begin = 0; a.begin < m; a.begin += chunk) {
		int64_t n = m - a.begin < chunk ? m - a.begin : chunk;
		struct kernels__matrix h_rows = {kernels__element(h->data, h->dtype, a.begin * c), h->dtype, c, false, false};
		struct kernels__matrix d_z = {narrow ? (void *)a.narrow : a.logits, narrow ? DTYPE_BF16 : DTYPE_F32, ld, false, false};

		row_logits(k, a.logits, n, &h_rows, w_out, more->bias);
		if (targets->dense != NULL)
			a.dense = (const float *)cuda__upload(k, SLOT_VALUES, targets->dense + a.begin * v, (size_t)(n * v) * sizeof(float));
		CUDA_RUN(k, row_losses, (unsigned)n, ROW_THREADS, a);
		if (!grad)
			continue;
		row_products(k, &d_z, n, v, &h_rows, w_out, d_h, a.begin, d_w, !more->overwrite || a.begin > 0);
		if (more->d_bias != NULL)
			cuda__column_sums_of(k, (float *)more->d_bias->data, d_z.data, d_z.dtype, n, v, ld);
	}
	report_rows(k, targets, a.rows, m, sums);
}
