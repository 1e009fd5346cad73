/* SPDX-License-Identifier: Apache-2.0 */
/*
 * split - divides the state of the optimiser among ranks (ZeRO-1).
 *
 * The flat array of parameters consists of parts. Each part is divided among all ranks separately: it is
 * halved, the halves are halved, and so on, so that each rank has one range of every part.
 *
 *   AdamW   one part, the whole array; it is cut between blocks of KERNELS_NORM_BLOCK elements
 *   Muon    three parts: what precedes the matrices of the layers, these matrices, and what follows them. The
 *           first and the last part are cut like AdamW's. The middle one is cut only between tensors, so that
 *           a rank owns whole matrices, at the point where the work of both sides is most similar.
 *
 * The blocks of the gradient's norm start anew with each part, and in the middle part with each tensor, so
 * they do not depend on the number of ranks.
 */
#ifndef SALT_OPTIM_SPLIT_H
#define SALT_OPTIM_SPLIT_H

#include <stdint.h>

#include "engine/model/model.h"
#include "engine/optim/optim.h"

#define OPTIM_PARTS 3

/* A tensor of the middle part. */
struct optim_piece {
	int64_t begin, end;
	int tensor;
	double cost;			/* FLOPs of its update */
	int64_t block;			/* index of its first norm block */
	int64_t second;			/* number of elements before it that have a second moment */
};

struct optim_part {
	int64_t begin, end;
	int64_t block, second;		/* as in struct optim_piece */
	const struct optim_piece *pieces;	/* NULL: may be cut between any two blocks */
	int n_pieces;
};

struct optim_split {
	int64_t n;			/* elements of the flat array */
	int64_t n_blocks;		/* number of norm blocks */
	int64_t n_second;		/* elements with a second moment: all except Muon's matrices */
	int n_parts;
	struct optim_part parts[OPTIM_PARTS];
	struct optim_piece *pieces;
};

/* optim_split_whole - AdamW's division of n elements: one part; allocates nothing. */
static inline struct optim_split
optim_split_whole(int64_t n)
{
	return (struct optim_split){.n = n, .n_blocks = (n + KERNELS_NORM_BLOCK - 1) / KERNELS_NORM_BLOCK, .n_second = n, .n_parts = 1,
	    .parts = {{.end = n}}};
}

/* optim_split_new - 0 or ENOMEM. The model may be destroyed afterwards. optim_split_destroy accepts NULL */
int optim_split_new(struct optim_split **s, const struct model *model, enum optim_kind kind);
void optim_split_destroy(struct optim_split **s);

/*
 * optim_split_range - the range of a part that rank of n_ranks (a power of two) owns; it may be empty. Pure,
 * like all functions below.
 */
void optim_split_range(const struct optim_part *part, int rank, int n_ranks, int64_t *begin, int64_t *end);

/*
 * optim_split_cost - the cost of updating elements [begin, end) of a part, a range made by halving: FLOPs,
 * with the time to move elements through memory counted as FLOPs.
 */
double optim_split_cost(const struct optim_part *part, int64_t begin, int64_t end);

/*
 * optim_split_second - number of elements before element `at` that have a second moment, which is the index
 * of `at` in the array of second moments.
 */
int64_t optim_split_second(const struct optim_split *s, int64_t at);

/*
 * optim_split_norm - writes the norm blocks of elements [begin, end) of a part, a rank's range, into
 * blocks[n_blocks], host memory. grads: [n], device memory.
 */
void optim_split_norm(const struct optim_part *part, struct kernels *k, const float *grads, int64_t begin, int64_t end, double *blocks);

#endif
