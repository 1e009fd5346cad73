/* SPDX-License-Identifier: Apache-2.0 */
/*
 * saltfleet - the C client library: a trainer's rows, a teacher's leases, plan and status of a fleet. It
 * talks to all shards of selectord. It needs no MPI, no BLAS and no model code.
 *
 * A trainer:
 *
 *	struct salt *s;
 *	struct salt_error e;
 *	struct salt_rows *rows;
 *	struct salt_options o = {.size = sizeof(o), .role = SALT_TRAINER, .config = "fleet.yaml", .vocab = 50304};
 *
 *	if (salt_open(&s, &o, &e) != 0)
 *		...e.text says what is wrong, where, what was expected and what was found...
 *	for (step = 0; step < steps; step++) {
 *		while ((rc = salt_rows(s, step, 0, batch, 1000, &rows, &e)) == SALT_TIMEOUT)
 *			;
 *		...train on rows->tokens, rows->ids, rows->weights, rows->kd_weight...
 *		salt_rows_free(&rows);
 *	}
 *	salt_close(&s);
 *
 * A teacher:
 *
 *	while ((rc = salt_lease(s, 1000, &lease, &e)) == 0 || rc == SALT_TIMEOUT)
 *		if (rc == 0) {
 *			for (i = 0; i < lease->n; i++)
 *				salt_submit_logits(s, lease, i, logits_of(lease->tokens + i * (lease->context + 1)), vocab, &e);
 *			salt_return(s, &lease);
 *		}
 *	salt_flush(s, 60000, &e);
 *	salt_close(&s);
 *
 * CAVEATS.
 *
 *   Rows are a pure function of plan and step. The state of a data loader is one integer, the next step.
 *   Reading a step consumes nothing: it can be read again until a later checkpoint is confirmed
 *   (salt_checkpointed). Row r of a step is row g = step * batch + r of the plan. Prefetching works only if a
 *   process asks for the same range of rows in every step; the rows are correct in any case.
 *
 *   salt_checkpointed and salt_release return at once. The library tells selectord in the background and
 *   repeats the message until it is acknowledged; salt_flush waits for that. Call salt_release only when the
 *   checkpoint of the switch is on disk: afterwards no more labels are made for the plan.
 *
 *   After the switch rows are read from the local corpus, without selectord. A trainer connects only when it
 *   needs selectord: one that starts in phase two works without a network.
 *
 *   selectord may restart and connections may break; the library reconnects. A call that waits too long
 *   returns SALT_TIMEOUT, and salt_view.waiting tells why. Acknowledged data are not lost.
 *
 *   phase_one.late: hard has an effect in trainerd only. salt_rows waits for a row's label however late it
 *   comes.
 *
 *   A forked child must not use a struct salt of its parent: calls return SALT_FORKED, and salt_close only
 *   frees memory. Call salt_open in the child.
 *
 * ERRORS. Calls return 0 or one of enum salt_code, and fill *error, which may be NULL. No call ends the
 * process.
 *
 * THREADS. A struct salt may be used by any number of threads at once, except salt_open and salt_close. A
 * rows or lease object is used by one thread at a time. The library runs one thread for the network, one for
 * its status socket (trainer, teacher), and `threads` threads that encode and decode.
 *
 * ABI. Structs of the caller begin with `size`, which the caller sets to sizeof (salt_model and salt_error
 * have none). Later versions only append members. A pointer handed out is valid until the call that its
 * comment names. The symbols have the version SALTFLEET_1.
 */
#ifndef SALTFLEET_H
#define SALTFLEET_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SALT_API __attribute__((visibility("default")))

struct salt;

