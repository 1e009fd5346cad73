/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache fsck: reads every record and checks it against its checksum, its key, the label set and, if given,
 * the corpus. Rows are checked against the shuffle order, the plan and the scores by which they were chosen.
 */
#include "saltctl/cache/cache.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "saltctl/core/output.h"
#include "data/select/select.h"

static const struct cli_option options[] = {
	CTL_CACHE, CTL_CORPORA,
	{"queue", NULL, "drop damaged records, so that selectord orders them again; no other process may have the cache open", false},
	{"free-quarantine", NULL, "with --queue: take all sequences out of quarantine, so that teachers get them again", false},
	CTL_JSON, CTL_END
};

#define QUARANTINE_SHOWN 3		/* sequences in quarantine that are printed with the reason */

/* Identifies a block whose rows are to be dropped. */
struct rows_key {
	struct hash128 plan;
	uint64_t block;
};

struct drop {
	enum cache_table table;
	uint8_t key[64];			/* if len is 0: a struct rows_key */
	size_t len;
};

struct fsck {
	struct cache_job *job;
	bool with_train, with_heldout;		/* this corpus is given and is that of the cache */
	struct cache_plan *plans;
	size_t n_plans;
	struct cache_bits quarantined;
	struct drop *drops;
	size_t n_drops, cap_drops;
	uint64_t n_records, n_found, n_holes, n_quarantine, n_dropped[CACHE_TABLES];
	struct json *list;			/* the findings with --json; else NULL */
	int32_t *tokens;			/* [L + 1] */
	float *loss, *scratch;			/* [L] */
	uint8_t *rank;
};

/* Counts and prints one finding. */
static void
found(struct fsck *f, const char *table, const char *key, const char *what, const char *expected, const char *got)
{
	f->n_found++;
	if (f->list != NULL)
		ctl_push(f->list, ctl_record(CTL("cache", f->job->dir), CTL("table", table), CTL("key", key),
		    CTL("what", what), CTL("expected", expected), CTL("found", got)));
	else
		printf("%s: %s%s%s: %s%s%s%s%s\n", f->job->dir, table, key[0] != '\0' ? " " : "", key, what,
		    expected[0] != '\0' ? ": expected " : "", expected, got[0] != '\0' ? ", found " : "", got);
}

static const char *
key_text(const struct cache_item *item, char *buf, size_t size)
{
	size_t n = 0;

	buf[0] = '\0';
	if (!item->key_ok || item->table == CACHE_TABLE_META) {
		for (size_t i = 0; i < item->key_len && n + 8 < size; i++) {
			unsigned char c = ((const unsigned char *)item->key)[i];

			n += (size_t)snprintf(buf + n, size - n, c >= 32 && c < 127 ? "%c" : "\\x%02x", c);
		}
	} else if (item->table == CACHE_TABLE_ROWS) {
		snprintf(buf, size, "plan %s block %" PRIu64 " chunk %" PRIu32, cache_hex(item->plan), item->block,
		    item->chunk);
	} else if (item->table == CACHE_TABLE_PLANS) {
		snprintf(buf, size, "plan %s", cache_hex(item->plan));
	} else {
		snprintf(buf, size, "%ssequence %" PRIu64 "%s", item->table != CACHE_TABLE_SCORES ? "" :
		    item->set == CACHE_SCORES_TEACHER ? "teacher's, " : "scorer's, ", CORPUS_SEQ_INDEX(item->seq),
		    CORPUS_SEQ_NO(item->seq) == CORPUS_HELDOUT ? " (held out)" : "");
	}
	return buf;
}

static void
queue(struct fsck *f, enum cache_table table, const void *key, size_t len)
{
	struct drop *d;

	if (len > sizeof(d->key))
		return;
	d = ctl_add(f->drops, f->n_drops, f->cap_drops);
	d->table = table;
	d->len = len;
	memcpy(d->key, key, len);
}

/* Reports a damaged record and queues it, unless it is in table meta, which cannot be made again. */
static void
bad(struct fsck *f, const struct cache_item *item, const char *what, const char *expected, const char *got)
{
	char key[200];

	found(f, cache_table_name(item->table), key_text(item, key, sizeof(key)), what, expected, got);
	if (item->table != CACHE_TABLE_META)
		queue(f, item->table, item->key, item->key_len);
}

