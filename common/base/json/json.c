/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json/json.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/file/file.h"

static json_t *
in(const struct json *j)
{
	return (json_t *)(uintptr_t)j;
}

static struct json *
out(json_t *j)
{
	return (struct json *)j;
}

/*
 * Set when an allocation of Jansson fails. Jansson itself often reports one as a syntax error, or leaves out
 * the key of a member when it prints.
 */
static _Thread_local bool no_memory;

static void *
allocate(size_t n)
{
	void *p = malloc(n);

	no_memory |= p == NULL;
	return p;
}

static void
use_allocate(void)
{
	json_set_alloc_funcs(allocate, free);
}

/* Clears no_memory before a call of Jansson. */
static void
watch_memory(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, use_allocate);
	no_memory = false;
}

int
json_parse(const char *text, size_t len, const char *name, struct json **root, struct err_note *note)
{
	json_error_t e;
	size_t bom = len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;	/* as editors on Windows write it */
	const char *magic;
	json_t *j;

	watch_memory();
	j = json_loadb(text + bom, len - bom, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
	if (no_memory && j != NULL) {		/* a character is missing where a buffer could not grow */
		json_decref(j);
		j = NULL;
	}
	*root = out(j);
	if (j != NULL)
		return 0;
	if (no_memory || json_error_code(&e) == json_error_out_of_memory)
		return err_note_set(note, ENOMEM, "%s", name);
	if ((magic = file_magic(text, len)) != NULL)
		return err_expect(note, ERR_FORMAT, "%s", "JSON", "%s", name, magic);
	err_note_set(note, ERR_FORMAT, "%s", name);
	err_note_place(note, "line %d column %d (byte %d)", e.line, e.column, e.position);
	err_note_expected(note, "JSON");
	err_note_found(note, "%s", e.text);
	return ERR_FORMAT;
}

int
json_parse_file(const char *path, size_t max_bytes, struct json **root, struct err_note *note)
{
	char *text;
	size_t len;
	int rc;

	*root = NULL;
	if ((rc = file_read(path, max_bytes, &text, &len, note)) == 0)
		rc = json_parse(text, len, path, root, note);
	free(text);
	return rc;
}

void
json_close(struct json **root)
{
	if (*root == NULL)
		return;
	json_decref(in(*root));
	*root = NULL;
}

enum json_kind
json_kind(const struct json *j)
{
	if (j == NULL)
		return JSON_KIND_NULL;
	switch (json_typeof(in(j))) {
	case JSON_OBJECT:
		return JSON_KIND_OBJECT;
	case JSON_ARRAY:
		return JSON_KIND_ARRAY;
	case JSON_STRING:
		return JSON_KIND_TEXT;
	case JSON_INTEGER:
		return JSON_KIND_INT;
	case JSON_REAL:
		return JSON_KIND_FLOAT;
	case JSON_TRUE:
	case JSON_FALSE:
		return JSON_KIND_FLAG;
	default:
		return JSON_KIND_NULL;
	}
}

const char *
json_kind_name(enum json_kind kind)
{
	static const char *const names[] = {"null", "boolean", "integer", "number", "string", "array", "object"};

	return names[kind];
}

size_t
json_count(const struct json *j)
{
	return json_kind(j) == JSON_KIND_ARRAY ? json_array_size(in(j)) : json_object_size(in(j));
}

struct json *
json_get(const struct json *object, const char *key)
{
	return out(json_object_get(in(object), key));
}

struct json *
json_item(const struct json *array, size_t i)
{
	return out(json_array_get(in(array), i));
}

bool
json_text(const struct json *j, const char **text)
{
	if (json_kind(j) != JSON_KIND_TEXT)
		return false;
	*text = json_string_value(in(j));
	return true;
}

bool
json_int(const struct json *j, int64_t *v)
{
	if (json_kind(j) != JSON_KIND_INT)
		return false;
	*v = json_integer_value(in(j));
	return true;
}

bool
json_num(const struct json *j, double *v)
{
	if (j == NULL || !json_is_number(in(j)))
		return false;
	*v = json_number_value(in(j));
	return true;
}

bool
json_flag(const struct json *j, bool *v)
{
	if (json_kind(j) != JSON_KIND_FLAG)
		return false;
	*v = json_is_true(in(j));
	return true;
}

void *
json_first(const struct json *object)
{
	return json_kind(object) == JSON_KIND_OBJECT ? json_object_iter(in(object)) : NULL;
}

void *
json_next(const struct json *object, void *it)
{
	return json_object_iter_next(in(object), it);
}

const char *
json_key(void *it)
{
	return json_object_iter_key(it);
}

struct json *
json_value(void *it)
{
	return out(json_object_iter_value(it));
}

struct json *
json_new_object(void)
{
	return out(json_object());
}

struct json *
json_new_array(void)
{
	return out(json_array());
}

/* The length of the UTF-8 sequence at s, 0 if it is not one (overlong, surrogate, past U+10FFFF, cut). */
static size_t
utf8_len(const unsigned char *s)
{
	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf && (s[1] & 0xc0) == 0x80)
		return 2;
	if ((s[0] & 0xf0) == 0xe0 && (s[1] & 0xc0) == 0x80 && (s[2] & 0xc0) == 0x80 && !(s[0] == 0xe0 && s[1] < 0xa0) &&
	    !(s[0] == 0xed && s[1] >= 0xa0))
		return 3;
	if (s[0] >= 0xf0 && s[0] <= 0xf4 && (s[1] & 0xc0) == 0x80 && (s[2] & 0xc0) == 0x80 && (s[3] & 0xc0) == 0x80 &&
	    !(s[0] == 0xf0 && s[1] < 0x90) && !(s[0] == 0xf4 && s[1] >= 0x90))
		return 4;
	return 0;
}

