#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "saltctl/core/output.h"
#include "saltctl/plan/plan.h"
#include "base/json/json.h"

static const struct {
	const char *key, *title;
} items[PRICE_MEMORY_ITEMS] = {
	[PRICE_MASTERS] = {"masters", "parameters, fp32"},
	[PRICE_COPY] = {"compute_copy", "copy in compute dtype"},
	[PRICE_MOMENTS] = {"moments", "AdamW's m and v"},
	[PRICE_GRADIENTS] = {"gradients", "gradients, with the tree"},
	[PRICE_SCRATCH] = {"scratch", "received gradients"},
	[PRICE_ACTIVATIONS] = {"activations", "activations"},
	[PRICE_ROWS] = {"rows", "rows and labels ahead"},
};

static double
memory_sum(const double bytes[PRICE_MEMORY_ITEMS])
{
	double sum = 0;

	for (int i = 0; i < PRICE_MEMORY_ITEMS; i++)
		sum += bytes[i];
	return sum;
}

static bool
timed(const struct plan *p)
{
	return p->measured.source[0] != '\0';
}

/* Seconds from the start to step `steps`, evaluations in proportion. */
static double
eta(const struct plan *p, size_t i, uint64_t steps)
{
	double eval = p->eval_flops / p->measured.flops_per_s / (p->time[i].ranks * p->time[i].cores);

	return (double)steps * p->time[i].step_s + eval * (double)steps / (double)p->cfg->trainer.steps;
}

/* Cores that teachers need so that this many steps a second never wait. */
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
	const char *titles[1 + PLAN_MAX_RANKS] = {"memory of a rank"};
	char names[PLAN_MAX_RANKS][16], buf[32];
	struct ctl_table *t;

	for (size_t i = 0; i < p->n_ranks; i++) {
		snprintf(names[i], sizeof(names[i]), ">R = %d", p->ranks[i]);
		titles[1 + i] = names[i];
	}
	t = ctl_table_new(titles, 1 + p->n_ranks);
	for (int item = 0; item <= PRICE_MEMORY_ITEMS; item++) {
		ctl_table_cell(t, "%s", item < PRICE_MEMORY_ITEMS ? items[item].title : "in all");
		for (size_t i = 0; i < p->n_ranks; i++)
			ctl_table_cell(t, "%s", ctl_bytes(item < PRICE_MEMORY_ITEMS ? p->memory[i][item] : memory_sum(p->memory[i]), buf));
	}
	printf("\n");
	ctl_table_print(t, stdout);
	ctl_table_free(&t);
}

static void
print_time(const struct plan *p)
{
	static const char *const titles[] = {">ranks", ">hosts", ">cores", ">compute", ">update", ">reduce", ">hidden", ">gather", ">step",
	    ">tokens/s", ">efficiency", ">to switch", ">to end"};
	struct ctl_table *t = ctl_table_new(titles, 13);
	char buf[32];

	for (size_t i = 0; i < p->n_ranks; i++) {
		const struct price_time *e = &p->time[i];
		const double seconds[] = {e->compute_s, e->update_s, e->reduce_s, e->hidden_s, e->gather_s, e->step_s};

		ctl_table_cell(t, "%d", e->ranks);
		ctl_table_cell(t, "%d", e->hosts);
		ctl_table_cell(t, "%.3g", e->cores);
		for (size_t c = 0; c < sizeof(seconds) / sizeof(seconds[0]); c++)
			ctl_table_cell(t, "%s", ctl_span(seconds[c], buf));
		ctl_table_cell(t, "%s", ctl_count((double)(p->shape.batch * p->shape.context) / e->step_s, buf));
		ctl_table_cell(t, "%.1f %%", 100 * price_efficiency(&p->one, e));
		ctl_table_cell(t, "%s", p->phase_one_steps > 0 ? ctl_span(eta(p, i, p->phase_one_steps), buf) : "-");
		ctl_table_cell(t, "%s", ctl_span(eta(p, i, p->cfg->trainer.steps), buf));
	}
	ctl_table_print(t, stdout);
	ctl_table_free(&t);
}

