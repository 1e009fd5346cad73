/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lm - loads a model from its folder, for eval, generate and cache stat --fidelity; and describes a model
 * that the engine cannot load.
 */
#ifndef SALT_CTL_LM_H
#define SALT_CTL_LM_H

#include "base/err/err.h"
#include "engine/kernels/kernels.h"
#include "engine/model/model.h"

struct json;

struct lm {
	struct kernels *kernels;
	struct model *model;
	struct model_session *session;
	float *params;
};

/*
 * lm_open - opens a session for b sequences of t tokens (t 0: the model's position limit). Call lm_close in
 * any case, also after an error.
 */
int lm_open(struct lm *lm, const char *dir, const struct kernels_options *options, int64_t b, int64_t t,
    struct err_note *note);
void lm_close(struct lm *lm);

/*
 * lm_foreign - describes a model folder of an architecture that the engine does not support, from its files
 * alone.
 * n_params: elements of all tensors. Returns 0, or an error of weights_open or of json_parse_file for
 * config.json.
 */
struct lm_foreign {
	char type[64];			/* model_type of config.json; "?" if it has none */
	int64_t n_params, n_tensors;
	double bytes;			/* of all tensors */
};

int lm_foreign(const char *dir, struct lm_foreign *out, struct err_note *note);

/*
 * LM_ORIGIN is the key of config.json in which model grow records the small model and the options. lm_origin
 * returns its object from PATH (a folder, or a config.json) as a separate JSON root, or NULL if there is
 * none.
 */
#define LM_ORIGIN "salt_grown_from"
struct json *lm_origin(const char *path);

#endif
