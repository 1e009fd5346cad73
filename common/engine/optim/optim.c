/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/optim/optim.h"

#include <math.h>

#define PI 3.14159265358979323846

/* Position of step between begin and end, as 0..1. */
static double
part(int64_t step, int64_t begin, int64_t end)
{
	if (step >= end)
		return 1;
	return step <= begin ? 0 : (double)(step - begin) / (double)(end - begin);
}

double
optim_lr(const struct optim_config *cfg, int64_t step)
{
	double min = cfg->lr * cfg->min_lr_ratio, range = cfg->lr - min;

	if (step < cfg->warmup)
		return cfg->lr * (double)(step + 1) / (double)cfg->warmup;
	switch (cfg->schedule) {
	case OPTIM_SCHEDULE_COSINE:
		return min + range * 0.5 * (1 + cos(PI * part(step, cfg->warmup, cfg->steps)));
	case OPTIM_SCHEDULE_LINEAR:
		return cfg->lr - range * part(step, cfg->warmup, cfg->steps);
	case OPTIM_SCHEDULE_WSD:
		return min + range * (1 - sqrt(part(step, cfg->steps - cfg->decay_steps, cfg->steps)));
	case OPTIM_SCHEDULE_CONSTANT:
		break;
	}
	return cfg->lr;
}

double
optim_norm(const double *blocks, int64_t n)
{
	double sum = 0;

	for (int64_t i = 0; i < n; i++)
		sum += blocks[i];
	return sqrt(sum);
}

float
optim_clip_scale(double norm, double clip)
{
	double scale = clip / (norm + 1e-6);

	return clip == 0 || scale >= 1 ? 1 : (float)scale;
}

void
optim_adamw(struct kernels *k, const struct optim_config *cfg, int64_t step, double lr, float grad_scale,
    const struct optim_span *spans, int64_t n_spans, int64_t begin, int64_t end, float *w, float *m, float *v, const float *grad,
    void *copy, enum dtype copy_dtype)
{
	int64_t i = 0;

	while (i + 1 < n_spans && spans[i + 1].begin <= begin)
		i++;
	for (int64_t at = begin; at < end; i++) {
		int64_t stop = i + 1 < n_spans && spans[i + 1].begin < end ? spans[i + 1].begin : end, off = at - begin;
		struct kernels_adamw a = {
			.lr = (float)lr,
			.beta1 = (float)cfg->beta1,
			.beta2 = (float)cfg->beta2,
			.eps = (float)cfg->eps,
			.decay = spans[i].decay ? (float)cfg->weight_decay : 0,
			.grad_scale = grad_scale,
			.step = step + 1,
		};

		kernels_adamw(k, w + off, m + off, v + off, grad + off,
		    copy != NULL ? (char *)copy + (size_t)off * dtype_size(copy_dtype) : NULL, copy_dtype, stop - at, &a);
		at = stop;
	}
}

void
optim_muon(struct kernels *k, const struct optim_config *cfg, double lr, float grad_scale, struct kernels_muon_matrix *list, int64_t n,
    enum dtype copy_dtype)
{
	const struct kernels_muon a = {.lr = (float)lr, .momentum = (float)OPTIM_MUON_MOMENTUM, .decay = (float)cfg->weight_decay,
	    .grad_scale = grad_scale, .copy_dtype = copy_dtype};

	for (int64_t i = 0; i < n; i++)
		list[i].scale = (float)(0.2 * sqrt((double)(list[i].rows > list[i].cols ? list[i].rows : list[i].cols)));
	kernels_muon(k, list, n, &a);
}

double
optim_muon_flops(int64_t rows, int64_t cols)
{
	double s = (double)(rows < cols ? rows : cols), l = (double)(rows < cols ? cols : rows);

	return s * s * (3 * l + 17 * s);
}
