/* SPDX-License-Identifier: Apache-2.0 */
/* saltctl top without a terminal: answers of daemons -> struct top -> lines. */
#include "saltctl/watch/top.h"

#include "check.h"
#include "saltctl/core/fleet.h"
#include "base/json/json.h"

static struct top top;
static struct top_lines lines;

static void
say(struct fleet *f, size_t i, const char *text)
{
	struct err_note note = {.name = ""};

	json_close(&f->daemons[i].answer);
	f->daemons[i].rc = json_parse(text, strlen(text), "test", &f->daemons[i].answer, &note);
	REQUIRE(f->daemons[i].rc == 0);
}

static void
trainer_at(struct fleet *f, size_t i, const char *state, const char *phase, int step, double loss, const char *switch_step)
{
	char text[1024];

	snprintf(text, sizeof(text), "{\"role\":\"trainerd\",\"name\":\"trainerd-0\",\"state\":\"%s\",\"phase\":\"%s\",\"step\":%d,\"steps_total\":400,"
	    "\"rates\":{\"tokens_per_s\":1200},\"queues\":{\"rows_ahead\":3},\"gauges\":{\"loss\":%.4f,\"heldout_loss\":3.5,\"switch_step\":%s},"
	    "\"last_error\":null}", state, phase, step, loss, switch_step);
	say(f, i, text);
}

static void
make_fleet(struct fleet *f)
{
	fleet_add(f, "trainer", "trainerd-0", "node1", 3, "tcp://127.0.0.1:1");
	fleet_add(f, "teacher", "teacherd-10", "node2", 4, "tcp://127.0.0.1:2");
	fleet_add(f, "teacher", "teacherd-9", "node1", 5, "tcp://127.0.0.1:3");
	fleet_add(f, "selector", "selectord", "node1", 6, "tcp://127.0.0.1:4");
	trainer_at(f, 0, "training", "one", 100, 4.25, "200");
	f->daemons[1].rc = ERR_TIMEOUT;
	say(f, 2, "{\"role\":\"teacherd\",\"name\":\"teacherd-9\",\"state\":\"waiting for leases\",\"rates\":{\"tokens_per_s\":5000,\"sequences_per_s\":10},"
	    "\"queues\":{\"leases_in_hand\":2},\"last_error\":\"bad \\u001b[2J thing\"}");
	say(f, 3, "{\"role\":\"selectord\",\"name\":\"selectord\",\"state\":\"labelling\",\"step\":1100,\"steps_total\":1600,\"rates\":{\"labels_per_s\":12.5,"
	    "\"scores_per_s\":0},\"queues\":{\"rows_ahead\":24},\"gauges\":{\"teachers\":2},\"last_error\":null}");
}

