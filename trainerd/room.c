/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/room.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/log/log.h"
#include "base/nvml/nvml.h"

#define GIB 1073741824.0
#define SPARE_BYTES (0.25 * GIB)	/* for small things that fit_train leaves out: statistics, uploads, fragments */

/* Bytes that a step needs on the GPU; INFINITY if there is no session of this shape. */
static double
needed(const struct fit_shape *shape, int n_ranks)
{
	double items[FIT_ITEMS];

	return fit_train(shape, n_ranks, items, NULL) == 0 ? fit_sum(items) : INFINITY;
}

int
room_check(struct kernels *k, const struct fit_shape *shape, int n_ranks)
{
	struct kernels_device device;
	double bytes;

	if (!kernels_on_device(k, &device))
		return 0;
	bytes = needed(shape, n_ranks);
	if (bytes > (double)device.free_bytes)
		return ENOMEM;
	if (bytes + SPARE_BYTES > (double)device.free_bytes)
		log_warn("gpu.tight",
		    "needed_gib=%.2f free_gib=%.2f hint=\"little memory is left: use a smaller "
		    "trainer.micro_batch, trainer.recompute: true, or fewer processes on this GPU\"",
		    bytes / GIB, (double)device.free_bytes / GIB);
	return 0;
}

void
room_note(struct kernels *k, const struct fit_shape *shape, int n_ranks, struct err_note *note)
{
	char users[240],
	    advice[160] = "more ranks, a smaller model or a larger GPU, because no trainer.micro_batch fits";
	struct kernels_device device;
	struct fit_shape found;

	if (note == NULL || !kernels_on_device(k, &device))
		return;
	if (fit_find(shape, n_ranks, (double)device.free_bytes - SPARE_BYTES, &found))
		snprintf(advice, sizeof(advice), "trainer.micro_batch: %" PRIu64 "%s fits", found.micro_batch,
		    found.recompute && !shape->recompute ? " with trainer.recompute: true" : "");
	nvml_users(device.pci_bus_id, users, sizeof(users));
	err_expect(note, ENOMEM, "memory of the GPU", "%.2f GiB or more; %s%s", "%.2f GiB free of %.2f GiB on %s%s",
	    needed(shape, n_ranks) / GIB, advice, users[0] != '\0' ? "; or another GPU (CUDA_VISIBLE_DEVICES)" : "",
	    (double)device.free_bytes / GIB, (double)device.memory_bytes / GIB, device.name, users);
}
