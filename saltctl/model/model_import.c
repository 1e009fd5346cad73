/* SPDX-License-Identifier: Apache-2.0 */
/* model import: turns a GGUF file into a folder that trainer.model, teacher.model and transformers load. */
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
#include "engine/gguf/gguf.h"
#include "engine/weights/weights.h"

static const struct cli_option options[] = {
	{"dtype", "NAME", "fp32 (default: keeps every decoded value), bf16 or fp16", false},
	{"tokenizer", "PATH", "tokenizer.json, or a folder that holds one, instead of the tokenizer in FILE", false},
	CTL_JSON,
	CTL_END
};

struct import {
	struct ctl_folder folder;
	char tokenizer_path[4200];		/* of --tokenizer; "": use the one in the file */
	char unread[600];			/* why tokenizer_path cannot be read; "": it can */
	enum weights_dtype dtype;
	struct gguf *gguf;
	struct model *model;
	struct gguf_model *tensors;
	struct tokenizer *tok;
	char *tokenizer, *tokenizer_config;
	struct ctl_meter meter;
};

static int
source(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	struct import *im = arg;

	ctl_meter_update(&im->meter, (double)begin);
	return gguf_model_source(im->tensors, begin, count, out, note);
}

static int
read_tokenizer(struct import *im, const char *from, struct err_note *note)
{
	struct hash128 id;
	int rc;

	if (im->tokenizer_path[0] != '\0') {
		/* A tokenizer of a kind that cannot be read is copied nevertheless. */
		if ((rc = tokenizer_identify(im->tokenizer_path, &id, im->unread, sizeof(im->unread), note)) != 0 || im->unread[0] != '\0')
			return rc;
		rc = tokenizer_load(&im->tok, im->tokenizer_path, note);
	} else if ((rc = gguf_tokenizer(im->gguf, &im->tokenizer, &im->tokenizer_config, note)) == 0)
		rc = tokenizer_parse(&im->tok, im->tokenizer, strlen(im->tokenizer), from, note);
	if (rc != 0 || (int64_t)tokenizer_vocab_size(im->tok) <= im->model->config.vocab_size)
		return rc;
	return err_expect(note, ERR_MISMATCH, "%s", "at most the model's %" PRId64 " tokens", "%" PRId32,
	    im->tokenizer_path[0] != '\0' ? im->tokenizer_path : from, im->model->config.vocab_size,
	    tokenizer_vocab_size(im->tok));
}

/* Reads and checks all input before anything is written. */
static int
read_all(struct import *im, const char *from, struct err_note *note)
{
	struct model_config cfg;
	int rc;

	if ((rc = gguf_open(&im->gguf, from, note)) != 0 || (rc = gguf_config(im->gguf, &cfg, note)) != 0 ||
	    (rc = model_new(&im->model, &cfg, note)) != 0 || (rc = gguf_model_open(&im->tensors, im->gguf,
	    im->model, note)) != 0)
		return rc;
	return read_tokenizer(im, from, note);
}

static int
write_files(struct import *im, const char *d, struct err_note *note)
{
	int rc;

	ctl_meter_start(&im->meter, "import", "parameters", (double)im->model->n_params);
	rc = weights_model_save(d, im->model, source, im, im->dtype, 0, NULL, NULL, note);
	ctl_meter_end(&im->meter);
	if (rc != 0)
		return rc;
	rc = im->tokenizer != NULL ?
	    weights_file_write(d, "tokenizer.json", im->tokenizer, strlen(im->tokenizer), NULL, note) :
	    ctl_tokenizer_copy(d, im->tokenizer_path, note);
	if (rc == 0 && im->tokenizer_config != NULL)
		rc = weights_file_write(d, "tokenizer_config.json", im->tokenizer_config,
		    strlen(im->tokenizer_config), NULL, note);
	return rc != 0 ? rc : weights_config_save(d, &im->model->config, im->dtype, NULL, note);
}

static int
report(const struct ctl_args *args, const struct import *im)
{
	const struct model_config *cfg = &im->model->config;
	const char *dir = args->operands[1], *dtype = weights_dtype_name(im->dtype),
	    *tokenizer = im->tok != NULL ? tokenizer_describe(im->tok) : "copied, not read";
	char buf[32];

	if (im->tok == NULL)
		fprintf(stderr, "saltctl model import: warning: %s; copied as it is\n", im->unread);

	if (ctl_has(args, "json"))
		return ctl_print_json(ctl_record(CTL("dir", dir), CTL("parameters", im->model->n_params),
		    CTL("dtype", dtype), CTL("vocab_size", cfg->vocab_size), CTL("context", cfg->context),
		    CTL("tokens", ctl_known(im->tok != NULL, im->tok != NULL ? tokenizer_vocab_size(im->tok) : 0)), CTL("tokenizer", tokenizer)));
	printf("%s: %s parameters in %s, vocabulary %" PRId64 ", context %" PRId64 ", tokenizer %s\n", dir,
	    ctl_count((double)im->model->n_params, buf), dtype, cfg->vocab_size, cfg->context, tokenizer);
	return 0;
}

static int
arguments(const struct ctl_args *args, struct import *im)
{
	static const struct { const char *name; enum weights_dtype dtype; } dtypes[] = {
		{"fp32", WEIGHTS_F32}, {"bf16", WEIGHTS_BF16}, {"fp16", WEIGHTS_F16}};
	const char *dtype = ctl_get(args, "dtype"), *tokenizer = ctl_get(args, "tokenizer");
	size_t i = 0;

	while (dtype != NULL && i < 3 && strcmp(dtype, dtypes[i].name) != 0)
		i++;
	if (i == 3)
		return ctl_usage(args, "--dtype: expected fp32, bf16 or fp16, found \"%s\"", dtype);
	im->dtype = dtypes[i].dtype;
	if (tokenizer != NULL)
		ctl_tokenizer_path(tokenizer, im->tokenizer_path, sizeof(im->tokenizer_path));
	return 0;
}

static int
model_import_verb(struct ctl_args *args)
{
	struct import im = {.gguf = NULL};
	struct err_note note = {.name = ""};
	int exit_code, rc;

	if ((exit_code = arguments(args, &im)) != 0)
		return exit_code;
	if ((rc = read_all(&im, args->operands[0], &note)) == 0 &&
	    (rc = ctl_folder_begin(&im.folder, args->operands[1], &note)) == 0)
		rc = ctl_folder_end(&im.folder, write_files(&im, im.folder.temp, &note), &note);
	exit_code = rc != 0 ? ctl_fail(args, rc, &note) : report(args, &im);
	tokenizer_destroy(&im.tok);
	gguf_model_close(&im.tensors);
	model_destroy(&im.model);
	gguf_close(&im.gguf);
	free(im.tokenizer);
	free(im.tokenizer_config);
	return exit_code;
}

const struct ctl_verb ctl_model_import = {
	.name = "model import", .operands = "FILE.gguf FOLDER", .summary = "a GGUF file into a model folder that transformers and saltfleet load",
	.about = "Decodes the weights and writes model.safetensors, config.json, tokenizer.json and tokenizer_config.json.\n"
	    "FOLDER appears complete or not at all; missing parents are made, and nothing is overwritten. Types of tensors:\n"
	    GGUF_TYPES ".",
	.example = "saltctl model import SmolLM2-135M-Instruct.Q4_1.gguf models/teacher",
	.options = options, .min_operands = 2, .max_operands = 2, .run = model_import_verb,
};
