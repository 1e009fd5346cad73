/* SPDX-License-Identifier: Apache-2.0 */
/*
 * split - how the state of the optimiser is divided among ranks (ZeRO-1).
 *
 * The flat array of parameters consists of parts, each of which is divided among all ranks by itself: it is
 * halved, the halves are halved, and so on, so that each rank has one range of every part.
 *
 *   AdamW   one part, everything; it is cut between blocks of KERNELS_NORM_BLOCK elements
 *   Muon    what lies before the matrices of the layers, these, and what lies behind. The first and the last part are cut like AdamW's. The
 *           middle one is cut between tensors only, so that a rank owns whole matrices, where the work of the two sides is most alike.
 *
 * The blocks of the gradient's norm start anew with each part, and in the middle part with each tensor: so
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
	double cost;			/* of its update, in FLOPs */
	int64_t block;			/* number of its first norm block */
	int64_t second;			/* elements with a second moment before it */
};

struct optim_part {
	int64_t begin, end;
	int64_t block, second;		/* as a piece's */
	const struct optim_piece *pieces;	/* NULL: may be cut anywhere between blocks */
	int n_pieces;
};

struct optim_split {
	int64_t n;			/* elements of the flat array */
	int64_t n_blocks;		/* of the norm */
	int64_t n_second;		/* elements with a second moment: all but Muon's matrices */
	int n_parts;
	struct optim_part parts[OPTIM_PARTS];
	struct optim_piece *pieces;
};

/* optim_split_whole - AdamW's, of n elements: one part, nothing allocated. */
static inline struct optim_split
optim_split_whole(int64_t n)
{
	return (struct optim_split){.n = n, .n_blocks = (n + KERNELS_NORM_BLOCK - 1) / KERNELS_NORM_BLOCK, .n_second = n, .n_parts = 1,
	    .parts = {{.end = n}}};
}

/* optim_split_new - 0 or ENOMEM. The model may go afterwards. optim_split_destroy takes NULL. */
int optim_split_new(struct optim_split **s, const struct model *model, enum optim_kind kind);
void optim_split_destroy(struct optim_split **s);

/*
 * optim_split_range - the range of a part that rank owns of n_ranks (a power of two); may be empty. Pure, as
 * all that follow.
 */
void optim_split_range(const struct optim_part *part, int rank, int n_ranks, int64_t *begin, int64_t *end);

/*
 * optim_split_cost - of the update of elements [begin, end) of a part, made by halving: FLOPs, or what moving
 * elements amounts to.
 */
double optim_split_cost(const struct optim_part *part, int64_t begin, int64_t end);

/*
 * optim_split_second - elements with a second moment before element at: the number of at in the array of
 * second moments.
 */
int64_t optim_split_second(const struct optim_split *s, int64_t at);

/*
 * optim_split_norm - fills the blocks (n_blocks, host) of elements [begin, end) of a part, in which rank's
 * range lies. grads: [n], device.
 */
void optim_split_norm(const struct optim_part *part, struct kernels *k, const float *grads, int64_t begin, int64_t end, double *blocks);

#endif
