/* SPDX-License-Identifier: Apache-2.0 */
#include "saltctl/plan/price.h"

#include <math.h>

#include "engine/kernels/kernels.h"

/* Size of the first part if n elements are halved in whole blocks. */
static int64_t
front(int64_t n)
{
	int64_t blocks = (n + KERNELS_NORM_BLOCK - 1) / KERNELS_NORM_BLOCK,
	    half = (blocks + 1) / 2 * KERNELS_NORM_BLOCK;

	return half < n ? half : n;
}

double
price_share(const struct optim_split *split, int n_ranks)
{
	double all = 0, most = 0;

	for (int r = 0; r < n_ranks; r++) {
		double mine = 0;

		for (int i = 0; i < split->n_parts; i++) {
			int64_t begin, end;

			optim_split_range(&split->parts[i], r, n_ranks, &begin, &end);
			mine += optim_split_cost(&split->parts[i], begin, end);
		}
		all += mine;
		most = mine > most ? mine : most;
	}
	return most / all;
}

static uint64_t
at_most(uint64_t n, uint64_t limit)
{
	return limit > 0 && n > limit ? limit : n;
}

void
price_work(struct price_work *w, uint64_t rows, uint64_t window, uint64_t kept, bool selects, bool one_model,
    uint64_t n_windows)
{
	*w = (struct price_work){.rows = rows, .one_pass = selects && one_model};
	w->labelled = w->stored = at_most(rows, n_windows);
	if (!selects || rows == 0)
		return;
	w->blocks = (rows - 1) / kept + 1;
	w->scored = at_most(w->blocks * window, n_windows);
	if (one_model) {
		w->labelled = w->scored;
		w->stored = at_most(w->blocks * kept, n_windows);
	}
}

double
price_unique(uint32_t n_draws)
{
	double power = log(12.0 / 5.0) / log(50.0 / 13.0), u = 12 * pow((double)n_draws / 50, power);

	return n_draws == 0 ? 0 : u < 1 ? 1 : u > (double)n_draws ? (double)n_draws : u;
}

/* ---- time ---- */

static int
host_ranks(const struct price_machine *m, int n_ranks)
{
	return n_ranks < m->ranks_per_host ? n_ranks : m->ranks_per_host;
}

double
price_cores(const struct price_machine *m, int n_ranks)
{
	double share = m->cores / host_ranks(m, n_ranks);

	return m->threads > 0 && m->threads < share ? m->threads : share;
}

static double
exchange(const struct price_machine *m, int n_ranks, int level, double bytes)
{
	int here = host_ranks(m, n_ranks);
	bool inside = 1 << level < here;
	const struct price_link *link = inside ? &m->within : &m->between;
	/* Between hosts all ranks of a host share its link; within a host, copying needs cores. */
	double shared = inside ? (here > m->cores ? here / m->cores : 1) : here;

	return link->latency_s + shared * bytes / link->bytes_per_s;
}

double
price_gather(const struct fit_shape *s, const struct price_machine *m, int n_ranks)
{
	double seconds = 0;
	int64_t n = s->n_params;

	for (int level = 0; 1 << level < n_ranks; level++)
		seconds += exchange(m, n_ranks, level, (double)dtype_size(s->dtype) * (double)(n = front(n)));
	return seconds;
}

void
price_time(struct price_time *t, const struct fit_shape *s, const struct price_machine *m,
    const struct price_compute *c, int n_ranks)
{
	double micros = (double)s->batch / (double)s->micro_batch / n_ranks, slower, backward, transfers = 0;
	double blocks = ceil((double)s->n_params / KERNELS_NORM_BLOCK);
	int64_t n = s->n_params;

	*t = (struct price_time){.ranks = n_ranks, .hosts = (n_ranks + m->ranks_per_host - 1) / m->ranks_per_host,
	    .cores = price_cores(m, n_ranks), .other_s = c->other_s};
	slower = c->cores / t->cores;
	t->compute_s = c->micro_s * slower * micros;
	t->update_s = c->update_s * slower * price_share(s->split, n_ranks);
	t->gather_s = price_gather(s, m, n_ranks);
	for (int level = 0; 1 << level < n_ranks; level++) {
		double part = (double)(n = front(n));

		t->bytes += (4 + (double)dtype_size(s->dtype)) * part;
		transfers += exchange(m, n_ranks, level, 4 * part);
		t->reduce_s += 4 * part / m->sum_bytes_per_s * slower;
		t->small_s += PRICE_SMALL * exchange(m, n_ranks, level, 8 * blocks / PRICE_SMALL);
	}
	backward = c->micro_s * slower * (s->recompute ? 3.0 / 4 : 2.0 / 3);
	t->reduce_s += transfers;
	t->hidden_s = m->overlap * transfers < backward ? m->overlap * transfers : backward;
	t->step_s = t->compute_s + t->update_s + t->reduce_s - t->hidden_s + t->gather_s + t->small_s + t->other_s;
}

double
price_efficiency(const struct price_time *one, const struct price_time *t)
{
	return one->step_s * one->cores / (t->step_s * t->ranks * t->cores);
}

void
price_worth(struct price_worth *w, double student_params, double teacher_params, double baseline_flops,
    double teacher_flops, double run_tokens, double saving)
{
	w->inline_factor = 1 + teacher_params / (3 * student_params);
	w->label_share = teacher_flops / baseline_flops;
	w->saving = saving;
	w->net_saving = saving - w->label_share;
	w->made_share = teacher_params / student_params + w->label_share;
	w->made_net_saving = saving - w->made_share;
	w->teacher_tokens = w->net_saving * run_tokens * student_params / teacher_params;
}
