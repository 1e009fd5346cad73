/*
 * The payload of sampled labels: a range coder that is a stack (rANS; Duda, 2013), 64-bit state, 32-bit words, integers only.
 *
 * What is decoded first was encoded last. The n ids of a row are a set: the encoder takes them in an order that it reads out of the
 * state itself, so that log2(n!) bits come back (bits back; Townsend, Bird and Barber, 2019). The decoder, which sees that order, puts
 * its rank back into the state, id by id. Whatever the stack is asked for below its bottom is zeros, as many as there need be.
 *
 * Counts come in the order of the ids, each under what is left for how many; a common id's count is another thing than a rare one's.
 * Bits have adaptive probabilities, which begin anew in each record.
 */
#include "labels/labels_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "mem/mem.h"

#define LOW (UINT64_C(1) << 31)		/* the state is LOW .. 2^63 - 1 between steps */
#define P_BITS 15
#define P_ONE (1u << P_BITS)
#define P_MIN 24u
#define RANK_BITS 16
#define HEADROOM 256u			/* words the decoder's stack may grow before it shrinks */
#define SEEN_FIRST 8			/* as if a bit of a count had been seen so often */
#define COMMON 3				/* how common an id is, in contexts */
#define STEPS 8				/* of a count's length that have contexts of their own */
#define N_TREE_BITS 8			/* of n that do */
#define SET_SMALL 64u			/* ids; a multiple of 8 */

/* An adaptive bit: probability of 1, and how often it was seen. */
struct bit {
	uint16_t p, seen;
};

/* 2^16 / (seen + 1.6): how far a bit's probability goes towards what came */
static const uint16_t rates[64] = {
	40960, 25206, 18204, 14247, 11703, 9930, 8623, 7620, 6827, 6183, 5650, 5201, 4819, 4489, 4201, 3948,
	3724, 3523, 3344, 3181, 3034, 2900, 2777, 2664, 2560, 2464, 2374, 2291, 2214, 2142, 2074, 2010,
	1950, 1894, 1841, 1791, 1743, 1698, 1655, 1614, 1575, 1538, 1503, 1469, 1437, 1406, 1377, 1348,
	1321, 1295, 1270, 1246, 1223, 1200, 1179, 1158, 1138, 1118, 1100, 1081, 1064, 1047, 1030, 1014,
};

struct bits {
	struct bit n[1 << N_TREE_BITS], longer[COMMON][12][4][STEPS], half[COMMON][STEPS];
};

/* Where the bits of a count begin, in 1/256: by context, then by step; from labels of SmolLM2-135M at tau 1 and 0.25. */
static const uint8_t longer_first[12][STEPS] = {
	{59, 60, 37, 32, 32, 32, 32, 32},
	{102, 116, 94, 45, 32, 32, 32, 32},
	{123, 150, 142, 104, 20, 32, 32, 32},
	{140, 172, 160, 151, 53, 32, 32, 32},
	{156, 185, 170, 157, 116, 64, 32, 32},
	{162, 194, 192, 177, 143, 96, 64, 64},
	{172, 198, 206, 189, 155, 112, 64, 64},
	{187, 209, 214, 208, 165, 128, 96, 64},
	{196, 219, 220, 215, 189, 144, 112, 96},
	{213, 228, 231, 228, 214, 160, 128, 112},
	{213, 228, 231, 228, 214, 160, 128, 112},
	{213, 228, 231, 228, 214, 160, 128, 112},
};

static void
bits_init(struct bits *b)
{
	for (unsigned i = 0; i < 1u << N_TREE_BITS; i++)
		b->n[i] = (struct bit){P_ONE / 2, 0};
	for (unsigned c = 0; c < COMMON; c++) {
		for (unsigned k = 0; k < 12 * 4; k++)
			for (unsigned i = 0; i < STEPS; i++)
				b->longer[c][k / 4][k % 4][i] = (struct bit){(uint16_t)(longer_first[k / 4][i] * (P_ONE / 256)), SEEN_FIRST};
		for (unsigned i = 0; i < STEPS; i++)
			b->half[c][i] = (struct bit){P_ONE * 3 / 8, SEEN_FIRST};
	}
}

