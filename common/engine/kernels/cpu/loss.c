/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/kernels/cpu/cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/log/log.h"

/*
 * Logits that exist at a time, in floats. Every chunk reads and writes the whole output layer, so small
 * chunks are slow: with 50,257 ids and 64 rows the three products ran at 0.67 of OpenBLAS's speed, with 320
 * rows at 0.80. The number of rows is a multiple of 256, or else of 64, so that they divide evenly among
 * threads: in bf16, 256 rows ran at 397 GFLOP/s and 320 rows at 342.
 */
#define LOGITS (16 << 20)
#define MIN_ROWS 64
#define MAX_ROWS 1024
/*
 * In bf16 the gradient of this many chunks is kept, in half the bytes of the logits, and its two products are
 * computed together, because each reads or writes the whole output layer.
 */
#define CHUNKS 4
#define BIAS_COLUMNS 1024

int64_t
cpu__logit_rows(int64_t v)
{
	int64_t rows = LOGITS / v, unit = rows < 256 ? MIN_ROWS : 256;

	rows = rows / unit * unit;
	return rows < MIN_ROWS ? MIN_ROWS : rows > MAX_ROWS ? MAX_ROWS : rows;
}

/*
 * Sizes of the working memory, in floats: logits, `work` for each thread, and in bf16 the `span` rows of d_z.
 */
struct room {
	int64_t chunk, span, work, floats;
};

static struct room
room_of(enum dtype dtype, int64_t m, int64_t v, bool grad, bool soft_cap, int threads)
{
	bool narrow = grad && dtype != DTYPE_F32;
	/* with a soft cap, work also holds the row of capped logits */
	struct room r = {.chunk = cpu__min(cpu__logit_rows(v), m), .work = grad && soft_cap ? 2 * v : v};

	r.span = narrow ? cpu__min(CHUNKS * r.chunk, m) : r.chunk;
	r.floats = r.chunk * v + threads * r.work + (narrow ? (r.span * v + 1) / 2 : 0);
	return r;
}

size_t
kernels_output_bytes(enum dtype dtype, int64_t rows, int64_t vocab, bool soft_cap, int threads)
{
	return sizeof(float) * (size_t)room_of(dtype, rows, vocab, true, soft_cap, threads).floats;
}

struct row {
	double loss, hard, soft, entropy, weight;
	double factor;			/* a, the row's loss weight */
	bool counted, correct, soft_known;
};

/* The soft label of one row, after the residual rule. */
struct soft {
	int64_t n;
	const int32_t *ids;
	const float *values;
	const float *dense;
	double scale;			/* factor of values: 1 / sum for renormalise, else 1 */
	double at_next;			/* mass added at y: true_token's tail */
	double tail;			/* mass of the ghost class */
};

static double
xlogx(double x)
{
	return x > 0 ? x * log(x) : 0;
}

static struct soft
soft_of(const struct kernels_targets *t, int64_t m, int64_t v)
{
	struct soft s = {.scale = 1};
	double sum = 0, tail;

	if (t->dense != NULL) {
		s.dense = t->dense + m * v;
		return s;
	}
	if (t->offsets == NULL)
		log_fatal("kernels.targets", "row=%lld weight=%g labels=none", (long long)m, (double)t->weight[m]);
	s.n = t->offsets[m + 1] - t->offsets[m];
	s.ids = t->ids + t->offsets[m];
	s.values = t->values + t->offsets[m];
	for (int64_t i = 0; i < s.n; i++) {
		if (s.ids[i] < 0 || s.ids[i] >= v || (i > 0 && s.ids[i] <= s.ids[i - 1]))
			log_fatal("kernels.targets", "row=%lld id=%d vocab=%lld", (long long)m, (int)s.ids[i], (long long)v);
		sum += (double)s.values[i];
	}
	tail = sum < 1 ? 1 - sum : 0;
	if (t->residual == KERNELS_RESIDUAL_TRUE_TOKEN)
		s.at_next = tail;
	else if (t->residual == KERNELS_RESIDUAL_GHOST)
		s.tail = s.n < v ? tail : 0;
	else if (sum > 0)
		s.scale = 1 / sum;
	else
		s.at_next = 1;			/* nothing to renormalise: all mass goes to y */
	return s;
}

/*
 * Log-sum-exp of z over the ids that s does not list, relative to their own maximum: a small rest would lose
 * its bits otherwise.
 */
static double
lse_outside(const struct vec *vec, const float *z, int64_t v, const struct soft *s, float *work)
{
	double sum = 0;
	float top = -INFINITY;

	for (int64_t i = 0, at = 0; i <= s->n; i++) {
		int64_t end = i < s->n ? s->ids[i] : v;
		float here = vec->max(z + at, end - at);

		top = here > top ? here : top;
		at = end + 1;
	}
	for (int64_t i = 0, at = 0; i <= s->n; i++) {
		int64_t end = i < s->n ? s->ids[i] : v;

		sum += (double)vec->exp_sum(work, z + at, 1, top, end - at);
		at = end + 1;
	}
	return (double)top + log(sum);
}

