/* selectord: arguments, configuration, identities, the parts put together, exit code. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "fabric/bus/bus.h"
#include "data/cache/cache.h"
#include "fabric/config/cli.h"
#include "data/corpus/corpus.h"
#include "engine/kernels/kernels.h"
#include "data/labels/labels.h"
#include "base/log/log.h"
#include "base/mem/mem.h"
#include "engine/model/model.h"
#include "fabric/daemon/presence.h"
#include "selectord/commit.h"
#include "selectord/core.h"
#include "selectord/loop.h"
#include "selectord/store.h"
#include "fabric/status/status.h"
#include "data/tokenizer/tokenizer.h"
#include "engine/weights/weights.h"

#define COMMIT_RECORDS 1024		/* so many are not waited longer with than a commit takes */

struct daemon {
	struct config *cfg;
	uint32_t shard, n_shards;
	struct corpus *train, *heldout;
	struct hash128 train_hash, heldout_hash, teacher_hash, scorer_hash;
	struct labels_set label_set;
	struct labels_unigram *unigram;
	struct labels_scores_set score_set;
	struct core_config core_cfg;
	struct cache *cache;
	struct bus *bus;
	struct bus_server *server;
	struct bus_events *events;
	struct bus_status *status_socket;
	struct bus_waker *waker;
	struct status *status;
	struct store store;
	struct core *core;
	struct commit *commit;
	struct loop *loop;
	char name[64];
	bool announced;
};

/* One corpus: its windows, its identity, and whether its ids fit the models. */
static int
open_corpus(struct corpus **c, const char *prefix, uint32_t number, uint32_t L, struct hash128 *hash, struct err_note *note)
{
	int rc;

	if ((rc = corpus_open(c, prefix, note)) != 0 || (rc = corpus_fingerprint(*c, hash, note)) != 0)
		return rc;
	corpus_set_number(*c, number);
	if (corpus_n_windows(*c, L) > 0)
		return 0;
	err_note_set(note, ERR_RANGE, "%s", prefix);
	err_note_expected(note, "at least %" PRIu32 " tokens (corpus.context + 1)", L + 1);
	err_note_found(note, "%" PRIu64, corpus_n_tokens(*c));
	return ERR_RANGE;
}

static void
fill_corpus(struct wire_corpus *w, const struct corpus *c, struct hash128 hash, uint32_t L, uint32_t vocab, struct wire_id tokenizer)
{
	w->present = true;
	w->fingerprint = (struct wire_id){true, hash};
	w->context = L;
	w->n_windows = corpus_n_windows(c, L);
	w->tokenizer = tokenizer;
	w->vocab_size = vocab;
}

/*
 * One tokenizer for corpus, teacher and scorer, as far as each says which: ids would mean other text. A foreign corpus that does not say
 * has the teacher's, so that a trainer's can be compared with it.
 */
static int
check_tokenizer(const char *key, const char *dir, struct wire_id *tokenizer, struct err_note *note)
{
	char path[4200], hex[HASH_HEX_BYTES];
	struct tokenizer *tok = NULL;
	struct hash128 fingerprint;
	int rc;

	snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
	if (access(path, F_OK) != 0)
		return 0;
	if ((rc = tokenizer_load(&tok, path, note)) != 0)
		return rc;
	fingerprint = tokenizer_fingerprint(tok);
	tokenizer_destroy(&tok);
	if (!tokenizer->known)
		*tokenizer = (struct wire_id){true, fingerprint};
	if (hash_equal(tokenizer->hash, fingerprint))
		return 0;
	rc = err_note_set(note, ERR_MISMATCH, "%s %s", key, path);
	err_note_expected(note, "tokenizer %s, the corpus's", hash_hex(tokenizer->hash, hex));
	err_note_found(note, "%s", hash_hex(fingerprint, hex));
	return rc;
}

