/* SPDX-License-Identifier: Apache-2.0 */
/* load - converts a text and overrides to settings. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "fabric/config/config_internal.h"

struct config__origin *
config__origin_of(const struct config *cfg, const char *key)
{
	const struct config__option *o = config__find(key);

	return o != NULL ? &cfg->own->origin[o - config__table] : NULL;
}

bool
config__given(const struct config *cfg, const struct config__option *o)
{
	return o->def != NULL || cfg->own->origin[o - config__table].source != CONFIG__DEFAULT;
}

static int
new_config(const char *file, const char *base_dir, struct config **out, struct err_note *note)
{
	struct config *cfg = calloc(1, sizeof(*cfg));
	int rc = ENOMEM;

	*out = NULL;
	if (cfg == NULL || (cfg->own = calloc(1, sizeof(*cfg->own))) == NULL ||
	    (cfg->own->origin = calloc(config__n_options, sizeof(*cfg->own->origin))) == NULL ||
	    (cfg->own->arena = mem_arena_new(16 << 20)) == NULL ||
	    (cfg->own->file = mem_arena_strndup(cfg->own->arena, file, strlen(file))) == NULL ||
	    (cfg->own->base_dir = mem_arena_strndup(cfg->own->arena, base_dir, strlen(base_dir))) == NULL)
		goto out;
	for (size_t i = 0; i < config__n_options; i++) {
		const struct config__option *o = &config__table[i];

		if (o->def != NULL) {
			if ((rc = config__assign_text(cfg, o, o->def, note)) != 0)
				goto out;
		} else if (o->type == CONFIG__PATH || o->type == CONFIG__CORPUS) {
			char *empty = mem_arena_strndup(cfg->own->arena, "", 0);

			rc = ENOMEM;
			if (empty == NULL)
				goto out;
			memcpy((char *)cfg + o->offset, &empty, sizeof(empty));
		}
	}
	*out = cfg;
	return 0;
out:
	config_destroy(&cfg);
	return rc;
}

void
config_destroy(struct config **cfg)
{
	if (cfg == NULL || *cfg == NULL)
		return;
	if ((*cfg)->own != NULL) {
		mem_arena_destroy(&(*cfg)->own->arena);
		free((*cfg)->own->origin);
		free((*cfg)->own);
	}
	free(*cfg);
	*cfg = NULL;
}

/* Sets options that were not given and follow from others. */
static void
derive(struct config *cfg)
{
	struct config__origin *o = config__origin_of(cfg, "teacher.scorer");

	if (cfg->teacher.scorer[0] == '\0') {
		cfg->teacher.scorer = cfg->teacher.model;
		o->source = CONFIG__DERIVED;
	}
	o = config__origin_of(cfg, "trainer.micro_batch");
	if (cfg->trainer.micro_batch == 0) {
		cfg->trainer.micro_batch = cfg->trainer.batch / cfg->trainer.lanes;
		o->source = CONFIG__DERIVED;
	}
	o = config__origin_of(cfg, "trainer.decay_steps");
	if (cfg->trainer.decay_steps == 0) {
		cfg->trainer.decay_steps = cfg->trainer.steps / 10;
		o->source = CONFIG__DERIVED;
	}
}

/* Applies one --set: "section.key=value". */
static int
assign_override(struct config *cfg, const char *text, struct err_note *note)
{
	const struct config__option *o;
	const char *eq = strchr(text, '=');
	char key[128];
	int rc;

	err_note_set(note, ERR_CONFIG, "--set %s", text);
	if (eq == NULL || eq == text || (size_t)(eq - text) >= sizeof(key))
		return err_expect(note, ERR_CONFIG, "", "section.key=value", "");
	snprintf(key, sizeof(key), "%.*s", (int)(eq - text), text);
	if ((o = config__find(key)) == NULL)
		return config__unknown(note, key, "an option of docs/config.md");
	if ((rc = config__assign_text(cfg, o, eq + 1, note)) == 0)
		cfg->own->origin[o - config__table] = (struct config__origin){ CONFIG__SET, 0, strcmp(key, o->key) != 0 };
	return rc;
}

int
config_load_text(const char *text, size_t len, const char *name, const char *base_dir,
    const char *const *overrides, size_t n, struct config **cfg, struct err_note *note)
{
	struct config *c = NULL;
	int rc;

	*cfg = NULL;
	if ((rc = new_config(name, base_dir, &c, note)) != 0)
		goto out;
	if ((rc = config__yaml(c, text, len, note)) != 0)
		goto out;
	for (size_t i = 0; i < n; i++)
		if ((rc = assign_override(c, overrides[i], note)) != 0)
			goto out;
	derive(c);
	if ((rc = config__validate(c, note)) != 0)
		goto out;
	err_note_set(note, 0, "%s", "");
	*cfg = c;
	c = NULL;
out:
	config_destroy(&c);
	return rc;
}
