/*
 * wire - struct <-> frame. The only room that knows protobuf; proto/salt.proto is the contract and has the meaning of every field.
 *
 * A frame is 8 bytes of header ("SALT", u16 version, u16 type, little-endian) and one protobuf message. wire_encode and wire_decode
 * apply the same checks, so what one side sends the other takes. What decode hands out has been checked: known enum values,
 * fingerprints of 0 or 16 bytes, texts without NUL and within their arrays, counts within their caps, lengths against shapes, floats
 * finite and in range, everything present that its message needs. What it cannot check, because it is not in the frame (is the lease
 * known, are scores 3 bytes a token, does the record belong to the set), is its caller's.
 */
#ifndef SALT_WIRE_H
#define SALT_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err/err.h"
#include "base/hash/hash.h"

enum {
	WIRE_VERSION = 1,
	WIRE_HEADER_BYTES = 8,
	WIRE_NAME_MAX = 64,		/* array sizes of texts, the ending NUL included */
	WIRE_CLASS_MAX = 48,
	WIRE_ENDPOINT_MAX = 256,
	WIRE_TEXT_MAX = 512,
	WIRE_MODELS_MAX = 4,
	WIRE_SEQS_MAX = 1024,		/* of a lease or DONE */
	WIRE_ROWS_MAX = 1024,		/* of ROWS or RESULT; a ROWS_REQUEST may ask for more and gets fewer */
	WIRE_CONTEXT_MAX = 1 << 24,	/* tokens */
	WIRE_VOCAB_MAX = 1 << 28
};

enum wire_type {
	WIRE_NONE = 0,
	WIRE_HELLO,
	WIRE_WELCOME,
	WIRE_REFUSE,
	WIRE_LEASE_REQUEST,
	WIRE_LEASE,
	WIRE_LEASE_RENEW,
	WIRE_LEASE_RETURN,
	WIRE_RESULT,
	WIRE_DONE,
	WIRE_RELEASE_TEACHER,
	WIRE_ROWS_REQUEST,
	WIRE_ROWS,
	WIRE_CHECKPOINTED,
	WIRE_RELEASE,
	WIRE_ACK,
	WIRE_PING,
	WIRE_PONG,
	WIRE_BYE,
	WIRE_DROP_LABELS,
	WIRE_DROPPED,
	WIRE_TYPES			/* one past the last */
};

enum wire_role { WIRE_ROLE_NONE, WIRE_ROLE_TEACHER, WIRE_ROLE_TRAINER, WIRE_ROLE_CLIENT };
enum wire_label_kind { WIRE_LABEL_NONE, WIRE_LABEL_SAMPLED, WIRE_LABEL_TOPK, WIRE_LABEL_DENSE };	/* as labels_kind */
enum wire_mode { WIRE_MODE_NONE, WIRE_MODE_SALT_DS };

/* A fingerprint that may be unknown; unknown matches anything. */
struct wire_id {
	bool known;
	struct hash128 hash;
};

/* Bytes borrowed: from the message's arena after decode, from the caller for encode. */
struct wire_bytes {
	const uint8_t *bytes;
	size_t len;
};

struct wire_corpus {
	bool present;
	struct wire_id fingerprint;
	uint32_t context;		/* L, tokens; required, 1 .. WIRE_CONTEXT_MAX */
	uint64_t n_windows;
	struct wire_id tokenizer;
	uint32_t vocab_size;		/* required */
};

struct wire_model {
	struct hash128 fingerprint;	/* required */
	char compute_class[WIRE_CLASS_MAX];	/* required */
	bool serves_score, serves_label;	/* at least one */
	uint32_t vocab_size, max_context;	/* required */
	struct wire_id tokenizer;
};

/*
 * Unknown parts (in HELLO only): hash, teacher by .known; compute_class ""; version 0; tau 0; kind WIRE_LABEL_NONE makes kind, n
 * and seed unknown together. In WELCOME and LEASE all are there.
 */
struct wire_label_set {
	bool present;
	struct wire_id hash;		/* labels_set_hash() */
	struct wire_id teacher;
	char compute_class[WIRE_CLASS_MAX];
	enum wire_label_kind kind;
	uint32_t n;			/* N of sampled, k of topk, 0 of dense */
	float tau;
	uint32_t seed;
	uint32_t version;
};

struct wire_score_set {
	bool present;
	struct wire_id hash;		/* labels_scores_set_hash() */
	struct wire_id scorer;
	char compute_class[WIRE_CLASS_MAX];
	uint32_t version;
};

