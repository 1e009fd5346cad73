/* SPDX-License-Identifier: Apache-2.0 */
/* Checks a WELCOME against the identities of this process, and converts a REFUSE to an error. */
#include "fabric/session/session_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int
differ(struct err_note *note, const char *name, const char *origin, struct hash128 expected,
    struct hash128 found)
{
	char a[HASH_HEX_BYTES], b[HASH_HEX_BYTES];

	return err_expect(note, ERR_MISMATCH, "%s", "%s, %s", "%s", name, hash_hex(expected, a), origin,
	    hash_hex(found, b));
}

/*
 * Records contain the hash of their label set, but neither its parts nor its unigram table. So the hash is
 * computed here, from the parts and the table's bytes: with a table that was changed in transit, records
 * decode to wrong labels, and no other check would detect that.
 */
static int
check_label_set(const struct wire_hello *hello, const struct wire_welcome *w, struct err_note *note)
{
	const struct wire_corpus *corpus = hello->corpus.present ? &hello->corpus : &w->corpus;
	struct labels_set set = {.corpus = corpus->fingerprint.hash, .teacher = w->label_set.teacher.hash,
	    .spec = session_label_spec(&w->label_set, corpus->context, corpus->vocab_size, NULL)};
	struct hash128 hash;

	if (w->unigram.len > 0)
		set.spec.unigram_hash = hash_bytes(w->unigram.bytes, w->unigram.len);
	snprintf(set.compute_class, sizeof(set.compute_class), "%s", w->label_set.compute_class);
	hash = labels_set_hash(&set);
	if (hash_equal(hash, w->label_set.hash.hash))
		return 0;
	return differ(note, "label_set.hash", "computed from its parts and its unigram table", hash,
	    w->label_set.hash.hash);
}

int
session__check_welcome(struct session__rules *rules, size_t shard, const struct wire_welcome *w,
    struct err_note *note)
{
	const struct wire_hello *h = rules->hello;
	struct hash128 plan;
	int rc;

	if ((rc = wire_corpus_diff("corpus", &h->corpus, &w->corpus, note)) != 0 ||
	    (rc = wire_label_set_diff("label_set", &h->label_set, &w->label_set, note)) != 0)
		return rc;
	if (rules->all_shards && (w->n_shards != rules->n_shards || w->shard != shard))
		return err_expect(note, ERR_MISMATCH, "selector.endpoints", "shard %zu of %zu",
		    "shard %u of %u", shard, rules->n_shards, w->shard, w->n_shards);
	if (w->label_set.present && (rc = check_label_set(h, w, note)) != 0)
		return rc;
	if (!h->plan.present)
		return 0;
	if (h->plan.mode == WIRE_MODE_FILE && w->score_set.present) {
		if (rules->file.known && !hash_equal(rules->file.hash, w->score_set.scorer.hash))
			return differ(note, "selector.file", "the hash of the file that this run began with", rules->file.hash,
			    w->score_set.scorer.hash);
		rules->file = w->score_set.scorer;
	}
	plan = wire_plan_hash(&h->corpus, &h->plan, w->score_set.present ? &w->score_set.hash.hash : NULL);
	if (w->plan_hash.known && !hash_equal(plan, w->plan_hash.hash))
		return differ(note, "plan", "computed from its parts", plan, w->plan_hash.hash);
	if (!w->label_set.present)
		return 0;
	if (rules->has_sets && !hash_equal(rules->label_set, w->label_set.hash.hash))
		return differ(note, "label_set.hash", "as in the first WELCOME", rules->label_set,
		    w->label_set.hash.hash);
	if (rules->has_sets && !hash_equal(rules->plan, plan))
		return differ(note, "plan", "as in the first WELCOME", rules->plan, plan);
	rules->has_sets = true;
	rules->label_set = w->label_set.hash.hash;
	rules->plan = plan;
	return 0;
}

int
session__refusal(const struct wire_refuse *r, const char *endpoint, struct err_note *note)
{
	/*
	 * one error for each code that err_exit_code gives, so that this process ends with the code of the
	 * REFUSE
	 */
	static const int errors[] = {ERR_MISMATCH, ERR_CORRUPT, ERR_REFUSED, ERR_INTERNAL, ERR_AGAIN,
	    ERR_USAGE, ERR_NOT_FOUND, ERR_EXISTS, EIO, EACCES};
	int rc = ERR_REFUSED;

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (err_exit_code(errors[i]) == r->code)
			rc = errors[i];
	return err_expect_at(note, rc, "%s", "refused by selectord at %s", "%s", "%s%s%s", r->field, endpoint,
	    r->expected, r->found, r->found[0] && r->text[0] ? "; " : "", r->text);
}
