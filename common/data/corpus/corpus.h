/* SPDX-License-Identifier: Apache-2.0 */
/*
 * corpus - token files as one stream, cut into windows.
 *
 * Kinds, recognised by the first bytes of the files at PREFIX (docs/formats.md has the byte offsets):
 *   Megatron  PREFIX.bin + PREFIX.idx (MMIDIDX version 1), tokens uint16 or int32; PREFIX may also name either file
 *   llm.c     a shard (PREFIX, PREFIX.bin); uint16 (magic 20240520, version 1) or uint32 (20240801, version 7)
 *   npy       a NumPy array of integers, one-dimensional, little-endian
 *   raw       ids and nothing else. Nothing in the file states their type: the caller does, or PREFIX.json
 * A PREFIX with * ? [ stands for all files of one kind that match, in name order with numbers by their value.
 * Files that are known to be something else (text, gzip, Parquet, ...) are refused by name; files that
 * saltctl or a daemon wrote beside a corpus never match a pattern.
 * PREFIX.json (PREFIX without a trailing .bin or .idx, and without a pattern's part from its first * ? [ on)
 * holds what the tokens do
 * not: vocabulary, tokenizer, bytes of text. Corpora written here always have one; for others it may be
 * missing. A pattern without one of its own takes what its shards' PREFIX.json state; what two of them state
 * must be equal.
 *
 * Documents end with one end-of-document token, which is trained on. Windows ignore document boundaries:
 * window i of context L is tokens [i*L, i*L + L] of the stream, L inputs and L targets; neighbouring windows
 * share one token. A seq identifies a window and its corpus. Where models are kept inside documents is up to
 * those who use the windows (corpus_isolate).
 *
 * Integrity: from corpus_fingerprint on, each block of 256 KiB is compared with its checksum when it is first
 * read (hash_blocks), so that no window is returned whose bytes are not those of the fingerprint. A file that
 * is cut short while in use is an error as well.
 *
 * A blend: in place of a prefix every function also takes a list, as JSON text: [{"prefix": "A", "weight":
 * 0.7}, {"prefix": "B", "weight": 0.3}]. Its parts have the same type of ids and, as far as they state them,
 * the same tokenizer, vocabulary and end-of-document id. Window i counts through the windows of the first
 * part, then of the second, and so on, so that no window crosses from one part into the next; blend.h has the
 * order in which they are visited. The fingerprint covers the parts' fingerprints, their order in the list
 * and their shares. A list of one part is that corpus.
 *
 * A struct corpus is read-only after open, corpus_fingerprint and the two setters: windows may be read from any thread.
 */
#ifndef SALT_CORPUS_H
#define SALT_CORPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err/err.h"
#include "base/hash/hash.h"

/*
 * seq: corpus number in the top 16 bits, window index below. By convention 0 is the training corpus, 1 the
 * held-out one.
 */
#define CORPUS_TRAIN 0u
#define CORPUS_HELDOUT 1u
#define CORPUS_SEQ_MAKE(corpus_no, index) ((uint64_t)(corpus_no) << 48 | (uint64_t)(index))
#define CORPUS_SEQ_NO(seq) ((uint32_t)((uint64_t)(seq) >> 48))
#define CORPUS_SEQ_INDEX(seq) ((uint64_t)(seq) & UINT64_C(0xffffffffffff))

enum corpus_kind { CORPUS_KIND_MEGATRON, CORPUS_KIND_LLMC, CORPUS_KIND_RAW, CORPUS_KIND_NPY, CORPUS_KIND_BLEND };

/*
 * How a token is stored; windows are always int32. INT32, INT64 and UINT16 are Megatron's codes; 64 bits
 * occur in .npy only.
 */
enum corpus_dtype {
	CORPUS_DTYPE_NONE, CORPUS_DTYPE_INT32 = 4, CORPUS_DTYPE_INT64, CORPUS_DTYPE_UINT16 = 8, CORPUS_DTYPE_UINT32 = 100, CORPUS_DTYPE_UINT64
};

struct corpus_info {
	enum corpus_kind kind;
	enum corpus_dtype dtype;
	uint64_t n_tokens;		/* end-of-document tokens included */
	uint64_t n_documents;		/* 0: not known (llm.c, raw without PREFIX.json) */
	uint64_t n_bytes;		/* of text, for bits per byte; 0: not known */
	uint32_t vocab;			/* 0: not known */
	int32_t eod;			/* end-of-document id; -1: not known */
	bool has_tokenizer, has_source, has_counts;
	bool has_weights;		/* loss weights, of a blend: of one part at least; see corpus_load_weights */
	struct hash128 tokenizer;	/* tokenizer's fingerprint, if has_tokenizer */
	struct hash128 source;		/* of the text it was built from, if has_source */
};

