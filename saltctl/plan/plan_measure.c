/* SPDX-License-Identifier: Apache-2.0 */
#include "saltctl/plan/plan.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "saltctl/core/ctl.h"
#include "base/clock/clock.h"
#include "base/json/json.h"
#include "engine/kernels/kernels.h"
#include "base/mem/mem.h"
#include "engine/optim/optim.h"
#include "engine/weights/weights.h"

#define MEASURE_S 4.0			/* micro-batches are repeated for this time, ... */
#define MEASURE_MIN 3			/* ... but at least this often */
#define MEASURE_MAX 200

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Sorts x and returns its median; NaN if n is 0. */
static double
median(double *x, size_t n)
{
	if (n == 0)
		return NAN;
	qsort(x, n, sizeof(*x), by_value);
	return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

/* ---- a run's metrics ---- */

enum column { COLUMN_COMPUTE, COLUMN_REDUCE, COLUMN_UPDATE, COLUMN_STEP, COLUMN_OVERLAP, COLUMN_EARLY, COLUMNS };

struct seen {
	double *column[COLUMNS];
	size_t cap[COLUMNS], n;
	double kd_tokens, label_bytes;
	int64_t ranks, host_ranks, threads;	/* 0: not recorded */
};

static int
see(struct seen *s, const struct json *j)
{
	static const char *const keys[COLUMNS] = {"compute_seconds", "reduce_seconds", "update_seconds", "step_seconds", "overlap_seconds",
	    "reduced_early"};
	double v[COLUMNS], tokens, bytes;
	const char *kind;

	if (!json_text(json_get(j, "kind"), &kind) || strcmp(kind, "step") != 0)
		return 0;
	for (int c = 0; c < COLUMNS; c++)
		if (!json_num(json_get(j, keys[c]), &v[c]) || !(v[c] >= 0)) {
			if (c < COLUMN_OVERLAP)
				return 0;
			v[c] = 0;			/* the trainer's version had no overlap */
		}
	for (int c = 0; c < COLUMNS; c++) {
		if (mem_grow((void **)&s->column[c], &s->cap[c], s->n + 1, sizeof(double)) != 0)
			return ENOMEM;
		s->column[c][s->n] = v[c];
	}
	s->n++;
	if (json_num(json_get(j, "kd_tokens"), &tokens) && json_num(json_get(j, "label_bytes"), &bytes) && tokens > 0) {
		s->kd_tokens += tokens;
		s->label_bytes += bytes;
	}
	json_int(json_get(j, "ranks"), &s->ranks);
	json_int(json_get(j, "host_ranks"), &s->host_ranks);
	json_int(json_get(j, "threads"), &s->threads);
	return 0;
}

static int
read_lines(struct seen *s, const char *path, struct err_note *note)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	FILE *in;
	int rc = 0;

	if ((in = fopen(path, "re")) == NULL)
		return err_note_set(note, errno, "%s", path);
	while (rc == 0 && (n = getline(&line, &cap, in)) > 0) {
		struct json *j = NULL;

		if (line[n - 1] == '\n' && json_parse(line, (size_t)n, path, &j, NULL) == 0)
			rc = see(s, j);
		json_close(&j);
	}
	if (rc == 0 && ferror(in))
		rc = errno != 0 ? errno : EIO;
	if (rc != 0)
		err_note_set(note, rc, "%s", path);
	fclose(in);
	free(line);
	if (rc == 0 && s->n == 0)
		rc = err_expect(note, ERR_FORMAT, "%s",
		    "a trainer's metrics: lines of kind step with compute_seconds, reduce_seconds, update_seconds, step_seconds",
		    "none", path);
	return rc;
}

/* Reads the settings that the trainer stored of the measured run, beside its metrics; without them *cfg is NULL. */
static int
read_settings(const char *dir, struct config **cfg, struct err_note *note)
{
	char path[4400];

	*cfg = NULL;
	config_stored(dir, path, sizeof(path));
	if (access(path, F_OK) != 0)
		return 0;
	return config_load(path, NULL, 0, cfg, note);
}

