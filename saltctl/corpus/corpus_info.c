/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <sysexits.h>

#include "data/corpus/corpus.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"
#include "data/tokenizer/tokenizer.h"

#define QUICK_TOKENS (UINT64_C(1) << 28)

static const struct cli_option options[] = {
	{"context", "L", "count the sequences of L tokens", false},
	{"tokenizer", "PATH", "also compare with this tokenizer", false},
	{"check", NULL, "read everything: compare with the checksums; ids must be below the vocabulary", false},
	CTL_DTYPE, CTL_JSON, CTL_END
};

struct facts {
	const struct corpus_info *info;
	const char *prefix;
	char fingerprint[HASH_HEX_BYTES], tokenizer[HASH_HEX_BYTES], weights_hex[HASH_HEX_BYTES];
	uint64_t context, n_windows;
	struct corpus_weights weights;		/* where the corpus has any */
	const char *checked, *same_tokenizer;	/* NULL: not asked for */
	char unreadable[1200];			/* why the given tokenizer cannot encode text; "" if it can */
};

static int
print_facts(const struct facts *f, bool as_json)
{
	const struct corpus_info *i = f->info;
	double per_token = i->n_bytes > 0 ? (double)i->n_bytes / (double)i->n_tokens : 0;

	if (as_json) {
		struct json *o = ctl_record(CTL("prefix", f->prefix), CTL("kind", corpus_kind_name(i->kind)),
		    CTL("dtype", corpus_dtype_name(i->dtype)), CTL("tokens", i->n_tokens),
		    CTL("documents", ctl_known(i->n_documents > 0, (int64_t)i->n_documents)),
		    CTL("text_bytes", ctl_known(i->n_bytes > 0, (int64_t)i->n_bytes)),
		    CTL("bytes_per_token", i->n_bytes > 0 ? per_token : NAN),
		    CTL("vocabulary", ctl_known(i->vocab > 0, i->vocab)),
		    CTL("end_of_document", ctl_known(i->eod >= 0, i->eod)),
		    CTL("tokenizer", i->has_tokenizer ? f->tokenizer : NULL), CTL("fingerprint", f->fingerprint));

		if (i->has_weights)
			ctl_put(o, "loss_weights", ctl_record(CTL("identity", (const char *)f->weights_hex), CTL("mean", f->weights.sum / (double)i->n_tokens),
			    CTL("masked_tokens", f->weights.n_masked)));
		if (f->context > 0)
			ctl_put_all(o, CTL("context", f->context), CTL("windows", f->n_windows));
		if (f->checked != NULL)
			ctl_put(o, "checked", f->checked);
		if (f->same_tokenizer != NULL)
			ctl_put(o, "tokenizer_is", f->same_tokenizer);
		if (f->unreadable[0] != '\0')
			ctl_put(o, "tokenizer_unreadable", (const char *)f->unreadable);
		return ctl_print_json(o);
	}
	ctl_line("corpus", "%s", f->prefix);
	ctl_line("kind", "%s, %s", corpus_kind_name(i->kind), corpus_dtype_name(i->dtype));
	ctl_line("tokens", "%" PRIu64, i->n_tokens);
	if (i->n_documents > 0)
		ctl_line("documents", "%" PRIu64, i->n_documents);
	if (i->n_bytes > 0)
		ctl_line("text", "%" PRIu64 " bytes, %.3f a token", i->n_bytes, per_token);
	if (i->vocab > 0)
		ctl_line("vocabulary", "%u ids, end of document %d", i->vocab, i->eod);
	else
		ctl_line("vocabulary", "not known");
	ctl_line("tokenizer", "%s%s%s", i->has_tokenizer ? f->tokenizer : "not known",
	    f->same_tokenizer != NULL ? ", the one given: " : "", f->same_tokenizer != NULL ? f->same_tokenizer : "");
	if (f->unreadable[0] != '\0')
		ctl_line("", "compared by its bytes, for it cannot encode text here: %s", f->unreadable);
	ctl_line("fingerprint", "%s", f->fingerprint);
	if (i->has_weights)
		ctl_line("loss weights", "%s, mean %.6g a token, %" PRIu64 " tokens of weight 0", f->weights_hex, f->weights.sum / (double)i->n_tokens,
		    f->weights.n_masked);
	if (f->context > 0)
		ctl_line("windows", "%" PRIu64 " of %" PRIu64 " tokens", f->n_windows, f->context);
	if (f->checked != NULL)
		ctl_line("check", "%s", f->checked);
	return 0;
}

