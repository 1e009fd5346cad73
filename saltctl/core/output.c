#include "saltctl/core/output.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "saltctl/core/ctl.h"
#include "base/json/json.h"
#include "base/mem/mem.h"

static void *
have(void *p)
{
	if (p == NULL) {
		fprintf(stderr, "saltctl: out of memory\n");
		exit(EX_OSERR);
	}
	return p;
}

/* ---- tables ---- */

struct ctl_table {
	const char *const *titles;
	size_t n_columns, n_cells, cap;
	char **cells;
};

struct ctl_table *
ctl_table_new(const char *const *titles, size_t n_columns)
{
	struct ctl_table *t = have(calloc(1, sizeof(*t)));

	t->titles = titles;
	t->n_columns = n_columns;
	return t;
}

void
ctl_table_free(struct ctl_table **table)
{
	struct ctl_table *t = *table;

	if (t == NULL)
		return;
	for (size_t i = 0; i < t->n_cells; i++)
		free(t->cells[i]);
	free(t->cells);
	free(t);
	*table = NULL;
}

void
ctl_table_cell(struct ctl_table *t, const char *fmt, ...)
{
	va_list ap;

	if (mem_grow((void **)&t->cells, &t->cap, t->n_cells + 1, sizeof(*t->cells)) != 0)
		have(NULL);
	va_start(ap, fmt);
	if (vasprintf(&t->cells[t->n_cells], fmt, ap) < 0)
		have(NULL);
	va_end(ap);
	t->n_cells++;
}

/* Characters on the screen: bytes that do not continue a UTF-8 sequence. */
static size_t
width(const char *s)
{
	size_t n = 0;

	for (; *s != '\0'; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static void
print_cell(const char *text, size_t wide, bool right, bool last, FILE *out)
{
	int pad = (int)(wide - width(text));

	fprintf(out, "%*s%s%*s%s", right ? pad : 0, "", text, right || last ? 0 : pad, "", last ? "\n" : "  ");
}

void
ctl_table_print(const struct ctl_table *t, FILE *out)
{
	size_t *wide = have(calloc(t->n_columns, sizeof(*wide)));
	bool right;

	for (size_t c = 0; c < t->n_columns; c++)
		wide[c] = width(t->titles[c]) - (t->titles[c][0] == '>');
	for (size_t i = 0; i < t->n_cells; i++)
		if (width(t->cells[i]) > wide[i % t->n_columns])
			wide[i % t->n_columns] = width(t->cells[i]);
	for (size_t c = 0; c < t->n_columns; c++) {
		right = t->titles[c][0] == '>';
		print_cell(t->titles[c] + right, wide[c], right, c + 1 == t->n_columns, out);
	}
	for (size_t i = 0; i < t->n_cells; i++) {
		size_t c = i % t->n_columns;

		print_cell(t->cells[i], wide[c], t->titles[c][0] == '>', c + 1 == t->n_columns, out);
	}
	free(wide);
}

void
ctl_line(const char *name, const char *fmt, ...)
{
	va_list ap;

	printf("%-23s ", name);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

/* ---- numbers ---- */

static const char *
scaled(double n, const char *unit, char buf[32])
{
	static const char *const prefixes[] = {"", "k", "M", "G", "T", "P", "E"};
	size_t i = 0;
	double v = n;

	for (; fabs(v) >= 999.5 && i < 6; i++)
		v /= 1000;
	if (i == 0)
		snprintf(buf, 32, v == floor(v) || fabs(v) >= 99.95 ? "%.0f%s%s" : "%.1f%s%s", v, unit[0] != '\0' ? " " : "", unit);
	else
		snprintf(buf, 32, "%.*f %s%s%s", v < 9.995 ? 2 : v < 99.95 ? 1 : 0, v, prefixes[i], strlen(unit) > 1 ? " " : "", unit);
	return buf;
}

const char *
ctl_bytes(double n, char buf[32])
{
	return scaled(n, "B", buf);
}

const char *
ctl_count(double n, char buf[32])
{
	return scaled(n, "", buf);
}

const char *
ctl_span(double seconds, char buf[32])
{
	uint64_t s;

	if (!(seconds >= 0 && seconds < 1e12)) {
		snprintf(buf, 32, "?");
		return buf;
	}
	if (seconds < 9.95) {
		snprintf(buf, 32, "%.2f s", seconds);
		return buf;
	}
	s = (uint64_t)(seconds + 0.5);
	if (s < 3600)
		snprintf(buf, 32, "%llu:%02llu", (unsigned long long)(s / 60), (unsigned long long)(s % 60));
	else
		snprintf(buf, 32, "%llu:%02llu:%02llu", (unsigned long long)(s / 3600), (unsigned long long)(s / 60 % 60),
		    (unsigned long long)(s % 60));
	return buf;
}

/* ---- progress ---- */

void
ctl_meter_start(struct ctl_meter *m, const char *what, const char *unit, double total)
{
	*m = (struct ctl_meter){.what = what, .unit = unit, .total = total,
	    .start_s = ctl_seconds(), .shown = isatty(STDERR_FILENO) == 1};
	m->last_s = m->start_s;
}

void
ctl_meter_update(struct ctl_meter *m, double done)
{
	double now = ctl_seconds(), rate;
	char a[32], b[32], c[32];

	if (!m->shown || now - m->last_s < 0.2)
		return;
	m->last_s = now;
	rate = done / (now - m->start_s);
	fprintf(stderr, "\r\033[K%s  %s", m->what, scaled(done, m->unit, a));
	if (m->total > 0)
		fprintf(stderr, " of %s (%.0f%%)", scaled(m->total, m->unit, b), 100 * done / m->total);
	fprintf(stderr, "  %s/s", scaled(rate, m->unit, c));
	if (m->total > 0 && rate > 0)
		fprintf(stderr, "  ETA %s", ctl_span((m->total - done) / rate, a));
	fflush(stderr);
}

void
ctl_meter_end(struct ctl_meter *m)
{
	if (m->shown)
		fprintf(stderr, "\r\033[K");
	m->shown = false;
}

/* ---- JSON ---- */

struct json *
ctl_object(void)
{
	return have(json_new_object());
}

struct json *
ctl_array(void)
{
	return have(json_new_array());
}

void
ctl_put(struct json *object, const char *key, struct json *child)
{
	if (json_put(object, key, child) != 0)
		have(NULL);
}

void
ctl_put_text(struct json *object, const char *key, const char *text)
{
	ctl_put(object, key, text != NULL ? json_new_text(text) : json_new_null());
}

void
ctl_put_int(struct json *object, const char *key, int64_t v)
{
	ctl_put(object, key, json_new_int(v));
}

void
ctl_put_num(struct json *object, const char *key, double v)
{
	ctl_put(object, key, json_new_num(v));
}

void
ctl_push(struct json *array, struct json *child)
{
	if (json_push(array, child) != 0)
		have(NULL);
}

int
ctl_print_json(struct json *root)
{
	char *text = have(json_print(root, true));

	fputs(text, stdout);
	free(text);
	json_close(&root);
	return ctl_flush(0);
}

int
ctl_flush(int exit_code)
{
	if (fflush(stdout) != 0 || ferror(stdout)) {
		if (exit_code == 0)
			fprintf(stderr, "saltctl: standard output: %s\n", "could not be written");
		return exit_code != 0 ? exit_code : EX_IOERR;
	}
	return exit_code;
}
