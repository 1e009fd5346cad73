/* SPDX-License-Identifier: Apache-2.0 */
/*
 * saltfleet - the C client library: a trainer's rows, a teacher's leases, plan and status of a fleet. It talks to all
 * shards of selectord. It needs no MPI, no BLAS and no model code.
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
 *   Rows are a pure function of plan and step. A loader's state is one integer, the next step: nothing is consumed by
 *   reading it, and every step can be read again as long as its checkpoint could still be resumed (salt_checkpointed).
 *   A row is identified by its place g = step * batch + r. A process that takes rows r of every step must take the same
 *   r in every step for the prefetch to be of use; correct it is in any case.
 *
 *   salt_checkpointed and salt_release return at once. What they say reaches selectord in the background, and again
 *   after a lost connection; salt_flush waits for it. Say salt_release only when the checkpoint of the switch is on
 *   disk: from then on no more labels are made for the plan.
 *
 *   After the switch rows come from the local corpus and no selectord is needed. No connection is tried before one is
 *   needed: a trainer that is opened in phase two and asks for rows works without a network.
 *
 *   selectord may restart, and connections may break. Calls go on by themselves; a call that waits ends with
 *   SALT_TIMEOUT, and salt_view says what it waits for. Nothing acknowledged is lost.
 *
 *   phase_one.late: hard is trainerd's alone. A row without label is waited for here, however late it comes.
 *
 *   A forked child must not use a struct salt of its parent: every call returns SALT_FORKED there, salt_close included
 *   (it then only frees memory). Open it in the child.
 *
 * ERRORS. Calls return 0 or one of enum salt_code, and fill *error, which may be NULL. No call ends the process.
 *
 * THREADS. A struct salt may be used by any number of threads at once, except salt_open and salt_close. A rows or lease
 * object is used by one thread at a time. The library has one thread for the network and `threads` for coding.
 *
 * ABI. Structs of the caller begin with `size`, to be set to sizeof; later versions only append members. Pointers handed
 * out are valid until the call that is named there. Functions are versioned SALTFLEET_1.
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
	SALT_CONFIG,			/* fleet.yaml, an option or an argument: exit code 78 */
	SALT_MISMATCH,			/* identities differ: corpus, plan, label set, model, tokenizer: 78 */
	SALT_DATA,			/* damaged or unfit data: 65 */
	SALT_REFUSED,			/* selectord refused: exit_code is what it said */
	SALT_NONFINITE,			/* NaN or infinity in logits or probabilities: 65 */
	SALT_RANGE,			/* an argument or an id outside its range: 64 */
	SALT_NOT_FOUND,			/* a file: 66 */
	SALT_MEMORY,			/* 71 */
	SALT_SYSTEM,			/* another error of the system, text has errno's words: 74 */
	SALT_CLOSED,			/* a lease that is gone: selectord has restarted, or it has expired */
	SALT_INTERNAL			/* a fault of this library: 70 */
};

struct salt_error {
	int code;			/* enum salt_code */
	int exit_code;			/* of sysexits.h, for a program that ends with it */
	char text[1200];		/* one line: thing, place, expected, found, what to do */
};

SALT_API const char *salt_version(void);		/* "0.1.0" */
SALT_API const char *salt_code_name(int code);		/* "SALT_TIMEOUT"; "?" */

/* ---- open -------------------------------------------------------------------------------------------------------- */

enum salt_role { SALT_TRAINER = 1, SALT_TEACHER = 2, SALT_CLIENT = 3 };

/* A model that a teacher serves. */
struct salt_model {
	const char *dir;		/* its files: config.json and safetensors are hashed into its identity */
	uint32_t vocab;			/* logits a position, >= the corpus's vocabulary */
	uint32_t max_context;		/* longest L, tokens */
	int serves_score, serves_label;
	/*
	 * The tokenizer.json whose ids the model's are, if not DIR's own: for a model whose tokenizer has the corpus's
	 * ids and more. Every id of the corpus's vocabulary must stand for the same token in both: SALT_MISMATCH names
	 * the first that differs. NULL: DIR/tokenizer.json must be the corpus's.
	 */
	const char *corpus_tokenizer;
};

