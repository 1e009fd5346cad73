/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status_stubs - a fleet of status sockets without daemons, for tests of the programs that watch a fleet:
 *   status_stubs RUN ANSWERING SILENT
 * One selectord and ANSWERING - 1 teachers answer like daemons; SILENT others accept a connection and never
 * answer, like a stopped process. Every second silent one is announced in RUN/daemons; the others are only in
 * selectord's roster. Prints "ready", and runs until a signal. Exit code: 0, or 1 with the reason on stderr.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "fabric/bus/bus.h"
#include "fabric/status/status.h"
#include "fabric/wire/status_answer.h"

struct stub {
	struct bus_status *socket;
	struct status *status;
	const struct wire_peer *roster;
	size_t n_roster;
};

static void
die(int rc, const struct err_note *note, const char *what)
{
	char text[1200];

	fprintf(stderr, "status_stubs: %s: %s\n", what, err_note_str(note, rc, text, sizeof(text)));
	exit(1);
}

static void
answer(void *arg, const uint8_t *body, size_t len, uint8_t **out, size_t *out_len)
{
	const struct stub *s = arg;
	struct status_snapshot *snap = malloc(sizeof(*snap));

	if (snap == NULL)
		return;
	status_snapshot(s->status, clock_now_ms(), snap);
	wire_status_answer(body, len, snap, s->roster, s->n_roster, out, out_len);
	free(snap);
}

/* Opens a port that accepts connections and reads nothing. */
static void
silent_endpoint(char *endpoint, size_t size)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(fd, 64) != 0 ||
	    getsockname(fd, (struct sockaddr *)&at, &len) != 0)
		die(errno, NULL, "silent socket");
	snprintf(endpoint, size, "tcp://127.0.0.1:%d", ntohs(at.sin_port));
}

static void
announce(const char *run, const char *role, const char *name, const char *endpoint)
{
	struct status_announce a;
	struct err_note note = {.name = ""};
	int rc;

	status_announce_fill(&a, role, name, endpoint, NULL);
	if ((rc = status_announce_write(run, &a, &note)) != 0)
		die(rc, &note, "announcement");
}

int
main(int argc, char **argv)
{
	struct rlimit files = {0, 0};
	struct bus_options options = {.role = BUS_ROLE_SELECTOR};
	struct err_note note = {.name = ""};
	struct wire_peer *roster;
	struct bus *bus = NULL;
	struct stub *stubs;
	int n, n_silent, rc;

	if (argc != 4 || (n = atoi(argv[2])) < 1 || (n_silent = atoi(argv[3])) < 0) {
		fprintf(stderr, "usage: status_stubs RUN ANSWERING SILENT\n");
		return 1;
	}
	getrlimit(RLIMIT_NOFILE, &files);		/* a socket has several descriptors */
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	if ((rc = stop_install()) != 0 || (rc = bus_new(&bus, &options, &note)) != 0)
		die(rc, &note, "bus");
	if ((stubs = calloc((size_t)n, sizeof(*stubs))) == NULL || (roster = calloc((size_t)n_silent + 1, sizeof(*roster))) == NULL)
		die(ENOMEM, NULL, "stubs");
	for (int i = 0; i < n_silent; i++) {
		struct wire_peer *p = &roster[i / 2];
		char name[32], endpoint[64];

		silent_endpoint(endpoint, sizeof(endpoint));
		snprintf(name, sizeof(name), "silent-%d", i);
		if (i % 2 == 0) {
			announce(argv[1], "teacherd", name, endpoint);
			continue;
		}
		p->role = WIRE_ROLE_TEACHER;
		snprintf(p->name, sizeof(p->name), "%s", name);
		snprintf(p->host, sizeof(p->host), "elsewhere");
		snprintf(p->status_endpoint, sizeof(p->status_endpoint), "%s", endpoint);
		stubs[0].roster = roster;
		stubs[0].n_roster = (size_t)i / 2 + 1;
	}
	for (int i = 0; i < n; i++) {
		const char *role = i == 0 ? "selectord" : "teacherd";
		struct stub *s = &stubs[i];
		char name[32];

		snprintf(name, sizeof(name), i == 0 ? "selectord" : "teacherd-%d", i);
		if ((s->status = status_new(role, name, "0", clock_now_ms())) == NULL)
			die(ENOMEM, NULL, name);
		status_add(status_register(s->status, STATUS_RATED, "tokens_total", "tokens", "of a stub"), 1000);
		status_state(s->status, "computing", clock_now_ms());
		if ((rc = bus_status_new(&s->socket, bus, "tcp://127.0.0.1:*", answer, s, &note)) != 0)
			die(rc, &note, name);
		announce(argv[1], role, name, bus_status_endpoint(s->socket));
	}
	puts("ready");
	fflush(stdout);
	while (!stop_requested())
		stop_sleep_ms(1000);
	for (int i = 0; i < n; i++) {
		bus_status_destroy(&stubs[i].socket);
		status_destroy(&stubs[i].status);
	}
	bus_destroy(&bus);
	free(stubs);
	free(roster);
	return 0;
}
