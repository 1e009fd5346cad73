/* SPDX-License-Identifier: Apache-2.0 */
/* save - the steps of a save, in the order of checkpoint.h. */
#include "engine/checkpoint/checkpoint_internal.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err/crash.h"
#include "base/file/file.h"
#include "base/json/json.h"
#include "base/log/log.h"
#include "base/mem/mem.h"
#include "engine/model/model.h"

int
checkpoint__note(struct err_note *note, int rc, const char *path, const char *place, const char *expected)
{
	return err_expect_at(note, rc, "%s", "%s", "%s", "", path, place, expected);
}

static int
step_note(struct err_note *note, int rc, const char *path, const char *step)
{
	return checkpoint__note(note, rc, path, step, "");
}

int
checkpoint__path(const char *root, uint64_t step, bool temp, char out[CHECKPOINT_PATH_BYTES], struct err_note *note)
{
	int n = snprintf(out, CHECKPOINT_PATH_BYTES, "%s/step_%08" PRIu64 "%s", root, step, temp ? CHECKPOINT__TEMP : "");

	/* The names of the files inside must fit as well. */
	if (n < 0 || n >= CHECKPOINT_PATH_BYTES - WEIGHTS_NAME_BYTES)
		return step_note(note, ENAMETOOLONG, root, "path");
	return 0;
}

bool
checkpoint__name(const char *name, bool temp, uint64_t *step)
{
	uint64_t v = 0;
	size_t n = 0;

	if (strncmp(name, "step_", 5) != 0)
		return false;
	for (name += 5; *name >= '0' && *name <= '9' && n < 10; name++, n++)
		v = v * 10 + (uint64_t)(*name - '0');
	if (n < 8 || strcmp(name, temp ? CHECKPOINT__TEMP : "") != 0)
		return false;
	*step = v;
	return true;
}

int
checkpoint_files_add(struct checkpoint_files *list, const struct weights_file *file)
{
	void *p = list->files;
	int rc = mem_grow(&p, &list->cap, list->n + 1, sizeof(*list->files));

	list->files = p;
	if (rc == 0)
		list->files[list->n++] = *file;
	return rc;
}

int
checkpoint__make_way(const char *temp, struct err_note *note)
{
	char aside[CHECKPOINT_PATH_BYTES + 32];
	struct err_note why = {.name = ""};
	char text[1024], quoted[1200];
	int rc = file_remove_tree(temp, &why);

	for (int i = 1; rc != 0 && i < 100; i++) {
		snprintf(aside, sizeof(aside), "%s.left-%d", temp, i);
		if (access(aside, F_OK) == 0)
			continue;
		if (rename(temp, aside) != 0)
			break;
		log_warn("checkpoint.left", "path=%s why=%s", aside, log_quote(err_note_str(&why, rc, text, sizeof(text)), quoted, sizeof(quoted)));
		return 0;
	}
	if (rc != 0 && note != NULL)
		*note = why;
	return rc;
}

int
checkpoint_begin(const char *root, uint64_t step, char dir[CHECKPOINT_PATH_BYTES], struct err_note *note)
{
	char whole[CHECKPOINT_PATH_BYTES];
	struct stat st;
	int rc;

	if (step > CHECKPOINT_MAX_STEP)
		return err_expect_at(note, ERR_RANGE, "%s", "step", "at most %" PRIu64, "%" PRIu64, root, CHECKPOINT_MAX_STEP, step);
	if ((rc = checkpoint__path(root, step, false, whole, note)) != 0 || (rc = checkpoint__path(root, step, true, dir, note)) != 0 ||
	    (rc = file_make_dirs(root, 0777, note)) != 0)
		return rc;
	if (lstat(whole, &st) == 0)
		return step_note(note, ERR_EXISTS, whole, "begin");
	if (errno != ENOENT)
		return step_note(note, errno, whole, "begin");
	if ((rc = checkpoint__make_way(dir, note)) != 0)
		return rc;
	if (mkdir(dir, 0777) != 0)
		return step_note(note, errno, dir, "make directory");
	crash_point("checkpoint.begin");
	return 0;
}