static double
update_cost(const struct optim_split *split)
{
	double cost = 0;

	for (int i = 0; i < split->n_parts; i++)
		cost += optim_split_cost(&split->parts[i], split->parts[i].begin, split->parts[i].end);
	return cost;
}

int
plan_read_run(struct plan *p, const char *path, struct err_note *note)
{
	struct plan_measured *m = &p->measured;
	struct price_machine there = p->machine;
	struct fit_shape shape = p->shape;
	struct model_config model = p->student.config;
	enum optim_kind kind = (enum optim_kind)p->cfg->trainer.optimizer;
	struct optim_split *split = NULL;
	struct model *table = NULL;
	struct config *cfg = NULL;
	struct seen s = {.n = 0};
	char dir[4096], metrics[4200], *slash;
	double micros, flops, compute, update, step, reduce;
	struct stat st;
	int rc;

	if (stat(path, &st) != 0)
		return err_note_set(note, errno, "%s", path);
	snprintf(dir, sizeof(dir), "%s", path);
	if (S_ISDIR(st.st_mode)) {
		snprintf(metrics, sizeof(metrics), "%s/metrics.jsonl", dir);
	} else {
		snprintf(metrics, sizeof(metrics), "%s", path);
		if ((slash = strrchr(dir, '/')) != NULL)
			*slash = '\0';
		else
			snprintf(dir, sizeof(dir), ".");
	}
	if ((rc = read_lines(&s, metrics, note)) != 0 || (rc = read_settings(dir, &cfg, note)) != 0)
		goto out;
	if (cfg != NULL) {
		shape.batch = cfg->trainer.batch;
		shape.micro_batch = cfg->trainer.micro_batch;
		shape.lanes = cfg->trainer.lanes;
		shape.context = cfg->corpus.context;
		shape.recompute = cfg->trainer.recompute;
		there.threads = (double)cfg->trainer.threads;
		if (s.ranks == 0)
			s.ranks = cfg->trainer.ranks;
		if ((rc = weights_config_load(cfg->trainer.model, &model, note)) != 0)
			goto out;
	}
	if ((rc = model_new(&table, &model, note)) != 0)
		goto out;
	shape.model = &model;
	shape.n_params = table->n_params;
	m->ranks = s.ranks > 0 ? (int)s.ranks : 1;
	there.ranks_per_host = s.host_ranks > 0 ? (int)s.host_ranks : m->ranks;
	if (s.threads > 0)
		there.threads = (double)s.threads;
	if (shape.batch == 0 || shape.micro_batch == 0 || m->ranks < 1) {
		rc = err_expect(note, ERR_FORMAT, "%s", "fleet.yaml beside metrics.jsonl, with trainer.batch",
		    "", dir);
		goto out;
	}
	compute = median(s.column[COLUMN_COMPUTE], s.n);
	update = median(s.column[COLUMN_UPDATE], s.n);
	reduce = median(s.column[COLUMN_REDUCE], s.n);
	step = median(s.column[COLUMN_STEP], s.n);
	m->step_s = step;
	m->compute.other_s = step > compute + update + reduce ? step - compute - update - reduce : 0;
	if (m->ranks > 1) {			/* sums during backward count as network time */
		compute -= median(s.column[COLUMN_OVERLAP], s.n);
		m->early = median(s.column[COLUMN_EARLY], s.n);
	}
	micros = (double)shape.batch / (double)shape.micro_batch / m->ranks;
	m->compute.cores = price_cores(&there, m->ranks);
	m->compute.micro_s = compute / micros;
	/* update_seconds includes the gather; the rest is the time of one rank's share of the update. */
	update -= m->ranks > 1 ? price_gather(&shape, &p->machine, m->ranks) : 0;
	if (cfg != NULL)
		kind = (enum optim_kind)cfg->trainer.optimizer;
	if ((rc = optim_split_new(&split, table, kind)) != 0)
		goto out;
	update = update > 0 ? update / price_share(split, m->ranks) : 0;
	flops = model_flops_per_token(&model, (int64_t)shape.context) * (double)shape.micro_batch * (double)shape.context;
	m->flops_per_s = flops / m->compute.micro_s / m->compute.cores;
	/* recompute adds a second forward pass */
	m->compute.micro_s *= (p->shape.recompute ? 4.0 / 3 : 1) / (shape.recompute ? 4.0 / 3 : 1);
	m->compute.micro_s *= p->student.flops * (double)p->shape.micro_batch * (double)p->shape.context / flops;
	m->compute.update_s = update * update_cost(p->split) / update_cost(split);
	if (s.kd_tokens > 0)
		m->label_bytes = s.label_bytes / s.kd_tokens;
	snprintf(m->source, sizeof(m->source), "%s: medians of %zu steps at %d rank%s of %g core%s", metrics, s.n, m->ranks,
	    m->ranks == 1 ? "" : "s", m->compute.cores, m->compute.cores == 1 ? "" : "s");
	if (kind != (enum optim_kind)p->cfg->trainer.optimizer)
		snprintf(m->remark, sizeof(m->remark), "that run had another optimizer: the update is a rough estimate");
	else if (shape.n_params != p->shape.n_params || shape.context != p->shape.context || shape.micro_batch != p->shape.micro_batch)
		snprintf(m->remark, sizeof(m->remark), "that run had another model, context or micro-batch: scaled by FLOPs, the update by its work");
	else if (m->ranks > 1 && p->network_source[0] == '\0')
		snprintf(m->remark, sizeof(m->remark), "the update has the gather of those ranks in it, for no network is given");
out:
	for (int c = 0; c < COLUMNS; c++)
		free(s.column[c]);
	optim_split_destroy(&split);
	model_destroy(&table);
	config_destroy(&cfg);
	return rc;
}

