/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/loop.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "fabric/bus/bus.h"
#include "engine/checkpoint/checkpoint.h"
#include "fabric/config/config.h"
#include "data/corpus/corpus.h"
#include "base/err/crash.h"
#include "base/file/file.h"
#include "base/mem/mem.h"
#include "base/json/json.h"
#include "engine/kernels/kernels.h"
#include "base/log/log.h"
#include "fabric/daemon/daemon.h"
#include "engine/optim/optim.h"
#include "fabric/status/status.h"
#include "trainerd/agree.h"
#include "trainerd/feed.h"
#include "trainerd/metrics.h"
#include "trainerd/run.h"
#include "trainerd/save.h"
#include "trainerd/watchdog.h"
#include "fabric/wire/tb_event.h"

#define SKIPPED_MAX 10			/* updates skipped in a row before the run ends */
#define VOTE_MS 5			/* between two votes while rows are missing */
#define STOPPED_MS 5000			/* if a vote is so late, a process did not run meanwhile */
#define LOG_EVERY_MS 2000		/* at most one log line about a step in this time */

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Writes scalars for TensorBoard. After a failed write no more are written, but the run continues. Rank 0. */
static void
loop_scalars(struct run *r, const struct tb_scalar *scalars, size_t n)
{
	int rc;

	if (r->tensorboard == NULL || (rc = tensorboard_write(r->tensorboard, r->state.step, scalars, n)) == 0)
		return;
	log_warn("tensorboard.write", "step=%" PRIu64 " why=\"%s\" hint=\"nothing more is written to run.dir/tb until the next start\"", r->state.step, err_str(rc));
	tensorboard_close(&r->tensorboard);
}

/* Writes a line of metrics.jsonl for the steps done so far. Rank 0. */
static int
loop_line(struct run *r, const char *kind, const struct metrics_field *fields, size_t n, struct err_note *note)
{
	int rc = metrics_write(r->metrics, kind, r->state.step, fields, n);

	return rc == 0 ? 0 : err_note_set(note, rc, "metrics.jsonl");
}

/* The results of an evaluation for a file of trainer.eval_choices, as JSON. */
static struct json *
loop_judged(const struct task *task, const struct task_results *results)
{
	const struct task_result *r = &results->all;
	struct json *o = json_build("{s:s, s:I}", "kind", task_kind_name(task_kind(task)), "items", (long long)r->n);

	json_put(o, "accuracy", json_new_num(r->right.mean));
	json_put(o, "accuracy_se", json_new_num(r->right.se));
	json_put(o, "log_probability", json_new_num(r->log_p.mean));
	json_put(o, "log_probability_se", json_new_num(r->log_p.se));
	if (task_kind(task) == TASK_CHOICES) {
		json_put(o, "accuracy_by_token", json_new_num(r->by_token.mean));
		json_put(o, "accuracy_by_byte", json_new_num(r->by_byte.mean));
	}
	if (task_n_sets(task) > 1) {
		json_put(o, "sets", json_new_int((int64_t)task_n_sets(task)));
		json_put(o, "sets_mean", json_new_num(results->sets_mean));
		json_put(o, "sets_mean_se", json_new_num(results->sets_se_items));
	}
	return o;
}

/*
 * Writes the results for trainer.eval_choices to TensorBoard and the log; *tasks: the results by name. Rank
 * 0.
 */
static void
loop_tasks(struct run *r, struct json **tasks)
{
	struct tb_scalar scalars[TB_SCALARS_MAX];
	char tags[TB_SCALARS_MAX][64];
	size_t n = judge_n(r->judge);

	*tasks = json_new_object();
	for (size_t i = 0; i < n; i++) {
		const struct task_results *results = judge_results(r->judge, i);
		const struct task_mean *right = &results->all.right;

		json_put(*tasks, judge_name(r->judge, i), loop_judged(judge_task(r->judge, i), results));
		log_info("eval.choices", "step=%" PRIu64 " file=%s items=%zu accuracy=%.4f se=%.4f", r->state.step, judge_name(r->judge, i),
		    results->all.n, right->mean, right->se);
		snprintf(tags[i], sizeof(tags[i]), "choices/%s", judge_name(r->judge, i));
		scalars[i] = (struct tb_scalar){tags[i], (float)right->mean};
	}
	loop_scalars(r, scalars, n);
}

