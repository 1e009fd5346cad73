/* SPDX-License-Identifier: Apache-2.0 */
/* HELLO: checks a peer's identities and opens its plan, which all peers that name it share. */
#include "selectord/core_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "data/corpus/blend.h"
#include "data/select/select.h"
#include "base/err/crash.h"

#define UNDECIDED_MS 60000		/* time for a trainer that finds its plan released to request rows
					   again */
#define KEY_NAME_MAX 96			/* as in bus */
#define PLANS_BYTES_MAX (UINT64_C(4) << 30)	/* limit for one block of each plan in memory; a single plan
						   may have more */

/* Compares a teacher's models with those that the cache needs. false: refused. */
static bool
teacher_check(struct core *c, struct core_peer *p, const struct wire_hello *h)
{
	char found[WIRE_MODELS_MAX * HASH_HEX_BYTES + 8] = "", a[HASH_HEX_BYTES], b[HASH_HEX_BYTES];
	const struct wire_label_set *set = &c->cfg.label_set;
	const struct wire_id *tokenizer = &c->cfg.corpus.tokenizer;
	struct err_note note = {0};
	int rc = 0;

	for (size_t i = 0; i < h->n_models; i++) {
		const struct wire_model *m = &h->models[i];
		bool teacher = hash_equal(m->fingerprint, set->teacher.hash);
		bool scorer = hash_equal(m->fingerprint, c->cfg.score_set.scorer.hash);
		size_t at = strlen(found);

		snprintf(found + at, sizeof(found) - at, "%s%s", at > 0 ? " " : "", hash_hex(m->fingerprint, a));
		if (!teacher && !scorer)
			continue;
		if (strcmp(m->compute_class, set->compute_class) != 0) {
			rc = err_expect(&note, ERR_MISMATCH, "models.compute_class", "%s", "%s",
			    set->compute_class, m->compute_class);
		} else if (m->vocab_size < c->cfg.n_valid) {
			rc = err_expect(&note, ERR_MISMATCH, "models.vocab_size",
			    "at least %" PRIu32 ", the corpus's vocabulary", "%" PRIu32, c->cfg.n_valid,
			    m->vocab_size);
		} else if (m->max_context < c->cfg.corpus.context) {
			rc = err_expect(&note, ERR_MISMATCH, "models.max_context",
			    "at least %" PRIu32 " tokens (corpus.context)", "%" PRIu32, c->cfg.corpus.context,
			    m->max_context);
		} else if (m->tokenizer.known && tokenizer->known &&
		    !hash_equal(m->tokenizer.hash, tokenizer->hash)) {
			rc = err_expect(&note, ERR_MISMATCH, "models.tokenizer", "%s (the corpus's)", "%s",
			    hash_hex(tokenizer->hash, a), hash_hex(m->tokenizer.hash, b));
		} else {
			p->can_score |= scorer && m->serves_score;
			p->can_label |= teacher && m->serves_label;
			p->can_heldout |= teacher && m->serves_score;
		}
	}
	if (rc != 0) {
		core__refuse_note(c, p->id, EX_CONFIG, &note,
		    "this teacher's output would differ from what is in the cache", 0);
		return false;
	}
	if (p->can_score || p->can_label || p->can_heldout)
		return true;
	if (h->n_models > 0 && strcmp(h->models[0].compute_class, set->compute_class) != 0) {
		core__refuse(c, p->id, EX_CONFIG,
		    "a different model, or a different compute class: teacher.compute_class must be the same "
		    "here and at selectord",
		    0, "models.compute_class", "%s", "%s", set->compute_class, h->models[0].compute_class);
		return false;
	}
	core__refuse(c, p->id, EX_CONFIG,
	    "the cache does not need the models found, or needs labels or scores that they do not serve", 0,
	    "models.fingerprint", "teacher %s or scorer %s", "%s", hash_hex(set->teacher.hash, a),
	    hash_hex(c->cfg.score_set.scorer.hash, b), found);
	return false;
}

