/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For a document at a given position embed, rope and attention give the same bits whatever its neighbours
 * are, forward and backward, on every backend and in both dtypes; so they do for a sequence alone and in a
 * batch. The documents begin and end inside tiles, span several tiles, or end with the sequence.
 */
#include "fixture.h"

enum { T = FIXTURE_MIRROR ? 201 : 333, H = 2, D = 10, STRIDE = 3 * H * D, VOCAB = 17 };

static enum dtype dtype;

/* T rows of values from N(0, 1) in the compute dtype; rows [from, to) are copied from `kept`. */
static char *
rows_of(int64_t width, const char *kept, int64_t from, int64_t to)
{
	size_t size = dtype_size(dtype), row = (size_t)width * size;
	char *p = malloc(T * row);

	REQUIRE(p != NULL);
	for (int64_t i = 0; i < T * width; i++) {
		float x = normal(1);
		uint16_t half = tensor_f32_to_bf16(x);

		memcpy(p + (size_t)i * size, dtype == DTYPE_F32 ? (void *)&x : (void *)&half, size);
	}
	if (kept != NULL)
		memcpy(p + (size_t)from * row, kept + (size_t)from * row, (size_t)(to - from) * row);
	return p;
}

struct run {
	char *qkv, *d_o, *o, *d_qkv, *y, *wte, *wpe;
	float lse[H * T];
	int32_t tokens[T];
};

static void
run_kernels(struct kernels *k, struct run *r, const int32_t *starts)
{
	size_t size = dtype_size(dtype);
	static const float freq[D / 2] = {1, 0.5f, 0.25f, 0.125f, 0.0625f};
	struct kernels_heads q = {.data = r->qkv, .dtype = dtype, .stride = STRIDE, .n_heads = H, .head_dim = D}, key = q, value = q, d_q, d_k, d_v;
	const struct kernels_attention_form form = {.starts = starts};
	struct tensor o = tensor_2d(r->o, dtype, T, H * D), d_o = tensor_2d(r->d_o, dtype, T, H * D), y = tensor_2d(r->y, dtype, T, D);
	struct tensor wte = tensor_2d(r->wte, dtype, VOCAB, D), wpe = tensor_2d(r->wpe, dtype, T, D);

	key.data = r->qkv + H * D * size;
	value.data = r->qkv + 2 * H * D * size;
	d_q = d_k = d_v = q;
	d_q.data = r->d_qkv;
	d_k.data = r->d_qkv + H * D * size;
	d_v.data = r->d_qkv + 2 * H * D * size;
	kernels_embed(k, &y, r->tokens, &wte, &wpe, 1, T, starts);
	kernels_rope(k, &q, freq, 1, 1, T, starts, false);
	kernels_rope(k, &key, freq, 1, 1, T, starts, false);
	kernels_attention(k, &o, r->lse, &q, &key, &value, &form, 1, T);
	kernels_attention_bwd(k, &d_q, &d_k, &d_v, &d_o, &o, r->lse, &q, &key, &value, &form, 1, T);
	kernels_rope(k, &d_q, freq, 1, 1, T, starts, true);
}

/* Compares the document [from, to) with two sets of neighbours. */
static void
neighbours(struct kernels *k, int32_t from, int32_t to, int32_t most)
{
	struct run a, b;
	int32_t starts[2][T];
	size_t size = dtype_size(dtype);

	memset(&a, 0, sizeof(a));
	a.qkv = rows_of(STRIDE, NULL, 0, 0);
	a.d_o = rows_of(H * D, NULL, 0, 0);
	a.wte = rows_of(D, NULL, 0, 0);
	a.wpe = rows_of(D, NULL, 0, 0);
	for (int32_t i = 0; i < T; i++)
		a.tokens[i] = below(VOCAB);
	b = a;
	b.qkv = rows_of(STRIDE, a.qkv, from, to);
	b.d_o = rows_of(H * D, a.d_o, from, to);
	for (int32_t i = 0; i < T; i++)
		b.tokens[i] = i >= from && i < to ? a.tokens[i] : below(VOCAB);
	for (int set = 0; set < 2; set++) {
		int32_t *drawn = drawn_starts(1, T, set == 0 ? most : 2 * most), *s = starts[set];

		memcpy(s, drawn, sizeof(starts[set]));
		for (int32_t i = from; i < to; i++)
			s[i] = from;
		for (int32_t i = to; i < T && s[i] < to; i++)
			s[i] = to;
		free(drawn);
	}
	for (struct run *r = &a; r != NULL; r = r == &a ? &b : NULL) {
		r->o = rows_of(H * D, NULL, 0, 0);
		r->y = rows_of(D, NULL, 0, 0);
		r->d_qkv = rows_of(STRIDE, NULL, 0, 0);
		run_kernels(k, r, starts[r == &b]);
	}
#define SAME(member, width) \
	CHECK_ROW("the same " #member, memcmp(a.member + (size_t)from * (width) * size, b.member + (size_t)from * (width) * size, \
	    (size_t)(to - from) * (width) * size) == 0)
	SAME(y, D);
	SAME(qkv, STRIDE);
	SAME(o, H * D);
	SAME(d_qkv, STRIDE);
	for (int h = 0; h < H; h++)
		check_same("the same lse", a.lse + h * T + from, b.lse + h * T + from, to - from);
	CHECK(memcmp(a.o, b.o, T * H * D * size) != 0);		/* the neighbours are different */
	for (struct run *r = &a; r != NULL; r = r == &a ? &b : NULL) {
		free(r->qkv);
		free(r->d_o);
		free(r->o);
		free(r->y);
		free(r->d_qkv);
	}
	free(a.wte);
	free(a.wpe);
}

