/* model import: a GGUF file of a Llama model -> a folder that trainer.model, teacher.model and transformers load. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"
#include "engine/model/model.h"
#include "data/tokenizer/tokenizer.h"
#include "engine/gguf/gguf.h"
#include "engine/weights/weights.h"

static const struct ctl_option options[] = {
	{"dtype", "NAME", "fp32 (unless told: every decoded value as it is), bf16 or fp16", false},
	{"tokenizer", "PATH", "tokenizer.json, or a folder that holds one, instead of the file's own", false},
	CTL_JSON,
	CTL_END
};

/* config.json comes last: a folder that has one is whole. */
static const char *const files[] = {"model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"};

struct import {
	char *dir;
	char partial[4200];			/* where everything is written before it is moved to dir */
	char tokenizer_path[4200];		/* of --tokenizer; "": the file's own */
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
	int rc;

	if (im->tokenizer_path[0] != '\0')
		rc = tokenizer_load(&im->tok, im->tokenizer_path, note);
	else if ((rc = gguf_tokenizer(im->gguf, &im->tokenizer, &im->tokenizer_config, note)) == 0)
		rc = tokenizer_parse(&im->tok, im->tokenizer, strlen(im->tokenizer), from, note);
	if (rc != 0 || (int64_t)tokenizer_vocab_size(im->tok) <= im->model->config.vocab_size)
		return rc;
	err_note_set(note, ERR_MISMATCH, "%s", im->tokenizer_path[0] != '\0' ? im->tokenizer_path : from);
	err_note_expected(note, "at most the model's %" PRId64 " tokens", im->model->config.vocab_size);
	err_note_found(note, "%" PRId32, tokenizer_vocab_size(im->tok));
	return ERR_MISMATCH;
}

/* Everything that can be known before a byte is written. */
static int
read_all(struct import *im, const char *from, struct err_note *note)
{
	struct model_config cfg;
	int rc;

	if ((rc = gguf_open(&im->gguf, from, note)) != 0 || (rc = gguf_config(im->gguf, &cfg, note)) != 0 ||
	    (rc = model_new(&im->model, &cfg, note)) != 0 || (rc = gguf_model_open(&im->tensors, im->gguf, im->model, note)) != 0)
		return rc;
	return read_tokenizer(im, from, note);
}

static int
sync_dir(const char *path, struct err_note *note)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (fd < 0 || fsync(fd) != 0)
		rc = err_note_set(note, errno, "%s: fsync", path);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* The folder that holds dir. */
static void
parent_of(const char *dir, char *out, size_t size)
{
	char *slash;

	snprintf(out, size, "%s", dir);
	if ((slash = strrchr(out, '/')) == NULL)
		snprintf(out, size, ".");
	else
		slash[slash == out] = '\0';
}

static int
write_files(struct import *im, struct err_note *note)
{
	const char *d = im->partial;
	char parent[4200];
	int rc;

	ctl_meter_start(&im->meter, "import", "parameters", (double)im->model->n_params);
	rc = weights_model_save(d, im->model, source, im, im->dtype, 0, NULL, NULL, note);
	ctl_meter_end(&im->meter);
	if (rc != 0)
		return rc;
	rc = im->tokenizer != NULL ? weights_file_write(d, files[1], im->tokenizer, strlen(im->tokenizer), NULL, note) :
	    weights_file_copy(d, files[1], im->tokenizer_path, NULL, note);
	if (rc == 0 && im->tokenizer_config != NULL)
		rc = weights_file_write(d, files[2], im->tokenizer_config, strlen(im->tokenizer_config), NULL, note);
	if (rc != 0 || (rc = weights_config_save(d, &im->model->config, im->dtype, NULL, note)) != 0 || (rc = sync_dir(d, note)) != 0)
		return rc;
	if (rename(d, im->dir) != 0)
		return err_note_set(note, errno, "%s: rename to %s", d, im->dir);
	parent_of(im->dir, parent, sizeof(parent));
	return sync_dir(parent, note);
}

/* Nothing there, or an empty folder, which the rename replaces. */
static int
check_free(const char *dir, struct err_note *note)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int rc = 0;

	if (d == NULL)
		return errno == ENOENT ? 0 : err_note_set(note, errno == ENOTDIR ? EEXIST : errno, "%s", dir);
	while (rc == 0 && (e = readdir(d)) != NULL)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			rc = err_note_set(note, EEXIST, "%s/%s", dir, e->d_name);
	closedir(d);
	return rc;
}

