/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock/stop.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/clock/clock.h"

/* The first signal, and how often SIGTERM and SIGINT arrived. fd is an eventfd that ends waits. */
static atomic_int first_signal, seen_term, seen_int;	/* written by the handler (lock-free), read by any thread */
static int fd = -1;

void
stop_sleep_ms(int64_t ms)
{
	int64_t end = clock_now_ms() + ms, left;

	while ((left = end - clock_now_ms()) > 0 && !stop_requested()) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		poll(&p, 1, left > 60000 ? 60000 : (int)left);	/* a negative fd is ignored */
	}
}

/* Makes only async-signal-safe calls. fd stays readable, so every poll of the process returns. */
static void
on_signal(int sig)
{
	uint64_t one = 1;
	int saved = errno;

	if ((sig == SIGTERM && seen_term++ > 0) || (sig == SIGINT && seen_int++ > 0)) {
		signal(sig, SIG_DFL);
		raise(sig);		/* blocked until we return */
	}
	if (first_signal == 0)
		first_signal = sig;
	if (write(fd, &one, sizeof(one)) < 0) {
		/* the counter is full, so fd is readable */
	}
	errno = saved;
}

int
stop_install(void)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	struct sigaction ignore = {.sa_handler = SIG_IGN}, hup;

	if (fd < 0 && (fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
		return errno;
	sigemptyset(&sa.sa_mask);
	if (sigaction(SIGTERM, &sa, NULL) != 0 || sigaction(SIGINT, &sa, NULL) != 0 || sigaction(SIGUSR1, &sa, NULL) != 0
	    || sigaction(SIGPIPE, &ignore, NULL) != 0 || sigaction(SIGXFSZ, &ignore, NULL) != 0 || sigaction(SIGHUP, NULL, &hup) != 0)
		return errno;
	/* nohup(1) lets SIGHUP be ignored; it stays so. */
	return hup.sa_handler != SIG_IGN && sigaction(SIGHUP, &sa, NULL) != 0 ? errno : 0;
}

bool
stop_requested(void)
{
	return first_signal != 0;
}

int
stop_signal(void)
{
	return first_signal;
}

void
stop_request(void)
{
	uint64_t one = 1;

	if (first_signal == 0)
		first_signal = SIGUSR1;
	if (fd >= 0 && write(fd, &one, sizeof(one)) < 0) {
		/* the counter is full, so fd is readable */
	}
}

int
stop_fd(void)
{
	return fd;
}
