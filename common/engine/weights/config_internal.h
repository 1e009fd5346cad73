/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_internal - the names of config.json's keys in each family: the tables of config_keys.c, used by
 * config.c for reading and by config_save.c for writing.
 */
#ifndef SALT_WEIGHTS_CONFIG_OWN_H
#define SALT_WEIGHTS_CONFIG_OWN_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/model/model.h"

/* Names of keys that every model has. NULL: the family has no such key. */
struct names {
	const char *context, *d_model, *n_layers, *n_heads, *n_kv_heads, *d_ff, *head_dim, *eps, *activation, *init_std;
	bool needs_kv_heads, needs_head_dim;	/* required: their defaults are constants */
};

enum kind {
	FLAG,			/* a bool of struct model_config */
	NOT,			/* the opposite of the bool */
	SCALE, INVERSE,		/* a float: the key, or 1 / key */
	INVERSE_ROOT,		/* the float is 1 / sqrt(key) */
	CAP,			/* a float; null means 0 */
	ONLY_TRUE, ONLY_FALSE, ONLY_NULL,
	ZERO			/* not read; written as 0: a dropout */
};

struct key {
	const char *name;
	enum kind kind;
	size_t at;
};

#define AT(member) offsetof(struct model_config, member)

/* How config.json says which layers have a sliding window. */
enum windows { NO_WINDOWS, ALL_LAYERS, SOME_LAYERS, IF_USED, GPT_NEO_TYPES };

struct family {
	const struct names *names;
	const struct key *keys;
	enum windows windows;
};

/* One entry per family; unit/families checks them all. */
extern const struct family weights__families[MODEL_FAMILY_COUNT];

#endif