static int
check_model(const char *key, const char *dir, uint32_t L, uint32_t *vocab, struct wire_id *tokenizer, struct hash128 *hash, struct err_note *note)
{
	struct model_config m;
	int rc;

	if ((rc = weights_config_load(dir, &m, note)) != 0 || (rc = weights_fingerprint(dir, hash, note)) != 0)
		return rc;
	if (*vocab == 0)			/* a foreign corpus that does not say: every id the model has */
		*vocab = (uint32_t)m.vocab_size;
	if (m.vocab_size < (int64_t)*vocab) {
		err_note_set(note, ERR_MISMATCH, "%s %s", key, dir);
		err_note_expected(note, "a vocabulary of at least %" PRIu32 ", the corpus's", *vocab);
		err_note_found(note, "%" PRId64, m.vocab_size);
		return ERR_MISMATCH;
	}
	if (m.context < (int64_t)L) {
		err_note_set(note, ERR_MISMATCH, "%s %s", key, dir);
		err_note_expected(note, "a context of at least %" PRIu32 " (corpus.context)", L);
		err_note_found(note, "%" PRId64, m.context);
		return ERR_MISMATCH;
	}
	return check_tokenizer(key, dir, tokenizer, note);
}

/* The longest label record of the set: nothing that could be stored may be too long to send. */
static uint64_t
record_max(const struct labels_spec *s)
{
	uint64_t id = s->vocab <= 65536 ? 2 : s->vocab <= 1u << 24 ? 3 : 4, row = 0;

	if (s->kind == LABELS_KIND_DENSE)
		row = 2 * (uint64_t)s->vocab;
	else if (s->kind == LABELS_KIND_TOPK)
		row = (uint64_t)s->k * (id + 2);
	else
		/* N draws, all different: 31 bits an id at most, some for a count */
		row = 8 + 5 * (uint64_t)(s->n_samples < s->vocab ? s->n_samples : s->vocab);
	return LABELS_OVERHEAD_BYTES + (uint64_t)s->context * row;
}

/* What sampled labels are coded under, from the corpus's counts: part of the label set's identity. */
static int
make_unigram(struct daemon *d, struct err_note *note)
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

