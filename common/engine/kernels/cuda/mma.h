/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mma - what attention uses besides device.h: cp.async, ldmatrix, mma.sync; PTX under nvcc, emulated under
 * g++.
 */
#ifndef SALT_CUDA_MMA_H
#define SALT_CUDA_MMA_H

#include "engine/kernels/cuda/device.h"

/* Copies 16 bytes from global to shared memory; visible here after cp_wait, elsewhere after a barrier. */
__device__ __forceinline__ void
cp_async16(void *shared, const void *global)
{
#ifdef CUDA_EMU
	cuda_emu_cp_async(shared, global, 16);
#else
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((uint32_t)__cvta_generic_to_shared(shared)), "l"(global) : "memory");
#endif
}

__device__ __forceinline__ void
cp_commit()
{
#ifdef CUDA_EMU
	cuda_emu_cp_commit();
#else
	asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Waits until at most `groups` committed groups of this thread are pending. */
template <int groups> __device__ __forceinline__ void
cp_wait()
{
#ifdef CUDA_EMU
	cuda_emu_cp_wait(groups);
#else
	asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
#endif
}

/* Four 8 x 8 matrices of bf16; lane i passes the shared address of row i % 8 of matrix i / 8, 16 bytes. */
template <bool trans> __device__ __forceinline__ void
ldmatrix(uint32_t out[4], const void *row)
{
#ifdef CUDA_EMU
	cuda_emu_ldmatrix(out, row, trans);
#else
	uint32_t p = (uint32_t)__cvta_generic_to_shared(row);

	if (trans)
		asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
		    : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(p) : "memory");
	else
		asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
		    : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(p) : "memory");
#endif
}

/*
 * Rounds two numbers to bf16, to nearest even, low in the lower half. NaN stays NaN, but its bits may differ.
 */
__device__ __forceinline__ uint32_t
pack2(float low, float high)
{
#ifdef CUDA_EMU
	return narrow2(low, high);
#else
	uint32_t out;

	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
	return out;
#endif
}

/* c [16, 8] += a [16, 16] b [16, 8], bf16 operands, fp32 sums. */
__device__ __forceinline__ void
mma16816(float c[4], const uint32_t a[4], const uint32_t b[2])
{
#ifdef CUDA_EMU
	cuda_emu_mma(c, a, b);
#else
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
	    : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
	    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

#endif