/*
 * Removes one plan from memory to make room for another: of those that no connected peer uses, the one used
 * longest ago, released ones first. Its records stay in the cache, and the next HELLO that names it opens it
 * again. false: every plan is in use.
 */
static bool
plan_retire(struct core *c)
{
	struct core_plan *plan = NULL;
	char hex[HASH_HEX_BYTES];

	if (c->drop.active)			/* dropping checks labels against the plans in memory and
						   those stored when it began */
		return false;
	for (struct core_plan *p = c->plans; p != NULL; p = p->next)
		if (p->n_peers == 0 &&
		    (plan == NULL ||
			(p->released != plan->released ? p->released : p->used_ms < plan->used_ms)))
			plan = p;
	if (plan == NULL)
		return false;
	core__event(c, LOG_LEVEL_INFO, "plan.retired", "plan=%s released=%d", hash_hex(plan->hash, hex), plan->released);
	core__blocks_close(plan);
	core__waits_drop_plan(c, plan);
	if (c->turn == plan)
		c->turn = NULL;
	if (c->scan_turn == plan)
		c->scan_turn = NULL;
	DL_DELETE(c->plans, plan);
	free(plan);
	return true;
}

uint64_t
core__positions_max(const struct core *c)
{
	uint64_t n = c->cfg.corpus.n_windows * CORE_EPOCHS_MAX;		/* n_windows is below 2^48 */

	return n > CORE_POSITIONS_MIN ? n : CORE_POSITIONS_MIN;
}

/* Checks the sizes of a plan against the corpus. false: refused. */
static bool
plan_fits(struct core *c, const struct core_peer *p, const struct wire_plan *w, uint64_t window, uint64_t kept)
{
	uint64_t n = c->cfg.corpus.n_windows, rows;
	uint64_t most = n * CORE_WINDOW_EPOCHS > CORE_WINDOW_MIN ? n * CORE_WINDOW_EPOCHS : CORE_WINDOW_MIN;

	if (window > most) {
		core__refuse(c, p->id, EX_CONFIG, "blocks much longer than the corpus", 0,
		    w->pool > 0 ? "plan.pool" : "plan.window",
		    "at most %" PRIu64 " sequences; the corpus has %" PRIu64, "%" PRIu64, most, n, window);
		return false;
	}
	if (kept < 1) {
		core__refuse(c, p->id, EX_CONFIG, "", 0, "plan.keep", "at least one sequence kept from a block",
		    "%.9g of %" PRIu64, w->keep, window);
		return false;
	}
	rows = core__positions_max(c) / window * kept;
	if (w->n_rows <= rows)
		return true;
	core__refuse(c, p->id, EX_CONFIG, "phase one repeats the corpus too often", 0, "plan.n_rows",
	    "at most %" PRIu64 " rows; the corpus has %" PRIu64 " sequences", "%" PRIu64, rows, n, w->n_rows);
	return false;
}

/* If plan is NULL, makes room for one more plan in memory. false: refused for now. */
static bool
plan_room(struct core *c, const struct core_peer *p, const struct core_plan *plan, uint64_t window, uint64_t kept)
{
	uint64_t bytes, n;

	if (plan != NULL)
		return true;
	do {
		bytes = core__block_bytes(window, kept);
		n = 0;
		for (const struct core_plan *q = c->plans; q != NULL; q = q->next, n++)
			bytes += core__block_bytes(q->window, q->kept);
		if (n == 0 || (n < CORE_PLANS_MAX && bytes <= PLANS_BYTES_MAX))
			return true;
	} while (plan_retire(c));
	if (n >= CORE_PLANS_MAX)
		core__refuse(c, p->id, EX_UNAVAILABLE, "", 5000, "plan", "at most %d plans in use by connected peers",
		    "one more", CORE_PLANS_MAX);
	else
		core__refuse(c, p->id, EX_UNAVAILABLE, "", 5000, "plan",
		    "at most %" PRIu64 " bytes for one block of each plan in use", "%" PRIu64, PLANS_BYTES_MAX, bytes);
	return false;
}

