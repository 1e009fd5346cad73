/* SPDX-License-Identifier: Apache-2.0 */
/*
 * task - items that judge a model by the probabilities it gives to texts. They are read from JSON lines,
 * encoded, and judged with the model's answers.
 *
 *   choices     {"context": TEXT, "choices": [TEXT, TEXT, ...], "gold": INDEX}
 *               right: the gold choice is the most probable one
 *   pairs       {"sentence_good": TEXT, "sentence_bad": TEXT}, or good and bad
 *               right: the good sentence is the more probable one
 *   last_word   {"text": TEXT}
 *               right: every token after the last space is the most probable one at its position
 *
 * Other members are ignored, except "set" or "UID" (BLiMP's), the name of the set to which the item belongs.
 * In a folder each *.jsonl file is a set. Context and choice are joined unchanged: a space between them must
 * be in the file.
 *
 * An item becomes one request for each of its texts: a sequence of tokens whose last ones are the
 * continuation, for which the model computes the log-probability. The split is that of lm-evaluation-harness
 * (HFLM._encode_pair): white space at the end of the context moves to the continuation; the tokens of the
 * context are encode(context), those of the continuation are encode(context + continuation) without as many
 * tokens at the front. An empty context becomes the one token that begins a document; no token is put before
 * other contexts. If a sequence is longer than the model's position limit, its first tokens are cut.
 *
 * A struct task is read-only once it is open: any thread may read it.
 */
#ifndef SALT_TASK_H
#define SALT_TASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err/err.h"

struct tokenizer;

enum task_kind { TASK_ANY, TASK_CHOICES, TASK_PAIRS, TASK_LAST_WORD };
enum task_contexts { TASK_CONTEXTS_OWN, TASK_CONTEXTS_SHUFFLED, TASK_CONTEXTS_NONE };

struct task_options {
	enum task_kind kind;		/* TASK_ANY: the members of the first item decide */
	const struct tokenizer *tokenizer;
	int32_t begin;			/* stands for an empty context: a token that begins or ends a document */
	uint32_t max_tokens;		/* inputs of the longest sequence, the model's position limit */
	/* Control runs: SHUFFLED gives an item the context of another one, by seed; NONE an empty one. */
	enum task_contexts contexts;
	uint32_t seed;
};

/*
 * tokens [n]: those from `first` (at least 1) on are the continuation. n - 1 are inputs, at most max_tokens.
 */
struct task_request {
	const int32_t *tokens;
	uint32_t n, first;
};

/* A model's answer to a request. Only doubles, so that ranks can sum the answers that each filled in. */
struct task_answer {
	double log_p;			/* of the continuation, nats */
	double greedy;			/* 1: each of its tokens is the most probable at its position; or 0 */
};

struct task;

/*
 * task_open - reads and encodes a file, or a folder with *.jsonl files. Returns 0 and *t (task_close it);
 * ERR_FORMAT (with file, line, expected and found in the note), ERR_NOT_FOUND (no *.jsonl file in the
 * folder), ERR_RANGE (a continuation longer than max_tokens), the errors of tokenizer_encode and of reading
 * files, ENOMEM.
 */
int task_open(struct task **t, const char *path, const struct task_options *o, struct err_note *note);
void task_close(struct task **t);	/* takes NULL */

enum task_kind task_kind(const struct task *t);
const char *task_kind_name(enum task_kind kind);
size_t task_n_items(const struct task *t);
size_t task_n_sets(const struct task *t);	/* at least 1 */
size_t task_n_cut(const struct task *t);	/* items with a sequence whose first tokens were cut */
size_t task_n_requests(const struct task *t);
const struct task_request *task_requests(const struct task *t);	/* [n_requests] in item order; as long as t */
/* task_item_place - file, line and set of an item. */
void task_item_place(const struct task *t, size_t item, const char **file, uint64_t *line, const char **set);
/*
 * task_item_requests - returns the number of requests of an item; they begin at index *first, and *gold of
 * them, counted from 0, is the right one.
 */
size_t task_item_requests(const struct task *t, size_t item, size_t *first, size_t *gold);

/*
 * Results. se: standard error over the items, sqrt(p (1 - p) / (n - 1)) for shares (binomial, with the n - 1
 * of lm-evaluation-harness) and s / sqrt(n) for other means; NaN with fewer than two items.
 */
struct task_mean {
	double mean, se;
};

struct task_result {
	const char *set;		/* valid as long as the task */
	size_t n;			/* items */
	struct task_mean right;		/* share right by sums of log-probabilities; last_word: all greedy */
	struct task_mean by_token;	/* choices: sums divided by the tokens of the choice. Else NaN */
	struct task_mean by_byte;	/* choices: sums divided by the bytes of the choice. Else NaN */
	struct task_mean log_p;		/* of gold choice, good sentence, last word; nats per item */
	double chance;			/* share that is right by chance; last_word: 0 */
};

struct task_results {
	bool finite;			/* every log-probability is finite */
	struct task_result all;		/* over the items of all sets; set: NULL */
	struct task_result *sets;	/* [task_n_sets] in the order of their first items; free() it */
	double sets_mean;		/* mean of the sets' right; all sets have equal weight */
	double sets_se_items;		/* its standard error, with fixed sets and their items as a sample */
	double sets_se_sets;		/* its standard error, with the sets as a sample; NaN for one set */
};

/*
 * task_right - whether an item is right by the sum of log-probabilities. A tie with gold is wrong, except
 * that for choices the first of equal ones counts, as in numpy.argmax.
 */
bool task_right(const struct task *t, size_t item, const struct task_answer *answers);

/* task_judge - computes the results. answers: [n_requests]. Sums are in item order. Returns 0 or ENOMEM. */
int task_judge(const struct task *t, const struct task_answer *answers, struct task_results *out);

#endif
