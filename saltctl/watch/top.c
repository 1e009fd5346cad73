/* SPDX-License-Identifier: Apache-2.0 */
/* top: shows the fleet on a live screen, or prints one frame as text. */
#include <langinfo.h>
#include <limits.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "fabric/config/config.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/fleet.h"
#include "saltctl/core/output.h"
#include "saltctl/watch/top.h"
#include "base/log/log.h"

#define KEYS_MS 50			/* interval at which keys are read */

static const struct cli_option options[] = {
	CTL_CONFIG,
	{"endpoint", "TCP", "ask this status socket too, such as tcp://127.0.0.1:5560; may be repeated", true},
	{"interval", "S", "ask every S seconds; default 1", false},
	{"timeout", "S", "a daemon that has not answered after S seconds counts as silent; default 2", false},
	{"once", NULL, "print one frame as text and end: for pipes, and without a terminal", false},
	{"plain", NULL, "the same as --once", false},
	{"ascii", NULL, "only ASCII characters", false},
	CTL_END
};

struct view {
	const struct ctl_args *args;
	struct fleet fleet;
	struct top top;
	struct top_look look;
	struct top_lines lines;
	char clock[16];
};

static void
set_clock(struct view *v)
{
	time_t now = time(NULL);
	struct tm tm;

	if (localtime_r(&now, &tm) != NULL)
		strftime(v->clock, sizeof(v->clock), "%H:%M:%S", &tm);
	v->look.clock = v->clock;
	v->look.now_s = clock_now_s();
}

/* Prints one frame, COLUMNS or 80 characters wide. Exit code as in status: 69 if a daemon does not answer. */
static int
once(struct view *v, double timeout_s)
{
	const char *columns = getenv("COLUMNS");
	int exit_code = fleet_look(&v->fleet, timeout_s);

	if (exit_code != 0)
		return exit_code;
	v->look.rows = 0;
	v->look.cols = columns != NULL && atoi(columns) > 0 ? atoi(columns) : 80;
	top_feed(&v->top, &v->fleet, clock_now_s());
	set_clock(v);
	top_draw(&v->top, &v->look, &v->lines);
	for (size_t i = 0; i < v->lines.n; i++)
		puts(v->lines.line[i].text);
	return v->top.n_silent > 0 ? EX_UNAVAILABLE : 0;
}

static bool
obey(struct top_look *look, enum top_key key, bool *quit)
{
	size_t page = look->rows > 12 ? (size_t)look->rows - 10 : 1;

	switch (key) {
	case TOP_KEY_QUIT: *quit = true; break;
	case TOP_KEY_PAUSE: look->paused = !look->paused; break;
	case TOP_KEY_SORT: look->sort = (look->sort + 1) % TOP_SORTS; break;
	case TOP_KEY_ERRORS: look->errors = !look->errors; break;
	case TOP_KEY_UP: look->scroll -= look->scroll > 0; break;
	case TOP_KEY_DOWN: look->scroll++; break;
	case TOP_KEY_PAGE_UP: look->scroll -= look->scroll < page ? look->scroll : page; break;
	case TOP_KEY_PAGE_DOWN: look->scroll += page; break;
	case TOP_KEY_HOME: look->scroll = 0; break;
	case TOP_KEY_END: look->scroll = TOP_ROWS_MAX; break;
	case TOP_KEY_RESIZE: break;
	default: return false;
	}
	return true;
}

/* Draws after a key, and every 200 ms unless paused. */
static int
live(struct view *v, double interval_s, double timeout_s)
{
	int64_t drawn_ms = INT64_MIN / 2, every_ms = (int64_t)(interval_s * 1000);
	bool quit = false;
	int rc = 0;

	while (rc == 0 && !quit && !stop_requested()) {
		enum top_key key;
		bool changed = false;

		while ((key = top_screen_key()) != TOP_KEY_NONE)
			changed |= obey(&v->look, key, &quit);
		rc = fleet_turn(&v->fleet, every_ms, (int64_t)(timeout_s * 1000), KEYS_MS);
		if (rc == 0 && !v->look.paused && clock_now_ms() - drawn_ms >= 200) {
			top_feed(&v->top, &v->fleet, clock_now_s());
			set_clock(v);
			changed = true;
		}
		if (rc == 0 && changed) {
			drawn_ms = clock_now_ms();
			top_screen_size(&v->look.rows, &v->look.cols);
			top_draw(&v->top, &v->look, &v->lines);
			top_screen_show(&v->lines);
		}
	}
	return rc;
}

