/*
 * cache reselect: what would be chosen with another k, keep, window or pool, from the scores that are stored: no teacher. The arithmetic is
 * selectord's (selectord/select.c); a plan it writes is the one that selectord would make of a fleet.yaml with these settings.
 */
#include "saltctl/cache/cache.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
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
	CTL_CACHE,
	{"k", "K", "selector.k", false},
	{"keep", "SHARE", "selector.keep_share, above 0, at most 1", false},
	{"window", "W", "selector.block: sequences of a block", false},
	{"pool", "N", "selector.pool: one block over so many sequences; 0: none", false},
	{"seed", "SEED", "run.seed", false},
	{"steps", "N", "steps of phase one; phase_one.steps of -c unless told", false},
	{"rows", "FILE", "write the rows there as lines of row, position, sequence, S(x); - for standard output", false},
	{"write", NULL, "store the plan's rows; needs the cache for itself", false},
	CTL_JSON, CTL_END
};

struct choice {
	struct wire_plan plan;
	struct hash128 hash;
	uint64_t W, K, n_blocks;
	uint64_t missing_scores, n_rows, have_labels, same_rows, written, incomplete;	/* incomplete: blocks that lack scores */
	double lowest, highest;
	float *score, *loss, *scratch;
	uint8_t *rank;
	uint64_t *kept, *order;
	struct cache_row *rows;
	bool *quarantined, *labelled;			/* [W] */
	FILE *out;
};

static int
settings(struct ctl_args *args, const struct config *cfg, struct choice *ch)
{
	double margin, keep = cfg->selector.keep_share;
	uint64_t k = cfg->selector.k, window = cfg->selector.block, pool = cfg->selector.pool, seed = cfg->run.seed;
	uint64_t steps = config_until_margin(cfg, &margin) ? cfg->trainer.steps : cfg->phase_one.steps;
	int exit_code;

	if ((exit_code = ctl_get_u64(args, "k", 1, 255, &k)) != 0 || (exit_code = ctl_get_num(args, "keep", 0, 1, &keep)) != 0 ||
	    (exit_code = ctl_get_u64(args, "window", 1, UINT64_C(1) << 32, &window)) != 0 ||
	    (exit_code = ctl_get_u64(args, "pool", 0, UINT64_C(1) << 40, &pool)) != 0 ||
	    (exit_code = ctl_get_u64(args, "seed", 0, UINT32_MAX, &seed)) != 0 ||
	    (exit_code = ctl_get_u64(args, "steps", 1, UINT64_C(1) << 40, &steps)) != 0)
		return exit_code;
	if (ctl_has(args, "window") && !ctl_has(args, "pool"))
		pool = 0;				/* a pool in fleet.yaml would make the window mean nothing */
	ch->plan = (struct wire_plan){.present = true, .seed = (uint32_t)seed, .batch = cfg->trainer.batch, .mode = WIRE_MODE_SALT_DS,
	    .k = (uint32_t)k, .window = window, .keep = keep, .pool = pool, .n_rows = steps * cfg->trainer.batch, .label_ahead_rows = UINT64_MAX};
	ch->W = pool > 0 ? pool : window;
	ch->K = select_kept(keep, ch->W);
	if (ch->K == 0)
		return ctl_usage(args, "keep %g of %" PRIu64 " sequences is none", keep, ch->W);
	if (ch->plan.n_rows == 0)
		return ctl_usage(args, "fleet.yaml has no phase one: give --steps N");
	ch->n_blocks = (ch->plan.n_rows - 1) / ch->K + 1;
	return 0;
}

static int
make_room(struct choice *ch, uint32_t L)
{
	ch->score = mem_alloc(ch->W, sizeof(*ch->score));
	ch->kept = mem_alloc(ch->K, sizeof(*ch->kept));
	ch->order = mem_alloc(ch->W, sizeof(*ch->order));
	ch->rows = mem_alloc(ch->K, sizeof(*ch->rows));
	ch->quarantined = mem_alloc(ch->W, sizeof(*ch->quarantined));
	ch->labelled = mem_alloc(ch->W, sizeof(*ch->labelled));
	ch->loss = mem_alloc(L, sizeof(*ch->loss));
	ch->scratch = mem_alloc(L, sizeof(*ch->scratch));
	ch->rank = mem_alloc(L, 1);
	return ch->score != NULL && ch->kept != NULL && ch->order != NULL && ch->rows != NULL && ch->quarantined != NULL &&
	    ch->labelled != NULL && ch->loss != NULL && ch->scratch != NULL && ch->rank != NULL ? 0 : ENOMEM;
}

