/* SPDX-License-Identifier: Apache-2.0 */
#include "saltctl/model/eval.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock/clock.h"
#include "base/file/file.h"
#include "data/task/task.h"
#include "data/tokenizer/tokenizer.h"
#include "engine/infer/answer.h"
#include "saltctl/core/output.h"
#include "saltctl/model/lm.h"

/* A task file judged with one kind of contexts. */
struct judged {
	bool done;
	struct task *task;
	struct task_answer *answers;
	struct task_results results;
};

struct judging {
	const struct ctl_args *args;
	const char *path;
	struct lm lm;
	struct tokenizer *tok;
	struct answerer *answerer;
	struct task_options options;
	struct judged own, shuffled, none;	/* with the items' own, permuted and no contexts */
	struct task_mean against;		/* --against: difference of the accuracies */
	struct ctl_meter meter;
	struct err_note note;
};

static void
show_progress(void *arg, size_t done)
{
	ctl_meter_update(arg, (double)done);
}

static int
judge(struct judging *j, enum task_contexts contexts, struct judged *out)
{
	size_t n;
	int rc;

	j->options.contexts = contexts;
	if ((rc = task_open(&out->task, j->path, &j->options, &j->note)) != 0)
		return rc;
	n = task_n_requests(out->task);
	out->answers = ctl_alloc(n, sizeof(*out->answers));
	ctl_meter_start(&j->meter, "eval", "texts", (double)n);
	rc = answer_run(
	    j->answerer, task_requests(out->task), n, 0, 1, out->answers, show_progress, &j->meter);
	ctl_meter_end(&j->meter);
	if (rc != 0)
		return err_note_set(&j->note, rc, "%s", j->path);
	if ((rc = task_judge(out->task, out->answers, &out->results)) == 0 && !out->results.finite)
		rc = err_note_set(&j->note, ERR_NONFINITE, "log-probabilities of %s", j->path);
	out->done = rc == 0;
	return rc;
}

static void
judged_free(struct judged *d)
{
	task_close(&d->task);
	free(d->answers);
	free(d->results.sets);
}

/* ---- item by item against another model (--against) ---- */

/*
 * Reads a line that --items wrote. It must describe item i: the same line number, gold answer and number of
 * texts. *right: whether the item was answered correctly. other: receives the first set name that differs from
 * this file's, which is no error, because the same items may be in a file of another name.
 */
static int
read_item(const struct task *task, size_t i, const char *text, size_t len, bool *right, char other[64])
{
	const char *file, *set, *name;
	struct json *o = NULL;
	int64_t number = -1, index = -1;
	size_t first, gold, n = task_item_requests(task, i, &first, &gold);
	uint64_t line;
	int rc = json_parse(text, len, "items", &o, NULL);

	task_item_place(task, i, &file, &line, &set);
	if (rc == 0 &&
	    (!json_flag(json_get(o, "right"), right) || !json_int(json_get(o, "line"), &number) ||
		number != (int64_t)line || !json_int(json_get(o, "gold"), &index) || index != (int64_t)gold ||
		json_count(json_get(o, "log_probability")) != n))
		rc = ERR_FORMAT;
	if (rc == 0 && other[0] == '\0' && (name = ctl_text_of(o, "set", NULL)) != NULL &&
	    strcmp(name, set) != 0)
		snprintf(other, 64, "%s", name);
	json_close(&o);
	return rc;
}

/* Mean difference over the items, this model minus the other, and its standard error. */
static int
compare(struct judging *j, const char *path)
{
	const struct task *task = j->own.task;
	size_t n = task_n_items(task), len, i = 0;
	double *difference = ctl_alloc(n, sizeof(*difference)), squares = 0;
	char *data = NULL, other[64] = "";
	int rc = file_read(path, 0, &data, &len, &j->note);

	for (char *at = data, *end; rc == 0 && at < data + len; at = end + 1, i++) {
		bool right;

		if ((end = memchr(at, '\n', (size_t)(data + len - at))) == NULL)
			end = data + len;
		if (i == n || read_item(task, i, at, (size_t)(end - at), &right, other) != 0)
			rc = err_expect_at(&j->note, ERR_FORMAT, "%s", "line %zu",
			    "what --items wrote of the same %zu items", "", path, i + 1, n);
		else
			difference[i] = (double)task_right(task, i, j->own.answers) - right;
	}
	if (rc == 0 && i != n)
		rc = err_expect(&j->note, ERR_FORMAT, "%s", "what --items wrote of the same %zu items",
		    "%zu lines", path, n, i);
	if (rc == 0) {
		j->against = (struct task_mean){0, NAN};
		for (i = 0; i < n; i++)
			j->against.mean += difference[i] / (double)n;
		for (i = 0; i < n; i++)
			squares += (difference[i] - j->against.mean) * (difference[i] - j->against.mean);
		if (n > 1)
			j->against.se = sqrt(squares / (double)(n - 1) / (double)n);
	}
	if (rc == 0 && other[0] != '\0')
		fprintf(stderr, "saltctl eval: warning: %s has items of the set \"%s\", which %s does not "
		    "name so: the difference is that of the models only if the items are the same\n",
		    path, ctl_printable(other), j->path);
	free(data);
	free(difference);
	return rc;
}

