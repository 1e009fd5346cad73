/* SPDX-License-Identifier: Apache-2.0 */
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/random/random.h"
#include "data/corpus/corpus.h"

enum { RECORDS = 32, TOKENS_AT = 16, SET_AT = 40 };

static void
put64(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

/* Makes a record: SAMPLES draws per label row from n_candidates ids, which are chosen anew for each row. */
static void
make_one(struct records *r, struct labels_buf *buf, uint32_t no, uint32_t n_candidates)
{
	uint32_t L = r->spec.context;
	int32_t *draws = malloc((size_t)L * SAMPLES * sizeof(*draws));
	struct err_note note = {0};
	uint32_t w[4];
	int rc;

	if (draws == NULL)
		die(ENOMEM, NULL, "draws");
	for (uint32_t t = 0; t < L; t++)
		for (uint32_t d = 0; d < SAMPLES; d++) {
			random_words(1, RANDOM_PURPOSE_GENERATE, no, t, d, w);
			random_words(2, RANDOM_PURPOSE_GENERATE, no, t, w[0] % n_candidates, w);
			draws[t * SAMPLES + d] = (int32_t)(w[0] % VOCAB);
		}
	if ((rc = labels_encode_draws(&r->spec, (struct hash128){1, 1}, draws, buf, &note)) != 0)
		die(rc, &note, "label");
	free(draws);
}

size_t
records_patch(const struct records *r, uint64_t seq, struct hash128 tokens, uint8_t *out)
{
	const struct labels_buf *from = &r->of[seq % RECORDS];

	memcpy(out, from->bytes, from->len);
	put64(out + TOKENS_AT, tokens.hi);
	put64(out + TOKENS_AT + 8, tokens.lo);
	put64(out + SET_AT, r->spec.set.hi);
	put64(out + SET_AT + 8, r->spec.set.lo);
	put64(out + from->len - 8, hash_bytes64(out, from->len - 8));
	return from->len;
}

/* The unigram table that selectord will make from the same corpus. */
static struct labels_unigram *
table_of(const char *prefix, double tau)
{
	struct labels_unigram *u;
	struct err_note note = {0};
	struct corpus *c;
	uint64_t *counts = malloc(VOCAB * sizeof(*counts));
	int rc = counts == NULL ? ENOMEM : corpus_open(&c, prefix, &note);

	if (rc != 0 || (rc = corpus_counts(c, VOCAB, counts, &note)) != 0 ||
	    (rc = labels_unigram_from_counts(&u, counts, VOCAB, tau, &note)) != 0)
		die(rc, &note, prefix);
	corpus_destroy(&c);
	free(counts);
	return u;
}

void
records_make(struct records *r, const char *corpus, uint32_t context, size_t want_bytes)
{
	struct hash128 tokens = {7, 9};
	struct err_note note = {0};
	uint8_t *one;
	int rc;

	memset(r, 0, sizeof(*r));
	r->spec = (struct labels_spec){.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = context, .vocab = VOCAB,
	    .n_samples = SAMPLES, .tau = 1};
	r->spec.unigram = table_of(corpus, r->spec.tau);
	for (r->n_candidates = 1; r->n_candidates < SAMPLES; r->n_candidates++) {
		make_one(r, &r->of[0], 0, (uint32_t)r->n_candidates);
		if (r->of[0].len >= want_bytes)
			break;
	}
	for (uint32_t i = 0; i < RECORDS; i++) {
		make_one(r, &r->of[i], i, (uint32_t)r->n_candidates);
		r->mean_len += (double)r->of[i].len / RECORDS;
		if (r->of[i].len > r->max_len)
			r->max_len = r->of[i].len;
	}
	if ((one = malloc(r->max_len)) == NULL)
		die(ENOMEM, NULL, "record");
	for (uint64_t seq = 0; seq < RECORDS; seq++) {
		size_t n = records_patch(r, seq, tokens, one);

		if ((rc = labels_check(&r->spec, &tokens, one, n, &note)) != 0)
			die(rc, &note, "a patched record");
	}
	free(one);
}
