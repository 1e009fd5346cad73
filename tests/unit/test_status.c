/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The status of a daemon: counts from several threads, rates with a clock that the test sets, the JSON that
 * users' scripts read, announcements.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>
#include "files.h"
#include "base/json/json.h"
#include "fabric/status/status.h"

static char *
json_of(struct status *st, int64_t now_ms)
{
	struct status_snapshot *snap = calloc(1, sizeof(*snap));
	char *text;

	REQUIRE(snap != NULL);
	status_snapshot(st, now_ms, snap);
	text = status_json(snap);
	free(snap);
	return text;
}

static void *
adder(void *arg)
{
	struct status_metric **m = arg;

	for (int i = 0; i < 100000; i++) {
		status_add(m[0], 3);
		status_set(m[1], i);
	}
	return NULL;
}

static void
test_threads(void)
{
	struct status *st = status_new("teacherd", "teacherd-0", "0.1.0", 0);
	struct status_metric *m[2];
	pthread_t thread[2];

	REQUIRE(st != NULL);
	m[0] = status_register(st, STATUS_COUNTER, "tokens_total", "tokens", "tokens labelled");
	m[1] = status_register(st, STATUS_GAUGE, "longest", "rows", "longest queue");
	REQUIRE(m[0] != NULL && m[1] != NULL);
	for (int i = 0; i < 2; i++)
		REQUIRE(pthread_create(&thread[i], NULL, adder, m) == 0);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	CHECK_NEAR(status_get(m[0]), 600000, 0);
	CHECK(status_get(m[1]) == 99999);
	status_destroy(&st);
	CHECK(st == NULL);
	status_destroy(&st);
}

static void
test_register(void)
{
	static const struct { const char *what, *name; bool good; } rows[] = {
		{ "plain", "rows_ahead", true }, { "digit later", "p99_ms", true }, { "taken", "rows_ahead", false },
		{ "empty", "", false }, { "capital", "Rows", false }, { "digit first", "9rows", false },
		{ "quote", "a\"b", false }, { "dot", "a.b", false },
		{ "too long", "a234567890123456789012345678901234567890123456789012345678901234", false },
	};
	struct status *st = status_new("selectord", "selectord-0", "0.1.0", 0);
	char name[16];
	size_t n = 2;

	REQUIRE(st != NULL);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		CHECK_ROW(rows[i].what, (status_register(st, STATUS_QUEUE, rows[i].name, "", "") != NULL) == rows[i].good);
	for (; n < STATUS_METRICS_MAX; n++) {
		snprintf(name, sizeof(name), "m%zu", n);
		CHECK(status_register(st, STATUS_GAUGE, name, "", "") != NULL);
	}
	CHECK(status_register(st, STATUS_GAUGE, "one_more", "", "") == NULL);
	status_add(NULL, 1);
	status_set(NULL, 1);
	CHECK(status_get(NULL) == 0);
	status_destroy(&st);
}

static void
test_rates(void)
{
	struct status *st = status_new("trainerd", "trainerd-0", "0.1.0", 5000);
	struct status_metric *m = status_register(st, STATUS_RATED, "tokens_total", "tokens", "");
	struct status_snapshot *s = calloc(1, sizeof(*s));

	REQUIRE(st != NULL && m != NULL && s != NULL);
	status_add(m, 100);
	status_snapshot(st, 5400, s);
	CHECK_NEAR(s->metrics[0].rate_per_s, 0, 0);		/* too soon for a rate */
	status_snapshot(st, 6000, s);
	CHECK_NEAR(s->metrics[0].rate_per_s, 100, 1e-9);	/* the mean since the start */
	status_add(m, 3000);
	status_snapshot(st, 6200, s);
	CHECK_NEAR(s->metrics[0].rate_per_s, 100, 1e-9);	/* unchanged after a short time */
	status_snapshot(st, 16000, s);
	CHECK_NEAR(s->metrics[0].rate_per_s, 226.42411176571153, 1e-9);	/* 100 + (1 - 1/e) * (300 - 100) */
	status_snapshot(st, 116000, s);
	CHECK_NEAR(s->metrics[0].rate_per_s, 0.010279601, 1e-6);	/* 226.42.. * e^-10: idle */
	CHECK(s->metrics[0].value == 3100);
	CHECK_NEAR(s->uptime_s, 111, 1e-9);
	free(s);
	status_destroy(&st);
}

