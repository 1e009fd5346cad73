/*
 * infer - the engine of teacherd: models held, sequences in, encoded score and label records out.
 *
 * One tile = one sequence = one thread, always: a worker runs forward and labels for a single sequence [1, L] with a one-thread
 * kernels context. That is why a record is the same bytes whatever lease it came in, how many sequences came with it, and how many
 * threads there are. Weights are shared, activations are per worker.
 */
#ifndef SALT_INFER_H
#define SALT_INFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err/err.h"
#include "base/hash/hash.h"
#include "engine/kernels/kernels.h"
#include "data/labels/labels.h"

#define INFER_MODELS_MAX 2		/* teacher and scorer */

struct infer_model {
	char dir[4096];
	struct hash128 fingerprint, tokenizer;
	bool has_tokenizer;
	uint32_t vocab_size, max_context;
	int64_t n_params;
	bool serves_score, serves_label;
};

struct infer;

struct infer_options {
	struct kernels_options kernels;	/* threads is ignored: always 1 a worker */
	int threads;			/* workers; 0: all the processors this process may run on */
	void (*notify)(void *arg);	/* called when a job is finished, from the thread that finished it, under a lock; NULL: not */
	void *notify_arg;
};

/* infer_new - no model yet, no worker yet. 0, as kernels_new, ENOMEM. */
int infer_new(struct infer **in, const struct infer_options *options, struct err_note *note);
void infer_destroy(struct infer **in);		/* ends the workers; unfinished jobs are freed; takes NULL */

/*
 * infer_add_model - load DIR (config.json, safetensors; tokenizer.json if there). The same directory or fingerprint twice only adds what it
 * serves. Returns 0, ERR_FULL, and what weights_model_open and weights_fingerprint return.
 */
int infer_add_model(struct infer *in, const char *dir, bool serves_score, bool serves_label, struct err_note *note);
size_t infer_n_models(const struct infer *in);
const struct infer_model *infer_model(const struct infer *in, size_t i);
const char *infer_compute_class(const struct infer *in);
const char *infer_describe(const struct infer *in);
const char *infer_reason(const struct infer *in);		/* why that arithmetic: kernels_reason */
int infer_threads(const struct infer *in);

/*
 * infer_unigram - the table that a label set is coded under, made of the bytes that WELCOME brought, or the one made of the same bytes
 * before. infer's, good until infer_destroy: a job may outlive the connection that it came by. As labels_unigram_new.
 */
int infer_unigram(struct infer *in, const uint8_t *bytes, size_t len, const struct labels_unigram **out, struct err_note *note);

/* One sequence's answer. Either error[0] != '\0' and nothing else, or what the job asked for. */
struct infer_row {
	uint64_t seq;
	uint8_t *scores;		/* [3 * L], malloc'ed, or NULL */
	struct labels_buf label;
	char error[128];
};

/* A lease as work. Made by infer_job_new, filled in by the caller, run by infer_submit; comes back by infer_finished. */
struct infer_job {
	size_t link;			/* the caller's: which connection */
	uint64_t lease_id;		/* the caller's */
	size_t model;			/* index */
	bool want_score, want_label;
	uint32_t context, n_valid;
	struct labels_spec spec;	/* with want_label */
	size_t n;			/* sequences */
	struct infer_row *rows;		/* [n]: seq filled in by the caller */
	int32_t *tokens;		/* [n, L + 1] */
	size_t next, left;		/* infer's: next to start, not finished */
	bool abandoned;			/* infer_abandon: its rest is skipped */
	struct infer_job *after;	/* infer's */
};

struct infer_job *infer_job_new(size_t n, uint32_t context);	/* NULL without memory or for absurd sizes */
void infer_job_free(struct infer_job **job);			/* takes NULL */

/* infer_check - can this job be done: model's context, vocabulary, tokens in range. 0 or ERR_RANGE with note. */
int infer_check(const struct infer *in, const struct infer_job *job, struct err_note *note);

void infer_submit(struct infer *in, struct infer_job *job);	/* takes it; first come, first served */
struct infer_job *infer_finished(struct infer *in);		/* next finished one or NULL; the caller's again */

/* infer_abandon - the lease is void: skip sequences not begun. The job still comes back through infer_finished. */
void infer_abandon(struct infer *in, size_t link, uint64_t lease_id);

uint64_t infer_progress(const struct infer *in);		/* sequences computed since the start; any thread */
double infer_cpu_seconds(const struct infer *in);		/* of the workers, all together, up to the last sequence; any thread */
size_t infer_jobs(struct infer *in);				/* submitted and not finished */

#endif
