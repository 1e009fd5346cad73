/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/wire/wire_internal.h"

#include <string.h>

enum { SCAN_DEPTH_MAX = 4 };		/* HELLO holds MODEL: 2 */

struct scan {
	const uint8_t *start;
	struct err_note *note;
};

static int
bad(const struct scan *s, const char *name, const uint8_t *at, const char *expected)
{
	return err_expect_at(s->note, ERR_FORMAT, "%s", "byte %zu", "%s", "", name,
	    (size_t)(at - s->start) + WIRE_HEADER_BYTES, expected);
}

/* A varint of at most 10 bytes; NULL if it does not end within them. */
static const uint8_t *
varint(const uint8_t *p, const uint8_t *end, uint64_t *out)
{
	uint64_t v = 0;

	for (int shift = 0; p < end && shift < 70; shift += 7) {
		v |= (uint64_t)(*p & 0x7f) << shift;
		if ((*p++ & 0x80) == 0) {
			*out = v;
			return p;
		}
	}
	return NULL;
}

static int
scan_message(const struct scan *s, const ProtobufCMessageDescriptor *desc, const uint8_t *p, size_t len, int depth)
{
	const uint8_t *end = p + len, *at;

	if (depth > SCAN_DEPTH_MAX)
		return bad(s, desc->short_name, p, "messages that are nested less deeply");
	while (p < end) {
		const ProtobufCFieldDescriptor *field;
		uint64_t tag, n = 0;
		int rc;

		at = p;
		if ((p = varint(p, end, &tag)) == NULL || tag >> 3 == 0 || tag >> 32 != 0)
			return bad(s, desc->short_name, at, "a valid field tag");
		field = protobuf_c_message_descriptor_get_field(desc, (unsigned)(tag >> 3));
		switch (tag & 7) {
		case 0:
			if ((p = varint(p, end, &n)) == NULL)
				return bad(s, desc->short_name, at, "a complete varint");
			n = 0;
			break;
		case 1:
			n = 8;
			break;
		case 2:
			if ((p = varint(p, end, &n)) == NULL)
				return bad(s, desc->short_name, at, "a complete length");
			break;
		case 5:
			n = 4;
			break;
		default:
			return bad(s, desc->short_name, at, "wire type 0, 1, 2 or 5");
		}
		if (n > (uint64_t)(end - p))
			return bad(s, field != NULL ? field->name : desc->short_name, at,
			    "a field within its message");
		if (field != NULL && (tag & 7) == 2) {
			if (field->type == PROTOBUF_C_TYPE_STRING && memchr(p, 0, n) != NULL)
				return bad(s, field->name, at, "text without NUL");
			if (field->type == PROTOBUF_C_TYPE_MESSAGE
			    && (rc = scan_message(s, field->descriptor, p, n, depth + 1)) != 0)
				return rc;
		}
		p += n;
	}
	return 0;
}

int
wire__scan(const ProtobufCMessageDescriptor *desc, const uint8_t *bytes, size_t len, struct err_note *note)
{
	return scan_message(&(struct scan){bytes, note}, desc, bytes, len, 1);
}
