/*
 * cache fsck: every record is read again and compared with all that is known: its checksum, its key, the label set, the corpus when it is
 * given, and rows with the order, the plan and the scores that they were chosen from.
 */
#include "saltctl/cache/cache.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/random/shuffle.h"
#include "fabric/config/config.h"
#include "saltctl/core/output.h"
#include "base/json/json.h"
#include "base/mem/mem.h"
#include "data/select/select.h"

static const struct ctl_option options[] = {
	CTL_CACHE, CTL_CORPORA,
	{"queue", NULL, "drop what is damaged, so that selectord has it made again; needs the cache for itself", false},
	CTL_JSON, CTL_END
};

struct drop {
	enum cache_table table;
	uint8_t key[64];
	size_t len;
};

struct fsck {
	struct ctl_args *args;
	const char *dir;
	struct cache *c;
	struct cache_id id;
	const struct cache_corpora *corpora;
	bool with_train, with_heldout;		/* corpora that are the cache's */
	struct cache_plan *plans;
	size_t n_plans, cap_plans;
	struct cache_bits quarantined;
	struct drop *drops;
	size_t n_drops, cap_drops;
	uint64_t n_records, n_found, n_holes, n_dropped[CACHE_TABLES];
	struct json *list;			/* --json: the findings; else NULL */
	int32_t *tokens;			/* [L + 1] */
	float *loss, *scratch;			/* [L] */
	uint8_t *rank;
};

/* One finding. */
static void
found(struct fsck *f, const char *table, const char *key, const char *what, const char *expected, const char *got)
{
	struct json *o;

	f->n_found++;
	if (f->list == NULL) {
		printf("%s: %s%s%s: %s%s%s%s%s\n", f->dir, table, key[0] != '\0' ? " " : "", key, what, expected[0] != '\0' ? ": expected " : "",
		    expected, got[0] != '\0' ? ", found " : "", got);
		return;
	}
	o = ctl_object();
	ctl_put_text(o, "cache", f->dir);
	ctl_put_text(o, "table", table);
	ctl_put_text(o, "key", key);
	ctl_put_text(o, "what", what);
	ctl_put_text(o, "expected", expected);
	ctl_put_text(o, "found", got);
	ctl_push(f->list, o);
}

static const char *
key_text(const struct cache_item *item, char *buf, size_t size)
{
	char hex[HASH_HEX_BYTES];
	size_t n = 0;

	buf[0] = '\0';
	if (!item->key_ok || item->table == CACHE_TABLE_META) {
		for (size_t i = 0; i < item->key_len && n + 8 < size; i++) {
			unsigned char c = ((const unsigned char *)item->key)[i];

			n += (size_t)snprintf(buf + n, size - n, c >= 32 && c < 127 ? "%c" : "\\x%02x", c);
		}
	} else if (item->table == CACHE_TABLE_ROWS) {
		snprintf(buf, size, "plan %s block %" PRIu64 " chunk %" PRIu32, hash_hex(item->plan, hex), item->block, item->chunk);
	} else if (item->table == CACHE_TABLE_PLANS) {
		snprintf(buf, size, "plan %s", hash_hex(item->plan, hex));
	} else {
		snprintf(buf, size, "%ssequence %" PRIu64 "%s", item->table == CACHE_TABLE_SCORES ? item->set == CACHE_SCORES_TEACHER ? "teacher's, " :
		    "scorer's, " : "", CORPUS_SEQ_INDEX(item->seq), CORPUS_SEQ_NO(item->seq) == CORPUS_HELDOUT ? " (held out)" : "");
	}
	return buf;
}

static int
queue(struct fsck *f, enum cache_table table, const void *key, size_t len)
{
	int rc;

	if (len > sizeof(f->drops[0].key) || (rc = mem_grow((void **)&f->drops, &f->cap_drops, f->n_drops + 1, sizeof(*f->drops))) != 0)
		return len > sizeof(f->drops[0].key) ? 0 : rc;
	f->drops[f->n_drops] = (struct drop){.table = table, .len = len};
	memcpy(f->drops[f->n_drops++].key, key, len);
	return 0;
}

