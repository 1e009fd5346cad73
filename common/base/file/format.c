/* SPDX-License-Identifier: Apache-2.0 */
/* Recognizes file formats by the first bytes. */
#include "base/file/file.h"

#include <stdint.h>
#include <string.h>

enum {
	FIRM = 1,			/* too long to occur by chance at the start of a file of numbers */
	SHORT = 2,			/* sufficient for files that should be JSON or a model */
	TEXT = 4,			/* no text begins like this */
	WEAK = 8,			/* a text may begin like this: is_binary decides */
};

#define CONVERT "convert it to JSON lines (docs/saltctl.md shows how)"
#define UNPACK "unpack it first"
#define TOKENS "token files need no build: name them as a corpus"
#define OTHER "leave it out"

#define SIGNATURE(at, bytes, uses, name, advice) {at, sizeof(bytes) - 1, uses, bytes, name, advice}
static const struct signature {
	uint16_t at, n, uses;
	const char *bytes, *name, *advice;		/* advice: if text is required */
} signatures[] = {
	SIGNATURE(0, "version https://git-lfs", FIRM, "a Git LFS pointer; type `git lfs pull` in its folder", NULL),
	SIGNATURE(0, "PK\3\4", FIRM | TEXT, "a zip archive (PyTorch and numpy.savez write such)", UNPACK),
	SIGNATURE(0, "PK\5\6", TEXT, "a zip archive", UNPACK),
	SIGNATURE(0, "\x80\4\x95", FIRM | TEXT, "a Python pickle", OTHER), SIGNATURE(0, "\x80\5\x95", FIRM | TEXT, "a Python pickle", OTHER),
	SIGNATURE(0, "\x80\2", SHORT | WEAK, "a Python pickle", OTHER), SIGNATURE(0, "\x80\3", SHORT | WEAK, "a Python pickle", OTHER),
	SIGNATURE(0, "GGUF", FIRM | WEAK, "a GGUF file", OTHER), SIGNATURE(0, "\x89HDF\r\n\x1a\n", FIRM | TEXT, "an HDF5 file", CONVERT),
	SIGNATURE(4, "\0\0\0\0{\"", TEXT, "a safetensors file", OTHER),
	SIGNATURE(0, "\x1f\x8b\x08", FIRM | TEXT, "gzip data", UNPACK), SIGNATURE(0, "\x1f\x8b", SHORT, "gzip data", UNPACK),
	SIGNATURE(0, "\x28\xb5\x2f\xfd", FIRM | TEXT, "zstd data", UNPACK), SIGNATURE(0, "\x27\xb5\x2f\xfd", TEXT, "data of zstd before 1.0", UNPACK),
	SIGNATURE(0, "\xfd" "7zXZ", FIRM | TEXT, "xz data", UNPACK), SIGNATURE(4, "1AY&SY", FIRM | TEXT, "bzip2 data", UNPACK),
	SIGNATURE(0, "BZh", SHORT, "bzip2 data", UNPACK), SIGNATURE(0, "\x04\x22\x4d\x18", FIRM | TEXT, "lz4 data", UNPACK),
	SIGNATURE(0, "LZIP\1", TEXT, "lzip data", UNPACK), SIGNATURE(0, "\x1f\x9d", WEAK, "data of compress(1)", UNPACK),
	SIGNATURE(0, "\x5d\0\0", TEXT, "lzma data", UNPACK), SIGNATURE(0, "\xff\6\0\0sNaPpY", TEXT, "snappy data", UNPACK),
	SIGNATURE(0, "7z\xbc\xaf\x27\x1c", FIRM | TEXT, "a 7z archive", UNPACK), SIGNATURE(0, "Rar!\x1a\7", TEXT, "a rar archive", UNPACK),
	SIGNATURE(257, "ustar", FIRM | TEXT, "a tar archive", UNPACK),
	SIGNATURE(0, "PAR1", FIRM | TEXT, "a Parquet file", CONVERT), SIGNATURE(0, "PARE", TEXT, "an encrypted Parquet file", CONVERT),
	SIGNATURE(0, "ARROW1", FIRM | TEXT, "an Arrow or Feather file", CONVERT), SIGNATURE(0, "FEA1", TEXT, "a Feather file", CONVERT),
	SIGNATURE(0, "\xff\xff\xff\xff", TEXT, "an Arrow stream", CONVERT), SIGNATURE(0, "Obj\1", FIRM | TEXT, "an Avro file", CONVERT),
	SIGNATURE(0, "SQLite format 3\0", FIRM | TEXT, "an SQLite database", CONVERT), SIGNATURE(0, "ORC", WEAK, "an ORC file", CONVERT),
	SIGNATURE(0, "WARC/", TEXT, "a WARC file", "extract its text first, or give --text to read it as it is"),
	SIGNATURE(0, "\x93NUMPY", FIRM | TEXT, "a NumPy array (.npy)", TOKENS), SIGNATURE(0, "MMIDIDX\0", FIRM | TEXT, "a Megatron index (.idx)", TOKENS),
	SIGNATURE(0, "TNTIDX\0", FIRM | TEXT, "a Megatron index (.idx)", TOKENS),
	SIGNATURE(0, "\x88\x2b\x35\1", TEXT, "an llm.c token file", TOKENS), SIGNATURE(0, "\1\xdc\x34\1", TEXT, "an llm.c token file", TOKENS),
	SIGNATURE(0, "%PDF-", FIRM | TEXT, "a PDF document", "extract its text first (pdftotext)"),
	SIGNATURE(0, "{\\rtf", TEXT, "an RTF document", "save it as text"),
	SIGNATURE(0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", FIRM | TEXT, "an old Office document", "save it as text"),
	SIGNATURE(0, "\x89PNG\r\n\x1a\n", FIRM | TEXT, "a PNG image", OTHER), SIGNATURE(0, "GIF87a", FIRM | TEXT, "a GIF image", OTHER),
	SIGNATURE(0, "GIF89a", FIRM | TEXT, "a GIF image", OTHER), SIGNATURE(0, "\xff\xd8\xff\xe0", FIRM, "a JPEG image", OTHER),
	SIGNATURE(0, "\xff\xd8\xff\xe1", FIRM, "a JPEG image", OTHER), SIGNATURE(0, "\xff\xd8\xff", TEXT, "a JPEG image", OTHER),
	SIGNATURE(8, "WEBP", WEAK, "a WebP image", OTHER), SIGNATURE(8, "WAVE", WEAK, "a WAV sound", OTHER),
	SIGNATURE(0, "OggS", WEAK, "an Ogg sound", OTHER), SIGNATURE(0, "fLaC", WEAK, "a FLAC sound", OTHER), SIGNATURE(4, "ftyp", WEAK, "an MP4 film", OTHER),
	SIGNATURE(0, "\x7f" "ELF", FIRM | TEXT, "a program (ELF)", OTHER),
	SIGNATURE(0, "\xff\xfe", SHORT, "UTF-16 text", NULL), SIGNATURE(0, "\xfe\xff", SHORT, "UTF-16 text", NULL),
	SIGNATURE(0, "<!DOCTYPE", SHORT, "an HTML page", NULL), SIGNATURE(0, "<!doctype", SHORT, "an HTML page", NULL),
	SIGNATURE(0, "<html", SHORT, "an HTML page", NULL),
};

/* The first signature from index *at on that has one of the uses and matches; *at becomes the next index. */
static const struct signature *
match(unsigned uses, const uint8_t *p, size_t n, size_t *at)
{
	while (*at < sizeof(signatures) / sizeof(signatures[0])) {
		const struct signature *s = &signatures[(*at)++];

		if ((s->uses & uses) != 0 && n >= (size_t)s->at + s->n && memcmp(p + s->at, s->bytes, s->n) == 0)
			return s;
	}
	return NULL;
}

/* A safetensors file begins with the u64 length of its header, then the header, a JSON object. */
static bool
is_safetensors(const uint8_t *p, size_t n)
{
	uint64_t len;

	if (n < 10)
		return false;
	memcpy(&len, p, 8);		/* little-endian hosts only; CMake refuses others */
	return len >= 2 && len <= 100000000 && p[8] == '{' && (p[9] == '"' || p[9] == '}' || p[9] == ' ' || p[9] == '\n');
}

const char *
file_format(const void *head, size_t n)
{
	const struct signature *s = match(FIRM, head, n, &(size_t){0});

	return s != NULL ? s->name : is_safetensors(head, n) ? "a safetensors file" : NULL;
}

const char *
file_magic(const void *head, size_t n)
{
	const struct signature *s = match(FIRM | SHORT, head, n, &(size_t){0});

	return s != NULL ? s->name : NULL;
}

const char *
file_not_text(const void *head, size_t n, bool (*is_binary)(const unsigned char *p, size_t n), const char **advice)
{
	const struct signature *s;

	for (size_t at = 0; (s = match(TEXT | WEAK, head, n, &at)) != NULL;)
		if ((s->uses & WEAK) == 0 || is_binary(head, n)) {
			*advice = s->advice;
			return s->name;
		}
	return NULL;
}

/*
 * The length of the UTF-8 character at p, also where p[n] cuts it; 0 if it is invalid. Overlong forms and
 * surrogates are not rejected.
 */
static size_t
utf8_len(const uint8_t *p, size_t n)
{
	size_t len = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;

	for (size_t i = 1; i < len && i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return len;
}

bool
file_is_text(const void *head, size_t n)
{
	const uint8_t *p = head;
	size_t len;

	for (size_t i = 0; i < n; i += len) {
		if ((len = utf8_len(p + i, n - i)) == 0 || p[i] == 0x7f ||
		    (p[i] < 0x20 && p[i] != '\t' && p[i] != '\n' && p[i] != '\r' && p[i] != '\f'))
			return false;
	}
	return n > 0;
}