static void
test_states(void)
{
	struct status *st = status_new("trainerd", "t", "0.1.0", 1000);
	struct status_snapshot *s = calloc(1, sizeof(*s));
	char name[16];
	double sum = 0;

	REQUIRE(st != NULL && s != NULL);
	status_state(st, "training", 3000);
	status_state(st, "waiting", 4500);
	status_state(st, "training", 5000);
	status_snapshot(st, 9000, s);
	REQUIRE(s->n_states == 3);
	CHECK_STR(s->state, "training");
	CHECK_STR(s->states[0].name, "starting");
	CHECK_NEAR(s->states[0].seconds, 2.0, 1e-9);
	CHECK_STR(s->states[1].name, "training");
	CHECK_NEAR(s->states[1].seconds, 5.5, 1e-9);
	CHECK_NEAR(s->states[2].seconds, 0.5, 1e-9);
	for (int i = 0; i < 40; i++) {			/* more names than fit */
		snprintf(name, sizeof(name), "s%d", i);
		status_state(st, name, 9000 + i * 10);
	}
	status_snapshot(st, 10000, s);
	CHECK(s->n_states == STATUS_STATES_MAX);
	CHECK_STR(s->state, "s39");
	for (size_t i = 0; i < s->n_states; i++)
		sum += s->states[i].seconds;
	CHECK_NEAR(sum, 9.0, 1e-9);
	free(s);
	status_destroy(&st);
}

static double
num_at(const struct json *root, const char *group, const char *name)
{
	double v = (double)NAN;

	json_num(json_get(json_get(root, group), name), &v);
	return v;
}

static void
test_json(void)
{
	struct status *st = status_new("selectord", "selectord-0", "0.1.0", 0);
	struct status_metric *rated, *count, *queue, *gauge, *timer;
	struct json *root = NULL;
	const char *text;
	char *out, long_error[2000];
	int64_t pid = 0, step = 0;

	REQUIRE(st != NULL);
	rated = status_register(st, STATUS_RATED, "rows_total", "rows", "rows that \"came\"");
	count = status_register(st, STATUS_COUNTER, "bad_frames_total", "frames", "");
	queue = status_register(st, STATUS_QUEUE, "leases_in_flight", "leases", "leases out");
	gauge = status_register(st, STATUS_GAUGE, "map_used_ratio", "", "");
	timer = status_register(st, STATUS_TIMER, "commit_seconds_total", "seconds", "");
	status_add(rated, 50);
	status_add(count, 2);
	status_set(queue, 7);
	status_set(gauge, 0.25);
	status_add(timer, 1500000000);
	status_set(count, 99);				/* not a gauge: no effect */
	status_add(queue, 99);
	status_phase(st, "phase_one");
	status_step(st, 41, 200);
	out = json_of(st, 10000);
	REQUIRE(out != NULL && strchr(out, '\n') == NULL);
	REQUIRE(json_parse(out, strlen(out), "status", &root, NULL) == 0);
	CHECK(json_text(json_get(root, "role"), &text) && strcmp(text, "selectord") == 0);
	CHECK(json_text(json_get(root, "name"), &text) && strcmp(text, "selectord-0") == 0);
	CHECK(json_text(json_get(root, "version"), &text) && strcmp(text, "0.1.0") == 0);
	CHECK(json_text(json_get(root, "state"), &text) && strcmp(text, "starting") == 0);
	CHECK(json_text(json_get(root, "phase"), &text) && strcmp(text, "phase_one") == 0);
	CHECK(json_text(json_get(root, "host"), &text) && text[0] != '\0');
	CHECK(json_int(json_get(root, "pid"), &pid) && pid == getpid());
	CHECK(json_int(json_get(root, "step"), &step) && step == 41);
	CHECK(json_int(json_get(root, "steps_total"), &step) && step == 200);
	CHECK(json_kind(json_get(root, "last_error")) == JSON_KIND_NULL);
	CHECK(json_get(root, "events_endpoint") != NULL && json_kind(json_get(root, "events_endpoint")) == JSON_KIND_NULL);
	CHECK_NEAR(num_at(root, "rates", "rows_per_s"), 5, 1e-9);
	CHECK(num_at(root, "counters", "rows_total") == 50);
	CHECK(num_at(root, "counters", "bad_frames_total") == 2);
	CHECK(num_at(root, "queues", "leases_in_flight") == 7);
	CHECK(num_at(root, "gauges", "map_used_ratio") == 0.25);
	CHECK(num_at(root, "timers", "commit_seconds_total") == 1.5);
	CHECK(num_at(root, "state_seconds", "starting") == 10);
	CHECK(json_text(json_get(json_get(root, "help"), "rows_total"), &text) && strcmp(text, "rows that \"came\"") == 0);
	CHECK(json_text(json_get(json_get(root, "help"), "leases_in_flight"), &text) && strcmp(text, "leases out") == 0);
	CHECK(json_count(json_get(root, "help")) == 2);		/* metrics without a help text are left out */
	CHECK(json_count(json_get(root, "rates")) == 1 && json_count(json_get(root, "queues")) == 1);
	json_close(&root);
	free(out);

	/* A long error of two-byte characters is truncated, but not inside a character. */
	for (size_t i = 0; i < sizeof(long_error) - 2; i += 2)
		memcpy(long_error + i, "\xC3\xA9", 2);
	long_error[0] = 'x';
	long_error[1] = '"';
	long_error[1998] = '\0';
	status_error(st, long_error);
	status_set(gauge, (double)NAN);
	out = json_of(st, 20000);
	REQUIRE(out != NULL && json_parse(out, strlen(out), "status", &root, NULL) == 0);
	REQUIRE(json_text(json_get(root, "last_error"), &text));
	CHECK(strlen(text) == STATUS_ERROR_MAX - 2 && strstr(text, "\xEF\xBF\xBD") == NULL);
	CHECK(json_kind(json_get(json_get(root, "gauges"), "map_used_ratio")) == JSON_KIND_NULL);
	json_close(&root);
	free(out);
	status_destroy(&st);
}