/* A damaged record: said, and queued unless it is one that nobody can make again. */
static int
bad(struct fsck *f, const struct cache_item *item, const char *what, const char *expected, const char *got)
{
	char key[200];

	found(f, cache_table_name(item->table), key_text(item, key, sizeof(key)), what, expected, got);
	return item->table == CACHE_TABLE_META ? 0 : queue(f, item->table, item->key, item->key_len);
}

static int
check_seq(struct fsck *f, const struct cache_item *item, uint32_t corpus_no, bool *good)
{
	uint64_t n = corpus_no == CORPUS_TRAIN ? f->id.windows : f->with_heldout ? corpus_n_windows(f->corpora->heldout, f->id.labels.spec.context) :
	    UINT64_C(1) << 48;
	char want[64], got[64];

	*good = CORPUS_SEQ_NO(item->seq) == corpus_no && CORPUS_SEQ_INDEX(item->seq) < n;
	if (*good)
		return 0;
	snprintf(want, sizeof(want), "corpus %" PRIu32 ", window below %" PRIu64, corpus_no, n);
	snprintf(got, sizeof(got), "corpus %" PRIu32 ", window %" PRIu64, CORPUS_SEQ_NO(item->seq), CORPUS_SEQ_INDEX(item->seq));
	return bad(f, item, "no such sequence", want, got);
}

static int
check_item(void *arg, const struct cache_item *item)
{
	struct fsck *f = arg;
	struct err_note note = {.name = ""};
	struct hash128 tokens;
	struct cache_plan plan = {.batch = 0};
	char what[520];
	bool good = true, known = false;
	int rc;

	f->n_records++;
	if (item->table == CACHE_TABLE_ROWS && item->key_ok && f->id.bound)
		return 0;				/* check_block looks at them together */
	if (item->rc != 0)
		return bad(f, item, "damaged", "a value that fits its checksum", "other bytes");
	if (!item->key_ok)
		return bad(f, item, "a key that the table does not have", "", "");
	if (!f->id.bound)
		return 0;
	switch (item->table) {
	case CACHE_TABLE_LABELS:
		if ((rc = check_seq(f, item, CORPUS_TRAIN, &good)) != 0 || !good)
			return rc;
		if (f->with_train) {
			if ((rc = cache_tokens_of(f->corpora, item->seq, f->id.labels.spec.context, f->tokens, &tokens, &note)) != 0)
				return bad(f, item, "the corpus has no such window", note.expected, note.found);
			known = true;
		}
		if ((rc = labels_check(&f->id.labels.spec, known ? &tokens : NULL, item->bytes.bytes, item->bytes.len, &note)) == 0)
			return 0;
		snprintf(what, sizeof(what), "%s%s%s", err_str(rc), note.place[0] != '\0' ? ", " : "", note.place);
		return bad(f, item, what, note.expected, note.found);
	case CACHE_TABLE_SCORES:
		if ((rc = check_seq(f, item, item->set == CACHE_SCORES_TEACHER ? CORPUS_HELDOUT : CORPUS_TRAIN, &good)) != 0 || !good)
			return rc;
		if (labels_scores_decode(item->bytes.bytes, item->bytes.len, f->id.labels.spec.context, f->loss, f->rank, &note) != 0)
			return bad(f, item, "not a score record", note.expected, note.found);
		return 0;
	case CACHE_TABLE_PLANS:
		for (size_t i = 0; i < f->n_plans && !known; i++)
			if ((known = hash_equal(f->plans[i].hash, item->plan)))
				plan = f->plans[i];
		if (!known || plan.batch == 0 || plan.window == 0 || plan.kept == 0 || plan.kept > plan.window || plan.mode > 1)
			return bad(f, item, "not a plan", "84 bytes, batch, window and kept above 0, kept at most window, mode 0 or 1", "others");
		return 0;
	case CACHE_TABLE_META:
		if (item->key_len > 3 && memcmp(item->key, "id/", 3) != 0)
			return (item->key_len == 6 && memcmp(item->key, "format", 6) == 0) || (item->key_len == 7 && memcmp(item->key, "unigram", 7) == 0) ?
			    0 : bad(f, item, "unknown name", "", "");
		return 0;
	default:
		return 0;
	}
}