static bool
range_fits(const struct checkpoint_range *r)
{
	return r->begin <= r->end && r->end <= r->total;
}

/* The metadata of a range, of the parameters or of an array with an order of its own: three texts each. */
struct range_text {
	char key[3][48], value[3][24];
};

static void
range_meta(const char *prefix, const struct checkpoint_range *r, struct range_text *text, struct weights_meta_pair *meta)
{
	const uint64_t values[] = {r->begin, r->end, r->total};

	for (int i = 0; i < 3; i++) {
		snprintf(text->key[i], sizeof(text->key[i]), "%.32s%s%s", prefix, prefix[0] != '\0' ? "." : "", checkpoint__range_keys[i]);
		snprintf(text->value[i], sizeof(text->value[i]), "%" PRIu64, values[i]);
		meta[i] = (struct weights_meta_pair){text->key[i], text->value[i]};
	}
}

static int
write_arrays(struct weights_writer *w, const struct checkpoint_range *all, const struct checkpoint_array *arrays, size_t n_arrays,
    struct err_note *note)
{
	float *piece = mem_alloc((size_t)WEIGHTS_SOURCE_MAX, sizeof(*piece));
	int rc = piece == NULL ? ENOMEM : 0;

	for (size_t i = 0; i < n_arrays && rc == 0; i++) {
		const struct checkpoint_range *r = arrays[i].own != NULL ? arrays[i].own : all;

		for (uint64_t at = r->begin, n; at < r->end && rc == 0; at += n) {
			n = r->end - at < WEIGHTS_SOURCE_MAX ? r->end - at : WEIGHTS_SOURCE_MAX;
			if ((rc = arrays[i].source(arrays[i].arg, at, n, piece, note)) == 0)
				rc = weights_writer_f32(w, piece, n, note);
		}
		if (i == 0 && rc == 0)
			crash_point("checkpoint.optim");
	}
	free(piece);
	return rc;
}

int
checkpoint_write_optim(const char *dir, unsigned rank, unsigned n_ranks, uint64_t begin, uint64_t end, uint64_t n_total,
    const struct checkpoint_array *arrays, size_t n_arrays, struct weights_file *entry, struct err_note *note)
{
	const struct checkpoint_range all = {begin, end, n_total};
	struct weights_spec *specs = mem_alloc(n_arrays, sizeof(*specs));
	struct weights_meta_pair *meta = mem_alloc(3 * (n_arrays + 1), sizeof(*meta));
	struct range_text *texts = mem_alloc(n_arrays + 1, sizeof(*texts));
	struct weights_writer *w = NULL;
	size_t n_meta = 0;
	char stem[64];
	bool fits = rank < n_ranks && n_ranks <= 99999 && range_fits(&all) && n_arrays > 0;
	int rc;

	if (specs == NULL || meta == NULL || texts == NULL) {
		rc = step_note(note, ENOMEM, dir, "optimiser");
		goto out;
	}
	range_meta("", &all, &texts[0], meta);
	n_meta = 3;
	for (size_t i = 0; i < n_arrays; i++) {
		const struct checkpoint_range *r = arrays[i].own != NULL ? arrays[i].own : &all;

		fits = fits && range_fits(r);
		specs[i] = (struct weights_spec){.name = arrays[i].name, .dtype = WEIGHTS_F32, .n_dims = 1, .shape = {r->end - r->begin}};
		if (arrays[i].own != NULL) {
			range_meta(arrays[i].name, r, &texts[i + 1], meta + n_meta);
			n_meta += 3;
		}
	}
	if (!fits) {
		rc = err_expect_at(note, ERR_RANGE, "%s", "optimiser", "", "rank %u of %u, range [%" PRIu64 ", %" PRIu64 ") of %" PRIu64, dir,
		    rank, n_ranks, begin, end, n_total);
		goto out;
	}
	snprintf(stem, sizeof(stem), "optim_%05u_of_%05u", rank, n_ranks);
	if ((rc = weights_writer_new(&w, dir, stem, specs, n_arrays, meta, n_meta, 0, note)) != 0 ||
	    (rc = write_arrays(w, &all, arrays, n_arrays, note)) != 0)
		goto out;
	if ((rc = weights_writer_finish(w, note)) == 0)
		*entry = *weights_writer_file(w, 0);
out:
	weights_writer_destroy(&w);
	free(texts);
	free(meta);
	free(specs);
	return rc;
}

