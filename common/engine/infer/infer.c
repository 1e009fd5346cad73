/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/infer/infer.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <time.h>

#include "base/cpus/cpus.h"
#include "base/log/log.h"
#include "base/mem/mem.h"
#include "base/nvml/nvml.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/fit/fit.h"
#include "engine/model/model.h"
#include "data/modelfiles/modelfiles.h"
#include "data/tokenizer/tokenizer.h"
#include "engine/weights/weights.h"

#define GIB 1073741824.0

struct infer_loaded {
	struct infer_model info;
	struct model *model;
	void *params;			/* in the compute dtype */
};

struct infer_worker {
	struct infer *in;
	pthread_t thread;
	bool started;
	struct kernels *kernels;
	struct model_session *session[INFER_MODELS_MAX];	/* made at first use, for session_context */
	uint32_t session_context[INFER_MODELS_MAX];
	/* Inputs and outputs of one batch; they grow as needed. */
	uint64_t *seqs;
	int32_t *inputs, *targets;		/* [B, L] */
	float *loss_nats, *values;
	int32_t *rank, *n_unique, *ids, *counts;
	size_t cap_seqs, cap_inputs, cap_targets, cap_loss, cap_values, cap_rank, cap_unique, cap_ids, cap_counts;
};

STAILQ_HEAD(infer_jobs, infer_job);

struct infer {
	struct kernels_options kernels;
	char compute_class[LABELS_CLASS_BYTES];	/* declared class; "": none */
	size_t batch;
	void (*notify)(void *arg);
	void *notify_arg;
	struct infer_loaded models[INFER_MODELS_MAX];
	size_t n_models;
	struct infer_worker *workers;
	int n_workers;
	atomic_ullong progress;
	atomic_ullong cpu_ns;
	pthread_mutex_t lock;			/* guards the lists; next, left and abandoned of jobs */
	pthread_cond_t work;
	bool stop;
	struct infer_jobs waiting;		/* jobs with sequences that have not started */
	struct infer_jobs finished;
	size_t n_jobs;
	struct labels_unigram **unigrams;	/* used by the caller's thread only; kept until infer_destroy */
	size_t n_unigrams;
};

struct infer_job *
infer_job_new(size_t n, uint32_t context)
{
	struct infer_job *job = calloc(1, sizeof(*job));
	size_t tokens;

	if (job == NULL)
		return NULL;
	job->n = job->left = n;
	job->context = context;
	job->document_end = -1;
	if (!mem_mul(n, (size_t)context + 1, &tokens) || (job->rows = mem_alloc(n, sizeof(*job->rows))) == NULL ||
	    (job->tokens = mem_alloc(tokens, sizeof(int32_t))) == NULL)
		infer_job_free(&job);
	return job;
}

void
infer_job_free(struct infer_job **job)
{
	struct infer_job *j = *job;

	if (j == NULL)
		return;
	for (size_t i = 0; j->rows != NULL && i < j->n; i++) {
		free(j->rows[i].scores);
		labels_buf_free(&j->rows[i].label);
	}
	free(j->rows);
	free(j->tokens);
	free(j);
	*job = NULL;
}

int
infer_check(const struct infer *in, const struct infer_job *job, struct err_note *note)
{
	const struct model_config *cfg = &in->models[job->model].model->config;

	if (job->context < 1 || job->context > cfg->context)
		return err_expect(note, ERR_RANGE, "context of the lease", "1 .. %lld", "%u",
		    (long long)cfg->context, job->context);
	if (job->n_valid < 1 || job->n_valid > cfg->vocab_size)
		return err_expect(note, ERR_RANGE, "vocabulary of the lease", "1 .. %lld", "%u",
		    (long long)cfg->vocab_size, job->n_valid);
	for (size_t i = 0; i < job->n * ((size_t)job->context + 1); i++)
		if (job->tokens[i] < 0 || (uint32_t)job->tokens[i] >= job->n_valid)
			return err_expect(note, ERR_RANGE, "sequence %llu", "token ids 0 .. %u", "%d",
			    (unsigned long long)job->rows[i / (job->context + 1)].seq, job->n_valid - 1,
			    job->tokens[i]);
	if (job->want_label)
		return labels_spec_check(&job->spec, note);
	return 0;
}

