/*
 * cache - what the verbs `saltctl cache ...` share: which caches are meant, what a cache says it belongs to, the corpora and settings
 * that fleet.yaml adds. A folder with shard_0, shard_1, ... holds one cache each; every verb goes through all of them.
 */
#ifndef SALT_CTL_CACHE_H
#define SALT_CTL_CACHE_H

#include "data/cache/cache.h"
#include "data/corpus/corpus.h"
#include "saltctl/core/ctl.h"
#include "data/labels/labels.h"
#include "fabric/wire/wire.h"

struct json;

#define CTL_CACHE CTL_CONFIG, {"cache", "FOLDER", "the cache; cache.dir of -c unless told", false}
#define CACHE_DIR_BYTES 4200

struct cache_dirs {
	char root[4096];
	char (*dir)[CACHE_DIR_BYTES];		/* [n] */
	size_t n;
	bool shards;				/* root holds shards */
};

/* cache_dirs_find - by --cache or -c. *cfg: fleet.yaml if -c was given, else NULL. Exit code; cache_dirs_free in any case. */
int cache_dirs_find(struct ctl_args *args, struct cache_dirs *dirs, struct config **cfg);
void cache_dirs_free(struct cache_dirs *dirs);

/* What meta says. A cache that no selectord has bound yet has no identity: bound is false. */
struct cache_id {
	bool bound, has_heldout, has_tokenizer;
	struct hash128 heldout, tokenizer, label_set, score_set;
	struct labels_set labels;		/* spec.context, spec.vocab: the cache's */
	struct labels_scores_set scores;
	uint64_t windows;
	uint32_t shard, n_shards;
	struct labels_unigram *unigram;		/* of labels.spec, sampled */
	struct json *texts;			/* name -> text, all of them */
	struct corpus *upgrade;			/* NULL: labels of an older version are refused. Else they are taken for today's, with this corpus's counts */
};

/* cache_id_read - 0; ERR_CORRUPT, ERR_VERSION, ERR_MISMATCH (parts and hash of a set do not fit each other): note. cache_id_free. */
int cache_id_read(struct cache *c, struct cache_id *id, struct err_note *note);
int cache_id_parse(struct cache_id *id, struct err_note *note);	/* the same from id->texts and id->unigram, which an export gave */
void cache_id_free(struct cache_id *id);

/*
 * cache_decode - one stored label record, as the record itself says which tokens it belongs to; *tokens gets their hash (may be NULL).
 * want: the hash it must have; NULL: any. 0, or what labels_decode returns.
 */
int cache_decode(const struct cache_id *id, const struct hash128 *want, struct cache_bytes bytes, struct labels_batch *batch,
    struct hash128 *tokens, struct err_note *note);

/*
 * cache_corpora - the corpora that the cache is said to be of: --corpus, --heldout, else fleet.yaml's. NULL: not given. Another corpus
 * than the cache's is refused with both fingerprints. Exit code.
 */
#define CTL_CORPORA {"corpus", "PREFIX", "the corpus; corpus.train of -c unless told", false}, \
	{"heldout", "PREFIX", "the held-out corpus; corpus.heldout of -c unless told", false}

struct cache_corpora {
	struct corpus *train, *heldout;
	struct hash128 train_hash, heldout_hash;
};

int cache_corpora_open(struct ctl_args *args, const struct config *cfg, struct cache_corpora *corpora);
void cache_corpora_close(struct cache_corpora *corpora);
int cache_corpora_check(const struct cache_corpora *corpora, const struct cache_id *id, struct err_note *note);

/* cache_tokens_of - hash of the L + 1 tokens of seq. 0; ERR_NOT_FOUND: that corpus was not given; ERR_RANGE and what corpus_window says. */
int cache_tokens_of(const struct cache_corpora *corpora, uint64_t seq, uint32_t L, int32_t *scratch, struct hash128 *out, struct err_note *note);

/* cache_plan_hash - of wire_plan over this cache's corpus and score set. */
struct hash128 cache_plan_hash(const struct cache_id *id, const struct wire_plan *plan);

/*
 * cache_ask_drop - the selectord of that shard takes away the labels that no plan needs (DROP_LABELS), and *out is what it did. Waits for as long as
 * it works. cfg with corpora and endpoints. Exit code, said already.
 */
int cache_ask_drop(const struct ctl_args *args, const struct config *cfg, size_t shard, bool released_too, struct wire_dropped *out);

