/* SPDX-License-Identifier: Apache-2.0 */
/* systemd - messages to the service manager. The only file that includes libsystemd. */
#include "fabric/daemon/daemon.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "base/clock/clock.h"
#include "base/log/log.h"

#define TEXT_MAX 256
#define PARTS 4				/* WATCHDOG=1 is sent so many times within the allowed time */

static struct {
	pthread_mutex_t lock;
	bool off, failed, stopping;
	char status[TEXT_MAX];		/* as last sent */
	bool asked;			/* watchdog_s is set */
	double watchdog_s;		/* its first WATCHDOG_USEC; 0: none */
	double alive_s;			/* when WATCHDOG=1 was last sent, and at which progress */
	uint64_t alive_progress;
	double allowed_s;		/* the watchdog's time as last changed by daemon_notify_allow; 0:
					   never */
	bool extended;
	uint64_t extended_progress;
} state = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Lock held. */
static void
send_text(const char *text)
{
	int rc;

	if (state.off || (rc = sd_notify(0, text)) >= 0 || state.failed)
		return;
	state.failed = true;
	log_warn("notify", "why=\"%s\" hint=\"systemd receives no messages from this daemon\"", strerror(-rc));
}

/*
 * Sends first, which ends with a line feed or is "", and then STATUS=. Control bytes would begin another
 * assignment, so they become spaces.
 */
static void
send_status(const char *first, const char *fmt, va_list args)
{
	char text[TEXT_MAX], message[TEXT_MAX + 64];

	vsnprintf(text, sizeof(text), fmt, args);
	for (char *p = text; *p != '\0'; p++)
		if ((unsigned char)*p < ' ')
			*p = ' ';
	pthread_mutex_lock(&state.lock);
	if (first[0] == 'S' && state.stopping)
		first = "";
	state.stopping |= first[0] == 'S';
	if (first[0] != '\0' || strcmp(text, state.status) != 0) {
		memcpy(state.status, text, sizeof(text));
		snprintf(message, sizeof(message), "%sSTATUS=%s", first, text);
		send_text(message);
	}
	pthread_mutex_unlock(&state.lock);
}

void
daemon_notify_off(void)
{
	pthread_mutex_lock(&state.lock);
	state.off = true;
	pthread_mutex_unlock(&state.lock);
}

void
daemon_notify_ready(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	send_status("READY=1\n", fmt, args);
	va_end(args);
}

void
daemon_notify_status(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	send_status("", fmt, args);
	va_end(args);
}

void
daemon_notify_stopping(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	send_status("STOPPING=1\n", fmt, args);
	va_end(args);
}

/* The watchdog's first time in seconds, 0 without one. Lock held. */
static double
watchdog_s(void)
{
	uint64_t us;

	if (!state.asked && sd_watchdog_enabled(0, &us) > 0)
		state.watchdog_s = (double)us * 1e-6;
	state.asked = true;
	return state.watchdog_s;
}

void
daemon_notify_alive(uint64_t progress, bool busy)
{
	double now_s = clock_now_s();

	pthread_mutex_lock(&state.lock);
	if (watchdog_s() > 0 && now_s - state.alive_s >= state.watchdog_s / PARTS &&
	    (!busy || progress != state.alive_progress)) {
		state.alive_s = now_s;
		state.alive_progress = progress;
		send_text("WATCHDOG=1");
	}
	pthread_mutex_unlock(&state.lock);
}

void
daemon_notify_allow(double seconds, bool stopping, uint64_t progress)
{
	char text[64];
	double least_s, allow_s, was_s;

	pthread_mutex_lock(&state.lock);
	least_s = watchdog_s();
	allow_s = seconds > least_s ? seconds : least_s;
	was_s = state.allowed_s > 0 ? state.allowed_s : least_s;
	if (least_s > 0 && (allow_s > was_s * 1.25 || allow_s < was_s / 1.25)) {
		state.allowed_s = allow_s;
		snprintf(text, sizeof(text), "WATCHDOG_USEC=%.0f", allow_s * 1e6);
		send_text(text);
	}
	if (stopping && (!state.extended || progress != state.extended_progress)) {
		state.extended = true;
		state.extended_progress = progress;
		snprintf(text, sizeof(text), "EXTEND_TIMEOUT_USEC=%.0f", seconds * 1e6);
		send_text(text);
	}
	pthread_mutex_unlock(&state.lock);
}
