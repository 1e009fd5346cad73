/* SPDX-License-Identifier: Apache-2.0 */
/* PREFIX.weights.bin: the loss weight of each document in training. */
#include "data/corpus/corpus_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file/file.h"
#include "base/mem/mem.h"

/* Tokens from first[i] up to first[i + 1] have weight[i]: a run of neighbouring documents of one weight. */
struct corpus__weights {
	uint64_t *first;
	float *weight;
	size_t n, cap_first, cap_weight;
};

bool
corpus_weight_valid(double weight)
{
	return weight == 0 || (weight >= CORPUS_WEIGHT_MIN && weight <= CORPUS_WEIGHT_MAX);
}

void
corpus__weights_destroy(struct corpus__weights **w)
{
	if (*w == NULL)
		return;
	free((*w)->first);
	free((*w)->weight);
	free(*w);
	*w = NULL;
}

/* Reads and checks the file. *weights [n_documents] points into *bytes, which the caller frees. */
static int
read_file(const struct corpus *c, char **bytes, const char **weights, struct err_note *note)
{
	char path[CORPUS__PATH_MAX + 16], hex[HASH_HEX_BYTES], now[HASH_HEX_BYTES];
	uint64_t n = 0;
	size_t len;
	int rc;

	snprintf(path, sizeof(path), "%s" CORPUS__WEIGHTS, c->stem);
	if ((rc = file_read(path, 0, bytes, &len, note)) != 0)
		return rc;
	if (!hash_equal(hash_bytes(*bytes, len), c->weights_hash))
		return err_expect(note, ERR_CORRUPT, "%s", "the hash %s, as in %s.json: restore the file, or build the corpus again", "%s", path,
		    hash_hex(c->weights_hash, hex), c->stem, hash_hex(hash_bytes(*bytes, len), now));
	if (len >= CORPUS__WEIGHTS_HEADER)
		memcpy(&n, *bytes + 8, 8);
	if (len < CORPUS__WEIGHTS_HEADER || memcmp(*bytes, CORPUS__WEIGHTS_MAGIC, 8) != 0 || n != c->info.n_documents ||
	    len - CORPUS__WEIGHTS_HEADER != 4 * n)
		return err_expect(note, ERR_CORRUPT, "%s", "a weight for each of the %" PRIu64 " documents of the corpus",
		    "%zu bytes, which state %" PRIu64, path, c->info.n_documents, len, n);
	*weights = *bytes + CORPUS__WEIGHTS_HEADER;
	for (uint64_t d = 0; d < n; d++) {
		float weight;

		memcpy(&weight, *weights + 4 * d, 4);
		if (!corpus_weight_valid((double)weight))
			return err_expect_at(note, ERR_CORRUPT, "%s", "document %" PRIu64, CORPUS_WEIGHT_RANGE, "%g", path, d, (double)weight);
	}
	return 0;
}

/* Adds a document of n tokens from `first` on: a new run if its weight differs from the last one's. */
static int
add(struct corpus__weights *w, uint64_t first, uint64_t n, float weight, struct corpus_weights *all)
{
	all->sum += (double)weight * (double)n;
	all->n_masked += weight == 0 ? n : 0;
	if (n == 0 || (w->n > 0 && w->weight[w->n - 1] == weight))
		return 0;
	if (mem_grow((void **)&w->first, &w->cap_first, w->n + 1, sizeof(*w->first)) != 0 ||
	    mem_grow((void **)&w->weight, &w->cap_weight, w->n + 1, sizeof(*w->weight)) != 0)
		return ENOMEM;
	w->first[w->n] = first;
	w->weight[w->n++] = weight;
	return 0;
}

static int
load_one(struct corpus *c, struct corpus_weights *all, struct err_note *note)
{
	struct corpus__weights *w = mem_alloc(1, sizeof(*w));
	struct corpus__documents docs = {.c = c};
	const char *weights = NULL;
	char *bytes = NULL;
	uint64_t first, n;
	float weight;
	int rc = w != NULL ? read_file(c, &bytes, &weights, note) : ENOMEM;

	for (uint64_t d = 0; rc == 0 && (rc = corpus__documents_next(&docs, &first, &n, note)) == 0; d++) {
		memcpy(&weight, weights + 4 * d, 4);
		rc = add(w, first, n, weight, all);
	}
	corpus__documents_end(&docs);
	free(bytes);
	if (rc == ERR_NOT_FOUND) {		/* after the last document */
		corpus__weights_destroy(&c->weights);
		c->weights = w;
		all->identity = c->weights_hash;
		return 0;
	}
	corpus__weights_destroy(&w);
	return rc == ENOMEM ? err_note_set(note, rc, "%s" CORPUS__WEIGHTS, c->stem) : rc;
}

static int
load_parts(struct corpus *c, struct corpus_weights *all, struct err_note *note)
{
	struct hash_state *h = hash_new();
	int rc = h != NULL ? 0 : err_note_set(note, ENOMEM, "loss weights of a blend");

	if (rc == 0)
		hash_field_u64(h, "weights", 1);
	for (size_t i = 0; i < c->n_members && rc == 0; i++) {
		struct corpus_weights one;

		if ((rc = corpus_load_weights(c->members[i], &one, note)) != 0)
			break;
		hash_field(h, "part", &one.identity, sizeof(one.identity));
		all->sum += one.sum;
		all->n_masked += one.n_masked;
	}
	if (rc == 0)
		all->identity = hash_digest(h);
	hash_destroy(&h);
	return rc;
}

int
corpus_load_weights(struct corpus *c, struct corpus_weights *all, struct err_note *note)
{
	*all = (struct corpus_weights){.sum = 0};
	if (!c->info.has_weights) {
		all->sum = (double)c->info.n_tokens;
		return 0;
	}
	return c->members != NULL ? load_parts(c, all, note) : load_one(c, all, note);
}

/* The run that contains a token. */
static size_t
run_of(const struct corpus__weights *w, uint64_t token)
{
	size_t lo = 0, hi = w->n;

	while (hi - lo > 1) {
		size_t mid = lo + (hi - lo) / 2;

		if (w->first[mid] <= token)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

float
corpus_weight_at(const struct corpus *c, uint64_t token)
{
	return c->weights != NULL ? c->weights->weight[run_of(c->weights, token)] : 1;
}

void
corpus_window_weights(const struct corpus *c, uint64_t seq, uint32_t L, float *out)
{
	uint64_t index, token;
	const struct corpus *part = corpus_at(c, L, CORPUS_SEQ_INDEX(seq), &index);
	const struct corpus__weights *w = part->weights;
	size_t run = 0;

	token = index * L + 1;			/* the first target */
	if (w != NULL)
		run = run_of(w, token);
	for (uint32_t t = 0; t < L; t++, token++) {
		while (w != NULL && run + 1 < w->n && w->first[run + 1] <= token)
			run++;
		out[t] = w != NULL ? w->weight[run] : 1;
	}
}
