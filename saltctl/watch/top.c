/* top: the fleet in one screen that lives, or one frame of it as text. */
#include <errno.h>
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
#include "fabric/bus/bus.h"
#include "fabric/config/config.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/fleet.h"
#include "saltctl/core/output.h"
#include "saltctl/watch/top.h"
#include "base/log/log.h"

#define KEYS_MS 50			/* between two looks for a key */

static const struct ctl_option options[] = {
	CTL_CONFIG,
	{"endpoint", "TCP", "ask this status socket too, such as tcp://127.0.0.1:5560; may be repeated", true},
	{"interval", "S", "ask every S seconds; 1 unless told", false},
	{"timeout", "S", "no answer is what has not come after S seconds; 2 unless told", false},
	{"once", NULL, "print one frame as text and end: for pipes, and where no terminal is", false},
	{"plain", NULL, "the same as --once", false},
	{"ascii", NULL, "no other characters than ASCII", false},
	CTL_END
};

struct view {
	const struct ctl_args *args;
	const char *run_dir;
	struct bus *bus;
	struct bus_asker *asker;
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
	v->look.now_s = ctl_seconds();
}

static int
add_endpoints(struct view *v)
{
	const char *endpoint;
	int rc = 0;

	for (size_t i = 0; rc == 0 && (endpoint = ctl_get_nth(v->args, "endpoint", i)) != NULL; i++)
		rc = fleet_add(&v->fleet, "", "", "", 0, endpoint);
	return rc;
}

/* One frame, as wide as COLUMNS says or 80. Exit code as of status: 69 if somebody does not answer. */
static int
once(struct view *v, double timeout_s)
{
	const char *columns = getenv("COLUMNS");
	int rc = 0;

	v->look.rows = 0;
	v->look.cols = columns != NULL && atoi(columns) > 0 ? atoi(columns) : 80;
	if (v->run_dir[0] != '\0' && (rc = fleet_find(&v->fleet, v->run_dir)) != 0)
		return ctl_fail(v->args, rc, NULL);
	if (v->fleet.n == 0) {
		fprintf(stderr, "saltctl top: no daemon is announced in %s/daemons; is the fleet up?\n", v->run_dir);
		return EX_UNAVAILABLE;
	}
	if ((rc = fleet_ask(&v->fleet, v->bus, (int64_t)(timeout_s * 1000))) != 0 ||
	    (rc = top_feed(&v->top, &v->fleet, ctl_seconds())) != 0 || (set_clock(v), rc = top_draw(&v->top, &v->look, &v->lines)) != 0)
		return ctl_fail(v->args, rc, NULL);
	for (size_t i = 0; i < v->lines.n; i++)
		puts(v->lines.line[i].text);
	return ctl_flush(v->top.n_silent > 0 ? EX_UNAVAILABLE : 0);
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

/* Draws when a key came, and when the second or an answer may have changed something. */
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
		if ((rc = add_endpoints(v)) == 0)
			rc = fleet_turn(&v->fleet, v->asker, v->run_dir, every_ms, (int64_t)(timeout_s * 1000), KEYS_MS);
		if (rc == 0 && !v->look.paused && clock_now_ms() - drawn_ms >= 200) {
			rc = top_feed(&v->top, &v->fleet, ctl_seconds());
			set_clock(v);
			changed = true;
		}
		if (rc == 0 && changed) {
			drawn_ms = clock_now_ms();
			top_screen_size(&v->look.rows, &v->look.cols);
			if ((rc = top_draw(&v->top, &v->look, &v->lines)) == 0)
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

	log_init("saltctl", LOG_LEVEL_ERROR);		/* the screen is taken */
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || term == NULL || term[0] == '\0' || strcmp(term, "dumb") == 0)
		return ctl_usage(v->args, "a live view needs a terminal that can move its cursor%s%s; saltctl top --once prints one frame",
		    term != NULL && term[0] != '\0' ? ", and this is TERM=" : "", term != NULL ? term : "");
	if ((rc = bus_asker_new(&v->asker, v->bus)) != 0)
		return ctl_fail(v->args, rc, NULL);
	if (!top_screen_open(no_colour == NULL || no_colour[0] == '\0'))
		return ctl_usage(v->args, "the terminal TERM=%s is not known here; saltctl top --once prints one frame", term);
	set_clock(v);
	rc = live(v, interval_s, timeout_s);
	top_screen_close();
	return rc != 0 ? ctl_fail(v->args, rc, NULL) : 0;
}

static int
top(struct ctl_args *args)
{
	struct view v = {.args = args, .run_dir = ""};
	double interval_s = 1, timeout_s = 2;
	struct err_note note = {.name = ""};
	struct config *cfg = NULL;
	char metrics[PATH_MAX];
	int exit_code, rc;

	if (!ctl_has(args, "config") && !ctl_has(args, "endpoint"))
		return ctl_usage(args, "which fleet? give -c fleet.yaml or --endpoint tcp://HOST:PORT");
	if ((exit_code = ctl_get_num(args, "interval", 0.1, 3600, &interval_s)) != 0 ||
	    (exit_code = ctl_get_num(args, "timeout", 0.01, 3600, &timeout_s)) != 0 ||
	    (ctl_has(args, "config") && (exit_code = ctl_open_config(args, CONFIG_NEED_RUN, &cfg)) != 0))
		return exit_code;
	setlocale(LC_CTYPE, "");			/* numbers keep their point */
	v.look.utf8 = !ctl_has(args, "ascii") && strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	top_init(&v.top, cfg != NULL ? cfg->run.dir : ctl_get(args, "endpoint"),
	    cfg != NULL ? (double)cfg->trainer.batch * (double)cfg->corpus.context : 0);
	if (cfg != NULL) {
		v.run_dir = cfg->run.dir;
		snprintf(metrics, sizeof(metrics), "%s/metrics.jsonl", cfg->run.dir);
		top_seed(&v.top, metrics);		/* only the past is missing without it */
	}
	if ((rc = stop_install()) != 0 || (rc = fleet_bus(&v.bus, cfg, &note)) != 0 || (rc = add_endpoints(&v)) != 0)
		exit_code = ctl_fail(args, rc, &note);
	else if (ctl_has(args, "once") || ctl_has(args, "plain"))
		exit_code = once(&v, timeout_s);
	else
		exit_code = run_live(&v, interval_s, timeout_s);
	fleet_give_up(&v.fleet, &v.asker);
	fleet_clear(&v.fleet);
	top_free(&v.top);
	top_lines_free(&v.lines);
	bus_destroy(&v.bus);
	config_destroy(&cfg);
	return exit_code;
}

const struct ctl_verb ctl_top = {
	.name = "top", .operands = "", .summary = "a fleet as a live screen: phase, loss, rows ahead, when it ends",
	.about = "Asks every daemon again and again, and shows what each said last; who does not answer is shown as such and keeps nobody up. ETAs are by\n"
	    "the pace of the last minute, waiting included. Keys: q quit, p pause, s sort, e errors, arrows, page, home and end scroll.\n"
	    "NO_COLOR turns colours off. --once prints one frame (COLUMNS wide), with exit code 69 if somebody does not answer.",
	.example = "saltctl top -c fleet.yaml",
	.options = options, .run = top,
};
