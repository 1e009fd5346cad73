/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decodes records. Except magic, version and payload length, nothing is used before the checksum is verified,
 * and sizes in a record are not trusted afterwards: memory is allocated by the number of bytes received and
 * by the spec, never by a number in the record.
 */
#include "data/labels/labels_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"

/* The state of reading a payload into a batch; batch NULL: only checks. */
struct reading {
	const struct labels_spec *spec;
	const uint8_t *bytes;		/* the record */
	size_t at, end;			/* the unread part of the payload; offsets in the record */
	uint32_t row;
	struct labels_batch *batch;
	size_t n;			/* sparse: entries in batch, including those of this record */
	struct err_note *note;
};

static int
corrupt(struct err_note *note, size_t at, const char *expected)
{
	return err_expect_at(note, ERR_CORRUPT, "label record", "byte %zu", "%s", "", at, expected);
}

static int
corrupt_u64(struct err_note *note, size_t at, const char *expected, uint64_t found)
{
	corrupt(note, at, expected);
	err_note_found(note, "%" PRIu64, found);
	return ERR_CORRUPT;
}

static int
corrupt_row(const struct reading *r, size_t at, const char *expected, double found)
{
	corrupt(r->note, at, expected);
	err_note_place(r->note, "byte %zu, row %" PRIu32, at, r->row);
	err_note_found(r->note, "%.9g", found);
	return ERR_CORRUPT;
}

static int
mismatch(struct err_note *note, const char *field, uint32_t expected, uint32_t found)
{
	return err_expect_at(note, ERR_MISMATCH, "label record", "%s", "%" PRIu32, "%" PRIu32, field,
	    expected, found);
}

static int
mismatch_hash(struct err_note *note, const char *what, struct hash128 expected, struct hash128 found)
{
	char a[HASH_HEX_BYTES], b[HASH_HEX_BYTES];

	return err_expect_at(note, ERR_MISMATCH, "label record", "%s", "%s", "%s", what,
	    hash_hex(expected, a), hash_hex(found, b));
}

static int
take_sampled(void *arg, uint32_t t, uint32_t n, const int32_t *ids, const uint32_t *counts)
{
	struct reading *r = arg;
	struct labels_batch *b = r->batch;
	size_t row = b->n_rows + t;
	float scale = 1 / (float)r->spec->n_samples;

	if (r->n + n > b->cap_ids || r->n + n > b->cap_weights) {
		size_t more = r->n - (size_t)b->row_offsets[b->n_rows] + n;

		if (labels__batch_reserve(b, r->spec, r->spec->context, more + more / 2) != 0)
			return ENOMEM;
	}
	memcpy(b->ids + r->n, ids, n * sizeof(*ids));
	for (uint32_t i = 0; i < n; i++)
		b->weights[r->n + i] = (float)counts[i] * scale;
	r->n += n;
	b->tail[row] = 0;
	b->row_offsets[row + 1] = (int64_t)r->n;
	return 0;
}

static int
take_nothing(void *arg, uint32_t t, uint32_t n, const int32_t *ids, const uint32_t *counts)
{
	(void)arg, (void)t, (void)n, (void)ids, (void)counts;
	return 0;
}

static int
read_sampled(struct reading *r)
{
	const char *wrong;
	int rc = labels__sampled_decode(r->spec, r->bytes + r->at, r->end - r->at, r->batch != NULL ? take_sampled : take_nothing, r,
	    &r->row, &wrong);

	if (rc == ERR_CORRUPT) {
		corrupt(r->note, r->at, wrong);
		err_note_place(r->note, "byte %zu, row %" PRIu32, r->at, r->row);
	} else if (rc != 0) {
		err_note_set(r->note, rc, "label record");
	}
	r->at = r->end;
	return rc;
}

