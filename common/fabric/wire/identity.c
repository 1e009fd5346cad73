/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/wire/wire.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log/log.h"

const char *
wire_role_name(enum wire_role role)
{
	static const char *const names[] = {"none", "teacher", "trainer", "client"};

	return (unsigned)role < 4 ? names[role] : "?";
}

struct hash128
wire_plan_hash(const struct wire_corpus *corpus, const struct wire_plan *plan, const struct hash128 *score_set)
{
	struct hash_state *h = hash_new();
	struct hash128 out;
	uint64_t keep_bits;

	if (h == NULL)
		log_fatal("wire.plan_hash", "error=\"out of memory\"");
	memcpy(&keep_bits, &plan->keep, sizeof(keep_bits));
	hash_field_str(h, "kind", "plan 1");
	hash_field_u64(h, "corpus_hi", corpus->fingerprint.known ? corpus->fingerprint.hash.hi : 0);
	hash_field_u64(h, "corpus_lo", corpus->fingerprint.known ? corpus->fingerprint.hash.lo : 0);
	hash_field_u64(h, "context", corpus->context);
	hash_field_u64(h, "seed", plan->seed);
	hash_field_u64(h, "batch", plan->batch);
	hash_field_u64(h, "mode", (uint64_t)plan->mode);
	hash_field_u64(h, "window", plan->pool != 0 ? 0 : plan->window);
	hash_field_u64(h, "pool", plan->pool);
	if (plan->mode != WIRE_MODE_NONE) {
		if (plan->mode == WIRE_MODE_SALT_DS)
			hash_field_u64(h, "k", plan->k);
		hash_field_u64(h, "keep", keep_bits);
		if (plan->by_part)
			hash_field_u64(h, "by_part", 1);
		hash_field_u64(h, "scores_hi", score_set != NULL ? score_set->hi : 0);
		hash_field_u64(h, "scores_lo", score_set != NULL ? score_set->lo : 0);
	}
	out = hash_digest(h);
	hash_destroy(&h);
	return out;
}

/* The note of a difference: PREFIX.FIELD, ours, theirs. */
static int
differ(struct err_note *note, const char *prefix, const char *field, const char *ours, const char *theirs)
{
	return err_expect(note, ERR_MISMATCH, "%s.%s", "%s", "%s", prefix, field, ours, theirs);
}

static int
diff_u64(struct err_note *note, const char *prefix, const char *field, uint64_t ours, uint64_t theirs)
{
	char a[24], b[24];

	if (ours == theirs)
		return 0;
	snprintf(a, sizeof(a), "%" PRIu64, ours);
	snprintf(b, sizeof(b), "%" PRIu64, theirs);
	return differ(note, prefix, field, a, b);
}

static int
diff_number(struct err_note *note, const char *prefix, const char *field, double ours, double theirs)
{
	char a[32], b[32];

	if (ours == theirs)
		return 0;
	snprintf(a, sizeof(a), "%.9g", ours);
	snprintf(b, sizeof(b), "%.9g", theirs);
	return differ(note, prefix, field, a, b);
}

static int
diff_id(struct err_note *note, const char *prefix, const char *field, const struct wire_id *ours, const struct wire_id *theirs)
{
	char a[HASH_HEX_BYTES], b[HASH_HEX_BYTES];

	if (!ours->known || !theirs->known || hash_equal(ours->hash, theirs->hash))
		return 0;
	return differ(note, prefix, field, hash_hex(ours->hash, a), hash_hex(theirs->hash, b));
}

static int
diff_class(struct err_note *note, const char *prefix, const char *ours, const char *theirs)
{
	if (ours[0] == 0 || theirs[0] == 0 || strcmp(ours, theirs) == 0)
		return 0;
	return differ(note, prefix, "compute_class", ours, theirs);
}

/* corpus.isolate_documents and the id, as a user sets them. */
static int
diff_document_end(struct err_note *note, const char *prefix, uint32_t ours, uint32_t theirs)
{
	char text[2][48] = {"false", "false"};

	if (ours == theirs)
		return 0;
	for (int i = 0; i < 2; i++)
		if ((i == 0 ? ours : theirs) != 0)
			snprintf(text[i], sizeof(text[i]), "true, documents end with token %" PRIu32, (i == 0 ? ours : theirs) - 1);
	return differ(note, prefix, "isolate_documents", text[0], text[1]);
}