struct json *
json_new_text(const char *s)
{
	json_t *j = json_string(s);
	char *clean;
	size_t n = 0;

	if (j != NULL || (clean = malloc(3 * strlen(s) + 1)) == NULL)
		return out(j);
	while (*s != '\0') {
		size_t len = utf8_len((const unsigned char *)s);

		memcpy(clean + n, len > 0 ? s : "\xef\xbf\xbd", len > 0 ? len : 3);
		n += len > 0 ? len : 3;
		s += len > 0 ? len : 1;
	}
	j = json_stringn(clean, n);
	free(clean);
	return out(j);
}

struct json *
json_new_int(int64_t v)
{
	return out(json_integer(v));
}

struct json *
json_new_num(double v)
{
	return out(isfinite(v) ? json_real(v) : json_null());
}

struct json *
json_new_flag(bool v)
{
	return out(json_boolean(v));
}

struct json *
json_new_null(void)
{
	return out(json_null());
}

int
json_put(struct json *object, const char *key, struct json *child)
{
	return child != NULL && json_object_set_new(in(object), key, in(child)) == 0 ? 0 : ENOMEM;
}

int
json_push(struct json *array, struct json *child)
{
	return child != NULL && json_array_append_new(in(array), in(child)) == 0 ? 0 : ENOMEM;
}

struct json *
json_build(const char *fmt, ...)
{
	va_list ap;
	json_t *j;

	va_start(ap, fmt);
	j = json_vpack_ex(NULL, 0, fmt, ap);
	va_end(ap);
	return (struct json *)j;
}

int
json_merge(struct json *object, struct json *more)
{
	int rc = object != NULL && more != NULL && json_object_update((json_t *)object, (json_t *)more) == 0 ? 0 : ENOMEM;

	json_close(&more);
	return rc;
}

char *
json_print(const struct json *j, bool pretty)
{
	char *text, *more;
	size_t n;

	watch_memory();
	text = json_dumps(in(j), (pretty ? JSON_INDENT(2) : JSON_COMPACT) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
	if (no_memory) {
		free(text);
		text = NULL;
	}
	if (text == NULL || !pretty)
		return text;
	n = strlen(text);
	if ((more = realloc(text, n + 2)) == NULL) {
		free(text);
		return NULL;
	}
	memcpy(more + n, "\n", 2);
	return more;
}
