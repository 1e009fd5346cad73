/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reduce - the sum of gradients over lanes and ranks, in buckets, while backward still runs.
 *
 * A bucket is a range of the flat array inside one rank's optimizer range. As soon as its gradients are
 * final, the sums of the earlier lanes are added to it, then it is summed over ranks along the tree of
 * shard.h: at distance 1, 2, 4, ... the rank whose bit differs from the owner's sends its sum to its partner,
 * which adds it. Every element is the sum of the same values in the same order, whatever the number of ranks
 * and the size of the buckets. Buckets are admitted from the end of the array downwards, in the same order on
 * all ranks, and keep their slot until they are finished: no bucket waits for a later one, and memory is
 * bounded. If the devices exchange without the host (comm_device_peers), the same sends and sums are queued
 * on them, bucket by bucket, also with any_order.
 *
 *   reduce_begin    before the backward pass that completes the sums
 *   reduce_ready    from its hooks, when a range has become final; reduce_poll: from its other hooks, since
 *                   MPI may move data only while it is called
 *   reduce_end      finishes the rest; waits
 */
#ifndef SALT_REDUCE_H
#define SALT_REDUCE_H

#include <stdbool.h>
#include <stdint.h>

#include "trainerd/comm.h"
#include "trainerd/shard.h"

struct kernels;
struct reduce;

#define REDUCE_BUCKET (INT64_C(1) << 20)	/* elements: 4 MiB */

struct reduce_options {
	int64_t bucket;			/* elements, rounded up to norm blocks; 0: REDUCE_BUCKET */
	bool any_order;			/* MPI chooses the order of the sum over ranks */
};

/* reduce_new - split: only read here. comm and kernels are borrowed. Returns 0 or ENOMEM. */
int reduce_new(struct reduce **r, const struct optim_split *split, struct comm *comm, struct kernels *kernels,
    const struct reduce_options *o);
void reduce_destroy(struct reduce **r);		/* takes NULL; not between begin and end */

/*
 * reduce_begin - grads: [n] in device memory, being filled by backward. below: n_below (at most 32) buffers
 * [n] that are added to it, in this order, before the other ranks' sums. All are borrowed; below is only
 * read.
 */
void reduce_begin(struct reduce *r, float *grads, float *const *below, int n_below);

/* reduce_ready - elements from `from` to the end are final in this rank's grads; `from` never grows. Never waits. */
void reduce_ready(struct reduce *r, int64_t from);
void reduce_poll(struct reduce *r);

struct reduce_stats {
	double inside_s;		/* spent in reduce_ready and reduce_poll: part of backward's time */
	double exposed_s;		/* spent in reduce_end */
	double early;			/* share of the elements that were finished (on devices: queued) before reduce_end, 0..1 */
};

/*
 * reduce_end - call it when all gradients are final: waits for the rest. Afterwards this rank's ranges of
 * grads are the sum over all lanes and ranks; the rest of grads is undefined. stats may be NULL.
 */
void reduce_end(struct reduce *r, struct reduce_stats *stats);

#endif
