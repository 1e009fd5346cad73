/* SPDX-License-Identifier: Apache-2.0 */
/* model_find - the tensor with this name, or NULL; for tests of the table of tensors. */
#ifndef SALT_TESTS_MODEL_FIND_H
#define SALT_TESTS_MODEL_FIND_H

#include <string.h>

#include "engine/model/model.h"

static inline const struct model_tensor *
model_find(const struct model *model, const char *name)
{
	for (int i = 0; i < model->n_tensors; i++)
		if (strcmp(model->tensors[i].name, name) == 0)
			return &model->tensors[i];
	return NULL;
}

#endif
