/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json/json.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include "check.h"
#include "failing_malloc.h"

static void
refusals(void)
{
	static const struct {
		const char *what, *text;
	} rows[] = {
		{"cut", "{\"a\": [1, 2"}, {"duplicate key", "{\"a\":1,\"a\":2}"}, {"NUL", "\"a\\u0000b\""},
		{"lone surrogate", "\"\\ud800\""}, {"empty", ""}, {"two values", "1 2"},
	};
	struct err_note note;
	struct json *j;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		CHECK_ROW(rows[i].what, json_parse(rows[i].text, strlen(rows[i].text), "x.json", &j, &note) == ERR_FORMAT && j == NULL);
	CHECK(json_parse("{\n  \"a\": tru\n}", 14, "x.json", &j, &note) == ERR_FORMAT);
	CHECK(strstr(note.place, "line 2") != NULL);
	CHECK(json_parse("version https://git-lfs.github.com/spec/v1\n", 43, "x.json", &j, &note) == ERR_FORMAT &&
	    strstr(note.found, "git lfs pull") != NULL);
	CHECK(json_parse("\xef\xbb\xbf{}", 5, "x.json", &j, &note) == 0 && json_kind(j) == JSON_KIND_OBJECT);
	json_close(&j);
	CHECK(json_parse("\xef\xbb", 2, "x.json", &j, &note) == ERR_FORMAT);
	CHECK(json_parse_file(check_missing(), 0, &j, &note) == 2);
	CHECK(json_parse_file("CMakePresets.json", 10, &j, &note) == ERR_RANGE);
}

/* json_scan: the text of one member of a line, and where it stops if the line is not JSON. */
static void
scan(void)
{
	static const struct {
		const char *what, *text, *expected;	/* the text of "t"; NULL: none */
		int rc;
		size_t used;
	} rows[] = {
		{"plain", "{\"t\": \"x\"}", "x", 0, 10},
		{"behind others", " {\"a\":[1,{\"t\":\"no\"}],\"b\":{\"t\":[]},\"t\":\"x\"} rest", "x", 0, 42},
		{"not finite", "{\"a\":NaN,\"b\":[Infinity,-Infinity],\"t\":\"x\"}", "x", 0, 42},
		{"numbers", "{\"a\":18446744073709551616,\"b\":-1.5e+999,\"t\":\"x\"}", "x", 0, 48},
		{"twice: the last", "{\"t\":\"x\",\"a\":1,\"a\":2,\"t\":\"y\"}", "y", 0, 29},
		{"bytes and controls beside it", "{\"a\":\"\xff\xc3\t\x01\",\"t\":\"x\"}", "x", 0, 20},
		{"bytes in it stay", "{\"t\":\"\xff\"}", "\xff", 0, 9},
		{"escapes", "{\"t\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20AC\\ud83d\\ude00\"}",
		    "\"\\/\b\f\n\r\tA\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 0, 54},
		{"an escaped name", "{\"\\u0074\":\"x\"}", "x", 0, 14},
		{"escapes beside it are not read", "{\"a\":\"\\q\\ud800\",\"t\":\"x\"}", "x", 0, 24},
		{"lone surrogates", "{\"t\":\"\\ud83dx\\ude00\\ud83d\\ud83d\\ude00\"}", "\xef\xbf\xbdx\xef\xbf\xbd\xef\xbf\xbd\xf0\x9f\x98\x80", 0, 39},
		{"ends with a backslash", "{\"a\":\"\\\\\",\"t\":\"\\\\\"}", "\\", 0, 19},
		{"null", "{\"t\": null}", NULL, 0, 11},
		{"absent", "{}", NULL, 0, 2},
		{"an object", "{\"t\": {\"t\": \"no\"}}", NULL, 0, 18},
		{"cut", "{\"t\": \"x", NULL, ERR_AGAIN, 0},
		{"cut in a word", "{\"t\": tr", NULL, ERR_AGAIN, 0},
		{"nothing", " ", NULL, ERR_AGAIN, 0},
		{"an array", " [1]", NULL, ERR_FORMAT, 1},
		{"Python's None", "{\"a\": None}", NULL, ERR_FORMAT, 6},
		{"other quotes", "{'t': 1}", NULL, ERR_FORMAT, 1},
		{"a comma too many", "{\"t\": \"x\",}", NULL, ERR_FORMAT, 10},
		{"no comma", "{\"a\": 1 \"t\": \"x\"}", NULL, ERR_FORMAT, 8},
		{"no colon", "{\"t\" \"x\"}", NULL, ERR_FORMAT, 5},
		{"wrong bracket", "{\"a\": [1}", NULL, ERR_FORMAT, 8},
		{"a sign alone", "{\"a\": -}", NULL, ERR_FORMAT, 6},
		{"a wrong escape in it", "{\"t\": \"x\\q\"}", NULL, ERR_FORMAT, 8},
		{"a short escape in it", "{\"t\": \"\\u12\"}", NULL, ERR_FORMAT, 7},
		{"a string over lines", "{\"a\": \"x\ny\"}", NULL, ERR_FORMAT, 6},
	};
	struct json_scan s = {.text = NULL};
	const size_t depth = 100000;
	char *deep = malloc(2 * depth + 32);
	size_t n;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		n = strlen(rows[i].text);
		CHECK_ROW(rows[i].what, json_scan(&s, rows[i].text, n, "t") == rows[i].rc && (rows[i].rc == ERR_AGAIN || s.used == rows[i].used));
		if (rows[i].rc != 0)
			continue;
		CHECK_ROW(rows[i].what, rows[i].expected == NULL ? !s.found || s.kind != JSON_KIND_TEXT : s.found && s.kind == JSON_KIND_TEXT &&
		    s.n_text == strlen(rows[i].expected) && memcmp(s.text, rows[i].expected, s.n_text) == 0);
		for (size_t cut = 0; cut < rows[i].used; cut++)	/* every truncated text needs more */
			CHECK_ROW(rows[i].what, json_scan(&s, rows[i].text, cut, "t") == ERR_AGAIN);
	}
	CHECK(json_scan(&s, "{\"t\":\"a\\u0000b\"}", 16, "t") == 0 && s.n_text == 3 && memcmp(s.text, "a\0b", 3) == 0 && s.n_replaced == 0);
	CHECK(json_scan(&s, "{\"t\":\"\\udc00\"}", 14, "t") == 0 && s.n_replaced == 1);
	CHECK(json_scan(&s, "{\"\\udc00\":1,\"t\":\"x\"}", 20, "t") == 0 && s.n_replaced == 0);
	REQUIRE(deep != NULL);
	n = (size_t)sprintf(deep, "{\"a\":");
	for (size_t i = 0; i < 2 * depth; i++)
		deep[n++] = i < depth ? '[' : ']';
	n += (size_t)sprintf(deep + n, ",\"t\":\"x\"}");
	CHECK(json_scan(&s, deep, n, "t") == 0 && s.used == n && s.n_text == 1);
	free(deep);
	json_scan_free(&s);
}

