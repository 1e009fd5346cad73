/* SPDX-License-Identifier: Apache-2.0 */
/* model - maps files to a model's tensor table: names, reading by range, saving from a source. */
#include "engine/weights/weights_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/model.h"

/* A tensor of the files, with the family's name for it without prefix. */
struct named {
	char *bare;				/* malloc'ed */
	const struct weights_tensor *t;
	enum weights__role role;
	bool used;
};

struct weights_model {
	const struct model *model;
	struct weights *set;
	const struct weights_tensor **from;	/* [n_tensors] source of each tensor of the table */
	struct named *names;			/* sorted by bare name; used only while the model is opened */
	size_t n_names;
	char remarks[512];
};

static bool
ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && strcmp(s + n - m, end) == 0;
}

/*
 * Parts that torch.compile, DataParallel, DeepSpeed and FSDP add to names. No supported family has such a
 * part in its own names.
 */
static const char *const wrappers[] = {"_orig_mod.", "module.", "_forward_module.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."};

/*
 * Writes the name to buf without the parts that wrappers added, and without a second "model." before the
 * family's prefix. Returns the first part that was removed, or NULL.
 */
static const char *
canonical(const struct model_config *cfg, const char *name, char *buf, size_t size)
{
	const struct model_traits *t = model_traits(cfg->family);
	const char *left_out = NULL, *rest;
	size_t n = 0;

	for (const char *s = name; *s != '\0';) {
		size_t part = strcspn(s, ".") + (strchr(s, '.') != NULL), i = 0;

		while (i < sizeof(wrappers) / sizeof(wrappers[0]) && (strlen(wrappers[i]) != part || strncmp(s, wrappers[i], part) != 0))
			i++;
		if (i < sizeof(wrappers) / sizeof(wrappers[0])) {
			left_out = left_out != NULL ? left_out : wrappers[i];
		} else {
			if (n + part < size)
				memcpy(buf + n, s, part);
			n += part;
		}
		s += part;
	}
	buf[n < size ? n : size - 1] = '\0';
	while (strncmp(buf, "model.", 6) == 0) {
		rest = buf + 6;
		if (strncmp(rest, t->prefix, strlen(t->prefix)) != 0 && strcmp(rest, t->output) != 0)
			break;
		memmove(buf, rest, strlen(rest) + 1);
		left_out = left_out != NULL ? left_out : "model.";
	}
	return left_out;
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

static bool
is_embedding(const char *bare)
{
	return strcmp(bare, "wte.weight") == 0 || strcmp(bare, "embed_tokens.weight") == 0 || strcmp(bare, "embed_in.weight") == 0;
}

static int
check_shape(const struct model_config *cfg, const struct model_tensor *want, const struct weights_tensor *t, struct err_note *note)
{
	bool same = t->n_dims == (unsigned)want->n_dims;
	const char *bare;
	char text[128];

	for (unsigned i = 0; i < t->n_dims && same; i++)
		same = t->shape[i] == (uint64_t)want->dims[i];
	if (same && weights__readable(t->dtype))
		return 0;
	err_note_set(note, ERR_MISMATCH, "%s", t->file);
	err_note_place(note, "tensor %s", t->name);
	if (same)
		return err_expect(note, ERR_UNSUPPORTED, "", WEIGHTS__READABLE, "%s", weights_dtype_name(t->dtype));
	shape_text(text, sizeof(text), (unsigned)want->n_dims, NULL, want->dims);
	err_note_expected(note, "shape %s", text);
	shape_text(text, sizeof(text), t->n_dims, t->shape, NULL);
	err_note_found(note, "%s", text);
	weights__role(cfg, want->name, &bare);
	if ((is_embedding(bare) || strcmp(bare, model_traits(cfg->family)->output) == 0) && t->n_dims == 2 && want->n_dims == 2 &&
	    t->shape[1] == (uint64_t)want->dims[1]) {
		err_note_expected(note, "%" PRId64 " rows, vocab_size of config.json", want->dims[0]);
		err_note_found(note, "%" PRIu64 "%s: set vocab_size to %" PRIu64 " if the two belong together", t->shape[0],
		    t->shape[0] > (uint64_t)want->dims[0] ? " (a padded vocabulary?)" : "", t->shape[0]);
	}
	return ERR_MISMATCH;
}

/* A tied model may still contain its output layer, which must then equal the embedding. */
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
			    "%.9g as in %s, because config.json ties the two tensors",
			    "%.9g: set tie_word_embeddings to false to use both, or remove %s from the file",
			    head->file, head->name, at + i, (double)b[i], embedding->name, (double)a[i],
			    head->name);
		}
	}
	return 0;
}

