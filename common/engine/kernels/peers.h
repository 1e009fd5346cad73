/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peers - contexts of several processes, one for each rank, that exchange device memory without the host: NCCL on the backend cuda. Other
 * backends have none; kernels_peers_find says so.
 *
 * Transfers have a queue of their own beside the context's. kernels_peers_begin: what follows in it sees the context's work so far.
 * kernels_peers_end: later work of the context sees what the transfers have written. Between the two the context must not touch memory that
 * a transfer writes, nor write what one reads. Calls return before their work is done, except find, id and open.
 *
 * Two ranks must give their common transfers in the same order, and all ranks must agree on one order of all transfers: a transfer waits for
 * its partner and all that were given before it. A failure of the library ends the process, with its name and what to do.
 */
#ifndef SALT_KERNELS_PEERS_H
#define SALT_KERNELS_PEERS_H

#include "engine/kernels/kernels.h"

#define KERNELS_PEERS_ID 128		/* bytes */

/* What a rank can offer the others. */
struct kernels_peers_offer {
	char library[32];		/* "NCCL 2.27.3" */
	char device[64];		/* the same for two ranks of a host: one card, which NCCL refuses */
};

/*
 * kernels_peers_find - whether this process has the library: libnccl.so.2, or what the environment's SALT_NCCL names; "none" forbids it. 0,
 * ERR_UNSUPPORTED (a backend without), ERR_CONFIG with what was searched, ERR_LIBRARY.
 * kernels_peers_id - on one rank: id [KERNELS_PEERS_ID] for kernels_peers_open of all of them. 0 or ERR_LIBRARY.
 * kernels_peers_open - collective: this is rank of n_ranks. 0, ERR_LIBRARY with NCCL's message, ENOMEM; then another rank's may have succeeded.
 * kernels_peers_close - takes a context without; not while transfers are under way. kernels_destroy closes too.
 * kernels_peers_are_open - whether the calls below may be made.
 */
int kernels_peers_find(struct kernels *k, struct kernels_peers_offer *offer, struct err_note *note);
int kernels_peers_id(struct kernels *k, void *id, struct err_note *note);
int kernels_peers_open(struct kernels *k, const void *id, int rank, int n_ranks, struct err_note *note);
void kernels_peers_close(struct kernels *k);
bool kernels_peers_are_open(const struct kernels *k);

void kernels_peers_begin(struct kernels *k);
void kernels_peers_end(struct kernels *k);

/* kernels_peers_exchange - device memory to and from partner, both at once; 0 bytes: not this way. The partner does the reverse. */
void kernels_peers_exchange(struct kernels *k, int partner, const void *send, size_t n_send, void *recv, size_t n_recv);
/* kernels_peers_add - kernels_accumulate in the transfers' queue: y += x, n elements. */
void kernels_peers_add(struct kernels *k, float *y, const float *x, int64_t n);

#endif
