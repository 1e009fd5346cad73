/* SPDX-License-Identifier: Apache-2.0 */
/*
 * follow - lines of many daemons as one stream: collected, sorted by time, printed with the daemon's name
 * before them. Shared by logs and events.
 */
#ifndef SALT_CTL_FOLLOW_H
#define SALT_CTL_FOLLOW_H

#include <stdbool.h>
#include <stddef.h>

struct follow_line {
	char name[64];			/* of the daemon */
	char ts[32];			/* as in the line; that of the line before where it has none */
	size_t number;			/* keeps the order of one daemon */
	char *text;			/* without its newline */
};

struct follow {
	struct follow_line *lines;	/* not printed yet */
	size_t n, cap, n_all;
	size_t widest;			/* name so far */
	bool json;
};

/*
 * follow_add - one line, len bytes of text. last_ts: of its daemon, 32 bytes, "" at first; updated here.
 * follow_print - all lines, earliest first, to standard output; when a stop is requested while nobody reads,
 * the rest is dropped. follow_clear frees what was not printed.
 */
void follow_add(struct follow *f, const char *name, const char *text, size_t len, char last_ts[32]);
void follow_print(struct follow *f);
void follow_clear(struct follow *f);

/* follow_wanted - whether name is one of the operands, or a rank of one ("trainerd" means trainerd-0 too).
 * No operands: true. */
bool follow_wanted(const char *name, const char *const *operands, size_t n);

#endif
