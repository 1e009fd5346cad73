/*
 * logs: the last lines of every daemon, or with -f all that come. A daemon whose output a supervisor keeps in run.dir/logs is read
 * there, whoever else writes to the file; any other is asked over its status socket, where each daemon keeps its last lines.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "fabric/bus/bus.h"
#include "fabric/config/config.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/fleet.h"
#include "saltctl/watch/follow.h"
#include "base/json/json.h"
#include "base/mem/mem.h"

#define TAIL_BYTES (1 << 20)		/* of a file's end: where its last lines are looked for, and a daemon's pid */
#define TURN_MS 200			/* between two looks, with -f */
#define FLEET_MS 1000			/* between two questions who is there */
#define ANSWER_MS 2000

static const struct ctl_option options[] = {
	CTL_CONFIG,
	{"follow", NULL, "go on with what comes, until stopped; also -f", false},
	{"lines", "N", "begin with the last N lines of each daemon; 20 unless told", false},
	{"json", NULL, "a JSON object for each line", false},
	CTL_END
};

/* run.dir/logs/NAME.log */
struct file {
	char name[64], path[PATH_MAX];
	int fd;
	ino_t inode;
	off_t at;
	char *part;			/* of a line whose end is not there yet */
	size_t part_len, part_cap;
	char last_ts[32];
};

/* A daemon without such a file. */
struct remote {
	struct bus_ask ask;
	bool asked, silent, any;	/* silent: said so; any: it has answered */
	char endpoint[256], name[64], request[32];
	const char *key;
	int64_t pid, asked_ms;
	size_t who;			/* of the fleet */
	uint64_t next;
	char last_ts[32];
};

struct logs {
	const struct ctl_args *args;
	const struct config *cfg;
	char dir[PATH_MAX];
	uint64_t n_lines;
	bool begun;			/* the first look is over: a file that is new now is read from its start */
	struct file *files;
	size_t n_files, cap_files;
	struct remote **remotes;
	size_t n_remotes, cap_remotes;
	struct fleet fleet;
	struct bus *bus;
	struct bus_asker *who, *what;	/* status; logs */
	struct follow out;
};

/* ---- files ---- */

/* The file's place of its last n_lines lines. */
static off_t
tail_of(int fd, off_t size, uint64_t n_lines)
{
	off_t from = size > TAIL_BYTES ? size - TAIL_BYTES : 0;
	size_t len = (size_t)(size - from), at;
	char *text = malloc(len + 1);
	ssize_t got = text != NULL ? pread(fd, text, len, from) : -1;

	if (got <= 0 || n_lines == 0) {
		free(text);
		return size;
	}
	for (at = (size_t)got; at > 0; at--)
		if (text[at - 1] == '\n' && at < (size_t)got && n_lines-- == 1)
			break;
	if (at == 0 && from > 0)		/* the first is cut: pass it over */
		while (at < (size_t)got && text[at++] != '\n')
			;
	free(text);
	return from + (off_t)at;
}

static int
open_file(struct logs *l, struct file *f, bool from_start)
{
	struct stat st;

	if ((f->fd = open(f->path, O_RDONLY | O_CLOEXEC)) < 0)
		return errno == ENOENT ? 0 : errno;
	if (fstat(f->fd, &st) != 0)
		return errno;
	f->inode = st.st_ino;
	f->at = from_start ? 0 : tail_of(f->fd, st.st_size, l->n_lines);
	return 0;
}

static bool
file_wanted(const struct logs *l, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < l->args->n_operands; i++)		/* trainerd-1 speaks in trainerd.log */
		if (strncmp(l->args->operands[i], name, len) == 0 && l->args->operands[i][len] == '-')
			return true;
	return follow_wanted(name, l->args->operands, l->args->n_operands);
}

static int
find_files(struct logs *l)
{
	DIR *dir = opendir(l->dir);
	struct dirent *e;
	struct file *f;
	size_t len, i;
	int rc = 0;

	if (dir == NULL)
		return errno == ENOENT ? 0 : errno;
	while (rc == 0 && (e = readdir(dir)) != NULL) {
		len = strlen(e->d_name);
		if (e->d_name[0] == '.' || len < 5 || len - 4 >= sizeof(f->name) || strcmp(e->d_name + len - 4, ".log") != 0)
			continue;
		for (i = 0; i < l->n_files; i++)
			if (strlen(l->files[i].name) == len - 4 && memcmp(l->files[i].name, e->d_name, len - 4) == 0)
				break;
		if (i < l->n_files)
			continue;
		if ((rc = mem_grow((void **)&l->files, &l->cap_files, l->n_files + 1, sizeof(*l->files))) != 0)
			break;
		f = &l->files[l->n_files++];
		memset(f, 0, sizeof(*f));
		memcpy(f->name, e->d_name, len - 4);
		snprintf(f->path, sizeof(f->path), "%.3000s/%.255s", l->dir, e->d_name);
		f->fd = -1;
		rc = open_file(l, f, l->begun);
	}
	closedir(dir);
	return rc;
}