static size_t
width(const char *s)
{
	size_t n = 0;

	for (; *s != '\0'; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

/* The line that begins with start; "" if there is none. */
static const char *
line_of(const char *start)
{
	for (size_t i = 0; i < lines.n; i++)
		if (strncmp(lines.line[i].text, start, strlen(start)) == 0)
			return lines.line[i].text;
	return "";
}

static bool
shows(const char *start, const char *part)
{
	return strstr(line_of(start), part) != NULL;
}

static void
test_frame(void)
{
	struct fleet f = {.n = 0};
	struct top_look look = {.rows = 24, .cols = 80, .utf8 = true, .clock = "12:34:56", .now_s = 1012};
	size_t rows = 0;

	make_fleet(&f);
	top_init(&top, "run/salt", 0);
	top_feed(&top, &f, 1000);
	trainer_at(&f, 0, "training", "one", 120, 4.125, "200");
	top_feed(&top, &f, 1010);
	CHECK_NEAR(top_pace(&top), 2, 1e-9);
	CHECK(top.n == 4 && top.n_silent == 1);
	top_draw(&top, &look, &lines);
	CHECK(lines.n == 24);
	for (size_t i = 0; i < lines.n; i++)
		CHECK_ROW(lines.line[i].text, width(lines.line[i].text) <= 80);
	CHECK(lines.line[0].attr == TOP_TITLE && shows("saltctl top  run/salt", "4 daemons, 1 silent  12:34:56"));
	CHECK(shows("phase", "phase one") && shows("phase", "step 120 of 400 (30%)"));
	CHECK(shows("switch", "in 0:40 (step 200)") && shows("switch", "end in 2:20") && shows("switch", "2 steps/s"));
	CHECK(shows("loss", "4.1250  held-out 3.5000  █▁"));
	CHECK(shows("rows", "rows     24 ahead (trainer: 3 steps)  12.5 labels/s  2 teachers  1.10 k of 1"));
	CHECK(shows("trainer", "training for 0:12   1.20 k tokens/s"));
	/* by role, and by number within: teacherd-9 before teacherd-10 */
	for (size_t i = 0; i < lines.n; i++)
		if (lines.line[i].attr == TOP_HEAD && strncmp(lines.line[i].text, "ROLE", 4) == 0)
			rows = i + 1;
	REQUIRE(rows > 0);
	CHECK(strncmp(lines.line[rows].text, "selectord  selectord ", 21) == 0);
	CHECK(strstr(lines.line[rows + 1].text, "teacherd-9 ") != NULL && strstr(lines.line[rows + 1].text, "5.00 k tokens/s") != NULL);
	CHECK(lines.line[rows + 1].attr == TOP_WAIT);
	CHECK(strstr(lines.line[rows + 2].text, "teacherd-10") != NULL && strstr(lines.line[rows + 2].text, "  no answer in time") != NULL);
	CHECK(lines.line[rows + 2].attr == TOP_BAD);
	CHECK(strstr(lines.line[rows + 3].text, "trainerd-0") != NULL);
	CHECK(lines.line[23].attr == TOP_HELP && strstr(lines.line[23].text, "q quit  p pause  s sort: role") != NULL);

	/* errors instead of rates; control characters in a daemon's text do not reach the terminal */
	look.errors = true;
	top_draw(&top, &look, &lines);
	CHECK(strstr(lines.line[rows + 1].text, "bad  [2J thing") != NULL && strstr(lines.line[rows + 1].text, "tokens/s") == NULL);
	look.errors = false;
	look.sort = TOP_BY_STATE;
	top_draw(&top, &look, &lines);
	CHECK(strstr(lines.line[rows].text, "teacherd-10") != NULL);
	look.sort = TOP_BY_RATE;
	top_draw(&top, &look, &lines);
	CHECK(strstr(lines.line[rows].text, "teacherd-9 ") != NULL);
	look.sort = TOP_BY_ROLE;
	look.utf8 = false;
	top_draw(&top, &look, &lines);
	CHECK(shows("loss", "held-out 3.5000  #_"));
	for (size_t i = 0; i < lines.n; i++)
		for (const char *p = lines.line[i].text; *p != '\0'; p++)
			CHECK((unsigned char)*p < 0x80);
	fleet_clear(&f);
	top_free(&top);
}

/* There is a column for GPUs if a daemon has one; "?" for an unknown figure. */
static void
test_gpu(void)
{
	struct fleet f = {.n = 0};
	struct top_look look = {.cols = 160, .clock = ""};
	char text[128];

	make_fleet(&f);
	top_init(&top, "run", 0);
	top_feed(&top, &f, 1000);
	top_draw(&top, &look, &lines);
	CHECK(shows("ROLE", "RATES") && !shows("ROLE", "GPU"));
	fleet_gpu(f.daemons[2].answer, text, sizeof(text));
	CHECK_STR(text, "");
	say(&f, 2, "{\"role\":\"teacherd\",\"name\":\"teacherd-9\",\"gpu\":\"NVIDIA H200\",\"gauges\":{\"gpu_memory_bytes\":150e9,"
	    "\"gpu_memory_used_bytes\":12.34e9,\"gpu_utilization_ratio\":0.97}}");
	top_feed(&top, &f, 1001);
	top_draw(&top, &look, &lines);
	CHECK(shows("ROLE", "GPU") && shows("teacherd   teacherd-9", "NVIDIA H200 97 %, 12.3 of 150.0 GB"));
	say(&f, 2, "{\"gpu\":\"NVIDIA H200\",\"gauges\":{\"gpu_memory_bytes\":150e9,\"gpu_memory_used_bytes\":null,\"gpu_utilization_ratio\":null}}");
	fleet_gpu(f.daemons[2].answer, text, sizeof(text));
	CHECK_STR(text, "NVIDIA H200 ? %, ? of 150.0 GB");
	fleet_clear(&f);
	top_free(&top);
}

/* Lines fit into every size of screen. */
static void
test_sizes(void)
{
	struct fleet f = {.n = 0};
	char name[32], endpoint[64];

	make_fleet(&f);
	for (int i = 0; i < 60; i++) {
		snprintf(name, sizeof(name), "teacherd-%d", 100 + i);
		snprintf(endpoint, sizeof(endpoint), "tcp://127.0.0.1:%d", 100 + i);
		fleet_add(&f, "teacherd", name, "a-host-with-a-long-name.example", 1, endpoint);
	}
	top_init(&top, "a/run/with/a/long/name/that/does/not/fit/on/narrow/screens", 256);
	for (int step = 1; step < 5000; step++)
		top_loss(&top, step, 10.0 - step * 1e-3);
	CHECK(top.n_points <= TOP_POINTS_MAX && top.points[0].first == 1 && top.points[top.n_points - 1].last == 4999);
	top_feed(&top, &f, 1);
	for (int rows = 1; rows <= 40; rows++)
		for (int cols = 1; cols <= 200; cols += cols < 30 ? 1 : 17) {
			struct top_look look = {.rows = rows, .cols = cols, .utf8 = true, .clock = "12:34:56", .scroll = 1000};

			top_draw(&top, &look, &lines);
			CHECK(lines.n <= (size_t)rows);
			for (size_t i = 0; i < lines.n; i++)
				CHECK(width(lines.line[i].text) <= (size_t)cols);
			CHECK(rows == 1 || look.scroll < top.n);
		}
	/* 80 x 24: the rows that do not fit are counted, and scrolling shows the last */
	struct top_look look = {.rows = 24, .cols = 80, .utf8 = true, .clock = ""};
	top_draw(&top, &look, &lines);
	CHECK(lines.n == 24);
	CHECK(shows("... 0 above, ", " below") && strstr(line_of("selectord"), "labelling") != NULL);
	look.scroll = 1000;
	top_draw(&top, &look, &lines);
	CHECK(shows("... ", ", 0 below") && shows("trainerd", "trainerd-0"));
	/* one frame as text: all daemons, without the line of keys */
	look = (struct top_look){.rows = 0, .cols = 80, .clock = ""};
	top_draw(&top, &look, &lines);
	CHECK(lines.n > 64);
	for (size_t i = 0; i < lines.n; i++)
		CHECK(lines.line[i].attr != TOP_HELP);
	fleet_clear(&f);
	top_free(&top);
}

static void
test_trainer(void)
{
	struct fleet f = {.n = 0};
	struct top_look look = {.rows = 24, .cols = 100, .clock = ""};

	make_fleet(&f);
	top_init(&top, "run", 600);
	/* until_margin: the switch is not decided yet */
	trainer_at(&f, 0, "training", "one", 10, 5, "null");
	top_feed(&top, &f, 0);
	/* from its own rate, without a history */
	CHECK_NEAR(top_pace(&top), 1200.0 / 600, 1e-9);
	top_draw(&top, &look, &lines);
	CHECK(shows("switch", "when the margin is met"));
	/* the trainer waits: the pace falls, and the line shows for how long */
	trainer_at(&f, 0, "waiting for rows", "one", 30, 5, "200");
	for (int s = 10; s <= 40; s += 10)
		top_feed(&top, &f, s);
	CHECK_NEAR(top_pace(&top), 20.0 / 40, 1e-9);
	look.now_s = 40;
	top_draw(&top, &look, &lines);
	CHECK(shows("trainer", "waiting for rows for 0:30"));
	/* two minutes without a step: no ETA is shown */
	for (int s = 50; s <= 150; s += 10)
		top_feed(&top, &f, s);
	CHECK(top_pace(&top) == 0);
	top_draw(&top, &look, &lines);
	CHECK(shows("switch", "in ? (step 200)") && shows("switch", "end in ?"));
	/* back to a checkpoint: its losses are dropped, not drawn twice */
	trainer_at(&f, 0, "training", "one", 20, 6, "200");
	top_feed(&top, &f, 160);
	CHECK(top.points[top.n_points - 1].last == 20 && top.points[top.n_points - 1].loss == 6 && top.n_points == 2);
	/* phase two needs no other daemon */
	trainer_at(&f, 0, "training", "two", 300, 3, "200");
	f.daemons[3].left = f.daemons[2].left = f.daemons[1].left = true;
	top_feed(&top, &f, 170);
	CHECK(top.n == 1);
	top_draw(&top, &look, &lines);
	CHECK(shows("switch", "was at step 200") && shows("rows", "no other daemon is needed"));
	trainer_at(&f, 0, "done", "two", 400, 3, "200");
	top_feed(&top, &f, 180);
	top_draw(&top, &look, &lines);
	CHECK(shows("switch", "end now") && shows("phase", "(100%)"));
	/* a baseline; then no trainer */
	trainer_at(&f, 0, "training", "two", 10, 3, "0");
	top_feed(&top, &f, 190);
	top_draw(&top, &look, &lines);
	CHECK(shows("switch", "none: a run without phase one"));
	json_close(&f.daemons[0].answer);
	f.daemons[0].rc = ERR_TIMEOUT;
	top_feed(&top, &f, 200);
	top_draw(&top, &look, &lines);
	CHECK(shows("phase", "no trainer answers") && shows("loss", "3.0000"));
	fleet_clear(&f);
	top_free(&top);
}

static void
test_spark(void)
{
	struct top_point p[] = {{1, 1, 8}, {2, 2, 1}, {3, 3, 4.5}, {4, 4, 4.5}};
	char out[64];

	top_spark(p, 4, 10, true, out);
	CHECK_STR(out, "█▁▄▄");
	top_spark(p, 4, 10, false, out);
	CHECK_STR(out, "#_::");
	top_spark(p, 4, 2, true, out);			/* means of two: 4.5 and 4.5 */
	CHECK_STR(out, "▄▄");
	top_spark(p, 1, 4, true, out);
	CHECK_STR(out, "▄");
	top_spark(p, 0, 4, true, out);
	CHECK_STR(out, "");
	top_spark(p, 4, 0, true, out);
	CHECK_STR(out, "");
}

/* History from a metrics.jsonl with repeated steps and an incomplete last line. */
static void
test_seed(void)
{
	char path[] = "/tmp/salt_top.XXXXXX";
	int fd = mkstemp(path);
	FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;

	REQUIRE(out != NULL);
	fprintf(out, "{\"kind\":\"step\",\"step\":1,\"loss\":5.5}\n{\"kind\":\"step\",\"step\":2,\"loss\":null}\n{\"kind\":\"step\",\"step\":3,\"loss\":5.25}\n"
	    "{\"kind\":\"eval\",\"step\":3,\"loss\":6}\n{\"kind\":\"step\",\"step\":3,\"loss\":5.125}\n{\"kind\":\"step\",\"st");
	fclose(out);
	top_init(&top, "", 0);
	CHECK(top_seed(&top, path) == 0);
	CHECK(top.n_points == 2 && top.points[0].loss == 5.5 && top.points[1].first == 3 && top.points[1].loss == 5.125 && top.heldout == 6);
	remove(path);
	CHECK(top_seed(&top, path) == 0);		/* the file does not exist yet */
}

int
main(void)
{
	test_spark();
	test_seed();
	test_frame();
	test_gpu();
	test_sizes();
	test_trainer();
	top_lines_free(&lines);
	return check_done();
}
