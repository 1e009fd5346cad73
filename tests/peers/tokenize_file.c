/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenize_file TOKENIZER.json [--specials] [--drop] [--decode | --texts | --records] < in > out
 *
 * Encodes the text of standard input to ids as raw little-endian int32, or decodes with --decode, for
 * comparison with another tokenizer. --drop: bytes without a token are left out. --texts: each text follows
 * its length as uint32, and the ids of each text are followed by -1. --records: the same input; writes for
 * each text the number of ids, the ids, the length of the decoded text, and the text; numbers are uint32.
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

static int
encode_texts(struct tokenizer_encoder *enc, const unsigned char *in, size_t n, unsigned flags, struct tokenizer_ids *ids, struct err_note *note)
{
	uint32_t len;
	size_t at;
	int rc = 0;

	for (at = 0; n - at >= sizeof len && rc == 0; at += len) {
		memcpy(&len, in + at, sizeof len);
		if (len > n - (at += sizeof len))
			return ERR_FORMAT;
		if ((rc = tokenizer_encode(enc, in + at, len, flags, ids, note)) == 0 && ids->n == ids->cap) {
			int32_t *more = realloc(ids->ids, (ids->cap = 2 * ids->n + 64) * sizeof ids->ids[0]);

			if (more == NULL)
				return ERR_LIBRARY;
			ids->ids = more;
		}
		if (rc == 0)
			ids->ids[ids->n++] = -1;
	}
	return rc;
}

static int
records(const struct tokenizer *tok, struct tokenizer_encoder *enc, const unsigned char *in, size_t n, unsigned flags, struct err_note *note)
{
	struct tokenizer_ids ids = {0};
	struct tokenizer_bytes bytes = {0};
	uint32_t len = 0, count;
	int rc = 0;

	for (; n >= sizeof len && rc == 0; in += len, n -= len) {
		memcpy(&len, in, sizeof len);
		in += sizeof len;
		n -= sizeof len;
		ids.n = bytes.n = 0;
		if (len > n)
			rc = ERR_FORMAT;
		else if ((rc = tokenizer_encode(enc, in, len, flags, &ids, note)) == 0 &&
		    (rc = tokenizer_decode(tok, ids.ids, ids.n, 0, &bytes, note)) == 0) {
			count = (uint32_t)ids.n;
			fwrite(&count, sizeof count, 1, stdout);
			fwrite(ids.ids, sizeof ids.ids[0], ids.n, stdout);
			count = (uint32_t)bytes.n;
			fwrite(&count, sizeof count, 1, stdout);
			fwrite(bytes.bytes, 1, bytes.n, stdout);
		}
	}
	free(ids.ids);
	free(bytes.bytes);
	return rc;
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
	int i, decode = 0, many = 0, texts = 0, rc;

	for (i = 2; i < argc; i++) {
		if (strcmp(argv[i], "--specials") == 0)
			flags |= TOKENIZER_SPECIALS;
		else if (strcmp(argv[i], "--drop") == 0)
			flags |= TOKENIZER_DROP_UNKNOWN;
		else if (strcmp(argv[i], "--decode") == 0)
			decode = 1;
		else if (strcmp(argv[i], "--texts") == 0)
			texts = 1;
		else if (strcmp(argv[i], "--records") == 0)
			many = 1;
		else
			argc = 0;
	}
	if (argc < 2) {
		fprintf(stderr, "usage: tokenize_file TOKENIZER.json [--specials] [--drop] [--decode | --texts | --records] < in > out\n");
		return 64;
	}
	if ((in = slurp(stdin, &n)) == NULL)
		return 70;
	if ((rc = tokenizer_load(&tok, argv[1], &note)) != 0)
		goto out;
	if (many) {
		if ((rc = tokenizer_encoder_new(&enc, tok)) != 0 || (rc = records(tok, enc, in, n, flags, &note)) != 0)
			goto out;
		wrote = !ferror(stdout);
	} else if (decode) {
		if ((rc = tokenizer_decode(tok, (const int32_t *)(void *)in, n / sizeof(int32_t), 0, &bytes, &note)) != 0)
			goto out;
		wrote = fwrite(bytes.bytes, 1, bytes.n, stdout) == bytes.n;
	} else {
		if ((rc = tokenizer_encoder_new(&enc, tok)) != 0)
			goto out;
		rc = texts ? encode_texts(enc, in, n, flags, &ids, &note) : tokenizer_encode(enc, in, n, flags, &ids, &note);
		if (rc != 0)
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