/* Corpora, models, label set, score set: all of which peers and the cache are compared with. */
static int
identify(struct daemon *d, struct err_note *note)
{
	const struct config *cfg = d->cfg;
	struct kernels_options ko = {(enum kernels_backend)cfg->compute.backend, (enum kernels_dtype)cfg->compute.dtype, 1};
	struct core_config *cc = &d->core_cfg;
	struct labels_spec *spec = &d->label_set.spec;
	struct wire_label_set *ls = &cc->label_set;
	struct wire_score_set *ss = &cc->score_set;
	uint32_t L = cfg->corpus.context, vocab;
	struct wire_id tokenizer;
	int rc;

	if ((rc = open_corpus(&d->train, cfg->corpus.train, CORPUS_TRAIN, L, &d->train_hash, note)) != 0)
		return rc;
	if (cfg->corpus.heldout[0] != '\0' &&
	    (rc = open_corpus(&d->heldout, cfg->corpus.heldout, CORPUS_HELDOUT, L, &d->heldout_hash, note)) != 0)
		return rc;
	vocab = corpus_info(d->train)->vocab;
	tokenizer = (struct wire_id){corpus_info(d->train)->has_tokenizer, corpus_info(d->train)->tokenizer};
	if (d->heldout != NULL && tokenizer.known && corpus_info(d->heldout)->has_tokenizer &&
	    !hash_equal(corpus_info(d->heldout)->tokenizer, tokenizer.hash)) {
		char hex[HASH_HEX_BYTES];

		rc = err_note_set(note, ERR_MISMATCH, "corpus.heldout %s", cfg->corpus.heldout);
		err_note_expected(note, "tokenizer %s, that of corpus.train", hash_hex(tokenizer.hash, hex));
		err_note_found(note, "%s", hash_hex(corpus_info(d->heldout)->tokenizer, hex));
		return rc;
	}
	if ((rc = check_model("teacher.model", cfg->teacher.model, L, &vocab, &tokenizer, &d->teacher_hash, note)) != 0 ||
	    (rc = check_model("teacher.scorer", cfg->teacher.scorer, L, &vocab, &tokenizer, &d->scorer_hash, note)) != 0 ||
	    (rc = corpus_limit_vocab(d->train, vocab, note)) != 0 ||
	    (d->heldout != NULL && (rc = corpus_limit_vocab(d->heldout, vocab, note)) != 0))
		return rc;

	d->label_set.corpus = d->score_set.corpus = d->train_hash;
	d->label_set.teacher = d->teacher_hash;
	d->score_set.scorer = d->scorer_hash;
	if ((rc = kernels_resolve(&ko, d->label_set.compute_class, sizeof(d->label_set.compute_class), note)) != 0)
		return rc;
	snprintf(d->score_set.compute_class, sizeof(d->score_set.compute_class), "%s", d->label_set.compute_class);
	spec->kind = cfg->labels.kind;
	spec->version = LABELS_VERSION;
	spec->context = d->score_set.context = L;
	spec->vocab = vocab;
	spec->n_samples = cfg->labels.samples;
	spec->k = cfg->labels.k;
	spec->seed = cfg->labels.seed;
	spec->tau = (double)(float)cfg->labels.tau;	/* as it travels in messages */
	d->score_set.version = LABELS_SCORES_VERSION;
	if ((rc = labels_spec_check(spec, note)) != 0 || (spec->kind == LABELS_KIND_SAMPLED && (rc = make_unigram(d, note)) != 0))
		return rc;
	spec->set = labels_set_hash(&d->label_set);

	cc->boot_id = bus_boot_id();
	cc->shard = d->shard;
	cc->n_shards = d->n_shards;
	cc->max_message = (uint32_t)cfg->bus.max_message;
	cc->lease_rows = cfg->selector.lease_sequences;
	cc->lease_ms = (uint32_t)(cfg->selector.lease_s * 1000);
	cc->teacher_idle_ms = (int64_t)(cfg->selector.teacher_idle_s * 1000);
	cc->n_valid = vocab;
	cc->record_max = record_max(spec);
	cc->keep_unselected = cfg->cache.keep_unselected;
	fill_corpus(&cc->corpus, d->train, d->train_hash, L, vocab, tokenizer);
	if (d->heldout != NULL) {
		uint64_t n = corpus_n_windows(d->heldout, L), want = cfg->trainer.eval_sequences;

		fill_corpus(&cc->heldout, d->heldout, d->heldout_hash, L, vocab, tokenizer);
		/* the windows that trainerd evaluates on, so that the two losses can be compared */
		cc->n_heldout = (cfg->teacher.serve & CONFIG_SERVE_SCORE) == 0 ? 0 : want > 0 && want < n ? want : n;
		cc->rows_wait_heldout = config_until_margin(cfg, &(double){0});
	}
	ls->present = ss->present = true;
	ls->hash = (struct wire_id){true, spec->set};
	ls->teacher = (struct wire_id){true, d->teacher_hash};
	ls->kind = spec->kind;
	ls->n = spec->kind == LABELS_KIND_SAMPLED ? spec->n_samples : spec->kind == LABELS_KIND_TOPK ? spec->k : 0;
	ls->tau = (float)spec->tau;
	ls->seed = spec->seed;
	ls->version = spec->version;
	ss->hash = (struct wire_id){true, labels_scores_set_hash(&d->score_set)};
	ss->scorer = (struct wire_id){true, d->scorer_hash};
	ss->version = LABELS_SCORES_VERSION;
	snprintf(ls->compute_class, sizeof(ls->compute_class), "%s", d->label_set.compute_class);
	snprintf(ss->compute_class, sizeof(ss->compute_class), "%s", d->score_set.compute_class);
	return core_check(cc, note);
}

/* The cache belongs to one corpus, one label set, one score set: said value by value, so that a mismatch names what differs. */
/* A cache of an older record format is not written to. */
static int
known_version(struct daemon *d, struct err_note *note)
{
	char version[CACHE_IDENTITY_BYTES];

	if (cache_identity_get(d->cache, "label_set.version", version, sizeof(version)) != 0 || atoi(version) == LABELS_VERSION)
		return 0;
	err_note_set(note, ERR_VERSION, "cache.dir %s: label records", d->cfg->cache.dir);
	err_note_expected(note, "version %u", LABELS_VERSION);
	err_note_found(note, "%.20s; saltctl cache export with the saltctl that made them, saltctl cache import --corpus PREFIX into a new cache with "
	    "this one", version);
	return ERR_VERSION;
}

