/* SPDX-License-Identifier: Apache-2.0 */
/* corpus show: prints sequences as text, with their ids and the documents that they belong to. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/corpus/corpus.h"
#include "data/tokenizer/tokenizer.h"
#include "fabric/config/config.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"

static const struct cli_option options[] = {
	CTL_CONFIG,
	{"corpus", "PREFIX", "the corpus, or a list as in fleet.yaml; default corpus.train of -c", false},
	{"context", "L", "tokens of a sequence; default corpus.context of -c", false},
	{"tokenizer", "PATH", "also show the text: a tokenizer.json, or a folder that holds one", false},
	CTL_DTYPE, CTL_JSON, CTL_END
};

struct show {
	struct corpus *corpus;
	struct tokenizer *tok;
	uint32_t L;
	int32_t *ids;
	struct tokenizer_bytes text;
	struct json *all;			/* NULL without --json */
	struct err_note note;
};

/* Lists the documents of tokens [first, first + L] of a part; NULL: its format has no documents. */
static int
documents(struct show *s, const struct corpus *part, uint64_t first, struct json **list)
{
	uint64_t end = first + s->L + 1, at = first;
	struct corpus_document d;
	int rc = 0;

	*list = ctl_array();
	while (at < end && (rc = corpus_document_at(part, at, &d, &s->note)) == 0) {
		struct json *o = ctl_record(CTL("document", d.number), CTL("first_token", d.first_token), CTL("tokens", d.n_tokens),
		    CTL("position", (int64_t)at - (int64_t)first));
		char file[4096];
		uint64_t nth;
		bool weighted = corpus_info(part)->has_weights;
		int known = corpus_source(part, d.number, file, sizeof(file), &nth, &s->note);

		if (weighted)
			ctl_put(o, "weight", (double)corpus_weight_at(part, at));
		if (known == 0)
			ctl_put_all(o, CTL("file", (const char *)file), CTL("of_file", nth));
		else if (known != ERR_NOT_FOUND)
			rc = known;
		ctl_push(*list, o);
		if (rc != 0)
			break;
		at = d.first_token + d.n_tokens;
	}
	if (rc == ERR_UNSUPPORTED) {
		json_close(list);
		rc = 0;
	}
	return rc;
}

static void
print_text(const struct tokenizer_bytes *text)
{
	for (size_t i = 0; i < text->n; i++) {
		unsigned char b = text->bytes[i];

		putchar((b < ' ' && b != '\n' && b != '\t') || b == 0x7f ? ' ' : b);
	}
	putchar('\n');
}

static int
show_one(struct show *s, uint64_t index)
{
	uint64_t window;
	const struct corpus *part = corpus_at(s->corpus, s->L, index, &window);
	struct json *list = NULL, *ids;
	char *text;
	int rc;

	if ((rc = corpus_window(s->corpus, index, s->L, s->ids, &s->note)) != 0 ||
	    (rc = documents(s, part, window * s->L, &list)) != 0)
		goto out;
	s->text.n = 0;
	if (s->tok != NULL && (rc = tokenizer_decode(s->tok, s->ids, (size_t)s->L + 1, 0, &s->text, &s->note)) != 0)
		goto out;
	if (s->all != NULL) {
		ids = ctl_array();
		for (uint32_t t = 0; t <= s->L; t++)
			ctl_push(ids, s->ids[t]);
		text = s->tok != NULL ? ctl_strndup((const char *)s->text.bytes, s->text.n) : NULL;
		ctl_push(s->all, ctl_record(CTL("sequence", index), CTL("prefix", corpus_prefix(part)), CTL("window", window),
		    CTL("first_token", window * s->L), CTL("documents", list != NULL ? list : json_new_null()), CTL("ids", ids),
		    CTL("text", text)));
		free(text);
		return 0;
	}
	ctl_line("sequence", "%" PRIu64, index);
	ctl_line("of", "%s, sequence %" PRIu64 ", tokens %" PRIu64 " to %" PRIu64, corpus_prefix(part), window, window * s->L, window * s->L + s->L);
	for (size_t i = 0; i < json_count(list); i++) {
		const struct json *d = json_item(list, i);
		const char *file = ctl_text_of(d, "file", NULL);
		char weight[40] = "";

		if (json_get(d, "weight") != NULL)
			snprintf(weight, sizeof(weight), ", weight %g", ctl_num_of(d, "weight", 1));
		ctl_line(i == 0 ? "documents" : "", "%" PRId64 ", %" PRId64 " tokens, from position %" PRId64 "%s%s%s", ctl_int_of(d, "document", 0),
		    ctl_int_of(d, "tokens", 0), ctl_int_of(d, "position", 0), weight, file != NULL ? ", " : "", file != NULL ? file : "");
	}
	printf("%-24s", "ids");
	for (uint32_t t = 0; t <= s->L; t++)
		printf(t == 0 ? "%d" : " %d", s->ids[t]);
	putchar('\n');
	if (s->tok != NULL)
		print_text(&s->text);
out:
	json_close(&list);
	return rc;
}

