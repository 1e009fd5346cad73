/* SPDX-License-Identifier: Apache-2.0 */
/* The caches that a verb works on, their identities, and helpers of all `cache` verbs. */
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
#include "base/err/crash.h"
#include "base/file/file.h"
#include "base/json/json.h"

#define BATCH_RECORDS 1024
#define LATER_SHARDS 256

/* ---- identity ---- */

static int
take_text(void *arg, const char *name, const char *value)
{
	struct cache_id *id = arg;

	ctl_put(id->texts, name, value);
	return 0;
}

static int
want_text(const struct cache_id *id, const char *name, const char **text, struct err_note *note)
{
	if (json_text(json_get(id->texts, name), text))
		return 0;
	return err_expect(note, ERR_CORRUPT, "identity %s", "a text in table meta, as selectord writes",
	    "none", name);
}

static int
want_hash(const struct cache_id *id, const char *name, struct hash128 *out, struct err_note *note)
{
	const char *text;
	int rc = want_text(id, name, &text, note);

	if (rc != 0 || (rc = hash_from_hex(out, text)) == 0)
		return rc;
	return err_expect(note, ERR_CORRUPT, "identity %s", "32 hex digits", "%.60s", name, text);
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
	return err_expect(note, ERR_CORRUPT, "identity %s", "a number up to %" PRIu64, "%.60s", name, max,
	    text);
}

static int
differs(const char *name, struct hash128 expected, struct hash128 found, struct err_note *note)
{
	return err_expect(note, ERR_MISMATCH, "identity %s", "%s, the hash of its parts", "%s", name,
	    cache_hex(expected), cache_hex(found));
}

/*
 * Turns the label set of an older version into one of the present version; for sampled labels with the
 * unigram table of id->upgrade (version 1 had none).
 */
static int
upgrade_set(struct cache_id *id, struct err_note *note)
{
	struct labels_spec *spec = &id->labels.spec;
	char text[16];
	uint64_t *counts;
	int rc;

	spec->version = LABELS_VERSION;
	if (spec->kind == LABELS_KIND_SAMPLED) {
		counts = ctl_alloc(spec->vocab, sizeof(*counts));
		labels_unigram_destroy(&id->unigram);
		if ((rc = corpus_counts(id->upgrade, spec->vocab, counts, note)) == 0)
			rc = labels_unigram_from_counts(&id->unigram, counts, spec->vocab, spec->tau, note);
		free(counts);
		if (rc != 0)
			return rc;
		ctl_put(id->texts, "label_set.unigram", cache_hex(labels_unigram_hash(id->unigram)));
		spec->unigram = id->unigram;
	}
	snprintf(text, sizeof(text), "%u", LABELS_VERSION);
	id->label_set = labels_set_hash(&id->labels);
	ctl_put_all(id->texts, CTL("label_set.version", text), CTL("label_set", cache_hex(id->label_set)));
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
	if ((rc = labels_kind_from_name(text, &spec->kind)) != 0)
		return err_expect(note, ERR_CORRUPT, "identity label_set.kind", "sampled, topk or dense",
		    "%.60s", text);
	if ((rc = want_text(id, "label_set.tau", &text, note)) != 0)
		return rc;
	spec->tau = (double)(float)strtod(text, &end);
	if (end == text || *end != '\0' || !(spec->tau > 0))
		return err_expect(note, ERR_CORRUPT, "identity label_set.tau", "a number above 0", "%.60s",
		    text);
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
		return err_expect(note, ERR_VERSION, "label records", "version %u",
		    "%u; with the saltctl that made them type: saltctl cache export --cache FOLDER DIR, then with this one: "
		    "saltctl cache import --cache NEW --corpus PREFIX DIR",
		    LABELS_VERSION, spec->version);
	}
	if ((rc = labels_spec_check(spec, note)) != 0)
		return rc;
	if (spec->kind == LABELS_KIND_SAMPLED &&
	    (id->unigram == NULL || labels_unigram_vocab(id->unigram) != spec->vocab))
		return err_expect(note, ERR_CORRUPT, "unigram table of the label set", "%" PRIu32 " bytes",
		    "%" PRIu32, spec->vocab, id->unigram != NULL ? labels_unigram_vocab(id->unigram) : 0);
	spec->unigram = id->unigram;
	spec->set = id->label_set;
	if (!hash_equal(labels_set_hash(&id->labels), id->label_set))
		return differs("label_set", labels_set_hash(&id->labels), id->label_set, note);
	if (!hash_equal(labels_scores_set_hash(&id->scores), id->score_set))
		return differs("score_set", labels_scores_set_hash(&id->scores), id->score_set, note);
	return 0;
}

