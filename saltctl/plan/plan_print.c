/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "saltctl/core/output.h"
#include "saltctl/plan/plan.h"
#include "base/json/json.h"

static const struct {
	const char *key, *title;
} items[FIT_ITEMS] = {
	[FIT_MASTERS] = {"masters", "parameters, fp32"},
	[FIT_COPY] = {"compute_copy", "copy in compute dtype"},
	[FIT_MOMENTS] = {"moments", "optimizer's moments"},
	[FIT_GRADIENTS] = {"gradients", "gradients, with the tree"},
	[FIT_RECEIVED] = {"scratch", "received gradients"},
	[FIT_MUON] = {"muon", "Newton-Schulz"},
	[FIT_ACTIVATIONS] = {"activations", "activations"},
	[FIT_PRODUCTS] = {"products", "logits, repacked weights"},
	[FIT_ROWS] = {"rows", "rows and labels ahead"},
};

static bool
timed(const struct plan *p)
{
	return p->measured.source[0] != '\0';
}

/* Seconds from the start to step `steps`, including the evaluations up to there. */
static double
eta(const struct plan *p, size_t i, uint64_t steps)
{
	double eval = p->eval_flops / p->measured.flops_per_s / (p->time[i].ranks * p->time[i].cores);

	return (double)steps * p->time[i].step_s + eval * (double)steps / (double)p->cfg->trainer.steps;
}

/* Number of teacher cores with which the trainer never waits for labels. */
static double
teacher_cores(const struct plan *p, size_t i)
{
	return p->teacher_flops / (double)p->phase_one_steps / p->measured.flops_per_s / p->time[i].step_s;
}

/* ---- text ---- */

static void
bytes_line(const char *name, double bytes, const char *what)
{
	char buf[32];

	if (isfinite(bytes))
		ctl_line(name, "%s%s%s", ctl_bytes(bytes, buf), what[0] != '\0' ? ", " : "", what);
	else
		ctl_line(name, "- (not there yet)");
}

static void
print_memory(const struct plan *p)
{
	char titles[32 + 16 * PLAN_MAX_RANKS] = "memory of a rank", buf[32];
	struct ctl_table *t;

	for (size_t i = 0; i < p->n_ranks; i++)
		snprintf(titles + strlen(titles), sizeof(titles) - strlen(titles), "\t>R = %d", p->ranks[i]);
	t = ctl_table_new(titles);
	for (int item = 0; item <= FIT_ITEMS; item++) {
		ctl_table_add(t, "%s", item < FIT_ITEMS ? items[item].title : "in all");
		for (size_t i = 0; i < p->n_ranks; i++)
			ctl_table_add(t, "%s", ctl_bytes(item < FIT_ITEMS ? p->memory[i][item] :
			    fit_sum(p->memory[i]), buf));
	}
	printf("\n");
	ctl_table_end(&t);
}

static bool
on_gpu(const struct plan *p)
{
	return p->shape.gpu || p->teacher_gpu;
}

static double
teacher_sum(const struct plan *p)
{
	return p->teacher_params + p->teacher_workers * p->teacher_worker;
}

/* "trainer.micro_batch: 4 and trainer.recompute: true" */
static const char *
changes(const struct plan *p, const struct plan_fit *f, char *buf, size_t size)
{
	snprintf(buf, size, "trainer.micro_batch: %" PRIu64 "%s", f->with.micro_batch,
	    f->with.recompute && !p->shape.recompute ? " and trainer.recompute: true" : "");
	return buf;
}

