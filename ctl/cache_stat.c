#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "cache/cache.h"
#include "config/config.h"
#include "ctl/ctl.h"
#include "ctl/output.h"
#include "json/json.h"

static const struct ctl_option options[] = {
	CTL_CONFIG,
	{"cache", "FOLDER", "the cache; cache.dir of -c unless told", false},
	{"quarantine", NULL, "list the sequences in quarantine", false},
	CTL_JSON, CTL_END
};

struct facts {
	struct json *identity, *plans, *quarantine;
	struct cache_stat stat;
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

static int
look(const char *dir, struct facts *f, struct err_note *note)
{
	struct cache *cache = NULL;
	struct cache_txn *txn = NULL;
	int rc;

	if ((rc = cache_open(&cache, dir, CACHE_READ, 0, note)) != 0)
		return rc;
	if ((rc = cache_stat(cache, &f->stat)) == 0 && (rc = cache_identity_each(cache, take_identity, f)) == 0 &&
	    (rc = cache_txn_begin(cache, &txn)) == 0 && (rc = cache_plans_each(txn, take_plan, f)) == 0)
		rc = cache_quarantine_each(txn, take_quarantine, f);
	cache_txn_end(&txn);
	cache_destroy(&cache);
	return rc != 0 ? err_note_set(note, rc, "%s", dir) : 0;
}

static double
label_bytes_per_token(const struct facts *f)
{
	uint64_t n = f->stat.table[CACHE_TABLE_LABELS].n_records;

	return n > 0 && f->context > 0 ? (double)f->stat.table[CACHE_TABLE_LABELS].n_bytes / ((double)n * (double)f->context) : 0;
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
	ctl_put(o, "plans", f->plans);
	ctl_put(o, "quarantine", f->quarantine);
	f->identity = f->plans = f->quarantine = NULL;
	return o;
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

static void
facts_print(const char *dir, const struct facts *f, bool quarantine)
{
	static const char *const titles[] = {"table", ">records", ">bytes"};
	static const char *const plan_titles[] = {"plan", "mode", ">seed", ">batch", ">kept of block", ">rows", "released"};
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
		t = ctl_table_new(plan_titles, 7);
		for (size_t i = 0; i < json_count(f->plans); i++) {
			const struct json *p = json_item(f->plans, i);
			bool released = false;

			json_flag(json_get(p, "released"), &released);
			ctl_table_cell(t, "%s", text(p, "plan"));
			ctl_table_cell(t, "%s", text(p, "mode"));
			ctl_table_cell(t, "%" PRId64, whole(p, "seed"));
			ctl_table_cell(t, "%" PRId64, whole(p, "batch"));
			ctl_table_cell(t, "%" PRId64 " of %" PRId64, whole(p, "kept"), whole(p, "block"));
			ctl_table_cell(t, "%" PRId64, whole(p, "rows"));
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
show(const struct ctl_args *args, const char *dir, struct json *all)
{
	struct facts f = {.identity = ctl_object(), .plans = ctl_array(), .quarantine = ctl_array()};
	struct err_note note = {.name = ""};
	int rc = look(dir, &f, &note), exit_code = 0;

	if (rc != 0)
		exit_code = ctl_fail(args, rc, &note);
	else if (all != NULL)
		ctl_push(all, facts_json(dir, &f));
	else
		facts_print(dir, &f, ctl_has(args, "quarantine"));
	json_close(&f.identity);
	json_close(&f.plans);
	json_close(&f.quarantine);
	return exit_code;
}

static int
cache_stat_verb(struct ctl_args *args)
{
	struct config *cfg = NULL;
	struct json *all = NULL;
	struct stat st;
	char dir[4096], shard[4200];
	int exit_code = 0;

	if (ctl_has(args, "cache")) {
		snprintf(dir, sizeof(dir), "%s", ctl_get(args, "cache"));
	} else {
		if (!ctl_has(args, "config"))
			return ctl_usage(args, "which cache? give --cache FOLDER or -c fleet.yaml");
		if ((exit_code = ctl_open_config(args, CONFIG_NEED_CACHE, &cfg)) != 0)
			return exit_code;
		snprintf(dir, sizeof(dir), "%s", cfg->cache.dir);
		config_destroy(&cfg);
	}
	if (ctl_has(args, "json"))
		all = ctl_array();
	snprintf(shard, sizeof(shard), "%s/shard_0", dir);
	if (stat(shard, &st) != 0) {
		exit_code = show(args, dir, all);
	} else {
		for (int i = 0; exit_code == 0 && stat(shard, &st) == 0; i++, snprintf(shard, sizeof(shard), "%s/shard_%d", dir, i)) {
			if (i > 0 && all == NULL)
				putchar('\n');
			exit_code = show(args, shard, all);
		}
	}
	if (exit_code == 0 && all != NULL)
		return ctl_print_json(all);
	json_close(&all);
	return exit_code;
}

const struct ctl_verb ctl_cache_stat = {
	.name = "cache stat", .operands = "", .summary = "what a cache of labels holds",
	.about = "Opens the cache for reading, also while selectord works on it. Sizes are those of pages on disk. With several shards each is shown.",
	.example = "saltctl cache stat -c fleet.yaml",
	.options = options, .run = cache_stat_verb,
};
