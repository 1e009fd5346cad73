/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/tensor/tensor.h"

#include "check.h"

/* Every fp16 and bf16 value is unchanged after conversion to fp32 and back; ties round to even. */
int
main(void)
{
	static const struct {
		const char *what;
		float in;
		uint16_t f16, bf16;
	} rows[] = {
		{"one", 1.0f, 0x3c00, 0x3f80}, {"-2", -2.0f, 0xc000, 0xc000}, {"largest half", 65504.0f, 0x7bff, 0x4780},
		{"past half", 65520.0f, 0x7c00, 0x4780}, {"smallest subnormal", 0x1p-24f, 0x0001, 0x3380},
		{"half of it, to even", 0x1p-25f, 0x0000, 0x3300}, {"tie to even down", 1.0f + 0x1p-11f, 0x3c00, 0x3f80},
		{"tie to even up", 1.0f + 3 * 0x1p-11f, 0x3c02, 0x3f80}, {"bf16 tie up", 1.0f + 3 * 0x1p-8f, 0x3c0c, 0x3f82},
		{"infinity", INFINITY, 0x7c00, 0x7f80},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		CHECK_ROW(rows[i].what, tensor_f32_to_f16(rows[i].in) == rows[i].f16);
		CHECK_ROW(rows[i].what, tensor_f32_to_bf16(rows[i].in) == rows[i].bf16);
	}
	for (uint32_t v = 0; v < 65536; v++) {
		float h = tensor_f16_to_f32((uint16_t)v), b = tensor_bf16_to_f32((uint16_t)v);

		CHECK(isnan(h) ? isnan(tensor_f16_to_f32(tensor_f32_to_f16(h))) : tensor_f32_to_f16(h) == v);
		CHECK(isnan(b) ? isnan(tensor_bf16_to_f32(tensor_f32_to_bf16(b))) : tensor_f32_to_bf16(b) == v);
	}
	float data[12];
	struct tensor t = {.data = data, .dtype = DTYPE_F32, .n_dims = 3, .dims = {3, 2, 2}}, r = tensor_rows(&t, 1, 2);
	CHECK(r.data == data + 4 && tensor_count(&r) == 8);
	return check_done();
}
