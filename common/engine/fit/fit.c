/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/fit/fit.h"

#include <math.h>

#include "engine/kernels/kernels.h"

static int
log2_of(uint64_t n)
{
	int bits = 0;

	while (n >>= 1)
		bits++;
	return bits;
}

/* Buckets lie inside one rank's range of a part; every slot has the size of the largest possible bucket. */
static int64_t
received(const struct optim_split *split, int n_ranks)
{
	int64_t size = split->n < FIT_BUCKET ? split->n : FIT_BUCKET, buckets = 0;

	/*
	 * Each range that is not empty has at least one bucket; the number of buckets is bounded by
	 * FIT_BUCKETS.
	 */
	for (int i = 0; i < split->n_parts * n_ranks && buckets < FIT_BUCKETS; i++) {
		int64_t begin, end;

		optim_split_range(&split->parts[i / n_ranks], i % n_ranks, n_ranks, &begin, &end);
		buckets += (end - begin + FIT_BUCKET - 1) / FIT_BUCKET;
	}
	return size * (buckets < FIT_BUCKETS ? buckets : FIT_BUCKETS);
}

/* The rank that keeps the most bytes: number of its parameters, and how many of them have a second moment. */
static void
largest(const struct optim_split *split, int n_ranks, bool masters, double *own, double *second)
{
	double most = -1;

	for (int r = 0; r < n_ranks; r++) {
		double n = 0, v = 0, bytes;

		for (int i = 0; i < split->n_parts; i++) {
			int64_t begin, end;

			optim_split_range(&split->parts[i], r, n_ranks, &begin, &end);
			n += (double)(end - begin);
			v += (double)(optim_split_second(split, end) - optim_split_second(split, begin));
		}
		bytes = (masters ? 2 : 1) * n + v;
		if (bytes <= most)
			continue;
		most = bytes;
		*own = n;
		*second = v;
	}
}

/*
 * Memory that products keep: that of the output layer's loss, and in bf16 on CPUs repacked copies of weights.
 * With several micro-batches or recomputed layers every weight is multiplied twice with the same values and
 * therefore kept repacked. Otherwise only the output layer is kept, and each other weight is repacked for its
 * product: memory of the largest one in a layer.
 */
static double
products(const struct fit_shape *s, double rows)
{
	const struct model_config *m = s->model;
	int64_t tokens = (int64_t)(s->micro_batch * s->context);
	double bytes, output = (double)m->d_model * (double)m->vocab_size;
	double qkv = (double)((m->n_heads + 2 * m->n_kv_heads) * m->head_dim), width = (double)m->d_model,
	    wide = (double)m->d_ff;

	if (s->gpu)
		return (double)kernels_gpu_bytes(s->dtype, tokens, m->vocab_size, KERNELS_GPU_TRAINS);
	bytes = (double)kernels_output_bytes(s->dtype, tokens, m->vocab_size, m->logit_cap > 0, s->threads);
	if (s->dtype == DTYPE_F32)
		return bytes;
	if (s->recompute || rows > (double)s->micro_batch)
		return bytes + 2 * model_product_params(m);
	return bytes + 2 * (output + width * (wide > qkv ? wide : qkv));
}

void
fit_muon(struct fit_shape *s, const struct model *model)
{
	for (int i = 0; i < model->n_tensors; i++)
		for (int j = 0; j < model->tensors[i].n_matrices; j++) {
			struct model_matrix x = model_matrix(model, i, j);

			if (x.rows * x.cols <= s->muon_rows * s->muon_cols)
				continue;
			s->muon_rows = x.rows;
			s->muon_cols = x.cols;
		}
}

int
fit_train(const struct fit_shape *s, int n_ranks, double bytes[FIT_ITEMS], struct err_note *note)
{
	struct model_session_options o = {.max_batch = (int64_t)s->micro_batch,
	    .max_tokens = (int64_t)s->context, .training = true, .recompute = s->recompute};
	double n = (double)s->n_params, own = 0, second = 0;
	double rows = (double)(s->batch / (uint64_t)n_ranks), tokens = rows * (double)s->context;
	bool copy = s->dtype != DTYPE_F32;
	size_t session;
	int rc;

	if ((rc = model_session_plan(s->model, s->dtype, &o, &session, note)) != 0)
		return rc;
	largest(s->split, n_ranks, copy, &own, &second);
	bytes[FIT_MASTERS] = 4 * (copy ? own : n);
	bytes[FIT_COPY] = copy ? (double)dtype_size(s->dtype) * n : 0;
	bytes[FIT_MOMENTS] = 4 * (own + second);
	bytes[FIT_MUON] = s->muon_rows > 0 ? (double)kernels_muon_bytes(s->muon_rows, s->muon_cols, s->gpu ? 1 :
	    s->threads) : 0;
	bytes[FIT_GRADIENTS] = 4 * n * (s->deterministic ? 1 + log2_of(s->lanes / (uint64_t)n_ranks) : 1);
	bytes[FIT_RECEIVED] = n_ranks > 1 && s->deterministic ? 4 * (double)received(s->split, n_ranks) : 0;
	bytes[FIT_ACTIVATIONS] = (double)session;
	bytes[FIT_PRODUCTS] = products(s, rows);
	bytes[FIT_ROWS] = s->gpu ? 0 : FIT_STEPS_AHEAD * (4 * (tokens + rows) + (s->label_entries > 0 ?
	    tokens * (8 + 8 * s->label_entries) : 0));
	return 0;
}

double
fit_sum(const double bytes[FIT_ITEMS])
{
	double sum = 0;

	for (int i = 0; i < FIT_ITEMS; i++)
		sum += bytes[i];
	return sum;
}

bool
fit_find(const struct fit_shape *s, int n_ranks, double bytes, struct fit_shape *found)
{
	struct fit_shape try = *s;
	double items[FIT_ITEMS];

	for (;; try.recompute = true) {
		for (try.micro_batch = s->micro_batch; try.micro_batch > 0; try.micro_batch--) {
			if (s->batch / s->lanes % try.micro_batch != 0 || fit_train(&try, n_ranks, items,
			    NULL) != 0 || fit_sum(items) > bytes)
				continue;
			*found = try;
			return true;
		}
		if (try.recompute)
			return false;
	}
}

double
fit_label(const struct model_config *const *models, size_t n_models, enum dtype dtype, uint64_t batch, uint64_t context,
    bool dense)
{
	struct model_session_options o = {.max_batch = (int64_t)batch, .max_tokens = (int64_t)context};
	double sessions = 0, room = 0;
	size_t session;

	for (size_t i = 0; i < n_models; i++) {
		if (model_session_plan(models[i], dtype, &o, &session, NULL) != 0)
			return NAN;
		sessions += (double)session;
		room = fmax(room, (double)kernels_gpu_bytes(dtype, (int64_t)(batch * context), models[i]->vocab_size,
		    dense ? KERNELS_GPU_LABELS_DENSE : KERNELS_GPU_LABELS));
	}
	return sessions + room;
}
