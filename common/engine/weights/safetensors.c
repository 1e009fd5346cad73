/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors - the header of one safetensors file:
 *   0      8   u64, little-endian: n, length of the JSON text
 *   8      n   JSON object: tensor name -> {"dtype", "shape", "data_offsets": [begin, end]}, and
 *              "__metadata__": strings
 *   8 + n  ..  data; offsets count from here and cover it without gaps or overlaps, in any order of names
 */
#include "engine/weights/weights_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file/file.h"

static const struct {
	const char *name;
	size_t bytes;
} dtypes[] = {
	[WEIGHTS_F32] = {"F32", 4}, [WEIGHTS_F16] = {"F16", 2}, [WEIGHTS_BF16] = {"BF16", 2}, [WEIGHTS_F64] = {"F64", 8},
	[WEIGHTS_I64] = {"I64", 8}, [WEIGHTS_I32] = {"I32", 4}, [WEIGHTS_I16] = {"I16", 2}, [WEIGHTS_I8] = {"I8", 1},
	[WEIGHTS_U64] = {"U64", 8}, [WEIGHTS_U32] = {"U32", 4}, [WEIGHTS_U16] = {"U16", 2}, [WEIGHTS_U8] = {"U8", 1},
	[WEIGHTS_BOOL] = {"BOOL", 1}, [WEIGHTS_F8_E4M3] = {"F8_E4M3", 1}, [WEIGHTS_F8_E5M2] = {"F8_E5M2", 1},
};

#define N_DTYPES (sizeof(dtypes) / sizeof(dtypes[0]))

const char *
weights_dtype_name(enum weights_dtype dtype)
{
	return dtype < N_DTYPES ? dtypes[dtype].name : "?";
}

size_t
weights_dtype_bytes(enum weights_dtype dtype)
{
	return dtype < N_DTYPES ? dtypes[dtype].bytes : 0;
}

static bool
dtype_named(const char *name, enum weights_dtype *out)
{
	for (size_t i = 0; i < N_DTYPES; i++) {
		if (strcmp(name, dtypes[i].name) == 0) {
			*out = (enum weights_dtype)i;
			return true;
		}
	}
	return false;
}

/* Sets a note for one tensor: "FILE: tensor NAME: expected ..., found ...". */
static int
tensor_note(struct err_note *note, int rc, const char *path, const char *name)
{
	err_note_set(note, rc, "%s", path);
	err_note_place(note, "tensor %s", name);
	return rc;
}

static int
wrong_kind(struct err_note *note, const char *path, const char *name, const char *key, const char *expected, const struct json *found)
{
	return err_expect_at(note, ERR_FORMAT, "%s", "tensor %s, %s", "%s", "%s", path, name, key, expected,
	    found == NULL ? "nothing" : json_kind_name(json_kind(found)));
}

static int
parse_shape(struct weights_tensor *t, const struct json *shape, const char *path, struct err_note *note)
{
	size_t n_dims = json_count(shape), n = 1, bytes;

	if (json_kind(shape) != JSON_KIND_ARRAY)
		return wrong_kind(note, path, t->name, "shape", "array", shape);
	if (n_dims > WEIGHTS_MAX_DIMS) {
		tensor_note(note, ERR_RANGE, path, t->name);
		return err_expect(note, ERR_RANGE, "", "at most %d dimensions", "%zu", WEIGHTS_MAX_DIMS,
		    n_dims);
	}
	t->n_dims = (unsigned)n_dims;
	for (size_t i = 0; i < n_dims; i++) {
		int64_t v;

		if (!json_int(json_item(shape, i), &v) || v < 0)
			return wrong_kind(note, path, t->name, "shape", "integers of at least 0", json_item(shape, i));
		t->shape[i] = (uint64_t)v;
		if (!mem_mul(n, (size_t)v, &n))
			goto too_large;
	}
	if (!mem_mul(n, weights_dtype_bytes(t->dtype), &bytes))
		goto too_large;
	t->n_elements = n;
	t->len_bytes = bytes;
	return 0;
too_large:
	tensor_note(note, ERR_RANGE, path, t->name);
	return err_expect(note, ERR_RANGE, "", "a shape whose bytes fit 64 bits",
	    "a product of %zu dimensions that does not", n_dims);
}