/* A byte order mark at the beginning, which Windows editors write. */
static void
byte_order_mark(void)
{
	struct json *j;

	CHECK(json_parse("\xef\xbb\xbf{\"a\": 1}", 11, "x", &j, NULL) == 0 && json_count(j) == 1);
	json_close(&j);
}

static void
round_trip(void)
{
	struct json *o = json_new_object(), *back, *a = json_new_array();
	const char *s;
	int64_t v;
	double d;
	bool b;
	char *text;

	CHECK(json_push(a, json_new_int(INT64_MAX)) == 0);
	CHECK(json_push(a, json_new_num(0.1)) == 0);
	CHECK(json_push(a, json_new_num(NAN)) == 0);
	CHECK(json_put(o, "list", a) == 0);
	CHECK(json_put(o, "bad", json_new_text("a\xff\xc3\xa9")) == 0);
	CHECK(json_put(o, "none", NULL) != 0);
	text = json_print(o, true);
	REQUIRE(text != NULL);
	REQUIRE(json_parse(text, strlen(text), "text", &back, NULL) == 0);
	free(text);
	a = json_get(back, "list");
	CHECK(json_count(a) == 3 && json_int(json_item(a, 0), &v) && v == INT64_MAX);
	CHECK(json_num(json_item(a, 1), &d) && d == 0.1);
	CHECK(json_kind(json_item(a, 2)) == JSON_KIND_NULL && !json_num(json_item(a, 2), &d));
	CHECK(json_text(json_get(back, "bad"), &s) && strcmp(s, "a\xef\xbf\xbd\xc3\xa9") == 0);
	CHECK(json_get(json_get(back, "nope"), "deeper") == NULL && !json_flag(NULL, &b));
	json_close(&back);
	json_close(&o);
	CHECK(o == NULL);
}

static void
build(void)
{
	struct json *o = json_build("{s:s, s:[I, I], s:b, s:f}", "a", "x", "b", (int64_t)1, INT64_MAX, "c", true, "d", 0.5);
	char *text;

	CHECK(json_merge(o, json_build("{s:n, s:o}", "e", "f", json_new_num(NAN))) == 0);
	text = json_print(o, false);
	REQUIRE(text != NULL);
	CHECK_STR(text, "{\"a\":\"x\",\"b\":[1,9223372036854775807],\"c\":true,\"d\":0.5,\"e\":null,\"f\":null}");
	free(text);
	CHECK(json_merge(o, NULL) != 0 && json_merge(NULL, json_new_object()) != 0);
	CHECK(json_build("{s:o}", "key", NULL) == NULL && json_build("{s:f}", "key", NAN) == NULL);
	json_close(&o);
}

#ifdef FAILING_MALLOC
/* If any allocation fails, the result is an error that says so, never another value. */
static void
no_memory(void)
{
	static const char text[] = "{\"a name longer than the first buffer\": [\"and a text that is longer still, with \\u00e9\", 1.25, {}]}";
	struct json *j;
	struct err_note note;
	long n = 0;
	int rc;

	do {
		fail_at = ++n;
		rc = json_parse(text, strlen(text), "x.json", &j, &note);
		if (fail_at > 0)
			break;
		CHECK(rc == ENOMEM && j == NULL);
		json_close(&j);
	} while (n < 1000);
	fail_at = 0;
	CHECK(rc == 0 && n > 10);
	json_close(&j);
}
#endif

int
main(void)
{
#ifdef FAILING_MALLOC
	no_memory();
#endif
	refusals();
	scan();
	byte_order_mark();
	round_trip();
	build();
	return check_done();
}