static int
bind_cache(struct daemon *d, struct err_note *note)
{
	const struct wire_label_set *ls = &d->core_cfg.label_set;
	const struct wire_score_set *ss = &d->core_cfg.score_set;
	const struct wire_corpus *wc = &d->core_cfg.corpus;
	struct cache_identity items[24];
	char text[24][CACHE_IDENTITY_BYTES], dir[4096], hex[HASH_HEX_BYTES];
	size_t n = 0;
	int rc;

#define ITEM(key, ...)	(snprintf(text[n], sizeof(text[n]), __VA_ARGS__), items[n] = (struct cache_identity){key, text[n]}, n++)
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
#undef ITEM
	if (d->n_shards == 1) {
		rc = cache_open(&d->cache, d->cfg->cache.dir, CACHE_WRITE, d->cfg->cache.map_size, note);
	} else {
		/* every shard has a cache of its own in cache.dir, which may have to be made */
		snprintf(dir, sizeof(dir), "%s/shard_%" PRIu32, d->cfg->cache.dir, d->shard);
		if ((rc = cache_make_dir(d->cfg->cache.dir, note)) == 0)
			rc = cache_open(&d->cache, dir, CACHE_WRITE, d->cfg->cache.map_size, note);
	}
	if (rc != 0 || (rc = known_version(d, note)) != 0 || (rc = cache_identity_bind(d->cache, items, n, note)) != 0)
		return rc;
	if (d->unigram != NULL && (rc = cache_unigram_put(d->cache, d->core_cfg.unigram.bytes, d->core_cfg.unigram.len)) != 0)
		err_note_set(note, rc, "cache.dir %s: unigram table", d->cfg->cache.dir);
	return rc;
}