/*
 * Writes the loss of each held-out sequence after the last step, for `saltctl report`, to
 * run.dir/sequence_losses.jsonl. Rank 0.
 */
static int
loop_sequence_losses(const struct run *r, const double *nats, struct err_note *note)
{
	struct file_replace file;
	char path[4200];
	int rc;

	snprintf(path, sizeof(path), "%s/sequence_losses.jsonl", r->config->run.dir);
	if ((rc = file_replace_begin(&file, path, note)) != 0)
		return rc;
	for (uint64_t i = 0; i < r->n_eval; i++)
		fprintf(file.f, "{\"sequence\": %" PRIu64 ", \"loss\": %.9g}\n", i, nats[i]);
	return file_replace_end(&file, false, note);
}

/* Evaluates held-out loss and trainer.eval_choices, and records the results. Collective. */
static int
loop_evaluate(struct run *r, struct err_note *note)
{
	const struct corpus_info *info;
	int64_t start = clock_now_ms();
	double *nats = NULL;
	struct step_eval e;
	int rc;

	if (r->heldout == NULL || r->n_eval == 0)
		return 0;
	if (r->state.step >= r->config->trainer.steps &&
	    (rc = agree(r->comm, (nats = mem_alloc(r->n_eval, sizeof(*nats))) == NULL ? ENOMEM : 0, note)) != 0)
		return rc;
	watchdog_progress(r->watchdog, "evaluation");
	status_state(r->status, "evaluating", start);
	daemon_notify_status("step %" PRIu64 ": evaluating", r->state.step);
	if ((rc = step_evaluate(r->step, r->n_eval, run_heldout_window, r, nats, &e)) != 0)
		err_note_set(note, rc, "%s", r->config->corpus.heldout);
	else if (r->judge != NULL && (rc = judge_run(r->judge, r->comm, run_evaluates, r)) != 0)
		err_note_set(note, rc, "trainer.eval_choices");
	if (rc == 0 && r->rank == 0 && nats != NULL)
		rc = loop_sequence_losses(r, nats, note);
	free(nats);
	if ((rc = agree(r->comm, rc, note)) != 0)
		return rc;
	r->evaluated_step = r->state.step;
	r->last_eval = e;
	info = corpus_info(r->heldout);
	status_set(r->m_heldout, e.loss);
	rc = 0;
	if (r->rank == 0) {
		double bits_per_byte = info->n_bytes > 0 ? e.loss / log(2.0) * (double)info->n_tokens / (double)info->n_bytes : NAN;
		const struct tb_scalar scalars[] = {{"heldout/loss", (float)e.loss}, {"heldout/accuracy", (float)e.accuracy},
		    {"heldout/bits_per_byte", (float)bits_per_byte}};
		struct metrics_field fields[] = {{"loss", json_new_num(e.loss)}, {"accuracy", json_new_num(e.accuracy)},
		    {"bits_per_byte", json_new_num(bits_per_byte)}, {"tokens", json_new_int(e.tokens)},
		    {"teacher_loss", json_new_num(feed_view(r->feed).teacher_nats)},
		    {"seconds", json_new_num((double)(clock_now_ms() - start) * 1e-3)}, {"choices", NULL}};

		loop_scalars(r, scalars, info->n_bytes > 0 ? 3 : 2);
		if (r->judge != NULL)
			loop_tasks(r, &fields[COUNT(fields) - 1].value);
		rc = loop_line(r, "eval", fields, COUNT(fields) - (r->judge == NULL), note);
		log_info("eval", "step=%" PRIu64 " log_perplexity=%.4f accuracy=%.4f ms=%" PRId64, r->state.step, e.loss, e.accuracy,
		    clock_now_ms() - start);
	}
	return agree(r->comm, rc, note);	/* all ranks stop if rank 0 failed to write */
}