/* data_bytes: number of bytes after the header. */
static int
parse_tensor(struct weights_tensor *t, const struct json *entry, uint64_t data_at, uint64_t data_bytes, const char *path,
    struct err_note *note)
{
	const struct json *offsets = json_get(entry, "data_offsets");
	int64_t begin, end;
	const char *dtype;
	int rc;

	if (json_kind(entry) != JSON_KIND_OBJECT)
		return wrong_kind(note, path, t->name, "entry", "object", entry);
	if (!json_text(json_get(entry, "dtype"), &dtype))
		return wrong_kind(note, path, t->name, "dtype", "string", json_get(entry, "dtype"));
	if (!dtype_named(dtype, &t->dtype)) {
		tensor_note(note, ERR_UNSUPPORTED, path, t->name);
		return err_expect(note, ERR_UNSUPPORTED, "", "a dtype such as F32, F16, BF16", "%s", dtype);
	}
	if ((rc = parse_shape(t, json_get(entry, "shape"), path, note)) != 0)
		return rc;
	if (json_kind(offsets) != JSON_KIND_ARRAY || json_count(offsets) != 2 || !json_int(json_item(offsets, 0), &begin) ||
	    !json_int(json_item(offsets, 1), &end))
		return wrong_kind(note, path, t->name, "data_offsets", "two integers", offsets);
	if (begin < 0 || end < begin || (uint64_t)end > data_bytes) {
		tensor_note(note, ERR_FORMAT, path, t->name);
		return err_expect(note, ERR_FORMAT, "",
		    "0 <= begin <= end <= %" PRIu64 " (bytes of data in the file)",
		    "[%" PRId64 ", %" PRId64 "]%s", data_bytes, begin, end,
		    begin >= 0 && end >= begin ? ": the file is cut short; copy or download it again" : "");
	}
	if ((uint64_t)(end - begin) != t->len_bytes) {
		tensor_note(note, ERR_FORMAT, path, t->name);
		return err_expect(note, ERR_FORMAT, "", "%" PRIu64 " bytes (%" PRIu64 " elements of %s)",
		    "data_offsets [%" PRId64 ", %" PRId64 "]", t->len_bytes, t->n_elements, dtype, begin,
		    end);
	}
	t->offset_bytes = data_at + (uint64_t)begin;
	return 0;
}

static int
by_offset(const void *a, const void *b)
{
	const struct weights_tensor *x = a, *y = b;

	if (x->offset_bytes != y->offset_bytes)
		return x->offset_bytes < y->offset_bytes ? -1 : 1;
	if (x->len_bytes != y->len_bytes)		/* empty tensors first: they take no space */
		return x->len_bytes < y->len_bytes ? -1 : 1;
	return strcmp(x->name, y->name);
}

/* Checks that the sorted ranges are adjacent and end with the file. */
static int
check_cover(const struct weights__table *t, uint64_t data_at, uint64_t size, const char *path, struct err_note *note)
{
	uint64_t at = data_at;

	for (size_t i = 0; i < t->n_tensors; i++) {
		if (t->tensors[i].offset_bytes != at) {
			tensor_note(note, ERR_FORMAT, path, t->tensors[i].name);
			return err_expect(note, ERR_FORMAT, "",
			    "data to begin at byte %" PRIu64 " of the file (no hole, no overlap)",
			    "byte %" PRIu64, at, t->tensors[i].offset_bytes);
		}
		at += t->tensors[i].len_bytes;
	}
	if (at != size)
		return err_expect_at(note, ERR_FORMAT, "%s", "byte %" PRIu64,
		    "the file to end where its last tensor ends", "%" PRIu64 " bytes more", path, at,
		    size - at);
	return 0;
}

