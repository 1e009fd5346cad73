/* SPDX-License-Identifier: Apache-2.0 */
/*
 * logs: prints the last lines of every daemon, and with -f those that follow. If a supervisor writes a
 * daemon's output to a file in run.dir/logs, that file is read, with all its other content. Other daemons are
 * queried on their status sockets for the last lines that each keeps in memory.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "fabric/bus/bus.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/fleet.h"
#include "saltctl/core/output.h"
#include "saltctl/watch/follow.h"
#include "base/json/json.h"

#define TAIL_BYTES (1 << 20)		/* end of a file in which last lines and pids are searched */
#define TURN_MS 200			/* between two turns with -f */
#define FLEET_MS 1000			/* between two searches for daemons */
#define ANSWER_MS 2000

static const struct cli_option options[] = {
	CTL_CONFIG,
	{"follow", NULL, "print new lines until stopped", false, 'f'},
	{"lines", "N", "begin with the last N lines of each daemon; default 20", false},
	{"json", NULL, "a JSON object for each line", false},
	CTL_END
};

/* run.dir/logs/NAME.log */
struct file {
	char name[64], path[PATH_MAX];
	int fd;
	ino_t inode;
	off_t at;
	char *part;			/* beginning of a line whose end is not there yet */
	size_t part_len, part_cap;
	char last_ts[32];
};

/* A daemon without such a file, which is queried. */
struct remote {
	struct bus_ask ask;		/* must be first: an answer returns its address */
	STAILQ_ENTRY(remote) next_remote;
	bool asked, silent, any;	/* silent: already reported; any: it has answered */
	char endpoint[256], name[64], request[32];
	int64_t pid, asked_ms;
	size_t number;			/* in the fleet */
	uint64_t next;			/* number of the next line to ask for */
	char last_ts[32];
};

struct logs {
	const struct ctl_args *args;
	char dir[PATH_MAX];
	uint64_t n_lines;
	bool begun;			/* the first turn is over: new files are read from the start */
	struct file *files;
	size_t n_files, cap_files, n_remotes;
	STAILQ_HEAD(, remote) remotes;
	struct fleet fleet;
	struct bus_asker *what;		/* asks for lines; the asker of fleet asks for status */
	struct err_note note;		/* the file or folder that cannot be read */
	struct follow out;
};

static bool
wanted(const struct logs *l, const char *name)
{
	return follow_wanted(name, l->args->operands, l->args->n_operands);
}

/* ---- files ---- */

/* Offset at which the last n_lines lines of the file begin. */
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
	if (at == 0 && from > 0)		/* the first line is incomplete */
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
		return errno == ENOENT ? 0 : err_note_set(&l->note, errno, "%s", f->path);
	if (fstat(f->fd, &st) != 0)
		return err_note_set(&l->note, errno, "%s", f->path);
	f->inode = st.st_ino;
	f->at = from_start ? 0 : tail_of(f->fd, st.st_size, l->n_lines);
	return 0;
}

/* Whether an operand names a rank whose output is in this file: trainerd-1 writes to trainerd.log. */
static bool
has_rank(const char *file, const char *operand)
{
	size_t len = strlen(file);

	return strncmp(operand, file, len) == 0 && operand[len] == '-';
}

static bool
file_wanted(const struct logs *l, const char *name)
{
	for (size_t i = 0; i < l->args->n_operands; i++)
		if (has_rank(name, l->args->operands[i]))
			return true;
	return wanted(l, name);
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
		return errno == ENOENT ? 0 : err_note_set(&l->note, errno, "%s", l->dir);
	while (rc == 0 && (e = readdir(dir)) != NULL) {
		len = strlen(e->d_name);
		if (e->d_name[0] == '.' || len < 5 || len - 4 >= sizeof(f->name) ||
		    strcmp(e->d_name + len - 4, ".log") != 0)
			continue;
		for (i = 0; i < l->n_files; i++)
			if (strlen(l->files[i].name) == len - 4 && memcmp(l->files[i].name, e->d_name, len - 4) == 0)
				break;
		if (i < l->n_files)
			continue;
		f = ctl_add(l->files, l->n_files, l->cap_files);
		memcpy(f->name, e->d_name, len - 4);
		snprintf(f->path, sizeof(f->path), "%.3000s/%.255s", l->dir, e->d_name);
		f->fd = -1;
		rc = open_file(l, f, l->begun);
	}
	closedir(dir);
	return rc;
}

