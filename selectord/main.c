/* SPDX-License-Identifier: Apache-2.0 */
/* selectord - identities of corpora, models, labels and cache; construction of the daemon's parts. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock/stop.h"
#include "base/file/file.h"
#include "fabric/bus/bus.h"
#include "data/cache/cache.h"
#include "data/corpus/blend.h"
#include "data/corpus/corpus.h"
#include "engine/kernels/kernels.h"
#include "data/labels/labels.h"
#include "data/modelfiles/modelfiles.h"
#include "data/select/file.h"
#include "base/log/log.h"
#include "base/mem/mem.h"
#include "engine/model/model.h"
#include "fabric/daemon/daemon.h"
#include "selectord/commit.h"
#include "selectord/core.h"
#include "selectord/loop.h"
#include "selectord/store.h"
#include "data/tokenizer/tokenizer.h"
#include "engine/weights/weights.h"

#define COMMIT_RECORDS 1024		/* pending records that start a commit before selector.commit_ms is over */

struct selectord {
	struct daemon daemon;
	const struct config *cfg;
	uint32_t shard, n_shards;
	struct corpus *train, *heldout;
	struct blend *order;
	struct hash128 train_hash, heldout_hash, teacher_hash, scorer_hash;
	struct labels_set label_set;
	struct labels_unigram *unigram;
	struct labels_scores_set score_set;
	struct select_file *file;		/* selector.mode file */
	struct core_config core_cfg;
	struct cache *cache;
	struct bus_server *server;
	struct bus_waker *waker;
	struct store store;
	struct core *core;
	struct commit *commit;
	struct loop *loop;
	struct daemon_hooks hooks;
};

/* Opens one corpus, computes its identity, and checks that it has at least one sequence. */
static int
open_corpus(struct corpus **c, const struct config *cfg, const char *prefix, uint32_t number, int32_t end, struct hash128 *hash,
    struct err_note *note)
{
	uint32_t L = cfg->corpus.context;
	int rc;

	if ((rc = corpus_open_as(c, prefix, cfg->corpus.dtype, note)) != 0 ||
	    (cfg->corpus.isolate_documents && (rc = corpus_isolate(*c, end, note)) != 0) || (rc = corpus_fingerprint(*c, hash, note)) != 0)
		return rc;
	corpus_set_number(*c, number);
	if (corpus_n_windows(*c, L) > 0)
		return 0;
	return err_expect(note, ERR_RANGE, "%s", "at least %" PRIu32 " tokens (corpus.context + 1)",
	    "%" PRIu64, prefix, L + 1, corpus_n_tokens(*c));
}

static void
fill_corpus(struct wire_corpus *w, const struct corpus *c, struct hash128 hash, uint32_t L, uint32_t vocab,
    struct wire_id tokenizer)
{
	w->present = true;
	w->fingerprint = (struct wire_id){true, hash};
	w->context = L;
	w->n_windows = corpus_n_windows(c, L);
	w->tokenizer = tokenizer;
	w->vocab_size = vocab;
	w->document_end = (uint32_t)(corpus_document_end(c) + 1);
}

/*
 * Corpus, teacher and scorer must have the same tokenizer, otherwise ids would mean different text. If the
 * corpus does not state its tokenizer, the teacher's is taken for it, and the trainer's is compared with
 * that. With a declared compute class the model's tokenizer may have more ids: its teachers compare each id
 * of the corpus, and state the corpus's tokenizer in HELLO.
 */
