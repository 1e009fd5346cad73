/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host - the calls of the host: streams and events, memory and copies, the device. An operation of a stream runs when the host waits for
 * it, and never before.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <map>
#include <vector>

#include "cuda_emu_internal.h"

using namespace cuda_emu;

#define CAPACITY ((size_t)4 << 30)		/* of memory, where CUDA_EMU_MEMORY states no other number of bytes */
#define EMULATED 12000				/* version of CUDA, 12.0 */

struct operation {
	std::function<void()> work;
};

struct cuda_emu_stream {
	std::deque<operation> queue;
	uint64_t queued, done;
};

struct cuda_emu_event {
	cudaStream_t stream;
	uint64_t at;
};

static thread_local cudaError_t last_error __attribute__((tls_model("initial-exec")));	/* until cudaGetLastError */
static std::vector<cudaStream_t> streams;
static std::map<const void *, size_t> pinned;
static size_t device_used, device_live;
static int opened;				/* device memory is accessible: an operation runs */

static cudaError_t
failed(cudaError_t rc)
{
	return last_error = rc;
}

static size_t
capacity()
{
	const char *memory = getenv("CUDA_EMU_MEMORY");

	return memory != NULL ? strtoull(memory, NULL, 10) : CAPACITY;
}

/* ---- streams: an operation runs when the host waits for it, and never before ---- */

static void
open_device(bool open)
{
	if (open ? opened++ > 0 : --opened > 0)
		return;
	if (device_used > 0)
		mprotect((void *)device, (device_used + PAGE - 1) / PAGE * PAGE, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

static void
run_until(cudaStream_t s, uint64_t n)
{
	open_device(true);
	while (s->done < n) {
		struct operation op = std::move(s->queue.front());

		s->queue.pop_front();
		op.work();
		s->done++;
	}
	open_device(false);
}

static void
run_all()
{
	for (cudaStream_t s : streams)
		run_until(s, s->queued);
}

void
cuda_emu_enqueue(cudaStream_t s, std::function<void()> work)
{
	std::lock_guard<std::recursive_mutex> held(lock);

	if (s == NULL)
		report("work for the default stream", NULL);
	s->queue.push_back({std::move(work)});
	s->queued++;
}

void
cuda_emu_library_call(cudaStream_t s, void (*run)(void *), void *arg)
{
	cuda_emu_enqueue(s, [=] { run(arg); });
}

void
cuda_emu_library_wait(cudaStream_t s)
{
	cudaStreamSynchronize(s);
}

void
cuda_emu_library_range(const void *p, size_t bytes, bool write, const char *who)
{
	cuda_emu_check_range(p, bytes, write, who);
}

cudaError_t
cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t s)
{
	std::lock_guard<std::recursive_mutex> held(lock);
	bool up = kind == cudaMemcpyHostToDevice, down = kind == cudaMemcpyDeviceToHost, is_pinned = false;

	if ((up && on_device((uintptr_t)from)) || (down && on_device((uintptr_t)to)))
		report("a copy whose host side is device memory", up ? from : to);
	for (const auto &p : pinned)
		is_pinned |= (uintptr_t)from - (uintptr_t)p.first < p.second;
	if (up && !is_pinned) {				/* the driver keeps a copy of pageable memory */
		std::vector<char> kept((const char *)from, (const char *)from + bytes);

		cuda_emu_enqueue(s, [=] {
			cuda_emu_check_range(to, bytes, true, "a copy to memory that is not allocated on the device");
			memcpy(to, kept.data(), bytes);
		});
		return cudaSuccess;
	}
	cuda_emu_enqueue(s, [=] {
		if (!up)
			cuda_emu_check_range(from, bytes, false, "a copy from memory that is not allocated on the device");
		if (!down)
			cuda_emu_check_range(to, bytes, true, "a copy to memory that is not allocated on the device");
		memmove(to, from, bytes);
	});
	return cudaSuccess;
}

cudaError_t
cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s)
{
	cuda_emu_enqueue(s, [=] {
		cuda_emu_check_range(p, bytes, true, "memset of memory that is not allocated on the device");
		memset(p, value, bytes);
	});
	return cudaSuccess;
}

cudaError_t
cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
	std::lock_guard<std::recursive_mutex> held(lock);

	streams.push_back(*s = new cuda_emu_stream());
	return cudaSuccess;
}

cudaError_t
cudaStreamDestroy(cudaStream_t s)
{
	std::lock_guard<std::recursive_mutex> held(lock);

	run_until(s, s->queued);
	streams.erase(std::find(streams.begin(), streams.end(), s));
	delete s;
	return cudaSuccess;
}

cudaError_t
cudaStreamSynchronize(cudaStream_t s)
{
	std::lock_guard<std::recursive_mutex> held(lock);

	run_until(s, s->queued);
	return cudaSuccess;
}

cudaError_t
cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
	std::lock_guard<std::recursive_mutex> held(lock);
	cudaStream_t other = e->stream;
	uint64_t at = e->at;

	if (other != NULL && other != s)
		cuda_emu_enqueue(s, [=] { run_until(other, at); });
	return cudaSuccess;
}

cudaError_t
cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
	*e = new cuda_emu_event();
	return cudaSuccess;
}

cudaError_t
cudaEventDestroy(cudaEvent_t e)
{
	delete e;
	return cudaSuccess;
}

