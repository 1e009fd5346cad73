/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache stat --fidelity: checks whether the stored labels are what the teacher computes. A few sequences are
 * labelled again as in teacherd and compared byte by byte; a second pass shows whether the teacher repeats
 * itself. Then the distance between the stored label and the teacher's full distribution is shown beside that
 * of a new sample with another seed: the two should be about equal.
 */
#include "saltctl/cache/cache.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fabric/config/config.h"
#include "saltctl/model/lm.h"
#include "saltctl/core/output.h"
#include "base/json/json.h"
#include "data/modelfiles/modelfiles.h"
#include "engine/infer/infer.h"
#include "engine/weights/weights.h"

struct distance {
	double kl_nats, tv;			/* sums over tokens */
	uint64_t n;
};

struct fidelity {
	const struct cache_id *id;
	const struct cache_corpora *corpora;
	struct err_note *note;
	struct infer *infer;
	struct lm lm;
	const char *dir;
	uint64_t *seqs;
	struct labels_buf *stored;		/* [n] */
	int32_t *tokens;			/* [n, L + 1] */
	size_t n;
	double *p;				/* [V] */
	float *logits;				/* [vocab_size] */
	struct distance was, other;
	bool declared;				/* the labels have a declared compute class */
	struct labels_batch batch;
};

static int
take_stored(void *arg, uint64_t seq, struct cache_bytes v)
{
	struct fidelity *f = arg;
	uint32_t L = f->id->labels.spec.context;
	struct labels_buf *buf = &f->stored[f->n];
	struct hash128 hash;
	int rc;

	if ((rc = cache_tokens_of(f->corpora, seq, L, f->tokens + f->n * ((size_t)L + 1), &hash, NULL)) != 0)
		return rc;
	ctl_grow((void **)&buf->bytes, &buf->cap, v.len, 1);
	memcpy(buf->bytes, v.bytes, v.len);
	buf->len = v.len;
	f->seqs[f->n++] = seq;
	return 0;
}

/* Labels all sequences as teacherd does; the caller frees *out. */
static int
label(struct fidelity *f, uint32_t seed, struct infer_job **out)
{
	const struct timespec nap = {0, 2000000};
	uint32_t L = f->id->labels.spec.context;
	struct infer_job *job = infer_job_new(f->n, L);
	int rc;

	*out = NULL;
	if (job == NULL)
		return ENOMEM;
	job->want_label = true;
	job->context = L;
	job->n_valid = f->id->labels.spec.vocab;
	job->document_end = corpus_document_end(f->corpora->train);
	job->spec = f->id->labels.spec;
	job->spec.seed = seed;
	for (size_t i = 0; i < f->n; i++)
		job->rows[i].seq = f->seqs[i];
	memcpy(job->tokens, f->tokens, f->n * ((size_t)L + 1) * sizeof(*job->tokens));
	if ((rc = infer_check(f->infer, job, f->note)) != 0) {
		infer_job_free(&job);
		return rc;
	}
	infer_submit(f->infer, job);
	while ((job = infer_finished(f->infer)) == NULL)
		nanosleep(&nap, NULL);
	for (size_t i = 0; i < f->n && rc == 0; i++)
		if (job->rows[i].error[0] != '\0')
			rc = err_note_set(f->note, ERR_NONFINITE, "sequence %" PRIu64 ": %s", f->seqs[i],
			    job->rows[i].error);
	if (rc != 0)
		infer_job_free(&job);
	*out = job;
	return rc;
}

/* softmax(u / tau) over the ids of the tokenizer */
static void
softmax(const float *u, uint32_t n, double tau, double *p)
{
	double max = -INFINITY, sum = 0;

	for (uint32_t v = 0; v < n; v++)
		max = u[v] > max ? u[v] : max;
	for (uint32_t v = 0; v < n; v++)
		sum += p[v] = exp((u[v] - max) / tau);
	for (uint32_t v = 0; v < n; v++)
		p[v] /= sum;
}

static double
term(double a, double b)
{
	return a > 0 ? a * log(a / (b > 1e-300 ? b : 1e-300)) : 0;
}

/*
 * Compares a label row of the batch with p. The ids outside a top-k label count as one event: its tail is
 * compared with the sum of their probabilities in p.
 */
