/* SPDX-License-Identifier: Apache-2.0 */
/* Reads manifests; lists, verifies and prunes checkpoints. */
#include "engine/checkpoint/checkpoint_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err/crash.h"
#include "base/file/file.h"
#include "base/hash/hash.h"
#include "base/json/json.h"
#include "base/log/log.h"
#include "base/mem/mem.h"

#define MAX_MANIFEST_BYTES ((size_t)64 << 20)
#define READ_BYTES ((size_t)1 << 20)

static int
manifest_files(const char *file, const struct json *files, struct checkpoint_files *list, struct err_note *note)
{
	for (void *it = json_first(files); it != NULL; it = json_next(files, it)) {
		const char *name = json_key(it), *hex;
		struct weights_file f = {0};
		int64_t size;

		if (strlen(name) >= sizeof(f.name) || name[0] == '\0' || strchr(name, '/') != NULL || strcmp(name, "..") == 0)
			return checkpoint__note(note, ERR_FORMAT, file, name, "a file name");
		snprintf(f.name, sizeof(f.name), "%s", name);
		if (!json_int(json_get(json_value(it), "size_bytes"), &size) || size < 0)
			return checkpoint__note(note, ERR_FORMAT, file, name, "size_bytes of at least 0");
		if (!json_text(json_get(json_value(it), "xxh3_128"), &hex) || hash_from_hex(&f.hash, hex) != 0)
			return checkpoint__note(note, ERR_FORMAT, file, name, "xxh3_128 of 32 hex digits");
		f.size_bytes = (uint64_t)size;
		if (checkpoint_files_add(list, &f) != 0)
			return checkpoint__note(note, ENOMEM, file, name, "memory");
	}
	return list->n > 0 ? 0 : checkpoint__note(note, ERR_FORMAT, file, "files", "an object that is not empty");
}

int
checkpoint__manifest(const char *path, struct checkpoint_files *list, uint64_t *step, struct err_note *note)
{
	char file[CHECKPOINT_PATH_BYTES + 32];
	struct json *root = NULL;
	const char *format;
	int64_t v = 0;
	int rc;

	*list = (struct checkpoint_files){0};
	snprintf(file, sizeof(file), "%s/" CHECKPOINT__MANIFEST, path);
	if ((rc = json_parse_file(file, MAX_MANIFEST_BYTES, &root, note)) != 0)
		return rc;
	if (!json_text(json_get(root, "format"), &format) || strcmp(format, "saltfleet-checkpoint") != 0)
		rc = checkpoint__note(note, ERR_FORMAT, file, "format", "saltfleet-checkpoint");
	else if (!json_int(json_get(root, "version"), &v) || v != 1)
		rc = checkpoint__note(note, ERR_VERSION, file, "version", "1");
	else if (!json_int(json_get(root, "step"), &v) || v < 0)
		rc = checkpoint__note(note, ERR_FORMAT, file, "step", "an integer of at least 0");
	else
		rc = manifest_files(file, json_get(root, "files"), list, note);
	*step = (uint64_t)v;
	json_close(&root);
	if (rc != 0) {
		free(list->files);
		*list = (struct checkpoint_files){0};
	}
	return rc;
}

static int
hash_plain(const char *path, uint64_t size, struct hash128 *out, struct err_note *note)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = fd < 0 ? errno : 0;
	struct hash_state *h = hash_new();
	unsigned char *buf = malloc(READ_BYTES);

	if (rc == 0 && (h == NULL || buf == NULL))
		rc = ENOMEM;
	if (rc != 0)
		err_note_set(note, rc, "%s", path);
	for (uint64_t at = 0, n; rc == 0 && at < size; at += n) {
		n = size - at < READ_BYTES ? size - at : READ_BYTES;
		if ((rc = file_pread(fd, path, at, buf, n, note)) == 0)
			hash_update(h, buf, n);
	}
	if (rc == 0)
		*out = hash_digest(h);
	if (fd >= 0)
		close(fd);
	free(buf);
	hash_destroy(&h);
	return rc;
}

static int
verify_file(const char *path, const struct weights_file *f, enum checkpoint_check check, struct err_note *note)
{
	char file[CHECKPOINT_PATH_BYTES + WEIGHTS_NAME_BYTES], want[HASH_HEX_BYTES], found[HASH_HEX_BYTES];
	struct hash128 h;
	struct stat st;
	int rc;

	snprintf(file, sizeof(file), "%s/%s", path, f->name);
	if (stat(file, &st) != 0)
		return err_note_set(note, errno == ENOENT ? ERR_NOT_FOUND : errno, "%s", file);
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != f->size_bytes)
		return err_expect(note, ERR_CORRUPT, "%s", "%" PRIu64 " bytes", "%" PRId64, file, f->size_bytes, (int64_t)st.st_size);
	if (check == CHECKPOINT_SIZES)
		return 0;
	if ((rc = hash_plain(file, f->size_bytes, &h, note)) != 0)
		return rc;
	if (!hash_equal(h, f->hash))
		return err_expect(note, ERR_CORRUPT, "%s", "xxh3-128 %s, as in MANIFEST.json",
		    "%s: its bytes changed; restore it, or take another checkpoint "
		    "(for a model alone, if the change is intended, remove MANIFEST.json)",
		    file, hash_hex(f->hash, want), hash_hex(h, found));
	return 0;
}

