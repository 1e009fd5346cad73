#include "labels/labels_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mem/mem.h"

/* A row or an entry that breaks a rule: the caller's arrays are at fault, the note says which one. */
static int
bad(struct err_note *note, int rc, uint32_t row, uint32_t entry, const char *expected)
{
	err_note_set(note, rc, "labels to encode");
	err_note_place(note, "row %" PRIu32 " entry %" PRIu32, row, entry);
	err_note_expected(note, "%s", expected);
	return rc;
}

static int
bad_id(struct err_note *note, uint32_t row, uint32_t entry, const struct labels_spec *spec, int64_t id)
{
	bad(note, ERR_RANGE, row, entry, "");
	err_note_expected(note, "an id of 0..%" PRIu32 ", none twice in a row", spec->vocab - 1);
	err_note_found(note, "%" PRId64, id);
	return ERR_RANGE;
}

/* Header up to the payload; payload_max bytes of it are made room for. */
static int
begin(const struct labels_spec *spec, struct hash128 tokens, size_t payload_max, struct labels_buf *buf, struct err_note *note)
{
	uint8_t *p;
	int rc;

	if (payload_max > UINT32_MAX) {
		err_note_set(note, ERR_RANGE, "label record");
		err_note_place(note, "%s, L %" PRIu32 ", vocabulary %" PRIu32, labels_kind_name(spec->kind), spec->context, spec->vocab);
		err_note_expected(note, "at most %" PRIu32 " bytes of payload", UINT32_MAX);
		err_note_found(note, "%zu", payload_max);
		return ERR_RANGE;
	}
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

static uint8_t *
put_varint(uint8_t *p, uint32_t v)
{
	for (; v >= 0x80; v >>= 7)
		*p++ = (uint8_t)(v | 0x80);
	*p++ = (uint8_t)v;
	return p;
}

/* A row's entries are written by way of this, so that both forms of input give the same bytes. */
struct row {
	uint8_t *p;
	int64_t last;			/* id before, -1 at first */
};

static void
put_entry(struct row *row, int64_t id, uint32_t count)
{
	row->p = put_varint(row->p, (uint32_t)(id - row->last - 1));
	row->p = put_varint(row->p, count - 1);
	row->last = id;
}

/* Worst case of a sampled payload: every draw its own id. */
static size_t
sampled_max(const struct labels_spec *spec)
{
	return (size_t)spec->context * (LABELS__VARINT_MAX + (size_t)spec->n_samples * 2 * LABELS__VARINT_MAX);
}

static int
check_kind(const struct labels_spec *spec, enum labels_kind kind, struct err_note *note)
{
	int rc = labels_spec_check(spec, note);

	if (rc != 0 || spec->kind == kind)
		return rc;
	err_note_set(note, ERR_MISMATCH, "label spec");
	err_note_expected(note, "%s", labels_kind_name(kind));
	err_note_found(note, "%s", labels_kind_name(spec->kind));
	return ERR_MISMATCH;
}

static int
compare_ids(const void *a, const void *b)
{
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

	return (x > y) - (x < y);
}

int
labels_encode_draws(const struct labels_spec *spec, struct hash128 tokens, const int32_t *draws, struct labels_buf *buf,
    struct err_note *note)
{
	uint32_t n = spec->n_samples;
	int32_t *sorted = NULL;
	struct row row;
	int rc;

	buf->len = 0;
	if ((rc = check_kind(spec, LABELS_KIND_SAMPLED, note)) != 0 || (rc = begin(spec, tokens, sampled_max(spec), buf, note)) != 0)
		return rc;
	if ((sorted = mem_alloc(n, sizeof(sorted[0]))) == NULL)
		return err_note_set(note, ENOMEM, "label record");
	row.p = buf->bytes + LABELS_HEADER_BYTES;
	for (uint32_t t = 0; t < spec->context; t++) {
		uint32_t n_unique = 1;

		memcpy(sorted, draws + (size_t)t * n, n * sizeof(sorted[0]));
		qsort(sorted, n, sizeof(sorted[0]), compare_ids);
		if (sorted[0] < 0 || (uint32_t)sorted[n - 1] >= spec->vocab) {
			rc = bad_id(note, t, 0, spec, sorted[0] < 0 ? sorted[0] : sorted[n - 1]);
			goto out;
		}
		for (uint32_t i = 1; i < n; i++)
			n_unique += sorted[i] != sorted[i - 1];
		row.p = put_varint(row.p, n_unique);
		row.last = -1;
		for (uint32_t i = 0, j; i < n; i = j) {
			for (j = i + 1; j < n && sorted[j] == sorted[i];)
				j++;
			put_entry(&row, sorted[i], j - i);
		}
	}
	finish(buf, row.p);
out:
	free(sorted);
	return rc;
}

int
labels_encode_sampled(const struct labels_spec *spec, struct hash128 tokens, const int32_t *n_unique, const int32_t *ids,
    const int32_t *counts, struct labels_buf *buf, struct err_note *note)
{
	struct row row;
	int rc;

	buf->len = 0;
	if ((rc = check_kind(spec, LABELS_KIND_SAMPLED, note)) != 0 || (rc = begin(spec, tokens, sampled_max(spec), buf, note)) != 0)
		return rc;
	row.p = buf->bytes + LABELS_HEADER_BYTES;
	for (uint32_t t = 0; t < spec->context; t++, ids += spec->n_samples, counts += spec->n_samples) {
		int64_t sum = 0;

		if (n_unique[t] < 1 || (uint32_t)n_unique[t] > spec->n_samples) {
			bad(note, ERR_RANGE, t, 0, "1..N unique ids");
			err_note_found(note, "%" PRId32, n_unique[t]);
			return ERR_RANGE;
		}
		row.p = put_varint(row.p, (uint32_t)n_unique[t]);
		row.last = -1;
		for (uint32_t i = 0; i < (uint32_t)n_unique[t]; i++) {
			if (ids[i] <= row.last || (uint32_t)ids[i] >= spec->vocab)
				return bad_id(note, t, i, spec, ids[i]);
			if (counts[i] < 1) {
				bad(note, ERR_RANGE, t, i, "a count of 1 or more");
				err_note_found(note, "%" PRId32, counts[i]);
				return ERR_RANGE;
			}
			put_entry(&row, ids[i], (uint32_t)counts[i]);
			sum += counts[i];
		}
		if (sum != spec->n_samples) {
			bad(note, ERR_RANGE, t, 0, "");
			err_note_expected(note, "counts with sum %" PRIu32, spec->n_samples);
			err_note_found(note, "%" PRId64, sum);
			return ERR_RANGE;
		}
	}
	finish(buf, row.p);
	return 0;
}

/* log_p -> code and t. */
static int
code_of(float log_p, uint32_t row, uint32_t entry, uint32_t *code, double *sum, struct err_note *note)
{
	if (!(log_p <= 1e-3f)) {	/* NaN too */
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
	err_note_set(note, ERR_RANGE, "labels to encode");
	err_note_place(note, "row %" PRIu32, row);
	err_note_expected(note, "probabilities with sum %s", expected);
	err_note_found(note, "%.6g", sum);
	return ERR_RANGE;
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
	uint64_t *keys = NULL;		/* code << 32 | id: the order of the record. Then ids alone, to find one twice */
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
