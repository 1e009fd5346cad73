/* SPDX-License-Identifier: Apache-2.0 */
#include "data/text/text_internal.h"

#include <errno.h>
#include <fnmatch.h>
#include <fts.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json/json.h"
#include "base/mem/mem.h"

#define READ_BYTES (256u << 10)
#define WANTED "text or JSON, plain or compressed by gzip, bzip2, xz or zstd"

enum mode {
	MODE_PLAIN,
	MODE_LINES,			/* a JSON object on each line */
	MODE_OBJECTS,			/* JSON objects over any lines, alone or in arrays */
	MODE_LEFT_OUT
};

struct file {
	char *name;
	bool in_folder;
};

struct text {
	struct text_options o;
	struct file *files;
	size_t n_files, cap_files, next;
	uint64_t total, n_read;			/* bytes of all sources; read from earlier sources */
	bool endless;				/* at least one source has no known size */
	struct text_tally tally[TEXT_TALLIES];
	/* the open source */
	const struct file *file;		/* NULL: none */
	struct text__source source;
	const char *name;
	enum mode mode;
	bool at_end, in_array;
	uint64_t n_documents;
	unsigned char *buf;			/* text not yet returned: [begin, end) */
	size_t begin, end, cap;
	uint64_t line, record;			/* where the last document or record began */
	uint64_t newlines;			/* lines taken from the source so far */
	/* the document */
	unsigned char *doc;
	size_t n_doc, cap_doc;
	struct json_scan scan, scan_weight;
	double weight;
};

int
text_tally_add(struct text_tally *tally, uint64_t count, const char *fmt, ...)
{
	va_list ap;
	int n, i = 0;

	tally->n += count;
	while (i < TEXT_TALLY_FIRST && tally->first[i] != NULL)
		i++;
	if (i == TEXT_TALLY_FIRST)
		return 0;
	va_start(ap, fmt);
	n = vasprintf(&tally->first[i], fmt, ap);
	va_end(ap);
	if (n < 0)
		tally->first[i] = NULL;
	return n < 0 ? ENOMEM : 0;
}

static int
add_file(struct text *t, const char *path, const struct stat *st, bool in_folder)
{
	if (mem_grow((void **)&t->files, &t->cap_files, t->n_files + 1, sizeof(*t->files)) != 0 ||
	    (t->files[t->n_files].name = strdup(path)) == NULL)
		return ENOMEM;
	t->files[t->n_files++].in_folder = in_folder;
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

/* Adds or counts an entry of a folder. A dangling link is an error: its data were probably not fetched. */
static int
add_entry(struct text *t, FTS *fts, FTSENT *e, struct err_note *note)
{
	struct stat st;

	if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR || e->fts_info == FTS_NS)
		return err_note_set(note, e->fts_errno, "%s", e->fts_path);
	if (e->fts_level == 0 || e->fts_info == FTS_DP)
		return 0;
	if (e->fts_name[0] == '.') {
		fts_set(fts, e, FTS_SKIP);
		return text_tally_add(&t->tally[TEXT_TALLY_HIDDEN], 1, "%s", e->fts_path);
	}
	if (e->fts_info == FTS_D)
		return 0;
	if (t->o.only != NULL && fnmatch(t->o.only, e->fts_name, 0) != 0)
		return text_tally_add(&t->tally[TEXT_TALLY_NOT_ONLY], 1, "%s", e->fts_path);
	if (stat(e->fts_path, &st) != 0)
		return err_expect(note, errno, "%s", "a file, or a name that --only leaves out", "a link whose target cannot be read",
		    e->fts_path);
	if (!S_ISREG(st.st_mode))
		return text_tally_add(&t->tally[TEXT_TALLY_NO_FILE], 1, "%s", e->fts_path);
	return add_file(t, e->fts_path, &st, true);
}

static int
add_folder(struct text *t, const char *path, struct err_note *note)
{
	char *paths[2] = {(char *)path, NULL};
	FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, by_name);
	size_t before = t->n_files;
	FTSENT *e;
	int rc = 0;

	if (fts == NULL)
		return err_note_set(note, errno, "%s", path);
	while (rc == 0 && (errno = 0, e = fts_read(fts)) != NULL)
		rc = add_entry(t, fts, e, note);
	if (rc == 0 && errno != 0)
		rc = err_note_set(note, errno, "%s", path);
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
	t->source.fd = -1;
	for (size_t i = 0; i < n && rc == 0; i++) {
		if (strcmp(paths[i], "-") == 0)
			rc = add_file(t, "-", fstat(STDIN_FILENO, &st) == 0 ? &st : NULL, false);
		else if (stat(paths[i], &st) != 0)
			rc = err_note_set(note, errno, "%s", paths[i]);
		else
			rc = S_ISDIR(st.st_mode) ? add_folder(t, paths[i], note) : add_file(t, paths[i], &st, false);
	}
	if (rc == ENOMEM)
		err_note_set(note, rc, "the list of inputs");
	if (rc != 0)
		text_close(&t);
	*out = t;
	return rc;
}

