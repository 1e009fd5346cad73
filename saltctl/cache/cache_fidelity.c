/*
 * cache stat --fidelity: are the stored labels what the teacher says? A few sequences are labelled anew, as teacherd does it, and compared byte
 * by byte; a second run of the same is the control. Then the teacher's whole distribution is computed, and the stored label's distance
 * from it set beside that of a fresh sample under another seed: an honest sample is as far away as any other.
 */
#include "saltctl/cache/cache.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "fabric/config/config.h"
#include "saltctl/model/lm.h"
#include "saltctl/core/output.h"
#include "base/json/json.h"
#include "base/mem/mem.h"
#include "engine/infer/infer.h"

struct distance {
	double kl_nats, tv;			/* sums over tokens */
	uint64_t n;
};

struct fidelity {
	struct ctl_args *args;
	const struct cache_id *id;
	const struct cache_corpora *corpora;
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
	struct labels_batch batch;
};

/* Stored sequences, evenly spread. */
static int
take_stored(struct fidelity *f, struct cache *c, uint64_t want, struct err_note *note)
{
	uint32_t L = f->id->labels.spec.context;
	uint64_t next = 0;
	struct hash128 hash;
	int rc = 0;

	f->seqs = mem_alloc(want, sizeof(*f->seqs));
	f->stored = mem_alloc(want, sizeof(*f->stored));
	f->tokens = mem_alloc((size_t)want * ((size_t)L + 1), sizeof(*f->tokens));
	if (f->seqs == NULL || f->stored == NULL || f->tokens == NULL)
		return ENOMEM;
	for (uint64_t i = 0; rc == 0 && i < want; i++) {
		uint64_t seq = cache_spread(i, want, f->id->windows, next);
		struct labels_buf *buf = &f->stored[f->n];
		struct cache_txn *txn;
		struct cache_bytes v;

		if ((rc = cache_txn_begin(c, &txn)) != 0)
			break;
		if ((rc = cache_labels_next(txn, &seq, &v)) == 0 && (rc = mem_grow((void **)&buf->bytes, &buf->cap, v.len, 1)) == 0) {
			memcpy(buf->bytes, v.bytes, v.len);
			buf->len = v.len;
			f->seqs[f->n] = seq;
		}
		cache_txn_end(&txn);
		if (rc == ERR_NOT_FOUND)
			break;
		next = seq + 1;
		if (rc == 0 && (rc = cache_tokens_of(f->corpora, seq, L, f->tokens + f->n * ((size_t)L + 1), &hash, note)) == 0)
			f->n++;
		else if (rc == ERR_CORRUPT)
			rc = 0;			/* a damaged record: fsck tells of it */
	}
	return rc == ERR_NOT_FOUND && f->n > 0 ? 0 : rc;
}

/* All of them labelled as teacherd does it; *job is the caller's. */
static int
label(struct fidelity *f, uint32_t seed, struct infer_job **out, struct err_note *note)
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
	job->spec = f->id->labels.spec;
	job->spec.seed = seed;
	for (size_t i = 0; i < f->n; i++)
		job->rows[i].seq = f->seqs[i];
	memcpy(job->tokens, f->tokens, f->n * ((size_t)L + 1) * sizeof(*job->tokens));
	if ((rc = infer_check(f->infer, job, note)) != 0) {
		infer_job_free(&job);
		return rc;
	}
	infer_submit(f->infer, job);
	while ((job = infer_finished(f->infer)) == NULL)
		nanosleep(&nap, NULL);
	for (size_t i = 0; i < f->n && rc == 0; i++)
		if (job->rows[i].error[0] != '\0')
			rc = err_note_set(note, ERR_NONFINITE, "sequence %" PRIu64 ": %s", f->seqs[i], job->rows[i].error);
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