struct salt_options {
	size_t size;			/* sizeof(struct salt_options) */
	int role;			/* enum salt_role */
	const char *config;		/* path of fleet.yaml */
	const char *const *overrides;	/* [n_overrides] "section.key=value", as --set */
	size_t n_overrides;
	const char *name;		/* in status and logs; NULL: "trainer-RANK", "teacher-HOST-PID" */
	uint32_t rank;			/* trainer: shown in status */
	uint32_t vocab;			/* trainer: ids of the student's output layer; 0: the corpus's vocabulary */
	uint32_t prefetch_steps;	/* trainer: steps fetched beyond the one asked for; 0: 4 */
	uint32_t threads;		/* for decoding and encoding; 0: 1 for a trainer, one a core (at most 8) for a teacher */
	int keep_records;		/* trainer: salt_rows.records is filled */
	const struct salt_model *models;	/* teacher: [n_models], 1 or 2 */
	size_t n_models;
	const char *compute_class;	/* teacher: NULL: teacher.compute_class of the configuration, which must name one */
	void (*log)(void *arg, int level, const char *line);	/* level: 0 debug .. 3 error; NULL: nothing is logged.
								   Called from any thread of the library; one for a process */
	void *log_arg;
};

/*
 * salt_open - reads the configuration, opens the corpora (trainer, client) and computes identities; starts the threads.
 * It does not wait for a connection. Returns 0 and *s; with an error *s is NULL: SALT_CONFIG, SALT_NOT_FOUND,
 * SALT_DATA, SALT_MISMATCH (corpus or tokenizer against the model), SALT_MEMORY, SALT_SYSTEM.
 * Reads the corpus once where no side file has its fingerprint: minutes for a large one.
 *
 * salt_close - BYE to selectord, ends the threads, frees everything but rows and leases that the caller still has. Waits
 * at most a second. What was not flushed may be lost (the labels are computed again). Takes NULL.
 */
SALT_API int salt_open(struct salt **s, const struct salt_options *options, struct salt_error *error);
SALT_API void salt_close(struct salt **s);

/* What the configuration and the corpus say. Constant from salt_open on; texts are valid until salt_close. */
struct salt_plan {
	size_t size;			/* set by the caller */
	uint64_t steps;			/* of the whole run */
	uint64_t switch_step;		/* first step of phase two; SALT_UNKNOWN: until_margin, not decided; may change by salt_switch */
	uint64_t batch;			/* sequences a step, over all processes */
	uint32_t context;		/* L */
	uint32_t vocab;			/* ids of labels: the corpus's vocabulary */
	uint64_t n_windows;		/* sequences of the corpus */
	uint32_t seed;
	int label_kind;			/* enum salt_kind */
	uint32_t n;			/* N draws of sampled, k of topk, 0 */
	double tau;
	double kd_weight;		/* phase_one.weight */
	int residual;			/* enum salt_residual: what the tail of topk labels is given to */
	double margin_nats;		/* until_margin; NaN: none */
	uint64_t handover_steps;	/* until_margin: the switch is so many steps after the one at which the margin is met */
	uint64_t checkpoint_every, eval_every;
	const char *run_dir, *mode;	/* mode: "baseline", "salt", "salt_ds", "salt_file", "rkd" */
	const char *corpus_train, *corpus_heldout;	/* prefixes, "": none; train may be a list, as salt_corpus_open takes it */
	const char *tokenizer;		/* hex of the corpus's tokenizer; "": not known */
	const char *compute_class;	/* teacher.compute_class; "auto" */
	const char *corpus_dtype;	/* of raw ids; "": the corpora state it */
	uint64_t eval_sequences;	/* held-out sequences of an evaluation, from the first on; 0: all */
	int token_weight;		/* enum salt_token_weight: what a token's distillation weight depends on */
	int isolate_documents;		/* 1: models are kept inside documents, see salt_rows and salt_lease */
	int32_t document_end;		/* trainer, client: the id that ends a document; -1: they are not isolated */
};
#define SALT_UNKNOWN UINT64_MAX
enum salt_kind { SALT_NO_LABELS = 0, SALT_SAMPLED = 1, SALT_TOPK = 2, SALT_DENSE = 3 };
enum salt_residual { SALT_TRUE_TOKEN = 0, SALT_GHOST = 1, SALT_RENORMALISE = 2 };
enum salt_token_weight { SALT_WEIGHT_CONSTANT = 0, SALT_WEIGHT_TEACHER_CONFIDENCE = 1, SALT_WEIGHT_MARGIN = 2 };

