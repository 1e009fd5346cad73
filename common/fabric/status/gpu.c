/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/log/log.h"
#include "base/nvml/nvml.h"
#include "fabric/status/status_internal.h"

struct status__gpu {
	struct nvml *nvml;			/* NULL: not available; the reason was logged */
	atomic_flag said;			/* a failure of NVML was logged */
	struct status_metric *memory, *used, *utilization, *memory_utilization;
};

static void
unknown(struct status__gpu *g, int rc, const struct err_note *note)
{
	char why[1200], quoted[1300];

	if (!atomic_flag_test_and_set(&g->said))
		log_warn("gpu.unknown",
		    "why=%s hint=\"status and exporter show these figures as unknown; nothing else depends "
		    "on them\"",
		    log_quote(err_note_str(note, rc, why, sizeof(why)), quoted, sizeof(quoted)));
}

struct status__gpu *
status__gpu_new(struct status *st, const char *pci_bus_id, double memory_bytes)
{
	struct status__gpu *g = calloc(1, sizeof(*g));
	struct err_note note = {.name = ""};
	int rc;

	if (g == NULL)
		return NULL;
	atomic_flag_clear(&g->said);
	g->memory = status_register(st, STATUS_GAUGE, "gpu_memory_bytes", "bytes",
	    "memory of the GPU that this process computes on");
	g->used = status_register(st, STATUS_GAUGE, "gpu_memory_used_bytes", "bytes",
	    "memory of the GPU in use, by all processes");
	g->utilization = status_register(st, STATUS_GAUGE, "gpu_utilization_ratio", "",
	    "share of the last second or less in which a kernel of any process ran on the GPU");
	g->memory_utilization = status_register(st, STATUS_GAUGE, "gpu_memory_utilization_ratio", "",
	    "share of the last second or less in which GPU memory was read or written");
	status_set(g->memory, memory_bytes);
	if ((rc = nvml_open(&g->nvml, pci_bus_id, &note)) != 0)
		unknown(g, rc, &note);
	status__gpu_read(g);
	return g;
}

void
status__gpu_read(struct status__gpu *g)
{
	struct nvml_state state = {NAN, NAN, NAN, NAN};
	struct err_note note = {.name = ""};
	int rc;

	if (g->nvml != NULL && (rc = nvml_read(g->nvml, &state, &note)) != 0)
		unknown(g, rc, &note);
	status_set(g->used, state.used_bytes);
	status_set(g->utilization, state.utilization);
	status_set(g->memory_utilization, state.memory_utilization);
}

void
status__gpu_destroy(struct status__gpu **gpu)
{
	if (*gpu == NULL)
		return;
	nvml_close(&(*gpu)->nvml);
	free(*gpu);
	*gpu = NULL;
}
