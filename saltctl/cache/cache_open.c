/* Which caches a verb is about, what they say they belong to, and small helpers of all `cache` verbs. */
#include "saltctl/cache/cache.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "fabric/config/config.h"
#include "saltctl/core/output.h"
#include "base/json/json.h"
#include "base/mem/mem.h"

#define BATCH_RECORDS 1024

int
cache_dirs_find(struct ctl_args *args, struct cache_dirs *dirs, struct config **cfg)
{
	char path[CACHE_DIR_BYTES];
	struct stat st;
	size_t cap = 0;
	int exit_code;

	*dirs = (struct cache_dirs){.n = 0};
	*cfg = NULL;
	if (ctl_has(args, "config")) {
		if ((exit_code = ctl_open_config(args, ctl_has(args, "cache") ? 0 : CONFIG_NEED_CACHE, cfg)) != 0)
			return exit_code;
		snprintf(dirs->root, sizeof(dirs->root), "%s", (*cfg)->cache.dir);
	}
	if (ctl_has(args, "cache"))
		snprintf(dirs->root, sizeof(dirs->root), "%s", ctl_get(args, "cache"));
	else if (*cfg == NULL)
		return ctl_usage(args, "which cache? give --cache FOLDER or -c fleet.yaml");
	do {
		snprintf(path, sizeof(path), "%s/shard_%zu", dirs->root, dirs->n);
		if (stat(path, &st) == 0)
			dirs->shards = true;
		else if (dirs->n > 0)
			break;
		else
			snprintf(path, sizeof(path), "%s", dirs->root);
		if (mem_grow((void **)&dirs->dir, &cap, dirs->n + 1, sizeof(*dirs->dir)) != 0)
			return ctl_fail(args, ENOMEM, NULL);
		snprintf(dirs->dir[dirs->n++], CACHE_DIR_BYTES, "%s", path);
	} while (dirs->shards);
	return 0;
}

void
cache_dirs_free(struct cache_dirs *dirs)
{
	free(dirs->dir);
	*dirs = (struct cache_dirs){.n = 0};
}

/* ---- identity ---- */

static int
take_text(void *arg, const char *name, const char *value)
{
	struct cache_id *id = arg;

	ctl_put_text(id->texts, name, value);
	return 0;
}

static int
want_text(const struct cache_id *id, const char *name, const char **text, struct err_note *note)
{
	if (json_text(json_get(id->texts, name), text))
		return 0;
	err_note_set(note, ERR_CORRUPT, "identity %s", name);
	err_note_expected(note, "a text in table meta, as selectord writes");
	err_note_found(note, "none");
	return ERR_CORRUPT;
}

static int
want_hash(const struct cache_id *id, const char *name, struct hash128 *out, struct err_note *note)
{
	const char *text;
	int rc = want_text(id, name, &text, note);

	if (rc != 0 || (rc = hash_from_hex(out, text)) == 0)
		return rc;
	err_note_set(note, ERR_CORRUPT, "identity %s", name);
	err_note_expected(note, "32 hex digits");
	err_note_found(note, "%.60s", text);
	return ERR_CORRUPT;
}

static int
want_number(const struct cache_id *id, const char *name, uint64_t max, uint64_t *out, struct err_note *note)
{
	const char *text;
	char *end;
	int rc = want_text(id, name, &text, note);

	if (rc != 0)
		return rc;
	errno = 0;
	*out = strtoull(text, &end, 10);
	if (text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *out <= max)
		return 0;
	err_note_set(note, ERR_CORRUPT, "identity %s", name);
	err_note_expected(note, "a number up to %" PRIu64, max);
	err_note_found(note, "%.60s", text);
	return ERR_CORRUPT;
}

static int
differs(const char *name, struct hash128 expected, struct hash128 found, struct err_note *note)
{
	char hex[HASH_HEX_BYTES];

	err_note_set(note, ERR_MISMATCH, "identity %s", name);
	err_note_expected(note, "%s, the hash of its parts", hash_hex(expected, hex));
	err_note_found(note, "%s", hash_hex(found, hex));
	return ERR_MISMATCH;
}