struct wire_plan {
	bool present;
	struct wire_id hash;		/* wire_plan_hash(); unknown in HELLO while the score set is (salt_ds) */
	uint32_t seed;			/* run.seed */
	uint32_t batch;			/* sequences a step; required */
	enum wire_mode mode;
	uint32_t k;			/* salt_ds: required */
	uint64_t window;		/* W; required unless pool */
	double keep;			/* salt_ds: (0, 1] */
	uint64_t pool;			/* > 0: one block over so many sequences, window is not used */
	uint64_t n_rows;		/* required */
	uint64_t label_ahead_rows;	/* UINT64_MAX: all */
};

struct wire_hello {
	uint32_t protocol_version;	/* wire_encode puts WIRE_VERSION where 0 stands */
	enum wire_role role;		/* required */
	struct hash128 boot_id;		/* required; bus_boot_id() */
	char name[WIRE_NAME_MAX];	/* required */
	char host[WIRE_NAME_MAX];
	uint32_t pid;
	uint32_t max_message;		/* required, at least 1024 */
	struct wire_corpus corpus;	/* trainer, client: required; teacher: none */
	struct wire_corpus heldout;
	size_t n_models;		/* teacher: 1 .. WIRE_MODELS_MAX; others: 0 */
	struct wire_model models[WIRE_MODELS_MAX];
	struct wire_plan plan;		/* trainer without a phase one: none */
	struct wire_label_set label_set;
	uint32_t rank;
	char status_endpoint[WIRE_ENDPOINT_MAX];
};

struct wire_welcome {
	uint32_t protocol_version;
	struct hash128 boot_id;		/* required */
	uint32_t shard, n_shards;	/* shard < n_shards; n_shards required */
	uint32_t max_message;		/* required, at least 1024 */
	uint32_t lease_ms;		/* required */
	struct wire_corpus corpus, heldout;	/* absent as long as selectord knows none (teacher came first) */
	struct wire_label_set label_set;	/* complete if present */
	struct wire_score_set score_set;
	struct wire_id plan_hash;
	double heldout_loss_nats;	/* NaN: not known */
	uint64_t rows_ready;
	bool released;
	struct wire_bytes unigram;	/* labels_unigram_bytes(); with a sampled label set, else empty */
};

struct wire_refuse {
	int32_t code;			/* sysexits; 64 .. 78 */
	char field[WIRE_NAME_MAX];
	char expected[WIRE_TEXT_MAX], found[WIRE_TEXT_MAX], text[WIRE_TEXT_MAX];
	uint32_t retry_ms;		/* > 0: not final */
};

struct wire_lease_request { uint32_t credit; };		/* at least 1 */

struct wire_lease {
	uint64_t lease_id;		/* required (never 0) */
	struct hash128 model;		/* required */
	bool want_score, want_label;	/* at least one */
	const uint64_t *seqs;		/* [n_seqs], 1 .. WIRE_SEQS_MAX */
	size_t n_seqs;
	const int32_t *tokens;		/* [n_seqs, context + 1], each 0 .. n_valid - 1 */
	uint32_t context;
	uint32_t lease_ms;		/* required */
	struct wire_label_set label_set;	/* complete; exactly with want_label */
	uint32_t n_valid;		/* required */
};

struct wire_lease_renew { uint64_t lease_id, progress; };
struct wire_lease_return { uint64_t lease_id; };

/* Either error and nothing else, or scores or label or both. */
struct wire_result_row {
	uint64_t seq;
	struct wire_bytes scores, label;
	char error[WIRE_TEXT_MAX];
};

struct wire_result {
	uint64_t lease_id;
	const struct wire_result_row *rows;	/* [n_rows], 1 .. WIRE_ROWS_MAX */
	size_t n_rows;
};

struct wire_done {
	uint64_t lease_id;
	const uint64_t *seqs;		/* [n_seqs], 1 .. WIRE_SEQS_MAX */
	size_t n_seqs;
};

struct wire_release_teacher { char reason[WIRE_TEXT_MAX]; };

struct wire_rows_request {
	uint64_t request_id;
	struct hash128 plan_hash;
	uint64_t first_row;
	uint32_t count;			/* at least 1; first_row + count does not wrap */
	uint64_t step;
};

struct wire_row {			/* label: empty exactly if quarantined */
	uint64_t seq;
	bool quarantined;
	struct wire_bytes label;
};

