/* SPDX-License-Identifier: Apache-2.0 */
#include "data/select/file.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json/json.h"
#include "base/mem/mem.h"
#include "data/corpus/blend.h"

struct reader {
	struct select_file *f;
	const char *name;
	uint64_t line;				/* number of the current line, from 1 */
	uint64_t first;				/* line that decided the form */
	uint64_t *line_of;			/* [n_windows] line of each sequence, 0: none yet */
	size_t cap;
	struct err_note *note;
};

#define bad(r, rc, member, expected, ...) \
	err_expect_at((r)->note, rc, "%s", "line %" PRIu64 member, expected, __VA_ARGS__)

/* Reads a score. A number that overflows single precision is rejected. */
static int
take_score(struct reader *r, const struct json *member, uint64_t seq)
{
	double score;

	if (!json_num(member, &score))
		return bad(r, ERR_FORMAT, ": score", "a number, as in line %" PRIu64, "%s", r->name, r->line, r->first,
		    member == NULL ? "none" : json_kind_name(json_kind(member)));
	if (!isfinite((float)score))
		return bad(r, ERR_RANGE, ": score", "a number of single precision", "%g", r->name, r->line, score);
	r->f->score[seq] = (float)score;
	return 0;
}

/* At the first object, which decides whether the file has scores: allocates place or score. */
static int
begin(struct reader *r, bool scores)
{
	struct select_file *f = r->f;

	r->first = r->line;
	if (!scores)
		return (f->place = mem_alloc(f->n_windows, sizeof(*f->place))) != NULL ? 0 : ENOMEM;
	if ((f->score = mem_alloc(f->n_windows, sizeof(*f->score))) == NULL)
		return ENOMEM;
	for (uint64_t i = 0; i < f->n_windows; i++)
		f->score[i] = NAN;
	return 0;
}

static int
take_object(struct reader *r, const struct json *o)
{
	struct select_file *f = r->f;
	const struct json *score = json_get(o, "score"), *sequence = json_get(o, "sequence");
	int64_t seq;
	int rc;

	if (json_kind(o) != JSON_KIND_OBJECT)
		return bad(r, ERR_FORMAT, "", "an object {\"sequence\": N, ...}", "%s", r->name, r->line,
		    json_kind_name(json_kind(o)));
	if (!json_int(sequence, &seq))
		return bad(r, ERR_FORMAT, ": sequence", "a whole number", "%s", r->name, r->line,
		    sequence == NULL ? "none" : json_kind_name(json_kind(sequence)));
	if (seq < 0 || (uint64_t)seq >= f->n_windows)
		return bad(r, ERR_RANGE, ": sequence", "0 to %" PRIu64 ", the sequences of the corpus at this context",
		    "%" PRId64, r->name, r->line, f->n_windows - 1, seq);
	if (r->line_of[seq] != 0)
		return bad(r, ERR_FORMAT, ": sequence", "each sequence once",
		    "%" PRId64 ", also in line %" PRIu64,
		    r->name, r->line, seq, r->line_of[seq]);
	r->line_of[seq] = r->line;
	if (r->first == 0 && (rc = begin(r, score != NULL)) != 0)
		return rc;
	if (f->score != NULL) {
		if ((rc = take_score(r, score, (uint64_t)seq)) != 0)
			return rc;
	} else if (score != NULL) {
		return bad(r, ERR_FORMAT, ": score", "no score, as in line %" PRIu64, "a score",
		    r->name, r->line, r->first);
	} else {
		if ((rc = mem_grow((void **)&f->list, &r->cap, f->n + 1, sizeof(*f->list))) != 0)
			return rc;
		f->list[f->n] = (uint64_t)seq;
	}
	f->n++;
	return 0;
}

static int
take_line(struct reader *r, const char *text, size_t len)
{
	struct err_note why = {.name = ""};
	struct json *o;
	int rc;

	r->line++;
	while (len > 0 && strchr(" \t\r\n", text[len - 1]) != NULL)
		len--;
	if (len == 0)
		return 0;
	if ((rc = json_parse(text, len, r->name, &o, &why)) == ERR_FORMAT)
		return bad(r, rc, "", "a JSON object without NaN", "%s", r->name, r->line, why.found);
	if (rc == 0)
		rc = take_object(r, o);
	json_close(&o);
	return rc;
}