static void
choice_free(struct choice *ch)
{
	free(ch->score);
	free(ch->kept);
	free(ch->order);
	free(ch->rows);
	free(ch->quarantined);
	free(ch->labelled);
	free(ch->loss);
	free(ch->scratch);
	free(ch->rank);
	if (ch->out != NULL && ch->out != stdout)
		fclose(ch->out);
}

/* The rows of one block into ch->rows; *complete: every score that is needed was there. As selectord's core chooses: see work.c there. */
static int
choose(struct choice *ch, const struct cache_id *id, struct cache_txn *txn, const struct cache_bits *quarantine, uint64_t block, bool *complete)
{
	bool same_model = hash_equal(id->labels.teacher, id->scores.scorer);
	uint32_t L = id->labels.spec.context;
	uint64_t n, missing = 0, at = 0;

	for (uint64_t i = 0; i < ch->W; i++) {
		uint64_t index = shuffle_order(ch->plan.seed, id->windows, block * ch->W + i), seq = CORPUS_SEQ_MAKE(CORPUS_TRAIN, index);
		struct cache_bytes v;
		int rc;

		ch->labelled[i] = cache_labels_has(txn, seq) == 0;
		ch->quarantined[i] = cache_bits_get(quarantine, index) && !(same_model && ch->labelled[i]);
		ch->score[i] = NAN;
		if (ch->quarantined[i])
			continue;
		rc = cache_scores_get(txn, CACHE_SCORES_SCORER, seq, &v);
		if (rc == 0)
			rc = labels_scores_decode(v.bytes, v.len, L, ch->loss, ch->rank, NULL);
		if (rc == 0)
			ch->score[i] = (float)select_score(ch->loss, ch->rank, L, ch->plan.k, ch->scratch);
		else if (rc == ERR_NOT_FOUND || rc == ERR_CORRUPT)
			missing++;
		else
			return rc;
	}
	ch->missing_scores += missing;
	*complete = missing == 0;
	if (!*complete)
		return 0;
	n = select_block(ch->score, ch->W, ch->K, ch->kept, ch->order);
	for (uint64_t i = 0, j = 0, more = ch->K - n; i < ch->W; i++) {
		bool chosen = j < n && ch->kept[j] == i;

		j += chosen;
		if (!chosen && more > 0) {		/* fewer than K are eligible: the lowest of the others come in */
			more--;
			chosen = true;
		}
		if (chosen)
			ch->rows[at++] = (struct cache_row){block * ch->W + i,
			    CORPUS_SEQ_MAKE(CORPUS_TRAIN, shuffle_order(ch->plan.seed, id->windows, block * ch->W + i)), ch->score[i],
			    ch->quarantined[i] && !ch->labelled[i] ? CACHE_ROW_QUARANTINED : 0};
	}
	return 0;
}

/* What a chosen block means: labels that are there, rows that are stored already, lines of --rows. */
static int
count(struct choice *ch, struct cache_txn *txn, uint64_t block, bool *stored)
{
	struct cache_row *old = NULL;
	uint64_t n = 0;
	int rc = 0;

	*stored = cache_rows_count(txn, ch->hash, block, &n) == 0 && n == ch->K;
	if (*stored && (old = mem_alloc(ch->K, sizeof(*old))) == NULL)
		return ENOMEM;
	if (*stored)
		*stored = cache_rows_get(txn, ch->hash, block, 0, ch->K, old) == 0;
	for (uint64_t i = 0; i < ch->K; i++) {
		uint64_t g = block * ch->K + i;
		const struct cache_row *row = &ch->rows[i];

		if (*stored && memcmp(&old[i], row, sizeof(*row)) != 0 && !(old[i].position == row->position && old[i].flags == row->flags)) {
			rc = ERR_MISMATCH;	/* selectord chose otherwise: quarantine has changed since, or the scores have */
			break;
		}
		if (g >= ch->plan.n_rows)
			continue;
		ch->n_rows++;
		ch->have_labels += (row->flags & CACHE_ROW_QUARANTINED) != 0 || cache_labels_has(txn, row->seq) == 0;
		if (row->score < ch->lowest)
			ch->lowest = row->score;
		if (row->score > ch->highest)
			ch->highest = row->score;
		if (ch->out != NULL)
			fprintf(ch->out, "%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%.9g\n", g, row->position, CORPUS_SEQ_INDEX(row->seq), (double)row->score);
	}
	if (rc == 0 && *stored)
		ch->same_rows += ch->K;
	free(old);
	return rc;
}

