/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status - the metrics of a daemon (counters, gauges, timers), its state and phase, and snapshots of them. A
 * snapshot becomes JSON here and protobuf in wire. The time is passed in (now_ms, monotonic milliseconds).
 *
 * One thread registers metrics at the start. Any thread updates them at any time; a metric is one atomic.
 * Any thread takes snapshots; a snapshot is consistent for each metric, not across metrics.
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
	STATUS_COUNTER,			/* only grows; its name ends in _total. "counters" */
	STATUS_RATED,			/* a counter with a rate: in "counters" as NAME_total and in "rates" as NAME_per_s */
	STATUS_GAUGE,			/* "gauges" */
	STATUS_QUEUE,			/* a length, such as rows_ahead. "queues" */
	STATUS_TIMER			/* seconds spent, counted in nanoseconds; its name ends in _seconds_total. "timers" */
};

struct status;
struct status_metric;			/* valid until status_destroy */

/*
 * status_new - @role teacherd, selectord, trainerd; @name unique in the fleet (teacherd-0); @version of the
 * program. host and pid are taken from the system. Starts in state "starting". NULL: out of memory.
 * status_destroy takes NULL.
 */
struct status *status_new(const char *role, const char *name, const char *version, int64_t now_ms);
void status_destroy(struct status **st);

/*
 * status_register - name: as for Prometheus, without prefix (tokens_total, rows_ahead); unit: "tokens",
 * "rows", "bytes", "seconds", "". Texts are copied. NULL if the name is taken or not [a-z_][a-z0-9_]*, or
 * there are STATUS_METRICS_MAX. Updates of a NULL metric have no effect.
 */
struct status_metric *status_register(
    struct status *st, enum status_kind kind, const char *name, const char *unit, const char *help);
void status_add(struct status_metric *m, uint64_t n);		/* counters; timers: nanoseconds */
void status_set(struct status_metric *m, double value);		/* gauges and queues */
double status_get(const struct status_metric *m);		/* timers in seconds */

/* Texts are copied and cut. status_state also counts the seconds spent in each state ("state_seconds"). */
void status_state(struct status *st, const char *state, int64_t now_ms);	/* starting, waiting, training, draining, ... */
void status_phase(struct status *st, const char *phase);	/* "" , phase_one, phase_two, ... */
void status_step(struct status *st, uint64_t step, uint64_t steps_total);	/* steps_total 0: none */
void status_events(struct status *st, const char *endpoint);	/* of the events socket; "": none */
/*
 * status_gpu - shows the GPU that this process computes on: its name, and gauges gpu_memory_bytes,
 * gpu_memory_used_bytes, gpu_utilization_ratio and gpu_memory_utilization_ratio, which every snapshot reads
 * from NVML. They are of the whole GPU, with all processes that use it. A value that NVML does not provide is
 * NaN, and the reason is logged once. memory_bytes: from the backend. Call it once in a process, while one
 * thread registers.
 */
void status_gpu(struct status *st, const char *name, const char *pci_bus_id, double memory_bytes);
void status_error(struct status *st, const char *text);		/* the last error; "": the status socket shows
								   the last one of the log */

/* One metric in a snapshot. rate_per_s: RATED only, else 0. */
struct status_value {
	enum status_kind kind;
	char name[STATUS_TEXT_MAX], unit[STATUS_TEXT_MAX / 2];
	const char *help;		/* valid until that struct status is destroyed */
	double value;
	double rate_per_s;
};

struct status_snapshot {
	char role[STATUS_TEXT_MAX], name[STATUS_TEXT_MAX], host[STATUS_TEXT_MAX], version[STATUS_TEXT_MAX];
	char state[STATUS_TEXT_MAX], phase[STATUS_TEXT_MAX];
	char gpu[STATUS_TEXT_MAX];	/* "": none */
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
 * status_snapshot - rates are exponentially weighted means over about 10 s. A snapshot at least 0.5 s after
 * the last that changed them adds the rate since then with weight 1 - exp(-dt / 10 s); the first rate is the
 * plain mean since the start.
 */
void status_snapshot(struct status *st, int64_t now_ms, struct status_snapshot *out);

/*
 * status_json -
 * {"role","name","pid","host","version","state","phase","step","steps_total","uptime_s","rates":{},"queues":{},
 * "counters":{},"gauges":{},"timers":{},"state_seconds":{},"help":{},"gpu","last_error","events_endpoint"};
 * one line in malloc'ed memory, NULL: out of memory. gpu, last_error and events_endpoint are null when there
 * is none.
 */
char *status_json(const struct status_snapshot *snap);

/*
 * An announcement is the file run_dir/daemons/NAME.json, with which saltctl finds a daemon. It is for
 * monitoring only and never a lock.
 */
struct status_announce {
	char role[STATUS_TEXT_MAX], name[STATUS_TEXT_MAX], host[STATUS_TEXT_MAX];
	int64_t pid;
	char status_endpoint[STATUS_ENDPOINT_MAX], data_endpoint[STATUS_ENDPOINT_MAX];	/* "" = none */
};

/* status_announce_fill - role, name, this host and pid; endpoints may be NULL. */
void status_announce_fill(struct status_announce *a, const char *role, const char *name,
    const char *status_endpoint, const char *data_endpoint);

/*
 * status_announce_write - replaces the file; missing folders are made. Name: [A-Za-z0-9._-], not starting
 * with a dot. 0, ERR_FORMAT or errno.
 */
int status_announce_write(const char *run_dir, const struct status_announce *a, struct err_note *note);

/*
 * status_announce_remove - removes the file of that name if this host and pid wrote it. 0, also if there is
 * none, or errno.
 */
int status_announce_remove(const char *run_dir, const char *name);

/*
 * status_announce_list - all announcements, sorted by name, in malloc'ed memory (free(*list)). Files that do
 * not parse are skipped and counted in *n_bad (may be NULL). Without the folder there are 0. Returns 0,
 * ENOMEM or errno.
 */
int status_announce_list(const char *run_dir, struct status_announce **list, size_t *n, size_t *n_bad);

#endif
