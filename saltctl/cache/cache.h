/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache - what the verbs `saltctl cache ...` share: the caches that a verb works on, the identity of a cache,
 * and the corpora and settings from fleet.yaml. In a folder with shard_0, shard_1, ... each of these is a
 * cache, and every verb works on all of them.
 */
#ifndef SALT_CTL_CACHE_H
#define SALT_CTL_CACHE_H

#include "data/cache/cache.h"
#include "data/corpus/blend.h"
#include "data/corpus/corpus.h"
#include "saltctl/core/ctl.h"
#include "data/labels/labels.h"
#include "fabric/wire/wire.h"

struct json;

#define CTL_CACHE CTL_CONFIG, {"cache", "FOLDER", "the cache; default cache.dir of -c", false}
#define CACHE_DIR_BYTES 4200

/* cache_hex - a hash as hexadecimal text; valid until the end of the enclosing block. */
#define cache_hex(hash) hash_hex(hash, (char[HASH_HEX_BYTES]){""})

/* A cache's identity, from its table meta. bound is false if no selectord has used the cache yet. */
struct cache_id {
	bool bound, has_heldout, has_tokenizer;
	struct hash128 heldout, tokenizer, label_set, score_set;
	struct labels_set labels;		/* spec.context and spec.vocab are those of the cache */
	struct labels_scores_set scores;
	uint64_t windows;			/* sequences of the training corpus */
	struct blend *order;			/* shuffle order of the corpus */
	uint32_t shard, n_shards;
	struct labels_unigram *unigram;		/* of labels.spec if the labels are sampled */
	struct json *texts;			/* all entries of the table: name -> text */
	/* labels of an older version are upgraded with this corpus's token counts; NULL: rejected */
	struct corpus *upgrade;
};

/*
 * cache_id_read - reads the identity. Returns 0, ERR_CORRUPT, ERR_VERSION, or ERR_MISMATCH (the hash of a set
 * does not match its parts). Call cache_id_free in any case.
 */
int cache_id_read(struct cache *c, struct cache_id *id, struct err_note *note);
/* cache_id_parse - the same from id->texts and id->unigram, which an export provides. */
int cache_id_parse(struct cache_id *id, struct err_note *note);
void cache_id_free(struct cache_id *id);

/*
 * cache_decode - decodes one stored label record; *tokens (may be NULL) gets the token hash in its header.
 * Returns 0, or an error of labels_peek or labels_decode.
 */
int cache_decode(const struct cache_id *id, struct cache_bytes bytes, struct labels_batch *batch,
    struct hash128 *tokens, struct err_note *note);

/* The corpora of a cache: --corpus and --heldout, or else those of fleet.yaml. NULL: not given. */
#define CTL_CORPORA {"corpus", "PREFIX", "the corpus; default corpus.train of -c", false}, \
	{"heldout", "PREFIX", "the held-out corpus; default corpus.heldout of -c", false}, CTL_DTYPE

struct cache_corpora {
	struct corpus *train, *heldout;
	struct hash128 train_hash, heldout_hash;
};

/* cache_corpora_check - 0, or ERR_MISMATCH with both fingerprints if a corpus is not that of the cache. */
int cache_corpora_check(const struct cache_corpora *corpora, const struct cache_id *id, struct err_note *note);

/*
 * cache_tokens_of - reads the L + 1 tokens of seq into tokens and their hash into *out. Returns 0,
 * ERR_NOT_FOUND (this corpus was not given), or an error of corpus_window.
 */
int cache_tokens_of(const struct cache_corpora *corpora, uint64_t seq, uint32_t L, int32_t *tokens, struct hash128 *out,
    struct err_note *note);

/* cache_plan_hash - the hash of a plan over this cache's corpus and, in mode salt_ds, its score set. */
struct hash128 cache_plan_hash(const struct cache_id *id, const struct wire_plan *plan);

/*
 * A verb's work on its caches, which --cache or -c name, one after the other:
 *	if ((exit_code = cache_job_begin(&job, args, true)) == 0)
 *		exit_code = cache_job_each(&job, one, arg);
 *	return cache_job_end(&job, exit_code);
 * one() opens the cache with cache_job_open; cache_job_each closes it. one() returns 0 or an error with
 * job->note; if it printed a message itself it sets job->exit_code. With --json it pushes its result to
 * job->all, which cache_job_end prints.
 */
struct cache_job {
	struct ctl_args *args;
	struct config *cfg;			/* of -c; NULL without */
	struct cache_corpora corpora;
	struct json *all;			/* NULL without --json */
	char root[4096];
	char (*dirs)[CACHE_DIR_BYTES];		/* [n] */
	size_t n, cap;
	bool shards;				/* root contains shards */
	int exit_code;
	/* of the current cache */
	size_t i;
	const char *dir;
	struct cache *c;
	struct cache_id id;
	struct err_note note;
};

/* These return an exit code. corpora: open the corpora too. Call cache_job_end in any case. */
int cache_job_begin(struct cache_job *job, struct ctl_args *args, bool corpora);
int cache_job_each(struct cache_job *job, int (*one)(struct cache_job *job, void *arg), void *arg);
int cache_job_end(struct cache_job *job, int exit_code);

/*
 * cache_job_open - opens job->dir: sets job->c and job->id. bound: a cache that no selectord has used yet is
 * ERR_NOT_FOUND. map_bytes 0: keep the size of the map.
 */
int cache_job_open(struct cache_job *job, enum cache_mode mode, uint64_t map_bytes, bool bound);
/*
 * cache_job_missing - prints a warning if the cache of this identity has more shards than root contains, once
 * for a job. cache_job_open calls it.
 */
