/* SPDX-License-Identifier: Apache-2.0 */
/* corpus split, merge, sample: copy whole documents of Megatron corpora into new corpora. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/mem/mem.h"
#include "base/random/random.h"
#include "base/random/shuffle.h"
#include "data/corpus/corpus.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"

#define OUTPUTS_MAX 64

struct copy {
	const struct ctl_args *args;
	struct corpus *from;
	bool weighted;			/* from has loss weights, which are copied */
	struct corpus_writer *to[OUTPUTS_MAX];
	const char *names[OUTPUTS_MAX];
	size_t n_to;
	int32_t *ids;
	size_t cap;
	/* as the first input's PREFIX.json states them; "": not stated, or the inputs differ */
	char *unknown_bytes, *add_special;
	/* documents left out because they have no token; documents that had no end-of-document token */
	uint64_t n_empty, n_ended;
	struct err_note note;
};

static int
open_from(struct copy *c, const char *prefix)
{
	struct corpus_weights all;
	int exit_code, rc;

	corpus_destroy(&c->from);
	if ((exit_code = ctl_open_corpus(c->args, NULL, prefix, CORPUS_TRAIN, &c->from, NULL)) != 0)
		return exit_code;
	c->weighted = corpus_info(c->from)->has_weights && !ctl_has(c->args, "no-weights");
	if (c->weighted && (rc = corpus_load_weights(c->from, &all, &c->note)) != 0)
		return ctl_fail(c->args, rc, &c->note);
	return 0;
}

static char *
copy_text(const char *text)
{
	return ctl_strndup(text != NULL ? text : "", SIZE_MAX);
}

/* Opens an output with vocabulary, eod, tokenizer and rules of encoding of the input corpus. */
static int
open_to(struct copy *c, const char *prefix)
{
	const struct corpus_info *i = corpus_info(c->from);
	struct corpus_writer_options o = {.vocab = i->vocab, .eod = i->eod, .tokenizer = i->tokenizer, .replace = ctl_has(c->args, "replace")};

	if (c->add_special == NULL) {
		c->unknown_bytes = copy_text(corpus_unknown_bytes(c->from));
		c->add_special = copy_text(corpus_add_special(c->from));
	}
	o.unknown_bytes = c->unknown_bytes;
	o.add_special = c->add_special;
	if (i->vocab == 0 || i->eod < 0)
		return err_expect(&c->note, ERR_FORMAT, "%s", "a corpus whose .json states \"vocab\" and \"eod\"", "at least one is missing",
		    corpus_prefix(c->from));
	c->names[c->n_to] = prefix;
	return corpus_writer_new(&c->to[c->n_to++], prefix, &o, &c->note);
}

static int
copy_document(struct copy *c, uint64_t number, size_t to)
{
	struct corpus_document d;
	int rc;

	if ((rc = corpus_document(c->from, number, &d, &c->note)) != 0)
		return rc;
	ctl_grow((void **)&c->ids, &c->cap, d.n_tokens + 1, sizeof(*c->ids));
	if ((rc = corpus_tokens(c->from, d.first_token, d.n_tokens, c->ids, &c->note)) != 0)
		return rc;
	if (d.n_tokens > 0 && c->ids[d.n_tokens - 1] == corpus_info(c->from)->eod)
		d.n_tokens--;			/* the writer adds it */
	else
		c->n_ended += d.n_tokens > 0;
	if (d.n_tokens == 0) {
		c->n_empty++;
		return 0;
	}
	if ((rc = corpus_writer_source(c->to[to], corpus_prefix(c->from), number, &c->note)) != 0)
		return rc;
	if (c->weighted && (rc = corpus_writer_weight(c->to[to], corpus_weight_at(c->from, d.first_token), &c->note)) != 0)
		return rc;
	return corpus_writer_document(c->to[to], c->ids, d.n_tokens, 0, &c->note);
}