void
text_close(struct text **text)
{
	struct text *t = *text;

	if (t == NULL)
		return;
	text__source_close(&t->source);
	text__source_free(&t->source);
	for (size_t i = 0; i < t->n_files; i++)
		free(t->files[i].name);
	for (size_t i = 0; i < TEXT_TALLIES * TEXT_TALLY_FIRST; i++)
		free(t->tally[i / TEXT_TALLY_FIRST].first[i % TEXT_TALLY_FIRST]);
	json_scan_free(&t->scan);
	json_scan_free(&t->scan_weight);
	free(t->files);
	free(t->buf);
	free(t->doc);
	free(t);
	*text = NULL;
}

/* Reads more text into buf, or sets at_end. */
static int
fill(struct text *t, struct err_note *note)
{
	size_t got;
	int rc;

	if (t->begin > 0 && t->begin * 2 > t->end) {
		memmove(t->buf, t->buf + t->begin, t->end - t->begin);
		t->end -= t->begin;
		t->begin = 0;
	}
	if (mem_grow((void **)&t->buf, &t->cap, t->end + READ_BYTES, 1) != 0)
		return ENOMEM;
	if ((rc = text__source_read(&t->source, t->buf + t->end, t->cap - t->end, &got, note)) != 0)
		return rc;
	t->end += got;
	t->at_end = got == 0;
	return 0;
}

/* Reads until buf has at least n bytes, or all that are left. */
static int
fill_to(struct text *t, size_t n, struct err_note *note)
{
	int rc = 0;

	while (rc == 0 && !t->at_end && t->end - t->begin < n)
		rc = fill(t, note);
	return rc;
}

/* Calls json_scan for the object at t->begin + skip, and reads more text as long as it needs more. */
static int
scan_object(struct text *t, size_t skip, struct err_note *note)
{
	int rc;

	while ((rc = json_scan(&t->scan, (const char *)t->buf + t->begin + skip, t->end - t->begin - skip,
		    t->o.field)) == ERR_AGAIN &&
	    !t->at_end)
		if ((rc = fill_to(t, 2 * (t->end - t->begin) + 1, note)) != 0)
			break;
	return rc;
}

/* Copies the first bytes at p into buf as printable text for a message. */
static const char *
quote(const unsigned char *p, size_t n, char buf[64])
{
	size_t at = 0;

	for (size_t i = 0; i < n && i < 40 && p[i] != '\n'; i++)
		buf[at++] = p[i] >= ' ' && p[i] < 127 ? (char)p[i] : '?';
	buf[at] = '\0';
	return buf;
}

/* Rejects a source: leaves it out if it is in a folder and leave_out is set, else returns an error. */
static int
refuse(struct text *t, bool leave_out, enum text_tally_kind kind, const char *what, const char *advice,
    struct err_note *note)
{
	if (leave_out && t->file->in_folder) {
		t->mode = MODE_LEFT_OUT;
		return text_tally_add(&t->tally[kind], 1, "%s: %s", t->name, what);
	}
	return err_expect(note, ERR_FORMAT, "%s", WANTED, "%s; %s", t->name, what, advice);
}

/*
 * Decides by the first object whether a source has one object per line or objects that span lines. If a
 * folder's file has only one object, and that lacks the text field, the file describes the data and is left
 * out.
 */