/* Sets the shuffle order of the rows: of one corpus, or of the parts that the cache of a blend lists. */
static int
read_order(struct cache_id *id, struct err_note *note)
{
	uint64_t windows[BLEND_PARTS_MAX] = {id->windows}, sum = 0;
	uint32_t shares[BLEND_PARTS_MAX] = {1};
	char name[32];
	size_t n = 0;

	for (; n < BLEND_PARTS_MAX; n++) {
		const char *text;

		snprintf(name, sizeof(name), CACHE_IDENTITY_PART, n);
		if (!json_text(json_get(id->texts, name), &text))
			break;
		if (sscanf(text, "%" SCNu64 " windows, share %" SCNu32, &windows[n], &shares[n]) != 2)
			return err_expect(note, ERR_CORRUPT, "identity %s", "\"N windows, share S\"", "%.60s", name, text);
		sum += windows[n];
	}
	if (n > 0 && sum != id->windows)
		return err_expect(note, ERR_CORRUPT, "identity windows", "%" PRIu64 ", the sum of the parts", "%" PRIu64, sum, id->windows);
	return blend_new(&id->order, windows, shares, n > 0 ? n : 1, note);
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
	if ((rc = read_sets(id, note)) != 0 || (rc = read_order(id, note)) != 0)
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
	if (sscanf(text, "%" SCNu32 " of %" SCNu32, &id->shard, &id->n_shards) != 2 || id->shard >= id->n_shards)
		return err_expect(note, ERR_CORRUPT, "identity shard", "\"I of S\"", "%.60s", text);
	id->bound = true;
	return 0;
}

void
cache_id_free(struct cache_id *id)
{
	labels_unigram_destroy(&id->unigram);
	blend_destroy(&id->order);
	json_close(&id->texts);
}

int
cache_decode(const struct cache_id *id, struct cache_bytes bytes, struct labels_batch *batch, struct hash128 *tokens,
    struct err_note *note)
{
	struct labels_header h;
	int rc = labels_peek(bytes.bytes, bytes.len, &h, note);

	if (rc != 0)
		return rc;
	if (tokens != NULL)
		*tokens = h.tokens;
	labels_batch_clear(batch);
	return labels_decode(&id->labels.spec, h.tokens, bytes.bytes, bytes.len, batch, note);
}

struct hash128
cache_plan_hash(const struct cache_id *id, const struct wire_plan *plan)
{
	struct wire_corpus corpus = {.present = true, .fingerprint = {true, id->labels.corpus},
	    .context = id->labels.spec.context, .n_windows = id->windows, .tokenizer = {id->has_tokenizer,
	    id->tokenizer}, .vocab_size = id->labels.spec.vocab};

	return wire_plan_hash(&corpus, plan, plan->mode == WIRE_MODE_SALT_DS ? &id->score_set : NULL);
}

/* ---- corpora ---- */