/* Writes a checkpoint of the steps done so far. Collective. */
static int
loop_save(struct run *r, struct err_note *note)
{
	const struct feed_view feed = feed_view(r->feed);
	int64_t start = clock_now_ms();
	bool again;
	int rc;

	watchdog_long(r->watchdog, "checkpoint", run_checkpoint_s(r));
	status_state(r->status, "saving", start);
	daemon_notify_status("step %" PRIu64 ": writing a checkpoint", r->state.step);
	if (feed.has_sets) {
		r->state.has_sets = true;
		r->state.sets = feed.sets;
	}
	r->state.teacher_nats = feed.teacher_nats;
	r->state.released = feed.released;
	r->state.switch_step = r->phase.switch_step;
	r->state.evaluated_step = r->evaluated_step;
	if ((rc = run_check_directory(r, &again, note)) != 0)
		return rc;
	if (r->rank == 0 && r->metrics != NULL && metrics_sync(r->metrics) != 0)
		log_warn("metrics.sync", "errno=%d", errno);
	rc = save_write(r->step, r->comm, &r->save, &r->state, note);
	if (rc == ENOENT) {		/* was run.dir moved away while the checkpoint was written? */
		struct err_note other = {.name = ""};
		int moved = run_check_directory(r, &again, &other);

		if (moved != 0)
			*note = other;
		rc = moved != 0 ? moved : again ? save_write(r->step, r->comm, &r->save, &r->state, note) : rc;
	}
	if (rc != 0)
		return rc;
	r->saved_step = r->state.step;
	if (r->rank == 0)
		log_info("checkpoint", "step=%" PRIu64 " ms=%" PRId64, r->state.step, clock_now_ms() - start);
	feed_checkpointed(r->feed, run_oldest_checkpoint(r));
	return 0;
}

/* Number of rows of phase one that phase two trains on again. *exact: false for an estimate. */
static uint64_t
loop_seen_again(const struct run *r, bool *exact)
{
	uint64_t batch = r->config->trainer.batch, first = r->phase.switch_step * batch, last = r->config->trainer.steps * batch;
	uint64_t block, kept, blocks;

	config_block(r->config, &block, &kept);
	blocks = (first + kept - 1) / kept;
	*exact = r->config->selector.mode == CONFIG_MODE_NONE;
	if (*exact)			/* phase one reads in order: rows repeat only in later epochs */
		return last > r->n_windows ? (last - r->n_windows < first ? last - r->n_windows : first) : 0;
	/*
	 * Rows were chosen from positions 0 .. blocks * W; phase two begins at position `first`, so rows
	 * chosen after it are trained again.
	 */
	return blocks * block > first ? (uint64_t)((double)(blocks * block - first) / (double)block * (double)kept) : 0;
}

static int
loop_switch(struct run *r, struct err_note *note)
{
	bool exact;
	uint64_t again = loop_seen_again(r, &exact);
	int rc = 0;

	status_phase(r->status, "two");
	if (r->rank == 0) {
		const struct metrics_field fields[] = {{"event", json_new_text("switch")}, {"rows_seen_again", json_new_int((int64_t)again)}};

		log_info("switch", "step=%" PRIu64 " rows_seen_again=%s%" PRIu64 " switched_by=%s", r->phase.switch_step, exact ? "" : "about_",
		    again, r->state.switch_by);
		rc = loop_line(r, "event", fields, COUNT(fields), note);
	}
	crash_point("switch.line");
	feed_release(r->feed, r->phase.switch_step);
	crash_point("switch.released");
	return agree(r->comm, rc, note);
}

static bool
due(uint64_t step, uint64_t every)
{
	return every > 0 && step > 0 && step % every == 0;
}

