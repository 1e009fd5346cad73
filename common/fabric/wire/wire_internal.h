/* What the files of wire share. */
#ifndef SALT_WIRE_INTERNAL_H
#define SALT_WIRE_INTERNAL_H

#include "fabric/wire/wire.h"
#include <protobuf-c/protobuf-c.h>

/* wire__descriptor - of a type's protobuf message, NULL for unknown types. */
const ProtobufCMessageDescriptor *wire__descriptor(enum wire_type type);

/*
 * wire__scan - walk the bytes of a message before protobuf-c does: well formed, nested at most as deep as our messages are, and no
 * NUL within texts (after unpacking nobody could tell). 0 or ERR_FORMAT, the byte offset in the note.
 */
int wire__scan(const ProtobufCMessageDescriptor *desc, const uint8_t *bytes, size_t len, struct err_note *note);

/* wire__check - every rule of wire.h on a message, made by hand or just converted. 0, ERR_FORMAT, ERR_RANGE. */
int wire__check(const struct wire_message *msg, struct err_note *note);

#endif
