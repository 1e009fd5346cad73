/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client_internal.h"

#include <stdlib.h>
#include <string.h>

int
salt_status(const char *endpoint, int timeout_ms, char **json, struct salt_error *e)
{
	const struct bus_options o = {.role = BUS_ROLE_NONE};
	struct bus_ask ask = {.endpoint = endpoint};
	struct err_note note = {.name = ""};
	struct bus_asker *asker = NULL;
	struct bus *bus = NULL;
	int rc;

	*json = NULL;
	if ((rc = bus_new(&bus, &o, &note)) != 0 || (rc = bus_asker_new(&asker, bus)) != 0 ||
	    (rc = bus_asker_ask(asker, &ask, "json", 4, timeout_ms < 0 ? INT64_MAX / 2 : timeout_ms)) != 0)
		goto out;
	while (bus_asker_next(asker, 1000) == NULL && bus_asker_open(asker) > 0)
		;
	if ((rc = ask.rc) != 0)
		err_note_set(&note, rc, "status socket %.200s", endpoint);
	else if (ask.len == 0 || ask.answer[0] != '{' || (*json = strndup((const char *)ask.answer, ask.len)) == NULL)
		rc = err_expect(&note, ERR_FORMAT, "status socket %.200s", "a JSON object", "%zu other bytes", endpoint, ask.len);
	free(ask.answer);
out:
	bus_asker_destroy(&asker);
	bus_destroy(&bus);
	return rc == 0 ? client__ok(e) : client__fail(e, rc, &note);
}
