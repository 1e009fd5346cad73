/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf - reads GGUF files: metadata, tensors, and both as a model of the families that gguf_model.c lists.
 * Read only.
 *
 * gguf_open -> gguf_config -> model_new -> gguf_model_open (names and shapes checked against the model's
 * tensor table) -> weights_model_save with gguf_model_source. gguf_tokenizer returns the text of a
 * tokenizer.json. Tensors are decoded piece by piece on request, never as a whole.
 *
 * Layout, little-endian (version 2 and 3):
 *   0     4   "GGUF"
 *   4     4   u32 version
 *   8     8   u64 number of tensors
 *   16    8   u64 number of pairs
 *   24    ..  pairs: key (u64 length, bytes), u32 kind, value; an array is u32 kind, u64 count, values
 *   ..    ..  tensors: name (like a key), u32 n_dims, u64 dims[n_dims] (the contiguous one first), u32 type,
 *             u64 offset
 *   ..    ..  zeros up to a multiple of general.alignment (default 32), then the data, where offsets start
 *
 * Files are mapped: if another process truncates one while it is read, the reader gets SIGBUS.
 */
#ifndef SALT_GGUF_H
#define SALT_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err/err.h"

struct model;				/* engine/model/model.h */
struct model_config;

#define GGUF_MAX_PAIRS 65536u
#define GGUF_MAX_TENSORS 65536u
#define GGUF_MAX_DIMS 4
#define GGUF_MAX_DEPTH 4		/* depth of nested arrays */
#define GGUF_MAX_KEY_BYTES 65535u
#define GGUF_MAX_NAME_BYTES 127u	/* length of a tensor's name */
#define GGUF_MAX_TEXT_BYTES (16u << 20)
#define GGUF_MAX_ITEMS (1u << 26)	/* number of items of an array */
#define GGUF_MAX_ALIGNMENT (1u << 16)
#define GGUF_MAX_TOKENS (1u << 22)

/* Numbered as in the file. Types without a decoder here are rejected by name. */
enum gguf_type {
	GGUF_F32 = 0, GGUF_F16 = 1, GGUF_Q4_0 = 2, GGUF_Q4_1 = 3, GGUF_Q5_0 = 6, GGUF_Q5_1 = 7, GGUF_Q8_0 = 8, GGUF_Q2_K = 10,
	GGUF_Q3_K = 11, GGUF_Q4_K = 12, GGUF_Q5_K = 13, GGUF_Q6_K = 14, GGUF_IQ4_NL = 20, GGUF_IQ4_XS = 23, GGUF_BF16 = 30,
	GGUF_TQ1_0 = 34, GGUF_TQ2_0 = 35, GGUF_MXFP4 = 39
};

/* The types with a decoder, for error messages. */
#define GGUF_TYPES "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4, TQ1_0 or TQ2_0"
#define GGUF_MAX_BLOCK 256		/* elements of the largest block */

const char *gguf_type_name(uint32_t type);		/* "Q4_K"; "?" for an unknown number */
unsigned gguf_type_elements(uint32_t type);		/* of one block; 1 for floats; 0: no decoder */
unsigned gguf_type_bytes(uint32_t type);		/* of one block; 0: no decoder */

/* One tensor of an open file. All pointers are valid until gguf_close. */
struct gguf_tensor {
	const char *name;
	uint32_t type;
	unsigned n_dims;
	uint64_t dims[GGUF_MAX_DIMS];		/* dims[0] is contiguous: a [rows, n] matrix has dims {n, rows} */
	uint64_t n_elements;
	uint64_t len_bytes;
	uint64_t offset_bytes;			/* from the start of the file */
	const char *file;			/* path */
	const unsigned char *data;		/* the mapped bytes */
};

struct gguf;

