/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics - RUN/metrics.jsonl, one JSON object per line, written by rank 0:
 *   {"kind":"step","step":N,...}  after N steps were done;  {"kind":"eval","step":N,...};  {"kind":"event","step":N,"event":"switch",...}
 * docs/formats.md lists the fields. Numbers have 17 digits, so equal text means equal bits.
 */
#ifndef SALT_METRICS_H
#define SALT_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err/err.h"

struct json;
struct metrics;

/*
 * metrics_open - append to path. Lines of steps after `step` and a half-written last line are removed first, since
 * the run continues from a checkpoint of that step; the file is replaced atomically. Is more removed than a
 * restart explains, which is `usual` steps, or is step 0, because checkpoints were moved away or deleted,
 * then the former file is kept beside it under a name with the date (path.2026-11-28T120000Z) and a warning
 * says so.
 */
int metrics_open(struct metrics **m, const char *path, uint64_t step, uint64_t usual, struct err_note *note);
void metrics_close(struct metrics **m);		/* takes NULL */

/*
 * metrics_write - one line: kind, step, and the fields. Takes ownership of the values, of which none may be NULL for
 * a line to be written. 0, ENOMEM or errno.
 */
struct metrics_field {
	const char *name;
	struct json *value;
};
int metrics_write(struct metrics *m, const char *kind, uint64_t step, const struct metrics_field *fields, size_t n);

int metrics_sync(struct metrics *m);		/* fsync; 0 or errno */

#endif
