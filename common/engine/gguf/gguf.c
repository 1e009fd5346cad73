/* SPDX-License-Identifier: Apache-2.0 */
/* gguf - one GGUF file: its header, pairs and tensors, checked in full. gguf.h has the layout. */
#include "engine/gguf/gguf_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file/file.h"
#include "base/mem/mem.h"

/* ---- reading the header ---- */

struct cursor {
	struct gguf *g;
	uint64_t at;
	struct err_note *note;
};

static int
bad(const struct cursor *c, int rc, uint64_t at, const char *expected, const char *fmt, ...) __attribute__((format(printf, 5, 6)));

static int
bad(const struct cursor *c, int rc, uint64_t at, const char *expected, const char *fmt, ...)
{
	char found[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(found, sizeof(found), fmt, ap);
	va_end(ap);
	return err_expect_at(c->note, rc, "%s", "byte %" PRIu64, "%s", "%s", c->g->path, at, expected, found);
}

static uint64_t
left(const struct cursor *c)
{
	return c->g->size - c->at;
}

static int
take(struct cursor *c, unsigned bytes, const char *what, uint64_t *out)
{
	*out = 0;
	if (left(c) < bytes)
		return bad(c, ERR_FORMAT, c->at, what, "the end of the file at %" PRIu64, c->g->size);
	*out = gguf__little(c->g->map + c->at, bytes);
	c->at += bytes;
	return 0;
}

/* Reads a length and that many bytes, without a copy. The bytes are not checked. */
static int
take_text(struct cursor *c, uint64_t max_bytes, const char *what, struct gguf__text *out)
{
	uint64_t at = c->at, len;
	int rc;

	if ((rc = take(c, 8, what, &len)) != 0)
		return rc;
	if (len > max_bytes) {
		bad(c, ERR_RANGE, at, "", "a length of %" PRIu64, len);
		err_note_expected(c->note, "%s of at most %" PRIu64 " bytes", what, max_bytes);
		return ERR_RANGE;
	}
	if (len > left(c))
		return bad(c, ERR_FORMAT, at, what, "%" PRIu64 " bytes, of which the file has %" PRIu64, len, left(c));
	*out = (struct gguf__text){(const char *)c->g->map + c->at, (size_t)len};
	c->at += len;
	return 0;
}

/* Reads a key or a tensor's name into the arena: not empty, UTF-8, no control characters. */
static int
take_name(struct cursor *c, uint64_t max_bytes, const char *what, const char **out)
{
	uint64_t at = c->at;
	struct gguf__text text;
	int rc;

	if ((rc = take_text(c, max_bytes, what, &text)) != 0)
		return rc;
	if (text.len == 0)
		return bad(c, ERR_FORMAT, at, what, "an empty one");
	for (size_t i = 0, n; i < text.len; i += n) {
		n = gguf__utf8((const unsigned char *)text.s + i, text.len - i);
		if (n == 0 || (unsigned char)text.s[i] < 0x20 || text.s[i] == 0x7f)
			return bad(c, ERR_FORMAT, at + 8 + i, "UTF-8 without control characters", "byte 0x%02x", (unsigned char)text.s[i]);
	}
	if ((*out = mem_arena_strndup(c->g->arena, text.s, text.len)) == NULL)
		return err_note_set(c->note, ENOMEM, "%s", c->g->path);
	return 0;
}

static int
take_kind(struct cursor *c, enum gguf__kind *out)
{
	uint64_t at = c->at, v;
	int rc;

	if ((rc = take(c, 4, "a value's kind", &v)) != 0)
		return rc;
	if (v >= GGUF__KINDS)
		return bad(c, ERR_FORMAT, at, "a kind of value, 0..12", "%" PRIu64, v);
	*out = (enum gguf__kind)v;
	return 0;
}

static int skip_items(struct cursor *c, enum gguf__kind kind, uint64_t count, unsigned depth);

/* Reads the kind and the count of an array's items, and moves the cursor to the first item. */
static int
take_array(struct cursor *c, enum gguf__kind *kind, uint64_t *count)
{
	uint64_t at = c->at;
	int rc;

	if ((rc = take_kind(c, kind)) != 0 || (rc = take(c, 8, "an array's length", count)) != 0)
		return rc;
	if (*count > GGUF_MAX_ITEMS) {
		bad(c, ERR_RANGE, at + 4, "", "%" PRIu64, *count);
		err_note_expected(c->note, "at most %u items", GGUF_MAX_ITEMS);
		return ERR_RANGE;
	}
	return 0;
}

static int
skip_value(struct cursor *c, enum gguf__kind kind, unsigned depth)
{
	enum gguf__kind item_kind = GGUF__U8;
	struct gguf__text text;
	uint64_t count;
	int rc;

	if (kind == GGUF__TEXT)
		return take_text(c, GGUF_MAX_TEXT_BYTES, "a string", &text);
	if (kind != GGUF__ARRAY)
		return skip_items(c, kind, 1, depth);
	if (depth == GGUF_MAX_DEPTH)
		return bad(c, ERR_RANGE, c->at, "arrays at most 4 deep", "a deeper one");
	if ((rc = take_array(c, &item_kind, &count)) != 0)
		return rc;
	return skip_items(c, item_kind, count, depth + 1);
}

static int
skip_items(struct cursor *c, enum gguf__kind kind, uint64_t count, unsigned depth)
{
	unsigned bytes = gguf__kind_bytes(kind);
	int rc;

	if (bytes != 0) {
		if (count > left(c) / bytes) {
			bad(c, ERR_FORMAT, c->at, "", "the end of the file at %" PRIu64, c->g->size);
			err_note_expected(c->note, "%" PRIu64 " of %s", count, gguf__kind_name(kind));
			return ERR_FORMAT;
		}
		c->at += count * bytes;
		return 0;
	}
	for (uint64_t i = 0; i < count; i++)		/* each takes at least eight bytes of the file */
		if ((rc = skip_value(c, kind, depth)) != 0)
			return rc;
	return 0;
}

static int
read_pair(struct cursor *c, struct gguf__pair *pair)
{
	int rc;

	if ((rc = take_name(c, GGUF_MAX_KEY_BYTES, "a key", &pair->key)) != 0 || (rc = take_kind(c, &pair->kind)) != 0)
		return rc;
	if (pair->kind != GGUF__ARRAY) {
		pair->value = c->g->map + c->at;
		return skip_value(c, pair->kind, 0);
	}
	if ((rc = take_array(c, &pair->item_kind, &pair->count)) != 0)
		return rc;
	pair->value = c->g->map + c->at;
	return skip_items(c, pair->item_kind, pair->count, 1);
}

static int
tensor_bad(const struct cursor *c, const struct gguf_tensor *t, int rc, const char *expected, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

static int
tensor_bad(const struct cursor *c, const struct gguf_tensor *t, int rc, const char *expected, const char *fmt, ...)
{
	char found[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(found, sizeof(found), fmt, ap);
	va_end(ap);
	return err_expect_at(c->note, rc, "%s", "tensor %s", "%s", "%s", c->g->path, t->name, expected,
	    found);
}

/*
 * offset_bytes stays relative to the data, because the start of the data is known only after the last tensor.
 */
static int
read_tensor(struct cursor *c, struct gguf_tensor *t)
{
	uint64_t v, at;
	size_t n = 1, bytes;
	int rc;

	if ((rc = take_name(c, GGUF_MAX_NAME_BYTES, "a tensor's name", &t->name)) != 0)
		return rc;
	t->file = c->g->path;
	at = c->at;
	if ((rc = take(c, 4, "a number of dimensions", &v)) != 0)
		return rc;
	if (v < 1 || v > GGUF_MAX_DIMS)
		return tensor_bad(c, t, ERR_RANGE, "1 to 4 dimensions", "%" PRIu64 " (byte %" PRIu64 ")", v, at);
	t->n_dims = (unsigned)v;
	for (unsigned i = 0; i < t->n_dims; i++) {
		if ((rc = take(c, 8, "a dimension", &t->dims[i])) != 0)
			return rc;
		if (t->dims[i] < 1 || t->dims[i] > INT64_MAX || !mem_mul(n, (size_t)t->dims[i], &n))
			return tensor_bad(c, t, ERR_RANGE, "dimensions over 0 whose product fits", "%" PRIu64, t->dims[i]);
	}
	if ((rc = take(c, 4, "a tensor's type", &v)) != 0 || (rc = take(c, 8, "a tensor's offset", &t->offset_bytes)) != 0)
		return rc;
	t->type = (uint32_t)v;
	t->n_elements = n;
	if (gguf_type_elements(t->type) == 0)
		return tensor_bad(c, t, ERR_UNSUPPORTED, GGUF_TYPES,
		    "type %s (%" PRIu32 ")", gguf_type_name(t->type), t->type);
	if (t->dims[0] % gguf_type_elements(t->type) != 0)
		return tensor_bad(c, t, ERR_FORMAT, "rows of whole blocks", "%" PRIu64 " elements in blocks of %u (%s)", t->dims[0],
		    gguf_type_elements(t->type), gguf_type_name(t->type));
	if (!mem_mul(n / gguf_type_elements(t->type), gguf_type_bytes(t->type), &bytes))
		return tensor_bad(c, t, ERR_RANGE, "a size that fits 64 bits", "%zu elements", n);
	t->len_bytes = bytes;
	return 0;
}

static int
by_offset(const void *a, const void *b)
{
	const struct gguf_tensor *x = a, *y = b;

	return x->offset_bytes < y->offset_bytes ? -1 : x->offset_bytes > y->offset_bytes;
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(((const struct gguf_tensor *)a)->name, ((const struct gguf_tensor *)b)->name);
}

/* Makes offsets relative to the file instead of the data, checks the ranges, sets the pointers. */
static int
place_tensors(struct cursor *c)
{
	struct gguf *g = c->g;
	int64_t alignment = 32;
	uint64_t begin, room, end = 0;

	if (gguf__pair(g, "general.alignment") != NULL && !gguf__int(gguf__pair(g, "general.alignment"), &alignment))
		return gguf__bad_kind(g, c->note, "general.alignment", "an integer");
	if (alignment < 1 || alignment > (int64_t)GGUF_MAX_ALIGNMENT || (alignment & (alignment - 1)) != 0)
		return gguf__bad(g, c->note, ERR_RANGE, "general.alignment", "a power of two up to 65536", "%" PRId64, alignment);
	begin = (c->at + (uint64_t)alignment - 1) / (uint64_t)alignment * (uint64_t)alignment;
	if (begin > g->size && g->n_tensors > 0)
		return bad(c, ERR_FORMAT, c->at, "the data of tensors", "the end of the file at %" PRIu64, g->size);
	room = begin < g->size ? g->size - begin : 0;
	qsort(g->tensors, g->n_tensors, sizeof(g->tensors[0]), by_offset);
	for (size_t i = 0; i < g->n_tensors; i++) {
		struct gguf_tensor *t = &g->tensors[i];

		if (t->offset_bytes % (uint64_t)alignment != 0) {
			tensor_bad(c, t, ERR_FORMAT, "", "%" PRIu64, t->offset_bytes);
			err_note_expected(c->note, "an offset that %" PRId64 " divides", alignment);
			return ERR_FORMAT;
		}
		if (t->offset_bytes > room || t->len_bytes > room - t->offset_bytes) {
			tensor_bad(c, t, ERR_FORMAT, "", "%" PRIu64 " bytes at %" PRIu64, t->len_bytes, t->offset_bytes);
			err_note_expected(c->note, "a range within the %" PRIu64 " bytes of data", room);
			return ERR_FORMAT;
		}
		if (t->offset_bytes < end)
			return tensor_bad(c, t, ERR_FORMAT, "a range that overlaps no other tensor",
			    "offset %" PRIu64 ", within tensor %s", t->offset_bytes, t[-1].name);
		end = t->offset_bytes + t->len_bytes;
		t->offset_bytes += begin;
		t->data = g->map + t->offset_bytes;
	}
	return 0;
}

static int
read_head(struct cursor *c, uint64_t *n_tensors, uint64_t *n_pairs)
{
	uint64_t version;
	int rc;

	if (c->g->size < 4 || memcmp(c->g->map, "GGUF", 4) != 0) {
		const char *magic = file_magic(c->g->map, c->g->size);

		return bad(c, ERR_FORMAT, 0, "GGUF", "%s", magic != NULL ? magic : c->g->size < 4 ? "less than four bytes" : "something else");
	}
	c->at = 4;
	if ((rc = take(c, 4, "a version", &version)) != 0)
		return rc;
	if ((version & 0xffff) == 0)
		return bad(c, ERR_UNSUPPORTED, 4, "little-endian numbers", "version %" PRIu64 ": a big-endian file", version);
	if (version != 2 && version != 3)
		return bad(c, ERR_VERSION, 4, "version 2 or 3", "%" PRIu64, version);
	if ((rc = take(c, 8, "a number of tensors", n_tensors)) != 0 || (rc = take(c, 8, "a number of pairs", n_pairs)) != 0)
		return rc;
	if (*n_tensors > GGUF_MAX_TENSORS)
		return bad(c, ERR_RANGE, 8, "at most 65536 tensors", "%" PRIu64, *n_tensors);
	if (*n_pairs > GGUF_MAX_PAIRS)
		return bad(c, ERR_RANGE, 16, "at most 65536 pairs", "%" PRIu64, *n_pairs);
	return 0;
}

static int
parse(struct gguf *g, struct err_note *note)
{
	struct cursor c = {.g = g, .note = note};
	uint64_t n_tensors = 0, n_pairs = 0;
	int64_t parts;
	int rc;

	if ((rc = read_head(&c, &n_tensors, &n_pairs)) != 0)
		return rc;
	g->pairs = mem_alloc((size_t)n_pairs, sizeof(g->pairs[0]));
	g->tensors = mem_alloc((size_t)n_tensors, sizeof(g->tensors[0]));
	if (g->pairs == NULL || g->tensors == NULL)
		return err_note_set(note, ENOMEM, "%s", g->path);
	for (; g->n_pairs < n_pairs; g->n_pairs++)
		if ((rc = read_pair(&c, &g->pairs[g->n_pairs])) != 0)
			return rc;
	qsort(g->pairs, g->n_pairs, sizeof(g->pairs[0]), gguf__by_key);
	for (size_t i = 1; i < g->n_pairs; i++)
		if (strcmp(g->pairs[i].key, g->pairs[i - 1].key) == 0)
			return gguf__bad(g, note, ERR_FORMAT, g->pairs[i].key, "unique keys", "a duplicate");
	if (gguf__int(gguf__pair(g, "split.count"), &parts) && parts > 1)
		return gguf__bad(g, note, ERR_UNSUPPORTED, "split.count", "a model in one file (llama-gguf-split --merge makes it)",
		    "one of %" PRId64 " parts", parts);
	for (; g->n_tensors < n_tensors; g->n_tensors++)
		if ((rc = read_tensor(&c, &g->tensors[g->n_tensors])) != 0)
			return rc;
	if ((rc = place_tensors(&c)) != 0)
		return rc;
	qsort(g->tensors, g->n_tensors, sizeof(g->tensors[0]), by_name);
	for (size_t i = 1; i < g->n_tensors; i++)
		if (strcmp(g->tensors[i].name, g->tensors[i - 1].name) == 0)
			return tensor_bad(&c, &g->tensors[i], ERR_FORMAT, "unique names", "a duplicate");
	return 0;
}

/* ---- opening and closing a file ---- */

int
gguf_open(struct gguf **out, const char *path, struct err_note *note)
{
	struct gguf *g = NULL;
	struct stat st;
	int fd = -1, rc = 0;
	void *map;

	*out = NULL;
	if ((g = calloc(1, sizeof(*g))) == NULL || (g->path = strdup(path)) == NULL || (g->arena = mem_arena_new(0)) == NULL) {
		rc = err_note_set(note, ENOMEM, "%s", path);
		goto out;
	}
	if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0 || fstat(fd, &st) != 0) {
		rc = err_note_set(note, errno, "%s", path);
		goto out;
	}
	if (!S_ISREG(st.st_mode) || st.st_size == 0) {
		rc = err_expect(note, S_ISDIR(st.st_mode) ? EISDIR : ERR_FORMAT, "%s", "a GGUF file", "%s",
		    path, S_ISREG(st.st_mode) ? "an empty file" : "no regular file");
		goto out;
	}
	if ((map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED) {
		rc = err_note_set(note, errno, "%s: mmap", path);
		goto out;
	}
	g->map = map;
	g->size = (uint64_t)st.st_size;
	rc = parse(g, note);
out:
	if (fd >= 0)
		close(fd);
	if (rc != 0)
		gguf_close(&g);
	*out = g;
	return rc;
}

void
gguf_close(struct gguf **out)
{
	struct gguf *g = *out;

	if (g == NULL)
		return;
	if (g->map != NULL)
		munmap(g->map, (size_t)g->size);
	mem_arena_destroy(&g->arena);
	free(g->pairs);
	free(g->tensors);
	free(g->path);
	free(g);
	*out = NULL;
}

const struct gguf_tensor *
gguf_find(const struct gguf *g, const char *name)
{
	const struct gguf_tensor want = {.name = name};

	return g->n_tensors == 0 ? NULL : bsearch(&want, g->tensors, g->n_tensors, sizeof(want), by_name);
}

int
gguf_read_f32(const struct gguf_tensor *t, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	const unsigned elements = gguf_type_elements(t->type), bytes = gguf_type_bytes(t->type);
	float block[GGUF_MAX_BLOCK];

	if (begin > t->n_elements || count > t->n_elements - begin)
		return err_expect_at(note, ERR_RANGE, "%s", "tensor %s", "elements within 0..%" PRIu64,
		    "%" PRIu64 " from %" PRIu64, t->file, t->name, t->n_elements, count, begin);
	for (uint64_t at = 0; at < count;) {
		uint64_t n_block = (begin + at) / elements, n;
		unsigned skip = (unsigned)((begin + at) % elements);
		const unsigned char *from = t->data + n_block * bytes;

		if (skip == 0 && count - at >= elements) {		/* whole blocks, at most 1024 */
			n = (count - at) / elements < 1024 ? (count - at) / elements : 1024;
			gguf_decode(t->type, from, n, out + at);
			n *= elements;
		} else {
			n = count - at < elements - skip ? count - at : elements - skip;
			gguf_decode(t->type, from, 1, block);
			memcpy(out + at, block + skip, (size_t)n * sizeof(float));
		}
		for (uint64_t i = at; i < at + n; i++) {
			if (isfinite(out[i]))
				continue;
			return err_expect_at(note, ERR_NONFINITE, "%s",
			    "tensor %s, element %" PRIu64 " (block at byte %" PRIu64 ")", "a finite number",
			    "%s", t->file, t->name, begin + i,
			    t->offset_bytes + (begin + i) / elements * bytes,
			    isnan(out[i]) ? "NaN" : "infinity");
		}
		at += n;
	}
	return 0;
}
