#include "trainerd/step.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log/log.h"
#include "base/mem/mem.h"
#include "trainerd/reduce.h"

#define MAX_TREE 32

/* Loss sums of a lane, in the order of the vector that is summed over ranks. */
enum lane_sum { LANE_LOSS, LANE_HARD, LANE_SOFT, LANE_ENTROPY, LANE_CORRECT, LANE_KD_ROWS, LANE_ROWS, LANE_NOT_FINITE, LANE_SUMS };

struct step {
	struct step_options options;
	struct comm *comm;
	struct kernels *kernels;
	struct model *model;
	struct model_session *session;
	struct shard shard;
	int64_t rank_lanes;			/* G / R */
	int64_t n_tree;				/* gradient buffers */
	void *params;				/* [n_params], the model's, in its dtype */
	float *own;				/* fp32 masters of this rank's range where params are not fp32; else NULL */
	float *masters;				/* own, or this rank's range inside params */
	float *m, *v;
	float *grads[MAX_TREE];
	struct reduce *reduce;
	bool reducing;				/* backward of the last micro-batch: what it completes goes into reduce */
	int64_t *final_from;			/* [n_layers + 2], of layer -1 ...: gradients from here on are final when the layer is done */
	struct optim_span *spans;		/* [n_tensors] */
	double *blocks;				/* [n_blocks] sums of squares */
	int64_t n_blocks;
	double *lane_sums;			/* [G, LANE_SUMS] */
	int32_t *inputs, *next;			/* [micro_batch * L] */
	float *row_weight;			/* [micro_batch * L] */
};

static double
seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int
step_check(const struct step_options *o, int n_ranks, struct err_note *note)
{
	if (o->lanes <= 0 || (o->lanes & (o->lanes - 1)) != 0 || o->lanes % n_ranks != 0) {
		err_note_set(note, ERR_CONFIG, "trainer.lanes");
		err_note_expected(note, "a power of two that the number of ranks divides (start 1, 2, 4, ... up to trainer.lanes ranks)");
		err_note_found(note, "%lld lanes, %d ranks", (long long)o->lanes, n_ranks);
		return ERR_CONFIG;
	}
	if (o->micro_batch <= 0 || o->batch % o->lanes != 0 || o->batch / o->lanes % o->micro_batch != 0) {
		err_note_set(note, ERR_CONFIG, "trainer.batch");
		err_note_expected(note, "a multiple of trainer.lanes * trainer.micro_batch = %lld", (long long)(o->lanes * o->micro_batch));
		err_note_found(note, "%lld", (long long)o->batch);
		return ERR_CONFIG;
	}
	return 0;
}

static void
hook_need(void *arg, int layer)
{
	struct step *s = arg;

	(void)layer;
	if (s->reducing)
		reduce_poll(s->reduce);
}

static void
hook_done(void *arg, int layer)
{
	struct step *s = arg;

	if (s->reducing)
		reduce_ready(s->reduce, s->final_from[layer + 1]);
}

/* Layers are done from the last to the first: behind a layer, everything is final that lies after the last tensor of those before it. */
static int
step_hooks(struct step *s)
{
	const struct model_hooks hooks = {.arg = s, .need = hook_need, .done = hook_done};
	const struct model *m = s->model;

	if ((s->final_from = mem_alloc((size_t)m->config.n_layers + 2, sizeof(*s->final_from))) == NULL)
		return ENOMEM;
	for (int layer = -1; layer <= m->config.n_layers; layer++) {
		int64_t from = 0;

		for (int i = 0; i < m->n_tensors; i++)
			if (m->tensors[i].layer < layer && m->tensors[i].offset + m->tensors[i].n_elements > from)
				from = m->tensors[i].offset + m->tensors[i].n_elements;
		s->final_from[layer + 1] = from;
	}
	model_session_hooks(s->session, &hooks);
	return 0;
}

