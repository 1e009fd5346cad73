/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/run.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/bus/bus.h"
#include "engine/checkpoint/checkpoint.h"
#include "fabric/config/config.h"
#include "data/corpus/blend.h"
#include "data/corpus/corpus.h"
#include "engine/kernels/kernels.h"
#include "base/cpus/cpus.h"
#include "base/err/crash.h"
#include "base/log/log.h"
#include "base/file/file.h"
#include "fabric/status/status.h"
#include "data/tokenizer/tokenizer.h"
#include "trainerd/agree.h"
#include "trainerd/gpu.h"
#include "engine/weights/weights.h"

#define SLOW_DISK_BYTES_PER_S 10e6

double
run_checkpoint_s(const struct run *r)
{
	/*
	 * One rank reads or writes while the others wait: parameters and both moments on a slow disk, and five times
	 * the stall limit.
	 */
	return 5 * r->config->trainer.stall_s + (double)step_model(r->step)->n_params * 12 / SLOW_DISK_BYTES_PER_S;
}

void
run_evaluates(void *arg)
{
	struct run *r = arg;

	watchdog_progress(r->watchdog, "evaluation");
}

int
run_heldout_window(void *arg, uint64_t i, int32_t *out)
{
	struct run *r = arg;
	struct err_note note = {.name = ""};
	char text[1024];
	int rc;

	run_evaluates(r);
	rc = corpus_window(r->heldout, CORPUS_SEQ_MAKE(CORPUS_HELDOUT, i), r->config->corpus.context, out, &note);

	if (rc != 0)
		log_error("heldout.window", "why=\"%s\"", err_note_str(&note, rc, text, sizeof(text)));
	return rc;
}

uint64_t
run_oldest_checkpoint(const struct run *r)
{
	struct checkpoint_info *list = NULL;
	uint64_t step = 0;
	size_t n;

	if (r->rank == 0 && checkpoint_list(r->save.root, &list, &n, NULL) == 0 && n > 0)
		step = list[0].step;
	free(list);
	return step;
}

/*
 * Number of threads of this rank: as configured, or its share of the processors that this host's ranks may
 * use. Ranks that are not bound yet are bound to NUMA nodes first, before they have threads and memory.
 */
static int
run_threads(const struct config *cfg, const struct comm *comm)
{
	int ranks = comm_host_ranks(comm), together = comm_host_cpus(comm), rc;
	struct cpus_set set;
	struct cpus c;
	char found[512];

	cpus_read(&c, "");
	if (c.allowed == together && cpus_node(&c, comm_host_rank(comm), ranks, &set)) {
		if ((rc = cpus_bind(&set)) != 0)
			log_warn("cpus.not_bound", "why=\"%s\"", err_str(rc));
		cpus_read(&c, "");
	} else if (c.allowed < c.online / ranks) {
		log_warn("threads.bound", "may_use=%d could_use=%d hint=\"mpirun --bind-to none\"", c.allowed, c.online / ranks);
	}
	cpus_print(&c, found, sizeof(found));
	log_info("cpus", "found=\"%s\" ranks_here=%d", found, ranks);
	return cfg->trainer.threads > 0 ? (int)cfg->trainer.threads : cpus_share(&c, together, ranks);
}

static void
log_tunable(void *arg, const char *key, const char *was, const char *is)
{
	(void)arg;
	log_info("option.changed", "key=%s was=\"%s\" is=\"%s\"", key, was, is);
}

/*
 * For a run that resumes from a checkpoint: logs changed options that take effect, and a trainer.init that
 * does not.
 */
static void
run_compare(const struct config *old, const struct config *cfg)
{
	config_tunable_diff(old, cfg, log_tunable, NULL);
	if (strcmp(old->trainer.init, cfg->trainer.init) != 0)
		log_warn("init.ignored",
		    "trainer.init=%s was=\"%s\" hint=\"the run continues from its checkpoint; to start from "
		    "trainer.init use another run.dir\"",
		    cfg->trainer.init[0] != '\0' ? cfg->trainer.init : "\"\"", old->trainer.init);
}

