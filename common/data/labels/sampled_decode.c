/* SPDX-License-Identifier: Apache-2.0 */
/* Decodes a payload row by row: the ids that it shares with an earlier row, its new ids, its counts. */
#include "data/labels/sampled_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"

#define HEADROOM 256u			/* words by which the stack may grow before it shrinks */
#define SET_SMALL 64u			/* ids of a row that get_small_set handles */
#define INLINE static inline __attribute__((always_inline))
/* A PHASE is not inlined, so that the compiler keeps its copy of the decoder in registers. */
#define PHASE static __attribute__((noinline))

struct decoder {
	uint64_t x[STATES];
	const uint32_t *floor, *end, *deepest;	/* bounds of the words; end of the words read so far */
	uint32_t *at;				/* top of the stack */
	const char *wrong;			/* the broken rule, or NULL */
};

/*
 * The slots of the ranks below n: `each` for a rank, `last` for the last one; and 2^64 / slots of both,
 * because division is slow on many processors.
 */
struct share {
	uint32_t each, last;
	uint64_t each_inverse, last_inverse;
};

/* Buffers for a row. keys and of have space for one more entry than a row can have. */
struct rows_buffer {
	struct bits bits;
	struct share shares[SET_SMALL + 1];	/* by number of ids */
	uint32_t max, n;			/* most ids of a row; ids of this row */
	uint32_t *keys, *fresh;			/* keys of the row: all, ascending; its new ones */
	int32_t *ids;
	uint32_t *counts, *of;			/* of: indices of the ids that were drawn more than once */
	uint32_t *past, *past_n;		/* row t at t mod (BACK_MAX + 1): keys [max]; number */
};

INLINE void
refill(struct decoder *d, int state)
{
	if (__builtin_expect(d->x[state] >= LOW, 1))
		return;
	if (d->at == d->end) {
		d->wrong = "words up to the last row";
		d->x[state] = LOW;
		return;
	}
	d->x[state] = d->x[state] << 32 | *d->at++;
	if (d->at > d->deepest)
		d->deepest = d->at;
}

/* Has no branch on the bit, because most bits are unpredictable. */
INLINE unsigned
get_bit(struct decoder *d, struct bit *b)
{
	uint64_t x = d->x[BITS], slot = x & (P_ONE - 1), p = b->p, part = p * (x >> P_BITS), if_one = part + slot, if_not = x - part - p;
	uint64_t one = (slot - p) >> 63;

	d->x[BITS] = if_not ^ ((if_one ^ if_not) & -one);
	refill(d, BITS);
	bit_seen(b, (unsigned)one);
	return (unsigned)one;
}

INLINE uint32_t
get_plain(struct decoder *d, unsigned bits)
{
	uint32_t value = (uint32_t)d->x[BITS] & ((1u << bits) - 1);

	d->x[BITS] >>= bits;
	refill(d, BITS);
	return value;
}

INLINE uint32_t
get_tree(struct decoder *d, struct bit *tree, unsigned bits)
{
	uint32_t node = 1;

	for (unsigned i = 0; i < bits; i++)
		node = 2 * node + get_bit(d, &tree[node]);
	return node - (1u << bits);
}

/* Decodes how much more often than once an id was drawn: 1 .. left - ids + 1, more in a damaged record. */
INLINE uint32_t
get_more(struct decoder *d, struct bits *b, uint32_t left, uint32_t ids)
{
	struct bit *longer = b->longer[labels__log2(left / ids)];
	uint32_t most = left - ids + 1, more;
	unsigned length = 0;

	while (most >> (length + 1) > 0 && get_bit(d, &longer[length < STEPS ? length : STEPS - 1]))
		length++;
	if (length == 0)
		return 1;
	more = 2 + get_bit(d, &b->half[length < STEPS ? length : STEPS - 1]);
	return length > 1 ? more << (length - 1) | get_plain(d, length - 1) : more;
}

