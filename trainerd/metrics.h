/*
 * metrics - RUN/metrics.jsonl, one JSON object a line, written by rank 0:
 *   {"kind":"step","step":N,...}  after N steps were done;  {"kind":"eval","step":N,...};  {"kind":"event","step":N,"event":"switch",...}
 * docs/formats.md lists the fields. Numbers have 17 digits: equal text is equal bits.
 */
#ifndef SALT_METRICS_H
#define SALT_METRICS_H

#include <stdint.h>

#include "base/err/err.h"

struct json;
struct metrics;

/*
 * metrics_open - append to path. Lines of steps after `step` and a half-written last line are cut off first (the run goes on from a
 * checkpoint of that step): what stays is copied to a temporary file, synced and renamed. step 0 of a new run: the file is emptied.
 */
int metrics_open(struct metrics **m, const char *path, uint64_t step, struct err_note *note);
void metrics_close(struct metrics **m);		/* takes NULL */

/* metrics_write - takes ownership of line (NULL: ENOMEM). 0, ENOMEM or errno. */
int metrics_write(struct metrics *m, struct json *line);

int metrics_sync(struct metrics *m);		/* fsync; 0 or errno */

#endif