static bool
check_seq(struct fsck *f, const struct cache_item *item, uint32_t corpus_no)
{
	const struct cache_id *id = &f->job->id;
	uint64_t n = corpus_no == CORPUS_TRAIN ? id->windows : f->with_heldout ?
	    corpus_n_windows(f->job->corpora.heldout, id->labels.spec.context) : UINT64_C(1) << 48;
	char want[64], got[64];

	if (CORPUS_SEQ_NO(item->seq) == corpus_no && CORPUS_SEQ_INDEX(item->seq) < n)
		return true;
	snprintf(want, sizeof(want), "corpus %" PRIu32 ", sequence below %" PRIu64, corpus_no, n);
	snprintf(got, sizeof(got), "corpus %" PRIu32 ", sequence %" PRIu64, CORPUS_SEQ_NO(item->seq),
	    CORPUS_SEQ_INDEX(item->seq));
	bad(f, item, "no such sequence", want, got);
	return false;
}

/*
 * Checks a label; a bad one is reported. Returns 0 also for a bad label, or an errno if the check was not
 * possible (no memory, or the corpus cannot be read), which does not mean that the label is damaged.
 */
static int
check_label(struct fsck *f, const struct cache_item *item)
{
	const struct labels_spec *spec = &f->job->id.labels.spec;
	struct err_note note = {.name = ""};
	struct hash128 tokens;
	char what[520];
	int rc;

	if (!check_seq(f, item, CORPUS_TRAIN))
		return 0;
	if (f->with_train &&
	    (rc = cache_tokens_of(&f->job->corpora, item->seq, spec->context, f->tokens, &tokens, &note)) != 0) {
		if (rc > 0)
			goto unknown;
		bad(f, item, "the corpus has no such sequence", note.expected, note.found);
		return 0;
	}
	if ((rc = labels_check(spec, f->with_train ? &tokens : NULL, item->bytes.bytes, item->bytes.len, &note)) == 0)
		return 0;
	if (rc > 0)
		goto unknown;
	snprintf(what, sizeof(what), "%s%s%s", err_str(rc), note.place[0] != '\0' ? ", " : "", note.place);
	bad(f, item, what, note.expected, note.found);
	return 0;
unknown:
	f->job->note = note;
	return rc;
}

static const struct cache_plan *
plan_of(const struct fsck *f, struct hash128 hash)
{
	for (size_t i = 0; i < f->n_plans; i++)
		if (hash_equal(f->plans[i].hash, hash))
			return &f->plans[i];
	return NULL;
}

static bool
known_name(const struct cache_item *item)
{
	return item->key_len <= 3 || memcmp(item->key, "id/", 3) == 0 ||
	    (item->key_len == 6 && memcmp(item->key, "format", 6) == 0) ||
	    (item->key_len == 7 && memcmp(item->key, "unigram", 7) == 0);
}

/* A sequence in quarantine is not a finding. It is printed, and queued with --free-quarantine. */
static void
check_quarantine(struct fsck *f, const struct cache_item *item)
{
	const int head = 16;			/* bytes before the reason */
	int n = (int)item->bytes.len - head;

	if (f->n_quarantine++ < QUARANTINE_SHOWN && f->list == NULL && n > 0)
		printf("%s: sequence %" PRIu64 " is in quarantine: %.*s\n", f->job->dir, CORPUS_SEQ_INDEX(item->seq), n,
		    (const char *)item->bytes.bytes + head);
	if (ctl_has(f->job->args, "free-quarantine"))
		queue(f, item->table, item->key, item->key_len);
}

