#include "fabric/wire/wire_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Where a failure is told: message, then prefix (or "") and field. */
struct where {
	const char *message, *prefix;
	struct err_note *note;
};

static int __attribute__((format(printf, 5, 6)))
bad(const struct where *w, int rc, const char *field, const char *expected, const char *found_fmt, ...)
{
	char found[96];
	va_list ap;

	va_start(ap, found_fmt);
	vsnprintf(found, sizeof(found), found_fmt, ap);
	va_end(ap);
	err_note_set(w->note, rc, "%s", w->message);
	err_note_place(w->note, "%s%s", w->prefix, field);
	err_note_expected(w->note, "%s", expected);
	err_note_found(w->note, "%s", found);
	return rc;
}

static int
range(const struct where *w, const char *field, uint64_t v, uint64_t lo, uint64_t hi)
{
	char expected[64];

	if (v >= lo && v <= hi)
		return 0;
	if (hi == UINT64_MAX)
		snprintf(expected, sizeof(expected), "at least %" PRIu64, lo);
	else
		snprintf(expected, sizeof(expected), "%" PRIu64 " .. %" PRIu64, lo, hi);
	return bad(w, v == 0 && lo > 0 ? ERR_FORMAT : ERR_RANGE, field, expected, "%" PRIu64, v);
}

/* Accept test: NaN falls through to the failure. */
static int
number(const struct where *w, const char *field, double v, double lo, double hi)
{
	char expected[64];

	if (v >= lo && v <= hi)
		return 0;
	snprintf(expected, sizeof(expected), "%g .. %g", lo, hi);
	return bad(w, ERR_RANGE, field, expected, "%g", v);
}

static int
hash_needed(const struct where *w, const char *field, struct hash128 h)
{
	if ((h.hi | h.lo) != 0)
		return 0;
	return bad(w, ERR_FORMAT, field, "16 bytes", "nothing");
}

static int
id_needed(const struct where *w, const char *field, const struct wire_id *id)
{
	return id->known ? 0 : bad(w, ERR_FORMAT, field, "16 bytes", "nothing");
}

static int
flag_known(const struct where *w, const char *field, unsigned v, unsigned lo, unsigned hi)
{
	if (v >= lo && v <= hi)
		return 0;
	return bad(w, ERR_FORMAT, field, "a known value", "%u", v);
}

/* Ended within its array; not empty when needed. */
static int
text(const struct where *w, const char *field, const char *s, size_t size, bool needed)
{
	if (memchr(s, 0, size) == NULL)
		return bad(w, ERR_RANGE, field, "a shorter text", "%zu bytes and more", size);
	if (needed && s[0] == 0)
		return bad(w, ERR_FORMAT, field, "a text", "nothing");
	return 0;
}

static int
corpus(const struct where *outer, const char *prefix, const struct wire_corpus *c, bool needed)
{
	struct where w = {outer->message, prefix, outer->note};
	int rc;

	if (!c->present)
		return needed ? bad(&w, ERR_FORMAT, "", "a corpus", "nothing") : 0;
	if ((rc = range(&w, ".context", c->context, 1, WIRE_CONTEXT_MAX)) != 0)
		return rc;
	/* seq keeps the corpus number in its top 16 bits */
	if ((rc = range(&w, ".n_windows", c->n_windows, 0, (UINT64_C(1) << 48) - 1)) != 0)
		return rc;
	return range(&w, ".vocab_size", c->vocab_size, 1, WIRE_VOCAB_MAX);
}

static int
model(const struct where *outer, const struct wire_model *m)
{
	struct where w = {outer->message, "models", outer->note};
	int rc;

	if ((rc = hash_needed(&w, ".fingerprint", m->fingerprint)) != 0)
		return rc;
	if ((rc = text(&w, ".compute_class", m->compute_class, sizeof(m->compute_class), true)) != 0)
		return rc;
	if (!m->serves_score && !m->serves_label)
		return bad(&w, ERR_FORMAT, ".serves_label", "score, label or both", "neither");
	if ((rc = range(&w, ".vocab_size", m->vocab_size, 1, WIRE_VOCAB_MAX)) != 0)
		return rc;
	return range(&w, ".max_context", m->max_context, 1, UINT32_MAX);
}