static void
compare_row(const struct labels_batch *b, size_t r, const double *p, struct distance *d)
{
	double kl = 0, tv = 0, inside = 0;

	if (b->kind == LABELS_KIND_DENSE) {
		for (uint32_t v = 0; v < b->vocab; v++) {
			double t = b->dense[r * b->vocab + v];

			kl += term(t, p[v]);
			tv += fabs(t - p[v]);
		}
	} else {
		for (int64_t i = b->row_offsets[r]; i < b->row_offsets[r + 1]; i++) {
			kl += term(b->weights[i], p[b->ids[i]]);
			tv += fabs(b->weights[i] - p[b->ids[i]]);
			inside += p[b->ids[i]];
		}
		kl += term(b->tail[r], 1 - inside);
		tv += fabs(b->tail[r] - (1 - inside));
	}
	d->kl_nats += kl;
	d->tv += tv / 2;
	d->n++;
}

static int
compare(struct fidelity *f, size_t i, const struct labels_buf *other, uint32_t seed)
{
	const struct labels_spec *spec = &f->id->labels.spec;
	const int32_t *tokens = f->tokens + i * ((size_t)spec->context + 1);
	struct hash128 hash = hash_tokens(tokens, (size_t)spec->context + 1);
	struct labels_batch fresh = {.kind = 0};
	struct labels_spec with = *spec;
	int rc;

	with.seed = seed;
	labels_batch_clear(&f->batch);
	if ((rc = labels_decode(spec, hash, f->stored[i].bytes, f->stored[i].len, &f->batch, f->note)) != 0 ||
	    (rc = labels_decode(&with, hash, other->bytes, other->len, &fresh, f->note)) != 0 ||
	    (rc = model_forward(f->lm.session, tokens, 1, spec->context)) != 0)
		goto out;
	for (uint32_t t = 0; t < spec->context; t++) {
		model_logits(f->lm.session, t, 1, f->logits);
		softmax(f->logits, spec->vocab, spec->tau, f->p);
		compare_row(&f->batch, t, f->p, &f->was);
		compare_row(&fresh, t, f->p, &f->other);
	}
out:
	labels_batch_free(&fresh);
	return rc;
}

