/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/tokenizer_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"

/*
 * BPE: a word starts as one token per byte, or per character; the neighbouring pair with the lowest rank is
 * merged, the leftmost of equals, until no pair can be merged (Sennrich et al., 2016; the order is that of
 * Hugging Face's BPE).
 *
 * In words up to SHORT_WORD bytes all pairs are scanned for the lowest rank, which is quadratic in theory and
 * fastest in practice.
 *
 * Longer words are a linked list of symbols, with a list of positions for each rank. The ranks are processed
 * in ascending order, and the positions of a rank too. A merge mostly makes pairs of a higher rank than its
 * own, because a token is learnt before the tokens that contain it. A new pair of a lower or equal rank goes
 * to a heap, which is processed first. The time is n log n for any vocabulary.
 */
#define SHORT_WORD 32
#define CACHE_BITS 16
#define CACHE_KEY_BYTES 22
#define CACHE_IDS 8
#define NO_RANK UINT32_MAX
#define WINDOW 2048u /* symbols of a long word that are merged at once */
#define DROPPED 8u /* tokens at the end of a window that are dropped */

/* One cache line of the processor. len 0: free. A new word replaces the one in its slot. */
struct cache_entry {
	uint64_t hash;
	uint8_t len, n;
	bool whole;			/* ids of a whole word: with ignore_merges a part may have other ones */
	unsigned char key[CACHE_KEY_BYTES];
	int32_t ids[CACHE_IDS];
};

struct candidate {
	uint32_t rank, place;
};

/* An entry of a rank's list: a position, and the index of the previous entry. */
struct waiting {
	uint32_t place, before;
};

/*
 * For words longer than SHORT_WORD. Symbol i is ids[i], < 0 if it was merged into another; its neighbours are
 * prev[i] and next[i], UINT32_MAX for none.
 */
struct merge_scratch {
	int32_t *ids;
	uint32_t *prev, *next;
	const struct pair_slot **pair; /* the merge of each symbol with the next one, or NULL */
	struct waiting *waiting; /* entries of all lists */
	uint32_t *last; /* [n_merges] last entry of each rank's list, UINT32_MAX: it is empty */
	uint64_t *listed, *listed64; /* bit r: rank r's list is not empty; bit w: listed[w] is not 0 */
	uint32_t *batch; /* positions of the current rank, ascending */
	struct candidate *heap; /* candidates of the current and lower ranks */
	int32_t *first; /* all symbols of the word, before merging */
	uint32_t *start; /* first symbol of each token found */
	size_t ids_cap, prev_cap, next_cap, pair_cap, waiting_cap, batch_cap, heap_cap, first_cap, start_cap;
	size_t n_waiting, n_heap, n_words64;
	uint32_t rank;
};

struct merge_scratch *
tokenizer__merge_scratch_new(void)
{
	return calloc(1, sizeof(struct merge_scratch));
}

void
tokenizer__merge_scratch_destroy(struct merge_scratch **m)
{
	if (*m == NULL)
		return;
	free((*m)->ids);
	free((*m)->prev);
	free((*m)->next);
	free((*m)->pair);
	free((*m)->waiting);
	free((*m)->last);
	free((*m)->listed);
	free((*m)->listed64);
	free((*m)->batch);
	free((*m)->heap);
	free((*m)->first);
	free((*m)->start);
	free(*m);
	*m = NULL;
}

struct cache_entry *
tokenizer__cache_new(void)
{
	return mem_alloc((size_t)1 << CACHE_BITS, sizeof(struct cache_entry));
}

int
tokenizer__no_token(
    struct tokenizer_encoder *enc, const unsigned char *p, size_t n, int32_t *ids, size_t *n_ids)
{
	const unsigned char *at;
	char found[64];

	if ((enc->flags & TOKENIZER_DROP_UNKNOWN) != 0) {
		enc->n_unknown++;
		if (enc->unknown_id >= 0)
			ids[(*n_ids)++] = enc->unknown_id;
		return 0;
	}
	err_note_set(enc->note, ERR_UNSUPPORTED, "text");
	if ((at = memmem(enc->text, enc->text_len, p, n)) != NULL)
		err_note_place(enc->note, "byte offset %zu", (size_t)(at - enc->text));
	if (n == 1)
		snprintf(found, sizeof found, "byte 0x%02x", p[0]);
	else
		snprintf(found, sizeof found, "'%.*s'", (int)n, (const char *)p);
	err_expect(enc->note, ERR_UNSUPPORTED, "", "bytes that have a token", "%s", found);
	if (enc->tok->model != MODEL_BYTES)
		err_note_expected(enc->note, "characters that have a token");
	return ERR_UNSUPPORTED;
}

