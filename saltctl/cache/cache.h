/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache - what the verbs `saltctl cache ...` share: the caches a verb works on, a cache's identity, and the
 * corpora and settings that fleet.yaml adds. A folder with shard_0, shard_1, ... holds one cache each; every
 * verb goes through all of them.
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

/* cache_hex - a hash as text; valid to the end of the block. */
#define cache_hex(hash) hash_hex(hash, (char[HASH_HEX_BYTES]){""})

/* A cache's identity, from its table meta. bound is false if no selectord has used the cache yet. */
struct cache_id {
	bool bound, has_heldout, has_tokenizer;
	struct hash128 heldout, tokenizer, label_set, score_set;
	struct labels_set labels;		/* spec.context, spec.vocab: the cache's */
	struct labels_scores_set scores;
	uint64_t windows;
	struct blend *order;			/* of the corpus */
	uint32_t shard, n_shards;
	struct labels_unigram *unigram;		/* of labels.spec, sampled */
	struct json *texts;			/* name -> text, all of them */
	/* labels of an older version become today's, with this corpus's counts; NULL: they are rejected */
	struct corpus *upgrade;
};

/* cache_id_read - 0, ERR_CORRUPT, ERR_VERSION, or ERR_MISMATCH (a set's hash is not that of its parts).
 * cache_id_free in any case. */
int cache_id_read(struct cache *c, struct cache_id *id, struct err_note *note);
/* the same from id->texts and id->unigram, as an export has them */
int cache_id_parse(struct cache_id *id, struct err_note *note);
void cache_id_free(struct cache_id *id);

/* cache_decode - one stored label record; *tokens (may be NULL) is the hash of the tokens that it names.
 * 0, or as labels_decode. */
int cache_decode(const struct cache_id *id, struct cache_bytes bytes, struct labels_batch *batch,
    struct hash128 *tokens, struct err_note *note);

/* The corpora of a cache: --corpus and --heldout, else fleet.yaml's. NULL: not given. */
#define CTL_CORPORA {"corpus", "PREFIX", "the corpus; default corpus.train of -c", false}, \
	{"heldout", "PREFIX", "the held-out corpus; default corpus.heldout of -c", false}, CTL_DTYPE

struct cache_corpora {
	struct corpus *train, *heldout;
	struct hash128 train_hash, heldout_hash;
};

/* cache_corpora_check - 0, or ERR_MISMATCH with both fingerprints: these corpora are not the cache's. */
int cache_corpora_check(const struct cache_corpora *corpora, const struct cache_id *id, struct err_note *note);

/* cache_tokens_of - hash of the L + 1 tokens of seq, which go to tokens. 0; ERR_NOT_FOUND: no such corpus
 * given; or as corpus_window. */
int cache_tokens_of(const struct cache_corpora *corpora, uint64_t seq, uint32_t L, int32_t *tokens, struct hash128 *out,
    struct err_note *note);

/* cache_plan_hash - of wire_plan over this cache's corpus and score set. */
struct hash128 cache_plan_hash(const struct cache_id *id, const struct wire_plan *plan);

/*
 * A verb's work on its caches, by --cache or -c, one after the other:
 *	if ((exit_code = cache_job_begin(&job, args, true)) == 0)
 *		exit_code = cache_job_each(&job, one, arg);
 *	return cache_job_end(&job, exit_code);
 * one() opens the cache by cache_job_open, which cache_job_each closes. It returns 0 or an error with
 * job->note; if it printed a message itself it sets job->exit_code. Under --json it pushes its result to
 * job->all, which cache_job_end prints.
 */
struct cache_job {
	struct ctl_args *args;
	struct config *cfg;			/* -c; NULL without */
	struct cache_corpora corpora;
	struct json *all;			/* NULL without --json */
	char root[4096];
	char (*dirs)[CACHE_DIR_BYTES];		/* [n] */
	size_t n, cap;
	bool shards;				/* root holds shards */
	int exit_code;
	/* of the cache at hand */
	size_t i;
	const char *dir;
	struct cache *c;
	struct cache_id id;
	struct err_note note;
};

/* exit code; end it in any case */
int cache_job_begin(struct cache_job *job, struct ctl_args *args, bool corpora);
int cache_job_each(struct cache_job *job, int (*one)(struct cache_job *job, void *arg), void *arg);
int cache_job_end(struct cache_job *job, int exit_code);

/* cache_job_open - job->c and job->id. bound: a cache that no selectord has used yet is ERR_NOT_FOUND.
 * map_bytes 0: as it is. */