void cache_job_missing(const struct cache_job *job, const struct cache_id *id);

/*
 * cache_ask_drop - asks the selectord of this shard to drop the labels that no plan needs (DROP_LABELS) and
 * waits until it is done; *out: what was dropped. cfg must have corpora and endpoints. Returns 0, or an exit
 * code after it printed a message.
 */
int cache_ask_drop(const struct ctl_args *args, const struct config *cfg, size_t shard, bool released_too,
    struct wire_dropped *out);

/* ---- writing in batches: regular commits bound the size of a transaction ---- */

struct cache_batch {
	struct cache *c;
	size_t n;				/* records of the open transaction */
	bool open;
};

/* cache_batch_step - call it before each write: begins a transaction if none is open; commits a full one. */
int cache_batch_step(struct cache_batch *b);
/* cache_batch_end - commits, or aborts if rc is an error. Returns rc or the commit's error. */
int cache_batch_end(struct cache_batch *b, int rc);

/* ---- contents (cache_look.c) ---- */

/*
 * cache_quarantined - sets a bit for each training sequence in quarantine. cache_plans - reads all plans;
 * free() them. Both return 0 or errno.
 */
struct cache_bits;
int cache_quarantined(struct cache *c, uint64_t windows, struct cache_bits *out);
int cache_plans(struct cache *c, struct cache_plan **plans, size_t *n);

/*
 * cache_sample - calls each() for up to max label or score records (0: all), evenly spread over the corpus;
 * the bytes are valid during the call. Records that cannot be read, or for which each() returns an error code
 * of ours (< 0), are counted as damaged. Returns 0 or errno.
 */
int cache_sample(struct cache *c, const struct cache_id *id, enum cache_table table, uint64_t max,
    int (*each)(void *arg, uint64_t seq, struct cache_bytes v), void *arg, uint64_t *n_damaged);

struct cache_look {
	uint64_t n_labels, n_damaged;		/* records read; records that could not be read */
	uint64_t label_bytes, label_tokens;	/* of the label records read */
	double entropy_bits, unique;		/* means over tokens: entropy of a label; ids in it */
	uint64_t distinct_ids;			/* ids that occur in any label */
	double mean_loss_nats, in_top_k;	/* means over tokens, from the scorer */
	unsigned k;
	double *score;				/* [n_scores] S(x) with this k, of the score records read */
	size_t n_scores, cap_scores;
	double s_max;
};

#define CACHE_LOOK_BINS 12

/*
 * cache_look - statistics over up to max records of each kind (0: all), evenly spread over the corpus; S(x)
 * is computed with k. Returns 0 or errno. Call cache_look_free.
 */
int cache_look(struct cache *c, const struct cache_id *id, uint64_t max, unsigned k, struct cache_look *out);
void cache_look_free(struct cache_look *look);
/* cache_look_bins - histogram of the scores: bins of equal width from 0 to s_max. */
void cache_look_bins(const struct cache_look *look, uint64_t bins[CACHE_LOOK_BINS]);

/* The blocks of a plan whose rows are stored, and how many of these rows have labels. */
struct cache_cover {
	struct hash128 plan;
	uint64_t blocks, rows, labelled, quarantined, damaged;	/* damaged: blocks whose rows cannot be read */
};

/*
 * cache_blocks - calls each() with the rows of every stored block, in order of plan and block number; rc !=
 * 0: the rows cannot be read.
 * cache_cover - sums the blocks up by plan, into *out (free() it).
 */
int cache_blocks(struct cache *c, int (*each)(void *arg, struct cache_txn *txn, struct hash128 plan,
    uint64_t block, int rc, const struct cache_row *rows, uint64_t n), void *arg);
int cache_cover(struct cache *c, struct cache_cover **out, size_t *n);

/*
 * cache_fidelity - `cache stat --fidelity`: compares stored labels with the teacher at --teacher. *out: the
 * figures. Returns an exit code.
 */
int cache_fidelity(const struct cache_job *job, struct json **out);

/* ---- a bit per sequence ---- */

struct cache_bits {
	uint8_t *bits;
	uint64_t n;
};

void cache_bits_new(struct cache_bits *b, uint64_t n);
void cache_bits_set(struct cache_bits *b, uint64_t i);
bool cache_bits_get(const struct cache_bits *b, uint64_t i);
void cache_bits_free(struct cache_bits *b);

/* ---- the format of cache export and import; docs/formats.md describes it ---- */

#define EXPORT_FORMAT "saltfleet-cache-export"
#define EXPORT_VERSION 1

enum export_part { EXPORT_LABELS, EXPORT_SCORES, EXPORT_HELDOUT, EXPORT_ROWS, EXPORT_PARTS };

/* A tensor of a part; every file of the part has it. */
struct export_tensor {
	const char *name;
	int dtype;				/* enum weights_dtype */
	unsigned n_dims;			/* without the first, which counts records (flat: entries) */
	uint64_t dims[2];
	/* a single dimension that does not count records: ids, counts, row_offsets of sampled labels */
	bool flat;
};

#define EXPORT_UNIGRAM "unigram.bin"		/* unigram table of sampled labels, one byte per id */
#define EXPORT_TENSORS_MAX 7

const char *export_part_name(enum export_part part);	/* "labels", "scores", "heldout_scores", "rows" */

/* export_tensors - lists the tensors of a part for this label set, in file order. Returns their number. */
size_t export_tensors(enum export_part part, const struct labels_spec *spec,
    struct export_tensor out[EXPORT_TENSORS_MAX]);

#endif
