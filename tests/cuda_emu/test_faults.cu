/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults planted in kernels and in host calls: each must end its process with the report for it, or give a
 * stale value. The same kernels without the fault must pass, in order and in shuffled orders (CUDA_EMU_SEED).
 */
#include <stdio.h>
#include <stdlib.h>

#define _Atomic				/* check.h is C; this test has one thread */
#include "cuda_emu/child.h"
#include "engine/kernels/cuda/mma.h"

#define N 128				/* threads of a block */

enum fault {
	NONE, PAST_END, BEFORE_BEGIN, FREED, HOST_POINTER, NO_BARRIER, TWO_WRITERS, WRITE_AFTER_READ, TWO_BLOCKS, MISALIGNED_WORDS, MISALIGNED_CAST,
	THREADS_LEFT, TWO_BARRIERS, LANES_MISSING, LANE_OUTSIDE, NO_CP_WAIT, CP_NO_BARRIER, CP_UNFINISHED, LDMATRIX_ROW, UNWRITTEN, SHARED_END,
	OTHER_LOCAL, HOST_READS, MANY_THREADS, MUCH_SHARED, COPY_PAST_END, FREE_INSIDE, UNWRITTEN_DEVICE, N_FAULTS
};

static const struct {
	const char *name, *report;
} faults[N_FAULTS] = {
	{"none", ""},
	{"past the end of an array", "outside every allocation"},
	{"before the begin of an array", "outside every allocation"},
	{"memory that was freed", "freed"},
	{"host pointer", "a kernel accesses host memory"},
	{"missing barrier", "without a barrier"},
	{"two threads write a number", "written by two threads"},
	{"an array is used again without a barrier", "written without a barrier after another thread read it"},
	{"two blocks write a number", "written by two blocks"},
	{"misaligned load of 16 bytes", "misaligned"},
	{"pointer cast to a wider type", "misaligned"},
	{"threads return before a barrier", "threads have ended"},
	{"different barriers", "different barriers"},
	{"lanes do not reach a shuffle", "not all lanes"},
	{"a shuffle from a lane outside the mask", "outside the mask"},
	{"cp.async without a wait", "nobody has written"},
	{"cp.async without a barrier", "without a barrier"},
	{"cp.async is not waited for", "cp.async under way"},
	{"ldmatrix of a row that is not aligned", "misaligned"},
	{"shared memory that nobody wrote", "nobody has written"},
	{"past the end of a shared array", "outside the arrays of shared memory"},
	{"another thread's local array", "another thread's local memory"},
	{"the host reads device memory", "the host accesses device memory"},
	{"2048 threads in a block", "no device takes"},
	{"64 KiB of shared memory without the attribute", "no device takes"},
	{"a copy past the end", "not allocated on the device"},
	{"cudaFree of an address inside an array", "no allocation"},
	{"device memory that nobody wrote", "nobody has written"},
};

/* y[i] = sum of x over the block, with shared memory and shuffles; it has most of the kernel faults. */
__global__ static void
sums(float *y, const float *x, int n, int fault)
{
	CUDA_SHARED(float, room, N);
	CUDA_SHARED(float, totals, N / WARP);
	int i = (int)threadIdx.x;
	int at = (int)(blockIdx.x * N) + i;
	float v = at < n ? x[at] : 0;

	if (fault == PAST_END && i == N - 1)
		v = x[n];
	if (fault == BEFORE_BEGIN && i == 0)
		y[-1] = 0;
	if (fault == MISALIGNED_WORDS && i == 0)
		v += float_of(load_words<words4>(x + 1).w[0]);
	if (fault == MISALIGNED_CAST && i == 0)
		v += (float)*(const double *)(x + 1);
	if (fault == THREADS_LEFT && i >= 64)
		return;
	if (fault != UNWRITTEN || i != 7)
		room[i] = v;
	if (fault == SHARED_END && i == 0)
		room[N] = 0;
	if (fault == TWO_WRITERS && i > 0)
		room[0] = 1;
	if (fault == TWO_BARRIERS && i == 0)
		__syncthreads();
	else if (fault != NO_BARRIER)
		__syncthreads();
	v = room[N - 1 - i];
	if (fault == LANE_OUTSIDE)
		v += __shfl_sync(i % WARP < 16 ? 0xffffu : 0xffff0000u, v, 16);
	for (int by = WARP / 2; by > 0; by /= 2)
		if (fault != LANES_MISSING || i != 40)
			v += __shfl_xor_sync(ALL_LANES, v, by);
	if (fault == WRITE_AFTER_READ)
		room[i] = 0;
	if (i % WARP == 0)
		totals[i / WARP] = v;
	__syncthreads();
	v = 0;
	for (int w = 0; w < N / WARP; w++)
		v += totals[w];
	if (__ballot_sync(ALL_LANES, i % 2) != 0xaaaaaaaau)
		v = -1;
	y[fault == TWO_BLOCKS ? i : at] = v;
}

