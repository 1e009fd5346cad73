/* SPDX-License-Identifier: Apache-2.0 */
/* model new: makes a folder with config.json and tokenizer.json for trainer.model from a given shape. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "saltctl/core/ctl.h"
#include "saltctl/core/folder.h"
#include "saltctl/core/output.h"
#include "engine/model/model.h"
#include "data/tokenizer/tokenizer.h"
#include "engine/weights/weights.h"

static const struct cli_option options[] = {
	{"family", "NAME", MODEL_FAMILY_NAMES "; default llama", false},
	{"layers", "N", "layers (required)", false},
	{"width", "N", "width of the hidden states (required)", false},
	{"heads", "N", "attention heads; default width / 64, at least 1", false},
	{"kv-heads", "N", "key/value heads (not gpt2, gpt_neo, gpt_neox, opt, gpt_bigcode); default: as many as heads", false},
	{"ff", "N", "width of the feed-forward layer; default 4 x width in families without a gate (such as gpt2, gpt_neox, phi), else 8/3 x width rounded up to 32", false},
	{"context", "N", "longest sequence, tokens; default 1024", false},
	{"vocab", "N", "vocabulary; default: the tokenizer's", false},
	{"tokenizer", "PATH", "tokenizer.json or tokenizer.model, or a folder that holds one; is copied beside config.json", false},
	{"untied", NULL, "an output layer that does not share the embedding (not gpt2, gpt_neo, opt, gpt_bigcode)", false},
	{"rope-theta", "X", "base of the rotary frequencies; default: the family's", false},
	{"weights", "SEED", "also write model.safetensors: the initial values for run.seed SEED", false},
	CTL_END
};

static int
shape_from(const struct ctl_args *args, struct model_config *cfg)
{
	const char *family = ctl_get(args, "family");
	uint64_t layers = 0, width = 0, heads = 0, kv = 0, ff = 0, context = 1024, vocab = (uint64_t)cfg->vocab_size;
	double theta = 10000;
	const struct model_traits *t;
	int exit_code;

	if (!model_family_find(family != NULL ? family : "llama", &cfg->family))
		return ctl_usage(args, "--family: expected " MODEL_FAMILY_NAMES ", found \"%s\"", family);
	if (ctl_need(args, "layers") == NULL || ctl_need(args, "width") == NULL)
		return EX_USAGE;
	if ((exit_code = ctl_get_u64(args, "layers", 1, MODEL_MAX_LAYERS, &layers)) != 0 ||
	    (exit_code = ctl_get_u64(args, "width", 1, MODEL_MAX_DIM, &width)) != 0 ||
	    (exit_code = ctl_get_u64(args, "heads", 1, MODEL_MAX_DIM, &heads)) != 0 ||
	    (exit_code = ctl_get_u64(args, "kv-heads", 1, MODEL_MAX_DIM, &kv)) != 0 ||
	    (exit_code = ctl_get_u64(args, "ff", 1, MODEL_MAX_DIM, &ff)) != 0 ||
	    (exit_code = ctl_get_u64(args, "context", 1, MODEL_MAX_DIM, &context)) != 0 ||
	    (exit_code = ctl_get_u64(args, "vocab", vocab > 0 ? vocab : 1, MODEL_MAX_DIM, &vocab)) != 0 ||
	    (exit_code = ctl_get_num(args, "rope-theta", 1, 1e12, &theta)) != 0)
		return exit_code;
	if (vocab == 0)
		return ctl_usage(args, "how large is the vocabulary? give --tokenizer PATH or --vocab N");
	if (heads == 0)
		heads = width / 64 > 0 ? width / 64 : 1;
	if (width % heads != 0)
		return ctl_usage(args, "--heads: %" PRIu64 " heads do not divide the width %" PRIu64, heads, width);
	t = model_traits(cfg->family);
	if (ff == 0)
		ff = !t->gated ? 4 * width : (8 * width / 3 + 31) / 32 * 32;
	if (!t->rope && (ctl_has(args, "untied") || ctl_has(args, "rope-theta")))
		return ctl_usage(args, "--untied and --rope-theta do not apply to %s", t->name);
	if ((t->whole_heads || t->one_key_head) && kv != 0)
		return ctl_usage(args, "--kv-heads does not apply to %s", t->name);
	cfg->n_layers = (int64_t)layers;
	cfg->d_model = (int64_t)width;
	cfg->n_heads = (int64_t)heads;
	cfg->n_kv_heads = t->one_key_head ? 1 : (int64_t)(kv > 0 ? kv : heads);
	cfg->head_dim = (int64_t)(width / heads);
	cfg->d_ff = (int64_t)ff;
	cfg->context = (int64_t)context;
	cfg->vocab_size = (int64_t)vocab;
	model_family_start(cfg);
	cfg->rotary_dim = t->rotary_share > 0 ? (int64_t)((double)(width / heads) * t->rotary_share) / 2 * 2 : 0;
	cfg->tied = !ctl_has(args, "untied");
	cfg->norm_eps = 1e-5f;
	cfg->initializer_range = 0.02f;
	if (t->rope && (ctl_has(args, "rope-theta") || cfg->family == MODEL_FAMILY_LLAMA))
		cfg->rope_theta = theta;
	/* Granite's and Gemma's defaults fit one size, 1/sqrt(D) fits all. GPT-Neo has no such key. */
	if (cfg->family != MODEL_FAMILY_GPT_NEO)
		cfg->attention_scale = 0;
	return 0;
}