static int
take_plan(void *arg, const struct cache_plan *plan)
{
	struct fsck *f = arg;
	int rc = mem_grow((void **)&f->plans, &f->cap_plans, f->n_plans + 1, sizeof(*f->plans));

	if (rc == 0)
		f->plans[f->n_plans++] = *plan;
	return rc;
}

static int
take_quarantine(void *arg, const struct cache_quarantine *q)
{
	struct fsck *f = arg;

	if (CORPUS_SEQ_NO(q->seq) == CORPUS_TRAIN)
		cache_bits_set(&f->quarantined, CORPUS_SEQ_INDEX(q->seq));
	return 0;
}

/* S(x) of the row as its score record gives it now; true when it cannot be compared. */
static bool
same_score(struct fsck *f, struct cache_txn *txn, const struct cache_plan *plan, const struct cache_row *row, float *now)
{
	uint32_t L = f->id.labels.spec.context;
	struct cache_bytes v;

	if (plan->mode == 0 || (row->flags & CACHE_ROW_QUARANTINED) != 0 || isnan(row->score) ||
	    cache_scores_get(txn, CACHE_SCORES_SCORER, row->seq, &v) != 0 || labels_scores_decode(v.bytes, v.len, L, f->loss, f->rank, NULL) != 0)
		return true;
	*now = (float)select_score(f->loss, f->rank, L, plan->k, f->scratch);
	return *now == row->score;
}

static int
check_block(void *arg, struct cache_txn *txn, struct hash128 hash, uint64_t block, int rc, const struct cache_row *rows, uint64_t n)
{
	struct fsck *f = arg;
	const struct cache_plan *plan = NULL;
	char hex[HASH_HEX_BYTES], key[128], want[96], got[96];
	bool good = true;

	snprintf(key, sizeof(key), "plan %s block %" PRIu64, hash_hex(hash, hex), block);
	for (size_t i = 0; i < f->n_plans; i++)
		if (hash_equal(f->plans[i].hash, hash))
			plan = &f->plans[i];
	if (plan == NULL) {
		found(f, "rows", key, "rows of a plan that is not there", "", "");
		return 0;
	}
	want[0] = got[0] = '\0';
	if (rc != 0) {
		good = false;
		snprintf(want, sizeof(want), "all chunks of the block");
	} else if (n != plan->kept) {
		good = false;
		snprintf(want, sizeof(want), "%" PRIu64 " rows", plan->kept);
		snprintf(got, sizeof(got), "%" PRIu64, n);
	} else if (block % f->id.n_shards != f->id.shard) {
		good = false;
		snprintf(want, sizeof(want), "a block of shard %" PRIu32 " of %" PRIu32, f->id.shard, f->id.n_shards);
	}
	for (uint64_t i = 0; i < n && good; i++) {
		uint64_t p = rows[i].position, seq = CORPUS_SEQ_MAKE(CORPUS_TRAIN, shuffle_order(plan->seed, f->id.windows, p));
		float now = 0;

		if (p / plan->window != block || (i > 0 && p <= rows[i - 1].position) || rows[i].seq != seq) {
			good = false;
			snprintf(want, sizeof(want), "row %" PRIu64 " at a later position of the block, sequence %" PRIu64, i, seq);
			snprintf(got, sizeof(got), "position %" PRIu64 ", sequence %" PRIu64, p, rows[i].seq);
		} else if (!same_score(f, txn, plan, &rows[i], &now)) {
			good = false;
			snprintf(want, sizeof(want), "row %" PRIu64 " with S(x) = %.9g, as its score record says", i, (double)now);
			snprintf(got, sizeof(got), "%.9g", (double)rows[i].score);
		}
	}
	if (!good) {
		found(f, "rows", key, "damaged rows", want, got);
		if ((rc = mem_grow((void **)&f->drops, &f->cap_drops, f->n_drops + 1, sizeof(*f->drops))) != 0)
			return rc;
		f->drops[f->n_drops] = (struct drop){.table = CACHE_TABLE_ROWS, .len = 0};
		memcpy(f->drops[f->n_drops].key, &hash, sizeof(hash));
		memcpy(f->drops[f->n_drops++].key + sizeof(hash), &block, sizeof(block));
		return 0;
	}
	for (uint64_t i = 0; i < n && !plan->released; i++) {
		if ((rows[i].flags & CACHE_ROW_QUARANTINED) != 0 || cache_bits_get(&f->quarantined, CORPUS_SEQ_INDEX(rows[i].seq)) ||
		    cache_labels_has(txn, rows[i].seq) == 0)
			continue;
		f->n_holes++;
		snprintf(want, sizeof(want), "a label of sequence %" PRIu64, CORPUS_SEQ_INDEX(rows[i].seq));
		snprintf(got, sizeof(got), "none");
		snprintf(key, sizeof(key), "plan %s row %" PRIu64, hash_hex(hash, hex), block * plan->kept + i);
		found(f, "rows", key, "hole", want, got);
	}
	return 0;
}

