/*
 * status - what a daemon says about itself: counters, gauges, state and phase, timers, and a snapshot of it all that turns into
 * JSON here and into protobuf in wire. Sockets belong to bus. The clock is passed in (now_ms, monotonic milliseconds).
 *
 * Registering: once, at start, by one thread. Updating (add, set, state, step): any thread, any time; counters and gauges are
 * single atomics. Snapshots: any thread; a snapshot is consistent for each metric, not across metrics.
 */
#ifndef SALT_STATUS_H
#define SALT_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err/err.h"

enum {
	STATUS_METRICS_MAX = 96,
	STATUS_STATES_MAX = 16,
	STATUS_TEXT_MAX = 64,
	STATUS_ERROR_MAX = 512,
	STATUS_ENDPOINT_MAX = 256
};

enum status_kind {
	STATUS_COUNTER,			/* only grows; name ends _total. "counters" */
	STATUS_RATED,			/* a counter that also has a rate. "counters" and "rates" as NAME without _total + _per_s */
	STATUS_GAUGE,			/* "gauges" */
	STATUS_QUEUE,			/* a depth: rows_ahead, leases_in_flight, queue lengths. "queues" */
	STATUS_TIMER			/* seconds spent, kept in nanoseconds; name ends _seconds_total. "timers" */
};

struct status;
struct status_metric;			/* handle; lives as long as its struct status */

/*
 * status_new - @role teacherd, selectord, trainerd; @name unique in the fleet (teacherd-0); @version of the program.
 * host and pid are taken from the system. Starts in state "starting". NULL without memory. status_destroy takes NULL.
 */
struct status *status_new(const char *role, const char *name, const char *version, int64_t now_ms);
void status_destroy(struct status **st);

/*
 * status_register - @name Prometheus style without prefix (tokens_total, rows_ahead), @unit "tokens", "rows", "bytes", "seconds", ""; texts are copied.
 * NULL when the name is taken, is not [a-z_][a-z0-9_]*, or STATUS_METRICS_MAX are there. Updates on NULL do nothing.
 */
struct status_metric *status_register(struct status *st, enum status_kind kind, const char *name, const char *unit, const char *help);
void status_add(struct status_metric *m, uint64_t n);		/* counters; timers: nanoseconds */
void status_set(struct status_metric *m, double value);		/* gauges and queues */
double status_get(const struct status_metric *m);		/* timers in seconds */

/* What every daemon has. Texts are copied and cut. status_state also counts the seconds spent in each state ("state_seconds"). */
void status_state(struct status *st, const char *state, int64_t now_ms);	/* starting, waiting, training, draining, ... */
void status_phase(struct status *st, const char *phase);	/* "" , phase_one, phase_two, ... */
void status_step(struct status *st, uint64_t step, uint64_t steps_total);	/* steps_total 0: none */
void status_events(struct status *st, const char *endpoint);	/* where the events socket is; "": there is none */
void status_error(struct status *st, const char *text);		/* the last error; "" forgets it */

/* One metric in a snapshot. rate_per_s: RATED only, else 0. */
struct status_value {
	enum status_kind kind;
	char name[STATUS_TEXT_MAX], unit[STATUS_TEXT_MAX / 2];
	const char *help;		/* lives as long as the struct status it was taken from */
	double value;
	double rate_per_s;
};

struct status_snapshot {
	char role[STATUS_TEXT_MAX], name[STATUS_TEXT_MAX], host[STATUS_TEXT_MAX], version[STATUS_TEXT_MAX];
	char state[STATUS_TEXT_MAX], phase[STATUS_TEXT_MAX];
	char last_error[STATUS_ERROR_MAX], events_endpoint[STATUS_ENDPOINT_MAX];
	int64_t pid;
	uint64_t step, steps_total;
	double uptime_s;
	size_t n_states;
	struct { char name[STATUS_TEXT_MAX]; double seconds; } states[STATUS_STATES_MAX];
	size_t n_metrics;
	struct status_value metrics[STATUS_METRICS_MAX];	/* in the order of registration */
};

/*
 * status_snapshot - rates are exponentially weighted over about 10 s: each snapshot at least 0.5 s after the last that moved
 * them mixes in the rate since then with weight 1 - exp(-dt / 10 s); the first one is the plain mean since the start.
 */
void status_snapshot(struct status *st, int64_t now_ms, struct status_snapshot *out);

/*
 * status_json - {"role","name","pid","host","version","state","phase","step","steps_total","uptime_s","rates":{},"queues":{},
 * "counters":{},"gauges":{},"timers":{},"state_seconds":{},"help":{},"last_error","events_endpoint"}; one line in malloc'ed memory, NULL without
 * memory. last_error and events_endpoint are null when there is none.
 */
char *status_json(const struct status_snapshot *snap);

/*
 * Announcement: run_dir/daemons/NAME.json, so that saltctl finds the fleet without asking anyone. Telemetry only: never a lock.
 */
struct status_announce {
	char role[STATUS_TEXT_MAX], name[STATUS_TEXT_MAX], host[STATUS_TEXT_MAX];
	int64_t pid;
	char status_endpoint[STATUS_ENDPOINT_MAX], data_endpoint[STATUS_ENDPOINT_MAX];	/* "" = none */
};

/* status_announce_fill - role, name, this host and pid; endpoints may be NULL. */
void status_announce_fill(struct status_announce *a, const char *role, const char *name, const char *status_endpoint, const char *data_endpoint);

/* status_announce_write - makes run_dir/daemons when missing, temporary file, rename. Name: [A-Za-z0-9._-], not starting with a dot. 0, ERR_FORMAT or errno. */
int status_announce_write(const char *run_dir, const struct status_announce *a, struct err_note *note);

/* status_announce_remove - takes away what this host and pid wrote under that name; somebody else's file stays. 0 (also when absent) or errno. */
int status_announce_remove(const char *run_dir, const char *name);

/*
 * status_announce_list - all readable files, sorted by name, in malloc'ed memory (free(*list)). Files that do not parse are
 * skipped and counted in *n_bad (may be NULL). No directory: 0 entries. 0, ENOMEM or errno.
 */
int status_announce_list(const char *run_dir, struct status_announce **list, size_t *n, size_t *n_bad);

#endif
