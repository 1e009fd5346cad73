/* SPDX-License-Identifier: Apache-2.0 */
/* Ids against Hugging Face's (tests/golden/tokenizer, made by its make.py), round trips of any bytes, and files that are no good. */
#include <errno.h>
#include <fcntl.h>
#include "check.h"
#include "base/mem/mem.h"
#include "data/tokenizer/tokenizer.h"

#define GOLDEN "tests/golden/tokenizer/"
#define PODS "/usr/share/perl/5.36.0/pod/"

static const char *const kinds[] = {"gpt2", "llama3", "smollm2", "qwen2", "prefix"};
#define N_KINDS 5
static const char *const texts[] = {"code", "hand", "spaces", "points", "marks", "broken", "lone", "all", "long", "added", "empty"};
#define N_TEXTS 11

static unsigned char *
read_file(const char *path, size_t *n)
{
	FILE *f = fopen(path, "rb");
	unsigned char *p;

	if (f == NULL)
		return NULL;
	fseek(f, 0, SEEK_END);
	*n = (size_t)ftell(f);
	rewind(f);
	if ((p = malloc(*n + 1)) != NULL) {
		*n = fread(p, 1, *n, f);
		p[*n] = '\0';
	}
	fclose(f);
	return p;
}

static struct tokenizer *
load(const char *path)
{
	struct tokenizer *tok;
	struct err_note note;
	char line[1024];
	int rc = tokenizer_load(&tok, path, &note);

	if (rc != 0)
		fprintf(stderr, "%s\n", err_note_str(&note, rc, line, sizeof line));
	REQUIRE(rc == 0);
	return tok;
}

static struct tokenizer *
load_kind(size_t k)
{
	char path[256];

	snprintf(path, sizeof path, GOLDEN "%s.json", kinds[k]);
	return load(path);
}

static void
check_ids(const char *what, const struct tokenizer_ids *got, const unsigned char *want, size_t want_bytes)
{
	size_t i;

	CHECK_ROW(what, got->n == want_bytes / 2);
	for (i = 0; i < got->n && i < want_bytes / 2; i++) {
		if (got->ids[i] != (want[2 * i] | want[2 * i + 1] << 8))
			break;
	}
	CHECK_ROW(what, i == want_bytes / 2);
	if (i < want_bytes / 2)
		fprintf(stderr, "  first difference at id %zu\n", i);
}

static void
test_golden(void)
{
	struct tokenizer_ids ids = {0};
	struct tokenizer_bytes bytes = {0};
	char path[256];
	size_t k, t, n = 0, n_want = 0;
	int specials;

	for (k = 0; k < N_KINDS; k++) {
		struct tokenizer *tok = load_kind(k);
		struct tokenizer_encoder *enc;

		REQUIRE(tokenizer_encoder_new(&enc, tok) == 0);
		for (t = 0; t < 2 * N_TEXTS; t++) {
			const char *name = texts[t / 2];
			unsigned char *text, *want;

			specials = t % 2;
			snprintf(path, sizeof path, GOLDEN "texts/%s.txt", name);
			REQUIRE((text = read_file(path, &n)) != NULL);
			snprintf(path, sizeof path, GOLDEN "ids/%s/%s%s.u16", kinds[k], name, specials ? ".specials" : "");
			REQUIRE((want = read_file(path, &n_want)) != NULL);
			ids.n = bytes.n = 0;
			CHECK_ROW(path, tokenizer_encode(enc, text, n, specials ? TOKENIZER_SPECIALS : 0, &ids, NULL) == 0);
			check_ids(path, &ids, want, n_want);
			CHECK_ROW(path, tokenizer_decode(tok, ids.ids, ids.n, 0, &bytes, NULL) == 0);
			if (strcmp(kinds[k], "qwen2") != 0 && strcmp(kinds[k], "prefix") != 0)
				CHECK_ROW(path, bytes.n == n && (n == 0 || memcmp(bytes.bytes, text, n) == 0));
			free(text);
			free(want);
		}
		tokenizer_encoder_destroy(&enc);
		tokenizer_destroy(&tok);
	}
	free(ids.ids);
	free(bytes.bytes);
}

