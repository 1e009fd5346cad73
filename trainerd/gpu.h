/* SPDX-License-Identifier: Apache-2.0 */
/* gpu - the GPU of a rank, and other processes and ranks that compute on it. */
#ifndef SALT_TRAINERD_GPU_H
#define SALT_TRAINERD_GPU_H

#include "engine/kernels/kernels.h"
#include "trainerd/comm.h"

struct status;

/*
 * gpu_look - collective. Shows the GPU of this rank in its status (daemon_gpu), and warns if a lower rank has
 * the same one, because CUDA_VISIBLE_DEVICES was not set for each rank. No effect for ranks on CPUs.
 */
void gpu_look(struct comm *comm, struct status *status, const char *run_dir, const struct kernels *k);

#endif
