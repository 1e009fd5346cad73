/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenize_file TOKENIZER.json [--specials] [--decode] < in > out
 * Standard input's text to ids as raw little-endian int32, or back with --decode: for comparison with another tokenizer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/tokenizer/tokenizer.h"

static unsigned char *
slurp(FILE *f, size_t *n)
{
	size_t cap = 1 << 20, got;
	unsigned char *p = malloc(cap), *q;

	*n = 0;
	while (p != NULL && (got = fread(p + *n, 1, cap - *n, f)) > 0) {
		if ((*n += got) < cap)
			continue;
		if ((q = realloc(p, cap *= 2)) == NULL)
			free(p);
		p = q;
	}
	return p;
}

int
main(int argc, char **argv)
{
	struct tokenizer *tok = NULL;
	struct tokenizer_encoder *enc = NULL;
	struct tokenizer_ids ids = {0};
	struct tokenizer_bytes bytes = {0};
	struct err_note note = {0};
	char line[1024];
	unsigned char *in = NULL;
	unsigned flags = 0;
	size_t n, wrote = 0;
	int i, decode = 0, rc;

	for (i = 2; i < argc; i++) {
		if (strcmp(argv[i], "--specials") == 0)
			flags = TOKENIZER_SPECIALS;
		else if (strcmp(argv[i], "--decode") == 0)
			decode = 1;
		else
			argc = 0;
	}
	if (argc < 2) {
		fprintf(stderr, "usage: tokenize_file TOKENIZER.json [--specials] [--decode] < in > out\n");
		return 64;
	}
	if ((in = slurp(stdin, &n)) == NULL)
		return 70;
	if ((rc = tokenizer_load(&tok, argv[1], &note)) != 0)
		goto out;
	if (decode) {
		if ((rc = tokenizer_decode(tok, (const int32_t *)(void *)in, n / sizeof(int32_t), 0, &bytes, &note)) != 0)
			goto out;
		wrote = fwrite(bytes.bytes, 1, bytes.n, stdout) == bytes.n;
	} else {
		if ((rc = tokenizer_encoder_new(&enc, tok)) != 0 || (rc = tokenizer_encode(enc, in, n, flags, &ids, &note)) != 0)
			goto out;
		wrote = fwrite(ids.ids, sizeof ids.ids[0], ids.n, stdout) == ids.n;
	}
	if (!wrote || fflush(stdout) != 0)
		rc = ERR_LIBRARY;
out:
	if (rc != 0)
		fprintf(stderr, "tokenize_file: %s\n", err_note_str(&note, rc, line, sizeof line));
	tokenizer_encoder_destroy(&enc);
	tokenizer_destroy(&tok);
	free(ids.ids);
	free(bytes.bytes);
	free(in);
	return err_exit_code(rc);
}
