/* SPDX-License-Identifier: Apache-2.0 */
/*
 * corpus - reads token files as one stream of ids, cut into windows (docs/glossary.md: sequences), and writes
 * them.
 *
 * Kinds, recognised by the first bytes of the files at PREFIX (docs/formats.md has the byte offsets):
 *   Megatron  PREFIX.bin + PREFIX.idx (MMIDIDX version 1), tokens uint16 or int32; PREFIX may also be the
 *             name of either file
 *   llm.c     a shard (PREFIX, PREFIX.bin): uint16 (magic 20240520, version 1), uint32 (20240801, version 7)
 *   npy       a NumPy array of integers, one-dimensional, little-endian
 *   raw       ids and nothing else. The file does not state their type; the caller or PREFIX.json must
 * A PREFIX with * ? [ stands for all files of one kind that match, in name order with numbers by their value.
 * Files of a known other format (text, gzip, Parquet, ...) are rejected, and the error names the format.
 * Files that saltctl or a daemon wrote beside a corpus never match a pattern.
 * PREFIX.json states what the token files do not: vocabulary, tokenizer, bytes of text. Its PREFIX is without
 * a trailing .bin or .idx, and without a pattern's part from its first * ? [ on. Corpora written here always
 * have one; for others it may be missing. A pattern without its own PREFIX.json uses those of its shards;
 * what two of them state must be equal.
 *
 * Documents end with one end-of-document token, which is trained on. Windows ignore document boundaries:
 * window i of context L is tokens [i*L, i*L + L] of the stream, L inputs and L targets; neighbouring windows
 * share one token. A seq identifies a window and its corpus. Callers that compute on windows keep the
 * documents inside them apart if corpus_isolate was called.
 *
 * Integrity: after corpus_fingerprint, each block of 256 KiB is compared with its checksum when it is first
 * read (hash_blocks), so that no window is returned whose bytes differ from those of the fingerprint. If a
 * file is cut short while in use, reading it is an error as well.
 *
 * A blend: instead of a prefix corpus_open also takes a list as JSON text, [{"prefix": "A", "weight": 0.7},
 * {"prefix": "B", "weight": 0.3}]. All parts must have the same type of ids and, where they state them, the
 * same tokenizer, vocabulary and end-of-document id. Windows are numbered through the first part, then the
 * second, and so on, so that no window crosses from one part into the next; blend.h defines the order in
 * which they are visited. The fingerprint covers the parts' fingerprints, their order in the list and their
 * shares. A list of one part is opened as that corpus.
 *
 * After open, corpus_fingerprint and the setters a struct corpus is read-only, and any thread may read
 * windows.
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
 * How a token is stored; windows are always int32. INT32, INT64 and UINT16 have Megatron's codes; types of 64
 * bits occur only in .npy.
 */
enum corpus_dtype {
	CORPUS_DTYPE_NONE, CORPUS_DTYPE_INT32 = 4, CORPUS_DTYPE_INT64, CORPUS_DTYPE_UINT16 = 8, CORPUS_DTYPE_UINT32 = 100, CORPUS_DTYPE_UINT64
};

struct corpus_info {
	enum corpus_kind kind;
	enum corpus_dtype dtype;
	uint64_t n_tokens;		/* end-of-document tokens included */
	uint64_t n_documents;		/* 0: unknown (llm.c, raw without PREFIX.json) */
	uint64_t n_bytes;		/* bytes of text, for bits per byte; 0: unknown */
	uint32_t vocab;			/* 0: unknown */
	int32_t eod;			/* end-of-document id; -1: unknown */
	bool has_tokenizer, has_source, has_counts;
	bool has_weights;		/* loss weights (of a blend: in any part); see corpus_load_weights */
	struct hash128 tokenizer;	/* tokenizer's fingerprint, if has_tokenizer */
	struct hash128 source;		/* hash of the text it was built from, if has_source */
};

struct blend;
struct corpus;

/*
 * corpus_open_as - opens a corpus. stated: the type of raw ids, UINT16, UINT32 or INT32; NONE if the caller
 * does not know it (corpus_open). The whole index is checked (20 bytes per document are read); the tokens are
 * not (see corpus_check_vocab).
 * Returns 0 and *c; or, with *c NULL and a note of file, byte offset, expected and found: ENOENT; ERR_FORMAT
 * (not a corpus: wrong magic, cut short, counts or pointers that do not fit, no token; another format, which
 * the note names; raw ids without a stated type); ERR_UNSUPPORTED (another token type, which the note names);
 * ERR_VERSION; ERR_MISMATCH (the format states another type than the caller); ERR_CORRUPT (an interrupted
 * build: PREFIX.json without PREFIX.idx; or PREFIX.json states other counts or is damaged); ENOMEM; errno.
 * For a list also ERR_FORMAT (a malformed list; the same prefix twice), ERR_MISMATCH (parts that differ),
 * ERR_RANGE (a bad weight); the note names the part.
 */
