/* SPDX-License-Identifier: Apache-2.0 */
/*
 * generate: one forward pass over the last tokens that fit for each new token. This is slow and simple, and
 * uses the kernels of training.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/random/random.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"
#include "saltctl/model/lm.h"
#include "base/hash/hash.h"
#include "base/mem/mem.h"
#include "data/tokenizer/tokenizer.h"

static const struct cli_option options[] = {
	{"model", "FOLDER", "a Hugging Face model folder, or a trainer's checkpoint (required)", false},
	{"prompt", "TEXT", "how the text begins; - reads standard input; default: the start of a document", false},
	{"tokens", "N", "at most N tokens; default 100", false},
	{"temperature", "X", "1 samples from the model's distribution, 0 takes the most probable token; default 0.8", false},
	{"top-k", "K", "sample among the K most probable tokens; default all", false},
	{"seed", "N", "the same seed gives the same text; default 0", false},
	{"tokenizer", "PATH", "tokenizer.json or its folder; default: the one in the model's folder", false},
	{"go-on", NULL, "continue after the end of a document", false},
	{"threads", "N", "default: all processors", false},
	CTL_END
};

struct generation {
	struct lm lm;
	struct tokenizer *tok;
	struct tokenizer_ids ids;
	float *logits;				/* [V] */
	int32_t *order;				/* [V] ids, most probable first, for top-k */
	int64_t n_valid;			/* number of ids of the tokenizer */
	uint64_t n, top_k, seed;
	double temperature;
	int32_t eod;				/* -1: none */
	int exit_code;				/* of writing to standard output */
	struct err_note note;
};

static const float *sort_logits;

static int
likelier(const void *a, const void *b)
{
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

	if (sort_logits[x] != sort_logits[y])
		return sort_logits[x] > sort_logits[y] ? -1 : 1;
	return x < y ? -1 : 1;
}

/* Chooses the next id from the logits of the last position. */
static int32_t
choose(struct generation *g, uint64_t i)
{
	int64_t n = g->top_k > 0 && (int64_t)g->top_k < g->n_valid ? (int64_t)g->top_k : g->n_valid;
	double max, total = 0, sum = 0, u;
	uint32_t words[4];

	for (int32_t v = 0; v < g->n_valid; v++)
		g->order[v] = v;
	if (g->temperature == 0)
		n = 1;
	if (n < g->n_valid) {
		sort_logits = g->logits;
		qsort(g->order, (size_t)g->n_valid, sizeof(*g->order), likelier);
	}
	if (n == 1)
		return g->order[0];
	max = -INFINITY;
	for (int64_t v = 0; v < n; v++)
		max = fmax(max, (double)g->logits[g->order[v]]);
	for (int64_t v = 0; v < n; v++)
		total += exp(((double)g->logits[g->order[v]] - max) / g->temperature);
	random_words((uint32_t)g->seed, RANDOM_PURPOSE_GENERATE, 0, (uint32_t)i, 0, words);
	u = random_uniform53(words[0], words[1]) * total;
	for (int64_t v = 0; v < n; v++) {
		sum += exp(((double)g->logits[g->order[v]] - max) / g->temperature);
		if (sum > u)
			return g->order[v];
	}
	return g->order[n - 1];
}

static int
next_token(struct generation *g, uint64_t i, int32_t *id)
{
	int64_t longest = g->lm.model->config.context, n = (int64_t)g->ids.n < longest ? (int64_t)g->ids.n : longest;
	int rc = model_forward(g->lm.session, g->ids.ids + g->ids.n - n, 1, n);

	if (rc != 0)
		return err_note_set(&g->note, rc, "tokens of the prompt");
	model_logits(g->lm.session, n - 1, 1, g->logits);
	for (int64_t v = 0; v < g->n_valid; v++)
		if (!isfinite(g->logits[v]))
			return err_note_set(&g->note, ERR_NONFINITE, "logits");
	*id = choose(g, i);
	return 0;
}

static int
append(struct generation *g, int32_t id)
{
	if (mem_grow((void **)&g->ids.ids, &g->ids.cap, g->ids.n + 1, sizeof(*g->ids.ids)) != 0)
		return ENOMEM;
	g->ids.ids[g->ids.n++] = id;
	return 0;
}

static int
generate_all(struct generation *g, bool go_on)
{
	const unsigned char *bytes;
	size_t len;
	int32_t id = -1;
	int rc;

	for (uint64_t i = 0; i < g->n && !ferror(stdout); i++) {
		if ((rc = next_token(g, i, &id)) != 0 || (rc = append(g, id)) != 0)
			return rc;
		if (id == g->eod && !go_on)
			break;
		if (tokenizer_token(g->tok, id, &bytes, &len, NULL) == 0)
			fwrite(bytes, 1, len, stdout);
		if ((g->exit_code = ctl_flush(0)) != 0)
			return 0;
	}
	putchar('\n');
	return 0;
}