/* ---- output ---- */

static const char *
percent(struct task_mean m, char buf[64])
{
	int n = snprintf(buf, 64, "%.2f %%", 100 * m.mean);

	if (isfinite(m.se))
		snprintf(buf + n, 64 - (size_t)n, " +- %.2f", 100 * m.se);
	return buf;
}

static void
print_sets(const struct judged *d)
{
	struct ctl_table *t = ctl_table_new("set\t>items\t>accuracy\t>+-\t>log-probability");

	for (size_t i = 0; i < task_n_sets(d->task); i++) {
		const struct task_result *r = &d->results.sets[i];

		ctl_table_add(t, "%s\t%zu\t%.2f %%\t%.2f\t%.3f", r->set, r->n, 100 * r->right.mean,
		    100 * r->right.se, r->log_p.mean);
	}
	ctl_table_end(&t);
	printf("\n");
}

static void
print_text(const struct judging *j, double seconds)
{
	static const char *const whose[] = {[TASK_CHOICES] = "the gold choice",
	    [TASK_PAIRS] = "the good sentence",
	    [TASK_LAST_WORD] = "the last word"};
	const struct task *task = j->own.task;
	const struct task_results *r = &j->own.results;
	enum task_kind kind = task_kind(task);
	char buf[64];

	if (task_n_sets(task) > 1) {
		print_sets(&j->own);
		ctl_line("mean over sets", "%.2f %% +- %.2f over items, +- %.2f over sets (%zu sets)",
		    100 * r->sets_mean, 100 * r->sets_se_items, 100 * r->sets_se_sets, task_n_sets(task));
	}
	ctl_line("accuracy", "%s%s", percent(r->all.right, buf),
	    kind == TASK_LAST_WORD   ? " (all tokens of the word greedy)" :
		kind == TASK_CHOICES ? " by the sum of log-probabilities" :
				       "");
	if (kind == TASK_CHOICES) {
		ctl_line("  per token", "%s", percent(r->all.by_token, buf));
		ctl_line("  per byte", "%s", percent(r->all.by_byte, buf));
	}
	if (ctl_has(j->args, "against"))
		ctl_line("  difference", "%+.2f %% +- %.2f, item by item against %s", 100 * j->against.mean,
		    100 * j->against.se, ctl_get(j->args, "against"));
	if (j->shuffled.done) {
		ctl_line("contexts permuted", "%s (seed %" PRIu32 ")",
		    percent(j->shuffled.results.all.right, buf), j->options.seed);
		ctl_line("choices alone", "%s", percent(j->none.results.all.right, buf));
	}
	if (kind != TASK_LAST_WORD)
		ctl_line("chance", "%.2f %%", 100 * r->all.chance);
	ctl_line(
	    "log-probability", "%.4f +- %.4f nats, of %s", r->all.log_p.mean, r->all.log_p.se, whose[kind]);
	if (kind == TASK_LAST_WORD)
		ctl_line("perplexity", "%.3f a word", exp(-r->all.log_p.mean));
	ctl_line("over", "%zu items; standard errors are over items", r->all.n);
	if (task_n_cut(task) > 0)
		ctl_line("cut",
		    "%zu items longer than %" PRIu32 " tokens lost the beginning of their context",
		    task_n_cut(task), j->options.max_tokens);
	ctl_line("took", "%s", ctl_span(seconds, buf));
}

static struct json *
result_json(const struct task_result *r, bool choices)
{
	struct json *o = ctl_record(CTL("items", r->n), CTL("accuracy", r->right.mean),
	    CTL("accuracy_se", r->right.se), CTL("log_probability", r->log_p.mean),
	    CTL("log_probability_se", r->log_p.se), CTL("chance", r->chance));

	if (choices)
		ctl_put_all(o, CTL("accuracy_by_token", r->by_token.mean),
		    CTL("accuracy_by_token_se", r->by_token.se), CTL("accuracy_by_byte", r->by_byte.mean),
		    CTL("accuracy_by_byte_se", r->by_byte.se));
	return o;
}