enum salt_code {
	SALT_OK = 0,
	SALT_TIMEOUT = 1,		/* not yet: the same call may succeed later */
	SALT_END,			/* no more work: the teacher was released, or salt_drain was called */
	SALT_FORKED,			/* this process is a fork of the one that called salt_open */
	SALT_CONFIG,			/* invalid fleet.yaml, option or argument: exit code 78 */
	SALT_MISMATCH,			/* identities differ: corpus, plan, label set, model, tokenizer: 78 */
	SALT_DATA,			/* damaged or unusable data: 65 */
	SALT_REFUSED,			/* selectord refused; exit_code is the code that it sent */
	SALT_NONFINITE,			/* NaN or infinity in logits or probabilities: 65 */
	SALT_RANGE,			/* an argument or an id outside its range: 64 */
	SALT_NOT_FOUND,			/* a file does not exist: 66 */
	SALT_MEMORY,			/* out of memory: 71 */
	SALT_SYSTEM,			/* another system error, described in text: 74 */
	SALT_CLOSED,			/* the lease no longer exists: selectord has restarted, or the lease
					   has expired */
	SALT_INTERNAL			/* a bug in this library: 70 */
};

struct salt_error {
	int code;			/* enum salt_code */
	int exit_code;			/* sysexits.h code for a program that exits on this error */
	char text[1200];		/* one line: what failed, where, expected, found, what to do */
};

SALT_API const char *salt_version(void);		/* "0.1.0" */
SALT_API const char *salt_code_name(int code);		/* "SALT_TIMEOUT"; "?" */

/* ---- open -------------------------------------------------------------------------------------------------------- */

enum salt_role { SALT_TRAINER = 1, SALT_TEACHER = 2, SALT_CLIENT = 3 };

/* A model that a teacher serves. */
struct salt_model {
	const char *dir;		/* model directory; the hash of its config.json and safetensors
					   identifies the model */
	uint32_t vocab;			/* logits per position, >= the corpus's vocabulary */
	uint32_t max_context;		/* longest L, tokens */
	int serves_score, serves_label;
	/*
	 * Path of the corpus's tokenizer.json, for a model whose own tokenizer (DIR/tokenizer.json) has more
	 * ids. Each id of the corpus's tokenizer must stand for the same token in both; otherwise
	 * SALT_MISMATCH names the first that differs. NULL: DIR/tokenizer.json, if it exists, must be the
	 * corpus's tokenizer.
	 */
	const char *corpus_tokenizer;
};

struct salt_options {
	size_t size;			/* sizeof(struct salt_options) */
	int role;			/* enum salt_role */
	const char *config;		/* path of fleet.yaml */
	const char *const *overrides;	/* [n_overrides] "section.key=value", like --set */
	size_t n_overrides;
	const char *name;		/* in status and logs; NULL: "trainer-RANK", "teacher-HOST-PID" */
	uint32_t rank;			/* trainer: shown in status */
	uint32_t vocab;			/* trainer: ids of the student's output layer; 0: the corpus's vocabulary */
	uint32_t prefetch_steps;	/* trainer: steps fetched ahead of the requested one; 0: 4 */
	uint32_t threads;		/* that decode and encode; 0: one per core (at most 8) for a teacher,
					   else 1 */
	int keep_records;		/* trainer: salt_rows.records is filled */
	const struct salt_model *models;	/* teacher: [n_models], 1 or 2 */
	size_t n_models;
	const char *compute_class;	/* teacher; NULL: the configuration's teacher.compute_class, which
					   must then be set */
	void (*log)(void *arg, int level, const char *line);	/* level: 0 debug .. 3 error; NULL: no
								   logging. Called from any thread of the
								   library. The process has one: that of the
								   latest salt_open */
	void *log_arg;
};

/*
 * salt_open - reads the configuration, opens the corpora (trainer, client), computes identities and starts
 * the threads. It does not wait for a connection. Returns 0 and *s. On an error *s is NULL: SALT_CONFIG,
 * SALT_NOT_FOUND, SALT_DATA, SALT_MISMATCH (corpus or tokenizer against the model), SALT_MEMORY, SALT_SYSTEM.
 * If no side file has the corpus's fingerprint, the corpus is read once, which takes minutes for a large one.
 *
 * salt_close - sends BYE to selectord, ends the threads, and frees everything except rows and leases that the
 * caller still holds. Waits at most a second. Results that were not flushed may be lost; their labels are
 * computed again. *s may be NULL.
 */
SALT_API int salt_open(struct salt **s, const struct salt_options *options, struct salt_error *error);
SALT_API void salt_close(struct salt **s);

/*
 * Settings of the run, from configuration and corpus; salt_plan fills it. Constant after salt_open, except
 * switch_step. Strings are valid until salt_close.
 */