static int
other_corpus(const char *what, struct hash128 expected, struct hash128 found, struct err_note *note)
{
	return err_expect(note, ERR_MISMATCH, "%s", "%s, which the cache was made with", "%s", what,
	    cache_hex(expected), cache_hex(found));
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
cache_tokens_of(const struct cache_corpora *corpora, uint64_t seq, uint32_t L, int32_t *tokens, struct hash128 *out,
    struct err_note *note)
{
	const struct corpus *c = CORPUS_SEQ_NO(seq) == CORPUS_HELDOUT ? corpora->heldout : corpora->train;
	int rc;

	if (c == NULL)
		return ERR_NOT_FOUND;
	if ((rc = corpus_window(c, seq, L, tokens, note)) != 0)
		return rc;
	*out = hash_tokens(tokens, (size_t)L + 1);
	return 0;
}

/* ---- the caches of a verb ---- */

static const char *verb = "";

static void
bus_error(int signal_no)
{
	static const char text[] =
	    ": the cache's file is truncated, or its own tables are damaged: a page lies outside of it. "
	    "Import an export into a new cache, or remove the folder: the teachers fill it again\n";

	(void)signal_no;
	file_write_all(STDERR_FILENO, "saltctl ", 8);
	file_write_all(STDERR_FILENO, verb, strlen(verb));
	file_write_all(STDERR_FILENO, text, sizeof(text) - 1);
	_exit(EX_DATAERR);
}

/* Makes a read beyond the end of a truncated file end saltctl with a message and exit code 65. */
static void
watch_bus(const struct ctl_args *args)
{
	struct sigaction sa = {.sa_handler = bus_error};

	verb = args->verb->name;
	sigemptyset(&sa.sa_mask);
	sigaction(SIGBUS, &sa, NULL);
}

static int
open_corpus(struct ctl_args *args, const struct config *cfg, const char *option, const char *configured, uint32_t number,
    struct corpus **c, struct hash128 *hash)
{
	const char *prefix = ctl_has(args, option) ? ctl_get(args, option) : configured;

	return prefix == NULL || prefix[0] == '\0' ? 0 : ctl_open_corpus(args, cfg != NULL ? &cfg->corpus : NULL,
	    prefix, number, c, hash);
}

static void
find_dirs(struct cache_job *job)
{
	char path[CACHE_DIR_BYTES];
	struct stat st;

	do {
		snprintf(path, sizeof(path), "%s/shard_%zu", job->root, job->n);
		if (stat(path, &st) == 0)
			job->shards = true;
		else if (job->n > 0)
			break;
		else
			snprintf(path, sizeof(path), "%s", job->root);
		memcpy(ctl_add(job->dirs, job->n, job->cap), path, sizeof(path));
	} while (job->shards);
}

/* The number of a shard in root although shard_0 is not there, as on a host that has only some of them; 0: none. */
static size_t
later_shard(const struct cache_job *job)
{
	char path[CACHE_DIR_BYTES];
	struct stat st;

	for (size_t i = 1; i < LATER_SHARDS && !job->shards; i++) {
		snprintf(path, sizeof(path), "%s/shard_%zu", job->root, i);
		if (stat(path, &st) == 0)
			return i;
	}
	return 0;
}

int
cache_job_begin(struct cache_job *job, struct ctl_args *args, bool corpora)
{
	const struct config *cfg;
	size_t later;
	int exit_code;

	*job = (struct cache_job){.args = args, .all = ctl_has(args, "json") ? ctl_array() : NULL};
	if (ctl_has(args, "config")) {
		if ((exit_code = ctl_open_config(args, ctl_has(args, "cache") ? 0 : CONFIG_NEED_CACHE, &job->cfg)) != 0)
			return exit_code;
		snprintf(job->root, sizeof(job->root), "%s", job->cfg->cache.dir);
	}
	if (ctl_has(args, "cache"))
		snprintf(job->root, sizeof(job->root), "%s", ctl_get(args, "cache"));
	else if (job->cfg == NULL)
		return ctl_usage(args, "which cache? give --cache FOLDER or -c fleet.yaml");
	find_dirs(job);
	if ((later = later_shard(job)) > 0)
		return ctl_usage(args, "%s has no shard_0; for another shard alone give --cache %s/shard_%zu",
		    job->root, job->root, later);
	watch_bus(args);
	cfg = job->cfg;
	if (corpora && ((exit_code = open_corpus(args, cfg, "corpus", cfg != NULL ? cfg->corpus.train : NULL, CORPUS_TRAIN,
	    &job->corpora.train, &job->corpora.train_hash)) != 0 ||
	    (exit_code = open_corpus(args, cfg, "heldout", cfg != NULL ? cfg->corpus.heldout : NULL, CORPUS_HELDOUT,
	    &job->corpora.heldout, &job->corpora.heldout_hash)) != 0))
		return exit_code;
	return 0;
}

void
cache_job_missing(const struct cache_job *job, const struct cache_id *id)
{
	if (job->i == 0 && job->shards && id->bound && id->n_shards > job->n)
		fprintf(stderr,
		    "saltctl %s: %s: warning: the cache has %" PRIu32
		    " shards, of which shard_0 to shard_%zu are used; shard_%zu is not there\n",
		    job->args->verb->name, job->root, id->n_shards, job->n - 1, job->n);
}

int
cache_job_open(struct cache_job *job, enum cache_mode mode, uint64_t map_bytes, bool bound)
{
	int rc;

	if ((rc = cache_open(&job->c, job->dir, mode, map_bytes, &job->note)) != 0 ||
	    (rc = cache_id_read(job->c, &job->id, &job->note)) != 0)
		return rc;
	if (bound && !job->id.bound)
		return err_note_set(&job->note, ERR_NOT_FOUND, "%s: no selectord has used this cache yet", job->dir);
	cache_job_missing(job, &job->id);
	return 0;
}

int
cache_job_each(struct cache_job *job, int (*one)(struct cache_job *job, void *arg), void *arg)
{
	int rc;

	for (job->i = 0; job->exit_code == 0 && job->i < job->n; job->i++) {
		job->dir = job->dirs[job->i];
		job->note = (struct err_note){.name = ""};
		if ((rc = one(job, arg)) != 0 && job->exit_code == 0) {
			if (job->note.name[0] == '\0')
				err_note_set(&job->note, rc, "%s", job->dir);
			job->exit_code = ctl_fail(job->args, rc, &job->note);
		}
		cache_id_free(&job->id);
		cache_destroy(&job->c);
	}
	return job->exit_code;
}

int
cache_job_end(struct cache_job *job, int exit_code)
{
	free(job->dirs);
	corpus_destroy(&job->corpora.train);
	corpus_destroy(&job->corpora.heldout);
	config_destroy(&job->cfg);
	if (exit_code == 0 && job->all != NULL)
		return ctl_print_json(job->all);
	json_close(&job->all);
	return exit_code;
}

/* ---- writing, bits ---- */

int
cache_batch_end(struct cache_batch *b, int rc)
{
	crash_point("batch.filled");
	if (b->open && rc == 0)
		rc = cache_write_commit(b->c);
	else if (b->open)
		cache_write_abort(b->c);
	crash_point("batch.committed");
	b->open = false;
	b->n = 0;
	return rc;
}

int
cache_batch_step(struct cache_batch *b)
{
	int rc;

	if (b->n >= BATCH_RECORDS && (rc = cache_batch_end(b, 0)) != 0)
		return rc;
	if (!b->open && (rc = cache_write_begin(b->c)) != 0)
		return rc;
	b->open = true;
	b->n++;
	return 0;
}

void
cache_bits_new(struct cache_bits *b, uint64_t n)
{
	b->n = n;
	b->bits = ctl_alloc(n / 8 + 1, 1);
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
