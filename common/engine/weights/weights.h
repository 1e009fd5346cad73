/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weights - Hugging Face model directories: config.json with model.safetensors, or with
 * model.safetensors.index.json and its shards. Read, write, fingerprint.
 *
 * Read a model:        weights_config_load -> model_new -> weights_model_open (checks names and shapes
 *                      against the model's tensor table) -> weights_model_read, by range of the flat
 *                      canonical order.
 * Write a model:       weights_config_save, weights_model_save (the caller supplies one range at a time, so
 *                      that a model never has to be in memory twice).
 * Any safetensors:     weights_open, weights_find, weights_read_f32; weights_writer_*.
 *
 * Tensors are read from the file, so a file that is truncated meanwhile gives an error. The mapping (data) is
 * for random access; there a truncated file raises SIGBUS. Replace model files by rename.
 */
#ifndef SALT_WEIGHTS_H
#define SALT_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err/err.h"
#include "base/hash/hash.h"

struct model;				/* model/model.h */
struct model_config;
struct json;				/* json/json.h */

#define WEIGHTS_MAX_DIMS 8
#define WEIGHTS_MAX_TENSORS (1u << 20)	/* per model, all shards together */
#define WEIGHTS_MAX_FILES 100000u
#define WEIGHTS_MAX_HEADER_BYTES 100000000u
#define WEIGHTS_NAME_BYTES 256		/* size of a file name inside a directory, with its NUL */

/* Dtypes of safetensors files. F32, F16, BF16 and F64 can be read as float; the others are only listed. */
enum weights_dtype {
	WEIGHTS_F32, WEIGHTS_F16, WEIGHTS_BF16, WEIGHTS_F64, WEIGHTS_I64, WEIGHTS_I32, WEIGHTS_I16, WEIGHTS_I8,
	WEIGHTS_U64, WEIGHTS_U32, WEIGHTS_U16, WEIGHTS_U8, WEIGHTS_BOOL, WEIGHTS_F8_E4M3, WEIGHTS_F8_E5M2
};

const char *weights_dtype_name(enum weights_dtype dtype);	/* as in the file: "BF16" */
size_t weights_dtype_bytes(enum weights_dtype dtype);

/* One tensor of an open set. All pointers are valid until weights_close. */
struct weights_tensor {
	const char *name;
	enum weights_dtype dtype;
	unsigned n_dims;			/* 0: a scalar, one element */
	uint64_t shape[WEIGHTS_MAX_DIMS];
	uint64_t n_elements;
	uint64_t len_bytes;
	uint64_t offset_bytes;			/* from the start of the file */
	const char *file;			/* path */
	const unsigned char *data;		/* mapped bytes, little-endian, perhaps unaligned */
	int fd;					/* descriptor of the file; < 0: the file is only mapped */
};

struct weights;

/*
 * weights_present - true if DIR has a file of weights, of a readable kind or not; false if it has at most a
 * configuration.
 */
bool weights_present(const char *dir);

/*
 * weights_open - maps a .safetensors file, an index (.json), or a model directory: model.safetensors, or else
 * model.safetensors.index.json with every shard that it names, or else all of model-00001-of-N.safetensors
 * ... without an index. Headers are checked completely before anything is used: size, UTF-8 JSON, no
 * duplicate names, ranges without gaps or overlaps, shape times dtype equal to the range, last end equal to
 * the file's end. With an index, every tensor must be in the file that the index names, inside the directory.
 * Returns 0 and *w (weights_close it), ERR_FORMAT, ERR_RANGE, ERR_NOT_FOUND, ENOMEM or errno; the note has
 * file, tensor, offset, expected and found. *w is NULL on failure. Any number of threads may read an open
 * set.
 */
int weights_open(struct weights **w, const char *path, struct err_note *note);
void weights_close(struct weights **w);			/* accepts NULL */

size_t weights_count(const struct weights *w);
const struct weights_tensor *weights_at(const struct weights *w, size_t i);	/* in name order (bytes); i < count */
const struct weights_tensor *weights_find(const struct weights *w, const char *name);	/* NULL: no such tensor */

/* weights_meta - a value in __metadata__ of the (first) file, or NULL; valid until weights_close. */
const char *weights_meta(const struct weights *w, const char *key);

enum weights_flags {
	WEIGHTS_FINITE = 1			/* reject NaN and infinity */
};

/*
 * weights_read_f32 - reads elements [begin, begin + count) of t, row-major, converted to float.
 * @flags WEIGHTS_FINITE: the first NaN or infinity is ERR_NONFINITE with tensor and element in the note; out
 * is then partly written.
 * Returns 0, ERR_RANGE (range outside the tensor), ERR_UNSUPPORTED (dtype), ERR_NONFINITE, or the error of
 * reading.
 */
int weights_read_f32(const struct weights_tensor *t, uint64_t begin, uint64_t count, float *out, unsigned flags, struct err_note *note);

/* ---- writing ---- */

/*
 * One tensor of a file, declared before the first byte is written. The strings must stay valid until
 * weights_writer_new returns.
 */
struct weights_spec {
	const char *name;
	enum weights_dtype dtype;
	unsigned n_dims;
	uint64_t shape[WEIGHTS_MAX_DIMS];
};

struct weights_meta_pair {
	const char *key, *value;
};

/* A file that was written and synced. Plain data: it may be sent to another rank as bytes. */
struct weights_file {
	char name[WEIGHTS_NAME_BYTES];		/* inside its directory */
	uint64_t size_bytes;
	struct hash128 hash;			/* xxh3-128 of all its bytes (as xxhsum -H2 prints) */
};

struct weights_writer;

/*
 * weights_writer_new - begins DIR/STEM.safetensors, or, if the data exceeds max_shard_bytes (0: no limit),
 * DIR/STEM-00001-of-0000N.safetensors ... and DIR/STEM.safetensors.index.json. A tensor is never split: one
 * larger than the limit gets its own file.
 * @specs: in the order of the data, with unique names. @meta is added to __metadata__ after format=pt; may be
 * NULL with n_meta 0.
 * Nothing is overwritten: an existing file gives EEXIST. Returns 0, ERR_RANGE, ERR_FORMAT (names), ENOMEM,
 * errno; the note names the step.
 */
int weights_writer_new(struct weights_writer **w, const char *dir, const char *stem, const struct weights_spec *specs, size_t n_specs,
    const struct weights_meta_pair *meta, size_t n_meta, uint64_t max_shard_bytes, struct err_note *note);

/*
 * weights_writer_f32 - writes the next n elements, in the order of specs, in pieces of any size, converted to
 * the dtype of their tensor.
 * weights_writer_bytes - writes the next n bytes unchanged.
 * Returns 0, ERR_RANGE (more than declared), ERR_UNSUPPORTED (dtype), errno (ENOSPC, EIO, ...; note: file and
 * step). After a failure only weights_writer_destroy is allowed.
 */
int weights_writer_f32(struct weights_writer *w, const float *x, uint64_t n, struct err_note *note);
int weights_writer_bytes(struct weights_writer *w, const void *p, size_t n, struct err_note *note);

/*
 * weights_writer_finish - checks that everything declared was written (else ERR_RANGE), syncs and closes the
 * last file, and writes the index. The caller must sync the directory. Afterwards weights_writer_n_files and
 * weights_writer_file list the files.
 */
int weights_writer_finish(struct weights_writer *w, struct err_note *note);
size_t weights_writer_n_files(const struct weights_writer *w);
const struct weights_file *weights_writer_file(const struct weights_writer *w, size_t i);
void weights_writer_destroy(struct weights_writer **w);	/* accepts NULL; not finished: removes its files */

/*
 * weights_file_write - creates a small file DIR/NAME (EEXIST if it exists), writes and syncs it; fills *out
 * if it is not NULL.
 * weights_file_copy - the same with the content of another file.
 */
int weights_file_write(const char *dir, const char *name, const void *p, size_t n, struct weights_file *out, struct err_note *note);
int weights_file_copy(const char *dir, const char *name, const char *from, struct weights_file *out, struct err_note *note);

/* ---- models ---- */

/*
 * weights_config_load - reads DIR/config.json (or PATH of a .json) into a model_config. model_type must be
 * one of MODEL_FAMILY_NAMES. An unsupported key that changes outputs is rejected by name (ERR_UNSUPPORTED);
 * missing keys and wrong types are ERR_FORMAT with file and key, impossible values ERR_RANGE.
 */
int weights_config_load(const char *path, struct model_config *out, struct err_note *note);

/*
 * weights_config_save - writes and syncs a DIR/config.json that transformers and weights_config_load read;
 * fills *out if it is not NULL.
 * weights_config_save_more - adds the members of `more`, which it frees: keys that change no output, which
 * weights_config_load ignores.
 */
int weights_config_save(const char *dir, const struct model_config *cfg, enum weights_dtype dtype, struct weights_file *out,
    struct err_note *note);
int weights_config_save_more(const char *dir, const struct model_config *cfg, enum weights_dtype dtype, struct json *more,
    struct weights_file *out, struct err_note *note);

/*
 * weights_model_open - opens the tensors of DIR and binds them to the model's table. Every tensor of the
 * table must exist in its shape (with or without the family's prefix; the name parts that torch.compile,
 * DataParallel and FSDP add are ignored). Nothing else may exist except known buffers and an lm_head equal to
 * the tied embedding. Of a tied pair the head alone is sufficient. Reads headers, and values only to compare
 * a tied head.
 * Returns 0 and *m; ERR_NOT_FOUND (missing), ERR_MISMATCH (shape, extra, tied head that differs), and all
 * errors of weights_open. Keeps a pointer to model, which must outlive *m. Any number of threads may read.
 *
 * weights_model_remarks - what the user should know about how the files were read, in one line
 * ("'_orig_mod.' is left out of the names of 148 tensors; ..."), or ""; valid until weights_model_close.
 */
struct weights_model;
int weights_model_open(struct weights_model **m, const char *dir, const struct model *model, struct err_note *note);
const char *weights_model_remarks(const struct weights_model *m);
void weights_model_close(struct weights_model **m);	/* accepts NULL */

/*
 * weights_model_read - reads elements [begin, begin + count) of the flat canonical order (the tensors of the
 * table one after the other) as float. Always rejects NaN and infinity; the note names tensor and element.
 */
int weights_model_read(const struct weights_model *m, uint64_t begin, uint64_t count, float *out, struct err_note *note);

/*
 * weights_source - writes elements [begin, begin + count) of the flat canonical order into out; returns 0 or
 * an error that ends the save. It is called with ascending, adjacent ranges of at most WEIGHTS_SOURCE_MAX
 * elements that never cross a tensor.
 */
#define WEIGHTS_SOURCE_MAX (UINT64_C(1) << 20)
typedef int weights_source(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note);

/*
 * weights_model_save - writes and syncs DIR/model.safetensors (sharded above max_shard_bytes, 0: never) with
 * the table's names, in dtype.
 * @files @n_files receive a malloc'ed list to free(); both may be NULL. On failure all files are removed.
 */
int weights_model_save(const char *dir, const struct model *model, weights_source *source, void *arg, enum weights_dtype dtype,
    uint64_t max_shard_bytes, struct weights_file **files, size_t *n_files, struct err_note *note);

/* weights_source_array - a weights_source; arg is a const float * to all parameters in canonical order. */
weights_source weights_source_array;

/*
 * weights_model_fingerprint - the identity of an open model: every tensor of the table in name order (name,
 * dtype, shape, bytes) and every configuration value that changes outputs. Shards, formatting, prefixes and
 * unused buffers do not change it; the stored dtype does. All of the model's files in DIR are read and
 * hashed. DIR/.salt_fingerprint records the hashes with size, mtime and inode; in a read-only directory it is
 * not written. ERR_CORRUPT: a file with the recorded size, mtime and inode has another hash, so its bytes
 * have changed since.
 * weights_fingerprint - the same for a model that is not open, also with the errors of weights_model_open.
 */
int weights_model_fingerprint(const struct weights_model *m, const char *dir, struct hash128 *out, struct err_note *note);
int weights_fingerprint(const char *dir, struct hash128 *out, struct err_note *note);

#endif