struct salt_plan {
	size_t size;			/* set by the caller */
	uint64_t steps;			/* of the whole run */
	uint64_t switch_step;		/* first step of phase two; SALT_UNKNOWN: until_margin, before
					   salt_switch */
	uint64_t batch;			/* sequences a step, over all processes */
	uint32_t context;		/* L */
	uint32_t vocab;			/* ids of labels: the corpus's vocabulary */
	uint64_t n_windows;		/* sequences of the corpus */
	uint32_t seed;
	int label_kind;			/* enum salt_kind */
	uint32_t n;			/* N of sampled labels, k of topk, else 0 */
	double tau;
	double kd_weight;		/* phase_one.weight */
	int residual;			/* enum salt_residual: where the tail of topk labels goes */
	double margin_nats;		/* until_margin; NaN: none */
	uint64_t handover_steps;	/* until_margin: steps from the one that meets the margin to the
					   switch */
	uint64_t checkpoint_every, eval_every;
	const char *run_dir, *mode;	/* mode: "baseline", "salt", "salt_ds", "salt_file", "rkd" */
	const char *corpus_train, *corpus_heldout;	/* prefixes, "": none; train may be a list, see
							   salt_corpus_open */
	const char *tokenizer;		/* hex identity of the corpus's tokenizer; "": not known */
	const char *compute_class;	/* teacher.compute_class, which may be "auto" */
	const char *corpus_dtype;	/* dtype of raw ids; "": the corpora state it */
	uint64_t eval_sequences;	/* an evaluation takes so many held-out sequences, from the first on;
					   0: all */
	int token_weight;		/* enum salt_token_weight: what a token's distillation weight depends on */
	int isolate_documents;		/* 1: positions see only their document, see struct salt_rows and
					   salt_lease */
	int32_t document_end;		/* trainer, client: the id that ends a document; -1: documents are not
					   isolated */
};
#define SALT_UNKNOWN UINT64_MAX
enum salt_kind { SALT_NO_LABELS = 0, SALT_SAMPLED = 1, SALT_TOPK = 2, SALT_DENSE = 3 };
enum salt_residual { SALT_TRUE_TOKEN = 0, SALT_GHOST = 1, SALT_RENORMALISE = 2 };
enum salt_token_weight { SALT_WEIGHT_CONSTANT = 0, SALT_WEIGHT_TEACHER_CONFIDENCE = 1, SALT_WEIGHT_MARGIN = 2 };

SALT_API int salt_plan(struct salt *s, struct salt_plan *plan, struct salt_error *error);

/* The present state of connections and work; salt_view fills it. */
struct salt_view {
	size_t size;			/* set by the caller */
	uint32_t shards, shards_welcomed;
	uint64_t rows_ready;		/* number of rows, from row 0 on, that selectord could serve at its
					   last WELCOME */
	uint64_t ahead;			/* trainer: complete steps in memory */
	double teacher_nats;		/* teacher's mean held-out loss, NaN: not known */
	uint64_t checkpointed;		/* trainer: highest step of salt_checkpointed that all shards have
					   acknowledged */
	int released;			/* all shards have acknowledged the release */
	uint64_t sequences, tokens;	/* teacher: submitted */
	uint64_t unconfirmed;		/* teacher: sequences submitted and not on selectord's disk */
	uint64_t quarantined_rows, label_bytes;	/* trainer, since salt_open */
	char status_endpoint[256];	/* of this process's status socket; "": none */
	char waiting[256];		/* why a call would wait: "connecting to tcp://...", "row 512 has no label yet"; "" */
};

SALT_API int salt_view(struct salt *s, struct salt_view *view, struct salt_error *error);

/* ---- trainer ----------------------------------------------------------------------------------------------------- */

/*
 * Rows of a step. Labels are CSR over the n * L positions, row-major: position p = i * L + t has the entries
 * [offsets[p], offsets[p+1]), with ascending ids. Its label is the teacher's distribution over token
 * tokens[i][t+1], and its weights sum to 1 - tail[p]. A position without a label has no entries. The object
 * owns all arrays; they are valid until salt_rows_free.
 *
 * With corpus.isolate_documents, position t of row i sees only the positions of its document, from
 * document_starts[i, t] on, and is position t - document_starts[i, t] for the model. A token that ends a
 * document (salt_plan.document_end) has no target, because tokens[i][t+1] belongs to the next document: take
 * no loss there and do not use the label.
 */
