/* SPDX-License-Identifier: Apache-2.0 */
/*
 * saltfleet-supervise - runs one daemon and restarts it when it fails. deploy/README.md says why it is not a script.
 *
 * Files in RUN/daemons: NAME.lock is locked as long as the supervisor or the daemon lives; NAME.supervisor "pid started restarts"; NAME.pid
 * the daemon's pid; NAME.exit "code word" at the end (done, failed, gave_up, stopped). All output goes to RUN/logs/NAME.log.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "base/clock/clock.h"
#include "base/file/file.h"
#include "base/log/log.h"

#define PROGRAM "saltfleet-supervise"
#define STOP_WAIT_MS 20000		/* from the stop signal to KILL */
#define REPEAT_MS 1000			/* between two stop signals */
#define BACKOFF_MAX_S 30
#define GOOD_MS 60000			/* after so long a daemon's next failure is a first one */
#define RESTARTS_LIMIT 1000
#define REST_MS 5000			/* for processes that were killed to end */

static const char usage[] =
	"usage: " PROGRAM " NAME RUN [options] -- COMMAND [ARG ...]\n"
	"       " PROGRAM " --list\n\n"
	"Runs one daemon and restarts it when it fails, after 1, 2, 4 .. 30 s (1 s again once it has run for a minute). Gives up after\n"
	"--restarts within --within seconds. Does not restart after exit code 0 (done) nor after a code that stands for a permanent error.\n"
	"TERM to the supervisor: the stop signal to the daemon, KILL after 20 s, no restart.\n\n"
	"  --stop SIGNAL     TERM (default) or USR1, which is repeated every second, because a launcher loses it while it starts\n"
	"  --restarts N      10\n"
	"  --within SECONDS  600\n"
	"  --launcher        COMMAND is a launcher such as mpirun: if it ends before any of its processes has logged a line or announced\n"
	"                    itself, it cannot start at all, which is a permanent error too\n"
	"  --from FILE       the fleet.yaml that this daemon was started for; shown by --list\n"
	"  --detach          return when the daemon's place is taken, and go on in a session of its own\n"
	"  --list            all supervisors of this machine, a line each: pid, NAME, RUN, FILE, with tabs between them\n";

static struct {
	const char *name, *run;
	char at[4200], log[4200];	/* RUN/daemons/NAME, RUN/logs/NAME.log */
	int stop_signal, lock, signals;	/* signals: signalfd */
	pid_t child;
	bool stopping;
} s = {.stop_signal = SIGTERM};

/* ---- files ---- */

static const char *
path_of(const char *suffix)
{
	static char path[4300];

	snprintf(path, sizeof(path), "%s.%s", s.at, suffix);
	return path;
}

/* Was run.dir removed under us? Then nothing is written, and nothing restarted: a trainer would begin again at step 0. */
static bool
removed(void)
{
	struct stat ours, there;

	return fstat(s.lock, &ours) == 0 && (stat(path_of("lock"), &there) != 0 || ours.st_ino != there.st_ino || ours.st_dev != there.st_dev);
}

/* A whole file or none. */
static void __attribute__((format(printf, 2, 3)))
put(const char *suffix, const char *fmt, ...)
{
	struct err_note note = {.name = ""};
	char text[200], why[1024];
	va_list ap;
	int rc;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!removed() && (rc = file_replace_all(path_of(suffix), text, strlen(text), false, &note)) != 0)
		log_warn("file", "name=%s why=\"%s\"", s.name, err_note_str(&note, rc, why, sizeof(why)));
}

static int
fail(int code, const char *what)
{
	fprintf(stderr, PROGRAM ": %s: %s\n", what, strerror(errno));
	return code;
}

/* Folders, the log and the lock, before anything is detached: who starts us sees why not. */
static int
open_files(int *log)
{
	struct err_note note = {.name = ""};
	char why[1024];
	int rc;

	snprintf(s.at, sizeof(s.at), "%s/daemons/%s", s.run, s.name);
	snprintf(s.log, sizeof(s.log), "%s/logs/%s.log", s.run, s.name);
	if ((rc = file_make_parents(s.at, &note)) != 0 || (rc = file_make_parents(s.log, &note)) != 0) {
		fprintf(stderr, PROGRAM ": %s\n", err_note_str(&note, rc, why, sizeof(why)));
		return EX_CANTCREAT;
	}
	if ((*log = open(s.log, O_WRONLY | O_APPEND | O_CREAT, 0666)) < 0)
		return fail(EX_CANTCREAT, s.log);
	/* The daemon inherits the locked file: no second one can start under this name while it runs. */
	if ((s.lock = open(path_of("lock"), O_RDWR | O_APPEND | O_CREAT, 0666)) < 0)
		return fail(EX_CANTCREAT, path_of("lock"));
	/* A daemon whose supervisor was killed is about to end: its death signal was sent. */
	for (int tries = 0; flock(s.lock, LOCK_EX | LOCK_NB) != 0; tries++) {
		if ((errno != EWOULDBLOCK && errno != EINTR) || tries * 100 > STOP_WAIT_MS + REST_MS) {
			fprintf(stderr, PROGRAM ": another %s runs in %s\n", s.name, s.run);
			return EX_TEMPFAIL;
		}
		usleep(100000);
	}
	return 0;
}