/* Splits bytes of a file into lines; an incomplete line is kept until its end arrives or it is too long. */
static void
take_bytes(struct logs *l, struct file *f, const char *bytes, size_t len)
{
	const char *end;

	if (!file_wanted(l, f->name))
		return;
	while (len > 0) {
		size_t n = (end = memchr(bytes, '\n', len)) != NULL ? (size_t)(end - bytes) : len;

		ctl_grow((void **)&f->part, &f->part_cap, f->part_len + n + 1, 1);
		memcpy(f->part + f->part_len, bytes, n);
		f->part_len += n;
		if (end != NULL || f->part_len >= 65536) {
			follow_add(&l->out, f->name, f->part, f->part_len, f->last_ts);
			f->part_len = 0;
		}
		bytes += n + (end != NULL);
		len -= n + (end != NULL);
	}
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
	if (fstat(f->fd, &st) == 0 && st.st_size < f->at)		/* truncated */
		f->at = 0;
	while ((n = pread(f->fd, buf, sizeof(buf), f->at)) > 0) {
		f->at += n;
		take_bytes(l, f, buf, (size_t)n);
	}
	if (n < 0)
		rc = err_note_set(&l->note, errno, "%s", f->path);
	/* The file was rotated: the old one has been read to its end. */
	if (rc == 0 && stat(f->path, &st) == 0 && st.st_ino != f->inode) {
		close(f->fd);
		if ((rc = open_file(l, f, true)) == 0 && f->fd >= 0)
			rc = read_file(l, f);
	}
	return rc;
}

/* Whether the end of the file has lines of this process. */
static bool
has_lines_of(const struct file *f, int64_t pid)
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

/*
 * Whether a file has this daemon's output: a file with its name if the daemon is on this host, else one that
 * contains lines of its process or, for a trainer, of another rank.
 */
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
		for (size_t k = 0; k < l->fleet.n; k++) {
			const struct fleet_daemon *e = &l->fleet.daemons[k];

			if ((d == e || (trainer && strcmp(e->role, "trainerd") == 0)) && e->pid > 0 &&
			    has_lines_of(f, e->pid))
				return true;
		}
	}
	return false;
}

static void
find_remotes(struct logs *l)
{
	for (size_t i = 0; i < l->fleet.n; i++) {
		struct fleet_daemon *d = &l->fleet.daemons[i];
		struct remote *r;

		STAILQ_FOREACH(r, &l->remotes, next_remote)
			if (strcmp(r->endpoint, d->endpoint) == 0)
				break;
		if (r != NULL || d->answer == NULL || !wanted(l, d->name) || in_a_file(l, d))
			continue;
		r = ctl_alloc(1, sizeof(*r));
		snprintf(r->endpoint, sizeof(r->endpoint), "%s", d->endpoint);
		snprintf(r->name, sizeof(r->name), "%s", d->name);
		r->ask = (struct bus_ask){.endpoint = r->endpoint, .server_key = fleet_key(d->role)};
		r->number = i;
		STAILQ_INSERT_TAIL(&l->remotes, r, next_remote);
		l->n_remotes++;
	}
}

/* Takes an answer: "log pid=4711 first=17 next=42\n", followed by the lines. */
static void
take_answer(struct logs *l, struct remote *r, const char *text, size_t len)
{
	const char *end = text + len, *line = memchr(text, '\n', len), *stop;
	uint64_t first, next, skip = 0;
	int64_t pid;

	if (line == NULL || sscanf(text, "log pid=%" SCNd64 " first=%" SCNu64 " next=%" SCNu64, &pid, &first,
	    &next) != 3)
		return;			/* a daemon of an older version */
	if (r->any && pid != r->pid) {	/* a new process at this endpoint: start with its first line */
		r->pid = pid;
		r->next = 0;
		return;
	}
	if (!r->any && !l->begun && next - first > l->n_lines)
		skip = next - first - l->n_lines;
	if (r->any && first > r->next)
		fprintf(stderr,
		    "saltctl logs: %s: %" PRIu64 " lines were overwritten before they could be fetched\n",
		    r->name, first - r->next);
	r->pid = pid;
	r->next = next;
	r->any = true;
	for (line++; line < end; line = stop + 1) {
		if ((stop = memchr(line, '\n', (size_t)(end - line))) == NULL)
			stop = end;
		if (skip > 0)
			skip--;
		else
			follow_add(&l->out, r->name, line, (size_t)(stop - line), r->last_ts);
	}
}