static int
set_quarantine(void *arg, const struct cache_quarantine *q)
{
	if (CORPUS_SEQ_NO(q->seq) == CORPUS_TRAIN)
		cache_bits_set(arg, CORPUS_SEQ_INDEX(q->seq));
	return 0;
}

static int
store_plan(struct cache *c, const struct choice *ch, bool *any)
{
	struct cache_plan plan = {.hash = ch->hash, .seed = ch->plan.seed, .batch = ch->plan.batch, .mode = 1, .k = ch->plan.k, .window = ch->W,
	    .kept = ch->K, .n_rows = ch->plan.n_rows, .keep = ch->plan.keep};
	struct cache_txn *txn;
	struct cache_plan old;
	int rc;

	if ((rc = cache_txn_begin(c, &txn)) != 0)
		return rc;
	rc = cache_plan_get(txn, ch->hash, &old);
	cache_txn_end(&txn);
	if (rc == 0 || (rc != ERR_NOT_FOUND && rc != ERR_CORRUPT))
		return rc;
	if ((rc = cache_write_begin(c)) != 0)
		return rc;
	*any = true;
	if ((rc = cache_write_plan(c, &plan)) != 0) {
		cache_write_abort(c);
		return rc;
	}
	return cache_write_commit(c);
}

/* One cache: its own blocks. */
static int
reselect(struct cache *c, const struct cache_id *id, struct choice *ch, bool write, struct err_note *note)
{
	struct cache_bits quarantine = {.bits = NULL};
	struct cache_txn *txn = NULL;
	bool any = false;
	int rc;

	if (!id->bound)
		return err_note_set(note, ERR_NOT_FOUND, "scores: no selectord has used this cache yet");
	ch->hash = cache_plan_hash(id, &ch->plan);
	if ((rc = cache_bits_new(&quarantine, id->windows)) != 0 || (rc = cache_txn_begin(c, &txn)) != 0 ||
	    (rc = cache_quarantine_each(txn, set_quarantine, &quarantine)) != 0)
		goto out;
	cache_txn_end(&txn);
	if (write && (rc = store_plan(c, ch, &any)) != 0)
		goto out;
	for (uint64_t b = id->shard; b < ch->n_blocks; b += id->n_shards) {
		bool complete, stored = false;

		if ((rc = cache_txn_begin(c, &txn)) != 0 || (rc = choose(ch, id, txn, &quarantine, b, &complete)) != 0)
			break;
		if (complete && (rc = count(ch, txn, b, &stored)) != 0) {
			if (rc == ERR_MISMATCH) {
				err_note_set(note, rc, "block %" PRIu64, b);
				err_note_expected(note, "the rows that are stored for these settings");
				err_note_found(note, "others: were sequences quarantined or scores replaced since? saltctl cache fsck");
			}
			break;
		}
		cache_txn_end(&txn);
		ch->incomplete += !complete;
		if (!write || stored || !complete)
			continue;
		if ((rc = cache_write_begin(c)) != 0)
			break;
		if ((rc = cache_write_rows(c, ch->hash, b, ch->rows, ch->K, NULL)) != 0) {
			cache_write_abort(c);
			break;
		}
		if ((rc = cache_write_commit(c)) != 0)
			break;
		ch->written += ch->K;
	}
out:
	cache_txn_end(&txn);
	cache_bits_free(&quarantine);
	return rc;
}