static void run_tensorboard(struct run *r, bool resumed);

/* Stores the options in use, and logs their path if it is not RUN/fleet.yaml. */
static int
run_store(const struct config *cfg, struct err_note *note)
{
	char path[4200], *name;
	int rc = config_store(cfg, cfg->run.dir, note);

	config_stored(cfg->run.dir, path, sizeof(path));
	name = strrchr(path, '/');
	if (rc == 0 && name != NULL && strcmp(name, "/fleet.yaml") != 0)
		log_info("run.resolved", "path=%s hint=\"the fleet.yaml beside it was not written by trainerd and stays as it is\"", path);
	return rc;
}

/*
 * Creates run.dir, locks it and stores the options in use. If run.dir has checkpoints, options that are part of the run's identity
 * must not have changed since; without a checkpoint the former options are ignored. Rank 0.
 */
static int
run_directory(struct run *r, struct err_note *note)
{
	const struct config *cfg = r->config;
	struct config *old = NULL;
	char path[4200];
	int rc;

	if ((rc = lock_take(&r->lock, cfg->run.dir, note)) != 0 || (rc = file_make_dirs(r->checkpoints, 0777, note)) != 0)
		return rc;
	config_stored(cfg->run.dir, path, sizeof(path));
	if (checkpoint_any(r->checkpoints) && access(path, F_OK) == 0) {
		if ((rc = config_load(path, NULL, 0, &old, note)) != 0)
			return rc;
		if ((rc = config_identity_diff(old, cfg, note)) == 0)
			run_compare(old, cfg);
		else
			err_note_place(note,
			    "run.dir %.200s holds a run with a different value: use another run.dir, or the "
			    "old value",
			    cfg->run.dir);
		config_destroy(&old);
		if (rc != 0)
			return rc;
	}
	return run_store(cfg, note);
}

/* Opens metrics.jsonl to continue at the present step. Rank 0. */
static int
run_open_metrics(struct run *r, struct err_note *note)
{
	uint64_t every = r->config->trainer.checkpoint_every;
	char path[4200];

	snprintf(path, sizeof(path), "%s/metrics.jsonl", r->config->run.dir);
	return metrics_open(&r->metrics, path, r->state.step, every > 0 ? every : UINT64_MAX, note);
}

int
run_check_directory(struct run *r, bool *again, struct err_note *note)
{
	int rc;

	*again = false;
	rc = r->rank == 0 ? lock_check(r->lock, again, note) : 0;
	if (rc == 0 && *again && (rc = run_store(r->config, note)) == 0) {
		metrics_close(&r->metrics);
		tensorboard_close(&r->tensorboard);
		if ((rc = run_open_metrics(r, note)) == 0)
			run_tensorboard(r, true);
	}
	comm_bcast(r->comm, 0, again, sizeof(*again));
	return agree(r->comm, rc, note);
}

static int
open_corpus(struct corpus **c, const struct config *cfg, const char *prefix, uint32_t number, int32_t end, const struct model_config *model,
    struct err_note *note)
{
	int rc = corpus_open_as(c, prefix, cfg->corpus.dtype, note);

	if (rc != 0)
		return rc;
	corpus_set_number(*c, number);
	if (cfg->corpus.isolate_documents && (rc = corpus_isolate(*c, end, note)) != 0)
		return rc;
	return corpus_limit_vocab(*c, (uint32_t)model->vocab_size, note);
}

