/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json - the only module that includes Jansson. A struct json * is a node; nodes of a parsed text are valid
 * until its root is closed. Parsing rejects duplicate keys, NUL in strings, lone surrogates and more than
 * max_bytes. Numbers are 64-bit integers and doubles. A byte order mark before the text is skipped. That is
 * for settings; json_scan, at the end, is for lines of data.
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
 * json_parse, json_parse_file - notes begin with name. max_bytes 0: no limit. A byte order mark before the
 * text is skipped. Return 0 and *root (json_close it), ERR_FORMAT, ERR_RANGE (too large), ENOMEM or errno;
 * *root is NULL then.
 */
int json_parse(const char *text, size_t len, const char *name, struct json **root, struct err_note *note);
int json_parse_file(const char *path, size_t max_bytes, struct json **root, struct err_note *note);
void json_close(struct json **root);	/* takes NULL; for roots only: parsed, or made and not put into another node */

/*
 * Reading. All functions take NULL nodes (kind NULL, count 0, get and item NULL), so a chain of calls needs
 * one check at its end.
 */
enum json_kind json_kind(const struct json *j);
const char *json_kind_name(enum json_kind kind);
size_t json_count(const struct json *j);				/* items of an array, members of an object */
struct json *json_get(const struct json *object, const char *key);	/* NULL if absent or not an object */
struct json *json_item(const struct json *array, size_t i);		/* NULL past the end */
bool json_text(const struct json *j, const char **out);			/* UTF-8; as long as the root */
bool json_int(const struct json *j, int64_t *out);			/* integers only */
bool json_num(const struct json *j, double *out);			/* integers and floats */
bool json_flag(const struct json *j, bool *out);

/*
 * Members in the order of the text: for (it = json_first(o); it != NULL; it = json_next(o, it)) json_key(it),
 * json_value(it)
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
 * json_build - objects and arrays from one format, as Jansson's json_pack: "{s:s, s:I, s:o}" takes key, text,
 * key, int64_t (as long long), key, struct json * (ownership passes, also on failure). Texts must be UTF-8
 * and floats finite; where that is not certain pass "o" with json_new_text or json_new_num. NULL without
 * memory or where a value cannot be stored.
 */
struct json *json_build(const char *fmt, ...);

/* json_merge - appends the members of more, whose ownership passes; either may be NULL (then ENOMEM). */
int json_merge(struct json *object, struct json *more);

/*
 * json_print - text in malloc'ed memory (free() it), NULL without memory. pretty: indented by 2 and ended by
 * a newline; else one line without.
 */
char *json_print(const struct json *j, bool pretty);

/*
 * json_scan - one member of the object that text begins with; nothing else of it is built or judged. Data
 * sets hold much that a strict parser ends at and that does not change the text: NaN and Infinity, numbers
 * of any size, the same key twice (the last one counts, as in Python), NUL as \u0000, bytes that are not
 * UTF-8 or unescaped control characters in strings, any depth. A lone surrogate in the text becomes U+FFFD.
 * No packaged C library reads all of these: Jansson and yajl reject NaN, json-c cannot be linked beside
 * Jansson.
 * @s  zeroed before the first call, json_scan_free after the last; the same one may be used again
 * Returns 0: used bytes belong to the object; found and kind tell about the member key, and if it is a
 * text, text and n_text are it, valid until the next call and as long as the input; of a number, true, false
 * or null they are the characters. ERR_AGAIN: the input
 * ends within the object. ERR_FORMAT: expected, at byte used; strings do not go over the end of a line.
 * ENOMEM.
 */
struct json_scan {
	const char *text, *expected;
	size_t n_text, used, n_replaced;	/* n_replaced: lone surrogates of the text */
	bool found;
	enum json_kind kind;			/* any number is JSON_KIND_FLOAT */
	char *buf, *open;			/* memory of the scanner */
	size_t cap, cap_open;
};
int json_scan(struct json_scan *s, const char *text, size_t len, const char *key);
void json_scan_free(struct json_scan *s);

#endif
