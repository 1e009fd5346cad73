/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/fit.h"

#include <errno.h>
#include <stdio.h>

#include "base/log/log.h"
#include "base/nvml/nvml.h"
#include "engine/kernels/kernels.h"
#include "engine/model/model.h"

#define GIB 1073741824.0
#define KERNELS_BYTES (UINT64_C(1) << 30)	/* what kernels may take while they run */

uint64_t
fit_bytes(const struct model_config *cfg, int64_t n_params, enum dtype dtype, const struct step_options *o, int n_ranks)
{
	const struct model_session_options so = {.max_batch = o->micro_batch, .max_tokens = o->context, .training = true, .recompute = o->recompute};
	uint64_t n = (uint64_t)n_params, share = (n + (uint64_t)n_ranks - 1) / (uint64_t)n_ranks, trees = 1;
	size_t activations;

	if (model_session_plan(cfg, dtype, &so, &activations, NULL) != 0)
		return UINT64_MAX;
	for (int64_t lanes = o->lanes / n_ranks; o->deterministic && lanes > 1; lanes /= 2)
		trees++;
	return (uint64_t)activations + n * dtype_size(dtype) + (dtype == DTYPE_F32 ? 0 : share * sizeof(float)) +	/* weights, masters */
	    2 * share * sizeof(float) + trees * n * sizeof(float);						/* moments, gradients */
}

bool
fit_find(const struct model_config *cfg, int64_t n_params, enum dtype dtype, const struct step_options *o, int n_ranks, uint64_t bytes,
    struct step_options *found)
{
	struct step_options try = *o;

	for (;; try.recompute = true) {
		for (try.micro_batch = o->micro_batch; try.micro_batch > 0; try.micro_batch--) {
			if (o->batch / o->lanes % try.micro_batch != 0 || fit_bytes(cfg, n_params, dtype, &try, n_ranks) > bytes)
				continue;
			*found = try;
			return true;
		}
		if (try.recompute)
			return false;
	}
}

int
fit_check(struct kernels *k, const struct model_config *cfg, int64_t n_params, const struct step_options *o,
    int n_ranks)
{
	uint64_t needed = fit_bytes(cfg, n_params, kernels_dtype(k), o, n_ranks);
	struct kernels_device device;

	if (!kernels_on_device(k, &device))
		return 0;
	if (needed > device.free_bytes)
		return ENOMEM;
	if (needed + KERNELS_BYTES > device.free_bytes)
		log_warn("gpu.tight", "needed_gib=%.2f free_gib=%.2f hint=\"kernels take up to 1 GiB more while they run: a smaller "
		    "trainer.micro_batch, trainer.recompute: true, or fewer processes on this GPU\"",
		    (double)needed / GIB,
		    (double)device.free_bytes / GIB);
	return 0;
}

void
fit_note(struct kernels *k, const struct model_config *cfg, int64_t n_params, const struct step_options *o, int n_ranks, struct err_note *note)
{
	enum dtype dtype = kernels_dtype(k);
	struct kernels_device device;
	struct step_options found;
	char users[240], advice[160] = "more ranks, a smaller model or a larger GPU, since no trainer.micro_batch fits";

	if (note == NULL || !kernels_on_device(k, &device))
		return;
	if (device.free_bytes > KERNELS_BYTES && fit_find(cfg, n_params, dtype, o, n_ranks, device.free_bytes - KERNELS_BYTES, &found))
		snprintf(advice, sizeof(advice), "trainer.micro_batch: %lld%s fits and leaves 1 GiB for kernels", (long long)found.micro_batch,
		    found.recompute && !o->recompute ? " with trainer.recompute: true" : "");
	nvml_users(device.pci_bus_id, users, sizeof(users));
	err_expect(note, ENOMEM, "memory of the GPU", "%.2f GiB or more; %s%s", "%.2f GiB free of %.2f GiB on %s%s",
	    (double)fit_bytes(cfg, n_params, dtype, o, n_ranks) / GIB, advice, users[0] != '\0' ?
	    "; or another GPU (CUDA_VISIBLE_DEVICES)" : "",
	    (double)device.free_bytes / GIB, (double)device.memory_bytes / GIB,
	    device.name, users);
}
