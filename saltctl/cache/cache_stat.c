/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/config/config.h"
#include "saltctl/cache/cache.h"
#include "saltctl/core/output.h"
#include "base/json/json.h"

static const struct cli_option options[] = {
	CTL_CACHE,
	{"sample", "N", "records of each kind to read, evenly spread; 0: all (default 2000)", false},
	{"k", "K", "for the histogram of S(x); default selector.k of -c, else 10", false},
	{"quarantine", NULL, "list the sequences in quarantine", false},
	{"fidelity", NULL, "label a few sequences again with the teacher and compare", false},
	{"teacher", "FOLDER", "with --fidelity: the model that made the labels; default teacher.model of -c", false},
	{"windows", "N", "with --fidelity: how many sequences (default 4)", false},
	CTL_CORPORA, CTL_JSON, CTL_END
};

struct facts {
	struct json *identity, *plans, *quarantine;
	struct cache_stat stat;
	struct cache_look look;
	struct cache_cover *cover;
	size_t n_cover;
	struct json *fidelity;			/* NULL without --fidelity */
	uint64_t context, windows;
};

static int
take_identity(void *arg, const char *name, const char *value)
{
	struct facts *f = arg;

	ctl_put(f->identity, name, value);
	if (strcmp(name, "context") == 0)
		f->context = strtoull(value, NULL, 10);
	if (strcmp(name, "windows") == 0)
		f->windows = strtoull(value, NULL, 10);
	return 0;
}

static int
take_plan(void *arg, const struct cache_plan *p)
{
	struct facts *f = arg;

	ctl_push(f->plans, ctl_record(CTL("plan", cache_hex(p->hash)), CTL("mode", p->mode == 0 ? "none" : "salt_ds"),
	    CTL("seed", p->seed), CTL("batch", p->batch), CTL("block", p->window), CTL("kept", p->kept),
	    CTL("rows", p->n_rows), CTL("oldest_step", p->oldest_step), CTL("released", p->released)));
	return 0;
}

static int
take_quarantine(void *arg, const struct cache_quarantine *q)
{
	struct facts *f = arg;

	ctl_push(f->quarantine, ctl_record(CTL("seq", q->seq), CTL("since", q->since_s), CTL("reason", q->reason)));
	return 0;
}

/* Finds the k of the first plan that chooses sequences: the default without -c and --k. */
static int
first_k(void *arg, const struct cache_plan *p)
{
	uint64_t *k = arg;

	if (*k == 0 && p->mode != 0)
		*k = p->k;
	return 0;
}

static int
look(struct cache_job *job, struct facts *f)
{
	struct cache_txn *txn = NULL;
	uint64_t max = 2000, k = job->cfg != NULL ? job->cfg->selector.k : 0;
	struct cache *c;
	int rc;

	if ((job->exit_code = ctl_get_u64(job->args, "sample", 0, UINT64_MAX, &max)) != 0 ||
	    (job->exit_code = ctl_get_u64(job->args, "k", 1, 255, &k)) != 0)
		return ERR_USAGE;
	if ((rc = cache_open(&c, job->dir, CACHE_READ, 0, &job->note)) != 0)
		return rc;
	job->c = c;
	if ((rc = cache_stat(c, &f->stat)) == 0 && (rc = cache_identity_each(c, take_identity, f)) == 0 &&
	    (rc = cache_txn_begin(c, &txn)) == 0 && (rc = cache_plans_each(txn, take_plan, f)) == 0)
		rc = cache_quarantine_each(txn, take_quarantine, f);
	if (rc == 0 && k == 0)
		rc = cache_plans_each(txn, first_k, &k);
	cache_txn_end(&txn);
	if (rc != 0)
		return rc;
	if ((rc = cache_id_read(c, &job->id, &job->note)) != 0) {
		err_note_place(&job->note, "%s", job->dir);
		return rc;
	}
	cache_job_missing(job, &job->id);
	if ((rc = cache_cover(c, &f->cover, &f->n_cover)) == 0)
		rc = cache_look(c, &job->id, max, k != 0 ? (unsigned)k : 10, &f->look);
	if (rc == 0 && ctl_has(job->args, "fidelity"))
		rc = job->exit_code = cache_fidelity(job, &f->fidelity);
	return rc;
}

