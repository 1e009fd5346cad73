/* SPDX-License-Identifier: Apache-2.0 */
/*
 * labels - the soft-label codec, which converts rows to bytes and back; the score codec; the identities of
 * label sets and score sets. Pure functions: no file, no socket, no tensor, no clock.
 *
 * A record is the soft label of one sequence: exactly L rows. Row t is the teacher's tempered distribution
 * softmax(u / tau) after tokens 0..t, the soft target of token t+1.
 *
 * RECORD, VERSION 3, little-endian (docs/formats.md has it too, with the whole coder):
 *
 *   offset  bytes  what
 *   0       2      'S' 'L'
 *   2       1      version, 3
 *   3       1      kind: 1 sampled, 2 topk, 3 dense
 *   4       4      L, rows
 *   8       4      N of sampled, k of topk, 0 for dense
 *   12      4      vocabulary V
 *   16      16     hash of the sequence's L+1 tokens (xxh3-128 over little-endian int32), high half, low half
 *   32      4      P, bytes of payload
 *   36      4      flags, 0
 *   40      16     identity of the label set, high half, low half
 *   56      P      payload
 *   56+P    8      xxh3-64 of bytes [0, 56+P)
 *
 *   A valid record has length 64 + P; checksum, L, N or k, V, label set and token hash are as expected; its
 *   payload obeys the rules of its kind and ends with the last row. An unknown version is rejected before
 *   anything else is read.
 *
 *   sampled payload: ids and counts, entropy-coded under the label set's unigram table and the earlier rows
 *     of the record (sampled_internal.h). ids are strictly ascending, id < V; the counts sum to N. Our
 *     encoder makes exactly one record of a set of rows.
 *   topk payload, per row: k ids, then k u16 codes. An id takes 2 bytes for V <= 65536, 3 for V <= 2^24,
 *     else 4. Code c means t = exp(-c / 2048), 65535 means t = 0. Entries are sorted by (code, id) ascending,
 *     that is by probability descending, with the lower id first among ties. ids are distinct and < V. The
 *     sum of t is <= 1.001.
 *   dense payload, per row: V u16 codes as above, in id order. The sum of t is within 0.001 of 1.
 *
 *   Error of a code: -ln t is rounded to 1/2048 nat, so t is off by at most a factor exp(1/4096) = 1.00025
 *   down to t = 1.3e-14 (half precision would be off by 1.0005 and end at 6e-8).
 *
 * SAMPLING. kernels_output_label draws the ids. These rules make a label a pure function of teacher, seed and
 * sequence:
 *   draw d = 0..N-1 of row `position` of sequence seq uses
 *   random_words(labels.seed, RANDOM_PURPOSE_LABEL, seq, position, d / 2, out)
 *   and u = random_uniform53(out[0], out[1]) for even d, random_uniform53(out[2], out[3]) for odd d.
 *   id = smallest v whose cumulative tempered probability (v ascending) exceeds u * total.
 */
#ifndef SALT_LABELS_H
#define SALT_LABELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err/err.h"
#include "base/hash/hash.h"
#include "base/random/random.h"

#define LABELS_VERSION 3u
#define LABELS_HEADER_BYTES 56u
#define LABELS_OVERHEAD_BYTES 64u	/* header and checksum */
#define LABELS_CONTEXT_MAX (1u << 24)	/* limits for values from files and peers */
#define LABELS_PARAM_MAX (1u << 20)	/* k */
#define LABELS_SAMPLES_MAX 65535u	/* N */
#define LABELS_UNIGRAM_VOCAB_MAX (1u << 24)

/*
 * The unigram table for coding sampled labels has a weight for every id. It is made with the label set from
 * the corpus's smoothed counts (labels_unigram_from_counts) and stored as one byte per id, a code c of
 * 1..255: weight c below 16, else (8 + c mod 8) * 2^(c div 8 - 1). The hash of these bytes is part of the
 * label set's identity, and the bytes are sent together with the label set. Every process computes the same
 * slots from these bytes, because it uses integer arithmetic only. A table is read-only once made: any number of threads and specs may share it.
 *
 * labels_unigram_from_counts  counts: uint64[vocab], at least 1. Sampled ids are distributed more evenly than
 *                       the text, the more so the higher tau is: from tau 0.5 on the weights are
 *                       counts^(3/4). Returns as labels_unigram_new
 * labels_unigram_new    copies the codes. Returns 0, ERR_RANGE (vocab not in 1..LABELS_UNIGRAM_VOCAB_MAX, or
 *                       a code of 0), ENOMEM
 * labels_unigram_hash   xxh3-128 of the codes; zeros for NULL
 * labels_unigram_bytes  the codes, [vocab]; valid as long as u
 */
struct labels_unigram;

