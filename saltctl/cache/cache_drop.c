/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache drop: deletes the labels that no plan needs any more. A label is needed if its row may be trained
 * again from an existing checkpoint (CHECKPOINTED gives the oldest step), or if a plan that is not released
 * may still choose its sequence.
 */
#include "saltctl/cache/cache.h"

#include <inttypes.h>
#include <stdlib.h>

#include "fabric/config/config.h"
#include "saltctl/core/output.h"

static const struct cli_option options[] = {
	CTL_CACHE,
	{"released", NULL, "count rows of released plans as not needed, whatever checkpoints are kept", false},
	{"write", NULL, "drop them; with -c a running selectord is asked to. Without it they are only counted", false},
	CTL_JSON, CTL_END
};

struct needs {
	const struct cache_id *id;
	struct cache_bits need;			/* one bit per sequence */
	struct cache_plan *plans;
	size_t n_plans;
	bool released_too;
	uint64_t *seqs, n_bytes;		/* to drop */
	size_t n_seqs, seqs_cap;
	uint64_t n_kept;
	struct err_note *note;
};

/*
 * For a block whose rows are not chosen yet (a released plan chooses none any more), or are damaged: marks
 * every sequence that may be chosen for it.
 * In mode list this is every sequence of the corpus.
 */
static void
need_block(struct needs *n, const struct cache_plan *plan, uint64_t b)
{
	uint64_t windows = n->id->windows;

	if (plan->mode == CACHE_MODE_LIST)
		for (uint64_t i = 0; i < windows; i++)
			cache_bits_set(&n->need, i);
	else
		for (uint64_t i = 0; i < plan->window; i++)
			cache_bits_set(&n->need, blend_order(n->id->order, plan->seed, b * plan->window + i));
}

/* Marks the sequences that one plan needs, in its blocks of this shard. */
static int
need_plan(struct needs *n, struct cache *c, const struct cache_plan *plan)
{
	uint64_t n_blocks = plan->n_rows == 0 ? 0 : (plan->n_rows - 1) / plan->kept + 1,
	    first = plan->oldest_step * plan->batch;
	struct cache_row *rows;
	int rc = 0;

	if (plan->released && n->released_too)
		return 0;
	rows = ctl_alloc(plan->kept, sizeof(*rows));
	for (uint64_t b = n->id->shard; rc == 0 && b < n_blocks; b += n->id->n_shards) {
		struct cache_txn *txn;
		uint64_t count = 0;
		int got;

		if ((b + 1) * plan->kept <= first)
			continue;
		if ((rc = cache_txn_begin(c, &txn)) != 0)
			break;
		if ((got = cache_rows_count(txn, plan->hash, b, &count)) == 0 && count == plan->kept &&
		    cache_rows_get(txn, plan->hash, b, 0, plan->kept, rows) == 0) {
			for (uint64_t i = 0; i < plan->kept; i++)
				if (b * plan->kept + i >= first)
					cache_bits_set(&n->need, CORPUS_SEQ_INDEX(rows[i].seq));
		} else if (!plan->released || got != ERR_NOT_FOUND) {
			need_block(n, plan, b);
		}
		cache_txn_end(&txn);
	}
	free(rows);
	return rc;
}

/* Rows whose plan has no record: fsck --queue drops a damaged one, and an export does not have it. */
static int
check_row(void *arg, const struct cache_item *item)
{
	const struct needs *n = arg;

	if (!item->key_ok)
		return 0;		/* fsck reports it */
	for (size_t i = 0; i < n->n_plans; i++)
		if (hash_equal(n->plans[i].hash, item->plan))
			return 0;
	return err_expect(n->note, ERR_CORRUPT, "rows of plan %s", "the record of this plan, which says what it needs",
	    "none, so no label was dropped; run selectord and saltctl label --no-wait with the plan's fleet.yaml once: "
	    "this stores the record again", cache_hex(item->plan));
}

/*
 * Reads the plans, also on behalf of a selectord that is asked to drop the labels. Without all plans the
 * labels that they need are unknown.
 */
static int
check_plans(struct cache_job *job)
{
	struct needs n = {.note = &job->note};
	int rc;

	if ((rc = cache_open(&job->c, job->dir, CACHE_READ, 0, &job->note)) == 0 &&
	    (rc = cache_plans(job->c, &n.plans, &n.n_plans)) == 0 && cache_n_corrupt(job->c) > 0)
		rc = err_note_set(&job->note, ERR_CORRUPT,
		    "%s: a plan's record is damaged, so the rows it needs are unknown; "
		    "run saltctl cache fsck", job->dir);
	if (rc == 0)
		rc = cache_each(job->c, CACHE_TABLE_ROWS, check_row, &n);
	free(n.plans);
	cache_destroy(&job->c);
	return rc;
}

