/* SPDX-License-Identifier: Apache-2.0 */
/* Declarations shared by the files of labels; labels.h describes the format. */
#ifndef SALT_LABELS_INTERNAL_H
#define SALT_LABELS_INTERNAL_H

#include "data/labels/labels.h"

#define LABELS__CODE_ZERO 65535u	/* t = 0 */
#define LABELS__SUM_SLACK 1e-3

/* write and read a little-endian number of `bytes` bytes */
void labels__put(uint8_t *p, uint64_t v, unsigned bytes);
uint64_t labels__get(const uint8_t *p, unsigned bytes);

/* floor(log2(x)) for x >= 1 */
static inline unsigned
labels__log2(uint64_t x)
{
	return 63u - (unsigned)__builtin_clzll(x);
}

unsigned labels__id_bytes(uint32_t vocab);	/* size of an id in a topk payload */
uint32_t labels__param(const struct labels_spec *spec);

/* labels__spec_ready - labels_spec_check; ERR_MISMATCH if a sampled spec has no unigram table of V ids. */
int labels__spec_ready(const struct labels_spec *spec, struct err_note *note);

double labels__code_value(uint32_t code);	/* the probability t of a code */
uint32_t labels__code(double nats);		/* the code of nats = -ln t >= 0, which may be infinite */

/*
 * Reserves memory for `rows` more rows and `entries` more sparse entries (or the dense floats of the rows).
 * Returns 0, or ENOMEM with the rows unchanged.
 */
int labels__batch_reserve(struct labels_batch *batch, const struct labels_spec *spec, size_t rows, size_t entries);

/*
 * A group of the unigram table: 2^bits ids of the same weight, u->keys[first .. first + 2^bits). It has the
 * slots [start, start + freq) of LABELS__SLOTS.
 */
#define LABELS__SLOTS 32768u
#define LABELS__LOOKUP 8u		/* slots per entry of lookup */
#define LABELS__GROUP_BITS_MAX 16u	/* so that 2^15 slots times 2^bits divide the coder's 2^31 */

struct labels__group {
	uint32_t start, freq, first, bits;
};

struct labels_unigram {
	uint32_t vocab;
	struct hash128 hash;		/* of codes */
	uint8_t *codes;			/* [vocab] */
	/*
	 * [vocab] by descending weight: id << 4 | class << 2; class 0 up to index 127, 1 up to 2,047, then 2
	 */
	uint32_t *keys;
	uint32_t *place;		/* [vocab] index of each id in keys */
	uint16_t *group_of;		/* [vocab] group of each id */
	struct labels__group *groups;	/* and one more, whose start is the end of the slots */
	uint16_t lookup[LABELS__SLOTS / LABELS__LOOKUP];	/* group of the entry's first slot */
};

/* A sampled row to encode: n ascending ids, counts >= 1 with sum N. */
struct labels__row {
	uint32_t n;
	const int32_t *ids, *counts;
};

#define LABELS__STATES_BYTES 24u	/* the coder's states, before its words */

typedef void labels__row_fn(void *arg, uint32_t t, struct labels__row *out);
typedef int labels__take_fn(void *arg, uint32_t t, uint32_t n, const int32_t *ids, const uint32_t *counts);

/*
 * labels__sampled_encode - appends the payload to buf. Calls get for each row in order; the rows must obey
 * the rules of the format. Returns 0, ENOMEM, or ERR_RANGE if they have 2^32 - 1 ids or more together.
 */
int labels__sampled_encode(const struct labels_spec *spec, labels__row_fn *get, void *arg, struct labels_buf *buf);

/*
 * labels__sampled_decode - calls take for each row in order. Returns 0, take's first non-zero result, ENOMEM,
 * or ERR_CORRUPT with *row and *wrong (what was expected).
 */
int labels__sampled_decode(const struct labels_spec *spec, const uint8_t *payload, size_t len,
    labels__take_fn *take, void *arg, uint32_t *row, const char **wrong);

#endif