/* Makes sure that this worker has a session for a model at this context. */
static int
worker_session(struct infer_worker *w, size_t model, uint32_t context, struct err_note *note)
{
	struct model_session_options o = {.max_batch = (int64_t)w->in->batch, .max_tokens = context};
	int rc;

	if (w->session[model] != NULL && w->session_context[model] == context)
		return 0;
	model_session_destroy(&w->session[model]);
	if ((rc = model_session_new(&w->session[model], w->in->models[model].model, w->kernels, &o, note)) == 0)
		w->session_context[model] = context;
	return rc;
}

/* Number of ids (sampled, topk) and of values (topk, dense) that the kernel writes for each row. */
static void
row_sizes(const struct infer *in, const struct infer_job *job, size_t *ids, size_t *values)
{
	const struct labels_spec *spec = &job->spec;

	*ids = *values = 0;
	if (!job->want_label)
		return;
	*ids = spec->kind == LABELS_KIND_SAMPLED ? spec->n_samples : spec->kind == LABELS_KIND_TOPK ? spec->k : 0;
	*values = spec->kind == LABELS_KIND_TOPK ? spec->k :
	    spec->kind == LABELS_KIND_DENSE ? (size_t)in->models[job->model].model->config.vocab_size : 0;
}

static int
worker_buffers(struct infer_worker *w, const struct infer_job *job, size_t n)
{
	size_t rows = n * job->context, ids, values;

	row_sizes(w->in, job, &ids, &values);
	return mem_grow((void **)&w->seqs, &w->cap_seqs, n, sizeof(uint64_t)) != 0 ||
	    mem_grow((void **)&w->inputs, &w->cap_inputs, rows, sizeof(int32_t)) != 0 ||
	    mem_grow((void **)&w->targets, &w->cap_targets, rows, sizeof(int32_t)) != 0 ||
	    mem_grow((void **)&w->loss_nats, &w->cap_loss, rows, sizeof(float)) != 0 ||
	    mem_grow((void **)&w->rank, &w->cap_rank, rows, sizeof(int32_t)) != 0 ||
	    mem_grow((void **)&w->n_unique, &w->cap_unique, rows, sizeof(int32_t)) != 0 ||
	    mem_grow((void **)&w->ids, &w->cap_ids, rows * ids + 1, sizeof(int32_t)) != 0 ||
	    mem_grow((void **)&w->counts, &w->cap_counts, rows * ids + 1, sizeof(int32_t)) != 0 ||
	    mem_grow((void **)&w->values, &w->cap_values, rows * values + 1, sizeof(float)) != 0 ? ENOMEM : 0;
}

/* Encodes the label record of sequence i of the batch. */
static int
encode_label(struct infer_worker *w, const struct infer_job *job, size_t i, struct hash128 tokens, struct labels_buf *buf,
    struct err_note *note)
{
	const struct labels_spec *spec = &job->spec;
	size_t first = i * job->context, n_ids, n_values;
	const int32_t *ids;
	float *values;

	row_sizes(w->in, job, &n_ids, &n_values);
	ids = w->ids + first * n_ids;
	values = w->values + first * n_values;
	switch (spec->kind) {
	case LABELS_KIND_SAMPLED:
		return labels_encode_sampled(spec, tokens, w->n_unique + first, ids, w->counts + first * n_ids, buf, note);
	case LABELS_KIND_TOPK:
		return labels_encode_topk(spec, tokens, ids, values, buf, note);
	default:
		/* The record covers the tokenizer's ids; the model's vocabulary may be padded beyond them. */
		for (size_t t = 1; n_values != spec->vocab && t < job->context; t++)
			memmove(values + t * spec->vocab, values + t * n_values, spec->vocab * sizeof(float));
		return labels_encode_dense(spec, tokens, values, buf, note);
	}
}

