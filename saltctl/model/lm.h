/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lm - a model loaded from its folder, for eval, generate and cache stat --fidelity; and what is known of one
 * that cannot be.
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

/* lm_open - a session for b sequences of t tokens (t 0: the model's longest). lm_close in any case, also
 * after a failure. */
int lm_open(struct lm *lm, const char *dir, const struct kernels_options *options, int64_t b, int64_t t,
    struct err_note *note);
void lm_close(struct lm *lm);

/*
 * A model folder of an architecture that the engine does not know: what its files say without it. n_params:
 * elements of all tensors.
 * Returns 0, as weights_open, or as json_parse_file of config.json.
 */
struct lm_foreign {
	char type[64];			/* model_type of config.json, "?" without */
	int64_t n_params, n_tensors;
	double bytes;			/* of all tensors */
};

int lm_foreign(const char *dir, struct lm_foreign *out, struct err_note *note);

/*
 * The key of config.json in which model grow records the small model and the options. lm_origin - its object
 * in PATH (a folder, or a config.json) as a root of its own; NULL: there is none.
 */
#define LM_ORIGIN "salt_grown_from"
struct json *lm_origin(const char *path);

#endif
