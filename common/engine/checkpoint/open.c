/* SPDX-License-Identifier: Apache-2.0 */
/* open - reads the optimiser's arrays by range, from any number of shards. */
#include "engine/checkpoint/checkpoint_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json/json.h"
#include "base/mem/mem.h"

#define MAX_STATE_BYTES ((size_t)64 << 20)

const char *const checkpoint__range_keys[3] = {"begin", "end", "total"};

struct shard {
	struct weights *file;
	struct checkpoint_range range;		/* range of the parameters */
	char name[WEIGHTS_NAME_BYTES];
};

struct checkpoint {
	struct json *state;
	struct shard *shards;			/* sorted by begin; together they cover [0, total) */
	size_t n_shards;
};

bool
checkpoint__optim_name(const char *name, unsigned *rank, unsigned *n_ranks)
{
	int n = 0;

	return sscanf(name, "optim_%5u_of_%5u.safetensors%n", rank, n_ranks, &n) == 2 && n == 32 && name[32] == '\0' && *rank < *n_ranks;
}

static bool
meta_u64(const struct weights *w, const char *key, uint64_t *out)
{
	const char *s = weights_meta(w, key);
	char *end;

	if (s == NULL || s[0] < '0' || s[0] > '9')
		return false;
	errno = 0;
	*out = strtoull(s, &end, 10);
	return errno == 0 && *end == '\0';
}

/*
 * Reads a range from the metadata: of an array with an order of its own (prefix: its name) or of the
 * parameters ("").
 * Returns false if there is none or it is invalid.
 */
static bool
meta_range(const struct weights *w, const char *prefix, struct checkpoint_range *out)
{
	uint64_t *values[] = {&out->begin, &out->end, &out->total};
	char key[48];

	for (int i = 0; i < 3; i++) {
		snprintf(key, sizeof(key), "%.32s%s%s", prefix, prefix[0] != '\0' ? "." : "", checkpoint__range_keys[i]);
		if (!meta_u64(w, key, values[i]))
			return false;
	}
	return out->begin <= out->end && out->end <= out->total;
}

/* A shard's range of an array: its own range, or that of the parameters. */
static struct checkpoint_range
array_range(const struct shard *s, const char *array)
{
	struct checkpoint_range own;

	return meta_range(s->file, array, &own) ? own : s->range;
}

static int
open_shard(struct checkpoint *c, const char *path, const char *name, struct err_note *note)
{
	struct shard *s = &c->shards[c->n_shards];
	char file[CHECKPOINT_PATH_BYTES + WEIGHTS_NAME_BYTES];
	int rc;

	snprintf(file, sizeof(file), "%s/%s", path, name);
	snprintf(s->name, sizeof(s->name), "%s", name);
	if ((rc = weights_open(&s->file, file, note)) != 0)
		return rc;
	c->n_shards++;
	if (!meta_range(s->file, "", &s->range))
		return checkpoint__note(note, ERR_FORMAT, path, name, "__metadata__ with begin <= end <= total");
	for (size_t i = 0; i < weights_count(s->file); i++) {
		const struct weights_tensor *t = weights_at(s->file, i);
		struct checkpoint_range r = array_range(s, t->name);

		if (t->dtype != WEIGHTS_F32 || t->n_dims != 1 || t->n_elements != r.end - r.begin)
			return checkpoint__note(note, ERR_FORMAT, path, name, "F32 arrays of end - begin elements");
		if (c->n_shards > 1 && weights_find(c->shards[0].file, t->name) == NULL)
			return checkpoint__note(note, ERR_MISMATCH, path, name, "the arrays of the other shards");
	}
	if (weights_count(s->file) != weights_count(c->shards[0].file))
		return checkpoint__note(note, ERR_MISMATCH, path, name, "the arrays of the other shards");
	return 0;
}

static int
by_begin(const void *a, const void *b)
{
	const struct checkpoint_range *x = &((const struct shard *)a)->range, *y = &((const struct shard *)b)->range;

	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end;
}

/* Checks that the shards' ranges of an array ("": of the parameters) together are [0, total). */
static int
check_ranges(const struct checkpoint *c, const char *path, const char *array, struct err_note *note)
{
	uint64_t at = 0, total = array_range(&c->shards[0], array).total;

	for (size_t i = 0; i < c->n_shards; i++) {
		struct checkpoint_range r = array_range(&c->shards[i], array);

		if (r.total != total)
			return checkpoint__note(note, ERR_MISMATCH, path, c->shards[i].name, "the total of the other shards");
		if (r.begin != at)
			return err_expect_at(note, ERR_FORMAT, "%s", "%s",
			    "adjacent ranges, the next one from %" PRIu64, "[%" PRIu64 ", %" PRIu64 ")",
			    path, c->shards[i].name, at, r.begin, r.end);
		at = r.end;
	}
	if (at != total)
		return err_expect_at(note, ERR_FORMAT, "%s", "optimiser", "ranges up to the total", "%" PRIu64 " of %" PRIu64, path, at, total);
	return 0;
}

