/* SPDX-License-Identifier: Apache-2.0 */
/* Tests notify with a datagram socket: what is sent, what is not repeated, when the watchdog gets nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "base/log/log.h"
#include "fabric/daemon/daemon.h"

static int reader = -1;

/* The next message, or "": on this host a datagram has arrived when sd_notify returns. */
static const char *
heard(void)
{
	static char text[1024];
	ssize_t n = recv(reader, text, sizeof(text) - 1, MSG_DONTWAIT);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void
listen_at(const char *dir)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};

	snprintf(at.sun_path, sizeof(at.sun_path), "%s/notify", dir);
	reader = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CHECK(reader >= 0 && bind(reader, (struct sockaddr *)&at, sizeof(at)) == 0);
	setenv("NOTIFY_SOCKET", at.sun_path, 1);
}

/* With a watchdog interval of 4 us each call is due, so only missing progress prevents a message. */
static void
watched(void)
{
	setenv("WATCHDOG_USEC", "4", 1);
	daemon_notify_alive(0, true);
	CHECK_STR(heard(), "");				/* there is work, and no progress yet */
	daemon_notify_alive(0, false);
	CHECK_STR(heard(), "WATCHDOG=1");
	usleep(10);
	daemon_notify_alive(0, true);
	CHECK_STR(heard(), "");
	daemon_notify_alive(1, true);
	CHECK_STR(heard(), "WATCHDOG=1");
	usleep(10);
	daemon_notify_alive(1, true);
	CHECK_STR(heard(), "");
	daemon_notify_alive(1, false);
	CHECK_STR(heard(), "WATCHDOG=1");

	/* A longer allowance is announced; one that is shorter than the manager's own interval is not. */
	daemon_notify_allow(1e-6, false, 1);
	CHECK_STR(heard(), "");
	daemon_notify_allow(600, false, 1);
	CHECK_STR(heard(), "WATCHDOG_USEC=600000000");
	daemon_notify_allow(660, false, 2);
	CHECK_STR(heard(), "");
	daemon_notify_allow(60, false, 3);
	CHECK_STR(heard(), "WATCHDOG_USEC=60000000");
	daemon_notify_allow(1e-6, false, 4);
	CHECK_STR(heard(), "WATCHDOG_USEC=4");
}

/* With a watchdog interval of an hour nothing is due after the first message, whatever progress is made. */
static void
patient(void)
{
	setenv("WATCHDOG_USEC", "3600000000", 1);
	for (uint64_t i = 1; i < 100; i++)
		daemon_notify_alive(i, true);
	heard();
	CHECK_STR(heard(), "");
}

/* The watchdog of another process: the manager watches the process that started this one. */
static void
not_ours(void)
{
	setenv("WATCHDOG_USEC", "4", 1);
	setenv("WATCHDOG_PID", "1", 1);
	daemon_notify_alive(1, false);
	CHECK_STR(heard(), "");
}

static void
told(void)
{
	char long_text[400];

	daemon_notify_ready("step %d of %d", 3, 9);
	CHECK_STR(heard(), "READY=1\nSTATUS=step 3 of 9");
	daemon_notify_status("step 3 of 9");
	CHECK_STR(heard(), "");
	daemon_notify_status("step 4\nWATCHDOG=1");		/* a text cannot make an assignment */
	CHECK_STR(heard(), "STATUS=step 4 WATCHDOG=1");
	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	daemon_notify_status("%s", long_text);
	CHECK(strlen(heard()) == strlen("STATUS=") + 255);
	daemon_notify_alive(1, false);				/* without a watchdog */
	CHECK_STR(heard(), "");
	daemon_notify_stopping("leaving");
	CHECK_STR(heard(), "STOPPING=1\nSTATUS=leaving");
	daemon_notify_stopping("still leaving");
	CHECK_STR(heard(), "STATUS=still leaving");
	daemon_notify_allow(600, false, 1);
	CHECK_STR(heard(), "");
	daemon_notify_allow(600, true, 1);
	CHECK_STR(heard(), "EXTEND_TIMEOUT_USEC=600000000");
	daemon_notify_allow(600, true, 1);
	CHECK_STR(heard(), "");				/* without progress the time is not extended */
	daemon_notify_allow(60, true, 2);
	CHECK_STR(heard(), "EXTEND_TIMEOUT_USEC=60000000");
	daemon_notify_off();
	daemon_notify_ready("again");
	CHECK_STR(heard(), "");
}

static void
unheard(void)
{
	unsetenv("NOTIFY_SOCKET");
	daemon_notify_ready("nobody listens");
	CHECK_STR(heard(), "");
}

/* The state of notify is per process, so each test runs in a child process. */
static void
in_child(const char *what, void (*fn)(void))
{
	int status = -1;
	pid_t child = fork();

	if (child == 0) {
		check_count = check_failures = 0;
		fn();
		_exit(check_done());
	}
	CHECK_ROW(what, child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

int
main(void)
{
	char dir[] = "/tmp/salt_notify.XXXXXX", path[64];

	log_init("test", LOG_LEVEL_ERROR);
	REQUIRE(mkdtemp(dir) != NULL);
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
	listen_at(dir);
	in_child("told", told);
	in_child("watched", watched);
	in_child("patient", patient);
	in_child("not ours", not_ours);
	in_child("unheard", unheard);
	snprintf(path, sizeof(path), "%s/notify", dir);
	unlink(path);
	rmdir(dir);
	return check_done();
}
