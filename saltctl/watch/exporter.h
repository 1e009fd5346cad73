/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exporter - a fleet's figures over HTTP, for Prometheus, for programs and for a browser.
 *
 * It has three threads, and none waits for another. exporter.c queries all status sockets in parallel every
 * few seconds, with a timeout, and publishes complete texts. A second thread reads the files of the runs.
 * libmicrohttpd's thread only answers requests with the published texts. A daemon that hangs, a slow disk or
 * a slow browser therefore delays nothing else.
 *
 *   exporter.c           the verb: polls, reads runs, stops
 *   exporter_metrics.c   a fleet -> the text that Prometheus reads; a pure function
 *   exporter_runs.c      a folder of runs -> JSON: loss curves, switch, ledger
 *   exporter_http.c      published texts, the page; the only file that uses libmicrohttpd
 *   page/                what the browser gets, compiled in
 */
#ifndef SALT_CTL_EXPORTER_H
#define SALT_CTL_EXPORTER_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err/err.h"

struct fleet;

/* ---- metrics ---- */

/* Figures of the exporter itself. */
struct exporter_self {
	uint64_t n_polls;
	double poll_seconds;		/* duration of the last poll */
	double polled_at;		/* its time, Unix seconds */
	size_t n_runs;
	double run_disk_free_ratio;	/* of the file system of run.dir; NaN: not known */
};

/*
 * exporter_metrics - writes the fleet in Prometheus text format 0.0.4. A daemon's metric NAME becomes
 * salt_ROLE_NAME{role,daemon,host}, with its own help text; the group of the status answer that contains it
 * decides its kind. salt_up, salt_state, ... exist for every daemon. Of several daemons with the same role,
 * name and host only one is shown, one that answers if possible. Returns 0 or EIO.
 */
int exporter_metrics(const struct fleet *f, const struct exporter_self *self, FILE *out);

/* ---- runs ---- */

struct exporter_runs;

/*
 * exporter_runs_new - for the runs in @dir: the folder itself, if it has a metrics.jsonl, and its subfolders
 * that have one; @also (may be NULL) is the folder of another run.
 * exporter_runs_read - returns the present state of the runs as JSON, in malloc'ed memory (NULL: no memory).
 * Only files that changed are read again. A run that cannot be read is listed with the reason. Not
 * thread-safe.
 */
struct exporter_runs *exporter_runs_new(const char *dir, const char *also);
char *exporter_runs_read(struct exporter_runs *r);
size_t exporter_runs_count(const struct exporter_runs *r);
void exporter_runs_destroy(struct exporter_runs **r);

/* ---- HTTP ---- */

enum exporter_text { EXPORTER_METRICS, EXPORTER_STATUS, EXPORTER_RUNS, EXPORTER_TEXTS };

struct exporter_http;

/*
 * exporter_http_new - listens and answers from now on, with 503 for a text that was not published yet.
 * @listen: "HOST:PORT" or "[::1]:PORT"; port 0: any free port. Returns 0, ERR_USAGE (not an address),
 * EADDRINUSE, EADDRNOTAVAIL or errno.
 * exporter_http_put - publishes the new text of one kind and takes ownership of @text (malloc'ed; NULL: keep
 * the old one). Any thread may call it.
 * exporter_http_url - the URL at which it listens; valid as long as the object.
 */
int exporter_http_new(struct exporter_http **out, const char *listen, struct err_note *note);
void exporter_http_put(struct exporter_http *h, enum exporter_text what, char *text);
const char *exporter_http_url(const struct exporter_http *h);
void exporter_http_destroy(struct exporter_http **h);

#endif
