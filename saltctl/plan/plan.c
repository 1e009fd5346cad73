/* SPDX-License-Identifier: Apache-2.0 */
/* plan: capacity estimate of a configuration: memory, bytes, FLOPs, seconds, and whether a teacher pays. */
#include "saltctl/plan/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/cpus/cpus.h"
#include "data/corpus/blend.h"
#include "data/corpus/corpus.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"
#include "saltctl/model/lm.h"
#include "engine/infer/infer.h"
#include "engine/kernels/kernels.h"
#include "data/labels/labels.h"
#include "engine/weights/weights.h"

#define PAGE 4096.0			/* of LMDB */
#define PAGE_HEADER 16.0
#define INLINE_MAX 2000.0		/* longer values have pages of their own */
#define KEY 9.0
#define NODE 8.0

static const struct cli_option options[] = {
	CTL_CONFIG,
	{"ranks", "R,R,...", "numbers of ranks: powers of two that divide trainer.lanes; default trainer.ranks", false},
	{"measured", "RUN", "seconds from this run's folder or metrics.jsonl, scaled by FLOPs if its model differs", false},
	{"measure", NULL, "seconds from a few micro-batches of the model on this machine, with trainer.threads", false},
	{"flops-per-second", "F", "a core's, as an assumption where nothing was measured", false},
	{"network", "FILE", "latency and bandwidth as bench_network --json wrote them; or", false},
	{"latency", "S", "seconds of one exchange between two hosts, and", false},
	{"bandwidth", "B", "bytes a second, each way", false},
	{"local-network", "FILE", "the same for two ranks of one host; default as --network", false},
	{"ranks-per-host", "P", "a power of two; default 1", false},
	{"cores", "N", "of a host, for the trainer; default: those that may be used here", false},
	{"overlap", "X", "share of the reduction's transfers hidden by backward, 0 to 1; default: as measured, else 0", false},
	{"device-memory", "GIB", "what fits on a GPU of so much memory; default: the one that is found here", false},
	{"saving", "X", "share of the steps that a teacher is expected to save; default 0.27 (paper: 0.25 to 0.29; docs/results.md: 0.14 and 0.17 for small students, 0.26 and 0.20 with Muon)", false},
	{"label-bytes", "B", "bytes of a token's label; default: the measured run's, else an estimate", false},
	CTL_JSON, CTL_END
};

/*
 * Loads a teacher whose architecture the engine does not support, for a declared compute class. FLOPs are
 * estimated as 6 per parameter and token, without attention.
 */
static int
load_foreign(struct plan_model *m, const char *path, const struct model_config *student, struct err_note *note)
{
	struct lm_foreign f;
	int rc = lm_foreign(path, &f, note);

	if (rc != 0)
		return rc;
	m->config = (struct model_config){.vocab_size = student->vocab_size};
	m->n_params = f.n_params;
	m->flops = 6 * (double)f.n_params;
	snprintf(m->remark, sizeof(m->remark), ", %s: FLOPs as 6 a parameter", f.type);
	return 0;
}

static int
load_model(const struct ctl_args *args, struct plan_model *m, const char *key, const char *path, uint32_t context)
{
	struct err_note note = {.name = ""};
	struct model *table = NULL;
	int rc;

	snprintf(m->path, sizeof(m->path), "%s", path);
	if ((rc = weights_config_load(path, &m->config, &note)) != 0 || (rc = model_new(&table, &m->config,
	    &note)) != 0)
		return ctl_fail(args, rc, &note);
	m->n_params = table->n_params;
	model_destroy(&table);
	m->flops = model_flops_per_token(&m->config, context);
	if ((int64_t)context > m->config.context)
		return ctl_fail(args, err_expect(&note, ERR_CONFIG, "corpus.context",
		    "at most %" PRId64 ", what %s (%s) can take", "%" PRIu32, m->config.context, key, path,
		    context), &note);
	return 0;
}

