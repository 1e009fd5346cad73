/* SPDX-License-Identifier: Apache-2.0 */
#include "saltctl/watch/exporter.h"

#include <dirent.h>
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
#include "fabric/config/config.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/fleet.h"
#include "saltctl/core/output.h"
#include "base/json/json.h"
#include "base/log/log.h"

#define LISTEN "127.0.0.1:9797"

static const struct cli_option options[] = {
	CTL_CONFIG,
	{"endpoint", "TCP", "ask this status socket too, such as tcp://127.0.0.1:5560; may be repeated", true},
	{"listen", "HOST:PORT", "where to serve; default " LISTEN "; port 0: any", false},
	{"every", "S", "ask the daemons every S seconds; default 2", false},
	{"timeout", "S", "how long to wait for their answers; default 1", false},
	{"runs", "DIR", "show the runs in this folder; default: the folder that holds run.dir", false},
	CTL_END
};

struct exporter {
	const struct ctl_args *args;
	/* a daemon that answered is queried again, even if selectord no longer lists it */
	struct fleet fleet;
	struct exporter_http *http;
	struct exporter_runs *runs;		/* used by the runs thread only */
	double every_s, timeout_s;
	atomic_size_t n_runs;
	struct exporter_self self;
};

/* The runs thread. Reading takes at most a tenth of its time, so long files are read less often. */
static void *
read_runs(void *arg)
{
	struct exporter *x = arg;

	while (!stop_requested()) {
		double start = clock_now_s(), took;

		exporter_http_put(x->http, EXPORTER_RUNS, exporter_runs_read(x->runs));
		atomic_store(&x->n_runs, exporter_runs_count(x->runs));
		took = clock_now_s() - start;
		stop_sleep_ms((int64_t)(1000 * fmax(x->every_s, 9 * took)));
	}
	return NULL;
}

static double
disk_free_ratio(const char *dir)
{
	struct statvfs fs;

	if (dir == NULL || statvfs(dir, &fs) != 0 || fs.f_blocks == 0)
		return NAN;
	return (double)fs.f_bavail / (double)fs.f_blocks;
}

/* Publishes complete texts. A published text is replaced, never changed. */
static int
publish(struct exporter *x)
{
	struct json *root;
	char *text = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&text, &n);
	int rc;

	if (out == NULL)
		return ENOMEM;
	rc = exporter_metrics(&x->fleet, &x->self, out);
	if (fclose(out) != 0 && rc == 0)
		rc = ENOMEM;
	if (rc != 0) {
		free(text);
		return rc;
	}
	exporter_http_put(x->http, EXPORTER_METRICS, text);
	root = fleet_json(&x->fleet);
	ctl_put_all(root, CTL("polled_at", x->self.polled_at), CTL("every_s", x->every_s));
	exporter_http_put(x->http, EXPORTER_STATUS, json_print(root, false));
	json_close(&root);
	return 0;
}

static int
poll_fleet(struct exporter *x)
{
	struct timespec now;
	double start = clock_now_s();
	int64_t start_ms = clock_now_ms();
	int rc = fleet_find(&x->fleet);

	if (rc == 0)
		rc = fleet_ask(&x->fleet, (int64_t)(x->timeout_s * 1000));
	fleet_forget(&x->fleet, start_ms);
	clock_gettime(CLOCK_REALTIME, &now);
	x->self.n_polls++;
	x->self.poll_seconds = clock_now_s() - start;
	x->self.polled_at = (double)now.tv_sec + (double)(now.tv_nsec / 1000000) / 1000;
	x->self.n_runs = atomic_load(&x->n_runs);
	x->self.run_disk_free_ratio = disk_free_ratio(x->fleet.run_dir);
	return rc == 0 ? publish(x) : rc;
}

/* Returns --runs, or else the folder that contains run.dir ("." for a bare name). */
static char *
runs_dir(const struct exporter *x)
{
	const char *given = ctl_get(x->args, "runs"), *run_dir = x->fleet.run_dir, *slash;
	size_t n;

	if (given != NULL || run_dir == NULL)
		return given != NULL ? ctl_strndup(given, SIZE_MAX) : NULL;
	for (n = strlen(run_dir); n > 1 && run_dir[n - 1] == '/'; n--)
		;
	if ((slash = memrchr(run_dir, '/', n)) == NULL)
		return ctl_strndup(".", 1);
	return ctl_strndup(run_dir, slash > run_dir ? (size_t)(slash - run_dir) : 1);
}

static int
serve(struct exporter *x, struct err_note *note)
{
	pthread_t reader;
	char *dir = runs_dir(x);
	bool reading = false;
	DIR *folder = NULL;
	int rc = 0, last = 0;

	if (ctl_has(x->args, "runs") && (folder = opendir(dir)) == NULL) {
		rc = err_expect(note, errno, "--runs", "a folder that can be read", "%s", dir);
		goto out;
	}
	if (folder != NULL)
		closedir(folder);
	if (dir != NULL) {
		x->runs = exporter_runs_new(dir, x->fleet.run_dir);
		if ((rc = pthread_create(&reader, NULL, read_runs, x)) != 0) {
			err_note_set(note, rc, "thread that reads runs");
			goto out;
		}
		reading = true;
	} else {
		exporter_http_put(x->http, EXPORTER_RUNS, strdup("{\"left_off\":0,\"run_dir\":null,\"runs\":[]}\n"));
	}
	printf("%s\n", exporter_http_url(x->http));
	fflush(stdout);
	while (!stop_requested()) {
		double start = clock_now_s();
		int failed = poll_fleet(x);

		/* The next poll may succeed; until then salt_exporter_polled_timestamp_seconds shows the age. */
		if (failed != 0 && failed != last)
			log_warn("exporter.poll", "error=\"%s\"", err_str(failed));
		last = failed;
		stop_sleep_ms((int64_t)(1000 * fmax(0, x->every_s - (clock_now_s() - start))));
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

	if ((exit_code = ctl_get_num(args, "every", 0.1, 3600, &x.every_s)) != 0 ||
	    (exit_code = ctl_get_num(args, "timeout", 0.01, 60, &x.timeout_s)) != 0 ||
	    (exit_code = fleet_open(&x.fleet, args,
	    "whose figures? give -c fleet.yaml or --endpoint tcp://HOST:PORT")) != 0)
		goto out;
	if ((rc = exporter_http_new(&x.http, listen != NULL ? listen : LISTEN, &note)) != 0 ||
	    (rc = serve(&x, &note)) != 0)
		exit_code = ctl_fail(args, rc, &note);
out:
	exporter_http_destroy(&x.http);
	fleet_close(&x.fleet);
	return exit_code;
}

const struct ctl_verb ctl_exporter = {
	.name = "exporter", .operands = "", .summary = "a fleet's figures over HTTP: Prometheus, JSON, and a page for the browser",
	.about = "Serves /metrics for Prometheus, /api/status (the answers of the status sockets), /api/runs (loss\n"
	    "curves and costs) and / (a page that shows all that and updates itself) until stopped. Prints its\n"
	    "address on standard output. Everyone who reaches the address can read everything and change nothing.\n"
	    "Charts need the package libjs-chart.js.",
	.example = "saltctl exporter -c fleet.yaml --listen 127.0.0.1:9797",
	.options = options, .run = exporter,
};