static int
label_set(const struct where *outer, const struct wire_label_set *s, bool needed, bool complete)
{
	struct where w = {outer->message, "label_set", outer->note};
	int rc;

	if (!s->present)
		return needed ? bad(&w, ERR_FORMAT, "", "a label set", "nothing") : 0;
	if ((rc = flag_known(&w, ".kind", s->kind, complete ? WIRE_LABEL_SAMPLED : WIRE_LABEL_NONE, WIRE_LABEL_DENSE)) != 0)
		return rc;
	if ((s->kind == WIRE_LABEL_SAMPLED || s->kind == WIRE_LABEL_TOPK) && (rc = range(&w, ".n", s->n, 1, 1u << 20)) != 0)
		return rc;
	if (s->kind == WIRE_LABEL_DENSE && s->n != 0)
		return bad(&w, ERR_RANGE, ".n", "0 for dense", "%" PRIu32, s->n);
	if ((rc = text(&w, ".compute_class", s->compute_class, sizeof(s->compute_class), complete)) != 0)
		return rc;
	if ((complete || s->tau != 0) && (rc = number(&w, ".tau", (double)s->tau, 1e-6, 1e6)) != 0)
		return rc;
	if (!complete)
		return 0;
	if ((rc = id_needed(&w, ".hash", &s->hash)) != 0 || (rc = id_needed(&w, ".teacher", &s->teacher)) != 0)
		return rc;
	return range(&w, ".version", s->version, 1, UINT32_MAX);
}

static int
score_set(const struct where *outer, const struct wire_score_set *s)
{
	struct where w = {outer->message, "score_set", outer->note};
	int rc;

	if (!s->present)
		return 0;
	if ((rc = id_needed(&w, ".hash", &s->hash)) != 0 || (rc = id_needed(&w, ".scorer", &s->scorer)) != 0)
		return rc;
	if ((rc = text(&w, ".compute_class", s->compute_class, sizeof(s->compute_class), true)) != 0)
		return rc;
	return range(&w, ".version", s->version, 1, UINT32_MAX);
}

static int
plan(const struct where *outer, const struct wire_plan *p)
{
	struct where w = {outer->message, "plan", outer->note};
	int rc;

	if (!p->present)
		return 0;
	if ((rc = flag_known(&w, ".mode", p->mode, WIRE_MODE_NONE, WIRE_MODE_SALT_DS)) != 0)
		return rc;
	if ((rc = range(&w, ".batch", p->batch, 1, UINT32_MAX)) != 0)
		return rc;
	if (p->pool == 0 && (rc = range(&w, ".window", p->window, 1, (UINT64_C(1) << 48) - 1)) != 0)
		return rc;
	if ((rc = range(&w, ".pool", p->pool, 0, (UINT64_C(1) << 48) - 1)) != 0)
		return rc;
	if (p->mode == WIRE_MODE_SALT_DS) {
		if ((rc = range(&w, ".k", p->k, 1, UINT32_MAX)) != 0)
			return rc;
		if (!(p->keep > 0) || !(p->keep <= 1))
			return bad(&w, ERR_RANGE, ".keep", "over 0, at most 1", "%g", p->keep);
	}
	return range(&w, ".n_rows", p->n_rows, 1, UINT64_MAX);
}

static int
heldout_loss(const struct where *w, double v)
{
	return isnan(v) ? 0 : number(w, "heldout_loss_nats", v, 0, 1e6);
}

static int
hello(const struct where *w, const struct wire_hello *h)
{
	bool teacher = h->role == WIRE_ROLE_TEACHER;
	int rc;

	if ((rc = flag_known(w, "role", h->role, WIRE_ROLE_TEACHER, WIRE_ROLE_CLIENT)) != 0
	    || (rc = hash_needed(w, "boot_id", h->boot_id)) != 0
	    || (rc = text(w, "name", h->name, sizeof(h->name), true)) != 0
	    || (rc = text(w, "host", h->host, sizeof(h->host), false)) != 0
	    || (rc = text(w, "status_endpoint", h->status_endpoint, sizeof(h->status_endpoint), false)) != 0
	    || (rc = range(w, "max_message", h->max_message, 1024, UINT32_MAX)) != 0
	    || (rc = range(w, "models", h->n_models, teacher ? 1 : 0, teacher ? WIRE_MODELS_MAX : 0)) != 0)
		return rc;
	for (size_t i = 0; i < h->n_models; i++)
		if ((rc = model(w, &h->models[i])) != 0)
			return rc;
	if (teacher && (h->corpus.present || h->heldout.present || h->plan.present))
		return bad(w, ERR_FORMAT, h->corpus.present ? "corpus" : h->heldout.present ? "heldout" : "plan", "nothing from a teacher", "one");
	if ((rc = corpus(w, "corpus", &h->corpus, !teacher)) != 0
	    || (rc = corpus(w, "heldout", &h->heldout, false)) != 0
	    || (rc = plan(w, &h->plan)) != 0)
		return rc;
	return label_set(w, &h->label_set, false, false);
}

