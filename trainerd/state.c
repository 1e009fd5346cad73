#include "trainerd/state.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json/json.h"
#include "trainerd/phase.h"

static int
put_hash(struct json *o, const char *key, struct hash128 h)
{
	char hex[HASH_HEX_BYTES];

	return json_put(o, key, json_new_text(hash_hex(h, hex)));
}

static int
put_u64(struct json *o, const char *key, uint64_t v)
{
	return json_put(o, key, json_new_int((int64_t)v));
}

static struct json *
identity_to_json(const struct state_identity *id)
{
	struct json *o = json_new_object();

	if (o == NULL)
		return NULL;
	if (put_u64(o, "seed", id->seed) != 0 || put_u64(o, "batch", id->batch) != 0 ||
	    put_u64(o, "micro_batch", id->micro_batch) != 0 || put_u64(o, "lanes", id->lanes) != 0 ||
	    put_u64(o, "context", id->context) != 0 || put_hash(o, "corpus", id->corpus) != 0 ||
	    put_hash(o, "heldout", id->heldout) != 0 || put_hash(o, "tokenizer", id->tokenizer) != 0 ||
	    json_put(o, "compute_class", json_new_text(id->compute_class)) != 0 ||
	    json_put(o, "mode", json_new_text(id->mode)) != 0)
		json_close(&o);
	return o;
}

struct json *
state_to_json(const struct state *s)
{
	struct json *o = json_new_object();
	int rc;

	if (o == NULL)
		return NULL;
	rc = put_u64(o, "version", STATE_VERSION) != 0 || json_put(o, "identity", identity_to_json(&s->identity)) != 0 ||
	    put_u64(o, "step", s->step) != 0 || put_u64(o, "updates", s->updates) != 0 || put_u64(o, "tokens", s->tokens) != 0 ||
	    json_put(o, "switch_step", s->switch_step == PHASE_UNKNOWN ? json_new_null() : json_new_int((int64_t)s->switch_step)) != 0 ||
	    json_put(o, "evaluated_step", s->evaluated_step == UINT64_MAX ? json_new_null() : json_new_int((int64_t)s->evaluated_step)) != 0 ||
	    put_u64(o, "skipped", s->skipped) != 0 || put_u64(o, "late_rows", s->late_rows) != 0 ||
	    json_put(o, "train_seconds", json_new_num(s->train_s)) != 0 ||
	    json_put(o, "wait_seconds", json_new_num(s->wait_s)) != 0 ||
	    json_put(o, "teacher_heldout_nats", json_new_num(s->teacher_nats)) != 0 ||
	    json_put(o, "released", json_new_flag(s->released)) != 0;
	if (rc == 0 && s->has_sets)
		rc = put_hash(o, "plan", s->plan) != 0 || put_hash(o, "label_set", s->label_set) != 0 ||
		    put_hash(o, "teacher", s->teacher) != 0 || put_hash(o, "scorer", s->scorer) != 0;
	if (rc != 0)
		json_close(&o);
	return o;
}

static int
bad(const char *key, const char *expected, const struct json *found, struct err_note *note)
{
	err_note_set(note, ERR_FORMAT, "state.json");
	err_note_place(note, "%s", key);
	err_note_expected(note, "%s", expected);
	err_note_found(note, "%s", json_kind_name(json_kind(found)));
	return ERR_FORMAT;
}

static int
get_u64(const struct json *o, const char *key, uint64_t max, uint64_t *out, struct err_note *note)
{
	const struct json *j = json_get(o, key);
	int64_t v;

	if (!json_int(j, &v) || v < 0 || (uint64_t)v > max)
		return bad(key, "a whole number in range", j, note);
	*out = (uint64_t)v;
	return 0;
}

static int
get_u32(const struct json *o, const char *key, uint32_t *out, struct err_note *note)
{
	uint64_t v;
	int rc = get_u64(o, key, UINT32_MAX, &v, note);

	if (rc == 0)
		*out = (uint32_t)v;
	return rc;
}

static int
get_hash(const struct json *o, const char *key, struct hash128 *out, struct err_note *note)
{
	const struct json *j = json_get(o, key);
	const char *hex;

	return json_text(j, &hex) && hash_from_hex(out, hex) == 0 ? 0 : bad(key, "32 hex digits", j, note);
}

static int
get_text(const struct json *o, const char *key, char *out, size_t size, struct err_note *note)
{
	const struct json *j = json_get(o, key);
	const char *text;

	if (!json_text(j, &text) || strlen(text) >= size)
		return bad(key, "a short text", j, note);
	snprintf(out, size, "%s", text);
	return 0;
}

static int
get_num(const struct json *o, const char *key, double *out, struct err_note *note)
{
	const struct json *j = json_get(o, key);

	if (json_kind(j) == JSON_KIND_NULL && j != NULL) {
		*out = NAN;
		return 0;
	}
	return json_num(j, out) ? 0 : bad(key, "a number", j, note);
}