int
wire_corpus_diff(const char *prefix, const struct wire_corpus *ours, const struct wire_corpus *theirs, struct err_note *note)
{
	int rc;

	if (!ours->present || !theirs->present)
		return 0;
	if ((rc = diff_u64(note, prefix, "context", ours->context, theirs->context)) != 0
	    || (rc = diff_u64(note, prefix, "vocab_size", ours->vocab_size, theirs->vocab_size)) != 0
	    || (rc = diff_id(note, prefix, "tokenizer", &ours->tokenizer, &theirs->tokenizer)) != 0
	    || (rc = diff_u64(note, prefix, "n_windows", ours->n_windows, theirs->n_windows)) != 0
	    || (rc = diff_document_end(note, prefix, ours->document_end, theirs->document_end)) != 0)
		return rc;
	return diff_id(note, prefix, "fingerprint", &ours->fingerprint, &theirs->fingerprint);
}

int
wire_label_set_diff(const char *prefix, const struct wire_label_set *ours, const struct wire_label_set *theirs, struct err_note *note)
{
	int rc;

	if (!ours->present || !theirs->present)
		return 0;
	if (ours->kind != LABELS_KIND_NONE && theirs->kind != LABELS_KIND_NONE) {
		if (ours->kind != theirs->kind)
			return differ(note, prefix, "kind", labels_kind_name(ours->kind),
			    labels_kind_name(theirs->kind));
		if ((rc = diff_u64(note, prefix, ours->kind == LABELS_KIND_TOPK ? "k" : "samples", ours->n,
			 theirs->n)) != 0)
			return rc;
		/* only sampled labels depend on the seed */
		if (ours->kind == LABELS_KIND_SAMPLED &&
		    (rc = diff_u64(note, prefix, "seed", ours->seed, theirs->seed)) != 0)
			return rc;
	}
	if (ours->tau != 0 && theirs->tau != 0 && (rc = diff_number(note, prefix, "tau", (double)ours->tau, (double)theirs->tau)) != 0)
		return rc;
	if (ours->version != 0 && theirs->version != 0 && (rc = diff_u64(note, prefix, "version", ours->version, theirs->version)) != 0)
		return rc;
	if ((rc = diff_id(note, prefix, "teacher", &ours->teacher, &theirs->teacher)) != 0
	    || (rc = diff_class(note, prefix, ours->compute_class, theirs->compute_class)) != 0)
		return rc;
	return diff_id(note, prefix, "hash", &ours->hash, &theirs->hash);
}

void
wire_refuse_fill(struct wire_refuse *refuse, int rc, const struct err_note *note, uint32_t retry_ms)
{
	*refuse = (struct wire_refuse){.code = err_exit_code(rc), .retry_ms = retry_ms};
	if (refuse->code < 64 || refuse->code > 78)
		refuse->code = 70;
	snprintf(refuse->text, sizeof(refuse->text), "%s", err_str(rc));
	if (note == NULL)
		return;
	snprintf(refuse->field, sizeof(refuse->field), "%.*s", WIRE_NAME_MAX - 1, note->name);
	if (note->place[0] != 0)
		snprintf(refuse->text, sizeof(refuse->text), "%s: %s", note->place, err_str(rc));
	snprintf(refuse->expected, sizeof(refuse->expected), "%s", note->expected);
	snprintf(refuse->found, sizeof(refuse->found), "%s", note->found);
}

const char *
wire_refuse_str(const struct wire_refuse *r, char *buf, size_t size)
{
	snprintf(buf, size, "%s%s%s%s%s%s%s%s%s%s", r->field, r->field[0] ? ": " : "", r->expected[0] ? "expected " : "", r->expected,
	    r->expected[0] && r->found[0] ? ", " : "", r->found[0] ? "found " : "", r->found,
	    r->expected[0] || r->found[0] ? " (" : "", r->text, r->expected[0] || r->found[0] ? ")" : "");
	return buf;
}