/* The score set by which rows are chosen; NULL: none. */
static const struct wire_score_set *
scores_of(const struct core *c, enum wire_mode mode)
{
	return mode == WIRE_MODE_SALT_DS ? &c->cfg.score_set : mode == WIRE_MODE_FILE ? &c->cfg.file_set : NULL;
}

/* Checks that selector.file has what this plan needs. false: refused. */
static bool
plan_file(struct core *c, const struct core_peer *p, const struct wire_plan *w, uint64_t window, uint64_t kept)
{
	struct err_note note = {0};

	if (w->mode != WIRE_MODE_FILE || kept < 1 || select_file_check(c->cfg.file, c->cfg.order, w->seed, w->n_rows, window, kept, &note) == 0)
		return true;
	core__refuse_note(c, p->id, EX_CONFIG, &note, "", 0);
	return false;
}

static const char *
mode_name(enum wire_mode mode)
{
	return mode == WIRE_MODE_NONE ? "none" : mode == WIRE_MODE_SALT_DS ? "salt_ds" : "file";
}

/* Finds or opens the plan of a HELLO. NULL: refused. */
static struct core_plan *
plan_open(struct core *c, struct core_peer *p, const struct wire_plan *w, int64_t now_ms)
{
	const struct wire_score_set *scores = scores_of(c, w->mode);
	struct hash128 hash = wire_plan_hash(&c->cfg.corpus, w, scores != NULL ? &scores->hash.hash : NULL);
	char want[HASH_HEX_BYTES], got[HASH_HEX_BYTES];
	const struct select_file *list = w->mode == WIRE_MODE_FILE && c->cfg.file != NULL && c->cfg.file->list != NULL ? c->cfg.file : NULL;
	uint64_t window = w->pool > 0 ? w->pool : w->window;
	uint64_t kept = scores != NULL ? select_kept(w->keep, window) : window;
	struct core_plan *plan = core__plan(c, hash);
	struct cache_plan stored;
	struct err_note note = {0};

	if (w->mode == WIRE_MODE_FILE && c->cfg.file == NULL) {
		core__refuse(c, p->id, EX_CONFIG, "selectord was started without selector.mode: file", 0, "selector.mode",
		    "none or salt_ds", "file");
		return NULL;
	}
	if ((plan == NULL || w->n_rows > plan->wire.n_rows) && !plan_file(c, p, w, window, kept))
		return NULL;
	if (list != NULL)			/* as many blocks and rows as with scores, but no choice */
		window = kept;
	if (w->hash.known && !hash_equal(w->hash.hash, hash)) {
		core__refuse(c, p->id, EX_CONFIG,
		    w->mode == WIRE_MODE_SALT_DS ?
			"the same settings give a different plan here: the corpus or the score set differs" :
			w->mode == WIRE_MODE_FILE ? "selector.file or the corpus differs" :
						    "the corpus differs",
		    0, "plan.hash", "%s", "%s", hash_hex(hash, want), hash_hex(w->hash.hash, got));
		return NULL;
	}
	if (w->mode == WIRE_MODE_SALT_DS && (w->k < 1 || w->k > 255)) {
		core__refuse(c, p->id, EX_CONFIG, "", 0, "plan.k", "1 .. 255 (ranks are stored up to 255)",
		    "%" PRIu32, w->k);
		return NULL;
	}
	if (!plan_fits(c, p, w, window, kept) || !plan_room(c, p, plan, window, kept))
		return NULL;
	if (plan == NULL) {
		if ((plan = calloc(1, sizeof(*plan))) == NULL) {
			core__refuse_memory(c, p->id);
			return NULL;
		}
		plan->hash = hash;
		plan->wire = *w;
		plan->window = window;
		plan->kept = kept;
		plan->list = list;
		plan->scored = scores != NULL && list == NULL;
		plan->n_parts = plan->scored && w->by_part ? blend_n_parts(c->cfg.order) : 1;
		plan->frontier = plan->ready = c->cfg.shard;
		DL_APPEND(c->plans, plan);
		if (c->store->plan(c->store->arg, hash, &stored) == 0) {
			uint64_t S = c->cfg.n_shards, rows, block;

			plan->oldest_step = stored.oldest_step;
			plan->released = stored.released;
			plan->released_step = stored.released_step;
			/*
			 * No row before the oldest kept checkpoint will be requested: begin at the first own
			 * block with later rows.
			 */
			rows = stored.oldest_step < w->n_rows / w->batch ? stored.oldest_step * w->batch : w->n_rows;
			block = rows / kept;
			if (block > c->cfg.shard)
				plan->frontier += (block - c->cfg.shard + S - 1) / S * S;
			plan->ready = plan->frontier;
			plan->asked = rows;
		}
		core__event(c, LOG_LEVEL_INFO, "plan.opened", "plan=%s mode=%s seed=%" PRIu32 " batch=%" PRIu32 " window=%" PRIu64 " kept=%" PRIu64
		    " rows=%" PRIu64 " released=%d", hash_hex(hash, want), mode_name(w->mode), w->seed, w->batch,
		    window, kept, w->n_rows, plan->released);
		core__save_plan(c, plan);
	}
	if (w->n_rows > plan->wire.n_rows)
		plan->wire.n_rows = w->n_rows;
	if (w->label_ahead_rows > plan->ahead)
		plan->ahead = w->label_ahead_rows;
	plan->n_blocks = (plan->wire.n_rows - 1) / plan->kept + 1;
	plan->used_ms = now_ms;
	if (!plan->released && core__quarantine_over(c, plan, &note)) {
		core__refuse_note(c, p->id, EX_DATAERR, &note, "see saltctl cache stat --quarantine", 0);
		return NULL;
	}
	if (plan->released && p->role == WIRE_ROLE_TRAINER)
		plan->undecided_ms = now_ms + UNDECIDED_MS;
	p->plan = plan;
	plan->n_peers++;
	return plan;
}

