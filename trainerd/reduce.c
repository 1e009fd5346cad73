/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/reduce.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock/clock.h"
#include "base/log/log.h"
#include "base/mem/mem.h"
#include "engine/kernels/kernels.h"
#include "engine/kernels/peers.h"
#include "trainerd/comm_device.h"

#define SLOTS 8				/* buckets in progress at a time */
#define MAX_BELOW 32

struct bucket {
	int64_t begin, end;
	int owner;
};

/* A bucket in progress. */
struct slot {
	int64_t bucket;				/* its number; -1: the slot is free */
	int level;				/* the transfer is between ranks at distance 2^level */
	bool sending;				/* nothing follows the transfer */
	float *in;				/* device memory for what is received */
};

struct reduce {
	struct shard shard;
	struct comm *comm;
	struct comm_device *device;
	struct kernels *kernels;
	bool any_order;
	bool direct;				/* the devices exchange without the host: the transfers' queue keeps the order (peers.h) */
	struct bucket *buckets;			/* from the end of the array downwards */
	int64_t n_buckets;
	struct slot slots[SLOTS];
	float *grads;
	float *below[MAX_BELOW];
	int n_below;
	int64_t from;				/* gradients are final from here on */
	int64_t next;				/* bucket that is admitted next */
	int64_t n_done;				/* elements of buckets that are finished */
	double inside_s;
};

static int
later_first(const void *a, const void *b)
{
	const struct bucket *x = a, *y = b;

	return x->begin < y->begin ? 1 : x->begin > y->begin ? -1 : 0;
}

/* Divides every rank's ranges into buckets of at most `size` elements. */
static int
make_buckets(struct reduce *r, const struct optim_split *split, int64_t size)
{
	int n_ranks = comm_size(r->comm);
	int64_t n = 0;

	if ((r->buckets = mem_alloc((size_t)(r->shard.n / size + n_ranks * split->n_parts), sizeof(*r->buckets))) == NULL)
		return ENOMEM;
	for (int i = 0; i < split->n_parts * n_ranks; i++) {
		int64_t begin, end;

		optim_split_range(&split->parts[i / n_ranks], i % n_ranks, n_ranks, &begin, &end);
		for (int64_t at = begin; at < end; at += size)
			r->buckets[n++] = (struct bucket){.begin = at, .end = at + size < end ? at + size : end, .owner = i % n_ranks};
	}
	r->n_buckets = n;
	qsort(r->buckets, (size_t)n, sizeof(*r->buckets), later_first);
	return 0;
}

int
reduce_new(struct reduce **out, const struct optim_split *split, struct comm *comm, struct kernels *kernels,
    const struct reduce_options *o)
{
	struct reduce *r = calloc(1, sizeof(*r));
	int64_t size = o->bucket > 0 ? o->bucket : REDUCE_BUCKET;

	*out = NULL;
	if (r == NULL)
		return ENOMEM;
	shard_range(&r->shard, split, comm_rank(comm), comm_size(comm));
	r->comm = comm;
	r->kernels = kernels;
	r->any_order = o->any_order;
	size = (size + KERNELS_NORM_BLOCK - 1) / KERNELS_NORM_BLOCK * KERNELS_NORM_BLOCK;
	if (size > COMM_OP_MAX)
		size = COMM_OP_MAX;
	if (make_buckets(r, split, size) != 0)
		goto fail;
	if (size > split->n)
		size = split->n;
	if (comm_size(comm) > 1 && comm_device_new(&r->device, comm, kernels, SLOTS, size) != 0)
		goto fail;
	for (int i = 0; i < SLOTS; i++) {
		r->slots[i].bucket = -1;
		if (comm_size(comm) > 1 && (!r->any_order || i == 0) && i < r->n_buckets &&
		    (r->slots[i].in = kernels_alloc(kernels, (size_t)size * sizeof(float))) == NULL)
			goto fail;
	}
	*out = r;
	return 0;
fail:
	reduce_destroy(&r);
	return ENOMEM;
}

void
reduce_destroy(struct reduce **reduce)
{
	struct reduce *r = *reduce;

	if (r == NULL)
		return;
	for (int i = 0; i < SLOTS; i++)
		kernels_free(r->kernels, r->slots[i].in);
	comm_device_destroy(&r->device);
	free(r->buckets);
	free(r);
	*reduce = NULL;
}

