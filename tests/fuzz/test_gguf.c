/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mutated GGUF files: gguf_open refuses, or everything that it gives can be asked for - each tensor to its end, configuration, binding to
 * a model, tokenizer - without a wrong access. Arguments are files to replay instead (a crash found elsewhere).
 */
#include "engine/gguf/gguf_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "fuzz.h"
#include "engine/model/model.h"

static size_t n_opened, n_refused, n_configs, n_models, n_tokenizers;

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

static void
read_model(const struct gguf *g)
{
	struct gguf_model *m = NULL;
	struct model *model = NULL;
	struct model_config cfg;
	struct err_note note = {0};
	float x[1000];

	if (gguf_config(g, &cfg, &note) != 0) {
		CHECK(note.name[0] != '\0');
		return;
	}
	n_configs++;
	if (cfg.n_layers < 100 && model_new(&model, &cfg, &note) == 0 && gguf_model_open(&m, g, model, &note) == 0) {
		n_models++;
		for (uint64_t at = 0, n = (uint64_t)model->n_params; at < n; at += 1000)
			if (gguf_model_source(m, at, n - at < 1000 ? n - at : 1000, x, &note) != 0)
				break;
	}
	gguf_model_close(&m);
	model_destroy(&model);
}

/* Opens path and touches everything that it gives. */
static void
one(const char *path, bool tokenizer)
{
	struct err_note note = {0};
	char *json, *config;
	struct gguf *g;
	float x[300];

	if (gguf_open(&g, path, &note) != 0) {
		CHECK(g == NULL && note.name[0] != '\0');
		n_refused++;
		return;
	}
	n_opened++;
	for (size_t i = 0; i < g->n_tensors; i++) {
		const struct gguf_tensor *t = &g->tensors[i];

		CHECK(gguf_find(g, t->name) == t);
		for (uint64_t at = 0; at < t->n_elements; at += 300)
			if (gguf_read_f32(t, at, t->n_elements - at < 300 ? t->n_elements - at : 300, x, &note) != 0)
				break;
	}
	read_model(g);
	if (tokenizer) {
		if (gguf_tokenizer(g, &json, &config, &note) == 0)
			n_tokenizers++;
		else
			CHECK(note.name[0] != '\0' && json == NULL && config == NULL);
		free(json);
		free(config);
	}
	gguf_close(&g);
}

/* rounds mutations of the first head bytes; the rest is kept, where it was or moved. */
static void
mutate(const char *from, const char *path, size_t head, int rounds)
{
	static uint8_t seed[65536], bytes[65536 + 64];
	size_t n = slurp(from, seed, sizeof(seed));

	head = head < n ? head : n;
	for (int round = 0; round < rounds; round++) {
		size_t k;

		memcpy(bytes, seed, head);
		k = fuzz_mutate(bytes, head, head + 64);
		memcpy(bytes + k, seed + head, n - head);
		spill(path, bytes, round % 8 == 0 ? fuzz_u32() % (k + n - head + 1) : k + n - head);	/* some cut short */
		one(path, round % 4 == 1);
	}
	unlink(path);
}

int
main(int argc, char **argv)
{
	const char *tmp = getenv("TMPDIR"), *rounds_text = getenv("SALT_FUZZ_ROUNDS"), *seed_text = getenv("SALT_FUZZ_SEED");
	int rounds = rounds_text != NULL ? atoi(rounds_text) : 2000;
	char dir[64], path[96];

	for (int i = 1; i < argc; i++)
		one(argv[i], true);
	if (argc > 1)
		return check_done();
	snprintf(dir, sizeof(dir), "%.40s/gg.XXXXXX", tmp != NULL ? tmp : "/tmp");
	REQUIRE(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/x.gguf", dir);
	fuzz_seed(seed_text != NULL ? strtoull(seed_text, NULL, 10) : 20260204);
	one("tests/golden/gguf/mini.gguf", true);
	CHECK(n_opened == 1 && n_models == 1 && n_tokenizers == 1);
	mutate("tests/golden/gguf/mini.gguf", path, 24, rounds / 4);		/* counts */
	mutate("tests/golden/gguf/mini.gguf", path, 1200, rounds);		/* metadata */
	mutate("tests/golden/gguf/mini.gguf", path, 65536, rounds);		/* all of it, tensors' names, types and offsets too */
	mutate("tests/golden/gguf/types.gguf", path, 900, rounds);
	fprintf(stderr, "opened %zu, refused %zu; %zu configurations, %zu models, %zu tokenizers\n", n_opened, n_refused, n_configs, n_models,
	    n_tokenizers);
	CHECK(n_opened > 100 && n_refused > 100 && n_configs > 100 && n_models > 100 && n_tokenizers > 100);
	REQUIRE(rmdir(dir) == 0);
	return check_done();
}