int
step_new(struct step **out, const struct model_config *cfg, struct kernels *kernels, struct comm *comm,
    const struct step_options *options, struct err_note *note)
{
	struct model_session_options session = {.max_batch = options->micro_batch, .max_tokens = options->context, .training = true,
	    .recompute = options->recompute};
	struct reduce_options reduce = {.bucket = options->bucket, .any_order = !options->deterministic};
	enum dtype dtype = kernels_dtype(kernels);
	int64_t n, n_own, rows = options->micro_batch * options->context;
	struct step *s = NULL;
	int rc;

	*out = NULL;
	if ((rc = step_check(options, comm_size(comm), note)) != 0)
		return rc;
	if ((s = calloc(1, sizeof(*s))) == NULL)
		return ENOMEM;
	s->options = *options;
	s->comm = comm;
	s->kernels = kernels;
	if ((rc = model_new(&s->model, cfg, note)) != 0 ||
	    (rc = model_session_new(&s->session, s->model, kernels, &session, note)) != 0)
		goto fail;
	n = s->model->n_params;
	shard_range(&s->shard, n, comm_rank(comm), comm_size(comm));
	s->rank_lanes = options->lanes / comm_size(comm);
	s->n_tree = 1;
	for (int64_t lanes = s->rank_lanes; options->deterministic && lanes > 1; lanes /= 2)
		s->n_tree++;
	s->n_blocks = (n + KERNELS_NORM_BLOCK - 1) / KERNELS_NORM_BLOCK;
	n_own = s->shard.end - s->shard.begin;
	rc = ENOMEM;
	if ((s->params = kernels_alloc(kernels, (size_t)n * dtype_size(dtype))) == NULL)
		goto fail;
	if (dtype != DTYPE_F32 && (s->own = kernels_alloc(kernels, (size_t)n_own * sizeof(float))) == NULL)
		goto fail;
	s->masters = s->own != NULL ? s->own : (float *)s->params + s->shard.begin;
	s->m = kernels_alloc(kernels, (size_t)n_own * sizeof(float));
	s->v = kernels_alloc(kernels, (size_t)n_own * sizeof(float));
	if (reduce_new(&s->reduce, &s->shard, comm, kernels, &reduce) != 0 || step_hooks(s) != 0)
		goto fail;
	for (int64_t i = 0; i < s->n_tree; i++)
		if ((s->grads[i] = kernels_alloc(kernels, (size_t)n * sizeof(float))) == NULL)
			goto fail;
	if ((s->spans = mem_alloc((size_t)s->model->n_tensors, sizeof(*s->spans))) == NULL)
		goto fail;
	for (int i = 0; i < s->model->n_tensors; i++)
		s->spans[i] = (struct optim_span){.begin = s->model->tensors[i].offset, .decay = s->model->tensors[i].decay};
	s->blocks = mem_alloc((size_t)s->n_blocks, sizeof(double));
	s->lane_sums = mem_alloc((size_t)options->lanes * LANE_SUMS, sizeof(double));
	s->inputs = mem_alloc((size_t)rows, sizeof(int32_t));
	s->next = mem_alloc((size_t)rows, sizeof(int32_t));
	s->row_weight = mem_alloc((size_t)rows, sizeof(float));
	if (s->m == NULL || s->v == NULL || s->blocks == NULL || s->lane_sums == NULL || s->inputs == NULL || s->next == NULL || s->row_weight == NULL)
		goto fail;
	model_bind(s->model, s->params, dtype);
	*out = s;
	return 0;
fail:
	step_destroy(&s);
	return rc;
}

void
step_destroy(struct step **step)
{
	struct step *s = *step;

	if (s == NULL)
		return;
	free(s->row_weight);
	free(s->next);
	free(s->inputs);
	free(s->lane_sums);
	free(s->blocks);
	free(s->spans);
	for (int64_t i = 0; i < s->n_tree; i++)
		kernels_free(s->kernels, s->grads[i]);
	reduce_destroy(&s->reduce);
	free(s->final_from);
	kernels_free(s->kernels, s->v);
	kernels_free(s->kernels, s->m);
	kernels_free(s->kernels, s->own);
	kernels_free(s->kernels, s->params);
	model_session_destroy(&s->session);
	model_destroy(&s->model);
	free(s);
	*step = NULL;
}

const struct model *
step_model(const struct step *s)
{
	return s->model;
}

const struct shard *
step_shard(const struct step *s)
{
	return &s->shard;
}

const void *
step_params(const struct step *s)
{
	return s->params;
}

float *
step_masters(struct step *s)
{
	return s->masters;
}

/* Where the compute-dtype copy of this rank's range goes; NULL where the masters are that. */
static void *
step_copy(struct step *s)
{
	return s->own == NULL ? NULL : (char *)s->params + (size_t)s->shard.begin * dtype_size(s->model->dtype);
}

void
step_spread(struct step *s)
{
	void *copy = step_copy(s);

	/* As the optimiser rounds: a run that goes on from a checkpoint has the copy that it would have had. */
	if (copy != NULL && s->shard.end > s->shard.begin)
		kernels_convert(s->kernels, copy, s->model->dtype, s->masters, DTYPE_F32, s->shard.end - s->shard.begin);
	kernels_sync(s->kernels);
	shard_gather(&s->shard, s->comm, s->params, dtype_size(s->model->dtype));
	model_changed(s->model);
}

float *
step_m(struct step *s)
{
	return s->m;
}