/* --shard, or the first endpoint that can be bound here. */
static int
bind_server(struct daemon *d, const char *shard, struct err_note *note)
{
	const struct config_texts *ends = &d->cfg->selector.endpoints;
	char *end;
	int rc = ERR_CONFIG;

	d->n_shards = (uint32_t)ends->n;
	if (shard != NULL || ends->n == 1) {
		unsigned long i = shard != NULL ? strtoul(shard, &end, 10) : 0;

		if (shard != NULL && (*shard == '\0' || *end != '\0' || i >= ends->n)) {
			err_note_set(note, ERR_USAGE, "--shard");
			err_note_expected(note, "0 .. %zu (selector.endpoints)", ends->n - 1);
			err_note_found(note, "%s", shard);
			return ERR_USAGE;
		}
		d->shard = (uint32_t)i;
		return bus_server_new(&d->server, d->bus, ends->item[i], note);
	}
	for (size_t i = 0; i < ends->n && rc != 0; i++) {
		d->shard = (uint32_t)i;
		rc = bus_server_new(&d->server, d->bus, ends->item[i], note);
	}
	return rc;
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

static int
start(struct daemon *d, struct err_note *note)
{
	const struct config *cfg = d->cfg;
	struct status_announce announce;
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
	if ((d->waker = bus_waker_new()) == NULL || (d->status = status_new("selectord", d->name, SALT_VERSION, clock_now_ms())) == NULL)
		return ENOMEM;
	if ((rc = commit_new(&d->commit, d->cache, cfg->selector.commit_ms, COMMIT_RECORDS, wake, d->waker)) != 0)
		return rc;
	presence_events_open(&d->events, d->bus, cfg->status.bind, d->status);
	parts = (struct loop_parts){d->bus, d->server, d->waker, d->core, &d->store, d->commit, d->cache, d->status, d->core_cfg.max_message};
	if ((rc = loop_new(&d->loop, &parts)) != 0 ||
	    (rc = bus_status_new(&d->status_socket, d->bus, cfg->status.bind, loop_status, d->loop, note)) != 0)
		return rc;
	if ((rc = presence_make_directory(cfg->run.dir, note)) != 0)
		return rc;
	status_announce_fill(&announce, "selectord", d->name, bus_status_endpoint(d->status_socket), bus_server_endpoint(d->server));
	if ((rc = status_announce_write(cfg->run.dir, &announce, note)) != 0)
		return rc;
	d->announced = true;
	return 0;
}

static int
run(struct daemon *d, const char *shard, bool check, struct err_note *note)
{
	struct bus_options options = {.max_message = d->cfg->bus.max_message, .curve_dir = d->cfg->security.curve_dir,
	    .allow_plain_remote = d->cfg->security.allow_plain_remote, .role = BUS_ROLE_SELECTOR};
	char a[LABELS_TEXT_BYTES], b[LABELS_TEXT_BYTES];
	int rc;

	d->n_shards = (uint32_t)d->cfg->selector.endpoints.n;
	if (check) {
		if ((rc = identify(d, note)) != 0)
			return rc;
		fprintf(stderr, "selectord: configuration and files are good: %s\n", config_mode_name(d->cfg));
		return 0;
	}
	if ((rc = bus_new(&d->bus, &options, note)) != 0 || (rc = bind_server(d, shard, note)) != 0 || (rc = identify(d, note)) != 0 ||
	    (rc = bind_cache(d, note)) != 0)
		return rc;
	snprintf(d->name, sizeof(d->name), d->n_shards > 1 ? "selectord-%" PRIu32 : "selectord", d->shard);
	if ((rc = start(d, note)) != 0)
		return rc;
	log_info("start", "mode=%s endpoint=%s status=%s shard=%" PRIu32 "/%" PRIu32 " cache=%s windows=%" PRIu64 " heldout_windows=%" PRIu64,
	    config_mode_name(d->cfg), bus_server_endpoint(d->server), bus_status_endpoint(d->status_socket), d->shard, d->n_shards,
	    d->cfg->cache.dir, d->core_cfg.corpus.n_windows, d->core_cfg.n_heldout);
	log_info("identity", "labels=\"%s\" scores=\"%s\"", labels_set_text(&d->label_set, a, sizeof(a)),
	    labels_scores_set_text(&d->score_set, b, sizeof(b)));
	rc = loop_run(d->loop);
	if (rc != 0)
		err_note_set(note, rc, rc == ENOMEM ? "memory" : "cache.dir %s", d->cfg->cache.dir);
	log_info("stop", "rc=%d signal=%d", rc, stop_signal());
	return rc;
}

int
main(int argc, char **argv)
{
	struct config_cli_option options[] = {{"shard", "I", "which of selector.endpoints this is (default: the first that can be bound)", NULL}};
	struct config_cli cli = {.program = "selectord", .purpose = "leases sequences to teachers, keeps labels, serves rows to trainers",
	    .needs = CONFIG_NEED_RUN | CONFIG_NEED_CORPUS | CONFIG_NEED_CACHE | CONFIG_NEED_TEACHER, .options = options, .n_options = 1};
	struct daemon d = {0};
	struct err_note note = {0};
	char text[1200];
	int rc, code = 0;

	if ((rc = stop_install()) != 0) {
		fprintf(stderr, "selectord: signals: %s\n", err_str(rc));
		return EX_OSERR;
	}
	if (config_cli_start(&cli, argc, argv, &d.cfg, &code) != 0)
		goto out;
	log_init("selectord", cli.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
	if ((rc = run(&d, options[0].value, cli.check, &note)) != 0) {
		code = err_exit_code(rc);
		fprintf(stderr, "selectord: %s\n", err_note_str(&note, rc, text, sizeof(text)));
	}
	if (d.announced)
		status_announce_remove(d.cfg->run.dir, d.name);
	bus_status_destroy(&d.status_socket);
	presence_events_close(&d.events);
	loop_destroy(&d.loop);
	commit_destroy(&d.commit);
	core_destroy(&d.core);
	store_free(&d.store);
	status_destroy(&d.status);
	bus_server_destroy(&d.server);
	bus_waker_destroy(&d.waker);
	bus_destroy(&d.bus);
	cache_destroy(&d.cache);
	labels_unigram_destroy(&d.unigram);
	corpus_destroy(&d.train);
	corpus_destroy(&d.heldout);
	config_destroy(&d.cfg);
out:
	config_cli_free(&cli);
	return code;
}
