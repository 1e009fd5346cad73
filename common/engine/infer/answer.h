/* SPDX-License-Identifier: Apache-2.0 */
/*
 * answer - a model's answers to the requests of a task (data/task): the log-probability of each continuation.
 *
 * An answer is a pure function of model, compute class and request. Requests of similar lengths share a
 * forward pass. Each is padded at its end to a length that depends on its own length only, and
 * kernels_row_tile computes its rows as if it were alone. Attention is causal, so padding changes nothing
 * before it. Each worker has a kernels handle of one thread; parameters are shared.
 */
#ifndef SALT_ANSWER_H
#define SALT_ANSWER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err/err.h"
#include "data/task/task.h"
#include "engine/kernels/kernels.h"
#include "engine/model/model.h"

struct answerer;
struct tokenizer;

/*
 * answer_begin - finds the token for an empty context: the model's bos_token_id, else its eos_token_id
 * (lm-evaluation-harness's prefix_token_id), else the tokenizer's end of a document. Returns 0 or
 * ERR_NOT_FOUND.
 */
int answer_begin(
    const struct model_config *cfg, const struct tokenizer *tok, int32_t *id, struct err_note *note);

/*
 * answer_new - model must be bound; it is not owned and must outlive the answerer, as must kernels->share.
 * kernels->threads is ignored. threads: workers, at least 1. max_tokens: number of inputs of the longest
 * request.
 * Returns 0, ENOMEM, or as kernels_new and model_session_new.
 */
int answer_new(struct answerer **a, const struct model *model, const struct kernels_options *kernels,
    int threads, uint32_t max_tokens, struct err_note *note);
void answer_destroy(struct answerer **a);	/* accepts NULL */

/*
 * answer_run - fills out[i] for the requests of this part: those of every parts-th forward pass, from pass
 * number part on. The others are set to 0, so that the sum over all parts is complete. The model's parameters
 * must not change meanwhile. progress: NULL, or called from time to time by the caller's thread with the
 * number of requests of this part that are done. Returns 0, ENOMEM, ERR_RANGE (a token outside the
 * vocabulary).
 */
int answer_run(struct answerer *a, const struct task_request *requests, size_t n, unsigned part,
    unsigned parts, struct task_answer *out, void (*progress)(void *arg, size_t done), void *arg);

#endif
