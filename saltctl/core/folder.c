/* SPDX-License-Identifier: Apache-2.0 */
#include "saltctl/core/folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file/file.h"

/* The first file in dir is reported (EEXIST), or all are removed. */
static int
visit(const char *dir, bool remove_all, struct err_note *note)
{
	char path[sizeof(((struct ctl_folder *)0)->temp) + 260];
	DIR *d = opendir(dir);
	struct dirent *e;
	int rc = 0;

	if (d == NULL)
		return errno == ENOENT ? 0 : err_note_set(note, errno == ENOTDIR ? EEXIST : errno, "%s", dir);
	while (rc == 0 && (e = readdir(d)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		if (remove_all)
			unlink(path);
		else
			rc = err_note_set(note, EEXIST, "%s", path);
	}
	closedir(d);
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
	snprintf(f->temp, sizeof(f->temp), "%s.%d.tmp", f->path, (int)getpid());
	if ((rc = visit(f->path, false, note)) != 0 || (rc = file_make_parents(f->path, note)) != 0)
		return rc;
	return mkdir(f->temp, 0777) != 0 ? err_note_set(note, errno, "%s", f->temp) : 0;
}

int
ctl_folder_end(struct ctl_folder *f, int rc, struct err_note *note)
{
	char *slash = strrchr(f->path, '/');

	if (rc == 0 && (rc = file_sync_dir(f->temp, note)) == 0 && rename(f->temp, f->path) != 0)
		rc = err_note_set(note, errno, "%s: rename to %s", f->temp, f->path);
	if (rc != 0) {
		visit(f->temp, true, NULL);
		rmdir(f->temp);
		return rc;
	}
	if (slash == NULL)
		return file_sync_dir(".", note);
	slash[slash == f->path] = '\0';
	return file_sync_dir(f->path, note);
}
