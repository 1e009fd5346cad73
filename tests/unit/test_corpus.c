/* SPDX-License-Identifier: Apache-2.0 */
/* Reading corpora: each format, its damage, types of raw files, patterns, flipped bits. */
#include "corpus_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

static enum corpus_dtype stated;		/* for check_stream */

/* Checks the whole stream of a corpus, read in sequences of one target. */
static void
check_stream(const char *what, const char *prefix, const int32_t *want, size_t n, enum corpus_kind kind, enum corpus_dtype dtype)
{
	struct corpus *c = NULL;
	int32_t out[64];

	CHECK_ROW(what, corpus_open_as(&c, prefix, stated, &note) == 0);
	if (c == NULL)
		return;
	CHECK_ROW(what, corpus_n_tokens(c) == n && corpus_info(c)->kind == kind && corpus_info(c)->dtype == dtype);
	for (uint32_t L = 1; L < n; L++) {
		CHECK_ROW(what, corpus_n_windows(c, L) == (n - 1) / L);
		for (uint64_t i = 0; i < (n - 1) / L; i++) {
			memset(out, 0xee, sizeof(out));
			CHECK_ROW(what, corpus_window(c, i, L, out, &note) == 0);
			CHECK_ROW(what, memcmp(out, want + i * L, (L + 1) * 4) == 0 && out[L + 1] == (int32_t)0xeeeeeeee);
		}
		CHECK_ROW(what, corpus_window(c, (n - 1) / L, L, out, &note) == ERR_RANGE);
	}
	CHECK_ROW(what, corpus_n_windows(c, 0) == 0 && corpus_window(c, 0, 0, out, &note) == ERR_RANGE);
	CHECK_ROW(what, corpus_n_windows(c, (uint32_t)n) == 0);
	corpus_destroy(&c);
	CHECK(c == NULL);
}

/* Files that make_megatron.py wrote according to the documented layouts. */
static void
foreign(void)
{
	static const int32_t small[] = {1, 2, 3, 0, 40000, 65535, 7, 0, 9, 8, 7, 6, 5, 0};
	static const int32_t wide[] = {70000, 1, 2147483646, 0, 5, 0};
	static const int32_t shards[] = {50256, 11, 12, 13, 14, 15, 16, 50256, 17};
	static const int32_t llama[] = {128000, 1, 2, 3};
	static const int32_t raw[] = {3, 1, 4, 1, 5, 9, 65535};
	uint8_t shard[2048];
	struct corpus *c;
	size_t n;

	check_stream("prefix", GOLDEN "small", small, 14, CORPUS_KIND_MEGATRON, CORPUS_DTYPE_UINT16);
	check_stream(".bin", GOLDEN "small.bin", small, 14, CORPUS_KIND_MEGATRON, CORPUS_DTYPE_UINT16);
	check_stream(".idx", GOLDEN "small.idx", small, 14, CORPUS_KIND_MEGATRON, CORPUS_DTYPE_UINT16);
	check_stream("int32", GOLDEN "wide", wide, 6, CORPUS_KIND_MEGATRON, CORPUS_DTYPE_INT32);
	check_stream("llm.c", GOLDEN "gpt2_000.bin", shards, 5, CORPUS_KIND_LLMC, CORPUS_DTYPE_UINT16);
	check_stream("llm.c prefix", GOLDEN "gpt2_000", shards, 5, CORPUS_KIND_LLMC, CORPUS_DTYPE_UINT16);
	check_stream("llm.c shards", GOLDEN "gpt2_*.bin", shards, 9, CORPUS_KIND_LLMC, CORPUS_DTYPE_UINT16);
	check_stream("llm.c uint32", GOLDEN "llama3", llama, 4, CORPUS_KIND_LLMC, CORPUS_DTYPE_UINT32);
	stated = CORPUS_DTYPE_UINT16;
	check_stream("raw", GOLDEN "raw.u16", raw, 7, CORPUS_KIND_RAW, CORPUS_DTYPE_UINT16);
	stated = CORPUS_DTYPE_NONE;

	REQUIRE(corpus_open(&c, GOLDEN "small", &note) == 0);
	CHECK(corpus_info(c)->n_documents == 3 && corpus_info(c)->vocab == 0 && corpus_info(c)->eod == -1 && corpus_info(c)->n_bytes == 0);
	corpus_destroy(&c);
	corpus_destroy(&c);
	CHECK(corpus_open(&c, GOLDEN "gpt2_*.nothing", &note) == ENOENT && c == NULL);
	CHECK(corpus_open(&c, GOLDEN "absent", &note) == ENOENT && strstr(note.expected, "absent.idx") != NULL);
	CHECK(corpus_open(&c, GOLDEN, &note) == EISDIR);
	CHECK(corpus_open(&c, GOLDEN "*[0-6].*", &note) == ERR_FORMAT);	/* matches a raw file too */
	CHECK(corpus_open(&c, "", &note) == ENOENT);

	/* an empty shard among others */
	n = slurp(GOLDEN "gpt2_000.bin", shard, sizeof(shard));
	spill(in_dir("s_0.bin"), shard, n);
	memset(shard + 8, 0, 4);
	spill(in_dir("s_1.bin"), shard, 1024);
	copy_golden("gpt2_001.bin", "s_2.bin");
	check_stream("empty shard", in_dir("s_?.bin"), shards, 9, CORPUS_KIND_LLMC, CORPUS_DTYPE_UINT16);
}

