/* SPDX-License-Identifier: Apache-2.0 */
/* Encodes rows: a forward pass collects steps with their probabilities, a backward pass runs the coder. */
#include "data/labels/sampled_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"

/* When rows are compared, only ids that cost at least this many bits count: cheaper ones are in most rows. */
#define LIKE_BITS 8
#define LIKE_WORTH 5			/* bits: cost of a repeated id; least gain of a reference */

/*
 * One step of the coder for one state: `bits` plain bits with the value `low`, then the slots [start, start +
 * freq) of 2^15. freq 0 marks a set: the `low` steps before it are a row's new ids, which may be coded in any
 * order.
 */
struct step {
	uint16_t start, freq, low;
	uint8_t bits, state;
};

/* An id of a row of this record. older: index of the id's previous entry, or NONE. */
struct entry {
	uint32_t key, row, older;
};

#define NONE UINT32_MAX

struct encoder {
	const struct labels_spec *spec;
	struct bits bits;
	struct step *steps;
	struct entry *entries;
	size_t *row_at;				/* [L + 1] into entries */
	int32_t *half_n;			/* [L] half the number of each row's ids */
	uint32_t *latest;			/* [V] index of each id's last entry, or NONE */
	uint32_t *in_row;			/* [V] 1 + index of each id in the current row, else 0 */
	uint32_t *words, *order;
	size_t n_steps, cap_steps, n_entries, cap_entries, n_words, cap_words;
	uint64_t x[STATES];
};

/* The put_ functions append steps; forward_row has reserved memory for them. */
static void
put_bit(struct encoder *e, struct bit *b, unsigned value)
{
	uint32_t p = b->p, zero = value - 1;			/* all ones for 0, to avoid an unpredictable branch */

	e->steps[e->n_steps++] = (struct step){(uint16_t)(p & zero), (uint16_t)(p + ((P_ONE - 2 * p) & zero)), 0, 0, BITS};
	bit_seen(b, value);
}

static void
put_plain(struct encoder *e, uint32_t value, unsigned bits)
{
	if (bits > 0)
		e->steps[e->n_steps++] = (struct step){0, P_ONE, (uint16_t)(value & ((1u << bits) - 1)), (uint8_t)bits, BITS};
}

/* Puts `bits` bits of value, high bit first; the context of each bit is the bits before it. */
static void
put_tree(struct encoder *e, struct bit *tree, uint32_t value, unsigned bits)
{
	for (uint32_t node = 1; bits-- > 0; node = 2 * node + (value >> bits & 1))
		put_bit(e, &tree[node], value >> bits & 1);
}

static void
put_n(struct encoder *e, uint32_t n)
{
	unsigned bits = unique_bits(e->spec), plain = bits > N_TREE_BITS ? bits - N_TREE_BITS : 0;

	put_tree(e, e->bits.n, (n - 1) >> plain, bits - plain);
	put_plain(e, n - 1, plain);
}

static void
put_back(struct encoder *e, uint32_t back)
{
	unsigned bits = back > 0 ? labels__log2(back) + 1 : 0;

	put_tree(e, e->bits.back, bits, BACK_TREE_BITS);
	put_plain(e, back, bits > 0 ? bits - 1 : 0);
}

/* Puts how much more often than once an id was drawn: 1 .. left - ids + 1. */
static void
put_more(struct encoder *e, uint32_t left, uint32_t ids, uint32_t more)
{
	struct bit *longer = e->bits.longer[labels__log2(left / ids)];
	unsigned length = labels__log2(more), length_max = labels__log2(left - ids + 1);

	for (unsigned i = 0; i < length_max && i <= length; i++)
		put_bit(e, &longer[i < STEPS ? i : STEPS - 1], i < length);
	if (length == 0)
		return;
	put_bit(e, &e->bits.half[length < STEPS ? length : STEPS - 1], more >> (length - 1) & 1);
	put_plain(e, more, length - 1);
}

/* Puts the counts of a row's n ids. */
static void
put_counts(struct encoder *e, const struct entry *row, const int32_t *counts, uint32_t n)
{
	struct bit *more = e->bits.more[labels__log2(e->spec->n_samples / n)];
	uint32_t left = e->spec->n_samples - n, ids = 0;

	for (uint32_t i = 0; i < n && left > 0; i++) {
		put_bit(e, &more[row[i].key & (KEY_CONTEXTS - 1)], counts[i] > 1);
		ids += counts[i] > 1;
	}
	for (uint32_t i = 0; i < n && ids > 1; i++) {
		if (counts[i] == 1)
			continue;
		put_more(e, left, ids--, (uint32_t)counts[i] - 1);
		left -= (uint32_t)counts[i] - 1;
	}
}