static void
print(const struct choice *ch, bool write, struct json *o)
{
	uint64_t need = ch->n_rows - ch->have_labels;
	char hex[HASH_HEX_BYTES];

	hash_hex(ch->hash, hex);
	if (o != NULL) {
		ctl_put_text(o, "plan", hex);
		ctl_put_int(o, "k", ch->plan.k);
		ctl_put_num(o, "keep", ch->plan.keep);
		ctl_put_int(o, "block", (int64_t)ch->W);
		ctl_put_int(o, "kept", (int64_t)ch->K);
		ctl_put_int(o, "rows", (int64_t)ch->plan.n_rows);
		ctl_put_int(o, "rows_chosen", (int64_t)ch->n_rows);
		ctl_put_int(o, "labels_there", (int64_t)ch->have_labels);
		ctl_put_int(o, "labels_to_make", (int64_t)need);
		ctl_put_int(o, "scores_missing", (int64_t)ch->missing_scores);
		ctl_put_int(o, "blocks_incomplete", (int64_t)ch->incomplete);
		ctl_put_num(o, "lowest_score", ch->lowest);
		ctl_put_num(o, "highest_score", ch->highest);
		ctl_put_int(o, "rows_written", (int64_t)ch->written);
		return;
	}
	ctl_line("plan", "%s", hex);
	ctl_line("choice", "%" PRIu64 " of each %" PRIu64 " sequences, k = %" PRIu32 ", %" PRIu64 " rows of phase one", ch->K, ch->W, ch->plan.k,
	    ch->plan.n_rows);
	if (ch->incomplete > 0)
		ctl_line("not scored", "%" PRIu64 " sequences in %" PRIu64 " of %" PRIu64 " blocks lack a score: those are left to selectord", ch->missing_scores,
		    ch->incomplete, ch->n_blocks);
	if (ch->n_rows > 0)
		ctl_line("chosen", "%" PRIu64 " rows, S(x) from %.4f to %.4f nats", ch->n_rows, ch->lowest, ch->highest);
	ctl_line("labels", "%" PRIu64 " are there, %" PRIu64 " rows need one from a teacher", ch->have_labels, need);
	if (write)
		ctl_line("stored", "%" PRIu64 " rows, %" PRIu64 " were there already", ch->written, ch->same_rows);
	else
		ctl_line("stored", "nothing: with selectord stopped, --write does that. selectord makes the same rows by itself when fleet.yaml has these settings");
}

static int
run(struct ctl_args *args)
{
	struct choice ch = {.lowest = INFINITY, .highest = -INFINITY};
	struct cache_dirs dirs = {.n = 0};
	struct config *cfg = NULL;
	struct err_note note = {.name = ""};
	bool write = ctl_has(args, "write");
	const char *path = ctl_get(args, "rows");
	int exit_code, rc = 0;

	if (!ctl_has(args, "config"))
		return ctl_usage(args, "which run? give -c fleet.yaml: seed, batch and steps are its own");
	if ((exit_code = cache_dirs_find(args, &dirs, &cfg)) != 0 || (exit_code = settings(args, cfg, &ch)) != 0)
		goto out;
	if (path != NULL && strcmp(path, "-") == 0 && ctl_has(args, "json")) {
		exit_code = ctl_usage(args, "--rows - and --json both want standard output");
		goto out;
	}
	if (path != NULL && (ch.out = strcmp(path, "-") == 0 ? stdout : fopen(path, "w")) == NULL) {
		exit_code = ctl_fail(args, err_note_set(&note, errno, "%s", path), &note);
		goto out;
	}
	cache_watch_bus(args);
	for (size_t i = 0; rc == 0 && i < dirs.n; i++) {
		struct cache_id id = {.bound = false};
		struct cache *c = NULL;

		if ((rc = cache_open(&c, dirs.dir[i], write ? CACHE_UPKEEP : CACHE_READ, write ? cfg->cache.map_size : 0, &note)) == 0 &&
		    (rc = cache_id_read(c, &id, &note)) == 0 && (i > 0 || (rc = make_room(&ch, id.labels.spec.context)) == 0))
			rc = reselect(c, &id, &ch, write, &note);
		cache_id_free(&id);
		cache_destroy(&c);
		if (rc != 0 && note.name[0] == '\0')
			err_note_set(&note, rc, "%s", dirs.dir[i]);
	}
	if (rc == 0 && ch.out != NULL && fflush(ch.out) != 0)
		rc = err_note_set(&note, errno, "%s", path);
	if (rc != 0) {
		exit_code = ctl_fail(args, rc, &note);
	} else if (ctl_has(args, "json")) {
		struct json *o = ctl_object();

		print(&ch, write, o);
		exit_code = ctl_print_json(o);
	} else if (ch.out != stdout) {
		print(&ch, write, NULL);
	}
out:
	choice_free(&ch);
	cache_dirs_free(&dirs);
	config_destroy(&cfg);
	return ctl_flush(exit_code);
}

const struct ctl_verb ctl_cache_reselect = {
	.name = "cache reselect", .operands = "", .summary = "another choice of sequences from stored scores, without a teacher",
	.about = "What is not given is fleet.yaml's. Says which rows such a plan has, how many of their labels are there and how many a teacher must make.\n"
	    "Changes nothing unless --write, which stores the rows; selectord makes the same ones from these settings.",
	.example = "saltctl cache reselect -c fleet.yaml --k 20 --keep 0.25 --window 4096",
	.options = options, .run = run,
};