static const struct cache_cover *
cover_of(const struct facts *f, const char *hex)
{
	struct hash128 plan;

	if (hash_from_hex(&plan, hex) != 0)
		return NULL;
	for (size_t i = 0; i < f->n_cover; i++)
		if (hash_equal(f->cover[i].plan, plan))
			return &f->cover[i];
	return NULL;
}

static double
label_bytes_per_token(const struct facts *f)
{
	uint64_t n = f->stat.table[CACHE_TABLE_LABELS].n_records;

	return n > 0 && f->context > 0 ? (double)f->stat.table[CACHE_TABLE_LABELS].n_bytes / ((double)n *
	    (double)f->context) : 0;
}

static const char *
text(const struct json *o, const char *key)
{
	return ctl_text_of(o, key, "?");
}

/* Adds the members of --json that come from the contents of the records. */
static void
put_looks(struct json *o, struct facts *f)
{
	const struct cache_look *l = &f->look;
	struct json *bins = ctl_array();
	uint64_t bin[CACHE_LOOK_BINS];

	cache_look_bins(l, bin);
	for (int i = 0; i < CACHE_LOOK_BINS; i++)
		ctl_push(bins, ctl_record(CTL("from", l->s_max * i / CACHE_LOOK_BINS),
		    CTL("to", l->s_max * (i + 1) / CACHE_LOOK_BINS), CTL("sequences", bin[i])));
	ctl_put_all(o, CTL("labels", ctl_record(CTL("looked_at", l->n_labels), CTL("damaged", l->n_damaged),
	    CTL("record_bytes_per_token", (double)l->label_bytes / (double)l->label_tokens),
	    CTL("entropy_bits", l->entropy_bits), CTL("unique_ids_per_token", l->unique),
	    CTL("distinct_ids", l->distinct_ids))), CTL("scores", ctl_record(CTL("looked_at", l->n_scores),
	    CTL("k", l->k), CTL("mean_loss_nats", l->mean_loss_nats), CTL("in_top_k", l->in_top_k),
	    CTL("histogram", bins))), CTL("coverage", ctl_record(CTL("windows", f->windows),
	    CTL("labelled", f->stat.table[CACHE_TABLE_LABELS].n_records))));
	for (size_t i = 0; i < json_count(f->plans); i++) {
		struct json *p = json_item(f->plans, i);
		const struct cache_cover *v = cover_of(f, text(p, "plan"));

		ctl_put_all(p, CTL("rows_written", v != NULL ? v->rows : 0), CTL("rows_labelled",
		    v != NULL ? v->labelled : 0), CTL("rows_quarantined", v != NULL ? v->quarantined : 0));
	}
	if (f->fidelity != NULL)
		ctl_put(o, "fidelity", f->fidelity);
	f->fidelity = NULL;
}

static void
print_looks(const struct facts *f)
{
	static const char bar[] = "########################################";
	const struct cache_look *l = &f->look;
	uint64_t bin[CACHE_LOOK_BINS], most = 1;

	if (l->n_labels > 0)
		ctl_line("labels", "%.2f bytes a token as encoded, %.2f ids and %.3f bits of entropy a token, %" PRIu64
		    " different ids (%" PRIu64 " records read)",
		    (double)l->label_bytes / (double)l->label_tokens, l->unique, l->entropy_bits,
		    l->distinct_ids, l->n_labels);
	if (l->n_damaged > 0)
		ctl_line("damaged", "%" PRIu64 " records of those read: saltctl cache fsck", l->n_damaged);
	if (l->n_scores == 0)
		return;
	ctl_line("scores", "%.4f nats a token, %.1f %% of tokens among the first %u (%zu records read)",
	    l->mean_loss_nats, 100 * l->in_top_k, l->k, l->n_scores);
	cache_look_bins(l, bin);
	for (int i = 0; i < CACHE_LOOK_BINS; i++)
		most = bin[i] > most ? bin[i] : most;
	printf("\nS(x), nats, with k = %u\n", l->k);
	for (int i = 0; i < CACHE_LOOK_BINS; i++)
		printf("  %7.3f .. %7.3f  %10" PRIu64 "  %.*s\n", l->s_max * i / CACHE_LOOK_BINS,
		    l->s_max * (i + 1) / CACHE_LOOK_BINS, bin[i], (int)((double)bin[i] / (double)most * 40),
		    bar);
}