/*
 * gguf_open - maps a file and checks everything except the values of tensors: counts and lengths within the
 * limits above and within the file, kinds, UTF-8 of keys and names, keys and names unique, shape times type
 * equal to a range of the data, ranges aligned, disjoint and inside the file.
 * Returns 0 and *g (gguf_close it), ERR_FORMAT, ERR_RANGE, ERR_VERSION, ERR_UNSUPPORTED (big-endian; a tensor
 * type without a decoder, which is named; one part of several), ENOMEM or errno; the note has file, byte or
 * key or tensor, expected and found. *g is NULL on failure. Any number of threads may read an open file.
 */
int gguf_open(struct gguf **g, const char *path, struct err_note *note);
void gguf_close(struct gguf **g);			/* accepts NULL */

const struct gguf_tensor *gguf_find(const struct gguf *g, const char *name);		/* NULL: no such tensor */

/*
 * gguf_read_f32 - decodes elements [begin, begin + count) of t, dims[0] fastest, to float: the same bits on
 * every machine. NaN and infinity are ERR_NONFINITE with tensor and element in the note; out is then partly
 * written.
 * Returns 0, ERR_RANGE (range outside the tensor), ERR_NONFINITE. Any thread.
 */
int gguf_read_f32(const struct gguf_tensor *t, uint64_t begin, uint64_t count, float *out, struct err_note *note);

/*
 * gguf_decode - decodes n_blocks blocks of a type to n_blocks * gguf_type_elements(type) floats. p needs no
 * alignment. y must not overlap p. gguf_blocks.c has the formulas. type must have a decoder.
 */
void gguf_decode(uint32_t type, const unsigned char *p, uint64_t n_blocks, float *y);

/*
 * gguf_config - the model's configuration from the metadata; tied if there is no output.weight. If a tensor
 * holds divisors of frequencies, they become llama3 scaling if its formula gives them, else LongRoPE.
 * Returns 0; ERR_UNSUPPORTED: another architecture, or an unknown key that may change outputs;
 * ERR_FORMAT: a key is missing or of the wrong kind; ERR_RANGE; ERR_NOT_FOUND, ERR_MISMATCH: a tensor of
 * divisors is missing or has the wrong size.
 */
int gguf_config(const struct gguf *g, struct model_config *out, struct err_note *note);

/*
 * gguf_tokenizer - makes the text of tokenizer.json and of tokenizer_config.json (for transformers: class,
 * special tokens, chat template) from tokenizer.ggml.*; *json and *config are malloc'ed, free() them; NULL on
 * failure. Supported are byte-level BPE with one of the splits named in gguf_pre.c and docs/models.md, and
 * SentencePiece's BPE (model llama), whose merges are made from the scores.
 * Returns 0, ERR_UNSUPPORTED (another model or split, which is named), ERR_FORMAT, ERR_RANGE, ENOMEM.
 * data/tokenizer checks that ids and merges fit together when it parses the text.
 */
int gguf_tokenizer(const struct gguf *g, char **json, char **config, struct err_note *note);

/*
 * gguf_model_open - binds the tensors to the model's table: every tensor of the table must exist in its
 * shape, and no other tensor may exist. Some architectures store rows of query and key projections as
 * adjacent rotary pairs; they are returned as halves, the order of the table. Gemma's norms are stored as 1 +
 * g and returned as g.
 * Returns 0 and *m; ERR_NOT_FOUND (missing), ERR_MISMATCH (shape), ERR_UNSUPPORTED (a tensor that is not in
 * the table), ENOMEM. Keeps pointers to g and model, which must outlive *m. Any number of threads may read.
 */
struct gguf_model;
int gguf_model_open(struct gguf_model **m, const struct gguf *g, const struct model *model, struct err_note *note);
void gguf_model_close(struct gguf_model **m);		/* accepts NULL */

/*
 * gguf_model_source - a weights_source (weights.h) with arg = struct gguf_model *: decodes elements [begin,
 * begin + count) of the flat canonical order to float. Returns as gguf_read_f32; ERR_RANGE for elements
 * outside the model.
 */
int gguf_model_source(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note);

#endif