int
checkpoint_verify(const char *path, enum checkpoint_check check, struct err_note *note)
{
	struct checkpoint_files list;
	uint64_t step, named;
	const char *slash;
	int rc;

	if (strlen(path) >= CHECKPOINT_PATH_BYTES)
		return err_note_set(note, ENAMETOOLONG, "%s", path);
	if ((rc = checkpoint__manifest(path, &list, &step, note)) != 0)
		return rc;
	slash = strrchr(path, '/');
	if (checkpoint__name(slash != NULL ? slash + 1 : path, false, &named) && named != step)
		rc = err_expect(note, ERR_MISMATCH, "%s", "step %" PRIu64 ", as in its name", "%" PRIu64 " in the manifest", path, named, step);
	for (size_t i = 0; i < list.n && rc == 0; i++)
		rc = verify_file(path, &list.files[i], check, note);
	free(list.files);
	return rc;
}

int
checkpoint_verify_model(const char *dir, bool *is, struct err_note *note)
{
	char file[CHECKPOINT_PATH_BYTES + 32];
	struct checkpoint_files list;
	unsigned rank, n_ranks;
	uint64_t step;
	int rc;

	*is = false;
	if (strlen(dir) >= CHECKPOINT_PATH_BYTES)
		return err_note_set(note, ENAMETOOLONG, "%s", dir);
	snprintf(file, sizeof(file), "%s/" CHECKPOINT__MANIFEST, dir);
	if (access(file, F_OK) != 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : err_note_set(note, errno, "%s", file);
	*is = true;
	if ((rc = checkpoint__manifest(dir, &list, &step, note)) != 0)
		return rc;
	for (size_t i = 0; i < list.n && rc == 0; i++)
		if (!checkpoint__optim_name(list.files[i].name, &rank, &n_ranks) &&
		    strcmp(list.files[i].name, "state.json") != 0)
			rc = verify_file(dir, &list.files[i], CHECKPOINT_HASHES, note);
	free(list.files);
	return rc;
}

static int
by_step(const void *a, const void *b)
{
	const struct checkpoint_info *x = a, *y = b;

	return x->step < y->step ? -1 : x->step > y->step;
}

/* As checkpoint_list; all: also folders without a manifest. */
static int
list_named(const char *root, bool all, struct checkpoint_info **out, size_t *n_out, struct err_note *note)
{
	char file[CHECKPOINT_PATH_BYTES + 32];
	struct checkpoint_info info;
	size_t n = 0, cap = 0;
	struct checkpoint_info *list = NULL;
	struct dirent *e;
	DIR *d = opendir(root);
	int rc = 0;

	*out = NULL;
	*n_out = 0;
	if (d == NULL)
		return errno == ENOENT ? 0 : err_note_set(note, errno, "%s", root);
	while ((e = readdir(d)) != NULL && rc == 0) {
		if (!checkpoint__name(e->d_name, false, &info.step))
			continue;
		if (strlen(root) + strlen(e->d_name) + 1 >= CHECKPOINT_PATH_BYTES - WEIGHTS_NAME_BYTES) {
			rc = err_note_set(note, ENAMETOOLONG, "%s", root);
			break;
		}
		snprintf(info.path, sizeof(info.path), "%s/%s", root, e->d_name);
		snprintf(file, sizeof(file), "%s/" CHECKPOINT__MANIFEST, info.path);
		if (!all && access(file, F_OK) != 0)
			continue;
		if ((rc = mem_grow((void **)&list, &cap, n + 1, sizeof(info))) != 0)
			err_note_set(note, rc, "%s", root);
		else
			list[n++] = info;
	}
	closedir(d);
	if (rc != 0) {
		free(list);
		return rc;
	}
	if (n > 0)
		qsort(list, n, sizeof(info), by_step);
	*out = list;
	*n_out = n;
	return 0;
}

int
checkpoint_list(const char *root, struct checkpoint_info **out, size_t *n_out, struct err_note *note)
{
	return list_named(root, false, out, n_out, note);
}

bool
checkpoint_any(const char *root)
{
	struct checkpoint_info *list = NULL;
	size_t n = 0;
	bool any = list_named(root, true, &list, &n, NULL) != 0 || n > 0;

	free(list);
	return any;
}

/*
 * Verifies a checkpoint as checkpoint_verify does, but a folder without a manifest is damaged: a checkpoint
 * gets its name only after its manifest was synced.
 */
static int
verify_named(const char *path, enum checkpoint_check check, struct err_note *note)
{
	int rc = checkpoint_verify(path, check, note);

	if (rc != ENOENT)
		return rc;
	return err_expect(note, ERR_CORRUPT, "%s",
	    CHECKPOINT__MANIFEST " in it, which every checkpoint has; restore it, or move the folder away",
	    "none", path);
}

int
checkpoint_find_latest(const char *root, enum checkpoint_check check, struct checkpoint_info *out, struct err_note *note)
{
	struct checkpoint_info *list;
	struct err_note first = {0}, one;
	int rc, first_rc = ERR_NOT_FOUND;
	char text[1200], quoted[1400];
	size_t n;

	if ((rc = list_named(root, true, &list, &n, note)) != 0)
		return rc;
	while (n-- > 0) {
		memset(&one, 0, sizeof(one));
		if ((rc = verify_named(list[n].path, check, &one)) == 0) {
			*out = list[n];
			free(list);
			return 0;
		}
		log_warn("checkpoint.skipped", "step=%" PRIu64 " reason=%s", list[n].step,
		    log_quote(err_note_str(&one, rc, text, sizeof(text)), quoted, sizeof(quoted)));
		if (first_rc == ERR_NOT_FOUND) {
			first_rc = ERR_CORRUPT;
			first = one;
		}
	}
	free(list);
	if (first_rc == ERR_NOT_FOUND)
		return err_note_set(note, ERR_NOT_FOUND, "%s", root);
	if (note != NULL)
		*note = first;
	return first_rc;
}

/* A leftover only takes space, so it is not an error. */
static void
warn_left(const struct err_note *why, int rc)
{
	char text[1024], quoted[1200];

	log_warn("checkpoint.left", "why=%s", log_quote(err_note_str(why, rc, text, sizeof(text)), quoted, sizeof(quoted)));
}

int
checkpoint_clean(const char *root, size_t *n_removed, struct err_note *note)
{
	char path[CHECKPOINT_PATH_BYTES];
	DIR *d = opendir(root);
	struct err_note why;
	struct dirent *e;
	size_t n = 0;
	uint64_t step;
	int rc = 0, one;

	if (d == NULL)
		rc = errno == ENOENT ? 0 : err_note_set(note, errno, "%s", root);
	while (d != NULL && rc == 0 && (e = readdir(d)) != NULL) {
		if (!checkpoint__name(e->d_name, true, &step) || (rc = checkpoint__path(root, step, true, path, note)) != 0)
			continue;
		if ((one = file_remove_tree(path, &why)) == 0)
			n++;
		else
			warn_left(&why, one);
	}
	if (d != NULL)
		closedir(d);
	if (n_removed != NULL)
		*n_removed = n;
	return rc;
}

/*
 * The directory is renamed before its files are removed: an incomplete one never has a complete one's name.
 */
static int
remove_one(const char *root, const struct checkpoint_info *info, struct err_note *note)
{
	char temp[CHECKPOINT_PATH_BYTES];
	int rc;

	if ((rc = checkpoint__path(root, info->step, true, temp, note)) != 0 || (rc = checkpoint__make_way(temp, note)) != 0)
		return rc;
	if (rename(info->path, temp) != 0)
		return checkpoint__note(note, errno, info->path, "rename", "");
	if ((rc = file_sync_dir(root, note)) != 0)
		return rc;
	crash_point("checkpoint.prune");
	if ((rc = file_remove_tree(temp, note)) != 0)
		return rc;
	crash_point("checkpoint.pruned");
	return 0;
}

int
checkpoint_prune(const char *root, unsigned n_keep, const uint64_t *keep_steps, size_t n_keep_steps, size_t *n_removed,
    struct err_note *note)
{
	struct checkpoint_info *list;
	struct err_note why;
	struct stat st;
	size_t n, gone = 0;
	int rc, one;

	if (n_removed != NULL)
		*n_removed = 0;
	if (n_keep == 0)
		n_keep = 1;
	if ((rc = checkpoint_list(root, &list, &n, note)) != 0)
		return rc;
	if (n > n_keep)
		rc = checkpoint_verify(list[n - 1].path, CHECKPOINT_HASHES, note);
	for (size_t i = 0; rc == 0 && i + n_keep < n; i++) {
		bool keep = lstat(list[i].path, &st) == 0 && S_ISLNK(st.st_mode);	/* moved elsewhere by the user */

		for (size_t k = 0; k < n_keep_steps && !keep; k++)
			keep = keep_steps[k] == list[i].step;
		if (keep)
			continue;
		if ((one = remove_one(root, &list[i], &why)) == 0)
			gone++;
		else
			warn_left(&why, one);
	}
	if (n_removed != NULL)
		*n_removed = gone;
	free(list);
	return rc;
}