/* Bytes of a file as lines; what has no end yet waits for it, but not for ever. */
static int
take_bytes(struct logs *l, struct file *f, const char *bytes, size_t len)
{
	const char *end;
	int rc = 0;

	if (!file_wanted(l, f->name))
		return 0;
	while (rc == 0 && len > 0) {
		size_t n = (end = memchr(bytes, '\n', len)) != NULL ? (size_t)(end - bytes) : len;

		if ((rc = mem_grow((void **)&f->part, &f->part_cap, f->part_len + n + 1, 1)) != 0)
			break;
		memcpy(f->part + f->part_len, bytes, n);
		f->part_len += n;
		if (end != NULL || f->part_len >= 65536) {
			rc = follow_add(&l->out, f->name, f->part, f->part_len, f->last_ts);
			f->part_len = 0;
		}
		bytes += n + (end != NULL);
		len -= n + (end != NULL);
	}
	return rc;
}

static int
read_file(struct logs *l, struct file *f)
{
	static char buf[1 << 16];
	struct stat st;
	ssize_t n = 0;
	int rc = 0;

	if (f->fd < 0)
		return open_file(l, f, true);
	if (fstat(f->fd, &st) == 0 && st.st_size < f->at)		/* emptied in its place */
		f->at = 0;
	while (rc == 0 && (n = pread(f->fd, buf, sizeof(buf), f->at)) > 0) {
		f->at += n;
		rc = take_bytes(l, f, buf, (size_t)n);
	}
	if (rc == 0 && n < 0)
		rc = errno;
	/* Moved away and begun anew: the old one has been read to its end. */
	if (rc == 0 && stat(f->path, &st) == 0 && st.st_ino != f->inode) {
		close(f->fd);
		if ((rc = open_file(l, f, true)) == 0 && f->fd >= 0)
			rc = read_file(l, f);
	}
	return rc;
}

/* Does this process speak in the file's end? */
static bool
speaks_in(const struct file *f, int64_t pid)
{
	off_t from = f->at > TAIL_BYTES ? f->at - TAIL_BYTES : 0;
	char *text = malloc(TAIL_BYTES + 1), word[40];
	ssize_t n = text != NULL && f->fd >= 0 ? pread(f->fd, text, TAIL_BYTES, from) : 0;
	bool found;

	snprintf(word, sizeof(word), " pid=%" PRId64 " ", pid);
	found = n > 0 && memmem(text, (size_t)n, word, strlen(word)) != NULL;
	free(text);
	return found;
}

/* ---- sockets ---- */

/* Is there a file for what this daemon says? Its own, made on this host, or one in which it, or another rank of its trainer, speaks. */
static bool
in_a_file(const struct logs *l, const struct fleet_daemon *d)
{
	bool trainer = strcmp(d->role, "trainerd") == 0;

	for (size_t i = 0; i < l->n_files; i++) {
		const struct file *f = &l->files[i];

		if (strcmp(f->name, trainer ? "trainerd" : d->name) != 0)
			continue;
		if (strcmp(d->host, bus_host()) == 0)
			return true;
		for (size_t k = 0; k < l->fleet.n; k++)
			if ((d == &l->fleet.daemons[k] || (trainer && strcmp(l->fleet.daemons[k].role, "trainerd") == 0)) &&
			    l->fleet.daemons[k].pid > 0 && speaks_in(f, l->fleet.daemons[k].pid))
				return true;
	}
	return false;
}

static int
find_remotes(struct logs *l)
{
	struct remote *r;
	int rc;

	for (size_t i = 0; i < l->fleet.n; i++) {
		struct fleet_daemon *d = &l->fleet.daemons[i];
		size_t k;

		for (k = 0; k < l->n_remotes && strcmp(l->remotes[k]->endpoint, d->endpoint) != 0; k++)
			;
		if (k < l->n_remotes || d->answer == NULL || !follow_wanted(d->name, l->args->operands, l->args->n_operands) || in_a_file(l, d))
			continue;
		if ((rc = mem_grow((void **)&l->remotes, &l->cap_remotes, l->n_remotes + 1, sizeof(*l->remotes))) != 0 ||
		    (r = calloc(1, sizeof(*r))) == NULL)
			return ENOMEM;
		l->remotes[l->n_remotes++] = r;
		snprintf(r->endpoint, sizeof(r->endpoint), "%s", d->endpoint);
		snprintf(r->name, sizeof(r->name), "%s", d->name);
		r->key = fleet_key(d->role);
		r->who = i;
	}
	return 0;
}

