/*
 * account - what this teacher has cost, on disk beside the run, so that a report can count it after the teacher is gone:
 * RUN/ledger/NAME-BOOT.json, one file per process, replaced as it goes (docs/formats.md).
 */
#ifndef SALT_ACCOUNT_H
#define SALT_ACCOUNT_H

#include <stdint.h>

#include "base/err/err.h"

struct account {
	const char *run_dir, *name;
	uint64_t sequences, tokens;
	double cpu_seconds;		/* of the worker threads, all together */
	double up_seconds;		/* since the process started */
	int threads;
};

/* account_write - temporary file, rename. Telemetry: not synced. 0, ENOMEM or errno. Nothing to do without run_dir: 0. */
int account_write(const struct account *a, struct err_note *note);

#endif
