/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peers - exchange of device memory between kernels handles of several processes, one per rank, without the
 * host. The backend cuda uses NCCL. Other backends have no peers; kernels_peers_find then returns
 * ERR_UNSUPPORTED.
 *
 * Transfers have a queue of their own beside the handle's. After kernels_peers_begin, transfers see the
 * handle's work so far. After kernels_peers_end, later work of the handle sees what the transfers have
 * written. Between the two the handle must neither touch memory that a transfer writes nor write memory that
 * a transfer reads. Calls return before their work is done, except find, id and open.
 *
 * Two ranks must issue their common transfers in the same order, and all ranks must agree on one order of all
 * transfers: a transfer waits for its partner and for all transfers issued before it. A failure of the
 * library ends the process with its name and a hint.
 */
#ifndef SALT_KERNELS_PEERS_H
#define SALT_KERNELS_PEERS_H

#include "engine/kernels/kernels.h"

#define KERNELS_PEERS_ID 128		/* bytes */

/* What a rank reports to the others before peers are opened. */
struct kernels_peers_offer {
	char library[32];		/* library and version: "NCCL 2.27.3" */
	char device[64];		/* PCI bus id. Two ranks of a host with the same one share a card,
					 * which NCCL rejects */
};

/*
 * kernels_peers_find - checks that this process has the library: libnccl.so.2, or the one that SALT_NCCL
 * names in the environment; "none" forbids it. Returns 0, ERR_UNSUPPORTED (a backend without peers),
 * ERR_CONFIG with what was searched.
 * kernels_peers_id - on one rank: makes id [KERNELS_PEERS_ID] for kernels_peers_open on all ranks. Returns 0
 * or ERR_LIBRARY.
 * kernels_peers_open - collective: joins as rank of n_ranks. Returns 0, ERR_LIBRARY with NCCL's message,
 * ENOMEM; after an error another rank's call may have succeeded.
 * kernels_peers_close - does nothing for a handle without peers. Do not call it while transfers are under
 * way. kernels_destroy closes too.
 * kernels_peers_are_open - true if the calls below may be made.
 */
int kernels_peers_find(struct kernels *k, struct kernels_peers_offer *offer, struct err_note *note);
int kernels_peers_id(struct kernels *k, void *id, struct err_note *note);
int kernels_peers_open(struct kernels *k, const void *id, int rank, int n_ranks, struct err_note *note);
void kernels_peers_close(struct kernels *k);
bool kernels_peers_are_open(const struct kernels *k);

void kernels_peers_begin(struct kernels *k);
void kernels_peers_end(struct kernels *k);

/*
 * kernels_peers_exchange - sends device memory to partner and receives from it, both at once; 0 bytes: no
 * transfer in this direction. The partner makes the reverse call.
 */
void kernels_peers_exchange(struct kernels *k, int partner, const void *send, size_t n_send, void *recv, size_t n_recv);
/* kernels_peers_add - kernels_accumulate in the transfers' queue: y += x, n elements. */
void kernels_peers_add(struct kernels *k, float *y, const float *x, int64_t n);

#endif
