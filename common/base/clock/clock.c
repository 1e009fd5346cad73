#include "bus/internal.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#include "log/log.h"

/* One set per process, for signals have no other place: the first signal, how often each came, the fd that ends waits. */
static atomic_int stop_signal, seen_term, seen_int;	/* written by the handler (lock-free), read by any thread */
static int stop_fd = -1;

int64_t
bus_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void
bus_sleep_ms(int64_t ms)
{
	int64_t end = bus_now_ms() + ms, left;

	while ((left = end - bus_now_ms()) > 0 && !bus_stop_requested()) {
		struct pollfd p = {.fd = stop_fd, .events = POLLIN};

		poll(&p, 1, left > 60000 ? 60000 : (int)left);	/* a negative fd is ignored */
	}
}

static struct hash128 boot_id;

static void
draw_boot_id(void)
{
	while ((boot_id.hi | boot_id.lo) == 0)
		if (getrandom(&boot_id, sizeof(boot_id), 0) != (ssize_t)sizeof(boot_id) && errno != EINTR)
			log_fatal("bus.boot_id", "error=\"no random bytes: %s\"", strerror(errno));
}

struct hash128
bus_boot_id(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, draw_boot_id);
	return boot_id;
}

static char host_name[65];

static void
ask_host(void)
{
	if (gethostname(host_name, sizeof(host_name) - 1) != 0 || host_name[0] == 0)
		strcpy(host_name, "localhost");
}

const char *
bus_host(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, ask_host);
	return host_name;
}

/* Only async-signal-safe calls. The fd stays readable: every poll of the process sees it. */
static void
on_signal(int sig)
{
	uint64_t one = 1;
	int saved = errno;

	if ((sig == SIGTERM && seen_term++ > 0) || (sig == SIGINT && seen_int++ > 0)) {
		signal(sig, SIG_DFL);
		raise(sig);		/* blocked until we return */
	}
	if (stop_signal == 0)
		stop_signal = sig;
	if (write(stop_fd, &one, sizeof(one)) < 0) {
		/* full counter: readable anyway */
	}
	errno = saved;
}

int
bus_stop_install(void)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	struct sigaction ignore = {.sa_handler = SIG_IGN};

	if (stop_fd < 0 && (stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
		return errno;
	sigemptyset(&sa.sa_mask);
	if (sigaction(SIGTERM, &sa, NULL) != 0 || sigaction(SIGINT, &sa, NULL) != 0 || sigaction(SIGUSR1, &sa, NULL) != 0
	    || sigaction(SIGPIPE, &ignore, NULL) != 0 || sigaction(SIGXFSZ, &ignore, NULL) != 0)
		return errno;
	return 0;
}

bool
bus_stop_requested(void)
{
	return stop_signal != 0;
}

int
bus_stop_signal(void)
{
	return stop_signal;
}

void
bus_stop_request(void)
{
	uint64_t one = 1;

	if (stop_signal == 0)
		stop_signal = SIGUSR1;
	if (stop_fd >= 0 && write(stop_fd, &one, sizeof(one)) < 0) {
		/* full counter: readable anyway */
	}
}

int
bus__stop_fd(void)
{
	return stop_fd;
}
