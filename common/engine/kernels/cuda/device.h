/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device - what the kernels use of the device besides plain C++: launches, shared memory, wide loads, bf16.
 * nvcc compiles it for a device; g++ compiles it with the headers of tests/cuda_emu for the emulation.
 */
#ifndef SALT_CUDA_DEVICE_H
#define SALT_CUDA_DEVICE_H

#include <stdint.h>
#include <string.h>

#include <cuda_runtime.h>

#define WARP 32
#define ALL_LANES 0xffffffffu

/*
 * cuda_launch - kernel<<<grid, block, shared_bytes, stream>>>(args...); all kernels are launched through it.
 * CUDA_SHARED(type, name, n): an array in shared memory. CUDA_DYNAMIC(type, name): the block's shared_bytes
 * of dynamic shared memory, aligned to 16; one name has one type in all kernels of a file. CUDA_UNROLL before
 * a loop: arrays that it indexes stay in registers.
 */
#ifdef CUDA_EMU
#include <tuple>

#define CUDA_SHARED(type, name, n) type *name = (type *)cuda_emu_shared(__FILE__, __LINE__, sizeof(type) * (size_t)(n))
#define CUDA_DYNAMIC(type, name) type *name = (type *)cuda_emu_dynamic_shared()
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
#define CUDA_DYNAMIC(type, name) extern __shared__ __align__(16) type name[]
#define CUDA_UNROLL _Pragma("unroll")

template <typename... P, typename... A> cudaError_t
cuda_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, A... args)
{
	kernel<<<grid, block, shared_bytes, stream>>>(P(args)...);
	return cudaGetLastError();
}
#endif

struct words1 {
	uint32_t w[1];
};
struct words2 {
	alignas(8) uint32_t w[2];
};
struct words4 {
	alignas(16) uint32_t w[4];
};

/* One load or store of 4, 8 or 16 bytes. The address must be aligned to the size. */
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

/* Rounds to nearest even; NaN stays NaN (as tensor_f32_to_bf16). */
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
