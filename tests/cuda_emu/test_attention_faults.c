/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Planted faults in the attention kernels (attention_faults.cmake): each must end its process with the
 * emulation's report for it or, if it makes no invalid access, give results that differ from the reference.
 * Without a fault the same calls must pass.
 */
#include "cuda_emu/child.h"
#include "kernels/fixture.h"
#include "kernels/reference.h"

static const struct {
	const char *name, *report;
	enum kernels_dtype dtype;
} faults[] = {
#define FAULT(name, report, dtype) {name, report, dtype},
#include "attention_faults.h"
};
enum { N_FAULTS = sizeof(faults) / sizeof(faults[0]), WRONG = 1, REPORTED = 86 };

static int fault = -1;

int planted(int number);

int
planted(int number)
{
	return number == fault;
}

/* Rounds n numbers to bf16: in f as fp32, and returned in dtype. */
static void *
both(float *f, int64_t n, enum dtype dtype)
{
	uint16_t *half = malloc((size_t)n * sizeof(*half));

	REQUIRE(half != NULL);
	for (int64_t i = 0; i < n; i++) {
		half[i] = tensor_f32_to_bf16(f[i]);
		f[i] = tensor_bf16_to_f32(half[i]);
	}
	if (dtype == DTYPE_BF16)
		return half;
	free(half);
	return f;
}

/* Largest difference relative to the largest value. */
static double
difference(const void *got, const float *want, int64_t n, enum dtype dtype)
{
	double size = 0, worst = 0;

	for (int64_t i = 0; i < n; i++) {
		float x = dtype == DTYPE_BF16 ? tensor_bf16_to_f32(((const uint16_t *)got)[i]) : ((const float *)got)[i];

		size = fmax(size, fabs((double)want[i]));
		worst = isfinite(x) ? fmax(worst, fabs((double)x - (double)want[i])) : INFINITY;
	}
	return worst / size;
}

/* One sequence, two query heads, one key head, forward and backward; whether results match the reference. */
static bool
right(struct kernels *k, enum dtype dtype, int64_t t, int64_t d, const struct kernels_attention_form *form)
{
	int64_t stride = 4 * d, n = t * stride, n_o = t * 2 * d, size = (int64_t)dtype_size(dtype);
	float *f = noise(n, 1), *f_o = noise(n_o, 1), *want = room(n_o), *want_lse = room(2 * t), *lse = room(2 * t), *want_d = room(n);
	char *qkv = both(f, n, dtype), *d_o = both(f_o, n_o, dtype), *o = calloc((size_t)n_o, (size_t)size), *d_qkv = calloc((size_t)n, (size_t)size);
	struct tensor to = tensor_2d(o, dtype, t, 2 * d), td_o = tensor_2d(d_o, dtype, t, 2 * d);
	struct kernels_heads x[3], dx[3], rx[3], rdx[3];

	for (int i = 0; i < 3; i++) {
		int64_t at = i == 0 ? 0 : (i + 1) * d;
		const struct kernels_heads h = {.stride = stride, .n_heads = i == 0 ? 2 : 1, .head_dim = d, .dtype = DTYPE_F32};

		x[i] = dx[i] = rx[i] = rdx[i] = h;
		x[i].dtype = dx[i].dtype = dtype;
		x[i].data = qkv + at * size;
		dx[i].data = d_qkv + at * size;
		rx[i].data = f + at;
		rdx[i].data = want_d + at;
	}
	kernels_attention_ref(want, want_lse, &rx[0], &rx[1], &rx[2], form, 1, t);
	kernels_attention_bwd_ref(&rdx[0], &rdx[1], &rdx[2], f_o, &rx[0], &rx[1], &rx[2], form, 1, t);
	kernels_attention(k, &to, lse, &x[0], &x[1], &x[2], form, 1, t);
	kernels_attention_bwd(k, &dx[0], &dx[1], &dx[2], &td_o, &to, lse, &x[0], &x[1], &x[2], form, 1, t);
	return difference(o, want, n_o, dtype) < 0x1p-6 && difference(lse, want_lse, 2 * t, DTYPE_F32) < 1e-5 &&
	    difference(d_qkv, want_d, n, dtype) < 0x1p-6;
}

static void
run(enum kernels_dtype name)
{
	enum { T = 70 };
	int32_t starts[T];
	struct kernels *k = fixture_context(&(struct kernels_options){.dtype = name});
	enum dtype dtype = name == KERNELS_DTYPE_BF16 ? DTYPE_BF16 : DTYPE_F32;

	for (int32_t i = 0; i < T; i++)
		starts[i] = i < 45 ? 0 : 45;
	if (!right(k, dtype, T, 16, &(struct kernels_attention_form){.soft_cap = 2}) ||
	    !right(k, dtype, T, 16, &(struct kernels_attention_form){.window = 20, .starts = starts}) ||
	    (dtype == DTYPE_BF16 && !right(k, dtype, 40, 200, &(struct kernels_attention_form){0})))
		_exit(WRONG);
	kernels_destroy(&k);
}

/* Makes the calls with a fault; number N_FAULTS: with heads that are too large. */
static void
run_fault(int number)
{
	fault = number;
	if (number < N_FAULTS)
		run(faults[number].dtype);
	else
		(void)right(fixture_context(&(struct kernels_options){0}), DTYPE_F32, 3, 257,
		    &(struct kernels_attention_form){0});
}

static void
check_fault(int number)
{
	char text[2048];
	int status = child_status(run_fault, number, 100, text, sizeof(text));

	CHECK_ROW(faults[number].name, WIFEXITED(status) && WEXITSTATUS(status) == (faults[number].report[0] != 0 ? REPORTED : WRONG) &&
	    strstr(text, faults[number].report) != NULL);
	if (!WIFEXITED(status) || strstr(text, faults[number].report) == NULL)
		fprintf(stderr, "  status %d, reported: %s\n", status, text);
}

int
main(void)
{
	char text[2048];

	fixture_start();
	CHECK(child_status(run_fault, N_FAULTS, 100, text, sizeof(text)) != 0 && strstr(text, "head_dim=257") != NULL);
	for (int i = 0; i < N_FAULTS; i++)
		check_fault(i);
	run(KERNELS_DTYPE_FP32);
	run(KERNELS_DTYPE_BF16);
	return check_done();
}
