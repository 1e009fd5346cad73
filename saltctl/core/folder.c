/* SPDX-License-Identifier: Apache-2.0 */
#include "saltctl/core/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err/crash.h"
#include "base/file/file.h"

/* EEXIST, with the name of the first file, unless dir is empty or missing. */
static int
expect_empty(const char *dir, struct err_note *note)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int rc = 0;

	if (d == NULL)
		return errno == ENOENT ? 0 : err_note_set(note, errno == ENOTDIR ? EEXIST : errno, "%s", dir);
	while (rc == 0 && (e = readdir(d)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		rc = err_expect(note, EEXIST, "%s",
		    "a folder that is new or empty, because nothing is overwritten", "%s in it", dir,
		    e->d_name);
	}
	closedir(d);
	return rc;
}

/* Whether text begins with `ours`, in which # stands for a whole number. */
static bool
begins_with(const char *text, const char *ours)
{
	for (; *ours != '\0'; ours++) {
		size_t n = *ours == '#' ? strspn(text, "0123456789") : *text == *ours;

		if (n == 0)
			return false;
		text += n;
	}
	return true;
}

int
ctl_may_write(const char *path, const char *ours, bool replace, struct err_note *note)
{
	char begins[256] = "";
	struct stat st;
	FILE *f;
	int rc;

	if (strcmp(path, "-") == 0)
		return err_expect(note, ERR_USAGE, "output",
		    "the name of a file (standard output has the result), such as ./-", "-");
	if ((rc = file_replaceable(path, note)) != 0)
		return rc;
	if (replace || stat(path, &st) != 0 || st.st_size == 0)
		return 0;
	if ((f = fopen(path, "re")) != NULL) {
		begins[fread(begins, 1, sizeof(begins) - 1, f)] = '\0';
		fclose(f);
		if (begins_with(begins, ours))
			return 0;
	}
	return err_expect(note, EEXIST, "%s", "no such file, or --replace", "another file", path);
}

static int
no_folder(const char *path, const char *found, struct err_note *note)
{
	return err_expect(
	    note, EEXIST, "%s", "the name of a new folder, or of an empty one", "%s", path, found);
}

/*
 * Finds what the rename at the end would fail on, after all the work. A link is replaced by the folder that it
 * leads to.
 */
static int
check_place(struct ctl_folder *f, struct err_note *note)
{
	const char *slash = strrchr(f->path, '/'), *base = slash != NULL ? slash + 1 : f->path;
	char real[PATH_MAX];
	struct statx sx;
	struct stat st;

	if (strcmp(base, ".") == 0 || strcmp(base, "..") == 0)
		return no_folder(f->path,
		    "a folder that other programs may be in; give its name, or a new one below it", note);
	if (lstat(f->path, &st) == 0 && S_ISLNK(st.st_mode)) {
		if (realpath(f->path, real) == NULL)
			return errno == ENOENT ? no_folder(f->path, "a link to nothing", note) :
						 err_note_set(note, errno, "%s", f->path);
		if (strlen(real) >= sizeof(f->path))
			return err_note_set(note, ENAMETOOLONG, "%s", f->path);
		snprintf(f->path, sizeof(f->path), "%s", real);
	}
	if (statx(AT_FDCWD, f->path, 0, STATX_TYPE, &sx) == 0 &&
	    (sx.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0)
		return no_folder(f->path, "a mount point; give a new folder below it", note);
	return 0;
}

/* What a stop signal removes; NULL: a free place. */
static const char *_Atomic unfinished[3];
#define N_UNFINISHED (sizeof(unfinished) / sizeof(unfinished[0]))

/* Removes a folder and the plain files in it, by async-signal-safe calls. Returns whether it is gone. */
static bool
remove_files(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), n_removed = 1;
	_Alignas(struct dirent64) char list[4096];

	/* Another thread may still create a file. Without progress it ends: there is a file that cannot be removed. */
	while (rmdir(dir) != 0 && fd >= 0 && n_removed > 0) {
		ssize_t n;

		n_removed = 0;
		lseek(fd, 0, SEEK_SET);
		while ((n = getdents64(fd, list, sizeof(list))) > 0)
			for (ssize_t at = 0; at < n; at += ((struct dirent64 *)(list + at))->d_reclen)
				n_removed += unlinkat(fd, ((struct dirent64 *)(list + at))->d_name, 0) == 0;
	}
	if (fd >= 0)
		close(fd);
	return access(dir, F_OK) != 0;
}

static void
on_stop(int sig)
{
	for (size_t i = 0; i < N_UNFINISHED; i++) {
		const char *path = unfinished[i];

		if (path != NULL && unlink(path) != 0)
			remove_files(path);
	}
	signal(sig, SIG_DFL);
	raise(sig);		/* blocked until we return */
}

