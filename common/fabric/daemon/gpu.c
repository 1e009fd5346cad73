/* SPDX-License-Identifier: Apache-2.0 */
/* gpu - the GPU that a daemon computes on: shows it in the status, and logs other processes that use it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log/log.h"
#include "base/nvml/nvml.h"
#include "fabric/daemon/daemon.h"

#define GIB 1073741824.0
#define PROCESSES_MAX 64

/*
 * Names the processes that are daemons of this fleet, from their announcements on this host. Returns their
 * number.
 */
static size_t
name_fleet(const char *run_dir, struct nvml_process *list, size_t n)
{
	struct status_announce mine, *all = NULL;
	size_t n_all = 0, found = 0;

	if (run_dir[0] == '\0' || status_announce_list(run_dir, &all, &n_all, NULL) != 0)
		return 0;
	status_announce_fill(&mine, "", "", NULL, NULL);
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < n_all; k++)
			if (all[k].pid == list[i].pid && strcmp(all[k].host, mine.host) == 0) {
				snprintf(list[i].name, sizeof(list[i].name), "%.31s", all[k].name);
				found++;
				break;
			}
	free(all);
	return found;
}

void
daemon_gpu(struct status *st, const char *run_dir, const char *name, const char *pci_bus_id,
    uint64_t memory_bytes, uint64_t free_bytes)
{
	struct nvml_process list[PROCESSES_MAX];
	char users[1024], quoted[1100];
	struct nvml *nvml;
	size_t n = 0;

	status_gpu(st, name, pci_bus_id, (double)memory_bytes);
	if (nvml_open(&nvml, pci_bus_id, NULL) != 0)
		return;			/* status_gpu has logged the reason */
	if (nvml_processes(nvml, list, PROCESSES_MAX, &n, NULL) == 0 && n > 0) {
		bool ours = name_fleet(run_dir, list, n) == n;
		const char *hint = ours ?
		    "all processes belong to this fleet" :
		    "GPU memory and time are shared; if unintended, stop the other process, or choose "
		    "another GPU with CUDA_VISIBLE_DEVICES";

		log_event(ours ? LOG_LEVEL_INFO : LOG_LEVEL_WARN, "gpu.shared",
		    "gpu=\"%s\" pci=%s with=%s free_gib=%.2f of_gib=%.2f hint=\"%s\"", name, pci_bus_id,
		    log_quote(nvml_list(list, n, users, sizeof(users)), quoted, sizeof(quoted)),
		    (double)free_bytes / GIB, (double)memory_bytes / GIB, hint);
	}
	nvml_close(&nvml);
}
