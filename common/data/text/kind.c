/* SPDX-License-Identifier: Apache-2.0 */
#include "data/text/text_internal.h"

#include <string.h>
#include <strings.h>
#include "base/file/file.h"

static const char *const binary_endings[][2] = {
	{".parquet", "a Parquet file"}, {".arrow", "an Arrow file"}, {".feather", "a Feather file"},
	{".npy", "a NumPy array"}, {".npz", "a zip archive"}, {".safetensors", "a safetensors file"},
	{".gguf", "a GGUF model"}, {".zip", "a zip archive"}, {".7z", "a 7z archive"},
	{".tar", "a tar archive"}, {".png", "a PNG image"}, {".jpg", "a JPEG image"},
	{".jpeg", "a JPEG image"}, {".pdf", "a PDF document"}, {".sqlite", "an SQLite database"},
	{".lz4", "lz4 data"},
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

bool
text__ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && strcasecmp(s + n - m, end) == 0;
}

const char *
text__named_binary(const char *name)
{
	for (size_t i = 0; i < COUNT(binary_endings); i++)
		if (text__ends_with(name, binary_endings[i][0]))
			return binary_endings[i][1];
	return NULL;
}

bool
text__named_json(const char *name)
{
	static const char *const endings[] = {".json", ".jsonl", ".ndjson", ".jsonlines"};
	const char *format, *packed = text__codec_ending(name, &format);
	size_t n = strlen(name) - (packed != NULL ? strlen(packed) : 0);

	for (size_t i = 0; i < COUNT(endings); i++)
		if (n >= strlen(endings[i]) &&
		    strncasecmp(name + n - strlen(endings[i]), endings[i], strlen(endings[i])) == 0)
			return true;
	return false;
}

const char *
text__bom(const unsigned char *p, size_t n, size_t *len)
{
	static const struct {
		const char *bytes;
		size_t n;
		const char *encoding;
	} boms[] = {{"\xef\xbb\xbf", 3, "UTF-8"}, {"\xff\xfe\0\0", 4, "UTF-32LE"},
	    {"\0\0\xfe\xff", 4, "UTF-32BE"}, {"\xff\xfe", 2, "UTF-16LE"}, {"\xfe\xff", 2, "UTF-16BE"}};

	for (size_t i = 0; i < COUNT(boms); i++) {
		*len = boms[i].n;
		if (n >= *len && memcmp(p, boms[i].bytes, *len) == 0)
			return boms[i].encoding;
	}
	return NULL;
}

/*
 * Recognizes UTF-16 and UTF-32 without a byte order mark. Latin letters have zeros at the same offsets in
 * each character. Text in other scripts has two-byte spaces, newlines, commas and full stops, and in few of
 * its byte pairs are both bytes printable ASCII; this tells it from single-byte text that contains a zero.
 */
