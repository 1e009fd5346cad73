/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/tokenizer_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file/file.h"
#include "base/json/json.h"
#include "base/mem/mem.h"
#include "base/pieces/pieces.h"

/*
 * Converts SentencePiece's tokenizer.model (sentencepiece_model.proto of github.com/google/sentencepiece) to
 * a tokenizer.json. Only fields that affect ids are read. The encoding is protobuf's (wire types 0, 1, 2 and
 * 5).
 */

enum { MODEL_PROTO_PIECES = 1, MODEL_PROTO_TRAINER = 2, MODEL_PROTO_NORMALIZER = 3 };
#define BASE64 "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
enum { TYPE_UNIGRAM = 1, TYPE_BPE = 2 };

struct field {
	uint32_t number;
	unsigned wire;
	uint64_t value; /* value of a varint, fixed32 or fixed64; length of bytes */
	const unsigned char *bytes; /* wire type 2 */
};

struct reading {
	const char *name;
	struct err_note *note;
	const unsigned char *start; /* of the file, for offsets in notes */
	struct mem_arena *arena;
	const char **text;
	float *score;
	uint8_t *type;
	struct pieces p;
};

static int
bad(struct reading *r, int rc, const char *place, const char *expected, const char *found)
{
	return err_expect_at(r->note, rc, "%s", "%s", "%s", "%s", r->name, place, expected, found);
}

static int
bad_at(struct reading *r, const unsigned char *at, const char *found)
{
	char place[48];

	snprintf(place, sizeof place, "byte %zu", (size_t)(at - r->start));
	return bad(r, ERR_FORMAT, place, "a SentencePiece model (protobuf)", found);
}

static bool
varint(const unsigned char **p, const unsigned char *end, uint64_t *out)
{
	*out = 0;
	for (unsigned shift = 0; *p < end && shift < 64; shift += 7) {
		unsigned char b = *(*p)++;

		*out |= (uint64_t)(b & 0x7f) << shift;
		if (b < 0x80)
			return true;
	}
	return false;
}

/* Reads the next field of a message. Returns 1, 0 at the end of the message, or ERR_FORMAT. */
static int
next_field(struct reading *r, const unsigned char **p, const unsigned char *end, struct field *f)
{
	const unsigned char *at = *p;
	uint64_t key;
	size_t size;

	if (at == end)
		return 0;
	if (!varint(p, end, &key) || key >> 3 == 0 || key >> 32 != 0)
		return bad_at(r, at, "an invalid field");
	*f = (struct field){.number = (uint32_t)(key >> 3), .wire = key & 7};
	switch (f->wire) {
	case 0:
		return varint(p, end, &f->value) ? 1 : bad_at(r, at, "a number that does not end");
	case 2:
		if (!varint(p, end, &f->value) || f->value > (uint64_t)(end - *p))
			return bad_at(r, at, "a field that goes beyond its message");
		f->bytes = *p;
		*p += f->value;
		return 1;
	case 1:
	case 5:
		size = f->wire == 1 ? 8 : 4;
		if ((size_t)(end - *p) < size)
			return bad_at(r, at, "a field that goes beyond its message");
		for (size_t i = 0; i < size; i++)
			f->value |= (uint64_t)(*p)[i] << 8 * i;
		*p += size;
		return 1;
	default:
		return bad_at(r, at, "an unknown wire type");
	}
}

static int
read_piece(struct reading *r, const unsigned char *p, size_t n, size_t i)
{
	const unsigned char *end = p + n, *text = (const unsigned char *)"";
	struct field f;
	uint32_t bits = 0;
	uint64_t type = PIECE_NORMAL;
	size_t len = 0, k;
	int rc;

	while ((rc = next_field(r, &p, end, &f)) > 0) {
		if (f.number == 1 && f.wire == 2) {
			text = f.bytes;
			len = (size_t)f.value;
		} else if (f.number == 2 && f.wire == 5) {
			bits = (uint32_t)f.value;
		} else if (f.number == 3 && f.wire == 0) {
			type = f.value;
		}
	}
	if (rc != 0)
		return rc;
	for (size_t at = 0; at < len; at += k) {
		if (text[at] == '\0' || (k = tokenizer__utf8_len(text + at, len - at)) == 0)
			return bad_at(r, text + at, "a piece that is not UTF-8, or has a NUL");
	}
	if (type < PIECE_NORMAL || type > PIECE_BYTE)
		return bad_at(r, end, "a piece of an unknown type");
	memcpy(&r->score[i], &bits, sizeof bits);
	r->type[i] = (uint8_t)type;
	if (len > MAX_TOKEN_BYTES)
		return bad(r, ERR_RANGE, "pieces", "at most 65536 bytes in each", "more");
	return (r->text[i] = mem_arena_strndup(r->arena, (const char *)text, len)) != NULL ? 0 : ENOMEM;
}

static int
read_trainer(struct reading *r, const unsigned char *p, size_t n, uint64_t *type)
{
	const unsigned char *end = p + n;
	struct field f;
	int rc;

	while ((rc = next_field(r, &p, end, &f)) > 0) {
		if (f.wire != 0)
			continue;
		if (f.number == 3)
			*type = f.value;
		else if (f.number == 24 && f.value != 0)
			return bad(
			    r, ERR_UNSUPPORTED, "trainer_spec.treat_whitespace_as_suffix", "false", "true");
		else if (f.number == 35)
			r->p.byte_fallback = f.value != 0;
		else if (f.number == 40)
			r->p.unk_id = (int32_t)f.value; /* checked with the pieces */
	}
	return rc;
}

