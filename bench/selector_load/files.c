/* SPDX-License-Identifier: Apache-2.0 */
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "data/corpus/corpus.h"
#include "engine/model/model.h"
#include "engine/weights/weights.h"

static int
noise(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	(void)arg;
	(void)note;
	for (uint64_t i = 0; i < count; i++)
		out[i] = (float)((begin + i) % 17) / 100;
	return 0;
}

void
files_make(const char *dir, uint64_t n_tokens, uint32_t context)
{
	struct model_config m = {.family = MODEL_FAMILY_GPT2, .vocab_size = VOCAB, .context = context, .d_model = 8, .n_layers = 1, .n_heads = 2,
	    .n_kv_heads = 2, .head_dim = 4, .d_ff = 32, .norm_eps = 1e-5f, .tied = true, .attention_bias = true, .mlp_bias = true,
	    .initializer_range = 0.02f, .bos_id = -1, .eos_id = -1};
	struct corpus_writer_options o = {.vocab = VOCAB, .eod = 0, .tokenizer = {1, 2}};
	enum { DOCUMENT = 1 << 16 };
	int32_t *ids = malloc(DOCUMENT * sizeof(*ids));
	struct corpus_writer *w;
	struct err_note note = {0};
	struct model *model;
	uint64_t x = 1;
	char path[512];
	int rc;

	snprintf(path, sizeof(path), "%s/train", dir);
	if (ids == NULL || (rc = corpus_writer_new(&w, path, &o, &note)) != 0)
		die(ids == NULL ? ENOMEM : rc, &note, "corpus");
	while (corpus_writer_n_tokens(w) < n_tokens + context + 1) {
		for (int i = 0; i < DOCUMENT; i++) {
			x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
			ids[i] = (int32_t)(1 + (x >> 33) % (VOCAB - 1));
		}
		if ((rc = corpus_writer_document(w, ids, DOCUMENT, 4 * DOCUMENT, &note)) != 0)
			die(rc, &note, "corpus");
	}
	if ((rc = corpus_writer_finish(w, NULL, &note)) != 0)
		die(rc, &note, "corpus");
	corpus_writer_destroy(&w);
	free(ids);
	snprintf(path, sizeof(path), "%s/model", dir);
	if (mkdir(path, 0777) != 0)
		die(errno, NULL, path);
	if ((rc = weights_config_save(path, &m, WEIGHTS_F32, NULL, &note)) != 0 || (rc = model_new(&model, &m, &note)) != 0 ||
	    (rc = weights_model_save(path, model, noise, NULL, WEIGHTS_F32, 0, NULL, NULL, &note)) != 0)
		die(rc, &note, "model");
	model_destroy(&model);
}
