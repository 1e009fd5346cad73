/* SPDX-License-Identifier: Apache-2.0 */
#include "data/text/text.h"

#include <errno.h>
#include <sys/stat.h>
#include "check.h"

static char dir[] = "/tmp/salt_text_XXXXXX";

static void
put(const char *name, const void *bytes, size_t n)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	unlink(path);			/* truncating and rewriting a file is slow on some file systems */
	f = fopen(path, "w");
	REQUIRE(f != NULL && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
}

/* The result for a path below dir: rc and note, documents with a | after each, counts. */
struct result {
	int rc;
	struct err_note note;
	char docs[512];
	size_t n_docs;			/* length of docs in bytes */
	uint64_t n[TEXT_TALLIES];
	char first[TEXT_TALLIES][160];
	struct text_place last;
};

static struct result
read_with(const char *name, struct text_options o)
{
	struct result r = {.rc = 0};
	char path[256];
	const char *paths[1] = {path};
	const unsigned char *doc;
	struct text *t;
	size_t n;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (o.field == NULL)
		o.field = "text";
	if ((r.rc = text_open(&t, paths, 1, &o, &r.note)) != 0)
		return r;
	while ((r.rc = text_next(t, &doc, &n, &r.last, &r.note)) == 0 && r.n_docs + n + 2 < sizeof(r.docs)) {
		memcpy(r.docs + r.n_docs, doc, n);
		r.n_docs += n;
		r.docs[r.n_docs++] = '|';
	}
	if (r.rc == ERR_NOT_FOUND)
		r.rc = 0;
	for (int i = 0; i < TEXT_TALLIES; i++) {
		const struct text_tally *tally = text_tally(t, (enum text_tally_kind)i);

		r.n[i] = tally->n;
		snprintf(r.first[i], sizeof(r.first[i]), "%s", tally->first[0] != NULL ? tally->first[0] + strlen(dir) + 1 : "");
	}
	text_close(&t);
	return r;
}

static struct result
read_bytes(const char *name, const void *bytes, size_t n, struct text_options o)
{
	put(name, bytes, n);
	return read_with(name, o);
}

/*
 * Made by gzip -n, bzip2, xz --check=crc32 and zstd --check from {"text": "first document"} and {"text":
 * "second"}; concatenated.
 */
static const struct {
	const char *what, *name;
	size_t n_first;
	const char *hex;
} packed[] = {
	{"gzip", "a.jsonl.gz", 47,
	    "1f8b0800000000000003ab562a49ad2851b252504acb2c2a2e5148c94f2ecd4dcd2b51aae5020098db6d221b0000001f8b08"
	    "00000000000003ab562a49ad2851b252502a4e4dcecf4b51aae5020014a00b1f13000000"},
	{"bzip2", "a.jsonl.bz2", 67,
	    "425a68393141592653595409729100000cd9800010500000100f239e4a2000314c98990646141ea00f48da8876014ecc081c"
	    "725bce9656153e2ee48a70a120a812e522425a68393141592653598a2515a6000008d9800010500000100e018c4a20002211"
	    "b51ea0f21000018f87c3df2296de0bcd8bb9229c284845128ad300"},
	{"xz", "a.jsonl.xz", 80,
	    "fd377a585a0000016922de360200210116000000742fe5a301001a7b2274657874223a2022666972737420646f63756d656e"
	    "74227d0a000098db6d2200012f1baa44ffb89042990d010000000001595afd377a585a0000016922de360200210116000000"
	    "742fe5a30100127b2274657874223a20227365636f6e64227d0a000014a00b1f000127139046fd7e9042990d010000000001"
	    "595a"},
	{"zstd", "a.jsonl.zst", 40,
	    "28b52ffd0458d900007b2274657874223a2022666972737420646f63756d656e74227d0ac05d22cf28b52ffd04589900007b"
	    "2274657874223a20227365636f6e64227d0a026f4191"},
};

static size_t
from_hex(const char *hex, unsigned char *out)
{
	size_t n = 0;

	for (unsigned v; hex[2 * n] != '\0' && sscanf(hex + 2 * n, "%2x", &v) == 1; n++)
		out[n] = (unsigned char)v;
	return n;
}