static int
load_teacher(const struct ctl_args *args, const struct plan *p, struct plan_model *m, const char *key, const char *path)
{
	struct err_note note = {.name = ""};
	struct model_config known;
	int rc;

	if (config_compute_class(p->cfg) == NULL || weights_config_load(path, &known, NULL) != ERR_UNSUPPORTED)
		return load_model(args, m, key, path, p->cfg->corpus.context);
	snprintf(m->path, sizeof(m->path), "%s", path);
	rc = load_foreign(m, path, &p->student.config, &note);
	return rc != 0 ? ctl_fail(args, err_note_within(&note, rc, key), &note) : 0;
}

/*
 * Checks the initial weights of trainerd: trainer.init must fit the shape if it exists. Weights in the folder
 * of trainer.model are not used, which a warning says.
 */
static int
check_init(const struct ctl_args *args, const struct config *cfg, const struct model_config *shape)
{
	const char *init = cfg->trainer.init;
	struct err_note note = {.name = ""};
	struct weights_model *w = NULL;
	struct model *model = NULL;
	int rc;

	if (init[0] == '\0') {
		if (weights_present(cfg->trainer.model))
			fprintf(stderr, "saltctl plan: warning: training starts from random weights, not from those in trainer.model %s; "
			    "set trainer.init to start from them, or name the folder's config.json in trainer.model\n", cfg->trainer.model);
		return 0;
	}
	if ((rc = model_new(&model, shape, &note)) == 0)
		rc = weights_model_open(&w, init, model, &note);
	weights_model_close(&w);
	model_destroy(&model);
	return rc == 0 || (rc == ENOENT && access(init, F_OK) != 0) ? 0 : ctl_fail(args, err_note_within(&note, rc, "trainer.init"), &note);
}

/* Resolves a configured backend and dtype as this machine would; with --device-memory, auto means a GPU. */
static int
compute_of(const struct plan *p, enum config_backend backend, enum config_dtype dtype, bool *gpu, enum dtype *found,
    struct err_note *note)
{
	struct kernels_options ko = {.backend = (enum kernels_backend)backend, .dtype = (enum kernels_dtype)dtype};
	char class[64];
	int rc;

	if (backend == CONFIG_BACKEND_AUTO && isfinite(p->gpu_bytes))
		ko.backend = KERNELS_BACKEND_CUDA;
	if ((rc = kernels_resolve(&ko, class, sizeof(class), note)) != 0)
		return rc;
	*gpu = strcmp(class + strcspn(class, "/"), "/cuda") == 0;
	*found = strncmp(class, "bf16", 4) == 0 ? DTYPE_BF16 : DTYPE_F32;
	return 0;
}

/* Finds whether trainer and teachers compute on a GPU, and its memory. Returns an exit code. */
static int
devices_of(const struct ctl_args *args, struct plan *p, enum dtype *teacher)
{
	const struct config *cfg = p->cfg;
	struct err_note note = {.name = ""};
	enum config_dtype dtype;
	double gib = NAN;
	int exit_code, rc;

	if ((exit_code = ctl_get_num(args, "device-memory", 0.001, 1e6, &gib)) != 0)
		return exit_code;
	p->gpu_bytes = gib * 1073741824.0;
	p->teacher_params = p->teacher_worker = NAN;
	if ((rc = compute_of(p, config_trainer_backend(cfg), config_trainer_dtype(cfg), &p->shape.gpu,
	    &p->shape.dtype, &note)) != 0)
		return ctl_fail(args, rc, &note);
	if (config_phase_one(cfg) && config_compute_class(cfg) == NULL &&
	    ((rc = config_teacher_dtype(cfg, &dtype, &note)) != 0 ||
	    (rc = compute_of(p, cfg->compute.backend, dtype, &p->teacher_gpu, teacher, &note)) != 0))
		return ctl_fail(args, rc, &note);
	if (isfinite(gib) && !p->shape.gpu && !p->teacher_gpu)
		return ctl_usage(args, "--device-memory: expected cuda or auto in compute.backend or trainer.backend, found neither");
	if (!isfinite(gib) && (p->shape.gpu || p->teacher_gpu) && kernels_device(&p->gpu, NULL) == 0)
		p->gpu_bytes = (double)p->gpu.memory_bytes;
	return 0;
}