static const char *
wide_without_bom(const unsigned char *p, size_t n, const char **advice)
{
	static const unsigned char spaces[][2] = {{0, 10}, {0, 13}, {0, 32}, {0x30, 1}, {0x30, 2}};
	static const char *const answers[][2] = {
		{"UTF-16LE without a byte order mark", "convert it: iconv -f UTF-16LE -t UTF-8 FILE"},
		{"UTF-16BE without a byte order mark", "convert it: iconv -f UTF-16BE -t UTF-8 FILE"},
		{"UTF-32LE without a byte order mark", "convert it: iconv -f UTF-32LE -t UTF-8 FILE"},
		{"UTF-32BE without a byte order mark", "convert it: iconv -f UTF-32BE -t UTF-8 FILE"},
	};
	size_t zeros[4] = {0}, wide[2] = {0}, none = 0, printable = 0, quarter = n / 4;
	int which = -1;

	for (size_t i = 0; i + 1 < n; i += 2) {
		zeros[i % 4] += p[i] == 0;
		zeros[i % 4 + 1] += p[i + 1] == 0;
		none += p[i] == 0 && p[i + 1] == 0;
		printable += p[i] >= 32 && p[i] < 127 && p[i + 1] >= 32 && p[i + 1] < 127;
		for (size_t k = 0; k < COUNT(spaces); k++) {
			wide[0] += p[i] == spaces[k][1] && p[i + 1] == spaces[k][0];
			wide[1] += p[i] == spaces[k][0] && p[i + 1] == spaces[k][1];
		}
	}
#define MOST(i) (zeros[i] * 10 >= quarter * 7)
#define FEW(i) (zeros[i] * 50 <= quarter)
	if (n < 4)
		return NULL;
	if (MOST(1) && MOST(3) && FEW(0) && (MOST(2) || FEW(2)))
		which = MOST(2) ? 2 : 0;
	else if (MOST(0) && MOST(2) && FEW(3) && (MOST(1) || FEW(1)))
		which = MOST(1) ? 3 : 1;
	else if (none == 0 && printable < quarter && (wide[0] * 200 > n || wide[1] * 200 > n))
		which = wide[1] > wide[0];
#undef MOST
#undef FEW
	if (which < 0)
		return NULL;
	*advice = answers[which][1];
	return answers[which][0];
}

/*
 * Whether bytes are not text in any encoding: they have more than a few control characters that text does not
 * use, and also zeros or bytes that are not UTF-8. Text uses tab, newline, form feed, carriage return,
 * backspace, bell and escape. UTF-8 is checked only roughly, by counting misplaced and missing continuation
 * bytes.
 */
static bool
is_binary(const unsigned char *p, size_t n)
{
	size_t controls = 0, zeros = 0, wrong = 0;
	int follow = 0;

	for (size_t i = 0; i < n; i++) {
		controls += (p[i] < 0x20 && !(p[i] >= 7 && p[i] <= 13 && p[i] != 11) && p[i] != 27) ||
		    p[i] == 0x7f;
		zeros += p[i] == 0;
		if ((p[i] & 0xc0) == 0x80) {
			wrong += follow == 0;
			follow -= follow > 0;
		} else {
			wrong += follow > 0;
			follow = p[i] < 0xc0 ? 0 : p[i] < 0xe0 ? 1 : p[i] < 0xf0 ? 2 : 3;
		}
	}
	return controls >= 4 && controls > n / 32 && (zeros > 0 || wrong > 0);
}

const char *
text__not_text(const unsigned char *p, size_t n, const char **advice, bool *stop)
{
	static const char lfs[] = "version https://git-lfs.github.com/spec/", annex[] = "annex/objects/";
	const char *what;

	*stop = true;
	if (n >= sizeof(lfs) - 1 && memcmp(p, lfs, sizeof(lfs) - 1) == 0) {
		*advice = "git lfs pull fetches the file itself";
		return "a Git LFS pointer";
	}
	if (n >= sizeof(annex) && n < 4096 && p[0] == '/' && memcmp(p + 1, annex, sizeof(annex) - 1) == 0) {
		*advice = "git annex get fetches the file itself";
		return "a git-annex pointer";
	}
	*stop = false;
	if ((what = file_not_text(p, n, is_binary, advice)) != NULL)
		return what;
	*stop = true;
	if ((what = wide_without_bom(p, n, advice)) != NULL)
		return what;
	*stop = false;
	*advice = "leave it out, or give --text to read its bytes as they are";
	return is_binary(p, n) ? "binary data" : NULL;
}

bool
text__looks_json(const unsigned char *p, size_t n)
{
	static const char space[] = " \t\r\n";
	size_t i = 0;

#define SKIP() \
	do { \
		while (i < n && p[i] != 0 && strchr(space, p[i]) != NULL) \
			i++; \
	} while (0)
	SKIP();
	if (i < n && p[i] == '[') {
		i++;
		SKIP();
	}
	if (i >= n || p[i] != '{')
		return false;
	i++;
	SKIP();
#undef SKIP
	return i < n && (p[i] == '"' || p[i] == '}');
}