static int
identity_from_json(const struct json *o, struct state_identity *id, struct err_note *note)
{
	int rc;

	if ((rc = get_u32(o, "seed", &id->seed, note)) != 0 || (rc = get_u32(o, "batch", &id->batch, note)) != 0 ||
	    (rc = get_u32(o, "micro_batch", &id->micro_batch, note)) != 0 || (rc = get_u32(o, "lanes", &id->lanes, note)) != 0 ||
	    (rc = get_u32(o, "context", &id->context, note)) != 0 || (rc = get_hash(o, "corpus", &id->corpus, note)) != 0 ||
	    (rc = get_hash(o, "heldout", &id->heldout, note)) != 0 || (rc = get_hash(o, "tokenizer", &id->tokenizer, note)) != 0 ||
	    (rc = get_text(o, "compute_class", id->compute_class, sizeof(id->compute_class), note)) != 0)
		return rc;
	return get_text(o, "mode", id->mode, sizeof(id->mode), note);
}

int
state_from_json(const struct json *j, struct state *s, struct err_note *note)
{
	const struct json *released = json_get(j, "released");
	uint64_t version;
	int rc;

	memset(s, 0, sizeof(*s));
	if ((rc = get_u64(j, "version", INT64_MAX, &version, note)) != 0)
		return rc;
	if (version != STATE_VERSION) {
		err_note_set(note, ERR_VERSION, "state.json");
		err_note_expected(note, "version %d", STATE_VERSION);
		err_note_found(note, "%llu", (unsigned long long)version);
		return ERR_VERSION;
	}
	if ((rc = identity_from_json(json_get(j, "identity"), &s->identity, note)) != 0 ||
	    (rc = get_u64(j, "step", INT64_MAX, &s->step, note)) != 0 ||
	    (rc = get_u64(j, "updates", INT64_MAX, &s->updates, note)) != 0 ||
	    (rc = get_u64(j, "tokens", INT64_MAX, &s->tokens, note)) != 0 ||
	    (rc = get_u64(j, "skipped", INT64_MAX, &s->skipped, note)) != 0 ||
	    (rc = get_u64(j, "late_rows", INT64_MAX, &s->late_rows, note)) != 0 ||
	    (rc = get_num(j, "train_seconds", &s->train_s, note)) != 0 ||
	    (rc = get_num(j, "wait_seconds", &s->wait_s, note)) != 0 ||
	    (rc = get_num(j, "teacher_heldout_nats", &s->teacher_nats, note)) != 0)
		return rc;
	s->switch_step = PHASE_UNKNOWN;
	if (json_kind(json_get(j, "switch_step")) != JSON_KIND_NULL &&
	    (rc = get_u64(j, "switch_step", INT64_MAX, &s->switch_step, note)) != 0)
		return rc;
	s->evaluated_step = UINT64_MAX;
	if (json_kind(json_get(j, "evaluated_step")) != JSON_KIND_NULL &&
	    (rc = get_u64(j, "evaluated_step", INT64_MAX, &s->evaluated_step, note)) != 0)
		return rc;
	if (!json_flag(released, &s->released))
		return bad("released", "true or false", released, note);
	s->has_sets = json_get(j, "plan") != NULL;
	if (s->has_sets && ((rc = get_hash(j, "plan", &s->plan, note)) != 0 ||
	    (rc = get_hash(j, "label_set", &s->label_set, note)) != 0 || (rc = get_hash(j, "teacher", &s->teacher, note)) != 0 ||
	    (rc = get_hash(j, "scorer", &s->scorer, note)) != 0))
		return rc;
	return 0;
}

static int
differs(const char *name, const char *stored, const char *now, struct err_note *note)
{
	if (strcmp(stored, now) == 0)
		return 0;
	err_note_set(note, ERR_MISMATCH, "%s", name);
	err_note_place(note, "checkpoint to resume from");
	err_note_expected(note, "%s (the checkpoint's)", stored);
	err_note_found(note, "%s", now);
	return ERR_MISMATCH;
}

static int
differs_u32(const char *name, uint32_t stored, uint32_t now, struct err_note *note)
{
	char a[16], b[16];

	snprintf(a, sizeof(a), "%u", stored);
	snprintf(b, sizeof(b), "%u", now);
	return differs(name, a, b, note);
}

static int
differs_hash(const char *name, struct hash128 stored, struct hash128 now, struct err_note *note)
{
	char a[HASH_HEX_BYTES], b[HASH_HEX_BYTES];

	return differs(name, hash_hex(stored, a), hash_hex(now, b), note);
}

int
state_identity_check(const struct state_identity *a, const struct state_identity *b, struct err_note *note)
{
	int rc;

	if ((rc = differs_u32("run.seed", a->seed, b->seed, note)) != 0 ||
	    (rc = differs_u32("trainer.batch", a->batch, b->batch, note)) != 0 ||
	    (rc = differs_u32("trainer.micro_batch", a->micro_batch, b->micro_batch, note)) != 0 ||
	    (rc = differs_u32("trainer.lanes", a->lanes, b->lanes, note)) != 0 ||
	    (rc = differs_u32("corpus.context", a->context, b->context, note)) != 0 ||
	    (rc = differs_hash("corpus.train (fingerprint)", a->corpus, b->corpus, note)) != 0 ||
	    (rc = differs_hash("corpus.heldout (fingerprint)", a->heldout, b->heldout, note)) != 0 ||
	    (rc = differs_hash("tokenizer (fingerprint)", a->tokenizer, b->tokenizer, note)) != 0 ||
	    (rc = differs("compute class", a->compute_class, b->compute_class, note)) != 0)
		return rc;
	return differs("mode", a->mode, b->mode, note);
}
