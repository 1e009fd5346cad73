/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mutated safetensors headers, indexes and config.json: weights_open refuses, or every tensor it gives can be read to its end without
 * a wrong access. Arguments are files or folders to replay instead (a crash found elsewhere); none: the kept corpus, then mutations.
 */
#include "engine/weights/weights.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "fuzz.h"
#include "engine/model/model.h"

static char dir[64];
static size_t n_opened, n_refused;

static size_t
slurp(const char *path, uint8_t *out, size_t cap)
{
	FILE *f = fopen(path, "rb");
	size_t n;

	REQUIRE(f != NULL);
	n = fread(out, 1, cap, f);
	fclose(f);
	return n;
}

static void
spill(const char *path, const uint8_t *p, size_t n)
{
	FILE *f;

	unlink(path);			/* a file truncated and written again is flushed at once by some file systems */
	REQUIRE((f = fopen(path, "wb")) != NULL && fwrite(p, 1, n, f) == n);
	fclose(f);
}

/* Opens path and touches everything that it gives. */
static void
one(const char *path)
{
	struct err_note note = {0};
	struct weights *w;
	float x[64];

	if (weights_open(&w, path, &note) != 0) {
		CHECK(w == NULL && note.name[0] != '\0');
		n_refused++;
		return;
	}
	n_opened++;
	for (size_t i = 0; i < weights_count(w); i++) {
		const struct weights_tensor *t = weights_at(w, i);
		uint64_t sum = 0;

		CHECK(weights_find(w, t->name) != NULL);
		for (uint64_t k = 0; k < t->len_bytes; k++)
			sum += t->data[k];
		CHECK(sum <= 255 * t->len_bytes);
		for (uint64_t at = 0; at < t->n_elements; at += 64)
			if (weights_read_f32(t, at, t->n_elements - at < 64 ? t->n_elements - at : 64, x, WEIGHTS_FINITE, &note) != 0)
				break;
	}
	weights_meta(w, "format");
	weights_close(&w);
}

static void
replay(const char *path)
{
	struct stat st;
	struct dirent *e;
	DIR *d;

	REQUIRE(stat(path, &st) == 0);
	if (!S_ISDIR(st.st_mode)) {
		one(path);
		return;
	}
	REQUIRE((d = opendir(path)) != NULL);
	while ((e = readdir(d)) != NULL) {
		char file[1024];

		if (e->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "%.700s/%s", path, e->d_name);
		one(file);
	}
	closedir(d);
}

/* rounds mutations of the first head bytes of the file (headers, not weights), all of it kept in dir/name. */
static void
mutate(const char *from, const char *name, size_t head, int rounds)
{
	static uint8_t seed[65536], bytes[65536 + 64];
	char path[128];
	size_t n = slurp(from, seed, sizeof(seed));

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	head = head < n ? head : n;
	for (int round = 0; round < rounds; round++) {
		size_t k;

		memcpy(bytes, seed, head);
		k = fuzz_mutate(bytes, head, head + 64);
		if (round % 2 == 0 && k >= 8 && head > 8) {		/* half of them with a header length that fits what was cut or doubled */
			uint64_t len = 0;

			memcpy(&len, seed, 8);
			len += k - head;
			memcpy(bytes, &len, 8);
		}
		memcpy(bytes + k, seed + head, n - head);
		spill(path, bytes, k + n - head);
		one(path);
	}
	unlink(path);
}

static void
mutate_config(const char *from, int rounds)
{
	uint8_t seed[4096], bytes[4160];
	size_t n = slurp(from, seed, sizeof(seed));
	struct model_config cfg;
	char path[128];

	snprintf(path, sizeof(path), "%s/config.json", dir);
	for (int round = 0; round < rounds; round++) {
		struct err_note note = {0};
		struct model *m = NULL;

		memcpy(bytes, seed, n);
		spill(path, bytes, fuzz_mutate(bytes, n, sizeof(bytes)));
		if (weights_config_load(path, &cfg, &note) != 0) {
			CHECK(note.name[0] != '\0');
			n_refused++;
		} else if (cfg.n_layers < 1000 && model_new(&m, &cfg, &note) == 0) {
			CHECK(m->n_params > 0);
			n_opened++;
		}
		model_destroy(&m);
	}
	unlink(path);
}

int
main(int argc, char **argv)
{
	const char *tmp = getenv("TMPDIR"), *rounds_text = getenv("SALT_FUZZ_ROUNDS"), *seed_text = getenv("SALT_FUZZ_SEED");
	int rounds = rounds_text != NULL ? atoi(rounds_text) : 1500;

	for (int i = 1; i < argc; i++)
		replay(argv[i]);
	if (argc > 1)
		return check_done();
	snprintf(dir, sizeof(dir), "%.40s/st.XXXXXX", tmp != NULL ? tmp : "/tmp");
	REQUIRE(mkdtemp(dir) != NULL);
	fuzz_seed(seed_text != NULL ? strtoull(seed_text, NULL, 10) : 20260203);
	replay("tests/fuzz/safetensors");
	mutate("tests/golden/weights/dtypes.safetensors", "x.safetensors", 600, 2 * rounds);
	mutate("tests/golden/weights/llama_bf16/model.safetensors", "x.safetensors", 1200, rounds);
	mutate("tests/golden/weights/llama_sharded/model.safetensors.index.json", "x.index.json", 4096, rounds);
	mutate_config("tests/golden/weights/llama/config.json", rounds);
	mutate_config("tests/golden/weights/gpt2/config.json", rounds);
	fprintf(stderr, "opened %zu, refused %zu\n", n_opened, n_refused);
	CHECK(n_opened > 0 && n_refused > 0);
	REQUIRE(rmdir(dir) == 0);
	return check_done();
}