/* Two megabytes of real text, where the documents the fixture was made from are installed. */
static void
test_pods(void)
{
	struct tokenizer_encoder *enc[N_KINDS];
	struct tokenizer *tok[N_KINDS];
	struct tokenizer_ids ids = {0};
	char line[512], hex[HASH_HEX_BYTES], path[256];
	size_t k, n, total = 0;
	FILE *f = fopen(GOLDEN "pod.tsv", "r");

	REQUIRE(f != NULL && fgets(line, sizeof line, f) != NULL);
	CHECK_STR(line, "file\tbytes\tgpt2\tllama3\tsmollm2\tqwen2\tprefix\n");
	for (k = 0; k < N_KINDS; k++) {
		tok[k] = load_kind(k);
		REQUIRE(tokenizer_encoder_new(&enc[k], tok[k]) == 0);
	}
	while (fgets(line, sizeof line, f) != NULL) {
		char *field = strtok(line, "\t\n");
		unsigned char *text;

		snprintf(path, sizeof path, PODS "%.100s", field);
		if ((text = read_file(path, &n)) == NULL)
			continue;
		if (strcmp(strtok(NULL, "\t\n"), hash_hex(hash_bytes(text, n), hex)) == 0) {
			for (k = 0; k < N_KINDS; k++) {
				ids.n = 0;
				CHECK_ROW(path, tokenizer_encode(enc[k], text, n, 0, &ids, NULL) == 0);
				CHECK_ROW(path, strcmp(strtok(NULL, "\t\n"), hash_hex(hash_tokens(ids.ids, ids.n), hex)) == 0);
			}
			total += n;
		}
		free(text);
	}
	fprintf(stderr, "%zu bytes of " PODS " compared%s\n", total, total == 0 ? ": perl-doc 5.36.0 is not installed" : "");
	for (k = 0; k < N_KINDS; k++) {
		tokenizer_encoder_destroy(&enc[k]);
		tokenizer_destroy(&tok[k]);
	}
	fclose(f);
	free(ids.ids);
}

static void
test_shipped(void)
{
	struct tokenizer *tok = load("share/tokenizer-4k/tokenizer.json");
	struct tokenizer_encoder *enc;
	struct tokenizer_ids ids = {0};
	struct tokenizer_bytes bytes = {0};
	struct err_note note;
	const unsigned char *p;
	unsigned char any[4096];
	size_t len, round, i;
	int32_t id = -1, bad[] = {5, 4096};
	uint32_t x = 12345;
	bool special;

	CHECK(tokenizer_vocab_size(tok) == 4096);
	CHECK(tokenizer_is_lossless(tok));
	CHECK(tokenizer_end_of_document(tok, NULL, &id, NULL) == 0 && id == 0);
	CHECK(tokenizer_end_of_document(tok, "<|endoftext|>", &id, NULL) == 0 && id == 0);
	CHECK(tokenizer_end_of_document(tok, "<eos>", &id, &note) == ERR_NOT_FOUND);
	CHECK_STR(note.place, "added_tokens");
	CHECK_STR(note.expected, "'<eos>'");
	CHECK(tokenizer_token(tok, 0, &p, &len, &special) == 0 && len == 13 && memcmp(p, "<|endoftext|>", 13) == 0 && special);
	CHECK(tokenizer_token(tok, 4096, &p, &len, NULL) == ERR_RANGE && tokenizer_token(tok, -1, &p, &len, NULL) == ERR_RANGE);
	CHECK(tokenizer_token(tok, 300, &p, &len, &special) == 0 && len > 0 && !special);
	CHECK(tokenizer_decode(tok, bad, 2, 0, &bytes, &note) == ERR_RANGE && bytes.n == 0);
	CHECK_STR(note.place, "item 1");
	CHECK_STR(note.expected, "0..4095");
	CHECK_STR(note.found, "4096");

	REQUIRE(tokenizer_encoder_new(&enc, tok) == 0);
	CHECK(tokenizer_encode(enc, "a<|endoftext|>b", 15, TOKENIZER_SPECIALS, &ids, NULL) == 0 && ids.n == 3 && ids.ids[1] == 0);
	CHECK(tokenizer_decode(tok, ids.ids, ids.n, TOKENIZER_SKIP_SPECIALS, &bytes, NULL) == 0 && bytes.n == 2 &&
	    memcmp(bytes.bytes, "ab", 2) == 0);
	ids.n = 0;
	CHECK(tokenizer_encode(enc, "a<|endoftext|>b", 15, 0, &ids, NULL) == 0 && ids.n > 3);
	for (round = 0; round < 200; round++) {		/* any bytes, all lengths up to some thousands */
		len = round * 19;
		for (i = 0; i < len; i++) {
			x = x * 1664525u + 1013904223u;
			any[i] = round % 3 == 0 ? (unsigned char)(x >> 24) : round % 3 == 1 ? (unsigned char)(0x80 | x >> 26) :
			    (unsigned char)" \n\tab\xc3\xa9\xcc\x81\xff\xe2\x80\x8d"[(x >> 24) % 14];
		}
		ids.n = bytes.n = 0;
		CHECK(tokenizer_encode(enc, any, len, 0, &ids, NULL) == 0);
		CHECK(tokenizer_decode(tok, ids.ids, ids.n, 0, &bytes, NULL) == 0);
		CHECK(bytes.n == len && (len == 0 || memcmp(bytes.bytes, any, len) == 0));
	}
	tokenizer_encoder_destroy(&enc);
	tokenizer_destroy(&tok);
	free(ids.ids);
	free(bytes.bytes);
}

