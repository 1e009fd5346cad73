/* SPDX-License-Identifier: Apache-2.0 */
/* Tests the fake bus itself: a small loop behaves on it as on the real bus. */
#include "replay/fake_bus.h"

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "check.h"

static enum fake_step
script(void *arg, int step)
{
	struct bus_waker *waker = arg;

	switch (step) {
	case 0:
		CHECK(clock_now_ms() == 1000);
		fake_bus_push(0, 7, "hello", 5);
		fake_bus_push_event(1, 0, BUS_EVENT_CONNECTED);
		return FAKE_GO;
	case 1:
		CHECK(fake_bus_n_sent() == 2);
		return FAKE_TIMEOUT;
	case 2:
		CHECK(clock_now_ms() == 1500);
		fake_bus_send_rc(0, 7, ERR_AGAIN);
		fake_bus_push(0, 7, "more", 4);
		bus_waker_wake(waker);
		return FAKE_GO;
	default:
		return FAKE_STOP;
	}
}

static void
say(void *arg, const uint8_t *body, size_t len, uint8_t **answer, size_t *answer_len)
{
	(void)body;
	*answer = (uint8_t *)strdup(arg);
	*answer_len = strlen(arg) + len;
}

int
main(void)
{
	struct bus_waker *waker = bus_waker_new();
	struct bus *bus = NULL;
	struct bus_server *server = NULL;
	struct bus_client *client = NULL;
	struct bus_status *status = NULL;
	struct bus_event event;
	struct bus_poll *poll;
	uint8_t *answer;
	size_t len;
	int again = 0;

	fake_bus_reset(1000, script, waker);
	REQUIRE(bus_new(&bus, &(struct bus_options){0}, NULL) == 0 && bus_server_new(&server, bus, "a", NULL) == 0);
	REQUIRE(bus_client_new(&client, bus, "b", NULL, NULL) == 0 && (poll = bus_poll_new(bus)) != NULL);
	REQUIRE(bus_status_new(&status, bus, "c", say, "fine", NULL) == 0);
	bus_poll_add_waker(poll, waker);
	CHECK(bus_client_send(client, malloc(1), 1) == ERR_CLOSED);
	while (bus_poll_wait(poll, 500) == 0 && !stop_requested()) {
		while (bus_server_recv(server, &event) == 0) {
			again += bus_server_send(server, event.peer, calloc(1, 3), 3) == ERR_AGAIN;
			bus_event_free(&event);
		}
		while (bus_client_recv(client, &event) == 0) {
			CHECK(event.kind == BUS_EVENT_CONNECTED && bus_client_send(client, calloc(1, 4), 4) == 0);
			bus_event_free(&event);
		}
	}
	CHECK(again == 1 && fake_bus_n_sent() == 2);
	CHECK(fake_bus_sent(0)->peer == 7 && fake_bus_sent(0)->len == 3 && fake_bus_sent(0)->at_ms == 1000);
	CHECK(fake_bus_sent(1)->socket == 1 && fake_bus_sent(1)->len == 4 && fake_bus_sent(2) == NULL);
	CHECK(fake_bus_ask(0, "", 0, &answer, &len) == 0 && len == 4 && memcmp(answer, "fine", 4) == 0);
	free(answer);
	fake_bus_reset(0, NULL, NULL);
	bus_status_destroy(&status);
	bus_client_destroy(&client);
	bus_server_destroy(&server);
	bus_poll_destroy(&poll);
	bus_waker_destroy(&waker);
	bus_destroy(&bus);
	return check_done();
}
