/* SPDX-License-Identifier: Apache-2.0 */
/* corpus build: text -> documents -> token ids -> PREFIX.bin, .idx, .json; the same for the held-out part. */
#include <errno.h>
#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "data/corpus/corpus.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"
#include "data/text/text.h"
#include "base/clock/clock.h"
#include "base/cpus/cpus.h"
#include "base/hash/hash.h"
#include "base/json/json.h"
#include "base/mem/mem.h"
#include "data/tokenizer/tokenizer.h"

#define BATCH_DOCUMENTS 256		/* documents encoded in parallel, ... */
#define BATCH_BYTES (8u << 20)		/* ... up to about this many bytes */
#define MAX_THREADS 256

struct document {
	unsigned char *bytes;
	size_t n, cap;
	struct tokenizer_ids ids;
	struct text_place place;
	uint64_t n_unknown;		/* bytes without a token */
	double weight;			/* with --weight-column */
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
	bool weighted;			/* --weight-column */
	unsigned flags;			/* for tokenizer_encode */
	struct tokenizer_template special;	/* ids around each text */
	char special_text[512];		/* these ids as text, "1 text 2"; "": none */
	struct text_tally no_token;	/* documents without a token */
	struct text_tally unknown;	/* bytes without a token, and the first documents that have some */
	struct document docs[BATCH_DOCUMENTS];
	size_t n_docs;
};

static const struct cli_option options[] = {
	{"tokenizer", "PATH", "tokenizer.json or tokenizer.model, or a folder that holds one (required)", false},
	{"out", "PREFIX", "write PREFIX.bin, PREFIX.idx, PREFIX.json (required)", false},
	{"heldout-out", "PREFIX", "write about one document in N there instead, for evaluation", false},
	{"heldout-one-in", "N", "share of the held-out part; default 20", false},
	{"split-on", "HOW", "where a document ends: file (default), blank-lines, lines, or =TEXT: a line equal to TEXT", false},
	{"jsonl", NULL, "read every input as JSON, whatever its name and its first bytes", false},
	{"text", NULL, "read every input as plain text, also what looks like JSON or is not text", false},
	{"field", "NAME", "the member of a JSON object that holds the text; default \"text\"", false},
	{"weight-column", "NAME", "the member of a JSON object that holds the loss weight of its text in training, 0 or 1e-6 to 1e6; needs --jsonl", false},
	{"skip-bad-lines", NULL, "leave out bad JSON lines and objects without the field; count them", false},
	{"unknown-bytes", "HOW", "bytes without a token: stop (default), drop, or an added token in the place of each", false},
	{"only", "PATTERN", "in folders read only files that match, such as '*.txt'", false},
	{"add-special", NULL, "put around each text what the tokenizer's post_processor does, such as BOS", false},
	{"eod", "TOKEN", "the token that ends a document; default: the tokenizer's", false},
	{"threads", "N", "encode on N threads; default: all processors. The result does not depend on it", false},
	{"replace", NULL, "replace an existing corpus", false},
	CTL_JSON, CTL_END
};

/* Reads the next batch of documents. ERR_NOT_FOUND at the end of the text. */
static int
read_batch(struct build *b, struct err_note *note)
{
	size_t bytes = 0, n;
	const unsigned char *text;
	struct text_place place;
	int rc = 0;

	b->n_docs = 0;
	while (b->n_docs < BATCH_DOCUMENTS && bytes < BATCH_BYTES &&
	    (rc = text_next(b->text, &text, &n, &place, note)) == 0) {
		struct document *d = &b->docs[b->n_docs];

		if (mem_grow((void **)&d->bytes, &d->cap, n, 1) != 0)
			return ENOMEM;
		memcpy(d->bytes, text, n);
		d->n = n;
		d->place = place;
		d->weight = text_weight(b->text);
		d->ids.n = 0;
		bytes += n;
		b->n_docs++;
	}
	return rc == ERR_NOT_FOUND && b->n_docs > 0 ? 0 : rc;
}

/* Writes "line 7, object 2", or without the object if there is none. */
static const char *
place_text(const struct document *d, char *buf, size_t size)
{
	int n = snprintf(buf, size, "line %" PRIu64, d->place.line);

	if (d->place.record > 0)
		snprintf(buf + n, size - (size_t)n, ", object %" PRIu64, d->place.record);
	return buf;
}

