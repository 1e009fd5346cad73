/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096

static char log_prog[32] = "salt";
static atomic_int log_min = LOG_LEVEL_INFO;
static atomic_int log_rank_no = -1;
static atomic_int log_fd = STDERR_FILENO;	/* -1: none */
static pthread_mutex_t last_lock = PTHREAD_MUTEX_INITIALIZER;
static char last_error[512];
static pthread_mutex_t tap_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(log_tap_fn *) tap;		/* changed under tap_lock; read without it to see whether there is one */
static void *tap_arg;

void
log_init(const char *prog, enum log_level level)
{
	snprintf(log_prog, sizeof(log_prog), "%s", prog);
	log_min = (int)level;
}

void
log_quiet(const char *prog)
{
	log_init(prog, LOG_LEVEL_INFO);
	log_fd = -1;
}

void
log_rank(int rank)
{
	log_rank_no = rank;
}

static void
log_vevent(enum log_level level, const char *event, const char *fmt, va_list ap)
{
	static const char *const names[] = {"debug", "info", "warn", "error"};
	static const char cut[] = " cut=1";
	char line[LINE_MAX_BYTES], said[LINE_MAX_BYTES], rank[24] = "";
	struct timespec now;
	size_t head, n;
	struct tm tm;
	int len, more;

	if ((int)level < log_min && tap == NULL)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	if (log_rank_no >= 0)
		snprintf(rank, sizeof(rank), " rank=%d", log_rank_no);
	head = (size_t)snprintf(line, sizeof(line), "ts=%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ level=%s prog=%s pid=%d%s ",
	    tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, now.tv_nsec / 1000000,
	    names[level], log_prog, (int)getpid(), rank);
	len = snprintf(said, sizeof(said), "event=%.128s%s", event, fmt[0] ? " " : "");
	more = vsnprintf(said + len, sizeof(said) - (size_t)len, fmt, ap);
	len += more > 0 ? more : 0;
	n = len < LINE_MAX_BYTES ? (size_t)len : LINE_MAX_BYTES - 1;
	n = head + log_escape(said, n, line + head, sizeof(line) - head - sizeof(cut));
	if (len >= LINE_MAX_BYTES || n + sizeof(cut) + 4 >= sizeof(line)) {
		memcpy(line + n, cut, sizeof(cut) - 1);
		n += sizeof(cut) - 1;
	}
	line[n] = '\0';
	pthread_mutex_lock(&tap_lock);
	if (tap != NULL)
		tap(tap_arg, level, event, line);
	pthread_mutex_unlock(&tap_lock);
	if ((int)level < log_min)
		return;
	line[n++] = '\n';
	log__remember(line, n);
	if (level >= LOG_LEVEL_WARN) {
		pthread_mutex_lock(&last_lock);
		snprintf(last_error, sizeof(last_error), "%.*s", (int)(n - head - 1), line + head);
		pthread_mutex_unlock(&last_lock);
	}
	if (log_fd >= 0 && write(log_fd, line, n) < 0)
		return;			/* there is no other place to report it */
}

void
log_tap(log_tap_fn *fn, void *arg)
{
	pthread_mutex_lock(&tap_lock);
	tap = fn;
	tap_arg = arg;
	pthread_mutex_unlock(&tap_lock);
}

void
log_event(enum log_level level, const char *event, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vevent(level, event, fmt, ap);
	va_end(ap);
}

void
log_fatal(const char *event, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vevent(LOG_LEVEL_ERROR, event, fmt, ap);
	va_end(ap);
	exit(EX_SOFTWARE);
}

const char *
log_quote(const char *text, char *buf, unsigned long size)
{
	unsigned long n = 0;

	if (size < 3) {
		if (size > 0)
			buf[0] = '\0';
		return buf;
	}
	buf[n++] = '"';
	while (*text != '\0' && n + 6 < size) {
		size_t plain = strcspn(text, "\"\\");

		if (plain == 0) {
			buf[n++] = '\\';
			buf[n++] = *text++;
			continue;
		}
		n += log_escape(text, plain, buf + n, size - n - 2);
		text += plain;
	}
	buf[n++] = '"';
	buf[n] = '\0';
	return buf;
}

void
log_last_error(char *buf, unsigned long size)
{
	pthread_mutex_lock(&last_lock);
	snprintf(buf, size, "%s", last_error);
	pthread_mutex_unlock(&last_lock);
}