_Static_assert((int)LABELS_KIND_NONE == (int)KERNELS_LABEL_NONE && (int)LABELS_KIND_SAMPLED == (int)KERNELS_LABEL_SAMPLED &&
    (int)LABELS_KIND_TOPK == (int)KERNELS_LABEL_TOPK && (int)LABELS_KIND_DENSE == (int)KERNELS_LABEL_DENSE, "the same kinds");

/* Encodes the records of sequence i of the batch, which is `row` of the job and has these L + 1 tokens. */
static int
encode_row(struct infer_worker *w, const struct infer_job *job, size_t i, struct infer_row *row, const int32_t *tokens,
    struct err_note *note)
{
	size_t first = i * job->context;
	int rc;

	if (job->want_score) {
		if ((row->scores = malloc((size_t)job->context * LABELS_SCORE_BYTES)) == NULL)
			return ENOMEM;
		labels_scores_within(tokens, job->context, job->document_end, w->loss_nats + first, w->rank + first);
		if ((rc = labels_scores_encode(w->loss_nats + first, w->rank + first, job->context, row->scores, note)) != 0)
			return rc;
	}
	if (job->want_label)
		return encode_label(w, job, i, hash_tokens(tokens, (size_t)job->context + 1), &row->label, note);
	return 0;
}

/* Sequences [begin, begin + n) of a job in one forward pass, with scores and labels in one output pass. */
static int
forward_batch(struct infer_worker *w, const struct infer_job *job, size_t begin, size_t n, struct err_note *note)
{
	struct kernels_label_spec spec = {.score = job->want_score, .n_valid = job->n_valid, .tau = 1.0f};
	struct kernels_labels out;
	size_t L = job->context;
	int rc;

	if ((rc = worker_session(w, job->model, job->context, note)) != 0 || (rc = worker_buffers(w, job, n)) != 0)
		return rc;
	for (size_t i = 0; i < n; i++) {
		const int32_t *tokens = job->tokens + (begin + i) * (L + 1);

		w->seqs[i] = job->rows[begin + i].seq;
		memcpy(w->inputs + i * L, tokens, L * sizeof(int32_t));
		memcpy(w->targets + i * L, tokens + 1, L * sizeof(int32_t));
	}
	if (job->want_label) {
		spec.kind = (enum kernels_label_kind)job->spec.kind;
		spec.n = job->spec.kind == LABELS_KIND_SAMPLED ? (int)job->spec.n_samples : (int)job->spec.k;
		spec.tau = (float)job->spec.tau;
		spec.seed = job->spec.seed;
	}
	out = (struct kernels_labels){.loss_nats = w->loss_nats, .rank = w->rank, .n_unique = w->n_unique, .ids = w->ids,
	    .counts = w->counts, .values = w->values};
	kernels_row_tile(w->kernels, (int64_t)L);
	if ((rc = model_session_documents(w->session[job->model], job->document_end)) != 0)
		return rc;
	if ((rc = model_forward(w->session[job->model], w->inputs, (int64_t)n, (int64_t)L)) != 0)
		return err_note_set(note, rc, "tokens of sequence %llu", (unsigned long long)w->seqs[0]);
	if ((rc = model_labels(w->session[job->model], &spec, w->targets, w->seqs, &out)) != 0)
		return err_note_set(note, rc, "labels of sequence %llu", (unsigned long long)w->seqs[0]);
	return 0;
}