/* "log pid=4711 first=17 next=42\n" and the lines. */
static int
take_answer(struct logs *l, struct remote *r, const char *text, size_t len)
{
	const char *end = text + len, *line = memchr(text, '\n', len);
	uint64_t first, next, skip = 0;
	int64_t pid;
	int rc = 0;

	if (line == NULL || sscanf(text, "log pid=%" SCNd64 " first=%" SCNu64 " next=%" SCNu64, &pid, &first, &next) != 3)
		return 0;		/* an older daemon */
	if (r->any && pid != r->pid) {	/* another process at the same place: from its beginning */
		r->pid = pid;
		r->next = 0;
		return 0;
	}
	if (!r->any && !l->begun && next - first > l->n_lines)
		skip = next - first - l->n_lines;
	if (r->any && first > r->next)
		fprintf(stderr, "saltctl logs: %s: %" PRIu64 " lines came faster than they could be fetched\n", r->name, first - r->next);
	r->pid = pid;
	r->next = next;
	r->any = true;
	for (line++; line < end && rc == 0; ) {
		const char *stop = memchr(line, '\n', (size_t)(end - line));

		if (stop == NULL)
			stop = end;
		if (skip > 0)
			skip--;
		else
			rc = follow_add(&l->out, r->name, line, (size_t)(stop - line), r->last_ts);
		line = stop + 1;
	}
	return rc;
}

static int
ask_remotes(struct logs *l)
{
	int64_t every_ms = TURN_MS + 5 * (int64_t)l->n_remotes;
	int rc = 0;

	for (size_t i = 0; i < l->n_remotes && rc == 0; i++) {
		struct remote *r = l->remotes[i];

		if (r->asked || l->fleet.daemons[r->who].left || (r->any && clock_now_ms() - r->asked_ms < every_ms))
			continue;
		snprintf(r->request, sizeof(r->request), "log %" PRIu64, r->next);
		r->ask = (struct bus_ask){.endpoint = r->endpoint, .server_key = r->key, .id = i};
		if ((rc = bus_asker_ask(l->what, &r->ask, r->request, strlen(r->request), ANSWER_MS)) == 0)
			r->asked = true;
		r->asked_ms = clock_now_ms();
	}
	return rc;
}

static int
take_remotes(struct logs *l, int64_t wait_ms)
{
	struct bus_ask *ask;
	int rc = 0;

	while (rc == 0 && (ask = bus_asker_next(l->what, wait_ms)) != NULL) {
		struct remote *r = l->remotes[ask->id];

		wait_ms = 0;
		r->asked = false;
		if (ask->rc == 0) {
			r->silent = false;
			rc = take_answer(l, r, (const char *)ask->answer, ask->len);
		} else if (!r->silent) {
			r->silent = true;
			fprintf(stderr, "saltctl logs: %s: %s\n", r->name, ask->rc == ERR_TIMEOUT ? "no answer" : err_str(ask->rc));
		}
		free(ask->answer);
		ask->answer = NULL;
	}
	return rc;
}

/* ---- the verb ---- */

/* All that is there now; who does not answer costs ANSWER_MS once. */
static int
look_once(struct logs *l)
{
	int rc;

	if ((rc = find_files(l)) != 0 || (rc = fleet_find(&l->fleet, l->cfg->run.dir)) != 0 ||
	    (rc = fleet_ask(&l->fleet, l->bus, ANSWER_MS)) != 0 || (rc = find_remotes(l)) != 0 || (rc = ask_remotes(l)) != 0)
		return rc;
	for (size_t i = 0; i < l->n_files && rc == 0; i++)
		rc = read_file(l, &l->files[i]);
	while (rc == 0 && bus_asker_open(l->what) > 0)
		rc = take_remotes(l, ANSWER_MS + 1);
	l->begun = true;
	return rc;
}

static int
look_again(struct logs *l)
{
	int rc;

	if ((rc = fleet_turn(&l->fleet, l->who, l->cfg->run.dir, FLEET_MS, ANSWER_MS, 0)) != 0 || (rc = find_files(l)) != 0 ||
	    (rc = find_remotes(l)) != 0 || (rc = ask_remotes(l)) != 0)
		return rc;
	for (size_t i = 0; i < l->n_files && rc == 0; i++)
		rc = read_file(l, &l->files[i]);
	return rc != 0 ? rc : take_remotes(l, 0);
}