/* Decodes a new id: a key whose bits for the count are 0. */
INLINE uint32_t
get_id(struct decoder *d, const struct labels_unigram *u)
{
	uint32_t slot = (uint32_t)d->x[IDS] & (LABELS__SLOTS - 1), place;
	const struct labels__group *g = &u->groups[u->lookup[slot / LABELS__LOOKUP]];

	while (slot >= g[1].start)
		g++;
	d->x[IDS] = g->freq * (d->x[IDS] >> P_BITS) + slot - g->start;
	place = g->first + ((uint32_t)d->x[IDS] & ((1u << g->bits) - 1));
	d->x[IDS] >>= g->bits;
	refill(d, IDS);
	return u->keys[place];
}

static struct share
share_of(uint32_t n)
{
	struct share s = {.each = (1u << RANK_BITS) / n};

	s.last = (1u << RANK_BITS) - (n - 1) * s.each;
	s.each_inverse = UINT64_MAX / s.each;
	s.last_inverse = UINT64_MAX / s.last;
	return s;
}

/* Encodes the rank back into the state that the encoder decoded it from. */
INLINE void
give_rank(struct decoder *d, const struct share *s, uint32_t j, uint32_t n)
{
	uint64_t freq = j < n - 1 ? s->each : s->last, inverse = j < n - 1 ? s->each_inverse : s->last_inverse, x = d->x[RANKS], q, left;

	if (x >= freq << (63 - RANK_BITS)) {
		if (d->at == d->floor) {
			d->wrong = "a stack that shrinks";
			return;
		}
		*--d->at = (uint32_t)x;
		x >>= 32;
	}
	q = (uint64_t)((unsigned __int128)x * inverse >> 64);		/* x / freq, or one less */
	left = x - q * freq;
	q += left >= freq;
	left -= left >= freq ? freq : 0;
	d->x[RANKS] = (q << RANK_BITS) + left + j * s->each;
}

/* The number of v[0 .. lanes) below key; lanes is a compile-time constant. */
INLINE uint32_t
count_less(const uint32_t *v, uint32_t lanes, uint32_t key)
{
	uint32_t less = 0;

	for (uint32_t i = 0; i < lanes; i++)
		less += (int32_t)v[i] < (int32_t)key;
	return less;
}

/*
 * Decodes new ids i .. min(n, lanes) into v, whose later entries are larger than every key. Returns the
 * number of ids decoded so far.
 */
INLINE uint32_t
get_ids(struct decoder *d, const struct labels_unigram *u, const struct rows_buffer *r, uint32_t *v, uint32_t i, uint32_t n, uint32_t lanes)
{
	for (; i < n && i < lanes; i++) {
		uint32_t key = get_id(d, u);

		if (i > 0)
			give_rank(d, &r->shares[i + 1], count_less(v, lanes, key), i + 1);
		v[i] = key;
	}
	return i;
}

INLINE void
put_in_order(const uint32_t *v, uint32_t n, uint32_t lanes, uint32_t *out)
{
	for (uint32_t i = 0; i < n; i++)
		out[count_less(v, lanes, v[i])] = v[i];
}

/*
 * Decodes n new ids and merges them with the n_again ascending keys in r->keys; r->keys is ascending
 * afterwards. For few ids: each is compared with all before it, and they are put in order at the end, without
 * unpredictable branches and in loops of constant length, which are vectorised.
 */
PHASE void
get_small_set(struct decoder *decoder, const struct labels_unigram *u, struct rows_buffer *r, uint32_t n_again, uint32_t n)
{
	uint32_t all = n_again + n, v[2 * SET_SMALL], i;
	struct decoder d = *decoder;

	memset(v, 0x7f, sizeof(v));		/* larger than every key */
	memcpy(v, r->keys, n_again * sizeof(v[0]));
	i = get_ids(&d, u, r, v + n_again, 0, n, 8);
	i = get_ids(&d, u, r, v + n_again, i, n, 16);
	i = get_ids(&d, u, r, v + n_again, i, n, 32);
	get_ids(&d, u, r, v + n_again, i, n, SET_SMALL);
	*decoder = d;
	memset(r->keys, 0, all * sizeof(v[0]));
	if (all <= 16)
		put_in_order(v, all, 16, r->keys);
	else if (all <= 24)
		put_in_order(v, all, 24, r->keys);
	else if (all <= 32)
		put_in_order(v, all, 32, r->keys);
	else
		put_in_order(v, all, SET_SMALL, r->keys);
}

