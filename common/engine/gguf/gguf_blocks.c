/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_blocks - decodes blocks of GGUF tensors to float. Comments list a block's fields with their byte
 * offsets; d and m are fp16 in the file, q are small integers. The file is compiled without contraction of
 * products and sums, so that an imported model has the same bits, and the same fingerprint, wherever it was
 * imported.
 */
#include "engine/gguf/gguf.h"

#include <string.h>

#include "engine/tensor/tensor.h"

static float
half(const unsigned char *p)
{
	return tensor_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static uint32_t
u32(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void
f32(const unsigned char *p, float *y)
{
	uint32_t u = u32(p);

	memcpy(y, &u, sizeof(u));
}

static void
f16(const unsigned char *p, float *y)
{
	*y = half(p);
}

static void
bf16(const unsigned char *p, float *y)
{
	*y = tensor_bf16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

/* 0 d, 2 q[16]: low nibbles are elements 0..15, high nibbles are elements 16..31. y = d (q - 8) */
static void
q4_0(const unsigned char *p, float *y)
{
	float d = half(p);

	for (int i = 0; i < 16; i++) {
		y[i] = d * (float)((p[2 + i] & 15) - 8);
		y[i + 16] = d * (float)((p[2 + i] >> 4) - 8);
	}
}

/* 0 d, 2 m, 4 q[16] as in Q4_0. y = d q + m */
static void
q4_1(const unsigned char *p, float *y)
{
	float d = half(p), m = half(p + 2);

	for (int i = 0; i < 16; i++) {
		y[i] = d * (float)(p[4 + i] & 15) + m;
		y[i + 16] = d * (float)(p[4 + i] >> 4) + m;
	}
}

/* Five bits of element i: four from the nibbles at q; the fifth is bit i of high. */
static int
five(const unsigned char *q, uint32_t high, int i)
{
	return (i < 16 ? q[i] & 15 : q[i - 16] >> 4) | (int)(high >> i & 1) << 4;
}

/* 0 d, 2 u32 fifth bits, 6 q[16]. y = d (q - 16) */
static void
q5_0(const unsigned char *p, float *y)
{
	float d = half(p);
	uint32_t high = u32(p + 2);

	for (int i = 0; i < 32; i++)
		y[i] = d * (float)(five(p + 6, high, i) - 16);
}

/* 0 d, 2 m, 4 u32 fifth bits, 8 q[16]. y = d q + m */
static void
q5_1(const unsigned char *p, float *y)
{
	float d = half(p), m = half(p + 2);
	uint32_t high = u32(p + 4);

	for (int i = 0; i < 32; i++)
		y[i] = d * (float)five(p + 8, high, i) + m;
}

/* 0 d, 2 signed q[32]. y = d q */
static void
q8_0(const unsigned char *p, float *y)
{
	float d = half(p);

	for (int i = 0; i < 32; i++)
		y[i] = d * (float)(int8_t)p[2 + i];
}

/*
 * Scale and minimum, six bits each, of sub-block j of eight, from 12 bytes. The low six bits of bytes 0..3
 * are the scales of sub-blocks 0..3, those of bytes 4..7 their minima. For sub-blocks 4..7, bytes 8..11 hold
 * the low nibbles of scale and minimum; their upper two bits are the high two bits of bytes 0..3 and 4..7.
 */
static void
scale_min(const unsigned char *p, int j, int *scale, int *min)
{
	if (j < 4) {
		*scale = p[j] & 63;
		*min = p[j + 4] & 63;
	} else {
		*scale = (p[j + 4] & 15) | p[j - 4] >> 6 << 4;
		*min = p[j + 4] >> 4 | p[j] >> 6 << 4;
	}
}

/*
 * 0 d, 2 dmin, 4 scales[12], (Q5_K: fifth bits[32],) q[128]. Eight sub-blocks of 32: sub-block 2k has the low
 * nibbles of q[32k..], 2k+1 the high nibbles; bit j of fifth[i] belongs to element i of sub-block j.
 * y = (d scale) q - (dmin min)
 */
static void
q45_k(const unsigned char *p, const unsigned char *fifth, const unsigned char *q, float *y)
{
	float d = half(p), dmin = half(p + 2);

	for (int j = 0; j < 8; j++) {
		const unsigned char *from = q + 32 * (j / 2);
		int scale, min;
		float a, b;

		scale_min(p + 4, j, &scale, &min);
		a = d * (float)scale;
		b = dmin * (float)min;
		for (int i = 0; i < 32; i++) {
			int v = j % 2 == 0 ? from[i] & 15 : from[i] >> 4;

			if (fifth != NULL)
				v |= (fifth[i] >> j & 1) << 4;
			y[32 * j + i] = a * (float)v - b;
		}
	}
}

static void
q4_k(const unsigned char *p, float *y)
{
	q45_k(p, NULL, p + 16, y);
}

static void
q5_k(const unsigned char *p, float *y)
{
	q45_k(p, p + 16, p + 48, y);
}

/*
 * 0 low[128], 128 high[64], 192 signed scales[16], 208 d. Two halves of 128 elements; in each half, group g
 * of 32 has nibble g / 2 of low[32 (g % 2) + i] and bits 2g, 2g+1 of high[i]; each 16 elements have a scale.
 * y = (d scale) (q - 32)
 */
static void
q6_k(const unsigned char *p, float *y)
{
	float d = half(p + 208);

	for (int h = 0; h < 2; h++) {
		const unsigned char *low = p + 64 * h, *high = p + 128 + 32 * h, *scales = p + 192 + 8 * h;

		for (int g = 0; g < 4; g++) {
			for (int i = 0; i < 32; i++) {
				int v = low[32 * (g % 2) + i] >> 4 * (g / 2) & 15;

				v |= (high[i] >> 2 * g & 3) << 4;
				y[128 * h + 32 * g + i] = d * (float)(int8_t)scales[2 * g + i / 16] * (float)(v - 32);
			}
		}
	}
}

/*
 * 0 scales[16], 16 q[64], 80 d, 82 dmin. Sixteen sub-blocks of 16; a byte of scales has the scale in the low
 * nibble and the minimum in the high one. In half h of 128 elements, group g of 32 has bits 2g, 2g+1 of q[32h
 * + i]. y = (d scale) q - (dmin min)
 */
static void
q2_k(const unsigned char *p, float *y)
{
	float d = half(p + 80), dmin = half(p + 82);

	for (int j = 0; j < 16; j++) {
		const unsigned char *q = p + 16 + 32 * (j / 8) + 16 * (j % 2);
		float a = d * (float)(p[j] & 15), b = dmin * (float)(p[j] >> 4);

		for (int i = 0; i < 16; i++)
			y[16 * j + i] = a * (float)(q[i] >> 2 * (j / 2 % 4) & 3) - b;
	}
}

/*
 * 0 third bits[32], 32 q[64], 96 scales[12], 108 d. Sub-blocks and q are as in Q2_K; 4 is subtracted from q
 * unless bit j / 2 of third[16 (j % 2) + i] is set. The six-bit scale of sub-block j is the low nibble of
 * scales[j], or for j >= 8 the high one of scales[j - 8], with bits 2(j/4), 2(j/4)+1 of scales[8 + j % 4] as
 * its upper two bits. y = d (scale - 32) (q - 4 or q)
 */
static void
q3_k(const unsigned char *p, float *y)
{
	float d = half(p + 108);

	for (int j = 0; j < 16; j++) {
		const unsigned char *q = p + 32 + 32 * (j / 8) + 16 * (j % 2), *third = p + 16 * (j % 2), *scales = p + 96;
		int scale = (scales[j % 8] >> 4 * (j / 8) & 15) | (scales[8 + j % 4] >> 2 * (j / 4) & 3) << 4;
		float a = d * (float)(scale - 32);

		for (int i = 0; i < 16; i++)
			y[16 * j + i] = a * (float)((q[i] >> 2 * (j / 2 % 4) & 3) - (third[i] >> j / 2 & 1 ? 0 : 4));
	}
}

/* Values of the 16 four-bit codes in IQ4_NL and IQ4_XS; and in MXFP4 (E2M1), times two. */
static const int8_t uneven[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const int8_t e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* 32 elements of q[16] as in Q4_0. y = d values[q] */
static void
looked_up(float d, const unsigned char *q, const int8_t *values, float *y)
{
	for (int i = 0; i < 16; i++) {
		y[i] = d * (float)values[q[i] & 15];
		y[i + 16] = d * (float)values[q[i] >> 4];
	}
}

/* 0 d, 2 q[16] */
static void
iq4_nl(const unsigned char *p, float *y)
{
	looked_up(half(p), p + 2, uneven, y);
}

/*
 * 0 d, 2 u16 high bits of scales, 4 low nibbles of scales[4], 8 q[128]. Eight sub-blocks of 32. The scale of
 * sub-block j is nibble j of the low ones, with bits 2j, 2j+1 of the high ones above. y = d (scale - 32)
 * values[q]
 */
static void
iq4_xs(const unsigned char *p, float *y)
{
	float d = half(p);
	unsigned high = p[2] | (unsigned)p[3] << 8;

	for (int j = 0; j < 8; j++) {
		int scale = (p[4 + j / 2] >> 4 * (j % 2) & 15) | (int)(high >> 2 * j & 3) << 4;

		looked_up(d * (float)(scale - 32), p + 8 + 16 * j, uneven, y + 32 * j);
	}
}

/*
 * 0 e, 1 q[16]. y = 2^(e - 128) values[q] (OCP Microscaling Formats 1.0, except that e = 255 is not NaN). For
 * e = 0 and 1 the factor is a subnormal float.
 */
static void
mxfp4(const unsigned char *p, float *y)
{
	uint32_t bits = p[0] < 2 ? UINT32_C(0x200000) << p[0] : (uint32_t)(p[0] - 1) << 23;
	float d;

	memcpy(&d, &bits, sizeof(d));
	looked_up(d, p + 1, e2m1, y);
}

/*
 * 0 q[48], 48 r[4], 52 d. A byte of q holds five digits of base 3, a byte of r four, as a fraction of 256:
 * with t = byte 3^n mod 256, digit n is floor(3 t / 256). Digit n of q[i] is element 32 n + i for i < 32, and
 * 160 + 16 n + i - 32 for the others; digit n of r[i] is element 240 + 4 n + i. y = d (digit - 1)
 */
static void
tq1_0(const unsigned char *p, float *y)
{
	static const struct {
		int begin, n_bytes, n_digits;
	} parts[] = {{0, 32, 5}, {32, 16, 5}, {48, 4, 4}};
	float d = half(p + 52);

	for (int k = 0; k < 3; k++) {
		unsigned char power = 1;

		for (int n = 0; n < parts[k].n_digits; n++) {
			for (int i = 0; i < parts[k].n_bytes; i++) {
				unsigned char t = (unsigned char)(p[parts[k].begin + i] * power);

				*y++ = d * (float)((t * 3 >> 8) - 1);
			}
			power = (unsigned char)(power * 3);
		}
	}
}

/* 0 q[64], 64 d. In half h of 128 elements, group g of 32 has bits 2g, 2g+1 of q[32h + i]. y = d (q - 1) */
static void
tq2_0(const unsigned char *p, float *y)
{
	float d = half(p + 64);

	for (int i = 0; i < 256; i++)
		y[i] = d * (float)((p[32 * (i / 128) + i % 32] >> 2 * (i / 32 % 4) & 3) - 1);
}

static const struct {
	const char *name;
	unsigned elements, bytes;
	void (*decode)(const unsigned char *p, float *y);
} types[] = {
	[GGUF_F32] = {"F32", 1, 4, f32}, [GGUF_F16] = {"F16", 1, 2, f16}, [GGUF_Q4_0] = {"Q4_0", 32, 18, q4_0},
	[GGUF_Q4_1] = {"Q4_1", 32, 20, q4_1}, [4] = {.name = "Q4_2"}, [5] = {.name = "Q4_3"}, [GGUF_Q5_0] = {"Q5_0", 32, 22, q5_0},
	[GGUF_Q5_1] = {"Q5_1", 32, 24, q5_1}, [GGUF_Q8_0] = {"Q8_0", 32, 34, q8_0}, [9] = {.name = "Q8_1"}, [GGUF_Q2_K] = {"Q2_K", 256, 84, q2_k},
	[GGUF_Q3_K] = {"Q3_K", 256, 110, q3_k}, [GGUF_Q4_K] = {"Q4_K", 256, 144, q4_k}, [GGUF_Q5_K] = {"Q5_K", 256, 176, q5_k},
	[GGUF_Q6_K] = {"Q6_K", 256, 210, q6_k}, [15] = {.name = "Q8_K"}, [16] = {.name = "IQ2_XXS"}, [17] = {.name = "IQ2_XS"},
	[18] = {.name = "IQ3_XXS"}, [19] = {.name = "IQ1_S"}, [GGUF_IQ4_NL] = {"IQ4_NL", 32, 18, iq4_nl}, [21] = {.name = "IQ3_S"},
	[22] = {.name = "IQ2_S"}, [GGUF_IQ4_XS] = {"IQ4_XS", 256, 136, iq4_xs}, [24] = {.name = "I8"}, [25] = {.name = "I16"}, [26] = {.name = "I32"},
	[27] = {.name = "I64"}, [28] = {.name = "F64"}, [29] = {.name = "IQ1_M"}, [GGUF_BF16] = {"BF16", 1, 2, bf16},
	[GGUF_TQ1_0] = {"TQ1_0", 256, 54, tq1_0}, [GGUF_TQ2_0] = {"TQ2_0", 256, 66, tq2_0}, [GGUF_MXFP4] = {"MXFP4", 32, 17, mxfp4}, [40] = {.name = "NVFP4"}, [41] = {.name = "Q1_0"},
};

#define N_TYPES (sizeof(types) / sizeof(types[0]))

const char *
gguf_type_name(uint32_t type)
{
	return type < N_TYPES && types[type].name != NULL ? types[type].name : "?";
}

unsigned
gguf_type_elements(uint32_t type)
{
	return type < N_TYPES ? types[type].elements : 0;
}

unsigned
gguf_type_bytes(uint32_t type)
{
	return type < N_TYPES ? types[type].bytes : 0;
}

void
gguf_decode(uint32_t type, const unsigned char *p, uint64_t n_blocks, float *y)
{
	for (uint64_t i = 0; i < n_blocks; i++, p += types[type].bytes, y += types[type].elements)
		types[type].decode(p, y);
}