/* One row of the batch against p. What a top-k label says of all other ids is one mass, compared with theirs. */
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
compare(struct fidelity *f, size_t i, const struct labels_buf *other, uint32_t seed, struct err_note *note)
{
	const struct labels_spec *spec = &f->id->labels.spec;
	const int32_t *tokens = f->tokens + i * ((size_t)spec->context + 1);
	struct hash128 hash = hash_tokens(tokens, (size_t)spec->context + 1);
	struct labels_batch fresh = {.kind = 0};
	struct labels_spec with = *spec;
	int rc;

	with.seed = seed;
	labels_batch_clear(&f->batch);
	if ((rc = labels_decode(spec, hash, f->stored[i].bytes, f->stored[i].len, &f->batch, note)) != 0 ||
	    (rc = labels_decode(&with, hash, other->bytes, other->len, &fresh, note)) != 0 ||
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
measure(struct fidelity *f, struct json *out, struct err_note *note)
{
	struct infer_job *one = NULL, *two = NULL, *other = NULL;
	uint64_t as_stored = 0, twice = 0;
	int rc;

	if ((rc = label(f, f->id->labels.spec.seed, &one, note)) != 0 || (rc = label(f, f->id->labels.spec.seed, &two, note)) != 0 ||
	    (rc = label(f, f->id->labels.spec.seed + 1, &other, note)) != 0)
		goto out;
	for (size_t i = 0; i < f->n && rc == 0; i++) {
		as_stored += same_bytes(&f->stored[i], &one->rows[i].label);
		twice += same_bytes(&one->rows[i].label, &two->rows[i].label);
		rc = compare(f, i, &other->rows[i].label, f->id->labels.spec.seed + 1, note);
	}
	if (rc != 0)
		goto out;
	ctl_put_int(out, "sequences", (int64_t)f->n);
	ctl_put_int(out, "same_bytes_as_stored", (int64_t)as_stored);
	ctl_put_int(out, "same_bytes_run_twice", (int64_t)twice);
	ctl_put_text(out, "compute_class_stored", f->id->labels.compute_class);
	ctl_put_text(out, "compute_class_here", infer_compute_class(f->infer));
	ctl_put_num(out, "kl_nats", f->was.kl_nats / (double)f->was.n);
	ctl_put_num(out, "total_variation", f->was.tv / (double)f->was.n);
	ctl_put_num(out, "kl_nats_other_seed", f->other.kl_nats / (double)f->other.n);
	ctl_put_num(out, "total_variation_other_seed", f->other.tv / (double)f->other.n);
out:
	infer_job_free(&one);
	infer_job_free(&two);
	infer_job_free(&other);
	return rc;
}

int
cache_fidelity(struct ctl_args *args, const struct config *cfg, struct cache *c, const struct cache_id *id,
    const struct cache_corpora *corpora, struct json *out)
{
	struct infer_options io = {.kernels = {KERNELS_BACKEND_AUTO, KERNELS_DTYPE_AUTO, 1}};
	struct fidelity f = {.args = args, .id = id, .corpora = corpora,
	    .dir = ctl_has(args, "teacher") ? ctl_get(args, "teacher") : cfg != NULL ? cfg->teacher.model : ""};
	struct err_note note = {.name = ""};
	uint64_t want = 4;
	char hex[HASH_HEX_BYTES];
	int rc, exit_code = ctl_get_u64(args, "windows", 1, 100000, &want);

	if (exit_code != 0)
		return exit_code;
	if (f.dir[0] == '\0')
		return ctl_usage(args, "which teacher? give --teacher FOLDER or -c fleet.yaml");
	if (corpora->train == NULL)
		return ctl_usage(args, "which corpus? give --corpus PREFIX or -c fleet.yaml");
	if (cfg != NULL) {
		io.kernels.backend = (enum kernels_backend)cfg->compute.backend;
		io.kernels.dtype = (enum kernels_dtype)cfg->compute.dtype;
	}
	if ((rc = cache_corpora_check(corpora, id, &note)) != 0 ||
	    (rc = infer_new(&f.infer, &io, &note)) != 0 || (rc = infer_add_model(f.infer, f.dir, false, true, &note)) != 0)
		goto out;
	if (!hash_equal(infer_model(f.infer, 0)->fingerprint, id->labels.teacher)) {
		rc = err_note_set(&note, ERR_MISMATCH, "teacher %s", f.dir);
		err_note_expected(&note, "%s, who made the labels", hash_hex(id->labels.teacher, hex));
		err_note_found(&note, "%s", hash_hex(infer_model(f.infer, 0)->fingerprint, hex));
		goto out;
	}
	f.p = mem_alloc(id->labels.spec.vocab, sizeof(*f.p));
	f.logits = mem_alloc(infer_model(f.infer, 0)->vocab_size, sizeof(*f.logits));
	rc = f.p == NULL || f.logits == NULL ? ENOMEM : 0;
	if (rc == 0 && (rc = lm_open(&f.lm, f.dir, &io.kernels, 1, id->labels.spec.context, &note)) == 0 &&
	    (rc = take_stored(&f, c, want, &note)) == 0)
		rc = measure(&f, out, &note);
	if (rc == ERR_NOT_FOUND && f.n == 0)
		err_note_set(&note, rc, "labels to compare");
out:
	lm_close(&f.lm);
	infer_destroy(&f.infer);
	for (uint64_t i = 0; f.stored != NULL && i < want; i++)
		labels_buf_free(&f.stored[i]);
	free(f.stored);
	free(f.seqs);
	free(f.tokens);
	free(f.p);
	free(f.logits);
	labels_batch_free(&f.batch);
	return rc != 0 ? ctl_fail(args, rc, &note) : 0;
}
