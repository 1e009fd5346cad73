#include "saltctl/watch/exporter.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sysexits.h>
#include <time.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "fabric/bus/bus.h"
#include "fabric/config/config.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/fleet.h"
#include "saltctl/core/output.h"
#include "base/json/json.h"
#include "base/log/log.h"

#define LISTEN "127.0.0.1:9797"

static const struct ctl_option options[] = {
	CTL_CONFIG,
	{"endpoint", "TCP", "ask this status socket too, such as tcp://127.0.0.1:5560; may be repeated", true},
	{"listen", "HOST:PORT", "serve there; " LISTEN " unless told; port 0: any", false},
	{"every", "S", "ask the daemons every S seconds; 2 unless told", false},
	{"timeout", "S", "wait so long for their answers; 1 unless told", false},
	{"runs", "DIR", "show the runs in this folder; the one that run.dir is in unless told", false},
	CTL_END
};

struct exporter {
	const struct ctl_args *args;
	struct config *cfg;			/* NULL: only --endpoint */
	struct bus *bus;
	struct fleet fleet;			/* who answered the last time is asked again, whether or not selectord still names it */
	struct exporter_http *http;
	struct exporter_runs *runs;		/* the runs' thread's */
	double every_s, timeout_s;
	atomic_size_t n_runs;
	struct exporter_self self;
};

/* Reading takes a tenth of this thread's time at the most: long files are read less often. */
static void *
read_runs(void *arg)
{
	struct exporter *x = arg;

	while (!stop_requested()) {
		double start = ctl_seconds(), took;

		exporter_http_put(x->http, EXPORTER_RUNS, exporter_runs_read(x->runs));
		atomic_store(&x->n_runs, exporter_runs_count(x->runs));
		took = ctl_seconds() - start;
		stop_sleep_ms((int64_t)(1000 * fmax(x->every_s, 9 * took)));
	}
	return NULL;
}

static double
disk_free_ratio(const char *dir)
{
	struct statvfs fs;

	return dir != NULL && statvfs(dir, &fs) == 0 && fs.f_blocks > 0 ? (double)fs.f_bavail / (double)fs.f_blocks : NAN;
}

/* What is published is whole: no text on the board changes any more. */
static int
publish(struct exporter *x, struct fleet *f)
{
	struct json *root;
	char *text = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&text, &n);
	int rc;

	if (out == NULL)
		return ENOMEM;
	rc = exporter_metrics(f, &x->self, out);
	if (fclose(out) != 0 && rc == 0)
		rc = ENOMEM;
	if (rc != 0) {
		free(text);
		return rc;
	}
	exporter_http_put(x->http, EXPORTER_METRICS, text);
	root = fleet_json(f);
	ctl_put_num(root, "polled_at", x->self.polled_at);
	ctl_put_num(root, "every_s", x->every_s);
	exporter_http_put(x->http, EXPORTER_STATUS, json_print(root, false));
	json_close(&root);
	return 0;
}

static int
poll_fleet(struct exporter *x)
{
	const char *endpoint, *run_dir = x->cfg != NULL ? x->cfg->run.dir : NULL;
	struct fleet *f = &x->fleet;
	struct timespec now;
	double start = ctl_seconds();
	int64_t start_ms = clock_now_ms();
	int rc = run_dir != NULL ? fleet_find(f, run_dir) : 0;

	for (size_t i = 0; rc == 0 && (endpoint = ctl_get_nth(x->args, "endpoint", i)) != NULL; i++)
		rc = fleet_add(f, "", "", "", 0, endpoint);
	if (rc == 0)
		rc = fleet_ask(f, x->bus, (int64_t)(x->timeout_s * 1000));
	fleet_forget(f, start_ms);
	clock_gettime(CLOCK_REALTIME, &now);
	x->self.n_polls++;
	x->self.poll_seconds = ctl_seconds() - start;
	x->self.polled_at = (double)now.tv_sec + (double)(now.tv_nsec / 1000000) / 1000;
	x->self.n_runs = atomic_load(&x->n_runs);
	x->self.run_disk_free_ratio = disk_free_ratio(run_dir);
	if (rc == 0)
		rc = publish(x, f);
	return rc;
}

