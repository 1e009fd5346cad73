/* SPDX-License-Identifier: Apache-2.0 */
/* Input: a GGUF file. It is rejected, or all of it can be read: tensors, configuration, model, tokenizer. */
#include "engine/gguf/gguf_internal.h"

#include "engine/model/model.h"
#include "fuzz.h"

static void
read_model(const struct gguf *g)
{
	struct gguf_model *m = NULL;
	struct model *model = NULL;
	struct model_config cfg;
	struct err_note note = {0};
	float x[1000];
	int rc;

	if ((rc = gguf_config(g, &cfg, &note)) != 0) {
		FUZZ_REFUSED(rc, note);
		return;
	}
	if (cfg.n_layers < 100 && (rc = model_new(&model, &cfg, &note)) == 0) {
		if ((rc = gguf_model_open(&m, g, model, &note)) != 0)
			FUZZ_REFUSED(rc, note);
		else
			for (uint64_t at = 0, n = (uint64_t)model->n_params; at < n; at += 1000)
				if (gguf_model_source(m, at, n - at < 1000 ? n - at : 1000, x, &note) != 0)
					break;
	}
	gguf_model_close(&m);
	model_destroy(&model);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct err_note note = {0};
	char *json, *config;
	struct gguf *g;
	float x[300];
	int rc;

	if ((rc = gguf_open(&g, fuzz_file("x.gguf", data, len), &note)) != 0) {
		FUZZ_CHECK(g == NULL);
		FUZZ_REFUSED(rc, note);
		return 0;
	}
	for (size_t i = 0; i < g->n_tensors; i++) {
		const struct gguf_tensor *t = &g->tensors[i];

		FUZZ_CHECK(gguf_find(g, t->name) == t && t->offset_bytes + t->len_bytes <= len);
		for (uint64_t at = 0; at < t->n_elements; at += 300)
			if ((rc = gguf_read_f32(t, at, t->n_elements - at < 300 ? t->n_elements - at : 300, x, &note)) != 0) {
				FUZZ_REFUSED(rc, note);
				break;
			}
	}
	read_model(g);
	if ((rc = gguf_tokenizer(g, &json, &config, &note)) != 0) {
		FUZZ_CHECK(json == NULL && config == NULL);
		FUZZ_REFUSED(rc, note);
	}
	free(json);
	free(config);
	gguf_close(&g);
	return 0;
}
