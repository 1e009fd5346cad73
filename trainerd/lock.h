/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lock - one trainer for each run.dir. Rank 0 holds a lock on RUN/run.lock, which says who: "HOST PID DATE".
 * The kernel releases it when the process ends, however that happens, so a file that is left over stops
 * nobody. Locks are fcntl(2)'s, which NFS has too.
 */
#ifndef SALT_LOCK_H
#define SALT_LOCK_H

#include <stdbool.h>

#include "base/err/err.h"

struct lock;

/*
 * lock_take - makes run_dir and locks it. A trainer that holds the lock may be about to end: it is waited
 * for, 5 s on this host, 100 s on another one (an NFS server keeps the locks of a lost client for so long).
 * 0; ERR_AGAIN with host and pid of the other; ERR_STOPPED; errno. On a file system without locks it warns
 * and returns 0.
 * lock_release takes NULL.
 */
int lock_take(struct lock **lock, const char *run_dir, struct err_note *note);
void lock_release(struct lock **lock);

/*
 * lock_check - before something is written: is run_dir still the folder that was locked? If it was removed or
 * replaced, it is made and locked again and *again is set; the caller writes what belongs there. Otherwise as
 * lock_take.
 */
int lock_check(struct lock *lock, bool *again, struct err_note *note);

#endif