static const struct labels__group *
group_of(const struct labels_unigram *u, int32_t id)
{
	return &u->groups[u->group_of[id]];
}

static void
put_id(struct encoder *e, int32_t id)
{
	const struct labels__group *g = group_of(e->spec->unigram, id);

	e->steps[e->n_steps++] = (struct step){(uint16_t)g->start, (uint16_t)g->freq, (uint16_t)(e->spec->unigram->place[id] - g->first),
	    (uint8_t)g->bits, IDS};
}

/*
 * The distance back to the row that is most similar to row t; 0: none. A decoder accepts any choice, but the
 * encoder always makes the same one, so that equal rows give equal records.
 */
static uint32_t
most_like(const struct encoder *e, uint32_t t, const struct labels__row *row)
{
	uint32_t first = t < BACK_MAX ? 0 : t - BACK_MAX, n = t - first;
	int32_t worth[BACK_MAX + 1] = {0}, best = LIKE_WORTH * (BACK_MAX + 1) + BACK_MAX;

	for (uint32_t i = 0; i < row->n; i++) {
		const struct labels__group *g = group_of(e->spec->unigram, row->ids[i]);
		int32_t bits = P_BITS + (int32_t)g->bits - (int32_t)labels__log2(g->freq);

		if (bits < LIKE_BITS)
			continue;
		for (uint32_t at = e->latest[row->ids[i]]; at != NONE && e->entries[at].row >= first; at = e->entries[at].older)
			worth[e->entries[at].row - first] += bits - LIKE_WORTH;
	}
	/* Worth in the high bits, row in the low bits: of equal rows the nearest wins. Vectorised. */
	for (uint32_t i = 0; i < n; i++) {
		int32_t w = (worth[i] - e->half_n[first + i]) * (int32_t)(BACK_MAX + 1) + (int32_t)i;

		best = w > best ? w : best;
	}
	return best > (int32_t)(LIKE_WORTH * (BACK_MAX + 1) + BACK_MAX) ? n - ((uint32_t)best & BACK_MAX) : 0;
}

/*
 * Appends an entry for each id of the row; its key tells how often the reference row has the id. Puts a bit
 * for each id of the reference row: whether this row has it too.
 */
static void
put_again(struct encoder *e, uint32_t t, uint32_t back, const struct labels__row *row)
{
	struct entry *now = e->entries + e->n_entries, nowhere;

	for (uint32_t i = 0; i < row->n; i++) {
		int32_t id = row->ids[i];

		now[i] = (struct entry){e->spec->unigram->keys[e->spec->unigram->place[id]], t, e->latest[id]};
		e->in_row[id] = i + 1;
	}
	if (back > 0)
		for (const struct entry *like = e->entries + e->row_at[t - back]; like < e->entries + e->row_at[t - back + 1]; like++) {
			uint32_t i = e->in_row[like->key >> 4];

			put_bit(e, &e->bits.again[like->key & (KEY_CONTEXTS - 1)], i > 0);
			(i > 0 ? &now[i - 1] : &nowhere)->key = like->key;
		}
	for (uint32_t i = 0; i < row->n; i++) {
		e->in_row[row->ids[i]] = 0;
		e->latest[row->ids[i]] = (uint32_t)e->n_entries++;
	}
}

static int
forward_row(struct encoder *e, uint32_t t, const struct labels__row *row)
{
	uint32_t back = most_like(e, t, row);
	size_t n_like = back > 0 ? e->row_at[t - back + 1] - e->row_at[t - back] : 0, first;
	struct entry *entries;
	int rc;

	/*
	 * Steps: n 9, back 5, one for each id of the reference row, ids and their end; at most 19 for a count.
	 */
	if ((rc = mem_grow((void **)&e->steps, &e->cap_steps, e->n_steps + 32 + n_like + 20 * (size_t)row->n, sizeof(*e->steps))) != 0 ||
	    (rc = mem_grow((void **)&e->entries, &e->cap_entries, e->n_entries + row->n, sizeof(*e->entries))) != 0)
		return rc;
	if (e->n_entries + row->n >= NONE)
		return ERR_RANGE;
	put_n(e, row->n);
	put_back(e, back);
	put_again(e, t, back, row);
	entries = e->entries + e->row_at[t];
	first = e->n_steps;
	for (uint32_t i = 0; i < row->n; i++) {
		put_id(e, row->ids[i]);
		e->n_steps -= (entries[i].key & 3) != 0;	/* the reference row has it: drop this step */
	}
	e->steps[e->n_steps] = (struct step){0, 0, (uint16_t)(e->n_steps - first), 0, 0};
	e->n_steps++;
	put_counts(e, entries, row->counts, row->n);
	for (uint32_t i = 0; i < row->n; i++)
		entries[i].key = key_drawn(entries[i].key, (uint32_t)row->counts[i]);
	e->row_at[t + 1] = e->n_entries;
	e->half_n[t] = (int32_t)(row->n / 2);
	return 0;
}