static int
welcome(const struct where *w, const struct wire_welcome *m)
{
	int rc;

	if ((rc = hash_needed(w, "boot_id", m->boot_id)) != 0
	    || (rc = range(w, "n_shards", m->n_shards, 1, 65536)) != 0
	    || (rc = range(w, "shard", m->shard, 0, m->n_shards - 1)) != 0
	    || (rc = range(w, "max_message", m->max_message, 1024, UINT32_MAX)) != 0
	    || (rc = range(w, "lease_ms", m->lease_ms, 1, UINT32_MAX)) != 0
	    || (rc = corpus(w, "corpus", &m->corpus, false)) != 0
	    || (rc = corpus(w, "heldout", &m->heldout, false)) != 0
	    || (rc = label_set(w, &m->label_set, false, true)) != 0
	    || (rc = score_set(w, &m->score_set)) != 0)
		return rc;
	if (m->unigram.len > WIRE_VOCAB_MAX || (m->corpus.present && m->unigram.len != 0 && m->unigram.len != m->corpus.vocab_size))
		return bad(w, ERR_FORMAT, "unigram", "a byte an id of the corpus's vocabulary", "%zu", m->unigram.len);
	return heldout_loss(w, m->heldout_loss_nats);
}

static int
refuse(const struct where *w, const struct wire_refuse *m)
{
	int rc;

	if (m->code < 64 || m->code > 78)
		return bad(w, m->code == 0 ? ERR_FORMAT : ERR_RANGE, "code", "64 .. 78", "%" PRId32, m->code);
	if ((rc = text(w, "field", m->field, sizeof(m->field), false)) != 0
	    || (rc = text(w, "expected", m->expected, sizeof(m->expected), false)) != 0
	    || (rc = text(w, "found", m->found, sizeof(m->found), false)) != 0)
		return rc;
	return text(w, "text", m->text, sizeof(m->text), false);
}

static int
lease(const struct where *w, const struct wire_lease *m)
{
	size_t n_tokens;
	int rc;

	if ((rc = range(w, "lease_id", m->lease_id, 1, UINT64_MAX)) != 0
	    || (rc = hash_needed(w, "model", m->model)) != 0
	    || (rc = range(w, "context", m->context, 1, WIRE_CONTEXT_MAX)) != 0
	    || (rc = range(w, "n_valid", m->n_valid, 1, WIRE_VOCAB_MAX)) != 0
	    || (rc = range(w, "lease_ms", m->lease_ms, 1, UINT32_MAX)) != 0
	    || (rc = range(w, "seqs", m->n_seqs, 1, WIRE_SEQS_MAX)) != 0
	    || (rc = label_set(w, &m->label_set, m->want_label, true)) != 0)
		return rc;
	if (!m->want_score && !m->want_label)
		return bad(w, ERR_FORMAT, "want_label", "score, label or both", "neither");
	if (!m->want_label && m->label_set.present)
		return bad(w, ERR_FORMAT, "label_set", "nothing without want_label", "one");
	if (m->tokens == NULL || m->seqs == NULL)
		return bad(w, ERR_FORMAT, m->tokens == NULL ? "tokens" : "seqs", "an array", "nothing");
	n_tokens = m->n_seqs * ((size_t)m->context + 1);	/* both capped: fits */
	for (size_t i = 0; i < n_tokens; i++)
		if (m->tokens[i] < 0 || (uint32_t)m->tokens[i] >= m->n_valid)
			return bad(w, ERR_RANGE, "tokens", "ids from 0 to n_valid - 1", "%" PRId32 " at %zu", m->tokens[i], i);
	return 0;
}