struct salt_rows {
	size_t size;			/* of this struct in the library */
	uint64_t step, first;
	uint64_t n;			/* rows */
	uint32_t context;		/* L */
	int phase;			/* 1 or 2 */
	int kind;			/* enum salt_kind; SALT_NO_LABELS in phase two */
	uint32_t vocab;			/* columns of dense: the student's vocabulary */
	const int32_t *tokens;		/* [n, L + 1]: inputs [0, L), targets [1, L] */
	const uint64_t *seqs;		/* [n] number of the sequence in the corpus */
	const float *kd_weight;		/* [n] distillation weight w of each row; 0: no label */
	const uint8_t *quarantined;	/* [n] 1: the sequence is in quarantine and has no label */
	const int64_t *offsets;		/* [n * L + 1]; NULL for dense and phase two */
	const int32_t *ids;		/* [offsets[n * L]] */
	const float *weights;		/* [offsets[n * L]] */
	const float *tail;		/* [n * L] probability outside the entries; 0: no label; NULL for
					   dense and phase two */
	const float *dense;		/* [n * L, vocab] or NULL */
	const uint8_t *const *records;	/* [n] encoded label records, with keep_records; an entry is NULL
					   without a label */
	const size_t *record_bytes;	/* [n] */
	uint64_t label_bytes;		/* size of all encoded records */
	uint32_t max_entries;		/* largest number of entries of a position */
	const int32_t *document_starts;	/* [n, L] index of the first token of the position's document; NULL:
					   not isolated */
};

/*
 * salt_rows - rows [first, first + n) of a step, n >= 1, first + n <= batch. Waits at most timeout_ms (0:
 * does not wait, -1: no limit). Returns 0 and *rows; SALT_TIMEOUT; SALT_RANGE (step, first, n); SALT_REFUSED,
 * SALT_MISMATCH, SALT_DATA (a label made of other tokens, a damaged corpus), which are final: every later
 * call for phase one returns the same error; SALT_FORKED. Phase two needs no selectord.
 */
SALT_API int salt_rows(struct salt *s, uint64_t step, uint64_t first, uint64_t n, int timeout_ms, struct salt_rows **rows,
    struct salt_error *error);
SALT_API void salt_rows_free(struct salt_rows **rows);		/* *rows may be NULL; any time, also after
								   salt_close */

/*
 * salt_rows_padded - copies the labels into rectangular arrays of the caller: ids int64[n * L, k] and weights
 * float[n * L, k]. Each position has its entries first, then id 0 and weight 0. SALT_RANGE: k <
 * rows->max_entries, or rows without offsets. Pure.
 */
SALT_API int salt_rows_padded(const struct salt_rows *rows, uint32_t k, int64_t *ids, float *weights, struct salt_error *error);

/*
 * salt_checkpointed - the oldest complete checkpoint that the run may resume from is that of `step`: rows of
 * earlier steps will not be asked for again. Does not wait for selectord. One, several or all processes of a
 * run may call it. The process of rank 0 stores the options, the corpora's fingerprints and the label set's
 * identity in run.dir, as trainerd's checkpoints do. From then on salt_open rejects other identity options
 * there (SALT_CONFIG) and another corpus (SALT_MISMATCH), and salt_rows rejects another label set
 * (SALT_MISMATCH), because the run would continue with other rows or other labels. SALT_RANGE: `step` is above
 * trainer.steps.
 * salt_release - the switch has happened and its checkpoint is on disk: no more labels are needed.
 * SALT_RANGE: `step` is not the switch step.
 * salt_switch - with until_margin: sets the switch step, which the caller decides from its held-out loss and
 * salt_view.teacher_nats. Drops rows that were fetched for phase one from this step on. SALT_RANGE: the
 * configuration states another switch step.
 * salt_flush - waits until all shards have acknowledged the calls before it (trainer: checkpoints and
 * release; teacher: results are on disk). Returns 0, SALT_TIMEOUT, or the error of a shard that can no longer
 * acknowledge; after salt_release such a shard is ignored, because nothing depends on it.
 */
