/* SPDX-License-Identifier: Apache-2.0 */
/*
 * output - how saltctl prints: tables, progress, JSON, numbers for people. Results go to standard output,
 * everything else to standard error. Without memory these functions end the program with exit code 71: a verb
 * has nothing to undo that a crash would not leave too.
 */
#ifndef SALT_CTL_OUTPUT_H
#define SALT_CTL_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/json/json.h"

/* ---- memory ---- */

void *ctl_alloc(size_t n, size_t size);		/* n * size zeroed bytes; free() them */
char *ctl_strndup(const char *text, size_t n);	/* at most n bytes of it */
/*
 * ctl_printable - makes the control characters of a text from elsewhere blanks, or they would steer the
 * terminal. Returns text.
 */
char *ctl_printable(char *text);

/* ctl_grow - mem_grow that does not fail. */
void ctl_grow(void **array, size_t *cap, size_t need, size_t size);

/* ctl_add - appends a zeroed item to an array of n items (capacity cap) and returns it; pointers into the
 * array move. */
#define ctl_add(array, n, cap) ctl__add((void **)&(array), &(n), &(cap), sizeof(*(array)))
void *ctl__add(void **array, size_t *n, size_t *cap, size_t size);

/* ---- tables ---- columns are as wide as they need to be; a title that begins with '>' makes its column
 * flush right. */

struct ctl_table;

struct ctl_table *ctl_table_new(const char *titles);	/* separated by tabs; kept by the caller */
/* ctl_table_add - the next cells, row by row; tabs in fmt (not in the values) separate them. ctl_table_end
 * prints and frees. */
void ctl_table_add(struct ctl_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void ctl_table_end(struct ctl_table **t);

/* ctl_line - "name    value" of a listing; names are padded to 23. */
void ctl_line(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The processors of this machine, as cpus_read finds them: a line "this machine", and its object of JSON. */
void ctl_line_cpus(void);
struct json *ctl_cpus(void);

/*
 * The GPU that kernels_device found, and who uses it (core/gpu.c): lines "GPU" and "GPU in use", and its object
 * of JSON. What NVML does not say is "not known", with the reason, and null.
 */
struct kernels_device;
void ctl_line_gpu(const struct kernels_device *gpu);
struct json *ctl_gpu(const struct kernels_device *gpu);

/* ---- numbers ---- into buf, which is returned */

const char *ctl_bytes(double n, char buf[32]);		/* "12.3 MB"; powers of 1000 */
const char *ctl_count(double n, char buf[32]);		/* "12.3 M" */
const char *ctl_span(double seconds, char buf[32]);	/* "1:02:03", "0:09", "0.42 s" */

/* ---- progress ---- on standard error, only if that is a terminal; five times a second at most. */

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

/*
 * ---- JSON ---- Members take their kind from the C type of their value: bool, integers, floating point (not
 * finite: null), text (NULL: null; invalid UTF-8 is replaced), struct json * (taken). Unlike json_build's
 * varargs a wrong type cannot go unnoticed:
 *	o = ctl_record(CTL("file", name), CTL("records", n), CTL("tau", 0.5));
 *	ctl_put_all(o, CTL("hash", hash_hex(h, hex)), CTL("released", true));
 * The order in which the values are computed is not defined: two of them must not share a buffer.
 */
struct ctl_member {
	const char *key;
	struct json *value;
};

#define CTL(key, value) {key, ctl_node(value)}
#define ctl_node(v) _Generic((v), bool: json_new_flag, float: json_new_num, double: json_new_num, \
	char *: ctl__text, const char *: ctl__text, struct json *: ctl__json, default: json_new_int)(v)
#define ctl_record(...) ctl__put(NULL, (const struct ctl_member[]){__VA_ARGS__, {NULL, NULL}})
#define ctl_put_all(object, ...) ctl__put(object, (const struct ctl_member[]){__VA_ARGS__, {NULL, NULL}})
#define ctl_put(object, key, value) ctl_put_all(object, CTL(key, value))
#define ctl_push(array, value) ctl__push(array, ctl_node(value))

struct json *ctl__text(const char *text);
struct json *ctl__json(struct json *j);
struct json *ctl__put(struct json *object, const struct ctl_member *members);	/* object NULL: a new one. Returns it */
void ctl__push(struct json *array, struct json *child);

struct json *ctl_object(void);
struct json *ctl_array(void);
struct json *ctl_known(bool known, int64_t v);		/* v, or null */
int ctl_print_json(struct json *root);			/* pretty, to standard output; frees it; 0 or EX_IOERR */

/* Members of an object that was read; otherwise: absent, or of another kind. */
const char *ctl_text_of(const struct json *o, const char *key, const char *otherwise);
int64_t ctl_int_of(const struct json *o, const char *key, int64_t otherwise);
double ctl_num_of(const struct json *o, const char *key, double otherwise);
bool ctl_flag_of(const struct json *o, const char *key);

/*
 * ctl_flush - exit code of a verb that printed: what it has, or EX_IOERR if standard output failed. If its reader
 * has gone, as head(1) does, that is no error: the program ends with what it has, without a message.
 */
int ctl_flush(int exit_code);

#endif
