/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exporter - a fleet's figures over HTTP: for Prometheus, for programs, for a browser.
 *
 * Three threads, none of which waits for another. exporter.c asks all status sockets at once every few
 * seconds, no longer than its
 * timeout, and publishes finished texts; a second thread reads the runs' files; libmicrohttpd's thread
 * answers requests with the published texts and does nothing else. A daemon that hangs, a slow disk or a slow
 * browser therefore delays nothing else.
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

/* The exporter's own work. */
struct exporter_self {
	uint64_t n_polls;
	double poll_seconds;		/* of the last one */
	double polled_at;		/* Unix seconds */
	size_t n_runs;
	double run_disk_free_ratio;	/* of the file system of run.dir; NaN: not known */
};

/*
 * exporter_metrics - Prometheus text format 0.0.4. A daemon's metric NAME is
 * salt_ROLE_NAME{role,daemon,host}, with its own help text; the group of the status answer that holds it
 * decides its kind. salt_up, salt_state, ... exist for every daemon. Of two daemons with the same role, name
 * and host only one is shown, one that answers if there is one. 0 or EIO.
 */
int exporter_metrics(const struct fleet *f, const struct exporter_self *self, FILE *out);

/* ---- runs ---- */

struct exporter_runs;

/*
 * exporter_runs_new - the runs in @dir: the folder itself, if it has a metrics.jsonl, and its subfolders that
 * have one; @also (may be NULL) is one more run's folder.
 * exporter_runs_read - the runs as they are now, as JSON in malloc'ed memory (NULL: no memory). Only files
 * that changed are read again. A run that cannot be read is listed with the reason. One thread.
 */
struct exporter_runs *exporter_runs_new(const char *dir, const char *also);
char *exporter_runs_read(struct exporter_runs *r);
size_t exporter_runs_count(const struct exporter_runs *r);
void exporter_runs_destroy(struct exporter_runs **r);

/* ---- HTTP ---- */

enum exporter_text { EXPORTER_METRICS, EXPORTER_STATUS, EXPORTER_RUNS, EXPORTER_TEXTS };

struct exporter_http;

/*
 * exporter_http_new - listens and answers from now on: 503 for a text that was not put yet. @listen:
 * "HOST:PORT" or "[::1]:PORT"; port 0: any. 0, ERR_USAGE (not an address), EADDRINUSE, EADDRNOTAVAIL, errno.
 * exporter_http_put - the new text of one kind: takes @text (malloc'ed; NULL: keep the old one). Any thread.
 * exporter_http_url - where it listens; valid as long as the object.
 */
int exporter_http_new(struct exporter_http **out, const char *listen, struct err_note *note);
void exporter_http_put(struct exporter_http *h, enum exporter_text what, char *text);
const char *exporter_http_url(const struct exporter_http *h);
void exporter_http_destroy(struct exporter_http **h);

#endif
