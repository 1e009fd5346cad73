/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock/clock.h"
#include "base/cpus/cpus.h"
#include "base/log/log.h"
#include "base/mem/mem.h"
#include "data/corpus/blend.h"

#define PREFETCH_STEPS 4
#define TEACHER_THREADS_MAX 8

/* ---- log: one for the process ---- */

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static struct salt *log_owner;
static void (*log_fn)(void *arg, int level, const char *line);

static void
tap(void *arg, enum log_level level, const char *event, const char *line)
{
	(void)event;
	log_fn(arg, (int)level, line);
}

static void
log_start(struct salt *s, const struct salt_options *o)
{
	log_quiet("saltfleet");
	if (o->log == NULL)
		return;
	pthread_mutex_lock(&log_lock);
	log_tap(NULL, NULL);
	log_owner = s;
	log_fn = o->log;
	log_tap(tap, o->log_arg);
	pthread_mutex_unlock(&log_lock);
}

static void
log_stop(struct salt *s)
{
	pthread_mutex_lock(&log_lock);
	if (log_owner == s) {
		log_owner = NULL;
		log_tap(NULL, NULL);
	}
	pthread_mutex_unlock(&log_lock);
}

/* ---- open ---- */

static int
open_config(struct salt *s, const struct salt_options *o, struct salt_error *e)
{
	static const unsigned needs[] = {[SALT_TRAINER] = CONFIG_NEED_CORPUS | CONFIG_NEED_BATCH, [SALT_TEACHER] = 0,
	    [SALT_CLIENT] = CONFIG_NEED_CORPUS};
	struct err_note note = {.name = ""};
	int rc;

	if (o->config == NULL)
		return client__error(e, SALT_CONFIG, "options.config: expected the path of fleet.yaml, found NULL");
	if ((rc = config_load(o->config, o->overrides, o->n_overrides, &s->config, &note)) != 0 ||
	    (rc = config_require(s->config, needs[o->role], &note)) != 0)
		return client__fail(e, rc, &note);
	if (o->role == SALT_TRAINER && s->config->trainer.steps == 0)
		return client__error(e, SALT_CONFIG, "%s: trainer.steps: expected the number of steps of the run, found none", o->config);
	s->n_shards = s->config->selector.endpoints.n;
	s->context = s->config->corpus.context;
	s->batch = s->config->trainer.batch;
	if ((s->shards = mem_alloc(s->n_shards + 1, sizeof(*s->shards))) == NULL)
		return client__fail(e, ENOMEM, NULL);
	return SALT_OK;
}

static int
open_corpus(struct corpus **c, const struct config *cfg, const char *prefix, uint32_t number, uint32_t vocab, int32_t end,
    struct hash128 *fingerprint, struct salt_error *e)
{
	struct err_note note = {.name = ""};
	int rc;

	if ((rc = corpus_open_as(c, prefix, cfg->corpus.dtype, &note)) != 0)
		return client__fail(e, rc, &note);
	corpus_set_number(*c, number);
	if ((cfg->corpus.isolate_documents && (rc = corpus_isolate(*c, end, &note)) != 0) ||
	    (vocab > 0 && (rc = corpus_limit_vocab(*c, vocab, &note)) != 0) || (rc = corpus_fingerprint(*c, fingerprint, &note)) != 0)
		return client__fail(e, rc, &note);
	if (corpus_n_windows(*c, cfg->corpus.context) == 0)
		return client__error(e, SALT_DATA, "%s: expected at least corpus.context + 1 = %" PRIu32 " tokens, found %" PRIu64, prefix,
		    cfg->corpus.context + 1, corpus_n_tokens(*c));
	return SALT_OK;
}

/* Opens the corpora and describes them in HELLO. */
static int
open_corpora(struct salt *s, const struct salt_options *o, struct salt_error *e)
{
	const struct config *cfg = s->config;
	const struct wire_id unknown = {false, {0, 0}};
	struct err_note note = {.name = ""};
	struct hash128 heldout;
	int rc;

	if ((rc = open_corpus(&s->train, cfg, cfg->corpus.train, CORPUS_TRAIN, o->vocab, -1, &s->train_fingerprint, e)) != 0)
		return rc;
	/* A training loop that ignores the weights would train another objective than trainerd. */
	if (o->role == SALT_TRAINER && corpus_info(s->train)->has_weights)
		return client__error(e, SALT_CONFIG,
		    "corpus.train: expected a corpus without loss weights, because only trainerd applies "
		    "them, found loss weights in %.200s. saltctl corpus merge --no-weights makes a copy "
		    "without them, for which labels stay valid",
		    cfg->corpus.train);
	if ((rc = corpus_blend(&s->order, s->train, s->context, &note)) != 0)
		return client__fail(e, rc, &note);
	s->n_windows = blend_n_windows(s->order);
	s->vocab = corpus_info(s->train)->vocab != 0 ? corpus_info(s->train)->vocab : o->vocab;
	s->student_vocab = o->vocab != 0 ? o->vocab : s->vocab;
	if (s->vocab == 0)
		return client__error(e, SALT_CONFIG, "options.vocab: expected the vocabulary, because corpus %s states none, found 0",
		    cfg->corpus.train);
	if (corpus_info(s->train)->has_tokenizer)
		hash_hex(corpus_info(s->train)->tokenizer, s->tokenizer_hex);
	s->hello.corpus = session_corpus(s->train, s->train_fingerprint, s->context, s->vocab, unknown);
	if (cfg->corpus.heldout[0] == '\0')
		return SALT_OK;
	if ((rc = open_corpus(&s->heldout, cfg, cfg->corpus.heldout, CORPUS_HELDOUT, o->vocab, corpus_document_end(s->train), &heldout, e)) != 0)
		return rc;
	s->hello.heldout = session_corpus(s->heldout, heldout, s->context, s->vocab, unknown);
	return SALT_OK;
}