static bool
loop_keep_step(const struct run *r, uint64_t step)
{
	const struct config_numbers *keep = &r->config->trainer.keep_steps;

	for (size_t i = 0; i < keep->n; i++)
		if (keep->item[i] == step)
			return true;
	return false;
}

/* The work between two steps: evaluation, the margin, checkpoints, the switch. Collective. */
static int
loop_between(struct run *r, struct err_note *note)
{
	uint64_t step = r->state.step, steps = r->config->trainer.steps;
	bool ends = step >= steps, margin = r->phase.switch_step == PHASE_UNKNOWN, evaluates, switches;
	int rc;

	evaluates = r->evaluated_step != step && (due(step, r->config->trainer.eval_every) || (step > 0 && step == r->phase.switch_step) || ends);
	if (evaluates && (rc = loop_evaluate(r, note)) != 0) {
		struct err_note second = {.name = ""};
		char text[1200];
		int saved = 0;

		/* It failed on data or files, for instance a held-out corpus that was overwritten; the training steps are good. */
		if (step > 0 && r->saved_step != step)
			saved = loop_save(r, &second);
		if (saved != 0)
			log_error("checkpoint.failed", "step=%" PRIu64 " why=\"%s\"", step, err_note_str(&second, saved, text, sizeof(text)));
		return rc;
	}
	/* An evaluation from before a resume does not count again: the checkpoint holds what was decided after it. */
	if (margin && evaluates) {
		double teacher = feed_view(r->feed).teacher_nats;

		comm_bcast(r->comm, 0, &teacher, sizeof(teacher));
		if (phase_margin(&r->phase, step, r->last_eval.loss, teacher)) {
			feed_switch(r->feed, r->phase.switch_step);
			status_set(r->m_switch, (double)r->phase.switch_step);
			if (r->rank == 0)
				log_info("margin.met", "step=%" PRIu64 " student=%.4f teacher=%.4f switch_step=%" PRIu64, step, r->last_eval.loss,
				    teacher, r->phase.switch_step);
		}
	}
	if (margin && ends && r->phase.switch_step == PHASE_UNKNOWN && r->rank == 0)
		log_warn("margin.not_met", "steps=%" PRIu64, steps);
	switches = step > 0 && step == r->phase.switch_step;
	if (r->saved_step != step &&
	    (due(step, r->config->trainer.checkpoint_every) || switches || ends || loop_keep_step(r, step)) &&
	    (rc = loop_save(r, note)) != 0)
		return rc;
	if (switches && !r->switched) {
		crash_point("switch.begin");
		r->switched = true;
		if ((rc = loop_switch(r, note)) != 0)
			return rc;
	}
	return 0;
}

enum loop_go { LOOP_GO, LOOP_STOP, LOOP_FAIL };

/*
 * Waits until every rank has its rows of the step. The ranks vote again and again and sleep in between. Stop flags
 * and failures are part of the vote, so all ranks stop at the same step.
 */
