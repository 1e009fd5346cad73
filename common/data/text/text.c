/* SPDX-License-Identifier: Apache-2.0 */
#include "data/text/text.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "base/json/json.h"
#include "base/mem/mem.h"

#define READ_BYTES (256u << 10)
#define ZSTD_WINDOW_LOG 31		/* as zstd --long=31 writes: up to 2 GiB of memory, only for files that need it */

struct text {
	struct text_options o;
	char **files;
	size_t n_files, cap_files, next;
	uint64_t total, n_read, n_bad;
	bool endless;				/* at least one source has no known size */
	/* the open source */
	int fd;					/* -1: none */
	const char *name;
	bool jsonl, started, at_end;
	ZSTD_DStream *z;			/* NULL: plain */
	size_t z_wants;				/* hint from zstd: 0 between frames */
	unsigned char *raw;			/* compressed bytes */
	ZSTD_inBuffer in;
	unsigned char *buf;			/* text not yet returned: [begin, end) */
	size_t begin, end, cap;
	uint64_t line;
	/* the document */
	unsigned char *doc;
	size_t n_doc, cap_doc;
	struct json *json;
};

static int
add_file(struct text *t, const char *path, const struct stat *st)
{
	if (mem_grow((void **)&t->files, &t->cap_files, t->n_files + 1, sizeof(*t->files)) != 0 ||
	    (t->files[t->n_files] = strdup(path)) == NULL)
		return ENOMEM;
	t->n_files++;
	if (st != NULL && S_ISREG(st->st_mode))
		t->total += (uint64_t)st->st_size;
	else
		t->endless = true;
	return 0;
}

static int
by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int
add_folder(struct text *t, const char *path, struct err_note *note)
{
	char *paths[2] = {(char *)path, NULL};
	FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, by_name);
	size_t before = t->n_files;
	struct stat st;
	FTSENT *e;
	int rc = 0;

	if (fts == NULL)
		return err_note_set(note, errno, "%s", path);
	while (rc == 0 && (e = fts_read(fts)) != NULL) {
		if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR || e->fts_info == FTS_NS)
			rc = err_note_set(note, e->fts_errno, "%s", e->fts_path);
		else if (e->fts_level > 0 && e->fts_name[0] == '.')
			fts_set(fts, e, FTS_SKIP);
		else if ((e->fts_info == FTS_F || e->fts_info == FTS_SL) && (t->o.only == NULL || fnmatch(t->o.only, e->fts_name, 0) == 0) &&
		    stat(e->fts_path, &st) == 0 && S_ISREG(st.st_mode))
			rc = add_file(t, e->fts_path, &st);
	}
	fts_close(fts);
	if (rc == 0 && t->n_files == before) {
		rc = err_expect(note, ERR_NOT_FOUND, "%s", "a folder with files%s%s", "", path,
		    t->o.only != NULL ? " that match " : "", t->o.only != NULL ? t->o.only : "");
	}
	return rc;
}

int
text_open(struct text **out, const char *const *paths, size_t n, const struct text_options *options, struct err_note *note)
{
	struct text *t = calloc(1, sizeof(*t));
	struct stat st;
	int rc = 0;

	*out = NULL;
	if (t == NULL)
		return ENOMEM;
	t->o = *options;
	t->fd = -1;
	for (size_t i = 0; i < n && rc == 0; i++) {
		if (strcmp(paths[i], "-") == 0)
			rc = add_file(t, "-", fstat(STDIN_FILENO, &st) == 0 ? &st : NULL);
		else if (stat(paths[i], &st) != 0)
			rc = err_note_set(note, errno, "%s", paths[i]);
		else
			rc = S_ISDIR(st.st_mode) ? add_folder(t, paths[i], note) : add_file(t, paths[i], &st);
	}
	if (rc != 0)
		text_close(&t);
	*out = t;
	return rc;
}

static void
source_close(struct text *t)
{
	if (t->fd > STDIN_FILENO)
		close(t->fd);
	t->fd = -1;
	ZSTD_freeDStream(t->z);
	t->z = NULL;
}

void
text_close(struct text **text)
{
	struct text *t = *text;

	if (t == NULL)
		return;
	source_close(t);
	for (size_t i = 0; i < t->n_files; i++)
		free(t->files[i]);
	json_close(&t->json);
	free(t->files);
	free(t->raw);
	free(t->buf);
	free(t->doc);
	free(t);
	*text = NULL;
}

static bool
ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && strcmp(s + n - m, end) == 0;
}