/* Labels of an older version (1 had no unigram table) become a set of today's, under a table of the corpus that they are of. */
static int
upgrade_set(struct cache_id *id, struct err_note *note)
{
	struct labels_spec *spec = &id->labels.spec;
	char text[CACHE_IDENTITY_BYTES], hex[HASH_HEX_BYTES];
	uint64_t *counts = NULL;
	int rc = 0;

	spec->version = LABELS_VERSION;
	if (spec->kind == LABELS_KIND_SAMPLED) {
		if ((counts = mem_alloc(spec->vocab, sizeof(*counts))) == NULL)
			return ENOMEM;
		labels_unigram_destroy(&id->unigram);
		if ((rc = corpus_counts(id->upgrade, spec->vocab, counts, note)) == 0)
			rc = labels_unigram_from_counts(&id->unigram, counts, spec->vocab, spec->tau, note);
		free(counts);
		if (rc != 0)
			return rc;
		ctl_put_text(id->texts, "label_set.unigram", hash_hex(labels_unigram_hash(id->unigram), hex));
		spec->unigram = id->unigram;
	}
	snprintf(text, sizeof(text), "%u", LABELS_VERSION);
	ctl_put_text(id->texts, "label_set.version", text);
	id->label_set = labels_set_hash(&id->labels);
	ctl_put_text(id->texts, "label_set", hash_hex(id->label_set, hex));
	return 0;
}

static int
read_sets(struct cache_id *id, struct err_note *note)
{
	struct labels_spec *spec = &id->labels.spec;
	uint64_t context, vocab, n, seed, version, scores_version;
	const char *text;
	char *end;
	int rc;

	if ((rc = want_hash(id, "corpus", &id->labels.corpus, note)) != 0 ||
	    (rc = want_number(id, "context", LABELS_CONTEXT_MAX, &context, note)) != 0 ||
	    (rc = want_number(id, "windows", UINT64_C(1) << 48, &id->windows, note)) != 0 ||
	    (rc = want_number(id, "vocabulary", INT32_MAX, &vocab, note)) != 0 ||
	    (rc = want_hash(id, "label_set", &id->label_set, note)) != 0 ||
	    (rc = want_hash(id, "label_set.teacher", &id->labels.teacher, note)) != 0 ||
	    (rc = want_number(id, "label_set.n", LABELS_PARAM_MAX, &n, note)) != 0 ||
	    (rc = want_number(id, "label_set.seed", UINT32_MAX, &seed, note)) != 0 ||
	    (rc = want_number(id, "label_set.version", UINT32_MAX, &version, note)) != 0 ||
	    (rc = want_hash(id, "score_set", &id->score_set, note)) != 0 ||
	    (rc = want_hash(id, "score_set.scorer", &id->scores.scorer, note)) != 0 ||
	    (rc = want_number(id, "score_set.version", UINT32_MAX, &scores_version, note)) != 0)
		return rc;
	if ((rc = want_text(id, "label_set.kind", &text, note)) != 0)
		return rc;
	if ((rc = labels_kind_from_name(text, &spec->kind)) != 0) {
		err_note_set(note, ERR_CORRUPT, "identity label_set.kind");
		err_note_expected(note, "sampled, topk or dense");
		err_note_found(note, "%.60s", text);
		return ERR_CORRUPT;
	}
	if ((rc = want_text(id, "label_set.tau", &text, note)) != 0)
		return rc;
	spec->tau = (double)(float)strtod(text, &end);
	if (end == text || *end != '\0' || !(spec->tau > 0)) {
		err_note_set(note, ERR_CORRUPT, "identity label_set.tau");
		err_note_expected(note, "a number above 0");
		err_note_found(note, "%.60s", text);
		return ERR_CORRUPT;
	}
	spec->version = (uint32_t)version;
	spec->context = id->scores.context = (uint32_t)context;
	spec->vocab = (uint32_t)vocab;
	spec->n_samples = spec->kind == LABELS_KIND_SAMPLED ? (uint32_t)n : 0;
	spec->k = spec->kind == LABELS_KIND_TOPK ? (uint32_t)n : 0;
	spec->seed = (uint32_t)seed;
	id->scores.corpus = id->labels.corpus;
	id->scores.version = (uint32_t)scores_version;
	if ((rc = want_text(id, "label_set.compute_class", &text, note)) != 0)
		return rc;
	snprintf(id->labels.compute_class, sizeof(id->labels.compute_class), "%s", text);
	if ((rc = want_text(id, "score_set.compute_class", &text, note)) != 0)
		return rc;
	snprintf(id->scores.compute_class, sizeof(id->scores.compute_class), "%s", text);
	if (spec->version >= 1 && spec->version < LABELS_VERSION && id->upgrade != NULL) {
		if ((rc = upgrade_set(id, note)) != 0)
			return rc;
	} else if (spec->version != LABELS_VERSION) {
		err_note_set(note, ERR_VERSION, "label records");
		err_note_expected(note, "version %u", LABELS_VERSION);
		err_note_found(note, "%u; with the saltctl that made them type: saltctl cache export --cache FOLDER DIR, then with this one: "
		    "saltctl cache import --cache NEW --corpus PREFIX DIR", spec->version);
		return ERR_VERSION;
	}
	if ((rc = labels_spec_check(spec, note)) != 0)
		return rc;
	if (spec->kind == LABELS_KIND_SAMPLED && (id->unigram == NULL || labels_unigram_vocab(id->unigram) != spec->vocab)) {
		err_note_set(note, ERR_CORRUPT, "unigram table of the label set");
		err_note_expected(note, "%" PRIu32 " bytes", spec->vocab);
		err_note_found(note, "%" PRIu32, id->unigram != NULL ? labels_unigram_vocab(id->unigram) : 0);
		return ERR_CORRUPT;
	}
	spec->unigram = id->unigram;
	spec->set = id->label_set;
	if (!hash_equal(labels_set_hash(&id->labels), id->label_set))
		return differs("label_set", labels_set_hash(&id->labels), id->label_set, note);
	if (!hash_equal(labels_scores_set_hash(&id->scores), id->score_set))
		return differs("score_set", labels_scores_set_hash(&id->scores), id->score_set, note);
	return 0;
}

