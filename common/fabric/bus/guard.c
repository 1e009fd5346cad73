/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guard - bounds the memory that peers make this process hold. libzmq reads a connection as fast as bytes
 * arrive and keeps them until a message is complete, even before the handshake, and keeps parts of a message
 * without any limit. It has no call to inspect these bytes or to close one connection. The kernel has:
 * TCP_INFO counts the bytes that arrived and those that were acknowledged, and shutdown(2) ends a connection.
 * So a thread compares, for each accepted connection, the bytes that arrived with those that the daemon
 * received, and ends connections that hold too much.
 *
 * Without connections no memory can be held. The thread then waits until the monitor of a socket reports an
 * accepted connection.
 *
 * The memory held may be larger than the bytes that arrived: a frame of one byte costs libzmq about 100. So
 * the process's memory is watched too while bytes are held.
 *
 * The kernel does not count the bytes of an ipc connection. server.c counts its messages. A message that
 * never ends is detected here by its effects: bytes wait in the connection again and again, it delivers no
 * message, and meanwhile the memory of the process grows.
 */
#include "fabric/bus/bus_internal.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <malloc.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "base/clock/clock.h"
#include "base/log/log.h"
#include "base/mem/mem.h"

enum {
	LISTENERS_MAX = 8,
	SCAN_MS = 20, SCAN_SHARE = 20,	/* pause after a scan: SCAN_MS, and so many times the processor time
					   that it took */
	QUIET_MS = 1000,		/* interval of scans without connections, for keys, ended connections
					   and memory */
	FIRST_EXTRA = 1024,		/* bytes of the handshake */
	FRAME_EXTRA = 9, CURVE_EXTRA = 33,	/* in addition to a frame: flags and length; "MESSAGE", nonce,
						   box, flags */
	IDLE_PER_S = 64,		/* bytes of heartbeats, which the daemon does not receive */
	QUIET_BYTES = 1 << 20,		/* memory is not watched while all peers together hold less */
	HEARTBEAT_BYTES = 256,		/* ipc: so many waiting bytes may be heartbeats */
	SPARE_FDS = 64, SPARE_SHARE = 4,	/* descriptors to keep free: SPARE_FDS, or 1 / SPARE_SHARE of
						   the limit if that is less */
	KEYS_MS = 1000,
	TEND_MS = 500,
	TRIM_MS = 500, TRIM_TIMES = 4	/* memory goes back to the kernel after this quiet time; repeated,
					   because libzmq frees the data of gone peers later */
};

struct connection {
	uint64_t cookie;		/* the kernel's number of the socket; 0: unused entry */
	uint64_t received, sent;	/* bytes of frames that the daemon received and sent */
	uint64_t n_frames;
	uint64_t seen_frames;		/* ipc: n_frames when own_bytes was taken */
	uint64_t own_bytes;		/* ipc: own_memory() when bytes first waited after the last frame; 0:
					   none waited */
	int64_t since_ms;
	int listener;			/* -1: not an accepted connection */
	bool ended;
};

struct bus__guard {
	pthread_mutex_t lock;
	pthread_mutex_t tending;	/* held while tend uses a listener's socket; taken before lock */
	pthread_cond_t tend;
	pthread_t threads[2];		/* guard_main, tend_main */
	int n_started;
	bool stop, stop_tending;	/* under lock, tending */
	struct bus_waker *waker;	/* woken to stop, and for another listener */
	struct bus *bus;
	struct listener {
		bool used;
		uint16_t port;		/* 0: ipc */
		char path[BUS_ENDPOINT_MAX];	/* path of an ipc socket; else the endpoint, for the log */
		struct bus__limits limits;
		void *socket, *monitor;	/* NULL: the socket's owner has the monitor */
		pthread_mutex_t *lock;	/* of a socket that may be unused for hours, see tend; NULL: its owner
					   polls it */
	} listeners[LISTENERS_MAX];
	uint64_t keys_sum;
	int64_t keys_ms;		/* when to check the keys again */
	struct connection *by_fd;
	size_t cap;
	size_t n_fds;			/* open descriptors at the last scan */
	size_t n_connected;		/* accepted connections at the last scan; 0: quiet */
	bool few_files;			/* n_fds was close to the limit */
	uint64_t quiet_memory;		/* own_memory() when the peers began to hold more than QUIET_BYTES; 0:
					   they hold less */
	int64_t trim_ms;		/* when to give memory back to the kernel, after much was held; 0: not
					   due */
	int n_trims;			/* how often, since trim_later */
	uint64_t flood_bytes;		/* own_memory() before the last ipc connection that was ended; used
					   until memory went back */
};

