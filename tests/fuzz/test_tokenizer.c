/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.json files mutated: refused with a note, or loaded and then whatever they say encodes and decodes without a wrong access. */
#include "fuzz.h"
#include "data/tokenizer/tokenizer.h"

static const char small[] =
    "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":5,\"content\":\"<e>\",\"special\":true},{\"id\":6,\"content\":\" x\",\"lstrip\":true}],"
    "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
    "{\"Regex\":\"(?i:'s|'ll)|[^\\\\r\\\\n\\\\p{L}]?\\\\p{L}+|\\\\p{N}{1,3}|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\",\"invert\":false},"
    "{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":false}]},"
    "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":\"a\",\"fuse_unk\":false,"
    "\"ignore_merges\":true,\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\\u0120\":3,\"\\u0120a\":4},\"merges\":[\"a b\",[\"\\u0120\",\"a\"]]}}";

int
main(void)
{
	static const char text[] = "ab  a<e> x 12 b'll \xcc\x81\xcc\xa7\xff\xe2\x80\x8d\n\n  ab\xc3\xa9";
	uint8_t buf[sizeof small + 256];
	struct tokenizer_ids ids = {0};
	struct tokenizer_bytes bytes = {0};
	int round, loaded = 0;

	fuzz_seed(11);
	for (round = 0; round < 20000; round++) {
		struct tokenizer *tok;
		struct tokenizer_encoder *enc = NULL;
		struct err_note note = {0};
		size_t n = sizeof small - 1;
		int rc;

		memcpy(buf, small, n);
		if (round > 0)
			n = fuzz_mutate(buf, n, sizeof buf);
		rc = tokenizer_parse(&tok, (const char *)buf, n, "fuzz", &note);
		CHECK((rc == 0) == (tok != NULL));
		CHECK(rc == 0 || note.name[0] != '\0');
		if (rc != 0)
			continue;
		loaded++;
		if (loaded % 16 != 1) {			/* an encoder is some megabytes: now and then */
			tokenizer_destroy(&tok);
			continue;
		}
		REQUIRE(tokenizer_encoder_new(&enc, tok) == 0);
		ids.n = bytes.n = 0;
		rc = tokenizer_encode(enc, text, sizeof text - 1, round % 2 ? TOKENIZER_SPECIALS : 0, &ids, &note);
		CHECK(rc == 0 || ids.n == 0);
		CHECK(tokenizer_decode(tok, ids.ids, ids.n, 0, &bytes, &note) == 0);
		tokenizer_encoder_destroy(&enc);
		tokenizer_destroy(&tok);
	}
	fprintf(stderr, "%d of %d loaded\n", loaded, round);
	CHECK(loaded > 16);
	free(ids.ids);
	free(bytes.bytes);
	return check_done();
}