/* The tokenizer.json beside the model, if there is one, must be the corpus's; it is copied to the checkpoints. */
static int
run_tokenizer(struct run *r, struct err_note *note)
{
	const struct corpus_info *info = corpus_info(r->train);
	char hex[2][HASH_HEX_BYTES], why[600], quoted[700];
	const char *slash;
	struct stat st;
	int rc;

	if (stat(r->config->trainer.model, &st) == 0 && S_ISDIR(st.st_mode))
		snprintf(r->tokenizer, sizeof(r->tokenizer), "%s/tokenizer.json", r->config->trainer.model);
	else if ((slash = strrchr(r->config->trainer.model, '/')) != NULL)
		snprintf(r->tokenizer, sizeof(r->tokenizer), "%.*s/tokenizer.json", (int)(slash - r->config->trainer.model), r->config->trainer.model);
	if (r->tokenizer[0] == '\0' || access(r->tokenizer, R_OK) != 0) {
		log_warn("tokenizer.none", "model=%s hint=\"checkpoints will hold no tokenizer.json\"", r->config->trainer.model);
		return 0;
	}
	if ((rc = tokenizer_identify(r->tokenizer, &r->tokenizer_id, why, sizeof(why), note)) != 0)
		return rc;
	if (why[0] != '\0' && r->rank == 0)
		log_warn("tokenizer.unread",
		    "file=%s why=%s hint=\"training does not need the file: its hash is compared, and it is "
		    "copied to the checkpoints\"",
		    r->tokenizer, log_quote(why, quoted, sizeof(quoted)));
	r->save.tokenizer = r->tokenizer;
	if (info->has_tokenizer && !hash_equal(info->tokenizer, r->tokenizer_id))
		return err_expect(note, ERR_MISMATCH, "%s", "the tokenizer of corpus %.120s, %s", "%s%s",
		    r->tokenizer, r->config->corpus.train, hash_hex(info->tokenizer, hex[0]),
		    hash_hex(r->tokenizer_id, hex[1]),
		    why[0] == '\0' ?
			"" :
			", the hash of a file that cannot be read; replace the file with the corpus's "
			"tokenizer.json, or remove it");
	return 0;
}

static void
run_identity(struct run *r, struct hash128 train, struct hash128 heldout)
{
	static const char *const optimizers[] = OPTIM_NAMES;
	const struct config *cfg = r->config;
	struct state_identity *id = &r->state.identity;

	memset(id, 0, sizeof(*id));
	id->seed = cfg->run.seed;
	id->batch = cfg->trainer.batch;
	id->micro_batch = cfg->trainer.micro_batch;
	id->lanes = cfg->trainer.lanes;
	id->context = cfg->corpus.context;
	id->corpus = train;
	id->heldout = heldout;
	id->loss_weights = r->weights.identity;
	if (corpus_info(r->train)->has_tokenizer)
		id->tokenizer = corpus_info(r->train)->tokenizer;
	snprintf(id->compute_class, sizeof(id->compute_class), "%s", kernels_compute_class(r->kernels));
	snprintf(id->device, sizeof(id->device), "%s", kernels_device_versions(r->kernels));
	snprintf(id->optimizer, sizeof(id->optimizer), "%s", optimizers[r->optim.kind]);
	snprintf(id->mode, sizeof(id->mode), "%s", config_mode_name(cfg));
}

static int
initial_source(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	return weights_model_read(arg, begin, count, out, note);
}

/* Opens trainer.init, which must have the shape of trainer.model. */
static int
run_open_init(const struct run *r, const struct model *model, struct weights_model **w, struct err_note *note)
{
	char quoted[600];
	int rc;

	if ((rc = weights_model_open(w, r->config->trainer.init, model, note)) != 0)
		return err_note_within(note, rc, rc == ERR_MISMATCH || rc == ERR_NOT_FOUND ? "trainer.init (shape of trainer.model)" : "trainer.init");
	if (r->rank == 0 && weights_model_remarks(*w)[0] != '\0')
		log_info("weights.remarks", "dir=%s what=%s", r->config->trainer.init, log_quote(weights_model_remarks(*w), quoted, sizeof(quoted)));
	return 0;
}

/* Warns about weights in the folder trainer.model: they are not read, although a user may expect that. */
static void
run_warn_unused(const struct run *r)
{
	const struct config_trainer *t = &r->config->trainer;

	if (r->rank == 0 && t->init[0] == '\0' && weights_present(t->model))
		log_warn("weights.unused",
		    "trainer.model=%s hint=\"training starts from random weights (run.seed); to start from "
		    "the weights in this folder set trainer.init: %s; if random weights are intended, set "
		    "trainer.model to its config.json\"",
		    t->model, t->model);
}