/* Prints whether a rank, a teacher and both fit on the GPU, and what to change if not. */
static void
print_gpu(const struct plan *p)
{
	double has = p->gpu_bytes - PLAN_CONTEXT_BYTES;
	char a[32], b[32], c[32], name[32], with[96];
	int threads;

	if (!on_gpu(p))
		return;
	if (p->gpu.memory_bytes > 0)
		ctl_line_gpu(&p->gpu);
	if (!isfinite(has)) {
		ctl_line("GPU", "none found; give --device-memory GIB to check what fits on one");
		return;
	}
	ctl_line("GPU memory", "%s, about %s of it for CUDA itself", ctl_bytes(p->gpu_bytes, a),
	    ctl_bytes(PLAN_CONTEXT_BYTES, b));
	for (size_t i = 0; p->shape.gpu && i < p->n_ranks; i++) {
		snprintf(name, sizeof(name), "a rank, R = %d", p->ranks[i]);
		ctl_bytes(fit_sum(p->memory[i]), a);
		if (p->fit[i].fits)
			ctl_line(name, "fits: %s, %s free", a, ctl_bytes(has - fit_sum(p->memory[i]), b));
		else if (p->fit[i].other)
			ctl_line(name, "does not fit: %s; with %s it does", a, changes(p, &p->fit[i], with,
			    sizeof(with)));
		else
			ctl_line(name, "does not fit: %s, and with no trainer.micro_batch: more ranks, a smaller model or a "
			    "larger GPU", a);
	}
	if (!isfinite(teacher_sum(p)))
		return;
	threads = (int)fmax(0, floor((has - p->teacher_params) / p->teacher_worker));
	with[0] = '\0';
	if (teacher_sum(p) > has)
		snprintf(with, sizeof(with), "; teacher.threads: %d %s", threads > 0 ? threads : 1, threads > 0 ?
		    "does" : "does not either");
	ctl_line("a teacher", "%s: %s, %s of parameters and %d x %s (teacher.threads)%s", with[0] == '\0' ? "fits" :
	    "does not fit", ctl_bytes(teacher_sum(p), a), ctl_bytes(p->teacher_params, b), p->teacher_workers,
	    ctl_bytes(p->teacher_worker, c), with);
	if (p->shape.gpu)
		ctl_line("both on one GPU", "%s: a rank of R = %d and a teacher take %s",
		    fit_sum(p->memory[0]) + teacher_sum(p) <= has - PLAN_CONTEXT_BYTES ? "fit" : "do not fit",
		    p->ranks[0],
		    ctl_bytes(fit_sum(p->memory[0]) + teacher_sum(p) + PLAN_CONTEXT_BYTES, a));
}

static void
print_time(const struct plan *p)
{
	struct ctl_table *t =
	    ctl_table_new(">ranks\t>hosts\t>cores\t>compute\t>update\t>reduce\t>hidden\t>gather\t>step\t>tokens/s"
	    "\t>efficiency\t>to switch\t>to end");
	char a[32], b[32], c[32];

	for (size_t i = 0; i < p->n_ranks; i++) {
		const struct price_time *e = &p->time[i];
		const double seconds[] = {e->compute_s, e->update_s, e->reduce_s, e->hidden_s, e->gather_s, e->step_s};

		ctl_table_add(t, "%d\t%d\t%.3g", e->ranks, e->hosts, e->cores);
		for (size_t s = 0; s < sizeof(seconds) / sizeof(seconds[0]); s++)
			ctl_table_add(t, "%s", ctl_span(seconds[s], a));
		ctl_table_add(t, "%s\t%.1f %%\t%s\t%s", ctl_count((double)(p->shape.batch *
		    p->shape.context) / e->step_s, a), 100 * price_efficiency(&p->one, e),
		    p->phase_one_steps > 0 ? ctl_span(eta(p, i, p->phase_one_steps), b) : "-",
		    ctl_span(eta(p, i, p->cfg->trainer.steps), c));
	}
	ctl_table_end(&t);
}

static void
print_teacher(const struct plan *p)
{
	const struct price_work *w = &p->work;
	const struct price_worth *e = &p->worth;
	char a[32];

	printf("\n");
	ctl_line("phase one", "%" PRIu64 " of %" PRIu64 " steps%s, %" PRIu64 " sequences", p->phase_one_steps,
	    p->cfg->trainer.steps, p->until_margin ? " at most" : "", w->rows);
	if (w->blocks > 0)
		ctl_line("choice", "%" PRIu64 " blocks, %" PRIu64 " sequences scored%s", w->blocks, w->scored,
		    w->one_pass ? " and labelled in one pass" : "");
	ctl_line("teacher's work", "%s FLOPs: %.2f %% of the baseline's; %" PRIu64 " sequences labelled",
	    ctl_count(p->teacher_flops, a), 100 * e->label_share, w->labelled);
	ctl_line("labels", "%.1f bytes a token (%s)", p->label_bytes, p->label_source);
	bytes_line("cache, labels", p->labels_stored, "");
	bytes_line("cache, scores", p->scores_stored, "");
}