int labels_unigram_from_counts(struct labels_unigram **u, const uint64_t *counts, uint32_t vocab, double tau, struct err_note *note);
int labels_unigram_new(struct labels_unigram **u, const uint8_t *codes, size_t vocab, struct err_note *note);
void labels_unigram_destroy(struct labels_unigram **u);		/* takes NULL */
struct hash128 labels_unigram_hash(const struct labels_unigram *u);
const uint8_t *labels_unigram_bytes(const struct labels_unigram *u);
uint32_t labels_unigram_vocab(const struct labels_unigram *u);

/* Also used in messages, fleet.yaml and the kernels (kernels_label_kind). NONE: no label, or unknown. */
enum labels_kind { LABELS_KIND_NONE, LABELS_KIND_SAMPLED = 1, LABELS_KIND_TOPK = 2, LABELS_KIND_DENSE = 3 };

/* The properties common to all records of a label set. Fields that a kind does not use are ignored. */
struct labels_spec {
	enum labels_kind kind;
	uint32_t version;		/* LABELS_VERSION */
	uint32_t context;		/* L */
	uint32_t vocab;			/* V */
	uint32_t n_samples;		/* N, sampled */
	uint32_t k;			/* topk; at most vocab */
	uint32_t seed;			/* labels.seed, sampled */
	double tau;			/* temperature, > 0 */
	const struct labels_unigram *unigram;	/* sampled; not owned, V ids. The identity has its hash */
	struct hash128 unigram_hash;	/* the table's hash, if unigram is NULL (enough for the identity) */
	struct hash128 set;		/* labels_set_hash(), which ignores this field; in each record */
};

/*
 * labels_spec_check - returns 0; ERR_RANGE with the field in the note; ERR_VERSION. Encoders and decoders
 * call it first; they also return ERR_MISMATCH if a sampled spec has no unigram table or one of another
 * vocabulary.
 */
int labels_spec_check(const struct labels_spec *spec, struct err_note *note);
const char *labels_kind_name(enum labels_kind kind);			/* "sampled", "topk", "dense"; "?" */
int labels_kind_from_name(const char *name, enum labels_kind *kind);	/* 0 or ERR_NOT_FOUND */

/* The bytes of one record; grows as needed. Start with {0}; free with labels_buf_free. */
struct labels_buf {
	uint8_t *bytes;
	size_t len, cap;
};

void labels_buf_free(struct labels_buf *buf);

/*
 * Encoders write one record into buf; they overwrite its content and reuse its memory.
 * @tokens  hash_tokens() of the sequence's L+1 ids
 * Return 0; or, with buf->len 0, ERR_RANGE or ERR_NONFINITE (with row, entry and value in the note; a bug in
 * our own kernel), ENOMEM.
 *
 * labels_encode_draws    draws: int32[L, N], ids in any order; each row is sorted and counted here
 * labels_encode_sampled  n_unique, ids and counts of struct kernels_labels: n_unique: int32[L]; ids, counts:
 *                        int32[L, N], of which the first n_unique of a row are used: ids strictly ascending,
 *                        counts >= 1 with sum N
 * labels_encode_topk     ids and values of struct kernels_labels, most probable first: ids: int32[L, k]; log_p:
 *                        float[L, k], natural logarithm of the tempered probability, <= 0 (values up to 1e-3,
 *                        from rounding, are taken as 0; -INFINITY is probability 0)
 * labels_encode_dense    log_p: float[L, V], as above
 */
int labels_encode_draws(const struct labels_spec *spec, struct hash128 tokens, const int32_t *draws, struct labels_buf *buf,
    struct err_note *note);
int labels_encode_sampled(const struct labels_spec *spec, struct hash128 tokens, const int32_t *n_unique, const int32_t *ids,
    const int32_t *counts, struct labels_buf *buf, struct err_note *note);
int labels_encode_topk(const struct labels_spec *spec, struct hash128 tokens, const int32_t *ids, const float *log_p,
    struct labels_buf *buf, struct err_note *note);
int labels_encode_dense(const struct labels_spec *spec, struct hash128 tokens, const float *log_p, struct labels_buf *buf,
    struct err_note *note);

/*
 * Decoded rows, the input of the loss. Start with {0}. Sparse kinds (sampled, topk) are in CSR form: row r
 * has entries [row_offsets[r], row_offsets[r+1]), with ids strictly ascending and weights t_v >= 0 (counts /
 * N, or probabilities) whose sum is <= 1 up to rounding. tail[r] = 1 - sum, never negative: 0 for sampled,
 * the probability outside the k ids for topk. Dense: dense[r*vocab + v], rows scaled to sum 1.
 * The batch owns the arrays; they are valid until the next labels_* call on it.
 */
struct labels_batch {
	enum labels_kind kind;		/* 0 while empty; all rows have one kind and one vocabulary */
	uint32_t vocab;
	size_t n_rows;
	int64_t *row_offsets;		/* [n_rows+1]; sparse kinds */
	int32_t *ids;			/* [row_offsets[n_rows]] */
	float *weights;			/* [row_offsets[n_rows]] */
	float *tail;			/* [n_rows]; sparse kinds */
	float *dense;			/* [n_rows*vocab]; dense */
	size_t cap_offsets, cap_ids, cap_weights, cap_tail, cap_dense;
};

