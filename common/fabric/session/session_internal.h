/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of session share. */
#ifndef SALT_SESSION_INTERNAL_H
#define SALT_SESSION_INTERNAL_H

#include "fabric/session/session.h"

/*
 * What a WELCOME must agree with. A session that states a plan stays with the label set and plan of its first
 * WELCOME.
 */
struct session__rules {
	const struct wire_hello *hello;
	size_t n_shards;
	bool all_shards;
	bool has_sets;			/* the two below are set, from the first WELCOME with a label set */
	struct hash128 label_set, plan;
	struct wire_id file;		/* mode file: of the options, else of the first WELCOME */
};

/* check.c */
int session__check_welcome(struct session__rules *rules, size_t shard, const struct wire_welcome *w,
    struct err_note *note);
/* returns the error that r means */
int session__refusal(const struct wire_refuse *r, const char *endpoint, struct err_note *note);

#endif