/* Encodes the prompt; without one, the end-of-document token, which precedes every document in training. */
static int
read_prompt(const struct ctl_args *args, struct generation *g)
{
	const char *text = ctl_get(args, "prompt");
	struct tokenizer_encoder *enc = NULL;
	unsigned char *bytes = NULL;
	size_t n = text != NULL ? strlen(text) : 0;
	int exit_code, rc;

	if (text != NULL && strcmp(text, "-") == 0) {
		if ((exit_code = ctl_read_all(args, text, &bytes, &n)) != 0)
			return exit_code;
		text = (const char *)bytes;
	}
	if ((rc = tokenizer_encoder_new(&enc, g->tok)) == 0)
		rc = tokenizer_encode(enc, text, n, 0, &g->ids, &g->note);
	tokenizer_encoder_destroy(&enc);
	if (rc == 0 && n > 0)
		fwrite(text, 1, n, stdout);
	free(bytes);
	if (rc == 0 && g->ids.n == 0) {
		if (g->eod < 0)
			return ctl_usage(args,
			    "the tokenizer has no end-of-document token to begin with; give --prompt TEXT");
		rc = append(g, g->eod);
	}
	return rc != 0 ? ctl_fail(args, rc, &g->note) : 0;
}

static int
generation_open(const struct ctl_args *args, struct generation *g, const struct kernels_options *ko)
{
	const char *model = ctl_get(args, "model"), *tokenizer = ctl_get(args, "tokenizer");
	int64_t vocab;
	int exit_code, rc;

	if ((exit_code = ctl_open_tokenizer(args, tokenizer != NULL ? tokenizer : model, &g->tok)) != 0)
		return exit_code;
	if ((rc = lm_open(&g->lm, model, ko, 1, 0, &g->note)) != 0)
		return ctl_fail(args, rc, &g->note);
	vocab = g->lm.model->config.vocab_size;
	g->n_valid = tokenizer_vocab_size(g->tok);
	if (g->n_valid > vocab)
		return ctl_fail(args, err_expect(&g->note, ERR_MISMATCH, "vocabulary",
		    "a tokenizer of at most %" PRId64 " ids, the model's", "%" PRId64, vocab, g->n_valid), &g->note);
	if (tokenizer_end_of_document(g->tok, NULL, &g->eod, NULL) != 0)
		g->eod = -1;
	g->logits = ctl_alloc((size_t)vocab, sizeof(*g->logits));
	g->order = ctl_alloc((size_t)vocab, sizeof(*g->order));
	return 0;
}

static int
generate(struct ctl_args *args)
{
	struct generation g = {.n = 100, .temperature = 0.8};
	struct kernels_options ko = {.threads = 0};
	uint64_t threads = 0;
	int exit_code, rc;

	if (ctl_need(args, "model") == NULL)
		return EX_USAGE;
	if ((exit_code = ctl_get_u64(args, "tokens", 1, UINT32_MAX, &g.n)) != 0 ||
	    (exit_code = ctl_get_num(args, "temperature", 0, 100, &g.temperature)) != 0 ||
	    (exit_code = ctl_get_u64(args, "top-k", 1, INT32_MAX, &g.top_k)) != 0 ||
	    (exit_code = ctl_get_u64(args, "seed", 0, UINT32_MAX, &g.seed)) != 0 ||
	    (exit_code = ctl_get_u64(args, "threads", 1, 4096, &threads)) != 0)
		return exit_code;
	ko.threads = (int)threads;
	if ((exit_code = generation_open(args, &g, &ko)) == 0 && (exit_code = read_prompt(args, &g)) == 0 &&
	    (rc = generate_all(&g, ctl_has(args, "go-on"))) != 0)
		exit_code = ctl_fail(args, rc, &g.note);
	if (exit_code == 0)
		exit_code = g.exit_code;
	free(g.logits);
	free(g.order);
	free(g.ids.ids);
	lm_close(&g.lm);
	tokenizer_destroy(&g.tok);
	return exit_code;
}

const struct ctl_verb ctl_generate = {
	.name = "generate", .operands = "", .summary = "text from a model",
	.about = "Prints the prompt and the text that follows, token by token. Token i depends only on the seed,\n"
	    "the prompt and i.",
	.example = "saltctl generate --model run/checkpoints/step_00000200 --prompt 'The function returns' --tokens 50",
	.options = options, .run = generate,
};