/* Lock held. Returns the entry of a descriptor that is an open socket; NULL: it is not, or no memory. */
static struct connection *
connection_of(struct bus__guard *g, int fd)
{
	struct sockaddr_storage at;
	uint64_t cookie = 0;
	socklen_t n = sizeof(cookie);
	struct connection *c;
	size_t had = g->cap;
	int listens = 0;
	uint16_t port;

	if (fd < 0 || mem_grow((void **)&g->by_fd, &g->cap, (size_t)fd + 1, sizeof(*g->by_fd)) != 0)
		return NULL;
	memset(g->by_fd + had, 0, (g->cap - had) * sizeof(*g->by_fd));
	c = &g->by_fd[fd];
	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &n) != 0) {
		c->cookie = 0;
		return NULL;
	}
	if (c->cookie == cookie)
		return c;
	*c = (struct connection){.cookie = cookie, .since_ms = clock_now_ms(), .listener = -1};
	n = sizeof(listens);
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) != 0 || listens != 0)
		return c;
	n = sizeof(at);
	memset(&at, 0, sizeof(at));
	if (getsockname(fd, (struct sockaddr *)&at, &n) != 0)
		return c;
	port = at.ss_family == AF_INET ? ((struct sockaddr_in *)&at)->sin_port : at.ss_family == AF_INET6 ?
	    ((struct sockaddr_in6 *)&at)->sin6_port : 0;
	for (int i = 0; i < LISTENERS_MAX; i++)
		if (g->listeners[i].used && g->listeners[i].port == port && (port != 0 || (at.ss_family == AF_UNIX &&
		    strncmp(g->listeners[i].path, ((struct sockaddr_un *)&at)->sun_path, sizeof(((struct sockaddr_un *)&at)->sun_path)) == 0)))
			c->listener = i;
	return c;
}

/*
 * Bytes that the connection makes this process hold, in each direction. False: the kernel does not report
 * them.
 */
static bool
held(const struct connection *c, int fd, uint64_t *in, uint64_t *out)
{
	struct tcp_info info = {0};
	socklen_t n = sizeof(info);
	uint64_t known = c->received + (uint64_t)(clock_now_ms() - c->since_ms) * IDLE_PER_S / 1000 + FIRST_EXTRA;

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) != 0 ||
	    n < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(info.tcpi_bytes_received))
		return false;
	*in = info.tcpi_bytes_received > known ? info.tcpi_bytes_received - known : 0;
	*out = c->sent > info.tcpi_bytes_acked ? c->sent - info.tcpi_bytes_acked : 0;
	return true;
}

static void
trim_later(struct bus__guard *g)
{
	g->trim_ms = clock_now_ms() + TRIM_MS;
	g->n_trims = 0;
}

static void
end(struct bus__guard *g, struct connection *c, int fd, uint64_t bytes, const char *why)
{
	static struct log_limit limit;
	const struct linger reset = {.l_onoff = 1, .l_linger = 0};
	char address[64];
	unsigned long left_out;

	if (c->ended)
		return;
	c->ended = true;
	trim_later(g);
	atomic_fetch_add(&g->bus->n_ended, 1);
	bus__peer_address(fd, address, sizeof(address));
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));	/* when libzmq closes it, nothing of it stays in the kernel */
	shutdown(fd, SHUT_RDWR);
	if (log_limited(&limit, &left_out))
		log_warn("bus.peer_ended", "address=%s bytes=%llu why=\"%s\" left_out=%lu", address, (unsigned long long)bytes, why, left_out);
}

