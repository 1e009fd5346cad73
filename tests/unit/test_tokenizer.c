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

/* Split that keeps only its matches loses nothing where every character has one; this is told where it can be proved. */
static void
test_lossless(void)
{
	static const struct {
		const char *pattern;
		bool lossless;
	} rows[] = {
		{"a|[^a]", true}, {"[^\\\\r\\\\n\\\\p{L}]?+\\\\p{L}+| ?[^\\\\s\\\\p{L}]++|\\\\s+(?!\\\\S)|\\\\s", true}, {"(?:a|b)+|[^ab]", true}, {"[^a]", false},
		{"ab|[^a]", false}, {"a(?=b)|[^a]", false}, {"\\\\ba|[^a]", false}, {"a$|[^a]", false}, {"(?:ab)?+a|[^a]", false}, {"(?>ab|a)|[^a]", false},
	};
	size_t n;
	unsigned char *file = read_file(GOLDEN "kinds_model.json", &n);
	const char *model = strstr((const char *)file, ",\"model\":");
	char *whole = malloc(1 << 20);

	REQUIRE(model != NULL && whole != NULL);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct tokenizer *tok;

		snprintf(whole, 1 << 20, "{\"version\":\"1.0\",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},"
		    "\"behavior\":\"Removed\",\"invert\":true},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}%s", rows[i].pattern, model);
		REQUIRE(tokenizer_parse(&tok, whole, strlen(whole), "t.json", NULL) == 0);
		CHECK_ROW(rows[i].pattern, tokenizer_is_lossless(tok) == rows[i].lossless);
		tokenizer_destroy(&tok);
	}
	free(whole);
	free(file);
}

/* The columns of kinds.tsv. */
static const char *const kind_texts[] = {"texts/added", "texts/all", "texts/broken", "texts/code", "texts/empty", "texts/hand", "texts/lone",
    "texts/long", "texts/marks", "texts/points", "texts/spaces", "kinds_text", "kinds_text"};
#define N_KIND_TEXTS 13