static int
compare_keys(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* keys: scratch [k] */
static int
read_topk(struct reading *r, uint64_t *keys)
{
	unsigned id_bytes = labels__id_bytes(r->spec->vocab);
	uint32_t k = r->spec->k;
	size_t ids_at = r->at, codes_at = ids_at + (size_t)k * id_bytes;
	double sum = 0, scale;

	r->at = codes_at + (size_t)k * 2;
	for (uint32_t i = 0; i < k; i++) {
		uint32_t id = (uint32_t)labels__get(r->bytes + ids_at + (size_t)i * id_bytes, id_bytes);
		uint32_t code = (uint32_t)labels__get(r->bytes + codes_at + (size_t)i * 2, 2);

		if (id >= r->spec->vocab)
			return corrupt_row(r, ids_at + (size_t)i * id_bytes, "an id below the vocabulary", id);
		keys[i] = (uint64_t)code << 32 | id;
		if (i > 0 && keys[i] <= keys[i - 1])
			return corrupt_row(r, ids_at + (size_t)i * id_bytes, "entries by descending probability, then id", id);
	}
	for (uint32_t i = 0; i < k; i++)
		keys[i] = keys[i] << 32 | keys[i] >> 32;	/* id first: the loss needs ascending ids */
	qsort(keys, k, sizeof(keys[0]), compare_keys);
	for (uint32_t i = 0; i < k; i++) {
		if (i > 0 && keys[i] >> 32 == keys[i - 1] >> 32)
			return corrupt_row(r, ids_at, "no id twice", (double)(keys[i] >> 32));
		sum += labels__code_value((uint32_t)keys[i]);
	}
	if (!(sum <= 1 + LABELS__SUM_SLACK))
		return corrupt_row(r, codes_at, "probabilities with sum of at most 1.001", sum);
	if (r->batch == NULL)
		return 0;
	scale = sum > 1 ? 1 / sum : 1;
	for (uint32_t i = 0; i < k; i++) {
		r->batch->ids[r->n] = (int32_t)(keys[i] >> 32);
		r->batch->weights[r->n++] = (float)(labels__code_value((uint32_t)keys[i]) * scale);
	}
	r->batch->tail[r->batch->n_rows + r->row] = sum < 1 ? (float)(1 - sum) : 0;
	return 0;
}

/*
 * t: the value of every code, computed once per record, because V calls of exp() per row would cost more than
 * the rest of decoding.
 */
static int
read_dense(struct reading *r, const double *t)
{
	const uint8_t *p = r->bytes + r->at;
	uint32_t vocab = r->spec->vocab;
	double sum = 0;
	float *out;

	for (uint32_t v = 0; v < vocab; v++)
		sum += t[p[2 * (size_t)v] | p[2 * (size_t)v + 1] << 8];
	if (!(fabs(sum - 1) <= LABELS__SUM_SLACK))
		return corrupt_row(r, r->at, "probabilities with sum within 0.001 of 1", sum);
	r->at += 2 * (size_t)vocab;
	if (r->batch == NULL)
		return 0;
	out = r->batch->dense + (r->batch->n_rows + r->row) * (size_t)vocab;
	for (uint32_t v = 0; v < vocab; v++)
		out[v] = (float)(t[p[2 * (size_t)v] | p[2 * (size_t)v + 1] << 8] / sum);
	return 0;
}

/* Reads the header of a version 3 record and verifies its checksum. */
static int
v3_open(const uint8_t *bytes, size_t len, struct labels_header *h, struct err_note *note)
{
	uint64_t flags;

	if (len < LABELS_OVERHEAD_BYTES)
		return err_expect(note, ERR_CORRUPT, "label record", "%u bytes or more", "%zu",
		    LABELS_OVERHEAD_BYTES, len);
	h->payload_bytes = (uint32_t)labels__get(bytes + 32, 4);
	if (len - LABELS_OVERHEAD_BYTES != h->payload_bytes) {
		corrupt(note, 32, "");
		return err_expect(note, ERR_CORRUPT, "", "%zu bytes of payload, as many as there are",
		    "%" PRIu32, len - LABELS_OVERHEAD_BYTES, h->payload_bytes);
	}
	if (labels__get(bytes + len - 8, 8) != hash_bytes64(bytes, len - 8))
		return corrupt(note, len - 8, "the checksum of the bytes before");
	h->version = bytes[2];
	if (bytes[3] < LABELS_KIND_SAMPLED || bytes[3] > LABELS_KIND_DENSE)
		return corrupt_u64(note, 3, "kind 1 (sampled), 2 (topk) or 3 (dense)", bytes[3]);
	h->kind = (enum labels_kind)bytes[3];
	h->context = (uint32_t)labels__get(bytes + 4, 4);
	h->param = (uint32_t)labels__get(bytes + 8, 4);
	h->vocab = (uint32_t)labels__get(bytes + 12, 4);
	h->tokens.hi = labels__get(bytes + 16, 8);
	h->tokens.lo = labels__get(bytes + 24, 8);
	h->set.hi = labels__get(bytes + 40, 8);
	h->set.lo = labels__get(bytes + 48, 8);
	if ((flags = labels__get(bytes + 36, 4)) != 0)
		return corrupt_u64(note, 36, "flags 0", flags);
	return 0;
}

static int
v3_read(const struct labels_spec *spec, const struct hash128 *tokens, const uint8_t *bytes, size_t len, struct labels_batch *batch,
    struct err_note *note)
{
	struct reading r = {.spec = spec, .bytes = bytes, .at = LABELS_HEADER_BYTES, .end = len - 8, .batch = batch, .note = note};
	size_t row_bytes = 0, want, entries = 0;
	struct labels_header h;
	void *scratch = NULL;
	int rc;

	if ((rc = v3_open(bytes, len, &h, note)) != 0)
		return rc;
	if (h.kind != spec->kind)
		return mismatch(note, "kind (1 sampled, 2 topk, 3 dense)", spec->kind, h.kind);
	if (h.context != spec->context)
		return mismatch(note, "L, the number of rows", spec->context, h.context);
	if (h.param != labels__param(spec))
		return mismatch(note, spec->kind == LABELS_KIND_SAMPLED ? "N" : "k", labels__param(spec), h.param);
	if (h.vocab != spec->vocab)
		return mismatch(note, "vocabulary", spec->vocab, h.vocab);
	if (!hash_equal(spec->set, h.set))
		return mismatch_hash(note, "label set", spec->set, h.set);
	if (tokens != NULL && !hash_equal(*tokens, h.tokens))
		return mismatch_hash(note, "hash of the L+1 tokens", *tokens, h.tokens);
	if (spec->kind == LABELS_KIND_TOPK)
		row_bytes = (size_t)spec->k * (labels__id_bytes(spec->vocab) + 2);
	if (spec->kind == LABELS_KIND_DENSE)
		row_bytes = 2 * (size_t)spec->vocab;
	if (row_bytes > 0 && (!mem_mul(row_bytes, spec->context, &want) || h.payload_bytes != want))
		return corrupt_u64(note, 32, "payload of L rows", h.payload_bytes);

	if (spec->kind == LABELS_KIND_TOPK) {
		entries = (size_t)spec->context * spec->k;
		scratch = mem_alloc(spec->k, sizeof(uint64_t));
	} else if (spec->kind == LABELS_KIND_DENSE) {
		double *t = mem_alloc(LABELS__CODE_ZERO + 1, sizeof(double));

		for (uint32_t c = 0; t != NULL && c <= LABELS__CODE_ZERO; c++)
			t[c] = labels__code_value(c);
		scratch = t;
	} else {
		entries = h.payload_bytes / 2;	/* grows as entries are decoded */
	}
	if ((spec->kind != LABELS_KIND_SAMPLED && scratch == NULL) ||
	    (batch != NULL && labels__batch_reserve(batch, spec, spec->context, entries) != 0)) {
		rc = err_note_set(note, ENOMEM, "label record");
		goto out;
	}
	if (batch != NULL && spec->kind != LABELS_KIND_DENSE)
		r.n = (size_t)batch->row_offsets[batch->n_rows];
	if (spec->kind == LABELS_KIND_SAMPLED && (rc = read_sampled(&r)) != 0)
		goto out;
	for (r.row = 0; spec->kind != LABELS_KIND_SAMPLED && r.row < spec->context; r.row++) {
		if (spec->kind == LABELS_KIND_TOPK)
			rc = read_topk(&r, scratch);
		else
			rc = read_dense(&r, scratch);
		if (rc != 0)
			goto out;
		if (batch != NULL && spec->kind != LABELS_KIND_DENSE)
			batch->row_offsets[batch->n_rows + r.row + 1] = (int64_t)r.n;
	}
	if (r.at != r.end) {
		rc = corrupt_u64(note, r.at, "the end of the payload after the last row; bytes left:", r.end - r.at);
		goto out;
	}
	if (batch != NULL) {		/* rows become part of the batch only after all checks */
		batch->kind = spec->kind;
		batch->vocab = spec->vocab;
		batch->n_rows += spec->context;
	}
out:
	free(scratch);
	return rc;
}

/* The supported versions. read: tokens and batch may be NULL. */
static const struct {
	uint8_t version;
	int (*open)(const uint8_t *bytes, size_t len, struct labels_header *h, struct err_note *note);
	int (*read)(const struct labels_spec *spec, const struct hash128 *tokens, const uint8_t *bytes, size_t len,
	    struct labels_batch *batch, struct err_note *note);
} versions[] = {
	{LABELS_VERSION, v3_open, v3_read},
};

/* Finds the version of a record; *index: its entry in versions. */
static int
find_version(const uint8_t *bytes, size_t len, size_t *index, struct err_note *note)
{
	if (len < 4 || bytes[0] != 'S' || bytes[1] != 'L') {
		corrupt(note, 0, "'SL', version, kind");
		if (len < 4)
			err_note_found(note, "%zu bytes", len);
		else
			err_note_found(note, "%02x %02x", bytes[0], bytes[1]);
		return ERR_CORRUPT;
	}
	for (*index = 0; *index < sizeof(versions) / sizeof(versions[0]); ++*index)
		if (versions[*index].version == bytes[2])
			return 0;
	return err_expect_at(note, ERR_VERSION, "label record", "byte 2", "version %u", "%u", LABELS_VERSION,
	    bytes[2]);
}

static int
read_any(const struct labels_spec *spec, const struct hash128 *tokens, const uint8_t *bytes, size_t len, struct labels_batch *batch,
    struct err_note *note)
{
	size_t i;
	int rc;

	if ((rc = labels__spec_ready(spec, note)) != 0 || (rc = find_version(bytes, len, &i, note)) != 0)
		return rc;
	if (versions[i].version != spec->version)
		return mismatch(note, "version", spec->version, versions[i].version);
	return versions[i].read(spec, tokens, bytes, len, batch, note);
}

int
labels_decode(const struct labels_spec *spec, struct hash128 tokens, const void *bytes, size_t len, struct labels_batch *batch,
    struct err_note *note)
{
	if (batch->n_rows > 0 && batch->kind != spec->kind)
		return mismatch(note, "kind of the batch", batch->kind, spec->kind);
	if (batch->n_rows > 0 && batch->vocab != spec->vocab)
		return mismatch(note, "vocabulary of the batch", batch->vocab, spec->vocab);
	return read_any(spec, &tokens, bytes, len, batch, note);
}

int
labels_check(const struct labels_spec *spec, const struct hash128 *tokens, const void *bytes, size_t len, struct err_note *note)
{
	return read_any(spec, tokens, bytes, len, NULL, note);
}

int
labels_peek(const void *bytes, size_t len, struct labels_header *out, struct err_note *note)
{
	struct labels_header h;
	size_t i;
	int rc;

	if ((rc = find_version(bytes, len, &i, note)) != 0 || (rc = versions[i].open(bytes, len, &h, note)) != 0)
		return rc;
	*out = h;
	return 0;
}