static int
classify_json(struct text *t, bool named, struct err_note *note)
{
	size_t skip = 0, used;
	const unsigned char *p;
	int rc;

	while (skip < t->end - t->begin && memchr(" \t\r\n", t->buf[t->begin + skip], 4) != NULL)
		skip++;
	t->mode = MODE_LINES;
	if (t->begin + skip < t->end && t->buf[t->begin + skip] == '[') {
		t->mode = MODE_OBJECTS;
		return 0;
	}
	if ((rc = scan_object(t, skip, note)) != 0 && rc != ERR_AGAIN && rc != ERR_FORMAT)
		return rc;
	p = t->buf + t->begin + skip;
	used = rc == 0 ? t->scan.used : t->end - t->begin - skip;
	if (rc == ERR_FORMAT)
		return 0;
	if (memchr(p, '\n', used) != NULL)
		t->mode = MODE_OBJECTS;
	if (rc != 0)
		return 0;
	for (used += skip; (rc = fill_to(t, used + 1, note)) == 0 && used < t->end - t->begin; used++) {
		int c = t->buf[t->begin + used];

		if (c == '{' && memchr(t->buf + t->begin + skip, '\n', used - skip) == NULL)
			t->mode = MODE_OBJECTS;
		if (memchr(" \t\r\n", c, 4) == NULL)
			return 0;
	}
	/* The source has only one object. */
	if (rc != 0 || named || t->o.skip_bad || (t->scan.found && t->scan.kind == JSON_KIND_TEXT))
		return rc;
	return refuse(t, true, TEXT_TALLY_NO_FIELD, "one JSON object without the text field",
	    "name it with --field, or give --text to read it as plain text", note);
}

/* Decides by the first bytes how a source is read. */
static int
classify(struct text *t, struct err_note *note)
{
	const char *what, *advice, *ending, *format;
	size_t bom = 0, n;
	char begins[64];
	bool stop, named;
	int rc;

	if ((rc = fill_to(t, TEXT__HEAD_BYTES, note)) != 0)
		return rc;
	if ((what = text__bom(t->buf, t->end, &bom)) != NULL) {
		t->begin = bom;
		if (strcmp(what, "UTF-8") != 0) {
			if ((rc = text__source_convert(&t->source, what, t->buf + bom, t->end - bom, note)) != 0)
				return rc;
			t->begin = t->end = 0;
			t->at_end = false;
			if ((rc = fill_to(t, TEXT__HEAD_BYTES, note)) != 0)
				return rc;
		}
	}
	t->mode = MODE_PLAIN;
	if (t->o.form == TEXT_FORM_PLAIN)
		return 0;
	n = t->end - t->begin;
	if ((what = text__not_text(t->buf + t->begin, n, &advice, &stop)) != NULL)
		return refuse(t, !stop, TEXT_TALLY_NOT_TEXT, what, advice, note);
	named = t->o.form == TEXT_FORM_JSON || text__named_json(t->name);
	if (n > 0 && (named || text__looks_json(t->buf + t->begin, n)))
		return classify_json(t, t->o.form == TEXT_FORM_JSON || (named && !text__ends_with(t->name, ".json")), note);
	/* A name of another format: the file is an error page of a download, or its beginning is damaged. */
	quote(t->buf + t->begin, n, begins);
	if (text__source_codec(&t->source) == NULL && (ending = text__codec_ending(t->name, &format)) != NULL)
		return err_expect_at(note, ERR_FORMAT, "%s", "byte 0", "%s data, because the name ends in %s",
		    "%s%s%s", t->name, format, ending, n > 0 ? "\"" : "an empty file", begins,
		    n > 0 ? "\"" : "");
	if ((what = text__named_binary(t->name)) != NULL)
		return err_expect_at(note, ERR_FORMAT, "%s", "byte 0", "%s, because of its name", "%s%s%s",
		    t->name, what, n > 0 ? "\"" : "an empty file", begins, n > 0 ? "\"" : "");
	return 0;
}

static int
source_open(struct text *t, struct err_note *note)
{
	int rc;

	t->file = &t->files[t->next++];
	t->at_end = t->in_array = false;
	t->begin = t->end = 0;
	t->newlines = t->record = t->n_documents = 0;
	rc = text__source_open(&t->source, t->file->name, note);
	t->name = t->source.name;
	if (rc == 0 && (rc = classify(t, note)) == 0 && t->mode != MODE_LEFT_OUT)
		rc = text_tally_add(&t->tally[t->mode == MODE_PLAIN ? TEXT_TALLY_PLAIN : TEXT_TALLY_JSON], 1, "%s", t->name);
	return rc;
}

static int
source_close(struct text *t)
{
	int rc = 0;

	if (t->mode != MODE_LEFT_OUT && t->n_documents == 0)
		rc = text_tally_add(&t->tally[TEXT_TALLY_NO_DOCUMENT], 1, "%s", t->name);
	t->n_read += t->source.n_raw;
	t->source.n_raw = 0;
	text__source_close(&t->source);
	t->file = NULL;
	return rc;
}

/* Gets the next line, with its newline if it has one; ERR_NOT_FOUND at the end of the source. */
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
			t->line = ++t->newlines;
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