static inline void
bit_seen(struct bit *b, unsigned value)
{
	int32_t target = value ? P_ONE - P_MIN : P_MIN;

	b->p = (uint16_t)(b->p + (target - (int32_t)b->p) * (int32_t)rates[b->seen] / 65536);
	b->seen += b->seen < 63;
}

/* The first slot of rank j of i. */
static inline uint32_t
rank_start(uint32_t j, uint32_t i)
{
	return ((j << RANK_BITS) + i - 1) / i;
}

/*
 * Context of a count: how many draws are left for each id that is left, in half octaves, and how many ids. left >= ids >= 2.
 */
static inline unsigned
ratio_context(uint32_t left, uint32_t ids)
{
	uint64_t a = (uint64_t)left * left, b = (uint64_t)ids * ids;
	int k = __builtin_clzll(b) - __builtin_clzll(a);

	if (b << k > a)
		k--;
	return k < 11 ? (unsigned)k : 11;
}

static inline unsigned
ids_context(uint32_t ids)
{
	return ids <= 2 ? 0 : ids <= 4 ? 1 : ids <= 8 ? 2 : 3;
}

static inline unsigned
common_context(const struct labels_unigram *u, int32_t id)
{
	uint32_t place = u->place[id];

	return place < 128 ? 0 : place < 2048 ? 1 : 2;
}

/* The most ids a row can have, and the bits of n - 1. */
static uint32_t
unique_max(const struct labels_spec *spec)
{
	return spec->n_samples < spec->vocab ? spec->n_samples : spec->vocab;
}

static unsigned
unique_bits(const struct labels_spec *spec)
{
	uint32_t max = unique_max(spec);

	return max > 1 ? labels__log2(max - 1) + 1 : 0;
}

/* ---- encoding: forward once for the bits and their probabilities, then backward through the coder ---- */

/* freq > 0: a range of 2^15 slots. freq 0: here comes the set of row `start`. */
struct step {
	uint16_t start, freq;
};

struct encoder {
	const struct labels_spec *spec;
	struct bits bits;
	struct step *steps;
	size_t n_steps, cap_steps;
	uint32_t *words;
	size_t n_words, cap_words;
	uint64_t x;
	int32_t *set;				/* of one row, without y */
};

/* Room for one row's steps must be there. */
static void
put_bit(struct encoder *e, struct bit *b, unsigned value)
{
	e->steps[e->n_steps++] = value ? (struct step){0, b->p} : (struct step){b->p, (uint16_t)(P_ONE - b->p)};
	bit_seen(b, value);
}

static void
put_plain(struct encoder *e, uint32_t value, unsigned bits)
{
	while (bits-- > 0)
		e->steps[e->n_steps++] = value >> bits & 1 ? (struct step){0, P_ONE / 2} : (struct step){P_ONE / 2, P_ONE / 2};
}

static void
put_n(struct encoder *e, uint32_t n)
{
	unsigned bits = unique_bits(e->spec), node = 1;

	for (unsigned i = 0; i < bits; i++) {
		unsigned b = (n - 1) >> (bits - 1 - i) & 1;

		if (i >= N_TREE_BITS) {
			put_plain(e, b, 1);
			continue;
		}
		put_bit(e, &e->bits.n[node], b);
		node = 2 * node + b;
	}
}

/* count of 1 .. left - ids + 1 */
static void
put_count(struct encoder *e, unsigned common, uint32_t left, uint32_t ids, uint32_t count)
{
	struct bit *longer = e->bits.longer[common][ratio_context(left, ids)][ids_context(ids)];
	unsigned length = labels__log2(count), length_max = labels__log2(left - ids + 1);

	for (unsigned i = 0; i < length_max && i <= length; i++)
		put_bit(e, &longer[i < STEPS ? i : STEPS - 1], i < length);
	if (length == 0)
		return;
	put_bit(e, &e->bits.half[common][length < STEPS ? length : STEPS - 1], count >> (length - 1) & 1);
	put_plain(e, count & ((1u << (length - 1)) - 1), length - 1);
}

static int
push_word(struct encoder *e)
{
	if (e->n_words == e->cap_words && mem_grow((void **)&e->words, &e->cap_words, 2 * e->cap_words + 1024, sizeof(*e->words)) != 0)
		return ENOMEM;
	e->words[e->n_words++] = (uint32_t)e->x;
	e->x >>= 32;
	return 0;
}

