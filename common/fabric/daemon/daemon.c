/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/daemon/daemon.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "base/file/file.h"
#include "base/json/json.h"
#include "base/log/log.h"
#include "base/mem/mem.h"

static const struct cli_option common_options[] = {
	{"config", "FILE", "configuration of the fleet, see docs/config.md", false, 'c'},
	{"set", "KEY=VALUE", "override one option, such as --set trainer.lr=1e-3; may be repeated", true, 0},
	{"check", NULL,
	    "check the configuration and the files it names, then exit; -nv also prints it resolved",
	    false, 'n'},
	{"verbose", NULL, "debug lines in the log", false, 'v'},
	{"version", NULL, "print the version and exit", false, 0},
};
#define N_COMMON (sizeof(common_options) / sizeof(common_options[0]))

/* share/man/make.sh and the completion read this text. */
static void
usage(const struct daemon *d)
{
	printf("%s - %s\n\nusage: %s -c fleet.yaml [--set section.key=value ...] [-n | -nv]\n\n", d->program,
	    d->purpose, d->program);
	cli_print_options(d->table, 20, stdout);
	printf("  -h, --help           print this text and exit\n");
}

static int
load_config(struct daemon *d)
{
	const char *path = cli_get(&d->args, "config"), *text;
	const char **overrides = calloc(d->args.n_values + 1, sizeof(*overrides));
	size_t n = 0;
	int rc;

	if (overrides == NULL)
		return ENOMEM;
	while ((text = cli_get_nth(&d->args, "set", n)) != NULL)
		overrides[n++] = text;
	if ((rc = config_load(path, overrides, n, &d->config, &d->note)) == 0)
		rc = config_require(d->config, d->needs, &d->note);
	free(overrides);
	return rc;
}

static void
print_failure(const struct daemon *d, int rc)
{
	char text[1400];

	fprintf(stderr, "%s: %s\n", d->program, err_note_str(&d->note, rc, text, sizeof(text)));
}

