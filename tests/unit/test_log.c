/* SPDX-License-Identifier: Apache-2.0 */
/* The tap of the log, and the lines that it keeps. */
#include "base/log/log.h"

#include "check.h"
#include <fcntl.h>
#include <unistd.h>

static struct { int n; enum log_level level; char event[32], line[4200]; } tapped;

static void
tap(void *arg, enum log_level level, const char *event, const char *line)
{
	CHECK(arg == &tapped);
	tapped.n++;
	tapped.level = level;
	snprintf(tapped.event, sizeof(tapped.event), "%s", event);
	snprintf(tapped.line, sizeof(tapped.line), "%s", line);
}

/* Sends a request "log N"; gets the two numbers of the answer's first line, and the other lines. */
static char *
ask(const char *request, unsigned *first, unsigned *next, const char **lines)
{
	char *answer = NULL;
	size_t len = 0;
	int pid = 0;

	REQUIRE(log_answer(request, strlen(request), &answer, &len) && answer != NULL);
	answer = realloc(answer, len + 1);
	REQUIRE(answer != NULL);
	answer[len] = '\0';
	CHECK(sscanf(answer, "log pid=%d first=%u next=%u\n", &pid, first, next) == 3 && pid == getpid());
	*lines = strchr(answer, '\n') + 1;
	return answer;
}

/* Escapes: a text of a peer must not break a line or control a terminal. */
static void
test_escapes(void)
{
	static const struct { const char *text, *want; } rows[] = {
		{"plain, \"quoted\" \\ text", "plain, \"quoted\" \\ text"}, {"\x1b[2J", "\\x1b[2J"}, {"a\nb\rc\td\x7f", "a\\x0ab\\x0dc\\x09d\\x7f"},
		{"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"}, {"\xe2\x82\xac \xf0\x9f\x98\x80", "\xe2\x82\xac \xf0\x9f\x98\x80"},
		{"\xff\xfe", "\\xff\\xfe"}, {"\xc3", "\\xc3"}, {"\xc3(", "\\xc3("}, {"\xc0\xaf", "\\xc0\\xaf"}, {"\xe0\x80\x80", "\\xe0\\x80\\x80"},
		{"\xed\xa0\x80", "\\xed\\xa0\\x80"}, {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, {"\xe2\x82", "\\xe2\\x82"},
		{"\xc2\x9b" "31m", "\\xc2\\x9b31m"}, {"\xe2\x80\xae" "abc", "\\xe2\\x80\\xae" "abc"}, {"\xe2\x80\xa8", "\\xe2\\x80\\xa8"},
		{"\xe2\x81\xa6", "\\xe2\\x81\\xa6"}, {"\xef\xbb\xbf", "\\xef\\xbb\\xbf"},
	};
	struct log_limit limit = {0};
	unsigned long left_out = 7;
	char out[64], quoted[64];
	int n = 0;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		CHECK(log_escape(rows[i].text, strlen(rows[i].text), out, sizeof(out)) == strlen(rows[i].want));
		CHECK_STR(out, rows[i].want);
	}
	/* cut between characters, never inside an escape */
	for (size_t size = 1; size < 12; size++) {
		size_t len = log_escape("\xe2\x82\xac\x1b\xe2\x82\xac", 7, out, size);

		CHECK(len < size && (len == 0 || len == 3 || len == 7 || len == 10) && out[len] == '\0');
	}
	CHECK_STR(log_quote("a\"b\\c\x1b\n\xff", quoted, sizeof(quoted)), "\"a\\\"b\\\\c\\x1b\\x0a\\xff\"");
	CHECK_STR(log_quote("\x1b\x1b\x1b\x1b", quoted, 12), "\"\\x1b\\x1b\"");
	log_tap(tap, &tapped);
	log_info("evil", "name=%s", "x\n\x1b]0;title\x07 level=error");
	CHECK(strchr(tapped.line, '\n') == NULL && strchr(tapped.line, '\x1b') == NULL && strstr(tapped.line, "name=x\\x0a\\x1b]0;title\\x07") != NULL);
	log_tap(NULL, NULL);
	for (int i = 0; i < 1000; i++)
		n += log_limited(&limit, &left_out);
	CHECK(n >= LOG_LIMIT_LINES && n < 100);		/* on a slow host the loop may take several periods */
	limit.since_s -= 2 * LOG_LIMIT_S;
	CHECK(log_limited(&limit, &left_out) && left_out > 0);
	CHECK(log_limited(&limit, &left_out) && left_out == 0);
}

int
main(void)
{
	static const char *const not_ours[] = {"", "lo", "json", "logs", "log ", "log x", "log -1", "log 1 ", "log 99999999999999999999"};
	int err = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY);
	unsigned first, next;
	const char *lines;
	char *answer, event[32];
	size_t len = 7;

	dup2(null, STDERR_FILENO);
	log_init("test", LOG_LEVEL_INFO);
	for (size_t i = 0; i < sizeof(not_ours) / sizeof(not_ours[0]); i++) {
		answer = (char *)event;
		CHECK_ROW(not_ours[i], !log_answer(not_ours[i], strlen(not_ours[i]), &answer, &len) && answer == event && len == 7);
	}
	free(ask("log", &first, &next, &lines));
	CHECK(first == 0 && next == 0);

	/* A tap gets debug lines, which are neither written nor kept. */
	log_tap(tap, &tapped);
	log_debug("small.thing", "n=%d", 1);
	CHECK(tapped.n == 1 && tapped.level == LOG_LEVEL_DEBUG && strcmp(tapped.event, "small.thing") == 0);
	log_warn("large.thing", "n=%d", 2);
	CHECK(tapped.n == 2 && strcmp(tapped.event, "large.thing") == 0);
	CHECK(strncmp(tapped.line, "ts=", 3) == 0 && strstr(tapped.line, " level=warn prog=test ") != NULL);
	CHECK(strcmp(strstr(tapped.line, "event="), "event=large.thing n=2") == 0);
	log_tap(NULL, NULL);
	log_info("nobody.hears", "n=%d", 3);
	CHECK(tapped.n == 2);
	answer = ask("log", &first, &next, &lines);
	CHECK(first == 0 && next == 2);
	CHECK(strstr(lines, "event=large.thing n=2\n") != NULL && strstr(lines, "event=nobody.hears n=3\n") != NULL);
	CHECK(strstr(lines, "small.thing") == NULL);
	free(answer);
	answer = ask("log 1", &first, &next, &lines);
	CHECK(first == 1 && next == 2 && strstr(lines, "large") == NULL && strstr(lines, "nobody.hears") != NULL);
	free(answer);
	answer = ask("log 2", &first, &next, &lines);
	CHECK(first == 2 && next == 2 && lines[0] == '\0');
	free(answer);
	answer = ask("log 900", &first, &next, &lines);		/* such as a number from an earlier process */
	CHECK(first == 2 && next == 2 && lines[0] == '\0');
	free(answer);

	/* More lines than are kept: the oldest are dropped, and the answer gives its first number. */
	for (int i = 2; i < LOG_KEPT + 100; i++) {
		snprintf(event, sizeof(event), "line.%d", i);
		log_info(event, "n=%d", i);
	}
	answer = ask("log 5", &first, &next, &lines);
	CHECK(first == 100 && next == LOG_KEPT + 100);
	CHECK(strstr(lines, "event=line.99 ") == NULL);
	CHECK(strncmp(strstr(lines, "event="), "event=line.100 ", 15) == 0);
	CHECK(strstr(lines, "event=line.611 n=611\n") != NULL);
	free(answer);
	test_escapes();
	dup2(err, STDERR_FILENO);
	return check_done();
}
