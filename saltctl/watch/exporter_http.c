/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only file that uses libmicrohttpd. Requests are answered from memory, GET and HEAD only. A connection
 * that is idle for CONNECTION_IDLE_S is closed. If there are more than CONNECTIONS_KEPT, the one whose last
 * request is oldest is closed, so that slow or silent clients cannot block others.
 */
#include "saltctl/watch/exporter.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/file/file.h"
#include "base/log/log.h"

#define CONNECTIONS_MAX 64
#define CONNECTIONS_KEPT 32
#define CONNECTION_IDLE_S 15
#define CONNECTION_MEMORY 16384		/* bytes for the header of a request */
#define CHART_JS_MAX_BYTES (4 << 20)

/* Debian's package libjs-chart.js. */
static const char chart_js[] = "/usr/share/javascript/chart.js/chart.min.js";

/* Compiles a file of saltctl/watch/page in, as the bytes name_begin .. name_end. */
#define PAGE_FILE(name, file) \
	__asm__(".section .rodata\n" \
	    #name "_begin:\n.incbin \"" SALT_PAGE_DIR "/" file "\"\n" #name "_end:\n.byte 0\n.previous\n"); \
	extern const char name##_begin[], name##_end[]

PAGE_FILE(page_html, "dashboard.html");
PAGE_FILE(page_css, "dashboard.css");
PAGE_FILE(page_js, "dashboard.js");

static const struct page {
	const char *path, *type, *begin, *end;
} pages[] = {
	{"/", "text/html; charset=utf-8", page_html_begin, page_html_end},
	{"/dashboard.css", "text/css; charset=utf-8", page_css_begin, page_css_end},
	{"/dashboard.js", "text/javascript; charset=utf-8", page_js_begin, page_js_end},
};

static const struct board {
	const char *path, *type;
} boards[EXPORTER_TEXTS] = {
	[EXPORTER_METRICS] = {"/metrics", "text/plain; version=0.0.4; charset=utf-8"},
	[EXPORTER_STATUS] = {"/api/status", "application/json"},
	[EXPORTER_RUNS] = {"/api/runs", "application/json"},
};

struct connection {
	TAILQ_ENTRY(connection) entry;
	int fd;
	bool closing;
};

struct exporter_http {
	struct MHD_Daemon *daemon;
	TAILQ_HEAD(, connection) connections;	/* of libmicrohttpd's thread; by time of last request */
	size_t n_connections;
	char url[300];
	pthread_mutex_t lock;
	char *texts[EXPORTER_TEXTS];
};

/* The page may load and run only content of this server. */
static const char policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/* Sends @text. taken: @text is malloc'ed and this function owns it; else it is one of pages. */
static enum MHD_Result
respond(struct MHD_Connection *c, unsigned code, const char *type, const char *text, size_t n, bool taken)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(n, (void *)(uintptr_t)text,
	    taken ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
	enum MHD_Result ok;

	if (r == NULL) {
		if (taken)
			free((void *)(uintptr_t)text);
		return MHD_NO;
	}
	MHD_add_response_header(r, "Content-Type", type);
	MHD_add_response_header(r, "Cache-Control", "no-cache");
	MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
	MHD_add_response_header(r, "Content-Security-Policy", policy);
	if (code == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(r, "Allow", "GET, HEAD");
	ok = MHD_queue_response(c, code, r);
	MHD_destroy_response(r);
	return ok;
}

static enum MHD_Result
say(struct MHD_Connection *c, unsigned code, const char *text)
{
	return respond(c, code, "text/plain; charset=utf-8", text, strlen(text), false);
}

static enum MHD_Result
chart_library(struct MHD_Connection *c)
{
	char *text;
	size_t n;
	int rc = file_read(chart_js, CHART_JS_MAX_BYTES, &text, &n, NULL);

	if (rc == ENOENT)
		return say(c, MHD_HTTP_NOT_FOUND,
		    "Chart.js is not installed on this host: apt-get install libjs-chart.js\n");
	if (rc != 0)
		return say(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "Chart.js could not be read\n");
	return respond(c, MHD_HTTP_OK, "text/javascript; charset=utf-8", text, n, true);
}

static enum MHD_Result
from_board(struct exporter_http *h, struct MHD_Connection *c, size_t which)
{
	char *text = NULL;
	bool there;

	pthread_mutex_lock(&h->lock);
	if ((there = h->texts[which] != NULL))
		text = strdup(h->texts[which]);
	pthread_mutex_unlock(&h->lock);
	if (!there)
		return say(c, MHD_HTTP_SERVICE_UNAVAILABLE, "not known yet; ask again in a moment\n");
	return text != NULL ? respond(c, MHD_HTTP_OK, boards[which].type, text, strlen(text), true) : MHD_NO;
}

static struct connection *
context_of(struct MHD_Connection *c)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info != NULL ? info->socket_context : NULL;
}

/* Called when a connection begins or ends. */
static void
notify(void *arg, struct MHD_Connection *c, void **context, enum MHD_ConnectionNotificationCode what)
{
	struct exporter_http *h = arg;
	struct connection *one = *context;

	if (what == MHD_CONNECTION_NOTIFY_CLOSED && one != NULL) {
		TAILQ_REMOVE(&h->connections, one, entry);
		h->n_connections -= !one->closing;
		free(one);
		*context = NULL;
	} else if (what == MHD_CONNECTION_NOTIFY_STARTED && (one = calloc(1, sizeof(*one))) != NULL) {
		one->fd = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
		TAILQ_INSERT_TAIL(&h->connections, one, entry);
		*context = one;
		if (++h->n_connections <= CONNECTIONS_KEPT)
			return;
		TAILQ_FOREACH(one, &h->connections, entry)
			if (!one->closing)
				break;
		one->closing = true;		/* libmicrohttpd ends it later */
		h->n_connections--;
		shutdown(one->fd, SHUT_RDWR);
	}
}

static enum MHD_Result
answer(void *arg, struct MHD_Connection *c, const char *path, const char *method, const char *version,
    const char *upload, size_t *upload_bytes, void **request)
{
	struct exporter_http *h = arg;

	struct connection *one = context_of(c);

	(void)version, (void)upload, (void)upload_bytes, (void)request;
	if (one != NULL) {
		TAILQ_REMOVE(&h->connections, one, entry);
		TAILQ_INSERT_TAIL(&h->connections, one, entry);
	}
	if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
		return say(c, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
	for (size_t i = 0; i < EXPORTER_TEXTS; i++)
		if (strcmp(path, boards[i].path) == 0)
			return from_board(h, c, i);
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		if (strcmp(path, pages[i].path) == 0)
			return respond(c, MHD_HTTP_OK, pages[i].type, pages[i].begin,
			    (size_t)(pages[i].end - pages[i].begin), false);
	if (strcmp(path, "/chart.js") == 0)
		return chart_library(c);
	return say(c, MHD_HTTP_NOT_FOUND, "there is / and /metrics and /api/status and /api/runs\n");
}

/* Splits "HOST:PORT" or "[IPV6]:PORT". */
static int
split(const char *listen, char host[256], char port[8])
{
	const char *colon = strrchr(listen, ':');
	size_t n = colon != NULL ? (size_t)(colon - listen) : 0;
	unsigned long number;
	char *end;

	if (n == 0 || n > 255 || colon[1] < '0' || colon[1] > '9')
		return ERR_USAGE;
	number = strtoul(colon + 1, &end, 10);
	if (*end != '\0' || number > 65535)
		return ERR_USAGE;
	if (listen[0] == '[' && listen[n - 1] == ']') {
		listen++;
		n -= 2;
	}
	snprintf(host, 256, "%.*s", (int)n, listen);
	snprintf(port, 8, "%lu", number);
	return 0;
}

static bool
is_loopback(const struct sockaddr_storage *at)
{
	const struct in6_addr *six = &((const struct sockaddr_in6 *)at)->sin6_addr;

	if (at->ss_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)at)->sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(six) || (IN6_IS_ADDR_V4MAPPED(six) && six->s6_addr[12] == 127);
}

/* Opens the listening socket itself, because libmicrohttpd does not report a used port (EADDRINUSE). */
static int
bind_to(const char *listen_at, int *out, char *url, size_t size, struct err_note *note)
{
	struct addrinfo want = {.ai_socktype = SOCK_STREAM}, *found = NULL;
	struct sockaddr_storage at;
	socklen_t len = sizeof(at);
	char host[256], port[8];
	int fd = -1, on = 1, rc;

	if (split(listen_at, host, port) != 0)
		return err_expect(note, ERR_USAGE, "--listen",
		    "HOST:PORT, such as 127.0.0.1:9797 or [::1]:9797", "%s", listen_at);
	if (getaddrinfo(host, port, &want, &found) != 0)
		return err_expect(note, ERR_USAGE, "--listen", "an address or a name of this host", "%s", listen_at);
	rc = 0;
	if ((fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
	    bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, CONNECTIONS_MAX) != 0 ||
	    getsockname(fd, (struct sockaddr *)&at, &len) != 0)
		rc = err_note_set(note, errno, "--listen %s", listen_at);
	if (rc == 0)
		snprintf(url, size, "http://%s%s%s:%d/", at.ss_family == AF_INET6 ? "[" : "", host,
		    at.ss_family == AF_INET6 ? "]" : "", ntohs(at.ss_family == AF_INET6 ?
		    ((struct sockaddr_in6 *)&at)->sin6_port : ((struct sockaddr_in *)&at)->sin_port));
	freeaddrinfo(found);
	if (rc == 0 && !is_loopback(&at))
		log_warn("exporter.public", "url=%s hint=\"other hosts reach this address: whoever connects reads everything, "
		    "without a password\"", url);
	if (rc != 0 && fd >= 0)
		close(fd);
	*out = rc == 0 ? fd : -1;
	return rc;
}

int
exporter_http_new(struct exporter_http **out, const char *listen_at, struct err_note *note)
{
	struct exporter_http *h = calloc(1, sizeof(*h));
	int fd = -1, rc;

	*out = NULL;
	if (h == NULL)
		return ENOMEM;
	pthread_mutex_init(&h->lock, NULL);
	TAILQ_INIT(&h->connections);
	if ((rc = bind_to(listen_at, &fd, h->url, sizeof(h->url), note)) != 0)
		goto out;
	h->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL, 0, NULL, NULL, answer, h,
	    MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
	    MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)CONNECTION_IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
	    (size_t)CONNECTION_MEMORY, MHD_OPTION_NOTIFY_CONNECTION, notify, h, MHD_OPTION_END);
	if (h->daemon == NULL) {
		close(fd);
		rc = err_note_set(note, ERR_LIBRARY, "HTTP server on %s", listen_at);
		goto out;
	}
	*out = h;
	h = NULL;
out:
	exporter_http_destroy(&h);
	return rc;
}

void
exporter_http_put(struct exporter_http *h, enum exporter_text what, char *text)
{
	char *old;

	if (text == NULL)
		return;
	pthread_mutex_lock(&h->lock);
	old = h->texts[what];
	h->texts[what] = text;
	pthread_mutex_unlock(&h->lock);
	free(old);
}

const char *
exporter_http_url(const struct exporter_http *h)
{
	return h->url;
}

void
exporter_http_destroy(struct exporter_http **http)
{
	struct exporter_http *h = *http;

	if (h == NULL)
		return;
	if (h->daemon != NULL)
		MHD_stop_daemon(h->daemon);
	for (size_t i = 0; i < EXPORTER_TEXTS; i++)
		free(h->texts[i]);
	pthread_mutex_destroy(&h->lock);
	free(h);
	*http = NULL;
}
