/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: tokenizer.json, and after a zero byte flags and a text. It is rejected, or the text is encoded to
 * ids below the vocabulary size that can be decoded; if the tokenizer is marked lossless, the text is
 * unchanged. An input that begins with a newline, as protobuf does, is a tokenizer.model.
 */
#include "data/tokenizer/tokenizer.h"

#include "fuzz.h"

static const char usual[] = "ab  a<e> x 12 b'll \xcc\x81\xcc\xa7\xff\xe2\x80\x8d\n\n  ab\xc3\xa9 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

static void
encode(const struct tokenizer *tok, const char *text, size_t len, unsigned flags)
{
	struct tokenizer_encoder *enc = NULL;
	static struct tokenizer_ids ids;
	static struct tokenizer_bytes bytes;
	struct err_note note = {0};
	int rc;

	ids.n = bytes.n = 0;
	if (!FUZZ_WORKS(tokenizer_encoder_new(&enc, tok)))
		return;
	if ((flags & 8) != 0)
		tokenizer_encoder_unknown(enc, 0);
	if ((rc = tokenizer_encode(enc, text, len, flags & 3, &ids, &note)) != 0) {
		FUZZ_CHECK(ids.n == 0);
		FUZZ_REFUSED(rc, note);
	}
	for (size_t i = 0; i < ids.n; i++)
		FUZZ_CHECK(ids.ids[i] >= 0 && ids.ids[i] < tokenizer_vocab_size(tok));
	if (rc == 0 && FUZZ_WORKS(tokenizer_decode(tok, ids.ids, ids.n, 0, &bytes, &note)) && tokenizer_is_lossless(tok))
		FUZZ_CHECK(bytes.n == len && memcmp(bytes.bytes, text, len) == 0);
	if (rc == 0)
		tokenizer_decode(tok, ids.ids, ids.n, TOKENIZER_SKIP_SPECIALS, &bytes, &note);
	if ((flags & TOKENIZER_DROP_UNKNOWN) == 0)
		FUZZ_CHECK(tokenizer_encoder_n_unknown(enc) == 0);
	tokenizer_encoder_destroy(&enc);
	tokenizer_encoder_destroy(&enc);	/* NULL now */
	free(ids.ids);
	free(bytes.bytes);
	ids = (struct tokenizer_ids){0};
	bytes = (struct tokenizer_bytes){0};
}

/* A file that can be loaded is identified by its fingerprint; any other by its bytes, with a reason. */
static void
identify(const char *path, const struct tokenizer *tok)
{
	struct err_note note = {0};
	struct hash128 id;
	char why[100];
	int rc = tokenizer_identify(path, &id, why, sizeof(why), &note);

	if (rc != 0) {
		FUZZ_REFUSED(rc, note);
		FUZZ_CHECK(fuzz_faults || tok == NULL);
	} else if (tok != NULL) {
		FUZZ_CHECK(why[0] == '\0' && hash_equal(id, tokenizer_fingerprint(tok)));
	} else {
		FUZZ_CHECK(fuzz_faults || why[0] != '\0');
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct err_note note = {0};
	struct tokenizer *tok;
	static struct tokenizer_bytes none;
	const unsigned char *bytes;
	const char *text, *file = len > 0 && data[0] == '\n' ? "tokenizer.model" : "tokenizer.json";
	size_t text_len, n_bytes, n = fuzz_cut(data, len, &text, &text_len);
	int32_t end, n_ids;
	bool special;
	int rc;

	if (len > 1 << 20)
		return 0;
	if (file[10] == 'm') {
		text = NULL;
		text_len = 0;
		n = len;
	}
	rc = text == NULL ? tokenizer_load(&tok, fuzz_file(file, data, n), &note) :
	    tokenizer_parse(&tok, (const char *)data, n, "fuzz", &note);
	if (text == NULL)
		identify(fuzz_file(file, data, n), tok);
	if (rc != 0) {
		FUZZ_CHECK(tok == NULL);
		FUZZ_REFUSED(rc, note);
		return 0;
	}
	FUZZ_CHECK(tokenizer_describe(tok) != NULL && (n_ids = tokenizer_vocab_size(tok)) > 0);
	for (int32_t id = 0; id < n_ids && id < 300; id++)
		FUZZ_CHECK(tokenizer_token(tok, id, &bytes, &n_bytes, &special) == 0 && (n_bytes == 0 || bytes[n_bytes - 1] <= 255));
	FUZZ_CHECK(tokenizer_token(tok, n_ids, &bytes, &n_bytes, NULL) == ERR_RANGE);
	FUZZ_CHECK(tokenizer_decode(tok, &n_ids, 1, 0, &none, &note) == ERR_RANGE && none.n == 0);
	if (tokenizer_end_of_document(tok, "<e>", &end, &note) != 0)
		FUZZ_CHECK(note.expected[0] != '\0');
	tokenizer_fingerprint(tok);
	if (tokenizer_end_of_document(tok, NULL, &end, &note) == 0)
		FUZZ_CHECK(end >= 0 && end < tokenizer_vocab_size(tok));
	if (text_len > 0)
		encode(tok, text + 1, text_len - 1, (unsigned char)text[0] & 11);
	else
		encode(tok, usual, sizeof(usual) - 1, TOKENIZER_SPECIALS);
	tokenizer_destroy(&tok);
	return 0;
}
