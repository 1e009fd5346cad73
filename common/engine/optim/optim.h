/* SPDX-License-Identifier: Apache-2.0 */
/*
 * optim - learning rate schedules, clipping, AdamW on a range of the flat parameters, and Muon on whole
 * matrices. Pure: no state, any thread.
 */
#ifndef SALT_OPTIM_H
#define SALT_OPTIM_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/kernels/kernels.h"

/* In the order of the choices in fleet.yaml (trainer.schedule). */
enum optim_schedule { OPTIM_SCHEDULE_COSINE, OPTIM_SCHEDULE_LINEAR, OPTIM_SCHEDULE_WSD, OPTIM_SCHEDULE_CONSTANT };

enum optim_kind { OPTIM_ADAMW, OPTIM_MUON };
#define OPTIM_NAMES {"adamw", "muon"}	/* indexed by kind */

/* As in fleet.yaml's trainer section. */
struct optim_config {
	enum optim_kind kind;
	double lr;			/* peak */
	double min_lr_ratio;		/* lr at the end / peak, 0..1; constant does not use it */
	int64_t steps;			/* steps of the whole run */
	int64_t warmup;			/* steps, 0..steps */
	int64_t decay_steps;		/* wsd only; warmup + decay_steps <= steps */
	enum optim_schedule schedule;
	double beta1, beta2, eps;
	double weight_decay;
	double clip;			/* largest norm; 0: off */
};

/*
 * optim_lr - the learning rate of @step, counted from 0. With min = lr * min_lr_ratio:
 *   step < warmup      lr * (step + 1) / warmup
 *   constant           lr
 *   cosine             min + (lr - min) * (1 + cos(pi x)) / 2,  x = (step - warmup) / (steps - warmup)
 *   linear             lr - (lr - min) * x
 *   wsd                lr until step = steps - decay_steps, then min + (lr - min) * (1 - sqrt(x)),
 *                      x = (step - (steps - decay_steps)) / decay_steps (Haegele et al., 2024)
 * x is 1 only at step = steps, one past the last; from there on the result is min (constant: lr).
 */
double optim_lr(const struct optim_config *cfg, int64_t step);

/*
 * optim_norm - the square root of the sum, in order, of all n blocks of kernels_norm_blocks. NaN or infinite
 * if a block is; test it with isfinite.
 */
double optim_norm(const double *blocks, int64_t n);

/* optim_clip_scale - min(1, clip / (norm + 1e-6)), as PyTorch clips gradients; 1 if clip is 0. norm finite */
float optim_clip_scale(double norm, double clip);

/* Weight decay of parameters [begin, begin of the next span). begin ascends; that of the first span is 0. */
struct optim_span {
	int64_t begin;
	bool decay;
};

/*
 * optim_adamw - one AdamW update of elements [begin, end) of the flat order. w, m, v, grad (and copy) point
 * at element begin.
 * @step       counted from 0
 * @lr         the learning rate of this step: optim_lr()
 * @grad_scale factor for gradients: optim_clip_scale()
 */
void optim_adamw(struct kernels *k, const struct optim_config *cfg, int64_t step, double lr, float grad_scale,
    const struct optim_span *spans, int64_t n_spans, int64_t begin, int64_t end, float *w, float *m, float *v, const float *grad,
    void *copy, enum dtype copy_dtype);

#define OPTIM_MUON_MOMENTUM 0.95	/* as in Jordan et al. and PyTorch */

/*
 * optim_muon - one Muon update of whole matrices (kernels_muon), with the learning rate and weight decay of
 * AdamW. It sets each matrix's scale to 0.2 sqrt(max(rows, cols)) (Liu et al., 2025, arXiv 2502.16982), so
 * that the root mean square of an update is like AdamW's, about 0.2 to 0.4.
 */
void optim_muon(struct kernels *k, const struct optim_config *cfg, double lr, float grad_scale, struct kernels_muon_matrix *list, int64_t n,
    enum dtype copy_dtype);

/*
 * optim_muon_flops - FLOPs of the Newton-Schulz iteration on a matrix, as the CPU backends compute it in
 * fp32. bf16 takes as many for a square matrix, and a third more for one of 1 : 4, at twice the speed
 * (docs/training.md).
 */
double optim_muon_flops(int64_t rows, int64_t cols);

#endif
