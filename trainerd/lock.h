/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lock - one trainer for each run.dir. Rank 0 holds a lock on RUN/run.lock, whose text names the holder:
 * "HOST PID DATE". The kernel releases the lock when the process ends, however that happens, so a leftover
 * file blocks nobody. The locks are those of fcntl(2), which work on NFS too.
 */
#ifndef SALT_LOCK_H
#define SALT_LOCK_H

#include <stdbool.h>

#include "base/err/err.h"

struct lock;

/*
 * lock_take - creates run_dir and locks it. If another trainer holds the lock, it may be about to end: waits
 * 5 s for one on this host, 100 s for one on another host (an NFS server keeps the locks of a lost client
 * that long). 0; ERR_AGAIN with host and pid of the other trainer; ERR_STOPPED; errno. On a file system
 * without locks it warns and returns 0.
 * lock_release takes NULL.
 */
int lock_take(struct lock **lock, const char *run_dir, struct err_note *note);
void lock_release(struct lock **lock);

/*
 * lock_check - call it before writing: checks that run_dir is still the folder that was locked. If it was
 * removed or replaced, it is created and locked again and *again is set; the caller then writes its files
 * again. Returns as lock_take.
 */
int lock_check(struct lock *lock, bool *again, struct err_note *note);

#endif
