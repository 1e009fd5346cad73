/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err/crash.h"

#define PATH_BYTES sizeof(((struct file_replace *)0)->path)

/* The errno of a stdio call that failed. stdio sets none for some short writes to a full disk. */
static int
write_errno(void)
{
	return errno != 0 ? errno : ENOSPC;
}

static int
failed(struct err_note *note, int rc, const char *path, const char *step)
{
	err_note_set(note, rc, "%s", path);
	err_note_place(note, "%s", step);
	return rc;
}

int
file_read(const char *path, size_t max_bytes, char **data, size_t *len, struct err_note *note)
{
	size_t cap = 0, n = 0, got;
	char *p = NULL, *bigger;
	FILE *f = fopen(path, "rbe");
	struct stat st;
	int rc = 0;

	*data = NULL;
	*len = 0;
	if (f == NULL)
		return failed(note, errno, path, "open");
	cap = fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 ? (size_t)st.st_size + 1 : 4096;
	if (max_bytes > 0 && cap > max_bytes + 2)
		cap = max_bytes + 2;
	do {
		if (n + 1 >= cap)
			cap *= 2;
		if ((bigger = realloc(p, cap)) == NULL) {
			rc = failed(note, ENOMEM, path, "read");
			goto out;
		}
		p = bigger;
		errno = 0;
		n += got = fread(p + n, 1, cap - 1 - n, f);
		if (max_bytes > 0 && n > max_bytes) {
			err_note_set(note, ERR_RANGE, "%s", path);
			err_note_expected(note, "at most %zu bytes", max_bytes);
			err_note_found(note, "more");
			rc = ERR_RANGE;
			goto out;
		}
	} while (got > 0);
	if (ferror(f)) {
		rc = failed(note, errno != 0 ? errno : EIO, path, "read");
		goto out;
	}
	p[n] = '\0';
	*data = p;
	*len = n;
	p = NULL;
out:
	free(p);
	fclose(f);
	return rc;
}

int
file_pread(int fd, const char *path, uint64_t at, void *out, size_t n, struct err_note *note)
{
	size_t done = 0;
	ssize_t got;
	int rc;

	while (done < n) {
		if ((got = pread(fd, (char *)out + done, n - done, (off_t)(at + done))) > 0) {
			done += (size_t)got;
		} else if (got == 0) {
			return err_expect_at(note, ERR_CORRUPT, "%s", "byte %" PRIu64,
			    "more bytes, as when it was opened",
			    "the end of the file: it was cut short while in use", path, at + done);
		} else if (errno != EINTR) {
			rc = err_note_set(note, errno, "%s", path);
			err_note_place(note, "byte %" PRIu64, at + done);
			return rc;
		}
	}
	return 0;
}

int
file_write_all(int fd, const void *p, size_t n)
{
	const char *from = p;

	while (n > 0) {
		ssize_t put = write(fd, from, n);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return put < 0 ? errno : ENOSPC;
		from += put;
		n -= (size_t)put;
	}
	return 0;
}

/* Syncs the parent folder of path, so that a name just created in it survives a power cut. */
static int
sync_parent(const char *path, struct err_note *note)
{
	const char *slash = strrchr(path, '/');
	char parent[PATH_BYTES];

	snprintf(parent, sizeof(parent), "%.*s", slash == NULL || slash == path ? 1 : (int)(slash - path),
	    slash == NULL ? "." : path);
	return file_sync_dir(parent, note);
}

int
file_make_dirs(const char *path, mode_t mode, struct err_note *note)
{
	char part[PATH_BYTES];
	size_t n = strlen(path);
	struct stat st;
	int rc;

	if (n >= sizeof(part))
		return failed(note, ENAMETOOLONG, path, "make folder");
	memcpy(part, path, n + 1);
	for (size_t i = 1; i <= n; i++) {
		if (part[i] != '/' && part[i] != '\0')
			continue;
		part[i] = '\0';
		if (mkdir(part, mode) == 0) {
			crash_point("file.folder");
			if ((rc = sync_parent(part, note)) != 0 && rc != EACCES) /* not readable */
				return rc;
		} else {
			rc = errno;
			if (stat(part, &st) != 0)
				return failed(note, rc, part, "make folder");
			if (!S_ISDIR(st.st_mode))
				return err_expect_at(note, ENOTDIR, "%s", "make folder", "a folder", "a file", part);
		}
		part[i] = i < n ? '/' : '\0';
	}
	return 0;
}

int
file_make_parents(const char *path, struct err_note *note)
{
	const char *slash = strrchr(path, '/');
	char parent[PATH_BYTES];

	if (slash == NULL || slash == path)
		return 0;
	if ((size_t)(slash - path) >= sizeof(parent))
		return failed(note, ENAMETOOLONG, path, "make folder");
	memcpy(parent, path, (size_t)(slash - path));
	parent[slash - path] = '\0';
	return file_make_dirs(parent, 0777, note);
}

