/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scores export: writes loss, bits per byte, rank share and S(x) of each sequence and each document, from the
 * scores in the cache or from a model. The corpus is read once, in file order, so that the tokens of a
 * document follow each other although they are in several sequences.
 */
#include "saltctl/scores/scores.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "data/select/select.h"
#include "data/tokenizer/tokenizer.h"
#include "engine/infer/infer.h"
#include "fabric/config/config.h"
#include "saltctl/cache/cache.h"
#include "saltctl/core/output.h"

static const struct cli_option options[] = {
	CTL_CONFIG,
	{"model", "FOLDER", "score the whole corpus with this model; default: the scores in the cache of -c", false},
	{"documents", "FILE", "write the figures of documents too", false},
	{"k", "K", "a token counts in S(x), and in the rank share, if it is among the K most probable ids; default selector.k", false},
	{"tokenizer", "FILE", "tokenizer.json, for the bytes of the text; default that of the model or of teacher.scorer", false},
	{"threads", "N", "with --model; default: all processors. The result does not depend on it", false},
	{"replace", NULL, "replace any file, not only one of an earlier call", false},
	CTL_DTYPE, CTL_JSON, CTL_END
};

#define BATCH 32			/* sequences per thread that are scored at a time */
#define TXN_SEQUENCES 1024		/* a long transaction would keep selectord from using freed pages */

struct export {
	struct ctl_args *args;
	struct cache_job job;
	struct corpus *corpus;
	uint32_t L;
	uint64_t windows;
	uint64_t k;
	/* source of the scores: caches, or a model */
	struct cache **caches;
	struct cache_txn **txns;
	struct infer *infer;
	struct infer_job *batch;	/* sequences [batch_first, batch_first + batch->n) */
	uint64_t batch_first;
	uint32_t n_valid;
	/* text */
	uint16_t *bytes_of;		/* [n_valid] number of bytes of each id; NULL: not known */
	int32_t *tokens;		/* [L + 1] */
	float *loss, *scratch;		/* [L] */
	uint8_t *rank;
	/* the current document */
	uint64_t document, begin, doc_bytes;
	float *doc_loss, *doc_scratch;
	uint8_t *doc_rank;
	size_t n_doc, cap_loss, cap_scratch, cap_rank;
	struct scores_out sequences, documents;
	double sum;
	uint64_t n_tokens;
	struct ctl_meter meter;
	struct err_note note;
};

/* ---- where the scores come from ---- */

static void
end_txns(struct export *x)
{
	for (size_t i = 0; x->txns != NULL && i < x->job.n; i++)
		cache_txn_end(&x->txns[i]);
}

static int
open_caches(struct export *x)
{
	struct cache_id id = {.texts = NULL};
	struct cache_job *job = &x->job;
	int rc = 0;

	x->caches = ctl_alloc(job->n, sizeof(*x->caches));
	x->txns = ctl_alloc(job->n, sizeof(*x->txns));
	for (size_t i = 0; rc == 0 && i < job->n; i++) {
		if ((rc = cache_open(&x->caches[i], job->dirs[i], CACHE_READ, 0, &x->note)) != 0)
			break;
		if ((rc = cache_id_read(x->caches[i], &id, &x->note)) == 0)
			rc = !id.bound ? err_note_set(&x->note, ERR_NOT_FOUND, "%s: no selectord has used this cache yet", job->dirs[i]) :
			    id.labels.spec.context != x->L ? err_expect(&x->note, ERR_MISMATCH, "corpus.context",
			    "%" PRIu32 ", the cache's", "%" PRIu32, id.labels.spec.context, x->L) :
			    cache_corpora_check(&job->corpora, &id, &x->note);
		if (rc == 0 && i == 0)
			cache_job_missing(job, &id);
		cache_id_free(&id);
	}
	return rc;
}

static int
stored(struct export *x, uint64_t i, struct cache_bytes *out)
{
	int rc = ERR_NOT_FOUND;

	if (i % TXN_SEQUENCES == 0)
		end_txns(x);
	for (size_t c = 0; rc == ERR_NOT_FOUND && c < x->job.n; c++) {
		if (x->txns[c] == NULL && (rc = cache_txn_begin(x->caches[c], &x->txns[c])) != 0)
			return rc;
		rc = cache_scores_get(x->txns[c], CACHE_SCORES_SCORER, CORPUS_SEQ_MAKE(CORPUS_TRAIN, i), out);
	}
	if (rc == ERR_CORRUPT)
		err_note_set(&x->note, rc, "score of sequence %" PRIu64 ": saltctl cache fsck lists damaged records", i);
	return rc;
}

