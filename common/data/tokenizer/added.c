/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/tokenizer_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"

int
tokenizer__trie_alloc(struct trie *t, size_t total)
{
	size_t slots = 16;

	if (++total >= 1u << 24)		/* node numbers have 24 bits */
		return ERR_RANGE;
	while (slots < 2 * total)
		slots *= 2;
	t->mask = slots - 1;
	if ((t->key = mem_alloc(slots, sizeof t->key[0])) == NULL || (t->child = mem_alloc(slots, sizeof t->child[0])) == NULL ||
	    (t->token = mem_alloc(total, sizeof t->token[0])) == NULL)
		return ENOMEM;
	t->token[0] = -1;
	t->n_nodes = 1;
	return 0;
}

int32_t
tokenizer__trie_put(struct trie *t, const unsigned char *p, size_t n, int32_t value)
{
	uint32_t node = 0;
	int32_t before;

	t->first[p[0]] = true;
	for (size_t k = 0; k < n; k++) {
		size_t slot = tokenizer__trie_slot(t, node, p[k]);

		if (t->key[slot] == 0) {
			t->key[slot] = (node << 8 | p[k]) + 1;
			t->child[slot] = t->n_nodes;
			t->token[t->n_nodes++] = -1;
		}
		node = t->child[slot];
	}
	before = t->token[node];
	t->token[node] = value;
	return before;
}

/* ERR_RANGE: too many nodes for 24 bits. ERR_FORMAT: two tokens with the same text. */
int
tokenizer__trie_build(struct tokenizer *tok, struct trie *t, bool normalized)
{
	size_t total = 0, i;
	int rc;

	for (i = 0; i < tok->n_added; i++) {
		if (tok->added[i].normalized == normalized)
			total += tok->added[i].find_len;
	}
	if ((rc = tokenizer__trie_alloc(t, total)) != 0)
		return rc;
	for (i = 0; i < tok->n_added; i++) {
		const struct added_token *a = &tok->added[i];

		if (a->normalized == normalized && tokenizer__trie_put(t, (const unsigned char *)a->find, a->find_len, (int32_t)i) >= 0)
			return ERR_FORMAT;
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
		size_t slot = tokenizer__trie_slot(t, node, p[k]);

		if (t->key[slot] == 0)
			break;
		node = t->child[slot];
		if (t->token[node] >= 0)
			best = &tok->added[t->token[node]];
	}
	return best;
}

/* The length of the character at p if it is of one of these classes, else 0. */
static size_t
class_at(const unsigned char *p, size_t n, unsigned classes)
{
	size_t len = n > 0 ? tokenizer__utf8_len(p, n) : 0;

	return len > 0 && (tokenizer__char_class(tokenizer__utf8_decode(p, len)) & classes) != 0 ? len : 0;
}

/* The same for the character that ends at p + n. */
static size_t
class_before(const unsigned char *p, size_t n, unsigned classes)
{
	size_t k = 1;

	while (k < n && k < 4 && (p[n - k] & 0xc0) == 0x80)
		k++;
	return k <= n ? class_at(p + n - k, k, classes) : 0;
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
		*at = i + a->find_len;
		if ((a->special && (flags & TOKENIZER_SPECIALS) == 0) ||
		    (a->single_word && (class_before(p, i, CHAR_WORD) > 0 || class_at(p + *at, n - *at, CHAR_WORD) > 0))) {
			i = *at;
			continue;
		}
		*start = i;
		*end = *at;
		while (a->lstrip && *start > floor && (k = class_before(p, *start, CHAR_SPACE)) > 0)
			*start -= k;
		if (a->lstrip && *start < floor)
			*start = floor;
		while (a->rstrip && (k = class_at(p + *end, n - *end, CHAR_SPACE)) > 0)
			*end += k;
		return a;
	}
	*at = n;
	return NULL;
}
