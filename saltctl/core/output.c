/* SPDX-License-Identifier: Apache-2.0 */
#include "saltctl/core/output.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock/clock.h"
#include "base/cpus/cpus.h"
#include "base/mem/mem.h"

/* Separates the cells of a formatted line. It replaces the format's tabs, since values may contain tabs. */
#define CELL_END '\x1f'

static void *
have(void *p)
{
	if (p == NULL) {
		fprintf(stderr, "saltctl: out of memory\n");
		exit(EX_OSERR);
	}
	return p;
}

/* ---- memory ---- */

void *
ctl_alloc(size_t n, size_t size)
{
	void *p = mem_alloc(n > 0 ? n : 1, size);

	if (p == NULL)
		fprintf(stderr, "saltctl: %.3g bytes are needed\n", (double)n * (double)size);
	return have(p);
}

char *
ctl_printable(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p != '\0'; p++)
		if (*p < 0x20 || *p == 0x7f)
			*p = ' ';
		else if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)		/* U+0080 to U+009f */
			p[0] = p[1] = ' ';
	return text;
}

char *
ctl_strndup(const char *text, size_t n)
{
	return have(strndup(text, n));
}

void
ctl_grow(void **array, size_t *cap, size_t need, size_t size)
{
	have(mem_grow(array, cap, need, size) == 0 ? array : NULL);
}

void *
ctl__add(void **array, size_t *n, size_t *cap, size_t size)
{
	ctl_grow(array, cap, *n + 1, size);
	return memset((char *)*array + (*n)++ * size, 0, size);
}

/* ---- tables ---- */

struct ctl_table {
	char **titles, **cells;
	size_t n_titles, cap_titles, n_cells, cap;
};

static void
split_cells(char ***cells, size_t *n, size_t *cap, char *text, char end)
{
	for (char *next; text != NULL; text = next) {
		if ((next = strchr(text, end)) != NULL)
			*next++ = '\0';
		*(char **)ctl__add((void **)cells, n, cap, sizeof(**cells)) = ctl_printable(ctl_strndup(text, SIZE_MAX));
	}
}

struct ctl_table *
ctl_table_new(const char *titles)
{
	struct ctl_table *t = ctl_alloc(1, sizeof(*t));
	char *text = ctl_strndup(titles, SIZE_MAX);

	split_cells(&t->titles, &t->n_titles, &t->cap_titles, text, '\t');
	free(text);
	return t;
}

void
ctl_table_add(struct ctl_table *t, const char *fmt, ...)
{
	char *own = ctl_strndup(fmt, SIZE_MAX), *text;
	va_list ap;

	for (char *p = own; (p = strchr(p, '\t')) != NULL; )
		*p = CELL_END;
	va_start(ap, fmt);
	if (vasprintf(&text, own, ap) < 0)
		have(NULL);
	va_end(ap);
	split_cells(&t->cells, &t->n_cells, &t->cap, text, CELL_END);
	free(text);
	free(own);
}