static const char *
place_of(const struct text *t, char buf[64])
{
	unsigned long long line = t->line, record = t->record;

	snprintf(buf, 64, t->mode == MODE_OBJECTS ? "line %llu, object %llu" : "line %llu", line, record);
	return buf;
}

/* Handles a record without a document: an error; with skip_bad counts it and returns 0. */
static int
bad_record(struct text *t, const char *expected, const char *found, struct err_note *note)
{
	char place[64];

	if (t->o.skip_bad)
		return text_tally_add(&t->tally[TEXT_TALLY_BAD], 1, "%s: %s: %s", t->name, place_of(t, place), found);
	return err_expect_at(note, ERR_FORMAT, "%s", "%s", "%s", "%s", t->name, place_of(t, place), expected, found);
}

/* Reads the weight of the record at p, which json_scan accepted. *good: the record has a valid weight. */
static int
take_weight(struct text *t, const unsigned char *p, size_t n, bool *good, struct err_note *note)
{
	struct json_scan *s = &t->scan_weight;
	char expected[160], found[200], value[64], *end = NULL;
	int rc = json_scan(s, (const char *)p, n, t->o.weight_field);

	*good = false;
	if (rc != 0)
		return rc;
	snprintf(expected, sizeof(expected), "a weight in the field \"%.60s\", 0 or a number from %g to %g", t->o.weight_field, TEXT_WEIGHT_MIN,
	    TEXT_WEIGHT_MAX);
	if (!s->found || s->kind == JSON_KIND_ARRAY || s->kind == JSON_KIND_OBJECT) {
		snprintf(found, sizeof(found), s->found ? "a field of type %s" : "no such field", json_kind_name(s->kind));
		return bad_record(t, expected, found, note);
	}
	snprintf(found, sizeof(found), "%.*s", s->n_text < 60 ? (int)s->n_text : 60, s->text);
	snprintf(value, sizeof(value), "%.*s", s->n_text < sizeof(value) ? (int)s->n_text : 0, s->text);
	t->weight = strtod(value, &end);
	*good = s->kind == JSON_KIND_FLOAT && end > value && *end == '\0' &&
	    (t->weight == 0 || (t->weight >= TEXT_WEIGHT_MIN && t->weight <= TEXT_WEIGHT_MAX));
	if (s->kind == JSON_KIND_TEXT)
		snprintf(found, sizeof(found), "the text \"%s\"", quote((const unsigned char *)s->text, s->n_text, value));
	return *good ? 0 : bad_record(t, expected, found, note);
}

/* Gets the document from json_scan's result rc for the n bytes at p; *n_doc is 0 if there is none. */
static int
take_record(struct text *t, int rc, const unsigned char *p, size_t n, const unsigned char **doc,
    size_t *n_doc, struct err_note *note)
{
	char expected[128], found[160], begins[64], place[64];
	bool good;

	*n_doc = 0;
	if (rc == ERR_FORMAT || rc == ERR_AGAIN) {
		if (rc == ERR_AGAIN)
			snprintf(found, sizeof(found), "the end of the %s within it",
			    t->mode == MODE_LINES ? "line" : "file");
		else
			snprintf(found, sizeof(found), "\"%s\" in place of %s (byte %zu of it)",
			    quote(p + t->scan.used, n - t->scan.used, begins), t->scan.expected, t->scan.used);
		return bad_record(t, "one JSON object (--text reads the input as plain text)", found, note);
	}
	if (rc != 0)
		return rc;
	if (!t->scan.found || t->scan.kind != JSON_KIND_TEXT) {
		snprintf(expected, sizeof(expected), "an object with the text field \"%.60s\" (see --field)",
		    t->o.field);
		snprintf(found, sizeof(found), t->scan.found ? "a field of type %s" : "no such field", json_kind_name(t->scan.kind));
		return bad_record(t, expected, found, note);
	}
	if (t->o.weight_field != NULL && ((rc = take_weight(t, p, n, &good, note)) != 0 || !good))
		return rc;
	*doc = (const unsigned char *)t->scan.text;
	*n_doc = t->scan.n_text;
	if (t->scan.n_text > 0 && t->scan.n_replaced == 0)
		return 0;
	return text_tally_add(&t->tally[t->scan.n_text == 0 ? TEXT_TALLY_EMPTY : TEXT_TALLY_SURROGATES], 1, "%s: %s",
	    t->name, place_of(t, place));
}