SALT_API int salt_plan(struct salt *s, struct salt_plan *plan, struct salt_error *error);

/* What is happening. */
struct salt_view {
	size_t size;			/* set by the caller */
	uint32_t shards, shards_welcomed;
	uint64_t rows_ready;		/* rows from row 0 on that selectord could serve at its last WELCOME */
	uint64_t ahead;			/* trainer: complete steps in memory */
	double teacher_nats;		/* teacher's mean held-out loss, NaN: not known */
	uint64_t checkpointed;		/* what all shards have acknowledged */
	int released;			/* all shards have acknowledged the release */
	uint64_t sequences, tokens;	/* teacher: submitted */
	uint64_t unconfirmed;		/* teacher: sequences submitted and not on selectord's disk */
	uint64_t quarantined_rows, label_bytes;	/* trainer, since salt_open */
	char status_endpoint[256];	/* of our status socket; "": none */
	char waiting[256];		/* why a call would wait: "connecting to tcp://...", "row 512 has no label yet"; "" */
};

SALT_API int salt_view(struct salt *s, struct salt_view *view, struct salt_error *error);

/* ---- trainer ----------------------------------------------------------------------------------------------------- */

/*
 * Rows of a step. Labels are CSR over the n * L positions, row-major: position p = i * L + t has entries
 * [offsets[p], offsets[p+1]), ids ascending; its label is the teacher's distribution of token tokens[i][t+1]. weights sum
 * to 1 - tail[p]; a position without label has no entries. All arrays are the object's, until salt_rows_free.
 *
 * With corpus.isolate_documents position t of row i sees the positions from document_starts[i, t] on, its document's, and has position
 * t - document_starts[i, t] for the model. A token that ends a document (salt_plan.document_end) has no target: tokens[i][t+1] is the next
 * document's, and no loss is to be taken there. Its label is not to be used.
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
	const uint64_t *seqs;		/* [n] number of the window in the corpus */
	const float *kd_weight;		/* [n] distillation weight w of each row; 0: no label */
	const uint8_t *quarantined;	/* [n] 1: no label could be made */
	const int64_t *offsets;		/* [n * L + 1]; NULL for dense and phase two */
	const int32_t *ids;		/* [offsets[n * L]] */
	const float *weights;		/* [offsets[n * L]] */
	const float *tail;		/* [n * L] mass outside the entries, >= 0; 0 without label; NULL for dense and phase two */
	const float *dense;		/* [n * L, vocab] or NULL */
	const uint8_t *const *records;	/* [n] encoded label records, with keep_records; NULL entries: none */
	const size_t *record_bytes;	/* [n] */
	uint64_t label_bytes;		/* encoded, of all rows */
	uint32_t max_entries;		/* of one position */
	const int32_t *document_starts;	/* [n, L] place of the first token of each position's document; NULL: not isolated */
};

/*
 * salt_rows - rows [first, first + n) of a step, 0 <= first, first + n <= batch.
 * Waits at most timeout_ms (0: never, -1: without limit). Returns 0 and *rows; SALT_TIMEOUT; SALT_RANGE (step, first, n);
 * SALT_REFUSED, SALT_MISMATCH, SALT_DATA (a label of other tokens, a damaged corpus): final, every later call of phase
 * one returns it again; SALT_FORKED. Phase two needs no selectord.
 */
