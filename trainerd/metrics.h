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
 * metrics_open - opens path for appending. Lines of steps after `step` and a half-written last line are
 * removed first, because the run continues from a checkpoint of that step; the file is replaced atomically.
 * If more steps are removed than a restart explains (`usual`), or any when step is 0, because checkpoints
 * were moved away or deleted, the former file is kept under a name with the date (path.2026-11-28T120000Z),
 * with a warning.
 */
int metrics_open(struct metrics **m, const char *path, uint64_t step, uint64_t usual, struct err_note *note);
void metrics_close(struct metrics **m);		/* takes NULL */

/*
 * metrics_write - writes one line: kind, step, and the fields. Takes ownership of the values; if one is NULL,
 * no line is written. 0, ENOMEM or errno.
 */
struct metrics_field {
	const char *name;
	struct json *value;
};
int metrics_write(struct metrics *m, const char *kind, uint64_t step, const struct metrics_field *fields, size_t n);

int metrics_sync(struct metrics *m);		/* fsync; 0 or errno */

#endif
