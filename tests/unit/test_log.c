/* SPDX-License-Identifier: Apache-2.0 */
/* The log's tap and what is kept of its lines. */
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

/* What "log N" gets: the two numbers of its first line, and the rest. */
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

	/* A tap hears debug lines, which are neither written nor kept. */
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
	answer = ask("log 900", &first, &next, &lines);		/* of an earlier process, say */
	CHECK(first == 2 && next == 2 && lines[0] == '\0');
	free(answer);

	/* More than are kept: the oldest go, and the answer says from where it is. */
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
	dup2(err, STDERR_FILENO);
	return check_done();
}