static int
check_tokenizer(const char *key, const char *dir, bool declared, struct wire_id *tokenizer, struct err_note *note)
{
	char path[4200], hex[2][HASH_HEX_BYTES], why[600], quoted[700];
	struct hash128 fingerprint;
	int rc;

	snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
	if (access(path, F_OK) != 0)
		return 0;
	if ((rc = tokenizer_identify(path, &fingerprint, why, sizeof(why), note)) != 0)
		return err_note_within(note, rc, key);
	if (why[0] != '\0' && !tokenizer->known)	/* logged for the first model only */
		log_warn("tokenizer.unread", "file=%s why=%s hint=\"only the hash of the file is compared\"",
		    path, log_quote(why, quoted, sizeof(quoted)));
	if (!tokenizer->known)
		*tokenizer = (struct wire_id){true, fingerprint};
	if (hash_equal(tokenizer->hash, fingerprint))
		return 0;
	if (declared) {
		log_warn("tokenizer.other", "file=%s expected=%s found=%s hint=\"only teachers that compare each id are accepted "
		    "(--corpus-tokenizer)\"", path, hash_hex(tokenizer->hash, hex[0]), hash_hex(fingerprint, hex[1]));
		return 0;
	}
	return err_expect(note, ERR_MISMATCH, "%s %s", "tokenizer %s (the corpus's)", "%s%s", key, path,
	    hash_hex(tokenizer->hash, hex[0]), hash_hex(fingerprint, hex[1]),
	    why[0] == '\0' ?
		"" :
		", the hash of a file that cannot be read; replace the file with the corpus's "
		"tokenizer.json, or remove it");
}

/* Checks that the model fits the corpus. A limit that is not known (0) is checked at a teacher's HELLO. */
static int
check_sizes(const char *key, const char *dir, int64_t vocab, int64_t context, uint32_t corpus_vocab, uint32_t L, struct err_note *note)
{
	if (vocab > 0 && vocab < (int64_t)corpus_vocab)
		return err_expect(note, ERR_MISMATCH, "%s %s",
		    "a vocabulary of at least %" PRIu32 " (the corpus's)", "%" PRId64, key, dir, corpus_vocab,
		    vocab);
	if (context > 0 && context < (int64_t)L)
		return err_expect(note, ERR_MISMATCH, "%s %s",
		    "a position limit of at least %" PRIu32 " (corpus.context)", "%" PRId64, key, dir, L,
		    context);
	return 0;
}

/*
 * With a declared compute class a model may be of any architecture: its files are its identity. If teacherd
 * could not use its configuration, its sizes are not known (0).
 */
static int
check_foreign(const char *key, const char *dir, struct model_config *m, struct hash128 *hash, struct err_note *note)
{
	struct err_note unread = {.name = ""};
	char text[1200], quoted[1300];
	int rc;

	if ((rc = modelfiles_hash(dir, hash, note)) != 0)
		return rc;
	if ((rc = weights_config_load(dir, m, &unread)) == 0)
		return 0;
	*m = (struct model_config){0};
	log_info("model.foreign", "option=%s dir=%s why=%s", key, dir, log_quote(err_note_str(&unread, rc, text, sizeof(text)), quoted, sizeof(quoted)));
	return 0;
}

/* Adds to the note that another teacher may compute this model, which teacherd cannot. */
static void
offer_class(const char *dir, struct err_note *note)
{
	char path[4200], found[sizeof(note->found)];

	snprintf(path, sizeof(path), "%s/config.json", dir);
	if (access(path, F_OK) != 0)		/* a file of weights, not a folder */
		return;
	snprintf(found, sizeof(found), "%.120s", note->found);
	err_note_found(note,
	    "%s; for a teacher in PyTorch or vLLM set teacher.compute_class to a name for its arithmetic, "
	    "such as bf16/torch-cuda",
	    found);
}

static int
check_model(const struct config *cfg, const char *key, const char *dir, uint32_t *vocab, struct wire_id *tokenizer,
    struct hash128 *hash, struct err_note *note)
{
	struct model_config m;
	int rc;

	if (config_compute_class(cfg) != NULL)
		rc = check_foreign(key, dir, &m, hash, note);
	else if ((rc = weights_config_load(dir, &m, note)) == 0)
		rc = weights_fingerprint(dir, hash, note);
	else if (rc == ERR_UNSUPPORTED)
		offer_class(dir, note);
	if (rc != 0)
		return err_note_within(note, rc, key);
	if (*vocab == 0)			/* the corpus does not state its vocabulary: take the
						   model's */
		*vocab = (uint32_t)m.vocab_size;
	if (*vocab == 0)
		return err_expect(note, ERR_CONFIG, "corpus.train %s",
		    "the vocabulary (ids) in %s.json, because the architecture of %s %s is unknown",
		    "none; add \"vocab\"", cfg->corpus.train, cfg->corpus.train, key, dir);
	if ((rc = check_sizes(key, dir, m.vocab_size, m.context, *vocab, cfg->corpus.context, note)) != 0)
		return rc;
	return check_tokenizer(key, dir, config_compute_class(cfg) != NULL, tokenizer, note);
}

