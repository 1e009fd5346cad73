/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nvml - memory and utilisation of an NVIDIA GPU, and the processes that compute on it, from NVML, the
 * management library of the driver. The library (libnvidia-ml.so.1) is opened at run time, and nothing is
 * linked with it. The environment variable SALT_NVML names another file; with "none" no library is opened.
 *
 * A GPU is found by its PCI bus id, because NVML numbers all GPUs of the host, and CUDA only those of
 * CUDA_VISIBLE_DEVICES, in its own order. Values that NVML cannot give are NaN, never 0. Any thread.
 */
#ifndef SALT_NVML_H
#define SALT_NVML_H

#include <stddef.h>
#include <stdint.h>

#include "base/err/err.h"

struct nvml;				/* one GPU */

struct nvml_state {
	/* of the whole GPU; used_bytes: by all processes, and reserved by the driver */
	double memory_bytes, used_bytes;
	/*
	 * 0..1: share of the time, in a period of up to a second that the driver chooses, in which a kernel
	 * ran, and in which memory was read or written
	 */
	double utilization, memory_utilization;
};

struct nvml_process {
	/* as the driver reports it: in a container other processes may be missing, or have the host's pid */
	int64_t pid;
	double memory_bytes;		/* NaN: unknown */
	char name[32];			/* of its program; "?": unknown */
};

/*
 * nvml_open - opens a GPU. @pci_bus_id as cudaDeviceGetPCIBusId writes it, "0000:65:00.0". Returns 0;
 * ERR_NOT_FOUND: NVML is not installed, or has no GPU with this id; ERR_LIBRARY: a call of NVML failed, or it
 * lacks a function; ERR_UNSUPPORTED: the GPU is divided (MIG), and NVML's figures are those of the whole;
 * ENOMEM. nvml_close takes NULL.
 */
int nvml_open(struct nvml **gpu, const char *pci_bus_id, struct err_note *note);
void nvml_close(struct nvml **gpu);

/*
 * nvml_read - reads the present state. Returns 0, or ERR_LIBRARY with a note about the first call that
 * failed. Values of failed calls are NaN.
 */
int nvml_read(const struct nvml *gpu, struct nvml_state *state, struct err_note *note);

/*
 * nvml_processes - lists at most `max` processes that compute on the GPU, without the calling one; *n is
 * their number. Returns 0, or ERR_LIBRARY or ENOMEM with *n 0.
 */
int nvml_processes(const struct nvml *gpu, struct nvml_process *list, size_t max, size_t *n, struct err_note *note);

/* nvml_list - writes "teacherd (4711) 3.10 GiB, python (4720) ? GiB" into buf, cut to size; returns buf. */
const char *nvml_list(const struct nvml_process *list, size_t n, char *buf, size_t size);

/*
 * nvml_users - writes ", shared with python (4711) 60.10 GiB" (nvml_list) into buf, to follow the name of a
 * GPU in messages about too little memory; "" if no other process uses it or NVML cannot tell. Returns buf.
 */
const char *nvml_users(const char *pci_bus_id, char *buf, size_t size);

#endif
