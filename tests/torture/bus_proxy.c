/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bus_proxy FRONT BACK SEED DROP DOUBLE DELAY MAX_MS - a proxy between peers, which connect to FRONT, and a
 * selectord at BACK. Each peer gets its own connection to BACK, so that selectord can distinguish them. Of
 * 1000 frames in either direction DROP are dropped, DOUBLE are delivered twice and DELAY wait 1 to MAX_MS
 * milliseconds, so frames can overtake each other. SIGTERM ends it; the last line has the numbers.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "fabric/bus/bus.h"

enum { LINKS_MAX = 128, WHEEL = 1024 };		/* WHEEL: milliseconds, more than MAX_MS may be */

struct link {
	uint64_t peer;				/* 0: free */
	struct bus_client *client;
};

struct held {
	STAILQ_ENTRY(held) next;
	uint64_t peer;
	bool to_back;
	uint8_t *frame;
	size_t len;
};

static struct link links[LINKS_MAX];
static STAILQ_HEAD(slot, held) wheel[WHEEL];	/* delayed frames, by the millisecond in which they are due */
static struct bus *bus;
static struct bus_poll *loop;
static struct bus_server *front;
static uint64_t state, n_frames, n_dropped, n_doubled, n_delayed, n_unsent;
static uint32_t drop, doubled, delay, max_ms;

static void
die(int rc, const struct err_note *note, const char *what)
{
	char text[1200];

	fprintf(stderr, "bus_proxy: %s: %s\n", what, err_note_str(note, rc, text, sizeof(text)));
	exit(1);
}

/* xorshift64* (Vigna, 2016) */
static uint32_t
draw(uint32_t below)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (uint32_t)(state * UINT64_C(2685821657736338717) >> 32) % below;
}

static struct link *
link_of(uint64_t peer)
{
	for (size_t i = 0; i < LINKS_MAX; i++)
		if (links[i].peer == peer)
			return &links[i];
	return NULL;
}

static void
open_link(uint64_t peer, const char *back)
{
	struct link *l = link_of(0);
	struct err_note note = {0};
	int rc = l != NULL ? bus_client_new(&l->client, bus, back, NULL, &note) : ERR_FULL;

	if (rc != 0 || (rc = bus_poll_add_client(loop, l->client)) != 0)
		die(rc, &note, back);
	l->peer = peer;
}

static void
close_link(struct link *l)
{
	bus_poll_remove(loop, l->client);
	bus_client_destroy(&l->client);
	l->peer = 0;
}

/* Delivers the frame and takes ownership of it. */
static void
deliver(bool to_back, uint64_t peer, uint8_t *frame, size_t len)
{
	struct link *l = to_back ? link_of(peer) : NULL;
	int rc = !to_back ? bus_server_send(front, peer, frame, len) : l != NULL ? bus_client_send(l->client, frame, len) : ERR_CLOSED;

	if (to_back && l == NULL)
		free(frame);
	n_unsent += rc != 0;
}

static void
pass(bool to_back, uint64_t peer, const struct bus_event *e)
{
	int copies = 1;

	n_frames++;
	if (draw(1000) < drop) {
		n_dropped++;
		return;
	}
	if (draw(1000) < doubled) {
		n_doubled++;
		copies = 2;
	}
	while (copies-- > 0) {
		bool waits = draw(1000) < delay;
		uint8_t *copy = malloc(e->len);
		struct slot *slot;
		struct held *h;

		if (copy == NULL)
			die(ENOMEM, NULL, "frame");
		memcpy(copy, e->frame, e->len);
		if (!waits) {
			deliver(to_back, peer, copy, e->len);
			continue;
		}
		if ((h = malloc(sizeof(*h))) == NULL)
			die(ENOMEM, NULL, "frame");
		*h = (struct held){.peer = peer, .to_back = to_back, .frame = copy, .len = e->len};
		slot = &wheel[(clock_now_ms() + 1 + draw(max_ms)) % WHEEL];
		STAILQ_INSERT_TAIL(slot, h, next);
		n_delayed++;
	}
}

static void
deliver_due(int64_t *at_ms)
{
	for (int64_t now = clock_now_ms(); *at_ms < now; ++*at_ms)
		for (struct held *h; (h = STAILQ_FIRST(&wheel[*at_ms % WHEEL])) != NULL; free(h)) {
			STAILQ_REMOVE_HEAD(&wheel[*at_ms % WHEEL], next);
			deliver(h->to_back, h->peer, h->frame, h->len);
		}
}

int
main(int argc, char **argv)
{
	struct bus_options o = {.role = BUS_ROLE_CLIENT};
	struct err_note note = {0};
	struct bus_event e;
	int64_t at_ms = clock_now_ms();
	int rc;

	if (argc != 8)
		return 64;
	state = strtoull(argv[3], NULL, 10) * UINT64_C(0x9e3779b97f4a7c15) + 1;
	drop = (uint32_t)atoi(argv[4]);
	doubled = (uint32_t)atoi(argv[5]);
	delay = (uint32_t)atoi(argv[6]);
	max_ms = (uint32_t)atoi(argv[7]);
	if (max_ms < 1 || max_ms > WHEEL - 100)
		return 64;
	for (size_t i = 0; i < WHEEL; i++)
		STAILQ_INIT(&wheel[i]);
	stop_install();
	if ((rc = bus_new(&bus, &o, &note)) != 0 || (rc = bus_server_new(&front, bus, argv[1], &note)) != 0)
		die(rc, &note, argv[1]);
	if ((loop = bus_poll_new(bus)) == NULL || bus_poll_add_server(loop, front) != 0)
		die(ENOMEM, NULL, "poll");
	while (bus_poll_wait(loop, 2) == 0 && !stop_requested()) {
		while (bus_server_recv(front, &e) == 0) {
			struct link *l = link_of(e.peer);

			if (e.kind == BUS_EVENT_FRAME && l == NULL)
				open_link(e.peer, argv[2]);
			if (e.kind == BUS_EVENT_FRAME)
				pass(true, e.peer, &e);
			else if (l != NULL)
				close_link(l);
			bus_event_free(&e);
		}
		for (size_t i = 0; i < LINKS_MAX; i++)
			while (links[i].peer != 0 && bus_client_recv(links[i].client, &e) == 0) {
				if (e.kind == BUS_EVENT_FRAME)
					pass(false, links[i].peer, &e);
				bus_event_free(&e);
			}
		deliver_due(&at_ms);
	}
	printf("%" PRIu64 " frames, %" PRIu64 " dropped, %" PRIu64 " doubled, %" PRIu64 " delayed, %" PRIu64 " not taken\n", n_frames, n_dropped,
	    n_doubled, n_delayed, n_unsent);
	for (size_t i = 0; i < LINKS_MAX; i++)
		if (links[i].peer != 0)
			close_link(&links[i]);
	for (size_t i = 0; i < WHEEL; i++)
		for (struct held *h; (h = STAILQ_FIRST(&wheel[i])) != NULL; free(h)) {
			STAILQ_REMOVE_HEAD(&wheel[i], next);
			free(h->frame);
		}
	bus_server_destroy(&front);
	bus_poll_destroy(&loop);
	bus_destroy(&bus);
	return 0;
}