/* Sets the cross-entropy to the soft label and the label's entropy, from the logits z. */
static void
soft_loss(struct row *r, const float *z, int64_t v, int32_t y, const struct soft *s, double lse, double lse_tail)
{
	double soft = 0, entropy = 0, at_next = s->at_next;

	if (s->dense != NULL) {
		for (int64_t i = 0; i < v; i++) {
			double q = (double)s->dense[i];

			if (q != 0) {
				soft += q * (lse - (double)z[i]);
				entropy -= xlogx(q);
			}
		}
	}
	for (int64_t i = 0; i < s->n; i++) {
		double q = (double)s->values[i] * s->scale;

		if (s->ids[i] == y) {		/* one class: the label's mass and the added tail */
			q += at_next;
			at_next = 0;
		}
		if (q != 0) {
			soft += q * (lse - (double)z[s->ids[i]]);
			entropy -= xlogx(q);
		}
	}
	if (at_next > 0) {
		soft += at_next * (lse - (double)z[y]);
		entropy -= xlogx(at_next);
	}
	if (s->tail > 0) {
		soft += s->tail * (lse - lse_tail);
		entropy -= xlogx(s->tail);
	}
	r->soft = soft;
	r->entropy = entropy;
}

/* g of kernels_token_weight (kernels.h). */
static double
weight_factor(const struct kernels_targets *t, const struct soft *s, int32_t y, float z_y, double lse, double lse_tail)
{
	double t_y = s->dense != NULL ? (double)s->dense[y] : s->at_next, log_p = (double)z_y - lse;
	bool listed = s->dense != NULL;

	if (t->token_weight == KERNELS_TOKEN_WEIGHT_CONSTANT)
		return 1;
	for (int64_t i = 0; i < s->n && s->ids[i] <= y; i++) {
		if (s->ids[i] == y) {
			t_y += (double)s->values[i] * s->scale;
			listed = true;
		}
	}
	if (!listed && s->tail > 0) {
		t_y = s->tail;
		log_p = lse_tail - lse;
	}
	if (t->token_weight == KERNELS_TOKEN_WEIGHT_TEACHER_CONFIDENCE)
		return t_y < 1 ? t_y : 1;
	return t_y > exp(log_p) ? 1 - exp(log_p) / t_y : 0;
}

/*
 * Computes the losses of one row. With grad it returns g * dloss/dz, g = grad_scale * a, in work [V] or in
 * place of the logits z; otherwise NULL. It first computes g * p (for ghost: less w * tail * p / P_tail
 * outside K), then subtracts q at its ids.
 */
