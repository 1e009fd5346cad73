/* SPDX-License-Identifier: Apache-2.0 */
/* announce - run.dir/daemons/NAME.json: which daemon runs where, for saltctl. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file/file.h"
#include "base/json/json.h"
#include "base/mem/mem.h"
#include "fabric/status/status.h"

enum { ANNOUNCE_BYTES_MAX = 16384, ANNOUNCE_FILES_MAX = 65536 };

static bool
name_ok(const char *name)
{
	return name[0] != '\0' && name[0] != '.' && strlen(name) < STATUS_TEXT_MAX &&
	    name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")] == '\0';
}

void
status_announce_fill(struct status_announce *a, const char *role, const char *name, const char *status_endpoint, const char *data_endpoint)
{
	char host[256] = "";

	gethostname(host, sizeof(host) - 1);
	snprintf(a->role, sizeof(a->role), "%s", role);
	snprintf(a->name, sizeof(a->name), "%s", name);
	snprintf(a->host, sizeof(a->host), "%.*s", STATUS_TEXT_MAX - 1, host);
	a->pid = getpid();
	snprintf(a->status_endpoint, sizeof(a->status_endpoint), "%s", status_endpoint != NULL ? status_endpoint : "");
	snprintf(a->data_endpoint, sizeof(a->data_endpoint), "%s", data_endpoint != NULL ? data_endpoint : "");
}

static int
path_of(char path[PATH_MAX], const char *run_dir, const char *name)
{
	int n = name[0] != '\0' ? snprintf(path, PATH_MAX, "%s/daemons/%s.json", run_dir, name) :
	    snprintf(path, PATH_MAX, "%s/daemons", run_dir);

	return n < 0 || n >= PATH_MAX ? ENAMETOOLONG : 0;
}

int
status_announce_write(const char *run_dir, const struct status_announce *a, struct err_note *note)
{
	char path[PATH_MAX], *text;
	struct json *o;
	int rc;

	if (!name_ok(a->name))
		return err_expect(note, ERR_FORMAT, "name of the daemon", "fewer than %d letters, digits, '.', '_' and '-', not starting with a dot",
		    "%s", STATUS_TEXT_MAX, a->name);
	if ((rc = path_of(path, run_dir, a->name)) != 0)
		return err_note_set(note, rc, "%s", run_dir);
	o = json_build("{s:o, s:s, s:I, s:o, s:o, s:o}", "role", json_new_text(a->role), "name", a->name, "pid", (long long)a->pid,
	    "host", json_new_text(a->host), "status", json_new_text(a->status_endpoint), "data", json_new_text(a->data_endpoint));
	text = o != NULL ? json_print(o, true) : NULL;
	rc = text != NULL ? file_replace_all(path, text, strlen(text), false, note) : ENOMEM;
	json_close(&o);
	free(text);
	return rc;
}

static bool
take_text(const struct json *o, const char *key, char *out, size_t size)
{
	const char *s;

	if (!json_text(json_get(o, key), &s) || strlen(s) >= size)
		return false;
	memcpy(out, s, strlen(s) + 1);
	return true;
}

static int
read_one(const char *path, struct status_announce *a)
{
	struct json *o = NULL;
	bool good;
	int rc;

	if ((rc = json_parse_file(path, ANNOUNCE_BYTES_MAX, &o, NULL)) != 0)
		return rc;
	memset(a, 0, sizeof(*a));
	good = take_text(o, "role", a->role, sizeof(a->role)) && take_text(o, "name", a->name, sizeof(a->name)) &&
	    take_text(o, "host", a->host, sizeof(a->host)) && json_int(json_get(o, "pid"), &a->pid) &&
	    take_text(o, "status", a->status_endpoint, sizeof(a->status_endpoint)) &&
	    take_text(o, "data", a->data_endpoint, sizeof(a->data_endpoint));
	json_close(&o);
	return good && name_ok(a->name) ? 0 : ERR_FORMAT;
}

int
status_announce_remove(const char *run_dir, const char *name)
{
	char path[PATH_MAX];
	struct status_announce there, us;
	int rc;

	if (!name_ok(name))
		return ERR_FORMAT;
	if ((rc = path_of(path, run_dir, name)) != 0)
		return rc;
	if ((rc = read_one(path, &there)) != 0)
		return rc == ENOENT ? 0 : rc;
	status_announce_fill(&us, "", name, NULL, NULL);
	if (there.pid != us.pid || strcmp(there.host, us.host) != 0)
		return 0;
	return unlink(path) != 0 && errno != ENOENT ? errno : 0;
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(((const struct status_announce *)a)->name, ((const struct status_announce *)b)->name);
}

int
status_announce_list(const char *run_dir, struct status_announce **list, size_t *n, size_t *n_bad)
{
	char path[PATH_MAX];
	struct status_announce *found = NULL, one;
	struct dirent *entry;
	size_t cap = 0, count = 0, bad = 0;
	DIR *dir = NULL;
	int rc;

	*list = NULL;
	*n = 0;
	if ((rc = path_of(path, run_dir, "")) != 0)
		return rc;
	if ((dir = opendir(path)) == NULL) {
		rc = errno == ENOENT ? 0 : errno;
		goto out;
	}
	while (count < ANNOUNCE_FILES_MAX && (errno = 0, entry = readdir(dir)) != NULL) {
		size_t len = strlen(entry->d_name);

		if (entry->d_name[0] == '.' || len < 6 || strcmp(entry->d_name + len - 5, ".json") != 0)
			continue;
		if (snprintf(path, sizeof(path), "%s/daemons/%s", run_dir, entry->d_name) >= (int)sizeof(path)) {
			bad++;
			continue;
		}
		if ((rc = read_one(path, &one)) != 0) {
			bad += rc != ENOENT;		/* ENOENT: removed since readdir */
			continue;
		}
		if ((rc = mem_grow((void **)&found, &cap, count + 1, sizeof(*found))) != 0)
			goto out;
		found[count++] = one;
	}
	rc = 0;
	if (count > 0)
		qsort(found, count, sizeof(*found), by_name);
	*list = found;
	*n = count;
	found = NULL;
out:
	if (dir != NULL)
		closedir(dir);
	free(found);
	if (n_bad != NULL)
		*n_bad = bad;
	return rc;
}
