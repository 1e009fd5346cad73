/* SPDX-License-Identifier: Apache-2.0 */
/* Tokenizer files: what is rejected, fingerprints, SentencePiece models, the post-processor's template. */
#include <errno.h>
#include <fcntl.h>
#include "tokenizer_golden.h"
#include "base/mem/mem.h"

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
		{"not an object", "[1]", ERR_FORMAT, "top level"},
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

/* If the steps of a file multiply the length of a text, encoding fails instead of filling the memory. */
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
	/* The fingerprints of files that older versions could read are unchanged. */
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

/* The ids that a post_processor puts around a text; an unknown one does not make the file invalid. */
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

/* A string as pattern matches its characters literally, and words of its split are not merged with others. */
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
	/* The first line of merges.txt in the list has no effect. */
	CHECK(hash_equal(fingerprint_of(MODEL(VOC "\"merges\":[\"#version: 0.2\",\"a b\"]")), fingerprint_of(MODEL(VOC "\"merges\":[\"a b\"]"))));
}

static void
write_file(const char *path, const char *text, long size)
{
	FILE *f = fopen(path, "wb");

	REQUIRE(f != NULL && fwrite(text, 1, strlen(text), f) == strlen(text) && fclose(f) == 0);
	REQUIRE(size == 0 || truncate(path, size) == 0);
}

/* Files that cannot be loaded are identified by their bytes; a file of another kind is an error. */
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
	/* A file above the size limit. */
	write_file(path, unread, (long)TOKENIZER_MAX_FILE_BYTES + 1);
	CHECK(tokenizer_identify(path, &id, why, sizeof(why), &note) == ERR_FORMAT);		/* ends with NUL */
	REQUIRE((fd = open(path, O_WRONLY)) >= 0 && pwrite(fd, "}", 1, (off_t)TOKENIZER_MAX_FILE_BYTES) == 1 && close(fd) == 0);
	CHECK(tokenizer_identify(path, &id, why, sizeof(why), &note) == 0 && strstr(why, "at most 268435456 bytes") != NULL);
	REQUIRE(unlink(path) == 0);
	CHECK(tokenizer_identify(path, &id, why, sizeof(why), &note) == ENOENT);
}

/* Models of pieces: ids, and the decoded text unless the library decodes to U+FFFD. */
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

/* The text of a token in the middle of a text, and byte tokens that together are not UTF-8. */
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
	/* Without unk_token and byte tokens: an error with the character, or it is dropped and counted. */
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

/* A SentencePiece file: pieces are field 1 (text 1, score 2, type 3), trainer_spec 2, normalizer_spec 3. */
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
	test_pieces();
	test_pieces_shown();
	test_models();
	test_template();
	return check_done();
}