static enum loop_go
loop_wait(struct run *r, int *rc, struct err_note *note)
{
	int64_t start = clock_now_ms(), limit = (int64_t)(r->config->trainer.wait_max_s * 1000), now, stopped = 0, before = start;
	bool waiting = false, margin = r->phase.switch_step == PHASE_UNKNOWN;
	enum { MISSING, STOP, TOO_LONG, FAILED, VOTES };

	for (;;) {
		struct err_note mine = {.name = ""};
		int polled = feed_poll(r->feed, r->state.step, &mine);
		int64_t vote[VOTES] = {0};

		/*
		 * With until_margin the teacher's loss must be known before the first step, or the switch would
		 * depend on timing.
		 */
		vote[MISSING] = (polled == ERR_AGAIN && !feed_late(r->feed, r->state.step)) ||
		    (margin && !isfinite(feed_view(r->feed).teacher_nats));
		now = clock_now_ms();
		if (now - before > STOPPED_MS)		/* this process or another rank did not run (SIGSTOP),
							   which is no wait for rows */
			stopped += now - before;
		before = now;
		vote[STOP] = stop_requested();
		vote[TOO_LONG] = limit > 0 && now - start - stopped > limit;
		vote[FAILED] = polled != 0 && polled != ERR_AGAIN;
		comm_max(r->comm, vote, VOTES);
		if (vote[FAILED]) {
			*rc = agree(r->comm, polled == ERR_AGAIN ? 0 : polled, &mine);
			*note = mine;
			return LOOP_FAIL;
		}
		if (vote[STOP]) {
			*rc = err_note_set(note, ERR_STOPPED, "step %" PRIu64, r->state.step);
			return LOOP_STOP;
		}
		if (!vote[MISSING])
			break;
		if (vote[TOO_LONG]) {
			*rc = err_expect_at(note, ERR_STOPPED, "step %" PRIu64, "waiting for rows", "rows within trainer.wait_max_s = %g", "",
			    r->state.step, r->config->trainer.wait_max_s);
			return LOOP_STOP;
		}
		watchdog_progress(r->watchdog, "waiting for rows");
		if (!waiting) {
			waiting = true;
			status_state(r->status, "waiting for rows", clock_now_ms());
			log_info("rows.waiting", "step=%" PRIu64, r->state.step);
			daemon_notify_status("step %" PRIu64 ": waiting for rows", r->state.step);
		}
		feed_wait(r->feed, VOTE_MS);
	}
	if (waiting)
		log_info("rows.there", "step=%" PRIu64 " ms=%" PRId64, r->state.step, clock_now_ms() - start);
	r->waited_s = (double)(clock_now_ms() - start) * 1e-3;
	r->state.wait_s += r->waited_s;
	status_add(r->m_wait, (uint64_t)(r->waited_s * 1e9));
	return LOOP_GO;
}

/* Writes the values of a step's line in metrics.jsonl for TensorBoard. */
static void
loop_curves(struct run *r, const struct step_result *e, double seconds, float lr, float weight)
{
	bool kd = e->kd_tokens > 0;
	double all = seconds + r->waited_s, tokens = (double)(r->config->trainer.batch * r->config->corpus.context);
	struct tb_scalar scalars[] = {{"train/loss", (float)e->loss}, {"train/hard_loss", (float)e->hard}, {"train/accuracy", (float)e->accuracy},
	    {"train/grad_norm", (float)e->grad_norm}, {"train/lr", lr}, {"train/kd_weight", weight}, {"train/phase", kd || weight > 0 ? 1 : 2},
	    {"train/tokens_per_second", (float)(tokens / all)}, {"train/wait_share", (float)(r->waited_s / all)},
	    {"train/soft_loss", (float)e->soft}, {"train/kl", (float)(e->soft - e->entropy)},
	    {"train/token_weight", (float)e->weight}};

	loop_scalars(r, scalars, COUNT(scalars) - (kd ? 0 : 3));
}

static int
loop_record(struct run *r, const struct step_result *e, const struct feed_rows *rows, double seconds, float lr, float weight,
    struct err_note *note)
{
	bool kd = e->kd_tokens > 0;
	double label_bytes = (double)rows->label_bytes, counts[2] = {(double)rows->late_rows, (double)rows->quarantined_rows};
	bool logs;
	int rc;