static void
print_fidelity(const struct json *o)
{
	const char *was = text(o, "compute_class_stored"), *is = text(o, "compute_class_here");
	int64_t n = ctl_int_of(o, "sequences", 0), same = ctl_int_of(o, "same_bytes_as_stored", 0);
	int64_t twice = ctl_int_of(o, "same_bytes_run_twice", 0);

	printf("\nfidelity, against the teacher\n");
	ctl_line("labelled again", "%" PRId64 " of %" PRId64 " sequences gave the stored bytes", same, n);
	ctl_line("run twice", "%" PRId64 " of %" PRId64 " gave the same bytes twice%s", twice, n,
	    twice == n ? ": the teacher repeats itself" : ": this teacher does NOT repeat itself");
	if (ctl_flag_of(o, "declared_class"))
		ctl_line("computed with", "%s, a declared class, when stored; teacherd's engine, %s, is used instead of the teacher. Its distance "
		    "is what counts, equal bytes are not promised", was, is);
	else if (strcmp(was, is) != 0)
		ctl_line("computed with", "%s when stored, %s here: other bytes are to be expected", was, is);
	ctl_line("KL(label, teacher)", "%.5f nats a token stored, %.5f a fresh sample under another seed",
	    ctl_num_of(o, "kl_nats", NAN), ctl_num_of(o, "kl_nats_other_seed", NAN));
	ctl_line("total variation", "%.5f stored, %.5f a fresh sample under another seed",
	    ctl_num_of(o, "total_variation", NAN), ctl_num_of(o, "total_variation_other_seed", NAN));
}

static struct json *
facts_json(const char *dir, struct facts *f)
{
	struct json *o, *tables = ctl_object();

	for (enum cache_table i = 0; i < CACHE_TABLES; i++)
		ctl_put(tables, cache_table_name(i),
		    ctl_record(CTL("records", f->stat.table[i].n_records), CTL("bytes", f->stat.table[i].n_bytes)));
	o = ctl_record(CTL("cache", dir), CTL("identity", f->identity), CTL("tables", tables),
	    CTL("label_bytes_per_token", label_bytes_per_token(f) > 0 ? label_bytes_per_token(f) : NAN),
	    CTL("file_bytes", f->stat.file_bytes), CTL("used_bytes", f->stat.used_bytes),
	    CTL("map_bytes", f->stat.map_bytes), CTL("readers", f->stat.n_readers));
	put_looks(o, f);
	ctl_put_all(o, CTL("plans", f->plans), CTL("quarantine", f->quarantine));
	f->identity = f->plans = f->quarantine = NULL;
	return o;
}

