#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "data/cache/cache.h"
#include "fabric/config/config.h"
#include "saltctl/cache/cache.h"
#include "saltctl/core/output.h"
#include "base/json/json.h"

static const struct ctl_option options[] = {
	CTL_CACHE,
	{"sample", "N", "records of each kind to look into, evenly spread; 0: all (default 2000)", false},
	{"k", "K", "for the histogram of S(x); selector.k of -c, else 10", false},
	{"quarantine", NULL, "list the sequences in quarantine", false},
	{"fidelity", NULL, "label a few sequences again with the teacher and compare", false},
	{"teacher", "FOLDER", "with --fidelity: the model that made the labels; teacher.model of -c unless told", false},
	{"windows", "N", "with --fidelity: how many sequences (default 4)", false},
	CTL_CORPORA, CTL_JSON, CTL_END
};

struct facts {
	struct json *identity, *plans, *quarantine;
	struct cache_stat stat;
	struct cache_id id;
	struct cache_look look;
	struct cache_cover *cover;
	size_t n_cover;
	struct json *fidelity;			/* NULL unless asked for */
	uint64_t n_quarantine, context, windows;
};

static int
take_identity(void *arg, const char *name, const char *value)
{
	struct facts *f = arg;

	ctl_put_text(f->identity, name, value);
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
	struct json *o = ctl_object();
	char hex[HASH_HEX_BYTES];

	ctl_put_text(o, "plan", hash_hex(p->hash, hex));
	ctl_put_text(o, "mode", p->mode == 0 ? "none" : "salt_ds");
	ctl_put_int(o, "seed", p->seed);
	ctl_put_int(o, "batch", p->batch);
	ctl_put_int(o, "block", (int64_t)p->window);
	ctl_put_int(o, "kept", (int64_t)p->kept);
	ctl_put_int(o, "rows", (int64_t)p->n_rows);
	ctl_put_int(o, "oldest_step", (int64_t)p->oldest_step);
	ctl_put(o, "released", json_new_flag(p->released));
	ctl_push(f->plans, o);
	return 0;
}

static int
take_quarantine(void *arg, const struct cache_quarantine *q)
{
	struct facts *f = arg;
	struct json *o = ctl_object();

	ctl_put_int(o, "seq", (int64_t)q->seq);
	ctl_put_int(o, "since", q->since_s);
	ctl_put_text(o, "reason", q->reason);
	ctl_push(f->quarantine, o);
	f->n_quarantine++;
	return 0;
}

/* What the first plan of the cache chose with, where nobody says. */
static int
first_k(void *arg, const struct cache_plan *p)
{
	uint64_t *k = arg;

	if (*k == 0 && p->mode != 0)
		*k = p->k;
	return 0;
}

static int
look(struct ctl_args *args, const struct config *cfg, const struct cache_corpora *corpora, const char *dir, struct facts *f,
    struct err_note *note, int *exit_code)
{
	struct cache *cache = NULL;
	struct cache_txn *txn = NULL;
	uint64_t max = 2000, k = cfg != NULL ? cfg->selector.k : 0;
	int rc;

	if ((*exit_code = ctl_get_u64(args, "sample", 0, UINT64_MAX, &max)) != 0 || (*exit_code = ctl_get_u64(args, "k", 1, 255, &k)) != 0)
		return 0;

	if ((rc = cache_open(&cache, dir, CACHE_READ, 0, note)) != 0)
		return rc;
	if ((rc = cache_stat(cache, &f->stat)) == 0 && (rc = cache_identity_each(cache, take_identity, f)) == 0 &&
	    (rc = cache_txn_begin(cache, &txn)) == 0 && (rc = cache_plans_each(txn, take_plan, f)) == 0)
		rc = cache_quarantine_each(txn, take_quarantine, f);
	if (rc == 0 && k == 0)
		rc = cache_plans_each(txn, first_k, &k);
	cache_txn_end(&txn);
	if (rc != 0) {
		rc = err_note_set(note, rc, "%s", dir);
	} else if ((rc = cache_id_read(cache, &f->id, note)) != 0) {
		err_note_place(note, "%s", dir);
	} else if ((rc = cache_cover(cache, &f->cover, &f->n_cover)) != 0 ||
	    (rc = cache_look(cache, &f->id, max, k != 0 ? (unsigned)k : 10, &f->look)) != 0) {
		err_note_set(note, rc, "%s", dir);
	} else if (ctl_has(args, "fidelity")) {
		f->fidelity = ctl_object();
		*exit_code = cache_fidelity(args, cfg, cache, &f->id, corpora, f->fidelity);
	}
	cache_destroy(&cache);
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