/* The longest label record of the set. It must fit into a message, or a stored label could not be served. */
static uint64_t
record_max(const struct labels_spec *s)
{
	uint64_t id = s->vocab <= 65536 ? 2 : s->vocab <= 1u << 24 ? 3 : 4, row = 0;

	if (s->kind == LABELS_KIND_DENSE)
		row = 2 * (uint64_t)s->vocab;
	else if (s->kind == LABELS_KIND_TOPK)
		row = (uint64_t)s->k * (id + 2);
	else
		/* at most N different ids, at most 31 bits for each, and a few for its count */
		row = 8 + 5 * (uint64_t)(s->n_samples < s->vocab ? s->n_samples : s->vocab);
	return LABELS_OVERHEAD_BYTES + (uint64_t)s->context * row;
}

/*
 * Makes the distribution with which sampled labels are coded, from the corpus's token counts. It is part of
 * the label set's identity.
 */
static int
make_unigram(struct selectord *d, struct err_note *note)
{
	struct labels_spec *spec = &d->label_set.spec;
	uint64_t *counts = mem_alloc(spec->vocab, sizeof(*counts));
	int rc = ENOMEM;

	if (counts == NULL || (rc = corpus_counts(d->train, spec->vocab, counts, note)) != 0 ||
	    (rc = labels_unigram_from_counts(&d->unigram, counts, spec->vocab, spec->tau, note)) != 0)
		goto out;
	spec->unigram = d->unigram;
	d->core_cfg.unigram = (struct wire_bytes){labels_unigram_bytes(d->unigram), spec->vocab};
out:
	free(counts);
	return rc;
}

static void
fill_score_set(struct wire_score_set *w, const struct labels_scores_set *s)
{
	w->present = true;
	w->hash = (struct wire_id){true, labels_scores_set_hash(s)};
	w->scorer = (struct wire_id){true, s->scorer};
	w->version = s->version;
	snprintf(w->compute_class, sizeof(w->compute_class), "%s", s->compute_class);
}

/*
 * Reads selector.file: a score set whose scorer is the file. The needs of fleet.yaml's run are checked now,
 * those of other plans at their HELLO.
 */
static int
read_file(struct selectord *d, struct err_note *note)
{
	const struct config *cfg = d->cfg;
	struct labels_scores_set set = d->score_set;
	uint64_t block, kept, steps = config_until_margin(cfg, NULL) ? cfg->trainer.steps : cfg->phase_one.steps;
	char hex[HASH_HEX_BYTES];
	int rc;

	if (cfg->selector.mode != CONFIG_MODE_FILE)
		return 0;
	config_block(cfg, &block, &kept);
	if ((rc = select_file_read(&d->file, cfg->selector.file, cfg->selector.file, corpus_n_windows(d->train, cfg->corpus.context),
	    note)) != 0)
		return err_note_within(note, rc, "selector.file");
	if ((rc = select_file_check(d->file, d->order, cfg->run.seed, steps * cfg->trainer.batch, block, kept, note)) != 0)
		return rc;
	set.scorer = d->file->hash;
	snprintf(set.compute_class, sizeof(set.compute_class), "file");
	fill_score_set(&d->core_cfg.file_set, &set);
	d->core_cfg.file = d->file;
	log_info("selector.file", "path=%s form=%s sequences=%" PRIu64 " hash=%s", cfg->selector.file,
	    d->file->list != NULL ? "list" : "scores", d->file->n, hash_hex(d->file->hash, hex));
	return 0;
}

/*
 * Determines the identities of corpora, models, label set and score set, for comparison with peers and cache.
 */