/* Prints whether the teacher is expected to pay; docs/projection.md has the arithmetic. */
static void
print_worth(const struct plan *p)
{
	const struct price_worth *e = &p->worth;
	double steps = (double)p->cfg->trainer.steps, phase_one = (double)p->phase_one_steps / steps;
	double n_t = (double)p->teacher.n_params, n_s = (double)p->student.n_params;
	double tokens = steps * (double)(p->shape.batch * p->shape.context);
	char a[32];

	printf("\nWhen the teacher pays. Assumed: the baseline's final loss is there at step %.0f of %.0f, %.3g %% earlier (--saving).\n",
	    (1 - e->saving) * steps, steps, 100 * e->saving);
	ctl_line("off the shelf", "The teacher's work costs %.3g %% of the baseline's FLOPs. %s", 100 * e->label_share,
	    e->net_saving > 0 ? "It is expected to pay:" : "It is not expected to pay:");
	if (e->net_saving > 0)
		ctl_line("", "%.3g %% of the FLOPs are saved. It pays if that loss is there before step %.0f.", 100 * e->net_saving,
		    floor((1 - e->label_share) * steps));
	else
		ctl_line("", "%.3g %% more FLOPs than without it. It pays if more than %.3g %% of the steps are saved.",
		    -100 * e->net_saving, 100 * e->label_share);
	ctl_line("made for this", "Trained on as many tokens as the student, it costs %.3g %% with its training. %s",
	    100 * e->made_share, e->made_net_saving > 0 ? "It is expected to pay." : "It is not expected to pay.");
	if (e->teacher_tokens > 0)
		ctl_line("", "It pays if its training took less than %s tokens, %.3g %% of the student's.",
		    ctl_count(e->teacher_tokens, a), 100 * e->teacher_tokens / tokens);
	ctl_line("wall clock", "A teacher with cores of its own takes no time from the trainer.");
	ctl_line("", "Inside the trainer it would make a phase-one step %.3f times as long.", e->inline_factor);
	if (n_t >= n_s)
		ctl_line("warning", "The teacher has %.3g times the student's parameters. SALT is meant for a smaller one.", n_t / n_s);
	if (phase_one >= 1 && !p->until_margin)
		ctl_line("warning", "Phase one is the whole run. In the paper such runs end worse than those without a teacher.");
	else if (phase_one >= 0.5 && !p->until_margin)
		ctl_line("warning", "Phase one is %.3g %% of the steps. The paper tried 10 to 29 %%, and found them alike.", 100 * phase_one);
	ctl_line("measured", "docs/results.md has what such runs saved here, at which sizes, and with how good a teacher.");
}

int
plan_print_text(const struct plan *p)
{
	double tokens = (double)p->cfg->trainer.steps * (double)(p->shape.batch * p->shape.context);
	char a[32], b[32], c[32];

	ctl_line("run", "%s: %" PRIu64 " steps of %" PRIu64 " x %" PRIu64 " tokens, %s tokens; %s, %s",
	    config_mode_name(p->cfg), p->cfg->trainer.steps, p->shape.batch, p->shape.context,
	    ctl_count(tokens, a), dtype_name(p->shape.dtype), p->shape.recompute ? "with recompute" :
	    "no recompute");
	ctl_line("student", "%s parameters (%s)", ctl_count((double)p->student.n_params, a), p->student.path);
	if (p->has_teacher)
		ctl_line("teacher", "%s parameters (%s)%s", ctl_count((double)p->teacher.n_params, a), p->teacher.path,
		    p->teacher.remark);
	ctl_line("FLOPs", "%s a token, %s a step, %s the run", ctl_count(p->student.flops, a),
	    ctl_count(p->student.flops * (double)(p->shape.batch * p->shape.context), b),
	    ctl_count(p->baseline_flops, c));
	if (p->muon_flops > 0)
		ctl_line("optimizer", "muon: %s FLOPs a step for Newton-Schulz, %.1f %% of the model's", ctl_count(p->muon_flops, a),
		    100 * p->muon_flops / (p->student.flops * (double)(p->shape.batch * p->shape.context)));
	bytes_line("corpus", p->corpus_bytes, "");
	for (size_t i = 0; p->n_parts > 1 && i < p->n_parts; i++)
		ctl_line(i == 0 ? "blend" : "", "%.4g %%, %" PRIu64 " of %" PRIu64 " sequences, %.3g epochs (%s)", 100 * p->parts[i].share,
		    p->parts[i].sequences, p->parts[i].windows, (double)p->parts[i].sequences / (double)p->parts[i].windows, p->parts[i].prefix);
	if (p->n_parts > 1 && p->cfg->selector.mode != CONFIG_MODE_NONE && p->has_teacher && !p->cfg->selector.by_part)
		ctl_line("", "phase one chooses among all parts (selector.by_part: false): its shares follow from the scores");
	bytes_line("a checkpoint", p->checkpoint_bytes, "weights and moments");
	print_memory(p);
	print_gpu(p);
	ctl_line_cpus();
	if (p->has_teacher) {
		print_teacher(p);
		print_worth(p);
	}
	printf("\n");
	if (!timed(p)) {
		ctl_line("seconds", "not known: give --measured RUN, --measure or --flops-per-second F");
		return 0;
	}
	ctl_line("measured", "%s", p->measured.source);
	if (p->measured.remark[0] != '\0')
		ctl_line("", "%s", p->measured.remark);
	ctl_line("a core", "%s FLOP/s", ctl_count(p->measured.flops_per_s, a));
	if (p->network_source[0] != '\0')
		ctl_line("network", "%s: %.3g s, %s/s each way%s", p->network_source, p->machine.between.latency_s,
		    ctl_bytes(p->machine.between.bytes_per_s, a),
		    p->machine.overlap > 0 ? "; part of it during backward" : "");
	else
		ctl_line("network", "no figures given: what ranks send is not counted");
	printf("\n");
	print_time(p);
	printf("\nEfficiency: core-seconds of one rank / those of all. Waiting for labels, checkpoints and slow hosts are not in it.\n");
	if (p->has_teacher) {
		printf("Teachers keep up with");
		for (size_t i = 0; i < p->n_ranks; i++)
			printf(teacher_cores(p, i) < 99.5 ? "%s R = %d: %.2g cores" : "%s R = %d: %.0f cores",
			    i > 0 ? "," : "", p->ranks[i], teacher_cores(p, i));
		printf(" at the trainer's FLOP/s.\n");
	}
	return 0;
}