/* A thread's local array is read by another thread. */
__global__ static void
neighbours(float *y, int fault)
{
	CUDA_SHARED(float *, where, N);
	volatile float mine[4];
	int i = (int)threadIdx.x;

	for (int k = 0; k < 4; k++)
		mine[k] = (float)i;
	where[i] = (float *)mine;
	__syncthreads();
	y[i] = where[fault == OTHER_LOCAL ? i ^ 1 : i][i % 4];
}

/* y [16, 8] = a [16, 16] b [16, 8] with cp.async, ldmatrix and mma; b is given as [8, 16]. */
__global__ static void
product(float *y, const uint16_t *a, const uint16_t *b, int fault)
{
	CUDA_SHARED(uint16_t, a_tile, 16 * 24);
	CUDA_SHARED(uint16_t, b_tile, 16 * 24);
	int lane = (int)threadIdx.x;
	uint32_t fa[4], fb[4];
	float c[4] = {0, 0, 0, 0};

	cp_async16(a_tile + lane / 2 * 24 + lane % 2 * 8, a + lane * 8);
	cp_async16(b_tile + lane / 2 * 24 + lane % 2 * 8, b + lane / 2 % 8 * 16 + lane % 2 * 8);
	cp_commit();
	if (fault == CP_UNFINISHED)
		return;
	if (fault != NO_CP_WAIT)
		cp_wait<0>();
	if (fault != CP_NO_BARRIER)
		__syncthreads();
	ldmatrix<false>(fa, a_tile + lane % 16 * 24 + lane / 16 * 8 + (fault == LDMATRIX_ROW ? 1 : 0));
	ldmatrix<false>(fb, b_tile + (lane % 8 + lane / 16 * 8) * 24 + lane / 8 % 2 * 8);
	mma16816(c, fa, fb);
	if (fault == NO_CP_WAIT)
		cp_wait<0>();
	for (int e = 0; e < 4; e++)
		y[(lane / 4 + e / 2 * 8) * 8 + lane % 4 * 2 + e % 2] = c[e];
}

/* The same with b as [16, 8], transposed while it is loaded; two columns of tiles. */
__global__ static void
product_trans(float *y, const uint16_t *a, const uint16_t *b)
{
	CUDA_SHARED(uint16_t, a_tile, 16 * 24);
	CUDA_SHARED(uint16_t, b_tile, 16 * 24);
	int lane = (int)threadIdx.x;
	uint32_t fa[4], fb[4];

	for (int i = lane; i < 256; i += WARP) {
		a_tile[i / 16 * 24 + i % 16] = a[i];
		b_tile[i / 16 * 24 + i % 16] = b[i];
	}
	__syncthreads();
	ldmatrix<false>(fa, a_tile + lane % 16 * 24 + lane / 16 * 8);
	ldmatrix<true>(fb, b_tile + lane % 16 * 24 + lane / 16 * 8);
	for (int half = 0; half < 2; half++) {
		float c[4] = {0, 0, 0, 0};

		mma16816(c, fa, fb + 2 * half);
		for (int e = 0; e < 4; e++)
			y[(lane / 4 + e / 2 * 8) * 16 + half * 8 + lane % 4 * 2 + e % 2] = c[e];
	}
}

