/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/wire/wire_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TAU_MIN 1e-6

static int __attribute__((format(printf, 5, 6)))
bad(const struct wire__where *w, int rc, const char *field, const char *expected, const char *found_fmt, ...)
{
	char found[96];
	va_list ap;

	va_start(ap, found_fmt);
	vsnprintf(found, sizeof(found), found_fmt, ap);
	va_end(ap);
	return err_expect_at(w->note, rc, "%s", "%s%s%s", "%s", "%s", w->message, w->part,
	    w->part[0] != 0 ? "." : "", field, expected, found);
}

static int
range(const struct wire__where *w, const char *field, uint64_t v, uint64_t lo, uint64_t hi)
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

/* NaN fails the first comparison, and so is rejected. */
static int
number(const struct wire__where *w, const char *field, double v, double min, double max)
{
	char expected[64];

	if (v >= min && v <= max)
		return 0;
	snprintf(expected, sizeof(expected), "%g .. %g", min, max);
	return bad(w, ERR_RANGE, field, expected, "%g", v);
}

static int
id_needed(const struct wire__where *w, const char *field, const struct wire_id *id)
{
	return id->known ? 0 : bad(w, ERR_FORMAT, field, "16 bytes", "nothing");
}

/* Checks that a text ends within its array, and is not empty when needed. */
static int
text(const struct wire__where *w, const char *field, const char *s, size_t size, bool needed)
{
	if (memchr(s, 0, size) == NULL)
		return bad(w, ERR_RANGE, field, "a shorter text", "%zu bytes and more", size);
	return needed && s[0] == 0 ? bad(w, ERR_FORMAT, field, "a text", "nothing") : 0;
}

static int fields(const struct wire__where *w, const struct wire__table *t, const void *s);

static int
items(const struct wire__where *w, const struct wire__field *f, const char *list, size_t n)
{
	const struct wire__table *t = f->table();
	int rc;

	if ((rc = range(w, f->name, n, f->lo, f->hi)) != 0)
		return rc;
	for (size_t i = 0; i < n; i++)
		if ((rc = fields(&(struct wire__where){w->message, f->name, w->note}, t, list + i * t->size)) != 0)
			return rc;
	return 0;
}

/* Checks one field against its limits in wire_fields.h. */
static int
field(const struct wire__where *w, const struct wire__field *f, const void *s)
{
	const void *at = (const char *)s + f->at, *p;
	const struct hash128 *h = at;
	size_t n = *(const size_t *)(const void *)((const char *)s + f->n_at);
	int32_t i;
	float v;

	switch (f->kind) {
	case KIND_U32:
		return range(w, f->name, *(const uint32_t *)at, f->lo, f->hi);
	case KIND_U64:
		return range(w, f->name, *(const uint64_t *)at, f->lo, f->hi);
	case KIND_I32:
		i = *(const int32_t *)at;
		return i < 0 ? number(w, f->name, i, (double)f->lo, (double)f->hi) :
			       range(w, f->name, (uint64_t)i, f->lo, f->hi);
	case KIND_F32:
		memcpy(&v, at, sizeof(v));
		return number(w, f->name, (double)v, f->min, f->max);
	case KIND_F64:
		return number(w, f->name, *(const double *)at, f->min, f->max);
	case KIND_LOSS:
		return isnan(*(const double *)at) ? 0 : number(w, f->name, *(const double *)at, f->min, f->max);
	case KIND_ENUM:
		if (*(const unsigned *)at < f->lo || *(const unsigned *)at > f->hi)
			return bad(w, ERR_FORMAT, f->name, "a known value", "%u", *(const unsigned *)at);
		return 0;
	case KIND_TEXT:
		return text(w, f->name, at, f->hi, f->needed);
	case KIND_HASH:
		return (h->hi | h->lo) != 0 ? 0 : bad(w, ERR_FORMAT, f->name, "16 bytes", "nothing");
	case KIND_ID:
		return f->needed ? id_needed(w, f->name, at) : 0;
	case KIND_PART:
		if (!*(const bool *)at)		/* not present */
			return 0;
		return fields(&(struct wire__where){w->message, f->name, w->note}, f->table(), at);
	case KIND_ITEMS:
		return items(w, f, at, n);
	case KIND_ROWS:
		memcpy(&p, at, sizeof(p));
		return items(w, f, p, n);
	case KIND_SEQS:
		memcpy(&p, at, sizeof(p));
		if (n > 0 && p == NULL)
			return bad(w, ERR_FORMAT, f->name, "an array", "nothing");
		return range(w, f->name, n, f->lo, f->hi);
	case KIND_BOOL:
	case KIND_VERSION:
	case KIND_BYTES:
	case KIND_TOKENS:
		break;
	}
	return 0;
}

