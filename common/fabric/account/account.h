/* SPDX-License-Identifier: Apache-2.0 */
/*
 * account - what a teacher (teacherd, or one of the client library) has computed and used, on disk in the
 * run's folder, so that a report can count it after the teacher is gone: RUN/ledger/NAME-BOOT.json, one file
 * per process, replaced from time to time (docs/formats.md).
 */
#ifndef SALT_ACCOUNT_H
#define SALT_ACCOUNT_H

#include <stdint.h>

#include "base/err/err.h"
#include "base/hash/hash.h"

struct account {
	const char *run_dir, *name;
	struct hash128 boot_id;		/* that of HELLO */
	uint64_t sequences, tokens;
	double cpu_seconds;		/* of all worker threads together; of a library teacher: of the process */
	double up_seconds;		/* since the process started */
	int threads;
};

/*
 * account_write - replaces the file, not synced. 0, ENOMEM or errno. Without run_dir nothing is written: 0.
 */
int account_write(const struct account *a, struct err_note *note);

#endif