/* Ends the verb: completes all outputs or none. */
static int
finish(struct copy *c, int rc, int exit_code)
{
	struct json *all = ctl_array();

	for (size_t i = 0; rc == 0 && exit_code == 0 && i < c->n_to; i++) {
		if ((rc = corpus_writer_finish(c->to[i], NULL, &c->note)) != 0)
			for (size_t j = 0; j < i; j++)
				corpus_writer_withdraw(c->to[j]);
		ctl_push(all, ctl_record(CTL("prefix", c->names[i]), CTL("documents", corpus_writer_n_documents(c->to[i])),
		    CTL("tokens", corpus_writer_n_tokens(c->to[i]))));
	}
	if (rc != 0)
		exit_code = ctl_fail(c->args, rc, &c->note);
	if (exit_code == 0 && c->n_empty > 0)
		fprintf(stderr, "saltctl %s: %" PRIu64 " documents without a token were left out\n",
		    c->args->verb->name, c->n_empty);
	if (exit_code == 0 && c->n_ended > 0)
		fprintf(stderr,
		    "saltctl %s: %" PRIu64
		    " documents had no end-of-document token at their end, and got one\n",
		    c->args->verb->name, c->n_ended);
	if (exit_code == 0 && ctl_has(c->args, "json")) {
		exit_code = ctl_print_json(all);
		all = NULL;
	}
	for (size_t i = 0; exit_code == 0 && all != NULL && i < c->n_to; i++)
		ctl_line(c->names[i], "%" PRIu64 " documents, %" PRIu64 " tokens", corpus_writer_n_documents(c->to[i]), corpus_writer_n_tokens(c->to[i]));
	for (size_t i = 0; i < c->n_to; i++)
		corpus_writer_destroy(&c->to[i]);
	json_close(&all);
	corpus_destroy(&c->from);
	free(c->ids);
	free(c->unknown_bytes);
	free(c->add_special);
	return exit_code;
}

/* ---- merge ---- */

static const struct cli_option merge_options[] = {
	{"out", "PREFIX", "write PREFIX.bin, PREFIX.idx, PREFIX.json (required)", false},
	{"no-weights", NULL, "leave out the loss weights of documents", false},
	{"replace", NULL, "replace an existing corpus", false},
	CTL_JSON, CTL_END
};

/*
 * If another input's PREFIX.json states something else than the first one's, says so; the result's then states
 * nothing.
 */
static void
keep_equal(const char *member, char *first, const char *other, const char *prefix)
{
	if (strcmp(first, other != NULL ? other : "") == 0)
		return;
	fprintf(stderr,
	    "saltctl corpus merge: %s: \"%s\" is \"%s\", and \"%s\" in the inputs before; the result's PREFIX.json does not state it\n",
	    prefix, member, other != NULL ? other : "", first);
	first[0] = '\0';
}

static int
like_first(struct copy *c, const struct corpus_info *first, const char *prefix)
{
	const struct corpus_info *i = corpus_info(c->from);
	char one[HASH_HEX_BYTES] = "not stated", other[HASH_HEX_BYTES] = "not stated";

	keep_equal("unknown_bytes", c->unknown_bytes, corpus_unknown_bytes(c->from), prefix);
	keep_equal("add_special", c->add_special, corpus_add_special(c->from), prefix);
	if (i->vocab == first->vocab && i->eod == first->eod && i->has_tokenizer == first->has_tokenizer &&
	    hash_equal(i->tokenizer, first->tokenizer))
		return 0;
	if (first->has_tokenizer)
		hash_hex(first->tokenizer, one);
	if (i->has_tokenizer)
		hash_hex(i->tokenizer, other);
	return err_expect(&c->note, ERR_MISMATCH, "%s",
	    "the tokenizer, vocabulary and end-of-document id of %s: %s, %" PRIu32 ", %" PRId32,
	    "%s, %" PRIu32 ", %" PRId32, prefix, c->args->operands[0], one, first->vocab, first->eod, other,
	    i->vocab, i->eod);
}

