/*
 * notify - what the service manager (systemd) hears of a daemon. The only room that knows libsystemd. Without NOTIFY_SOCKET in the
 * environment nothing is sent. One voice for each process; any thread. A failure is logged once and is nobody's business otherwise.
 */
#ifndef SALT_NOTIFY_H
#define SALT_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

/* notify_silence - this process says nothing from here on: a rank other than 0, which has the socket's address from mpirun. */
void notify_silence(void);

/* notify_ready - READY=1: requests are answered, steps are made. STATUS= with it, as notify_status. */
void notify_ready(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* notify_status - STATUS=, one line for `systemctl status`; cut at 255 bytes; the same text again is not sent. */
void notify_status(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* notify_stopping - STOPPING=1, once, with a STATUS=. */
void notify_stopping(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * notify_turn - a loop says at each turn that it turns, and how far the work is. WATCHDOG=1 goes out four times in the time the manager
 * allows (WATCHDOG_USEC), and only if @progress is another number than when it last went out, or there is no work in hand (@busy false).
 */
void notify_turn(uint64_t progress, bool busy);

/*
 * notify_allow - what is being done now may take so long in one piece: the manager's watchdog must not end it before (WATCHDOG_USEC=,
 * never less than what the manager began with), nor its time to stop (EXTEND_TIMEOUT_USEC=, when @stopping). Said again only when
 * it changes by a quarter, or the work went on since.
 */
void notify_allow(double seconds, bool stopping, uint64_t progress);

#endif