int
infer_unigram(struct infer *in, const uint8_t *bytes, size_t len, const struct labels_unigram **out, struct err_note *note)
{
	struct labels_unigram **more;
	struct hash128 hash = hash_bytes(bytes, len);
	int rc;

	for (size_t i = 0; i < in->n_unigrams; i++)
		if (hash_equal(labels_unigram_hash(in->unigrams[i]), hash)) {
			*out = in->unigrams[i];
			return 0;
		}
	if ((more = realloc(in->unigrams, (in->n_unigrams + 1) * sizeof(*more))) == NULL)
		return ENOMEM;
	in->unigrams = more;
	if ((rc = labels_unigram_new(&more[in->n_unigrams], bytes, len, note)) != 0)
		return rc;
	*out = more[in->n_unigrams++];
	return 0;
}

static void
row_failed(struct infer_row *row, int rc, const struct err_note *note)
{
	char text[1200];

	free(row->scores);
	row->scores = NULL;
	labels_buf_free(&row->label);
	snprintf(row->error, sizeof(row->error), "%.120s", err_note_str(note, rc, text, sizeof(text)));
	log_warn("sequence.failed", "seq=%llu why=\"%s\"", (unsigned long long)row->seq, row->error);
}

static void
worker_batch(struct infer_worker *w, struct infer_job *job, size_t begin, size_t n)
{
	struct err_note note = {.name = ""};
	int rc = forward_batch(w, job, begin, n, &note);

	for (size_t i = 0; i < n; i++) {
		struct infer_row *row = &job->rows[begin + i];
		int row_rc = rc;

		if (rc == 0)
			row_rc = encode_row(w, job, i, row, job->tokens + (begin + i) * ((size_t)job->context + 1), &note);
		if (row_rc != 0)
			row_failed(row, row_rc, &note);
	}
}

/* The next sequences, at most in->batch of one job; NULL if the worker must end. Call with the lock held. */
static struct infer_job *
next_batch(struct infer *in, size_t *begin, size_t *n)
{
	struct infer_job *job;

	while (!in->stop && (job = STAILQ_FIRST(&in->waiting)) == NULL)
		pthread_cond_wait(&in->work, &in->lock);
	if (in->stop)
		return NULL;
	*begin = job->next;
	*n = job->n - job->next < in->batch ? job->n - job->next : in->batch;
	job->next += *n;
	if (job->next == job->n)
		STAILQ_REMOVE_HEAD(&in->waiting, entry);
	return job;
}

/* Call with the lock held. */
static void
finish_rows(struct infer *in, struct infer_job *job, size_t n)
{
	if ((job->left -= n) > 0)
		return;
	STAILQ_INSERT_TAIL(&in->finished, job, entry);
	in->n_jobs--;
	if (in->notify != NULL)
		in->notify(in->notify_arg);
}

static uint64_t
thread_cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *
worker_main(void *arg)
{
	struct infer_worker *w = arg;
	struct infer *in = w->in;
	struct infer_job *job;
	size_t begin, n;

	pthread_mutex_lock(&in->lock);
	while ((job = next_batch(in, &begin, &n)) != NULL) {
		bool skip = job->abandoned;
		uint64_t start = thread_cpu_ns();

		pthread_mutex_unlock(&in->lock);
		if (!skip)
			worker_batch(w, job, begin, n);
		atomic_fetch_add(&in->cpu_ns, thread_cpu_ns() - start);
		atomic_fetch_add(&in->progress, n);
		pthread_mutex_lock(&in->lock);
		finish_rows(in, job, n);
	}
	pthread_mutex_unlock(&in->lock);
	return NULL;
}

