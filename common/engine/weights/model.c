/* SPDX-License-Identifier: Apache-2.0 */
/* Maps files to the tensor table of a model: names, reading by range, saving from a source. */
#include "engine/weights/weights_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/model.h"

struct weights_model {
	const struct model *model;
	struct weights *set;
	const struct weights_tensor **from;	/* for each tensor of the table, where it comes from */
};

static bool
ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && strcmp(s + n - m, end) == 0;
}

enum weights__role
weights__role(const struct model_config *cfg, const char *name, const char **bare)
{
	const struct model_traits *t = model_traits(cfg->family);

	*bare = name;
	if (strcmp(name, t->output) == 0)
		return WEIGHTS__HEAD;
	if (strncmp(name, t->prefix, strlen(t->prefix)) == 0)
		*bare = name + strlen(t->prefix);
	for (size_t i = 0; i < sizeof(t->buffers) / sizeof(t->buffers[0]) && t->buffers[i] != NULL; i++)
		if (ends_with(*bare, t->buffers[i]))
			return WEIGHTS__BUFFER;
	return WEIGHTS__PARAMETER;
}

static void
shape_text(char *buf, size_t size, unsigned n_dims, const uint64_t *a, const int64_t *b)
{
	size_t at = (size_t)snprintf(buf, size, "[");

	for (unsigned i = 0; i < n_dims && at < size; i++)
		at += (size_t)snprintf(buf + at, size - at, "%s%" PRIu64, i > 0 ? ", " : "", a != NULL ? a[i] : (uint64_t)b[i]);
	if (at < size)
		snprintf(buf + at, size - at, "]");
}

static int
check_shape(const struct model_tensor *want, const struct weights_tensor *t, struct err_note *note)
{
	bool same = t->n_dims == (unsigned)want->n_dims;
	char text[128];

	for (unsigned i = 0; i < t->n_dims && same; i++)
		same = t->shape[i] == (uint64_t)want->dims[i];
	if (same && (t->dtype == WEIGHTS_F32 || t->dtype == WEIGHTS_F16 || t->dtype == WEIGHTS_BF16))
		return 0;
	err_note_set(note, ERR_MISMATCH, "%s", t->file);
	err_note_place(note, "tensor %s", t->name);
	if (same)
		return err_expect(note, ERR_UNSUPPORTED, "", "dtype F32, F16 or BF16", "%s",
		    weights_dtype_name(t->dtype));
	shape_text(text, sizeof(text), (unsigned)want->n_dims, NULL, want->dims);
	err_note_expected(note, "shape %s", text);
	shape_text(text, sizeof(text), t->n_dims, t->shape, NULL);
	err_note_found(note, "%s", text);
	return ERR_MISMATCH;
}

/* A tied model may still contain its output layer; then it must equal the embedding. */
static int
check_tied_head(const struct weights_tensor *head, const struct weights_tensor *embedding, struct err_note *note)
{
	float a[1024], b[1024];
	int rc;

	if (embedding == NULL || head->n_elements != embedding->n_elements)
		return err_expect_at(note, ERR_MISMATCH, "%s", "tensor %s",
		    "the shape of the embedding it is tied to", "%" PRIu64 " elements", head->file,
		    head->name, head->n_elements);
	for (uint64_t at = 0; at < head->n_elements; at += 1024) {
		uint64_t n = head->n_elements - at < 1024 ? head->n_elements - at : 1024;

		if ((rc = weights_read_f32(head, at, n, a, WEIGHTS_FINITE, note)) != 0 ||
		    (rc = weights_read_f32(embedding, at, n, b, WEIGHTS_FINITE, note)) != 0)
			return rc;
		for (uint64_t i = 0; i < n; i++) {
			if (a[i] == b[i])
				continue;
			return err_expect_at(note, ERR_MISMATCH, "%s", "tensor %s, element %" PRIu64,
			    "%g as in %s (tie_word_embeddings is true)", "%g", head->file, head->name, at + i,
			    (double)b[i], embedding->name, (double)a[i]);
		}
	}
	return 0;
}

static int
bind(struct weights_model *m, const char *dir, struct err_note *note)
{
	const struct model *model = m->model;
	const struct weights_tensor *embedding = NULL;
	const char *bare;
	size_t n_used = 0;
	int rc;

	for (int i = 0; i < model->n_tensors; i++) {
		const struct model_tensor *want = &model->tensors[i];
		const struct weights_tensor *t = weights_find(m->set, want->name);

		weights__role(&model->config, want->name, &bare);
		if (t == NULL)
			t = weights_find(m->set, bare);
		if (t == NULL)
			return err_expect_at(note, ERR_NOT_FOUND, "%s", "tensor %s",
			    "it in the model's files", "%zu tensors, not this one", dir, want->name,
			    weights_count(m->set));
		if ((rc = check_shape(want, t, note)) != 0)
			return rc;
		if (strcmp(bare, "wte.weight") == 0 || strcmp(bare, "embed_tokens.weight") == 0 || strcmp(bare, "embed_in.weight") == 0)
			embedding = t;
		m->from[i] = t;
		n_used++;
	}
	for (size_t i = 0; i < weights_count(m->set); i++) {
		const struct weights_tensor *t = weights_at(m->set, i);
		enum weights__role role = weights__role(&model->config, t->name, &bare);
		bool used = false;

		for (int k = 0; k < model->n_tensors && !used; k++)
			used = m->from[k] == t;
		if (used || role == WEIGHTS__BUFFER)
			continue;
		if (role == WEIGHTS__HEAD && model->config.tied) {
			if ((rc = check_tied_head(t, embedding, note)) != 0)
				return rc;
			continue;
		}
		return err_expect_at(note, ERR_MISMATCH, "%s", "tensor %s", "only the model's %zu tensors",
		    "one that config.json does not provide for", t->file, t->name, n_used);
	}
	return 0;
}

