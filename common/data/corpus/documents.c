/* SPDX-License-Identifier: Apache-2.0 */
/* Documents of Megatron files: finds a document by its number or by a token. */
#include "data/corpus/corpus_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json/json.h"
#include "base/mem/mem.h"

/* An open index; its content was checked by corpus_open. */
struct index {
	struct corpus__file file;
	uint64_t n, m;			/* sequences; document marks */
	unsigned width;			/* bytes of a token */
};

static int
number_at(const struct index *x, uint64_t at, uint64_t *out, struct err_note *note)
{
	return corpus__file_read(&x->file, at, out, 8, note);
}

static int
index_open(struct index *x, const struct corpus *c, const struct corpus__part *part, struct err_note *note)
{
	int rc = corpus__file_open(&x->file, part->idx_path, note);

	if (rc != 0)
		return rc;
	x->width = corpus__token_bytes(c->info.dtype);
	if ((rc = number_at(x, 18, &x->n, note)) == 0 && (rc = number_at(x, 26, &x->m, note)) == 0 &&
	    x->file.size != CORPUS__IDX_HEADER + 12 * x->n + 8 * x->m)
		rc = err_expect(note, ERR_CORRUPT, "%s", "the index that was opened at the start",
		    "another file with this name", part->idx_path);
	if (rc != 0)
		corpus__file_close(&x->file);
	return rc;
}

/* *token: where document k of the part begins; for k = m - 1 where the last one ends. */
static int
first_token(const struct index *x, const struct corpus__part *part, uint64_t k, uint64_t *token, struct err_note *note)
{
	uint64_t sequence, pointer;
	int rc = number_at(x, CORPUS__IDX_HEADER + 12 * x->n + 8 * k, &sequence, note);

	*token = part->n_tokens;
	if (rc != 0 || sequence >= x->n)
		return rc;
	if ((rc = number_at(x, CORPUS__IDX_HEADER + 4 * x->n + 8 * sequence, &pointer, note)) == 0)
		*token = pointer / x->width;
	return rc;
}

/*
 * Finds a document of part i by its number there or, if number is UINT64_MAX, by a token. before: documents
 * of earlier parts.
 */
static int
look(const struct corpus *c, size_t i, uint64_t number, uint64_t token, uint64_t before, struct corpus_document *out, struct err_note *note)
{
	const struct corpus__part *part = &c->parts[i];
	uint64_t lo = 0, hi, end, first;
	struct index x;
	int rc;

	if (part->idx_path == NULL)
		return err_expect(note, ERR_UNSUPPORTED, "%s", "a Megatron corpus, whose index has the documents", "%s", part->file.path,
		    corpus_kind_name(c->info.kind));
	if ((rc = index_open(&x, c, part, note)) != 0)
		return rc;
	if (number == UINT64_MAX) {
		/* The last document that begins at or before the token; others that begin there are empty. */
		for (hi = x.m - 1; rc == 0 && hi - lo > 1;) {
			uint64_t mid = lo + (hi - lo) / 2;

			if ((rc = first_token(&x, part, mid, &first, note)) == 0 && first <= token)
				lo = mid;
			else
				hi = mid;
		}
		number = lo;
	}
	if (rc == 0 && (rc = first_token(&x, part, number, &first, note)) == 0 && (rc = first_token(&x, part, number + 1, &end, note)) == 0)
		*out = (struct corpus_document){.number = before + number, .first_token = part->first + first, .n_tokens = end - first};
	corpus__file_close(&x.file);
	return rc;
}

/* *n: the documents of a part, one less than its marks; 0 without an index. */
static int
n_documents(const struct corpus *c, size_t i, uint64_t *n, struct err_note *note)
{
	struct index x;
	int rc;

	*n = 0;
	if (c->parts[i].idx_path == NULL)
		return 0;
	if ((rc = index_open(&x, c, &c->parts[i], note)) != 0)
		return rc;
	*n = x.m - 1;
	corpus__file_close(&x.file);
	return 0;
}

/* The number of tokens before document k of a part; for k = m - 1 all. The index was checked at open. */
static uint64_t
tokens_before(const struct corpus__documents *d, const struct corpus__part *part, uint64_t k)
{
	uint64_t n, sequence, pointer;

	memcpy(&n, d->index + 18, 8);
	memcpy(&sequence, d->index + CORPUS__IDX_HEADER + 12 * n + 8 * k, 8);
	if (sequence >= n)
		return part->n_tokens;
	memcpy(&pointer, d->index + CORPUS__IDX_HEADER + 4 * n + 8 * sequence, 8);
	return pointer / corpus__token_bytes(d->c->info.dtype);
}