int corpus_open_as(struct corpus **c, const char *prefix, enum corpus_dtype stated, struct err_note *note);
#define corpus_open(c, prefix, note) corpus_open_as(c, prefix, CORPUS_DTYPE_NONE, note)
void corpus_destroy(struct corpus **c);		/* takes NULL */

const struct corpus_info *corpus_info(const struct corpus *c);	/* as long as c */
const char *corpus_kind_name(enum corpus_kind kind);
const char *corpus_dtype_name(enum corpus_dtype dtype);

uint64_t corpus_n_tokens(const struct corpus *c);

/*
 * Parts. A corpus that is not a blend has one part, itself. corpus_at: returns the part that contains window
 * `index` of context L, and sets *window to the number of that window in the part. NULL if a blend has no
 * such window. corpus_is_list: whether the text is a list and not a prefix. Parts are valid as long as c.
 */
bool corpus_is_list(const char *prefix);
size_t corpus_n_parts(const struct corpus *c);
const struct corpus *corpus_part(const struct corpus *c, size_t i);
const struct corpus *corpus_at(const struct corpus *c, uint32_t L, uint64_t index, uint64_t *window);
const char *corpus_prefix(const struct corpus *c);		/* as given to open; valid as long as c */

/*
 * What PREFIX.json states of how the text was encoded (struct corpus_writer_options), or NULL; valid as long
 * as c.
 */
const char *corpus_unknown_bytes(const struct corpus *c);
const char *corpus_add_special(const struct corpus *c);

/*
 * corpus_blend - makes the order of the windows of context L, also for a corpus that is not a blend. Returns
 * 0 and *b (blend_destroy it), ERR_RANGE (a part has no window; the note names it) or ENOMEM.
 */
int corpus_blend(struct blend **b, const struct corpus *c, uint32_t L, struct err_note *note);

/*
 * corpus_remember - writes PREFIX.json with type, number of tokens and fingerprint for a raw corpus that has
 * none, so that the type need not be stated again. *written: whether one was written. Returns 0, errno, or as
 * corpus_fingerprint.
 */
int corpus_remember(struct corpus *c, bool *written, struct err_note *note);

/*
 * corpus_n_windows - returns (n_tokens - 1) / L, for a blend the sum over its parts; 0 if the corpus has
 * fewer than L+1 tokens or L is 0.
 */
uint64_t corpus_n_windows(const struct corpus *c, uint32_t L);

/* corpus_set_number - sets the corpus number that a seq must contain; CORPUS_TRAIN after open. */
void corpus_set_number(struct corpus *c, uint32_t corpus_no);

/*
 * corpus_limit_vocab - makes windows with an id >= vocab (the model's) an error. Without this call the limit
 * is PREFIX.json's vocabulary, or none. Returns 0, or ERR_MISMATCH: PREFIX.json states a larger vocabulary
 * than the model has (a smaller one is fine: padding), or it states none, vocab is above 65,536 and a file
 * that is not Megatron's stores uint16.
 */
int corpus_limit_vocab(struct corpus *c, uint32_t vocab, struct err_note *note);

/*
 * corpus_isolate - declares that documents inside a window are computed separately. This changes
 * corpus_fingerprint, and with it the identities of scores, labels and plans. The documents are separated at
 * the end-of-document tokens inside the window; an index of documents is not used.
 * @end: the expected end-of-document id (corpus_document_end of another corpus); -1: any.
 * Returns 0; ERR_FORMAT (the end-of-document id is unknown, or none of the first CORPUS_ISOLATE_TOKENS tokens
 * is one); ERR_MISMATCH (another id than end); or as corpus_window.
 *
 * corpus_document_end - the id after which a new document begins for the model; -1 without corpus_isolate.
 */
#define CORPUS_ISOLATE_TOKENS (1u << 26)
int corpus_isolate(struct corpus *c, int32_t end, struct err_note *note);
int32_t corpus_document_end(const struct corpus *c);

/*
 * corpus_window - reads the L+1 tokens of a window.
 * @seq  CORPUS_SEQ_MAKE(corpus number, index < corpus_n_windows)
 * @out  int32[L+1]; inputs out[0..L), targets out[1..L]
 * Returns 0, ERR_RANGE (no such window, another corpus number, L = 0), ERR_CORRUPT (an id is negative or not
 * below the vocabulary, with window, position and id in the note; or the bytes changed or the file was cut
 * short, with file and block in the note) or errno. Any thread.
 */