static int
check_item(void *arg, const struct cache_item *item)
{
	struct fsck *f = arg;
	const struct cache_id *id = &f->job->id;
	struct err_note note = {.name = ""};
	const struct cache_plan *plan;

	f->n_records++;
	if (item->table == CACHE_TABLE_ROWS && item->key_ok && id->bound)
		return 0;				/* check_block checks whole blocks */
	if (item->rc != 0) {
		bad(f, item, "damaged", "a value that fits its checksum", "other bytes");
	} else if (!item->key_ok) {
		bad(f, item, "a key that the table does not have", "", "");
	} else if (item->table == CACHE_TABLE_QUARANTINE) {
		check_quarantine(f, item);
	} else if (!id->bound) {
		;
	} else if (item->table == CACHE_TABLE_LABELS) {
		return check_label(f, item);
	} else if (item->table == CACHE_TABLE_SCORES) {
		if (check_seq(f, item, item->set == CACHE_SCORES_TEACHER ? CORPUS_HELDOUT : CORPUS_TRAIN) &&
		    labels_scores_decode(item->bytes.bytes, item->bytes.len, id->labels.spec.context, f->loss,
		    f->rank, &note) != 0)
			bad(f, item, "not a score record", note.expected, note.found);
	} else if (item->table == CACHE_TABLE_PLANS) {
		plan = plan_of(f, item->plan);
		if (plan == NULL || plan->batch == 0 || plan->window == 0 || plan->kept == 0 ||
		    plan->kept > plan->window || plan->mode > CACHE_MODE_LIST)
			bad(f, item, "not a plan",
			    "84 bytes, batch, window and kept above 0, kept at most window, mode 0 to 3",
			    "others");
	} else if (item->table == CACHE_TABLE_META && !known_name(item)) {
		bad(f, item, "unknown name", "", "");
	}
	return 0;
}

/* Whether the row's S(x) equals that of its score record, stored in *now; true if it cannot be compared. */
static bool
same_score(struct fsck *f, struct cache_txn *txn, const struct cache_plan *plan, const struct cache_row *row,
    float *now)
{
	uint32_t L = f->job->id.labels.spec.context;
	struct cache_bytes v;

	if (plan->mode != CACHE_MODE_SALT_DS || (row->flags & CACHE_ROW_QUARANTINED) != 0 || isnan(row->score) ||
	    cache_scores_get(txn, CACHE_SCORES_SCORER, row->seq, &v) != 0 ||
	    labels_scores_decode(v.bytes, v.len, L, f->loss, f->rank, NULL) != 0)
		return true;
	*now = (float)select_score(f->loss, f->rank, L, plan->k, f->scratch);
	return *now == row->score;
}

/*
 * Checks the rows of a block against plan, shuffle order and scores. If they are bad it returns false, with
 * what was expected and found in want and got.
 */
static bool
rows_good(struct fsck *f, struct cache_txn *txn, const struct cache_plan *plan, uint64_t block,
    const struct cache_row *rows, uint64_t n, char want[96], char got[96])
{
	const struct cache_id *id = &f->job->id;
	float now = 0;

	want[0] = got[0] = '\0';
	if (rows == NULL) {
		snprintf(want, 96, "all chunks of the block");
		return false;
	}
	if (n != plan->kept) {
		snprintf(want, 96, "%" PRIu64 " rows", plan->kept);
		snprintf(got, 96, "%" PRIu64, n);
		return false;
	}
	if (block % id->n_shards != id->shard) {
		snprintf(want, 96, "a block of shard %" PRIu32 " of %" PRIu32, id->shard, id->n_shards);
		return false;
	}
	for (uint64_t i = 0; i < n; i++) {
		uint64_t p = rows[i].position, seq = CORPUS_SEQ_MAKE(CORPUS_TRAIN,
		    blend_order(id->order, plan->seed, p));

		if (plan->mode == CACHE_MODE_LIST && CORPUS_SEQ_INDEX(rows[i].seq) < id->windows)
			seq = rows[i].seq;	/* any sequence: the list, which is not read here, decides */
		if (p / plan->window != block || (i > 0 && p <= rows[i - 1].position) || rows[i].seq != seq) {
			snprintf(want, 96,
			    "row %" PRIu64 " at a later position of the block, sequence %" PRIu64, i, seq);
			snprintf(got, 96, "position %" PRIu64 ", sequence %" PRIu64, p, rows[i].seq);
			return false;
		}
		if (!same_score(f, txn, plan, &rows[i], &now)) {
			snprintf(want, 96, "row %" PRIu64 " with S(x) = %.9g, from its score record", i,
			    (double)now);
			snprintf(got, 96, "%.9g", (double)rows[i].score);
			return false;
		}
	}
	return true;
}

