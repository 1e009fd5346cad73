/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire - structs to frames and back. The only module that includes protobuf. proto/salt.proto has the meaning
 * of every field, wire_fields.h its type here and its limits.
 *
 * A frame is 8 bytes of header ("SALT", u16 version, u16 type, little-endian) and one protobuf message.
 * wire_encode and wire_decode apply the same checks, so what one side sends the other accepts. What decode
 * returns has been checked: known enum values, fingerprints of 0 or 16 bytes, texts without NUL and within
 * their arrays, counts within their limits, lengths against shapes, numbers finite and in range, every needed
 * field present. The caller checks what is not in the frame: whether the lease is known, whether scores are 3
 * bytes per token, whether a record belongs to the label set.
 */
#ifndef SALT_WIRE_H
#define SALT_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err/err.h"
#include "base/hash/hash.h"
#include "data/labels/labels.h"

enum {
	WIRE_VERSION = 1,
	WIRE_LEASE_STALLED = 4,		/* a lease ends after so many lease_ms without progress, renewed or
					   not */
	WIRE_LEASE_LONGEST = 40,	/* any lease ends after so many lease_ms */
	WIRE_HEADER_BYTES = 8,
	WIRE_NAME_MAX = 64,		/* array sizes of texts, the ending NUL included */
	WIRE_CLASS_MAX = 48,
	WIRE_ENDPOINT_MAX = 256,
	WIRE_TEXT_MAX = 512,
	WIRE_MODELS_MAX = 4,
	WIRE_SEQS_MAX = 1024,		/* of a LEASE or DONE */
	WIRE_ROWS_MAX = 1024,		/* of ROWS or RESULT; a ROWS_REQUEST may ask for more and gets fewer */
	WIRE_CONTEXT_MAX = 1 << 24,	/* tokens */
	WIRE_VOCAB_MAX = 1 << 28,
	WIRE_MESSAGE_MIN = 1024		/* bytes; the smallest max_message that a peer may have */
};
#define WIRE_WINDOWS_MAX ((UINT64_C(1) << 48) - 1)	/* seq keeps the corpus number in its top 16 bits */

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
enum wire_mode { WIRE_MODE_NONE, WIRE_MODE_SALT_DS, WIRE_MODE_FILE };

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

/*
 * The structs: struct wire_corpus, wire_model, ..., wire_dropped. wire_fields.h lists their fields and
 * limits.
 */
#define STRUCT(name, Name) struct wire_##name {
#define PART(name, Name) struct wire_##name { bool present;
#define END(name) };
#define F_U32(f, lo, hi) uint32_t f;
#define F_U64(f, lo, hi) uint64_t f;
#define F_I32(f, lo, hi) int32_t f;
#define F_F32(f, lo, hi) float f;
#define F_F64(f, lo, hi) double f;
#define F_LOSS(f) double f;
#define F_ENUM(f, type, lo, hi) enum type f;
#define F_BOOL(f) bool f;
#define F_VERSION(f) uint32_t f;
#define F_TEXT(f, size, need) char f[size];
#define F_HASH(f) struct hash128 f;
#define F_ID(f, need) struct wire_id f;
#define F_BYTES(f) struct wire_bytes f;
#define F_PART(f, part) struct wire_##part f;
#define F_ITEMS(f, part, lo, hi) size_t n_##f; struct wire_##part f[hi];
#define F_ROWS(f, row) const struct wire_##row *f; size_t n_##f;
#define F_SEQS(f) const uint64_t *f; size_t n_##f;
#define F_TOKENS(f) const int32_t *f;
#include "fabric/wire/wire_fields.h"

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
	struct mem_arena *arena;	/* of wire_decode; NULL in messages made by hand */
};

const char *wire_type_name(enum wire_type type);	/* "HELLO"; "?" */
const char *wire_role_name(enum wire_role role);	/* "teacher" */

/*
 * wire_encode - one frame from one message.
 * @max_bytes  the receiver's max_message; a longer frame is ERR_RANGE here, because the receiver would drop
 *             it
 * @frame      malloc'ed and owned by the caller: pass it to bus_*_send, which takes ownership, or free() it
 * Returns 0; ERR_RANGE or ERR_FORMAT (the message breaks a rule; the note names the field); ENOMEM. *frame is
 * NULL then. Any thread.
 */
int wire_encode(const struct wire_message *msg, size_t max_bytes, uint8_t **frame, size_t *len, struct err_note *note);

/*
 * wire_decode - one message from one frame. The message owns all it points to (bulk bytes are copied once),
 * so the frame may be freed right after. Memory is at most 4 x len + 1 MiB, whatever the frame claims; the
 * constant covers WIRE_ROWS_MAX rows without a label. Returns 0; ERR_VERSION (both versions in the note);
 * ERR_FORMAT; ERR_RANGE; ENOMEM. *msg is NULL then. Any thread.
 */
int wire_decode(const void *bytes, size_t len, struct wire_message **msg, struct err_note *note);
void wire_message_destroy(struct wire_message **msg);	/* takes NULL */

/*
 * wire_plan_hash - identity of a plan: corpus fingerprint and context, seed, batch, mode, window or pool; in
 * salt_ds k; in salt_ds and file keep, by_part if it is true, and the score set's hash (NULL in mode none).
 * n_rows, label_ahead_rows and plan->hash are not part of it.
 */
struct hash128 wire_plan_hash(const struct wire_corpus *corpus, const struct wire_plan *plan, const struct hash128 *score_set);

/*
 * wire_*_diff - 0, or ERR_MISMATCH with the first field that differs: note->name "PREFIX.FIELD", expected
 * ours, found theirs. A field or a whole that is unknown on either side matches anything.
 */
int wire_corpus_diff(const char *prefix, const struct wire_corpus *ours, const struct wire_corpus *theirs, struct err_note *note);
int wire_label_set_diff(const char *prefix, const struct wire_label_set *ours, const struct wire_label_set *theirs,
    struct err_note *note);

/*
 * wire_refuse_fill - a REFUSE from a failure: code by err_exit_code(rc), texts from the note (may be NULL).
 */
void wire_refuse_fill(struct wire_refuse *refuse, int rc, const struct err_note *note, uint32_t retry_ms);

/* wire_refuse_str - "field: expected X, found Y (text)" for a log line; returns buf. */
const char *wire_refuse_str(const struct wire_refuse *refuse, char *buf, size_t size);

#endif