float *
step_v(struct step *s)
{
	return s->v;
}

/* Split windows of L+1 tokens into inputs and next tokens of n sequences. */
static void
step_split(struct step *s, const int32_t *windows, int64_t n)
{
	int64_t len = s->options.context;

	for (int64_t i = 0; i < n; i++) {
		memcpy(s->inputs + i * len, windows + i * (len + 1), (size_t)len * sizeof(int32_t));
		memcpy(s->next + i * len, windows + i * (len + 1) + 1, (size_t)len * sizeof(int32_t));
	}
}

static void
lane_add(double *lane, const struct kernels_loss_sums *sums)
{
	lane[LANE_LOSS] += sums->loss;
	lane[LANE_HARD] += sums->hard;
	lane[LANE_SOFT] += sums->soft;
	lane[LANE_ENTROPY] += sums->entropy;
	lane[LANE_CORRECT] += (double)sums->correct;
	lane[LANE_KD_ROWS] += (double)sums->kd_rows;
	lane[LANE_ROWS] += (double)sums->rows;
	lane[LANE_NOT_FINITE] += !sums->finite;
}

/* Sums of all lanes of all ranks, added in lane order. */
static void
lanes_total(struct step *s, double total[LANE_SUMS])
{
	comm_sum(s->comm, s->lane_sums, (size_t)s->options.lanes * LANE_SUMS);
	memset(total, 0, LANE_SUMS * sizeof(total[0]));
	for (int64_t lane = 0; lane < s->options.lanes; lane++)
		for (int i = 0; i < LANE_SUMS; i++)
			total[i] += s->lane_sums[lane * LANE_SUMS + i];
}

/* Forward, loss and backward of one lane (number in this rank) into grads. The last one's last backward completes the rank's sums. */
static void
step_lane(struct step *s, const struct step_rows *rows, int64_t lane, float *grads)
{
	const struct step_options *o = &s->options;
	int64_t len = o->context, per_lane = o->batch / o->lanes;
	double *sums = s->lane_sums + (comm_rank(s->comm) * s->rank_lanes + lane) * LANE_SUMS;
	float scale = 1.0f / (float)(o->batch * len);

	for (int64_t first = lane * per_lane; first < (lane + 1) * per_lane; first += o->micro_batch) {
		struct kernels_targets targets = {.n_rows = o->micro_batch * len, .next = s->next, .residual = o->residual};
		struct kernels_loss_sums micro;
		int rc;

		step_split(s, rows->tokens + first * (len + 1), o->micro_batch);
		if (rows->weight != NULL) {
			for (int64_t i = 0; i < o->micro_batch * len; i++)
				s->row_weight[i] = rows->weight[first + i / len];
			targets.weight = s->row_weight;
			if (rows->offsets != NULL) {
				targets.offsets = rows->offsets + first * len;
				targets.ids = rows->ids;
				targets.values = rows->values;
			}
			if (rows->dense != NULL)
				targets.dense = rows->dense + first * len * s->model->config.vocab_size;
		}
		if ((rc = model_forward(s->session, s->inputs, o->micro_batch, len)) != 0)
			log_fatal("step.tokens", "rc=%d why=\"windows are checked when they are read\"", rc);
		if ((rc = model_loss(s->session, &targets, scale, grads, &micro)) != 0)
			log_fatal("step.targets", "rc=%d why=\"rows were checked before they came here\"", rc);
		s->reducing = lane == s->rank_lanes - 1 && first + o->micro_batch == (lane + 1) * per_lane;
		model_backward(s->session, grads);
		s->reducing = false;
		lane_add(sums, &micro);
	}
}

/*
 * All lanes of this rank; returns the buffer that reduce_end completes. Lane sums are added by adjacent pairs, like a binary counter;
 * the last lane's additions are reduce's.
 */
static float *
step_lanes(struct step *s, const struct step_rows *rows)
{
	size_t bytes = (size_t)s->model->n_params * sizeof(float);
	float **tree = s->grads;
	int64_t top = s->n_tree - 1, last = s->rank_lanes - 1;

	memset(s->lane_sums, 0, (size_t)s->options.lanes * LANE_SUMS * sizeof(double));
	if (!s->options.deterministic) {
		kernels_zero(s->kernels, tree[0], bytes);
		reduce_begin(s->reduce, tree[0], NULL, 0);
		for (int64_t lane = 0; lane <= last; lane++)
			step_lane(s, rows, lane, tree[0]);
		return tree[0];
	}
	for (int64_t lane = 0; lane <= last; lane++) {
		int64_t level = 0;

		/* tree[top] is free: levels 0 .. top-1 hold at most one sum each until the last lane, where they hold one each. */
		kernels_zero(s->kernels, tree[top], bytes);
		if (lane == last)
			reduce_begin(s->reduce, tree[top], tree, (int)top);
		step_lane(s, rows, lane, tree[top]);
		for (; lane < last && lane >> level & 1; level++)
			kernels_accumulate(s->kernels, tree[top], tree[level], s->model->n_params);
		if (level < top && lane < last) {
			float *t = tree[level];

			tree[level] = tree[top];
			tree[top] = t;
		}
	}
	return tree[top];
}