/*
 * Removes an entry of the open folder `at`. path, a buffer of PATH_BYTES, is its full path; its name within
 * the folder begins at path + name.
 */
static int
remove_entry(int at, char *path, size_t name, struct err_note *note)
{
	int fd = -1, rc = 0, below;
	size_t len = strlen(path);
	struct dirent *e;
	struct statx sx;
	DIR *d = NULL;

	if (unlinkat(at, path + name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return failed(note, errno, path, "remove");
	if ((fd = openat(at, path + name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0 ||
	    statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &sx) != 0)
		rc = failed(note, errno == ENOTDIR ? EPERM : errno, path, "remove");
	else if ((sx.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0)
		rc = failed(note, EBUSY, path, "remove: a mounted file system");
	else if (len + sizeof(e->d_name) + 2 >= PATH_BYTES)
		rc = failed(note, ENAMETOOLONG, path, "remove");
	else if ((d = fdopendir(fd)) == NULL)
		rc = failed(note, errno, path, "remove");
	if (d == NULL) {
		if (fd >= 0)
			close(fd);
		return rc;
	}
	path[len] = '/';
	while ((e = readdir(d)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		memcpy(path + len + 1, e->d_name, strlen(e->d_name) + 1);
		below = remove_entry(fd, path, len + 1, rc == 0 ? note : NULL);
		rc = rc == 0 ? below : rc;
	}
	path[len] = '\0';
	closedir(d);
	if (rc == 0 && unlinkat(at, path + name, AT_REMOVEDIR) != 0 && errno != ENOENT)
		rc = failed(note, errno, path, "remove");
	return rc;
}

int
file_remove_tree(const char *path, struct err_note *note)
{
	char whole[PATH_BYTES];
	size_t n = strlen(path);

	while (n > 1 && path[n - 1] == '/')		/* "LINK/" would follow the link */
		n--;
	if (n >= sizeof(whole))
		return failed(note, ENAMETOOLONG, path, "remove");
	memcpy(whole, path, n);
	whole[n] = '\0';
	return remove_entry(AT_FDCWD, whole, 0, note);
}

int
file_sync_dir(const char *dir, struct err_note *note)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return failed(note, errno, dir, "open to sync");
	if (fsync(fd) != 0)
		rc = failed(note, errno, dir, "sync folder");
	close(fd);
	return rc;
}

int
file_replaceable(const char *path, struct err_note *note)
{
	struct stat st;
	bool standard = strncmp(path, "/dev/fd/", 8) == 0 || strncmp(path, "/dev/std", 8) == 0;

	if (stat(path, &st) != 0 || (S_ISREG(st.st_mode) && !standard))
		return 0;
	return err_expect(note, EEXIST, "%s", "a regular file, or none", "%s", path,
	    S_ISDIR(st.st_mode)	     ? "a folder" :
		S_ISFIFO(st.st_mode) ? "a pipe" :
		S_ISSOCK(st.st_mode) ? "a socket" :
				       "a device");
}

int
file_replace_begin(struct file_replace *r, const char *path, struct err_note *note)
{
	int rc;

	r->f = NULL;
	if ((rc = file_replaceable(path, note)) != 0)
		return rc;
	if ((size_t)snprintf(r->temp, sizeof(r->temp), "%s.%ld.tmp", path, (long)getpid()) >= sizeof(r->temp))
		return failed(note, ENAMETOOLONG, path, "create");
	snprintf(r->path, sizeof(r->path), "%s", path);
	if ((rc = file_make_parents(path, note)) != 0)
		return rc;
	if ((r->f = fopen(r->temp, "wbe")) == NULL)
		return failed(note, errno, r->temp, "create");
	errno = 0;
	crash_point("file.begin");
	return 0;
}

void
file_replace_abort(struct file_replace *r)
{
	if (r->f == NULL)
		return;
	fclose(r->f);
	r->f = NULL;
	unlink(r->temp);
}

int
file_replace_end(struct file_replace *r, bool durable, struct err_note *note)
{
	const char *step = "write";
	int rc = 0;

	if (ferror(r->f) || fflush(r->f) != 0)
		rc = write_errno();
	else if (durable && fsync(fileno(r->f)) != 0) {
		rc = errno;
		step = "sync";
	}
	if (fclose(r->f) != 0 && rc == 0)
		rc = write_errno();
	r->f = NULL;
	crash_point("file.written");
	if (rc == 0 && rename(r->temp, r->path) != 0) {
		rc = errno;
		step = "rename";
	}
	if (rc != 0) {
		unlink(r->temp);
		return failed(note, rc, r->path, step);
	}
	crash_point("file.renamed");
	return durable ? sync_parent(r->path, note) : 0;
}

int
file_replace_all(const char *path, const void *data, size_t len, bool durable, struct err_note *note)
{
	struct file_replace r;
	int rc = file_replace_begin(&r, path, note);

	if (rc != 0)
		return rc;
	fwrite(data, 1, len, r.f);
	return file_replace_end(&r, durable, note);
}
