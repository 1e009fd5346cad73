/* SPDX-License-Identifier: Apache-2.0 */
#include "data/labels/labels_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"

/* An error of the caller: a row or entry breaks a rule. Sets the note and returns rc. */
static int
bad(struct err_note *note, int rc, uint32_t row, uint32_t entry, const char *expected)
{
	return err_expect_at(note, rc, "labels to encode", "row %" PRIu32 " entry %" PRIu32, "%s", "", row,
	    entry, expected);
}

static int
bad_id(struct err_note *note, uint32_t row, uint32_t entry, const struct labels_spec *spec, int64_t id)
{
	bad(note, ERR_RANGE, row, entry, "");
	return err_expect(note, ERR_RANGE, "", "an id of 0..%" PRIu32 ", none twice in a row", "%" PRId64,
	    spec->vocab - 1, id);
}

/* Writes the header and reserves payload_max bytes for the payload. */
static int
begin(const struct labels_spec *spec, struct hash128 tokens, size_t payload_max, struct labels_buf *buf, struct err_note *note)
{
	uint8_t *p;
	int rc;

	if (payload_max > UINT32_MAX)
		return err_expect_at(note, ERR_RANGE, "label record",
		    "%s, L %" PRIu32 ", vocabulary %" PRIu32, "at most %" PRIu32 " bytes of payload", "%zu",
		    labels_kind_name(spec->kind), spec->context, spec->vocab, UINT32_MAX, payload_max);
	if ((rc = mem_grow((void **)&buf->bytes, &buf->cap, payload_max + LABELS_OVERHEAD_BYTES, 1)) != 0)
		return err_note_set(note, rc, "label record of %zu bytes", payload_max + LABELS_OVERHEAD_BYTES);
	p = buf->bytes;
	memset(p, 0, LABELS_HEADER_BYTES);
	p[0] = 'S';
	p[1] = 'L';
	p[2] = LABELS_VERSION;
	p[3] = (uint8_t)spec->kind;
	labels__put(p + 4, spec->context, 4);
	labels__put(p + 8, labels__param(spec), 4);
	labels__put(p + 12, spec->vocab, 4);
	labels__put(p + 16, tokens.hi, 8);
	labels__put(p + 24, tokens.lo, 8);
	labels__put(p + 40, spec->set.hi, 8);
	labels__put(p + 48, spec->set.lo, 8);
	return 0;
}

static void
finish(struct labels_buf *buf, const uint8_t *end)
{
	size_t n = (size_t)(end - buf->bytes);

	labels__put(buf->bytes + 32, n - LABELS_HEADER_BYTES, 4);
	labels__put(buf->bytes + n, hash_bytes64(buf->bytes, n), 8);
	buf->len = n + 8;
}

static int
check_kind(const struct labels_spec *spec, enum labels_kind kind, struct err_note *note)
{
	int rc = labels__spec_ready(spec, note);

	if (rc != 0 || spec->kind == kind)
		return rc;
	return err_expect(note, ERR_MISMATCH, "label spec", "%s", "%s", labels_kind_name(kind),
	    labels_kind_name(spec->kind));
}

static int
compare_ids(const void *a, const void *b)
{
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

	return (x > y) - (x < y);
}

/* Writes header, payload and checksum; the rows were checked before. */
static int
write_sampled(const struct labels_spec *spec, struct hash128 tokens, labels__row_fn *get, void *arg, struct labels_buf *buf,
    struct err_note *note)
{
	int rc;

	if ((rc = begin(spec, tokens, 0, buf, note)) != 0)
		return rc;
	buf->len = LABELS_HEADER_BYTES;
	if ((rc = labels__sampled_encode(spec, get, arg, buf)) != 0 || buf->len > UINT32_MAX) {
		buf->len = 0;
		return err_note_set(note, rc != 0 ? rc : ERR_RANGE, "label record");
	}
	finish(buf, buf->bytes + buf->len);
	return 0;
}

struct drawn {
	const int32_t *draws;
	uint32_t n;
	int32_t *ids, *counts;		/* one row, sorted and counted */
};

