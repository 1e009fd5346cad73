/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/wire/wire_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem/mem.h"

_Static_assert(sizeof(enum wire_role) == sizeof(int) && sizeof(bool) == 1, "enums and booleans are copied by size");

/* protobuf-c's structs of one frame while it is packed. `failed` is checked once, at the end. */
struct enc {
	struct mem_arena *arena;
	bool failed;
};

static void *
alloc(struct enc *e, size_t bytes)
{
	void *p = mem_arena_alloc(e->arena, bytes);

	if (p == NULL)
		e->failed = true;
	return p;
}

static void
put_bytes(void *pb, const void *bytes, size_t len)
{
	ProtobufCBinaryData *out = pb;

	out->data = (uint8_t *)(uintptr_t)bytes;	/* protobuf-c only reads it */
	out->len = len;
}

static void
put_hash(struct enc *e, void *pb, const struct hash128 *h)
{
	uint8_t *p = alloc(e, 16);

	for (int i = 0; p != NULL && i < 8; i++) {
		p[i] = (uint8_t)(h->hi >> (56 - 8 * i));
		p[8 + i] = (uint8_t)(h->lo >> (56 - 8 * i));
	}
	if (p != NULL)
		put_bytes(pb, p, 16);
}

static void put_fields(struct enc *e, const struct wire__table *t, const void *from, void *pb);

static void *
put_part(struct enc *e, const struct wire__table *t, const void *from)
{
	void *pb = alloc(e, t->desc->sizeof_message);

	if (pb == NULL)
		return NULL;
	protobuf_c_message_init(t->desc, pb);
	put_fields(e, t, from, pb);
	return pb;
}

static void
put_array(struct enc *e, const struct wire__table *t, const char *items, size_t n, void *pb, size_t *pb_n)
{
	void **list;

	if (n == 0 || (list = alloc(e, n * sizeof(*list))) == NULL)
		return;
	for (size_t i = 0; i < n; i++)
		if ((list[i] = put_part(e, t, items + i * t->size)) == NULL)
			return;
	memcpy(pb, &list, sizeof(list));
	*pb_n = n;
}

static void
put_fields(struct enc *e, const struct wire__table *t, const void *from, void *pb)
{
	for (const struct wire__field *f = t->fields; f < t->fields + t->n_fields; f++) {
		const void *at = (const char *)from + f->at;
		const size_t *n = (const void *)((const char *)from + f->n_at);
		void *out = (char *)pb + f->pb, *p;
		size_t *n_out = (void *)((char *)pb + f->n_pb);

		switch (f->kind) {
		case KIND_U32:
		case KIND_I32:
		case KIND_F32:
		case KIND_ENUM:
			memcpy(out, at, 4);
			break;
		case KIND_U64:
		case KIND_F64:
		case KIND_LOSS:
			memcpy(out, at, 8);
			break;
		case KIND_BOOL:
			*(protobuf_c_boolean *)out = *(const bool *)at;
			break;
		case KIND_VERSION:
			*(uint32_t *)out = *(const uint32_t *)at != 0 ? *(const uint32_t *)at : WIRE_VERSION;
			break;
		case KIND_TEXT:
			memcpy(out, &at, sizeof(at));
			break;
		case KIND_HASH:
			put_hash(e, out, at);
			break;
		case KIND_ID:
			if (((const struct wire_id *)at)->known)
				put_hash(e, out, &((const struct wire_id *)at)->hash);
			break;
		case KIND_BYTES:
			put_bytes(out, ((const struct wire_bytes *)at)->bytes, ((const struct wire_bytes *)at)->len);
			break;
		case KIND_PART:
			if (*(const bool *)at && (p = put_part(e, f->table(), at)) != NULL)
				memcpy(out, &p, sizeof(p));
			break;
		case KIND_ITEMS:
			put_array(e, f->table(), at, *n, out, n_out);
			break;
		case KIND_ROWS:
			memcpy(&p, at, sizeof(p));
			put_array(e, f->table(), p, *n, out, n_out);
			break;
		case KIND_SEQS:
			memcpy(out, at, sizeof(p));
			*n_out = *n;
			break;
		case KIND_TOKENS: {
			const struct wire_lease *lease = from;

			put_bytes(out, lease->tokens, lease->n_seqs * ((size_t)lease->context + 1) * sizeof(int32_t));
			break;
		}
		}
	}
}

int
wire_encode(const struct wire_message *msg, size_t max_bytes, uint8_t **frame, size_t *len, struct err_note *note)
{
	const char *name = wire_type_name(msg->type);
	struct enc e = {0};
	ProtobufCMessage *m = NULL;
	uint8_t *p = NULL;
	size_t n;
	int rc;

	*frame = NULL;
	*len = 0;
	if ((rc = wire__check(msg, note)) != 0)
		return rc;
	if ((e.arena = mem_arena_new(0)) != NULL)
		m = put_part(&e, wire__table(msg->type), &msg->hello);	/* a union: every message starts there */
	if (m == NULL || e.failed) {
		rc = err_note_set(note, ENOMEM, "%s", name);
		goto out;
	}
	n = protobuf_c_message_get_packed_size(m) + WIRE_HEADER_BYTES;
	if (n > max_bytes) {
		rc = err_expect_at(note, ERR_RANGE, "%s", "bus.max_message", "at most %zu bytes", "%zu", name,
		    max_bytes, n);
		goto out;
	}
	if ((p = malloc(n)) == NULL) {
		rc = err_note_set(note, ENOMEM, "%s", name);
		goto out;
	}
	memcpy(p, "SALT", 4);
	p[4] = WIRE_VERSION & 0xff;
	p[5] = WIRE_VERSION >> 8;
	p[6] = (uint8_t)((unsigned)msg->type & 0xff);
	p[7] = (uint8_t)((unsigned)msg->type >> 8);
	protobuf_c_message_pack(m, p + WIRE_HEADER_BYTES);
	*frame = p;
	*len = n;
out:
	mem_arena_destroy(&e.arena);
	return rc;
}