static int
write_document(struct build *b, struct document *d, struct err_note *note)
{
	bool heldout = b->heldout.writer != NULL && corpus_split_heldout(d->bytes, d->n, b->one_in);
	struct part *part = heldout ? &b->heldout : &b->train;
	char place[64];
	int rc;

	place_text(d, place, sizeof(place));
	if (d->rc != 0) {
		err_note_set(note, d->rc, "%s", d->place.name);
		err_note_place(note, "document at %s: %s%.100s", place,
		    d->note.place[0] != '\0' ? "its " : "", d->note.place);
		return err_expect(note, d->rc, "", "%s%s", "%s", d->note.expected,
		    d->rc == ERR_UNSUPPORTED ? " (--unknown-bytes drop leaves others out)" : "",
		    d->note.found);
	}
	if (d->n_unknown > 0 &&
	    text_tally_add(&b->unknown, d->n_unknown, "%s: %s", d->place.name, place) != 0)
		return ENOMEM;
	if (d->ids.n == 0)
		return text_tally_add(&b->no_token, 1, "%s: %s", d->place.name, place);
	hash_field(part->hash, "document", d->bytes, d->n);
	part->n_bytes += d->n;
	if ((rc = corpus_writer_source(part->writer, d->place.name, UINT64_MAX, note)) != 0)
		return rc;
	if (b->weighted && !heldout && (rc = corpus_writer_weight(part->writer, (float)d->weight, note)) != 0)
		return rc;
	return corpus_writer_document(part->writer, d->ids.ids, d->ids.n, d->n, note);
}

