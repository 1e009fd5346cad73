/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/state.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/json/json.h"
#include "data/phase/phase.h"

/*
 * STEP: null stands for UINT64_MAX (not decided, none). NUMBER: null stands for NaN. TEXT is an array, of `size`
 * bytes. NEWER, NEWER_HASH: a TEXT, a HASH that older checkpoints lack. RARE: a TEXT that is left out where it is empty.
 */
enum kind { U32, U64, STEP, HASH, NEWER_HASH, TEXT, NEWER, RARE, NUMBER, FLAG };

struct field {
	const char *key;
	enum kind kind;
	size_t at, size;
	const char *option;			/* of identity: the name that users know */
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define IDENTITY(member) offsetof(struct state_identity, member), sizeof(((struct state_identity *)0)->member)
#define STATE(member) offsetof(struct state, member), sizeof(((struct state *)0)->member), NULL

static const struct field identity_fields[] = {
	{"seed", U32, IDENTITY(seed), "run.seed"},
	{"batch", U32, IDENTITY(batch), "trainer.batch"},
	{"micro_batch", U32, IDENTITY(micro_batch), "trainer.micro_batch"},
	{"lanes", U32, IDENTITY(lanes), "trainer.lanes"},
	{"context", U32, IDENTITY(context), "corpus.context"},
	{"corpus", HASH, IDENTITY(corpus), "corpus.train (fingerprint)"},
	{"heldout", HASH, IDENTITY(heldout), "corpus.heldout (fingerprint)"},
	{"loss_weights", NEWER_HASH, IDENTITY(loss_weights), "corpus.train (loss weights)"},
	{"tokenizer", HASH, IDENTITY(tokenizer), "tokenizer (fingerprint)"},
	{"compute_class", TEXT, IDENTITY(compute_class), "compute class"},
	{"device", RARE, IDENTITY(device), "GPU and its libraries (trainer.backend: cuda accepts others)"},
	{"optimizer", NEWER, IDENTITY(optimizer), "trainer.optimizer"},
	{"mode", TEXT, IDENTITY(mode), "mode"},
};

static const struct field state_fields[] = {
	{"step", U64, STATE(step)},
	{"updates", U64, STATE(updates)},
	{"tokens", U64, STATE(tokens)},
	{"switch_step", STEP, STATE(switch_step)},
	{"switch_by", NEWER, STATE(switch_by)},
	{"evaluated_step", STEP, STATE(evaluated_step)},
	{"skipped", U64, STATE(skipped)},
	{"late_rows", U64, STATE(late_rows)},
	{"train_seconds", NUMBER, STATE(train_s)},
	{"wait_seconds", NUMBER, STATE(wait_s)},
	{"teacher_heldout_nats", NUMBER, STATE(teacher_nats)},
	{"released", FLAG, STATE(released)},
};

static const struct field set_fields[] = {
	{"plan", HASH, STATE(sets.plan)},
	{"label_set", HASH, STATE(sets.label_set)},
	{"teacher", HASH, STATE(sets.teacher)},
	{"scorer", HASH, STATE(sets.scorer)},
};

_Static_assert(PHASE_UNKNOWN == UINT64_MAX, "a switch step that is not known is stored as null");

static struct json *
field_to_json(const struct field *f, const void *object)
{
	const void *p = (const char *)object + f->at;
	char hex[HASH_HEX_BYTES];

	switch (f->kind) {
	case U32:
		return json_new_int(*(const uint32_t *)p);
	case U64:
		return json_new_int((int64_t)*(const uint64_t *)p);
	case STEP:
		return *(const uint64_t *)p == UINT64_MAX ? json_new_null() : json_new_int((int64_t)*(const uint64_t *)p);
	case HASH:
	case NEWER_HASH:
		return json_new_text(hash_hex(*(const struct hash128 *)p, hex));
	case TEXT:
	case NEWER:
	case RARE:
		return json_new_text(p);
	case NUMBER:
		return json_new_num(*(const double *)p);
	case FLAG:
		return json_new_flag(*(const bool *)p);
	}
	return NULL;
}

static int
put_fields(struct json *o, const struct field *fields, size_t n, const void *object)
{
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++)
		if (fields[i].kind != RARE || *((const char *)object + fields[i].at) != '\0')
			rc = json_put(o, fields[i].key, field_to_json(&fields[i], object));
	return rc;
}

struct json *
state_to_json(const struct state *s)
{
	struct json *identity = json_new_object(), *o;

	if (identity == NULL || put_fields(identity, identity_fields, COUNT(identity_fields), &s->identity) != 0)
		json_close(&identity);
	if ((o = json_build("{s:i, s:o}", "version", STATE_VERSION, "identity", identity)) == NULL)
		return NULL;
	if (put_fields(o, state_fields, COUNT(state_fields), s) != 0 ||
	    (s->has_sets && put_fields(o, set_fields, COUNT(set_fields), s) != 0))
		json_close(&o);
	return o;
}