/* Returns true to continue, or false with d->exit_code set. */
static bool
read_arguments(struct daemon *d, int argc, char **argv)
{
	bool verbose;
	int rc;

	if ((d->exit_code = cli_parse(&d->args, argc, argv)) != 0)
		return false;
	if (d->args.wants_help) {
		usage(d);
		return false;
	}
	if (cli_get(&d->args, "version") != NULL) {
		printf("%s %s\n", d->program, cli_version);
		return false;
	}
	if (d->args.n_operands > 0) {
		d->exit_code = cli_usage(&d->args, "unexpected argument %s", d->args.operands[0]);
		return false;
	}
	if (cli_get(&d->args, "config") == NULL) {
		d->exit_code = cli_usage(&d->args, "no configuration: give -c fleet.yaml");
		return false;
	}
	d->check = cli_get(&d->args, "check") != NULL;
	verbose = cli_get(&d->args, "verbose") != NULL;
	log_init(d->program, d->check ? LOG_LEVEL_WARN : verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
	if ((rc = load_config(d)) == 0) {
		config_print_renamed(d->config, stderr, d->program);
		if (d->check && verbose)
			rc = config_print(d->config, stdout, true);
	}
	if (rc != 0)
		print_failure(d, rc);
	d->exit_code = err_exit_code(rc);
	return rc == 0;
}

bool
daemon_start(struct daemon *d, int argc, char **argv)
{
	size_t n = N_COMMON;
	int rc;

	memcpy(d->table, common_options, sizeof(common_options));
	for (const struct cli_option *o = d->options; o != NULL && o->name != NULL && n < DAEMON_OPTIONS_MAX; o++)
		d->table[n++] = *o;
	snprintf(d->help, sizeof(d->help), "%s --help", d->program);
	d->args = (struct cli_args){.program = d->program, .help = d->help, .options = d->table};
	log_init(d->program, LOG_LEVEL_INFO);
	if ((rc = stop_install()) != 0)
		err_note_set(&d->note, rc, "signal handlers");
	else if ((rc = bus_raise_files(&d->note)) == 0)		/* before MPI_Init */
		return read_arguments(d, argc, argv);
	print_failure(d, rc);
	d->exit_code = err_exit_code(rc);
	return false;
}

/* ---- status socket and events socket ---- */

static void
add_members(const struct daemon_hooks *hooks, uint8_t **answer, size_t *len)
{
	struct json *root = NULL;
	char *text;

	if (json_parse((const char *)*answer, *len, "status", &root, NULL) != 0)
		return;
	hooks->members(hooks->arg, root);
	if ((text = json_print(root, false)) != NULL) {
		free(*answer);
		*answer = (uint8_t *)text;
		*len = strlen(text);
	}
	json_close(&root);
}

static void
count_peers(struct daemon *d)
{
	uint64_t n_refused, n_ended;

	bus_counts(d->bus, &n_refused, &n_ended);
	status_add(d->refused, n_refused - (uint64_t)status_get(d->refused));
	status_add(d->ended, n_ended - (uint64_t)status_get(d->ended));
}

/* The status socket's bus_status_fn. */
static void
answer_request(void *arg, const uint8_t *body, size_t len, uint8_t **answer, size_t *answer_len)
{
	struct daemon *d = arg;
	const struct daemon_hooks *hooks = d->hooks;
	struct status_snapshot *snap;
	struct wire_peer *peers = NULL;
	size_t n = 0;

	if (log_answer(body, len, (char **)answer, answer_len) || (snap = malloc(sizeof(*snap))) == NULL)
		return;
	count_peers(d);
	status_snapshot(d->status, clock_now_ms(), snap);
	if (snap->last_error[0] == '\0')
		log_last_error(snap->last_error, sizeof(snap->last_error));
	if (hooks != NULL && (peers = mem_alloc(WIRE_PEERS_MAX, sizeof(*peers))) != NULL)
		n = hooks->peers(hooks->arg, peers, WIRE_PEERS_MAX);
	if (wire_status_answer(body, len, snap, peers, n, answer, answer_len) == 0 && hooks != NULL &&
	    hooks->members != NULL && *answer != NULL && *answer_len > 0 && (*answer)[0] == '{')
		add_members(hooks, answer, answer_len);
	free(peers);
	free(snap);
}

static void
publish(void *arg, enum log_level level, const char *event, const char *line)
{
	(void)level;
	bus_events_send(arg, event, line);
}

static void
warn(const char *event, const struct err_note *note, int rc)
{
	char text[1400], quoted[1600];

	log_warn(event, "why=%s", log_quote(err_note_str(note, rc, text, sizeof(text)), quoted, sizeof(quoted)));
}

/*
 * Opens a PUB socket that sends every line of the log, debug lines too, with its event as topic. Its endpoint
 * follows the status socket's: the same host and any free port, or PATH.events.
 */
static void
open_events(struct daemon *d)
{
	const char *bind = d->config->status.bind, *port = strrchr(bind, ':');
	struct err_note note = {.name = ""};
	char endpoint[BUS_ENDPOINT_MAX];
	int rc;

	if (strncmp(bind, "ipc://", 6) == 0)
		snprintf(endpoint, sizeof(endpoint), "%s.events", bind);
	else
		snprintf(endpoint, sizeof(endpoint), "%.*s:*", (int)(port - bind), bind);
	if ((rc = bus_events_publish(&d->events, d->bus, endpoint, &note)) != 0) {
		warn("events.none", &note, rc);
		return;
	}
	status_events(d->status, bus_events_endpoint(d->events));
	log_tap(publish, d->events);
}

int
daemon_open_bus(struct daemon *d)
{
	const struct config *c = d->config;
	struct bus_options options = {.max_message = c->bus.max_message, .curve_dir = c->security.curve_dir,
	    .allow_plain_remote = c->security.allow_plain_remote, .role = d->key};

	return d->check ? 0 : bus_new(&d->bus, &options, &d->note);
}

int
daemon_open_status(struct daemon *d, const char *name)
{
	if (d->check)
		return 0;
	snprintf(d->name, sizeof(d->name), "%s", name);
	if ((d->status = status_new(d->program, d->name, cli_version, clock_now_ms())) == NULL)
		return ENOMEM;
	d->refused = status_register(d->status, STATUS_COUNTER, "handshakes_refused_total", "",
	    "connections without an accepted key, or with a broken handshake");
	d->ended = status_register(d->status, STATUS_COUNTER, "connections_ended_total", "",
	    "connections that were ended because they sent too much or read too little");
	open_events(d);
	return bus_status_new(&d->socket, d->bus, d->config->status.bind, answer_request, d, &d->note);
}

void
daemon_set_hooks(struct daemon *d, const struct daemon_hooks *hooks)
{
	d->hooks = hooks;
}

const char *
daemon_status_endpoint(const struct daemon *d)
{
	return bus_status_endpoint(d->socket);
}

void
daemon_announce(struct daemon *d, const char *data_endpoint)
{
	struct status_announce a;
	struct err_note note = {.name = ""};
	int rc;

	if (d->check || d->config->run.dir[0] == '\0')
		return;
	status_announce_fill(&a, d->program, d->name, daemon_status_endpoint(d), data_endpoint);
	if ((rc = status_announce_write(d->config->run.dir, &a, &note)) != 0)
		warn("announce", &note, rc);
}

void
daemon_close_status(struct daemon *d)
{
	if (d->name[0] != '\0' && d->config->run.dir[0] != '\0')
		status_announce_remove(d->config->run.dir, d->name);
	bus_status_destroy(&d->socket);
}

int
daemon_end(struct daemon *d, int rc)
{
	char text[1400], quoted[1600];

	if (rc != 0) {
		d->exit_code = err_exit_code(rc);
		if (d->check)
			print_failure(d, rc);
		else
			log_error(rc == ERR_STOPPED ? "stopped" : "failed", "exit=%d why=%s", d->exit_code,
			    log_quote(err_note_str(&d->note, rc, text, sizeof(text)), quoted, sizeof(quoted)));
	} else if (d->check && d->exit_code == 0) {
		fprintf(stderr, "%s: configuration and files are good: %s\n", d->program, config_mode_name(d->config));
	}
	daemon_close_status(d);
	if (d->events != NULL)
		log_tap(NULL, NULL);
	bus_events_destroy(&d->events);
	bus_destroy(&d->bus);
	status_destroy(&d->status);
	config_destroy(&d->config);
	cli_free(&d->args);
	return d->exit_code;
}