static int
add(struct checkpoint_files *list, const struct weights_file *file, const char *dir, struct err_note *note)
{
	int rc = checkpoint_files_add(list, file);

	return rc != 0 ? step_note(note, rc, dir, "list of files") : 0;
}

int
checkpoint_write_model(const char *dir, const struct model *model, const char *tokenizer, weights_source *source, void *arg,
    uint64_t max_shard_bytes, struct checkpoint_files *list, struct err_note *note)
{
	struct weights_file file, *files = NULL;
	size_t n_files = 0;
	int rc;

	if ((rc = weights_config_save(dir, &model->config, WEIGHTS_F32, &file, note)) != 0 || (rc = add(list, &file, dir, note)) != 0)
		return rc;
	if (tokenizer != NULL && ((rc = weights_file_copy(dir, "tokenizer.json", tokenizer, &file, note)) != 0 ||
	    (rc = add(list, &file, dir, note)) != 0))
		return rc;
	crash_point("checkpoint.model");
	if ((rc = weights_model_save(dir, model, source, arg, WEIGHTS_F32, max_shard_bytes, &files, &n_files, note)) != 0)
		return rc;
	for (size_t i = 0; i < n_files && rc == 0; i++)
		rc = add(list, &files[i], dir, note);
	free(files);
	return rc;
}

int
checkpoint_write_state(const char *dir, const struct json *state, struct checkpoint_files *list, struct err_note *note)
{
	struct weights_file file;
	char *text;
	int rc;

	if (json_kind(state) != JSON_KIND_OBJECT)
		return step_note(note, ERR_FORMAT, dir, "state.json");
	if ((text = json_print(state, true)) == NULL)
		return step_note(note, ENOMEM, dir, "state.json");
	crash_point("checkpoint.state");
	if ((rc = weights_file_write(dir, "state.json", text, strlen(text), &file, note)) == 0)
		rc = add(list, &file, dir, note);
	free(text);
	return rc;
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(((const struct weights_file *)a)->name, ((const struct weights_file *)b)->name);
}

/* Checks that every listed file exists with its size, and that no other file exists. */
static int
compare(const char *dir, const struct checkpoint_files *list, struct err_note *note)
{
	char path[CHECKPOINT_PATH_BYTES + WEIGHTS_NAME_BYTES];
	struct weights_file key;
	struct dirent *e;
	struct stat st;
	DIR *d;
	int rc = 0;

	for (size_t i = 0; i < list->n; i++) {
		const struct weights_file *f = &list->files[i];

		if (i > 0 && strcmp(f->name, list->files[i - 1].name) == 0)
			return checkpoint__note(note, ERR_MISMATCH, dir, f->name, "one writer for a file");
		snprintf(path, sizeof(path), "%s/%s", dir, f->name);
		if (stat(path, &st) != 0)
			return checkpoint__note(note, errno, dir, f->name, "a file that its writer reported");
		if ((uint64_t)st.st_size != f->size_bytes)
			return err_expect_at(note, ERR_MISMATCH, "%s", "%s", "the size that its writer reported", "%" PRId64 " bytes, not %" PRIu64,
			    dir, f->name, (int64_t)st.st_size, f->size_bytes);
	}
	if ((d = opendir(dir)) == NULL)
		return step_note(note, errno, dir, "open directory");
	while ((e = readdir(d)) != NULL && rc == 0) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		snprintf(key.name, sizeof(key.name), "%s", e->d_name);
		if (list->n == 0 || bsearch(&key, list->files, list->n, sizeof(key), by_name) == NULL)
			rc = checkpoint__note(note, ERR_MISMATCH, dir, e->d_name, "only files that a writer reported");
	}
	closedir(d);
	return rc;
}

