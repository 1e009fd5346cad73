/* SPDX-License-Identifier: Apache-2.0 */
/* writer - streaming writer of one or several safetensors files. */
#include "engine/weights/weights_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/tensor/tensor.h"

struct item {				/* one declared tensor */
	char *name;
	enum weights_dtype dtype;
	unsigned n_dims;
	uint64_t shape[WEIGHTS_MAX_DIMS];
	uint64_t len_bytes;
	size_t shard;
};

struct weights_writer {
	char dir[4096], stem[WEIGHTS_NAME_BYTES - 64];
	struct mem_arena *arena;
	struct item *items;
	size_t n_items, n_shards;
	struct weights_meta_pair *meta;
	size_t n_meta;
	uint64_t total_bytes;

	size_t item;				/* index of the tensor that gets the next byte */
	uint64_t at_bytes;			/* bytes of this tensor already written */
	size_t n_begun;				/* number of shards opened so far */
	struct weights__out out;
	struct weights_file *files;		/* [n_shards + 1], the last one for the index */
	size_t n_files;
	bool finished;
};

static int
writer_note(const struct weights_writer *w, struct err_note *note, int rc, const char *place)
{
	err_note_set(note, rc, "%s/%s", w->dir, w->stem);
	err_note_place(note, "%s", place);
	return rc;
}

/*
 * Adds each tensor to the current shard while it stays within the limit; a larger tensor gets its own shard.
 */
static void
assign_shards(struct weights_writer *w, uint64_t max_shard_bytes)
{
	uint64_t used = 0;

	for (size_t i = 0; i < w->n_items; i++) {
		struct item *t = &w->items[i];

		if (max_shard_bytes != 0 && used > 0 && (t->len_bytes > max_shard_bytes || used > max_shard_bytes - t->len_bytes)) {
			w->n_shards++;
			used = 0;
		}
		t->shard = w->n_shards;
		used += t->len_bytes;
	}
	w->n_shards++;
}

static void
shard_name(const struct weights_writer *w, size_t shard, char out[WEIGHTS_NAME_BYTES])
{
	if (w->n_shards == 1)
		snprintf(out, WEIGHTS_NAME_BYTES, "%s.safetensors", w->stem);
	else
		snprintf(out, WEIGHTS_NAME_BYTES, "%s-%05zu-of-%05zu.safetensors", w->stem, shard + 1, w->n_shards);
}

/* The header of a shard as one JSON line. */
static struct json *
header(const struct weights_writer *w, size_t shard)
{
	struct json *meta = json_build("{s:s}", "format", "pt"), *root, *shape;
	uint64_t at = 0;
	int rc = 0;

	for (size_t i = 0; i < w->n_meta; i++)
		rc |= json_put(meta, w->meta[i].key, json_new_text(w->meta[i].value));
	root = json_build("{s:o}", "__metadata__", meta);
	for (size_t i = 0; i < w->n_items && rc == 0; i++) {
		const struct item *t = &w->items[i];

		if (t->shard != shard)
			continue;
		shape = json_new_array();
		for (unsigned d = 0; d < t->n_dims; d++)
			rc |= json_push(shape, json_new_int((int64_t)t->shape[d]));
		rc |= json_put(root, t->name, json_build("{s:s, s:o, s:[I, I]}", "dtype", weights_dtype_name(t->dtype),
		    "shape", shape, "data_offsets", (int64_t)at, (int64_t)(at + t->len_bytes)));
		at += t->len_bytes;
	}
	if (rc != 0)
		json_close(&root);
	return root;
}