	comm_sum(r->comm, &label_bytes, 1);
	comm_sum(r->comm, counts, 2);
	r->state.late_rows += (uint64_t)counts[0];
	status_add(r->m_late, (uint64_t)counts[0]);
	status_add(r->m_quarantined, (uint64_t)counts[1]);
	if (r->rank != 0)
		return 0;
	const struct metrics_field fields[] = {{"phase", json_new_int(kd || weight > 0 ? 1 : 2)}, {"loss", json_new_num(e->loss)},
	    {"hard", json_new_num(e->hard)}, {"soft", json_new_num(kd ? e->soft : NAN)},
	    {"teacher_entropy", json_new_num(kd ? e->entropy : NAN)}, {"kl", json_new_num(kd ? e->soft - e->entropy : NAN)},
	    {"accuracy", json_new_num(e->accuracy)}, {"grad_norm", json_new_num(e->grad_norm)}, {"lr", json_new_num(lr)},
	    {"weight", json_new_num(weight)}, {"token_weight", json_new_num(kd ? e->weight : NAN)}, {"kd_tokens", json_new_int(e->kd_tokens)}, {"label_bytes", json_new_int((int64_t)label_bytes)},
	    {"late_rows", json_new_int((int64_t)counts[0])}, {"quarantined_rows", json_new_int((int64_t)counts[1])},
	    {"skipped", json_new_flag(e->skipped)}, {"tokens", json_new_int((int64_t)r->state.tokens)},
	    {"seconds", json_new_num(r->state.train_s)}, {"step_seconds", json_new_num(seconds)},
	    {"compute_seconds", json_new_num(e->compute_s)}, {"reduce_seconds", json_new_num(e->reduce_s)},
	    {"overlap_seconds", json_new_num(e->overlap_s)}, {"reduced_early", json_new_num(e->reduced_early)},
	    {"update_seconds", json_new_num(e->update_s)}, {"wait_seconds", json_new_num(r->waited_s)},
	    {"rows_ahead", json_new_int((int64_t)feed_view(r->feed).ahead)}, {"ranks", json_new_int(comm_size(r->comm))},
	    {"host_ranks", json_new_int(comm_host_ranks(r->comm))}, {"threads", json_new_int(kernels_threads(r->kernels))}};

	crash_point("trainer.step");
	if ((rc = loop_line(r, "step", fields, COUNT(fields), note)) != 0)
		return rc;
	crash_point("trainer.line");
	loop_curves(r, e, seconds, lr, weight);
	logs = clock_now_ms() - r->logged_ms > LOG_EVERY_MS || r->state.step == r->config->trainer.steps;
	if (logs)
		r->logged_ms = clock_now_ms();
	/* Every step goes to the events socket, at debug level if it is not logged. */
	log_event(logs ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG, "step", "step=%" PRIu64 " of=%" PRIu64 " phase=%s loss=%.4f hard=%.4f accuracy=%.4f "
	    "lr=%.3g tokens_per_s=%.0f eta_s=%.0f", r->state.step, r->config->trainer.steps, kd ? "one" : "two", e->loss, e->hard, e->accuracy,
	    (double)lr, (double)(r->config->trainer.batch * r->config->corpus.context) / seconds,
	    (double)(r->config->trainer.steps - r->state.step) * seconds);
	if (logs)
		daemon_notify_status("step %" PRIu64 " of %" PRIu64 ", phase %s, loss %.4f", r->state.step, r->config->trainer.steps, kd ? "one" : "two",
		    e->loss);
	return 0;
}

static int
loop_step(struct run *r, struct err_note *note)
{
	uint64_t step = r->state.step;
	struct step_result e;
	struct feed_rows rows;
	double start, seconds;
	float lr, weight = phase_weight(&r->phase, step);
	int rc;

	status_state(r->status, "training", clock_now_ms());
	watchdog_progress(r->watchdog, "step");
	if (r->state.step == r->first_step)
		log_info("steps.begin", "step=%" PRIu64, step);
	start = clock_now_s();
	if ((rc = agree(r->comm, feed_take(r->feed, step, &rows), NULL)) != 0)
		return err_note_set(note, rc, "rows of step %" PRIu64, step);
	lr = (float)optim_lr(&r->optim, (int64_t)step);
	step_run(r->step, &rows.rows, lr, (int64_t)r->state.updates + 1, &e);
	seconds = clock_now_s() - start;
	watchdog_step(r->watchdog, seconds);
	r->state.step++;
	r->state.tokens += (uint64_t)r->config->trainer.batch * r->config->corpus.context;
	r->state.train_s += seconds;
	r->skipped_in_row = e.skipped ? r->skipped_in_row + 1 : 0;
	if (e.skipped) {
		r->state.skipped++;
		status_add(r->m_skipped, 1);
		log_warn("update.skipped", "step=%" PRIu64 " loss=%g grad_norm=%g in_row=%u", r->state.step, e.loss, e.grad_norm, r->skipped_in_row);
	} else if (e.masked) {
		log_info("update.none", "step=%" PRIu64 " why=\"every document in this batch has the loss weight 0\"", r->state.step);
	} else {
		r->state.updates++;
	}
	status_step(r->status, r->state.step, r->config->trainer.steps);
	status_add(r->m_tokens, (uint64_t)r->config->trainer.batch * r->config->corpus.context);
	status_set(r->m_loss, e.loss);
	status_set(r->m_norm, e.grad_norm);
	status_set(r->m_lr, lr);
	status_set(r->m_weight, weight);
	rc = agree(r->comm, loop_record(r, &e, &rows, seconds, lr, weight, note), note);
	feed_done(r->feed, step);
	if (rc == 0 && r->skipped_in_row >= SKIPPED_MAX)
		rc = err_expect(note, ERR_NONFINITE, "step %" PRIu64, "a finite loss and gradient",
		    "%d updates skipped in a row; the last good checkpoint is kept", r->state.step, SKIPPED_MAX);
	return rc;
}

