/* SPDX-License-Identifier: Apache-2.0 */
/*
 * context - the backend's table, its data in a kernels handle, memory, transfers and events.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/kernels/cuda/cuda.h"
extern "C" {
#include "base/err/err.h"
}

#define MIN_MAJOR 8			/* compute capability: bf16 in mma.sync, cp.async */

void
cuda__check(cudaError_t rc, const char *what)
{
	if (rc != cudaSuccess)
		log_fatal("kernels.cuda", "call=\"%s\" error=\"%s\"", what, cudaGetErrorString(rc));
}

/* ---- handle ---- */

/* CUDA's versions are numbers: 13020 is 13.2. */
static int
major_of(int version)
{
	return version / 1000;
}

static int
minor_of(int version)
{
	return version % 1000 / 10;
}

/* Selects device 0 of those that CUDA_VISIBLE_DEVICES leaves visible, for this thread. */
static int
device_of(struct cudaDeviceProp *prop, int *version, struct err_note *note)
{
	cudaError_t rc;
	int n = 0, driver = 0;

	if ((rc = cudaRuntimeGetVersion(version)) != cudaSuccess || (rc = cudaDriverGetVersion(&driver)) != cudaSuccess)
		return err_expect(note, ERR_LIBRARY, "backend cuda", "the versions of CUDA and its driver", "%s", cudaGetErrorString(rc));
	if (driver == 0)
		return err_expect(note, ERR_CONFIG, "backend cuda", "the NVIDIA driver (libcuda.so.1), for CUDA %d.%d or newer: install it, or take another "
		    "backend", "none", major_of(*version), minor_of(*version));
	rc = cudaGetDeviceCount(&n);
	if (rc == cudaErrorInsufficientDriver)
		return err_expect(note, ERR_CONFIG, "backend cuda", "an NVIDIA driver for CUDA %d.%d or newer: update it, or build the plug-in with an older "
		    "CUDA", "one for CUDA %d.%d", major_of(*version), minor_of(*version), major_of(driver), minor_of(driver));
	if (rc == cudaErrorNoDevice || (rc == cudaSuccess && n == 0))
		return err_expect(note, ERR_CONFIG, "backend cuda", "a GPU (CUDA_VISIBLE_DEVICES may hide it)", "none");
	if (rc != cudaSuccess || (rc = cudaSetDevice(0)) != cudaSuccess || (rc = cudaGetDeviceProperties(prop, 0)) != cudaSuccess)
		return err_expect(note, ERR_LIBRARY, "backend cuda", "device 0", "%s", cudaGetErrorString(rc));
	if (prop->major < MIN_MAJOR)
		return err_expect(note, ERR_CONFIG, "backend cuda", "a GPU of compute capability %d.0 or higher", "%.64s with %d.%d", MIN_MAJOR, prop->name,
		    prop->major, prop->minor);
	return 0;
}

int
cuda__device(struct kernels_device *device, struct err_note *note)
{
	struct cudaDeviceProp prop;
	size_t free_bytes = 0, total_bytes = 0;
	int version, rc = device_of(&prop, &version, note);
	cudaError_t error;

	if (rc != 0)
		return rc;
	if ((error = cudaMemGetInfo(&free_bytes, &total_bytes)) != cudaSuccess)
		return err_expect(note, ERR_LIBRARY, "backend cuda", "the memory of device 0", "%s", cudaGetErrorString(error));
	memset(device, 0, sizeof(*device));
	snprintf(device->name, sizeof(device->name), "%.63s", prop.name);
	snprintf(device->arch, sizeof(device->arch), "sm_%d%d", prop.major, prop.minor);
	if ((error = cudaDeviceGetPCIBusId(device->pci_bus_id, sizeof(device->pci_bus_id), 0)) != cudaSuccess)
		return err_expect(note, ERR_LIBRARY, "backend cuda", "the PCI bus id of device 0", "%s",
		    cudaGetErrorString(error));
	device->memory_bytes = total_bytes;
	device->free_bytes = free_bytes;
	return 0;
}