int
infer_new(struct infer **out, const struct infer_options *o, struct err_note *note)
{
	struct infer *in = calloc(1, sizeof(*in));
	int rc = ENOMEM;

	*out = NULL;
	if (in == NULL)
		return ENOMEM;
	in->kernels = o->kernels;
	in->kernels.threads = 1;
	if (o->compute_class != NULL)
		snprintf(in->compute_class, sizeof(in->compute_class), "%s", o->compute_class);
	in->batch = o->batch > 0 ? (size_t)o->batch : 1;
	STAILQ_INIT(&in->waiting);
	STAILQ_INIT(&in->finished);
	in->notify = o->notify;
	in->notify_arg = o->notify_arg;
	pthread_mutex_init(&in->lock, NULL);
	pthread_cond_init(&in->work, NULL);
	in->n_workers = o->threads > 0 ? o->threads : cpus_here();
	if ((in->workers = mem_alloc((size_t)in->n_workers, sizeof(*in->workers))) == NULL)
		goto fail;
	for (int i = 0; i < in->n_workers; i++) {
		struct infer_worker *w = &in->workers[i];

		w->in = in;
		if ((rc = kernels_new(&w->kernels, &in->kernels, note)) != 0)
			goto fail;
		if (i == 0) {
			in->kernels.share = w->kernels;		/* workers share one repacked copy */
			if (o->threads == 0 && kernels_device_versions(w->kernels)[0] != '\0' &&
			    in->n_workers > INFER_GPU_WORKERS)
				in->n_workers = INFER_GPU_WORKERS;
		}
		if ((rc = pthread_create(&w->thread, NULL, worker_main, w)) != 0)
			goto fail;
		pthread_setname_np(w->thread, "infer");	/* for top -H */
		w->started = true;
	}
	*out = in;
	return 0;
fail:
	infer_destroy(&in);
	return rc;
}

static void
free_jobs(struct infer_jobs *jobs)
{
	struct infer_job *job;

	while ((job = STAILQ_FIRST(jobs)) != NULL) {
		STAILQ_REMOVE_HEAD(jobs, entry);
		infer_job_free(&job);
	}
}

void
infer_destroy(struct infer **infer)
{
	struct infer *in = *infer;

	if (in == NULL)
		return;
	pthread_mutex_lock(&in->lock);
	in->stop = true;
	pthread_cond_broadcast(&in->work);
	pthread_mutex_unlock(&in->lock);
	/* the first worker last: the others share its weights */
	for (int i = in->n_workers - 1; in->workers != NULL && i >= 0; i--) {
		struct infer_worker *w = &in->workers[i];

		if (w->started)
			pthread_join(w->thread, NULL);
		for (int m = 0; m < INFER_MODELS_MAX; m++)
			model_session_destroy(&w->session[m]);
		for (size_t m = 0; i == 0 && m < in->n_models; m++)
			kernels_free(w->kernels, in->models[m].params);
		kernels_destroy(&w->kernels);
		free(w->seqs);
		free(w->inputs);
		free(w->targets);
		free(w->loss_nats);
		free(w->values);
		free(w->rank);
		free(w->n_unique);
		free(w->ids);
		free(w->counts);
	}
	/* All workers have ended, so every job is in one of the lists. */
	free_jobs(&in->waiting);
	free_jobs(&in->finished);
	for (size_t i = 0; i < in->n_models; i++)
		model_destroy(&in->models[i].model);
	free(in->workers);
	pthread_cond_destroy(&in->work);
	for (size_t k = 0; k < in->n_unigrams; k++)
		labels_unigram_destroy(&in->unigrams[k]);
	free(in->unigrams);
	pthread_mutex_destroy(&in->lock);
	free(in);
	*infer = NULL;
}

static int
load_tokenizer(struct infer_model *info, struct err_note *note)
{
	char path[4200], why[600], quoted[700];
	int rc;

	snprintf(path, sizeof(path), "%s/tokenizer.json", info->dir);
	if (access(path, F_OK) != 0)
		return 0;
	if ((rc = tokenizer_identify(path, &info->tokenizer, why, sizeof(why), note)) != 0)
		return rc;
	if (why[0] != '\0')
		log_warn("tokenizer.unread", "file=%s why=%s hint=\"it is compared by its hash\"", path, log_quote(why, quoted, sizeof(quoted)));
	info->has_tokenizer = true;
	return 0;
}