/* Computes the memory of a teacherd on a GPU, which holds both teacher and scorer. */
static void
teacher_room(struct plan *p, enum dtype dtype)
{
	const struct model_config *models[] = {&p->teacher.config, &p->scorer.config};
	const struct config *cfg = p->cfg;
	bool two = strcmp(p->teacher.path, p->scorer.path) != 0, dense = cfg->labels.kind == LABELS_KIND_DENSE;

	if (!p->teacher_gpu)
		return;
	p->teacher_workers = cfg->teacher.threads > 0 ? (int)cfg->teacher.threads : INFER_GPU_WORKERS;
	p->teacher_params = (double)(p->teacher.n_params + (two ? p->scorer.n_params : 0)) * (double)dtype_size(dtype);
	p->teacher_worker = fit_label(models, two ? 2 : 1, dtype, 1, cfg->corpus.context, dense);
}

/*
 * Counts the sequences that the run trains on from each part: the first steps * batch positions of the
 * shuffle order, or those chosen from it in phase one.
 */
static int
look_at_parts(struct plan *p, const struct corpus *c, struct err_note *note)
{
	struct blend *order;
	int rc = corpus_blend(&order, c, p->cfg->corpus.context, note);

	if (rc != 0)
		return rc;
	p->n_parts = corpus_n_parts(c);
	p->parts = ctl_alloc(p->n_parts, sizeof(*p->parts));
	for (size_t i = 0; i < p->n_parts; i++) {
		struct plan_part *part = &p->parts[i];
		uint32_t period, share = blend_share(order, i, &period);

		snprintf(part->prefix, sizeof(part->prefix), "%s", corpus_prefix(corpus_part(c, i)));
		part->share = (double)share / period;
		part->windows = corpus_n_windows(corpus_part(c, i), p->cfg->corpus.context);
		part->sequences = blend_taken(order, i, p->cfg->trainer.steps * p->cfg->trainer.batch);
	}
	blend_destroy(&order);
	return 0;
}

/* Reads a corpus. A missing one is no error, a bad one is. p: set for the training corpus; else NULL. */
static int
look_at_corpus(const struct ctl_args *args, const struct config *cfg, const char *prefix, uint64_t *windows, double *bytes, struct plan *p)
{
	struct err_note note = {.name = ""};
	struct corpus *c = NULL;
	int rc;

	*windows = 0;
	if (prefix[0] == '\0')
		return 0;
	if ((rc = corpus_open_as(&c, prefix, cfg->corpus.dtype, &note)) != 0)
		return rc == ENOENT ? 0 : ctl_fail(args, rc, &note);
	*windows = corpus_n_windows(c, cfg->corpus.context);
	if (bytes != NULL)
		*bytes = (double)corpus_n_tokens(c) * (corpus_info(c)->dtype == CORPUS_DTYPE_UINT16 ? 2 :
		    corpus_info(c)->kind == CORPUS_KIND_NPY ? 8 : 4);
	if (p != NULL && *windows > 0)
		rc = look_at_parts(p, c, &note);
	corpus_destroy(&c);
	return rc == 0 ? 0 : ctl_fail(args, rc, &note);
}

