/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: model.safetensors.index.json. Its folder has the valid files a, b and c (a and c have a tensor in
 * common), the damaged file d, a folder named folder, and a symbolic link named gone, whose target is
 * missing. After a zero byte: one bit for each other file of a model's folder that exists.
 */
#include "engine/weights/weights.h"

#include "fuzz.h"

static void
put_shard(const char *name, const char *header)
{
	uint8_t file[512] = {0};
	uint64_t n = strlen(header);

	memcpy(file, &n, 8);
	memcpy(file + 8, header, n);
	fuzz_file(name, file, 8 + n + 16);
}

static void
start(void)
{
	put_shard("a.safetensors", "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"y\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}");
	put_shard("b.safetensors", "{\"z\":{\"dtype\":\"F16\",\"shape\":[8],\"data_offsets\":[0,16]}}");
	put_shard("c.safetensors", "{\"x\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}");
	put_shard("d.safetensors", "{\"w\":{\"dtype\":\"F32\",\"shape\":[5],\"data_offsets\":[0,20]}}");
}

/* Tests paths, which an input cannot contain. */
static void
try_paths(void)
{
	struct err_note note = {0};
	struct weights *w;
	char path[4096], name[201];
	size_t n;

	FUZZ_CHECK(weights_open(&w, fuzz_dir(), &note) == ERR_NOT_FOUND && w == NULL);		/* no model yet */
	/* the longest valid path, and one that is short enough for the index but not for the name in it */
	memset(name, 'x', 200);
	name[200] = '\0';
	snprintf(path, sizeof(path), "{\"weight_map\":{\"x\":\"%s\"}}", name);
	fuzz_file("model.safetensors.index.json", path, strlen(path));
	for (int room = 4; room <= 100; room += 96) {
		for (n = (size_t)snprintf(path, sizeof(path), "%s", fuzz_dir()); n + (size_t)room < sizeof(path); n += 2)
			memcpy(path + n, "/.", 3);
		FUZZ_CHECK(weights_open(&w, path, &note) == ENAMETOOLONG && w == NULL);
	}
	snprintf(path, sizeof(path), "%s/model.safetensors.index.json", fuzz_dir());
	unlink(path);
	FUZZ_CHECK(!weights_present(fuzz_dir()) || access(path, F_OK) != 0);
	name[0] = '/';
	FUZZ_CHECK(weights_open(&w, name, &note) == ENOENT && w == NULL);
	snprintf(path, sizeof(path), "%s/a.safetensors", fuzz_dir());
	FUZZ_CHECK(weights_open(&w, path, &note) == 0 && weights_count(w) == 2);
	weights_close(&w);
	weights_close(&w);			/* NULL now */
	snprintf(path, sizeof(path), "%s/folder", fuzz_dir());
	FUZZ_CHECK(mkdir(path, 0777) == 0);
	snprintf(path, sizeof(path), "%s/gone", fuzz_dir());
	FUZZ_CHECK(symlink("nowhere", path) == 0);
}

static const char *const others[] = {"model.safetensors", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    "adapter_model.safetensors", "model-00001-of-00003.safetensors", "pytorch_model.bin", "other.safetensors"};

/* Creates the files others[i] for which bit i is set; the last bit: without an index. */
static void
put_others(unsigned bits)
{
	char path[192];

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", fuzz_dir(), others[i]);
		unlink(path);
		if ((bits >> i & 1) != 0)
			put_shard(others[i], i == 2 ? "{\"z\":{\"dtype\":\"F16\",\"shape\":[8],\"data_offsets\":[0,16]}}" :
			    "{\"x\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}");
	}
	snprintf(path, sizeof(path), "%s/model.safetensors.index.json", fuzz_dir());
	if ((bits & 0x80) != 0)
		unlink(path);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct err_note note = {0};
	struct weights *w;
	static bool started;
	const char *bits;
	size_t n_bits, n = fuzz_cut(data, len, &bits, &n_bits);
	int rc;

	if (!started) {
		start();
		try_paths();
	}
	started = true;
	fuzz_file("model.safetensors.index.json", data, n);
	put_others(n_bits > 0 ? (unsigned char)bits[0] : 0);
	if ((rc = weights_open(&w, fuzz_dir(), &note)) != 0) {
		FUZZ_CHECK(w == NULL);
		FUZZ_REFUSED(rc, note);
		return 0;
	}
	for (size_t i = 0; i < weights_count(w); i++) {
		const struct weights_tensor *t = weights_at(w, i);
		float x[8];

		FUZZ_CHECK(strchr("xyz", t->name[0]) != NULL && weights_find(w, t->name) == t);
		FUZZ_CHECK(weights_read_f32(t, 0, t->n_elements, x, WEIGHTS_FINITE, &note) == 0 && x[t->n_elements - 1] == 0);
	}
	weights_close(&w);
	return 0;
}