/* ---- the daemon ---- */

static void
start(char **command)
{
	sigset_t none;
	pid_t us = getpid();

	if ((s.child = fork()) != 0)
		return;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* The daemon goes when the supervisor goes, however that happens. */
	if (prctl(PR_SET_PDEATHSIG, s.stop_signal) != 0 || getppid() != us)
		_exit(EX_TEMPFAIL);
	execvp(command[0], command);
	fprintf(stderr, "%s: %s\n", command[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* What the daemon left running: ranks of an mpirun that was killed. A restart must not meet them. We are their parent now. */
static void
end_rest(void)
{
	char path[64];
	int64_t until = clock_now_ms() + REST_MS;
	long pid;
	pid_t got;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%ld/children", (long)getpid());
	while ((got = waitpid(-1, NULL, WNOHANG)) >= 0 && clock_now_ms() < until) {
		if (got > 0 || (f = fopen(path, "re")) == NULL)
			continue;
		while (fscanf(f, "%ld", &pid) == 1 && kill((pid_t)pid, SIGKILL) == 0)
			log_warn("daemon.left", "name=%s pid=%ld why=\"it outlived the daemon that started it\"", s.name, pid);
		fclose(f);
		usleep(20000);
	}
}

/* Waits for a request to stop until the time has passed. */
static void
wait_stop(int timeout_ms)
{
	struct signalfd_siginfo info;
	struct pollfd p = {.fd = s.signals, .events = POLLIN};

	if (poll(&p, 1, timeout_ms) > 0 && read(s.signals, &info, sizeof(info)) > 0)
		s.stopping = true;
}

/*
 * Waits for the daemon's end. When stopping: the signal, then KILL. Returns its exit code, 128 + signal if it died by one; EX_TEMPFAIL, as of a
 * trainer that was stopped, if it died by USR1: mpirun does before it handles signals, and again once its ranks have ended.
 */
static int
await(void)
{
	struct pollfd p[2] = {{.fd = s.signals, .events = POLLIN}, {.fd = pidfd_open(s.child, 0), .events = POLLIN}};
	int64_t kill_ms = INT64_MAX, again_ms = INT64_MAX, now_ms, due_ms;
	int status = EX_OSERR << 8;

	while (p[1].fd >= 0) {		/* no child, no pidfd: waitpid fails, too */
		now_ms = clock_now_ms();
		if (s.stopping && kill_ms == INT64_MAX) {
			log_info("daemon.stop", "name=%s signal=%s child=%ld", s.name, sigabbrev_np(s.stop_signal), (long)s.child);
			kill_ms = now_ms + STOP_WAIT_MS;
			again_ms = now_ms;
		}
		if (now_ms >= again_ms) {
			pidfd_send_signal(p[1].fd, s.stop_signal, NULL, 0);
			/* A second TERM or INT asks a daemon to end at once. */
			again_ms = s.stop_signal == SIGUSR1 ? now_ms + REPEAT_MS : INT64_MAX;
		}
		if (now_ms >= kill_ms) {
			log_warn("daemon.kill", "name=%s child=%ld why=\"no end within %d s\"", s.name, (long)s.child, STOP_WAIT_MS / 1000);
			pidfd_send_signal(p[1].fd, SIGKILL, NULL, 0);
			kill_ms = now_ms + STOP_WAIT_MS;
		}
		due_ms = kill_ms < again_ms ? kill_ms : again_ms;
		if (poll(p, 2, due_ms == INT64_MAX ? -1 : (int)(due_ms - now_ms)) < 0)
			continue;
		if (p[1].revents != 0)
			break;
		if (p[0].revents != 0)
			wait_stop(0);
	}
	while (waitpid(s.child, &status, 0) < 0 && errno == EINTR)
		;
	close(p[1].fd);
	end_rest();
	wait_stop(0);			/* a request that came with the daemon's end */
	if (s.stopping && s.stop_signal == SIGUSR1 && WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1)
		return EX_TEMPFAIL;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Has a process of the launcher announced itself, or logged a line since the log had so many bytes? */
static bool
has_started(off_t log_bytes)
{
	bool found = access(path_of("json"), F_OK) == 0;
	char path[4300], *line = NULL;
	size_t cap = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s-0.json", s.at);		/* rank 0 */
	found = found || access(path, F_OK) == 0;
	if ((f = fopen(s.log, "re")) == NULL)
		return found;
	fseeko(f, log_bytes, SEEK_SET);
	while (!found && getline(&line, &cap, f) > 0)
		found = strstr(line, " prog=") != NULL && strstr(line, " prog=supervise ") == NULL;
	free(line);
	fclose(f);
	return found;
}

static int
finish(int code, const char *word)
{
	if (!removed()) {
		unlink(path_of("pid"));
		put("exit", "%d %s\n", code, word);
		unlink(path_of("supervisor"));
	}
	return code;
}

static int
supervise(char **command, unsigned restarts_max, unsigned within_s, bool reached)
{
	int64_t ends_ms[RESTARTS_LIMIT], born_ms, ran_ms;
	long started = (long)time(NULL);
	int backoff_s = 1, code;
	struct stat st;

	unlink(path_of("exit"));
	for (unsigned restarts = 0;; restarts++) {
		put("supervisor", "%ld %ld %u\n", (long)getpid(), started, restarts);
		born_ms = clock_now_ms();
		st.st_size = 0;
		stat(s.log, &st);
		start(command);
		put("pid", "%ld\n", (long)s.child);
		log_info("daemon.start", "name=%s child=%ld restarts=%u", s.name, (long)s.child, restarts);
		code = await();
		ran_ms = clock_now_ms() - born_ms;
		log_info("daemon.exit", "name=%s child=%ld code=%d ran_s=%lld", s.name, (long)s.child, code, (long long)ran_ms / 1000);
		if (s.stopping)
			return finish(code, "stopped");
		reached = reached || has_started(st.st_size);
		switch (code) {
		case 0:
			return finish(0, "done");
		case EX_USAGE: case EX_DATAERR: case EX_NOINPUT: case EX_CANTCREAT: case EX_NOPERM: case EX_CONFIG: case 126: case 127:
			log_error("daemon.failed", "name=%s code=%d why=\"permanent error, no restart; the lines above give the reason\"", s.name, code);
			return finish(code, "failed");
		}
		if (!reached && code != 128 + SIGHUP && code != 128 + SIGINT && code != 128 + SIGKILL && code != 128 + SIGTERM) {
			log_error("launcher.failed", "name=%s code=%d why=\"it ended before it had started any process, no restart; "
			    "its own message is above\"", s.name, code);
			return finish(code, "failed");
		}
		if (removed()) {
			log_error("run.removed", "name=%s code=%d why=\"run.dir was removed, no restart\"", s.name, code);
			return code;
		}
		/* The slot has the end of restarts_max ends ago. */
		if (restarts >= restarts_max && (restarts_max == 0 || born_ms + ran_ms - ends_ms[restarts % restarts_max] < (int64_t)within_s * 1000)) {
			log_error("daemon.given_up", "name=%s code=%d restarts=%u within_s=%u", s.name, code, restarts, within_s);
			return finish(code, "gave_up");
		}
		ends_ms[restarts % restarts_max] = born_ms + ran_ms;
		if (ran_ms >= GOOD_MS)
			backoff_s = 1;
		log_warn("daemon.restart", "name=%s code=%d in_s=%d restart=%u", s.name, code, backoff_s, restarts + 1);
		wait_stop(backoff_s * 1000);
		if (s.stopping)
			return finish(EX_TEMPFAIL, "stopped");
		backoff_s = backoff_s * 2 < BACKOFF_MAX_S ? backoff_s * 2 : BACKOFF_MAX_S;
	}
}

/* ---- the list ---- */

/* Does process pid see the files that we see? A container's run.dir is another one under the same path. */
static bool
same_files(const char *pid)
{
	char path[300], ours[64], its[64];
	ssize_t n = readlink("/proc/self/ns/mnt", ours, sizeof(ours)), m;

	snprintf(path, sizeof(path), "/proc/%s/ns/mnt", pid);
	m = readlink(path, its, sizeof(its));
	return n < 0 || m < 0 || (n == m && memcmp(ours, its, (size_t)n) == 0);		/* < 0: another user's */
}

/* The arguments of process pid, if it is a supervisor: its NAME, RUN and --from. */
static void
list_one(const char *pid)
{
	char path[300], text[20000], *arg[3] = {"", "", ""}, *from = "";
	size_t n, k = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/cmdline", pid);
	if ((f = fopen(path, "re")) == NULL)
		return;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	for (char *p = text; p < text + n && strcmp(p, "--") != 0; p += strlen(p) + 1, k++) {
		if (k < 3)
			arg[k] = p;
		else if (strcmp(p, "--from") == 0 && p + strlen(p) + 1 < text + n)
			from = p + strlen(p) + 1;
	}
	if (k >= 3 && strcmp(strrchr(arg[0], '/') != NULL ? strrchr(arg[0], '/') + 1 : arg[0], PROGRAM) == 0 && same_files(pid))
		printf("%s\t%s\t%s\t%s\n", pid, arg[1], arg[2], from);
}

static int
list(void)
{
	DIR *d = opendir("/proc");
	struct dirent *e;

	if (d == NULL)
		return fail(EX_OSERR, "/proc");
	while ((e = readdir(d)) != NULL)
		if (e->d_name[0] >= '1' && e->d_name[0] <= '9')
			list_one(e->d_name);
	closedir(d);
	return fflush(stdout) == 0 ? 0 : EX_IOERR;
}

/* ---- start ---- */

static int
wrong(const char *what)
{
	fprintf(stderr, PROGRAM ": %s\n%s", what, usage);
	return EX_USAGE;
}

/* Whether text is a whole number from lo to hi, nothing else; it goes to *out. */
static bool
number(const char *text, unsigned lo, unsigned hi, unsigned *out)
{
	char *end;
	unsigned long v;

	errno = 0;
	v = strtoul(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || v < lo || v > hi)
		return false;
	*out = (unsigned)v;
	return true;
}

int
main(int argc, char **argv)
{
	char what[200];
	unsigned restarts_max = 10, within_s = 600;
	bool launcher = false, detach = false;
	int log, null, code, at = 3;
	sigset_t stops;

	if (argc == 2 && strcmp(argv[1], "--list") == 0)
		return list();
	if (argc == 2 && strcmp(argv[1], "--help") == 0)
		return fputs(usage, stdout) < 0;
	if (argc == 2 && strcmp(argv[1], "--version") == 0)
		return printf(PROGRAM " " SALT_VERSION "\n") < 0;
	if (argc < 5 || argv[1][0] == '\0' || argv[1][0] == '-' || argv[2][0] == '\0' || strchr(argv[1], '/') != NULL)
		return wrong("expected NAME, RUN and a command");
	s.name = argv[1];
	s.run = argv[2];
	for (; at < argc && strcmp(argv[at], "--") != 0; at++) {
		const char *option = argv[at], *value = argv[at + 1] != NULL ? argv[at + 1] : "";

		if (strcmp(option, "--launcher") == 0)
			launcher = true;
		else if (strcmp(option, "--detach") == 0)
			detach = true;
		else if (strcmp(option, "--stop") == 0 && (strcmp(value, "TERM") == 0 || strcmp(value, "USR1") == 0))
			s.stop_signal = argv[++at][0] == 'U' ? SIGUSR1 : SIGTERM;
		else if (strcmp(option, "--restarts") == 0 &&
		    number(value, 0, RESTARTS_LIMIT - 1, &restarts_max))
			at++;
		else if (strcmp(option, "--within") == 0 && number(value, 1, INT32_MAX, &within_s))
			at++;
		else if (strcmp(option, "--from") == 0)
			at++;			/* for list_one */
		else {
			const char *expected = strcmp(option, "--stop") == 0 ? "TERM or USR1" :
			    strcmp(option, "--restarts") == 0		     ? "a whole number below 1000" :
			    strcmp(option, "--within") == 0 ? "a whole number of seconds, at least 1" :
							      NULL;

			if (expected == NULL)
				snprintf(what, sizeof(what), "unknown option %.80s", option);
			else
				snprintf(what, sizeof(what), "%s: expected %s, found \"%.80s\"", option,
				    expected, value);
			return wrong(what);
		}
	}
	if (at + 1 >= argc)
		return wrong("expected -- and a command");
	if ((code = open_files(&log)) != 0)
		return code;
	if (detach && (s.child = fork()) != 0)
		return s.child > 0 ? 0 : fail(EX_OSERR, "fork");
	if (detach)
		setsid();		/* ^C and a closed terminal do not reach the daemons */
	if ((null = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
		return fail(EX_OSERR, "/dev/null");
	close(log);
	log_init("supervise", LOG_LEVEL_INFO);
	sigemptyset(&stops);
	sigaddset(&stops, SIGTERM);
	sigaddset(&stops, SIGINT);
	sigaddset(&stops, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &stops, NULL) != 0 || (s.signals = signalfd(-1, &stops, SFD_CLOEXEC | SFD_NONBLOCK)) < 0 ||
	    prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) {
		log_error("supervise", "name=%s why=\"%s\"", s.name, strerror(errno));
		return EX_OSERR;
	}
	return supervise(argv + at + 1, restarts_max, within_s, !launcher);
}
