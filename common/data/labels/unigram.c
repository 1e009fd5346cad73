/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The unigram table of a label set: one byte per id, from which every process computes the same tables with
 * integer arithmetic.
 *
 * Ids are sorted by (weight descending, id ascending), and ids of one weight are split into groups of 2^m,
 * largest first. The coder writes the group as a symbol that has some of 2^15 slots, and the index of the id
 * within the group as m raw bits. Coding an id therefore takes one table lookup; the table has a few hundred
 * groups, which fit into the first-level cache; and every id has a probability above 0.
 */
#include "data/labels/labels_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"

#define FLATTEN_BELOW_TAU 0.5

static uint64_t
isqrt(uint64_t x)
{
	uint64_t r = 0;

	for (uint64_t bit = UINT64_C(1) << 62; bit != 0; bit >>= 2)
		if (x >= r + bit) {
			x -= r + bit;
			r = (r >> 1) + bit;
		} else {
			r >>= 1;
		}
	return r;
}

/* The code of a weight w, 1 <= w < 2^34: keeps 4 significant bits */
static uint8_t
code_of_weight(uint64_t w)
{
	unsigned e;

	if (w < 16)
		return (uint8_t)w;
	e = labels__log2(w) - 3;
	return (uint8_t)(8 * e + (w >> e));
}

static uint64_t
weight_of_code(uint8_t code)
{
	return code < 16 ? code : (uint64_t)(8 + code % 8) << (code / 8 - 1);
}

static void
unigram_codes(const uint64_t *counts, uint32_t vocab, double tau, uint8_t *codes)
{
	uint64_t max = 1;
	unsigned shift = 0;

	for (uint32_t v = 0; v < vocab; v++)
		if (counts[v] > max)
			max = counts[v];
	while (max >> shift >= UINT64_C(1) << 28)
		shift++;
	for (uint32_t v = 0; v < vocab; v++) {
		uint64_t c = counts[v] >> shift > 0 ? counts[v] >> shift : 1;

		if (tau >= FLATTEN_BELOW_TAU) {		/* c^(3/4) */
			uint64_t half = isqrt(c << 32), quarter = isqrt(half << 16);	/* 16 bits of fraction */

			codes[v] = code_of_weight(half * quarter >> 26);
		} else {
			codes[v] = code_of_weight(c << 6 < UINT64_C(15) << 30 ? c << 6 : UINT64_C(15) << 30);
		}
	}
}

struct hash128
labels_unigram_hash(const struct labels_unigram *u)
{
	return u != NULL ? u->hash : (struct hash128){0, 0};
}

const uint8_t *
labels_unigram_bytes(const struct labels_unigram *u)
{
	return u->codes;
}

uint32_t
labels_unigram_vocab(const struct labels_unigram *u)
{
	return u->vocab;
}

void
labels_unigram_destroy(struct labels_unigram **up)
{
	struct labels_unigram *u = *up;

	if (u == NULL)
		return;
	free(u->codes);
	free(u->keys);
	free(u->place);
	free(u->group_of);
	free(u->groups);
	free(u);
	*up = NULL;
}

/* The first (largest) group of n ids of one weight has 2^first_bits ids. */
static unsigned
first_bits(uint32_t n)
{
	unsigned bits = labels__log2(n);

	return bits < LABELS__GROUP_BITS_MAX ? bits : LABELS__GROUP_BITS_MAX;
}

/* The number of groups of n ids of one weight. */
static uint32_t
groups_of(uint32_t n)
{
	uint32_t groups = 0;

	for (; n > 0; n -= UINT32_C(1) << first_bits(n))
		groups++;
	return groups;
}

int
labels_unigram_new(struct labels_unigram **out, const uint8_t *codes, size_t vocab, struct err_note *note)
{
	struct labels_unigram *u;
	uint32_t many[256] = {0}, at[256], n_groups = 0, place = 0, g = 0, slot = 0;
	uint64_t total = 0, before = 0;
	unsigned shift = 0;

	*out = NULL;
	if (vocab < 1 || vocab > LABELS_UNIGRAM_VOCAB_MAX)
		return err_expect(note, ERR_RANGE, "unigram table", "1..%u ids", "%zu",
		    LABELS_UNIGRAM_VOCAB_MAX, vocab);
	for (size_t v = 0; v < vocab; v++)
		many[codes[v]]++;
	if (many[0] > 0)
		return err_expect(note, ERR_RANGE, "unigram table", "codes of 1..255",
		    "%" PRIu32 " ids with 0", many[0]);
	for (int c = 255; c > 0; c--) {
		total += many[c] * weight_of_code((uint8_t)c);
		n_groups += groups_of(many[c]);
		at[c] = place;
		place += many[c];
	}
	if ((u = calloc(1, sizeof(*u))) == NULL || (u->codes = malloc(vocab)) == NULL || (u->keys = mem_alloc(vocab, sizeof(*u->keys))) == NULL ||
	    (u->place = mem_alloc(vocab, sizeof(*u->place))) == NULL || (u->group_of = mem_alloc(vocab, sizeof(*u->group_of))) == NULL ||
	    (u->groups = mem_alloc((size_t)n_groups + 1, sizeof(*u->groups))) == NULL) {
		labels_unigram_destroy(&u);
		return err_note_set(note, ENOMEM, "unigram table");
	}
	u->vocab = (uint32_t)vocab;
	memcpy(u->codes, codes, vocab);
	u->hash = hash_bytes(codes, vocab);
	for (uint32_t v = 0; v < vocab; v++) {
		u->place[v] = at[codes[v]]++;
		u->keys[u->place[v]] = v << 4 | (u->place[v] < 128 ? 0u : u->place[v] < 2048 ? 1u : 2u) << 2;
	}
	while (total >> shift >= UINT64_C(1) << 47)
		shift++;
	place = 0;
	for (int c = 255; c > 0; c--)
		for (uint32_t left = many[c]; left > 0;) {
			struct labels__group *group = &u->groups[g];
			unsigned bits = first_bits(left);
			uint32_t size = UINT32_C(1) << bits;

			/* One slot for each group, the rest by weight; running sums make the total exact. */
			group->start = (uint32_t)((before >> shift) * (LABELS__SLOTS - n_groups) / (total >> shift)) + g;
			group->first = place;
			group->bits = bits;
			before += size * weight_of_code((uint8_t)c);
			if (g > 0)
				u->groups[g - 1].freq = group->start - u->groups[g - 1].start;
			for (uint32_t i = 0; i < size; i++)
				u->group_of[u->keys[place + i] >> 4] = (uint16_t)g;
			place += size;
			left -= size;
			g++;
		}
	u->groups[g].start = LABELS__SLOTS;
	u->groups[g - 1].freq = LABELS__SLOTS - u->groups[g - 1].start;
	for (uint32_t i = 0; i < LABELS__SLOTS / LABELS__LOOKUP; i++) {
		while (u->groups[slot + 1].start <= i * LABELS__LOOKUP)
			slot++;
		u->lookup[i] = (uint16_t)slot;
	}
	*out = u;
	return 0;
}

int
labels_unigram_from_counts(struct labels_unigram **out, const uint64_t *counts, uint32_t vocab, double tau, struct err_note *note)
{
	uint8_t *codes = mem_alloc(vocab, 1);
	int rc;

	*out = NULL;
	if (codes == NULL)
		return err_note_set(note, ENOMEM, "unigram table");
	unigram_codes(counts, vocab, tau, codes);
	rc = labels_unigram_new(out, codes, vocab, note);
	free(codes);
	return rc;
}