static void
print_teacher(const struct plan *p)
{
	const struct price_work *w = &p->work;
	const struct price_worth *e = &p->worth;
	char a[32], b[32];

	printf("\n");
	ctl_line("phase one", "%" PRIu64 " of %" PRIu64 " steps%s, %" PRIu64 " sequences", p->phase_one_steps, p->cfg->trainer.steps,
	    p->until_margin ? " at the most" : "", w->rows);
	if (w->blocks > 0)
		ctl_line("choice", "%" PRIu64 " blocks, %" PRIu64 " sequences scored%s", w->blocks, w->scored,
		    w->one_pass ? " and labelled in one pass" : "");
	ctl_line("teacher's work", "%s FLOPs: %.2f %% of the baseline's; %" PRIu64 " sequences labelled", ctl_count(p->teacher_flops, a),
	    100 * e->label_share, w->labelled);
	ctl_line("labels", "%.1f bytes a token (%s)", p->label_bytes, p->label_source);
	bytes_line("cache, labels", p->labels_stored, "");
	bytes_line("cache, scores", p->scores_stored, "");
	ctl_line("in line", "a phase-one step would cost %.3f times a plain one if the teacher ran inside the trainer", e->inline_factor);
	ctl_line("off the shelf", "pays if it saves more than %.2f %% of the steps", 100 * e->label_share);
	ctl_line("made for this", "on as many tokens as the student sees: pays above %.1f %%; at %.0f %% saved, trained on at most %s tokens",
	    100 * e->made_share, 100 * e->saving, e->teacher_tokens > 0 ? ctl_count(e->teacher_tokens, b) : "0 ");
}

int
plan_print_text(const struct plan *p)
{
	double tokens = (double)p->cfg->trainer.steps * (double)(p->shape.batch * p->shape.context);
	char a[32], b[32], c[32];

	ctl_line("run", "%s: %" PRIu64 " steps of %" PRIu64 " x %" PRIu64 " tokens, %s tokens; %s, %s", config_mode_name(p->cfg),
	    p->cfg->trainer.steps, p->shape.batch, p->shape.context, ctl_count(tokens, a), dtype_name(p->shape.dtype),
	    p->shape.recompute ? "with recompute" : "no recompute");
	ctl_line("student", "%s parameters (%s)", ctl_count((double)p->student.n_params, a), p->student.path);
	if (p->has_teacher)
		ctl_line("teacher", "%s parameters (%s)", ctl_count((double)p->teacher.n_params, a), p->teacher.path);
	ctl_line("FLOPs", "%s a token, %s a step, %s the run", ctl_count(p->student.flops, a),
	    ctl_count(p->student.flops * (double)(p->shape.batch * p->shape.context), b), ctl_count(p->baseline_flops, c));
	bytes_line("corpus", p->corpus_bytes, "");
	bytes_line("a checkpoint", p->checkpoint_bytes, "weights, m and v");
	print_memory(p);
	if (p->has_teacher)
		print_teacher(p);
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
		    ctl_bytes(p->machine.between.bytes_per_s, a), p->machine.overlap > 0 ? "; part of it during backward" : "");
	else
		ctl_line("network", "no figures given: what ranks send is not counted");
	printf("\n");
	print_time(p);
	printf("\nEfficiency: core-seconds of one rank / those of all. Waiting for labels, checkpoints and slow hosts are not in it.\n");
	if (p->has_teacher) {
		printf("Teachers keep up with");
		for (size_t i = 0; i < p->n_ranks; i++)
			printf("%s R = %d: %.2g cores", i > 0 ? "," : "", p->ranks[i], teacher_cores(p, i));
		printf(" at the trainer's FLOP/s.\n");
	}
	return 0;
}

/* ---- JSON ---- */

static struct json *
memory_json(const struct plan *p)
{
	struct json *list = ctl_array();

	for (size_t i = 0; i < p->n_ranks; i++) {
		struct json *o = ctl_object();

		ctl_put_int(o, "ranks", p->ranks[i]);
		for (int item = 0; item < PRICE_MEMORY_ITEMS; item++) {
			char key[48];

			snprintf(key, sizeof(key), "%s_bytes", items[item].key);
			ctl_put_num(o, key, p->memory[i][item]);
		}
		ctl_put_num(o, "total_bytes", memory_sum(p->memory[i]));
		ctl_push(list, o);
	}
	return list;
}

static struct json *
time_json(const struct plan *p)
{
	struct json *list = ctl_array();

	for (size_t i = 0; timed(p) && i < p->n_ranks; i++) {
		const struct price_time *e = &p->time[i];
		struct json *o = ctl_object();

		ctl_put_int(o, "ranks", e->ranks);
		ctl_put_int(o, "hosts", e->hosts);
		ctl_put_num(o, "cores", e->cores);
		ctl_put_num(o, "compute_seconds", e->compute_s);
		ctl_put_num(o, "update_seconds", e->update_s);
		ctl_put_num(o, "reduce_seconds", e->reduce_s);
		ctl_put_num(o, "hidden_seconds", e->hidden_s);
		ctl_put_num(o, "gather_seconds", e->gather_s);
		ctl_put_num(o, "small_seconds", e->small_s);
		ctl_put_num(o, "other_seconds", e->other_s);
		ctl_put_num(o, "step_seconds", e->step_s);
		ctl_put_num(o, "tokens_per_second", (double)(p->shape.batch * p->shape.context) / e->step_s);
		ctl_put_num(o, "efficiency", price_efficiency(&p->one, e));
		ctl_put_num(o, "sent_bytes", e->bytes);
		ctl_put_num(o, "switch_seconds", p->phase_one_steps > 0 ? eta(p, i, p->phase_one_steps) : NAN);
		ctl_put_num(o, "end_seconds", eta(p, i, p->cfg->trainer.steps));
		ctl_put_num(o, "teacher_cores", p->has_teacher ? teacher_cores(p, i) : NAN);
		ctl_push(list, o);
	}
	return list;
}

