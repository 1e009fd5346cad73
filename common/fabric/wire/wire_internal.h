/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of wire share. */
#ifndef SALT_WIRE_INTERNAL_H
#define SALT_WIRE_INTERNAL_H

#include "fabric/wire/wire.h"
#include <protobuf-c/protobuf-c.h>

enum wire__kind {
	KIND_U32,
	KIND_U64,
	KIND_I32,
	KIND_F32,
	KIND_F64,
	KIND_LOSS,
	KIND_ENUM,
	KIND_BOOL,
	KIND_VERSION,
	KIND_TEXT,
	KIND_HASH,
	KIND_ID,
	KIND_BYTES,
	KIND_PART,
	KIND_ITEMS,
	KIND_ROWS,
	KIND_SEQS,
	KIND_TOKENS
};

/* One line of wire_fields.h. */
struct wire__field {
	const char *name;
	enum wire__kind kind;
	bool needed;
	size_t at, n_at;		/* offset in our struct; of an array's count */
	size_t pb, n_pb;		/* the same in protobuf-c's struct */
	uint64_t lo, hi;		/* of an integer or a count; hi is the size of a text's array */
	double min, max;
	const struct wire__table *(*table)(void);	/* of a part, or of an array's items */
};

/* One STRUCT or PART of wire_fields.h. */
struct wire__table {
	const ProtobufCMessageDescriptor *desc;
	const struct wire__field *fields;
	size_t n_fields, size;		/* size of our struct */
};

/* Where a check failed: the message, and the part of it ("" for the message itself). */
struct wire__where {
	const char *message, *part;
	struct err_note *note;
};

/* wire__table - of a message type; NULL for unknown types. */
const struct wire__table *wire__table(enum wire_type type);

/*
 * wire__scan - check the bytes of a message before protobuf-c reads them: well formed, nested no deeper than
 * our messages are, and no NUL within texts (which cannot be seen any more after unpacking). 0 or ERR_FORMAT,
 * the byte offset in the note.
 */
int wire__scan(const ProtobufCMessageDescriptor *desc, const uint8_t *bytes, size_t len, struct err_note *note);

/* wire__check - every rule of wire.h on a message, made by hand or decoded. 0, ERR_FORMAT, ERR_RANGE. */
int wire__check(const struct wire_message *msg, struct err_note *note);

/*
 * wire__budget - allocator for protobuf-c. It allocates from an arena, which limits the memory; nothing is
 * freed before the arena is.
 */
struct wire__budget {
	struct mem_arena *arena;
	bool exceeded;
};
ProtobufCAllocator wire__allocator(struct wire__budget *budget);

#endif