static uint32_t
count_draws(struct drawn *d, uint32_t t)
{
	uint32_t n = 0;

	memcpy(d->ids, d->draws + (size_t)t * d->n, d->n * sizeof(d->ids[0]));
	qsort(d->ids, d->n, sizeof(d->ids[0]), compare_ids);
	for (uint32_t i = 0, j; i < d->n; i = j) {
		for (j = i + 1; j < d->n && d->ids[j] == d->ids[i];)
			j++;
		d->ids[n] = d->ids[i];
		d->counts[n++] = (int32_t)(j - i);
	}
	return n;
}

static void
drawn_row(void *arg, uint32_t t, struct labels__row *out)
{
	struct drawn *d = arg;

	*out = (struct labels__row){count_draws(d, t), d->ids, d->counts};
}

int
labels_encode_draws(const struct labels_spec *spec, struct hash128 tokens, const int32_t *draws, struct labels_buf *buf,
    struct err_note *note)
{
	struct drawn d = {draws, spec->n_samples, NULL, NULL};
	int rc;

	buf->len = 0;
	if ((rc = check_kind(spec, LABELS_KIND_SAMPLED, note)) != 0)
		return rc;
	d.ids = mem_alloc(d.n, sizeof(d.ids[0]));
	d.counts = mem_alloc(d.n, sizeof(d.counts[0]));
	if (d.ids == NULL || d.counts == NULL) {
		rc = err_note_set(note, ENOMEM, "label record");
		goto out;
	}
	for (size_t i = 0; i < (size_t)spec->context * d.n; i++)
		if (draws[i] < 0 || (uint32_t)draws[i] >= spec->vocab) {
			rc = bad_id(note, (uint32_t)(i / d.n), (uint32_t)(i % d.n), spec, draws[i]);
			goto out;
		}
	rc = write_sampled(spec, tokens, drawn_row, &d, buf, note);
out:
	free(d.ids);
	free(d.counts);
	return rc;
}

struct counted {
	const int32_t *n_unique, *ids, *counts;
	uint32_t n;
};

static void
counted_row(void *arg, uint32_t t, struct labels__row *out)
{
	const struct counted *c = arg;
	size_t at = (size_t)t * c->n;

	*out = (struct labels__row){(uint32_t)c->n_unique[t], c->ids + at, c->counts + at};
}

static int
check_row(const struct labels_spec *spec, uint32_t t, int32_t n_unique, const int32_t *ids, const int32_t *counts, struct err_note *note)
{
	int64_t sum = 0, last = -1;

	if (n_unique < 1 || (uint32_t)n_unique > spec->n_samples) {
		bad(note, ERR_RANGE, t, 0, "1..N unique ids");
		err_note_found(note, "%" PRId32, n_unique);
		return ERR_RANGE;
	}
	for (uint32_t i = 0; i < (uint32_t)n_unique; i++) {
		if (ids[i] <= last || (uint32_t)ids[i] >= spec->vocab)
			return bad_id(note, t, i, spec, ids[i]);
		if (counts[i] < 1) {
			bad(note, ERR_RANGE, t, i, "a count of 1 or more");
			err_note_found(note, "%" PRId32, counts[i]);
			return ERR_RANGE;
		}
		last = ids[i];
		sum += counts[i];
	}
	if (sum != spec->n_samples) {
		bad(note, ERR_RANGE, t, 0, "");
		return err_expect(note, ERR_RANGE, "", "counts with sum %" PRIu32, "%" PRId64,
		    spec->n_samples, sum);
	}
	return 0;
}

int
labels_encode_sampled(const struct labels_spec *spec, struct hash128 tokens, const int32_t *n_unique, const int32_t *ids,
    const int32_t *counts, struct labels_buf *buf, struct err_note *note)
{
	struct counted c = {n_unique, ids, counts, spec->n_samples};
	int rc;

	buf->len = 0;
	if ((rc = check_kind(spec, LABELS_KIND_SAMPLED, note)) != 0)
		return rc;
	for (uint32_t t = 0; t < spec->context; t++)
		if ((rc = check_row(spec, t, n_unique[t], ids + (size_t)t * c.n, counts + (size_t)t * c.n, note)) != 0)
			return rc;
	return write_sampled(spec, tokens, counted_row, &c, buf, note);
}