/* Anonymous memory of this process in bytes; 0: not known. */
static uint64_t
own_memory(void)
{
	char text[4096], *at;
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	return (at = strstr(text, "RssAnon:")) != NULL ? strtoull(at + 8, NULL, 10) << 10 : 0;
}

/* The connections of one scan that hold most, and what all of them hold. */
struct sums {
	uint64_t own_bytes;		/* own_memory(); 0: not read yet */
	uint64_t in, out, most_in, most_out;
	int in_fd, out_fd;
	int idle_fd;			/* the oldest connection that has sent nothing */
	int64_t idle_since_ms;
};

/* Lock held. Checks an ipc connection. */
static void
look_at_ipc(struct bus__guard *g, struct connection *c, int fd, struct sums *sums)
{
	int waiting;

	if (c->n_frames != c->seen_frames) {
		c->seen_frames = c->n_frames;
		c->own_bytes = 0;
	}
	if (ioctl(fd, FIONREAD, &waiting) != 0 || waiting <= HEARTBEAT_BYTES)
		return;
	if (sums->own_bytes == 0)
		sums->own_bytes = own_memory();
	if (c->own_bytes == 0) {
		c->own_bytes = g->trim_ms != 0 && g->n_trims == 0 && g->flood_bytes != 0 ? g->flood_bytes : sums->own_bytes;
	} else if (sums->own_bytes > c->own_bytes + g->bus->budget) {
		g->flood_bytes = c->own_bytes;
		end(g, c, fd, sums->own_bytes - c->own_bytes,
		    "memory grew since this peer's last complete message, and it is still sending");
	}
}

/* Lock held. Checks one descriptor, and adds what its connection holds to the sums. */
static void
look_at(struct bus__guard *g, int fd, struct sums *sums)
{
	struct connection *c = connection_of(g, fd);
	const struct bus__limits *limits;
	uint64_t in, out;

	if (c == NULL || c->listener < 0)
		return;
	g->n_connected++;
	if (c->ended)
		return;
	if (g->listeners[c->listener].port == 0)
		look_at_ipc(g, c, fd, sums);
	if (!held(c, fd, &in, &out))
		return;
	limits = &g->listeners[c->listener].limits;
	if (c->n_frames == 0 && in > limits->first) {
		end(g, c, fd, in, "too many bytes before the first complete message");
		return;
	}
	if (in > limits->most) {
		end(g, c, fd, in,
		    "too many bytes without a complete message, or faster than they can be handled");
		return;
	}
	sums->in += in;
	sums->out += out;
	if (in > sums->most_in) {
		sums->most_in = in;
		sums->in_fd = fd;
	}
	if (out > sums->most_out) {
		sums->most_out = out;
		sums->out_fd = fd;
	}
	if (c->n_frames == 0 && c->since_ms < sums->idle_since_ms) {
		sums->idle_since_ms = c->since_ms;
		sums->idle_fd = fd;
	}
}

/* Lock held. Ends connections because of the sums of a scan. */
static void
decide(struct bus__guard *g, const struct sums *s)
{
	static struct log_limit limit;
	unsigned long left_out;
	struct rlimit files;
	uint64_t memory, spare;
	bool few;

	if (s->in > g->bus->budget)
		end(g, &g->by_fd[s->in_fd], s->in_fd, s->most_in,
		    "peers sent more than can be handled; this one sent most");
	if (s->out > g->bus->budget)
		end(g, &g->by_fd[s->out_fd], s->out_fd, s->most_out,
		    "peers read too slowly; this one slowest");
	if (s->in > QUIET_BYTES) {
		memory = own_memory();
		if (g->quiet_memory == 0)
			g->quiet_memory = memory;
		if (memory > g->quiet_memory + g->bus->budget)
			end(g, &g->by_fd[s->in_fd], s->in_fd, s->most_in,
			    "received data fills the memory; this peer sent most");
		trim_later(g);
	} else {
		g->quiet_memory = 0;
	}
	if (getrlimit(RLIMIT_NOFILE, &files) != 0)
		return;
	spare = files.rlim_cur / SPARE_SHARE < SPARE_FDS ? files.rlim_cur / SPARE_SHARE : SPARE_FDS;
	few = g->n_fds + spare > files.rlim_cur;
	if (few && s->idle_fd >= 0)
		end(g, &g->by_fd[s->idle_fd], s->idle_fd, 0,
		    "few file descriptors are left, and this peer has sent nothing");
	else if (few && !g->few_files && log_limited(&limit, &left_out))
		log_warn("bus.few_files", "open=%zu limit=%llu hint=\"raise the limit (ulimit -Hn, LimitNOFILE of a unit), or new peers will not be "
		    "able to connect\" left_out=%lu", g->n_fds, (unsigned long long)files.rlim_cur, left_out);
	g->few_files = few;
}