static int
result(const struct where *w, const struct wire_result *m)
{
	int rc;

	if ((rc = range(w, "lease_id", m->lease_id, 1, UINT64_MAX)) != 0
	    || (rc = range(w, "rows", m->n_rows, 1, WIRE_ROWS_MAX)) != 0)
		return rc;
	for (size_t i = 0; i < m->n_rows; i++) {
		const struct wire_result_row *r = &m->rows[i];
		bool data = r->scores.len != 0 || r->label.len != 0;

		if ((rc = text(w, "rows.error", r->error, sizeof(r->error), false)) != 0)
			return rc;
		if (data == (r->error[0] != 0))
			return bad(w, ERR_FORMAT, "rows", "scores or label, or an error", "%s in row %zu", data ? "both" : "neither", i);
	}
	return 0;
}

static int
rows(const struct where *w, const struct wire_rows *m)
{
	int rc;

	if ((rc = hash_needed(w, "plan_hash", m->plan_hash)) != 0
	    || (rc = range(w, "rows", m->n_rows, 1, WIRE_ROWS_MAX)) != 0
	    || (rc = range(w, "first_row", m->first_row, 0, UINT64_MAX - m->n_rows)) != 0
	    || (rc = heldout_loss(w, m->heldout_loss_nats)) != 0)
		return rc;
	for (size_t i = 0; i < m->n_rows; i++)
		if (m->rows[i].quarantined == (m->rows[i].label.len != 0))
			return bad(w, ERR_FORMAT, "rows", "a label, or quarantined", "%s in row %zu", m->rows[i].quarantined ? "both" : "neither", i);
	return 0;
}

static int
rows_request(const struct where *w, const struct wire_rows_request *m)
{
	int rc;

	if ((rc = hash_needed(w, "plan_hash", m->plan_hash)) != 0
	    || (rc = range(w, "count", m->count, 1, UINT32_MAX)) != 0)
		return rc;
	return range(w, "first_row", m->first_row, 0, UINT64_MAX - m->count);
}

int
wire__check(const struct wire_message *msg, struct err_note *note)
{
	struct where w = {wire_type_name(msg->type), "", note};
	int rc;

	switch (msg->type) {
	case WIRE_HELLO:
		return hello(&w, &msg->hello);
	case WIRE_WELCOME:
		return welcome(&w, &msg->welcome);
	case WIRE_REFUSE:
		return refuse(&w, &msg->refuse);
	case WIRE_LEASE_REQUEST:
		return range(&w, "credit", msg->lease_request.credit, 1, UINT32_MAX);
	case WIRE_LEASE:
		return lease(&w, &msg->lease);
	case WIRE_LEASE_RENEW:
		return range(&w, "lease_id", msg->lease_renew.lease_id, 1, UINT64_MAX);
	case WIRE_LEASE_RETURN:
		return range(&w, "lease_id", msg->lease_return.lease_id, 1, UINT64_MAX);
	case WIRE_RESULT:
		return result(&w, &msg->result);
	case WIRE_DONE:
		if ((rc = range(&w, "lease_id", msg->done.lease_id, 1, UINT64_MAX)) != 0)
			return rc;
		return range(&w, "seqs", msg->done.n_seqs, 1, WIRE_SEQS_MAX);
	case WIRE_RELEASE_TEACHER:
		return text(&w, "reason", msg->release_teacher.reason, sizeof(msg->release_teacher.reason), false);
	case WIRE_ROWS_REQUEST:
		return rows_request(&w, &msg->rows_request);
	case WIRE_ROWS:
		return rows(&w, &msg->rows);
	case WIRE_CHECKPOINTED:
		return hash_needed(&w, "plan_hash", msg->checkpointed.plan_hash);
	case WIRE_RELEASE:
		return hash_needed(&w, "plan_hash", msg->release.plan_hash);
	case WIRE_BYE:
		return text(&w, "reason", msg->bye.reason, sizeof(msg->bye.reason), false);
	case WIRE_ACK:
	case WIRE_PING:
	case WIRE_PONG:
	case WIRE_DROP_LABELS:
	case WIRE_DROPPED:
		return 0;
	case WIRE_NONE:
	case WIRE_TYPES:
		break;
	}
	return bad(&w, ERR_FORMAT, "type", "a known message", "%d", (int)msg->type);
}