/* ---- JSON ---- */

static struct json *
memory_json(const struct plan *p)
{
	struct json *list = ctl_array();
	char key[48];

	for (size_t i = 0; i < p->n_ranks; i++) {
		struct json *o = ctl_record(CTL("ranks", p->ranks[i]));

		for (int item = 0; item < FIT_ITEMS; item++) {
			snprintf(key, sizeof(key), "%s_bytes", items[item].key);
			ctl_put(o, key, p->memory[i][item]);
		}
		ctl_put_all(o, CTL("total_bytes", fit_sum(p->memory[i])));
		if (p->shape.gpu && isfinite(p->gpu_bytes))
			ctl_put_all(o, CTL("fits", p->fit[i].fits), CTL("fits_with", p->fit[i].other ?
			    ctl_record(CTL("micro_batch", p->fit[i].with.micro_batch), CTL("recompute",
			    p->fit[i].with.recompute)) :
			    json_new_null()));
		ctl_push(list, o);
	}
	return list;
}

static struct json *
gpu_json(const struct plan *p)
{
	bool teacher = isfinite(teacher_sum(p)) && p->teacher_gpu;
	double has = p->gpu_bytes - PLAN_CONTEXT_BYTES;

	if (!on_gpu(p))
		return json_new_null();
	return ctl_record(CTL("memory_bytes", p->gpu_bytes), CTL("context_bytes", PLAN_CONTEXT_BYTES),
	    CTL("device", p->gpu.memory_bytes > 0 ? ctl_gpu(&p->gpu) : json_new_null()), CTL("trainer", p->shape.gpu),
	    CTL("teacher", teacher ? ctl_record(CTL("params_bytes", p->teacher_params), CTL("worker_bytes",
	    p->teacher_worker),
	    CTL("workers", p->teacher_workers), CTL("total_bytes", teacher_sum(p)), CTL("fits", isfinite(has) ?
	    json_new_flag(teacher_sum(p) <= has) : json_new_null())) : json_new_null()));
}

static struct json *
time_json(const struct plan *p)
{
	struct json *list = ctl_array();

	for (size_t i = 0; timed(p) && i < p->n_ranks; i++) {
		const struct price_time *e = &p->time[i];

		ctl_push(list, ctl_record(CTL("ranks", e->ranks), CTL("hosts", e->hosts),
		    CTL("cores", e->cores), CTL("compute_seconds", e->compute_s),
		    CTL("update_seconds", e->update_s), CTL("reduce_seconds", e->reduce_s),
		    CTL("hidden_seconds", e->hidden_s), CTL("gather_seconds", e->gather_s),
		    CTL("small_seconds", e->small_s), CTL("other_seconds", e->other_s),
		    CTL("step_seconds", e->step_s),
		    CTL("tokens_per_second", (double)(p->shape.batch * p->shape.context) / e->step_s),
		    CTL("efficiency", price_efficiency(&p->one, e)), CTL("sent_bytes", e->bytes),
		    CTL("switch_seconds", p->phase_one_steps > 0 ? eta(p, i, p->phase_one_steps) : NAN),
		    CTL("end_seconds", eta(p, i, p->cfg->trainer.steps)),
		    CTL("teacher_cores", p->has_teacher ? teacher_cores(p, i) : NAN)));
	}
	return list;
}