SALT_API int salt_checkpointed(struct salt *s, uint64_t step, struct salt_error *error);
SALT_API int salt_release(struct salt *s, uint64_t step, struct salt_error *error);
SALT_API int salt_switch(struct salt *s, uint64_t step, struct salt_error *error);
SALT_API int salt_flush(struct salt *s, int timeout_ms, struct salt_error *error);

/*
 * salt_kd_weight - the distillation weight of a step, for the present switch step; 0 in phase two, NaN in a
 * forked child.
 */
SALT_API float salt_kd_weight(struct salt *s, uint64_t step);

/* ---- teacher ----------------------------------------------------------------------------------------------------- */

struct salt_lease {
	size_t size;			/* of this struct in the library */
	uint64_t id;
	uint32_t model;			/* index in options.models */
	int want_score, want_label;
	uint32_t n;			/* sequences */
	uint32_t context;		/* L */
	uint32_t n_valid;		/* the corpus's vocabulary: scores, draws and dense labels are of the
					   distribution over these ids, and labels contain no others. For the
					   model's other ids see salt_submit_logits */
	int kind;			/* enum salt_kind, with want_label */
	uint32_t n_draws, k;		/* N of sampled, k of topk */
	double tau;			/* labels: softmax(u / tau); scores: tau is 1 */
	uint32_t seed;
	const uint64_t *seqs;		/* [n] */
	const int32_t *tokens;		/* [n, L + 1] */
	int32_t document_end;		/* the id that ends a document; -1: documents are not isolated */
	const int32_t *document_starts;	/* [n, L] as in struct salt_rows, for computing the logits. NULL: not
					   isolated */
};

/*
 * salt_lease - takes the next lease; salt_return gives it back. The library renews it as long as the caller
 * submits results or calls salt_renew. It requests two leases of each shard ahead, so that computing does not
 * wait for the network. Returns 0; SALT_TIMEOUT; SALT_END (released by selectord, or after salt_drain);
 * SALT_REFUSED, SALT_MISMATCH: final.
 */
SALT_API int salt_lease(struct salt *s, int timeout_ms, struct salt_lease **lease, struct salt_error *error);

/*
 * Results of sequence i of a lease. Submit everything that the lease asks for (want_score, want_label);
 * scores and label may come in two calls. Arrays are copied. Logits are reduced before the call returns, with
 * the help of the library's threads; encoding and sending continue in the background. Return 0; SALT_RANGE
 * (i; an id >= n_valid; stride < n_valid; a result that the lease does not ask for); SALT_NONFINITE, which
 * names position and value and reports the sequence to selectord as failed; SALT_CLOSED: the lease no longer
 * exists, continue with the next. That is so when selectord has restarted, or when the lease has expired:
 * after 4 x selector.lease_s without a submit or salt_renew, after one lease_s without a connection, and 40 x
 * lease_s after it was granted. A complete result of an expired lease is still sent, and counts if no other
 * teacher was faster.
 *
 * salt_submit_logits   float[L, stride]: row t has the logits after tokens 0..t, for ids 0 .. stride - 1,
 *                      with stride >= n_valid. Gives scores and label, whichever the lease asks for.
 *                      -INFINITY is a probability of 0. The probability of ids from n_valid to the model's
 *                      vocab goes to the tail of topk labels: p_v = exp(u_v / tau) / sum over v' <
 *                      min(stride, vocab) of exp(u_v' / tau). Scores and other labels use ids < n_valid
 *                      alone, and are normalized over them
 * salt_submit_scores   loss_nats[L]: -ln p(token t+1) at tau 1; rank[L]: number of ids with a greater logit.
 *                      Values at a token that ends a document (document_end) are not used
 * salt_submit_samples  int32[L, N] draws in any order: draw d of row t is the smallest id whose cumulative
 *                      probability exceeds u[t, d] * total, with u of salt_uniforms
 * salt_submit_topk     ids int32[L, k] < n_valid, log_p float[L, k]: natural logarithms of the tempered
 *                      probabilities p_v above, best first. The tail is 1 minus the sum of these
 *                      probabilities
 * salt_submit_error    the sequence cannot be computed; selectord gives it to another teacher
 */
