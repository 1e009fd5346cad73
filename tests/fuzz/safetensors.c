/* SPDX-License-Identifier: Apache-2.0 */
/* Input: a .safetensors file. It is rejected, or every tensor can be found and read to its end. */
#include "engine/weights/weights_internal.h"

#include "fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct err_note note = {0};
	struct weights *w;
	float x[64];
	int rc;

	if ((rc = weights_open(&w, fuzz_file("x.safetensors", data, len), &note)) != 0) {
		FUZZ_CHECK(w == NULL);
		FUZZ_REFUSED(rc, note);
		return 0;
	}
	for (size_t i = 0; i < weights_count(w); i++) {
		const struct weights_tensor *t = weights_at(w, i);

		FUZZ_CHECK(weights_find(w, t->name) == t && t->offset_bytes + t->len_bytes <= len);
		FUZZ_CHECK(t->n_elements * weights_dtype_bytes(t->dtype) == t->len_bytes);
		for (unsigned flags = 0; flags <= WEIGHTS_FINITE; flags++) {
			rc = 0;
			for (uint64_t at = 0; at < t->n_elements && rc == 0; at += 64)
				rc = weights_read_f32(t, at, t->n_elements - at < 64 ? t->n_elements - at : 64, x, flags, &note);
			if (rc != 0)
				FUZZ_REFUSED(rc, note);
			FUZZ_CHECK(rc != ERR_NONFINITE || flags == WEIGHTS_FINITE);
		}
		if (weights__readable(t->dtype))
			FUZZ_CHECK(weights__finite(t->dtype, t->data, (size_t)t->len_bytes) == (rc == 0));
		FUZZ_CHECK(weights_read_f32(t, t->n_elements, 1, x, 0, &note) != 0);
	}
	FUZZ_CHECK(weights_at(w, weights_count(w)) == NULL);
	weights_meta(w, "format");
	weights_close(&w);
	return 0;
}