static int
drop_all(struct fsck *f)
{
	struct cache_batch b = {.c = f->c};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < f->n_drops; i++) {
		const struct drop *d = &f->drops[i];

		if ((rc = cache_batch_step(&b)) != 0)
			break;
		if (d->table == CACHE_TABLE_ROWS && d->len == 0) {
			struct hash128 plan;
			uint64_t block;

			memcpy(&plan, d->key, sizeof(plan));
			memcpy(&block, d->key + sizeof(plan), sizeof(block));
			rc = cache_drop_rows(f->c, plan, block);
		} else {
			rc = cache_drop_key(f->c, d->table, d->key, d->len);
		}
		f->n_dropped[d->table]++;
	}
	if (rc == 0)
		return cache_batch_end(&b);
	cache_batch_abort(&b);
	return rc;
}

static int
look_around(struct fsck *f, struct err_note *note)
{
	struct cache_txn *txn = NULL;
	size_t L;
	int rc = cache_id_read(f->c, &f->id, note);

	if (rc == ERR_CORRUPT || rc == ERR_MISMATCH) {
		found(f, "meta", note->name, err_str(rc), note->expected, note->found);
		f->id.bound = false;
	} else if (rc != 0) {
		return rc;
	}
	if (!f->id.bound)
		return 0;
	L = f->id.labels.spec.context;
	if ((rc = cache_corpora_check(f->corpora, &f->id, note)) != 0)
		found(f, "meta", note->name, "another corpus was given", note->expected, note->found);
	f->with_train = rc == 0 && f->corpora->train != NULL;
	f->with_heldout = rc == 0 && f->corpora->heldout != NULL && f->id.has_heldout;
	f->tokens = mem_alloc(L + 1, sizeof(*f->tokens));
	f->loss = mem_alloc(L, sizeof(*f->loss));
	f->scratch = mem_alloc(L, sizeof(*f->scratch));
	f->rank = mem_alloc(L, 1);
	if (f->tokens == NULL || f->loss == NULL || f->scratch == NULL || f->rank == NULL)
		return ENOMEM;
	if ((rc = cache_bits_new(&f->quarantined, f->id.windows)) == 0 && (rc = cache_txn_begin(f->c, &txn)) == 0 &&
	    (rc = cache_plans_each(txn, take_plan, f)) == 0)
		rc = cache_quarantine_each(txn, take_quarantine, f);
	cache_txn_end(&txn);
	return rc;
}

static int
check_one(struct fsck *f, bool mend, struct err_note *note)
{
	int rc;

	if ((rc = cache_open(&f->c, f->dir, mend ? CACHE_UPKEEP : CACHE_READ, 0, note)) != 0)
		return rc;
	rc = look_around(f, note);
	for (int t = 0; rc == 0 && t < CACHE_TABLES; t++)
		rc = cache_each(f->c, (enum cache_table)t, check_item, f);
	if (rc == 0 && f->id.bound)
		rc = cache_blocks(f->c, check_block, f);
	if (rc == 0 && mend)
		rc = drop_all(f);
	if (rc != 0 && note->name[0] == '\0')
		err_note_set(note, rc, "%s", f->dir);
	return rc;
}