static int
cuda_open(struct kernels *k, const struct kernels_options *, struct err_note *note)
{
	struct cuda *own = (struct cuda *)calloc(1, sizeof(*own));
	struct cudaDeviceProp prop;
	cudaError_t error;
	int rc, version;

	if (own == NULL)
		return err_note_set(note, ENOMEM, "kernels");
	k->own = own;
	k->threads = 1;
	if ((rc = device_of(&prop, &version, note)) != 0)
		return rc;
	snprintf(k->describe, sizeof(k->describe), "CUDA %d.%d %.64s sm_%d%d %s", major_of(version), minor_of(version), prop.name, prop.major,
	    prop.minor, dtype_name(k->dtype));
	snprintf(k->device, sizeof(k->device), "sm_%d%d CUDA %d.%d cuBLASLt %zu", prop.major, prop.minor, major_of(version), minor_of(version),
	    cuda__matmul_version());
	if ((error = cudaStreamCreateWithFlags(&own->stream, cudaStreamNonBlocking)) != cudaSuccess)
		return err_expect(note, ERR_LIBRARY, "backend cuda", "a stream", "%s", cudaGetErrorString(error));
	return cuda__matmul_open(k, note);
}

static void
cuda_close(struct kernels *k)
{
	struct cuda *own = cuda_of(k);

	if (own == NULL)
		return;
	if (own->stream != NULL)
		cudaStreamSynchronize(own->stream);
	cuda__matmul_close(k);
	for (auto &slot : own->slots) {
		if (slot.host == NULL)
			continue;
		cudaFreeHost(slot.host);
		cudaFree(slot.device);
		cudaEventDestroy(slot.sent);
	}
	for (auto &room : own->rooms)
		cudaFree(room.p);
	cudaFreeHost(own->landing);
	if (own->stream != NULL)
		cudaStreamDestroy(own->stream);
	free(own);
	k->own = NULL;
}

/* ---- memory ---- */

static void *
cuda_alloc(struct kernels *k, size_t bytes)
{
	void *p;

	if (cudaMalloc(&p, bytes > 0 ? bytes : 1) != cudaSuccess) {
		(void)cudaGetLastError();		/* clears the error for the next launch */
		return NULL;
	}
	CUDA_CALL(cudaMemsetAsync(p, 0, bytes > 0 ? bytes : 1, cuda_of(k)->stream));
	return p;
}

static void
cuda_free(struct kernels *, void *p)
{
	CUDA_CALL(cudaFree(p));
}

static void *
cuda_host_alloc(struct kernels *, size_t bytes)
{
	void *p;

	if (cudaMallocHost(&p, bytes > 0 ? bytes : 1) != cudaSuccess) {
		(void)cudaGetLastError();
		return NULL;
	}
	return memset(p, 0, bytes);
}

static void
cuda_host_free(struct kernels *, void *p)
{
	CUDA_CALL(cudaFreeHost(p));
}

static void
cuda_zero(struct kernels *k, void *p, size_t bytes)
{
	if (bytes > 0)
		CUDA_CALL(cudaMemsetAsync(p, 0, bytes, cuda_of(k)->stream));
}

static void
cuda_sync(struct kernels *k)
{
	CUDA_CALL(cudaStreamSynchronize(cuda_of(k)->stream));
}

static void
cuda_transfer(struct kernels *k, enum kernels__transfer kind, void *to, const void *from, size_t bytes)
{
	static const cudaMemcpyKind kinds[] = {cudaMemcpyDeviceToDevice, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToHost};

	if (bytes > 0)
		CUDA_CALL(cudaMemcpyAsync(to, from, bytes, kinds[kind], cuda_of(k)->stream));
	if (kind == KERNELS__UPLOAD || kind == KERNELS__DOWNLOAD)	/* host memory is free, or filled */
		cuda_sync(k);
}

void
cuda__fetch(struct kernels *k, void *host, const void *device, size_t bytes)
{
	cuda_transfer(k, KERNELS__DOWNLOAD, host, device, bytes);
}

const void *
cuda__upload(struct kernels *k, enum cuda_slot slot, const void *host, size_t bytes)
{
	struct cuda *own = cuda_of(k);
	auto &s = own->slots[slot];

	if (host == NULL || bytes == 0)
		return NULL;
	if (bytes == s.used && memcmp(s.host, host, bytes) == 0)	/* every layer brings the same starts and frequencies */
		return s.device;
	if (s.host != NULL)
		CUDA_CALL(cudaEventSynchronize(s.sent));
	else
		CUDA_CALL(cudaEventCreateWithFlags(&s.sent, cudaEventDisableTiming));
	if (bytes > s.bytes) {
		if (s.host != NULL)
			CUDA_CALL(cudaFreeHost(s.host));
		CUDA_CALL(cudaFree(s.device));
		CUDA_CALL(cudaMallocHost(&s.host, bytes));
		CUDA_CALL(cudaMalloc(&s.device, bytes));
		s.bytes = bytes;
	}
	s.used = bytes;
	memcpy(s.host, host, bytes);
	CUDA_CALL(cudaMemcpyAsync(s.device, s.host, bytes, cudaMemcpyHostToDevice, own->stream));
	CUDA_CALL(cudaEventRecord(s.sent, own->stream));
	return s.device;
}

