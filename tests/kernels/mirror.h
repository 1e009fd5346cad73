/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mirror - kernels handles of the CUDA kernels (common/engine/kernels/cuda) for tests that keep their
 * operands in host memory: each call copies its operands to the device and back.
 */
#ifndef SALT_TESTS_KERNELS_MIRROR_H
#define SALT_TESTS_KERNELS_MIRROR_H

#include "engine/kernels/kernels_internal.h"

/*
 * mirror_new - makes a kernels handle; ends the process if there is no device. Free it with kernels_destroy.
 * Compiled with MIRROR_PLUGIN, the kernels are those of the plug-in that the program loads
 * (SALT_CUDA_PLUGIN), on a device; else those that are linked to the program, on the emulation.
 */
struct kernels *mirror_new(enum dtype dtype);

#endif