	return n > 0 && f->context > 0 ? (double)f->stat.table[CACHE_TABLE_LABELS].n_bytes / ((double)n * (double)f->context) : 0;
}

static int64_t
whole(const struct json *o, const char *key)
{
	int64_t v = 0;

	return json_int(json_get(o, key), &v) ? v : 0;
}

static const char *
text(const struct json *o, const char *key)
{
	const char *s;

	return json_text(json_get(o, key), &s) ? s : "?";
}

/* The fields of --json that need the records' insides. */
static void
put_looks(struct json *o, struct facts *f)
{
	const struct cache_look *l = &f->look;
	struct json *labels = ctl_object(), *scores = ctl_object(), *bins = ctl_array(), *cover = ctl_object();
	uint64_t bin[CACHE_LOOK_BINS];

	ctl_put_int(labels, "looked_at", (int64_t)l->n_labels);
	ctl_put_int(labels, "damaged", (int64_t)l->n_damaged);
	ctl_put_num(labels, "record_bytes_per_token", l->label_tokens > 0 ? (double)l->label_bytes / (double)l->label_tokens : NAN);
	ctl_put_num(labels, "entropy_bits", l->entropy_bits);
	ctl_put_num(labels, "unique_ids_per_token", l->unique);
	ctl_put_int(labels, "distinct_ids", (int64_t)l->distinct_ids);
	ctl_put(o, "labels", labels);
	cache_look_bins(l, bin);
	ctl_put_int(scores, "looked_at", (int64_t)l->n_scores);
	ctl_put_int(scores, "k", l->k);
	ctl_put_num(scores, "mean_loss_nats", l->mean_loss_nats);
	ctl_put_num(scores, "in_top_k", l->in_top_k);
	for (int i = 0; i < CACHE_LOOK_BINS; i++) {
		struct json *b = ctl_object();

		ctl_put_num(b, "from", l->s_max * i / CACHE_LOOK_BINS);
		ctl_put_num(b, "to", l->s_max * (i + 1) / CACHE_LOOK_BINS);
		ctl_put_int(b, "sequences", (int64_t)bin[i]);
		ctl_push(bins, b);
	}
	ctl_put(scores, "histogram", bins);
	ctl_put(o, "scores", scores);
	ctl_put_int(cover, "windows", (int64_t)f->windows);
	ctl_put_int(cover, "labelled", (int64_t)f->stat.table[CACHE_TABLE_LABELS].n_records);
	ctl_put(o, "coverage", cover);
	for (size_t i = 0; i < json_count(f->plans); i++) {
		struct json *p = json_item(f->plans, i);
		const struct cache_cover *v = cover_of(f, text(p, "plan"));

		ctl_put_int(p, "rows_written", v != NULL ? (int64_t)v->rows : 0);
		ctl_put_int(p, "rows_labelled", v != NULL ? (int64_t)v->labelled : 0);
		ctl_put_int(p, "rows_quarantined", v != NULL ? (int64_t)v->quarantined : 0);
	}
	if (f->fidelity != NULL)
		ctl_put(o, "fidelity", f->fidelity);
	f->fidelity = NULL;
}

static double
number(const struct json *o, const char *key)
{
	double v = 0;

	return json_num(json_get(o, key), &v) ? v : NAN;
}

static void
print_looks(const struct facts *f)
{
	static const char bar[] = "########################################";
	const struct cache_look *l = &f->look;
	uint64_t bin[CACHE_LOOK_BINS], most = 1;

	if (l->n_labels > 0)
		ctl_line("labels", "%.2f bytes a token as encoded, %.2f ids and %.3f bits of entropy a token, %" PRIu64 " different ids (%" PRIu64
		    " records looked into)", (double)l->label_bytes / (double)l->label_tokens, l->unique, l->entropy_bits, l->distinct_ids, l->n_labels);
	if (l->n_damaged > 0)
		ctl_line("damaged", "%" PRIu64 " records of those looked into: saltctl cache fsck", l->n_damaged);
	if (l->n_scores == 0)
		return;
	ctl_line("scores", "%.4f nats a token, %.1f %% of tokens among the first %u (%" PRIu64 " records looked into)", l->mean_loss_nats,
	    100 * l->in_top_k, l->k, l->n_scores);
	cache_look_bins(l, bin);
	for (int i = 0; i < CACHE_LOOK_BINS; i++)
		most = bin[i] > most ? bin[i] : most;
	printf("\nS(x), nats, with k = %u\n", l->k);
	for (int i = 0; i < CACHE_LOOK_BINS; i++)
		printf("  %7.3f .. %7.3f  %10" PRIu64 "  %.*s\n", l->s_max * i / CACHE_LOOK_BINS, l->s_max * (i + 1) / CACHE_LOOK_BINS, bin[i],
		    (int)((double)bin[i] / (double)most * 40), bar);
}

