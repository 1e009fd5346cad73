/* SPDX-License-Identifier: Apache-2.0 */
/* set - an open set of tensors: one file, or an index and its shards. */
#include "engine/weights/weights_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file/file.h"

#define OPEN_SHARDS 256u		/* number of descriptors that a set keeps open */
#define MAX_INDEX_BYTES ((size_t)100000000)

struct shard {
	char path[4096];
	int fd;				/* < 0: closed, see OPEN_SHARDS */
	void *map;
	size_t size;
	struct weights__table table;
};

struct weights {
	struct shard **shards;			/* in the order of the file names */
	size_t n_shards, cap_shards;
	struct weights_tensor *tensors;		/* sorted by name */
	size_t n_tensors;
	struct json *index;			/* NULL if there is none */
	char unread[256];			/* weights__unread */
};

/* The weight files of a model directory, readable or not. */
struct listing {
	bool single, index;
	unsigned n_shards, total, more;		/* model-00001-of-TOTAL.safetensors: number found, and number
						 * with another TOTAL */
	bool *shard;				/* [total] true for those found; NULL: none */
	char other[WEIGHTS_NAME_BYTES];		/* the file that matches `others` best, or "" */
	const char *what, *todo;
	char adapter[WEIGHTS_NAME_BYTES];	/* name of an adapter's file, or "" */
};

#define SINGLE "model.safetensors"
#define INDEX "model.safetensors.index.json"

/*
 * Weight files that are not read, by the beginning and the end of their names; the first match counts.
 * CONVERT: transformers can convert them.
 */
#define CONVERT NULL
static const struct other {
	const char *begin, *end, *what, *todo;
} others[] = {
	{"adapter_model", "", "an adapter (LoRA)", "merge it into its base model with peft: merge_and_unload, then save_pretrained"},
	{"consolidated", "", "in its maker's own layout", "get the files that the maker publishes for transformers"},
	{"pytorch_model", ".bin", "in PyTorch's format", CONVERT}, {"pytorch_model", ".json", "in PyTorch's format", CONVERT},
	{"", ".gguf", "a GGUF file", "type: saltctl model import FILE.gguf NEW"},
	{"tf_model", "", "in TensorFlow's format", CONVERT}, {"flax_model", "", "in Flax's format", CONVERT},
	{"model", ".pth", "in PyTorch's format", CONVERT}, {"model", ".pt", "in PyTorch's format", CONVERT},
	{"model", ".bin", "in PyTorch's format", CONVERT}, {"ckpt", ".pt", "in PyTorch's format", CONVERT},
	{"", ".safetensors", "of another name", "name it " SINGLE},
	{"", ".safetensors.index.json", "of another name", "name it " INDEX " and its files as it says"},
};

bool
weights__file_name(const char *name)
{
	return name[0] != '\0' && strlen(name) < WEIGHTS_NAME_BYTES && strchr(name, '/') == NULL && strcmp(name, ".") != 0 &&
	    strcmp(name, "..") != 0;
}

