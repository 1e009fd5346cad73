/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_tokenizer TOKENIZER.json TEXT [--rounds N] [--json FILE] [--peer-mb-s X]
 *
 * Encodes the text in one thread, in documents of about 64 KiB that end with a line, and decodes it. Prints
 * the median of N rounds (5), in processor time. "first" is a new encoder (cold cache), "worst" a megabyte
 * each of one letter, of spaces, and of letters without a space. vocabularies.py makes tokenizers of 32,000
 * to 256,000 tokens for this bench.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json/json.h"
#include "data/tokenizer/tokenizer.h"

#define DOCUMENT_BYTES 65536
#define WORST_BYTES 1000000
#define MAX_ROUNDS 99

struct result {
	const char *name;
	double peer;
	double value[MAX_ROUNDS]; /* of each round; sorted at the end */
};

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);	/* so that other programs' time does not count */
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static char *
read_all(const char *path, size_t *n)
{
	FILE *f = fopen(path, "rb");
	char *p = NULL;
	long size;

	if (f == NULL || fseek(f, 0, SEEK_END) != 0 || (size = ftell(f)) <= 0 || fseek(f, 0, SEEK_SET) != 0)
		goto out;
	if ((p = malloc((size_t)size)) != NULL)
		*n = fread(p, 1, (size_t)size, f);
out:
	if (f != NULL)
		fclose(f);
	return p;
}

static int
encode_all(struct tokenizer_encoder *enc, const char *text, size_t n, struct tokenizer_ids *ids, double *seconds, struct err_note *note)
{
	double start = now();
	size_t at, len;
	int rc = 0;

	ids->n = 0;
	for (at = 0; at < n && rc == 0; at += len) {
		const char *end;

		len = n - at < DOCUMENT_BYTES ? n - at : DOCUMENT_BYTES;
		if ((end = memchr(text + at + len - 1, '\n', n - at - len + 1)) != NULL)
			len = (size_t)(end + 1 - (text + at));
		rc = tokenizer_encode(enc, text + at, len, 0, ids, note);
	}
	*seconds = now() - start;
	return rc;
}

static int
worst(const struct tokenizer *tok, int kind, double *mb_s, struct err_note *note)
{
	struct tokenizer_encoder *enc = NULL;
	struct tokenizer_ids ids = {0};
	char *text = malloc(WORST_BYTES);
	uint32_t x = 1;
	double start;
	size_t i;
	int rc = -1;

	if (text == NULL || (rc = tokenizer_encoder_new(&enc, tok)) != 0)
		goto out;
	for (i = 0; i < WORST_BYTES; i++) {
		x = x * 1664525u + 1013904223u;
		text[i] = kind == 0 ? 'a' : kind == 1 ? ' ' : (char)('a' + (x >> 24) % 26);
	}
	start = now();
	rc = tokenizer_encode(enc, text, WORST_BYTES, 0, &ids, note);
	*mb_s = WORST_BYTES / (now() - start) / 1e6;
out:
	tokenizer_encoder_destroy(&enc);
	free(ids.ids);
	free(text);
	return rc;
}

static int
write_json(const char *path, const struct result *r, size_t n, int rounds)
{
	struct json *all = json_new_array();
	FILE *f = NULL;
	char *text = NULL;
	size_t i;
	int rc = -1;

	for (i = 0; i < n; i++) {
		struct json *o = json_new_object();

		json_put(o, "name", json_new_text(r[i].name));
		json_put(o, "value", json_new_num(r[i].value[rounds / 2]));
		json_put(o, "unit", json_new_text("MB/s"));
		json_put(o, "peer", r[i].peer > 0 ? json_new_text("Hugging Face tokenizers, one thread") : json_new_null());
		json_put(o, "peer_value", r[i].peer > 0 ? json_new_num(r[i].peer) : json_new_null());
		json_put(o, "ratio", r[i].peer > 0 ? json_new_num(r[i].value[rounds / 2] / r[i].peer) : json_new_null());
		json_push(all, o);
	}
	if ((text = json_print(all, true)) != NULL && (f = fopen(path, "w")) != NULL)
		rc = fputs(text, f) < 0;
	if (f != NULL && fclose(f) != 0)
		rc = -1;
	free(text);
	json_close(&all);
	return rc;
}

int
main(int argc, char **argv)
{
	static struct result r[] = {{.name = "tokenizer_encode_first"}, {.name = "tokenizer_encode"}, {.name = "tokenizer_decode"},
	    {.name = "tokenizer_worst_one_letter"}, {.name = "tokenizer_worst_spaces"}, {.name = "tokenizer_worst_no_spaces"}};
	struct tokenizer *tok = NULL;
	struct tokenizer_encoder *enc = NULL;
	struct tokenizer_ids ids = {0};
	struct tokenizer_bytes bytes = {0};
	struct err_note note = {0};
	const char *json = NULL;
	char *text = NULL, line[1024];
	double seconds, start;
	size_t n = 0, i;
	int rc = 0, k, round, rounds = 5;

	for (k = 3; k + 1 < argc; k += 2) {
		if (strcmp(argv[k], "--json") == 0)
			json = argv[k + 1];
		else if (strcmp(argv[k], "--peer-mb-s") == 0)
			r[1].peer = atof(argv[k + 1]);
		else if (strcmp(argv[k], "--rounds") == 0)
			rounds = atoi(argv[k + 1]);
	}
	if (argc < 3 || rounds < 1 || rounds > MAX_ROUNDS || (text = read_all(argv[2], &n)) == NULL || n == 0) {
		fprintf(stderr, "usage: bench_tokenizer TOKENIZER.json TEXT [--rounds N] [--json FILE] [--peer-mb-s X]\n");
		return 64;
	}
	if ((rc = tokenizer_load(&tok, argv[1], &note)) != 0)
		goto out;
	for (round = 0; round < rounds; round++) {
		tokenizer_encoder_destroy(&enc);
		if ((rc = tokenizer_encoder_new(&enc, tok)) != 0)
			goto out;
		for (k = 0; k < 2; k++) {
			if ((rc = encode_all(enc, text, n, &ids, &seconds, &note)) != 0)
				goto out;
			r[k].value[round] = (double)n / seconds / 1e6;
		}
		bytes.n = 0;
		start = now();
		if ((rc = tokenizer_decode(tok, ids.ids, ids.n, 0, &bytes, &note)) != 0)
			goto out;
		r[2].value[round] = (double)bytes.n / (now() - start) / 1e6;
		for (k = 0; k < 3; k++) {
			if ((rc = worst(tok, k, &r[3 + k].value[round], &note)) != 0)
				goto out;
		}
	}
	printf("%s: %zu bytes, %zu ids, %s\n", argv[1], n, ids.n, tokenizer_describe(tok));
	for (i = 0; i < sizeof r / sizeof r[0]; i++) {
		qsort(r[i].value, (size_t)rounds, sizeof r[i].value[0], by_value);
		printf("  %-28s %8.1f MB/s\n", r[i].name, r[i].value[rounds / 2]);
	}
	if (json != NULL && write_json(json, r, sizeof r / sizeof r[0], rounds) != 0)
		rc = ERR_LIBRARY;
out:
	if (rc != 0)
		fprintf(stderr, "bench_tokenizer: %s\n", err_note_str(&note, rc, line, sizeof line));
	tokenizer_encoder_destroy(&enc);
	tokenizer_destroy(&tok);
	free(ids.ids);
	free(bytes.bytes);
	free(text);
	return err_exit_code(rc);
}