/*
 * Lock held. If the accepted keys have changed, the owners of data sockets check the keys of their peers, and
 * connections of other sockets are ended here.
 */
static void
look_at_keys(struct bus__guard *g)
{
	uint64_t sum;
	int64_t now = clock_now_ms();

	if (g->bus->curve_dir == NULL || now < g->keys_ms)
		return;
	g->keys_ms = now + KEYS_MS;
	if ((sum = bus__keys_sum(g->bus->curve_dir)) == g->keys_sum)
		return;
	g->keys_sum = sum;
	atomic_fetch_add(&g->bus->keys_changed, 1);
	for (size_t fd = 0; fd < g->cap; fd++) {
		struct connection *c = connection_of(g, (int)fd);

		if (c != NULL && c->listener >= 0 && g->listeners[c->listener].monitor != NULL)
			shutdown((int)fd, SHUT_RDWR);
	}
	log_info("bus.keys_changed", "dir=%s", g->bus->curve_dir);
}

void
bus__refused(struct bus *bus, int event, int value, const char *endpoint)
{
	static struct log_limit limit;
	/* a peer that detects the different handshake first closes the connection, and so does a port scan */
	bool cut = event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL && bus->curve_dir != NULL;
	unsigned long left_out;

	if (event != ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL && !cut)
		return;
	atomic_fetch_add(&bus->n_refused, 1);
	if (log_limited(&limit, &left_out))
		log_event(cut ? LOG_LEVEL_INFO : LOG_LEVEL_WARN, "bus.refused",
		    "endpoint=%s code=0x%x why=\"%s\" left_out=%lu", endpoint, (unsigned)value,
		    cut ? "handshake not completed" : bus->curve_dir != NULL ?
		    "no CURVE handshake, or wrong server key" : "no handshake without keys",
		    left_out);
}

static void
scan(struct bus__guard *g)
{
	struct sums sums = {.in_fd = -1, .out_fd = -1, .idle_fd = -1, .idle_since_ms = INT64_MAX};
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	size_t n = 0;
	bool trim;

	if (dir == NULL)
		return;
	pthread_mutex_lock(&g->lock);
	g->n_connected = 0;
	for (; (entry = readdir(dir)) != NULL; n++)
		if (isdigit((unsigned char)entry->d_name[0]))
			look_at(g, atoi(entry->d_name), &sums);
	g->n_fds = n;
	decide(g, &sums);
	look_at_keys(g);
	for (int i = 0, event, value; i < LISTENERS_MAX; i++)
		while (g->listeners[i].monitor != NULL && bus__monitor_next(g->listeners[i].monitor, &event, &value)) {
			g->n_connected += event == ZMQ_EVENT_ACCEPTED;	/* it may be newer than this scan */
			bus__refused(g->bus, event, value, g->listeners[i].path);
		}
	if ((trim = g->trim_ms != 0 && g->trim_ms <= clock_now_ms()))
		g->trim_ms = ++g->n_trims < TRIM_TIMES ? clock_now_ms() + ((int64_t)TRIM_MS << 3 * g->n_trims) : 0;
	pthread_mutex_unlock(&g->lock);
	closedir(dir);
	if (trim)
		malloc_trim(0);
}

/*
 * Waits until the next scan is due; false: stop. If the owner of a listener has its monitor, accepted
 * connections are not reported here, so scans continue at short intervals.
 */
