/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/wire/wire_internal.h"

#include "salt.pb-c.h"

#define NEEDED true
#define OPTIONAL false

/*
 * One function for each message: within it S is our struct and P is protobuf-c's, of which the fields take
 * their offsets.
 */
#define STRUCT(name_, Name)					\
	static const struct wire__table *			\
	name_##_table(void)					\
	{							\
		typedef struct wire_##name_ S;			\
		typedef Salt__V1__##Name P;			\
		static const struct wire__field fields[] = {
#define PART(name, Name) STRUCT(name, Name)
#define END(name_)						\
		};						\
		static const struct wire__table table = {	\
			&salt__v1__##name_##__descriptor, fields, sizeof(fields) / sizeof(fields[0]), sizeof(S)};	\
		return &table;					\
	}

/*
 * PB: the offset of a field in P, and a compile error where salt.proto gives it another type than
 * wire_fields.h does.
 */
#define PB(f, type) _Generic(((P *)NULL)->f, type: offsetof(P, f))
#define FIELD(f, kind_, type, ...) {.name = #f, .kind = kind_, .at = offsetof(S, f), .pb = PB(f, type), __VA_ARGS__},
#define ARRAY(f, kind_, type, ...) FIELD(f, kind_, type, .n_at = offsetof(S, n_##f), .n_pb = PB(n_##f, size_t), __VA_ARGS__)
#define F_U32(f, lo_, hi_) FIELD(f, KIND_U32, uint32_t, .lo = lo_, .hi = hi_)
#define F_U64(f, lo_, hi_) FIELD(f, KIND_U64, uint64_t, .lo = lo_, .hi = hi_)
#define F_I32(f, lo_, hi_) FIELD(f, KIND_I32, int32_t, .lo = lo_, .hi = hi_)
#define F_F32(f, lo_, hi_) FIELD(f, KIND_F32, float, .min = lo_, .max = hi_)
#define F_F64(f, lo_, hi_) FIELD(f, KIND_F64, double, .min = lo_, .max = hi_)
#define F_LOSS(f) FIELD(f, KIND_LOSS, double, .min = 0, .max = 1e6)
#define F_ENUM(f, type, lo_, hi_) {.name = #f, .kind = KIND_ENUM, .at = offsetof(S, f), .pb = offsetof(P, f), .lo = lo_, .hi = hi_},
#define F_BOOL(f) FIELD(f, KIND_BOOL, protobuf_c_boolean)
#define F_VERSION(f) FIELD(f, KIND_VERSION, uint32_t)
#define F_TEXT(f, size, need) FIELD(f, KIND_TEXT, char *, .hi = size, .needed = need)
#define F_HASH(f) FIELD(f, KIND_HASH, ProtobufCBinaryData)
#define F_ID(f, need) FIELD(f, KIND_ID, ProtobufCBinaryData, .needed = need)
#define F_BYTES(f) FIELD(f, KIND_BYTES, ProtobufCBinaryData)
#define F_PART(f, part) {.name = #f, .kind = KIND_PART, .at = offsetof(S, f), .pb = offsetof(P, f), .table = part##_table},
#define F_ITEMS(f, part, lo_, hi_) ROWS(f, KIND_ITEMS, part, lo_, hi_)
#define F_ROWS(f, row) ROWS(f, KIND_ROWS, row, 1, WIRE_ROWS_MAX)
#define ROWS(f, kind_, part, lo_, hi_)				\
	{.name = #f, .kind = kind_, .at = offsetof(S, f), .n_at = offsetof(S, n_##f), .pb = offsetof(P, f),	\
	    .n_pb = PB(n_##f, size_t), .lo = lo_, .hi = hi_, .table = part##_table},
#define F_SEQS(f) ARRAY(f, KIND_SEQS, uint64_t *, .lo = 1, .hi = WIRE_SEQS_MAX)
#define F_TOKENS(f) FIELD(f, KIND_TOKENS, ProtobufCBinaryData)
#include "fabric/wire/wire_fields.h"

static const struct {
	const char *name;
	const struct wire__table *(*table)(void);
} types[WIRE_TYPES] = {
	[WIRE_HELLO] = {"HELLO", hello_table},
	[WIRE_WELCOME] = {"WELCOME", welcome_table},
	[WIRE_REFUSE] = {"REFUSE", refuse_table},
	[WIRE_LEASE_REQUEST] = {"LEASE_REQUEST", lease_request_table},
	[WIRE_LEASE] = {"LEASE", lease_table},
	[WIRE_LEASE_RENEW] = {"LEASE_RENEW", lease_renew_table},
	[WIRE_LEASE_RETURN] = {"LEASE_RETURN", lease_return_table},
	[WIRE_RESULT] = {"RESULT", result_table},
	[WIRE_DONE] = {"DONE", done_table},
	[WIRE_RELEASE_TEACHER] = {"RELEASE_TEACHER", release_teacher_table},
	[WIRE_ROWS_REQUEST] = {"ROWS_REQUEST", rows_request_table},
	[WIRE_ROWS] = {"ROWS", rows_table},
	[WIRE_CHECKPOINTED] = {"CHECKPOINTED", checkpointed_table},
	[WIRE_RELEASE] = {"RELEASE", release_table},
	[WIRE_ACK] = {"ACK", ack_table},
	[WIRE_PING] = {"PING", ping_table},
	[WIRE_PONG] = {"PONG", ping_table},
	[WIRE_BYE] = {"BYE", bye_table},
	[WIRE_DROP_LABELS] = {"DROP_LABELS", drop_labels_table},
	[WIRE_DROPPED] = {"DROPPED", dropped_table},
};

const struct wire__table *
wire__table(enum wire_type type)
{
	return (unsigned)type < WIRE_TYPES && types[type].table != NULL ? types[type].table() : NULL;
}

const char *
wire_type_name(enum wire_type type)
{
	return (unsigned)type < WIRE_TYPES && types[type].name != NULL ? types[type].name : "?";
}