static float *
row_loss(const struct vec *vec, float *z, int64_t v, const struct kernels_targets *t, int64_t m, bool grad, float grad_scale,
    float *work, struct row *r)
{
	float *out = work;
	int32_t y = t->next[m];
	double w = t->weight != NULL ? (double)t->weight[m] : 0, sum, lse, lse_tail = 0, g;
	struct soft s = {.scale = 1};
	float top = vec->max(z, v);

	*r = (struct row){.factor = t->loss_weight != NULL ? (double)t->loss_weight[m] : 1};
	r->counted = y != KERNELS_NO_TARGET && r->factor != 0;
	g = (double)grad_scale * r->factor;
	if (!r->counted) {
		memset(work, 0, (size_t)v * sizeof(*work));
		return work;
	}
	if (y < 0 || y >= v)
		log_fatal("kernels.targets", "row=%lld next=%d vocab=%lld", (long long)m, (int)y, (long long)v);
	r->correct = z[y] == top && vec->count_from(z, y, top) == 0;
	r->soft_known = w > 0;
	if (r->soft_known)
		s = soft_of(t, m, v);
	if (s.tail > 0)
		lse_tail = lse_outside(vec, z, v, &s, work);
	sum = (double)vec->exp_sum(work, z, 1, top, v);
	lse = (double)top + log(sum);
	r->hard = r->loss = lse - (double)z[y];
	if (r->soft_known) {
		soft_loss(r, z, v, y, &s, lse, lse_tail);
		r->weight = w *= weight_factor(t, &s, y, z[y], lse, lse_tail);
		r->loss = (1 - w) * r->hard + w * r->soft;
	}
	if (!grad)
		return NULL;

	vec->scale(work, (float)(g / sum), v);
	if (s.tail > 0) {
		for (int64_t i = 0, at = 0; i <= s.n; i++) {
			int64_t end = i < s.n ? s.ids[i] : v;

			vec->exp(z + at, z + at, 1, (float)lse_tail, end - at);
			vec->scale(z + at, (float)(-w * s.tail * g), end - at);
			vec->add(z + at, z + at, work + at, end - at);
			if (i < s.n)
				z[end] = work[end];
			at = end + 1;
		}
		out = z;
	}
	if (s.dense != NULL)
		vec->axpy(out, (float)(-w * g), s.dense, v);
	for (int64_t i = 0; i < s.n; i++)
		out[s.ids[i]] -= (float)(w * g * ((double)s.values[i] * s.scale));
	out[y] -= (float)(g * ((1 - w) + w * s.at_next));
	return out;
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

/* Adds the gradient of n rows of logits to sums, row by row. */
static void
bias_sums(struct kernels *k, float *sums, const void *d_z, int64_t n, int64_t v)
{
	for (int64_t i = 0; i < n; i++)
		for (int64_t at = 0; at < v; at += BIAS_COLUMNS) {
			int64_t len = cpu__min(BIAS_COLUMNS, v - at);
			float room[BIAS_COLUMNS];

			k->vec->add(sums + at, sums + at, cpu__read(k, d_z, k->dtype, i * v + at, len, room), len);
		}
}

void
cpu__output_loss(struct kernels *k, const struct tensor *h, const struct tensor *w_out, const struct kernels_output *more,
    const struct kernels_targets *targets, float grad_scale, struct tensor *d_h, struct tensor *d_w, struct kernels_loss_sums *sums)
{
	int64_t m = kernels__rows(h), c = kernels__cols(h), v = w_out->dims[0];
	bool grad = d_h != NULL, narrow = grad && k->dtype != DTYPE_F32;
	const struct room memory = room_of(k->dtype, m, v, grad, more->soft_cap > 0, k->threads);
	const int64_t chunk = memory.chunk, room = memory.work;
	int64_t span = memory.span, done = 0;		/* rows of a backward product; rows that are done */
	struct row rows[MAX_ROWS];
	struct kernels__matrix w = {w_out->data, w_out->dtype, c, false}, w_t = {w_out->data, w_out->dtype, c, true, true, chunk < m};
	struct kernels__matrix d_z = {NULL, k->dtype, v, false}, d_z_t;
	float *logits = cpu__scratch(k, (size_t)memory.floats), *work = logits + chunk * v;

	d_z.data = narrow ? work + (int64_t)k->threads * room : logits;
	*sums = (struct kernels_loss_sums){.finite = true};
	for (int64_t begin = 0; begin < m; begin += chunk) {
		int64_t n = m - begin < chunk ? m - begin : chunk;
		struct kernels__matrix h_rows = {kernels__element(h->data, h->dtype, begin * c), h->dtype, c, false};
		struct kernels__matrix z = {logits, DTYPE_F32, v, false};

		k->backend->matmul(k, n, v, c, &h_rows, &w_t, &z, more->bias, false);
#pragma omp parallel for num_threads(k->threads) schedule(dynamic, 4) if (k->threads > 1 && n * v > k->small)
		for (int64_t i = 0; i < n; i++) {
			float *row = logits + i * v, *mine = work + omp_get_thread_num() * room;
			float *d_row;

			if (more->soft_cap > 0)
				k->vec->soft_cap(row, row, 1, more->soft_cap, v);
			if (room > v)
				memcpy(mine + v, row, (size_t)v * sizeof(float));
			d_row = row_loss(k->vec, row, v, targets, begin + i, grad, grad_scale, mine, &rows[i]);
			if (room > v)
				k->vec->soft_cap_bwd(d_row, mine + v, 1, more->soft_cap, v);

			if (narrow)
				k->vec->narrow((uint16_t *)d_z.data + (begin - done + i) * v, d_row, v);
			else if (grad && d_row != row)
				memcpy(row, d_row, (size_t)v * sizeof(float));
		}
		for (int64_t i = 0; i < n; i++) {
			add_row(sums, &rows[i]);
			if (targets->row_loss != NULL)
				targets->row_loss[begin + i] = (float)rows[i].loss;
			if (targets->row_hard != NULL)
				targets->row_hard[begin + i] = (float)rows[i].hard;
		}
		n += begin - done;
		if (!grad || (n < span && done + n < m))
			continue;
		h_rows.data = kernels__element(h->data, h->dtype, done * c);
		k->backend->matmul(k, n, c, v, &d_z, &w,
		    &(struct kernels__matrix){kernels__element(d_h->data, d_h->dtype, done * c), d_h->dtype, c, false}, NULL, false);
		d_z_t = d_z;
		d_z_t.trans = true;
		k->backend->matmul(k, v, c, n, &d_z_t, &h_rows, &(struct kernels__matrix){d_w->data, DTYPE_F32, c, false}, NULL,
		    !more->overwrite || done > 0);
		if (more->d_bias != NULL)
			bias_sums(k, cpu__f32(more->d_bias), d_z.data, n, v);
		done += n;
	}
}
