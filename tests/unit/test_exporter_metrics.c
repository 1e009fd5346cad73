/* SPDX-License-Identifier: Apache-2.0 */
/* exporter_metrics: a hand-made fleet -> Prometheus text. No daemon's name may break the text. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "saltctl/watch/exporter.h"
#include "saltctl/core/fleet.h"
#include "base/json/json.h"

static char *
text_of(struct fleet_daemon *daemons, size_t n, const struct exporter_self *self)
{
	struct fleet f = {.daemons = daemons, .n = n};
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	CHECK(exporter_metrics(&f, self, out) == 0);
	fclose(out);
	for (size_t i = 0; i < n; i++)
		json_close(&daemons[i].answer);
	return text;
}

static struct fleet_daemon
daemon_of(const char *role, const char *name, const char *host, const char *answer)
{
	struct fleet_daemon d = {.endpoint = "tcp://127.0.0.1:1", .rc = answer != NULL ? 0 : ERR_TIMEOUT};

	snprintf(d.role, sizeof(d.role), "%s", role);
	snprintf(d.name, sizeof(d.name), "%s", name);
	snprintf(d.host, sizeof(d.host), "%s", host);
	if (answer != NULL)
		CHECK(json_parse(answer, strlen(answer), "answer", &d.answer, NULL) == 0);
	return d;
}

/* Whether this is a whole line of the text. */
static int
has(const char *text, const char *line)
{
	size_t n = strlen(line);

	for (const char *p = strstr(text, line); p != NULL; p = strstr(p + 1, line))
		if ((p == text || p[-1] == '\n') && p[n] == '\n')
			return 1;
	printf("no line: %s\nin:\n%s", line, text);
	return 0;
}

static size_t
count(const char *text, const char *what)
{
	size_t n = 0;

	for (const char *p = strstr(text, what); p != NULL; p = strstr(p + 1, what))
		n++;
	return n;
}

static void
test_whole(void)
{
	struct exporter_self self = {.n_polls = 7, .poll_seconds = 0.25, .polled_at = 1700000000.5, .n_runs = 3, .run_disk_free_ratio = 0.5};
	struct fleet_daemon d[] = {
		daemon_of("selectord", "selectord", "a", "{\"version\":\"1.2\",\"state\":\"ahead\",\"phase\":\"\",\"step\":5,\"steps_total\":9,\"uptime_s\":2.5,"
		    "\"counters\":{\"labels_total\":12},\"gauges\":{\"heldout_loss\":null,\"peers\":2},\"queues\":{\"rows_ahead\":4},\"timers\":{},"
		    "\"state_seconds\":{\"ahead\":2,\"labelling\":0.5},\"help\":{\"labels_total\":\"labels taken in\",\"peers\":\"a\\\\b\\nc\"},"
		    "\"plans\":[{\"plan\":\"0123456789abcdef\",\"rows\":9,\"rows_ready\":5,\"rows_asked\":1,\"released\":false}]}"),
		daemon_of("trainerd", "trainerd-0", "b",
		    "{\"phase\":\"two\",\"gpu\":\"NVIDIA H200\",\"counters\":{\"tokens_total\":9007199254740993},\"timers\":{\"wait_rows_seconds_total\":1.5},"
		    "\"gauges\":{\"learning_rate\":3e-4,\"gpu_utilization_ratio\":0.97,\"gpu_memory_used_bytes\":null},\"queues\":{\"rows_ahead\":1}}"),
		daemon_of("teacherd", "teacherd-0", "c", NULL),
	};
	char *text = text_of(d, 3, &self);

	CHECK(has(text, "# HELP salt_selector_labels_total labels taken in"));
	CHECK(has(text, "# TYPE salt_selector_labels_total counter"));
	CHECK(has(text, "salt_selector_labels_total{role=\"selectord\",daemon=\"selectord\",host=\"a\"} 12"));
	CHECK(has(text, "# HELP salt_selector_peers a\\\\b\\nc"));
	CHECK(has(text, "# TYPE salt_selector_peers gauge"));
	CHECK(has(text, "salt_selector_rows_ahead{role=\"selectord\",daemon=\"selectord\",host=\"a\"} 4"));
	CHECK(has(text, "salt_trainer_rows_ahead{role=\"trainerd\",daemon=\"trainerd-0\",host=\"b\"} 1"));
	CHECK(has(text, "salt_trainer_wait_rows_seconds_total{role=\"trainerd\",daemon=\"trainerd-0\",host=\"b\"} 1.5"));
	CHECK(has(text, "# TYPE salt_trainer_wait_rows_seconds_total counter"));
	CHECK(strstr(text, "salt_selector_heldout_loss") == NULL);		/* null means not known */
	CHECK(has(text, "salt_state{role=\"selectord\",daemon=\"selectord\",host=\"a\",state=\"ahead\"} 1"));
	CHECK(has(text, "salt_state{role=\"selectord\",daemon=\"selectord\",host=\"a\",state=\"labelling\"} 0"));
	CHECK(has(text, "salt_state_seconds_total{role=\"selectord\",daemon=\"selectord\",host=\"a\",state=\"labelling\"} 0.5"));
	CHECK(has(text, "salt_info{role=\"selectord\",daemon=\"selectord\",host=\"a\",version=\"1.2\"} 1"));
	CHECK(has(text, "salt_gpu_info{role=\"trainerd\",daemon=\"trainerd-0\",host=\"b\",gpu=\"NVIDIA H200\"} 1") && count(text, "\nsalt_gpu_info{") == 1);
	CHECK(has(text, "salt_trainer_gpu_utilization_ratio{role=\"trainerd\",daemon=\"trainerd-0\",host=\"b\"} 0.96999999999999997"));
	CHECK(strstr(text, "gpu_memory_used_bytes") == NULL);
	CHECK(has(text, "salt_plan_rows_ready{role=\"selectord\",daemon=\"selectord\",host=\"a\",plan=\"01234567\"} 5"));
	CHECK(has(text, "salt_plan_released{role=\"selectord\",daemon=\"selectord\",host=\"a\",plan=\"01234567\"} 0"));
	CHECK(has(text, "salt_phase{role=\"trainerd\",daemon=\"trainerd-0\",host=\"b\"} 2"));
	CHECK(count(text, "\nsalt_phase{") == 1);
	CHECK(has(text, "salt_up{role=\"selectord\",daemon=\"selectord\",host=\"a\"} 1"));
	CHECK(has(text, "salt_up{role=\"teacherd\",daemon=\"teacherd-0\",host=\"c\"} 0"));
	CHECK(strstr(text, "salt_teacher_") == NULL);
	CHECK(has(text, "salt_exporter_daemons 3"));
	CHECK(has(text, "salt_exporter_daemons_answering 2"));
	CHECK(has(text, "salt_exporter_polls_total 7"));
	CHECK(has(text, "salt_exporter_polled_timestamp_seconds 1700000000.5"));
	CHECK(has(text, "salt_run_disk_free_ratio 0.5"));
	free(text);
}

