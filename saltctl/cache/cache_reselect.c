/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache reselect: computes the rows that another k, keep share, block or pool would choose, from stored
 * scores and without a teacher. It uses the same code as selectord (data/select), so a plan written here
 * equals the one that selectord would make from a fleet.yaml with these settings.
 */
#include "saltctl/cache/cache.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/config/config.h"
#include "saltctl/core/folder.h"
#include "saltctl/core/output.h"
#include "base/file/file.h"
#include "base/json/json.h"
#include "data/select/select.h"

static const struct cli_option options[] = {
	CTL_CACHE,
	{"k", "K", "selector.k", false},
	{"keep", "SHARE", "selector.keep_share, above 0, at most 1", false},
	{"window", "W", "selector.block: sequences of a block", false},
	{"pool", "N", "selector.pool: one block over so many sequences; 0: none", false},
	{"seed", "SEED", "run.seed", false},
	{"steps", "N", "steps of phase one; default phase_one.steps of -c", false},
	{"rows", "FILE", "write the rows to FILE (-: standard output) as lines of row, position, sequence, S(x)", false},
	{"replace", NULL, "--rows: replace any file, not only rows of an earlier call", false},
	{"write", NULL, "store the plan's rows; no other process may have the cache open", false},
	CTL_JSON, CTL_END
};

struct choice {
	struct wire_plan plan;
	struct hash128 hash;
	uint64_t W, K, n_blocks;
	uint64_t missing_scores, incomplete;		/* incomplete: number of blocks that lack scores */
	uint64_t n_rows, have_labels, same_rows, written;
	double lowest, highest;
	float *score, *loss, *scratch;
	uint8_t *rank;
	struct select_cut *cut;
	struct select_limit *limits;
	uint64_t *wanted;				/* [n_parts] rows to choose from each part */
	size_t n_parts;
	struct cache_row *rows;
	bool *quarantined, *labelled;			/* [W] */
	FILE *out;
	bool write;
};

static int
settings(struct ctl_args *args, const struct config *cfg, struct choice *ch)
{
	double margin, keep = cfg->selector.keep_share;
	uint64_t k = cfg->selector.k, window = cfg->selector.block, pool = cfg->selector.pool, seed = cfg->run.seed;
	uint64_t steps = config_until_margin(cfg, &margin) ? cfg->trainer.steps : cfg->phase_one.steps;
	int exit_code;

	if ((exit_code = ctl_get_u64(args, "k", 1, 255, &k)) != 0 ||
	    (exit_code = ctl_get_num(args, "keep", 0, 1, &keep)) != 0 ||
	    (exit_code = ctl_get_u64(args, "window", 1, UINT64_C(1) << 32, &window)) != 0 ||
	    (exit_code = ctl_get_u64(args, "pool", 0, UINT64_C(1) << 40, &pool)) != 0 ||
	    (exit_code = ctl_get_u64(args, "seed", 0, UINT32_MAX, &seed)) != 0 ||
	    (exit_code = ctl_get_u64(args, "steps", 1, UINT64_C(1) << 40, &steps)) != 0)
		return exit_code;
	if (ctl_has(args, "window") && !ctl_has(args, "pool"))
		/* with the pool of fleet.yaml --window would have no effect */
		pool = 0;
	ch->plan = (struct wire_plan){.present = true, .seed = (uint32_t)seed, .batch = cfg->trainer.batch,
	    .mode = WIRE_MODE_SALT_DS, .k = (uint32_t)k, .window = window, .keep = keep, .pool = pool,
	    .n_rows = steps * cfg->trainer.batch, .label_ahead_rows = UINT64_MAX};
	ch->W = pool > 0 ? pool : window;
	ch->K = select_kept(keep, ch->W);
	if (ch->K == 0)
		return ctl_usage(args, "--keep: %g of %" PRIu64 " sequences chooses none; give a larger share", keep, ch->W);
	if (ch->plan.n_rows == 0)
		return ctl_usage(args, "fleet.yaml has no phase one: give --steps N");
	ch->n_blocks = (ch->plan.n_rows - 1) / ch->K + 1;
	return 0;
}