static int
ranks_of(const struct ctl_args *args, struct plan *p)
{
	const char *text = ctl_get(args, "ranks");
	uint64_t lanes = p->shape.lanes;
	char *end;

	if (text == NULL) {
		p->ranks[p->n_ranks++] = (int)p->cfg->trainer.ranks;
		if (lanes % p->cfg->trainer.ranks == 0)
			return 0;
		return ctl_usage(args,
		    "trainer.ranks: expected a power of two that divides trainer.lanes (%" PRIu64 "), found %" PRIu32 "; give --ranks",
		    lanes, p->cfg->trainer.ranks);
	}
	for (;; text = end + 1) {
		unsigned long long r = strtoull(text, &end, 10);

		if (end == text || text[0] == '-' || (*end != '\0' && *end != ',') || r == 0 ||
		    (r & (r - 1)) != 0 || lanes % r != 0)
			return ctl_usage(args,
			    "--ranks: expected powers of two that divide trainer.lanes (%" PRIu64 "), as in 1,2,4; found \"%.40s\"",
			    lanes, text);
		if (p->n_ranks == PLAN_MAX_RANKS)
			return ctl_usage(args, "--ranks: at most %d of them", PLAN_MAX_RANKS);
		p->ranks[p->n_ranks++] = (int)r;
		if (*end == '\0')
			return 0;
	}
}

static int
machine_of(const struct ctl_args *args, struct plan *p)
{
	struct price_machine *m = &p->machine;
	uint64_t per_host = 1;
	const char *file;
	struct err_note note = {.name = ""};
	int exit_code, rc;

	*m = (struct price_machine){.cores = cpus_here(), .threads = p->cfg->trainer.threads,
	    .between = {0, INFINITY}, .sum_bytes_per_s = INFINITY};
	if ((exit_code = ctl_get_num(args, "cores", 0.01, 1e6, &m->cores)) != 0 ||
	    (exit_code = ctl_get_u64(args, "ranks-per-host", 1, 1024, &per_host)) != 0 ||
	    (exit_code = ctl_get_num(args, "overlap", 0, 1, &m->overlap)) != 0)
		return exit_code;
	if ((per_host & (per_host - 1)) != 0)
		return ctl_usage(args, "--ranks-per-host: expected a power of two, found %" PRIu64, per_host);
	m->ranks_per_host = (int)per_host;
	if ((file = ctl_get(args, "network")) != NULL) {
		if (ctl_has(args, "latency") || ctl_has(args, "bandwidth"))
			return ctl_usage(args, "give --network FILE, or --latency and --bandwidth");
		if ((rc = plan_read_network(file, &m->between, &m->sum_bytes_per_s, &note)) != 0)
			return ctl_fail(args, rc, &note);
		snprintf(p->network_source, sizeof(p->network_source), "%s", file);
	} else if (ctl_has(args, "latency") || ctl_has(args, "bandwidth")) {
		if (!ctl_has(args, "latency") || !ctl_has(args, "bandwidth"))
			return ctl_usage(args,
			    "--latency and --bandwidth go together: --latency 20e-6 --bandwidth 12.5e9");
		if ((exit_code = ctl_get_num(args, "latency", 0, 10, &m->between.latency_s)) != 0 ||
		    (exit_code = ctl_get_num(args, "bandwidth", 1, 1e15, &m->between.bytes_per_s)) != 0)
			return exit_code;
		snprintf(p->network_source, sizeof(p->network_source), "as given");
	}
	m->within = m->between;
	if ((file = ctl_get(args, "local-network")) != NULL &&
	    (rc = plan_read_network(file, &m->within, &m->sum_bytes_per_s, &note)) != 0)
		return ctl_fail(args, rc, &note);
	return 0;
}