SALT_API int salt_rows(struct salt *s, uint64_t step, uint64_t first, uint64_t n, int timeout_ms, struct salt_rows **rows,
    struct salt_error *error);
SALT_API void salt_rows_free(struct salt_rows **rows);		/* takes NULL; any time, also after salt_close */

/*
 * salt_rows_padded - the labels as rectangles, for frameworks that want them: ids int64[n * L, k] and weights float[n * L, k], of a position
 * first its entries, then id 0 and weight 0. k >= rows->max_entries. SALT_RANGE: k; rows without offsets. Pure.
 */
SALT_API int salt_rows_padded(const struct salt_rows *rows, uint32_t k, int64_t *ids, float *weights, struct salt_error *error);

/*
 * salt_checkpointed - the oldest complete checkpoint that may be resumed is of `step`: rows of earlier steps will not be
 * asked for again. Does not wait for selectord. Of several processes, any one or all may say it. The process of rank 0
 * stores the options, the corpora's fingerprints and the label set's identity in run.dir, as a checkpoint of trainerd has them. From
 * then on salt_open refuses others of class identity there (SALT_CONFIG) and another corpus (SALT_MISMATCH), and salt_rows another
 * label set (SALT_MISMATCH), because the checkpoint would go on with other rows or other labels.
 * salt_release - the switch has happened and its checkpoint is on disk: no more labels are needed. step: the switch's.
 * salt_switch - until_margin: the switch step, decided by the caller from its held-out loss (salt_view.teacher_nats).
 * Rows fetched for steps from it on are dropped. SALT_RANGE: the configuration states the switch and it is another.
 * salt_flush - waits until all shards have acknowledged what was said before (trainer: checkpoints and release; teacher:
 * results are on disk). 0, SALT_TIMEOUT; the error of a shard that cannot acknowledge it any more, except after salt_release: then
 * nothing depends on that shard.
 */
SALT_API int salt_checkpointed(struct salt *s, uint64_t step, struct salt_error *error);
SALT_API int salt_release(struct salt *s, uint64_t step, struct salt_error *error);
SALT_API int salt_switch(struct salt *s, uint64_t step, struct salt_error *error);
SALT_API int salt_flush(struct salt *s, int timeout_ms, struct salt_error *error);

/* salt_kd_weight - the distillation weight of a step, for the present switch; 0 in phase two. Pure. */
SALT_API float salt_kd_weight(struct salt *s, uint64_t step);

/* ---- teacher ----------------------------------------------------------------------------------------------------- */

struct salt_lease {
	size_t size;			/* of this struct in the library */
	uint64_t id;
	uint32_t model;			/* index in options.models */
	int want_score, want_label;
	uint32_t n;			/* sequences */
	uint32_t context;		/* L */
	uint32_t n_valid;		/* ids of the corpus: scores, draws and dense are of the distribution among these, and labels
					   have no others. Others of the model's: see salt_submit_logits */
	int kind;			/* with want_label */
	uint32_t n_draws, k;		/* N of sampled, k of topk */
	double tau;			/* labels: softmax(u / tau); scores: tau is 1 */
	uint32_t seed;
	const uint64_t *seqs;		/* [n] */
	const int32_t *tokens;		/* [n, L + 1] */
	int32_t document_end;		/* the id that ends a document; -1: documents are not isolated */
	const int32_t *document_starts;	/* [n, L] as in struct salt_rows; logits are to be computed so. NULL: not isolated */
};

/*
 * salt_lease - the next lease, which the library renews while submits go on (or salt_renew is called). Two leases are
 * asked for ahead, so that computing never waits for the network. 0; SALT_TIMEOUT; SALT_END (released by selectord, or
 * after salt_drain); SALT_REFUSED, SALT_MISMATCH: final.
 */