/* Checks that everything exists that is required to read the checkpoint again. */
static int
required(const char *dir, const struct checkpoint_files *list, struct err_note *note)
{
	unsigned rank, n_ranks, n_optim = 0, n_want = 0;
	bool config = false, state = false;

	for (size_t i = 0; i < list->n; i++) {
		config |= strcmp(list->files[i].name, "config.json") == 0;
		state |= strcmp(list->files[i].name, "state.json") == 0;
		if (checkpoint__optim_name(list->files[i].name, &rank, &n_ranks)) {
			if (n_optim > 0 && n_ranks != n_want)
				return checkpoint__note(note, ERR_MISMATCH, dir, list->files[i].name, "shards of one number of ranks");
			n_want = n_ranks;
			n_optim++;
		}
	}
	if (!config)
		return checkpoint__note(note, ERR_NOT_FOUND, dir, "config.json", "a model");
	if (!state)
		return checkpoint__note(note, ERR_NOT_FOUND, dir, "state.json", "the trainer's state");
	if (n_optim != n_want)
		return err_expect_at(note, ERR_NOT_FOUND, "%s", "optimiser", "a shard of every rank", "%u of %u", dir, n_optim, n_want);
	return checkpoint__check_optim(dir, list, note);
}

static char *
manifest_text(uint64_t step, const struct checkpoint_files *list)
{
	struct json *root, *files = json_new_object();
	char hex[HASH_HEX_BYTES], *text;

	for (size_t i = 0; i < list->n && files != NULL; i++)
		if (json_put(files, list->files[i].name, json_build("{s:I, s:s}", "size_bytes", (long long)list->files[i].size_bytes,
		    "xxh3_128", hash_hex(list->files[i].hash, hex))) != 0)
			json_close(&files);
	root = json_build("{s:s, s:i, s:I, s:o}", "format", "saltfleet-checkpoint", "version", 1, "step", (long long)step, "files", files);
	text = root != NULL ? json_print(root, true) : NULL;
	json_close(&root);
	return text;
}

int
checkpoint_finish(const char *root, uint64_t step, const struct checkpoint_files *list, struct err_note *note)
{
	char dir[CHECKPOINT_PATH_BYTES], whole[CHECKPOINT_PATH_BYTES], *text = NULL;
	struct checkpoint_files sorted = {.n = list->n};
	int rc;

	if ((rc = checkpoint__path(root, step, true, dir, note)) != 0 || (rc = checkpoint__path(root, step, false, whole, note)) != 0)
		return rc;
	if ((sorted.files = mem_alloc(list->n, sizeof(*sorted.files))) == NULL)
		return step_note(note, ENOMEM, dir, "manifest");
	if (list->n > 0)
		memcpy(sorted.files, list->files, list->n * sizeof(*sorted.files));
	qsort(sorted.files, sorted.n, sizeof(*sorted.files), by_name);
	if ((rc = compare(dir, &sorted, note)) != 0 || (rc = required(dir, &sorted, note)) != 0)
		goto out;
	if ((text = manifest_text(step, &sorted)) == NULL) {
		rc = step_note(note, ENOMEM, dir, "manifest");
		goto out;
	}
	crash_point("checkpoint.manifest");
	if ((rc = weights_file_write(dir, CHECKPOINT__MANIFEST, text, strlen(text), NULL, note)) != 0)
		goto out;
	crash_point("checkpoint.sync");
	if ((rc = file_sync_dir(dir, note)) != 0)
		goto out;
	crash_point("checkpoint.rename");
	if (rename(dir, whole) != 0) {
		rc = step_note(note, errno, dir, "rename");
		goto out;
	}
	crash_point("checkpoint.parent");
	rc = file_sync_dir(root, note);
out:
	free(text);
	free(sorted.files);
	return rc;
}

int
checkpoint_abort(const char *root, uint64_t step, struct err_note *note)
{
	char dir[CHECKPOINT_PATH_BYTES];
	int rc;

	if ((rc = checkpoint__path(root, step, true, dir, note)) != 0)
		return rc;
	return file_remove_tree(dir, note);
}