static int
seconds_of(const struct ctl_args *args, struct plan *p)
{
	struct plan_measured *m = &p->measured;
	bool run = ctl_has(args, "measured"), here = ctl_has(args, "measure"), said = ctl_has(args, "flops-per-second");
	struct err_note note = {.name = ""};
	int exit_code, rc = 0;

	*m = (struct plan_measured){.compute = {NAN, NAN, NAN, NAN}, .flops_per_s = NAN, .label_bytes = NAN,
	    .step_s = NAN, .early = NAN};
	if (run + here + said > 1)
		return ctl_usage(args, "give one of --measured, --measure and --flops-per-second");
	if (run)
		rc = plan_read_run(p, ctl_get(args, "measured"), &note);
	else if (here)
		rc = plan_measure_here(p, &note);
	if (rc != 0)
		return ctl_fail(args, rc, &note);
	if (isfinite(m->early) && !ctl_has(args, "overlap"))
		p->machine.overlap = m->early < 1 ? m->early : 1;
	if (said) {
		if ((exit_code = ctl_get_num(args, "flops-per-second", 1, 1e18, &m->flops_per_s)) != 0)
			return exit_code;
		m->compute = (struct price_compute){.micro_s = (p->shape.recompute ? 4.0 / 3 : 1) *
		    p->student.flops * (double)(p->shape.micro_batch * p->shape.context) / m->flops_per_s,
		    .cores = 1};
		snprintf(m->source, sizeof(m->source), "assumed: %g FLOP/s a core; the update is not counted",
		    m->flops_per_s);
	}
	return 0;
}

/* Average number of bytes of a value in the cache, including key, node and page overhead. */
static double
stored(double value)
{
	value += 8;			/* checksum */
	if (value + KEY + NODE <= INLINE_MAX)
		return value + KEY + NODE;
	return ceil((value + PAGE_HEADER) / PAGE) * PAGE + KEY + 2 * NODE;
}

/*
 * Bytes of a distinct id and its count after entropy coding, measured with SmolLM2-135M on English manuals,
 * 50 draws at tau 1 (docs/performance.md).
 */
#define BYTES_OF_UNIQUE 1.3

/* Bytes per token of a label record of version 3; for sampled labels an estimate. */
static void
label_size(const struct ctl_args *args, struct plan *p, double given)
{
	const struct config_labels *l = &p->cfg->labels;
	double vocab = (double)p->teacher.config.vocab_size, id = vocab <= 65536 ? 2 : vocab <= 16777216 ? 3 : 4;

	p->shape.label_entries = l->kind == LABELS_KIND_SAMPLED ? price_unique(l->samples) :
	    l->kind == LABELS_KIND_TOPK ? l->k : vocab / 2;
	p->label_source = "exact";
	if (l->kind == LABELS_KIND_TOPK)
		p->label_bytes = l->k * (id + 2);
	else if (l->kind == LABELS_KIND_DENSE)
		p->label_bytes = 2 * vocab;
	else {
		p->label_bytes = BYTES_OF_UNIQUE * p->shape.label_entries;
		p->label_source =
		    "an estimate: distinct ids of that many draws as others measured them, 1.3 bytes for each";
	}
	if (ctl_has(args, "label-bytes")) {
		p->label_bytes = given;
		p->label_source = "as given";
	} else if (isfinite(p->measured.label_bytes)) {
		p->label_bytes = p->measured.label_bytes;
		p->label_source = "of the measured run";
	}
}

static void
price_teacher(struct plan *p)
{
	const struct config *cfg = p->cfg;
	double context = (double)cfg->corpus.context;
	bool selects = cfg->selector.mode == CONFIG_MODE_SALT_DS, one = strcmp(p->teacher.path, p->scorer.path) == 0;
	uint64_t block, kept;

	config_block(cfg, &block, &kept);
	price_work(&p->work, p->phase_one_steps * cfg->trainer.batch, block, kept, selects, one, p->n_windows);
	p->score_bytes = selects ? LABELS_SCORE_BYTES : NAN;
	p->labels_stored = (double)(cfg->cache.keep_unselected ? p->work.labelled : p->work.stored) *
	    stored(LABELS_OVERHEAD_BYTES + p->label_bytes * context);
	p->scores_stored = (double)(p->work.scored + p->heldout_windows) * stored(LABELS_SCORE_BYTES * context);
	p->teacher_flops = ((double)(p->work.labelled + p->heldout_windows) * p->teacher.flops +
	    (p->work.one_pass ? 0 : (double)p->work.scored * p->scorer.flops)) / 3 * context;
}

