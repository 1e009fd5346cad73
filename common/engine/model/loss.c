/*
 * loss - the output layer: mixed-target loss, logits for generation, scores and labels. Logits are never stored as a whole.
 */
#include <inttypes.h>
#include <math.h>

#include "base/log/log.h"
#include "engine/model/session.h"

/* ---- what a row may be trained towards ---- */

#define SUM_SLACK 1e-3			/* labels are stored rounded */

static int
refuse_row(struct err_note *note, int64_t row, const char *what, const char *expected, double found)
{
	return err_expect_at(note, ERR_RANGE, "%s", "row %" PRId64, "%s", "%.9g", what, row, expected, found);
}

static int
check_probabilities(const float *values, int64_t n, double *sum, int64_t row, struct err_note *note)
{
	*sum = 0;
	for (int64_t i = 0; i < n; i++) {
		if (!(values[i] >= 0 && values[i] <= 1 + SUM_SLACK))
			return refuse_row(note, row, "soft label", "probabilities from 0 to 1", values[i]);
		*sum += values[i];
	}
	return 0;
}

static int
check_sparse(const struct model_config *cfg, const struct kernels_targets *t, int64_t row, bool used, struct err_note *note)
{
	int64_t from = t->offsets[row], to = t->offsets[row + 1];
	double sum;
	int rc;

	if (from < 0 || to < from || to - from > cfg->vocab_size)
		return refuse_row(note, row, "soft label", "from 0 to vocab_size entries", (double)(to - from));
	for (int64_t i = from; i < to; i++) {
		if (t->ids[i] < 0 || t->ids[i] >= cfg->vocab_size)
			return refuse_row(note, row, "id of the soft label", "0 to vocab_size - 1", t->ids[i]);
		if (i > from && t->ids[i] <= t->ids[i - 1])
			return refuse_row(note, row, "id of the soft label", "ascending ids", t->ids[i]);
	}
	if (!used)
		return 0;
	if ((rc = check_probabilities(t->values + from, to - from, &sum, row, note)) != 0)
		return rc;
	if (!(sum <= 1 + SUM_SLACK))
		return refuse_row(note, row, "sum of the soft label", "at most 1", sum);
	if (t->residual == KERNELS_RESIDUAL_RENORMALISE && !(sum > 0))
		return refuse_row(note, row, "sum of the soft label", "something to renormalise", sum);
	return 0;
}

static int
check_dense(const struct model_config *cfg, const struct kernels_targets *t, int64_t row, struct err_note *note)
{
	double sum;
	int rc;

	if ((rc = check_probabilities(t->dense + row * cfg->vocab_size, cfg->vocab_size, &sum, row, note)) != 0)
		return rc;
	if (!(fabs(sum - 1) <= SUM_SLACK))
		return refuse_row(note, row, "sum of the soft label", "1", sum);
	return 0;
}

int
model_targets_check(const struct model_config *cfg, const struct kernels_targets *t, int64_t n_rows, struct err_note *note)
{
	int rc;

	if (t->n_rows != n_rows)
		return err_expect(note, ERR_RANGE, "targets", "%" PRId64 " rows", "%" PRId64, n_rows, t->n_rows);
	for (int64_t row = 0; row < n_rows; row++) {
		float w = t->weight != NULL ? t->weight[row] : 0;

		if (t->next[row] < 0 || t->next[row] >= cfg->vocab_size)
			return refuse_row(note, row, "next token", "0 to vocab_size - 1", t->next[row]);
		if (!(w >= 0 && w <= 1))
			return refuse_row(note, row, "weight", "0 to 1", w);
		if (w > 0 && t->offsets == NULL && t->dense == NULL)
			return refuse_row(note, row, "weight", "0 without a soft label", w);
		if (t->offsets != NULL && (rc = check_sparse(cfg, t, row, w > 0, note)) != 0)
			return rc;
		if (t->offsets == NULL && w > 0 && (rc = check_dense(cfg, t, row, note)) != 0)
			return rc;
	}
	return 0;
}

/* ---- the output layer ---- */

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
	struct model__ends ends, d_ends;
	int rc;

	if ((rc = model_targets_check(&s->model->config, targets, s->b * s->t, NULL)) != 0)
		return rc;
	ends = output_ends(s, "model.loss");
	final = model__buffer(s, BUFFER_FINAL, 0);
	if (d_params != NULL) {
		model__ends_views(s->model, d_params, DTYPE_F32, &d_ends);
		d_w = d_ends.output_w;
		d_final = model__buffer(s, BUFFER_D_NORM, 0);
	}
	kernels_output_loss(s->kernels, &final, &ends.output_w, targets, grad_scale, &d_final, &d_w, sums);
	s->state = d_params != NULL ? STATE_LOSS : STATE_FORWARD;
	return 0;
}

void
model_logits(struct model_session *s, int64_t begin, int64_t n, float *out)
{
	const struct tensor absent = {.data = NULL};
	int64_t v = s->model->config.vocab_size;
	struct model__ends ends = output_ends(s, "model.logits");
	struct tensor final = model__buffer(s, BUFFER_FINAL, 0), logits = model__buffer(s, BUFFER_LOGITS, 0);

	if (begin < 0 || n < 0 || begin + n > s->b * s->t)
		log_fatal("model.logits", "begin=%" PRId64 " n=%" PRId64 " rows=%" PRId64, begin, n, s->b * s->t);
	for (int64_t done = 0; done < n; done += logits.dims[0], out += logits.dims[0] * v) {
		struct tensor rows;

		logits.dims[0] = n - done < MODEL_LOGITS_ROWS ? n - done : MODEL_LOGITS_ROWS;
		rows = tensor_rows(&final, begin + done, logits.dims[0]);
		kernels_linear(s->kernels, &logits, &rows, &ends.output_w, &absent, KERNELS_OUT_IN, false);
		kernels_download(s->kernels, out, logits.data, (size_t)tensor_count(&logits) * dtype_size(logits.dtype));
	}
}

int
model_labels(struct model_session *s, const struct kernels_label_spec *spec, const int32_t *targets, const uint64_t *seqs,
    struct kernels_labels *out)
{
	int64_t v = s->model->config.vocab_size, valid = spec->n_valid > 0 ? spec->n_valid : v;
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
	kernels_output_label(s->kernels, &final, &ends.output_w, spec, spec->score ? targets : NULL, seqs, s->b, s->t, out);
	return 0;
}