/* cache_watch_bus - from now on a read beyond the end of a cut file ends saltctl with 65 and words, not with SIGBUS. */
void cache_watch_bus(const struct ctl_args *args);

/* cache_spread - the sequence to look at as place i of n, evenly over 0 .. windows - 1, and not before next. */
uint64_t cache_spread(uint64_t i, uint64_t n, uint64_t windows, uint64_t next);

/* ---- writing in pieces: a commit every so many records, so that no transaction grows without bound ---- */

struct cache_batch {
	struct cache *c;
	size_t n;				/* records of the open transaction */
	bool open;
};

int cache_batch_step(struct cache_batch *b);	/* before each write: begins one, or commits and begins the next */
int cache_batch_end(struct cache_batch *b);	/* commits what is open */
void cache_batch_abort(struct cache_batch *b);

/* ---- what is inside (cache_look.c) ---- */

struct cache_look {
	uint64_t n_labels, n_damaged;		/* records looked at; others that could not be read */
	uint64_t label_bytes, label_tokens;	/* of them */
	double entropy_bits, unique;		/* means over tokens: of the stored distribution; ids with weight */
	uint64_t distinct_ids;			/* ids that occur at all */
	uint64_t n_scores;			/* records looked at */
	double mean_loss_nats, in_top_k;	/* scorer's, means over tokens */
	unsigned k;
	double *score;				/* [n_scores] S(x) with k */
	double s_max;
};

#define CACHE_LOOK_BINS 12

/* cache_look - up to max records of each kind (0: all), evenly spread over the corpus; S(x) with k. 0, ENOMEM, errno. cache_look_free. */
int cache_look(struct cache *c, const struct cache_id *id, uint64_t max, unsigned k, struct cache_look *out);
void cache_look_free(struct cache_look *look);
void cache_look_bins(const struct cache_look *look, uint64_t bins[CACHE_LOOK_BINS]);	/* equal widths from 0 to s_max */

/* Blocks of a plan that are written, and their rows' labels. */
struct cache_cover {
	struct hash128 plan;
	uint64_t blocks, rows, labelled, quarantined, damaged;	/* damaged: blocks whose rows cannot be read */
};

/*
 * cache_blocks - calls each() for every block written, in order of plan and number, with its rows (rc != 0: they cannot be read).
 * cache_cover - by plan, into *out (free() it).
 */
int cache_blocks(struct cache *c, int (*each)(void *arg, struct cache_txn *txn, struct hash128 plan, uint64_t block, int rc,
    const struct cache_row *rows, uint64_t n), void *arg);
int cache_cover(struct cache *c, struct cache_cover **out, size_t *n);

/* cache_fidelity_verb - `cache stat --fidelity`: compares stored labels with the teacher at --teacher. Exit code. */
int cache_fidelity(struct ctl_args *args, const struct config *cfg, struct cache *c, const struct cache_id *id,
    const struct cache_corpora *corpora, struct json *out);

/* ---- a bit per window ---- */

struct cache_bits {
	uint8_t *bits;
	uint64_t n;
};

int cache_bits_new(struct cache_bits *b, uint64_t n);	/* 0 or ENOMEM */
void cache_bits_set(struct cache_bits *b, uint64_t i);
bool cache_bits_get(const struct cache_bits *b, uint64_t i);
void cache_bits_free(struct cache_bits *b);

/* ---- what cache export writes and cache import reads; docs/formats.md has it in words ---- */

#define EXPORT_FORMAT "saltfleet-cache-export"
#define EXPORT_VERSION 1

enum export_part { EXPORT_LABELS, EXPORT_SCORES, EXPORT_HELDOUT, EXPORT_ROWS, EXPORT_PARTS };

/* A tensor of a part's shards. */
struct export_tensor {
	const char *name;
	int dtype;				/* enum weights_dtype */
	unsigned n_dims;			/* beside the first, which is the records' (or entries', flat) */
	uint64_t dims[2];
	bool flat;				/* one dimension of its own length: ids, counts, row_offsets of sampled labels */
};

#define EXPORT_UNIGRAM "unigram.bin"		/* sampled: the table that labels are coded under, a byte an id */
#define EXPORT_TENSORS_MAX 7

const char *export_part_name(enum export_part part);	/* "labels", "scores", "heldout_scores", "rows" */

/* export_tensors - those of a part, as the label set has them, in file order. Returns how many. */
size_t export_tensors(enum export_part part, const struct labels_spec *spec, struct export_tensor out[EXPORT_TENSORS_MAX]);

#endif