/* The length of the character at p; a byte that is not UTF-8 is a character. */
static size_t
char_len(const unsigned char *p, size_t n)
{
	size_t len = tokenizer__utf8_len(p, n);

	return len == 0 ? 1 : len;
}

static int32_t
char_id(const struct tokenizer *tok, const unsigned char *p, size_t len)
{
	return p[0] < 128 ? tok->ascii_id[p[0]] : tokenizer__word_find(tok, p, len);
}

/*
 * The first symbols of a word for MODEL_CHARS. A character becomes its token, else its byte tokens if each
 * byte has one, else the unk_token; with fuse_unk one for a run of them. As in Hugging Face's library the
 * unk_token is put before the next character with a token, so after byte tokens in between.
 */
static int
first_chars(struct tokenizer_encoder *enc, const unsigned char *p, size_t n, int32_t *ids, size_t *n_ids)
{
	const struct tokenizer *tok = enc->tok;
	size_t i, k, len, at = 0;
	bool unknown = false;
	int rc;

	for (i = 0; i < n; i += len) {
		int32_t id = char_id(tok, p + i, len = char_len(p + i, n - i));

		if (id >= 0) {
			if (unknown)
				ids[at++] = tok->unk_id;
			unknown = false;
			ids[at++] = id;
			continue;
		}
		for (k = 0; k < len && tok->byte_id[p[i + k]] >= 0; k++)
			;
		if (k == len) {
			for (k = 0; k < len; k++)
				ids[at++] = tok->byte_id[p[i + k]];
		} else if (tok->unk_id < 0) {
			if ((rc = tokenizer__no_token(enc, p + i, len, ids, &at)) != 0)
				return rc;
		} else {
			if (unknown && !tok->fuse_unk)
				ids[at++] = tok->unk_id;
			unknown = true;
		}
	}
	if (unknown)
		ids[at++] = tok->unk_id;
	*n_ids = at;
	return 0;
}

/* Writes the first tokens of a word, at most one per byte, to ids [n]. Returns 0 or ERR_UNSUPPORTED. */
static int
first_tokens(struct tokenizer_encoder *enc, const unsigned char *p, size_t n, int32_t *ids, size_t *n_ids)
{
	size_t i, at = 0;
	int rc;

	if (enc->tok->model != MODEL_BYTES)
		return first_chars(enc, p, n, ids, n_ids);
	for (i = 0; i < n; i++) {
		int32_t id = enc->tok->byte_id[p[i]];

		if (id >= 0)
			ids[at++] = id;
		else if ((rc = tokenizer__no_token(enc, p + i, 1, ids, &at)) != 0)
			return rc;
	}
	*n_ids = at;
	return 0;
}

static uint32_t
pair_rank(const struct tokenizer *tok, int32_t left, int32_t right)
{
	const struct pair_slot *s = tokenizer__pair_find(tok, (uint32_t)left, (uint32_t)right);

	return s == NULL ? NO_RANK : s->rank;
}

/* Merges ids[0..n) in place; n <= SHORT_WORD. Returns the number left. */
static size_t
merge_short(const struct tokenizer *tok, int32_t *ids, size_t n)
{
	uint32_t rank[SHORT_WORD];		/* rank[i]: of the pair ids[i], ids[i + 1] */
	size_t i, best;

	for (i = 0; i + 1 < n; i++)
		rank[i] = pair_rank(tok, ids[i], ids[i + 1]);
	while (n > 1) {
		for (best = 0, i = 1; i + 1 < n; i++) {
			if (rank[i] < rank[best])
				best = i;
		}
		if (rank[best] == NO_RANK)
			break;
		ids[best] = tokenizer__pair_find(tok, (uint32_t)ids[best], (uint32_t)ids[best + 1])->id;
		n--;
		for (i = best + 1; i < n; i++) {
			ids[i] = ids[i + 1];
			rank[i - 1] = rank[i];
		}
		if (best > 0)
			rank[best - 1] = pair_rank(tok, ids[best - 1], ids[best]);
		if (best + 1 < n)
			rank[best] = pair_rank(tok, ids[best], ids[best + 1]);
	}
	return n;
}