/* Identifies a teacher by its key, host and name, without the process id at the end of a default name. */
static struct hash128
who_is(const char *key, const struct wire_hello *h)
{
	char text[KEY_NAME_MAX + 2 * WIRE_NAME_MAX + 2], pid[16];
	size_t name = strlen(h->name), n = (size_t)snprintf(pid, sizeof(pid), "-%" PRIu32, h->pid);

	if (name > n && strcmp(h->name + name - n, pid) == 0)
		name -= n;
	return hash_bytes(text, (size_t)snprintf(text, sizeof(text), "%s\n%s\n%.*s", key, h->host, (int)name, h->name));
}

/* Names are unquoted in log lines, so bytes that would end the word there become '_'. */
static void
make_word(char *text)
{
	for (; *text != '\0'; text++)
		if (*text <= ' ' || *text == 0x7f || *text == '"' || *text == '=' || *text == '\\')
			*text = '_';
}

static struct hash128
boot_of(const char *key, struct hash128 boot)
{
	struct { struct hash128 boot, key; } both = {boot, {0, 0}};

	if (key[0] == '\0')
		return boot;
	both.key = hash_bytes(key, strlen(key));
	return hash_bytes(&both, sizeof(both));
}

void
core__hello(struct core *c, uint64_t id, const char *key, const struct wire_hello *h, int64_t now_ms)
{
	struct core_peer *p, *old;
	struct core_plan *plan = NULL;
	struct core_message *m;
	struct wire_welcome *w;
	struct err_note note = {0};
	size_t n = 0;

	core__peer_drop(c, id);			/* HELLO again on the same connection: start afresh */
	if (h->protocol_version != WIRE_VERSION) {
		core__refuse(c, id, EX_PROTOCOL, "", 0, "protocol_version", "%d", "%" PRIu32, WIRE_VERSION,
		    h->protocol_version);
		return;
	}
	for (p = c->peers; p != NULL; p = p->next)
		n++;
	if (n >= CORE_PEERS_MAX) {
		core__refuse(c, id, EX_UNAVAILABLE, "", 5000, "hello", "at most %d peers", "one more",
		    CORE_PEERS_MAX);
		return;
	}
	/*
	 * The same process on a new connection: it keeps its leases, and the old connection no longer counts.
	 */
	if ((old = core__boot(c, boot_of(key, h->boot_id))) != NULL)
		core__peer_drop(c, old->id);
	if ((p = calloc(1, sizeof(*p))) == NULL) {
		core__refuse_memory(c, id);
		return;
	}
	p->id = id;
	p->boot = boot_of(key, h->boot_id);
	p->role = h->role;
	snprintf(p->name, sizeof(p->name), "%s", h->name);
	snprintf(p->host, sizeof(p->host), "%s", h->host);
	make_word(p->name);
	make_word(p->host);
	snprintf(p->status_endpoint, sizeof(p->status_endpoint), "%s", h->status_endpoint);
	p->pid = h->pid;
	p->max_message = h->max_message;
	p->heard_ms = p->busy_ms = p->hello_ms = now_ms;
	DL_PREPEND(c->peers, p);
	if (h->role == WIRE_ROLE_TEACHER) {
		uint64_t need = 4 * ((uint64_t)c->cfg.corpus.context + 1) + 1024;

		if (p->max_message < need) {
			core__refuse(c, id, EX_CONFIG, "", 0, "max_message",
			    "at least %" PRIu64 ", for a lease of one sequence", "%" PRIu32, need,
			    p->max_message);
			goto drop;
		}
		if ((p->known = core__known(c, who_is(key, h), h->name, h->host)) == NULL) {
			core__refuse_memory(c, id);
			goto drop;
		}
		if (core__teacher_away(c, p, now_ms) || !teacher_check(c, p, h))
			goto drop;
		core__boot_back(c, p->boot);
	} else {
		uint64_t need = c->cfg.record_max + 1024;

		if (h->role == WIRE_ROLE_TRAINER && p->max_message < need) {
			core__refuse(c, id, EX_CONFIG, "", 0, "max_message",
			    "at least %" PRIu64 ", for a row with one label record", "%" PRIu32, need,
			    p->max_message);
			goto drop;
		}
		if (wire_corpus_diff("corpus", &c->cfg.corpus, &h->corpus, &note) != 0 ||
		    wire_corpus_diff("heldout", &c->cfg.heldout, &h->heldout, &note) != 0) {
			core__refuse_note(
			    c, id, EX_CONFIG, &note, "the cache was made for a different corpus", 0);
			goto drop;
		}
		if (wire_label_set_diff("label_set", &c->cfg.label_set, &h->label_set, &note) != 0) {
			core__refuse_note(
			    c, id, EX_CONFIG, &note, "the cache was made for a different label set", 0);
			goto drop;
		}
		if (h->plan.present && (plan = plan_open(c, p, &h->plan, now_ms)) == NULL)
			goto drop;
	}
	crash_point("hello.welcome");
	m = core__send(c, id, WIRE_WELCOME);
	w = &m->msg.welcome;
	w->protocol_version = WIRE_VERSION;
	w->boot_id = c->cfg.boot_id;
	w->shard = c->cfg.shard;
	w->n_shards = c->cfg.n_shards;
	w->max_message = c->cfg.max_message;
	w->lease_ms = c->cfg.lease_ms;
	w->corpus = c->cfg.corpus;
	w->heldout = c->cfg.heldout;
	w->label_set = c->cfg.label_set;
	w->unigram = c->cfg.unigram;
	w->heldout_loss_nats = c->heldout_loss;
	if (plan == NULL || plan->wire.mode != WIRE_MODE_NONE)
		w->score_set = *scores_of(c, plan != NULL ? plan->wire.mode : WIRE_MODE_SALT_DS);
	if (plan != NULL) {
		w->plan_hash = (struct wire_id){true, plan->hash};
		w->rows_ready = core__rows_ready(plan);
		w->released = plan->released;
	}
	core__event(c, LOG_LEVEL_INFO, "peer.welcome", "peer=%" PRIu64 " role=%s name=%s host=%s pid=%" PRIu32, id, wire_role_name(p->role), p->name,
	    p->host, p->pid);
	return;
drop:
	core__peer_drop(c, id);
}
