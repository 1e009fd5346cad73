/* SPDX-License-Identifier: Apache-2.0 */
#include "base/nvml/nvml.h"

#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_NAME "libnvidia-ml.so.1"
#define VARIABLE "SALT_NVML"
#define GIB 1073741824.0
#define PROCESSES 64			/* entries that NVML may fill in at first, and more than it needs then */
#define TRIES 3

/*
 * The functions of NVML that are used, as the NVML API Reference Guide documents them (device queries).
 * They return nvmlReturn_t; a device handle is a pointer to an opaque struct.
 */
typedef int nvml_return;
enum { NVML_SUCCESS = 0, NVML_NOT_SUPPORTED = 3, NVML_INSUFFICIENT_SIZE = 7 };
#define NVML_NOT_AVAILABLE UINT64_MAX	/* NVML_VALUE_NOT_AVAILABLE */

struct nvml_memory {			/* nvmlMemory_t */
	unsigned long long total, free, used;
};
struct nvml_rates {			/* nvmlUtilization_t: percent */
	unsigned gpu, memory;
};
struct nvml_info {			/* nvmlProcessInfo_t, of nvmlDeviceGetComputeRunningProcesses_v3 */
	unsigned pid;
	unsigned long long used_memory;
	unsigned gpu_instance, compute_instance;
};

static struct {
	nvml_return (*init)(void);
	const char *(*error_string)(nvml_return rc);
	nvml_return (*by_pci)(const char *pci_bus_id, void **device);
	nvml_return (*memory)(void *device, struct nvml_memory *memory);
	nvml_return (*rates)(void *device, struct nvml_rates *rates);
	nvml_return (*processes)(void *device, unsigned *n, struct nvml_info *list);
	/* NULL if the driver is older than MIG */
	nvml_return (*mig)(void *device, unsigned *current, unsigned *pending);
} api;

static const struct {
	const char *name;
	void *function;			/* a member of api */
	bool optional;
} functions[] = {
	{"nvmlInit_v2", &api.init, false},
	{"nvmlErrorString", &api.error_string, false},
	{"nvmlDeviceGetHandleByPciBusId_v2", &api.by_pci, false},
	{"nvmlDeviceGetMemoryInfo", &api.memory, false},
	{"nvmlDeviceGetUtilizationRates", &api.rates, false},
	{"nvmlDeviceGetComputeRunningProcesses_v3", &api.processes, false},
	{"nvmlDeviceGetMigMode", &api.mig, true},
};

struct nvml {
	void *device;
};

/* Opens the library; called once in a process. The library is never closed. */
static int
load(struct err_note *note)
{
	const char *named = getenv(VARIABLE), *file = named != NULL && named[0] != '\0' ? named : FILE_NAME;
	void *library;
	nvml_return rc;

	if (strcmp(file, "none") == 0)
		return err_expect(note, ERR_NOT_FOUND, "NVML", "the library " FILE_NAME,
		    VARIABLE "=none, which forbids it");
	if ((library = dlopen(file, RTLD_NOW | RTLD_LOCAL)) == NULL)
		return err_expect(note, ERR_NOT_FOUND, "NVML", "the library " FILE_NAME " of the NVIDIA driver",
		    "%.200s", dlerror());
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		void *symbol = dlsym(library, functions[i].name);

		if (symbol == NULL && !functions[i].optional)
			return err_expect(note, ERR_LIBRARY, "%s", "NVML of a driver for CUDA 12 or newer",
			    "a library without %s", file, functions[i].name);
		memcpy(functions[i].function, &symbol, sizeof(symbol));
	}
	if ((rc = api.init()) != NVML_SUCCESS)
		return err_expect(note, ERR_LIBRARY, "NVML", "NVML to initialize", "%s",
		    api.error_string(rc));
	return 0;
}

int
nvml_open(struct nvml **out, const char *pci_bus_id, struct err_note *note)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static bool tried;
	static int load_rc;
	static struct err_note load_note;
	unsigned mig = 0, pending;
	struct nvml *gpu;
	void *device;
	nvml_return rc;

	*out = NULL;
	pthread_mutex_lock(&lock);
	if (!tried)
		load_rc = load(&load_note);
	tried = true;
	pthread_mutex_unlock(&lock);
	if (load_rc != 0) {
		if (note != NULL)
			*note = load_note;
		return load_rc;
	}
	if ((rc = api.by_pci(pci_bus_id, &device)) != NVML_SUCCESS)
		return err_expect(note, ERR_NOT_FOUND, "NVML", "the GPU at PCI %s", "%s", pci_bus_id,
		    api.error_string(rc));
	if (api.mig != NULL && api.mig(device, &mig, &pending) == NVML_SUCCESS && mig != 0)
		return err_expect(note, ERR_UNSUPPORTED, "NVML", "a whole GPU at PCI %s", "a GPU in MIG mode",
		    pci_bus_id);
	if ((gpu = malloc(sizeof(*gpu))) == NULL)
		return ENOMEM;
	gpu->device = device;
	*out = gpu;
	return 0;
}