/*
 * A compressed file, intact, truncated at every byte, or with any bit flipped, gives the text or an error.
 * Truncated between two members it is a complete file.
 */
static void
compressed(void)
{
	static const char both[] = "first document|second|", first[] = "first document|";
	unsigned char b[256];
	char what[64];

	for (size_t i = 0; i < sizeof(packed) / sizeof(packed[0]); i++) {
		size_t n = from_hex(packed[i].hex, b);
		struct result r = read_bytes(packed[i].name, b, n, (struct text_options){.split = TEXT_SPLIT_FILE});

		CHECK_ROW(packed[i].what, r.rc == 0 && strcmp(r.docs, both) == 0 && r.n[TEXT_TALLY_JSON] == 1);
		r = read_bytes("no_name_that_helps", b, n, (struct text_options){.split = TEXT_SPLIT_FILE});
		CHECK_ROW(packed[i].what, r.rc == 0 && strcmp(r.docs, both) == 0);
		b[n] = b[n + 1] = 0;
		r = read_bytes(packed[i].name, b, n + 2, (struct text_options){.split = TEXT_SPLIT_FILE});
		CHECK_ROW("zeros behind it", r.rc == 0 && strcmp(r.docs, both) == 0);
		memcpy(b + n, "more", 4);
		r = read_bytes(packed[i].name, b, n + 4, (struct text_options){.split = TEXT_SPLIT_FILE});
		CHECK_ROW("text behind it", r.rc == ERR_FORMAT && strstr(r.note.name, packed[i].name) != NULL && r.note.place[0] != '\0');
		for (size_t cut = 0; cut < n; cut++) {
			r = read_bytes(packed[i].name, b, cut, (struct text_options){.split = TEXT_SPLIT_FILE});
			snprintf(what, sizeof(what), "%s cut to %zu bytes", packed[i].what, cut);
			if (cut == packed[i].n_first)
				CHECK_ROW(what, r.rc == 0 && strcmp(r.docs, first) == 0);
			else
				CHECK_ROW(what, r.rc == ERR_FORMAT && strstr(r.note.name, packed[i].name) != NULL);
		}
		for (size_t bit = 0; bit < 8 * n; bit++) {
			b[bit / 8] ^= (unsigned char)(1u << bit % 8);
			r = read_bytes(packed[i].name, b, n, (struct text_options){.split = TEXT_SPLIT_FILE});
			b[bit / 8] ^= (unsigned char)(1u << bit % 8);
			snprintf(what, sizeof(what), "%s with bit %zu flipped", packed[i].what, bit);
			CHECK_ROW(what, r.rc == 0 ? strcmp(r.docs, both) == 0 : r.rc == ERR_FORMAT);
		}
	}
}

#define BYTES(s) s, sizeof(s) - 1