static int
check_block(void *arg, struct cache_txn *txn, struct hash128 hash, uint64_t block, int rc,
    const struct cache_row *rows, uint64_t n)
{
	struct fsck *f = arg;
	const struct cache_plan *plan = plan_of(f, hash);
	char key[128], want[96], got[96];

	(void)rc;
	snprintf(key, sizeof(key), "plan %s block %" PRIu64, cache_hex(hash), block);
	if (plan == NULL) {
		found(f, "rows", key, "rows of a plan that does not exist", "", "");
		return 0;
	}
	if (!rows_good(f, txn, plan, block, rows, n, want, got)) {
		struct rows_key at = {hash, block};

		found(f, "rows", key, "damaged rows", want, got);
		queue(f, CACHE_TABLE_ROWS, &at, sizeof(at));
		f->drops[f->n_drops - 1].len = 0;
		return 0;
	}
	for (uint64_t i = 0; i < n && !plan->released; i++) {
		if ((rows[i].flags & CACHE_ROW_QUARANTINED) != 0 || cache_bits_get(&f->quarantined,
		    CORPUS_SEQ_INDEX(rows[i].seq)) || cache_labels_has(txn, rows[i].seq) == 0)
			continue;
		f->n_holes++;
		snprintf(want, sizeof(want), "a label of sequence %" PRIu64, CORPUS_SEQ_INDEX(rows[i].seq));
		snprintf(key, sizeof(key), "plan %s row %" PRIu64, cache_hex(hash), block * plan->kept + i);
		found(f, "rows", key, "missing label", want, "none");
	}
	return 0;
}

static int
drop_all(struct fsck *f)
{
	struct cache_batch b = {.c = f->job->c};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < f->n_drops; i++) {
		const struct drop *d = &f->drops[i];
		struct rows_key at;

		if ((rc = cache_batch_step(&b)) != 0)
			break;
		memcpy(&at, d->key, sizeof(at));
		rc = d->len == 0 ? cache_drop_rows(b.c, at.plan, at.block) : cache_drop_key(b.c, d->table,
		    d->key, d->len);
		f->n_dropped[d->table]++;
	}
	return cache_batch_end(&b, rc);
}

/* Reads what the records are checked against: identity, corpora, plans and quarantine. */
static int
prepare(struct fsck *f)
{
	struct cache_job *job = f->job;
	struct err_note *note = &job->note;
	size_t L;
	int rc = cache_id_read(job->c, &job->id, note);

	if (rc == ERR_CORRUPT || rc == ERR_MISMATCH) {
		found(f, "meta", note->name, err_str(rc), note->expected, note->found);
		job->id.bound = false;
	} else if (rc != 0) {
		return rc;
	}
	if (!job->id.bound)
		return 0;
	cache_job_missing(job, &job->id);
	L = job->id.labels.spec.context;
	if ((rc = cache_corpora_check(&job->corpora, &job->id, note)) != 0)
		found(f, "meta", note->name, "another corpus was given", note->expected, note->found);
	f->with_train = rc == 0 && job->corpora.train != NULL;
	f->with_heldout = rc == 0 && job->corpora.heldout != NULL && job->id.has_heldout;
	f->tokens = ctl_alloc(L + 1, sizeof(*f->tokens));
	f->loss = ctl_alloc(L, sizeof(*f->loss));
	f->scratch = ctl_alloc(L, sizeof(*f->scratch));
	f->rank = ctl_alloc(L, 1);
	rc = cache_plans(job->c, &f->plans, &f->n_plans);
	return rc != 0 ? rc : cache_quarantined(job->c, job->id.windows, &f->quarantined);
}