static int
identify(struct selectord *d, struct err_note *note)
{
	const struct config *cfg = d->cfg;
	struct kernels_options ko = {
	    (enum kernels_backend)cfg->compute.backend, (enum kernels_dtype)cfg->compute.dtype, 1};
	struct core_config *cc = &d->core_cfg;
	struct labels_spec *spec = &d->label_set.spec;
	struct wire_label_set *ls = &cc->label_set;
	uint32_t L = cfg->corpus.context, vocab;
	char hex[2][HASH_HEX_BYTES];
	struct wire_id tokenizer;
	int rc;

	if ((rc = open_corpus(&d->train, cfg, cfg->corpus.train, CORPUS_TRAIN, -1, &d->train_hash, note)) != 0 ||
	    (rc = corpus_blend(&d->order, d->train, L, note)) != 0)
		return rc;
	if (cfg->corpus.heldout[0] != '\0' &&
	    (rc = open_corpus(&d->heldout, cfg, cfg->corpus.heldout, CORPUS_HELDOUT, corpus_document_end(d->train),
		&d->heldout_hash, note)) != 0)
		return rc;
	vocab = corpus_info(d->train)->vocab;
	tokenizer = (struct wire_id){corpus_info(d->train)->has_tokenizer, corpus_info(d->train)->tokenizer};
	if (d->heldout != NULL && tokenizer.known && corpus_info(d->heldout)->has_tokenizer &&
	    !hash_equal(corpus_info(d->heldout)->tokenizer, tokenizer.hash))
		return err_expect(note, ERR_MISMATCH, "corpus.heldout %s", "tokenizer %s, as in corpus.train",
		    "%s", cfg->corpus.heldout, hash_hex(tokenizer.hash, hex[0]),
		    hash_hex(corpus_info(d->heldout)->tokenizer, hex[1]));
	if ((rc = check_model(cfg, "teacher.model", cfg->teacher.model, &vocab, &tokenizer, &d->teacher_hash, note)) != 0)
		return rc;
	d->scorer_hash = d->teacher_hash;
	if ((strcmp(cfg->teacher.scorer, cfg->teacher.model) != 0 && (rc = check_model(cfg,
		 "teacher.scorer", cfg->teacher.scorer, &vocab, &tokenizer, &d->scorer_hash, note)) != 0) ||
	    (rc = corpus_limit_vocab(d->train, vocab, note)) != 0 ||
	    (d->heldout != NULL && (rc = corpus_limit_vocab(d->heldout, vocab, note)) != 0))
		return rc;

	d->label_set.corpus = d->score_set.corpus = d->train_hash;
	d->label_set.teacher = d->teacher_hash;
	d->score_set.scorer = d->scorer_hash;
	if (config_compute_class(cfg) != NULL)
		snprintf(d->label_set.compute_class, sizeof(d->label_set.compute_class), "%s", config_compute_class(cfg));
	else if ((rc = kernels_resolve(&ko, d->label_set.compute_class, sizeof(d->label_set.compute_class), note)) != 0)
		return rc;
	snprintf(d->score_set.compute_class, sizeof(d->score_set.compute_class), "%s", d->label_set.compute_class);
	spec->kind = cfg->labels.kind;
	spec->version = LABELS_VERSION;
	spec->context = d->score_set.context = L;
	spec->vocab = vocab;
	spec->n_samples = cfg->labels.samples;
	spec->k = cfg->labels.k;
	spec->seed = cfg->labels.seed;
	spec->tau = (double)(float)cfg->labels.tau;	/* a float in messages */
	d->score_set.version = LABELS_SCORES_VERSION;
	if ((rc = labels_spec_check(spec, note)) != 0 ||
	    (spec->kind == LABELS_KIND_SAMPLED && (rc = make_unigram(d, note)) != 0))
		return rc;
	spec->set = labels_set_hash(&d->label_set);

	cc->boot_id = bus_boot_id();
	cc->shard = d->shard;
	cc->n_shards = d->n_shards;
	cc->max_message = (uint32_t)cfg->bus.max_message;
	cc->lease_rows = cfg->selector.lease_sequences;
	cc->lease_ms = (uint32_t)(cfg->selector.lease_s * 1000);
	cc->teacher_idle_ms = (int64_t)(cfg->selector.teacher_idle_s * 1000);
	cc->quarantine_teachers = cfg->selector.quarantine_teachers;
	cc->max_quarantined = cfg->selector.max_quarantined;
	cc->n_valid = vocab;
	cc->record_max = record_max(spec);
	cc->keep_unselected = cfg->cache.keep_unselected;
	fill_corpus(&cc->corpus, d->train, d->train_hash, L, vocab, tokenizer);
	cc->order = d->order;
	if (d->heldout != NULL) {
		uint64_t n = corpus_n_windows(d->heldout, L), want = cfg->trainer.eval_sequences;

		fill_corpus(&cc->heldout, d->heldout, d->heldout_hash, L, vocab, tokenizer);
		/* the sequences that trainerd evaluates on, so that both losses are of the same tokens */
		cc->n_heldout = (cfg->teacher.serve & CONFIG_SERVE_SCORE) == 0 ? 0 : want > 0 && want < n ? want : n;
		cc->rows_wait_heldout = config_until_margin(cfg, &(double){0});
	}
	ls->present = true;
	ls->hash = (struct wire_id){true, spec->set};
	ls->teacher = (struct wire_id){true, d->teacher_hash};
	ls->kind = spec->kind;
	ls->n = spec->kind == LABELS_KIND_SAMPLED ? spec->n_samples : spec->kind == LABELS_KIND_TOPK ? spec->k : 0;
	ls->tau = (float)spec->tau;
	ls->seed = spec->seed;
	ls->version = spec->version;
	snprintf(ls->compute_class, sizeof(ls->compute_class), "%s", d->label_set.compute_class);
	fill_score_set(&cc->score_set, &d->score_set);
	return (rc = read_file(d, note)) != 0 ? rc : core_check(cc, note);
}

