/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fleet - the daemons of a fleet and what each answers on its status socket. Daemons are found by their
 * announcements in run.dir/daemons, by --endpoint, and by the roster in selectord's answer; all are asked at once.
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
	char role[64], name[64], host[64];	/* as announced; "" where only the endpoint is known and there is no answer */
	int64_t pid;				/* 0: not known */
	char endpoint[256];
	int rc;					/* of asking: 0, ERR_TIMEOUT, ERR_REFUSED, ERR_FORMAT (no JSON), ... */
	bool gone;				/* no answer, it was on this host, and its process has ended */
	bool asked;				/* an answer is to come */
	/* clock_now_ms of the last question, and of the last time anything named it */
	int64_t asked_ms, seen_ms;
	bool left;				/* no answer, and nothing names it any more */
	struct json *answer;			/* the last one, NULL unless rc is 0 */
};

struct fleet {
	struct fleet_daemon *daemons;		/* after fleet_ask: selectord, teacherd, trainerd; by name within */
	size_t n, cap;
	int64_t found_ms;			/* fleet_turn's: when it last read run_dir */
	/* fleet_open's */
	const struct ctl_args *args;		/* --endpoint */
	struct config *cfg;			/* -c; NULL without */
	const char *run_dir;			/* of cfg; NULL without */
	struct bus *bus;
	struct bus_asker *asker;
};

/*
 * fleet_open - configuration, signals, bus and asker of a verb that asks daemons. usage: the message where
 * neither -c nor --endpoint is given. Returns an exit code after the message was printed; fleet_close in any case.
 */
int fleet_open(struct fleet *f, const struct ctl_args *args, const char *usage);
void fleet_close(struct fleet *f);

/* fleet_add - one more daemon to ask; if this endpoint is listed already, only seen_ms changes. */
void fleet_add(struct fleet *f, const char *role, const char *name, const char *host, int64_t pid,
    const char *endpoint);

/* fleet_find - adds the daemons announced in run_dir and those of --endpoint. 0 or errno. */
int fleet_find(struct fleet *f);

/*
 * fleet_ask - all daemons, and those of a roster as soon as it arrives. Waits at most timeout_ms once,
 * however many are silent. Sorts the daemons. 0, or errno if nothing could be asked.
 * fleet_look - both, for verbs that ask once: an exit code after the message was printed, 69 where nothing was found.
 */
int fleet_ask(struct fleet *f, int64_t timeout_ms);
int fleet_look(struct fleet *f, double timeout_s);

/*
 * fleet_turn - one turn of a loop that watches: finds daemons and rosters, asks each daemon every_ms after
 * its last question, takes the answers that have arrived. Waits up to wait_ms for the first answer; slow
 * daemons delay nothing. Daemons keep their numbers. 0 or errno.
 */
int fleet_turn(struct fleet *f, int64_t every_ms, int64_t timeout_ms, int64_t wait_ms);

/* fleet_clear - forgets all daemons. fleet_forget - those without an answer that nothing has named since
 * then (clock_now_ms). */
void fleet_clear(struct fleet *f);
void fleet_forget(struct fleet *f, int64_t since_ms);

size_t fleet_n_silent(const struct fleet *f);

/* fleet_numbers - members of an answer's group that are numbers and not 0, as "12.3 k tokens/s, ..."
 * (rates) or "leases 3"; "-" for none. */
void fleet_numbers(const struct json *group, bool rates, char *buf, size_t size);

/*
 * fleet_gpu - "NVIDIA H200 97 %, 12.3 of 150.1 GB" of an answer, with "?" for what is not known; "" where the
 * daemon computes on no GPU.
 */
void fleet_gpu(const struct json *answer, char *buf, size_t size);

/* fleet_why - why a daemon without an answer has none; static storage. */
const char *fleet_why(const struct fleet_daemon *d);

/* fleet_key - the name of the key that a daemon of this role ("teacherd") serves with; NULL: not a role. */
const char *fleet_key(const char *role);

/*
 * fleet_json - {"daemons":[...]}: each answer as it was given, with "answered" and "endpoint"; of a silent
 * daemon what is known, and "why". The answers belong to the JSON from then on. json_close it.
 */
struct json *fleet_json(struct fleet *f);

/* fleet_bus - a bus for a client: keys of cfg (NULL: none). */
int fleet_bus(struct bus **bus, const struct config *cfg, struct err_note *note);

#endif