SALT_API int salt_lease(struct salt *s, int timeout_ms, struct salt_lease **lease, struct salt_error *error);

/*
 * Results of sequence i of a lease. Everything wanted must be given: scores and a label may come in two calls. Arrays are
 * copied (logits are reduced before the call returns, by the library's threads); encoding and sending go on in the
 * background. 0; SALT_RANGE (i; an id >= n_valid; counts that do not fit); SALT_NONFINITE, which names position and value
 * and reports the sequence to selectord as failed; SALT_CLOSED: the lease is gone, go on with the next. It is gone when selectord
 * has restarted, and has expired after 4 x selector.lease_s without a submit or salt_renew, after one lease_s without a connection, and
 * after 40; a result that is complete then is sent all the same, and counts if no other teacher was faster.
 *
 * salt_submit_logits   float[L, stride], row t the logits after tokens 0..t, of ids 0 .. stride - 1, stride >= n_valid. Gives scores and
 *                      label, as far as they are wanted. -INFINITY is a probability of 0. Of ids from n_valid to the model's vocab the mass
 *                      goes to the tail of topk: p_v = exp(u_v / tau) / sum over v' < min(stride, vocab) of exp(u_v' / tau); all else is of
 *                      ids < n_valid alone, and its sum over these
 * salt_submit_scores   loss_nats[L]: -ln p(token t+1) at tau 1; rank[L]: number of ids with a greater logit. After a token that ends a
 *                      document (document_end) they are not read
 * salt_submit_samples  int32[L, N] draws in any order: draw d of row t is the smallest id whose cumulative probability
 *                      exceeds u[t, d] * total, with u of salt_uniforms
 * salt_submit_topk     ids int32[L, k] < n_valid, log_p float[L, k]: natural logarithms of the tempered probabilities p_v above, best
 *                      first. What is missing to 1 is the tail
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
 * salt_renew - the caller is alive and at work on it: call it between the parts of a long batch. A submit does the same. SALT_CLOSED
 *              as above: its sequences need not be computed any more.
 * salt_return - the end of the caller's use of a lease; sequences without a result go back to selectord. *lease is NULL.
 *              Takes NULL; after salt_close it frees the lease's memory.
 * salt_drain - no new leases: salt_lease returns SALT_END once those fetched ahead are handed back.
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
 * A corpus by itself. prefix may also be a list, as JSON: [{"prefix": "A", "weight": 0.7}, {"prefix": "B", "weight": 0.3}]. dtype: NULL,
 * "uint16", "uint32" or "int32", for raw ids. salt_corpus_window: L + 1 tokens from token index * L on; of a list, index counts through the
 * windows of its parts. salt_corpus_info computes the fingerprint. Any thread.
 */
SALT_API int salt_corpus_open(struct salt_corpus **c, const char *prefix, const char *dtype, struct salt_error *error);
SALT_API int salt_corpus_info(struct salt_corpus *c, struct salt_corpus_info *info, struct salt_error *error);
SALT_API int salt_corpus_window(struct salt_corpus *c, uint64_t index, uint32_t context, int32_t *tokens, struct salt_error *error);
SALT_API void salt_corpus_close(struct salt_corpus **c);	/* takes NULL */

/*
 * salt_status - asks one status socket (tcp:// or ipc://, of salt_view or run.dir/daemons) for its JSON. *json: free it
 * with salt_free. 0, SALT_TIMEOUT, SALT_CONFIG (no endpoint), SALT_DATA (not an answer).
 * salt_model_identity - hex of the hash over config.json and the safetensors of a model directory, by which selectord
 * knows a model that has no other identity. Reads every byte.
 */
SALT_API int salt_status(const char *endpoint, int timeout_ms, char **json, struct salt_error *error);
SALT_API int salt_model_identity(const char *dir, char hex[33], struct salt_error *error);
SALT_API void salt_free(void *p);

#ifdef __cplusplus
}
#endif
#endif