static void
summary(const struct fsck *f, bool mend)
{
	const uint64_t *n = f->n_dropped;
	const char *dir = f->job->dir;

	if (f->job->all != NULL) {
		ctl_push(f->job->all, ctl_record(CTL("cache", dir), CTL("records", f->n_records),
		    CTL("findings", f->n_found), CTL("holes", f->n_holes), CTL("quarantine", f->n_quarantine),
		    CTL("compared_with_corpus", f->with_train), CTL("queued_labels", n[CACHE_TABLE_LABELS]),
		    CTL("queued_scores", n[CACHE_TABLE_SCORES]), CTL("dropped_rows", n[CACHE_TABLE_ROWS]),
		    CTL("dropped_plans", n[CACHE_TABLE_PLANS])));
		return;
	}
	printf("%s: %" PRIu64 " records read, %" PRIu64 " findings, %" PRIu64 " of them rows that wait for a label%s\n",
	    dir, f->n_records, f->n_found, f->n_holes,
	    f->with_train ? "" : "; tokens were not compared, for no corpus was given (-c or --corpus)");
	if (f->n_quarantine > 0)
		printf("%s: %" PRIu64 " sequences in quarantine: saltctl cache stat --quarantine lists them\n", dir,
		    f->n_quarantine);
	if (mend)
		printf("%s: queued: %" PRIu64 " labels and %" PRIu64 " scores dropped to be made again, %" PRIu64
		    " records of rows to be chosen again, %" PRIu64 " others dropped; %" PRIu64
		    " rows have no label\nselectord leases all of these when it serves their plan again\n",
		    dir, n[CACHE_TABLE_LABELS], n[CACHE_TABLE_SCORES], n[CACHE_TABLE_ROWS],
		    n[CACHE_TABLE_PLANS] + n[CACHE_TABLE_ATTEMPTS] + n[CACHE_TABLE_QUARANTINE], f->n_holes);
	if (mend && n[CACHE_TABLE_PLANS] > 0)
		printf("%s: %" PRIu64 " of them records of plans: cache drop refuses until selectord has stored these plans again\n",
		    dir, n[CACHE_TABLE_PLANS]);
	if (!mend && f->n_drops > 0)
		printf("%s: to have %zu records made again, with selectord stopped: saltctl cache fsck --queue --cache %s\n", dir,
		    f->n_drops, dir);
}

struct total {
	struct json *list;
	uint64_t n_found;
};

static int
check_one(struct cache_job *job, void *arg)
{
	struct total *total = arg;
	struct fsck f = {.job = job, .list = total->list};
	bool mend = ctl_has(job->args, "queue");
	int rc;

	if ((rc = cache_open(&job->c, job->dir, mend ? CACHE_UPKEEP : CACHE_READ, 0, &job->note)) != 0 ||
	    (rc = cache_check_pages(job->c, true, &job->note)) != 0)
		return rc;
	rc = prepare(&f);
	for (int t = 0; rc == 0 && t < CACHE_TABLES; t++)
		rc = cache_each(job->c, (enum cache_table)t, check_item, &f);
	if (rc == 0 && job->id.bound)
		rc = cache_blocks(job->c, check_block, &f);
	if (rc == 0 && mend)
		rc = drop_all(&f);
	if (rc == 0)
		summary(&f, mend);
	total->n_found += f.n_found;
	cache_bits_free(&f.quarantined);
	free(f.plans);
	free(f.drops);
	free(f.tokens);
	free(f.loss);
	free(f.scratch);
	free(f.rank);
	return rc;
}

static int
run(struct ctl_args *args)
{
	struct total total = {.list = NULL};
	struct err_note note = {.name = ""};
	struct cache_job job;
	int exit_code, rc = 0;

	if (ctl_has(args, "free-quarantine") && !ctl_has(args, "queue"))
		return ctl_usage(args, "--free-quarantine needs --queue");
	total.list = ctl_has(args, "json") ? ctl_array() : NULL;
	exit_code = cache_job_begin(&job, args, true);
	/* The corpora are verified first: damaged tokens must not make an intact record look damaged. */
	if (exit_code == 0 && ((job.corpora.train != NULL && (rc = corpus_verify(job.corpora.train, &note)) != 0) ||
	    (job.corpora.heldout != NULL && (rc = corpus_verify(job.corpora.heldout, &note)) != 0)))
		exit_code = ctl_fail(args, rc, &note);
	if (exit_code == 0)
		exit_code = cache_job_each(&job, check_one, &total);
	if (job.all != NULL)
		job.all = ctl_record(CTL("caches", job.all), CTL("findings", total.list));
	exit_code = cache_job_end(&job, exit_code);
	return exit_code == 0 && total.n_found > 0 ? EX_DATAERR : exit_code;
}

const struct ctl_verb ctl_cache_fsck = {
	.name = "cache fsck", .operands = "", .summary = "read all records of a cache and report what is wrong",
	.about = "Checks checksums, keys and label sets; with the corpus (-c or --corpus) also its checksums and the tokens to which\n"
	    "labels belong; and rows against the shuffle order, the plan and the scores. Counts rows that wait for a label.\n"
	    "Prints a line for each finding; exit code 0: nothing was found, 65: something was. Without --queue nothing is changed.",
	.example = "saltctl cache fsck -c fleet.yaml",
	.options = options, .run = run,
};