static struct json *
parts_json(const struct plan *p)
{
	struct json *list = ctl_array();

	for (size_t i = 0; i < p->n_parts; i++)
		ctl_push(list, ctl_record(CTL("prefix", p->parts[i].prefix), CTL("share", p->parts[i].share), CTL("sequences_there", p->parts[i].windows),
		    CTL("sequences", p->parts[i].sequences), CTL("epochs", (double)p->parts[i].sequences / (double)p->parts[i].windows)));
	return list;
}

static struct json *
model_json(const struct plan_model *m)
{
	return ctl_record(CTL("path", m->path), CTL("params", m->n_params), CTL("flops_per_token", m->flops));
}

static struct json *
teacher_json(const struct plan *p)
{
	const struct price_work *w = &p->work;

	return ctl_put_all(model_json(&p->teacher), CTL("steps", p->phase_one_steps), CTL("rows", w->rows),
	    CTL("blocks", w->blocks), CTL("scored_sequences", w->scored),
	    CTL("labelled_sequences", w->labelled),
	    CTL("stored_sequences", w->stored), CTL("one_pass", w->one_pass),
	    CTL("flops", p->teacher_flops), CTL("label_bytes_per_token", p->label_bytes),
	    CTL("label_bytes_are", p->label_source), CTL("score_bytes_per_token", p->score_bytes),
	    CTL("cache_label_bytes", p->labels_stored), CTL("cache_score_bytes", p->scores_stored),
	    CTL("inline_factor", p->worth.inline_factor),
	    CTL("share_of_baseline_flops", p->worth.label_share), CTL("assumed_saving", p->worth.saving),
	    CTL("break_even_off_the_shelf", p->worth.label_share),
	    CTL("break_even_made_for_this", p->worth.made_share),
	    CTL("break_even_teacher_tokens", p->worth.teacher_tokens),
	    CTL("net_saving_off_the_shelf", p->worth.net_saving), CTL("net_saving_made_for_this", p->worth.made_net_saving));
}

int
plan_print_json(const struct plan *p)
{
	double step_tokens = (double)(p->shape.batch * p->shape.context);
	const struct price_compute *c = &p->measured.compute;
	bool network = p->network_source[0] != '\0';

	return ctl_print_json(ctl_record(CTL("mode", config_mode_name(p->cfg)), CTL("steps", p->cfg->trainer.steps),
	    CTL("tokens", step_tokens * (double)p->cfg->trainer.steps), CTL("dtype", dtype_name(p->shape.dtype)),
	    CTL("recompute", p->shape.recompute), CTL("optimizer", config_word("trainer.optimizer", (int)p->cfg->trainer.optimizer)),
	    CTL("muon_flops_per_step", p->muon_flops), CTL("student", model_json(&p->student)),
	    CTL("teacher", p->has_teacher ? teacher_json(p) : json_new_null()),
	    CTL("flops_per_step", p->student.flops * step_tokens), CTL("flops", p->baseline_flops),
	    CTL("corpus_bytes", p->corpus_bytes), CTL("corpora", parts_json(p)), CTL("checkpoint_bytes", p->checkpoint_bytes),
	    CTL("memory", memory_json(p)), CTL("gpu", gpu_json(p)), CTL("measured", ctl_record(CTL("source",
	    timed(p) ? p->measured.source : NULL), CTL("remark", p->measured.remark[0] != '\0' ?
	    p->measured.remark : NULL), CTL("micro_batch_seconds", c->micro_s),
	    CTL("update_seconds", c->update_s), CTL("cores", c->cores), CTL("flops_per_second_per_core",
	    p->measured.flops_per_s), CTL("step_seconds", p->measured.step_s))),
	    CTL("network", ctl_record(CTL("source", network ? p->network_source : NULL),
	    CTL("latency_seconds", network ? p->machine.between.latency_s : NAN),
	    CTL("bytes_per_second", p->machine.between.bytes_per_s), CTL("overlap", p->machine.overlap))),
	    CTL("machine", ctl_cpus()), CTL("projection", time_json(p))));
}