static bool
before(struct candidate a, struct candidate b)
{
	return a.rank != b.rank ? a.rank < b.rank : a.place < b.place;
}

static void
sift_down(struct candidate *heap, size_t n, size_t i)
{
	struct candidate c = heap[i];

	for (;;) {
		size_t k = 2 * i + 1;

		if (k >= n)
			break;
		if (k + 1 < n && before(heap[k + 1], heap[k]))
			k++;
		if (!before(heap[k], c))
			break;
		heap[i] = heap[k];
		i = k;
	}
	heap[i] = c;
}

static int
heap_push(struct merge_scratch *m, struct candidate c)
{
	size_t i = m->n_heap;

	if (i == m->heap_cap && mem_grow((void **)&m->heap, &m->heap_cap, i + 1, sizeof m->heap[0]) != 0)
		return ENOMEM;
	for (m->n_heap++; i > 0 && before(c, m->heap[(i - 1) / 2]); i = (i - 1) / 2)
		m->heap[i] = m->heap[(i - 1) / 2];
	m->heap[i] = c;
	return 0;
}

/* Makes a position a candidate if its symbol can be merged with the next one. */
static int
consider(const struct tokenizer *tok, struct merge_scratch *m, uint32_t place)
{
	const struct pair_slot *s = NULL;
	uint32_t rank;

	if (m->next[place] != UINT32_MAX)
		s = tokenizer__pair_find(tok, (uint32_t)m->ids[place], (uint32_t)m->ids[m->next[place]]);
	if ((m->pair[place] = s) == NULL)
		return 0;
	if ((rank = s->rank) <= m->rank && m->rank != NO_RANK)
		return heap_push(m, (struct candidate){rank, place});
	m->waiting[m->n_waiting] = (struct waiting){place, m->last[rank]};
	m->last[rank] = (uint32_t)m->n_waiting++;
	m->listed[rank / 64] |= UINT64_C(1) << rank % 64;
	m->listed64[rank / 4096] |= UINT64_C(1) << rank / 64 % 64;
	return 0;
}

