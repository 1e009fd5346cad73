#include "teacherd/account.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "fabric/bus/bus.h"
#include "base/json/json.h"
#include "fabric/daemon/presence.h"

int
account_write(const struct account *a, struct err_note *note)
{
	char dir[4200], path[4400], temp[4420], hex[HASH_HEX_BYTES];
	struct json *o;
	char *text = NULL;
	FILE *f;
	int rc;

	if (a->run_dir[0] == '\0')
		return 0;
	snprintf(dir, sizeof(dir), "%s/ledger", a->run_dir);
	if ((rc = presence_make_directory(dir, note)) != 0)
		return rc;
	snprintf(path, sizeof(path), "%s/%.64s-%.8s.json", dir, a->name, hash_hex(bus_boot_id(), hex));
	snprintf(temp, sizeof(temp), "%s.tmp", path);
	o = json_new_object();
	if (o != NULL && json_put(o, "role", json_new_text("teacherd")) == 0 && json_put(o, "name", json_new_text(a->name)) == 0 &&
	    json_put(o, "host", json_new_text(bus_host())) == 0 && json_put(o, "pid", json_new_int((int64_t)getpid())) == 0 &&
	    json_put(o, "threads", json_new_int(a->threads)) == 0 &&
	    json_put(o, "sequences", json_new_int((int64_t)a->sequences)) == 0 && json_put(o, "tokens", json_new_int((int64_t)a->tokens)) == 0 &&
	    json_put(o, "cpu_seconds", json_new_num(a->cpu_seconds)) == 0 && json_put(o, "up_seconds", json_new_num(a->up_seconds)) == 0)
		text = json_print(o, true);
	json_close(&o);
	if (text == NULL)
		return ENOMEM;
	if ((f = fopen(temp, "we")) == NULL) {
		rc = err_note_set(note, errno, "%s", temp);
	} else {
		int bad = fputs(text, f) < 0;

		if (fclose(f) != 0 || bad || rename(temp, path) != 0) {
			rc = err_note_set(note, errno != 0 ? errno : EIO, "%s", path);
			unlink(temp);
		}
	}
	free(text);
	return rc;
}
