/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/infer/answer.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"
#include "data/tokenizer/tokenizer.h"

#define PAD 8 /* lengths are rounded up to a multiple of it: fewer shapes, and full vector registers */
#define ROWS 512 /* approximate rows of a forward pass */

/* Requests order[begin .. begin + n), computed in one forward pass, each padded to `len` inputs. */
struct group {
	size_t begin, n;
	int64_t len;
};

struct answer_worker {
	struct answerer *a;
	pthread_t thread;
	struct kernels *kernels;
	struct model_session *session;
	int32_t *inputs, *targets, *rank;	/* [rows] */
	float *loss_nats;		/* [rows] */
	uint64_t *seqs;			/* [rows] zeros: no sampling */
};

struct answerer {
	const struct model *model;
	struct answer_worker *workers;
	int n_workers;
	int64_t max_tokens, rows;
	/* of the current run */
	const struct task_request *requests;
	struct task_answer *out;
	const size_t *order;
	struct group *groups;
	size_t n_groups, part, parts;
	atomic_size_t next, done;
	atomic_int rc;
	void (*progress)(void *arg, size_t done);
	void *arg;
};

int
answer_begin(const struct model_config *cfg, const struct tokenizer *tok, int32_t *id, struct err_note *note)
{
	int64_t begin = cfg->bos_id >= 0 ? cfg->bos_id : cfg->eos_id;

	if (begin < 0)
		return tokenizer_end_of_document(tok, NULL, id, note);
	*id = (int32_t)begin;
	return 0;
}

static int64_t
padded(const struct answerer *a, const struct task_request *r)
{
	int64_t len = ((int64_t)r->n - 1 + PAD - 1) / PAD * PAD;

	return len < a->max_tokens ? len : a->max_tokens;
}

static void
fill_answer(struct answer_worker *w, const struct task_request *r, size_t row, struct task_answer *out)
{
	out->greedy = 1;
	for (size_t t = r->first - 1; t + 1 < r->n; t++) {
		out->log_p -= (double)w->loss_nats[row + t];
		if (w->rank[row + t] != 0)
			out->greedy = 0;
	}
}

static int
run_group(struct answer_worker *w, const struct group *g)
{
	static const struct kernels_label_spec spec = {.score = true, .tau = 1.0f};
	struct kernels_labels labels = {.loss_nats = w->loss_nats, .rank = w->rank};
	struct answerer *a = w->a;
	size_t len = (size_t)g->len;
	int rc;

	memset(w->inputs, 0, g->n * len * sizeof(*w->inputs));
	memset(w->targets, 0, g->n * len * sizeof(*w->targets));
	for (size_t i = 0; i < g->n; i++) {
		const struct task_request *r = &a->requests[a->order[g->begin + i]];

		memcpy(w->inputs + i * len, r->tokens, (r->n - 1) * sizeof(*w->inputs));
		memcpy(w->targets + i * len, r->tokens + 1, (r->n - 1) * sizeof(*w->targets));
	}
	kernels_row_tile(w->kernels, g->len);
	if ((rc = model_forward(w->session, w->inputs, (int64_t)g->n, g->len)) != 0 ||
	    (rc = model_labels(w->session, &spec, w->targets, w->seqs, &labels)) != 0)
		return rc;
	for (size_t i = 0; i < g->n; i++) {
		size_t request = a->order[g->begin + i];

		fill_answer(w, &a->requests[request], i * len, &a->out[request]);
	}
	return 0;
}

static void *
worker_main(void *arg)
{
	struct answer_worker *w = arg;
	struct answerer *a = w->a;
	size_t i;

	while (atomic_load(&a->rc) == 0 &&
	    (i = a->part + a->parts * atomic_fetch_add(&a->next, 1)) < a->n_groups) {
		int rc = run_group(w, &a->groups[i]);

		if (rc != 0)
			atomic_store(&a->rc, rc);
		atomic_fetch_add(&a->done, a->groups[i].n);
		if (w == a->workers && a->progress != NULL)
			a->progress(a->arg, atomic_load(&a->done));
	}
	return NULL;
}

