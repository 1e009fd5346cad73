/* SPDX-License-Identifier: Apache-2.0 */
/*
 * comm_device - the transfers of comm.h for device memory (what kernels_alloc returned).
 *
 * If the host can access that memory (kernels_host_pointer), it is passed to MPI directly. Otherwise data go
 * through host buffers: the device finishes what was queued before the call, the data are downloaded, sent,
 * and uploaded on the other side. The buffers hold (max_ops + 2) * max_elements floats in all, whatever the
 * size of the model.
 *
 * Calls are ordered with kernels calls of the same kernels handle: a transfer includes the effects of work
 * that was queued before it was started, and kernels called after comm_test_device returned true use what was
 * received.
 */
#ifndef SALT_COMM_DEVICE_H
#define SALT_COMM_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trainerd/comm.h"

struct kernels;
struct comm_device;

/*
 * comm_device_new - for transfers 0 .. max_ops - 1 (at most COMM_OPS) of at most max_elements floats each; an
 * exchange may be of any size and goes in pieces of max_elements floats, so all ranks must give the same.
 * comm and kernels must outlive it. 0 or ENOMEM.
 * comm_device_destroy - takes NULL; not while transfers are in progress.
 */
int comm_device_new(struct comm_device **d, struct comm *comm, struct kernels *kernels, int max_ops, int64_t max_elements);
void comm_device_destroy(struct comm_device **d);

/*
 * comm_device_peers - opens direct transfers between the ranks' devices, without host and MPI: NCCL
 * (engine/kernels/peers.h). Collective. True: all ranks have them, and comm_exchange_device uses them from
 * now on; so may others. False: no rank has them, and data go as above. Rank 0 logs the choice and its
 * reason, but not for a backend without devices.
 */
bool comm_device_peers(struct comm *comm, struct kernels *kernels);

/* comm_exchange_device - as comm_exchange. Later kernels calls use what was received. */
void comm_exchange_device(struct comm_device *d, int partner, void *send, size_t n_send, void *recv, size_t n_recv);

/*
 * The others correspond to the functions of comm.h. Transfers go to MPI in the order in which they were
 * started, on every rank. Memory must not be touched, not even by kernels, until comm_test_device has
 * returned true.
 */
void comm_start_send_device(struct comm_device *d, int op, int to, int tag, float *x, int64_t n);
void comm_start_recv_device(struct comm_device *d, int op, int from, int tag, float *x, int64_t n);
void comm_start_reduce_device(struct comm_device *d, int op, int root, float *x, int64_t n);
bool comm_test_device(struct comm_device *d, int op);
void comm_wait_any_device(struct comm_device *d);

#endif