/* Opens the next shard and writes its header, padded by spaces so that the data begins at a multiple of 8. */
static int
begin_shard(struct weights_writer *w, struct err_note *note)
{
	static const char spaces[8] = "        ";
	char name[WEIGHTS_NAME_BYTES];
	struct json *root = NULL;
	unsigned char len[8];
	char *text = NULL;
	size_t n, pad;
	int rc;

	shard_name(w, w->n_begun, name);
	if ((rc = weights__out_open(&w->out, w->dir, name, note)) != 0)
		return rc;
	if ((root = header(w, w->n_begun)) == NULL || (text = json_print(root, false)) == NULL) {
		rc = writer_note(w, note, ENOMEM, "header");
		goto out;
	}
	n = strlen(text);
	pad = (8 - n % 8) % 8;
	if (n + pad > WEIGHTS_MAX_HEADER_BYTES) {
		rc = writer_note(w, note, ERR_RANGE, "header");
		err_note_expected(note, "at most %u bytes", WEIGHTS_MAX_HEADER_BYTES);
		err_note_found(note, "%zu", n + pad);
		goto out;
	}
	for (unsigned i = 0; i < 8; i++)
		len[i] = (unsigned char)((uint64_t)(n + pad) >> (8 * i));
	if ((rc = weights__out_put(&w->out, len, 8, note)) != 0 || (rc = weights__out_put(&w->out, text, n, note)) != 0 ||
	    (rc = weights__out_put(&w->out, spaces, pad, note)) != 0)
		goto out;
	w->n_begun++;
out:
	free(text);
	json_close(&root);
	return rc;
}

static int
end_shard(struct weights_writer *w, struct err_note *note)
{
	int rc;

	if ((rc = weights__out_close(&w->out, note)) != 0)
		return rc;
	w->files[w->n_files++] = w->out.file;
	return 0;
}

/*
 * Skips complete tensors and opens the shard of the next one. Afterwards either everything is written, or
 * item is incomplete.
 */
static int
advance(struct weights_writer *w, struct err_note *note)
{
	int rc;

	for (;;) {
		size_t shard = w->item < w->n_items ? w->items[w->item].shard : w->n_shards - 1;

		while (w->n_begun <= shard) {
			if (w->n_begun > 0 && (rc = end_shard(w, note)) != 0)
				return rc;
			if ((rc = begin_shard(w, note)) != 0)
				return rc;
		}
		if (w->item == w->n_items || w->at_bytes < w->items[w->item].len_bytes)
			return 0;
		w->item++;
		w->at_bytes = 0;
	}
}

static int
copy_specs(struct weights_writer *w, const struct weights_spec *specs, size_t n_specs, struct err_note *note)
{
	for (size_t i = 0; i < n_specs; i++) {
		struct item *t = &w->items[i];
		size_t bytes = weights_dtype_bytes(specs[i].dtype), total;

		if (specs[i].n_dims > WEIGHTS_MAX_DIMS || bytes == 0)
			return writer_note(w, note, ERR_RANGE, specs[i].name);
		t->dtype = specs[i].dtype;
		t->n_dims = specs[i].n_dims;
		for (unsigned d = 0; d < t->n_dims; d++) {
			t->shape[d] = specs[i].shape[d];
			if (!mem_mul(bytes, (size_t)t->shape[d], &bytes))
				return writer_note(w, note, ERR_RANGE, specs[i].name);
		}
		t->len_bytes = bytes;
		if (!mem_add((size_t)w->total_bytes, bytes, &total) || total > (size_t)INT64_MAX)
			return writer_note(w, note, ERR_RANGE, specs[i].name);
		w->total_bytes = total;
		if ((t->name = mem_arena_strndup(w->arena, specs[i].name, strlen(specs[i].name))) == NULL)
			return writer_note(w, note, ENOMEM, specs[i].name);
	}
	return 0;
}

static int
by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int
check_names(const struct weights_writer *w, struct err_note *note)
{
	const char **names = mem_alloc(w->n_items, sizeof(*names));
	int rc = 0;

	if (names == NULL)
		return writer_note(w, note, ENOMEM, "names");
	for (size_t i = 0; i < w->n_items; i++)
		names[i] = w->items[i].name;
	qsort(names, w->n_items, sizeof(*names), by_text);
	for (size_t i = 0; i < w->n_items && rc == 0; i++) {
		if (strcmp(names[i], "__metadata__") == 0 || (i > 0 && strcmp(names[i], names[i - 1]) == 0)) {
			rc = writer_note(w, note, ERR_FORMAT, names[i]);
			err_note_expected(note, "tensor names that differ, none of them __metadata__");
		}
	}
	free(names);
	return rc;
}

