/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mutated .idx files beside a fixed .bin: corpus_open refuses or the stream it gives is read to its end without a wrong access. Where it
 * opens, the index said nothing but what the .bin holds.
 */
#include "data/corpus/corpus.h"

#include <unistd.h>
#include "fuzz.h"

static size_t
slurp(const char *path, uint8_t *out, size_t cap)
{
	FILE *f = fopen(path, "rb");
	size_t n;

	REQUIRE(f != NULL);
	n = fread(out, 1, cap, f);
	fclose(f);
	return n;
}

static void
spill(const char *path, const uint8_t *p, size_t n)
{
	FILE *f = fopen(path, "wb");

	REQUIRE(f != NULL && fwrite(p, 1, n, f) == n);
	fclose(f);
}

int
main(void)
{
	const char *tmp = getenv("TMPDIR");
	uint8_t seed[2][256], bin[2][64], bytes[512];
	char dir[64], prefix[80], idx_path[96], bin_path[96];
	size_t n_seed[2], n_bin[2], opened = 0;

	snprintf(dir, sizeof(dir), "%.40s/idx.XXXXXX", tmp != NULL ? tmp : "/tmp");
	REQUIRE(mkdtemp(dir) != NULL);
	snprintf(prefix, sizeof(prefix), "%s/x", dir);
	snprintf(idx_path, sizeof(idx_path), "%s.idx", prefix);
	snprintf(bin_path, sizeof(bin_path), "%s.bin", prefix);
	n_seed[0] = slurp("tests/golden/corpus/small.idx", seed[0], sizeof(seed[0]));
	n_seed[1] = slurp("tests/golden/corpus/wide.idx", seed[1], sizeof(seed[1]));
	n_bin[0] = slurp("tests/golden/corpus/small.bin", bin[0], sizeof(bin[0]));
	n_bin[1] = slurp("tests/golden/corpus/wide.bin", bin[1], sizeof(bin[1]));
	fuzz_seed(20260131);
	for (int which = 0; which < 2; which++) {
		spill(bin_path, bin[which], n_bin[which]);
		for (int round = 0; round < 4000; round++) {
			struct err_note note = {0};
			struct corpus *c;
			int32_t out[5];
			size_t n;

			memcpy(bytes, seed[which], n_seed[which]);
			n = fuzz_mutate(bytes, n_seed[which], sizeof(bytes));
			spill(idx_path, bytes, n);
			if (corpus_open(&c, prefix, &note) != 0) {
				CHECK(c == NULL && note.name[0] != '\0' && note.expected[0] != '\0');
				continue;
			}
			opened++;
			CHECK(corpus_n_tokens(c) * (corpus_info(c)->dtype == CORPUS_DTYPE_UINT16 ? 2 : 4) == n_bin[which]);
			for (uint64_t i = 0; i < corpus_n_windows(c, 4); i++)
				CHECK(corpus_window(c, i, 4, out, &note) == 0);
			corpus_destroy(&c);
		}
	}
	fprintf(stderr, "%zu opened\n", opened);
	CHECK(opened > 10);		/* changes that change nothing */
	unlink(idx_path);
	unlink(bin_path);
	rmdir(dir);
	return check_done();
}