static int
ask_remotes(struct logs *l)
{
	int64_t every_ms = TURN_MS + 5 * (int64_t)l->n_remotes;
	struct remote *r;
	int rc;

	STAILQ_FOREACH(r, &l->remotes, next_remote) {
		if (r->asked || l->fleet.daemons[r->number].left || (r->any && clock_now_ms() - r->asked_ms < every_ms))
			continue;
		snprintf(r->request, sizeof(r->request), "log %" PRIu64, r->next);
		r->ask = (struct bus_ask){.endpoint = r->endpoint, .server_key = r->ask.server_key};
		if ((rc = bus_asker_ask(l->what, &r->ask, r->request, strlen(r->request), ANSWER_MS)) != 0)
			return rc;
		r->asked = true;
		r->asked_ms = clock_now_ms();
	}
	return 0;
}

static void
take_remotes(struct logs *l, int64_t wait_ms)
{
	struct bus_ask *ask;

	for (; (ask = bus_asker_next(l->what, wait_ms)) != NULL; wait_ms = 0) {
		struct remote *r = (struct remote *)ask;

		r->asked = false;
		if (ask->rc == 0) {
			r->silent = false;
			take_answer(l, r, (const char *)ask->answer, ask->len);
		} else if (!r->silent) {
			r->silent = true;
			fprintf(stderr, "saltctl logs: %s: %s\n", r->name,
			    ask->rc == ERR_TIMEOUT ? "no answer" : err_str(ask->rc));
		}
		free(ask->answer);
		ask->answer = NULL;
	}
}

/* ---- the verb ---- */

static int
read_files(struct logs *l)
{
	int rc = 0;

	for (size_t i = 0; i < l->n_files && rc == 0; i++)
		rc = read_file(l, &l->files[i]);
	return rc;
}

/* Reads all lines that exist now; daemons that do not answer delay it by ANSWER_MS. */
static int
look_once(struct logs *l)
{
	int rc;

	if ((rc = find_files(l)) != 0)
		return rc;
	if ((rc = fleet_find(&l->fleet)) != 0)
		return err_note_set(&l->note, rc, "%s/daemons", l->fleet.run_dir);
	if ((rc = fleet_ask(&l->fleet, ANSWER_MS)) != 0)
		return rc;
	find_remotes(l);
	if ((rc = ask_remotes(l)) == 0 && (rc = read_files(l)) == 0)
		while (bus_asker_open(l->what) > 0)
			take_remotes(l, ANSWER_MS + 1);
	l->begun = true;
	return rc;
}

static int
look_again(struct logs *l)
{
	int rc;

	if ((rc = fleet_turn(&l->fleet, FLEET_MS, ANSWER_MS, 0)) != 0 || (rc = find_files(l)) != 0)
		return rc;
	find_remotes(l);
	if ((rc = ask_remotes(l)) == 0 && (rc = read_files(l)) == 0)
		take_remotes(l, 0);
	return rc;
}

/* Reports an operand that names no daemon. */
static bool
operand_found(const struct logs *l, const char *operand)
{
	const struct remote *r;

	for (size_t k = 0; k < l->n_files; k++)
		if (follow_wanted(l->files[k].name, &operand, 1) || has_rank(l->files[k].name, operand))
			return true;
	for (size_t k = 0; k < l->fleet.n; k++)
		if (follow_wanted(l->fleet.daemons[k].name, &operand, 1))
			return true;
	fprintf(stderr, "saltctl logs: there is no daemon \"%s\"; there is", operand);
	for (size_t k = 0; k < l->n_files; k++)
		fprintf(stderr, " %s", l->files[k].name);
	STAILQ_FOREACH(r, &l->remotes, next_remote)
		fprintf(stderr, " %s", r->name);
	fprintf(stderr, "%s\n", l->n_files + l->n_remotes == 0 ? " none" : "");
	return false;
}