static void
print_fidelity(const struct json *o)
{
	const char *was = text(o, "compute_class_stored"), *is = text(o, "compute_class_here");
	int64_t n = whole(o, "sequences"), same = whole(o, "same_bytes_as_stored"), twice = whole(o, "same_bytes_run_twice");

	printf("\nfidelity, against the teacher\n");
	ctl_line("labelled again", "%" PRId64 " of %" PRId64 " sequences gave the stored bytes", same, n);
	ctl_line("run twice", "%" PRId64 " of %" PRId64 " gave the same bytes twice%s", twice, n,
	    twice == n ? ": the teacher repeats itself" : ": this teacher does NOT repeat itself");
	if (strcmp(was, is) != 0)
		ctl_line("computed with", "%s when stored, %s here: other bytes are to be expected", was, is);
	ctl_line("KL(label, teacher)", "%.5f nats a token stored, %.5f a fresh sample under another seed", number(o, "kl_nats"),
	    number(o, "kl_nats_other_seed"));
	ctl_line("total variation", "%.5f stored, %.5f a fresh sample under another seed", number(o, "total_variation"),
	    number(o, "total_variation_other_seed"));
}

static struct json *
facts_json(const char *dir, struct facts *f)
{
	struct json *o = ctl_object(), *tables = ctl_object(), *t;

	for (enum cache_table i = 0; i < CACHE_TABLES; i++) {
		t = ctl_object();
		ctl_put_int(t, "records", (int64_t)f->stat.table[i].n_records);
		ctl_put_int(t, "bytes", (int64_t)f->stat.table[i].n_bytes);
		ctl_put(tables, cache_table_name(i), t);
	}
	ctl_put_text(o, "cache", dir);
	ctl_put(o, "identity", f->identity);
	ctl_put(o, "tables", tables);
	ctl_put_num(o, "label_bytes_per_token", label_bytes_per_token(f) > 0 ? label_bytes_per_token(f) : -1.0 / 0.0);
	ctl_put_int(o, "file_bytes", (int64_t)f->stat.file_bytes);
	ctl_put_int(o, "used_bytes", (int64_t)f->stat.used_bytes);
	ctl_put_int(o, "map_bytes", (int64_t)f->stat.map_bytes);
	ctl_put_int(o, "readers", f->stat.n_readers);
	put_looks(o, f);
	ctl_put(o, "plans", f->plans);
	ctl_put(o, "quarantine", f->quarantine);
	f->identity = f->plans = f->quarantine = NULL;
	return o;
}

static void
facts_print(const char *dir, const struct facts *f, bool quarantine)
{
	static const char *const titles[] = {"table", ">records", ">bytes"};
	static const char *const plan_titles[] = {"plan", "mode", ">seed", ">batch", ">kept of block", ">rows", ">written", ">labelled", "released"};
	struct ctl_table *t = ctl_table_new(titles, 3);
	uint64_t labels = f->stat.table[CACHE_TABLE_LABELS].n_records, scores = f->stat.table[CACHE_TABLE_SCORES].n_records;
	char a[32], b[32], c[32];

	ctl_line("cache", "%s", dir);
	for (void *it = json_first(f->identity); it != NULL; it = json_next(f->identity, it))
		ctl_line(json_key(it), "%s", text(f->identity, json_key(it)));
	ctl_line("size", "%s on disk, %s of %s of the map used", ctl_bytes((double)f->stat.file_bytes, a),
	    ctl_bytes((double)f->stat.used_bytes, b), ctl_bytes((double)f->stat.map_bytes, c));
	if (f->windows > 0)
		ctl_line("covered", "%" PRIu64 " labels, %" PRIu64 " scores (held-out ones too) for %" PRIu64 " windows: %.2f %% labelled", labels, scores,
		    f->windows, 100 * (double)labels / (double)f->windows);
	if (label_bytes_per_token(f) > 0)
		ctl_line("label bytes", "%.1f a token, as stored", label_bytes_per_token(f));
	ctl_line("quarantine", "%" PRIu64 " sequences", f->n_quarantine);
	print_looks(f);
	putchar('\n');
	for (enum cache_table i = 0; i < CACHE_TABLES; i++) {
		ctl_table_cell(t, "%s", cache_table_name(i));
		ctl_table_cell(t, "%" PRIu64, f->stat.table[i].n_records);
		ctl_table_cell(t, "%s", ctl_bytes((double)f->stat.table[i].n_bytes, a));
	}
	ctl_table_print(t, stdout);
	ctl_table_free(&t);
	if (json_count(f->plans) > 0) {
		putchar('\n');
		t = ctl_table_new(plan_titles, 9);
		for (size_t i = 0; i < json_count(f->plans); i++) {
			const struct json *p = json_item(f->plans, i);
			const struct cache_cover *v = cover_of(f, text(p, "plan"));
			bool released = false;

			json_flag(json_get(p, "released"), &released);
			ctl_table_cell(t, "%s", text(p, "plan"));
			ctl_table_cell(t, "%s", text(p, "mode"));
			ctl_table_cell(t, "%" PRId64, whole(p, "seed"));
			ctl_table_cell(t, "%" PRId64, whole(p, "batch"));
			ctl_table_cell(t, "%" PRId64 " of %" PRId64, whole(p, "kept"), whole(p, "block"));
			ctl_table_cell(t, "%" PRId64, whole(p, "rows"));
			ctl_table_cell(t, "%" PRIu64, v != NULL ? v->rows : 0);
			ctl_table_cell(t, "%" PRIu64, v != NULL ? v->labelled : 0);
			ctl_table_cell(t, "%s", released ? "yes" : "no");
		}
		ctl_table_print(t, stdout);
		ctl_table_free(&t);
	}
	for (size_t i = 0; quarantine && i < json_count(f->quarantine); i++)
		printf("%s%" PRId64 "  %s\n", i == 0 ? "\nin quarantine\n" : "", whole(json_item(f->quarantine, i), "seq"),
		    text(json_item(f->quarantine, i), "reason"));
}

