/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the keys of config.json are called in each family: config_keys.c, read by config.c and written by
 * config_save.c.
 */
#ifndef SALT_WEIGHTS_CONFIG_OWN_H
#define SALT_WEIGHTS_CONFIG_OWN_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/model/model.h"

/* Sizes and the like. NULL: the family has no such key. */
struct names {
	const char *context, *d_model, *n_layers, *n_heads, *n_kv_heads, *d_ff, *head_dim, *eps, *activation, *init_std;
	bool needs_kv_heads, needs_head_dim;	/* the key's default is no rule, so it must be there */
};

enum kind {
	FLAG,			/* bool of struct model_config */
	NOT,			/* its opposite */
	SCALE, INVERSE,		/* float; the float is 1 / key */
	INVERSE_ROOT,		/* the float is 1 / sqrt(key) */
	CAP,			/* float, null: 0 */
	ONLY_TRUE, ONLY_FALSE, ONLY_NULL,
	ZERO			/* not read: a dropout */
};

struct key {
	const char *name;
	enum kind kind;
	size_t at;
};

#define AT(member) offsetof(struct model_config, member)

/* How config.json says which layers have a window. */
enum windows { NO_WINDOWS, ALL_LAYERS, SOME_LAYERS, IF_USED, GPT_NEO_TYPES };

struct family {
	const struct names *names;
	const struct key *keys;
	enum windows windows;
};

/* A row for every family: unit/families walks them. */
extern const struct family weights__families[MODEL_FAMILY_COUNT];

#endif