static void
test_odd(void)
{
	struct exporter_self self = {.run_disk_free_ratio = NAN};
	struct fleet_daemon d[] = {
		daemon_of("teacherd", "a\"b\\c\nd\te", "h\xc3\xa9", "{\"counters\":{\"x_total\":1,\"Bad\":2,\"9x\":3,\"a-b\":4,\"\":5,\"e\\u0301\":6}}"),
		daemon_of("no role}", "b", "h", "{\"counters\":{\"y_total\":1}}"),
		daemon_of("", "", "", NULL),
	};
	char *text = text_of(d, 3, &self);

	CHECK(has(text, "salt_teacher_x_total{role=\"teacherd\",daemon=\"a\\\"b\\\\c\\nd e\",host=\"h??\"} 1"));
	/* HELP, TYPE and one line; bad names are left out */
	CHECK(count(text, "salt_teacher_") == 3);
	CHECK(has(text, "# HELP salt_teacher_x_total the daemon sent no help text"));
	CHECK(strstr(text, "y_total") == NULL);
	CHECK(has(text, "salt_up{role=\"no role}\",daemon=\"b\",host=\"h\"} 1"));
	CHECK(has(text, "salt_up{role=\"\",daemon=\"tcp://127.0.0.1:1\",host=\"\"} 0"));
	CHECK(strstr(text, "disk_free") == NULL);
	free(text);
}

/* Prometheus would reject a duplicate series: of two entries the one that answers is shown. */
static void
test_twice(void)
{
	struct exporter_self self = {.run_disk_free_ratio = NAN};
	struct fleet_daemon d[] = {
		daemon_of("teacherd", "t", "h", NULL),
		daemon_of("teacherd", "t", "h", "{\"uptime_s\":1}"),
		daemon_of("teacherd", "t", "h", "{\"uptime_s\":2}"),
		daemon_of("teacherd", "t", "h", NULL),
		daemon_of("teacherd", "t", "other", NULL),
		daemon_of("teacherd", "u", "h", NULL),
		daemon_of("teacherd", "u", "h", NULL),
	};
	char *text = text_of(d, 7, &self);

	CHECK(count(text, "\nsalt_up{") == 3);
	CHECK(has(text, "salt_up{role=\"teacherd\",daemon=\"t\",host=\"h\"} 1"));
	CHECK(has(text, "salt_up{role=\"teacherd\",daemon=\"t\",host=\"other\"} 0"));
	CHECK(has(text, "salt_up{role=\"teacherd\",daemon=\"u\",host=\"h\"} 0"));
	CHECK(has(text, "salt_uptime_seconds{role=\"teacherd\",daemon=\"t\",host=\"h\"} 1"));
	CHECK(count(text, "\nsalt_uptime_seconds{") == 1);
	free(text);
}

/* If two daemons disagree on a metric's kind, the first kind counts and other lines are left out. */
static void
test_kinds(void)
{
	struct exporter_self self = {.run_disk_free_ratio = NAN};
	struct fleet_daemon d[] = {
		daemon_of("teacherd", "a", "h", "{\"counters\":{\"x_total\":1}}"),
		daemon_of("teacherd", "b", "h", "{\"gauges\":{\"x_total\":2}}"),
	};
	char *text = text_of(d, 2, &self);

	CHECK(count(text, "# TYPE salt_teacher_x_total") == 1);
	CHECK(has(text, "# TYPE salt_teacher_x_total counter"));
	CHECK(count(text, "\nsalt_teacher_x_total{") == 1);
	free(text);
}

int
main(void)
{
	test_whole();
	test_odd();
	test_twice();
	test_kinds();
	return check_done();
}
