/* SPDX-License-Identifier: Apache-2.0 */
/*
 * task - items that judge a model by the probabilities it gives to texts: read from JSON lines, encoded, and
 * judged.
 *
 *   choices     {"context": TEXT, "choices": [TEXT, TEXT, ...], "gold": INDEX}
 *               right: the gold choice is the likeliest
 *   pairs       {"sentence_good": TEXT, "sentence_bad": TEXT}, or good and bad
 *               right: the good sentence is the likelier
 *   last_word   {"text": TEXT}
 *               right: every token of what follows the last space is the likeliest at its place
 *
 * Other members are ignored, but for "set" or "UID" (BLiMP's): the name of the set to which the item
 * belongs. In a folder each *.jsonl file is a set. Context and choice are joined as they are: the file says
 * whether a space stands between them.
 *
 * An item becomes one request for each of its texts: a sequence of tokens of which the last ones are the
 * continuation, whose log-probability is asked for. The border is lm-evaluation-harness's
 * (HFLM._encode_pair): white space at the end of the context moves to the continuation; the tokens of the
 * context are encode(context), those of the continuation are encode(context + continuation) without as many
 * at the front. An empty context is the one token that begins a document. No token is put before a context
 * that is not empty. Of a sequence that is longer than the model's context the first
 * tokens are left out.
 *
 * A struct task does not change once it is open; any thread may read it.
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
	enum task_kind kind;		/* TASK_ANY: by the members of the first item */
	const struct tokenizer *tokenizer;
	int32_t begin;			/* stands for an empty context: a token that begins or ends a document */
	uint32_t max_tokens;		/* inputs of the longest sequence, the model's context */
	/* Controls: item i has the context of another item, in an order drawn by seed; or an empty one. */
	enum task_contexts contexts;
	uint32_t seed;
};

/* tokens [n]; those from `first` on (at least 1) are the continuation. n - 1 inputs, at most max_tokens. */
struct task_request {
	const int32_t *tokens;
	uint32_t n, first;
};

/* What a model says about a request. Only doubles, so that ranks can add up what each of them filled in. */
struct task_answer {
	double log_p;			/* of the continuation, nats */
	double greedy;			/* 1: each of its tokens is the likeliest at its place; else 0 */
};

struct task;

/*
 * task_open - a file, or a folder with *.jsonl files. Returns 0; ERR_FORMAT (with file and line: what was
 * expected and found), ERR_RANGE (a continuation longer than max_tokens), the errors of tokenizer_encode and
 * of reading files, ENOMEM.
 */
int task_open(struct task **t, const char *path, const struct task_options *o, struct err_note *note);
void task_close(struct task **t);	/* takes NULL */

enum task_kind task_kind(const struct task *t);
const char *task_kind_name(enum task_kind kind);
size_t task_n_items(const struct task *t);
size_t task_n_sets(const struct task *t);	/* at least 1 */
size_t task_n_cut(const struct task *t);	/* items with a sequence that lost tokens at its front */
size_t task_n_requests(const struct task *t);
const struct task_request *task_requests(const struct task *t);	/* [n_requests], item by item; as long as t */
/* task_item_place - file and line of an item, and its set. */
void task_item_place(const struct task *t, size_t item, const char **file, uint64_t *line, const char **set);
/*
 * task_item_requests - the requests of an item are [*first, *first + count); the right one among them is
 * *gold. Returns count.
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
	const char *set;		/* as long as the task */
	size_t n;			/* items */
	struct task_mean right;		/* share, by the sum of log-probabilities; last_word: all tokens greedy */
	struct task_mean by_token;	/* choices: log-probabilities divided by the tokens of the choice. Else NaN */
	struct task_mean by_byte;	/* choices: divided by its bytes */
	struct task_mean log_p;		/* of gold choice, good sentence, last word; nats an item */
	double chance;			/* share that is right by chance; last_word: 0 */
};

struct task_results {
	bool finite;			/* every log-probability is a number */
	struct task_result all;		/* over the items of all sets; set: NULL */
	struct task_result *sets;	/* [task_n_sets] in the order of their first items; free() it */
	double sets_mean;		/* mean of the sets' right, each set counted once */
	double sets_se_items;		/* its standard error over items: the sets are these, their items a sample */
	double sets_se_sets;		/* its standard error over sets: the sets are a sample; NaN with one */
};

/*
 * task_right - whether an item is right by the sum of log-probabilities. A tie of gold with another is wrong,
 * except that among choices the first of equal ones counts, as numpy.argmax has it.
 */
bool task_right(const struct task *t, size_t item, const struct task_answer *answers);

/* task_judge - answers: [n_requests]. Sums go in the order of items. Returns 0 or ENOMEM. */
int task_judge(const struct task *t, const struct task_answer *answers, struct task_results *out);

#endif