SALT_API int salt_submit_logits(struct salt *s, struct salt_lease *lease, uint32_t i, const float *logits, size_t stride,
    struct salt_error *error);
SALT_API int salt_submit_scores(struct salt *s, struct salt_lease *lease, uint32_t i, const float *loss_nats, const int32_t *rank,
    struct salt_error *error);
SALT_API int salt_submit_samples(struct salt *s, struct salt_lease *lease, uint32_t i, const int32_t *draws, struct salt_error *error);
SALT_API int salt_submit_topk(struct salt *s, struct salt_lease *lease, uint32_t i, const int32_t *ids, const float *log_p,
    struct salt_error *error);
SALT_API int salt_submit_error(struct salt *s, struct salt_lease *lease, uint32_t i, const char *why, struct salt_error *error);

/* salt_uniforms - u[L, N] in [0, 1) for the draws of sequence i: Philox4x32-10 over labels.seed, seq and position. Pure. */
SALT_API int salt_uniforms(const struct salt_lease *lease, uint32_t i, double *u, struct salt_error *error);

/*
 * salt_renew - reports that the caller is still at work: call it between the parts of a long batch. A submit
 *              does the same. SALT_CLOSED as above: the lease's sequences need not be computed any more.
 * salt_return - ends the caller's use of a lease and sets *lease to NULL. Sequences without a result go back
 *              to selectord. *lease may be NULL. After salt_close it frees the lease's memory; s is not used
 *              then.
 * salt_drain - takes no new leases: those fetched ahead go back to selectord, and salt_lease returns
 * SALT_END.
 */
SALT_API int salt_renew(struct salt *s, struct salt_lease *lease, struct salt_error *error);
SALT_API void salt_return(struct salt *s, struct salt_lease **lease);
SALT_API int salt_drain(struct salt *s, struct salt_error *error);

/* ---- corpora and status ------------------------------------------------------------------------------------------ */

struct salt_corpus;
struct salt_corpus_info {
	size_t size;			/* set by the caller */
	uint64_t n_tokens, n_documents, n_bytes;	/* 0: not known (documents, bytes) */
	uint32_t vocab;			/* 0: not known */
	int32_t eod;			/* -1: not known */
	char kind[16], dtype[16];	/* "megatron", "uint16" */
	char tokenizer[33], fingerprint[33];	/* hex; "": not known */
};

/*
 * A corpus without a fleet. prefix may also be a JSON list: [{"prefix": "A", "weight": 0.7}, {"prefix": "B",
 * "weight": 0.3}]. dtype: NULL, or "uint16", "uint32" or "int32" for raw ids. salt_corpus_window: tokens[L +
 * 1] from token index * L on, where L is context; for a list, index counts through the sequences of its
 * parts. salt_corpus_info computes the fingerprint. Any thread.
 */
SALT_API int salt_corpus_open(struct salt_corpus **c, const char *prefix, const char *dtype, struct salt_error *error);
SALT_API int salt_corpus_info(struct salt_corpus *c, struct salt_corpus_info *info, struct salt_error *error);
SALT_API int salt_corpus_window(struct salt_corpus *c, uint64_t index, uint32_t context, int32_t *tokens, struct salt_error *error);
SALT_API void salt_corpus_close(struct salt_corpus **c);	/* takes NULL */

/*
 * salt_status - requests the JSON of one status socket (tcp:// or ipc://, from salt_view or run.dir/daemons).
 * Free *json with salt_free. 0, SALT_TIMEOUT, SALT_CONFIG (not an endpoint), SALT_DATA (the answer is not
 * JSON).
 * salt_model_identity - hex hash over config.json and the safetensors of a model directory. It identifies a
 * model that has no other identity in selectord. Reads every byte.
 */
SALT_API int salt_status(const char *endpoint, int timeout_ms, char **json, struct salt_error *error);
SALT_API int salt_model_identity(const char *dir, char hex[33], struct salt_error *error);
SALT_API void salt_free(void *p);

#ifdef __cplusplus
}
#endif
#endif