int corpus_window(const struct corpus *c, uint64_t seq, uint32_t L, int32_t *out, struct err_note *note);

/*
 * Documents of a corpus that is not a blend (pass a blend's parts), numbered over all files from 0.
 * corpus_document: finds document `number`. corpus_document_at: finds the document that contains a token of
 * the stream. corpus_tokens: reads n tokens of the stream from position first on into out, int32[n]. Return
 * 0, ERR_RANGE (no such document or token), ERR_UNSUPPORTED (the format has no index of documents), or as
 * corpus_window. Any thread.
 */
struct corpus_document {
	uint64_t number;
	uint64_t first_token, n_tokens;		/* the end-of-document token included */
};
int corpus_document(const struct corpus *c, uint64_t number, struct corpus_document *out, struct err_note *note);
int corpus_document_at(const struct corpus *c, uint64_t token, struct corpus_document *out, struct err_note *note);
int corpus_tokens(const struct corpus *c, uint64_t first, size_t n, int32_t *out, struct err_note *note);

/*
 * corpus_source - reads from PREFIX.sources.jsonl which file a document was built from. file: its name, cut
 * to size; *nth: the document's number in that file, from 0, not counting documents that are not in this
 * corpus (if that file is itself a corpus: its number there). Returns 0; ERR_NOT_FOUND: there is no such side
 * file, it is of another build, or the corpus has several token files; ERR_FORMAT; errno.
 */
int corpus_source(const struct corpus *c, uint64_t document, char *file, size_t size, uint64_t *nth, struct err_note *note);

/*
 * Loss weights: PREFIX.weights.bin has a factor for each document by which training multiplies the loss of
 * its tokens, 0 or CORPUS_WEIGHT_MIN to CORPUS_WEIGHT_MAX. PREFIX.json has the hash of that file.
 * Fingerprints, labels and scores do not depend on weights.
 *
 * corpus_load_weights - reads and checks the weights (for a blend of all parts) for the two functions below.
 * No other thread may use c meanwhile. Memory: 12 bytes for each run of neighbouring documents with one
 * weight; during the call also the index of one file, and 4 bytes a document. Without weights it only sets
 * *all. Returns 0; ERR_CORRUPT (wrong hash, number of documents or weight), ENOENT, ENOMEM, errno.
 * corpus_window_weights - out[t] is the weight of the document that contains target t of the window; 1 where
 * the part has no weights.
 * @seq  a sequence that corpus_window has read without an error
 * @out  float[L], written
 * corpus_weight_at - the weight of the document that contains a token, for a corpus that is not a blend; 1
 * without weights. Both: any thread.
 */
#define CORPUS_WEIGHT_MIN 1e-6
#define CORPUS_WEIGHT_MAX 1e6
#define CORPUS_WEIGHT_RANGE "a weight, 0 or a number from 1e-6 to 1e6"
struct corpus_weights {
	struct hash128 identity;	/* hash of all weights; zeros: there are none */
	double sum;			/* of the weights of all tokens */
	uint64_t n_masked;		/* tokens of weight 0 */
};
bool corpus_weight_valid(double weight);
int corpus_load_weights(struct corpus *c, struct corpus_weights *all, struct err_note *note);
void corpus_window_weights(const struct corpus *c, uint64_t seq, uint32_t L, float *out);
float corpus_weight_at(const struct corpus *c, uint64_t token);

/*
 * corpus_check_vocab - reads every token. Returns 0, ERR_CORRUPT with the first id that is negative or >=
 * vocab and its position in the note, or as corpus_window.
 */
int corpus_check_vocab(const struct corpus *c, uint32_t vocab, struct err_note *note);

/*
 * corpus_counts - gets smoothed token counts, each id's occurrences + 1, from PREFIX.counts.bin if
 * PREFIX.json has its hash (ERR_CORRUPT if they differ), else by reading every token.
 * @out  uint64[vocab]; vocab must equal corpus_info's if that is known (else ERR_MISMATCH)
 */
int corpus_counts(const struct corpus *c, uint32_t vocab, uint64_t *out, struct err_note *note);

/*
 * corpus_fingerprint - the identity of a corpus in score sets, label sets and plans: a hash over kind, dtype
 * and every byte of the token and index files; names, times and PREFIX.json are not part of it. The first
 * call reads the token files; later calls and later processes use the side files FILE.salthash (see
 * hash_blocks) and are cheap. After corpus_isolate the fingerprint also covers this declaration and the
 * end-of-document id. Returns 0, errno, or ERR_CORRUPT if PREFIX.json records another fingerprint. The result
 * is stored in c: no other thread may use c during the first call.
 * corpus_verify - reads all token files, also blocks that were read before, and compares them with the
 * checksums. Returns 0 or as corpus_fingerprint and corpus_window.
 */
