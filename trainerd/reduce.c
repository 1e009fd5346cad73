#include "trainerd/reduce.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/kernels/kernels.h"
#include "base/log/log.h"
#include "base/mem/mem.h"

#define SLOTS 8				/* buckets under way */
#define MAX_BELOW 32

struct bucket {
	int64_t begin, end;
	int owner;
};

/* A bucket under way: its number, the distance (as a power of two) it is at, and where what comes in is put. */
struct slot {
	int64_t bucket;				/* -1: free */
	int level;
	bool sending;
	float *in;
};

struct reduce {
	struct shard shard;
	struct comm *comm;
	struct kernels *kernels;
	bool any_order;
	struct bucket *buckets;			/* from the end of the array downwards */
	int64_t n_buckets;
	struct slot slots[SLOTS];
	float *grads;
	float *below[MAX_BELOW];
	int n_below;
	int64_t from;				/* final from here on */
	int64_t next;				/* bucket that is admitted next */
	int64_t through;			/* elements of buckets that are through */
	double inside_s;
};

static double
seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int
later_first(const void *a, const void *b)
{
	const struct bucket *x = a, *y = b;

	return x->begin < y->begin ? 1 : x->begin > y->begin ? -1 : 0;
}

/* Every rank's range in pieces of at most `size` elements. */
static int
make_buckets(struct reduce *r, int64_t size)
{
	int n_ranks = comm_size(r->comm);
	int64_t n = 0;

	for (int pass = 0; pass < 2; pass++) {
		n = 0;
		for (int rank = 0; rank < n_ranks; rank++) {
			struct shard part;

			shard_range(&part, r->shard.n, rank, n_ranks);
			for (int64_t at = part.begin; at < part.end; at += size, n++)
				if (pass == 1)
					r->buckets[n] = (struct bucket){.begin = at, .end = at + size < part.end ? at + size : part.end, .owner = rank};
		}
		if (pass == 0 && (r->buckets = mem_alloc((size_t)n, sizeof(*r->buckets))) == NULL)
			return ENOMEM;
	}
	r->n_buckets = n;
	qsort(r->buckets, (size_t)n, sizeof(*r->buckets), later_first);
	return 0;
}

int
reduce_new(struct reduce **out, const struct shard *shard, struct comm *comm, struct kernels *kernels, const struct reduce_options *o)
{
	struct reduce *r = calloc(1, sizeof(*r));
	int64_t size = o->bucket > 0 ? o->bucket : REDUCE_BUCKET;

	*out = NULL;
	if (r == NULL)
		return ENOMEM;
	r->shard = *shard;
	r->comm = comm;
	r->kernels = kernels;
	r->any_order = o->any_order;
	size = (size + KERNELS_NORM_BLOCK - 1) / KERNELS_NORM_BLOCK * KERNELS_NORM_BLOCK;
	if (size > COMM_OP_MAX)
		size = COMM_OP_MAX;
	if (make_buckets(r, size) != 0)
		goto fail;
	if (size > shard->n)
		size = shard->n;
	for (int i = 0; i < SLOTS; i++) {
		r->slots[i].bucket = -1;
		if (comm_size(comm) > 1 && !r->any_order && i < r->n_buckets &&
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
	free(r->buckets);
	free(r);
	*reduce = NULL;
}

/* The next transfer of the slot's bucket, or its end. */
static void
slot_start(struct reduce *r, int i)
{
	struct slot *slot = &r->slots[i];
	const struct bucket *b = &r->buckets[slot->bucket];
	int rank = comm_rank(r->comm), partner = rank ^ 1 << slot->level, tag = (int)(slot->bucket % COMM_TAGS);
	float *x = r->grads + b->begin;

	kernels_sync(r->kernels);
	if (r->any_order && comm_size(r->comm) > 1) {
		slot->sending = true;
		comm_start_reduce(r->comm, i, b->owner, x, b->end - b->begin);
	} else if (slot->level == r->shard.n_levels) {
		slot->bucket = -1;
		r->through += b->end - b->begin;
	} else if ((rank ^ b->owner) >> slot->level & 1) {
		slot->sending = true;
		comm_start_send(r->comm, i, partner, tag, x, b->end - b->begin);
	} else {
		comm_start_recv(r->comm, i, partner, tag, slot->in, b->end - b->begin);
	}
}

static void
slot_admit(struct reduce *r, int i)
{
	const struct bucket *b = &r->buckets[r->next];

	for (int k = 0; k < r->n_below; k++)
		kernels_accumulate(r->kernels, r->grads + b->begin, r->below[k] + b->begin, b->end - b->begin);
	r->slots[i].bucket = r->next++;
	r->slots[i].level = 0;
	r->slots[i].sending = false;
	slot_start(r, i);
}

/* One look at every slot: what has ended goes on, what is free takes the next bucket that is ready. Did anything? */
static bool
reduce_turn(struct reduce *r)
{
	bool moved = false;

	for (int i = 0; i < SLOTS; i++) {
		struct slot *slot = &r->slots[i];
		const struct bucket *b;

		while (slot->bucket < 0 && r->next < r->n_buckets && r->buckets[r->next].begin >= r->from) {
			slot_admit(r, i);
			moved = true;
		}
		if (slot->bucket < 0 || !comm_test(r->comm, i))
			continue;
		moved = true;
		b = &r->buckets[slot->bucket];
		if (slot->sending) {
			slot->bucket = -1;
			r->through += b->end - b->begin;
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
	r->grads = grads;
	for (int k = 0; k < n_below; k++)
		r->below[k] = below[k];
	r->n_below = n_below;
	r->from = r->shard.n;
	r->next = r->through = 0;
	r->inside_s = 0;
}

void
reduce_poll(struct reduce *r)
{
	double start = seconds_now();

	while (reduce_turn(r))
		;
	r->inside_s += seconds_now() - start;
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
	double start = seconds_now();
	int64_t early = r->through;

	r->from = 0;
	while (r->through < r->shard.n)
		if (!reduce_turn(r))
			comm_wait_any(r->comm);
	if (stats != NULL)
		*stats = (struct reduce_stats){.inside_s = r->inside_s, .exposed_s = seconds_now() - start,
		    .early = r->shard.n > 0 ? (double)early / (double)r->shard.n : 1};
}