PHASE void
get_large_set(struct decoder *d, const struct labels_unigram *u, struct rows_buffer *r, uint32_t n_again, uint32_t n)
{
	uint32_t *v = r->fresh, again = n_again;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t key = get_id(d, u), j = i;

		for (; j > 0 && v[j - 1] > key; j--)
			v[j] = v[j - 1];
		v[j] = key;
		if (i > 0) {
			struct share s = share_of(i + 1);

			give_rank(d, &s, j, i + 1);
		}
	}
	for (uint32_t to = n_again + n; n > 0;)		/* merge from the end, where r->keys is free */
		r->keys[--to] = again > 0 && r->keys[again - 1] > v[n - 1] ? r->keys[--again] : v[--n];
}

/* Decodes r->n of row t, and the ids it shares with the reference row into r->keys. Returns their number. */
PHASE uint32_t
get_again(struct decoder *decoder, const struct labels_spec *spec, struct rows_buffer *r, uint32_t t)
{
	unsigned n_bits = unique_bits(spec), plain = n_bits > N_TREE_BITS ? n_bits - N_TREE_BITS : 0, back_bits;
	uint32_t back = 0, n_like = 0, n_again = 0, *keys = r->keys;
	struct decoder d = *decoder;
	const uint32_t *like;

	r->n = get_tree(&d, r->bits.n, n_bits - plain) << plain;
	r->n += get_plain(&d, plain) + 1;
	back_bits = get_tree(&d, r->bits.back, BACK_TREE_BITS);
	if (back_bits > 0 && back_bits <= BACK_BITS)
		back = 1u << (back_bits - 1) | get_plain(&d, back_bits - 1);
	if (r->n > r->max || back_bits > BACK_BITS || back > t) {
		d.wrong = r->n > r->max ? "1..N unique ids" : "a row of this record, at most 255 back";
	} else if (back > 0) {
		like = r->past + (size_t)((t - back) & BACK_MAX) * r->max;
		n_like = r->past_n[(t - back) & BACK_MAX];
		for (uint32_t i = 0; i < n_like; i++) {
			keys[n_again] = like[i];
			n_again += get_bit(&d, &r->bits.again[like[i] & (KEY_CONTEXTS - 1)]);
		}
		if (n_again > r->n)
			d.wrong = "at most n ids of another row";
	}
	*decoder = d;
	return n_again;
}

/* Decodes the counts of the r->n ids in r->keys. */
PHASE void
get_counts(struct decoder *decoder, const struct labels_spec *spec, struct rows_buffer *r)
{
	uint32_t n = r->n, left = spec->n_samples - n, m = 0, *keys = r->keys, *counts = r->counts, *of = r->of;
	struct bit *more = r->bits.more[labels__log2(spec->n_samples / n)];
	struct decoder d = *decoder;

	for (uint32_t i = 0; i < n; i++)
		counts[i] = 1;
	if (left == 0)
		return;
	for (uint32_t i = 0; i < n; i++) {
		of[m] = i;
		m += get_bit(&d, &more[keys[i] & (KEY_CONTEXTS - 1)]);
	}
	for (uint32_t i = 0; i < m && left >= m - i; i++) {
		uint32_t extra = i + 1 < m ? get_more(&d, &r->bits, left, m - i) : left;

		counts[of[i]] += extra;
		left = extra <= left ? left - extra : 0;
	}
	if (left != 0)
		d.wrong = "counts with sum N";
	*decoder = d;
}

/* Decodes row t: r->n ids and counts. On failure d->wrong states the broken rule. */
static void
get_row(struct decoder *d, const struct labels_spec *spec, struct rows_buffer *r, uint32_t t)
{
	uint32_t n_again = get_again(d, spec, r, t), n = r->n, now = t & BACK_MAX, *past = r->past + (size_t)now * r->max;
	const uint32_t *keys = r->keys, *counts = r->counts;
	unsigned twice = 0;
	int32_t *ids = r->ids;

	if (d->wrong != NULL)
		return;
	if (n <= SET_SMALL)
		get_small_set(d, spec->unigram, r, n_again, n - n_again);
	else
		get_large_set(d, spec->unigram, r, n_again, n - n_again);
	get_counts(d, spec, r);
	for (uint32_t i = 0; i < n; i++)
		ids[i] = (int32_t)(keys[i] >> 4);
	for (uint32_t i = 1; i < n; i++)
		twice |= ids[i - 1] >= ids[i];
	for (uint32_t i = 0; i < n; i++)
		past[i] = key_drawn(keys[i], counts[i]);
	r->past_n[now] = n;
	if (twice)
		d->wrong = "no id twice";
}

