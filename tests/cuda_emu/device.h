/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device - what the kernels use of the device beside plain C++: launches, shared memory, wide loads, cp.async, ldmatrix, mma.sync, bf16.
 * nvcc compiles it to PTX; g++, with include/ of this folder, to the emulation.
 */
#ifndef SALT_CUDA_EMU_DEVICE_H
#define SALT_CUDA_EMU_DEVICE_H

#include <stdint.h>
#include <string.h>

#include <cuda_runtime.h>

#define WARP 32
#define ALL_LANES 0xffffffffu

/*
 * cuda_launch - kernel<<<grid, block, shared_bytes, stream>>>(args...), the one way in which kernels are launched.
 * CUDA_SHARED(type, name, n): an array of the block. CUDA_DYNAMIC_SHARED(name): the shared_bytes of the launch, aligned to 16.
 */
#ifdef CUDA_EMU
#include <tuple>

#define CUDA_SHARED(type, name, n) type *name = (type *)cuda_emu_shared(__FILE__, __LINE__, sizeof(type) * (size_t)(n))
#define CUDA_DYNAMIC_SHARED(name) char *name = (char *)cuda_emu_dynamic_shared()
#define CUDA_UNROLL

template <typename... P, typename... A> cudaError_t
cuda_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, A... args)
{
	using call = std::tuple<void (*)(P...), P...>;

	return cuda_emu_launch(grid, block, shared_bytes, stream, (const void *)kernel, new call(kernel, P(args)...), sizeof(call),
	    [](void *p) { std::apply([](auto *f, auto... a) { f(a...); }, *(call *)p); }, [](void *p) { delete (call *)p; });
}
#else
#define CUDA_SHARED(type, name, n) __shared__ type name[n]
#define CUDA_DYNAMIC_SHARED(name) extern __shared__ __align__(16) char name[]
#define CUDA_UNROLL _Pragma("unroll")

template <typename... P, typename... A> cudaError_t
cuda_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, A... args)
{
	kernel<<<grid, block, shared_bytes, stream>>>(P(args)...);
	return cudaGetLastError();
}
#endif

struct alignas(8) words2 {
	uint32_t w[2];
};
struct alignas(16) words4 {
	uint32_t w[4];
};

/* One load or store of 8 or 16 bytes. Addresses are aligned to the size. */
template <typename W> __device__ __forceinline__ W
load_words(const void *p)
{
#ifdef CUDA_EMU
	W w;

	cuda_emu_load(&w, p, sizeof(w));
	return w;
#else
	return *(const W *)p;
#endif
}

template <typename W> __device__ __forceinline__ void
store_words(void *p, const W &w)
{
#ifdef CUDA_EMU
	cuda_emu_store(p, &w, sizeof(w));
#else
	*(W *)p = w;
#endif
}

/* 16 bytes from global to shared memory; there after cp_wait in this thread, and after a barrier in the others. */
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

/* Waits until at most `groups` committed groups of this thread are under way. */
template <int groups> __device__ __forceinline__ void
cp_wait()
{
#ifdef CUDA_EMU
	cuda_emu_cp_wait(groups);
#else
	asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
#endif
}

/* Four 8 x 8 matrices of bf16; lane i gives row i % 8 of matrix i / 8, 16 bytes of shared memory. */
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

/* ---- bf16 ---- */

__host__ __device__ __forceinline__ uint32_t
bits_of(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof(u));
	return u;
}

__host__ __device__ __forceinline__ float
float_of(uint32_t u)
{
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

__host__ __device__ __forceinline__ float
widen(uint32_t half)
{
	return float_of(half << 16);
}

/* To nearest even; NaN stays NaN (tensor_f32_to_bf16). */
__host__ __device__ __forceinline__ uint32_t
narrow(float f)
{
	uint32_t u = bits_of(f);

	if ((u & 0x7fffffffu) > 0x7f800000u)
		return u >> 16 | 0x40;
	return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

__host__ __device__ __forceinline__ uint32_t
narrow2(float low, float high)
{
	return narrow(low) | narrow(high) << 16;
}

#endif