void labels_batch_clear(struct labels_batch *batch);	/* removes all rows; keeps the memory */
void labels_batch_free(struct labels_batch *batch);	/* frees the memory; {0} again */

/*
 * labels_decode - appends the L rows of one record to batch.
 * @spec    what the record must match: kind, version, L, N or k, V, label set
 * @tokens  hash_tokens() of the L+1 ids on which the caller will train
 * Returns 0; ERR_VERSION; ERR_CORRUPT (damaged: length, checksum, a rule of the payload); ERR_MISMATCH (an
 * intact record, but of another spec, label set or other tokens); ENOMEM. The note has byte offset and row.
 * After an error batch has the rows that it had before. Pure; any thread, but one thread for a batch. To
 * support a later version, add an entry to the table of versions in decode.c; callers do not change.
 */
int labels_decode(const struct labels_spec *spec, struct hash128 tokens, const void *bytes, size_t len, struct labels_batch *batch,
    struct err_note *note);

/*
 * labels_check - the checks of labels_decode, without rows, for code that stores records. tokens NULL: any.
 */
int labels_check(const struct labels_spec *spec, const struct hash128 *tokens, const void *bytes, size_t len, struct err_note *note);

/* labels_peek - verifies the checksum of a record and reads its header, not its payload. For listings. */
struct labels_header {
	uint32_t version, context, param, vocab, payload_bytes;
	enum labels_kind kind;
	struct hash128 tokens, set;
};

int labels_peek(const void *bytes, size_t len, struct labels_header *out, struct err_note *note);

/*
 * Scores: for each of L target tokens the scorer's loss and the rank of the true token, in 3 bytes: at offset
 * 3*t the u16 loss in 1/2048 nat (rounded to nearest, 65535 = 31.9995 nat and more), at 3*t + 2 the u8
 * min(rank, 255). There is no header: the cache's record has checksum and score set. data/select computes
 * S(x).
 *
 * If documents are isolated, the token after the end of a document has no prediction, which loss 0 and rank
 * 255 mark. No token with a prediction has this pair: if 255 ids are at least as probable as the true token,
 * its probability is at most 1/256 and its loss at least 5.5 nats.
 *
 * labels_scores_encode - loss_nats: float[L], rank: int32[L], out: uint8[3*L]. Returns 0, ERR_NONFINITE or
 * ERR_RANGE (loss < -1e-3, rank < 0), with the row in the note.
 * labels_score_absent - whether the pair marks a token without a prediction.
 * labels_scores_within - sets this mark for each of the L targets that follows a token `end`. end < 0: for
 * none.
 * labels_scores_mean - mean loss over the tokens that have a prediction, NaN if none has; *n: their number,
 * if n is not NULL.
 * labels_scores_decode - decodes into loss_nats float[L] and rank uint8[L]; either may be NULL. Returns 0, or
 * ERR_CORRUPT unless len = 3*L.
 */
#define LABELS_SCORES_VERSION 1u
#define LABELS_SCORE_BYTES 3u

int labels_scores_encode(const float *loss_nats, const int32_t *rank, uint32_t L, uint8_t *out, struct err_note *note);
bool labels_score_absent(float loss_nats, uint8_t rank);
void labels_scores_within(const int32_t *tokens, uint32_t L, int32_t end, float *loss_nats, int32_t *rank);
double labels_scores_mean(const float *loss_nats, const uint8_t *rank, uint32_t L, uint32_t *n);
int labels_scores_decode(const void *bytes, size_t len, uint32_t L, float *loss_nats, uint8_t *rank, struct err_note *note);

/*
 * Identities. Labels (scores) of sets with the same hash are interchangeable. compute_class is
 * "dtype/backend", such as "fp32/openblas". The context of a label set is spec.context. labels_set_text and
 * labels_scores_set_text fill buf with one line of key=value for people and return it.
 */
#define LABELS_CLASS_BYTES 48
#define LABELS_TEXT_BYTES 512

struct labels_set {
	struct hash128 corpus, teacher;
	char compute_class[LABELS_CLASS_BYTES];
	struct labels_spec spec;
};

struct labels_scores_set {
	struct hash128 corpus, scorer;
	char compute_class[LABELS_CLASS_BYTES];
	uint32_t context, version;	/* version: LABELS_SCORES_VERSION */
};

struct hash128 labels_set_hash(const struct labels_set *set);
const char *labels_set_text(const struct labels_set *set, char *buf, size_t size);
struct hash128 labels_scores_set_hash(const struct labels_scores_set *set);
const char *labels_scores_set_text(const struct labels_scores_set *set, char *buf, size_t size);

#endif
