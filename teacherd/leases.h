/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leases - the leases that this teacher holds, from LEASE to the last DONE. A result is kept and sent again
 * until selectord confirms it. Decides and sends; owns no poll and never waits. One thread.
 */
#ifndef SALT_TEACHERD_LEASES_H
#define SALT_TEACHERD_LEASES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/infer/infer.h"
#include "fabric/session/session.h"
#include "fabric/status/status.h"

struct leases;

/* leases_new - infer, session and status must outlive it. NULL: out of memory. leases_destroy takes NULL. */
struct leases *leases_new(struct infer *infer, struct session *session, struct status *status);
void leases_destroy(struct leases **leases);

/*
 * Handle messages of selectord. leases_welcome returns 0, or the error of infer_unigram for the table in
 * WELCOME.
 */
int leases_welcome(struct leases *l, size_t shard, bool restarted, struct err_note *note);
void leases_take(struct leases *l, size_t shard, const struct wire_lease *lease);
void leases_done(struct leases *l, size_t shard, const struct wire_done *done);

/*
 * leases_collect  sends the results that infer has finished
 * leases_turn     sends what is due to a welcomed shard: requests for leases, renewals, results without a
 *                 DONE
 * leases_leave    takes no new leases from now on; hands back those that are not computed
 */
void leases_collect(struct leases *l);
void leases_turn(struct leases *l, size_t shard);
void leases_leave(struct leases *l);
bool leases_empty(const struct leases *l);

/* Computed since the start. */
uint64_t leases_sequences(const struct leases *l);
uint64_t leases_tokens(const struct leases *l);

#endif