static int
read_normalizer(struct reading *r, const unsigned char *p, size_t n)
{
	const unsigned char *end = p + n, *map = p;
	size_t n_map = 0, i;
	struct field f;
	char *base64;
	int rc;

	r->p.collapse = true;
	while ((rc = next_field(r, &p, end, &f)) > 0) {
		if (f.number == 2 && f.wire == 2) {
			map = f.bytes;
			n_map = (size_t)f.value;
		}
		if (f.wire == 0 && f.number == 3)
			r->p.prefix = f.value != 0;
		else if (f.wire == 0 && f.number == 4)
			r->p.collapse = f.value != 0;
		else if (f.wire == 0 && f.number == 5 && f.value == 0)
			return bad(r, ERR_UNSUPPORTED, "normalizer_spec.escape_whitespaces", "true", "false");
	}
	if (rc != 0 || (n_map == 0 && !r->p.collapse))
		return rc;
	for (i = 0; i < r->p.n; i++) {
		if (r->type[i] == PIECE_USER_DEFINED || r->type[i] == PIECE_UNUSED)
			return bad(r, ERR_UNSUPPORTED, "pieces",
			    "no user-defined or unused piece together with a table of characters or "
			    "remove_extra_whitespaces",
			    r->text[i]);
	}
	if ((base64 = mem_arena_alloc_raw(r->arena, n_map / 3 * 4 + 5)) == NULL)
		return ENOMEM;
	r->p.charsmap = base64;
	for (; n_map > 0; map += 3, n_map -= n_map < 3 ? n_map : 3) {
		uint32_t bits = (uint32_t)map[0] << 16 | (n_map > 1 ? map[1] << 8 : 0) | (n_map > 2 ? map[2] : 0);

		for (i = 0; i < 4; i++)
			*base64++ = i > n_map ? '=' : BASE64[bits >> (18 - 6 * i) & 63];
	}
	*base64 = '\0';
	return 0;
}

static int
read_model(struct reading *r, const unsigned char *p, const unsigned char *end)
{
	const unsigned char *trainer = p, *normalizer = p, *at = p;
	size_t n_trainer = 0, n_normalizer = 0, n = 0;
	uint64_t type = TYPE_UNIGRAM;
	char found[32];
	struct field f;
	int rc;

	while ((rc = next_field(r, &at, end, &f)) > 0)
		n += f.number == MODEL_PROTO_PIECES && f.wire == 2;
	if (rc != 0)
		return rc;
	if (n == 0 || n > TOKENIZER_MAX_VOCAB)
		return bad(
		    r, n == 0 ? ERR_FORMAT : ERR_RANGE, "pieces", "1 to 4194304", n == 0 ? "none" : "more");
	r->text = mem_alloc(n, sizeof r->text[0]);
	r->score = mem_alloc(n, sizeof r->score[0]);
	r->type = mem_alloc(n, 1);
	if (r->text == NULL || r->score == NULL || r->type == NULL || (r->arena = mem_arena_new(0)) == NULL)
		return ENOMEM;
	r->p = (struct pieces){.n = n, .text = r->text, .score = r->score, .type = r->type, .prefix = true};
	for (n = 0; next_field(r, &p, end, &f) > 0;) {
		if (f.wire != 2)
			continue;
		if (f.number == MODEL_PROTO_PIECES &&
		    (rc = read_piece(r, f.bytes, (size_t)f.value, n++)) != 0)
			return rc;
		if (f.number == MODEL_PROTO_TRAINER) {
			trainer = f.bytes;
			n_trainer = (size_t)f.value;
		} else if (f.number == MODEL_PROTO_NORMALIZER) {
			normalizer = f.bytes;
			n_normalizer = (size_t)f.value;
		}
	}
	if ((rc = read_trainer(r, trainer, n_trainer, &type)) != 0 ||
	    (rc = read_normalizer(r, normalizer, n_normalizer)) != 0)
		return rc;
	r->p.unigram = type == TYPE_UNIGRAM;
	snprintf(found, sizeof found, "%" PRIu64, type);
	return type == TYPE_UNIGRAM || type == TYPE_BPE ?
	    0 :
	    bad(r, ERR_UNSUPPORTED, "trainer_spec.model_type", "1 (Unigram) or 2 (BPE)", found);
}

int
tokenizer_model_json(const char *path, struct json **root, struct err_note *note)
{
	struct reading r = {.name = path, .note = note};
	char *data;
	size_t len;
	int rc;

	*root = NULL;
	if ((rc = file_read(path, TOKENIZER_MAX_FILE_BYTES, &data, &len, note)) != 0)
		return rc;
	r.start = (unsigned char *)data;
	if ((rc = read_model(&r, r.start, r.start + len)) == ENOMEM)
		err_note_set(note, ENOMEM, "%s", path);
	if (rc == 0)
		rc = pieces_json(&r.p, path, root, note);
	mem_arena_destroy(&r.arena);
	free(r.text);
	free(r.score);
	free(r.type);
	free(data);
	return rc;
}