/* smollm2's fixture has no token for 0xf5 and 0xff. */
static void
test_missing_bytes(void)
{
	struct tokenizer *tok = load_kind(2);
	struct tokenizer_encoder *enc;
	struct tokenizer_ids ids = {0}, same = {0};
	struct err_note note;

	CHECK(!tokenizer_is_lossless(tok));
	REQUIRE(tokenizer_encoder_new(&enc, tok) == 0);
	CHECK(tokenizer_encode(enc, "ab \xff.", 5, 0, &ids, &note) == ERR_UNSUPPORTED && ids.n == 0);
	CHECK_STR(note.place, "byte offset 3");
	CHECK_STR(note.found, "byte 0xff");
	CHECK(tokenizer_encode(enc, "ab \xff.", 5, TOKENIZER_DROP_UNKNOWN, &ids, &note) == 0);
	CHECK(tokenizer_encode(enc, "ab ", 3, 0, &same, NULL) == 0 && tokenizer_encode(enc, ".", 1, 0, &same, NULL) == 0);
	CHECK(ids.n == same.n && memcmp(ids.ids, same.ids, ids.n * sizeof ids.ids[0]) == 0);
	CHECK(tokenizer_encode(enc, "\xff", 1, TOKENIZER_DROP_UNKNOWN, &ids, NULL) == 0 && ids.n == same.n);
	tokenizer_encoder_destroy(&enc);
	tokenizer_destroy(&tok);
	free(ids.ids);
	free(same.ids);
}

/* A megabyte that is one word, one run of spaces, or marks in the worst order: must end within the test's time, and come back. */
static void
test_worst_case(void)
{
	static const char *const what[] = {"letters", "spaces", "newlines", "marks", "invalid"};
	const size_t n = 1 << 20;
	unsigned char *text = malloc(n);
	struct tokenizer_ids ids = {0};
	struct tokenizer_bytes bytes = {0};
	size_t k, w, i;

	REQUIRE(text != NULL);
	for (k = 0; k < 4; k++) {
		struct tokenizer *tok = load_kind(k);
		struct tokenizer_encoder *enc;

		REQUIRE(tokenizer_encoder_new(&enc, tok) == 0);
		for (w = 0; w < 5; w++) {
			for (i = 0; i < n; i += 2) {
				text[i] = w == 0 ? 'a' : w == 1 ? ' ' : w == 2 ? '\n' : w == 3 ? 0xcc : 0xfe;
				text[i + 1] = w == 0 ? (unsigned char)('a' + i % 3) : w == 1 ? ' ' : w == 2 ? '\n' :
				    w == 3 ? (i % 4 == 0 ? 0x81 : 0xa7) : 0xfe;	/* U+0301 (class 230), U+0327 (202) */
			}
			ids.n = bytes.n = 0;
			CHECK_ROW(what[w], tokenizer_encode(enc, text, n, 0, &ids, NULL) == 0);
			CHECK_ROW(what[w], tokenizer_decode(tok, ids.ids, ids.n, 0, &bytes, NULL) == 0 && bytes.n == n);
			CHECK_ROW(what[w], (k == 3 && w == 3) == (memcmp(bytes.bytes, text, n) != 0));
		}
		tokenizer_encoder_destroy(&enc);
		tokenizer_destroy(&tok);
	}
	free(text);
	free(ids.ids);
	free(bytes.bytes);
}

