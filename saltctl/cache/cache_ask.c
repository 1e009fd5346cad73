/* SPDX-License-Identifier: Apache-2.0 */
/* A running selectord is the only writer of its cache, so `cache drop --write` asks it to drop the labels. */
#include "saltctl/cache/cache.h"

#include <stdio.h>
#include <sysexits.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "saltctl/core/selector.h"

#define WELCOME_MS 10000		/* give up after this time without a WELCOME */
#define AGAIN_MS 5000			/* repeat the request after this time without an answer */

int
cache_ask_drop(const struct ctl_args *args, const struct config *cfg, size_t shard, bool released_too,
    struct wire_dropped *out)
{
	struct wire_message request = {.type = WIRE_DROP_LABELS, .drop_labels = {1 + shard, released_too}};
	int64_t give_up_ms = clock_now_ms() + WELCOME_MS, send_ms = 0;
	struct session_event event = {0};
	struct selector s = {0};
	int exit_code = selector_open(&s, args, cfg, shard, 1, 0);
	bool done = exit_code != 0;

	while (!done && !stop_requested()) {
		int64_t now_ms = clock_now_ms();

		while (!done && session_next(s.session, &event) == 0) {
			exit_code = selector_failed(&s, &event);
			done = exit_code != 0;
			if (event.kind == SESSION_WELCOME)
				send_ms = 0;
			else if (event.kind == SESSION_LOST)
				give_up_ms = now_ms + WELCOME_MS;
			else if (event.kind == SESSION_MESSAGE && event.message->type == WIRE_DROPPED &&
			    event.message->dropped.request_id == request.drop_labels.request_id) {
				*out = event.message->dropped;
				done = true;
			}
		}
		if (done)
			break;
		if (session_welcomed(s.session, 0) && now_ms >= send_ms &&
		    session_send(s.session, 0, &request) == 0)
			send_ms = now_ms + AGAIN_MS;
		if (!session_welcomed(s.session, 0) && now_ms >= give_up_ms) {
			fprintf(stderr, "saltctl %s: no answer from selectord at %s in %d s\n",
			    args->verb->name, session_endpoint(s.session, 0), WELCOME_MS / 1000);
			break;
		}
		bus_poll_wait(s.poll, 100);
	}
	session_event_free(&event);
	if (s.session != NULL)
		session_bye(s.session, "done");
	selector_close(&s);
	return done ? exit_code : EX_UNAVAILABLE;
}
