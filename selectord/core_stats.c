/* SPDX-License-Identifier: Apache-2.0 */
/* The core's statistics: counts, plans, peers. */
#include "selectord/core_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct core_plan *
newest(const struct core *c)
{
	return c->plans != NULL ? c->plans->prev : NULL;	/* in a list of utlist.h, prev of the first is
								   the last */
}

static const struct core_plan *
older(const struct core *c, const struct core_plan *plan)
{
	return plan != c->plans ? plan->prev : NULL;
}

/* Describes a sequence on which teachers failed, but not enough of them for quarantine. */
static void
failing(const struct core *c, char *out, size_t size)
{
	size_t n = 0;

	for (const struct core_seq *s = c->seqs; s != NULL; s = s->hh.next)
		if (!s->quarantined && s->n_failed > 0 && s->pending == 0 && n++ == 0)
			snprintf(out, size,
			    "sequence %" PRIu64 " failed on %" PRIu32 " teachers; failures on %" PRIu32
			    " different teachers put it into quarantine (selector.quarantine_teachers)",
			    s->seq, s->n_failed, c->cfg.quarantine_teachers);
}

void
core_stats(const struct core *c, struct core_stats *out)
{
	bool need_score = false, score = false, label = false;
	char hex[HASH_HEX_BYTES];

	*out = c->stats;
	for (const struct core_peer *p = c->peers; p != NULL; p = p->next) {
		out->n_peers++;
		out->n_teachers += p->role == WIRE_ROLE_TEACHER;
		out->n_trainers += p->role == WIRE_ROLE_TRAINER;
		score |= p->can_score;
		label |= p->can_label;
	}
	for (const struct core_lease *l = c->leases; l != NULL; l = l->hh.next)
		if (!l->expired) {
			out->n_leases++;
			out->n_seqs_leased += l->n_open;
		}
	for (const struct core_wait *w = c->waits; w != NULL; w = w->next)
		out->n_waiting++;
	for (const struct core_plan *p = newest(c); p != NULL; p = older(c, p)) {
		if (out->n_plans++ == 0) {
			out->rows_ready = core__rows_ready(p);
			out->rows_asked = p->asked;
			out->rows_total = p->wire.n_rows;
		}
		out->n_plans_released += p->released;
		out->n_plans_wanted += core__plan_active(p);
		out->n_blocks_active += p->n_active;
		for (const struct core_block *b = p->blocks; b != NULL; b = b->next)
			need_score |= b->state == BLOCK_SCORE;
	}
	out->n_ops_pending = c->n_pending;
	out->heldout_loss_nats = c->heldout_loss;
	out->no_room = !c->room;
	out->starved[0] = out->failing[0] = '\0';
	failing(c, out->failing, sizeof(out->failing));
	if (out->n_blocks_active > 0 && need_score && !score)
		snprintf(out->starved, sizeof(out->starved), "no teacher that scores with model %s", hash_hex(c->cfg.score_set.scorer.hash, hex));
	else if (out->n_blocks_active > 0 && !label)
		snprintf(out->starved, sizeof(out->starved), "no teacher that labels with model %s", hash_hex(c->cfg.label_set.teacher.hash, hex));
}

size_t
core_plan_stats(const struct core *c, struct core_plan_stats *out, size_t max)
{
	size_t n = 0;

	for (const struct core_plan *p = newest(c); p != NULL; p = older(c, p), n++)
		if (n < max)
			out[n] = (struct core_plan_stats){p->hash, p->wire.n_rows, core__rows_ready(p),
			    p->asked, p->n_active, p->released, p->scores};
	return n;
}

size_t
core_peers(const struct core *c, struct wire_peer *out, size_t max, int64_t now_ms)
{
	size_t n = 0;

	for (const struct core_peer *p = c->peers; p != NULL; p = p->next, n++) {
		if (n >= max)
			continue;
		memcpy(out[n].name, p->name, sizeof(out[n].name));
		memcpy(out[n].host, p->host, sizeof(out[n].host));
		memcpy(out[n].status_endpoint, p->status_endpoint, sizeof(out[n].status_endpoint));
		out[n].role = p->role;
		out[n].pid = p->pid;
		out[n].age_s = (double)(now_ms - p->heard_ms) / 1000;
	}
	return n;
}
