/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log - logfmt lines on stderr, one per event:
 *   ts=2026-01-31T12:00:00.123Z level=info prog=teacherd pid=4711 event=lease.done seqs=8 ms=93
 * Thread-safe; a line is one write(2). Lines longer than 4 KiB are cut and end with cut=1.
 */
#ifndef SALT_LOG_H
#define SALT_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

/* log_init - name of the program for prog=; lines below level are dropped. Keeps a copy of prog. */
void log_init(const char *prog, enum log_level level);

/*
 * log_quiet - as log_init, for a library: lines from level info on are kept and tapped, and nothing is
 * written to stderr.
 */
void log_quiet(const char *prog);

/* log_rank - adds rank=N to every line (trainerd); -1: no rank. */
void log_rank(int rank);

/*
 * log_event - @event in dotted form (lease.expired); @fmt makes "key=value key=value"; values with spaces go
 * through log_quote. fmt may be "" for none.
 */
void log_event(enum log_level level, const char *event, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define log_debug(...) log_event(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...) log_event(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warn(...) log_event(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_error(...) log_event(LOG_LEVEL_ERROR, __VA_ARGS__)

/* log_fatal - for a broken invariant: logs and ends the process with exit code 70. The only exit in common/. */
void log_fatal(const char *event, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));

/*
 * log_quote - "text" in quotes, with quotes and backslashes escaped, and bytes as log_escape does; into buf,
 * cut to size; returns buf.
 * log_escape - text[0 .. len) into out, at most size bytes with NUL, cut between characters. Control
 * characters, those that reorder a line or break it, and bytes that are no UTF-8 become \xNN: text from a
 * peer or a file cannot start a new line of a log or move a terminal's cursor. Returns the length. log_event
 * does it with every line.
 */
const char *log_quote(const char *text, char *buf, unsigned long size);
size_t log_escape(const char *text, size_t len, char *out, size_t size);

/*
 * log_limited - for lines that a peer can cause at will: true for the first LOG_LIMIT_LINES in LOG_LIMIT_S
 * seconds, with *left_out set to the lines that were not written before, which the caller writes as
 * left_out=N. Any thread; one static zeroed limit for each event.
 */
enum { LOG_LIMIT_LINES = 10, LOG_LIMIT_S = 10 };
struct log_limit {
	int64_t since_s;
	unsigned long n, left_out;
};
bool log_limited(struct log_limit *limit, unsigned long *left_out);

/*
 * log_tap - calls fn for every line of any level, without its newline, before it is written; NULL: none. fn
 * is called under a lock, from any thread; it must not log or wait. After log_tap returns, no earlier fn is
 * running.
 */
typedef void log_tap_fn(void *arg, enum log_level level, const char *event, const char *line);
void log_tap(log_tap_fn *fn, void *arg);

/*
 * log_answer - answers a request for lines of the log over the status socket (recent.c). "log" asks for all
 * lines that are kept, "log N" for those from number N on. Lines are numbered from 0 in each process; the
 * last LOG_KEPT are kept. The answer is text:
 *   log pid=4711 first=17 next=42
 * and the lines 17 .. 41, each with its newline. If first > N, the lines between are no longer kept.
 * True: it was such a request, and *answer is malloc'ed (NULL without memory). False: it was another request;
 * nothing changed.
 */
enum { LOG_KEPT = 512 };
bool log_answer(const void *body, size_t len, char **answer, size_t *answer_len);
void log__remember(const char *line, size_t len);	/* log.c's; with the newline */

/* log_last_error - copies event and fields of the newest line of level warn or error, "" if there is none. */
void log_last_error(char *buf, unsigned long size);

#endif