/* Number of characters on the screen: the bytes that do not continue a UTF-8 sequence. */
static size_t
width(const char *s)
{
	size_t n = 0;

	for (; *s != '\0'; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static void
print_row(const struct ctl_table *t, char *const *cells, const size_t *wide)
{
	for (size_t c = 0; c < t->n_titles; c++) {
		bool right = t->titles[c][0] == '>', last = c + 1 == t->n_titles;
		const char *text = cells[c] + (cells == t->titles && right);
		int pad = (int)(wide[c] - width(text));

		printf("%*s%s%*s%s", right ? pad : 0, "", text, right || last ? 0 : pad, "", last ? "\n" : "  ");
	}
}

void
ctl_table_end(struct ctl_table **table)
{
	struct ctl_table *t = *table;
	size_t *wide = ctl_alloc(t->n_titles, sizeof(*wide));

	for (size_t c = 0; c < t->n_titles; c++)
		wide[c] = width(t->titles[c]) - (t->titles[c][0] == '>');
	for (size_t i = 0; i < t->n_cells; i++)
		if (width(t->cells[i]) > wide[i % t->n_titles])
			wide[i % t->n_titles] = width(t->cells[i]);
	print_row(t, t->titles, wide);
	for (size_t i = 0; i + t->n_titles <= t->n_cells; i += t->n_titles)
		print_row(t, t->cells + i, wide);
	for (size_t i = 0; i < t->n_cells; i++)
		free(t->cells[i]);
	for (size_t c = 0; c < t->n_titles; c++)
		free(t->titles[c]);
	free(t->cells);
	free(t->titles);
	free(wide);
	free(t);
	*table = NULL;
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
		snprintf(buf, 32, v == floor(v) || fabs(v) >= 99.95 ? "%.0f%s%s" : "%.1f%s%s", v,
		    unit[0] != '\0' ? " " : "", unit);
	else
		snprintf(buf, 32, "%.*f %s%s%s", v < 9.995 ? 2 : v < 99.95 ? 1 : 0, v, prefixes[i],
		    strlen(unit) > 1 ? " " : "", unit);
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
		snprintf(buf, 32, "%" PRIu64 ":%02" PRIu64, s / 60, s % 60);
	else
		snprintf(buf, 32, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, s / 3600, s / 60 % 60, s % 60);
	return buf;
}

/* ---- progress ---- */

void
ctl_meter_start(struct ctl_meter *m, const char *what, const char *unit, double total)
{
	*m = (struct ctl_meter){.what = what, .unit = unit, .total = total, .start_s = clock_now_s(),
	    .shown = isatty(STDERR_FILENO) == 1};
	m->last_s = m->start_s;
}

void
ctl_meter_update(struct ctl_meter *m, double done)
{
	double now = clock_now_s(), rate;
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

struct json *
ctl__text(const char *text)
{
	return text != NULL ? json_new_text(text) : json_new_null();
}

struct json *
ctl__json(struct json *j)
{
	return j;
}

struct json *
ctl_known(bool known, int64_t v)
{
	return known ? json_new_int(v) : json_new_null();
}

struct json *
ctl__put(struct json *object, const struct ctl_member *members)
{
	struct json *o = object != NULL ? object : ctl_object();

	for (const struct ctl_member *m = members; m->key != NULL; m++)
		have(json_put(o, m->key, m->value) == 0 ? o : NULL);
	return o;
}

void
ctl__push(struct json *array, struct json *child)
{
	have(json_push(array, child) == 0 ? array : NULL);
}

const char *
ctl_text_of(const struct json *o, const char *key, const char *otherwise)
{
	const char *v;

	return json_text(json_get(o, key), &v) ? v : otherwise;
}

int64_t
ctl_int_of(const struct json *o, const char *key, int64_t otherwise)
{
	int64_t v;

	return json_int(json_get(o, key), &v) ? v : otherwise;
}

double
ctl_num_of(const struct json *o, const char *key, double otherwise)
{
	double v;

	return json_num(json_get(o, key), &v) ? v : otherwise;
}

bool
ctl_flag_of(const struct json *o, const char *key)
{
	bool v;

	return json_flag(json_get(o, key), &v) && v;
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

void
ctl_line_cpus(void)
{
	struct cpus c;
	char text[512];

	cpus_read(&c, "");
	cpus_print(&c, text, sizeof(text));
	ctl_line("this machine", "%s", text);
}

struct json *
ctl_cpus(void)
{
	struct cpus c;

	cpus_read(&c, "");
	return ctl_record(CTL("processors", c.online), CTL("cores", c.cores), CTL("sockets", c.sockets), CTL("numa_nodes", c.nodes),
	    CTL("allowed", c.allowed), CTL("limit", c.quota > 0 ? c.quota : NAN),
	    CTL("limit_file", c.quota > 0 ? c.quota_from : NULL), CTL("usable", cpus_usable(&c)));
}

/* Whether the reader of standard output has ended (saltctl ... | head). */
static bool
reader_gone(void)
{
	struct pollfd p = {.fd = STDOUT_FILENO, .events = POLLOUT};

	return poll(&p, 1, 0) > 0 && (p.revents & POLLERR) != 0;
}

int
ctl_flush(int exit_code)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return exit_code;
	if (errno == EPIPE || reader_gone())
		exit(exit_code);			/* no error: see ctl_flush in output.h */
	if (exit_code == 0)
		fprintf(stderr, "saltctl: standard output could not be written%s%s\n", errno != 0 ? ": " : "",
		    errno != 0 ? strerror(errno) : "");
	return exit_code != 0 ? exit_code : EX_IOERR;
}
