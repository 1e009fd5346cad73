/* events - every line of the log, as it is said, to whoever subscribes. */
#include <stdio.h>
#include <string.h>

#include "base/log/log.h"
#include "fabric/daemon/presence.h"

static void
tell(void *arg, enum log_level level, const char *event, const char *line)
{
	(void)level;
	bus_events_send(arg, event, line);
}

void
presence_events_open(struct bus_events **out, struct bus *bus, const char *status_bind, struct status *status)
{
	struct err_note note = {.name = ""};
	char endpoint[BUS_ENDPOINT_MAX], text[1200], quoted[1400];
	const char *port = strrchr(status_bind, ':');
	int rc;

	if (strncmp(status_bind, "ipc://", 6) == 0)
		snprintf(endpoint, sizeof(endpoint), "%s.events", status_bind);
	else
		snprintf(endpoint, sizeof(endpoint), "%.*s:*", (int)(port - status_bind), status_bind);
	if ((rc = bus_events_publish(out, bus, endpoint, &note)) != 0) {
		log_warn("events.none", "why=%s", log_quote(err_note_str(&note, rc, text, sizeof(text)), quoted, sizeof(quoted)));
		return;
	}
	status_events(status, bus_events_endpoint(*out));
	log_tap(tell, *out);
}

void
presence_events_close(struct bus_events **events)
{
	if (*events != NULL)
		log_tap(NULL, NULL);
	bus_events_destroy(events);
}
