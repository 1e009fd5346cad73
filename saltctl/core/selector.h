/* SPDX-License-Identifier: Apache-2.0 */
/* selector - a client's session with selectord, set up from fleet.yaml: for label and cache drop --write. */
#ifndef SALT_CTL_SELECTOR_H
#define SALT_CTL_SELECTOR_H

#include "fabric/bus/bus.h"
#include "fabric/session/session.h"
#include "saltctl/core/ctl.h"

struct config;
struct corpus;

/* Start with {0}; selector_close at the end in any case. */
struct selector {
	const struct ctl_args *args;
	struct corpus *train, *heldout;
	struct bus *bus;
	struct bus_poll *poll;
	struct session *session;
};

/*
 * selector_open - opens the corpora and connects to n shards, starting with shard number first (all of them:
 * first 0 and n the number of endpoints). plan_rows: opens the configuration's plan with this many rows, all
 * to be labelled now; 0: no plan. Stop signals are caught from here on. Returns 0, or an exit code after it
 * printed a message.
 */
int selector_open(struct selector *s, const struct ctl_args *args, const struct config *cfg, size_t first,
    size_t n, uint64_t plan_rows);
void selector_close(struct selector *s);

/*
 * selector_failed - returns 0, or for an event that ends the verb (key rejected, session failed) its exit
 * code, after it printed a message.
 */
int selector_failed(const struct selector *s, const struct session_event *event);

#endif
