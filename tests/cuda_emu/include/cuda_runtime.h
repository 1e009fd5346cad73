/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_runtime - the part of CUDA that our kernels use, for g++: the same .cu files run on the processor,
 * with checks. tests/cuda_emu/README.md describes what is emulated and what is not.
 */
#ifndef SALT_CUDA_EMU_RUNTIME_H
#define SALT_CUDA_EMU_RUNTIME_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>

#define CUDA_EMU 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct uint3 {
	unsigned x, y, z;
};

struct dim3 {
	unsigned x, y, z;
	dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

/* ---- in kernels ---- */

uint3 cuda_emu_thread();
uint3 cuda_emu_block();
dim3 cuda_emu_block_dim();
dim3 cuda_emu_grid_dim();
#define threadIdx cuda_emu_thread()
#define blockIdx cuda_emu_block()
#define blockDim cuda_emu_block_dim()
#define gridDim cuda_emu_grid_dim()

void __syncthreads();

enum cuda_emu_shuffle { CUDA_EMU_XOR, CUDA_EMU_DOWN, CUDA_EMU_INDEX };
void cuda_emu_shuffle(unsigned mask, enum cuda_emu_shuffle kind, int by, const void *in, void *out, size_t bytes);
unsigned __ballot_sync(unsigned mask, int predicate);

template <typename T> T
__shfl_xor_sync(unsigned mask, T v, int by)
{
	T out;

	cuda_emu_shuffle(mask, CUDA_EMU_XOR, by, &v, &out, sizeof(v));
	return out;
}

template <typename T> T
__shfl_down_sync(unsigned mask, T v, unsigned by)
{
	T out;

	cuda_emu_shuffle(mask, CUDA_EMU_DOWN, (int)by, &v, &out, sizeof(v));
	return out;
}

template <typename T> T
__shfl_sync(unsigned mask, T v, int lane)
{
	T out;

	cuda_emu_shuffle(mask, CUDA_EMU_INDEX, lane, &v, &out, sizeof(v));
	return out;
}

/* Replacements for the PTX in device.h. An access of `bytes` bytes must be aligned to `bytes`. */
void *cuda_emu_shared(const char *file, int line, size_t bytes);	/* the array of this line */
void *cuda_emu_dynamic_shared();
void cuda_emu_load(void *to, const void *from, size_t bytes);
void cuda_emu_store(void *to, const void *from, size_t bytes);
void cuda_emu_cp_async(void *shared, const void *global, size_t bytes);
void cuda_emu_cp_commit();
void cuda_emu_cp_wait(int groups);			/* waits until at most this many groups are pending */
void cuda_emu_ldmatrix(uint32_t out[4], const void *row, bool trans);
void cuda_emu_mma(float c[4], const uint32_t a[4], const uint32_t b[2]);	/* m16n8k16, bf16, fp32 sums; c += a b */

/* ---- host calls ---- */

enum cudaError_t {
	cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2, cudaErrorInsufficientDriver = 35, cudaErrorNoDevice = 100, cudaErrorNotReady = 600
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };
typedef struct cuda_emu_stream *cudaStream_t;
typedef struct cuda_emu_event *cudaEvent_t;

struct cudaDeviceProp {
	char name[256];
	size_t totalGlobalMem, sharedMemPerBlockOptin;
	int major, minor, multiProcessorCount;
};

const char *cudaGetErrorString(cudaError_t rc);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaDriverGetVersion(int *version);	/* 0: no driver */
/* CUDA_EMU_BUS of the environment, or "0000:65:00.0"; "process": a different id for each process */
cudaError_t cudaDeviceGetPCIBusId(char *id, int size, int device);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes);

cudaError_t cuda_emu_malloc(void **p, size_t bytes);
cudaError_t cuda_emu_malloc_host(void **p, size_t bytes);
template <typename T> cudaError_t
cudaMalloc(T **p, size_t bytes)
{
	return cuda_emu_malloc((void **)p, bytes);
}
template <typename T> cudaError_t
cudaMallocHost(T **p, size_t bytes)
{
	return cuda_emu_malloc_host((void **)p, bytes);
}
cudaError_t cudaFree(void *p);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t s);
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventQuery(cudaEvent_t e);
cudaError_t cudaEventSynchronize(cudaEvent_t e);

/* parameters: those of the kernel, which its threads may read. run: calls the kernel with them. */
cudaError_t cuda_emu_launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t s, const void *kernel, void *parameters,
    size_t parameter_bytes, void (*run)(void *), void (*drop)(void *));
cudaError_t cuda_emu_set_shared(const void *kernel, int bytes);
template <typename K> cudaError_t
cudaFuncSetAttribute(K *kernel, cudaFuncAttribute, int bytes)
{
	return cuda_emu_set_shared((const void *)kernel, bytes);
}

/* For libraries that work on device memory in a stream (the emulated cuBLASLt). */
void cuda_emu_enqueue(cudaStream_t s, std::function<void()> work);
void cuda_emu_check_range(const void *p, size_t bytes, bool write, const char *who);
/* The same for libraries that are loaded at run time; the emulated plug-in exports these functions. */
extern "C" void cuda_emu_library_call(cudaStream_t s, void (*run)(void *), void *arg);
extern "C" void cuda_emu_library_wait(cudaStream_t s);
extern "C" void cuda_emu_library_range(const void *p, size_t bytes, bool write, const char *who);

#endif
