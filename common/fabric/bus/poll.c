/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/bus/bus_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "base/mem/mem.h"

enum { RETRY_MS = 10 };			/* interval of retries for queued frames: ZeroMQ does not report when
					   it would accept them */

/* Either a source or a waker. */
struct entry {
	struct bus__source *source;
	struct bus_waker *waker;
};

struct bus_poll {
	bool stop_seen;
	struct entry *entries;
	size_t n, cap;
	zmq_pollitem_t *items;		/* at most 2 for each entry, and the stop descriptor */
	size_t items_cap;
};

struct bus_poll *
bus_poll_new(struct bus *bus)
{
	(void)bus;
	return calloc(1, sizeof(struct bus_poll));
}

void
bus_poll_destroy(struct bus_poll **poll)
{
	if (*poll == NULL)
		return;
	free((*poll)->entries);
	free((*poll)->items);
	free(*poll);
	*poll = NULL;
}

static int
add(struct bus_poll *p, struct entry entry)
{
	int rc;

	if ((rc = mem_grow((void **)&p->entries, &p->cap, p->n + 1, sizeof(*p->entries))) != 0
	    || (rc = mem_grow((void **)&p->items, &p->items_cap, 2 * p->n + 3, sizeof(*p->items))) != 0)
		return rc;
	p->entries[p->n++] = entry;
	return 0;
}

int
bus_poll_add_server(struct bus_poll *poll, struct bus_server *server)
{
	return add(poll, (struct entry){.source = (struct bus__source *)server});
}

int
bus_poll_add_client(struct bus_poll *poll, struct bus_client *client)
{
	return add(poll, (struct entry){.source = (struct bus__source *)client});
}

int
bus_poll_add_waker(struct bus_poll *poll, struct bus_waker *waker)
{
	return add(poll, (struct entry){.waker = waker});
}

void
bus_poll_remove(struct bus_poll *poll, const void *thing)
{
	for (size_t i = 0; i < poll->n; i++)
		if ((poll->entries[i].source != NULL ? (void *)poll->entries[i].source :
		    poll->entries[i].waker) == thing) {
			memmove(poll->entries + i, poll->entries + i + 1,
			    (poll->n - i - 1) * sizeof(*poll->entries));
			poll->n--;
			return;
		}
}

static void
put(struct bus_poll *p, size_t *n, void *socket, int fd)
{
	p->items[(*n)++] = (zmq_pollitem_t){.socket = socket, .fd = fd, .events = ZMQ_POLLIN};
}

int
bus_poll_wait(struct bus_poll *p, int64_t timeout_ms)
{
	int64_t until = timeout_ms < 0 ? INT64_MAX : clock_now_ms() + timeout_ms;
	int stop = p->stop_seen ? -1 : stop_fd(), rc;
	size_t n = 0;

	if ((rc = mem_grow((void **)&p->items, &p->items_cap, 2 * p->n + 1, sizeof(*p->items))) != 0)
		return rc;
	if (stop >= 0)
		put(p, &n, NULL, stop);
	for (size_t i = 0; i < p->n; i++) {
		struct entry *e = &p->entries[i];

		if (e->source != NULL) {
			put(p, &n, e->source->socket, 0);
			put(p, &n, e->source->monitor, 0);
		} else {
			put(p, &n, NULL, bus__waker_fd(e->waker));
		}
	}
	for (;;) {
		int64_t now, wake = until;
		size_t queued = 0;
		bool pending = false;
		int ready;

		for (size_t i = 0; i < p->n; i++)
			if (p->entries[i].source != NULL)
				queued += p->entries[i].source->flush(p->entries[i].source, &wake, &pending);
		now = clock_now_ms();
		if (pending)
			wake = now;
		if (queued > 0 && wake > now + RETRY_MS)
			wake = now + RETRY_MS;
		ready = zmq_poll(p->items, (int)n, wake == INT64_MAX ? -1 : wake > now ? (long)(wake - now) :
		    0);
		if (ready < 0 && errno != EINTR)
			return errno;
		/* after a foreign signal, or a retry, the wait continues */
		if (ready > 0 || pending || clock_now_ms() >= until || (stop >= 0 && stop_requested()))
			break;
	}
	if (stop >= 0 && stop_requested())
		p->stop_seen = true;
	for (size_t i = 0; i < p->n; i++)
		if (p->entries[i].waker != NULL)
			bus__waker_clear(p->entries[i].waker);
	return 0;
}