/* Fills this rank's ranges with initial weights: trainer.init, or random ones by run.seed. */
static int
run_weights(struct run *r, struct err_note *note)
{
	struct weights_model *w = NULL;
	struct hash128 fingerprint;
	bool checkpoint;
	int rc;

	run_warn_unused(r);
	if (r->config->trainer.init[0] == '\0')
		return step_init(r->step, r->config->run.seed, note);
	rc = run_open_init(r, step_model(r->step), &w, note);
	/* Rank 0 checks all of it against its manifest or its record; the ranks agree on the result. */
	if (rc == 0 && r->rank == 0 && (rc = checkpoint_verify_model(r->config->trainer.init, &checkpoint, note)) == 0 && !checkpoint)
		rc = weights_model_fingerprint(w, r->config->trainer.init, &fingerprint, note);
	if (rc == 0)
		rc = step_fill(r->step, STEP_MASTERS, initial_source, w, note);
	weights_model_close(&w);
	return rc;
}

static void
run_plan(struct run *r)
{
	static const enum phase_handover handovers[] = {[CONFIG_HANDOVER_STEP] = PHASE_HANDOVER_STEP,
	    [CONFIG_HANDOVER_LINEAR] = PHASE_HANDOVER_LINEAR, [CONFIG_HANDOVER_RATIO] = PHASE_HANDOVER_RATIO};
	const struct config *cfg = r->config;
	double margin = NAN;
	bool by_margin = config_until_margin(cfg, &margin);

	r->phase = (struct phase){.total_steps = cfg->trainer.steps, .switch_step = by_margin ? PHASE_UNKNOWN : cfg->phase_one.steps,
	    .margin_nats = margin, .weight = (float)cfg->phase_one.weight, .handover = handovers[cfg->phase_one.handover],
	    .handover_steps = cfg->phase_one.handover_steps};
	r->optim = (struct optim_config){.kind = (enum optim_kind)cfg->trainer.optimizer, .lr = cfg->trainer.lr, .min_lr_ratio = cfg->trainer.min_lr_ratio, .steps = (int64_t)cfg->trainer.steps,
	    .warmup = (int64_t)cfg->trainer.warmup, .decay_steps = (int64_t)cfg->trainer.decay_steps,
	    .schedule = (enum optim_schedule)cfg->trainer.schedule, .beta1 = cfg->trainer.betas[0], .beta2 = cfg->trainer.betas[1],
	    .eps = cfg->trainer.eps, .weight_decay = cfg->trainer.weight_decay, .clip = cfg->trainer.clip};
	r->save.root = r->checkpoints;
	r->save.gather = cfg->checkpoint.gather;
	r->save.keep = cfg->trainer.keep_checkpoints;
	r->save.keep_steps = cfg->trainer.keep_steps.item;
	r->save.n_keep_steps = cfg->trainer.keep_steps.n;
	snprintf(r->checkpoints, sizeof(r->checkpoints), "%s/checkpoints", cfg->run.dir);
}