/* small.idx: 34 + 4 sizes of 4 (34) + 4 pointers of 8 (50) + 4 marks of 8 (82) = 114 bytes; small.bin 28 bytes */
static void
damaged(void)
{
	static const struct {
		const char *what, *file;
		size_t at;		/* offset at which bytes are written, */
		const char *bytes;
		size_t n;
		size_t len;		/* or new length: truncated, or extended by zeros */
		int want;
		const char *place;
	} rows[] = {
		{"magic", "small.idx", 0, "X", 1, 0, ERR_FORMAT, "byte 0"},
		{"older magic", "small.idx", 0, "TNTIDX\0\0", 8, 0, ERR_UNSUPPORTED, "byte 0"},
		{"version", "small.idx", 9, "\2", 1, 0, ERR_VERSION, "byte 9"},
		{"uint8", "small.idx", 17, "\1", 1, 0, ERR_UNSUPPORTED, "byte 17"},
		{"float32", "small.idx", 17, "\7", 1, 0, ERR_UNSUPPORTED, "byte 17"},
		{"type 9", "small.idx", 17, "\11", 1, 0, ERR_FORMAT, "byte 17"},
		{"int32 tokens", "small.idx", 17, "\4", 1, 0, ERR_FORMAT, "byte 58"},
		{"one sequence more", "small.idx", 18, "\5", 1, 0, ERR_FORMAT, "byte 114"},
		{"one sequence fewer", "small.idx", 18, "\3", 1, 0, ERR_FORMAT, "byte 102"},
		{"2^63 sequences", "small.idx", 25, "\x80", 1, 0, ERR_FORMAT, "byte 18"},
		{"2^62 documents", "small.idx", 33, "\x40", 1, 0, ERR_FORMAT, "byte 26"},
		{"one byte", "small.idx", 0, "", 0, 1, ERR_FORMAT, "byte 1"},
		{"header cut", "small.idx", 0, "", 0, 33, ERR_FORMAT, "byte 33"},
		{"cut", "small.idx", 0, "", 0, 113, ERR_FORMAT, "byte 113"},
		{"one byte more", "small.idx", 0, "", 0, 115, ERR_FORMAT, "byte 114"},
		{"modes", "small.idx", 0, "", 0, 118, ERR_FORMAT, "byte 114"},
		{"negative size", "small.idx", 37, "\xff", 1, 0, ERR_FORMAT, "byte 34"},
		{"size too large", "small.idx", 46, "\7", 1, 0, ERR_FORMAT, "byte 46"},
		{"size too small", "small.idx", 46, "\5", 1, 0, ERR_FORMAT, "byte 26"},
		{"first pointer", "small.idx", 50, "\2", 1, 0, ERR_FORMAT, "byte 50"},
		{"pointer out of the file", "small.idx", 74, "\xff\xff\xff", 3, 0, ERR_FORMAT, "byte 74"},
		{"negative pointer", "small.idx", 81, "\x80", 1, 0, ERR_FORMAT, "byte 74"},
		{"first mark", "small.idx", 82, "\1", 1, 0, ERR_FORMAT, "byte 82"},
		{"marks fall", "small.idx", 98, "\0", 1, 0, ERR_FORMAT, "byte 98"},
		{"last mark", "small.idx", 106, "\5", 1, 0, ERR_FORMAT, "byte 106"},
		{"tokens cut", "small.bin", 0, "", 0, 26, ERR_FORMAT, "byte 46"},
		{"half a token", "small.bin", 0, "", 0, 27, ERR_FORMAT, "byte 46"},
		{"tokens too many", "small.bin", 0, "", 0, 30, ERR_FORMAT, "byte 28"},
		{"llm.c version", "gpt2_000.bin", 4, "\2", 1, 0, ERR_VERSION, "byte 4"},
		{"llm.c count", "gpt2_000.bin", 8, "\6", 1, 0, ERR_FORMAT, "byte 1034"},
		{"llm.c negative count", "gpt2_000.bin", 11, "\x80", 1, 0, ERR_FORMAT, "byte 8"},
		{"llm.c cut", "gpt2_000.bin", 0, "", 0, 1033, ERR_FORMAT, "byte 1033"},
		{"llm.c too long", "gpt2_000.bin", 0, "", 0, 1036, ERR_FORMAT, "byte 1034"},
		{"llm.c magic", "gpt2_000.bin", 0, "\0", 1, 0, ERR_FORMAT, "byte 0"},
		{"raw odd", "raw.u16", 0, "", 0, 13, ERR_FORMAT, "byte 12"},
		{"empty", "raw.u16", 0, "", 0, SIZE_MAX, ERR_FORMAT, "byte 0"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t buf[2048] = {0};
		struct corpus *c;
		char prefix[32];
		size_t n;

		copy_golden("small.idx", "small.idx");
		copy_golden("small.bin", "small.bin");
		copy_golden("gpt2_000.bin", "gpt2_000.bin");
		copy_golden("raw.u16", "raw.u16");
		n = slurp(in_dir(rows[i].file), buf, 1500);
		memcpy(buf + rows[i].at, rows[i].bytes, rows[i].n);
		spill(in_dir(rows[i].file), buf, rows[i].len == SIZE_MAX ? 0 : rows[i].len > 0 ? rows[i].len : n);
		snprintf(prefix, sizeof(prefix), "%s", rows[i].file);
		if (strcmp(prefix, "raw.u16") != 0)	/* a raw file is opened by its full name */
			*strchr(prefix, '.') = '\0';
		CHECK_ROW(rows[i].what, corpus_open_as(&c, in_dir(prefix), prefix[0] == 'r' ? CORPUS_DTYPE_UINT16 : CORPUS_DTYPE_NONE,
		    &note) == rows[i].want);
		CHECK_ROW(rows[i].what, c == NULL);
		CHECK_ROW(rows[i].what, strncmp(note.place, rows[i].place, strlen(rows[i].place)) == 0 && note.expected[0] != '\0' &&
		    note.found[0] != '\0');
		if (strncmp(note.place, rows[i].place, strlen(rows[i].place)) != 0)
			fprintf(stderr, "  %s: %s: expected %s, found %s\n", note.name, note.place, note.expected, note.found);
		corpus_destroy(&c);
	}
}

static void
vocabulary(void)
{
	int32_t out[8];
	struct corpus *c;

	/* small: position 5 holds 65535, position 4 40000 */
	REQUIRE(corpus_open(&c, GOLDEN "small", &note) == 0);
	CHECK(corpus_check_vocab(c, 65536, &note) == 0 && corpus_check_vocab(c, UINT32_MAX, &note) == 0);
	CHECK(corpus_check_vocab(c, 65535, &note) == ERR_CORRUPT);
	CHECK_STR(note.place, "token 5");
	CHECK_STR(note.found, "65535");
	CHECK(corpus_window(c, 1, 4, out, &note) == 0 && out[1] == 65535);
	CHECK(corpus_limit_vocab(c, 65535, &note) == 0);
	CHECK(corpus_window(c, 0, 4, out, &note) == 0);
	CHECK(corpus_window(c, 1, 4, out, &note) == ERR_CORRUPT);
	CHECK_STR(note.place, "token 5 (window 1 of context 4, position 1)");
	CHECK(corpus_limit_vocab(c, 40000, &note) == 0);
	CHECK(corpus_window(c, 0, 4, out, &note) == ERR_CORRUPT);	/* the last target is checked too */
	CHECK(corpus_window(c, 2, 4, out, &note) == 0);

	/* seq contains the number of its corpus */
	CHECK(corpus_window(c, CORPUS_SEQ_MAKE(CORPUS_HELDOUT, 2), 4, out, &note) == ERR_RANGE);
	corpus_set_number(c, CORPUS_HELDOUT);
	CHECK(corpus_window(c, CORPUS_SEQ_MAKE(CORPUS_HELDOUT, 2), 4, out, &note) == 0 && out[4] == 5);
	CHECK(corpus_window(c, 2, 4, out, &note) == ERR_RANGE);
	CHECK(CORPUS_SEQ_NO(CORPUS_SEQ_MAKE(65535, 7)) == 65535 && CORPUS_SEQ_INDEX(CORPUS_SEQ_MAKE(65535, 7)) == 7);
	CHECK(corpus_window(c, CORPUS_SEQ_MAKE(CORPUS_HELDOUT, UINT64_C(0xffffffffffff)), 4, out, &note) == ERR_RANGE);
	corpus_destroy(&c);

	/* negative int32 and uint32 above INT32_MAX are rejected also without a known vocabulary */
	copy_golden("wide.idx", "wide.idx");
	spill(in_dir("wide.bin"), "\1\0\0\0\xff\xff\xff\xff\3\0\0\0\4\0\0\0\5\0\0\0\6\0\0\0", 24);
	REQUIRE(corpus_open(&c, in_dir("wide"), &note) == 0);
	CHECK(corpus_window(c, 0, 5, out, &note) == ERR_CORRUPT && strcmp(note.found, "-1") == 0);
	CHECK(corpus_check_vocab(c, INT32_MAX, &note) == ERR_CORRUPT && strcmp(note.place, "token 1") == 0);
	corpus_destroy(&c);

	/* the vocabulary in PREFIX.json is a second limit; a smaller model is rejected */
	REQUIRE(write_some(in_dir("v"), 1000, 3, true) == 0 && corpus_open(&c, in_dir("v"), &note) == 0);
	CHECK(corpus_limit_vocab(c, 999, &note) == ERR_MISMATCH && strcmp(note.found, "1000") == 0);
	CHECK(corpus_limit_vocab(c, 1024, &note) == 0);
	corpus_destroy(&c);
	spill(in_dir("v.bin"), "\x20\4\1\0\1\0\1\0\1\0\1\0\1\0\1\0\1\0", 18);	/* 1056 */
	REQUIRE(corpus_open(&c, in_dir("v"), &note) == 0 && corpus_limit_vocab(c, 2000, &note) == 0);
	CHECK(corpus_window(c, 0, 2, out, &note) == ERR_CORRUPT && strstr(note.expected, "1000") != NULL);
	corpus_destroy(&c);
}

/* Opens prefix, which must fail with a note whose expected or found part has all words, separated by '|'. */
static void
refused(const char *what, const char *prefix, enum corpus_dtype dtype, int want, const char *words)
{
	char list[200], *word, *rest = list;
	struct corpus *c;
	int rc = corpus_open_as(&c, prefix, dtype, &note);

	CHECK_ROW(what, rc == want && c == NULL);
	if (rc != want || c != NULL) {
		corpus_destroy(&c);
		return;
	}
	snprintf(list, sizeof(list), "%s", words);
	while ((word = strsep(&rest, "|")) != NULL)
		CHECK_ROW(what, strstr(note.expected, word) != NULL || strstr(note.found, word) != NULL || strstr(note.name, word) != NULL);
}

/* Files of other formats are recognized and named, whatever type is stated for them. */
static void
other_formats(void)
{
	static const struct {
		const char *bytes;
		size_t n;
		const char *words;
	} rows[] = {
		{"\x1f\x8b\x08\0\0\0\0\0", 8, "gzip"}, {"\x28\xb5\x2f\xfd\0\0\0\0", 8, "zstd"},
		{"BZh91AY&SY\0\0", 12, "bzip2"}, {"\xfd" "7zXZ\0\0\0", 8, "xz"}, {"PK\3\4\0\0\0\0", 8, "zip"}, {"PAR1\0\0\0\0", 8, "Parquet"},
		{"ARROW1\0\0", 8, "Arrow"}, {"GGUF\3\0\0\0", 8, "GGUF"}, {"\x10\0\0\0\0\0\0\0{\"a\":1}  ", 16, "safetensors"},
		{"\x89HDF\r\n\x1a\n", 8, "HDF5"}, {"\x80\4\x95\1\0\0\0\0", 8, "pickle"}, {"MMIDIDX\0\0\1\0\0\0\0\0\0\0\0", 18, ".idx|PREFIX"},
		{"{\"text\": \"one\"}\n{\"text\": \"two\"}\n", 32, "JSON|corpus build"}, {"[1, 2, 3]\n", 10, "JSON"},
		{"Once upon a time.\n", 18, "text|corpus build"}, {"\xef\xbb\xbfMarchen\n", 11, "text"},
		{"version https://git-lfs.github.com/spec/v1\noid sha256:", 54, "Git LFS"},
		{"\x8a\xd8\x34\1\1\0\0\0", 8, "evaluation|20240522"}, {"\xc6\xd7\x34\1\1\0\0\0", 8, "llm.c"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		spill(in_dir("other.bin"), rows[i].bytes, rows[i].n);
		for (int k = 0; k < 2; k++) {
			enum corpus_dtype dtype = k == 0 ? CORPUS_DTYPE_NONE : CORPUS_DTYPE_UINT16;
			struct corpus *c;
			int rc = corpus_open_as(&c, in_dir("other.bin"), dtype, &note);

			CHECK_ROW(rows[i].words, rc == ERR_FORMAT || rc == ERR_UNSUPPORTED);
			corpus_destroy(&c);
			refused(rows[i].words, in_dir("other.bin"), dtype, rc, rows[i].words);
		}
	}
}

/* Raw ids need a type, from the caller or from PREFIX.json, to which corpus_remember writes it. */
static void
raw_types(void)
{
	static const uint32_t ids[] = {70000, 1, 2, 65536, 3, 5, 8, 13};
	static const int32_t halves[] = {4464, 1, 1, 0, 2, 0, 0, 1, 3, 0, 5, 0, 8, 0, 13, 0};
	static const char json[] = "{\"format\": \"saltfleet-corpus\", \"version\": 1, \"kind\": \"raw\", \"dtype\": \"uint32\", \"n_tokens\": 8}";
	uint32_t many[400];
	struct corpus *c;
	struct hash128 h;
	bool written;

	spill(in_dir("r.t"), ids, sizeof(ids));
	refused("no type", in_dir("r.t"), CORPUS_DTYPE_NONE, ERR_FORMAT, "--dtype|corpus.dtype|uint32|r.t");
	refused("no type, pattern", in_dir("r.?"), CORPUS_DTYPE_NONE, ERR_FORMAT, "--dtype|corpus.dtype");
	for (int k = 0; k < 2; k++) {
		stated = k == 0 ? CORPUS_DTYPE_UINT32 : CORPUS_DTYPE_INT32;
		check_stream("4 bytes", in_dir("r.t"), (const int32_t *)ids, 8, CORPUS_KIND_RAW, stated);
	}
	stated = CORPUS_DTYPE_UINT16;		/* too few ids to detect the type */
	check_stream("2 bytes", in_dir("r.t"), halves, 16, CORPUS_KIND_RAW, stated);
	stated = CORPUS_DTYPE_NONE;
	for (int i = 0; i < 400; i++)
		many[i] = (uint32_t)i * 397 % 150000;
	spill(in_dir("r.many"), many, sizeof(many));
	refused("32 bits", in_dir("r.many"), CORPUS_DTYPE_UINT16, ERR_FORMAT, "32 bits|uint32");
	refused("the format says it", GOLDEN "gpt2_000.bin", CORPUS_DTYPE_UINT32, ERR_MISMATCH, "uint16|uint32|--dtype");
	refused("Megatron says it", GOLDEN "wide", CORPUS_DTYPE_UINT16, ERR_MISMATCH, "int32|uint16");

	/* stored in PREFIX.json, with the fingerprint at that time */
	REQUIRE(corpus_open_as(&c, in_dir("r.t"), CORPUS_DTYPE_UINT32, &note) == 0);
	CHECK(corpus_remember(c, &written, &note) == 0 && written && corpus_remember(c, &written, &note) == 0 && !written);
	corpus_destroy(&c);
	check_stream("remembered", in_dir("r.t"), (const int32_t *)ids, 8, CORPUS_KIND_RAW, CORPUS_DTYPE_UINT32);
	REQUIRE(corpus_open(&c, in_dir("r.t"), &note) == 0);
	CHECK(corpus_fingerprint(c, &h, &note) == 0 && corpus_info(c)->vocab == 0 && corpus_info(c)->eod == -1);
	corpus_destroy(&c);
	refused("another type is remembered", in_dir("r.t"), CORPUS_DTYPE_INT32, ERR_CORRUPT, "r.t.json");
	spill(in_dir("r.t"), halves, 32);
	REQUIRE(corpus_open(&c, in_dir("r.t"), &note) == 0);
	CHECK(corpus_fingerprint(c, &h, &note) == ERR_CORRUPT && strstr(note.expected, "PREFIX.json") != NULL);
	corpus_destroy(&c);
	spill(in_dir("r.t"), halves, 36);
	refused("another length is remembered", in_dir("r.t"), CORPUS_DTYPE_NONE, ERR_CORRUPT, "r.t.json");
	spill(in_dir("r.t"), ids, sizeof(ids));
	spill(in_dir("r.t.json"), json, sizeof(json) - 1);
	check_stream("by hand", in_dir("r.t"), (const int32_t *)ids, 8, CORPUS_KIND_RAW, CORPUS_DTYPE_UINT32);

	/* uint16 has 65,536 ids */
	spill(in_dir("r.small"), halves, sizeof(halves) / 2);
	REQUIRE(corpus_open_as(&c, in_dir("r.small"), CORPUS_DTYPE_UINT16, &note) == 0);
	CHECK(corpus_limit_vocab(c, 65536, &note) == 0 && corpus_limit_vocab(c, 65537, &note) == ERR_MISMATCH);
	CHECK(strstr(note.found, "65,536") != NULL);
	corpus_destroy(&c);
}

static void
spill_npy(const char *path, int version, const char *dict, const void *data, size_t n)
{
	char file[1024] = "\x93NUMPY";
	size_t at = version == 1 ? 10 : 12, len = strlen(dict);

	file[6] = (char)version;
	file[8] = (char)len;
	memcpy(file + at, dict, len);
	memcpy(file + at + len, data, n);
	spill(path, file, at + len + n);
}

static void
npy(void)
{
	static const int32_t want[] = {3, 1, 4, 65535, 0};
	static const uint16_t u2[] = {3, 1, 4, 65535, 0};
	static const int64_t i8[] = {3, 1, 4, 65535, 0}, big[] = {3, INT64_C(1) << 33, -7};
	static const struct {
		const char *what, *dict;
		enum corpus_dtype dtype;	/* NONE: rejected, with words */
		const void *data;
		size_t n;
		const char *words;
	} rows[] = {
		{"u2", "{'descr': '<u2', 'fortran_order': False, 'shape': (5,), }  \n", CORPUS_DTYPE_UINT16, u2, sizeof(u2), NULL},
		{"u4", "{'descr': '<u4', 'fortran_order': False, 'shape': (5,), }\n", CORPUS_DTYPE_UINT32, want, sizeof(want), NULL},
		{"i4", "{'descr': '<i4', 'fortran_order': False, 'shape': (5,), }\n", CORPUS_DTYPE_INT32, want, sizeof(want), NULL},
		{"i8", "{'descr': '<i8', 'fortran_order': False, 'shape': (5,), }\n", CORPUS_DTYPE_INT64, i8, sizeof(i8), NULL},
		{"u8", "{'descr': '<u8', 'fortran_order': False, 'shape': (5,), }\n", CORPUS_DTYPE_UINT64, i8, sizeof(i8), NULL},
		{"big-endian", "{'descr': '>u2', 'fortran_order': False, 'shape': (5,), }\n", 0, u2, sizeof(u2), "'>u2'|little-endian"},
		{"float", "{'descr': '<f4', 'fortran_order': False, 'shape': (5,), }\n", 0, want, sizeof(want), "'<f4'"},
		{"bytes", "{'descr': '|u1', 'fortran_order': False, 'shape': (5,), }\n", 0, u2, 5, "'|u1'"},
		{"records", "{'descr': [('a', '<u2')], 'fortran_order': False, 'shape': (5,), }\n", 0, u2, sizeof(u2), "little-endian"},
		{"Fortran", "{'descr': '<u2', 'fortran_order': True, 'shape': (5,), }\n", 0, u2, sizeof(u2), "True"},
		{"two dimensions", "{'descr': '<u2', 'fortran_order': False, 'shape': (1, 5), }\n", 0, u2, sizeof(u2), "(1, 5)|reshape"},
		{"no dimension", "{'descr': '<u2', 'fortran_order': False, 'shape': (), }\n", 0, u2, 2, "()"},
		{"cut short", "{'descr': '<u2', 'fortran_order': False, 'shape': (5,), }\n", 0, u2, sizeof(u2) - 1, "5 elements of 2 bytes"},
		{"longer", "{'descr': '<u2', 'fortran_order': False, 'shape': (4,), }\n", 0, u2, sizeof(u2), "4 elements"},
		{"2^62", "{'descr': '<u8', 'fortran_order': False, 'shape': (4611686018427387904,), }\n", 0, u2, sizeof(u2), "elements"},
		{"no dictionary", "\n", 0, u2, sizeof(u2), "little-endian"},
	};
	int32_t out[3];
	struct corpus *c;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (int version = 1; version <= 3; version++) {
			spill_npy(in_dir("n.npy"), version, rows[i].dict, rows[i].data, rows[i].n);
			if (rows[i].dtype != CORPUS_DTYPE_NONE) {
				check_stream(rows[i].what, in_dir("n.npy"), want, 5, CORPUS_KIND_NPY, rows[i].dtype);
				continue;
			}
			if (corpus_open(&c, in_dir("n.npy"), &note) == ERR_FORMAT)
				refused(rows[i].what, in_dir("n.npy"), CORPUS_DTYPE_NONE, ERR_FORMAT, rows[i].words);
			else
				refused(rows[i].what, in_dir("n.npy"), CORPUS_DTYPE_NONE, ERR_UNSUPPORTED, rows[i].words);
		}
	}
	spill(in_dir("n.npy"), "\x93NUMPY\1\0\xff\xff{'descr'", 18);
	refused("header cut short", in_dir("n.npy"), CORPUS_DTYPE_NONE, ERR_FORMAT, "cut short");
	spill_npy(in_dir("n.npy"), 1, "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }\n", big, sizeof(big));
	REQUIRE(corpus_open(&c, in_dir("n.npy"), &note) == 0);
	CHECK(corpus_window(c, 0, 2, out, &note) == ERR_CORRUPT);
	CHECK_STR(note.found, "8589934592");
	CHECK(corpus_limit_vocab(c, 100000, &note) == 0);
	corpus_destroy(&c);
}

static void
write_shard(const char *name, uint32_t vocab, int32_t eod, int32_t id)
{
	struct corpus_writer_options o = {.vocab = vocab, .eod = eod};
	struct corpus_writer *w;

	REQUIRE(corpus_writer_new(&w, in_dir(name), &o, &note) == 0);
	REQUIRE(corpus_writer_document(w, &id, 1, 1, &note) == 0 && corpus_writer_finish(w, NULL, &note) == 0);
	corpus_writer_destroy(&w);
}

static void
shard_states(void)
{
	static const char wrong[] = "{\"format\": \"saltfleet-corpus\", \"version\": 1, \"kind\": \"megatron\", \"dtype\": \"uint16\", \"n_tokens\": 3}";
	static const char of_all[] = "{\"format\": \"saltfleet-corpus\", \"version\": 1, \"kind\": \"megatron\", \"dtype\": \"uint16\", \"n_tokens\": 4, "
	    "\"vocab\": 999}";
	struct corpus *c;

	write_shard("eod_1", 200, 150, 1);
	write_shard("eod_2", 200, 151, 2);
	refused("shards with two end-of-document ids", in_dir("eod_*"), CORPUS_DTYPE_NONE, ERR_MISMATCH, "eod_2|150|eod_1|151");
	write_shard("state_1", 200, 150, 1);
	write_shard("state_2", 300, 150, 2);
	refused("shards with two vocabularies", in_dir("state_*"), CORPUS_DTYPE_NONE, ERR_MISMATCH, "state_2|200|state_1|300");
	/* a shard without its own uses that of others */
	REQUIRE(unlink(in_dir("state_2.json")) == 0);
	REQUIRE(corpus_open(&c, in_dir("state_*"), &note) == 0);
	CHECK(corpus_info(c)->vocab == 200 && corpus_info(c)->eod == 150 && corpus_info(c)->n_bytes == 0 && corpus_info(c)->n_documents == 2);
	corpus_destroy(&c);
	spill(in_dir("state_2.json"), wrong, sizeof(wrong) - 1);
	refused("a shard of another length", in_dir("state_*"), CORPUS_DTYPE_NONE, ERR_CORRUPT, "state_2.json|2 as in|3");
	spill(in_dir("state_.json"), of_all, sizeof(of_all) - 1);
	/* the one of the pattern comes first */
	REQUIRE(corpus_open(&c, in_dir("state_*"), &note) == 0);
	CHECK(corpus_info(c)->vocab == 999);
	corpus_destroy(&c);
}

/* A pattern matches token files only, not files beside them; Megatron's by their indexes; no file twice. */
static void
patterns(void)
{
	static const uint16_t ids[] = {1, 2, 3, 4};
	static const int32_t both[] = {1, 2, 3, 0, 40000, 65535, 7, 0, 9, 8, 7, 6, 5, 0, 1, 2, 3, 0, 40000, 65535, 7, 0, 9, 8, 7, 6, 5, 0};
	uint8_t shard[1024 + 2] = {0};
	struct hash128 one, two;
	struct corpus *c;
	int32_t header[3] = {20240520, 1, 1}, out[290];
	char name[32];
	size_t n;

	spill(in_dir("p_1.bin"), ids, sizeof(ids));
	for (int i = 0; i < 3; i++) {
		REQUIRE(corpus_open_as(&c, in_dir("p_*"), CORPUS_DTYPE_UINT16, &note) == 0);
		CHECK(corpus_n_tokens(c) == 4 && corpus_fingerprint(c, &two, &note) == 0);
		CHECK(access(in_dir("p_1.bin.salthash"), F_OK) == 0);
		CHECK(i == 0 || hash_equal(one, two));
		one = two;
		corpus_destroy(&c);
	}
	spill(in_dir("p_1.bin.idx.tmp"), "x", 1);	/* left by a killed build */
	spill(in_dir("p_2.json"), "{\"format\": \"saltfleet-corpus\"}", 30);
	spill(in_dir("p_2.counts.bin"), "SALTCNT1\1\0\0\0\0\0\0\0", 16);
	REQUIRE(corpus_open_as(&c, in_dir("p_*"), CORPUS_DTYPE_UINT16, &note) == 0);
	CHECK(corpus_n_tokens(c) == 4);
	corpus_destroy(&c);
	refused("side files only", in_dir("p_*.salthash"), CORPUS_DTYPE_UINT16, ENOENT, "only files");
	REQUIRE(symlink("p_1.bin", in_dir("p_3.bin")) == 0);
	refused("a file twice", in_dir("p_*"), CORPUS_DTYPE_UINT16, ERR_FORMAT, "p_3.bin|p_1.bin|once");
	REQUIRE(unlink(in_dir("p_3.bin")) == 0);
	spill(in_dir("p_3.bin"), ids, 0);
	refused("an empty file", in_dir("p_*"), CORPUS_DTYPE_UINT16, ERR_FORMAT, "p_3.bin|an empty file");
	REQUIRE(unlink(in_dir("p_3.bin")) == 0 && mkdir(in_dir("p_3.bin"), 0700) == 0);
	refused("a folder", in_dir("p_*"), CORPUS_DTYPE_UINT16, EISDIR, "p_3.bin");
	REQUIRE(rmdir(in_dir("p_3.bin")) == 0 && mkfifo(in_dir("p_3.bin"), 0600) == 0);
	refused("a FIFO", in_dir("p_*"), CORPUS_DTYPE_UINT16, EINVAL, "p_3.bin|no regular file");

	copy_golden("small.bin", "m_1.bin");
	copy_golden("small.idx", "m_1.idx");
	copy_golden("small.bin", "m_2.bin");
	copy_golden("small.idx", "m_2.idx");
	check_stream("Megatron shards", in_dir("m_*"), both, 28, CORPUS_KIND_MEGATRON, CORPUS_DTYPE_UINT16);
	check_stream("by .bin", in_dir("m_*.bin"), both, 28, CORPUS_KIND_MEGATRON, CORPUS_DTYPE_UINT16);
	check_stream("by .idx", in_dir("m_*.idx"), both, 28, CORPUS_KIND_MEGATRON, CORPUS_DTYPE_UINT16);
	REQUIRE(corpus_open(&c, in_dir("m_*"), &note) == 0);
	CHECK(corpus_info(c)->n_documents == 6 && corpus_limit_vocab(c, 40000, &note) == 0);
	CHECK(corpus_window(c, 4, 4, out, &note) == ERR_CORRUPT);
	CHECK_STR(note.place, "token 18 (token 4 of this file) (window 4 of context 4, position 2)");
	CHECK_STR(note.name, in_dir("m_2.bin"));
	corpus_destroy(&c);
	REQUIRE(unlink(in_dir("m_2.bin")) == 0);
	refused("an index alone", in_dir("m_*"), CORPUS_DTYPE_NONE, ENOENT, "m_2.bin");
	refused("an index as tokens", in_dir("m_2.id*"), CORPUS_DTYPE_UINT16, ENOENT, "m_2.bin");

	/* Megatron's partitions in numerical order; the first token of each is its number */
	for (int wide = 0; wide < 2; wide++) {
		static const int order[] = {0, 1, 2, 9, 10, 11, 100};
		struct corpus_writer_options o = {.vocab = wide ? 70000 : 200, .eod = 150};
		struct corpus_writer *w;

		for (size_t i = 0; i < 7; i++) {
			const int32_t id = order[i];

			snprintf(name, sizeof(name), "part%d_%d_text_document", wide, order[i]);
			REQUIRE(corpus_writer_new(&w, in_dir(name), &o, &note) == 0);
			REQUIRE(corpus_writer_document(w, &id, 1, 1, &note) == 0 && corpus_writer_finish(w, NULL, &note) == 0);
			corpus_writer_destroy(&w);
		}
		snprintf(name, sizeof(name), "part%d_*", wide);
		REQUIRE(corpus_open(&c, in_dir(name), &note) == 0);
		CHECK(corpus_info(c)->vocab == o.vocab && corpus_info(c)->eod == 150 && corpus_info(c)->n_bytes == 7);
		CHECK(corpus_limit_vocab(c, o.vocab - 1, &note) == ERR_MISMATCH);
		CHECK(corpus_info(c)->n_documents == 7 && corpus_info(c)->dtype == (wide ? CORPUS_DTYPE_INT32 : CORPUS_DTYPE_UINT16));
		CHECK(corpus_window(c, 0, 13, out, &note) == 0);
		for (size_t i = 0; i < 7; i++)
			CHECK_ROW(name, out[2 * i] == order[i] && out[2 * i + 1] == 150);
		corpus_destroy(&c);
	}
	snprintf(name, sizeof(name), "part?_[0-2]_*");
	refused("partitions of two types", in_dir(name), CORPUS_DTYPE_NONE, ERR_FORMAT, "part1_0_text_document.bin|megatron of uint16|part0_0|int32");

	/* the PREFIX.json of a shard is compared with the others and with the shard */
	shard_states();

	/* more files than are kept open; one of them is replaced */
	memcpy(shard, header, sizeof(header));
	for (int i = 0; i < 290; i++) {
		shard[1024] = (uint8_t)(i % 256);
		shard[1025] = (uint8_t)(i / 256);
		snprintf(name, sizeof(name), "many_%03d", i);
		spill(in_dir(name), shard, sizeof(shard));
	}
	REQUIRE(corpus_open(&c, in_dir("many_*"), &note) == 0);
	CHECK(corpus_fingerprint(c, &one, &note) == 0 && corpus_window(c, 0, 289, out, &note) == 0);
	n = 0;
	for (int i = 0; i < 290; i++)
		n += out[i] == i;
	CHECK(n == 290);
	spill(in_dir("many_new"), shard, sizeof(shard));
	REQUIRE(rename(in_dir("many_new"), in_dir("many_280")) == 0);
	CHECK(corpus_window(c, 0, 289, out, &note) == ERR_CORRUPT && strcmp(note.name, in_dir("many_280")) == 0);
	corpus_destroy(&c);
}

/* Flips a bit and keeps size and times, as a failing disk does. */
static void
rot(const char *path, off_t at, int bit)
{
	struct timespec times[2];
	int fd = open(path, O_RDWR);
	struct stat st;
	uint8_t byte;

	REQUIRE(fd >= 0 && fstat(fd, &st) == 0 && pread(fd, &byte, 1, at) == 1);
	byte ^= (uint8_t)(1 << bit);
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	REQUIRE(pwrite(fd, &byte, 1, at) == 1 && futimens(fd, times) == 0 && close(fd) == 0);
}

static int
use(const char *prefix)
{
	struct corpus *c;
	struct hash128 h;
	int32_t out[8];
	int rc = corpus_open(&c, prefix, &note);

	if (rc == 0)
		rc = corpus_fingerprint(c, &h, &note);
	for (uint64_t i = 0; rc == 0 && i < corpus_n_windows(c, 7); i++)
		rc = corpus_window(c, i, 7, out, &note);
	corpus_destroy(&c);
	return rc;
}

/* Flips every bit of a small corpus, one at a time, with the side files of the undamaged corpus. */
static void
rotten(void)
{
	static const char *const files[] = {"rot.bin", "rot.idx", "rot.json"};
	struct corpus *c;
	struct hash128 h;
	struct stat st;
	int32_t out[5];

	REQUIRE(write_some(in_dir("rot"), 1000, 4, true) == 0 && use(in_dir("rot")) == 0);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		REQUIRE(stat(in_dir(files[i]), &st) == 0);
		for (off_t at = 0; at < st.st_size; at++) {
			for (int bit = 0; bit < 8; bit++) {
				rot(in_dir(files[i]), at, bit);
				if (use(in_dir("rot")) == 0)
					fprintf(stderr, "%s: byte %lld, bit %d\n", files[i], (long long)at, bit);
				CHECK_ROW(files[i], use(in_dir("rot")) != 0);
				rot(in_dir(files[i]), at, bit);
			}
		}
	}
	CHECK(use(in_dir("rot")) == 0);

	/* A foreign corpus, whose fingerprint is only in its side file; one truncated while it is open. */
	copy_golden("gpt2_000.bin", "f.bin");
	CHECK(use(in_dir("f.bin")) == 0);
	rot(in_dir("f.bin"), 1027, 2);
	REQUIRE(corpus_open(&c, in_dir("f.bin"), &note) == 0);
	CHECK(corpus_fingerprint(c, &h, &note) == 0 && corpus_window(c, 0, 4, out, &note) == ERR_CORRUPT);
	CHECK(strcmp(note.name, in_dir("f.bin")) == 0 && strncmp(note.place, "block 0 ", 8) == 0 && err_exit_code(ERR_CORRUPT) == 65);
	CHECK(corpus_verify(c, &note) == ERR_CORRUPT && corpus_check_vocab(c, 60000, &note) == ERR_CORRUPT);
	rot(in_dir("f.bin"), 1027, 2);
	CHECK(corpus_window(c, 0, 4, out, &note) == 0 && corpus_verify(c, &note) == 0);
	rot(in_dir("f.bin"), 1027, 2);
	/* corpus_window checks a block only once, corpus_verify always */
	CHECK(corpus_window(c, 0, 4, out, &note) == 0 && corpus_verify(c, &note) == ERR_CORRUPT);
	REQUIRE(truncate(in_dir("f.bin"), 1028) == 0);
	CHECK(corpus_window(c, 0, 4, out, &note) == ERR_CORRUPT && strcmp(note.name, in_dir("f.bin")) == 0 &&
	    strstr(note.found, "cut short") != NULL);
	corpus_destroy(&c);
}