struct first_values {
	const struct model *model;
	uint32_t seed;
};

static int
source_first_values(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	const struct first_values *f = arg;

	(void)note;
	model_init(f->model, f->seed, (int64_t)begin, (int64_t)(begin + count), out);
	return 0;
}

static int
write_folder(const struct ctl_args *args, const char *dir, const struct model *model, const char *tokenizer,
    struct err_note *note)
{
	struct first_values first = {.model = model};
	uint64_t seed = 0;
	int rc;

	if ((rc = weights_config_save(dir, &model->config, WEIGHTS_F32, NULL, note)) != 0 ||
	    (tokenizer != NULL && (rc = ctl_tokenizer_copy(dir, tokenizer, note)) != 0))
		return rc;
	if (!ctl_has(args, "weights"))
		return 0;
	ctl_get_u64(args, "weights", 0, UINT32_MAX, &seed);
	first.seed = (uint32_t)seed;
	return weights_model_save(dir, model, source_first_values, &first, WEIGHTS_F32, 0, NULL, NULL, note);
}

static int
model_new_verb(struct ctl_args *args)
{
	struct model_config cfg = {.bos_id = -1, .eos_id = -1};
	const char *tokenizer = ctl_get(args, "tokenizer");
	struct err_note note = {.name = ""};
	struct ctl_folder folder;
	struct tokenizer *tok = NULL;
	struct model *model = NULL;
	char path[4200], buf[32], why[600];
	struct hash128 id;
	uint64_t seed = 0;
	int32_t eod;
	int exit_code, rc;

	if (tokenizer != NULL) {
		ctl_tokenizer_path(tokenizer, path, sizeof(path));
		/* A tokenizer that cannot be read is copied too, if --vocab gives the vocabulary. */
		if ((!ctl_has(args, "vocab") || tokenizer_identify(path, &id, why, sizeof(why), &note) != 0 || why[0] == '\0') &&
		    (exit_code = ctl_open_tokenizer(args, path, &tok)) != 0)
			return exit_code;
		if (tok == NULL)
			fprintf(stderr, "saltctl model new: warning: %s; copied as it is\n", why);
		cfg.vocab_size = tok != NULL ? tokenizer_vocab_size(tok) : 0;
		if (tok != NULL && tokenizer_end_of_document(tok, NULL, &eod, NULL) == 0)
			cfg.bos_id = cfg.eos_id = eod;
		tokenizer_destroy(&tok);
	}
	if ((exit_code = ctl_get_u64(args, "weights", 0, UINT32_MAX, &seed)) != 0 ||
	    (exit_code = shape_from(args, &cfg)) != 0)
		return exit_code;
	if ((rc = model_new(&model, &cfg, &note)) == 0 && (rc = ctl_folder_begin(&folder, args->operands[0], &note)) == 0)
		rc = ctl_folder_end(&folder, write_folder(args, folder.temp, model, tokenizer != NULL ? path : NULL, &note), &note);
	if (rc != 0)
		exit_code = ctl_fail(args, rc, &note);
	else
		printf("%s: %s parameters\n", args->operands[0], ctl_count((double)model->n_params, buf));
	model_destroy(&model);
	return exit_code;
}

const struct ctl_verb ctl_model_new = {
	.name = "model new", .operands = "FOLDER", .summary = "a model's config.json (and tokenizer.json) from a shape",
	.about = "Makes a folder for trainer.model, with its parents. It appears complete or not at all, and nothing is\n"
	    "overwritten: FOLDER must not exist, or be empty.",
	.example = "saltctl model new --layers 4 --width 160 --heads 4 --context 128 --tokenizer share/tokenizer-4k models/student",
	.options = options, .min_operands = 1, .max_operands = 1, .run = model_new_verb,
};