static int
fields(const struct wire__where *w, const struct wire__table *t, const void *s)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < t->n_fields; i++)
		rc = field(w, &t->fields[i], s);
	return rc;
}

/*
 * Rules that involve more than one field
 * ------------------------------------------------------------------------------------------
 */

static int
label_set(const struct wire__where *outer, const struct wire_label_set *s, bool complete)
{
	struct wire__where w = {outer->message, "label_set", outer->note};
	int rc;

	if (!s->present)
		return 0;
	if (complete && s->kind == LABELS_KIND_NONE)
		return bad(&w, ERR_FORMAT, "kind", "a known value", "0");
	if ((s->kind == LABELS_KIND_SAMPLED || s->kind == LABELS_KIND_TOPK) && s->n == 0)
		return bad(&w, ERR_FORMAT, "n", "at least 1", "0");
	if (s->kind == LABELS_KIND_DENSE && s->n != 0)
		return bad(&w, ERR_RANGE, "n", "0 for dense", "%" PRIu32, s->n);
	if ((complete || s->tau != 0) && (rc = number(&w, "tau", (double)s->tau, TAU_MIN, 1e6)) != 0)
		return rc;
	if (!complete)
		return 0;
	if ((rc = id_needed(&w, "hash", &s->hash)) != 0 || (rc = id_needed(&w, "teacher", &s->teacher)) != 0
	    || (rc = text(&w, "compute_class", s->compute_class, sizeof(s->compute_class), true)) != 0)
		return rc;
	return range(&w, "version", s->version, 1, UINT32_MAX);
}

static int
plan(const struct wire__where *outer, const struct wire_plan *p)
{
	struct wire__where w = {outer->message, "plan", outer->note};
	int rc;

	if (!p->present)
		return 0;
	if (p->pool == 0 && (rc = range(&w, "window", p->window, 1, WIRE_WINDOWS_MAX)) != 0)
		return rc;
	if (p->mode == WIRE_MODE_NONE)
		return 0;
	if (!(p->keep > 0))
		return bad(&w, ERR_RANGE, "keep", "over 0, at most 1", "%g", p->keep);
	return p->mode == WIRE_MODE_FILE ? 0 : range(&w, "k", p->k, 1, UINT32_MAX);
}

/* Checked before the models themselves, because a trainer has none. */
static int
n_models(const struct wire__where *w, const struct wire_hello *h)
{
	bool teacher = h->role == WIRE_ROLE_TEACHER;

	if (h->role < WIRE_ROLE_TEACHER || h->role > WIRE_ROLE_CLIENT)
		return 0;
	return range(w, "models", h->n_models, teacher ? 1 : 0, teacher ? WIRE_MODELS_MAX : 0);
}

static int
hello(const struct wire__where *w, const struct wire_hello *h)
{
	bool teacher = h->role == WIRE_ROLE_TEACHER;
	int rc;

	for (size_t i = 0; i < h->n_models; i++)
		if (!h->models[i].serves_score && !h->models[i].serves_label)
			return bad(w, ERR_FORMAT, "models.serves_label", "score, label or both", "neither");
	for (size_t i = 0; teacher && i < 3; i++)
		if ((const bool[]){h->corpus.present, h->heldout.present, h->plan.present}[i])
			return bad(w, ERR_FORMAT, (const char *[]){"corpus", "heldout", "plan"}[i],
			    "none from a teacher", "one");
	if (!teacher && !h->corpus.present)
		return bad(w, ERR_FORMAT, "corpus", "a corpus", "nothing");
	if ((rc = plan(w, &h->plan)) != 0)
		return rc;
	return label_set(w, &h->label_set, false);
}

