/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache_dump DIR N - prints a line for every label and score record of sequences 0 .. N-1, with a hash of its
 * bytes. cache_dump DIR SEQ raw - writes the bytes of one label record.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "data/cache/cache.h"
#include "base/hash/hash.h"

static void
line(const char *what, uint64_t seq, int rc, const struct cache_bytes *v)
{
	char hex[HASH_HEX_BYTES];

	if (rc == 0)
		printf("%s %" PRIu64 " %zu %s\n", what, seq, v->len, hash_hex(hash_bytes(v->bytes, v->len), hex));
	else if (rc != ERR_NOT_FOUND)
		printf("%s %" PRIu64 " %s\n", what, seq, err_str(rc));
}

int
main(int argc, char **argv)
{
	struct cache *c = NULL;
	struct cache_txn *txn = NULL;
	struct err_note note = {.name = ""};
	char text[1200];
	int rc;

	if (argc != 3 && argc != 4)
		return 64;
	if ((rc = cache_open(&c, argv[1], CACHE_READ, 0, &note)) != 0 || (rc = cache_txn_begin(c, &txn)) != 0) {
		fprintf(stderr, "cache_dump: %s\n", err_note_str(&note, rc, text, sizeof(text)));
		return err_exit_code(rc);
	}
	if (argc == 4) {
		struct cache_bytes v;

		if ((rc = cache_labels_get(txn, strtoull(argv[2], NULL, 10), &v)) == 0)
			fwrite(v.bytes, 1, v.len, stdout);
		cache_txn_end(&txn);
		cache_destroy(&c);
		return err_exit_code(rc);
	}
	for (uint64_t seq = 0, n = strtoull(argv[2], NULL, 10); seq < n; seq++) {
		struct cache_bytes v;

		line("label", seq, cache_labels_get(txn, seq, &v), &v);
		line("score", seq, cache_scores_get(txn, CACHE_SCORES_SCORER, seq, &v), &v);
	}
	cache_txn_end(&txn);
	cache_destroy(&c);
	return 0;
}