struct blend;
struct corpus;

/*
 * corpus_open_as - open a corpus. stated: the type of raw ids, UINT16, UINT32 or INT32; NONE: not stated
 * (corpus_open). The whole index is checked (20 bytes per document are read); the tokens are not (see
 * corpus_check_vocab).
 * Returns 0 and *c, or with *c NULL and the note naming file, byte offset, expected and found: ENOENT,
 * ERR_FORMAT (not a corpus:
 * magic, cut short, counts or pointers that do not fit, no token; another format, by name; raw ids without a
 * stated type), ERR_UNSUPPORTED (other token types, by name), ERR_VERSION, ERR_MISMATCH (the format states
 * another type), ERR_CORRUPT (half-written:
 * PREFIX.json without PREFIX.idx; PREFIX.json has other counts or is damaged), ENOMEM, errno.
 * A list: also ERR_FORMAT (no such list; the same prefix twice), ERR_MISMATCH (parts that differ), ERR_RANGE
 * (a weight); the part is named.
 */
int corpus_open_as(struct corpus **c, const char *prefix, enum corpus_dtype stated, struct err_note *note);
#define corpus_open(c, prefix, note) corpus_open_as(c, prefix, CORPUS_DTYPE_NONE, note)
void corpus_destroy(struct corpus **c);		/* takes NULL */

const struct corpus_info *corpus_info(const struct corpus *c);	/* as long as c */
const char *corpus_kind_name(enum corpus_kind kind);
const char *corpus_dtype_name(enum corpus_dtype dtype);

uint64_t corpus_n_tokens(const struct corpus *c);

/*
 * Parts: one, the corpus itself, unless it is a blend. corpus_at: the part that window index of context L is
 * in, and its window there;
 * NULL: there is no such window. corpus_is_list: the text is a list and not a prefix.
 */
bool corpus_is_list(const char *prefix);
size_t corpus_n_parts(const struct corpus *c);
const struct corpus *corpus_part(const struct corpus *c, size_t i);
const struct corpus *corpus_at(const struct corpus *c, uint32_t L, uint64_t index, uint64_t *window);
const char *corpus_prefix(const struct corpus *c);		/* as given; as long as c */

/*
 * corpus_blend - the order of its windows of context L; for a corpus alone too. 0 and *b (blend_destroy),
 * ERR_RANGE (a part has no window: by name), ENOMEM.
 */
int corpus_blend(struct blend **b, const struct corpus *c, uint32_t L, struct err_note *note);

/*
 * corpus_remember - writes PREFIX.json with dtype, number of tokens and fingerprint of a raw corpus that has
 * none, so that its type need not be stated again. *written: whether it was. 0, errno, and all of
 * corpus_fingerprint.
 */
int corpus_remember(struct corpus *c, bool *written, struct err_note *note);

/*
 * corpus_n_windows - (n_tokens - 1) / L, of a blend the sum over its parts; 0 if the corpus has fewer than
 * L+1 tokens or L is 0.
 */
uint64_t corpus_n_windows(const struct corpus *c, uint32_t L);

/* corpus_set_number - the corpus number that seq must carry; CORPUS_TRAIN after open. */
void corpus_set_number(struct corpus *c, uint32_t corpus_no);

/*
 * corpus_limit_vocab - windows are refused when they hold an id >= vocab (the model's). Without it the limit
 * is PREFIX.json's vocabulary, or none. Returns ERR_MISMATCH if PREFIX.json states a larger vocabulary than
 * the model has; smaller is fine (padding); or if a file that is not Megatron's stores uint16, vocab is above
 * 65,536 and PREFIX.json states no vocabulary.
 */
int corpus_limit_vocab(struct corpus *c, uint32_t vocab, struct err_note *note);

/*
 * corpus_isolate - declares that documents inside a window are computed separately. This changes
 * corpus_fingerprint, and with it the identities of scores, labels and plans. Borders are the end-of-document
 * tokens inside the window; an index of documents is not used.
 * @end: the end-of-document id that is expected (corpus_document_end of another corpus); -1: any.
 * Returns 0; ERR_FORMAT (neither PREFIX.json nor anything else states the id; or none of the first
 * CORPUS_ISOLATE_TOKENS tokens is one); ERR_MISMATCH (another id than end); or as corpus_window.
 *
 * corpus_document_end - the id after which models start afresh; -1 without corpus_isolate.
 */
#define CORPUS_ISOLATE_TOKENS (1u << 26)
int corpus_isolate(struct corpus *c, int32_t end, struct err_note *note);
int32_t corpus_document_end(const struct corpus *c);