/* Checks that the cache has the present record format; no other is written to. */
static int
known_version(struct selectord *d, struct err_note *note)
{
	char version[CACHE_IDENTITY_BYTES];

	if (cache_identity_get(d->cache, "label_set.version", version, sizeof(version)) != 0 ||
	    atoi(version) == LABELS_VERSION)
		return 0;
	return err_expect(note, ERR_VERSION, "cache.dir %s: label records", "version %u",
	    "%.20s; export it with the saltctl of the version that made it (saltctl cache export) and import it into a new "
	    "cache with this one (saltctl cache import --corpus PREFIX)",
	    d->cfg->cache.dir, LABELS_VERSION, version);
}

/* Opens the cache. Its identity is kept value by value, so that a mismatch names what differs. */
static int
bind_cache(struct selectord *d, struct err_note *note)
{
	const struct wire_label_set *ls = &d->core_cfg.label_set;
	const struct wire_score_set *ss = &d->core_cfg.score_set;
	const struct wire_corpus *wc = &d->core_cfg.corpus;
	struct cache_identity items[24 + BLEND_PARTS_MAX];
	char text[24 + BLEND_PARTS_MAX][CACHE_IDENTITY_BYTES], names[BLEND_PARTS_MAX][40], dir[4096], hex[HASH_HEX_BYTES];
	uint32_t period;
	size_t n = 0;
	int rc;

#define ITEM(key, ...) \
	(snprintf(text[n], sizeof(text[n]), __VA_ARGS__), items[n] = (struct cache_identity){key, text[n]}, \
	    n++)
	ITEM("corpus", "%s", hash_hex(d->train_hash, hex));
	ITEM("context", "%" PRIu32, wc->context);
	ITEM("windows", "%" PRIu64, wc->n_windows);
	ITEM("vocabulary", "%" PRIu32, wc->vocab_size);
	if (wc->tokenizer.known)
		ITEM("tokenizer", "%s", hash_hex(wc->tokenizer.hash, hex));
	if (d->heldout != NULL)
		ITEM("heldout", "%s", hash_hex(d->heldout_hash, hex));
	ITEM("label_set.teacher", "%s", hash_hex(ls->teacher.hash, hex));
	ITEM("label_set.compute_class", "%s", ls->compute_class);
	ITEM("label_set.kind", "%s", labels_kind_name(d->label_set.spec.kind));
	ITEM("label_set.n", "%" PRIu32, ls->n);
	ITEM("label_set.tau", "%.9g", (double)ls->tau);
	ITEM("label_set.seed", "%" PRIu32, ls->seed);
	ITEM("label_set.version", "%" PRIu32, ls->version);
	if (d->unigram != NULL)
		ITEM("label_set.unigram", "%s", hash_hex(labels_unigram_hash(d->unigram), hex));
	ITEM("label_set", "%s", hash_hex(ls->hash.hash, hex));
	ITEM("score_set.scorer", "%s", hash_hex(ss->scorer.hash, hex));
	ITEM("score_set.compute_class", "%s", ss->compute_class);
	ITEM("score_set.version", "%" PRIu32, ss->version);
	ITEM("score_set", "%s", hash_hex(ss->hash.hash, hex));
	ITEM("shard", "%" PRIu32 " of %" PRIu32, d->shard, d->n_shards);
	for (size_t i = 0; blend_n_parts(d->order) > 1 && i < blend_n_parts(d->order); i++) {
		snprintf(names[i], sizeof(names[i]), CACHE_IDENTITY_PART, i);
		ITEM(names[i], "%" PRIu64 " windows, share %" PRIu32, corpus_n_windows(corpus_part(d->train, i), wc->context),
		    blend_share(d->order, i, &period));
	}
#undef ITEM
	if (d->n_shards == 1) {
		rc = cache_open(&d->cache, d->cfg->cache.dir, CACHE_WRITE, d->cfg->cache.map_size, note);
	} else {
		snprintf(dir, sizeof(dir), "%s/shard_%" PRIu32, d->cfg->cache.dir, d->shard);
		rc = cache_open(&d->cache, dir, CACHE_WRITE, d->cfg->cache.map_size, note);
	}
	if (rc != 0 || (rc = known_version(d, note)) != 0 || (rc = cache_identity_bind(d->cache, items, n, note)) != 0)
		return rc;
	if (d->unigram != NULL &&
	    (rc = cache_unigram_put(d->cache, d->core_cfg.unigram.bytes, d->core_cfg.unigram.len)) != 0)
		err_note_set(note, rc, "cache.dir %s: unigram table", d->cfg->cache.dir);
	return rc;
}