static int
push_step(struct encoder *e, struct step s)
{
	if (e->x >= (uint64_t)s.freq << (63 - P_BITS) && push_word(e) != 0)
		return ENOMEM;
	e->x = (e->x / s.freq << P_BITS) + e->x % s.freq + s.start;
	return 0;
}

static int
push_id(struct encoder *e, const struct labels_unigram *u, int32_t id)
{
	const struct labels__group *g = &u->groups[u->group_of[id]];

	if (e->x >= (uint64_t)g->freq << (63 - P_BITS - g->bits) && push_word(e) != 0)
		return ENOMEM;
	e->x = e->x << g->bits | (u->place[id] - g->first);
	e->x = (e->x / g->freq << P_BITS) + e->x % g->freq + g->start;
	return 0;
}

/* A rank below n out of the state: which id of those left comes first (last for the decoder). */
static uint32_t
pull_rank(struct encoder *e, uint32_t n)
{
	uint32_t slot = (uint32_t)e->x & ((1u << RANK_BITS) - 1), j = (uint32_t)((uint64_t)slot * n >> RANK_BITS);
	uint32_t start = rank_start(j, n);

	e->x = (rank_start(j + 1, n) - start) * (e->x >> RANK_BITS) + slot - start;
	if (e->x < LOW)
		e->x = e->x << 32 | (e->n_words > 0 ? e->words[--e->n_words] : 0);
	return j;
}

static int
push_set(struct encoder *e, const struct labels_unigram *u, uint32_t n)
{
	int rc = 0;

	for (; n > 0 && rc == 0; n--) {
		uint32_t j = n > 1 ? pull_rank(e, n) : 0;
		int32_t id = e->set[j];

		memmove(e->set + j, e->set + j + 1, (n - 1 - j) * sizeof(*e->set));
		rc = push_id(e, u, id);
	}
	return rc;
}

static int
forward_row(struct encoder *e, const struct labels__row *row)
{
	uint32_t left = e->spec->n_samples;

	/* a step for the set, 16 for n, and at most 33 for a count */
	if (mem_grow((void **)&e->steps, &e->cap_steps, e->n_steps + 64 + 34 * (size_t)row->n, sizeof(*e->steps)) != 0)
		return ENOMEM;
	put_n(e, row->n);
	e->steps[e->n_steps++] = (struct step){0, 0};
	for (uint32_t i = 0; i + 1 < row->n; i++) {
		put_count(e, common_context(e->spec->unigram, row->ids[i]), left, row->n - i, (uint32_t)row->counts[i]);
		left -= (uint32_t)row->counts[i];
	}
	return 0;
}

int
labels__sampled_encode(const struct labels_spec *spec, labels__row_fn *get, void *arg, struct labels_buf *payload)
{
	struct encoder *e = calloc(1, sizeof(*e));
	struct labels__row row;
	uint32_t at;
	int rc = ENOMEM;

	if (e == NULL || (e->set = mem_alloc(unique_max(spec), sizeof(*e->set))) == NULL)
		goto out;
	e->spec = spec;
	e->x = LOW;
	bits_init(&e->bits);
	for (uint32_t t = 0; t < spec->context; t++) {
		get(arg, t, &row);
		if ((rc = forward_row(e, &row)) != 0)
			goto out;
	}
	at = spec->context;
	for (size_t i = e->n_steps; i-- > 0;) {
		if (e->steps[i].freq > 0) {
			if ((rc = push_step(e, e->steps[i])) != 0)
				goto out;
			continue;
		}
		get(arg, --at, &row);
		memcpy(e->set, row.ids, row.n * sizeof(*e->set));
		if ((rc = push_set(e, spec->unigram, row.n)) != 0)
			goto out;
	}
	if ((rc = mem_grow((void **)&payload->bytes, &payload->cap, payload->len + 8 + 4 * e->n_words + 8, 1)) != 0)
		goto out;
	labels__put(payload->bytes + payload->len, e->x, 8);
	payload->len += 8;
	for (; e->n_words > 0; payload->len += 4)
		labels__put(payload->bytes + payload->len, e->words[--e->n_words], 4);
out:
	if (e != NULL) {
		free(e->steps);
		free(e->words);
		free(e->set);
	}
	free(e);
	return rc;
}