static bool
wait_scan(struct bus__guard *g, int pause_ms)
{
	struct pollfd fds[1 + LISTENERS_MAX] = {{.fd = bus__waker_fd(g->waker), .events = POLLIN}};
	size_t size = sizeof(fds[0].fd);
	bool quiet, stop;
	nfds_t n = 1;

	pthread_mutex_lock(&g->lock);
	quiet = g->n_connected == 0;
	for (int i = 0; i < LISTENERS_MAX && quiet; i++) {
		const struct listener *l = &g->listeners[i];

		if (!l->used)
			continue;
		quiet = l->monitor != NULL && zmq_getsockopt(l->monitor, ZMQ_FD, &fds[n].fd, &size) == 0;
		fds[n++].events = POLLIN;
	}
	pthread_mutex_unlock(&g->lock);
	poll(fds, quiet ? n : 1, quiet ? QUIET_MS : pause_ms);
	if (fds[0].revents != 0)
		bus__waker_clear(g->waker);
	pthread_mutex_lock(&g->lock);
	stop = g->stop;
	pthread_mutex_unlock(&g->lock);
	return !stop;
}

/* Processor time of this thread: on a busy host wall-clock time would make the pauses long. */
static double
used_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *
guard_main(void *arg)
{
	struct bus__guard *g = arg;
	double pause_s = 0;

	do {
		double start_s = used_s();

		scan(g);
		pause_s = SCAN_SHARE * (used_s() - start_s);
		pause_s = pause_s > 1 ? 1 : pause_s;
	} while (wait_scan(g, (int)(pause_s * 1000) + SCAN_MS));
	return NULL;
}

/*
 * tending held. libzmq frees the memory of an ended connection when its socket is used next. For a socket
 * that only sends, that may be never: each subscriber that came and went would leave 33 KB. So this function
 * uses the socket. The call also receives what subscribers send, and does not return while they send faster;
 * so it has a thread of its own, and guard_main ends such subscribers meanwhile.
 */
static void
tend(struct bus__guard *g, int i)
{
	pthread_mutex_t *lock;
	void *socket;
	int events;
	size_t n = sizeof(events);

	pthread_mutex_lock(&g->lock);
	socket = g->listeners[i].used ? g->listeners[i].socket : NULL;
	lock = g->listeners[i].lock;
	pthread_mutex_unlock(&g->lock);
	if (socket == NULL || lock == NULL || pthread_mutex_trylock(lock) != 0)
		return;
	zmq_getsockopt(socket, ZMQ_EVENTS, &events, &n);
	pthread_mutex_unlock(lock);
}

static void *
tend_main(void *arg)
{
	struct bus__guard *g = arg;
	struct timespec next;

	pthread_mutex_lock(&g->tending);
	while (!g->stop_tending) {
		next = clock_after_ms(TEND_MS);
		pthread_cond_timedwait(&g->tend, &g->tending, &next);
		for (int i = 0; i < LISTENERS_MAX && !g->stop_tending; i++)
			tend(g, i);
	}
	pthread_mutex_unlock(&g->tending);
	return NULL;
}

int
bus__guard_new(struct bus__guard **out, struct bus *bus)
{
	struct bus__guard *g = calloc(1, sizeof(*g));

	if ((*out = g) == NULL)
		return ENOMEM;
	g->bus = bus;
	pthread_mutex_init(&g->lock, NULL);
	pthread_mutex_init(&g->tending, NULL);
	clock_cond_init(&g->tend);
	return 0;
}

void
bus__guard_destroy(struct bus__guard **guard)
{
	struct bus__guard *g = *guard;

	if (g == NULL)
		return;
	pthread_mutex_lock(&g->lock);
	g->stop = true;
	pthread_mutex_unlock(&g->lock);
	if (g->n_started > 0)
		bus_waker_wake(g->waker);
	pthread_mutex_lock(&g->tending);
	g->stop_tending = true;
	pthread_cond_signal(&g->tend);
	pthread_mutex_unlock(&g->tending);
	while (g->n_started > 0)
		pthread_join(g->threads[--g->n_started], NULL);
	bus_waker_destroy(&g->waker);
	pthread_cond_destroy(&g->tend);
	pthread_mutex_destroy(&g->tending);
	pthread_mutex_destroy(&g->lock);
	free(g->by_fd);
	free(g);
	*guard = NULL;
}