/* Reports operands that name nothing, and daemons that have no file and do not answer. */
static int
missing(const struct logs *l)
{
	int exit_code = 0;

	for (size_t i = 0; i < l->args->n_operands; i++)
		if (!operand_found(l, l->args->operands[i]))
			exit_code = EX_NOINPUT;
	for (size_t k = 0; k < l->fleet.n; k++) {
		const struct fleet_daemon *d = &l->fleet.daemons[k];

		if (d->answer != NULL || !wanted(l, d->name) || in_a_file(l, d))
			continue;
		fprintf(stderr, "saltctl logs: %s on %s: %s\n", d->name[0] != '\0' ? d->name : d->endpoint,
		    d->host[0] != '\0' ? d->host : "?",
		    d->gone ? "its process has ended, and it has no file in run.dir/logs" : "no answer");
		exit_code = exit_code != 0 ? exit_code : EX_UNAVAILABLE;
	}
	if (exit_code == 0 && l->n_files == 0 && l->fleet.n == 0) {
		fprintf(stderr, "saltctl logs: no files in %s and no daemon is announced; is the fleet up?\n", l->dir);
		exit_code = EX_UNAVAILABLE;
	}
	return exit_code;
}

static void
logs_free(struct logs *l)
{
	struct bus_ask *ask;
	struct remote *r;

	while (l->what != NULL && (ask = bus_asker_drop(l->what)) != NULL)
		free(ask->answer);		/* the ask itself is part of a struct remote */
	bus_asker_destroy(&l->what);
	while ((r = STAILQ_FIRST(&l->remotes)) != NULL) {
		STAILQ_REMOVE_HEAD(&l->remotes, next_remote);
		free(r);
	}
	for (size_t i = 0; i < l->n_files; i++) {
		if (l->files[i].fd >= 0)
			close(l->files[i].fd);
		free(l->files[i].part);
	}
	free(l->files);
	follow_clear(&l->out);
	fleet_close(&l->fleet);
}

static int
logs(struct ctl_args *args)
{
	struct logs l = {.args = args, .n_lines = 20, .out.json = ctl_has(args, "json"),
	    .remotes = STAILQ_HEAD_INITIALIZER(l.remotes)};
	bool follow = ctl_has(args, "follow");
	int exit_code, rc;

	if ((exit_code = ctl_get_u64(args, "lines", 0, 1000000, &l.n_lines)) != 0 ||
	    (exit_code = fleet_open(&l.fleet, args, "whose logs? give -c fleet.yaml")) != 0)
		goto out;
	snprintf(l.dir, sizeof(l.dir), "%s/logs", l.fleet.run_dir);
	if ((rc = bus_asker_new(&l.what, l.fleet.bus)) == 0 && (rc = look_once(&l)) == 0) {
		follow_print(&l.out);
		exit_code = missing(&l);
		if (follow)			/* daemons that are missing may start later */
			exit_code = 0;
	}
	while (rc == 0 && follow && !stop_requested() && !ferror(stdout)) {
		stop_sleep_ms(TURN_MS);
		if ((rc = look_again(&l)) == 0)
			follow_print(&l.out);
	}
	if (rc != 0)
		exit_code = ctl_fail(args, rc, &l.note);
out:
	logs_free(&l);
	return exit_code;
}

const struct ctl_verb ctl_logs = {
	.name = "logs", .operands = "[NAME ...]", .summary = "the log lines of a fleet's daemons, on every host, in the order of time",
	.about = "The last lines of all daemons, or of those named (teacherd: every teacherd-N), each with its\n"
	    "daemon before it; -f also prints new lines, those of daemons that join and of rotated files too.\n"
	    "The lines come from run.dir/logs if a supervisor writes there, else from the daemon, which keeps its\n"
	    "last 512 lines. Without -f, daemons that have no file and do not answer are named, and the exit code is\n"
	    "then 69.",
	.example = "saltctl logs -f teacherd trainerd -c fleet.yaml",
	.options = options, .max_operands = CTL_ANY, .run = logs,
};
