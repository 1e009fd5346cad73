/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/gpu.h"

#include <stdio.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/log/log.h"
#include "fabric/daemon/daemon.h"

struct place {
	char host[64], pci_bus_id[32];		/* pci_bus_id "": a CPU */
};

static bool
same(const struct place *a, const struct place *b)
{
	return a->pci_bus_id[0] != '\0' && strcmp(a->pci_bus_id, b->pci_bus_id) == 0 && strcmp(a->host, b->host) == 0;
}

void
gpu_look(struct comm *comm, struct status *status, const char *run_dir, const struct kernels *k)
{
	int first = -1;
	struct kernels_device gpu;
	struct place mine, other;

	memset(&mine, 0, sizeof(mine));
	gethostname(mine.host, sizeof(mine.host) - 1);
	if (kernels_on_device(k, &gpu)) {
		snprintf(mine.pci_bus_id, sizeof(mine.pci_bus_id), "%s", gpu.pci_bus_id);
		daemon_gpu(status, run_dir, gpu.name, gpu.pci_bus_id, gpu.memory_bytes, gpu.free_bytes);
	}
	for (int i = 0; i < comm_size(comm); i++) {
		other = mine;
		comm_bcast(comm, i, &other, sizeof(other));
		if (i < comm_rank(comm) && first < 0 && same(&mine, &other))
			first = i;
	}
	if (first >= 0)
		log_warn("gpu.ranks",
		    "pci=%s also_of_rank=%d hint=\"one GPU serves both ranks, which share its time and "
		    "memory: give each "
		    "rank its own by CUDA_VISIBLE_DEVICES, or start fewer ranks; losses are the same\"",
		    mine.pci_bus_id, first);
}