/* A symbolic link without its file; in the cache of Hugging Face it is an unfinished download. */
static void
broken_link(const char *path, struct err_note *note)
{
	char to[200];
	ssize_t n = readlink(path, to, sizeof(to) - 1);

	if (n <= 0)
		return;
	err_note_expected(note, "the file that this symbolic link names");
	err_note_found(note, "none at %.*s", (int)n, to);
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
	snprintf(s->path, sizeof(s->path), "%s", path);		/* callers checked the length */
	if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0 || fstat(fd, &st) != 0) {
		rc = err_note_set(note, errno, "%s", path);
		broken_link(path, note);
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
	s->fd = w->n_shards < OPEN_SHARDS ? fd : -1;
	for (size_t i = 0; i < s->table.n_tensors; i++)
		s->table.tensors[i].fd = s->fd;
	if (s->fd >= 0)
		fd = -1;
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

/* Merges all tables by name; rejects a name that is in two shards. */
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
			return err_expect_at(note, ERR_FORMAT, "%s", "tensor %s", "this tensor in one file",
			    "copies in %s and %s", path, w->tensors[i].name, w->tensors[i - 1].file,
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
	struct json *map;
	size_t n_names, n_files = 0;
	char file[4096];
	int rc;

	if ((rc = json_parse_file(path, MAX_INDEX_BYTES, &w->index, note)) != 0) {
		broken_link(path, note);
		goto out;
	}
	map = json_get(w->index, "weight_map");
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
		if ((rc = add_shard(w, file, note)) == ENOENT && note != NULL && note->found[0] == '\0')
			err_expect(note, rc, "", "this file, named in %.200s: copy or download it", "none", path);
		if (rc != 0)
			goto out;
	}
	if ((rc = gather(w, path, note)) != 0)
		goto out;
	for (void *it = json_first(map); it != NULL; it = json_next(map, it)) {
		const struct weights_tensor *t = weights_find(w, json_key(it));
		const char *in = NULL;

		json_text(json_value(it), &in);
		if (t != NULL && in != NULL && strcmp(strrchr(t->file, '/') + 1, in) != 0) {
			rc = index_note(note, path, json_key(it), in, t->file);
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
	return rc;
}

static int
check_index(const struct weights *w, const char *path, struct err_note *note)
{
	const char *missing = weights__index_next(w, NULL), *in = "";

	if (missing == NULL)
		return 0;
	json_text(json_get(json_get(w->index, "weight_map"), missing), &in);
	return index_note(note, path, missing, in, "this tensor in no file");
}

static bool
ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && strcmp(s + n - m, end) == 0;
}

static bool
begins_with(const char *s, const char *begin)
{
	return strncmp(s, begin, strlen(begin)) == 0;
}

/* Number of a shard, 1 to *total, from its name; 0 for any other file. */
static unsigned
shard_number(const char *name, unsigned *total)
{
	unsigned i;
	int n = 0;

	if (sscanf(name, "model-%5u-of-%5u.safetensors%n", &i, total, &n) != 2 || n == 0 || name[n] != '\0' || i < 1 || i > *total)
		return 0;
	return i;
}

static int
look(struct listing *l, const char *dir)
{
	struct dirent *e;
	unsigned i, total;
	size_t best = sizeof(others) / sizeof(others[0]);
	DIR *d = opendir(dir);

	memset(l, 0, sizeof(*l));
	if (d == NULL)
		return errno;
	while ((e = readdir(d)) != NULL) {
		if (strcmp(e->d_name, SINGLE) == 0) {
			l->single = true;
		} else if (strcmp(e->d_name, INDEX) == 0) {
			l->index = true;
		} else if ((i = shard_number(e->d_name, &total)) > 0) {
			if (l->shard == NULL && (l->shard = mem_alloc(l->total = total, sizeof(*l->shard))) == NULL) {
				closedir(d);
				return ENOMEM;
			}
			l->more += total != l->total;
			if (total == l->total && !l->shard[i - 1]) {
				l->shard[i - 1] = true;
				l->n_shards++;
			}
		} else {
			for (size_t k = 0; k < best; k++)
				if (begins_with(e->d_name, others[k].begin) && ends_with(e->d_name, others[k].end) &&
				    strlen(e->d_name) < sizeof(l->other)) {
					best = k;
					snprintf(l->other, sizeof(l->other), "%s", e->d_name);
					l->what = others[k].what;
					l->todo = others[k].todo;
				}
			if (begins_with(e->d_name, "adapter_model") && strlen(e->d_name) < sizeof(l->adapter))
				snprintf(l->adapter, sizeof(l->adapter), "%s", e->d_name);
		}
	}
	closedir(d);
	return 0;
}

/* Opens shards without an index, if all are there: their headers say what they contain. */
static int
open_shards(struct weights *w, const struct listing *l, const char *dir, struct err_note *note)
{
	char file[4096];
	unsigned gap = 0;
	int rc = 0;

	if (l->more > 0)
		return err_expect(note, ERR_FORMAT, "%s", "one set of files, or " INDEX, "model-*-of-%05u.safetensors and %u of another set",
		    dir, l->total, l->more);
	while (gap < l->total && l->shard[gap])
		gap++;
	if (gap < l->total)
		return err_expect(note, ERR_NOT_FOUND, "%s", "model-%05u-of-%05u.safetensors", "only %u of the %u files, and no "
		    INDEX, dir, gap + 1, l->total, l->n_shards, l->total);
	for (unsigned i = 1; i <= l->total && rc == 0; i++) {
		snprintf(file, sizeof(file), "%s/model-%05u-of-%05u.safetensors", dir, i, l->total);
		rc = add_shard(w, file, note);
	}
	return rc != 0 ? rc : gather(w, dir, note);
}

static int
open_directory(struct weights *w, const char *dir, struct err_note *note)
{
	struct listing l;
	char file[4096], shards[64] = "";
	int rc;

	if (strlen(dir) >= sizeof(file) - 64)
		return err_note_set(note, ENAMETOOLONG, "%s", dir);
	if ((rc = look(&l, dir)) != 0) {
		err_note_set(note, rc, "%s", dir);
		goto out;
	}
	snprintf(file, sizeof(file), "%s/%s", dir, l.single ? SINGLE : INDEX);
	if (l.single) {
		if ((rc = add_shard(w, file, note)) == 0)
			rc = gather(w, file, note);
		if (l.n_shards > 0)
			snprintf(shards, sizeof(shards), "model-*-of-%05u.safetensors", l.total);
		snprintf(w->unread, sizeof(w->unread), "%s", shards[0] != '\0' ? shards : l.index ? INDEX : l.adapter);
	} else if (l.index) {
		rc = open_index(w, file, note);
		if (rc == 0 && l.n_shards + l.more > w->n_shards)
			snprintf(shards, sizeof(shards), "%zu more of model-*-of-*.safetensors", l.n_shards + l.more - w->n_shards);
		snprintf(w->unread, sizeof(w->unread), "%s", shards[0] != '\0' ? shards : l.adapter);
	} else if (l.n_shards > 0) {
		rc = open_shards(w, &l, dir, note);
		snprintf(w->unread, sizeof(w->unread), "%s", l.adapter);
	} else if (l.other[0] != '\0') {
		rc = err_expect(note, ERR_NOT_FOUND, "%s", SINGLE ", or " INDEX " and its files", "only %.60s, %s: %s", dir,
		    l.other, l.what, l.todo != NULL ? l.todo : "");
		if (l.todo == CONVERT)
			err_note_found(note, "only %.60s, %s; type: python3 -c 'from transformers import AutoModelForCausalLM as M; "
			    "M.from_pretrained(\"%s\").save_pretrained(\"NEW\")'", l.other, l.what,
			    strlen(dir) < 100 && strpbrk(dir, "'\"\\") == NULL ? dir : "DIR");
	} else {
		rc = err_expect(note, ERR_NOT_FOUND, "%s", SINGLE ", or " INDEX " and its files", "neither", dir);
	}
out:
	free(l.shard);
	return rc;
}

bool
weights_present(const char *dir)
{
	struct listing l;
	bool any = look(&l, dir) == 0 && (l.single || l.index || l.n_shards > 0 || l.other[0] != '\0');

	free(l.shard);
	return any;
}

int
weights__open(struct weights **out, const char *path, struct err_note *note)
{
	struct weights *w = calloc(1, sizeof(*w));
	struct stat st;
	int rc;

	*out = NULL;
	if (w == NULL)
		return err_note_set(note, ENOMEM, "%s", path);
	if (stat(path, &st) != 0) {
		rc = err_note_set(note, errno, "%s", path);
		broken_link(path, note);
	} else if (S_ISDIR(st.st_mode)) {
		rc = open_directory(w, path, note);
	} else if (ends_with(path, ".json")) {
		rc = open_index(w, path, note);
	} else if ((rc = add_shard(w, path, note)) == 0) {
		rc = gather(w, path, note);
	}
	if (rc != 0)
		weights_close(&w);
	*out = w;
	return rc;
}

int
weights_open(struct weights **out, const char *path, struct err_note *note)
{
	int rc = weights__open(out, path, note);

	if (rc == 0 && (rc = check_index(*out, path, note)) != 0)
		weights_close(out);
	return rc;
}

bool
weights__indexed(const struct weights *w)
{
	return w->index != NULL;
}

bool
weights__unindexed(const struct weights *w)
{
	return w->index == NULL && w->n_shards > 1;
}

const char *
weights__unread(const struct weights *w)
{
	return w->unread;
}

const char *
weights__index_next(const struct weights *w, void **it)
{
	void *first = NULL;

	if (it == NULL)
		it = &first;
	*it = *it == NULL ? json_first(json_get(w->index, "weight_map")) : json_next(json_get(w->index, "weight_map"), *it);
	while (*it != NULL && weights_find(w, json_key(*it)) != NULL)
		*it = json_next(json_get(w->index, "weight_map"), *it);
	return *it != NULL ? json_key(*it) : NULL;
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
		if (w->shards[i]->fd >= 0)
			close(w->shards[i]->fd);
		free(w->shards[i]);
	}
	free(w->shards);
	free(w->tensors);
	json_close(&w->index);
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