static int
loop_steps(struct run *r, struct err_note *note)
{
	struct err_note second = {.name = ""};
	enum loop_go go = LOOP_GO;
	int rc = 0, saved = 0;

	while (go == LOOP_GO) {
		if ((rc = loop_between(r, note)) != 0 || r->state.step >= r->config->trainer.steps)
			return rc;
		if ((go = loop_wait(r, &rc, note)) == LOOP_GO && (rc = loop_step(r, note)) != 0)
			return rc;
	}
	daemon_notify_stopping("step %" PRIu64 ": stopping", r->state.step);
	if (r->saved_step != r->state.step && r->state.step > 0)
		saved = loop_save(r, &second);
	if (saved != 0 && go == LOOP_STOP) {		/* the failed save matters more than the request to stop */
		*note = second;
		rc = saved;
	}
	return rc;
}

int
loop_run(const struct loop_options *o, struct err_note *note)
{
	struct run *r = NULL;
	int rc;

	if ((rc = run_new(&r, o, note)) != 0)
		return rc;
	log_info("run.start", "mode=%s step=%" PRIu64 " of=%" PRIu64 " ranks=%d threads=%d params=%" PRId64 " optimizer=%s compute=\"%s\" why=\"%s\"",
	    config_mode_name(r->config), r->state.step, r->config->trainer.steps, comm_size(r->comm), kernels_threads(r->kernels),
	    step_model(r->step)->n_params, r->state.identity.optimizer, kernels_describe(r->kernels), kernels_reason(r->kernels));
	status_set(r->m_switch, r->phase.switch_step != PHASE_UNKNOWN ? (double)r->phase.switch_step : NAN);
	status_phase(r->status, phase_is_one(&r->phase, r->state.step) ? "one" : "two");
	status_step(r->status, r->state.step, r->config->trainer.steps);
	r->first_step = r->state.step;
	daemon_notify_ready("step %" PRIu64 " of %" PRIu64, r->state.step, r->config->trainer.steps);
	rc = loop_steps(r, note);
	if (rc == 0) {
		daemon_notify_stopping("done: %" PRIu64 " steps", r->state.step);
		status_state(r->status, "done", clock_now_ms());
		if (r->rank == 0)
			log_info("run.done", "steps=%" PRIu64 " tokens=%" PRIu64 " train_s=%.1f wait_s=%.1f skipped=%" PRIu64, r->state.step,
			    r->state.tokens, r->state.train_s, r->state.wait_s, r->state.skipped);
		if (r->rank == 0 && status_get(r->m_quarantined) > 0)
			log_warn("rows.quarantined", "rows=%.0f why=\"their sequences are in quarantine: trained without the teacher\" "
			    "next=\"saltctl cache stat --quarantine\"", status_get(r->m_quarantined));
	}
	run_destroy(&r);
	return rc;
}