static int
run_live(struct view *v, double interval_s, double timeout_s)
{
	const char *term = getenv("TERM"), *no_colour = getenv("NO_COLOR");
	int rc;

	log_init("saltctl", LOG_LEVEL_ERROR);		/* warnings would break the screen */
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return ctl_usage(v->args,
		    "a live view needs a terminal, and standard %s is none; saltctl top --once "
		    "prints one frame",
		    isatty(STDOUT_FILENO) ? "input" : "output");
	if (term == NULL || term[0] == '\0' || strcmp(term, "dumb") == 0)
		return ctl_usage(v->args,
		    "a live view needs a terminal that can move its cursor, and this is TERM=%s; saltctl top "
		    "--once prints one frame",
		    term != NULL ? term : "");
	if (!top_screen_open(no_colour == NULL || no_colour[0] == '\0'))
		return ctl_usage(v->args,
		    "the terminal TERM=%s is not known here; saltctl top --once prints one frame", term);
	set_clock(v);
	rc = live(v, interval_s, timeout_s);
	top_screen_close();
	return rc != 0 ? ctl_fail(v->args, rc, NULL) : 0;
}

static int
top(struct ctl_args *args)
{
	static struct view v;
	double interval_s = 1, timeout_s = 2;
	const struct config *cfg;
	char metrics[PATH_MAX];
	int exit_code;

	v.args = args;
	if ((exit_code = ctl_get_num(args, "interval", 0.1, 3600, &interval_s)) != 0 ||
	    (exit_code = ctl_get_num(args, "timeout", 0.01, 3600, &timeout_s)) != 0 ||
	    (exit_code = fleet_open(&v.fleet, args,
	    "which fleet? give -c fleet.yaml or --endpoint tcp://HOST:PORT")) != 0)
		goto out;
	cfg = v.fleet.cfg;
	setlocale(LC_CTYPE, "");			/* numbers keep their decimal point */
	v.look.utf8 = !ctl_has(args, "ascii") && strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	top_init(&v.top, cfg != NULL ? cfg->run.dir : ctl_get(args, "endpoint"),
	    cfg != NULL ? (double)cfg->trainer.batch * (double)cfg->corpus.context : 0);
	if (cfg != NULL) {
		snprintf(metrics, sizeof(metrics), "%s/metrics.jsonl", cfg->run.dir);
		top_seed(&v.top, metrics);		/* if it fails, only the earlier losses are missing */
	}
	exit_code = ctl_has(args, "once") || ctl_has(args, "plain") ? once(&v, timeout_s) : run_live(&v,
	    interval_s, timeout_s);
out:
	fleet_close(&v.fleet);
	top_free(&v.top);
	top_lines_free(&v.lines);
	return exit_code;
}

const struct ctl_verb ctl_top = {
	.name = "top", .operands = "", .summary = "a fleet as a live screen: phase, loss, rows ahead, when it ends",
	.about = "Asks every daemon repeatedly and shows its last answer; a daemon that does not answer is shown\n"
	    "as such and delays nothing. ETAs are by the pace of the last minute, waiting included. Keys: q quit,\n"
	    "p pause, s sort, e errors, arrows, page, home and end scroll. NO_COLOR turns colours off. --once\n"
	    "prints one frame (COLUMNS wide), with exit code 69 if a daemon is silent.",
	.example = "saltctl top -c fleet.yaml",
	.options = options, .run = top,
};