/* Sets the optimizer's split of the parameters and its FLOPs. */
static int
optimizer_of(struct plan *p, struct err_note *note)
{
	struct model *m = NULL;
	int rc = model_new(&m, &p->student.config, note);

	if (rc == 0)
		rc = optim_split_new(&p->split, m, (enum optim_kind)p->cfg->trainer.optimizer);
	for (int i = 0; rc == 0 && i < m->n_tensors && p->cfg->trainer.optimizer == CONFIG_OPTIMIZER_MUON; i++)
		for (int j = 0; j < m->tensors[i].n_matrices; j++) {
			struct model_matrix x = model_matrix(m, i, j);

			p->muon_flops += optim_muon_flops(x.rows, x.cols);
		}
	if (rc == 0 && p->muon_flops > 0)
		fit_muon(&p->shape, m);
	p->shape.split = p->split;
	model_destroy(&m);
	return rc;
}

static int
fill(const struct ctl_args *args, struct plan *p)
{
	const struct config *cfg = p->cfg;
	struct fit_shape *s = &p->shape;
	double saving = 0.27, label_bytes = NAN, margin, tokens;
	struct err_note note = {.name = ""};
	enum dtype teacher = DTYPE_F32;
	char word[16];
	int exit_code, rc;

	if ((exit_code = load_model(args, &p->student, "trainer.model", cfg->trainer.model, cfg->corpus.context)) != 0 ||
	    (exit_code = check_init(args, cfg, &p->student.config)) != 0)
		return exit_code;
	*s = (struct fit_shape){.model = &p->student.config, .n_params = p->student.n_params,
	    .batch = cfg->trainer.batch, .micro_batch = cfg->trainer.micro_batch, .lanes = cfg->trainer.lanes,
	    .context = cfg->corpus.context, .deterministic = cfg->trainer.deterministic != CONFIG_SWITCH_OFF,
	    .recompute = config_get_text(cfg, "trainer.recompute", word, sizeof(word)) == 0 &&
	    strcmp(word, "true") == 0};
	if ((exit_code = devices_of(args, p, &teacher)) != 0)
		return exit_code;
	if ((rc = optimizer_of(p, &note)) != 0)
		return ctl_fail(args, rc, &note);
	if (s->batch % s->lanes != 0 || s->micro_batch == 0 || s->batch / s->lanes % s->micro_batch != 0)
		return ctl_fail(args, err_expect(&note, ERR_CONFIG, "trainer.batch",
		    "a multiple of trainer.lanes * trainer.micro_batch = %" PRIu64, "%" PRIu64,
		    s->lanes * s->micro_batch, s->batch), &note);
	p->has_teacher = config_phase_one(cfg);
	p->until_margin = config_until_margin(cfg, &margin);
	p->phase_one_steps = p->until_margin || cfg->phase_one.steps > cfg->trainer.steps ? cfg->trainer.steps :
	    cfg->phase_one.steps;
	if (!p->has_teacher)
		p->phase_one_steps = 0;
	if (p->has_teacher && ((exit_code = load_teacher(args, p, &p->teacher, "teacher.model", cfg->teacher.model)) != 0 ||
	    (exit_code = load_teacher(args, p, &p->scorer, "teacher.scorer", cfg->teacher.scorer[0] != '\0' ? cfg->teacher.scorer :
	    cfg->teacher.model)) != 0))
		return exit_code;
	p->corpus_bytes = p->label_bytes = p->score_bytes = p->labels_stored = p->scores_stored = NAN;
	if ((exit_code = look_at_corpus(args, cfg, cfg->corpus.train, &p->n_windows,
	    &p->corpus_bytes, p)) != 0 || (exit_code = look_at_corpus(args, cfg, cfg->corpus.heldout,
	    &p->heldout_windows, NULL, NULL)) != 0 || (exit_code = ranks_of(args, p)) != 0 ||
	    (exit_code = machine_of(args, p)) != 0 || (exit_code = seconds_of(args, p)) != 0 ||
	    (exit_code = ctl_get_num(args, "saving", 0, 1, &saving)) != 0 ||
	    (exit_code = ctl_get_num(args, "label-bytes", 0, 1e9, &label_bytes)) != 0)
		return exit_code;
	if (cfg->trainer.eval_sequences > 0 &&
	    (p->heldout_windows == 0 || cfg->trainer.eval_sequences < p->heldout_windows))
		p->heldout_windows = cfg->corpus.heldout[0] != '\0' ? cfg->trainer.eval_sequences : 0;
	p->evaluations = (cfg->trainer.eval_every > 0 ? cfg->trainer.steps / cfg->trainer.eval_every : 0) +
	    (cfg->trainer.eval_every == 0 || cfg->trainer.steps % cfg->trainer.eval_every != 0);
	tokens = (double)cfg->trainer.steps * (double)cfg->trainer.batch * (double)cfg->corpus.context;
	p->baseline_flops = tokens * p->student.flops;
	p->eval_flops = (double)p->evaluations * (double)p->heldout_windows * (double)cfg->corpus.context *
	    p->student.flops / 3;
	p->checkpoint_bytes = 8.0 * (double)p->student.n_params + 4.0 * (double)p->split->n_second;
	if (p->has_teacher) {
		label_size(args, p, label_bytes);
		teacher_room(p, teacher);
		price_teacher(p);
		price_worth(&p->worth, (double)p->student.n_params, (double)p->teacher.n_params,
		    p->baseline_flops, p->teacher_flops, tokens, saving);
	}
	for (size_t i = 0; i < p->n_ranks; i++) {
		s->threads = (int)ceil(price_cores(&p->machine, p->ranks[i]));
		if ((rc = fit_train(s, p->ranks[i], p->memory[i], &note)) != 0)
			return ctl_fail(args, rc, &note);
		if (s->gpu && isfinite(p->gpu_bytes)) {
			p->fit[i].fits = fit_sum(p->memory[i]) <= p->gpu_bytes - PLAN_CONTEXT_BYTES;
			p->fit[i].other = fit_find(s, p->ranks[i], p->gpu_bytes - PLAN_CONTEXT_BYTES, &p->fit[i].with);
		}
		price_time(&p->time[i], s, &p->machine, &p->measured.compute, p->ranks[i]);
	}
	price_time(&p->one, s, &p->machine, &p->measured.compute, 1);
	return 0;
}

