/* SPDX-License-Identifier: Apache-2.0 */
/* An open set of tensors: one file, or an index and its shards. */
#include "engine/weights/weights_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_INDEX_BYTES ((size_t)100000000)

struct shard {
	char path[4096];
	void *map;
	size_t size;
	struct weights__table table;
};

struct weights {
	struct shard **shards;			/* in the order of their names */
	size_t n_shards, cap_shards;
	struct weights_tensor *tensors;		/* in name order */
	size_t n_tensors;
};

bool
weights__file_name(const char *name)
{
	return name[0] != '\0' && strlen(name) < WEIGHTS_NAME_BYTES && strchr(name, '/') == NULL && strcmp(name, ".") != 0 &&
	    strcmp(name, "..") != 0;
}

static int
add_shard(struct weights *w, const char *path, struct err_note *note)
{
	struct shard *s = calloc(1, sizeof(*s));
	void *list = w->shards;
	struct stat st;
	int fd = -1, rc = 0;

	if (s == NULL || mem_grow(&list, &w->cap_shards, w->n_shards + 1, sizeof(*w->shards)) != 0) {
		rc = err_note_set(note, ENOMEM, "%s", path);
		goto out;
	}
	w->shards = list;
	if ((size_t)snprintf(s->path, sizeof(s->path), "%s", path) >= sizeof(s->path)) {
		rc = err_note_set(note, ENAMETOOLONG, "%s", path);
		goto out;
	}
	if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0 || fstat(fd, &st) != 0) {
		rc = err_note_set(note, errno, "%s", path);
		goto out;
	}
	if (!S_ISREG(st.st_mode)) {
		rc = err_expect(note, S_ISDIR(st.st_mode) ? EISDIR : EINVAL, "%s", "a regular file", "",
		    path);
		goto out;
	}
	if (st.st_size > 0) {
		s->size = (size_t)st.st_size;
		if ((s->map = mmap(NULL, s->size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED) {
			s->map = NULL;
			rc = err_note_set(note, errno, "%s", path);
			err_note_place(note, "mmap of %zu bytes", s->size);
			goto out;
		}
	}
	if ((rc = weights__parse(s->map, s->size, s->path, &s->table, note)) != 0)
		goto out;
	w->shards[w->n_shards++] = s;
	s = NULL;
out:
	if (fd >= 0)
		close(fd);
	if (s != NULL && s->map != NULL)
		munmap(s->map, s->size);
	free(s);
	return rc;
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(((const struct weights_tensor *)a)->name, ((const struct weights_tensor *)b)->name);
}

/* All tables merged by name; a name in two shards is refused. */
static int
gather(struct weights *w, const char *path, struct err_note *note)
{
	size_t n = 0;

	for (size_t i = 0; i < w->n_shards; i++)
		n += w->shards[i]->table.n_tensors;
	if (n > WEIGHTS_MAX_TENSORS)
		return err_expect(note, ERR_RANGE, "%s", "at most %u tensors", "%zu", path,
		    WEIGHTS_MAX_TENSORS, n);
	if ((w->tensors = mem_alloc(n, sizeof(*w->tensors))) == NULL)
		return err_note_set(note, ENOMEM, "%s", path);
	for (size_t i = 0; i < w->n_shards; i++) {
		const struct weights__table *t = &w->shards[i]->table;

		memcpy(w->tensors + w->n_tensors, t->tensors, t->n_tensors * sizeof(*t->tensors));
		w->n_tensors += t->n_tensors;
	}
	qsort(w->tensors, n, sizeof(*w->tensors), by_name);
	for (size_t i = 1; i < n; i++) {
		if (strcmp(w->tensors[i - 1].name, w->tensors[i].name) == 0)
			return err_expect_at(note, ERR_FORMAT, "%s", "tensor %s", "it in one file",
			    "it in %s and %s", path, w->tensors[i].name, w->tensors[i - 1].file,
			    w->tensors[i].file);
	}
	return 0;
}

static int
by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int
index_note(struct err_note *note, const char *path, const char *tensor, const char *expected, const char *found)
{
	return err_expect_at(note, ERR_FORMAT, "%s", "weight_map, %s", "%s", "%s", path, tensor, expected,
	    found);
}

/* Opens each shard of an index once; index and shards must agree on every tensor. */
static int
open_index(struct weights *w, const char *path, struct err_note *note)
{
	const char *slash = strrchr(path, '/'), **names = NULL;
	int dir_len = slash != NULL ? (int)(slash - path) : 1;
	struct json *root = NULL, *map;
	size_t n_names, n_files = 0;
	char file[4096];
	int rc;

	if ((rc = json_parse_file(path, MAX_INDEX_BYTES, &root, note)) != 0)
		goto out;
	map = json_get(root, "weight_map");
	n_names = json_count(map);
	if (json_kind(map) != JSON_KIND_OBJECT || n_names == 0) {
		rc = err_expect_at(note, ERR_FORMAT, "%s", "weight_map",
		    "an object of tensor names and files", "%s", path,
		    map == NULL ? "nothing" : n_names == 0 ? "an empty one" : json_kind_name(json_kind(map)));
		goto out;
	}
	if ((names = mem_alloc(n_names, sizeof(*names))) == NULL) {
		rc = err_note_set(note, ENOMEM, "%s", path);
		goto out;
	}
	for (void *it = json_first(map); it != NULL; it = json_next(map, it)) {
		if (!json_text(json_value(it), &names[n_files])) {
			rc = index_note(note, path, json_key(it), "a file name", json_kind_name(json_kind(json_value(it))));
			goto out;
		}
		if (!weights__file_name(names[n_files])) {
			rc = index_note(note, path, json_key(it), "a file of the same directory", names[n_files]);
			goto out;
		}
		n_files++;
	}
	qsort(names, n_files, sizeof(*names), by_text);
	for (size_t i = 0; i < n_files; i++) {
		if (i > 0 && strcmp(names[i], names[i - 1]) == 0)
			continue;
		if (w->n_shards == WEIGHTS_MAX_FILES) {
			rc = err_expect(note, ERR_RANGE, "%s", "at most %u files", "", path,
			    WEIGHTS_MAX_FILES);
			goto out;
		}
		if ((size_t)snprintf(file, sizeof(file), "%.*s/%s", dir_len, slash != NULL ? path : ".", names[i]) >= sizeof(file)) {
			rc = err_note_set(note, ENAMETOOLONG, "%s", path);
			goto out;
		}
		if ((rc = add_shard(w, file, note)) == ENOENT)
			err_note_place(note, "named in %.200s", path);
		if (rc != 0)
			goto out;
	}
	if ((rc = gather(w, path, note)) != 0)
		goto out;
	for (void *it = json_first(map); it != NULL; it = json_next(map, it)) {
		const struct weights_tensor *t = weights_find(w, json_key(it));
		const char *in = NULL;

		json_text(json_value(it), &in);
		if (t == NULL || in == NULL || strcmp(strrchr(t->file, '/') + 1, in) != 0) {
			rc = index_note(note, path, json_key(it), in, t == NULL ? "it in no file" : t->file);
			goto out;
		}
	}
	for (size_t i = 0; i < w->n_tensors; i++) {
		if (json_get(map, w->tensors[i].name) == NULL) {
			rc = index_note(note, path, w->tensors[i].name, "an entry (the tensor is in a shard)", "none");
			goto out;
		}
	}
out:
	free(names);
	json_close(&root);
	return rc;
}

static bool
ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && strcmp(s + n - m, end) == 0;
}

