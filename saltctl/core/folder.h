/* SPDX-License-Identifier: Apache-2.0 */
/*
 * folder - creates a folder that appears complete or not at all: its files are written into FOLDER.PID.tmp
 * beside it, which is renamed at the end. Nothing is overwritten: a FOLDER that exists must be empty. A link
 * stands for the folder that it leads to; a mount point, "." and ".." cannot be renamed over and are EEXIST.
 *	struct ctl_folder f;
 *	if ((rc = ctl_folder_begin(&f, path, note)) != 0)	makes missing parents
 *		return rc;
 *	rc = write_files(f.temp);
 *	return ctl_folder_end(&f, rc, note);		renames and syncs; if rc is not 0 removes the files
 * It may contain only plain files. Errors are errno codes, EEXIST among them, with the path in the note.
 *
 * If the process gets SIGTERM, SIGINT or SIGHUP between begin and end, it removes the files and ends. SIGKILL
 * leaves them; the next ctl_folder_begin of the same FOLDER removes and reports them. The writer holds a lock on
 * FOLDER.PID.tmp: while it is held, another ctl_folder_begin of FOLDER fails with ERR_BUSY. A process makes one
 * folder at a time.
 */
#ifndef SALT_CTL_FOLDER_H
#define SALT_CTL_FOLDER_H

#include <stdbool.h>

#include "base/err/err.h"

struct ctl_folder {
	char path[4096], temp[4128];
	int lock;			/* fd of temp, locked; -1 if it could not be opened */
};

/*
 * ctl_may_write - whether a verb may write the single file path. Returns 0 if it does not exist, is empty or
 * begins with `ours`, or if replace is set; else EEXIST. ours: the first bytes of every file that the verb
 * writes, because such a file may be replaced without --replace; a # in it stands for a whole number. With
 * --replace too, "-" is refused (ERR_USAGE), and so is what file_replaceable refuses (EEXIST).
 */
int ctl_may_write(const char *path, const char *ours, bool replace, struct err_note *note);

/*
 * ctl_stop_removes - from now on SIGTERM, SIGINT and SIGHUP remove path, a file or a folder of plain files, before
 * they end the process. At most three paths at a time; path must remain valid until ctl_stop_keeps(path).
 * ctl_folder_begin and _end call these for their folder.
 */
void ctl_stop_removes(const char *path);
void ctl_stop_keeps(const char *path);

int ctl_folder_begin(struct ctl_folder *f, const char *path, struct err_note *note);
int ctl_folder_end(struct ctl_folder *f, int rc, struct err_note *note);

#endif
