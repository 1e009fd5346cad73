/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/judge.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log/log.h"
#include "base/mem/mem.h"
#include "data/tokenizer/tokenizer.h"
#include "engine/infer/answer.h"
#include "fabric/config/config.h"
#include "fabric/status/status.h"
#include "trainerd/comm.h"

struct judged {
	char name[48];
	struct task *task;
	struct task_answer *answers;
	struct task_results results;
	struct status_metric *accuracy;
};

struct judge {
	struct tokenizer *tokenizer;
	struct answerer *answerer;
	struct judged *files;
	size_t n;
	void (*alive)(void *arg);
	void *arg;
};

static void
name_of(const char *path, char *out, size_t size)
{
	const char *slash = strrchr(path, '/'), *base = slash != NULL ? slash + 1 : path,
		   *dot = strrchr(base, '.');

	snprintf(out, size, "%.*s", (int)(dot != NULL && dot > base ? dot - base : (long)strlen(base)), base);
}

static int
open_file(struct judge *j, size_t i, const char *path, const struct task_options *o, struct err_note *note)
{
	struct judged *f = &j->files[i];

	name_of(path, f->name, sizeof(f->name));
	for (size_t k = 0; k < i; k++)
		if (strcmp(j->files[k].name, f->name) == 0)
			return err_expect(note, ERR_CONFIG, "trainer.eval_choices",
			    "file names that differ without folder and extension", "%s twice", f->name);
	return task_open(&f->task, path, o, note);
}

static int
open_files(struct judge *j, const struct config *config, const struct model_config *cfg,
    const char *tokenizer, struct err_note *note)
{
	struct task_options o = {.max_tokens = config->corpus.context};
	int rc;

	if (tokenizer[0] == '\0')
		return err_expect(note, ERR_CONFIG, "trainer.eval_choices",
		    "a tokenizer.json beside trainer.model", "none");
	if ((rc = tokenizer_load(&j->tokenizer, tokenizer, note)) != 0 ||
	    (rc = answer_begin(cfg, j->tokenizer, &o.begin, note)) != 0)
		return rc;
	if (tokenizer_vocab_size(j->tokenizer) > cfg->vocab_size)
		return err_expect(note, ERR_MISMATCH, "%s", "at most the model's %lld ids", "%d", tokenizer,
		    (long long)cfg->vocab_size, (int)tokenizer_vocab_size(j->tokenizer));
	o.tokenizer = j->tokenizer;
	if ((j->files = mem_alloc(config->trainer.eval_choices.n, sizeof(*j->files))) == NULL)
		return ENOMEM;
	for (; j->n < config->trainer.eval_choices.n; j->n++)
		if ((rc = open_file(j, j->n, config->trainer.eval_choices.item[j->n], &o, note)) != 0)
			return rc;
	return 0;
}

int
judge_check(
    const struct config *config, const struct model_config *cfg, const char *tokenizer, struct err_note *note)
{
	struct judge *j;
	int rc;

	if (config->trainer.eval_choices.n == 0)
		return 0;
	if ((j = mem_alloc(1, sizeof(*j))) == NULL)
		return ENOMEM;
	rc = open_files(j, config, cfg, tokenizer, note);
	judge_destroy(&j);
	return rc;
}

/* Registers the gauge eval_NAME_accuracy, with NAME in the letters that metrics may have. */
static struct status_metric *
gauge(struct status *status, const char *name)
{
	char metric[STATUS_TEXT_MAX];

	snprintf(metric, sizeof(metric), "eval_%s_accuracy", name);
	for (char *p = metric; *p != '\0'; p++)
		*p = *p >= 'A' && *p <= 'Z'				 ? (char)(*p - 'A' + 'a') :
		    (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') ? *p :
									   '_';
	return status_register(status, STATUS_GAUGE, metric, "",
	    "share of the items of a trainer.eval_choices file that are answered correctly, 0 to 1");
}

int
judge_new(struct judge **out, const struct config *config, const struct model *model,
    const struct kernels_options *kernels, int threads, const char *tokenizer, struct status *status,
    struct err_note *note)
{
	struct judge *j;
	int rc;

	*out = NULL;
	if (config->trainer.eval_choices.n == 0)
		return 0;
	if ((j = mem_alloc(1, sizeof(*j))) == NULL)
		return ENOMEM;
	if ((rc = open_files(j, config, &model->config, tokenizer, note)) == 0)
		rc = answer_new(&j->answerer, model, kernels, threads, config->corpus.context, note);
	for (size_t i = 0; i < j->n && rc == 0; i++) {
		struct judged *f = &j->files[i];

		if ((f->answers = mem_alloc(task_n_requests(f->task), sizeof(*f->answers))) == NULL)
			rc = ENOMEM;
		f->accuracy = gauge(status, f->name);
		if (task_n_cut(f->task) > 0)
			log_warn("eval.cut",
			    "file=%s items=%zu hint=\"items longer than corpus.context: the beginning of "
			    "their contexts is cut off\"",
			    f->name, task_n_cut(f->task));
	}
	if (rc != 0)
		judge_destroy(&j);
	*out = j;
	return rc;
}

void
judge_destroy(struct judge **judge)
{
	struct judge *j = *judge;

	if (j == NULL)
		return;
	for (size_t i = 0; j->files != NULL && i < j->n; i++) {
		task_close(&j->files[i].task);
		free(j->files[i].answers);
		free(j->files[i].results.sets);
	}
	answer_destroy(&j->answerer);
	tokenizer_destroy(&j->tokenizer);
	free(j->files);
	free(j);
	*judge = NULL;
}

static void
progress(void *arg, size_t done)
{
	struct judge *j = arg;

	(void)done;
	j->alive(j->arg);
}

static int
run_file(struct judge *j, struct judged *f, struct comm *comm)
{
	size_t n = task_n_requests(f->task);
	int64_t failed;
	int rc = answer_run(j->answerer, task_requests(f->task), n, (unsigned)comm_rank(comm),
	    (unsigned)comm_size(comm), f->answers, progress, j);

	failed = rc != 0;
	comm_max(comm, &failed, 1);
	if (failed != 0)
		return ENOMEM;		/* no other error: the tokens are in range, because the tokenizer
					   fits */
	comm_sum(comm, &f->answers[0].log_p, n * (sizeof(*f->answers) / sizeof(double)));
	free(f->results.sets);
	f->results.sets = NULL;
	if ((rc = task_judge(f->task, f->answers, &f->results)) == 0)
		status_set(f->accuracy, f->results.all.right.mean);
	failed = rc;
	comm_max(comm, &failed, 1);
	return (int)failed;
}

int
judge_run(struct judge *j, struct comm *comm, void (*alive)(void *arg), void *arg)
{
	int rc = 0;

	j->alive = alive;
	j->arg = arg;
	for (size_t i = 0; i < j->n && rc == 0; i++)
		rc = run_file(j, &j->files[i], comm);
	return rc;
}

size_t
judge_n(const struct judge *j)
{
	return j != NULL ? j->n : 0;
}

const char *
judge_name(const struct judge *j, size_t i)
{
	return j->files[i].name;
}

const struct task *
judge_task(const struct judge *j, size_t i)
{
	return j->files[i].task;
}

const struct task_results *
judge_results(const struct judge *j, size_t i)
{
	return &j->files[i].results;
}
