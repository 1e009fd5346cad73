/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The identities of a run: salt_checkpointed stores the options and the identities of corpora and label set
 * in run.dir. A trainer that is opened there later with others is rejected, because the run would continue
 * with other rows.
 */
#include "client/client_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file/file.h"
#include "base/json/json.h"

#define IDENTITIES_BYTES_MAX 65536
#define VERSION 1

enum { CORPUS, HELDOUT, LABEL_SET, TEACHER, N_IDS };

static const char *const keys[N_IDS] = {"corpus", "heldout", "label_set", "teacher"};

static void
path_of(const struct salt *s, char *path, size_t size)
{
	snprintf(path, size, "%s/identities.json", s->config->run.dir);
}

/* Pointers to the run's identities. Lock held, or before there are threads. */
static void
ids_of(struct salt *s, struct wire_id *of[N_IDS])
{
	of[CORPUS] = &s->hello.corpus.fingerprint;
	of[HELDOUT] = &s->hello.heldout.fingerprint;
	of[LABEL_SET] = &s->label_set;
	of[TEACHER] = &s->label_teacher;
}

/* Compares the stored options with the present ones. */
static int
check_options(const struct salt *s, struct err_note *note)
{
	struct config *old = NULL;
	char path[4200];
	int rc;

	config_stored(s->config->run.dir, path, sizeof(path));
	if (access(path, F_OK) != 0)
		return 0;
	if ((rc = config_load(path, NULL, 0, &old, note)) == 0 && (rc = config_identity_diff(old, s->config, note)) != 0)
		err_note_place(note,
		    "%.200s belongs to a run with a different value: use another run.dir, or the old value",
		    path);
	config_destroy(&old);
	return rc;
}

/*
 * Reads one stored identity. A corpus is compared here; the label set is compared by selectord, which gets it
 * in HELLO.
 */
static int
take_id(struct salt *s, const char *path, const struct json *o, int which, struct err_note *note)
{
	char was_hex[HASH_HEX_BYTES], is_hex[HASH_HEX_BYTES];
	struct wire_id *of[N_IDS], was = {true, {0, 0}};
	const struct json *j = json_get(o, keys[which]);
	const char *hex;

	ids_of(s, of);
	if (j == NULL)
		return 0;
	if (!json_text(j, &hex) || hash_from_hex(&was.hash, hex) != 0)
		return err_expect(note, ERR_CONFIG, "%s", "32 hex digits", "%s", keys[which], json_kind_name(json_kind(j)));
	if (which == LABEL_SET || which == TEACHER) {
		*of[which] = was;
		return 0;
	}
	if (of[which]->known && hash_equal(of[which]->hash, was.hash))
		return 0;
	err_expect(note, ERR_MISMATCH, "corpus.%s (fingerprint)", "%s", "%s", which == CORPUS ? "train" : "heldout",
	    hash_hex(was.hash, was_hex), of[which]->known ? hash_hex(of[which]->hash, is_hex) : "none");
	err_note_place(note,
	    "%.200s belongs to a run with a different corpus: use another run.dir, or the old corpus", path);
	return ERR_MISMATCH;
}

int
client__run_check(struct salt *s, struct salt_error *e)
{
	struct err_note note = {.name = ""};
	struct json *o = NULL;
	char path[4200];
	int rc;

	if (s->config->run.dir[0] == '\0')
		return SALT_OK;
	path_of(s, path, sizeof(path));
	if ((rc = check_options(s, &note)) != 0 || access(path, F_OK) != 0)
		return rc != 0 ? client__fail(e, rc, &note) : SALT_OK;
	rc = json_parse_file(path, IDENTITIES_BYTES_MAX, &o, &note);
	for (int i = 0; i < N_IDS && rc == 0; i++)
		if ((rc = take_id(s, path, o, i, &note)) != 0 && note.place[0] == '\0')
			err_note_place(&note, "%.200s", path);
	json_close(&o);
	if (rc != 0)
		return client__fail(e, rc, &note);
	s->hello.label_set.hash = s->label_set;
	s->hello.label_set.teacher = s->label_teacher;
	return SALT_OK;
}

static int
store_ids(const struct salt *s, const struct wire_id ids[N_IDS], struct err_note *note)
{
	struct json *o = json_build("{s:i}", "version", VERSION);
	char path[4200], hex[HASH_HEX_BYTES], *text = NULL;
	int rc = o != NULL ? 0 : ENOMEM;

	path_of(s, path, sizeof(path));
	for (int i = 0; i < N_IDS && rc == 0; i++)
		if (ids[i].known)
			rc = json_put(o, keys[i], json_new_text(hash_hex(ids[i].hash, hex)));
	if (rc == 0 && (text = json_print(o, true)) == NULL)
		rc = ENOMEM;
	if (rc == 0)
		rc = file_replace_all(path, text, strlen(text), true, note);
	free(text);
	json_close(&o);
	return rc;
}

int
client__run_store(struct salt *s, struct salt_error *e)
{
	const char *dir = s->config->run.dir;
	struct err_note note = {.name = ""};
	struct wire_id ids[N_IDS], *of[N_IDS];
	int rc;

	if (dir[0] == '\0' || s->hello.rank != 0)
		return SALT_OK;
	pthread_mutex_lock(&s->run_lock);
	pthread_mutex_lock(&s->lock);
	ids_of(s, of);
	for (int i = 0; i < N_IDS; i++)
		ids[i] = *of[i];
	pthread_mutex_unlock(&s->lock);
	rc = 0;
	if (!s->run_stored && (rc = file_make_dirs(dir, 0777, &note)) == 0 && (rc = config_store(s->config, dir, &note)) == 0)
		rc = store_ids(s, ids, &note);
	else if (rc == 0 && ids[LABEL_SET].known && !s->label_set_stored)	/* became known after the
										   first store */
		rc = store_ids(s, ids, &note);
	if (rc == 0) {
		s->run_stored = true;
		s->label_set_stored = ids[LABEL_SET].known;
	}
	pthread_mutex_unlock(&s->run_lock);
	return rc != 0 ? client__fail(e, rc, &note) : SALT_OK;
}
