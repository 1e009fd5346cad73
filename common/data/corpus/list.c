/* SPDX-License-Identifier: Apache-2.0 */
/* A list of corpora as one: opens the parts; windows, counts and fingerprint over all of them. */
#include "data/corpus/corpus_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json/json.h"
#include "base/mem/mem.h"

bool
corpus_is_list(const char *prefix)
{
	return prefix[0] == '[' && prefix[1 + strspn(prefix + 1, " ")] == '{';
}

static int
bad_list(struct err_note *note, size_t i, const char *expected, const char *found)
{
	return err_expect_at(note, ERR_FORMAT, "list of corpora", "part %zu", "%s", "%s", i + 1, expected, found);
}

/* Reads one {"prefix": ..., "weight": ...}. */
static int
read_part(const struct json *item, size_t i, const char **prefix, double *weight, struct err_note *note)
{
	if (!json_text(json_get(item, "prefix"), prefix) || (*prefix)[0] == '\0')
		return bad_list(note, i, "a \"prefix\"", json_kind_name(json_kind(json_get(item, "prefix"))));
	if (!json_num(json_get(item, "weight"), weight))
		return bad_list(note, i, "a \"weight\", a number", json_kind_name(json_kind(json_get(item, "weight"))));
	if (json_count(item) != 2)
		return bad_list(note, i, "\"prefix\" and \"weight\" only", "more members");
	return 0;
}

int
corpus__agree(struct corpus_info *all, const char *first, const struct corpus_info *one, const char *name, struct err_note *note)
{
	char a[HASH_HEX_BYTES], b[HASH_HEX_BYTES];

	if (one->dtype != all->dtype)
		return err_expect_at(note, ERR_MISMATCH, "%s", "type of the ids",
		    "%s, as in %s: the parts of a blend must have the same id type", "%s",
		    name, corpus_dtype_name(all->dtype), first, corpus_dtype_name(one->dtype));
	if (one->has_tokenizer && all->has_tokenizer && !hash_equal(one->tokenizer, all->tokenizer))
		return err_expect_at(note, ERR_MISMATCH, "%s", "tokenizer", "%s, that of the parts before (%s)", "%s", name,
		    hash_hex(all->tokenizer, a), first, hash_hex(one->tokenizer, b));
	if (one->vocab != 0 && all->vocab != 0 && one->vocab != all->vocab)
		return err_expect_at(note, ERR_MISMATCH, "%s", "vocabulary", "%" PRIu32 ", that of the parts before (%s)", "%" PRIu32, name,
		    all->vocab, first, one->vocab);
	if (one->eod >= 0 && all->eod >= 0 && one->eod != all->eod)
		return err_expect_at(note, ERR_MISMATCH, "%s", "end-of-document id", "%" PRId32 ", that of the parts before (%s)", "%" PRId32,
		    name, all->eod, first, one->eod);
	if (one->has_tokenizer) {
		all->has_tokenizer = true;
		all->tokenizer = one->tokenizer;
	}
	all->vocab = one->vocab != 0 ? one->vocab : all->vocab;
	all->eod = one->eod >= 0 ? one->eod : all->eod;
	all->n_documents = all->n_documents != 0 && one->n_documents != 0 ? all->n_documents + one->n_documents : 0;
	all->n_bytes = all->n_bytes != 0 && one->n_bytes != 0 ? all->n_bytes + one->n_bytes : 0;
	all->n_tokens += one->n_tokens;
	all->has_weights |= one->has_weights;
	return 0;
}

/* Opens the parts and reads weights [json_count(root)]. */
static int
open_parts(struct corpus *c, const struct json *root, enum corpus_dtype stated, double *weights, struct err_note *note)
{
	size_t n = json_count(root);
	const char *prefix;
	int rc;

	for (size_t i = 0; i < n; i++) {
		if ((rc = read_part(json_item(root, i), i, &prefix, &weights[i], note)) != 0)
			return rc;
		for (size_t j = 0; j < i; j++)
			if (strcmp(c->members[j]->prefix, prefix) == 0)
				return bad_list(note, i, "each corpus once", prefix);
		if ((rc = corpus_open_as(&c->members[i], prefix, stated, note)) != 0)
			return rc;
		c->n_members++;
		if (i == 0) {
			c->info = c->members[0]->info;
			c->info.kind = CORPUS_KIND_BLEND;
			c->info.has_source = c->info.has_counts = false;
		} else if ((rc = corpus__agree(&c->info, c->members[0]->stem, &c->members[i]->info, c->members[i]->stem, note)) != 0) {
			return rc;
		}
	}
	for (size_t i = 0; i < n && c->info.vocab != 0; i++)	/* for parts that do not state it too */
		if (c->info.vocab < c->members[i]->limit)
			c->members[i]->limit = c->info.vocab;
	return 0;
}