int
weights_writer_new(struct weights_writer **out, const char *dir, const char *stem, const struct weights_spec *specs, size_t n_specs,
    const struct weights_meta_pair *meta, size_t n_meta, uint64_t max_shard_bytes, struct err_note *note)
{
	struct weights_writer *w = calloc(1, sizeof(*w));
	int rc;

	*out = NULL;
	if (w == NULL)
		return err_note_set(note, ENOMEM, "%s/%s", dir, stem);
	w->out.fd = -1;
	if ((size_t)snprintf(w->dir, sizeof(w->dir), "%s", dir) >= sizeof(w->dir) ||
	    (size_t)snprintf(w->stem, sizeof(w->stem), "%s", stem) >= sizeof(w->stem)) {
		rc = err_note_set(note, ENAMETOOLONG, "%s/%s", dir, stem);
		goto out;
	}
	if (n_specs > WEIGHTS_MAX_TENSORS || n_meta > WEIGHTS_MAX_TENSORS) {
		rc = writer_note(w, note, ERR_RANGE, "number of tensors");
		goto out;
	}
	w->n_items = n_specs;
	w->n_meta = n_meta;
	if ((w->arena = mem_arena_new(0)) == NULL || (w->items = mem_alloc(n_specs, sizeof(*w->items))) == NULL ||
	    (w->meta = mem_alloc(n_meta, sizeof(*w->meta))) == NULL) {
		rc = writer_note(w, note, ENOMEM, "create");
		goto out;
	}
	for (size_t i = 0; i < n_meta; i++) {
		w->meta[i].key = mem_arena_strndup(w->arena, meta[i].key, strlen(meta[i].key));
		w->meta[i].value = mem_arena_strndup(w->arena, meta[i].value, strlen(meta[i].value));
		if (w->meta[i].key == NULL || w->meta[i].value == NULL) {
			rc = writer_note(w, note, ENOMEM, "create");
			goto out;
		}
	}
	if ((rc = copy_specs(w, specs, n_specs, note)) != 0 || (rc = check_names(w, note)) != 0)
		goto out;
	assign_shards(w, max_shard_bytes);
	if ((w->files = mem_alloc(w->n_shards + 1, sizeof(*w->files))) == NULL) {
		rc = writer_note(w, note, ENOMEM, "create");
		goto out;
	}
	rc = advance(w, note);
out:
	if (rc != 0)
		weights_writer_destroy(&w);
	*out = w;
	return rc;
}

static int
too_much(const struct weights_writer *w, struct err_note *note)
{
	writer_note(w, note, ERR_RANGE, "write");
	return err_expect(note, ERR_RANGE, "", "%" PRIu64 " bytes in all, as declared", "more",
	    w->total_bytes);
}

int
weights_writer_bytes(struct weights_writer *w, const void *p, size_t n, struct err_note *note)
{
	const unsigned char *from = p;
	int rc;

	while (n > 0) {
		uint64_t room;
		size_t k;

		if (w->item == w->n_items)
			return too_much(w, note);
		room = w->items[w->item].len_bytes - w->at_bytes;
		k = n < room ? n : (size_t)room;
		if ((rc = weights__out_put(&w->out, from, k, note)) != 0)
			return rc;
		from += k;
		n -= k;
		w->at_bytes += k;
		if ((rc = advance(w, note)) != 0)
			return rc;
	}
	return 0;
}