static void
allocate(struct choice *ch, uint32_t L)
{
	ch->score = ctl_alloc(ch->W, sizeof(*ch->score));
	ch->cut = ctl_alloc(1, sizeof(*ch->cut));
	ch->limits = ctl_alloc(ch->n_parts, sizeof(*ch->limits));
	ch->wanted = ctl_alloc(ch->n_parts, sizeof(*ch->wanted));
	ch->rows = ctl_alloc(ch->K, sizeof(*ch->rows));
	ch->quarantined = ctl_alloc(ch->W, sizeof(*ch->quarantined));
	ch->labelled = ctl_alloc(ch->W, sizeof(*ch->labelled));
	ch->loss = ctl_alloc(L, sizeof(*ch->loss));
	ch->scratch = ctl_alloc(L, sizeof(*ch->scratch));
	ch->rank = ctl_alloc(L, 1);
}

static void
choice_free(struct choice *ch)
{
	free(ch->score);
	free(ch->cut);
	free(ch->limits);
	free(ch->wanted);
	free(ch->rows);
	free(ch->quarantined);
	free(ch->labelled);
	free(ch->loss);
	free(ch->scratch);
	free(ch->rank);
}

static size_t
part_of(const struct choice *ch, const struct cache_id *id, uint64_t position)
{
	return ch->n_parts > 1 ? blend_part_at(id->order, position) : 0;
}