static uint16_t
port_of(const char *endpoint)
{
	const char *port = strncmp(endpoint, "tcp://", 6) == 0 ? strrchr(endpoint, ':') : NULL;

	return port != NULL ? htons((uint16_t)atoi(port + 1)) : 0;
}

/* Lock held. */
static int
start(struct bus__guard *g)
{
	static void *(*const mains[])(void *) = {guard_main, tend_main};
	sigset_t all, old;
	int rc = 0;

	if (g->n_started == 2) {
		bus_waker_wake(g->waker);	/* to wait for this listener's connections too; the scan finds
						   existing ones */
		return 0;
	}
	if (g->waker == NULL && (g->waker = bus_waker_new()) == NULL)
		return errno;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (g->n_started < 2 && (rc = pthread_create(&g->threads[g->n_started], NULL, mains[g->n_started], g)) == 0)
		g->n_started++;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

int
bus__guard_watch(struct bus__guard *g, const char *endpoint, struct bus__limits limits, void *socket, pthread_mutex_t *lock)
{
	uint16_t port = port_of(endpoint);
	int rc = 0;

	pthread_mutex_lock(&g->lock);
	for (int i = 0; i < LISTENERS_MAX; i++)
		if (!g->listeners[i].used) {
			struct listener *l = &g->listeners[i];

			*l = (struct listener){.used = true, .port = port, .limits = limits};
			snprintf(l->path, sizeof(l->path), "%s", port == 0 ? endpoint + 6 : endpoint);
			l->socket = socket;
			l->lock = lock;
			if (socket != NULL && (l->monitor = bus__monitor_new(g->bus, socket,
			    ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL)) == NULL)
				rc = errno;
			break;
		}
	if (g->n_started == 0 && g->bus->curve_dir != NULL)
		g->keys_sum = bus__keys_sum(g->bus->curve_dir);
	rc = rc != 0 ? rc : start(g);
	pthread_mutex_unlock(&g->lock);
	return rc;
}

void
bus__guard_forget(struct bus__guard *g, const char *endpoint)
{
	uint16_t port = port_of(endpoint);

	pthread_mutex_lock(&g->tending);
	pthread_mutex_lock(&g->lock);
	for (int i = 0; i < LISTENERS_MAX; i++) {
		struct listener *l = &g->listeners[i];

		if (!l->used || l->port != port || strcmp(l->path, port == 0 ? endpoint + 6 : endpoint) != 0)
			continue;
		if (l->socket != NULL)		/* first: otherwise the library's I/O thread would block for
						   ever in writing events */
			zmq_socket_monitor(l->socket, NULL, 0);
		bus__socket_close(g->bus, &l->monitor);
		l->used = false;
		for (size_t fd = 0; fd < g->cap; fd++)
			if (g->by_fd[fd].listener == i)
				g->by_fd[fd].cookie = 0;
	}
	pthread_mutex_unlock(&g->lock);
	pthread_mutex_unlock(&g->tending);
}

void
bus__guard_received(struct bus__guard *g, int fd, size_t bytes)
{
	struct connection *c;

	pthread_mutex_lock(&g->lock);
	if ((c = connection_of(g, fd)) != NULL) {
		c->received += bytes + FRAME_EXTRA + (g->bus->curve_dir != NULL ? CURVE_EXTRA : 0);
		c->n_frames++;
	}
	pthread_mutex_unlock(&g->lock);
}

bool
bus__guard_may_send(struct bus__guard *g, int fd, size_t bytes, uint64_t most)
{
	struct connection *c;
	uint64_t in, out;
	bool may = true;

	pthread_mutex_lock(&g->lock);
	if ((c = connection_of(g, fd)) != NULL && c->listener >= 0 && held(c, fd, &in, &out)) {
		if ((may = out == 0 || out + bytes <= most))
			c->sent += bytes;
		else
			end(g, c, fd, out, "this peer does not read its answers");
	}
	pthread_mutex_unlock(&g->lock);
	return may;
}
