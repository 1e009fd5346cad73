/* SPDX-License-Identifier: Apache-2.0 */
/*
 * follow - merges the lines of many daemons: collects them, sorts them by time and prints each with the name
 * of its daemon. Shared by logs and events.
 */
#ifndef SALT_CTL_FOLLOW_H
#define SALT_CTL_FOLLOW_H

#include <stdbool.h>
#include <stddef.h>

struct follow_line {
	char name[64];			/* of the daemon */
	char ts[32];			/* timestamp of the line; if it has none, that of the line before */
	size_t number;			/* keeps the lines of one daemon in order */
	char *text;			/* without its newline */
};

struct follow {
	struct follow_line *lines;	/* not printed yet */
	size_t n, cap, n_all;
	size_t widest;			/* length of the longest name so far */
	bool json;
};

/*
 * follow_add - adds one line, len bytes of text. last_ts: last timestamp of its daemon, 32 bytes, "" at
 * first; updated by the call.
 * follow_print - prints all lines to standard output, earliest first. If a stop is requested while the reader
 * does not read, the rest is dropped.
 * follow_clear - frees the lines that were not printed.
 */
void follow_add(struct follow *f, const char *name, const char *text, size_t len, char last_ts[32]);
void follow_print(struct follow *f);
void follow_clear(struct follow *f);

/*
 * follow_wanted - whether name is one of the operands, or a rank of one ("trainerd" includes trainerd-0).
 * Without operands: true.
 */
bool follow_wanted(const char *name, const char *const *operands, size_t n);

#endif