static int
by_place(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/*
 * Moves the list of the lowest rank to m->batch, sets m->rank; returns its length, 0 if all lists are empty.
 */
static size_t
next_batch(struct merge_scratch *m)
{
	size_t w = m->rank == NO_RANK ? 0 : m->rank / 4096, at, n = 0, i;
	uint32_t k, place;
	bool sorted = true;

	while (w < m->n_words64 && m->listed64[w] == 0)
		w++;
	if (w == m->n_words64)
		return 0;
	at = 64 * w + (size_t)__builtin_ctzll(m->listed64[w]);
	m->rank = (uint32_t)(64 * at + (size_t)__builtin_ctzll(m->listed[at]));
	if ((m->listed[at] &= m->listed[at] - 1) == 0)
		m->listed64[w] &= m->listed64[w] - 1;
	for (k = m->last[m->rank]; k != UINT32_MAX; k = m->waiting[k].before)
		m->batch[n++] = m->waiting[k].place;
	m->last[m->rank] = UINT32_MAX;
	for (i = 0; i < n / 2; i++) {		/* the list is in reverse order */
		place = m->batch[i];
		m->batch[i] = m->batch[n - 1 - i];
		m->batch[n - 1 - i] = place;
	}
	/* They are sorted unless the text contains the name of a byte token, which can be merged too. */
	for (i = 1; i < n && sorted; i++)
		sorted = m->batch[i - 1] <= m->batch[i];
	if (!sorted)
		qsort(m->batch, n, sizeof m->batch[0], by_place);
	return n;
}

static int
merge_room(struct merge_scratch *m, size_t n, size_t n_merges)
{
	size_t words = n_merges / 64 + 1;
	int rc;

	/* Each merge removes one symbol and adds at most two candidates, so there are never more than 3n. */
	if ((rc = mem_grow((void **)&m->ids, &m->ids_cap, n, sizeof m->ids[0])) != 0 ||
	    (rc = mem_grow((void **)&m->prev, &m->prev_cap, n, sizeof m->prev[0])) != 0 ||
	    (rc = mem_grow((void **)&m->next, &m->next_cap, n, sizeof m->next[0])) != 0 ||
	    (rc = mem_grow((void **)&m->pair, &m->pair_cap, n, sizeof m->pair[0])) != 0 ||
	    (rc = mem_grow((void **)&m->waiting, &m->waiting_cap, 3 * n, sizeof m->waiting[0])) != 0 ||
	    (rc = mem_grow((void **)&m->batch, &m->batch_cap, 3 * n, sizeof m->batch[0])) != 0)
		return rc;
	if (m->listed64 != NULL)
		return 0;
	free(m->last);			/* from a call that failed for lack of memory */
	free(m->listed);
	m->last = mem_alloc(n_merges + 1, sizeof m->last[0]);
	m->listed = mem_alloc(words, sizeof m->listed[0]);
	if (m->last == NULL || m->listed == NULL ||
	    (m->listed64 = mem_alloc(words / 64 + 1, sizeof m->listed64[0])) == NULL)
		return ENOMEM;
	memset(m->last, 0xff, n_merges * sizeof m->last[0]);
	m->n_words64 = words / 64 + 1;
	return 0;
}

/*
 * Merges the symbol at a position with the next one. Does nothing if the candidate is stale: the pair at its
 * position has another rank, or the symbol was merged into another.
 */
static int
merge_at(const struct tokenizer *tok, struct merge_scratch *m, uint32_t place, uint32_t rank)
{
	const struct pair_slot *s = m->pair[place];
	uint32_t right = m->next[place];
	int rc;

	if (m->ids[place] < 0 || s == NULL || s->rank != rank)
		return 0;
	m->ids[place] = s->id;
	m->ids[right] = -1;
	m->next[place] = m->next[right];
	if (m->next[right] != UINT32_MAX)
		m->prev[m->next[right]] = place;
	if (m->prev[place] != UINT32_MAX && (rc = consider(tok, m, m->prev[place])) != 0)
		return rc;
	return consider(tok, m, place);
}

/* Merges symbols[0..n); m->ids, prev and next have the result. */
static int
merge_list(const struct tokenizer *tok, struct merge_scratch *m, const int32_t *symbols, size_t n)
{
	size_t i, n_batch;
	int rc;

	if ((rc = merge_room(m, n, tok->n_merges)) != 0)
		return rc;
	memcpy(m->ids, symbols, n * sizeof m->ids[0]);
	for (i = 0; i < n; i++) {
		m->prev[i] = (uint32_t)i - 1;		/* UINT32_MAX for the first */
		m->next[i] = i + 1 < n ? (uint32_t)i + 1 : UINT32_MAX;
	}
	m->n_waiting = m->n_heap = 0;
	m->rank = NO_RANK;
	for (i = 0; i + 1 < n; i++)
		consider(tok, m, (uint32_t)i);
	while ((n_batch = next_batch(m)) > 0) {
		for (i = 0; i < n_batch || m->n_heap > 0;) {
			struct candidate c = {m->rank, i < n_batch ? m->batch[i] : UINT32_MAX};

			if (m->n_heap > 0 && before(m->heap[0], c)) {
				c = m->heap[0];
				m->heap[0] = m->heap[--m->n_heap];
				if (m->n_heap > 0)
					sift_down(m->heap, m->n_heap, 0);
			} else {
				i++;
			}
			if (rc == 0)		/* after ENOMEM only empty the lists */
				rc = merge_at(tok, m, c.place, c.rank);
		}
	}
	return rc;
}

/*
 * Merges the symbols of a long word in windows that fit the processor's cache. A list of tokens is the
 * correct result for all its symbols if every two neighbouring tokens are the result for their own symbols:
 * suppose a merge crosses the border between two tokens. Before the first such merge both sides are merged as
 * they would be alone, so the symbols of these two tokens alone would have this merge too. Within a window
 * all neighbours satisfy this. The last tokens of a window, which its end may have changed, are dropped, and
 * the next window begins with their symbols. Then only the two tokens at the border have to be checked. If
 * the check fails, the next window begins further back and is longer.
 */
static int
merge_windows(const struct tokenizer *tok, struct merge_scratch *m, size_t n, struct tokenizer_ids *out)
{
	int32_t *ids = out->ids + out->n;
	size_t from = 0, n_kept = 0, size = WINDOW, back = 1, n_new, len, border;
	uint32_t *start = m->start, at;		/* start[i]: first symbol of ids[i] */
	int rc;

	while (from < n) {
		len = n - from < size ? n - from : size;
		if ((rc = merge_list(tok, m, m->first + from, len)) != 0)
			return rc;
		for (n_new = n_kept, at = 0; at != UINT32_MAX; at = m->next[at]) {
			start[n_new] = (uint32_t)from + at;
			ids[n_new++] = m->ids[at];
		}
		start[n_new] = (uint32_t)(from + len);
		if (n_kept > 0) {
			border = from - start[n_kept - 1];
			if ((rc = merge_list(tok, m, m->first + from - border, start[n_kept + 1] - from + border)) != 0)
				return rc;
			if (m->next[0] != border || m->next[border] != UINT32_MAX) {
				n_kept -= back < n_kept ? back : n_kept;
				from = start[n_kept];
				back *= 2;
				size *= 2;
				continue;
			}
		}
		if (from + len < n) {
			if (n_new < n_kept + DROPPED || start[n_new - DROPPED] - from < len / 2) {
				size *= 2;
				continue;
			}
			n_new -= DROPPED;
		}
		n_kept = n_new;
		from = start[n_kept];
		size = WINDOW;
		back = 1;
	}
	out->n += n_kept;
	return 0;
}

static int
merge_long(struct tokenizer_encoder *enc, const unsigned char *p, size_t n)
{
	struct merge_scratch *m = enc->merge;
	size_t n_ids;
	int rc;

	if ((rc = mem_grow((void **)&m->first, &m->first_cap, n, sizeof m->first[0])) != 0 ||
	    (rc = mem_grow((void **)&m->start, &m->start_cap, n + 1, sizeof m->start[0])) != 0)
		return err_note_set(enc->note, rc, "a word of %zu bytes", n);
	if ((rc = first_tokens(enc, p, n, m->first, &n_ids)) != 0)
		return rc;
	if ((rc = tokenizer__ids_reserve(enc->out, n_ids)) != 0)
		return err_note_set(enc->note, rc, "token ids");
	if ((rc = merge_windows(enc->tok, m, n_ids, enc->out)) != 0)
		return err_note_set(enc->note, rc, "a word of %zu bytes", n);
	return 0;
}

/*
 * If a text is not split into words, or only into long ones, it is cut at positions that no merge can cross.
 * A merge joins two tokens, so it can cross a position only if the left token of some merge ends with the
 * byte before the position and the right token begins with the byte after it. The parts between such
 * positions are merged separately and are short enough for the cache. There is no cut before a character that
 * may become part of an unk_token, and none at all if byte tokens or the unk_token take part in merges,
 * because their names are not the text.
 */
static const unsigned char space[3] = {0xe2, 0x96, 0x81}; /* U+2581 */

static void
join(struct tokenizer *tok, unsigned char left, const unsigned char *right, size_t n)
{
	tok->joins[left][right[0] / 32] |= 1u << right[0] % 32;
	if (n >= sizeof space && memcmp(right, space, sizeof space) == 0)
		tok->joins_space[left] = true;
}

static bool
stands_for_text(const struct tokenizer *tok, uint32_t id)
{
	size_t b;

	if (tok->len[id] == 6) {
		for (b = 0; b < 256 && tok->byte_id[b] != (int32_t)id; b++)
			;
		if (b < 256)
			return false;
	}
	return (int32_t)id != tok->unk_id && tok->len[id] > 0;
}

void
tokenizer__joins_build(struct tokenizer *tok)
{
	size_t i, k;

	if (tok->model == MODEL_BYTES)
		return;
	tok->all_bytes = true;
	for (i = 0; i < 256; i++)
		tok->all_bytes = tok->all_bytes && tok->byte_id[i] >= 0;
	for (i = 0; i < 128; i++)
		tok->ascii_id[i] = tokenizer__word_find(tok, &(unsigned char){(unsigned char)i}, 1);
	tok->may_cut = tokenizer__word_find(tok, space, sizeof space) >= 0;
	for (i = 0; tok->pair != NULL && i <= tok->pair_mask; i++) {
		const struct pair_slot *s = &tok->pair[i];

		if (s->left == UINT32_MAX)
			continue;
		if (!stands_for_text(tok, s->left) || !stands_for_text(tok, s->right))
			tok->may_cut = false;
		else
			join(tok, tok->bytes[s->left][tok->len[s->left] - 1], tok->bytes[s->right],
			    tok->len[s->right]);
	}
	for (i = 0; tok->model == MODEL_UNIGRAM && i < (size_t)tok->n_tokens; i++) {
		for (k = 1; k < tok->len[i]; k++)
			join(tok, tok->bytes[i][k - 1], tok->bytes[i] + k, tok->len[i] - k);
	}
}

size_t
tokenizer__cut(const struct tokenizer *tok, const unsigned char *p, size_t n)
{
	size_t i;

	for (i = 1; i < n; i++) {
		if (p[i] < 0x80 ? (tok->all_bytes || tok->ascii_id[p[i]] >= 0) &&
			    (tok->joins[p[i - 1]][p[i] / 32] >> p[i] % 32 & 1) == 0 :
				  p[i] == space[0] && n - i >= sizeof space &&
			    memcmp(p + i, space, sizeof space) == 0 && !tok->joins_space[p[i - 1]])
			break;
	}
	return i;
}

/* Encodes a word, or a part of one; whole: it is a whole word, to which ignore_merges may apply. */
static int
word(struct tokenizer_encoder *enc, const unsigned char *p, size_t n, bool whole)
{
	const struct tokenizer *tok = enc->tok;
	struct tokenizer_ids *out = enc->out;
	struct cache_entry *e = NULL;
	uint64_t hash = 0, n_unknown = enc->n_unknown;
	int32_t ids[SHORT_WORD], id;
	size_t n_ids;
	int rc;

	if (n == 0)
		return 0;
	if ((rc = tokenizer__ids_reserve(out, SHORT_WORD)) != 0)
		return err_note_set(enc->note, rc, "token ids");
	if (n <= CACHE_KEY_BYTES) {
		hash = hash_bytes64(p, n);
		e = &enc->cache[hash >> (64 - CACHE_BITS)];
		if (e->hash == hash && e->len == n && e->whole == whole && memcmp(e->key, p, n) == 0) {
			memcpy(out->ids + out->n, e->ids, sizeof e->ids);
			out->n += e->n;
			return 0;
		}
	}
	if (whole && tok->ignore_merges && (id = tokenizer__word_find(tok, p, n)) >= 0) {
		ids[0] = id;
		n_ids = 1;
	} else if (tok->model == MODEL_UNIGRAM) {
		size_t before = out->n;

		if ((rc = tokenizer__unigram_word(enc, p, n, out)) != 0)
			return rc;
		if ((n_ids = out->n - before) > CACHE_IDS)
			return 0;
		memcpy(ids, out->ids + before, n_ids * sizeof ids[0]);
		out->n = before;
	} else if (n <= SHORT_WORD) {
		if ((rc = first_tokens(enc, p, n, ids, &n_ids)) != 0)
			return rc;
		n_ids = merge_short(tok, ids, n_ids);
	} else {
		return merge_long(enc, p, n);
	}
	memcpy(out->ids + out->n, ids, n_ids * sizeof ids[0]);
	out->n += n_ids;
	if (e != NULL && n_ids <= CACHE_IDS && enc->n_unknown == n_unknown) {
		e->hash = hash;
		e->len = (uint8_t)n;
		e->n = (uint8_t)n_ids;
		e->whole = whole;
		memcpy(e->key, p, n);
		memcpy(e->ids, ids, n_ids * sizeof ids[0]);
	}
	return 0;
}

int
tokenizer__word(struct tokenizer_encoder *enc, const unsigned char *p, size_t n)
{
	const struct tokenizer *tok = enc->tok;
	size_t len;
	int rc = 0;

	if (tok->model != MODEL_CHARS || !tok->may_cut)
		return word(enc, p, n, true);
	if (n > 0 && tok->ignore_merges && tokenizer__word_find(tok, p, n) >= 0)
		return word(enc, p, n, true);
	for (; n > 0 && rc == 0; p += len, n -= len)
		rc = word(enc, p, len = tokenizer__cut(tok, p, n), false);
	return rc;
}