static int
push_word(struct encoder *e, unsigned state)
{
	if (e->n_words == e->cap_words && mem_grow((void **)&e->words, &e->cap_words, 2 * e->cap_words + 1024, sizeof(*e->words)) != 0)
		return ENOMEM;
	e->words[e->n_words++] = (uint32_t)e->x[state];
	e->x[state] >>= 32;
	return 0;
}

static inline int
push_step(struct encoder *e, struct step s)
{
	uint64_t *x = &e->x[s.state];

	if (*x >= (uint64_t)s.freq << (63 - P_BITS - s.bits) && push_word(e, s.state) != 0)
		return ENOMEM;
	*x = *x << s.bits | s.low;
	if (s.freq < P_ONE)
		*x = (*x / s.freq << P_BITS) + *x % s.freq + s.start;
	return 0;
}

/* Decodes a rank below n from the state: which of the remaining ids is encoded next, and decoded last. */
static uint32_t
pull_rank(struct encoder *e, uint32_t n)
{
	uint64_t *x = &e->x[RANKS];
	uint32_t each = (1u << RANK_BITS) / n, slot = (uint32_t)*x & ((1u << RANK_BITS) - 1);
	uint32_t j = slot / each < n - 1 ? slot / each : n - 1;

	*x = (j < n - 1 ? each : (1u << RANK_BITS) - j * each) * (*x >> RANK_BITS) + slot - j * each;
	if (*x < LOW)
		*x = *x << 32 | (e->n_words > 0 ? e->words[--e->n_words] : 0);
	return j;
}

/* Encodes a set, the n steps of ids in ascending order. */
static int
push_set(struct encoder *e, const struct step *steps, uint32_t n)
{
	int rc = 0;

	for (uint32_t i = 0; i < n; i++)
		e->order[i] = i;
	for (; n > 0 && rc == 0; n--) {
		uint32_t j = n > 1 ? pull_rank(e, n) : 0, i = e->order[j];

		for (uint32_t k = j; k + 1 < n; k++)
			e->order[k] = e->order[k + 1];
		rc = push_step(e, steps[i]);
	}
	return rc;
}

static int
backward(struct encoder *e)
{
	int rc = 0;

	while (e->n_steps > 0 && rc == 0) {
		struct step s = e->steps[--e->n_steps];

		if (s.freq > 0) {
			rc = push_step(e, s);
		} else {
			e->n_steps -= s.low;
			rc = push_set(e, e->steps + e->n_steps, s.low);
		}
	}
	return rc;
}

int
labels__sampled_encode(const struct labels_spec *spec, labels__row_fn *get, void *arg, struct labels_buf *payload)
{
	struct encoder *e = calloc(1, sizeof(*e));
	struct labels__row row;
	int rc = ENOMEM;

	if (e == NULL || (e->order = mem_alloc(unique_max(spec), sizeof(*e->order))) == NULL ||
	    (e->row_at = mem_alloc((size_t)spec->context + 1, sizeof(*e->row_at))) == NULL ||
	    (e->half_n = mem_alloc(spec->context, sizeof(*e->half_n))) == NULL || (e->in_row = mem_alloc(spec->vocab, sizeof(*e->in_row))) == NULL ||
	    (e->latest = mem_alloc(spec->vocab, sizeof(*e->latest))) == NULL)
		goto out;
	e->spec = spec;
	e->row_at[0] = 0;
	memset(e->latest, 0xff, spec->vocab * sizeof(*e->latest));		/* NONE */
	for (unsigned s = 0; s < STATES; s++)
		e->x[s] = LOW;
	bits_init(&e->bits);
	for (uint32_t t = 0; t < spec->context; t++) {
		get(arg, t, &row);
		if ((rc = forward_row(e, t, &row)) != 0)
			goto out;
	}
	if ((rc = backward(e)) != 0 || (rc = mem_grow((void **)&payload->bytes, &payload->cap,
	    payload->len + LABELS__STATES_BYTES + 4 * e->n_words + 8, 1)) != 0)
		goto out;
	for (unsigned s = 0; s < STATES; s++, payload->len += 8)
		labels__put(payload->bytes + payload->len, e->x[s], 8);
	for (; e->n_words > 0; payload->len += 4)
		labels__put(payload->bytes + payload->len, e->words[--e->n_words], 4);
out:
	if (e != NULL) {
		free(e->steps);
		free(e->entries);
		free(e->row_at);
		free(e->half_n);
		free(e->latest);
		free(e->in_row);
		free(e->words);
		free(e->order);
	}
	free(e);
	return rc;
}