/* The folder that run.dir is in; "." for a name alone. */
static char *
runs_dir(const struct exporter *x)
{
	const char *given = ctl_get(x->args, "runs"), *slash;
	char *dir;

	if (given != NULL || x->cfg == NULL)
		return given != NULL ? strdup(given) : NULL;
	if ((dir = strdup(x->cfg->run.dir)) == NULL)
		return NULL;
	for (size_t n = strlen(dir); n > 1 && dir[n - 1] == '/'; n--)
		dir[n - 1] = '\0';
	if ((slash = strrchr(dir, '/')) == NULL)
		strcpy(dir, ".");		/* run.dir is not empty */
	else
		dir[slash > dir ? slash - dir : 1] = '\0';
	return dir;
}

static int
serve(struct exporter *x, struct err_note *note)
{
	pthread_t reader;
	char *dir = runs_dir(x);
	bool reading = false;
	int rc = 0, last = 0;

	if (dir != NULL) {
		if ((x->runs = exporter_runs_new(dir, x->cfg != NULL ? x->cfg->run.dir : NULL)) == NULL ||
		    pthread_create(&reader, NULL, read_runs, x) != 0) {
			rc = err_note_set(note, ENOMEM, "runs");
			goto out;
		}
		reading = true;
	} else {
		exporter_http_put(x->http, EXPORTER_RUNS, strdup("{\"left_off\":0,\"run_dir\":null,\"runs\":[]}\n"));
	}
	printf("%s\n", exporter_http_url(x->http));
	fflush(stdout);
	while (!stop_requested()) {
		double start = ctl_seconds();
		int failed = poll_fleet(x);

		if (failed != 0 && failed != last)	/* the next one may succeed; until then the figures show their age */
			log_warn("exporter.poll", "error=\"%s\"", err_str(failed));
		last = failed;
		stop_sleep_ms((int64_t)(1000 * fmax(0, x->every_s - (ctl_seconds() - start))));
	}
out:
	stop_request();
	if (reading)
		pthread_join(reader, NULL);
	exporter_runs_destroy(&x->runs);
	free(dir);
	return rc;
}

static int
exporter(struct ctl_args *args)
{
	struct exporter x = {.args = args, .every_s = 2, .timeout_s = 1};
	const char *listen = ctl_get(args, "listen");
	struct err_note note = {.name = ""};
	int exit_code, rc;

	if (!ctl_has(args, "config") && !ctl_has(args, "endpoint"))
		return ctl_usage(args, "whose figures? give -c fleet.yaml or --endpoint tcp://HOST:PORT");
	if ((exit_code = ctl_get_num(args, "every", 0.1, 3600, &x.every_s)) != 0 ||
	    (exit_code = ctl_get_num(args, "timeout", 0.01, 60, &x.timeout_s)) != 0 ||
	    (ctl_has(args, "config") && (exit_code = ctl_open_config(args, CONFIG_NEED_RUN, &x.cfg)) != 0))
		return exit_code;
	if ((rc = stop_install()) == 0 && (rc = fleet_bus(&x.bus, x.cfg, &note)) == 0 &&
	    (rc = exporter_http_new(&x.http, listen != NULL ? listen : LISTEN, &note)) == 0)
		rc = serve(&x, &note);
	exit_code = rc != 0 ? ctl_fail(args, rc, &note) : 0;
	exporter_http_destroy(&x.http);
	fleet_clear(&x.fleet);
	bus_destroy(&x.bus);
	config_destroy(&x.cfg);
	return exit_code;
}

const struct ctl_verb ctl_exporter = {
	.name = "exporter", .operands = "", .summary = "a fleet's figures over HTTP: Prometheus, JSON, and a page for the browser",
	.about = "Serves /metrics for Prometheus, /api/status (what the status sockets say), /api/runs (loss curves and costs) and / (a page that\n"
	    "shows all that and updates by itself) until stopped. It says where on standard output. Everything is there to be read, by anyone who\n"
	    "reaches the address, and nothing can be changed. Charts need the package libjs-chart.js.",
	.example = "saltctl exporter -c fleet.yaml --listen 127.0.0.1:9797",
	.options = options, .run = exporter,
};
