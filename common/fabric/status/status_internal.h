/* SPDX-License-Identifier: Apache-2.0 */
/* status_internal - the GPU of a status (gpu.c). */
#ifndef SALT_STATUS_INTERNAL_H
#define SALT_STATUS_INTERNAL_H

#include "fabric/status/status.h"

struct status__gpu;

/*
 * status__gpu_new - registers the gauges; NULL: out of memory. status__gpu_read - sets them; any thread.
 * status__gpu_destroy takes NULL.
 */
struct status__gpu *status__gpu_new(struct status *st, const char *pci_bus_id, double memory_bytes);
void status__gpu_read(struct status__gpu *gpu);
void status__gpu_destroy(struct status__gpu **gpu);

#endif
