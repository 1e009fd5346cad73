/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/optim/split.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/mem/mem.h"

/* Approximate FLOPs in the time in which element-wise work moves one element through memory. */
#define ELEMENT_FLOPS 200

static double
tensor_cost(const struct model *m, int tensor)
{
	const struct model_tensor *t = &m->tensors[tensor];
	double cost = ELEMENT_FLOPS * (double)t->n_elements;

	for (int i = 0; i < t->n_matrices; i++) {
		struct model_matrix x = model_matrix(m, tensor, i);

		cost += optim_muon_flops(x.rows, x.cols);
	}
	return cost;
}

static int64_t
blocks_of(int64_t n)
{
	return (n + KERNELS_NORM_BLOCK - 1) / KERNELS_NORM_BLOCK;
}

/* Adds the next part, up to end. first and n: its tensors, if it must be cut between tensors. */
static void
add_part(struct optim_split *s, const struct model *m, int64_t end, int first, int n)
{
	struct optim_part *p = &s->parts[s->n_parts];

	*p = (struct optim_part){.begin = s->n, .end = end, .block = s->n_blocks, .second = s->n_second};
	if (p->begin == p->end)
		return;
	s->n_parts++;
	s->n = end;
	if (n == 0) {
		s->n_blocks += blocks_of(p->end - p->begin);
		s->n_second += p->end - p->begin;
		return;
	}
	p->pieces = s->pieces;
	p->n_pieces = n;
	for (int i = 0; i < n; i++) {
		const struct model_tensor *t = &m->tensors[first + i];

		s->pieces[i] = (struct optim_piece){.begin = t->offset, .end = t->offset + t->n_elements, .tensor = first + i,
		    .cost = tensor_cost(m, first + i), .block = s->n_blocks, .second = s->n_second};
		s->n_blocks += blocks_of(t->n_elements);
		s->n_second += t->n_matrices == 0 ? t->n_elements : 0;
	}
}

int
optim_split_new(struct optim_split **out, const struct model *m, enum optim_kind kind)
{
	struct optim_split *s = calloc(1, sizeof(*s));
	int first = -1, last = -1;

	if ((*out = s) == NULL)
		return ENOMEM;
	for (int i = 0; i < m->n_tensors && kind == OPTIM_MUON; i++) {
		if (m->tensors[i].n_matrices == 0)
			continue;
		first = first < 0 ? i : first;
		last = i;
	}
	if (first < 0) {
		*s = optim_split_whole(m->n_params);
		return 0;
	}
	if ((s->pieces = mem_alloc((size_t)(last - first + 1), sizeof(*s->pieces))) == NULL) {
		optim_split_destroy(out);
		return ENOMEM;
	}
	add_part(s, m, m->tensors[first].offset, 0, 0);
	add_part(s, m, m->tensors[last].offset + m->tensors[last].n_elements, first, last - first + 1);
	add_part(s, m, m->n_params, 0, 0);
	return 0;
}

void
optim_split_destroy(struct optim_split **s)
{
	if (*s == NULL)
		return;
	free((*s)->pieces);
	free(*s);
	*s = NULL;
}

double
optim_split_cost(const struct optim_part *part, int64_t begin, int64_t end)
{
	double cost = 0;

	if (part->pieces == NULL)
		return ELEMENT_FLOPS * (double)(end - begin);
	for (int i = 0; i < part->n_pieces; i++)
		cost += part->pieces[i].begin >= begin && part->pieces[i].end <= end ? part->pieces[i].cost : 0;
	return cost;
}

/* The point at which [begin, end) of a part, itself made by halving, is halved. */
static int64_t
split_middle(const struct optim_part *part, int64_t begin, int64_t end)
{
	double all = optim_split_cost(part, begin, end), front = 0, best = INFINITY;
	int64_t middle = begin + (blocks_of(end - begin) + 1) / 2 * KERNELS_NORM_BLOCK;

	if (part->pieces == NULL)
		return middle < end ? middle : end;
	middle = end;
	for (int i = 0; i < part->n_pieces; i++) {
		const struct optim_piece *p = &part->pieces[i];

		if (p->begin < begin || p->end > end)
			continue;
		front += p->cost;
		if (fabs(all - 2 * front) < best) {
			best = fabs(all - 2 * front);
			middle = p->end;
		}
	}
	return middle;
}

void
optim_split_range(const struct optim_part *part, int rank, int n_ranks, int64_t *begin, int64_t *end)
{
	*begin = part->begin;
	*end = part->end;
	for (int distance = 1; distance < n_ranks; distance *= 2) {
		int64_t middle = split_middle(part, *begin, *end);

		if (rank & distance)
			*begin = middle;
		else
			*end = middle;
	}
}

int64_t
optim_split_second(const struct optim_split *s, int64_t at)
{
	for (int i = 0; i < s->n_parts; i++) {
		const struct optim_part *p = &s->parts[i];

		if (at >= p->end)
			continue;
		if (p->pieces == NULL)
			return p->second + at - p->begin;
		for (int j = 0; j < p->n_pieces; j++) {
			const struct optim_piece *x = &p->pieces[j];
			int64_t next = j + 1 < p->n_pieces ? x[1].second : i + 1 < s->n_parts ? p[1].second : s->n_second;

			if (at < x->end)
				return next > x->second ? x->second + at - x->begin : x->second;
		}
	}
	return s->n_second;
}

void
optim_split_norm(const struct optim_part *part, struct kernels *k, const float *grads, int64_t begin, int64_t end, double *blocks)
{
	if (part->pieces == NULL && begin < end)
		kernels_norm_blocks(k, grads + begin, end - begin, blocks + part->block + (begin - part->begin) / KERNELS_NORM_BLOCK);
	for (int i = 0; i < part->n_pieces; i++) {
		const struct optim_piece *p = &part->pieces[i];

		if (p->begin >= begin && p->end <= end)
			kernels_norm_blocks(k, grads + p->begin, p->end - p->begin, blocks + p->block);
	}
}