static int
open_shards(struct checkpoint *c, const char *path, const struct checkpoint_files *list, struct err_note *note)
{
	unsigned rank, n_ranks;
	int rc;

	if ((c->shards = mem_alloc(list->n, sizeof(*c->shards))) == NULL)
		return err_note_set(note, ENOMEM, "%s", path);
	for (size_t i = 0; i < list->n; i++)
		if (checkpoint__optim_name(list->files[i].name, &rank, &n_ranks) &&
		    (rc = open_shard(c, path, list->files[i].name, note)) != 0)
			return rc;
	if (c->n_shards == 0)
		return 0;
	qsort(c->shards, c->n_shards, sizeof(*c->shards), by_begin);
	rc = check_ranges(c, path, "", note);
	for (size_t i = 0; i < weights_count(c->shards[0].file) && rc == 0; i++)
		rc = check_ranges(c, path, weights_at(c->shards[0].file, i)->name, note);
	return rc;
}

int
checkpoint__check_optim(const char *path, const struct checkpoint_files *list, struct err_note *note)
{
	struct checkpoint *c = calloc(1, sizeof(*c));
	int rc = c != NULL ? open_shards(c, path, list, note) : err_note_set(note, ENOMEM, "%s", path);

	checkpoint_close(&c);
	return rc;
}

int
checkpoint_open(struct checkpoint **out, const char *path, enum checkpoint_check check, struct err_note *note)
{
	struct checkpoint *c = calloc(1, sizeof(*c));
	char file[CHECKPOINT_PATH_BYTES + 32];
	struct checkpoint_files list = {0};
	uint64_t step;
	int rc;

	*out = NULL;
	if (c == NULL)
		return err_note_set(note, ENOMEM, "%s", path);
	if ((rc = checkpoint_verify(path, check, note)) != 0 || (rc = checkpoint__manifest(path, &list, &step, note)) != 0)
		goto out;
	snprintf(file, sizeof(file), "%s/state.json", path);
	if ((rc = json_parse_file(file, MAX_STATE_BYTES, &c->state, note)) != 0)
		goto out;
	rc = open_shards(c, path, &list, note);
out:
	free(list.files);
	if (rc != 0)
		checkpoint_close(&c);
	*out = c;
	return rc;
}

void
checkpoint_close(struct checkpoint **c)
{
	if (*c == NULL)
		return;
	for (size_t i = 0; i < (*c)->n_shards; i++)
		weights_close(&(*c)->shards[i].file);
	free((*c)->shards);
	json_close(&(*c)->state);
	free(*c);
	*c = NULL;
}

const struct json *
checkpoint_state(const struct checkpoint *c)
{
	return c->state;
}

uint64_t
checkpoint_optim_total(const struct checkpoint *c, const char *array)
{
	if (c->n_shards == 0 || weights_find(c->shards[0].file, array) == NULL)
		return 0;
	return array_range(&c->shards[0], array).total;
}

int
checkpoint_read_optim(const struct checkpoint *c, const char *array, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	uint64_t end, total;
	int rc;

	if (c->n_shards == 0 || weights_find(c->shards[0].file, array) == NULL)
		return err_note_set(note, ERR_NOT_FOUND, "optimiser array %s", array);
	total = checkpoint_optim_total(c, array);
	if (begin > total || count > total - begin)
		return err_expect(note, ERR_RANGE, "optimiser array %s", "elements within 0..%" PRIu64, "%" PRIu64 " from %" PRIu64, array,
		    total, count, begin);
	end = begin + count;
	for (size_t i = 0; i < c->n_shards; i++) {
		const struct shard *s = &c->shards[i];
		struct checkpoint_range r = array_range(s, array);
		uint64_t from = r.begin > begin ? r.begin : begin, to = r.end < end ? r.end : end;

		if (from < to && (rc = weights_read_f32(weights_find(s->file, array), from - r.begin, to - from, out + (from - begin),
		    WEIGHTS_FINITE, note)) != 0)
			return rc;
	}
	return 0;
}