/* Binds the endpoint of --shard, or the first of selector.endpoints that can be bound here. */
static int
bind_server(struct selectord *d, struct err_note *note)
{
	const struct config_texts *ends = &d->cfg->selector.endpoints;
	const char *shard = cli_get(&d->daemon.args, "shard");
	uint32_t last = d->n_shards - 1;
	char *end;
	int rc = ERR_CONFIG;

	if (shard != NULL) {
		unsigned long i = strtoul(shard, &end, 10);

		if (shard[0] < '0' || shard[0] > '9' || *end != '\0' || i > last)
			return err_expect(note, ERR_USAGE, "--shard", "0 .. %" PRIu32 " (selector.endpoints)",
			    "%s", last, shard);
		d->shard = last = (uint32_t)i;
	}
	for (uint32_t i = d->shard; i <= last && rc != 0 && !d->daemon.check; i++) {
		d->shard = i;
		rc = bus_server_new(&d->server, d->daemon.bus, ends->item[i], note);
	}
	return d->daemon.check ? 0 : rc;
}

static void
wake(void *arg)
{
	bus_waker_wake(arg);
}

static int
load_attempts(void *arg, const struct cache_attempts *a)
{
	return core_load_attempts(arg, a);
}

static int
load_quarantine(void *arg, const struct cache_quarantine *q)
{
	return core_load_quarantine(arg, q);
}

