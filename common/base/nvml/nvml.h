/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nvml - an NVIDIA GPU as NVML, the management library of its driver, sees it: memory, utilisation, and the
 * processes that compute on it. The library (libnvidia-ml.so.1) is opened at run time: nothing is linked with
 * it. SALT_NVML names another file; none forbids any.
 *
 * A GPU is found by its PCI bus id: NVML numbers all GPUs of the host, CUDA only those that
 * CUDA_VISIBLE_DEVICES leaves, in an order of its own. What NVML cannot say is NaN, never 0. Any thread.
 */
#ifndef SALT_NVML_H
#define SALT_NVML_H

#include <stddef.h>
#include <stdint.h>

#include "base/err/err.h"

struct nvml;				/* one GPU */

struct nvml_state {
	/* of the whole GPU; used: by all processes, and reserved by the driver */
	double memory_bytes, used_bytes;
	/*
	 * 0..1: share of the time, in a period of up to a second that the driver chooses, in which a kernel
	 * ran, and in which memory was read or written
	 */
	double utilization, memory_utilization;
};

struct nvml_process {
	/* as the driver counts: in a container other processes may be missing, or have the host's number */
	int64_t pid;
	double memory_bytes;		/* NaN: not known */
	char name[32];			/* of its program; "?" */
};

/*
 * nvml_open - @pci_bus_id as cudaDeviceGetPCIBusId writes it, "0000:65:00.0". Returns 0; ERR_NOT_FOUND: NVML
 * is not installed, or has no GPU with this id; ERR_LIBRARY: a call of NVML failed, or a function is missing
 * in it; ERR_UNSUPPORTED: the GPU is divided (MIG), and NVML's figures are those of the whole GPU; ENOMEM.
 * nvml_close takes NULL.
 */
int nvml_open(struct nvml **gpu, const char *pci_bus_id, struct err_note *note);
void nvml_close(struct nvml **gpu);

/*
 * nvml_read - the state now. 0, or ERR_LIBRARY with the note of the first call that failed: what it would
 * have said is NaN.
 */
int nvml_read(const struct nvml *gpu, struct nvml_state *state, struct err_note *note);

/*
 * nvml_processes - the first `max` processes that compute on the GPU, this one left out, and *n, how many. 0
 * or ERR_LIBRARY (*n is 0).
 */
int nvml_processes(const struct nvml *gpu, struct nvml_process *list, size_t max, size_t *n, struct err_note *note);

/* nvml_list - "teacherd (4711) 3.10 GiB, python (4720) ? GiB" into buf, cut to size; returns buf. */
const char *nvml_list(const struct nvml_process *list, size_t n, char *buf, size_t size);

/*
 * nvml_users - for messages about too little memory, what follows the name of a GPU: ", shared with python
 * (4711) 60.10 GiB" (nvml_list), or "" where no other process is there or NVML does not know. Returns buf.
 */
const char *nvml_users(const char *pci_bus_id, char *buf, size_t size);

#endif