/* Written beside the folder and moved there at the end: a folder of that name is whole or was there before. */
static int
write_folder(struct import *im, struct err_note *note)
{
	char path[4300];
	int rc;

	if ((rc = check_free(im->dir, note)) != 0)
		return rc;
	if (mkdir(im->partial, 0777) != 0)
		return err_note_set(note, errno, "%s", im->partial);
	if ((rc = write_files(im, note)) == 0)
		return 0;
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", im->partial, files[i]);
		unlink(path);
	}
	rmdir(im->partial);
	return rc;
}

static int
report(const struct ctl_args *args, const struct import *im)
{
	const struct model_config *cfg = &im->model->config;
	char buf[32];
	struct json *o;

	if (!ctl_has(args, "json")) {
		printf("%s: %s parameters in %s, vocabulary %" PRId64 ", context %" PRId64 ", tokenizer %s\n", im->dir,
		    ctl_count((double)im->model->n_params, buf), weights_dtype_name(im->dtype), cfg->vocab_size, cfg->context,
		    tokenizer_describe(im->tok));
		return 0;
	}
	o = ctl_object();
	ctl_put_text(o, "dir", im->dir);
	ctl_put_int(o, "parameters", im->model->n_params);
	ctl_put_text(o, "dtype", weights_dtype_name(im->dtype));
	ctl_put_int(o, "vocab_size", cfg->vocab_size);
	ctl_put_int(o, "context", cfg->context);
	ctl_put_int(o, "tokens", tokenizer_vocab_size(im->tok));
	ctl_put_text(o, "tokenizer", tokenizer_describe(im->tok));
	return ctl_print_json(o);
}

static int
arguments(const struct ctl_args *args, struct import *im)
{
	const char *dtype = ctl_get(args, "dtype"), *tokenizer = ctl_get(args, "tokenizer");
	size_t n = strlen(args->operands[1]);
	struct stat st;

	while (n > 1 && args->operands[1][n - 1] == '/')
		n--;
	if (n == 0 || n > 4000)
		return ctl_usage(args, "DIR: expected a path of 1 to 4000 bytes");
	snprintf(im->partial, sizeof(im->partial), "%.*s", (int)n, args->operands[1]);
	im->dir = strdup(im->partial);
	snprintf(im->partial, sizeof(im->partial), "%.*s.importing", (int)n, args->operands[1]);
	if (dtype == NULL || strcmp(dtype, "fp32") == 0)
		im->dtype = WEIGHTS_F32;
	else if (strcmp(dtype, "bf16") == 0)
		im->dtype = WEIGHTS_BF16;
	else if (strcmp(dtype, "fp16") == 0)
		im->dtype = WEIGHTS_F16;
	else
		return ctl_usage(args, "--dtype: expected fp32, bf16 or fp16, found \"%s\"", dtype);
	if (tokenizer != NULL)
		snprintf(im->tokenizer_path, sizeof(im->tokenizer_path), "%s%s", tokenizer,
		    stat(tokenizer, &st) == 0 && S_ISDIR(st.st_mode) ? "/tokenizer.json" : "");
	return im->dir != NULL ? 0 : ctl_fail(args, ENOMEM, NULL);
}

static int
model_import_verb(struct ctl_args *args)
{
	struct import im = {.dir = NULL};
	struct err_note note = {.name = ""};
	int exit_code, rc;

	if ((exit_code = arguments(args, &im)) == 0) {
		if ((rc = read_all(&im, args->operands[0], &note)) != 0 || (rc = write_folder(&im, &note)) != 0)
			exit_code = ctl_fail(args, rc, &note);
		else
			exit_code = report(args, &im);
	}
	tokenizer_destroy(&im.tok);
	gguf_model_close(&im.tensors);
	model_destroy(&im.model);
	gguf_close(&im.gguf);
	free(im.tokenizer);
	free(im.tokenizer_config);
	free(im.dir);
	return exit_code;
}

const struct ctl_verb ctl_model_import = {
	.name = "model import", .operands = "FILE.gguf FOLDER", .summary = "a GGUF file of a Llama model into a folder that loads everywhere",
	.about = "Decodes the weights (F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K) and writes model.safetensors,\n"
	    "config.json, tokenizer.json and tokenizer_config.json. Written beside FOLDER and moved there at the end; nothing that\n"
	    "is there is overwritten.",
	.example = "saltctl model import SmolLM2-135M-Instruct.Q4_1.gguf models/teacher",
	.options = options, .min_operands = 2, .max_operands = 2, .run = model_import_verb,
};