void
step_run(struct step *s, const struct step_rows *rows, float lr, int64_t update, struct step_result *out)
{
	double total[LANE_SUMS], start = seconds_now(), computed, reduced;
	int64_t begin = s->shard.begin, n_own = s->shard.end - s->shard.begin;
	struct reduce_stats reduce;
	float *grads;

	memset(out, 0, sizeof(*out));
	grads = step_lanes(s, rows);
	kernels_sync(s->kernels);
	computed = seconds_now();
	reduce_end(s->reduce, &reduce);
	memset(s->blocks, 0, (size_t)s->n_blocks * sizeof(double));
	if (n_own > 0)
		kernels_norm_blocks(s->kernels, grads + begin, n_own, s->blocks + begin / KERNELS_NORM_BLOCK);
	comm_sum(s->comm, s->blocks, (size_t)s->n_blocks);
	lanes_total(s, total);
	out->grad_norm = optim_norm(s->blocks, s->n_blocks);
	reduced = seconds_now();
	out->loss = total[LANE_LOSS] / total[LANE_ROWS];
	out->hard = total[LANE_HARD] / total[LANE_ROWS];
	out->accuracy = total[LANE_CORRECT] / total[LANE_ROWS];
	out->kd_tokens = (int64_t)total[LANE_KD_ROWS];
	if (out->kd_tokens > 0) {
		out->soft = total[LANE_SOFT] / total[LANE_KD_ROWS];
		out->entropy = total[LANE_ENTROPY] / total[LANE_KD_ROWS];
	}
	out->skipped = total[LANE_NOT_FINITE] > 0 || !isfinite(out->loss) || !isfinite(out->grad_norm);
	if (!out->skipped) {
		if (n_own > 0)
			optim_adamw(s->kernels, &s->options.optim, update - 1, lr, optim_clip_scale(out->grad_norm, s->options.optim.clip), s->spans,
			    s->model->n_tensors, begin, s->shard.end, s->masters, s->m, s->v, grads + begin, step_copy(s), s->model->dtype);
		kernels_sync(s->kernels);
		shard_gather(&s->shard, s->comm, s->params, dtype_size(s->model->dtype));
		model_changed(s->model);
	}
	kernels_sync(s->kernels);
	out->compute_s = computed - start;
	out->overlap_s = reduce.inside_s;
	out->exposed_s = reduce.exposed_s;
	out->reduced_early = reduce.early;
	out->reduce_s = reduced - computed;
	out->update_s = seconds_now() - reduced;
}

int
step_evaluate(struct step *s, uint64_t n, int (*get)(void *arg, uint64_t i, int32_t *out), void *arg, struct step_eval *out)
{
	struct model_evaluation e = {.n_windows = n, .context = s->options.context, .group = s->options.micro_batch, .lanes = s->options.lanes,
	    .get = get, .arg = arg};
	int64_t own = comm_rank(s->comm) * s->rank_lanes;
	struct kernels_loss_sums sums;
	double total[LANE_SUMS];
	int64_t failed[2] = {0, 0};
	int rc = 0;

	memset(out, 0, sizeof(*out));
	memset(s->lane_sums, 0, (size_t)e.lanes * LANE_SUMS * sizeof(double));
	for (int64_t lane = own; lane < own + s->rank_lanes && rc == 0; lane++)
		if ((rc = model_evaluate_lane(s->session, &e, lane, &sums)) == 0)
			lane_add(s->lane_sums + lane * LANE_SUMS, &sums);
	failed[0] = rc > 0 ? rc : 0;
	failed[1] = rc < 0 ? -rc : 0;
	comm_max(s->comm, failed, 2);
	if (failed[1] != 0 || failed[0] != 0)
		return failed[1] != 0 ? -(int)failed[1] : (int)failed[0];
	lanes_total(s, total);
	out->tokens = (int64_t)total[LANE_ROWS];
	out->finite = total[LANE_NOT_FINITE] == 0;
	if (out->tokens > 0) {
		out->loss = total[LANE_HARD] / total[LANE_ROWS];
		out->accuracy = total[LANE_CORRECT] / total[LANE_ROWS];
	}
	return 0;
}