/* Whether the decoder ends as the encoder began: states LOW, an empty stack; and all words were used. */
static int
ends_well(const struct decoder *d)
{
	int good = d->deepest == d->end;

	for (unsigned s = 0; s < STATES; s++)
		good = good && d->x[s] == LOW;
	for (const uint32_t *at = d->at; at < d->end; at++)
		good = good && *at == 0;
	return good;
}

static void
rows_buffer_destroy(struct rows_buffer *r)
{
	if (r == NULL)
		return;
	free(r->keys);
	free(r->fresh);
	free(r->ids);
	free(r->counts);
	free(r->of);
	free(r->past);
	free(r->past_n);
	free(r);
}

static struct rows_buffer *
rows_buffer_new(const struct labels_spec *spec)
{
	struct rows_buffer *r = calloc(1, sizeof(*r));
	size_t max = unique_max(spec), rows = spec->context < BACK_MAX + 1 ? spec->context : BACK_MAX + 1;

	if (r == NULL)
		return NULL;
	bits_init(&r->bits);
	for (uint32_t n = 1; n <= SET_SMALL; n++)
		r->shares[n] = share_of(n);
	r->max = (uint32_t)max;
	r->keys = mem_alloc(max + 1, sizeof(*r->keys));
	r->fresh = mem_alloc(max, sizeof(*r->fresh));
	r->ids = mem_alloc(max, sizeof(*r->ids));
	r->counts = mem_alloc(max, sizeof(*r->counts));
	r->of = mem_alloc(max + 1, sizeof(*r->of));
	/* At most 64 MiB; pages that are never written take no memory. */
	r->past = malloc(max * rows * sizeof(*r->past));
	r->past_n = mem_alloc(rows, sizeof(*r->past_n));
	if (r->keys == NULL || r->fresh == NULL || r->ids == NULL || r->counts == NULL || r->of == NULL || r->past == NULL || r->past_n == NULL) {
		rows_buffer_destroy(r);
		return NULL;
	}
	return r;
}

int
labels__sampled_decode(const struct labels_spec *spec, const uint8_t *payload, size_t len, labels__take_fn *take,
    void *arg, uint32_t *row, const char **wrong)
{
	size_t n_words = len >= LABELS__STATES_BYTES ? (len - LABELS__STATES_BYTES) / 4 : 0;
	uint32_t *words = mem_alloc(HEADROOM + n_words, sizeof(*words));
	struct rows_buffer *r = rows_buffer_new(spec);
	struct decoder d = {.wrong = NULL};
	int rc = ENOMEM;

	*row = 0;
	*wrong = NULL;
	if (words == NULL || r == NULL)
		goto out;
	rc = ERR_CORRUPT;
	if (len < LABELS__STATES_BYTES || len % 4 != 0) {
		*wrong = "a payload of 24 bytes and whole words";
		goto out;
	}
	d.floor = words;
	d.deepest = d.at = words + HEADROOM;
	d.end = d.at + n_words;
	memcpy(d.at, payload + LABELS__STATES_BYTES, 4 * n_words);		/* little-endian hosts only */
	for (unsigned s = 0; s < STATES; s++) {
		d.x[s] = labels__get(payload + 8 * s, 8);
		if (d.x[s] < LOW || d.x[s] >> 63 != 0) {
			*wrong = "a state of 2^31 .. 2^63 - 1";
			goto out;
		}
	}
	for (; *row < spec->context; ++*row) {
		get_row(&d, spec, r, *row);
		if ((*wrong = d.wrong) != NULL)
			goto out;
		if ((rc = take(arg, *row, r->n, r->ids, r->counts)) != 0)
			goto out;
		rc = ERR_CORRUPT;
	}
	if (ends_well(&d))
		rc = 0;
	else
		*wrong = "the coder's first states after the last row";
out:
	rows_buffer_destroy(r);
	free(words);
	return rc;
}