int
corpus__list_open(struct corpus *c, const char *text, enum corpus_dtype stated, struct err_note *note)
{
	double weights[BLEND_PARTS_MAX];
	struct json *root = NULL;
	size_t n, bad;
	int rc = json_parse(text, strlen(text), "list of corpora", &root, note);

	if (rc != 0)
		return rc;
	n = json_count(root);
	if (json_kind(root) != JSON_KIND_ARRAY || n < 1 || n > BLEND_PARTS_MAX) {
		rc = err_expect(note, ERR_FORMAT, "list of corpora", "1 to %u parts", "%zu", BLEND_PARTS_MAX, n);
		goto out;
	}
	if ((c->members = mem_alloc(n, sizeof(c->members[0]))) == NULL || (c->shares = mem_alloc(n, sizeof(c->shares[0]))) == NULL ||
	    (c->stem = strdup("the blend")) == NULL)
		rc = err_note_set(note, ENOMEM, "list of corpora");
	else if ((rc = open_parts(c, root, stated, weights, note)) == 0 && (rc = blend_shares(weights, n, c->shares, &bad)) != 0)
		rc = err_expect_at(note, rc, "%s", "weight", "above 0, and at least 1/%u of the sum of the weights", "%g",
		    c->members[bad]->stem, BLEND_PERIOD_MAX, weights[bad]);
out:
	json_close(&root);
	return rc;
}

size_t
corpus_n_parts(const struct corpus *c)
{
	return c->members != NULL ? c->n_members : 1;
}

const struct corpus *
corpus_part(const struct corpus *c, size_t i)
{
	return c->members != NULL ? c->members[i] : c;
}

const char *
corpus_unknown_bytes(const struct corpus *c)
{
	return c->unknown_bytes;
}

const char *
corpus_add_special(const struct corpus *c)
{
	return c->add_special;
}

const char *
corpus_prefix(const struct corpus *c)
{
	return c->prefix;
}

const struct corpus *
corpus_at(const struct corpus *c, uint32_t L, uint64_t index, uint64_t *window)
{
	size_t i = 0;

	for (; c->members != NULL && i < c->n_members; i++) {
		uint64_t n = corpus_n_windows(c->members[i], L);

		if (index < n)
			break;
		index -= n;
	}
	*window = index;
	return c->members == NULL ? c : i < c->n_members ? c->members[i] : NULL;
}

int
corpus_blend(struct blend **b, const struct corpus *c, uint32_t L, struct err_note *note)
{
	uint64_t n_windows[BLEND_PARTS_MAX];

	*b = NULL;
	for (size_t i = 0; i < corpus_n_parts(c); i++)
		if ((n_windows[i] = corpus_n_windows(corpus_part(c, i), L)) == 0)
			return err_expect(note, ERR_RANGE, "%s", "at least corpus.context + 1 = %" PRIu64 " tokens", "%" PRIu64,
			    corpus_prefix(corpus_part(c, i)), (uint64_t)L + 1, corpus_n_tokens(corpus_part(c, i)));
	return blend_new(b, n_windows, c->shares, corpus_n_parts(c), note);
}

int
corpus__list_counts(const struct corpus *c, uint32_t vocab, uint64_t *out, struct err_note *note)
{
	uint64_t *one = mem_alloc(vocab, sizeof(*one));
	int rc = one != NULL ? 0 : err_note_set(note, ENOMEM, "%s", c->stem);

	for (uint32_t v = 0; v < vocab; v++)
		out[v] = 1;
	for (size_t i = 0; i < c->n_members && rc == 0; i++) {
		rc = corpus_counts(c->members[i], vocab, one, note);
		for (uint32_t v = 0; v < vocab && rc == 0; v++)
			out[v] += one[v] - 1;
	}
	free(one);
	return rc;
}

int
corpus__list_fingerprint(struct corpus *c, struct err_note *note)
{
	struct hash_state *h = hash_new();
	struct hash128 part;
	int rc = h != NULL ? 0 : err_note_set(note, ENOMEM, "fingerprint of a blend");

	if (rc == 0)
		hash_field_u64(h, "blend", 1);
	for (size_t i = 0; i < c->n_members && rc == 0; i++) {
		if ((rc = corpus_fingerprint(c->members[i], &part, note)) != 0)
			break;
		hash_field(h, "corpus", &part, sizeof(part));
		hash_field_u64(h, "share", c->shares[i]);
	}
	if (rc == 0)
		c->fingerprint = hash_digest(h);
	hash_destroy(&h);
	return rc;
}
