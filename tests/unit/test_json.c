/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json/json.h"

#include <stdint.h>
#include "check.h"

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

int
main(void)
{
	refusals();
	round_trip();
	build();
	return check_done();
}
