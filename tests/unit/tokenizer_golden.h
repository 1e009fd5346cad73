/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer_golden - loads the tokenizers of tests/golden/tokenizer, for tests of their ids and files. */
#ifndef SALT_TOKENIZER_GOLDEN_H
#define SALT_TOKENIZER_GOLDEN_H

#include "check.h"
#include "data/tokenizer/tokenizer.h"

#define GOLDEN "tests/golden/tokenizer/"

static const char *const kinds[] = {"gpt2", "llama3", "smollm2", "qwen2", "prefix"};
#define N_KINDS 5
static const char *const texts[] = {"code", "hand", "spaces", "points", "marks", "broken", "lone", "all", "long", "added", "empty"};
#define N_TEXTS 11

static inline unsigned char *
read_file(const char *path, size_t *n)
{
	FILE *f = fopen(path, "rb");
	unsigned char *p;

	*n = 0;
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

static inline struct tokenizer *
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

static inline struct tokenizer *
load_kind(size_t k)
{
	char path[256];

	snprintf(path, sizeof path, GOLDEN "%s.json", kinds[k]);
	return load(path);
}

#endif
