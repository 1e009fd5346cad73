/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/kernels/peers.h"

#include "base/log/log.h"
#include "engine/kernels/kernels_internal.h"

static const struct kernels_peers_ops *
ops_of(const struct kernels *k)
{
	if (!kernels_peers_are_open(k))
		log_fatal("kernels.peers", "why=\"a transfer without kernels_peers_open\"");
	return k->backend->peers;
}

int
kernels_peers_find(struct kernels *k, struct kernels_peers_offer *offer, struct err_note *note)
{
	if (k->backend->peers == NULL)
		return err_expect(note, ERR_UNSUPPORTED, "transfers between devices", "backend cuda", "%s", k->compute_class);
	return k->backend->peers->find(k, offer, note);
}

int
kernels_peers_id(struct kernels *k, void *id, struct err_note *note)
{
	return k->backend->peers->id(k, id, note);
}

int
kernels_peers_open(struct kernels *k, const void *id, int rank, int n_ranks, struct err_note *note)
{
	int rc = k->backend->peers->open(k, id, rank, n_ranks, note);

	k->peers_open = rc == 0;
	return rc;
}

void
kernels_peers_close(struct kernels *k)
{
	if (k->peers_open)
		k->backend->peers->close(k);
	k->peers_open = false;
}

bool
kernels_peers_are_open(const struct kernels *k)
{
	return k->peers_open;
}

void
kernels_peers_begin(struct kernels *k)
{
	ops_of(k)->begin(k);
}

void
kernels_peers_end(struct kernels *k)
{
	ops_of(k)->end(k);
}

void
kernels_peers_exchange(struct kernels *k, int partner, const void *send, size_t n_send, void *recv, size_t n_recv)
{
	ops_of(k)->exchange(k, partner, send, n_send, recv, n_recv);
}

void
kernels_peers_add(struct kernels *k, float *y, const float *x, int64_t n)
{
	ops_of(k)->add(k, y, x, n);
}