static int
plan(struct ctl_args *args)
{
	static struct plan p;
	int exit_code = ctl_open_config(args, CONFIG_NEED_TRAINER, &p.cfg);

	if (exit_code == 0 && p.cfg->corpus.context == 0)
		exit_code = ctl_usage(args, "corpus.context is missing");
	if (exit_code == 0 && (exit_code = fill(args, &p)) == 0)
		exit_code = ctl_has(args, "json") ? plan_print_json(&p) : plan_print_text(&p);
	optim_split_destroy(&p.split);
	free(p.parts);
	config_destroy(&p.cfg);
	return exit_code;
}

const struct ctl_verb ctl_plan = {
	.name = "plan", .operands = "", .summary = "estimates of a run: memory, bytes, FLOPs, seconds, and when a teacher saves more than it costs",
	.about = "Needs the configuration and the models' config.json; corpora are read if they exist.\n"
	    "Seconds need --measured, --measure or --flops-per-second; the network --network (from bench_network)\n"
	    "or --latency and --bandwidth. The estimate assumes that threads speed up a rank in proportion, as\n"
	    "long as the host has cores for them.",
	.example = "saltctl plan -c fleet.yaml --measured run/baseline --ranks 1,2,4,8 --latency 20e-6 --bandwidth 1.25e9",
	.options = options, .run = plan,
};