/* Chooses the rows of one block as selectord/work.c does, into ch->rows. *complete: no score is missing. */
static int
choose(struct choice *ch, const struct cache_id *id, struct cache_txn *txn,
    const struct cache_bits *quarantine, uint64_t block, bool *complete)
{
	bool same_model = hash_equal(id->labels.teacher, id->scores.scorer);
	uint32_t L = id->labels.spec.context;
	uint64_t missing = 0, at = 0;

	for (uint64_t i = 0; i < ch->W; i++) {
		uint64_t index = blend_order(id->order, ch->plan.seed, block * ch->W + i),
		    seq = CORPUS_SEQ_MAKE(CORPUS_TRAIN, index);
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
	ch->wanted[0] = ch->K;
	if (ch->n_parts > 1)
		select_parts(id->order, block, ch->W, ch->K, ch->wanted);
	for (size_t part = 0; part < ch->n_parts; part++) {
		memset(ch->cut, 0, sizeof(*ch->cut));
		ch->cut->n_keep = ch->wanted[part];
		for (int pass = 0; pass < 2; pass++) {
			for (uint64_t i = 0; i < ch->W; i++)
				if (part_of(ch, id, block * ch->W + i) == part)
					select_cut_count(ch->cut, &ch->score[i], 1);
			select_cut_next(ch->cut);
		}
		ch->limits[part] = select_cut_limit(ch->cut, ch->wanted[part]);
	}
	for (uint64_t i = 0; i < ch->W; i++) {
		uint64_t position = block * ch->W + i;

		if (select_take(&ch->limits[part_of(ch, id, position)], ch->score[i])) {
			uint64_t seq = CORPUS_SEQ_MAKE(CORPUS_TRAIN, blend_order(id->order, ch->plan.seed, position));
			bool out = ch->quarantined[i] && !ch->labelled[i];

			ch->rows[at++] = (struct cache_row){position, seq, ch->score[i], out ? CACHE_ROW_QUARANTINED : 0};
		}
	}
	return 0;
}

/* *stored: whether the block is stored already. ERR_MISMATCH: it is, with other rows than the chosen ones. */
static int
compare_stored(struct choice *ch, struct cache_txn *txn, uint64_t block, bool *stored)
{
	struct cache_row *old;
	uint64_t n = 0;
	int rc = 0;

	*stored = cache_rows_count(txn, ch->hash, block, &n) == 0 && n == ch->K;
	if (!*stored)
		return 0;
	old = ctl_alloc(ch->K, sizeof(*old));
	*stored = cache_rows_get(txn, ch->hash, block, 0, ch->K, old) == 0;
	for (uint64_t i = 0; *stored && rc == 0 && i < ch->K; i++)
		if (old[i].position != ch->rows[i].position || old[i].flags != ch->rows[i].flags)
			rc = ERR_MISMATCH;
	ch->same_rows += *stored && rc == 0 ? ch->K : 0;
	free(old);
	return rc;
}

/* Adds a chosen block to the figures and to the file of --rows. */
static void
count(struct choice *ch, struct cache_txn *txn, uint64_t block)
{
	for (uint64_t i = 0; i < ch->K; i++) {
		uint64_t g = block * ch->K + i;
		const struct cache_row *row = &ch->rows[i];

		if (g >= ch->plan.n_rows)
			break;
		ch->n_rows++;
		ch->have_labels += (row->flags & CACHE_ROW_QUARANTINED) != 0 || cache_labels_has(txn, row->seq) == 0;
		if (row->score < ch->lowest)
			ch->lowest = row->score;
		if (row->score > ch->highest)
			ch->highest = row->score;
		if (ch->out != NULL)
			fprintf(ch->out, "%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%.9g\n", g, row->position,
			    CORPUS_SEQ_INDEX(row->seq), (double)row->score);
	}
}

static int
commit(struct cache *c, int rc)
{
	if (rc == 0)
		return cache_write_commit(c);
	cache_write_abort(c);
	return rc;
}

static int
store_plan(struct cache *c, const struct choice *ch)
{
	struct cache_plan plan = {.hash = ch->hash, .seed = ch->plan.seed, .batch = ch->plan.batch, .mode = 1,
	    .k = ch->plan.k, .window = ch->W, .kept = ch->K, .n_rows = ch->plan.n_rows,
	    .keep = ch->plan.keep};
	struct cache_txn *txn;
	struct cache_plan old;
	int rc;

	if ((rc = cache_txn_begin(c, &txn)) != 0)
		return rc;
	rc = cache_plan_get(txn, ch->hash, &old);
	cache_txn_end(&txn);
	if (rc != ERR_NOT_FOUND && rc != ERR_CORRUPT)
		return rc;
	return (rc = cache_write_begin(c)) != 0 ? rc : commit(c, cache_write_plan(c, &plan));
}

static int
choose_block(struct choice *ch, struct cache_job *job, const struct cache_bits *quarantine, uint64_t block)
{
	struct cache_txn *txn;
	bool complete, stored = false;
	int rc;

	if ((rc = cache_txn_begin(job->c, &txn)) != 0)
		return rc;
	rc = choose(ch, &job->id, txn, quarantine, block, &complete);
	if (rc == 0 && complete && (rc = compare_stored(ch, txn, block, &stored)) == 0)
		count(ch, txn, block);
	cache_txn_end(&txn);
	if (rc == ERR_MISMATCH)
		return err_expect(&job->note, rc, "block %" PRIu64, "the rows that are stored for these settings",
		    "others: were sequences quarantined or scores replaced since? saltctl cache fsck", block);
	ch->incomplete += rc == 0 && !complete;
	if (rc != 0 || !ch->write || stored || !complete || (rc = cache_write_begin(job->c)) != 0 ||
	    (rc = commit(job->c, cache_write_rows(job->c, ch->hash, block, ch->rows, ch->K, NULL))) != 0)
		return rc;
	ch->written += ch->K;
	return 0;
}

/* Processes the blocks of one cache. */
static int
reselect(struct cache_job *job, void *arg)
{
	struct choice *ch = arg;
	struct cache_bits quarantine = {.bits = NULL};
	int rc;

	if ((rc = cache_job_open(job, ch->write ? CACHE_UPKEEP : CACHE_READ,
	    ch->write ? job->cfg->cache.map_size : 0, true)) != 0)
		return rc;
	if (job->i == 0) {
		ch->plan.by_part = job->cfg->selector.by_part && blend_n_parts(job->id.order) > 1;
		ch->n_parts = ch->plan.by_part ? blend_n_parts(job->id.order) : 1;
		allocate(ch, job->id.labels.spec.context);
	}
	ch->hash = cache_plan_hash(&job->id, &ch->plan);
	if ((rc = cache_quarantined(job->c, job->id.windows, &quarantine)) == 0 && ch->write)
		rc = store_plan(job->c, ch);
	for (uint64_t b = job->id.shard; rc == 0 && b < ch->n_blocks; b += job->id.n_shards)
		rc = choose_block(ch, job, &quarantine, b);
	cache_bits_free(&quarantine);
	return rc;
}

static struct json *
choice_json(const struct choice *ch)
{
	return ctl_record(CTL("plan", cache_hex(ch->hash)), CTL("k", ch->plan.k), CTL("keep", ch->plan.keep),
	    CTL("block", ch->W), CTL("kept", ch->K), CTL("rows", ch->plan.n_rows),
	    CTL("rows_chosen", ch->n_rows), CTL("labels_there", ch->have_labels),
	    CTL("labels_to_make", ch->n_rows - ch->have_labels), CTL("scores_missing", ch->missing_scores),
	    CTL("blocks_incomplete", ch->incomplete), CTL("lowest_score", ch->lowest),
	    CTL("highest_score", ch->highest), CTL("rows_written", ch->written));
}

static void
print(const struct choice *ch)
{
	ctl_line("plan", "%s", cache_hex(ch->hash));
	ctl_line("choice",
	    "%" PRIu64 " of each %" PRIu64 " sequences, k = %" PRIu32 ", %" PRIu64 " rows of phase one",
	    ch->K, ch->W, ch->plan.k, ch->plan.n_rows);
	if (ch->incomplete > 0)
		ctl_line("not scored",
		    "%" PRIu64 " sequences in %" PRIu64 " of %" PRIu64 " blocks have no score: selectord chooses those",
		    ch->missing_scores, ch->incomplete, ch->n_blocks);
	if (ch->n_rows > 0)
		ctl_line("chosen", "%" PRIu64 " rows, S(x) from %.4f to %.4f nats", ch->n_rows, ch->lowest,
		    ch->highest);
	ctl_line("labels", "%" PRIu64 " are there, %" PRIu64 " rows need one from a teacher", ch->have_labels,
	    ch->n_rows - ch->have_labels);
	if (ch->write)
		ctl_line("stored", "%" PRIu64 " rows, %" PRIu64 " were there already", ch->written, ch->same_rows);
	else
		ctl_line("stored",
		    "nothing: use --write with selectord stopped, or selectord makes the same rows from these settings");
}

static int
run(struct ctl_args *args)
{
	struct choice ch = {.lowest = INFINITY, .highest = -INFINITY, .write = ctl_has(args, "write")};
	const char *path = ctl_get(args, "rows");
	bool to_stdout = path != NULL && strcmp(path, "-") == 0;
	struct file_replace file = {.f = NULL};
	struct err_note note = {.name = ""};
	struct cache_job job;
	int exit_code, rc;

	if (!ctl_has(args, "config"))
		return ctl_usage(args, "give -c fleet.yaml, which has seed, batch and steps of the run");
	if (to_stdout && ctl_has(args, "json"))
		return ctl_usage(args, "--rows - and --json cannot both use standard output");
	if ((exit_code = cache_job_begin(&job, args, false)) != 0 || (exit_code = settings(args, job.cfg, &ch)) != 0)
		return cache_job_end(&job, exit_code);
	if (path != NULL && !to_stdout &&
	    ((rc = ctl_may_write(path, "0\t#\t#\t", ctl_has(args, "replace"), &note)) != 0 ||
		(rc = file_replace_begin(&file, path, &note)) != 0))
		return cache_job_end(&job, ctl_fail(args, rc, &note));
	if (file.f != NULL)
		ctl_stop_removes(file.temp);
	ch.out = to_stdout ? stdout : file.f;
	exit_code = cache_job_each(&job, reselect, &ch);
	if (file.f != NULL && exit_code != 0)
		file_replace_abort(&file);
	else if (file.f != NULL && (rc = file_replace_end(&file, false, &note)) != 0)
		exit_code = ctl_fail(args, rc, &note);
	ctl_stop_keeps(file.temp);
	if (exit_code == 0 && job.all != NULL) {
		json_close(&job.all);
		job.all = choice_json(&ch);
	} else if (exit_code == 0 && !to_stdout) {
		print(&ch);
	}
	choice_free(&ch);
	return cache_job_end(&job, exit_code);
}

const struct ctl_verb ctl_cache_reselect = {
	.name = "cache reselect", .operands = "", .summary = "another choice of sequences from stored scores, without a teacher",
	.about = "Settings that are not given are fleet.yaml's. Prints the number of rows of such a plan, how many of\n"
	    "their labels exist and how many a teacher must make. Changes nothing without --write, which stores\n"
	    "the rows; selectord chooses the same rows from these settings.",
	.example = "saltctl cache reselect -c fleet.yaml --k 20 --keep 0.25 --window 4096",
	.options = options, .run = run,
};