static int
load_weights(const struct ctl_args *args, struct corpus *corpus)
{
	struct err_note note = {.name = ""};
	struct corpus_weights all;
	int rc = corpus_load_weights(corpus, &all, &note);

	return rc == 0 ? 0 : ctl_fail(args, rc, &note);
}

static int
run(struct ctl_args *args)
{
	struct show s = {.note = {.name = ""}};
	const char *prefix = ctl_get(args, "corpus"), *path = ctl_get(args, "tokenizer");
	struct config *cfg = NULL;
	uint64_t L = 0;
	int exit_code = 0, rc = 0;

	if (ctl_has(args, "config") && (exit_code = ctl_open_config(args, CONFIG_NEED_CORPUS, &cfg)) != 0)
		return exit_code;
	if (cfg != NULL) {
		prefix = prefix != NULL ? prefix : cfg->corpus.train;
		L = cfg->corpus.context;
	}
	if (prefix == NULL)
		exit_code = ctl_usage(args, "which corpus? give --corpus PREFIX or -c fleet.yaml");
	else if ((exit_code = ctl_get_u64(args, "context", 1, 1 << 24, &L)) == 0 && L == 0)
		exit_code = ctl_usage(args, "sequences of how many tokens? give --context L");
	if (exit_code != 0 || (exit_code = ctl_open_corpus(args, cfg != NULL ? &cfg->corpus : NULL, prefix, CORPUS_TRAIN,
	    &s.corpus, NULL)) != 0 || (exit_code = load_weights(args, s.corpus)) != 0 || (path != NULL && (exit_code = ctl_open_tokenizer(args, path, &s.tok)) != 0))
		goto out;
	s.L = (uint32_t)L;
	s.ids = ctl_alloc((size_t)L + 1, sizeof(*s.ids));
	s.all = ctl_has(args, "json") ? ctl_array() : NULL;
	for (size_t i = 0; rc == 0 && i < args->n_operands; i++) {
		char *end;
		uint64_t index = strtoull(args->operands[i], &end, 10);

		if (args->operands[i][0] < '0' || args->operands[i][0] > '9' || *end != '\0') {
			exit_code = ctl_usage(args, "expected the number of a sequence, found \"%.40s\"", args->operands[i]);
			goto out;
		}
		if (i > 0 && s.all == NULL)
			putchar('\n');
		rc = show_one(&s, index);
	}
	if (rc != 0) {
		exit_code = ctl_fail(args, rc, &s.note);
	} else if (s.all != NULL) {
		exit_code = ctl_print_json(s.all);
		s.all = NULL;
	}
out:
	json_close(&s.all);
	free(s.ids);
	free(s.text.bytes);
	tokenizer_destroy(&s.tok);
	corpus_destroy(&s.corpus);
	config_destroy(&cfg);
	return exit_code;
}

const struct ctl_verb ctl_corpus_show = {
	.name = "corpus show", .operands = "SEQUENCE ...", .summary = "sequences: their text, ids, documents and files",
	.about = "The numbers of sequences are those of the rows, labels and scores of a run. Documents are shown for\n"
	    "Megatron corpora, and the files that they were built from for corpora of saltctl corpus build.",
	.example = "saltctl corpus show -c fleet.yaml --tokenizer share/tokenizer-4k 17 18",
	.options = options, .min_operands = 1, .max_operands = CTL_ANY, .run = run,
};
