/*
 * cache - what the verbs `saltctl cache ...` share: which caches are meant, what a cache says it belongs to, the corpora and settings
 * that fleet.yaml adds. A folder with shard_0, shard_1, ... holds one cache each; every verb goes through all of them.
 */
#ifndef SALT_CTL_CACHE_H
#define SALT_CTL_CACHE_H

#include "cache/cache.h"
#include "corpus/corpus.h"
#include "ctl/ctl.h"
#include "labels/labels.h"
#include "wire/wire.h"

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
	struct json *texts;			/* name -> text, all of them */
};

/* cache_id_read - 0; ERR_CORRUPT, ERR_VERSION, ERR_MISMATCH (parts and hash of a set do not fit each other): note. cache_id_free. */
int cache_id_read(struct cache *c, struct cache_id *id, struct err_note *note);
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

/* cache_watch_bus - from now on a read beyond the end of a cut file ends saltctl with 65 and words, not with SIGBUS. */
void cache_watch_bus(const struct ctl_args *args);

/* ---- writing in pieces: a commit every so many records, so that no transaction grows without bound ---- */

struct cache_batch {
	struct cache *c;
	size_t n;				/* records of the open transaction */
	bool open;
};

int cache_batch_step(struct cache_batch *b);	/* before each write: begins one, or commits and begins the next */
int cache_batch_end(struct cache_batch *b);	/* commits what is open */
void cache_batch_abort(struct cache_batch *b);

/* ---- rows of a plan, of several verbs ---- */

/* Does a bit per window stand for "needed": cache_needed_new marks what plans still want. See cache_drop.c. */
struct cache_bits {
	uint8_t *bits;
	uint64_t n;
};

int cache_bits_new(struct cache_bits *b, uint64_t n);	/* 0 or ENOMEM */
void cache_bits_set(struct cache_bits *b, uint64_t i);
bool cache_bits_get(const struct cache_bits *b, uint64_t i);
void cache_bits_free(struct cache_bits *b);

#endif