/*
 * corpus_window - the L+1 tokens of a window.
 * @seq  CORPUS_SEQ_MAKE(corpus number, index < corpus_n_windows)
 * @out  int32[L+1]; inputs out[0..L), targets out[1..L]
 * Returns 0, ERR_RANGE (no such window, another corpus number, L = 0), ERR_CORRUPT (an id is negative or not
 * below the vocabulary:
 * note names window, position and id; or the bytes changed, or the file was cut short: note names file and
 * block) or errno. Any thread.
 */
int corpus_window(const struct corpus *c, uint64_t seq, uint32_t L, int32_t *out, struct err_note *note);

/*
 * Documents of a corpus alone (of a blend: of its parts), numbered over all files from 0. corpus_document:
 * where document `number` is;
 * corpus_document_at: the one that a token of the stream is in. corpus_tokens: n tokens of the stream from
 * position first on; out int32[n]. Return 0, ERR_RANGE (no such document or token), ERR_UNSUPPORTED (the
 * format has no index of documents), or as corpus_window. Any thread.
 */
struct corpus_document {
	uint64_t number;
	uint64_t first_token, n_tokens;		/* the end-of-document token included */
};
int corpus_document(const struct corpus *c, uint64_t number, struct corpus_document *out, struct err_note *note);
int corpus_document_at(const struct corpus *c, uint64_t token, struct corpus_document *out, struct err_note *note);
int corpus_tokens(const struct corpus *c, uint64_t first, size_t n, int32_t *out, struct err_note *note);

/*
 * corpus_source - the file that a document was built from, from PREFIX.sources.jsonl: into file, cut to size;
 * *nth: which document of that file, from 0, not counting those that are not in this corpus (of a copied
 * corpus: its number there). ERR_NOT_FOUND: there is no such side file, or it is of another build; the corpus
 * is one file. ERR_FORMAT, errno.
 */
int corpus_source(const struct corpus *c, uint64_t document, char *file, size_t size, uint64_t *nth, struct err_note *note);

/*
 * Loss weights: PREFIX.weights.bin has a number for each document by which training multiplies the loss of
 * its tokens, 0 or CORPUS_WEIGHT_MIN to CORPUS_WEIGHT_MAX. PREFIX.json has the hash of that file.
 * Fingerprints, labels and scores do not depend on weights.
 *
 * corpus_load_weights - reads and checks them, of a blend those of all parts, for the two functions below.
 * Not while another thread uses c.
 * Memory: 12 bytes for each run of neighbouring documents of one weight; while it runs the index of a file,
 * and 4 bytes a document. Without weights there is nothing to do. Returns 0; ERR_CORRUPT (hash, number of
 * documents, a weight that is none), ENOENT, ENOMEM, errno.
 * corpus_window_weights - of each target of a window, the weight of the document that it is in; 1 where the
 * part has none.
 * @seq  as corpus_window, which returned 0 for it; @out float[L]
 * corpus_weight_at - of the document that a token of a corpus alone is in; 1 without weights. Both: any thread.
 */
#define CORPUS_WEIGHT_MIN 1e-6
#define CORPUS_WEIGHT_MAX 1e6
#define CORPUS_WEIGHT_RANGE "a weight, 0 or a number from 1e-6 to 1e6"
struct corpus_weights {
	struct hash128 identity;	/* of all weights; zeros: there are none */
	double sum;			/* over all tokens */
	uint64_t n_masked;		/* tokens of weight 0 */
};
bool corpus_weight_valid(double weight);
int corpus_load_weights(struct corpus *c, struct corpus_weights *all, struct err_note *note);
void corpus_window_weights(const struct corpus *c, uint64_t seq, uint32_t L, float *out);
float corpus_weight_at(const struct corpus *c, uint64_t token);

/*
 * corpus_check_vocab - reads every token; ERR_CORRUPT with the first id that is negative or >= vocab and its
 * position.
 */
int corpus_check_vocab(const struct corpus *c, uint32_t vocab, struct err_note *note);

/*
 * corpus_counts - smoothed token counts, each id's occurrences + 1: from PREFIX.counts.bin if PREFIX.json
 * names one (its hash is
 * checked: ERR_CORRUPT), else by reading every token.
 * @out  uint64[vocab]; vocab must be info's where that is known (ERR_MISMATCH)
 */
int corpus_counts(const struct corpus *c, uint32_t vocab, uint64_t *out, struct err_note *note);

