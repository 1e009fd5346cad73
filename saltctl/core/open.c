/* SPDX-License-Identifier: Apache-2.0 */
#include "saltctl/core/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "fabric/config/config.h"
#include "data/corpus/corpus.h"
#include "engine/weights/weights.h"
#include "base/json/json.h"
#include "base/mem/mem.h"
#include "data/tokenizer/tokenizer.h"

int
ctl_open_config(const struct ctl_args *args, unsigned needs, struct config **cfg)
{
	const char *path = ctl_get(args, "config"), *text;
	const char **overrides;
	struct err_note note = {.name = ""};
	size_t n = 0;
	int rc;

	*cfg = NULL;
	if (path == NULL)
		return ctl_usage(args, "no configuration: give -c fleet.yaml");
	if ((overrides = calloc(args->cli.n_values + 1, sizeof(*overrides))) == NULL)
		return ctl_fail(args, ENOMEM, NULL);
	while ((text = ctl_get_nth(args, "set", n)) != NULL)
		overrides[n++] = text;
	if ((rc = config_load(path, overrides, n, cfg, &note)) == 0 && (rc = config_require(*cfg, needs, &note)) != 0)
		config_destroy(cfg);
	free(overrides);
	return rc != 0 ? ctl_fail(args, rc, &note) : 0;
}

void
ctl_tokenizer_path(const char *path, char *out, size_t size)
{
	char json[4096], model[4096];
	const char *name = "";
	struct stat st;

	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
		snprintf(json, sizeof(json), "%s/tokenizer.json", path);
		snprintf(model, sizeof(model), "%s/tokenizer.model", path);
		name = access(json, F_OK) != 0 && access(model, F_OK) == 0 ? "/tokenizer.model" : "/tokenizer.json";
	}
	snprintf(out, size, "%s%s", path, name);
}

int
ctl_tokenizer_copy(const char *dir, const char *path, struct err_note *note)
{
	size_t n = strlen(path);
	struct json *root;
	char *text;
	int rc;

	if (n < 6 || strcmp(path + n - 6, ".model") != 0)
		return weights_file_copy(dir, "tokenizer.json", path, NULL, note);
	if ((rc = tokenizer_model_json(path, &root, note)) != 0)
		return rc;
	text = json_print(root, true);
	rc = text != NULL ? weights_file_write(dir, "tokenizer.json", text, strlen(text), NULL, note) : err_note_set(note, ENOMEM, "%s", path);
	json_close(&root);
	free(text);
	return rc;
}

int
ctl_open_tokenizer(const struct ctl_args *args, const char *path, struct tokenizer **tok)
{
	char file[4200];
	struct err_note note = {.name = ""};
	size_t n;
	int rc;

	ctl_tokenizer_path(path, file, sizeof(file));
	rc = tokenizer_load(tok, file, &note);
	if (rc == ERR_UNSUPPORTED && (n = strlen(note.found)) < sizeof(note.found))
		snprintf(note.found + n, sizeof(note.found) - n,
		    "; to train on ids that another program made, no tokenizer is needed");
	return rc != 0 ? ctl_fail(args, rc, &note) : 0;
}

int
ctl_open_corpus(const struct ctl_args *args, const struct config_corpus *configured, const char *prefix,
    uint32_t number, struct corpus **corpus, struct hash128 *fingerprint)
{
	static const enum corpus_dtype types[] = {
	    CORPUS_DTYPE_UINT16, CORPUS_DTYPE_UINT32, CORPUS_DTYPE_INT32};
	enum corpus_dtype dtype = configured != NULL ? configured->dtype : CORPUS_DTYPE_NONE;
	const char *said = ctl_get(args, "dtype");
	struct err_note note = {.name = ""};
	struct hash128 hash;
	bool written = false;
	size_t i = 0;
	int rc;

	while (said != NULL && i < sizeof(types) / sizeof(types[0]) &&
	    strcmp(said, corpus_dtype_name(types[i])) != 0)
		i++;
	if (i == sizeof(types) / sizeof(types[0]))
		return ctl_usage(args, "--dtype: expected uint16, uint32 or int32, found \"%.40s\"", said);
	if (said != NULL)
		dtype = types[i];
	if ((rc = corpus_open_as(corpus, prefix, dtype, &note)) != 0 ||
	    (rc = corpus_fingerprint(*corpus, &hash, &note)) != 0)
		return ctl_fail(args, rc, &note);
	if (said != NULL && (rc = corpus_remember(*corpus, &written, &note)) != 0)
		fprintf(stderr, "saltctl %s: the type of the ids was not stored in PREFIX.json: %s: %s\n",
		    args->verb->name, note.name, err_str(rc));
	if (written)
		fprintf(stderr, "saltctl %s: %s: %s ids, stored in its .json\n", args->verb->name, prefix,
		    said);
	if (configured != NULL && configured->isolate_documents && ((rc = corpus_isolate(*corpus, -1, &note)) != 0 ||
	    (rc = corpus_fingerprint(*corpus, &hash, &note)) != 0))
		return ctl_fail(args, rc, &note);
	corpus_set_number(*corpus, number);
	if (fingerprint != NULL)
		*fingerprint = hash;
	return 0;
}

int
ctl_read_all(const struct ctl_args *args, const char *path, unsigned char **bytes, size_t *n)
{
	struct err_note note = {.name = ""};
	size_t cap = 0;
	ssize_t got = 0;
	int fd = STDIN_FILENO, rc = 0;

	*bytes = NULL;
	*n = 0;
	if (strcmp(path, "-") != 0 && (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		rc = errno;
	do {
		if (rc == 0)
			rc = mem_grow((void **)bytes, &cap, *n + (1u << 16), 1);
		if (rc == 0 && (got = read(fd, *bytes + *n, cap - *n)) < 0 && errno != EINTR)
			rc = errno;
		*n += got > 0 ? (size_t)got : 0;
	} while (rc == 0 && got != 0);
	if (fd > STDIN_FILENO)
		close(fd);
	if (rc == 0)
		return 0;
	free(*bytes);
	*bytes = NULL;
	return ctl_fail(args, err_note_set(&note, rc, "%s", path), &note);
}
