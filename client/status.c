/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client_internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock/clock.h"
#include "base/log/log.h"
#include "fabric/config/cli.h"
#include "fabric/wire/status_answer.h"

/* ---- our own status socket ---- */

/* In the status socket's thread. */
static void
answer_request(void *arg, const uint8_t *body, size_t len, uint8_t **answer, size_t *answer_len)
{
	struct salt *s = arg;
	struct status_snapshot *snap;

	if (log_answer(body, len, (char **)answer, answer_len) || (snap = malloc(sizeof(*snap))) == NULL)
		return;
	status_snapshot(s->status, clock_now_ms(), snap);
	if (snap->last_error[0] == '\0')
		log_last_error(snap->last_error, sizeof(snap->last_error));
	wire_status_answer(body, len, snap, NULL, 0, answer, answer_len);
	free(snap);
}

static void
warn(const char *event, const struct err_note *note, int rc)
{
	char text[1400], quoted[1600];

	log_warn(event, "why=%s", log_quote(err_note_str(note, rc, text, sizeof(text)), quoted, sizeof(quoted)));
}

/*
 * The name of the daemon with this role, so that tools show a teacher or trainer of this library like the
 * daemon.
 */
static const char *
role_name(const struct salt *s)
{
	return s->role == SALT_TRAINER ? "trainerd" : "teacherd";
}

int
client__status_new(struct salt *s, const char *name, struct err_note *note)
{
	s->status = status_new(role_name(s), name, cli_version, clock_now_ms());
	return s->status != NULL ? 0 : err_note_set(note, ENOMEM, "status");
}

void
client__status_start(struct salt *s)
{
	const char *dir = s->config->run.dir;
	struct err_note note = {.name = ""};
	struct status_announce a;
	int rc;

	if ((rc = bus_status_new(&s->socket, s->bus, s->config->status.bind, answer_request, s, &note)) != 0) {
		warn("status.none", &note, rc);
		return;
	}
	status_announce_fill(&a, role_name(s), s->hello.name, bus_status_endpoint(s->socket), NULL);
	if (dir[0] != '\0' && (rc = status_announce_write(dir, &a, &note)) != 0)
		warn("announce", &note, rc);
}

void
client__status_stop(struct salt *s)
{
	if (s->socket != NULL && s->config->run.dir[0] != '\0')
		status_announce_remove(s->config->run.dir, s->hello.name);
	bus_status_destroy(&s->socket);
}

/* ---- plan and view ---- */

int
salt_plan(struct salt *s, struct salt_plan *out, struct salt_error *e)
{
	struct salt_plan p = {.size = out->size};
	const struct config *cfg;
	int rc;

	if ((rc = client__enter(s, 0, e)) != 0)
		return rc;
	cfg = s->config;
	p.steps = cfg->trainer.steps;
	p.batch = s->batch;
	p.context = s->context;
	p.vocab = s->vocab;
	p.n_windows = s->n_windows;
	p.seed = cfg->run.seed;
	p.label_kind = (int)cfg->labels.kind;
	p.n = session_label_set(cfg).n;
	p.tau = cfg->labels.tau;
	p.kd_weight = cfg->phase_one.weight;
	p.residual = (int)cfg->phase_one.residual;
	p.margin_nats = s->phase.margin_nats;
	p.handover_steps = s->phase.handover == PHASE_HANDOVER_STEP ? 0 : s->phase.handover_steps;
	p.checkpoint_every = cfg->trainer.checkpoint_every;
	p.eval_every = cfg->trainer.eval_every;
	p.run_dir = cfg->run.dir;
	p.mode = config_mode_name(cfg);
	p.corpus_train = cfg->corpus.train;
	p.corpus_heldout = cfg->corpus.heldout;
	p.tokenizer = s->tokenizer_hex;
	p.compute_class = cfg->teacher.compute_class;
	p.corpus_dtype = cfg->corpus.dtype == CORPUS_DTYPE_NONE ? "" : corpus_dtype_name(cfg->corpus.dtype);
	p.eval_sequences = cfg->trainer.eval_sequences;
	p.token_weight = (int)cfg->phase_one.token_weight;
	p.isolate_documents = cfg->corpus.isolate_documents;
	p.document_end = s->train != NULL ? corpus_document_end(s->train) : -1;
	pthread_mutex_lock(&s->lock);
	p.switch_step = s->phase.switch_step;
	pthread_mutex_unlock(&s->lock);
	memcpy(out, &p, out->size < sizeof(p) ? out->size : sizeof(p));
	return SALT_OK;
}

void
client__waiting(const struct salt *s, char *buf, size_t size)
{
	if (s->part != NULL)
		s->part->waiting(s, buf, size);
	if (s->part != NULL && buf[0] == '\0')
		return;
	if (s->failure.code != 0) {
		snprintf(buf, size, "%.250s", s->failure.text);
		return;
	}
	for (size_t i = 0; i < s->n_shards; i++)
		if (!s->shards[i].welcomed && !s->shards[i].failed) {
			snprintf(buf, size, "connecting to %s", s->config->selector.endpoints.item[i]);
			return;
		}
}

int
salt_view(struct salt *s, struct salt_view *out, struct salt_error *e)
{
	struct salt_view v = {.size = out->size};
	int rc;

	if ((rc = client__enter(s, 0, e)) != 0)
		return rc;
	v.shards = (uint32_t)s->n_shards;
	if (s->socket != NULL)
		snprintf(v.status_endpoint, sizeof(v.status_endpoint), "%s", bus_status_endpoint(s->socket));
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->n_shards; i++)
		v.shards_welcomed += s->shards[i].welcomed;
	v.rows_ready = s->rows_ready;
	v.teacher_nats = s->teacher_nats;
	if (s->role == SALT_TRAINER)
		client__rows_view(s, &v);
	else if (s->role == SALT_TEACHER)
		client__leases_view(s, &v);
	client__waiting(s, v.waiting, sizeof(v.waiting));
	pthread_mutex_unlock(&s->lock);
	memcpy(out, &v, out->size < sizeof(v) ? out->size : sizeof(v));
	return SALT_OK;
}
