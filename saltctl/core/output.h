/* SPDX-License-Identifier: Apache-2.0 */
/*
 * output - how saltctl prints: tables, progress, JSON, readable numbers. Results go to standard output,
 * everything else to standard error. If memory runs out, these functions end the program with exit code 71;
 * that leaves nothing behind that a crash would not leave too.
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
 * ctl_printable - replaces control characters by blanks, in place, so that a text from another process cannot
 * send commands to the terminal. Returns text.
 */
char *ctl_printable(char *text);

/* ctl_grow - mem_grow that ends the program if memory runs out. */
void ctl_grow(void **array, size_t *cap, size_t need, size_t size);

/*
 * ctl_add - appends a zeroed item to an array of n items (capacity cap) and returns it. The array may move,
 * so earlier pointers into it are invalid.
 */
#define ctl_add(array, n, cap) ctl__add((void **)&(array), &(n), &(cap), sizeof(*(array)))
void *ctl__add(void **array, size_t *n, size_t *cap, size_t size);

/* ---- tables ---- each column is as wide as its widest cell; a title with a leading '>' aligns it right. */

struct ctl_table;

struct ctl_table *ctl_table_new(const char *titles);	/* separated by tabs; copied */
/*
 * ctl_table_add - appends cells, row by row; tabs in fmt (not in the values) separate them. ctl_table_end -
 * prints the table and frees it.
 */
void ctl_table_add(struct ctl_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void ctl_table_end(struct ctl_table **t);

/* ctl_line - prints "name    value"; the name is padded to 23 characters. */
void ctl_line(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The processors of this machine, from cpus_read: printed as a line "this machine", or as a JSON object. */
void ctl_line_cpus(void);
struct json *ctl_cpus(void);

/*
 * The GPU that kernels_device found, and the processes that use it (core/gpu.c): printed as lines "GPU" and
 * "GPU in use", or as a JSON object. A figure that NVML does not give is "not known", with the reason, or
 * null.
 */
struct kernels_device;
void ctl_line_gpu(const struct kernels_device *gpu);
struct json *ctl_gpu(const struct kernels_device *gpu);

/* ---- numbers ---- written to buf, which is returned */

const char *ctl_bytes(double n, char buf[32]);		/* "12.3 MB"; powers of 1000 */
const char *ctl_count(double n, char buf[32]);		/* "12.3 M" */
const char *ctl_span(double seconds, char buf[32]);	/* "1:02:03", "0:09", "0.42 s" */

/* ---- progress ---- on standard error, only if that is a terminal; at most five updates a second. */

struct ctl_meter {
	const char *what;
	bool shown;
	const char *unit;
	double total;			/* 0: not known; then no share and no ETA are shown */
	double start_s, last_s;
};

void ctl_meter_start(struct ctl_meter *m, const char *what, const char *unit, double total);	/* unit "B": bytes */
void ctl_meter_update(struct ctl_meter *m, double done);
void ctl_meter_end(struct ctl_meter *m);		/* clears the line */

/*
 * ---- JSON ---- The C type of a value decides the kind of its member: bool, integers, floating point (not
 * finite: null), text (NULL: null; invalid UTF-8 is replaced), struct json * (ownership passes to the
 * object). Unlike with json_build's varargs, the compiler checks the types:
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
struct json *ctl__put(struct json *object, const struct ctl_member *members);	/* object NULL: makes one */
void ctl__push(struct json *array, struct json *child);

struct json *ctl_object(void);
struct json *ctl_array(void);
struct json *ctl_known(bool known, int64_t v);		/* v if known, else null */
int ctl_print_json(struct json *root);			/* pretty, to standard output; frees it; 0 or EX_IOERR */

/* Members of an object that was read; `otherwise` is returned if the member is absent or of another kind. */
const char *ctl_text_of(const struct json *o, const char *key, const char *otherwise);
int64_t ctl_int_of(const struct json *o, const char *key, int64_t otherwise);
double ctl_num_of(const struct json *o, const char *key, double otherwise);
bool ctl_flag_of(const struct json *o, const char *key);

/*
 * ctl_flush - flushes standard output at the end of a verb. Returns exit_code, or EX_IOERR if that was 0 and
 * the output could not be written. If the reader of a pipe has ended, as head(1) does, this is no error: the
 * program exits with exit_code and prints no message.
 */
int ctl_flush(int exit_code);

#endif
