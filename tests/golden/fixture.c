/* SPDX-License-Identifier: Apache-2.0 */
#include "golden/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
fail(const char *what, const char *name)
{
	fprintf(stderr, "fixture: %s: %s\n", name, what);
	exit(1);
}

double
fixture_num(const struct json *object, const char *key)
{
	double v;

	if (!json_num(json_get(object, key), &v))
		fail("number expected", key);
	return v;
}

int64_t
fixture_int(const struct json *object, const char *key)
{
	int64_t v;

	if (!json_int(json_get(object, key), &v))
		fail("integer expected", key);
	return v;
}

bool
fixture_flag(const struct json *object, const char *key)
{
	bool v;

	if (!json_flag(json_get(object, key), &v))
		fail("boolean expected", key);
	return v;
}

static void
read_config(const struct json *j, struct model_config *cfg)
{
	const struct json *scaling = json_get(j, "rope_scaling");
	const char *family;

	memset(cfg, 0, sizeof(*cfg));
	if (!json_text(json_get(j, "family"), &family))
		fail("text expected", "family");
	if (!model_family_find(family, &cfg->family))
		fail("unknown family", family);
	cfg->parallel_residual = json_get(j, "parallel_residual") != NULL && fixture_flag(j, "parallel_residual");
	cfg->rotary_dim = json_get(j, "rotary_dim") != NULL ? fixture_int(j, "rotary_dim") : 0;
	cfg->vocab_size = fixture_int(j, "vocab_size");
	cfg->context = fixture_int(j, "context");
	cfg->d_model = fixture_int(j, "d_model");
	cfg->n_layers = fixture_int(j, "n_layers");
	cfg->n_heads = fixture_int(j, "n_heads");
	cfg->n_kv_heads = fixture_int(j, "n_kv_heads");
	cfg->head_dim = fixture_int(j, "head_dim");
	cfg->d_ff = fixture_int(j, "d_ff");
	cfg->norm_eps = (float)fixture_num(j, "norm_eps");
	cfg->tied = fixture_flag(j, "tied");
	cfg->attention_bias = fixture_flag(j, "attention_bias");
	cfg->mlp_bias = fixture_flag(j, "mlp_bias");
	cfg->rope_theta = fixture_num(j, "rope_theta");
	cfg->initializer_range = 0.02f;
	cfg->bos_id = cfg->eos_id = -1;
	if (scaling != NULL) {
		cfg->rope_scaling.type = MODEL_ROPE_LLAMA3;
		cfg->rope_scaling.factor = fixture_num(scaling, "factor");
		cfg->rope_scaling.low_freq_factor = fixture_num(scaling, "low_freq_factor");
		cfg->rope_scaling.high_freq_factor = fixture_num(scaling, "high_freq_factor");
		cfg->rope_scaling.original_context = fixture_int(scaling, "original_context");
	}
}

void
fixture_open(struct fixture *f, const char *name)
{
	char path[256];
	struct err_note note = {0};
	FILE *file;
	long size = 0;

	memset(f, 0, sizeof(*f));
	snprintf(path, sizeof(path), "tests/golden/model/%s.json", name);
	if (json_parse_file(path, 0, &f->json, &note) != 0)
		fail("cannot be read", path);
	read_config(json_get(f->json, "config"), &f->config);
	f->b = fixture_int(f->json, "batch");
	f->t = fixture_int(f->json, "tokens");
	snprintf(path, sizeof(path), "tests/golden/model/%s.bin", name);
	if ((file = fopen(path, "rb")) == NULL || fseek(file, 0, SEEK_END) != 0 || (size = ftell(file)) <= 0)
		fail("cannot be read", path);
	rewind(file);
	f->data_bytes = (size_t)size;
	if ((f->data = malloc(f->data_bytes)) == NULL || fread(f->data, 1, f->data_bytes, file) != f->data_bytes)
		fail("cannot be read", path);
	fclose(file);
}

void
fixture_close(struct fixture *f)
{
	json_close(&f->json);
	free(f->data);
}

static const struct json *
entry(const struct fixture *f, const char *name)
{
	const struct json *arrays = json_get(f->json, "arrays");
	const char *text;

	for (size_t i = 0; i < json_count(arrays); i++)
		if (json_text(json_get(json_item(arrays, i), "name"), &text) && strcmp(text, name) == 0)
			return json_item(arrays, i);
	return NULL;
}

int
fixture_shape(const struct fixture *f, const char *name, int64_t dims[4])
{
	const struct json *shape = json_get(entry(f, name), "shape");
	size_t n = json_count(shape);

	if (n > 4)
		fail("too many dimensions", name);
	for (size_t i = 0; i < n; i++)
		if (!json_int(json_item(shape, i), &dims[i]))
			fail("bad shape", name);
	return (int)n;
}

const void *
fixture_array(const struct fixture *f, const char *name, const char *dtype, int64_t *n)
{
	const struct json *e = entry(f, name);
	int64_t dims[4], count = 1;
	const char *found;
	int n_dims = fixture_shape(f, name, dims);
	size_t offset;

	if (e == NULL)
		return NULL;
	if (!json_text(json_get(e, "dtype"), &found) || strcmp(found, dtype) != 0)
		fail("another dtype", name);
	for (int i = 0; i < n_dims; i++)
		count *= dims[i];
	offset = (size_t)fixture_int(e, "offset");
	if (offset + (size_t)count * (strcmp(dtype, "i64") == 0 ? 8 : 4) > f->data_bytes)
		fail("past the end of the file", name);
	if (n != NULL)
		*n = count;
	return f->data + offset;
}

int
fixture_count(const struct fixture *f, const char *prefix)
{
	const struct json *arrays = json_get(f->json, "arrays");
	const char *text;
	int n = 0;

	for (size_t i = 0; i < json_count(arrays); i++)
		n += json_text(json_get(json_item(arrays, i), "name"), &text) && strncmp(text, prefix, strlen(prefix)) == 0;
	return n;
}