int
cache_id_read(struct cache *c, struct cache_id *id, struct err_note *note)
{
	uint8_t *bytes = NULL;
	size_t len;
	int rc;

	*id = (struct cache_id){.texts = ctl_object(), .n_shards = 1};
	if ((rc = cache_identity_each(c, take_text, id)) != 0)
		return err_note_set(note, rc, "identity");
	if ((rc = cache_unigram_get(c, &bytes, &len)) == 0)
		rc = labels_unigram_new(&id->unigram, bytes, len, note);
	else if (rc != ERR_NOT_FOUND)
		err_note_set(note, rc, "unigram table of the label set");
	free(bytes);
	return rc != 0 && rc != ERR_NOT_FOUND ? rc : cache_id_parse(id, note);
}

int
cache_id_parse(struct cache_id *id, struct err_note *note)
{
	const char *text;
	int rc;

	if (json_count(id->texts) == 0)
		return 0;
	if ((rc = read_sets(id, note)) != 0)
		return rc;
	if (json_get(id->texts, "heldout") != NULL) {
		if ((rc = want_hash(id, "heldout", &id->heldout, note)) != 0)
			return rc;
		id->has_heldout = true;
	}
	if (json_get(id->texts, "tokenizer") != NULL) {
		if ((rc = want_hash(id, "tokenizer", &id->tokenizer, note)) != 0)
			return rc;
		id->has_tokenizer = true;
	}
	if ((rc = want_text(id, "shard", &text, note)) != 0)
		return rc;
	if (sscanf(text, "%" SCNu32 " of %" SCNu32, &id->shard, &id->n_shards) != 2 || id->shard >= id->n_shards) {
		err_note_set(note, ERR_CORRUPT, "identity shard");
		err_note_expected(note, "\"I of S\"");
		err_note_found(note, "%.60s", text);
		return ERR_CORRUPT;
	}
	id->bound = true;
	return 0;
}

void
cache_id_free(struct cache_id *id)
{
	labels_unigram_destroy(&id->unigram);
	json_close(&id->texts);
}

int
cache_decode(const struct cache_id *id, const struct hash128 *want, struct cache_bytes bytes, struct labels_batch *batch,
    struct hash128 *tokens, struct err_note *note)
{
	struct labels_header h;
	int rc = labels_peek(bytes.bytes, bytes.len, &h, note);

	if (rc != 0)
		return rc;
	if (tokens != NULL)
		*tokens = h.tokens;
	labels_batch_clear(batch);
	return labels_decode(&id->labels.spec, want != NULL ? *want : h.tokens, bytes.bytes, bytes.len, batch, note);
}

struct hash128
cache_plan_hash(const struct cache_id *id, const struct wire_plan *plan)
{
	struct wire_corpus corpus = {.present = true, .fingerprint = {true, id->labels.corpus}, .context = id->labels.spec.context,
	    .n_windows = id->windows, .tokenizer = {id->has_tokenizer, id->tokenizer}, .vocab_size = id->labels.spec.vocab};

	return wire_plan_hash(&corpus, plan, plan->mode == WIRE_MODE_SALT_DS ? &id->score_set : NULL);
}

/* ---- corpora ---- */

static int
open_one(struct ctl_args *args, const char *option, const char *configured, uint32_t number, struct corpus **c, struct hash128 *hash)
{
	const char *prefix = ctl_has(args, option) ? ctl_get(args, option) : configured;
	struct err_note note = {.name = ""};
	int rc;

	if (prefix == NULL || prefix[0] == '\0')
		return 0;
	if ((rc = ctl_open_corpus(args, prefix, number, c)) != 0)
		return rc;
	return (rc = corpus_fingerprint(*c, hash, &note)) != 0 ? ctl_fail(args, rc, &note) : 0;
}

