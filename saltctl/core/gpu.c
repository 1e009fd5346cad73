/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu - prints the GPU of this machine as text or JSON: its properties from the backend, its present use and
 * the processes on it from NVML.
 */
#include <math.h>
#include <stdio.h>

#include "base/nvml/nvml.h"
#include "engine/kernels/kernels.h"
#include "saltctl/core/output.h"

#define PROCESSES_MAX 64

struct use {
	int rc;
	char why[1300];			/* reason, if rc is not 0 */
	struct nvml_state state;
	struct nvml_process processes[PROCESSES_MAX];
	size_t n;
};

static void
use_of(const struct kernels_device *gpu, struct use *u)
{
	struct err_note note = {.name = ""};
	struct nvml *nvml;

	*u = (struct use){.state = {NAN, NAN, NAN, NAN}};
	if ((u->rc = nvml_open(&nvml, gpu->pci_bus_id, &note)) == 0) {
		if ((u->rc = nvml_read(nvml, &u->state, &note)) == 0)
			u->rc = nvml_processes(nvml, u->processes, PROCESSES_MAX, &u->n, &note);
		nvml_close(&nvml);
	}
	if (u->rc != 0)
		err_note_str(&note, u->rc, u->why, sizeof(u->why));
}

void
ctl_line_gpu(const struct kernels_device *gpu)
{
	char a[32], b[32], list[512];
	struct use u;

	use_of(gpu, &u);
	ctl_line("GPU", "%s, %s, %s of memory, %s free", gpu->name, gpu->arch, ctl_bytes((double)gpu->memory_bytes, a),
	    ctl_bytes((double)gpu->free_bytes, b));
	if (u.rc != 0)
		ctl_line("GPU in use", "not known: %s", u.why);
	else
		ctl_line("GPU in use", "%.0f %% of the time, its memory %.0f %%; by %s",
		    100 * u.state.utilization, 100 * u.state.memory_utilization,
		    u.n > 0 ? ctl_printable((char *)(uintptr_t)nvml_list(u.processes, u.n, list, sizeof(list))) :
		    "no process that can be seen from here");
}

struct json *
ctl_gpu(const struct kernels_device *gpu)
{
	struct json *list = ctl_array();
	struct use u;

	use_of(gpu, &u);
	for (size_t i = 0; i < u.n; i++)
		ctl_push(list, ctl_record(CTL("pid", u.processes[i].pid), CTL("name", u.processes[i].name),
		    CTL("memory_bytes", u.processes[i].memory_bytes)));
	if (u.rc != 0)
		json_close(&list);
	return ctl_record(CTL("name", gpu->name), CTL("arch", gpu->arch), CTL("pci_bus_id", gpu->pci_bus_id),
	    CTL("memory_bytes", (int64_t)gpu->memory_bytes), CTL("free_bytes", (int64_t)gpu->free_bytes),
	    CTL("utilization", u.state.utilization),
	    CTL("memory_utilization", u.state.memory_utilization), CTL("processes", u.rc == 0 ? list : json_new_null()),
	    CTL("unknown_because", u.rc != 0 ? u.why : NULL));
}