/* Gets the document of the next line; *n 0: the line has none. */
static int
next_json_line(struct text *t, const unsigned char **doc, size_t *n, struct err_note *note)
{
	const unsigned char *line;
	size_t len, bom;
	int rc;

	*n = 0;
	if ((rc = next_line(t, &line, &len, note)) != 0)
		return rc;
	if (text__bom(line, len, &bom) != NULL && bom == 3) { /* from concatenated files */
		line += bom;
		len -= bom;
	}
	while (len > 0 && memchr(" \t\r\n", line[len - 1], 4) != NULL)
		len--;
	if (len == 0)
		return 0;
	if ((rc = json_scan(&t->scan, (const char *)line, len, t->o.field)) == 0 && t->scan.used < len) {
		t->scan.expected = "the end of the line";
		rc = ERR_FORMAT;
	}
	return take_record(t, rc, line, len, doc, n, note);
}

/* Gets the document of the next object, which may be in an array. */
static int
next_object(struct text *t, const unsigned char **doc, size_t *n, struct err_note *note)
{
	char place[64];
	bool bad;
	int rc;

	*n = 0;
	for (;; t->begin++) {
		int c;

		if ((rc = fill_to(t, 1, note)) != 0)
			return rc;
		if (t->begin == t->end && !t->in_array)
			return ERR_NOT_FOUND;
		c = t->begin < t->end ? t->buf[t->begin] : 0;
		t->newlines += c == '\n';
		if (c == '[' && !t->in_array)
			t->in_array = true;
		else if (c == ']' && t->in_array)
			t->in_array = false;
		else if (memchr(" \t\r\n", c, 4) == NULL && !(c == ',' && t->in_array))
			break;
	}
	t->line = t->newlines + 1;
	t->record++;
	rc = scan_object(t, 0, note);
	bad = rc != 0;
	*doc = t->buf + t->begin;
	rc = take_record(t, rc, *doc, t->end - t->begin, doc, n, note);
	if (rc != 0 || !bad) {
		for (size_t i = 0; !bad && i < t->scan.used; i++)
			t->newlines += t->buf[t->begin + i] == '\n';
		t->begin += bad ? 0 : t->scan.used;
		return rc;
	}
	return err_expect_at(note, ERR_FORMAT, "%s", "%s",
	    "a JSON object (--skip-bad-lines works only for JSON lines)",
	    "%s", t->name, place_of(t, place), t->begin == t->end ? "the end of the file within an array" : t->scan.expected);
}

/* Joins the lines up to a separator, or of the whole source, into a document. */
static int
next_joined(struct text *t, const unsigned char **doc, size_t *n, struct err_note *note)
{
	const unsigned char *line;
	size_t len, bare;
	uint64_t first = t->newlines + 1;
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
	t->line = first;
	return rc == ERR_NOT_FOUND && t->n_doc > 0 ? 0 : rc;
}

int
text_next(struct text *t, const unsigned char **doc, size_t *n, struct text_place *place, struct err_note *note)
{
	int rc;

	for (;;) {
		if (t->file == NULL) {
			if (t->next == t->n_files)
				return ERR_NOT_FOUND;
			if ((rc = source_open(t, note)) != 0)
				return rc;
		}
		if (t->mode == MODE_LEFT_OUT) {
			rc = ERR_NOT_FOUND;
		} else if (t->mode == MODE_LINES) {
			rc = next_json_line(t, doc, n, note);
		} else if (t->mode == MODE_OBJECTS) {
			rc = next_object(t, doc, n, note);
		} else if (t->o.split == TEXT_SPLIT_LINE) {
			if ((rc = next_line(t, doc, n, note)) == 0)
				*n = without_end(*doc, *n);
		} else {
			rc = next_joined(t, doc, n, note);
		}
		if (rc == ERR_NOT_FOUND && (rc = source_close(t)) == 0)
			continue;
		if (rc != 0 || *n > 0)
			break;
	}
	if (rc == ENOMEM)
		return err_note_set(note, rc, "%s", t->file != NULL ? t->name : "text");
	if (rc != 0)
		return rc;
	t->n_documents++;
	if (place != NULL)
		*place = (struct text_place){
		    .name = t->name, .line = t->line, .record = t->mode == MODE_OBJECTS ? t->record : 0};
	return 0;
}

double
text_weight(const struct text *t)
{
	return t->weight;
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
	return t->n_read + t->source.n_raw;
}

const struct text_tally *
text_tally(const struct text *t, enum text_tally_kind kind)
{
	return &t->tally[kind];
}