/* small: documents 1 2 3 0 / 40000 65535 7 0 / 9 8 7 6 5 0, with a PREFIX.json that states their end. */
static void
isolation(void)
{
	struct hash128 plain, isolated, other;
	struct corpus *c;
	char json[256];

	copy_golden("small.bin", "plain.bin");
	copy_golden("small.idx", "plain.idx");
	REQUIRE(corpus_open(&c, in_dir("plain"), &note) == 0);
	CHECK(corpus_document_end(c) == -1);
	CHECK(corpus_isolate(c, -1, &note) == ERR_FORMAT && strstr(note.expected, "\"eod\" in ") != NULL && corpus_document_end(c) == -1);
	REQUIRE(corpus_fingerprint(c, &plain, &note) == 0);
	corpus_destroy(&c);
	copy_golden("small.bin", "ended.bin");
	copy_golden("small.idx", "ended.idx");
	for (int eod = 0; eod < 8; eod += 7) {
		snprintf(json, sizeof(json), "{\"format\": \"saltfleet-corpus\", \"version\": 1, \"kind\": \"megatron\", \"dtype\": \"uint16\", "
		    "\"n_tokens\": 14, \"eod\": %d}", eod);
		spill(in_dir("ended.json"), json, strlen(json));
		REQUIRE(corpus_open(&c, in_dir("ended"), &note) == 0);
		REQUIRE(corpus_fingerprint(c, &other, &note) == 0);
		CHECK(hash_equal(plain, other));
		CHECK(corpus_isolate(c, 3, &note) == ERR_MISMATCH && corpus_document_end(c) == -1);
		CHECK(corpus_isolate(c, -1, &note) == 0 && corpus_document_end(c) == eod);
		REQUIRE(corpus_fingerprint(c, &other, &note) == 0);
		CHECK(!hash_equal(plain, other) && (eod == 0 || !hash_equal(isolated, other)));
		isolated = other;
		CHECK(corpus_isolate(c, eod, &note) == 0 && corpus_verify(c, &note) == 0);
		corpus_destroy(&c);
	}
	snprintf(json, sizeof(json), "{\"format\": \"saltfleet-corpus\", \"version\": 1, \"kind\": \"megatron\", \"dtype\": \"uint16\", "
	    "\"n_tokens\": 14, \"eod\": 4}");
	spill(in_dir("ended.json"), json, strlen(json));
	REQUIRE(corpus_open(&c, in_dir("ended"), &note) == 0);
	CHECK(corpus_isolate(c, -1, &note) == ERR_FORMAT && strstr(note.found, "none in the first 14 tokens") != NULL);
	corpus_destroy(&c);
}

int
main(void)
{
	files_begin();
	isolation();
	foreign();
	damaged();
	vocabulary();
	other_formats();
	raw_types();
	npy();
	patterns();
	rotten();
	files_end();
	return check_done();
}