static int
corpus_info_verb(struct ctl_args *args)
{
	struct facts f = {.prefix = args->operands[0]};
	struct corpus *corpus = NULL;
	struct tokenizer *tok = NULL;
	struct err_note note = {.name = ""};
	struct hash128 fingerprint, id;
	char path[4200];
	int exit_code, rc;

	if ((exit_code = ctl_get_u64(args, "context", 1, UINT32_MAX - 1, &f.context)) != 0 || (exit_code = ctl_open_corpus(args,
	    NULL, f.prefix, CORPUS_TRAIN, &corpus, &fingerprint)) != 0)
		goto out;
	f.info = corpus_info(corpus);
	hash_hex(fingerprint, f.fingerprint);
	if (f.info->has_tokenizer)
		hash_hex(f.info->tokenizer, f.tokenizer);
	if ((rc = corpus_load_weights(corpus, &f.weights, &note)) != 0) {
		exit_code = ctl_fail(args, rc, &note);
		goto out;
	}
	hash_hex(f.weights.identity, f.weights_hex);
	f.n_windows = corpus_n_windows(corpus, (uint32_t)f.context);
	if (ctl_has(args, "tokenizer")) {
		ctl_tokenizer_path(ctl_get(args, "tokenizer"), path, sizeof(path));
		if ((rc = tokenizer_identify(path, &id, f.unreadable, sizeof(f.unreadable), &note)) != 0) {
			exit_code = ctl_fail(args, rc, &note);
			goto out;
		}
		if (f.unreadable[0] == '\0' && (exit_code = ctl_open_tokenizer(args, path, &tok)) != 0)
			goto out;
		f.same_tokenizer = !f.info->has_tokenizer ? "cannot be told" : hash_equal(id, f.info->tokenizer) ? "the same" : "another";
	}
	/* A small corpus is always verified; for a large one a fingerprint from a side file is accepted. */
	if (!ctl_has(args, "check") && corpus_n_tokens(corpus) <= QUICK_TOKENS && (rc = corpus_verify(corpus, &note)) != 0) {
		exit_code = ctl_fail(args, rc, &note);
		goto out;
	}
	if (ctl_has(args, "check")) {
		uint32_t vocab = f.info->vocab > 0 ? f.info->vocab : tok != NULL ?
		    (uint32_t)tokenizer_vocab_size(tok) : 0;

		if ((rc = corpus_verify(corpus, &note)) != 0 ||
		    (vocab > 0 && (rc = corpus_check_vocab(corpus, vocab, &note)) != 0)) {
			exit_code = ctl_fail(args, rc, &note);
			goto out;
		}
		f.checked = vocab > 0 ? "all blocks have their checksums; every id is in the vocabulary" :
		    "all blocks have their checksums; ids were not compared, for the vocabulary is not known (--tokenizer PATH states it)";
	}
	exit_code = print_facts(&f, ctl_has(args, "json"));
out:
	tokenizer_destroy(&tok);
	corpus_destroy(&corpus);
	return exit_code;
}

const struct ctl_verb ctl_corpus_info = {
	.name = "corpus info", .operands = "PREFIX", .summary = "what a corpus holds, and its fingerprint",
	.about = "PREFIX of a Megatron indexed dataset, an llm.c shard, a .npy of integers, a pattern that matches such\n"
	    "files, or a file of raw ids, whose type --dtype states. Up to 268,435,456 tokens the bytes are always compared\n"
	    "with their checksums; beyond that with --check.",
	.example = "saltctl corpus info data/train --context 128",
	.options = options, .min_operands = 1, .max_operands = 1, .run = corpus_info_verb,
};