static void
facts_print(const char *dir, const struct facts *f, bool quarantine)
{
	struct ctl_table *t = ctl_table_new("table\t>records\t>bytes");
	uint64_t labels = f->stat.table[CACHE_TABLE_LABELS].n_records,
	    scores = f->stat.table[CACHE_TABLE_SCORES].n_records;
	char a[32], b[32], c[32];

	ctl_line("cache", "%s", dir);
	for (void *it = json_first(f->identity); it != NULL; it = json_next(f->identity, it))
		ctl_line(json_key(it), "%s", text(f->identity, json_key(it)));
	ctl_line("size", "%s on disk, %s of %s of the map used", ctl_bytes((double)f->stat.file_bytes, a),
	    ctl_bytes((double)f->stat.used_bytes, b), ctl_bytes((double)f->stat.map_bytes, c));
	if (f->windows > 0)
		ctl_line("covered",
		    "%" PRIu64 " labels, %" PRIu64 " scores (with held-out ones) for %" PRIu64 " windows: %.2f %% labelled",
		    labels, scores, f->windows, 100 * (double)labels / (double)f->windows);
	if (label_bytes_per_token(f) > 0)
		ctl_line("label bytes", "%.1f a token, as stored", label_bytes_per_token(f));
	ctl_line("quarantine", "%zu sequences", json_count(f->quarantine));
	print_looks(f);
	putchar('\n');
	for (enum cache_table i = 0; i < CACHE_TABLES; i++)
		ctl_table_add(t, "%s\t%" PRIu64 "\t%s", cache_table_name(i), f->stat.table[i].n_records,
		    ctl_bytes((double)f->stat.table[i].n_bytes, a));
	ctl_table_end(&t);
	if (json_count(f->plans) > 0) {
		putchar('\n');
		t = ctl_table_new("plan\tmode\t>seed\t>batch\t>kept of block\t>rows\t>written\t>labelled\treleased");
		for (size_t i = 0; i < json_count(f->plans); i++) {
			const struct json *p = json_item(f->plans, i);
			const struct cache_cover *v = cover_of(f, text(p, "plan"));

			ctl_table_add(t,
			    "%s\t%s\t%" PRId64 "\t%" PRId64 "\t%" PRId64 " of %" PRId64 "\t%" PRId64 "\t%" PRIu64 "\t%" PRIu64
			    "\t%s", text(p, "plan"), text(p, "mode"), ctl_int_of(p, "seed", 0),
			    ctl_int_of(p, "batch", 0), ctl_int_of(p, "kept", 0), ctl_int_of(p, "block", 0),
			    ctl_int_of(p, "rows", 0), v != NULL ? v->rows : 0, v != NULL ? v->labelled : 0,
			    ctl_flag_of(p, "released") ? "yes" : "no");
		}
		ctl_table_end(&t);
	}
	for (size_t i = 0; quarantine && i < json_count(f->quarantine); i++)
		printf("%s%" PRId64 "  %s\n", i == 0 ? "\nin quarantine\n" : "",
		    ctl_int_of(json_item(f->quarantine, i), "seq", 0), text(json_item(f->quarantine, i),
		    "reason"));
	if (f->fidelity != NULL)
		print_fidelity(f->fidelity);
}

static int
show(struct cache_job *job, void *arg)
{
	struct facts f = {.identity = ctl_object(), .plans = ctl_array(), .quarantine = ctl_array()};
	int rc = look(job, &f);

	(void)arg;
	if (rc == 0 && job->all != NULL) {
		ctl_push(job->all, facts_json(job->dir, &f));
	} else if (rc == 0) {
		if (job->i > 0)
			putchar('\n');
		facts_print(job->dir, &f, ctl_has(job->args, "quarantine"));
	}
	json_close(&f.identity);
	json_close(&f.plans);
	json_close(&f.quarantine);
	json_close(&f.fidelity);
	cache_look_free(&f.look);
	free(f.cover);
	return rc;
}

static int
run(struct ctl_args *args)
{
	struct cache_job job;
	int exit_code;

	if (!ctl_has(args, "fidelity") && (ctl_has(args, "teacher") || ctl_has(args, "windows")))
		return ctl_usage(args, "--teacher and --windows need --fidelity");
	exit_code = cache_job_begin(&job, args, ctl_has(args, "fidelity"));
	return cache_job_end(&job, exit_code != 0 ? exit_code : cache_job_each(&job, show, NULL));
}

const struct ctl_verb ctl_cache_stat = {
	.name = "cache stat", .operands = "", .summary = "the contents of a cache of labels",
	.about = "Opens the cache for reading, also while selectord works on it. Sizes of tables are those of\n"
	    "pages on disk. Entropy, ids and S(x) are means over records spread evenly over the corpus. Every\n"
	    "shard is shown. --fidelity needs the corpus.",
	.example = "saltctl cache stat -c fleet.yaml --fidelity",
	.options = options, .run = run,
};
