/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_selectord - one shard of selectord as a script for fake_bus: WELCOME, rows with their labels, ACK. Labels are of kind topk (k = 2) or
 * dense: the row's number modulo the vocabulary has probability 3/4, the next id 1/4. Every row is a message of its own.
 */
#ifndef SALT_FAKE_SELECTORD_H
#define SALT_FAKE_SELECTORD_H

#include <stdatomic.h>

#include "data/corpus/corpus.h"
#include "data/labels/labels.h"
#include "fabric/wire/wire.h"
#include "replay/fake_bus.h"

/* Rows by their number in the plan, -1: none. A test may change the atomic members while the loop runs. */
struct fake_selectord {
	const struct corpus *corpus;
	struct hash128 fingerprint;
	uint32_t context, vocab, seed;
	uint64_t first_rows;			/* label_bytes counts rows below it */
	int64_t quarantined, other_seq, other_label;
	bool twice;				/* every row comes two times */
	uint64_t other_teacher;			/* added to the hash of the label set's teacher */
	atomic_llong withheld;
	atomic_int refuse;			/* > 0: HELLO is refused with this code */
	atomic_bool reconnect;			/* once: the connection is lost and comes back */
	atomic_llong skip_ms;			/* once: the clock jumps */
	/* what happened */
	atomic_int n_hello, n_requests, n_release;
	atomic_ullong checkpointed;
	uint64_t label_bytes;
	/* its own */
	size_t seen;
	bool pushed;
	struct labels_spec spec;
};

enum fake_step fake_selectord_script(void *selectord, int step);	/* for fake_bus_reset */

#endif