/* ---- decoding ---- */

struct decoder {
	struct bits bits;
	uint64_t x;
	const uint32_t *floor, *end, *deepest;	/* of the words; the furthest that was taken */
	uint32_t *at;
	const char *wrong;			/* the first rule that was broken */
};

static inline void
refill(struct decoder *d)
{
	if (d->x >= LOW)
		return;
	if (d->at == d->end) {
		d->wrong = "words up to the last row";
		d->x = LOW;
		return;
	}
	d->x = d->x << 32 | *d->at++;
	if (d->at > d->deepest)
		d->deepest = d->at;
}

static inline unsigned
get_bit(struct decoder *d, struct bit *b)
{
	uint32_t slot = (uint32_t)d->x & (P_ONE - 1), p = b->p;
	unsigned value = slot < p;

	d->x = value ? p * (d->x >> P_BITS) + slot : (P_ONE - p) * (d->x >> P_BITS) + slot - p;
	refill(d);
	bit_seen(b, value);
	return value;
}

static uint32_t
get_plain(struct decoder *d, unsigned bits)
{
	uint32_t value = 0;

	while (bits-- > 0) {
		struct bit half = {P_ONE / 2, 0};

		value = 2 * value + get_bit(d, &half);
	}
	return value;
}

static inline uint32_t
get_count(struct decoder *d, unsigned common, uint32_t left, uint32_t ids)
{
	struct bit *longer = d->bits.longer[common][ratio_context(left, ids)][ids_context(ids)];
	unsigned length = 0, length_max = labels__log2(left - ids + 1);
	uint32_t count;

	while (length < length_max && get_bit(d, &longer[length < STEPS ? length : STEPS - 1]))
		length++;
	if (length == 0)
		return 1;
	count = 2 + get_bit(d, &d->bits.half[common][length < STEPS ? length : STEPS - 1]);
	return count << (length - 1) | (length > 1 ? get_plain(d, length - 1) : 0);
}

static inline int32_t
get_id(struct decoder *d, const struct labels_unigram *u)
{
	uint32_t slot = (uint32_t)d->x & (LABELS__SLOTS - 1), place;
	const struct labels__group *g = &u->groups[u->lookup[slot / LABELS__LOOKUP]];

	while (slot >= g[1].start)
		g++;
	d->x = g->freq * (d->x >> P_BITS) + slot - g->start;
	place = g->first + ((uint32_t)d->x & ((1u << g->bits) - 1));
	d->x >>= g->bits;
	refill(d);
	return u->ids[place];
}

/* The rank goes back to where the encoder had it from. */
static inline void
give_rank(struct decoder *d, uint32_t j, uint32_t n)
{
	uint32_t start = rank_start(j, n), freq = rank_start(j + 1, n) - start;

	if (d->x >= (uint64_t)freq << (63 - RANK_BITS)) {
		if (d->at == d->floor) {
			d->wrong = "a stack that shrinks";
			return;
		}
		*--d->at = (uint32_t)d->x;
		d->x >>= 32;
	}
	d->x = (d->x / freq << RANK_BITS) + d->x % freq + start;
}

/* How many of v[0 .. n), n a multiple of 8, are less; the same number of steps whatever they are. */
static inline uint32_t
count_less(const int32_t *v, uint32_t n, int32_t id)
{
	uint32_t less = 0;

	for (uint32_t i = 0; i < n; i += 8)
		for (uint32_t k = 0; k < 8; k++)
			less += v[i + k] < id;
	return less;
}

/* Few ids: compared with all before and put in order at the end, without a branch that nobody can foresee. */
static void
get_small_set(struct decoder *d, const struct labels_unigram *u, uint32_t n, int32_t *out)
{
	int32_t v[SET_SMALL];

	memset(v, 0x7f, ((size_t)n + 7) / 8 * 8 * sizeof(v[0]));		/* above every id */
	for (uint32_t i = 0; i < n; i++) {
		int32_t id = get_id(d, u);

		if (i > 0)
			give_rank(d, count_less(v, (i + 7) & ~7u, id), i + 1);
		v[i] = id;
	}
	memset(out, 0xff, n * sizeof(out[0]));
	for (uint32_t i = 0; i < n; i++)
		out[count_less(v, (n + 7) & ~7u, v[i])] = v[i];
	for (uint32_t i = 0; i < n; i++)
		if (out[i] < 0)			/* two had one place */
			d->wrong = "no id twice";
}