bool
infer_device(const struct infer *in, struct kernels_device *device)
{
	return kernels_on_device(in->workers[0].kernels, device);
}

static int
no_memory(const struct infer *in, const char *dir, size_t bytes, struct err_note *note)
{
	struct kernels_device device;
	char users[240];

	if (!infer_device(in, &device))
		return err_note_set(note, ENOMEM, "%s", dir);
	return err_expect(note, ENOMEM, "%s", "%.2f GiB of GPU memory for its parameters",
	    "%.2f GiB free of %.2f GiB on %s%s", dir,
	    (double)bytes / GIB, (double)device.free_bytes / GIB, (double)device.memory_bytes / GIB, device.name,
	    nvml_users(device.pci_bus_id, users, sizeof(users)));
}

int
infer_room(const struct infer *in, uint32_t context, bool dense, struct err_note *note)
{
	enum dtype dtype = kernels_dtype(in->workers[0].kernels);
	char users[240], advice[80] = "a shorter corpus.context, a smaller model or a larger GPU";
	const struct model_config *models[INFER_MODELS_MAX];
	struct kernels_device device;
	double worker;

	if (!infer_device(in, &device))
		return 0;
	for (size_t i = 0; i < in->n_models; i++)
		models[i] = &in->models[i].model->config;
	worker = fit_label(models, in->n_models, dtype, in->batch, context, dense);
	if (!(worker * in->n_workers > (double)device.free_bytes))
		return 0;
	if (worker <= (double)device.free_bytes)
		snprintf(advice, sizeof(advice), "teacher.threads: %d fits", (int)((double)device.free_bytes / worker));
	return err_expect(note, ENOMEM, "memory of the GPU",
	    "%.2f GiB for activations and logits of %d teacher.threads beside the parameters; %s",
	    "%.2f GiB free of %.2f GiB on %s%s", worker * in->n_workers / GIB, in->n_workers, advice,
	    (double)device.free_bytes / GIB, (double)device.memory_bytes / GIB, device.name,
	    nvml_users(device.pci_bus_id, users, sizeof(users)));
}

static int
read_range(void *arg, uint64_t begin, uint64_t end, float *out, struct err_note *note)
{
	return weights_model_read(arg, begin, end - begin, out, note);
}

