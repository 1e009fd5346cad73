/*
 * fleet - who is there, and what each says of itself. Daemons are found by their announcements in run.dir/daemons and by the roster that
 * selectord gives; all are asked at once.
 */
#ifndef SALT_CTL_FLEET_H
#define SALT_CTL_FLEET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err/err.h"

struct bus;
struct config;
struct json;

struct fleet_daemon {
	char role[64], name[64], host[64];	/* as announced; "" where only the endpoint is known and it does not answer */
	int64_t pid;				/* 0: not known */
	char endpoint[256];
	int rc;					/* of asking: 0, ERR_TIMEOUT, ERR_REFUSED, ERR_FORMAT (no JSON), ... */
	bool gone;				/* it does not answer, was on this host, and its process is no more */
	struct json *answer;			/* what it said, NULL unless rc is 0 */
};

struct fleet {
	struct fleet_daemon *daemons;		/* selectord, teacherd, trainerd; by name within */
	size_t n, cap;
};

/* fleet_add - one more to ask; one with this endpoint already: nothing. 0 or ENOMEM. */
int fleet_add(struct fleet *f, const char *role, const char *name, const char *host, int64_t pid, const char *endpoint);

/* fleet_find - adds what is announced in run_dir. 0, ENOMEM, errno. */
int fleet_find(struct fleet *f, const char *run_dir);

/* fleet_ask - everybody, then those of the roster who were not known yet. 0, or errno if nothing could be asked. */
int fleet_ask(struct fleet *f, struct bus *bus, int64_t timeout_ms);

void fleet_clear(struct fleet *f);

/* fleet_why - why a daemon has no answer, for people. */
const char *fleet_why(const struct fleet_daemon *d);

/*
 * fleet_json - {"daemons":[...]}: each one's answer as it gave it, with "answered" and "endpoint"; of a silent one what is known, and "why".
 * The answers are the JSON's from then on. json_close it.
 */
struct json *fleet_json(struct fleet *f);

/* fleet_bus - a bus for a client: keys of cfg (NULL: none). */
int fleet_bus(struct bus **bus, const struct config *cfg, struct err_note *note);

#endif