const void *
cuda__download(struct kernels *k, const void *device, size_t bytes)
{
	struct cuda *own = cuda_of(k);

	if (bytes > own->landing_bytes) {
		CUDA_CALL(cudaFreeHost(own->landing));
		own->landing = NULL;
		CUDA_CALL(cudaMallocHost(&own->landing, bytes));
		own->landing_bytes = bytes;
	}
	cuda__fetch(k, own->landing, device, bytes);
	return own->landing;
}

/* Ends the process: kernels cannot return an error. Memory of callers is checked (kernels_alloc). */
static void
no_memory(size_t bytes)
{
	size_t free_bytes = 0, total_bytes = 0;

	(void)cudaMemGetInfo(&free_bytes, &total_bytes);
	log_fatal("kernels.gpu_memory", "needed=%zu free=%zu of=%zu hint=\"a smaller trainer.micro_batch, trainer.recompute: true, fewer teacher.threads, "
	    "or no other process on this GPU\"", bytes, free_bytes, total_bytes);
}

void *
cuda__room(struct kernels *k, enum cuda_room room, size_t bytes)
{
	auto &r = cuda_of(k)->rooms[room];
	cudaError_t rc;

	if (bytes > r.bytes) {
		CUDA_CALL(cudaFree(r.p));
		r.p = NULL;
		if ((rc = cudaMalloc(&r.p, bytes)) == cudaErrorMemoryAllocation)
			no_memory(bytes);
		cuda__check(rc, "cudaMalloc");
		r.bytes = bytes;
	}
	return r.p;
}

/* ---- events ---- */

static int
cuda_event_new(struct kernels *, void **event)
{
	if (cudaEventCreateWithFlags((cudaEvent_t *)event, cudaEventDisableTiming) == cudaSuccess)
		return 0;
	(void)cudaGetLastError();
	return ENOMEM;
}

static void
cuda_event_destroy(struct kernels *, void *event)
{
	CUDA_CALL(cudaEventDestroy((cudaEvent_t)event));
}

static void
cuda_event_record(struct kernels *k, void *event)
{
	CUDA_CALL(cudaEventRecord((cudaEvent_t)event, cuda_of(k)->stream));
}

static bool
cuda_event_done(struct kernels *, void *event)
{
	cudaError_t rc = cudaEventQuery((cudaEvent_t)event);

	/* The manual says that "not ready" is not kept as an error; some versions kept it, and the next launch would find it. */
	if (rc == cudaErrorNotReady)
		(void)cudaGetLastError();
	else
		cuda__check(rc, "cudaEventQuery");
	return rc == cudaSuccess;
}

static void
cuda_event_wait(struct kernels *, void *event)
{
	CUDA_CALL(cudaEventSynchronize((cudaEvent_t)event));
}

static bool
cuda_bf16_units(char *units, size_t size)
{
	snprintf(units, size, "tensor cores");
	return true;
}

const struct kernels_ops kernels__cuda = {
    .bf16_units = cuda_bf16_units,
    .open = cuda_open,
    .close = cuda_close,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .host_alloc = cuda_host_alloc,
    .host_free = cuda_host_free,
    .zero = cuda_zero,
    .transfer = cuda_transfer,
    .sync = cuda_sync,
    .event_new = cuda_event_new,
    .event_destroy = cuda_event_destroy,
    .event_record = cuda_event_record,
    .event_done = cuda_event_done,
    .event_wait = cuda_event_wait,
    .matmul = cuda__matmul,
    .column_sums = cuda__column_sums,
    .embed = cuda__embed,
    .embed_bwd = cuda__embed_bwd,
    .norm = cuda__norm,
    .norm_bwd = cuda__norm_bwd,
    .rmsnorm_heads = cuda__rmsnorm_heads,
    .rmsnorm_heads_bwd = cuda__rmsnorm_heads_bwd,
    .pointwise = cuda__pointwise,
    .affine = cuda__affine,
    .add_scaled = cuda__add_scaled,
    .soft_cap = cuda__soft_cap,
    .rope = cuda__rope,
    .attention = cuda__attention,
    .attention_bwd = cuda__attention_bwd,
    .output_loss = cuda__output_loss,
    .output_label = cuda__output_label,
    .accumulate = cuda__accumulate,
    .norm_blocks = cuda__norm_blocks,
    .adamw = cuda__adamw,
    .muon = cuda__muon,
    .convert = cuda__convert,
    .peers = &cuda__peers,
};