/*
 * corpus_fingerprint - the identity of a corpus in score sets, label sets and plans: a hash over kind, dtype
 * and every byte of the token and index files; names, times and PREFIX.json are not part of it. Reads the
 * token files once; later calls and later processes use the side files FILE.salthash (see hash_blocks) and
 * are cheap. After corpus_isolate it also covers that, and the end-of-document id. Returns 0, errno, or
 * ERR_CORRUPT if PREFIX.json records another one. Stores the result in c: the first call must not run while
 * another thread uses c.
 * corpus_verify - reads everything, also what was read before, and compares it with the checksums. 0 or as
 * corpus_window.
 */
int corpus_fingerprint(struct corpus *c, struct hash128 *out, struct err_note *note);
int corpus_verify(struct corpus *c, struct err_note *note);

/*
 * Writing, always Megatron: uint16 up to a vocabulary of 65,536, else int32. Everything is written under
 * temporary names (PREFIX.bin.tmp ...) and renamed by finish, PREFIX.idx last: a build that was killed
 * half-way is never opened as a corpus. Missing parent folders are created.
 * Memory: 4 bytes a document. One thread.
 */
struct corpus_writer_options {
	uint32_t vocab;			/* ids must be below it; 1 .. INT32_MAX */
	int32_t eod;			/* appended to every document */
	struct hash128 tokenizer;	/* fingerprint; zeros: not known */
	const char *add_special;	/* what stands around the ids of each text, for PREFIX.json: "1 text 2"; NULL: nothing. Kept by the caller */
	const char *unknown_bytes;	/* what was done with bytes without a token, for PREFIX.json; NULL: there is no rule. Kept by the caller */
	bool replace;			/* an existing PREFIX.idx is replaced; else ERR_EXISTS */
};

struct corpus_writer;

/*
 * corpus_writer_new - ERR_RANGE (vocab, eod), ERR_EXISTS, ERR_BUSY (another writer on PREFIX), ENOMEM or
 * errno; *w NULL then.
 */
int corpus_writer_new(struct corpus_writer **w, const char *prefix, const struct corpus_writer_options *options, struct err_note *note);

/*
 * corpus_writer_document - ids[0..n) and the end-of-document token. A document without tokens is skipped.
 * @n_bytes  of the text it came from
 * Returns 0, ERR_RANGE (an id outside the vocabulary: document and position named; or over INT32_MAX - 1
 * tokens), ENOSPC, EIO, errno. After an error the writer is only good for corpus_writer_destroy.
 */
int corpus_writer_document(struct corpus_writer *w, const int32_t *ids, size_t n, uint64_t n_bytes, struct err_note *note);

/*
 * corpus_writer_source - the next document, and those that follow without another call, come from this file,
 * for PREFIX.sources.jsonl.
 * @nth  the next one's number there; UINT64_MAX: not stated
 * Returns 0, ENOMEM or errno.
 */
int corpus_writer_source(struct corpus_writer *w, const char *file, uint64_t nth, struct err_note *note);

/*
 * corpus_writer_weight - the loss weight of the next document. Documents without a call have 1; a corpus gets
 * PREFIX.weights.bin with the first call. Memory: 4 bytes a document. Returns 0, ERR_RANGE
 * (corpus_weight_valid), ENOMEM.
 */
int corpus_writer_weight(struct corpus_writer *w, float weight, struct err_note *note);

/*
 * corpus_writer_finish - counts, PREFIX.json and index, fsync, rename; the corpus exists once this returns 0.
 * @source  hash of the text, for PREFIX.json; may be NULL
 * Returns 0, ERR_FORMAT (no documents), errno; after an error nothing of an older corpus at PREFIX is lost
 * unless the error came from a rename (the note says so). Destroy the writer in any case.
 */
int corpus_writer_finish(struct corpus_writer *w, const struct hash128 *source, struct err_note *note);

/*
 * corpus_writer_withdraw - corpus_writer_destroy will remove what corpus_writer_finish made: for a caller
 * that writes two corpora or none. Nothing with replace.
 */
void corpus_writer_withdraw(struct corpus_writer *w);

/* corpus_writer_destroy - takes NULL; without finish, removes the temporary files. */
void corpus_writer_destroy(struct corpus_writer **w);

/* so far: tokens (ends included), documents */
uint64_t corpus_writer_n_tokens(const struct corpus_writer *w);
uint64_t corpus_writer_n_documents(const struct corpus_writer *w);

/*
 * corpus_split_heldout - whether this document belongs to the held-out part. True for about one document in
 * `one_in`, by xxh3-64 of its text alone: the same whatever the order and the number of files, and copies of
 * a document fall on the same side. one_in 0: never. Pure; any thread.
 */
bool corpus_split_heldout(const void *text, size_t n_bytes, uint32_t one_in);

#endif