/* n ids into out, ascending */
static void
get_set(struct decoder *d, const struct labels_unigram *u, uint32_t n, int32_t *out)
{
	if (n <= SET_SMALL) {
		get_small_set(d, u, n, out);
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		int32_t id = get_id(d, u);
		uint32_t j = i;

		for (; j > 0 && out[j - 1] > id; j--)
			out[j] = out[j - 1];
		out[j] = id;
		if (j > 0 && out[j - 1] == id)
			d->wrong = "no id twice";
		if (i > 0)
			give_rank(d, j, i + 1);
	}
}

/* One row of at most unique_max ids; ids has room for them. Returns n; d->wrong says what was wrong. */
static uint32_t
get_row(struct decoder *d, const struct labels_spec *spec, unsigned n_bits, int32_t *ids, uint32_t *counts)
{
	uint32_t n = 0, left = spec->n_samples;
	unsigned node = 1;

	for (unsigned i = 0; i < n_bits; i++) {
		unsigned b = i < N_TREE_BITS ? get_bit(d, &d->bits.n[node]) : get_plain(d, 1);

		if (i < N_TREE_BITS)
			node = 2 * node + b;
		n = 2 * n + b;
	}
	if (++n > unique_max(spec)) {
		d->wrong = "1..N unique ids";
		return 0;
	}
	get_set(d, spec->unigram, n, ids);
	if (d->wrong != NULL)
		return 0;
	for (uint32_t i = 0; i + 1 < n; i++) {
		counts[i] = get_count(d, common_context(spec->unigram, ids[i]), left, n - i);
		if (counts[i] > left - (n - i) + 1) {
			d->wrong = "counts with sum N";
			return 0;
		}
		left -= counts[i];
	}
	counts[n - 1] = left;
	return n;
}

int
labels__sampled_decode(const struct labels_spec *spec, const uint8_t *payload, size_t len, labels__take_fn *take,
    void *arg, uint32_t *row, const char **wrong)
{
	size_t n_words = len >= 8 ? (len - 8) / 4 : 0;
	unsigned n_bits = unique_bits(spec);
	struct decoder *d = malloc(sizeof(*d));
	uint32_t *words = mem_alloc(HEADROOM + n_words, sizeof(*words)), *counts = mem_alloc(unique_max(spec), sizeof(*counts));
	int32_t *ids = mem_alloc(unique_max(spec), sizeof(*ids));
	int rc = ENOMEM;

	*row = 0;
	*wrong = NULL;
	if (d == NULL || words == NULL || counts == NULL || ids == NULL)
		goto out;
	rc = ERR_CORRUPT;
	if (len < 8 || len % 4 != 0) {
		*wrong = "a payload of 8 bytes and whole words";
		goto out;
	}
	bits_init(&d->bits);
	d->wrong = NULL;
	d->x = labels__get(payload, 8);
	d->floor = words;
	d->deepest = d->at = words + HEADROOM;
	d->end = d->at + n_words;
	for (size_t i = 0; i < n_words; i++)
		d->at[i] = (uint32_t)labels__get(payload + 8 + 4 * i, 4);
	if (d->x < LOW || d->x >> 63 != 0) {
		*wrong = "a state of 2^31 .. 2^63 - 1";
		goto out;
	}
	for (; *row < spec->context; ++*row) {
		uint32_t n = get_row(d, spec, n_bits, ids, counts);

		if ((*wrong = d->wrong) != NULL)
			goto out;
		if ((rc = take(arg, *row, n, ids, counts)) != 0)
			goto out;
		rc = ERR_CORRUPT;
	}
	/* The encoder began with this state and an empty stack, and left no word that it did not need. */
	rc = 0;
	if (d->x != LOW || d->deepest != d->end)
		rc = ERR_CORRUPT;
	for (; d->at < d->end; d->at++)
		if (*d->at != 0)
			rc = ERR_CORRUPT;
	if (rc != 0)
		*wrong = "the coder's first state after the last row";
out:
	free(d);
	free(words);
	free(counts);
	free(ids);
	return rc;
}