int
weights_model_open(struct weights_model **out, const char *dir, const struct model *model, struct err_note *note)
{
	struct weights_model *m = calloc(1, sizeof(*m));
	int rc;

	*out = NULL;
	if (m == NULL || (m->from = mem_alloc((size_t)model->n_tensors, sizeof(*m->from))) == NULL) {
		rc = err_note_set(note, ENOMEM, "%s", dir);
		goto out;
	}
	m->model = model;
	if ((rc = weights_open(&m->set, dir, note)) == 0)
		rc = bind(m, dir, note);
out:
	if (rc != 0)
		weights_model_close(&m);
	*out = m;
	return rc;
}

void
weights_model_close(struct weights_model **m)
{
	if (*m == NULL)
		return;
	weights_close(&(*m)->set);
	free((*m)->from);
	free(*m);
	*m = NULL;
}

/* The tensor that holds element at of the flat order; at < n_params. */
static int
tensor_of(const struct model *model, int64_t at)
{
	int low = 0, high = model->n_tensors - 1;

	while (low < high) {
		int mid = low + (high - low + 1) / 2;

		if (model->tensors[mid].offset <= at)
			low = mid;
		else
			high = mid - 1;
	}
	return low;
}

int
weights_model_read(const struct weights_model *m, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	uint64_t total = (uint64_t)m->model->n_params, done = 0;
	int rc;

	if (begin > total || count > total - begin)
		return err_expect(note, ERR_RANGE, "model", "elements within 0..%" PRIu64,
		    "%" PRIu64 " from %" PRIu64, total, count, begin);
	if (count == 0)
		return 0;
	for (int i = tensor_of(m->model, (int64_t)begin); done < count; i++) {
		const struct model_tensor *t = &m->model->tensors[i];
		uint64_t from = begin + done - (uint64_t)t->offset, n = (uint64_t)t->n_elements - from;

		if (n > count - done)
			n = count - done;
		if ((rc = weights_read_f32(m->from[i], from, n, out + done, WEIGHTS_FINITE, note)) != 0)
			return rc;
		done += n;
	}
	return 0;
}

int
weights_source_array(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	(void)note;
	memcpy(out, (const float *)arg + begin, count * sizeof(*out));
	return 0;
}

int
weights_model_save(const char *dir, const struct model *model, weights_source *source, void *arg, enum weights_dtype dtype,
    uint64_t max_shard_bytes, struct weights_file **files, size_t *n_files, struct err_note *note)
{
	struct weights_spec *specs = mem_alloc((size_t)model->n_tensors, sizeof(*specs));
	float *buf = mem_alloc(WEIGHTS_SOURCE_MAX, sizeof(*buf));
	struct weights_writer *w = NULL;
	struct weights_file *list = NULL;
	int rc;

	if (specs == NULL || buf == NULL) {
		rc = err_note_set(note, ENOMEM, "%s", dir);
		goto out;
	}
	for (int i = 0; i < model->n_tensors; i++) {
		const struct model_tensor *t = &model->tensors[i];

		specs[i].name = t->name;
		specs[i].dtype = dtype;
		specs[i].n_dims = (unsigned)t->n_dims;
		for (int d = 0; d < t->n_dims; d++)
			specs[i].shape[d] = (uint64_t)t->dims[d];
	}
	if ((rc = weights_writer_new(&w, dir, "model", specs, (size_t)model->n_tensors, NULL, 0, max_shard_bytes, note)) != 0)
		goto out;
	for (int i = 0; i < model->n_tensors; i++) {
		const struct model_tensor *t = &model->tensors[i];

		for (uint64_t at = 0; at < (uint64_t)t->n_elements; at += WEIGHTS_SOURCE_MAX) {
			uint64_t n = (uint64_t)t->n_elements - at;

			n = n < WEIGHTS_SOURCE_MAX ? n : WEIGHTS_SOURCE_MAX;
			if ((rc = source(arg, (uint64_t)t->offset + at, n, buf, note)) != 0 || (rc = weights_writer_f32(w, buf, n, note)) != 0)
				goto out;
		}
	}
	if (files != NULL && (list = mem_alloc((size_t)model->n_tensors + 1, sizeof(*list))) == NULL) {
		rc = err_note_set(note, ENOMEM, "%s", dir);
		goto out;
	}
	if ((rc = weights_writer_finish(w, note)) != 0)
		goto out;
	if (files != NULL) {
		*n_files = weights_writer_n_files(w);	/* at most a shard per tensor, and the index */
		for (size_t i = 0; i < *n_files; i++)
			list[i] = *weights_writer_file(w, i);
		*files = list;
		list = NULL;
	}
out:
	weights_writer_destroy(&w);
	free(list);
	free(buf);
	free(specs);
	return rc;
}
