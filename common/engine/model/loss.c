/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loss - the output layer: mixed-target loss, logits, scores and labels. Only a chunk of rows has logits at a
 * time.
 */
#include <inttypes.h>

#include "base/log/log.h"
#include "engine/model/session.h"

static struct model__ends
output_ends(struct model_session *s, const char *event)
{
	struct model__ends ends;

	if (s->state == STATE_EMPTY)
		log_fatal(event, "msg=\"no model_forward before\"");
	model__need(s, s->model->config.tied ? -1 : (int)s->model->config.n_layers);
	model__ends_views(s->model, s->model->params, s->model->dtype, &ends);
	return ends;
}

int
model_loss(struct model_session *s, const struct kernels_targets *targets, float grad_scale, float *d_params,
    struct kernels_loss_sums *sums)
{
	struct tensor final, d_final = {.data = NULL}, d_w = {.data = NULL};
	struct model__ends ends, d_ends = {.output_b = {.data = NULL}};
	struct kernels_output more = {.soft_cap = s->model->config.logit_cap, .overwrite = s->fresh};
	int rc;

	if ((rc = model__targets_check(&s->model->config, targets, s->b * s->t, NULL)) != 0)
		return rc;
	ends = output_ends(s, "model.loss");
	final = model__buffer(s, BUFFER_FINAL, 0);
	if (d_params != NULL) {
		model__ends_views(s->model, d_params, DTYPE_F32, &d_ends);
		d_w = d_ends.output_w;
		d_final = model__buffer(s, BUFFER_D_NORM, 0);
	}
	more.bias = &ends.output_b;
	more.d_bias = &d_ends.output_b;
	kernels_output_loss(s->kernels, &final, &ends.output_w, &more, targets, grad_scale, &d_final, &d_w, sums);
	s->state = d_params != NULL ? STATE_LOSS : STATE_FORWARD;
	return 0;
}

void
model_logits(struct model_session *s, int64_t begin, int64_t n, float *out)
{
	const float cap = s->model->config.logit_cap;
	int64_t v = s->model->config.vocab_size;
	struct model__ends ends = output_ends(s, "model.logits");
	struct tensor final = model__buffer(s, BUFFER_FINAL, 0), logits = model__buffer(s, BUFFER_LOGITS, 0);

	if (begin < 0 || n < 0 || begin + n > s->b * s->t)
		log_fatal("model.logits", "begin=%" PRId64 " n=%" PRId64 " rows=%" PRId64, begin, n, s->b * s->t);
	for (int64_t done = 0; done < n; done += logits.dims[0], out += logits.dims[0] * v) {
		struct tensor rows;

		logits.dims[0] = n - done < MODEL_LOGITS_ROWS ? n - done : MODEL_LOGITS_ROWS;
		rows = tensor_rows(&final, begin + done, logits.dims[0]);
		kernels_linear(s->kernels, &logits, &rows, &ends.output_w, &ends.output_b, KERNELS_OUT_IN, false);
		if (cap > 0)
			kernels_soft_cap(s->kernels, &logits, cap);
		kernels_download(s->kernels, out, logits.data, (size_t)tensor_count(&logits) * dtype_size(logits.dtype));
	}
}

int
model_labels(struct model_session *s, const struct kernels_label_spec *spec, const int32_t *targets, const uint64_t *seqs,
    struct kernels_labels *out)
{
	int64_t v = s->model->config.vocab_size, valid = spec->n_valid > 0 ? spec->n_valid : v;
	struct kernels_output more = {.soft_cap = s->model->config.logit_cap};
	struct model__ends ends;
	struct tensor final;

	if (valid > v || (spec->score && targets == NULL))
		return ERR_RANGE;
	if (spec->kind == KERNELS_LABEL_SAMPLED && spec->n < 1)
		return ERR_RANGE;
	if (spec->kind == KERNELS_LABEL_TOPK && (spec->n < 1 || spec->n > valid))
		return ERR_RANGE;
	if (spec->kind != KERNELS_LABEL_NONE && !(spec->tau > 0))
		return ERR_RANGE;
	for (int64_t i = 0; spec->score && i < s->b * s->t; i++)
		if (targets[i] < 0 || targets[i] >= valid)
			return ERR_RANGE;
	ends = output_ends(s, "model.labels");
	final = model__buffer(s, BUFFER_FINAL, 0);
	more.bias = &ends.output_b;
	kernels_output_label(s->kernels, &final, &ends.output_w, &more, spec, spec->score ? targets : NULL, seqs, s->b, s->t, out);
	return 0;
}