static int
check_meta(const struct json *meta, const char *path, struct err_note *note)
{
	const char *s;

	if (json_kind(meta) != JSON_KIND_OBJECT)
		return wrong_kind(note, path, "__metadata__", "value", "object", meta);
	for (void *it = json_first(meta); it != NULL; it = json_next(meta, it))
		if (!json_text(json_value(it), &s))
			return wrong_kind(note, path, "__metadata__", json_key(it), "string", json_value(it));
	return 0;
}

static int
header_range(struct err_note *note, const char *path, uint64_t limit, uint64_t n)
{
	return err_expect_at(note, ERR_FORMAT, "%s", "byte 0 (header length)",
	    "2 to %" PRIu64 " (bytes left in the file, %u at most)", "%" PRIu64 "%s", path, limit,
	    WEIGHTS_MAX_HEADER_BYTES, n, n > limit && n <= WEIGHTS_MAX_HEADER_BYTES ?
	    ": the file is cut short; copy or download it again" : "");
}

int
weights__parse(const unsigned char *p, uint64_t size, const char *path, struct weights__table *t, struct err_note *note)
{
	uint64_t n = 0, limit;
	const char *magic;
	size_t n_entries;
	int rc;

	memset(t, 0, sizeof(*t));
	/* Only a file without a header is identified: one with a header of 640 bytes begins like a pickle. */
	if ((size < 9 || p[8] != '{') && (magic = file_magic(p, size)) != NULL)
		return err_expect(note, ERR_FORMAT, "%s", "a safetensors file", "%s", path, magic);
	if (size < 8)
		return err_expect(note, ERR_FORMAT, "%s", "a safetensors file: at least 8 bytes", "%" PRIu64,
		    path, size);
	for (unsigned i = 0; i < 8; i++)
		n |= (uint64_t)p[i] << (8 * i);
	limit = size - 8 < WEIGHTS_MAX_HEADER_BYTES ? size - 8 : WEIGHTS_MAX_HEADER_BYTES;
	if (n < 2 || n > limit)
		return header_range(note, path, limit, n);
	if (p[8] != '{')
		return err_expect_at(note, ERR_FORMAT, "%s", "byte 8", "'{', the start of the header",
		    "byte 0x%02x", path, p[8]);
	if ((rc = json_parse((const char *)p + 8, (size_t)n, path, &t->root, note)) != 0)
		return rc;
	n_entries = json_count(t->root);
	if (n_entries > WEIGHTS_MAX_TENSORS) {
		rc = err_expect(note, ERR_RANGE, "%s", "at most %u tensors", "%zu", path, WEIGHTS_MAX_TENSORS,
		    n_entries);
		goto out;
	}
	if ((t->tensors = mem_alloc(n_entries, sizeof(*t->tensors))) == NULL) {
		rc = err_note_set(note, ENOMEM, "%s", path);
		goto out;
	}
	for (void *it = json_first(t->root); it != NULL; it = json_next(t->root, it)) {
		struct weights_tensor *one = &t->tensors[t->n_tensors];

		if (strcmp(json_key(it), "__metadata__") == 0) {
			if ((rc = check_meta(json_value(it), path, note)) != 0)
				goto out;
			continue;
		}
		one->name = json_key(it);
		one->file = path;
		if ((rc = parse_tensor(one, json_value(it), 8 + n, size - 8 - n, path, note)) != 0)
			goto out;
		one->data = p + one->offset_bytes;
		t->n_tensors++;
	}
	qsort(t->tensors, t->n_tensors, sizeof(*t->tensors), by_offset);
	rc = check_cover(t, 8 + n, size, path, note);
out:
	if (rc != 0)
		weights__table_free(t);
	return rc;
}

void
weights__table_free(struct weights__table *t)
{
	json_close(&t->root);
	free(t->tensors);
	t->tensors = NULL;
	t->n_tensors = 0;
}