/* Converts log_p to its code, and adds the code's probability to *sum. */
static int
code_of(float log_p, uint32_t row, uint32_t entry, uint32_t *code, double *sum, struct err_note *note)
{
	if (!(log_p <= 1e-3f)) {	/* also true for NaN */
		bad(note, isnan(log_p) ? ERR_NONFINITE : ERR_RANGE, row, entry, "a log-probability <= 0");
		err_note_found(note, "%g", (double)log_p);
		return isnan(log_p) ? ERR_NONFINITE : ERR_RANGE;
	}
	*code = labels__code(log_p < 0 ? -(double)log_p : 0);
	*sum += labels__code_value(*code);
	return 0;
}

static int
bad_sum(struct err_note *note, uint32_t row, const char *expected, double sum)
{
	return err_expect_at(note, ERR_RANGE, "labels to encode", "row %" PRIu32, "probabilities with sum %s",
	    "%.6g", row, expected, sum);
}

static int
compare_keys(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

int
labels_encode_topk(const struct labels_spec *spec, struct hash128 tokens, const int32_t *ids, const float *log_p,
    struct labels_buf *buf, struct err_note *note)
{
	unsigned id_bytes = labels__id_bytes(spec->vocab);
	uint32_t k = spec->k, code;
	uint64_t *keys = NULL;		/* code << 32 | id, in record order; then ids, to find duplicates */
	uint8_t *p;
	int rc;

	buf->len = 0;
	if ((rc = check_kind(spec, LABELS_KIND_TOPK, note)) != 0 ||
	    (rc = begin(spec, tokens, (size_t)spec->context * k * (id_bytes + 2), buf, note)) != 0)
		return rc;
	if ((keys = mem_alloc(k, sizeof(keys[0]))) == NULL)
		return err_note_set(note, ENOMEM, "label record");
	p = buf->bytes + LABELS_HEADER_BYTES;
	for (uint32_t t = 0; t < spec->context; t++, ids += k, log_p += k) {
		double sum = 0;

		for (uint32_t i = 0; i < k; i++) {
			if (ids[i] < 0 || (uint32_t)ids[i] >= spec->vocab) {
				rc = bad_id(note, t, i, spec, ids[i]);
				goto out;
			}
			if ((rc = code_of(log_p[i], t, i, &code, &sum, note)) != 0)
				goto out;
			keys[i] = (uint64_t)code << 32 | (uint32_t)ids[i];
		}
		if (!(sum <= 1 + LABELS__SUM_SLACK)) {
			rc = bad_sum(note, t, "of at most 1.001", sum);
			goto out;
		}
		qsort(keys, k, sizeof(keys[0]), compare_keys);
		for (uint32_t i = 0; i < k; i++)
			labels__put(p + (size_t)i * id_bytes, (uint32_t)keys[i], id_bytes);
		p += (size_t)k * id_bytes;
		for (uint32_t i = 0; i < k; i++)
			labels__put(p + (size_t)i * 2, keys[i] >> 32, 2);
		p += (size_t)k * 2;
		for (uint32_t i = 0; i < k; i++)
			keys[i] = (uint32_t)ids[i];
		qsort(keys, k, sizeof(keys[0]), compare_keys);
		for (uint32_t i = 1; i < k; i++)
			if (keys[i] == keys[i - 1]) {
				rc = bad_id(note, t, i, spec, (int64_t)keys[i]);
				goto out;
			}
	}
	finish(buf, p);
out:
	free(keys);
	return rc;
}

int
labels_encode_dense(const struct labels_spec *spec, struct hash128 tokens, const float *log_p, struct labels_buf *buf,
    struct err_note *note)
{
	size_t payload;
	uint32_t code;
	uint8_t *p;
	int rc;

	buf->len = 0;
	if ((rc = check_kind(spec, LABELS_KIND_DENSE, note)) != 0)
		return rc;
	if (!mem_mul(spec->context, spec->vocab, &payload) || !mem_mul(payload, 2, &payload))
		payload = SIZE_MAX;
	if ((rc = begin(spec, tokens, payload, buf, note)) != 0)
		return rc;
	p = buf->bytes + LABELS_HEADER_BYTES;
	for (uint32_t t = 0; t < spec->context; t++) {
		double sum = 0;

		for (uint32_t v = 0; v < spec->vocab; v++, p += 2) {
			if ((rc = code_of(*log_p++, t, v, &code, &sum, note)) != 0)
				return rc;
			labels__put(p, code, 2);
		}
		if (!(fabs(sum - 1) <= LABELS__SUM_SLACK))
			return bad_sum(note, t, "within 0.001 of 1", sum);
	}
	finish(buf, p);
	return 0;
}
