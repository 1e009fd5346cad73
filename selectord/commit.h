/*
 * commit - the writer thread. Takes the core's records in order, groups them (commit_ms after the last group was begun, or when max_records are
 * there; then all there are, up to 4096), commits, says which number is on the disk. Nobody else writes the cache.
 *
 * A map that gets full is made larger. A full disk, or a map that cannot grow: the group stays in hand, is tried again every half second,
 * after the labels that are to be dropped, and nothing is acknowledged meanwhile. Any other failure is final: what is on the disk is not
 * known any more, the daemon must end (74).
 */
#ifndef SALT_SELECTORD_COMMIT_H
#define SALT_SELECTORD_COMMIT_H

#include <stddef.h>
#include <stdint.h>
#include "data/cache/cache.h"
#include "base/err/err.h"
#include "selectord/core.h"

struct commit;

/* commit_new - starts the thread. @wake is called (with wake_arg) from it after each commit and failure. 0, ENOMEM or errno. */
int commit_new(struct commit **out, struct cache *cache, uint32_t commit_ms, size_t max_records, void (*wake)(void *arg), void *wake_arg);

/* commit_destroy - ends the thread after what it has in hand is committed, or cannot be: then that is lost, and was never acknowledged. */
void commit_destroy(struct commit **commit);		/* takes NULL */

void commit_submit(struct commit *commit, struct core_op *op);	/* takes the op; numbers must grow by one */
uint64_t commit_durable(const struct commit *commit);	/* records up to this are on the disk */
int commit_waiting(const struct commit *commit);	/* ENOSPC, EDQUOT, ERR_FULL: no room, trying again; else 0 */
int commit_failed(const struct commit *commit);		/* 0, or why the daemon must end */
uint64_t commit_n_differed(const struct commit *commit);	/* records that were stored already, with other bytes */
uint64_t commit_n_commits(const struct commit *commit);
size_t commit_n_queued(struct commit *commit);

#endif
