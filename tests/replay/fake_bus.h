/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_bus - an implementation of bus.h without a network, chosen at link time. A script decides what arrives
 * and how time passes; sent frames are recorded. The real loop and the real handlers run against it. Wakers
 * are the real ones, so that other threads can wake the loop.
 *
 * There is one script at a time, with fake_bus_reset() between scripts. The loop's thread runs it:
 * bus_poll_wait returns at once while pushed items are left; then it calls the script, which pushes more or
 * returns how to wait:
 *
 *	static enum fake_step
 *	script(void *arg, int step)
 *	{
 *		switch (step) {
 *		case 0: fake_bus_push(SERVER, PEER, frame, len); return FAKE_GO;
 *		case 1: return fake_bus_n_sent() == 0 ? FAKE_AGAIN_WHEN_WOKEN : FAKE_GO;	(wait for the writer thread)
 *		case 2: return FAKE_TIMEOUT;						(time jumps to the end of the poll)
 *		default: return FAKE_STOP;						(as SIGTERM)
 *		}
 *	}
 */
#ifndef SALT_FAKE_BUS_H
#define SALT_FAKE_BUS_H

#include "fabric/bus/bus.h"

enum fake_step {
	FAKE_GO,			/* the loop runs with what was pushed; the next call is for the next step */
	FAKE_TIMEOUT,			/* the poll times out: the clock moves to its end; endless: fails */
	FAKE_AGAIN_WHEN_WOKEN,		/* waits for a waker, at most 10 s; the loop runs; this step again */
	FAKE_STOP			/* a stop is requested; the script continues while the loop drains */
};

typedef enum fake_step fake_script_fn(void *arg, int step);

/* fake_bus_reset - clears all state and sets the clock to start_ms. Objects made before stay valid. */
void fake_bus_reset(int64_t start_ms, fake_script_fn *script, void *arg);
void fake_bus_advance(int64_t ms);		/* advances the clock */

/*
 * Sockets are numbered: the first server or client made after a reset is 0, the next 1, and so on.
 * fake_bus_push - lets a frame arrive (it is copied). @peer: for servers; 0 for clients.
 * fake_bus_push_event - lets GONE, CONNECTED, DISCONNECTED or REFUSED arrive. A client can send after recv
 * has returned CONNECTED.
 */
void fake_bus_push(int socket, uint64_t peer, const void *frame, size_t len);
void fake_bus_push_event(int socket, uint64_t peer, enum bus_event_kind kind);

/* fake_bus_send_rc - sets what sending to this peer (0 for a client) returns: 0, ERR_AGAIN or ERR_CLOSED. */
void fake_bus_send_rc(int socket, uint64_t peer, int rc);

/* A sent frame; valid until the next reset. ended: not a frame but a call of bus_server_end. */
struct fake_sent {
	int64_t at_ms;
	int socket;
	uint64_t peer;
	const uint8_t *frame;
	size_t len;
	bool ended;
};

size_t fake_bus_n_sent(void);
const struct fake_sent *fake_bus_sent(size_t i);	/* i-th oldest; NULL past the end */

/*
 * fake_bus_ask - gets the answer of a status socket (malloc'ed). @status: its number, counted from 0 since
 * the reset. Returns 0 or ERR_NOT_FOUND.
 */
int fake_bus_ask(int status, const void *body, size_t len, uint8_t **answer, size_t *answer_len);

#endif
