/* SPDX-License-Identifier: Apache-2.0 */
#include "saltctl/model/lm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json/json.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/weights/weights.h"

static int
read_range(void *arg, uint64_t begin, uint64_t end, float *out, struct err_note *note)
{
	return weights_model_read(arg, begin, end - begin, out, note);
}

int
lm_open(struct lm *lm, const char *dir, const struct kernels_options *options, int64_t b, int64_t t,
    struct err_note *note)
{
	struct model_session_options so = {.max_batch = b, .max_tokens = t};
	struct weights_model *w = NULL;
	struct model_config cfg;
	struct hash128 fingerprint;
	bool checkpoint = false;
	enum dtype dtype;
	int rc;

	*lm = (struct lm){.kernels = NULL};
	if ((rc = checkpoint_verify_model(dir, &checkpoint, note)) != 0 || (rc = weights_config_load(dir, &cfg, note)) != 0 || (rc = model_new(&lm->model, &cfg, note)) != 0 ||
	    (rc = weights_model_open(&w, dir, lm->model, note)) != 0 ||
	    (!checkpoint && (rc = weights_model_fingerprint(w, dir, &fingerprint, note)) != 0) || (rc = kernels_new(&lm->kernels,
	    options, note)) != 0)
		goto out;
	if (weights_model_remarks(w)[0] != '\0')
		fprintf(stderr, "%s: %s\n", dir, weights_model_remarks(w));
	if (t == 0)
		so.max_tokens = cfg.context;
	rc = ENOMEM;
	dtype = kernels_dtype(lm->kernels);
	if ((lm->params = kernels_alloc(lm->kernels, (size_t)lm->model->n_params * dtype_size(dtype))) == NULL)
		goto out;
	if ((rc = model_load(lm->model, lm->kernels, lm->params, read_range, w, note)) != 0)
		goto out;
	model_bind(lm->model, lm->params, dtype);
	rc = model_session_new(&lm->session, lm->model, lm->kernels, &so, note);
out:
	weights_model_close(&w);
	return rc;
}

void
lm_close(struct lm *lm)
{
	model_session_destroy(&lm->session);
	if (lm->params != NULL)
		kernels_free(lm->kernels, lm->params);
	lm->params = NULL;
	model_destroy(&lm->model);
	kernels_destroy(&lm->kernels);
}

int
lm_foreign(const char *dir, struct lm_foreign *out, struct err_note *note)
{
	struct json *config = NULL;
	struct weights *w = NULL;
	const char *type;
	char path[4200];
	int rc;

	*out = (struct lm_foreign){.type = "?"};
	if ((rc = weights_open(&w, dir, note)) != 0)
		return rc;
	snprintf(path, sizeof(path), "%s/config.json", dir);
	if ((rc = json_parse_file(path, 1u << 20, &config, note)) == 0 && json_text(json_get(config, "model_type"), &type))
		snprintf(out->type, sizeof(out->type), "%s", type);
	out->n_tensors = (int64_t)weights_count(w);
	for (size_t i = 0; i < weights_count(w); i++) {
		out->n_params += (int64_t)weights_at(w, i)->n_elements;
		out->bytes += (double)weights_at(w, i)->len_bytes;
	}
	json_close(&config);
	weights_close(&w);
	return rc;
}

struct json *
lm_origin(const char *path)
{
	struct json *config = NULL, *origin = NULL;
	char file[4200], *text = NULL;

	snprintf(file, sizeof(file), "%s/config.json", path);
	if ((json_parse_file(file, 4u << 20, &config, NULL) == 0 || json_parse_file(path, 4u << 20, &config, NULL) == 0) &&
	    json_kind(json_get(config, LM_ORIGIN)) == JSON_KIND_OBJECT && (text = json_print(json_get(config, LM_ORIGIN), false)) != NULL)
		json_parse(text, strlen(text), path, &origin, NULL);
	free(text);
	json_close(&config);
	return origin;
}
