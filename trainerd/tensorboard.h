/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tensorboard - RUN/tb/events.out.tfevents.*, scalars for TensorBoard, written by rank 0. They are made from what
 * metrics.jsonl has and are never read back, so a failed write does not end a run.
 *
 * A file is a sequence of records: u64 length of the data, u32 masked crc32c of these 8 bytes, the data
 * (wire/tb_event.h), u32 masked crc32c of the data; little-endian; masked = (crc rotated right by 15) + 0xa282ead8.
 * Every start of a run writes a new file, whose name sorts after those of earlier starts. It begins with a version
 * and a purge mark: readers drop steps that an earlier start did after the checkpoint.
 */
#ifndef SALT_TENSORBOARD_H
#define SALT_TENSORBOARD_H

#include <stddef.h>
#include <stdint.h>

#include "base/err/err.h"

struct tb_scalar;
struct tensorboard;

/*
 * tensorboard_open - a new file in dir, which is created if needed. first_step: of the records to come. 0, ENOMEM or
 * errno and the note.
 */
int tensorboard_open(struct tensorboard **t, const char *dir, uint64_t first_step, struct err_note *note);
void tensorboard_close(struct tensorboard **t);		/* takes NULL */

/* tensorboard_write - one record, time of now. 0, ERR_RANGE (too many), errno: then nothing of it is in the file. */
int tensorboard_write(struct tensorboard *t, uint64_t step, const struct tb_scalar *scalars, size_t n);

#endif