static int
welcome(const struct wire__where *w, const struct wire_welcome *m)
{
	int rc;

	if ((rc = range(w, "shard", m->shard, 0, m->n_shards - 1)) != 0 ||
	    (rc = label_set(w, &m->label_set, true)) != 0)
		return rc;
	if (m->unigram.len > WIRE_VOCAB_MAX || (m->corpus.present && m->unigram.len != 0 && m->unigram.len != m->corpus.vocab_size))
		return bad(w, ERR_FORMAT, "unigram", "one byte for each id of the corpus's vocabulary", "%zu",
		    m->unigram.len);
	return 0;
}

static int
lease(const struct wire__where *w, const struct wire_lease *m)
{
	size_t n_tokens;
	int rc;

	if (!m->want_score && !m->want_label)
		return bad(w, ERR_FORMAT, "want_label", "score, label or both", "neither");
	if (m->want_label != m->label_set.present)
		return bad(w, ERR_FORMAT, "label_set",
		    m->want_label ? "a label set" : "none without want_label",
		    m->want_label ? "none" : "one");
	if ((rc = label_set(w, &m->label_set, true)) != 0)
		return rc;
	if (m->tokens == NULL)
		return bad(w, ERR_FORMAT, "tokens", "an array", "nothing");
	n_tokens = m->n_seqs * ((size_t)m->context + 1);	/* both are limited: fits */
	for (size_t i = 0; i < n_tokens; i++)
		if (m->tokens[i] < 0 || (uint32_t)m->tokens[i] >= m->n_valid)
			return bad(w, ERR_RANGE, "tokens", "ids from 0 to n_valid - 1", "%" PRId32 " at %zu", m->tokens[i], i);
	return 0;
}

static int
result(const struct wire__where *w, const struct wire_result *m)
{
	for (size_t i = 0; i < m->n_rows; i++) {
		const struct wire_result_row *r = &m->rows[i];
		bool data = r->scores.len != 0 || r->label.len != 0;

		if (data == (r->error[0] != 0))
			return bad(w, ERR_FORMAT, "rows", "scores or label, or an error", "%s in row %zu", data ? "both" : "neither", i);
	}
	return 0;
}

static int
rows(const struct wire__where *w, const struct wire_rows *m)
{
	for (size_t i = 0; i < m->n_rows; i++)
		if (m->rows[i].quarantined == (m->rows[i].label.len != 0))
			return bad(w, ERR_FORMAT, "rows", "a label, or quarantined", "%s in row %zu",
			    m->rows[i].quarantined ? "both" : "neither", i);
	return range(w, "first_row", m->first_row, 0, UINT64_MAX - m->n_rows);
}

int
wire__check(const struct wire_message *msg, struct err_note *note)
{
	const struct wire__table *t = wire__table(msg->type);
	struct wire__where w = {wire_type_name(msg->type), "", note};
	int rc;

	if (t == NULL)
		return bad(&w, ERR_FORMAT, "type", "a known message", "%d", (int)msg->type);
	if (msg->type == WIRE_HELLO && (rc = n_models(&w, &msg->hello)) != 0)
		return rc;
	if ((rc = fields(&w, t, &msg->hello)) != 0)	/* a union: every message starts there */
		return rc;
	switch (msg->type) {
	case WIRE_HELLO:
		return hello(&w, &msg->hello);
	case WIRE_WELCOME:
		return welcome(&w, &msg->welcome);
	case WIRE_LEASE:
		return lease(&w, &msg->lease);
	case WIRE_RESULT:
		return result(&w, &msg->result);
	case WIRE_ROWS_REQUEST:
		return range(&w, "first_row", msg->rows_request.first_row, 0, UINT64_MAX - msg->rows_request.count);
	case WIRE_ROWS:
		return rows(&w, &msg->rows);
	default:
		return 0;
	}
}
