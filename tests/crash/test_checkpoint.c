/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints with SIGKILL at each named step, with a failure of every write, sync and rename in turn, and on
 * a full disk: the previous checkpoint stays intact, and the new one is complete or does not exist.
 *
 * This program defines write, fsync, rename and mkdir itself (the static libraries link to them): the n-th of
 * all these calls fails.
 */
#include "crash/save.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/err/crash.h"
#include "check.h"

static long fail_at;		/* 0: never */
static int fail_errno;
static long n_calls;
static int armed;

static int
fails(void)
{
	if (!armed || ++n_calls != fail_at)
		return 0;
	errno = fail_errno;
	return 1;
}

ssize_t
write(int fd, const void *p, size_t n)
{
	return fails() ? -1 : syscall(SYS_write, fd, p, n);
}

static char synced[64][600];	/* synced paths in order, and "rename" for a rename */
static unsigned n_synced;

int
fsync(int fd)
{
	char link[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (armed && n_synced < 64 && (n = readlink(link, synced[n_synced], sizeof(synced[0]) - 1)) > 0)
		synced[n_synced++][n] = '\0';
	return fails() ? -1 : (int)syscall(SYS_fsync, fd);
}

int
rename(const char *from, const char *to)
{
	if (armed && n_synced < 64)
		strcpy(synced[n_synced++], "rename");
	return fails() ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int
mkdir(const char *path, mode_t mode)
{
	return fails() ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

static char root[512];

static bool
good(uint64_t step)
{
	char path[600];

	snprintf(path, sizeof(path), "%s/step_%08d", root, (int)step);
	return save_good(path, step);
}

static unsigned
temps(void)
{
	DIR *d = opendir(root);
	struct dirent *e;
	unsigned n = 0;

	REQUIRE(d != NULL);
	while ((e = readdir(d)) != NULL)
		n += strstr(e->d_name, ".tmp") != NULL;
	closedir(d);
	return n;
}

static void
fresh(void)
{
	char command[640];

	snprintf(command, sizeof(command), "rm -rf '%s'/*", root);
	REQUIRE(system(command) == 0);
	REQUIRE(save_all(root, 1, 2, NULL) == 0 && good(1));
}

/* The step from which a trainer would resume. */
static uint64_t
latest(void)
{
	struct checkpoint_info info;

	return checkpoint_find_latest(root, CHECKPOINT_HASHES, &info, NULL) == 0 ? info.step : 0;
}

static void
killed(void)
{
	static const struct {
		const char *point;
		bool after;		/* the new checkpoint exists */
	} rows[] = {
		{"checkpoint.begin", false}, {"checkpoint.optim", false}, {"checkpoint.optim:2", false}, {"checkpoint.model", false},
		{"checkpoint.state", false}, {"checkpoint.manifest", false}, {"checkpoint.sync", false}, {"checkpoint.rename", false},
		{"checkpoint.parent", true},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int status;
		size_t n;
		pid_t pid;

		fresh();
		if ((pid = fork()) == 0) {
			setenv("SALT_CRASH_AT", rows[i].point, 1);
			_exit(save_all(root, 2, 2, NULL) == 0 ? 0 : 1);
		}
		REQUIRE(pid > 0 && waitpid(pid, &status, 0) == pid);
		CHECK_ROW(rows[i].point, WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		CHECK_ROW(rows[i].point, good(1));
		CHECK_ROW(rows[i].point, good(2) == rows[i].after);
		CHECK_ROW(rows[i].point, latest() == (rows[i].after ? 2 : 1));
		CHECK_ROW(rows[i].point, temps() == (rows[i].after ? 0 : 1));
		/* the next save removes leftovers itself, or they are cleaned before */
		if (i % 2 == 0) {
			CHECK_ROW(rows[i].point, checkpoint_clean(root, &n, NULL) == 0 && n == (rows[i].after ? 0 : 1));
			CHECK_ROW(rows[i].point, temps() == 0);
		}
		CHECK_ROW(rows[i].point, save_all(root, 2, 1, NULL) == (rows[i].after ? ERR_EXISTS : 0));
		CHECK_ROW(rows[i].point, latest() == 2 && good(1) && temps() == 0);
	}
}

static void
killed_while_pruning(void)
{
	static const char *const points[] = {"checkpoint.prune", "checkpoint.pruned"};

	for (size_t i = 0; i < 2; i++) {
		int status;
		pid_t pid;

		fresh();
		REQUIRE(save_all(root, 2, 1, NULL) == 0 && save_all(root, 3, 1, NULL) == 0);
		if ((pid = fork()) == 0) {
			setenv("SALT_CRASH_AT", points[i], 1);
			_exit(checkpoint_prune(root, 1, NULL, 0, NULL, NULL) == 0 ? 0 : 1);
		}
		REQUIRE(pid > 0 && waitpid(pid, &status, 0) == pid);
		CHECK_ROW(points[i], WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		CHECK_ROW(points[i], latest() == 3 && good(3) && good(2) && !good(1));
		CHECK_ROW(points[i], checkpoint_prune(root, 1, NULL, 0, NULL, NULL) == 0 && good(3) && !good(2));
	}
}

/* Each call of a save fails once, with this error. The loop ends with a save that makes fewer calls. */
static void
every_call_fails(int error)
{
	unsigned n_failed = 0;
	bool done = false;
	long at;

	fresh();
	for (at = 1; at < 1000 && !done; at++) {
		struct err_note note = {0};
		int rc;

		fail_at = at;
		fail_errno = error;
		n_calls = 0;
		armed = 1;
		rc = save_all(root, 2, 2, &note);
		armed = 0;
		done = n_calls < at;
		if (done) {
			CHECK(rc == 0);
			break;
		}
		n_failed++;
		/* 0: mkdir of an existing folder */
		CHECK(rc == error || rc == EEXIST || (rc == 0 && good(2)));
		CHECK(rc == 0 || (note.name[0] != '\0' && note.place[0] != '\0'));
		CHECK(good(1) && temps() == 0);
		if (good(2)) {			/* only if the sync of ROOT after the rename failed */
			char command[640];

			CHECK_STR(note.place, rc != 0 ? "sync folder" : "");
			CHECK(latest() == 2);
			snprintf(command, sizeof(command), "rm -rf '%s'/step_00000002", root);
			REQUIRE(system(command) == 0);
		} else {
			CHECK(latest() == 1);
		}
	}
	fprintf(stderr, "%s: %u calls made to fail\n", strerror(error), n_failed);
	CHECK(done && n_failed > 20 && good(2));
}

/*
 * A kill cannot show a missing fsync, because the page cache survives it. So the order of calls is checked:
 * each file, the manifest, the directory, the rename, ROOT.
 */
static void
order_of_syncs(void)
{
	char path[600], real[4096];
	struct dirent *e;
	unsigned n_files = 0;
	DIR *d;

	fresh();
	REQUIRE(realpath(root, real) != NULL);
	n_synced = 0;
	fail_at = 0;
	armed = 1;
	CHECK(save_all(root, 2, 2, NULL) == 0);
	armed = 0;
	REQUIRE(n_synced >= 4);
	CHECK_STR(synced[n_synced - 1], real);
	CHECK_STR(synced[n_synced - 2], "rename");
	snprintf(path, sizeof(path), "%.500s/step_00000002.tmp", real);
	CHECK_STR(synced[n_synced - 3], path);
	snprintf(path, sizeof(path), "%.500s/step_00000002.tmp/MANIFEST.json", real);
	CHECK_STR(synced[n_synced - 4], path);
	snprintf(path, sizeof(path), "%.500s/step_00000002", real);
	REQUIRE((d = opendir(path)) != NULL);
	while ((e = readdir(d)) != NULL) {
		bool found = false;

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%.300s/step_00000002.tmp/%s", real, e->d_name);
		for (unsigned i = 0; i < n_synced && !found; i++)
			found = strcmp(synced[i], path) == 0;
		CHECK_ROW(e->d_name, found);
		n_files++;
	}
	closedir(d);
	CHECK(n_files >= 7 && n_synced == n_files + 3);
}

/* Runs in a child: with a small tmpfs if a mount namespace is permitted, else with a limit on file sizes. */
static int
full_disk(const char *mount_point)
{
	struct err_note note = {0};
	bool mounted = unshare(CLONE_NEWNS) == 0 || unshare(CLONE_NEWNS | CLONE_NEWUSER) == 0;
	int rc;

	mounted = mounted && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	    mount("tmpfs", mount_point, "tmpfs", 0, "size=192k") == 0;
	fprintf(stderr, "full disk by %s\n", mounted ? "a tmpfs of 192 KiB" : "RLIMIT_FSIZE");
	snprintf(root, sizeof(root), "%.400s/c", mount_point);
	if (save_all(root, 1, 2, &note) != 0 || !good(1))
		return 2;
	/* a save needs 68 KiB: there is space for two, but not for three */
	if (mounted) {
		rc = save_all(root, 2, 2, &note);
		if (rc != 0 || (rc = save_all(root, 3, 2, &note)) != ENOSPC)
			return 3;
	} else {
		struct rlimit limit = {10000, 10000};

		signal(SIGXFSZ, SIG_IGN);
		if (setrlimit(RLIMIT_FSIZE, &limit) != 0 || save_all(root, 3, 1, &note) != EFBIG)
			return 4;
	}
	if (strstr(note.place, "write at byte") == NULL && strstr(note.place, "create") == NULL && strstr(note.place, "make") == NULL)
		return 5;
	if (!good(1) || (mounted && !good(2)) || temps() != 0 || latest() != (mounted ? 2u : 1u))
		return 6;
	return 0;
}

int
main(void)
{
	const char *tmp = getenv("TMPDIR");
	char base[128], command[640];
	int status;
	pid_t pid;

	snprintf(base, sizeof(base), "%.90s/crash.XXXXXX", tmp != NULL ? tmp : "/tmp");
	REQUIRE(mkdtemp(base) != NULL);
	snprintf(root, sizeof(root), "%s/checkpoints", base);
	REQUIRE(mkdir(root, 0777) == 0);
	if (CRASH_POINTS) {
		killed();
		killed_while_pruning();
	}
	order_of_syncs();
	every_call_fails(EIO);
	every_call_fails(ENOSPC);
	snprintf(command, sizeof(command), "%s/full", base);
	REQUIRE(mkdir(command, 0777) == 0);
	if ((pid = fork()) == 0)
		_exit(full_disk(command));
	REQUIRE(pid > 0 && waitpid(pid, &status, 0) == pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fprintf(stderr, "full disk: status %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	snprintf(command, sizeof(command), "rm -rf '%s'", base);
	CHECK(system(command) == 0);
	return check_done();
}
