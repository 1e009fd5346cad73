/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identity of a model directory, and the sidecar file that saves the next start from reading all of it:
 *   salt_fingerprint1 <32 hex digits> <number of files>
 *   <size> <mtime seconds>.<nanoseconds> <inode> <name>          a line for each file that was read
 */
#include "engine/weights/weights_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/model/model.h"

#define SIDECAR ".salt_fingerprint"

struct named {
	const char *bare;
	const struct weights_tensor *t;
};

static void
field_num(struct hash_state *h, const char *name, double v)
{
	uint64_t u;

	memcpy(&u, &v, sizeof(u));
	hash_field_u64(h, name, u);
}

/* Only values that change outputs: not context length, ids of special tokens or the initial standard deviation. */
static void
hash_config(struct hash_state *h, const struct model_config *c)
{
	const struct model_traits *t = model_traits(c->family);

	hash_field_str(h, "family", model_family_name(c->family));
	hash_field_u64(h, "vocab_size", (uint64_t)c->vocab_size);
	hash_field_u64(h, "d_model", (uint64_t)c->d_model);
	hash_field_u64(h, "n_layers", (uint64_t)c->n_layers);
	hash_field_u64(h, "n_heads", (uint64_t)c->n_heads);
	hash_field_u64(h, "n_kv_heads", (uint64_t)c->n_kv_heads);
	hash_field_u64(h, "head_dim", (uint64_t)c->head_dim);
	hash_field_u64(h, "d_ff", (uint64_t)c->d_ff);
	field_num(h, "norm_eps", c->norm_eps);
	hash_field_u64(h, "tied", c->tied);
	hash_field_str(h, "activation", t->activation);
	if (!t->rope)
		return;
	hash_field_u64(h, "attention_bias", c->attention_bias);
	hash_field_u64(h, "mlp_bias", c->mlp_bias);
	if (t->partial_rotary) {
		hash_field_u64(h, "parallel_residual", c->parallel_residual);
		hash_field_u64(h, "rotary_dim", (uint64_t)(c->rotary_dim > 0 ? c->rotary_dim : c->head_dim));
	}
	field_num(h, "rope_theta", c->rope_theta);
	hash_field_str(h, "rope_type", c->rope_scaling.llama3 ? "llama3" : "default");
	if (c->rope_scaling.llama3) {
		field_num(h, "rope_factor", c->rope_scaling.factor);
		field_num(h, "rope_low_freq_factor", c->rope_scaling.low_freq_factor);
		field_num(h, "rope_high_freq_factor", c->rope_scaling.high_freq_factor);
		hash_field_u64(h, "rope_original_context", (uint64_t)c->rope_scaling.original_context);
	}
}

static int
by_bare(const void *a, const void *b)
{
	return strcmp(((const struct named *)a)->bare, ((const struct named *)b)->bare);
}

static int
hash_tensors(struct hash_state *h, const struct weights_model *w, const struct model *model, const char *dir, struct err_note *note)
{
	struct named *list = mem_alloc((size_t)model->n_tensors, sizeof(*list));
	int rc = 0;

	if (list == NULL)
		return err_note_set(note, ENOMEM, "%s", dir);
	for (int i = 0; i < model->n_tensors; i++) {
		list[i].t = weights__model_tensor(w, i);
		weights__role(&model->config, model->tensors[i].name, &list[i].bare);
	}
	qsort(list, (size_t)model->n_tensors, sizeof(*list), by_bare);
	for (int i = 0; i < model->n_tensors && rc == 0; i++) {
		const struct weights_tensor *t = list[i].t;

		hash_field_str(h, "tensor", list[i].bare);
		hash_field_str(h, "dtype", weights_dtype_name(t->dtype));
		hash_field(h, "shape", t->shape, t->n_dims * sizeof(t->shape[0]));
		hash_field(h, "bytes", t->data, (size_t)t->len_bytes);
		rc = weights__check_finite(t, note);
	}
	free(list);
	return rc;
}

static bool
stat_line(const char *dir, const char *name, char *buf, size_t size)
{
	char path[4096 + WEIGHTS_NAME_BYTES];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (stat(path, &st) != 0)
		return false;
	snprintf(buf, size, "%" PRIu64 " %" PRId64 ".%09ld %" PRIu64 " %s\n", (uint64_t)st.st_size, (int64_t)st.st_mtim.tv_sec,
	    st.st_mtim.tv_nsec, (uint64_t)st.st_ino, name);
	return true;
}

/* The sidecar's text for the current state of the files; NULL without memory or when one is missing. Free it. */
static char *
sidecar_lines(const char *dir, const char *const *names, size_t n)
{
	char *text = NULL, line[WEIGHTS_NAME_BYTES + 128];
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	bool good = f != NULL;

	for (size_t i = 0; i < n && good; i++)
		good = stat_line(dir, names[i], line, sizeof(line)) && fputs(line, f) >= 0;
	if (f != NULL && fclose(f) != 0)
		good = false;
	if (!good) {
		free(text);
		return NULL;
	}
	return text;
}

