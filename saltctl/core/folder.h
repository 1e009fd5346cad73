/* SPDX-License-Identifier: Apache-2.0 */
/*
 * folder - a new folder that appears complete or not at all: its files are written into FOLDER.PID.tmp beside
 * it, which is renamed at the end. Nothing is overwritten: where FOLDER exists it must be empty.
 *	struct ctl_folder f;
 *	if ((rc = ctl_folder_begin(&f, path, note)) != 0)	makes missing parents
 *		return rc;
 *	rc = write_files(f.temp);
 *	return ctl_folder_end(&f, rc, note);		renames and syncs; after an error (rc) removes what was written
 * Only plain files may be in it. Errors are errno codes, EEXIST among them, with the path in the note.
 */
#ifndef SALT_CTL_FOLDER_H
#define SALT_CTL_FOLDER_H

#include <stdbool.h>

#include "base/err/err.h"

struct ctl_folder {
	char path[4096], temp[4128];
};

/*
 * ctl_may_write - for a single file: 0 if path does not exist, is empty or no regular file, begins with `ours`, or
 * replace is set; else EEXIST. ours: how a file of this verb begins, which is made anew without asking.
 */
int ctl_may_write(const char *path, const char *ours, bool replace, struct err_note *note);

int ctl_folder_begin(struct ctl_folder *f, const char *path, struct err_note *note);
int ctl_folder_end(struct ctl_folder *f, int rc, struct err_note *note);

#endif
