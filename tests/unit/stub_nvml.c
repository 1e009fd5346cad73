/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stub of NVML with two GPUs: 0000:17:00.0, and 0000:65:00.0, the device of tests/cuda_emu, which CUDA
 * would number 0. STUB_NVML selects a fault. STUB_NVML_PROCESSES lists processes with their memory, as
 * "4711:1073741824 4712:", for both GPUs; without a number the memory is not known; "self" is this process.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, LOST = 15 };

struct memory {
	unsigned long long total, free, used;
};
struct rates {
	unsigned gpu, memory;
};
struct info {
	unsigned pid;
	unsigned long long used;
	unsigned gpu_instance, compute_instance;
};

int nvmlInit_v2(void);
const char *nvmlErrorString(int rc);
int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **device);
int nvmlDeviceGetMemoryInfo(void *device, struct memory *m);
int nvmlDeviceGetUtilizationRates(void *device, struct rates *r);
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *n, struct info *list);
int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending);

static const struct gpu {
	struct memory memory;
	struct rates rates;
} gpus[2] = {{{80000000000, 79000000000, 1000000000}, {1, 2}}, {{4294967296, 1294967296, 3000000000}, {97, 41}}};

static int
wrong(const char *what)
{
	const char *is = getenv("STUB_NVML");

	return is != NULL && strcmp(is, what) == 0;
}

int
nvmlInit_v2(void)
{
	return wrong("init") ? LOST : SUCCESS;
}

const char *
nvmlErrorString(int rc)
{
	return rc == NOT_SUPPORTED ? "Not Supported" : rc == NOT_FOUND ? "Not Found" : rc == LOST ?
	    "GPU is lost" : "another error";
}

int
nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **device)
{
	int n = strcmp(id, "0000:17:00.0") == 0 ? 0 : strcmp(id, "0000:65:00.0") == 0 && !wrong("no_gpu") ? 1 : -1;

	if (n < 0)
		return NOT_FOUND;
	*device = (void *)(unsigned long)&gpus[n];
	return SUCCESS;
}

int
nvmlDeviceGetMemoryInfo(void *device, struct memory *m)
{
	*m = ((const struct gpu *)device)->memory;
	return wrong("memory") ? LOST : SUCCESS;
}

int
nvmlDeviceGetUtilizationRates(void *device, struct rates *r)
{
	*r = ((const struct gpu *)device)->rates;
	return wrong("rates") ? NOT_SUPPORTED : SUCCESS;
}

int
nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *n, struct info *list)
{
	const char *p = getenv("STUB_NVML_PROCESSES");
	unsigned room = *n;
	char *end;

	(void)device;
	if (wrong("processes"))
		return LOST;
	for (*n = 0; p != NULL && *p != '\0'; p = *end == ' ' ? end + 1 : end) {
		struct info one = {.used = ~0ull};

		if (strncmp(p, "self", 4) == 0) {
			one.pid = (unsigned)getpid();
			end = (char *)(unsigned long)p + 4;
		} else {
			one.pid = (unsigned)strtoul(p, &end, 10);
		}
		if (*end == ':' && end[1] >= '0' && end[1] <= '9')
			one.used = strtoull(end + 1, &end, 10);
		else
			end += *end == ':';
		if (*n < room)
			list[*n] = one;
		(*n)++;
	}
	return *n > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int
nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending)
{
	(void)device;
	*current = *pending = (unsigned)wrong("mig");
	return wrong("no_mig") ? NOT_SUPPORTED : SUCCESS;
}