int
cache_corpora_open(struct ctl_args *args, const struct config *cfg, struct cache_corpora *corpora)
{
	int exit_code;

	*corpora = (struct cache_corpora){.train = NULL};
	if ((exit_code = open_one(args, "corpus", cfg != NULL ? cfg->corpus.train : NULL, CORPUS_TRAIN, &corpora->train,
	    &corpora->train_hash)) != 0)
		return exit_code;
	return open_one(args, "heldout", cfg != NULL ? cfg->corpus.heldout : NULL, CORPUS_HELDOUT, &corpora->heldout, &corpora->heldout_hash);
}

void
cache_corpora_close(struct cache_corpora *corpora)
{
	corpus_destroy(&corpora->train);
	corpus_destroy(&corpora->heldout);
}

static int
other_corpus(const char *what, struct hash128 expected, struct hash128 found, struct err_note *note)
{
	char hex[HASH_HEX_BYTES];

	err_note_set(note, ERR_MISMATCH, "%s", what);
	err_note_expected(note, "%s, which the cache was made with", hash_hex(expected, hex));
	err_note_found(note, "%s", hash_hex(found, hex));
	return ERR_MISMATCH;
}

int
cache_corpora_check(const struct cache_corpora *corpora, const struct cache_id *id, struct err_note *note)
{
	if (corpora->train != NULL && !hash_equal(corpora->train_hash, id->labels.corpus))
		return other_corpus("corpus", id->labels.corpus, corpora->train_hash, note);
	if (corpora->heldout != NULL && id->has_heldout && !hash_equal(corpora->heldout_hash, id->heldout))
		return other_corpus("heldout", id->heldout, corpora->heldout_hash, note);
	return 0;
}

int
cache_tokens_of(const struct cache_corpora *corpora, uint64_t seq, uint32_t L, int32_t *scratch, struct hash128 *out, struct err_note *note)
{
	const struct corpus *c = CORPUS_SEQ_NO(seq) == CORPUS_HELDOUT ? corpora->heldout : corpora->train;
	int rc;

	if (c == NULL)
		return ERR_NOT_FOUND;
	if ((rc = corpus_window(c, seq, L, scratch, note)) != 0)
		return rc;
	*out = hash_tokens(scratch, (size_t)L + 1);
	return 0;
}

/* ---- small helpers ---- */

static const char *bus_verb = "";

static void
bus_error(int signal_no)
{
	static const char text[] = ": the cache's file was cut short, or its own tables are damaged: a page lies outside of it. "
	    "Import an export into a new cache, or remove the folder: the teachers fill it again\n";
	ssize_t ignored;

	(void)signal_no;
	ignored = write(STDERR_FILENO, "saltctl ", 8);
	ignored = write(STDERR_FILENO, bus_verb, strlen(bus_verb));
	ignored = write(STDERR_FILENO, text, sizeof(text) - 1);
	(void)ignored;
	_exit(EX_DATAERR);
}

void
cache_watch_bus(const struct ctl_args *args)
{
	struct sigaction sa = {.sa_handler = bus_error};

	bus_verb = args->verb->name;
	sigemptyset(&sa.sa_mask);
	sigaction(SIGBUS, &sa, NULL);
}

uint64_t
cache_spread(uint64_t i, uint64_t n, uint64_t windows, uint64_t next)
{
	uint64_t seq = (uint64_t)((double)i / (double)n * (double)windows);

	return seq < next ? next : seq;
}

int
cache_batch_end(struct cache_batch *b)
{
	if (!b->open)
		return 0;
	b->open = false;
	b->n = 0;
	return cache_write_commit(b->c);
}

int
cache_batch_step(struct cache_batch *b)
{
	int rc;

	if (b->n >= BATCH_RECORDS && (rc = cache_batch_end(b)) != 0)
		return rc;
	if (!b->open) {
		if ((rc = cache_write_begin(b->c)) != 0)
			return rc;
		b->open = true;
	}
	b->n++;
	return 0;
}

void
cache_batch_abort(struct cache_batch *b)
{
	if (b->open)
		cache_write_abort(b->c);
	b->open = false;
}

int
cache_bits_new(struct cache_bits *b, uint64_t n)
{
	b->n = n;
	b->bits = n / 8 + 1 <= SIZE_MAX ? mem_alloc((size_t)(n / 8 + 1), 1) : NULL;
	return b->bits != NULL ? 0 : ENOMEM;
}

void
cache_bits_set(struct cache_bits *b, uint64_t i)
{
	if (i < b->n)
		b->bits[i / 8] |= (uint8_t)(1u << i % 8);
}

bool
cache_bits_get(const struct cache_bits *b, uint64_t i)
{
	return i < b->n && (b->bits[i / 8] >> i % 8 & 1) != 0;
}

void
cache_bits_free(struct cache_bits *b)
{
	free(b->bits);
	b->bits = NULL;
}
