/* SPDX-License-Identifier: Apache-2.0 */
/* save - writes and checks a small checkpoint, for tests of crashes. All values are functions of the step. */
#ifndef SALT_TEST_SAVE_H
#define SALT_TEST_SAVE_H

#include <stdlib.h>

#include "engine/checkpoint/checkpoint.h"
#include "base/json/json.h"
#include "engine/model/model.h"

#define SAVE_CONFIG "tests/golden/weights/llama"
#define SAVE_TOKENIZER "tests/golden/weights/llama/config.json"		/* any file: it is copied */

static float
save_value(uint64_t step, unsigned array, uint64_t i)
{
	return (float)(i % 1000) + (float)array * 0.25f + (float)step * 2000.0f;
}

static int
save_source(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	(void)note;
	for (uint64_t i = 0; i < count; i++)
		out[i] = save_value(*(uint64_t *)arg, 2, begin + i);
	return 0;
}

/* Writes a checkpoint as a trainer with n_ranks ranks does; aborts it after an error. */
static int
save_all(const char *root, uint64_t step, unsigned n_ranks, struct err_note *note)
{
	struct checkpoint_files list = {0};
	struct json *state = json_new_object();
	struct model_config cfg;
	struct model *model = NULL;
	char dir[CHECKPOINT_PATH_BYTES];
	float *m = NULL, *v = NULL;
	uint64_t n;
	int rc;

	if ((rc = weights_config_load(SAVE_CONFIG, &cfg, note)) != 0 || (rc = model_new(&model, &cfg, note)) != 0)
		goto out;
	n = (uint64_t)model->n_params;
	m = malloc(n * sizeof(*m));
	v = malloc(n * sizeof(*v));
	rc = json_put(state, "step", json_new_int((int64_t)step));
	for (uint64_t i = 0; i < n; i++) {
		m[i] = save_value(step, 0, i);
		v[i] = save_value(step, 1, i);
	}
	if (rc != 0 || (rc = checkpoint_begin(root, step, dir, note)) != 0)
		goto out;
	for (unsigned r = 0; r < n_ranks && rc == 0; r++) {
		uint64_t begin = n * r / n_ranks, end = n * (r + 1) / n_ranks;
		struct checkpoint_array arrays[] = {{"m", weights_source_array, m}, {"v", weights_source_array, v}};
		struct weights_file entry;

		if ((rc = checkpoint_write_optim(dir, r, n_ranks, begin, end, n, arrays, 2, &entry, note)) == 0)
			rc = checkpoint_files_add(&list, &entry);
	}
	if (rc == 0 && (rc = checkpoint_write_model(dir, model, SAVE_TOKENIZER, save_source, &step, 8192, &list, note)) == 0 &&
	    (rc = checkpoint_write_state(dir, state, &list, note)) == 0)
		rc = checkpoint_finish(root, step, &list, note);
	if (rc != 0)
		checkpoint_abort(root, step, NULL);
out:
	free(list.files);
	free(m);
	free(v);
	json_close(&state);
	model_destroy(&model);
	return rc;
}

/* True if the checkpoint at path has the hashes and values of this step. */
static inline bool
save_good(const char *path, uint64_t step)
{
	struct weights_model *wm = NULL;
	struct checkpoint *c = NULL;
	struct model_config cfg;
	struct model *model = NULL;
	float *x = NULL;
	bool good = false;
	uint64_t n;
	int64_t s;

	if (checkpoint_open(&c, path, CHECKPOINT_HASHES, NULL) != 0 ||
	    !json_int(json_get(checkpoint_state(c), "step"), &s) || (uint64_t)s != step)
		goto out;
	if (weights_config_load(path, &cfg, NULL) != 0 || model_new(&model, &cfg, NULL) != 0 ||
	    weights_model_open(&wm, path, model, NULL) != 0)
		goto out;
	n = (uint64_t)model->n_params;
	if (checkpoint_optim_total(c, "m") != n || (x = malloc(n * sizeof(*x))) == NULL)
		goto out;
	good = true;
	for (unsigned array = 0; array < 3 && good; array++) {
		int rc = array < 2 ? checkpoint_read_optim(c, array == 0 ? "m" : "v", 0, n, x, NULL) : weights_model_read(wm, 0, n, x, NULL);

		good = rc == 0;
		for (uint64_t i = 0; i < n && good; i++)
			good = x[i] == save_value(step, array, i);
	}
out:
	free(x);
	weights_model_close(&wm);
	model_destroy(&model);
	checkpoint_close(&c);
	return good;
}

#endif