static int
take_label(void *arg, const struct cache_item *item)
{
	struct needs *n = arg;

	if (!item->key_ok || CORPUS_SEQ_NO(item->seq) != CORPUS_TRAIN ||
	    cache_bits_get(&n->need, CORPUS_SEQ_INDEX(item->seq))) {
		n->n_kept++;
		return 0;
	}
	*(uint64_t *)ctl_add(n->seqs, n->n_seqs, n->seqs_cap) = item->seq;
	n->n_bytes += item->key_len + item->bytes.len + 8;	/* key, record, checksum */
	return 0;
}

static int
drop_labels(struct cache_job *job, struct needs *n, bool write)
{
	struct cache_batch batch = {.c = NULL};
	struct cache *c;
	int rc;

	if ((rc = cache_job_open(job, write ? CACHE_UPKEEP : CACHE_READ, 0, true)) != 0)
		return rc;
	c = batch.c = job->c;
	n->id = &job->id;
	cache_bits_new(&n->need, job->id.windows);
	rc = cache_plans(c, &n->plans, &n->n_plans);
	for (size_t i = 0; rc == 0 && i < n->n_plans; i++)
		rc = n->plans[i].kept > 0 && n->plans[i].kept <= n->plans[i].window ? need_plan(n, c,
		    &n->plans[i]) : ERR_CORRUPT;
	if (rc == 0)
		rc = cache_each(c, CACHE_TABLE_LABELS, take_label, n);
	for (size_t i = 0; rc == 0 && write && i < n->n_seqs; i++)
		if ((rc = cache_batch_step(&batch)) == 0)
			rc = cache_drop_labels(c, n->seqs[i]);
	return cache_batch_end(&batch, rc);
}

/* Whether fleet.yaml names a selectord, which can be asked to drop the labels. */
static bool
can_ask(const struct cache_job *job)
{
	const struct config *cfg = job->cfg;

	return cfg != NULL && !ctl_has(job->args, "cache") && job->i < cfg->selector.endpoints.n &&
	    cfg->corpus.train[0] != '\0';
}

static int
drop_one(struct cache_job *job, void *arg)
{
	bool write = ctl_has(job->args, "write");
	struct needs n = {.released_too = ctl_has(job->args, "released")};
	char text[32];
	int rc = check_plans(job);

	(void)arg;
	if (rc == 0)
		rc = drop_labels(job, &n, write);
	if (rc == ERR_BUSY && can_ask(job)) {
		struct wire_dropped d = {0, 0, 0, 0};

		rc = job->exit_code = cache_ask_drop(job->args, job->cfg, job->i, n.released_too, &d);
		n.n_seqs = d.labels;
		n.n_bytes = d.bytes;
		n.n_kept = d.kept;
	}
	if (rc == 0 && job->all != NULL)
		ctl_push(job->all, ctl_record(CTL("cache", job->dir), CTL("labels", n.n_seqs), CTL("bytes", n.n_bytes),
		    CTL("kept", n.n_kept), CTL("dropped", write)));
	else if (rc == 0)
		ctl_line(write ? "dropped" : "not needed",
		    "%s: %zu labels, %s, which later records %s use again; %" PRIu64
		    " labels are needed%s", job->dir, n.n_seqs, ctl_bytes((double)n.n_bytes, text),
		    write ? "" : "could", n.n_kept, write || n.n_seqs == 0 ? "" : ". --write drops them");
	free(n.plans);
	free(n.seqs);
	cache_bits_free(&n.need);
	return rc;
}

static int
run(struct ctl_args *args)
{
	struct cache_job job;
	int exit_code = cache_job_begin(&job, args, false);

	return cache_job_end(&job, exit_code != 0 ? exit_code : cache_job_each(&job, drop_one, NULL));
}

const struct ctl_verb ctl_cache_drop = {
	.name = "cache drop", .operands = "", .summary = "drop labels that no plan needs any more",
	.about = "A plan needs the labels of the rows that a kept checkpoint may train again, and, while it is open, of\n"
	    "all sequences that it may still choose. The file keeps its size; later records use the space. Scores\n"
	    "and rows stay. Without --write nothing is changed. A running selectord is asked over\n"
	    "selector.endpoints, as client; damaged labels stay, for cache fsck.",
	.example = "saltctl cache drop -c fleet.yaml --write",
	.options = options, .run = run,
};
