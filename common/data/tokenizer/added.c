/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/tokenizer_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"

static size_t
edge_slot(const struct trie *t, uint32_t key)
{
	size_t i = (size_t)(key * 0x9e3779b1u) & t->mask;

	while (t->key[i] != 0 && t->key[i] != key)
		i = (i + 1) & t->mask;
	return i;
}

/* ERR_RANGE: more nodes than 24 bits number. */
int
tokenizer__trie_build(struct tokenizer *tok, struct trie *t, bool normalized)
{
	size_t total = 1, slots = 16, i, k;

	for (i = 0; i < tok->n_added; i++) {
		if (tok->added[i].normalized == normalized)
			total += tok->added[i].len;
	}
	if (total >= 1u << 24)
		return ERR_RANGE;
	while (slots < 2 * total)
		slots *= 2;
	t->mask = slots - 1;
	if ((t->key = mem_alloc(slots, sizeof t->key[0])) == NULL || (t->child = mem_alloc(slots, sizeof t->child[0])) == NULL ||
	    (t->token = mem_alloc(total, sizeof t->token[0])) == NULL)
		return ENOMEM;
	t->token[0] = -1;
	t->n_nodes = 1;
	for (i = 0; i < tok->n_added; i++) {
		const struct added_token *a = &tok->added[i];
		uint32_t node = 0;

		if (a->normalized != normalized)
			continue;
		t->first[(unsigned char)a->content[0]] = true;
		for (k = 0; k < a->len; k++) {
			uint32_t key = (node << 8 | (unsigned char)a->content[k]) + 1;
			size_t slot = edge_slot(t, key);

			if (t->key[slot] == 0) {
				t->key[slot] = key;
				t->child[slot] = t->n_nodes;
				t->token[t->n_nodes++] = -1;
			}
			node = t->child[slot];
		}
		t->token[node] = (int32_t)i;
	}
	return 0;
}

void
tokenizer__trie_free(struct trie *t)
{
	free(t->key);
	free(t->child);
	free(t->token);
	memset(t, 0, sizeof *t);
}

/* The longest added token that starts at p; NULL if there is none. */
static const struct added_token *
longest_at(const struct tokenizer *tok, const struct trie *t, const unsigned char *p, size_t n)
{
	const struct added_token *best = NULL;
	uint32_t node = 0;
	size_t k;

	for (k = 0; k < n; k++) {
		size_t slot = edge_slot(t, (node << 8 | p[k]) + 1);

		if (t->key[slot] == 0)
			break;
		node = t->child[slot];
		if (t->token[node] >= 0)
			best = &tok->added[t->token[node]];
	}
	return best;
}

/* Length of the white space character (Unicode White_Space) at p, 0 if there is none. */
static size_t
space_len(const unsigned char *p, size_t n)
{
	if (n >= 1 && (p[0] == ' ' || (p[0] >= 9 && p[0] <= 13)))
		return 1;
	if (n >= 2 && p[0] == 0xc2 && (p[1] == 0x85 || p[1] == 0xa0))
		return 2;
	if (n < 3)
		return 0;
	switch ((p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu)) {
	case 0x1680: case 0x2000: case 0x2001: case 0x2002: case 0x2003: case 0x2004: case 0x2005: case 0x2006: case 0x2007:
	case 0x2008: case 0x2009: case 0x200a: case 0x2028: case 0x2029: case 0x202f: case 0x205f: case 0x3000:
		return (p[0] & 0xf0) == 0xe0 ? 3 : 0;
	default:
		return 0;
	}
}

const struct added_token *
tokenizer__added_next(const struct tokenizer *tok, const struct trie *t, unsigned flags, const unsigned char *p, size_t n,
    size_t floor, size_t *at, size_t *start, size_t *end)
{
	const struct added_token *a;
	size_t i = *at, k;

	if (t->n_nodes <= 1) {
		*at = n;
		return NULL;
	}
	while (i < n) {
		if (!t->first[p[i]] || (a = longest_at(tok, t, p + i, n - i)) == NULL) {
			i++;
			continue;
		}
		if (a->special && (flags & TOKENIZER_SPECIALS) == 0) {
			i += a->len;
			continue;
		}
		*start = i;
		*end = i + a->len;
		if (a->lstrip) {
			for (;;) {
				for (k = 1; k <= 3 && *start >= floor + k && space_len(p + *start - k, k) != k; k++)
					;
				if (k > 3 || *start < floor + k)
					break;
				*start -= k;
			}
		}
		if (a->rstrip) {
			while (*end < n && (k = space_len(p + *end, n - *end)) != 0)
				*end += k;
		}
		*at = *end;
		return a;
	}
	*at = n;
	return NULL;
}
