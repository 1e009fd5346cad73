/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_selectord - simulates one shard of selectord for a trainer, as a script for fake_bus: it sends
 * WELCOME, rows with their labels, and ACK. Labels are of kind topk (k = 2) or dense: the row number modulo
 * the vocabulary has probability 3/4, the next id 1/4. Every row is a separate message.
 */
#ifndef SALT_FAKE_SELECTORD_H
#define SALT_FAKE_SELECTORD_H

#include <stdatomic.h>

#include "data/corpus/corpus.h"
#include "data/labels/labels.h"
#include "fabric/wire/wire.h"
#include "replay/fake_bus.h"

/* Rows are given by their number in the plan; -1: none. The atomic members may change while the loop runs. */
struct fake_selectord {
	const struct corpus *corpus;
	struct hash128 fingerprint;
	uint32_t context, vocab, seed;
	uint64_t first_rows;			/* label_bytes counts the rows below this number */
	/* rows: in quarantine; with another sequence; with the label of other tokens */
	int64_t quarantined, other_seq, other_label;
	bool twice;				/* send every row twice */
	uint64_t other_teacher;			/* added to the hash of the label set's teacher */
	atomic_llong withheld;			/* a row that is not sent */
	atomic_int refuse;			/* > 0: refuse HELLO with this code */
	atomic_bool reconnect;			/* done once: the connection is lost and restored */
	atomic_llong skip_ms;			/* done once: advance the clock */
	/* what happened */
	atomic_int n_hello, n_requests, n_release;
	atomic_ullong checkpointed;
	uint64_t label_bytes;
	/* internal state */
	size_t seen;
	bool pushed;
	struct labels_spec spec;
};

enum fake_step fake_selectord_script(void *selectord, int step);	/* for fake_bus_reset */

#endif
