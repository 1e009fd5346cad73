/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "saltctl/core/output.h"
#include "saltctl/watch/top.h"

#define BAR_MAX 40
#define SPARK_MAX 60
#define GAP 2				/* between columns */

/* ---- text of a given width ---- */

static bool
continues(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

static size_t
width_of(const char *s)
{
	size_t n = 0;

	for (; *s != '\0'; s++)
		n += !continues(*s);
	return n;
}

/* Number of bytes of the first n characters. */
static size_t
bytes_of(const char *s, size_t n)
{
	size_t i = 0;

	for (; s[i] != '\0' && (n > 0 || continues(s[i])); i++)
		if (!continues(s[i]))
			n--;
	return i;
}

void
top_lines_free(struct top_lines *lines)
{
	free(lines->line);
	*lines = (struct top_lines){.n = 0};
}

/* Adds a line of at most cols characters; bytes outside ASCII only if the terminal can show them. */
static void __attribute__((format(printf, 4, 5)))
add(struct top_lines *out, const struct top_look *look, enum top_attr attr, const char *fmt, ...)
{
	char text[TOP_COLS_MAX * 8];
	struct top_line *l = ctl_add(out->line, out->n, out->cap);
	size_t n;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	ctl_printable(text);
	l->attr = attr;
	for (char *p = text; !look->utf8 && *p != '\0'; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	n = bytes_of(text, (size_t)look->cols);
	if (n >= sizeof(l->text))
		n = sizeof(l->text) - 1;
	while (n > 0 && text[n - 1] == ' ')
		n--;
	memcpy(l->text, text, n);
	l->text[n] = '\0';
}

/* ---- what the trainer does ---- */

void
top_spark(const struct top_point *points, size_t n, size_t width, bool utf8, char *out)
{
	static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	static const char *const ascii[] = {"_", ".", "-", ":", "=", "+", "*", "#"};
	double column[TOP_COLS_MAX], low = INFINITY, high = -INFINITY;
	size_t columns = n < width ? n : width;

	out[0] = '\0';
	if (columns > TOP_COLS_MAX)
		columns = TOP_COLS_MAX;
	for (size_t c = 0; c < columns; c++) {
		size_t from = c * n / columns, to = (c + 1) * n / columns;

		column[c] = 0;
		for (size_t i = from; i < to; i++)
			column[c] += points[i].loss / (double)(to - from);
		low = fmin(low, column[c]);
		high = fmax(high, column[c]);
	}
	for (size_t c = 0; c < columns; c++) {
		size_t level = high > low ? (size_t)((column[c] - low) / (high - low) * 7.999) : 3;

		strcat(out, utf8 ? blocks[level] : ascii[level]);
	}
}

/* Draws the progress and the position of the switch: "[####>---|------]". */
static void
bar(const struct top *t, size_t width, char *out)
{
	size_t done = t->steps > 0 ? (size_t)((double)t->step / (double)t->steps * (double)width) : 0, at = SIZE_MAX, i;

	if (t->knows_switch && t->switch_step > 0 && t->switch_step < t->steps)
		at = (size_t)((double)t->switch_step / (double)t->steps * (double)width);
	out[0] = '[';
	for (i = 0; i < width; i++)
		out[i + 1] = i == at ? '|' : i < done ? '#' : '-';
	out[i + 1] = ']';
	out[i + 2] = '\0';
}

static const char *
eta(const struct top *t, int64_t step, char buf[32])
{
	double pace = top_pace(t);

	if (step <= t->step)
		return snprintf(buf, 32, "now"), buf;
	return pace > 0 ? ctl_span((double)(step - t->step) / pace, buf) : "?";
}

static const char *
phase_of(const struct top *t)
{
	return strcmp(t->phase, "one") == 0 ? "phase one" : strcmp(t->phase, "two") == 0 ? "phase two" : "starting";
}

static void
draw_switch(const struct top *t, const struct top_look *look, struct top_lines *out)
{
	char a[32], b[32], c[32], pace[40] = "", when[96];

	if (!t->knows_switch)
		snprintf(when, sizeof(when), "when the margin is met");
	else if (t->switch_step == 0)
		snprintf(when, sizeof(when), "none: a run without phase one");
	else if (t->step >= t->switch_step && strcmp(t->phase, "two") == 0)
		snprintf(when, sizeof(when), "was at step %" PRId64, t->switch_step);
	else
		snprintf(when, sizeof(when), "in %s (step %" PRId64 ")", eta(t, t->switch_step, a), t->switch_step);
	if (top_pace(t) > 0)
		snprintf(pace, sizeof(pace), "   %s steps/s", ctl_count(top_pace(t), c));
	add(out, look, TOP_PLAIN, "switch   %s   end %s%s%s", when, t->steps > t->step ? "in " : "",
	    eta(t, t->steps, b), pace);
}

static void
draw_loss(const struct top *t, const struct top_look *look, struct top_lines *out)
{
	char spark[TOP_COLS_MAX * 4 + 1], loss[32] = "-", heldout[48] = "";
	size_t left;

	if (isfinite(t->loss))
		snprintf(loss, sizeof(loss), "%.4f", t->loss);
	else if (t->n_points > 0)
		snprintf(loss, sizeof(loss), "%.4f", t->points[t->n_points - 1].loss);
	if (isfinite(t->heldout))
		snprintf(heldout, sizeof(heldout), "  held-out %.4f", t->heldout);
	left = (size_t)look->cols > 11 + strlen(loss) + strlen(heldout) ?
	    (size_t)look->cols - 11 - strlen(loss) - strlen(heldout) : 0;
	top_spark(t->points, t->n_points, left < SPARK_MAX ? left : SPARK_MAX, look->utf8, spark);
	add(out, look, TOP_PLAIN, "loss     %s%s%s%s", loss, heldout, spark[0] != '\0' ? "  " : "", spark);
}

static void
draw_rows(const struct top *t, const struct top_look *look, struct top_lines *out)
{
	char a[32], b[32], c[32], d[32], trainer[64] = "", scores[48] = "";

	if (!t->selects) {
		add(out, look, TOP_PLAIN, "rows     %s", t->trains && strcmp(t->phase, "two") == 0 ?
		    "from the corpus: no other daemon is needed any more" : "no selectord answers");
		return;
	}
	if (t->trains)
		snprintf(trainer, sizeof(trainer), " (trainer: %.0f steps)", t->trainer_ahead);
	if (t->scores_per_s >= 0.05)
		snprintf(scores, sizeof(scores), "  %s scores/s", ctl_count(t->scores_per_s, c));
	add(out, look, TOP_PLAIN, "rows     %s ahead%s  %s labels/s%s  %.0f teacher%s  %s of %s ready",
	    ctl_count(t->rows_ahead, a), trainer, ctl_count(t->labels_per_s, b), scores, t->teachers,
	    t->teachers == 1 ? "" : "s", ctl_count((double)t->rows_ready, c), ctl_count((double)t->rows_total,
	    d));
}

static void
draw_trainer(const struct top *t, const struct top_look *look, struct top_lines *out)
{
	bool waits = strncmp(t->state, "waiting", 7) == 0;
	char text[BAR_MAX + 3], tokens[32], since[32];
	size_t room = look->cols > 60 ? (size_t)look->cols - 52 : 8;

	if (!t->trains) {
		add(out, look, TOP_PLAIN, "phase    no trainer answers%s",
		    t->n_points > 0 ? "; what it did last:" : "");
		return;
	}
	bar(t, room < BAR_MAX ? room : BAR_MAX, text);
	add(out, look, TOP_HEAD, "phase    %s  %s  step %" PRId64 " of %" PRId64 " (%.0f%%)", phase_of(t),
	    text, t->step, t->steps, t->steps > 0 ? 100 * (double)t->step / (double)t->steps : 0);
	draw_switch(t, look, out);
	add(out, look, waits ? TOP_WAIT : TOP_PLAIN, "trainer  %s for %s   %s tokens/s", t->state,
	    ctl_span(look->now_s - t->state_since_s, since), ctl_count(t->tokens_per_s, tokens));
}

/* ---- the table ---- */

enum column { ROLE, NAME, HOST, STATE, RATES, GPU, QUEUES, ERROR, COLUMNS };

static const char *const column_title[COLUMNS] = {"ROLE", "NAME", "HOST", "STATE", "RATES", "GPU", "QUEUES",
    "LAST ERROR"};
static const size_t column_max[COLUMNS] = {9, 24, 20, 22, 34, 48, 30, 256};
/* columns in the order in which they get space; the second row with look->errors */
static const enum column by_need[2][COLUMNS] = {
	{NAME, STATE, RATES, GPU, ROLE, QUEUES, HOST, ERROR},
	{NAME, STATE, ERROR, ROLE, HOST, COLUMNS, COLUMNS, COLUMNS}};

static const char *
cell(const struct top_daemon *d, enum column c)
{
	switch (c) {
	case ROLE: return d->role;
	case NAME: return d->name;
	case HOST: return d->host;
	case STATE: return d->state;
	case RATES: return d->answers ? d->rates : d->why;
	case GPU: return d->answers ? d->gpu : "";
	case QUEUES: return d->answers ? d->queues : "";
	case ERROR: return d->answers ? d->error : d->why;
	default: return "";
	}
}

/* Computes the width of each column; 0: not shown. */
static void
columns(const struct top *t, const struct top_look *look, size_t wide[COLUMNS])
{
	size_t left = (size_t)look->cols;
	bool gpus = false;

	for (size_t i = 0; i < t->n; i++)
		gpus = gpus || cell(&t->daemons[i], GPU)[0] != '\0';
	memset(wide, 0, COLUMNS * sizeof(*wide));
	for (size_t k = 0; k < COLUMNS && by_need[look->errors][k] != COLUMNS; k++) {
		enum column c = by_need[look->errors][k];
		size_t need = width_of(column_title[c]), gap = k > 0 ? GAP : 0;

		if (c == GPU && !gpus)
			continue;
		for (size_t i = 0; i < t->n; i++)
			if (width_of(cell(&t->daemons[i], c)) > need)
				need = width_of(cell(&t->daemons[i], c));
		if (need > column_max[c])
			need = column_max[c];
		if (need + gap > left) {
			/* A column is shown with less than its full width if a word fits into it. */
			if (left < gap + 10)
				continue;
			need = left - gap;
		}
		wide[c] = need;
		left -= need + gap;
	}
}

static void
draw_row(const struct top_look *look, const size_t wide[COLUMNS], const struct top_daemon *d, struct top_lines *out)
{
	char text[TOP_COLS_MAX * 4 + 1];
	size_t n = 0;

	for (enum column c = 0; c < COLUMNS; c++) {
		const char *s = d != NULL ? cell(d, c) : column_title[c];
		size_t bytes = bytes_of(s, wide[c]), pad = wide[c] - width_of(s) < wide[c] ? wide[c] - width_of(s) : 0;

		if (wide[c] == 0 || n + bytes + pad + GAP >= sizeof(text))
			continue;
		if (n > 0)
			n += (size_t)sprintf(text + n, "%*s", GAP, "");
		memcpy(text + n, s, bytes);
		n += bytes;
		n += (size_t)sprintf(text + n, "%*s", (int)pad, "");
	}
	text[n] = '\0';
	add(out, look, d == NULL ? TOP_HEAD : !d->answers ? TOP_BAD : strncmp(d->state, "waiting", 7) == 0 ?
	    TOP_WAIT : TOP_PLAIN,
	    "%s", text);
}

static int
compare(const struct top_daemon *a, const struct top_daemon *b, enum top_sort sort)
{
	switch (sort) {
	case TOP_BY_NAME: return strverscmp(a->name, b->name);
	case TOP_BY_RATE: return a->rate > b->rate ? -1 : a->rate < b->rate;
	case TOP_BY_STATE: return a->answers != b->answers ? a->answers - b->answers : strcmp(a->state, b->state);
	default: return 0;
	}
}

/* Sorts the rows; equal ones keep their order by role. */
static void
order(const struct top *t, enum top_sort sort, size_t *at)
{
	for (size_t i = 0; i < t->n; i++) {
		size_t k = i;

		for (; k > 0 && compare(&t->daemons[at[k - 1]], &t->daemons[i], sort) > 0; k--)
			at[k] = at[k - 1];
		at[k] = i;
	}
}

static void
draw_table(const struct top *t, struct top_look *look, size_t room, struct top_lines *out)
{
	size_t wide[COLUMNS], *at = ctl_alloc(t->n + 1, sizeof(*at)), shown = t->n, all = t->n;

	columns(t, look, wide);
	order(t, look->sort, at);
	draw_row(look, wide, NULL, out);
	if (shown > room)
		shown = room > 0 ? room - 1 : 0;	/* the last line gives the number of the others */
	if (look->scroll > all - shown || shown == 0)
		look->scroll = shown > 0 ? all - shown : 0;
	for (size_t i = 0; i < shown; i++)
		draw_row(look, wide, &t->daemons[at[look->scroll + i]], out);
	if (shown < all && room > 0)
		add(out, look, TOP_PLAIN, "... %zu above, %zu below", look->scroll, all - shown - look->scroll);
	free(at);
}

/* ---- all of it ---- */

void
top_draw(const struct top *t, struct top_look *look, struct top_lines *out)
{
	static const char *const sorts[] = {"role", "name", "rate", "state"};
	char right[96], silent[40] = "";
	size_t rows = look->rows > 0 ? (size_t)look->rows : TOP_ROWS_MAX, pad;

	out->n = 0;
	if (look->cols > TOP_COLS_MAX)
		look->cols = TOP_COLS_MAX;
	if (look->cols < 1 || rows < 1)
		return;
	if (t->n_silent > 0)
		snprintf(silent, sizeof(silent), ", %zu silent", t->n_silent);
	snprintf(right, sizeof(right), "%zu daemon%s%s%s%s%s", t->n, t->n == 1 ? "" : "s", silent,
	    look->paused ? "  PAUSED" : "", look->clock[0] != '\0' ? "  " : "", look->clock);
	pad = (size_t)look->cols > strlen(right) + 12 ? (size_t)look->cols - strlen(right) - 2 : 0;
	pad = pad > 13 ? pad - 13 : 0;
	if ((size_t)look->cols > strlen(right) + 12)
		add(out, look, TOP_TITLE, "saltctl top  %-*.*s  %s", (int)pad, (int)pad, t->title, right);
	else
		add(out, look, TOP_TITLE, "saltctl top");
	draw_trainer(t, look, out);
	if (t->trains || t->n_points > 0)
		draw_loss(t, look, out);
	draw_rows(t, look, out);
	add(out, look, TOP_PLAIN, "%s", "");
	/* A low screen shows only the title, the first lines, three lines of the table, and the keys. */
	if (look->rows > 0 && out->n + 5 > rows)
		out->n = rows > 6 ? rows - 5 : rows > 1 ? 1 : rows;
	if (rows > 1)
		draw_table(t, look, rows > out->n + 2 ? rows - out->n - 2 : 0, out);
	if (look->rows <= 0)
		return;
	while (out->n + 1 < rows)
		add(out, look, TOP_PLAIN, "%s", "");
	if (rows > 2) {
		out->n = rows - 1;
		add(out, look, TOP_HELP, "q quit  p %s  s sort: %s  e %s  arrows, page, home, end: scroll",
		    look->paused ? "go on" : "pause", sorts[look->sort], look->errors ? "rates" : "errors");
	}
}
