/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commit - the writer thread, the only writer of the cache. It takes the core's records in order and commits
 * them in groups. A group is begun commit_ms after the last one, or when max_records are queued, and holds
 * all queued records, up to 4096. commit_state() tells which record is on the disk.
 *
 * A map that becomes full is enlarged. When the disk is full or the map cannot grow, the group stays in
 * memory and is retried every half second, after dropping the labels that are queued to be dropped; nothing
 * is acknowledged meanwhile. After any other failure the state on the disk is unknown and the daemon must
 * end (exit code 74).
 */
#ifndef SALT_SELECTORD_COMMIT_H
#define SALT_SELECTORD_COMMIT_H

#include <stddef.h>
#include <stdint.h>
#include "data/cache/cache.h"
#include "base/err/err.h"
#include "selectord/core.h"

struct commit;

/*
 * commit_new - starts the thread. @wake is called (with wake_arg) from it after each commit and failure. 0,
 * ENOMEM or errno.
 */
int commit_new(struct commit **out, struct cache *cache, uint32_t commit_ms, size_t max_records, void (*wake)(void *arg), void *wake_arg);

/*
 * commit_destroy - ends the thread after a last attempt to commit what is queued. What cannot be committed
 * was never acknowledged.
 */
void commit_destroy(struct commit **commit);		/* takes NULL */

void commit_submit(struct commit *commit, struct core_op *op);	/* takes ownership; numbers must grow by
								   one */
struct commit_state {
	uint64_t durable;		/* records up to this number are on the disk */
	uint64_t n_differed;		/* records that differed from the stored one; the stored one stays */
	uint64_t n_commits;
	int waiting;			/* ENOSPC, EDQUOT, ERR_FULL: waiting for space; else 0 */
	int failed;			/* 0, or why the daemon must end */
};
struct commit_state commit_state(const struct commit *commit);

#endif
