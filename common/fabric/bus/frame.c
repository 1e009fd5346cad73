/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/bus/bus_internal.h"

#include <stdlib.h>
#include <string.h>
#include "base/clock/clock.h"

struct wrapped {
	struct bus__flow *flow;
	size_t len;
};

struct bus__flow *
bus__flow_new(struct bus *bus)
{
	struct bus__flow *flow = calloc(1, sizeof(*flow));

	if (flow != NULL) {
		atomic_init(&flow->refs, 1);
		flow->total = &bus->out_bytes;
	}
	return flow;
}

void
bus__flow_leave(struct bus__flow *flow)
{
	if (flow != NULL && atomic_fetch_sub(&flow->refs, 1) == 1)
		free(flow);
}

/* libzmq calls it on any thread when it no longer needs the bytes. */
static void
release(void *bytes, void *hint)
{
	struct wrapped *w = hint;

	free(bytes);
	if (w == NULL)
		return;
	atomic_fetch_sub(&w->flow->bytes, w->len);
	atomic_fetch_sub(w->flow->total, w->len);
	atomic_store(&w->flow->moved_ms, clock_now_ms());
	bus__flow_leave(w->flow);
	free(w);
}

int
bus__frame_wrap(zmq_msg_t *msg, uint8_t *bytes, size_t len, struct bus__flow *flow)
{
	struct wrapped *w = NULL;

	if (flow != NULL) {
		if ((w = malloc(sizeof(*w))) == NULL) {
			free(bytes);
			return ENOMEM;
		}
		*w = (struct wrapped){flow, len};
		if (atomic_fetch_add(&flow->bytes, len) == 0)
			atomic_store(&flow->moved_ms, clock_now_ms());
		atomic_fetch_add(flow->total, len);
		atomic_fetch_add(&flow->refs, 1);
	}
	if (zmq_msg_init_data(msg, bytes, len, release, w) == 0)
		return 0;
	release(bytes, w);
	return ENOMEM;
}

/* Drops the remaining parts of a message. All parts arrive together, so they can be received now. */
static void
drop_parts(void *socket, bool more)
{
	zmq_msg_t part;

	while (more) {
		zmq_msg_init(&part);
		more = zmq_msg_recv(&part, socket, ZMQ_DONTWAIT) >= 0 && zmq_msg_more(&part);
		zmq_msg_close(&part);
	}
}

int
bus__frame_recv(void *socket, struct bus_event *event, bool *single)
{
	zmq_msg_t *msg = malloc(sizeof(*msg));

	if (msg == NULL) {
		drop_parts(socket, true);
		return ENOMEM;
	}
	zmq_msg_init(msg);
	while (zmq_msg_recv(msg, socket, ZMQ_DONTWAIT) < 0)
		if (errno != EINTR) {
			int rc = errno;

			free(msg);
			return rc;
		}
	*single = !zmq_msg_more(msg);
	drop_parts(socket, !*single);
	event->own = msg;
	event->frame = zmq_msg_data(msg);
	event->len = zmq_msg_size(msg);
	return 0;
}

void
bus_event_free(struct bus_event *event)
{
	if (event->own != NULL) {
		zmq_msg_close(event->own);
		free(event->own);
	}
	memset(event, 0, sizeof(*event));
}

int
bus__outbox_put(struct bus__outbox *box, zmq_msg_t *msg, size_t max_bytes)
{
	size_t len = zmq_msg_size(msg);
	struct bus__frame *f;
	int rc = 0;

	/* an empty queue accepts any frame: otherwise a small bound could never send a large one */
	if (!STAILQ_EMPTY(&box->frames) && (len > max_bytes || box->bytes > max_bytes - len))
		rc = ERR_AGAIN;
	else if ((f = malloc(sizeof(*f))) == NULL)
		rc = ENOMEM;
	if (rc != 0) {
		zmq_msg_close(msg);
		return rc;
	}
	f->len = len;
	zmq_msg_init(&f->msg);
	zmq_msg_move(&f->msg, msg);
	STAILQ_INSERT_TAIL(&box->frames, f, entry);
	box->bytes += len;
	return 0;
}

void
bus__outbox_drop_first(struct bus__outbox *box)
{
	struct bus__frame *f = STAILQ_FIRST(&box->frames);

	STAILQ_REMOVE_HEAD(&box->frames, entry);
	box->bytes -= f->len;
	zmq_msg_close(&f->msg);
	free(f);
}

void
bus__outbox_clear(struct bus__outbox *box)
{
	while (!STAILQ_EMPTY(&box->frames))
		bus__outbox_drop_first(box);
}
