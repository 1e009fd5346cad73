/* SPDX-License-Identifier: Apache-2.0 */
#include "data/modelfiles/modelfiles.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int
counts(const struct dirent *e)
{
	const char *dot = strrchr(e->d_name, '.');

	return e->d_name[0] != '.' &&
	    (strcmp(e->d_name, "config.json") == 0 || (dot != NULL && strcmp(dot, ".safetensors") == 0));
}

/* Replaces alphasort, whose order depends on the locale. */
static int
by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int
add_file(struct hash_state *h, const char *dir, const char *name, struct err_note *note)
{
	struct hash128 root;
	char path[4096];
	int rc;

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) >= sizeof(path))
		return err_note_set(note, ENAMETOOLONG, "%s", dir);
	if ((rc = hash_file(path, &root, note)) != 0)
		return rc;
	hash_field_str(h, "name", name);
	hash_field(h, "file", &root, sizeof(root));
	return 0;
}

int
modelfiles_hash(const char *dir, struct hash128 *out, struct err_note *note)
{
	struct dirent **list = NULL;
	int n = scandir(dir, &list, counts, by_bytes), n_weights = 0, rc = 0;
	struct hash_state *h = hash_new();
	bool config = false;

	if (n < 0) {
		rc = err_note_set(note, errno, "%s", dir);
		if (rc == ENOTDIR)
			err_note_expected(note, "a model's folder, with config.json and safetensors");
		goto out;
	}
	if (h == NULL) {
		rc = err_note_set(note, ENOMEM, "%s", dir);
		goto out;
	}
	hash_field_str(h, "salt_model_files", "1");
	for (int i = 0; i < n; i++)
		if (strcmp(list[i]->d_name, "config.json") == 0)
			config = true;
		else
			n_weights++;
	if (!config)
		rc = err_note_set(note, ENOENT, "%s/config.json", dir);
	else if (n_weights == 0)
		rc = err_expect(note, ERR_NOT_FOUND, "%s",
		    "weights in *.safetensors, which save_pretrained of transformers writes", "none", dir);
	for (int i = 0; i < n && rc == 0; i++)
		rc = add_file(h, dir, list[i]->d_name, note);
	if (rc == 0)
		*out = hash_digest(h);
out:
	for (int i = 0; i < n; i++)
		free(list[i]);
	free(list);
	hash_destroy(&h);
	return rc;
}