static int
merge(struct ctl_args *args)
{
	struct copy c = {.args = args, .note = {.name = ""}};
	struct corpus_info first = {.vocab = 0};
	const char *out = ctl_need(args, "out");
	int exit_code = 0, rc = 0;

	if (out == NULL)
		return EX_USAGE;
	for (size_t i = 0; i < args->n_operands && rc == 0 && (exit_code = open_from(&c, args->operands[i])) == 0; i++) {
		if (i == 0) {
			rc = open_to(&c, out);
			first = *corpus_info(c.from);
		} else {
			rc = like_first(&c, &first, args->operands[i]);
		}
		for (uint64_t d = 0; rc == 0 && d < corpus_info(c.from)->n_documents; d++)
			rc = copy_document(&c, d, 0);
	}
	return finish(&c, rc, exit_code);
}

/* ---- split ---- */

static const struct cli_option split_options[] = {
	{"out", "PREFIX=SHARE", "a corpus that gets about that share of the documents; may be repeated, shares are relative (required)", true},
	{"seed", "SEED", "of the random choice; default 1", false},
	{"no-weights", NULL, "leave out the loss weights of documents", false},
	{"replace", NULL, "replace existing corpora", false},
	CTL_JSON, CTL_END
};

static int
split(struct ctl_args *args)
{
	struct copy c = {.args = args, .note = {.name = ""}};
	char *names[OUTPUTS_MAX] = {NULL};
	double shares[OUTPUTS_MAX], sum = 0;
	uint64_t seed = 1;
	const char *text;
	int exit_code, rc = 0;

	if ((exit_code = ctl_get_u64(args, "seed", 0, UINT32_MAX, &seed)) != 0 || (exit_code = open_from(&c, args->operands[0])) != 0)
		return finish(&c, 0, exit_code);
	for (size_t i = 0; rc == 0 && exit_code == 0 && (text = ctl_get_nth(args, "out", i)) != NULL; i++) {
		const char *eq = strrchr(text, '=');
		char *end = NULL;

		if (i == OUTPUTS_MAX || eq == NULL || !((shares[i] = strtod(eq + 1, &end)) > 0) || *end != '\0' || !isfinite(shares[i])) {
			exit_code = ctl_usage(args, "--out: expected at most %d times PREFIX=SHARE with a share above 0, found \"%.200s\"", OUTPUTS_MAX, text);
			break;
		}
		names[i] = ctl_strndup(text, (size_t)(eq - text));
		for (size_t k = 0; k < i && exit_code == 0; k++)
			if (strcmp(names[k], names[i]) == 0)
				exit_code = ctl_usage(args,
				    "--out: expected another PREFIX for each part, found %s twice", names[i]);
		if (exit_code != 0)
			break;
		sum += shares[i];
		rc = open_to(&c, names[i]);
	}
	if (rc == 0 && exit_code == 0 && c.n_to < 2)
		exit_code = ctl_usage(args, "--out is needed twice at least");
	for (uint64_t d = 0; rc == 0 && exit_code == 0 && d < corpus_info(c.from)->n_documents; d++) {
		uint32_t w[4];
		double x;
		size_t to = 0;

		random_words((uint32_t)seed, RANDOM_PURPOSE_SPLIT, d, 0, 0, w);
		x = random_uniform53(w[0], w[1]) * sum;
		while (to + 1 < c.n_to && x >= shares[to])
			x -= shares[to++];
		rc = copy_document(&c, d, to);
	}
	exit_code = finish(&c, rc, exit_code);
	for (size_t i = 0; i < OUTPUTS_MAX; i++)
		free(names[i]);
	return exit_code;
}

/* ---- sample ---- */

static const struct cli_option sample_options[] = {
	{"out", "PREFIX", "write PREFIX.bin, PREFIX.idx, PREFIX.json (required)", false},
	{"documents", "N", "so many documents", false},
	{"tokens", "N", "documents until they have so many tokens", false},
	{"seed", "SEED", "of the random choice; default 1", false},
	{"no-weights", NULL, "leave out the loss weights of documents", false},
	{"replace", NULL, "replace an existing corpus", false},
	CTL_JSON, CTL_END
};

