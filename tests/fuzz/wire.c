/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: a frame. A decoded message can be encoded, and decoding and encoding that gives the same bytes:
 * decode accepts nothing that encode would not produce.
 */
#include "fabric/wire/wire.h"

#include "fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct wire_message *m, *again = NULL;
	struct err_note note = {0};
	uint8_t *first = NULL, *second = NULL;
	size_t n_first, n_second;
	int rc;

	if ((rc = wire_decode(data, len, &m, &note)) != 0) {
		FUZZ_CHECK(m == NULL);
		FUZZ_REFUSED(rc, note);
		return 0;
	}
	if (FUZZ_WORKS(wire_encode(m, SIZE_MAX, &first, &n_first, &note)) && FUZZ_WORKS(wire_decode(first, n_first, &again, &note)) &&
	    FUZZ_WORKS(wire_encode(again, SIZE_MAX, &second, &n_second, &note)))
		FUZZ_CHECK(n_first == n_second && memcmp(first, second, n_first) == 0);
	wire_message_destroy(&m);
	wire_message_destroy(&again);
	free(first);
	free(second);
	return 0;
}