/* Every kind of step, pattern and added token around one model, whose merges cross every border. */
static void
test_kinds(void)
{
	size_t n, n_text[N_KIND_TEXTS], n_rows = 0, i;
	unsigned char *text[N_KIND_TEXTS], *file = read_file(GOLDEN "kinds_model.json", &n);
	FILE *kinds_txt = fopen(GOLDEN "kinds.txt", "r"), *hashes = fopen(GOLDEN "kinds.tsv", "r");
	static char steps[16384], row[1024];
	char path[256], hex[HASH_HEX_BYTES], *whole = malloc(1 << 20);
	const char *model = strstr((const char *)file, ",\"model\":");
	struct tokenizer_ids ids = {0};
	struct tokenizer_bytes bytes = {0};

	REQUIRE(kinds_txt != NULL && hashes != NULL && model != NULL && fgets(row, sizeof row, hashes) != NULL);
	for (i = 0; i < N_KIND_TEXTS; i++) {
		snprintf(path, sizeof path, GOLDEN "%s.txt", kind_texts[i]);
		REQUIRE((text[i] = read_file(path, &n_text[i])) != NULL);
	}
	for (; fgets(steps, sizeof steps, kinds_txt) != NULL && fgets(row, sizeof row, hashes) != NULL; n_rows++) {
		char *tab = strchr(steps, '\t'), *name = strtok(row, "\t");
		struct tokenizer_encoder *enc;
		struct tokenizer *tok;
		struct err_note note = {0};

		REQUIRE(tab != NULL && strncmp(steps, name, (size_t)(tab - steps)) == 0);
		tab[strlen(tab) - 1] = '\0';
		snprintf(whole, 1 << 20, "{\"version\":\"1.0\",%s%s", tab + 1, model);
		if (tokenizer_parse(&tok, whole, strlen(whole), name, &note) != 0) {
			CHECK_ROW(name, !"loads");
			fprintf(stderr, "  %s: %s\n", note.place, note.found);
			continue;
		}
		REQUIRE(tokenizer_encoder_new(&enc, tok) == 0);
		for (i = 0; i < N_KIND_TEXTS; i++) {
			const char *want = strtok(NULL, "\t\n");

			ids.n = 0;
			CHECK_ROW(name, tokenizer_encode(enc, text[i], n_text[i], i == N_KIND_TEXTS - 1 ? TOKENIZER_SPECIALS : 0, &ids, NULL) == 0);
			CHECK_ROW(name, want != NULL && strcmp(want, hash_hex(hash_tokens(ids.ids, ids.n), hex)) == 0);
			if (!tokenizer_is_lossless(tok) || i == N_KIND_TEXTS - 1)
				continue;
			bytes.n = 0;
			CHECK_ROW(name, tokenizer_decode(tok, ids.ids, ids.n, 0, &bytes, NULL) == 0 && bytes.n == n_text[i] &&
			    (bytes.n == 0 || memcmp(bytes.bytes, text[i], bytes.n) == 0));
		}
		tokenizer_encoder_destroy(&enc);
		tokenizer_destroy(&tok);
	}
	CHECK(n_rows > 70 && feof(kinds_txt));
	for (i = 0; i < N_KIND_TEXTS; i++)
		free(text[i]);
	fclose(kinds_txt);
	fclose(hashes);
	free(file);
	free(whole);
	free(ids.ids);
	free(bytes.bytes);
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
	for (round = 0; round < 80; round++) {		/* any bytes, all lengths up to some thousands */
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

enum { N_TOKENS = 90, N_MERGES = 120 };

/*
 * The definition: of all pairs that are merges the one of the lowest rank, the leftmost of equals, again and again. rank: of a pair,
 * N_MERGES: it is none. Returns the number left.
 */
static size_t
merge_by_definition(const int (*merge)[3], int (*rank)[N_TOKENS], int *ids, size_t n)
{
	for (;;) {
		int best = N_MERGES;
		size_t at = 0, i;

		for (i = 0; i + 1 < n; i++) {
			if (rank[ids[i]][ids[i + 1]] < best) {
				best = rank[ids[i]][ids[i + 1]];
				at = i;
			}
		}
		if (best == N_MERGES)
			return n;
		ids[at] = merge[best][2];
		memmove(ids + at + 1, ids + at + 2, (--n - at - 1) * sizeof ids[0]);
	}
}

/* Long words, some of several windows, merges in any order, several for a token: it may be made of ones that are learnt after it. */
static void
test_merge_order(void)
{
	enum { TOKEN_BYTES = 6, WORD = 9000, MOST = 60 };
	char token[MOST + 1][TOKEN_BYTES + 1] = {"a", "b"}, json[32768], word[WORD + 1];
	int merge[N_MERGES][3], rank[N_TOKENS][N_TOKENS], want[WORD];
	struct tokenizer_ids ids = {0};
	struct err_note note;
	uint64_t x = 1;
	size_t round, tries, i, k, n, len, n_tokens, n_merges;

#define NEXT(n) ((x = x * UINT64_C(6364136223846793005) + 1442695040888963407) >> 33) % (n)
	for (round = 0; round < 80; round++) {
		struct tokenizer *tok;
		struct tokenizer_encoder *enc;

		for (tries = 0, i = 0, n = 2; tries < 5000 && i < N_MERGES; tries++) {
			size_t a = NEXT(n), b = NEXT(n), n_a = strlen(token[a]), n_b = strlen(token[b]);

			if (n_a + n_b > TOKEN_BYTES)
				continue;
			memcpy(token[n], token[a], n_a);
			memcpy(token[n] + n_a, token[b], n_b + 1);
			merge[i][0] = (int)a;
			merge[i][1] = (int)b;
			for (k = 0; strcmp(token[k], token[n]) != 0; k++)
				;
			merge[i][2] = (int)k;
			if (k == MOST)
				continue;
			n += k == n;
			for (k = 0; merge[k][0] != merge[i][0] || merge[k][1] != merge[i][1]; k++)
				;
			i += k == i;
		}
		n_merges = i;
		for (i = n_merges - 1; i > 0 && round > 0; i--) {		/* round 0: as learnt */
			int swap[3];

			k = NEXT(i + 1);
			memcpy(swap, merge[i], sizeof swap);
			memcpy(merge[i], merge[k], sizeof swap);
			memcpy(merge[k], swap, sizeof swap);
		}
		n_tokens = n;
		n = (size_t)snprintf(json, sizeof json, "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
		    "\"use_regex\":false},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{");
		for (i = 0; i < n_tokens; i++)
			n += (size_t)snprintf(json + n, sizeof json - n, "%s\"%s\":%zu", i > 0 ? "," : "", token[i], i);
		n += (size_t)snprintf(json + n, sizeof json - n, "},\"merges\":[");
		for (i = 0; i < n_merges; i++)
			n += (size_t)snprintf(json + n, sizeof json - n, "%s[\"%s\",\"%s\"]", i > 0 ? "," : "", token[merge[i][0]],
			    token[merge[i][1]]);
		n += (size_t)snprintf(json + n, sizeof json - n, "]}}");
		REQUIRE(tokenizer_parse(&tok, json, n, "order", &note) == 0 && tokenizer_encoder_new(&enc, tok) == 0);
		len = round % 4 < 2 ? 300 : WORD;
		for (i = 0; i < len; i++) {
			word[i] = round % 8 == 3 && i < len / 2 ? 'a' : "ab"[NEXT(2)];
			want[i] = word[i] - 'a';
		}
		for (i = 0; i < N_TOKENS * N_TOKENS; i++)
			rank[i / N_TOKENS][i % N_TOKENS] = N_MERGES;
		for (i = 0; i < n_merges; i++)
			rank[merge[i][0]][merge[i][1]] = (int)i;
		n = merge_by_definition((const int (*)[3])merge, rank, want, len);
		ids.n = 0;
		CHECK(tokenizer_encode(enc, word, len, 0, &ids, &note) == 0);
		CHECK(ids.n == n && memcmp(ids.ids, want, n * sizeof want[0]) == 0);
		tokenizer_encoder_destroy(&enc);
		tokenizer_destroy(&tok);
	}
#undef NEXT
	free(ids.ids);
}

/*
 * 01, 12 and so on to the end of the alphabet, the last first: where the alphabet is cut within, all of its pairs are others. So the end of
 * a window changes more tokens than are dropped there.
 */
static void
test_merge_chain(void)
{
	enum { LETTERS = 43, WORD = 9000 };
	char json[4096], word[WORD];
	int merge[LETTERS - 1][3], rank[N_TOKENS][N_TOKENS], want[WORD];
	struct tokenizer_ids ids = {0};
	struct tokenizer_encoder *enc;
	struct tokenizer *tok;
	size_t n, i, offset;

	n = (size_t)snprintf(json, sizeof json, "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
	    "\"use_regex\":false},\"model\":{\"type\":\"BPE\",\"vocab\":{");
	for (i = 0; i < LETTERS; i++)
		n += (size_t)snprintf(json + n, sizeof json - n, "\"%c\":%zu,", (int)('0' + i), i);
	for (i = 0; i + 1 < LETTERS; i++)
		n += (size_t)snprintf(json + n, sizeof json - n, "%s\"%c%c\":%zu", i > 0 ? "," : "", (int)('0' + i), (int)('1' + i), LETTERS + i);
	n += (size_t)snprintf(json + n, sizeof json - n, "},\"merges\":[");
	for (i = 0; i < N_TOKENS * N_TOKENS; i++)
		rank[i / N_TOKENS][i % N_TOKENS] = N_MERGES;
	for (i = 0; i + 1 < LETTERS; i++) {
		int left = (int)(LETTERS - 2 - i);

		n += (size_t)snprintf(json + n, sizeof json - n, "%s[\"%c\",\"%c\"]", i > 0 ? "," : "", '0' + left, '1' + left);
		memcpy(merge[i], (int[]){left, left + 1, LETTERS + left}, sizeof merge[i]);
		rank[left][left + 1] = (int)i;
	}
	snprintf(json + n, sizeof json - n, "]}}");
	REQUIRE(tokenizer_parse(&tok, json, strlen(json), "chain", NULL) == 0 && tokenizer_encoder_new(&enc, tok) == 0);
	for (offset = 0; offset < LETTERS; offset++) {
		for (i = 0; i < WORD; i++) {
			want[i] = (int)((i + offset) % LETTERS);
			word[i] = (char)('0' + want[i]);
		}
		n = merge_by_definition((const int (*)[3])merge, rank, want, WORD);
		ids.n = 0;
		CHECK(tokenizer_encode(enc, word, WORD, 0, &ids, NULL) == 0);
		CHECK(ids.n == n && memcmp(ids.ids, want, n * sizeof want[0]) == 0);
	}
	tokenizer_encoder_destroy(&enc);
	tokenizer_destroy(&tok);
	free(ids.ids);
}

/* A byte token that merges make too, from its name: the first of three becomes one last, and still is merged first. Ids of tokenizers 0.23.3. */
static void
test_merge_byte_token(void)
{
	static const char json[] = "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"<0x41>\":0,\"<\":1,\"0\":2,\"x\":3,"
	    "\"4\":4,\"1\":5,\">\":6,\"<0\":7,\"<0x\":8,\"<0x4\":9,\"<0x41\":10,\"<0x41><0x41>\":11,\"z\":12},"
	    "\"merges\":[\"< 0\",\"<0 x\",\"<0x 4\",\"<0x4 1\",\"<0x41 >\",\"<0x41> <0x41>\"]}}";
	static const char text[] = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz<0x41>AA";
	struct tokenizer_ids ids = {0};
	struct tokenizer_encoder *enc;
	struct tokenizer *tok;

	REQUIRE(tokenizer_parse(&tok, json, strlen(json), "byte token", NULL) == 0 && tokenizer_encoder_new(&enc, tok) == 0);
	CHECK(tokenizer_encode(enc, text, strlen(text), 0, &ids, NULL) == 0);
	CHECK(ids.n == 42 && ids.ids[39] == 12 && ids.ids[40] == 11 && ids.ids[41] == 0);
	tokenizer_encoder_destroy(&enc);
	tokenizer_destroy(&tok);
	free(ids.ids);
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
#define BEHAVIOR(name, invert) HEAD "[]" MID "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"}," \
	"\"behavior\":\"" name "\",\"invert\":" invert "}," BL "]}" MOD VOC TAIL
#define ADDED(list) HEAD list MID BL MOD VOC TAIL
#define MODEL(rest) HEAD "[]" MID BL MOD rest "}}"
#define UNIGRAM(list, unk) HEAD "[]" MID "null,\"model\":{\"type\":\"Unigram\",\"vocab\":" list "," unk "}}"
#define METASPACE(rest) HEAD "[]" MID "{\"type\":\"Metaspace\"," rest "}" MOD VOC TAIL
#define PRECOMPILED(map) HEAD "[],\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"" map "\"},\"pre_tokenizer\":null" MOD VOC TAIL
#define DECODER(decoder) HEAD "[],\"decoder\":" decoder ",\"pre_tokenizer\":null" MOD VOC TAIL
#define REPLACE(from, to) "{\"type\":\"Replace\",\"pattern\":{\"String\":\"" from "\"},\"content\":\"" to "\"}"
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
		{"good, added tokens in any order", ADDED("[" SPECIAL("4", "<y>") "," SPECIAL("3", "<x>") "]"), 0, ""},
		{"good, single_word", ADDED("[{\"id\":3,\"content\":\"x\",\"single_word\":true}]"), 0, ""},
		{"good, a hole", MODEL("\"vocab\":{\"a\":0,\"b\":2},\"merges\":[]"), 0, ""},
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
		{"added token, single_word a number", ADDED("[{\"id\":3,\"content\":\"x\",\"single_word\":1}]"), ERR_FORMAT,
		    "added_tokens[0].single_word"},
		{"added token, an id of the vocabulary, which has a hole", HEAD "[" SPECIAL("3", "<x>") "]" MID BL MOD "\"vocab\":{\"a\":0,\"b\":2},\"merges\":[]}}",
		    ERR_UNSUPPORTED, "added_tokens[0].id"},
		{"added tokens, equal once normalised", HEAD "[{\"id\":3,\"content\":\"X\"},{\"id\":4,\"content\":\"x\"}],\"normalizer\":{\"type\":\"Lowercase\"},"
		    "\"pre_tokenizer\":" BL MOD VOC TAIL, ERR_FORMAT, "added_tokens"},
		{"added token, nothing once normalised", HEAD "[{\"id\":3,\"content\":\" \"}],\"normalizer\":{\"type\":\"Strip\",\"strip_left\":true,"
		    "\"strip_right\":true},\"pre_tokenizer\":" BL MOD VOC TAIL, ERR_UNSUPPORTED, "added_tokens[0].content"},
		{"added token, huge id", ADDED("[" SPECIAL("99999999999", "<x>") "]"), ERR_RANGE, "added_tokens[0].id"},
		{"added token twice", ADDED("[" SPECIAL("2", "ab") "," SPECIAL("2", "ab") "]"), ERR_FORMAT, "added_tokens[1]"},
		{"added token, empty", ADDED("[" SPECIAL("3", "") "]"), ERR_RANGE, "added_tokens[0].content"},
		{"word pieces", HEAD "[]" MID BL ",\"model\":{\"type\":\"WordPiece\"}}", ERR_UNSUPPORTED, "model.type"},
		{"good, unigram", UNIGRAM("[[\"a\",0],[\"b\",-1.5],[\"b\",-2]]", "\"unk_id\":0"), 0, ""},
		{"unigram, no list", UNIGRAM("{}", "\"unk_id\":0"), ERR_FORMAT, "model.vocab"},
		{"unigram, an empty list", UNIGRAM("[]", "\"unk_id\":null"), ERR_FORMAT, "model.vocab"},
		{"unigram, no score", UNIGRAM("[[\"a\",0],[\"b\"]]", "\"unk_id\":0"), ERR_FORMAT, "model.vocab[1]"},
		{"unigram, a score of text", UNIGRAM("[[\"a\",\"0\"]]", "\"unk_id\":0"), ERR_FORMAT, "model.vocab[0]"},
		{"unigram, unk_id too large", UNIGRAM("[[\"a\",0]]", "\"unk_id\":1"), ERR_FORMAT, "model.unk_id"},
		{"unigram, unk_id negative", UNIGRAM("[[\"a\",0]]", "\"unk_id\":-1"), ERR_FORMAT, "model.unk_id"},
		{"unigram of bytes", HEAD "[]" MID BL ",\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}", ERR_UNSUPPORTED, "pre_tokenizer"},
		{"unk_token unknown", HEAD "[]" MID "null" MOD VOC "\"unk_token\":\"c\"," TAIL, ERR_FORMAT, "model.unk_token"},
		{"metaspace, two characters", METASPACE("\"replacement\":\"ab\""), ERR_FORMAT, "pre_tokenizer.replacement"},
		{"metaspace, no character", METASPACE("\"replacement\":\"\""), ERR_FORMAT, "pre_tokenizer.replacement"},
		{"metaspace, an unknown scheme", METASPACE("\"replacement\":\"_\",\"prepend_scheme\":\"last\""), ERR_FORMAT, "pre_tokenizer.prepend_scheme"},
		{"metaspace, flags that differ", METASPACE("\"replacement\":\"_\",\"add_prefix_space\":false,\"prepend_scheme\":\"first\""), ERR_FORMAT,
		    "pre_tokenizer.prepend_scheme"},
		{"prepend, a number", HEAD "[],\"normalizer\":{\"type\":\"Prepend\",\"prepend\":1},\"pre_tokenizer\":null" MOD VOC TAIL, ERR_FORMAT, "normalizer.prepend"},
		{"good, a table of nothing", PRECOMPILED("BAAAAAAAAAA="), 0, ""},
		{"a table that is a number", HEAD "[],\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":1},\"pre_tokenizer\":null" MOD VOC TAIL,
		    ERR_FORMAT, "normalizer.precompiled_charsmap"},
		{"a table, not base64", PRECOMPILED("BAAAAAAA*AA="), ERR_FORMAT, "normalizer.precompiled_charsmap"},
		{"a table, not whole base64", PRECOMPILED("BAAAAAAAAAA"), ERR_FORMAT, "normalizer.precompiled_charsmap"},
		{"a table, no trie", PRECOMPILED("AAAAAAAAAAA="), ERR_FORMAT, "normalizer.precompiled_charsmap"},
		{"a table, a trie longer than it", PRECOMPILED("CAAAAAAAAAA="), ERR_FORMAT, "normalizer.precompiled_charsmap"},
		{"a table, a list that is not UTF-8", PRECOMPILED("BAAAAAAAAAD/"), ERR_FORMAT, "normalizer.precompiled_charsmap"},
		{"good, decoder", DECODER("{\"type\":\"Sequence\",\"decoders\":[" REPLACE("_", " ") ",{\"type\":\"Fuse\"}]}"), 0, ""},
		{"decoder of no kind", DECODER("{\"type\":\"CTC\"}"), ERR_UNSUPPORTED, "decoder.type"},
		{"decoder in a sequence", DECODER("{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"ByteLevel\"}]}"), ERR_UNSUPPORTED,
		    "decoder.decoders[1].type"},
		{"decoder, a pattern", DECODER("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"},\"content\":\"b\"}"), ERR_UNSUPPORTED, "decoder.pattern"},
		{"decoder, replace nothing", DECODER(REPLACE("", "b")), ERR_UNSUPPORTED, "decoder"},
		{"decoder, five for one", DECODER(REPLACE("a", "bbbbb")), ERR_UNSUPPORTED, "decoder"},
		{"decoder, twice four for one", DECODER("{\"type\":\"Sequence\",\"decoders\":[" REPLACE("a", "aaaa") "," REPLACE("a", "aa") "]}"), ERR_UNSUPPORTED,
		    "decoder.decoders[1]"},
		{"decoder, strip", DECODER("{\"type\":\"Strip\",\"content\":\" \",\"start\":-1,\"stop\":0}"), ERR_FORMAT, "decoder"},
		{"dropout", MODEL("\"dropout\":0.1," VOC "\"merges\":[]"), ERR_UNSUPPORTED, "model.dropout"},
		{"prefix", MODEL("\"continuing_subword_prefix\":\"##\"," VOC "\"merges\":[]"), ERR_UNSUPPORTED, "model.continuing_subword_prefix"},
		{"byte fallback", MODEL("\"byte_fallback\":true," VOC "\"merges\":[]"), ERR_UNSUPPORTED, "model.byte_fallback"},
		{"vocab an array", MODEL("\"vocab\":[],\"merges\":[]"), ERR_FORMAT, "model.vocab"},
		{"vocab empty", MODEL("\"vocab\":{},\"merges\":[]"), ERR_FORMAT, "model.vocab"},
		{"id a string", MODEL("\"vocab\":{\"a\":\"0\"},\"merges\":[]"), ERR_FORMAT, "model.vocab['a']"},
		{"id negative", MODEL("\"vocab\":{\"a\":-1},\"merges\":[]"), ERR_RANGE, "model.vocab['a']"},
		{"id over the cap", MODEL("\"vocab\":{\"a\":4194304},\"merges\":[]"), ERR_RANGE, "model.vocab['a']"},
		{"id twice", MODEL("\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), ERR_FORMAT, "model.vocab['b']"},
		{"merges missing", MODEL("\"vocab\":{\"a\":0}"), ERR_FORMAT, "model.merges"},
		{"merge a number", MODEL(VOC "\"merges\":[1]"), ERR_FORMAT, "model.merges[0]"},
		{"merge of one", MODEL(VOC "\"merges\":[\"ab\"]"), ERR_FORMAT, "model.merges[0]"},
		{"merge of three", MODEL(VOC "\"merges\":[\"a b\",\"a b a\"]"), ERR_FORMAT, "model.merges[1]"},
		{"merge of unknown left", MODEL(VOC "\"merges\":[\"a b\",\"x b\"]"), ERR_FORMAT, "model.merges[1]"},
		{"merge of unknown right", MODEL(VOC "\"merges\":[[\"a\",\"x\"]]"), ERR_FORMAT, "model.merges[0]"},
		{"merge to unknown", MODEL(VOC "\"merges\":[\"b a\"]"), ERR_FORMAT, "model.merges[0]"},
		{"good, no pre-tokenizer", HEAD "[]" MID "null" MOD VOC TAIL, 0, ""},
		{"good, whitespace", HEAD "[]" MID "{\"type\":\"Whitespace\"}" MOD VOC TAIL, 0, ""},
		{"scripts", HEAD "[]" MID "{\"type\":\"UnicodeScripts\"}" MOD VOC TAIL, ERR_UNSUPPORTED, "pre_tokenizer.type"},
		{"behaviour", HEAD "[]" MID "{\"type\":\"Punctuation\",\"behavior\":\"Gone\"}" MOD VOC TAIL, ERR_UNSUPPORTED, "pre_tokenizer.behavior"},
		{"after ByteLevel", HEAD "[]" MID "{\"type\":\"Sequence\",\"pretokenizers\":[" BL "," BL "]}" MOD VOC TAIL, ERR_UNSUPPORTED,
		    "pre_tokenizer.pretokenizers[1]"},
		{"a group with a name", SPLIT("(?<n>a)"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"a reference", SPLIT("(a)\\\\1"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"extended", SPLIT("(?x:a b)"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"options in the middle", SPLIT("a(?i)b"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"a possessive count", SPLIT("a{3,2}"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"two counts", SPLIT("a{1,3}++"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"\\R", SPLIT("\\\\R"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"\\X", SPLIT("\\\\X+"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"\\G", SPLIT("\\\\Ga"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"\\K", SPLIT("a\\\\Kb"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"an unknown property", SPLIT("\\\\p{Klingon}"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"POSIX", SPLIT("[[:alpha:]]"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"ss in any case, which is also U+00DF", SPLIT("(?i:ss)"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"a letter of several without case", SPLIT("(?i:\xc3\x9f)"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"an octal number", SPLIT("\\\\07"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"open class", SPLIT("[a"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"a lookbehind of any length", SPLIT("(?<=a+)b"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"a parenthesis that closes nothing", SPLIT("a)"), ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"open bracket", SPLIT("(a"), ERR_FORMAT, "pre_tokenizer.pretokenizers[0].pattern.Regex"},
		{"normaliser", HEAD "[],\"normalizer\":{\"type\":\"Nmt\"},\"pre_tokenizer\":" BL MOD VOC TAIL, ERR_UNSUPPORTED, "normalizer.type"},
		{"replace what may be empty", HEAD "[],\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a*\"},\"content\":\"b\"},\"pre_tokenizer\":" BL MOD VOC TAIL,
		    ERR_UNSUPPORTED, "normalizer.pattern.Regex"},
		{"decoder", HEAD "[],\"decoder\":{\"type\":\"WordPiece\"},\"pre_tokenizer\":" BL MOD VOC TAIL, ERR_UNSUPPORTED, "decoder.type"},
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

#define SIXTEEN "bbbbbbbbbbbbbbbb"

/* A file whose steps multiply a text again and again: refused, not tried until the memory is full. */
static void
test_growth(void)
{
	static const char file[] = HEAD "[],\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[" REPLACE("a", SIXTEEN) "," REPLACE("b", SIXTEEN) ","
	    REPLACE("b", SIXTEEN) "," REPLACE("b", SIXTEEN) "," REPLACE("b", SIXTEEN) "," REPLACE("b", SIXTEEN) "]},\"pre_tokenizer\":" BL MOD VOC TAIL;
	struct tokenizer_ids ids = { 0 };
	struct tokenizer_encoder *enc;
	struct tokenizer *tok;
	struct err_note note;
	char text[5000];

	memset(text, 'a', sizeof text);
	REQUIRE(tokenizer_parse(&tok, file, strlen(file), "t.json", &note) == 0);
	REQUIRE(tokenizer_encoder_new(&enc, tok) == 0);
	CHECK(tokenizer_encode(enc, text, sizeof text, 0, &ids, &note) == ERR_RANGE && strstr(note.found, "5000 bytes") != NULL);
	CHECK(ids.n == 0);
	tokenizer_encoder_destroy(&enc);
	tokenizer_destroy(&tok);
	free(ids.ids);
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
	static const char *const before[] = {"a9bcab7c0859954867023a0162321946", "40fc2f582a642a52d160ea8d2c8db4f6", "54b75f3e87f9dc916469c2db138b1544",
	    "612092f9d20fe4ab879d8311d6351e3f", "9e469cc7ba4fe2570c7e5df317e6bcf8"};	/* of the release before the steps were a list */
	struct hash128 h = fingerprint_of(ADDED("[]"));
	char hex[HASH_HEX_BYTES];
	size_t i;

	CHECK(hash_equal(h, fingerprint_of("{ \"model\": {\"merges\": [[\"a\", \"b\"]],\n\"vocab\": {\"ab\": 2, \"b\": 1, \"a\": 0}},"
	    "\"truncation\": {}, \"pre_tokenizer\": " BL "}")));
	CHECK(!hash_equal(h, fingerprint_of(ADDED("[" SPECIAL("3", "<x>") "]"))));
	CHECK(!hash_equal(h, fingerprint_of(MODEL(VOC "\"merges\":[]"))));
	CHECK(!hash_equal(h, fingerprint_of(MODEL("\"ignore_merges\":true," VOC "\"merges\":[\"a b\"]"))));
	CHECK(!hash_equal(h, fingerprint_of(MODEL("\"vocab\":{\"a\":1,\"b\":0,\"ab\":2},\"merges\":[\"a b\"]"))));
	CHECK(!hash_equal(h, fingerprint_of(HEAD "[],\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":" BL MOD VOC TAIL)));
	CHECK(!hash_equal(h, fingerprint_of(HEAD "[],\"normalizer\":{\"type\":\"NFKC\"},\"pre_tokenizer\":" BL MOD VOC TAIL)));
	CHECK(!hash_equal(fingerprint_of(SPLIT("a")), fingerprint_of(SPLIT("b"))));
	CHECK(!hash_equal(fingerprint_of(BEHAVIOR("Removed", "true")), fingerprint_of(BEHAVIOR("Removed", "false"))));
	CHECK(!hash_equal(fingerprint_of(BEHAVIOR("Removed", "false")), fingerprint_of(SPLIT("a"))));
	/* Of the files that older versions read, unchanged. */
	for (i = 0; i < N_KINDS; i++) {
		struct tokenizer *tok = load_kind(i);

		CHECK_STR(hash_hex(tokenizer_fingerprint(tok), hex), before[i]);
		tokenizer_destroy(&tok);
	}
	CHECK(!hash_equal(fingerprint_of(ADDED("[" SPECIAL("3", "<x>") "]")),
	    fingerprint_of(ADDED("[{\"id\":3,\"content\":\"<x>\",\"special\":false,\"normalized\":false}]"))));
}

#define POST(text) "{\"added_tokens\":[" SPECIAL("3", "<s>") "," SPECIAL("4", "</s>") "],\"pre_tokenizer\":" BL ",\"post_processor\":" text MOD VOC TAIL
#define SEQ_A "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}"
#define TOK(name) "{\"SpecialToken\":{\"id\":\"" name "\",\"type_id\":0}}"
#define SINGLE(list) "{\"type\":\"TemplateProcessing\",\"single\":[" list "],\"pair\":[],\"special_tokens\":{\"B\":{\"id\":\"B\",\"ids\":[3],\"tokens\":[\"<s>\"]}," \
	"\"E\":{\"id\":\"E\",\"ids\":[4,4],\"tokens\":[\"</s>\",\"</s>\"]},\"F\":{\"ids\":[9]}}}"
#define NO_IDS "{\"type\":\"ByteLevel\",\"trim_offsets\":true}"
#define ROBERTA "{\"type\":\"RobertaProcessing\",\"sep\":[\"</s>\",4],\"cls\":[\"<s>\",3]}"

/* What a post_processor puts around a text; one that is not known is no reason to refuse the file. */
static void
test_template(void)
{
	static const struct {
		const char *text, *want;	/* ids before | after; NULL: not known */
	} rows[] = {
		{POST("null"), "|"}, {POST(NO_IDS), "|"}, {POST(SINGLE(SEQ_A)), "|"}, {POST(SINGLE(TOK("B") "," SEQ_A)), "3|"},
		{POST(SINGLE(TOK("B") "," SEQ_A "," TOK("E"))), "3|44"}, {POST(ROBERTA), "3|4"},
		{POST("{\"type\":\"Sequence\",\"processors\":[" NO_IDS "," SINGLE(TOK("B") "," SEQ_A) "]}"), "3|"},
		{POST("{\"type\":\"Sequence\",\"processors\":[" ROBERTA "," SINGLE(TOK("E") "," SEQ_A "," TOK("B")) "]}"), "443|43"},
		{POST(SINGLE(SEQ_A "," SEQ_A)), NULL}, {POST(SINGLE(TOK("B"))), NULL}, {POST(SINGLE(TOK("X") "," SEQ_A)), NULL},
		{POST(SINGLE(TOK("F") "," SEQ_A)), NULL}, {POST("{\"type\":\"Other\"}"), NULL}, {POST("[]"), NULL},
	};

	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct tokenizer_template t;
		struct err_note note = {0};
		struct tokenizer *tok;
		char got[32] = "";
		int rc;

		REQUIRE(tokenizer_parse(&tok, rows[i].text, strlen(rows[i].text), "t.json", NULL) == 0);
		rc = tokenizer_get_template(tok, &t, &note);
		CHECK_ROW(rows[i].text, rc == (rows[i].want != NULL ? 0 : ERR_UNSUPPORTED) && (rc == 0 || strcmp(note.place, "post_processor") == 0));
		for (size_t k = 0; rc == 0 && k <= t.n_before + t.n_after; k++)
			snprintf(got + strlen(got), sizeof got - strlen(got), k == t.n_before ? "|" : "%d",
			    k < t.n_before ? t.before[k] : k > t.n_before ? t.after[k - t.n_before - 1] : 0);
		CHECK_ROW(rows[i].text, rc != 0 || strcmp(got, rows[i].want) == 0);
		tokenizer_destroy(&tok);
	}
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
	static const char unread[] = HEAD "[]" MID BL ",\"model\":{\"type\":\"WordLevel\"}}\n";
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
	write_file(path, unread, 0);
	CHECK(tokenizer_identify(path, &id, why, sizeof(why), &note) == 0 && strstr(why, "model.type: expected BPE or Unigram, found WordLevel") != NULL);
	CHECK(hash_equal(id, hash_bytes(unread, strlen(unread))));
	write_file(path, HEAD "[]" MID BL ",\"model\":{\"type\":\"WordPiece\"}}", 0);
	CHECK(tokenizer_identify(path, &other, why, sizeof(why), &note) == 0 && !hash_equal(id, other));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		write_file(path, bad[i].text, 0);
		CHECK_ROW(bad[i].found, tokenizer_identify(path, &id, why, sizeof(why), &note) == ERR_FORMAT);
		CHECK_ROW(bad[i].found, strstr(note.found, bad[i].found) != NULL && strstr(note.name, path) != NULL);
	}
	/* Over the limit. */
	write_file(path, unread, (long)TOKENIZER_MAX_FILE_BYTES + 1);
	CHECK(tokenizer_identify(path, &id, why, sizeof(why), &note) == ERR_FORMAT);		/* ends with NUL */
	REQUIRE((fd = open(path, O_WRONLY)) >= 0 && pwrite(fd, "}", 1, (off_t)TOKENIZER_MAX_FILE_BYTES) == 1 && close(fd) == 0);
	CHECK(tokenizer_identify(path, &id, why, sizeof(why), &note) == 0 && strstr(why, "at most 268435456 bytes") != NULL);
	REQUIRE(unlink(path) == 0);
	CHECK(tokenizer_identify(path, &id, why, sizeof(why), &note) == ENOENT);
}

/* Models of pieces of text: ids, and text where the library decodes to something that is not U+FFFD. */
static void
pieces_rows(const char *tsv, size_t want_rows)
{
	FILE *f = fopen(tsv, "r");
	struct tokenizer *tok = NULL;
	struct tokenizer_encoder *enc = NULL;
	struct tokenizer_ids ids = {0};
	struct tokenizer_bytes bytes = {0};
	char line[512], path[256], loaded[64] = "", hex[HASH_HEX_BYTES];
	size_t n, n_rows = 0;

	REQUIRE(f != NULL);
	for (; fgets(line, sizeof line, f) != NULL; n_rows++) {
		const char *file = strtok(line, "\t"), *name = strtok(NULL, "\t"), *specials = strtok(NULL, "\t"), *n_ids = strtok(NULL, "\t");
		const char *want = strtok(NULL, "\t"), *back = strtok(NULL, "\t\n");
		unsigned char *text;

		REQUIRE(back != NULL);
		if (strcmp(file, loaded) != 0) {
			tokenizer_encoder_destroy(&enc);
			tokenizer_destroy(&tok);
			snprintf(loaded, sizeof loaded, "%s", file);
			snprintf(path, sizeof path, GOLDEN "%s", file);
			tok = load(path);
			REQUIRE(tokenizer_encoder_new(&enc, tok) == 0);
			CHECK_ROW(file, !tokenizer_is_lossless(tok));
		}
		snprintf(path, sizeof path, GOLDEN "texts/%s.txt", name);
		REQUIRE((text = read_file(path, &n)) != NULL);
		ids.n = bytes.n = 0;
		snprintf(path, sizeof path, "%s %s %s", file, name, specials);
		CHECK_ROW(path, tokenizer_encode(enc, text, n, specials[0] == '1' ? TOKENIZER_SPECIALS : 0, &ids, NULL) == 0);
		CHECK_ROW(path, ids.n == strtoul(n_ids, NULL, 10));
		CHECK_ROW(path, strcmp(want, hash_hex(hash_tokens(ids.ids, ids.n), hex)) == 0);
		CHECK_ROW(path, tokenizer_decode(tok, ids.ids, ids.n, 0, &bytes, NULL) == 0);
		CHECK_ROW(path, strcmp(back, "-") == 0 || strcmp(back, hash_hex(hash_bytes(bytes.bytes, bytes.n), hex)) == 0);
		free(text);
	}
	CHECK(n_rows == want_rows);
	fclose(f);
	tokenizer_encoder_destroy(&enc);
	tokenizer_destroy(&tok);
	free(ids.ids);
	free(bytes.bytes);
}

static void
test_pieces(void)
{
	pieces_rows(GOLDEN "pieces.tsv", (size_t)11 * 2 * N_TEXTS);
	pieces_rows(GOLDEN "pieces_table.tsv", (size_t)2 * 8);	/* the texts that are UTF-8 */
}

/* What a token is in the middle of a text, and byte tokens that are not UTF-8 together. */
static void
test_pieces_shown(void)
{
	struct tokenizer *tok = load(GOLDEN "pieces_llama.json");
	struct tokenizer_encoder *enc;
	struct tokenizer_ids ids = {0};
	struct tokenizer_bytes bytes = {0};
	const unsigned char *p;
	size_t len;

	REQUIRE(tokenizer_encoder_new(&enc, tok) == 0);
	REQUIRE(tokenizer_encode(enc, "the\xff\xfe", 5, 0, &ids, NULL) == 0 && ids.n == 3);
	CHECK(tokenizer_token(tok, ids.ids[0], &p, &len, NULL) == 0 && len == 4 && memcmp(p, " the", 4) == 0);
	CHECK(tokenizer_token(tok, ids.ids[1], &p, &len, NULL) == 0 && len == 1 && p[0] == 0xff);
	CHECK(tokenizer_decode(tok, ids.ids, ids.n, 0, &bytes, NULL) == 0 && bytes.n == 5 && memcmp(bytes.bytes, "the\xff\xfe", 5) == 0);
	tokenizer_encoder_destroy(&enc);
	tokenizer_destroy(&tok);
	/* No unk_token and no byte tokens: an error with the character, or dropped and counted. */
	REQUIRE(tokenizer_parse(&tok, HEAD "[]" MID "null" MOD VOC TAIL, strlen(HEAD "[]" MID "null" MOD VOC TAIL), "t", NULL) == 0);
	REQUIRE(tokenizer_encoder_new(&enc, tok) == 0);
	{
		struct err_note note = {0};

		ids.n = 0;
		CHECK(tokenizer_encode(enc, "ab\xc3\xa9", 4, 0, &ids, &note) == ERR_UNSUPPORTED && ids.n == 0);
		CHECK_STR(note.place, "byte offset 2");
		CHECK_STR(note.found, "'\xc3\xa9'");
		CHECK(tokenizer_encode(enc, "ab\xc3\xa9""b", 5, TOKENIZER_DROP_UNKNOWN, &ids, &note) == 0 && ids.n == 2 && ids.ids[0] == 2 && ids.ids[1] == 1);
		CHECK(tokenizer_encoder_n_unknown(enc) == 1);
	}
	tokenizer_encoder_destroy(&enc);
	tokenizer_destroy(&tok);
	free(ids.ids);
	free(bytes.bytes);
}

/* SentencePiece's file, in protobuf: pieces are field 1 (text 1, score 2, type 3), trainer_spec 2, normalizer_spec 3. */
#define PIECE(n, m, text) "\x0a" n "\x0a" m text "\x15\x00\x00\x80\xbf"
#define UNK "\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02"
#define BPE_TYPE "\x12\x02\x18\x02"
#define PLAIN "\x1a\x02\x20\x00"			/* remove_extra_whitespaces: false */
static void
test_models(void)
{
	static const struct {
		const char *what, *bytes;
		size_t n;
		int rc;
		const char *place;
	} rows[] = {
#define ROW(what, bytes, rc, place) {what, bytes, sizeof(bytes) - 1, rc, place}
		ROW("good", UNK PIECE("\x08", "\x01", "a") BPE_TYPE PLAIN, 0, ""),
		ROW("good, Unigram", UNK PIECE("\x08", "\x01", "a") PLAIN, 0, ""),
		ROW("empty", "", ERR_FORMAT, "pieces"),
		ROW("JSON", "{\"version\":\"1.0\"}", ERR_FORMAT, "byte 0"),
		ROW("cut in a piece", "\x0a\x0e\x0a\x05<unk", ERR_FORMAT, "byte 0"),
		ROW("a piece longer than its message", "\x0a\x03\x0a\x05" "a" BPE_TYPE PLAIN, ERR_FORMAT, "byte 2"),
		ROW("a wire type of no kind", UNK "\x0b\x00", ERR_FORMAT, "byte 16"),
		ROW("a number without end", UNK "\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ERR_FORMAT, "byte 16"),
		ROW("a piece of a kind unknown", UNK "\x0a\x05\x0a\x01" "a\x18\x07" PLAIN, ERR_FORMAT, "byte 23"),
		ROW("not UTF-8", UNK PIECE("\x08", "\x01", "\xff") BPE_TYPE PLAIN, ERR_FORMAT, "byte 20"),
		ROW("no text", UNK PIECE("\x07", "\x00", "") BPE_TYPE PLAIN, ERR_FORMAT, "piece 1"),
		ROW("a piece twice", UNK PIECE("\x08", "\x01", "a") PIECE("\x08", "\x01", "a") BPE_TYPE PLAIN, ERR_FORMAT, "piece 2"),
		ROW("a score of NaN", UNK "\x0a\x08\x0a\x01" "a\x15\x00\x00\xc0\x7f" BPE_TYPE PLAIN, ERR_FORMAT, "piece 1"),
		ROW("unk_id of no piece", UNK "\x12\x05\x18\x02\xc0\x02\x05" PLAIN, ERR_FORMAT, "unk_id"),
		ROW("words", UNK "\x12\x02\x18\x03" PLAIN, ERR_UNSUPPORTED, "trainer_spec.model_type"),
		ROW("spaces behind words", UNK "\x12\x05\x18\x02\xc0\x01\x01" PLAIN, ERR_UNSUPPORTED, "trainer_spec.treat_whitespace_as_suffix"),
		ROW("good, spaces that go", UNK PIECE("\x08", "\x01", "a") BPE_TYPE, 0, ""),
		ROW("a table of characters that is none", UNK PIECE("\x08", "\x01", "a") BPE_TYPE "\x1a\x05\x12\x01x\x20\x00", ERR_FORMAT,
		    "normalizer.precompiled_charsmap"),
		ROW("spaces that go, a user-defined piece", UNK "\x0a\x05\x0a\x01" "a\x18\x04" BPE_TYPE, ERR_UNSUPPORTED, "pieces"),
		ROW("spaces that go, an unused piece", UNK "\x0a\x05\x0a\x01" "a\x18\x05" BPE_TYPE, ERR_UNSUPPORTED, "pieces"),
		ROW("spaces as they are", UNK BPE_TYPE "\x1a\x04\x20\x00\x28\x00", ERR_UNSUPPORTED, "normalizer_spec.escape_whitespaces"),
	};
	char path[] = "/tmp/salt_tokenizer.XXXXXX.model";
	int fd = mkstemps(path, 6);

	REQUIRE(fd >= 0);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct err_note note = {.place = ""};
		struct tokenizer *tok;
		char line[1400];
		int rc;

		REQUIRE(ftruncate(fd, 0) == 0 && pwrite(fd, rows[i].bytes, rows[i].n, 0) == (ssize_t)rows[i].n);
		rc = tokenizer_load(&tok, path, &note);
		CHECK_ROW(rows[i].what, rc == rows[i].rc && (tok == NULL) == (rc != 0));
		CHECK_ROW(rows[i].what, strcmp(note.place, rows[i].place) == 0);
		if (rc != rows[i].rc || strcmp(note.place, rows[i].place) != 0)
			fprintf(stderr, "  %s\n", err_note_str(&note, rc, line, sizeof line));
		tokenizer_destroy(&tok);
	}
	close(fd);
	unlink(path);
}

int
main(void)
{
	test_bad_files();
	test_growth();
	test_string();
	test_identify();
	test_fingerprint();
	test_golden();
	test_kinds();
	test_pieces();
	test_pieces_shown();
	test_models();
	test_lossless();
	test_template();
	test_classes();
	test_pods();
	test_shipped();
	test_missing_bytes();
	test_merge_order();
	test_merge_chain();
	test_merge_byte_token();
	test_worst_case();
	return check_done();
}