static bool
same_bytes(const struct labels_buf *a, const struct labels_buf *b)
{
	return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

static int
measure(struct fidelity *f, struct json **out)
{
	uint32_t seed = f->id->labels.spec.seed;
	struct infer_job *one = NULL, *two = NULL, *other = NULL;
	uint64_t as_stored = 0, twice = 0;
	double n;
	int rc;

	if ((rc = label(f, seed, &one)) != 0 || (rc = label(f, seed, &two)) != 0 ||
	    (rc = label(f, seed + 1, &other)) != 0)
		goto out;
	for (size_t i = 0; i < f->n && rc == 0; i++) {
		as_stored += same_bytes(&f->stored[i], &one->rows[i].label);
		twice += same_bytes(&one->rows[i].label, &two->rows[i].label);
		rc = compare(f, i, &other->rows[i].label, seed + 1);
	}
	if (rc != 0)
		goto out;
	n = (double)f->was.n;
	*out = ctl_record(CTL("sequences", f->n), CTL("same_bytes_as_stored", as_stored),
	    CTL("same_bytes_run_twice", twice), CTL("compute_class_stored", f->id->labels.compute_class),
	    CTL("compute_class_here", infer_compute_class(f->infer)),
	    CTL("declared_class", f->declared), CTL("kl_nats", f->was.kl_nats / n),
	    CTL("total_variation", f->was.tv / n), CTL("kl_nats_other_seed", f->other.kl_nats / n),
	    CTL("total_variation_other_seed", f->other.tv / n));
out:
	infer_job_free(&one);
	infer_job_free(&two);
	infer_job_free(&other);
	return rc;
}

/*
 * Whether the labels have a declared compute class and model m is their teacher. Such labels identify the
 * teacher by the hash of its files. The engine takes the place of the other program here, so only the
 * distance is meaningful; equal bytes are not expected.
 */
static bool
declared(const struct fidelity *f, const struct infer_model *m)
{
	struct hash128 files;

	return !hash_equal(m->fingerprint, f->id->labels.teacher) && modelfiles_hash(f->dir, &files, NULL) == 0 &&
	    hash_equal(files, f->id->labels.teacher);
}

static int
unknown_teacher(struct fidelity *f)
{
	char found[sizeof(f->note->found)];

	snprintf(found, sizeof(found), "%.80s", f->note->found);
	err_note_found(f->note, "%s, which saltctl cannot compute; in Python: python -m saltfleet.teacher.fidelity --model %.120s -c fleet.yaml", found,
	    f->dir);
	return ERR_UNSUPPORTED;
}

static int
open_models(struct fidelity *f, const struct config *cfg)
{
	const struct labels_spec *spec = &f->id->labels.spec;
	struct infer_options io = {.kernels = {KERNELS_BACKEND_AUTO, KERNELS_DTYPE_AUTO, 1}};
	const struct infer_model *m;
	struct model_config known;
	enum config_dtype dtype;
	int rc;

	if (cfg != NULL) {
		if ((rc = config_teacher_dtype(cfg, &dtype, f->note)) != 0)
			return rc;
		io.kernels.backend = (enum kernels_backend)cfg->compute.backend;
		io.kernels.dtype = (enum kernels_dtype)dtype;
	}
	if ((rc = weights_config_load(f->dir, &known, f->note)) == ERR_UNSUPPORTED)
		return unknown_teacher(f);
	if (rc != 0 || (rc = infer_new(&f->infer, &io, f->note)) != 0 || (rc = infer_add_model(f->infer, f->dir, false,
	    true, f->note)) != 0)
		return rc;
	m = infer_model(f->infer, 0);
	f->declared = declared(f, m);
	if (!f->declared && !hash_equal(m->fingerprint, f->id->labels.teacher))
		return err_expect(f->note, ERR_MISMATCH, "teacher %s", "%s, which made the labels", "%s", f->dir,
		    cache_hex(f->id->labels.teacher), cache_hex(m->fingerprint));
	f->p = ctl_alloc(spec->vocab, sizeof(*f->p));
	f->logits = ctl_alloc(m->vocab_size, sizeof(*f->logits));
	rc = lm_open(&f->lm, f->dir, &io.kernels, 1, spec->context, f->note);
	return rc != 0 ? rc : model_session_documents(f->lm.session, corpus_document_end(f->corpora->train));
}

int
cache_fidelity(const struct cache_job *job, struct json **out)
{
	const struct ctl_args *args = job->args;
	const struct cache_corpora *corpora = &job->corpora;
	const struct config *cfg = job->cfg;
	struct err_note note = {.name = ""};
	struct fidelity f = {.id = &job->id, .corpora = corpora, .note = &note,
	    .dir = ctl_has(args, "teacher") ? ctl_get(args, "teacher") : cfg != NULL ? cfg->teacher.model : ""};
	uint64_t want = 4, n_damaged = 0;
	int rc, exit_code = ctl_get_u64(args, "windows", 1, 100000, &want);

	if (exit_code != 0)
		return exit_code;
	if (f.dir[0] == '\0')
		return ctl_usage(args, "which teacher? give --teacher FOLDER or -c fleet.yaml");
	if (corpora->train == NULL)
		return ctl_usage(args, "which corpus? give --corpus PREFIX or -c fleet.yaml");
	f.seqs = ctl_alloc(want, sizeof(*f.seqs));
	f.stored = ctl_alloc(want, sizeof(*f.stored));
	f.tokens = ctl_alloc(want, ((size_t)job->id.labels.spec.context + 1) * sizeof(*f.tokens));
	if ((rc = cache_corpora_check(corpora, &job->id, &note)) == 0 && (rc = open_models(&f, cfg)) == 0 &&
	    (rc = cache_sample(job->c, &job->id, CACHE_TABLE_LABELS, want, take_stored, &f, &n_damaged)) == 0)
		rc = f.n > 0 ? measure(&f, out) : err_note_set(&note, ERR_NOT_FOUND, "labels to compare");
	lm_close(&f.lm);
	infer_destroy(&f.infer);
	for (size_t i = 0; i < f.n; i++)
		labels_buf_free(&f.stored[i]);
	free(f.stored);
	free(f.seqs);
	free(f.tokens);
	free(f.p);
	free(f.logits);
	labels_batch_free(&f.batch);
	return rc != 0 ? ctl_fail(args, rc, &note) : 0;
}
