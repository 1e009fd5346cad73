#include "fabric/daemon/presence.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock/clock.h"
#include "fabric/config/cli.h"
#include "base/log/log.h"
#include "base/mem/mem.h"

static void
answer(void *arg, const uint8_t *body, size_t len, uint8_t **out, size_t *out_len)
{
	struct presence *p = arg;
	struct status_snapshot *snap;
	struct wire_peer *peers = NULL;
	char error[STATUS_ERROR_MAX];
	size_t n = 0;

	if (log_answer(body, len, (char **)out, out_len) || (snap = mem_alloc(1, sizeof(*snap))) == NULL)
		return;
	if (p->roster != NULL && (peers = mem_alloc(WIRE_PEERS_MAX, sizeof(*peers))) != NULL)
		n = p->roster(p->roster_arg, peers, WIRE_PEERS_MAX);
	log_last_error(error, sizeof(error));
	status_error(p->status, error);
	status_snapshot(p->status, clock_now_ms(), snap);
	wire_status_answer(body, len, snap, peers, n, out, out_len);
	free(peers);
	free(snap);
}

/* One directory, which may be there already; a file of that name is in the way. */
static int
make_one(const char *path, struct err_note *note)
{
	struct stat st;
	int rc;

	if (mkdir(path, 0777) == 0)
		return 0;
	if (errno != EEXIST)
		return err_note_set(note, errno, "%s", path);
	if (stat(path, &st) != 0)
		return err_note_set(note, errno, "%s", path);
	if (S_ISDIR(st.st_mode))
		return 0;
	rc = err_note_set(note, ERR_EXISTS, "%s", path);
	err_note_expected(note, "a directory");
	err_note_found(note, "a file");
	return rc;
}

int
presence_make_directory(const char *path, struct err_note *note)
{
	char part[4200];
	int rc;

	snprintf(part, sizeof(part), "%s", path);
	for (char *p = part + 1; *p != '\0'; p++)
		if (*p == '/') {
			*p = '\0';
			if ((rc = make_one(part, note)) != 0)
				return rc;
			*p = '/';
		}
	return make_one(part, note);
}

int
presence_open(struct presence *p, const struct config *cfg, const char *role, const char *name, enum bus_role key, struct err_note *note)
{
	struct bus_options bo = {.max_message = cfg->bus.max_message, .curve_dir = cfg->security.curve_dir,
	    .allow_plain_remote = cfg->security.allow_plain_remote, .role = key};
	int rc;

	snprintf(p->role, sizeof(p->role), "%s", role);
	snprintf(p->name, sizeof(p->name), "%s", name);
	snprintf(p->run_dir, sizeof(p->run_dir), "%s", cfg->run.dir);
	if ((p->status = status_new(role, name, SALT_VERSION, clock_now_ms())) == NULL)
		return ENOMEM;
	if ((rc = bus_new(&p->bus, &bo, note)) != 0)
		return rc;
	presence_events_open(&p->events, p->bus, cfg->status.bind, p->status);
	return bus_status_new(&p->socket, p->bus, cfg->status.bind, answer, p, note);
}

void
presence_announce(struct presence *p, const char *data_endpoint)
{
	struct status_announce a;
	struct err_note note = {.name = ""};
	char text[1200], quoted[1400];
	int rc;

	if (p->run_dir[0] == '\0')
		return;
	status_announce_fill(&a, p->role, p->name, bus_status_endpoint(p->socket), data_endpoint);
	if ((rc = presence_make_directory(p->run_dir, &note)) != 0 ||
	    (rc = status_announce_write(p->run_dir, &a, &note)) != 0)
		log_warn("announce", "why=%s", log_quote(err_note_str(&note, rc, text, sizeof(text)), quoted, sizeof(quoted)));
}

void
presence_close(struct presence *p)
{
	if (p->run_dir[0] != '\0' && p->name[0] != '\0')
		status_announce_remove(p->run_dir, p->name);
	bus_status_destroy(&p->socket);
	presence_events_close(&p->events);
	bus_destroy(&p->bus);
	status_destroy(&p->status);
}