int
corpus__documents_next(struct corpus__documents *d, uint64_t *first, uint64_t *n, struct err_note *note)
{
	for (; d->part < d->c->n_parts; d->part++, d->at = 0) {
		const struct corpus__part *part = &d->c->parts[d->part];
		struct index x;
		uint64_t end;
		size_t len;
		int rc;

		if (d->index == NULL) {
			if ((rc = index_open(&x, d->c, part, note)) != 0)
				return rc;
			len = (size_t)x.file.size;
			if ((d->index = mem_alloc(len, 1)) == NULL)
				rc = err_note_set(note, ENOMEM, "%s", part->idx_path);
			else
				rc = corpus__file_read(&x.file, 0, d->index, len, note);
			corpus__file_close(&x.file);
			if (rc != 0)
				return rc;
		}
		memcpy(&end, d->index + 26, 8);
		if (d->at + 1 < end) {
			*first = part->first + tokens_before(d, part, d->at);
			*n = part->first + tokens_before(d, part, d->at + 1) - *first;
			d->at++;
			return 0;
		}
		corpus__documents_end(d);
	}
	return ERR_NOT_FOUND;
}

void
corpus__documents_end(struct corpus__documents *d)
{
	free(d->index);
	d->index = NULL;
}

int
corpus_document(const struct corpus *c, uint64_t number, struct corpus_document *out, struct err_note *note)
{
	uint64_t before = 0, n;
	int rc;

	for (size_t i = 0; i < c->n_parts; i++, before += n) {
		if ((rc = n_documents(c, i, &n, note)) != 0)
			return rc;
		if (number - before < n || c->parts[i].idx_path == NULL)
			return look(c, i, number - before, 0, before, out, note);
	}
	return err_expect(note, ERR_RANGE, "%s", "a document below %" PRIu64, "%" PRIu64, c->stem, before, number);
}

int
corpus_document_at(const struct corpus *c, uint64_t token, struct corpus_document *out, struct err_note *note)
{
	uint64_t before = 0, n;
	int rc;

	for (size_t i = 0; i < c->n_parts; i++, before += n) {
		const struct corpus__part *part = &c->parts[i];

		if (token >= part->first && token - part->first < part->n_tokens)
			return look(c, i, UINT64_MAX, token - part->first, before, out, note);
		if ((rc = n_documents(c, i, &n, note)) != 0)
			return rc;
	}
	return err_expect(note, ERR_RANGE, "%s", "a token below %" PRIu64, "%" PRIu64, c->stem, c->info.n_tokens, token);
}

/* Reads one line: the document at which *file begins; *file: NULL in the last line. Caller closes *root. */
static int
read_source(const char *line, size_t len, const char *path, int64_t *document, const char **file, struct json **root, struct err_note *note)
{
	int rc = json_parse(line, len, path, root, note);

	if (rc != 0)
		return rc;
	*file = NULL;
	if (!json_int(json_get(*root, "document"), document) || *document < 0)
		return err_expect(note, ERR_FORMAT, "%s", "lines with a \"document\"", "", path);
	json_text(json_get(*root, "file"), file);
	return 0;
}

int
corpus_source(const struct corpus *c, uint64_t document, char *file, size_t size, uint64_t *nth, struct err_note *note)
{
	char path[CORPUS__PATH_MAX + 32], *line = NULL;
	struct json *root = NULL;
	int64_t at, first = 0, number = 0;
	const char *name;
	size_t cap = 0;
	ssize_t len;
	FILE *f;
	int rc = 0;

	if (c->n_parts != 1)
		return ERR_NOT_FOUND;
	snprintf(path, sizeof(path), "%s" CORPUS__SOURCES, c->stem);
	if ((f = fopen(path, "re")) == NULL)
		return errno == ENOENT ? ERR_NOT_FOUND : err_note_set(note, errno, "%s", path);
	file[0] = '\0';
	for (at = 0, len = getline(&line, &cap, f); rc == 0 && (len = getline(&line, &cap, f)) > 0; json_close(&root)) {
		if ((rc = read_source(line, (size_t)len, path, &at, &name, &root, note)) == 0 && name != NULL && (uint64_t)at <= document) {
			snprintf(file, size, "%s", name);
			first = at;
			number = 0;
			json_int(json_get(root, "first"), &number);
		}
	}
	if (rc == 0 && ferror(f))
		rc = err_note_set(note, EIO, "%s", path);
	if (rc == 0 && (file[0] == '\0' || (uint64_t)at != c->info.n_documents))
		rc = ERR_NOT_FOUND;
	*nth = document - (uint64_t)first + (uint64_t)number;
	fclose(f);
	free(line);
	return rc;
}