static void
run_metrics(struct run *r)
{
	struct status *st = r->status;

	r->m_tokens = status_register(st, STATUS_RATED, "tokens_total", "tokens", "tokens trained on by all ranks since this start");
	r->m_wait = status_register(st, STATUS_TIMER, "wait_rows_seconds_total", "seconds", "waiting for rows");
	r->m_loss = status_register(st, STATUS_GAUGE, "loss", "nats", "mixed loss of the last step");
	r->m_norm = status_register(st, STATUS_GAUGE, "grad_norm", "", "gradient norm of the last step, before clipping");
	r->m_lr = status_register(st, STATUS_GAUGE, "learning_rate", "", "learning rate of the last step");
	r->m_weight = status_register(
	    st, STATUS_GAUGE, "kd_weight", "", "distillation weight of the last step");
	r->m_switch = status_register(st, STATUS_GAUGE, "switch_step", "steps",
	    "end of phase one; 0: no phase one, NaN: not decided yet");
	r->m_skipped = status_register(st, STATUS_COUNTER, "updates_skipped_total", "steps",
	    "steps since this start without an update, because loss or gradient was not finite");
	r->m_late = status_register(st, STATUS_COUNTER, "late_rows_total", "rows",
	    "rows since this start that were trained without soft labels (phase_one.late)");
	r->m_quarantined = status_register(st, STATUS_COUNTER, "quarantined_rows_total", "rows",
	    "rows of phase one trained without the teacher because their sequence is in quarantine");
	r->m_direct = status_register(st, STATUS_GAUGE, "exchange_direct", "", "1: ranks exchange between their GPUs by NCCL, 0: by MPI");
	r->m_heldout = status_register(st, STATUS_GAUGE, "heldout_loss", "nats", "log-perplexity of the last evaluation");
}

/* Opens the corpora, the student's shape and its tokenizer, and checks them against each other. */
static int
run_files(struct run *r, struct model_config *model, struct hash128 *train, struct hash128 *heldout, struct err_note *note)
{
	const struct config *cfg = r->config;
	struct blend *order;
	int rc;

	if ((rc = weights_config_load(cfg->trainer.model, model, note)) != 0)
		return err_note_within(note, rc, "trainer.model");
	if ((rc = open_corpus(&r->train, cfg, cfg->corpus.train, CORPUS_TRAIN, -1, model, note)) != 0)
		return rc;
	if (model->context < (int64_t)cfg->corpus.context)
		return err_expect(note, ERR_MISMATCH, "trainer.model %s",
		    "a position limit of at least %" PRIu32 " (corpus.context)", "%" PRId64,
		    cfg->trainer.model, cfg->corpus.context, model->context);
	if ((rc = corpus_blend(&order, r->train, cfg->corpus.context, note)) != 0)
		return rc;
	r->n_windows = blend_n_windows(order);
	blend_destroy(&order);			/* the feed has its own */
	if (model->eos_id < 0)
		model->eos_id = corpus_info(r->train)->eod;	/* written to the checkpoints, for generation */
	*heldout = (struct hash128){0, 0};
	if ((rc = corpus_fingerprint(r->train, train, note)) != 0 || (rc = corpus_load_weights(r->train, &r->weights, note)) != 0)
		return rc;
	if (r->weights.sum == 0)
		return err_expect(note, ERR_FORMAT, "corpus.train", "a document with a loss weight above 0", "none in %s", cfg->corpus.train);
	if (cfg->corpus.heldout[0] != '\0') {
		if ((rc = open_corpus(&r->heldout, cfg, cfg->corpus.heldout, CORPUS_HELDOUT, corpus_document_end(r->train), model, note)) != 0 ||
		    (rc = corpus_fingerprint(r->heldout, heldout, note)) != 0)
			return rc;
		if ((r->n_eval = corpus_n_windows(r->heldout, cfg->corpus.context)) == 0)
			return err_expect_at(note, ERR_RANGE, "corpus.heldout", "%s", "at least corpus.context + 1 = %" PRIu32 " tokens, or no corpus.heldout",
			    "%" PRIu64, cfg->corpus.heldout, cfg->corpus.context + 1, corpus_n_tokens(r->heldout));
		if (cfg->trainer.eval_sequences > 0 && cfg->trainer.eval_sequences < r->n_eval)
			r->n_eval = cfg->trainer.eval_sequences;
	}
	return run_tokenizer(r, note);
}

static struct kernels_options
run_kernels(const struct config *cfg)
{
	return (struct kernels_options){.backend = (enum kernels_backend)config_trainer_backend(cfg),
	    .dtype = (enum kernels_dtype)config_trainer_dtype(cfg), .threads = 1};
}

