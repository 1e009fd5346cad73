/* SPDX-License-Identifier: Apache-2.0 */
#include "data/task/task_internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum task_kind
task_kind(const struct task *t)
{
	return t->kind;
}

const char *
task_kind_name(enum task_kind kind)
{
	static const char *const names[] = {[TASK_ANY] = "any",
	    [TASK_CHOICES] = "choices",
	    [TASK_PAIRS] = "pairs",
	    [TASK_LAST_WORD] = "last_word"};

	return names[kind];
}

size_t
task_n_items(const struct task *t)
{
	return t->n_items;
}

size_t
task_n_sets(const struct task *t)
{
	return t->n_sets;
}

size_t
task_n_cut(const struct task *t)
{
	return t->n_cut;
}

size_t
task_n_requests(const struct task *t)
{
	return t->n_requests;
}

const struct task_request *
task_requests(const struct task *t)
{
	return t->requests;
}

void
task_item_place(const struct task *t, size_t item, const char **file, uint64_t *line, const char **set)
{
	*file = t->files[t->items[item].file];
	*line = t->items[item].line;
	*set = t->sets[t->items[item].set];
}

size_t
task_item_requests(const struct task *t, size_t item, size_t *first, size_t *gold)
{
	*first = t->items[item].first_request;
	*gold = t->items[item].gold;
	return t->items[item].n_choices;
}

enum measure { BY_SUM, BY_TOKEN, BY_BYTE, MEASURES };

/* The number by which a choice's log-probability is divided. */
static double
length(const struct task *t, const struct task__item *item, size_t choice, enum measure by)
{
	const struct task_request *r = &t->requests[item->first_request + choice];

	return by == BY_SUM ? 1 :
	    by == BY_TOKEN  ? (double)(r->n - r->first) :
			      (double)strlen(item->choices[choice]);
}

static bool
is_right(
    const struct task *t, const struct task__item *item, const struct task_answer *answers, enum measure by)
{
	const struct task_answer *a = answers + item->first_request;
	double gold = a[item->gold].log_p / length(t, item, item->gold, by);

	if (t->kind == TASK_LAST_WORD)
		return a[0].greedy > 0;
	for (size_t i = 0; i < item->n_choices; i++) {
		double other = a[i].log_p / length(t, item, i, by);

		if (i != item->gold &&
		    !(t->kind == TASK_CHOICES && i > item->gold ? gold >= other : gold > other))
			return false;
	}
	return true;
}

bool
task_right(const struct task *t, size_t item, const struct task_answer *answers)
{
	return is_right(t, &t->items[item], answers, BY_SUM);
}

/* Sums over the items of a set, or of all sets. */
struct sums {
	double right[MEASURES], log_p, log_p2, chance;
};

static struct task_mean
share(double right, size_t n)
{
	double p = right / (double)n;

	return (struct task_mean){p, n > 1 ? sqrt(p * (1 - p) / (double)(n - 1)) : NAN};
}

static void
finish(struct task_result *r, const struct sums *s, bool choices)
{
	const struct task_mean none = {NAN, NAN};
	double n = (double)r->n, mean = s->log_p / n;

	r->right = share(s->right[BY_SUM], r->n);
	r->by_token = choices ? share(s->right[BY_TOKEN], r->n) : none;
	r->by_byte = choices ? share(s->right[BY_BYTE], r->n) : none;
	r->log_p = (struct task_mean){mean, r->n > 1 ? sqrt(s->log_p2 / (n - 1) / n) : NAN};
	r->chance = s->chance / n;
}

static void
count(struct task_result *r, struct sums *s, const struct task *t, const struct task__item *item,
    const struct task_answer *answers)
{
	r->n++;
	for (enum measure by = BY_SUM; by < MEASURES; by++)
		s->right[by] += is_right(t, item, answers, by);
	s->log_p += answers[item->first_request + item->gold].log_p;
	s->chance += t->kind == TASK_LAST_WORD ? 0 : 1 / (double)item->n_choices;
}

/* The mean over the sets of their shares, and both standard errors. */
static void
over_sets(const struct task *t, struct task_results *out)
{
	double n = (double)t->n_sets, items = 0, spread = 0;

	out->sets_mean = 0;
	for (size_t i = 0; i < t->n_sets; i++)
		out->sets_mean += out->sets[i].right.mean / n;
	for (size_t i = 0; i < t->n_sets; i++) {
		double d = out->sets[i].right.mean - out->sets_mean;

		items += out->sets[i].right.se * out->sets[i].right.se;
		spread += d * d;
	}
	out->sets_se_items = sqrt(items) / n;
	out->sets_se_sets = t->n_sets > 1 ? sqrt(spread / (n - 1) / n) : NAN;
}

int
task_judge(const struct task *t, const struct task_answer *answers, struct task_results *out)
{
	struct sums *sets = mem_alloc(t->n_sets, sizeof(*sets)), all = {.log_p = 0};

	*out = (struct task_results){.finite = true, .sets = mem_alloc(t->n_sets, sizeof(*out->sets))};
	if (sets == NULL || out->sets == NULL) {
		free(sets);
		free(out->sets);
		out->sets = NULL;
		return ENOMEM;
	}
	for (size_t i = 0; i < t->n_requests; i++)
		out->finite = out->finite && isfinite(answers[i].log_p);
	for (size_t i = 0; i < t->n_items; i++) {
		const struct task__item *item = &t->items[i];

		count(&out->sets[item->set], &sets[item->set], t, item, answers);
		count(&out->all, &all, t, item, answers);
	}
	/* A second pass, over differences from the mean, avoids cancellation. */
	for (size_t i = 0; i < t->n_items; i++) {
		const struct task__item *item = &t->items[i];
		double log_p = answers[item->first_request + item->gold].log_p,
		       mean = all.log_p / (double)t->n_items;

		all.log_p2 += (log_p - mean) * (log_p - mean);
		mean = sets[item->set].log_p / (double)out->sets[item->set].n;
		sets[item->set].log_p2 += (log_p - mean) * (log_p - mean);
	}
	for (size_t i = 0; i < t->n_sets; i++) {
		out->sets[i].set = t->sets[i];
		finish(&out->sets[i], &sets[i], t->kind == TASK_CHOICES);
	}
	finish(&out->all, &all, t->kind == TASK_CHOICES);
	over_sets(t, out);
	free(sets);
	return 0;
}
