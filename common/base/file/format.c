/* SPDX-License-Identifier: Apache-2.0 */
/* Formats of files by their first bytes. */
#include "base/file/file.h"

#include <stdint.h>
#include <string.h>

struct signature {
	uint16_t at, n;
	const char *bytes, *name;
};

#define SIGNATURE(at, bytes, name) {at, sizeof(bytes) - 1, bytes, name}
static const struct signature strong[] = {
	SIGNATURE(0, "version https://git-lfs", "a Git LFS pointer; type `git lfs pull` in its folder"),
	SIGNATURE(0, "PK\3\4", "a zip archive, as PyTorch and numpy.savez write"), SIGNATURE(0, "\x80\4\x95", "a Python pickle"),
	SIGNATURE(0, "\x80\5\x95", "a Python pickle"), SIGNATURE(0, "GGUF", "a GGUF file"), SIGNATURE(0, "\x89HDF", "an HDF5 file"),
	SIGNATURE(0, "\x1f\x8b\x08", "a gzip file"), SIGNATURE(0, "\x28\xb5\x2f\xfd", "a zstd file"), SIGNATURE(0, "\xfd" "7zXZ", "an xz file"),
	SIGNATURE(4, "1AY&SY", "a bzip2 file"), SIGNATURE(0, "\x04\x22\x4d\x18", "an lz4 file"), SIGNATURE(0, "7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
	SIGNATURE(257, "ustar", "a tar archive"), SIGNATURE(0, "PAR1", "a Parquet file"), SIGNATURE(0, "ARROW1", "an Arrow file"),
	SIGNATURE(0, "Obj\1", "an Avro file"), SIGNATURE(0, "\x93NUMPY", "a NumPy array (.npy)"),
	SIGNATURE(0, "MMIDIDX\0", "a Megatron index (.idx)"), SIGNATURE(0, "TNTIDX\0", "a Megatron index (.idx)"),
	SIGNATURE(0, "SQLite format 3", "an SQLite database"), SIGNATURE(0, "%PDF-", "a PDF file"), SIGNATURE(0, "\x89PNG\r\n", "an image (PNG)"),
	SIGNATURE(0, "\xff\xd8\xff\xe0", "an image (JPEG)"), SIGNATURE(0, "\xff\xd8\xff\xe1", "an image (JPEG)"), SIGNATURE(0, "GIF8", "an image (GIF)"),
	SIGNATURE(0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an office document"), SIGNATURE(0, "\x7f" "ELF", "a program (ELF)"),
	{0, 0, NULL, NULL}
}, weak[] = {
	SIGNATURE(0, "\x80\2", "a Python pickle"), SIGNATURE(0, "\x1f\x8b", "a gzip file"), SIGNATURE(0, "BZh", "a bzip2 file"),
	SIGNATURE(0, "\xff\xfe", "UTF-16 text"), SIGNATURE(0, "\xfe\xff", "UTF-16 text"), SIGNATURE(0, "<!DOCTYPE", "an HTML page"),
	SIGNATURE(0, "<!doctype", "an HTML page"), SIGNATURE(0, "<html", "an HTML page"), {0, 0, NULL, NULL}
};

static const char *
match(const struct signature *s, const uint8_t *p, size_t n)
{
	while (s->name != NULL && (n < (size_t)s->at + s->n || memcmp(p + s->at, s->bytes, s->n) != 0))
		s++;
	return s->name;
}

/* u64 length of the header, then the header: a JSON object. */
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
	const char *name = match(strong, head, n);

	return name != NULL ? name : is_safetensors(head, n) ? "a safetensors file" : NULL;
}

const char *
file_magic(const void *head, size_t n)
{
	const char *name = match(strong, head, n);

	return name != NULL ? name : match(weak, head, n);
}

/* Bytes of the UTF-8 character at p, at most n; 0: none (overlong forms and surrogates are not looked for). */
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
