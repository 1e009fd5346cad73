#include "fabric/daemon/notify.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "base/log/log.h"

#define TEXT_MAX 256
#define PARTS 4				/* WATCHDOG=1 so many times in the time that is allowed */

static struct {
	pthread_mutex_t lock;
	bool silent, failed, stopping;
	char status[TEXT_MAX];
	bool asked;			/* whether the manager watches */
	uint64_t watch_us;		/* WATCHDOG_USEC; 0: it does not */
	uint64_t alive_us, alive_progress;	/* when WATCHDOG=1 was sent, and with what */
	double allowed_s;		/* told by notify_allow */
	bool extended;
	uint64_t extended_progress;
} notify = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* Lock held. */
static void
notify__send(const char *text)
{
	int rc;

	if (notify.silent || (rc = sd_notify(0, text)) >= 0 || notify.failed)
		return;
	notify.failed = true;
	log_warn("notify", "why=\"%s\" hint=\"the service manager does not hear this daemon\"", strerror(-rc));
}

/* A line of text, without what would begin another assignment. */
static void
one_line(char text[TEXT_MAX], const char *fmt, va_list args)
{
	vsnprintf(text, TEXT_MAX, fmt, args);
	for (char *p = text; *p != '\0'; p++)
		if ((unsigned char)*p < ' ')
			*p = ' ';
}

/* STATUS= behind @first, which ends with a line feed or is "". Lock held. */
static void
notify__status(const char *first, const char *fmt, va_list args)
{
	char text[TEXT_MAX], message[TEXT_MAX + 64];

	one_line(text, fmt, args);
	if (first[0] == '\0' && strcmp(text, notify.status) == 0)
		return;
	memcpy(notify.status, text, sizeof(text));
	snprintf(message, sizeof(message), "%sSTATUS=%s", first, text);
	notify__send(message);
}

void
notify_silence(void)
{
	pthread_mutex_lock(&notify.lock);
	notify.silent = true;
	pthread_mutex_unlock(&notify.lock);
}

void
notify_ready(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	pthread_mutex_lock(&notify.lock);
	notify__status("READY=1\n", fmt, args);
	pthread_mutex_unlock(&notify.lock);
	va_end(args);
}

void
notify_status(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	pthread_mutex_lock(&notify.lock);
	notify__status("", fmt, args);
	pthread_mutex_unlock(&notify.lock);
	va_end(args);
}

void
notify_stopping(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	pthread_mutex_lock(&notify.lock);
	notify__status(notify.stopping ? "" : "STOPPING=1\n", fmt, args);
	notify.stopping = true;
	pthread_mutex_unlock(&notify.lock);
	va_end(args);
}

/* Does the manager watch? Lock held. */
static bool
notify__watched(void)
{
	if (!notify.asked && sd_watchdog_enabled(0, &notify.watch_us) <= 0)
		notify.watch_us = 0;
	notify.asked = true;
	return notify.watch_us > 0;
}

void
notify_turn(uint64_t progress, bool busy)
{
	uint64_t now = now_us();

	pthread_mutex_lock(&notify.lock);
	if (notify__watched() && now - notify.alive_us >= notify.watch_us / PARTS && (!busy || progress != notify.alive_progress)) {
		notify.alive_us = now;
		notify.alive_progress = progress;
		notify__send("WATCHDOG=1");
	}
	pthread_mutex_unlock(&notify.lock);
}

void
notify_allow(double seconds, bool stopping, uint64_t progress)
{
	double least_s;
	char text[64];

	pthread_mutex_lock(&notify.lock);
	least_s = notify__watched() ? (double)notify.watch_us * 1e-6 : 0;
	if (least_s > 0) {
		double allow_s = seconds > least_s ? seconds : least_s, told_s = notify.allowed_s > 0 ? notify.allowed_s : least_s;

		if (allow_s > told_s * 1.25 || allow_s < told_s / 1.25) {
			notify.allowed_s = allow_s;
			snprintf(text, sizeof(text), "WATCHDOG_USEC=%.0f", allow_s * 1e6);
			notify__send(text);
		}
	}
	if (stopping && (!notify.extended || progress != notify.extended_progress)) {
		notify.extended = true;
		notify.extended_progress = progress;
		snprintf(text, sizeof(text), "EXTEND_TIMEOUT_USEC=%.0f", seconds * 1e6);
		notify__send(text);
	}
	pthread_mutex_unlock(&notify.lock);
}