int
weights_writer_f32(struct weights_writer *w, const float *x, uint64_t n, struct err_note *note)
{
	uint16_t half[4096];
	int rc;

	while (n > 0) {
		const struct item *t;
		size_t width, k;
		uint64_t room;

		if (w->item == w->n_items)
			return too_much(w, note);
		t = &w->items[w->item];
		width = weights_dtype_bytes(t->dtype);
		if (t->dtype != WEIGHTS_F32 && t->dtype != WEIGHTS_F16 && t->dtype != WEIGHTS_BF16) {
			writer_note(w, note, ERR_UNSUPPORTED, t->name);
			return err_expect(note, ERR_UNSUPPORTED, "", "dtype F32, F16 or BF16", "%s",
			    weights_dtype_name(t->dtype));
		}
		if (w->at_bytes % width != 0) {
			writer_note(w, note, ERR_RANGE, t->name);
			return err_expect(note, ERR_RANGE, "", "floats to begin at a whole element",
			    "byte %" PRIu64, w->at_bytes);
		}
		room = (t->len_bytes - w->at_bytes) / width;
		k = n < room ? (size_t)n : (size_t)room;
		if (t->dtype == WEIGHTS_F32) {
			rc = weights_writer_bytes(w, x, k * width, note);
		} else {
			k = k < sizeof(half) / sizeof(half[0]) ? k : sizeof(half) / sizeof(half[0]);
			for (size_t i = 0; i < k; i++)
				half[i] = t->dtype == WEIGHTS_F16 ? tensor_f32_to_f16(x[i]) : tensor_f32_to_bf16(x[i]);
			rc = weights_writer_bytes(w, half, k * width, note);
		}
		if (rc != 0)
			return rc;
		x += k;
		n -= k;
	}
	return 0;
}

static int
write_index(struct weights_writer *w, struct err_note *note)
{
	struct json *root = json_new_object(), *meta = json_new_object(), *map = json_new_object();
	char name[WEIGHTS_NAME_BYTES], *text = NULL;
	int rc = ENOMEM;

	if (root == NULL || meta == NULL || map == NULL)
		goto out;
	if (json_put(meta, "total_size", json_new_int((int64_t)w->total_bytes)) != 0)
		goto out;
	for (size_t i = 0; i < w->n_items; i++) {
		shard_name(w, w->items[i].shard, name);
		if (json_put(map, w->items[i].name, json_new_text(name)) != 0)
			goto out;
	}
	rc = json_put(root, "metadata", meta) | json_put(root, "weight_map", map);
	meta = map = NULL;
	if (rc != 0 || (text = json_print(root, true)) == NULL) {
		rc = ENOMEM;
		goto out;
	}
	snprintf(name, sizeof(name), "%s.safetensors.index.json", w->stem);
	if ((rc = weights_file_write(w->dir, name, text, strlen(text), &w->files[w->n_files], note)) == 0)
		w->n_files++;
out:
	if (text == NULL)
		writer_note(w, note, rc, "index");
	free(text);
	json_close(&map);
	json_close(&meta);
	json_close(&root);
	return rc;
}

int
weights_writer_finish(struct weights_writer *w, struct err_note *note)
{
	int rc;

	if (w->item < w->n_items) {
		writer_note(w, note, ERR_RANGE, w->items[w->item].name);
		return err_expect(note, ERR_RANGE, "", "%" PRIu64 " bytes", "%" PRIu64,
		    w->items[w->item].len_bytes, w->at_bytes);
	}
	if ((rc = end_shard(w, note)) != 0)
		return rc;
	if (w->n_shards > 1 && (rc = write_index(w, note)) != 0)
		return rc;
	w->finished = true;
	return 0;
}

size_t
weights_writer_n_files(const struct weights_writer *w)
{
	return w->n_files;
}

const struct weights_file *
weights_writer_file(const struct weights_writer *w, size_t i)
{
	return i < w->n_files ? &w->files[i] : NULL;
}

void
weights_writer_destroy(struct weights_writer **pw)
{
	struct weights_writer *w = *pw;

	if (w == NULL)
		return;
	if (!w->finished) {
		char path[4096 + WEIGHTS_NAME_BYTES];

		weights__out_drop(&w->out);
		for (size_t i = 0; i < w->n_files; i++) {
			snprintf(path, sizeof(path), "%s/%s", w->dir, w->files[i].name);
			unlink(path);
		}
	}
	free(w->files);
	free(w->items);
	free(w->meta);
	mem_arena_destroy(&w->arena);
	free(w);
	*pw = NULL;
}
