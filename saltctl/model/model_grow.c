/* SPDX-License-Identifier: Apache-2.0 */
/* model grow: makes a larger model from a small one, as a folder for trainer.init and trainer.model. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/hash/hash.h"
#include "base/mem/mem.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/model/grow.h"
#include "engine/weights/weights.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/folder.h"
#include "saltctl/core/output.h"
#include "saltctl/model/lm.h"

static const struct cli_option options[] = {
	{"layers", "N", "layers; default: as many as SLM", false},
	{"width", "N", "width of the hidden states; default: SLM's", false},
	{"heads", "N", "attention heads, of SLM's size; default: in proportion to the width", false},
	{"kv-heads", "N", "key/value heads (llama, qwen); default: in proportion to the heads", false},
	{"ff", "N", "width of the feed-forward layer; default: in proportion to the width", false},
	{"depth", "HOW", "identity (default): new layers change nothing yet; stack: repeat SLM's", false},
	{"noise", "X", "noise in cloned weights, X standard deviations of their matrix; default 0", false},
	{"seed", "N", "seed of the noise; default 0", false},
	CTL_JSON,
	CTL_END
};

struct grow {
	const char *small;			/* folder of the small model */
	struct model_growth_options options;
	struct model *model;			/* the small model, with its values and identity */
	float *params;
	struct hash128 fingerprint;
	struct model_growth *growth;
	struct ctl_meter meter;
};

static int
arguments(const struct ctl_args *args, struct grow *g)
{
	const char *depth = ctl_get(args, "depth");
	uint64_t layers = 0, width = 0, heads = 0, kv = 0, ff = 0, seed = 0;
	double noise = 0;
	int exit_code;

	if ((exit_code = ctl_get_u64(args, "layers", 1, MODEL_MAX_LAYERS, &layers)) != 0 ||
	    (exit_code = ctl_get_u64(args, "width", 1, MODEL_MAX_DIM, &width)) != 0 ||
	    (exit_code = ctl_get_u64(args, "heads", 1, MODEL_MAX_DIM, &heads)) != 0 ||
	    (exit_code = ctl_get_u64(args, "kv-heads", 1, MODEL_MAX_DIM, &kv)) != 0 ||
	    (exit_code = ctl_get_u64(args, "ff", 1, MODEL_MAX_DIM, &ff)) != 0 ||
	    (exit_code = ctl_get_u64(args, "seed", 0, UINT32_MAX, &seed)) != 0 ||
	    (exit_code = ctl_get_num(args, "noise", 0, 10, &noise)) != 0)
		return exit_code;
	if (depth != NULL && strcmp(depth, "identity") != 0 && strcmp(depth, "stack") != 0)
		return ctl_usage(args, "--depth: expected identity or stack, found \"%s\"", depth);
	g->small = args->operands[0];
	g->options = (struct model_growth_options){.layers = (int64_t)layers, .width = (int64_t)width,
	    .heads = (int64_t)heads, .kv_heads = (int64_t)kv, .ff = (int64_t)ff,
	    .stack = depth != NULL && strcmp(depth, "stack") == 0, .noise = (float)noise,
	    .seed = (uint32_t)seed};
	return 0;
}

static int
read_small(struct grow *g, struct err_note *note)
{
	struct weights_model *w = NULL;
	struct model_config cfg;
	bool checkpoint;
	int rc;

	if ((rc = checkpoint_verify_model(g->small, &checkpoint, note)) != 0 ||
	    (rc = weights_config_load(g->small, &cfg, note)) != 0 ||
	    (rc = model_new(&g->model, &cfg, note)) != 0 ||
	    (rc = weights_model_open(&w, g->small, g->model, note)) != 0 ||
	    (rc = weights_model_fingerprint(w, g->small, &g->fingerprint, note)) != 0)
		goto out;
	if (weights_model_remarks(w)[0] != '\0')
		fprintf(stderr, "%s: %s\n", g->small, weights_model_remarks(w));
	if ((g->params = mem_alloc((size_t)g->model->n_params, sizeof(float))) == NULL)
		rc = err_note_set(note, ENOMEM, "%s", g->small);
	else
		rc = weights_model_read(w, 0, (uint64_t)g->model->n_params, g->params, note);
out:
	weights_model_close(&w);
	return rc;
}

static int
source(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	struct grow *g = arg;

	(void)note;
	ctl_meter_update(&g->meter, (double)begin);
	model_growth_read(g->growth, (int64_t)begin, (int64_t)(begin + count), out);
	return 0;
}

/* The object LM_ORIGIN of config.json: the small model, and how it was grown. */
static struct json *
origin(const struct grow *g)
{
	const struct model_config *c = &g->model->config;
	char hex[HASH_HEX_BYTES];

	return ctl_record(CTL("fingerprint", hash_hex(g->fingerprint, hex)), CTL("layers", c->n_layers),
	    CTL("width", c->d_model), CTL("heads", c->n_heads), CTL("kv_heads", c->n_kv_heads),
	    CTL("ff", c->d_ff), CTL("depth", g->options.stack ? "stack" : "identity"),
	    CTL("noise", (double)g->options.noise), CTL("seed", g->options.seed));
}

