/* SPDX-License-Identifier: Apache-2.0 */
/*
 * comm_device - the transfers of comm.h for device memory (what kernels_alloc returned).
 *
 * Where the host reaches that memory (kernels_host_pointer) it is handed to MPI as it is. Elsewhere data go through
 * host buffers: the device finishes what was queued before the call, the data are downloaded, sent, and uploaded on
 * the other side. The buffers hold (max_ops + 2) * max_elements floats in all, whatever the size of the model.
 *
 * Calls are ordered with kernels calls of the same context: a transfer sees what was queued before it was started,
 * and kernels called after comm_test_device returned true see what was received.
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
 * exchange may be of any size and goes in pieces of max_elements floats, so all ranks must give the same. comm and
 * kernels must outlive it. 0 or ENOMEM.
 * comm_device_destroy - takes NULL; not while transfers are under way.
 */
int comm_device_new(struct comm_device **d, struct comm *comm, struct kernels *kernels, int max_ops, int64_t max_elements);
void comm_device_destroy(struct comm_device **d);

/*
 * comm_device_peers - opens the way between the ranks' devices that needs neither host nor MPI, NCCL (engine/kernels/peers.h). Collective. True: all
 * ranks have it, and comm_exchange_device takes it from now on; so may others. False: none has, and data go as above. Rank 0 logs which, and why;
 * a backend without devices is not mentioned.
 */
bool comm_device_peers(struct comm *comm, struct kernels *kernels);

/* comm_exchange_device - as comm_exchange. Later kernels calls see what was received. */
void comm_exchange_device(struct comm_device *d, int partner, void *send, size_t n_send, void *recv, size_t n_recv);

/*
 * The others are as their namesakes in comm.h. Transfers leave in the order in which they were started, on every
 * rank. Memory must not be touched, not even by kernels, until comm_test_device has returned true.
 */
void comm_start_send_device(struct comm_device *d, int op, int to, int tag, float *x, int64_t n);
void comm_start_recv_device(struct comm_device *d, int op, int from, int tag, float *x, int64_t n);
void comm_start_reduce_device(struct comm_device *d, int op, int root, float *x, int64_t n);
bool comm_test_device(struct comm_device *d, int op);
void comm_wait_any_device(struct comm_device *d);

#endif