int
weights_open(struct weights **out, const char *path, struct err_note *note)
{
	struct weights *w = calloc(1, sizeof(*w));
	char file[4096];
	struct stat st;
	int rc;

	*out = NULL;
	if (w == NULL)
		return err_note_set(note, ENOMEM, "%s", path);
	if (stat(path, &st) != 0) {
		rc = err_note_set(note, errno, "%s", path);
		goto out;
	}
	if (S_ISDIR(st.st_mode)) {
		if ((size_t)snprintf(file, sizeof(file), "%s/model.safetensors", path) >= sizeof(file) - 16) {
			rc = err_note_set(note, ENAMETOOLONG, "%s", path);
			goto out;
		}
		if (stat(file, &st) != 0 && errno == ENOENT) {
			snprintf(file, sizeof(file), "%s/model.safetensors.index.json", path);
			if (stat(file, &st) != 0 && errno == ENOENT) {
				rc = err_expect(note, ERR_NOT_FOUND, "%s",
				    "model.safetensors or model.safetensors.index.json", "neither", path);
				goto out;
			}
		}
		path = file;
	}
	if (ends_with(path, ".json"))
		rc = open_index(w, path, note);
	else if ((rc = add_shard(w, path, note)) == 0)
		rc = gather(w, path, note);
out:
	if (rc != 0)
		weights_close(&w);
	*out = w;
	return rc;
}

void
weights_close(struct weights **pw)
{
	struct weights *w = *pw;

	if (w == NULL)
		return;
	for (size_t i = 0; i < w->n_shards; i++) {
		weights__table_free(&w->shards[i]->table);
		if (w->shards[i]->map != NULL)
			munmap(w->shards[i]->map, w->shards[i]->size);
		free(w->shards[i]);
	}
	free(w->shards);
	free(w->tensors);
	free(w);
	*pw = NULL;
}

size_t
weights_count(const struct weights *w)
{
	return w->n_tensors;
}

const struct weights_tensor *
weights_at(const struct weights *w, size_t i)
{
	return i < w->n_tensors ? &w->tensors[i] : NULL;
}

const struct weights_tensor *
weights_find(const struct weights *w, const char *name)
{
	struct weights_tensor key = {.name = name};

	return bsearch(&key, w->tensors, w->n_tensors, sizeof(*w->tensors), by_name);
}

const char *
weights_meta(const struct weights *w, const char *key)
{
	const char *s = NULL;

	if (w->n_shards > 0)
		json_text(json_get(json_get(w->shards[0]->table.root, "__metadata__"), key), &s);
	return s;
}

