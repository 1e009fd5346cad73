/* SPDX-License-Identifier: Apache-2.0 */
/* corpus build: text -> documents -> token ids -> PREFIX.bin, .idx, .json, and the same for the held-out part. */
#include <errno.h>
#include <inttypes.h>
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "data/corpus/corpus.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"
#include "data/text/text.h"
#include "base/clock/clock.h"
#include "base/hash/hash.h"
#include "base/json/json.h"
#include "base/mem/mem.h"
#include "data/tokenizer/tokenizer.h"

#define BATCH_DOCUMENTS 256		/* encoded side by side, ... */
#define BATCH_BYTES (8u << 20)		/* ... up to about this size */
#define MAX_THREADS 256

struct document {
	unsigned char *bytes;
	size_t n, cap;
	struct tokenizer_ids ids;
	int rc;
	struct err_note note;
};

/* One of the two corpora being written. */
struct part {
	const char *prefix;
	struct corpus_writer *writer;
	struct hash_state *hash;
	uint64_t n_bytes;
};

struct build {
	struct tokenizer *tok;
	struct tokenizer_encoder *encoders[MAX_THREADS];
	int n_threads;
	struct text *text;
	struct part train, heldout;
	uint32_t one_in;
	struct document docs[BATCH_DOCUMENTS];
	size_t n_docs;
};

static const struct cli_option options[] = {
	{"tokenizer", "PATH", "tokenizer.json, or a folder that holds one (required)", false},
	{"out", "PREFIX", "write PREFIX.bin, PREFIX.idx, PREFIX.json (required)", false},
	{"heldout-out", "PREFIX", "write about one document in N there instead, for evaluation", false},
	{"heldout-one-in", "N", "share of the held-out part; default 20", false},
	{"split-on", "HOW", "where a document ends: file (default), blank-lines, lines, or =TEXT: a line equal to TEXT", false},
	{"jsonl", NULL, "read every input as JSON lines, whatever its name", false},
	{"field", "NAME", "the member of a JSON line that holds the text; default \"text\"", false},
	{"skip-bad-lines", NULL, "leave bad JSON lines out and count them", false},
	{"only", "PATTERN", "in folders read only files that match, such as '*.txt'", false},
	{"eod", "TOKEN", "the token that ends a document; default: the tokenizer's", false},
	{"threads", "N", "encode on N threads; default: all processors. The result does not depend on it", false},
	{"replace", NULL, "replace an existing corpus", false},
	CTL_JSON, CTL_END
};

/* Fills the batch. ERR_NOT_FOUND at the end of the text. */
static int
read_batch(struct build *b, struct err_note *note)
{
	size_t bytes = 0, n;
	const unsigned char *text;
	int rc = 0;

	b->n_docs = 0;
	while (b->n_docs < BATCH_DOCUMENTS && bytes < BATCH_BYTES && (rc = text_next(b->text, &text, &n, note)) == 0) {
		struct document *d = &b->docs[b->n_docs];

		if (mem_grow((void **)&d->bytes, &d->cap, n, 1) != 0)
			return ENOMEM;
		memcpy(d->bytes, text, n);
		d->n = n;
		d->ids.n = 0;
		bytes += n;
		b->n_docs++;
	}
	return rc == ERR_NOT_FOUND && b->n_docs > 0 ? 0 : rc;
}

static int
write_document(struct build *b, struct document *d, struct err_note *note)
{
	bool heldout = b->heldout.writer != NULL && corpus_split_heldout(d->bytes, d->n, b->one_in);
	struct part *part = heldout ? &b->heldout : &b->train;

	if (d->rc != 0) {
		*note = d->note;
		return d->rc;
	}
	if (d->ids.n == 0)
		return 0;
	hash_field(part->hash, "document", d->bytes, d->n);
	part->n_bytes += d->n;
	return corpus_writer_document(part->writer, d->ids.ids, d->ids.n, d->n, note);
}

static int
build_all(struct build *b, struct err_note *note)
{
	struct ctl_meter meter;
	int rc;

	ctl_meter_start(&meter, "corpus build", "B", (double)text_total_bytes(b->text));
	while ((rc = read_batch(b, note)) == 0) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(b->n_threads)
		for (size_t i = 0; i < b->n_docs; i++) {
			struct document *d = &b->docs[i];

			d->note = (struct err_note){.name = ""};
			d->rc = tokenizer_encode(b->encoders[omp_get_thread_num()], d->bytes, d->n, 0,
			    &d->ids, &d->note);
		}
		for (size_t i = 0; i < b->n_docs && rc == 0; i++)
			rc = write_document(b, &b->docs[i], note);
		if (rc != 0)
			break;
		ctl_meter_update(&meter, (double)text_read_bytes(b->text));
	}
	ctl_meter_end(&meter);
	return rc == ERR_NOT_FOUND ? 0 : rc;
}

