/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/wire/wire_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/mem/mem.h"

enum {
	BUDGET_FLOOR = 1 << 20,		/* WIRE_ROWS_MAX result rows of an error text each: 560 KiB of ours, 200 KiB of protobuf-c's */
	SLACK_BYTES = 16 << 10		/* what a usual message takes beyond the bytes of its frame */
};

/*
 * Copies protobuf-c's structs into ours. The first failure stays in rc; what was copied after it is not used.
 */
struct dec {
	const char *message;
	struct wire__budget budget;
	struct err_note *note;
	int rc;
};

static void *
budget_alloc(void *arg, size_t bytes)
{
	struct wire__budget *b = arg;
	void *p = mem_arena_alloc_raw(b->arena, bytes);		/* protobuf-c initializes all that it
								   allocates */

	if (p == NULL)
		b->exceeded = true;
	return p;
}

static void
budget_free(void *arg, void *p)
{
	(void)arg;
	(void)p;
}

ProtobufCAllocator
wire__allocator(struct wire__budget *budget)
{
	return (ProtobufCAllocator){budget_alloc, budget_free, budget};
}

static void
fail(struct dec *d, int rc, const char *part, const char *field, const char *expected, size_t found)
{
	if (d->rc != 0)
		return;
	d->rc = err_expect_at(d->note, rc, "%s", "%s%s%s", "%s", "%zu", d->message, part,
	    part[0] != 0 ? "." : "", field, expected, found);
}

static bool
get_hash(struct dec *d, const char *part, const char *field, struct hash128 *out, const ProtobufCBinaryData *from)
{
	if (from->len != 16) {
		if (from->len != 0)
			fail(d, ERR_FORMAT, part, field, "0 or 16 bytes", from->len);
		return false;
	}
	for (int i = 0; i < 8; i++) {
		out->hi = out->hi << 8 | from->data[i];
		out->lo = out->lo << 8 | from->data[8 + i];
	}
	return true;
}

static void
get_text(struct dec *d, const char *part, const struct wire__field *f, char *out, const void *pb)
{
	const char *from;
	size_t n;

	memcpy(&from, pb, sizeof(from));
	if ((n = from != NULL ? strlen(from) : 0) >= f->hi)
		fail(d, ERR_RANGE, part, f->name, "a shorter text", n);
	else if (n > 0)
		memcpy(out, from, n + 1);
}

static void
get_tokens(struct dec *d, const struct wire_lease *lease, const int32_t **out, const ProtobufCBinaryData *from)
{
	size_t n;

	if (!mem_mul(lease->n_seqs, (size_t)lease->context + 1, &n) || !mem_mul(n, sizeof(int32_t), &n) ||
	    n != from->len)
		fail(d, ERR_FORMAT, "", "tokens", "n_seqs * (context + 1) * 4 bytes", from->len);
	else if (n != 0)
		*out = (const int32_t *)(const void *)from->data;	/* from the arena, so aligned */
}

static void get_fields(struct dec *d, const struct wire__table *t, const char *part, void *to, const void *pb);

/*
 * Decodes an array of messages into `items`, or into memory of the arena if that is NULL. Returns the array,
 * NULL for none.
 */
static void *
get_array(struct dec *d, const struct wire__field *f, char *items, const void *pb, size_t n)
{
	const struct wire__table *t = f->table();
	void *const *list;
	char expected[32];

	if (n > f->hi) {
		snprintf(expected, sizeof(expected), "at most %" PRIu64, f->hi);
		fail(d, ERR_RANGE, "", f->name, expected, n);
		return NULL;
	}
	if (n == 0)
		return NULL;
	if (items == NULL && (items = mem_arena_alloc(d->budget.arena, n * t->size)) == NULL) {
		d->budget.exceeded = true;
		return NULL;
	}
	memcpy(&list, pb, sizeof(list));
	for (size_t i = 0; i < n; i++)
		get_fields(d, t, f->name, items + i * t->size, list[i]);
	return items;
}