struct wire_rows {
	uint64_t request_id;
	struct hash128 plan_hash;
	uint64_t first_row;
	const struct wire_row *rows;	/* [n_rows], 1 .. WIRE_ROWS_MAX */
	size_t n_rows;
	double heldout_loss_nats;	/* NaN: not known */
};

struct wire_checkpointed { uint64_t request_id; struct hash128 plan_hash; uint64_t step; };
struct wire_release { uint64_t request_id; struct hash128 plan_hash; uint64_t step; };
struct wire_ack { uint64_t request_id; };
struct wire_ping { uint64_t nonce; };
struct wire_bye { char reason[WIRE_TEXT_MAX]; };
struct wire_drop_labels { uint64_t request_id; bool released_too; };
struct wire_dropped { uint64_t request_id, labels, bytes, kept; };

/* Zero it, set type and the member of that name. */
struct wire_message {
	enum wire_type type;
	union {
		struct wire_hello hello;
		struct wire_welcome welcome;
		struct wire_refuse refuse;
		struct wire_lease_request lease_request;
		struct wire_lease lease;
		struct wire_lease_renew lease_renew;
		struct wire_lease_return lease_return;
		struct wire_result result;
		struct wire_done done;
		struct wire_release_teacher release_teacher;
		struct wire_rows_request rows_request;
		struct wire_rows rows;
		struct wire_checkpointed checkpointed;
		struct wire_release release;
		struct wire_ack ack;
		struct wire_ping ping;		/* PING and PONG */
		struct wire_bye bye;
		struct wire_drop_labels drop_labels;
		struct wire_dropped dropped;
	};
	struct mem_arena *arena;	/* of decode; NULL in messages made by hand */
};

const char *wire_type_name(enum wire_type type);	/* "HELLO"; "?" */
const char *wire_role_name(enum wire_role role);	/* "teacher" */

/*
 * wire_encode - one frame.
 * @max_bytes  the receiver's max_message: longer ones are ERR_RANGE here, before they are lost on the way
 * @frame      malloc'ed, the caller's; hand it to bus_*_send (which takes it) or free() it
 * Returns 0; ERR_RANGE, ERR_FORMAT (our own message breaks a rule: the note names the field); ENOMEM. *frame is NULL then.
 * Pure; any thread.
 */
int wire_encode(const struct wire_message *msg, size_t max_bytes, uint8_t **frame, size_t *len, struct err_note *note);

/*
 * wire_decode - one message from one frame.
 * The message owns all it points to (bulk bytes are copied once), so the frame may go right after. Memory is at most 4 x len +
 * 1 MiB, whatever the frame claims (the constant covers WIRE_ROWS_MAX rows without a label).
 * Returns 0; ERR_VERSION (both versions in the note); ERR_FORMAT; ERR_RANGE; ENOMEM. *msg is NULL then.
 * Pure; any thread.
 */
int wire_decode(const void *bytes, size_t len, struct wire_message **msg, struct err_note *note);
void wire_message_destroy(struct wire_message **msg);	/* takes NULL */

/*
 * wire_plan_hash - identity of a plan: corpus fingerprint and context, seed, batch, mode, window or pool, and in salt_ds k, keep and
 * the score set's hash (NULL in mode none). n_rows, label_ahead_rows and plan->hash are not part of it.
 */
struct hash128 wire_plan_hash(const struct wire_corpus *corpus, const struct wire_plan *plan, const struct hash128 *score_set);

/*
 * wire_*_diff - 0, or ERR_MISMATCH with the first field that differs: note->name "PREFIX.FIELD", expected ours, found theirs.
 * Unknown on either side, and an absent whole, match anything.
 */
int wire_corpus_diff(const char *prefix, const struct wire_corpus *ours, const struct wire_corpus *theirs, struct err_note *note);
int wire_label_set_diff(const char *prefix, const struct wire_label_set *ours, const struct wire_label_set *theirs, struct err_note *note);
int wire_score_set_diff(const char *prefix, const struct wire_score_set *ours, const struct wire_score_set *theirs, struct err_note *note);
int wire_plan_diff(const char *prefix, const struct wire_plan *ours, const struct wire_plan *theirs, struct err_note *note);

/* wire_refuse_fill - a REFUSE from a failure: code by err_exit_code(rc), texts from the note (may be NULL). */
void wire_refuse_fill(struct wire_refuse *refuse, int rc, const struct err_note *note, uint32_t retry_ms);

/* wire_refuse_str - "field: expected X, found Y (text)" for a log line; returns buf. */
const char *wire_refuse_str(const struct wire_refuse *refuse, char *buf, size_t size);

#endif