/* Neither part is written if one of them is empty. */
static int
finish(struct build *b, struct err_note *note)
{
	uint64_t train = corpus_writer_n_documents(b->train.writer);
	uint64_t heldout = b->heldout.writer != NULL ? corpus_writer_n_documents(b->heldout.writer) : 0;
	struct hash128 source;
	int rc;

	if (train == 0 || (b->heldout.writer != NULL && heldout == 0)) {
		const char *prefix = train == 0 ? b->train.prefix : b->heldout.prefix;

		if (train + heldout == 0)
			return err_expect(note, ERR_FORMAT, "%s", "text",
			    "no document with a token in it in %zu input%s", prefix, text_n_files(b->text),
			    text_n_files(b->text) == 1 ? "" : "s");
		return err_expect(note, ERR_FORMAT, "%s",
		    "at least one document (split the text into more documents by --split-on, or change --heldout-one-in)",
		    "none of the %" PRIu64 " falls into this part with --heldout-one-in %u", prefix,
		    train + heldout, b->one_in);
	}
	source = hash_digest(b->train.hash);
	if ((rc = corpus_writer_finish(b->train.writer, &source, note)) != 0 || b->heldout.writer == NULL)
		return rc;
	source = hash_digest(b->heldout.hash);
	if ((rc = corpus_writer_finish(b->heldout.writer, &source, note)) != 0)
		corpus_writer_withdraw(b->train.writer);	/* so that the same command can be repeated */
	return rc;
}

static void
report_part(const struct part *p, const char *name, struct json *to)
{
	uint64_t tokens = corpus_writer_n_tokens(p->writer), documents = corpus_writer_n_documents(p->writer);

	if (to != NULL) {
		ctl_put(to, name, ctl_record(CTL("prefix", p->prefix), CTL("documents", documents),
		    CTL("tokens", tokens), CTL("text_bytes", p->n_bytes)));
		return;
	}
	printf("%-9s %s  %" PRIu64 " documents, %" PRIu64 " tokens, %" PRIu64 " bytes of text, %.3f bytes a token\n",
	    name, p->prefix, documents, tokens, p->n_bytes, (double)p->n_bytes / (double)tokens);
}

static int
report(const struct build *b, const struct ctl_args *args, double seconds)
{
	struct json *root = ctl_has(args, "json") ? ctl_object() : NULL;
	char rate[32];

	report_part(&b->train, "train", root);
	if (b->heldout.writer != NULL)
		report_part(&b->heldout, "heldout", root);
	if (root == NULL) {
		printf("%zu inputs in %.1f s, %s/s\n", text_n_files(b->text), seconds,
		    ctl_bytes((double)(b->train.n_bytes + b->heldout.n_bytes) / seconds, rate));
		if (text_n_bad(b->text) > 0)
			printf("%" PRIu64 " bad lines left out\n", text_n_bad(b->text));
		return 0;
	}
	ctl_put_all(root, CTL("inputs", text_n_files(b->text)), CTL("bad_lines", text_n_bad(b->text)),
	    CTL("seconds", seconds));
	return ctl_print_json(root);
}

static int
part_open(struct build *b, struct part *part, const char *prefix, int32_t eod, bool replace, struct err_note *note)
{
	struct corpus_writer_options wo = {.vocab = (uint32_t)tokenizer_vocab_size(b->tok), .eod = eod,
	    .tokenizer = tokenizer_fingerprint(b->tok), .replace = replace};


	part->prefix = prefix;
	if ((part->hash = hash_new()) == NULL)
		return ENOMEM;
	return corpus_writer_new(&part->writer, prefix, &wo, note);
}

static int
text_options(const struct ctl_args *args, struct text_options *o)
{
	const char *how = ctl_get(args, "split-on");

	*o = (struct text_options){.jsonl = ctl_has(args, "jsonl"), .field = ctl_get(args, "field"),
	    .only = ctl_get(args, "only"), .skip_bad = ctl_has(args, "skip-bad-lines")};
	if (o->field == NULL)
		o->field = "text";
	o->split = TEXT_SPLIT_FILE;
	if (how != NULL && strcmp(how, "blank-lines") == 0)
		o->split = TEXT_SPLIT_BLANK;
	else if (how != NULL && strcmp(how, "lines") == 0)
		o->split = TEXT_SPLIT_LINE;
	else if (how != NULL && how[0] == '=' && how[1] != '\0')
		o->split = TEXT_SPLIT_MARK;
	else if (how != NULL && strcmp(how, "file") != 0)
		return ctl_usage(args, "--split-on: expected file, blank-lines, lines or =TEXT, found \"%s\"", how);
	o->mark = o->split == TEXT_SPLIT_MARK ? how + 1 : NULL;
	return 0;
}

