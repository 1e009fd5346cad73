/*
 * cache drop: labels that no plan needs any more. Needed is the label of every row that a kept checkpoint may train again (CHECKPOINTED said
 * which is the oldest), and of everything that a plan which is not released may still choose.
 */
#include "saltctl/cache/cache.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/random/shuffle.h"
#include "fabric/config/config.h"
#include "saltctl/core/output.h"
#include "base/json/json.h"
#include "base/mem/mem.h"

static const struct ctl_option options[] = {
	CTL_CACHE,
	{"released", NULL, "count rows of released plans as not needed, whatever checkpoints are kept", false},
	{"write", NULL, "do it; a selectord that works on the cache is asked to (with -c). Without it the count is only told", false},
	CTL_JSON, CTL_END
};

struct needs {
	const struct cache_id *id;
	struct cache_bits need;			/* of windows */
	struct cache_plan *plans;
	size_t n_plans, cap;
	bool released_too;
	uint64_t *seqs, n_bytes;		/* to go */
	size_t n_seqs, seqs_cap;
	uint64_t n_kept;
};

static int
take_plan(void *arg, const struct cache_plan *plan)
{
	struct needs *n = arg;
	int rc = mem_grow((void **)&n->plans, &n->cap, n->n_plans + 1, sizeof(*n->plans));

	if (rc == 0)
		n->plans[n->n_plans++] = *plan;
	return rc;
}

static void
need_position(struct needs *n, const struct cache_plan *plan, uint64_t p)
{
	cache_bits_set(&n->need, shuffle_order(plan->seed, n->id->windows, p));
}

/* What one plan needs of its blocks in this shard. */
static int
need_plan(struct needs *n, struct cache *c, const struct cache_plan *plan)
{
	uint64_t n_blocks = plan->n_rows == 0 ? 0 : (plan->n_rows - 1) / plan->kept + 1, first = plan->oldest_step * plan->batch;
	struct cache_row *rows;
	int rc = 0;

	if (plan->released && n->released_too)
		return 0;
	if ((rows = mem_alloc(plan->kept, sizeof(*rows))) == NULL)
		return ENOMEM;
	for (uint64_t b = n->id->shard; rc == 0 && b < n_blocks; b += n->id->n_shards) {
		struct cache_txn *txn;
		uint64_t count = 0;

		if ((b + 1) * plan->kept <= first)
			continue;
		if ((rc = cache_txn_begin(c, &txn)) != 0)
			break;
		if (cache_rows_count(txn, plan->hash, b, &count) == 0 && count == plan->kept &&
		    cache_rows_get(txn, plan->hash, b, 0, plan->kept, rows) == 0) {
			for (uint64_t i = 0; i < plan->kept; i++)
				if (b * plan->kept + i >= first)
					need_position(n, plan, rows[i].position);
		} else if (!plan->released) {
			for (uint64_t i = 0; i < plan->window; i++)	/* not chosen yet, or damaged: any of them */
				need_position(n, plan, b * plan->window + i);
		}
		cache_txn_end(&txn);
	}
	free(rows);
	return rc;
}

static int
take_label(void *arg, const struct cache_item *item)
{
	struct needs *n = arg;
	int rc;

	if (!item->key_ok || CORPUS_SEQ_NO(item->seq) != CORPUS_TRAIN || cache_bits_get(&n->need, CORPUS_SEQ_INDEX(item->seq))) {
		n->n_kept++;
		return 0;
	}
	if ((rc = mem_grow((void **)&n->seqs, &n->seqs_cap, n->n_seqs + 1, sizeof(*n->seqs))) != 0)
		return rc;
	n->seqs[n->n_seqs++] = item->seq;
	n->n_bytes += item->key_len + item->bytes.len + 8;	/* key, record, checksum */
	return 0;
}