static int
print_json(const struct judging *j, double seconds)
{
	const struct task *task = j->own.task;
	const struct task_results *r = &j->own.results;
	bool choices = task_kind(task) == TASK_CHOICES;
	struct json *o = result_json(&r->all, choices), *sets = ctl_array();

	for (size_t i = 0; i < task_n_sets(task); i++) {
		struct json *set = result_json(&r->sets[i], choices);

		ctl_put(set, "set", r->sets[i].set);
		ctl_push(sets, set);
	}
	ctl_put_all(o, CTL("model", ctl_get(j->args, "model")), CTL("file", j->path),
	    CTL("kind", task_kind_name(task_kind(task))), CTL("context", j->options.max_tokens),
	    CTL("cut", task_n_cut(task)), CTL("sets", sets), CTL("sets_mean", r->sets_mean),
	    CTL("sets_mean_se_over_items", r->sets_se_items), CTL("sets_mean_se_over_sets", r->sets_se_sets),
	    CTL("seconds", seconds));
	if (ctl_has(j->args, "against"))
		ctl_put_all(o, CTL("against", ctl_get(j->args, "against")), CTL("difference", j->against.mean),
		    CTL("difference_se", j->against.se));
	if (j->shuffled.done)
		ctl_put_all(o, CTL("control_seed", j->options.seed),
		    CTL("contexts_permuted", result_json(&j->shuffled.results.all, true)),
		    CTL("choices_alone", result_json(&j->none.results.all, true)));
	return ctl_print_json(o);
}

/* Writes the file of --items, one line per item. */
static int
write_items(struct judging *j)
{
	const struct task *task = j->own.task;
	struct file_replace file;
	int rc;

	if (!ctl_has(j->args, "items"))
		return 0;
	if ((rc = file_replace_begin(&file, ctl_get(j->args, "items"), &j->note)) != 0)
		return rc;
	for (size_t i = 0; i < task_n_items(task); i++) {
		size_t first, gold, n = task_item_requests(task, i, &first, &gold);
		struct json *log_p = ctl_array(), *greedy = ctl_array(), *tokens = ctl_array(), *line;
		const char *name, *set;
		uint64_t number;
		char *text;

		for (size_t c = 0; c < n; c++) {
			const struct task_request *r = &task_requests(task)[first + c];

			ctl_push(log_p, j->own.answers[first + c].log_p);
			ctl_push(greedy, j->own.answers[first + c].greedy > 0);
			ctl_push(tokens, r->n - r->first);
		}
		task_item_place(task, i, &name, &number, &set);
		line = ctl_record(CTL("file", name), CTL("line", number), CTL("set", set),
		    CTL("right", task_right(task, i, j->own.answers)), CTL("gold", gold),
		    CTL("log_probability", log_p), CTL("greedy", greedy), CTL("tokens", tokens));
		text = json_print(line, false);
		fprintf(file.f, "%s\n", text != NULL ? text : "");
		free(text);
		json_close(&line);
	}
	return file_replace_end(&file, false, &j->note);
}

/* ---- the verb ---- */

static int
open_all(struct judging *j, const struct kernels_options *kernels, uint64_t context)
{
	const char *model = ctl_get(j->args, "model"), *tokenizer = ctl_get(j->args, "tokenizer");
	struct kernels_options ko;
	int64_t longest, vocab;
	int exit_code, rc;

	if ((exit_code = ctl_open_tokenizer(j->args, tokenizer != NULL ? tokenizer : model, &j->tok)) != 0)
		return exit_code;
	if ((rc = lm_open(&j->lm, model, kernels, 1, 1, &j->note)) != 0)
		return ctl_fail(j->args, rc, &j->note);
	longest = j->lm.model->config.context;
	vocab = j->lm.model->config.vocab_size;
	if (tokenizer_vocab_size(j->tok) > vocab)
		rc = err_expect(&j->note, ERR_MISMATCH, "vocabulary",
		    "a tokenizer of at most %" PRId64 " ids, the model's", "%" PRId32, vocab,
		    tokenizer_vocab_size(j->tok));
	else if ((int64_t)context > longest)
		rc = err_expect(&j->note, ERR_RANGE, "context", "at most the model's, %" PRId64, "%" PRIu64,
		    longest, context);
	else
		rc = answer_begin(&j->lm.model->config, j->tok, &j->options.begin, &j->note);
	j->options.tokenizer = j->tok;
	j->options.max_tokens = context > 0 ? (uint32_t)context : (uint32_t)longest;
	ko = *kernels;
	ko.share = j->lm.kernels;
	ko.dtype = kernels_dtype(j->lm.kernels) == DTYPE_BF16 ? KERNELS_DTYPE_BF16 : KERNELS_DTYPE_FP32;
	if (rc == 0)
		rc = answer_new(&j->answerer, j->lm.model, &ko, kernels_threads(j->lm.kernels),
		    j->options.max_tokens, &j->note);
	return rc != 0 ? ctl_fail(j->args, rc, &j->note) : 0;
}