static int
build_open(struct build *b, const struct ctl_args *args, const struct text_options *to, struct err_note *note)
{
	const char *heldout = ctl_get(args, "heldout-out");
	bool replace = ctl_has(args, "replace");
	int32_t eod;
	int rc;

	for (int i = 0; i < b->n_threads; i++)
		if ((rc = tokenizer_encoder_new(&b->encoders[i], b->tok)) != 0)
			return rc;
	if ((rc = tokenizer_end_of_document(b->tok, ctl_get(args, "eod"), &eod, note)) != 0 ||
	    (rc = text_open(&b->text, args->operands, args->n_operands, to, note)) != 0 ||
	    (rc = part_open(b, &b->train, ctl_get(args, "out"), eod, replace, note)) != 0)
		return rc;
	return heldout != NULL ? part_open(b, &b->heldout, heldout, eod, replace, note) : 0;
}

static void
build_free(struct build **build)
{
	struct build *b = *build;

	for (int i = 0; i < MAX_THREADS; i++)
		tokenizer_encoder_destroy(&b->encoders[i]);
	for (size_t i = 0; i < BATCH_DOCUMENTS; i++) {
		free(b->docs[i].bytes);
		free(b->docs[i].ids.ids);
	}
	corpus_writer_destroy(&b->train.writer);
	corpus_writer_destroy(&b->heldout.writer);
	hash_destroy(&b->train.hash);
	hash_destroy(&b->heldout.hash);
	text_close(&b->text);
	tokenizer_destroy(&b->tok);
	free(b);
	*build = NULL;
}

static int
corpus_build(struct ctl_args *args)
{
	const char *tokenizer = ctl_need(args, "tokenizer"), *heldout = ctl_get(args, "heldout-out");
	uint64_t one_in = 20, threads = 0;
	struct err_note note = {.name = ""};
	struct text_options to;
	double start = clock_now_s();
	struct build *b;
	cpu_set_t set;
	int exit_code, rc;

	if (tokenizer == NULL || ctl_need(args, "out") == NULL)
		return EX_USAGE;
	if (heldout != NULL && strcmp(heldout, ctl_get(args, "out")) == 0)
		return ctl_usage(args, "--out and --heldout-out name the same corpus");
	if (heldout == NULL && ctl_has(args, "heldout-one-in"))
		return ctl_usage(args, "--heldout-one-in needs --heldout-out PREFIX");
	if ((exit_code = ctl_get_u64(args, "heldout-one-in", 2, UINT32_MAX, &one_in)) != 0 ||
	    (exit_code = ctl_get_u64(args, "threads", 1, MAX_THREADS, &threads)) != 0 ||
	    (exit_code = text_options(args, &to)) != 0)
		return exit_code;
	b = ctl_alloc(1, sizeof(*b));
	b->one_in = (uint32_t)one_in;
	b->n_threads = threads > 0 ? (int)threads : sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
	if (b->n_threads > MAX_THREADS)
		b->n_threads = MAX_THREADS;
	if ((exit_code = ctl_open_tokenizer(args, tokenizer, &b->tok)) == 0) {
		if ((rc = build_open(b, args, &to, &note)) != 0 || (rc = build_all(b, &note)) != 0 ||
		    (rc = finish(b, &note)) != 0)
			exit_code = ctl_fail(args, rc, &note);
		else
			exit_code = report(b, args, clock_now_s() - start);
	}
	build_free(&b);
	return exit_code;
}

const struct ctl_verb ctl_corpus_build = {
	.name = "corpus build", .operands = "TEXT ...", .summary = "text to a tokenised corpus with a held-out part",
	.about = "TEXT is a file, a folder (its files in name order), or - for standard input; plain text or JSON\n"
	    "lines, both also compressed by zstd. Each document is encoded separately and ended by the\n"
	    "end-of-document token; it may be longer than a training sequence, and bytes that are not UTF-8 are\n"
	    "kept. A hash of its text alone decides whether a document belongs to the held-out part, so the order\n"
	    "of files does not matter and copies never fall into both parts. Missing folders of PREFIX are made.\n"
	    "Memory: the longest document.",
	.example = "saltctl corpus build --tokenizer share/tokenizer-4k --out data/train --heldout-out data/heldout texts/",
	.options = options, .min_operands = 1, .max_operands = CTL_ANY, .run = corpus_build,
};