static int
open_model(struct export *x, const char *dir)
{
	const struct config *cfg = x->job.cfg;
	struct infer_options io = {.kernels = {(enum kernels_backend)cfg->compute.backend, (enum kernels_dtype)cfg->compute.dtype, 1}};
	uint64_t threads = 0;
	int rc;

	if (ctl_get_u64(x->args, "threads", 1, 4096, &threads) != 0)
		return ERR_USAGE;
	io.threads = (int)threads;
	if ((rc = infer_new(&x->infer, &io, &x->note)) != 0 || (rc = infer_add_model(x->infer, dir, true, false, &x->note)) != 0)
		return rc;
	x->n_valid = corpus_info(x->corpus)->vocab > 0 ? corpus_info(x->corpus)->vocab : infer_model(x->infer, 0)->vocab_size;
	return corpus_limit_vocab(x->corpus, infer_model(x->infer, 0)->vocab_size, &x->note);
}

/* Scores the next sequences, from number first on. */
static int
score_batch(struct export *x, uint64_t first)
{
	const struct timespec nap = {0, 1000000};
	uint64_t n = (uint64_t)BATCH * (uint64_t)infer_threads(x->infer);
	struct infer_job *job;
	int rc;

	infer_job_free(&x->batch);
	n = n < x->windows - first ? n : x->windows - first;
	if ((job = infer_job_new(n, x->L)) == NULL)
		return ENOMEM;
	job->want_score = true;
	job->context = x->L;
	job->n_valid = x->n_valid;
	job->document_end = corpus_document_end(x->corpus);
	for (uint64_t i = 0; i < n; i++) {
		job->rows[i].seq = CORPUS_SEQ_MAKE(CORPUS_TRAIN, first + i);
		if ((rc = corpus_window(x->corpus, job->rows[i].seq, x->L, job->tokens + i * ((uint64_t)x->L + 1), &x->note)) != 0)
			goto fail;
	}
	if ((rc = infer_check(x->infer, job, &x->note)) != 0)
		goto fail;
	infer_submit(x->infer, job);
	while ((x->batch = infer_finished(x->infer)) == NULL)
		nanosleep(&nap, NULL);
	x->batch_first = first;
	return 0;
fail:
	infer_job_free(&job);
	return rc;
}

static int
computed(struct export *x, uint64_t i, struct cache_bytes *out)
{
	const struct infer_row *row;
	int rc;

	if ((x->batch == NULL || i >= x->batch_first + x->batch->n) && (rc = score_batch(x, i)) != 0)
		return rc;
	row = &x->batch->rows[i - x->batch_first];
	if (row->error[0] != '\0')
		return err_note_set(&x->note, ERR_NONFINITE, "sequence %" PRIu64 ": %s", i, row->error);
	*out = (struct cache_bytes){row->scores, (size_t)LABELS_SCORE_BYTES * x->L};
	return 0;
}

/* ---- figures ---- */

static struct scores_row
figures(const struct export *x, const float *loss, const uint8_t *rank, size_t n, uint64_t bytes, float *scratch)
{
	struct scores_row row = {.tokens = n, .bytes = bytes, .bits_per_byte = NAN};
	double sum = 0;
	size_t inside = 0, counted = 0;

	for (size_t t = 0; t < n; t++) {
		sum += (double)loss[t];
		inside += rank[t] < x->k;
		counted += !labels_score_absent(loss[t], rank[t]);
	}
	row.tokens = counted;
	row.loss = sum / (double)counted;
	row.rank_share = (double)inside / (double)counted;
	row.score = (float)select_score(loss, rank, n, (unsigned)x->k, scratch);
	if (x->bytes_of != NULL && bytes > 0)
		row.bits_per_byte = sum / log(2) / (double)bytes;
	return row;
}

