/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run - the state of a training run on one rank. run_new opens the files and checks them against each other, creates
 * the model, loads the newest checkpoint and starts the feed.
 */
#ifndef SALT_RUN_H
#define SALT_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/optim/optim.h"
#include "trainerd/feed.h"
#include "trainerd/judge.h"
#include "trainerd/lock.h"
#include "trainerd/loop.h"
#include "trainerd/metrics.h"
#include "data/phase/phase.h"
#include "trainerd/save.h"
#include "trainerd/state.h"
#include "trainerd/step.h"
#include "trainerd/tensorboard.h"
#include "trainerd/watchdog.h"

struct status_metric;

struct run {
	const struct config *config;
	struct comm *comm;
	struct status *status;
	int rank;
	struct kernels *kernels;
	struct corpus *train, *heldout;		/* heldout: NULL without one */
	struct corpus_weights weights;		/* of train */
	uint64_t n_windows, n_eval;
	struct step *step;
	struct judge *judge;			/* NULL: no trainer.eval_choices */
	struct feed *feed;
	struct lock *lock;			/* of run.dir; rank 0 */
	struct metrics *metrics;		/* rank 0 */
	struct tensorboard *tensorboard;	/* rank 0; NULL: switched off, or a write failed */
	struct watchdog *watchdog;
	struct save_options save;
	char checkpoints[4200], tokenizer[4200];
	struct hash128 tokenizer_id;		/* of save.tokenizer, if there is one */
	struct optim_config optim;
	struct phase phase;
	struct state state;
	uint64_t first_step;			/* of this start */
	uint64_t saved_step, evaluated_step;	/* UINT64_MAX: none */
	bool switched;				/* the feed was asked to send RELEASE */
	unsigned skipped_in_row;
	struct step_eval last_eval;
	double waited_s;			/* wait for the rows of this step */
	int64_t logged_ms;			/* when a step was last logged */
	struct status_metric *m_tokens, *m_loss, *m_norm, *m_lr, *m_weight, *m_wait, *m_heldout, *m_switch, *m_skipped, *m_late, *m_quarantined, *m_direct;
};

/* run_new - collective; on failure *run is NULL and the note is filled on all ranks. run_destroy takes NULL. */
int run_new(struct run **run, const struct loop_options *o, struct err_note *note);
void run_destroy(struct run **run);

/*
 * run_check - opens and checks the files of a run as run_new does, without MPI (trainerd -n). 0, or an error
 * with a note.
 */
int run_check(const struct config *config, struct err_note *note);

/*
 * run_check_directory - call it before a checkpoint: checks that run.dir is still this run's. If it was
 * removed, *again is set and rank 0 starts its files there again; ERR_AGAIN if another trainer has it now.
 * Collective.
 */
int run_check_directory(struct run *r, bool *again, struct err_note *note);

double run_checkpoint_s(const struct run *r);	/* limit for reading or writing a checkpoint on a slow disk */

void run_evaluates(void *arg);			/* tells the watchdog that an evaluation makes progress; arg
						   is the run */

/* run_heldout_window - step_evaluate's get; arg is the run. */
int run_heldout_window(void *arg, uint64_t i, int32_t *out);

/* run_oldest_checkpoint - step of the oldest complete checkpoint; 0 if there is none or this is not rank 0. */
uint64_t run_oldest_checkpoint(const struct run *r);

#endif