/* Names that were asked for and are nowhere, and daemons that neither have a file nor answer. */
static int
missing(const struct logs *l)
{
	int exit_code = 0;

	for (size_t i = 0; i < l->args->n_operands; i++) {
		const char *const one[] = {l->args->operands[i]};
		bool found = false;

		for (size_t k = 0; k < l->n_files; k++)
			found |= follow_wanted(l->files[k].name, one, 1) ||
			    (strncmp(one[0], l->files[k].name, strlen(l->files[k].name)) == 0 && one[0][strlen(l->files[k].name)] == '-');
		for (size_t k = 0; k < l->fleet.n; k++)
			found |= follow_wanted(l->fleet.daemons[k].name, one, 1);
		if (found)
			continue;
		fprintf(stderr, "saltctl logs: there is no daemon \"%s\"; there is", one[0]);
		for (size_t k = 0; k < l->n_files; k++)
			fprintf(stderr, " %s", l->files[k].name);
		for (size_t k = 0; k < l->n_remotes; k++)
			fprintf(stderr, " %s", l->remotes[k]->name);
		fprintf(stderr, "%s\n", l->n_files + l->n_remotes == 0 ? " none" : "");
		exit_code = EX_NOINPUT;
	}
	for (size_t k = 0; k < l->fleet.n; k++) {
		const struct fleet_daemon *d = &l->fleet.daemons[k];

		if (d->answer != NULL || !follow_wanted(d->name, l->args->operands, l->args->n_operands) || in_a_file(l, d))
			continue;
		fprintf(stderr, "saltctl logs: %s on %s: %s\n", d->name[0] != '\0' ? d->name : d->endpoint, d->host[0] != '\0' ? d->host : "?",
		    d->gone ? "its process is gone, and it has no file in run.dir/logs" : "no answer");
		exit_code = exit_code != 0 ? exit_code : EX_UNAVAILABLE;
	}
	if (exit_code == 0 && l->n_files == 0 && l->fleet.n == 0) {
		fprintf(stderr, "saltctl logs: no files in %s and no daemon is announced; is the fleet up?\n", l->dir);
		exit_code = EX_UNAVAILABLE;
	}
	return exit_code;
}

static int
logs(struct ctl_args *args)
{
	struct logs l = {.args = args, .n_lines = 20, .out.json = ctl_has(args, "json")};
	struct err_note note = {.name = ""};
	struct config *cfg = NULL;
	bool follow = ctl_has(args, "follow");
	int exit_code, rc;

	if (!ctl_has(args, "config"))
		return ctl_usage(args, "whose logs? give -c fleet.yaml");
	if ((exit_code = ctl_get_u64(args, "lines", 0, 1000000, &l.n_lines)) != 0 ||
	    (exit_code = ctl_open_config(args, CONFIG_NEED_RUN, &cfg)) != 0)
		return exit_code;
	l.cfg = cfg;
	snprintf(l.dir, sizeof(l.dir), "%s/logs", cfg->run.dir);
	if ((rc = stop_install()) != 0 || (rc = fleet_bus(&l.bus, cfg, &note)) != 0 || (rc = bus_asker_new(&l.who, l.bus)) != 0 ||
	    (rc = bus_asker_new(&l.what, l.bus)) != 0 || (rc = look_once(&l)) != 0)
		goto out;
	follow_print(&l.out);
	exit_code = missing(&l);
	if (follow)			/* who is not there may come */
		exit_code = 0;
	while (follow && !stop_requested() && !ferror(stdout)) {
		stop_sleep_ms(TURN_MS);
		if ((rc = look_again(&l)) != 0)
			break;
		follow_print(&l.out);
	}
out:
	if (rc != 0)
		exit_code = ctl_fail(args, rc, &note);
	fleet_give_up(&l.fleet, &l.who);
	for (struct bus_ask *ask; l.what != NULL && (ask = bus_asker_drop(l.what)) != NULL; )
		free(ask->answer);		/* the asks are the remotes' */
	bus_asker_destroy(&l.what);
	fleet_clear(&l.fleet);
	bus_destroy(&l.bus);
	follow_clear(&l.out);
	for (size_t i = 0; i < l.n_files; i++) {
		if (l.files[i].fd >= 0)
			close(l.files[i].fd);
		free(l.files[i].part);
	}
	free(l.files);
	for (size_t i = 0; i < l.n_remotes; i++)
		free(l.remotes[i]);
	free(l.remotes);
	config_destroy(&cfg);
	return exit_code;
}

const struct ctl_verb ctl_logs = {
	.name = "logs", .operands = "[NAME ...]", .summary = "what the daemons of a fleet say, on every host, in the order of time",
	.about = "Last lines of all daemons, or of those named (teacherd: every teacherd-N), each with its daemon before it; -f goes on with what comes,\n"
	    "from daemons that join and files that are rotated too. Read from run.dir/logs where a supervisor writes there, else asked of the\n"
	    "daemon, which keeps its last 512 lines. Without -f, who has no file and does not answer is named, and the exit code is then 69.",
	.example = "saltctl logs -f teacherd trainerd -c fleet.yaml",
	.options = options, .max_operands = CTL_ANY, .run = logs,
};
