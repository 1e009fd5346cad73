/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: a request to the exporter, sent over loopback. The exporter answers with a status line or closes the
 * connection, and answers the next plain request. It serves with its own thread, as in production.
 */
#include "saltctl/watch/exporter.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include "fuzz.h"

static struct exporter_http *http;
static struct sockaddr_in at = {.sin_family = AF_INET};

static void
finish(void)
{
	exporter_http_destroy(&http);
	exporter_http_destroy(&http);		/* NULL now */
}

static void
start(void)
{
	struct err_note note = {0};
	struct sigaction timer;

	/* libFuzzer's timer must not interrupt connect, send and recv */
	FUZZ_CHECK(sigaction(SIGALRM, NULL, &timer) == 0);
	timer.sa_flags |= SA_RESTART;
	FUZZ_CHECK(sigaction(SIGALRM, &timer, NULL) == 0);
	FUZZ_CHECK(exporter_http_new(&http, "127.0.0.1:0", &note) == 0);
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	at.sin_port = htons((uint16_t)atoi(strrchr(exporter_http_url(http), ':') + 1));
	exporter_http_put(http, EXPORTER_METRICS, strdup("m 1\n"));
	atexit(finish);
}

/*
 * Makes a connection, sends all bytes, shuts down sending and reads the answer. Returns the length of the
 * answer; buf gets its beginning.
 */
static size_t
ask(const void *bytes, size_t len, char buf[512])
{
	static uint32_t n_asked;
	/* thousands of connections a second use up the ports of one address */
	struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + n_asked++ % 0xfffff0)};
	char more[4096];
	size_t n = 0, sent = 0;
	ssize_t got;
	int fd;

	FUZZ_CHECK((fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
	FUZZ_CHECK(bind(fd, (struct sockaddr *)&from, sizeof(from)) == 0);
	FUZZ_CHECK(connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0);
	while (sent < len && (got = send(fd, (const char *)bytes + sent, len - sent, MSG_NOSIGNAL)) > 0)
		sent += (size_t)got;
	shutdown(fd, SHUT_WR);
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		int ready;

		while ((ready = poll(&p, 1, 10000)) < 0 && errno == EINTR)	/* poll is not restarted */
			;
		FUZZ_CHECK(ready == 1);		/* it answers or closes; 10 s is a hang */
		if ((got = recv(fd, more, sizeof(more), 0)) <= 0)
			break;
		for (ssize_t i = 0; i < got && n + (size_t)i < 511; i++)
			buf[n + (size_t)i] = more[i];
		n += (size_t)got;
	}
	close(fd);
	buf[n < 511 ? n : 511] = '\0';
	return n;
}

/* Silent connections do not block a client with a request: the one that has been silent longest is closed. */
static void
ask_among_silent(const char *bytes, size_t len, char buf[512])
{
	int fds[40];

	for (size_t i = 0; i < 40; i++) {
		FUZZ_CHECK((fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
		FUZZ_CHECK(connect(fds[i], (struct sockaddr *)&at, sizeof(at)) == 0);
	}
	FUZZ_CHECK(ask(bytes, len, buf) > 0 || fuzz_faults);
	for (size_t i = 0; i < 40; i++)
		close(fds[i]);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char plain[] = "GET /metrics HTTP/1.0\r\n\r\n";
	static unsigned n_runs;
	char answer[512];

	if (http == NULL)
		start();
	if (ask(data, len, answer) > 0)
		FUZZ_CHECK(strncmp(answer, "HTTP/1.", 7) == 0);
	if (len == 0)
		ask_among_silent(plain, sizeof(plain) - 1, answer);
	if (++n_runs % 64 == 0) {
		FUZZ_CHECK(ask(plain, sizeof(plain) - 1, answer) > 0);
		FUZZ_CHECK(strncmp(answer, "HTTP/1.", 7) == 0 && strstr(answer, " 200 OK") != NULL && strstr(answer, "m 1\n") != NULL);
	}
	return 0;
}
