/* SPDX-License-Identifier: Apache-2.0 */
/*
 * infer - computes scores and label records of batches of sequences, with the models held in device memory.
 *
 * A record is a pure function of model, label set and sequence: the bytes are the same whichever job,
 * batch and thread computes it. Each worker thread has a kernels handle of one thread, which computes
 * the rows of a sequence as if it were alone (kernels_row_tile). Workers share the parameters; each has its
 * own activations.
 */
#ifndef SALT_INFER_H
#define SALT_INFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/err/err.h"
#include "base/hash/hash.h"
#include "engine/kernels/kernels.h"
#include "data/labels/labels.h"

#define INFER_MODELS_MAX 2		/* teacher and scorer */
/* default number of workers on a GPU: one encodes records while the device computes for the other */
#define INFER_GPU_WORKERS 2

struct infer_model {
	char dir[4096];
	struct hash128 fingerprint;	/* weights_fingerprint; modelfiles_hash with a declared class */
	struct hash128 tokenizer;
	bool has_tokenizer;
	uint32_t vocab_size, max_context;
	int64_t n_params;
	bool serves_score, serves_label;
};

struct infer;

struct infer_options {
	struct kernels_options kernels;	/* threads is ignored: always 1 per worker */
	int threads;			/* workers; 0: all processors that this process may run on */
	/*
	 * The declared compute class (teacher.compute_class), or NULL. If one is declared, the models'
	 * fingerprints are the hashes of their files, and infer_compute_class returns it; the computation is
	 * the same.
	 */
	const char *compute_class;
	int batch;			/* sequences of a job in one forward pass; 0: 1, the best on a CPU */
	void (*notify)(void *arg);	/* or NULL; called when a job is finished, by the thread that finished
					 * it, with a lock held */
	void *notify_arg;
};

/* infer_new - starts the workers; there is no model yet. Returns 0, ENOMEM, or as kernels_new. */
int infer_new(struct infer **in, const struct infer_options *options, struct err_note *note);
void infer_destroy(struct infer **in);		/* ends the workers and frees unfinished jobs; accepts NULL */

/*
 * infer_add_model - loads DIR (config.json, safetensors, tokenizer.json if it exists). Loading the same
 * directory or fingerprint again only extends what the model serves. Returns 0, ERR_FULL, and the errors of
 * weights_model_open and weights_fingerprint.
 */
int infer_add_model(struct infer *in, const char *dir, bool serves_score, bool serves_label, struct err_note *note);
/*
 * infer_room - on a GPU, checks that the free memory is enough for the activations and logits of all workers,
 * for sequences of @context tokens (fit_label; @dense: with dense labels). Call it after infer_add_model: the
 * workers allocate this memory only with the first lease. Returns 0 (on CPUs always), or ENOMEM with what
 * would fit.
 */
int infer_room(const struct infer *in, uint32_t context, bool dense, struct err_note *note);
size_t infer_n_models(const struct infer *in);
const struct infer_model *infer_model(const struct infer *in, size_t i);
const char *infer_compute_class(const struct infer *in);	/* the announced class: the declared one, or
								 * that of the kernels */
const char *infer_describe(const struct infer *in);
const char *infer_reason(const struct infer *in);		/* why this backend and dtype: kernels_reason */
int infer_threads(const struct infer *in);
bool infer_device(const struct infer *in, struct kernels_device *device);	/* kernels_on_device */

/*
 * infer_unigram - returns the unigram table of a label set, made from the bytes in WELCOME, or the table made
 * from the same bytes before. infer owns it; valid until infer_destroy, because a job may outlive its
 * connection.
 * Errors as labels_unigram_new.
 */
int infer_unigram(struct infer *in, const uint8_t *bytes, size_t len, const struct labels_unigram **out, struct err_note *note);

/* The result of one sequence: either error[0] != '\0' and nothing else, or what the job requested. */
struct infer_row {
	uint64_t seq;
	uint8_t *scores;		/* [3 * L], malloc'ed, or NULL */
	struct labels_buf label;
	char error[128];
};

/*
 * The work of a lease. infer_job_new makes it, the caller fills it in, infer_submit runs it, infer_finished
 * returns it.
 */
struct infer_job {
	size_t link;			/* set by the caller: the connection */
	uint64_t lease_id;		/* set by the caller */
	size_t model;			/* index of the model */
	bool want_score, want_label;
	uint32_t context, n_valid;
	int32_t document_end;		/* the id that ends a document (model_session_documents); -1:
					 * sequences are not divided */
	struct labels_spec spec;	/* with want_label */
	size_t n;			/* sequences */
	struct infer_row *rows;		/* [n]: seq filled in by the caller */
	int32_t *tokens;		/* [n, L + 1] */
	size_t next, left;		/* used by infer: next sequence to start, number not finished */
	bool abandoned;			/* set by infer_abandon: the remaining sequences are skipped */
	STAILQ_ENTRY(infer_job) entry;	/* used by infer */
};

struct infer_job *infer_job_new(size_t n, uint32_t context);	/* NULL if memory is exhausted or the size
								 * overflows; document_end is -1 */
void infer_job_free(struct infer_job **job);			/* accepts NULL */

/* infer_check - checks a job: the model's position limit, vocabulary, tokens in range. 0 or ERR_RANGE with note */
int infer_check(const struct infer *in, const struct infer_job *job, struct err_note *note);

void infer_submit(struct infer *in, struct infer_job *job);	/* takes ownership of the job; jobs start in
								 * the order of submission */
struct infer_job *infer_finished(struct infer *in);		/* the next finished job, which the caller
								 * owns, or NULL */

/*
 * infer_abandon - for a cancelled lease: skips sequences that have not started. infer_finished still returns
 * the job.
 */
void infer_abandon(struct infer *in, size_t link, uint64_t lease_id);

uint64_t infer_progress(const struct infer *in);		/* sequences computed since the start; any thread */
double infer_cpu_seconds(const struct infer *in);		/* processor time of all workers up to the
								 * last sequence; any thread */
size_t infer_jobs(struct infer *in);				/* submitted and not finished */

#endif
