/* SPDX-License-Identifier: Apache-2.0 */
/* Writes a table of figures, as JSON lines or as a safetensors file. */
#include "saltctl/scores/scores.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/weights/weights.h"
#include "saltctl/core/folder.h"
#include "saltctl/core/output.h"

#define ENDING ".safetensors"

/* The columns after the first, in the order of struct scores_row. */
static const struct {
	const char *name;
	enum weights_dtype dtype;
	bool of_bytes;				/* only if the length of the text is known */
} columns[SCORES_COLUMNS] = {
	{NULL, WEIGHTS_U64, false}, {"begin", WEIGHTS_U64, false}, {"end", WEIGHTS_U64, false}, {"tokens", WEIGHTS_U64, false},
	{"bytes", WEIGHTS_U64, true}, {"loss", WEIGHTS_F64, false}, {"bits_per_byte", WEIGHTS_F64, true},
	{"rank_share", WEIGHTS_F64, false}, {"score", WEIGHTS_F32, false},
};

bool
scores_is_safetensors(const char *path)
{
	size_t n = strlen(path), end = strlen(ENDING);

	return n > end && strcmp(path + n - end, ENDING) == 0;
}

int
scores_out_begin(struct scores_out *o, const char *path, const char *what, bool with_bytes, bool replace, struct err_note *note)
{
	bool tensors = scores_is_safetensors(path);
	char ours[64];
	int rc;

	*o = (struct scores_out){.what = what, .with_bytes = with_bytes};
	snprintf(o->path, sizeof(o->path), "%s", path);
	snprintf(ours, sizeof(ours), "{\"%s\": #, \"begin\": ", what);
	/* No safetensors file begins with 0xff, so an existing one is replaced only with --replace. */
	if ((rc = ctl_may_write(path, tensors ? "\xff" : ours, replace, note)) != 0)
		return rc;
	if (!tensors && (rc = file_replace_begin(&o->lines, path, note)) == 0)
		ctl_stop_removes(o->lines.temp);
	if (!tensors)
		return rc;
	return (rc = file_replaceable(path, note)) != 0 ? rc : file_make_parents(path, note);
}

static void
put(struct scores_out *o, size_t column, const void *value, size_t n)
{
	ctl_grow((void **)&o->column[column].bytes, &o->column[column].cap, o->column[column].len + n, 1);
	memcpy(o->column[column].bytes + o->column[column].len, value, n);
	o->column[column].len += n;
}

static void
put_line(FILE *f, const struct scores_out *o, const uint64_t *whole, const double *real, float score)
{
	for (size_t i = 0; i < SCORES_COLUMNS; i++) {
		const char *name = i == 0 ? o->what : columns[i].name, *before = i == 0 ? "{" : ", ";

		if (columns[i].of_bytes && !o->with_bytes)
			continue;
		if (i < 5)
			fprintf(f, "%s\"%s\": %" PRIu64, before, name, whole[i]);
		else if (i < 8 && isfinite(real[i - 5]))
			fprintf(f, "%s\"%s\": %.9g", before, name, real[i - 5]);
		else if (i == 8 && isfinite(score))
			fprintf(f, "%s\"%s\": %.9g", before, name, (double)score);	/* exact */
	}
	fputs("}\n", f);
}

void
scores_out_row(struct scores_out *o, const struct scores_row *r)
{
	const uint64_t whole[] = {r->number, r->begin, r->end, r->tokens, r->bytes};
	const double real[] = {r->loss, r->bits_per_byte, r->rank_share};

	o->n++;
	if (o->lines.f != NULL) {
		put_line(o->lines.f, o, whole, real, r->score);
		return;
	}
	for (size_t i = 0; i < SCORES_COLUMNS; i++)
		if (i < 5)
			put(o, i, &whole[i], sizeof(whole[i]));
		else if (i < 8)
			put(o, i, &real[i - 5], sizeof(real[i - 5]));
		else
			put(o, i, &r->score, sizeof(r->score));
}

static int
write_tensors(struct scores_out *o, struct err_note *note)
{
	struct weights_spec specs[SCORES_COLUMNS];
	struct weights_writer *w = NULL;
	char dir[4096], stem[256], temp[4400];
	char *slash = strrchr(o->path, '/');
	size_t n = 0;
	int rc;

	snprintf(dir, sizeof(dir), "%.*s", slash != NULL ? (int)(slash - o->path) : 1, slash != NULL ? o->path : ".");
	snprintf(stem, sizeof(stem), ".%.200s.%ld.tmp", slash != NULL ? slash + 1 : o->path, (long)getpid());
	snprintf(temp, sizeof(temp), "%s/%s" ENDING, slash == o->path ? "" : dir, stem);
	for (size_t i = 0; i < SCORES_COLUMNS; i++)
		if (!columns[i].of_bytes || o->with_bytes)
			specs[n++] = (struct weights_spec){.name = i == 0 ? o->what : columns[i].name, .dtype = columns[i].dtype,
			    .n_dims = 1, .shape = {o->n}};
	if ((rc = weights_writer_new(&w, slash == o->path ? "/" : dir, stem, specs, n, NULL, 0, 0, note)) != 0)
		return rc;
	for (size_t i = 0; rc == 0 && i < SCORES_COLUMNS; i++)
		if (!columns[i].of_bytes || o->with_bytes)
			rc = weights_writer_bytes(w, o->column[i].bytes, o->column[i].len, note);
	if (rc == 0 && (rc = weights_writer_finish(w, note)) == 0 && rename(temp, o->path) != 0)
		rc = err_note_set(note, errno, "%s", o->path);
	weights_writer_destroy(&w);
	return rc;
}

int
scores_out_end(struct scores_out *o, int rc, struct err_note *note)
{
	if (o->lines.f != NULL && rc == 0)
		rc = file_replace_end(&o->lines, true, note);
	else if (o->lines.f != NULL)
		file_replace_abort(&o->lines);
	else if (rc == 0 && o->path[0] != '\0')
		rc = write_tensors(o, note);
	ctl_stop_keeps(o->lines.temp);
	for (size_t i = 0; i < SCORES_COLUMNS; i++)
		free(o->column[i].bytes);
	*o = (struct scores_out){.n = o->n};
	return rc;
}