/* Ends the current document before token `end` and writes it, unless it has no loss at all. */
static void
end_document(struct export *x, uint64_t end)
{
	struct scores_row row;

	if (x->n_doc > 0) {
		ctl_grow((void **)&x->doc_scratch, &x->cap_scratch, x->n_doc, sizeof(*x->doc_scratch));
		row = figures(x, x->doc_loss, x->doc_rank, x->n_doc, x->doc_bytes, x->doc_scratch);
		row.number = x->document;
		row.begin = x->begin;
		row.end = end;
		scores_out_row(&x->documents, &row);
	}
	x->document++;
	x->begin = end;
	x->doc_bytes = x->n_doc = 0;
}

static uint64_t
text_bytes(const struct export *x, int32_t id)
{
	return x->bytes_of != NULL && (uint32_t)id < x->n_valid ? x->bytes_of[id] : 0;
}

/*
 * Called for sequence i, the first of a part. A document of the part before ends here. The number of the next
 * document includes the documents behind the last sequence of that part. Positions count the tokens of
 * sequences, so the first token of the part is number i L.
 */
static void
begin_part(struct export *x, uint64_t i, int32_t eod)
{
	uint64_t before = 0;

	if (i > 0 && x->begin < i * x->L + 1)
		end_document(x, i * x->L + 1);
	for (uint64_t p = 0, first = 0; first < i; p++) {
		first += corpus_n_windows(corpus_part(x->corpus, p), x->L);
		before += corpus_info(corpus_part(x->corpus, p))->n_documents;
	}
	if (i > 0 && corpus_info(x->corpus)->n_documents > 0)
		x->document = before;
	x->begin = i * x->L;
	if (x->tokens[0] == eod)
		end_document(x, i * x->L + 1);
}

/* Processes sequence i; its tokens 1 .. L are the targets. have: x->loss and x->rank are set for it. */
static void
take_sequence(struct export *x, uint64_t i, bool have)
{
	int32_t eod = corpus_info(x->corpus)->eod;
	uint64_t first = i * x->L + 1, bytes = 0, window;
	struct scores_row row;

	corpus_at(x->corpus, x->L, i, &window);
	if (x->documents.path[0] != '\0' && window == 0)
		begin_part(x, i, eod);
	for (uint32_t t = 0; t < x->L; t++) {
		uint64_t n = have ? text_bytes(x, x->tokens[t + 1]) : 0;

		bytes += n;
		if (x->documents.path[0] == '\0')
			continue;
		if (have) {
			ctl_grow((void **)&x->doc_loss, &x->cap_loss, x->n_doc + 1, sizeof(*x->doc_loss));
			ctl_grow((void **)&x->doc_rank, &x->cap_rank, x->n_doc + 1, 1);
			x->doc_loss[x->n_doc] = x->loss[t];
			x->doc_rank[x->n_doc++] = x->rank[t];
			x->doc_bytes += n;
		}
		if (x->tokens[t + 1] == eod)
			end_document(x, first + t + 1);
	}
	if (!have)
		return;
	row = figures(x, x->loss, x->rank, x->L, bytes, x->scratch);
	row.number = i;
	row.begin = first;
	row.end = first + x->L;
	scores_out_row(&x->sequences, &row);
	x->sum += row.tokens > 0 ? row.loss * (double)row.tokens : 0;
	x->n_tokens += row.tokens;
}

/*
 * Ends the last document: its end is searched in the tokens behind the last sequence, which are fewer than a
 * sequence. In a blend it ends with the last sequence.
 */
static int
last_document(struct export *x)
{
	uint64_t end = x->windows * x->L + 1;
	int32_t two[2] = {-1, -1};
	int rc = 0;

	if (x->documents.path[0] == '\0' || x->n_doc == 0)
		return 0;
	for (; rc == 0 && corpus_n_parts(x->corpus) == 1 && end < corpus_n_tokens(x->corpus) && two[1] != corpus_info(x->corpus)->eod; end++)
		rc = corpus_window(x->corpus, CORPUS_SEQ_MAKE(CORPUS_TRAIN, end - 1), 1, two, &x->note);
	if (rc == 0)
		end_document(x, end);
	return rc;
}