static bool
sidecar_read(const char *dir, struct hash128 *out)
{
	char path[4096 + 64], line[WEIGHTS_NAME_BYTES + 128], now[WEIGHTS_NAME_BYTES + 128], hex[HASH_HEX_BYTES];
	bool good = false, config = false, single = false, index = false;
	size_t n, i;
	FILE *f;

	snprintf(path, sizeof(path), "%s/" SIDECAR, dir);
	if ((f = fopen(path, "re")) == NULL)
		return false;
	if (fgets(line, sizeof(line), f) == NULL || sscanf(line, "salt_fingerprint1 %32s %zu\n", hex, &n) != 2)
		goto out;
	for (i = 0; i < n; i++) {
		char *name;

		if (fgets(line, sizeof(line), f) == NULL || (name = strrchr(line, ' ')) == NULL || strlen(name) < 2)
			goto out;
		name[strlen(name) - 1] = '\0';		/* the newline, put back below by stat_line */
		if (!weights__file_name(name + 1) || !stat_line(dir, name + 1, now, sizeof(now)))
			goto out;
		if (strncmp(now, line, strlen(line)) != 0 || strcmp(now + strlen(line), "\n") != 0)
			goto out;
		config |= strcmp(name + 1, "config.json") == 0;
		single |= strcmp(name + 1, "model.safetensors") == 0;
		index |= strcmp(name + 1, "model.safetensors.index.json") == 0;
	}
	/* A file that would be read in place of those listed must not have come. */
	snprintf(path, sizeof(path), "%s/model.safetensors", dir);
	good = config && n >= 2 && (single || access(path, F_OK) != 0) && hash_from_hex(out, hex) == 0;
	snprintf(path, sizeof(path), "%s/model.safetensors.index.json", dir);
	good = good && (single || index || access(path, F_OK) != 0);
out:
	fclose(f);
	return good;
}

/* Best effort: a read-only directory only costs the next start a full read. */
static void
sidecar_write(const char *dir, const char *lines, size_t n, struct hash128 h)
{
	char path[4096 + 64], temp[4096 + 96], hex[HASH_HEX_BYTES];
	FILE *f;

	snprintf(path, sizeof(path), "%s/" SIDECAR, dir);
	snprintf(temp, sizeof(temp), "%s.%d.tmp", path, (int)getpid());
	if ((f = fopen(temp, "wxe")) == NULL)
		return;
	fprintf(f, "salt_fingerprint1 %s %zu\n%s", hash_hex(h, hex), n, lines);
	if (fclose(f) != 0 || rename(temp, path) != 0)
		unlink(temp);
}

/* Names of all files that the set and the configuration come from. names: room for weights_count + 2. */
static size_t
file_names(const struct weights *set, const char **names)
{
	size_t n = 0;

	names[n++] = "config.json";
	for (size_t i = 0; i < weights_count(set); i++) {
		const char *name = strrchr(weights_at(set, i)->file, '/') + 1;
		bool known = false;

		for (size_t k = n; k-- > 0 && !known; )		/* newest first: tensors of a shard are mostly adjacent */
			known = strcmp(names[k], name) == 0;
		if (!known)
			names[n++] = name;
	}
	if (weights__indexed(set))
		names[n++] = "model.safetensors.index.json";
	return n;
}

int
weights_fingerprint(const char *dir, struct hash128 *out, struct err_note *note)
{
	char *before = NULL, *after = NULL;
	struct hash_state *h = NULL;
	struct weights *first = NULL;
	struct weights_model *w = NULL;
	struct model *model = NULL;
	const char **names = NULL;
	struct model_config cfg;
	size_t n_names;
	int rc;

	if (strlen(dir) >= 4096 - WEIGHTS_NAME_BYTES)
		return err_note_set(note, ENAMETOOLONG, "%s", dir);
	if (sidecar_read(dir, out))
		return 0;
	/* Opened twice: first for the names of the files; then, with their state recorded, to read them. */
	if ((rc = weights__open(&first, dir, note)) != 0)
		goto out;
	if ((names = mem_alloc(weights_count(first) + 2, sizeof(*names))) == NULL || (h = hash_new()) == NULL) {
		rc = err_note_set(note, ENOMEM, "%s", dir);
		goto out;
	}
	n_names = file_names(first, names);
	before = sidecar_lines(dir, names, n_names);
	if ((rc = weights_config_load(dir, &cfg, note)) != 0 || (rc = model_new(&model, &cfg, note)) != 0 ||
	    (rc = weights_model_open(&w, dir, model, note)) != 0)
		goto out;
	hash_field_str(h, "salt_model", "1");
	hash_config(h, &cfg);
	if ((rc = hash_tensors(h, w, model, dir, note)) != 0)
		goto out;
	*out = hash_digest(h);
	after = sidecar_lines(dir, names, n_names);
	if (before != NULL && after != NULL && strcmp(before, after) == 0)
		sidecar_write(dir, after, n_names, *out);
out:
	free(before);
	free(after);
	free(names);
	hash_destroy(&h);
	weights_model_close(&w);
	model_destroy(&model);
	weights_close(&first);
	return rc;
}