void
nvml_close(struct nvml **gpu)
{
	free(*gpu);
	*gpu = NULL;
}

/* Keeps the first failure: returns `before` if it is one, else sets the note. */
static int
failed(int before, const char *what, nvml_return rc, struct err_note *note)
{
	return before != 0 ? before : err_expect(note, ERR_LIBRARY, "NVML", "%s", "%s", what, api.error_string(rc));
}

int
nvml_read(const struct nvml *gpu, struct nvml_state *state, struct err_note *note)
{
	struct nvml_memory memory;
	struct nvml_rates rates;
	nvml_return rc;
	int result = 0;

	*state = (struct nvml_state){NAN, NAN, NAN, NAN};
	if ((rc = api.memory(gpu->device, &memory)) != NVML_SUCCESS) {
		result = failed(result, "the memory of the GPU", rc, note);
	} else {
		state->memory_bytes = (double)memory.total;
		state->used_bytes = (double)memory.used;
	}
	if ((rc = api.rates(gpu->device, &rates)) != NVML_SUCCESS) {
		result = failed(result, "the utilisation of the GPU", rc, note);
	} else {
		state->utilization = rates.gpu / 100.0;
		state->memory_utilization = rates.memory / 100.0;
	}
	return result;
}

/* Reads the name from /proc, because NVML needs root's rights to name other users' processes. */
static void
process_name(int64_t pid, char *name, size_t size)
{
	char path[48];
	FILE *in;

	snprintf(name, size, "?");
	snprintf(path, sizeof(path), "/proc/%lld/comm", (long long)pid);
	if ((in = fopen(path, "re")) == NULL)
		return;
	if (fgets(name, (int)size, in) != NULL)
		name[strcspn(name, "\n")] = '\0';
	fclose(in);
}

int
nvml_processes(const struct nvml *gpu, struct nvml_process *list, size_t max, size_t *n, struct err_note *note)
{
	struct nvml_info *all = NULL;
	unsigned room = PROCESSES, n_all;
	nvml_return rc;

	*n = 0;
	for (int tries = 0;; tries++, room = n_all + PROCESSES) {	/* n_all: the number needed */
		free(all);
		if ((all = calloc(room, sizeof(*all))) == NULL)
			return ENOMEM;
		n_all = room;
		rc = api.processes(gpu->device, &n_all, all);
		if (rc != NVML_INSUFFICIENT_SIZE || tries == TRIES)
			break;
	}
	if (rc != NVML_SUCCESS) {
		free(all);
		return failed(0, "the processes on the GPU", rc, note);
	}
	for (unsigned i = 0; i < n_all && *n < max; i++) {
		struct nvml_process *p = &list[*n];

		if (all[i].pid == (unsigned)getpid())
			continue;
		*p = (struct nvml_process){.pid = all[i].pid, .memory_bytes = (double)all[i].used_memory};
		if (all[i].used_memory == NVML_NOT_AVAILABLE)
			p->memory_bytes = NAN;
		process_name(p->pid, p->name, sizeof(p->name));
		(*n)++;
	}
	free(all);
	return 0;
}

const char *
nvml_list(const struct nvml_process *list, size_t n, char *buf, size_t size)
{
	size_t len = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < n && len < size; i++) {
		char gib[24] = "?";

		if (isfinite(list[i].memory_bytes))
			snprintf(gib, sizeof(gib), "%.2f", list[i].memory_bytes / GIB);
		len += (size_t)snprintf(buf + len, size - len, "%s%s (%lld) %s GiB", i > 0 ? ", " : "",
		    list[i].name, (long long)list[i].pid, gib);
	}
	return buf;
}

const char *
nvml_users(const char *pci_bus_id, char *buf, size_t size)
{
	struct nvml_process list[16];
	struct nvml *gpu;
	char users[200];
	size_t n = 0;

	buf[0] = '\0';
	if (nvml_open(&gpu, pci_bus_id, NULL) != 0)
		return buf;
	if (nvml_processes(gpu, list, 16, &n, NULL) == 0 && n > 0)
		snprintf(buf, size, ", shared with %s", nvml_list(list, n, users, sizeof(users)));
	nvml_close(&gpu);
	return buf;
}