/* The first bytes decide, whatever the name is: documents, or the text of the error. */
static void
kinds(void)
{
	static const struct {
		const char *what, *name, *bytes;
		size_t n;
		const char *docs, *found;	/* docs NULL: an error */
	} rows[] = {
		{"plain", "a", BYTES("some text\n"), "some text\n|", ""},
		{"plain that begins like a format", "a", BYTES("GGUF is a format. ORC is one too.\n"), "GGUF is a format. ORC is one too.\n|", ""},
		{"braces of a text", "a.txt", BYTES("{\\bf bold} [link](there)"), "{\\bf bold} [link](there)|", ""},
		{"a bracket of a text", "a", BYTES("[Scene one] A storm."), "[Scene one] A storm.|", ""},
		{"Latin-1", "a", BYTES("caf\xe9 cr\xe8me\n"), "caf\xe9 cr\xe8me\n|", ""},
		{"a few controls", "a", BYTES("a\x04 b \x01 c \xff d\n"), "a\x04 b \x01 c \xff d\n|", ""},
		{"a zero behind a space", "a", BYTES("zero \0 and \xff bytes"), "zero \0 and \xff bytes|", ""},
		{"form feeds and escapes", "a", BYTES("\f\x1b[1m\f\x1b[0m\xff\f\f\f"), "\f\x1b[1m\f\x1b[0m\xff\f\f\f|", ""},
		{"BOM, text", "a.txt", BYTES("\xef\xbb\xbftext"), "text|", ""},
		{"BOM, JSON lines", "a.jsonl", BYTES("\xef\xbb\xbf{\"text\": \"x\"}\n"), "x|", ""},
		{"BOM within", "a", BYTES("\xef\xbb\xbf{\"text\":\"x\"}\n\xef\xbb\xbf{\"text\":\"\xef\xbb\xbfy\"}"), "x|\xef\xbb\xbfy|", ""},
		{"UTF-16LE", "a", BYTES("\xff\xfeh\0\xe9\0\x3d\xd8\x00\xde"), "h\xc3\xa9\xf0\x9f\x98\x80|", ""},
		{"UTF-16BE JSON", "a", BYTES("\xfe\xff\0{\0\"\0t\0e\0x\0t\0\"\0:\0\"\0y\0\"\0}"), "y|", ""},
		{"UTF-32LE", "a", BYTES("\xff\xfe\0\0h\0\0\0i\0\0\0"), "hi|", ""},
		{"UTF-32BE", "a", BYTES("\0\0\xfe\xff\0\0\0h\0\0\0i"), "hi|", ""},
		{"half a UTF-16 character", "a", BYTES("\xff\xfeh\0i"), NULL, "UTF-16LE"},
		{"half a surrogate pair", "a", BYTES("\xff\xfe\x3d\xd8h\0"), NULL, "bytes that are not"},
		{"UTF-16 without BOM", "a.jsonl", BYTES("{\0\"\0t\0e\0x\0t\0\"\0:\0\"\0y\0\"\0}\0\n\0"), NULL, "UTF-16LE without"},
		{"UTF-32 without BOM", "a", BYTES("\0\0\0h\0\0\0i\0\0\0!\0\0\0\n"), NULL, "UTF-32BE without"},
		{"UTF-16 of other scripts", "a", BYTES("\x1f\x04\x40\x04\x38\x04 \0\x32\x04\x42\x04"), NULL, "UTF-16LE without"},
		{"UTF-16 of other scripts", "a", BYTES("\x4e\xca\x59\x29\x30\x02\x62\x11\x4e\xec"), NULL, "UTF-16BE without"},
		{"Parquet", "a.jsonl", BYTES("PAR1\x15\x04\x15\x10 text text"), NULL, "a Parquet file"},
		{"Arrow", "a", BYTES("ARROW1\0\0"), NULL, "an Arrow"},
		{"NumPy", "a", BYTES("\x93NUMPY\x01\0v\0{'descr'"), NULL, "a NumPy array"},
		{"safetensors", "a", BYTES("\x40\0\0\0\0\0\0\0{\"w\": {\"dtype\": \"F32\"}}"), NULL, "a safetensors"},
		{"GGUF", "a", BYTES("GGUF\x03\0\0\0\0\0\0\0"), NULL, "a GGUF"},
		{"zip", "a", BYTES("PK\x03\x04\x14\0\0\0"), NULL, "a zip archive"},
		{"7z", "a", BYTES("7z\xbc\xaf\x27\x1c"), NULL, "a 7z archive"},
		{"PNG", "a", BYTES("\x89PNG\r\n\x1a\n"), NULL, "a PNG image"},
		{"JPEG", "a", BYTES("\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0"), NULL, "a JPEG image"},
		{"PDF", "a", BYTES("%PDF-1.7\n"), NULL, "a PDF"},
		{"a program", "a", BYTES("\x7f" "ELF\x02\x01"), NULL, "a program"},
		{"SQLite", "a", BYTES("SQLite format 3\0"), NULL, "an SQLite"},
		{"lz4", "a", BYTES("\x04\x22\x4d\x18\x64"), NULL, "lz4"},
		{"llm.c", "a", BYTES("\x88\x2b\x35\x01\x01\0\0\0"), NULL, "an llm.c"},
		{"other binary", "a.txt", BYTES("\x01\x02\xff\x03\xfe\x04\x90\x05\x06 abc"), NULL, "binary data"},
		{"Git LFS", "a.jsonl", BYTES("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), NULL, "a Git LFS pointer"},
		{"an error page", "a.jsonl.gz", BYTES("<!DOCTYPE html>\n<p>404"), NULL, "<!DOCTYPE html>"},
		{"an error page", "a.PARQUET", BYTES("<html>"), NULL, "<html>"},
		{"an error page", "a.jsonl", BYTES("<html>\n"), NULL, "<html>"},
		{"an empty download", "a.txt.xz", BYTES(""), NULL, "an empty file"},
		{"JSON lines", "a", BYTES("{\"text\":\"x\"}\n\n {\"text\":\"y\"}\r\n"), "x|y|", ""},
		{"JSON lines under a false name", "a.gz", BYTES("{\"text\":\"x\"}\n"), "x|", ""},
		{"an array", "a.json", BYTES(" [ {\"text\":\"x\"},\n{\"a\":[1,{}],\"text\":\"y\"} ]\n"), "x|y|", ""},
		{"arrays", "a", BYTES("[{\"text\":\"x\"}][{\"text\":\"y\"}]"), "x|y|", ""},
		{"indented objects", "a.jsonl", BYTES("{\n \"text\": \"x\"\n}\n{\n \"text\": \"y\"\n}\n"), "x|y|", ""},
		{"objects on one line", "a", BYTES("{\"text\":\"x\"}{\"text\":\"y\"} {\"text\":\"z\"}"), "x|y|z|", ""},
		{"an empty array", "a.json", BYTES("[]\n"), "", ""},
		{"an array of texts", "a.json", BYTES("[\"x\", \"y\"]"), NULL, "in place of {"},
		{"columns", "a.json", BYTES("{\"text\": [\"x\", \"y\"]}"), NULL, "one JSON object without the text field"},
		{"no JSON at all", "a.json", BYTES("text"), NULL, "in place of {"},
		{"a cut array", "a.json", BYTES("[{\"text\":\"x\"},\n{\"te"), NULL, "the end of the file"},
		{"a cut array", "a.json", BYTES("[{\"text\":\"x\"},\n"), NULL, "the end of the file"},
		{"a cut indented object", "a.json", BYTES("{\n \"text\": \"x"), NULL, "the end of the file"},
		{"a cut line", "a.jsonl", BYTES("{\"text\":\"x\"}\n{\"text\":\"y"), NULL, "the end of the line"},
		{"two on a line of several", "a", BYTES("{\"text\":\"x\"}\n{\"text\":\"y\"}{\"text\":\"z\"}"), NULL, "in place of the end of the line"},
		{"a first line that is damaged", "a", BYTES("{\"text\": \"x\", }\n{\"text\":\"y\"}\n"), NULL, "in place of a name in quotes"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct result r = read_bytes(rows[i].name, rows[i].bytes, rows[i].n, (struct text_options){.split = TEXT_SPLIT_FILE});

		if (rows[i].docs != NULL)
			CHECK_ROW(rows[i].what, r.rc == 0 && strcmp(r.docs, rows[i].docs) == 0);
		else
			CHECK_ROW(rows[i].what, r.rc == ERR_FORMAT && strstr(r.note.name, rows[i].name) != NULL &&
			    (strstr(r.note.found, rows[i].found) != NULL || strstr(r.note.expected, rows[i].found) != NULL));
		r = read_with(rows[i].name, (struct text_options){.split = TEXT_SPLIT_FILE, .form = TEXT_FORM_PLAIN});
		/* read as plain text: only a byte order mark matters */
		CHECK_ROW(rows[i].what, r.rc == 0 || rows[i].bytes[0] == '\xff');
	}
}

/* A record is a document if it has a text, whatever else it has; others are reported with their place. */
static void
records(void)
{
	static const char lines[] = "{\"text\":\"a\",\"n\":NaN}\n{\"text\":\"\\ud83d\"}\n{\"text\":null}\n{}\n[1]\n{\"text\":\"\"}\nx\n{\"text\":\"b\"}";
	static const char objects[] = "[{\"text\":\"a\"},\n {\"body\":\"b\"}, {\"text\":\"c\"}]";
	struct text_options skip = {.split = TEXT_SPLIT_FILE, .skip_bad = true};
	struct result r = read_bytes("r.jsonl", BYTES(lines), skip);

	CHECK(r.rc == 0 && strcmp(r.docs, "a|\xef\xbf\xbd|b|") == 0 && r.last.line == 8);
	CHECK(r.n[TEXT_TALLY_BAD] == 4 && r.n[TEXT_TALLY_EMPTY] == 1 && r.n[TEXT_TALLY_SURROGATES] == 1);
	CHECK_STR(r.first[TEXT_TALLY_BAD], "r.jsonl: line 3: a field of type null");
	CHECK_STR(r.first[TEXT_TALLY_EMPTY], "r.jsonl: line 6");
	CHECK_STR(r.first[TEXT_TALLY_SURROGATES], "r.jsonl: line 2");
	r = read_with("r.jsonl", (struct text_options){.split = TEXT_SPLIT_FILE});
	CHECK(r.rc == ERR_FORMAT);
	CHECK_STR(r.note.place, "line 3");
	r = read_bytes("r.json", BYTES(objects), skip);
	CHECK(r.rc == 0 && strcmp(r.docs, "a|c|") == 0 && r.last.line == 2 && r.last.record == 3);
	CHECK_STR(r.first[TEXT_TALLY_BAD], "r.json: line 2, object 2: no such field");
	r = read_bytes("r.json", BYTES("{\n\"text\":\n\"x\"\n}\n{\"text\":\"y\"}"), skip);
	CHECK(r.rc == 0 && r.last.line == 5 && r.last.record == 2);
	r = read_bytes("r.json", BYTES("[{\"text\":\"a\"}, oops, {\"text\":\"b\"}]"), skip);
	CHECK(r.rc == ERR_FORMAT);			/* the beginning of the next object is not known */
	CHECK_STR(r.note.place, "line 1, object 2");
}

/* The weight of a record; a record without one is bad and is reported. */
static void
weights(void)
{
	static const char lines[] = "{\"text\":\"a\",\"w\":2}\n{\"w\":-0.5,\"text\":\"b\"}\n{\"text\":\"c\",\"w\":1e-3,\"x\":{\"w\":9}}\n{\"text\":\"d\"}\n"
	    "{\"text\":\"e\",\"w\":NaN}\n{\"text\":\"\",\"w\":1}\n{\"text\":\"f\",\"w\":0}";
	static const double want[] = {2, 1e-3, 0};
	struct text_options o = {.split = TEXT_SPLIT_FILE, .form = TEXT_FORM_JSON, .field = "text", .weight_field = "w", .skip_bad = true};
	char name[128];
	const char *path = name;
	const unsigned char *doc;
	struct err_note why;
	struct text *t;
	size_t n, i = 0;

	put("w.jsonl", BYTES(lines));
	snprintf(name, sizeof(name), "%s/w.jsonl", dir);
	REQUIRE(text_open(&t, &path, 1, &o, &why) == 0);
	while (text_next(t, &doc, &n, NULL, &why) == 0) {
		CHECK(i < 3 && text_weight(t) == want[i < 3 ? i : 0]);
		i++;
	}
	CHECK(i == 3 && text_tally(t, TEXT_TALLY_BAD)->n == 3);
	CHECK(strstr(text_tally(t, TEXT_TALLY_BAD)->first[0], "line 2: -0.5") != NULL);
	CHECK(strstr(text_tally(t, TEXT_TALLY_BAD)->first[1], "line 4: no such field") != NULL);
	CHECK(strstr(text_tally(t, TEXT_TALLY_BAD)->first[2], "line 5: NaN") != NULL);
	text_close(&t);
}

/* Records longer than any buffer: objects of an array, an indented object, a line. */
static void
long_records(void)
{
	const size_t n = 3u << 20;
	char *text = malloc(2 * n + 64);
	size_t at;

	REQUIRE(text != NULL);
	for (int form = 0; form < 3; form++) {
		static const char *const begin[] = {"[{\"text\":\"a\"},{\"pad\":\"", "{\n\"pad\":\"", "{\"pad\":\""};
		static const char *const end[] = {"\",\"text\":\"b\"}]", "\",\n\"text\":\"b\"}", "\",\"text\":\"b\"}\n"};
		struct result r;

		at = strlen(begin[form]);
		memcpy(text, begin[form], at);
		memset(text + at, 'x', n);
		memcpy(text + at + n, end[form], strlen(end[form]));
		r = read_bytes("long.json", text, at + n + strlen(end[form]), (struct text_options){.split = TEXT_SPLIT_FILE});
		CHECK_ROW(begin[form], r.rc == 0 && strcmp(r.docs, form == 0 ? "a|b|" : "b|") == 0);
	}
	free(text);
}

/* In a folder, files that are not text are skipped and counted; placeholders of missing text are an error. */
static void
folders(void)
{
	char path[256], to[256];
	struct result r;

	for (size_t i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, i == 0 ? "f" : "f/.git");
		REQUIRE(mkdir(path, 0700) == 0);
	}
	put("f/.git/config", BYTES("hidden"));
	put("f/README.md", BYTES("readme"));
	put("f/a.jsonl", BYTES("{\"text\":\"x\"}"));
	put("f/b.parquet", BYTES("PAR1"));
	put("f/dataset_info.json", BYTES("{\n \"description\": \"\"\n}"));
	put("f/empty.txt", BYTES(""));
	snprintf(path, sizeof(path), "%s/f/link", dir);
	REQUIRE(symlink(".git", path) == 0);
	r = read_with("f", (struct text_options){.split = TEXT_SPLIT_FILE});
	CHECK(r.rc == 0 && strcmp(r.docs, "readme|x|") == 0);
	CHECK(r.n[TEXT_TALLY_PLAIN] == 2 && r.n[TEXT_TALLY_JSON] == 1 && r.n[TEXT_TALLY_HIDDEN] == 1 && r.n[TEXT_TALLY_NO_FILE] == 1);
	CHECK_STR(r.first[TEXT_TALLY_NOT_TEXT], "f/b.parquet: a Parquet file");
	CHECK_STR(r.first[TEXT_TALLY_NO_FIELD], "f/dataset_info.json: one JSON object without the text field");
	CHECK_STR(r.first[TEXT_TALLY_NO_DOCUMENT], "f/empty.txt");
	r = read_with("f", (struct text_options){.split = TEXT_SPLIT_FILE, .only = "*.jsonl"});
	CHECK(r.rc == 0 && strcmp(r.docs, "x|") == 0 && r.n[TEXT_TALLY_NOT_ONLY] == 5);
	r = read_with("f", (struct text_options){.split = TEXT_SPLIT_FILE, .skip_bad = true});
	CHECK(r.rc == 0 && r.n[TEXT_TALLY_NO_FIELD] == 0 && r.n[TEXT_TALLY_BAD] == 1);
	/* data because of its name, although one object */
	put("f/c.jsonl", BYTES("{\"body\":\"y\"}"));
	r = read_with("f", (struct text_options){.split = TEXT_SPLIT_FILE});
	CHECK(r.rc == ERR_FORMAT && strstr(r.note.name, "c.jsonl") != NULL);
	put("f/c.jsonl", BYTES("version https://git-lfs.github.com/spec/v1\n"));
	r = read_with("f", (struct text_options){.split = TEXT_SPLIT_FILE});
	CHECK(r.rc == ERR_FORMAT && strstr(r.note.name, "c.jsonl") != NULL);
	snprintf(path, sizeof(path), "%s/f/c.jsonl", dir);
	snprintf(to, sizeof(to), "%s/not_there", dir);
	REQUIRE(unlink(path) == 0 && symlink(to, path) == 0);
	r = read_with("f", (struct text_options){.split = TEXT_SPLIT_FILE});
	CHECK(r.rc == ENOENT && strstr(r.note.name, "c.jsonl") != NULL);
}

int
main(void)
{
	char command[64];

	REQUIRE(mkdtemp(dir) != NULL);
	compressed();
	kinds();
	records();
	weights();
	long_records();
	folders();
	snprintf(command, sizeof(command), "rm -r %s", dir);
	CHECK(system(command) == 0);
	return check_done();
}