/* Sets up phase one, and the plan in a trainer's HELLO. */
static void
open_plan(struct salt *s)
{
	const struct config *cfg = s->config;
	uint64_t ahead = cfg->selector.label_ahead_steps;
	double margin = NAN;
	bool by_margin = config_until_margin(cfg, &margin);

	s->phase = (struct phase){.total_steps = cfg->trainer.steps, .switch_step = by_margin ? PHASE_UNKNOWN : cfg->phase_one.steps,
	    .margin_nats = margin, .weight = (float)cfg->phase_one.weight, .handover = (enum phase_handover)cfg->phase_one.handover,
	    .handover_steps = cfg->phase_one.handover_steps};
	if (s->role != SALT_TRAINER || s->phase.switch_step == 0)
		return;
	s->hello.plan = session_plan(cfg, phase_max_rows(&s->phase, s->batch),
	    ahead == CONFIG_ALL || ahead > UINT64_MAX / s->batch ? UINT64_MAX : ahead * s->batch);
	s->hello.label_set = session_label_set(cfg);
	if (cfg->phase_one.late == CONFIG_LATE_HARD)
		log_warn("late.ignored",
		    "hint=\"only trainerd supports phase_one.late: hard; this program waits for rows without "
		    "a label\"");
}

static int
open_network(struct salt *s, const char *name, struct salt_error *e)
{
	static const enum bus_role keys[] = {[SALT_TRAINER] = BUS_ROLE_TRAINER, [SALT_TEACHER] = BUS_ROLE_TEACHER, [SALT_CLIENT] = BUS_ROLE_CLIENT};
	static const enum wire_role roles[] = {[SALT_TRAINER] = WIRE_ROLE_TRAINER, [SALT_TEACHER] = WIRE_ROLE_TEACHER, [SALT_CLIENT] = WIRE_ROLE_CLIENT};
	const struct config *cfg = s->config;
	const struct bus_options o = {.max_message = cfg->bus.max_message, .curve_dir = cfg->security.curve_dir,
	    .allow_plain_remote = cfg->security.allow_plain_remote, .role = keys[s->role]};
	struct wire_hello *h = &s->hello;
	struct err_note note = {.name = ""};
	int rc;

	h->role = roles[s->role];
	h->max_message = (uint32_t)cfg->bus.max_message;
	snprintf(h->name, sizeof(h->name), "%s", name);
	/*
	 * Not the boot id of the process: it may have several struct salt, and its forks need ids of their
	 * own.
	 */
	if (getrandom(&h->boot_id, sizeof(h->boot_id), 0) != (ssize_t)sizeof(h->boot_id))
		return client__fail(e, errno, NULL);
	if ((rc = bus_new(&s->bus, &o, &note)) != 0)
		return client__fail(e, rc, &note);
	if (s->role != SALT_CLIENT)
		client__status_start(s);
	if (s->socket != NULL)
		snprintf(h->status_endpoint, sizeof(h->status_endpoint), "%s", bus_status_endpoint(s->socket));
	s->connect = s->role != SALT_TRAINER;
	return (rc = client__net_start(s, &note)) != 0 ? client__fail(e, rc, &note) : SALT_OK;
}

static unsigned
default_threads(int role)
{
	unsigned cores = role == SALT_TEACHER ? (unsigned)cpus_here() : 1;

	return cores < TEACHER_THREADS_MAX ? cores : TEACHER_THREADS_MAX;
}