static size_t
put_utf8(unsigned char *p, uint32_t c)
{
	size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4, i;

	for (i = n; i-- > 1; c >>= 6)
		p[i] = (unsigned char)(0x80 | (c & 0x3f));
	p[0] = (unsigned char)(n == 2 ? 0xc0 | c : n == 3 ? 0xe0 | c : 0xf0 | c);
	return n;
}

/* Letter, number, white space or none of these, of every code point that Unicode 16 has in such a class: merges cross the seam. */
static void
test_classes(void)
{
	struct tokenizer *tok = load(GOLDEN "seams.json");
	struct tokenizer_encoder *enc;
	struct tokenizer_ids ids = {0};
	unsigned char *text = malloc(0x32400 * 18), *want;
	char hex[HASH_HEX_BYTES];
	size_t n = 0, n_want = 0, k;
	uint32_t c;

	REQUIRE(text != NULL && tokenizer_encoder_new(&enc, tok) == 0);
	for (c = 0x80; c < 0x32400; c++) {
		for (k = 0; k < 3 && !(c >= 0xd800 && c < 0xe000); k++) {
			n += put_utf8(text + n, c);
			text[n++] = (unsigned char)"a1!"[k];
			text[n++] = ' ';
		}
	}
	REQUIRE((want = read_file(GOLDEN "seams.hash", &n_want)) != NULL && n_want == HASH_HEX_BYTES);
	want[n_want - 1] = '\0';
	CHECK(tokenizer_encode(enc, text, n, 0, &ids, NULL) == 0);
	CHECK_STR(hash_hex(hash_tokens(ids.ids, ids.n), hex), (const char *)want);
	tokenizer_encoder_destroy(&enc);
	tokenizer_destroy(&tok);
	free(ids.ids);
	free(text);
	free(want);
}

#define HEAD "{\"version\":\"1.0\",\"added_tokens\":"
#define MID ",\"normalizer\":null,\"pre_tokenizer\":"
#define BL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"
#define VOC "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},"
#define MOD ",\"model\":{\"type\":\"BPE\","
#define TAIL "\"merges\":[\"a b\"]}}"
#define SPLIT(re) HEAD "[]" MID "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" re \
	"\"},\"behavior\":\"Isolated\",\"invert\":false}," BL "]}" MOD VOC TAIL
#define STRING(text) HEAD "[]" MID "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"String\":\"" text \
	"\"},\"behavior\":\"Isolated\",\"invert\":false}," BL "]}" MOD VOC TAIL
#define ADDED(list) HEAD list MID BL MOD VOC TAIL
#define MODEL(rest) HEAD "[]" MID BL MOD rest "}}"
#define SPECIAL(id, content) "{\"id\":" id ",\"content\":\"" content "\",\"special\":true}"