static int
walk(struct export *x)
{
	struct cache_bytes record;
	int rc = 0;

	ctl_meter_start(&x->meter, "scores", "sequences", (double)x->windows);
	for (uint64_t i = 0; rc == 0 && i < x->windows; i++) {
		bool have;

		ctl_meter_update(&x->meter, (double)i);
		rc = x->infer != NULL ? computed(x, i, &record) : stored(x, i, &record);
		have = rc == 0;
		if (rc == ERR_NOT_FOUND)
			rc = 0;
		if (rc == 0 && have)
			rc = labels_scores_decode(record.bytes, record.len, x->L, x->loss, x->rank, &x->note);
		if (rc == 0 && (have || x->documents.path[0] != '\0') &&
		    (rc = corpus_window(x->corpus, CORPUS_SEQ_MAKE(CORPUS_TRAIN, i), x->L, x->tokens, &x->note)) == 0)
			take_sequence(x, i, have);
	}
	ctl_meter_end(&x->meter);
	if (rc == 0 && x->sequences.n == 0)
		rc = err_note_set(&x->note, ERR_NOT_FOUND, "no scores in the cache: they come with selector.mode salt_ds; or give --model");
	return rc != 0 ? rc : last_document(x);
}

/* ---- beginning and end ---- */

/* Sets x->bytes_of if there is a tokenizer that can be read; a special token has 0 bytes. */
static int
open_tokenizer(struct export *x, const char *dir)
{
	const struct corpus_info *info = corpus_info(x->corpus);
	struct tokenizer *tok = NULL;
	char path[4200], text[1400];
	struct hash128 hash;
	int rc;

	ctl_tokenizer_path(ctl_has(x->args, "tokenizer") ? ctl_get(x->args, "tokenizer") : dir, path, sizeof(path));
	if ((rc = tokenizer_load(&tok, path, &x->note)) != 0) {
		if (ctl_has(x->args, "tokenizer"))
			return rc;
		fprintf(stderr, "saltctl scores export: without bytes and bits per byte: %s\n",
		    err_note_str(&x->note, rc, text, sizeof(text)));
		return 0;
	}
	hash = tokenizer_fingerprint(tok);
	if (info->has_tokenizer && !hash_equal(hash, info->tokenizer))
		rc = err_expect(&x->note, ERR_MISMATCH, "%s", "tokenizer %s, the corpus's", "%s", path, cache_hex(info->tokenizer),
		    cache_hex(hash));
	if (x->n_valid == 0)
		x->n_valid = (uint32_t)tokenizer_vocab_size(tok);
	x->bytes_of = ctl_alloc(x->n_valid, sizeof(*x->bytes_of));
	for (uint32_t id = 0; rc == 0 && id < x->n_valid; id++) {
		const unsigned char *bytes;
		size_t len;
		bool special;

		if (tokenizer_token(tok, (int32_t)id, &bytes, &len, &special) == 0 && !special && (int32_t)id != info->eod)
			x->bytes_of[id] = (uint16_t)(len < UINT16_MAX ? len : UINT16_MAX);
	}
	tokenizer_destroy(&tok);
	return rc;
}

/* Opens -c with its corpus, and its caches if no model is given. Returns an exit code. */
static int
open_inputs(struct export *x, const char *model)
{
	struct ctl_args *args = x->args;
	struct cache_job *job = &x->job;
	int exit_code;

	if (!ctl_has(args, "config"))
		return ctl_usage(args, "which corpus? give -c fleet.yaml");
	if (model == NULL) {
		exit_code = cache_job_begin(job, args, true);
	} else {
		*job = (struct cache_job){.args = args};
		if ((exit_code = ctl_open_config(args, CONFIG_NEED_CORPUS, &job->cfg)) == 0)
			exit_code = ctl_open_corpus(args, &job->cfg->corpus, job->cfg->corpus.train, CORPUS_TRAIN,
			    &job->corpora.train, &job->corpora.train_hash);
	}
	if (exit_code != 0)
		return exit_code;
	if ((x->corpus = job->corpora.train) == NULL)
		return ctl_usage(args, "fleet.yaml has no corpus.train");
	x->k = job->cfg->selector.k;
	x->L = job->cfg->corpus.context;
	x->windows = corpus_n_windows(x->corpus, x->L);
	x->n_valid = corpus_info(x->corpus)->vocab;
	if (ctl_has(args, "documents") && corpus_info(x->corpus)->eod < 0)
		return ctl_usage(args, "the corpus does not say which token ends a document, so --documents cannot be written");
	return ctl_get_u64(args, "k", 1, 255, &x->k);
}