static void
summary(const struct fsck *f, bool mend, struct json *o)
{
	uint64_t others = f->n_dropped[CACHE_TABLE_PLANS] + f->n_dropped[CACHE_TABLE_ATTEMPTS] + f->n_dropped[CACHE_TABLE_QUARANTINE];

	if (o != NULL) {
		ctl_put_text(o, "cache", f->dir);
		ctl_put_int(o, "records", (int64_t)f->n_records);
		ctl_put_int(o, "findings", (int64_t)f->n_found);
		ctl_put_int(o, "holes", (int64_t)f->n_holes);
		ctl_put(o, "compared_with_corpus", json_new_flag(f->with_train));
		ctl_put_int(o, "queued_labels", (int64_t)(f->n_dropped[CACHE_TABLE_LABELS]));
		ctl_put_int(o, "queued_scores", (int64_t)(f->n_dropped[CACHE_TABLE_SCORES]));
		ctl_put_int(o, "dropped_rows", (int64_t)(f->n_dropped[CACHE_TABLE_ROWS]));
		return;
	}
	printf("%s: %" PRIu64 " records read, %" PRIu64 " findings, %" PRIu64 " of them rows that wait for a label%s\n", f->dir, f->n_records,
	    f->n_found, f->n_holes, f->with_train ? "" : "; tokens were not compared, for no corpus was given (-c or --corpus)");
	if (mend)
		printf("%s: queued: %" PRIu64 " labels and %" PRIu64 " scores dropped to be made again, %" PRIu64 " records of rows to be chosen again, %" PRIu64
		    " others dropped; %" PRIu64 " rows have no label\nselectord leases all of these when it serves their plan again\n", f->dir,
		    f->n_dropped[CACHE_TABLE_LABELS], f->n_dropped[CACHE_TABLE_SCORES], f->n_dropped[CACHE_TABLE_ROWS], others, f->n_holes);
	else if (f->n_drops > 0)
		printf("%s: to have %zu records made again, with selectord stopped: saltctl cache fsck --queue --cache %s\n", f->dir, f->n_drops, f->dir);
}

static int
run(struct ctl_args *args)
{
	struct cache_corpora corpora = {.train = NULL};
	struct json *all = NULL, *caches = NULL, *list = NULL;
	struct cache_dirs dirs;
	struct config *cfg = NULL;
	bool mend = ctl_has(args, "queue");
	uint64_t n_found = 0;
	int exit_code;

	if ((exit_code = cache_dirs_find(args, &dirs, &cfg)) == 0)
		exit_code = cache_corpora_open(args, cfg, &corpora);
	cache_watch_bus(args);
	if (ctl_has(args, "json")) {
		all = ctl_object();
		caches = ctl_array();
		list = ctl_array();
	}
	for (size_t i = 0; exit_code == 0 && i < dirs.n; i++) {
		struct fsck f = {.args = args, .dir = dirs.dir[i], .corpora = &corpora, .list = list};
		struct err_note note = {.name = ""};
		int rc = check_one(&f, mend, &note);

		if (rc != 0) {
			exit_code = ctl_fail(args, rc, &note);
		} else {
			struct json *o = caches != NULL ? ctl_object() : NULL;

			summary(&f, mend, o);
			if (o != NULL)
				ctl_push(caches, o);
		}
		n_found += f.n_found;
		cache_destroy(&f.c);
		cache_id_free(&f.id);
		cache_bits_free(&f.quarantined);
		free(f.plans);
		free(f.drops);
		free(f.tokens);
		free(f.loss);
		free(f.scratch);
		free(f.rank);
	}
	cache_dirs_free(&dirs);
	cache_corpora_close(&corpora);
	config_destroy(&cfg);
	if (all != NULL) {
		ctl_put(all, "caches", caches);
		ctl_put(all, "findings", list);
		if (exit_code == 0)
			exit_code = ctl_print_json(all);
		else
			json_close(&all);
	}
	if (exit_code == 0 && n_found > 0)
		exit_code = EX_DATAERR;
	return ctl_flush(exit_code);
}

const struct ctl_verb ctl_cache_fsck = {
	.name = "cache fsck", .operands = "", .summary = "read everything in a cache again and say what is wrong",
	.about = "Checksums, keys, label set, and with the corpus (-c or --corpus) the tokens that labels belong to; rows against order, plan and scores;\n"
	    "rows that wait for a label. A line per finding; exit code 0: nothing found, 65: something. Without --queue nothing is changed.",
	.example = "saltctl cache fsck -c fleet.yaml",
	.options = options, .run = run,
};
