/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/step.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock/clock.h"
#include "base/log/log.h"
#include "base/mem/mem.h"
#include "trainerd/comm_device.h"
#include "trainerd/reduce.h"
#include "trainerd/room.h"

#define MAX_TREE 32
#define GATHER_PIECE (INT64_C(1) << 22)	/* floats that a rank sends to another at a time when parameters are gathered */

/* Loss sums of a lane, in the order of the vector that is summed over ranks. */
enum lane_sum {
	LANE_LOSS, LANE_HARD, LANE_SOFT, LANE_ENTROPY, LANE_WEIGHT, LANE_CORRECT, LANE_KD_ROWS, LANE_ROWS, LANE_LOSS_WEIGHT, LANE_KD_LOSS_WEIGHT,
	LANE_NOT_FINITE, LANE_SUMS
};

struct step {
	struct step_options options;
	struct comm *comm;
	struct kernels *kernels;
	struct model *model;
	struct model_session *session;
	struct optim_split *split;
	struct shard shard;
	int64_t rank_lanes;			/* G / R */
	int64_t n_tree;				/* gradient buffers */
	/* Device memory. */
	void *params;				/* [n_params], the model's, in its dtype */
	float *state[STEP_ARRAYS];		/* of this rank's ranges, one after the other; masters in fp32: params */
	float *grads[MAX_TREE];
	/* Host memory. */
	struct comm_device *device;		/* NULL with one rank */
	struct kernels_event *backward_done;
	struct reduce *reduce;
	bool reducing;				/* in backward of the last micro-batch: its hooks drive reduce */
	int64_t *final_from;			/* [n_layers + 2], from layer -1 on: gradients from here on are final when the layer is done */
	struct range {
		int64_t begin, end;		/* this rank's elements of a part */
		int64_t at;			/* where in state they begin */
	} ranges[STEP_ARRAYS][OPTIM_PARTS];
	struct optim_span *spans;		/* [n_tensors] */
	struct kernels_muon_matrix *matrices;	/* room for all of the model; NULL without Muon */
	double *blocks;				/* [split->n_blocks] sums of squares */
	double *lane_sums;			/* [G, LANE_SUMS] */
	int32_t *inputs, *next;			/* [micro_batch * L] */
	float *row_weight;			/* [micro_batch * L] */
};

