/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weights_internal - shared by the files of weights: the parser of a safetensors header, and the file being
 * written.
 */
#ifndef SALT_WEIGHTS_OWN_H
#define SALT_WEIGHTS_OWN_H

#include "base/json/json.h"
#include "base/mem/mem.h"
#include "engine/weights/weights.h"

/* One parsed header. tensors are in file order; root owns their strings. */
struct weights__table {
	struct json *root;
	struct weights_tensor *tensors;		/* malloc'ed */
	size_t n_tensors;
};

/*
 * weights__parse - checks and lists the header of the size bytes at p. path is used in notes and in the
 * tensors, so it must live as long as they do.
 * Layout: u64 header length n, n bytes of JSON, data. On failure *t is empty. weights__table_free accepts
 * empty tables.
 */
int weights__parse(const unsigned char *p, uint64_t size, const char *path, struct weights__table *t, struct err_note *note);
void weights__table_free(struct weights__table *t);

/*
 * weights__file_name - true if the name may be appended to a directory: not empty, no '/', not "." or "..",
 * and shorter than WEIGHTS_NAME_BYTES.
 */
bool weights__file_name(const char *name);

/*
 * weights__open - weights_open, except that an index may name tensors that no file has. weights__index_next
 * lists these: *it is NULL at first; it returns NULL after the last. Pass it == NULL to get only the first.
 * weights__unread - the name of other weights in the directory that were not read, or "".
 */
int weights__open(struct weights **w, const char *path, struct err_note *note);
const char *weights__index_next(const struct weights *w, void **it);
bool weights__indexed(const struct weights *w);		/* true if there is an index */
bool weights__unindexed(const struct weights *w);	/* true for several files without an index */
const char *weights__unread(const struct weights *w);

/* The role of a file's tensor in a model of the family. */
enum weights__role { WEIGHTS__PARAMETER, WEIGHTS__HEAD, WEIGHTS__BUFFER };

/*
 * weights__role - says what the tensor `name` is. HEAD: the output layer (a copy of the embedding if the model
 * is tied). BUFFER: a known tensor that is not read, such as a causal mask or inverse frequencies. PARAMETER: any
 * other. Sets *bare to the part of the name after the prefix of its family ("transformer.", "model.",
 * "gpt_neox.", "model.decoder.").
 */
enum weights__role weights__role(const struct model_config *cfg, const char *name, const char **bare);

/* weights__model_tensor - the tensor in the files for tensor i of the model's table. */
const struct weights_tensor *weights__model_tensor(const struct weights_model *m, int i);
const struct model *weights__model_of(const struct weights_model *m);
const struct weights *weights__model_set(const struct weights_model *m);

/* weights__readable - true if tensors of the dtype can be parameters. */
#define WEIGHTS__READABLE "dtype F32, F16, BF16 or F64"
bool weights__readable(enum weights_dtype dtype);

/*
 * weights__read - reads n bytes of t, from its byte `at` on. weights__finite - true if bytes of a readable
 * dtype hold no NaN, no infinity, and no number that becomes infinite as float.
 */
int weights__read(const struct weights_tensor *t, uint64_t at, size_t n, void *out, struct err_note *note);
bool weights__finite(enum weights_dtype dtype, const void *p, size_t n_bytes);

/* A file that is being written and hashed. {.fd = -1}: closed. */
struct weights__out {
	int fd;
	char path[4096];
	struct weights_file file;
	struct hash_state *hash;
	unsigned char *buf;			/* WEIGHTS__OUT_BYTES */
	size_t n_buf;
};

#define WEIGHTS__OUT_BYTES ((size_t)1 << 20)

int weights__out_open(struct weights__out *o, const char *dir, const char *name, struct err_note *note);
int weights__out_put(struct weights__out *o, const void *p, size_t n, struct err_note *note);
int weights__out_close(struct weights__out *o, struct err_note *note);	/* flushes, syncs and closes; o->file
									 * is then complete */
void weights__out_drop(struct weights__out *o);	/* closes and removes the file; accepts a closed one */

#endif
