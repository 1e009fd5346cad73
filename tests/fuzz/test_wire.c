/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes into wire_decode and wire_status_answer. What is decoded encodes again, and that decodes to a message that encodes to the
 * same bytes: nothing is accepted that we would not send.
 */
#include "fabric/wire/wire.h"

#include "fuzz.h"
#include "fabric/wire/status_answer.h"

enum { KINDS = WIRE_TYPES - 1, FRAME_MAX = 4096, ROUNDS = 3000 };

static const struct hash128 H = {0x0102030405060708u, 9};
static const uint64_t seqs[2] = {7, UINT64_C(1) << 48};
static const int32_t tokens[8] = {1, 2, 3, 4, 5, 6, 7, 8};
static const struct wire_result_row results[2] = {
	{.seq = 7, .scores = {(const uint8_t *)"abcdefghi", 9}, .label = {(const uint8_t *)"label", 5}}, {.seq = 8, .error = "not finite"}};
static const struct wire_row rows[2] = {{.seq = 9, .label = {(const uint8_t *)"label", 5}}, {.seq = 10, .quarantined = true}};

static void
fill(struct wire_message *m, enum wire_type type)
{
	struct wire_corpus corpus = {true, {true, H}, 3, 100, {true, H}, 4096};
	struct wire_label_set set = {true, {true, H}, {true, H}, "fp32/openblas", LABELS_KIND_SAMPLED, 16, 1, 5, 1};

	memset(m, 0, sizeof(*m));
	m->type = type;
	switch (type) {
	case WIRE_HELLO:
		m->hello = (struct wire_hello){.role = WIRE_ROLE_TRAINER, .boot_id = H, .name = "trainerd-0", .max_message = 1 << 20,
			.corpus = corpus, .plan = {true, {true, H}, 1, 8, WIRE_MODE_SALT_DS, 10, 512, 0.5, 0, 100, 10}, .label_set = set};
		break;
	case WIRE_WELCOME:
		m->welcome = (struct wire_welcome){1, H, 0, 1, 1 << 20, 1000, corpus, corpus, set, {true, {true, H}, {true, H}, "c", 1},
			{true, H}, 3.5, 1, false};
		break;
	case WIRE_REFUSE:
		m->refuse = (struct wire_refuse){78, "field", "1", "2", "text", 0};
		break;
	case WIRE_LEASE:
		m->lease = (struct wire_lease){11, H, true, true, seqs, 2, tokens, 3, 1000, set, 100};
		break;
	case WIRE_RESULT:
		m->result = (struct wire_result){11, results, 2};
		break;
	case WIRE_DONE:
		m->done = (struct wire_done){11, seqs, 2};
		break;
	case WIRE_ROWS_REQUEST:
		m->rows_request = (struct wire_rows_request){1, H, 2, 3, 4};
		break;
	case WIRE_ROWS:
		m->rows = (struct wire_rows){1, H, 2, rows, 2, 1.5};
		break;
	case WIRE_CHECKPOINTED:
	case WIRE_RELEASE:
		m->release = (struct wire_release){1, H, 2};
		break;
	case WIRE_BYE:
	case WIRE_RELEASE_TEACHER:
		strcpy(m->bye.reason, "drain");
		break;
	default:
		m->lease_renew.lease_id = 3;	/* the first number of all the small ones */
	}
	if (type == WIRE_LEASE_REQUEST)
		m->lease_request.credit = 2;
}

int
main(void)
{
	static uint8_t kept[KINDS + 1][FRAME_MAX], bytes[FRAME_MAX];
	static struct status_snapshot snap;
	size_t n_kept[KINDS + 1] = {0}, accepted = 0;
	static const uint8_t request[] = {0x08, 0xd4, 0x82, 0xd1, 0x9a, 0x05};	/* field 1, varint 0x53544154 */
	struct wire_peer peer = {.name = "teacherd-0", .role = WIRE_ROLE_TEACHER};
	struct status *st = status_new("selectord", "selectord-0", "0", 0);
	uint8_t *frame;
	size_t len, n_answers = 0;

	for (int t = 1; t <= KINDS; t++) {
		struct wire_message m;

		fill(&m, (enum wire_type)t);
		REQUIRE(wire_encode(&m, FRAME_MAX, &frame, &len, NULL) == 0);
		memcpy(kept[t], frame, len);
		n_kept[t] = len;
		free(frame);
	}
	fuzz_seed(20260204);
	for (int round = 0; round < KINDS * ROUNDS; round++) {
		int t = 1 + round % KINDS;
		struct wire_message *m, *again;
		struct err_note note = {0};
		uint8_t *second;
		size_t n, n_second;

		memcpy(bytes, kept[t], n_kept[t]);
		/* every other time the header stays, so that the message is reached */
		n = round % 2 == 0 ? fuzz_mutate(bytes, n_kept[t], sizeof(bytes))
		    : n_kept[t] > 8 ? 8 + fuzz_mutate(bytes + 8, n_kept[t] - 8, sizeof(bytes) - 8) : n_kept[t];
		if (wire_decode(bytes, n, &m, &note) != 0) {
			CHECK(m == NULL && note.name[0] != 0);
			continue;
		}
		accepted++;
		REQUIRE(wire_encode(m, SIZE_MAX, &frame, &len, &note) == 0);
		REQUIRE(wire_decode(frame, len, &again, &note) == 0);
		REQUIRE(wire_encode(again, SIZE_MAX, &second, &n_second, &note) == 0);
		CHECK(len == n_second && memcmp(frame, second, len) == 0);
		wire_message_destroy(&m);
		wire_message_destroy(&again);
		free(frame);
		free(second);
	}
	fprintf(stderr, "%zu of %d accepted\n", accepted, KINDS * ROUNDS);
	CHECK(accepted > KINDS * ROUNDS / 20 && accepted < KINDS * ROUNDS);

	/* status requests */
	REQUIRE(st != NULL);
	status_add(status_register(st, STATUS_COUNTER, "leases_total", "leases", "given out"), 3);
	status_snapshot(st, 1000, &snap);
	for (int round = 0; round < ROUNDS; round++) {
		memcpy(bytes, request, sizeof(request));
		REQUIRE(wire_status_answer(bytes, fuzz_mutate(bytes, sizeof(request), sizeof(bytes)), &snap, &peer, 1, &frame, &len) == 0);
		n_answers += frame != NULL;
		free(frame);
	}
	CHECK(n_answers > 0 && n_answers < ROUNDS);
	status_destroy(&st);
	return check_done();
}