/* ---- measured on this machine ---- */

struct bench {
	struct kernels *kernels;
	struct model *model;
	struct model_session *session;
	void *params;
	float *masters, *m, *v, *grads;
	struct kernels_muon_matrix *matrices;	/* large enough for those of all tensors */
	int32_t *inputs, *next;
};

static void
bench_free(struct bench *b)
{
	if (b->kernels != NULL) {
		kernels_free(b->kernels, b->params);
		kernels_free(b->kernels, b->masters);
		kernels_free(b->kernels, b->m);
		kernels_free(b->kernels, b->v);
		kernels_free(b->kernels, b->grads);
	}
	free(b->matrices);
	free(b->inputs);
	free(b->next);
	model_session_destroy(&b->session);
	model_destroy(&b->model);
	kernels_destroy(&b->kernels);
}

static int
enough_memory(const struct plan *p, struct err_note *note)
{
	double n = (double)p->shape.n_params, bytes[FIT_ITEMS], need, has;
	int rc;

	if ((rc = fit_train(&p->shape, 1, bytes, note)) != 0)
		return rc;
	need = bytes[FIT_ACTIVATIONS] + bytes[FIT_PRODUCTS] + n * 16 + (p->shape.dtype != DTYPE_F32 ?
	    n * (double)dtype_size(p->shape.dtype) : 0);
	has = (double)sysconf(_SC_AVPHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
	if (p->shape.gpu && p->gpu.memory_bytes > 0)
		has = (double)p->gpu.free_bytes;
	if (need <= 0.9 * has)
		return 0;
	return err_expect(note, ENOMEM, "--measure",
	    "%.1f GB of free memory for %s; or --measured RUN of a smaller model, or --flops-per-second",
	    "%.1f GB", need / 1e9, p->student.path, has / 1e9);
}

static int
bench_new(struct bench *b, const struct plan *p, struct err_note *note)
{
	struct kernels_options ko = {.backend = (enum kernels_backend)config_trainer_backend(p->cfg), .threads = (int)p->machine.threads,
	    .dtype = p->shape.dtype == DTYPE_BF16 ? KERNELS_DTYPE_BF16 : KERNELS_DTYPE_FP32};
	struct model_session_options so = {.max_batch = (int64_t)p->shape.micro_batch, .max_tokens = (int64_t)p->shape.context,
	    .training = true, .recompute = p->shape.recompute};
	size_t n, rows = (size_t)(p->shape.micro_batch * p->shape.context);
	float *first;
	int rc;

	if ((rc = kernels_new(&b->kernels, &ko, note)) != 0 || (rc = model_new(&b->model, &p->student.config, note)) != 0 ||
	    (rc = model_session_new(&b->session, b->model, b->kernels, &so, note)) != 0)
		return rc;
	n = (size_t)b->model->n_params;
	b->inputs = mem_alloc(rows, sizeof(int32_t));
	b->next = mem_alloc(rows, sizeof(int32_t));
	b->masters = kernels_alloc(b->kernels, n * sizeof(float));
	b->m = kernels_alloc(b->kernels, n * sizeof(float));
	b->v = kernels_alloc(b->kernels, n * sizeof(float));
	b->grads = kernels_alloc(b->kernels, n * sizeof(float));
	b->matrices = mem_alloc((size_t)b->model->n_tensors * 3, sizeof(*b->matrices));
	if (b->matrices == NULL || b->inputs == NULL || b->next == NULL || b->masters == NULL || b->m == NULL || b->v == NULL || b->grads == NULL)
		return err_note_set(note, ENOMEM, "--measure");
	if ((p->shape.dtype != DTYPE_F32 && (b->params = kernels_alloc(b->kernels, n * dtype_size(p->shape.dtype))) == NULL) ||
	    (first = mem_alloc(n, sizeof(*first))) == NULL)
		return err_note_set(note, ENOMEM, "--measure");
	model_init(b->model, p->cfg->run.seed, 0, (int64_t)n, first);
	kernels_upload(b->kernels, b->masters, first, n * sizeof(*first));
	free(first);
	if (b->params != NULL)
		kernels_convert(b->kernels, b->params, p->shape.dtype, b->masters, DTYPE_F32, (int64_t)n);
	model_bind(b->model, b->params != NULL ? b->params : b->masters, p->shape.dtype);
	for (size_t i = 0; i < rows; i++) {		/* any ids: the cost does not depend on them */
		b->inputs[i] = (int32_t)(i * 7919 % (size_t)p->student.config.vocab_size);
		b->next[i] = (int32_t)((i + 1) * 7919 % (size_t)p->student.config.vocab_size);
	}
	return 0;
}

static int
micro_batch(struct bench *b, const struct plan *p, double *seconds)
{
	struct kernels_targets targets = {.n_rows = (int64_t)(p->shape.micro_batch * p->shape.context), .next = b->next};
	struct kernels_loss_sums sums;
	double start = clock_now_s();
	int rc;

	if ((rc = model_forward(b->session, b->inputs, (int64_t)p->shape.micro_batch, (int64_t)p->shape.context)) != 0 ||
	    (rc = model_loss(b->session, &targets, 1.0f / (float)targets.n_rows, b->grads, &sums)) != 0)
		return rc;
	model_backward(b->session, b->grads);
	kernels_sync(b->kernels);
	*seconds = clock_now_s() - start;
	return 0;
}

static void
update_range(struct bench *b, const struct plan *p, const struct optim_config *optim, int64_t i, int64_t begin, int64_t end)
{
	const struct optim_span all = {.begin = 0};
	char *copy = b->params;

	optim_adamw(b->kernels, optim, i, 1e-9, 1, &all, 1, begin, end, b->masters + begin, b->m + begin, b->v + begin, b->grads + begin,
	    copy != NULL ? copy + (size_t)begin * dtype_size(p->shape.dtype) : NULL, p->shape.dtype);
}

/* Makes update number i (from 0) of all parameters, as the trainer does, with a small learning rate. */
static void
update_all(struct bench *b, const struct plan *p, int64_t i)
{
	const struct optim_config optim = {.lr = 1e-4, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .steps = 1};
	bool muon = p->cfg->trainer.optimizer == CONFIG_OPTIMIZER_MUON;
	char *copy = b->params;
	int64_t n = 0;

	if (!muon)
		update_range(b, p, &optim, i, 0, b->model->n_params);
	for (int t = 0; t < b->model->n_tensors && muon; t++) {
		const struct model_tensor *tensor = &b->model->tensors[t];

		if (tensor->n_matrices == 0)
			update_range(b, p, &optim, i, tensor->offset, tensor->offset + tensor->n_elements);
		for (int j = 0; j < tensor->n_matrices; j++) {
			struct model_matrix x = model_matrix(b->model, t, j);

			b->matrices[n++] = (struct kernels_muon_matrix){.w = b->masters + x.begin, .m = b->m + x.begin, .grad = b->grads + x.begin,
			    .copy = copy != NULL ? copy + (size_t)x.begin * dtype_size(p->shape.dtype) : NULL, .rows = x.rows, .cols = x.cols,
			    .ld = x.ld, .group = x.group, .group_stride = x.group_stride};
		}
	}
	if (n > 0)
		optim_muon(b->kernels, &optim, 1e-9, 1, b->matrices, n, p->shape.dtype);
	kernels_sync(b->kernels);
}

int
plan_measure_here(struct plan *p, struct err_note *note)
{
	struct plan_measured *m = &p->measured;
	struct bench b = {.kernels = NULL};
	double seconds[MEASURE_MAX], update[MEASURE_MIN], start;
	size_t n = 0;
	int rc;

	if ((rc = enough_memory(p, note)) != 0)
		return rc;
	if ((rc = bench_new(&b, p, note)) != 0 || (rc = micro_batch(&b, p, seconds)) != 0)	/* the first one warms up */
		goto out;
	start = clock_now_s();
	while (n < MEASURE_MAX && (n < MEASURE_MIN || clock_now_s() - start < MEASURE_S))
		if ((rc = micro_batch(&b, p, &seconds[n++])) != 0)
			goto out;
	for (size_t i = 0; i < MEASURE_MIN; i++) {
		start = clock_now_s();
		update_all(&b, p, (int64_t)i);
		update[i] = clock_now_s() - start;
	}
	m->compute.micro_s = median(seconds, n);
	m->compute.update_s = median(update, MEASURE_MIN);
	m->compute.other_s = 0;
	m->compute.cores = kernels_threads(b.kernels);
	m->flops_per_s = p->student.flops * (double)(p->shape.micro_batch * p->shape.context) / m->compute.micro_s / m->compute.cores;
	m->ranks = 1;
	snprintf(m->source, sizeof(m->source), "here: median of %zu micro-batches, %s", n, kernels_describe(b.kernels));
out:
	if (rc != 0 && note->name[0] == '\0')
		err_note_set(note, rc, "--measure");
	bench_free(&b);
	return rc;
}

/* ---- a network ---- */

/* Reads a member of an object, or the value with this name in the output of a bench. */
static bool
figure(const struct json *root, const char *key, double *out)
{
	const char *name;

	if (json_num(json_get(root, key), out))
		return true;
	for (size_t i = 0; i < json_count(root); i++)
		if (json_text(json_get(json_item(root, i), "name"), &name) && strcmp(name, key) == 0)
			return json_num(json_get(json_item(root, i), "value"), out);
	return false;
}

int
plan_read_network(const char *path, struct price_link *link, double *sum_bytes_per_s, struct err_note *note)
{
	struct json *root = NULL;
	double latency, rate, sum;
	int rc;

	if ((rc = json_parse_file(path, 1u << 20, &root, note)) != 0)
		return rc;
	if (!figure(root, "latency_seconds", &latency) || !(latency >= 0) ||
	    !figure(root, "bytes_per_second", &rate) || !(rate > 0)) {
		rc = err_expect(note, ERR_FORMAT, "%s",
		    "latency_seconds >= 0 and bytes_per_second > 0, as bench_network --json writes them", "",
		    path);
	} else {
		*link = (struct price_link){.latency_s = latency, .bytes_per_s = rate};
		if (sum_bytes_per_s != NULL && figure(root, "sum_bytes_per_second", &sum) && sum > 0)
			*sum_bytes_per_s = sum;
	}
	json_close(&root);
	return rc;
}