static int
by_bare(const void *a, const void *b)
{
	return strcmp(((const struct named *)a)->bare, ((const struct named *)b)->bare);
}

static struct named *
find(const struct weights_model *m, const char *bare)
{
	struct named key = {.bare = (char *)(uintptr_t)bare};

	return bsearch(&key, m->names, m->n_names, sizeof(*m->names), by_bare);
}

static void remark(struct weights_model *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void
remark(struct weights_model *m, const char *fmt, ...)
{
	size_t n = strlen(m->remarks);
	va_list ap;

	n += (size_t)snprintf(m->remarks + n, sizeof(m->remarks) - n, "%s", n > 0 ? "; " : "");
	va_start(ap, fmt);
	if (n < sizeof(m->remarks))
		vsnprintf(m->remarks + n, sizeof(m->remarks) - n, fmt, ap);
	va_end(ap);
}

/* Fills m->names. Rejects two tensors that would get the same name. */
static int
name_all(struct weights_model *m, const char *dir, struct err_note *note)
{
	const struct model_config *cfg = &m->model->config;
	const char *left_out = NULL, *bare;
	size_t n = weights_count(m->set), n_renamed = 0;
	char name[1024];

	if ((m->names = mem_alloc(n, sizeof(*m->names))) == NULL)
		return err_note_set(note, ENOMEM, "%s", dir);
	for (; m->n_names < n; m->n_names++) {
		struct named *e = &m->names[m->n_names];
		const char *part;

		e->t = weights_at(m->set, m->n_names);
		if ((part = canonical(cfg, e->t->name, name, sizeof(name))) != NULL) {
			left_out = left_out != NULL ? left_out : part;
			n_renamed++;
		}
		e->role = weights__role(cfg, name, &bare);
		e->used = false;
		if ((e->bare = strdup(bare)) == NULL)
			return err_note_set(note, ENOMEM, "%s", dir);
	}
	qsort(m->names, n, sizeof(*m->names), by_bare);
	for (size_t i = 1; i < n; i++)
		if (strcmp(m->names[i - 1].bare, m->names[i].bare) == 0)
			return err_expect_at(note, ERR_MISMATCH, "%s", "tensor %s", "one tensor of that name",
			    "two that differ in prefixes only: %s and %s", dir, m->names[i].bare, m->names[i - 1].t->name,
			    m->names[i].t->name);
	if (n_renamed > 0)
		remark(m, "\"%s\" is left out of the names of %zu tensors", left_out, n_renamed);
	return 0;
}

/* Reports a missing tensor, and a likely cause. */
static int
missing(const struct weights_model *m, const char *dir, const char *want, const char *bare, struct err_note *note)
{
	size_t n = strlen(bare);

	err_expect_at(note, ERR_NOT_FOUND, "%s", "tensor %s", "this tensor in the model's files",
	    "%zu other tensors", dir, want, weights_count(m->set));
	if (strcmp(bare, model_traits(m->model->config.family)->output) == 0)
		err_note_found(note, "none: if the output layer is the embedding, set tie_word_embeddings to true in config.json");
	for (size_t i = 0; i < m->n_names; i++) {
		const char *name = m->names[i].t->name;
		size_t len = strlen(name);

		if (strstr(name, ".lora_A") != NULL || strstr(name, ".lora_B") != NULL)
			err_note_found(note, "%s, of an adapter (LoRA): merge it into its base model with peft, merge_and_unload", name);
		else if (len > n + 1 && name[len - n - 1] == '.' && strcmp(name + len - n, bare) == 0)
			err_note_found(note,
			    "%s: names begin with \"%.*s\"; save the inner model, or rename the tensors",
			    name, (int)(len - n), name);
		else
			continue;
		break;
	}
	return ERR_NOT_FOUND;
}

static int
bind(struct weights_model *m, const char *dir, struct err_note *note)
{
	const struct model *model = m->model;
	const struct weights_tensor *embedding = NULL;
	const char *bare, *head = model_traits(model->config.family)->output, *name;
	size_t n_buffers = 0;
	void *it = NULL;
	int rc;

	for (int i = 0; i < model->n_tensors; i++) {
		const struct model_tensor *want = &model->tensors[i];
		struct named *e;

		weights__role(&model->config, want->name, &bare);
		if ((e = find(m, bare)) == NULL && model->config.tied && is_embedding(bare) && (e = find(m, head)) != NULL)
			remark(m, "%s is used for %s (tied)", e->t->name, want->name);
		if (e == NULL)
			return missing(m, dir, want->name, bare, note);
		if ((rc = check_shape(&model->config, want, e->t, note)) != 0)
			return rc;
		if (is_embedding(bare))
			embedding = e->t;
		m->from[i] = e->t;
		e->used = true;
	}
	for (size_t i = 0; i < m->n_names; i++) {
		const struct named *e = &m->names[i];

		if (e->used)
			continue;
		if (e->role == WEIGHTS__BUFFER) {
			n_buffers++;
		} else if (e->role == WEIGHTS__HEAD && model->config.tied) {
			if ((rc = check_tied_head(e->t, embedding, note)) != 0)
				return rc;
		} else {
			return err_expect_at(note, ERR_MISMATCH, "%s", "tensor %s", "only the model's %d tensors",
			    "a tensor that config.json does not describe%s", e->t->file, e->t->name,
			    model->n_tensors,
			    strstr(e->bare, "_proj.bias") != NULL ? "; attention_bias and mlp_bias say whether there are biases" : "");
		}
	}
	/* An index may name a tied head that was not saved, or buffers, although no file has them. */
	while ((name = weights__index_next(m->set, &it)) != NULL) {
		char text[1024];
		enum weights__role role;

		canonical(&model->config, name, text, sizeof(text));
		role = weights__role(&model->config, text, &bare);
		if (role != WEIGHTS__BUFFER && !(model->config.tied && (role == WEIGHTS__HEAD || is_embedding(bare))))
			return err_expect_at(note, ERR_FORMAT, "%s", "weight_map of the index",
			    "tensors that its files contain", "%s, which no file contains", dir, name);
	}
	if (n_buffers > 0)
		remark(m, "%zu tensors that are not parameters (masks, frequencies) are not read", n_buffers);
	if (weights__unindexed(m->set))
		remark(m, "there is no index; all of model-00001-of-... are read");
	if (weights__unread(m->set)[0] != '\0')
		remark(m, "also found and not read: %s", weights__unread(m->set));
	return 0;
}

static void
free_names(struct weights_model *m)
{
	for (size_t i = 0; i < m->n_names; i++)
		free(m->names[i].bare);
	free(m->names);
	m->names = NULL;
	m->n_names = 0;
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
	if ((rc = weights__open(&m->set, dir, note)) == 0 && (rc = name_all(m, dir, note)) == 0)
		rc = bind(m, dir, note);
	free_names(m);
out:
	if (rc != 0)
		weights_model_close(&m);
	*out = m;
	return rc;
}

const char *
weights_model_remarks(const struct weights_model *m)
{
	return m->remarks;
}

const struct weights_tensor *
weights__model_tensor(const struct weights_model *m, int i)
{
	return m->from[i];
}

const struct model *
weights__model_of(const struct weights_model *m)
{
	return m->model;
}

const struct weights *
weights__model_set(const struct weights_model *m)
{
	return m->set;
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

/* Index of the tensor that holds element `at` of the flat order; at < n_params. */
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
		*n_files = weights_writer_n_files(w);	/* at most one shard per tensor, and the index */
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