static int
step_check(const struct step_options *o, int n_ranks, struct err_note *note)
{
	if (o->lanes <= 0 || (o->lanes & (o->lanes - 1)) != 0 || o->lanes % n_ranks != 0)
		return err_expect(note, ERR_CONFIG, "trainer.lanes",
		    "a power of two that the number of ranks divides (start 1, 2, 4, ... up to trainer.lanes ranks)", "%lld lanes, %d ranks",
		    (long long)o->lanes, n_ranks);
	if (o->micro_batch <= 0 || o->batch % o->lanes != 0 || o->batch / o->lanes % o->micro_batch != 0)
		return err_expect(note, ERR_CONFIG, "trainer.batch", "a multiple of trainer.lanes * trainer.micro_batch = %lld", "%lld",
		    (long long)(o->lanes * o->micro_batch), (long long)o->batch);
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

/*
 * Layers are done from the last to the first: after a layer, all gradients behind the last tensor of the layers
 * before it are final.
 */
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

/* ---- the state of the optimiser ---- */

void
step_range(const struct step *s, enum step_array array, int rank, int part, int64_t *begin, int64_t *end)
{
	optim_split_range(&s->split->parts[part], rank, comm_size(s->comm), begin, end);
	if (array == STEP_V) {
		*begin = optim_split_second(s->split, *begin);
		*end = optim_split_second(s->split, *end);
	}
}

/* Sets this rank's ranges, and allocates memory for them. 0 or ENOMEM. */
static int
step_state(struct step *s)
{
	for (int a = 0; a < STEP_ARRAYS; a++) {
		bool inside = a == STEP_MASTERS && s->model->dtype == DTYPE_F32;
		int64_t n = 0;

		for (int i = 0; i < s->split->n_parts; i++) {
			struct range *r = &s->ranges[a][i];

			step_range(s, (enum step_array)a, comm_rank(s->comm), i, &r->begin, &r->end);
			r->at = inside ? r->begin : n;
			n += r->end - r->begin;
		}
		s->state[a] = inside ? s->params : kernels_alloc(s->kernels, (size_t)n * sizeof(float));
		if (s->state[a] == NULL)
			return ENOMEM;
	}
	return 0;
}

static float *
step_element(const struct step *s, enum step_array array, int part, int64_t i)
{
	const struct range *r = &s->ranges[array][part];

	return s->state[array] + r->at + (i - r->begin);
}

/* Address of the compute-dtype copy of element i; NULL if the masters are that copy. */
static void *
step_copy(const struct step *s, int64_t i)
{
	return s->model->dtype == DTYPE_F32 ? NULL : (char *)s->params + (size_t)i * dtype_size(s->model->dtype);
}

/* The shape for which fit computes the memory. It borrows cfg. */
static struct fit_shape
step_shape(const struct step *s, const struct model_config *cfg)
{
	const struct step_options *o = &s->options;
	struct fit_shape shape = {.model = cfg, .n_params = s->model->n_params,
	    .dtype = kernels_dtype(s->kernels), .gpu = true,
	    .recompute = o->recompute, .deterministic = o->deterministic, .split = s->split, .threads = 1,
	    .batch = (uint64_t)o->batch, .micro_batch = (uint64_t)o->micro_batch, .lanes = (uint64_t)o->lanes,
	    .context = (uint64_t)o->context};

	if (o->optim.kind == OPTIM_MUON)
		fit_muon(&shape, s->model);
	return shape;
}

int
step_new(struct step **out, const struct model_config *cfg, struct kernels *kernels, struct comm *comm,
    const struct step_options *options, struct err_note *note)
{
	struct model_session_options session = {.max_batch = options->micro_batch, .max_tokens = options->context, .training = true,
	    .recompute = options->recompute};
	struct reduce_options reduce = {.bucket = options->bucket, .any_order = !options->deterministic};
	enum dtype dtype = kernels_dtype(kernels);
	int64_t n, n_matrices = 0, rows = options->micro_batch * options->context;
	struct fit_shape shape = {.split = NULL};
	struct optim_split *split;
	struct step *s = NULL;
	int rc;

	*out = NULL;
	if ((rc = step_check(options, comm_size(comm), note)) != 0)
		return rc;
	if ((s = calloc(1, sizeof(*s))) == NULL)
		return ENOMEM;
	s->options = *options;
	if (!options->isolate_documents)
		s->options.document_end = -1;
	s->comm = comm;
	s->kernels = kernels;
	if ((rc = model_new(&s->model, cfg, note)) != 0)
		goto fail;
	if ((rc = optim_split_new(&s->split, s->model, options->optim.kind)) != 0)
		goto fail;
	shape = step_shape(s, cfg);
	if ((rc = room_check(kernels, &shape, comm_size(comm))) != 0 ||
	    (rc = model_session_new(&s->session, s->model, kernels, &session, note)) != 0 ||
	    (rc = model_session_documents(s->session, s->options.document_end)) != 0)
		goto fail;
	n = s->model->n_params;
	s->rank_lanes = options->lanes / comm_size(comm);
	s->n_tree = 1;
	for (int64_t lanes = s->rank_lanes; options->deterministic && lanes > 1; lanes /= 2)
		s->n_tree++;
	rc = ENOMEM;
	if ((s->params = kernels_alloc(kernels, (size_t)n * dtype_size(dtype))) == NULL)
		goto fail;
	model_bind(s->model, s->params, dtype);
	shard_range(&s->shard, s->split, comm_rank(comm), comm_size(comm));
	if (step_state(s) != 0)
		goto fail;
	if (comm_size(comm) > 1 && comm_device_new(&s->device, comm, kernels, 0, GATHER_PIECE) != 0)
		goto fail;
	if ((s->backward_done = kernels_event_new(kernels)) == NULL)
		goto fail;
	if (reduce_new(&s->reduce, s->split, comm, kernels, &reduce) != 0 || step_hooks(s) != 0)
		goto fail;
	for (int64_t i = 0; i < s->n_tree; i++)
		if ((s->grads[i] = kernels_alloc(kernels, (size_t)n * sizeof(float))) == NULL)
			goto fail;
	if ((s->spans = mem_alloc((size_t)s->model->n_tensors, sizeof(*s->spans))) == NULL)
		goto fail;
	for (int i = 0; i < s->model->n_tensors; i++)
		s->spans[i] = (struct optim_span){.begin = s->model->tensors[i].offset, .decay = s->model->tensors[i].decay};
	for (int i = 0; i < s->model->n_tensors; i++)
		n_matrices += s->model->tensors[i].n_matrices;
	if (options->optim.kind == OPTIM_MUON && (s->matrices = mem_alloc((size_t)n_matrices, sizeof(*s->matrices))) == NULL)
		goto fail;
	s->blocks = mem_alloc((size_t)s->split->n_blocks, sizeof(double));
	s->lane_sums = mem_alloc((size_t)options->lanes * LANE_SUMS, sizeof(double));
	s->inputs = mem_alloc((size_t)rows, sizeof(int32_t));
	s->next = mem_alloc((size_t)rows, sizeof(int32_t));
	s->row_weight = mem_alloc((size_t)rows, sizeof(float));
	if (s->blocks == NULL || s->lane_sums == NULL || s->inputs == NULL || s->next == NULL || s->row_weight == NULL)
		goto fail;
	*out = s;
	return 0;
fail:
	split = s->split;			/* shape uses it, and is used below when the memory is free
						   again */
	s->split = NULL;
	step_destroy(&s);
	if (rc == ENOMEM && split != NULL)
		room_note(kernels, &shape, comm_size(comm), note);
	optim_split_destroy(&split);
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
	free(s->matrices);
	free(s->spans);
	for (int64_t i = 0; i < s->n_tree; i++)
		kernels_free(s->kernels, s->grads[i]);
	reduce_destroy(&s->reduce);
	kernels_event_destroy(s->kernels, &s->backward_done);
	comm_device_destroy(&s->device);
	free(s->final_from);
	kernels_free(s->kernels, s->state[STEP_V]);
	kernels_free(s->kernels, s->state[STEP_M]);
	if (s->state[STEP_MASTERS] != s->params)
		kernels_free(s->kernels, s->state[STEP_MASTERS]);
	kernels_free(s->kernels, s->params);
	optim_split_destroy(&s->split);
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

enum optim_kind
step_optim(const struct step *s)
{
	return s->options.optim.kind;
}

int
step_parts(const struct step *s)
{
	return s->split->n_parts;
}

int64_t
step_total(const struct step *s, enum step_array array)
{
	return array == STEP_V ? s->split->n_second : s->split->n;
}

void
step_read(struct step *s, enum step_array array, int64_t begin, int64_t count, float *out)
{
	int part = 0;

	while (part + 1 < s->split->n_parts && begin >= s->ranges[array][part].end)
		part++;
	kernels_download(s->kernels, out, step_element(s, array, part, begin), (size_t)count * sizeof(float));
}

int
step_fill(struct step *s, enum step_array array, step_source *source, void *arg, struct err_note *note)
{
	float *piece = mem_alloc((size_t)STEP_PIECE, sizeof(*piece));
	int rc = piece == NULL ? ENOMEM : 0;

	for (int part = 0; part < s->split->n_parts; part++) {
		int64_t end = s->ranges[array][part].end;

		for (int64_t at = s->ranges[array][part].begin; at < end && rc == 0; at += STEP_PIECE) {
			int64_t n = end - at < STEP_PIECE ? end - at : STEP_PIECE;

			if ((rc = source(arg, (uint64_t)at, (uint64_t)n, piece, note)) == 0)
				kernels_upload(s->kernels, step_element(s, array, part, at), piece, (size_t)n * sizeof(float));
		}
	}
	free(piece);
	return rc;
}

struct init {
	const struct model *model;
	uint32_t seed;
};

static int
init_source(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	const struct init *init = arg;

	(void)note;
	model_init(init->model, init->seed, (int64_t)begin, (int64_t)(begin + count), out);
	return 0;
}

int
step_init(struct step *s, uint32_t seed, struct err_note *note)
{
	struct init init = {.model = s->model, .seed = seed};

	if (kernels_host_pointer(s->kernels, s->state[STEP_MASTERS]) == NULL)
		return step_fill(s, STEP_MASTERS, init_source, &init, note);
	/* All threads write whole ranges in place: each creates the pages that it fills. */
	for (int part = 0; part < s->split->n_parts; part++) {
		const struct range *r = &s->ranges[STEP_MASTERS][part];

		if (r->begin < r->end)
			model_init(s->model, seed, r->begin, r->end, kernels_host_pointer(s->kernels, step_element(s, STEP_MASTERS, part, r->begin)));
	}
	return 0;
}

/* Called when this rank's ranges of the parameters have changed: exchanges them with the other ranks. */
static void
step_gather(struct step *s)
{
	shard_gather(&s->shard, s->device, s->params, dtype_size(s->model->dtype));
	model_changed(s->model);
}

void
step_spread(struct step *s)
{
	/* Rounded as the optimiser rounds: a resumed run has the copy that it would have had without the stop. */
	for (int i = 0; i < s->split->n_parts && s->model->dtype != DTYPE_F32; i++) {
		const struct range *r = &s->ranges[STEP_MASTERS][i];

		if (r->begin < r->end)
			kernels_convert(s->kernels, step_copy(s, r->begin), s->model->dtype, step_element(s, STEP_MASTERS, i, r->begin), DTYPE_F32,
			    r->end - r->begin);
	}
	step_gather(s);
}

/* Splits n sequences of L+1 tokens into inputs and targets. */
static void
step_split(struct step *s, const int32_t *windows, int64_t n)
{
	int64_t len = s->options.context;

	for (int64_t i = 0; i < n; i++) {
		memcpy(s->inputs + i * len, windows + i * (len + 1), (size_t)len * sizeof(int32_t));
		memcpy(s->next + i * len, windows + i * (len + 1) + 1, (size_t)len * sizeof(int32_t));
	}
	model_document_targets(s->inputs, n * len, s->options.document_end, s->next);
}

static void
lane_add(double *lane, const struct kernels_loss_sums *sums)
{
	lane[LANE_LOSS] += sums->loss;
	lane[LANE_HARD] += sums->hard;
	lane[LANE_SOFT] += sums->soft;
	lane[LANE_ENTROPY] += sums->entropy;
	lane[LANE_WEIGHT] += sums->weight;
	lane[LANE_CORRECT] += (double)sums->correct;
	lane[LANE_KD_ROWS] += (double)sums->kd_rows;
	lane[LANE_ROWS] += (double)sums->rows;
	lane[LANE_LOSS_WEIGHT] += sums->loss_weight;
	lane[LANE_KD_LOSS_WEIGHT] += sums->kd_loss_weight;
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

/*
 * Runs forward, loss and backward of one lane (numbered within this rank) into grads. The last backward of
 * the last lane drives reduce.
 */
static void
step_lane(struct step *s, const struct step_rows *rows, int64_t lane, float *grads)
{
	const struct step_options *o = &s->options;
	int64_t len = o->context, per_lane = o->batch / o->lanes;
	double *sums = s->lane_sums + (comm_rank(s->comm) * s->rank_lanes + lane) * LANE_SUMS;
	float scale = 1.0f / (float)(o->batch * len);

	for (int64_t first = lane * per_lane; first < (lane + 1) * per_lane; first += o->micro_batch) {
		struct kernels_targets targets = {.n_rows = o->micro_batch * len, .next = s->next, .residual = o->residual,
		    .loss_weight = rows->loss_weight != NULL ? rows->loss_weight + first * len : NULL, .token_weight = o->token_weight};
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
			log_fatal("step.tokens",
			    "rc=%d why=\"the corpus reader accepted a token outside the vocabulary\"", rc);
		if ((rc = model_loss(s->session, &targets, scale, grads, &micro)) != 0)
			log_fatal("step.targets", "rc=%d why=\"the feed accepted invalid targets\"", rc);
		s->reducing = lane == s->rank_lanes - 1 && first + o->micro_batch == (lane + 1) * per_lane;
		model_backward(s->session, grads);
		s->reducing = false;
		lane_add(sums, &micro);
	}
}

/*
 * Runs all lanes of this rank; returns the buffer that reduce_end completes. Lane sums are added by adjacent
 * pairs, like carries of a binary counter; reduce does the additions of the last lane.
 */
static float *
step_lanes(struct step *s, const struct step_rows *rows)
{
	float **tree = s->grads;
	int64_t top = s->n_tree - 1, last = s->rank_lanes - 1;

	memset(s->lane_sums, 0, (size_t)s->options.lanes * LANE_SUMS * sizeof(double));
	if (!s->options.deterministic) {
		model_gradients_zero(s->session, tree[0]);
		reduce_begin(s->reduce, tree[0], NULL, 0);
		for (int64_t lane = 0; lane <= last; lane++)
			step_lane(s, rows, lane, tree[0]);
		return tree[0];
	}
	for (int64_t lane = 0; lane <= last; lane++) {
		int64_t level = 0;

		/*
		 * tree[top] is free: levels 0 .. top-1 hold at most one sum each until the last lane, where they hold
		 * one each.
		 */
		model_gradients_zero(s->session, tree[top]);
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

/* Runs AdamW on elements [begin, end) of this rank's range of a part. */
static void
step_adamw(struct step *s, int part, int64_t begin, int64_t end, const float *grads, float lr, int64_t update, float scale)
{
	if (begin < end)
		optim_adamw(s->kernels, &s->options.optim, update - 1, lr, scale, s->spans, s->model->n_tensors, begin, end,
		    step_element(s, STEP_MASTERS, part, begin), step_element(s, STEP_M, part, begin),
		    step_element(s, STEP_V, part, optim_split_second(s->split, begin)), grads + begin, step_copy(s, begin), s->model->dtype);
}

/* Adds the matrices of a tensor to the list of n matrices; returns the new n. */
static int64_t
step_matrices(struct step *s, int part, int tensor, const float *grads, int64_t n)
{
	for (int i = 0; i < s->model->tensors[tensor].n_matrices; i++) {
		struct model_matrix x = model_matrix(s->model, tensor, i);

		s->matrices[n++] = (struct kernels_muon_matrix){.w = step_element(s, STEP_MASTERS, part, x.begin),
		    .m = step_element(s, STEP_M, part, x.begin), .grad = grads + x.begin, .copy = step_copy(s, x.begin), .rows = x.rows,
		    .cols = x.cols, .ld = x.ld, .group = x.group, .group_stride = x.group_stride};
	}
	return n;
}

/* Updates everything that this rank owns. */
static void
step_update(struct step *s, const float *grads, float lr, int64_t update, float scale)
{
	int64_t n = 0;

	for (int part = 0; part < s->split->n_parts; part++) {
		const struct optim_part *p = &s->split->parts[part];
		const struct range *r = &s->ranges[STEP_MASTERS][part];

		if (p->pieces == NULL)
			step_adamw(s, part, r->begin, r->end, grads, lr, update, scale);
		for (int i = 0; i < p->n_pieces; i++) {
			if (p->pieces[i].begin < r->begin || p->pieces[i].end > r->end)
				continue;
			if (s->model->tensors[p->pieces[i].tensor].n_matrices > 0)
				n = step_matrices(s, part, p->pieces[i].tensor, grads, n);
			else
				step_adamw(s, part, p->pieces[i].begin, p->pieces[i].end, grads, lr, update, scale);
		}
	}
	if (n > 0)
		optim_muon(s->kernels, &s->options.optim, lr, scale, s->matrices, n, s->model->dtype);
}

void
step_run(struct step *s, const struct step_rows *rows, float lr, int64_t update, struct step_result *out)
{
	double total[LANE_SUMS], start = clock_now_s(), computed, reduced, correction;
	struct reduce_stats reduce;
	float *grads;

	memset(out, 0, sizeof(*out));
	grads = step_lanes(s, rows);
	kernels_event_record(s->kernels, s->backward_done);
	while (!kernels_event_done(s->kernels, s->backward_done))	/* while a device still computes,
									   finished buckets are transferred */
		reduce_poll(s->reduce);
	computed = clock_now_s();
	reduce_end(s->reduce, &reduce);
	memset(s->blocks, 0, (size_t)s->split->n_blocks * sizeof(double));
	for (int i = 0; i < s->split->n_parts; i++)
		optim_split_norm(&s->split->parts[i], s->kernels, grads, s->shard.parts[i].begin, s->shard.parts[i].end, s->blocks);
	comm_sum(s->comm, s->blocks, (size_t)s->split->n_blocks);
	lanes_total(s, total);
	/*
	 * Gradients are sums divided by batch * L; the sum of the weights of the targets is known only now.
	 * The correction is 1 unless documents are isolated or have loss weights.
	 */
	out->masked = total[LANE_LOSS_WEIGHT] == 0;
	correction = out->masked ? 1 : (double)(s->options.batch * s->options.context) / total[LANE_LOSS_WEIGHT];
	out->grad_norm = optim_norm(s->blocks, s->split->n_blocks) * correction;
	reduced = clock_now_s();
	out->loss = total[LANE_LOSS] / total[LANE_LOSS_WEIGHT];
	out->hard = total[LANE_HARD] / total[LANE_LOSS_WEIGHT];
	out->accuracy = total[LANE_CORRECT] / total[LANE_ROWS];
	out->kd_tokens = (int64_t)total[LANE_KD_ROWS];
	if (out->kd_tokens > 0) {
		out->soft = total[LANE_SOFT] / total[LANE_KD_LOSS_WEIGHT];
		out->entropy = total[LANE_ENTROPY] / total[LANE_KD_LOSS_WEIGHT];
		out->weight = total[LANE_WEIGHT] / total[LANE_KD_ROWS];
	}
	out->skipped = !out->masked && (total[LANE_NOT_FINITE] > 0 || !isfinite(out->loss) || !isfinite(out->grad_norm));
	if (!out->skipped && !out->masked) {
		step_update(s, grads, lr, update, optim_clip_scale(out->grad_norm, s->options.optim.clip) * (float)correction);
		step_gather(s);
	}
	kernels_sync(s->kernels);
	out->compute_s = computed - start;
	out->overlap_s = reduce.inside_s;
	out->exposed_s = reduce.exposed_s;
	out->reduced_early = reduce.early;
	out->reduce_s = reduced - computed;
	out->update_s = clock_now_s() - reduced;
}

int
step_evaluate(struct step *s, uint64_t n, int (*get)(void *arg, uint64_t i, int32_t *out), void *arg, double *window_nats,
    struct step_eval *out)
{
	struct model_evaluation e = {.n_windows = n, .context = s->options.context, .group = s->options.micro_batch, .lanes = s->options.lanes,
	    .get = get, .arg = arg, .window_nats = window_nats};
	int64_t own = comm_rank(s->comm) * s->rank_lanes;
	struct kernels_loss_sums sums;
	double total[LANE_SUMS];
	int64_t failed[2] = {0, 0};
	int rc = 0;

	memset(out, 0, sizeof(*out));
	memset(s->lane_sums, 0, (size_t)e.lanes * LANE_SUMS * sizeof(double));
	if (window_nats != NULL)
		memset(window_nats, 0, n * sizeof(*window_nats));
	for (int64_t lane = own; lane < own + s->rank_lanes && rc == 0; lane++)
		if ((rc = model_evaluate_lane(s->session, &e, lane, &sums)) == 0)
			lane_add(s->lane_sums + lane * LANE_SUMS, &sums);
	failed[0] = rc > 0 ? rc : 0;
	failed[1] = rc < 0 ? -rc : 0;
	comm_max(s->comm, failed, 2);
	if (failed[1] != 0 || failed[0] != 0)
		return failed[1] != 0 ? -(int)failed[1] : (int)failed[0];
	lanes_total(s, total);
	if (window_nats != NULL)
		comm_sum(s->comm, window_nats, n);
	out->tokens = (int64_t)total[LANE_ROWS];
	out->finite = total[LANE_NOT_FINITE] == 0;
	if (out->tokens > 0) {
		out->loss = total[LANE_HARD] / total[LANE_ROWS];
		out->accuracy = total[LANE_CORRECT] / total[LANE_ROWS];
	}
	return 0;
}
