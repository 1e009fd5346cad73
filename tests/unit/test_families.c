/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For all families in the table: config.json is written and read back unchanged, and docs/models.md has a
 * line.
 *   test_unit_families print   prints the lines for docs/models.md
 */
#include <sys/stat.h>

#include "check.h"
#include "engine/model/model.h"
#include "engine/weights/weights.h"
#include "files.h"

static void
line_of(enum model_family family, char *buf, size_t size)
{
	const struct model_traits *t = model_traits(family);

	snprintf(buf, size, "| %s | `%s` | %s |\n", t->models, t->name, t->about);
}

static void
documented(void)
{
	FILE *f = fopen("docs/models.md", "rb");
	static char text[1 << 18], line[1024];
	const char *at;
	int rows = 0;

	REQUIRE(f != NULL);
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	fclose(f);
	REQUIRE((at = strstr(text, "| models | `model_type` |")) != NULL);
	for (int i = 0; i < MODEL_FAMILY_COUNT; i++) {
		line_of((enum model_family)i, line, sizeof(line));
		CHECK_ROW(line, strstr(at, line) != NULL);
	}
	for (at = strchr(at, '\n') + 1; at[0] == '|'; at = strchr(at, '\n') + 1)
		rows++;
	CHECK(rows == MODEL_FAMILY_COUNT + 1);		/* with the line under the table's header */
}

/* A configuration with the family's default values; changed: with other values where it has options. */
static struct model_config
config_of(enum model_family family, bool changed)
{
	const struct model_traits *t = model_traits(family);
	struct model_config c = {.family = family, .vocab_size = 61, .context = 40, .d_model = 24, .n_layers = 5, .n_heads = 3,
	    .n_kv_heads = t->whole_heads ? 3 : 1, .head_dim = 8, .d_ff = 50, .bos_id = 1, .eos_id = 2};

	model_family_start(&c);
	if (!changed)
		return c;
	c.initializer_range = 0.3f;
	c.tied = !c.tied;
	c.norm_eps = t->start.norm_eps != 1e-5f || family == MODEL_FAMILY_PHI3 ? 3e-4f : 1e-5f;		/* some have no key for it */
	c.window = c.window > 0 ? 7 : 0;
	c.attention_cap = c.attention_cap > 0 ? 2.5f : 0;
	c.logit_cap = c.logit_cap > 0 ? 1.5f : 0;
	c.rope_theta = t->rope ? 777 : 0;
	c.local_theta = c.local_theta > 0 ? 55 : 0;
	if (t->rope && family != MODEL_FAMILY_GEMMA3) {
		c.rope_scaling.type = MODEL_ROPE_YARN;
		c.rope_scaling.factor = 2;
		c.rope_scaling.original_context = 20;
		c.rope_scaling.beta_fast = 31;
		c.rope_scaling.beta_slow = 2;
	}
	if (family == MODEL_FAMILY_GRANITE) {
		c.embed_scale = 12;
		c.attention_scale = 0.125f;
		c.residual_scale = 0.25f;
		c.output_scale = 0.125f;
	}
	if (family == MODEL_FAMILY_SMOLLM3)
		c.nope_layers[0] = 5;
	if (t->partial_rotary)
		c.rotary_dim = 6;
	return c;
}

static bool
same(const struct model_config *a, const struct model_config *b)
{
	return a->family == b->family && a->vocab_size == b->vocab_size && a->context == b->context && a->d_model == b->d_model &&
	    a->n_layers == b->n_layers && a->n_heads == b->n_heads && a->n_kv_heads == b->n_kv_heads && a->head_dim == b->head_dim &&
	    a->d_ff == b->d_ff && a->norm_eps == b->norm_eps && a->tied == b->tied && a->activation == b->activation &&
	    a->attention_bias == b->attention_bias && a->no_proj_bias == b->no_proj_bias && a->mlp_bias == b->mlp_bias &&
	    a->parallel_residual == b->parallel_residual && a->rope_theta == b->rope_theta && a->local_theta == b->local_theta &&
	    a->rope_scaling.type == b->rope_scaling.type && a->rope_scaling.factor == b->rope_scaling.factor &&
	    a->rope_scaling.original_context == b->rope_scaling.original_context &&
	    a->rope_scaling.beta_fast == b->rope_scaling.beta_fast && a->rope_scaling.beta_slow == b->rope_scaling.beta_slow &&
	    (a->embed_scale == b->embed_scale || (a->embed_scale == 0 && b->embed_scale == 1)) &&
	    (a->residual_scale == b->residual_scale || (a->residual_scale == 0 && b->residual_scale == 1)) &&
	    (a->output_scale == b->output_scale || (a->output_scale == 0 && b->output_scale == 1)) &&
	    a->attention_scale == b->attention_scale && a->attention_cap == b->attention_cap && a->logit_cap == b->logit_cap &&
	    a->window == b->window && memcmp(a->nope_layers, b->nope_layers, sizeof(a->nope_layers)) == 0 &&
	    (a->window == 0 || memcmp(a->local_layers, b->local_layers, sizeof(a->local_layers)) == 0) &&
	    a->initializer_range == b->initializer_range && a->bos_id == b->bos_id && a->eos_id == b->eos_id;
}

static void
comes_back(enum model_family family, bool changed)
{
	const char *name = model_family_name(family);
	struct model_config c = config_of(family, changed), back = {.family = MODEL_FAMILY_LLAMA};
	struct model *m = NULL;
	struct err_note note = {0};
	char text[512];

	CHECK_ROW(name, model_new(&m, &c, &note) == 0);
	CHECK_ROW(name, m != NULL && m->n_params > 0);
	model_destroy(&m);
	REQUIRE(weights_config_save(files_dir, &c, WEIGHTS_F32, NULL, &note) == 0);
	CHECK_ROW(name, weights_config_load(files_dir, &back, &note) == 0);
	if (note.name[0] != '\0')
		fprintf(stderr, "%s\n", err_note_str(&note, ERR_FORMAT, text, sizeof(text)));
	CHECK_ROW(name, same(&c, &back));
	remove(in_dir("config.json"));
}

/* Computed by hand: 4 layers of 2 attention products at 10 tokens; 3 of these layers see only 3 keys. */
static void
window_flops(void)
{
	struct model_config c = config_of(MODEL_FAMILY_GEMMA2, false), plain;

	c.n_layers = 4;
	c.window = 3;
	c.local_layers[0] = 7;
	plain = c;
	plain.window = 0;
	CHECK_NEAR(model_flops_per_token(&plain, 10) - model_flops_per_token(&c, 10), 12.0 * 3 * 24 * 7, 1e-6);
}

int
main(int argc, char **argv)
{
	char line[1024];

	if (argc > 1 && strcmp(argv[1], "print") == 0) {
		for (int i = 0; i < MODEL_FAMILY_COUNT; i++) {
			line_of((enum model_family)i, line, sizeof(line));
			fputs(line, stdout);
		}
		return 0;
	}
	files_begin();
	documented();
	for (int i = 0; i < MODEL_FAMILY_COUNT; i++) {
		enum model_family found;

		CHECK(model_family_find(model_family_name((enum model_family)i), &found) && (int)found == i);
		comes_back((enum model_family)i, false);
		comes_back((enum model_family)i, true);
	}
	window_flops();
	files_end();
	return check_done();
}