static int
write_folder(struct grow *g, const char *dir, struct err_note *note)
{
	static const char *const texts[] = {"tokenizer_config.json", "special_tokens_map.json"};
	const struct model *model = model_growth_model(g->growth);
	struct json *more = json_new_object();
	char path[4200];
	int rc;

	json_put(more, LM_ORIGIN, origin(g));
	rc = weights_config_save_more(dir, &model->config, WEIGHTS_F32, more, NULL, note);
	ctl_tokenizer_path(g->small, path, sizeof(path));
	if (rc == 0 && access(path, F_OK) == 0)
		rc = ctl_tokenizer_copy(dir, path, note);
	else if (rc == 0)
		fprintf(stderr,
		    "saltctl model grow: warning: %s has no tokenizer.json or tokenizer.model, so the new folder has no tokenizer\n",
		    g->small);
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]) && rc == 0; i++) {
		snprintf(path, sizeof(path), "%s/%s", g->small, texts[i]);
		if (access(path, F_OK) == 0)
			rc = weights_file_copy(dir, texts[i], path, NULL, note);
	}
	if (rc != 0)
		return rc;
	ctl_meter_start(&g->meter, "grow", "parameters", (double)model->n_params);
	rc = weights_model_save(dir, model, source, g, WEIGHTS_F32, 0, NULL, NULL, note);
	ctl_meter_end(&g->meter);
	return rc;
}

static int
report(const struct ctl_args *args, const struct grow *g)
{
	const struct model *model = model_growth_model(g->growth);
	const struct model_config *to = &model->config, *from = &g->model->config;
	bool preserved = !g->options.stack || to->n_layers == from->n_layers;
	char a[32], b[32];

	if (g->options.noise == 0 &&
	    (to->d_model > from->d_model || to->n_heads > from->n_heads || to->d_ff > from->d_ff))
		fprintf(stderr, "saltctl model grow: warning: in training, copies get equal gradients and "
		    "stay equal; --noise 2 prevents that and keeps the logits\n");
	if (ctl_has(args, "json"))
		return ctl_print_json(ctl_record(CTL("dir", args->operands[1]),
		    CTL("parameters", model->n_params), CTL("parameters_small", g->model->n_params),
		    CTL("function_preserved", preserved), CTL("grown_from", origin(g))));
	printf("%s: %s parameters from %s; %s\n", args->operands[1], ctl_count((double)model->n_params, a),
	    ctl_count((double)g->model->n_params, b),
	    preserved ? "the same logits as SLM" :
			"not the logits of SLM, whose layers are repeated (--depth stack)");
	return 0;
}

static int
model_grow(struct ctl_args *args)
{
	struct err_note note = {.name = ""};
	struct grow g = {.small = NULL};
	struct ctl_folder folder;
	int exit_code, rc;

	if ((exit_code = arguments(args, &g)) != 0)
		return exit_code;
	if ((rc = read_small(&g, &note)) != 0) {
		exit_code = ctl_fail(args, rc, &note);
		goto out;
	}
	if ((rc = model_growth_new(&g.growth, g.model, g.params, &g.options, &note)) != 0) {
		exit_code = rc == ERR_RANGE ?
		    ctl_usage(args, "--%s: expected %s, found %s", note.name, note.expected, note.found) :
		    ctl_fail(args, rc, &note);
		goto out;
	}
	if ((rc = ctl_folder_begin(&folder, args->operands[1], &note)) == 0)
		rc = ctl_folder_end(&folder, write_folder(&g, folder.temp, &note), &note);
	exit_code = rc != 0 ? ctl_fail(args, rc, &note) : report(args, &g);
out:
	model_growth_destroy(&g.growth);
	free(g.params);
	model_destroy(&g.model);
	return exit_code;
}

const struct ctl_verb ctl_model_grow = {
	.name = "model grow", .operands = "SLM FOLDER",
	.summary = "a larger model that starts with what a small one has learned",
	.about = "Clones the hidden states, heads and feed-forward units of the model in SLM (a folder or a\n"
	    "checkpoint), adds layers, and writes FOLDER for trainer.model and trainer.init: config.json,\n"
	    "model.safetensors (fp32) and SLM's tokenizer. The new model has SLM's logits; only --depth stack\n"
	    "changes them. Noise cancels over the copies. FOLDER appears complete or not at all, and nothing\n"
	    "is overwritten.",
	.example = "saltctl model grow models/slm models/grown --layers 8 --width 256 --noise 2",
	.options = options, .min_operands = 2, .max_operands = 2, .run = model_grow,
};