/* Starts the next transfer of the slot's bucket, or ends the bucket. */
static void
slot_start(struct reduce *r, int i)
{
	struct slot *slot = &r->slots[i];
	const struct bucket *b = &r->buckets[slot->bucket];
	int rank = comm_rank(r->comm), partner = rank ^ 1 << slot->level, tag = (int)(slot->bucket % COMM_TAGS);
	float *x = r->grads + b->begin;

	if (r->any_order && comm_size(r->comm) > 1) {
		slot->sending = true;
		comm_start_reduce_device(r->device, i, b->owner, x, b->end - b->begin);
	} else if (slot->level == r->shard.n_levels) {
		slot->bucket = -1;
		r->n_done += b->end - b->begin;
	} else if ((rank ^ b->owner) >> slot->level & 1) {
		slot->sending = true;
		comm_start_send_device(r->device, i, partner, tag, x, b->end - b->begin);
	} else {
		comm_start_recv_device(r->device, i, partner, tag, slot->in, b->end - b->begin);
	}
}

/* Adds the sums of this rank's earlier lanes. */
static void
add_below(struct reduce *r, const struct bucket *b)
{
	for (int k = 0; k < r->n_below; k++)
		kernels_accumulate(r->kernels, r->grads + b->begin, r->below[k] + b->begin, b->end - b->begin);
}

static void
slot_admit(struct reduce *r, int i)
{
	add_below(r, &r->buckets[r->next]);
	r->slots[i].bucket = r->next++;
	r->slots[i].level = 0;
	r->slots[i].sending = false;
	slot_start(r, i);
}

/*
 * Queues all transfers and sums of the next bucket, one after another; the host waits for none. All ranks
 * queue the buckets, and the levels of a bucket, in the same order, so the first transfer that is not done is
 * at the front of the queues of both its ranks.
 */
static void
direct_bucket(struct reduce *r)
{
	const struct bucket *b = &r->buckets[r->next++];
	int rank = comm_rank(r->comm);
	bool sent = false;
	float *x = r->grads + b->begin, *in = r->slots[0].in;
	int64_t n = b->end - b->begin;
	size_t bytes = (size_t)n * sizeof(float);

	add_below(r, b);
	kernels_peers_begin(r->kernels);
	for (int level = 0; level < r->shard.n_levels && !sent; level++) {
		sent = (rank ^ b->owner) >> level & 1;
		if (sent) {
			kernels_peers_exchange(r->kernels, rank ^ 1 << level, x, bytes, NULL, 0);
		} else {
			kernels_peers_exchange(r->kernels, rank ^ 1 << level, NULL, 0, in, bytes);
			kernels_peers_add(r->kernels, x, in, n);
		}
	}
	r->n_done += n;
}

/*
 * Checks every slot once: after a finished transfer the next one starts, and free slots take the next ready
 * buckets. True if anything happened.
 */
static bool
reduce_turn(struct reduce *r)
{
	bool moved = false;

	if (r->direct) {
		while (r->next < r->n_buckets && r->buckets[r->next].begin >= r->from)
			direct_bucket(r);
		return false;
	}
	for (int i = 0; i < SLOTS; i++) {
		struct slot *slot = &r->slots[i];
		const struct bucket *b;

		while (slot->bucket < 0 && r->next < r->n_buckets && r->buckets[r->next].begin >= r->from) {
			slot_admit(r, i);
			moved = true;
		}
		if (slot->bucket < 0 || !comm_test_device(r->device, i))
			continue;
		moved = true;
		b = &r->buckets[slot->bucket];
		if (slot->sending) {
			slot->bucket = -1;
			r->n_done += b->end - b->begin;
			continue;
		}
		kernels_accumulate(r->kernels, r->grads + b->begin, slot->in, b->end - b->begin);
		slot->level++;
		slot_start(r, i);
	}
	return moved;
}

void
reduce_begin(struct reduce *r, float *grads, float *const *below, int n_below)
{
	if (n_below > MAX_BELOW)
		log_fatal("reduce.begin", "below=%d at_most=%d", n_below, MAX_BELOW);
	r->direct = kernels_peers_are_open(r->kernels);
	r->grads = grads;
	for (int k = 0; k < n_below; k++)
		r->below[k] = below[k];
	r->n_below = n_below;
	r->from = r->shard.n;
	r->next = r->n_done = 0;
	r->inside_s = 0;
}

void
reduce_poll(struct reduce *r)
{
	double start = clock_now_s();

	while (reduce_turn(r))
		;
	r->inside_s += clock_now_s() - start;
}

void
reduce_ready(struct reduce *r, int64_t from)
{
	if (from < r->from)
		r->from = from;
	reduce_poll(r);
}

void
reduce_end(struct reduce *r, struct reduce_stats *stats)
{
	double start = clock_now_s();
	int64_t early = r->n_done;

	r->from = 0;
	while (r->n_done < r->shard.n)
		if (!reduce_turn(r) && !r->direct)
			comm_wait_any_device(r->device);
	if (r->direct) {
		kernels_peers_end(r->kernels);
		kernels_sync(r->kernels);
	}
	if (stats != NULL)
		*stats = (struct reduce_stats){.inside_s = r->inside_s, .exposed_s = clock_now_s() - start,
		    .early = r->shard.n > 0 ? (double)early / (double)r->shard.n : 1};
}
