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

/* log_init - prog: name of the program, which is copied. Lines below level are dropped. */
void log_init(const char *prog, enum log_level level);

/*
 * log_quiet - as log_init, for a library: nothing is written to stderr. Lines from level info on are still
 * kept for log_answer, and log_tap works as usual.
 */
void log_quiet(const char *prog);

/* log_rank - adds rank=N to every line (trainerd); -1: no rank. */
void log_rank(int rank);

/*
 * log_event - writes one line. @event in dotted form (lease.expired); @fmt makes "key=value key=value", or is
 * "" for no fields. Pass values with spaces through log_quote.
 */
void log_event(enum log_level level, const char *event, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define log_debug(...) log_event(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...) log_event(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warn(...) log_event(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_error(...) log_event(LOG_LEVEL_ERROR, __VA_ARGS__)

/*
 * log_fatal - for a broken invariant: logs and ends the process with exit code 70. The only exit() in
 * common/.
 */
void log_fatal(const char *event, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));

/*
 * log_quote - writes text in quotes into buf, cut to size. Quotes and backslashes are escaped, other bytes
 * are treated as by log_escape. Returns buf.
 * log_escape - copies text[0 .. len) to out, at most size bytes with NUL, cut between characters. Control
 * characters, characters that reorder or break a line, and bytes that are not UTF-8 become \xNN, so that text
 * from a peer or a file cannot start a new log line or move a terminal's cursor. Returns the length.
 * log_event escapes every line.
 */
const char *log_quote(const char *text, char *buf, unsigned long size);
size_t log_escape(const char *text, size_t len, char *out, size_t size);

/*
 * log_limited - limits the rate of lines that a peer can cause at will. True for the first LOG_LIMIT_LINES in
 * LOG_LIMIT_S seconds; *left_out is then the number of lines left out since the last one, which the caller
 * logs as left_out=N. Any thread; use one static zeroed limit for each event.
 */
enum { LOG_LIMIT_LINES = 10, LOG_LIMIT_S = 10 };
struct log_limit {
	int64_t since_s;
	unsigned long n, left_out;
};
bool log_limited(struct log_limit *limit, unsigned long *left_out);

/*
 * log_tap - sets the function that is called for every line of any level, without its newline, before it is
 * written; NULL: none. fn is called under a lock, from any thread; it must not log or wait. Once log_tap has
 * returned, the previous fn is not running any more.
 */
typedef void log_tap_fn(void *arg, enum log_level level, const char *event, const char *line);
void log_tap(log_tap_fn *fn, void *arg);

/*
 * log_answer - answers a request for lines of the log over the status socket (recent.c). "log" asks for all
 * lines that are kept, "log N" for those from number N on. Lines are numbered from 0 in each process; the
 * last LOG_KEPT are kept. The answer is text:
 *   log pid=4711 first=17 next=42
 * and the lines 17 .. 41, each with its newline. If first > N, the lines between are no longer kept.
 * Returns true for such a request, with *answer malloc'ed (NULL without memory); false for any other request,
 * with nothing written.
 */
enum { LOG_KEPT = 512 };
bool log_answer(const void *body, size_t len, char **answer, size_t *answer_len);
void log__remember(const char *line, size_t len);	/* for log.c; line with its newline */

/* log_last_error - copies event and fields of the newest line of level warn or error, "" if there is none. */
void log_last_error(char *buf, unsigned long size);

#endif