static int
by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int
sample(struct ctl_args *args)
{
	struct copy c = {.args = args, .note = {.name = ""}};
	uint64_t seed = 1, n = UINT64_MAX, tokens = UINT64_MAX, all, sum = 0, *chosen = NULL;
	const char *out = ctl_need(args, "out");
	size_t n_chosen = 0, cap = 0;
	int exit_code, rc = 0;

	if (out == NULL)
		return EX_USAGE;
	if (ctl_has(args, "documents") == ctl_has(args, "tokens"))
		return ctl_usage(args, "how much? give --documents N or --tokens N");
	if ((exit_code = ctl_get_u64(args, "seed", 0, UINT32_MAX, &seed)) != 0 || (exit_code = ctl_get_u64(args, "documents", 1, INT64_MAX, &n)) != 0 ||
	    (exit_code = ctl_get_u64(args, "tokens", 1, INT64_MAX, &tokens)) != 0 || (exit_code = open_from(&c, args->operands[0])) != 0)
		return finish(&c, 0, exit_code);
	all = corpus_info(c.from)->n_documents;
	rc = open_to(&c, out);
	for (uint64_t p = 0; rc == 0 && p < all && n_chosen < n && sum < tokens; p++) {	/* in shuffle order */
		uint64_t d = shuffle_order((uint32_t)seed, all, p);
		struct corpus_document doc = {.n_tokens = 0};

		if ((rc = corpus_document(c.from, d, &doc, &c.note)) == 0) {
			sum += doc.n_tokens;
			*(uint64_t *)ctl_add(chosen, n_chosen, cap) = d;
		}
	}
	if (rc == 0 && (ctl_has(args, "documents") ? n_chosen < n : sum < tokens))
		fprintf(stderr, "saltctl corpus sample: warning: %s has only %" PRIu64 " documents, %" PRIu64
		    " tokens: the sample has all of them, fewer than --%s says\n", args->operands[0], all, sum,
		    ctl_has(args, "documents") ? "documents" : "tokens");
	if (n_chosen > 0)
		qsort(chosen, n_chosen, sizeof(*chosen), by_number);
	for (size_t i = 0; rc == 0 && i < n_chosen; i++)
		rc = copy_document(&c, chosen[i], 0);
	free(chosen);
	return finish(&c, rc, exit_code);
}

const struct ctl_verb ctl_corpus_merge = {
	.name = "corpus merge", .operands = "PREFIX ...", .summary = "corpora one after the other as one",
	.about = "Copies the documents of Megatron corpora that have the same tokenizer. To train several in given shares no\n"
	    "copy is needed: corpus.train takes a list. Loss weights are kept; if only some of the corpora have them, the\n"
	    "documents of the others get 1.",
	.example = "saltctl corpus merge --out data/all data/web data/code",
	.options = merge_options, .min_operands = 1, .max_operands = CTL_ANY, .run = merge,
};

const struct ctl_verb ctl_corpus_split = {
	.name = "corpus split", .operands = "PREFIX", .summary = "the documents of a corpus into several, at random",
	.about = "Each document of a Megatron corpus goes into one of the new corpora; the seed decides which. Loss weights\n"
	    "are kept.",
	.example = "saltctl corpus split --out data/train=0.99 --out data/heldout=0.01 data/all",
	.options = split_options, .min_operands = 1, .max_operands = 1, .run = split,
};

const struct ctl_verb ctl_corpus_sample = {
	.name = "corpus sample", .operands = "PREFIX", .summary = "some documents of a corpus, at random",
	.about = "Whole documents of a Megatron corpus, each at most once, in the order in which they are there. Loss\n"
	    "weights are kept.",
	.example = "saltctl corpus sample --documents 1000 --out data/small data/all",
	.options = sample_options, .min_operands = 1, .max_operands = 1, .run = sample,
};