static int
encode_document(const struct build *b, struct tokenizer_encoder *enc, struct document *d)
{
	const struct tokenizer_template *t = &b->special;
	int rc = tokenizer_encode(enc, d->bytes, d->n, b->flags, &d->ids, &d->note);
	size_t n = d->ids.n;

	if (rc != 0 || n == 0 || t->n_before + t->n_after == 0)
		return rc;
	if ((rc = mem_grow((void **)&d->ids.ids, &d->ids.cap, n + t->n_before + t->n_after, sizeof(int32_t))) != 0)
		return rc;
	memmove(d->ids.ids + t->n_before, d->ids.ids, n * sizeof(int32_t));
	memcpy(d->ids.ids, t->before, t->n_before * sizeof(int32_t));
	memcpy(d->ids.ids + t->n_before + n, t->after, t->n_after * sizeof(int32_t));
	d->ids.n = n + t->n_before + t->n_after;
	return 0;
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
			struct tokenizer_encoder *enc = b->encoders[omp_get_thread_num()];
			uint64_t before = tokenizer_encoder_n_unknown(enc);

			d->note = (struct err_note){.name = ""};
			d->rc = encode_document(b, enc, d);
			d->n_unknown = tokenizer_encoder_n_unknown(enc) - before;
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

/* Completes both corpora. If one of them is empty, neither is written. */
static int
finish(struct build *b, struct err_note *note)
{
	uint64_t train = corpus_writer_n_documents(b->train.writer);
	uint64_t heldout = b->heldout.writer != NULL ? corpus_writer_n_documents(b->heldout.writer) : 0;
	const char *left_out = NULL;
	struct hash128 source;
	int rc;

	for (int kind = TEXT_TALLY_NOT_TEXT; kind < TEXT_TALLIES && left_out == NULL; kind++)
		left_out = text_tally(b->text, kind)->first[0];
	if (train == 0 || (b->heldout.writer != NULL && heldout == 0)) {
		const char *prefix = train == 0 ? b->train.prefix : b->heldout.prefix;

		if (train + heldout == 0)
			return err_expect(note, ERR_FORMAT, "%s", "text",
			    "no document with a token in it in %zu input%s%s%.200s", prefix,
			    text_n_files(b->text), text_n_files(b->text) == 1 ? "" : "s",
			    left_out != NULL ? "; left out: " : "", left_out != NULL ? left_out : "");
		return err_expect(note, ERR_FORMAT, "%s",
		    "at least one document (split the text into more documents by --split-on, or change --heldout-one-in)",
		    "all %" PRIu64 " documents are in the other part with --heldout-one-in %u", prefix,
		    train + heldout, b->one_in);
	}
	source = hash_digest(b->train.hash);
	if ((rc = corpus_writer_finish(b->train.writer, &source, note)) != 0 || b->heldout.writer == NULL)
		return rc;
	source = hash_digest(b->heldout.hash);
	if ((rc = corpus_writer_finish(b->heldout.writer, &source, note)) != 0)
		corpus_writer_withdraw(b->train.writer);	/* so that the command can be repeated */
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

/* Reports one tally: what it counts, how many, and the first places. */
static void
report_tally(const struct text_tally *t, const char *name, const char *what, struct json *to)
{
	struct json *first;

	if (to == NULL && t->n == 0)
		return;
	if (to == NULL)
		printf("%" PRIu64 " %s", t->n, what);
	first = to != NULL ? ctl_array() : NULL;
	for (size_t i = 0; i < TEXT_TALLY_FIRST && t->first[i] != NULL; i++)
		if (to != NULL)
			ctl_push(first, (const char *)t->first[i]);
		else
			printf("%s%s", i == 0 ? ": " : ", ", t->first[i]);
	if (to != NULL)
		ctl_put(to, name, ctl_record(CTL("n", t->n), CTL("first", first)));
	else
		puts(t->n > TEXT_TALLY_FIRST ? ", ..." : "");
}

static void
report_tallies(const struct build *b, struct json *root)
{
	static const struct {
		const char *name, *what;
	} texts[TEXT_TALLIES] = {
	    [TEXT_TALLY_PLAIN] = {"plain_text", "read as plain text"},
	    [TEXT_TALLY_JSON] = {"json", "read as JSON"},
	    [TEXT_TALLY_NO_DOCUMENT] = {"no_document", "of these without a document"},
	    [TEXT_TALLY_NOT_TEXT] = {"not_text", "files left out, not text"},
	    [TEXT_TALLY_NO_FIELD] = {"no_field", "files left out"},
	    [TEXT_TALLY_HIDDEN] = {"hidden", "left out, hidden"},
	    [TEXT_TALLY_NOT_ONLY] = {"not_only", "left out by --only"},
	    [TEXT_TALLY_NO_FILE] = {"no_file", "left out, not files (a link to a folder, a socket, a pipe)"},
	    [TEXT_TALLY_BAD] = {"bad_records", "bad lines left out"},
	    [TEXT_TALLY_EMPTY] = {"empty", "records left out, empty text"},
	    [TEXT_TALLY_SURROGATES] = {"surrogates", "records with lone surrogates, which became U+FFFD"},
	};
	struct json *to = root != NULL ? ctl_object() : NULL;

	for (int kind = 0; kind < TEXT_TALLIES; kind++)
		report_tally(text_tally(b->text, kind), texts[kind].name, texts[kind].what, to);
	report_tally(&b->no_token, "no_token", "documents left out, no token", to);
	report_tally(&b->unknown, "unknown_bytes", "bytes without a token (--unknown-bytes)", to);
	if (to != NULL)
		ctl_put(root, "text", to);
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
		if (b->special_text[0] != '\0')
			printf("added     %s\n", b->special_text);
		printf("%zu inputs in %.1f s, %s/s\n", text_n_files(b->text), seconds,
		    ctl_bytes((double)(b->train.n_bytes + b->heldout.n_bytes) / seconds, rate));
		report_tallies(b, NULL);
		return 0;
	}
	ctl_put_all(root, CTL("inputs", text_n_files(b->text)),
	    CTL("bad_lines", text_tally(b->text, TEXT_TALLY_BAD)->n), CTL("seconds", seconds));
	if (b->special_text[0] != '\0')
		ctl_put(root, "add_special", (const char *)b->special_text);
	report_tallies(b, root);
	return ctl_print_json(root);
}

static int
part_open(struct build *b, const struct ctl_args *args, struct part *part, const char *prefix, int32_t eod,
    struct err_note *note)
{
	const char *how = ctl_get(args, "unknown-bytes");
	struct corpus_writer_options wo = {.vocab = (uint32_t)tokenizer_vocab_size(b->tok),
	    .eod = eod,
	    .tokenizer = tokenizer_fingerprint(b->tok),
	    .replace = ctl_has(args, "replace"),
	    .add_special = b->special_text[0] != '\0' ? b->special_text : NULL,
	    .unknown_bytes = how != NULL && strcmp(how, "stop") != 0 ? how : NULL};

	part->prefix = prefix;
	if ((part->hash = hash_new()) == NULL)
		return ENOMEM;
	return corpus_writer_new(&part->writer, prefix, &wo, note);
}

static int
text_options(const struct ctl_args *args, struct text_options *o)
{
	const char *how = ctl_get(args, "split-on");

	*o = (struct text_options){.form = ctl_has(args, "jsonl") ? TEXT_FORM_JSON :
		ctl_has(args, "text")				  ? TEXT_FORM_PLAIN :
								    TEXT_FORM_AUTO,
	    .field = ctl_get(args, "field"),
	    .weight_field = ctl_get(args, "weight-column"),
	    .only = ctl_get(args, "only"),
	    .skip_bad = ctl_has(args, "skip-bad-lines")};
	if (ctl_has(args, "jsonl") && ctl_has(args, "text"))
		return ctl_usage(args, "--jsonl and --text exclude each other");
	if (ctl_has(args, "text") && (ctl_has(args, "field") || ctl_has(args, "skip-bad-lines")))
		return ctl_usage(args,
		    "--%s is for JSON, and --text reads every input as plain text: leave one of them out",
		    ctl_has(args, "field") ? "field" : "skip-bad-lines");
	if (ctl_has(args, "jsonl") && how != NULL)
		return ctl_usage(args, "--split-on is for plain text, and --jsonl reads every input as "
		    "JSON, where each object is a document: leave one of them out");
	if (o->weight_field != NULL && !ctl_has(args, "jsonl"))
		return ctl_usage(args, "--weight-column needs --jsonl: only JSON objects have columns");
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

/* Makes an encoder for each thread, set by --unknown-bytes. Returns 0, or an exit code after a message. */
static int
encoders_new(struct build *b, const struct ctl_args *args)
{
	const char *how = ctl_get(args, "unknown-bytes");
	int32_t id = -1;

	for (int i = 0; i < b->n_threads; i++)
		if (tokenizer_encoder_new(&b->encoders[i], b->tok) != 0)
			return ctl_fail(args, ENOMEM, NULL);
	if (how == NULL || strcmp(how, "stop") == 0)
		return 0;
	if (strcmp(how, "drop") != 0 && tokenizer_end_of_document(b->tok, how, &id, NULL) != 0)
		return ctl_usage(args,
		    "--unknown-bytes: expected stop, drop or an added token of the tokenizer, found \"%s\"",
		    how);
	b->flags |= TOKENIZER_DROP_UNKNOWN;
	for (int i = 0; i < b->n_threads; i++)
		tokenizer_encoder_unknown(b->encoders[i], id);
	return 0;
}

/* --add-special. The writer ends each document with eod, so an eod at the template's end is removed. */
static int
special_open(struct build *b, int32_t eod, struct err_note *note)
{
	struct tokenizer_template *t = &b->special;
	size_t n = 0;
	int rc;

	if ((rc = tokenizer_get_template(b->tok, t, note)) != 0)
		return rc;
	if (t->n_after > 0 && t->after[t->n_after - 1] == eod)
		t->n_after--;
	for (size_t i = 0; i < t->n_before + t->n_after + 1 && t->n_before + t->n_after > 0; i++)
		if (i == t->n_before)
			n += (size_t)snprintf(b->special_text + n, sizeof(b->special_text) - n, i > 0 ? " text" : "text");
		else
			n += (size_t)snprintf(b->special_text + n, sizeof(b->special_text) - n, i > 0 ? " %d" : "%d",
			    i < t->n_before ? t->before[i] : t->after[i - t->n_before - 1]);
	if (n == 0)
		fprintf(stderr, "corpus build: --add-special: the tokenizer's post_processor adds nothing%s\n",
		    t->after != NULL ? " beside the token that ends a document" : "");
	return 0;
}

static int
build_open(struct build *b, const struct ctl_args *args, const struct text_options *to, struct err_note *note)
{
	const char *heldout = ctl_get(args, "heldout-out");
	int32_t eod;
	int rc;

	if ((rc = tokenizer_end_of_document(b->tok, ctl_get(args, "eod"), &eod, note)) != 0 ||
	    (ctl_has(args, "add-special") && (rc = special_open(b, eod, note)) != 0) ||
	    (rc = text_open(&b->text, args->operands, args->n_operands, to, note)) != 0 ||
	    (rc = part_open(b, args, &b->train, ctl_get(args, "out"), eod, note)) != 0)
		return rc;
	return heldout != NULL ? part_open(b, args, &b->heldout, heldout, eod, note) : 0;
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
	for (int i = 0; i < TEXT_TALLY_FIRST; i++) {
		free(b->unknown.first[i]);
		free(b->no_token.first[i]);
	}
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
	b->weighted = to.weight_field != NULL;
	b->n_threads = threads > 0 ? (int)threads : cpus_here();
	if (b->n_threads > MAX_THREADS)
		b->n_threads = MAX_THREADS;
	if ((exit_code = ctl_open_tokenizer(args, tokenizer, &b->tok)) == 0 &&
	    (exit_code = encoders_new(b, args)) == 0) {
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
	    "(lines, or objects and arrays of them), also compressed by gzip, bzip2, xz or zstd. The first bytes\n"
	    "decide which. The result says how each file was read, and what was left out. Each document is encoded\n"
	    "separately and ended by the end-of-document token; it may be longer than a training sequence, and\n"
	    "bytes that are not UTF-8 are kept. A hash of its text alone decides whether a document belongs to the\n"
	    "held-out part, so the order of files does not matter and copies never fall into both parts. Missing\n"
	    "folders of PREFIX are made. The held-out part gets no weights: an evaluation counts every token alike.\n"
	    "Memory: the longest document.",
	.example = "saltctl corpus build --tokenizer share/tokenizer-4k --out data/train --heldout-out data/heldout texts/",
	.options = options, .min_operands = 1, .max_operands = CTL_ANY, .run = corpus_build,
};