static int
drop_one(const char *dir, bool write, struct needs *n, struct cache_id *id, struct err_note *note)
{
	struct cache *c = NULL;
	struct cache_txn *txn = NULL;
	struct cache_batch batch;
	int rc;

	if ((rc = cache_open(&c, dir, write ? CACHE_UPKEEP : CACHE_READ, 0, note)) != 0 || (rc = cache_id_read(c, id, note)) != 0)
		goto out;
	if (!id->bound) {
		rc = err_note_set(note, ERR_NOT_FOUND, "%s: no selectord has used this cache yet", dir);
		goto out;
	}
	n->id = id;
	if ((rc = cache_bits_new(&n->need, id->windows)) != 0 || (rc = cache_txn_begin(c, &txn)) != 0 ||
	    (rc = cache_plans_each(txn, take_plan, n)) != 0)
		goto out;
	cache_txn_end(&txn);
	if (cache_n_corrupt(c) > 0) {
		rc = err_note_set(note, ERR_CORRUPT, "%s: a plan's record is damaged: what it needs is not known. saltctl cache fsck", dir);
		goto out;
	}
	for (size_t i = 0; rc == 0 && i < n->n_plans; i++)
		rc = n->plans[i].kept > 0 && n->plans[i].kept <= n->plans[i].window ? need_plan(n, c, &n->plans[i]) : ERR_CORRUPT;
	if (rc == 0)
		rc = cache_each(c, CACHE_TABLE_LABELS, take_label, n);
	batch = (struct cache_batch){.c = c};
	for (size_t i = 0; rc == 0 && write && i < n->n_seqs; i++)
		if ((rc = cache_batch_step(&batch)) == 0)
			rc = cache_drop_labels(c, n->seqs[i]);
	if (rc == 0)
		rc = cache_batch_end(&batch);
	else
		cache_batch_abort(&batch);
out:
	cache_txn_end(&txn);
	cache_destroy(&c);
	if (rc != 0 && note->name[0] == '\0')
		err_note_set(note, rc, "%s", dir);
	return rc;
}

/* Has somebody else the cache, and does fleet.yaml say how to ask it? */
static bool
can_ask(const struct ctl_args *args, const struct config *cfg, size_t shard)
{
	return cfg != NULL && !ctl_has(args, "cache") && shard < cfg->selector.endpoints.n && cfg->corpus.train[0] != '\0';
}

static int
run(struct ctl_args *args)
{
	struct cache_dirs dirs = {.n = 0};
	struct config *cfg = NULL;
	struct json *all = ctl_has(args, "json") ? ctl_array() : NULL;
	bool write = ctl_has(args, "write");
	char text[32];
	int exit_code = cache_dirs_find(args, &dirs, &cfg);

	cache_watch_bus(args);
	for (size_t i = 0; exit_code == 0 && i < dirs.n; i++) {
		struct needs n = {.released_too = ctl_has(args, "released")};
		struct cache_id id = {.bound = false};
		struct err_note note = {.name = ""};
		int rc = drop_one(dirs.dir[i], write, &n, &id, &note);

		if (rc == ERR_BUSY && can_ask(args, cfg, i)) {
			struct wire_dropped d = {0, 0, 0, 0};

			if ((exit_code = cache_ask_drop(args, cfg, i, n.released_too, &d)) == 0) {
				n.n_seqs = d.labels;
				n.n_bytes = d.bytes;
				n.n_kept = d.kept;
				rc = 0;
			}
		} else if (rc != 0) {
			exit_code = ctl_fail(args, rc, &note);
		}
		if (exit_code != 0) {
			;
		} else if (all != NULL) {
			struct json *o = ctl_object();

			ctl_put_text(o, "cache", dirs.dir[i]);
			ctl_put_int(o, "labels", (int64_t)n.n_seqs);
			ctl_put_int(o, "bytes", (int64_t)n.n_bytes);
			ctl_put_int(o, "kept", (int64_t)n.n_kept);
			ctl_put(o, "dropped", json_new_flag(write));
			ctl_push(all, o);
		} else {
			ctl_line(write ? "dropped" : "not needed", "%s: %zu labels, %s, which later records %s use again; %" PRIu64 " labels are needed%s",
			    dirs.dir[i], n.n_seqs, ctl_bytes((double)n.n_bytes, text), write ? "" : "could", n.n_kept,
			    write || n.n_seqs == 0 ? "" : ". --write drops them");
		}
		free(n.plans);
		free(n.seqs);
		cache_bits_free(&n.need);
		cache_id_free(&id);
	}
	cache_dirs_free(&dirs);
	config_destroy(&cfg);
	if (exit_code == 0 && all != NULL)
		return ctl_print_json(all);
	json_close(&all);
	return ctl_flush(exit_code);
}

const struct ctl_verb ctl_cache_drop = {
	.name = "cache drop", .operands = "", .summary = "take away labels that no plan needs any more",
	.about = "Needed are the rows that a kept checkpoint may train again and all that an open plan may still choose. The file keeps its size; what\n"
	    "is given back is used by later records. Scores and rows stay. Without --write nothing is changed. A running selectord\n"
	    "is asked over selector.endpoints, as client; damaged labels stay, for cache fsck.",
	.example = "saltctl cache drop -c fleet.yaml --write",
	.options = options, .run = run,
};