void
ctl_stop_removes(const char *path)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
	struct sigaction now;
	size_t at = 0;

	while (at + 1 < N_UNFINISHED && unfinished[at] != NULL)
		at++;
	unfinished[at] = path;
	/* A signal that is ignored, as SIGHUP under nohup(1), stays ignored. */
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (sigaction(signals[i], NULL, &now) == 0 && now.sa_handler == SIG_DFL)
			signal(signals[i], on_stop);
}

void
ctl_stop_keeps(const char *path)
{
	for (size_t i = 0; i < N_UNFINISHED; i++)
		if (unfinished[i] == path)
			unfinished[i] = NULL;
}

/* One FOLDER.PID.tmp that is there already: it is being written, or was left by a process that was killed. */
static int
check_leftover(const struct ctl_folder *f, const char *temp, struct err_note *note)
{
	int fd = open(temp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc = 0;
	bool locked;

	if (fd < 0)
		return 0;
	locked = flock(fd, LOCK_EX | LOCK_NB) == 0;
	if (!locked && errno == EWOULDBLOCK)
		rc = err_expect(note, ERR_BUSY, "%s", "that no other command makes this folder",
		    "one that writes %s: wait for it", f->path, temp);
	else
		fprintf(stderr, "saltctl: %s was left by an interrupted command; %s\n", temp,
		    locked && remove_files(temp) ? "removed" : "it cannot be removed here: remove it if no command uses it");
	close(fd);
	return rc;
}

static int
check_leftovers(const struct ctl_folder *f, struct err_note *note)
{
	const char *slash = strrchr(f->path, '/'), *base = slash != NULL ? slash + 1 : f->path;
	char path[sizeof(f->temp) + NAME_MAX];
	size_t n = strlen(base);
	struct dirent *e;
	DIR *d;
	int rc = 0;

	snprintf(path, sizeof(path), "%.*s", slash != NULL ? (int)(slash - f->path) + 1 : 2, slash != NULL ? f->path : "./");
	if ((d = opendir(path)) == NULL)
		return 0;		/* mkdir reports it */
	while (rc == 0 && (e = readdir(d)) != NULL) {
		if (strncmp(e->d_name, base, n) != 0 || e->d_name[n] != '.' ||
		    strspn(e->d_name + n + 1, "0123456789") == 0 ||
		    strcmp(e->d_name + n + 1 + strspn(e->d_name + n + 1, "0123456789"), ".tmp") != 0)
			continue;
		snprintf(path, sizeof(path), "%.*s%s", (int)(base - f->path), f->path, e->d_name);
		rc = check_leftover(f, path, note);
	}
	closedir(d);
	return rc;
}

/*
 * Makes and locks f->temp. The lock on the folder around it keeps another command from taking it for a leftover
 * before it is locked; some network file systems have no lock on a folder.
 */
static int
make_temp(struct ctl_folder *f, struct err_note *note)
{
	char parent[sizeof(f->path)];
	int fd, rc;

	snprintf(parent, sizeof(parent), "%s", f->path);
	if ((fd = open(dirname(parent), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0)
		flock(fd, LOCK_EX);
	if ((rc = check_leftovers(f, note)) == 0) {
		ctl_stop_removes(f->temp);
		if (mkdir(f->temp, 0777) != 0) {
			rc = err_note_set(note, errno, "%s", f->temp);
			ctl_stop_keeps(f->temp);
		} else if ((f->lock = open(f->temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0) {
			flock(f->lock, LOCK_EX | LOCK_NB);
		}
	}
	if (fd >= 0)
		close(fd);
	return rc;
}

int
ctl_folder_begin(struct ctl_folder *f, const char *path, struct err_note *note)
{
	size_t n = strlen(path);
	int rc;

	while (n > 1 && path[n - 1] == '/')
		n--;
	if (n == 0 || n >= sizeof(f->path))
		return err_note_set(note, ENAMETOOLONG, "%.100s", path);
	snprintf(f->path, sizeof(f->path), "%.*s", (int)n, path);
	if ((rc = check_place(f, note)) != 0)
		return rc;
	snprintf(f->temp, sizeof(f->temp), "%s.%d.tmp", f->path, (int)getpid());
	if ((rc = expect_empty(f->path, note)) != 0 || (rc = file_make_parents(f->path, note)) != 0)
		return rc;
	return make_temp(f, note);
}

int
ctl_folder_end(struct ctl_folder *f, int rc, struct err_note *note)
{
	char *slash = strrchr(f->path, '/');

	crash_point("folder.filled");
	if (rc == 0)
		rc = file_sync_dir(f->temp, note);
	if (rc == 0 && rename(f->temp, f->path) != 0)
		rc = err_note_set(note, errno, "%s: rename to %s", f->temp, f->path);
	if (rc != 0)
		file_remove_tree(f->temp, NULL);
	ctl_stop_keeps(f->temp);
	if (f->lock >= 0)
		close(f->lock);
	if (rc != 0)
		return rc;
	crash_point("folder.renamed");
	if (slash == NULL)
		return file_sync_dir(".", note);
	slash[slash == f->path] = '\0';
	return file_sync_dir(f->path, note);
}