static void
test_bad_files(void)
{
	static const struct {
		const char *what, *text;
		int rc;
		const char *place;
	} rows[] = {
		{"good", ADDED("[]"), 0, ""},
		{"good, added", ADDED("[" SPECIAL("3", "<x>") "]"), 0, ""},
		{"good, arrays", MODEL(VOC "\"merges\":[[\"a\",\"b\"]]"), 0, ""},
		{"good, pattern", SPLIT("(?i:'s)|[^a-z\\\\p{L}]?\\\\p{N}{1,3}|\\\\s+(?!\\\\S)|\\\\u3040+"), 0, ""},
		{"good, a string of all that is special in patterns", STRING("^$.|?*+()[]{}\\\\-/ &&#~"), 0, ""},
		{"empty string", STRING(""), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern"},
		{"added tokens not in order", ADDED("[" SPECIAL("4", "<y>") "," SPECIAL("3", "<x>") "]"), ERR_FORMAT, "added_tokens[0].id"},
		{"empty", "", ERR_FORMAT, "line 1 column 0 (byte 0)"},
		{"cut", "{\"version\":\"1.0\",", ERR_FORMAT, "line 1 column 17 (byte 17)"},
		{"not an object", "[1]", ERR_FORMAT, "the whole"},
		{"version", "{\"version\":\"2.0\"}", ERR_VERSION, "version"},
		{"no model", "{}", ERR_FORMAT, "model"},
		{"added tokens an object", ADDED("{}"), ERR_FORMAT, "added_tokens"},
		{"added token a string", ADDED("[\"x\"]"), ERR_FORMAT, "added_tokens[0]"},
		{"added token without content", ADDED("[{\"id\":3}]"), ERR_FORMAT, "added_tokens[0].content"},
		{"added token without id", ADDED("[{\"content\":\"x\"}]"), ERR_FORMAT, "added_tokens[0].id"},
		{"added token, flag a number", ADDED("[{\"id\":3,\"content\":\"x\",\"lstrip\":1}]"), ERR_FORMAT, "added_tokens[0].lstrip"},
		{"added token, single_word", ADDED("[{\"id\":3,\"content\":\"x\",\"single_word\":true}]"), ERR_UNSUPPORTED,
		    "added_tokens[0].single_word"},
		{"added token, taken id", ADDED("[" SPECIAL("2", "<x>") "]"), ERR_FORMAT, "added_tokens[0].id"},
		{"added token, hole", ADDED("[" SPECIAL("4", "<x>") "]"), ERR_FORMAT, "added_tokens[0].id"},
		{"added token, other id than in vocab", ADDED("[" SPECIAL("3", "ab") "]"), ERR_FORMAT, "added_tokens[0].id"},
		{"added token, huge id", ADDED("[" SPECIAL("99999999999", "<x>") "]"), ERR_RANGE, "added_tokens[0].id"},
		{"added token twice", ADDED("[" SPECIAL("2", "ab") "," SPECIAL("2", "ab") "]"), ERR_FORMAT, "added_tokens[1]"},
		{"added token, empty", ADDED("[" SPECIAL("3", "") "]"), ERR_RANGE, "added_tokens[0].content"},
		{"unigram", HEAD "[]" MID BL ",\"model\":{\"type\":\"Unigram\"}}", ERR_UNSUPPORTED, "model.type"},
		{"dropout", MODEL("\"dropout\":0.1," VOC "\"merges\":[]"), ERR_UNSUPPORTED, "model.dropout"},
		{"prefix", MODEL("\"continuing_subword_prefix\":\"##\"," VOC "\"merges\":[]"), ERR_UNSUPPORTED, "model.continuing_subword_prefix"},
		{"byte fallback", MODEL("\"byte_fallback\":true," VOC "\"merges\":[]"), ERR_UNSUPPORTED, "model.byte_fallback"},
		{"vocab an array", MODEL("\"vocab\":[],\"merges\":[]"), ERR_FORMAT, "model.vocab"},
		{"vocab empty", MODEL("\"vocab\":{},\"merges\":[]"), ERR_FORMAT, "model.vocab"},
		{"id a string", MODEL("\"vocab\":{\"a\":\"0\"},\"merges\":[]"), ERR_FORMAT, "model.vocab['a']"},
		{"id negative", MODEL("\"vocab\":{\"a\":-1},\"merges\":[]"), ERR_RANGE, "model.vocab['a']"},
		{"id over the cap", MODEL("\"vocab\":{\"a\":4194304},\"merges\":[]"), ERR_RANGE, "model.vocab['a']"},
		{"id twice", MODEL("\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), ERR_FORMAT, "model.vocab['b']"},
		{"hole", MODEL("\"vocab\":{\"a\":0,\"b\":2},\"merges\":[]"), ERR_FORMAT, "model.vocab"},
		{"merges missing", MODEL("\"vocab\":{\"a\":0}"), ERR_FORMAT, "model.merges"},
		{"merge a number", MODEL(VOC "\"merges\":[1]"), ERR_FORMAT, "model.merges[0]"},
		{"merge of one", MODEL(VOC "\"merges\":[\"ab\"]"), ERR_FORMAT, "model.merges[0]"},
		{"merge of three", MODEL(VOC "\"merges\":[\"a b\",\"a b a\"]"), ERR_FORMAT, "model.merges[1]"},
		{"merge of unknown left", MODEL(VOC "\"merges\":[\"a b\",\"x b\"]"), ERR_FORMAT, "model.merges[1]"},
		{"merge of unknown right", MODEL(VOC "\"merges\":[[\"a\",\"x\"]]"), ERR_FORMAT, "model.merges[0]"},
		{"merge to unknown", MODEL(VOC "\"merges\":[\"b a\"]"), ERR_FORMAT, "model.merges[0]"},
		{"no pre-tokenizer", HEAD "[]" MID "null" MOD VOC TAIL, ERR_UNSUPPORTED, "pre_tokenizer"},
		{"whitespace", HEAD "[]" MID "{\"type\":\"Whitespace\"}" MOD VOC TAIL, ERR_UNSUPPORTED, "pre_tokenizer.type"},
		{"after ByteLevel", HEAD "[]" MID "{\"type\":\"Sequence\",\"pretokenizers\":[" BL "," BL "]}" MOD VOC TAIL, ERR_UNSUPPORTED,
		    "pre_tokenizer.pretokenizers[1]"},
		{"only digits", HEAD "[]" MID "{\"type\":\"Digits\"}" MOD VOC TAIL, ERR_UNSUPPORTED, "pre_tokenizer"},
		{"anchor", SPLIT("^a"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"\\h, a hex digit in one and a space in the other", SPLIT("\\\\h+"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"script", SPLIT("\\\\p{Han}+"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"intersection", SPLIT("[a&&b]"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"may be empty", SPLIT("a*"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"open bracket", SPLIT("(a"), ERR_FORMAT, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"normaliser", HEAD "[],\"normalizer\":{\"type\":\"NFKC\"},\"pre_tokenizer\":" BL MOD VOC TAIL, ERR_UNSUPPORTED, "normalizer.type"},
		{"decoder", "{\"decoder\":{\"type\":\"WordPiece\"}}", ERR_UNSUPPORTED, "decoder.type"},
	};
	size_t i;

	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct tokenizer *tok = (struct tokenizer *)&tok;
		struct err_note note = {.place = "left over"};
		char line[1400];
		int rc = tokenizer_parse(&tok, rows[i].text, strlen(rows[i].text), "t.json", &note);

		CHECK_ROW(rows[i].what, rc == rows[i].rc);
		CHECK_ROW(rows[i].what, (tok == NULL) == (rc != 0));
		CHECK_ROW(rows[i].what, rc == 0 || (strcmp(note.name, "t.json") == 0 && note.expected[0] != '\0' && note.found[0] != '\0'));
		CHECK_ROW(rows[i].what, rc == 0 || strcmp(note.place, rows[i].place) == 0);
		if (rc != rows[i].rc || (rc != 0 && strcmp(note.place, rows[i].place) != 0))
			fprintf(stderr, "  %s\n", err_note_str(&note, rc, line, sizeof line));
		if (rc == 0)
			tokenizer_destroy(&tok);
	}
}

static struct hash128
fingerprint_of(const char *text)
{
	struct tokenizer *tok;
	struct hash128 h;

	REQUIRE(tokenizer_parse(&tok, text, strlen(text), "t.json", NULL) == 0);
	h = tokenizer_fingerprint(tok);
	tokenizer_destroy(&tok);
	return h;
}

static void
test_fingerprint(void)
{
	struct hash128 h = fingerprint_of(ADDED("[]"));

	CHECK(hash_equal(h, fingerprint_of("{ \"model\": {\"merges\": [[\"a\", \"b\"]],\n\"vocab\": {\"ab\": 2, \"b\": 1, \"a\": 0}},"
	    "\"truncation\": {}, \"pre_tokenizer\": " BL "}")));
	CHECK(!hash_equal(h, fingerprint_of(ADDED("[" SPECIAL("3", "<x>") "]"))));
	CHECK(!hash_equal(h, fingerprint_of(MODEL(VOC "\"merges\":[]"))));
	CHECK(!hash_equal(h, fingerprint_of(MODEL("\"ignore_merges\":true," VOC "\"merges\":[\"a b\"]"))));
	CHECK(!hash_equal(h, fingerprint_of(MODEL("\"vocab\":{\"a\":1,\"b\":0,\"ab\":2},\"merges\":[\"a b\"]"))));
	CHECK(!hash_equal(h, fingerprint_of(HEAD "[],\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":" BL MOD VOC TAIL)));
	CHECK(!hash_equal(fingerprint_of(SPLIT("a")), fingerprint_of(SPLIT("b"))));
	CHECK(!hash_equal(fingerprint_of(ADDED("[" SPECIAL("3", "<x>") "]")),
	    fingerprint_of(ADDED("[{\"id\":3,\"content\":\"<x>\",\"special\":false,\"normalized\":false}]"))));
}

/* A pattern that is a string means its characters, and the words of its split are not merged with others. */
static void
test_string(void)
{
	static const char text[] = STRING("b");
	struct tokenizer_encoder *enc;
	struct tokenizer_ids ids = {0};
	struct tokenizer *tok;

	CHECK(hash_equal(fingerprint_of(STRING("a.b")), fingerprint_of(SPLIT("a\\\\.b"))));
	CHECK(!hash_equal(fingerprint_of(STRING("a.b")), fingerprint_of(SPLIT("a.b"))));
	REQUIRE(tokenizer_parse(&tok, text, strlen(text), "t.json", NULL) == 0 && tokenizer_encoder_new(&enc, tok) == 0);
	CHECK(tokenizer_encode(enc, "ab", 2, 0, &ids, NULL) == 0 && ids.n == 2 && ids.ids[0] == 0 && ids.ids[1] == 1);
	tokenizer_encoder_destroy(&enc);
	tokenizer_destroy(&tok);
	free(ids.ids);
	/* The first line of merges.txt in the list changes nothing. */
	CHECK(hash_equal(fingerprint_of(MODEL(VOC "\"merges\":[\"#version: 0.2\",\"a b\"]")), fingerprint_of(MODEL(VOC "\"merges\":[\"a b\"]"))));
}

static void
write_file(const char *path, const char *text, long size)
{
	FILE *f = fopen(path, "wb");

	REQUIRE(f != NULL && fwrite(text, 1, strlen(text), f) == strlen(text) && fclose(f) == 0);
	REQUIRE(size == 0 || truncate(path, size) == 0);
}

/* Files that cannot be loaded are compared by their bytes; what is no tokenizer.json at all is an error. */
static void
test_identify(void)
{
	static const char unigram[] = HEAD "[]" MID BL ",\"model\":{\"type\":\"Unigram\"}}\n";
	static const struct {
		const char *text, *found;
	} bad[] = {
		{"", "an empty file"}, {"{\"version\":\"1.0\",", "does not end"}, {"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"},
		{"<!DOCTYPE html>", "HTML"}, {"[]", "another kind"},
	};
	char path[] = "/tmp/salt_tokenizer.XXXXXX", why[600];
	struct hash128 id, other;
	struct err_note note;
	int fd = mkstemp(path);

	REQUIRE(fd >= 0 && close(fd) == 0);
	write_file(path, ADDED("[]"), 0);
	CHECK(tokenizer_identify(path, &id, why, sizeof(why), &note) == 0 && why[0] == '\0' && hash_equal(id, fingerprint_of(ADDED("[]"))));
	write_file(path, unigram, 0);
	CHECK(tokenizer_identify(path, &id, why, sizeof(why), &note) == 0 && strstr(why, "model.type: expected BPE, found Unigram") != NULL);
	CHECK(hash_equal(id, hash_bytes(unigram, strlen(unigram))));
	write_file(path, HEAD "[]" MID BL ",\"model\":{\"type\":\"WordPiece\"}}", 0);
	CHECK(tokenizer_identify(path, &other, why, sizeof(why), &note) == 0 && !hash_equal(id, other));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		write_file(path, bad[i].text, 0);
		CHECK_ROW(bad[i].found, tokenizer_identify(path, &id, why, sizeof(why), &note) == ERR_FORMAT);
		CHECK_ROW(bad[i].found, strstr(note.found, bad[i].found) != NULL && strstr(note.name, path) != NULL);
	}
	/* Over the limit. */
	write_file(path, unigram, (long)TOKENIZER_MAX_FILE_BYTES + 1);
	CHECK(tokenizer_identify(path, &id, why, sizeof(why), &note) == ERR_FORMAT);		/* ends with NUL */
	REQUIRE((fd = open(path, O_WRONLY)) >= 0 && pwrite(fd, "}", 1, (off_t)TOKENIZER_MAX_FILE_BYTES) == 1 && close(fd) == 0);
	CHECK(tokenizer_identify(path, &id, why, sizeof(why), &note) == 0 && strstr(why, "at most 268435456 bytes") != NULL);
	REQUIRE(unlink(path) == 0);
	CHECK(tokenizer_identify(path, &id, why, sizeof(why), &note) == ENOENT);
}

int
main(void)
{
	test_bad_files();
	test_string();
	test_identify();
	test_fingerprint();
	test_golden();
	test_classes();
	test_pods();
	test_shipped();
	test_missing_bytes();
	test_worst_case();
	return check_done();
}
