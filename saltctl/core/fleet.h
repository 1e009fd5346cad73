/*
 * fleet - who is there, and what each says of itself. Daemons are found by their announcements in run.dir/daemons and by the roster that
 * selectord gives; all are asked at once.
 */
#ifndef SALT_CTL_FLEET_H
#define SALT_CTL_FLEET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err/err.h"

struct bus;
struct config;
struct json;

struct fleet_daemon {
	char role[64], name[64], host[64];	/* as announced; "" where only the endpoint is known and it does not answer */
	int64_t pid;				/* 0: not known */
	char endpoint[256];
	int rc;					/* of asking: 0, ERR_TIMEOUT, ERR_REFUSED, ERR_FORMAT (no JSON), ... */
	bool gone;				/* it does not answer, was on this host, and its process is no more */
	bool asked;				/* an answer is to come */
	int64_t asked_ms, seen_ms;		/* clock_now_ms of the last question, and when somebody last said that it is there */
	bool left;				/* it does not answer, and nobody says any more that it is there */
	struct json *answer;			/* what it said last, NULL unless rc is 0 */
};

struct fleet {
	struct fleet_daemon *daemons;		/* selectord, teacherd, trainerd; by name within */
	size_t n, cap;
	int64_t found_ms;			/* fleet_turn's: when it last looked into run_dir */
};

/* fleet_add - one more to ask; one with this endpoint already: nothing. 0 or ENOMEM. */
int fleet_add(struct fleet *f, const char *role, const char *name, const char *host, int64_t pid, const char *endpoint);

/* fleet_find - adds what is announced in run_dir. 0, ENOMEM, errno. */
int fleet_find(struct fleet *f, const char *run_dir);

/*
 * fleet_ask - everybody, and those of a roster who were not known yet as soon as it comes. Who says nothing costs timeout_ms once,
 * however many they are. Sorted afterwards. 0, or errno if nothing could be asked.
 */
int fleet_ask(struct fleet *f, struct bus *bus, int64_t timeout_ms);

/*
 * The same by hand, for who shows answers as they come: fleet_ask_one asks daemon i (once at a time; 0 or ENOMEM), fleet_take waits for
 * one that is over and puts it in its place, its roster behind all others (0, ERR_TIMEOUT: none in wait_ms, ENOMEM). Daemons keep their
 * numbers.
 */
struct bus_asker;
int fleet_ask_one(struct fleet *f, struct bus_asker *asker, size_t i, int64_t timeout_ms);
int fleet_take(struct fleet *f, struct bus_asker *asker, int64_t wait_ms);
/*
 * fleet_turn - one turn of a loop that watches: finds daemons in run_dir ("": nowhere) and rosters, asks each every_ms after its last
 * question, takes what has come. Waits up to wait_ms for the first answer; who is slow keeps nobody up. 0, ENOMEM, errno.
 */
int fleet_turn(struct fleet *f, struct bus_asker *asker, const char *run_dir, int64_t every_ms, int64_t timeout_ms, int64_t wait_ms);

/* fleet_give_up - forgets what is still to come and destroys the asker; takes NULL. */
void fleet_give_up(struct fleet *f, struct bus_asker **asker);

void fleet_clear(struct fleet *f);

/* fleet_forget - who does not answer and was named by nobody since then (clock_now_ms). Daemons get other numbers. */
void fleet_forget(struct fleet *f, int64_t since_ms);

/* fleet_numbers - members of an answer's group that are numbers and not 0, as "12.3 k tokens/s, ..." (rates) or "leases 3"; "-" for none. */
void fleet_numbers(const struct json *group, bool rates, char *buf, size_t size);

/* fleet_why - why a daemon without an answer has none; static storage. */
const char *fleet_why(const struct fleet_daemon *d);

/* fleet_key - the name of the key that a daemon of this role ("teacherd") serves with; NULL: not a role. */
const char *fleet_key(const char *role);

/*
 * fleet_json - {"daemons":[...]}: each one's answer as it gave it, with "answered" and "endpoint"; of a silent one what is known, and "why".
 * The answers are the JSON's from then on. json_close it.
 */
struct json *fleet_json(struct fleet *f);

/* fleet_bus - a bus for a client: keys of cfg (NULL: none). */
int fleet_bus(struct bus **bus, const struct config *cfg, struct err_note *note);

#endif