int cache_job_open(struct cache_job *job, enum cache_mode mode, uint64_t map_bytes, bool bound);

/*
 * cache_ask_drop - asks the selectord of that shard to drop the labels that no plan needs (DROP_LABELS); *out
 * is what it did. Waits until it is done. cfg with corpora and endpoints. Exit code after the message was printed.
 */
int cache_ask_drop(const struct ctl_args *args, const struct config *cfg, size_t shard, bool released_too,
    struct wire_dropped *out);

/* ---- writing in pieces: a commit every so many records bounds the size of a transaction ---- */

struct cache_batch {
	struct cache *c;
	size_t n;				/* records of the open transaction */
	bool open;
};

/* before each write: begins a transaction, or commits and begins the next */
int cache_batch_step(struct cache_batch *b);
/* commits, or after an error rc aborts. Returns rc or the commit's error */
int cache_batch_end(struct cache_batch *b, int rc);

/* ---- contents (cache_look.c) ---- */

/* cache_quarantined - a bit for each training sequence in quarantine. cache_plans - all plans; free()
 * them. 0 or errno. */
struct cache_bits;
int cache_quarantined(struct cache *c, uint64_t windows, struct cache_bits *out);
int cache_plans(struct cache *c, struct cache_plan **plans, size_t *n);

/*
 * cache_sample - calls each() for up to max label or score records (0: all), evenly spread over the corpus;
 * the bytes are valid during the call. Records that cannot be read, or for which each() returns one of our
 * errors (< 0), are counted as damaged. 0 or errno.
 */
int cache_sample(struct cache *c, const struct cache_id *id, enum cache_table table, uint64_t max,
    int (*each)(void *arg, uint64_t seq, struct cache_bytes v), void *arg, uint64_t *n_damaged);

struct cache_look {
	uint64_t n_labels, n_damaged;		/* records read; records that could not be read */
	uint64_t label_bytes, label_tokens;	/* of them */
	double entropy_bits, unique;		/* means over tokens: of the stored distribution; ids with weight */
	uint64_t distinct_ids;			/* ids that occur */
	double mean_loss_nats, in_top_k;	/* scorer's, means over tokens */
	unsigned k;
	double *score;				/* [n_scores] S(x) with k, of the score records read */
	size_t n_scores, cap_scores;
	double s_max;
};

#define CACHE_LOOK_BINS 12

/* cache_look - up to max records of each kind (0: all), evenly spread over the corpus; S(x) with k. 0 or
 * errno. cache_look_free. */
int cache_look(struct cache *c, const struct cache_id *id, uint64_t max, unsigned k, struct cache_look *out);
void cache_look_free(struct cache_look *look);
/* equal widths from 0 to s_max */
void cache_look_bins(const struct cache_look *look, uint64_t bins[CACHE_LOOK_BINS]);

/* Blocks of a plan that are written, and their rows' labels. */
struct cache_cover {
	struct hash128 plan;
	uint64_t blocks, rows, labelled, quarantined, damaged;	/* damaged: blocks whose rows cannot be read */
};

/*
 * cache_blocks - calls each() for every block written, in order of plan and number, with its rows (rc != 0:
 * they cannot be read).
 * cache_cover - the blocks summed up by plan, into *out (free() it).
 */
int cache_blocks(struct cache *c, int (*each)(void *arg, struct cache_txn *txn, struct hash128 plan,
    uint64_t block, int rc, const struct cache_row *rows, uint64_t n), void *arg);
int cache_cover(struct cache *c, struct cache_cover **out, size_t *n);

/* cache_fidelity - `cache stat --fidelity`: compares stored labels with the teacher at --teacher. *out:
 * the figures. Exit code. */
int cache_fidelity(const struct cache_job *job, struct json **out);

/* ---- a bit per window ---- */

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

/* A tensor of a part's shards. */
struct export_tensor {
	const char *name;
	int dtype;				/* enum weights_dtype */
	unsigned n_dims;			/* after the first, which counts records (flat: entries) */
	uint64_t dims[2];
	/* a single dimension of another length: ids, counts, row_offsets of sampled labels */
	bool flat;
};

#define EXPORT_UNIGRAM "unigram.bin"		/* sampled labels: the table they are coded with, a byte per id */
#define EXPORT_TENSORS_MAX 7

const char *export_part_name(enum export_part part);	/* "labels", "scores", "heldout_scores", "rows" */

/* export_tensors - the tensors of a part for this label set, in file order. Returns their number. */
size_t export_tensors(enum export_part part, const struct labels_spec *spec,
    struct export_tensor out[EXPORT_TENSORS_MAX]);

#endif