static void
identify(struct select_file *f, struct hash_state *h)
{
	hash_field_str(h, "kind", f->list != NULL ? "salt selection list 1" : "salt selection scores 1");
	hash_field_begin(h, "sequences", f->n * (f->list != NULL ? 8 : 12));
	for (uint64_t i = 0; i < (f->list != NULL ? f->n : f->n_windows); i++) {
		uint64_t seq = f->list != NULL ? f->list[i] : i;
		uint32_t bits = 0;
		uint8_t bytes[12];

		if (f->list == NULL && isnan(f->score[i]))
			continue;
		if (f->list == NULL)
			memcpy(&bits, &f->score[i], sizeof(bits));
		for (int b = 0; b < 12; b++)
			bytes[b] = (uint8_t)(b < 8 ? seq >> 8 * b : bits >> 8 * (b - 8));
		hash_update(h, bytes, f->list != NULL ? 8 : 12);
	}
	f->hash = hash_digest(h);
}

static int
complete(struct reader *r)
{
	struct select_file *f = r->f;
	struct hash_state *h;

	if (f->n == 0)
		return err_expect(r->note, ERR_FORMAT, "%s", "a line {\"sequence\": N} or {\"sequence\": N, \"score\": S}", "none",
		    r->name);
	for (uint64_t i = 0; f->list != NULL && i < f->n_windows; i++)
		f->place[i] = UINT64_MAX;
	for (uint64_t i = 0; f->list != NULL && i < f->n; i++)
		f->place[f->list[i]] = i;
	if ((h = hash_new()) == NULL)
		return ENOMEM;
	identify(f, h);
	hash_destroy(&h);
	return 0;
}

int
select_file_read(struct select_file **out, const char *path, const char *name, uint64_t n_windows, struct err_note *note)
{
	struct reader r = {.f = calloc(1, sizeof(*r.f)), .name = name, .note = note};
	char *text = NULL;
	size_t cap = 0;
	ssize_t len;
	FILE *file;
	int rc = ENOMEM;

	*out = NULL;
	if ((file = fopen(path, "re")) == NULL) {
		free(r.f);
		return err_note_set(note, errno, "%s", name);
	}
	if (r.f == NULL || (r.line_of = mem_alloc(n_windows, sizeof(*r.line_of))) == NULL)
		goto out;
	r.f->n_windows = n_windows;
	rc = 0;
	while (rc == 0 && (errno = 0, len = getline(&text, &cap, file)) >= 0)
		rc = take_line(&r, text, (size_t)len);
	if (rc == 0 && (rc = ferror(file) ? errno != 0 ? errno : EIO : errno) != 0)
		err_note_set(note, rc, "%s", name);
	if (rc == 0)
		rc = complete(&r);
out:
	fclose(file);
	free(text);
	free(r.line_of);
	if (rc == 0)
		*out = r.f;
	else
		select_file_destroy(&r.f);
	return rc;
}

void
select_file_destroy(struct select_file **f)
{
	if (*f == NULL)
		return;
	free((*f)->list);
	free((*f)->place);
	free((*f)->score);
	free(*f);
	*f = NULL;
}

int
select_file_check(const struct select_file *f, const struct blend *order, uint32_t seed, uint64_t n_rows, uint64_t window,
    uint64_t kept, struct err_note *note)
{
	uint64_t all = blend_round(order);
	uint64_t n_blocks = n_rows == 0 ? 0 : (n_rows - 1) / kept + 1, end;

	if (f->list != NULL)
		return f->n >= n_rows ? 0 : err_expect(note, ERR_RANGE, "selector.file",
		    "at least %" PRIu64 " sequences, the rows that phase one can need", "%" PRIu64, n_rows, f->n);
	end = n_blocks < all / window + 1 ? n_blocks * window : all;
	end = end < all ? end : all;		/* later positions repeat the same sequences */
	if (f->n < end && all == f->n_windows)
		return err_expect(note, ERR_RANGE, "selector.file", "scores of at least %" PRIu64 " sequences, which the blocks of "
		    "phase one have", "of %" PRIu64, end, f->n);
	for (uint64_t p = 0; f->n < f->n_windows && p < end; p++) {
		uint64_t seq = blend_order(order, seed, p);

		if (isnan(f->score[seq]))
			return err_expect(note, ERR_RANGE, "selector.file", "a score of sequence %" PRIu64 ", which block %" PRIu64
			    " has at run.seed %" PRIu32, "none; it has %" PRIu64 " scores", seq, p / window, seed, f->n);
	}
	return 0;
}