/* Sorts requests by length, then by number, and divides them into groups; the same groups for every part. */
static int
make_groups(struct answerer *a, size_t n, size_t *order)
{
	size_t *count = mem_alloc((size_t)a->max_tokens + 2, sizeof(*count));

	if (count == NULL || (a->groups = mem_alloc(n, sizeof(*a->groups))) == NULL) {
		free(count);
		return ENOMEM;
	}
	for (size_t i = 0; i < n; i++)
		count[padded(a, &a->requests[i]) + 1]++;
	for (int64_t len = 0; len <= a->max_tokens; len++)
		count[len + 1] += count[len];
	for (int64_t len = 1; len <= a->max_tokens; len++)
		for (size_t most = (size_t)(a->rows / len), at = count[len]; at < count[len + 1];
		     at += most) {
			size_t left = count[len + 1] - at;

			a->groups[a->n_groups++] = (struct group){at, left < most ? left : most, len};
		}
	for (size_t i = 0; i < n; i++)
		order[count[padded(a, &a->requests[i])]++] = i;
	a->order = order;
	free(count);
	return 0;
}

int
answer_run(struct answerer *a, const struct task_request *requests, size_t n, unsigned part, unsigned parts,
    struct task_answer *out, void (*progress)(void *arg, size_t done), void *arg)
{
	size_t *order = mem_alloc(n, sizeof(*order));
	int started = 1, rc = ENOMEM;

	a->requests = requests;
	a->out = out;
	a->part = part;
	a->parts = parts;
	a->progress = progress;
	a->arg = arg;
	a->n_groups = 0;
	a->groups = NULL;
	atomic_store(&a->next, 0);
	atomic_store(&a->done, 0);
	atomic_store(&a->rc, 0);
	memset(out, 0, n * sizeof(*out));
	if (order == NULL || (rc = make_groups(a, n, order)) != 0)
		goto out;
	while (started < a->n_workers &&
	    pthread_create(&a->workers[started].thread, NULL, worker_main, &a->workers[started]) == 0)
		started++;
	worker_main(&a->workers[0]);
	while (started-- > 1)
		pthread_join(a->workers[started].thread, NULL);
	rc = atomic_load(&a->rc);
out:
	free(order);
	free(a->groups);
	return rc;
}

static int
worker_new(
    struct answer_worker *w, struct answerer *a, const struct kernels_options *kernels, struct err_note *note)
{
	struct model_session_options o = {.max_batch = a->rows / a->max_tokens, .max_tokens = a->max_tokens};
	size_t rows = (size_t)a->rows;
	int rc;

	w->a = a;
	if ((rc = kernels_new(&w->kernels, kernels, note)) != 0 ||
	    (rc = model_session_new(&w->session, a->model, w->kernels, &o, note)) != 0)
		return rc;
	w->inputs = mem_alloc(rows, sizeof(*w->inputs));
	w->targets = mem_alloc(rows, sizeof(*w->targets));
	w->rank = mem_alloc(rows, sizeof(*w->rank));
	w->loss_nats = mem_alloc(rows, sizeof(*w->loss_nats));
	w->seqs = mem_alloc(rows, sizeof(*w->seqs));
	return w->inputs == NULL || w->targets == NULL || w->rank == NULL || w->loss_nats == NULL ||
		w->seqs == NULL ?
	    ENOMEM :
	    0;
}

int
answer_new(struct answerer **out, const struct model *model, const struct kernels_options *kernels,
    int threads, uint32_t max_tokens, struct err_note *note)
{
	struct answerer *a = mem_alloc(1, sizeof(*a));
	struct kernels_options ko = *kernels;
	int rc = ENOMEM;

	*out = NULL;
	if (a == NULL)
		return rc;
	a->model = model;
	a->max_tokens = max_tokens;
	a->rows = (ROWS + a->max_tokens - 1) / a->max_tokens * a->max_tokens;
	ko.threads = 1;
	if ((a->workers = mem_alloc((size_t)threads, sizeof(*a->workers))) == NULL)
		goto fail;
	for (; a->n_workers < threads; a->n_workers++) {
		if ((rc = worker_new(&a->workers[a->n_workers], a, &ko, note)) != 0) {
			a->n_workers++;	/* so that its members are freed */
			goto fail;
		}
		if (kernels_device_versions(a->workers[0].kernels)[0] != '\0')
			threads = 1;		/* a GPU needs only one, and each takes memory */
	}
	*out = a;
	return 0;
fail:
	answer_destroy(&a);
	return rc;
}

void
answer_destroy(struct answerer **answerer)
{
	struct answerer *a = *answerer;

	if (a == NULL)
		return;
	for (int i = 0; i < a->n_workers; i++) {
		struct answer_worker *w = &a->workers[i];

		model_session_destroy(&w->session);
		kernels_destroy(&w->kernels);
		free(w->inputs);
		free(w->targets);
		free(w->rank);
		free(w->loss_nats);
		free(w->seqs);
	}
	free(a->workers);
	free(a);
	*answerer = NULL;
}
