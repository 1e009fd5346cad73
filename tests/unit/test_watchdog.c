/* SPDX-License-Identifier: Apache-2.0 */
/* The watchdog ends a process without progress, but not one that was stopped and continued. */
#include "trainerd/watchdog.h"

#include <signal.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock/clock.h"
#include "base/log/log.h"
#include "check.h"

#define LIMIT_S 2

/* Exits with 0 after it was stopped for longer than the limit and the watchdog had time to act. */
static void
stopped(void)
{
	struct watchdog *w = watchdog_limit("the test", LIMIT_S);
	double before = clock_now_s(), now;

	for (;; before = now) {
		usleep(10000);
		if ((now = clock_now_s()) - before > LIMIT_S)
			break;
	}
	usleep(300000);
	watchdog_destroy(&w);
	_exit(0);
}

static int
end_of(pid_t pid)
{
	int status = 0;

	REQUIRE(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int
main(void)
{
	pid_t held, idle;

	log_init("test", LOG_LEVEL_ERROR);
	if ((held = fork()) == 0)
		stopped();
	if ((idle = fork()) == 0) {
		watchdog_limit("the test", LIMIT_S);
		pause();
	}
	REQUIRE(held > 0 && idle > 0);
	usleep(300000);
	kill(held, SIGSTOP);
	CHECK(end_of(idle) == EX_TEMPFAIL);		/* more than the limit has passed */
	usleep(500000);
	kill(held, SIGCONT);
	CHECK(end_of(held) == 0);
	return check_done();
}
