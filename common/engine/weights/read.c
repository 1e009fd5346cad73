/* SPDX-License-Identifier: Apache-2.0 */
/* read - a tensor's bytes to float. F64 is rounded to the nearest float, beyond float's range to infinity */
#include "engine/weights/weights_internal.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/file/file.h"
#include "engine/tensor/tensor.h"

static uint32_t
float_bits(float x)
{
	uint32_t u;

	memcpy(&u, &x, sizeof(u));
	return u;
}

static bool
all_finite(const float *x, size_t n)
{
	uint32_t bad = 0;

	for (size_t i = 0; i < n; i++)
		bad |= (float_bits(x[i]) & 0x7f800000) == 0x7f800000;
	return bad == 0;
}

bool
weights__readable(enum weights_dtype dtype)
{
	return dtype == WEIGHTS_F32 || dtype == WEIGHTS_F16 || dtype == WEIGHTS_BF16 || dtype == WEIGHTS_F64;
}

int
weights__read(const struct weights_tensor *t, uint64_t at, size_t n, void *out, struct err_note *note)
{
	if (t->fd >= 0)
		return file_pread(t->fd, t->file, t->offset_bytes + at, out, n, note);
	memcpy(out, t->data + at, n);
	return 0;
}

int
weights_read_f32(const struct weights_tensor *t, uint64_t begin, uint64_t count, float *out, unsigned flags, struct err_note *note)
{
	const size_t width = weights_dtype_bytes(t->dtype), block = t->dtype == WEIGHTS_F64 ? 2048 : 8192;

	if (begin > t->n_elements || count > t->n_elements - begin)
		return err_expect_at(note, ERR_RANGE, "%s", "tensor %s", "elements within 0..%" PRIu64,
		    "%" PRIu64 " from %" PRIu64, t->file, t->name, t->n_elements, count, begin);
	if (!weights__readable(t->dtype))
		return err_expect_at(note, ERR_UNSUPPORTED, "%s", "tensor %s", WEIGHTS__READABLE, "%s",
		    t->file, t->name, weights_dtype_name(t->dtype));
	for (uint64_t at = 0; at < count; at += block) {
		size_t n = count - at < block ? (size_t)(count - at) : block;
		unsigned char from[2 * 8192]; /* used for all dtypes but F32 */
		float *to = out + at;
		uint16_t h;
		int rc = weights__read(
		    t, (begin + at) * width, n * width, t->dtype == WEIGHTS_F32 ? (void *)to : from, note);

		if (rc != 0)
			return rc;
		if (t->dtype == WEIGHTS_F32) {
			;
		} else if (t->dtype == WEIGHTS_BF16) {
			for (size_t i = 0; i < n; i++) {
				uint32_t u;

				memcpy(&h, from + 2 * i, 2);
				u = (uint32_t)h << 16;
				memcpy(&to[i], &u, 4);
			}
		} else if (t->dtype == WEIGHTS_F64) {
			for (size_t i = 0; i < n; i++) {
				double d;

				memcpy(&d, from + 8 * i, 8);
				to[i] = (float)d;
			}
		} else {
			for (size_t i = 0; i < n; i++) {
				memcpy(&h, from + 2 * i, 2);
				to[i] = tensor_f16_to_f32(h);
			}
		}
		if ((flags & WEIGHTS_FINITE) != 0 && !all_finite(to, n)) {
			size_t i = 0;

			while (isfinite(to[i]))
				i++;
			return err_expect_at(note, ERR_NONFINITE, "%s",
			    "tensor %s, element %" PRIu64 " (byte %" PRIu64 ")", "a finite number", "%s",
			    t->file, t->name, begin + at + i, t->offset_bytes + (begin + at + i) * width,
			    isnan(to[i]) ? "NaN" : "infinity");
		}
	}
	return 0;
}

bool
weights__finite(enum weights_dtype dtype, const void *p, size_t n_bytes)
{
	uint32_t mask = dtype == WEIGHTS_F32 ? 0x7f800000 : dtype == WEIGHTS_F16 ? 0x7c00 : 0x7f80, bad = 0;
	const unsigned char *from = p;

	for (size_t i = 0; dtype == WEIGHTS_F64 && i < n_bytes; i += 8) {
		double d;

		memcpy(&d, from + i, 8);
		bad |= !isfinite((float)d);
	}
	for (size_t i = 0; dtype == WEIGHTS_F32 && i < n_bytes; i += 4) {
		uint32_t u;

		memcpy(&u, from + i, 4);
		bad |= (u & mask) == mask;
	}
	for (size_t i = 0; dtype != WEIGHTS_F32 && dtype != WEIGHTS_F64 && i < n_bytes; i += 2) {
		uint16_t u;

		memcpy(&u, from + i, 2);
		bad |= (u & mask) == mask;
	}
	return bad == 0;
}