/* Compares three sequences in one call with each sequence alone. */
static void
alone(struct kernels *k)
{
	enum { B = 3, L = T / B };
	size_t size = dtype_size(dtype), row = STRIDE * size, o_row = H * D * size;
	char *qkv = rows_of(STRIDE, NULL, 0, 0), *d_o = rows_of(H * D, NULL, 0, 0), *o[2], *d_qkv[2];
	float lse[2][H * T];

	for (int i = 0; i < 2; i++) {
		o[i] = rows_of(H * D, NULL, 0, 0);
		d_qkv[i] = rows_of(STRIDE, NULL, 0, 0);
		for (int64_t s = 0; s < (i == 0 ? 1 : B); s++) {
			int64_t n = i == 0 ? B : 1;
			size_t from = (size_t)(s * L);
			struct kernels_heads x[6];
			struct tensor to = tensor_2d(o[i] + from * o_row, dtype, n * L, H * D), td_o = tensor_2d(d_o + from * o_row, dtype, n * L, H * D);

			for (int part = 0; part < 6; part++)
				x[part] = (struct kernels_heads){.data = (part < 3 ? qkv : d_qkv[i]) + from * row + (size_t)(part % 3 * H * D) * size,
				    .dtype = dtype, .stride = STRIDE, .n_heads = H, .head_dim = D};
			kernels_attention(k, &to, lse[i] + s * H * L, &x[0], &x[1], &x[2], NULL, n, L);
			kernels_attention_bwd(k, &x[3], &x[4], &x[5], &td_o, &to, lse[i] + s * H * L, &x[0], &x[1], &x[2], NULL, n, L);
		}
	}
	CHECK_ROW("a sequence alone: o", memcmp(o[0], o[1], B * L * o_row) == 0);
	check_same("a sequence alone: lse", lse[0], lse[1], B * H * L);
	CHECK_ROW("a sequence alone: gradients", memcmp(d_qkv[0], d_qkv[1], B * L * row) == 0);
	free(qkv);
	free(d_o);
	for (int i = 0; i < 2; i++) {
		free(o[i]);
		free(d_qkv[i]);
	}
}

int
main(void)
{
	static const struct kernels_options options[] = {
#ifdef KERNELS_MIRROR
		{.dtype = KERNELS_DTYPE_FP32},
		{.dtype = KERNELS_DTYPE_BF16},
#else
		{.backend = KERNELS_BACKEND_OPENBLAS, .dtype = KERNELS_DTYPE_FP32, .threads = 2},
		{.backend = KERNELS_BACKEND_OPENBLAS, .dtype = KERNELS_DTYPE_BF16, .threads = 2},
		{.backend = KERNELS_BACKEND_ONEDNN, .dtype = KERNELS_DTYPE_FP32, .threads = 2},
		{.backend = KERNELS_BACKEND_ONEDNN, .dtype = KERNELS_DTYPE_BF16, .threads = 2},
#endif
	};

	fixture_start();
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		struct err_note note = {0};
		struct kernels *k = NULL;

		if (FIXTURE_MIRROR) {
			k = fixture_context(&options[i]);
		} else if (kernels_new(&k, &options[i], &note) == ERR_UNSUPPORTED && i > 1) {
			printf("skipped: onednn: needs %s, found %s\n", note.expected, note.found);
			continue;
		}
		REQUIRE(k != NULL);
		k->small = 0;
		dtype = kernels_dtype(k);
		alone(k);
		neighbours(k, 70, 100, 30);		/* inside a tile */
		neighbours(k, 50, FIXTURE_MIRROR ? 170 : 250, 20);	/* over tiles */
		if (!FIXTURE_MIRROR) {
			neighbours(k, 128, 192, 100);		/* a tile */
			neighbours(k, 200, T, 9);		/* up to the end */
			neighbours(k, 0, 65, 3);
		}
		kernels_destroy(&k);
	}
	return check_done();
}