/* One cache; all of them come here: a folder with shard_0, shard_1, ... holds one each. */
static int
show(struct ctl_args *args, const struct config *cfg, const struct cache_corpora *corpora, const char *dir, struct json *all)
{
	struct facts f = {.identity = ctl_object(), .plans = ctl_array(), .quarantine = ctl_array()};
	struct err_note note = {.name = ""};
	int exit_code = 0, rc = look(args, cfg, corpora, dir, &f, &note, &exit_code);

	if (rc != 0)
		exit_code = ctl_fail(args, rc, &note);
	if (exit_code == 0 && all != NULL)
		ctl_push(all, facts_json(dir, &f));
	else if (exit_code == 0)
		facts_print(dir, &f, ctl_has(args, "quarantine"));
	if (exit_code == 0 && all == NULL && f.fidelity != NULL)
		print_fidelity(f.fidelity);
	json_close(&f.identity);
	json_close(&f.plans);
	json_close(&f.quarantine);
	json_close(&f.fidelity);
	cache_id_free(&f.id);
	cache_look_free(&f.look);
	free(f.cover);
	return exit_code;
}

static int
cache_stat_verb(struct ctl_args *args)
{
	struct cache_corpora corpora = {.train = NULL};
	struct cache_dirs dirs;
	struct config *cfg = NULL;
	struct json *all = NULL;
	int exit_code;

	if (!ctl_has(args, "fidelity") && (ctl_has(args, "teacher") || ctl_has(args, "windows")))
		return ctl_usage(args, "--teacher and --windows need --fidelity");
	if ((exit_code = cache_dirs_find(args, &dirs, &cfg)) == 0 && ctl_has(args, "fidelity"))
		exit_code = cache_corpora_open(args, cfg, &corpora);
	cache_watch_bus(args);
	if (ctl_has(args, "json"))
		all = ctl_array();
	for (size_t i = 0; exit_code == 0 && i < dirs.n; i++) {
		if (i > 0 && all == NULL)
			putchar('\n');
		exit_code = show(args, cfg, &corpora, dirs.dir[i], all);
	}
	cache_dirs_free(&dirs);
	cache_corpora_close(&corpora);
	config_destroy(&cfg);
	if (exit_code == 0 && all != NULL)
		return ctl_print_json(all);
	json_close(&all);
	return exit_code != 0 ? exit_code : ctl_flush(0);
}

const struct ctl_verb ctl_cache_stat = {
	.name = "cache stat", .operands = "", .summary = "what a cache of labels holds",
	.about = "Opens the cache for reading, also while selectord works on it. Sizes of tables are those of pages on disk. Entropy, ids and S(x)\n"
	    "are means over records spread evenly over the corpus. With several shards each is shown. --fidelity needs the corpus.",
	.example = "saltctl cache stat -c fleet.yaml --fidelity",
	.options = options, .run = cache_stat_verb,
};
