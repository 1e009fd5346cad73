/*
 * reduce - gradients summed over lanes and ranks in buckets, while backward still runs.
 *
 * A bucket is a range of the flat array, in whole norm blocks, inside one rank's shard. When backward is past it, what the lanes before
 * left in the tree's buffers is added, then the bucket climbs the tree of shard.h towards its owner: at distance 1, 2, 4, ... a rank
 * whose bit differs from the owner's sends what it has and is through, the other one adds. Every element meets the same sums in the same order as in
 * shard_reduce: the same bits. Buckets are admitted from the end of the array downwards, in one order on all ranks, and hold
 * their place until they are through: so none waits for a later one, and the memory is a few buckets.
 *
 *   reduce_begin    before the backward that completes the sums
 *   reduce_ready    from its hooks, as ranges become final; reduce_poll: from hooks where none does (MPI moves only in its calls)
 *   reduce_end      the rest, and waits
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
	bool any_order;			/* MPI sums over ranks as it likes */
};

/* reduce_new - shard: of this rank, copied. comm and kernels stay the caller's. Returns 0 or ENOMEM. */
int reduce_new(struct reduce **r, const struct shard *shard, struct comm *comm, struct kernels *kernels, const struct reduce_options *o);
void reduce_destroy(struct reduce **r);		/* takes NULL; not between begin and end */

/*
 * reduce_begin - grads: [n], being filled by backward. below: n_below (at most 32) buffers [n] that are added to it, in this order,
 * before ranks are. All stay the caller's; below is only read.
 */
void reduce_begin(struct reduce *r, float *grads, float *const *below, int n_below);

/* reduce_ready - elements from `from` to the end are final in this rank's grads. Not before what an earlier call said. Never waits. */
void reduce_ready(struct reduce *r, int64_t from);
void reduce_poll(struct reduce *r);

/* What became of the overlap. */
struct reduce_stats {
	double inside_s;		/* spent in reduce_ready and reduce_poll: part of backward's time */
	double exposed_s;		/* spent in reduce_end */
	double early;			/* share of the elements that were through before reduce_end, 0..1 */
};

/*
 * reduce_end - everything is final: waits for the rest. Afterwards grads[shard.begin .. shard.end) is the sum over all lanes and ranks, the
 * rest is spoilt. stats may be NULL.
 */
void reduce_end(struct reduce *r, struct reduce_stats *stats);

#endif
