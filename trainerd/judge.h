/* SPDX-License-Identifier: Apache-2.0 */
/*
 * judge - what each evaluation measures in addition to the held-out loss: the files of
 * trainer.eval_choices.
 *
 * Every rank reads all files and computes every R-th forward pass; answers are summed over ranks, so that all
 * ranks have all of them, and results are sums in the order of the items. An answer depends on its own tokens
 * only (engine/infer/answer), so results have the same bits at any number of ranks and threads, and `saltctl
 * eval` computes the same.
 */
#ifndef SALT_JUDGE_H
#define SALT_JUDGE_H

#include <stddef.h>

#include "base/err/err.h"
#include "data/task/task.h"
#include "engine/kernels/kernels.h"
#include "engine/model/model.h"

struct comm;
struct config;
struct judge;
struct status;

/*
 * judge_check - reads and encodes the files without a model (trainerd -n). cfg: the student's shape.
 * judge_new - also creates what computes. tokenizer: path of the student's tokenizer.json, "": none
 * (ERR_CONFIG, if there are files). model: bound later; it and kernels->share must outlive the judge. *j is
 * NULL if there are no files. Returns 0, or an error as task_open and answer_new.
 */
int judge_check(const struct config *config, const struct model_config *cfg, const char *tokenizer,
    struct err_note *note);
int judge_new(struct judge **j, const struct config *config, const struct model *model,
    const struct kernels_options *kernels, int threads, const char *tokenizer, struct status *status,
    struct err_note *note);
void judge_destroy(struct judge **j);	/* takes NULL */

/*
 * judge_run - collective. It calls alive(arg) from time to time while it computes. Returns 0 or ENOMEM, the
 * same on all ranks.
 */
int judge_run(struct judge *j, struct comm *comm, void (*alive)(void *arg), void *arg);

/* The results of the last judge_run, file by file. judge_name: the file's name without folder and ending. */
size_t judge_n(const struct judge *j);	/* takes NULL: 0 */
const char *judge_name(const struct judge *j, size_t i);
const struct task *judge_task(const struct judge *j, size_t i);
const struct task_results *judge_results(const struct judge *j, size_t i);

#endif
