/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fleet - the daemons of a fleet and the answer of each status socket. Daemons are found through their
 * announcements in run.dir/daemons, --endpoint, and the roster in selectord's answer. All are queried in
 * parallel.
 */
#ifndef SALT_CTL_FLEET_H
#define SALT_CTL_FLEET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err/err.h"

struct bus;
struct bus_asker;
struct config;
struct ctl_args;
struct json;

struct fleet_daemon {
	char role[64], name[64], host[64];	/* as announced or answered; "" while not known */
	int64_t pid;				/* 0: not known */
	char endpoint[256];
	int rc;					/* of the last query: 0, ERR_TIMEOUT, ERR_FORMAT, ... */
	bool gone;				/* no answer, and its process on this host has ended */
	bool asked;				/* a query is under way */
	/* clock_now_ms of the last query; and when an announcement, roster or option last listed it */
	int64_t asked_ms, seen_ms;
	bool left;				/* no answer, and nothing lists it any more */
	struct json *answer;			/* the last one; NULL unless rc is 0 */
};

struct fleet {
	struct fleet_daemon *daemons;		/* fleet_ask sorts: selectord, teacherd, trainerd; by name */
	size_t n, cap;
	int64_t found_ms;			/* when fleet_turn last read run_dir */
	size_t n_bad;				/* announcements in run_dir that cannot be read */
	/* set by fleet_open */
	const struct ctl_args *args;		/* for --endpoint */
	struct config *cfg;			/* of -c; NULL without */
	const char *run_dir;			/* of cfg; NULL without */
	struct bus *bus;
	struct bus_asker *asker;
};

/*
 * fleet_open - prepares a verb that queries daemons: loads the configuration, installs the stop signals,
 * opens the bus and its asker. usage: the message if neither -c nor --endpoint is given. Returns 0, or an
 * exit code after it printed a message. Call fleet_close in any case.
 */
int fleet_open(struct fleet *f, const struct ctl_args *args, const char *usage);
void fleet_close(struct fleet *f);

/* fleet_add - adds a daemon to query; if its endpoint is listed already, only seen_ms and left change. */
void fleet_add(struct fleet *f, const char *role, const char *name, const char *host, int64_t pid,
    const char *endpoint);

/* fleet_find - adds the daemons announced in run_dir and those of --endpoint. Returns 0 or errno. */
int fleet_find(struct fleet *f);

/*
 * fleet_ask - queries all daemons, and those of a roster as soon as it arrives. Each query waits at most
 * timeout_ms; they run in parallel, so many silent daemons take no longer than one. Sorts the daemons.
 * Returns 0 or errno.
 * fleet_look - fleet_find and fleet_ask, for verbs that query once. Returns 0, or an exit code after it
 * printed a message, 69 if no daemon was found.
 */
int fleet_ask(struct fleet *f, int64_t timeout_ms);
int fleet_look(struct fleet *f, double timeout_s);

/*
 * fleet_turn - one iteration of a watching loop: finds daemons, queries each one every_ms after its last
 * query, and takes the answers that have arrived, with the rosters in them. Waits up to wait_ms for the first
 * answer, so a slow daemon does not delay the others. The daemons keep their indexes. Returns 0 or errno.
 */
int fleet_turn(struct fleet *f, int64_t every_ms, int64_t timeout_ms, int64_t wait_ms);

/*
 * fleet_clear - removes all daemons. fleet_forget - removes those that have no answer and that nothing has
 * listed since since_ms (clock_now_ms).
 */
void fleet_clear(struct fleet *f);
void fleet_forget(struct fleet *f, int64_t since_ms);

size_t fleet_n_silent(const struct fleet *f);

/*
 * fleet_numbers - writes the members of an answer's group that are numbers and not 0, as "12.3 k tokens/s,
 * ..." (rates) or "leases 3"; "-" if there are none.
 */
void fleet_numbers(const struct json *group, bool rates, char *buf, size_t size);

/*
 * fleet_gpu - writes the GPU of an answer as "NVIDIA H200 97 %, 12.3 of 150.1 GB", with "?" for an unknown
 * figure; "" if the daemon does not compute on a GPU.
 */
void fleet_gpu(const struct json *answer, char *buf, size_t size);

/* fleet_why - the reason why a daemon has no answer; static storage. */
const char *fleet_why(const struct fleet_daemon *d);

/* fleet_key - the name of the key that a daemon of this role ("teacherd") uses; NULL if it is not a role. */
const char *fleet_key(const char *role);

/*
 * fleet_json - returns {"daemons":[...]}: each answer as received, with "answered" and "endpoint" added; for
 * a silent daemon its role, name, host, pid and "why". The JSON takes over the answers. json_close it.
 */
struct json *fleet_json(struct fleet *f);

/* fleet_bus - opens a bus as a client, with the keys of cfg (NULL: without keys). */
int fleet_bus(struct bus **bus, const struct config *cfg, struct err_note *note);

#endif