int
infer_add_model(struct infer *in, const char *dir, bool serves_score, bool serves_label, struct err_note *note)
{
	struct infer_loaded l = {.model = NULL};
	struct weights_model *w = NULL;
	struct model_config cfg;
	struct hash128 fingerprint;
	char quoted[600];
	enum dtype dtype;
	bool checkpoint;
	int rc;

	/* A directory is read only once, and of equal models only one copy is kept. */
	for (size_t i = 0; i < in->n_models; i++)
		if (strcmp(in->models[i].info.dir, dir) == 0) {
			in->models[i].info.serves_score |= serves_score;
			in->models[i].info.serves_label |= serves_label;
			return 0;
		}
	/* The fingerprint is that of the bytes that are loaded below. */
	if ((rc = checkpoint_verify_model(dir, &checkpoint, note)) != 0 ||
	    (rc = weights_config_load(dir, &cfg, note)) != 0 ||
	    (rc = model_new(&l.model, &cfg, note)) != 0 ||
	    (rc = weights_model_open(&w, dir, l.model, note)) != 0 ||
	    (rc = weights_model_fingerprint(w, dir, &fingerprint, note)) != 0 ||
	    (in->compute_class[0] != '\0' && (rc = modelfiles_hash(dir, &fingerprint, note)) != 0))
		goto out;
	for (size_t i = 0; i < in->n_models; i++)
		if (hash_equal(in->models[i].info.fingerprint, fingerprint)) {
			in->models[i].info.serves_score |= serves_score;
			in->models[i].info.serves_label |= serves_label;
			goto out;
		}
	if (in->n_models == INFER_MODELS_MAX) {
		rc = err_note_set(note, ERR_FULL, "%s", dir);
		goto out;
	}
	snprintf(l.info.dir, sizeof(l.info.dir), "%s", dir);
	if ((rc = load_tokenizer(&l.info, note)) != 0)
		goto out;
	if (weights_model_remarks(w)[0] != '\0')
		log_info("weights.remarks", "dir=%s what=%s", dir, log_quote(weights_model_remarks(w), quoted, sizeof(quoted)));
	dtype = kernels_dtype(in->workers[0].kernels);
	if ((l.params = kernels_alloc(in->workers[0].kernels, (size_t)l.model->n_params * dtype_size(dtype))) == NULL) {
		rc = no_memory(in, dir, (size_t)l.model->n_params * dtype_size(dtype), note);
		goto out;
	}
	if ((rc = model_load(l.model, in->workers[0].kernels, l.params, read_range, w, note)) != 0)
		goto out;
	model_bind(l.model, l.params, dtype);
	l.info.fingerprint = fingerprint;
	l.info.vocab_size = (uint32_t)cfg.vocab_size;
	l.info.max_context = (uint32_t)cfg.context;
	l.info.n_params = l.model->n_params;
	l.info.serves_score = serves_score;
	l.info.serves_label = serves_label;
	in->models[in->n_models++] = l;
	l = (struct infer_loaded){.model = NULL};
out:
	weights_model_close(&w);
	model_destroy(&l.model);
	if (l.params != NULL)
		kernels_free(in->workers[0].kernels, l.params);
	return rc;
}

size_t
infer_n_models(const struct infer *in)
{
	return in->n_models;
}

const struct infer_model *
infer_model(const struct infer *in, size_t i)
{
	return &in->models[i].info;
}

const char *
infer_compute_class(const struct infer *in)
{
	return in->compute_class[0] != '\0' ? in->compute_class : kernels_compute_class(in->workers[0].kernels);
}

const char *
infer_reason(const struct infer *in)
{
	return kernels_reason(in->workers[0].kernels);
}

const char *
infer_describe(const struct infer *in)
{
	return kernels_describe(in->workers[0].kernels);
}

int
infer_threads(const struct infer *in)
{
	return in->n_workers;
}

void
infer_submit(struct infer *in, struct infer_job *job)
{
	pthread_mutex_lock(&in->lock);
	job->next = 0;
	job->left = job->n;
	STAILQ_INSERT_TAIL(&in->waiting, job, entry);
	in->n_jobs++;
	pthread_cond_broadcast(&in->work);
	pthread_mutex_unlock(&in->lock);
}

struct infer_job *
infer_finished(struct infer *in)
{
	struct infer_job *job;

	pthread_mutex_lock(&in->lock);
	if ((job = STAILQ_FIRST(&in->finished)) != NULL)
		STAILQ_REMOVE_HEAD(&in->finished, entry);
	pthread_mutex_unlock(&in->lock);
	return job;
}

void
infer_abandon(struct infer *in, size_t link, uint64_t lease_id)
{
	struct infer_job *job;

	pthread_mutex_lock(&in->lock);
	STAILQ_FOREACH(job, &in->waiting, entry)
		if (job->link == link && job->lease_id == lease_id)
			job->abandoned = true;
	pthread_mutex_unlock(&in->lock);
}

uint64_t
infer_progress(const struct infer *in)
{
	return atomic_load(&in->progress);
}

double
infer_cpu_seconds(const struct infer *in)
{
	return (double)atomic_load(&in->cpu_ns) * 1e-9;
}

size_t
infer_jobs(struct infer *in)
{
	size_t n;

	pthread_mutex_lock(&in->lock);
	n = in->n_jobs;
	pthread_mutex_unlock(&in->lock);
	return n;
}