int
run_check(const struct config *cfg, struct err_note *note)
{
	struct kernels_options ko = run_kernels(cfg);
	struct run r = {.config = cfg};
	struct weights_model *w = NULL;
	struct model *model = NULL;
	struct model_config shape;
	struct hash128 train, heldout;
	char class[128], checkpoints[4200];
	int rc;

	snprintf(checkpoints, sizeof(checkpoints), "%s/checkpoints", cfg->run.dir);
	if (!checkpoint_any(checkpoints))
		run_warn_unused(&r);

	if ((rc = kernels_resolve(&ko, class, sizeof(class), note)) == 0 && (rc = run_files(&r, &shape, &train, &heldout, note)) == 0 &&
	    (rc = judge_check(cfg, &shape, r.save.tokenizer != NULL ? r.tokenizer : "", note)) == 0 && cfg->trainer.init[0] != '\0' && (rc = model_new(&model, &shape, note)) == 0)
		rc = run_open_init(&r, model, &w, note);
	weights_model_close(&w);
	model_destroy(&model);
	corpus_destroy(&r.train);
	corpus_destroy(&r.heldout);
	return rc;
}

/* Opens files, kernels and model of this rank; not collective, except for step_new's checks. */
static int
run_open(struct run *r, struct hash128 *train, struct hash128 *heldout, struct err_note *note)
{
	const struct config *cfg = r->config;
	struct kernels_options ko = run_kernels(cfg);
	struct step_options so = {.context = cfg->corpus.context, .batch = cfg->trainer.batch, .micro_batch = cfg->trainer.micro_batch,
	    .lanes = cfg->trainer.lanes, .deterministic = cfg->trainer.deterministic != CONFIG_SWITCH_OFF, .optim = r->optim,
	    .residual = (enum kernels_residual)cfg->phase_one.residual,
	    .token_weight = (enum kernels_token_weight)cfg->phase_one.token_weight, .recompute = cfg->trainer.recompute};
	struct model_config model;
	int rc;

	ko.threads = run_threads(cfg, r->comm);
	if ((rc = kernels_new(&r->kernels, &ko, note)) != 0)
		return rc;
	if ((rc = run_files(r, &model, train, heldout, note)) != 0)
		return rc;
	so.isolate_documents = cfg->corpus.isolate_documents;
	so.document_end = corpus_document_end(r->train);
	if ((rc = step_new(&r->step, &model, r->kernels, r->comm, &so, note)) != 0)
		return rc;
	ko.share = r->kernels;
	return judge_new(&r->judge, cfg, step_model(r->step), &ko, ko.threads, r->save.tokenizer != NULL ? r->tokenizer : "", r->status, note);
}

/*
 * Accepts another number format, library or GPU if it was configured; an automatic choice must not change
 * from host to host.
 */
static void
run_class(const struct run *r, struct state_identity *stored)
{
	const struct config *cfg = r->config;
	const char *now = r->state.identity.compute_class;
	size_t dtype = strcspn(now, "/");
	bool same_dtype = strcspn(stored->compute_class, "/") == dtype && strncmp(stored->compute_class, now, dtype) == 0;
	const char *device = r->state.identity.device;
	bool same_backend = strcmp(stored->compute_class + strcspn(stored->compute_class, "/"), now + dtype) == 0 &&
	    strcmp(stored->device, device) == 0;

	if ((same_dtype && same_backend) || (!same_dtype && config_trainer_dtype(cfg) == CONFIG_DTYPE_AUTO) ||
	    (!same_backend && config_trainer_backend(cfg) == CONFIG_BACKEND_AUTO))
		return;
	log_warn("compute.changed",
	    "was=\"%s%s%s\" is=\"%s%s%s\" hint=\"losses will differ from those of an unchanged run\"",
	    stored->compute_class, stored->device[0] != '\0' ? " " : "", stored->device, now,
	    device[0] != '\0' ? " " : "", device);
	snprintf(stored->compute_class, sizeof(stored->compute_class), "%s", now);
	snprintf(stored->device, sizeof(stored->device), "%s", device);
}