static int
report(struct export *x, const char *path)
{
	double loss = x->sum / (double)x->n_tokens;

	if (ctl_has(x->args, "json"))
		return ctl_print_json(ctl_record(CTL("file", path), CTL("sequences", x->sequences.n), CTL("of", x->windows),
		    CTL("documents", x->documents.n), CTL("tokens", x->n_tokens), CTL("loss", loss), CTL("k", x->k)));
	ctl_line("exported", "%" PRIu64 " of %" PRIu64 " sequences -> %s, mean loss %.4f nats", x->sequences.n, x->windows, path, loss);
	if (ctl_has(x->args, "documents"))
		ctl_line("documents", "%" PRIu64 " -> %s", x->documents.n, ctl_get(x->args, "documents"));
	return 0;
}

static int
write_files(struct export *x, const char *path)
{
	const char *documents = ctl_get(x->args, "documents");
	bool replace = ctl_has(x->args, "replace"), bytes = x->bytes_of != NULL;
	int rc, second;

	if ((rc = scores_out_begin(&x->sequences, path, "sequence", bytes, replace, &x->note)) != 0)
		return rc;
	if (documents == NULL || (rc = scores_out_begin(&x->documents, documents, "document", bytes, replace, &x->note)) == 0)
		rc = walk(x);
	second = documents != NULL ? scores_out_end(&x->documents, rc, &x->note) : 0;
	rc = rc != 0 ? rc : second;
	return scores_out_end(&x->sequences, rc, &x->note);
}

static int
run(struct ctl_args *args)
{
	struct export x = {.args = args};
	const char *model = ctl_get(args, "model"), *documents = ctl_get(args, "documents");
	int exit_code, rc;

	if (documents != NULL && strcmp(documents, args->operands[0]) == 0)
		return ctl_usage(
		    args, "OUT and --documents both name %s: give each a file of its own", documents);
	if ((exit_code = open_inputs(&x, model)) != 0)
		goto out;
	x.tokens = ctl_alloc((size_t)x.L + 1, sizeof(*x.tokens));
	x.loss = ctl_alloc(x.L, sizeof(*x.loss));
	x.scratch = ctl_alloc(x.L, sizeof(*x.scratch));
	x.rank = ctl_alloc(x.L, 1);
	if ((rc = model != NULL ? open_model(&x, model) : open_caches(&x)) == 0 &&
	    (rc = open_tokenizer(&x, model != NULL ? model : x.job.cfg->teacher.scorer)) == 0)
		rc = write_files(&x, args->operands[0]);
	exit_code = rc != 0 ? ctl_fail(args, rc, &x.note) : report(&x, args->operands[0]);
out:
	end_txns(&x);
	for (size_t i = 0; x.caches != NULL && i < x.job.n; i++)
		cache_destroy(&x.caches[i]);
	infer_job_free(&x.batch);
	infer_destroy(&x.infer);
	free(x.caches);
	free(x.txns);
	free(x.bytes_of);
	free(x.tokens);
	free(x.loss);
	free(x.scratch);
	free(x.rank);
	free(x.doc_loss);
	free(x.doc_scratch);
	free(x.doc_rank);
	json_close(&x.job.all);
	return cache_job_end(&x.job, exit_code);
}

const struct ctl_verb ctl_scores_export = {
	.name = "scores export", .operands = "OUT", .summary = "loss, bits per byte, rank share and S(x) of sequences and documents",
	.about = "OUT has a line of JSON for each sequence with a score, or is a safetensors file if its name ends so\n"
	    "(docs/formats.md has the columns). S(x) is what selector.mode salt_ds chooses by; as selector.file of\n"
	    "mode file the lines give the same rows. Without --model the scores are those in the cache, of the\n"
	    "sequences that were scored.",
	.example = "saltctl scores export -c fleet.yaml --documents documents.jsonl scores.jsonl",
	.options = options, .min_operands = 1, .max_operands = 1, .run = run,
};
