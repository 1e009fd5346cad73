/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json - the only module that includes Jansson. A struct json * is a node; nodes of a parsed text are valid
 * until its root is closed. Parsing rejects duplicate keys, NUL in strings, lone surrogates and more than
 * max_bytes. Numbers are 64-bit integers and doubles. A byte order mark before the text is skipped. These
 * functions are for settings; json_scan, at the end, is for lines of data.
 */
#ifndef SALT_JSON_H
#define SALT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err/err.h"

struct json;				/* a Jansson value; never defined */

enum json_kind { JSON_KIND_NULL, JSON_KIND_FLAG, JSON_KIND_INT, JSON_KIND_FLOAT, JSON_KIND_TEXT, JSON_KIND_ARRAY, JSON_KIND_OBJECT };

/*
 * json_parse, json_parse_file - parse a text, a file. Notes begin with name or path. max_bytes 0: no limit.
 * Return 0 and *root (json_close it); or ERR_FORMAT, ERR_RANGE (too large), ENOMEM or errno, with *root NULL.
 */
int json_parse(const char *text, size_t len, const char *name, struct json **root, struct err_note *note);
int json_parse_file(const char *path, size_t max_bytes, struct json **root, struct err_note *note);
void json_close(struct json **root);	/* takes NULL; only for roots, parsed or new and in no other node */

/*
 * Reading. All functions take NULL nodes (kind NULL, count 0, get and item NULL), so a chain of calls needs
 * one check at its end.
 */
enum json_kind json_kind(const struct json *j);
const char *json_kind_name(enum json_kind kind);
size_t json_count(const struct json *j);				/* items of an array, members of an object */
struct json *json_get(const struct json *object, const char *key);	/* NULL if absent or not an object */
struct json *json_item(const struct json *array, size_t i);		/* NULL past the end */
bool json_text(const struct json *j, const char **out);			/* UTF-8; valid as long as the root */
bool json_int(const struct json *j, int64_t *out);			/* integers only */
bool json_num(const struct json *j, double *out);			/* integers and floats */
bool json_flag(const struct json *j, bool *out);

/*
 * Iterate over the members in text order:
 *	for (it = json_first(o); it != NULL; it = json_next(o, it)) { json_key(it) ... json_value(it) ... }
 */
void *json_first(const struct json *object);
void *json_next(const struct json *object, void *it);
const char *json_key(void *it);
struct json *json_value(void *it);

/*
 * Making. json_put and json_push take ownership of child, also when they fail, and return ENOMEM for a NULL
 * child, so that json_put(o, "n", json_new_int(3)) needs one check. key must be UTF-8. Floats that are not
 * finite become null.
 */
struct json *json_new_object(void);
struct json *json_new_array(void);
struct json *json_new_text(const char *s);		/* invalid UTF-8 bytes become U+FFFD */
struct json *json_new_int(int64_t v);
struct json *json_new_num(double v);
struct json *json_new_flag(bool v);
struct json *json_new_null(void);
int json_put(struct json *object, const char *key, struct json *child);
int json_push(struct json *array, struct json *child);

/*
 * json_build - makes objects and arrays from one format, as Jansson's json_pack does: "{s:s, s:I, s:o}" takes
 * key, text, key, int64_t (as long long), key, struct json * (ownership passes, also on failure). Texts must
 * be UTF-8 and floats finite; where this is not certain pass "o" with json_new_text or json_new_num. Returns
 * NULL without memory or if a value cannot be stored.
 */
struct json *json_build(const char *fmt, ...);

/* json_merge - adds the members of more to object and takes ownership of more. Either may be NULL: ENOMEM. */
int json_merge(struct json *object, struct json *more);

/*
 * json_print - returns the JSON text in malloc'ed memory (free() it), NULL without memory. pretty: indented
 * by 2 and ended by a newline; else one line without a newline.
 */
char *json_print(const struct json *j, bool pretty);

/*
 * json_scan - reads the member `key` of the object that text begins with. Other members are only skipped, and
 * no tree is built. Data sets contain much that a strict parser rejects and that does not affect this member:
 * NaN and Infinity, numbers of any size, the same key twice (the last one counts, as in Python), NUL as
 * \u0000, bytes that are not UTF-8 or unescaped control characters in strings, any depth. A lone surrogate
 * becomes U+FFFD. No packaged C library reads all of these: Jansson and yajl reject NaN, json-c cannot be
 * linked beside Jansson.
 * @s  zeroed before the first call, json_scan_free after the last; may be reused for further calls
 * Returns 0: the object is `used` bytes long; found and kind describe the member. For a string, text and
 * n_text are its content without escapes; for a number, true, false or null they are its characters. They
 * are valid until the next call and as long as the input. ERR_AGAIN: the input ends within the object.
 * ERR_FORMAT: the text `expected` is missing at byte `used`; a string must end on its line. ENOMEM.
 */
struct json_scan {
	const char *text, *expected;
	size_t n_text, used, n_replaced;	/* n_replaced: lone surrogates in the member */
	bool found;
	enum json_kind kind;			/* any number is JSON_KIND_FLOAT */
	char *buf, *open;			/* owned buffers: unescaped text, stack of open brackets */
	size_t cap, cap_open;
};
int json_scan(struct json_scan *s, const char *text, size_t len, const char *key);
void json_scan_free(struct json_scan *s);

#endif
