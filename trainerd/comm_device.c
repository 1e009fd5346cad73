/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/comm_device.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/kernels/kernels.h"
#include "engine/kernels/peers.h"

/* An op waits first for the device, until the work that was queued before it is done, then for MPI. */
enum op_kind { OP_NONE, OP_SEND, OP_RECV, OP_REDUCE };

struct op {
	enum op_kind kind;			/* OP_NONE: not started, or its end was reported */
	bool on_device;				/* in the queue: not yet given to MPI */
	int peer, tag;				/* peer: the root of a reduction */
	float *x;
	int64_t n;
	float *stage;				/* [max_elements]; NULL: the host reaches device memory, no staging */
	struct kernels_event *event;
};

struct comm_device {
	struct comm *comm;
	struct kernels *kernels;
	int max_ops;
	int64_t max_elements;
	float *stages;				/* host memory of all ops, and two pieces for an exchange; NULL: no staging */
	struct op ops[COMM_OPS];
	/* Ops that the device is still busy with, oldest first: collectives must start in one order on all ranks. */
	int queue[COMM_OPS];
	int first, n_queued;
};

int
comm_device_new(struct comm_device **out, struct comm *comm, struct kernels *kernels, int max_ops, int64_t max_elements)
{
	struct comm_device *d = calloc(1, sizeof(*d));
	void *probe = kernels_alloc(kernels, 1);
	bool direct = kernels_host_pointer(kernels, probe) != NULL;

	kernels_free(kernels, probe);
	*out = NULL;
	if (d == NULL)
		return ENOMEM;
	d->comm = comm;
	d->kernels = kernels;
	if (probe == NULL)
		goto fail;
	d->max_ops = max_ops;
	d->max_elements = max_elements;
	if (!direct && (d->stages = kernels_host_alloc(kernels, ((size_t)max_ops + 2) * (size_t)max_elements * sizeof(float))) == NULL)
		goto fail;
	for (int i = 0; i < max_ops; i++) {
		if ((d->ops[i].event = kernels_event_new(kernels)) == NULL)
			goto fail;
		d->ops[i].stage = direct ? NULL : d->stages + i * max_elements;
	}
	*out = d;
	return 0;
fail:
	comm_device_destroy(&d);
	return ENOMEM;
}

void
comm_device_destroy(struct comm_device **device)
{
	struct comm_device *d = *device;

	if (d == NULL)
		return;
	for (int i = 0; i < d->max_ops; i++)
		kernels_event_destroy(d->kernels, &d->ops[i].event);
	kernels_host_free(d->kernels, d->stages);
	free(d);
	*device = NULL;
}

static size_t
piece(size_t n, size_t at, size_t limit)
{
	return n <= at ? 0 : n - at < limit ? n - at : limit;
}

void
comm_exchange_device(struct comm_device *d, int partner, void *send, size_t n_send, void *recv, size_t n_recv)
{
	size_t limit = (size_t)d->max_elements * sizeof(float);
	bool direct = d->stages == NULL;
	char *from = direct ? kernels_host_pointer(d->kernels, send) : (char *)(d->stages + d->max_ops * d->max_elements);
	char *to = direct ? kernels_host_pointer(d->kernels, recv) : from + limit;

	if (kernels_peers_are_open(d->kernels)) {
		kernels_peers_begin(d->kernels);
		kernels_peers_exchange(d->kernels, partner, send, n_send, recv, n_recv);
		kernels_peers_end(d->kernels);
		return;
	}
	if (direct)
		kernels_sync(d->kernels);
	for (size_t at = 0; at < n_send || at < n_recv; at += limit) {
		size_t out = piece(n_send, at, limit), in = piece(n_recv, at, limit), skip = direct ? at : 0;

		if (!direct && out > 0)
			kernels_download(d->kernels, from, (char *)send + at, out);
		comm_exchange(d->comm, partner, from + skip, out, to + skip, in);
		if (!direct && in > 0)
			kernels_upload(d->kernels, (char *)recv + at, to, in);
	}
}

/* Starts an op in MPI, after the device has finished the work queued before it. */
static void
op_move(struct comm_device *d, int i)
{
	struct op *op = &d->ops[i];
	float *host = op->stage != NULL ? op->stage : kernels_host_pointer(d->kernels, op->x);

	op->on_device = false;
	if (op->kind == OP_SEND)
		comm_start_send(d->comm, i, op->peer, op->tag, host, op->n);
	else if (op->kind == OP_RECV)
		comm_start_recv(d->comm, i, op->peer, op->tag, host, op->n);
	else
		comm_start_reduce(d->comm, i, op->peer, host, op->n);
}

/* Starts in MPI the ops for which the device has finished. */
static void
queue_turn(struct comm_device *d)
{
	while (d->n_queued > 0 && kernels_event_done(d->kernels, d->ops[d->queue[d->first]].event)) {
		op_move(d, d->queue[d->first]);
		d->first = (d->first + 1) % COMM_OPS;
		d->n_queued--;
	}
}

static void
op_start(struct comm_device *d, int i, enum op_kind kind, int peer, int tag, float *x, int64_t n)
{
	struct op *op = &d->ops[i];

	op->kind = kind;
	op->on_device = true;
	op->peer = peer;
	op->tag = tag;
	op->x = x;
	op->n = n;
	if (op->stage != NULL && kind != OP_RECV)
		kernels_download_start(d->kernels, op->stage, x, (size_t)n * sizeof(float));
	kernels_event_record(d->kernels, op->event);
	d->queue[(d->first + d->n_queued++) % COMM_OPS] = i;
	queue_turn(d);
}

void
comm_start_send_device(struct comm_device *d, int op, int to, int tag, float *x, int64_t n)
{
	op_start(d, op, OP_SEND, to, tag, x, n);
}

void
comm_start_recv_device(struct comm_device *d, int op, int from, int tag, float *x, int64_t n)
{
	op_start(d, op, OP_RECV, from, tag, x, n);
}

void
comm_start_reduce_device(struct comm_device *d, int op, int root, float *x, int64_t n)
{
	op_start(d, op, OP_REDUCE, root, 0, x, n);
}

bool
comm_test_device(struct comm_device *d, int i)
{
	struct op *op = &d->ops[i];
	bool filled = op->kind == OP_RECV || (op->kind == OP_REDUCE && op->peer == comm_rank(d->comm));

	queue_turn(d);
	if (op->on_device || !comm_test(d->comm, i))
		return false;
	if (op->kind != OP_NONE && op->stage != NULL && filled)
		kernels_upload(d->kernels, op->x, op->stage, (size_t)op->n * sizeof(float));
	op->kind = OP_NONE;
	return true;
}

void
comm_wait_any_device(struct comm_device *d)
{
	if (d->n_queued > 0) {
		kernels_event_wait(d->kernels, d->ops[d->queue[d->first]].event);
		queue_turn(d);
	} else {
		comm_wait_any(d->comm);
	}
}