/*
 * Determines the switch step of a run that resumes from a checkpoint. A switch after which steps were trained
 * is kept. One exactly at the checkpoint's step may be moved, because no step of phase two depends on it. No
 * switch is set before the checkpoint's step.
 */
static void
run_switch(struct run *r, struct state *stored)
{
	uint64_t asked = r->phase.switch_step, was = stored->switch_step;
	bool by_margin = asked == PHASE_UNKNOWN, moved;

	if (was < stored->step || (was == stored->step && (by_margin ? strcmp(stored->switch_by, "steps") != 0 : asked <= was))) {
		if (!by_margin && asked != was && asked != 0)
			log_warn("switch.stays", "phase_one.steps=%" PRIu64 " switched_at=%" PRIu64, asked, was);
		r->phase.switch_step = was;
		return;
	}
	stored->released = false;
	if (by_margin) {
		/*
		 * If the margin decided it earlier, the handover is in progress: keep it. A value of
		 * phase_one.steps does not count.
		 */
		if (strcmp(stored->switch_by, "steps") != 0)
			r->phase.switch_step = was;
		moved = was != r->phase.switch_step;
	} else if (asked < stored->step) {
		log_warn("switch.now", "phase_one.steps=%" PRIu64 " step=%" PRIu64, asked, stored->step);
		r->phase.switch_step = stored->step;
		moved = false;
	} else {
		moved = was != asked;
	}
	if (moved)
		log_info("switch.moved", "was=%" PRId64 " is=%" PRId64 " hint=\"-1: when the margin is met\"", (int64_t)was, (int64_t)r->phase.switch_step);
	snprintf(stored->switch_by, sizeof(stored->switch_by), "%s", by_margin ? "margin" : "steps");
}

/* Loads weights and optimiser state from the newest checkpoint, or sets initial ones. Collective. */
static int
run_restore(struct run *r, bool *found, struct err_note *note)
{
	struct state stored;
	int rc;

	if ((rc = save_same_file_system(r->comm, &r->save, note)) != 0 ||
	    (rc = save_load(r->step, r->comm, &r->save, &stored, found, note)) != 0)
		return rc;
	if (!*found) {
		r->state.switch_step = r->phase.switch_step;
		snprintf(r->state.switch_by, sizeof(r->state.switch_by), "%s", r->phase.switch_step == PHASE_UNKNOWN ? "margin" : "steps");
		if ((rc = agree(r->comm, run_weights(r, note), note)) == 0)
			step_spread(r->step);
		return rc;
	}
	run_class(r, &stored.identity);
	if ((rc = state_identity_check(&stored.identity, &r->state.identity, note)) != 0)
		return rc;
	run_switch(r, &stored);
	stored.identity = r->state.identity;
	r->state = stored;
	r->saved_step = stored.step;
	r->evaluated_step = stored.evaluated_step;
	r->switched = stored.step > r->phase.switch_step;
	log_info("resume", "step=%" PRIu64, stored.step);
	crash_point("trainer.resumed");
	return 0;
}

static int
run_feed(struct run *r, const struct loop_options *o, bool resumed, struct err_note *note)
{
	struct feed_options fo = {.bus = o->bus, .config = r->config, .corpus = r->train, .heldout = r->heldout,
	    .corpus_fingerprint = r->state.identity.corpus, .heldout_fingerprint = r->state.identity.heldout,
	    .has_tokenizer = r->save.tokenizer != NULL, .tokenizer = r->tokenizer_id,
	    .vocab_size = (uint32_t)step_model(r->step)->config.vocab_size, .rank = r->rank, .n_ranks = comm_size(r->comm), .phase = r->phase,
	    .first_step = r->state.step, .resumed = resumed ? &r->state : NULL, .status = r->status, .name = o->name,
	    .status_endpoint = o->status_endpoint};

	return feed_new(&r->feed, &fo, note);
}

/*
 * Opens a TensorBoard file. Readers then drop what earlier starts wrote about later steps, or about all steps
 * if the run begins at step 0.
 */
