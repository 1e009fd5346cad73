/*
 * output - how saltctl prints: tables, progress, JSON, numbers for people. Results go to standard output, all else to standard error.
 */
#ifndef SALT_CTL_OUTPUT_H
#define SALT_CTL_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct json;

/* ---- tables ---- columns are as wide as they need to be; a title that begins with '>' makes its column flush right. */

struct ctl_table;

struct ctl_table *ctl_table_new(const char *const *titles, size_t n_columns);	/* the titles stay the caller's */
void ctl_table_cell(struct ctl_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));	/* next cell, row by row */
void ctl_table_print(const struct ctl_table *t, FILE *out);
void ctl_table_free(struct ctl_table **t);

/* ctl_line - "name    value" of a listing; names are padded to 23. */
void ctl_line(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- numbers ---- into buf, which is returned */

const char *ctl_bytes(double n, char buf[32]);		/* "12.3 MB"; powers of 1000 */
const char *ctl_count(double n, char buf[32]);		/* "12.3 M" */
const char *ctl_span(double seconds, char buf[32]);	/* "1:02:03", "0:09", "0.42 s" */

/* ---- progress ---- on standard error, only if that is a terminal; five times a second at the most. */

struct ctl_meter {
	const char *what;
	bool shown;
	const char *unit;
	double total;			/* 0: not known: no share, no ETA */
	double start_s, last_s;
};

void ctl_meter_start(struct ctl_meter *m, const char *what, const char *unit, double total);	/* unit "B": bytes */
void ctl_meter_update(struct ctl_meter *m, double done);
void ctl_meter_end(struct ctl_meter *m);		/* clears the line */

/* ---- JSON ---- no memory ends the program (71): there is nothing to undo where these are called */

struct json *ctl_object(void);
struct json *ctl_array(void);
void ctl_put(struct json *object, const char *key, struct json *child);
void ctl_put_text(struct json *object, const char *key, const char *text);	/* NULL: null */
void ctl_put_int(struct json *object, const char *key, int64_t v);
void ctl_put_num(struct json *object, const char *key, double v);		/* not finite: null */
void ctl_push(struct json *array, struct json *child);
int ctl_print_json(struct json *root);			/* pretty, to standard output; frees it; 0 or EX_IOERR */

/* ctl_flush - exit code of a verb that printed: what it has, or EX_IOERR if standard output failed. */
int ctl_flush(int exit_code);

#endif
