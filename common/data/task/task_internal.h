/* SPDX-License-Identifier: Apache-2.0 */
/*
 * task_internal - shared by the files of task: read.c (JSON lines to texts), encode.c (texts to tokens),
 * results.c (answers to results).
 */
#ifndef SALT_TASK_INTERNAL_H
#define SALT_TASK_INTERNAL_H

#include "base/mem/mem.h"
#include "data/task/task.h"

/*
 * Every kind consists of a context and continuations (choices); pairs have an empty context and the good
 * sentence first. Texts are in the arena.
 */
struct task__item {
	const char *context;
	const char **choices;
	size_t n_choices, gold;
	size_t first_request;
	uint32_t file, set;
	uint64_t line;
};

struct task {
	enum task_kind kind;
	struct mem_arena *arena;
	const char **files, **sets;
	size_t n_files, cap_files, n_sets, cap_sets;
	struct task__item *items;
	size_t n_items, cap_items;
	struct task_request *requests;
	size_t n_requests;
	int32_t *tokens;
	size_t n_cut;
};

int task__read(struct task *t, const char *path, struct err_note *note);

#endif