__global__ static void
set(float *y, const float *x)
{
	y[threadIdx.x] = x[threadIdx.x];
}

#define CUDA(call) REQUIRE((call) == cudaSuccess)

static float *
on_device(cudaStream_t s, const void *host, size_t bytes)
{
	float *p;

	CUDA(cudaMalloc(&p, bytes));
	CUDA(cudaMemcpyAsync(p, host, bytes, cudaMemcpyHostToDevice, s));
	return p;
}

static void
run(int fault)
{
	enum { BLOCKS = 3, ALL = BLOCKS * N };
	static float x[ALL], got[ALL];
	static uint16_t a[256], b[256], bt[256];
	static uint32_t fa[256], fb[256];
	float *d_x, *d_y, *d_m, *d_p;
	uint16_t *d_a, *d_b, *d_bt;
	cudaStream_t s;

	for (int i = 0; i < ALL; i++)
		x[i] = (float)(i * 7 % 31);
	for (int i = 0; i < 256; i++) {
		a[i] = (uint16_t)(fa[i] = narrow((float)(i * 5 % 17 - 8)));
		b[i] = (uint16_t)(fb[i] = narrow((float)(i * 3 % 13 - 6)));
	}
	for (int i = 0; i < 128; i++)
		bt[i] = b[i % 16 * 16 + i / 16];
	CUDA(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
	d_x = on_device(s, x, sizeof(x));
	CUDA(cudaMalloc(&d_y, sizeof(x)));
	CUDA(cudaMalloc(&d_p, N * sizeof(float)));
	CUDA(cudaMalloc(&d_m, 384 * sizeof(float)));
	d_a = (uint16_t *)on_device(s, a, sizeof(a));
	d_b = (uint16_t *)on_device(s, b, sizeof(b));
	d_bt = (uint16_t *)on_device(s, bt, sizeof(bt));
	if (fault == HOST_READS)
		x[0] = *(volatile float *)d_x;
	if (fault == FREED)
		CUDA(cudaFree(d_x));
	if (fault == FREE_INSIDE)
		CUDA(cudaFree(d_x + 4));
	if (fault == COPY_PAST_END)
		CUDA(cudaMemcpyAsync(d_x + 1, x, sizeof(x), cudaMemcpyHostToDevice, s));
	CUDA(cuda_launch(sums, fault == MANY_THREADS ? 1 : BLOCKS, fault == MANY_THREADS ? 2048 : N, fault == MUCH_SHARED ? 65536 : 0, s, d_y,
	    fault == HOST_POINTER ? x : fault == UNWRITTEN_DEVICE ? d_m : d_x, fault == UNWRITTEN_DEVICE ? 384 : ALL, fault));
	CUDA(cuda_launch(neighbours, 1, N, 0, s, d_p, fault));
	CUDA(cuda_launch(product, 1, WARP, 0, s, d_m, d_a, d_bt, fault));
	CUDA(cuda_launch(product_trans, 1, WARP, 0, s, d_m + 128, d_a, d_b));
	CUDA(cudaMemcpyAsync(got, d_y, sizeof(x), cudaMemcpyDeviceToHost, s));
	CUDA(cudaStreamSynchronize(s));
	for (int i = 0; i < ALL; i++) {
		float want = 0;

		for (int k = 0; k < N; k++)
			want += x[i / N * N + k];
		CHECK(got[i] == want);
	}
	CUDA(cudaMemcpyAsync(got, d_p, N * sizeof(float), cudaMemcpyDeviceToHost, s));
	CUDA(cudaStreamSynchronize(s));
	for (int i = 0; i < N; i++)
		CHECK(got[i] == (float)i);
	CUDA(cudaMemcpyAsync(got, d_m, 384 * sizeof(float), cudaMemcpyDeviceToHost, s));
	CUDA(cudaStreamSynchronize(s));
	for (int r = 0; r < 16; r++)
		for (int c = 0; c < 16; c++) {
			float want = 0;

			for (int k = 0; k < 16; k++)
				want += widen(fa[r * 16 + k]) * widen(fb[k * 16 + c]);
			CHECK(got[128 + r * 16 + c] == want);
			CHECK(c >= 8 || got[r * 8 + c] == want);
		}
	CUDA(cudaStreamDestroy(s));
	CUDA(cudaFree(d_x));
	CUDA(cudaFree(d_y));
	CUDA(cudaFree(d_p));
	CUDA(cudaFree(d_m));
	CUDA(cudaFree(d_a));
	CUDA(cudaFree(d_b));
	CUDA(cudaFree(d_bt));
}

static void
check_fault(int fault)
{
	char text[2048];
	int status = child_status(run, fault, 20, text, sizeof(text));

	CHECK_ROW(faults[fault].name, WIFEXITED(status) && WEXITSTATUS(status) == 86 && strstr(text, faults[fault].report) != NULL);
	if (strstr(text, faults[fault].report) == NULL)
		fprintf(stderr, "  reported: %s\n", text);
}

/* Missing waits: the reader gets the old values. */
static void
check_waits()
{
	static float x[N], old[N], got[N];
	float *d_x, *d_y, *pinned;
	cudaStream_t a, b;
	cudaEvent_t e;

	for (int i = 0; i < N; i++) {
		x[i] = (float)i + 1;
		old[i] = -1;
	}
	CUDA(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
	CUDA(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
	CUDA(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
	CUDA(cudaEventQuery(e));
	CUDA(cudaMallocHost(&pinned, sizeof(x)));
	d_y = on_device(a, old, sizeof(old));
	d_x = on_device(a, x, sizeof(x));
	CUDA(cudaStreamSynchronize(a));
	for (int waits = 0; waits < 2; waits++) {
		CUDA(cudaMemcpyAsync(d_y, old, sizeof(old), cudaMemcpyHostToDevice, a));
		CUDA(cudaStreamSynchronize(a));
		CUDA(cuda_launch(set, 1, N, 0, a, d_y, d_x));
		CUDA(cudaEventRecord(e, a));
		if (waits)
			CUDA(cudaStreamWaitEvent(b, e, 0));
		CUDA(cudaMemcpyAsync(got, d_y, sizeof(got), cudaMemcpyDeviceToHost, b));
		CUDA(cudaStreamSynchronize(b));
		CHECK_ROW("another stream's work", got[5] == (waits ? x[5] : -1));
		CUDA(cudaStreamSynchronize(a));
	}
	got[5] = -2;
	CUDA(cudaMemcpyAsync(got, d_y, sizeof(got), cudaMemcpyDeviceToHost, a));
	CUDA(cudaEventRecord(e, a));
	CHECK_ROW("a download that nobody waited for", got[5] == -2);
	while (cudaEventQuery(e) == cudaErrorNotReady)
		;
	CHECK_ROW("a download after its event", got[5] == x[5]);
	memcpy(pinned, x, sizeof(x));
	CUDA(cudaMemcpyAsync(d_y, pinned, sizeof(x), cudaMemcpyHostToDevice, a));
	pinned[5] = -3;
	CUDA(cudaMemcpyAsync(got, d_y, sizeof(got), cudaMemcpyDeviceToHost, a));
	CUDA(cudaStreamSynchronize(a));
	CHECK_ROW("page-locked memory is written before its upload", got[5] == -3);
	CUDA(cudaEventDestroy(e));
	CUDA(cudaStreamDestroy(a));
	CUDA(cudaStreamDestroy(b));
	CUDA(cudaFreeHost(pinned));
	CUDA(cudaFree(d_x));
	CUDA(cudaFree(d_y));
}

int
main(int argc, char **argv)
{
	int only = argc > 1 ? atoi(argv[1]) : -1;

	if (only >= 0) {
		run(only);
		return check_done();
	}
	for (int fault = NONE + 1; fault < N_FAULTS; fault++)
		check_fault(fault);
	run(NONE);
	check_waits();
	return check_done();
}