static struct json *
model_json(const struct plan_model *m)
{
	struct json *o = ctl_object();

	ctl_put_text(o, "path", m->path);
	ctl_put_int(o, "params", m->n_params);
	ctl_put_num(o, "flops_per_token", m->flops);
	return o;
}

static struct json *
teacher_json(const struct plan *p)
{
	const struct price_work *w = &p->work;
	struct json *o = model_json(&p->teacher);

	ctl_put_int(o, "steps", (int64_t)p->phase_one_steps);
	ctl_put_int(o, "rows", (int64_t)w->rows);
	ctl_put_int(o, "blocks", (int64_t)w->blocks);
	ctl_put_int(o, "scored_sequences", (int64_t)w->scored);
	ctl_put_int(o, "labelled_sequences", (int64_t)w->labelled);
	ctl_put_int(o, "stored_sequences", (int64_t)w->stored);
	ctl_put(o, "one_pass", json_new_flag(w->one_pass));
	ctl_put_num(o, "flops", p->teacher_flops);
	ctl_put_num(o, "label_bytes_per_token", p->label_bytes);
	ctl_put_text(o, "label_bytes_are", p->label_source);
	ctl_put_num(o, "score_bytes_per_token", p->score_bytes);
	ctl_put_num(o, "cache_label_bytes", p->labels_stored);
	ctl_put_num(o, "cache_score_bytes", p->scores_stored);
	ctl_put_num(o, "inline_factor", p->worth.inline_factor);
	ctl_put_num(o, "share_of_baseline_flops", p->worth.label_share);
	ctl_put_num(o, "assumed_saving", p->worth.saving);
	ctl_put_num(o, "break_even_off_the_shelf", p->worth.label_share);
	ctl_put_num(o, "break_even_made_for_this", p->worth.made_share);
	ctl_put_num(o, "break_even_teacher_tokens", p->worth.teacher_tokens);
	return o;
}

int
plan_print_json(const struct plan *p)
{
	double step_tokens = (double)(p->shape.batch * p->shape.context);
	struct json *root = ctl_object(), *o;

	ctl_put_text(root, "mode", config_mode_name(p->cfg));
	ctl_put_int(root, "steps", (int64_t)p->cfg->trainer.steps);
	ctl_put_num(root, "tokens", step_tokens * (double)p->cfg->trainer.steps);
	ctl_put_text(root, "dtype", dtype_name(p->shape.dtype));
	ctl_put(root, "recompute", json_new_flag(p->shape.recompute));
	ctl_put(root, "student", model_json(&p->student));
	ctl_put(root, "teacher", p->has_teacher ? teacher_json(p) : json_new_null());
	ctl_put_num(root, "flops_per_step", p->student.flops * step_tokens);
	ctl_put_num(root, "flops", p->baseline_flops);
	ctl_put_num(root, "corpus_bytes", p->corpus_bytes);
	ctl_put_num(root, "checkpoint_bytes", p->checkpoint_bytes);
	ctl_put(root, "memory", memory_json(p));
	o = ctl_object();
	ctl_put_text(o, "source", timed(p) ? p->measured.source : NULL);
	ctl_put_text(o, "remark", p->measured.remark[0] != '\0' ? p->measured.remark : NULL);
	ctl_put_num(o, "micro_batch_seconds", p->measured.compute.micro_s);
	ctl_put_num(o, "update_seconds", p->measured.compute.update_s);
	ctl_put_num(o, "cores", p->measured.compute.cores);
	ctl_put_num(o, "flops_per_second_per_core", p->measured.flops_per_s);
	ctl_put_num(o, "step_seconds", p->measured.step_s);
	ctl_put(root, "measured", o);
	o = ctl_object();
	ctl_put_text(o, "source", p->network_source[0] != '\0' ? p->network_source : NULL);
	ctl_put_num(o, "latency_seconds", p->network_source[0] != '\0' ? p->machine.between.latency_s : NAN);
	ctl_put_num(o, "bytes_per_second", p->machine.between.bytes_per_s);
	ctl_put_num(o, "overlap", p->machine.overlap);
	ctl_put(root, "network", o);
	ctl_put(root, "projection", time_json(p));
	return ctl_print_json(root);
}
