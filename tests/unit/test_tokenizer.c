/* SPDX-License-Identifier: Apache-2.0 */
/* Compares ids with Hugging Face's (tests/golden/tokenizer, by its make.py); round trips of any bytes. */
#include <errno.h>
#include <fcntl.h>
#include "tokenizer_golden.h"
#include "base/mem/mem.h"

#define PODS "/usr/share/perl/5.36.0/pod/"

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

/* Two megabytes of real text, if the documents from which the fixture was made are installed. */
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

/* A split that keeps only matches is lossless if every character matches; it is marked so if provable. */
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

/* Every kind of step, pattern and added token with one model, whose merges cross every border. */
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
	for (round = 0; round < 80; round++) {		/* any bytes, lengths up to 1501 */
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
 * Merges by definition: repeatedly merges the pair of the lowest rank, the leftmost one if several are equal.
 * rank: of a pair; N_MERGES if it is not a merge. Returns the number of ids left.
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

/*
 * Long words, some longer than a window; merges in any order; several merges that make the same token, which
 * may consist of tokens that were learnt after it.
 */
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
		/* round 0: in the order learnt */
		for (i = n_merges - 1; i > 0 && round > 0; i--) {
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
 * Merges 01, 12 and so on to the end of the alphabet, the last one first: if the alphabet is cut in the
 * middle, all its pairs are different. So the end of a window changes more tokens than are dropped there.
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

/*
 * A byte token whose name merges make too: the first of three is completed last and is still merged first.
 * Ids of tokenizers 0.23.3.
 */
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

/*
 * With ignore_merges a word that is a token is that token, but the same characters as a part of another word are merged. Neither depends on what
 * was encoded before. Ids of tokenizers 0.23.3.
 */
static void
test_part_and_whole(void)
{
	static const char json[] = "{\"model\":{\"type\":\"BPE\",\"ignore_merges\":true,\"unk_token\":\"<unk>\",\"vocab\":{\"<unk>\":0,\"\342\226\201\":1,"
	    "\"a\":2,\"b\":3,\"c\":4,\"x\":5,\"ca\":6,\"ab\":7,\"cab\":8,\"abx\":9,\"y\":10},\"merges\":[\"c a\",\"ca b\"]}}";
	static const struct {
		const char *text;
		size_t n;
		int32_t ids[3];
	} rows[] = {{"ab", 1, {7}}, {"aby", 3, {2, 3, 10}}, {"abx", 1, {9}}, {"cab", 1, {8}}, {"cabx", 2, {8, 5}}, {"ab", 1, {7}}};
	struct tokenizer_ids ids = {0};
	struct tokenizer_encoder *enc;
	struct tokenizer *tok;

	REQUIRE(tokenizer_parse(&tok, json, strlen(json), "parts", NULL) == 0 && tokenizer_encoder_new(&enc, tok) == 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		ids.n = 0;
		CHECK(tokenizer_encode(enc, rows[i].text, strlen(rows[i].text), 0, &ids, NULL) == 0);
		CHECK_ROW(rows[i].text, ids.n == rows[i].n && memcmp(ids.ids, rows[i].ids, ids.n * sizeof(ids.ids[0])) == 0);
	}
	tokenizer_encoder_destroy(&enc);
	tokenizer_destroy(&tok);
	free(ids.ids);
}

/*
 * A megabyte of one word, of spaces, or of combining marks in the worst order must be encoded within the
 * test's time limit and decoded to the same text.
 */
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

/* The class of every code point in Unicode 16: letter, number, white space, none; merges cross the border. */
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

int
main(void)
{
	test_golden();
	test_kinds();
	test_lossless();
	test_classes();
	test_pods();
	test_shipped();
	test_missing_bytes();
	test_merge_order();
	test_merge_chain();
	test_merge_byte_token();
	test_part_and_whole();
	test_worst_case();
	return check_done();
}