static int
open_all(struct salt *s, const struct salt_options *o, struct salt_error *e)
{
	struct err_note note = {.name = ""};
	char name[WIRE_NAME_MAX];
	int rc;

	if (o->name != NULL)
		snprintf(name, sizeof(name), "%s", o->name);
	else if (o->role == SALT_TEACHER)
		snprintf(name, sizeof(name), "teacher-%.40s-%d", bus_host(), (int)s->pid);
	else
		snprintf(name, sizeof(name), "%s-%u", o->role == SALT_TRAINER ? "trainer" : "client", o->role == SALT_TRAINER ? o->rank : (unsigned)s->pid);
	s->hello.rank = o->rank;
	s->prefetch_steps = o->prefetch_steps > 0 ? o->prefetch_steps : PREFETCH_STEPS;
	s->keep_records = o->keep_records;
	if ((rc = open_config(s, o, e)) != 0 || (s->role != SALT_TEACHER && (rc = open_corpora(s, o, e)) != 0))
		return rc;
	open_plan(s);
	if (s->role == SALT_TRAINER && (rc = client__run_check(s, e)) != 0)
		return rc;
	if (s->role != SALT_CLIENT && (rc = client__status_new(s, name, &note)) != 0)
		return client__fail(e, rc, &note);
	s->n_threads = o->threads > 0 ? o->threads : default_threads(s->role);
	if ((rc = client__workers_new(&s->workers, s->n_threads, &note)) != 0)
		return client__fail(e, rc, &note);
	if (s->role == SALT_TRAINER) {
		s->part = &client__rows_part;
		if ((rc = client__rows_new(s, &note)) != 0)
			return client__fail(e, rc, &note);
	} else if (s->role == SALT_TEACHER) {
		s->part = &client__leases_part;
		if ((rc = client__leases_new(s, o, e)) != 0)
			return rc;
	}
	return open_network(s, name, e);
}

int
salt_open(struct salt **out, const struct salt_options *options, struct salt_error *e)
{
	struct salt_options o = {0};
	struct salt *s;
	int rc;

	*out = NULL;
	if (options->size < offsetof(struct salt_options, overrides))
		return client__error(e, SALT_CONFIG, "options.size: expected sizeof(struct salt_options), found %zu", options->size);
	memcpy(&o, options, options->size < sizeof(o) ? options->size : sizeof(o));
	if (o.role < SALT_TRAINER || o.role > SALT_CLIENT)
		return client__error(e, SALT_CONFIG, "options.role: expected SALT_TRAINER, SALT_TEACHER or SALT_CLIENT, found %d", o.role);
	if ((s = mem_alloc(1, sizeof(*s))) == NULL)
		return client__fail(e, ENOMEM, NULL);
	s->pid = getpid();
	s->started_ms = clock_now_ms();
	s->role = o.role;
	s->teacher_nats = NAN;
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->run_lock, NULL);
	clock_cond_init(&s->changed);
	log_start(s, &o);
	if ((rc = open_all(s, &o, e)) != 0) {
		salt_close(&s);
		return rc;
	}
	*out = s;
	return client__ok(e);
}

/*
 * In a forked child the threads do not exist, and they may have left data half changed: only constant data
 * are freed, and sockets are left to the parent.
 */
void
salt_close(struct salt **salt)
{
	struct salt *s = *salt;

	if (s == NULL)
		return;
	*salt = NULL;
	if (s->pid == getpid()) {
		client__net_stop(s);
		client__workers_free(&s->workers);
		client__status_stop(s);
		bus_poll_destroy(&s->poll);
		bus_waker_destroy(&s->waker);
		bus_destroy(&s->bus);
		if (s->role == SALT_TRAINER)
			client__rows_free(s);
		else if (s->role == SALT_TEACHER)
			client__leases_free(s);
		log_stop(s);
		pthread_cond_destroy(&s->changed);
		pthread_mutex_destroy(&s->lock);
		pthread_mutex_destroy(&s->run_lock);
		status_destroy(&s->status);
	}
	blend_destroy(&s->order);
	corpus_destroy(&s->train);
	corpus_destroy(&s->heldout);
	config_destroy(&s->config);
	free(s->shards);
	free(s);
}

/* Lock held. */
static bool
shard_failed(const struct salt *s)
{
	for (size_t i = 0; i < s->n_shards; i++)
		if (s->shards[i].failed)
			return true;
	return false;
}

int
salt_flush(struct salt *s, int timeout_ms, struct salt_error *e)
{
	const struct timespec deadline = client__deadline(timeout_ms);
	int rc = client__enter(s, 0, e);
	bool done;

	if (rc != 0 || s->part == NULL)
		return rc;
	pthread_mutex_lock(&s->lock);
	while (!(done = s->part->flushed(s)) && !shard_failed(s) && client__wait(s, timeout_ms, &deadline))
		;
	if (!done)
		rc = shard_failed(s) ? client__copy(e, &s->failure) : client__error(e, SALT_TIMEOUT,
		    "selectord has not acknowledged all calls within %d ms", timeout_ms);
	pthread_mutex_unlock(&s->lock);
	return rc;
}