int corpus_fingerprint(struct corpus *c, struct hash128 *out, struct err_note *note);
int corpus_verify(struct corpus *c, struct err_note *note);

/*
 * Writing, always in Megatron's format: uint16 up to a vocabulary of 65,536, else int32. All files are
 * written under temporary names (PREFIX.bin.tmp ...) and renamed by corpus_writer_finish, PREFIX.idx last, so
 * that an interrupted build is never opened as a corpus. Missing parent folders are created.
 * Memory: 4 bytes a document. One thread.
 */
struct corpus_writer_options {
	uint32_t vocab;			/* ids must be below it; 1 .. INT32_MAX */
	int32_t eod;			/* appended to every document */
	struct hash128 tokenizer;	/* fingerprint; zeros: unknown */
	/*
	 * Texts that are stored as members of PREFIX.json; they must stay valid until finish. add_special
	 * describes the ids that were put around each text, for instance "1 text 2"; unknown_bytes says what was
	 * done with bytes that have no token. If a text is NULL or "", its member is left out.
	 */
	const char *add_special;
	const char *unknown_bytes;
	bool replace;			/* an existing PREFIX.idx is replaced; else ERR_EXISTS */
};

struct corpus_writer;

/*
 * corpus_writer_new - starts writing a corpus at PREFIX. Returns 0 and *w; or, with *w NULL, ERR_USAGE (PREFIX
 * ends without a name), ERR_RANGE (vocab, eod), ERR_EXISTS, ERR_BUSY (another writer on PREFIX), ENOMEM or errno.
 */
int corpus_writer_new(struct corpus_writer **w, const char *prefix, const struct corpus_writer_options *options, struct err_note *note);

/*
 * corpus_writer_document - appends ids[0..n) and the end-of-document token. A document without tokens is
 * skipped.
 * @n_bytes  length of its text
 * Returns 0, ERR_RANGE (an id outside the vocabulary, with document and position in the note; or more than
 * INT32_MAX - 1 tokens), ENOMEM, ENOSPC, errno. After an error only corpus_writer_destroy may follow.
 */
int corpus_writer_document(struct corpus_writer *w, const int32_t *ids, size_t n, uint64_t n_bytes, struct err_note *note);

/*
 * corpus_writer_source - records in PREFIX.sources.jsonl that the next document, and those after it until
 * another call, come from this file.
 * @nth  number of the next document in that file; UINT64_MAX: not recorded
 * Returns 0, ENOMEM or errno.
 */
int corpus_writer_source(struct corpus_writer *w, const char *file, uint64_t nth, struct err_note *note);

/*
 * corpus_writer_weight - sets the loss weight of the next document. Documents without a call have weight 1; a
 * corpus has PREFIX.weights.bin only if this was called. Memory: 4 bytes a document. Returns 0, ERR_RANGE
 * (see corpus_weight_valid) or ENOMEM.
 */
int corpus_writer_weight(struct corpus_writer *w, float weight, struct err_note *note);

/*
 * corpus_writer_finish - writes counts, PREFIX.json and index, syncs and renames all files. The corpus exists
 * once this returns 0.
 * @source  hash of the text, for PREFIX.json; may be NULL
 * Returns 0, ERR_FORMAT (no documents) or errno. After an error an older corpus at PREFIX is intact unless
 * the failed step was to remove, to rename or to sync a folder (the note states the step). Destroy the writer
 * in any case.
 */
int corpus_writer_finish(struct corpus_writer *w, const struct hash128 *source, struct err_note *note);

/*
 * corpus_writer_withdraw - makes corpus_writer_destroy remove the files that corpus_writer_finish made, for a
 * caller that writes two corpora or none. Has no effect with the option replace.
 */
void corpus_writer_withdraw(struct corpus_writer *w);

/*
 * corpus_writer_destroy - takes NULL; removes the temporary files if corpus_writer_finish did not return 0.
 */
void corpus_writer_destroy(struct corpus_writer **w);

/* tokens (with end-of-document tokens) and documents written so far */
uint64_t corpus_writer_n_tokens(const struct corpus_writer *w);
uint64_t corpus_writer_n_documents(const struct corpus_writer *w);

/*
 * corpus_split_heldout - whether this document belongs to the held-out part. True for about one document in
 * `one_in`. It depends only on the xxh3-64 of the text, not on the order or the number of files, and all
 * copies of a document fall on the same side. one_in 0: always false. Pure; any thread.
 */
bool corpus_split_heldout(const void *text, size_t n_bytes, uint32_t one_in);

#endif