static void
get_fields(struct dec *d, const struct wire__table *t, const char *part, void *to, const void *pb)
{
	const ProtobufCBinaryData *tokens = NULL;
	const int32_t **tokens_out = NULL;

	for (const struct wire__field *f = t->fields; f < t->fields + t->n_fields; f++) {
		void *at = (char *)to + f->at;
		size_t *n = (void *)((char *)to + f->n_at);
		const void *from = (const char *)pb + f->pb;
		const size_t *n_from = (const void *)((const char *)pb + f->n_pb);
		const ProtobufCBinaryData *data = from;
		void *p;

		switch (f->kind) {
		case KIND_U32:
		case KIND_I32:
		case KIND_F32:
		case KIND_ENUM:
		case KIND_VERSION:
			memcpy(at, from, 4);
			break;
		case KIND_U64:
		case KIND_F64:
		case KIND_LOSS:
			memcpy(at, from, 8);
			break;
		case KIND_BOOL:
			*(bool *)at = *(const protobuf_c_boolean *)from != 0;
			break;
		case KIND_TEXT:
			get_text(d, part, f, at, from);
			break;
		case KIND_HASH:		/* if absent it stays zero, which the check rejects */
			get_hash(d, part, f->name, at, from);
			break;
		case KIND_ID:
			((struct wire_id *)at)->known = get_hash(d, part, f->name,
			    &((struct wire_id *)at)->hash, from);
			break;
		case KIND_BYTES:
			*(struct wire_bytes *)at = (struct wire_bytes){data->len != 0 ? data->data : NULL, data->len};
			break;
		case KIND_PART:
			memcpy(&p, from, sizeof(p));
			if (p == NULL)
				break;
			*(bool *)at = true;
			get_fields(d, f->table(), f->name, at, p);
			break;
		case KIND_ITEMS:
			*n = *n_from;
			get_array(d, f, at, from, *n);
			break;
		case KIND_ROWS:
			*n = *n_from;
			p = get_array(d, f, NULL, from, *n);
			memcpy(at, &p, sizeof(p));
			break;
		case KIND_SEQS:
			*n = *n_from;
			memcpy(at, from, sizeof(p));
			break;
		case KIND_TOKENS:	/* last: their shape is in fields that follow */
			tokens = data;
			tokens_out = at;
			break;
		}
	}
	if (tokens != NULL)
		get_tokens(d, to, tokens_out, tokens);
}

/* Checks the header: magic, version, a known type. */
static int
header(const uint8_t *p, size_t len, enum wire_type *type, struct err_note *note)
{
	unsigned version, number;

	if (len < WIRE_HEADER_BYTES)
		return err_expect(note, ERR_FORMAT, "frame", "\"SALT\" and a header of %d bytes", "%zu bytes",
		    WIRE_HEADER_BYTES, len);
	if (memcmp(p, "SALT", 4) != 0)
		return err_expect(note, ERR_FORMAT, "frame", "\"SALT\" and a header",
		    "%zu other bytes", len);
	version = p[4] | (unsigned)p[5] << 8;
	number = p[6] | (unsigned)p[7] << 8;
	if (version != WIRE_VERSION)
		return err_expect_at(note, ERR_VERSION, "frame", "protocol version", "%d", "%u", WIRE_VERSION,
		    version);
	if (number == WIRE_NONE || number >= WIRE_TYPES)
		return err_expect_at(note, ERR_FORMAT, "frame", "message type", "1 .. %d", "%u",
		    WIRE_TYPES - 1, number);
	*type = (enum wire_type)number;
	return 0;
}

int
wire_decode(const void *bytes, size_t len, struct wire_message **out, struct err_note *note)
{
	const uint8_t *p = bytes;
	const struct wire__table *table;
	struct dec d = {.note = note};
	ProtobufCAllocator allocator = wire__allocator(&d.budget);
	ProtobufCMessage *m;
	struct wire_message *msg;
	enum wire_type type = WIRE_NONE;
	size_t budget;
	int rc;

	*out = NULL;
	if ((rc = header(p, len, &type, note)) != 0)
		return rc;
	table = wire__table(type);
	p += WIRE_HEADER_BYTES;
	len -= WIRE_HEADER_BYTES;
	if ((rc = wire__scan(table->desc, p, len, note)) != 0)
		return rc;
	d.message = wire_type_name(type);
	if (!mem_mul(len, 4, &budget) || !mem_add(budget, BUDGET_FLOOR, &budget))
		return err_note_set(note, ERR_RANGE, "%s", d.message);
	if ((d.budget.arena = mem_arena_new(budget)) != NULL)
		mem_arena_expect(d.budget.arena, len + SLACK_BYTES);
	if (d.budget.arena == NULL || (msg = mem_arena_alloc(d.budget.arena, sizeof(*msg))) == NULL) {
		rc = err_note_set(note, ENOMEM, "%s", d.message);
		goto fail;
	}
	msg->type = type;
	msg->arena = d.budget.arena;
	if ((m = protobuf_c_message_unpack(table->desc, &allocator, len, p)) != NULL) {
		get_fields(&d, table, "", &msg->hello, m);	/* a union: every message starts there */
		rc = d.rc;
	} else if (!d.budget.exceeded) {
		rc = err_expect(note, ERR_FORMAT, "%s", "a valid protobuf message of this type", "",
		    d.message);
	}
	if (d.budget.exceeded && !mem_arena_at_limit(d.budget.arena)) {
		rc = err_note_set(note, ENOMEM, "%s", d.message);
	} else if (d.budget.exceeded) {
		rc = err_expect_at(note, ERR_RANGE, "%s", "frame of %zu bytes",
		    "at most %zu bytes of decoded data", "more", d.message, len + WIRE_HEADER_BYTES, budget);
	}
	if (rc == 0)
		rc = wire__check(msg, note);
	if (rc != 0)
		goto fail;
	*out = msg;
	return 0;
fail:
	mem_arena_destroy(&d.budget.arena);
	return rc;
}

void
wire_message_destroy(struct wire_message **msg)
{
	struct mem_arena *arena;

	if (*msg == NULL)
		return;
	arena = (*msg)->arena;		/* the message lies within it */
	*msg = NULL;
	mem_arena_destroy(&arena);
}