static int
field_from_json(const struct field *f, const struct json *o, void *object, struct err_note *note)
{
	const struct json *j = json_get(o, f->key);
	const char *expected = "", *text;
	void *p = (char *)object + f->at;
	int64_t v;

	switch (f->kind) {
	case STEP:
		*(uint64_t *)p = UINT64_MAX;
		if (json_kind(j) == JSON_KIND_NULL)	/* absent, too */
			return 0;
		/* fall through */
	case U32:
	case U64:
		expected = "a whole number in range";
		if (!json_int(j, &v) || v < 0 || (f->kind == U32 && v > UINT32_MAX))
			break;
		if (f->kind == U32)
			*(uint32_t *)p = (uint32_t)v;
		else
			*(uint64_t *)p = (uint64_t)v;
		return 0;
	case NEWER_HASH:
		if (j == NULL)
			return 0;
		/* fall through */
	case HASH:
		expected = "32 hex digits";
		if (!json_text(j, &text) || hash_from_hex(p, text) != 0)
			break;
		return 0;
	case NEWER:
	case RARE:
		if (j == NULL)
			return 0;		/* state_from_json began with zeros */
		/* fall through */
	case TEXT:
		expected = "a short text";
		if (!json_text(j, &text) || strlen(text) >= f->size)
			break;
		snprintf(p, f->size, "%s", text);
		return 0;
	case NUMBER:
		expected = "a number";
		if (j != NULL && json_kind(j) == JSON_KIND_NULL)
			*(double *)p = NAN;
		else if (!json_num(j, p))
			break;
		return 0;
	case FLAG:
		expected = "true or false";
		if (!json_flag(j, p))
			break;
		return 0;
	}
	return err_expect_at(note, ERR_FORMAT, "state.json", "%s", "%s", "%s", f->key, expected, json_kind_name(json_kind(j)));
}

static int
get_fields(const struct json *o, const struct field *fields, size_t n, void *object, struct err_note *note)
{
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++)
		rc = field_from_json(&fields[i], o, object, note);
	return rc;
}

int
state_from_json(const struct json *j, struct state *s, struct err_note *note)
{
	uint64_t version;
	const struct field version_field = {.key = "version", .kind = U64};
	int rc;

	memset(s, 0, sizeof(*s));
	if ((rc = field_from_json(&version_field, j, &version, note)) != 0)
		return rc;
	if (version != STATE_VERSION)
		return err_expect(note, ERR_VERSION, "state.json", "version %d", "%llu", STATE_VERSION, (unsigned long long)version);
	if ((rc = get_fields(json_get(j, "identity"), identity_fields, COUNT(identity_fields), &s->identity, note)) != 0 ||
	    (rc = get_fields(j, state_fields, COUNT(state_fields), s, note)) != 0)
		return rc;
	if (s->identity.optimizer[0] == '\0')
		snprintf(s->identity.optimizer, sizeof(s->identity.optimizer), "adamw");
	s->has_sets = json_get(j, "plan") != NULL;
	return s->has_sets ? get_fields(j, set_fields, COUNT(set_fields), s, note) : 0;
}

static const char *
field_text(const struct field *f, const void *object, char buf[64])
{
	const void *p = (const char *)object + f->at;

	if (f->kind == TEXT || f->kind == NEWER || f->kind == RARE)
		return p;
	if (f->kind == HASH || f->kind == NEWER_HASH)
		return hash_hex(*(const struct hash128 *)p, buf);
	snprintf(buf, 64, "%u", *(const uint32_t *)p);
	return buf;
}

static const char *
selector_mode(const char *mode)
{
	return strcmp(mode, "salt_ds") == 0 ? "salt_ds" : strcmp(mode, "salt_file") == 0 ? "file" : "none";
}

/*
 * rkd is salt with a phase one as long as the run, and that length may change. A baseline may continue any
 * run, because it is like phase two.
 */
static int
mode_check(const char *was, const char *is, struct err_note *note)
{
	if (strcmp(is, "baseline") == 0)
		return 0;
	if (strcmp(was, "baseline") == 0)
		return err_expect_at(note, ERR_MISMATCH, "phase_one", "checkpoint to resume from",
		    "none, because this run has finished phase one or began without it (a phase one needs a "
		    "new run)",
		    "%s", is);
	if (strcmp(selector_mode(was), selector_mode(is)) != 0)
		return err_expect_at(note, ERR_MISMATCH, "selector.mode", "checkpoint to resume from", "%s (the checkpoint's)", "%s",
		    selector_mode(was), selector_mode(is));
	return 0;
}

int
state_identity_check(const struct state_identity *stored, const struct state_identity *now, struct err_note *note)
{
	char buf[2][64];

	for (size_t i = 0; i < COUNT(identity_fields); i++) {
		const struct field *f = &identity_fields[i];
		const char *a = field_text(f, stored, buf[0]), *b = field_text(f, now, buf[1]);

		if (strcmp(f->key, "mode") == 0)
			return mode_check(a, b, note);		/* the last field */
		if (strcmp(a, b) != 0)
			return err_expect_at(note, ERR_MISMATCH, "%s", "checkpoint to resume from", "%s (the checkpoint's)", "%s", f->option, a, b);
	}
	return 0;
}

int
state_optimizer_check(const struct state_identity *stored, const char *now, const char *path, struct err_note *note)
{
	if (strcmp(stored->optimizer, now) == 0)
		return 0;
	return err_expect_at(note, ERR_MISMATCH, "trainer.optimizer", "checkpoint to resume from",
	    "%s (the checkpoint's), or another run.dir with trainer.init: %s, which begins a run from its weights", "%s", stored->optimizer, path,
	    now);
}