cudaError_t
cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
	std::lock_guard<std::recursive_mutex> held(lock);

	*e = {s, s->queued};
	return cudaSuccess;
}

/* One operation further, so that a loop of queries ends. */
cudaError_t
cudaEventQuery(cudaEvent_t e)
{
	std::lock_guard<std::recursive_mutex> held(lock);

	if (e->stream == NULL || e->stream->done >= e->at)
		return cudaSuccess;
	run_until(e->stream, e->stream->done + 1);
	return e->stream->done >= e->at ? cudaSuccess : failed(cudaErrorNotReady);
}

cudaError_t
cudaEventSynchronize(cudaEvent_t e)
{
	std::lock_guard<std::recursive_mutex> held(lock);

	if (e->stream != NULL)
		run_until(e->stream, std::max(e->at, e->stream->done));
	return cudaSuccess;
}

/* ---- memory, device ---- */

cudaError_t
cuda_emu_malloc(void **p, size_t bytes)
{
	std::lock_guard<std::recursive_mutex> held(lock);
	size_t granules = bytes / GRANULE + 2;

	if (device_live + bytes > capacity() || granules * GRANULE > DEVICE_BYTES - device_used)
		return failed(cudaErrorMemoryAllocation);
	*p = (void *)(device + device_used);
	std::fill_n(owner + device_used / GRANULE, granules, (uint32_t)allocations.size());
	allocations.push_back({(uintptr_t)*p, (uintptr_t)*p + bytes, true});
	device_used += granules * GRANULE;
	device_live += bytes;
	return cudaSuccess;
}

cudaError_t
cudaFree(void *p)
{
	std::lock_guard<std::recursive_mutex> held(lock);
	struct allocation *a;

	if (p == NULL)
		return cudaSuccess;
	run_all();
	a = on_device((uintptr_t)p) ? &allocations[owner[((uintptr_t)p - device) / GRANULE]] : NULL;
	if (a == NULL || a->begin != (uintptr_t)p || !a->live)
		report("cudaFree of what is no allocation", p);
	a->live = false;
	device_live -= a->end - a->begin;
	if (a->end / PAGE > a->begin / PAGE + 1)
		madvise((void *)((a->begin / PAGE + 1) * PAGE), (a->end / PAGE - a->begin / PAGE - 1) * PAGE, MADV_DONTNEED);
	return cudaSuccess;
}

cudaError_t
cuda_emu_malloc_host(void **p, size_t bytes)
{
	std::lock_guard<std::recursive_mutex> held(lock);

	if (posix_memalign(p, 256, bytes + 1) != 0)
		return failed(cudaErrorMemoryAllocation);
	pinned[*p] = bytes;
	return cudaSuccess;
}

cudaError_t
cudaFreeHost(void *p)
{
	std::lock_guard<std::recursive_mutex> held(lock);

	run_all();
	pinned.erase(p);
	free(p);
	return cudaSuccess;
}

const char *
cudaGetErrorString(cudaError_t rc)
{
	return rc == cudaSuccess ? "no error" : rc == cudaErrorMemoryAllocation ? "out of memory" : rc == cudaErrorNotReady ? "not ready" :
	    rc == cudaErrorNoDevice ? "no CUDA-capable device is detected" : "invalid argument";
}

/* CUDA_EMU_DEVICE: no_driver, old_driver, none, old, sm_80; else there is a device that suffices. */
static bool
machine(const char *word)
{
	const char *found = getenv("CUDA_EMU_DEVICE");

	return found != NULL && strcmp(found, word) == 0;
}

cudaError_t
cudaGetLastError()
{
	cudaError_t rc = last_error;

	last_error = cudaSuccess;
	return rc;
}

cudaError_t
cudaGetDeviceCount(int *n)
{
	*n = machine("none") ? 0 : 1;
	return machine("none") ? cudaErrorNoDevice : machine("no_driver") || machine("old_driver") ? cudaErrorInsufficientDriver : cudaSuccess;
}

cudaError_t
cudaSetDevice(int device_number)
{
	return device_number == 0 ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t
cudaGetDeviceProperties(struct cudaDeviceProp *p, int)
{
	*p = {};
	snprintf(p->name, sizeof(p->name), "CPU emulation");
	p->totalGlobalMem = capacity();
	p->sharedMemPerBlockOptin = SHARED_BYTES;
	p->major = machine("old") ? 7 : machine("sm_80") ? 8 : 9;
	p->multiProcessorCount = 1;
	return cudaSuccess;
}

cudaError_t
cudaDeviceGetPCIBusId(char *id, int bytes, int)
{
	const char *named = getenv("CUDA_EMU_BUS");

	if (named != NULL && strcmp(named, "process") == 0)
		snprintf(id, (size_t)bytes, "%08x:65:00.0", (unsigned)getpid());
	else
		snprintf(id, (size_t)bytes, "%s", named != NULL ? named : "0000:65:00.0");
	return cudaSuccess;
}

cudaError_t
cudaRuntimeGetVersion(int *version)
{
	*version = EMULATED;
	return cudaSuccess;
}

cudaError_t
cudaDriverGetVersion(int *version)
{
	*version = machine("no_driver") ? 0 : machine("old_driver") ? EMULATED - 1000 : EMULATED;
	return cudaSuccess;
}

cudaError_t
cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
	std::lock_guard<std::recursive_mutex> held(lock);

	*free_bytes = capacity() - device_live;
	*total_bytes = capacity();
	return cudaSuccess;
}