static int
source_open(struct text *t, struct err_note *note)
{
	t->name = t->files[t->next++];
	t->fd = STDIN_FILENO;
	if (strcmp(t->name, "-") != 0 && (t->fd = open(t->name, O_RDONLY | O_CLOEXEC)) < 0)
		return err_note_set(note, errno, "%s", t->name);
	t->jsonl = t->o.jsonl || ends_with(t->name, ".jsonl") || ends_with(t->name, ".ndjson") || ends_with(t->name, ".jsonl.zst") ||
	    ends_with(t->name, ".ndjson.zst");
	t->started = t->at_end = false;
	t->begin = t->end = 0;
	t->line = 0;
	return 0;
}

/* Up to n bytes of the file; *got 0 at its end. */
static int
read_raw(struct text *t, unsigned char *p, size_t n, size_t *got, struct err_note *note)
{
	ssize_t r;

	do
		r = read(t->fd, p, n);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return err_note_set(note, errno, "%s", t->name);
	*got = (size_t)r;
	t->n_read += *got;
	return 0;
}

/* Decides from the first bytes of a source whether it is compressed. */
static int
source_start(struct text *t, struct err_note *note)
{
	size_t n = 0, got = 1;
	int rc = 0;

	t->started = true;
	if (t->raw == NULL && (t->raw = malloc(READ_BYTES)) == NULL)
		return ENOMEM;
	while (n < 4 && got > 0 && (rc = read_raw(t, t->raw + n, READ_BYTES - n, &got, note)) == 0)
		n += got;
	t->in = (ZSTD_inBuffer){.src = t->raw, .size = n};
	if (rc != 0 || n < 4 || memcmp(t->raw, "\x28\xb5\x2f\xfd", 4) != 0) {
		if (rc == 0 && ends_with(t->name, ".zst") && n > 0) {
			rc = err_expect_at(note, ERR_FORMAT, "%s", "byte 0", "a zstd frame, because the name ends in .zst",
			    "", t->name);
		}
		return rc;
	}
	if ((t->z = ZSTD_createDStream()) == NULL)
		return ENOMEM;
	ZSTD_DCtx_setParameter(t->z, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
	t->z_wants = 1;
	return 0;
}

static int
fill_zstd(struct text *t, struct err_note *note)
{
	ZSTD_outBuffer out = {.dst = t->buf + t->end, .size = t->cap - t->end};
	size_t got = 0;
	int rc;

	while (out.pos == 0 && !t->at_end) {
		if (t->in.pos == t->in.size) {
			if ((rc = read_raw(t, t->raw, READ_BYTES, &got, note)) != 0)
				return rc;
			t->in = (ZSTD_inBuffer){.src = t->raw, .size = got};
			t->at_end = got == 0;
			if (t->at_end && t->z_wants != 0)
				return err_expect_at(note, ERR_FORMAT, "%s", "byte %llu",
				    "the rest of a zstd frame", "the end of the file", t->name,
				    (unsigned long long)t->n_read);
			continue;
		}
		t->z_wants = ZSTD_decompressStream(t->z, &out, &t->in);
		if (ZSTD_isError(t->z_wants))
			return err_expect(note, ERR_FORMAT, "%s", "zstd data", "%s", t->name,
			    ZSTD_getErrorName(t->z_wants));
	}
	t->end += out.pos;
	return 0;
}

/* More text into buf, or at_end. */
static int
fill(struct text *t, struct err_note *note)
{
	size_t got = 0, n;
	int rc;

	if (!t->started && (rc = source_start(t, note)) != 0)
		return rc;
	if (t->begin > 0 && t->begin * 2 > t->end) {
		memmove(t->buf, t->buf + t->begin, t->end - t->begin);
		t->end -= t->begin;
		t->begin = 0;
	}
	if (mem_grow((void **)&t->buf, &t->cap, t->end + READ_BYTES, 1) != 0)
		return ENOMEM;
	if (t->z != NULL)
		return fill_zstd(t, note);
	if (t->in.pos < t->in.size) {			/* the bytes read to detect compression */
		n = t->in.size - t->in.pos;
		memcpy(t->buf + t->end, t->raw + t->in.pos, n);
		t->in.pos += n;
		t->end += n;
		return 0;
	}
	if ((rc = read_raw(t, t->buf + t->end, t->cap - t->end, &got, note)) != 0)
		return rc;
	t->end += got;
	t->at_end = got == 0;
	return 0;
}

/* One line, its newline included if it has one; ERR_NOT_FOUND at the end of the source. */
static int
next_line(struct text *t, const unsigned char **line, size_t *n, struct err_note *note)
{
	size_t looked = 0;
	const unsigned char *newline;
	int rc;

	for (;;) {
		size_t have = t->end - t->begin;

		newline = have > looked ? memchr(t->buf + t->begin + looked, '\n', have - looked) : NULL;
		if (newline != NULL || t->at_end) {
			*line = t->buf + t->begin;
			*n = newline != NULL ? (size_t)(newline - *line) + 1 : have;
			t->begin += *n;
			t->line++;
			return *n > 0 ? 0 : ERR_NOT_FOUND;
		}
		looked = have;
		if ((rc = fill(t, note)) != 0)
			return rc;
	}
}

static size_t
without_end(const unsigned char *line, size_t n)
{
	if (n > 0 && line[n - 1] == '\n')
		n--;
	if (n > 0 && line[n - 1] == '\r')
		n--;
	return n;
}

static int
next_json(struct text *t, const unsigned char **doc, size_t *n, struct err_note *note)
{
	const unsigned char *line;
	const char *text = NULL;
	struct err_note why = {.name = ""};
	size_t len;
	int rc;

	for (;;) {
		json_close(&t->json);
		if ((rc = next_line(t, &line, &len, note)) != 0)
			return rc;
		if (without_end(line, len) == 0)
			continue;
		rc = json_parse((const char *)line, len, t->name, &t->json, &why);
		if (rc == 0 && json_text_n(json_get(t->json, t->o.field), &text, n)) {
			*doc = (const unsigned char *)text;
			return 0;
		}
		if (rc == ENOMEM)
			return rc;
		if (!t->o.skip_bad)
			break;
		t->n_bad++;
	}
	err_note_set(note, ERR_FORMAT, "%s", t->name);
	err_note_place(note, "line %llu", (unsigned long long)t->line);
	if (rc != 0) {
		err_note_expected(note, "one JSON object");
		err_note_found(note, "%.150s%s%.150s", why.place, why.found[0] != '\0' ? ": " : "", why.found);
	} else {
		err_note_expected(note, "an object with the text field \"%s\" (see --field)", t->o.field);
		err_note_found(note, "%s", json_kind(t->json) == JSON_KIND_OBJECT ? json_kind_name(json_kind(json_get(t->json, t->o.field))) :
		    json_kind_name(json_kind(t->json)));
	}
	return ERR_FORMAT;
}

/* Lines up to a separator, or the whole source. */
static int
next_joined(struct text *t, const unsigned char **doc, size_t *n, struct err_note *note)
{
	const unsigned char *line;
	size_t len, bare;
	bool cut = false;
	int rc = 0;

	t->n_doc = 0;
	while (!cut && (rc = next_line(t, &line, &len, note)) == 0) {
		bare = without_end(line, len);
		cut = (t->o.split == TEXT_SPLIT_BLANK && bare == 0) ||
		    (t->o.split == TEXT_SPLIT_MARK && bare == strlen(t->o.mark) && memcmp(line, t->o.mark, bare) == 0);
		if (cut)
			continue;
		if (mem_grow((void **)&t->doc, &t->cap_doc, t->n_doc + len, 1) != 0)
			return ENOMEM;
		memcpy(t->doc + t->n_doc, line, len);
		t->n_doc += len;
	}
	*doc = t->doc;
	*n = t->n_doc;
	return rc == ERR_NOT_FOUND && t->n_doc > 0 ? 0 : rc;
}

int
text_next(struct text *t, const unsigned char **doc, size_t *n, struct err_note *note)
{
	int rc;

	for (;;) {
		if (t->fd < 0) {
			if (t->next == t->n_files)
				return ERR_NOT_FOUND;
			if ((rc = source_open(t, note)) != 0)
				return rc;
		}
		if (t->jsonl) {
			rc = next_json(t, doc, n, note);
		} else if (t->o.split == TEXT_SPLIT_LINE) {
			if ((rc = next_line(t, doc, n, note)) == 0)
				*n = without_end(*doc, *n);
		} else {
			rc = next_joined(t, doc, n, note);
		}
		if (rc == ERR_NOT_FOUND)
			source_close(t);
		else if (rc != 0 || *n > 0)
			return rc;
	}
}

size_t
text_n_files(const struct text *t)
{
	return t->n_files;
}

uint64_t
text_total_bytes(const struct text *t)
{
	return t->endless ? 0 : t->total;
}

uint64_t
text_read_bytes(const struct text *t)
{
	return t->n_read;
}

uint64_t
text_n_bad(const struct text *t)
{
	return t->n_bad;
}