static int
judge_all(struct judging *j)
{
	const char *against = ctl_get(j->args, "against");
	int rc = 0;

	/* before the work, which would be lost if a file cannot be read or written */
	if (against != NULL && access(against, R_OK) != 0)
		return ctl_fail(j->args, err_note_set(&j->note, errno, "%s", against), &j->note);
	if (ctl_has(j->args, "items") &&
	    (rc = eval_out_check(j->args, ctl_get(j->args, "items"), "{\"file\":\"", &j->note)) != 0)
		return ctl_fail(j->args, rc, &j->note);
	rc = judge(j, TASK_CONTEXTS_OWN, &j->own);
	if (rc == 0 && ctl_has(j->args, "control") &&
	    (rc = judge(j, TASK_CONTEXTS_SHUFFLED, &j->shuffled)) == 0)
		rc = judge(j, TASK_CONTEXTS_NONE, &j->none);
	if (rc == 0 && against != NULL)
		rc = compare(j, against);
	return rc != 0 ? ctl_fail(j->args, rc, &j->note) : 0;
}

/* Refuses options that would not be used. option: that of the kind of items; NULL: losses on a corpus. */
static int
check_options(const struct ctl_args *args, const char *option)
{
	static const char *const of_corpus[] = {"corpus", "by-sequence", "windows", "group", "lanes", "isolate-documents", "dtype"};
	static const char *const of_items[] = {"tokenizer", "items", "against"};
	const char *out = option != NULL ? "items" : "by-sequence";

	if (ctl_has(args, "control") && (option == NULL || strcmp(option, "choices") != 0))
		return ctl_usage(args, "--control goes with --choices");
	for (size_t i = 0; option == NULL && i < sizeof(of_items) / sizeof(of_items[0]); i++)
		if (ctl_has(args, of_items[i]))
			return ctl_usage(args, "--%s goes with --choices, --pairs or --last-word", of_items[i]);
	for (size_t i = 0; option != NULL && i < sizeof(of_corpus) / sizeof(of_corpus[0]); i++)
		if (ctl_has(args, of_corpus[i]))
			return ctl_usage(args, "--%s is for a corpus, not for --%s, which takes all items of its file", of_corpus[i], option);
	return ctl_has(args, "replace") && !ctl_has(args, out) ? ctl_usage(args, "--replace goes with --%s", out) : 0;
}

bool
eval_task(
    const struct ctl_args *args, const struct kernels_options *kernels, uint64_t context, int *exit_code)
{
	static const struct {
		const char *option;
		enum task_kind kind;
	} kinds[] = {{"choices", TASK_CHOICES}, {"pairs", TASK_PAIRS}, {"last-word", TASK_LAST_WORD}};
	struct judging j = {.args = args};
	const char *option = NULL;
	double start = clock_now_s();
	uint64_t seed = 0;
	size_t n = 0;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (ctl_has(args, kinds[i].option)) {
			option = kinds[i].option;
			j.path = ctl_get(args, option);
			j.options.kind = kinds[i].kind;
			n++;
		}
	*exit_code = n > 1 ? ctl_usage(args, "one of --choices, --pairs and --last-word at a time") : check_options(args, option);
	if (*exit_code != 0 || n == 0)
		return *exit_code != 0;
	if ((*exit_code = ctl_get_u64(args, "control", 0, UINT32_MAX, &seed)) != 0)
		return true;
	j.options.seed = (uint32_t)seed;
	if ((*exit_code = open_all(&j, kernels, context)) == 0 && (*exit_code = judge_all(&j)) == 0) {
		int rc = write_items(&j);

		if (ctl_has(args, "json"))	/* the result is shown in any case */
			*exit_code = print_json(&j, clock_now_s() - start);
		else
			print_text(&j, clock_now_s() - start);
		if (rc != 0)
			*exit_code = ctl_fail(args, rc, &j.note);
	}
	judged_free(&j.own);
	judged_free(&j.shuffled);
	judged_free(&j.none);
	answer_destroy(&j.answerer);
	lm_close(&j.lm);
	tokenizer_destroy(&j.tok);
	return true;
}
