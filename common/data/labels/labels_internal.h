/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of labels share; labels.h describes the format. */
#ifndef SALT_LABELS_INTERNAL_H
#define SALT_LABELS_INTERNAL_H

#include "data/labels/labels.h"

#define LABELS__CODE_ZERO 65535u	/* t = 0 */
#define LABELS__SUM_SLACK 1e-3

/* u8 each of a little-endian number of `bytes` bytes */
void labels__put(uint8_t *p, uint64_t v, unsigned bytes);
uint64_t labels__get(const uint8_t *p, unsigned bytes);

/* floor(log2(x)) of x >= 1 */
static inline unsigned
labels__log2(uint64_t x)
{
	return 63u - (unsigned)__builtin_clzll(x);
}

unsigned labels__id_bytes(uint32_t vocab);	/* of an id in a topk payload */
uint32_t labels__param(const struct labels_spec *spec);

/* labels__spec_ready - labels_spec_check, and a unigram table of that vocabulary where the kind needs one. */
int labels__spec_ready(const struct labels_spec *spec, struct err_note *note);

double labels__code_value(uint32_t code);	/* t of a code */
uint32_t labels__code(double nats);		/* of -ln t >= 0, infinity included */

/*
 * Room for `rows` more rows and `entries` more sparse entries (or the dense floats of the rows). 0 or ENOMEM,
 * nothing changed.
 */
int labels__batch_reserve(struct labels_batch *batch, const struct labels_spec *spec, size_t rows, size_t entries);

/*
 * A group of the unigram model: 2^bits ids of the same weight, which are [first, first + 2^bits) in the order
 * of u->ids. Of the LABELS__SLOTS slots it has [start, start + freq).
 */
#define LABELS__SLOTS 32768u
#define LABELS__LOOKUP 8u		/* slots of one entry of lookup */
#define LABELS__GROUP_BITS_MAX 16u	/* so that 2^15 slots times 2^bits divide the coder's 2^31 */

struct labels__group {
	uint32_t start, freq, first, bits;
};

struct labels_unigram {
	uint32_t vocab;
	struct hash128 hash;		/* of codes */
	uint8_t *codes;			/* [vocab] */
	uint32_t *keys;			/* [vocab], by weight: id << 4 | common << 2; common 0 at places below 128, 1 below 2,048, else 2 */
	uint32_t *place;		/* [vocab]: where an id is in ids */
	uint16_t *group_of;		/* [vocab] */
	struct labels__group *groups;	/* and one more, where the slots end */
	uint16_t lookup[LABELS__SLOTS / LABELS__LOOKUP];	/* group of the first slot */
};

/* One sampled row to encode: n ascending ids, counts >= 1 with sum N. */
struct labels__row {
	uint32_t n;
	const int32_t *ids, *counts;
};

#define LABELS__STATES_BYTES 24u	/* the coder's states, before its words */

typedef void labels__row_fn(void *arg, uint32_t t, struct labels__row *out);
typedef int labels__take_fn(void *arg, uint32_t t, uint32_t n, const int32_t *ids, const uint32_t *counts);

/*
 * labels__sampled_encode - the payload, appended to buf. get is called for each row in order; its rows obey
 * the rules. 0, ENOMEM, or ERR_RANGE where they have 2^32 ids.
 */
int labels__sampled_encode(const struct labels_spec *spec, labels__row_fn *get, void *arg, struct labels_buf *buf);

/*
 * labels__sampled_decode - calls take for each row in order. 0, the result of take, ENOMEM, or ERR_CORRUPT
 * with *row and *wrong (what was expected).
 */
int labels__sampled_decode(const struct labels_spec *spec, const uint8_t *payload, size_t len,
    labels__take_fn *take, void *arg, uint32_t *row, const char **wrong);

#endif
