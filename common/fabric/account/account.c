/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/account/account.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file/file.h"
#include "base/json/json.h"
#include "fabric/bus/bus.h"

int
account_write(const struct account *a, struct err_note *note)
{
	char path[4400], hex[HASH_HEX_BYTES], *text;
	struct json *o;
	int rc;

	if (a->run_dir[0] == '\0')
		return 0;
	snprintf(path, sizeof(path), "%s/ledger/%.64s-%.8s.json", a->run_dir, a->name,
	    hash_hex(a->boot_id, hex));
	o = json_build("{s:s, s:o, s:o, s:I, s:i, s:I, s:I, s:f, s:f}", "role", "teacherd", "name",
	    json_new_text(a->name), "host", json_new_text(bus_host()), "pid", (int64_t)getpid(), "threads",
	    a->threads, "sequences", (int64_t)a->sequences, "tokens", (int64_t)a->tokens, "cpu_seconds",
	    a->cpu_seconds, "up_seconds", a->up_seconds);
	text = o != NULL ? json_print(o, true) : NULL;
	json_close(&o);
	rc = text != NULL ? file_replace_all(path, text, strlen(text), false, note) : ENOMEM;
	free(text);
	return rc;
}
