/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Token files of other programs, recognised by their first bytes: shards of llm.c, NumPy arrays. Other known
 * formats are rejected by name; a file of unknown format is raw.
 */
#include "data/corpus/corpus_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/file/file.h"

#define LLMC_HEADER 1024u /* 256 int32 */

static int
refuse(struct err_note *note, int rc, const char *path, const char *found, const char *what_to_do)
{
	return err_expect_at(note, rc, "%s", "byte 0",
	    "token ids (a Megatron corpus, an llm.c shard, a .npy, or raw ids)", "%s%s%s", path, found,
	    what_to_do[0] != '\0' ? ": " : "", what_to_do);
}

static int
llmc(
    const char *path, const int32_t header[3], uint64_t size, struct corpus__format *f, struct err_note *note)
{
	int version = header[0] == 20240520 ? 1 : 7;
	uint64_t want;

	f->kind = CORPUS_KIND_LLMC;
	f->dtype = header[0] == 20240520 ? CORPUS_DTYPE_UINT16 : CORPUS_DTYPE_UINT32;
	if (header[1] != version)
		return corpus__bad(
		    note, ERR_VERSION, path, 4, version == 1 ? "version 1" : "version 7", header[1]);
	if (header[2] < 0)
		return corpus__bad(note, ERR_FORMAT, path, 8, "a number of tokens of 0 or more", header[2]);
	f->n_tokens = (uint64_t)header[2];
	f->tokens_at = LLMC_HEADER;
	want = LLMC_HEADER + f->n_tokens * corpus__token_bytes(f->dtype);
	if (size == want)
		return 0;
	corpus__bad(note, ERR_FORMAT, path, size < want ? size : want, "", 0);
	return err_expect(note, ERR_FORMAT, "", "%" PRIu64 " bytes (%" PRId32 " tokens)", "%" PRIu64, want,
	    header[2], size);
}

/* The value of a key in the header of a .npy, a Python dictionary as numpy prints it; "" if it is missing. */
static const char *
npy_value(const char *header, const char *key)
{
	const char *at = strstr(header, key);

	return at != NULL ? at + strlen(key) : "";
}

/*
 * A .npy: \x93NUMPY, u8 major, u8 minor, u16 (from version 2 on u32) length, text such as {'descr': '<u2',
 * 'fortran_order': False, 'shape': (7,), }
 */
static int
npy(const char *path, const uint8_t *head, size_t n, uint64_t size, struct corpus__format *f,
    struct err_note *note)
{
	static const struct {
		const char *name;
		enum corpus_dtype dtype;
	} types[] = {{"'<u2'", CORPUS_DTYPE_UINT16}, {"'<u4'", CORPUS_DTYPE_UINT32},
	    {"'<i4'", CORPUS_DTYPE_INT32}, {"'<i8'", CORPUS_DTYPE_INT64}, {"'<u8'", CORPUS_DTYPE_UINT64}};
	uint32_t len = 0, at = n > 6 && head[6] == 1 ? 10 : 12;
	char text[CORPUS__HEAD_BYTES], found[64];
	const char *type, *shape, *order;
	int end = 0;

	if (n > at)
		memcpy(&len, head + 8, at == 10 ? 2 : 4);
	if (n <= at || head[6] < 1 || head[6] > 3 || len == 0 || len > n - at)
		return refuse(note, ERR_FORMAT, path,
		    "a NumPy array (.npy) with a header that is cut short or of an unknown version", "");
	snprintf(text, sizeof(text), "%.*s", (int)len, (const char *)head + at);
	type = npy_value(text, "'descr': ");
	order = npy_value(text, "'fortran_order': ");
	shape = npy_value(text, "'shape': ");
	snprintf(found, sizeof(found), "%.*s",
	    type[0] == '\'' ? (int)strcspn(type + 1, "'") + 2 : (int)strcspn(type, ","), type);
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (strcmp(found, types[i].name) == 0)
			f->dtype = types[i].dtype;
	f->kind = CORPUS_KIND_NPY;
	f->tokens_at = at + len;
	if (f->dtype == 0)
		return err_expect_at(note, ERR_UNSUPPORTED, "%s", "descr",
		    "little-endian integers: '<u2', '<u4', '<i4', '<i8' or '<u8'",
		    "%s: convert it, for example with a.astype('<u4')", path, found);
	if (strncmp(order, "False", 5) != 0)
		return err_expect_at(
		    note, ERR_UNSUPPORTED, "%s", "fortran_order", "False", "%.20s", path, order);
	if (sscanf(shape, "(%" SCNu64 ",)%n", &f->n_tokens, &end) != 1 || end == 0)
		return err_expect_at(note, ERR_UNSUPPORTED, "%s", "shape", "one dimension, as in (1000,)",
		    "%.*s: flatten it with a.reshape(-1)", path, (int)strcspn(shape, ")") + 1, shape);
	if (f->n_tokens > UINT64_MAX / 16 ||
	    size != f->tokens_at + f->n_tokens * corpus__token_bytes(f->dtype))
		return err_expect_at(note, ERR_FORMAT, "%s", "shape",
		    "%" PRIu64 " elements of %u bytes after a header of %" PRIu64, "%" PRIu64 " bytes", path,
		    f->n_tokens, corpus__token_bytes(f->dtype), f->tokens_at, size);
	return 0;
}

int
corpus__format(const char *path, const uint8_t *head, size_t n, uint64_t size, struct corpus__format *f,
    struct err_note *note)
{
	const char *name = file_format(head, n < 512 ? n : 512);
	int32_t header[3] = {0};

	*f = (struct corpus__format){.kind = CORPUS_KIND_RAW};
	if (size == 0)
		return refuse(note, ERR_FORMAT, path, "an empty file", "");
	memcpy(header, head, n < sizeof(header) ? n : sizeof(header));
	switch (header[0]) {
	case 20240520:
	case 20240801:
		return llmc(path, header, size, f, note);
	case 20240522:
		return refuse(note, ERR_UNSUPPORTED, path, "an evaluation shard of llm.c (magic 20240522)",
		    "it holds questions, not a text");
	case 20240326:
	case 20240327:
	case 20240328:
	case 20251013:
		return refuse(note, ERR_UNSUPPORTED, path,
		    "a file of llm.c that holds no tokens, or of an unknown kind", "");
	}
	if (name != NULL && n >= 6 && memcmp(head, "\x93NUMPY", 6) == 0)
		return npy(path, head, n, size, f, note);
	if (name != NULL)
		return refuse(note, ERR_FORMAT, path, name,
		    strstr(name, ".idx") != NULL ? "give the PREFIX of .bin and .idx" : "");
	if (n >= 8 && file_is_text(head, n))
		return refuse(note, ERR_FORMAT, path, head[0] == '{' || head[0] == '[' ? "JSON text" : "text",
		    "make a corpus of it with saltctl corpus build");
	return 0;
}