static void
run_tensorboard(struct run *r, bool resumed)
{
	struct err_note note = {.name = ""};
	char dir[4200], text[1024], quoted[1200];
	int rc;

	if (!r->config->trainer.tensorboard)
		return;
	snprintf(dir, sizeof(dir), "%s/tb", r->config->run.dir);
	if ((rc = tensorboard_open(&r->tensorboard, dir, resumed ? r->state.step + 1 : 0, &note)) != 0)
		log_warn("tensorboard.none", "why=%s", log_quote(err_note_str(&note, rc, text, sizeof(text)), quoted, sizeof(quoted)));
}

/*
 * Checks that all ranks have the same loss weights. Labels do not depend on them, so nothing else would
 * detect it. Collective.
 */
static int
run_same_weights(const struct run *r, struct err_note *note)
{
	char hex[2][HASH_HEX_BYTES];
	struct hash128 first = r->weights.identity;

	comm_bcast(r->comm, 0, &first, sizeof(first));
	if (hash_equal(first, r->weights.identity))
		return 0;
	return err_expect_at(note, ERR_MISMATCH, "corpus.train", "rank %d", "the loss weights of rank 0, %s (zeros: none)", "%s", r->rank,
	    hash_hex(first, hex[0]), hash_hex(r->weights.identity, hex[1]));
}

int
run_new(struct run **out, const struct loop_options *o, struct err_note *note)
{
	struct run *r = calloc(1, sizeof(*r));
	struct hash128 train, heldout;
	bool found;
	int rc;

	*out = NULL;
	if (r == NULL)
		return ENOMEM;
	r->config = o->config;
	r->comm = o->comm;
	r->status = o->status;
	r->rank = comm_rank(o->comm);
	r->saved_step = r->evaluated_step = UINT64_MAX;
	r->state.teacher_nats = NAN;
	run_plan(r);
	run_metrics(r);
	if ((rc = agree(r->comm, run_open(r, &train, &heldout, note), note)) != 0 ||
	    (rc = agree(r->comm, r->rank == 0 ? run_directory(r, note) : 0, note)) != 0)
		goto fail;
	gpu_look(r->comm, r->status, r->config->run.dir, r->kernels);
	if ((rc = agree(r->comm, run_same_weights(r, note), note)) != 0)
		goto fail;
	run_identity(r, train, heldout);
	/*
	 * Until here each rank read its own files, of any size. From here on no rank waits for another longer
	 * than a slow disk takes.
	 */
	if ((r->watchdog = watchdog_new(r->comm, r->config->trainer.stall_s)) == NULL) {
		rc = err_note_set(note, errno, "watchdog");
		goto fail;
	}
	status_set(r->m_direct, comm_device_peers(r->comm, r->kernels) ? 1 : 0);
	watchdog_long(r->watchdog, "loading a checkpoint", run_checkpoint_s(r));
	if ((rc = run_restore(r, &found, note)) != 0)
		goto fail;
	rc = r->rank == 0 ? run_open_metrics(r, note) : 0;
	if (rc == 0 && r->rank == 0)
		run_tensorboard(r, found);
	if (rc == 0)
		rc = run_feed(r, o, found, note);
	if ((rc = agree(r->comm, rc, note)) != 0)
		goto fail;
	watchdog_progress(r->watchdog, "start");
	*out = r;
	return 0;
fail:
	run_destroy(&r);
	return rc;
}

void
run_destroy(struct run **run)
{
	struct run *r = *run;

	if (r == NULL)
		return;
	watchdog_destroy(&r->watchdog);
	feed_destroy(&r->feed);
	tensorboard_close(&r->tensorboard);
	metrics_close(&r->metrics);
	judge_destroy(&r->judge);
	step_destroy(&r->step);
	corpus_destroy(&r->heldout);
	corpus_destroy(&r->train);
	kernels_destroy(&r->kernels);
	lock_release(&r->lock);
	free(r);
	*run = NULL;
}
