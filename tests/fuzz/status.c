/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: byte 0 is the meaning of the rest: 0 a request to a status socket, 1 an announcement in
 * run.dir/daemons, 2 the answer of a daemon, shown by the exporter and by top, 3 a metrics.jsonl that top
 * reads.
 */
#include "fabric/wire/status_answer.h"

#include <math.h>
#include "base/json/json.h"
#include "base/log/log.h"
#include "fuzz.h"
#include "saltctl/core/fleet.h"
#include "saltctl/core/output.h"
#include "saltctl/watch/exporter.h"
#include "saltctl/watch/top.h"

static void
request(const uint8_t *data, size_t len)
{
	static struct status_snapshot snap = {.role = "selectord", .name = "selectord-0", .host = "h", .version = "0", .state = "ahead", .phase = "",
	    .n_metrics = 2, .metrics = {{.kind = STATUS_COUNTER, .name = "leases_total", .unit = "leases", .help = "given out", .value = 3},
	    {.kind = STATUS_GAUGE, .name = "loss", .value = NAN}}};
	const struct wire_peer peer = {.name = "teacherd-0", .host = "\xff", .role = WIRE_ROLE_TEACHER};
	struct json *j = NULL;
	uint8_t *answer = NULL;
	char *lines = NULL;
	size_t n;

	if (FUZZ_WORKS(wire_status_answer(data, len, &snap, NULL, 0, &answer, &n)))	/* of a daemon without peers */
		free(answer);
	answer = NULL;
	if (FUZZ_WORKS(wire_status_answer(data, len, &snap, &peer, 1, &answer, &n)) && answer != NULL && answer[0] == '{') {
		FUZZ_CHECK(len == 0 || (len == 4 && memcmp(data, "json", 4) == 0));
		if (FUZZ_WORKS(json_parse((char *)answer, n, "answer", &j, NULL)))
			FUZZ_CHECK(json_count(json_get(j, "roster")) == 1);
		json_close(&j);
	}
	free(answer);
	if (log_answer(data, len, &lines, &n) && lines != NULL)
		FUZZ_CHECK(memcmp(data, "log", 3) == 0 && n > 8 && memcmp(lines, "log pid=", 8) == 0);
	free(lines);
}

static void
announcement(const uint8_t *data, size_t len)
{
	struct status_announce *list;
	char path[160];
	size_t n, n_bad;

	snprintf(path, sizeof(path), "%s/daemons", fuzz_dir());
	mkdir(path, 0777);
	fuzz_file("daemons/x.json", data, len);
	if (!FUZZ_WORKS(status_announce_list(fuzz_dir(), &list, &n, &n_bad)))
		return;
	FUZZ_CHECK(n + n_bad == 1);
	for (size_t i = 0; i < n; i++)
		FUZZ_CHECK(list[i].name[0] != '\0' && list[i].name[0] != '.' && strchr(list[i].name, '/') == NULL);
	free(list);
	status_announce_remove(fuzz_dir(), "x");
}

static struct top top;

static void
show(void)
{
	struct top_look look = {.rows = 24, .cols = 80, .utf8 = true, .clock = "", .now_s = 1010};
	static struct top_lines lines;

	top_draw(&top, &look, &lines);
	FUZZ_CHECK(lines.n <= 24);
	for (size_t i = 0; i < lines.n; i++)
		for (const char *p = lines.line[i].text; *p != '\0'; p++)
			/* no control characters, which could control the terminal */
			FUZZ_CHECK((unsigned char)*p >= 0x20 && *p != 0x7f && !((unsigned char)p[0] == 0xc2 && (unsigned char)p[1] < 0xa0));
	top_lines_free(&lines);
}

static void
take_text(const struct json *o, const char *key, char *to, size_t size)
{
	snprintf(to, size, "%.*s", (int)size - 1, ctl_text_of(o, key, ""));
}

static void
answer(const uint8_t *data, size_t len)
{
	/* one that answers, one that does not, one with the name of the first, one that has left */
	struct fleet_daemon d[4] = {{.endpoint = "tcp://127.0.0.1:1"}, {.endpoint = "tcp://127.0.0.1:2", .rc = ERR_TIMEOUT},
	    {.endpoint = "tcp://127.0.0.1:3", .rc = ERR_TIMEOUT}, {.endpoint = "tcp://127.0.0.1:4", .rc = ERR_TIMEOUT, .left = true}};
	struct fleet f = {.daemons = d, .n = 4};
	struct exporter_self self = {.n_polls = 1, .run_disk_free_ratio = len % 2 == 0 ? 0.5 : NAN};
	char *text = NULL;
	size_t n = 0;
	FILE *out;

	if (json_parse((const char *)data, len, "answer", &d[0].answer, NULL) != 0)
		return;
	take_text(d[0].answer, "role", d[0].role, sizeof(d[0].role));
	take_text(d[0].answer, "name", d[0].name, sizeof(d[0].name));
	take_text(d[0].answer, "host", d[0].host, sizeof(d[0].host));
	memcpy(d[2].role, d[0].role, sizeof(d[2].role));
	memcpy(d[2].name, d[0].name, sizeof(d[2].name));
	memcpy(d[2].host, d[0].host, sizeof(d[2].host));
	FUZZ_CHECK((out = open_memstream(&text, &n)) != NULL);
	FUZZ_CHECK(exporter_metrics(&f, &self, out) == 0);
	fclose(out);
	/* Prometheus would reject the whole text because of a bad line */
	for (char *p = text; *p != '\0'; p = strchr(p, '\n') + 1) {
		FUZZ_CHECK(strncmp(p, "# HELP salt_", 12) == 0 || strncmp(p, "# TYPE salt_", 12) == 0 || strncmp(p, "salt_", 5) == 0);
		FUZZ_CHECK(strchr(p, '\n') != NULL);
	}
	free(text);
	top_init(&top, "run", 4096);
	show();
	top_feed(&top, &f, 1000);
	top_feed(&top, &f, 1000.5);
	top.step++;
	top_feed(&top, &f, 1010);
	show();
	top_free(&top);
	json_close(&d[0].answer);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static bool started;

	if (!started)
		log_info("fuzz.start", "n=%d", 1);		/* a line that can be requested */
	started = true;
	if (len == 0 || (data[0] >= 2 && fuzz_faults))		/* saltctl exits if memory runs out */
		return 0;
	switch (data[0]) {
	case 0:
		request(data + 1, len - 1);
		break;
	case 1:
		announcement(data + 1, len - 1);
		break;
	case 2:
		answer(data + 1, len - 1);
		break;
	case 3:
		top_init(&top, "run", 0);
		FUZZ_CHECK(top_seed(&top, fuzz_file("metrics.jsonl", data + 1, len - 1)) == 0);
		show();
		top_free(&top);
	}
	return 0;
}