static void
test_announce(void)
{
	char dir[] = "/tmp/salt_status_XXXXXX", path[300];
	struct status_announce a = { 0 }, *list = NULL;
	struct err_note note = { 0 };
	size_t n = 9, bad = 9;

	REQUIRE(mkdtemp(dir) != NULL);
	CHECK(status_announce_list(dir, &list, &n, &bad) == 0 && n == 0 && bad == 0 && list == NULL);
	CHECK(status_announce_remove(dir, "nobody") == 0);

	status_announce_fill(&a, "teacherd", "teacherd-1", "tcp://127.0.0.1:40001", NULL);
	CHECK(status_announce_write(dir, &a, &note) == 0);
	CHECK(status_announce_write(dir, &a, &note) == 0);	/* again: the same file */
	status_announce_fill(&a, "selectord", "selectord-0", "tcp://127.0.0.1:40002", "tcp://127.0.0.1:5750");
	CHECK(status_announce_write(dir, &a, &note) == 0);
	snprintf(path, sizeof(path), "%s/daemons/half.json", dir);
	spill_text(path, "{\"role\": \"tea");
	snprintf(path, sizeof(path), "%s/daemons/.teacherd-9.json", dir);	/* left by a killed writer */
	spill_text(path, "{");
	snprintf(path, sizeof(path), "%s/daemons/elsewhere.json", dir);
	spill_text(path, "{\"role\":\"trainerd\",\"name\":\"elsewhere\",\"pid\":1,\"host\":\"another-host\",\"status\":\"\",\"data\":\"\"}");
	REQUIRE(status_announce_list(dir, &list, &n, &bad) == 0 && n == 3);
	CHECK(bad == 1);
	CHECK_STR(list[0].name, "elsewhere");
	CHECK_STR(list[1].name, "selectord-0");
	CHECK_STR(list[1].role, "selectord");
	CHECK_STR(list[1].status_endpoint, "tcp://127.0.0.1:40002");
	CHECK_STR(list[1].data_endpoint, "tcp://127.0.0.1:5750");
	CHECK_STR(list[2].name, "teacherd-1");
	CHECK(list[2].pid == getpid());
	free(list);

	CHECK(status_announce_remove(dir, "elsewhere") == 0);	/* of another process: is kept */
	CHECK(access(path, F_OK) == 0);
	CHECK(status_announce_remove(dir, "teacherd-1") == 0);
	CHECK(status_announce_remove(dir, "../daemons/selectord-0") == ERR_FORMAT);
	REQUIRE(status_announce_list(dir, &list, &n, NULL) == 0);
	CHECK(n == 2);
	free(list);

	status_announce_fill(&a, "teacherd", "../evil", NULL, NULL);
	CHECK(status_announce_write(dir, &a, &note) == ERR_FORMAT);
	CHECK_STR(note.found, "../evil");
	status_announce_fill(&a, "teacherd", "t", NULL, NULL);
	CHECK(status_announce_write(path, &a, &note) == ENOTDIR);	/* path is a file */
	CHECK_STR(note.name, path);

	CHECK(status_announce_remove(dir, "selectord-0") == 0);
	unlink(path);
	snprintf(path, sizeof(path), "%s/daemons/half.json", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/daemons/.teacherd-9.json", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/daemons", dir);
	CHECK(rmdir(path) == 0);		/* nothing else was left behind */
	rmdir(dir);
}

int
main(void)
{
	test_threads();
	test_register();
	test_rates();
	test_states();
	test_json();
	test_announce();
	return check_done();
}
