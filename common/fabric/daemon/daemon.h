/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daemon - what selectord, teacherd and trainerd do the same way: command line, check-only mode, log,
 * signals, bus, status socket, announcement, messages to systemd, the fatal error and the exit code.
 * A main.c adds what is specific to its daemon:
 *
 *	struct daemon d = {.program = "teacherd", .purpose = "computes ...", .needs = CONFIG_NEED_TEACHER, .key = BUS_ROLE_TEACHER};
 *	int rc;
 *
 *	if (!daemon_start(&d, argc, argv))
 *		return daemon_end(&d, 0);
 *	if ((rc = daemon_open_bus(&d)) == 0 && (rc = daemon_open_status(&d, name)) == 0 && (rc = open_files(d.config, &d.note)) == 0 &&
 *	    !d.check) {
 *		daemon_announce(&d, NULL);
 *		rc = loop_run(..., &d.note);
 *	}
 *	daemon_close_status(&d);
 *	...free the daemon's own objects...
 *	return daemon_end(&d, rc);
 *
 * Check-only mode (-n): the same calls run up to the loop, but daemon_open_* and daemon_announce do nothing,
 * so that a running fleet is not disturbed. The files that the options name are opened and checked as at a
 * start, with the same exit codes.
 *
 * One thread calls these functions, except the daemon_notify_* functions, which any thread may call.
 */
#ifndef SALT_DAEMON_H
#define SALT_DAEMON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err/err.h"
#include "fabric/bus/bus.h"
#include "fabric/config/cli.h"
#include "fabric/config/config.h"
#include "fabric/status/status.h"
#include "fabric/wire/status_answer.h"

struct json;

enum { DAEMON_OPTIONS_MAX = 16 };		/* common ones and the daemon's own */

/*
 * What a daemon adds to the answers of its status socket. Both are called on that socket's thread and take
 * their own locks.
 */
struct daemon_hooks {
	size_t (*peers)(void *arg, struct wire_peer *peers, size_t max);	/* connected peers; returns how many */
	void (*members)(void *arg, struct json *answer);		/* more members for the JSON answer; NULL: none */
	void *arg;
};

struct daemon {
	/* set before daemon_start */
	const char *program, *purpose;		/* "selectord"; one line for --help */
	unsigned needs;				/* CONFIG_NEED_*: options that must be given */
	enum bus_role key;			/* role of this daemon's key in security.curve_dir */
	const struct cli_option *options;	/* in addition to the common ones; NULL: none */
	/* set by daemon_start */
	struct config *config;
	struct cli_args args;
	bool check;				/* -n: check and exit */
	/* set by daemon_open_bus and daemon_open_status; NULL in check-only mode */
	struct bus *bus;
	struct status *status;
	struct status_metric *refused, *ended;	/* of bus_counts */
	struct bus_status *socket;
	struct bus_events *events;
	char name[STATUS_TEXT_MAX];
	_Atomic(const struct daemon_hooks *) hooks;
	struct err_note note;			/* of the failure that daemon_end reports */
	int exit_code;
	struct cli_option table[DAEMON_OPTIONS_MAX + 1];	/* all options: args.options */
	char help[64];				/* args.help */
};

/*
 * daemon_start - installs signals (base/clock/stop.h), reads the command line and the configuration, starts
 * the log. False: the process is to end with daemon_end(d, 0): after --help and --version, wrong usage, or a
 * bad configuration (the message was printed).
 */
bool daemon_start(struct daemon *d, int argc, char **argv);

/*
 * daemon_open_bus - creates the bus, with this daemon's key if security.curve_dir is given. 0 or what bus_new
 * returns.
 * daemon_open_status - creates status, events socket and status socket, under a name that is unique in the
 * fleet. The status socket answers from here on. Returns 0, ENOMEM, or the error of binding it. If the events
 * socket cannot be created, that is only logged.
 * daemon_set_hooks - hooks must live until daemon_close_status.
 */
int daemon_open_bus(struct daemon *d);
int daemon_open_status(struct daemon *d, const char *name);
void daemon_set_hooks(struct daemon *d, const struct daemon_hooks *hooks);
const char *daemon_status_endpoint(const struct daemon *d);

/*
 * daemon_announce - writes run.dir/daemons/NAME.json, with which saltctl finds this daemon. data_endpoint:
 * where peers connect, may be NULL. A failure is logged, not returned: nothing but monitoring depends on the
 * file.
 */
void daemon_announce(struct daemon *d, const char *data_endpoint);

/*
 * daemon_close_status - removes the announcement and ends the threads that call hooks; after it their data
 * may be freed.
 */
void daemon_close_status(struct daemon *d);

/*
 * daemon_gpu - for a daemon that computes on a GPU: calls status_gpu, and logs once the other processes that
 * compute on it, as far as NVML lists them (gpu.shared). The line is a warning, or of level info if all of
 * them are daemons of this fleet, announced in run_dir on this host. The figures are those of struct
 * kernels_device.
 */
void daemon_gpu(struct status *st, const char *run_dir, const char *name, const char *pci_bus_id,
    uint64_t memory_bytes, uint64_t free_bytes);

/*
 * daemon_end - reports rc and d->note if rc is not 0, closes what is open, and returns the exit code
 * (err_exit_code(rc)). The report is one line on standard error with name, place, expected and found. A
 * running daemon writes it as the log event "failed" (ERR_STOPPED: "stopped"), which subscribers of the
 * events socket receive too; check-only mode prints plain text.
 */
int daemon_end(struct daemon *d, int rc);

/*
 * Messages to systemd (sd_notify(3)). Without NOTIFY_SOCKET in the environment nothing is sent; a failure to
 * send is logged once.
 *
 * daemon_notify_off - nothing is sent from here on. Trainer ranks other than 0 call it: mpirun hands all
 * ranks the same socket.
 * daemon_notify_ready - READY=1: requests are answered or steps are made. Sends STATUS= too.
 * daemon_notify_status - STATUS=, one line for `systemctl status`, cut at 255 bytes. An unchanged text is
 * not sent again.
 * daemon_notify_stopping - STOPPING=1, once, and STATUS=.
 */
void daemon_notify_off(void);
void daemon_notify_ready(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void daemon_notify_status(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void daemon_notify_stopping(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * daemon_notify_alive - called at each turn of a main loop. WATCHDOG=1 is sent four times in the time that
 * systemd allows (WATCHDOG_USEC), but while there is work (busy) only if progress differs from when it was
 * last sent: systemd ends a loop that turns without progress.
 */
void daemon_notify_alive(uint64_t progress, bool busy);

/*
 * daemon_notify_allow - the present work may take so many seconds without progress. Raises systemd's
 * watchdog (WATCHDOG_USEC=, never below its first value) and, when stopping, the time to stop
 * (EXTEND_TIMEOUT_USEC=). Sent again when the time changes by a quarter, or, when stopping, after progress.
 */
void daemon_notify_allow(double seconds, bool stopping, uint64_t progress);

#endif
