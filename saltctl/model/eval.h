/* SPDX-License-Identifier: Apache-2.0 */
/* eval - shared by eval.c (losses on a corpus) and eval_task.c (choices, minimal pairs, last words). */
#ifndef SALT_CTL_EVAL_H
#define SALT_CTL_EVAL_H

#include <stdint.h>

#include "engine/kernels/kernels.h"
#include "saltctl/core/ctl.h"

#define EVAL_TASK_OPTIONS \
	{"choices", "PATH", "judge by choices instead: JSON lines with context, choices and gold, or a folder of such files", \
	    false, 0}, \
	{"pairs", "PATH", "judge by minimal pairs instead: JSON lines with sentence_good and sentence_bad, or a folder", false, 0}, \
	{"last-word", "PATH", "judge by last words instead: JSON lines with text, or a folder of such files", false, 0}, \
	{"tokenizer", "PATH", "for these: tokenizer.json or its folder; default: the one in the model's folder", false, 0}, \
	{"control", "SEED", "--choices: also with the contexts permuted among the items, and without contexts", false, 0}, \
	{"items", "FILE", "for these: write what each item got, as JSON lines; an earlier such file is replaced", \
	    false, 0}, \
	{"against", "FILE", "for these: the difference from another model, item by item; what --items wrote of it", false, 0}

/*
 * eval_task - if --choices, --pairs or --last-word was given, judges the model by it, stores the exit code
 * and returns true; else returns false. context 0: the model's position limit.
 */
bool eval_task(
    const struct ctl_args *args, const struct kernels_options *kernels, uint64_t context, int *exit_code);

/*
 * eval_out_check - before the work: whether the file of --items or --by-sequence can be written. EEXIST if another
 * file is there, not one that begins with `ours`, and --replace was not given.
 */
int eval_out_check(const struct ctl_args *args, const char *path, const char *ours, struct err_note *note);

#endif
