/* SPDX-License-Identifier: Apache-2.0 */
/* lm - a model loaded from its folder, for eval, generate and cache stat --fidelity. */
#ifndef SALT_CTL_LM_H
#define SALT_CTL_LM_H

#include "base/err/err.h"
#include "engine/kernels/kernels.h"
#include "engine/model/model.h"

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

#endif