/* Creates the parts of the main loop. */
static int
assemble(struct selectord *d, struct err_note *note)
{
	const struct config *cfg = d->cfg;
	struct loop_parts parts;
	struct cache_txn *txn = NULL;
	int rc;

	if ((rc = store_init(&d->store, d->cache, d->train, d->heldout, &d->label_set.spec)) != 0 ||
	    (rc = core_new(&d->core, &d->core_cfg, &d->store.ask, note)) != 0)
		return rc;
	store_end(&d->store);
	if ((rc = cache_txn_begin(d->cache, &txn)) != 0)
		return rc;
	if ((rc = cache_quarantine_each(txn, load_quarantine, d->core)) == 0)
		rc = cache_attempts_each(txn, load_attempts, d->core);
	cache_txn_end(&txn);
	if (rc != 0)
		return rc;
	if ((d->waker = bus_waker_new()) == NULL)
		return errno;
	if ((rc = commit_new(&d->commit, d->cache, cfg->selector.commit_ms, COMMIT_RECORDS, wake, d->waker)) != 0)
		return rc;
	parts = (struct loop_parts){d->daemon.bus, d->server, d->waker, d->core, &d->store, d->commit,
	    d->cache, d->daemon.status, cfg->cache.dir, d->core_cfg.max_message};
	return loop_new(&d->loop, &parts);
}

static int
run(struct selectord *d)
{
	struct daemon *daemon = &d->daemon;
	struct err_note *note = &daemon->note;
	char name[32], a[LABELS_TEXT_BYTES], b[LABELS_TEXT_BYTES];
	int rc;

	d->n_shards = (uint32_t)d->cfg->selector.endpoints.n;
	if ((rc = daemon_open_bus(daemon)) != 0 || (rc = bind_server(d, note)) != 0)
		return rc;
	snprintf(name, sizeof(name), d->n_shards > 1 ? "selectord-%" PRIu32 : "selectord", d->shard);
	if ((rc = identify(d, note)) != 0 || daemon->check)
		return rc;
	if ((rc = bind_cache(d, note)) != 0 || (rc = file_make_dirs(d->cfg->run.dir, 0777, note)) != 0 ||
	    (rc = daemon_open_status(daemon, name)) != 0 || (rc = assemble(d, note)) != 0)
		return rc;
	d->hooks = (struct daemon_hooks){loop_peers, loop_members, d->loop};
	daemon_set_hooks(daemon, &d->hooks);
	daemon_announce(daemon, bus_server_endpoint(d->server));
	log_info("start",
	    "mode=%s endpoint=%s status=%s shard=%" PRIu32 "/%" PRIu32 " cache=%s windows=%" PRIu64
	    " heldout_windows=%" PRIu64,
	    config_mode_name(d->cfg), bus_server_endpoint(d->server), daemon_status_endpoint(daemon),
	    d->shard, d->n_shards, d->cfg->cache.dir, d->core_cfg.corpus.n_windows, d->core_cfg.n_heldout);
	log_info("identity", "labels=\"%s\" scores=\"%s\"", labels_set_text(&d->label_set, a, sizeof(a)),
	    labels_scores_set_text(&d->score_set, b, sizeof(b)));
	rc = loop_run(d->loop, note);
	log_info("stop", "rc=%d signal=%d", rc, stop_signal());
	return rc;
}

int
main(int argc, char **argv)
{
	static const struct cli_option options[] = {
		{"shard", "I", "index in selector.endpoints, from 0 (default: the first that can be bound)",
		    false, 0},
		CLI_END
	};
	struct selectord d = {
	    .daemon = {.program = "selectord",
		.purpose = "leases sequences to teachers, stores labels, serves rows to trainers",
		.needs = CONFIG_NEED_RUN | CONFIG_NEED_CORPUS | CONFIG_NEED_CACHE | CONFIG_NEED_TEACHER,
		.key = BUS_ROLE_SELECTOR,
		.options = options}};
	int rc;

	if (!daemon_start(&d.daemon, argc, argv))
		return daemon_end(&d.daemon, 0);
	d.cfg = d.daemon.config;
	rc = run(&d);
	daemon_close_status(&d.daemon);
	loop_destroy(&d.loop);
	commit_destroy(&d.commit);
	core_destroy(&d.core);
	store_free(&d.store);
	bus_server_destroy(&d.server);
	bus_waker_destroy(&d.waker);
	cache_destroy(&d.cache);
	labels_unigram_destroy(&d.unigram);
	blend_destroy(&d.order);
	corpus_destroy(&d.train);
	corpus_destroy(&d.heldout);
	select_file_destroy(&d.file);
	return daemon_end(&d.daemon, rc);
}
